//! Functions that are recorded again where a comparison goes the other way,
//! and sums over samples that take several branches.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use ad_core::{Dual, Error, Matrix, Outputs, Real, Retape, Samples, Tape, Var, Workspace};
use common::{all_same, assert_same, same};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// Compares every driver at every point with a tape recorded there.
#[track_caller]
fn check<F, O>(points: &[&[f64]], f: F) -> Retape<impl Fn(&[Var], &[Var]) -> Vec<Var> + use<F, O>>
where
    F: Fn(&[Var]) -> O + Copy,
    O: Outputs,
{
    let retape = Retape::new(points[0], f).unwrap();
    let (n, m) = (retape.num_inputs(), retape.num_outputs());
    let mut ws = Workspace::new();
    for &x in points.iter().chain(points.iter().rev()) {
        let fresh = Tape::record(x, f).unwrap();
        let p: Vec<f64> = (0..n).map(|i| 1.0 + i as f64).collect();
        let w: Vec<f64> = (0..m).map(|i| 2.0 - i as f64).collect();
        let seeds = Matrix::from_vec(n, 2, (0..2 * n).map(|i| i as f64 - 0.5).collect()).unwrap();
        assert_same(&retape.eval(x).unwrap(), &fresh.eval(x).unwrap(), "eval");
        let (a, b) = (retape.jvp(x, &p).unwrap(), fresh.jvp(x, &p).unwrap());
        assert_same(&a.0, &b.0, "jvp");
        assert_same(&a.1, &b.1, "jvp");
        let (a, b) = (retape.jvp_many(x, &seeds).unwrap(), fresh.jvp_many(x, &seeds).unwrap());
        assert_same(&a.0, &b.0, "jvp_many");
        assert_same(a.1.as_slice(), b.1.as_slice(), "jvp_many");
        let (a, b) = (retape.vjp(x, &w).unwrap(), fresh.vjp(x, &w).unwrap());
        assert_same(&a.0, &b.0, "vjp");
        assert_same(&a.1, &b.1, "vjp");
        let (a, b) = (retape.jacobian(x).unwrap(), fresh.jacobian(x).unwrap());
        assert_same(a.as_slice(), b.as_slice(), "jacobian");
        let there = retape.at(x).unwrap();
        assert_same(there.value(), &fresh.eval(x).unwrap(), "at");
        assert_same(&there.vjp(&w).unwrap(), &fresh.vjp(x, &w).unwrap().1, "at, vjp");
        assert_eq!(retape.tape_at(x).unwrap().to_string(), fresh.to_string());
        if m == 1 {
            let (a, b) = (retape.gradient(x).unwrap(), fresh.gradient(x).unwrap());
            assert_same(&[a.0], &[b.0], "gradient");
            assert_same(&a.1, &b.1, "gradient");
        }
        // On one workspace, whatever ran on it before.
        let (mut y, mut dy, mut xbar) = (vec![0.0; m], vec![0.0; m], vec![0.0; n]);
        retape.eval_into(&mut ws, x, &mut y).unwrap();
        retape.jvp_into(&mut ws, x, &p, &mut y, &mut dy).unwrap();
        assert_same(&dy, &fresh.jvp(x, &p).unwrap().1, "jvp_into");
        retape.vjp_into(&mut ws, x, &w, &mut y, &mut xbar).unwrap();
        assert_same(&xbar, &fresh.vjp(x, &w).unwrap().1, "vjp_into");
        assert_same(&y, &fresh.eval(x).unwrap(), "vjp_into");
    }
    retape
}

// The pitfalls of tapes.

#[test]
fn a_condition() {
    let f = |x: &[Var]| if x[0] > 0.0 { x[0] * x[0] } else { -3.0 * x[0] };
    let retape = check(&[&[2.0], &[-1.0], &[0.0], &[-0.0], &[5.0], &[INF], &[-INF]], f);
    assert_eq!(retape.stats().tapes, 2);
}

#[test]
fn a_function_written_once_for_every_number_type() {
    fn f<T: Real>(x: &[T]) -> T {
        if x[0] * x[1] > 1.0 { x[0].ln() * x[1] } else { x[0] - x[1] }
    }
    let retape = Retape::new(&[2.0, 2.0], f).unwrap();
    for x in [[2.0, 3.0], [0.1, 3.0], [5.0, 0.3], [-1.0, 2.0]] {
        let (y, dy) = retape.jvp(&x, &[1.0, 0.0]).unwrap();
        let dual = f(&[Dual::new(x[0], 1.0), Dual::new(x[1], 0.0)]);
        assert_eq!((y[0], dy[0], y[0]), (dual.v, dual.dv, f(&x)));
    }
    assert_eq!(retape.stats().recordings, 2);
}

#[test]
fn a_nan_is_a_branch_like_any_other() {
    let f = |x: &[Var]| {
        if x[0] > 0.0 {
            x[0].sqrt()
        } else if x[0] <= 0.0 {
            x[0].exp()
        } else {
            Var::from(7.0) + 0.0 * x[1]
        }
    };
    let retape = check(&[&[2.0, 1.0], &[NAN, 1.0], &[-2.0, 1.0], &[NAN, 2.0], &[3.0, NAN]], f);
    assert_eq!(retape.stats().recordings, 3);
    assert_eq!(retape.eval(&[NAN, 5.0]).unwrap(), [7.0]);
    // Recorded at a NaN first.
    check(&[&[NAN, 1.0], &[1.0, 1.0]], f);
}

