//! Every operation of the table alone in every engine, at ordinary points and at
//! edges, against the reference sweeps, to the last bit; and sums over samples of
//! every length. (`laws.rs` does that for random programs.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Error, Matrix, Op, Samples, SimdLevel, Tape, Var, Workspace};
use common::agreement::{
    Directions, LANES, Seen, assert_sum, check_many_points, check_scalar_engine, check_sums, expected_sum, fold_of,
    terms_of,
};
use common::programs::{Random, call, operands_of};
use common::{all_same, assert_same, product, same, takes_constant};

/// Columns of J·P: one, and around the widths of the sweeps.
const COLUMNS: [usize; 5] = [1, 3, 4, 7, 8];

// Every operation.

/// An operation alone: the operands of the mask `active` are inputs, the others parameters.
struct Alone {
    tape: Tape,
    /// The points of its inputs, and of its parameters.
    points: Vec<Vec<f64>>,
    rows: Vec<Vec<f64>>,
}

impl Alone {
    /// Records the results of the operation, twice each if `twice`, or else their sum.
    fn new(op: Op, c: f64, active: usize, twice: bool) -> Alone {
        let probes = &op.info().probes[..operands_of(op)];
        let of = |side: bool| -> Vec<&[f64]> {
            (0..probes.len()).filter(|i| (active >> i & 1 == 1) == side).map(|i| probes[i]).collect()
        };
        let (points, rows) = (product(&of(true)), product(&of(false)));
        let record = |x: &[Var], k: &[Var]| {
            let (mut inputs, mut params) = (x.iter(), k.iter());
            let operand = |i| if active >> i & 1 == 1 { inputs.next() } else { params.next() };
            let operands: Vec<Var> = (0..probes.len()).filter_map(operand).copied().collect();
            let results = call(op, &operands, c);
            match twice {
                true => [&results[..], &results].concat(),
                // The two results of a pair, each with a weight of its own.
                false if results.len() > 1 => vec![results[0] * 0.75 - results[1]],
                false => results,
            }
        };
        let tape = Tape::builder().inputs(&[], &points[0]).params(&[], &rows[0]).record(record).unwrap();
        Alone { tape, points, rows }
    }
}

/// Every operation, with each constant of it, each one of its operands active and all of them.
fn for_each_operation(mut check: impl FnMut(Op, f64, usize)) {
    for &op in Op::ALL {
        let constants = if takes_constant(op) { op.info().probes[1] } else { &[0.0] };
        let operands = operands_of(op);
        for &c in constants {
            for i in (0..operands).filter(|_| operands > 1) {
                check(op, c, 1 << i);
            }
            check(op, c, (1 << operands) - 1);
        }
    }
}

/// So many of a list at most, spread over it.
fn thinned<T: Clone>(list: &[T], most: usize) -> Vec<T> {
    list.iter().step_by(list.len().div_ceil(most)).cloned().collect()
}

#[test]
fn every_operation_alone_in_the_scalar_engine() {
    let (mut ws, mut directions, mut seen) = (Workspace::new(), Directions::default(), Seen::default());
    let random = &mut Random::new(6, 0);
    for_each_operation(|op, c, active| {
        for twice in [false, true] {
            let Alone { tape, points, rows } = Alone::new(op, c, active, twice);
            for k in thinned(&rows, 20) {
                let tape = tape.with_params(&k).unwrap();
                for x in thinned(&points, 60) {
                    let columns = random.one_of(&COLUMNS);
                    check_scalar_engine(&tape, &x, columns, random, &mut ws, &mut directions, &mut seen);
                }
            }
        }
    });
    assert!(seen.times("finite") > 1000 && seen.times("not finite") > 1000, "{seen:?}");
}

// Operators, and rows that are joined.

type Operator = fn(Var, Var) -> Var;

const OPERATORS: [Operator; 4] = [|a, b| a + b, |a, b| a - b, |a, b| a * b, |a, b| a / b];

