//! Taylor coefficients: closed forms, and the drivers and derivative tapes,
//! for every operation of the table and for random programs.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::ops::{Add, Div, Mul, Neg, Sub};

use ad_core::ops::Operation;
use ad_core::{Answer, Error, Matrix, Op, Question, Rule, Tape, Var, Workspace};
use common::programs::{Program, Purpose, Random, call, operands_of};
use common::{assert_equal, assert_same, product, takes_constant};

/// The order of the closed forms.
const ORDER: usize = 20;

// Closed forms.

/// A truncated series, by the textbook's recurrence for each function.
#[derive(Debug, Clone, PartialEq)]
struct Series(Vec<f64>);

impl Series {
    fn new(coefficient: impl Fn(usize) -> f64) -> Series {
        Series((0..=ORDER).map(coefficient).collect())
    }

    /// x + t.
    fn variable(x: f64) -> Series {
        Series::line(x, 1.0)
    }

    /// x + p·t.
    fn line(x: f64, p: f64) -> Series {
        Series::new(|k| [x, p].get(k).copied().unwrap_or(0.0))
    }

    fn constant(c: f64) -> Series {
        Series::line(c, 0.0)
    }

    fn derivative(&self) -> Series {
        Series::new(|k| self.0.get(k + 1).map_or(0.0, |c| c * (k + 1) as f64))
    }

    /// The series with this derivative and value.
    fn integral(&self, value: f64) -> Series {
        Series::new(|k| if k == 0 { value } else { self.0[k - 1] / k as f64 })
    }

    /// The series with the value `value`, each coefficient from those before it.
    fn recurrence(value: f64, next: impl Fn(usize, &[f64]) -> f64) -> Series {
        let mut series = vec![value];
        for k in 1..=ORDER {
            series.push(next(k, &series));
        }
        Series(series)
    }

    /// v′ = v·x′.
    fn exp(&self) -> Series {
        let weighted = |k: usize, v: &[f64]| (1..=k).map(|j| j as f64 * self.0[j] * v[k - j]).sum::<f64>();
        Series::recurrence(self.0[0].exp(), |k, v| weighted(k, v) / k as f64)
    }

    fn ln(&self) -> Series {
        (self.derivative() / self.clone()).integral(self.0[0].ln())
    }

    fn quotient(&self, other: &Series) -> Series {
        let known = |k: usize, v: &[f64]| (0..k).map(|j| v[j] * other.0[k - j]).sum::<f64>();
        Series::recurrence(self.0[0] / other.0[0], |k, v| (self.0[k] - known(k, v)) / other.0[0])
    }

    fn sqrt(&self) -> Series {
        let root = self.0[0].sqrt();
        let squares = |k: usize, v: &[f64]| (1..k).map(|j| v[j] * v[k - j]).sum::<f64>();
        Series::recurrence(root, |k, v| (self.0[k] - squares(k, v)) / (2.0 * root))
    }
}

impl Add for Series {
    type Output = Series;
    fn add(self, other: Series) -> Series {
        Series::new(|k| self.0[k] + other.0[k])
    }
}

impl Sub for Series {
    type Output = Series;
    fn sub(self, other: Series) -> Series {
        Series::new(|k| self.0[k] - other.0[k])
    }
}

impl Neg for Series {
    type Output = Series;
    fn neg(self) -> Series {
        Series::new(|k| -self.0[k])
    }
}

impl Mul for Series {
    type Output = Series;
    fn mul(self, other: Series) -> Series {
        Series::new(|k| (0..=k).map(|j| self.0[j] * other.0[k - j]).sum())
    }
}

impl Div for Series {
    type Output = Series;
    fn div(self, other: Series) -> Series {
        self.quotient(&other)
    }
}

fn one() -> Series {
    Series::constant(1.0)
}

