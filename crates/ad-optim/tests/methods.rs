//! L-BFGS, Levenberg–Marquardt and Gauss–Newton: against 40-digit references, which `reference/methods.py` computes
//! with mpmath, against certified fits, and what they cost.
#![allow(clippy::unwrap_used)]

mod reference;

use ad_core::{Samples, Tape};
use ad_optim::{
    Batches, Differentiable, Error, GaussNewton, GradientDescent, Lbfgs, LeastSquares, LevenbergMarquardt, Method,
    StopReason, Trainer, from_fn,
};
use reference::{Case, Trajectory, by_hand, recorded, references};
use std::cell::Cell;
use std::collections::BTreeMap;

fn trajectories() -> BTreeMap<Case, Trajectory> {
    references(include_str!("reference/methods.csv"))
}

/// Misra1a of NIST StRD (dental research): y = b₁·(1 − exp(−b₂·u)).
const MISRA1A: [(f64, f64); 14] = [
    (10.07, 77.6),
    (14.73, 114.9),
    (17.94, 141.1),
    (23.93, 190.8),
    (29.61, 239.9),
    (35.18, 289.0),
    (40.02, 332.8),
    (44.82, 378.4),
    (50.76, 434.8),
    (55.05, 477.3),
    (61.01, 536.8),
    (66.40, 593.1),
    (75.47, 689.1),
    (81.78, 760.0),
];

fn misra1a() -> LeastSquares {
    let residuals = Tape::record(&[1.0, 1.0], |b| {
        MISRA1A.iter().map(|&(y, u)| b[0] * (1.0 - (-b[1] * u).exp()) - y).collect::<Vec<_>>()
    });
    LeastSquares::new(residuals.unwrap()).unwrap()
}

fn rosenbrock_residuals() -> LeastSquares {
    let residuals = Tape::record(&[1.0, 1.0], |x| [10.0 * (x[1] - x[0] * x[0]), 1.0 - x[0]]);
    LeastSquares::new(residuals.unwrap()).unwrap()
}

/// Runs the method that `case` names and compares with the reference of `other`, which may be itself.
fn check(case: &Case, other: &Case, reference: &Trajectory) -> Result<(), String> {
    let start = match (case.problem.as_str(), case.rule.as_str()) {
        ("quadratic", _) => vec![1.0, 1.0],
        ("rosenbrock", _) => vec![-1.2, 1.0],
        ("logistic", _) => vec![0.25, -0.5, 0.75, 0.0],
        ("misra1a", "levenberg_marquardt") => vec![500.0, 0.0001],
        ("misra1a", "gauss_newton") => vec![250.0, 0.0005],
        other => panic!("no problem {other:?}"),
    };
    let fit = || if case.problem == "misra1a" { misra1a() } else { rosenbrock_residuals() };
    let steps = *reference.keys().last().unwrap();
    let [memory, c1, c2, damping] = ["memory", "c1", "c2", "damping"].map(|name| case.setting(name));
    match case.rule.as_str() {
        "lbfgs" => {
            let rule = || Lbfgs::new().memory(memory as usize).wolfe(c1, c2);
            for objective in [by_hand(&case.problem), recorded(&case.problem)] {
                other.compare(reference, Trainer::new(objective, rule(), start.clone()).max_steps(steps))?;
            }
            Ok(())
        }
        "levenberg_marquardt" => {
            let rule = LevenbergMarquardt::new().damping(damping);
            other.compare(reference, Trainer::new(fit(), rule, start).max_steps(steps))
        }
        "gauss_newton" => other.compare(reference, Trainer::new(fit(), GaussNewton::new(), start).max_steps(steps)),
        other => panic!("no method {other}"),
    }
}

#[test]
fn every_method_follows_its_reference() {
    let cases = trajectories();
    let failures: Vec<String> =
        cases.iter().filter_map(|(case, reference)| check(case, case, reference).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(cases.len(), 11);
}

#[test]
fn no_method_follows_the_reference_of_another() {
    let cases = trajectories();
    let mut tried = 0;
    for case in cases.keys() {
        let others = cases.iter().filter(|(other, _)| other.problem == case.problem && *other != case);
        for (other, reference) in others {
            assert!(check(case, other, reference).is_err(), "{case:?} follows the reference of {other:?}");
            tried += 1;
        }
    }
    assert!(tried >= 10);
}

#[test]
fn certified_values_of_misra1a() {
    // Parameters, their standard deviations, the sum of squares and the standard deviation of the residuals.
    const CERTIFIED: [f64; 2] = [2.3894212918e2, 5.5015643181e-4];
    const ERRORS: [f64; 2] = [2.7070075241, 7.2668688436e-6];
    let near = |got: f64, certified: f64| (got / certified - 1.0).abs() < 1e-10;
    for start in [[500.0, 0.0001], [250.0, 0.0005]] {
        let fit = misra1a();
        let out = Trainer::new(&fit, LevenbergMarquardt::new(), start.to_vec()).run().unwrap();
        assert!(matches!(out.stop, StopReason::SmallStep | StopReason::SmallDecrease), "{out}");
        let statistics = fit.statistics(&out.x).unwrap();
        for i in 0..2 {
            assert!(near(out.x[i], CERTIFIED[i]), "{out:.12}");
            assert!(near(statistics.standard_errors[i], ERRORS[i]), "{statistics:.12}");
        }
        assert!(near(statistics.sum_of_squares, 1.2455138894e-1), "{statistics:.12}");
        assert!(near(statistics.standard_deviation, 1.0187876330e-1), "{statistics:.12}");
        assert_eq!(statistics.degrees_of_freedom, 12);
        assert_eq!(2.0 * out.value, statistics.sum_of_squares);
    }
    let fit = misra1a();
    let out = Trainer::new(&fit, GaussNewton::new(), vec![250.0, 0.0005]).run().unwrap();
    assert!(near(out.x[0], CERTIFIED[0]) && near(out.x[1], CERTIFIED[1]), "{out:.12}");
}

/// Counts the evaluations of what it holds.
struct Counted<D> {
    inner: D,
    evaluations: Cell<usize>,
    points: std::cell::RefCell<Vec<Vec<f64>>>,
}

impl<D: Differentiable> Counted<D> {
    fn new(inner: D) -> Self {
        Counted { inner, evaluations: Cell::new(0), points: Vec::new().into() }
    }
}

impl<D: Differentiable> Differentiable for Counted<D> {
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn num_samples(&self) -> usize {
        self.inner.num_samples()
    }
    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        self.evaluations.set(self.evaluations.get() + 1);
        self.points.borrow_mut().push(x.to_vec());
        self.inner.value_and_gradient(x, batch, grad)
    }
    fn residuals_and_jacobian(
        &self,
        x: &[f64],
        residuals: &mut Vec<f64>,
        jacobian: &mut ad_core::Matrix,
    ) -> Result<(), Error> {
        self.evaluations.set(self.evaluations.get() + 1);
        self.inner.residuals_and_jacobian(x, residuals, jacobian)
    }
}

