//! Whether the derivatives are right: forward beside reverse beside difference quotients.

use std::collections::HashMap;
use std::fmt;

use super::{Numbers, Partial, Pass, RowAt, exact, list, partial, plural, value};
use crate::error::{Error, calls_text};
use crate::formula::{Accent, Formulas};
use crate::function::{Function, Given};
use crate::record::SourceLocation;
use crate::replay::Workspace;
use crate::rule::Rule;
use crate::tape::Tape;

/// Why [`Tape::self_check`] could not compare a derivative with a quotient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotChecked {
    /// The value, the derivative or the direction is NaN or infinite.
    NotFinite,
    /// A guard is answered otherwise within any step.
    BranchChanges(String),
    /// The quotients on the left and on the right differ: a kink or a jump; or the
    /// derivative rests on what was chosen at one, as that of relu(x) − relu(−x) at 0.
    Kink,
    /// There is no finite value on one side at least: the edge of the domain.
    Edge,
    /// The quotient cannot be computed accurately enough here, as where the
    /// function is far larger than its change, or varies within a few ulp.
    Inaccurate,
}

impl NotChecked {
    /// Why there is no value at a point where the tape, or a function, fails.
    fn of(error: Error) -> NotChecked {
        let Error::BranchChanged { guard, location, calls, .. } = error else { return NotChecked::NotFinite };
        let calls = calls_text(&calls);
        NotChecked::BranchChanges(format!("{guard} at {location}{}", calls.trim_end_matches(',')))
    }
}

impl fmt::Display for NotChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotChecked::NotFinite => f.write_str("not finite"),
            NotChecked::BranchChanges(guard) => write!(f, "kink: {guard}, and is not within a step"),
            NotChecked::Kink => f.write_str("kink: no slope, or one that was chosen"),
            NotChecked::Edge => f.write_str("the edge of the domain: no finite value on one side"),
            NotChecked::Inaccurate => f.write_str("the difference quotient is not accurate enough"),
        }
    }
}

/// The outcome of one comparison of [`Tape::self_check`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// They agree.
    Agrees,
    /// They do not: one of them is wrong.
    Disagrees,
    /// They were not compared, and why.
    NotChecked(NotChecked),
}

/// A derivative of an output, computed in three ways; in [`SelfCheck`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// The position of the direction in [`SelfCheck::directions`].
    pub direction: usize,
    /// The position of the output.
    pub output: usize,
    /// J·d at this output, by a forward sweep.
    pub forward: f64,
    /// The same by a reverse sweep: (Jᵀ·w)·d with the output's unit vector w.
    pub reverse: f64,
    /// Whether forward and reverse agree.
    pub sweeps: Verdict,
    /// The difference quotient, where there is one.
    pub quotient: Option<f64>,
    /// Whether the sweeps and the quotient agree.
    pub difference: Verdict,
}

/// A partial derivative of one row beside the quotient of its operation; in
/// [`SelfCheck`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RowComparison {
    /// The row's name, such as `v₁`.
    pub name: String,
    /// Its operation, such as `v₀·v₋₁`.
    pub operation: String,
    /// The name of the operand that the partial is by. A call with more than
    /// sixteen operands is compared along mixtures of all.
    pub operand: String,
    /// The values of the operation's operands; of a fold, those of the term, of
    /// a call the first sixteen.
    pub operands: Vec<f64>,
    /// The partial by the table of operations.
    pub partial: f64,
    /// The difference quotient of the operation, where there is one.
    pub quotient: Option<f64>,
    /// Whether they agree.
    pub verdict: Verdict,
    /// Where the row stands in your code, if that [is known](SourceLocation::is_known).
    pub location: SourceLocation,
}

impl fmt::Display for RowComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RowComparison { name, operation, operand, location, .. } = self;
        let operands: Vec<String> = self.operands.iter().map(|&x| exact(x)).collect();
        write!(f, "{name} = {operation} ({location}): ∂{name}/∂{operand} is {}", exact(self.partial))?;
        if let Some(quotient) = self.quotient {
            write!(f, ", the difference quotient {}", exact(quotient))?;
        }
        write!(f, ", with operands {}", list(&operands))?;
        match &self.verdict {
            Verdict::NotChecked(reason) => write!(f, "; not checked: {reason}"),
            _ => Ok(()),
        }
    }
}

/// Forward and reverse sweeps beside each other and beside difference
/// quotients; from [`Tape::self_check`]. `Display` tells it in a few lines.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SelfCheck {
    /// The directions d: each input by itself, scaled to its size; with more than
    /// sixteen inputs sixteen mixtures of all.
    pub directions: Vec<Vec<f64>>,
    /// f(x).
    pub value: Vec<f64>,
    /// For each output about how far rounding may put its value off, each row being
    /// rounded once, to first order. Far more than an ulp of the value if digits
    /// cancel on the way.
    pub rounding: Vec<f64>,
    /// For each direction and output the derivative in three ways.
    pub comparisons: Vec<Comparison>,
    /// How many partials of rows agree with the quotients of their operations.
    pub partials_agreed: usize,
    /// How many partials of rows were not compared.
    pub partials_not_checked: usize,
    /// The first eight of them, with the reasons.
    pub not_checked: Vec<RowComparison>,
    /// The first row, in the order of the recording, with a partial that
    /// disagrees.
    pub first_disagreement: Option<RowComparison>,
}

impl SelfCheck {
    const NOT_CHECKED: usize = 8;
    /// An output that rounding may put off by more, in proportion, is worth a line.
    const LOST: f64 = 1e-8;
    /// With more inputs than this, directions are mixtures.
    const DIRECTIONS: usize = 16;

