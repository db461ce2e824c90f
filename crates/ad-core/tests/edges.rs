//! The edges: values and derivatives where a function ends, bends or jumps,
//! and what becomes of 0·∞ and NaN. Forward, reverse and `Dual` agree.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2, LN_2, PI};

use ad_core::{Dual, Matrix, Rule, Tape, Var};
use common::{all_same, assert_equal, assert_same, equal, unit};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// One line of the table of edge values.
struct Edge {
    text: &'static str,
    tape: Tape,
    x: Vec<f64>,
    value: f64,
    /// ∂/∂x_i.
    first: Vec<f64>,
    /// ∂²/∂x_i², where the table says.
    second: Option<Vec<f64>>,
}

macro_rules! edges {
    ($( $f:expr, at $x:expr => $value:expr, $first:expr $(, $second:expr)?; )*) => {
        vec![$({
            let x: Vec<f64> = $x.to_vec();
            #[allow(unused_mut, unused_assignments)]
            let mut second: Option<Vec<f64>> = None;
            $(second = Some($second.to_vec());)?
            let f: fn(&[Var]) -> Var = $f;
            Edge { text: stringify!($f), tape: Tape::record(&x, f).unwrap(), x, value: $value, first: $first.to_vec(), second }
        }),*]
    };
}

/// Every row of the table in docs/ops.md's conventions, and its neighbours.
fn table() -> Vec<Edge> {
    edges! {
        |x| x[0].abs(), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].abs(), at [-0.0] => 0.0, [0.0], [0.0];
        |x| x[0].sqrt(), at [0.0] => 0.0, [INF], [-INF];
        |x| x[0].sqrt(), at [-0.0] => -0.0, [INF], [-INF];
        |x| x[0].sqrt(), at [-1.0] => NAN, [NAN], [NAN];
        |x| x[0].cbrt(), at [0.0] => 0.0, [INF], [-INF];
        |x| x[0].cbrt(), at [-0.0] => -0.0, [INF], [-INF];
        |x| x[0].cbrt(), at [INF] => INF, [0.0], [0.0];
        |x| x[0].cbrt(), at [-8.0] => -2.0, [1.0 / 12.0];
        |x| x[0].powf(0.0), at [0.0] => 1.0, [0.0], [0.0];
        |x| x[0].powf(1.0), at [0.0] => 0.0, [1.0], [0.0];
        |x| x[0].powf(2.0), at [0.0] => 0.0, [0.0], [2.0];
        |x| x[0].powf(0.5), at [0.0] => 0.0, [INF], [-INF];
        |x| x[0].powf(1.0), at [-0.0] => -0.0, [1.0], [0.0];
        |x| x[0].powf(-1.0), at [0.0] => INF, [-INF], [INF];
        |x| x[0].powf(2.0), at [INF] => INF, [INF], [2.0];
        |x| x[0].powf(0.0), at [NAN] => 1.0, [0.0], [0.0];
        |x| x[0].powf(3.0), at [-2.0] => -8.0, [12.0], [-12.0];
        |x| x[0].powf(0.5), at [-1.0] => NAN, [NAN];
        |x| x[0].powi(0), at [0.0] => 1.0, [0.0], [0.0];
        |x| x[0].powi(1), at [0.0] => 0.0, [1.0], [0.0];
        |x| x[0].powi(2), at [0.0] => 0.0, [0.0], [2.0];
        |x| x[0].powi(0), at [INF] => 1.0, [0.0], [0.0];
        |x| x[0].powi(3), at [-2.0] => -8.0, [12.0], [-12.0];
        |x| x[0].powi(-1), at [0.0] => INF, [-INF], [INF];
        |x| x[0].pow(x[1]), at [0.0, 0.0] => 1.0, [0.0, 0.0];
        |x| x[0].pow(x[1]), at [0.0, 1.0] => 0.0, [1.0, 0.0];
        |x| x[0].pow(x[1]), at [0.0, 2.0] => 0.0, [0.0, 0.0];
        |x| x[0].pow(x[1]), at [-2.0, 3.0] => -8.0, [12.0, NAN];
        |x| x[0].pow(x[1]), at [1.0, 3.0] => 1.0, [3.0, 0.0], [6.0, 0.0];
        |x| x[0].pow(x[1]), at [2.0, INF] => INF, [INF, INF];
        |x| x[0].pow(x[1]), at [0.5, INF] => 0.0, [0.0, 0.0];
        |x| x[0].pow(x[1]), at [NAN, 2.0] => NAN, [NAN, NAN];
        |x| x[0].atan2(x[1]), at [0.0, 0.0] => 0.0, [NAN, NAN];
        |x| x[0].atan2(x[1]), at [0.0, -1.0] => PI, [-1.0, 0.0];
        |x| x[0].atan2(x[1]), at [1.0, INF] => 0.0, [0.0, 0.0], [0.0, 0.0];
        |x| x[0].atan2(x[1]), at [-INF, 1.0] => -FRAC_PI_2, [0.0, 0.0], [0.0, 0.0];
        |x| x[0].atan2(x[1]), at [1.7e308, 1.7e308] => PI / 4.0, [2.941176470588236e-309, -2.941176470588236e-309];
        |x| x[0].atan2(x[1]), at [1e-310, 2e-310] => 0.4636476090008061, [INF, -INF];
        |x| x[0].hypot(x[1]), at [INF, 1.0] => INF, [1.0, 0.0], [0.0, 0.0];
        |x| x[0].hypot(x[1]), at [1.0, -INF] => INF, [0.0, -1.0], [0.0, 0.0];
        |x| x[0].hypot(x[1]), at [INF, INF] => INF, [NAN, NAN];
        |x| x[0].hypot(x[1]), at [1.7e308, 1.7e308] => INF, [FRAC_1_SQRT_2, FRAC_1_SQRT_2];
        |x| x[0].hypot(x[1]), at [3e-320, 4e-320] => 5e-320, [0.6, 0.8];
        |x| x[0].hypot(x[1]), at [0.0, 0.0] => 0.0, [0.0, 0.0];
        |x| x[0].hypot(x[1]), at [-0.0, 0.0] => 0.0, [0.0, 0.0];
        |x| x[0].hypot(x[1]), at [3e300, 4e300] => 5e300, [0.6, 0.8];
        |x| x[0].ln(), at [0.0] => -INF, [INF], [-INF];
        |x| x[0].ln(), at [-1.0] => NAN, [NAN], [NAN];
        |x| x[0].log2(), at [-1.0] => NAN, [NAN], [NAN];
        |x| x[0].log10(), at [-1.0] => NAN, [NAN], [NAN];
        |x| x[0].ln(), at [-0.0] => -INF, [INF];
        |x| x[0].log2(), at [-0.0] => -INF, [INF];
        |x| x[0].log10(), at [-0.0] => -INF, [INF];
        |x| x[0].ln_1p(), at [-1.0] => -INF, [INF], [-INF];
        |x| x[0].ln_1p(), at [-2.0] => NAN, [NAN], [NAN];
        |x| x[0].asin(), at [1.0] => FRAC_PI_2, [INF], [INF];
        |x| x[0].asin(), at [-1.0] => -FRAC_PI_2, [INF];
        |x| x[0].asin(), at [2.0] => NAN, [NAN];
        |x| x[0].acos(), at [1.0] => 0.0, [-INF], [-INF];
        |x| x[0].acos(), at [-2.0] => NAN, [NAN];
        |x| x[0].acosh(), at [1.0] => 0.0, [INF], [-INF];
        |x| x[0].acosh(), at [-2.0] => NAN, [NAN], [NAN];
        |x| x[0].acosh(), at [0.5] => NAN, [NAN];
        |x| x[0].atanh(), at [1.0] => INF, [INF], [INF];
        |x| x[0].atanh(), at [-1.0] => -INF, [INF], [-INF];
        |x| x[0].atanh(), at [2.0] => NAN, [NAN], [NAN];
        |x| x[0].max(x[1]), at [2.0, 2.0] => 2.0, [0.5, 0.5], [0.0, 0.0];
        |x| x[0].min(x[1]), at [2.0, 2.0] => 2.0, [0.5, 0.5], [0.0, 0.0];
        |x| x[0].max(x[0]), at [2.0] => 2.0, [1.0], [0.0];
        |x| x[0].max(0.0), at [0.0] => 0.0, [0.5], [0.0];
        |x| x[0].max(x[1]), at [NAN, 1.0] => NAN, [NAN, NAN];
        |x| x[0].max(x[1]), at [1.0, NAN] => NAN, [NAN, NAN];
        |x| x[0].min(x[1]), at [NAN, 1.0] => NAN, [NAN, NAN];
        |x| x[0].max(x[1]), at [INF, INF] => INF, [0.5, 0.5];
        |x| x[0].relu(), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].relu(), at [-0.0] => 0.0, [0.0], [0.0];
        |x| x[0].relu(), at [-1.0] => 0.0, [0.0];
        |x| x[0].relu(), at [NAN] => NAN, [NAN];
        |x| x[0].clamp(-1.0, 2.0), at [-1.0] => -1.0, [1.0], [0.0];
        |x| x[0].clamp(-1.0, 2.0), at [2.0] => 2.0, [1.0], [0.0];
        |x| x[0].clamp(-1.0, 2.0), at [0.5] => 0.5, [1.0], [0.0];
        |x| x[0].clamp(-1.0, 2.0), at [3.0] => 2.0, [0.0], [0.0];
        |x| x[0].clamp(-1.0, 2.0), at [-3.0] => -1.0, [0.0], [0.0];
        |x| x[0].clamp(x[1], x[2]), at [3.0, -1.0, 2.0] => 2.0, [0.0, 0.0, 1.0];
        |x| x[0].clamp(x[1], x[2]), at [-3.0, -1.0, 2.0] => -1.0, [0.0, 1.0, 0.0];
        |x| x[0].clamp(x[1], x[2]), at [2.0, -1.0, 2.0] => 2.0, [1.0, 0.0, 0.0];
        |x| x[0].clamp(x[1], x[2]), at [-1.0, -1.0, 2.0] => -1.0, [1.0, 0.0, 0.0];
        |x| x[0].clamp(x[1], x[2]), at [1.5, 2.0, 1.0] => NAN, [NAN, NAN, NAN];
        |x| x[0].sign(), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].sign(), at [-0.0] => 0.0, [0.0], [0.0];
        |x| x[0].signum(), at [0.0] => 1.0, [0.0], [0.0];
        |x| x[0].signum(), at [-0.0] => -1.0, [0.0], [0.0];
        |x| x[0].floor(), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].floor(), at [-2.0] => -2.0, [0.0], [0.0];
        |x| x[0].floor(), at [1.75] => 1.0, [0.0], [0.0];
        |x| x[0].floor(), at [-1.25] => -2.0, [0.0], [0.0];
        |x| x[0].ceil(), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].ceil(), at [3.0] => 3.0, [0.0], [0.0];
        |x| x[0].ceil(), at [1.25] => 2.0, [0.0], [0.0];
        |x| x[0].ceil(), at [-1.75] => -1.0, [0.0], [0.0];
        |x| x[0].round(), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].round(), at [2.5] => 3.0, [0.0], [0.0];
        |x| x[0].round_ties_even(), at [2.5] => 2.0, [0.0], [0.0];
        |x| x[0].trunc(), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].trunc(), at [-1.0] => -1.0, [0.0], [0.0];
        |x| x[0].trunc(), at [1.75] => 1.0, [0.0], [0.0];
        |x| x[0].trunc(), at [-1.75] => -1.0, [0.0], [0.0];
        |x| x[0].xlogx(), at [0.0] => 0.0, [-INF], [INF];
        |x| x[0].xlogx(), at [-1.0] => NAN, [NAN], [NAN];
        |x| x[0].xlogy(x[1]), at [0.0, 0.0] => 0.0, [-INF, 0.0];
        |x| x[0].xlogy(x[1]), at [0.0, -0.0] => 0.0, [-INF, 0.0];
        |x| x[0].xlogy(x[1]), at [0.0, 2.0] => 0.0, [LN_2, 0.0], [0.0, 0.0];
        |x| x[0].xlogy(x[1]), at [0.0, -1.0] => 0.0, [NAN, 0.0];
        |x| x[0].xlogy(x[1]), at [0.0, NAN] => NAN, [NAN, 0.0];
        |x| x[0].xlogy(x[1]), at [3.0, 0.0] => -INF, [-INF, INF], [0.0, -INF];
        |x| x[0].xlogy(x[1]), at [3.0, -0.0] => -INF, [-INF, INF];
        |x| x[0].xlogy(x[1]), at [3.0, -1.0] => NAN, [NAN, NAN];
        |x| x[0] * x[0].ln(), at [0.0] => NAN, [NAN];
        |x| x[0].select_gt(0.0, x[0].sqrt(), 0.0), at [0.0] => 0.0, [0.0], [0.0];
        |x| x[0].select_gt(0.0, x[0].sqrt(), 0.0), at [-1.0] => 0.0, [0.0], [0.0];
        |x| x[0].select_gt(0.0, x[0].ln(), x[0]), at [0.0] => 0.0, [1.0], [0.0];
        |x| x[0].select_gt(0.0, x[0].sqrt(), 0.0), at [4.0] => 2.0, [0.25], [-1.0 / 32.0];
        |x| x[0].logaddexp(x[1]), at [-INF, -INF] => -INF, [0.0, 0.0];
        |x| x[0].logaddexp(x[1]), at [1.0, -INF] => 1.0, [1.0, 0.0];
        |x| x[0].logaddexp(x[1]), at [1000.0, -1000.0] => 1000.0, [1.0, 0.0];
        |x| x[0].softplus(), at [1000.0] => 1000.0, [1.0], [0.0];
        |x| x[0].softplus(), at [-1000.0] => 0.0, [0.0], [0.0];
        |x| x[0].softplus(), at [INF] => INF, [1.0];
        |x| x[0].logistic(), at [1000.0] => 1.0, [0.0], [0.0];
        |x| x[0].logistic(), at [-1000.0] => 0.0, [0.0], [0.0];
        |x| x[0].tanh(), at [1000.0] => 1.0, [0.0], [0.0];
        |x| x[0].tanh(), at [-INF] => -1.0, [0.0], [0.0];
        |x| x[0].exp(), at [-INF] => 0.0, [0.0], [0.0];
        |x| x[0].exp_m1(), at [-1000.0] => -1.0, [0.0], [0.0];
        |x| x[0].recip(), at [0.0] => INF, [-INF], [INF];
        |x| x[0].recip(), at [INF] => 0.0, [0.0];
        |x| x[0].sin(), at [INF] => NAN, [NAN], [NAN];
        |x| x[0].erf(), at [INF] => 1.0, [0.0], [0.0];
        |x| x[0].erfc(), at [-INF] => 2.0, [0.0], [0.0];
        |x| x[0].lgamma(), at [1.0] => 0.0, [-0.5772156649015329], [PI * PI / 6.0];
        |x| x[0].lgamma(), at [2.0] => 0.0, [0.42278433509846714], [PI * PI / 6.0 - 1.0];
        |x| x[0].lgamma(), at [0.0] => INF, [-INF], [INF];
        |x| x[0].lgamma(), at [-0.0] => INF, [-INF], [INF];
        |x| x[0].lgamma(), at [-1.0] => INF, [NAN], [NAN];
        |x| x[0].lgamma(), at [INF] => INF, [INF], [0.0];
        |x| x[0].digamma(), at [0.0] => -INF, [INF], [-INF];
        |x| x[0].digamma(), at [-2.0] => NAN, [NAN], [NAN];
        |x| x[0].digamma(), at [INF] => INF, [0.0], [0.0];
        |x| x[0].atan(), at [INF] => FRAC_PI_2, [0.0], [0.0];
        |x| x[0].lorentz(), at [INF] => 0.0, [0.0], [0.0];
        |x| x[0].lorentz(), at [-INF] => 0.0, [0.0], [0.0];
        |x| x[0].gauss(), at [INF] => 0.0, [0.0], [0.0];
        |x| x[0].gauss_slope(), at [-INF] => 0.0, [0.0], [0.0];
        |x| x[0].chain_div(x[1]), at [0.0, 0.0] => 0.0, [INF, 0.0];
        |x| x[0].domain(x[1], x[2]), at [NAN, 1.0, 1.0] => NAN, [1.0, 0.0, 0.0];
        |x| x[0].domain(x[1], x[2]), at [2.0, NAN, NAN] => 2.0, [1.0, 0.0, 0.0];
        |x| x[0].copysign(x[1]), at [0.0, -1.0] => -0.0, [0.0, 0.0];
        |x| x[0] % x[1], at [7.5, 2.0] => 1.5, [1.0, -3.0];
        |x| x[0] % x[1], at [7.5, 0.0] => NAN, [NAN, NAN];
    }
}

