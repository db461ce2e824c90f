//! The training loop: when it stops, what it keeps, and that nothing but its settings decides.
#![allow(clippy::unwrap_used)]

use ad_optim::{
    Adam, Batches, DEFAULT_MAX_STEPS, Differentiable, Error, GradientDescent, History, Iterate, NonFinite, Outcome,
    Rule, Step, StopReason, Trainer, Update, from_fn,
};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// x², whose gradient steps of rate 1/4 halve x.
fn square(x: &[f64], grad: &mut [f64]) -> f64 {
    grad[0] = 2.0 * x[0];
    x[0] * x[0]
}

/// The mean over data k of (x − k)²; `evaluate` may spoil single samples.
struct Spread {
    data: Vec<f64>,
    spoil: fn(sample: usize, x: f64, term: f64) -> f64,
}

impl Spread {
    fn new(data: impl IntoIterator<Item = f64>) -> Self {
        Spread { data: data.into_iter().collect(), spoil: |_, _, term| term }
    }

    fn value(&self, x: f64) -> f64 {
        let all: Vec<usize> = (0..self.data.len()).collect();
        self.value_and_gradient(&[x], &all, &mut [0.0]).unwrap()
    }
}

impl Differentiable for Spread {
    fn dim(&self) -> usize {
        1
    }

    fn num_samples(&self) -> usize {
        self.data.len()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        let (mut value, n) = (0.0, batch.len() as f64);
        grad[0] = 0.0;
        for &i in batch {
            let difference = x[0] - self.data[i];
            grad[0] += 2.0 * difference / n;
            value += (self.spoil)(i, x[0], difference * difference) / n;
        }
        Ok(value)
    }

    fn describe_non_finite(&self, _x: &[f64], sample: usize) -> Option<String> {
        Some(format!("datum {}", self.data[sample]))
    }
}

/// Gradient descent that jumps away in one of its steps.
struct Jump {
    at_step: usize,
    by: f64,
}

impl Rule for Jump {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        Ok(())
    }

    fn step(&self, _state: &mut (), at: &Iterate<'_>, update: &mut Update<'_>) {
        assert_eq!(at.gradient, update.delta);
        let jump = if at.step == self.at_step { self.by } else { 0.0 };
        update.delta[0] = 0.25 * update.delta[0] - jump;
        update.rate *= 0.25;
    }
}

fn bits(out: &Outcome) -> Vec<u64> {
    let history = out.history.iter().flat_map(|r| [r.value, r.grad_norm, r.rate]);
    let points = out.x.iter().chain(&out.best_x).copied();
    points.chain([out.value, out.best_value, out.grad_norm]).chain(history).map(f64::to_bits).collect()
}

#[test]
fn stops_at_the_step_limit() {
    let out = Trainer::new(from_fn(1, square), GradientDescent::new(0.25), vec![8.0]).max_steps(3).run().unwrap();
    assert_eq!(out.stop, StopReason::MaxSteps);
    assert_eq!((out.steps, out.epochs, out.evaluations), (3, 3, 4));
    assert_eq!((&out.x[..], out.value, out.grad_norm), (&[1.0][..], 1.0, 2.0));
    assert_eq!((&out.best_x[..], out.best_value), (&[1.0][..], 1.0));
}

#[test]
fn no_steps_measure_the_start() {
    for batches in [Batches::full(), Batches::shuffled(2)] {
        let out = Trainer::new(Spread::new([1.0, 3.0, 5.0]), Adam::new(0.1), vec![3.0])
            .batches(batches)
            .max_steps(0)
            .run()
            .unwrap();
        assert_eq!((out.steps, out.epochs, out.evaluations), (0, 0, 1));
        assert_eq!((out.value, out.best_value, out.grad_norm), (8.0 / 3.0, 8.0 / 3.0, 0.0));
        assert!(out.history.is_empty());
    }
}

#[test]
fn stops_at_the_epoch_limit() {
    let trainer = || {
        Trainer::new(Spread::new([1.0, 3.0, 5.0]), GradientDescent::new(0.1), vec![0.0])
            .batches(Batches::sequential(2))
            .max_epochs(4)
    };
    let out = trainer().run().unwrap();
    assert_eq!(out.stop, StopReason::MaxEpochs);
    assert_eq!((out.steps, out.epochs, out.history.len()), (8, 4, 4));
    let out = trainer().batches(Batches::sequential(2).drop_last(true)).run().unwrap();
    assert_eq!((out.steps, out.epochs, out.history[0].samples), (4, 4, 2));
    let out = trainer().batches(Batches::full()).run().unwrap();
    assert_eq!((out.steps, out.epochs), (4, 4));
}

