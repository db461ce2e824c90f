//! Laws that hold for every program: random programs of many operations,
//! replayed by every driver and in every number type, and sums over samples.
//!
//! `PROPTEST_CASES=10000 cargo test --test laws` looks further.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Dual, Error, Lanes, Matrix, Real, Rule, Samples, Tape, Var, Workspace};
use common::{all_equal, all_same, assert_same, unit};
use proptest::collection::vec;
use proptest::prelude::*;

/// One operation of a random program: its operands are values above it.
#[derive(Debug, Clone)]
struct Step {
    op: usize,
    operands: [usize; 4],
    constant: f64,
}

/// A random program: inputs, parameters, steps, outputs.
#[derive(Debug, Clone)]
struct Program {
    inputs: usize,
    params: usize,
    steps: Vec<Step>,
    outputs: Vec<usize>,
}

/// Steps below this have values and slopes of moderate size.
const TAME: usize = 24;
/// Steps below this are operations; from here on they compare.
const UNGUARDED: usize = 52;
const ALL: usize = 57;

impl Step {
    fn run<T: Real>(&self, values: &[T]) -> Vec<T> {
        let [a, b, c, d] = self.operands.map(|i| values[i % values.len()]);
        let k = self.constant;
        let last = &values[values.len().saturating_sub(1 + self.operands[3] % 6)..];
        let first = &values[..last.len()];
        vec![match self.op {
            0 => (a + b) * 0.5,
            1 => (a - b) * k,
            2 => a.sin() * b,
            3 => a.cos() + k,
            4 => a.tanh() * b.tanh(),
            5 => a / (b * b + 1.0),
            6 => (a * a + 0.5).sqrt(),
            7 => (a * a + 1.0).ln(),
            8 => a.atan(),
            9 => a.logistic(),
            10 => a.softplus() - b,
            11 => a.max(b),
            12 => a.min(k),
            13 => a.abs() * 0.75,
            14 => a.select_gt(b, c, d),
            15 => a.select_le(k, b, c * k),
            16 => <T as Rule>::sum_of(last),
            17 => T::dot(first, last) * 0.25,
            18 => a.hypot(b),
            19 => a.erf() * k,
            20 => a.relu() - b.relu(),
            21 => a.mul_add(k, b),
            22 => a.logaddexp(b),
            23 => {
                let (s, c) = a.sin_cos();
                return vec![s, c];
            }
            24 => a * b,
            25 => a / b,
            26 => a.exp(),
            27 => a.ln(),
            28 => a.sqrt(),
            29 => a.pow(b),
            30 => a.powf(k),
            31 => a.powi((k * 4.0) as i32),
            32 => a.asin(),
            33 => a.acosh(),
            34 => a.atanh(),
            35 => a.tan(),
            36 => a.sinh() - b.cosh(),
            37 => a % b,
            38 => a.atan2(b),
            39 => a.clamp(-0.5, k + 2.0),
            40 => a.xlogx(),
            41 => a.recip() + b.cbrt(),
            42 => a.floor() + b.sign(),
            43 => a.copysign(b),
            44 => a.ln_1p() - b.exp_m1(),
            45 => a.log(b),
            46 => a.exp2() + b.log2(),
            47 => a.erfc() - b.gauss(),
            48 => a.rem_euclid(b),
            49 => a.select_eq(b, c, a),
            50 => a.asinh() - b.acos(),
            51 => a.hypot(b).chain_div(c),
            52 => {
                if a > b {
                    a * 2.0
                } else {
                    b + k
                }
            }
            53 => {
                if a <= k {
                    a
                } else {
                    -b
                }
            }
            54 => {
                if a == b {
                    a + 1.0
                } else {
                    b
                }
            }
            55 => {
                if a.is_finite() {
                    a
                } else {
                    T::lit(k)
                }
            }
            _ => match a.partial_cmp(&b) {
                Some(std::cmp::Ordering::Less) => a,
                Some(_) => b * 0.5,
                None => T::lit(1.0),
            },
        }]
    }
}

