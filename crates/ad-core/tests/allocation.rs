//! A sweep on a warm workspace allocates nothing, whatever is on the tape.

#![allow(clippy::unwrap_used, missing_docs)]

use ad_core::{Matrix, Samples, SparseHessian, SparseJacobian, SparseMatrix, Tape, Var, Workspace};
use allocation_counter::measure;

/// Calls every driver twice with the same memory and counts what the second
/// round allocates.
fn check(what: &str, tape: &Tape, x: &[f64]) {
    let (n, m) = (tape.num_inputs(), tape.num_outputs());
    let ws = &mut Workspace::new();
    let seeds = Matrix::from_vec(n, 3, (0..3 * n).map(|i| i as f64 - 1.0).collect()).unwrap();
    let (p, w) = (vec![1.0; n], vec![1.0; m]);
    let (mut y, mut dy, mut xbar) = (vec![0.0; m], vec![0.0; m], vec![0.0; n]);
    let (mut jp, mut jac, mut series) = (Matrix::default(), Matrix::default(), Matrix::default());
    let mut drivers = |round: &str| {
        let counted = [
            ("eval_into", measure(|| tape.eval_into(ws, x, &mut y).unwrap())),
            ("jvp_into", measure(|| tape.jvp_into(ws, x, &p, &mut y, &mut dy).unwrap())),
            ("jvp_many_into", measure(|| tape.jvp_many_into(ws, x, &seeds, &mut y, &mut jp).unwrap())),
            ("vjp_into", measure(|| tape.vjp_into(ws, x, &w, &mut y, &mut xbar).unwrap())),
            ("jacobian_into", measure(|| tape.jacobian_into(ws, x, &mut jac).unwrap())),
            ("taylor_into", measure(|| tape.taylor_into(ws, x, &p, 5, &mut series).unwrap())),
        ];
        counted.map(|(driver, counted)| (format!("{round} {driver} of {what}"), counted.count_total))
    };
    assert!(drivers("first").iter().any(|(_, count)| *count > 0), "nothing is counted");
    for (call, count) in drivers("second") {
        assert_eq!(count, 0, "{call}");
    }
    for columns in 1..=17 {
        let seeds = Matrix::from_vec(n, columns, (0..columns * n).map(|i| i as f64 - 1.0).collect()).unwrap();
        let mut sweep = || measure(|| tape.jvp_many_into(ws, x, &seeds, &mut y, &mut jp).unwrap()).count_total;
        sweep();
        assert_eq!(sweep(), 0, "jvp_many_into of {columns} columns of {what}");
    }
    check_many_points(what, tape, x);
    let (jacobian, mut sparse) = (SparseJacobian::new(tape).unwrap(), SparseMatrix::default());
    let mut evaluate = || measure(|| jacobian.values_into(ws, x, &mut sparse).unwrap()).count_total;
    evaluate();
    assert_eq!(evaluate(), 0, "the sparse Jacobian of {what}");
    if m > 1 {
        return;
    }
    let gradient = &mut xbar;
    let (mut hv, mut hessian) = (vec![0.0; n], Matrix::default());
    let mut counts = |driver: &str, call: &mut dyn FnMut(&mut Workspace, &mut [f64]) -> f64| {
        call(ws, gradient);
        let counted = measure(|| assert!(call(ws, gradient) != f64::INFINITY));
        assert_eq!(counted.count_total, 0, "{driver} of {what}");
    };
    counts("gradient_into", &mut |ws, gradient| tape.gradient_into(ws, x, gradient).unwrap());
    counts("hvp_into", &mut |ws, hv| tape.hvp_into(ws, x, &p, hv).unwrap());
    counts("gradient_hvp_into", &mut |ws, gradient| tape.gradient_hvp_into(ws, x, &p, gradient, &mut hv).unwrap());
    counts("hessian_into", &mut |ws, _| tape.hessian_into(ws, x, &mut hessian).unwrap());
    counts("gradient_hessian_into", &mut |ws, gradient| {
        tape.gradient_hessian_into(ws, x, gradient, &mut hessian).unwrap()
    });
    let (plan, mut sparse) = (SparseHessian::new(tape).unwrap(), SparseMatrix::default());
    counts("the sparse Hessian", &mut |ws, _| plan.values_into(ws, x, &mut sparse).unwrap());
    if tape.num_params() == 0 {
        return;
    }
    let rows: Vec<f64> = (0..200 * tape.num_params()).map(|i| 1.0 + i as f64 / 100.0).collect();
    let samples = Samples::from_rows(tape, &rows).unwrap();
    let in_sequence: Vec<usize> = (0..200).collect();
    let scattered: Vec<usize> = (0..150).map(|i| i * 7 % 200).collect();
    // As many lanes as suit the tape, and then so many.
    for lanes in [None, Some(16), Some(32), Some(64)] {
        for idx in [&in_sequence, &scattered, &scattered[..5], &scattered[..3]] {
            counts("sum_value_into", &mut |ws, _| {
                lanes.iter().for_each(|&lanes| ws.set_lanes(lanes).unwrap());
                tape.sum_value_into(ws, x, &samples, idx).unwrap()
            });
            counts("sum_gradient_into", &mut |ws, gradient| {
                tape.sum_gradient_into(ws, x, &samples, idx, gradient).unwrap()
            });
        }
    }
}

