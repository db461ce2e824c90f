//! The arc tangent of a quotient.

use super::exponential::nearest;
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
        return (quotient, rest + rest_of_atan(quotient));
    }
    let row = nearest(quotient * 64.0);
    let c = row / 64.0;
    let t = libm::fma(-c, d, n) / (d + c * n);
    let (high, low) = ATAN[row as usize];
    (high, low + (t + rest_of_small_atan(t)))
}

/// `atan t − t` for `|t| ≤ 1/8`, from the Taylor series, whose first missing
/// term is below 2⁻⁶³ of the result; even and odd terms run side by side.
fn rest_of_atan(t: f64) -> f64 {
    let z = t * t;
    let w = z * z;
    let odd = -1.0 / 3.0 + w * (-1.0 / 7.0 + w * (-1.0 / 11.0 + w * (-1.0 / 15.0 + w * (-1.0 / 19.0))));
    let even = 1.0 / 5.0 + w * (1.0 / 9.0 + w * (1.0 / 13.0 + w * (1.0 / 17.0)));
    t * z * (odd + z * even)
}

/// The same for `|t| ≤ 1/128`, where four terms do.
fn rest_of_small_atan(t: f64) -> f64 {
    let z = t * t;
    t * z * (-1.0 / 3.0 + z * (1.0 / 5.0 + z * (-1.0 / 7.0 + z * (1.0 / 9.0))))
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