#[test]
fn absolute_value_by_condition_and_largest_by_comparison() {
    let abs = |x: &[Var]| if x[0] < 0.0 { -x[0] } else { x[0] };
    check(&[&[1.0], &[-1.0], &[0.0], &[-0.0]], abs);
    let largest = |x: &[Var]| x[1..].iter().fold(x[0], |m, &x| if x > m { x } else { m });
    let points: [&[f64]; 5] =
        [&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], &[2.0, 3.0, 1.0], &[1.0, 1.0, 1.0], &[9.0, 1.0, 10.0]];
    let retape = check(&points, largest);
    assert_eq!(retape.stats().tapes, 4, "(up, up), (no, no), (up, no), (no, up)");
}

#[test]
fn newtons_iteration_with_a_trip_count_of_its_own() {
    let root = |a: &[Var]| {
        let mut x = Var::from(1.0);
        while (x * x - a[0]).abs() > 1e-12 * a[0] {
            x = 0.5 * (x + a[0] / x);
        }
        x
    };
    let points: Vec<[f64; 1]> = (1..60).map(|i| [1.3_f64.powi(i)]).collect();
    let points: Vec<&[f64]> = points.iter().map(|x| &x[..]).collect();
    let retape = check(&points, root);
    let (tapes, recordings) = (retape.stats().tapes, retape.stats().recordings);
    assert!(tapes > 5 && tapes as u64 == recordings, "{}", retape.stats());
    let (y, g) = retape.gradient(&[49.0]).unwrap();
    assert!((y - 7.0).abs() < 1e-12 && (g[0] - 1.0 / 14.0).abs() < 1e-12);
    assert!(matches!(Tape::record(&[2.0], root).unwrap().eval(&[49.0]), Err(Error::BranchChanged { .. })));
}

#[test]
fn sorting() {
    let sorted = |x: &[Var]| {
        let mut x = x.to_vec();
        x.sort_by(|a, b| a.partial_cmp(b).unwrap());
        x.iter().enumerate().map(|(i, &x)| x * (i + 1) as f64).collect::<Vec<_>>()
    };
    let points: [&[f64]; 6] =
        [&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], &[2.0, 3.0, 1.0], &[2.0, 1.0, 3.0], &[1.0, 3.0, 2.0], &[3.0, 1.0, 2.0]];
    let retape = check(&points, sorted);
    assert_eq!(retape.eval(&[30.0, 10.0, 20.0]).unwrap(), [10.0, 40.0, 90.0]);
    assert_eq!(retape.stats().recordings, 6);
}

#[test]
fn early_return_and_whole_numbers() {
    let f = |x: &[Var]| {
        let mut sum = Var::from(0.0);
        for (i, &x) in x.iter().enumerate() {
            if x.is_nan() {
                return sum;
            }
            sum += x * i as f64;
            if sum > 10.0 {
                return sum * sum;
            }
        }
        sum.exp()
    };
    check(&[&[1.0, 2.0, 3.0], &[1.0, 11.0, 3.0], &[1.0, 2.0, 7.0], &[NAN, 1.0, 1.0], &[1.0, 2.0, NAN]], f);
    let table = [1.0, 10.0, 100.0];
    let lookup = |x: &[Var]| match x[0].to_i64() {
        Some(i @ 0..3) => x[0] * table[i as usize],
        _ => x[0],
    };
    let retape = check(&[&[0.5], &[1.5], &[2.5], &[3.5], &[-7.0], &[NAN], &[1e300], &[1.75]], lookup);
    assert_eq!(retape.stats().recordings, 6, "0, 1, 2, 3, −7 and none");
    let signed = |x: &[Var]| if x[0].is_sign_negative() { x[0] * 2.0 } else { x[0] * 3.0 };
    check(&[&[0.0], &[-0.0], &[-1.0], &[1.0]], signed);
}

#[test]
fn recordings_inside() {
    let f = |x: &[Var]| {
        let inner = Tape::record(&[1.0], |z| if z[0] > 0.0 { z[0] * z[0] } else { -z[0] }).unwrap();
        match inner.eval_with(&[x[0]]) {
            Ok(y) => y[0],
            Err(_) => {
                let inner = Tape::record(&[-1.0], |z| if z[0] > 0.0 { z[0] * z[0] } else { -z[0] }).unwrap();
                inner.eval_with(&[x[0]]).unwrap()[0]
            }
        }
    };
    let retape = check(&[&[3.0], &[-3.0], &[0.5]], f);
    assert_eq!((retape.eval(&[-4.0]).unwrap(), retape.eval(&[4.0]).unwrap()), (vec![4.0], vec![16.0]));
    // One Retape inside another, and inside itself: no lock is held meanwhile.
    let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] }).unwrap();
    check(&[&[3.0], &[-3.0]], |x| {
        let tape = abs.tape_at(&[x[0].value()]).unwrap();
        let y = tape.eval_with(&[x[0]]).unwrap();
        y[0] * x[0]
    });
}