/// Compares the series of `f` along x + t·p with another one: each coefficient
/// within 10⁻¹³ of the largest of itself and its neighbours.
#[track_caller]
fn check_series(x: &[f64], p: &[f64], f: impl FnOnce(&[Var]) -> Var, expected: &Series) {
    const TOLERANCE: f64 = 1e-13;
    let tape = Tape::record(x, f).unwrap();
    let series = tape.taylor(x, p, ORDER).unwrap();
    assert_eq!((series.rows(), series.cols()), (1, ORDER + 1));
    let Series(expected) = expected;
    for (k, (c, e)) in series.row(0).iter().zip(expected).enumerate() {
        let neighbours = &expected[k.saturating_sub(1)..(k + 2).min(expected.len())];
        let scale = neighbours.iter().fold(0.0, |scale: f64, e| scale.max(e.abs()));
        assert!((c - e).abs() <= TOLERANCE * scale, "c{k} is {c}, not {e}, of\n{tape}");
    }
}

#[track_caller]
fn check_function(x: f64, f: impl FnOnce(Var) -> Var, expected: &Series) {
    check_series(&[x], &[1.0], |x| f(x[0]), expected);
}

fn factorial(k: usize) -> f64 {
    (1..=k).map(|i| i as f64).product()
}

/// (x + t)^c.
fn power(x: f64, c: f64) -> Series {
    Series::new(|k| (0..k).map(|i| (c - i as f64) / (i as f64 + 1.0)).product::<f64>() * x.powf(c - k as f64))
}

#[test]
fn exponentials_have_their_series() {
    check_function(0.3, |x| x.exp(), &Series::new(|k| 0.3f64.exp() / factorial(k)));
    check_function(0.3, |x| x.exp_m1(), &(Series::variable(0.3).exp() - one()));
    let ln_2 = std::f64::consts::LN_2;
    check_function(0.3, |x| x.exp2(), &Series::new(|k| 0.3f64.exp2() * ln_2.powi(k as i32) / factorial(k)));
    let x = Series::variable(0.4);
    let (up, down) = (x.exp(), (-x).exp());
    let half = Series::constant(0.5);
    check_function(0.4, |x| x.sinh(), &(half.clone() * (up.clone() - down.clone())));
    check_function(0.4, |x| x.cosh(), &(half * (up.clone() + down.clone())));
    check_function(0.4, |x| x.logistic(), &(one() / (one() + down)));
    check_function(0.4, |x| x.softplus(), &(one() + up.clone()).ln());
    let pair = (up + Series::line(0.7, -2.0).exp()).ln();
    check_series(&[0.4, 0.7], &[1.0, -2.0], |x| x[0].logaddexp(x[1]), &pair);
}

#[test]
fn logarithms_have_their_series() {
    let alternating = Series::new(|k| if k == 0 { 0.0 } else { -(-1f64).powi(k as i32) / k as f64 });
    check_function(1.0, |x| x.ln(), &alternating);
    check_function(0.0, |x| x.ln_1p(), &alternating);
    let ln = Series::variable(1.5).ln();
    check_function(1.5, |x| x.ln(), &ln);
    check_function(1.5, |x| x.log2(), &(ln.clone() / Series::constant(2f64.ln())));
    check_function(1.5, |x| x.log10(), &(ln.clone() / Series::constant(10f64.ln())));
    check_series(&[1.5, 3.0], &[1.0, 0.5], |x| x[0].log(x[1]), &(ln.clone() / Series::line(3.0, 0.5).ln()));
    check_function(1.5, |x| x.xlogx(), &(Series::variable(1.5) * ln.clone()));
    check_series(&[0.2, 1.5], &[-1.0, 1.0], |x| x[0].xlogy(x[1]), &(Series::line(0.2, -1.0) * ln));
}

#[test]
fn angles_have_their_series() {
    let quarter = |k: usize| [0.7f64.sin(), 0.7f64.cos(), -0.7f64.sin(), -0.7f64.cos()][k % 4] / factorial(k);
    check_function(0.7, |x| x.sin(), &Series::new(quarter));
    check_function(0.7, |x| x.cos(), &Series::new(|k| quarter(k + 1) * factorial(k + 1) / factorial(k)));
    let (sin, cos) = (Series::new(quarter), Series::new(|k| quarter(k + 1) * (k + 1) as f64));
    check_function(0.7, |x| x.sin_cos().0, &sin);
    check_function(0.7, |x| x.sin_cos().1, &cos);
    check_function(0.7, |x| x.tan(), &(sin / cos));
    let squares = |k: usize, v: &[f64]| (0..k).map(|j| v[j] * v[k - 1 - j]).sum::<f64>();
    // v′ = 1 − v².
    let tanh = Series::recurrence(0.4f64.tanh(), |k, v| (f64::from(k == 1) - squares(k, v)) / k as f64);
    check_function(0.4, |x| x.tanh(), &tanh);
}

