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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::from_fn;
    use crate::rule::Trial;
    use std::cell::RefCell;

    const NAN: f64 = f64::NAN;
    const START: OnLine = OnLine { length: 0.0, value: 0.0, slope: -1.0 };

    /// What a search tried, the length that it found, and the slope that belongs to the gradient it left.
    type Searched = (Vec<f64>, Option<(f64, f64)>);

    /// Searches from a first length of 1 on a line where the k-th length tried has the k-th value and slope of
    /// `answers`, or the last of them.
    fn search(lbfgs: &Lbfgs, start: OnLine, answers: &[(f64, f64)]) -> Searched {
        let lengths = RefCell::new(Vec::new());
        // The direction is −2: the point x − a·d is 2·a, from 0, and the slope −gᵀd is 2·g.
        let objective = from_fn(1, |x, gradient| {
            let mut lengths = lengths.borrow_mut();
            let (value, slope) = answers[lengths.len().min(answers.len() - 1)];
            lengths.push(x[0] / 2.0);
            gradient[0] = slope / 2.0;
            value
        });
        let (mut state, mut delta) = (lbfgs.prepare(1).unwrap(), [NAN]);
        state.direction[0] = -2.0;
        let (mut evaluations, mut trial) = (0, Trial::default());
        let oracle = &mut Oracle {
            objective: &objective,
            x: &[0.0],
            all: &[0],
            threads: 1,
            evaluations: &mut evaluations,
            trial: &mut trial,
        };
        let found = lbfgs.search(&mut state, start, 1.0, &mut delta, oracle).unwrap();
        if let Some(length) = found {
            assert_eq!(delta, [-2.0 * length]);
        }
        let found = found.map(|length| (length, 2.0 * state.trial[0]));
        (lengths.into_inner(), found)
    }

    #[test]
    fn the_search_tries_the_lengths_of_nocedal_and_wright() {
        fn check(what: &str, answers: &[(f64, f64)], lengths: &[f64]) {
            let (tried, found) = search(&Lbfgs::new(), START, answers);
            let near = tried.iter().zip(lengths).all(|(tried, length)| (tried - length).abs() < 1e-14);
            assert!(near && tried.len() == lengths.len(), "{what}: {tried:?} for {lengths:?}");
            assert_eq!(found.map(|(length, _)| length), tried.last().copied(), "{what}");
        }
        // Values and slopes, and the lengths at which they are asked; the minima of the cubics were found by hand.
        check("both conditions hold at once", &[(-0.5, 0.5)], &[1.0]);
        check("steep is doubled", &[(-1.0, -1.0), (-2.0, -1.0), (-3.0, -0.5)], &[1.0, 2.0, 4.0]);
        check("a parabola", &[(7.0 / 3.0 - 1.0, 17.0 / 3.0 - 2.0), (-0.15, 0.0)], &[1.0, 3.0 / 14.0]);
        check("flat, but above the start", &[(5.0, 0.0), (-0.05, 0.0)], &[1.0, 0.1]);
        let risen = (-1.0 + 1.0 / 24.0, -1.0);
        check("below the start, but above the last", &[(-1.0, -1.0), risen, (-1.1, 0.0)], &[1.0, 2.0, 1.2]);
        // The second length has the third between itself and 0, since its value is the smallest and its slope leads back.
        let uphill = [(-0.5, 4.0 / 3.0), (-0.6, 1.0), (-0.65, 0.0)];
        check("uphill at the smallest value", &uphill, &[1.0, 0.75, 0.625]);
        check("a NaN", &[(NAN, NAN), (-0.5, 0.0)], &[1.0, 0.5]);
        check("a slope that is NaN", &[(-1.0, NAN), (-0.5, 0.0)], &[1.0, 0.5]);
        check("a value without bound", &[(f64::NEG_INFINITY, -1.0), (-0.5, 0.0)], &[1.0, 0.5]);
    }

    #[test]
    fn values_that_cannot_tell_leave_it_to_the_slopes() {
        // The value does not change, while the slope still leads down: the search goes on ahead.
        let start = OnLine { value: 1.0, ..START };
        assert_eq!(search(&Lbfgs::new(), start, &[(1.0, -1.0), (0.5, 0.0)]), (vec![1.0, 2.0], Some((2.0, 0.0))));
        // Where it never falls beyond doubt, such a length is not taken.
        assert_eq!(search(&Lbfgs::new().max_evaluations(1), start, &[(1.0, -1.0)]), (vec![1.0], None));
    }

    #[test]
    fn a_search_that_ends_early_takes_the_best_length_it_saw() {
        let two = Lbfgs::new().max_evaluations(2);
        assert_eq!(search(&two, START, &[(-1.0, -1.0), (3.0, 1.0)]), (vec![1.0, 2.0], Some((1.0, -1.0))));
        assert_eq!(search(&two, START, &[(-1.0, -1.0), (-2.0, -1.5)]), (vec![1.0, 2.0], Some((2.0, -1.5))));
        assert_eq!(search(&two, START, &[(5.0, 1.0)]).1, None);
        // Halved until nothing is left of it, a length is not tried any more.
        let (tried, found) = search(&Lbfgs::new().max_evaluations(5000), START, &[(NAN, NAN)]);
        assert_eq!((tried.len(), found), (1075, None));
        assert_eq!(tried.last(), Some(&f64::from_bits(1)));
        // Nor is one that grew beyond all numbers; the point is at infinity one doubling earlier.
        let (tried, _) = search(&Lbfgs::new().max_evaluations(5000), START, &[(-1.0, -1.0), (-2.0, -1.0)]);
        assert!(tried.len() < 1200, "{}", tried.len());
    }

    #[test]
    fn the_first_condition() {
        // c₁ = ¼: the value must fall by a quarter of what the slope promises, from 0 at the slope −4 by the length.
        let lbfgs = Lbfgs::new().wolfe(0.25, 0.5);
        let at = |value, slope| OnLine { length: 1.0, value, slope };
        let start = OnLine { slope: -4.0, ..START };
        for (value, holds) in [(-1.5, true), (-1.0, true), (-0.75, false), (0.75, false), (1.0, false)] {
            assert_eq!(lbfgs.decreases(start, at(value, 9.0)), holds, "{value}");
        }
        // From 1024 differences of 8 roundings, 2⁻³⁹, tell nothing: the slope must be at most (2·¼ − 1)·(−4) = 2.
        let start = OnLine { value: 1024.0, ..start };
        let rounding = 2f64.powi(-39);
        let cases = [
            (1024.0, 2.0, true),
            (1024.0 + rounding, 2.0, true),
            (1024.0 + rounding, -50.0, true),
            (1024.0 + rounding, 2.5, false),
            (1024.0 - rounding, 2.5, false),
            (1024.0 + 2.0 * rounding, 2.0, false),
            (1024.0 + 2.0 * rounding, -50.0, false),
        ];
        for (value, slope, holds) in cases {
            assert_eq!(lbfgs.decreases(start, at(value, slope)), holds, "{value}, slope {slope}");
        }
    }

    #[test]
    fn between_is_the_minimum_of_a_cubic_within_a_tenth_of_the_ends() {
        // k·(a − m)·(a + r) is the slope of a cubic with its minimum at m.
        let on_cubic = |k: f64, m: f64, r: f64| {
            move |length: f64| {
                let value = k * (length.powi(3) / 3.0 + (r - m) * length * length / 2.0 - r * m * length);
                OnLine { length, value, slope: k * (length - m) * (length + r) }
            }
        };
        for (k, m, r) in [(1.0, 2.0, 1.0), (3.0, 1.5, 7.0), (0.5, 3.5, 0.0), (2.0, 2.5, -0.5)] {
            let at = on_cubic(k, m, r);
            for (low, high) in [(1.0, 4.0), (4.0, 1.0)] {
                let found = between(at(low), at(high));
                assert!((found - m).abs() < 1e-13, "{found} for {m}");
            }
        }
        // Minima nearer to an end than a tenth of the width, 3, or beyond it.
        for (m, end) in [(1.125, 1.3), (0.5, 1.3), (3.875, 3.7), (5.0, 3.7)] {
            let at = on_cubic(1.0, m, 1.0);
            for (low, high) in [(1.0, 4.0), (4.0, 1.0)] {
                let found = between(at(low), at(high));
                assert!((found - end).abs() < 1e-14, "{found} for {end}");
            }
        }
        // The middle, where one end says nothing, or where the cubic has no minimum.
        let at = |length, value, slope| OnLine { length, value, slope };
        assert_eq!(between(at(1.0, 0.0, -1.0), at(4.0, NAN, NAN)), 2.5);
        assert_eq!(between(at(1.0, 0.0, -1.0), at(4.0, 1.0, f64::INFINITY)), 2.5);
        assert_eq!(between(at(4.0, 0.0, 1.0), at(1.0, f64::INFINITY, 1.0)), 2.5);
        assert_eq!(between(at(1.0, 0.0, -1.0), at(4.0, -3.0, -1.0)), 2.5);
    }

    #[test]
    fn only_pairs_of_positive_curvature_are_kept() {
        let keep = |state: &mut LbfgsState, s: f64, y: f64| state.keep_pair(&[-s], &[1.0], &[1.0 + y], 2);
        let mut state = Lbfgs::new().memory(2).prepare(1).unwrap();
        // A gradient that did not change, or changed the wrong way, says nothing, whether there is a pair or not.
        keep(&mut state, 1.0, 0.0);
        keep(&mut state, 1.0, -1.0);
        assert_eq!((state.pairs, state.next), (0, 0));
        keep(&mut state, 1.0, 2.0);
        keep(&mut state, 1.0, 0.0);
        assert_eq!(state.places(2).collect::<Vec<_>>(), [0]);
        keep(&mut state, 1.0, 4.0);
        assert_eq!(state.places(2).collect::<Vec<_>>(), [1, 0]);
        // In a full ring a pair that is not kept has taken the place of the oldest one, which is gone with it.
        keep(&mut state, 1.0, -1.0);
        assert_eq!(state.places(2).collect::<Vec<_>>(), [1]);
        state.find_direction(&[8.0], 2);
        assert_eq!(state.direction, [2.0]);
        keep(&mut state, 1.0, 8.0);
        assert_eq!(state.places(2).collect::<Vec<_>>(), [0, 1]);
        state.find_direction(&[8.0], 2);
        assert_eq!(state.direction, [1.0]);
    }
}