#[test]
fn stops_where_the_gradient_is_small() {
    let trainer = || Trainer::new(from_fn(1, square), GradientDescent::new(0.25), vec![8.0]);
    let out = trainer().grad_tol(0.5).run().unwrap();
    assert_eq!((out.stop, out.steps, out.grad_norm), (StopReason::GradientNorm, 5, 0.5));
    // At the step limit a goal that is reached is what the reader wants to know.
    let out = trainer().grad_tol(0.5).max_steps(5).run().unwrap();
    assert_eq!(out.stop, StopReason::GradientNorm);
    let out = trainer().grad_tol(16.0).run().unwrap();
    assert_eq!((out.stop, out.steps, out.evaluations), (StopReason::GradientNorm, 0, 1));
}

#[test]
fn stops_at_the_target_value() {
    let out = Trainer::new(from_fn(1, square), GradientDescent::new(0.25), vec![8.0]).target_value(4.0).run().unwrap();
    assert_eq!((out.stop, out.steps, out.value), (StopReason::TargetValue, 2, 4.0));
}

#[test]
fn goals_of_minibatch_runs_hold_on_all_samples() {
    let spread = Spread::new((0..50).map(f64::from));
    let run = |trainer: Trainer<'_, &Spread, GradientDescent>| {
        trainer.batches(Batches::shuffled(7).seed(1)).max_epochs(1000).run().unwrap()
    };
    let trainer = || Trainer::new(&spread, GradientDescent::new(1e-3), vec![0.0]);
    let out = run(trainer().target_value(215.0));
    assert_eq!(out.stop, StopReason::TargetValue);
    assert!(out.value <= 215.0 && out.value == spread.value(out.x[0]));
    let out = run(trainer().grad_tol(1.0));
    assert_eq!(out.stop, StopReason::GradientNorm);
    assert!(out.grad_norm <= 1.0);
    assert_eq!(out.steps % 8, 0, "judged at the end of an epoch");
}

#[test]
fn stops_when_epoch_means_no_longer_improve() {
    // With rate 1 the point only changes its sign, and the value stays.
    let out = Trainer::new(from_fn(1, square), GradientDescent::new(1.0), vec![1.0]).patience(3, 0.0).run().unwrap();
    let words = "for as many epochs as patience allows, no mean improved by more than min_delta";
    assert_eq!(out.stop.to_string(), words);
    assert_eq!((out.stop, out.steps), (StopReason::Patience, 4));

    // Single batches go up and down within an epoch; the means fall all the time.
    let spread = Spread::new([-9.0, 9.0, -9.0, 9.0]);
    let trainer =
        || Trainer::new(&spread, GradientDescent::new(1e-3), vec![20.0]).batches(Batches::sequential(1)).max_epochs(60);
    let out = trainer().patience(1, 0.0).run().unwrap();
    assert_eq!(out.stop, StopReason::MaxEpochs);
    assert!(out.history.windows(2).all(|pair| pair[1].value < pair[0].value));
    // An improvement must exceed the least one asked for; two epochs may add up to it.
    let out = trainer().patience(2, 6.0).run().unwrap();
    assert_eq!(out.stop, StopReason::Patience);
    let means: Vec<f64> = out.history.iter().map(|record| record.value).collect();
    let [.., level, first, second] = means[..] else { panic!("{means:?}") };
    assert!(first >= level - 6.0 && second >= level - 6.0);
}

#[test]
fn stops_at_the_max_time() {
    let trainer = || Trainer::new(from_fn(1, square), GradientDescent::new(1e-9), vec![1.0]);
    let out = trainer().max_time(Duration::ZERO).run().unwrap();
    assert_eq!((out.stop, out.steps), (StopReason::MaxTime, 0));
    let out = trainer().max_time(Duration::from_millis(20)).history(History::Off).run().unwrap();
    assert_eq!(out.stop, StopReason::MaxTime);
    assert!(out.steps > 0);
}