#[test]
fn evaluations_are_counted_and_none_is_made_twice() {
    fn check<M: Method>(objective: impl Differentiable, method: M) {
        let counted = Counted::new(objective);
        let out = Trainer::new(&counted, method, vec![-1.2, 1.0]).grad_tol(1e-8).run().unwrap();
        assert!(out.grad_norm <= 1e-8, "{out}");
        assert_eq!(out.evaluations, counted.evaluations.get());
        let mut points = counted.points.into_inner();
        let all = points.len();
        points.sort_by(|a, b| a.partial_cmp(b).unwrap());
        points.dedup();
        assert_eq!(points.len(), all, "a point was evaluated twice");
    }
    check(by_hand("rosenbrock"), Lbfgs::new());
    check(rosenbrock_residuals(), LevenbergMarquardt::new());
    check(rosenbrock_residuals(), GaussNewton::new());
}

#[test]
fn running_and_iterating_make_the_same_steps() {
    let trainer = || Trainer::new(by_hand("rosenbrock"), Lbfgs::new(), vec![-1.2, 1.0]).grad_tol(1e-10);
    let mut iterated = trainer();
    assert!(iterated.by_ref().all(|step| step.is_ok_and(|step| step.rate > 0.0)));
    let (by_steps, at_once) = (iterated.finish().unwrap(), trainer().run().unwrap());
    assert_eq!(by_steps, at_once);
    assert_eq!(at_once.stop, StopReason::GradientNorm);
}

/// The chained Rosenbrock function of n unknowns.
fn chained(n: usize) -> Tape {
    let tape = Tape::record(&vec![0.5; n], |x| {
        let terms = x.windows(2).map(|w| (1.0 - w[0]).powi(2) + 100.0 * (w[1] - w[0] * w[0]).powi(2));
        terms.reduce(|sum, term| sum + term).unwrap()
    });
    tape.unwrap()
}

#[test]
fn lbfgs_minimises_what_gradient_descent_cannot() {
    let tape = chained(100);
    let start: Vec<f64> = (0..100).map(|i| if i % 2 == 0 { -1.2 } else { 1.0 }).collect();
    for memory in [1, 3, 10, 40] {
        let out = Trainer::new(&tape, Lbfgs::new().memory(memory), start.clone())
            .max_steps(2000)
            .grad_tol(1e-9)
            .run()
            .unwrap();
        assert_eq!(out.stop, StopReason::GradientNorm, "memory {memory}: {out}");
        // Rarely more than one evaluation a step.
        assert!(out.evaluations < out.steps * 3 / 2 + 10, "{out}");
    }
    let descent = Trainer::new(&tape, GradientDescent::new(1e-3), start).max_steps(2000).run().unwrap();
    assert!(descent.grad_norm > 1e-2);
}

#[test]
fn lbfgs_goes_on_to_the_rounding_of_the_gradient() {
    // The value stops to fall at a gradient of about 1e-8; the slopes go on.
    let f = from_fn(2, |x, grad| {
        grad[0] = (x[0] - 1.0).sinh();
        grad[1] = 100.0 * (x[1] + 2.0).sinh();
        (x[0] - 1.0).cosh() + 100.0 * (x[1] + 2.0).cosh()
    });
    let out = Trainer::new(&f, Lbfgs::new(), vec![3.0, 1.0]).grad_tol(1e-11).run().unwrap();
    assert_eq!(out.stop, StopReason::GradientNorm, "{out}");
}

#[test]
fn lbfgs_comes_back_from_where_the_value_is_not_finite() {
    // The minimum of x − ln x is at 1; the first step from 1e-3 ends far beyond 0 on the other side.
    let f = from_fn(1, |x, grad| {
        grad[0] = 1.0 - 1.0 / x[0];
        x[0] - x[0].ln()
    });
    for start in [1e-3, 1e-9, 50.0] {
        let out = Trainer::new(&f, Lbfgs::new(), vec![start]).grad_tol(1e-9).max_steps(200).run().unwrap();
        assert_eq!(out.stop, StopReason::GradientNorm, "{out}");
        assert!((out.x[0] - 1.0).abs() < 1e-8);
    }
}

