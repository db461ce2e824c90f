//! The derivatives of the power x^y, to the order 30.
//!
//! Rounding y − 1 costs hundreds of units where ln x is large, and x^(y − 1)
//! overflows where y·x^(y − 1) does not. So the logarithm, the exponent and the
//! factor are carried in two parts each, and the scale is applied last.

use super::exponential::{PER_STEP, STEP_HIGH, STEP_LOW, exp_parts, nearest, scale, two_sum};
use super::tables::EXP2;

/// A number in two parts, the second below half a unit in the last place of the first.
#[derive(Clone, Copy)]
pub(super) struct Pair(pub(super) f64, pub(super) f64);

impl Pair {
    /// Within about 2⁻¹⁰⁰ of the sum, relative to the larger of the two.
    pub(super) fn plus(self, other: Pair) -> Pair {
        let (sum, rest) = two_sum(self.0, other.0);
        let (sum, rest) = two_sum(sum, rest + (self.1 + other.1));
        Pair(sum, rest)
    }

    /// Within about 2⁻¹⁰⁰ of the product, unless its parts underflow.
    pub(super) fn times(self, other: Pair) -> Pair {
        let product = self.0 * other.0;
        let rest = libm::fma(self.0, other.0, -product) + (self.0 * other.1 + self.1 * other.0);
        let (product, rest) = two_sum(product, rest);
        Pair(product, rest)
    }
}

/// The magnitude of `x` as a number from 1 to 2 and a power of two, for `x` finite and not 0.
pub(super) fn split_exponent(x: f64) -> (f64, i32) {
    /// 2⁵⁴.
    const UP: f64 = (1_u64 << 54) as f64;
    const EXPONENT: u64 = 0x7ff << 52;

    let (x, shift) = if x.abs() < f64::MIN_POSITIVE { (x * UP, 54) } else { (x, 0) };
    let exponent = ((x.to_bits() & EXPONENT) >> 52) as i32 - 1023;
    (f64::from_bits((x.abs().to_bits() & !EXPONENT) | (1023 << 52)), exponent - shift)
}

/// `x · 2^exponent`, rounded once, for `x` of ordinary size and any exponent.
pub(super) fn scale_far(x: f64, exponent: i32) -> f64 {
    scale(x, exponent.clamp(-1150, 1150))
}

/// The natural logarithm of a finite `x > 0`, to about 2⁻⁷⁰.
///
/// With k the integer nearest to 64·log₂ x, it is k·ln 2/64 plus the logarithm
/// of x/2^(k/64), which is 2·artanh of a small number.
pub(super) fn ln_pair(x: f64) -> Pair {
    let (mantissa, exponent) = split_exponent(x);
    let fraction = nearest(PER_STEP * super::ln(mantissa));
    let (mantissa, fraction, exponent) =
        if fraction == 64.0 { (0.5 * mantissa, 0.0, exponent + 1) } else { (mantissa, fraction, exponent) };
    let (table_high, table_low) = EXP2[fraction as usize];
    // The difference is exact, as both are within a factor of 2.
    let (top, top_low) = two_sum(mantissa - table_high, -table_low);
    let (bottom, bottom_low) = two_sum(mantissa, table_high);
    let bottom_low = bottom_low + table_low;
    let ratio = top / bottom;
    let ratio_low = (libm::fma(-ratio, bottom, top) + (top_low - ratio * bottom_low)) / bottom;
    let square = ratio * ratio;
    let curve = ratio * square * (1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0)));
    let steps = f64::from(64 * exponent) + fraction;
    let (high, rest) = two_sum(steps * STEP_HIGH, steps * STEP_LOW);
    Pair(high, rest).plus(Pair(2.0 * ratio, 2.0 * (ratio_low + curve)))
}

/// The most derivatives that [`derivative`] takes by either operand.
const ORDERS: usize = 30;