#[test]
fn inverse_functions_have_their_series() {
    let x = Series::variable(0.3);
    let square = x.clone() * x.clone();
    let slope = one() / (one() - square.clone()).sqrt();
    check_function(0.3, |x| x.asin(), &slope.integral(0.3f64.asin()));
    check_function(0.3, |x| x.acos(), &(-slope).integral(0.3f64.acos()));
    check_function(0.3, |x| x.atan(), &(one() / (one() + square.clone())).integral(0.3f64.atan()));
    check_function(0.3, |x| x.asinh(), &(one() / (one() + square.clone()).sqrt()).integral(0.3f64.asinh()));
    check_function(0.3, |x| x.atanh(), &(one() / (one() - square)).integral(0.3f64.atanh()));
    let x = Series::variable(1.8);
    let slope = one() / (x.clone() * x.clone() - one()).sqrt();
    check_function(1.8, |x| x.acosh(), &slope.integral(1.8f64.acosh()));
    // atan2(y, x) = atan(y/x) for x > 0, along (y, x) = (1 + t, 2 − t).
    let (y, x) = (Series::line(1.0, 1.0), Series::line(2.0, -1.0));
    let ratio = y.clone() / x.clone();
    let angle = (ratio.derivative() / (one() + ratio.clone() * ratio)).integral(1f64.atan2(2.0));
    check_series(&[1.0, 2.0], &[1.0, -1.0], |x| x[0].atan2(x[1]), &angle);
    check_series(&[1.0, 2.0], &[1.0, -1.0], |x| x[0].hypot(x[1]), &(x.clone() * x + y.clone() * y).sqrt());
}

#[test]
fn powers_have_their_series() {
    check_function(2.0, |x| x.sqrt(), &power(2.0, 0.5));
    check_function(2.0, |x| x.cbrt(), &power(2.0, 1.0 / 3.0));
    check_function(2.0, |x| x.recip(), &power(2.0, -1.0));
    for n in [0, 1, 2, 5, 12, -1, -3] {
        check_function(2.0, |x| x.powi(n), &power(2.0, f64::from(n)));
        check_function(2.0, |x| x.powf(f64::from(n)), &power(2.0, f64::from(n)));
    }
    check_function(2.0, |x| x.powf(2.5), &power(2.0, 2.5));
    check_function(2.0, |x| x.powf(-0.25), &power(2.0, -0.25));
    // At 0 a whole power ends, and is exact there.
    check_function(0.0, |x| x.powi(3), &Series::new(|k| f64::from(k == 3)));
    check_function(0.0, |x| x.powf(3.0), &Series::new(|k| f64::from(k == 3)));
    let exponent = Series::line(1.5, 0.5);
    check_series(&[2.0, 1.5], &[1.0, 0.5], |x| x[0].pow(x[1]), &(exponent * Series::variable(2.0).ln()).exp());
    check_series(
        &[2.0],
        &[1.0],
        |x| Var::from(3.0).pow(x[0]),
        &(Series::variable(2.0) * Series::constant(3.0).ln()).exp(),
    );
}

#[test]
fn series_end_where_the_table_knows_no_further_derivative() {
    let series = |f: fn(Var) -> Var| {
        let tape = Tape::record(&[1.5], |x| f(x[0])).unwrap();
        tape.taylor(&[1.5], &[1.0], 110).unwrap().into_vec()
    };
    let known = |series: Vec<f64>| series.iter().take_while(|c| c.is_finite()).count() - 1;
    assert_eq!(known(series(|x| x.powf(0.5))), 30);
    assert_eq!(known(series(|x| x.powf(3.0))), 30);
    assert_eq!(known(series(|x| x.pow(x))), 30);
    assert_eq!(known(series(|x| x.hypot(1.0))), 102);
    assert_eq!(known(series(|x| x.atan2(1.0))), 100);
    assert_eq!(known(series(|x| x.lgamma())), 101);
    let unlimited: [fn(Var) -> Var; 5] = [|x| x.sqrt(), |x| x.powi(-3), |x| x.cbrt(), |x| x.exp2(), |x| x.tanh()];
    for f in unlimited {
        assert_eq!(known(series(f)), 110);
    }
}

