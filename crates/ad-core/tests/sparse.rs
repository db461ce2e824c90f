//! Sparse Jacobians and Hessians: patterns and values against the dense
//! drivers, colourings against independent checks and known minima, and what
//! large problems cost. (`allocation.rs` tests that warm plans allocate nothing.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeSet;

use ad_core::{Error, Op, SparseHessian, SparseJacobian, SparseMatrix, Sparsity, Tape, Var, Workspace};
use common::programs::call;
use common::sparse::{check_hessian, check_jacobian, columns, is_outside};
use common::{product, takes_constant, unit};

/// Random programs that are sparse, for the tests that colour them.
const PROGRAMS: u64 = if cfg!(debug_assertions) { 150 } else { 1000 };

// Against the dense drivers.

/// Where a dense matrix, given by its columns, differs from 0.
fn nonzeros(columns: &[Vec<f64>]) -> impl Iterator<Item = (usize, usize)> {
    let entries =
        columns.iter().enumerate().flat_map(|(j, column)| column.iter().enumerate().map(move |(i, &x)| (i, j, x)));
    entries.filter(|&(_, _, x)| x != 0.0).map(|(i, j, _)| (i, j))
}

fn entries(pattern: &Sparsity) -> BTreeSet<(usize, usize)> {
    (0..pattern.rows()).flat_map(|i| pattern.row(i).iter().map(move |&j| (i, j))).collect()
}