/// One operator, or a second one of whose operands the first one's result is the first or the second.
const OUTER: [Option<(Operator, bool)>; 9] = {
    let [add, sub, mul, div] = OPERATORS;
    [
        None,
        Some((add, false)),
        Some((add, true)),
        Some((sub, false)),
        Some((sub, true)),
        Some((mul, false)),
        Some((mul, true)),
        Some((div, false)),
        Some((div, true)),
    ]
};

fn joined(inner: Operator, outer: Option<(Operator, bool)>, a: Var, b: Var, c: Var) -> Var {
    match outer {
        None => inner(a, b),
        Some((outer, false)) => outer(inner(a, b), c),
        Some((outer, true)) => outer(c, inner(a, b)),
    }
}

/// Checks J·p in one direction and in several, on a workspace in which an earlier call left
/// other tangents in every place.
fn check_on_a_used_workspace(tape: &Tape, x: &[f64], p: &[f64], ws: &mut Workspace) {
    const USED: [f64; 40] = [9.0; 40];
    let earlier = Tape::record(&USED, |x| Var::sum_of(x)).unwrap();
    let expected = tape.at(x).unwrap().jvp(p).unwrap();
    let what = format!("{p:?} at {x:?} of\n{tape}");
    let mut dy = [7.0];
    earlier.jvp_into(ws, &USED, &USED, &mut [0.0], &mut dy).unwrap();
    tape.jvp_into(ws, x, p, &mut [0.0], &mut dy).unwrap();
    assert_same(&dy, &expected, &what);
    for columns in [3, 8] {
        let seeds = |p: &[f64]| {
            let all = p.iter().flat_map(|&p| vec![p; columns]).collect();
            Matrix::from_vec(p.len(), columns, all).unwrap()
        };
        let mut many = Matrix::default();
        earlier.jvp_many_into(ws, &USED, &seeds(&USED), &mut [0.0], &mut many).unwrap();
        tape.jvp_many_into(ws, x, &seeds(p), &mut [0.0], &mut many).unwrap();
        assert_same(many.as_slice(), &vec![expected[0]; columns], &what);
    }
}

/// A passive operand has no tangent: nothing is added for it, and what an earlier call left
/// in its place is not read. An added 0 shows where all the other products are −0.
#[test]
fn a_passive_operand_has_no_tangent() {
    let mut ws = Workspace::new();
    for (inner, outer) in OPERATORS.into_iter().flat_map(|inner| OUTER.map(|outer| (inner, outer))) {
        for active in 1..1 << 3 {
            let is_active = |i: &usize| active >> i & 1 == 1;
            let record = |x: &[Var], k: &[Var]| {
                let (mut inputs, mut params) = (x.iter(), k.iter());
                let operands = [0, 1, 2].map(|i| if is_active(&i) { inputs.next() } else { params.next() });
                let [Some(&a), Some(&b), Some(&c)] = operands else { unreachable!("as many numbers as operands") };
                joined(inner, outer, a, b, c)
            };
            let n = (0..3).filter(is_active).count();
            let numbers = [1.5, 0.5, 3.0];
            let tape = Tape::builder().inputs(&[], &numbers[..n]).params(&[], &numbers[n..]).record(record).unwrap();
            let lists = [vec![&[0.0, -0.0][..]; n], vec![&[1.5, -0.5][..]; n]].concat();
            for (p, x) in product(&lists).iter().map(|both| both.split_at(n)) {
                check_on_a_used_workspace(&tape, x, p, &mut ws);
            }
        }
    }
}

