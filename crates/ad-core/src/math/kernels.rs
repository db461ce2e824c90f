//! The elementary functions that are computed for many operands at once.
//!
//! Each function here takes an array of lanes. Its source is the same for one
//! lane, which is how the functions of the parent module call it, and for a
//! block of them, which the compiler turns into vector instructions. Every lane
//! goes through the same additions, multiplications, divisions, comparisons and
//! integer operations of IEEE 754 and two's complement, so the bits of a result
//! depend neither on the number of lanes nor on the instructions at hand.
//!
//! For that the path of a lane is a straight line: cases are computed side by
//! side and selected, there are no tables and no fused operations, and whatever
//! would need a conversion between integers and floating point is done by
//! adding a number so large that the last bit of the sum stands for one. Only
//! an angle too large for the short reduction leaves this path.
//!
//! The loop over the lanes of a block calls one function for one lane. That
//! body is long enough for the compiler to keep the loop until it is vectorised,
//! instead of unrolling it first, for any `L` from 8 on.
//!
//! Functions that are used together, such as a function and its derivative,
//! are written on the same steps, so that after inlining the compiler computes
//! those once. Everything is therefore inlined always: only then is a function
//! also compiled for the instruction set of its caller.
//!
//! The errors are stated at the functions of the parent module. The constants
//! were computed by `tests/reference/kernels.py`, which says how.

use core::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, LOG2_E};

/// ln 2 to 42 bits, so that its product with an exponent is exact.
const LN_2_HIGH: f64 = 0.6931471805598903;
/// The rest of ln 2.
const LN_2_LOW: f64 = 5.497923018708371e-14;
/// `(eʳ − 1 − r − r²/2)/r³` for `|r| ≤ ln 2 / 2`.
const EXP: [f64; 10] = [
    0.16666666666666677,
    0.04166666666666668,
    0.008333333333321454,
    0.0013888888888877455,
    0.00019841269886514704,
    2.4801587340571983e-5,
    2.7557243862305944e-6,
    2.7557259264687017e-7,
    2.510914585705395e-8,
    2.091947674646999e-9,
];
/// `(ln((1 + s)/(1 − s)) − 2s)/s³` in `s²`, for `(1 + s)/(1 − s)` between √½ and √2.
const LN: [f64; 7] = [
    0.6666666666666736,
    0.39999999999405483,
    0.2857142874406196,
    0.22222198426135864,
    0.18183571058687753,
    0.15313895685114728,
    0.14797364051497042,
];
/// `(sin r − r)/r³` in `r²`, for `|r| ≤ π/4`.
const SIN: [f64; 6] = [
    -0.1666666666666663,
    0.008333333333321973,
    -0.0001984126982952053,
    2.755731360694562e-6,
    -2.505074642442975e-8,
    1.5896187567713748e-10,
];
/// `(cos r − 1 + r²/2)/r⁴` in `r²`, for `|r| ≤ π/4`.
const COS: [f64; 6] = [
    0.041666666666666595,
    -0.0013888888888873457,
    2.4801587289115206e-5,
    -2.755731425693326e-7,
    2.0875711423958883e-9,
    -1.1359080676932355e-11,
];
/// π/2 to 39 bits.
const FRAC_PI_2_HIGH: f64 = 1.5707963267959713;
/// 39 further bits.
const FRAC_PI_2_MIDDLE: f64 = -1.074634655497831e-12;
/// The rest.
const FRAC_PI_2_LOW: f64 = 6.36831716351095e-25;

/// Adding it to a number below 2⁵¹ in magnitude rounds that to an integer,
/// which stands in the last bits of the sum.
const SHIFT: f64 = (3_u64 << 51) as f64;
/// As [`SHIFT`], for an exponent: twice the bias of an `f64` is in it, so that
/// the last bits of the sum are positive and can be halved by a shift.
const EXPONENT_SHIFT: f64 = SHIFT + 2046.0;
/// Where the short reduction of an angle ends: its multiple of π/2 must have at
/// most 14 bits.
const FAR: f64 = 25_735.0;
/// The bits of 1.
const ONE: u64 = 1.0_f64.to_bits();
/// The bits of √½, rounded.
const SQRT_HALF: u64 = FRAC_1_SQRT_2.to_bits();
/// The bits of the fraction of an `f64`.
const FRACTION: u64 = (1 << 52) - 1;
const SIGN: u64 = 1 << 63;

