use crate::checkpoint::{Checkpoint, CheckpointProblem, Known, LoopState, Tally};
use crate::outcome::same;
use crate::rule::{Trial, load_state, save_state};
use crate::trainer::{DEFAULT_MAX_STEPS, Step};
use crate::{
    Batches, Differentiable, Error, History, Iterate, Method, NonFinite, Oracle, Outcome, Record, StopReason, Update,
    Validation,
};
use ad_core::Matrix;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the user asked for; never changed by the run.
pub(crate) struct Plan<'a, D, R> {
    pub objective: Objective<D>,
    pub rule: R,
    pub x0: Vec<f64>,
    pub batches: Batches,
    pub max_steps: Option<usize>,
    pub max_epochs: Option<usize>,
    pub max_time: Option<Duration>,
    pub grad_tol: Option<f64>,
    pub target_value: Option<f64>,
    pub patience: Option<(usize, f64)>,
    pub validation: Option<Objective<Box<dyn Differentiable + 'a>>>,
    /// Samples that no batch has, as the user gave them.
    pub held_out: Option<Vec<usize>>,
    pub check_gradient: bool,
    pub threads: usize,
    pub history: History,
}

/// The function that is minimised: the user's, or, to find a maximum, the negative of it.
pub(crate) struct Objective<D> {
    pub of: D,
    pub negated: bool,
}

impl<D> Objective<D> {
    /// A value of the one function as that of the other.
    pub fn signed(&self, value: f64) -> f64 {
        if self.negated { -value } else { value }
    }

    fn sign(&self, value: Result<f64, Error>, grad: &mut [f64]) -> Result<f64, Error> {
        if self.negated {
            grad.iter_mut().for_each(|g| *g = -*g);
        }
        value.map(|value| self.signed(value))
    }
}

impl<D: Differentiable> Differentiable for Objective<D> {
    fn dim(&self) -> usize {
        self.of.dim()
    }

    fn num_samples(&self) -> usize {
        self.of.num_samples()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        let value = self.of.value_and_gradient(x, batch, grad);
        self.sign(value, grad)
    }

    fn value_and_gradient_threads(
        &self,
        x: &[f64],
        batch: &[usize],
        grad: &mut [f64],
        threads: usize,
    ) -> Result<f64, Error> {
        let value = self.of.value_and_gradient_threads(x, batch, grad, threads);
        self.sign(value, grad)
    }

    fn residuals_and_jacobian(&self, x: &[f64], residuals: &mut Vec<f64>, jacobian: &mut Matrix) -> Result<(), Error> {
        match self.negated {
            true => Err(Error::NotForResiduals { asked: "maximise" }),
            false => self.of.residuals_and_jacobian(x, residuals, jacobian),
        }
    }

    fn describe_non_finite(&self, x: &[f64], sample: usize) -> Option<String> {
        self.of.describe_non_finite(x, sample)
    }

    fn names(&self) -> Vec<String> {
        self.of.names()
    }
}