/// Neighbouring rows of one kind, which the scalar engine does as one loop: each operand of
/// row j is number first + step·j of a list, the inputs or the parameters.
#[test]
fn neighbouring_rows_have_the_bits_of_each_alone() {
    const ROWS: usize = 9;
    let random = &mut Random::new(8, 0);
    let (mut ws, mut directions, mut seen) = (Workspace::new(), Directions::default(), Seen::default());
    // Apart; one number for all rows; the same numbers twice; numbers that another operand has a few rows later.
    let places: [[(usize, usize); 3]; 9] = [
        [(0, 1), (9, 1), (18, 1)],
        [(0, 0), (9, 1), (18, 1)],
        [(0, 1), (9, 0), (18, 1)],
        [(0, 0), (9, 0), (18, 1)],
        [(0, 1), (9, 1), (18, 0)],
        [(0, 1), (0, 1), (18, 1)],
        [(0, 1), (5, 1), (7, 1)],
        [(5, 1), (9, 1), (0, 1)],
        [(2, 0), (0, 1), (5, 1)],
    ];
    for (inner, outer) in OPERATORS.into_iter().flat_map(|inner| OUTER.map(|outer| (inner, outer))) {
        for (active, places) in (1..1 << 3).flat_map(|active| places.map(|places| (active, places))) {
            let (x, k) = (random.numbers(27, &[], 0), random.numbers(27, &[], 0));
            let record = |x: &[Var], k: &[Var]| -> Vec<Var> {
                let operand = |i: usize, row: usize| {
                    let (first, step) = places[i];
                    if active >> i & 1 == 1 { x[first + step * row] } else { k[first + step * row] }
                };
                // Some more rows of the kind have other distances.
                let order = (0..ROWS).chain((0..ROWS).rev());
                order.map(|row| joined(inner, outer, operand(0, row), operand(1, row), operand(2, row))).collect()
            };
            let tape = Tape::builder().inputs(&[], &x).params(&[], &k).record(record).unwrap();
            check_scalar_engine(&tape, &x, 3, random, &mut ws, &mut directions, &mut seen);
        }
    }
    assert!(seen.times("finite") > 1000, "{seen:?}");
}

#[test]
fn every_operation_alone_in_lanes() {
    let (mut ws, mut seen, mut sums) = (Workspace::new(), Seen::default(), 0);
    let combinations = || {
        let levels = SimdLevel::available();
        levels.into_iter().flat_map(|level| LANES.map(|lanes| (level, lanes)))
    };
    for_each_operation(|op, c, active| {
        for twice in [false, true] {
            let Alone { tape, points, rows } = Alone::new(op, c, active, twice);
            // Points with parameters of their own, where there are any.
            let all: Vec<Vec<f64>> =
                points.iter().flat_map(|x| rows.iter().map(move |k| [&x[..], k].concat())).collect();
            let some = thinned(&all, if cfg!(debug_assertions) { 130 } else { 700 });
            for combination in combinations() {
                check_many_points(&tape, &some, combination, &mut ws, &mut seen);
            }
            if twice || tape.num_params() == 0 {
                continue;
            }
            let samples = Samples::from_rows(&tape, &rows.concat()).unwrap();
            for x in thinned(&points, 18) {
                let terms = terms_of(&tape, &x, &samples);
                // One that is not finite would hide all others.
                let finite = |&i: &usize| terms[i].as_ref().unwrap().iter().all(|term| term.is_finite());
                let mut idx: Vec<usize> = (0..samples.len()).filter(finite).collect();
                if idx.is_empty() {
                    continue;
                }
                while idx.len() < 20 {
                    idx.extend_from_within(..);
                }
                idx.truncate(64);
                let expected = expected_sum(&terms, &idx);
                sums += 1;
                for combination in combinations() {
                    check_sums(&tape, &x, &samples, &idx, &expected, combination, &mut ws);
                }
            }
        }
    });
    assert!(seen.times("finite") > 1000 && seen.times("not finite") > 1000 && sums > 500, "{seen:?}, {sums} sums");
}

// Many points.