// Steps common to several functions, for one lane.

/// The lesser of `x` and `bound`; NaN stays.
#[inline(always)]
fn at_most(x: f64, bound: f64) -> f64 {
    if bound < x { bound } else { x }
}

/// The greater of `x` and `bound`; NaN stays.
#[inline(always)]
fn at_least(x: f64, bound: f64) -> f64 {
    if bound > x { bound } else { x }
}

/// An exponential, `2^k (1 + r + curve)`.
#[derive(Clone, Copy)]
struct Exponential {
    r: f64,
    curve: f64,
    /// Two factors of `2^k`. Each is a normal number, and what is multiplied
    /// by both is rounded at most once, even if it ends up subnormal.
    scale: [f64; 2],
}

/// The exponential of an `x` between −760 and 712, or of NaN.
///
/// With `k` the integer nearest to `x/ln 2` the rest `x − k ln 2` is below
/// `ln 2/2`. The product of `k` with the high part of `ln 2` is exact, and so
/// is its difference to `x`; what the subtraction of the other part rounds off
/// goes into `curve`, beside the terms of the series from the square on.
#[inline(always)]
fn exponential(x: f64) -> Exponential {
    let shifted = x * LOG2_E + EXPONENT_SHIFT;
    let k = shifted - EXPONENT_SHIFT;
    let high = x - k * LN_2_HIGH;
    let low = k * LN_2_LOW;
    let r = high - low;
    let rest = (high - r) - low;

    // Terms are added in pairs, pairs of pairs and so on, so that they do not
    // all wait for one another.
    let r2 = r * r;
    let r4 = r2 * r2;
    let first = (EXP[0] + EXP[1] * r) + (EXP[2] + EXP[3] * r) * r2;
    let second = (EXP[4] + EXP[5] * r) + (EXP[6] + EXP[7] * r) * r2;
    let series = first + (second + (EXP[8] + EXP[9] * r) * r4) * r4;
    // Half of the square is exact, unlike its product with a series. What was
    // rounded off counts as the slope here makes it.
    let curve = 0.5 * r2 + (rest * (1.0 + r) + (r2 * r) * series);

    let bits = shifted.to_bits();
    let half = bits >> 1;
    let scale = [f64::from_bits(half << 52), f64::from_bits(bits.wrapping_sub(half) << 52)];
    Exponential { r, curve, scale }
}

impl Exponential {
    /// `1 + r + curve`, between 0.7 and 1.42, and what its rounding left.
    #[inline(always)]
    fn significands(self) -> (f64, f64) {
        let sum = 1.0 + self.r;
        let tail = ((1.0 - sum) + self.r) + self.curve;
        let significand = sum + tail;
        (significand, (sum - significand) + tail)
    }

    /// The rounded `1 + r + curve`.
    #[inline(always)]
    fn significand(self) -> f64 {
        self.significands().0
    }

    /// `x · 2^k`.
    #[inline(always)]
    fn scaled(self, x: f64) -> f64 {
        (x * self.scale[0]) * self.scale[1]
    }

    #[inline(always)]
    fn value(self) -> f64 {
        self.scaled(self.significand())
    }

    /// `factor · 2^k (1 + r + curve) − factor` for a power of two, in two
    /// parts, the second of which may be up to a fifth of the first.
    ///
    /// The first difference is exact until `2^k` or `factor` no longer shows
    /// beside the other, and then as good.
    #[inline(always)]
    fn less_one(self, factor: f64) -> (f64, f64) {
        let power = self.scaled(factor);
        let whole = power - factor;
        let part = power * self.r;
        let sum = whole + part;
        (sum, ((whole - sum) + part) + power * self.curve)
    }
}

