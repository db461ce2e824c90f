//! All laws that hold for every program, over one generator of random programs
//! (`common/programs.rs`): steps of every operation, chains, folds, guards,
//! parameters, several outputs, and calls of functions that are random programs
//! too (call, map, sum, scan). A law says in a few lines what is compared; how
//! it is compared stands in `common/`.
//!
//! `LAW_CASES=100000 cargo test --release -p ad-core --test laws` looks further.
//! Every case is drawn from its number, so a failure repeats; and what breaks a
//! law is made smaller before it is printed, as the list of its steps.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::ops::Operation;
use ad_core::{Answer, Dual, Error, Lanes, Question, Rule, Samples, SimdLevel, Tape, Var, Workspace};
use common::agreement::*;
use common::calls::check_twins;
use common::cases::law;
use common::derivatives::Derivatives;
use common::optimized::{check_optimized, optimized};
use common::programs::{Program, Purpose, Random};
use common::sparse::{check_hessian, check_jacobian};
use common::{assert_equal, assert_same, equal};

/// Any program.
const ANY: Purpose = Purpose { single: false, params: false, guarded: 30, calls: 25 };
/// One output, as gradients and second derivatives need.
const SINGLE: Purpose = Purpose { single: true, ..ANY };
/// One output and parameters, as sums over samples need.
const SUMMED: Purpose = Purpose { single: true, params: true, ..ANY };
/// The same steps wherever it runs.
const PLAIN: Purpose = Purpose { calls: 0, ..ANY };

/// A program's tape at the point of its recording and at others, with other parameters.
fn at_points(program: &Program, random: &mut Random, mut check: impl FnMut(&Tape, &[f64], &mut Random)) {
    check(&program.tape, &program.x0, random);
    for _ in 0..random.below(3) {
        let (x, k) = (random.point(program.x0.len()), random.point(program.k0.len()));
        check(&program.tape.with_params(&k).unwrap(), &x, random);
    }
}

/// A level of vector instructions that the machine has, and a number of lanes.
fn any_lanes(random: &mut Random) -> (SimdLevel, usize) {
    (random.one_of(&SimdLevel::available()), random.one_of(&LANES))
}

// The engines have the bits of the reference sweeps.

#[test]
fn the_scalar_engine_has_the_bits_of_the_reference_sweeps() {
    let (mut ws, mut directions) = (Workspace::new(), Directions::default());
    law(1, |random, seen| {
        let program = Program::new(random, ANY);
        at_points(&program, random, |tape, x, random| {
            let columns = random.one_of(&[1, 3, 4, 7, 8, 15, 16, 17, 33]);
            check_scalar_engine(tape, x, columns, random, &mut ws, &mut directions, seen);
        });
    })
    .saw("finite", 50)
    .saw("not finite", 10)
    .saw("changed", 5);
}

#[test]
fn many_points_have_the_bits_of_each_alone() {
    let mut ws = Workspace::new();
    law(2, |random, seen| {
        let program = Program::new(random, Purpose { guarded: 20, ..ANY });
        let lanes = any_lanes(random);
        let points = points_of(&program, random);
        check_many_points(&program.tape, &points, lanes, &mut ws, seen);
        if !program.tape.guards().is_empty() {
            let points = on_branch(&program, points);
            check_many_points(&program.tape, &points, lanes, &mut ws, seen);
        }
    })
    .saw("finite", 50)
    .saw("not finite", 20)
    .saw("changed", 2);
}

#[test]
fn sums_over_samples_have_the_bits_of_the_stated_fold() {
    let mut ws = Workspace::new();
    law(3, |random, seen| {
        let program = Program::new(random, Purpose { guarded: 20, ..SUMMED });
        let edges = random.chance(33);
        let (x, samples) = samples_of(&program, random, edges);
        let terms = terms_of(&program.tape, &x, &samples);
        let count = random.one_of(&[1, 2, 5, 15, 16, 17, 33, 64, 65, 150]);
        let mut idx = indices(random, count, ROWS);
        // Once more, if samples change the branch, with those that do not.
        let kept: Vec<usize> = (0..ROWS).filter(|&i| terms[i].is_ok()).collect();
        for _ in 0..2 {
            let expected = expected_sum(&terms, &idx);
            seen.sum(&expected);
            check_sums(&program.tape, &x, &samples, &idx, &expected, any_lanes(random), &mut ws);
            if expected.is_ok() || kept.is_empty() {
                break;
            }
            idx = indices(random, count, kept.len()).into_iter().map(|i| kept[i]).collect();
        }
    })
    .saw("finite", 40)
    .saw("not finite", 5)
    .saw("changed", 2);
}

