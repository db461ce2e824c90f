//! Second derivatives: H·v and the Hessian, by every way there is to compute
//! them. (`laws.rs` compares their bits on random programs, `edges.rs` tests
//! the table of edge values, `bad_inputs.rs` and `allocation.rs` the rest.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Dual, Error, Matrix, Op, Rule, SimdLevel, Tape, Var, Workspace};
use common::programs::call;
use common::{assert_equal, assert_same, product, takes_constant, unit};

/// A way to compute all second derivatives of a one-output tape: entry (i, j) is
/// the derivative of ∂f/∂xᵢ along eⱼ.
type Way = (&'static str, fn(&Tape, &[f64]) -> Matrix);

/// The ways that there are besides `hvp`, which they are compared with.
const WAYS: &[Way] = &[("Dual of Dual", by_duals)];

fn by_hvp(tape: &Tape, x: &[f64]) -> Matrix {
    let n = x.len();
    let mut hessian = Matrix::zeros(n, n);
    for j in 0..n {
        for (i, entry) in tape.hvp(x, &unit(n, j)).unwrap().into_iter().enumerate() {
            hessian[(i, j)] = entry;
        }
    }
    hessian
}

fn by_duals(tape: &Tape, x: &[f64]) -> Matrix {
    let n = x.len();
    let mut hessian = Matrix::zeros(n, n);
    let seed = |k: usize, of: usize| if k == of { 1.0 } else { 0.0 };
    for i in 0..n {
        for j in 0..n {
            // The outer derivative is a partial by xᵢ, which the inner numbers differentiate.
            let along = |k: usize| Dual::new(Dual::new(x[k], seed(k, j)), Dual::new(seed(k, i), 0.0));
            let x: Vec<Dual<Dual>> = (0..n).map(along).collect();
            hessian[(i, j)] = tape.eval_with(&x).unwrap()[0].dv.dv;
        }
    }
    hessian
}

/// Fails unless every way gives the same second derivatives, ±0 apart, and the
/// Hessian is what `hvp` gives on and above the diagonal, to the bit. (Below it
/// they may differ: by rounding, and where mixed derivatives depend on the order.)
#[track_caller]
fn assert_ways_agree(tape: &Tape, x: &[f64], what: &str) {
    let expected = by_hvp(tape, x);
    for (way, compute) in WAYS {
        let entries = compute(tape, x);
        assert_equal(expected.as_slice(), entries.as_slice(), format_args!("hvp and {way}: {what} at {x:?}"));
    }
    let mut upper = expected;
    for i in 0..x.len() {
        for j in 0..i {
            upper[(i, j)] = upper[(j, i)];
        }
    }
    let hessian = tape.hessian(x).unwrap();
    assert_same(hessian.as_slice(), upper.as_slice(), format_args!("hessian and hvp: {what} at {x:?}"));
}

#[test]
fn every_operation_has_the_same_second_derivatives_in_every_way() {
    let mut compared = 0;
    for &op in Op::ALL {
        let mut probes = op.info().probes.to_vec();
        let constants = if takes_constant(op) { probes.pop().unwrap() } else { &[0.0] };
        let points = product(&probes);
        for &c in constants {
            for output in 0..op.info().forms.len() {
                let tape = Tape::record(&points[0], |x| call(op, x, c)[output]).unwrap();
                for x in &points {
                    assert_ways_agree(&tape, x, &format!("result {output} of {op}, constant {c}"));
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A random polynomial with whole coefficients, so small that at whole points
/// nothing is ever rounded. What is kept beside a value bounds its degree and
/// its size where no input is above 3 in size.
fn polynomial(random: &mut Random, n: usize) -> Tape {
    Tape::record(&vec![1.0; n], |x| {
        let mut values: Vec<(Var, u32, f64)> = x.iter().map(|&x| (x, 1, 3.0)).collect();
        let mut sum = (x[0], 1, 3.0);
        for _ in 0..4 + random.below(20) {
            let pick = |random: &mut Random| values[random.below(values.len())];
            let (a, b) = (pick(random), pick(random));
            let fits = a.1 + b.1 <= 6 && a.2 * b.2 < 1e8;
            let value = match random.below(8) {
                0..=3 if fits => (a.0 * b.0, a.1 + b.1, a.2 * b.2),
                4 if fits => (Var::dot(&[a.0, b.0], &[b.0, x[0]]), a.1 + b.1, a.2 * b.2 + 3.0 * b.2),
                5 => (Var::sum_of(&[a.0, b.0, -a.0, x[n - 1]]), a.1.max(b.1), 2.0 * a.2 + b.2 + 3.0),
                6 => (a.0 - b.0 * 2.0, a.1.max(b.1), a.2 + 2.0 * b.2),
                _ => (a.0 + b.0, a.1.max(b.1), a.2 + b.2),
            };
            if value.2 < 1e9 {
                values.push(value);
                sum = (sum.0 + value.0, sum.1.max(value.1), sum.2 + value.2);
            }
        }
        sum.0
    })
    .unwrap()
}

#[test]
fn polynomials_without_rounding_have_one_hessian() {
    let (mut random, mut quadratic) = (Random(1), 0);
    for program in 0..1000 {
        let n = 1 + program % 12;
        let tape = polynomial(&mut random, n);
        let x: Vec<f64> = (0..n).map(|_| random.below(7) as f64 - 3.0).collect();
        assert_ways_agree(&tape, &x, &format!("polynomial {program}"));
        quadratic += usize::from(tape.hessian(&x).unwrap().as_slice().iter().any(|&entry| entry != 0.0));
    }
    assert!(quadratic > 900, "{quadratic} polynomials are not linear");
}

fn rosenbrock<T: Rule>(x: &[T]) -> T {
    let terms: Vec<T> = x
        .windows(2)
        .map(|pair| {
            let (a, b) = (pair[1] - pair[0] * pair[0], T::lit(1.0) - pair[0]);
            a * a * 100.0 + b * b
        })
        .collect();
    T::sum_of(&terms)
}

#[test]
fn the_hessian_of_the_rosenbrock_function_is_the_one_by_hand() {
    let n = 20;
    let x: Vec<f64> = (0..n).map(|i| (i as f64 * 0.7).sin() * 1.5).collect();
    let tape = Tape::record(&vec![1.0; n], rosenbrock).unwrap();
    let hessian = tape.hessian(&x).unwrap();
    for i in 0..n {
        for j in 0..n {
            let diagonal = if i + 1 < n { 1200.0 * x[i] * x[i] - 400.0 * x[i + 1] + 2.0 } else { 0.0 };
            let by_hand = match i.abs_diff(j) {
                0 => diagonal + if i > 0 { 200.0 } else { 0.0 },
                1 => -400.0 * x[i.min(j)],
                _ => 0.0,
            };
            assert!((hessian[(i, j)] - by_hand).abs() <= 1e-12 * by_hand.abs().max(1000.0), "({i}, {j})");
        }
    }
}

#[test]
fn the_hessian_is_symmetric_and_its_upper_half_has_the_bits_of_hvp() {
    // The powers and quotients make rounding differ between both triangles.
    for n in [1, 2, 3, 4, 5, 8, 9, 12, 17] {
        let tape = Tape::record(&vec![0.5; n], |x| {
            let weights: Vec<Var> = (0..n).map(|i| (x[i] * (i as f64 + 1.0)).sin() / (x[(i + 1) % n] + 3.0)).collect();
            (Var::dot(&weights, x) + x[0]).tanh() * Var::sum_of(x).exp()
        })
        .unwrap();
        let x: Vec<f64> = (0..n).map(|i| 0.3 + (i as f64).cos() / 4.0).collect();
        let (mut ws, mut gradient, mut hessian) = (Workspace::new(), vec![7.0; n], Matrix::default());
        for level in SimdLevel::available() {
            ws.set_simd_level(level);
            let value = tape.gradient_hessian_into(&mut ws, &x, &mut gradient, &mut hessian).unwrap();
            let (expected, by_reverse) = tape.gradient(&x).unwrap();
            assert_same(&[value], &[expected], "the value");
            assert_same(&gradient, &by_reverse, "the gradient");
            for j in 0..n {
                let mut hv = vec![7.0; n];
                gradient.fill(7.0);
                let value = tape.gradient_hvp_into(&mut ws, &x, &unit(n, j), &mut gradient, &mut hv).unwrap();
                assert_same(&[value], &[expected], "the value of hvp");
                assert_same(&gradient, &by_reverse, "the gradient of hvp");
                for i in 0..n {
                    assert_same(&[hessian[(i, j)]], &[hessian[(j, i)]], format_args!("({i}, {j}) and ({j}, {i})"));
                    if i <= j {
                        assert_same(&[hessian[(i, j)]], &[hv[i]], format_args!("entry ({i}, {j}) at {level}"));
                    }
                }
            }
        }
    }
}

#[test]
fn hvp_is_the_hessian_times_the_vector() {
    let tape = Tape::record(&[1.0; 3], |x| (x[0] * x[1]).sin() + x[1].exp() * x[2].powi(3)).unwrap();
    let (x, v) = ([0.5, -1.25, 2.0], [3.0, -0.5, 0.25]);
    let (hessian, hv) = (tape.hessian(&x).unwrap(), tape.hvp(&x, &v).unwrap());
    for i in 0..3 {
        let expected: f64 = hessian.row(i).iter().zip(v).map(|(h, v)| h * v).sum();
        assert!((hv[i] - expected).abs() <= 1e-14 * expected.abs().max(1.0), "{hv:?}");
    }
    assert_eq!(tape.hvp(&x, &[0.0; 3]).unwrap(), [0.0; 3]);
}

#[test]
fn parameters_are_data() {
    let tape = Tape::builder()
        .inputs(&[], &[1.0, 1.0])
        .params(&[], &[2.0])
        .record(|x, k| x[0].powi(2) * k[0].exp() + x[0] * x[1] * k[0])
        .unwrap();
    for k in [2.0, -1.5] {
        let tape = tape.with_params(&[k]).unwrap();
        let expected = [2.0 * Rule::exp(k), k, k, 0.0];
        assert_equal(tape.hessian(&[3.0, 5.0]).unwrap().as_slice(), &expected, "the Hessian");
        assert_equal(&tape.hvp(&[3.0, 5.0], &[0.0, 2.0]).unwrap(), &[2.0 * k, 0.0], "hvp");
    }
}

#[test]
fn outputs_that_are_inputs_or_constants_have_no_curvature() {
    for tape in [
        Tape::record(&[1.0, 2.0], |x| x[1]).unwrap(),
        Tape::record(&[1.0, 2.0], |_| Var::from(4.0)).unwrap(),
        Tape::record(&[1.0, 2.0], |x| x[0] - x[1]).unwrap(),
    ] {
        assert_eq!(tape.hessian(&[f64::INFINITY, 5.0]).unwrap(), Matrix::zeros(2, 2));
        assert_eq!(tape.hvp(&[3.0, 5.0], &[1.0, -1.0]).unwrap(), [0.0; 2]);
    }
}

#[test]
fn a_changed_branch_is_an_error() {
    let tape = Tape::record(&[1.0], |x| if x[0] > 0.0 { x[0] * x[0] } else { -x[0] }).unwrap();
    assert_eq!(tape.hessian(&[2.0]).unwrap()[(0, 0)], 2.0);
    assert!(matches!(tape.hessian(&[-2.0]), Err(Error::BranchChanged { lhs: -2.0, sample: None, .. })));
    assert!(matches!(tape.hvp(&[-2.0], &[1.0]), Err(Error::BranchChanged { lhs: -2.0, sample: None, .. })));
}

/// A NaN concerns its own direction and no other: 0·∞ is 0 where the 0 is exact,
/// and a value outside its domain has NaN derivatives.
#[test]
fn the_strict_rule_decides_where_a_nan_shows() {
    let tape = Tape::record(&[1.0, 1.0], |x| x[0].sqrt() + x[1].powi(3)).unwrap();
    let at_edge = [f64::NEG_INFINITY, 0.0, 0.0, 12.0];
    assert_equal(tape.hessian(&[0.0, 2.0]).unwrap().as_slice(), &at_edge, "√ at 0");
    assert_equal(&tape.hvp(&[0.0, 2.0], &[0.0, 1.0]).unwrap(), &[0.0, 12.0], "along the other input");
    let outside = [f64::NAN, 0.0, 0.0, 12.0];
    assert_equal(tape.hessian(&[-1.0, 2.0]).unwrap().as_slice(), &outside, "√ at −1");
    // The branch that is not taken is outside its domain.
    let tape = Tape::record(&[1.0], |x| x[0].select_gt(0.0, x[0].ln(), x[0] * x[0])).unwrap();
    assert_equal(tape.hessian(&[-1.0]).unwrap().as_slice(), &[2.0], "a branch not taken");
    let tape = Tape::record(&[1.0, 1.0], |x| x[0].max(x[1])).unwrap();
    assert_equal(tape.hessian(&[1.0, 1.0]).unwrap().as_slice(), &[0.0; 4], "a tie");
}

/// The adjoint of sin x at 0 is 2·sin x = 0, and its tangent 2·cos x·ẋ is not: the reference
/// sweep, which runs here because √y makes a NaN at 0, goes on with it.
#[test]
fn an_adjoint_of_0_with_a_tangent_is_passed_on() {
    let tape = Tape::record(&[0.5, 0.5], |x| x[0].sin().powi(2) + x[1].sqrt()).unwrap();
    assert_equal(&tape.hvp(&[0.0, 0.0], &[1.0, 0.0]).unwrap(), &[2.0, 0.0], "√ at 0");
    assert_equal(&tape.hvp(&[0.0, 4.0], &[1.0, 0.0]).unwrap(), &[2.0, 0.0], "√ at 4");
}
