//! What a checkpoint holds, and its bytes. docs/checkpoints.md describes the format.

use crate::{Batches, Error, Record, StateSlice, StopReason, files};
use ad_core::durable::Crc64;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The state of a run after one of its steps, as a file holds it.
///
/// A [`Trainer`](crate::Trainer) writes such files as [`Checkpoints`](crate::Checkpoints) say, and goes on from one by
/// [`resume_from`](crate::Trainer::resume_from). This type is for programs that want the point without the run: to use
/// what was learned, or to look at what happened.
///
/// Files are the same on every machine, and checked by a checksum of 64 bits: a file of which any byte was changed, or
/// the end is missing, is refused. All numbers come back with the bits that they had. docs/checkpoints.md in the
/// repository describes the format.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, Checkpoint, Checkpoints, Trainer, from_fn};
///
/// # let folder = std::env::temp_dir().join(format!("ad-optim-checkpoint-{}", std::process::id()));
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, Adam::new(0.1), vec![1.0])
///     .max_steps(20)
///     .checkpoints(Checkpoints::new(&folder).every(8))
///     .run()?;
/// let latest = Checkpoint::read(&folder)?;
/// assert_eq!((latest.steps, &latest.x), (20, &out.x)); // every 8 steps, and at the end
/// assert_eq!(latest.best().map(|(x, _)| x), Some(&out.best_x[..]));
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Two are equal if their files would have the same bytes: NaN is equal to NaN, and times count.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The name of the method, see [`Method::name`](crate::Method::name).
    pub method: String,
    /// Its settings, see [`Method::report_settings`](crate::Method::report_settings).
    pub settings: Vec<(String, f64)>,
    /// What the method remembers.
    pub state: Vec<StateSlice>,
    /// The names of the unknowns; empty if they have none.
    pub names: Vec<String>,
    /// How the samples are divided into batches.
    pub batches: Batches,
    /// Whether the run looks for a maximum.
    pub maximise: bool,
    /// The number of samples of the objective.
    pub samples: usize,
    /// The samples that are held out, in increasing order.
    pub held_out: Vec<usize>,
    /// The number of updates made.
    pub steps: usize,
    /// The number of epochs completed.
    pub epochs: usize,
    /// How often value and gradient were asked for.
    pub evaluations: usize,
    /// The time that the run had taken, over all the programs that had a part in it.
    pub time: Duration,
    /// The point after the last step.
    pub x: Vec<f64>,
    /// What was recorded on the way.
    pub history: Vec<Record>,
    pub(crate) loop_state: LoopState,
}

/// What only the loop needs to go on. Values are those of the function that is minimised: under `maximise`, of −f.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoopState {
    /// Where the run began.
    pub start: Vec<f64>,
    /// How many samples of the current epoch had their turn.
    pub position: usize,
    pub first_value: f64,
    /// Value and gradient norm over all samples at x, if they are known.
    pub measured: Option<(f64, f64)>,
    /// Value and gradient over all samples at x, if the next step need not ask for them.
    pub evaluated: Option<(f64, Vec<f64>)>,
    pub last: Option<Known>,
    pub best: Option<Known>,
    pub best_epoch: Option<Known>,
    /// The point with the smallest value over the validation samples, and the epoch at whose end it was.
    pub best_validation: Option<(Known, usize)>,
    /// The value over the validation samples at the end of the last epoch.
    pub validation: Option<f64>,
    pub tally: Tally,
    /// The last mean that improved, and the number of epochs since.
    pub improved: (f64, usize),
    /// The reason for which the method ended the run.
    pub ended: Option<StopReason>,
}

/// A point and what was found there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub x: Vec<f64>,
    pub value: f64,
    pub grad_norm: f64,
}

/// Running means over the batches of the current epoch, weighted by their sizes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub samples: usize,
    pub value: f64,
    /// Of no length where every epoch is one step.
    pub gradient: Vec<f64>,
    pub rate: f64,
    pub time: Duration,
}

