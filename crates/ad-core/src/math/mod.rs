//! The elementary functions of the crate.
//!
//! Everything the crate computes goes through the functions of this module, so
//! that this is the one place where the bits of a result are decided. They are
//! the same on every machine, in debug and in release builds: transcendental
//! functions come from the crate `libm`, which is written in Rust, or from the
//! code beside this file. Those in `kernels` are written for many operands at
//! once; called for one here they give the same bits. Of the standard library only what is rounded
//! correctly everywhere is used (`sqrt`, `%`, the roundings to an integer and
//! operations on the sign), and a product is never fused with a sum unless
//! [`mul_add`] says so. A newer `libm` may change bits, and so does an edit
//! here. The payload and the sign of a NaN are not part of the promise.
//!
//! The unit of the errors stated below is the unit in the last place of the
//! exact result, the spacing of the `f64` about it; "at most 1" in a table of
//! such errors is written "≤ 1 ulp". They were measured against results of 160
//! bits and more at many thousand points for each function, subnormal numbers
//! and the edges between branches included. A part of those points is stored
//! in `tests/reference/functions.csv`, and a test holds each function to its
//! bound there.

mod angle;
mod exponential;
mod fixed;
mod gamma;
pub(crate) mod kernels;
mod power;
mod tables;

#[cfg(test)]
mod tests;

use core::f64::consts::{E, FRAC_2_SQRT_PI};
use exponential::{exp_parts, scale, two_sum};
use power::{scale_far, split_exponent};

/// What [`E`] lacks of Euler's number.
const E_LOW: f64 = 1.4456468917292502e-16;
/// What [`FRAC_2_SQRT_PI`] lacks of 2/√π.
const FRAC_2_SQRT_PI_LOW: f64 = 1.533545961316588e-17;

/// 2³⁰, a ratio of two sides at which the shorter one does not show in the length.
const FAR: f64 = (1_u64 << 30) as f64;

// Roots.

/// The square root of `x`, correctly rounded.
///
/// It is `−0` at `−0` and NaN below zero.
pub fn sqrt(x: f64) -> f64 {
    x.sqrt()
}

/// The cube root of `x`, correctly rounded, for either sign of `x`.
///
/// This is the algorithm of the CORE-MATH project, as ported by `libm`.
/// Zeros and infinities are their own roots.
pub fn cbrt(x: f64) -> f64 {
    libm::cbrt(x)
}

/// The length of the vector `(x, y)`, `√(x² + y²)`, to ≤ 1 ulp and without
/// overflow or underflow on the way.
///
/// One Newton step, with the remainder in fused operations, follows the plain
/// formula (C. F. Borges, "An improved algorithm for hypot(a,b)", 2019), since
/// that of `libm` comes within a hair of 1 ulp. An infinite side makes the
/// result `+inf`, even beside a NaN.
pub fn hypot(x: f64, y: f64) -> f64 {
    /// 2⁶⁰⁰.
    const LARGE: f64 = f64::from_bits((1023 + 600) << 52);

    let (x, y) = (x.abs(), y.abs());
    if x.is_infinite() || y.is_infinite() {
        return f64::INFINITY;
    }
    let (long, short) = if x < y { (y, x) } else { (x, y) };
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    if short <= long / FAR {
        return long;
    }
    if long > 1e150 {
        root_of_squares(long / LARGE, short / LARGE) * LARGE
    } else if short < 1e-130 {
        root_of_squares(long * LARGE, short * LARGE) / LARGE
    } else {
        root_of_squares(long, short)
    }
}

/// `√(x² + y²)` for `x ≥ y` whose squares are of ordinary size.
fn root_of_squares(x: f64, y: f64) -> f64 {
    let root = libm::fma(x, x, y * y).sqrt();
    let (root_square, x_square) = (root * root, x * x);
    let excess =
        libm::fma(-y, y, root_square - x_square) + libm::fma(root, root, -root_square) - libm::fma(x, x, -x_square);
    root - excess / (2.0 * root)
}

// Exponentials and logarithms.

/// The exponential of `x`, to ≤ 1 ulp (0.76 measured).
///
/// It is `0` at `−inf`. With `k` the integer nearest to `x / ln 2`, it is `2^k`
/// times a polynomial in the rest.
pub fn exp(x: f64) -> f64 {
    let [y] = kernels::exp([x]);
    y
}

/// Two to the power `x`, from `libm`, to ≤ 1 ulp; exact at integers.
pub fn exp2(x: f64) -> f64 {
    libm::exp2(x)
}

/// The exponential of `x` less one, `eˣ − 1`, to ≤ 1 ulp (0.85 measured), near
/// zero too.
///
/// It is `−1` at `−inf` and `−0` at `−0`.
pub fn exp_m1(x: f64) -> f64 {
    let [y] = kernels::exp_m1([x]);
    y
}

/// The natural logarithm of `x`, to ≤ 1 ulp (0.85 measured).
///
/// It is `−inf` at both zeros and NaN below them.
pub fn ln(x: f64) -> f64 {
    let [y] = kernels::ln([x]);
    y
}

/// The logarithm of `x` to base two, from `libm`, to ≤ 1 ulp.
///
/// It is `−inf` at both zeros and NaN below them.
pub fn log2(x: f64) -> f64 {
    libm::log2(x)
}

