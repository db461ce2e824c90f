//! Every engine against the reference sweeps, to the last bit: random programs
//! that hold what the engines treat apart (chains, weights, joined rows, folds,
//! rows without inputs, dead rows, guards), at ordinary points and at edges, and
//! every operation of the table alone.
//!
//! `Tape::at` is the reference. The scalar engine is compared with it, and the
//! lane engine with the scalar engine, at every level of vector instructions
//! and for every number of lanes. Sizes and levels rotate with the number of the
//! program, so that each combination occurs often.
//!
//! Everything is drawn from the number of the program, so a failure repeats.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use ad_core::{Dual, Error, Matrix, Op, Samples, SimdLevel, Tape, Var, Workspace};
use common::programs::{Maker, Program, Purpose, Random, call, operands_of};
use common::{all_same, assert_same, equal, product, same, takes_constant, unit};

/// The programs of each test.
const PROGRAMS: usize = 10_000;
/// Those of each test of programs that call functions.
const PROGRAMS_WITH_CALLS: usize = 600;
/// Columns of J·P: one, and around the widths of the sweeps.
const COLUMNS: [usize; 9] = [1, 3, 4, 7, 8, 15, 16, 17, 33];
/// Points at once: too few for lanes, and around their numbers.
const POINTS: [usize; 6] = [1, 3, 16, 17, 40, 70];
/// Samples of a sum: around the streams, the lanes and the leaves.
const SAMPLES: [usize; 10] = [1, 2, 5, 15, 16, 17, 33, 64, 65, 150];
const LANES: [usize; 3] = [16, 32, 64];

// Comparisons.

/// A description that is written only when a comparison fails.
struct Described<F>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Described<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

fn described<F: Fn(&mut Formatter<'_>) -> fmt::Result>(write: F) -> Described<F> {
    Described(write)
}

/// Fails unless both are a changed branch: the same guard, answer and operands.
#[track_caller]
fn assert_same_branch(error: &Error, expected: &Error, expected_sample: Option<usize>, what: impl Display) {
    let Error::BranchChanged { guard, location, now, lhs, rhs, .. } = expected else {
        panic!("{what}: {expected:?} is no changed branch")
    };
    let Error::BranchChanged { guard: g, location: l, now: n, lhs: a, rhs: b, sample } = error else {
        panic!("{what}: {error:?} instead of {expected:?}")
    };
    assert_eq!((g, l, n), (guard, location, now), "{what}");
    assert!(same(*a, *lhs) && same(*b, *rhs), "{what}: {error:?} instead of {expected:?}");
    assert_eq!(*sample, expected_sample, "{what}");
}

/// The fold over samples, written a second time: eight streams from −0 in
/// leaves of 64, halved 4-2-1, and the leaves merged like the bits of a counter.
fn fold_of(terms: &[Vec<f64>]) -> Vec<f64> {
    let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let mut subtrees: Vec<(usize, Vec<f64>)> = Vec::new();
    for leaf in terms.chunks(64) {
        let mut streams = vec![vec![-0.0; leaf[0].len()]; 8];
        for (position, term) in leaf.iter().enumerate() {
            streams[position % 8] = add(&streams[position % 8], term);
        }
        for half in [4, 2, 1] {
            for low in 0..half {
                streams[low] = add(&streams[low], &streams[low + half]);
            }
        }
        subtrees.push((1, streams.swap_remove(0)));
        while let [.., (a, _), (b, _)] = subtrees[..]
            && a == b
        {
            merge(&mut subtrees, add);
        }
    }
    while subtrees.len() > 1 {
        merge(&mut subtrees, add);
    }
    return subtrees.swap_remove(0).1;

    fn merge(subtrees: &mut Vec<(usize, Vec<f64>)>, add: impl Fn(&[f64], &[f64]) -> Vec<f64>) {
        let (right, later) = subtrees.pop().unwrap();
        let (left, earlier) = subtrees.pop().unwrap();
        subtrees.push((left + right, add(&earlier, &later)));
    }
}

/// How often what happened, so that a test cannot pass because nothing does.
#[derive(Debug, Default)]
struct Seen {
    finite: usize,
    not_finite: usize,
    changed: usize,
}

