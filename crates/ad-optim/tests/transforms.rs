//! What transforms, groups and schedules do beside the trajectories that `trajectories.rs` compares.
#![allow(clippy::unwrap_used)]

use ad_optim::{
    Accumulate, Adam, Batches, ClipNorm, Differentiable, Error, Freeze, GradientDescent, Groups, History, Iterate, L2,
    ProjectBox, ReduceOnPlateau, Rule, Schedule, Trainer, Update, WeightDecay, from_fn,
};
use std::cell::RefCell;
use std::rc::Rc;

/// The mean over data k of ½·(x − k)², with one unknown.
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
        grad[0] = batch.iter().map(|&i| x[0] - self.0[i]).sum::<f64>() / n;
        Ok(batch.iter().map(|&i| 0.5 * (x[0] - self.0[i]).powi(2)).sum::<f64>() / n)
    }
}

/// A function whose gradient is constant.
fn slope(gradient: Vec<f64>) -> impl Differentiable {
    from_fn(gradient.len(), move |x, grad| {
        grad.copy_from_slice(&gradient);
        x.iter().zip(&gradient).map(|(x, g)| x * g).sum()
    })
}

fn rates(rule: impl Rule, steps: usize) -> Vec<f64> {
    let out = Trainer::new(slope(vec![1.0]), rule, vec![0.0]).max_steps(steps).run().unwrap();
    out.history.iter().map(|record| record.rate).collect()
}

/// What a rule was shown in a step.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    step: usize,
    samples: usize,
    value: f64,
    x: Vec<f64>,
    gradient: Vec<f64>,
    delta: Vec<f64>,
}

/// Descends with rate 0.25, and keeps what it was shown.
#[derive(Clone, Default)]
struct Witness(Rc<RefCell<Vec<Seen>>>);

impl Rule for Witness {
    type State = ();
    fn init(&self, _: usize) -> Result<(), Error> {
        Ok(())
    }
    fn step(&self, _: &mut (), at: &Iterate<'_>, update: &mut Update<'_>) {
        let Iterate { step, samples, value, .. } = *at;
        let [x, gradient, delta] = [at.x, at.gradient, update.delta].map(|slice| slice.to_vec());
        self.0.borrow_mut().push(Seen { step, samples, value, x, gradient, delta });
        update.delta.iter_mut().for_each(|d| *d *= 0.25);
    }
}

#[test]
fn the_penalty_adds_its_gradient() {
    let step = |rule| Trainer::new(slope(vec![1.0, -2.0]), rule, vec![3.0, 5.0]).max_steps(1).run().unwrap().x;
    // x − (g + λ·x), with λ = 1/2.
    assert_eq!(step((L2(0.5), GradientDescent::new(1.0))), [3.0 - (1.0 + 1.5), 5.0 - (-2.0 + 2.5)]);
    assert_eq!(step((L2(0.0), GradientDescent::new(1.0))), [2.0, 7.0]);
}

#[test]
fn a_small_gradient_is_not_clipped_and_a_huge_one_does_not_overflow() {
    let step = |gradient: Vec<f64>| {
        let rule = (ClipNorm(1.0), GradientDescent::new(1.0));
        Trainer::new(slope(gradient), rule, vec![0.0, 0.0]).max_steps(1).run().unwrap().x
    };
    assert_eq!(step(vec![0.6, 0.8]), [-0.6, -0.8]);
    let huge = step(vec![3e200, 4e200]);
    assert!((huge[0] + 0.6).abs() < 1e-15 && (huge[1] + 0.8).abs() < 1e-15, "{huge:?}");
}