#[test]
fn a_wrong_gradient_ends_without_descent() {
    let f = from_fn(2, |x, grad| {
        grad[0] = -2.0 * x[0];
        grad[1] = -2.0 * x[1];
        x[0] * x[0] + x[1] * x[1]
    });
    let out = Trainer::new(&f, Lbfgs::new(), vec![1.0, 2.0]).run().unwrap();
    assert_eq!((out.stop.clone(), out.steps, &out.x[..]), (StopReason::NoDescent, 0, &[1.0, 2.0][..]));
    assert_eq!(out.value, 5.0);
    assert!(out.to_string().contains("the gradient is not its gradient"), "{out}");
}

#[test]
fn methods_that_compare_points_refuse_minibatches() {
    let refused = |error: Error| match error {
        Error::NeedsFullBatches { method } => method,
        other => panic!("{other}"),
    };
    let start = vec![0.0; 4];
    for batches in [Batches::sequential(5), Batches::shuffled(5)] {
        let trainer = Trainer::new(by_hand("logistic"), Lbfgs::new(), start.clone()).batches(batches);
        assert_eq!(refused(trainer.run().unwrap_err()), "Lbfgs");
    }
    // All residuals are one sample, so that a batch of 8 would be all of them.
    let fit = || LeastSquares::new(Tape::record(&[0.0], |x| [3.0, 5.0, 7.0].map(|y| x[0] - y)).unwrap()).unwrap();
    let batches = || Batches::shuffled(8);
    let levenberg = Trainer::new(fit(), LevenbergMarquardt::new(), vec![0.0]);
    assert_eq!(refused(levenberg.batches(batches()).run().unwrap_err()), "LevenbergMarquardt");
    let gauss = Trainer::new(fit(), GaussNewton::new(), vec![0.0]);
    assert_eq!(refused(gauss.batches(Batches::sequential(1)).run().unwrap_err()), "GaussNewton");
    let lbfgs = Trainer::new(fit(), Lbfgs::new(), vec![0.0]);
    assert_eq!(refused(lbfgs.batches(batches()).run().unwrap_err()), "Lbfgs");
    let full = Trainer::new(fit(), LevenbergMarquardt::new(), vec![0.0]).batches(Batches::full());
    assert!(full.run().is_ok());
    // Batches of all samples are full.
    let trainer = Trainer::new(by_hand("logistic"), Lbfgs::new(), start).batches(Batches::sequential(12));
    assert!(trainer.grad_tol(1e-6).run().is_ok());
}

#[test]
fn methods_for_residuals_need_residuals() {
    for out in [
        Trainer::new(by_hand("rosenbrock"), LevenbergMarquardt::new(), vec![0.0, 0.0]).run(),
        Trainer::new(by_hand("rosenbrock"), GaussNewton::new(), vec![0.0, 0.0]).run(),
    ] {
        assert!(matches!(out, Err(Error::NoResiduals)));
    }
}

#[test]
fn residuals_of_samples_are_those_of_one_long_tape() {
    let residual = Tape::builder()
        .inputs(&["b1", "b2"], &[1.0, 1.0])
        .params(&["y", "u"], &[0.0, 1.0])
        .record(|b, k| [b[0] * (1.0 - (-b[1] * k[1]).exp()) - k[0], 1e-3 * b[1] * k[1]])
        .unwrap();
    let rows: Vec<f64> = MISRA1A.iter().flat_map(|&(y, u)| [y, u]).collect();
    let samples = Samples::from_rows(&residual, &rows).unwrap();
    let by_samples = LeastSquares::over_samples(residual.clone(), samples).unwrap();
    let long = Tape::record(&[1.0, 1.0], |b| {
        MISRA1A.iter().flat_map(|&(y, u)| [b[0] * (1.0 - (-b[1] * u).exp()) - y, 1e-3 * b[1] * u]).collect::<Vec<_>>()
    });
    let long = LeastSquares::new(long.unwrap()).unwrap();
    assert_eq!((by_samples.num_residuals(), long.num_residuals()), (28, 28));
    let point = [240.0, 5e-4];
    let evaluate = |fit: &LeastSquares| {
        let (mut grad, mut residuals, mut jacobian) = ([0.0; 2], Vec::new(), ad_core::Matrix::zeros(0, 0));
        let value = fit.value_and_gradient(&point, &[0], &mut grad).unwrap();
        fit.residuals_and_jacobian(&point, &mut residuals, &mut jacobian).unwrap();
        // The gradient is that of the value.
        for (j, g) in grad.iter().enumerate() {
            let sum: f64 = (0..28).map(|i| jacobian[(i, j)] * residuals[i]).sum();
            assert!((g - sum).abs() <= 1e-13 * sum.abs(), "{g} for {sum}");
        }
        (value, residuals, jacobian)
    };
    assert_eq!(evaluate(&by_samples), evaluate(&long));
    let run = |fit: &LeastSquares| Trainer::new(fit, LevenbergMarquardt::new(), vec![250.0, 5e-4]).run().unwrap();
    assert!((run(&by_samples).x[0] / run(&long).x[0] - 1.0).abs() < 1e-12);

    // Other rules minimise the same value.
    let bfgs = Trainer::new(&rosenbrock_residuals(), Lbfgs::new(), vec![-1.2, 1.0]).grad_tol(1e-9).run().unwrap();
    assert!((bfgs.x[0] - 1.0).abs() < 1e-8);

    let other = Tape::builder().inputs(&[], &[0.0]).params(&[], &[0.0]).record(|x, k| x[0] * k[0]).unwrap();
    let narrow = Samples::from_rows(&other, &[1.0]).unwrap();
    let error = LeastSquares::over_samples(residual, narrow).unwrap_err();
    assert!(matches!(error, Error::ParameterMismatch { tape: 2, sample: 1 }));
}