    fn take_note(&mut self, verdict: &Verdict, comparison: impl FnOnce() -> RowComparison) {
        match verdict {
            Verdict::Agrees => self.partials_agreed += 1,
            Verdict::Disagrees => {
                self.first_disagreement.get_or_insert_with(comparison);
            }
            Verdict::NotChecked(_) => {
                self.partials_not_checked += 1;
                if self.not_checked.len() < SelfCheck::NOT_CHECKED {
                    self.not_checked.push(comparison());
                }
            }
        }
    }

    /// Whether nothing disagrees. What was not checked does not count against it.
    pub fn passed(&self) -> bool {
        let fine = |verdict: &Verdict| *verdict != Verdict::Disagrees;
        let comparisons = self.comparisons.iter().all(|c| fine(&c.sweeps) && fine(&c.difference));
        comparisons && self.first_disagreement.is_none()
    }
}

impl fmt::Display for SelfCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: &dyn Fn(&Verdict) -> bool| {
            self.comparisons.iter().filter(|comparison| wanted(&comparison.difference)).count()
        };
        let agreed = count(&|verdict| *verdict == Verdict::Agrees);
        let skipped = count(&|verdict| matches!(verdict, Verdict::NotChecked(_)));
        let outcome = match self.passed() {
            false => "FAILED",
            true if agreed == 0 => "passed, but nothing could be compared",
            true => "passed",
        };
        writeln!(f, "self-check {outcome}")?;
        writeln!(
            f,
            "  {} of outputs in {}: {agreed} agree with the difference quotient, {skipped} not checked",
            plural(self.comparisons.len(), "derivative"),
            plural(self.directions.len(), "direction"),
        )?;
        let (partials, skipped) = (self.partials_agreed, self.partials_not_checked);
        writeln!(f, "  partials of rows: {partials} agree, {skipped} not checked")?;
        let mut reasons: Vec<(&NotChecked, usize)> = Vec::new();
        for comparison in &self.comparisons {
            let Comparison { direction, output, forward, reverse, .. } = comparison;
            let (forward, reverse) = (exact(*forward), exact(*reverse));
            if comparison.sweeps == Verdict::Disagrees {
                writeln!(f, "  y[{output}], direction {direction}: forward {forward}, reverse {reverse}")?;
            }
            match (&comparison.difference, comparison.quotient) {
                (Verdict::Disagrees, Some(quotient)) => writeln!(
                    f,
                    "  y[{output}], direction {direction}: sweeps {forward} and {reverse}, difference quotient {}",
                    exact(quotient)
                )?,
                (Verdict::NotChecked(reason), _) => match reasons.iter_mut().find(|(other, _)| *other == reason) {
                    Some((_, count)) => *count += 1,
                    None => reasons.push((reason, 1)),
                },
                _ => {}
            }
        }
        for (reason, count) in reasons {
            writeln!(f, "  {} not checked: {reason}", plural(count, "derivative"))?;
        }
        for (output, (&value, &rounding)) in self.value.iter().zip(&self.rounding).enumerate() {
            if value.is_finite() && rounding > Self::LOST * value.abs() {
                let value = exact(value);
                writeln!(f, "  y[{output}] = {value} may be off by about {rounding:.0e}: digits cancel on the way")?;
            }
        }
        match &self.first_disagreement {
            Some(row) => writeln!(f, "  the first row that disagrees: {row}")?,
            None if !self.passed() => {
                writeln!(f, "  each row is right by itself: a sweep is wrong, or digits cancel on the way")?
            }
            None => {}
        }
        for row in &self.not_checked {
            writeln!(f, "  {row}")?;
        }
        if self.partials_not_checked > self.not_checked.len() {
            writeln!(
                f,
                "  … {} more not checked",
                plural(self.partials_not_checked - self.not_checked.len(), "partial")
            )?;
        }
        Ok(())
    }
}

/// A function of a step t from the point, or why it has no value there, and how
/// far rounding may put its values off.
struct Along<'a> {
    value: &'a mut dyn FnMut(f64) -> Result<f64, NotChecked>,
    rounding: f64,
}

impl Along<'_> {
    fn at(&mut self, t: f64) -> Result<f64, NotChecked> {
        (self.value)(t)
    }

    /// Its values at −h and h, if it has both.
    fn around(&mut self, h: f64) -> Option<[f64; 2]> {
        let values = [self.at(-h).ok()?, self.at(h).ok()?];
        values.iter().all(|value| value.is_finite()).then_some(values)
    }

    /// What rounding alone may do to a quotient of two values with a step h.
    fn noise(&self, [a, b]: [f64; 2], h: f64) -> f64 {
        let subnormal = f64::MIN_POSITIVE * f64::EPSILON;
        (2.0 * f64::EPSILON * a.abs().max(b.abs()) + 2.0 * subnormal + self.rounding) / h
    }
}

/// A derivative below this is not told from 0: a factor on the way to it may have
/// underflowed, forward or in reverse.
const NOTHING: f64 = 1e-140;

/// A difference quotient and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Quotient {
    value: f64,
    error: f64,
}

/// The largest power of two that is not above |x|: steps that are multiples of
/// it are added to x without rounding. 1 for 0 and for numbers without a binade.
fn binade(x: f64) -> f64 {
    let power = f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000);
    if power.is_normal() { power } else { 1.0 }
}

/// Central quotients at steps h, h/2, h/4, …, extrapolated to step 0: the entry
/// of the tableau that its neighbours differ least from. None without three steps in a row
/// at which the function is finite on both sides.
///
/// Source: Richardson (1911); the choice by Ridders, Accurate computation of
/// F′(x) and F″(x)·F‴(x) (1982).
fn extrapolate(f: &mut Along<'_>, mut h: f64) -> Option<Quotient> {
    const STEPS: usize = 9;
    let mut best: Option<Quotient> = None;
    let mut above: Vec<f64> = Vec::new();
    for _ in 0..STEPS {
        let mut row = Vec::with_capacity(STEPS);
        if let Some([left, right]) = f.around(h) {
            let rounding = f.noise([left, right], h);
            row.push((right / 2.0 - left / 2.0) / h);
            for (k, &coarser) in above.iter().enumerate() {
                let finer = row[k];
                let next = finer + (finer - coarser) / (4f64.powi(k as i32 + 1) - 1.0);
                for (value, error) in
                    [(finer, (finer - coarser).abs()), (next, (next - finer).abs().max((next - coarser).abs()))]
                {
                    let error = error + rounding;
                    if above.len() > 1 && value.is_finite() && best.is_none_or(|best| error < best.error) {
                        best = Some(Quotient { value, error });
                    }
                }
                row.push(next);
            }
        }
        above = row;
        h /= 2.0;
    }
    best
}