/// The logarithm of `x` to base ten, from `libm`, to ≤ 1 ulp.
///
/// It is `−inf` at both zeros and NaN below them.
pub fn log10(x: f64) -> f64 {
    libm::log10(x)
}

/// The logarithm of `x` to base `base`, `ln x / ln base`, to ≤ 1 ulp, and to ≤
/// 3 ulp if `x` or `base` is within 7 percent of 1.
///
/// The bases 2 and 10 take [`log2`] and [`log10`]. Otherwise it is the
/// quotient of two logarithms, each with a second part where one can be had,
/// so that 81 is the fourth power of 3. At the edges it is what the plain
/// quotient gives: base 1 divides by zero, base 0 by `−inf`.
pub fn log(x: f64, base: f64) -> f64 {
    if base == 2.0 {
        return log2(x);
    }
    if base == 10.0 {
        return log10(x);
    }
    let (top, bottom) = (ln(x), ln(base));
    if top.is_finite() && top != 0.0 && bottom.is_finite() && bottom != 0.0 {
        divide(top, rest_of_ln(x, top), bottom, rest_of_ln(base, bottom))
    } else {
        top / bottom
    }
}

/// What the finite `l`, a rounded `ln x`, lacks of it: `x exp(−l) − 1`; zero
/// near `x = 1`, where this has too few digits.
fn rest_of_ln(x: f64, l: f64) -> f64 {
    if l.abs() < 0.0625 {
        return 0.0;
    }
    let inverse = exp_parts(-l, 0.0);
    let x = scale(x, inverse.exponent);
    libm::fma(x, inverse.high, -1.0) + x * inverse.low
}

/// The natural logarithm of `1 + x`, to ≤ 1 ulp (0.9 measured), near zero too.
///
/// It is `−inf` at `−1`, NaN below, and `−0` at `−0`.
pub fn ln_1p(x: f64) -> f64 {
    let [y] = kernels::ln_1p([x]);
    y
}

// Circular functions.

/// The sine of `x`, to ≤ 1 ulp (0.8 measured) for every finite `x`.
///
/// It is NaN at the infinities and `−0` at `−0`. Beyond 25735 in magnitude it is
/// that of `libm`, which reduces `x` with as many digits of π as that takes.
pub fn sin(x: f64) -> f64 {
    let [y] = kernels::sin([x]);
    y
}

/// The cosine of `x`, to ≤ 1 ulp (0.8 measured) for every finite `x`.
///
/// It is NaN at the infinities, and from `libm` where [`sin`] is.
pub fn cos(x: f64) -> f64 {
    let [y] = kernels::cos([x]);
    y
}

/// The sine and the cosine of `x`, with the bits of [`sin`] and [`cos`] and
/// one reduction of `x` for both.
pub fn sin_cos(x: f64) -> (f64, f64) {
    let [[sine], [cosine]] = kernels::sin_cos([x]);
    (sine, cosine)
}

/// The tangent of `x`, from `libm`, to ≤ 1 ulp for every finite `x`.
///
/// It is NaN at the infinities and `−0` at `−0`. No `f64` is an odd multiple
/// of π/2, so it is never infinite.
pub fn tan(x: f64) -> f64 {
    libm::tan(x)
}

/// The arc sine of `x`, from `libm`, to ≤ 1 ulp; NaN outside `[−1, 1]`.
pub fn asin(x: f64) -> f64 {
    libm::asin(x)
}

/// The arc cosine of `x`, from `libm`, to ≤ 1 ulp; NaN outside `[−1, 1]`.
pub fn acos(x: f64) -> f64 {
    libm::acos(x)
}

/// The arc tangent of `x`, to ≤ 1 ulp: [`atan2`]`(x, 1)`, with the same bits.
///
/// It is `±π/2` at the infinities and `−0` at `−0`.
pub fn atan(x: f64) -> f64 {
    angle::atan2(x, 1.0)
}

/// The angle of the vector `(x, y)` in `[−π, π]`, to ≤ 1 ulp.
///
/// The one of `libm` takes the arc tangent of the rounded quotient and is off
/// by up to 1.4 ulp; here the arc tangent is reduced with a table, in which
/// the quotient shows only as a small correction. Signs of zero count, as in
/// IEEE 754: `atan2(±0, x)` is `±0` right of zero (`+0` included) and `±π`
/// left of it, `atan2(y, ±0)` is `±π/2`, and two infinities stand on a
/// diagonal.
pub fn atan2(y: f64, x: f64) -> f64 {
    angle::atan2(y, x)
}

// Hyperbolic functions.

/// The hyperbolic sine of `x`, to ≤ 2 ulp (1.3 measured).
///
/// It is computed from `e^|x| − 1`, and `−0` at `−0`.
pub fn sinh(x: f64) -> f64 {
    let [y] = kernels::sinh([x]);
    y
}

/// The hyperbolic cosine of `x`, to ≤ 2 ulp (1.1 measured).
///
/// It is computed from half of `e^|x|`, which overflows where the result does.
pub fn cosh(x: f64) -> f64 {
    let [y] = kernels::cosh([x]);
    y
}

/// The hyperbolic tangent of `x`, to ≤ 2 ulp (1.35 measured).
///
/// It is `(1 − e)/(1 + e)` with `e = exp(−2|x|)`, where `1 − e` is had without
/// cancellation. It is `±1` at the infinities and `−0` at `−0`.
pub fn tanh(x: f64) -> f64 {
    let [y] = kernels::tanh([x]);
    y
}

