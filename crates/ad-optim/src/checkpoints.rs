use crate::checkpoint::{Checkpoint, CheckpointProblem};
use crate::{Error, files};
use std::fs;
use std::path::{Path, PathBuf};

/// When a run is saved, and which of its files are kept.
///
/// The files lie in one folder, which is made if it is missing and which belongs to one run: `step-000000000100.ckpt` is
/// the run after step 100. A file is there whole or not at all, whatever happens while it is written: the bytes go to a
/// temporary file, which is synced to the disk and renamed. Old files are removed once the new one is there. If one
/// cannot be written, say because the disk is full, the run ends with an error, and the files before it stay.
///
/// A checkpoint is written after each step whose number is a multiple of [`every`](Checkpoints::every), once its
/// observers have seen it, and when the run ends, unless by a non-finite number. So a run that was stopped by
/// [`max_time`](crate::Trainer::max_time) can go on, and one that has reached [`max_steps`](crate::Trainer::max_steps)
/// can go on further. A checkpoint holds the history so far: of long runs, record epochs and not steps.
///
/// # Going on
///
/// A run that goes on by [`resume_latest`](crate::Trainer::resume_latest) or
/// [`resume_from`](crate::Trainer::resume_from) has the bits of one that was never broken off, wherever that happened,
/// within an epoch too, and whatever the number of threads before and after. It must have the objective, the method and
/// its settings, the batches and their seed, and the held-out samples that it had; most of that is checked. Limits,
/// tolerances, observers and threads may change.
///
/// # Example
///
/// A program to be started again after each time that it was killed:
///
/// ```
/// use ad_optim::{Adam, Checkpoints, Trainer, from_fn};
///
/// # let folder = std::env::temp_dir().join(format!("ad-optim-checkpoints-{}", std::process::id()));
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let trainer = |steps| {
///     Trainer::new(&f, Adam::new(0.1), vec![1.0])
///         .max_steps(steps)
///         .checkpoints(Checkpoints::new(&folder).every(10).keep_last(2))
///         .resume_latest()
/// };
/// trainer(25).run()?;
/// let resumed = trainer(40).run()?; // goes on after step 25
/// let unbroken = Trainer::new(&f, Adam::new(0.1), vec![1.0]).max_steps(40).run()?;
/// assert_eq!(resumed, unbroken);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "checkpoints are written by a trainer that is given them"]
pub struct Checkpoints {
    folder: PathBuf,
    every: usize,
    keep_last: usize,
    keep_best: bool,
}

impl Checkpoints {
    /// Checkpoints in `folder`, after every 100 steps, the last three of which are kept.
    pub fn new(folder: impl AsRef<Path>) -> Checkpoints {
        Checkpoints { folder: folder.as_ref().to_owned(), every: 100, keep_last: 3, keep_best: false }
    }

    /// Sets after how many steps one is written, at least 1; default 100.
    pub fn every(self, steps: usize) -> Checkpoints {
        Checkpoints { every: steps, ..self }
    }

    /// Sets how many are kept, at least 1; default 3. `usize::MAX` keeps all.
    pub fn keep_last(self, checkpoints: usize) -> Checkpoints {
        Checkpoints { keep_last: checkpoints, ..self }
    }

    /// Keeps one more, `best.ckpt`: the run as it was when its best point was found.
    ///
    /// With minibatches or validation it is written at the end of each epoch that is the best so far: the one with the
    /// smallest value on the validation samples, or else the smallest mean (under
    /// [`maximise`](crate::Trainer::maximise) the largest). With full batches, where most steps may be, it is the first
    /// checkpoint after the best point was found. (Every checkpoint holds the best point so far, too:
    /// [`Checkpoint::best`].) What a run found while it kept none is not in the file until a better point is found.
    pub fn keep_best(self) -> Checkpoints {
        Checkpoints { keep_best: true, ..self }
    }

    /// The latest checkpoint in the folder; `None` if there is none, or no such folder.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the folder cannot be read.
    pub fn latest(&self) -> Result<Option<PathBuf>, Error> {
        Ok(steps_in(&self.folder)?.pop().map(|(_, path)| path))
    }

    pub(crate) fn check_settings(&self) -> Result<(), Error> {
        for (setting, count) in [("number of steps", self.every), ("number of kept files", self.keep_last)] {
            if count == 0 {
                return Err(Error::setting("Checkpoints", setting, 0.0, "at least 1"));
            }
        }
        Ok(())
    }

    /// Readies the folder for a run that has made `steps` steps.
    pub(crate) fn prepare(&self, steps: usize) -> Result<(), Error> {
        if self.folder.exists() && !self.folder.is_dir() {
            return Err(not_a_folder(&self.folder));
        }
        files::make_folder(&self.folder)?;
        if let Some((step, _)) = steps_in(&self.folder)?.pop()
            && step > steps
        {
            let problem = CheckpointProblem::FolderInUse { step };
            return Err(Error::Checkpoint { path: self.folder.clone(), problem });
        }
        // What a program left that was killed while it wrote.
        for (name, path) in names_in(&self.folder)? {
            if is_abandoned(&name) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    pub(crate) fn is_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.every)
    }

    pub(crate) fn keeps_best(&self) -> bool {
        self.keep_best
    }

    /// Value and gradient norm of the best point of which there is a checkpoint. One that cannot be read, and what an
    /// earlier run left that kept none later on, is replaced as soon as a best point is saved.
    pub(crate) fn best_there(&self) -> Option<(f64, f64)> {
        let path = self.folder.join(BEST);
        // A device in its place might never end.
        let best = path.is_file().then(|| Checkpoint::read(&path).ok())??.loop_state.best?;
        Some((best.value, best.grad_norm))
    }

    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.write_to(self.folder.join(file_name(checkpoint.steps)), checkpoint)?;
        let mut steps = steps_in(&self.folder)?;
        steps.truncate(steps.len().saturating_sub(self.keep_last));
        for (_, path) in steps {
            fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }

    pub(crate) fn write_best(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.write_to(self.folder.join(BEST), checkpoint)
    }

    fn write_to(&self, path: PathBuf, checkpoint: &Checkpoint) -> Result<(), Error> {
        match checkpoint.to_bytes() {
            Ok(bytes) => files::replace(&path, &bytes),
            Err(problem) => Err(Error::Checkpoint { path, problem }),
        }
    }
}

const BEST: &str = "best.ckpt";
const BEFORE: &str = "step-";
const AFTER: &str = ".ckpt";

fn file_name(step: usize) -> String {
    format!("{BEFORE}{step:012}{AFTER}")
}

fn step_of(name: &str) -> Option<usize> {
    let digits = name.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    // `parse` takes a sign, too.
    let step = digits.parse().ok()?;
    (file_name(step) == name).then_some(step)
}

/// Whether this is a temporary file of a checkpoint, as `files::replace` names them.
fn is_abandoned(name: &str) -> bool {
    let Some(name) = name.strip_suffix(".tmp") else { return false };
    let Some((name, numbers)) = name.rsplit_once('.') else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.split_once('-').is_some_and(|(process, number)| is_number(process) && is_number(number))
        && (name == BEST || step_of(name).is_some())
}

fn not_a_folder(path: &Path) -> Error {
    Error::Checkpoint { path: path.to_owned(), problem: CheckpointProblem::NotAFolder }
}

/// The files of a folder, by their names; none if there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(_) if folder.is_file() => return Err(not_a_folder(folder)),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path()));
        }
    }
    Ok(names)
}

/// The checkpoints of a folder in the order of their steps, the best one aside.
fn steps_in(folder: &Path) -> Result<Vec<(usize, PathBuf)>, Error> {
    let names = names_in(folder)?.into_iter();
    let mut steps: Vec<_> = names.filter_map(|(name, path)| Some((step_of(&name)?, path))).collect();
    steps.sort();
    Ok(steps)
}

/// The file that a path means: itself, or the latest checkpoint in the folder that it is.
pub(crate) fn file_at(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    match steps_in(path)?.pop() {
        Some((_, file)) => Ok(file),
        None => Err(Error::Checkpoint { path: path.to_owned(), problem: CheckpointProblem::NoneInFolder }),
    }
}