/// The exponential of any `x`.
#[inline(always)]
fn exponential_of_any(x: f64) -> Exponential {
    exponential(at_most(at_least(x, -750.0), 710.0))
}

/// `exp(−2|x|)`, down to where four times it is zero.
#[inline(always)]
fn exponential_of_double(x: f64) -> Exponential {
    exponential(at_least(-2.0 * x.abs(), -750.0))
}

/// `exp(−|x|)`, down to where it is zero.
#[inline(always)]
fn exponential_of_size(x: f64) -> Exponential {
    exponential(at_least(-x.abs(), -750.0))
}

/// `exp(|x|)`, up to where half of it is infinite.
#[inline(always)]
fn exponential_of_growth(x: f64) -> Exponential {
    exponential(at_most(x.abs(), 711.0))
}

/// `ln(2^exponent x + low)` for a positive normal `x` and, if there is one, a
/// `low` below the last place of `x`, with no exponent then.
///
/// With `2^k` the power of two nearest to `x` in ratio, `m = x/2^k` lies between
/// √½ and √2. For `f = m − 1` and `s = f/(2 + f)` the logarithm of `m` is
/// `ln((1 + s)/(1 − s)) = 2s + s³ P(s²)`, and `2s = f − s f`, in which `f` is
/// exact. As `s f = f²/2 − s f²/2`, what is subtracted from `f` is little more
/// than the square, and small where `f` is.
#[inline(always)]
fn logarithm(x: f64, exponent: f64, low: Option<f64>) -> f64 {
    /// Setting its bits beside those of an integer below 2⁵² makes 2⁵² and that number of them.
    const WHOLE: u64 = ((1_u64 << 52) as f64).to_bits();

    // In units of the exponent this is how far x is above √½; a bias of 1023
    // keeps it positive.
    let above = x.to_bits().wrapping_sub(SQRT_HALF).wrapping_add(ONE);
    let k = (f64::from_bits((above >> 52) | WHOLE) - ((1_u64 << 52) + 1023) as f64) + exponent;
    let m = (above & FRACTION).wrapping_add(SQRT_HALF);

    let f = f64::from_bits(m) - 1.0;
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let first = LN[0] + LN[1] * s2;
    let second = (LN[2] + LN[3] * s2) + (LN[4] + LN[5] * s2) * s4 + LN[6] * (s4 * s4);
    let series = s2 * (first + second * s4);

    let mut rest = k * LN_2_LOW;
    if let Some(low) = low {
        // Four times 2^−k, which is a normal number for every k.
        let scale = f64::from_bits(m.wrapping_sub(x.to_bits()).wrapping_add(ONE + (2 << 52)));
        // Of low only the first digits count, so four terms of the series of
        // 1/m = (1 − s)/(1 + s) are enough; it is a quarter of them here.
        let inverse = 0.25 - 0.5 * s * (1.0 - s * (1.0 - s * (1.0 - s)));
        rest += (low * scale) * inverse;
    }
    let square = 0.5 * f * f;
    k * LN_2_HIGH + (f - (square - (s * (square + series) + rest)))
}

/// An angle, reduced to within π/4 of zero.
#[derive(Clone, Copy)]
struct Angle {
    /// The multiple of π/2 that was taken away, in the last two bits.
    quadrant: u64,
    sine: f64,
    cosine: f64,
}