/// The inverse of the hyperbolic sine at `x`, from `libm`, to ≤ 2 ulp.
///
/// It does not overflow, and it is `−0` at `−0`.
pub fn asinh(x: f64) -> f64 {
    libm::asinh(x)
}

/// The inverse of the hyperbolic cosine at `x`, to ≤ 2 ulp; NaN below 1.
///
/// Below 2 it is `ln(1 + t + √(t (2 + t)))` with `t = x − 1`, the operand of
/// the logarithm in two parts, because the plain formula reaches 2.1 ulp near
/// 1. From 2 on it is that of `libm`, which does not overflow.
pub fn acosh(x: f64) -> f64 {
    if (1.0..2.0).contains(&x) {
        let t = x - 1.0;
        if t == 0.0 {
            return 0.0;
        }
        let square = libm::fma(t, t, 2.0 * t);
        let square_low = libm::fma(t, t, 2.0 * t - square);
        let root = square.sqrt();
        let root_low = (libm::fma(-root, root, square) + square_low) / (2.0 * root);
        let (sum, sum_low) = two_sum(root, t);
        ln_1p_of_pair(sum, sum_low + root_low)
    } else {
        libm::acosh(x)
    }
}

/// The inverse of the hyperbolic tangent at `x`, from `libm`, to ≤ 2 ulp.
///
/// It is `±inf` at `±1`, NaN beyond, and `−0` at `−0`.
pub fn atanh(x: f64) -> f64 {
    libm::atanh(x)
}

// Powers.

/// The power `x` to `y`, to ≤ 1 ulp.
///
/// A negative `x` has a power only where `y` is an integer, and is NaN
/// otherwise; `pow(x, 0)` and `pow(1, y)` are 1 even for NaN, and
/// `pow(−1, ±inf)` is 1, all as in IEEE 754. It is that of `libm`, except for
/// `|y| > 2³¹` with `x` so near 1 that the result is in range: there `libm`
/// loses up to nine bits, and four terms of the series of the logarithm,
/// multiplied by `y` in two parts, are enough.
pub fn pow(x: f64, y: f64) -> f64 {
    /// 2³¹.
    const HUGE: f64 = (1_u64 << 31) as f64;
    /// 2⁻¹⁹.
    const NEAR: f64 = 1.0 / (1_u64 << 19) as f64;

    // Exact, as x is near 1 wherever it is used.
    let t = x.abs() - 1.0;
    if y.abs() > HUGE && y.is_finite() && t.abs() < NEAR && t != 0.0 {
        let curve = t * t * (-0.5 + t * (1.0 / 3.0 - t * 0.25));
        let product = y * t;
        let size = if product.abs() > 1000.0 {
            exp(product)
        } else {
            let low = libm::fma(y, t, -product) + y * curve;
            let (sum, rest) = two_sum(product, low);
            exp_of_pair(sum, rest)
        };
        // An integer, as every number of that size is; odd ones end at 2⁵³.
        if x < 0.0 && (y % 2.0).abs() == 1.0 {
            -size
        } else if x < 0.0 && y % 1.0 != 0.0 {
            f64::NAN
        } else {
            size
        }
    } else {
        libm::pow(x, y)
    }
}

/// The power `x` to the integer `n`, by squaring from the least significant
/// bit of `|n|`.
///
/// For a negative `n` it is `1/p` with `p = x^|n|` if `p` is a normal number,
/// otherwise `(1/x)^|n|`, corrected for the rounding of `1/x`, which keeps a
/// subnormal result and does not overflow early. The error is ≤ 1 ulp for
/// `|n| ≤ 3` and ≤ `|n|` ulp otherwise. For 3, −2 and −3 that takes the rounding
/// errors of the products, which are carried along and added. `powi(x, 0)` is 1
/// for every `x`, NaN included.
pub fn powi(x: f64, n: i64) -> f64 {
    match n {
        3 => short_power(x, 0.0, 3),
        -2 | -3 => {
            let inverse = 1.0 / x;
            let low = libm::fma(-x, inverse, 1.0) * inverse;
            short_power(inverse, low, -n)
        }
        0.. => squarings(x, n.unsigned_abs()),
        _ => {
            let p = squarings(x, n.unsigned_abs());
            if p.is_normal() {
                1.0 / p
            } else {
                let inverse = 1.0 / x;
                let power = squarings(inverse, n.unsigned_abs());
                // To first order, what the rounding of the inverse makes of it.
                let rest = libm::fma(-x, inverse, 1.0) * n.unsigned_abs() as f64;
                if rest.abs() < 1e-3 && power.is_finite() { power + power * rest } else { power }
            }
        }
    }
}

/// `x` to the power `n` by squaring from the least significant bit.
fn squarings(x: f64, mut n: u64) -> f64 {
    let mut square = x;
    let mut power = 1.0;
    loop {
        if n & 1 == 1 {
            power *= square;
        }
        n >>= 1;
        if n == 0 {
            return power;
        }
        square *= square;
    }
}