// Random functions.

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    fn number(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 30) as f64 - 1.0
    }
}

/// A function of pieces, the same for the same seed.
fn pieces(seed: u64, x: &[Var], k: &[Var]) -> Var {
    let mut random = Random(seed);
    let mut values: Vec<Var> = x.iter().chain(k).copied().collect();
    for _ in 0..12 {
        let a = values[random.next() as usize % values.len()];
        let b = values[random.next() as usize % values.len()];
        let c = random.number();
        let v = match random.next() % 6 {
            0 => {
                if a > b + c {
                    a * c
                } else {
                    b - a
                }
            }
            1 => {
                if a * a <= c * c {
                    a + b
                } else {
                    a.sin()
                }
            }
            2 => {
                let (mut v, mut n) = (a, 0);
                while v.abs() > 0.5 && n < 4 {
                    v = v * 0.6 + b * 0.01;
                    n += 1;
                }
                v
            }
            3 => a * b + c,
            4 => (a - b).tanh(),
            _ => {
                if (a + b).to_i64().unwrap_or(0) % 2 == 0 {
                    a - c
                } else {
                    b * c
                }
            }
        };
        values.push(v);
    }
    values[values.len() - 3..].iter().copied().sum()
}

#[test]
fn random_pieces_have_the_bits_of_fresh_recordings() {
    for seed in 0..40 {
        let mut random = Random(seed + 1000);
        let points: Vec<Vec<f64>> = (0..25).map(|_| (0..3).map(|_| 2.0 * random.number()).collect()).collect();
        let points: Vec<&[f64]> = points.iter().map(|x| &x[..]).collect();
        check(&points, |x| pieces(seed, x, &[]));
    }
}

// The cache.

/// One branch for each whole number.
fn steps(x: &[Var]) -> Var {
    x[0] * x[0].to_i64().unwrap_or(-1) as f64
}

#[test]
fn statistics_count_recordings_hits_and_evictions() {
    let retape = Retape::new(&[0.5], steps).unwrap();
    fn of<F: ?Sized>(retape: &Retape<F>) -> (u64, u64, u64, usize, u64) {
        let s = retape.stats();
        (s.recordings, s.rerecordings, s.hits, s.tapes, s.evictions)
    }
    assert_eq!(of(&retape), (1, 0, 0, 1, 0));
    retape.eval(&[0.25]).unwrap();
    retape.gradient(&[1.5]).unwrap();
    retape.jacobian(&[0.75]).unwrap();
    assert_eq!(of(&retape), (2, 1, 2, 2, 0));
    retape.set_max_tapes(2).unwrap();
    retape.eval(&[2.5]).unwrap();
    // 2 was recorded, and 1 had not been used for the longest time.
    assert_eq!(of(&retape), (3, 2, 2, 2, 1));
    retape.eval(&[0.5]).unwrap();
    assert_eq!(of(&retape), (3, 2, 3, 2, 1));
    retape.eval(&[1.5]).unwrap();
    assert_eq!(of(&retape), (4, 3, 3, 2, 2));
    assert_eq!(retape.stats().to_string(), "recordings: 4 (3 after the first), hits: 3, tapes: 2, evictions: 2");
    retape.set_max_tapes(1).unwrap();
    assert_eq!(of(&retape), (4, 3, 3, 1, 3));
    retape.eval(&[1.25]).unwrap();
    assert_eq!(of(&retape), (4, 3, 4, 1, 3), "the one used last stays");
    // What fails counts nothing.
    assert!(retape.eval(&[]).is_err() && retape.jvp(&[9.5], &[NAN]).is_err());
    assert_eq!(of(&retape), (4, 3, 4, 1, 3));
    assert!(matches!(retape.set_max_tapes(0), Err(Error::NoTapes)));
}

#[test]
fn the_cache_has_a_limit_from_the_start() {
    let retape = Retape::new(&[0.5], steps).unwrap();
    for i in 0..3 * Retape::DEFAULT_MAX_TAPES {
        assert_eq!(retape.eval(&[i as f64 + 0.5]).unwrap(), [(i as f64 + 0.5) * i as f64]);
    }
    let stats = retape.stats();
    assert_eq!(stats.tapes, Retape::DEFAULT_MAX_TAPES);
    assert_eq!(stats.evictions as usize, 2 * Retape::DEFAULT_MAX_TAPES);
    assert_eq!(retape.tapes().len(), stats.tapes);
}

#[test]
fn the_last_used_tape_stands_first() {
    let retape = Retape::new(&[0.5], steps).unwrap();
    for x in [1.5, 2.5, 3.5, 1.5, 0.5, 2.5] {
        retape.eval(&[x]).unwrap();
    }
    let answers: Vec<String> = retape.tapes().iter().map(|tape| tape.guards()[0].answer().to_string()).collect();
    assert_eq!(answers, ["2", "0", "1", "3"]);
    assert_eq!(retape.stats().recordings, 4);
}

// Errors.

