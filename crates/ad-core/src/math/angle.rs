//! The arc tangent of a quotient.

use super::tables::ATAN;
use core::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

/// What `FRAC_PI_2` lacks of π/2.
const FRAC_PI_2_LOW: f64 = 6.123233995736766e-17;
/// What `PI` lacks of π.
const PI_LOW: f64 = 1.2246467991473532e-16;
/// `3π/4`.
const THREE_QUARTERS_PI: f64 = 2.356194490192345;

/// Below this an arc tangent is its operand: 2⁻³⁰.
const TINY: f64 = 1.0 / (1_u64 << 30) as f64;
/// `2^256`, which brings extreme operands to where no product under- or
/// overflows, without rounding.
const LARGE: f64 = f64::from_bits((1023 + 256) << 52);

/// The arc tangent of `n/d` for `0 < n ≤ d`, as a number and a small rest.
///
/// Up to 1/8 it is the Taylor polynomial at the quotient, whose rounding is
/// undone to first order. Above, with `c` the multiple of 1/64 nearest to the
/// quotient, `atan(n/d) = atan c + atan((n − c d)/(d + c n))`, and the second
/// term is so small that its own roundings do not show.
fn atan_of_quotient(n: f64, d: f64) -> (f64, f64) {
    let quotient = n / d;
    if quotient < TINY {
        return (quotient, 0.0);
    }
    let (n, d) = if d > LARGE {
        (n / LARGE, d / LARGE)
    } else if d < 1.0 / LARGE {
        (n * LARGE, d * LARGE)
    } else {
        (n, d)
    };
    if quotient < 0.125 {
        let rest = libm::fma(-quotient, d, n) / d;
        return (quotient, rest + cubic_rest(quotient));
    }
    let nearest = (quotient * 64.0).round_ties_even();
    let c = nearest / 64.0;
    let t = libm::fma(-c, d, n) / (d + c * n);
    let (high, low) = ATAN[nearest as usize];
    (high, low + (t + cubic_rest(t)))
}

/// `atan t − t` for `|t| ≤ 1/8`, from the Taylor series, whose first missing
/// term is below 2⁻⁶³ of the result.
fn cubic_rest(t: f64) -> f64 {
    const TERMS: [f64; 9] =
        [-1.0 / 19.0, 1.0 / 17.0, -1.0 / 15.0, 1.0 / 13.0, -1.0 / 11.0, 1.0 / 9.0, -1.0 / 7.0, 1.0 / 5.0, -1.0 / 3.0];
    let square = t * t;
    let mut sum = 0.0;
    for term in TERMS {
        sum = sum * square + term;
    }
    t * square * sum
}

/// The angle of `(x, y)`; see [`super::atan2`].
pub(super) fn atan2(y: f64, x: f64) -> f64 {
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    let (run, rise) = (x.abs(), y.abs());
    let left = x.is_sign_negative();
    let size = if rise == 0.0 {
        if left { PI } else { 0.0 }
    } else if run.is_infinite() {
        match (rise.is_infinite(), left) {
            (true, false) => FRAC_PI_4,
            (true, true) => THREE_QUARTERS_PI,
            (false, false) => 0.0,
            (false, true) => PI,
        }
    } else if run == 0.0 || rise.is_infinite() {
        FRAC_PI_2
    } else if rise > run {
        let (high, low) = atan_of_quotient(run, rise);
        if left { add(FRAC_PI_2, FRAC_PI_2_LOW, high, low) } else { add(FRAC_PI_2, FRAC_PI_2_LOW, -high, -low) }
    } else {
        let (high, low) = atan_of_quotient(rise, run);
        if left { add(PI, PI_LOW, -high, -low) } else { high + low }
    };
    size.copysign(y)
}

/// The sum of two numbers in two parts, the first the larger one.
fn add(a: f64, a_low: f64, b: f64, b_low: f64) -> f64 {
    let sum = a + b;
    let rest = (a - sum) + b;
    sum + (rest + (a_low + b_low))
}