#[test]
fn stops_when_an_observer_says_so() {
    let (first, second) = (Cell::new(0), Cell::new(0));
    let mut points = Vec::new();
    let out = Trainer::new(from_fn(1, square), GradientDescent::new(0.25), vec![8.0])
        .observe(|step| {
            first.set(step.step);
            if step.value < 5.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .observe(|step| {
            second.set(step.step);
            ControlFlow::Continue(())
        })
        .observe_point(|_, x| {
            points.push(x[0]);
            ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    assert_eq!((out.stop, out.steps, out.value), (StopReason::Observer, 3, 1.0));
    assert_eq!((first.get(), second.get()), (3, 3), "every observer sees every step");
    assert_eq!(points, [4.0, 2.0, 1.0]);
}

#[test]
fn a_run_without_limits_ends() {
    let trainer = || Trainer::new(from_fn(1, square), GradientDescent::new(1e-9), vec![1.0]);
    for trainer in [trainer(), trainer().grad_tol(1e-8), trainer().patience(5000, 0.0)] {
        let out = trainer.run().unwrap();
        let words = "stopped        at the default limit of 1000 steps; set max_steps or max_epochs\n";
        assert!(out.to_string().starts_with(words), "{out}");
        assert_eq!((out.stop, out.steps), (StopReason::MaxSteps, DEFAULT_MAX_STEPS));
    }
    // The same number asked for is not the default.
    let out = trainer().max_steps(DEFAULT_MAX_STEPS).run().unwrap();
    assert!(out.to_string().starts_with("stopped        at the step limit\n"), "{out}");
    // Any limit of the user's takes the place of the default one.
    let out = trainer().max_epochs(1500).run().unwrap();
    assert_eq!((out.stop, out.steps), (StopReason::MaxEpochs, 1500));
}

#[test]
fn a_non_finite_value_keeps_the_best_point() {
    let cliff = from_fn(1, |x, grad| {
        let value = square(x, grad);
        if x[0] < 1.5 { f64::NAN } else { value }
    });
    let out = Trainer::new(&cliff, GradientDescent::new(0.25), vec![8.0]).max_steps(100).run().unwrap();
    let StopReason::NonFinite { step, epoch, sample, quantity, .. } = out.stop else { panic!("{}", out.stop) };
    assert_eq!((step, epoch, sample), (4, 4, None));
    assert!(matches!(quantity, NonFinite::Value(v) if v.is_nan()));
    assert_eq!((out.steps, &out.x[..], out.value, out.grad_norm), (3, &[2.0][..], 4.0, 4.0));
    assert_eq!((&out.best_x[..], out.best_value), (&[2.0][..], 4.0));

    // The same at the step limit: the last point is not left unmeasured.
    let out = Trainer::new(&cliff, GradientDescent::new(0.25), vec![8.0]).max_steps(3).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 4, .. }));
    assert_eq!((out.steps, &out.x[..]), (3, &[2.0][..]));
}

#[test]
fn the_best_point_is_not_the_last_one() {
    let rule = Jump { at_step: 3, by: 100.0 };
    let out = Trainer::new(from_fn(1, square), rule, vec![8.0]).max_steps(4).run().unwrap();
    assert_eq!((&out.best_x[..], out.best_value), (&[2.0][..], 4.0));
    assert_eq!((&out.x[..], out.value), (&[50.5][..], 50.5 * 50.5));
    // It is kept, too, where the run blows up on the way.
    let rule = Jump { at_step: 3, by: 1e200 };
    let out = Trainer::new(from_fn(1, square), rule, vec![8.0]).max_steps(4).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 4, quantity: NonFinite::Value(f64::INFINITY), .. }));
    assert_eq!((&out.best_x[..], out.best_value), (&[2.0][..], 4.0));
}

