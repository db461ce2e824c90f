//! The derivatives of ln Γ: digamma, and polygamma of every order.
//!
//! For x > 0 they are the asymptotic series (Abramowitz & Stegun 6.3.18 and
//! 6.4.11) at an operand raised by the recurrence; left of 0 the reflection
//! formulas lead there.

use super::exponential::two_sum;
use super::power::{Pair, ln_pair};

/// The positive zero of digamma, in two parts.
const ROOT: Pair = Pair(1.4616321449683622, 9.549995429965697e-17);

/// The Taylor coefficients of digamma about its zero, from the first power on.
const ABOUT_ROOT: [f64; 25] = [
    0.9676722454476212,
    -0.4427631689835921,
    0.258499760955651,
    -0.16394270544240652,
    0.10782405069126237,
    -0.07219956125645471,
    0.04880428816414311,
    -0.03316112647484736,
    0.022597648232218104,
    -0.01542476590494896,
    0.010538791616612175,
    -0.007204534386356869,
    0.004926781395729853,
    -0.003369801655439328,
    0.002305126326734928,
    -0.0015769367714301972,
    0.0010788252019162967,
    -0.0007380709389960052,
    0.000504953265834602,
    -0.0003454680251063077,
    0.00023635601564027053,
    -0.00016170622091974803,
    0.0001106337276874741,
    -7.569179582195066e-05,
    5.178575795222081e-05,
];

/// B₂ₖ/(2k) for k = 1, 2, …, with the Bernoulli numbers B.
const DIGAMMA_SERIES: [f64; 8] =
    [1.0 / 12.0, -1.0 / 120.0, 1.0 / 252.0, -1.0 / 240.0, 1.0 / 132.0, -691.0 / 32760.0, 1.0 / 12.0, -3617.0 / 8160.0];

/// B₂ₖ/(2k)! for k = 1, 2, …
const ZETA_SERIES: [f64; 10] = [
    0.08333333333333333,
    -0.001388888888888889,
    3.306878306878307e-05,
    -8.267195767195768e-07,
    2.08767569878681e-08,
    -5.284190138687493e-10,
    1.3382536530684679e-11,
    -3.3896802963225827e-13,
    8.586062056277845e-15,
    -2.174868698558062e-16,
];

