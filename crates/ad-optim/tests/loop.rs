//! What a run can be asked for besides steps: other samples to judge it by, a maximum, a check of its gradient, the row
//! behind a NaN, times.
#![allow(clippy::unwrap_used)]

use ad_core::{Retape, Samples, Tape};
use ad_optim::{
    Adam, Batches, Differentiable, EmpiricalRisk, Error, GaussNewton, GradientDescent, History, LeastSquares,
    LevenbergMarquardt, NonFinite, StopReason, Trainer, check_gradient, from_fn,
};
use std::ops::ControlFlow;
use std::time::Duration;

/// The mean over data k of (x − k)².
struct Spread(Vec<f64>);

impl Differentiable for Spread {
    fn dim(&self) -> usize {
        1
    }

    fn num_samples(&self) -> usize {
        self.0.len()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        let n = batch.len() as f64;
        grad[0] = batch.iter().map(|&i| 2.0 * (x[0] - self.0[i])).sum::<f64>() / n;
        Ok(batch.iter().map(|&i| (x[0] - self.0[i]).powi(2)).sum::<f64>() / n)
    }
}

impl Spread {
    fn mean(&self, x: f64, samples: &[usize]) -> f64 {
        self.value_and_gradient(&[x], samples, &mut [0.0]).unwrap()
    }
}

// Validation.

#[test]
fn held_out_samples_are_in_no_batch() {
    // The held-out ones are far away: one of them in a batch would show.
    let spread = Spread((0..20).map(|i| if i % 3 == 0 { 1e6 } else { f64::from(i) }).collect());
    let held_out: Vec<usize> = (0..20).step_by(3).collect();
    let others: Vec<usize> = (0..20).filter(|i| i % 3 != 0).collect();
    for batches in [Batches::full(), Batches::sequential(4), Batches::shuffled(4).seed(1)] {
        let mut seen = Vec::new();
        let out = Trainer::new(&spread, GradientDescent::new(0.05), vec![0.0])
            .batches(batches.clone())
            .hold_out(held_out.iter().rev().copied().collect())
            .max_epochs(30)
            .observe_point(|step, x| {
                assert!(step.value < 1e3);
                assert_eq!(step.validation.is_some(), step.epoch_mean.is_some());
                if let Some(validation) = step.validation {
                    assert_eq!(validation, spread.mean(x[0], &held_out));
                    seen.push(validation);
                }
                ControlFlow::Continue(())
            })
            .run()
            .unwrap();
        assert_eq!(out.value, spread.mean(out.x[0], &others));
        let validation = out.validation.as_ref().unwrap();
        assert_eq!(validation.value, spread.mean(out.x[0], &held_out));
        assert_eq!(seen.len(), 30);
        assert_eq!(seen, out.history.iter().map(|record| record.validation.unwrap()).collect::<Vec<_>>());
        let best = seen.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!((validation.best_value, seen[validation.best_epoch - 1]), (best, best));
        assert_eq!(spread.mean(validation.best_x[0], &held_out), best);
        // Another objective with the same samples gives the same run.
        let (learned, judged) = (|samples: &[usize]| Spread(samples.iter().map(|&i| spread.0[i]).collect()), &held_out);
        let again = Trainer::new(learned(&others), GradientDescent::new(0.05), vec![0.0])
            .batches(batches)
            .validate(learned(judged))
            .max_epochs(30)
            .run()
            .unwrap();
        assert_eq!(again, out);
    }
    // Nobody else is judged by them.
    let steps = |trainer: Trainer<'_, &Spread, GradientDescent>| {
        let out = trainer.history(History::Steps).max_steps(7).run().unwrap();
        out.history.iter().map(|record| record.validation.is_some()).collect::<Vec<_>>()
    };
    let trainer = || Trainer::new(&spread, GradientDescent::new(0.05), vec![0.0]).batches(Batches::sequential(5));
    assert_eq!(steps(trainer()), [false; 7]);
    assert_eq!(steps(trainer().hold_out(held_out)), [false, false, true, false, false, true, false]);
}