#[test]
fn the_box_holds_exactly_and_from_the_start_on() {
    // x − (x − 0.1) is not 0.1 in floating point: the point is projected, not δ.
    let descend = || GradientDescent::new(0.7);
    let f = slope(vec![1.0, -1.0]);
    let mut inside = true;
    let out = Trainer::new(&f, (descend(), ProjectBox::all(0.1, 0.9)), vec![1.0, 0.0])
        .max_steps(5)
        .observe_point(|_, x| {
            inside &= x.iter().all(|x| (0.1..=0.9).contains(x));
            std::ops::ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    assert!(inside);
    assert_eq!(out.x, [0.1, 0.9]);
    let unmoved = Trainer::new(&f, (ProjectBox::all(0.1, 0.9), descend()), vec![5.0, -5.0]).max_steps(0).run().unwrap();
    assert_eq!(unmoved.x, [0.9, 0.1]);
    // With minibatches the start competes for the best point, and must lie inside, too.
    let data = Spread(vec![5.0, 5.0, -4.0]);
    let rule = (GradientDescent::new(1.0), ProjectBox::all(-1.0, 1.0));
    let out = Trainer::new(&data, rule, vec![2.0]).batches(Batches::sequential(2)).max_epochs(1).run().unwrap();
    assert_eq!((out.x[0], out.best_x[0]), (-1.0, 1.0));
}

#[test]
fn accumulated_batches_are_weighted_by_their_size() {
    let data = || Spread(vec![1.0, 2.0, 4.0, 8.0, 16.0]);
    let rule = || (Adam::new(0.1), Schedule::exponential(0.5));
    // Batches of 2, 2 and 1 make one step of all five.
    let accumulated = Trainer::new(data(), Accumulate::new(3, rule()), vec![0.0])
        .batches(Batches::sequential(2))
        .max_epochs(6)
        .history(History::Steps)
        .run()
        .unwrap();
    let whole = Trainer::new(data(), rule(), vec![0.0]).max_epochs(6).run().unwrap();
    assert!((accumulated.x[0] - whole.x[0]).abs() < 1e-14);
    let rates: Vec<f64> = accumulated.history.iter().map(|record| record.rate).collect();
    assert_eq!(rates[..6], [0.0, 0.0, 0.1, 0.0, 0.0, 0.05]);
    // A rule outside that adds decay does nothing in between, either.
    let decayed =
        Trainer::new(slope(vec![0.0]), (Accumulate::new(2, GradientDescent::new(0.5)), WeightDecay(0.5)), vec![1.0]);
    assert_eq!(decayed.max_steps(3).run().unwrap().x, [0.75]);
}

#[test]
fn the_rule_inside_sees_one_batch_of_all_that_was_collected() {
    let data = [1.0, 2.0, 4.0, 8.0, 16.0];
    let witness = Witness::default();
    // Batches of 2, 2 and 1; what is collected first starts anew for the second step.
    let out = Trainer::new(Spread(data.to_vec()), Accumulate::new(3, witness.clone()), vec![0.0])
        .batches(Batches::sequential(2))
        .max_epochs(2)
        .run()
        .unwrap();
    let mut x = 0.0;
    for (index, seen) in witness.0.borrow().iter().enumerate() {
        let value = data.iter().map(|k| 0.5 * (x - k) * (x - k)).sum::<f64>() / 5.0;
        let gradient = x - data.iter().sum::<f64>() / 5.0;
        assert_eq!((seen.step, seen.samples, &seen.x), (index + 1, 5, &vec![x]));
        assert!((seen.value - value).abs() < 1e-13, "{seen:?}");
        assert!((seen.gradient[0] - gradient).abs() < 1e-14, "{seen:?}");
        assert_eq!(seen.delta, seen.gradient);
        x -= 0.25 * seen.gradient[0];
    }
    assert_eq!((witness.0.borrow().len(), out.x), (2, vec![x]));
}

#[test]
fn boxes_inside_hold_too() {
    let f = slope(vec![1.0, -1.0, 1.0]);
    let boxed = |lower, upper| (GradientDescent::new(0.7), ProjectBox::all(lower, upper));
    let end = |rule, steps| Trainer::new(&f, rule, vec![3.0; 3]).max_steps(steps).run().unwrap().x;
    let accumulated = Accumulate::new(2, boxed(0.1, 0.9));
    assert_eq!(end(accumulated.clone(), 0), [0.9; 3]);
    assert_eq!(end(accumulated, 4), [0.1, 0.9, 0.1]);
    // Each group has a box of its own, the first as well as the last.
    let end = |steps| {
        let rule = Groups::new().with(0..1, boxed(0.25, 0.5)).with(1..2, boxed(-1.0, 2.0)).rest(boxed(0.125, 1.0));
        Trainer::new(&f, rule, vec![3.0; 3]).max_steps(steps).run().unwrap().x
    };
    assert_eq!(end(0), [0.5, 2.0, 1.0]);
    assert_eq!(end(4), [0.25, 2.0, 0.125]);
}

#[test]
fn a_group_sees_its_components_alone() {
    let (first, rest) = (Witness::default(), Witness::default());
    let grouped = Groups::new().with(1..3, (ClipNorm(0.5), first.clone())).rest(rest.clone());
    let f = slope(vec![1.0, 3.0, 4.0, 2.0]);
    Trainer::new(&f, grouped, vec![5.0, 6.0, 7.0, 8.0]).max_steps(1).run().unwrap();
    let seen = |x: [f64; 2], gradient: [f64; 2], delta: [f64; 2]| {
        let value = 5.0 + 18.0 + 28.0 + 16.0;
        vec![Seen { step: 1, samples: 1, value, x: x.into(), gradient: gradient.into(), delta: delta.into() }]
    };
    // The gradient stays what it was before the clipping.
    assert_eq!(*first.0.borrow(), seen([6.0, 7.0], [3.0, 4.0], [0.1 * 3.0, 0.1 * 4.0]));
    assert_eq!(*rest.0.borrow(), seen([5.0, 8.0], [1.0, 2.0], [1.0, 2.0]));
}

#[test]
fn groups_act_as_their_rules_alone() {
    let f = from_fn(5, |x, grad| {
        grad.iter_mut().zip(x).for_each(|(g, x)| *g = x.sinh());
        x.iter().map(|x| x.cosh()).sum()
    });
    let start = vec![1.0, -2.0, 3.0, -0.5, 2.0];
    let grouped = Groups::new()
        .with(3..5, (ClipNorm(0.5), GradientDescent::new(0.1).momentum(0.9)))
        .with(1..2, Freeze)
        .rest((Adam::new(0.05), WeightDecay(0.1), Schedule::cosine(20)));
    let out = Trainer::new(&f, grouped, start.clone()).max_steps(12).run().unwrap();
    // The function is a sum over its unknowns, so that each group is a run of its own.
    let part = |components: &[usize]| {
        let part = from_fn(components.len(), |x, grad| {
            grad.iter_mut().zip(x).for_each(|(g, x)| *g = x.sinh());
            x.iter().map(|x| x.cosh()).sum()
        });
        (part, components.iter().map(|&i| start[i]).collect::<Vec<_>>())
    };
    let (first, x0) = part(&[3, 4]);
    let rule = (ClipNorm(0.5), GradientDescent::new(0.1).momentum(0.9));
    assert_eq!(out.x[3..], Trainer::new(first, rule, x0).max_steps(12).run().unwrap().x);
    let (rest, x0) = part(&[0, 2]);
    let rule = (Adam::new(0.05), WeightDecay(0.1), Schedule::cosine(20));
    assert_eq!([out.x[0], out.x[2]], *Trainer::new(rest, rule, x0).max_steps(12).run().unwrap().x);
    assert_eq!(out.x[1], -2.0);
    // The rate shown is that of the group added first.
    assert!(out.history.iter().all(|record| record.rate == 0.1));
}

#[test]
fn warm_up_and_the_ends_of_schedules() {
    let factors = |schedule: Schedule, steps: usize| rates((GradientDescent::new(1.0), schedule), steps);
    assert_eq!(factors(Schedule::constant().warm_up(3), 5), [0.25, 0.5, 0.75, 1.0, 1.0]);
    assert_eq!(factors(Schedule::polynomial(4, 1.0), 6), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    assert_eq!(factors(Schedule::polynomial(5, 1.0).warm_up(1).end(0.5), 7), [0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]);
    let cosine = factors(Schedule::cosine(4).end(0.5), 6);
    assert_eq!((cosine[0], cosine[4], cosine[5]), (1.0, 0.5, 0.5));
    assert!((cosine[2] - 0.75).abs() < 1e-15);
    let cycle = factors(Schedule::one_cycle(10), 12);
    assert!((cycle[0] - 0.04).abs() < 1e-15 && (cycle[2] - 1.0).abs() < 1e-15, "{cycle:?}");
    assert!((cycle[9] - 4e-6).abs() < 1e-15 && cycle[10] == cycle[9] && cycle[11] == cycle[9], "{cycle:?}");
    // Short cycles have no rise, and no NaN.
    for total in 1..5 {
        assert!(factors(Schedule::one_cycle(total), 8).iter().all(|factor| (0.0..=1.0).contains(factor)), "{total}");
    }
    assert_eq!(Schedule::exponential(0.5).factor(4), 0.125);
    assert_eq!(Schedule::step(3, 0.5).factor(0), 1.0);
    assert!(Schedule::exponential(0.5).factor(usize::MAX) == 0.0);
}

#[test]
fn schedules_by_epoch() {
    let data = Spread(vec![0.0; 6]);
    let rule = (GradientDescent::new(1.0), Schedule::step(1, 0.5).per_epoch());
    let out = Trainer::new(&data, rule, vec![0.0])
        .batches(Batches::sequential(2))
        .max_epochs(3)
        .history(History::Steps)
        .run()
        .unwrap();
    let rates: Vec<f64> = out.history.iter().map(|record| record.rate).collect();
    assert_eq!(rates, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]);
}

#[test]
fn a_plateau_is_judged_on_means_of_epochs() {
    // A constant value: epoch 1 is the best, and each further one is bad.
    let flat = || {
        from_fn(1, |_, grad| {
            grad[0] = 0.0;
            1.0
        })
    };
    let rates = |rule: ReduceOnPlateau, steps: usize| -> Vec<f64> {
        let out = Trainer::new(flat(), (GradientDescent::new(1.0), rule), vec![0.0]).max_steps(steps).run().unwrap();
        out.history.iter().map(|record| record.rate).collect()
    };
    let rule = || ReduceOnPlateau::new(0.5).patience(1);
    assert_eq!(rates(rule(), 7), [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
    assert_eq!(rates(rule().min_factor(0.3), 7), [1.0, 1.0, 1.0, 0.5, 0.5, 0.3, 0.3]);
    assert_eq!(rates(rule().cooldown(2), 9), [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]);
    // Falling values by less than the threshold are bad, too; a negative best is compared by its size.
    let falling = from_fn(1, |x, grad| {
        grad[0] = 1e-6;
        -1.0 + 1e-6 * x[0]
    });
    let run = |threshold: f64| {
        let rule = (GradientDescent::new(1.0), ReduceOnPlateau::new(0.5).patience(0).threshold(threshold));
        Trainer::new(&falling, rule, vec![0.0]).max_steps(4).run().unwrap().history.last().unwrap().rate
    };
    assert_eq!((run(1e-4), run(0.0)), (0.25, 1.0));
    // Minibatches that go up and down within an epoch are not plateaus.
    let data = Spread(vec![-1.0, 1.0, -2.0, 2.0]);
    let rule = (GradientDescent::new(1e-6), ReduceOnPlateau::new(0.5).patience(3));
    let out = Trainer::new(&data, rule, vec![9.0]).batches(Batches::sequential(1)).max_epochs(4).run().unwrap();
    assert_eq!(out.history.last().unwrap().rate, 1e-6);
}

#[test]
fn a_plateau_is_judged_on_validation_where_there_is_some() {
    // The means fall all the way to 1; what is held out is best at 0.5, and worse after that.
    let data = Spread(vec![1.0, 1.0, 0.5]);
    let trainer = |held_out: bool| {
        let rule = (GradientDescent::new(0.05), ReduceOnPlateau::new(0.5).patience(0).threshold(0.0));
        let trainer = Trainer::new(&data, rule, vec![0.0]).batches(Batches::sequential(1)).max_epochs(12);
        if held_out { trainer.hold_out(vec![2]) } else { trainer }
    };
    let rates = |out: &ad_optim::Outcome| out.history.iter().map(|record| record.rate).collect::<Vec<_>>();
    let (without, with) = (trainer(false).run().unwrap(), trainer(true).run().unwrap());
    assert!(rates(&without).windows(2).filter(|pair| pair[1] < pair[0]).count() <= 1, "{without}");
    // An epoch with a reduced rate comes after each one whose validation was no better than the best before.
    let mut best = f64::INFINITY;
    let mut expected = vec![0.05];
    for record in &with.history {
        let validation = record.validation.unwrap();
        let factor = if validation < best { 1.0 } else { 0.5 };
        best = best.min(validation);
        expected.push(expected.last().unwrap() * factor);
    }
    expected.pop();
    assert_eq!(rates(&with), expected);
    assert!(expected.last().unwrap() < &0.05);
}

#[test]
fn counts_at_the_end_of_their_range_do_not_overflow() {
    use ad_optim::{Accumulate, Adamax, AmsGrad, Nadam, Rule, StateSlice, load_state, save_state};
    fn steps<R: Rule>(rule: R) {
        let mut state = rule.init(1).unwrap();
        let mut saved = save_state(&rule, &mut state).unwrap();
        for slice in &mut saved {
            if let StateSlice::Counts { values, .. } = slice {
                values.fill(u64::MAX);
            }
        }
        load_state(&rule, &mut state, &saved).unwrap();
        // A step from there, in a run that has all of them behind it.
        let kind = rule.kind();
        let started = RefCell::new(Some(state));
        let resumed = Resumed { rule, started };
        let out = Trainer::new(slope(vec![1.0]), resumed, vec![0.0]).max_steps(3).run();
        assert!(out.is_ok(), "{kind}");
    }
    /// A rule whose state is one that was loaded.
    struct Resumed<R: Rule> {
        rule: R,
        started: RefCell<Option<R::State>>,
    }
    impl<R: Rule> Rule for Resumed<R> {
        type State = R::State;
        fn init(&self, dim: usize) -> Result<R::State, Error> {
            self.started.take().map_or_else(|| self.rule.init(dim), Ok)
        }
        fn step(&self, state: &mut R::State, at: &Iterate<'_>, update: &mut Update<'_>) {
            self.rule.step(state, at, update);
        }
    }
    steps(Adam::new(0.1));
    steps(AmsGrad::torch(0.1));
    steps(Adamax::new(0.1));
    steps(Nadam::new(0.1));
    steps(Accumulate::new(2, Adam::new(0.1)));
    steps((GradientDescent::new(0.1), ReduceOnPlateau::new(0.5)));
}

#[test]
fn a_warm_up_without_end() {
    for schedule in [Schedule::constant(), Schedule::step(2, 0.5), Schedule::exponential(0.5)] {
        let first = schedule.warm_up(usize::MAX).factor(1);
        assert!(first > 0.0 && first < 1e-19);
    }
}
