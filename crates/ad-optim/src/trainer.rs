use crate::outcome::number;
use crate::rule::Trial;
use crate::{
    Batches, Differentiable, Error, History, Iterate, Method, NonFinite, Oracle, Outcome, Record, StopReason, Update,
};
use std::fmt;
use std::iter::FusedIterator;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

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
/// `patience` compares means of epochs. No rule is ever judged on one minibatch. Where none of `max_steps`,
/// `max_epochs` and `time_limit` is set, the limit is [`DEFAULT_MAX_STEPS`] steps. A non-finite value, gradient or
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
/// # Determinism
///
/// The same objective, rule, start, batches and seed give the same bits, for any number of threads, provided that the
/// objective does (tapes do). A `time_limit` is the one setting that may end two such runs at different steps.
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
    plan: Plan<D, R>,
    observers: Vec<Observer<'a>>,
    /// `None` until the first step is asked for.
    run: Option<Run<R::State>>,
    failed: bool,
}

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
#[derive(Clone, Copy, Debug, PartialEq)]
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
}

impl<'a, D: Differentiable, R: Method> Trainer<'a, D, R> {
    /// A trainer of `objective` with `rule` from the point `x0`, one component for each unknown.
    ///
    /// The objective may be owned, a reference, or a `Box<dyn Differentiable>`.
    pub fn new(objective: D, rule: R, x0: Vec<f64>) -> Self {
        Trainer {
            plan: Plan {
                objective,
                rule,
                x0,
                batches: Batches::full(),
                max_steps: None,
                max_epochs: None,
                grad_tol: None,
                target_value: None,
                patience: None,
                time_limit: None,
                threads: 1,
                history: History::default(),
            },
            observers: Vec::new(),
            run: None,
            failed: false,
        }
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

    /// Stops where the mean over all samples is at most `value`; see [when it stops](Trainer#when-it-stops).
    pub fn target_value(mut self, value: f64) -> Self {
        self.plan.target_value = Some(value);
        self
    }

    /// Stops when `epochs` epochs in succession had means not below the smallest one so far minus `min_delta`.
    ///
    /// An epoch counts as an improvement if its mean is smaller by *more* than `min_delta ≥ 0` than the mean of the
    /// last improvement. `epochs` is at least 1.
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

    /// Stops before the first step that would begin later than `limit` after the first one began.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.plan.time_limit = Some(limit);
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
        Some((&best.x, best.value))
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
        let run = match self.run.take() {
            Some(run) => run,
            None => Run::start(&self.plan)?,
        };
        run.finish(&self.plan)
    }