/// Everything that changes from step to step. All buffers are made at the start: a step allocates nothing but history,
/// and what a method makes for itself.
pub(crate) struct Run<S> {
    started: Instant,
    /// When the present step began.
    begun: Instant,
    /// The time that the run had taken when this program took it over.
    time_before: Duration,
    state: S,
    pub x: Vec<f64>,
    /// Where the run began: the start that was given, or that of the run that goes on here.
    start: Vec<f64>,
    gradient: Vec<f64>,
    delta: Vec<f64>,
    /// The batch of all samples: 0, 1, …, N−1 but for those held out.
    all: Vec<usize>,
    /// The samples of the validation objective, all of them, once they have been asked for.
    others: Vec<usize>,
    /// The samples that are held out, in increasing order.
    held_out: Vec<usize>,
    /// The samples of the current epoch in the order of their turn, and how many of them had theirs.
    order: Vec<usize>,
    position: usize,
    batch_size: usize,
    /// Whether every batch is `all`, so that every value on the way is exact.
    pub whole: bool,
    pub steps: usize,
    epochs: usize,
    evaluations: usize,
    /// Value and gradient norm over all samples at the current `x`, where they are known.
    measured: Option<(f64, f64)>,
    /// The last evaluation that a method asked for itself; its gradient is taken over if the step leads there.
    trial: Trial,
    /// The last point at which value and gradient were finite on the samples asked for.
    last: Option<Known>,
    /// The point with the smallest value over all samples.
    pub best: Option<Known>,
    /// The point at the end of the epoch with the smallest mean, and that mean; kept for minibatches alone.
    pub best_epoch: Option<Known>,
    /// The point at the end of the epoch with the smallest value over the validation samples, and that epoch.
    pub best_validation: Option<(Known, usize)>,
    /// The value over the validation samples at the end of the last epoch.
    validation: Option<f64>,
    /// The value of the first batch at the start.
    first_value: f64,
    tally: Tally,
    /// The mean of the last epoch that improved, and the number of epochs since.
    improved: (f64, usize),
    history: Vec<Record>,
    pub stop: Option<StopReason>,
    /// Whether it was the method that set `stop`, which a run that goes on must know.
    ended_by_method: bool,
}

impl<S> Run<S> {
    pub fn start<D: Differentiable, R: Method<State = S>>(plan: &Plan<'_, D, R>) -> Result<Self, Error> {
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
        let held_out = plan.check_held_out()?;
        let mut all: Vec<usize> = (0..plan.objective.num_samples()).collect();
        all.retain(|sample| held_out.binary_search(sample).is_err());
        let batch_size = plan.batches.size_for(all.len())?;
        let whole = batch_size == all.len() && (plan.batches.repeats() || all.len() == 1);
        // An objective of one sample, such as a sum of squares, has no minibatches: whoever asks for some takes its
        // terms for samples.
        let divides = !whole || plan.objective.num_samples() == 1 && !plan.batches.is_full();
        if let Some(method) = plan.rule.needs_full_batches()
            && divides
        {
            return Err(Error::NeedsFullBatches { method });
        }
        let mut state = plan.rule.prepare(dim)?;
        let mut x = plan.x0.clone();
        plan.rule.confine(&mut state, &mut x);
        let now = Instant::now();
        Ok(Run {
            started: now,
            begun: now,
            time_before: Duration::ZERO,
            state,
            x,
            start: plan.x0.clone(),
            // An objective that adds to the gradient, where it should overwrite it, meets these NaNs in the first step.
            gradient: vec![f64::NAN; dim],
            delta: vec![0.0; dim],
            all,
            others: Vec::new(),
            held_out,
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
            best_validation: None,
            validation: None,
            first_value: f64::NAN,
            tally: Tally { gradient: vec![0.0; if whole { 0 } else { dim }], rate: 1.0, ..Tally::default() },
            improved: (f64::INFINITY, 0),
            history: Vec::new(),
            stop: None,
            ended_by_method: false,
        })
    }

    /// What a checkpoint of the run in its present state holds.
    pub fn save<D: Differentiable, R: Method<State = S>>(
        &mut self,
        plan: &Plan<'_, D, R>,
    ) -> Result<Checkpoint, Error> {
        let mut settings = Vec::new();
        plan.rule.report_settings(&mut |name, value| settings.push((name.to_owned(), value)));
        let evaluated = match self.measured {
            Some((value, _)) if self.whole => Some((value, self.gradient.clone())),
            _ if self.whole && self.trial.x == self.x => Some((self.trial.value, self.trial.gradient.clone())),
            _ => None,
        };
        Ok(Checkpoint {
            method: plan.rule.name(),
            settings,
            state: save_state(&plan.rule, &mut self.state)?,
            names: plan.objective.names(),
            batches: plan.batches.clone(),
            maximise: plan.objective.negated,
            samples: plan.objective.num_samples(),
            held_out: self.held_out.clone(),
            steps: self.steps,
            epochs: self.epochs,
            evaluations: self.evaluations,
            time: self.time_before + self.started.elapsed(),
            x: self.x.clone(),
            history: self.history.clone(),
            loop_state: LoopState {
                start: self.start.clone(),
                position: if self.position == self.order.len() { 0 } else { self.position },
                first_value: self.first_value,
                measured: self.measured,
                evaluated,
                last: self.last.clone(),
                best: self.best.clone(),
                best_epoch: self.best_epoch.clone(),
                best_validation: self.best_validation.clone(),
                validation: self.validation,
                tally: self.tally.clone(),
                improved: self.improved,
                ended: self.stop.clone().filter(|_| self.ended_by_method),
            },
        })
    }

