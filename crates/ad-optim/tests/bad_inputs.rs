//! A table of bad inputs, each with its typed error and a message that says what to do.
#![allow(clippy::unwrap_used)]

use ad_core::{Samples, Tape};
use ad_optim::{
    Accumulate, Adagrad, Adam, AdamW, Adamax, AmsGrad, Batches, ClipNorm, ClipValue, Differentiable, EmpiricalRisk,
    Error, Freeze, GradientDescent, Groups, Iterate, L2, Nadam, ProjectBox, ReduceOnPlateau, RmsProp, Rule, Schedule,
    Trainer, Update, WeightDecay, from_fn, schedule_fn,
};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

fn bowl() -> impl Differentiable {
    from_fn(2, |x, grad| {
        grad[0] = 2.0 * x[0];
        grad[1] = 2.0 * x[1];
        x[0] * x[0] + x[1] * x[1] + 6.0
    })
}

/// The error of `run`, which must be the iterator's first and only item and that of `finish`, too.
fn refused<D: Differentiable, R: Rule>(trainer: impl Fn() -> Trainer<'static, D, R>) -> Error {
    let error = trainer().run().unwrap_err();
    let mut iterator = trainer();
    let first = iterator.next().unwrap().unwrap_err();
    assert_eq!(first.to_string(), error.to_string());
    assert!(iterator.next().is_none());
    assert_eq!(iterator.finish().unwrap_err().to_string(), error.to_string());
    error
}

/// Asserts that the setting is refused by name, with its value in the message.
fn assert_setting(error: Error, name: &str, given: f64) {
    match &error {
        Error::InvalidSetting { setting, value, .. } => {
            assert_eq!(*setting, name);
            assert!(*value == given || value.is_nan() && given.is_nan());
            assert!(error.to_string().contains(&format!("is {given}, but it must be")), "{error}");
        }
        other => panic!("{other}"),
    }
}

fn assert_rule(rule: impl Rule + Clone, name: &str, given: f64) {
    let error = refused(|| Trainer::new(bowl(), rule.clone(), vec![1.0, 1.0]));
    assert_setting(error, name, given);
}