impl Seen {
    fn result(&mut self, numbers: &[f64]) {
        if numbers.iter().all(|x| x.is_finite()) {
            self.finite += 1;
        } else {
            self.not_finite += 1;
        }
    }

    #[track_caller]
    fn expect_each(&self, least: usize) {
        assert!(self.finite >= least && self.not_finite >= least && self.changed >= least, "{self:?}");
    }
}

// The scalar engine.

/// Which of its two ways the Jacobian of each shape goes.
#[derive(Default)]
struct Directions(BTreeMap<(usize, usize), [bool; 2]>);

/// Compares every driver of the scalar engine at x with the reference.
fn check_scalar_engine(
    tape: &Tape,
    x: &[f64],
    columns: usize,
    random: &mut Random,
    ws: &mut Workspace,
    directions: &mut Directions,
    seen: &mut Seen,
) {
    let (n, m) = (tape.num_inputs(), tape.num_outputs());
    let what = |driver: &'static str| described(move |f| write!(f, "{driver} at {x:?} of\n{tape}"));
    let (p, w) = (random.seed(n), random.seed(m));
    let seeds = Matrix::from_vec(n, columns, random.seed(n * columns)).unwrap();
    let (mut y, mut dy, mut xbar) = (vec![7.0; m], vec![7.0; m], vec![7.0; n]);
    let (mut many, mut jacobian) = (Matrix::default(), Matrix::default());
    let there = match tape.at(x) {
        Ok(there) => there,
        Err(expected) => {
            seen.changed += 1;
            let check = |error: Error, driver| assert_same_branch(&error, &expected, None, what(driver));
            check(tape.eval_into(ws, x, &mut y).unwrap_err(), "eval");
            check(tape.jvp_into(ws, x, &p, &mut y, &mut dy).unwrap_err(), "jvp");
            check(tape.jvp_many_into(ws, x, &seeds, &mut y, &mut many).unwrap_err(), "jvp_many");
            check(tape.vjp_into(ws, x, &w, &mut y, &mut xbar).unwrap_err(), "vjp");
            check(tape.jacobian_into(ws, x, &mut jacobian).unwrap_err(), "jacobian");
            if m == 1 {
                check(tape.gradient_into(ws, x, &mut xbar).unwrap_err(), "gradient");
            }
            return;
        }
    };
    let value = there.value();
    seen.result(value);

    tape.eval_into(ws, x, &mut y).unwrap();
    assert_same(&y, value, what("eval"));
    y.fill(7.0);
    tape.jvp_into(ws, x, &p, &mut y, &mut dy).unwrap();
    assert_same(&y, value, what("the value of jvp"));
    assert_same(&dy, &there.jvp(&p).unwrap(), what("jvp"));
    y.fill(7.0);
    tape.vjp_into(ws, x, &w, &mut y, &mut xbar).unwrap();
    assert_same(&y, value, what("the value of vjp"));
    assert_same(&xbar, &there.vjp(&w).unwrap(), what("vjp"));

    y.fill(7.0);
    tape.jvp_many_into(ws, x, &seeds, &mut y, &mut many).unwrap();
    assert_same(&y, value, what("the value of jvp_many"));
    assert_eq!((many.rows(), many.cols()), (m, columns));
    for d in 0..columns {
        let seed: Vec<f64> = (0..n).map(|i| seeds[(i, d)]).collect();
        let column: Vec<f64> = (0..m).map(|j| many[(j, d)]).collect();
        let expected = there.jvp(&seed).unwrap();
        assert_same(&column, &expected, format_args!("column {d} of {columns}: {}", what("jvp_many")));
    }

    tape.jacobian_into(ws, x, &mut jacobian).unwrap();
    assert_eq!((jacobian.rows(), jacobian.cols()), (m, n));
    let by_rows = (0..m).all(|j| all_same(jacobian.row(j), &there.vjp(&unit(m, j)).unwrap()));
    let by_columns = (0..n).all(|i| {
        let column: Vec<f64> = (0..m).map(|j| jacobian[(j, i)]).collect();
        all_same(&column, &there.jvp(&unit(n, i)).unwrap())
    });
    assert!(by_rows || by_columns, "{}{jacobian}", what("jacobian"));
    // The shape alone says which of both it is.
    let [rows, all_columns] = directions.0.entry((m, n)).or_insert([true; 2]);
    *rows &= by_rows;
    *all_columns &= by_columns;
    assert!(*rows || *all_columns, "a Jacobian of {m} × {n} goes both ways");
    if m == 1 {
        let value_of_gradient = tape.gradient_into(ws, x, &mut xbar).unwrap();
        assert_same(&[value_of_gradient], value, what("the value of gradient"));
        assert_same(&xbar, &there.vjp(&[1.0]).unwrap(), what("gradient"));
        assert_same(jacobian.as_slice(), &xbar, what("a Jacobian of one row"));
    }
}