#[test]
fn of_equal_values_the_best_point_has_the_smaller_gradient_then_is_the_later() {
    // Once x² is below half a unit in the last place of 6 the value has bottomed out, but the point goes on.
    let bowl = |x: &[f64], grad: &mut [f64]| square(x, grad) + 6.0;
    let trainer = || Trainer::new(from_fn(1, bowl), GradientDescent::new(0.1), vec![1.0]);
    let out = trainer().grad_tol(1e-12).run().unwrap();
    assert!(out.value == 6.0 && out.history[out.steps - 20].value == 6.0);
    assert_eq!((out.best_x, out.best_value), (out.x, 6.0));
    // The last point is no better where a jump has left the minimum by less than the value shows.
    let out = Trainer::new(from_fn(1, bowl), Jump { at_step: 60, by: 1e-9 }, vec![1.0]).max_steps(60).run().unwrap();
    assert_eq!((out.value, out.best_value), (6.0, 6.0));
    assert!(out.x[0] > 0.9e-9 && out.best_x[0] < 1e-15);
    // With rate 1 the point only changes its sign: value and gradient norm are always the same.
    let out = Trainer::new(from_fn(1, square), GradientDescent::new(1.0), vec![1.0]).max_steps(3).run().unwrap();
    assert_eq!((&out.x[..], &out.best_x[..]), (&[-1.0][..], &[-1.0][..]));
    // Nor does a minibatch run that came to nothing fall back to an equal start.
    let spread = Spread::new([0.0, 0.0]);
    let out = Trainer::new(&spread, GradientDescent::new(1.0), vec![1.0])
        .batches(Batches::sequential(1))
        .max_steps(3)
        .run()
        .unwrap();
    assert_eq!((&out.x[..], &out.best_x[..]), (&[-1.0][..], &[-1.0][..]));
}

#[test]
fn a_non_finite_gradient_or_point_ends_the_run() {
    let kink = from_fn(2, |x, grad| {
        grad[0] = 1.0;
        grad[1] = if x[0] < 0.0 { f64::NEG_INFINITY } else { 0.0 };
        x[0]
    });
    let out = Trainer::new(&kink, GradientDescent::new(1.0), vec![0.5, 7.0]).max_steps(9).run().unwrap();
    let gradient = NonFinite::Gradient { index: 1, value: f64::NEG_INFINITY };
    assert!(matches!(out.stop, StopReason::NonFinite { step: 2, quantity, .. } if quantity == gradient));
    assert_eq!((out.steps, &out.x[..]), (1, &[0.5, 7.0][..]));

    let steep = from_fn(1, |_, grad| {
        grad[0] = 1e300;
        1.0
    });
    let out = Trainer::new(&steep, GradientDescent::new(1e10), vec![0.0]).run().unwrap();
    let point = NonFinite::Point { index: 0, value: f64::NEG_INFINITY };
    assert!(matches!(out.stop, StopReason::NonFinite { step: 1, quantity, .. } if quantity == point));
    assert_eq!((out.steps, &out.x[..], out.value, out.grad_norm), (0, &[0.0][..], 1.0, 1e300));

    // The running mean of squares overflows, which would freeze the component without a word.
    let out = Trainer::new(&steep, Adam::new(0.1), vec![0.0]).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 1, quantity: NonFinite::Point { index: 0, .. }, .. }));
}

#[test]
fn a_non_finite_start_is_told_as_it_is() {
    let nan = from_fn(1, |_, grad| {
        grad[0] = 0.0;
        f64::NAN
    });
    for batches in [Batches::full(), Batches::shuffled(1)] {
        let out = Trainer::new(&nan, Adam::new(0.1), vec![3.0]).batches(batches).run().unwrap();
        assert!(matches!(out.stop, StopReason::NonFinite { step: 1, epoch: 1, .. }));
        assert_eq!((out.steps, &out.x[..], &out.best_x[..]), (0, &[3.0][..], &[3.0][..]));
        assert!(out.value.is_nan() && out.best_value.is_nan());
    }
}

#[test]
fn a_gradient_that_is_added_to_is_found_in_the_first_step() {
    let adds = from_fn(1, |x, grad| {
        grad[0] += 2.0 * x[0];
        x[0] * x[0]
    });
    let out = Trainer::new(&adds, Adam::new(0.1), vec![3.0]).run().unwrap();
    assert_eq!(
        out.stop.to_string(),
        "component 0 of the gradient is NaN in step 1 (epoch 1); \
         does the objective overwrite every component of the gradient?"
    );
}