/// Why a checkpoint cannot be used. `Display` says it in words, and what to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CheckpointProblem {
    /// The file does not begin as checkpoints do.
    NotACheckpoint,
    /// The format is of another version.
    UnknownVersion {
        /// The version of the file.
        found: u32,
        /// The one this library reads and writes.
        known: u32,
    },
    /// The file is shorter or longer than its header says.
    Length {
        /// The bytes there must be; `None` where the header itself is cut off.
        expected: Option<u64>,
        /// The bytes there are.
        found: u64,
    },
    /// The bytes are not those that were written.
    Checksum {
        /// The checksum that the file ends with.
        stored: u64,
        /// The checksum of its bytes.
        computed: u64,
    },
    /// The bytes are those that were written, but make no sense: they were not written by this library.
    Malformed {
        /// Where in the file.
        offset: u64,
        /// What was found.
        found: &'static str,
    },
    /// The checkpoint belongs to another run than the one that wants to go on from it.
    Other {
        /// In what they differ, such as `"rule"`, `"number of unknowns"` or `"setting beta1"`.
        what: String,
        /// What the checkpoint has.
        saved: String,
        /// What the run has.
        given: String,
    },
    /// The folder holds no checkpoint to go on from.
    NoneInFolder,
    /// The folder holds checkpoints of later steps than the run has made, which a new one would be mixed up with.
    FolderInUse {
        /// The step of the latest.
        step: usize,
    },
    /// The path given for the folder is that of a file.
    NotAFolder,
    /// The run was to go on from the latest checkpoint, but there is no setting that says where checkpoints are.
    NoFolder,
}

impl CheckpointProblem {
    pub(crate) fn other(what: &str, saved: String, given: String) -> Self {
        CheckpointProblem::Other { what: what.to_owned(), saved, given }
    }
}

impl fmt::Display for CheckpointProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointProblem::NotACheckpoint => write!(f, "this is no checkpoint of ad-optim"),
            CheckpointProblem::UnknownVersion { found, known } => write!(
                f,
                "the checkpoint has version {found} of the format, and this library knows version {known}; \
                 resume with the version of ad-optim that wrote it"
            ),
            CheckpointProblem::Length { expected: Some(expected), found } => write!(
                f,
                "the checkpoint should have {expected} bytes and has {found}: it was cut off, or something was added; \
                 use another one"
            ),
            CheckpointProblem::Length { expected: None, found } => {
                write!(f, "the checkpoint is cut off after {found} bytes, within its header; use another one")
            }
            CheckpointProblem::Checksum { stored, computed } => write!(
                f,
                "the checkpoint is damaged: its checksum is {stored:016x}, that of its bytes {computed:016x}; \
                 use another one"
            ),
            CheckpointProblem::Malformed { offset, found } => {
                write!(f, "the checkpoint has {found} at byte {offset}, which no run leaves; use another one")
            }
            CheckpointProblem::Other { what, saved, given } => write!(
                f,
                "the checkpoint is one of another run: its {what} is {saved}, and here it is {given}; \
                 resume with what wrote the checkpoint, or begin anew"
            ),
            CheckpointProblem::NoneInFolder => {
                write!(f, "there is no checkpoint in this folder; begin without resume_from, or use resume_latest")
            }
            CheckpointProblem::FolderInUse { step } => write!(
                f,
                "the folder holds a checkpoint of step {step}, which this run has not reached; \
                 go on from it with resume_latest, or use a folder of its own for each run"
            ),
            CheckpointProblem::NotAFolder => {
                write!(f, "this is a file, where checkpoints need a folder; give Checkpoints::new the path of a folder")
            }
            CheckpointProblem::NoFolder => {
                write!(f, "resume_latest looks into the folder of the checkpoints; set it by Trainer::checkpoints")
            }
        }
    }
}