fn check_the_scalar_engine(make: Maker, programs: usize) {
    // One workspace for all, so that what earlier sweeps left would show.
    let (mut ws, mut seen, mut directions) = (Workspace::new(), Seen::default(), Directions::default());
    for index in 0..programs {
        let random = &mut Random::new(1, index);
        let program = make(random, Purpose { single: false, params: false, guarded: 30 });
        let Program { tape, x0, k0 } = &program;
        let columns = COLUMNS[index % COLUMNS.len()];
        check_scalar_engine(tape, x0, columns, random, &mut ws, &mut directions, &mut seen);
        for _ in 0..3 {
            let (x, k) = (random.point(x0.len()), random.point(k0.len()));
            let tape = tape.with_params(&k).unwrap();
            check_scalar_engine(&tape, &x, columns, random, &mut ws, &mut directions, &mut seen);
        }
    }
    seen.expect_each(programs / 10);
}

#[test]
fn the_scalar_engine_has_the_bits_of_the_reference_sweeps() {
    check_the_scalar_engine(Program::new, PROGRAMS);
}

#[test]
fn the_scalar_engine_has_the_bits_of_the_reference_sweeps_with_calls() {
    check_the_scalar_engine(Program::with_calls, PROGRAMS_WITH_CALLS);
}

// Many points in lanes.

/// Compares the values and Jacobians at many points with those at each alone.
fn check_many_points(
    tape: &Tape,
    points: &[Vec<f64>],
    (level, lanes): (SimdLevel, usize),
    ws: &mut Workspace,
    seen: &mut Seen,
) {
    let n = tape.num_inputs();
    let at = |i: usize| {
        let (x, k) = points[i].split_at(n);
        (if k.is_empty() { tape.clone() } else { tape.with_params(k).unwrap() }, x.to_vec())
    };
    ws.set_simd_level(level);
    ws.set_lanes(lanes).unwrap();
    let what = |driver: &'static str| {
        described(move |f| write!(f, "{driver}, {} points in {lanes} lanes, {level}, of\n{tape}", points.len()))
    };
    let matrix = Matrix::from_rows(points).unwrap();
    let (mut values, mut jacobians) = (Matrix::default(), Matrix::default());
    let alone: Vec<_> = (0..points.len())
        .map(|i| {
            let (tape, x) = at(i);
            tape.eval(&x).map(|value| (value, tape.jacobian(&x).unwrap()))
        })
        .collect();
    let evaluated = tape.eval_many_into(ws, &matrix, &mut values);
    let differentiated = tape.jacobian_many_into(ws, &matrix, &mut jacobians);
    if let Some(first) = alone.iter().position(Result::is_err) {
        seen.changed += 1;
        let expected = alone[first].as_ref().unwrap_err();
        assert_same_branch(&evaluated.unwrap_err(), expected, Some(first), what("eval_many"));
        assert_same_branch(&differentiated.unwrap_err(), expected, Some(first), what("jacobian_many"));
        return;
    }
    evaluated.unwrap();
    differentiated.unwrap();
    assert_eq!((values.rows(), values.cols()), (points.len(), tape.num_outputs()));
    assert_eq!((jacobians.rows(), jacobians.cols()), (points.len(), tape.num_outputs() * n));
    for (i, (point, alone)) in points.iter().zip(alone).enumerate() {
        let (value, jacobian) = alone.unwrap();
        seen.result(jacobian.as_slice());
        let place = |driver| format!("point {i}, {point:?}: {}", driver);
        if !all_same(values.row(i), &value) || !all_same(jacobians.row(i), jacobian.as_slice()) {
            assert_same(values.row(i), &value, place(what("eval_many").to_string()));
            assert_same(jacobians.row(i), jacobian.as_slice(), place(what("jacobian_many").to_string()));
        }
    }
}