/// The reduction of `x`, 0 ≤ `x` ≤ [`FAR`], and the functions of the rest.
///
/// Three parts of π/2 are subtracted `k` times. The products with the first two
/// are exact; so is the first difference, because `x` is close to the product,
/// and of the second the rounding error is. It can be had by three operations,
/// as the minuend is a multiple of the last place of the subtrahend. The last
/// product leaves 2⁻¹¹⁹, and no `f64` comes closer to a multiple of π/2 than
/// 2⁻⁶⁰.
#[inline(always)]
fn angle(x: f64) -> Angle {
    let shifted = x * FRAC_2_PI + SHIFT;
    let k = shifted - SHIFT;
    let minuend = x - k * FRAC_PI_2_HIGH;
    let subtrahend = k * FRAC_PI_2_MIDDLE;
    let difference = minuend - subtrahend;
    let rest = ((minuend - difference) - subtrahend) - k * FRAC_PI_2_LOW;
    let r = difference + rest;
    let low = (difference - r) + rest;

    let r2 = r * r;
    let r4 = r2 * r2;
    let half = 0.5 * r2;
    // The cosine up to the square, which is also how the sine changes with r.
    let top = 1.0 - half;
    let series = (SIN[0] + SIN[1] * r2) + ((SIN[2] + SIN[3] * r2) + (SIN[4] + SIN[5] * r2) * r4) * r4;
    let sine = r + (low * top + r * r2 * series);
    let series = (COS[0] + COS[1] * r2) + ((COS[2] + COS[3] * r2) + (COS[4] + COS[5] * r2) * r4) * r4;
    let cosine = top + (((1.0 - top) - half) + (r4 * series - r * low));
    Angle { quadrant: shifted.to_bits(), sine, cosine }
}

impl Angle {
    /// The sine of the angle `turns` quarters of a turn further on, negated if
    /// the sign bit is set in `sign`.
    #[inline(always)]
    fn sine_after(self, turns: u64, sign: u64) -> f64 {
        let quadrant = self.quadrant.wrapping_add(turns);
        // All bits of one operand or of the other, by a mask instead of a
        // comparison, for which 64 bits are too many for old instruction sets.
        let odd = 0_u64.wrapping_sub(quadrant & 1);
        let bits = (self.cosine.to_bits() & odd) | (self.sine.to_bits() & !odd);
        f64::from_bits(bits ^ ((quadrant << 62) & SIGN) ^ sign)
    }
}

// The functions, for one lane.

#[inline(always)]
fn exp_lane(x: f64) -> f64 {
    exponential_of_any(x).value()
}

#[inline(always)]
fn exp_m1_lane(x: f64) -> f64 {
    // Half of it does not overflow on the way; it could be subnormal, though,
    // and a tiny operand is the result.
    let e = exponential_of_any(x);
    let (high, low) = e.less_one(0.5);
    // Where the half shows only in part beside the power of two.
    let power = e.scaled(0.5);
    let lost = (power - (power - 0.5)) - 0.5;
    let value = 2.0 * (high + (low + lost));
    if x.abs() < TINY { x } else { value }
}

#[inline(always)]
fn ln_lane(x: f64) -> f64 {
    /// 2⁵⁴, which makes any subnormal number normal.
    const UP: f64 = (1_u64 << 54) as f64;

    let small = x < f64::MIN_POSITIVE;
    let normal = if small { x * UP } else { x };
    let exponent = if small { -54.0 } else { 0.0 };
    logarithm_of_any(x, logarithm(normal, exponent, None))
}

/// `value` where `x` has a finite logarithm, and otherwise what `ln x` is.
#[inline(always)]
fn logarithm_of_any(x: f64, value: f64) -> f64 {
    let outside = if x == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    // Infinity and NaN are their own logarithms.
    let outside = if x <= 0.0 { outside } else { x };
    if x > 0.0 && x < f64::INFINITY { value } else { outside }
}

#[inline(always)]
fn ln_1p_lane(x: f64) -> f64 {
    let sum = 1.0 + x;
    let part = sum - x;
    let low = (x - (sum - part)) + (1.0 - part);
    let value = logarithm_of_any(sum, logarithm(sum, 0.0, Some(low)));
    if x.abs() < TINY { x } else { value }
}

#[inline(always)]
fn sin_lane(x: f64) -> f64 {
    angle(x.abs()).sine_after(0, x.to_bits() & SIGN)
}

#[inline(always)]
fn cos_lane(x: f64) -> f64 {
    angle(x.abs()).sine_after(1, 0)
}

