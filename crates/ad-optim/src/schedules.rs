use crate::rule::StateVisitor;
use crate::rules::power;
use crate::{Error, Iterate, Part, Rule, Update};
use std::f64::consts::PI;

/// A schedule of the learning rate: multiplies δ, and with it the rate of the rule before it, by a factor that depends on
/// the number of the step alone.
///
/// It stands after the rule, `(Adam::new(1e-3), Schedule::cosine(10_000).warm_up(500))`, whose rate is then the
/// largest one. With t counting the steps from 0 and T the total number of them:
///
/// ```text
/// constant()            1
/// step(k, γ)            γ^⌊t/k⌋
/// exponential(γ)        γᵗ
/// polynomial(T, p)      e + (1 − e)·(1 − t/T)ᵖ,             e from t = T on
/// cosine(T)             e + (1 − e)·(1 + cos(π·t/T))/2,     e from t = T on
/// one_cycle(T)          from 1/25 to 1 in the first 0.3·T steps, then down to 1/(25·10⁴); by half waves of the cosine
/// .end(e)               sets e; default 0
/// .warm_up(w)           (t + 1)/(w + 1) for t < w; then the shape begins, with t − w for t and T − w for T
/// .per_epoch()          counts epochs in place of steps
/// ```
///
/// Sources: cosine, Loshchilov and Hutter, arXiv:1608.03983 (one period); warm-up, Goyal et al., arXiv:1706.02677;
/// one-cycle, Smith and Topin, arXiv:1708.07120, in the two-phase form of torch.
///
/// Where others differ: torch's schedulers set the rate of the optimiser, optax's give the rate itself; as factors they
/// are the same curves. `cosine` and `polynomial` are torch's `CosineAnnealingLR` and `PolynomialLR`, and optax's
/// `cosine_decay_schedule` and `polynomial_schedule`. The warm-up of optax's `warmup_cosine_decay_schedule` begins with
/// the rate 0, a step that does nothing; here step 1 has the factor 1/(w + 1). `one_cycle` is torch's `OneCycleLR` with
/// `cycle_momentum=False`: its first phase ends at t = 0.3·T − 1, its second at T − 1; optax's
/// `cosine_onecycle_schedule` ends them at ⌊0.3·T⌋ and T.
///
/// # Errors
///
/// Of the run: k and T must be at least 1, T more than w, γ and p positive and finite, e in [0, 1].
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, Schedule, Trainer, from_fn};
///
/// let schedule = Schedule::step(2, 0.5);
/// let factors: Vec<f64> = (1..=5).map(|step| schedule.factor(step)).collect();
/// assert_eq!(factors, [1.0, 1.0, 0.5, 0.5, 0.25]);
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, (GradientDescent::new(0.25), schedule), vec![1.0]).max_steps(3).run()?;
/// assert_eq!(out.history[2].rate, 0.125);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    shape: Shape,
    end: f64,
    warm_up: usize,
    per_epoch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Constant,
    Step { every: usize, factor: f64 },
    Exponential { factor: f64 },
    Polynomial { total: usize, power: f64 },
    Cosine { total: usize },
    OneCycle { total: usize },
}

impl Schedule {
    /// The factor 1; with a warm-up, what comes after it.
    pub fn constant() -> Self {
        Schedule { shape: Shape::Constant, end: 0.0, warm_up: 0, per_epoch: false }
    }

    /// Multiplies the rate by `factor` after every `every` steps.
    pub fn step(every: usize, factor: f64) -> Self {
        Schedule { shape: Shape::Step { every, factor }, ..Schedule::constant() }
    }

    /// Multiplies the rate by `factor` after each step.
    pub fn exponential(factor: f64) -> Self {
        Schedule { shape: Shape::Exponential { factor }, ..Schedule::constant() }
    }

    /// Falls as a power of the steps that are left; 1 is a straight line.
    pub fn polynomial(total: usize, power: f64) -> Self {
        Schedule { shape: Shape::Polynomial { total, power }, ..Schedule::constant() }
    }