#[test]
fn dependent_columns() {
    // Only the sum of the two unknowns is determined.
    let tape = Tape::record(&[0.0, 0.0], |x| [x[0] + x[1] - 1.0, (x[0] + x[1]) * 2.0 - 3.0, (x[0] + x[1]).exp() - 3.0]);
    let fit = LeastSquares::new(tape.unwrap()).unwrap();
    let error = Trainer::new(&fit, GaussNewton::new(), vec![0.25, 0.0]).run().unwrap_err();
    assert!(matches!(error, Error::RankDeficient { owner: "GaussNewton", column: 1 }), "{error}");
    assert!(matches!(fit.statistics(&[0.0, 0.0]), Err(Error::RankDeficient { column: 1, .. })));
    let out = Trainer::new(&fit, LevenbergMarquardt::new(), vec![0.25, 0.0]).run().unwrap();
    assert!(out.grad_norm < 1e-6, "{out}");
    // The damping chooses the shortest step, which treats both alike.
    assert!((out.x[0] - 0.25 - out.x[1]).abs() < 1e-9, "{out}");
}

#[test]
fn more_unknowns_than_residuals_and_columns_of_zeros() {
    let fit = LeastSquares::new(Tape::record(&[0.0; 3], |x| [x[0] * x[0] - 2.0, x[0] + x[1]]).unwrap()).unwrap();
    let out = Trainer::new(&fit, LevenbergMarquardt::new(), vec![1.0, 1.0, 7.0]).run().unwrap();
    assert!((out.x[0] - 2f64.sqrt()).abs() < 1e-9 && (out.x[1] + 2f64.sqrt()).abs() < 1e-9, "{out}");
    assert_eq!(out.x[2], 7.0);
}

#[test]
fn levenberg_marquardt_does_not_depend_on_units() {
    // The same problem with the second unknown in other units: powers of two, so that even the roundings agree.
    let points = |unit: f64| {
        let tape = Tape::record(&[1.0, 1.0], |x| [10.0 * (x[1] * unit - x[0] * x[0]), 1.0 - x[0]]).unwrap();
        let fit = LeastSquares::new(tape).unwrap();
        let mut path = Vec::new();
        let trainer = Trainer::new(&fit, LevenbergMarquardt::new(), vec![-1.2, 1.0 / unit]).max_steps(10);
        let observed = trainer.observe_point(|_, x| {
            path.push([x[0], x[1] * unit]);
            std::ops::ControlFlow::Continue(())
        });
        observed.run().unwrap();
        path
    };
    assert_eq!(points(1.0), points(1024.0));
    assert_eq!(points(1.0), points(1.0 / 1048576.0));
}

#[test]
fn a_residual_that_is_not_finite_ends_the_run_or_shortens_the_step() {
    // Beyond 0 the logarithm is NaN: the first steps from 10 would lead there.
    let fit = LeastSquares::new(Tape::record(&[1.0], |x| [x[0].ln() + 3.0]).unwrap()).unwrap();
    for out in [
        Trainer::new(&fit, LevenbergMarquardt::new(), vec![10.0]).run().unwrap(),
        Trainer::new(&fit, GaussNewton::new(), vec![10.0]).run().unwrap(),
    ] {
        assert!((out.x[0].ln() + 3.0).abs() < 1e-9, "{out}");
    }
    let out = Trainer::new(&fit, LevenbergMarquardt::new(), vec![-1.0]).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 1, .. }), "{out}");
    assert!(out.stop.to_string().contains("residual 0 is NaN"), "{}", out.stop);
    // The value is finite and its slope is not.
    let root = LeastSquares::new(Tape::record(&[1.0], |x| [x[0].sqrt() + 1.0]).unwrap()).unwrap();
    let out = Trainer::new(&root, LevenbergMarquardt::new(), vec![0.0]).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { .. }), "{out}");
    // Where the residual is 0, so is the gradient, by the rule for 0·∞; the Jacobian alone shows it.
    let roots = Tape::builder().inputs(&["a", "b"], &[1.0, 1.0]).record(|x, _| [x[0] - 1.0, x[1].sqrt()]).unwrap();
    let fit = LeastSquares::new(roots).unwrap();
    let stops = [
        Trainer::new(&fit, LevenbergMarquardt::new(), vec![3.0, 0.0]).run().unwrap().stop,
        Trainer::new(&fit, GaussNewton::new(), vec![3.0, 0.0]).run().unwrap().stop,
    ];
    for stop in stops {
        let text = stop.to_string();
        assert!(matches!(stop, StopReason::NonFinite { step: 1, detail: Some(_), .. }), "{text}");
        let row = "the derivative of residual 1 by b is inf, since ";
        assert!(text.contains(row) && text.contains("sqrt(v₀)") && text.contains("methods.rs:"), "{text}");
    }
}