/// ∂^(m + n) x^y / ∂xᵐ ∂yⁿ; NaN beyond 30 derivatives by either operand.
///
/// It is x^(y − m) times the sum over j of `(n choose j)·f⁽ʲ⁾(y)·(ln x)^(n − j)`
/// with the falling factorial f(y) = y·(y − 1)⋯(y − m + 1).
pub(super) fn derivative(x: f64, y: f64, m: usize, n: usize) -> f64 {
    if m > ORDERS || n > ORDERS {
        return f64::NAN;
    }
    if !x.is_finite() || x == 0.0 || !y.is_finite() {
        return at_an_edge(x, y, m, n);
    }
    if x < 0.0 && (n > 0 || y % 1.0 != 0.0) {
        return f64::NAN;
    }
    // f and its derivatives at y, factor by factor.
    let mut falling = [Pair(0.0, 0.0); ORDERS + 1];
    falling[0] = Pair(1.0, 0.0);
    for i in 0..m {
        let (difference, rest) = two_sum(y, -(i as f64));
        for j in (0..=n).rev() {
            let product = falling[j].times(Pair(difference, rest));
            falling[j] = if j == 0 { product } else { product.plus(falling[j - 1].times(Pair(j as f64, 0.0))) };
        }
    }
    // Horner's rule in ln x; the binomial coefficients are exact.
    let logarithm = ln_pair(x.abs());
    let mut factor = Pair(0.0, 0.0);
    let mut choose = 1.0;
    for (j, term) in falling[..=n].iter().enumerate() {
        factor = factor.times(logarithm).plus(term.times(Pair(choose, 0.0)));
        choose = choose * (n - j) as f64 / (j + 1) as f64;
    }
    if factor.0 == 0.0 {
        return 0.0;
    }
    if !factor.0.is_finite() {
        return at_an_edge(x, y, m, n);
    }
    let (exponent, exponent_low) = two_sum(y, -(m as f64));
    let power = Pair(exponent, exponent_low).times(logarithm);
    let size = if power.0.abs() > 2800.0 || !power.0.is_finite() {
        if exponent * logarithm.0 > 0.0 { factor.0 * f64::INFINITY } else { factor.0 * 0.0 }
    } else {
        // The square of half of the exponent, since the series takes 1400 at most.
        let parts = exp_parts(0.5 * power.0, 0.5 * power.1);
        let root = Pair(parts.high, parts.low);
        let (mantissa, shift) = split_exponent(factor.0);
        // Without a rest, the factor may be so small that its inverse overflows.
        let rest = if factor.1 == 0.0 { 0.0 } else { factor.1 * (mantissa / factor.0.abs()) };
        let product = root.times(root).times(Pair(mantissa.copysign(factor.0), rest));
        scale_far(product.0 + product.1, 2 * parts.exponent + shift)
    };
    let odd = (y % 2.0 != 0.0) != (m % 2 == 1);
    if x < 0.0 && odd { -size } else { size }
}

/// The derivative where x is 0 or infinite, or y is: its limit where there is one.
fn at_an_edge(x: f64, y: f64, m: usize, n: usize) -> f64 {
    let mut falling = [0.0; ORDERS + 1];
    falling[0] = 1.0;
    for i in 0..m {
        for j in (0..=n).rev() {
            let product = super::chain_mul(falling[j], y - i as f64);
            falling[j] = if j == 0 { product } else { product + j as f64 * falling[j - 1] };
        }
    }
    let power = super::pow(x, y - m as f64);
    if n == 0 {
        return super::chain_mul(falling[0], power);
    }
    if x.is_nan() || y.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if power == 0.0 || (x == 0.0 && m == 0 && y == 0.0) {
        return 0.0;
    }
    let logarithm = super::ln(x);
    let lead = falling[..=n].iter().position(|&term| term != 0.0).unwrap_or(n);
    let factor = (lead..n).fold(falling[lead], |product, _| super::chain_mul(product, logarithm));
    super::chain_mul(factor, power)
}