    /// Falls along half a wave of the cosine.
    pub fn cosine(total: usize) -> Self {
        Schedule { shape: Shape::Cosine { total }, ..Schedule::constant() }
    }

    /// Rises and falls once.
    pub fn one_cycle(total: usize) -> Self {
        Schedule { shape: Shape::OneCycle { total }, ..Schedule::constant() }
    }

    /// Sets the factor that `polynomial` and `cosine` end with, in [0, 1]; default 0.
    pub fn end(self, factor: f64) -> Self {
        Schedule { end: factor, ..self }
    }

    /// Rises in a straight line over the first `steps` steps. The total of the shape includes them.
    pub fn warm_up(self, steps: usize) -> Self {
        Schedule { warm_up: steps, ..self }
    }

    /// Counts epochs in place of steps.
    pub fn per_epoch(self) -> Self {
        Schedule { per_epoch: true, ..self }
    }

    /// The factor of a step (or epoch), counted from 1.
    pub fn factor(&self, step: usize) -> f64 {
        let t = step.saturating_sub(1);
        if t < self.warm_up {
            return (t + 1) as f64 / (self.warm_up as f64 + 1.0);
        }
        let t = t - self.warm_up;
        // The fraction of the way, and what is left of the height.
        let done = |total: usize| (t as f64 / total.saturating_sub(self.warm_up).max(1) as f64).min(1.0);
        let above_end = |height: f64| self.end + (1.0 - self.end) * height;
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Step { every, factor } => power(factor, (t / every.max(1)) as u64),
            Shape::Exponential { factor } => power(factor, t as u64),
            Shape::Polynomial { total, power } => above_end(ad_core::Rule::powf(1.0 - done(total), power)),
            Shape::Cosine { total } => above_end(half_wave(1.0, 0.0, done(total))),
            Shape::OneCycle { total } => {
                const START: f64 = 1.0 / 25.0;
                const END: f64 = START / 1e4;
                let total = total.saturating_sub(self.warm_up).max(1) as f64;
                let (t, peak, last) = (t as f64, 0.3 * total - 1.0, total - 1.0);
                match t <= peak {
                    true => half_wave(START, 1.0, t / peak),
                    false => half_wave(1.0, END, ((t - peak) / (last - peak)).min(1.0)),
                }
            }
        }
    }
}

/// From `from` to `to` along half a wave of the cosine. The cosine of ad-core has the same bits on every machine.
fn half_wave(from: f64, to: f64, fraction: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + ad_core::Rule::cos(PI * fraction))
}

impl Rule for Schedule {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        const OWNER: &str = "Schedule";
        let check_factor = |factor: f64| match factor.is_finite() && factor > 0.0 {
            true => Ok(()),
            false => Err(Error::setting(OWNER, "factor", factor, "positive and finite; 0.1 is usual for steps")),
        };
        let check_total = |total: usize| match total > self.warm_up {
            true => Ok(()),
            false => {
                Err(Error::setting(OWNER, "total of steps", total as f64, "at least 1, and more than the warm-up"))
            }
        };
        match self.shape {
            Shape::Constant => {}
            Shape::Step { every: 0, .. } => {
                return Err(Error::setting(OWNER, "number of steps between changes", 0.0, "at least 1"));
            }
            Shape::Step { factor, .. } | Shape::Exponential { factor } => check_factor(factor)?,
            Shape::Polynomial { total, power } => {
                check_total(total)?;
                if !(power.is_finite() && power > 0.0) {
                    return Err(Error::setting(OWNER, "power", power, "positive and finite; 1 is a straight line"));
                }
            }
            Shape::Cosine { total } | Shape::OneCycle { total } => check_total(total)?,
        }
        match (0.0..=1.0).contains(&self.end) {
            true => Ok(()),
            false => Err(Error::setting(OWNER, "factor at the end", self.end, "at least 0 and at most 1")),
        }
    }

    fn part(&self) -> Part {
        Part::Rate
    }

    fn step(&self, _state: &mut (), at: &Iterate<'_>, update: &mut Update<'_>) {
        scale(self.factor(if self.per_epoch { at.epoch } else { at.step }), update);
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        const NONE: (&str, f64) = ("no further setting of the shape", 0.0);
        let total_of = |total: usize| ("total of steps", total as f64);
        // Every shape reports as many settings, so that two schedules differ first in what tells them apart.
        let (shape, settings) = match self.shape {
            Shape::Constant => ("constant", [NONE, NONE]),
            Shape::Step { every, factor } => {
                ("step", [("number of steps between changes", every as f64), ("factor", factor)])
            }
            Shape::Exponential { factor } => ("exponential", [("factor", factor), NONE]),
            Shape::Polynomial { total, power } => ("polynomial", [total_of(total), ("power", power)]),
            Shape::Cosine { total } => ("cosine", [total_of(total), NONE]),
            Shape::OneCycle { total } => ("one_cycle", [total_of(total), NONE]),
        };
        report(shape, 1.0);
        settings.into_iter().for_each(|(name, value)| report(name, value));
        report("factor at the end", self.end);
        report("warm-up", self.warm_up as f64);
        report("per epoch", f64::from(u8::from(self.per_epoch)));
    }
}