/// The polynomial with the coefficients `c`, the constant one first.
fn polynomial(x: f64, c: &[f64]) -> f64 {
    c.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// The cotangent of πx, for a finite `x` that is no whole number.
fn cot_pi(x: f64) -> f64 {
    1.0 / super::tan(core::f64::consts::PI * (x - x.round_ties_even()))
}

pub(super) fn digamma(x: f64) -> f64 {
    if x == 0.0 {
        f64::NEG_INFINITY
    } else if x == f64::INFINITY {
        x
    } else if x > 0.0 {
        digamma_right(x)
    } else if x.is_nan() || x % 1.0 == 0.0 || x.is_infinite() {
        f64::NAN
    } else {
        digamma_right(1.0 - x) - core::f64::consts::PI * cot_pi(x)
    }
}

/// Digamma of a finite `x > 0`.
fn digamma_right(x: f64) -> f64 {
    /// Where eight terms of the series are enough.
    const FAR: f64 = 16.0;

    if x < 1e-20 {
        return -1.0 / x;
    }
    if (1.2..1.73).contains(&x) {
        let t = (x - ROOT.0) - ROOT.1;
        return t * polynomial(t, &ABOUT_ROOT);
    }
    // What the recurrence takes off, the largest term last.
    let steps = if x < FAR { (FAR - x).ceil() as u32 } else { 0 };
    let mut taken = Pair(0.0, 0.0);
    for i in (0..steps).rev() {
        let (shifted, rest) = two_sum(x, f64::from(i));
        let inverse = 1.0 / shifted;
        let inverse_low = (libm::fma(-inverse, shifted, 1.0) - inverse * rest) * inverse;
        taken = taken.plus(Pair(inverse, inverse_low));
    }
    let (far, rest) = two_sum(x, f64::from(steps));
    let inverse = 1.0 / far;
    let square = inverse * inverse;
    let small = rest * inverse - 0.5 * inverse - square * polynomial(square, &DIGAMMA_SERIES);
    let sum = ln_pair(far).plus(Pair(-taken.0, -taken.1));
    sum.0 + (sum.1 + small)
}

/// The derivative of order `n` of digamma, for `1 ≤ n ≤ 100`.
pub(super) fn polygamma(x: f64, n: usize) -> f64 {
    let factorial = (2..=n).fold(1.0, |product, k| product * k as f64);
    let signed = |size: f64| if n % 2 == 1 { factorial * size } else { -factorial * size };
    if x > 0.0 && x.is_finite() && super::powi(x, -(n as i64)) < 1e-280 {
        // The power underflows where the factorial would make it large again.
        let size = (1..=n).fold(zeta_tail(x, n), |size, k| size * (k as f64 / x));
        if n % 2 == 1 { size } else { -size }
    } else if x > 0.0 {
        signed(zeta_right(x, n))
    } else if x == 0.0 {
        signed(f64::INFINITY)
    } else if x.is_nan() || x.is_infinite() {
        f64::NAN
    } else if x % 1.0 == 0.0 {
        if n % 2 == 1 { f64::INFINITY } else { f64::NAN }
    } else {
        // Σ over all whole k of (x + k)^−(n + 1), less the part right of x.
        let right = zeta_right(1.0 - x, n);
        signed(if n % 2 == 1 { all(x, n) - right } else { all(x, n) + right })
    }
}

/// Σ (x + k)^−(n + 1) over k = 0, 1, …, for `x > 0`: Hurwitz's zeta function,
/// by the formula of Euler and Maclaurin.
fn zeta_right(x: f64, n: usize) -> f64 {
    if x.is_infinite() {
        return 0.0;
    }
    let power = -(n as i64 + 1);
    let far = (16 + 2 * n) as f64;
    let steps = if x < far { (far - x).ceil() as u32 } else { 0 };
    let start = x + f64::from(steps);
    let first = super::powi(start, -(n as i64)) * zeta_tail(start, n);
    (0..steps).rev().fold(first, |sum, i| sum + super::powi(x + f64::from(i), power))
}

/// Σ (start + k)^−(n + 1) over k = 0, 1, …, times startⁿ, for a large start.
fn zeta_tail(start: f64, n: usize) -> f64 {
    let inverse = 1.0 / start;
    let square = inverse * inverse;
    // s(s + 1)⋯(s + 2k − 2) with s = n + 1, over the powers of the start.
    let mut rising = (n as f64 + 1.0) * square;
    let mut series = 0.0;
    for (k, coefficient) in ZETA_SERIES.iter().enumerate() {
        series += coefficient * rising;
        let s = (n + 1 + 2 * k) as f64;
        rising *= (s + 1.0) * (s + 2.0) * square;
    }
    1.0 / n as f64 + (0.5 * inverse + series)
}

/// Σ (x + k)^−(n + 1) over all whole k, for an `x` that is not whole.
fn all(x: f64, n: usize) -> f64 {
    let x = x - x.round_ties_even();
    if n >= 12 {
        return (-40..=40).map(|k: i32| super::powi(x + f64::from(k), -(n as i64 + 1))).sum();
    }
    // (−1)ⁿ/n! times the derivative of order n of π·cot(πx), which is πⁿ⁺¹ times a
    // polynomial in the cotangent c, since c′ = −(1 + c²).
    let mut coefficients = [0.0; 14];
    coefficients[1] = 1.0;
    for _ in 0..n {
        let mut slope = [0.0; 14];
        for k in 1..13 {
            let c = k as f64 * coefficients[k];
            slope[k - 1] -= c;
            slope[k + 1] -= c;
        }
        coefficients = slope;
    }
    let factorial = (2..=n).fold(1.0, |product, k| product * k as f64);
    let size = polynomial(cot_pi(x), &coefficients) * super::powi(core::f64::consts::PI, n as i64 + 1) / factorial;
    if n % 2 == 1 { -size } else { size }
}