#[test]
fn sums_do_not_depend_on_the_number_of_threads() {
    law(4, |random, seen| {
        let program = Program::new(random, SUMMED);
        let edges = random.chance(25);
        let (x, samples) = samples_of(&program, random, edges);
        let terms = terms_of(&program.tape, &x, &samples);
        let count = random.one_of(&[65, 150, 64, 200, 321, 700, 5, 128]);
        let idx = indices(random, count, ROWS);
        let expected = expected_sum(&terms, &idx);
        seen.sum(&expected);
        for threads in [1, 2, 3, 4, 8] {
            let sum = program.tape.sum_gradient_threads(&x, &samples, &idx, threads);
            let sum = sum.map(|(value, gradient)| [vec![value], gradient].concat());
            assert_sum(sum, &expected, format_args!("{threads} threads, {count} samples, of\n{}", program.tape));
        }
    })
    .saw("finite", 40)
    .saw("not finite", 5)
    .saw("changed", 2);
}

#[test]
fn the_first_changed_branch_is_the_same_from_every_engine() {
    let mut ws = Workspace::new();
    law(5, |random, seen| {
        let program = Program::new(random, Purpose { guarded: 100, ..SUMMED });
        if program.tape.guards().is_empty() {
            return;
        }
        // Most rows are those of the recording, whose branches hold.
        let few = random.one_of(&[1, 5, 30]);
        let other = |random: &mut Random| match random.chance(few) {
            true => random.point(program.k0.len()),
            false => program.k0.clone(),
        };
        let rows: Vec<f64> = (0..ROWS).flat_map(|_| other(random)).collect();
        let samples = Samples::from_rows(&program.tape, &rows).unwrap();
        let terms = terms_of(&program.tape, &program.x0, &samples);
        let count = random.one_of(&[1, 2, 5, 15, 16, 17, 33, 64, 65, 150]);
        let idx = indices(random, count, ROWS);
        let expected = expected_sum(&terms, &idx);
        seen.sum(&expected);
        let points: Vec<Vec<f64>> = idx.iter().map(|&i| [&program.x0, samples.row(i)].concat()).collect();
        let lanes = any_lanes(random);
        check_sums(&program.tape, &program.x0, &samples, &idx, &expected, lanes, &mut ws);
        check_many_points(&program.tape, &points, lanes, &mut ws, seen);
    })
    .saw("changed", 10);
}

#[test]
fn second_derivatives_have_the_same_bits_in_every_sweep() {
    let (mut ws, levels) = (Workspace::new(), SimdLevel::available());
    law(6, |random, seen| {
        let program = Program::new(random, Purpose { guarded: 20, ..SINGLE });
        ws.set_simd_level(random.one_of(&levels));
        at_points(&program, random, |tape, x, random| {
            let columns = check_second_order(tape, x, random, &mut ws, seen);
            if let Some(columns) = columns.filter(|_| x == program.x0) {
                check_with_duals(tape, x, &columns, seen);
            }
        });
    })
    .saw("finite", 50)
    .saw("not finite", 10)
    .saw("changed", 2)
    .saw("compared with duals", 30)
    .saw_at_most_once_in(500, "far from duals");
}

// What was computed before leaves no trace.

