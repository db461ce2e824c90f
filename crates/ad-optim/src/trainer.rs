use crate::checkpoint::{Checkpoint, CheckpointProblem};
use crate::outcome::{number, same, same_if_any};
use crate::run::{Objective, Plan, Run};
use crate::{Batches, Checkpoints, Differentiable, Error, History, Method, Outcome, StopReason, checkpoints};
use std::fmt;
use std::iter::FusedIterator;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The step limit of a [`Trainer`] that was given no limit of steps, epochs or time.
pub const DEFAULT_MAX_STEPS: usize = 1000;

/// Minimises an objective by repeating x ← x − δ, δ made from the gradient by a [`Rule`](crate::Rule), or by another
/// [`Method`].
///
/// Built from an objective, a rule and a starting point, then set up by the methods below in any order. Everything is
/// checked when the first step is asked for, and from then on the settings are fixed. There are two ways to run it:
///
/// - [`run`](Trainer::run) goes on until a stop rule holds and returns the [`Outcome`];
/// - as an `Iterator` of `Result<Step, Error>` it makes one step a call; [`x`](Trainer::x) is the point after it, and
///   [`finish`](Trainer::finish) gives the [`Outcome`]. Both ways make the same steps, bit for bit.
///
/// # When it stops
///
/// As soon as one of the stop rules holds. With full batches (the default) `grad_tol` and `target_value` are judged on
/// the exact value at each point, before the step. With minibatches they are judged at the end of each epoch: when the
/// mean of the epoch says that the rule may hold, all samples are evaluated at the current point, and that decides.
/// `patience` compares means of epochs, or values on validation samples where there are some. No rule is ever judged on one minibatch. Where none of `max_steps`,
/// `max_epochs` and `max_time` is set, the limit is [`DEFAULT_MAX_STEPS`] steps. A non-finite value, gradient or
/// point always ends the run, see [`StopReason::NonFinite`]. A [`Method`] may end it by tolerances of its own.
///
/// # The best point
///
/// With full batches it is the point with the smallest value among all that were visited, of equal values the one with
/// the smallest gradient norm, and of those the latest. With minibatches no value on
/// the way is exact, so the point *at the end* of the epoch with the smallest mean is kept; after the run all samples
/// are evaluated there and at the last point, and the smaller value wins. If neither is below what the first batch
/// showed at the starting point, the starting point is evaluated too. These measurements are what a minibatch run
/// costs beyond its steps: one or two passes over the samples, three if it never improved.
///
/// With [`validate`](Trainer::validate) or [`hold_out`](Trainer::hold_out) the outcome has the best point on those
/// samples besides, in [`Outcome::validation`].
///
/// # Breaking off and going on
///
/// With [`checkpoints`](Trainer::checkpoints) a run that was killed can go on by
/// [`resume_latest`](Trainer::resume_latest), and ends with the bits of one that was not.
///
/// # Determinism
///
/// The same objective, rule, start, batches and seed give the same bits, for any number of threads, provided that the
/// objective does (tapes do). A `max_time` is the one setting that may end two such runs at different steps. Times are
/// measured, of course: comparisons of outcomes, records and steps by `==` leave them out.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, Trainer, from_fn};
///
/// let rosenbrock = from_fn(2, |x, grad| {
///     let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
///     grad[0] = -2.0 * a - 400.0 * x[0] * b;
///     grad[1] = 200.0 * b;
///     a * a + 100.0 * b * b
/// });
/// let out = Trainer::new(&rosenbrock, Adam::new(0.05), vec![-1.2, 1.0])
///     .max_steps(20_000)
///     .grad_tol(1e-6)
///     .run()?;
/// assert!((out.x[0] - 1.0).abs() < 1e-5 && (out.x[1] - 1.0).abs() < 1e-5);
///
/// // The same, step by step.
/// let mut trainer = Trainer::new(&rosenbrock, Adam::new(0.05), vec![-1.2, 1.0]).max_steps(20_000).grad_tol(1e-6);
/// while let Some(step) = trainer.next() {
///     let step = step?;
///     if step.step % 1000 == 0 {
///         println!("{:6}  {:.3e}  {:?}", step.step, step.value, trainer.x());
///     }
/// }
/// assert_eq!(trainer.finish()?, out);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[must_use = "a trainer does nothing until it is run or iterated"]
pub struct Trainer<'a, D, R: Method> {
    plan: Plan<'a, D, R>,
    observers: Vec<Observer<'a>>,
    checkpoints: Option<Checkpoints>,
    resume: Option<Resume>,
    /// `None` until the first step is asked for.
    run: Option<Run<R::State>>,
    /// The last step that was saved, and the best value and gradient norm of which `best.ckpt` was written.
    saved_step: usize,
    saved_best: Option<(f64, f64)>,
    failed: bool,
}