#[test]
fn a_non_finite_minibatch_names_its_sample() {
    let mut spread = Spread::new((0..8).map(f64::from));
    spread.spoil = |sample, _, term| if sample == 5 { f64::NAN } else { term };
    let trainer = || Trainer::new(&spread, GradientDescent::new(0.25), vec![0.0]).max_epochs(5);
    let out = trainer().batches(Batches::sequential(3)).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 2, epoch: 1, sample: Some(5), .. }));
    assert_eq!(out.stop.to_string(), "the value is NaN in step 2 (epoch 1), sample 5: datum 5");
    // No mean over all samples exists anywhere, so the last batch that had one speaks.
    assert_eq!(out.evaluations, 4, "two steps, the last point, the start");
    let first_batch = (1.0 + 4.0) / 3.0;
    assert_eq!((out.steps, &out.x[..], &out.best_x[..]), (1, &[0.0][..], &[0.0][..]));
    assert!((out.value - first_batch).abs() < 1e-15 && out.best_value == out.value);

    let out = trainer().batches(Batches::full()).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 1, sample: Some(5), .. }));
}

#[test]
fn a_minibatch_run_that_blows_up_keeps_the_best_epoch() {
    let spread = Spread::new([-1.0, 1.0]);
    let rule = Jump { at_step: 5, by: 1e200 };
    let out = Trainer::new(&spread, rule, vec![8.0]).batches(Batches::sequential(1)).max_epochs(9).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 6, epoch: 3, .. }));
    // 8 → 3.5 → 2.25, 0.625 → 0.8125: the end of the second epoch.
    assert_eq!((&out.best_x[..], out.best_value), (&[0.8125][..], spread.value(0.8125)));
    assert_eq!((&out.x[..], out.value), (&[0.8125][..], spread.value(0.8125)));
}

#[test]
fn the_best_point_of_minibatches_is_measured_on_all_samples() {
    let spread = Spread::new((0..40).map(f64::from));
    for (at_step, by) in [(31, 50.0), (1000, 0.0)] {
        let out = Trainer::new(&spread, Jump { at_step, by }, vec![100.0])
            .batches(Batches::shuffled(6).seed(4))
            .max_steps(32)
            .run()
            .unwrap();
        assert_eq!(out.value, spread.value(out.x[0]));
        assert_eq!(out.best_value, spread.value(out.best_x[0]));
        assert!(out.best_value <= out.value);
        assert_eq!((out.steps, out.epochs), (32, 4));
    }
    // An epoch of bad means does not take the place of a good one before it.
    let mut trainer = Trainer::new(&spread, Jump { at_step: 15, by: 50.0 }, vec![100.0])
        .batches(Batches::sequential(6))
        .max_epochs(3);
    trainer.by_ref().take(14).for_each(drop);
    let (second, mean) = (trainer.x().to_vec(), trainer.best().unwrap().1);
    let last = trainer.by_ref().last().unwrap().unwrap();
    assert!(last.epoch == 3 && last.epoch_mean.unwrap() > mean);
    assert_eq!(trainer.best(), Some((&second[..], mean)));
    let out = trainer.finish().unwrap();
    let last_value = spread.value(out.x[0]);
    assert_eq!(out.best_value, last_value.min(spread.value(second[0])));
    // A run that only ever got worse still knows where it started.
    let out = Trainer::new(&spread, GradientDescent::new(1.5), vec![19.0])
        .batches(Batches::shuffled(6))
        .max_epochs(2)
        .run()
        .unwrap();
    assert_eq!((&out.best_x[..], out.best_value), (&[19.0][..], spread.value(19.0)));
    assert!(out.value > out.best_value);
}

#[test]
fn the_last_batch_may_hold_all_samples_in_another_order() {
    let spread = Spread::new((0..5).map(f64::from));
    let out = Trainer::new(&spread, GradientDescent::new(0.1), vec![9.0])
        .batches(Batches::shuffled(5))
        .max_epochs(10)
        .run()
        .unwrap();
    assert_eq!((out.steps, out.epochs, out.evaluations), (10, 10, 11));
    assert_eq!(out.value, spread.value(out.x[0]));
}