#[test]
fn statistics_where_nothing_is_finite() {
    let tape = Tape::record(&[1.0, 1.0], |x| [x[0] * x[1].sqrt(), x[0] - 1.0, x[1]]).unwrap();
    let fit = LeastSquares::new(tape).unwrap();
    for (x, what) in
        [([1.0, 0.0], "the derivative of residual 0 by unknown 1 is inf"), ([1.0, -1.0], "residual 0 is NaN")]
    {
        let error = fit.statistics(&x).unwrap_err().to_string();
        assert!(error.starts_with(&format!("LeastSquares::statistics: {what}, since ")), "{error}");
    }
}

#[test]
fn a_memory_that_no_machine_has() {
    let tape = Tape::record(&[1.0], |x| x[0] * x[0]).unwrap();
    for pairs in [1 << 50, usize::MAX] {
        let error = Trainer::new(&tape, Lbfgs::new().memory(pairs), vec![1.0]).run().unwrap_err();
        assert!(matches!(error, Error::TooLarge { rows, columns: 1, .. } if rows == pairs), "{error}");
    }
}

#[test]
fn settings_of_methods() {
    fn name<M: Method>(method: M) -> &'static str {
        match Trainer::new(rosenbrock_residuals(), method, vec![0.0, 0.0]).run() {
            Err(Error::InvalidSetting { setting, .. }) => setting,
            Err(other) => panic!("{other}"),
            Ok(_) => "accepted",
        }
    }
    assert_eq!(name(Lbfgs::new().memory(0)), "memory");
    assert_eq!(name(Lbfgs::new().max_evaluations(0)), "largest number of evaluations");
    for bad in [f64::NAN, 0.0, -1.0, 1.0, f64::INFINITY] {
        assert_eq!(name(Lbfgs::new().wolfe(bad, 0.9)), "decrease of the Wolfe conditions");
        assert_eq!(name(Lbfgs::new().wolfe(1e-4, bad)), "curvature of the Wolfe conditions");
    }
    assert_eq!(name(Lbfgs::new().wolfe(0.5, 0.4)), "curvature of the Wolfe conditions");
    assert_eq!(name(Lbfgs::new().wolfe(0.5, 0.5)), "curvature of the Wolfe conditions");
    assert_eq!(name(LevenbergMarquardt::new().damping(0.0)), "damping");
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        assert_eq!(name(LevenbergMarquardt::new().damping(bad)), "damping");
        assert_eq!(name(LevenbergMarquardt::new().x_tol(bad)), "x_tol");
        assert_eq!(name(LevenbergMarquardt::new().f_tol(bad)), "f_tol");
        assert_eq!(name(GaussNewton::new().x_tol(bad)), "x_tol");
        assert_eq!(name(GaussNewton::new().f_tol(bad)), "f_tol");
    }
    assert_eq!(name(LevenbergMarquardt::new().x_tol(0.0).f_tol(0.0)), "accepted");
    let huge = Trainer::new(by_hand("rosenbrock"), Lbfgs::new().memory(usize::MAX), vec![0.0, 0.0]).run();
    assert!(matches!(huge, Err(Error::TooLarge { .. })));
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let run = |threads| {
        let trainer = Trainer::new(recorded("logistic"), Lbfgs::new(), vec![0.0; 4]).threads(threads);
        let out = trainer.grad_tol(1e-10).run().unwrap();
        let rows = out.history.iter().flat_map(|record| [record.value, record.grad_norm, record.rate]);
        rows.chain(out.x.iter().copied()).map(f64::to_bits).collect::<Vec<_>>()
    };
    let one = run(1);
    for threads in [2, 3, 4, 8] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

/// Residuals of one unknown, each with what it says is its derivative.
struct Hostile<F>(F);

impl<F: Fn(f64) -> Vec<(f64, f64)>> Differentiable for Hostile<F> {
    fn dim(&self) -> usize {
        1
    }
    fn value_and_gradient(&self, x: &[f64], _batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        let residuals = (self.0)(x[0]);
        grad[0] = residuals.iter().map(|(residual, slope)| residual * slope).sum();
        Ok(0.5 * residuals.iter().map(|(residual, _)| residual * residual).sum::<f64>())
    }
    fn residuals_and_jacobian(
        &self,
        x: &[f64],
        residuals: &mut Vec<f64>,
        jacobian: &mut ad_core::Matrix,
    ) -> Result<(), Error> {
        let (values, slopes): (Vec<f64>, Vec<[f64; 1]>) = (self.0)(x[0]).into_iter().map(|(r, j)| (r, [j])).unzip();
        *residuals = values;
        *jacobian = ad_core::Matrix::from_rows(&slopes)?;
        Ok(())
    }
}