/// A schedule by a function of the step: multiplies δ and the rate by its result.
///
/// The function sees what every rule sees, [`Iterate`]; it must be pure if a resumed run is to go on with the same bits. A
/// factor that is negative or not finite ends the run as non-finite.
///
/// # Example
///
/// The rate of Robbins and Monro, 1/t.
///
/// ```
/// use ad_optim::{GradientDescent, Trainer, from_fn, schedule_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let rule = (GradientDescent::new(0.25), schedule_fn(|at| 1.0 / at.step as f64));
/// let out = Trainer::new(&f, rule, vec![1.0]).max_steps(2).run()?;
/// assert_eq!(out.x, [0.375]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn schedule_fn<F: Fn(&Iterate<'_>) -> f64>(factor: F) -> ScheduleFn<F> {
    ScheduleFn(factor)
}

/// The schedule made by [`schedule_fn`].
#[derive(Clone, Copy)]
pub struct ScheduleFn<F>(F);

impl<F> std::fmt::Debug for ScheduleFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScheduleFn")
    }
}

impl<F: Fn(&Iterate<'_>) -> f64> Rule for ScheduleFn<F> {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        Ok(())
    }

    fn part(&self) -> Part {
        Part::Rate
    }

    fn step(&self, _state: &mut (), at: &Iterate<'_>, update: &mut Update<'_>) {
        let factor = (self.0)(at);
        scale(if (0.0..f64::INFINITY).contains(&factor) { factor } else { f64::NAN }, update);
    }
}

/// Reduces the learning rate when the means of epochs stop falling, or the values on validation samples.
///
/// With φ the factor on the rate, starting at 1, and b the smallest mean that counted so far:
///
/// ```text
/// at the end of an epoch with the mean f, or with the value f on the validation samples where there are some:
///   if f < b − threshold·|b|:  b ← f,  bad ← 0    else:  bad ← bad + 1
///   in the cooldown:           bad ← 0
///   if bad > patience:         φ ← max(φ·factor, min_factor),  bad ← 0,  cooldown begins
/// ```
///
/// It stands after the rule. A minibatch never decides: what counts is the mean over the samples of an epoch, each at
/// the point that was current when its batch came, and the new rate acts from the first step of the next epoch on. With
/// full batches every step is an epoch. With [`validate`](crate::Trainer::validate) or
/// [`hold_out`](crate::Trainer::hold_out) the values after each epoch count in place of the means; one that is not finite
/// is no improvement. Defaults are those of torch's `ReduceLROnPlateau`: factor 0.1, patience 10,
/// threshold 1e-4, cooldown 0, no smallest factor; as there, it acts in the epoch *after* `patience` bad ones, where
/// [`Trainer::patience`](crate::Trainer::patience) ends the run with the last of them. torch compares with b·(1 − threshold), which for a negative b
/// is above it, and has `min_lr` in units of the rate; optax's `contrib.reduce_on_plateau` has the same rule and averages
/// over a number of values that one sets.
///
/// # Errors
///
/// Of the run: the factor must be in (0, 1), the threshold finite and at least 0, the smallest factor in [0, 1].
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, ReduceOnPlateau, Trainer, from_fn};
///
/// // With rate 1 the point only changes its sign; half of it leads to the minimum at once.
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let rule = (GradientDescent::new(1.0), ReduceOnPlateau::new(0.5).patience(2));
/// let out = Trainer::new(&f, rule, vec![1.0]).max_steps(20).run()?;
/// assert_eq!(out.value, 0.0);
/// assert_eq!(out.history.last().map(|record| record.rate <= 0.5), Some(true));
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceOnPlateau {
    factor: f64,
    patience: usize,
    threshold: f64,
    cooldown: usize,
    min_factor: f64,
}