fn check_points_of_programs(make: Maker, programs: usize) {
    let (mut ws, mut seen, levels) = (Workspace::new(), Seen::default(), SimdLevel::available());
    for index in 0..programs {
        let random = &mut Random::new(2, index);
        let program = make(random, Purpose { single: false, params: false, guarded: 20 });
        let Program { tape, x0, k0 } = &program;
        let (count, rest) = (POINTS[index % POINTS.len()], index / POINTS.len());
        let (level, rest) = (levels[rest % levels.len()], rest / levels.len());
        let (lanes, rest) = (LANES[rest % LANES.len()], rest / LANES.len());
        let own_params = rest % 2 == 1;
        let recorded = if own_params { [&x0[..], k0].concat() } else { x0.clone() };
        // Points with edges go through the scalar engine in the end, so half of
        // the programs have few of them.
        let edges = rest / 2 % 2 == 1;
        let mut points: Vec<Vec<f64>> = (0..count)
            .map(|_| match edges || random.chance(4) {
                true => random.point(recorded.len()),
                false => random.numbers(recorded.len(), &[], 0),
            })
            .collect();
        check_many_points(tape, &points, (level, lanes), &mut ws, &mut seen);
        if !tape.guards().is_empty() {
            // Once more, with the points that keep to the branches.
            for point in &mut points {
                let (x, k) = point.split_at(x0.len());
                let tape = if own_params { &tape.with_params(k).unwrap() } else { tape };
                if tape.eval(x).is_err() {
                    point.clone_from(&recorded);
                }
            }
            check_many_points(tape, &points, (level, lanes), &mut ws, &mut seen);
        }
    }
    seen.expect_each(programs / 20);
}

#[test]
fn many_points_have_the_bits_of_each_alone() {
    check_points_of_programs(Program::new, PROGRAMS);
}

#[test]
fn many_points_have_the_bits_of_each_alone_with_calls() {
    check_points_of_programs(Program::with_calls, PROGRAMS_WITH_CALLS);
}

// Sums over samples.

/// The value and gradient of sample i alone, or why there is none.
fn terms_of(tape: &Tape, x: &[f64], samples: &Samples) -> Vec<Result<Vec<f64>, Error>> {
    let term = |i: usize| {
        let (value, gradient) = tape.with_params(samples.row(i))?.gradient(x)?;
        Ok([vec![value], gradient].concat())
    };
    (0..samples.len()).map(term).collect()
}

/// Indices into so many samples: in sequence from anywhere, backwards, or at random.
fn indices(random: &mut Random, count: usize, samples: usize) -> Vec<usize> {
    let start = random.one_of(&[0, 8, random.0 as usize % samples]);
    match random.below(4) {
        0 | 1 => (0..count).map(|i| (start + i) % samples).collect(),
        2 => (0..count).rev().map(|i| (start + i) % samples).collect(),
        _ => (0..count).map(|_| random.below(samples)).collect(),
    }
}

/// What a sum over samples is compared with.
type Expected<'a> = Result<Vec<f64>, (usize, &'a Error)>;

fn expected_sum<'a>(terms: &'a [Result<Vec<f64>, Error>], idx: &[usize]) -> Expected<'a> {
    let terms: Result<Vec<&Vec<f64>>, _> = idx.iter().map(|&i| terms[i].as_ref().map_err(|error| (i, error))).collect();
    terms.map(|terms| fold_of(&terms.into_iter().cloned().collect::<Vec<_>>()))
}

#[track_caller]
fn assert_sum(sum: Result<Vec<f64>, Error>, expected: &Expected<'_>, what: impl Display) {
    match (sum, expected) {
        (Ok(sum), Ok(expected)) => assert_same(&sum, &expected[..sum.len()], what),
        (Err(error), Err((sample, expected))) => assert_same_branch(&error, expected, Some(*sample), what),
        (sum, expected) => panic!("{what}: {sum:?} instead of {expected:?}"),
    }
}