#[test]
fn hostile_functions_end_every_search() {
    const NAN: f64 = f64::NAN;
    let functions: [fn(f64) -> (f64, f64); 16] = [
        |x| if x == 0.0 { (1.0, 1.0) } else { (NAN, NAN) },
        |x| if x == 0.0 { (1.0, 1.0) } else { (f64::INFINITY, 1.0) },
        |x| if x == 0.0 { (1.0, 1.0) } else { (2.0, 1.0) },
        |x| (2.0 - x.abs(), -x.signum()),
        |x| (if x < -0.3 { 1.0 } else { 2.0 }, 1.0),
        |x| ((1e3 * x).exp(), 1e3 * (1e3 * x).exp()),
        |x| (1e-160 * (x - 1.0), 1e-160),
        |x| (1e150 * (x - 1.0), 1e150),
        |x| (1e-300 * (x - 1.0), 1e-300),
        |x| (x - 1.0, -1.0),
        |x| (x - 1.0, 1e-300),
        |x| (x - 1.0, 1e300),
        |_| (1.0, 0.0),
        |x| ((1e9 * x).sin() + 2.0, 1.0),
        |x| (1.0 / (x - 1.0), -1.0 / ((x - 1.0) * (x - 1.0))),
        |_| (5e-324, 5e-324),
    ];
    fn run<M: Method>(f: fn(f64) -> (f64, f64), start: f64, method: M) {
        let objective = Hostile(|x| vec![f(x)]);
        let first = 0.5 * f(start).0.powi(2);
        match Trainer::new(&objective, method, vec![start]).max_steps(50).run() {
            Ok(out) => {
                assert!(out.evaluations < 50 * 70, "{out}");
                assert!(out.x[0].is_finite() && (out.best_value <= first || !first.is_finite()), "{out}");
            }
            Err(error) => assert!(matches!(error, Error::RankDeficient { .. }), "{error}"),
        }
    }
    for f in functions {
        for start in [0.0, 0.5, -1e-3, 1e6] {
            run(f, start, Lbfgs::new());
            run(f, start, Lbfgs::new().max_evaluations(1));
            run(f, start, LevenbergMarquardt::new());
            run(f, start, LevenbergMarquardt::new().x_tol(0.0).f_tol(0.0));
            run(f, start, GaussNewton::new());
            run(f, start, GaussNewton::new().x_tol(0.0).f_tol(0.0));
        }
    }
}

/// What one step did: the points it tried from 2 on, and whether it went to the last of them.
struct Step {
    tried: Vec<f64>,
    taken: bool,
    stop: StopReason,
    rate: Option<f64>,
}

/// One step from 2 for the residuals r₁(x), which claims the derivative 1, and r₂(x), which claims 0. So Gauss–Newton's
/// step is δ = r₁, and the predicted decrease is ½·δ².
fn one_step<M: Method>(method: M, r1: fn(f64) -> f64, r2: fn(f64) -> f64) -> Step {
    let counted = Counted::new(Hostile(|x| vec![(r1(x), 1.0), (r2(x), 0.0)]));
    let out = Trainer::new(&counted, method, vec![2.0]).max_steps(1).run().unwrap();
    let mut tried = counted.points.into_inner().into_iter().map(|x| x[0]).collect::<Vec<_>>();
    assert_eq!(tried.remove(0), 2.0);
    assert_eq!(out.x[0], if out.steps == 1 { *tried.last().unwrap() } else { 2.0 });
    Step { tried, taken: out.steps == 1, stop: out.stop, rate: out.history.first().map(|record| record.rate) }
}

/// A residual that is `here` at 2, and `elsewhere` at all other points.
fn jump(x: f64, here: f64, elsewhere: f64) -> f64 {
    if x == 2.0 { here } else { elsewhere }
}

#[test]
fn gauss_newton_ends_as_it_says_it_does() {
    let check = |what: &str, (x_tol, f_tol), r1, r2, tried: &[f64], taken, stop| {
        let step = one_step(GaussNewton::new().x_tol(x_tol).f_tol(f_tol), r1, r2);
        let near = step.tried.iter().zip(tried).all(|(got, want)| (got - want).abs() < 1e-14);
        assert!(near && step.tried.len() == tried.len(), "{what}: tried {:?}", step.tried);
        assert_eq!((step.stop, step.taken), (stop, taken), "{what}");
        // The rate is the part of the full step that was made.
        let rate = (2.0 - tried[tried.len() - 1]) / (2.0 - tried[0]);
        assert!(!taken || (step.rate.unwrap() - rate).abs() < 1e-14, "{what}: rate {:?}", step.rate);
    };
    use StopReason::{MaxSteps, NoDescent, SmallDecrease, SmallStep};
    // Steps of 1 where x is 2.
    check("a short step", (0.6, 0.0), |x| x - 1.0, |_| 0.0, &[1.0], true, SmallStep);
    check("a long step", (0.4, 0.0), |x| x - 1.0, |_| 0.0, &[1.0], true, MaxSteps);
    // Steps of 0.1 from the value 0.505 down by 0.005.
    check("a small decrease", (0.0, 0.02), |x| x - 1.9, |_| 1.0, &[1.9], true, SmallDecrease);
    check("a large decrease", (0.0, 0.005), |x| x - 1.9, |_| 1.0, &[1.9], true, MaxSteps);
    let barely = |x| jump(x, 0.5, 0.4999);
    check("smaller than predicted", (0.0, 0.01), barely, |_| 1.0, &[1.5], true, MaxSteps);
    check("larger than predicted", (0.0, 0.02), |x| x - 1.9, |x| jump(x, 1.0, 0.5), &[1.9], true, MaxSteps);
    // The full step decreases by 1e-5 of δ², and that is too little; half of it by 1e-4 of δ², twice what it must.
    let armijo = |x: f64| {
        if x == 2.0 {
            1.0
        } else if x < 1.25 {
            (1.0 - 2e-5f64).sqrt()
        } else {
            (1.0 - 2e-4f64).sqrt()
        }
    };
    check("too small a decrease", (0.0, 0.0), armijo, |_| 0.0, &[1.0, 1.5], true, MaxSteps);
    // The value never changes. Steps of 0.1, then of 0.05.
    check("short, and none down", (0.06, 0.0), |_| 0.1, |_| 1.0, &[1.9], false, SmallStep);
    check("no part leads down", (0.04, 0.0), |_| 0.1, |_| 1.0, &[1.9, 1.95], false, NoDescent);
    check("little predicted, and none made", (0.0, 0.02), |_| 0.1, |_| 1.0, &[1.9], false, SmallDecrease);
    // From 0.52 the full step predicts 0.02, half of it 0.015, and 0.03·0.52 lies between them.
    check("more predicted, and none made", (0.0, 0.03), |_| 0.2, |_| 1.0, &[1.8, 1.9], false, NoDescent);
    // The squares of the residual are 0 wherever it looks, so that nothing falls.
    check("underflow", (0.0, 0.0), |x| 1e-300 * x, |_| 0.0, &[2.0], false, SmallDecrease);
    let nothing = one_step(GaussNewton::new().x_tol(0.0).f_tol(0.0), |_| 0.1, |_| 1.0);
    assert!(nothing.stop == NoDescent && !nothing.taken && nothing.tried.len() < 60);
}