#[test]
fn special_functions_have_their_series() {
    let x = Series::variable(0.5);
    let gauss = Series::constant(std::f64::consts::FRAC_2_SQRT_PI) * (-(x.clone() * x)).exp();
    check_function(0.5, |x| x.erf(), &gauss.integral(Rule::erf(0.5)));
    check_function(0.5, |x| x.erfc(), &(-gauss).integral(Rule::erfc(0.5)));
    let lgamma = Series::new(|k| match k {
        0 => Rule::lgamma(2.5),
        1 => Rule::digamma(2.5),
        _ => Rule::polygamma(2.5, (k - 1) as f64) / factorial(k),
    });
    check_function(2.5, |x| x.lgamma(), &lgamma);
    check_function(
        2.5,
        |x| x.digamma(),
        &lgamma.derivative_of_full(Rule::polygamma(2.5, ORDER as f64) / factorial(ORDER)),
    );
}

impl Series {
    /// The derivative, with the last coefficient that the series does not know.
    fn derivative_of_full(&self, last: f64) -> Series {
        Series::new(|k| if k == ORDER { last } else { self.derivative().0[k] })
    }
}

#[test]
fn compositions_have_their_series() {
    let (x, y) = (Series::line(0.8, 1.0), Series::line(1.3, -0.5));
    let f = |x: &[Var]| (x[0] * x[1]).exp() / (x[0] + 2.0 - x[1] / 3.0) - (x[0] * x[0] + x[1]).sqrt() * x[1].ln();
    let expected = (x.clone() * y.clone()).exp()
        / (x.clone() + Series::constant(2.0) - y.clone() / Series::constant(3.0))
        - (x.clone() * x + y.clone()).sqrt() * y.ln();
    check_series(&[0.8, 1.3], &[1.0, -0.5], f, &expected);
    let folds = |x: &[Var]| Var::sum_of(&[x[0], x[1], x[0]]) * Var::dot(&[x[0], x[1]], &[x[1], x[1]]);
    let (x, y) = (Series::line(0.8, 1.0), Series::line(1.3, -0.5));
    let expected = (x.clone() + y.clone() + x.clone()) * (x * y.clone() + y.clone() * y);
    check_series(&[0.8, 1.3], &[1.0, -0.5], folds, &expected);
}

#[test]
fn what_has_no_rounding_is_exact() {
    let tape = Tape::record(&[1.0], |x| 1.0 / (2.0 - x[0])).unwrap();
    assert_eq!(tape.taylor(&[1.0], &[1.0], ORDER).unwrap().row(0), [1.0; ORDER + 1]);
    // (1 + t)⁴·(1 − t) by products of whole numbers.
    let polynomial = |x: &[Var]| x[0] * x[0] * x[0] * x[0] * (2.0 - x[0]) + x[0].powi(4) - x[0].powf(4.0);
    let tape = Tape::record(&[1.0], polynomial).unwrap();
    assert_eq!(tape.taylor(&[1.0], &[1.0], 7).unwrap().row(0), [1.0, 3.0, 2.0, -2.0, -3.0, -1.0, 0.0, 0.0]);
    // A multiple of a series is that of each coefficient, by whatever takes a constant or a parameter.
    let record = |f: fn(Var, Var) -> Var| {
        let builder = Tape::builder().inputs(&[], &[0.9]).params(&[], &[0.7]);
        let tape = builder.record(|x, k| f(x[0].exp(), k[0])).unwrap();
        tape.taylor(&[0.9], &[1.3], ORDER).unwrap().into_vec()
    };
    let exp = record(|x, _| x);
    let by = |factor: f64| exp.iter().map(|c| factor * c).collect::<Vec<f64>>();
    assert_same(&record(|x, _| x * 0.7), &by(0.7), "times a constant");
    assert_same(&record(|x, k| x * k), &by(0.7), "times a parameter");
    assert_same(&record(|x, k| Var::dot(&[x], &[k])), &by(0.7), "a dot product with a parameter");
    assert_same(&record(|x, _| -x), &by(-1.0), "the negative");
    assert_same(&record(|x, _| x + x), &by(2.0), "the sum with itself");
    assert_same(&record(|x, k| x - k)[1..], &exp[1..], "less a parameter");
    assert_same(&record(|x, k| x.mul_add(2.0, k))[1..], &by(2.0)[1..], "twice it, fused");
    assert_same(&record(|x, k| Var::sum_of(&[x, k, x]))[1..], &by(2.0)[1..], "a sum");
}