#[test]
fn the_history_is_what_was_asked_for() {
    let spread = Spread::new((0..10).map(f64::from));
    let run = |history| {
        let mut steps = Vec::new();
        let out = Trainer::new(&spread, GradientDescent::new(0.01), vec![100.0])
            .batches(Batches::shuffled(4))
            .max_steps(8)
            .history(history)
            .observe(|step| {
                steps.push(*step);
                ControlFlow::Continue(())
            })
            .run()
            .unwrap();
        (out, steps)
    };
    let (out, _) = run(History::Off);
    assert!(out.history.is_empty());

    let (out, steps) = run(History::Steps);
    assert_eq!(out.history.len(), 8);
    for (record, step) in out.history.iter().zip(&steps) {
        assert_eq!(
            (record.step, record.epoch, record.samples, record.value, record.grad_norm, record.rate),
            (step.step, step.epoch, step.samples, step.value, step.grad_norm, step.rate),
        );
    }

    // Two epochs of three batches, and two thirds of the next.
    let (out, steps) = run(History::Epochs);
    let summary: Vec<_> = out.history.iter().map(|r| (r.epoch, r.step, r.samples)).collect();
    assert_eq!(summary, [(1, 3, 10), (2, 6, 10), (3, 8, 8)]);
    for (record, steps) in out.history.iter().zip(steps.chunks(3)) {
        let weighted = |f: fn(&Step) -> f64| steps.iter().map(|step| f(step) * step.samples as f64).sum::<f64>();
        let mean = weighted(|step| step.value) / record.samples as f64;
        assert!((record.value / mean - 1.0).abs() < 1e-14);
        // So far from the data all gradients have one sign, and the norm of their mean is the mean of their norms.
        let mean = weighted(|step| step.grad_norm) / record.samples as f64;
        assert!((record.grad_norm / mean - 1.0).abs() < 1e-14);
        let last = steps.last().unwrap();
        assert_eq!(last.epoch_mean, (record.epoch < 3).then_some(record.value));
    }
    assert_eq!(Trainer::new(&spread, Adam::new(0.1), vec![1.0]).run().unwrap().history.len(), 1000);
}

#[test]
fn iterating_and_running_take_the_same_steps() {
    let spread = Spread::new((0..20).map(f64::from));
    let trainer = || {
        Trainer::new(&spread, Adam::new(0.3), vec![-5.0])
            .batches(Batches::shuffled(6).seed(9))
            .max_steps(33)
            .history(History::Steps)
    };
    let out = trainer().run().unwrap();

    let mut stepped = trainer();
    let steps: Vec<Step> = stepped.by_ref().map(Result::unwrap).collect();
    assert_eq!(stepped.x(), out.x);
    assert_eq!(stepped.stop(), Some(&StopReason::MaxSteps));
    assert!(stepped.next().is_none());
    assert_eq!(steps.len(), 33);
    assert!(steps.iter().zip(&out.history).all(|(step, record)| step.value == record.value));
    assert_eq!(stepped.finish().unwrap(), out);

    // A run may be begun by hand and left to itself.
    let mut begun = trainer();
    assert_eq!(begun.x(), [-5.0]);
    assert_eq!(begun.by_ref().take(7).count(), 7);
    assert_eq!(begun.run().unwrap(), out);

    // Or ended before its time.
    let mut left = trainer();
    left.by_ref().take(7).for_each(drop);
    let (best, _) = left.best().unwrap();
    let best = best.to_vec();
    let ended = left.finish().unwrap();
    assert_eq!((ended.stop, ended.steps, ended.epochs), (StopReason::Observer, 7, 1));
    assert_eq!(ended.value, spread.value(ended.x[0]));
    assert!(ended.best_value <= spread.value(best[0]));
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let spread = Spread::new((0..100).map(|i| f64::from(i).sin()));
    let run = |seed, threads| {
        Trainer::new(&spread, Adam::new(0.01), vec![3.0])
            .batches(Batches::shuffled(8).seed(seed))
            .max_epochs(5)
            .threads(threads)
            .run()
            .unwrap()
    };
    let reference = bits(&run(1, 1));
    assert_eq!(bits(&run(1, 1)), reference);
    assert_eq!(bits(&run(1, 3)), reference);
    assert_ne!(bits(&run(2, 1)), reference);
}

#[test]
fn observers_do_not_change_the_run() {
    let spread = Spread::new((0..30).map(f64::from));
    let trainer = || Trainer::new(&spread, Adam::new(0.1), vec![3.0]).batches(Batches::shuffled(7)).max_epochs(5);
    let observed = trainer().observe(|_| ControlFlow::Continue(())).run().unwrap();
    assert_eq!(observed, trainer().run().unwrap());
}