#[test]
fn settings_of_rules() {
    for rate in [0.0, -0.0, -1e-3, NAN, INF, -INF] {
        assert_rule(GradientDescent::new(rate), "learning rate", rate);
        assert_rule(GradientDescent::new(rate).momentum(0.9).nesterov(), "learning rate", rate);
        assert_rule(Adam::new(rate), "learning rate", rate);
        assert_rule((GradientDescent::new(0.1), Adam::new(rate)), "learning rate", rate);
    }
    for rate in [0.0, -1e-3, NAN, INF] {
        assert_rule(AdamW::new(rate), "learning rate", rate);
        assert_rule(AmsGrad::reddi(rate), "learning rate", rate);
        assert_rule(AmsGrad::torch(rate), "learning rate", rate);
        assert_rule(AmsGrad::optax(rate), "learning rate", rate);
        assert_rule(RmsProp::new(rate), "learning rate", rate);
        assert_rule(Adagrad::new(rate), "learning rate", rate);
        assert_rule(Adamax::new(rate), "learning rate", rate);
        assert_rule(Nadam::new(rate), "learning rate", rate);
        assert_rule(Accumulate::new(2, Adam::new(rate)), "learning rate", rate);
        assert_rule(Groups::new().with(0..1, Freeze).rest(Adam::new(rate)), "learning rate", rate);
    }
    for momentum in [-0.1, 1.0, NAN, INF] {
        assert_rule(GradientDescent::new(0.1).momentum(momentum), "momentum", momentum);
        assert_rule(RmsProp::new(0.1).momentum(momentum), "momentum", momentum);
        assert_rule(RmsProp::new(0.1).decay(momentum), "decay", momentum);
    }
    for beta in [-0.1, 1.0, NAN, INF] {
        assert_rule(Adam::new(0.1).betas(beta, 0.999), "beta1", beta);
        assert_rule(Adam::new(0.1).betas(0.9, beta), "beta2", beta);
        assert_rule(AdamW::new(0.1).betas(beta, 0.999), "beta1", beta);
        assert_rule(AmsGrad::torch(0.1).betas(0.9, beta), "beta2", beta);
        assert_rule(Adamax::new(0.1).betas(beta, 0.999), "beta1", beta);
        assert_rule(Nadam::new(0.1).betas(0.9, beta), "beta2", beta);
    }
    for eps in [0.0, -1e-8, NAN, INF] {
        assert_rule(Adam::new(0.1).eps(eps), "eps", eps);
        assert_rule(AdamW::new(0.1).eps(eps), "eps", eps);
        assert_rule(AmsGrad::reddi(0.1).eps(eps), "eps", eps);
        assert_rule(RmsProp::new(0.1).eps(eps), "eps", eps);
        assert_rule(Adagrad::new(0.1).eps(eps), "eps", eps);
        assert_rule(Adamax::new(0.1).eps(eps), "eps", eps);
        assert_rule(Nadam::new(0.1).eps(eps), "eps", eps);
    }
    for negative in [-1e-3, NAN, INF] {
        assert_rule(Adam::new(0.1).l2(negative), "l2", negative);
        assert_rule(AdamW::new(0.1).weight_decay(negative), "decay", negative);
        assert_rule((Adam::new(0.1), WeightDecay(negative)), "decay", negative);
        assert_rule((L2(negative), Adam::new(0.1)), "lambda", negative);
        assert_rule(Adagrad::new(0.1).initial_accumulator(negative), "initial accumulator", negative);
        assert_rule(Nadam::new(0.1).momentum_decay(negative), "momentum decay", negative);
    }
    for not_positive in [0.0, -1.0, NAN, INF] {
        assert_rule((ClipNorm(not_positive), Adam::new(0.1)), "norm", not_positive);
        assert_rule((ClipValue(not_positive), Adam::new(0.1)), "largest value", not_positive);
    }
    assert_rule(Accumulate::new(0, Adam::new(0.1)), "number of batches", 0.0);
}

#[test]
fn settings_of_schedules() {
    let scheduled = |schedule: Schedule| (GradientDescent::new(0.1), schedule);
    for factor in [0.0, -0.5, NAN, INF] {
        assert_rule(scheduled(Schedule::step(1, factor)), "factor", factor);
        assert_rule(scheduled(Schedule::exponential(factor)), "factor", factor);
        assert_rule(scheduled(Schedule::polynomial(10, factor)), "power", factor);
    }
    for end in [-0.1, 1.1, NAN] {
        assert_rule(scheduled(Schedule::cosine(10).end(end)), "factor at the end", end);
        assert_rule((GradientDescent::new(0.1), ReduceOnPlateau::new(0.5).min_factor(end)), "smallest factor", end);
    }
    for total in [0, 5] {
        let (given, warm_up) = (total as f64, 5);
        assert_rule(scheduled(Schedule::cosine(total).warm_up(warm_up)), "total of steps", given);
        assert_rule(scheduled(Schedule::polynomial(total, 1.0).warm_up(warm_up)), "total of steps", given);
        assert_rule(scheduled(Schedule::one_cycle(total).warm_up(warm_up)), "total of steps", given);
    }
    assert_rule(scheduled(Schedule::step(0, 0.5)), "number of steps between changes", 0.0);
    for factor in [0.0, 1.0, -1.0, NAN] {
        assert_rule((GradientDescent::new(0.1), ReduceOnPlateau::new(factor)), "factor", factor);
    }
    for threshold in [-1e-4, NAN, INF] {
        let rule = ReduceOnPlateau::new(0.5).threshold(threshold);
        assert_rule((GradientDescent::new(0.1), rule), "threshold", threshold);
    }
    // What a closure returns shows in the step that asks for it.
    for factor in [-1.0, NAN, INF] {
        let rule = (GradientDescent::new(0.1), schedule_fn(move |_| factor));
        let out = Trainer::new(bowl(), rule, vec![1.0, 1.0]).run().unwrap();
        assert!(matches!(out.stop, ad_optim::StopReason::NonFinite { step: 1, .. }), "{out}");
        assert_eq!(out.x, [1.0, 1.0]);
    }
}