/// Where a run begins that does not begin at the start.
enum Resume {
    From(PathBuf),
    Latest,
}

type Observer<'a> = Box<dyn FnMut(&Step, &[f64]) -> ControlFlow<()> + 'a>;

/// One update, as reported by the iterator and to observers.
///
/// Value and gradient norm are those from which the update was made: on its batch, at the point before it. `Display`
/// prints one line, for logs.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let mut trainer = Trainer::new(&f, GradientDescent::new(0.25), vec![3.0]);
/// let Some(step) = trainer.next() else { unreachable!("no stop rule holds yet") };
/// assert_eq!(step?.to_string(), "step 1  epoch 1  value 9  gradient norm 6  rate 0.25");
/// assert_eq!(trainer.x(), [1.5]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
///
/// `==` compares everything but the time, and takes NaN for equal to NaN.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Step {
    /// The number of the update, from 1.
    pub step: usize,
    /// The epoch it belongs to, from 1.
    pub epoch: usize,
    /// The mean value of the batch at the point before the update.
    pub value: f64,
    /// The Euclidean norm of the gradient of the batch at the point before the update.
    pub grad_norm: f64,
    /// The learning rate, the product of all in a tuple of rules; 1 if no rule has one.
    pub rate: f64,
    /// The number of samples in the batch.
    pub samples: usize,
    /// At the last step of an epoch, the mean value of the epoch: over its samples, each at the point that was current
    /// when its batch came.
    pub epoch_mean: Option<f64>,
    /// At the last step of an epoch, the mean of the validation samples at the point after it, where there are some.
    pub validation: Option<f64>,
    /// The time that the step took, its evaluations included, observers and checkpoints not.
    pub time: Duration,
}

impl PartialEq for Step {
    fn eq(&self, other: &Step) -> bool {
        let Step { step, epoch, value, grad_norm, rate, samples, epoch_mean, validation, time: _ } = *self;
        (step, epoch, samples) == (other.step, other.epoch, other.samples)
            && same(&[value, grad_norm, rate], &[other.value, other.grad_norm, other.rate])
            && same_if_any(epoch_mean, other.epoch_mean)
            && same_if_any(validation, other.validation)
    }
}

impl<'a, D: Differentiable, R: Method> Trainer<'a, D, R> {
    /// A trainer of `objective` with `rule` from the point `x0`, one component for each unknown.
    ///
    /// The objective may be owned, a reference, or a `Box<dyn Differentiable>`.
    pub fn new(objective: D, rule: R, x0: Vec<f64>) -> Self {
        Trainer {
            plan: Plan {
                objective: Objective { of: objective, negated: false },
                rule,
                x0,
                batches: Batches::full(),
                max_steps: None,
                max_epochs: None,
                max_time: None,
                grad_tol: None,
                target_value: None,
                patience: None,
                validation: None,
                held_out: None,
                check_gradient: false,
                threads: 1,
                history: History::default(),
            },
            observers: Vec::new(),
            checkpoints: None,
            resume: None,
            run: None,
            saved_step: 0,
            saved_best: None,
            failed: false,
        }
    }