impl Program {
    fn run<T: Real>(&self, x: &[T], k: &[T]) -> Vec<T> {
        let mut values: Vec<T> = x.iter().chain(k).copied().collect();
        for step in &self.steps {
            values.extend(step.run(&values));
        }
        self.outputs.iter().map(|&i| values[values.len() - 1 - i % values.len()]).collect()
    }

    fn record(&self, x: &[f64], k: &[f64]) -> Tape {
        let tape = Tape::builder().inputs(&[], x).params(&[], k).record(|x, k| self.run(x, k)).unwrap();
        tape.check().unwrap();
        tape
    }

    /// The numbers a point and the parameters need, from a longer list.
    fn split<'a>(&self, numbers: &'a [f64]) -> (&'a [f64], &'a [f64]) {
        (&numbers[..self.inputs], &numbers[self.inputs..self.inputs + self.params])
    }
}

/// Programs of the first `ops` steps.
fn programs(ops: usize) -> impl Strategy<Value = Program> {
    let step = (0..ops, any::<[u16; 4]>(), -2.0..2.0).prop_map(|(op, operands, constant)| Step {
        op,
        operands: operands.map(usize::from),
        constant,
    });
    (1..5_usize, 0..3_usize, vec(step, 0..25), vec(0..8_usize, 1..4))
        .prop_map(|(inputs, params, steps, outputs)| Program { inputs, params, steps, outputs })
}

/// Enough numbers of moderate size for any program.
fn moderate() -> impl Strategy<Value = Vec<f64>> {
    vec(-3.0..3.0, 8)
}

/// Edges among them: zeros, equal numbers, infinities, NaN.
fn any_points() -> impl Strategy<Value = Vec<f64>> {
    let edges = prop::sample::select(vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.0,
        1e-300,
        1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ]);
    vec(prop_oneof![3 => (-3.0..3.0).boxed(), 1 => edges.boxed()], 8)
}

/// A tape that is the same wherever it is recorded.
fn unguarded() -> impl Strategy<Value = Program> {
    programs(UNGUARDED)
}