#[test]
fn patience_is_judged_on_validation() {
    // What is learned lies at 1 and its mean falls all the way; what is held out lies at 0.5.
    let spread = Spread(vec![1.0, 1.0, 1.0, 1.0, 0.5]);
    let trainer = || {
        Trainer::new(&spread, GradientDescent::new(0.01), vec![0.0])
            .batches(Batches::sequential(1))
            .patience(2, 0.0)
            .max_epochs(200)
    };
    let out = trainer().hold_out(vec![4]).run().unwrap();
    assert_eq!(out.stop, StopReason::Patience);
    let validation = out.validation.unwrap();
    assert_eq!(out.epochs, validation.best_epoch + 2);
    assert!((validation.best_x[0] - 0.5).abs() < 0.05 && validation.best_value < validation.value);
    assert!(out.history.windows(2).all(|pair| pair[1].value < pair[0].value));
    // Without it the run goes on to where the epoch means end.
    assert!(trainer().run().unwrap().epochs > out.epochs + 20);
}

#[test]
fn validation_that_cannot_be_done() {
    let spread = || Spread(vec![1.0, 2.0, 3.0]);
    let trainer = || Trainer::new(spread(), GradientDescent::new(0.1), vec![0.0]);
    let error = |trainer: Trainer<'_, Spread, GradientDescent>| trainer.run().unwrap_err();
    assert!(matches!(error(trainer().hold_out(vec![])), Error::HeldOut { sample: None, held_out: 0, samples: 3 }));
    assert!(matches!(error(trainer().hold_out(vec![1, 3])), Error::HeldOut { sample: Some(3), samples: 3, .. }));
    let all = error(trainer().hold_out(vec![2, 0, 1, 1]));
    assert!(matches!(all, Error::HeldOut { sample: None, held_out: 3, samples: 3 }), "{all}");
    let two = from_fn(2, |_, _| 0.0);
    assert!(matches!(error(trainer().validate(two)), Error::DimensionMismatch { expected: 1, got: 2, .. }));
    assert!(matches!(error(trainer().validate(Spread(vec![]))), Error::NoSamples));
    let fails = || Tape::record(&[1.0], |x| if x[0] > 0.5 { x[0] } else { -x[0] }).unwrap();
    assert!(matches!(error(trainer().validate(fails())), Error::Core(_)));
    // After the run it is one measurement that failed.
    let out = trainer().validate(fails()).batches(Batches::sequential(1)).max_steps(1).run().unwrap();
    assert!(out.validation.unwrap().value.is_nan());
    // A value that is not finite is no improvement, and no reason to stop at once.
    let nan = from_fn(1, |x, _| if x[0] < 1.0 { x[0] } else { f64::NAN });
    let out = trainer().validate(nan).patience(3, 0.0).run().unwrap();
    assert_eq!(out.stop, StopReason::Patience);
    let validation = out.validation.unwrap();
    assert!(validation.value.is_nan() && validation.best_value < 1.0 && validation.best_x[0] < 1.0);
}

// Maximum.

#[test]
fn a_maximum_is_the_minimum_of_the_negative() {
    let spread = Spread((0..30).map(f64::from).collect());
    struct Negative<'a>(&'a Spread);
    impl Differentiable for Negative<'_> {
        fn dim(&self) -> usize {
            1
        }
        fn num_samples(&self) -> usize {
            self.0.num_samples()
        }
        fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
            let value = self.0.value_and_gradient(x, batch, grad)?;
            grad[0] = -grad[0];
            Ok(-value)
        }
    }
    let other = Spread(vec![3.0, 4.0]);
    for batches in [Batches::full(), Batches::shuffled(7)] {
        let low = Trainer::new(&spread, Adam::new(0.5), vec![0.0])
            .batches(batches.clone())
            .validate(&other)
            .target_value(75.0)
            .max_epochs(99)
            .run()
            .unwrap();
        // The order in which it is asked for plays no part.
        let high = Trainer::new(Negative(&spread), Adam::new(0.5), vec![0.0])
            .validate(Negative(&other))
            .maximise()
            .batches(batches.clone())
            .target_value(-75.0)
            .max_epochs(99);
        let mut bests = Vec::new();
        let high = high.observe(|step| {
            bests.push((step.value, step.epoch_mean, step.validation));
            ControlFlow::Continue(())
        });
        let high = high.run().unwrap();
        assert_eq!((high.x.clone(), high.best_x.clone(), &high.stop), (low.x.clone(), low.best_x.clone(), &low.stop));
        assert_eq!(high.stop, StopReason::TargetValue);
        assert_eq!((high.value, high.best_value, high.grad_norm), (-low.value, -low.best_value, low.grad_norm));
        assert!(high.best_value >= high.value);
        let (up, down) = (high.validation.unwrap(), low.validation.unwrap());
        assert_eq!((up.value, up.best_value, up.best_x), (-down.value, -down.best_value, down.best_x));
        for (up, down) in high.history.iter().zip(&low.history) {
            assert_eq!(
                (up.value, up.grad_norm, up.validation),
                (-down.value, down.grad_norm, down.validation.map(|v| -v))
            );
        }
        assert!(bests.iter().all(|(value, mean, validation)| {
            *value <= 0.0 && mean.is_none_or(|mean| mean <= 0.0) && validation.is_none_or(|value| value <= 0.0)
        }));
    }
}