#[test]
fn objectives_may_be_borrowed_shared_or_boxed() {
    fn run(objective: impl Differentiable) -> Outcome {
        Trainer::new(objective, Adam::new(0.1), vec![5.0])
            .batches(Batches::shuffled(2))
            .threads(2)
            .max_epochs(9)
            .run()
            .unwrap()
    }
    let make = || Spread::new([1.0, 2.0, 4.0]);
    let reference = run(make());
    let spread = make();
    assert_eq!(run(&spread), reference);
    assert_eq!(run(Box::new(make())), reference);
    assert_eq!(run(Box::new(make()) as Box<dyn Differentiable>), reference);
    assert_eq!(run(&make() as &dyn Differentiable), reference);
    assert_eq!(run(Rc::new(make())), reference);
    assert_eq!(run(Arc::new(make()) as Arc<dyn Differentiable>), reference);
}

#[test]
fn pointers_pass_on_every_method() {
    struct Special;
    impl Differentiable for Special {
        fn dim(&self) -> usize {
            1
        }
        fn num_samples(&self) -> usize {
            2
        }
        fn value_and_gradient(&self, _: &[f64], _: &[usize], g: &mut [f64]) -> Result<f64, Error> {
            g[0] = 0.0;
            Ok(1.0)
        }
        fn value_and_gradient_threads(
            &self,
            _: &[f64],
            _: &[usize],
            g: &mut [f64],
            threads: usize,
        ) -> Result<f64, Error> {
            g[0] = 0.0;
            Ok(10.0 * threads as f64)
        }
        fn describe_non_finite(&self, _: &[f64], sample: usize) -> Option<String> {
            Some(format!("row {sample}"))
        }
    }
    let out = Trainer::new(Special, Adam::new(0.1), vec![0.0]).threads(1).grad_tol(0.0).run();
    assert_eq!(out.unwrap().value, 1.0, "one thread needs no method for threads");
    let boxed: Box<dyn Differentiable> = Box::new(&Special);
    assert_eq!((boxed.dim(), boxed.num_samples()), (1, 2));
    assert_eq!(boxed.value_and_gradient(&[0.0], &[0], &mut [0.0]).unwrap(), 1.0);
    assert_eq!(boxed.value_and_gradient_threads(&[0.0], &[0], &mut [0.0], 3).unwrap(), 30.0);
    assert_eq!(boxed.describe_non_finite(&[0.0], 1).unwrap(), "row 1");
    let out = Trainer::new(boxed, Adam::new(0.1), vec![0.0]).threads(4).grad_tol(0.0).run();
    assert_eq!(out.unwrap().value, 40.0);
}

#[test]
fn an_error_of_the_objective_ends_the_run_but_not_the_best_point() {
    struct Fails;
    impl Differentiable for Fails {
        fn dim(&self) -> usize {
            1
        }
        fn value_and_gradient(&self, x: &[f64], _: &[usize], g: &mut [f64]) -> Result<f64, Error> {
            if x[0] < 1.5 {
                return Err(Error::objective("no convergence"));
            }
            Ok(square(x, g))
        }
    }
    let trainer = || Trainer::new(Fails, GradientDescent::new(0.25), vec![8.0]);
    assert!(matches!(trainer().run(), Err(Error::Objective(_))));

    let mut trainer = trainer();
    let steps: Vec<_> = trainer.by_ref().collect();
    assert_eq!(steps.iter().filter(|step| step.is_ok()).count(), 3);
    assert!(matches!(steps[3], Err(Error::Objective(_))));
    assert_eq!(steps.len(), 4, "nothing comes after the error");
    assert!(trainer.next().is_none());
    assert_eq!(trainer.best(), Some((&[2.0][..], 4.0)));
    assert_eq!(trainer.x(), [1.0]);
}