#[test]
fn another_number_of_outputs_is_an_error() {
    let retape = Retape::new(&[1.0], |x| if x[0] > 0.0 { vec![x[0]] } else { vec![x[0], x[0], x[0]] }).unwrap();
    let line = line!() - 1;
    for _ in 0..2 {
        let error = retape.eval(&[-1.0]).unwrap_err();
        match &error {
            Error::OutputCount { location, expected: 1, got: 3 } => assert_eq!(location.line(), line),
            other => panic!("{other}"),
        }
        assert!(error.to_string().contains("returned 1 outputs when first recorded and 3 on the branch taken now"));
    }
    assert_eq!(retape.eval(&[4.0]).unwrap(), [4.0], "the cache is as it was");
    let none = Retape::new(&[1.0], |x| if x[0] > 0.0 { vec![x[0]] } else { Vec::new() }).unwrap();
    assert!(matches!(none.gradient(&[-1.0]), Err(Error::NoOutputs { .. })));
}

#[test]
fn a_function_that_is_not_deterministic_is_an_error() {
    // Another question the second time.
    let runs = AtomicUsize::new(0);
    let retape = Retape::new(&[1.0], |x| match runs.fetch_add(1, Ordering::Relaxed) % 2 {
        0 if x[0] > 0.0 => x[0],
        1 if x[0] < 2.0 => x[0] * 2.0,
        _ => -x[0],
    })
    .unwrap();
    let error = retape.eval(&[-1.0]).unwrap_err();
    assert!(matches!(error, Error::NotDeterministic { .. }), "{error}");
    assert!(error.to_string().contains("v₀ > 0 was true"), "{error}");
    assert!(error.to_string().contains("retape.rs:"), "{error}");
    assert_eq!(retape.eval(&[3.0]).unwrap(), [3.0]);
    // Another answer.
    let runs = AtomicUsize::new(0);
    let retape = Retape::new(&[1.0], |x| {
        let sign = if runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { 1.0 } else { -1.0 };
        if x[0] * sign > 0.0 { x[0] } else { -x[0] }
    })
    .unwrap();
    assert!(matches!(retape.gradient(&[-1.0]), Err(Error::NotDeterministic { .. })));
    // No question at all.
    let runs = AtomicUsize::new(0);
    let retape =
        Retape::new(&[1.0], |x| if runs.fetch_add(1, Ordering::Relaxed) == 0 && x[0] > 0.0 { x[0] } else { -x[0] })
            .unwrap();
    assert!(matches!(retape.gradient(&[-1.0]), Err(Error::NotDeterministic { .. })));
}

#[test]
fn bad_arguments_are_errors_and_panics_leave_it_whole() {
    let retape = Retape::new(&[1.0, 2.0], |x| {
        assert!(x[1].value() < 100.0, "too large");
        if x[0] > 0.0 { [x[0], x[1]] } else { [x[1], x[0]] }
    })
    .unwrap();
    assert!(matches!(retape.eval(&[1.0]), Err(Error::Length { expected: 2, got: 1, .. })));
    assert!(matches!(retape.tape_at(&[1.0]), Err(Error::Length { .. })));
    assert!(matches!(retape.gradient(&[1.0, 1.0]), Err(Error::NotScalar { outputs: 2, .. })));
    assert!(matches!(retape.vjp(&[1.0, 1.0], &[INF, 1.0]), Err(Error::NonFiniteSeed { .. })));
    assert!(matches!(retape.samples(&[1.0]), Err(Error::Empty { .. })));
    assert!(matches!(Retape::new(&[], |x| x[0]).map(|_| ()), Err(Error::Empty { .. })));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| retape.eval(&[-1.0, 1000.0])));
    assert!(panicked.is_err());
    assert_eq!(retape.eval(&[-1.0, 2.0]).unwrap(), [2.0, -1.0]);
    let outer = Tape::record(&[1.0], |outer| {
        let outer = outer[0];
        let inner = Retape::new(&[1.0], move |x| if x[0] > 0.0 { x[0] } else { x[0] * outer }).unwrap();
        assert!(matches!(inner.eval(&[-1.0]), Err(Error::ForeignVar { .. })));
        assert_eq!(inner.eval(&[2.0]).unwrap(), [2.0]);
        Var::from(1.0)
    });
    assert!(outer.is_ok());
}

// Names, parameters, types, threads.

#[test]
fn names_and_parameters() {
    let f = Tape::builder()
        .inputs(&["x", "y"], &[1.0, 2.0])
        .params(&["k"], &[1.0])
        .retape(|x, k| if k[0] > x[0] { x[0] * x[1] } else { x[1] * k[0] })
        .unwrap();
    assert_eq!((f.num_inputs(), f.num_outputs(), f.num_params(), f.params()), (2, 1, 1, &[1.0][..]));
    assert_eq!(f.gradient(&[1.0, 5.0]).unwrap(), (5.0, vec![0.0, 1.0]));
    assert_eq!(f.gradient(&[0.5, 5.0]).unwrap(), (2.5, vec![5.0, 0.5]));
    assert!(f.tape_at(&[0.5, 1.0]).unwrap().primal_trace(&[0.5, 1.0]).unwrap().to_string().contains("x"));
    let other = f.with_params(&[10.0]).unwrap();
    assert_eq!(other.stats().tapes, 2, "both branches came along");
    assert_eq!(other.gradient(&[1.0, 5.0]).unwrap(), (5.0, vec![5.0, 1.0]));
    assert_eq!(other.gradient(&[11.0, 5.0]).unwrap(), (50.0, vec![0.0, 10.0]));
    assert_eq!((other.stats().recordings, other.stats().hits), (0, 2));
    assert_eq!(f.params(), [1.0]);
    assert_eq!(f.tape_at(&[0.5, 1.0]).unwrap().params(), [1.0]);
    assert!(matches!(f.with_params(&[]), Err(Error::Length { .. })));
}