impl PartialEq for Checkpoint {
    fn eq(&self, other: &Checkpoint) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Checkpoint {
    /// Reads a checkpoint: a file, or the latest one in a folder.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the file cannot be read, and [`Error::Checkpoint`] if it is no whole checkpoint.
    pub fn read(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = crate::checkpoints::file_at(path.as_ref())?;
        Checkpoint::from_bytes(&files::read(&path)?).map_err(|problem| Error::Checkpoint { path, problem })
    }

    /// The best point at the time and its value, as [`Trainer::best`](crate::Trainer::best) has it.
    pub fn best(&self) -> Option<(&[f64], f64)> {
        let best = self.loop_state.best_epoch.as_ref().or(self.loop_state.best.as_ref())?;
        Some((&best.x, if self.maximise { -best.value } else { best.value }))
    }

    /// Reads the bytes of a checkpoint.
    ///
    /// # Errors
    ///
    /// What keeps them from being one. They may come from anywhere: no count is believed before the bytes it stands for
    /// are seen.
    ///
    /// ```
    /// use ad_optim::{Checkpoint, CheckpointProblem};
    ///
    /// let problem = Checkpoint::from_bytes(b"x,y\n1,2\n").unwrap_err();
    /// assert_eq!(problem, CheckpointProblem::NotACheckpoint);
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointProblem> {
        let body = body(bytes)?;
        let mut reader = Reader { bytes: body, position: 0 };
        let mut checkpoint = Checkpoint::empty();
        checkpoint.exchange(&mut reader)?;
        if reader.position < body.len() {
            return Err(reader.malformed("more than a checkpoint holds"));
        }
        match checkpoint.contradiction() {
            None => Ok(checkpoint),
            Some(found) => Err(reader.malformed(found)),
        }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    ///
    /// [`CheckpointProblem::Malformed`] for a count that no file may hold, above
    /// 2⁵³: a size of batches, or a number in the state of a rule.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointProblem> {
        let mut writer = Writer(HEADER.to_vec());
        writer.0.extend([0; 8]);
        // What a writer is lent it gives back as it was.
        self.clone().exchange(&mut writer)?;
        let mut bytes = writer.0;
        let length = (bytes.len() - HEADER_LENGTH) as u64;
        bytes[HEADER.len()..HEADER_LENGTH].copy_from_slice(&length.to_le_bytes());
        let checksum = crc64(&bytes);
        bytes.extend(checksum.to_le_bytes());
        Ok(bytes)
    }

    fn empty() -> Checkpoint {
        Checkpoint {
            method: String::new(),
            settings: Vec::new(),
            state: Vec::new(),
            names: Vec::new(),
            batches: Batches::full(),
            maximise: false,
            samples: 0,
            held_out: Vec::new(),
            steps: 0,
            epochs: 0,
            evaluations: 0,
            time: Duration::ZERO,
            x: Vec::new(),
            history: Vec::new(),
            loop_state: LoopState::default(),
        }
    }

    /// Shows every part to `codec`, which writes it or sets it. One visit serves both, so that the two cannot differ.
    fn exchange<C: Codec>(&mut self, codec: &mut C) -> Result<(), CheckpointProblem> {
        codec.text(&mut self.method)?;
        codec.list(&mut self.settings, 16, |codec, (name, value)| {
            codec.text(name)?;
            codec.float(value)
        })?;
        codec.list(&mut self.state, 17, exchange_slice)?;
        codec.list(&mut self.names, 8, |codec, name| codec.text(name))?;
        exchange_batches(codec, &mut self.batches)?;
        codec.flag(&mut self.maximise)?;
        codec.count(&mut self.samples)?;
        codec.list(&mut self.held_out, 8, |codec, sample| codec.count(sample))?;
        codec.count(&mut self.steps)?;
        codec.count(&mut self.epochs)?;
        codec.count(&mut self.evaluations)?;
        codec.time(&mut self.time)?;
        codec.floats(&mut self.x)?;
        codec.list(&mut self.history, 57, exchange_record)?;
        let loop_state = &mut self.loop_state;
        codec.floats(&mut loop_state.start)?;
        codec.count(&mut loop_state.position)?;
        codec.float(&mut loop_state.first_value)?;
        codec.option(&mut loop_state.measured, |codec, (value, grad_norm)| {
            codec.float(value)?;
            codec.float(grad_norm)
        })?;
        codec.option(&mut loop_state.evaluated, |codec, (value, gradient)| {
            codec.float(value)?;
            codec.floats(gradient)
        })?;
        codec.option(&mut loop_state.last, exchange_known)?;
        codec.option(&mut loop_state.best, exchange_known)?;
        codec.option(&mut loop_state.best_epoch, exchange_known)?;
        codec.option(&mut loop_state.best_validation, |codec, (known, epoch)| {
            exchange_known(codec, known)?;
            codec.count(epoch)
        })?;
        codec.option(&mut loop_state.validation, |codec, value| codec.float(value))?;
        let tally = &mut loop_state.tally;
        codec.count(&mut tally.samples)?;
        codec.float(&mut tally.value)?;
        codec.floats(&mut tally.gradient)?;
        codec.float(&mut tally.rate)?;
        codec.time(&mut tally.time)?;
        codec.float(&mut loop_state.improved.0)?;
        codec.count(&mut loop_state.improved.1)?;
        exchange_stop(codec, &mut loop_state.ended)
    }

    /// In what the run of `saved` differs from that of this checkpoint, which was made by the run that wants to go on.
    pub(crate) fn difference(&self, saved: &Checkpoint) -> Option<CheckpointProblem> {
        let unequal = |what: &str, saved: &dyn fmt::Display, given: &dyn fmt::Display| {
            let (saved, given) = (saved.to_string(), given.to_string());
            (saved != given).then(|| CheckpointProblem::other(what, saved, given))
        };
        let held_out = |of: &Checkpoint| match of.held_out.len() {
            0 => "none".to_owned(),
            count => format!("{count}, with the hash {:016x}", hash(&of.held_out)),
        };
        let name = |of: &Checkpoint, i: usize| of.names.get(i).map_or("without a name".to_owned(), Clone::clone);
        let named = if saved.names == self.names { 0 } else { self.x.len() };
        let names = (0..named).find_map(|i| {
            let what = format!("name of unknown {i}");
            unequal(&what, &name(saved, i), &name(self, i))
        });
        let sense = |of: &Checkpoint| if of.maximise { "a maximum" } else { "a minimum" };
        unequal("rule", &saved.method, &self.method)
            .or_else(|| unequal("number of unknowns", &saved.x.len(), &self.x.len()))
            .or(names)
            .or_else(|| unequal("number of settings of the rule", &saved.settings.len(), &self.settings.len()))
            .or_else(|| {
                saved.settings.iter().zip(&self.settings).enumerate().find_map(|(i, (saved, given))| {
                    let same = saved.0 == given.0 && saved.1.to_bits() == given.1.to_bits();
                    let show = |(name, value): &(String, f64)| format!("{name} = {value}");
                    (!same).then(|| {
                        CheckpointProblem::other(&format!("setting {i} of the rule"), show(saved), show(given))
                    })
                })
            })
            .or_else(|| unequal("division into batches", &saved.batches.description(), &self.batches.description()))
            .or_else(|| unequal("goal", &sense(saved), &sense(self)))
            .or_else(|| unequal("number of samples", &saved.samples, &self.samples))
            .or_else(|| unequal("set of held-out samples", &held_out(saved), &held_out(self)))
    }

    /// What no run leaves, in numbers that a run would index or count with.
    fn contradiction(&self) -> Option<&'static str> {
        let dim = self.x.len();
        let LoopState { start, evaluated, last, best, best_epoch, best_validation, tally, .. } = &self.loop_state;
        let known = [last.as_ref(), best.as_ref(), best_epoch.as_ref(), best_validation.as_ref().map(|best| &best.0)];
        let mut points = known.iter().flatten().map(|known| &known.x).chain([start, &self.x]);
        match () {
            () if dim == 0 => Some("a point without components"),
            () if points.any(|x| x.len() != dim || x.iter().any(|x| !x.is_finite())) => {
                Some("points of different lengths, or not finite")
            }
            () if evaluated.as_ref().is_some_and(|(_, gradient)| gradient.len() != dim)
                || ![0, dim].contains(&tally.gradient.len()) =>
            {
                Some("a gradient of another length than the point")
            }
            () if !self.names.is_empty() && self.names.len() != dim => Some("another number of names than of unknowns"),
            () if self.held_out.windows(2).any(|pair| pair[0] >= pair[1]) => Some("samples out of order"),
            () => None,
        }
    }
}