    /// The run that goes on from a checkpoint; `path` is for messages.
    pub fn resume<D: Differentiable, R: Method<State = S>>(
        plan: &Plan<'_, D, R>,
        checkpoint: Checkpoint,
        path: &Path,
    ) -> Result<Self, Error> {
        let mut run = Run::start(plan)?;
        let failed = |problem| Error::Checkpoint { path: path.to_owned(), problem };
        let fresh = run.save(plan)?;
        if let Some(problem) = fresh.difference(&checkpoint) {
            return Err(failed(problem));
        }
        load_state(&plan.rule, &mut run.state, &checkpoint.state).map_err(|error| match error {
            Error::StateMismatch { found, expected, .. } => {
                failed(CheckpointProblem::other("state of the rule", found, expected))
            }
            other => other,
        })?;
        let Checkpoint { steps, epochs, evaluations, time, x, history, loop_state, .. } = checkpoint;
        (run.steps, run.epochs, run.evaluations) = (steps, epochs, evaluations);
        (run.time_before, run.history) = (time, history);
        if let Some((value, gradient)) = loop_state.evaluated {
            run.trial = Trial { x: x.clone(), value, gradient };
        }
        run.x = x;
        run.start = loop_state.start;
        run.first_value = loop_state.first_value;
        run.measured = if run.whole { None } else { loop_state.measured };
        (run.last, run.best, run.best_epoch) = (loop_state.last, loop_state.best, loop_state.best_epoch);
        (run.best_validation, run.validation) = (loop_state.best_validation, loop_state.validation);
        if loop_state.tally.gradient.len() != run.tally.gradient.len() {
            let (saved, given) = (loop_state.tally.gradient.len(), run.tally.gradient.len());
            return Err(failed(CheckpointProblem::other("sum of gradients", saved.to_string(), given.to_string())));
        }
        run.tally = loop_state.tally;
        run.improved = loop_state.improved;
        run.ended_by_method = loop_state.ended.is_some();
        run.stop = loop_state.ended;
        if loop_state.position > 0 {
            run.draw_order(plan);
            if loop_state.position >= run.order.len()
                || !loop_state.position.is_multiple_of(run.batch_size)
                || run.whole
            {
                let batches = format!("between batches of {}", run.batch_size);
                return Err(failed(CheckpointProblem::other(
                    "position within an epoch",
                    loop_state.position.to_string(),
                    batches,
                )));
            }
            run.position = loop_state.position;
        } else if plan.patience.is_some_and(|(epochs, _)| run.improved.1 >= epochs) && run.stop.is_none() {
            run.stop = Some(StopReason::Patience);
        }
        run.check_validation(plan, &failed)?;
        run.started = Instant::now();
        Ok(run)
    }

    /// Refuses to go on where the best point so far was judged by other validation samples.
    fn check_validation<D: Differentiable, R>(
        &mut self,
        plan: &Plan<'_, D, R>,
        failed: &impl Fn(CheckpointProblem) -> Error,
    ) -> Result<(), Error> {
        let Some((best, _)) = &self.best_validation else { return Ok(()) };
        let (saved, best_x) = (best.value, best.x.clone());
        let x = std::mem::replace(&mut self.x, best_x);
        let given = self.validate(plan);
        self.x = x;
        match given? {
            Some(given) if !same(&[given], &[saved]) => {
                let text = |value| format!("{:?} at its best point", plan.objective.signed(value));
                Err(failed(CheckpointProblem::other("value on validation samples", text(saved), text(given))))
            }
            _ => Ok(()),
        }
    }