#[test]
fn levenberg_marquardt_ends_as_it_says_it_does() {
    use StopReason::{MaxSteps, SmallDecrease, SmallStep};
    // λ starts at 1e-3 and is multiplied by 2, 4, 8, … after trials that failed. A step is δ = r₁/(1 + λ).
    const DAMPINGS: [f64; 7] = [1e-3, 2e-3, 8e-3, 6.4e-2, 1.024, 32.768, 2097.152];
    let check = |what: &str, (x_tol, f_tol), r1: fn(f64) -> f64, r2, trials: usize, taken, stop| {
        let step = one_step(LevenbergMarquardt::new().x_tol(x_tol).f_tol(f_tol), r1, r2);
        let near =
            step.tried.iter().zip(DAMPINGS).all(|(got, damping)| (got - 2.0 + r1(2.0) / (1.0 + damping)).abs() < 1e-14);
        assert!(near && step.tried.len() == trials, "{what}: tried {:?}", step.tried);
        assert_eq!((step.stop, step.taken), (stop, taken), "{what}");
    };
    check("a short step", (0.6, 0.0), |x| x - 1.0, |_| 0.0, 1, true, SmallStep);
    check("a long step", (0.4, 0.0), |x| x - 1.0, |_| 0.0, 1, true, MaxSteps);
    check("a small decrease", (0.0, 0.02), |x| x - 1.9, |_| 1.0, 1, true, SmallDecrease);
    check("a large decrease", (0.0, 0.005), |x| x - 1.9, |_| 1.0, 1, true, MaxSteps);
    check("smaller than predicted", (0.0, 0.01), |x| jump(x, 0.5, 0.4999), |_| 1.0, 1, true, MaxSteps);
    check("larger than predicted", (0.0, 0.02), |x| x - 1.9, |x| jump(x, 1.0, 0.5), 1, true, MaxSteps);
    // The value never changes. At 0.04·2 the step is short once λ > 0.25; the decrease ½·δ² + λ·δ² predicted with
    // δ = 0.1/(1 + λ) is at most 0.005·0.505 once λ > 2.4.
    check("short, and none down", (0.06, 0.0), |_| 0.1, |_| 1.0, 1, false, SmallStep);
    check("shorter, and none down", (0.04, 0.0), |_| 0.1, |_| 1.0, 5, false, SmallStep);
    check("little predicted, and none made", (0.0, 0.02), |_| 0.1, |_| 1.0, 1, false, SmallDecrease);
    check("less predicted, and none made", (0.0, 0.005), |_| 0.1, |_| 1.0, 6, false, SmallDecrease);
    // A value that rises is no end, however little was predicted: it falls for steps below 0.06.
    let near = |x: f64| {
        if x == 2.0 {
            0.1
        } else if x > 1.94 {
            0.05
        } else {
            0.2
        }
    };
    check("a rise before the decrease", (0.0, 0.02), near, |_| 1.0, 5, true, SmallDecrease);
}

#[test]
fn the_length_of_a_gauss_newton_step_is_scaled_by_columns() {
    // The step is (1, 0) from (1, 1); the column of the second unknown is 100 times as long, and so is x.
    let tape = Tape::record(&[0.0, 0.0], |x| [x[0], 100.0 * (x[1] - 1.0)]).unwrap();
    let fit = LeastSquares::new(tape).unwrap();
    for (x_tol, stop) in [(0.011, StopReason::SmallStep), (0.009, StopReason::MaxSteps)] {
        let method = GaussNewton::new().x_tol(x_tol).f_tol(0.0);
        assert_eq!(Trainer::new(&fit, method, vec![1.0, 1.0]).max_steps(1).run().unwrap().stop, stop);
    }
}

#[test]
fn the_first_steps_of_lbfgs() {
    // The first length is 1/‖g‖ = ¼, which leads to the minimum of 2·x² from 1; the rate is that length.
    let tape = Tape::record(&[1.0], |x| 2.0 * x[0] * x[0]).unwrap();
    let out = Trainer::new(&tape, Lbfgs::new(), vec![1.0]).max_steps(1).run().unwrap();
    assert_eq!((out.x[0], out.history[0].rate, out.evaluations), (0.0, 0.25, 2));
    // Where the gradient is 0, no direction leads down.
    let out = Trainer::new(&tape, Lbfgs::new(), vec![0.0]).run().unwrap();
    assert_eq!((out.stop.clone(), out.steps, out.evaluations), (StopReason::NoDescent, 0, 1), "{out}");
}