#[test]
fn a_warm_workspace_is_as_good_as_a_fresh_one() {
    let mut warm = Workspace::new();
    law(7, |random, seen| {
        let program = Program::new(random, SUMMED);
        let given = Given::new(&program, random);
        for _ in 0..6 {
            let (name, driver) = random.one_of(&DRIVERS);
            let what = described(|f| write!(f, "{name} at {:?} of\n{}", given.x, given.tape));
            let fresh = driver(&given, Some(&mut Workspace::new()));
            match (driver(&given, Some(&mut warm)), driver(&given, None), fresh) {
                (Ok(warm), Ok(allocating), Ok(fresh)) => {
                    seen.result(&fresh);
                    assert_same(&warm, &fresh, &what);
                    assert_same(&allocating, &fresh, &what);
                }
                (Err(warm), Err(allocating), Err(fresh)) => {
                    seen.note("changed");
                    assert_eq!([warm, allocating].map(|error| error.to_string()), [(); 2].map(|()| fresh.to_string()));
                }
                other => panic!("{other:?}: {what}"),
            }
        }
    })
    .saw("finite", 200)
    .saw("not finite", 20)
    .saw("changed", 5);
}

// Derivatives are derivatives.

/// A bound of what rounding does: the sizes of the products of partials, added
/// up over all paths.
#[derive(Debug, Clone, Copy)]
struct Paths {
    value: f64,
    size: f64,
}

impl From<f64> for Paths {
    fn from(value: f64) -> Paths {
        Paths { value, size: 0.0 }
    }
}

impl Rule for Paths {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Paths; N]) -> [Paths; M] {
        let numbers = x.map(|x| x.value);
        let v = O::value(numbers);
        let of = |j, i: usize| if x[i].size != 0.0 { O::partial(j, i, numbers, v).abs() * x[i].size } else { 0.0 };
        // Outside of its domain nothing is known.
        let size = |j: usize| if v[j].is_nan() { f64::NAN } else { (0..N).map(|i| of(j, i)).sum() };
        std::array::from_fn(|j| Paths { value: v[j], size: size(j) })
    }

    fn confirm(question: Question, answer: Answer, a: Paths, b: Paths) -> Result<(), (Answer, f64, f64)> {
        f64::confirm(question, answer, a.value, b.value)
    }
}
ad_core::rule_operators!([] Paths);

