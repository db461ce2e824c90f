use crate::rule::StateVisitor;
use crate::rules::check_not_negative;
use crate::run::norm;
use crate::{Error, Iterate, Method, Oracle, StopReason, Update};

/// L-BFGS: quasi-Newton steps from the last few changes of the gradient, with a line search for the strong Wolfe
/// conditions. For smooth functions of any number of unknowns over full batches.
///
/// With gradient g, H the approximation of the inverse Hessian from the last m pairs s = Δx, y = Δg (the two-loop
/// recursion, started from sᵀy/yᵀy of the newest pair), f the value and a the step length:
///
/// ```text
/// d = H·g                         x ← x − a·d
/// f(x − a·d) ≤ f(x) − c₁·a·gᵀd    |g(x − a·d)ᵀd| ≤ c₂·|gᵀd|
/// ```
///
/// The search tries a = 1 first (min(1, 1/‖g‖) before there is a pair), doubles it until an interval contains good
/// lengths, and narrows that by cubic interpolation, kept a tenth of its width away from both ends. Where it meets a NaN
/// or an infinity, the step was too long. Where the two values differ by no more than their rounding, the first
/// condition is put to the slopes instead, g(x − a·d)ᵀd ≥ (2·c₁ − 1)·gᵀd, so that the search goes on to where the
/// gradient vanishes. If no length will do, the pairs are dropped and the gradient itself is tried; if that fails, too,
/// the run ends with [`StopReason::NoDescent`].
///
/// Sources: Nocedal, *Math. Comp.* 35 (1980); Liu and Nocedal, *Math. Prog.* 45 (1989); the search is algorithms 3.5 and
/// 3.6 of Nocedal and Wright, *Numerical Optimization* (2006); the condition on the slopes is that of Hager and Zhang,
/// *SIAM J. Optim.* 16 (2005). Defaults: m = 10, c₁ = 1e-4, c₂ = 0.9, at most 25 evaluations a search.
///
/// Where others differ: torch's `LBFGS` has m = 100, makes up to 20 iterations in one `step`, and searches only with
/// `line_search_fn="strong_wolfe"`; without, it takes steps of a fixed rate. optax's `lbfgs` has m = 10 and a zoom
/// search like this one, with at most 20 steps.
///
/// The reported rate is a. Every evaluation of a search counts among the evaluations of the outcome; the one at the new
/// point serves the next step.
///
/// # Errors
///
/// Of the run: [`Error::NeedsFullBatches`] with minibatches; m must be at least 1, and 0 < c₁ < c₂ < 1.
///
/// # Example
///
/// ```
/// use ad_core::Tape;
/// use ad_optim::{Lbfgs, Trainer};
///
/// let rosenbrock = Tape::record(&[1.0, 1.0], |x| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2))?;
/// let out = Trainer::new(&rosenbrock, Lbfgs::new(), vec![-1.2, 1.0]).grad_tol(1e-10).run()?;
/// assert!((out.x[0] - 1.0).abs() < 1e-12 && out.evaluations < 60);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Lbfgs {
    memory: usize,
    decrease: f64,
    curvature: f64,
    max_evaluations: usize,
}

impl Lbfgs {
    /// L-BFGS with the defaults.
    #[expect(clippy::new_without_default, reason = "methods are made by new, like all rules")]
    pub fn new() -> Self {
        Lbfgs { memory: 10, decrease: 1e-4, curvature: 0.9, max_evaluations: 25 }
    }

    /// Sets the number m of pairs that are kept, at least 1; default 10.
    pub fn memory(self, pairs: usize) -> Self {
        Lbfgs { memory: pairs, ..self }
    }

    /// Sets the constants of the Wolfe conditions, 0 < c₁ < c₂ < 1; default (1e-4, 0.9). A smaller c₂ searches longer.
    pub fn wolfe(self, decrease: f64, curvature: f64) -> Self {
        Lbfgs { decrease, curvature, ..self }
    }

    /// Sets how many evaluations a line search may make, at least 1; default 25.
    pub fn max_evaluations(self, evaluations: usize) -> Self {
        Lbfgs { max_evaluations: evaluations, ..self }
    }
}

/// What [`Lbfgs`] remembers between steps: the last pairs of changes.
#[derive(Clone, Debug, PartialEq)]
pub struct LbfgsState {
    /// The pairs, in a ring of `memory` places of `dim` numbers each.
    s: Vec<f64>,
    y: Vec<f64>,
    /// The number of pairs there are, and the place of the next one.
    pairs: u64,
    next: u64,
    /// Room for the direction d, its coefficients, and the gradients at the two points that a search looks back to.
    direction: Vec<f64>,
    coefficients: Vec<f64>,
    trial: Vec<f64>,
    low: Vec<f64>,
}

impl LbfgsState {
    /// The places of the pairs, the newest first.
    fn places(&self, memory: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let next = self.next as usize;
        (1..=self.pairs as usize).map(move |back| (next + memory - back) % memory)
    }