    /// Looks for a maximum instead of a minimum: minimises −f, and reports f.
    ///
    /// Values in steps, history and outcome are those of f; the best is the largest; `target_value` is reached from
    /// below. Rules see the value and the gradient of −f. (torch has `maximize=True`; with optax one negates the loss.)
    ///
    /// # Errors
    ///
    /// Of the run: [`Error::NotForResiduals`] with a method for sums of squares.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_core::Tape;
    /// use ad_optim::{GradientDescent, Trainer};
    ///
    /// let hill = Tape::record(&[0.0], |x| 6.0 - (x[0] - 1.0).powi(2))?;
    /// let out = Trainer::new(&hill, GradientDescent::new(0.25), vec![3.0]).maximise().grad_tol(1e-9).run()?;
    /// assert!((out.x[0] - 1.0).abs() < 1e-9 && out.value == 6.0);
    /// assert_eq!(out.history[0].value, 2.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn maximise(mut self) -> Self {
        self.plan.objective.negated = true;
        if let Some(validation) = &mut self.plan.validation {
            validation.negated = true;
        }
        self
    }

    /// Evaluates `objective`, as a rule the same loss over other samples, at the end of each epoch.
    ///
    /// Its value, a mean over its samples (of a [`LeastSquares`](crate::LeastSquares) the sum over its residuals, so that
    /// values of more and of fewer residuals do not compare), stands in steps, history and [`Outcome::validation`], which
    /// has the point where it was best; and
    /// [`patience`](Trainer::patience) is judged on it. With full batches every step is an epoch. These evaluations are
    /// not counted among those of the outcome. It takes the place of [`hold_out`](Trainer::hold_out).
    ///
    /// # Errors
    ///
    /// Of the run: [`Error::DimensionMismatch`] unless it has as many unknowns as the objective, [`Error::NoSamples`]
    /// if it has no samples. A value that is not finite is no error: it is no improvement.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::{GradientDescent, StopReason, Trainer, from_fn};
    ///
    /// // What is learned has its minimum at 1, what counts at 0.8: the run stops soon after it has passed there.
    /// let learned = from_fn(1, |x, grad| { grad[0] = 2.0 * (x[0] - 1.0); (x[0] - 1.0).powi(2) });
    /// let counts = from_fn(1, |x, grad| { grad[0] = 2.0 * (x[0] - 0.8); (x[0] - 0.8).powi(2) });
    /// let out = Trainer::new(&learned, GradientDescent::new(0.05), vec![0.0])
    ///     .validate(&counts)
    ///     .patience(3, 0.0)
    ///     .max_epochs(1000)
    ///     .run()?;
    /// assert_eq!((out.stop, out.epochs), (StopReason::Patience, 18));
    /// let Some(validation) = out.validation else { unreachable!("it was asked for") };
    /// assert!((validation.best_x[0] - 0.8).abs() < 0.02);
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn validate(mut self, objective: impl Differentiable + 'a) -> Self {
        let negated = self.plan.objective.negated;
        self.plan.validation = Some(Objective { of: Box::new(objective), negated });
        self.plan.held_out = None;
        self
    }

    /// Holds the samples with these indices out of training, and evaluates them at the end of each epoch, as
    /// [`validate`](Trainer::validate) does with an objective of its own, whose place it takes.
    ///
    /// No batch has them, and "all samples" are all others: values, stop rules and the best point do not look at them.
    /// The order of the indices plays no part. [`Batches`] has an example of how to draw them.
    ///
    /// # Errors
    ///
    /// Of the run: [`Error::HeldOut`] for an index that there is not, for none, and where no sample is left (all of a
    /// [`LeastSquares`](crate::LeastSquares) is one sample: it is judged by another one with `validate`);
    /// [`Error::NotForResiduals`] with a method for sums of squares.
    pub fn hold_out(mut self, samples: Vec<usize>) -> Self {
        self.plan.held_out = Some(samples);
        self.plan.validation = None;
        self
    }

    /// Compares the gradient at the start with difference quotients before the first step; see
    /// [`check_gradient`](crate::check_gradient), which does it at any point.
    ///
    /// For objectives with a gradient written by hand. It costs a few evaluations for each unknown, on at most 256
    /// samples, which are not counted among those of the outcome. A run that is resumed has been checked. What is 0 at the
    /// start, as many a wrong gradient is at zeros, shows nothing: check at another point with the function.
    ///
    /// # Errors
    ///
    /// Of the run: [`Error::WrongGradient`].
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::{Error, GradientDescent, Trainer, from_fn};
    ///
    /// let f = from_fn(2, |x, grad| { grad[0] = 2.0 * x[0]; grad[1] = 3.0 * x[1]; x[0].powi(2) + x[1].powi(3) });
    /// let error = Trainer::new(&f, GradientDescent::new(0.1), vec![1.0, 2.0]).check_gradient().run().unwrap_err();
    /// assert!(matches!(error, Error::WrongGradient { component: 1, gradient: 6.0, .. }));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn check_gradient(mut self) -> Self {
        self.plan.check_gradient = true;
        self
    }

    /// Saves the run on its way, as [`Checkpoints`] says.
    ///
    /// # Errors
    ///
    /// Of the run: [`Error::Write`] if a checkpoint cannot be written; [`Error::Checkpoint`] with
    /// [`CheckpointProblem::FolderInUse`] if the folder has checkpoints that this run does not go on from;
    /// [`Error::StateNotVisited`] for a rule that does not show its state.
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Goes on from a checkpoint: a file, or the latest one in a folder. The starting point given to
    /// [`new`](Trainer::new) then plays no part: that of the saved run is kept with it.
    ///
    /// # Errors
    ///
    /// Of the run: [`Error::Read`] if there is no such file; [`Error::Checkpoint`] if it is damaged, or of a run with
    /// another rule, dimension, names, settings, batches or held-out samples.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::{Adam, Batches, Checkpoints, Error, GradientDescent, Trainer, from_fn};
    ///
    /// # let folder = std::env::temp_dir().join(format!("ad-optim-resume-{}", std::process::id()));
    /// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
    /// let out = Trainer::new(&f, Adam::new(0.1), vec![1.0])
    ///     .max_steps(10)
    ///     .checkpoints(Checkpoints::new(&folder))
    ///     .run()?;
    /// let further = Trainer::new(&f, Adam::new(0.1), vec![0.0]).resume_from(&folder).max_steps(15).run()?;
    /// assert_eq!((further.steps, &further.history[..10]), (15, &out.history[..]));
    ///
    /// let other = Trainer::new(&f, Adam::new(0.2), vec![0.0]).resume_from(&folder).run();
    /// assert!(other.unwrap_err().to_string().contains("setting 0 of the rule is learning rate = 0.1"));
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume_from(mut self, path: impl AsRef<Path>) -> Self {
        self.resume = Some(Resume::From(path.as_ref().to_owned()));
        self
    }

    /// Goes on from the latest checkpoint in the folder given to [`checkpoints`](Trainer::checkpoints); begins at the
    /// start if there is none. [`Checkpoints`] has an example.
    ///
    /// # Errors
    ///
    /// Of the run: those of [`resume_from`](Trainer::resume_from), and [`Error::Checkpoint`] with
    /// [`CheckpointProblem::NoFolder`] where no checkpoints were set.
    pub fn resume_latest(mut self) -> Self {
        self.resume = Some(Resume::Latest);
        self
    }

    /// Sets how the samples are divided into batches; default [`Batches::full`].
    pub fn batches(mut self, batches: Batches) -> Self {
        self.plan.batches = batches;
        self
    }

    /// Stops after `steps` updates. With 0 the start is measured and nothing moves.
    pub fn max_steps(mut self, steps: usize) -> Self {
        self.plan.max_steps = Some(steps);
        self
    }

    /// Stops after `epochs` passes over the samples. With full batches every step is one.
    pub fn max_epochs(mut self, epochs: usize) -> Self {
        self.plan.max_epochs = Some(epochs);
        self
    }

    /// Stops where the Euclidean norm of the gradient over all samples is at most `tol`; see
    /// [when it stops](Trainer#when-it-stops). Must not be negative.
    ///
    /// Set [`max_epochs`](Trainer::max_epochs) too: without any limit a run ends after [`DEFAULT_MAX_STEPS`] steps.
    pub fn grad_tol(mut self, tol: f64) -> Self {
        self.plan.grad_tol = Some(tol);
        self
    }

    /// Stops where the mean over all samples is at most `value` (under [`maximise`](Trainer::maximise), at least); see [when it stops](Trainer#when-it-stops).
    pub fn target_value(mut self, value: f64) -> Self {
        self.plan.target_value = Some(value);
        self
    }

    /// Stops when `epochs` epochs in succession brought no improvement.
    ///
    /// An epoch counts as an improvement if its mean is smaller by *more* than `min_delta ≥ 0` than the mean of the
    /// last improvement. `epochs` is at least 1. Under [`maximise`](Trainer::maximise) larger means are better. With
    /// [`validate`](Trainer::validate) or [`hold_out`](Trainer::hold_out) the means are those of the validation samples
    /// after each epoch.
    ///
    /// Set [`max_epochs`](Trainer::max_epochs) too: without any limit a run ends after [`DEFAULT_MAX_STEPS`] steps.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::{GradientDescent, StopReason, Trainer, from_fn};
    ///
    /// // With this rate the point only changes its sign, and the value stays what it is.
    /// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
    /// let out = Trainer::new(&f, GradientDescent::new(1.0), vec![1.0]).patience(3, 0.0).run()?;
    /// assert_eq!((out.stop, out.steps), (StopReason::Patience, 4));
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn patience(mut self, epochs: usize, min_delta: f64) -> Self {
        self.plan.patience = Some((epochs, min_delta));
        self
    }

    /// Stops before the first step that would begin later than `limit` after the first one began. Of a run that is
    /// resumed, after the first one of this program: so each of them can be given the time that it has.
    pub fn max_time(mut self, limit: Duration) -> Self {
        self.plan.max_time = Some(limit);
        self
    }

    /// Lets the objective use up to `threads` threads; default 1. The result has the same bits for any number.
    pub fn threads(mut self, threads: usize) -> Self {
        self.plan.threads = threads;
        self
    }

    /// Sets what is recorded; default [`History::Epochs`].
    pub fn history(mut self, history: History) -> Self {
        self.plan.history = history;
        self
    }

    /// Calls `observer` after every step; `ControlFlow::Break(())` ends the run with [`StopReason::Observer`].
    ///
    /// There may be several; each sees every step, also the one at which another breaks. An observer cannot change the
    /// run in any other way.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::{GradientDescent, StopReason, Trainer, from_fn};
    /// use std::ops::ControlFlow;
    ///
    /// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
    /// let mut seen = Vec::new();
    /// let out = Trainer::new(&f, GradientDescent::new(0.25), vec![1.0])
    ///     .observe(|step| {
    ///         seen.push(step.value);
    ///         if step.step == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    ///     })
    ///     .run()?;
    /// assert_eq!(out.stop, StopReason::Observer);
    /// assert_eq!(seen, [1.0, 0.25, 0.0625]);
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn observe(self, mut observer: impl FnMut(&Step) -> ControlFlow<()> + 'a) -> Self {
        self.observe_point(move |step, _| observer(step))
    }

    /// Like [`observe`](Trainer::observe), for observers that also look at the point after the step.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::{GradientDescent, Trainer, from_fn};
    /// use std::ops::ControlFlow;
    ///
    /// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
    /// let mut path = Vec::new();
    /// Trainer::new(&f, GradientDescent::new(0.25), vec![1.0])
    ///     .max_steps(3)
    ///     .observe_point(|_step, x| {
    ///         path.push(x[0]);
    ///         ControlFlow::Continue(())
    ///     })
    ///     .run()?;
    /// assert_eq!(path, [0.5, 0.25, 0.125]);
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn observe_point(mut self, observer: impl FnMut(&Step, &[f64]) -> ControlFlow<()> + 'a) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// The current point: the start as it was given, or the point after the last step.
    pub fn x(&self) -> &[f64] {
        self.run.as_ref().map_or(&self.plan.x0, |run| &run.x)
    }

    /// The best point so far and its value, once there is one: exact with full batches, else the end of the best epoch
    /// and the mean of that epoch. It survives an error of the objective.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_core::Tape;
    /// use ad_optim::{GradientDescent, Trainer};
    ///
    /// // Recorded on the branch x > 1, which the run leaves with its fourth point.
    /// let tape = Tape::record(&[8.0], |x| if x[0] > 1.0 { x[0] * x[0] } else { -x[0] })?;
    /// let mut trainer = Trainer::new(&tape, GradientDescent::new(0.25), vec![8.0]);
    /// let error = trainer.by_ref().find_map(Result::err);
    /// assert!(error.is_some_and(|error| error.to_string().contains("the branch")));
    /// assert_eq!(trainer.best(), Some((&[2.0][..], 4.0)));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn best(&self) -> Option<(&[f64], f64)> {
        let run = self.run.as_ref()?;
        let best = if run.whole { run.best.as_ref() } else { run.best_epoch.as_ref() }?;
        Some((&best.x, self.plan.objective.signed(best.value)))
    }

    /// Why the run ended, if it has.
    pub fn stop(&self) -> Option<&StopReason> {
        self.run.as_ref()?.stop.as_ref()
    }

    /// Runs until a stop rule holds, from wherever the iteration stands.
    ///
    /// A run that meets a NaN or an infinity is no error: it gives `Ok(outcome)` whose `stop` is
    /// [`StopReason::NonFinite`].
    ///
    /// # Errors
    ///
    /// Before the first step: an empty, non-finite or ill-sized start, a setting of the rule, the batches or the
    /// trainer that is out of range, an objective without samples. Later: whatever the objective's evaluation returns.
    /// To keep the best point through such an error, iterate and ask [`best`](Trainer::best).
    pub fn run(mut self) -> Result<Outcome, Error> {
        for step in &mut self {
            step?;
        }
        self.finish()
    }

    /// Ends the iteration and gives the outcome, measured on all samples.
    ///
    /// If no stop rule held before, the reason is [`StopReason::Observer`]: the caller saw enough.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Trainer::run).
    pub fn finish(mut self) -> Result<Outcome, Error> {
        let mut run = match self.run.take() {
            Some(run) => run,
            None => self.start()?,
        };
        if !self.failed {
            self.save_last(&mut run)?;
        }
        run.finish(&self.plan)
    }

    fn start(&mut self) -> Result<Run<R::State>, Error> {
        let from = match (&self.resume, &self.checkpoints) {
            (None, _) => None,
            (Some(Resume::From(path)), _) => Some(checkpoints::file_at(path)?),
            (Some(Resume::Latest), Some(checkpoints)) => checkpoints.latest()?,
            (Some(Resume::Latest), None) => {
                return Err(Error::Checkpoint { path: PathBuf::from("resume"), problem: CheckpointProblem::NoFolder });
            }
        };
        let mut run = match from {
            None => Run::start(&self.plan)?,
            Some(path) => Run::resume(&self.plan, Checkpoint::read(&path)?, &path)?,
        };
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.check_settings()?;
            // A rule that cannot be saved is to be told of now, not after the first hundred steps.
            run.save(&self.plan)?;
            checkpoints.prepare(run.steps)?;
            self.saved_step = run.steps;
            self.saved_best = if checkpoints.keeps_best() { checkpoints.best_there() } else { None };
        }
        Ok(run)
    }

    fn advance(&mut self) -> Result<Option<Step>, Error> {
        let mut run = match self.run.take() {
            Some(run) => run,
            None => self.start()?,
        };
        let step = self.advance_in(&mut run);
        self.run = Some(run);
        step
    }

    fn advance_in(&mut self, run: &mut Run<R::State>) -> Result<Option<Step>, Error> {
        let step = run.advance(&self.plan)?;
        let Some(step) = step else {
            self.save_last(run)?;
            return Ok(None);
        };
        let mut enough = false;
        for observer in &mut self.observers {
            enough |= observer(&step, &run.x).is_break();
        }
        if enough && run.stop.is_none() {
            run.stop = Some(StopReason::Observer);
        }
        self.save_step(run, &step)?;
        Ok(Some(step))
    }

    /// Writes the checkpoints that are due after a step. That of the best point comes first: a run that is killed
    /// between the two makes the step again.
    fn save_step(&mut self, run: &mut Run<R::State>, step: &Step) -> Result<(), Error> {
        let Some(checkpoints) = self.checkpoints.as_ref().filter(|_| !run.is_non_finite()) else { return Ok(()) };
        let due = checkpoints.is_due(step.step);
        let best = run.best.as_ref().map(|best| (best.value, best.grad_norm));
        let is_best = match run.whole && !self.plan.is_validated() {
            true => due && best != self.saved_best,
            false => step.epoch_mean.is_some() && run.is_at_best(),
        };
        if checkpoints.keeps_best() && is_best {
            checkpoints.write_best(&run.save(&self.plan)?)?;
            self.saved_best = best;
        }
        if due {
            checkpoints.write(&run.save(&self.plan)?)?;
            self.saved_step = step.step;
        }
        Ok(())
    }

    /// Saves where the run ended, unless that has been done, or it ended in what is not worth going on from.
    fn save_last(&mut self, run: &mut Run<R::State>) -> Result<(), Error> {
        let Some(checkpoints) = self.checkpoints.as_ref().filter(|_| !run.is_non_finite()) else { return Ok(()) };
        // The last step may have been saved before its point was measured, and found to be the best.
        let best = run.best.as_ref().map(|best| (best.value, best.grad_norm));
        let by_value = run.whole && !self.plan.is_validated();
        let is_best = checkpoints.keeps_best() && by_value && best != self.saved_best;
        if run.steps > self.saved_step || is_best {
            let checkpoint = run.save(&self.plan)?;
            if is_best {
                checkpoints.write_best(&checkpoint)?;
                self.saved_best = best;
            }
            checkpoints.write(&checkpoint)?;
            self.saved_step = run.steps;
        }
        Ok(())
    }
}

impl<D: Differentiable, R: Method> Iterator for Trainer<'_, D, R> {
    type Item = Result<Step, Error>;

    /// Makes one step; `None` once a stop rule holds, and after an error.
    fn next(&mut self) -> Option<Result<Step, Error>> {
        if self.failed {
            return None;
        }
        let step = self.advance();
        self.failed = step.is_err();
        step.transpose()
    }
}

impl<D: Differentiable, R: Method> FusedIterator for Trainer<'_, D, R> {}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(6);
        let [value, grad_norm, rate] = [self.value, self.grad_norm, self.rate].map(|v| number(v, digits));
        let (step, epoch) = (self.step, self.epoch);
        write!(f, "step {step}  epoch {epoch}  value {value}  gradient norm {grad_norm}  rate {rate}")
    }
}
