//! The exponential with a few bits more than an `f64` holds.
//!
//! After P. T. P. Tang, "Table-driven implementation of the exponential
//! function in IEEE floating-point arithmetic" (ACM TOMS 15, 1989): with `k`
//! the integer nearest to `64 x / ln 2` and `r = x − k ln 2 / 64`, the result
//! is `2^(k/64) eʳ`, the first factor from a table of 64 numbers with low
//! parts, the second a polynomial on `|r| ≤ ln 2 / 128`.

use super::tables::EXP2;

/// `64 / ln 2`.
pub(super) const PER_STEP: f64 = 92.33248261689366;
/// `ln 2 / 64` to 36 bits, so that its product with a step count is exact.
pub(super) const STEP_HIGH: f64 = 0.010830424696223417;
/// The rest of `ln 2 / 64`.
pub(super) const STEP_LOW: f64 = 2.572804622327669e-14;

/// A number `(high + low) · 2^exponent`, `low` below half a unit in the last
/// place of `high`.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) high: f64,
    pub(super) low: f64,
    pub(super) exponent: i32,
}

impl Parts {
    /// The number as two `f64`, for one that is not near the ends of the
    /// range, or whose low part no longer matters there.
    pub(super) fn pair(self) -> (f64, f64) {
        (scale(self.high, self.exponent), scale(self.low, self.exponent))
    }
}

/// The sum of two numbers and what its rounding left (Knuth's two-sum), exact
/// unless it overflows.
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// `x · 2^exponent`, rounded once, for `x` of ordinary size and an exponent of
/// at most 1150 in magnitude.
pub(super) fn scale(x: f64, exponent: i32) -> f64 {
    if exponent > 1023 {
        x * power_of_two(1023) * power_of_two(exponent - 1023)
    } else if exponent < -1022 {
        x * power_of_two(exponent + 256) * power_of_two(-256)
    } else {
        x * power_of_two(exponent)
    }
}

/// The integer nearest to `x`, a half going to the even one, for `|x| < 2⁵⁰`.
///
/// Adding `1.5 · 2⁵²` leaves no room for a fraction. Where the processor has no
/// instruction for it this is several times as fast as `round_ties_even`.
pub(super) fn nearest(x: f64) -> f64 {
    const SHIFT: f64 = (3_u64 << 51) as f64;
    (x + SHIFT) - SHIFT
}

/// `2^k` for `−1022 ≤ k ≤ 1023`.
fn power_of_two(k: i32) -> f64 {
    f64::from_bits(((k + 1023) as u64) << 52)
}

/// `exp(x + low)` to about 2⁻⁶⁰, for `|x| ≤ 750` and a small `low`.
///
/// The product of the step count (17 bits) and `STEP_HIGH` (36 bits) is exact,
/// and so is its difference to `x`; what the subtraction of the other part of
/// the step rounds off is kept. The polynomial is the Taylor one, whose first
/// missing term is below 2⁻⁶⁴.
pub(super) fn exp_parts(x: f64, low: f64) -> Parts {
    let steps = nearest(x * PER_STEP);
    let (r, rest) = two_sum(x - steps * STEP_HIGH, -(steps * STEP_LOW));
    let (r, rest) = two_sum(r, rest + low);
    let curve = 0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))));
    let steps = steps as i32;
    let (table_high, table_low) = EXP2[(steps & 63) as usize];
    let increment = table_low + (table_high * (rest + r * r * curve) + table_high * r);
    let high = table_high + increment;
    Parts { high, low: (table_high - high) + increment, exponent: steps >> 6 }
}