/// Whether the point is a kink or a jump: as steps shrink to an eighth, so do the
/// difference of a smooth function's left and right quotients and that of its
/// values; at a kink the former stays, at a jump the latter.
fn has_kink(f: &mut Along<'_>, scale: f64) -> bool {
    let Ok(here) = f.at(0.0) else { return false };
    let (mut kink, mut jump) = (true, true);
    let mut before: Option<(f64, [f64; 2])> = None;
    for power in [8, 11, 14, 17] {
        let h = scale * 2f64.powi(-power);
        let Some([left, right]) = f.around(h) else { return false };
        let (right_slope, left_slope) = ((right - here) / h, (here - left) / h);
        let noise = 16.0 * f.noise([left, right], h);
        let (gap, leap) = ((right_slope - left_slope).abs(), (right - left).abs());
        let slope = right_slope.abs().max(left_slope.abs());
        kink &= gap.is_finite() && gap > noise.max(1e-4 * slope);
        jump &= leap.is_finite() && leap > noise * h;
        if let Some((gap_before, [left_before, right_before])) = before {
            kink &= (0.6..1.7).contains(&(gap / gap_before));
            // Each side stays where it is; the values of a function that varies
            // within the steps do not.
            jump &= (left - left_before).abs().max((right - right_before).abs()) < 0.4 * leap;
        }
        before = Some((gap, [left, right]));
    }
    kink || jump
}

/// Whether the function is a straight line of that slope on small scales, down to
/// that of single ulps: only then does an alarm mean something. The fine quotient
/// of a saw with many teeth within a step says nothing of the slope of a tooth.
fn is_straight(f: &mut Along<'_>, slope: f64, size: f64, tolerance: f64, scale: f64) -> bool {
    let Ok(here) = f.at(0.0) else { return false };
    let quotients = [22, 26, 30].into_iter().all(|power| {
        let h = scale * 2f64.powi(-power);
        let Some([left, right]) = f.around(h) else { return false };
        let apart = ((right / 2.0 - left / 2.0) / h - slope).abs();
        let bend = (((right - here) - (here - left)) / h).abs();
        let rounding = 4.0 * f64::EPSILON * left.abs().max(right.abs()) / h;
        apart <= 1e-3 * size + 4.0 * f.noise([left, right], h) && bend <= 1e-2 * slope.abs() + rounding
    });
    // The larger ones see what the steps of the quotients jump over and ulps are too
    // small for, such as the way from pole to pole of lgamma near −1e11.
    let ulps = [1.0, 3.0, 4.0, 7.0, 256.0, 16384.0, 1048576.0].into_iter().all(|ulps| {
        let h = ulps * f64::EPSILON * scale;
        let Some([left, right]) = f.around(h) else { return false };
        let rounding = f.noise([left, right], 1.0) + 1e-5 * tolerance;
        (right - here - slope * h).abs() <= rounding && (here - left - slope * h).abs() <= rounding
    });
    quotients && ulps
}

/// Compares a derivative, known up to `tolerance`, with the difference quotient
/// of `f`, which varies on the scale of `scale` or of 1.
fn compare(f: &mut Along<'_>, derivative: f64, tolerance: f64, scale: f64) -> (Option<f64>, Verdict) {
    let not_checked = |reason| (None, Verdict::NotChecked(reason));
    match f.at(0.0) {
        Ok(here) if here.is_finite() && derivative.is_finite() => {}
        Ok(_) => return not_checked(NotChecked::NotFinite),
        Err(reason) => return not_checked(reason),
    }
    if has_kink(f, scale) {
        return not_checked(NotChecked::Kink);
    }
    let mut found: Vec<Quotient> = Vec::new();
    let size = |quotient: Quotient| quotient.value.abs().max(derivative.abs());
    let agrees = |quotient: Quotient| {
        (quotient.value - derivative).abs() <= 1e-6 * size(quotient) + 10.0 * quotient.error + tolerance
    };
    let scales: &[f64] = if scale < 1.0 { &[scale, 1.0] } else { &[scale] };
    for power in [4, 12, 20, 28] {
        for &scale in scales {
            let Some(quotient) = extrapolate(f, scale * 2f64.powi(-power)) else { continue };
            if quotient.error <= 1e-5 * size(quotient) && agrees(quotient) {
                return (Some(quotient.value), Verdict::Agrees);
            }
            found.push(quotient);
        }
    }
    found.sort_by(|a, b| a.error.total_cmp(&b.error));
    let Some(&best) = found.first() else {
        // No step had values on both sides: say why at the smallest.
        let h = scale * 2f64.powi(-36);
        return not_checked([f.at(h), f.at(-h)].into_iter().find_map(Result::err).unwrap_or(NotChecked::Edge));
    };
    // A derivative that is next to nothing beside the function itself need not
    // be met in its own digits: that of the sine at π/2.
    let small = NOTHING + f.at(0.0).map_or(0.0, |here| 1e-9 * here.abs() / scale.max(1.0));
    if agrees(best) && best.error <= small {
        return (Some(best.value), Verdict::Agrees);
    }
    let alarming = !agrees(best) && best.error <= 1e-4 * size(best);
    let supported = alarming && is_straight(f, best.value, size(best), tolerance, scale);
    match supported {
        true => (Some(best.value), Verdict::Disagrees),
        false => (Some(best.value), Verdict::NotChecked(NotChecked::Inaccurate)),
    }
}

