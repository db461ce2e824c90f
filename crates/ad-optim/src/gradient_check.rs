use crate::differentiable::check_point;
use crate::run::evaluate;
use crate::{Differentiable, Error};

/// Compares the gradient at `x` with difference quotients of the value.
///
/// For objectives whose gradient was written by hand; that of a tape is right (and
/// [`Tape::self_check`](ad_core::Tape::self_check) looks closer). With unit vectors eⱼ, and steps h from 2⁻¹⁰ to 2⁻³⁴ of
/// max(1, |xⱼ|):
///
/// ```text
/// gⱼ  beside  (f(x + h·eⱼ) − f(x − h·eⱼ)) / 2h
/// ```
///
/// It raises no false alarm: gⱼ is wrong only if at no step the two agree within 1e-4 of the larger, while at three
/// steps in succession the quotients agree with one another, and those to the left and to the right differ by no
/// more than a fifth of what gⱼ is off. So noise in the value, and points where f is not finite or its tape takes
/// another branch, count as not checked, and so does a kink, as long as gⱼ is not far from the slopes on its two sides:
/// for |x| at 0, with the slopes −1 and 1, a gradient of 3 is no alarm, one of 17 is. Of more than 100 unknowns, sums of components are compared first, and single ones where a sum is wrong.
/// Of more than 256 samples, 256 are looked at, evenly spaced. A component that is NaN, as one that the objective adds to
/// where it should overwrite it, is wrong where the value is finite on both sides; else nothing is checked where the
/// gradient is not finite. Choose a point without zeros, at which many a wrong gradient is right.
///
/// # Errors
///
/// [`Error::WrongGradient`] with the worst component; [`Error::DimensionMismatch`] for a point of the wrong length; those
/// of the evaluation at `x`.
///
/// # Example
///
/// ```
/// use ad_optim::{check_gradient, from_fn};
///
/// let f = from_fn(2, |x, grad| {
///     grad[0] = x[1].cos();
///     grad[1] = x[0] * x[1].sin(); // a sign is missing
///     x[0] * x[1].cos()
/// });
/// let error = check_gradient(&f, &[2.0, 1.0]).unwrap_err();
/// assert!(error.to_string().starts_with("the gradient is wrong: component 1 is 1.68"), "{error}");
///
/// let mended = from_fn(2, |x, grad| {
///     grad[0] = x[1].cos();
///     grad[1] = -x[0] * x[1].sin();
///     x[0] * x[1].cos()
/// });
/// let found = check_gradient(&mended, &[2.0, 1.0])?;
/// assert_eq!((found.agreed, found.not_checked), (2, 0));
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn check_gradient<D: Differentiable + ?Sized>(objective: &D, x: &[f64]) -> Result<GradientCheck, Error> {
    check_point(objective.dim(), x)?;
    let all: Vec<usize> = (0..objective.num_samples()).collect();
    check_at(objective, x, &all, 1)
}

/// What [`check_gradient`] could compare at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it may be that nothing could be checked"]
pub struct GradientCheck {
    /// How many components agree with the difference quotients.
    pub agreed: usize,
    /// How many could not be compared: at a kink, where the value is not finite, or where no quotient is accurate.
    pub not_checked: usize,
}

/// Directions that are compared where there are more unknowns.
const MOST_DIRECTIONS: usize = 100;
const MOST_SAMPLES: usize = 256;
/// The steps are powers of two, so that most points are exact: from 2⁻¹⁰ on, each an eighth of the one before.
const STEPS: [i32; 9] = [-10, -13, -16, -19, -22, -25, -28, -31, -34];
/// The step that is best where derivatives and values are alike in size.
const USUAL_STEP: i32 = -16;
const TOLERANCE: f64 = 1e-4;