/// Compares the sums of a level and a number of lanes with the stated fold.
fn check_sums(
    tape: &Tape,
    x: &[f64],
    samples: &Samples,
    idx: &[usize],
    expected: &Expected<'_>,
    (level, lanes): (SimdLevel, usize),
    ws: &mut Workspace,
) {
    ws.set_simd_level(level);
    ws.set_lanes(lanes).unwrap();
    let what = |driver: &'static str| {
        let rows = idx.iter().take(5).map(|&i| samples.row(i)).collect::<Vec<_>>();
        described(move |f| {
            let count = idx.len();
            write!(f, "{driver} over {count} samples ({rows:?} …) at {x:?} in {lanes} lanes, {level}, of\n{tape}")
        })
    };
    let value = tape.sum_value_into(ws, x, samples, idx).map(|value| vec![value]);
    assert_sum(value, expected, what("sum_value"));
    let mut gradient = vec![7.0; x.len()];
    let value = tape.sum_gradient_into(ws, x, samples, idx, &mut gradient);
    assert_sum(value.map(|value| [&[value], &gradient[..]].concat()), expected, what("sum_gradient"));
}

/// The number of samples there are to choose from: not a multiple of eight.
const ROWS: usize = 43;

/// Samples of a program: ordinary ones, or with edges among them.
fn samples_of(program: &Program, random: &mut Random, edges: bool) -> (Vec<f64>, Samples) {
    let (n, width) = (program.x0.len(), program.k0.len());
    let x = if edges { random.point(n) } else { random.numbers(n, &[], 0) };
    let x = if random.chance(20) { program.x0.clone() } else { x };
    let rows: Vec<f64> = (0..ROWS)
        .flat_map(|_| if edges && random.chance(20) { random.point(width) } else { random.numbers(width, &[], 0) })
        .collect();
    let samples = Samples::from_rows(&program.tape, &rows).unwrap();
    (x, samples)
}

fn check_sums_of_programs(make: Maker, programs: usize) {
    let (mut ws, mut seen, levels) = (Workspace::new(), Seen::default(), SimdLevel::available());
    for index in 0..programs {
        let random = &mut Random::new(3, index);
        let program = make(random, Purpose { single: true, params: true, guarded: 20 });
        let tape = &program.tape;
        let (count, rest) = (SAMPLES[index % SAMPLES.len()], index / SAMPLES.len());
        let level = levels[rest % levels.len()];
        let (x, samples) = samples_of(&program, random, rest / levels.len() % 3 == 2);
        let terms = terms_of(tape, &x, &samples);
        let mut idx = indices(random, count, ROWS);
        let kept: Vec<usize> = (0..ROWS).filter(|&i| terms[i].is_ok()).collect();
        for _ in 0..2 {
            let expected = expected_sum(&terms, &idx);
            match &expected {
                Ok(sum) => seen.result(sum),
                Err(_) => seen.changed += 1,
            }
            for lanes in LANES {
                check_sums(tape, &x, &samples, &idx, &expected, (level, lanes), &mut ws);
            }
            let chosen = tape.sum_gradient(&x, &samples, &idx);
            let chosen = chosen.map(|(value, gradient)| [vec![value], gradient].concat());
            assert_sum(chosen, &expected, format_args!("sum_gradient of\n{tape}"));
            // Once more, with the samples that keep to the branches.
            if expected.is_ok() || kept.is_empty() {
                break;
            }
            idx = indices(random, count, kept.len()).into_iter().map(|i| kept[i]).collect();
        }
    }
    seen.expect_each(programs / 20);
}

#[test]
fn sums_over_samples_have_the_bits_of_the_stated_fold() {
    check_sums_of_programs(Program::new, PROGRAMS);
}

#[test]
fn sums_over_samples_have_the_bits_of_the_stated_fold_with_calls() {
    check_sums_of_programs(Program::with_calls, PROGRAMS_WITH_CALLS);
}

fn check_threads(make: Maker, programs: usize) {
    let mut seen = Seen::default();
    for index in 0..programs {
        let random = &mut Random::new(4, index);
        let program = make(random, Purpose { single: true, params: true, guarded: 30 });
        let tape = &program.tape;
        let (x, samples) = samples_of(&program, random, index % 4 == 3);
        let terms = terms_of(tape, &x, &samples);
        let idx = indices(random, [65, 150, 64, 200, 321, 700, 5, 128][index % 8], ROWS);
        let expected = expected_sum(&terms, &idx);
        match &expected {
            Ok(sum) => seen.result(sum),
            Err(_) => seen.changed += 1,
        }
        for threads in [1, 2, 3, 4, 8] {
            let sum = tape.sum_gradient_threads(&x, &samples, &idx, threads);
            let sum = sum.map(|(value, gradient)| [vec![value], gradient].concat());
            assert_sum(sum, &expected, format_args!("{threads} threads, {} samples, of\n{tape}", idx.len()));
        }
    }
    seen.expect_each(10);
}