/// How far derivatives along p may be apart by rounding, each output by w; none
/// where they are too large to tell.
fn rounding(tape: &Tape, x: &[f64], p: &[f64], w: &[f64]) -> Option<f64> {
    let x: Vec<Paths> = x.iter().zip(p).map(|(&value, p)| Paths { value, size: p.abs() }).collect();
    let y = match tape.eval_with(&x) {
        // The adjoints of a function are computed in few number types.
        Err(Error::OnlyNumbers { .. }) => return None,
        y => y.unwrap(),
    };
    let size: f64 = y.iter().zip(w).map(|(y, w)| y.size * w.abs()).sum();
    (size < 1e100).then_some(1e-12 * size + 1e-100)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn directions(tape: &Tape, random: &mut Random) -> (Vec<f64>, Vec<f64>) {
    (random.numbers(tape.num_inputs(), &[0.0], 10), random.numbers(tape.num_outputs(), &[0.0], 10))
}

/// ⟨w, J·p⟩ = ⟨Jᵀ·w, p⟩, and so says the Jacobian.
#[test]
fn forward_and_reverse_are_adjoint() {
    law(8, |random, seen| {
        let Program { tape, x0, .. } = &Program::new(random, ANY);
        let (p, w) = directions(tape, random);
        let (dy, xbar) = (tape.jvp(x0, &p).unwrap().1, tape.vjp(x0, &w).unwrap().1);
        let Some(rounding) = rounding(tape, x0, &p, &w) else { return };
        let jacobian = tape.jacobian(x0).unwrap();
        let by_jacobian: f64 = (0..w.len()).map(|j| w[j] * dot(jacobian.row(j), &p)).sum();
        let [forward, reverse] = [dot(&w, &dy), dot(&xbar, &p)];
        // What p or w leave out may be infinite, and 0 times that is no number.
        if ![forward, reverse, by_jacobian].iter().all(|product| product.is_finite()) {
            return;
        }
        for other in [reverse, by_jacobian] {
            assert!(
                (forward - other).abs() <= rounding,
                "{forward} {other} ± {rounding} at {x0:?}, {p:?}, {w:?} of\n{tape}"
            );
        }
        seen.note("compared");
    })
    .saw("compared", 70);
}

/// −p gives −J·p, exactly; p + q gives J·p + J·q.
#[test]
fn derivatives_are_linear() {
    law(9, |random, seen| {
        let Program { tape, x0, .. } = &Program::new(random, ANY);
        let ((p, w), (q, v)) = (directions(tape, random), directions(tape, random));
        let forward = |p: &[f64]| tape.jvp(x0, p).unwrap().1;
        let reverse = |w: &[f64]| tape.vjp(x0, w).unwrap().1;
        let negated = |p: &[f64]| p.iter().map(|p| -p).collect::<Vec<f64>>();
        assert_equal(&forward(&negated(&p)), &negated(&forward(&p)), format_args!("−p at {x0:?}, {p:?} of\n{tape}"));
        assert_equal(&reverse(&negated(&w)), &negated(&reverse(&w)), format_args!("−w at {x0:?}, {w:?} of\n{tape}"));
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
        let sizes = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.abs() + b.abs()).collect::<Vec<f64>>();
        let close = |a: &[f64], b: &[f64], rounding: f64| {
            let near = a.iter().zip(b).all(|(&a, &b)| equal(a, b) || (a - b).abs() <= rounding);
            assert!(near, "{a:?} {b:?} ± {rounding} at {x0:?} of\n{tape}");
        };
        if let Some(rounding) = rounding(tape, x0, &sizes(&p, &q), &vec![1.0; w.len()]) {
            close(&forward(&sum(&p, &q)), &sum(&forward(&p), &forward(&q)), rounding);
            seen.note("compared");
        }
        if let Some(rounding) = rounding(tape, x0, &vec![1.0; p.len()], &sizes(&w, &v)) {
            close(&reverse(&sum(&w, &v)), &sum(&reverse(&w), &reverse(&v)), rounding);
        }
    })
    .saw("compared", 70);
}

#[test]
fn sparse_derivatives_are_the_dense_ones() {
    law(10, |random, seen| {
        let Program { tape, x0, .. } = &Program::new(random, PLAIN);
        check_jacobian(tape, x0, "a random program");
        seen.note(if tape.num_outputs() == 1 { "Hessian" } else { "Jacobian" });
        if tape.num_outputs() == 1 {
            check_hessian(tape, x0, "a random program");
        }
    })
    .saw("Hessian", 20)
    .saw("Jacobian", 20);
}

// Other number types, other recordings, other ways to write it.

#[test]
fn every_number_type_has_the_same_bits() {
    law(11, |random, seen| {
        let program = Program::new(random, ANY);
        let (x, k) = (random.point(program.x0.len()), random.point(program.k0.len()));
        let recorded = program.record(&x, &k);
        let (recalled, x0, k0) = (&program.tape, &program.x0, &program.k0);
        for (tape, x, k) in [(&recorded, &x, &k), (recalled, x0, k0)] {
            let what = described(|f| write!(f, "at {x:?}, {k:?} of\n{tape}"));
            let p = random.seed(x.len());
            let (y, dy) = tape.jvp(x, &p).unwrap();
            seen.result(&y);
            assert_same(&program.run(x, k), &y, format_args!("plain code {what}"));

            let duals: Vec<Dual> = x.iter().zip(&p).map(|(&x, &p)| Dual::new(x, p)).collect();
            let constants: Vec<Dual> = k.iter().map(|&k| Dual::from(k)).collect();
            let (called, replayed) = (program.run(&duals, &constants), tape.eval_with(&duals).unwrap());
            let values = |duals: &[Dual]| duals.iter().map(|y| y.v).collect::<Vec<f64>>();
            let tangents = |duals: &[Dual]| duals.iter().map(|y| y.dv).collect::<Vec<f64>>();
            assert_same(&values(&called), &y, format_args!("the values of Dual {what}"));
            assert_same(&values(&replayed), &y, format_args!("the values of Dual {what}"));
            assert_equal(&tangents(&replayed), &dy, format_args!("Dual {what}"));
            if tape.functions().is_empty() {
                assert_equal(&tangents(&called), &dy, format_args!("Dual {what}"));
            }

            let again = Tape::record(x, |x| tape.eval_with(x).unwrap()).unwrap();
            assert_same(&again.eval(x).unwrap(), &y, format_args!("recorded again {what}"));
            let tangents = again.jvp(x, &p).unwrap().1;
            assert_equal(&tangents, &dy, format_args!("the tangents recorded again {what}"));
            if tape.functions().is_empty() {
                assert_same(&tangents, &dy, format_args!("the tangents recorded again {what}"));
            }
        }
    })
    .saw("finite", 80)
    .saw("not finite", 20);
}