/// The same, over some of `samples`.
pub(crate) fn check_at<D: Differentiable + ?Sized>(
    objective: &D,
    x: &[f64],
    samples: &[usize],
    threads: usize,
) -> Result<GradientCheck, Error> {
    let stride = samples.len().div_ceil(MOST_SAMPLES).max(1);
    let samples: Vec<usize> = samples.iter().copied().step_by(stride).collect();
    let mut gradient = vec![f64::NAN; x.len()];
    let value = evaluate(objective, threads, x, &samples, &mut gradient)?;
    let nothing = Ok(GradientCheck { agreed: 0, not_checked: x.len() });
    if !value.is_finite() {
        return nothing;
    }
    let mut room = vec![0.0; x.len()];
    let mut moved = x.to_vec();
    // The value at x + h·d, where there is one; d has ±scaleⱼ in some components, and 0 elsewhere.
    let mut value_at = |components: &[usize], h: f64| {
        for &j in components {
            moved[j] = x[j] + h * sign(j) * scale(x[j]);
        }
        let value = evaluate(objective, threads, &moved, &samples, &mut room);
        for &j in components {
            moved[j] = x[j];
        }
        value.ok().filter(|value| value.is_finite())
    };
    if gradient.iter().any(|g| !g.is_finite()) {
        // No function has the slope NaN where it is finite on both sides; an infinite slope may be right.
        let h = f64::from(USUAL_STEP).exp2();
        let Some(component) = gradient.iter().position(|g| g.is_nan()) else { return nothing };
        let (Some(right), Some(left)) = (value_at(&[component], h), value_at(&[component], -h)) else { return nothing };
        let quotient = (right - left) / (2.0 * h) / (sign(component) * scale(x[component]));
        let (gradient, name) = (f64::NAN, objective.names().get(component).cloned());
        return Err(Error::WrongGradient { component, name, gradient, quotient, wrong: 1, checked: 1 });
    }
    let mut verdict = |components: &[usize]| {
        let slope = components.iter().map(|&j| gradient[j] * sign(j) * scale(x[j])).sum::<f64>();
        compare(slope, value, |h| value_at(components, h))
    };

    let directions = x.len().min(MOST_DIRECTIONS);
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for first in 0..directions {
        let components: Vec<usize> = (first..x.len()).step_by(directions).collect();
        match verdict(&components) {
            Verdict::Agrees => checked += components.len(),
            Verdict::NotChecked => {}
            Verdict::Wrong(_) => {
                for component in components {
                    match verdict(&[component]) {
                        Verdict::Agrees => checked += 1,
                        Verdict::NotChecked => {}
                        Verdict::Wrong(slope) => {
                            checked += 1;
                            wrong.push((component, slope / (sign(component) * scale(x[component]))));
                        }
                    }
                }
            }
        }
    }
    let off = |&(component, quotient): &(usize, f64)| (gradient[component] - quotient).abs();
    let Some(&(component, quotient)) = wrong.iter().max_by(|a, b| off(a).total_cmp(&off(b))) else {
        return Ok(GradientCheck { agreed: checked, not_checked: x.len() - checked });
    };
    let (gradient, name) = (gradient[component], objective.names().get(component).cloned());
    Err(Error::WrongGradient { component, name, gradient, quotient, wrong: wrong.len(), checked })
}

enum Verdict {
    Agrees,
    NotChecked,
    /// With the slope that the quotients have.
    Wrong(f64),
}

/// The quotients of one step.
#[derive(Clone, Copy)]
struct Quotients {
    central: f64,
    /// Between those to the right and to the left.
    difference: f64,
    /// How far rounding may put the central one off.
    rounding: f64,
}

impl Quotients {
    fn agree_with(self, slope: f64) -> bool {
        let tolerance = TOLERANCE * self.central.abs().max(slope.abs());
        self.rounding <= tolerance && (self.central - slope).abs() <= tolerance + self.rounding
    }
}

fn compare(slope: f64, value: f64, mut value_at: impl FnMut(f64) -> Option<f64>) -> Verdict {
    let mut quotients = |exponent: i32| {
        let h = f64::from(exponent).exp2();
        let (right, left) = (value_at(h)?, value_at(-h)?);
        let largest = right.abs().max(left.abs()).max(value.abs());
        Some(Quotients {
            central: (right - left) / (2.0 * h),
            difference: ((right - value) - (value - left)) / h,
            rounding: 4.0 * f64::EPSILON * largest / h,
        })
    };
    if quotients(USUAL_STEP).is_some_and(|usual| usual.agree_with(slope)) {
        return Verdict::Agrees;
    }
    // Of an unknown that the value does not depend on, which large steps show.
    if slope == 0.0 && quotients(STEPS[0]).is_some_and(|at_step| at_step.central == 0.0) {
        return Verdict::Agrees;
    }
    let all = STEPS.map(quotients);
    if all.iter().flatten().any(|at_step| at_step.agree_with(slope)) {
        return Verdict::Agrees;
    }
    // A value that does not change with small steps, but does with larger ones, has not the digits to show them.
    // One that changes with none might be computed in 32 bits.
    let is_constant = all.iter().flatten().all(|at_step| at_step.central == 0.0)
        && slope.abs() * f64::from(STEPS[0]).exp2() > 1e-6 * value.abs();
    // At the smallest steps at which the quotients are beyond doubt, if there are such.
    let supported = all.windows(3).rev().find_map(|three| {
        let (&[Some(a), Some(b), Some(c)], off) = (three, |q: Quotients| (q.central - slope).abs()) else {
            return None;
        };
        let least = off(a).min(off(b)).min(off(c));
        let spread = (a.central - b.central).abs().max((b.central - c.central).abs());
        let clear = |q: Quotients| {
            let shows = q.central != 0.0 || is_constant;
            shows && q.rounding <= 0.05 * least && q.difference.abs() <= 0.2 * least
        };
        (least > 0.0 && spread <= 0.05 * least && [a, b, c].into_iter().all(clear)).then_some(b.central)
    });
    supported.map_or(Verdict::NotChecked, Verdict::Wrong)
}

/// A power of two about as large as |x|, or 1 where that is larger.
fn scale(x: f64) -> f64 {
    x.abs().max(1.0).log2().floor().exp2()
}

/// In a sum of components, errors must not cancel because the components are alike.
fn sign(component: usize) -> f64 {
    // The finaliser of SplitMix64, whose highest bit is as good as drawn.
    let mixed = (component as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    if mixed >> 63 == 0 { 1.0 } else { -1.0 }
}