/// The square or the cube of `x + low`, with what the products round off.
///
/// A zero, with its sign, and a result that is not finite are the plain
/// product, and one near the subnormal range, where that rest would be lost, is
/// formed at a larger scale.
fn short_power(x: f64, low: f64, n: i64) -> f64 {
    /// 2²⁰⁰.
    const LARGE: f64 = f64::from_bits((1023 + 200) << 52);

    let (power, sum) = compensated_power(x, low, n);
    if power == 0.0 || !sum.is_finite() {
        power
    } else if sum.abs() < 1e-280 {
        let (_, sum) = compensated_power(x * LARGE, low * LARGE, n);
        let sum = if n == 3 { sum / LARGE } else { sum };
        sum / (LARGE * LARGE)
    } else {
        sum
    }
}

/// The square or the cube of `x + low`, plain and with the rest added.
fn compensated_power(x: f64, low: f64, n: i64) -> (f64, f64) {
    let square = x * x;
    let square_low = libm::fma(x, x, -square) + 2.0 * (x * low);
    if n == 2 {
        (square, square + square_low)
    } else {
        let cube = square * x;
        let cube_low = libm::fma(square, x, -cube) + square_low * x + square * low;
        (cube, cube + cube_low)
    }
}

// The error function.

/// The error function of `x`, `2/√π ∫₀ˣ exp(−t²) dt`, from `libm`, to ≤ 1 ulp.
///
/// It is `±1` at the infinities and `−0` at `−0`.
pub fn erf(x: f64) -> f64 {
    libm::erf(x)
}

/// The complementary error function of `x`, `1 − erf x`, from `libm`, to ≤ 4
/// ulp.
///
/// It is `0` at `inf` and `2` at `−inf`.
pub fn erfc(x: f64) -> f64 {
    libm::erfc(x)
}

// The logarithm of the gamma function.

/// `ln |Γ(x)|`, from `libm`, to ≤ 4 ulp for `x > 0`.
///
/// It is `inf` at 0, at the negative integers and at both infinities. Left of 0
/// it has a zero between any two poles but the first, near which no digit is
/// right.
pub fn lgamma(x: f64) -> f64 {
    libm::lgamma(x)
}

// The logistic function and its kin.

/// The logistic function of `x`, `1/(1 + e⁻ˣ)`, to ≤ 2 ulp (1.25 measured).
///
/// Nothing overflows: it is computed from `e^−|x|`, which also keeps the digits
/// of a subnormal result. It is 0 and 1 at the infinities.
pub fn logistic(x: f64) -> f64 {
    let [y] = kernels::logistic([x]);
    y
}

/// `ln(1 + eˣ)`, to ≤ 2 ulp (1.45 measured).
///
/// It is `max(x, 0) + ln(1 + e^−|x|)`. Nothing overflows or cancels: it is `x`
/// itself for large `x`, and 0 at `−inf`.
pub fn softplus(x: f64) -> f64 {
    let [y] = kernels::softplus([x]);
    y
}

/// `ln(eᵃ + eᵇ)`, to ≤ 2 ulp, also where the sum is nearly one.
///
/// Usually it is `h + ln(1 + exp(l − h))` with `h` the larger and `l` the
/// lesser operand, which cannot overflow. Where `h` is negative and the second
/// term takes away much of it, the sum less one is formed first: in two parts,
/// or, within 1/16 of zero, with integers of 128 bits, which hold the result
/// to 2 ulp however close `eᵃ + eᵇ` is to one (measured at the `f64` nearest
/// to the exact zero for many thousand operands). It is `−inf` if both
/// operands are, `inf` if one is, and NaN if one is NaN.
pub fn logaddexp(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high.is_infinite() {
        return high;
    }
    let (difference, rest) = two_sum(low, -high);
    if difference < -750.0 {
        // Also where the difference overflows and its rest is NaN.
        return high + 0.0;
    }
    let (e, e_low) = exp_parts(difference, rest).pair();
    let logarithm = ln_1p_of_pair(e, e_low);
    if high >= 0.0 || logarithm <= -0.5 * high {
        return high + logarithm;
    }
    let (first, first_low) = exp_parts(high, 0.0).pair();
    let (second, second_low) = exp_parts(low, 0.0).pair();
    let (excess, excess_low) = two_sum(first, -1.0);
    let (sum, sum_low) = two_sum(excess, second);
    if sum.abs() < 0.0625 {
        ln_1p(fixed::exponentials_less_one(-low, -high))
    } else {
        ln_1p_of_pair(sum, sum_low + excess_low + first_low + second_low)
    }
}

/// `x ln x`, to ≤ 2 ulp.
///
/// It is `0` at both zeros, its limit there, and NaN below.
pub fn xlogx(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x * ln(x) }
}

/// `x ln y`, to ≤ 2 ulp.
///
/// It is `0` where `x` is, whatever `y` is but NaN.
pub fn xlogy(x: f64, y: f64) -> f64 {
    if x == 0.0 && !y.is_nan() { 0.0 } else { x * ln(y) }
}

// Arithmetic beyond the operators.

/// `a b + c`, rounded once.
pub fn mul_add(a: f64, b: f64, c: f64) -> f64 {
    libm::fma(a, b, c)
}

/// The remainder of the division of `a` by `b` truncated to an integer, with
/// the sign of `a`; exact.
///
/// It is NaN for an infinite `a` or a zero `b`, and `a` for an infinite `b`.
pub fn rem(a: f64, b: f64) -> f64 {
    a % b
}

// Functions in pieces.