#[test]
fn a_whole_series_of_a_linear_function_ends_after_the_tangent() {
    let tape = Tape::record(&[0.3, 0.1], |x| {
        [x[0] * 3.0 - x[1] / 7.0 + 1.0, Var::sum_of(&[x[1], x[0]]), Var::from(2.0), x[1]]
    })
    .unwrap();
    let (x, p) = ([0.3, 0.1], [1.1, -2.3]);
    let series = tape.taylor(&x, &p, 5).unwrap();
    let (y, dy) = tape.jvp(&x, &p).unwrap();
    for i in 0..4 {
        assert_eq!(series.row(i), [y[i], dy[i], 0.0, 0.0, 0.0, 0.0]);
    }
}

// Beside the drivers and derivative tapes.

/// A number with a bound of its rounding error, to first order: what a row's
/// operands have, times its partials, and a unit in the last place of its own.
#[derive(Debug, Clone, Copy)]
struct Bounded {
    v: f64,
    error: f64,
}

impl Bounded {
    fn new<const N: usize>(v: f64, x: [Bounded; N], partial: impl Fn(usize) -> f64) -> Bounded {
        let passed = (0..N).filter(|&i| x[i].error > 0.0).map(|i| partial(i).abs() * x[i].error);
        Bounded { v, error: passed.fold(f64::EPSILON * v.abs(), |sum, error| sum + error) }
    }
}

impl From<f64> for Bounded {
    fn from(v: f64) -> Bounded {
        Bounded { v, error: 0.0 }
    }
}

impl Rule for Bounded {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let numbers = x.map(|x| x.v);
        let v = O::value(numbers);
        std::array::from_fn(|j| Bounded::new(v[j], x, |i| O::partial(j, i, numbers, v)))
    }

    fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        f64::confirm(question, answer, a.v, b.v)
    }
}
ad_core::rule_operators!([] Bounded);

/// f and its first three derivatives along x + t·p by derivative tapes of
/// derivative tapes.
struct Nested([Tape; 4]);

impl Nested {
    fn new(tape: &Tape) -> Nested {
        let first = tape.jvp_tape().unwrap();
        let second = first.jvp_tape().unwrap();
        let third = second.jvp_tape().unwrap();
        Nested([tape.clone(), first, second, third])
    }

    fn with_params(&self, k: &[f64]) -> Nested {
        Nested(std::array::from_fn(|i| self.0[i].with_params(k).unwrap()))
    }

    /// Derivative `order`: the inputs of a tape and then their tangents, where
    /// x has the tangent p and p has none.
    fn derivative(&self, order: usize, x: &[f64], p: &[f64]) -> Vec<Bounded> {
        let mut at = x.to_vec();
        let mut tangent = p.to_vec();
        for _ in 0..order {
            let zeros = vec![0.0; at.len()];
            at.extend_from_slice(&tangent);
            tangent.extend_from_slice(&zeros);
        }
        let at: Vec<Bounded> = at.into_iter().map(Bounded::from).collect();
        self.0[order].eval_with(&at).unwrap()
    }
}

/// What was compared, so that a test cannot pass because nothing is.
#[derive(Debug, Default)]
struct Seen {
    points: usize,
    not_finite: usize,
    higher: usize,
    changed: usize,
    /// Those of the higher coefficients whose bound is small beside them, zeros not counted.
    sharp: usize,
}