fn exchange_slice<C: Codec>(codec: &mut C, slice: &mut StateSlice) -> Result<(), CheckpointProblem> {
    let mut counts = matches!(slice, StateSlice::Counts { .. });
    codec.flag(&mut counts)?;
    if counts && !matches!(slice, StateSlice::Counts { .. }) {
        *slice = StateSlice::Counts { name: String::new(), values: Vec::new() };
    }
    match slice {
        StateSlice::Floats { name, values } => {
            codec.text(name)?;
            codec.floats(values)
        }
        StateSlice::Counts { name, values } => {
            codec.text(name)?;
            codec.list(values, 8, |codec, count| {
                let mut as_usize = usize::try_from(*count).unwrap_or(usize::MAX);
                codec.count(&mut as_usize)?;
                *count = as_usize as u64;
                Ok(())
            })
        }
    }
}

fn exchange_batches<C: Codec>(codec: &mut C, batches: &mut Batches) -> Result<(), CheckpointProblem> {
    let Batches { size, shuffled, seed, drop_last } = batches;
    codec.option(size, |codec, size| codec.count(size))?;
    codec.flag(shuffled)?;
    let mut bytes = seed.to_le_bytes();
    codec.bytes(&mut bytes)?;
    *seed = u64::from_le_bytes(bytes);
    codec.flag(drop_last)
}