#[test]
fn each_lane_has_the_bits_of_f64() {
    law(12, |random, seen| {
        let Program { tape, x0, .. } = &Program::new(random, ANY);
        let points = [random.point(x0.len()), random.numbers(x0.len(), &[], 0), x0.clone(), x0.clone()];
        let block: Vec<Lanes<4>> = (0..x0.len()).map(|i| Lanes([0, 1, 2, 3].map(|lane| points[lane][i]))).collect();
        let each = points.each_ref().map(|x| tape.eval(x));
        match tape.eval_with(&block) {
            Ok(lanes) => {
                for (lane, alone) in each.into_iter().enumerate() {
                    let lane: Vec<f64> = lanes.iter().map(|y| y.0[lane]).collect();
                    assert_same(&lane, &alone.unwrap(), format_args!("at {points:?} of\n{tape}"));
                }
                seen.note("agreed");
            }
            Err(error) => {
                assert!(matches!(error, Error::BranchChanged { .. }), "{error}");
                assert!(each.iter().any(Result::is_err), "at {points:?} of\n{tape}");
                seen.note("changed");
            }
        }
    })
    .saw("agreed", 60)
    .saw("changed", 3);
}

/// A replay gives what a recording at the new point gives, or says which
/// comparison would be answered otherwise.
#[test]
fn replaying_is_recording_again() {
    law(13, |random, seen| {
        let program = Program::new(random, PLAIN);
        let (x, k) = (random.point(program.x0.len()), random.point(program.k0.len()));
        let tape = program.tape.with_params(&k).unwrap();
        let again = program.record(&x, &k);
        let what = described(|f| write!(f, "at {x:?}, {k:?} of\n{tape}"));
        match tape.eval(&x) {
            Ok(y) => {
                let (p, w) = (random.seed(x.len()), random.seed(y.len()));
                assert_same(&again.eval(&x).unwrap(), &y, &what);
                assert_same(&again.jvp(&x, &p).unwrap().1, &tape.jvp(&x, &p).unwrap().1, &what);
                assert_same(&again.vjp(&x, &w).unwrap().1, &tape.vjp(&x, &w).unwrap().1, &what);
                assert_eq!(tape.to_string(), again.to_string());
                seen.note("the same");
            }
            Err(Error::BranchChanged { guard, now, .. }) => {
                let first = tape.guards().iter().zip(again.guards()).find(|(then, now)| then.answer() != now.answer());
                let (then, other) = first.expect("a guard that is answered otherwise");
                assert_eq!((then, other.answer(), then.location()), (&*guard, now, other.location()), "{what}");
                seen.note("changed");
            }
            Err(other) => panic!("{other} {what}"),
        }
    })
    .saw("the same", 60)
    .saw("changed", 5);
}

