//! Objectives recorded by ad-core: tapes, and means over samples.
#![allow(clippy::unwrap_used)]

use ad_core::{Retape, Samples, Tape, Var};
use ad_optim::{
    Adam, Batches, Differentiable, EmpiricalRisk, Error, GradientDescent, NonFinite, Outcome, StopReason, Trainer,
};

/// Logistic regression on two features: ln(1 + exp(−label·(θ₁u₁ + θ₂u₂ + θ₃))).
fn logistic(samples: usize) -> EmpiricalRisk {
    let tape = Tape::builder()
        .inputs(&["w1", "w2", "b"], &[0.0; 3])
        .params(&["u1", "u2", "label"], &[0.0, 0.0, 1.0])
        .record(|theta, k| (-k[2] * (theta[0] * k[0] + theta[1] * k[1] + theta[2])).softplus())
        .unwrap();
    let rows: Vec<f64> = (0..samples)
        .flat_map(|i| {
            let t = i as f64;
            let (u1, u2) = ((0.7 * t).sin(), (1.3 * t).cos());
            [u1, u2, if u1 - 0.5 * u2 + 0.4 * (2.9 * t).sin() > 0.1 { 1.0 } else { -1.0 }]
        })
        .collect();
    let samples = Samples::from_rows(&tape, &rows).unwrap();
    EmpiricalRisk::new(tape, samples).unwrap()
}

fn bits(out: &Outcome) -> Vec<u64> {
    let history = out.history.iter().flat_map(|r| [r.value, r.grad_norm, r.rate]);
    let points = out.x.iter().chain(&out.best_x).copied();
    points.chain([out.value, out.best_value, out.grad_norm]).chain(history).map(f64::to_bits).collect()
}

#[test]
fn a_tape_is_minimised() {
    let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[0] + x[1] * x[1] + 6.0).unwrap();
    let out = Trainer::new(&tape, Adam::new(0.1), vec![1.0, 1.0]).max_steps(1000).grad_tol(1e-8).run().unwrap();
    assert_eq!(out.stop, StopReason::GradientNorm);
    assert!((out.value - 6.0).abs() < 1e-15 && out.grad_norm <= 1e-8);
    assert_eq!((out.value, vec![2.0 * out.x[0], 2.0 * out.x[1]]), tape.gradient(&out.x).unwrap());
    // A tape owned, or boxed, is the same objective.
    let boxed: Box<dyn Differentiable> = Box::new(tape);
    let again = Trainer::new(boxed, Adam::new(0.1), vec![1.0, 1.0]).grad_tol(1e-8).run().unwrap();
    assert_eq!(again, out);
}

#[test]
fn a_tape_keeps_its_own_parameters() {
    let tape =
        Tape::builder().inputs(&["x"], &[0.0]).params(&["k"], &[3.0]).record(|x, k| (x[0] - k[0]).powi(2)).unwrap();
    let minimum = |tape: &Tape| {
        let out = Trainer::new(tape, GradientDescent::new(0.5), vec![0.0]).grad_tol(0.0).run();
        out.unwrap().x[0]
    };
    assert_eq!(minimum(&tape), 3.0);
    assert_eq!(minimum(&tape.with_params(&[-4.0]).unwrap()), -4.0);
}

#[test]
fn the_risk_is_the_mean_of_the_samples() {
    let risk = logistic(300);
    let theta = [0.3, -0.2, 0.1];
    let batch: Vec<usize> = (0..300).rev().step_by(3).collect();
    let mut grad = [f64::NAN; 3];
    let value = risk.value_and_gradient(&theta, &batch, &mut grad).unwrap();

    let (mut sum, mut sum_grad) = (0.0, [0.0; 3]);
    for &i in &batch {
        let one = risk.tape().with_params(risk.samples().row(i)).unwrap();
        let (v, g) = one.gradient(&theta).unwrap();
        let mut single = [f64::NAN; 3];
        assert_eq!(risk.value_and_gradient(&theta, &[i], &mut single).unwrap(), v);
        assert_eq!(single[..], g);
        sum += v;
        sum_grad.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
    }
    let n = batch.len() as f64;
    assert!((value - sum / n).abs() < 1e-15);
    assert!(grad.iter().zip(sum_grad).all(|(g, sum)| (g - sum / n).abs() < 1e-15));
}