/// [`compare`] for a function of a user's own, at x: its values may be good to fewer
/// digits than those of the table, so straightness down to ulps cannot be asked
/// for. Instead an alarm needs two quotients of different steps that agree.
///
/// Gives the quotient, if there is one that says something.
pub(crate) fn compare_with_rule(value: &mut dyn FnMut(f64) -> f64, derivative: f64, x: f64) -> (Option<f64>, Verdict) {
    let mut along = |t: f64| Ok(value(t));
    let f = &mut Along { value: &mut along, rounding: 0.0 };
    let here = f.at(0.0).unwrap_or(f64::NAN);
    if !here.is_finite() {
        return (None, Verdict::NotChecked(NotChecked::NotFinite));
    }
    // An infinite slope agrees with no quotient.
    let size = |quotient: Quotient| match derivative.is_infinite() {
        true => quotient.value.abs(),
        false => quotient.value.abs().max(derivative.abs()),
    };
    let agrees =
        |quotient: Quotient| (quotient.value - derivative).abs() <= 1e-6 * size(quotient) + 10.0 * quotient.error;
    let own = binade(x);
    let scales: &[f64] = if own == 1.0 { &[1.0] } else { &[own, 1.0] };
    // With the smallest step of each.
    let mut found: Vec<(Quotient, f64)> = Vec::new();
    for power in [4, 12, 20, 28] {
        for &scale in scales {
            let h = scale * 2f64.powi(-power);
            // The smallest step must not be rounded away.
            if h * 2f64.powi(-8) < own * f64::EPSILON {
                continue;
            }
            let Some(quotient) = extrapolate(f, h) else { continue };
            if quotient.error <= 1e-5 * size(quotient) && agrees(quotient) {
                return (Some(quotient.value), Verdict::Agrees);
            }
            found.push((quotient, h * 2f64.powi(-8)));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.error.total_cmp(&b.error));
    let Some(&(best, finest)) = found.first() else {
        return (None, Verdict::NotChecked(NotChecked::Edge));
    };
    if agrees(best) && best.error <= NOTHING + 1e-9 * here.abs() / own.max(1.0) {
        return (Some(best.value), Verdict::Agrees);
    }
    let near = |other: Quotient| (other.value - best.value).abs() <= 1e-3 * best.value.abs() + other.error;
    let supported = found[1..].iter().any(|&(other, _)| other.error <= 1e-2 * size(best) && near(other));
    // A function that varies within smaller steps has a slope that none of the
    // quotients saw. Nine digits of the values are believed.
    let smaller = std::iter::successors(Some(finest), |h| Some(h / 8.0)).take_while(|h| *h >= 4.0 * f64::EPSILON * own);
    let is_straight = smaller.into_iter().all(|h| {
        f.around(h).is_none_or(|[left, right]| {
            let values = left.abs().max(right.abs());
            (right - left - 2.0 * h * best.value).abs() <= 2e-2 * h * best.value.abs() + 1e-9 * values
        })
    });
    let supported = supported && is_straight;
    if agrees(best) || best.error > 1e-4 * size(best) || !supported {
        return (Some(best.value), Verdict::NotChecked(NotChecked::Inaccurate));
    }
    // Looked for at the steps that the quotient is from.
    match has_kink(f, finest * 2f64.powi(16)) {
        true => (Some(best.value), Verdict::NotChecked(NotChecked::Kink)),
        false => (Some(best.value), Verdict::Disagrees),
    }
}

/// A sweep: of a point and a seed, J·p or Jᵀ·w.
type Sweep<'a> = dyn Fn(&[f64], &[f64]) -> Result<Vec<f64>, Error> + 'a;

/// What is checked: the tape's own derivatives, or in a test wrong ones.
struct Derivatives<'a> {
    tangents: &'a Sweep<'a>,
    adjoints: &'a Sweep<'a>,
    partial: &'a Partial<'a>,
}