/// Compares with the drivers, and where all is finite with the nested tapes.
fn check_with_tapes(nested: &Nested, x: &[f64], p: &[f64], ws: &mut Workspace, seen: &mut Seen) {
    let tape = &nested.0[0];
    let mut series = Matrix::default();
    let expected = tape.jvp(x, p);
    if let Err(error) = tape.taylor_into(ws, x, p, 3, &mut series) {
        seen.changed += 1;
        assert_eq!(error.to_string(), expected.unwrap_err().to_string());
        return;
    }
    let (y, dy) = expected.unwrap();
    let column = |k: usize| (0..tape.num_outputs()).map(|i| series[(i, k)]).collect::<Vec<f64>>();
    let what = |k: usize| format!("c{k} at {x:?} along {p:?} of\n{tape}");
    assert_same(&column(0), &y, what(0));
    assert_equal(&column(1), &dy, what(1));
    seen.points += 1;
    let derivatives = [2, 3].map(|order| nested.derivative(order, x, p));
    for i in 0..y.len() {
        if !y[i].is_finite() || !dy[i].is_finite() || !derivatives.iter().all(|d| d[i].error.is_finite()) {
            seen.not_finite += 1;
            continue;
        }
        for (k, factorial) in [(2, 2.0), (3, 6.0)] {
            let (c, e) = (series[(i, k)], derivatives[k - 2][i]);
            let (e, error) = (e.v / factorial, e.error / factorial);
            let bound = error + f64::MIN_POSITIVE;
            assert!((c - e).abs() <= bound, "{c:?} is not {e:?} ± {bound:?}: {}", what(k));
            seen.sharp += usize::from(error <= 1e-13 * e.abs());
            seen.higher += 1;
        }
    }
}

#[test]
fn every_operation_agrees_with_its_derivative_tapes_at_the_probe_points() {
    let (mut seen, mut ws) = (Seen::default(), Workspace::new());
    for &op in Op::ALL {
        let probes = op.info().probes;
        let count = operands_of(op);
        let constants = if takes_constant(op) { probes[count] } else { &[0.0] };
        for &c in constants {
            let tape = Tape::record(&vec![0.75; count], |x| call(op, x, c)).unwrap();
            let nested = Nested::new(&tape);
            for x in product(&probes[..count]) {
                for p in [[1.0, 0.5, -0.75, 2.0], [0.0, 1.0, 0.0, 3.0]] {
                    check_with_tapes(&nested, &x, &p[..count], &mut ws, &mut seen);
                }
            }
        }
    }
    let Seen { points, not_finite, higher, .. } = seen;
    assert!(higher > points && seen.sharp > higher / 5 && not_finite > 0, "{seen:?}");
}

#[test]
fn random_programs_agree_with_their_derivative_tapes() {
    const PROGRAMS: usize = 300;
    let (mut seen, mut ws) = (Seen::default(), Workspace::new());
    for index in 0..PROGRAMS {
        let random = &mut Random::new(17, index);
        let purpose = Purpose { single: false, params: false, guarded: 20, calls: 0 };
        let Program { tape, x0, k0, .. } = Program::new(random, purpose);
        let nested = Nested::new(&tape);
        check_with_tapes(&nested, &x0, &random.seed(x0.len()), &mut ws, &mut seen);
        for _ in 0..3 {
            let (x, k) = (random.point(x0.len()), random.point(k0.len()));
            check_with_tapes(&nested.with_params(&k), &x, &random.seed(x0.len()), &mut ws, &mut seen);
        }
    }
    assert!(seen.points > 3 * PROGRAMS && seen.changed > PROGRAMS / 20, "{seen:?}");
    assert!(seen.higher > 3 * PROGRAMS && seen.sharp > seen.higher / 5 && seen.not_finite > 0, "{seen:?}");
}

#[test]
fn random_programs_with_calls_agree_with_the_derivative_tapes_of_the_code_written_out() {
    const PROGRAMS: usize = 100;
    let (mut seen, mut ws) = (Seen::default(), Workspace::new());
    for index in 0..PROGRAMS {
        let random = &mut Random::new(18, index);
        let purpose = Purpose { single: false, params: false, guarded: 20, calls: 100 };
        let called = Program::new(random, purpose);
        let mut nested = Nested::new(&called.record(&called.x0, &called.k0));
        nested.0[0] = called.tape.clone();
        check_with_tapes(&nested, &called.x0, &random.seed(called.x0.len()), &mut ws, &mut seen);
        for _ in 0..3 {
            let x = random.point(called.x0.len());
            check_with_tapes(&nested, &x, &random.seed(x.len()), &mut ws, &mut seen);
        }
    }
    assert!(seen.points > 2 * PROGRAMS && seen.changed > 0, "{seen:?}");
    assert!(seen.higher > 2 * PROGRAMS && seen.sharp > seen.higher / 5, "{seen:?}");
}