    /// d = H·g by the two-loop recursion.
    fn find_direction(&mut self, gradient: &[f64], memory: usize) {
        let dim = gradient.len();
        let of = |place: usize| place * dim..(place + 1) * dim;
        self.direction.copy_from_slice(gradient);
        for place in self.places(memory) {
            let (s, y) = (&self.s[of(place)], &self.y[of(place)]);
            let coefficient = dot(s, &self.direction) / dot(s, y);
            self.coefficients[place] = coefficient;
            self.direction.iter_mut().zip(y).for_each(|(d, y)| *d -= coefficient * y);
        }
        if let Some(newest) = self.places(memory).next() {
            let (s, y) = (&self.s[of(newest)], &self.y[of(newest)]);
            let scale = dot(s, y) / dot(y, y);
            self.direction.iter_mut().for_each(|d| *d *= scale);
        }
        for place in self.places(memory).rev() {
            let (s, y) = (&self.s[of(place)], &self.y[of(place)]);
            let coefficient = self.coefficients[place] - dot(y, &self.direction) / dot(s, y);
            self.direction.iter_mut().zip(s).for_each(|(d, s)| *d += coefficient * s);
        }
    }

    /// Keeps the pair of a step −δ that changed the gradient to `new`, if it has positive curvature.
    fn keep_pair(&mut self, delta: &[f64], old: &[f64], new: &[f64], memory: usize) {
        let place = self.next as usize;
        let of = place * delta.len()..(place + 1) * delta.len();
        let (s, y) = (&mut self.s[of.clone()], &mut self.y[of]);
        s.iter_mut().zip(delta).for_each(|(s, d)| *s = -d);
        y.iter_mut().zip(new.iter().zip(old)).for_each(|(y, (new, old))| *y = new - old);
        if dot(s, y) > f64::EPSILON * norm(s) * norm(y) {
            self.next = ((place + 1) % memory) as u64;
            self.pairs = (self.pairs + 1).min(memory as u64);
        } else if self.pairs == memory as u64 {
            // The oldest pair was overwritten.
            self.pairs -= 1;
        }
    }
}

/// A length on the line of a search, with the value there and its slope along the line.
#[derive(Clone, Copy)]
struct OnLine {
    length: f64,
    value: f64,
    slope: f64,
}

impl OnLine {
    fn is_finite(&self) -> bool {
        self.value.is_finite() && self.slope.is_finite()
    }
}

impl Lbfgs {
    /// Looks for a length that meets both conditions, and leaves −δ at it in `delta` and the gradient there in
    /// `state.trial`; `None` if there was none.
    fn search(
        &self,
        state: &mut LbfgsState,
        start: OnLine,
        first: f64,
        delta: &mut [f64],
        oracle: &mut Oracle<'_>,
    ) -> Result<Option<f64>, Error> {
        let mut low = start;
        // The other end of the interval, once there is one.
        let mut high: Option<OnLine> = None;
        let mut length = first;
        for _ in 0..self.max_evaluations {
            delta.iter_mut().zip(&state.direction).for_each(|(delta, d)| *delta = length * d);
            let value = oracle.evaluate(delta, &mut state.trial)?;
            let at = OnLine { length, value, slope: -dot(&state.trial, &state.direction) };
            let decreases = at.is_finite() && self.decreases(start, at);
            if decreases && at.slope.abs() <= -self.curvature * start.slope {
                return Ok(Some(length));
            }
            if !decreases || (at.value >= low.value && low.length > 0.0) {
                high = Some(at);
            } else {
                // The slope tells on which side of the lower point the interval goes on.
                let ahead = high.map_or(1.0, |high| high.length - low.length);
                if at.slope * ahead >= 0.0 {
                    high = Some(low);
                }
                low = at;
                std::mem::swap(&mut state.low, &mut state.trial);
            }
            length = match high {
                Some(high) => between(low, high),
                None => 2.0 * length,
            };
            if length == low.length || !length.is_finite() {
                break;
            }
        }
        // Where the slope is still steep, the value must have fallen beyond doubt.
        if low.value >= start.value {
            return Ok(None);
        }
        std::mem::swap(&mut state.low, &mut state.trial);
        delta.iter_mut().zip(&state.direction).for_each(|(delta, d)| *delta = low.length * d);
        Ok(Some(low.length))
    }

    /// The first Wolfe condition, on values or, where these cannot tell, on slopes.
    fn decreases(&self, start: OnLine, at: OnLine) -> bool {
        const ROUNDINGS: f64 = 8.0 * f64::EPSILON;
        let enough = at.value <= start.value + self.decrease * at.length * start.slope;
        let cannot_tell = (at.value - start.value).abs() <= ROUNDINGS * start.value.abs();
        enough || cannot_tell && at.slope <= (2.0 * self.decrease - 1.0) * start.slope
    }
}