#[test]
fn it_can_be_stored_borrowed_and_shared() {
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    struct Model {
        loss: Retape,
    }
    let model = Model { loss: Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] }).unwrap().erased() };
    is_send_and_sync(&model.loss);
    assert_eq!(model.loss.gradient(&[-3.0]).unwrap(), (3.0, vec![-1.0]));
    assert!(format!("{:?}", model.loss).contains("recordings: 2"));
    // A closure that borrows, and one that is not Sync.
    let data = [1.0, 2.0];
    let borrowing = Retape::new(&[1.0, 1.0], |x| x[0] * data[0] + x[1] * data[1]).unwrap();
    is_send_and_sync(&borrowing);
    let calls = std::cell::Cell::new(0);
    let counting = Retape::new(&[1.0], |x| {
        calls.set(calls.get() + 1);
        if x[0] > 0.0 { x[0] } else { -x[0] }
    })
    .unwrap();
    for x in [1.0, -1.0, 2.0, -2.0] {
        counting.eval(&[x]).unwrap();
    }
    assert_eq!(calls.get(), 2);
    // Threads share what they record.
    let shared = Retape::new(&[0.5], steps).unwrap();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let shared = &shared;
            scope.spawn(move || {
                for i in 0..200 {
                    let x = ((i * 7 + t) % 20) as f64 + 0.5;
                    assert_eq!(shared.gradient(&[x]).unwrap(), (x * (x - 0.5), vec![x - 0.5]));
                }
            });
        }
    });
    let stats = shared.stats();
    assert_eq!(stats.tapes, 20, "a branch recorded by two threads at once is kept once");
    assert_eq!(stats.hits + stats.rerecordings, 800);
}

// Guards on parameters, of tapes.

#[test]
fn guards_on_parameters_are_asked_by_every_driver() {
    fn off<T>(result: Result<T, Error>) -> Option<Option<usize>> {
        match result {
            Err(Error::BranchChanged { sample, .. }) => Some(sample),
            _ => None,
        }
    }
    // The guard reads a parameter alone, or what was computed from parameters
    // alone and that no output needs.
    type Function = fn(&[Var], &[Var]) -> Var;
    let functions: [Function; 3] = [
        |x, k| if k[0] > 0.0 { x[0] * k[1] } else { -x[0] },
        |x, k| if (k[0] * 2.0).exp() > 1.0 { x[0] + x[0] * x[0] } else { -x[0] },
        |x, k| if k[0] * k[0] * k[0] + x[0] > 0.0 { x[0] * k[0] * k[0] } else { -x[0] },
    ];
    for f in functions {
        let tape = Tape::builder().inputs(&[], &[0.0]).params(&[], &[1.0, 2.0]).record(f).unwrap();
        let (x, good, bad) = ([0.0], [3.0, 1.0], [-3.0, 1.0]);
        assert!(tape.with_params(&good).unwrap().eval(&x).is_ok());
        let tape_off = tape.with_params(&bad).unwrap();
        assert_eq!(off(tape_off.eval(&x)), Some(None));
        assert_eq!(off(tape_off.jvp(&x, &[1.0])), Some(None));
        assert_eq!(off(tape_off.jvp_many(&x, &Matrix::identity(1))), Some(None));
        assert_eq!(off(tape_off.vjp(&x, &[1.0])), Some(None));
        assert_eq!(off(tape_off.gradient(&x)), Some(None));
        assert_eq!(off(tape_off.jacobian(&x)), Some(None));
        assert_eq!(off(tape_off.at(&x)), Some(None));
        assert_eq!(off(tape_off.eval_with(&[Dual::new(0.0, 1.0)])), Some(None));
        assert_eq!(off(tape_off.primal_trace(&x)), Some(None));
        assert_eq!(off(tape_off.tangent_trace(&x, &[1.0])), Some(None));
        assert_eq!(off(tape_off.adjoint_trace(&x, &[1.0])), Some(None));
        for count in [1, 3, 20, 100] {
            // The points of a tape that is off, and points that are.
            let points = Matrix::from_vec(count, 1, vec![0.0; count]).unwrap();
            assert_eq!(off(tape_off.eval_many(&points)), Some(Some(0)));
            assert_eq!(off(tape_off.jacobian_many(&points)), Some(Some(0)));
            let last = count - 1;
            let rows: Vec<f64> = (0..count).flat_map(|i| if i == last { bad } else { good }).collect();
            let points: Vec<f64> = rows.chunks(2).flat_map(|k| [0.0, k[0], k[1]]).collect();
            let points = Matrix::from_vec(count, 3, points).unwrap();
            assert_eq!(off(tape.eval_many(&points)), Some(Some(last)));
            assert_eq!(off(tape.jacobian_many(&points)), Some(Some(last)));
            let samples = Samples::from_rows(&tape, &rows).unwrap();
            let idx: Vec<usize> = (0..count).collect();
            assert_eq!(off(tape.sum_value(&x, &samples, &idx)), Some(Some(last)));
            assert_eq!(off(tape.sum_gradient(&x, &samples, &idx)), Some(Some(last)));
            assert_eq!(off(tape.sum_gradient_threads(&x, &samples, &idx, 4)), Some(Some(last)));
            if last > 0 {
                assert!(tape_off.sum_gradient(&x, &samples, &idx[..last]).is_ok(), "a sample's own parameters count");
            }
        }
    }
}