#[test]
fn coefficients_agree_with_nested_derivative_tapes_to_the_fourth_order() {
    let f = |x: &[Var]| {
        let r = x[0].hypot(x[1]);
        [(x[0] * x[1]).tanh() / (r + 1.0), r.pow(x[1]) + x[0].atan2(x[1]), (x[0] + 2.0).lgamma() * x[1].erf()]
    };
    let (x, p) = ([0.8, 0.6], [1.0, -0.7]);
    let tape = Tape::record(&x, f).unwrap();
    let series = tape.taylor(&x, &p, ORDER).unwrap();
    assert!(series.as_slice().iter().all(|c| c.is_finite() && *c != 0.0));
    let (mut derivative, mut at, mut tangent, mut factorial) = (tape, x.to_vec(), p.to_vec(), 1.0);
    for k in 0..=4 {
        for (i, e) in derivative.eval(&at).unwrap().into_iter().enumerate() {
            let (c, e) = (series[(i, k)], e / factorial);
            assert!((c - e).abs() <= 1e-13 * e.abs(), "c{k} of output {i} is {c}, not {e}");
        }
        derivative = derivative.jvp_tape().unwrap();
        let zeros = vec![0.0; at.len()];
        at.extend_from_slice(&tangent);
        tangent.extend(zeros);
        factorial *= (k + 1) as f64;
    }
}

// Edges, errors, and what a workspace keeps.

fn coefficients(x: f64, f: impl FnOnce(Var) -> Var) -> Vec<f64> {
    let tape = Tape::record(&[x], |x| f(x[0])).unwrap();
    tape.taylor(&[x], &[1.0], 3).unwrap().into_vec()
}

#[test]
fn edges_follow_the_strict_rule() {
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    assert_equal(&coefficients(0.0, |x| x.abs()), &[0.0, 0.0, 0.0, 0.0], "a kink");
    assert_equal(&coefficients(0.0, |x| x.sqrt())[..3], &[0.0, INF, -INF], "an infinite slope");
    assert_equal(&coefficients(0.0, |x| (x * x).sqrt())[..2], &[0.0, 0.0], "an infinite slope times 0");
    assert_equal(&coefficients(-1.0, |x| x.ln()), &[NAN; 4], "outside the domain");
    assert_equal(&coefficients(-1.0, |x| (x * 0.0).powf(0.5) + x.floor()), &[-1.0, 0.0, 0.0, 0.0], "flat");
    // The branch that is not taken has no series.
    let taken = |x: Var| x.select_gt(0.0, x.ln(), x * x);
    assert_equal(&coefficients(-1.0, taken), &[1.0, -2.0, 1.0, 0.0], "the other branch");
    // Outside its domain a value has no slope, but what does not move, does not.
    let tape = Tape::record(&[1.0, 1.0], |x| [x[0].ln() + x[1], x[1]]).unwrap();
    let series = tape.taylor(&[-1.0, 2.0], &[0.0, 1.0], 2).unwrap();
    assert_equal(series.row(0), &[NAN, 1.0, 0.0], "ln of a negative number");
    assert_equal(&tape.jvp(&[-1.0, 2.0], &[0.0, 1.0]).unwrap().1, &[1.0, 1.0], "and its tangent");
    let series = tape.taylor(&[INF, NAN], &[1.0, 0.0], 2).unwrap();
    assert_equal(series.as_slice(), &[NAN, 0.0, 0.0, NAN, 0.0, 0.0], "infinite points are allowed");
}