/// `x` where it is positive and `+0` where it is not; NaN at NaN.
pub fn relu(x: f64) -> f64 {
    if x > 0.0 || x.is_nan() { x } else { 0.0 }
}

/// 1 above zero, −1 below, `+0` at both zeros, NaN at NaN.
pub fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else if x.is_nan() {
        x
    } else {
        0.0
    }
}

/// One with the sign bit of `x`, as the standard library defines it: 1 at
/// `+0`, −1 at `−0`, NaN at NaN.
pub fn signum(x: f64) -> f64 {
    x.signum()
}

/// The magnitude of `x` with the sign bit of `y`, be it of a zero.
///
/// NaN if `y` is NaN, unlike the standard library: the sign of a computed NaN
/// differs between processors.
pub fn copysign(x: f64, y: f64) -> f64 {
    if y.is_nan() { y } else { x.copysign(y) }
}

/// The greatest integer not above `x`.
pub fn floor(x: f64) -> f64 {
    x.floor()
}

/// The least integer not below `x`; `−0` in `(−1, −0]`.
pub fn ceil(x: f64) -> f64 {
    x.ceil()
}

/// The integer nearest to `x`, a half going away from zero; the sign of a zero
/// is that of `x`.
pub fn round(x: f64) -> f64 {
    x.round()
}

/// The integer part of `x`; the sign of a zero is that of `x`.
pub fn trunc(x: f64) -> f64 {
    x.trunc()
}

/// The integer nearest to `x`, a half going to the even one; the sign of a
/// zero is that of `x`.
pub fn round_ties_even(x: f64) -> f64 {
    x.round_ties_even()
}