#[test]
fn the_pattern_of_every_operation_is_what_its_derivatives_show() {
    for &op in Op::ALL {
        let mut probes = op.info().probes.to_vec();
        let constants = if takes_constant(op) { probes.pop().unwrap() } else { &[0.0] };
        let points = product(&probes);
        for &c in constants {
            let what = format!("{op}, constant {c}");
            let tape = Tape::record(&points[0], |x| call(op, x, c)).unwrap();
            let mut seen = BTreeSet::new();
            for x in &points {
                check_jacobian(&tape, x, &what);
                seen.extend(nonzeros(&columns(&tape, x)));
            }
            // The exponent 0 is a number like any other.
            if c != 0.0 || !takes_constant(op) {
                assert_eq!(entries(&tape.sparsity().unwrap()), seen, "{what}");
            }
            for output in 0..op.info().forms.len() {
                let tape = Tape::record(&points[0], |x| call(op, x, c)[output]).unwrap();
                let mut seen = BTreeSet::new();
                for x in &points {
                    check_hessian(&tape, x, &what);
                    if is_outside(&tape, x) {
                        continue;
                    }
                    let n = x.len();
                    let columns: Vec<Vec<f64>> = (0..n).map(|j| tape.hvp(x, &unit(n, j)).unwrap()).collect();
                    seen.extend(nonzeros(&columns).flat_map(|(i, j)| [(i, j), (j, i)]));
                }
                if ![0.0, 1.0].contains(&c) || !takes_constant(op) {
                    assert_eq!(entries(&tape.hessian_sparsity().unwrap()), seen, "result {output} of {what}");
                }
            }
        }
    }
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

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A point: ordinary numbers, at every fourth point with edges among them.
    fn point(&mut self, n: usize) -> Vec<f64> {
        let edges = self.below(4) == 0;
        let edge = [0.0, -0.0, 1.0, 1e300, -1e-300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        let number = |random: &mut Random| match random.below(4) {
            0 if edges => random.one_of(&edge),
            1 => random.below(9) as f64 * 0.5 - 2.0,
            _ => random.below(6000) as f64 / 1000.0 - 3.0,
        };
        (0..n).map(|_| number(self)).collect()
    }
}

/// A program whose rows read neighbours, so that much of its derivatives is 0;
/// every operation of the table occurs.
fn program(random: &mut Random, n: usize, outputs: usize) -> Tape {
    let constants = [2.0, 3.0, -1.0, 0.0, 1.0, 0.5];
    let x0 = vec![0.5; n];
    let record = |x: &[Var], k: &[Var]| {
        let mut values = x.to_vec();
        for _ in 0..2 + random.below(if outputs == 1 { n } else { 3 * n }) {
            let operators: &[Op] = &[Op::Add, Op::Mul, Op::Sub, Op::Div];
            let table = random.one_of(&[operators, Op::ALL]);
            let op = random.one_of(table);
            let near = random.below(values.len());
            let operands: Vec<Var> = (0..4)
                .map(|_| match random.below(12) {
                    0 => k[0],
                    1 => Var::from(random.one_of(&constants)),
                    2 => random.one_of(&values),
                    _ => values[(near + random.below(3)).min(values.len() - 1)],
                })
                .collect();
            let count = op.info().probes.len() - usize::from(takes_constant(op));
            values.extend(call(op, &operands[..count], random.one_of(&constants)));
        }
        let mut outputs: Vec<Var> = (0..outputs).map(|_| random.one_of(&values)).collect();
        if outputs.len() == 1 {
            // Terms of a sum, as in most functions that one minimises.
            outputs[0] = (0..n).map(|_| random.one_of(&values)).sum::<Var>() + outputs[0];
        }
        outputs
    };
    Tape::builder().inputs(&[], &x0).params(&[], &[1.5]).record(record).unwrap()
}

#[test]
fn random_programs_have_the_jacobian_of_the_dense_drivers() {
    let (mut forward, mut sparse, mut shared) = (0, 0, 0);
    for number in 0..PROGRAMS {
        let random = &mut Random(number);
        let (n, m) = (1 + random.below(20), 1 + random.below(20));
        let tape = program(random, n, m);
        let plan = SparseJacobian::new(&tape).unwrap();
        for point in 0..4 {
            check_jacobian(&tape, &random.point(n), &format!("program {number}, point {point}"));
        }
        let x = random.point(n);
        // The dense driver goes by shape alone, and where both go one way both are the same.
        if plan.is_forward() == (m > 1 && n <= 4 * m) {
            let (dense, sparse) = (tape.jacobian(&x).unwrap(), plan.values(&x).unwrap().to_dense().unwrap());
            common::assert_equal(dense.as_slice(), sparse.as_slice(), format_args!("program {number}"));
        }
        check_distance_2(&plan).unwrap();
        forward += u64::from(plan.is_forward());
        sparse += u64::from(plan.sparsity().nonzeros() * 2 < m * n);
        shared += u64::from(plan.num_colours() < plan.colours().len());
    }
    let most = PROGRAMS / 2..PROGRAMS;
    assert!(most.contains(&forward) && sparse > PROGRAMS / 2 && shared > PROGRAMS / 2, "{forward} {sparse} {shared}");
}

#[test]
fn random_programs_have_the_hessian_of_the_dense_drivers() {
    let (mut nonlinear, mut shared) = (0, 0);
    for number in 0..PROGRAMS {
        let random = &mut Random(number << 20);
        let n = 1 + random.below(24);
        let tape = program(random, n, 1);
        let plan = SparseHessian::new(&tape).unwrap();
        for point in 0..4 {
            check_hessian(&tape, &random.point(n), &format!("program {number}, point {point}"));
        }
        check_star(plan.sparsity(), plan.colours()).unwrap();
        nonlinear += u64::from(plan.sparsity().nonzeros() > 0);
        let mixed = entries(plan.sparsity()).iter().any(|(i, j)| i != j);
        shared += u64::from(mixed && plan.num_colours() < n);
    }
    assert!(nonlinear > PROGRAMS / 2 && shared > PROGRAMS / 4, "{nonlinear} {shared}");
}

// Colourings, checked by their definition.

/// No two nonzeros of a row have columns of one colour; or, for reverse sweeps,
/// no two of a column rows of one colour.
fn check_distance_2(plan: &SparseJacobian) -> Result<(), String> {
    let pattern = plan.sparsity();
    let pattern = if plan.is_forward() { pattern.clone() } else { pattern.transposed() };
    check_groups(&pattern, plan.colours())
}

fn check_groups(pattern: &Sparsity, colours: &[usize]) -> Result<(), String> {
    for i in 0..pattern.rows() {
        let distinct: BTreeSet<usize> = pattern.row(i).iter().map(|&j| colours[j]).collect();
        if distinct.len() != pattern.row(i).len() {
            return Err(format!("two columns of row {i} have one colour"));
        }
    }
    Ok(())
}

/// Neighbours differ in colour, and no path of four vertices has two colours.
fn check_star(pattern: &Sparsity, colours: &[usize]) -> Result<(), String> {
    let neighbours = |v: usize| pattern.row(v).iter().copied().filter(move |&w| w != v);
    for b in 0..pattern.rows() {
        for c in neighbours(b) {
            if colours[b] == colours[c] {
                return Err(format!("the neighbours {b} and {c} have one colour"));
            }
            for a in neighbours(b).filter(|&a| a != c && colours[a] == colours[c]) {
                if let Some(d) = neighbours(c).find(|&d| d != a && d != b && colours[d] == colours[b]) {
                    return Err(format!("the path {a} {b} {c} {d} has two colours"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_wrong_colouring_is_caught() {
    let tape = banded(12, 1);
    let plan = SparseJacobian::new(&tape).unwrap();
    let mut colours = plan.colours().to_vec();
    check_groups(plan.sparsity(), &colours).unwrap();
    colours[5] = colours[7];
    assert!(check_groups(plan.sparsity(), &colours).unwrap_err().contains("have one colour"));

    let plan = SparseHessian::new(&chain(12)).unwrap();
    let pattern = plan.sparsity();
    check_star(pattern, plan.colours()).unwrap();
    let two: Vec<usize> = (0..12).map(|i| i % 2).collect();
    assert_eq!(check_star(pattern, &two), Err("the path 0 1 2 3 has two colours".to_string()));
    let mut same = plan.colours().to_vec();
    same[4] = same[5];
    assert!(check_star(pattern, &same).unwrap_err().contains("neighbours"));
}

/// n outputs, each of which reads the inputs at most `reach` places away.
fn banded(n: usize, reach: usize) -> Tape {
    Tape::record(&vec![1.0; n], |x| {
        let row = |i: usize| x[i.saturating_sub(reach)..(i + reach + 1).min(n)].iter().map(|&x| x * n as f64);
        (0..n).map(|i| row(i).map(|x| x.sin()).sum::<Var>()).collect::<Vec<Var>>()
    })
    .unwrap()
}

/// A sum of terms of two neighbours.
fn chain(n: usize) -> Tape {
    Tape::record(&vec![1.0; n], |x| x.windows(2).map(|pair| (pair[0] * pair[1]).sin()).sum::<Var>()).unwrap()
}

/// The values at a point and its four neighbours on a grid.
fn star_of_grid(x: &[Var], side: usize) -> Vec<Vec<Var>> {
    let at = |i: usize, j: usize| (i < side && j < side).then(|| x[i * side + j]);
    let around = |i: usize, j: usize| [(i, j), (i.wrapping_sub(1), j), (i + 1, j), (i, j.wrapping_sub(1)), (i, j + 1)];
    (0..side * side).map(|k| around(k / side, k % side).into_iter().filter_map(|(i, j)| at(i, j)).collect()).collect()
}

#[test]
fn jacobians_take_the_least_colours_known() {
    let check = |what: &str, tape: &Tape, forward: bool, least: usize, most: usize| {
        let plan = SparseJacobian::new(tape).unwrap();
        check_distance_2(&plan).unwrap();
        let colours = plan.num_colours();
        assert_eq!(plan.is_forward(), forward, "{what}");
        assert!((least..=most).contains(&colours), "{what}: {colours} colours");
        assert_eq!(plan.colours().iter().collect::<BTreeSet<_>>().len(), colours, "{what}");
        check_jacobian(tape, &(0..tape.num_inputs()).map(|i| i as f64 * 0.37).collect::<Vec<_>>(), what);
    };
    for reach in [0, 1, 2, 5] {
        check("a band", &banded(60, reach), true, 2 * reach + 1, 2 * reach + 1);
    }
    // One output that reads all: only rows can share.
    let tape =
        Tape::record(&[1.0; 50], |x| [vec![x.iter().map(|x| x.exp()).sum::<Var>()], x.to_vec()].concat()).unwrap();
    check("a row and a diagonal", &tape, false, 2, 2);
    let tape = Tape::record(&[1.0; 50], |x| x.iter().map(|&xi| xi.exp() * x[0]).collect::<Vec<Var>>()).unwrap();
    check("a column and a diagonal", &tape, true, 2, 2);
    let tape = Tape::record(&[1.0; 60], |x| {
        x.chunks(4).flat_map(|block| (0..4).map(|i| Var::sum_of(block).sin() * block[i])).collect::<Vec<Var>>()
    })
    .unwrap();
    check("blocks of four", &tape, true, 4, 4);
    let tape = Tape::record(&[1.0; 30], |x| x.iter().map(|&xi| Var::sum_of(x) * xi).collect::<Vec<Var>>()).unwrap();
    check("a dense matrix", &tape, true, 30, 30);
    let tape = Tape::record(&[1.0; 30], |x| [Var::sum_of(x), Var::dot(&x[..15], &x[15..])]).unwrap();
    check("two dense rows", &tape, false, 2, 2);
    let side = 12;
    let tape = Tape::record(&vec![1.0; side * side], |x| {
        star_of_grid(x, side).iter().map(|star| Var::sum_of(star).exp()).collect::<Vec<Var>>()
    })
    .unwrap();
    // Five is the least there can be; colouring one vertex after the other takes a few more.
    check("five points of a grid", &tape, true, 5, 7);
}

#[test]
fn hessians_take_the_least_colours_known() {
    let check = |what: &str, tape: &Tape, least: usize, most: usize| {
        let plan = SparseHessian::new(tape).unwrap();
        check_star(plan.sparsity(), plan.colours()).unwrap();
        let colours = plan.num_colours();
        assert!((least..=most).contains(&colours), "{what}: {colours} colours");
        check_hessian(tape, &(0..tape.num_inputs()).map(|i| i as f64 * 0.37 + 0.1).collect::<Vec<_>>(), what);
    };
    let linear = Tape::record(&[1.0; 40], |x| Var::sum_of(x) + x[3].floor() * 2.0).unwrap();
    check("nothing", &linear, 1, 1);
    let squares = Tape::record(&[1.0; 40], |x| x.iter().map(|&x| x * x).sum::<Var>()).unwrap();
    check("a diagonal", &squares, 1, 1);
    check("a chain", &chain(40), 3, 3);
    for hub in [0, 20, 39] {
        let arrow = Tape::record(&[1.0; 40], |x| x.iter().map(|&xi| (xi * x[hub]).exp()).sum::<Var>()).unwrap();
        check("an arrow", &arrow, 2, 2);
    }
    let blocks = Tape::record(&[1.0; 40], |x| x.chunks(4).map(|block| Var::sum_of(block).exp()).sum::<Var>()).unwrap();
    check("blocks of four", &blocks, 4, 4);
    let dense = Tape::record(&[1.0; 20], |x| Var::sum_of(x).exp()).unwrap();
    check("a dense matrix", &dense, 20, 20);
    let side = 10;
    let grid = Tape::record(&vec![1.0; side * side], |x| {
        let edges = star_of_grid(x, side)
            .into_iter()
            .flat_map(|star| star[1..].iter().map(|&y| star[0] * y).collect::<Vec<_>>());
        edges.map(|product| product.exp()).sum::<Var>()
    })
    .unwrap();
    // Five is the least for a grid of this size.
    check("neighbours of a grid", &grid, 5, 5);
}

// Large problems, by what they cost in sweeps. (They end at all only if time and
// memory are about linear.)

#[test]
fn large_bands_take_a_handful_of_sweeps() {
    let n = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    let tape = banded(n, 2);
    let plan = SparseJacobian::new(&tape).unwrap();
    assert_eq!((plan.num_colours(), plan.sweeps(), plan.sparsity().nonzeros()), (5, 1, 5 * n - 6));
    let jac = plan.values(&vec![0.0; n]).unwrap();
    assert!(jac.values().iter().all(|&entry| entry == n as f64));

    let plan = SparseHessian::new(&chain(n)).unwrap();
    assert_eq!((plan.num_colours(), plan.sweeps(), plan.sparsity().nonzeros()), (3, 1, 3 * n - 2));
    let x: Vec<f64> = (0..n).map(|i| (i % 10) as f64).collect();
    let h = plan.values(&x).unwrap();
    assert_eq!(h.get(10, 11), Some(1.0));

    let arrow = Tape::record(&vec![1.0; n], |x| x.iter().map(|&xi| xi * x[0]).sum::<Var>()).unwrap();
    let plan = SparseHessian::new(&arrow).unwrap();
    assert_eq!((plan.num_colours(), plan.sparsity().nonzeros()), (2, 2 * n - 1));
    let hub = Tape::record(&vec![1.0; n], |x| [vec![Var::sum_of(x).exp()], x.to_vec()].concat()).unwrap();
    let plan = SparseJacobian::new(&hub).unwrap();
    assert_eq!((plan.num_colours(), plan.sweeps(), plan.is_forward()), (2, 2, false));
}

#[test]
fn a_dense_block_is_no_trouble_for_the_rest() {
    let (n, block) = if cfg!(debug_assertions) { (4_000, 400) } else { (100_000, 2_000) };
    let tape = Tape::record(&vec![1.0; n], |x| {
        let dense = Var::sum_of(&x[..block]);
        x.iter().enumerate().map(|(i, &x)| if i < block { x * dense } else { x.exp() }).collect::<Vec<Var>>()
    })
    .unwrap();
    let plan = SparseJacobian::new(&tape).unwrap();
    assert_eq!((plan.num_colours(), plan.sparsity().nonzeros()), (block, block * block + n - block));
    let tape = Tape::record(&vec![1.0; n], |x| {
        Var::sum_of(&x[..block]).exp() + x[block..].iter().map(|x| x.exp()).sum::<Var>()
    })
    .unwrap();
    let plan = SparseHessian::new(&tape).unwrap();
    assert_eq!((plan.num_colours(), plan.sparsity().nonzeros()), (block, block * block + n - block));
}

#[test]
fn everything_may_depend_on_everything() {
    // Many rows, each of which reads all inputs, so that sets kept for each row would not fit.
    let (n, steps) = (300, if cfg!(debug_assertions) { 100 } else { 1000 });
    let tape = Tape::record(&vec![0.01; n], |x| {
        let mut state = x.to_vec();
        for _ in 0..steps {
            let mean = Var::sum_of(&state) / n as f64;
            state = state.iter().map(|&s| (s * mean).sin()).collect();
        }
        state
    })
    .unwrap();
    assert_eq!(tape.sparsity().unwrap().nonzeros(), n * n);
    let tape = Tape::record(&[0.01; 3], |x| {
        // A norm of many residuals that depend on few inputs.
        (0..20_000).map(|i| (x[0] * f64::from(i) + x[1]).sin().powi(2)).sum::<Var>().sqrt()
    })
    .unwrap();
    assert_eq!(tape.hessian_sparsity().unwrap().to_string(), "[* * .]\n[* * .]\n[. . .]\n");
}

// The policies.

#[test]
fn infinite_and_nan_derivatives_stay_in_their_own_entries() {
    // x₀ and x₁ share a direction: √x₀ has an infinite slope at 0, which meets the
    // slope 0 of floor in the row of x₁.
    let tape = Tape::record(&[1.0; 6], |x| {
        let root = x[0].sqrt();
        [root, x[1] * 3.0 + root.floor(), x[2] + (x[3] - x[3]).sqrt(), x[4] * x[5]]
    })
    .unwrap();
    let plan = SparseJacobian::new(&tape).unwrap();
    assert!(plan.is_forward() && plan.colours()[0] == plan.colours()[1], "{:?}", plan.colours());
    assert_eq!(tape.sparsity().unwrap().row(1), [1]);
    let jac = plan.values(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    assert_eq!(&jac.values()[..3], [f64::INFINITY, 3.0, 1.0]);
    assert_eq!(&jac.values()[4..], [5.0, 4.0]);
    for x0 in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        check_jacobian(&tape, &[x0, 1.0, 2.0, 3.0, 4.0, 5.0], "an infinite slope");
    }

    // The same in reverse: y₀ and y₁ share a sweep, and 0·∞ waits below y₁.
    let tape = Tape::record(&[1.0; 12], |x| {
        let y = Var::sum_of(&x[..6]);
        [y * x[0], Var::sum_of(&x[6..]) + (x[11] - 1.0).sqrt().ceil() + x[3].floor().sqrt().sign()]
    })
    .unwrap();
    let plan = SparseJacobian::new(&tape).unwrap();
    assert!(!plan.is_forward() && plan.num_colours() == 1);
    for value in [0.0, 1.0, -1.0, f64::INFINITY, f64::NAN] {
        check_jacobian(&tape, &[value; 12], "zero partials in reverse");
    }

    // And in products of the Hessian with several directions.
    let tape =
        Tape::record(&[1.0; 4], |x| x[0].powf(1.5) + x[1] * x[1] + (x[0].sqrt().floor() * x[2]).exp() + x[3].ln())
            .unwrap();
    assert_eq!(SparseHessian::new(&tape).unwrap().num_colours(), 1);
    let h = tape.sparse_hessian(&[0.0, 1.0, 2.0, 1.0]).unwrap();
    assert_eq!((h.get(0, 0), h.get(1, 1), h.get(3, 3)), (Some(f64::INFINITY), Some(2.0), Some(-1.0)));
    for value in [0.0, 1.0, -1.0, f64::INFINITY, f64::NAN] {
        check_hessian(&tape, &[value, 1.0, 2.0, 1.0], "an infinite second derivative");
    }
}

#[test]
fn a_plan_serves_clones_and_any_parameters() {
    let tape = Tape::builder()
        .inputs(&[], &[1.0; 3])
        .params(&[], &[0.0])
        .record(|x, k| (x[0] * k[0] * x[1] + x[2] * x[2] * k[0]).tanh())
        .unwrap();
    // The parameter is 0 here, and yet no number that the pattern may rely on.
    assert_eq!(tape.sparsity().unwrap().nonzeros(), 3);
    let (hessian, jacobian) = (SparseHessian::new(&tape).unwrap(), SparseJacobian::new(&tape).unwrap());
    assert!(hessian.values(&[1.0, 2.0, 3.0]).unwrap().values().iter().all(|&entry| entry == 0.0));
    assert!(jacobian.values(&[1.0, 2.0, 3.0]).unwrap().values().iter().all(|&entry| entry == 0.0));
    for k in [0.5, -2.0, 3.0] {
        let with = tape.clone().with_params(&[k]).unwrap();
        check_jacobian(&with, &[0.1, 0.2, 0.3], "other parameters");
        check_hessian(&with, &[0.1, 0.2, 0.3], "other parameters");
        let entry = with.sparse_jacobian(&[0.0, 0.5, 0.0]).unwrap().get(0, 0);
        assert_eq!(entry, Some(k * 0.5));
    }
    // One matrix and one workspace for plans of any shape.
    let (mut ws, mut matrix) = (Workspace::new(), SparseMatrix::default());
    for (n, other) in [(7, banded(7, 1)), (3, banded(3, 0)), (40, banded(40, 2))] {
        let x = vec![0.25; n];
        SparseJacobian::new(&other).unwrap().values_into(&mut ws, &x, &mut matrix).unwrap();
        assert_eq!(matrix, other.sparse_jacobian(&x).unwrap());
        let y = SparseHessian::new(&chain(n)).unwrap().values_into(&mut ws, &x, &mut matrix).unwrap();
        assert_eq!((y, &matrix), (chain(n).eval(&x).unwrap()[0], &chain(n).sparse_hessian(&x).unwrap()));
    }
}

#[test]
fn outputs_may_be_inputs_parameters_constants_and_repeated() {
    let tape = Tape::builder()
        .inputs(&[], &[1.0; 3])
        .params(&[], &[2.0])
        .record(|x, k| vec![x[2], k[0], Var::from(3.0), x[2], x[0] + k[0].exp(), k[0] * 2.0])
        .unwrap();
    assert_eq!(tape.sparsity().unwrap().to_string(), "[. . *]\n[. . .]\n[. . .]\n[. . *]\n[* . .]\n[. . .]\n");
    check_jacobian(&tape, &[1.0, 2.0, 3.0], "plain outputs");
    // Nothing depends on anything, and still the guards are asked.
    let tape =
        Tape::record(&[1.0, 1.0], |x| if x[0] > 0.0 { [x[1].floor(), x[0].sign()] } else { [x[0], x[1]] }).unwrap();
    assert_eq!(tape.sparse_jacobian(&[1.0, 5.0]).unwrap().values(), [0.0; 0]);
    assert!(matches!(tape.sparse_jacobian(&[-1.0, 5.0]), Err(Error::BranchChanged { .. })));
    let tape = Tape::record(&[1.0, 1.0], |x| if x[0] > 0.0 { x[1].floor() } else { x[0] }).unwrap();
    assert!(matches!(tape.sparse_hessian(&[-1.0, 5.0]), Err(Error::BranchChanged { .. })));
    assert!(matches!(tape.sparse_jacobian(&[-1.0, 5.0]), Err(Error::BranchChanged { .. })));
}

#[test]
fn rows_that_reach_no_output_count_for_nothing() {
    let tape = Tape::record(&[1.0; 5], |x| {
        let unread = x[0] * x[1];
        // A product read by steps alone: its slope goes nowhere.
        let steps = (x[1] * x[2]).floor() + (x[2] / x[3]).sin().select_gt(x[0].exp(), x[3], 2.0);
        let (_, cosine) = (x[4] * x[4]).sin_cos();
        let _ = unread.exp();
        steps + cosine
    })
    .unwrap();
    assert_eq!(tape.sparsity().unwrap().to_string(), "[. . . * *]\n");
    assert_eq!(entries(&tape.hessian_sparsity().unwrap()), BTreeSet::from([(4, 4)]));
    check_hessian(&tape, &[1.0, 2.0, 3.0, 4.0, 5.0], "rows that reach no output");
    let tape = Tape::record(&[1.0; 2], |x| {
        let (sine, _) = (x[0] * x[1]).sin_cos();
        sine.round() + x[1]
    })
    .unwrap();
    assert_eq!((tape.sparsity().unwrap().nonzeros(), tape.hessian_sparsity().unwrap().nonzeros()), (1, 0));
}

#[test]
fn bad_arguments_are_errors() {
    let tape = banded(4, 1);
    assert!(matches!(tape.sparse_jacobian(&[1.0; 3]), Err(Error::Length { expected: 4, got: 3, .. })));
    assert!(matches!(tape.hessian_sparsity(), Err(Error::NotScalar { outputs: 4, .. })));
    assert!(matches!(tape.sparse_hessian(&[1.0; 4]), Err(Error::NotScalar { outputs: 4, .. })));
    assert!(matches!(SparseHessian::new(&tape), Err(Error::NotScalar { outputs: 4, .. })));
    assert!(matches!(chain(4).sparse_hessian(&[1.0; 5]), Err(Error::Length { expected: 4, got: 5, .. })));
    let jac = tape.sparse_jacobian(&[1.0; 4]).unwrap();
    assert!(matches!(jac.mul(&[1.0; 5]), Err(Error::Length { expected: 4, got: 5, .. })));
    assert_eq!((jac.get(0, 4), jac.get(4, 0), jac.get(0, 3)), (None, None, Some(0.0)));
    assert!(!jac.sparsity().contains(4, 0) && !jac.sparsity().contains(usize::MAX, usize::MAX));
}

#[test]
fn large_matrices_print_their_beginning_and_their_size() {
    let jac = banded(100, 1).sparse_jacobian(&[0.0; 100]).unwrap();
    let pattern = jac.sparsity().to_string();
    assert!(pattern.starts_with("[* * . .") && pattern.ends_with("… 100 × 100 with 298 nonzeros\n"), "{pattern}");
    assert_eq!(pattern.lines().count(), 41);
    let text = format!("{jac:.1}");
    assert!(text.starts_with("(0, 0) 100.0\n(0, 1) 100.0\n(1, 0) 100.0\n") && text.ends_with("… 198 more\n"), "{text}");
    let product = jac.mul(&vec![1.0; 100]).unwrap();
    assert_eq!(
        product,
        jac.to_dense().unwrap().as_slice().chunks(100).map(|row| row.iter().sum()).collect::<Vec<f64>>()
    );
}

/// Tapes that call functions have the patterns of the code written out.
mod calls {
    use ad_core::{Custom, CustomOp, Implicit};

    use super::*;

    /// A function recorded with calls, and written out.
    fn twins(n: usize, f: impl Fn(&[Var], bool) -> Vec<Var>) -> [Tape; 2] {
        let x: Vec<f64> = (0..n).map(|i| 0.3 + 0.1 * i as f64).collect();
        [true, false].map(|called| Tape::record(&x, |x| f(x, called)).unwrap())
    }

    fn body() -> Tape {
        Tape::record(&[0.5, 0.7, 0.9], |x| part(x[0], x[1], x[2])).unwrap()
    }

    /// With zeros in its Jacobian and in each of its Hessians.
    fn part(a: Var, b: Var, c: Var) -> [Var; 3] {
        [a * b + c, b.sin() + a.floor(), c.sin() * a + b]
    }

    /// Looks at all places, also those outside the pattern.
    fn assert_sparse_is_dense(name: &str, tape: &Tape, x: &[f64]) {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * (1.0 + b.abs());
        let (sparse, dense) = (tape.sparse_jacobian(x).unwrap(), tape.jacobian(x).unwrap());
        for i in 0..dense.rows() {
            for j in 0..dense.cols() {
                let entry = sparse.get(i, j).unwrap_or(0.0);
                assert!(close(entry, dense[(i, j)]), "{name}: J({i}, {j}): {entry} and {}", dense[(i, j)]);
            }
        }
        if tape.num_outputs() == 1 {
            let (sparse, dense) = (tape.sparse_hessian(x).unwrap(), tape.hessian(x).unwrap());
            for i in 0..dense.rows() {
                for j in 0..dense.cols() {
                    let entry = sparse.get(i, j).unwrap_or(0.0);
                    assert!(close(entry, dense[(i, j)]), "{name}: H({i}, {j}): {entry} and {}", dense[(i, j)]);
                }
            }
        }
    }

    #[test]
    fn patterns_of_calls_are_those_of_the_code_written_out() {
        type Both = Box<dyn Fn(&[Var], bool) -> Vec<Var>>;
        let flat = |x: &[Var]| part(x[0], x[1], x[2]).to_vec();
        let windows = |x: &[Var]| x.windows(3).map(<[Var]>::to_vec).collect::<Vec<_>>();
        let cases: Vec<(&str, usize, Both)> = vec![
            ("call", 4, Box::new(move |x, called| if called { body().call(&x[1..]) } else { flat(&x[1..]) })),
            (
                "map",
                9,
                Box::new(move |x, called| match called {
                    true => body().map(windows(x)),
                    false => windows(x).iter().flat_map(|x| flat(x)).collect(),
                }),
            ),
            (
                "map of scattered arguments, some of them constants",
                7,
                Box::new(move |x, called| {
                    let c = Var::from(0.25);
                    let items = [[x[0], x[5], x[1]], [x[6], c, x[2]], [x[3], x[3], x[4]], [c, c, x[0]]];
                    match called {
                        true => body().map(items),
                        false => items.iter().flat_map(|x| flat(x)).collect(),
                    }
                }),
            ),
            (
                "map_sum",
                9,
                Box::new(move |x, called| match called {
                    true => body().map_sum(windows(x)),
                    false => {
                        let terms: Vec<Vec<Var>> = windows(x).iter().map(|x| flat(x)).collect();
                        (0..3).map(|j| terms.iter().map(|term| term[j]).sum()).collect()
                    }
                }),
            ),
            (
                "scan with outputs",
                8,
                Box::new(move |x, called| match called {
                    true => {
                        let (state, outs) = body().scan(&x[..2], x[2..].chunks(1));
                        state.into_iter().chain(outs).collect()
                    }
                    false => {
                        let (mut a, mut b, mut outs) = (x[0], x[1], Vec::new());
                        for &c in &x[2..] {
                            let [next_a, next_b, out] = part(a, b, c);
                            (a, b) = (next_a, next_b);
                            outs.push(out);
                        }
                        [a, b].into_iter().chain(outs).collect()
                    }
                }),
            ),
            (
                "calls inside of calls",
                6,
                Box::new(move |x, called| match called {
                    true => {
                        let nested = Tape::record(&[0.2; 4], |x| {
                            let y = body().map(x.windows(3));
                            [y[0], y[4], y[5] * y[1]]
                        })
                        .unwrap();
                        nested.map(x.windows(4))
                    }
                    false => {
                        let nested = |x: &[Var]| {
                            let y: Vec<Var> = x.windows(3).flat_map(flat).collect();
                            [y[0], y[4], y[5] * y[1]]
                        };
                        x.windows(4).flat_map(nested).collect()
                    }
                }),
            ),
        ];
        for (name, n, f) in cases {
            let [called, written] = twins(n, &f);
            let x: Vec<f64> = (0..n).map(|i| 0.4 + 0.15 * i as f64).collect();
            assert_eq!(called.sparsity().unwrap(), written.sparsity().unwrap(), "{name}");
            assert_sparse_is_dense(name, &called, &x);
            // One output alone, so that others are dead, and all of them in a sum.
            for output in 0..called.num_outputs() {
                let [called, written] = twins(n, |x, called| vec![f(x, called)[output].exp()]);
                let patterns = [&called, &written].map(|tape| tape.hessian_sparsity().unwrap());
                assert_eq!(patterns[0], patterns[1], "{name}, output {output}");
                assert_eq!(called.sparsity().unwrap(), written.sparsity().unwrap(), "{name}, output {output}");
                assert_sparse_is_dense(name, &called, &x);
            }
            let [called, written] = twins(n, |x, called| vec![f(x, called).into_iter().sum()]);
            let patterns = [&called, &written].map(|tape| tape.hessian_sparsity().unwrap());
            assert_eq!(patterns[0], patterns[1], "{name}");
            assert_sparse_is_dense(name, &called, &x);
            // Derivative tapes call derivatives of functions; their patterns hold what there is.
            let gradient = called.gradient_tape().unwrap();
            assert_sparse_is_dense(name, &gradient, &x);
            let third = gradient.jvp_tape().unwrap();
            assert_sparse_is_dense(name, &third, &[&x[..], &vec![0.5; n]].concat());
            let adjoint = gradient.vjp_tape().unwrap();
            assert_sparse_is_dense(name, &adjoint, &[&x[..], &vec![0.5; n]].concat());
        }
    }

    #[test]
    fn a_long_chain_by_map_sum_has_a_tridiagonal_hessian_in_three_colours() {
        const N: usize = 100_000;
        let term = Tape::record(&[1.0, 1.0], |x| 100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).powi(2)).unwrap();
        let x: Vec<f64> = (0..N).map(|i| 0.5 + 1e-5 * i as f64).collect();
        let tape = Tape::record(&x, |x| term.map_sum(x.windows(2))).unwrap();
        let plan = SparseHessian::new(&tape).unwrap();
        assert_eq!((plan.sparsity().nonzeros(), plan.num_colours()), (3 * N - 2, 3));
        let h = plan.values(&x).unwrap();
        assert_eq!(h.get(700, 701), Some(-400.0 * x[700]));
        // The same matrix as the Jacobian of the gradient, which calls the adjoint of the loop.
        let gradient = tape.gradient_tape().unwrap();
        let jacobian = SparseJacobian::new(&gradient).unwrap();
        assert_eq!((jacobian.sparsity(), jacobian.num_colours()), (plan.sparsity(), 3));
        let map = Tape::record(&x, |x| term.map(x.windows(2))).unwrap();
        let jacobian = SparseJacobian::new(&map).unwrap();
        assert_eq!((jacobian.sparsity().nonzeros(), jacobian.num_colours()), (2 * (N - 1), 2));
    }

    #[test]
    fn a_long_recurrence_has_its_pattern_in_time_proportional_to_its_steps() {
        const STEPS: usize = 100_000;
        let step = Tape::record(&[0.5, 3.0], |x| [x[1] * x[0] * (1.0 - x[0]), x[0].exp()]).unwrap();
        let x = [0.5, 2.0, 7.0];
        let tape = Tape::record(&x, |x| {
            let (state, _) = step.scan(&x[..1], std::iter::repeat_n(&x[1..2], STEPS));
            state[0] * x[2]
        })
        .unwrap();
        assert_eq!(tape.hessian_sparsity().unwrap().to_string(), "[* * *]\n[* * *]\n[* * .]\n");
    }

    #[test]
    fn custom_operations_and_solutions_are_dense_in_their_operands_alone() {
        struct Product;
        impl CustomOp for Product {
            fn name(&self) -> &str {
                "product"
            }
            fn num_operands(&self) -> usize {
                2
            }
            fn value(&self, x: &[f64], y: &mut [f64]) {
                y[0] = x[0] * x[1];
            }
            fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
                partials.copy_from_slice(&[x[1], x[0]]);
            }
            fn derivative(&self) -> Result<Option<Tape>, Error> {
                Tape::record(&[1.0, 1.0], |x| [x[1], x[0]]).map(Some)
            }
        }
        let square = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0]).unwrap();
        let root = Implicit::new(&square, |x: &[f64]| Ok::<_, String>(vec![x[0].sqrt()])).unwrap();
        let product = Custom::new(Product);
        let tape =
            Tape::record(&[1.0, 2.0, 3.0, 4.0], |x| [product.call(&x[1..3])[0], root.call(&x[3..])[0] + x[0]]).unwrap();
        assert_eq!(tape.sparsity().unwrap().to_string(), "[. * * .]\n[* . . *]\n");
        let x = [1.5, 2.5, 3.5, 9.0];
        assert_sparse_is_dense("custom and implicit", &tape, &x);
        let sum = Tape::record(&[1.0, 2.0, 3.0, 4.0], |x| tape.call(x).into_iter().sum::<Var>()).unwrap();
        assert_eq!(sum.hessian_sparsity().unwrap().to_string(), "[. . . .]\n[. * * .]\n[. * * .]\n[. . . *]\n");
        assert_sparse_is_dense("custom and implicit in a call", &sum, &x);
    }

    #[test]
    fn outside_its_domain_a_row_of_a_body_has_no_structural_zeros() {
        // The strict rule makes the partials of a logarithm NaN there, also that by the
        // operand that it does not change with.
        let body = Tape::record(&[1.0, 2.0], |x| [x[0].ln() * x[1].floor(), x[1].copysign(x[0]).sqrt()]).unwrap();
        let [called, written] = [true, false].map(|called| {
            Tape::record(&[1.0, 2.0, 3.0], |x| match called {
                true => body.map(x.windows(2)),
                false => x.windows(2).flat_map(|x| [x[0].ln() * x[1].floor(), x[1].copysign(x[0]).sqrt()]).collect(),
            })
            .unwrap()
        });
        assert_eq!(called.sparsity().unwrap(), written.sparsity().unwrap());
        for x in [[-1.0, 2.0, 3.0], [1.0, -2.0, 3.0], [0.0, f64::INFINITY, -1.0], [f64::NAN, 1.0, 2.0]] {
            let (sparse, dense) =
                (called.sparse_jacobian(&x).unwrap().to_dense().unwrap(), called.jacobian(&x).unwrap());
            for (sparse, dense) in sparse.as_slice().iter().zip(dense.as_slice()) {
                assert!(sparse == dense || (sparse.is_nan() && dense.is_nan()), "{x:?}: {sparse} and {dense}");
            }
        }
    }
}