fn config() -> ProptestConfig {
    // The number of cases is proptest's own, to be set from outside.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

proptest! {
    #![proptest_config(config())]

    /// ⟨w, J·p⟩ = ⟨Jᵀ·w, p⟩.
    #[test]
    fn forward_and_reverse_are_adjoint(program in programs(TAME), at in moderate(), p in moderate(), w in moderate()) {
        let (x, k) = program.split(&at);
        let (p, w) = (&p[..program.inputs], &w[..program.outputs.len()]);
        let tape = program.record(x, k);
        let (y, dy) = tape.jvp(x, p).unwrap();
        let (z, xbar) = tape.vjp(x, w).unwrap();
        prop_assert!(all_same(&y, &z));
        let jacobian = tape.jacobian(x).unwrap();
        let sizes = |j: usize| w[j].abs() * jacobian.row(j).iter().zip(p).map(|(d, p)| (d * p).abs()).sum::<f64>();
        let size: f64 = (0..w.len()).map(sizes).sum::<f64>() + 1e-3;
        prop_assume!(size.is_finite() && size < 1e12);
        let (left, right) = (dot(w, &dy), dot(&xbar, p));
        prop_assert!((left - right).abs() <= 1e-10 * size, "{left} {right} {size}");
        // And the Jacobian is both.
        for j in 0..w.len() {
            prop_assert!((dot(jacobian.row(j), p) - dy[j]).abs() <= 1e-10 * (size / w[j].abs().max(1e-3)));
        }
    }

    /// A replay gives what a recording at the new point gives, or says which
    /// comparison would be answered otherwise.
    #[test]
    fn replaying_is_recording_again(program in programs(ALL), at in any_points(), then in any_points(), seed in moderate()) {
        let (x0, k0) = program.split(&at);
        let (x, k) = program.split(&then);
        let (p, w) = (&seed[..program.inputs], &seed[..program.outputs.len()]);
        let tape = program.record(x0, k0).with_params(k).unwrap();
        let again = program.record(x, k);
        prop_assert!(all_same(&again.eval(x).unwrap(), &program.run(x, k)), "recorded and called");
        match tape.eval(x) {
            Ok(y) => {
                prop_assert!(all_same(&y, &again.eval(x).unwrap()));
                prop_assert!(all_same(&tape.jvp(x, p).unwrap().1, &again.jvp(x, p).unwrap().1));
                prop_assert!(all_same(&tape.vjp(x, w).unwrap().1, &again.vjp(x, w).unwrap().1));
                prop_assert_eq!(tape.to_string(), again.to_string());
            }
            Err(Error::BranchChanged { guard, now, .. }) => {
                let first = tape.guards().iter().zip(again.guards()).find(|(then, now)| then.answer() != now.answer());
                let (then, other) = first.expect("a guard that is answered otherwise");
                prop_assert_eq!(then, &*guard);
                prop_assert_eq!(other.answer(), now);
                prop_assert_eq!(then.location(), other.location());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// One function, one set of bits: f64, lanes, duals, and a tape of the tape.
    #[test]
    fn number_types_agree(program in programs(ALL), at in any_points(), others in vec(any_points(), 4), p in moderate()) {
        let (x, k) = program.split(&at);
        let p = &p[..program.inputs];
        let tape = program.record(x, k);
        let (y, dy) = tape.jvp(x, p).unwrap();
        prop_assert!(all_same(&y, &program.run(x, k)));

        // Duals: called directly and replayed.
        let duals: Vec<Dual> = x.iter().zip(p).map(|(&x, &p)| Dual::new(x, p)).collect();
        let constants: Vec<Dual> = k.iter().map(|&k| Dual::from(k)).collect();
        for result in [program.run(&duals, &constants), tape.eval_with(&duals).unwrap()] {
            let (v, dv): (Vec<f64>, Vec<f64>) = result.iter().map(|d| (d.v, d.dv)).unzip();
            prop_assert!(all_same(&v, &y));
            prop_assert!(all_equal(&dv, &dy), "{dv:?} {dy:?}\n{tape}");
        }

        // A recording of the replay.
        let again = Tape::record(x, |x| tape.eval_with(x).unwrap()).unwrap();
        prop_assert!(all_same(&again.eval(x).unwrap(), &y));
        prop_assert!(again.guards().len() <= tape.guards().len(), "its parameters are constants there");
        prop_assert!(all_same(&again.jvp(x, p).unwrap().1, &dy));

        // Lanes, if all take the recorded branches.
        let points = [&others[0], &others[1], &at, &others[2]].map(|point| program.split(point).0);
        let block: Vec<Lanes<4>> = (0..program.inputs).map(|i| Lanes(points.map(|x| x[i]))).collect();
        let each: Vec<Result<Vec<f64>, Error>> = points.iter().map(|x| tape.eval(x)).collect();
        match tape.eval_with(&block) {
            Ok(lanes) => for (lane, alone) in each.into_iter().enumerate() {
                prop_assert!(all_same(&lanes.iter().map(|y| y.0[lane]).collect::<Vec<_>>(), &alone.unwrap()));
            },
            Err(error) => {
                let changed = matches!(error, Error::BranchChanged { .. });
                prop_assert!(changed, "{}", error);
                prop_assert!(each.iter().any(|y| y.is_err()));
            }
        }
    }

    /// The drivers agree among themselves, with one workspace for all tapes.
    #[test]
    fn drivers_agree(tapes in vec((unguarded(), any_points(), any_points(), vec(moderate(), 9)), 1..4)) {
        let mut ws = Workspace::new();
        for (program, recorded, at, seeds) in &tapes {
            let (x0, k0) = program.split(recorded);
            let (x, k) = program.split(at);
            let (n, m) = (program.inputs, program.outputs.len());
            let tape = program.record(x0, k0).with_params(k).unwrap();
            let (p, w) = (&seeds[0][..n], &seeds[1][..m]);

            let (mut y, mut dy, mut xbar) = (vec![7.0; m], vec![7.0; m], vec![7.0; n]);
            tape.eval_into(&mut ws, x, &mut y).unwrap();
            prop_assert!(all_same(&y, &tape.eval(x).unwrap()));
            y.fill(7.0);
            tape.jvp_into(&mut ws, x, p, &mut y, &mut dy).unwrap();
            let forward = tape.jvp(x, p).unwrap();
            prop_assert!(all_same(&y, &forward.0) && all_same(&dy, &forward.1));
            y.fill(7.0);
            tape.vjp_into(&mut ws, x, w, &mut y, &mut xbar).unwrap();
            let reverse = tape.vjp(x, w).unwrap();
            prop_assert!(all_same(&y, &reverse.0) && all_same(&xbar, &reverse.1));
            prop_assert!(all_same(&forward.0, &reverse.0));

            // Many directions: each column is a jvp.
            let columns = &seeds[1..];
            let rows: Vec<Vec<f64>> = (0..n).map(|i| columns.iter().map(|seed| seed[i]).collect()).collect();
            let matrix = Matrix::from_rows(&rows).unwrap();
            let (_, many) = tape.jvp_many(x, &matrix).unwrap();
            let mut into = Matrix::zeros(1, 5);
            tape.jvp_many_into(&mut ws, x, &matrix, &mut y, &mut into).unwrap();
            prop_assert!(all_same(many.as_slice(), into.as_slice()));
            prop_assert_eq!((many.rows(), many.cols(), into.rows(), into.cols()), (m, 8, m, 8));
            for (d, seed) in columns.iter().enumerate() {
                let (_, alone) = tape.jvp(x, &seed[..n]).unwrap();
                let column: Vec<f64> = (0..m).map(|j| many[(j, d)]).collect();
                prop_assert!(all_same(&column, &alone), "column {d}: {column:?} {alone:?}\n{tape}");
            }

            // The Jacobian, by rows and by columns.
            let jacobian = tape.jacobian(x).unwrap();
            tape.jacobian_into(&mut ws, x, &mut into).unwrap();
            prop_assert!(all_same(jacobian.as_slice(), into.as_slice()));
            prop_assert_eq!((jacobian.rows(), jacobian.cols()), (m, n));
            let rows: Vec<Vec<f64>> = (0..m).map(|j| tape.vjp(x, &unit(m, j)).unwrap().1).collect();
            let columns: Vec<Vec<f64>> = (0..n).map(|i| tape.jvp(x, &unit(n, i)).unwrap().1).collect();
            let by_rows = (0..m).all(|j| all_same(jacobian.row(j), &rows[j]));
            let by_columns = (0..n).all(|i| (0..m).all(|j| all_same(&[jacobian[(j, i)]], &[columns[i][j]])));
            prop_assert!(by_rows || by_columns, "{jacobian}{rows:?}\n{columns:?}");

            // The linearization, several times at one point.
            let there = tape.at(x).unwrap();
            for _ in 0..2 {
                prop_assert!(all_same(there.value(), &forward.0));
                prop_assert!(all_same(&there.jvp(p).unwrap(), &forward.1));
                prop_assert!(all_same(&there.vjp(w).unwrap(), &reverse.1));
            }

            // One output has a gradient.
            let single = Program { outputs: program.outputs[..1].to_vec(), ..program.clone() };
            let single = single.record(x0, k0).with_params(k).unwrap();
            let (value, gradient) = single.gradient(x).unwrap();
            let into = single.gradient_into(&mut ws, x, &mut xbar).unwrap();
            prop_assert!(all_same(&[value], &[into]) && all_same(&gradient, &xbar));
            let (y, one) = single.vjp(x, &[1.0]).unwrap();
            prop_assert!(all_same(&[value], &y) && all_same(&gradient, &one));
        }
    }

    /// with_params is recording with these parameters, and with these constants.
    #[test]
    fn parameters_are_constants_of_the_replay(program in unguarded(), at in any_points(), other in any_points(), p in moderate()) {
        let (x, k) = program.split(&at);
        let (x0, k0) = program.split(&other);
        let p = &p[..program.inputs];
        let with = program.record(x0, k0).with_params(k).unwrap();
        let recorded = program.record(x, k);
        let baked = Tape::record(x, |x| program.run(x, &k.iter().map(|&k| Var::from(k)).collect::<Vec<_>>())).unwrap();
        for other in [recorded, baked] {
            let ((y, dy), (z, dz)) = (with.jvp(x, p).unwrap(), other.jvp(x, p).unwrap());
            prop_assert!(all_same(&y, &z) && all_same(&dy, &dz));
            for j in 0..program.outputs.len() {
                let w = unit(program.outputs.len(), j);
                prop_assert!(all_same(&with.vjp(x, &w).unwrap().1, &other.vjp(x, &w).unwrap().1));
            }
        }
    }

    /// Scaling a seed by a power of two scales the result, and −p gives −J·p.
    #[test]
    fn derivatives_are_linear(program in programs(TAME), at in moderate(), p in moderate(), w in moderate()) {
        let (x, k) = program.split(&at);
        let tape = program.record(x, k);
        let scaled = |v: &[f64], c: f64| v.iter().map(|v| v * c).collect::<Vec<_>>();
        let (p, w) = (&p[..program.inputs], &w[..program.outputs.len()]);
        let (dy, xbar) = (tape.jvp(x, p).unwrap().1, tape.vjp(x, w).unwrap().1);
        for c in [4.0, -1.0, -0.125] {
            prop_assert!(all_equal(&tape.jvp(x, &scaled(p, c)).unwrap().1, &scaled(&dy, c)));
            prop_assert!(all_equal(&tape.vjp(x, &scaled(w, c)).unwrap().1, &scaled(&xbar, c)));
        }
    }

    /// Sums over samples by every route.
    #[test]
    fn sums_over_samples_have_one_set_of_bits(
        program in unguarded(), at in any_points(), rows in vec(-2.0..2.0, 40), idx in vec(0..20_usize, 1..200),
    ) {
        let program = Program { params: program.params.max(1), outputs: program.outputs[..1].to_vec(), ..program };
        let (x, k) = program.split(&at);
        let tape = program.record(x, k);
        let samples = Samples::from_rows(&tape, &rows[..20 * program.params]).unwrap();
        check_sums(&tape, x, &samples, &idx, &mut Workspace::new());
    }
}

/// The fold, written a second time: position mod 8 in leaves of 64, the eight
/// in halves, the leaves pairwise, an odd one carried.
fn fold(terms: &[Vec<f64>]) -> Vec<f64> {
    fn add(a: Option<Vec<f64>>, b: Option<Vec<f64>>) -> Option<Vec<f64>> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| a + b).collect()),
            (a, b) => a.or(b),
        }
    }
    let leaf = |terms: &[Vec<f64>]| {
        let mut streams: Vec<Option<Vec<f64>>> = vec![None; 8];
        for (position, term) in terms.iter().enumerate() {
            streams[position % 8] = add(streams[position % 8].take(), Some(term.clone()));
        }
        for half in [4, 2, 1] {
            for low in 0..half {
                streams[low] = add(streams[low].take(), streams[low + half].take());
            }
        }
        streams[0].clone()
    };
    let mut level: Vec<Option<Vec<f64>>> = terms.chunks(64).map(leaf).collect();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| add(pair[0].clone(), pair.get(1).cloned().flatten())).collect();
    }
    level[0].clone().unwrap()
}