#[test]
fn threads_have_the_bits_of_the_stated_fold() {
    check_threads(Program::new, 300);
}

#[test]
fn threads_have_the_bits_of_the_stated_fold_with_calls() {
    check_threads(Program::with_calls, 200);
}

/// A guard that only some samples fail, at any position, is found in all engines.
fn check_changed_branches(make: Maker, programs: usize) {
    let (mut ws, mut changed) = (Workspace::new(), 0);
    for index in 0..programs / 5 {
        let random = &mut Random::new(5, index);
        let mut program = make(random, Purpose { single: true, params: true, guarded: 100 });
        if program.tape.guards().is_empty() {
            continue;
        }
        // Most rows are those of the recording, whose branches hold.
        let few = [1, 5, 30][index % 3];
        let rows: Vec<f64> = (0..ROWS)
            .flat_map(|_| if random.chance(few) { random.point(program.k0.len()) } else { program.k0.clone() })
            .collect();
        let samples = Samples::from_rows(&program.tape, &rows).unwrap();
        let x = std::mem::take(&mut program.x0);
        let terms = terms_of(&program.tape, &x, &samples);
        let idx = indices(random, SAMPLES[index / 3 % SAMPLES.len()], ROWS);
        let expected = expected_sum(&terms, &idx);
        changed += usize::from(expected.is_err());
        let points: Vec<Vec<f64>> = idx.iter().map(|&i| [&x, samples.row(i)].concat()).collect();
        for (level, lanes) in SimdLevel::available().into_iter().zip(LANES.iter().cycle().skip(index).copied()) {
            check_sums(&program.tape, &x, &samples, &idx, &expected, (level, lanes), &mut ws);
            check_many_points(&program.tape, &points, (level, lanes), &mut ws, &mut Seen::default());
        }
    }
    assert!(changed >= programs / 50, "only {changed} branches changed");
}

#[test]
fn the_first_changed_branch_is_the_same_from_every_engine() {
    check_changed_branches(Program::new, PROGRAMS);
}

#[test]
fn the_first_changed_branch_is_the_same_from_every_engine_with_calls() {
    check_changed_branches(Program::with_calls, PROGRAMS_WITH_CALLS);
}

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
                    let columns = random.one_of(&COLUMNS[..5]);
                    check_scalar_engine(&tape, &x, columns, random, &mut ws, &mut directions, &mut seen);
                }
            }
        }
    });
    assert!(seen.finite > 1000 && seen.not_finite > 1000, "{seen:?}");
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
    assert!(seen.finite > 1000 && seen.not_finite > 1000 && sums > 500, "{seen:?}, {sums} sums");
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

// Second order.

/// The second derivatives by duals of duals: entry (i, j) is the derivative of
/// ∂f/∂xᵢ along eⱼ.
fn by_duals(tape: &Tape, x: &[f64]) -> Vec<f64> {
    let n = x.len();
    let seed = |k: usize, of: usize| if k == of { 1.0 } else { 0.0 };
    let entry = |i: usize, j: usize| {
        let along = |k: usize| Dual::new(Dual::new(x[k], seed(k, j)), Dual::new(seed(k, i), 0.0));
        let x: Vec<Dual<Dual>> = (0..n).map(along).collect();
        tape.eval_with(&x).unwrap()[0].dv.dv
    };
    (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| entry(i, j)).collect()
}

