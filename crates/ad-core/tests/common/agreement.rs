//! Comparisons of the engines with the reference sweeps, to the last bit.
//!
//! `Tape::at` is the reference. The scalar engine is compared with it, and the
//! lane engine with the scalar engine.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use ad_core::{Dual, Error, Matrix, Samples, SimdLevel, SparseHessian, SparseJacobian, SparseMatrix, Tape, Workspace};

use super::programs::{Program, Random};
use super::{all_same, assert_same, equal, same, unit};

/// Every number of lanes that there is.
pub const LANES: [usize; 3] = [16, 32, 64];

// Comparisons.

/// A description that is written only when a comparison fails.
pub struct Described<F>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Described<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

pub fn described<F: Fn(&mut Formatter<'_>) -> fmt::Result>(write: F) -> Described<F> {
    Described(write)
}

/// Fails unless both are a changed branch: the same guard, answer and operands.
#[track_caller]
pub fn assert_same_branch(error: &Error, expected: &Error, expected_sample: Option<usize>, what: impl Display) {
    let Error::BranchChanged { guard, location, now, lhs, rhs, calls, .. } = expected else {
        panic!("{what}: {expected:?} is no changed branch")
    };
    let Error::BranchChanged { guard: g, location: l, now: n, lhs: a, rhs: b, sample, calls: c } = error else {
        panic!("{what}: {error:?} instead of {expected:?}")
    };
    assert_eq!((g, l, n, c), (guard, location, now, calls), "{what}");
    assert!(same(*a, *lhs) && same(*b, *rhs), "{what}: {error:?} instead of {expected:?}");
    assert_eq!(*sample, expected_sample, "{what}");
}

/// The fold over samples, written a second time: eight streams from −0 in
/// leaves of 64, halved 4-2-1, and the leaves merged like the bits of a counter.
pub fn fold_of(terms: &[Vec<f64>]) -> Vec<f64> {
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

/// How often what happened, so that a law cannot hold because nothing does.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<&'static str, usize>);

impl Seen {
    pub fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn result(&mut self, numbers: &[f64]) {
        self.note(if numbers.iter().all(|x| x.is_finite()) { "finite" } else { "not finite" });
    }

    pub fn sum(&mut self, expected: &Expected<'_>) {
        match expected {
            Ok(sum) => self.result(sum),
            Err(_) => self.note("changed"),
        }
    }

    pub fn times(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or(0)
    }
}

// The scalar engine.

/// Which of its two ways the Jacobian of each shape goes.
#[derive(Default)]
pub struct Directions(BTreeMap<(usize, usize), [bool; 2]>);

/// Compares every driver of the scalar engine at x with the reference.
pub fn check_scalar_engine(
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
            seen.note("changed");
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

// Many points in lanes.

/// Compares the values and Jacobians at many points with those at each alone.
pub fn check_many_points(
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
        seen.note("changed");
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

// Sums over samples.

/// The value and gradient of sample i alone, or why there is none.
pub fn terms_of(tape: &Tape, x: &[f64], samples: &Samples) -> Vec<Result<Vec<f64>, Error>> {
    let term = |i: usize| {
        let (value, gradient) = tape.with_params(samples.row(i))?.gradient(x)?;
        Ok([vec![value], gradient].concat())
    };
    (0..samples.len()).map(term).collect()
}

/// Indices into so many samples: in sequence from anywhere, backwards, or at random.
pub fn indices(random: &mut Random, count: usize, samples: usize) -> Vec<usize> {
    let start = match random.below(3) {
        0 => 0,
        1 => 8,
        _ => random.below(samples),
    };
    match random.below(4) {
        0 | 1 => (0..count).map(|i| (start + i) % samples).collect(),
        2 => (0..count).rev().map(|i| (start + i) % samples).collect(),
        _ => (0..count).map(|_| random.below(samples)).collect(),
    }
}

/// What a sum over samples is compared with.
pub type Expected<'a> = Result<Vec<f64>, (usize, &'a Error)>;

pub fn expected_sum<'a>(terms: &'a [Result<Vec<f64>, Error>], idx: &[usize]) -> Expected<'a> {
    let terms: Result<Vec<&Vec<f64>>, _> = idx.iter().map(|&i| terms[i].as_ref().map_err(|error| (i, error))).collect();
    terms.map(|terms| fold_of(&terms.into_iter().cloned().collect::<Vec<_>>()))
}

#[track_caller]
pub fn assert_sum(sum: Result<Vec<f64>, Error>, expected: &Expected<'_>, what: impl Display) {
    match (sum, expected) {
        (Ok(sum), Ok(expected)) => assert_same(&sum, &expected[..sum.len()], what),
        (Err(error), Err((sample, expected))) => assert_same_branch(&error, expected, Some(*sample), what),
        (sum, expected) => panic!("{what}: {sum:?} instead of {expected:?}"),
    }
}