/// The hyperbolic tangent of `|x|`.
///
/// With `e = exp(−2|x|)` it is `(1 − e)/(1 + e)`, where `e − 1` is had without
/// cancellation and in two parts. The quotient `q` of the first parts is
/// corrected for the others by means of the inverse of its denominator, which
/// is `(1 + q)/2`.
#[inline(always)]
fn tanh_of_size(e: Exponential) -> f64 {
    let (high, low) = e.less_one(1.0);
    let top = high + low;
    let top_low = (high - top) + low;
    let bottom = 2.0 + top;
    let bottom_low = ((2.0 - bottom) + top) + top_low;
    let quotient = -top / bottom;
    quotient - (top_low + quotient * bottom_low) * (0.5 + 0.5 * quotient)
}

#[inline(always)]
fn tanh_lane(x: f64) -> f64 {
    tanh_of_size(exponential_of_double(x)).copysign(x)
}

#[inline(always)]
fn sech2_lane(x: f64) -> f64 {
    // With e = exp(−2|x|) it is 4e/(1 + e)², and 2/(1 + e) is 1 + t with
    // t = tanh |x|. The square less one is small where t is.
    let e = exponential_of_double(x);
    let t = tanh_of_size(e);
    let significand = e.significand();
    e.scaled(significand + significand * (t * (2.0 + t)))
}

#[inline(always)]
fn logistic_lane(x: f64) -> f64 {
    let e = exponential_of_size(x);
    let negative = x < 0.0;
    let (significand, low) = e.significands();
    let (top, top_low) = if negative { (significand, low) } else { (1.0, 0.0) };
    let small = e.scaled(significand);
    let bottom = 1.0 + small;
    let bottom_low = (1.0 - bottom) + small;
    let quotient = top / bottom;
    // For what was rounded off the inverse need not be exact: this line is off
    // by a seventeenth at most.
    let inverse = 24.0 / 17.0 - 8.0 / 17.0 * bottom;
    let quotient = quotient + (top_low - quotient * bottom_low) * inverse;
    // It is scaled last, so that a subnormal result is rounded once.
    if negative { e.scaled(quotient) } else { quotient }
}

#[inline(always)]
fn softplus_lane(x: f64) -> f64 {
    let e = exponential_of_size(x).value();
    let sum = 1.0 + e;
    let low = (1.0 - sum) + e;
    at_least(x, 0.0) + logarithm(sum, 0.0, Some(low))
}

#[inline(always)]
fn sinh_lane(x: f64) -> f64 {
    let e = exponential_of_growth(x);
    // Half of the exponential, and that less one half.
    let half = e.scaled(0.5 * e.significand());
    let (high, low) = e.less_one(0.5);
    let half_less_one = high + low;
    let quotient = half_less_one / half;
    // With m = e^|x| − 1 these are (m + m/(1 + m))/2 and m − m²/(2 + 2m), the
    // second of which hardly feels the error of the quotient near zero.
    let value = high + (low + 0.5 * quotient);
    let near = 2.0 * high + (2.0 * low - half_less_one * quotient);
    let value = if x.abs() < 0.5 { near } else { value };
    // The power of two alone overflows before half of the exponential does.
    let value = if x.abs() > 40.0 { half } else { value };
    let value = if x.abs() < TINY { x.abs() } else { value };
    value.copysign(x)
}

#[inline(always)]
fn cosh_lane(x: f64) -> f64 {
    let e = exponential_of_growth(x);
    let half = e.scaled(0.5 * e.significand());
    half + 0.25 / half
}

/// `|x|` below which `eˣ − 1`, `sinh x` and `ln(1 + x)` are `x`.
const TINY: f64 = 1.0 / (1_u64 << 54) as f64;

// The functions, for a block of lanes.

/// Functions for a block from functions for one lane.
macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident = $lane:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name<const L: usize>(x: [f64; L]) -> [f64; L] {
            let mut y = [0.0; L];
            for lane in 0..L {
                y[lane] = $lane(x[lane]);
            }
            y
        }
    )*};
}

