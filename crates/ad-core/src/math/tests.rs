//! Tests of the elementary functions: their error against stored references,
//! and their exact values at zeros, infinities, NaN and the ends of domains.

use super::*;
use Function::{Binary, Power, Quaternary, Ternary, Unary};
use core::f64::consts::{FRAC_PI_2, FRAC_PI_4, LN_2, PI};
use std::collections::BTreeSet;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;
const MAX: f64 = f64::MAX;
/// The least positive number, which is subnormal.
const LEAST: f64 = f64::from_bits(1);

/// Written by `tests/reference/functions.py`, which describes the columns.
const REFERENCE: &str = include_str!("../../tests/reference/functions.csv");
const SOURCE: &str = include_str!("mod.rs");

#[derive(Clone, Copy)]
enum Function {
    Unary(Real),
    Binary(fn(f64, f64) -> f64),
    Ternary(fn(f64, f64, f64) -> f64),
    Quaternary(fn(f64, f64, f64, f64) -> f64),
    Power(fn(f64, i64) -> f64),
}

type Real = fn(f64) -> f64;

/// Every function with the error it is allowed, in units in the last place.
///
/// The bounds are what was measured, at 80,000 to 380,000 points for each
/// function that rounds more than once, a little rounded up. That of `powi` is multiplied by the exponent if that is
/// above 3 in magnitude.
const TABLE: &[(&str, f64, Function)] = &[
    ("sqrt", 0.5, Unary(sqrt)),
    ("cbrt", 0.5, Unary(cbrt)),
    ("hypot", 0.76, Binary(hypot)),
    ("exp", 0.76, Unary(exp)),
    ("exp2", 0.76, Unary(exp2)),
    ("exp_m1", 0.85, Unary(exp_m1)),
    ("ln", 0.85, Unary(ln)),
    ("log2", 0.7, Unary(log2)),
    ("log10", 0.65, Unary(log10)),
    ("log", 2.2, Binary(log)),
    ("ln_1p", 0.9, Unary(ln_1p)),
    ("sin", 0.8, Unary(sin)),
    ("cos", 0.8, Unary(cos)),
    ("sin_cos", 0.8, Unary(|x| sin_cos(x).0)),
    ("tan", 0.85, Unary(tan)),
    ("asin", 0.95, Unary(asin)),
    ("acos", 0.9, Unary(acos)),
    ("atan", 0.56, Unary(atan)),
    ("atan2", 0.76, Binary(atan2)),
    ("sinh", 1.3, Unary(sinh)),
    ("cosh", 1.1, Unary(cosh)),
    ("tanh", 1.35, Unary(tanh)),
    ("asinh", 1.8, Unary(asinh)),
    ("acosh", 1.3, Unary(acosh)),
    ("atanh", 1.75, Unary(atanh)),
    ("pow", 0.9, Binary(pow)),
    ("powi", 0.8, Power(powi)),
    ("erf", 0.9, Unary(erf)),
    ("erfc", 2.8, Unary(erfc)),
    ("logistic", 1.25, Unary(logistic)),
    ("softplus", 1.45, Unary(softplus)),
    ("logaddexp", 1.5, Binary(logaddexp)),
    ("xlogx", 1.7, Unary(xlogx)),
    ("mul_add", 0.5, Ternary(mul_add)),
    ("rem", 0.0, Binary(rem)),
    ("relu", 0.0, Unary(relu)),
    ("sign", 0.0, Unary(sign)),
    ("signum", 0.0, Unary(signum)),
    ("copysign", 0.0, Binary(copysign)),
    ("floor", 0.0, Unary(floor)),
    ("ceil", 0.0, Unary(ceil)),
    ("round", 0.0, Unary(round)),
    ("trunc", 0.0, Unary(trunc)),
    ("round_ties_even", 0.0, Unary(round_ties_even)),
    ("max", 0.0, Binary(max)),
    ("min", 0.0, Binary(min)),
    ("clamp", 0.0, Ternary(clamp)),
    ("sech2", 3.3, Unary(sech2)),
    ("gauss", 0.76, Unary(gauss)),
    ("one_plus_ln", 2.3, Unary(one_plus_ln)),
    ("lorentz", 1.95, Unary(lorentz)),
    ("logistic_difference", 0.76, Binary(logistic_difference)),
    ("xlogy", 1.6, Binary(xlogy)),
    ("lgamma", 2.1, Unary(lgamma)),
    ("digamma", 2.1, Unary(digamma)),
    ("trigamma", 2.8, Unary(trigamma)),
    ("polygamma", 7.5, Binary(polygamma)),
    ("cbrt_slope", 0.51, Unary(cbrt_slope)),
    ("direction", 1.45, Binary(direction)),
    ("direction_slope", 4.5, Binary(direction_slope)),
    ("direction_turn", 4.0, Binary(direction_turn)),
    ("inversion", 1.95, Binary(inversion)),
    ("inverse_power_re", 4.1, Ternary(inverse_power_re)),
    ("inverse_power_im", 4.6, Ternary(inverse_power_im)),
    ("power_slope", 0.6, Binary(power_slope)),
    ("power_times_ln", 0.72, Binary(power_times_ln)),
    ("power_derivative", 0.7, Quaternary(power_derivative)),
    ("exp2_scaled", 1.46, Binary(exp2_scaled)),
    ("log_slope", 2.9, Binary(log_slope)),
    ("gauss_slope", 1.35, Unary(gauss_slope)),
    ("exceeds", 0.0, Binary(exceeds)),
    ("inside", 0.0, Ternary(inside)),
    ("heaviside_difference", 0.0, Binary(heaviside_difference)),
    ("chain_mul", 0.5, Binary(chain_mul)),
    ("chain_div", 0.5, Binary(chain_div)),
    ("domain", 0.0, Ternary(domain)),
];