/// Of few and many inputs and outputs, so that the directions of a forward sweep are one
/// lot, full or not, or several.
#[test]
fn jacobians_of_every_shape_at_many_points() {
    let (mut ws, mut seen) = (Workspace::new(), Seen::default());
    for n in [1, 2, 15, 16, 17, 31, 33] {
        for m in [1, 2, 5, 9, 20] {
            let record = |x: &[Var]| -> Vec<Var> {
                let of = |i: usize| x[i % n];
                (0..m).map(|j| (of(3 * j) * of(j + 1)).sin() * 0.5 - of(j) / (of(2 * j) * of(2 * j) + 1.0)).collect()
            };
            let tape = Tape::record(&vec![0.5; n], record).unwrap();
            for count in [1, 4, 5, 16, 17, 47, 70] {
                let points: Vec<Vec<f64>> = scattered(n * count).chunks_exact(n).map(<[f64]>::to_vec).collect();
                for lanes in LANES {
                    check_many_points(&tape, &points, (SimdLevel::best(), lanes), &mut ws, &mut seen);
                }
            }
        }
    }
    assert!(seen.times("finite") > 1000 && seen.times("not finite") == 0, "{seen:?}");
}

// Sums over samples.

/// Every route to the sum over `idx` gives the bits of the stated fold.
fn check_every_route(tape: &Tape, x: &[f64], samples: &Samples, idx: &[usize], ws: &mut Workspace) {
    let terms = terms_of(tape, x, samples);
    let expected = expected_sum(&terms, idx);
    let both = |sum: Result<(f64, Vec<f64>), Error>| sum.map(|(value, gradient)| [vec![value], gradient].concat());
    let what = |route: &str| format!("{route} over {} samples of\n{tape}", idx.len());
    assert_sum(both(tape.sum_gradient(x, samples, idx)), &expected, what("sum_gradient"));
    assert_sum(tape.sum_value(x, samples, idx).map(|value| vec![value]), &expected, what("sum_value"));
    let mut into = vec![7.0; x.len()];
    let value = tape.sum_gradient_into(ws, x, samples, idx, &mut into);
    assert_sum(both(value.map(|value| (value, into))), &expected, what("sum_gradient_into"));
    let value = tape.sum_value_into(ws, x, samples, idx);
    assert_sum(value.map(|value| vec![value]), &expected, what("sum_value_into"));
    for threads in [1, 2, 3, 4, 8] {
        let sum = tape.sum_gradient_threads(x, samples, idx, threads);
        assert_sum(both(sum), &expected, what(&format!("{threads} threads")));
    }
}

/// A loss whose terms differ in size and sign, so that the order of a sum shows.
fn loss() -> Tape {
    Tape::builder()
        .inputs(&[], &[0.5, -0.3])
        .params(&[], &[1.0, 2.0])
        .record(|x, k| ((x[0] * k[0] + x[1]).sin() * (k[1] * 3.0).exp() + k[0].sin()).softplus() - x[1] * k[1])
        .unwrap()
}

/// Numbers without a pattern, in (−2, 2).
fn scattered(count: usize) -> Vec<f64> {
    (0..count as u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1_u64 << 51) as f64 - 2.0)
        .collect()
}

#[test]
fn the_fold_of_every_length() {
    let (tape, x) = (loss(), [0.7, -0.2]);
    let samples = Samples::from_rows(&tape, &scattered(2 * 97)).unwrap();
    let mut ws = Workspace::new();
    let all: Vec<usize> = (0..1100).map(|i| (i * 31) % 97).collect();
    // All lengths around the edges of leaves and streams, then some of many leaves.
    for length in
        (1..=300).filter(|n| n % 64 < 12 || n % 64 > 60 || n % 7 == 0).chain([449, 512, 577, 704, 1023, 1024, 1100])
    {
        check_every_route(&tape, &x, &samples, &all[..length], &mut ws);
    }
    // The order shows in the bits: otherwise this test could not fail.
    let value = |i: &usize| tape.with_params(samples.row(*i)).unwrap().eval(&x).unwrap()[0];
    let differs = |&length: &usize| {
        let by_loop: f64 = all[..length].iter().map(value).sum();
        by_loop != tape.sum_value(&x, &samples, &all[..length]).unwrap()
    };
    assert!((100..300).step_by(10).filter(differs).count() >= 5);
}