/// Every route to the sum over `idx` gives the bits of the fold above.
fn check_sums(tape: &Tape, x: &[f64], samples: &Samples, idx: &[usize], ws: &mut Workspace) {
    let term = |&i: &usize| {
        let (value, gradient) = tape.with_params(samples.row(i)).unwrap().gradient(x).unwrap();
        [vec![value], gradient].concat()
    };
    let expected = fold(&idx.iter().map(term).collect::<Vec<_>>());
    let what = |route: &str| format!("{route} over {} samples of\n{tape}", idx.len());
    let (value, gradient) = tape.sum_gradient(x, samples, idx).unwrap();
    assert_same(&[&[value], &gradient[..]].concat(), &expected, what("sum_gradient"));
    let mut into = vec![7.0; x.len()];
    let value = tape.sum_gradient_into(ws, x, samples, idx, &mut into).unwrap();
    assert_same(&[&[value], &into[..]].concat(), &expected, what("sum_gradient_into"));
    assert_same(&[tape.sum_value(x, samples, idx).unwrap()], &expected[..1], what("sum_value"));
    assert_same(&[tape.sum_value_into(ws, x, samples, idx).unwrap()], &expected[..1], what("sum_value_into"));
    for threads in [1, 2, 3, 4, 8] {
        let (value, gradient) = tape.sum_gradient_threads(x, samples, idx, threads).unwrap();
        assert_same(&[&[value], &gradient[..]].concat(), &expected, what(&format!("{threads} threads")));
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
        check_sums(&tape, &x, &samples, &all[..length], &mut ws);
    }
    // The order shows in the bits: otherwise this test could not fail.
    let value = |i: &usize| tape.with_params(samples.row(*i)).unwrap().eval(&x).unwrap()[0];
    let differs = |&length: &usize| {
        let by_loop: f64 = all[..length].iter().map(value).sum();
        by_loop != tape.sum_value(&x, &samples, &all[..length]).unwrap()
    };
    assert!((100..300).step_by(10).filter(differs).count() >= 5);
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
        check_sums(&tape, &[1.0], &samples, &[0, 1, 2, 0], &mut ws);
    }
}