/// The drivers of many points, with parameters of the tape and of each point.
fn check_many_points(what: &str, tape: &Tape, x: &[f64]) {
    let ws = &mut Workspace::new();
    for point in [x.to_vec(), [x, tape.params()].concat()] {
        for (lanes, count) in [16, 32, 64].into_iter().flat_map(|lanes| [1, 3, 4, 16, 17, 40, 70].map(|n| (lanes, n))) {
            ws.set_lanes(lanes).unwrap();
            let points = Matrix::from_rows(&vec![&point; count]).unwrap();
            let (mut values, mut jacobians) = (Matrix::default(), Matrix::default());
            let mut evaluate = || measure(|| tape.eval_many_into(ws, &points, &mut values).unwrap()).count_total;
            evaluate();
            assert_eq!(evaluate(), 0, "eval_many_into of {count} points in {lanes} lanes of {what}");
            let mut differentiate =
                || measure(|| tape.jacobian_many_into(ws, &points, &mut jacobians).unwrap()).count_total;
            differentiate();
            assert_eq!(differentiate(), 0, "jacobian_many_into of {count} points in {lanes} lanes of {what}");
        }
    }
}

fn scalar(n: usize, f: impl FnOnce(&[Var], Var) -> Var) -> Tape {
    Tape::builder().inputs(&[], &vec![0.5; n]).params(&[], &[2.0]).record(|x, k| f(x, k[0])).unwrap()
}

#[test]
fn single_operations() {
    let tape = scalar(3, |x, k| (x[0] * k).sin() + x[1].atan2(x[2]) - (x[1] * k).exp().powi(3));
    check("single operations", &tape, &[0.5, 1.5, -2.0]);
    let tape = Tape::record(&[0.5; 3], |x| {
        let (s, c) = x[0].sin_cos();
        [s * x[1], c / x[2], x[0].max(x[1]), x[2]]
    })
    .unwrap();
    check("several outputs, forward", &tape, &[0.5, 1.5, -2.0]);
    let tape = Tape::record(&[0.5; 9], |x| [x[0] * x[8], x[3].tanh()]).unwrap();
    check("several outputs, reverse", &tape, &[0.25; 9]);
}

#[test]
fn folds() {
    let tape = scalar(3, |x, k| Var::sum_of(x) * k + Var::dot(&x[..1], &x[2..]));
    check("folds of three operands and of one term", &tape, &[0.5, 1.5, -2.0]);
    let tape = scalar(100, |x, k| Var::sum_of(x) * k);
    check("a sum of 100 terms", &tape, &[0.25; 100]);
    let tape = scalar(80, |x, k| Var::dot(&x[..40], &x[40..]) * k);
    check("a dot product of 40 terms", &tape, &[0.25; 80]);
    let tape = Tape::record(&[0.5; 80], |x| [Var::sum_of(x), Var::dot(&x[..40], &x[40..])]).unwrap();
    check("long folds with two outputs", &tape, &[0.25; 80]);
}

#[test]
fn chains_and_guards() {
    let tape = scalar(20, |x, k| {
        let hidden = [(x[0] * k + x[1]).tanh(), (x[2] * k + x[3]).exp()];
        let sum = x[4..].iter().enumerate().fold(k, |sum, (i, &w)| sum + w * hidden[i % 2]);
        if sum > hidden[0] { sum * sum - hidden[1] } else { sum }
    });
    check("a chain of weights", &tape, &[0.75; 20]);
    let tape = Tape::record(&[0.5; 6], |x| {
        let products: Vec<Var> = x[1..].iter().map(|&w| w * x[0]).collect();
        [products.iter().sum::<Var>(), x.iter().fold(Var::from(1.0), |sum, &x| sum + x * x), x[2].sin() - 1.0]
    })
    .unwrap();
    check("chains with several outputs", &tape, &[0.25; 6]);
}

/// A recurrence whose states are not all kept.
fn check_scan_in_segments() {
    let step = Tape::record(&[0.5; 513], |x| x[1..].iter().map(|&v| v * x[0]).collect::<Vec<_>>()).unwrap();
    let tape = Tape::record(&[0.5; 513], |x| {
        let state = step.scan(&x[..512], std::iter::repeat_n(&x[512..], 2100)).0;
        state[0]
    })
    .unwrap();
    let (mut ws, x, mut gradient) = (Workspace::new(), [0.5; 513], [0.0; 513]);
    let mut sweep = || measure(|| assert!(tape.gradient_into(&mut ws, &x, &mut gradient).is_ok())).count_total;
    sweep();
    assert_eq!(sweep(), 0, "a gradient in segments");
}