/// What [`ReduceOnPlateau`] remembers between steps.
#[derive(Clone, Debug, PartialEq)]
pub struct PlateauState {
    factor: f64,
    best: f64,
    /// The mean of the epoch so far, over so many samples.
    mean: f64,
    samples: u64,
    epoch: u64,
    bad: u64,
    cooldown: u64,
}

impl ReduceOnPlateau {
    /// Multiplies the rate by `factor`, in (0, 1), on each plateau.
    pub fn new(factor: f64) -> Self {
        ReduceOnPlateau { factor, patience: 10, threshold: 1e-4, cooldown: 0, min_factor: 0.0 }
    }

    /// Sets how many epochs in succession may bring no improvement; default 10.
    pub fn patience(self, epochs: usize) -> Self {
        ReduceOnPlateau { patience: epochs, ..self }
    }

    /// Sets by what fraction of its size a mean must fall to count; default 1e-4.
    pub fn threshold(self, fraction: f64) -> Self {
        ReduceOnPlateau { threshold: fraction, ..self }
    }

    /// Sets for how many epochs after a reduction nothing is counted; default 0.
    pub fn cooldown(self, epochs: usize) -> Self {
        ReduceOnPlateau { cooldown: epochs, ..self }
    }

    /// Sets the smallest factor; default 0.
    pub fn min_factor(self, factor: f64) -> Self {
        ReduceOnPlateau { min_factor: factor, ..self }
    }

    fn end_epoch(&self, state: &mut PlateauState, validation: Option<f64>) {
        let judged = validation.unwrap_or(state.mean);
        let falls = judged < state.best - self.threshold * state.best.abs() || state.best == f64::INFINITY;
        if judged.is_finite() && falls {
            (state.best, state.bad) = (judged, 0);
        } else {
            state.bad = state.bad.saturating_add(1);
        }
        if state.cooldown > 0 {
            state.cooldown -= 1;
            state.bad = 0;
        }
        if state.bad > self.patience as u64 {
            state.factor = (state.factor * self.factor).max(self.min_factor);
            (state.bad, state.cooldown) = (0, self.cooldown as u64);
        }
    }
}

impl Rule for ReduceOnPlateau {
    type State = PlateauState;

    fn init(&self, _dim: usize) -> Result<PlateauState, Error> {
        const OWNER: &str = "ReduceOnPlateau";
        if !(self.factor > 0.0 && self.factor < 1.0) {
            return Err(Error::setting(OWNER, "factor", self.factor, "above 0 and below 1; 0.1 is usual"));
        }
        crate::rules::check_not_negative(OWNER, "threshold", self.threshold)?;
        if !(0.0..=1.0).contains(&self.min_factor) {
            return Err(Error::setting(OWNER, "smallest factor", self.min_factor, "at least 0 and at most 1"));
        }
        Ok(PlateauState { factor: 1.0, best: f64::INFINITY, mean: 0.0, samples: 0, epoch: 0, bad: 0, cooldown: 0 })
    }

    fn part(&self) -> Part {
        Part::Rate
    }