// Sums over samples on several branches.

/// The fold as the documentation states it: leaves of 64 positions, partial
/// sums at position mod 8, halves, and leaves pairwise in a tree.
fn fold(rows: &[Vec<f64>]) -> Vec<f64> {
    let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
    let leaves = rows.len().div_ceil(64);
    if leaves > 1 {
        // The largest complete tree stands on the left.
        let left = if leaves.is_power_of_two() { leaves / 2 } else { 1 << leaves.ilog2() };
        return add(&fold(&rows[..left * 64]), &fold(&rows[left * 64..]));
    }
    let mut sums = vec![vec![-0.0; rows[0].len()]; 8];
    for (position, row) in rows.iter().enumerate() {
        sums[position % 8] = add(&sums[position % 8], row);
    }
    while sums.len() > 1 {
        let half = sums.len() / 2;
        sums = (0..half).map(|i| add(&sums[i], &sums[i + half])).collect();
    }
    sums.remove(0)
}

/// The value and gradient of each sample, each from a recording of its own.
fn rows_alone(f: &impl Fn(&[Var], &[Var]) -> Var, x: &[f64], samples: &Samples, idx: &[usize]) -> Vec<Vec<f64>> {
    let row = |&i: &usize| {
        let tape = Tape::builder().inputs(&[], x).params(&[], samples.row(i)).record(f).unwrap();
        let (value, gradient) = tape.gradient(x).unwrap();
        [vec![value], gradient].concat()
    };
    idx.iter().map(row).collect()
}

#[track_caller]
fn check_sums(
    f: impl Fn(&[Var], &[Var]) -> Var + Send + Sync,
    x: &[f64],
    rows: &[f64],
    width: usize,
    threads: &[usize],
) {
    let k0 = &rows[..width];
    let retape = Tape::builder().inputs(&[], x).params(&[], k0).retape(&f).unwrap();
    let samples = retape.samples(rows).unwrap();
    let n = samples.len();
    let in_order: Vec<usize> = (0..n).collect();
    let scattered: Vec<usize> = (0..n + 5).map(|i| (i * 7 + 3) % n).collect();
    let mut ws = Workspace::new();
    for idx in [&in_order[..], &scattered, &scattered[..n.min(3)], &scattered[..n.min(70)], &in_order[n - 1..]] {
        let expected = fold(&rows_alone(&f, x, &samples, idx));
        let what = format!("{} samples", idx.len());
        let (value, gradient) = retape.sum_gradient(x, &samples, idx).unwrap();
        assert_same(&[&[value], &gradient[..]].concat(), &expected, &what);
        assert_same(&[retape.sum_value(x, &samples, idx).unwrap()], &expected[..1], format!("value of {what}"));
        for lanes in [16, 32, 64] {
            ws.set_lanes(lanes).unwrap();
            let mut gradient = vec![0.0; x.len()];
            let value = retape.sum_gradient_into(&mut ws, x, &samples, idx, &mut gradient).unwrap();
            assert_same(&[&[value], &gradient[..]].concat(), &expected, format!("{what} in {lanes} lanes"));
            let value = retape.sum_value_into(&mut ws, x, &samples, idx).unwrap();
            assert_same(&[value], &expected[..1], format!("value of {what} in {lanes} lanes"));
        }
        for &threads in threads {
            let (value, gradient) = retape.sum_gradient_threads(x, &samples, idx, threads).unwrap();
            assert_same(&[&[value], &gradient[..]].concat(), &expected, format!("{what}, {threads} threads"));
        }
    }
}

/// Three branches, weights in a chain, values of every size.
fn loss(x: &[Var], k: &[Var]) -> Var {
    let z = x[0] * k[0] + x[1] * k[1] + x[2];
    let r = z - k[2];
    if r > 1.0 {
        r.exp().ln_1p() * x[0]
    } else if r < -1.0 {
        -(r * 1e3) + (x[1] * k[0]).sin()
    } else {
        0.5 * r * r
    }
}

fn data(count: usize) -> Vec<f64> {
    let mut random = Random(count as u64);
    (0..3 * count).map(|_| 3.0 * random.number()).collect()
}