#[test]
fn the_value_has_the_bits_of_value_and_gradient() {
    for samples in [1, 7, 64, 65, 300, 1000] {
        let risk = logistic(samples);
        let all: Vec<usize> = (0..samples).collect();
        for theta in [[0.3, -0.2, 0.1], [40.0, 7.0, -90.0]] {
            let value = risk.value_and_gradient(&theta, &all, &mut [0.0; 3]).unwrap();
            assert_eq!(risk.value(&theta).unwrap().to_bits(), value.to_bits());
            assert_eq!(risk.value(&theta).unwrap().to_bits(), value.to_bits(), "warm");
        }
    }
    let risk = logistic(3);
    let error = risk.value(&[0.0; 2]).unwrap_err();
    assert!(matches!(error, Error::DimensionMismatch { what: "the point", expected: 3, got: 2 }));
    assert!(risk.value(&[f64::NAN; 3]).unwrap().is_nan());

    let tape = Tape::builder().inputs(&["x"], &[4.0]).params(&["k"], &[1.0]);
    let tape = tape.record(|x, k| if x[0] > 1.0 { x[0] * k[0] } else { -x[0] }).unwrap();
    let samples = Samples::from_rows(&tape, &[1.0, 2.0]).unwrap();
    let risk = EmpiricalRisk::new(tape, samples).unwrap();
    assert!(matches!(risk.value(&[0.5]), Err(Error::Core(ad_core::Error::BranchChanged { .. }))));
    assert_eq!(risk.value(&[2.0]).unwrap(), 3.0, "the error leaves the workspace usable");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let risk = logistic(1000);
    for batches in [Batches::full(), Batches::shuffled(300).seed(5)] {
        let run = |threads| {
            Trainer::new(&risk, Adam::new(0.05), vec![0.0; 3])
                .batches(batches.clone())
                .max_epochs(7)
                .threads(threads)
                .run()
                .unwrap()
        };
        let one = run(1);
        assert!(one.value < 0.6);
        for threads in [2, 3, 4, 8] {
            assert_eq!(bits(&run(threads)), bits(&one), "{threads} threads");
        }
    }
}

#[test]
fn a_risk_may_be_evaluated_from_many_threads() {
    let risk = logistic(200);
    let batch: Vec<usize> = (0..200).collect();
    let evaluate = || {
        let mut grad = [0.0; 3];
        let value = risk.value_and_gradient(&[0.1, 0.2, 0.3], &batch, &mut grad).unwrap();
        (value, grad)
    };
    let reference = evaluate();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!((0..20).all(|_| evaluate() == reference)));
        }
    });
}

#[test]
fn a_spoiled_row_is_named() {
    let tape =
        Tape::builder().inputs(&["x"], &[1.0]).params(&["k"], &[1.0]).record(|x, k| (x[0] - k[0]).powi(2)).unwrap();
    let samples = Samples::from_rows(&tape, &[1.0, 2.0, 3.0, f64::NAN, 5.0, 6.0]).unwrap();
    let risk = EmpiricalRisk::new(tape, samples).unwrap();
    let out = Trainer::new(&risk, GradientDescent::new(0.1), vec![0.0]).batches(Batches::sequential(2)).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 2, sample: Some(3), quantity: NonFinite::Value(_), .. }));
    assert_eq!(
        out.stop.to_string(),
        "the value is NaN in step 2 (epoch 1), sample 3: the data of sample 3 hold NaN at parameter 0; \
         mend them before you try a smaller learning rate"
    );
    assert_eq!(risk.describe_non_finite(&[0.0], 2), None);
    assert_eq!(risk.describe_non_finite(&[0.0], 6), None);
    assert!(out.x[0].is_finite() && out.value.is_finite() && out.best_value.is_finite());
}