    pub fn is_non_finite(&self) -> bool {
        matches!(self.stop, Some(StopReason::NonFinite { .. }))
    }

    /// Whether the point that an epoch ended with is the best of all.
    pub fn is_at_best(&self) -> bool {
        let best = self.best_validation.as_ref().map(|(best, _)| best).or(self.best_epoch.as_ref());
        best.is_some_and(|best| best.x == self.x)
    }

    /// One step, or `None` with `self.stop` set.
    pub fn advance<D: Differentiable, R: Method<State = S>>(
        &mut self,
        plan: &Plan<'_, D, R>,
    ) -> Result<Option<Step>, Error> {
        self.begun = Instant::now();
        if self.steps == 0 && plan.check_gradient && self.stop.is_none() {
            // What cannot be checked is let pass.
            let _ = crate::gradient_check::check_at(&plan.objective.of, &self.x, &self.all, plan.threads)?;
        }
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
        let mut step = Step {
            step: self.steps,
            epoch: self.epochs + 1,
            value: plan.objective.signed(value),
            grad_norm,
            rate,
            samples,
            epoch_mean: None,
            validation: None,
            time: Duration::ZERO,
        };
        if self.whole || self.position == self.order.len() {
            let grad_norm = if self.whole { grad_norm } else { norm(&self.tally.gradient) };
            step.epoch_mean = Some(plan.objective.signed(self.tally.value));
            let validation = self.end_epoch(plan, grad_norm, &mut step.time)?;
            step.validation = validation.map(|value| plan.objective.signed(value));
        } else {
            step.time = self.begun.elapsed();
            self.tally.time += step.time;
        }
        if plan.history == History::Steps {
            let Step { step, epoch, validation, time, value, .. } = step;
            self.history.push(Record { step, epoch, samples, value, grad_norm, rate, validation, time });
        }
        Ok(Some(step))
    }