/// Where the cubic through both ends has its minimum, kept a tenth of the width away from them; the middle where one of
/// them is not finite.
fn between(low: OnLine, high: OnLine) -> f64 {
    let width = high.length - low.length;
    let middle = low.length + 0.5 * width;
    if !high.is_finite() {
        return middle;
    }
    let d1 = low.slope + high.slope - 3.0 * (low.value - high.value) / (low.length - high.length);
    let d2 = (d1 * d1 - low.slope * high.slope).sqrt().copysign(width);
    let length = high.length - width * (high.slope + d2 - d1) / (high.slope - low.slope + 2.0 * d2);
    if !length.is_finite() {
        return middle;
    }
    let ends = (low.length + 0.1 * width, high.length - 0.1 * width);
    length.clamp(ends.0.min(ends.1), ends.0.max(ends.1))
}

impl Method for Lbfgs {
    type State = LbfgsState;

    fn prepare(&self, dim: usize) -> Result<LbfgsState, Error> {
        const OWNER: &str = "Lbfgs";
        for (setting, count) in [("memory", self.memory), ("largest number of evaluations", self.max_evaluations)] {
            if count == 0 {
                return Err(Error::setting(OWNER, setting, 0.0, "at least 1"));
            }
        }
        check_not_negative(OWNER, "decrease of the Wolfe conditions", self.decrease)?;
        if !(self.decrease > 0.0 && self.decrease < 1.0) {
            let must_be = "above 0 and below the curvature; 1e-4 is usual";
            return Err(Error::setting(OWNER, "decrease of the Wolfe conditions", self.decrease, must_be));
        }
        if !(self.curvature > self.decrease && self.curvature < 1.0) {
            let must_be = "above the decrease and below 1; 0.9 is usual";
            return Err(Error::setting(OWNER, "curvature of the Wolfe conditions", self.curvature, must_be));
        }
        let room = || vec![0.0; dim];
        let Some(size) = self.memory.checked_mul(dim).filter(|&size| size <= isize::MAX as usize / 16) else {
            return Err(Error::TooLarge { owner: OWNER, rows: self.memory, columns: dim });
        };
        let [s, y, coefficients] = [size, size, self.memory].map(zeros);
        let (Some(s), Some(y), Some(coefficients)) = (s, y, coefficients) else {
            return Err(Error::TooLarge { owner: OWNER, rows: self.memory, columns: dim });
        };
        Ok(LbfgsState { s, y, pairs: 0, next: 0, direction: room(), coefficients, trial: room(), low: room() })
    }

    fn advance(
        &self,
        state: &mut LbfgsState,
        at: &Iterate<'_>,
        update: &mut Update<'_>,
        oracle: &mut Oracle<'_>,
    ) -> Result<Option<StopReason>, Error> {
        loop {
            state.find_direction(at.gradient, self.memory);
            let slope = -dot(at.gradient, &state.direction);
            if slope < 0.0 && slope.is_finite() {
                let start = OnLine { length: 0.0, value: at.value, slope };
                let first = if state.pairs > 0 { 1.0 } else { (1.0 / norm(at.gradient)).min(1.0) };
                if let Some(length) = self.search(state, start, first, update.delta, oracle)? {
                    let new = std::mem::take(&mut state.trial);
                    state.keep_pair(update.delta, at.gradient, &new, self.memory);
                    state.trial = new;
                    update.rate *= length;
                    return Ok(None);
                }
            }
            if state.pairs == 0 {
                update.delta.fill(0.0);
                return Ok(Some(StopReason::NoDescent));
            }
            (state.pairs, state.next) = (0, 0);
        }
    }

    fn needs_full_batches(&self) -> Option<&'static str> {
        Some("Lbfgs")
    }

    fn report_settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("memory", self.memory as f64);
        report("decrease of the Wolfe conditions", self.decrease);
        report("curvature of the Wolfe conditions", self.curvature);
        report("largest number of evaluations", self.max_evaluations as f64);
    }

    fn visit(&self, state: &mut LbfgsState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        visitor.floats("s", &mut state.s)?;
        visitor.floats("y", &mut state.y)?;
        let mut counts = [state.pairs, state.next];
        visitor.counts("pairs and the next place", &mut counts)?;
        // Whatever was loaded, places stay within the ring.
        let memory = self.memory as u64;
        [state.pairs, state.next] = [counts[0].min(memory), counts[1] % memory];
        Ok(())
    }
}

/// So many zeros, if there is room for them. That is asked first, since `vec!` aborts where there is none; it takes
/// memory that is zero already, so that places which are never used cost nothing.
fn zeros(size: usize) -> Option<Vec<f64>> {
    Vec::<f64>::new().try_reserve_exact(size).ok()?;
    Some(vec![0.0; size])
}

/// The inner product, in eight interleaved sums: fast, and of one fixed shape everywhere.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}