#[test]
fn a_changed_branch_is_an_error_and_leaves_the_best_point() {
    // Recorded where x > 1 holds; the minimum of this branch lies where it does not.
    let tape = Tape::record(&[4.0], |x| if x[0] > 1.0 { x[0] * x[0] } else { -x[0] }).unwrap();
    let mut trainer = Trainer::new(&tape, GradientDescent::new(0.25), vec![8.0]);
    let error = trainer.by_ref().find_map(Result::err).unwrap();
    assert!(matches!(error, Error::Core(ad_core::Error::BranchChanged { .. })));
    assert_eq!(trainer.best(), Some((&[2.0][..], 4.0)));
}

#[test]
fn a_function_with_branches_is_minimised_where_its_tape_is_not() {
    // |x − 3| + (y + 1)², with a step that shrinks.
    let f = |x: &[Var]| (if x[0] > 3.0 { x[0] - 3.0 } else { 3.0 - x[0] }) + (x[1] + 1.0).powi(2);
    let tape = Tape::record(&[0.0, 0.0], f).unwrap();
    let stopped = Trainer::new(&tape, GradientDescent::new(0.4), vec![0.0, 0.0]).max_steps(100).run();
    assert!(matches!(stopped, Err(Error::Core(ad_core::Error::BranchChanged { .. }))));

    let retape = Retape::new(&[0.0, 0.0], f).unwrap();
    let out = Trainer::new(&retape, GradientDescent::new(0.4), vec![0.0, 0.0]).max_steps(100).run().unwrap();
    assert!((out.best_x[0] - 3.0).abs() <= 0.4 && (out.best_x[1] + 1.0).abs() < 1e-9, "{out}");
    assert_eq!(retape.stats().recordings, 2);
    let boxed: Box<dyn Differentiable> = Box::new(retape.erased());
    let again = Trainer::new(boxed, GradientDescent::new(0.4), vec![0.0, 0.0]).max_steps(100).run().unwrap();
    assert_eq!(bits(&again), bits(&out));
    let two = Retape::new(&[1.0], |x| [x[0], x[0]]).unwrap();
    assert!(matches!(two.value_and_gradient(&[1.0], &[0], &mut [0.0]), Err(Error::NotScalar { outputs: 2 })));
}

/// The Huber loss of a line, whose branch depends on the sample.
fn huber(theta: &[Var], k: &[Var]) -> Var {
    let r = (theta[0] * k[0] + theta[1] - k[1]).abs();
    if r <= 0.5 { 0.5 * r * r } else { 0.5 * (r - 0.25) }
}

#[test]
fn a_risk_whose_samples_take_several_branches_is_trained() {
    let rows: Vec<f64> = (0..300)
        .flat_map(|i| {
            let u = f64::from(i) / 150.0 - 1.0;
            [u, 2.0 * u + 1.0 + if i % 10 == 0 { 50.0 } else { 0.1 * f64::from(i).sin() }]
        })
        .collect();
    let train = |threads: usize| {
        let loss = Tape::builder().inputs(&[], &[0.0; 2]).params(&[], &[0.0; 2]).retape(huber).unwrap();
        let samples = loss.samples(&rows).unwrap();
        let risk = EmpiricalRisk::new(loss, samples).unwrap();
        let trainer = Trainer::new(&risk, Adam::new(0.05), vec![0.0, 0.0]);
        let out = trainer.batches(Batches::shuffled(150).seed(3)).max_epochs(200).threads(threads).run().unwrap();
        assert!(risk.loss().stats().tapes >= 2, "{}", risk.loss().stats());
        assert_eq!(risk.value(&out.x).unwrap().to_bits(), out.value.to_bits());
        out
    };
    let out = train(1);
    assert!((out.x[0] - 2.0).abs() < 0.2 && (out.x[1] - 1.0).abs() < 0.2, "{out}");
    for threads in [2, 4] {
        assert_eq!(bits(&train(threads)), bits(&out), "{threads} threads");
    }
    let loss = Tape::builder().inputs(&[], &[0.0; 2]).params(&[], &[0.0; 2]).retape(huber).unwrap();
    let other = Tape::builder().inputs(&[], &[0.0]).params(&[], &[0.0]).record(|x, k| x[0] * k[0]).unwrap();
    let samples = Samples::from_rows(&other, &[1.0]).unwrap();
    assert!(matches!(EmpiricalRisk::new(loss, samples), Err(Error::ParameterMismatch { tape: 2, sample: 1 })));
}