#[test]
fn a_maximum_that_does_not_exist() {
    let line = from_fn(1, |x, grad| {
        grad[0] = 1e200;
        1e200 * x[0]
    });
    let mut trainer = Trainer::new(&line, GradientDescent::new(1.0), vec![0.0]).maximise().max_steps(9);
    trainer.by_ref().for_each(drop);
    assert_eq!(trainer.best(), Some((&[0.0][..], 0.0)));
    let out = trainer.finish().unwrap();
    assert!(
        matches!(out.stop, StopReason::NonFinite { step: 2, quantity: NonFinite::Value(f64::INFINITY), .. }),
        "{out}"
    );

    let fit = LeastSquares::new(Tape::record(&[1.0], |x| [x[0] - 1.0, x[0]]).unwrap()).unwrap();
    let error = Trainer::new(&fit, LevenbergMarquardt::new(), vec![3.0]).maximise().run().unwrap_err();
    assert!(matches!(error, Error::NotForResiduals { asked: "maximise" }), "{error}");
    // Residuals of all samples, where some are held out, would be those of another function.
    struct Many(LeastSquares);
    impl Differentiable for Many {
        fn dim(&self) -> usize {
            1
        }
        fn num_samples(&self) -> usize {
            2
        }
        fn value_and_gradient(&self, x: &[f64], _batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
            self.0.value_and_gradient(x, &[0], grad)
        }
        fn residuals_and_jacobian(&self, x: &[f64], r: &mut Vec<f64>, j: &mut ad_core::Matrix) -> Result<(), Error> {
            self.0.residuals_and_jacobian(x, r, j)
        }
    }
    let error = Trainer::new(Many(fit), GaussNewton::new(), vec![3.0]).hold_out(vec![1]).run().unwrap_err();
    assert!(matches!(error, Error::NotForResiduals { asked: "hold_out" }), "{error}");
}

// The check of gradients.