#[test]
fn calls() {
    let pair = Tape::record(&[0.3, 0.5], |x| [x[0].sin() * x[1], x[1].exp() - x[0]]).unwrap();
    let inner = pair.clone();
    let nested = Tape::record(&[0.3, 0.5], move |x| {
        let y = inner.call(x);
        let sums = inner.map_sum([[y[0], x[1]], [x[0], y[1]]]);
        [sums[0].tanh(), if x[0] < 100.0 { sums[1] * 0.1 } else { x[1] }]
    })
    .unwrap();
    let mixed = |x: &[Var], k: Var| {
        let mapped = nested.map(x.windows(2));
        let (state, outs) = nested.scan(&x[..1], (0..4).map(|_| [k]));
        let sums = pair.map_sum(x.windows(2));
        (mapped, [state[0], outs[3], sums[0] * nested.call(&[k, x[2]])[1]])
    };
    let tape = scalar(5, |x, k| {
        let (mapped, rest) = mixed(x, k);
        Var::sum_of(&mapped) * rest[0] + rest[1] * rest[2]
    });
    let x = [0.5, 0.25, -0.5, 0.75, 0.1];
    check("functions", &tape, &x);
    check_scan_in_segments();
    let several = Tape::record(&[0.5; 5], |x| {
        let (mapped, rest) = mixed(x, Var::from(0.5));
        [mapped, rest.to_vec()].concat()
    })
    .unwrap();
    check("functions with several results", &several, &x);
    // Derivative tapes call the adjoints of functions, and the tangents of these.
    let gradient = tape.gradient_tape().unwrap();
    check("adjoints of functions", &gradient, &x);
    let pair_twice = |x: &[Var]| pair.map_sum(x.windows(2))[0];
    let gradient = Tape::record(&x, pair_twice).unwrap().gradient_tape().unwrap();
    let twice = gradient.jvp_tape().unwrap();
    let point: Vec<f64> = [x, [0.5; 5]].concat();
    check("tangents of adjoints of functions", &twice, &point);
    let sum = Tape::record(&point, |x| twice.eval_with(x).unwrap().into_iter().sum::<Var>()).unwrap();
    check("adjoints of tangents of adjoints", &sum, &point);
}

/// A function that is recorded again allocates nothing while its branch stays.
#[test]
fn retapes_on_a_branch() {
    let retape = Tape::builder()
        .inputs(&[], &[0.5; 3])
        .params(&[], &[2.0])
        .retape(|x, k| if x[0] > k[0] { (x[1] * x[2]).sin() } else { x[1] * x[2] + k[0] * x[0] })
        .unwrap();
    let samples = retape.samples(&[1.0; 200]).unwrap();
    let idx: Vec<usize> = (0..200).collect();
    let (ws, x) = (&mut Workspace::new(), [0.5, 1.0, 2.0]);
    let (mut y, mut dy, mut gradient, mut jac) = ([0.0], [0.0], [0.0; 3], Matrix::default());
    let mut round = || {
        let other_branch = measure(|| retape.eval_into(ws, &[7.0; 3], &mut y).unwrap());
        retape.eval_into(ws, &x, &mut y).unwrap();
        let drivers = [
            measure(|| retape.eval_into(ws, &x, &mut y).unwrap()),
            measure(|| retape.jvp_into(ws, &x, &[1.0; 3], &mut y, &mut dy).unwrap()),
            measure(|| retape.vjp_into(ws, &x, &[1.0], &mut y, &mut gradient).unwrap()),
            measure(|| assert!(retape.gradient_into(ws, &x, &mut gradient).unwrap() > 0.0)),
            measure(|| retape.jacobian_into(ws, &x, &mut jac).unwrap()),
            measure(|| assert!(retape.sum_value_into(ws, &x, &samples, &idx).unwrap() > 0.0)),
            measure(|| assert!(retape.sum_gradient_into(ws, &x, &samples, &idx, &mut gradient).unwrap() > 0.0)),
        ];
        (other_branch.count_total, drivers.map(|driver| driver.count_total))
    };
    assert!(round().0 > 0, "nothing is counted");
    assert_eq!(round().1, [0; 7]);
}

#[test]
fn strict_repetitions() {
    let tape = scalar(3, |x, k| x[0].ln() * k + Var::sum_of(x) + x[1].sqrt());
    check("an output outside its domain", &tape, &[-1.0, 1.5, 2.0]);
    let tape = scalar(40, |x, k| (x[0] * k).select_gt(0.0, x[0].ln(), Var::dot(&x[..20], &x[20..])));
    check("a branch outside its domain", &tape, &[-1.0; 40]);
    let tape = Tape::record(&[0.5; 100], |x| [Var::sum_of(x) * x[0].ln(), x[1].sqrt()]).unwrap();
    check("several outputs outside their domain", &tape, &[-1.0; 100]);
}