    fn step(&self, state: &mut PlateauState, at: &Iterate<'_>, update: &mut Update<'_>) {
        if at.epoch as u64 != state.epoch {
            if state.samples > 0 {
                self.end_epoch(state, at.validation);
            }
            (state.mean, state.samples, state.epoch) = (0.0, 0, at.epoch as u64);
        }
        state.samples = state.samples.saturating_add(at.samples as u64);
        state.mean += (at.value - state.mean) * (at.samples as f64 / state.samples as f64);
        scale(state.factor, update);
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("factor", self.factor);
        report("patience", self.patience as f64);
        report("threshold", self.threshold);
        report("cooldown", self.cooldown as f64);
        report("smallest factor", self.min_factor);
    }

    fn visit_state(&self, state: &mut PlateauState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        let mut floats = [state.factor, state.best, state.mean];
        visitor.floats("factor, best and mean", &mut floats)?;
        [state.factor, state.best, state.mean] = floats;
        let mut counts = [state.samples, state.epoch, state.bad, state.cooldown];
        visitor.counts("samples, epoch, bad epochs and cooldown", &mut counts)?;
        [state.samples, state.epoch, state.bad, state.cooldown] = counts;
        Ok(())
    }
}

fn scale(factor: f64, update: &mut Update<'_>) {
    update.rate *= factor;
    update.delta.iter_mut().for_each(|d| *d *= factor);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The factor in each epoch, given the samples and the value of each of its batches.
    fn factors(rule: &ReduceOnPlateau, epochs: &[&[(usize, f64)]]) -> Vec<f64> {
        let mut state = rule.init(1).unwrap();
        let mut factor = |(index, batches): (usize, &&[(usize, f64)])| {
            let rates = batches.iter().map(|&(samples, value)| {
                let mut delta = [1.0];
                let mut update = Update { delta: &mut delta, rate: 1.0 };
                let (x, epoch) = (&[1.0][..], index + 1);
                let at = Iterate { step: 1, epoch, samples, value, validation: None, x, gradient: x };
                rule.step(&mut state, &at, &mut update);
                update.rate
            });
            let rates: Vec<f64> = rates.collect();
            assert!(rates.iter().all(|rate| *rate == rates[0]), "the factor changed within an epoch: {rates:?}");
            rates[0]
        };
        epochs.iter().enumerate().map(&mut factor).collect()
    }

    #[test]
    fn the_mean_of_an_epoch_is_over_its_samples() {
        // By samples the means are 4, 3 and 3.5; by batches they would be 4, 4 and 2.3.
        let epochs: [&[_]; 4] = [&[(3, 4.0)], &[(1, 6.0), (3, 2.0)], &[(1, 0.5), (5, 4.1)], &[(1, 0.0)]];
        let rule = ReduceOnPlateau::new(0.5).patience(0).threshold(0.0);
        assert_eq!(factors(&rule, &epochs), [1.0, 1.0, 1.0, 0.5]);
    }

    #[test]
    fn a_mean_must_fall_by_a_fraction_of_the_best() {
        let rule = |threshold| ReduceOnPlateau::new(0.5).patience(0).threshold(threshold);
        let values = |rule: &ReduceOnPlateau, values: [f64; 3]| {
            let batches = values.map(|value| [(1, value)]);
            factors(rule, &batches.each_ref().map(|batch| &batch[..]))[2]
        };
        // A fraction of 1/4 of 64 is 16, and of −64 too: a fall by exactly that much is none, by more it is one.
        let falls = [(64.0, 48.5, 0.5), (64.0, 48.0, 0.5), (64.0, 47.5, 1.0)];
        let below_zero = [(-64.0, -79.5, 0.5), (-64.0, -80.0, 0.5), (-64.0, -80.5, 1.0)];
        for (best, next, factor) in falls.into_iter().chain(below_zero) {
            assert_eq!(values(&rule(0.25), [best, next, 0.0]), factor, "from {best} to {next}");
        }
        // Without a threshold the same value again is no fall.
        assert_eq!(values(&rule(0.0), [64.0, 64.0, 0.0]), 0.5);
        assert_eq!(values(&rule(0.0), [64.0, 63.5, 0.0]), 1.0);
    }
}