/// One line of the stored references.
struct Point<'a> {
    name: &'a str,
    operands: Vec<u64>,
    /// The exact result rounded; NaN outside the domain.
    value: f64,
    /// The exact result less `value`, in units in the last place.
    rest: f64,
}

impl<'a> Point<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(',');
        let name = fields.next()?;
        let operands =
            fields.next()?.split(' ').map(|word| u64::from_str_radix(word, 16).ok()).collect::<Option<_>>()?;
        let value = match fields.next()? {
            "nan" => NAN,
            word => f64::from_bits(u64::from_str_radix(word, 16).ok()?),
        };
        let rest = fields.next()?.parse().ok()?;
        Some(Point { name, operands, value, rest })
    }

    fn operand(&self, i: usize) -> f64 {
        f64::from_bits(self.operands[i])
    }

    /// The error of a function here, in units in the last place.
    fn error(&self, function: Function) -> f64 {
        let x = self.operand(0);
        match function {
            Unary(f) => self.deviation(f(x)),
            Binary(f) => self.deviation(f(x, self.operand(1))),
            Ternary(f) => self.deviation(f(x, self.operand(1), self.operand(2))),
            Quaternary(f) => self.deviation(f(x, self.operand(1), self.operand(2), self.operand(3))),
            Power(f) => {
                let n = self.operands[1] as i64;
                let share = if n.abs() <= 3 { 1.0 } else { n.abs() as f64 };
                self.deviation(f(x, n)) / share
            }
        }
    }

    /// The distance from the exact result to `got`, where infinity counts as
    /// the number that would follow the largest one.
    fn deviation(&self, got: f64) -> f64 {
        if self.value.is_nan() || got.is_nan() {
            return if self.value.is_nan() && got.is_nan() { 0.0 } else { INF };
        }
        if got == self.value && got.is_infinite() {
            return 0.0;
        }
        // In the upper binades everything is scaled, so that nothing overflows.
        let large = got.abs().max(self.value.abs()) > 1e300;
        let scaled = |x: f64| match (large, x.is_infinite()) {
            (false, _) => x,
            (true, false) => x / 2.0_f64.powi(100),
            (true, true) => 2.0_f64.powi(924).copysign(x),
        };
        let exponent = ((self.value.abs().to_bits() >> 52) as i32).clamp(1, 2046) - 1075;
        let unit = if exponent < -1022 {
            f64::from_bits(1 << (exponent + 1074))
        } else {
            f64::from_bits(((exponent + 1023) as u64) << 52)
        };
        ((scaled(got) - scaled(self.value)) / scaled(unit) - self.rest).abs()
    }
}

fn points() -> Vec<Point<'static>> {
    REFERENCE.lines().skip(1).map(|line| Point::parse(line).unwrap_or_else(|| panic!("cannot read {line:?}"))).collect()
}

/// The functions of a table that miss their bound, with their worst point.
fn failures(table: &[(&str, f64, Function)]) -> Vec<String> {
    let points = points();
    let mut failures = Vec::new();
    for &(name, allowed, function) in table {
        let worst = points
            .iter()
            .filter(|point| point.name == name)
            .map(|point| (point.error(function), point))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match worst {
            None => failures.push(format!("{name}: no reference points")),
            // The stored rest has six digits.
            Some((error, point)) if error > allowed + 1e-6 => {
                let operands: Vec<f64> = (0..point.operands.len()).map(|i| point.operand(i)).collect();
                failures.push(format!(
                    "{name}: {error} ulp, allowed are {allowed}, at {operands:?}, where the \
                     result is {:e}",
                    point.value
                ));
            }
            Some(_) => {}
        }
    }
    failures
}

