//! `ln(eᵃ + eᵇ)` where the sum of the exponentials is nearly one.
//!
//! There the result is the small difference `e^−u − (1 − e^−t)` of two numbers
//! that agree in up to a hundred bits and more, so it is formed in integers of
//! 128 bits. A mantissa here is a `u128` in units of 2⁻¹²⁷.

/// `⌊2¹¹⁷ ln 2⌋`.
const LN_2: u128 = 0x0016_2e42_fefa_39ef_3579_3c76_7300_7e5e;
/// The next 64 bits of `ln 2`.
const LN_2_NEXT: u128 = 0xd5e8_1e68_64ce_5316;
/// One as a mantissa.
const ONE: u128 = 1 << 127;

/// The upper half of the product of two integers of 128 bits.
fn mul_high(a: u128, b: u128) -> u128 {
    let low = |x: u128| x & u128::from(u64::MAX);
    let (a1, a0, b1, b0) = (a >> 64, low(a), b >> 64, low(b));
    let middle = a1 * b0 + ((a0 * b0) >> 64);
    let other = a0 * b1 + low(middle);
    a1 * b1 + (middle >> 64) + (other >> 64)
}

/// The product of two mantissas.
fn mul(a: u128, b: u128) -> u128 {
    mul_high(a, b) << 1
}

/// A positive finite number as `integer · 2^exponent`, the integer of 53 bits.
fn decompose(x: f64) -> (u128, i32) {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32;
    let fraction = u128::from(bits & ((1 << 52) - 1));
    if exponent == 0 {
        let shift = fraction.leading_zeros() - (128 - 53);
        (fraction << shift, -1074 - shift as i32)
    } else {
        (fraction | 1 << 52, exponent - 1075)
    }
}

/// `x` shifted to the right, to nothing if far.
fn shifted(x: u128, by: i32) -> u128 {
    if by < 128 { x >> by } else { 0 }
}

/// `e^−u + e^−t − 1`, to about 2⁻¹²⁴ of the larger of `e^−u` and `1 − e^−t`,
/// for `0 < t ≤ u`, `t < 1` and `0.6 < u < 750`.
pub(super) fn exponentials_less_one(u: f64, t: f64) -> f64 {
    // u in units of 2^−117, exactly, and g = k ln 2 − u in [0, ln 2).
    let (integer, exponent) = decompose(u);
    let fixed = integer << (exponent + 117);
    let mut k = fixed / LN_2;
    if k * LN_2 < fixed {
        k += 1;
    }
    let g = ((k * LN_2 - fixed) << 10) + ((k * LN_2_NEXT) >> 54);
    // e^−u = (1 + sum of gⁿ/n!) · 2^−k.
    let mut first = ONE;
    let mut term = g;
    let mut n = 1;
    while term > 0 {
        first += term;
        n += 1;
        term = mul(term, g) / n;
    }
    let first_exponent = -(k as i32) - 127;

    // 1 − e^−t = t · (1 − t/2 + t²/6 − …).
    let (integer, exponent) = decompose(t);
    let fixed = if exponent + 127 >= 0 { integer << (exponent + 127) } else { shifted(integer, -127 - exponent) };
    let mut series = ONE;
    let mut term = ONE;
    let mut n = 1;
    loop {
        n += 1;
        term = mul(term, fixed) / n;
        if term == 0 {
            break;
        }
        if n % 2 == 0 {
            series -= term;
        } else {
            series += term;
        }
    }
    let second = mul_high(integer << 75, series);
    let second_exponent = exponent - 74;

    // Halved, both fit a signed integer.
    let common = first_exponent.max(second_exponent);
    let first = shifted(first >> 1, common - first_exponent) as i128;
    let second = shifted(second >> 1, common - second_exponent) as i128;
    libm::scalbn((first - second) as f64, common + 1)
}