/// The value and the derivatives along direction i, by duals of duals.
fn nested(tape: &Tape, x: &[f64], i: usize) -> Dual<Dual> {
    let seed = |j: usize| if i == j { 1.0 } else { 0.0 };
    let x: Vec<Dual<Dual>> =
        (0..x.len()).map(|j| Dual::new(Dual::new(x[j], seed(j)), Dual::new(seed(j), 0.0))).collect();
    tape.eval_with(&x).unwrap()[0]
}

#[test]
fn the_table_of_edges() {
    let mut failures = Vec::new();
    for Edge { text, tape, x, value, first, second } in table() {
        let n = x.len();
        let (y, reverse) = tape.gradient(&x).unwrap();
        let hessian = tape.hessian(&x).unwrap();
        let mut expect = |what: &str, got: f64, expected: f64, near: bool| {
            // Beside an infinite number everything would be near.
            let close = near && expected.is_finite() && (got - expected).abs() <= 1e-15 * expected.abs();
            if !equal(got, expected) && !close {
                failures.push(format!("{text} at {x:?}: {what} is {got}, not {expected}"));
            }
        };
        expect("the value", y, value, false);
        assert_equal(&tape.jvp(&x, &vec![0.0; n]).unwrap().1, &[0.0], "a zero seed");
        for i in 0..n {
            let forward = tape.jvp(&x, &unit(n, i)).unwrap().1[0];
            let dual = nested(&tape, &x, i);
            expect(&format!("forward ∂/∂x[{i}]"), forward, first[i], true);
            expect(&format!("reverse ∂/∂x[{i}]"), reverse[i], forward, false);
            expect(&format!("Dual ∂/∂x[{i}]"), dual.dv.v, forward, false);
            expect("the Dual value", dual.v.v, value, false);
            if let Some(second) = &second {
                expect(&format!("∂²/∂x[{i}]²"), dual.dv.dv, second[i], true);
                expect(&format!("∂²/∂x[{i}]² of the Hessian"), hessian[(i, i)], second[i], true);
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// The derivatives of a one-output tape by forward, reverse and `Dual`, which
/// must be equal.
fn derivatives(tape: &Tape, x: &[f64]) -> Vec<f64> {
    let n = x.len();
    let (_, reverse) = tape.gradient(x).unwrap();
    let forward: Vec<f64> = (0..n).map(|i| tape.jvp(x, &unit(n, i)).unwrap().1[0]).collect();
    let duals: Vec<f64> = (0..n).map(|i| nested(tape, x, i).dv.v).collect();
    assert_equal(&forward, &reverse, format!("forward and reverse at {x:?} of\n{tape}"));
    assert_equal(&forward, &duals, format!("forward and Dual at {x:?} of\n{tape}"));
    assert_equal(&[tape.jacobian(x).unwrap().as_slice(), &[]].concat(), &forward, "jacobian");
    forward
}

/// Records f at a harmless point and differentiates it at x.
fn derivatives_of(f: impl FnOnce(&[Var]) -> Var, x: &[f64]) -> Vec<f64> {
    derivatives(&Tape::record(&vec![0.5; x.len()], f).unwrap(), x)
}

#[test]
fn an_exact_zero_factor_contributes_nothing() {
    // 0·∞ of the chain rule, with the zero in the adjoint, the tangent or the partial.
    assert_equal(&derivatives_of(|x| (x[0] * 0.0).asin() + x[1], &[1.0, 1.0]), &[0.0, 1.0], "asin(0·x) + y");
    assert_equal(&derivatives_of(|x| x[1] + 0.0 * x[0].sqrt(), &[0.0, 1.0]), &[0.0, 1.0], "y + 0·√x");
    assert_equal(&derivatives_of(|x| (x[0] * 0.0).sqrt() + x[1], &[3.0, 1.0]), &[0.0, 1.0], "√(0·x) + y");
    assert_equal(&derivatives_of(|x| x[0] / f64::INFINITY, &[3.0]), &[0.0], "x/∞");
    assert_equal(&derivatives_of(|x| (x[0] / f64::INFINITY).sqrt(), &[3.0]), &[0.0], "√(x/∞)");
    assert_equal(&derivatives_of(|x| x[0].powi(2).sqrt(), &[0.0]), &[0.0], "√(x²): the 0 is exact");
    assert_equal(&derivatives_of(|x| x[0].floor().ln(), &[0.5]), &[0.0], "ln of a step");
    assert_equal(&derivatives_of(|x| x[0].hypot(x[1]), &[0.0, 0.0]), &[0.0, 0.0], "hypot");
    assert_equal(&derivatives_of(|x| x[0].exp().recip(), &[1000.0]), &[0.0], "1/∞, by ∞·0");
    // Untaken branches, whatever happens in them.
    let untaken: [fn(Var) -> Var; 6] =
        [|x| x.sqrt(), |x| x.ln(), |x| x.recip(), |x| x.acosh(), |x| (-x).powf(0.5), |x| x.sin().ln()];
    for branch in untaken {
        assert_equal(
            &derivatives_of(|x| x[0].select_gt(0.0, branch(x[0]), 0.0), &[0.0]),
            &[0.0],
            "an untaken branch at 0",
        );
        assert_equal(
            &derivatives_of(|x| x[0].select_gt(0.0, branch(x[0]), x[0] * 3.0), &[-1.0]),
            &[3.0],
            "an untaken branch at −1",
        );
    }
    // Where the product itself is NaN, so is its derivative, and that of nothing else.
    assert_equal(&derivatives_of(|x| x[0].ln() * 0.0 + x[1], &[0.0, 1.0]), &[NAN, 1.0], "0·ln(x) + y");
    // With sums over more than one path.
    assert_equal(
        &derivatives_of(|x| Rule::dot(&[x[0].sqrt(), x[1]], &[Var::from(0.0), x[1]]), &[0.0, 3.0]),
        &[0.0, 6.0],
        "a zero factor of a dot product",
    );
}

#[test]
fn zero_seeds_switch_directions_off() {
    let tape = Tape::record(&[1.0, 1.0], |x| [x[0].sqrt() + x[1], x[1] * 2.0]).unwrap();
    assert_eq!(tape.jvp(&[0.0, 1.0], &[0.0, 1.0]).unwrap().1, [1.0, 2.0]);
    assert_eq!(tape.jvp(&[0.0, 1.0], &[1.0, 1.0]).unwrap().1, [INF, 2.0]);
    assert_eq!(tape.vjp(&[0.0, 1.0], &[0.0, 1.0]).unwrap().1, [0.0, 2.0]);
    assert_eq!(tape.vjp(&[0.0, 1.0], &[1.0, 0.0]).unwrap().1, [INF, 1.0]);
    // Outside the domain the value is NaN, and what does not depend on it is not.
    assert_equal(&tape.jvp(&[-1.0, 1.0], &[1.0, 1.0]).unwrap().1, &[NAN, 2.0], "a NaN output");
    assert_equal(&tape.vjp(&[-1.0, 1.0], &[0.0, 1.0]).unwrap().1, &[0.0, 2.0], "the other output");
    assert_equal(&tape.vjp(&[-1.0, 1.0], &[1.0, 1.0]).unwrap().1, &[NAN, 3.0], "both outputs");
}

#[test]
fn a_nan_value_has_a_nan_derivative() {
    // Each rule alone would give a finite number.
    type Outside = (fn(Var) -> Var, f64);
    let outside: [Outside; 9] = [
        (|x| x.ln(), -1.0),
        (|x| x.log2(), -1.0),
        (|x| x.log10(), -3.0),
        (|x| x.ln_1p(), -2.0),
        (|x| x.acosh(), -2.0),
        (|x| x.atanh(), 2.0),
        (|x| x.xlogx(), -1.0),
        (|x| x.asin(), -1.5),
        (|x| x.sin(), INF),
    ];
    for (f, x) in outside {
        assert_equal(&derivatives_of(|x| f(x[0]), &[x]), &[NAN], format!("outside, at {x}"));
        assert_equal(&derivatives_of(|x| f(x[0]) + x[1], &[x, 1.0]), &[NAN, 1.0], format!("beside it, at {x}"));
        assert_equal(&derivatives_of(|x| f(x[0]) * 0.0 + x[1], &[x, 1.0]), &[0.0, 1.0], format!("times 0, at {x}"));
        assert_equal(&derivatives_of(|x| 3.0 * f(x[0] * 1.0).abs(), &[x]), &[NAN], format!("deeper, at {x}"));
        assert_equal(
            &derivatives_of(|x| x[1].select_lt(0.0, f(x[0]), x[1]), &[x, 1.0]),
            &[0.0, 1.0],
            format!("untaken, at {x}"),
        );
    }
    // A NaN that comes in goes by the formula of each partial.
    assert_equal(&derivatives_of(|x| x[0] + x[1], &[NAN, 1.0]), &[1.0, 1.0], "a sum with NaN");
    assert_equal(&derivatives_of(|x| x[0] * x[1], &[NAN, 2.0]), &[2.0, NAN], "a product with NaN");
    assert_equal(&derivatives_of(|x| x[0].exp(), &[NAN]), &[NAN], "exp of NaN");
    // inf − inf and 0·inf are outside the domain of their operations.
    assert_equal(&derivatives_of(|x| x[0] - x[1], &[INF, INF]), &[NAN, NAN], "inf − inf");
    assert_equal(&derivatives_of(|x| x[0] * x[1], &[0.0, INF]), &[NAN, NAN], "0·inf");
    assert_equal(&derivatives_of(|x| x[0] / x[1], &[0.0, 0.0]), &[NAN, NAN], "0/0");
}

/// Columns and rows that stay finite keep their bits when another goes NaN,
/// which makes the sweep run again with the strict rule.
#[test]
fn a_nan_in_one_direction_leaves_the_others_alone() {
    let record = |first: fn(Var) -> Var| {
        let f = |x: &[Var]| {
            let a = (x[1] * 1.1).sin() + x[2].exp() / 3.0;
            let b = a * x[3] - x[1].powi(3);
            [first(x[0]) + a, b, Rule::sum_of(&[a, b, x[2]]), x[1].hypot(x[2]).tanh()]
        };
        Tape::record(&[1.0, 0.3, 0.7, -1.2], f).unwrap()
    };
    let (tape, clean) = (record(|x| x.atan2(x)), record(|x| x + x));
    for x in [[0.0, 0.3, 0.7, -1.2], [0.0, -2.0, 1e-3, 5.5], [0.0, 1e10, -40.0, 1e-300]] {
        let seeds = Matrix::from_rows(&[[1.0, 0.0, 0.0], [0.5, 1.0, -3.0], [0.0, 2.0, 0.1], [1.0, 0.0, 7.0]]).unwrap();
        let (_, many) = tape.jvp_many(&x, &seeds).unwrap();
        assert!(many[(0, 0)].is_nan(), "the first direction hits atan2 at (0, 0)");
        for k in 0..3 {
            let p: Vec<f64> = (0..4).map(|i| seeds[(i, k)]).collect();
            let alone = tape.jvp(&x, &p).unwrap().1;
            let undisturbed = clean.jvp(&x, &p).unwrap().1;
            for j in 0..4 {
                assert_same(&[many[(j, k)]], &[alone[j]], format!("output {j}, direction {k}, alone"));
                if j > 0 {
                    assert_same(&[many[(j, k)]], &[undisturbed[j]], format!("output {j}, direction {k}, undisturbed"));
                }
            }
        }
        // Adjoints: the NaN reaches x[0] alone.
        let weights = [1.0, 0.7, -2.0, 0.3];
        let disturbed = tape.vjp(&x, &weights).unwrap().1;
        assert!(disturbed[0].is_nan());
        assert!(all_same(&disturbed[1..], &clean.vjp(&x, &weights).unwrap().1[1..]), "adjoints at {x:?}");
    }
}

#[test]
fn infinite_and_nan_points_are_allowed() {
    let tape = Tape::record(&[INF, NAN], |x| [x[0] + 1.0, x[1] * 2.0]).unwrap();
    assert_equal(&tape.eval(&[INF, NAN]).unwrap(), &[INF, NAN], "recorded there");
    assert_equal(&tape.eval(&[-INF, 1.0]).unwrap(), &[-INF, 2.0], "replayed elsewhere");
    let (y, dy) = tape.jvp(&[NAN, INF], &[1.0, 1.0]).unwrap();
    assert_equal(&y, &[NAN, INF], "values");
    assert_equal(&dy, &[1.0, 2.0], "tangents");
}

#[test]
fn overflow_and_underflow_follow_ieee() {
    let tape = Tape::record(&[1.0], |x| x[0] * x[0]).unwrap();
    assert_eq!(tape.gradient(&[1e300]).unwrap(), (INF, vec![2e300]));
    assert_eq!(tape.gradient(&[1e-200]).unwrap(), (0.0, vec![2e-200]));
    let smallest = f64::from_bits(1);
    assert_eq!(tape.gradient(&[smallest]).unwrap(), (0.0, vec![2.0 * smallest]));
    let tape = Tape::record(&[1.0], |x| x[0].exp()).unwrap();
    assert_eq!(tape.gradient(&[1000.0]).unwrap(), (INF, vec![INF]));
    let (y, g) = tape.gradient(&[-740.0]).unwrap();
    assert!(y > 0.0 && y < f64::MIN_POSITIVE && g[0] == y, "a subnormal result is kept: {y}");
}

/// Where a formula that is right in exact arithmetic loses its digits, or
/// overflows on the way to a result that does not.
#[test]
fn derivatives_keep_their_digits_where_textbook_formulas_lose_them() {
    type Case = (&'static str, fn(Var) -> Var, f64, Option<f64>, Option<f64>);
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("asin″",     |x| x.asin(),     1e-10,  None,                     Some(1e-10)),
        ("acos″",     |x| x.acos(),     1e-10,  None,                     Some(-1e-10)),
        ("atanh″",    |x| x.atanh(),    1e-300, Some(1.0),                Some(2e-300)),
        ("logistic″", |x| x.logistic(), 1e-10,  Some(0.25),               Some(-1.25e-11)),
        ("atan″",     |x| x.atan(),     1e90,   Some(1e-180),             Some(-2e-270)),
        ("atan″",     |x| x.atan(),     1e100,  Some(1e-200),             Some(-2e-300)),
        ("acosh′",    |x| x.acosh(),    1e200,  Some(1e-200),             None),
        ("asinh′",    |x| x.asinh(),    -1e200, Some(1e-200),             None),
        ("powf′",     |x| x.powf(1e-3), 1e-310, Some(4.897788193684477e306), None),
        ("log10′",    |x| x.log10(),    1e308,  Some(4.34294481903252e-309), None),
        ("log2′",     |x| x.log2(),     1e308,  Some(1.4426950408889634e-308), None),
        ("log′",      |x| x.log(10.0),  1e308,  Some(4.34294481903252e-309), None),
        ("tanh′",     |x| x.tanh(),     360.0,  Some(4.0 * (-720f64).exp()), None),
        ("exp_m1′",   |x| x.exp_m1(),   -40.0,  Some((-40f64).exp()),     None),
        ("ln′",       |x| x.ln(),       -0.0,   Some(f64::INFINITY),      None),
        ("sqrt′",     |x| x.sqrt(),     -0.0,   Some(f64::INFINITY),      None),
    ];
    for (what, f, x, first, second) in cases {
        let tape = Tape::record(&[0.5], |v| f(v[0])).unwrap();
        let dual = nested(&tape, &[*x], 0);
        for (got, expected) in [(dual.dv.v, first), (dual.dv.dv, second)] {
            if let Some(expected) = expected {
                // Relative, but no finer than the spacing of subnormal numbers.
                let close = expected.is_finite() && (got - expected).abs() <= 4e-15 * expected.abs() + 2e-323;
                assert!(got == *expected || close, "{what} at {x}: {got}, not {expected}");
            }
        }
    }
}

/// x % y is x − y times a whole number, however x/y is rounded.
#[test]
fn the_slope_of_a_remainder_is_whole() {
    for (x, y, slope) in [(10.0, 3.3, -3.0), (0.7, 0.1, -6.0), (0.7, 0.003, -233.0), (-5.5, 0.003, 1833.0)] {
        assert_same(&derivatives_of(|x| x[0] % x[1], &[x, y]), &[1.0, slope], format!("{x} % {y}"));
    }
}

#[test]
fn the_mixed_second_derivative_of_a_power() {
    // ∂²(x^y)/∂x∂y = x^(y−1)·(1 + y·ln x), in either order.
    let expected = 4.0 * (1.0 + 3.0 * 2f64.ln());
    for (inner, outer) in [((1.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (1.0, 0.0))] {
        let x = Dual::new(Dual::new(2.0, inner.0), Dual::new(outer.0, 0.0));
        let y = Dual::new(Dual::new(3.0, inner.1), Dual::new(outer.1, 0.0));
        assert!((x.pow(y).dv.dv - expected).abs() < 1e-13);
    }
}

#[test]
fn a_direction_has_the_bits_it_has_alone() {
    let x = [-1.0, 0.0];
    let tape = Tape::record(&x, |x| [x[0].ln().powf(0.0), x[1] * 1e300 * 1e300 * 0.0]).unwrap();
    let (_, together) = tape.jvp_many(&x, &Matrix::identity(2)).unwrap();
    for j in 0..2 {
        let alone = tape.jvp(&x, &unit(2, j)).unwrap().1;
        assert_same(&alone, &[together[(0, j)], together[(1, j)]], format!("direction {j}"));
    }
}