fn exchange_record<C: Codec>(codec: &mut C, record: &mut Record) -> Result<(), CheckpointProblem> {
    let Record { step, epoch, samples, value, grad_norm, rate, validation, time } = record;
    for count in [step, epoch, samples] {
        codec.count(count)?;
    }
    for number in [value, grad_norm, rate] {
        codec.float(number)?;
    }
    codec.option(validation, |codec, value| codec.float(value))?;
    codec.time(time)
}

fn exchange_known<C: Codec>(codec: &mut C, known: &mut Known) -> Result<(), CheckpointProblem> {
    codec.floats(&mut known.x)?;
    codec.float(&mut known.value)?;
    codec.float(&mut known.grad_norm)
}

/// The reasons for which a method may end a run, by the numbers that files have for them; 0 is none.
const STOPS: [Option<StopReason>; 11] = [
    None,
    Some(StopReason::MaxSteps),
    Some(StopReason::MaxEpochs),
    Some(StopReason::MaxTime),
    Some(StopReason::GradientNorm),
    Some(StopReason::TargetValue),
    Some(StopReason::Patience),
    Some(StopReason::Observer),
    Some(StopReason::NoDescent),
    Some(StopReason::SmallStep),
    Some(StopReason::SmallDecrease),
];

fn exchange_stop<C: Codec>(codec: &mut C, stop: &mut Option<StopReason>) -> Result<(), CheckpointProblem> {
    let mut number = [STOPS.iter().position(|known| known == stop).unwrap_or(0) as u8];
    codec.bytes(&mut number)?;
    match STOPS.get(usize::from(number[0])) {
        Some(known) => stop.clone_from(known),
        None => return Err(codec.malformed("an unknown reason to stop")),
    }
    Ok(())
}

const HEADER: &[u8; 12] = b"ad-optim\x01\0\0\0";
const MAGIC: usize = 8;
const HEADER_LENGTH: usize = HEADER.len() + 8;
const CHECKSUM_LENGTH: usize = 8;
const VERSION: u32 = 1;

/// The bytes between header and checksum, once both are found to be right.
fn body(bytes: &[u8]) -> Result<&[u8], CheckpointProblem> {
    let found = bytes.len() as u64;
    let present = bytes.len().min(MAGIC);
    if bytes[..present] != HEADER[..present] || bytes.is_empty() {
        return Err(CheckpointProblem::NotACheckpoint);
    }
    let number = |at: usize| bytes.get(at..at + 8).and_then(|number| number.try_into().ok()).map(u64::from_le_bytes);
    let Some(length) = number(HEADER.len()) else {
        return Err(CheckpointProblem::Length { expected: None, found });
    };
    let version = u32::from_le_bytes([bytes[MAGIC], bytes[MAGIC + 1], bytes[MAGIC + 2], bytes[MAGIC + 3]]);
    if version != VERSION {
        return Err(CheckpointProblem::UnknownVersion { found: version, known: VERSION });
    }
    let expected = length.saturating_add((HEADER_LENGTH + CHECKSUM_LENGTH) as u64);
    if found != expected {
        return Err(CheckpointProblem::Length { expected: Some(expected), found });
    }
    let (checked, stored) = bytes.split_at(bytes.len() - CHECKSUM_LENGTH);
    let stored = stored.try_into().map_or(0, u64::from_le_bytes);
    let computed = crc64(checked);
    match stored == computed {
        true => Ok(&checked[HEADER_LENGTH..]),
        false => Err(CheckpointProblem::Checksum { stored, computed }),
    }
}