impl Tape {
    /// Compares the derivatives at x with each other and with difference quotients:
    ///
    /// - J·d by a forward and by a reverse sweep, for each input's direction (for
    ///   sixteen mixtures, if there are more inputs), and both with central
    ///   quotients at steps scaled to x and extrapolated to 0;
    /// - each partial of each row with the quotient of its operation at the values of
    ///   its operands, so that the first row that disagrees can be named.
    ///
    /// What cannot be compared is no alarm but reported as not checked, with the
    /// reason: a kink or a jump, a guard that changes, the edge of a domain, a
    /// derivative that is not finite, a quotient that rounding spoils. A pass means
    /// agreement to about six digits; what is below 1e-140 is not told from 0.
    ///
    /// It tells as well how far rounding may put the outputs off, and so where
    /// digits cancel ([`SelfCheck::rounding`]). What the recording left out it does
    /// not see: numbers baked in ([`Tape::constants`]) and values that escaped
    /// ([`Tape::escapes`]).
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    ///
    /// ```
    /// use ad_core::{NotChecked, Tape, Verdict};
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
    /// let check = tape.self_check(&[2.0, 4.0])?;
    /// assert!(check.passed(), "{check}");
    ///
    /// let kink = Tape::record(&[2.0], |x| x[0].abs())?.self_check(&[0.0])?;
    /// assert!(kink.passed());
    /// assert_eq!(kink.comparisons[0].difference, Verdict::NotChecked(NotChecked::Kink));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn self_check(&self, x: &[f64]) -> Result<SelfCheck, Error> {
        let derivatives = Derivatives {
            tangents: &|x, p| Ok(self.jvp(x, p)?.1),
            adjoints: &|x, w| Ok(self.vjp(x, w)?.1),
            partial: &partial,
        };
        self.check_derivatives(x, &derivatives)
    }

    fn check_derivatives(&self, x: &[f64], derivatives: &Derivatives<'_>) -> Result<SelfCheck, Error> {
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let mut check = SelfCheck {
            directions: directions(x),
            value: self.data.outputs.iter().map(|&output| ws.values[output as usize]).collect(),
            rounding: Vec::new(),
            comparisons: Vec::new(),
            partials_agreed: 0,
            partials_not_checked: 0,
            not_checked: Vec::new(),
            first_disagreement: None,
        };
        let unchecked = self.check_rows(&ws.values, derivatives, &mut check);
        self.check_outputs(x, &ws.values, &unchecked, derivatives, &mut check)?;
        Ok(check)
    }

    /// Each partial of each row beside the quotient of its operation. Gives for
    /// each value whether a row on the way to it was not checked.
    fn check_rows(&self, values: &[f64], derivatives: &Derivatives<'_>, check: &mut SelfCheck) -> Vec<bool> {
        let data = &*self.data;
        let mut unchecked = vec![false; data.num_values()];
        for index in data.first_row()..data.num_values() {
            if !data.active[index] {
                continue;
            }
            let (head, result) = data.head(index - data.first_row());
            if let Some(function) = data.function(head) {
                if result == 0 {
                    self.check_call(function, head, values, &mut unchecked, check);
                }
                continue;
            }
            let row = RowAt::new(data, values, index - data.first_row());
            unchecked[index] = row.operands.iter().any(|&operand| unchecked[operand as usize]);
            for (i, &operand) in row.operands.iter().enumerate() {
                if !data.active[operand as usize] {
                    continue;
                }
                // A fold adds its terms: one of them says all of a partial.
                let stride = row.op.fold_stride().unwrap_or(row.x.len());
                let (term, i) = (i / stride * stride, i % stride);
                let mut x = Numbers::from_slice(&row.x[term..term + stride]);
                let v = if stride < row.x.len() { Numbers::from_slice(&[value(row.op, 0, &x)]) } else { row.v.clone() };
                let partial = (derivatives.partial)(row.op, row.result, i, &x, &v);
                let here = x[i];
                let mut along = |t: f64| {
                    x[i] = here + t;
                    let value = value(row.op, row.result, &x);
                    x[i] = here;
                    Ok(value)
                };
                let (quotient, mut verdict) = match here.is_finite() {
                    true => compare(&mut Along { value: &mut along, rounding: 0.0 }, partial, 0.0, binade(here)),
                    false => (None, Verdict::NotChecked(NotChecked::NotFinite)),
                };
                if let (Verdict::Disagrees, Some(quotient)) = (&verdict, quotient) {
                    // What the table chooses at a point where its partial jumps, such
                    // as clamp between equal bounds.
                    let mut chosen = |t: f64| {
                        x[i] = here + t * binade(here);
                        let v: Numbers = (0..v.len()).map(|result| value(row.op, result, &x)).collect();
                        let beside = (derivatives.partial)(row.op, row.result, i, &x, &v);
                        x[i] = here;
                        let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
                        near(beside, quotient) && !near(beside, partial)
                    };
                    if chosen(1e-6) || chosen(-1e-6) {
                        verdict = Verdict::NotChecked(NotChecked::Kink);
                    }
                    // Steps or teeth that are narrower than a few ulps, as of floor(1e15):
                    // rounding may hide that they are there.
                    let size = |least: f64, &x: &f64| if x == 0.0 { least } else { least.min(x.abs()) };
                    let (finest, largest) = (x.iter().fold(1.0, size), x.iter().fold(0.0, |m: f64, x| m.max(x.abs())));
                    if !row.op.info().kink.is_empty() && 8.0 * largest * f64::EPSILON >= finest {
                        verdict = Verdict::NotChecked(NotChecked::Inaccurate);
                    }
                }
                unchecked[index] |= matches!(verdict, Verdict::NotChecked(_));
                let comparison = || RowComparison {
                    name: data.value_name(index, Accent::None).to_string(),
                    operation: data.row_formula(index - data.first_row(), &Formulas::new()).to_string(),
                    operand: data.operand_name(operand).to_string(),
                    operands: x.to_vec(),
                    partial,
                    quotient,
                    verdict: verdict.clone(),
                    location: data.location(index - data.first_row()).clone(),
                };
                check.take_note(&verdict, comparison);
            }
        }
        unchecked
    }

    /// The tangents and adjoints of a function that a row calls beside its quotients:
    /// along each operand, or sixteen mixtures of them, of each result, or sixteen mixtures.
    fn check_call(
        &self,
        function: &Function,
        head: usize,
        values: &[f64],
        unchecked: &mut [bool],
        check: &mut SelfCheck,
    ) {
        let data = &*self.data;
        let (operands, first, m) = (data.operands(head), data.first_row() + head, function.num_results());
        let x: Vec<f64> = operands.iter().map(|&operand| values[operand as usize]).collect();
        let tainted = operands.iter().any(|&operand| unchecked[operand as usize]);
        unchecked[first..first + m].fill(tainted);
        let still = vec![0.0; x.len()];
        let rounding = sums_of_call(function, &x, &values[first..first + m], &still, &|v| f64::EPSILON * v.abs());
        let weights = directions(&vec![1.0; m]);
        let adjoints: Vec<Option<Vec<f64>>> = weights.iter().map(|w| function.pull_back(&x, w).ok()).collect();
        let total = |w: &[f64], y: &[f64]| w.iter().zip(y).map(|(&w, &y)| Rule::chain_mul(w, y)).sum::<f64>();
        let sizes_of = |w: &[f64], sizes: &[f64]| w.iter().zip(sizes).map(|(w, size)| w.abs() * size).sum::<f64>();
        for (number, mut d) in directions(&x).into_iter().enumerate() {
            for (d, &operand) in d.iter_mut().zip(operands) {
                *d = if data.active[operand as usize] { *d } else { 0.0 };
            }
            let single = x.len() <= SelfCheck::DIRECTIONS;
            if single && !data.active[operands[number] as usize] {
                continue;
            }
            let scale = if single && d[number] != 0.0 { d[number] } else { 1.0 };
            let moved = |t: f64| -> Vec<f64> {
                x.iter().zip(&d).map(|(&x, &d)| if d == 0.0 { x } else { x + t * d }).collect()
            };
            let tangents = |x: &[f64]| function.evaluate(x, &d).map_or_else(|_| vec![f64::NAN; m], |(_, dy)| dy);
            let dy = tangents(&x);
            let sizes = sums_of_call(function, &x, &values[first..first + m], &d, &|_| 0.0);
            // All results at a step come at once and are kept for the next one.
            let mut known: HashMap<u64, Result<Vec<f64>, NotChecked>> = HashMap::new();
            let mut at = |t: f64, w: &[f64]| {
                let evaluate = || match function.evaluate(&moved(t), &[]) {
                    Ok((y, _)) => Ok(y),
                    Err(error) => Err(NotChecked::of(error.called_by(|| data.call_site(head)))),
                };
                known.entry(t.to_bits()).or_insert_with(evaluate).as_ref().map(|y| total(w, y)).map_err(Clone::clone)
            };
            for ((w, adjoint), result) in weights.iter().zip(&adjoints).zip(0..) {
                let forward = total(w, &dy);
                let reverse = adjoint.as_ref().map_or(f64::NAN, |xbar| total(xbar, &d));
                let tolerance = 1e-10 * sizes_of(w, &sizes) + NOTHING;
                let mut partial = forward;
                let finite = forward.is_finite() && reverse.is_finite() && d.iter().any(|&d| d != 0.0);
                let (quotient, mut verdict) = match finite {
                    true => {
                        let rounding = sizes_of(w, &rounding);
                        compare(&mut Along { value: &mut |t| at(t, w), rounding }, forward, tolerance, 1.0)
                    }
                    false => (None, Verdict::NotChecked(NotChecked::NotFinite)),
                };
                if let (Verdict::Disagrees, Some(quotient)) = (&verdict, quotient) {
                    let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
                    let chosen = |t: f64| {
                        let beside = total(w, &tangents(&moved(t)));
                        near(beside, quotient) && !near(beside, forward)
                    };
                    if chosen(1e-6) || chosen(-1e-6) {
                        verdict = Verdict::NotChecked(NotChecked::Kink);
                    }
                }
                if verdict == Verdict::Agrees && (forward - reverse).abs() > tolerance {
                    (partial, verdict) = (reverse, Verdict::Disagrees);
                }
                if matches!(verdict, Verdict::NotChecked(_)) {
                    let mixed = m > SelfCheck::DIRECTIONS;
                    let concerned = if mixed { first..first + m } else { first + result..first + result + 1 };
                    unchecked[concerned].fill(true);
                }
                let row = if m > SelfCheck::DIRECTIONS { head } else { head + result };
                let comparison = || RowComparison {
                    name: data.value_name(data.first_row() + row, Accent::None).to_string(),
                    operation: data.row_formula(row, &Formulas::new()).to_string(),
                    operand: match single {
                        true => data.operand_name(operands[number]).to_string(),
                        false => "(a mixture of all operands)".to_owned(),
                    },
                    operands: x[..x.len().min(SelfCheck::DIRECTIONS)].to_vec(),
                    partial: partial / scale,
                    quotient: quotient.map(|quotient| quotient / scale),
                    verdict: verdict.clone(),
                    location: data.location(head).clone(),
                };
                check.take_note(&verdict, comparison);
            }
        }
    }

    /// The derivatives of the outputs in each direction, in three ways.
    fn check_outputs(
        &self,
        x: &[f64],
        values: &[f64],
        unchecked: &[bool],
        derivatives: &Derivatives<'_>,
        check: &mut SelfCheck,
    ) -> Result<(), Error> {
        let m = self.num_outputs();
        let unit = |i: usize| (0..m).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
        let rows: Vec<Vec<f64>> = (0..m).map(|i| (derivatives.adjoints)(x, &unit(i))).collect::<Result<_, _>>()?;
        let still = vec![0.0; self.num_inputs()];
        let rounding = self.sums_over_paths(values, &still, &|value| f64::EPSILON * value.abs());
        check.rounding = self.data.outputs.iter().map(|&output| rounding[output as usize]).collect();
        let mut ws = Workspace::new();
        for (direction, d) in check.directions.iter().enumerate() {
            let tangents = (derivatives.tangents)(x, d)?;
            let sizes = self.sums_over_paths(values, d, &|_| 0.0);
            // All outputs at a step come at once and are kept for the next one.
            let mut known: HashMap<u64, Result<Vec<f64>, NotChecked>> = HashMap::new();
            let mut at = |t: f64, output: usize| {
                let evaluate = || {
                    let there: Vec<f64> =
                        x.iter().zip(d).map(|(&x, &d)| if d == 0.0 { x } else { x + t * d }).collect();
                    let mut y = vec![0.0; m];
                    match self.eval_into(&mut ws, &there, &mut y) {
                        Ok(()) => Ok(y),
                        Err(error) => Err(NotChecked::of(error)),
                    }
                };
                known.entry(t.to_bits()).or_insert_with(evaluate).as_ref().map(|y| y[output]).map_err(Clone::clone)
            };
            for (output, row) in rows.iter().enumerate() {
                // By the strict rule, as in the sweeps.
                let reverse = row.iter().zip(d).map(|(&a, &d)| Rule::chain_mul(a, d)).sum::<f64>() + 0.0;
                let forward = tangents[output];
                // What rounding may do to sums over all paths through the tape, and
                // underflow to adjoints, which are not scaled by d.
                let tolerance = 1e-10 * sizes[self.data.outputs[output] as usize]
                    + 1e-312 * d.iter().map(|d| d.abs()).sum::<f64>()
                    + NOTHING;
                let sweeps = match forward.is_finite() && reverse.is_finite() {
                    // A NaN tolerance comes from an infinite partial inside.
                    true if (forward - reverse).abs() > tolerance => Verdict::Disagrees,
                    true => Verdict::Agrees,
                    false => Verdict::NotChecked(NotChecked::NotFinite),
                };
                let finite = sweeps != Verdict::NotChecked(NotChecked::NotFinite) && d.iter().any(|&d| d != 0.0);
                let (quotient, mut difference) = match finite {
                    true => {
                        let rounding = check.rounding[output];
                        compare(&mut Along { value: &mut |t| at(t, output), rounding }, forward, tolerance, 1.0)
                    }
                    false => (None, Verdict::NotChecked(NotChecked::NotFinite)),
                };
                if let (Verdict::Disagrees, Some(quotient)) = (&difference, quotient) {
                    // A point that stands alone, as where select_eq holds: beside it the
                    // derivative is another one, and right.
                    let chosen = |t: f64| {
                        let there: Vec<f64> = x.iter().zip(d).map(|(&x, &d)| x + t * d).collect();
                        let beside = (derivatives.tangents)(&there, d).map_or(f64::NAN, |dy| dy[output]);
                        let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
                        near(beside, quotient) && !near(beside, forward)
                    };
                    if chosen(1e-6) || chosen(-1e-6) {
                        difference = Verdict::NotChecked(NotChecked::Kink);
                    }
                }
                if difference == Verdict::Disagrees && unchecked[self.data.outputs[output] as usize] {
                    // Kinks may add up to a smooth function, whose slope none of the
                    // slopes chosen at them gives: relu(x) − relu(−x) at 0.
                    difference = Verdict::NotChecked(NotChecked::Kink);
                }
                check.comparisons.push(Comparison {
                    direction,
                    output,
                    forward,
                    reverse,
                    sweeps,
                    quotient,
                    difference,
                });
            }
        }
        Ok(())
    }

    /// For each value the sum over all paths to it of |partials|·size, where a
    /// path may start at an input, with its size, and at a row, with `own` of its
    /// value: what rounding does to a tangent, or to a value, is in proportion.
    fn sums_over_paths(&self, values: &[f64], inputs: &[f64], own: &dyn Fn(f64) -> f64) -> Vec<f64> {
        let data = &*self.data;
        let mut sums = vec![0.0; data.num_values()];
        for (sum, size) in sums[data.first_input()..].iter_mut().zip(inputs) {
            *sum = size.abs();
        }
        for index in data.first_row()..data.num_values() {
            let (head, result) = data.head(index - data.first_row());
            if let Some(function) = data.function(head) {
                if result == 0 {
                    let of = |from: &[f64]| -> Vec<f64> {
                        data.operands(head).iter().map(|&operand| from[operand as usize]).collect()
                    };
                    let results = index..index + function.num_results();
                    let found = sums_of_call(function, &of(values), &values[results.clone()], &of(&sums), own);
                    sums[results].copy_from_slice(&found);
                }
            } else if data.active[index] {
                let row = RowAt::new(data, values, index - data.first_row());
                let terms = row.operands.iter().enumerate();
                let term = |(i, &operand): (usize, &u32)| {
                    // What underflows in a partial counts as well.
                    Rule::chain_mul(row.partial(i).abs() + 1e-312, sums[operand as usize])
                };
                sums[index] = terms.map(term).fold(own(values[index]), |sum, term| sum + term);
            }
        }
        sums
    }
}