    /// Value and gradient at x over all samples: what stop rules, the best point and the outcome are judged on.
    fn measure<D: Differentiable, R: Method<State = S>>(&mut self, plan: &Plan<'_, D, R>) -> Result<(), Error> {
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
        plan: &Plan<'_, D, R>,
    ) -> Result<Option<(usize, f64, f64)>, Error> {
        if self.position == self.order.len() {
            self.position = 0;
            if self.order.is_empty() || !plan.batches.repeats() {
                self.draw_order(plan);
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

    /// The samples of the epoch that has begun, in the order of their turn.
    fn draw_order<D, R>(&mut self, plan: &Plan<'_, D, R>) {
        plan.batches.order_into(self.all.len(), self.epochs + 1, &mut self.order);
        if !self.held_out.is_empty() {
            self.order.iter_mut().for_each(|sample| *sample = self.all[*sample]);
        }
    }

    /// Moves x by the rule and returns the rate; `None` if the new point is not finite, or the method
    /// ended the run where it stands.
    fn update<D: Differentiable, R: Method<State = S>>(
        &mut self,
        plan: &Plan<'_, D, R>,
        samples: usize,
        value: f64,
    ) -> Result<Option<f64>, Error> {
        let (step, epoch) = (self.steps + 1, self.epochs + 1);
        self.delta.copy_from_slice(&self.gradient);
        let mut update = Update { delta: &mut self.delta, rate: 1.0 };
        let validation = self.validation;
        let at = Iterate { step, epoch, samples, value, validation, x: &self.x, gradient: &self.gradient };
        let mut oracle = Oracle {
            objective: &plan.objective,
            x: &self.x,
            all: &self.all,
            threads: plan.threads,
            evaluations: &mut self.evaluations,
            trial: &mut self.trial,
        };
        self.stop = plan.rule.advance(&mut self.state, &at, &mut update, &mut oracle)?;
        self.ended_by_method = self.stop.is_some();
        let rate = update.rate;
        if self.stop.is_some() && self.delta.iter().all(|&delta| delta == 0.0) {
            return Ok(None);
        }
        for (x, delta) in self.x.iter_mut().zip(&self.delta) {
            *x -= delta;
        }
        plan.rule.confine(&mut self.state, &mut self.x);
        if let Some((index, component)) = first_non_finite(&self.x) {
            self.back_to_last(value, f64::NAN);
            // What a method asked for beside the gradient, such as a Jacobian, may have been to blame.
            let single = plan.objective.num_samples() == 1;
            let detail = if single { plan.objective.describe_non_finite(&self.x, 0) } else { None };
            let quantity = NonFinite::Point { index, value: component };
            self.stop = Some(StopReason::NonFinite { step, epoch, sample: None, quantity, detail });
            self.ended_by_method = false;
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

    /// Closes the books of an epoch, `grad_norm` being the norm of its mean gradient. Returns the value over the
    /// validation samples, if there are some, and sets the time that the step took.
    fn end_epoch<D: Differentiable, R: Method<State = S>>(
        &mut self,
        plan: &Plan<'_, D, R>,
        grad_norm: f64,
        time: &mut Duration,
    ) -> Result<Option<f64>, Error> {
        let mean = self.tally.value;
        let validation = self.validate(plan)?;
        self.validation = validation;
        // The clock is read as seldom as can be: small functions take no longer than that.
        *time = self.begun.elapsed();
        self.tally.time += *time;
        self.record_epoch(plan, grad_norm, validation);
        self.tally.samples = 0;
        self.tally.time = Duration::ZERO;
        self.epochs += 1;
        if let Some(value) = validation {
            self.keep_validation(value);
        }
        if !self.whole {
            Known::keep_better(&mut self.best_epoch, &self.x, mean, grad_norm);
        }
        if let Some((epochs, min_delta)) = plan.patience {
            let judged = validation.unwrap_or(mean);
            match &mut self.improved {
                (level, since) if judged.is_finite() && judged < *level - min_delta => (*level, *since) = (judged, 0),
                (_, since) => *since += 1,
            }
            if self.improved.1 >= epochs && self.stop.is_none() {
                self.stop = Some(StopReason::Patience);
            }
        }
        // An epoch mean only proposes to stop: its batches were taken at different points. All samples decide.
        let proposed =
            plan.target().is_some_and(|target| mean <= target) || plan.grad_tol.is_some_and(|tol| grad_norm <= tol);
        if !self.whole && self.stop.is_none() && proposed {
            self.measure(plan)?;
        }
        Ok(validation)
    }

    /// The value at x over the validation samples, if there are some.
    fn validate<D: Differentiable, R>(&mut self, plan: &Plan<'_, D, R>) -> Result<Option<f64>, Error> {
        // The gradient is not wanted: δ has been used.
        let (x, gradient, threads) = (&self.x, &mut self.delta, plan.threads);
        match &plan.validation {
            Some(other) => {
                self.others.extend(self.others.len()..other.num_samples());
                evaluate(other, threads, x, &self.others, gradient).map(Some)
            }
            None if self.held_out.is_empty() => Ok(None),
            None => evaluate(&plan.objective, threads, x, &self.held_out, gradient).map(Some),
        }
    }

    /// A number that is not finite is better than nothing alone.
    fn keep_validation(&mut self, value: f64) {
        let improves = |best: f64| value.is_finite() && (value < best || !best.is_finite());
        if self.best_validation.as_ref().is_none_or(|(best, _)| improves(best.value)) {
            let known = Known { x: self.x.clone(), value, grad_norm: 0.0 };
            self.best_validation = Some((known, self.epochs));
        }
    }

    /// Adds what the tally holds to the history, if there is anything and it was asked for.
    fn record_epoch<D, R>(&mut self, plan: &Plan<'_, D, R>, grad_norm: f64, validation: Option<f64>) {
        let Tally { samples, value, rate, time, .. } = self.tally;
        if plan.history == History::Epochs && samples > 0 {
            let (step, epoch, value) = (self.steps, self.epochs + 1, plan.objective.signed(value));
            let validation = validation.map(|value| plan.objective.signed(value));
            self.history.push(Record { step, epoch, samples, value, grad_norm, rate, validation, time });
        }
    }

    /// The stop rules that are judged on a value over all samples, where there is one.
    fn goal<D, R>(&self, plan: &Plan<'_, D, R>) -> Option<StopReason> {
        let (value, grad_norm) = self.measured?;
        if plan.target().is_some_and(|target| value <= target) {
            Some(StopReason::TargetValue)
        } else if plan.grad_tol.is_some_and(|tol| grad_norm <= tol) {
            Some(StopReason::GradientNorm)
        } else {
            None
        }
    }

    fn limit<D, R>(&self, plan: &Plan<'_, D, R>) -> Option<StopReason> {
        let unlimited = plan.max_epochs.is_none() && plan.max_time.is_none();
        let max_steps = plan.max_steps.or(unlimited.then_some(DEFAULT_MAX_STEPS));
        if max_steps.is_some_and(|max| self.steps >= max) {
            Some(StopReason::MaxSteps)
        } else if plan.max_epochs.is_some_and(|max| self.epochs >= max) {
            Some(StopReason::MaxEpochs)
        } else if plan.max_time.is_some_and(|limit| self.started.elapsed() >= limit) {
            Some(StopReason::MaxTime)
        } else {
            None
        }
    }

    fn evaluate<D: Differentiable, R>(&mut self, plan: &Plan<'_, D, R>, batch: Batch) -> Result<f64, Error> {
        self.evaluations += 1;
        let batch = batch.of(&self.all, &self.order);
        evaluate(&plan.objective, plan.threads, &self.x, batch, &mut self.gradient)
    }

    /// Ends the run after an evaluation of `batch` at x that gave `value`, and goes back to the last finite point.
    fn stop_non_finite<D: Differentiable, R>(
        &mut self,
        plan: &Plan<'_, D, R>,
        quantity: NonFinite,
        value: f64,
        batch: Batch,
    ) {
        let grad_norm = norm(&self.gradient);
        let samples = batch.of(&self.all, &self.order);
        let single = plan.objective.num_samples() == 1;
        let sample = match samples {
            _ if single => None,
            &[sample] => Some(sample),
            // An error here would only hide the finding that is being explained.
            _ => samples.iter().copied().find(|&sample| {
                evaluate(&plan.objective, plan.threads, &self.x, &[sample], &mut self.delta)
                    .is_ok_and(|value| non_finite(value, &self.delta).is_some())
            }),
        };
        let explained = if single { Some(0) } else { sample };
        let detail = explained.and_then(|sample| plan.objective.describe_non_finite(&self.x, sample));
        let (step, epoch) = (self.steps + 1, self.epochs + 1);
        let quantity = plan.quantity(quantity);
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

    pub fn finish<D: Differentiable, R: Method<State = S>>(mut self, plan: &Plan<'_, D, R>) -> Result<Outcome, Error> {
        let grad_norm = norm(&self.tally.gradient);
        self.record_epoch(plan, grad_norm, None);
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
                let mut start = self.start.clone();
                plan.rule.confine(&mut self.state, &mut start);
                self.measure_aside(plan, start);
            }
        }
        let validation = self.finish_validation(plan);
        // Only after a non-finite stop can a measurement be missing; what the last batch showed stands in for it.
        let last = self.last.map(|last| (last.value, last.grad_norm));
        let (value, grad_norm) = self.measured.or(last).unwrap_or((f64::NAN, f64::NAN));
        let best = self.best.or(self.best_epoch);
        let at_default_limit = self.stop == Some(StopReason::MaxSteps) && plan.max_steps.is_none();
        let (best_x, best_value) = best.map_or_else(|| (self.x.clone(), value), |best| (best.x, best.value));
        Ok(Outcome {
            x: self.x,
            value: plan.objective.signed(value),
            best_x,
            best_value: plan.objective.signed(best_value),
            grad_norm,
            steps: self.steps,
            epochs: self.epochs,
            evaluations: self.evaluations,
            stop: self.stop.unwrap_or(StopReason::Observer),
            history: self.history,
            validation,
            time: self.time_before + self.started.elapsed(),
            names: plan.objective.names(),
            at_default_limit,
        })
    }

    fn finish_validation<D: Differentiable, R>(&mut self, plan: &Plan<'_, D, R>) -> Option<Validation> {
        // Like any other measurement after the run, one that fails does not take the rest away.
        let value = match &self.best_validation {
            Some((best, _)) if best.x == self.x => best.value,
            _ => self.validate(plan).unwrap_or(Some(f64::NAN))?,
        };
        self.keep_validation(value);
        let (best, best_epoch) = self.best_validation.take()?;
        let signed = |value| plan.objective.signed(value);
        Some(Validation { value: signed(value), best_value: signed(best.value), best_x: best.x, best_epoch })
    }

    /// Measures a point that competes for the best, after the run; one that cannot be measured does not compete.
    fn measure_aside<D: Differentiable, R>(&mut self, plan: &Plan<'_, D, R>, x: Vec<f64>) -> Option<(f64, f64)> {
        self.evaluations += 1;
        let value = evaluate(&plan.objective, plan.threads, &x, &self.all, &mut self.gradient).ok()?;
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

impl<D, R> Plan<'_, D, R> {
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

    /// The target of the function that is minimised.
    fn target(&self) -> Option<f64> {
        self.target_value.map(|target| self.objective.signed(target))
    }

    /// What was found of the function that is minimised, as the user's function has it.
    fn quantity(&self, quantity: NonFinite) -> NonFinite {
        match quantity {
            NonFinite::Value(value) => NonFinite::Value(self.objective.signed(value)),
            NonFinite::Gradient { index, value } => NonFinite::Gradient { index, value: self.objective.signed(value) },
            point @ NonFinite::Point { .. } => point,
        }
    }
}

impl<D: Differentiable, R> Plan<'_, D, R> {
    /// Whether points are judged by other samples than those of the steps.
    pub fn is_validated(&self) -> bool {
        self.validation.is_some() || self.held_out.as_ref().is_some_and(|samples| !samples.is_empty())
    }

    /// The held-out samples in increasing order, each once.
    fn check_held_out(&self) -> Result<Vec<usize>, Error> {
        let held_out = match &self.held_out {
            None => Vec::new(),
            Some(given) => {
                let samples = self.objective.num_samples();
                let refused = |sample, held_out| Err(Error::HeldOut { sample, held_out, samples });
                if let Some(&sample) = given.iter().find(|&&sample| sample >= samples) {
                    return refused(Some(sample), given.len());
                }
                let mut held_out = given.clone();
                held_out.sort_unstable();
                held_out.dedup();
                if held_out.is_empty() || held_out.len() == samples {
                    return refused(None, held_out.len());
                }
                held_out
            }
        };
        if let Some(validation) = &self.validation {
            let (expected, got) = (self.objective.dim(), validation.dim());
            if got != expected {
                return Err(Error::DimensionMismatch { what: "the point of the validation objective", expected, got });
            }
            if validation.num_samples() == 0 {
                return Err(Error::NoSamples);
            }
        }
        Ok(held_out)
    }
}

pub(crate) fn evaluate(
    objective: &(impl Differentiable + ?Sized),
    threads: usize,
    x: &[f64],
    batch: &[usize],
    gradient: &mut [f64],
) -> Result<f64, Error> {
    match threads {
        1 => objective.value_and_gradient(x, batch, gradient),
        threads => objective.value_and_gradient_threads(x, batch, gradient, threads),
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