/// Counts up to here fit a `usize` of 64 bits with room to count on, and a `f64` exactly.
const LARGEST_COUNT: u64 = 1 << 53;

/// One side of an exchange of numbers with bytes, all little-endian.
trait Codec: Sized {
    fn bytes<const N: usize>(&mut self, bytes: &mut [u8; N]) -> Result<(), CheckpointProblem>;

    /// The length of a list whose items take at least `least` bytes each.
    fn length(&mut self, length: usize, least: usize) -> Result<usize, CheckpointProblem>;

    fn malformed(&self, found: &'static str) -> CheckpointProblem;

    fn float(&mut self, number: &mut f64) -> Result<(), CheckpointProblem> {
        let mut bytes = number.to_le_bytes();
        self.bytes(&mut bytes)?;
        *number = f64::from_le_bytes(bytes);
        Ok(())
    }

    fn count(&mut self, count: &mut usize) -> Result<(), CheckpointProblem> {
        let mut bytes = (*count as u64).to_le_bytes();
        self.bytes(&mut bytes)?;
        let number = u64::from_le_bytes(bytes);
        match usize::try_from(number) {
            Ok(number) if number as u64 <= LARGEST_COUNT => *count = number,
            _ => return Err(self.malformed("a count that is too large")),
        }
        Ok(())
    }

    fn flag(&mut self, flag: &mut bool) -> Result<(), CheckpointProblem> {
        let mut byte = [u8::from(*flag)];
        self.bytes(&mut byte)?;
        match byte {
            [0] => *flag = false,
            [1] => *flag = true,
            _ => return Err(self.malformed("neither yes nor no")),
        }
        Ok(())
    }

    fn time(&mut self, time: &mut Duration) -> Result<(), CheckpointProblem> {
        let mut bytes = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes();
        self.bytes(&mut bytes)?;
        *time = Duration::from_nanos(u64::from_le_bytes(bytes));
        Ok(())
    }

    fn list<T: Blank>(
        &mut self,
        list: &mut Vec<T>,
        least: usize,
        mut each: impl FnMut(&mut Self, &mut T) -> Result<(), CheckpointProblem>,
    ) -> Result<(), CheckpointProblem> {
        let length = self.length(list.len(), least)?;
        list.resize_with(length, T::blank);
        list.iter_mut().try_for_each(|item| each(self, item))
    }

    fn floats(&mut self, numbers: &mut Vec<f64>) -> Result<(), CheckpointProblem> {
        self.list(numbers, 8, Self::float)
    }

    fn text(&mut self, text: &mut String) -> Result<(), CheckpointProblem> {
        let mut bytes = std::mem::take(text).into_bytes();
        self.list(&mut bytes, 1, |codec, byte| {
            let mut one = [*byte];
            codec.bytes(&mut one)?;
            [*byte] = one;
            Ok(())
        })?;
        *text = String::from_utf8(bytes).map_err(|_| self.malformed("a text that is not UTF-8"))?;
        Ok(())
    }

    fn option<T: Blank>(
        &mut self,
        slot: &mut Option<T>,
        each: impl FnOnce(&mut Self, &mut T) -> Result<(), CheckpointProblem>,
    ) -> Result<(), CheckpointProblem> {
        let mut present = slot.is_some();
        self.flag(&mut present)?;
        match present {
            true => each(self, slot.get_or_insert_with(T::blank)),
            false => Ok(()),
        }
    }
}

/// What a list is filled with before its items are read.
trait Blank {
    fn blank() -> Self;
}

macro_rules! blank {
    ($($T:ty),*) => {$(
        impl Blank for $T {
            fn blank() -> Self {
                Self::default()
            }
        }
    )*};
}
blank!(f64, u8, u64, usize, String, (String, f64), (f64, f64), (f64, Vec<f64>), Known, (Known, usize));

impl Blank for StateSlice {
    fn blank() -> Self {
        StateSlice::Floats { name: String::new(), values: Vec::new() }
    }
}

impl Blank for Record {
    fn blank() -> Self {
        let (count, number) = (0, 0.0);
        Record {
            step: count,
            epoch: count,
            samples: count,
            value: number,
            grad_norm: number,
            rate: number,
            validation: None,
            time: Duration::ZERO,
        }
    }
}

struct Writer(Vec<u8>);

impl Codec for Writer {
    fn bytes<const N: usize>(&mut self, bytes: &mut [u8; N]) -> Result<(), CheckpointProblem> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn length(&mut self, length: usize, _least: usize) -> Result<usize, CheckpointProblem> {
        self.0.extend((length as u64).to_le_bytes());
        Ok(length)
    }