fn wrong<F: Fn(&[f64], &mut [f64]) -> f64>(dim: usize, f: F, x: &[f64]) -> Option<(usize, f64, usize)> {
    match check_gradient(&from_fn(dim, f), x) {
        Ok(_) => None,
        Err(Error::WrongGradient { component, quotient, wrong, .. }) => Some((component, quotient, wrong)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn wrong_gradients_are_found() {
    for x in [1e-6, 0.3, 1.0, 77.0, -1e4] {
        // In a sum of 1e8 the digits that a thousandth would need are lost.
        let factors = if x < -1e3 { &[-1.0, 0.0, 0.5, 2.0][..] } else { &[-1.0, 0.0, 0.5, 0.999, 1.001, 2.0] };
        for &factor in factors {
            let f = |x: &[f64], grad: &mut [f64]| {
                grad[0] = 2.0 * x[0];
                grad[1] = factor * x[1].exp();
                x[0] * x[0] + x[1].exp()
            };
            let Some((component, quotient, count)) = wrong(2, f, &[x, 0.7]) else { panic!("{x} {factor}") };
            assert_eq!((component, count), (1, 1), "{x} {factor}");
            assert!((quotient - 0.7_f64.exp()).abs() < 1e-4, "{quotient}");
        }
    }
    // The worst of several.
    let f = |x: &[f64], grad: &mut [f64]| {
        grad.iter_mut().zip(x).enumerate().for_each(|(i, (g, x))| *g = 2.0 * x + 0.1 * i as f64);
        x.iter().map(|x| x * x).sum()
    };
    let (component, _, count) = wrong(5, f, &[1.0; 5]).unwrap();
    assert_eq!((component, count), (4, 4));
}

#[test]
fn right_gradients_pass() {
    // Functions whose quotients are poor: steep, flat, huge, tiny, with kinks at x or beside it, with poles nearby.
    type Function = fn(f64) -> (f64, f64);
    let cases: [(Function, &[f64]); 12] = [
        (|x| (x.abs(), x.signum()), &[0.0, 1e-9, -1e-5, 2.0]),
        (|x| (x.abs(), 0.0), &[0.0]),
        (|x| (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }), &[0.0, 1e-7, -1e-7, 1e-12]),
        (|x| (x.sqrt(), 0.5 / x.sqrt()), &[1e-12, 1e-4, 1.0, 1e12]),
        (|x| (x.ln(), 1.0 / x), &[1e-8, 1e-3, 5.0]),
        (|x| ((1e5 * x).sin(), 1e5 * (1e5 * x).cos()), &[0.1, 0.3, 3.0]),
        (|x| (1e12 + x, 1.0), &[1.0, 2.0]),
        (|x| (1e-200 * x, 1e-200), &[1.0]),
        (|x| (x.powi(9), 9.0 * x.powi(8)), &[0.0, 1e-3, 10.0, 1e10]),
        (|x| ((x * 1000.0).floor() / 1000.0, 0.0), &[0.5, 0.1234567]),
        (|x| (x.cbrt(), f64::INFINITY), &[0.0]),
        (|x| (1.0 / x, -1.0 / (x * x)), &[1e-5, 1e-2, 1e5]),
    ];
    for (number, (f, points)) in cases.into_iter().enumerate() {
        for &x in points {
            let found = wrong(
                1,
                |x, grad| {
                    let (value, slope) = f(x[0]);
                    grad[0] = slope;
                    value
                },
                &[x],
            );
            assert_eq!(found, None, "case {number} at {x}");
        }
    }
    // Values computed in 32 bits.
    for i in 1..200 {
        let coarse = |x: &[f64], grad: &mut [f64]| {
            grad[0] = x[0].cos() * 1e-3;
            f64::from((x[0].sin() * 1e-3 + 1.0) as f32)
        };
        assert_eq!(wrong(1, coarse, &[f64::from(i) * 0.01]), None);
    }
    // A tape that is another function on the other side.
    let tape = Tape::record(&[1.0], |x| if x[0] >= 1.0 { x[0] * x[0] } else { -x[0] }).unwrap();
    assert!(check_gradient(&tape, &[1.0]).is_ok());
    let boxed: Box<dyn Differentiable> = Box::new(tape);
    assert!(check_gradient(&*boxed, &[1.5]).is_ok());
    assert!(matches!(check_gradient(&boxed, &[1.5, 2.0]), Err(Error::DimensionMismatch { expected: 1, got: 2, .. })));
    assert!(matches!(check_gradient(&boxed, &[0.0]), Err(Error::Core(_))));
}

#[test]
fn a_wrong_component_among_many() {
    use std::cell::Cell;
    let evaluations = Cell::new(0);
    for (bad, dim) in [(0, 5000), (4321, 5000), (99, 100), (100, 101)] {
        evaluations.set(0);
        let f = |x: &[f64], grad: &mut [f64]| {
            evaluations.set(evaluations.get() + 1);
            grad.iter_mut().zip(x).for_each(|(g, x)| *g = x.cos());
            grad[bad] *= 0.5;
            x.iter().map(|x| x.sin()).sum()
        };
        let x: Vec<f64> = (0..dim).map(|i| (i as f64 * 0.01).sin()).collect();
        let (component, quotient, count) = wrong(dim, f, &x).unwrap();
        assert_eq!((component, count), (bad, 1));
        assert!((quotient - x[bad].cos()).abs() < 1e-4);
        assert!(evaluations.get() < 700, "{} for {dim}", evaluations.get());
    }
}

#[test]
fn a_run_checks_its_gradient_once_and_is_not_changed_by_it() {
    let spread = Spread((0..300).map(f64::from).collect());
    let trainer = || Trainer::new(&spread, Adam::new(0.1), vec![5.0]).batches(Batches::shuffled(9)).max_steps(20);
    assert_eq!(trainer().check_gradient().run().unwrap(), trainer().run().unwrap());

    struct Named;
    impl Differentiable for Named {
        fn dim(&self) -> usize {
            2
        }
        fn value_and_gradient(&self, x: &[f64], _: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
            grad.copy_from_slice(&[2.0 * x[0], x[1]]);
            Ok(x[0] * x[0] + x[1] * x[1])
        }
        fn names(&self) -> Vec<String> {
            vec!["slope".to_owned(), "shift".to_owned()]
        }
    }
    let mut trainer = Trainer::new(Named, Adam::new(0.1), vec![1.0, 2.0]).check_gradient();
    let error = trainer.next().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the gradient is wrong: component 1 (shift) is 2, but difference quotients give 4; \
         of 2 components that could be checked 1 differed, this one the most"
    );
    assert!(trainer.next().is_none());
    // A maximum is looked for by the gradient as the user gave it.
    let error = Trainer::new(Named, Adam::new(0.1), vec![1.0, 2.0]).maximise().check_gradient().run().unwrap_err();
    assert!(matches!(error, Error::WrongGradient { component: 1, gradient: 2.0, .. }));
    // A start that is not finite is told as such.
    let nan = from_fn(1, |_, grad| {
        grad[0] = 0.0;
        f64::NAN
    });
    let out = Trainer::new(&nan, Adam::new(0.1), vec![3.0]).check_gradient().run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 1, .. }));
}