#[test]
fn order_0_is_the_value_alone() {
    let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[3.0]);
    let tape = tape.record(|x, k| [x[0].sin() * k[0], k[0].exp(), x[0], Var::from(2.0)]).unwrap();
    let values = tape.taylor(&[0.4], &[1.0], 0).unwrap();
    assert_eq!((values.rows(), values.cols()), (4, 1));
    assert_same(values.as_slice(), &tape.eval(&[0.4]).unwrap(), "order 0");
    // What does not depend on an input has a series that ends there.
    let series = tape.with_params(&[2.0]).unwrap().taylor(&[0.4], &[1.0], 2).unwrap();
    assert_same(series.row(1), &[Rule::exp(2.0), 0.0, 0.0], "a parameter's");
    assert_same(series.row(2), &[0.4, 1.0, 0.0], "an input's");
    assert_same(series.row(3), &[2.0, 0.0, 0.0], "a constant's");
    assert_same(&series.row(0)[..2], &[2.0 * Rule::sin(0.4), 2.0 * Rule::cos(0.4)], "a row's");
}

#[test]
fn a_branch_that_changes_is_an_error() {
    let tape = Tape::record(&[2.0], |x| if x[0] > 0.0 { x[0].ln() } else { -x[0] }).unwrap();
    assert!(tape.taylor(&[3.0], &[1.0], 4).is_ok());
    let error = tape.taylor(&[-3.0], &[1.0], 4).unwrap_err();
    assert!(matches!(error, Error::BranchChanged { lhs: -3.0, .. }), "{error}");
}

#[test]
fn an_order_that_memory_does_not_hold_is_an_error() {
    let tape = Tape::record(&[2.0], |x| x[0].powf(0.5) * x[0]).unwrap();
    for order in [usize::MAX, usize::MAX - 1, usize::MAX / 8, 1 << 58] {
        match tape.taylor(&[2.0], &[1.0], order) {
            Err(error @ Error::TooHighOrder { order: of_error, .. }) => {
                assert_eq!(of_error, order);
                let text = error.to_string();
                assert!(text.contains(&order.to_string()) && text.contains("ask for a lower order"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Nor are as many derivatives written down as such an order would need.
    let tape = Tape::record(&[2.0], |x| x[0].powi(-1)).unwrap();
    let error = tape.taylor(&[2.0], &[1.0], 1 << 18).unwrap_err();
    assert!(matches!(error, Error::TooHighOrder { order: 262_144, values: 65_536 }), "{error}");
}

#[test]
fn what_a_workspace_was_used_for_before_does_not_matter() {
    let f = |x: &[Var]| [x[0].powf(2.5) / x[1], 3.0 / x[0] + x[0] / 3.0, x[0].pow(x[1]), x[1].powi(-2)];
    let other = |x: &[Var]| x[0].powf(1.5) + 2.0 / x[1] + x[1].atan2(x[0]);
    let (x, p) = ([1.5, 0.7], [1.0, -2.0]);
    let tape = Tape::builder().inputs(&[], &x).params(&[], &[0.25]);
    // A constant and a parameter in one place, where a system does not close.
    let tape = tape.record(|x, k| [&f(x)[..], &[x[0].hypot(0.5), x[0].hypot(k[0])]].concat()).unwrap();
    let other = Tape::record(&x, other).unwrap();
    let (mut ws, mut series) = (Workspace::new(), Matrix::zeros(7, 7));
    for order in [12, 2, 7, 0, 1, 20, 12] {
        other.taylor_into(&mut ws, &x, &p, 9 - order.min(9), &mut series).unwrap();
        tape.taylor_into(&mut ws, &x, &p, order, &mut series).unwrap();
        let fresh = tape.taylor(&x, &p, order).unwrap();
        assert_same(series.as_slice(), fresh.as_slice(), format!("order {order}"));
        // Nor do the coefficients beyond.
        let longer = tape.taylor(&x, &p, order + 3).unwrap();
        for i in 0..tape.num_outputs() {
            assert_same(fresh.row(i), &longer.row(i)[..=order], format!("order {order} of {}", order + 3));
        }
    }
}

#[test]
fn a_long_tape_needs_no_stack() {
    let tape = Tape::record(&[1.0], |x| (0..200_000).fold(x[0], |v, _| v * 0.5 + x[0])).unwrap();
    let series = tape.taylor(&[1.0], &[1.0], 2).unwrap();
    assert_eq!(series.row(0), [2.0, 2.0, 0.0]);
}