    fn malformed(&self, found: &'static str) -> CheckpointProblem {
        CheckpointProblem::Malformed { offset: self.0.len() as u64, found }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Codec for Reader<'_> {
    fn bytes<const N: usize>(&mut self, bytes: &mut [u8; N]) -> Result<(), CheckpointProblem> {
        match self.bytes[self.position..].first_chunk::<N>() {
            Some(read) => *bytes = *read,
            None => return Err(self.malformed("too few bytes")),
        }
        self.position += N;
        Ok(())
    }

    fn length(&mut self, _length: usize, least: usize) -> Result<usize, CheckpointProblem> {
        let mut length = 0;
        self.count(&mut length)?;
        match length.checked_mul(least) {
            Some(bytes) if bytes <= self.bytes.len() - self.position => Ok(length),
            _ => Err(self.malformed("the length of a list that would not fit into the file")),
        }
    }

    fn malformed(&self, found: &'static str) -> CheckpointProblem {
        CheckpointProblem::Malformed { offset: (HEADER_LENGTH + self.position) as u64, found }
    }
}

/// Tells lists of samples apart.
fn hash(samples: &[usize]) -> u64 {
    let bytes: Vec<u8> = samples.iter().flat_map(|&sample| (sample as u64).to_le_bytes()).collect();
    crc64(&bytes)
}

fn crc64(bytes: &[u8]) -> u64 {
    let mut crc = Crc64::new();
    crc.update(bytes);
    crc.value()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Whoever computes the right checksum may still write points and gradients of any length.
    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        let known = |dim: usize| Some(Known { x: vec![1.0; dim], ..Known::default() });
        let sound = || {
            let mut checkpoint = Checkpoint { x: vec![1.0; 2], ..Checkpoint::empty() };
            checkpoint.loop_state.start = vec![0.0; 2];
            checkpoint
        };
        assert_eq!(Checkpoint::from_bytes(&sound().to_bytes().unwrap()), Ok(sound()));
        type Change<'a> = &'a dyn Fn(&mut Checkpoint);
        let changes: [Change<'_>; 14] = [
            &|c| c.x.clear(),
            &|c| c.x.push(1.0),
            &|c| c.x[1] = f64::NAN,
            &|c| c.names = vec![String::new()],
            &|c| c.held_out = vec![3, 3],
            &|c| c.loop_state.start.clear(),
            &|c| c.loop_state.start[0] = f64::INFINITY,
            &|c| c.loop_state.last = known(1),
            &|c| c.loop_state.best = known(3),
            &|c| c.loop_state.best_epoch = known(0),
            &|c| c.loop_state.best_validation = known(1).map(|known| (known, 1)),
            &|c| c.loop_state.evaluated = Some((1.0, vec![])),
            &|c| c.loop_state.evaluated = Some((1.0, vec![1.0; 3])),
            &|c| c.loop_state.tally.gradient = vec![1.0],
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut forged = sound();
            change(&mut forged);
            let problem = Checkpoint::from_bytes(&forged.to_bytes().unwrap());
            assert!(matches!(problem, Err(CheckpointProblem::Malformed { .. })), "change {number}: {problem:?}");
        }
    }
}