// The row behind a NaN.

#[test]
fn a_nan_is_told_with_its_row_operands_and_line() {
    let tape = Tape::builder().inputs(&["rate"], &[2.0]).record(|x, _| (x[0] - 0.5).ln() + x[0]).unwrap();
    let line = line!() - 1;
    let out = Trainer::new(&tape, GradientDescent::new(0.6), vec![1.0]).max_steps(9).run().unwrap();
    let StopReason::NonFinite { step, sample: None, .. } = out.stop else { panic!("{out}") };
    let text = out.stop.to_string();
    let place = format!("{}:{line}", file!());
    let begin = format!("the value is NaN in step {step} (epoch {step}): v₂ = ln(v₁) is NaN at {place}");
    assert!(text.starts_with(&format!("{begin}: ln is defined for x > 0; −inf at 0; with v₁ = -")), "{text}");
    assert!(text.ends_with(&format!(" at {place}")), "{text}");
    assert!(!text.contains('\n'));

    // The same of a function that is recorded again, and of a sample.
    let retape = Retape::new(&[2.0], |x| if x[0] > 5.0 { x[0] } else { (x[0] - 0.5).ln() + x[0] }).unwrap();
    let again = Trainer::new(&retape, GradientDescent::new(0.6), vec![1.0]).max_steps(9).run().unwrap();
    assert!(again.stop.to_string().contains("ln(v₁) is NaN at "), "{}", again.stop);
    let loss = Tape::builder()
        .inputs(&["theta"], &[1.0])
        .params(&["u"], &[1.0])
        .record(|theta, k| (theta[0] * k[0]).sqrt())
        .unwrap();
    let line = line!() - 2;
    let samples = Samples::from_rows(&loss, &[1.0, 4.0, -9.0, 16.0]).unwrap();
    let risk = EmpiricalRisk::new(loss, samples).unwrap();
    let out = Trainer::new(&risk, GradientDescent::new(0.1), vec![1.0]).batches(Batches::sequential(2)).run().unwrap();
    let theta = 1.0 - 0.1 * ((0.5 + 1.0) / 2.0);
    assert_eq!(
        out.stop.to_string(),
        format!(
            "the value is NaN in step 2 (epoch 1), sample 2: v₂ = sqrt(v₁) is NaN at {0}:{line}: \
             sqrt is defined for x ≥ 0; with v₁ = {1:?} at {0}:{line}",
            file!(),
            theta * -9.0
        )
    );
    // A gradient that is not finite, of a value that is.
    let root = Tape::record(&[4.0], |x| x[0].sqrt()).unwrap();
    let out = Trainer::new(&root, GradientDescent::new(1.0), vec![0.0]).run().unwrap();
    let text = out.stop.to_string();
    assert!(text.starts_with("component 0 of the gradient is inf in step 1 (epoch 1): "), "{text}");
    assert!(
        text.contains("v₁ = sqrt(v₀)") && text.contains("∂v₁/∂v₀ is inf here") && text.contains("loop.rs:"),
        "{text}"
    );
    // And of a residual.
    let residuals = Tape::record(&[4.0], |x| [x[0], x[0].ln()]).unwrap();
    let out = Trainer::new(LeastSquares::new(residuals).unwrap(), LevenbergMarquardt::new(), vec![-1.0]).run().unwrap();
    let text = out.stop.to_string();
    assert!(text.contains("residual 1 is NaN, since v₁ = ln(v₀) is NaN at ") && text.contains("loop.rs:"), "{text}");
}