/// The greater of `a` and `b`, the `maximum` of IEEE 754-2019: NaN if one of
/// them is, and `−0` is below `+0`.
pub fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a > b || (a == b && b.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// The lesser of `a` and `b`, the `minimum` of IEEE 754-2019: NaN if one of
/// them is, and `−0` is below `+0`.
pub fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// `x` held between `lo` and `hi`; NaN if one of the three is NaN or `lo` is
/// above `hi`.
///
/// An `x` that equals a bound is returned itself, with its sign of zero.
pub fn clamp(x: f64, lo: f64, hi: f64) -> f64 {
    if x.is_nan() || lo.is_nan() || hi.is_nan() || lo > hi {
        f64::NAN
    } else if x < lo {
        lo
    } else if x > hi {
        hi
    } else {
        x
    }
}

// Functions that occur as derivatives of the others.

/// `1/cosh² x`, the derivative of [`tanh`], to ≤ 4 ulp (3.3 measured).
///
/// It is `e (1 + tanh |x|)²` with `e = exp(−2|x|)`: `1 − tanh²` cancels, and the
/// square of `cosh` overflows from 356 on, where the result still has all its
/// digits. It is `0` at the infinities.
pub fn sech2(x: f64) -> f64 {
    let [y] = kernels::sech2([x]);
    y
}

/// `2/√π · exp(−x²)`, the derivative of [`erf`], to ≤ 4 ulp (0.8 measured).
///
/// The rounding error of `x²` alone would cost hundreds of units for large
/// `x`; the square is taken in two parts. It is `0` at the infinities.
pub fn gauss(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 27.5 {
        return 0.0;
    }
    let square = x * x;
    let parts = exp_parts(-square, -libm::fma(x, x, -square));
    let product = parts.high * FRAC_2_SQRT_PI;
    let rest = libm::fma(parts.high, FRAC_2_SQRT_PI, -product)
        + (parts.high * FRAC_2_SQRT_PI_LOW + parts.low * FRAC_2_SQRT_PI);
    scale(product + rest, parts.exponent)
}

/// `ln x + 1`, the derivative of [`xlogx`], to ≤ 4 ulp, near its zero at 1/e
/// too.
///
/// Where `e x` lies between 1/2 and 2 it is `ln(1 + (e x − 1))`, with Euler's
/// number in two parts. It is `−inf` at both zeros and NaN below.
pub fn one_plus_ln(x: f64) -> f64 {
    if (0.184..0.735).contains(&x) { ln_1p(libm::fma(x, E, -1.0) + x * E_LOW) } else { ln(x) + 1.0 }
}

/// `1/(1 + x²)`, the derivative of [`atan`], to ≤ 2 ulp.
///
/// For a large `x` it is the square of `1/x`, which keeps the subnormal
/// results that an overflow of `x²` would lose. It is `0` at the infinities.
pub fn lorentz(x: f64) -> f64 {
    if x.abs() < 1e150 {
        1.0 / libm::fma(x, x, 1.0)
    } else {
        let inverse = 1.0 / x;
        inverse * inverse
    }
}

/// `1/(1 + exp(b − a))`, the derivative of [`logaddexp`]`(a, b)` with respect
/// to `a`, to ≤ 4 ulp (0.75 measured).
///
/// The difference is taken in two parts, since its rounding error would cost
/// hundreds of units where it is large. The result is 1 where `a` alone is
/// `+inf` or `b` alone is `−inf`, and 0 the other way round. Both `−inf` give
/// 0, and both `+inf` give ½, the weight of either of two equal operands.
pub fn logistic_difference(a: f64, b: f64) -> f64 {
    if a == b {
        return if a == f64::NEG_INFINITY { 0.0 } else { 0.5 };
    }
    let (difference, rest) = two_sum(a, -b);
    logistic_of_pair(difference, rest)
}

/// `1/(3 ∛x²)`, the derivative of [`cbrt`], to ≤ 1 ulp.
///
/// The rounding errors of the root and of its square, which make 9 ulp of the
/// plain formula, are taken out again. It is `inf` at both zeros and `0` at the
/// infinities.
pub fn cbrt_slope(x: f64) -> f64 {
    /// 2³⁰⁰ and its power of 2/3, for operands whose rests would underflow or cubes overflow.
    const UP: f64 = f64::from_bits((1023 + 300) << 52);
    const UP_AGAIN: f64 = f64::from_bits((1023 + 200) << 52);

    if x == 0.0 || !x.is_finite() {
        return 1.0 / (x * x);
    }
    let (size, factor) = if x.abs() < 1e-250 {
        (x.abs() * UP, UP_AGAIN)
    } else if x.abs() > 1e250 {
        (x.abs() / UP, 1.0 / UP_AGAIN)
    } else {
        (x.abs(), 1.0)
    };
    let root = libm::cbrt(size);
    let square = root * root;
    let square_low = libm::fma(root, root, -square);
    let cube = square * root;
    let cube_low = libm::fma(square, root, -cube) + square_low * root;
    let rest = (size - cube) - cube_low;
    let triple = 3.0 * square;
    let triple_low = libm::fma(3.0, square, -triple) + 3.0 * square_low;
    let inverse = 1.0 / triple;
    let relative = libm::fma(-inverse, triple, 1.0) - triple_low / triple - 2.0 / 3.0 * rest / size;
    (inverse + inverse * relative) * factor
}

/// `c · 2^x`, for `c = ln 2` the derivative of [`exp2`], to ≤ 2 ulp; where `2^x`
/// overflows, the product need not.
pub fn exp2_scaled(x: f64, c: f64) -> f64 {
    /// 2⁶⁴.
    const UP: f64 = f64::from_bits((1023 + 64) << 52);

    // The difference is exact.
    if (1023.0..1100.0).contains(&x) { c * exp2(x - 64.0) * UP } else { c * exp2(x) }
}

/// `−ln x/(b ln² b)`, the derivative of [`log`]`(x, b)` by the base, to ≤ 4 ulp.
pub fn log_slope(x: f64, base: f64) -> f64 {
    // The logarithm first, since dividing by a tiny base may overflow.
    -(log(x, base) / ln(base) / base)
}

/// `x/√(x² + y²)`, the derivative of [`hypot`] by `x`, to ≤ 2 ulp and without
/// overflow or underflow on the way.
///
/// It is `0` at the origin, `±1` where `x` alone is infinite, `0` where `y`
/// alone is, and NaN where both are.
pub fn direction(x: f64, y: f64) -> f64 {
    /// 2⁶⁰⁰.
    const LARGE: f64 = f64::from_bits((1023 + 600) << 52);

    let long = max(x.abs(), y.abs());
    if long == 0.0 {
        return 0.0;
    }
    if long.is_nan() || (x.is_infinite() && y.is_infinite()) {
        return f64::NAN;
    }
    if y.abs() <= x.abs() / FAR {
        return signum(x);
    }
    if x.abs() <= y.abs() / FAR {
        return x / y.abs();
    }
    let scale = if long > 1e150 {
        1.0 / LARGE
    } else if long < 1e-120 {
        LARGE
    } else {
        1.0
    };
    let (x, y) = (x * scale, y * scale);
    x / root_of_squares(max(x.abs(), y.abs()), min(x.abs(), y.abs()))
}

/// `y²/√(x² + y²)³`, the derivative of [`direction`] by `x`, to ≤ 5 ulp and
/// without overflow or underflow on the way.
///
/// It is `0` at the origin and where one operand is infinite, NaN where both are.
pub fn direction_slope(x: f64, y: f64) -> f64 {
    over_cube(x, y).map_or_else(
        |limit| limit,
        |(a, b, cube, exponent)| {
            if b.abs() > a.abs() / FAR || y == 0.0 {
                return scale_far(b * b / cube, -exponent);
            }
            let ((y, small), (x, large)) = (split_exponent(y), split_exponent(x));
            scale_far(y * y / (x * x * x), 2 * small - 3 * large)
        },
    )
}

/// `−xy/√(x² + y²)³`, the derivative of [`direction`] by `y`, to ≤ 5 ulp and
/// without overflow or underflow on the way.
///
/// It is `0` at the origin and where one operand is infinite, NaN where both are.
pub fn direction_turn(x: f64, y: f64) -> f64 {
    over_cube(x, y).map_or_else(
        |limit| limit,
        |(a, b, cube, exponent)| {
            let (long, short) = if x.abs() < y.abs() { (y, x) } else { (x, y) };
            if short == 0.0 || (a.abs() > b.abs() / FAR && b.abs() > a.abs() / FAR) {
                return scale_far(-a * b / cube, -exponent);
            }
            let ((short, small), (long, large)) = (split_exponent(short), split_exponent(long));
            let size = scale_far(short / (long * long), small - 2 * large);
            if x.is_sign_negative() == y.is_sign_negative() { -size } else { size }
        },
    )
}

/// `x/(x² + y²)`, the derivative of [`atan2`]`(y, x)` by `y`, to ≤ 2 ulp and
/// without overflow or underflow on the way.
///
/// It is NaN at the origin and `0` where an operand is infinite.
pub fn inversion(x: f64, y: f64) -> f64 {
    inverse_power(x, y, 1).0
}

/// The real part of `1/(x + iy)ᵏ`, for a whole `k` from 1 to 100: [`inversion`]
/// and its derivatives are such parts. To ≤ 5 ulp for `k ≤ 2`; beyond, the error is
/// small against the modulus alone. NaN for any other `k`; what is not whole is
/// rounded.
pub fn inverse_power_re(x: f64, y: f64, k: f64) -> f64 {
    order(k, 1.0, 100.0).map_or(f64::NAN, |k| inverse_power(x, y, k).0)
}

/// The imaginary part of `1/(x + iy)ᵏ`, as [`inverse_power_re`] is the real one.
pub fn inverse_power_im(x: f64, y: f64, k: f64) -> f64 {
    order(k, 1.0, 100.0).map_or(f64::NAN, |k| inverse_power(x, y, k).1)
}

/// `y x^(y − 1)`, the derivative of [`pow`] by `x`, to ≤ 1 ulp.
pub fn power_slope(x: f64, y: f64) -> f64 {
    power::derivative(x, y, 1, 0)
}

/// `x^y ln x`, the derivative of [`pow`] by `y`, to ≤ 1 ulp; `0` at `x = 0` for
/// `y ≥ 0`.
pub fn power_times_ln(x: f64, y: f64) -> f64 {
    power::derivative(x, y, 0, 1)
}

/// The derivative of [`pow`] of order `m` by `x` and `n` by `y`, for whole
/// numbers from 0 to 30; NaN for others. What is not whole is rounded.
pub fn power_derivative(x: f64, y: f64, m: f64, n: f64) -> f64 {
    match (order(m, 0.0, 30.0), order(n, 0.0, 30.0)) {
        (Some(m), Some(n)) => power::derivative(x, y, m, n),
        _ => f64::NAN,
    }
}

/// `−2x` times [`gauss`]`(x)`, its derivative, to ≤ 2 ulp.
///
/// The product is formed before it is scaled, so that a factor that has lost
/// digits by underflow is not multiplied.
pub fn gauss_slope(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 27.5 {
        return 0.0;
    }
    let square = x * x;
    let parts = exp_parts(-square, -libm::fma(x, x, -square));
    let product = parts.high * FRAC_2_SQRT_PI;
    let rest = libm::fma(parts.high, FRAC_2_SQRT_PI, -product)
        + (parts.high * FRAC_2_SQRT_PI_LOW + parts.low * FRAC_2_SQRT_PI);
    scale(-2.0 * x * (product + rest), parts.exponent)
}

/// Digamma, the derivative of [`lgamma`], to ≤ 4 ulp for `x > 0`.
///
/// About its positive zero it is a Taylor series in the distance from it, so
/// that no digit is lost there. It is `−inf` at both zeros of `x`, NaN at the
/// negative integers, and right to an absolute error only near the zeros
/// between them.
pub fn digamma(x: f64) -> f64 {
    gamma::digamma(x)
}

/// Trigamma, the derivative of [`digamma`], to ≤ 4 ulp for `x > 0`.
///
/// It is `inf` at 0 and at the negative integers.
pub fn trigamma(x: f64) -> f64 {
    gamma::polygamma(x, 1)
}

/// The derivative of order `n` of [`digamma`], for a whole `n` from 0 to 100;
/// NaN for any other. What is not whole is rounded.
pub fn polygamma(x: f64, n: f64) -> f64 {
    match order(n, 0.0, 100.0) {
        None => f64::NAN,
        Some(0) => gamma::digamma(x),
        Some(n) => gamma::polygamma(x, n),
    }
}

/// 1 if `a > b`, 0 if `a ≤ b`, NaN if they are not ordered.
pub fn exceeds(a: f64, b: f64) -> f64 {
    if a > b {
        1.0
    } else if a <= b {
        0.0
    } else {
        f64::NAN
    }
}

/// 1 if `lo ≤ x ≤ hi` and 0 outside, the derivative of [`clamp`]; NaN if one
/// of the three is NaN or `lo` is above `hi`.
pub fn inside(x: f64, lo: f64, hi: f64) -> f64 {
    if x.is_nan() || lo.is_nan() || hi.is_nan() || lo > hi {
        f64::NAN
    } else if lo <= x && x <= hi {
        1.0
    } else {
        0.0
    }
}

/// 1 if `a > b`, ½ if they are equal, 0 if `a < b`, NaN if they are not
/// ordered: the derivative of [`max`]`(a, b)` with respect to `a`.
pub fn heaviside_difference(a: f64, b: f64) -> f64 {
    if a > b {
        1.0
    } else if a == b {
        0.5
    } else if a < b {
        0.0
    } else {
        f64::NAN
    }
}

/// `a b`, the product of the chain rule: `+0` instead of NaN if a factor is
/// exactly zero.
///
/// So an infinite partial derivative, or one that is NaN, does not reach what
/// does not depend on it.
pub fn chain_mul(a: f64, b: f64) -> f64 {
    let product = a * b;
    if product.is_nan() && (a == 0.0 || b == 0.0) { 0.0 } else { product }
}

/// `a / b`, the quotient of the chain rule: `+0` instead of NaN if `a` is
/// exactly zero.
pub fn chain_div(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if quotient.is_nan() && a == 0.0 { 0.0 } else { quotient }
}

/// The partial derivative `p` of an operation whose value is `v` and whose
/// operands add up to `s`: NaN if `v` is NaN and `s` is not, `p` otherwise.
///
/// So an operation outside its domain has no derivative either, whatever the
/// formula of the derivative gives there.
pub fn domain(p: f64, v: f64, s: f64) -> f64 {
    if v.is_nan() && !s.is_nan() { f64::NAN } else { p }
}

/// The whole number nearest to `n`, if it is from `least` to `most`.
fn order(n: f64, least: f64, most: f64) -> Option<usize> {
    let n = n.round();
    (least..=most).contains(&n).then_some(n as usize)
}

/// `x` and `y` divided by a power of two that brings them to ordinary size, the
/// cube of their length there, and the exponent of that power; or, where there
/// is none, what the products over that cube are.
fn over_cube(x: f64, y: f64) -> Result<(f64, f64, f64, i32), f64> {
    let long = max(x.abs(), y.abs());
    if long.is_nan() || (x.is_infinite() && y.is_infinite()) {
        return Err(f64::NAN);
    }
    if long == 0.0 || long.is_infinite() {
        return Err(0.0);
    }
    let (_, exponent) = split_exponent(long);
    let (a, b) = (scale_far(x, -exponent), scale_far(y, -exponent));
    let length = root_of_squares(max(a.abs(), b.abs()), min(a.abs(), b.abs()));
    Ok((a, b, length * length * length, exponent))
}

/// The real and the imaginary part of `1/(x + iy)ᵏ`, for `k ≥ 1`.
///
/// The operands are brought to ordinary size and the scale is applied last. The
/// parts of the square are formed without cancellation; the higher powers, which
/// are third and later derivatives, are right to an error of the modulus.
fn inverse_power(x: f64, y: f64, k: usize) -> (f64, f64) {
    if x.is_nan() || y.is_nan() || (x == 0.0 && y == 0.0) {
        return (f64::NAN, f64::NAN);
    }
    if x.is_infinite() || y.is_infinite() {
        return (0.0, 0.0);
    }
    let (long, short) = if x.abs() < y.abs() { (y, x) } else { (x, y) };
    let (_, exponent) = split_exponent(long);
    let down = |z: f64| scale_far(z, -exponent);
    let (a, b) = (down(x), down(y));
    let square = libm::fma(a, a, b * b);
    let shift = -(k as i32) * exponent;
    // The parts of the inverse to the power k of the scaled number.
    let (re, im) = match k {
        1 => (a / square, -b / square),
        2 => ((a - b) * (a + b) / (square * square), -2.0 * a * b / (square * square)),
        _ => {
            let (re, im) = (a / square, -b / square);
            (1..k).fold((re, im), |(p, q), _| (p * re - q * im, p * im + q * re))
        }
    };
    let (re, im) = (scale_far(re, shift), scale_far(im, shift));
    if k > 2 || short.abs() > long.abs() / FAR {
        return (re, im);
    }
    // The shorter side shows in one part alone, to which it is a factor that
    // may have lost digits above.
    let factor = if short == 0.0 {
        0.0 * short
    } else {
        let (size, small) = split_exponent(short);
        let (mantissa, large) = split_exponent(long);
        let power = if k == 1 { mantissa * mantissa } else { mantissa * mantissa * mantissa };
        scale_far(size.copysign(short) / power, small - (k as i32 + 1) * large)
    };
    match (k, x.abs() < y.abs()) {
        (1, true) => (factor, im),
        (1, false) => (re, -factor),
        _ => (re, -2.0 * signum(long) * factor),
    }
}

// Steps in two parts, common to several functions.

/// `(a + a_low)/(b + b_low)`, the quotient corrected by its remainder.
fn divide(a: f64, a_low: f64, b: f64, b_low: f64) -> f64 {
    let quotient = a / b;
    let rest = libm::fma(-quotient, b, a) + (a_low - quotient * b_low);
    quotient + rest / b
}

/// `ln(1 + x + low)` for a `low` that is small against `x`.
fn ln_1p_of_pair(x: f64, low: f64) -> f64 {
    ln_1p(x) + low / (1.0 + x)
}

/// `exp(x + low)` for any `x` and a small `low`.
fn exp_of_pair(x: f64, low: f64) -> f64 {
    if x.abs() > 750.0 {
        exp(x)
    } else {
        let parts = exp_parts(x, low);
        scale(parts.high, parts.exponent)
    }
}

/// `1/(1 + exp(−x − low))` for any `x` and a small `low`.
fn logistic_of_pair(x: f64, low: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 50.0 {
        return 1.0;
    }
    if x < -750.0 {
        return 0.0;
    }
    let parts = if x < 0.0 { exp_parts(x, low) } else { exp_parts(-x, -low) };
    let (e, e_low) = parts.pair();
    let (sum, sum_low) = two_sum(1.0, e);
    let sum_low = sum_low + e_low;
    if x < 0.0 {
        let quotient = divide(parts.high, parts.low, sum, sum_low);
        scale(quotient, parts.exponent)
    } else {
        divide(1.0, 0.0, sum, sum_low)
    }
}