#[test]
fn statistics_of_a_line_and_of_no_degrees_of_freedom() {
    // Through (0, 0), (1, 3), (2, 3): the line 0.5 + 1.5·u, residuals 0.5, −1, 0.5, and with (JᵀJ)⁻¹ = [5 −3; −3 3]/6.
    let line = |data: &[(f64, f64)]| {
        let residuals = |b: &[ad_core::Var]| data.iter().map(|&(u, y)| b[0] + b[1] * u - y).collect::<Vec<_>>();
        LeastSquares::new(Tape::record(&[0.0, 0.0], residuals).unwrap()).unwrap()
    };
    let statistics = line(&[(0.0, 0.0), (1.0, 3.0), (2.0, 3.0)]).statistics(&[0.5, 1.5]).unwrap();
    assert_eq!((statistics.sum_of_squares, statistics.degrees_of_freedom), (1.5, 1));
    for (i, j, entry) in [(0, 0, 1.25), (0, 1, -0.75), (1, 0, -0.75), (1, 1, 0.75)] {
        assert!((statistics.covariance[(i, j)] - entry).abs() < 1e-14, "{}", statistics.covariance[(i, j)]);
    }
    assert_eq!(statistics.covariance[(0, 1)], statistics.covariance[(1, 0)]);
    assert!((statistics.standard_errors[0] - 1.25f64.sqrt()).abs() < 1e-14);

    // As many residuals as unknowns, whether they are 0 or not, tell nothing about the errors.
    for x in [[0.0, 3.0], [1.0, 1.0]] {
        let statistics = line(&[(0.0, 0.0), (1.0, 3.0)]).statistics(&x).unwrap();
        assert_eq!(statistics.degrees_of_freedom, 0);
        assert!(statistics.standard_deviation.is_nan());
        assert!(statistics.standard_errors.iter().chain(statistics.covariance.as_slice()).all(|entry| entry.is_nan()));
    }
}

#[test]
fn samples_of_several_residuals() {
    // Three residuals a sample and two unknowns: the rows of the Jacobian are those of the samples, one after the other.
    let residual = Tape::builder().inputs(&[], &[1.0, 1.0]).params(&[], &[1.0]);
    let residual = residual.record(|x, k| [k[0] * x[0], k[0] * x[1], x[0] - x[1]]).unwrap();
    let samples = Samples::from_rows(&residual, &[2.0, 3.0]).unwrap();
    let fit = LeastSquares::over_samples(residual, samples).unwrap();
    let (mut residuals, mut jacobian) = (Vec::new(), ad_core::Matrix::zeros(0, 0));
    fit.residuals_and_jacobian(&[5.0, 7.0], &mut residuals, &mut jacobian).unwrap();
    assert_eq!(residuals, [10.0, 14.0, -2.0, 15.0, 21.0, -2.0]);
    assert_eq!(jacobian.as_slice(), [2.0, 0.0, 0.0, 2.0, 1.0, -1.0, 3.0, 0.0, 0.0, 3.0, 1.0, -1.0]);
}

#[test]
fn methods_report_their_settings() {
    fn settings<M: Method>(method: M) -> Vec<(&'static str, f64)> {
        let mut settings = Vec::new();
        method.report_settings(&mut |name, value| settings.push((name, value)));
        settings
    }
    let levenberg = LevenbergMarquardt::new().damping(0.5).x_tol(0.25).f_tol(0.125);
    assert_eq!(settings(levenberg), [("damping", 0.5), ("x_tol", 0.25), ("f_tol", 0.125)]);
    assert_eq!(settings(GaussNewton::new().x_tol(0.25).f_tol(0.125)), [("x_tol", 0.25), ("f_tol", 0.125)]);
}

#[test]
fn unknowns_are_printed_by_their_names() {
    let line = |names: &[&str]| {
        let tape = Tape::builder().inputs(names, &[0.0, 0.0]);
        let data = [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)];
        LeastSquares::new(tape.record(|b, _| data.map(|(u, y)| b[0] * u + b[1] - y)).unwrap()).unwrap()
    };
    let fit = line(&["slope", "the intercept of the line"]);
    let statistics = fit.statistics(&[2.0, 1.0]).unwrap().to_string();
    assert!(statistics.ends_with("\nslope               2 ± 0\nthe intercept of the line  1 ± 0\n"), "{statistics}");
    let printed = Trainer::new(&fit, LevenbergMarquardt::new(), vec![2.0, 1.0]).max_steps(0).run().unwrap().to_string();
    assert!(printed.contains("\nx              [slope = 2, the intercept of the line = 1]\n"), "{printed}");
    assert!(printed.contains("\nbest x         [slope = 2, the intercept of the line = 1]\n"), "{printed}");

    let nameless = |x: &[ad_core::Var]| [x[0] - 1.0, x[0] + 1.0];
    let fit = LeastSquares::new(Tape::record(&[0.0], nameless).unwrap()).unwrap();
    assert!(fit.statistics(&[0.0]).unwrap().to_string().contains("\nx1                  0 ± "));
    let printed = Trainer::new(&fit, LevenbergMarquardt::new(), vec![0.0]).max_steps(0).run().unwrap().to_string();
    assert!(printed.contains("\nx              [0]\n"), "{printed}");
}