#[test]
fn samples_on_several_branches_are_added_by_the_one_fold() {
    for count in [1, 2, 3, 4, 9, 63, 64, 65, 200] {
        check_sums(loss, &[0.7, -0.4, 0.2], &data(count), 3, &[1, 2, 3]);
    }
    check_sums(loss, &[0.7, -0.4, 0.2], &data(3000), 3, &[1, 2, 3, 4, 8]);
}

#[test]
fn a_nan_and_an_infinity_among_the_samples() {
    let mut rows = data(200);
    (rows[30], rows[100], rows[101], rows[400]) = (NAN, INF, -INF, NAN);
    check_sums(loss, &[0.7, -0.4, 0.2], &rows, 3, &[1, 3]);
    check_sums(loss, &[0.7, NAN, 0.2], &data(100), 3, &[2]);
    // A partial that is infinite where the adjoint is 0.
    let roots = |x: &[Var], k: &[Var]| if k[0] > 0.0 { (x[0] * k[0]).sqrt() * k[1] } else { x[0] + k[0] };
    let rows: Vec<f64> = (0..150).flat_map(|i| [(i % 5) as f64 - 2.0, (i % 3) as f64]).collect();
    check_sums(roots, &[0.0], &rows, 2, &[2]);
}

#[test]
fn a_branch_that_is_an_input_or_a_number() {
    let rows: Vec<f64> = (0..90).map(|i| f64::from(i % 7) - 3.0).collect();
    for x in [0.5, -0.0] {
        check_sums(|x, k| if k[0] > 0.0 { x[0] } else { x[0] * k[0] }, &[x], &rows, 1, &[2]);
        check_sums(|x, k| if k[0] > 0.0 { Var::from(2.5) } else { x[0] * k[0] }, &[x], &rows, 1, &[2]);
        // Nothing but the input has an adjoint.
        check_sums(|x, k| if k[0] > 0.0 { Var::from(2.5) } else { x[0] }, &[x], &rows, 1, &[2]);
    }
}

#[test]
fn random_pieces_over_samples() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let rows: Vec<f64> = (0..2 * 150).map(|_| 2.0 * random.number()).collect();
        check_sums(|x, k| pieces(seed, x, k), &[0.3, -0.9], &rows, 2, &[2]);
    }
}

#[test]
fn samples_on_one_branch_have_the_bits_of_the_tape() {
    let f = |x: &[Var], k: &[Var]| if x[0] > k[0] { (x[0] * k[1]).sin() } else { x[0] };
    let retape = Tape::builder().inputs(&[], &[9.0]).params(&[], &[0.0, 1.0]).retape(f).unwrap();
    let tape = Tape::builder().inputs(&[], &[9.0]).params(&[], &[0.0, 1.0]).record(f).unwrap();
    let rows: Vec<f64> = (0..700).flat_map(|i| [f64::from(i % 9), f64::from(i)]).collect();
    let samples = retape.samples(&rows).unwrap();
    assert_eq!(samples, Samples::from_rows(&tape, &rows).unwrap());
    let idx: Vec<usize> = (0..700).rev().collect();
    let expected = tape.sum_gradient(&[9.5], &samples, &idx).unwrap();
    for threads in [1, 2, 3, 4, 8] {
        assert_eq!(retape.sum_gradient_threads(&[9.5], &samples, &idx, threads).unwrap(), expected);
    }
    assert_eq!((retape.stats().recordings, retape.stats().hits), (1, 5 * 700));
    // All of them on a branch that is new: one recording, and one more branch.
    let sum = retape.sum_gradient(&[-1.0], &samples, &idx).unwrap();
    assert_eq!((sum.0, sum.1, retape.stats().recordings), (-700.0, vec![700.0], 2));
    assert_eq!(retape.stats().hits, 5 * 700 + 699);
}

/// The samples of a branch are found and done together, so that a cache with room for one
/// tape records each branch once.
#[test]
fn two_branches_in_turns_are_recorded_once_each() {
    let f = |x: &[Var], k: &[Var]| if k[0] > 0.0 { x[0] * k[0] } else { -x[0] };
    let retape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).retape(f).unwrap();
    retape.set_max_tapes(1).unwrap();
    let samples = retape.samples(&(0..90).map(|i| if i % 2 == 0 { 2.0 } else { -1.0 }).collect::<Vec<_>>()).unwrap();
    let idx: Vec<usize> = (0..90).collect();
    assert_eq!(retape.sum_gradient(&[1.0], &samples, &idx).unwrap(), (45.0, vec![45.0]));
    let stats = retape.stats();
    assert_eq!((stats.recordings, stats.rerecordings, stats.evictions, stats.hits), (2, 1, 1, 89));
}

#[test]
fn more_branches_than_the_cache_holds() {
    let f = |x: &[Var], k: &[Var]| x[0] * k[0].to_i64().unwrap() as f64;
    let retape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[0.0]).retape(f).unwrap();
    retape.set_max_tapes(3).unwrap();
    let samples = retape.samples(&(0..150).map(|i| f64::from(i % 30) + 0.5).collect::<Vec<_>>()).unwrap();
    let idx: Vec<usize> = (0..150).collect();
    for threads in [1, 3] {
        let (value, gradient) = retape.sum_gradient_threads(&[2.0], &samples, &idx, threads).unwrap();
        assert_eq!((value, gradient), (2.0 * 2175.0, vec![2175.0]));
    }
    assert_eq!(retape.stats().tapes, 3);
    assert_eq!(retape.params(), [0.0], "a sample's parameters stay with it");
    assert!(retape.tapes().iter().all(|tape| tape.params() == [0.0]));
}