/// Sums of products and of inputs, in each number of lanes, with groups that are full and not.
/// Where all terms are −0 their sum is −0: it does not begin with +0, and the lanes that no
/// sample is in add nothing.
#[test]
fn weighted_sums_of_every_length() {
    type Loss = fn(&[Var], &[Var]) -> Var;
    const WIDTH: usize = 6;
    let losses: [Loss; 8] = [
        |x, k| Var::dot(x, k),
        |x, k| Var::dot(k, x),
        |x, k| Var::sum_of(&[k[0] * x[0], k[1], k[2]]),
        // Sums of products as a loop makes them, each input a factor of one term.
        |x, k| x.iter().zip(k).skip(1).fold(x[0] * k[0], |sum, (&x, &k)| sum + x * k),
        |x, k| x.iter().zip(k).skip(1).fold(k[0] * x[0], |sum, (&x, &k)| sum + k * x),
        |x, k| x.iter().zip(k).fold(k[1], |sum, (&x, &k)| sum + k * x),
        |x, k| x.iter().zip(k).skip(1).fold(k[0] * k[1], |sum, (&x, &k)| k * x + sum),
        |x, k| (1..WIDTH).fold(x[0] * k[0], |sum, j| sum + x[j] * (x[0] * k[j]).sin()),
    ];
    let x = [1.5, 0.5, 2.0, 0.25, 1.0, 3.0];
    let lists = [vec![-0.0; WIDTH * 40], scattered(WIDTH * 40)];
    for (loss, rows) in losses.into_iter().flat_map(|loss| lists.iter().map(move |rows| (loss, rows))) {
        let tape = Tape::builder().inputs(&[], &x).params(&[], &x).record(loss).unwrap();
        let samples = Samples::from_rows(&tape, rows).unwrap();
        let terms = terms_of(&tape, &x, &samples);
        let points: Vec<Vec<f64>> = rows.chunks_exact(WIDTH).map(|k| [&x[..], k].concat()).collect();
        for combination in SimdLevel::available().into_iter().flat_map(|level| LANES.map(|lanes| (level, lanes))) {
            let mut ws = Workspace::new();
            for count in (1..140).filter(|count| count % 16 < 2 || count % 16 == 15) {
                let idx: Vec<usize> = (0..count).map(|i| i % 40).collect();
                check_sums(&tape, &x, &samples, &idx, &expected_sum(&terms, &idx), combination, &mut ws);
            }
            for count in [3, 4, 17, 40] {
                check_many_points(&tape, &points[..count], combination, &mut ws, &mut Seen::default());
            }
        }
    }
}

#[test]
fn one_sample_has_the_bits_of_its_gradient() {
    let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).record(|x, k| x[0] * k[0]).unwrap();
    let rows = [0.0, -0.0, f64::NAN, f64::INFINITY, 1e-320, -3.0];
    let samples = Samples::from_rows(&tape, &rows).unwrap();
    for x in [0.0, -0.0, 2.0, f64::INFINITY] {
        for (i, &k) in rows.iter().enumerate() {
            let alone = tape.with_params(&[k]).unwrap().gradient(&[x]).unwrap();
            let (value, gradient) = tape.sum_gradient(&[x], &samples, &[i]).unwrap();
            assert_same(&[value], &[alone.0], format!("value at {x}, {k}"));
            assert_same(&gradient, &alone.1, format!("gradient at {x}, {k}"));
        }
    }
}