proptest! {
    #![proptest_config(config())]

    /// `diagnose` speaks exactly if a driver returns something that is not finite,
    /// and what it names is not finite while what it reads is no excuse.
    #[test]
    fn diagnoses_agree_with_the_drivers(program in programs(ALL), at in any_points(), seed in moderate()) {
        let (x, k) = program.split(&at);
        let (p, w) = (&seed[..program.inputs], &seed[..program.outputs.len()]);
        let tape = program.record(x, k);
        let finite = |a: &[f64], b: &[f64]| a.iter().chain(b).all(|number| number.is_finite());
        let (y, dy) = tape.jvp(x, p).unwrap();
        let found = tape.diagnose(x, p).unwrap();
        prop_assert_eq!(found.is_none(), finite(&y, &dy), "{:?}", found);
        if let Some(found) = found {
            let derivative = found.origin.derivative.unwrap_or(0.0);
            prop_assert!(!found.origin.value.is_finite() || !derivative.is_finite(), "{found}");
            prop_assert!(found.path.last().is_some_and(|last| last.name == found.origin.name), "{found}");
        }
        let (y, xbar) = tape.vjp(x, w).unwrap();
        let found = tape.diagnose_adjoint(x, w).unwrap();
        prop_assert_eq!(found.is_none(), finite(&y, &xbar), "{:?}", found);
    }

    /// The derivatives are right, so there is never an alarm. (The edges of each
    /// operation are in tests/check.rs.)
    #[test]
    fn self_checks_raise_no_alarm(program in programs(ALL), at in moderate()) {
        let (x, k) = program.split(&at);
        let tape = program.record(x, k);
        let check = tape.self_check(x).unwrap();
        prop_assert!(check.passed(), "{tape}at {x:?}, {k:?}:\n{check}");
    }

    /// Tapes differ exactly if their hashes do; a difference is one in both directions.
    #[test]
    fn differences_agree_with_hashes(
        program in programs(ALL), at in moderate(), other in programs(ALL), changed in any::<u16>(),
    ) {
        let mut next = program.clone();
        if let (false, Some(step)) = (next.steps.is_empty(), other.steps.first()) {
            let place = usize::from(changed) % next.steps.len();
            match changed % 3 {
                0 => next.steps[place] = step.clone(),
                1 => next.steps.insert(place, step.clone()),
                _ => { next.steps.remove(place); }
            }
        }
        let (x, k) = program.split(&at);
        let [old, same, new] = [&program, &program, &next].map(|program| program.record(x, k));
        prop_assert!(old.diff(&same).is_empty() && old.content_hash() == same.content_hash());
        for (a, b) in [(&old, &new), (&new, &old)] {
            let diff = a.diff(b);
            prop_assert_eq!(diff.is_empty(), a.content_hash() == b.content_hash(), "{}", diff);
        }
    }
}