#[test]
fn errors_stay_within_their_bounds() {
    let failures = failures(TABLE);
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// High orders, whose powers underflow though the results do not. The expected
/// numbers are the asymptotic series in exact fractions.
#[test]
fn polygamma_of_high_orders() {
    let points = [
        (100.0, 1e4, -9.379363201543512e-245),
        (50.0, 4e6, -4.7985278095910656e-268),
        (100.0, 1800.0, -2.849457061760506e-170),
        (99.0, 6e4, 8.665e-320),
    ];
    for (n, x, expected) in points {
        let got: f64 = polygamma(x, n);
        assert!((got - expected).abs() <= 1e-13 * expected.abs() + 5e-324, "order {n} at {x}: {got}, not {expected}");
    }
}

/// Left of 0, where the reflection formulas are used, to an absolute error near the zeros.
#[test]
fn polygamma_left_of_zero() {
    let points = [
        (0.0, -0.5, 0.03648997397857652),
        (0.0, -1.25, 3.714139120213528),
        (0.0, -10.75, -0.7208957601671612),
        (0.0, -100.5, 4.6151246013380645),
        (0.0, -1e-5, 99999.42276788563),
        (1.0, -0.5, 8.934802200544679),
        (1.0, -3.25, 19.474085068082154),
        (2.0, -0.25, 122.69736678366236),
        (3.0, -1.5, 194.59427621918763),
        (5.0, -2.75, 492231.2077521004),
        (14.0, -0.75, -9.360697088572772e19),
    ];
    for (n, x, expected) in points {
        let got = polygamma(x, n);
        assert!((got - expected).abs() <= 2e-14 * (1.0 + expected.abs()), "order {n} at {x}: {got}, not {expected}");
    }
    assert!(polygamma(-2.0, 2.0).is_nan() && polygamma(-INF, 1.0).is_nan() && polygamma(NAN, 1.0).is_nan());
    assert_eq!(polygamma(-2.0, 3.0), INF);
    assert!(polygamma(1.5, -1.0).is_nan() && polygamma(1.5, 101.0).is_nan());
}

#[test]
fn every_function_has_references() {
    let table: BTreeSet<&str> = TABLE.iter().map(|entry| entry.0).collect();
    let stored: BTreeSet<&str> = points().iter().map(|point| point.name).collect();
    let written: BTreeSet<&str> =
        SOURCE.lines().filter_map(|line| line.strip_prefix("pub fn ")?.split('(').next()).collect();
    assert_eq!(table.len(), TABLE.len(), "a function stands there twice");
    assert_eq!(table, stored);
    assert_eq!(table, written);
}

#[test]
fn textbook_formulas_are_rejected() {
    let wrong: &[(&str, Function)] = &[
        ("sech2", Unary(|x| 1.0 - tanh(x) * tanh(x))),
        ("sech2", Unary(|x| 1.0 / (cosh(x) * cosh(x)))),
        ("lorentz", Unary(|x| 1.0 / (1.0 + x * x))),
        ("gauss", Unary(|x| FRAC_2_SQRT_PI * exp(-x * x))),
        ("one_plus_ln", Unary(|x| ln(x) + 1.0)),
        ("logistic", Unary(|x| 1.0 / (1.0 + exp(-x)))),
        ("softplus", Unary(|x| ln(1.0 + exp(x)))),
        ("tanh", Unary(libm::tanh)),
        ("atan2", Binary(libm::atan2)),
        ("pow", Binary(libm::pow)),
        ("pow", Binary(|x, y| exp(y * ln(x)))),
        ("powi", Power(|x, n| 1.0 / squarings(x, (-n).max(0) as u64))),
        ("logaddexp", Binary(|a, b| max(a, b) + ln_1p(exp(-(a - b).abs())))),
        ("logistic_difference", Binary(|a, b| logistic(a - b))),
        ("mul_add", Ternary(|a, b, c| a * b + c)),
        ("max", Binary(f64::max)),
        ("sign", Unary(signum)),
        ("xlogx", Unary(|x| x * ln(x) * (1.0 + 4.0 * f64::EPSILON))),
    ];
    for &(name, function) in wrong {
        let allowed = TABLE.iter().find(|entry| entry.0 == name).map_or(0.0, |entry| entry.1);
        assert_eq!(failures(&[(name, allowed, function)]).len(), 1, "a wrong {name} passes");
    }
    assert_eq!(failures(&[("lambertw", 1.0, Unary(ln))]).len(), 1);
}

#[test]
fn an_error_is_measured_in_units_of_the_exact_result() {
    let point = |value, rest| Point { name: "", operands: Vec::new(), value, rest };
    assert_eq!(point(1.0, 0.25).deviation(1.0), 0.25);
    assert_eq!(point(1.0, 0.25).deviation(1.0 + f64::EPSILON), 0.75);
    assert_eq!(point(LEAST, -0.5).deviation(0.0), 0.5);
    assert_eq!(point(f64::MIN_POSITIVE, 0.0).deviation(0.0), 2.0_f64.powi(52));
    assert_eq!(point(MAX, 0.5).deviation(INF), 0.5);
    assert_eq!(point(INF, -0.5).deviation(MAX), 0.5);
    assert_eq!(point(INF, 0.0).deviation(INF), 0.0);
    assert_eq!(point(1.0, 0.0).deviation(NAN), INF);
    assert_eq!(point(NAN, 0.0).deviation(1.0), INF);
    assert_eq!(point(-INF, 0.0).deviation(INF), 2.0_f64.powi(54));
}

#[test]
fn sine_and_cosine_together_have_the_bits_of_each() {
    for point in points() {
        if matches!(point.name, "sin" | "cos" | "tan" | "atan" | "sin_cos") {
            let x = point.operand(0);
            let (s, c) = sin_cos(x);
            assert!(same(s, sin(x)) && same(c, cos(x)), "at {x:e}");
        }
    }
}

#[test]
fn odd_and_even_functions_are_so_to_the_bit() {
    let odd: &[(&str, Real)] = &[
        ("cbrt", cbrt),
        ("sin", sin),
        ("tan", tan),
        ("asin", asin),
        ("atan", atan),
        ("sinh", sinh),
        ("tanh", tanh),
        ("asinh", asinh),
        ("atanh", atanh),
        ("erf", erf),
        ("sign", sign),
        ("round", round),
        ("trunc", trunc),
        ("round_ties_even", round_ties_even),
    ];
    let even: &[(&str, Real)] =
        &[("cos", cos), ("cosh", cosh), ("sech2", sech2), ("gauss", gauss), ("lorentz", lorentz)];
    for point in points() {
        let x = point.operand(0);
        if x == 0.0 {
            continue;
        }
        for (name, f) in odd {
            if *name == point.name {
                assert!(same(f(-x), -f(x)), "{name} at {x:e}");
            }
        }
        for (name, f) in even {
            if *name == point.name {
                assert!(same(f(-x), f(x)), "{name} at {x:e}");
            }
        }
    }
}

/// A function of the module `kernels`, for one lane and for blocks.
type Kernel = (&'static str, fn([f64; 1]) -> [f64; 1], fn([f64; 8]) -> [f64; 8], fn([f64; 16]) -> [f64; 16], Real);

macro_rules! kernels {
    ($($name:ident)*) => {
        const KERNELS: &[Kernel] = &[$((stringify!($name), kernels::$name, kernels::$name, kernels::$name, $name),)*];
    };
}

kernels! { exp ln sin cos tanh sech2 exp_m1 ln_1p logistic softplus sinh cosh }

/// The operands of all stored points, and as many of random bits, one half of
/// them with exponents from −16 to 15.
fn operands_of_any_kind() -> Vec<f64> {
    let mut operands: Vec<f64> = points().iter().map(|point| point.operand(0)).collect();
    let mut state = 1_u64;
    for i in 0..operands.len() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let bits = state ^ (state >> 29);
        let exponent = if i % 2 == 0 { bits & (0x7ff << 52) } else { (1007 + ((bits >> 52) & 31)) << 52 };
        operands.push(f64::from_bits((bits & !(0x7ff << 52)) | exponent));
    }
    operands
}

/// Calls a function of 1 or `L` lanes for all operands.
fn in_blocks<const L: usize>(operands: &[f64], f: impl Fn([f64; L]) -> [f64; L]) -> Vec<f64> {
    let mut results = Vec::new();
    for block in operands.chunks(L) {
        let mut x = [0.25; L];
        x[..block.len()].copy_from_slice(block);
        results.extend_from_slice(&f(x)[..block.len()]);
    }
    results
}

#[test]
fn a_lane_has_the_bits_of_the_function_alone() {
    let operands = operands_of_any_kind();
    // Moved by one, a block holds other lanes beside each operand.
    for operands in [&operands[..], &operands[1..]] {
        for &(name, one, eight, sixteen, alone) in KERNELS {
            let expected: Vec<f64> = operands.iter().map(|&x| alone(x)).collect();
            let blocks = [in_blocks(operands, one), in_blocks(operands, eight), in_blocks(operands, sixteen)];
            for block in blocks {
                for ((&x, &got), &wanted) in operands.iter().zip(&block).zip(&expected) {
                    assert!(same(got, wanted), "{name} at {x:e} is {got:e} in a block and {wanted:e} alone");
                }
            }
        }
        let [sines, cosines] = [0, 1].map(|i| in_blocks::<16>(operands, |x| kernels::sin_cos(x)[i]));
        for ((&x, &sine), &cosine) in operands.iter().zip(&sines).zip(&cosines) {
            assert!(same(sine, sin(x)) && same(cosine, cos(x)), "sin_cos at {x:e}");
        }
    }
}

#[test]
fn bounded_functions_stay_within_their_bounds() {
    for x in operands_of_any_kind().into_iter().filter(|x| x.is_finite()) {
        for (name, f, low) in [
            ("sin", sin as Real, -1.0),
            ("cos", cos, -1.0),
            ("tanh", tanh, -1.0),
            ("logistic", logistic, 0.0),
            ("sech2", sech2, 0.0),
        ] {
            assert!((low..=1.0).contains(&f(x)), "{name}({x:e}) is {:e}", f(x));
        }
        assert!(softplus(x) >= relu(x) && exp(x) >= 0.0 && exp_m1(x) >= -1.0 && cosh(x) >= 1.0, "at {x:e}");
        if x > 0.0 {
            // Half an operand is exact here, and so is its logarithm's place.
            assert!(ln(x) < ln(2.0 * x) || x > MAX / 2.0, "ln at {x:e}");
        }
    }
}

#[test]
fn angles_near_a_multiple_of_a_quarter_turn_keep_their_digits() {
    // The f64 that comes nearest of all, and that within the short reduction.
    let x = 6381956970095103.0 * 2.0_f64.powi(797);
    unary("cos", cos, &[(x, -4.687165924254628e-19), (-x, -4.687165924254628e-19)]);
    unary("sin", sin, &[(x, 1.0), (-x, -1.0)]);
    unary("cos", cos, &[(45.553093477052, -6.189806365883577e-19)]);
    // Either side of the end of the short reduction, to one unit.
    let rows = [
        (25734.999999999996, -0.7998337630611597, 0.6002215853061473),
        (25735.000000000004, -0.7998337630567925, 0.6002215853119669),
    ];
    for (x, sine, cosine) in rows {
        assert!((sin(x) - sine).abs() <= 0.5 * f64::EPSILON && (cos(x) - cosine).abs() <= 0.5 * f64::EPSILON);
    }
}

/// Whether two numbers have the same bits, all NaN being one.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[track_caller]
fn unary(name: &str, f: Real, rows: &[(f64, f64)]) {
    for &(x, wanted) in rows {
        let got = f(x);
        assert!(same(got, wanted), "{name}({x:?}) is {got:?}, not {wanted:?}");
    }
    let got = f(NAN);
    assert!(got.is_nan(), "{name}(NaN) is {got:?}");
}

#[track_caller]
fn binary(name: &str, f: fn(f64, f64) -> f64, rows: &[(f64, f64, f64)]) {
    for &(a, b, wanted) in rows {
        let got = f(a, b);
        assert!(same(got, wanted), "{name}({a:?}, {b:?}) is {got:?}, not {wanted:?}");
    }
}

#[track_caller]
fn ternary(name: &str, f: fn(f64, f64, f64) -> f64, rows: &[(f64, f64, f64, f64)]) {
    for &(a, b, c, wanted) in rows {
        let got = f(a, b, c);
        assert!(same(got, wanted), "{name}({a:?}, {b:?}, {c:?}) is {got:?}, not {wanted:?}");
    }
}

#[test]
fn roots_at_special_values() {
    let rows = [(0.0, 0.0), (-0.0, -0.0), (4.0, 2.0), (-1.0, NAN), (INF, INF), (-INF, NAN)];
    unary("sqrt", sqrt, &rows);
    let rows =
        [(0.0, 0.0), (-0.0, -0.0), (-27.0, -3.0), (INF, INF), (-INF, -INF), (LEAST * 8.0, 3.4063678720065206e-108)];
    unary("cbrt", cbrt, &rows);
    binary(
        "hypot",
        hypot,
        &[
            (0.0, 0.0, 0.0),
            (-0.0, -0.0, 0.0),
            (-3.0, 4.0, 5.0),
            (3.0 * 2.0_f64.powi(600), 4.0 * 2.0_f64.powi(600), 5.0 * 2.0_f64.powi(600)),
            (3.0 * LEAST, 4.0 * LEAST, 5.0 * LEAST),
            (LEAST, 0.0, LEAST),
            (-LEAST, LEAST, LEAST),
            (MAX, 1.0, MAX),
            (MAX, MAX, INF),
            (INF, NAN, INF),
            (NAN, -INF, INF),
            (NAN, 0.0, NAN),
            (1.0, NAN, NAN),
        ],
    );
}

#[test]
fn exponentials_and_logarithms_at_special_values() {
    let rows = [
        (0.0, 1.0),
        (-0.0, 1.0),
        (LEAST, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (MAX, INF),
        (-MAX, 0.0),
        (709.782712893384, 1.7976931348622732e308),
        (709.7827128933841, INF),
        (-745.1332191019411, LEAST),
        (-745.1332191019412, 0.0),
    ];
    unary("exp", exp, &rows);
    let rows = [
        (0.0, 1.0),
        (-0.0, 1.0),
        (-1074.0, LEAST),
        (-1076.0, 0.0),
        (1023.0, 2.0_f64.powi(1023)),
        (1024.0, INF),
        (INF, INF),
        (-INF, 0.0),
    ];
    unary("exp2", exp2, &rows);
    let rows = [(0.0, 0.0), (-0.0, -0.0), (LEAST, LEAST), (-50.0, -1.0), (INF, INF), (-INF, -1.0), (MAX, INF)];
    unary("exp_m1", exp_m1, &rows);
    for (name, f) in [("ln", ln as Real), ("log2", log2), ("log10", log10)] {
        unary(name, f, &[(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (-LEAST, NAN), (-1.0, NAN), (INF, INF), (-INF, NAN)]);
    }
    unary("ln", ln, &[(LEAST, -744.4400719213812), (MAX, 709.782712893384)]);
    unary("log2", log2, &[(8.0, 3.0), (LEAST, -1074.0), (0.125, -3.0)]);
    unary("log10", log10, &[(1000.0, 3.0), (1e22, 22.0)]);
    let rows = [(0.0, 0.0), (-0.0, -0.0), (LEAST, LEAST), (-1.0, -INF), (-1.5, NAN), (INF, INF), (-INF, NAN)];
    unary("ln_1p", ln_1p, &rows);
    binary(
        "log",
        log,
        &[
            (8.0, 2.0, 3.0),
            (1000.0, 10.0, 3.0),
            (81.0, 3.0, 4.0),
            (0.0, 3.0, -INF),
            (0.0, 0.5, INF),
            (1.0, 3.0, 0.0),
            (2.0, 1.0, INF),
            (1.0, 1.0, NAN),
            (2.0, 0.0, -0.0),
            (-1.0, 3.0, NAN),
            (3.0, -1.0, NAN),
            (INF, 3.0, INF),
            (NAN, 3.0, NAN),
            (3.0, NAN, NAN),
            (NAN, 2.0, NAN),
        ],
    );
}

#[test]
fn circular_functions_at_special_values() {
    let zeros = [(0.0, 0.0), (-0.0, -0.0), (LEAST, LEAST), (-LEAST, -LEAST)];
    for (name, f) in [("sin", sin as Real), ("tan", tan)] {
        unary(name, f, &zeros);
        unary(name, f, &[(INF, NAN), (-INF, NAN)]);
    }
    unary("sin", sin, &[(FRAC_PI_2, 1.0), (PI, 1.2246467991473532e-16)]);
    unary("tan", tan, &[(FRAC_PI_2, 16331239353195370.0)]);
    unary(
        "cos",
        cos,
        &[(0.0, 1.0), (-0.0, 1.0), (PI, -1.0), (FRAC_PI_2, 6.123233995736766e-17), (INF, NAN), (-INF, NAN)],
    );
    for x in [0.0, -0.0, LEAST, PI, 1e300, INF, NAN] {
        let (s, c) = sin_cos(x);
        assert!(same(s, sin(x)) && same(c, cos(x)), "at {x:?}");
    }
    for (name, f) in [("asin", asin as Real), ("atan", atan)] {
        unary(name, f, &zeros);
    }
    unary("asin", asin, &[(1.0, FRAC_PI_2), (-1.0, -FRAC_PI_2), (1.0 + f64::EPSILON, NAN), (-INF, NAN), (INF, NAN)]);
    unary(
        "acos",
        acos,
        &[
            (1.0, 0.0),
            (-1.0, PI),
            (0.0, FRAC_PI_2),
            (-0.0, FRAC_PI_2),
            (1.0 + f64::EPSILON, NAN),
            (-2.0, NAN),
            (INF, NAN),
        ],
    );
    unary(
        "atan",
        atan,
        &[(1.0, FRAC_PI_4), (-1.0, -FRAC_PI_4), (INF, FRAC_PI_2), (-INF, -FRAC_PI_2), (MAX, FRAC_PI_2)],
    );
    let three_quarters = 2.356194490192345;
    let rows = [
        (0.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.0, INF, 0.0),
        (0.0, -0.0, PI),
        (0.0, -1.0, PI),
        (0.0, -INF, PI),
        (1.0, 0.0, FRAC_PI_2),
        (1.0, -0.0, FRAC_PI_2),
        (1.0, 1.0, FRAC_PI_4),
        (1.0, -1.0, three_quarters),
        (1.0, INF, 0.0),
        (1.0, -INF, PI),
        (INF, 1.0, FRAC_PI_2),
        (INF, -1.0, FRAC_PI_2),
        (INF, 0.0, FRAC_PI_2),
        (INF, INF, FRAC_PI_4),
        (INF, -INF, three_quarters),
        (LEAST, MAX, 0.0),
        (LEAST, -MAX, PI),
        (MAX, LEAST, FRAC_PI_2),
        (MAX, MAX, FRAC_PI_4),
        (LEAST, LEAST, FRAC_PI_4),
        (LEAST, 1.0, LEAST),
    ];
    binary("atan2", atan2, &rows);
    binary("atan2", atan2, &rows.map(|(y, x, angle)| (-y, x, -angle)));
    binary("atan2", atan2, &[(NAN, 1.0, NAN), (1.0, NAN, NAN), (NAN, INF, NAN), (0.0, NAN, NAN)]);
}

#[test]
fn hyperbolic_functions_at_special_values() {
    let zeros = [(0.0, 0.0), (-0.0, -0.0), (LEAST, LEAST), (-LEAST, -LEAST)];
    for (name, f) in [("sinh", sinh as Real), ("tanh", tanh), ("asinh", asinh), ("atanh", atanh)] {
        unary(name, f, &zeros);
    }
    unary("sinh", sinh, &[(INF, INF), (-INF, -INF), (MAX, INF), (711.0, INF)]);
    unary("cosh", cosh, &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF), (-MAX, INF)]);
    unary("tanh", tanh, &[(INF, 1.0), (-INF, -1.0), (20.0, 1.0), (-19.999, -1.0), (MAX, 1.0)]);
    unary("asinh", asinh, &[(INF, INF), (-INF, -INF)]);
    unary(
        "acosh",
        acosh,
        &[
            (1.0, 0.0),
            (1.0 - f64::EPSILON, NAN),
            (0.0, NAN),
            (-1.0, NAN),
            (-2.0, NAN),
            (-MAX, NAN),
            (INF, INF),
            (-INF, NAN),
        ],
    );
    unary("atanh", atanh, &[(1.0, INF), (-1.0, -INF), (1.5, NAN), (-2.0, NAN), (INF, NAN), (-INF, NAN)]);
}

#[test]
fn inverse_hyperbolic_functions_do_not_overflow() {
    assert!((asinh(MAX) - 710.475860073944).abs() < 1e-12);
    assert!((asinh(-MAX) + 710.475860073944).abs() < 1e-12);
    assert!((acosh(MAX) - 710.475860073944).abs() < 1e-12);
}

#[test]
fn powers_at_special_values() {
    binary(
        "pow",
        pow,
        &[
            (NAN, 0.0, 1.0),
            (0.0, 0.0, 1.0),
            (INF, -0.0, 1.0),
            (1.0, NAN, 1.0),
            (1.0, INF, 1.0),
            (-1.0, INF, 1.0),
            (-1.0, -INF, 1.0),
            (NAN, 1.0, NAN),
            (2.0, NAN, NAN),
            (0.0, 3.0, 0.0),
            (-0.0, 3.0, -0.0),
            (-0.0, 2.0, 0.0),
            (-0.0, 0.5, 0.0),
            (0.0, -1.0, INF),
            (-0.0, -1.0, -INF),
            (-0.0, -2.0, INF),
            (-8.0, 1.0 / 3.0, NAN),
            (-2.0, 3.0, -8.0),
            (-2.0, -2.0, 0.25),
            (2.0, INF, INF),
            (2.0, -INF, 0.0),
            (0.5, INF, 0.0),
            (0.5, -INF, INF),
            (INF, 2.0, INF),
            (INF, -2.0, 0.0),
            (-INF, 3.0, -INF),
            (-INF, 2.0, INF),
            (-INF, -3.0, -0.0),
            (MAX, 2.0, INF),
            (-MAX, 3.0, -INF),
            (2.0, -1074.0, LEAST),
            (2.0, -1076.0, 0.0),
            // Large exponents near one, where the sign needs their parity.
            (1.0 + f64::EPSILON, 1e19, INF),
            (1.0 + f64::EPSILON, -1e19, 0.0),
            (-1.0 - f64::EPSILON, 9007199254740991.0, -7.389056098930647),
            (-1.0 - f64::EPSILON, 9007199254740992.0, 7.389056098930649),
            (-1.0 - f64::EPSILON, 2147483648.5, NAN),
            (-1.0, 9007199254740991.0, -1.0),
            (-1.0, 9007199254740992.0, 1.0),
            (-1.0, 2147483648.5, NAN),
        ],
    );
    let rows = [
        (NAN, 0, 1.0),
        (0.0, 0, 1.0),
        (-INF, 0, 1.0),
        (NAN, 1, NAN),
        (NAN, -3, NAN),
        (-0.0, 1, -0.0),
        (-0.0, 2, 0.0),
        (-0.0, 3, -0.0),
        (0.0, -1, INF),
        (-0.0, -1, -INF),
        (-0.0, -2, INF),
        (-0.0, -3, -INF),
        (-0.0, -5, -INF),
        (INF, 3, INF),
        (-INF, 3, -INF),
        (-INF, 2, INF),
        (INF, -2, 0.0),
        (-INF, -3, -0.0),
        (-INF, -5, -0.0),
        (-2.0, 3, -8.0),
        (-2.0, -3, -0.125),
        (3.0, 5, 243.0),
        (2.0, 1023, 2.0_f64.powi(1023)),
        (2.0, 1024, INF),
        (2.0, -1074, LEAST),
        (2.0, -1075, 0.0),
        (-2.0, -1073, -2.0 * LEAST),
        (0.5, 1074, LEAST),
        (0.5, -1023, 2.0_f64.powi(1023)),
        (0.5, -1024, INF),
        (MAX, 3, INF),
        (-MAX, 3, -INF),
        (MAX, -3, 0.0),
        (LEAST, 3, 0.0),
        (LEAST, -2, INF),
        (-LEAST, -3, -INF),
        (1.0, i64::MIN, 1.0),
        (-1.0, i64::MIN, 1.0),
        (-1.0, i64::MAX, -1.0),
        (2.0, i64::MIN, 0.0),
        (0.5, i64::MIN, INF),
        (2.0, i64::MAX, INF),
        (0.0, i64::MIN, INF),
        (INF, i64::MIN, 0.0),
        (NAN, i64::MIN, NAN),
    ];
    for (x, n, wanted) in rows {
        let got = powi(x, n);
        assert!(same(got, wanted), "powi({x:?}, {n}) is {got:?}, not {wanted:?}");
    }
}

#[test]
fn the_error_function_at_special_values() {
    unary("erf", erf, &[(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (7.0, 1.0), (LEAST, LEAST)]);
    unary("erfc", erfc, &[(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0), (30.0, 0.0), (-7.0, 2.0), (MAX, 0.0)]);
}

#[test]
fn the_logistic_family_at_special_values() {
    unary(
        "logistic",
        logistic,
        &[(0.0, 0.5), (-0.0, 0.5), (1000.0, 1.0), (-1000.0, 0.0), (INF, 1.0), (-INF, 0.0), (MAX, 1.0), (-745.0, LEAST)],
    );
    unary(
        "softplus",
        softplus,
        &[
            (0.0, LN_2),
            (-0.0, LN_2),
            (1000.0, 1000.0),
            (-1000.0, 0.0),
            (INF, INF),
            (-INF, 0.0),
            (MAX, MAX),
            (-745.0, LEAST),
        ],
    );
    let rows = [
        (0.0, 0.0, LN_2),
        (-INF, -INF, -INF),
        (-INF, 3.0, 3.0),
        (-INF, -3.0, -3.0),
        (INF, -INF, INF),
        (INF, 3.0, INF),
        (INF, INF, INF),
        (MAX, MAX, MAX),
        (MAX, -MAX, MAX),
        (-MAX, -MAX, -MAX),
        (1000.0, 0.0, 1000.0),
        (NAN, 0.0, NAN),
        (NAN, INF, NAN),
        (NAN, -INF, NAN),
        (-LEAST, -INF, -LEAST),
        (-LEAST, -1000.0, -LEAST),
        (-LEAST, -744.4400719213812, 0.0),
        (-1e-300, -1e-300, LN_2),
        (-LN_2, -LN_2, 2.3190468138462996e-17),
    ];
    binary("logaddexp", logaddexp, &rows);
    binary("logaddexp", logaddexp, &rows.map(|(a, b, c)| (b, a, c)));
    unary(
        "xlogx",
        xlogx,
        &[(0.0, 0.0), (-0.0, 0.0), (1.0, 0.0), (-LEAST, NAN), (-1.0, NAN), (INF, INF), (-INF, NAN), (MAX, INF)],
    );
    binary(
        "logistic_difference",
        logistic_difference,
        &[
            (1.0, 1.0, 0.5),
            (0.0, -0.0, 0.5),
            (-INF, -INF, 0.0),
            (INF, INF, 0.5),
            (INF, 3.0, 1.0),
            (3.0, INF, 0.0),
            (-INF, 3.0, 0.0),
            (3.0, -INF, 1.0),
            (INF, -INF, 1.0),
            (-INF, INF, 0.0),
            (MAX, -MAX, 1.0),
            (-MAX, MAX, 0.0),
            (NAN, 1.0, NAN),
            (1.0, NAN, NAN),
            (INF, NAN, NAN),
        ],
    );
}

#[test]
fn arithmetic_at_special_values() {
    ternary(
        "mul_add",
        mul_add,
        &[
            (INF, 0.0, 1.0, NAN),
            (2.0, 3.0, 4.0, 10.0),
            (MAX, 2.0, -MAX, MAX),
            (INF, 1.0, -INF, NAN),
            (1.0, -0.0, 0.0, 0.0),
            (1.0, -0.0, -0.0, -0.0),
            (1.0, 2.0, NAN, NAN),
            (1.0 + f64::EPSILON, 1.0 - f64::EPSILON, -1.0, -f64::EPSILON * f64::EPSILON),
        ],
    );
    binary(
        "rem",
        rem,
        &[
            (5.5, 2.0, 1.5),
            (-5.5, 2.0, -1.5),
            (5.5, -2.0, 1.5),
            (-4.0, 2.0, -0.0),
            (1.0, 0.0, NAN),
            (INF, 2.0, NAN),
            (3.0, INF, 3.0),
            (-3.0, -INF, -3.0),
            (-0.0, 2.0, -0.0),
            (NAN, 1.0, NAN),
            (1.0, NAN, NAN),
        ],
    );
    binary(
        "chain_mul",
        chain_mul,
        &[
            (0.0, INF, 0.0),
            (INF, -0.0, 0.0),
            (0.0, NAN, 0.0),
            (NAN, -0.0, 0.0),
            (-0.0, 3.0, -0.0),
            (INF, 2.0, INF),
            (INF, NAN, NAN),
            (NAN, 1.0, NAN),
            (LEAST, 0.25, 0.0),
            (LEAST, INF, INF),
        ],
    );
    binary(
        "chain_div",
        chain_div,
        &[
            (0.0, 0.0, 0.0),
            (-0.0, 0.0, 0.0),
            (0.0, NAN, 0.0),
            (-0.0, NAN, 0.0),
            (-0.0, 3.0, -0.0),
            (1.0, 0.0, INF),
            (1.0, -0.0, -INF),
            (NAN, 1.0, NAN),
            (1.0, NAN, NAN),
            (INF, INF, NAN),
            (0.0, INF, 0.0),
        ],
    );
    ternary(
        "domain",
        domain,
        &[
            (2.0, 1.0, 3.0, 2.0),
            (2.0, NAN, 3.0, NAN),
            (2.0, NAN, NAN, 2.0),
            (2.0, 1.0, NAN, 2.0),
            (INF, INF, INF, INF),
            (-0.0, 0.0, 0.0, -0.0),
            (2.0, NAN, INF, NAN),
        ],
    );
}

#[test]
fn functions_in_pieces_at_special_values() {
    unary("relu", relu, &[(0.0, 0.0), (-0.0, 0.0), (2.0, 2.0), (-2.0, 0.0), (LEAST, LEAST), (INF, INF), (-INF, 0.0)]);
    unary("sign", sign, &[(0.0, 0.0), (-0.0, 0.0), (LEAST, 1.0), (-LEAST, -1.0), (INF, 1.0), (-INF, -1.0)]);
    unary("signum", signum, &[(0.0, 1.0), (-0.0, -1.0), (LEAST, 1.0), (-LEAST, -1.0), (INF, 1.0), (-INF, -1.0)]);
    binary(
        "copysign",
        copysign,
        &[
            (1.0, -0.0, -1.0),
            (-1.0, 0.0, 1.0),
            (-INF, 1.0, INF),
            (0.0, -2.0, -0.0),
            (NAN, -1.0, NAN),
            (1.0, -NAN.abs(), NAN),
            (1.0, NAN, NAN),
        ],
    );
    let whole = [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (MAX, MAX), (3.0, 3.0)];
    for (name, f) in [
        ("floor", floor as Real),
        ("ceil", ceil),
        ("round", round),
        ("trunc", trunc),
        ("round_ties_even", round_ties_even),
    ] {
        unary(name, f, &whole);
    }
    unary("floor", floor, &[(-0.5, -1.0), (0.5, 0.0), (LEAST, 0.0), (-LEAST, -1.0)]);
    unary("ceil", ceil, &[(-0.5, -0.0), (0.5, 1.0), (LEAST, 1.0), (-LEAST, -0.0)]);
    unary("round", round, &[(0.5, 1.0), (-0.5, -1.0), (2.5, 3.0), (0.49999999999999994, 0.0), (-0.4, -0.0)]);
    unary("trunc", trunc, &[(1.9, 1.0), (-1.9, -1.0), (-0.9, -0.0)]);
    unary(
        "round_ties_even",
        round_ties_even,
        &[(0.5, 0.0), (-0.5, -0.0), (1.5, 2.0), (2.5, 2.0), (-2.5, -2.0), (0.49999999999999994, 0.0)],
    );
    let order = [
        (0.0, -0.0, 0.0),
        (1.0, 2.0, 2.0),
        (-INF, INF, INF),
        (NAN, 1.0, NAN),
        (NAN, INF, NAN),
        (-0.0, -0.0, -0.0),
        (0.0, 0.0, 0.0),
        (-LEAST, -0.0, -0.0),
    ];
    binary("max", max, &order);
    binary("max", max, &order.map(|(a, b, c)| (b, a, c)));
    binary("min", min, &order.map(|(a, b, c)| (-a, -b, -c)));
    binary("min", min, &order.map(|(a, b, c)| (-b, -a, -c)));
    ternary(
        "clamp",
        clamp,
        &[
            (0.5, 0.0, 1.0, 0.5),
            (-1.0, 0.0, 1.0, 0.0),
            (2.0, 0.0, 1.0, 1.0),
            (0.5, 1.0, 0.0, NAN),
            (NAN, 0.0, 1.0, NAN),
            (0.5, NAN, 1.0, NAN),
            (0.5, 0.0, NAN, NAN),
            (-0.0, 0.0, 1.0, -0.0),
            (5.0, 2.0, 2.0, 2.0),
            (INF, -INF, INF, INF),
            (-INF, -1.0, INF, -1.0),
        ],
    );
    ternary(
        "inside",
        inside,
        &[
            (0.5, 0.0, 1.0, 1.0),
            (0.0, 0.0, 1.0, 1.0),
            (1.0, 0.0, 1.0, 1.0),
            (-0.0, 0.0, 1.0, 1.0),
            (1.5, 0.0, 1.0, 0.0),
            (-LEAST, 0.0, 1.0, 0.0),
            (0.5, 1.0, 0.0, NAN),
            (NAN, 0.0, 1.0, NAN),
            (0.5, NAN, 1.0, NAN),
            (0.5, 0.0, NAN, NAN),
            (INF, -INF, INF, 1.0),
        ],
    );
    binary(
        "exceeds",
        exceeds,
        &[
            (1.0, 0.0, 1.0),
            (0.0, 1.0, 0.0),
            (1.0, 1.0, 0.0),
            (0.0, -0.0, 0.0),
            (INF, INF, 0.0),
            (INF, MAX, 1.0),
            (NAN, 1.0, NAN),
            (1.0, NAN, NAN),
        ],
    );
    binary(
        "heaviside_difference",
        heaviside_difference,
        &[
            (1.0, 0.0, 1.0),
            (0.0, 1.0, 0.0),
            (1.0, 1.0, 0.5),
            (0.0, -0.0, 0.5),
            (INF, INF, 0.5),
            (-INF, -INF, 0.5),
            (NAN, 1.0, NAN),
            (1.0, NAN, NAN),
        ],
    );
}

#[test]
fn derivatives_at_special_values() {
    unary(
        "sech2",
        sech2,
        &[(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 0.0), (MAX, 0.0), (373.0, LEAST), (374.0, 0.0)],
    );
    unary(
        "gauss",
        gauss,
        &[(0.0, FRAC_2_SQRT_PI), (-0.0, FRAC_2_SQRT_PI), (INF, 0.0), (-INF, 0.0), (MAX, 0.0), (27.4, 0.0)],
    );
    unary(
        "one_plus_ln",
        one_plus_ln,
        &[
            (1.0, 1.0),
            (0.0, -INF),
            (-0.0, -INF),
            (-1.0, NAN),
            (INF, INF),
            (-INF, NAN),
            (0.36787944117144233, 3.3784855259134224e-17),
        ],
    );
    unary(
        "lorentz",
        lorentz,
        &[(0.0, 1.0), (-0.0, 1.0), (1.0, 0.5), (INF, 0.0), (-INF, 0.0), (MAX, 0.0), (1e160, 1e-320)],
    );
}
