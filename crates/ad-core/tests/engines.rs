//! Every operation of the table alone in every engine, at ordinary points and at
//! edges, against the reference sweeps, to the last bit. (`laws.rs` does that for
//! random programs.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Op, Samples, SimdLevel, Tape, Var, Workspace};
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