    fn advance(&mut self) -> Result<Option<Step>, Error> {
        let run = match &mut self.run {
            Some(run) => run,
            unstarted => unstarted.insert(Run::start(&self.plan)?),
        };
        let step = run.advance(&self.plan)?;
        if let Some(step) = &step {
            let mut enough = false;
            for observer in &mut self.observers {
                enough |= observer(step, &run.x).is_break();
            }
            if enough && run.stop.is_none() {
                run.stop = Some(StopReason::Observer);
            }
        }
        Ok(step)
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

type Observer<'a> = Box<dyn FnMut(&Step, &[f64]) -> ControlFlow<()> + 'a>;

/// What the user asked for; never changed by the run.
struct Plan<D, R> {
    objective: D,
    rule: R,
    x0: Vec<f64>,
    batches: Batches,
    max_steps: Option<usize>,
    max_epochs: Option<usize>,
    grad_tol: Option<f64>,
    target_value: Option<f64>,
    patience: Option<(usize, f64)>,
    time_limit: Option<Duration>,
    threads: usize,
    history: History,
}

/// Everything that changes from step to step. All buffers are made at the start: a step allocates nothing but history,
/// and what a method makes for itself.
struct Run<S> {
    started: Instant,
    state: S,
    x: Vec<f64>,
    gradient: Vec<f64>,
    delta: Vec<f64>,
    /// 0, 1, …, N−1: the batch of all samples.
    all: Vec<usize>,
    /// The samples of the current epoch in the order of their turn, and how many of them had theirs.
    order: Vec<usize>,
    position: usize,
    batch_size: usize,
    /// Whether every batch is `all`, so that every value on the way is exact.
    whole: bool,
    steps: usize,
    epochs: usize,
    evaluations: usize,
    /// Value and gradient norm over all samples at the current `x`, where they are known.
    measured: Option<(f64, f64)>,
    /// The last evaluation that a method asked for itself; its gradient is taken over if the step leads there.
    trial: Trial,
    /// The last point at which value and gradient were finite on the samples asked for.
    last: Option<Known>,
    /// The point with the smallest value over all samples.
    best: Option<Known>,
    /// The point at the end of the epoch with the smallest mean, and that mean; kept for minibatches alone.
    best_epoch: Option<Known>,
    /// The value of the first batch at the start.
    first_value: f64,
    tally: Tally,
    /// The mean of the last epoch that improved, and the number of epochs since.
    improved: (f64, usize),
    history: Vec<Record>,
    stop: Option<StopReason>,
}

/// A point and what was found there.
struct Known {
    x: Vec<f64>,
    value: f64,
    grad_norm: f64,
}

/// Running means over the batches of the current epoch, weighted by their sizes.
struct Tally {
    samples: usize,
    value: f64,
    gradient: Vec<f64>,
    rate: f64,
}

impl<S> Run<S> {
    fn start<D: Differentiable, R: Method<State = S>>(plan: &Plan<D, R>) -> Result<Self, Error> {
        let dim = plan.objective.dim();
        if dim == 0 || plan.x0.is_empty() {
            return Err(Error::EmptyPoint);
        }
        if plan.x0.len() != dim {
            return Err(Error::DimensionMismatch { what: "the starting point", expected: dim, got: plan.x0.len() });
        }
        if let Some((index, value)) = first_non_finite(&plan.x0) {
            return Err(Error::NonFiniteStart { index, value });
        }
        plan.check_settings()?;
        let samples = plan.objective.num_samples();
        let batch_size = plan.batches.size_for(samples)?;
        let whole = batch_size == samples && (plan.batches.repeats() || samples == 1);
        if let Some(method) = plan.rule.needs_full_batches()
            && !whole
        {
            return Err(Error::NeedsFullBatches { method });
        }
        let mut state = plan.rule.prepare(dim)?;
        let mut x = plan.x0.clone();
        plan.rule.confine(&mut state, &mut x);
        Ok(Run {
            started: Instant::now(),
            state,
            x,
            // An objective that adds to the gradient, where it should overwrite it, meets these NaNs in the first step.
            gradient: vec![f64::NAN; dim],
            delta: vec![0.0; dim],
            all: (0..samples).collect(),
            order: Vec::new(),
            position: 0,
            batch_size,
            whole,
            steps: 0,
            epochs: 0,
            evaluations: 0,
            measured: None,
            trial: Trial::default(),
            last: None,
            best: None,
            best_epoch: None,
            first_value: f64::NAN,
            tally: Tally { samples: 0, value: 0.0, gradient: vec![0.0; if whole { 0 } else { dim }], rate: 1.0 },
            improved: (f64::INFINITY, 0),
            history: Vec::new(),
            stop: None,
        })
    }

    /// One step, or `None` with `self.stop` set.
    fn advance<D: Differentiable, R: Method<State = S>>(&mut self, plan: &Plan<D, R>) -> Result<Option<Step>, Error> {
        if self.stop.is_none() && self.whole && self.measured.is_none() {
            self.measure(plan)?;
        }
        if self.stop.is_none() {
            self.stop = self.goal(plan).or_else(|| self.limit(plan));
        }
        if self.stop.is_some() {
            return Ok(None);
        }
        let (samples, value, grad_norm) = match self.measured {
            // The measurement left the gradient at x in its buffer.
            Some((value, grad_norm)) if self.whole => (self.all.len(), value, grad_norm),
            _ => match self.evaluate_next_batch(plan)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let Some(rate) = self.update(plan, samples, value)? else { return Ok(None) };
        self.tally.add(samples, value, &self.gradient, rate);
        let mut step =
            Step { step: self.steps, epoch: self.epochs + 1, value, grad_norm, rate, samples, epoch_mean: None };
        if plan.history == History::Steps {
            let (step, epoch) = (step.step, step.epoch);
            self.history.push(Record { step, epoch, samples, value, grad_norm, rate });
        }
        if self.whole || self.position == self.order.len() {
            let grad_norm = if self.whole { grad_norm } else { norm(&self.tally.gradient) };
            step.epoch_mean = Some(self.tally.value);
            self.end_epoch(plan, grad_norm)?;
        }
        Ok(Some(step))
    }

    /// Value and gradient at x over all samples: what stop rules, the best point and the outcome are judged on.
    fn measure<D: Differentiable, R: Method<State = S>>(&mut self, plan: &Plan<D, R>) -> Result<(), Error> {
        let value = match self.take_trial() {
            Some(value) => value,
            None => self.evaluate(plan, Batch::All)?,
        };
        if let Some(quantity) = non_finite(value, &self.gradient) {
            self.stop_non_finite(plan, quantity, value, Batch::All);
            return Ok(());
        }
        let grad_norm = norm(&self.gradient);
        self.measured = Some((value, grad_norm));
        Known::keep(&mut self.last, &self.x, value, grad_norm);
        Known::keep_better(&mut self.best, &self.x, value, grad_norm);
        Ok(())
    }

    /// Number of samples, value and gradient norm of the next batch; `None` if they are not finite.
    fn evaluate_next_batch<D: Differentiable, R: Method<State = S>>(
        &mut self,
        plan: &Plan<D, R>,
    ) -> Result<Option<(usize, f64, f64)>, Error> {
        if self.position == self.order.len() {
            self.position = 0;
            if self.order.is_empty() || !plan.batches.repeats() {
                plan.batches.order_into(self.all.len(), self.epochs + 1, &mut self.order);
            }
        }
        let end = self.order.len().min(self.position + self.batch_size);
        let batch = Batch::Turn(self.position, end);
        let value = self.evaluate(plan, batch)?;
        if let Some(quantity) = non_finite(value, &self.gradient) {
            self.stop_non_finite(plan, quantity, value, batch);
            return Ok(None);
        }
        let grad_norm = norm(&self.gradient);
        Known::keep(&mut self.last, &self.x, value, grad_norm);
        if self.steps == 0 {
            self.first_value = value;
        }
        let samples = end - self.position;
        self.position = end;
        Ok(Some((samples, value, grad_norm)))
    }

    /// Moves x by the rule and returns the rate; `None` if the new point is not finite, or the method
    /// ended the run where it stands.
    fn update<D: Differentiable, R: Method<State = S>>(
        &mut self,
        plan: &Plan<D, R>,
        samples: usize,
        value: f64,
    ) -> Result<Option<f64>, Error> {
        let (step, epoch) = (self.steps + 1, self.epochs + 1);
        self.delta.copy_from_slice(&self.gradient);
        let mut update = Update { delta: &mut self.delta, rate: 1.0 };
        let at = Iterate { step, epoch, samples, value, x: &self.x, gradient: &self.gradient };
        let mut oracle = Oracle {
            objective: &plan.objective,
            x: &self.x,
            all: &self.all,
            threads: plan.threads,
            evaluations: &mut self.evaluations,
            trial: &mut self.trial,
        };
        self.stop = plan.rule.advance(&mut self.state, &at, &mut update, &mut oracle)?;
        let rate = update.rate;
        if self.stop.is_some() && self.delta.iter().all(|&delta| delta == 0.0) {
            return Ok(None);
        }
        for (x, delta) in self.x.iter_mut().zip(&self.delta) {
            *x -= delta;
        }
        plan.rule.confine(&mut self.state, &mut self.x);
        if let Some((index, component)) = first_non_finite(&self.x) {
            self.stop = Some(StopReason::NonFinite {
                step,
                epoch,
                sample: None,
                quantity: NonFinite::Point { index, value: component },
                detail: None,
            });
            self.back_to_last(value, f64::NAN);
            return Ok(None);
        }
        self.measured = None;
        self.steps = step;
        Ok(Some(rate))
    }

    /// Takes over what the method found at x itself, if that is where it looked last.
    fn take_trial(&mut self) -> Option<f64> {
        let here = self.whole && self.trial.x == self.x;
        self.trial.x.clear();
        if !here {
            return None;
        }
        std::mem::swap(&mut self.trial.gradient, &mut self.gradient);
        Some(self.trial.value)
    }

    /// Closes the books of an epoch, `grad_norm` being the norm of its mean gradient.
    fn end_epoch<D: Differentiable, R: Method<State = S>>(
        &mut self,
        plan: &Plan<D, R>,
        grad_norm: f64,
    ) -> Result<(), Error> {
        let mean = self.tally.value;
        self.record_epoch(plan, grad_norm);
        self.tally.samples = 0;
        self.epochs += 1;
        if !self.whole {
            Known::keep_better(&mut self.best_epoch, &self.x, mean, grad_norm);
        }
        if let Some((epochs, min_delta)) = plan.patience {
            match &mut self.improved {
                (level, since) if mean < *level - min_delta => (*level, *since) = (mean, 0),
                (_, since) => *since += 1,
            }
            if self.improved.1 >= epochs {
                self.stop = Some(StopReason::Patience);
            }
        }
        // An epoch mean only proposes to stop: its batches were taken at different points. All samples decide.
        let proposed =
            plan.target_value.is_some_and(|target| mean <= target) || plan.grad_tol.is_some_and(|tol| grad_norm <= tol);
        if !self.whole && self.stop.is_none() && proposed {
            self.measure(plan)?;
        }
        Ok(())
    }

    /// Adds what the tally holds to the history, if there is anything and it was asked for.
    fn record_epoch<D, R>(&mut self, plan: &Plan<D, R>, grad_norm: f64) {
        let Tally { samples, value, rate, .. } = self.tally;
        if plan.history == History::Epochs && samples > 0 {
            let (step, epoch) = (self.steps, self.epochs + 1);
            self.history.push(Record { step, epoch, samples, value, grad_norm, rate });
        }
    }

    /// The stop rules that are judged on a value over all samples, where there is one.
    fn goal<D, R>(&self, plan: &Plan<D, R>) -> Option<StopReason> {
        let (value, grad_norm) = self.measured?;
        if plan.target_value.is_some_and(|target| value <= target) {
            Some(StopReason::TargetValue)
        } else if plan.grad_tol.is_some_and(|tol| grad_norm <= tol) {
            Some(StopReason::GradientNorm)
        } else {
            None
        }
    }

    fn limit<D, R>(&self, plan: &Plan<D, R>) -> Option<StopReason> {
        let unlimited = plan.max_epochs.is_none() && plan.time_limit.is_none();
        let max_steps = plan.max_steps.or(unlimited.then_some(DEFAULT_MAX_STEPS));
        if max_steps.is_some_and(|max| self.steps >= max) {
            Some(StopReason::MaxSteps)
        } else if plan.max_epochs.is_some_and(|max| self.epochs >= max) {
            Some(StopReason::MaxEpochs)
        } else if plan.time_limit.is_some_and(|limit| self.started.elapsed() >= limit) {
            Some(StopReason::TimeLimit)
        } else {
            None
        }
    }

    fn evaluate<D: Differentiable, R>(&mut self, plan: &Plan<D, R>, batch: Batch) -> Result<f64, Error> {
        self.evaluations += 1;
        let batch = batch.of(&self.all, &self.order);
        plan.evaluate(&self.x, batch, &mut self.gradient)
    }

    /// Ends the run after an evaluation of `batch` at x that gave `value`, and goes back to the last finite point.
    fn stop_non_finite<D: Differentiable, R>(
        &mut self,
        plan: &Plan<D, R>,
        quantity: NonFinite,
        value: f64,
        batch: Batch,
    ) {
        let grad_norm = norm(&self.gradient);
        let samples = batch.of(&self.all, &self.order);
        let sample = match samples {
            _ if self.all.len() == 1 => None,
            &[sample] => Some(sample),
            // An error here would only hide the finding that is being explained.
            _ => samples.iter().copied().find(|&sample| {
                plan.evaluate(&self.x, &[sample], &mut self.delta)
                    .is_ok_and(|value| non_finite(value, &self.delta).is_some())
            }),
        };
        let explained = if self.all.len() == 1 { Some(0) } else { sample };
        let detail = explained.and_then(|sample| plan.objective.describe_non_finite(&self.x, sample));
        let (step, epoch) = (self.steps + 1, self.epochs + 1);
        self.stop = Some(StopReason::NonFinite { step, epoch, sample, quantity, detail });
        self.back_to_last(value, grad_norm);
    }

    /// Returns to the last finite point. Where there was none, x is the start, and what was found there is kept.
    fn back_to_last(&mut self, value: f64, grad_norm: f64) {
        if self.last.is_none() {
            Known::keep(&mut self.last, &self.x, value, grad_norm);
        }
        if let Some(last) = &self.last {
            self.x.copy_from_slice(&last.x);
            self.measured = self.whole.then_some((last.value, last.grad_norm));
        }
    }

    fn finish<D: Differentiable, R: Method<State = S>>(mut self, plan: &Plan<D, R>) -> Result<Outcome, Error> {
        let grad_norm = norm(&self.tally.gradient);
        self.record_epoch(plan, grad_norm);
        if self.stop.is_none() {
            self.stop = Some(StopReason::Observer);
        }
        let finite = !matches!(self.stop, Some(StopReason::NonFinite { .. }));
        if finite && self.measured.is_none() {
            self.measure(plan)?;
        }
        if self.measured.is_none() {
            self.measured = self.measure_aside(plan, self.x.clone());
        }
        if !self.whole && self.steps > 0 {
            if let Some(candidate) = &self.best_epoch
                && candidate.x != self.x
            {
                self.measure_aside(plan, candidate.x.clone());
            }
            if self.best.as_ref().is_none_or(|best| best.value >= self.first_value) {
                let mut start = plan.x0.clone();
                plan.rule.confine(&mut self.state, &mut start);
                self.measure_aside(plan, start);
            }
        }
        // Only after a non-finite stop can a measurement be missing; what the last batch showed stands in for it.
        let last = self.last.map(|last| (last.value, last.grad_norm));
        let (value, grad_norm) = self.measured.or(last).unwrap_or((f64::NAN, f64::NAN));
        let best = self.best.or(self.best_epoch);
        let at_default_limit = self.stop == Some(StopReason::MaxSteps) && plan.max_steps.is_none();
        let (best_x, best_value) = best.map_or_else(|| (self.x.clone(), value), |best| (best.x, best.value));
        Ok(Outcome {
            x: self.x,
            value,
            best_x,
            best_value,
            grad_norm,
            steps: self.steps,
            epochs: self.epochs,
            evaluations: self.evaluations,
            stop: self.stop.unwrap_or(StopReason::Observer),
            history: self.history,
            at_default_limit,
        })
    }

    /// Measures a point that competes for the best, after the run; one that cannot be measured does not compete.
    fn measure_aside<D: Differentiable, R>(&mut self, plan: &Plan<D, R>, x: Vec<f64>) -> Option<(f64, f64)> {
        self.evaluations += 1;
        let value = plan.evaluate(&x, &self.all, &mut self.gradient).ok()?;
        if non_finite(value, &self.gradient).is_some() {
            return None;
        }
        let grad_norm = norm(&self.gradient);
        // It was visited no later than x, so an equal does not replace what is known.
        if self.best.as_ref().is_none_or(|best| (value, grad_norm) < (best.value, best.grad_norm)) {
            Known::keep(&mut self.best, &x, value, grad_norm);
        }
        Some((value, grad_norm))
    }
}

impl<D: Differentiable, R> Plan<D, R> {
    fn check_settings(&self) -> Result<(), Error> {
        const OWNER: &str = "Trainer";
        if let Some(tol) = self.grad_tol
            && (tol.is_nan() || tol < 0.0)
        {
            return Err(Error::setting(OWNER, "grad_tol", tol, "at least 0; try 1e-8"));
        }
        if let Some(target) = self.target_value
            && target.is_nan()
        {
            return Err(Error::setting(OWNER, "target_value", target, "a number"));
        }
        if let Some((epochs, min_delta)) = self.patience {
            if epochs == 0 {
                return Err(Error::setting(OWNER, "patience in epochs", 0.0, "at least 1"));
            }
            if !(min_delta.is_finite() && min_delta >= 0.0) {
                let must_be = "finite and at least 0; 0 counts every decrease";
                return Err(Error::setting(OWNER, "min_delta of patience", min_delta, must_be));
            }
        }
        if self.threads == 0 {
            return Err(Error::setting(OWNER, "number of threads", 0.0, "at least 1"));
        }
        Ok(())
    }

    fn evaluate(&self, x: &[f64], batch: &[usize], gradient: &mut [f64]) -> Result<f64, Error> {
        match self.threads {
            1 => self.objective.value_and_gradient(x, batch, gradient),
            threads => self.objective.value_and_gradient_threads(x, batch, gradient, threads),
        }
    }
}

/// A batch named by where it lies, so that naming one does not borrow the run.
#[derive(Clone, Copy)]
enum Batch {
    All,
    /// Begin and end within the order of the epoch.
    Turn(usize, usize),
}

impl Batch {
    fn of<'a>(self, all: &'a [usize], order: &'a [usize]) -> &'a [usize] {
        match self {
            Batch::All => all,
            Batch::Turn(begin, end) => &order[begin..end],
        }
    }
}

impl Known {
    /// Overwrites `slot`, without allocating once it is filled.
    fn keep(slot: &mut Option<Known>, x: &[f64], value: f64, grad_norm: f64) {
        match slot {
            Some(known) => {
                known.x.copy_from_slice(x);
                (known.value, known.grad_norm) = (value, grad_norm);
            }
            None => *slot = Some(Known { x: x.to_vec(), value, grad_norm }),
        }
    }

    /// The same, if the value is below the one in `slot`; of equal values the smaller gradient norm wins, then the
    /// later point.
    fn keep_better(slot: &mut Option<Known>, x: &[f64], value: f64, grad_norm: f64) {
        if slot.as_ref().is_none_or(|known| (value, grad_norm) <= (known.value, known.grad_norm)) {
            Known::keep(slot, x, value, grad_norm);
        }
    }
}

impl Tally {
    /// With the first batch of an epoch the means are its value and gradient exactly, since the weight is 1.
    fn add(&mut self, samples: usize, value: f64, gradient: &[f64], rate: f64) {
        if self.samples == 0 {
            self.value = 0.0;
            self.gradient.fill(0.0);
        }
        self.samples += samples;
        let weight = samples as f64 / self.samples as f64;
        self.value += (value - self.value) * weight;
        for (mean, g) in self.gradient.iter_mut().zip(gradient) {
            *mean += (g - *mean) * weight;
        }
        self.rate = rate;
    }
}

fn non_finite(value: f64, gradient: &[f64]) -> Option<NonFinite> {
    if !value.is_finite() {
        return Some(NonFinite::Value(value));
    }
    first_non_finite(gradient).map(|(index, value)| NonFinite::Gradient { index, value })
}

fn first_non_finite(v: &[f64]) -> Option<(usize, f64)> {
    v.iter().copied().enumerate().find(|(_, component)| !component.is_finite())
}

/// The Euclidean norm. The squares are added in eight interleaved sums: fast, and of one fixed shape everywhere.
pub(crate) fn norm(v: &[f64]) -> f64 {
    const SMALLEST_SAFE: f64 = 1e-280;
    const UP: f64 = f64::from_bits((1023 + 600) << 52);
    const DOWN: f64 = f64::from_bits((1023 - 600) << 52);
    let squares = |scale: f64| {
        let mut sums = [0.0; 8];
        for chunk in v.chunks(8) {
            for (sum, component) in sums.iter_mut().zip(chunk) {
                let scaled = component * scale;
                *sum += scaled * scaled;
            }
        }
        sums.iter().sum::<f64>()
    };
    let sum = squares(1.0);
    if (SMALLEST_SAFE..=f64::MAX).contains(&sum) || sum.is_nan() {
        return sum.sqrt();
    }
    // The squares overflowed or underflowed. A power of two brings the largest component near 1 without rounding.
    let largest = v.iter().fold(0.0, |largest: f64, component| largest.max(component.abs()));
    if largest == 0.0 || largest == f64::INFINITY {
        return largest;
    }
    let scale = if largest > 1.0 { DOWN } else { UP };
    squares(scale).sqrt() / scale
}

#[cfg(test)]
mod tests {
    use super::norm;

    #[test]
    fn norm_neither_overflows_nor_underflows() {
        assert_eq!(norm(&[3.0, 4.0]), 5.0);
        assert!((norm(&[3e200, 4e200]) / 5e200 - 1.0).abs() < 1e-15);
        assert!((norm(&[3e-200, 4e-200]) / 5e-200 - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[5e-324, 0.0]), 5e-324);
        assert_eq!(norm(&[0.0; 3]), 0.0);
        assert_eq!(norm(&[f64::NEG_INFINITY, 1.0]), f64::INFINITY);
        assert!(norm(&[f64::NAN, 1.0]).is_nan());
        assert!(norm(&[f64::NAN, f64::INFINITY]).is_nan());
    }
}