/// with_params is recording with these parameters, and with these constants.
#[test]
fn parameters_are_constants_of_the_replay() {
    law(14, |random, _| {
        let program = Program::new(random, Purpose { guarded: 0, params: true, ..PLAIN });
        let (x, k) = (random.point(program.x0.len()), random.point(program.k0.len()));
        let with = program.tape.with_params(&k).unwrap();
        let constants: Vec<Var> = k.iter().map(|&k| Var::from(k)).collect();
        let baked = Tape::record(&x, |x| program.run(x, &constants)).unwrap();
        let (p, w) = (random.seed(x.len()), random.seed(with.num_outputs()));
        for other in [program.record(&x, &k), baked] {
            let what = described(|f| write!(f, "at {x:?}, {k:?} of\n{with}\n{other}"));
            assert_same(&other.jvp(&x, &p).unwrap().1, &with.jvp(&x, &p).unwrap().1, &what);
            let (mine, theirs) = (with.vjp(&x, &w).unwrap(), other.vjp(&x, &w).unwrap());
            assert_same(&theirs.0, &mine.0, &what);
            assert_same(&theirs.1, &mine.1, &what);
        }
    });
}

#[test]
fn a_call_is_the_code_written_out() {
    law(15, |random, seen| {
        let program = Program::new(random, Purpose { guarded: 20, calls: 100, ..ANY });
        let flat = program.record(&program.x0, &program.k0);
        assert!(flat.functions().is_empty());
        for function in program.tape.functions() {
            let name = function.to_string();
            let kind = ["map", "Σ", "scan"].into_iter().find(|word| name.starts_with(word));
            seen.note(kind.unwrap_or("call"));
            if !function.body().unwrap().functions().is_empty() {
                seen.note("nested");
            }
        }
        check_twins(&program.tape, &flat, &program.x0, seen);
        let (x, k) = (random.point(program.x0.len()), random.point(program.k0.len()));
        let [called, flat] = [&program.tape, &flat].map(|tape| tape.with_params(&k).unwrap());
        check_twins(&called, &flat, &x, seen);
    })
    .saw("finite", 70)
    .saw("changed", 3)
    .saw("derivatives", 500)
    .saw("call", 10)
    .saw("map", 5)
    .saw("Σ", 5)
    .saw("scan", 10)
    .saw("nested", 5)
    .saw_at_most_once_in(20, "far")
    .saw_at_most_once_in(500, "another guard");
}

// A tape made of a tape computes the same.