/// Compares what the drivers of second order give at x with each other, and with
/// the reference sweeps; returns the second derivatives by `hvp`, row by row.
fn check_second_order(
    tape: &Tape,
    x: &[f64],
    random: &mut Random,
    ws: &mut Workspace,
    seen: &mut Seen,
) -> Option<Vec<f64>> {
    let n = x.len();
    let what = |driver: &'static str| described(move |f| write!(f, "{driver} at {x:?} of\n{tape}"));
    let (mut gradient, mut hv, mut hessian) = (vec![7.0; n], vec![7.0; n], Matrix::default());
    let v = random.seed(n);
    let (value, expected) = match tape.gradient(x) {
        Ok(both) => both,
        Err(expected) => {
            seen.changed += 1;
            let check = |error: Error, driver| assert_same_branch(&error, &expected, None, what(driver));
            check(tape.hvp_into(ws, x, &v, &mut hv).unwrap_err(), "hvp");
            check(tape.hessian_into(ws, x, &mut hessian).unwrap_err(), "hessian");
            return None;
        }
    };
    let value_of_hvp = tape.gradient_hvp_into(ws, x, &v, &mut gradient, &mut hv).unwrap();
    assert_same(&[value_of_hvp], &[value], what("the value of hvp"));
    assert_same(&gradient, &expected, what("the gradient of hvp"));
    gradient.fill(7.0);
    let value_of_hessian = tape.gradient_hessian_into(ws, x, &mut gradient, &mut hessian).unwrap();
    assert_same(&[value_of_hessian], &[value], what("the value of hessian"));
    assert_same(&gradient, &expected, what("the gradient of hessian"));

    // One more input at the edge of its domain makes a NaN show in every
    // direction, and then the reference sweeps decide.
    let with_edge = |x: &[f64], more: f64| [x, &[more]].concat();
    let edge = Tape::record(&with_edge(x, 0.0), |x| tape.eval_with(&x[..n]).unwrap()[0] + x[n].sqrt()).unwrap();
    let reference = edge.hvp(&with_edge(x, 0.0), &with_edge(&v, 0.0)).unwrap();
    assert_same(&hv, &reference[..n], what("hvp, and by the reference"));

    let mut columns = vec![0.0; n * n];
    for j in 0..n {
        tape.hvp_into(ws, x, &unit(n, j), &mut hv).unwrap();
        seen.result(&hv);
        for i in 0..n {
            columns[i * n + j] = hv[i];
            // A direction alone, in company, and its copy below the diagonal.
            let entries = [hessian[(i.min(j), i.max(j))], hessian[(i.max(j), i.min(j))]];
            assert_same(&entries[..1], &entries[1..], what("the symmetry of hessian"));
            if i <= j {
                assert_same(&[hv[i]], &entries[..1], what("hvp and hessian"));
            }
        }
    }
    Some(columns)
}

fn check_second_order_of_programs(make: Maker, programs: usize) {
    let (mut ws, mut seen, levels) = (Workspace::new(), Seen::default(), SimdLevel::available());
    let mut compared = 0;
    for index in 0..programs / 10 {
        let random = &mut Random::new(6, index);
        let program = make(random, Purpose { single: true, params: false, guarded: 20 });
        let Program { tape, x0, k0 } = &program;
        ws.set_simd_level(levels[index % levels.len()]);
        let columns = check_second_order(tape, x0, random, &mut ws, &mut seen).unwrap();
        // Duals of duals add the same terms in another order. With infinite terms
        // among them the sum may be NaN in one order and not in another.
        let (value, gradient) = tape.gradient(x0).unwrap();
        if value.is_finite() && gradient.iter().all(|g| g.is_finite()) {
            let duals = by_duals(tape, x0);
            let finite = columns.iter().chain(&duals).filter(|h| h.is_finite());
            let largest = finite.fold(1.0_f64, |largest, h| largest.max(h.abs()));
            for (&a, &b) in columns.iter().zip(&duals) {
                assert!(
                    equal(a, b) || (a - b).abs() <= 1e-11 * largest,
                    "{a} by hvp, {b} by duals at {x0:?} of\n{tape}"
                );
            }
            compared += 1;
        }
        for _ in 0..3 {
            let (x, k) = (random.point(x0.len()), random.point(k0.len()));
            check_second_order(&tape.with_params(&k).unwrap(), &x, random, &mut ws, &mut seen);
        }
    }
    seen.expect_each(programs / 100);
    assert!(compared > programs / 20, "{compared} programs are compared with duals");
}

#[test]
fn second_order_has_the_same_bits_in_every_sweep() {
    check_second_order_of_programs(Program::new, PROGRAMS);
}

#[test]
fn second_order_has_the_same_bits_in_every_sweep_with_calls() {
    check_second_order_of_programs(Program::with_calls, PROGRAMS_WITH_CALLS);
}