blocks! {
    /// The exponential.
    exp = exp_lane;
    /// The exponential less one.
    exp_m1 = exp_m1_lane;
    /// The natural logarithm.
    ln = ln_lane;
    /// The natural logarithm of `1 + x`.
    ln_1p = ln_1p_lane;
    /// The hyperbolic tangent.
    tanh = tanh_lane;
    /// `1/cosh² x`.
    sech2 = sech2_lane;
    /// `1/(1 + e⁻ˣ)`.
    logistic = logistic_lane;
    /// `ln(1 + eˣ)`.
    softplus = softplus_lane;
    /// The hyperbolic sine.
    sinh = sinh_lane;
    /// The hyperbolic cosine.
    cosh = cosh_lane;
    sin_of_near = sin_lane;
    cos_of_near = cos_lane;
}

/// Functions for a block that have two results a lane, which share their steps.
macro_rules! pairs_of_blocks {
    ($($(#[$doc:meta])* $name:ident($x:ident) = $first:expr, $second:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name<const L: usize>(x: [f64; L]) -> [[f64; L]; 2] {
            let mut y = [[0.0; L]; 2];
            for lane in 0..L {
                let $x = x[lane];
                y[0][lane] = $first;
                y[1][lane] = $second;
            }
            y
        }
    )*};
}

pairs_of_blocks! {
    /// The hyperbolic tangent and its derivative.
    tanh_and_slope(x) = tanh_lane(x), sech2_lane(x);
    /// The logistic function and its derivative.
    logistic_and_slope(x) = logistic_lane(x), logistic_lane(x) * logistic_lane(-x);
    /// `ln(1 + eˣ)` and its derivative.
    softplus_and_slope(x) = softplus_lane(x), logistic_lane(x);
    /// The hyperbolic sine and its derivative.
    sinh_and_slope(x) = sinh_lane(x), cosh_lane(x);
    /// The hyperbolic cosine and its derivative.
    cosh_and_slope(x) = cosh_lane(x), sinh_lane(x);
}

/// The cosine and its derivative.
#[inline(always)]
pub(crate) fn cos_and_slope<const L: usize>(x: [f64; L]) -> [[f64; L]; 2] {
    let [sine, cosine] = sin_cos(x);
    let mut slope = [0.0; L];
    for lane in 0..L {
        slope[lane] = -sine[lane];
    }
    [cosine, slope]
}

/// Whether a lane is too large for the short reduction of an angle.
#[inline(always)]
fn any_far<const L: usize>(x: &[f64; L]) -> bool {
    let mut far = false;
    for x in x {
        far |= x.abs() > FAR;
    }
    far
}

/// The sine.
#[inline(always)]
pub(crate) fn sin<const L: usize>(x: [f64; L]) -> [f64; L] {
    if any_far(&x) { each_by_size(x, sin_lane, libm::sin) } else { sin_of_near(x) }
}

/// The cosine.
#[inline(always)]
pub(crate) fn cos<const L: usize>(x: [f64; L]) -> [f64; L] {
    if any_far(&x) { each_by_size(x, cos_lane, libm::cos) } else { cos_of_near(x) }
}

/// The sine and the cosine, with the bits of [`sin`] and [`cos`].
#[inline(always)]
pub(crate) fn sin_cos<const L: usize>(x: [f64; L]) -> [[f64; L]; 2] {
    if any_far(&x) {
        return [each_by_size(x, sin_lane, libm::sin), each_by_size(x, cos_lane, libm::cos)];
    }
    let mut y = [[0.0; L]; 2];
    for lane in 0..L {
        y[0][lane] = sin_lane(x[lane]);
        y[1][lane] = cos_lane(x[lane]);
    }
    y
}

/// The value of `far` in every lane that is too large for the short reduction,
/// that of `near` in the others.
///
/// The arrays go in and out by value: a reference to them here would keep them
/// in memory on the usual path, too. Nor does that path save registers for this
/// one, as it would if its results were passed on.
#[cold]
#[inline(never)]
fn each_by_size<const L: usize>(x: [f64; L], near: fn(f64) -> f64, far: fn(f64) -> f64) -> [f64; L] {
    x.map(|x| if x.abs() > FAR { far(x) } else { near(x) })
}