/// What makes a tape of a tape that keeps the bits of values, and tangents as numbers.
type Pass = (&'static str, fn(&Tape) -> Tape);

const PASSES: &[Pass] = &[
    ("clone", |tape| tape.clone()),
    ("with_params", |tape| tape.with_params(tape.params()).unwrap()),
    ("optimized", |tape| optimized(tape)),
];

#[test]
fn passes_keep_values_and_tangents() {
    law(16, |random, seen| {
        let program = Program::new(random, ANY);
        let (_, pass) = random.one_of(PASSES);
        let passed = pass(&program.tape);
        if passed.len() < program.tape.len() {
            seen.note("fewer rows");
        }
        at_points(&program, random, |tape, x, random| {
            let (p, w) = (random.seed(tape.num_inputs()), random.seed(tape.num_outputs()));
            let passed = passed.with_params(tape.params()).unwrap();
            if check_optimized(tape, &passed, x, &p, &w) {
                seen.note("changed");
            }
        });
    })
    .saw("fewer rows", 15)
    .saw("changed", 5);
}

#[test]
fn derivative_tapes_agree_with_the_drivers() {
    law(17, |random, seen| {
        let program = Program::new(random, Purpose { guarded: 20, ..ANY });
        let derivatives = Derivatives::new(&program.tape);
        at_points(&program, random, |tape, x, random| {
            let (p, w) = (random.seed(tape.num_inputs()), random.seed(tape.num_outputs()));
            derivatives.with_params(tape.params()).check(x, &p, &w, seen);
        });
    })
    .saw("finite", 50)
    .saw("not finite", 10)
    .saw("changed", 3);
}

#[test]
fn derivative_tapes_of_derivative_tapes_agree_with_the_drivers() {
    law(18, |random, seen| {
        let program = Program::new(random, Purpose { guarded: 20, ..SINGLE });
        let first = if random.chance(50) { program.tape.gradient_tape() } else { program.tape.jvp_tape() }.unwrap();
        let second = Derivatives::new(&first);
        at_points(&program, random, |tape, x, random| {
            let (n, m) = (first.num_inputs(), first.num_outputs());
            let x = [x, &random.seed(n - x.len())].concat();
            second.with_params(tape.params()).check(&x, &random.seed(n), &random.seed(m), seen);
        });
    })
    .saw("finite", 40)
    .saw("not finite", 5)
    .saw_at_most_once_in(20, "far");
}

/// Only what folds or is shared in the tape itself is left to do for `optimized`.
#[test]
fn derivative_tapes_have_nothing_left_to_share() {
    law(19, |random, _| {
        let Program { tape, .. } = Program::new(random, Purpose { guarded: 0, ..Purpose { single: true, ..PLAIN } });
        let tape = optimized(&tape);
        let derivative = tape.gradient_tape().unwrap();
        let shorter = derivative.optimized();
        assert_eq!((shorter.report.folded, shorter.report.shared), (0, 0), "{derivative}");
        let x = random.point(tape.num_inputs());
        assert_same(&shorter.eval(&x).unwrap(), &derivative.eval(&x).unwrap(), &derivative);
    });
}

/// H·v is the derivative of the gradient tape along v.
#[test]
fn hvp_is_the_derivative_of_the_gradient() {
    law(20, |random, seen| {
        let Program { tape, x0, .. } = &Program::new(random, SINGLE);
        let (v, _) = directions(tape, random);
        let gradient = tape.gradient_tape().unwrap();
        let (first, by_tape) = gradient.jvp(x0, &v).unwrap();
        // With infinite terms a sum may be NaN in one order and not in another.
        if !first.iter().chain(&tape.eval(x0).unwrap()).all(|number| number.is_finite()) {
            return;
        }
        let product = tape.hvp(x0, &v).unwrap();
        let Some(rounding) = rounding(&gradient, x0, &v, &vec![1.0; v.len()]) else { return };
        let near = by_tape.iter().zip(&product).all(|(a, b)| (a - b).abs() <= 100.0 * rounding);
        assert!(near, "{by_tape:?} {product:?} ± {rounding} at {x0:?}, {v:?} of\n{tape}");
        seen.note("compared");
    })
    .saw("compared", 50);
}

// The tools for doubt.

/// `diagnose` speaks exactly if a driver returns something that is not finite,
/// and what it names is not finite while what it reads is no excuse.
#[test]
fn diagnoses_agree_with_the_drivers() {
    law(21, |random, seen| {
        let program = Program::new(random, PLAIN);
        let (x, k) = (random.point(program.x0.len()), random.point(program.k0.len()));
        let tape = program.record(&x, &k);
        let (p, w) = (random.seed(x.len()), random.seed(tape.num_outputs()));
        let finite = |a: &[f64], b: &[f64]| a.iter().chain(b).all(|number| number.is_finite());
        let (y, dy) = tape.jvp(&x, &p).unwrap();
        let found = tape.diagnose(&x, &p).unwrap();
        assert_eq!(found.is_none(), finite(&y, &dy), "{found:?} at {x:?} of\n{tape}");
        if let Some(found) = found {
            let derivative = found.origin.derivative.unwrap_or(0.0);
            assert!(!found.origin.value.is_finite() || !derivative.is_finite(), "{found}");
            assert!(found.path.last().is_some_and(|last| last.name == found.origin.name), "{found}");
            seen.note("found");
        }
        let (y, xbar) = tape.vjp(&x, &w).unwrap();
        let found = tape.diagnose_adjoint(&x, &w).unwrap();
        assert_eq!(found.is_none(), finite(&y, &xbar), "{found:?} at {x:?} of\n{tape}");
    })
    .saw("found", 10);
}

/// The derivatives are right, so there is never an alarm. (The edges of each
/// operation are in tests/check.rs.)
#[test]
fn self_checks_raise_no_alarm() {
    law(24, |random, _| {
        let Program { tape, x0, .. } = &Program::new(random, PLAIN);
        let check = tape.self_check(x0).unwrap();
        assert!(check.passed(), "{check} at {x0:?} of\n{tape}");
    });
}

/// Tapes differ exactly if their hashes do; a difference is one in both directions.
#[test]
fn differences_agree_with_hashes() {
    law(22, |random, seen| {
        let start = random.place();
        let program = Program::new(random, ANY);
        let mut drawn = random.drawn()[start..].to_vec();
        let place = random.below(drawn.len());
        drawn[place] = drawn[place].wrapping_add(1 + random.below(5) as u64);
        let other = Program::new(&mut Random::of(drawn), ANY);
        let again = Program::new(&mut Random::of(random.drawn()[start..].to_vec()), ANY);
        let [old, same, new] = [&program, &again, &other].map(|program| &program.tape);
        assert!(old.diff(same).is_empty() && old.content_hash() == same.content_hash(), "{old}\n{same}");
        for (a, b) in [(old, new), (new, old)] {
            let diff = a.diff(b);
            assert_eq!(diff.is_empty(), a.content_hash() == b.content_hash(), "{diff}\n{a}\n{b}");
        }
        seen.note(if old.diff(new).is_empty() { "alike" } else { "other" });
    })
    .saw("alike", 10)
    .saw("other", 20);
}

// Files.

/// Written and read again, a tape is the same list with the same results.
#[test]
fn saving_and_loading_is_identity() {
    law(24, |random, seen| {
        let program = Program::new(random, SUMMED);
        let derived = random.chance(25).then(|| program.tape.gradient_tape().ok()).flatten();
        for tape in [Some(program.tape.clone()), Some(program.tape.optimized().tape), derived].into_iter().flatten() {
            let bytes_of = |tape: &Tape| {
                let mut bytes = Vec::new();
                tape.write_to(&mut bytes).unwrap();
                bytes
            };
            let bytes = bytes_of(&tape);
            let loaded = Tape::read_from(&bytes[..]).unwrap();
            assert!(tape.diff(&loaded).is_empty() && tape.to_string() == loaded.to_string(), "{tape}");
            assert_eq!((tape.content_hash(), bytes), (loaded.content_hash(), bytes_of(&loaded)), "{tape}");
            let (x, w) = (random.point(tape.num_inputs()), random.seed(tape.num_outputs()));
            match (tape.vjp(&x, &w), loaded.vjp(&x, &w)) {
                (Ok((y, xbar)), Ok((loaded_y, loaded_xbar))) => {
                    assert_same(&[y, xbar].concat(), &[loaded_y, loaded_xbar].concat(), &tape);
                    seen.note("replayed");
                }
                (before, after) => {
                    assert_eq!(before.map_err(|e| e.to_string()), after.map_err(|e| e.to_string()), "{tape}");
                    seen.note("changed");
                }
            }
        }
    })
    .saw("replayed", 50)
    .saw("changed", 2);
}

// Debug or release, this machine or another.

/// What programs compute has one hash in every build and on every machine. It is
/// another one if the programs are others: then what this prints is right.
#[test]
fn every_build_computes_the_same_numbers() {
    const HASH: u64 = 0xD4D2_480D_29AB_8ECB;
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut digest = |numbers: &[f64]| {
        for number in numbers {
            let bits = if number.is_nan() { f64::NAN.to_bits() } else { number.to_bits() };
            hash = (hash ^ bits).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
    };
    for case in 0..300 {
        let random = &mut Random::new(23, case);
        let program = Program::new(random, SUMMED);
        let given = Given::new(&program, random);
        for (_, driver) in DRIVERS {
            digest(&driver(&given, None).unwrap_or_default());
        }
    }
    assert_eq!(hash, HASH, "the hash is {hash:#018x}");
}

// The search for small counterexamples.

#[test]
fn a_broken_law_is_told_by_its_smallest_case() {
    let told = std::panic::catch_unwind(|| {
        law(25, |random, _| {
            let Program { tape, .. } = Program::new(random, ANY);
            assert!(!tape.to_string().contains(" = tanh("), "{tape}");
        })
    });
    let told = *told.err().unwrap().downcast::<String>().unwrap();
    assert!(told.contains("breaks the law") && told.contains(" = tanh("), "{told}");
    assert!(told.lines().count() <= 12, "{told}");
}