#[test]
fn rules_in_a_tuple_act_from_left_to_right() {
    /// Adds a constant to δ.
    struct Add(f64);
    impl Rule for Add {
        type State = usize;
        fn init(&self, dim: usize) -> Result<usize, Error> {
            Ok(dim)
        }
        fn step(&self, dim: &mut usize, at: &Iterate<'_>, update: &mut Update<'_>) {
            assert_eq!((*dim, at.x.len()), (1, 1));
            assert_eq!(at.gradient, [2.0 * at.x[0]], "no rule changes the gradient itself");
            update.delta[0] += self.0;
        }
    }
    fn after_one_step(rule: impl Rule) -> (f64, f64) {
        let trainer = Trainer::new(from_fn(1, square), rule, vec![8.0]).max_steps(1);
        let out = trainer.run().unwrap();
        (out.x[0], out.history[0].rate)
    }
    assert_eq!(after_one_step(GradientDescent::new(0.25)), (4.0, 0.25));
    assert_eq!(after_one_step((Add(1.0), GradientDescent::new(0.25))), (3.75, 0.25));
    assert_eq!(after_one_step((GradientDescent::new(0.25), Add(1.0))), (3.0, 0.25));
    assert_eq!(after_one_step((GradientDescent::new(0.5), ad_optim::Schedule::step(1, 0.5).warm_up(1))), (4.0, 0.25));
    assert_eq!(after_one_step((Add(1.0),)), (-9.0, 1.0));
    let bad = (Add(0.0), Adam::new(f64::NAN), Add(0.0));
    let err = Trainer::new(from_fn(1, square), bad, vec![8.0]).run().unwrap_err();
    assert!(matches!(err, Error::InvalidSetting { owner: "Adam", .. }));
}

#[test]
fn an_outcome_prints_as_a_table() {
    let f = from_fn(12, |x, grad| {
        for (g, x) in grad.iter_mut().zip(x) {
            *g = 2e-3 * x;
        }
        x.iter().map(|x| 1e-3 * x * x).sum::<f64>() + 6.0
    });
    let start = (0..12).map(|i| f64::from(i) / 3.0).collect();
    let out = Trainer::new(&f, Adam::new(0.1), start).max_steps(100).run().unwrap();
    insta::assert_snapshot!(out, @r"
    stopped        at the step limit
    steps          100
    epochs         100
    evaluations    101
    value          6
    gradient norm  0.0000612079
    x              [0, -0.000548873, 0.000217079, 0.002936, -0.00188622, 0.00718217, -0.00842316, -0.00960011, … 4 more]
    best value     6
    best x         [0, -0.000548873, 0.000217079, 0.002936, -0.00188622, 0.00718217, -0.00842316, -0.00960011, … 4 more]

    value and gradient norm are those before the step:
    epoch  step    value  gradient norm  rate
        1     1  6.05622      0.0149963   0.1
       12    12   6.0209     0.00914274   0.1
       23    23  6.00579      0.0048112   0.1
       34    34  6.00113     0.00212269   0.1
       45    45  6.00021     0.00091176   0.1
       56    56   6.0001    0.000621085   0.1
       67    67  6.00005    0.000450757   0.1
       78    78  6.00002    0.000257854   0.1
       89    89        6    0.000120672   0.1
      100   100        6   0.0000630859   0.1
    ");
    // One stride all the way, then the last row, and never more than ten.
    for steps in 0..=40 {
        let out = Trainer::new(&f, Adam::new(0.1), vec![1.0; 12]).max_steps(steps).run().unwrap().to_string();
        let shown: Vec<usize> =
            out.lines().skip(12).map(|row| row.split_whitespace().nth(1).unwrap().parse().unwrap()).collect();
        assert_eq!(shown.last().copied().unwrap_or(0), steps);
        assert_eq!(shown.first().copied().unwrap_or(1), 1);
        assert!(shown.len() <= 10 && (steps > 10 || shown.len() == steps), "{shown:?}");
        let strides: Vec<usize> = shown.windows(2).map(|pair| pair[1] - pair[0]).collect();
        if let [first, .., last] = strides[..] {
            assert!(strides[..strides.len() - 1].iter().all(|&s| s == first) && last <= first, "{shown:?}");
        }
    }
    assert!(format!("{out:.3}").contains("\nvalue          6\n"));
    assert!(format!("{out:.12}").contains("\nvalue          6."));
    assert_eq!(
        StopReason::NonFinite {
            step: 7,
            epoch: 2,
            sample: Some(3),
            quantity: NonFinite::Gradient { index: 4, value: f64::INFINITY },
            detail: None,
        }
        .to_string(),
        "component 4 of the gradient is inf in step 7 (epoch 2), sample 3; \
         try a smaller learning rate, or look at the data"
    );
}