#[test]
fn samples_that_disagree_with_a_guard_are_named() {
    let tape = Tape::builder()
        .inputs(&[], &[1.0])
        .params(&[], &[1.0, 1.0])
        .record(|x, k| {
            let y = if k[1] * x[0] < 10.0 { x[0] * k[1] } else { x[0] };
            if k[0] * x[0] > 0.0 { y * k[0] } else { y }
        })
        .unwrap();
    // 300 samples; some fail the second guard, some the first, one both.
    let mut rows = vec![1.0; 600];
    for i in [7, 100, 250] {
        rows[2 * i] = -1.0;
    }
    for i in [40, 100, 170] {
        rows[2 * i + 1] = 20.0;
    }
    let samples = Samples::from_rows(&tape, &rows).unwrap();
    let forward: Vec<usize> = (0..300).collect();
    let cases: [(Vec<usize>, usize, usize); 6] = [
        (forward.clone(), 7, 1),
        (forward.iter().rev().copied().collect(), 250, 1),
        (forward.iter().map(|i| (i + 130) % 300).collect(), 170, 0),
        (forward.iter().map(|i| (i + 50) % 300).collect(), 100, 0),
        ([vec![0; 200], vec![40, 7], vec![1; 50]].concat(), 40, 0),
        ([vec![3; 63], vec![250], vec![7; 64]].concat(), 250, 1),
    ];
    for (idx, expected, place) in cases {
        let mut gradient = [0.0];
        let mut outcomes = vec![
            tape.sum_value(&[1.0], &samples, &idx).map(|_| ()),
            tape.sum_gradient(&[1.0], &samples, &idx).map(|_| ()),
            tape.sum_gradient_into(&mut Workspace::new(), &[1.0], &samples, &idx, &mut gradient).map(|_| ()),
        ];
        for threads in [1, 2, 3, 4, 8] {
            outcomes.push(tape.sum_gradient_threads(&[1.0], &samples, &idx, threads).map(|_| ()));
        }
        for outcome in outcomes {
            let Err(error) = outcome else { panic!("no error") };
            let Error::BranchChanged { sample, guard, .. } = &error else { panic!("{error:?}") };
            assert_eq!(*sample, Some(expected));
            assert_eq!(**guard, tape.guards()[place]);
            assert!(error.to_string().contains(&format!("sample {expected}: ")), "{error}");
        }
        // A workspace that met an error serves on.
        let mut ws = Workspace::new();
        assert!(tape.sum_value_into(&mut ws, &[1.0], &samples, &idx).is_err());
        check_every_route(&tape, &[1.0], &samples, &[0, 1, 2, 0], &mut ws);
    }
}

// The comparisons themselves.

#[test]
fn a_flipped_bit_is_rejected() {
    for x in [1.0, -0.0, 0.0, 5e-324, f64::MAX, f64::INFINITY] {
        assert!(same(x, x) && all_same(&[2.0, x], &[2.0, x]));
        for bit in 0..64 {
            let flipped = f64::from_bits(x.to_bits() ^ 1 << bit);
            assert!(!same(x, flipped) && !all_same(&[2.0, x], &[2.0, flipped]), "{x} and {flipped}");
        }
    }
    assert!(same(f64::NAN, -f64::NAN) && !same(f64::NAN, 1.0) && !all_same(&[1.0], &[1.0, 1.0]));
    let rejects = |check: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err();
    assert!(rejects(&|| assert_same(&[0.0], &[-0.0], "zeros")));
    let sum = fold_of(&[vec![1.0, 2.0], vec![3.0, 4.0]]);
    assert!(!rejects(&|| assert_sum(Ok(vec![4.0, 6.0]), &Ok(sum.clone()), "a sum")));
    assert!(rejects(&|| assert_sum(Ok(vec![4.0, 6.000000000000001]), &Ok(sum.clone()), "a sum")));
}

/// Whatever the order of a sum is, the comparison with the fold sees it.
#[test]
fn the_order_of_the_fold_shows() {
    let mut random = Random::new(7, 0);
    let mut terms: Vec<Vec<f64>> = (0..150).map(|_| vec![random.ordinary()]).collect();
    let sum = fold_of(&terms);
    let by_loop: f64 = terms.iter().map(|term| term[0]).sum();
    assert!((sum[0] - by_loop).abs() < 1e-12);
    let mut differs = usize::from(!same(sum[0], by_loop));
    for i in 0..40 {
        terms.swap(i, 101 + i);
        differs += usize::from(!all_same(&sum, &fold_of(&terms)));
    }
    assert!(differs > 20, "{differs} orders show");
}