#[test]
fn boxes_and_groups() {
    fn error(rule: impl Rule + Clone) -> Error {
        refused(|| Trainer::new(bowl(), rule.clone(), vec![1.0, 1.0]))
    }
    for (lower, upper, name, given) in [
        (NAN, 1.0, "lower bound", NAN),
        (INF, INF, "lower bound", INF),
        (0.0, NAN, "upper bound", NAN),
        (-INF, -INF, "upper bound", -INF),
        (1.0, 0.0, "lower bound", 1.0),
    ] {
        assert_rule((GradientDescent::new(0.1), ProjectBox::all(lower, upper)), name, given);
    }
    let each = error(ProjectBox::each(vec![0.0; 3], vec![1.0; 3]));
    assert!(matches!(each, Error::DimensionMismatch { what: "the lower bounds", expected: 2, got: 3 }));
    let each = error(ProjectBox::each(vec![0.0; 2], vec![1.0]));
    assert!(matches!(each, Error::DimensionMismatch { what: "the upper bounds", expected: 2, got: 1 }));

    let adam = || Adam::new(0.1);
    for (start, end) in [(0, 3), (2, 3), (1, 1), (1, 0), (0, usize::MAX), (usize::MAX, usize::MAX)] {
        match error(Groups::new().with(start..end, adam())) {
            Error::GroupOutside { start: s, end: e, dim: 2 } => assert_eq!((s, e), (start, end)),
            other => panic!("{other}"),
        }
    }
    let overlap = error(Groups::new().with(0..2, adam()).with(1..2, Freeze));
    assert!(matches!(overlap, Error::GroupsOverlap { component: 1 }));
    let after_rest = error(Groups::new().rest(adam()).with(0..1, Freeze));
    assert!(matches!(after_rest, Error::GroupsOverlap { component: 0 }));
    let missing = error(Groups::new().with(0..1, adam()));
    assert!(matches!(missing, Error::NoGroup { component: 1 }));
    assert_eq!(
        missing.to_string(),
        "component 1 belongs to no group; add a range with it, or a rule for all others with rest, such as rest(Freeze)"
    );
    assert!(matches!(error(Groups::new()), Error::NoGroup { component: 0 }));
    // The bounds of a group are counted within it.
    let bounds = ProjectBox::each(vec![0.0], vec![1.0]);
    let groups = Groups::new().with(1..2, (adam(), bounds)).rest(Freeze);
    assert!(Trainer::new(bowl(), groups, vec![1.0, 1.0]).max_steps(2).run().is_ok());
}

#[test]
fn settings_at_the_edge_of_their_range_are_accepted() {
    fn runs(rule: impl Rule) {
        assert!(Trainer::new(bowl(), rule, vec![1.0, 1.0]).max_steps(2).run().is_ok());
    }
    runs(GradientDescent::new(f64::MIN_POSITIVE).momentum(0.0));
    runs(GradientDescent::new(0.1).nesterov());
    runs(Adam::new(0.1).betas(0.0, 0.0));
    runs(Adam::new(0.1).eps(5e-324));
    runs(RmsProp::new(0.1).decay(0.0));
    runs((L2(0.0), Adam::new(0.1).l2(0.0), WeightDecay(0.0)));
    runs((GradientDescent::new(0.1), Schedule::cosine(1), Schedule::one_cycle(1), Schedule::polynomial(1, 1.0)));
    runs((GradientDescent::new(0.1), ProjectBox::all(-INF, INF), ProjectBox::all(0.5, 0.5)));
    runs(Groups::new().with(0..2, GradientDescent::new(0.1)).rest(Freeze));
}