// Times and tables.

#[test]
fn steps_and_epochs_take_time() {
    struct Slow;
    impl Differentiable for Slow {
        fn dim(&self) -> usize {
            1
        }
        fn num_samples(&self) -> usize {
            3
        }
        fn value_and_gradient(&self, x: &[f64], _: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
            std::thread::sleep(Duration::from_millis(2));
            grad[0] = x[0];
            Ok(0.5 * x[0] * x[0])
        }
    }
    let run = |history| {
        let mut steps = Vec::new();
        let out = Trainer::new(Slow, GradientDescent::new(0.1), vec![1.0])
            .batches(Batches::sequential(1))
            .max_steps(7)
            .history(history)
            .observe(|step| {
                steps.push(step.time);
                std::thread::sleep(Duration::from_millis(20));
                ControlFlow::Continue(())
            })
            .run()
            .unwrap();
        (out, steps)
    };
    let (out, steps) = run(History::Steps);
    assert!(steps.iter().all(|time| *time >= Duration::from_millis(2)));
    assert_eq!(out.history.iter().map(|record| record.time).collect::<Vec<_>>(), steps);
    assert!(out.time >= steps.iter().sum::<Duration>() + Duration::from_millis(140), "observers are part of the run");
    let (out, steps) = run(History::Epochs);
    assert_eq!(out.history.len(), 3);
    for (record, steps) in out.history.iter().zip(steps.chunks(3)) {
        let sum: Duration = steps.iter().sum();
        assert_eq!(record.time, sum);
    }
    // Two runs are equal if they computed the same.
    let (again, _) = run(History::Epochs);
    assert!(again == out && again.time != out.time);
}

#[test]
fn an_outcome_prints_validation_and_times() {
    let spread = Spread(vec![1.0, 1.0, 0.5]);
    let trainer = || Trainer::new(&spread, GradientDescent::new(0.25), vec![0.0]).max_steps(3).hold_out(vec![2]);
    let out = trainer().run().unwrap();
    insta::assert_snapshot!(out, @r"
    stopped        at the step limit
    steps          3
    epochs         3
    evaluations    4
    value          0.015625
    gradient norm  0.25
    x              [0.875]
    best value     0.015625
    best x         [0.875]
    validation     0.140625
      best value   0 after epoch 1
      best x       [0.5]

    value and gradient norm are those before the step:
    epoch  step   value  gradient norm  rate  validation
        1     1       1              2  0.25           0
        2     2    0.25              1  0.25      0.0625
        3     3  0.0625            0.5  0.25    0.140625
    ");
    let timed = format!("{out:#}");
    assert!(timed.contains("\ntime           "), "{timed}");
    assert!(timed.lines().last().unwrap().ends_with('s'), "{timed}");
}

#[test]
fn a_gradient_that_is_added_to_is_wrong() {
    let adds = from_fn(1, |x, grad| {
        grad[0] += 2.0 * x[0];
        x[0] * x[0]
    });
    let error = check_gradient(&adds, &[3.0]).unwrap_err();
    assert!(error.to_string().ends_with("does the objective overwrite every component of the gradient?"), "{error}");
    // An infinite slope may be right, and where the value is not finite nothing is known.
    let root = from_fn(1, |x, grad| {
        grad[0] = 0.5 / x[0].sqrt();
        x[0].sqrt()
    });
    for x in [0.0, -1.0] {
        let found = check_gradient(&root, &[x]).unwrap();
        assert_eq!((found.agreed, found.not_checked), (0, 1));
    }
}

#[test]
fn a_kink_hides_only_gradients_near_its_slopes() {
    let check = |gradient: f64| {
        let f = from_fn(1, move |x, grad| {
            grad[0] = gradient;
            x[0].abs()
        });
        check_gradient(&f, &[0.0])
    };
    for near in [-1.0, 0.0, 1.0, 3.0, -9.9] {
        // The slope of the quotients at 0 is 0, with which one of them agrees.
        let agreed = usize::from(near == 0.0);
        let found = check(near).unwrap();
        assert_eq!((found.agreed, found.not_checked), (agreed, 1 - agreed), "{near}");
    }
    for far in [17.0, -17.0] {
        assert!(matches!(check(far), Err(Error::WrongGradient { component: 0, wrong: 1, .. })), "{far}");
    }
}