/// [`Tape::sums_over_paths`] for the results y of a function at x, whose operands
/// have these sums. Infinite where it cannot be evaluated.
///
/// Along the rows of a loop; by the partials of all else, if there are few, or as
/// far as sums with random signs tell.
fn sums_of_call(function: &Function, x: &[f64], y: &[f64], sizes: &[f64], own: &dyn Fn(f64) -> f64) -> Vec<f64> {
    let n = x.len();
    let unknown = || vec![f64::INFINITY; y.len()];
    let Some(rolled) = function.as_loop() else {
        let mixtures = n > SelfCheck::DIRECTIONS;
        let seeds: Vec<f64> = match mixtures {
            // Row-major, a row an operand.
            true => {
                let signs = directions(&vec![1.0; n]);
                (0..n).flat_map(|i| signs.iter().map(move |d| d[i].signum())).collect()
            }
            false => (0..n * n).map(|at| if at / n == at % n { 1.0 } else { 0.0 }).collect(),
        };
        let k = seeds.len() / n;
        let scaled: Vec<f64> = seeds.iter().enumerate().map(|(at, seed)| seed * sizes[at / k]).collect();
        let Ok((_, dy)) = function.evaluate(x, &scaled) else { return unknown() };
        let sum = |(tangents, &y): (&[f64], &f64)| {
            let own = own(y);
            match mixtures {
                true => own + (n as f64 / k as f64 * tangents.iter().map(|t| t * t).sum::<f64>()).sqrt(),
                false => tangents.iter().fold(own, |sum, t| sum + t.abs()),
            }
        };
        return dy.chunks(k).zip(y).map(sum).collect();
    };
    let operands = Pass { x: x.to_vec(), dx: sizes.to_vec() };
    let mut carry = Pass::initial(rolled, &operands);
    let (mut values, mut sums) = (vec![0.0; y.len()], vec![0.0; y.len()]);
    let mut ws = Workspace::new();
    for iteration in 0..rolled.count {
        let inputs = Pass::of_body(rolled, iteration, &operands, &carry);
        if rolled.body.reference(&mut ws, &inputs.x).is_err() {
            return unknown();
        }
        let inner = rolled.body.sums_over_paths(&ws.values, &inputs.dx, own);
        let of_outputs = |from: &[f64]| -> Vec<f64> {
            rolled.body.data.outputs.iter().map(|&output| from[output as usize]).collect()
        };
        let (outputs, inner) = (of_outputs(&ws.values), of_outputs(&inner));
        carry.take_carry(rolled, iteration, &outputs, &inner);
        for (output, (&value, &size)) in outputs.iter().zip(&inner).enumerate() {
            if let Given::Result(result) = rolled.given(output, iteration) {
                values[result] += value;
                sums[result] += size;
                if rolled.is_summed() && iteration > 0 {
                    sums[result] += own(values[result]);
                }
            }
        }
    }
    sums[..carry.dx.len()].copy_from_slice(&carry.dx);
    sums
}