#[test]
fn settings_of_the_trainer() {
    type Set =
        fn(Trainer<'static, Box<dyn Differentiable>, Adam>, f64) -> Trainer<'static, Box<dyn Differentiable>, Adam>;
    let table: [(&str, &[f64], Set); 5] = [
        ("grad_tol", &[-1.0, NAN], |trainer, v| trainer.grad_tol(v)),
        ("target_value", &[NAN], |trainer, v| trainer.target_value(v)),
        ("patience in epochs", &[0.0], |trainer, v| trainer.patience(v as usize, 0.0)),
        ("min_delta of patience", &[-1.0, NAN, INF], |trainer, v| trainer.patience(1, v)),
        ("number of threads", &[0.0], |trainer, v| trainer.threads(v as usize)),
    ];
    for (name, values, set) in table {
        for &value in values {
            let make = || {
                let objective = Box::new(bowl()) as Box<dyn Differentiable>;
                set(Trainer::new(objective, Adam::new(0.1), vec![1.0, 1.0]), value)
            };
            assert_setting(refused(make), name, value);
        }
    }
}

#[test]
fn starting_points() {
    let refused = |x0: Vec<f64>| refused(|| Trainer::new(bowl(), Adam::new(0.1), x0.clone()));
    assert!(matches!(refused(vec![]), Error::EmptyPoint));
    let error = refused(vec![1.0; 3]);
    assert!(matches!(error, Error::DimensionMismatch { expected: 2, got: 3, .. }));
    assert_eq!(
        error.to_string(),
        "the starting point has length 3, but the objective has 2 unknowns; \
         pass one component for each unknown"
    );
    assert!(matches!(refused(vec![1.0]), Error::DimensionMismatch { expected: 2, got: 1, .. }));
    for bad in [NAN, INF, -INF] {
        match refused(vec![1.0, bad]) {
            Error::NonFiniteStart { index: 1, value } => {
                assert!(value == bad || value.is_nan() && bad.is_nan());
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn objectives_without_unknowns_or_samples() {
    struct Odd {
        dim: usize,
        samples: usize,
    }
    impl Differentiable for Odd {
        fn dim(&self) -> usize {
            self.dim
        }
        fn num_samples(&self) -> usize {
            self.samples
        }
        fn value_and_gradient(&self, _: &[f64], _: &[usize], _: &mut [f64]) -> Result<f64, Error> {
            unreachable!("nothing may be evaluated before the checks are done")
        }
    }
    let refused = |dim, samples, batches: Batches| {
        refused(|| Trainer::new(Odd { dim, samples }, Adam::new(0.1), vec![1.0]).batches(batches.clone()))
    };
    assert!(matches!(refused(0, 1, Batches::full()), Error::EmptyPoint));
    assert!(matches!(refused(1, 0, Batches::full()), Error::NoSamples));
    assert!(matches!(refused(1, 0, Batches::shuffled(2)), Error::NoSamples));
    assert!(matches!(refused(1, 5, Batches::sequential(0)), Error::ZeroBatchSize));
    assert!(matches!(refused(1, 5, Batches::shuffled(0)), Error::ZeroBatchSize));
    let error = refused(1, 5, Batches::shuffled(6).drop_last(true));
    assert_eq!(
        error.to_string(),
        "batches of 6 from 5 samples with drop_last(true) leave no batch; \
         use a size of at most 5, or drop_last(false)"
    );
}

fn line() -> (Tape, Samples) {
    let tape = Tape::builder()
        .inputs(&["a", "b"], &[0.0, 0.0])
        .params(&["u", "y"], &[0.0, 0.0])
        .record(|theta, k| (theta[0] * k[0] + theta[1] - k[1]).powi(2))
        .unwrap();
    let samples = Samples::from_rows(&tape, &[0.0, 1.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
    (tape, samples)
}

#[test]
fn tapes_and_samples() {
    let two = Tape::record(&[1.0, 2.0], |x| [x[0], x[1]]).unwrap();
    let error = refused(|| Trainer::new(two.clone(), Adam::new(0.1), vec![1.0, 1.0]));
    assert!(matches!(error, Error::NotScalar { outputs: 2 }));

    let (tape, samples) = line();
    let error = EmpiricalRisk::new(two, samples.clone()).unwrap_err();
    assert!(matches!(error, Error::NotScalar { outputs: 2 }));
    let other = Tape::builder().inputs(&[], &[0.0]).params(&[], &[0.0]).record(|x, k| x[0] * k[0]).unwrap();
    let error = EmpiricalRisk::new(other, samples.clone()).unwrap_err();
    assert!(matches!(error, Error::ParameterMismatch { tape: 1, sample: 2 }));

    let risk = EmpiricalRisk::new(tape, samples).unwrap();
    let error = refused(|| {
        let owned = EmpiricalRisk::new(risk.tape().clone(), risk.samples().clone()).unwrap();
        Trainer::new(owned, Adam::new(0.1), vec![1.0])
    });
    assert!(matches!(error, Error::DimensionMismatch { expected: 2, got: 1, .. }));
}

#[test]
fn evaluations_check_what_they_are_given() {
    fn table(objective: &dyn Differentiable) {
        let (dim, samples) = (objective.dim(), objective.num_samples());
        let (x, mut grad) = (vec![0.5; dim], vec![0.0; dim]);
        for threads in [1, 2] {
            let call = |x: &[f64], batch: &[usize], grad: &mut [f64]| {
                objective.value_and_gradient_threads(x, batch, grad, threads).unwrap_err()
            };
            let error = call(&x[1..], &[0], &mut grad);
            assert!(matches!(error, Error::DimensionMismatch { what: "the point", .. }));
            let error = call(&x, &[0], &mut grad[1..]);
            assert!(matches!(error, Error::DimensionMismatch { what: "the gradient", .. }));
            assert!(matches!(call(&x, &[], &mut grad), Error::EmptyBatch));
            let error = call(&x, &[0, samples], &mut grad);
            assert!(matches!(error, Error::SampleOutOfRange { sample, .. } if sample == samples));
        }
    }
    let (tape, samples) = line();
    table(&tape);
    table(&EmpiricalRisk::new(tape, samples).unwrap());
    table(&bowl());
}

#[test]
fn errors_travel_between_threads_and_through_boxes() {
    fn assert_error<T: std::error::Error + Send + Sync + 'static>() {}
    assert_error::<Error>();
}

#[test]
fn debug_prints_the_message() {
    for error in [Error::EmptyPoint, Error::NonFiniteStart { index: 2, value: f64::NAN }, Error::objective("no luck")] {
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}

#[test]
fn rules_out_of_order() {
    fn message(rule: impl Rule + Clone) -> String {
        refused(|| Trainer::new(bowl(), rule.clone(), vec![1.0, 1.0])).to_string()
    }
    fn misplaced(rule: impl Rule + Clone, text: &str) {
        let error = refused(|| Trainer::new(bowl(), rule.clone(), vec![1.0, 1.0]));
        assert!(matches!(error, Error::WrongOrder { .. }), "{error}");
        assert_eq!(error.to_string(), text);
    }
    let adam = || Adam::new(0.1);
    let decreasing = Schedule::cosine(10);
    let before = "Schedule stands before Adam, where it would scale the gradient: write (Adam, Schedule)";
    misplaced((decreasing.clone(), adam()), before);
    misplaced((L2(0.1), (decreasing.clone(), adam())), before);
    misplaced((decreasing.clone(), Accumulate::new(2, adam())), before);
    misplaced(Groups::new().with(0..1, adam()).rest((decreasing.clone(), adam())), before);
    misplaced((schedule_fn(|_| 1.0), adam()), &before.replace("Schedule", "ScheduleFn"));
    misplaced((ReduceOnPlateau::new(0.5), adam()), &before.replace("Schedule", "ReduceOnPlateau"));
    misplaced(
        (WeightDecay(0.1), adam()),
        "WeightDecay stands before Adam, where it would change the gradient in place of the step: \
         write (Adam, WeightDecay)",
    );
    let after = "ClipNorm stands after Adam, where it would change the step in place of the gradient: \
                 write (ClipNorm, Adam)";
    misplaced((adam(), ClipNorm(1.0)), after);
    misplaced((adam(), ClipValue(1.0)), &after.replace("ClipNorm", "ClipValue"));
    misplaced((adam(), L2(1.0)), &after.replace("ClipNorm", "L2"));
    let groups = Groups::new().with(0..1, adam()).rest(Freeze);
    misplaced(
        (decreasing.clone(), groups.clone()),
        "Schedule stands before Groups(0..1 Adam, rest Freeze), where it would scale the gradient: \
         write (Groups(0..1 Adam, rest Freeze), Schedule)",
    );

    // Groups that only change the gradient stand before the update; where one of them may do more, anywhere.
    let penalties = || Groups::new().with(0..1, L2(0.1)).rest(L2(0.2));
    misplaced((adam(), penalties()), &after.replace("ClipNorm", "Groups(0..1 L2, rest L2)"));
    let decays = Groups::new().with(0..1, WeightDecay(0.1)).rest(WeightDecay(0.2));
    misplaced(
        (decays, adam()),
        "Groups(0..1 WeightDecay, rest WeightDecay) stands before Adam, where it would change the gradient in place of \
         the step: write (Adam, Groups(0..1 WeightDecay, rest WeightDecay))",
    );

    assert!(message((adam(), GradientDescent::new(0.1))).starts_with("Adam and GradientDescent each turn a gradient"));
    assert!(message((adam(), adam())).starts_with("Adam and Adam each turn a gradient into a step"));
    assert_eq!(
        message(decreasing.clone()),
        "Schedule does not turn the gradient into a step: add a rule that does, such as Adam, to make a tuple"
    );
    assert!(message((ClipNorm(1.0), decreasing.clone())).starts_with("(ClipNorm, Schedule) does not turn"));
    assert!(
        message(Groups::new().with(0..1, adam()).rest(ClipNorm(1.0))).starts_with("the group with ClipNorm does not")
    );

    // What stands in order, and a rule of a user, of which nothing is known, in any place.
    #[derive(Clone)]
    struct Mine;
    impl Rule for Mine {
        type State = ();
        fn init(&self, _: usize) -> Result<(), Error> {
            Ok(())
        }
        fn step(&self, _: &mut (), _: &Iterate<'_>, _: &mut Update<'_>) {}
    }
    fn runs(rule: impl Rule) {
        let out = Trainer::new(bowl(), rule, vec![1.0, 1.0]).max_steps(2).run();
        assert!(out.is_ok(), "{out:?}");
    }
    runs((L2(0.1), ClipNorm(1.0), adam(), decreasing.clone(), WeightDecay(0.1)));
    runs((ProjectBox::all(0.0, 1.0), (L2(0.1), adam()), (WeightDecay(0.1), decreasing.clone())));
    runs((penalties(), groups, decreasing.clone()));
    runs((adam(), Groups::new().with(0..1, ClipNorm(1.0)).rest(Freeze)));
    runs((Groups::new().with(0..1, WeightDecay(0.1)).rest(Freeze), adam()));
    runs((Groups::new().with(0..1, Freeze).rest(WeightDecay(0.1)), adam()));
    runs((Mine, adam(), Mine));
    runs((L2(0.1), Mine, decreasing.clone()));
    runs((decreasing, Mine));
    runs(Mine);
}