#[test]
fn bad_sums_are_errors() {
    let retape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[0.0]).retape(|x, k| x[0] * k[0]).unwrap();
    let samples = retape.samples(&[1.0, 2.0]).unwrap();
    assert!(matches!(retape.sum_value(&[1.0], &samples, &[]), Err(Error::Empty { .. })));
    assert!(matches!(retape.sum_value(&[1.0], &samples, &[2]), Err(Error::SampleIndex { index: 2, .. })));
    assert!(matches!(retape.sum_value(&[1.0, 2.0], &samples, &[0]), Err(Error::Length { .. })));
    assert!(matches!(retape.sum_gradient_threads(&[1.0], &samples, &[0], 0), Err(Error::NoThreads)));
    let mut wrong = [0.0; 2];
    let ws = &mut Workspace::new();
    assert!(matches!(retape.sum_gradient_into(ws, &[1.0], &samples, &[0], &mut wrong), Err(Error::Length { .. })));
    let two = Retape::new(&[1.0], |x| [x[0], x[0]]).unwrap();
    assert!(matches!(two.sum_value(&[1.0], &samples, &[0]), Err(Error::NotScalar { .. })));
    // One sample's branch has no output.
    let f = |x: &[Var], k: &[Var]| if k[0] > 0.0 { vec![x[0]] } else { vec![x[0]; 2] };
    let retape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).retape(f).unwrap();
    let samples = retape.samples(&[1.0, 2.0, -1.0, 3.0, 5.0]).unwrap();
    let error = retape.sum_gradient(&[1.0], &samples, &[0, 1, 2, 3, 4]).unwrap_err();
    assert!(matches!(error, Error::OutputCount { expected: 1, got: 2, .. }), "{error}");
    // The branch of a sample changes from one run to the next.
    let runs = AtomicUsize::new(0);
    let f = |x: &[Var], k: &[Var]| {
        let sign = if runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { 1.0 } else { -1.0 };
        if k[0] * sign > 0.0 { x[0] } else { -x[0] }
    };
    let retape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).retape(f).unwrap();
    let error = retape.sum_gradient(&[1.0], &samples, &[0, 1, 2, 3, 4]).unwrap_err();
    assert!(matches!(error, Error::NotDeterministic { .. }), "{error}");
}

// Escapes.

#[test]
fn escapes_are_listed_in_every_number_type_and_of_every_branch() {
    fn half<T: Real>(x: T) -> f64 {
        x.value() / 2.0
    }
    let f = |x: &[Var]| {
        let nested = Dual::new(Dual::new(x[0] * 3.0, Var::from(1.0)), Dual::new(Var::from(0.0), Var::from(0.0)));
        let inherent = nested.value();
        if x[0] > 0.0 { x[0] * inherent } else { x[0] * half(nested) + half(x[0]) }
    };
    let retape = Retape::new(&[2.0], f).unwrap();
    assert_eq!(retape.escapes().len(), 1);
    retape.eval(&[-4.0]).unwrap();
    let escapes = retape.escapes();
    let values: Vec<f64> = escapes.iter().map(|escape| escape.value()).collect();
    assert_eq!(values, [-12.0, -12.0, -4.0, 6.0], "the branch used last first");
    assert!(escapes.iter().all(|escape| escape.location().file().ends_with("retape.rs")), "{escapes:?}");
    assert!(escapes.iter().all(|escape| !escape.location().is_nearest()), "{escapes:?}");
    assert!(escapes[0].to_string().starts_with("v₁ = -12 was read at "), "{}", escapes[0]);
    // A constant of its tape.
    assert_eq!(retape.eval(&[10.0]).unwrap(), [60.0]);
    // In the sample drivers, escapes of a new branch are those of the sample that was recorded.
    assert!(same(retape.eval(&[-4.0]).unwrap()[0], 22.0));
    assert!(all_same(&retape.eval(&[2.0]).unwrap(), &[12.0]));
}

/// A number that leaves the recording by `to_f64` is guarded by its value, so every
/// point has a tape of its own; that is no fault of the function.
#[test]
fn values_that_leave_as_numbers() {
    let f = |x: &[Var]| {
        let whole = num_traits::ToPrimitive::to_f64(&x[0]).unwrap().floor();
        if x[0] > whole + 0.5 { (x[0] - whole) * 2.0 } else { x[0] * whole }
    };
    let retape = Retape::new(&[1.25], f).unwrap();
    for x in [1.25, 1.75, 2.25, 2.75, 1.25, 1.75, 2.25] {
        let recorded = Tape::record(&[x], f).unwrap();
        assert_eq!(retape.gradient(&[x]).unwrap(), recorded.gradient(&[x]).unwrap(), "at {x}");
    }
    assert_eq!(retape.stats().recordings, 4);
}