/// Compares the sums of a level and a number of lanes with the stated fold.
pub fn check_sums(
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
pub const ROWS: usize = 43;

/// Samples of a program: ordinary ones, or with edges among them.
pub fn samples_of(program: &Program, random: &mut Random, edges: bool) -> (Vec<f64>, Samples) {
    let (n, width) = (program.x0.len(), program.k0.len());
    let x = if edges { random.point(n) } else { random.numbers(n, &[], 0) };
    let x = if random.chance(20) { program.x0.clone() } else { x };
    let rows: Vec<f64> = (0..ROWS)
        .flat_map(|_| if edges && random.chance(20) { random.point(width) } else { random.numbers(width, &[], 0) })
        .collect();
    let samples = Samples::from_rows(&program.tape, &rows).unwrap();
    (x, samples)
}

// Second order.

/// The second derivatives by duals of duals: entry (i, j) is the derivative of
/// ∂f/∂xᵢ along eⱼ.
pub fn by_duals(tape: &Tape, x: &[f64]) -> Vec<f64> {
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
pub fn check_second_order(
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
            seen.note("changed");
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

/// Compares the second derivatives with duals of duals.
pub fn check_with_duals(tape: &Tape, x: &[f64], columns: &[f64], seen: &mut Seen) {
    // Duals of duals add the same terms in another order. With infinite terms
    // among them the sum may be NaN in one order and not in another.
    let (value, gradient) = tape.gradient(x).unwrap();
    if !value.is_finite() || !gradient.iter().all(|g| g.is_finite()) {
        return;
    }
    let duals = by_duals(tape, x);
    let finite = columns.iter().chain(&duals).filter(|h| h.is_finite());
    let largest = finite.fold(1.0_f64, |largest, h| largest.max(h.abs()));
    let far = |(&a, &b): (&f64, &f64)| !equal(a, b) && ((a - b).abs() > 1e-11 * largest || (a - b).is_nan());
    if columns.iter().zip(&duals).any(far) {
        // Where terms cancel, rounding is more than that. That is rare.
        seen.note("far from duals");
    }
    seen.note("compared with duals");
}

/// Points of a program, each with parameters of its own or all with those of the tape.
pub fn points_of(program: &Program, random: &mut Random) -> Vec<Vec<f64>> {
    // Too few for lanes, and around their numbers.
    let count = random.one_of(&[1, 3, 16, 17, 40, 70]);
    let width = program.x0.len() + if random.chance(50) { program.k0.len() } else { 0 };
    // Points with edges go through the scalar engine in the end, so half of
    // the programs have few of them.
    let edges = random.chance(50);
    let point = |_| match edges || random.chance(4) {
        true => random.point(width),
        false => random.numbers(width, &[], 0),
    };
    (0..count).map(point).collect()
}

/// The points that keep to the branches of a program, and where it was recorded instead of the others.
pub fn on_branch(program: &Program, mut points: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for point in &mut points {
        let (x, k) = point.split_at(program.x0.len());
        let stays = match k {
            [] => program.tape.eval(x).is_ok(),
            k => program.tape.with_params(k).unwrap().eval(x).is_ok(),
        };
        if !stays {
            let recorded = [&program.x0[..], &program.k0].concat();
            *point = recorded[..point.len()].to_vec();
        }
    }
    points
}

/// What the drivers are given.
pub struct Given {
    pub tape: Tape,
    pub x: Vec<f64>,
    p: Vec<f64>,
    w: Vec<f64>,
    seeds: Matrix,
    points: Matrix,
    samples: Samples,
    idx: Vec<usize>,
}

impl Given {
    pub fn new(program: &Program, random: &mut Random) -> Given {
        let tape = program.tape.clone();
        let (n, m) = (tape.num_inputs(), tape.num_outputs());
        let edges = random.chance(25);
        let (x, samples) = samples_of(program, random, edges);
        let (p, w, columns) = (random.seed(n), random.seed(m), 1 + random.below(9));
        let seeds = Matrix::from_vec(n, columns, random.seed(n * columns)).unwrap();
        let points = Matrix::from_rows(&on_branch(program, points_of(program, random))).unwrap();
        let count = 1 + random.below(150);
        let idx = indices(random, count, ROWS);
        Given { tape, x, p, w, seeds, points, samples, idx }
    }
}

/// A driver, on a workspace or with memory of its own.
pub type Driver = fn(&Given, Option<&mut Workspace>) -> Result<Vec<f64>, Error>;

/// The drivers of a tape with one output.
pub const DRIVERS: [(&str, Driver); 15] = [
    ("eval", |Given { tape, x, .. }, ws| {
        let mut y = vec![7.0];
        let Some(ws) = ws else { return tape.eval(x) };
        tape.eval_into(ws, x, &mut y).map(|()| y)
    }),
    ("jvp", |Given { tape, x, p, .. }, ws| {
        let Some(ws) = ws else { return tape.jvp(x, p).map(|(y, dy)| [y, dy].concat()) };
        let (mut y, mut dy) = (vec![7.0], vec![7.0]);
        tape.jvp_into(ws, x, p, &mut y, &mut dy).map(|()| [y, dy].concat())
    }),
    ("jvp_many", |Given { tape, x, seeds, .. }, ws| {
        let Some(ws) = ws else { return tape.jvp_many(x, seeds).map(|(y, dy)| [&y, dy.as_slice()].concat()) };
        let (mut y, mut dy) = (vec![7.0], Matrix::zeros(1, 5));
        tape.jvp_many_into(ws, x, seeds, &mut y, &mut dy).map(|()| [&y, dy.as_slice()].concat())
    }),
    ("vjp", |Given { tape, x, w, .. }, ws| {
        let Some(ws) = ws else { return tape.vjp(x, w).map(|(y, xbar)| [y, xbar].concat()) };
        let (mut y, mut xbar) = (vec![7.0], vec![7.0; x.len()]);
        tape.vjp_into(ws, x, w, &mut y, &mut xbar).map(|()| [y, xbar].concat())
    }),
    ("gradient", |Given { tape, x, .. }, ws| {
        let Some(ws) = ws else { return tape.gradient(x).map(|(y, gradient)| [vec![y], gradient].concat()) };
        let mut gradient = vec![7.0; x.len()];
        tape.gradient_into(ws, x, &mut gradient).map(|y| [vec![y], gradient].concat())
    }),
    ("jacobian", |Given { tape, x, .. }, ws| {
        let Some(ws) = ws else { return tape.jacobian(x).map(|jacobian| jacobian.as_slice().to_vec()) };
        let mut jacobian = Matrix::zeros(1, 5);
        tape.jacobian_into(ws, x, &mut jacobian).map(|()| jacobian.as_slice().to_vec())
    }),
    ("hvp", |Given { tape, x, p, .. }, ws| {
        let Some(ws) = ws else { return tape.hvp(x, p) };
        let mut hv = vec![7.0; x.len()];
        tape.hvp_into(ws, x, p, &mut hv).map(|_| hv)
    }),
    ("hessian", |Given { tape, x, .. }, ws| {
        let Some(ws) = ws else { return tape.hessian(x).map(|hessian| hessian.as_slice().to_vec()) };
        let mut hessian = Matrix::zeros(1, 5);
        tape.hessian_into(ws, x, &mut hessian).map(|_| hessian.as_slice().to_vec())
    }),
    ("taylor", |Given { tape, x, p, .. }, ws| {
        let Some(ws) = ws else { return tape.taylor(x, p, 3).map(|series| series.as_slice().to_vec()) };
        let mut series = Matrix::zeros(1, 5);
        tape.taylor_into(ws, x, p, 3, &mut series).map(|()| series.as_slice().to_vec())
    }),
    ("sparse_jacobian", |Given { tape, x, .. }, ws| {
        let Some(ws) = ws else { return tape.sparse_jacobian(x).map(|jacobian| jacobian.values().to_vec()) };
        let mut jacobian = SparseMatrix::default();
        SparseJacobian::new(tape)?.values_into(ws, x, &mut jacobian).map(|()| jacobian.values().to_vec())
    }),
    ("sparse_hessian", |Given { tape, x, .. }, ws| {
        let Some(ws) = ws else { return tape.sparse_hessian(x).map(|hessian| hessian.values().to_vec()) };
        let mut hessian = SparseMatrix::default();
        SparseHessian::new(tape)?.values_into(ws, x, &mut hessian).map(|_| hessian.values().to_vec())
    }),
    ("eval_many", |Given { tape, points, .. }, ws| {
        let Some(ws) = ws else { return tape.eval_many(points).map(|values| values.as_slice().to_vec()) };
        let mut values = Matrix::zeros(1, 5);
        tape.eval_many_into(ws, points, &mut values).map(|()| values.as_slice().to_vec())
    }),
    ("jacobian_many", |Given { tape, points, .. }, ws| {
        let Some(ws) = ws else { return tape.jacobian_many(points).map(|jacobians| jacobians.as_slice().to_vec()) };
        let mut jacobians = Matrix::zeros(1, 5);
        tape.jacobian_many_into(ws, points, &mut jacobians).map(|()| jacobians.as_slice().to_vec())
    }),
    ("sum_value", |Given { tape, x, samples, idx, .. }, ws| match ws {
        None => tape.sum_value(x, samples, idx).map(|sum| vec![sum]),
        Some(ws) => tape.sum_value_into(ws, x, samples, idx).map(|sum| vec![sum]),
    }),
    ("sum_gradient", |Given { tape, x, samples, idx, .. }, ws| {
        let Some(ws) = ws else {
            return tape.sum_gradient(x, samples, idx).map(|(sum, gradient)| [vec![sum], gradient].concat());
        };
        let mut gradient = vec![7.0; x.len()];
        tape.sum_gradient_into(ws, x, samples, idx, &mut gradient).map(|sum| [vec![sum], gradient].concat())
    }),
];