/// The directions to check: each input by itself, or sixteen mixtures of all.
///
/// Their entries have few digits, so that a step is added without rounding.
fn directions(x: &[f64]) -> Vec<Vec<f64>> {
    let scale = |x: f64| if x.is_finite() { binade(x) } else { 0.0 };
    if x.len() <= SelfCheck::DIRECTIONS {
        return (0..x.len()).map(|i| (0..x.len()).map(|j| if i == j { scale(x[j]) } else { 0.0 }).collect()).collect();
    }
    // SplitMix64, from a fixed seed: the same directions every time.
    let mut state = 0u64;
    let mut random = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) >> 59
    };
    // Odd multiples of 1/32 in (−1, 1): never 0.
    let mut entry = |x: f64| scale(x) * ((2.0 * random() as f64 - 31.0) / 32.0);
    (0..SelfCheck::DIRECTIONS).map(|_| x.iter().map(|&x| entry(x)).collect()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ops::Op;

    /// The report on a tape whose derivatives were replaced in part.
    fn report(
        tape: &Tape,
        x: &[f64],
        forward: f64,
        reverse: f64,
        wrong: impl Fn(Op, usize, usize, &[f64], &[f64]) -> f64,
    ) -> SelfCheck {
        let derivatives = Derivatives {
            tangents: &|x, p| Ok(tape.jvp(x, p)?.1.into_iter().map(|dy| dy * forward).collect()),
            adjoints: &|x, w| Ok(tape.vjp(x, w)?.1.into_iter().map(|xbar| xbar * reverse).collect()),
            partial: &wrong,
        };
        tape.check_derivatives(x, &derivatives).unwrap()
    }

    fn example() -> Tape {
        Tape::record(&[2.0, 4.0], |x| [x[0].cos() + x[0] * x[1] - x[1].exp(), x[0].ln() * x[1]]).unwrap()
    }

    #[test]
    fn a_wrong_sweep_is_found() {
        let x = [2.0, 4.0];
        assert!(report(&example(), &x, 1.0, 1.0, partial).passed());
        let forward = report(&example(), &x, 1.0 + 1e-4, 1.0, partial);
        assert!(!forward.passed() && forward.first_disagreement.is_none());
        assert!(forward.comparisons.iter().all(|c| c.sweeps == Verdict::Disagrees), "{forward}");
        assert!(forward.comparisons.iter().all(|c| c.difference == Verdict::Disagrees), "{forward}");
        let reverse = report(&example(), &x, 1.0, 1.0 - 1e-4, partial);
        assert!(reverse.comparisons.iter().all(|c| c.sweeps == Verdict::Disagrees), "{reverse}");
        // Both wrong in the same way: the quotient alone can tell.
        let both = report(&example(), &x, -1.0, -1.0, partial);
        assert!(both.comparisons.iter().all(|c| c.sweeps == Verdict::Agrees), "{both}");
        assert!(both.comparisons.iter().all(|c| c.difference == Verdict::Disagrees), "{both}");
        assert!(both.to_string().starts_with("self-check FAILED\n"), "{both}");
    }

    #[test]
    fn the_first_wrong_row_is_named() {
        // exp and ln are both wrong: exp comes first.
        let check = report(&example(), &[2.0, 4.0], 1.0, 1.0, |op, result, operand, x, v| match op {
            Op::Exp | Op::Ln => partial(op, result, operand, x, v) * (1.0 + 1e-4),
            _ => partial(op, result, operand, x, v),
        });
        assert!(!check.passed());
        let row = check.first_disagreement.as_ref().unwrap();
        assert_eq!((row.name.as_str(), row.operation.as_str(), row.operand.as_str()), ("v₄", "exp(v₀)", "v₀"));
        assert_eq!(row.operands, [4.0]);
        assert!((row.quotient.unwrap() - 4f64.exp()).abs() < 1e-6);
        assert!(row.location.file().ends_with("self_check.rs") && row.location.line() > 0);
        assert!(check.to_string().contains("the first row that disagrees: v₄ = exp(v₀)"), "{check}");
    }

    #[test]
    fn a_wrong_partial_of_a_fold_or_a_second_result_is_found() {
        let tape = Tape::record(&[2.0, 3.0], |x| {
            let (s, c) = x[0].sin_cos();
            Rule::dot(&[s, x[1], x[0]], &[c, x[0], x[1]])
        })
        .unwrap();
        assert!(report(&tape, &[2.0, 3.0], 1.0, 1.0, partial).passed());
        for (op, result, operand) in [(Op::SinCos, 1, 0), (Op::Dot, 0, 1)] {
            let check = report(&tape, &[2.0, 3.0], 1.0, 1.0, |other, r, i, x, v| {
                let wrong = (op, result, operand) == (other, r, i);
                partial(other, r, i, x, v) + if wrong { 0.01 } else { 0.0 }
            });
            let row = check.first_disagreement.unwrap();
            assert_eq!(row.name, if op == Op::SinCos { "v₂" } else { "v₃" });
        }
    }
}
