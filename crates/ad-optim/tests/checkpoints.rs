//! Saved runs: whatever happens to a run or to its files, going on gives the bits of a run that was never broken off, or
//! an error that says why not.
#![allow(clippy::unwrap_used)]

use ad_core::{Samples, Tape};
use ad_optim::{
    Accumulate, Adagrad, Adam, AdamW, Adamax, AmsGrad, Batches, Checkpoint, CheckpointProblem, Checkpoints, ClipNorm,
    Differentiable, EmpiricalRisk, Error, GaussNewton, GradientDescent, Groups, History, Iterate, Lbfgs, LeastSquares,
    LevenbergMarquardt, Method, Nadam, Outcome, ProjectBox, ReduceOnPlateau, RmsProp, Rule, SampleLoss, Schedule,
    StopReason, Trainer, Update, WeightDecay, from_fn,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ad-optim-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Logistic regression on two features, with labels that no line separates.
fn risk(samples: usize) -> EmpiricalRisk {
    let loss = Tape::builder()
        .inputs(&["bias", "first", "second"], &[0.0; 3])
        .params(&["u", "v", "label"], &[0.0, 0.0, 1.0])
        .record(|theta, k| (-k[2] * (theta[0] + theta[1] * k[0] + theta[2] * k[1])).softplus())
        .unwrap();
    let rows: Vec<f64> = (0..samples)
        .flat_map(|i| {
            let (u, v) = ((i as f64 * 0.37).sin(), (i as f64 * 0.91).cos());
            [u, v, if u - 0.5 * v + 0.4 * (i as f64 * 1.7).sin() > 0.0 { 1.0 } else { -1.0 }]
        })
        .collect();
    let rows = Samples::from_rows(&loss, &rows).unwrap();
    EmpiricalRisk::new(loss, rows).unwrap()
}

/// The Huber loss of a line, recorded again for each of its branches.
fn branching(samples: usize) -> EmpiricalRisk<impl SampleLoss> {
    let loss = Tape::builder()
        .inputs(&[], &[0.0; 2])
        .params(&[], &[0.0; 2])
        .retape(|theta, k| {
            let r = (theta[0] * k[0] + theta[1] - k[1]).abs();
            if r <= 0.5 { 0.5 * r * r } else { 0.5 * (r - 0.25) }
        })
        .unwrap();
    let rows: Vec<f64> =
        (0..samples).flat_map(|i| [i as f64 / 50.0, (i as f64 * 0.7).sin() + i as f64 * 0.03]).collect();
    let rows = loss.samples(&rows).unwrap();
    EmpiricalRisk::new(loss, rows).unwrap()
}

/// Everything but times, as bits.
fn bits(out: &Outcome) -> Vec<u64> {
    let mut bits = vec![out.steps as u64, out.epochs as u64, out.evaluations as u64];
    bits.extend(out.x.iter().chain(&out.best_x).map(|x| x.to_bits()));
    bits.extend([out.value, out.best_value, out.grad_norm].map(f64::to_bits));
    if let Some(validation) = &out.validation {
        bits.extend([validation.value, validation.best_value].map(f64::to_bits));
        bits.extend(validation.best_x.iter().map(|x| x.to_bits()));
        bits.push(validation.best_epoch as u64);
    }
    for record in &out.history {
        bits.extend([record.step, record.epoch, record.samples].map(|count| count as u64));
        bits.extend([record.value, record.grad_norm, record.rate].map(f64::to_bits));
        bits.extend(record.validation.map(f64::to_bits));
    }
    bits
}

/// Saves a run after every step, and goes on from each of its checkpoints, with other numbers of threads.
fn assert_resumes<'a, D: Differentiable, M: Method>(name: &str, trainer: impl Fn() -> Trainer<'a, D, M>) {
    let folder = Folder::new(&format!("resume-{name}"));
    let whole = trainer().run().unwrap();
    let saved = trainer().checkpoints(Checkpoints::new(&folder.0).every(1).keep_last(usize::MAX)).run().unwrap();
    assert_eq!(bits(&saved), bits(&whole), "{name}: saving changes the run");
    assert_eq!(saved.stop, whole.stop);
    let names = folder.names();
    assert_eq!(names.len(), whole.steps, "{name}");
    for (i, file) in names.iter().enumerate() {
        let resumed = trainer().resume_from(folder.0.join(file)).threads([1, 2, 3, 4, 8][i % 5]).run().unwrap();
        assert_eq!(bits(&resumed), bits(&whole), "{name}, from {file}");
        assert_eq!(resumed.stop, whole.stop, "{name}, from {file}");
        assert_eq!(resumed, whole);
    }
}

#[test]
fn every_rule_goes_on_from_every_step() {
    let risk = risk(50);
    fn of<'a, R: Rule>(risk: &'a EmpiricalRisk, rule: R) -> Trainer<'a, &'a EmpiricalRisk, R> {
        Trainer::new(risk, rule, vec![0.1, -0.2, 0.3])
            .batches(Batches::shuffled(9).seed(5))
            .max_steps(20)
            .history(History::Steps)
    }
    macro_rules! each {
        ($($rule:expr),* $(,)?) => {$(
            assert_resumes(&$rule.kind().replace(['(', ')', ' ', ',', '.'], "-"), || of(&risk, $rule));
        )*};
    }
    each!(
        GradientDescent::new(0.1),
        GradientDescent::new(0.1).momentum(0.9).nesterov(),
        Adam::new(0.05),
        Adam::new(0.05).l2(0.01),
        AdamW::new(0.05).weight_decay(0.1),
        AmsGrad::reddi(0.05),
        AmsGrad::torch(0.05),
        AmsGrad::optax(0.05),
        RmsProp::new(0.01).centered(),
        Adagrad::new(0.1),
        Adamax::new(0.05),
        Nadam::new(0.05),
        (ClipNorm(0.5), Adam::new(0.05), Schedule::cosine(20), WeightDecay(0.01)),
        (GradientDescent::new(0.5), ReduceOnPlateau::new(0.5), ProjectBox::all(-0.5, 0.5)),
        Accumulate::new(4, (Adam::new(0.1), Schedule::one_cycle(6))),
        Groups::new().with(0..1, GradientDescent::new(0.1).momentum(0.5)).rest((Adam::new(0.1), WeightDecay(0.1))),
    );
}

#[test]
fn methods_go_on_from_every_step() {
    let rosenbrock =
        Tape::record(&[1.0, 1.0], |x| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2)).unwrap();
    assert_resumes("lbfgs", || Trainer::new(&rosenbrock, Lbfgs::new().memory(4), vec![-1.2, 1.0]).grad_tol(1e-9));
    // To where the value is all rounding, and the method itself ends the run.
    assert_resumes("lbfgs-end", || {
        Trainer::new(&rosenbrock, Lbfgs::new(), vec![-1.2, 1.0]).grad_tol(0.0).max_steps(99)
    });
    let residuals = Tape::record(&[1.0, 1.0], |x| [1.0 - x[0], 10.0 * (x[1] - x[0] * x[0])]).unwrap();
    let fit = LeastSquares::new(residuals).unwrap();
    assert_resumes("levenberg", || Trainer::new(&fit, LevenbergMarquardt::new(), vec![-1.2, 1.0]));
    assert_resumes("gauss", || Trainer::new(&fit, GaussNewton::new(), vec![-1.2, 1.0]));
}

#[test]
fn every_way_to_run_goes_on_from_every_step() {
    let (risk, other) = (risk(50), risk(23));
    let trainer = || Trainer::new(&risk, Adam::new(0.3), vec![0.0; 3]).batches(Batches::shuffled(12).seed(1));
    assert_resumes("validated", || trainer().validate(&other).max_epochs(6));
    assert_resumes("held-out", || trainer().hold_out((0..50).step_by(4).collect()).max_steps(17));
    assert_resumes("patient", || trainer().validate(&other).patience(2, 1e-3).max_epochs(100));
    assert_resumes("plateau", || {
        let rule = (Adam::new(0.3), ReduceOnPlateau::new(0.5).patience(0).threshold(0.5));
        Trainer::new(&risk, rule, vec![0.0; 3]).batches(Batches::shuffled(12).seed(1)).validate(&other).max_epochs(6)
    });
    assert_resumes("target", || trainer().target_value(0.55).max_epochs(50));
    assert_resumes("gradient", || trainer().grad_tol(0.1).max_epochs(50));
    assert_resumes("dropped", || trainer().batches(Batches::shuffled(12).drop_last(true)).max_steps(11));
    assert_resumes("sequential", || trainer().batches(Batches::sequential(7)).max_steps(18));
    assert_resumes("full", || trainer().batches(Batches::full()).max_steps(9));
    assert_resumes("one-batch", || trainer().batches(Batches::shuffled(50)).max_steps(9));
    assert_resumes("no-history", || trainer().history(History::Off).max_steps(9));
    let (many, several) = (self::risk(450), branching(200));
    assert_resumes("threads", || {
        Trainer::new(&many, Adam::new(0.3), vec![0.0; 3]).batches(Batches::shuffled(200)).max_steps(7)
    });
    assert_resumes("branches", || {
        Trainer::new(&several, Adam::new(0.3), vec![0.0; 2]).batches(Batches::shuffled(70)).max_steps(9)
    });
    assert_resumes("checked", || trainer().check_gradient().max_steps(6));
    // Steps that lead away from the start, which is the best point.
    assert_resumes("upwards", || {
        Trainer::new(&risk, GradientDescent::new(100.0), vec![0.1; 3]).batches(Batches::sequential(20)).max_steps(8)
    });
    let hill = from_fn(1, |x, grad| {
        grad[0] = -2.0 * x[0];
        6.0 - x[0] * x[0]
    });
    assert_resumes("maximum", || Trainer::new(&hill, Adam::new(0.2), vec![2.0]).maximise().target_value(5.99));
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let (risk, other) = (risk(1000), risk(333));
    let run = |threads| {
        Trainer::new(&risk, (ClipNorm(1.0), Adam::new(0.1)), vec![0.0; 3])
            .batches(Batches::shuffled(300).seed(4))
            .validate(&other)
            .max_epochs(5)
            .threads(threads)
            .history(History::Steps)
            .run()
            .unwrap()
    };
    let one = run(1);
    for threads in [2, 3, 4, 8] {
        assert_eq!(bits(&run(threads)), bits(&one), "{threads} threads");
    }
}

#[test]
fn a_run_goes_on_from_where_it_was_whatever_start_it_is_given() {
    // Every step leads away from the start, which is evaluated in the end and found to be the best.
    let risk = risk(50);
    let trainer = |x: f64| {
        Trainer::new(&risk, GradientDescent::new(100.0), vec![x; 3]).batches(Batches::sequential(20)).max_steps(8)
    };
    let whole = trainer(0.1).run().unwrap();
    assert_eq!(whole.best_x, [0.1; 3]);
    let folder = Folder::new("start");
    trainer(0.1).max_steps(4).checkpoints(Checkpoints::new(&folder.0)).run().unwrap();
    assert_eq!(bits(&trainer(7.0).resume_from(&folder.0).run().unwrap()), bits(&whole));
}

#[test]
fn a_run_that_ended_goes_on_with_other_limits() {
    let risk = risk(40);
    let trainer =
        |steps| Trainer::new(&risk, Adam::new(0.1), vec![0.0; 3]).batches(Batches::shuffled(7)).max_steps(steps);
    let whole = trainer(30).run().unwrap();
    let folder = Folder::new("further");
    let saved = |steps| trainer(steps).checkpoints(Checkpoints::new(&folder.0).every(1000)).resume_latest();
    for steps in [4, 4, 11, 12, 30, 30] {
        assert_eq!(saved(steps).run().unwrap().steps, steps);
    }
    // The measurements at the end of a run are not part of it.
    assert_eq!(bits(&saved(30).run().unwrap()), bits(&whole));
    assert_eq!(folder.names().len(), 3, "{:?}", folder.names());

    // Also from where the caller or an observer saw enough.
    let folder = Folder::new("enough");
    let saved = || trainer(30).checkpoints(Checkpoints::new(&folder.0)).resume_latest();
    let mut left = saved();
    left.by_ref().take(9).for_each(drop);
    assert_eq!(left.finish().unwrap().stop, StopReason::Observer);
    let stopped =
        saved().observe(|step| if step.step == 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    assert_eq!(stopped.run().unwrap().steps, 20);
    let timed = saved().max_time(Duration::ZERO).run().unwrap();
    assert_eq!((timed.stop, timed.steps), (StopReason::MaxTime, 20));
    let done = saved().run().unwrap();
    assert_eq!(bits(&done), bits(&whole));
    assert!(done.time > Duration::ZERO && done.history.iter().all(|record| record.time > Duration::ZERO));
}

#[test]
fn the_files_that_are_kept() {
    let risk = risk(40);
    let folder = Folder::new("kept");
    let trainer = |checkpoints: Checkpoints| {
        Trainer::new(&risk, Adam::new(0.1), vec![0.0; 3]).batches(Batches::shuffled(10)).checkpoints(checkpoints)
    };
    let nested = folder.0.join("a/b");
    trainer(Checkpoints::new(&nested).every(3).keep_last(2)).max_steps(16).run().unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&nested).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["step-000000000015.ckpt", "step-000000000016.ckpt"]);

    // A new run does not mix its files with those of another.
    let fresh = trainer(Checkpoints::new(&nested)).max_steps(9).run().unwrap_err();
    let problem = CheckpointProblem::FolderInUse { step: 16 };
    assert!(matches!(&fresh, Error::Checkpoint { problem: found, .. } if *found == problem), "{fresh}");
    let earlier = trainer(Checkpoints::new(&nested)).resume_from(nested.join("step-000000000015.ckpt")).run();
    assert!(matches!(earlier, Err(Error::Checkpoint { problem: CheckpointProblem::FolderInUse { step: 16 }, .. })));

    // What a program left that was killed is cleared away; what is not ours stays.
    for name in ["step-000000000016.ckpt.77-0.tmp", "best.ckpt.12-3.tmp", "step-1.ckpt", "notes.tmp", "best.ckpt.tmp"] {
        fs::write(nested.join(name), "x").unwrap();
    }
    trainer(Checkpoints::new(&nested)).resume_latest().max_steps(17).run().unwrap();
    let found = names();
    let [left @ .., "step-000000000015.ckpt", "step-000000000016.ckpt", "step-000000000017.ckpt", "step-1.ckpt"] =
        &found.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", names())
    };
    assert_eq!(*left, ["best.ckpt.tmp", "notes.tmp"]);

    // A path may be that of a folder; one without checkpoints is no place to go on from.
    assert_eq!(Checkpoint::read(&nested).unwrap().steps, 17);
    assert_eq!(Checkpoints::new(&nested).latest().unwrap(), Some(nested.join("step-000000000017.ckpt")));
    assert_eq!(Checkpoints::new(folder.0.join("none")).latest().unwrap(), None);
    let error = trainer(Checkpoints::new(&nested)).resume_from(&folder.0).run().unwrap_err();
    assert!(
        matches!(&error, Error::Checkpoint { path, problem: CheckpointProblem::NoneInFolder } if *path == folder.0),
        "{error}"
    );
    let missing = trainer(Checkpoints::new(&nested)).resume_from("/no/such/file").run().unwrap_err();
    assert!(matches!(missing, Error::Read { .. }), "{missing}");
    let nowhere = Trainer::new(&risk, Adam::new(0.1), vec![0.0; 3]).resume_latest().run().unwrap_err();
    assert!(matches!(nowhere, Error::Checkpoint { problem: CheckpointProblem::NoFolder, .. }), "{nowhere}");
    for checkpoints in [Checkpoints::new(&nested).every(0), Checkpoints::new(&nested).keep_last(0)] {
        let error = trainer(checkpoints).run().unwrap_err();
        assert!(matches!(error, Error::InvalidSetting { owner: "Checkpoints", value: 0.0, .. }), "{error}");
    }
}

#[test]
fn the_best_is_kept() {
    let (risk, other) = (risk(40), risk(11));
    // Epochs of four steps; a rate that grows leads away again.
    let trainer = || {
        Trainer::new(&risk, (GradientDescent::new(0.2), Schedule::exponential(1.25)), vec![2.0, -2.0, 2.0])
            .batches(Batches::shuffled(10).seed(2))
            .max_epochs(12)
    };
    for validated in [false, true] {
        let folder = Folder::new("best");
        let trainer = || if validated { trainer().validate(&other) } else { trainer() };
        let out = trainer().checkpoints(Checkpoints::new(&folder.0).every(7).keep_last(1).keep_best()).run().unwrap();
        let best = Checkpoint::read(folder.0.join("best.ckpt")).unwrap();
        assert_eq!(folder.names(), ["best.ckpt", "step-000000000048.ckpt"]);
        assert!(best.steps < 48 && best.steps.is_multiple_of(4), "{}", best.steps);
        match &out.validation {
            Some(validation) => assert_eq!((&best.x, best.epochs), (&validation.best_x, validation.best_epoch)),
            None => assert_eq!(best.x, best.best().unwrap().0),
        }
        // It is a checkpoint like any other.
        let again = trainer().resume_from(folder.0.join("best.ckpt")).run().unwrap();
        assert_eq!(bits(&again), bits(&out));
    }
    // With full batches it is the first checkpoint after the best point.
    let folder = Folder::new("best-full");
    let out = trainer()
        .batches(Batches::full())
        .max_epochs(40)
        .checkpoints(Checkpoints::new(&folder.0).every(5).keep_best())
        .run()
        .unwrap();
    let best = Checkpoint::read(folder.0.join("best.ckpt")).unwrap();
    assert_eq!(best.best(), Some((&out.best_x[..], out.best_value)));
    assert!(best.steps < 40 && out.best_value < out.value, "{}", best.steps);
}

#[test]
fn the_best_point_is_saved_where_the_last_step_was_due() {
    let bowl = Tape::record(&[1.0], |x| x[0] * x[0]).unwrap();
    for steps in [8, 9] {
        let folder = Folder::new("best-at-the-end");
        let out = Trainer::new(&bowl, GradientDescent::new(0.1), vec![1.0])
            .max_steps(steps)
            .checkpoints(Checkpoints::new(&folder.0).every(4).keep_best())
            .run()
            .unwrap();
        let best = Checkpoint::read(folder.0.join("best.ckpt")).unwrap();
        assert_eq!(best.best(), Some((&out.best_x[..], out.best_value)), "{steps} steps");
    }
}

#[test]
fn with_full_batches_too_the_validated_point_is_the_best() {
    // The training value falls for ever, that of the validation rises from x = 0.5 on.
    let (slope, bowl) = (
        Tape::record(&[0.0], |x| x[0] * -1.0).unwrap(),
        Tape::record(&[0.0], |x| (x[0] - 0.5) * (x[0] - 0.5)).unwrap(),
    );
    let folder = Folder::new("best-validated");
    let out = Trainer::new(&slope, GradientDescent::new(0.125), vec![0.0])
        .validate(&bowl)
        .max_steps(16)
        .checkpoints(Checkpoints::new(&folder.0).every(4).keep_best())
        .run()
        .unwrap();
    let best = Checkpoint::read(folder.0.join("best.ckpt")).unwrap();
    let validation = out.validation.unwrap();
    assert_eq!((&best.x[..], &validation.best_x[..]), (&[0.5][..], &[0.5][..]));
}

#[test]
fn what_no_file_may_hold_is_an_error_before_anything_is_deleted() {
    let bowl = Tape::record(&[1.0], |x| x[0] * x[0]).unwrap();
    let folder = Folder::new("too-large-a-count");
    let error = Trainer::new(&bowl, GradientDescent::new(0.1), vec![1.0])
        .batches(Batches::sequential(usize::MAX))
        .max_steps(8)
        .checkpoints(Checkpoints::new(&folder.0).every(4))
        .run()
        .unwrap_err();
    assert!(matches!(error, Error::Checkpoint { problem: CheckpointProblem::Malformed { .. }, .. }), "{error}");
    assert!(folder.names().is_empty());
}

#[test]
fn a_best_point_that_an_earlier_part_of_the_run_found_is_saved() {
    let folder = Folder::new("stale-best");
    let bowl = Tape::record(&[1.0], |x| x[0] * x[0]).unwrap();
    let trainer = |steps, checkpoints: Checkpoints| {
        let trainer = Trainer::new(&bowl, GradientDescent::new(0.25), vec![1.0]).max_steps(steps);
        trainer.checkpoints(checkpoints.every(2)).resume_latest().run().unwrap()
    };
    let best = || Checkpoint::read(folder.0.join("best.ckpt")).unwrap().best().unwrap().1;
    trainer(4, Checkpoints::new(&folder.0).keep_best());
    let old = best();
    trainer(8, Checkpoints::new(&folder.0));
    assert_eq!(best(), old);
    // Nothing better is found any more, since no step is made.
    let out = trainer(8, Checkpoints::new(&folder.0).keep_best());
    assert_eq!(best(), out.best_value);
    assert!(out.best_value < old);
}

#[test]
fn equal_runs_are_equal_though_they_hold_nan() {
    // The validation is NaN in each epoch; then the value is.
    let cliff = from_fn(1, |x, grad| {
        grad[0] = 1.0;
        if x[0] < -3.5 { f64::NAN } else { x[0] }
    });
    let nowhere = from_fn(1, |_, grad| {
        grad[0] = 0.0;
        f64::NAN
    });
    let run = || {
        Trainer::new(&cliff, GradientDescent::new(1.0), vec![0.0])
            .validate(&nowhere as &dyn Differentiable)
            .run()
            .unwrap()
    };
    let (out, again) = (run(), run());
    assert!(matches!(out.stop, StopReason::NonFinite { .. }) && out.history[0].validation.unwrap().is_nan());
    assert_eq!(out, again);
    assert_ne!(out, Trainer::new(&cliff, GradientDescent::new(1.0), vec![0.0]).run().unwrap());
    let checkpoint = Checkpoint::from_bytes(&small()).unwrap();
    assert_eq!(checkpoint, checkpoint.clone());
}

#[test]
fn an_infinite_validation_is_no_improvement() {
    let slope = Tape::record(&[0.0], |x| x[0] * -1.0).unwrap();
    let cliff = from_fn(1, |x, grad| {
        grad[0] = 0.0;
        if x[0] == 0.25 { f64::NEG_INFINITY } else { -x[0] }
    });
    let out = Trainer::new(&slope, GradientDescent::new(0.125), vec![0.0]).validate(cliff).max_steps(8).run().unwrap();
    assert_eq!(out.validation.unwrap().best_x, [1.0]);
}

#[test]
fn a_run_that_went_non_finite_leaves_the_checkpoints_before() {
    let folder = Folder::new("non-finite");
    let cliff = from_fn(1, |x, grad| {
        grad[0] = 1.0;
        if x[0] < -3.5 { f64::NAN } else { x[0] }
    });
    let trainer = || Trainer::new(&cliff, GradientDescent::new(1.0), vec![0.0]);
    let out = trainer().checkpoints(Checkpoints::new(&folder.0).every(2)).run().unwrap();
    assert!(matches!(out.stop, StopReason::NonFinite { step: 5, .. }));
    assert_eq!(Checkpoint::read(&folder.0).unwrap().x, [-4.0]);
    let again = trainer().resume_from(&folder.0).run().unwrap();
    assert!(matches!(again.stop, StopReason::NonFinite { step: 5, .. }));
    assert_eq!(bits(&again), bits(&out));
}

// What is refused.

/// Saves a run of six steps, and returns what the given run, which wants to go on from it, is told.
fn told<D: Differentiable, M: Method>(other: impl for<'a> FnOnce(&'a EmpiricalRisk) -> Trainer<'a, D, M>) -> String {
    let risk = risk(40);
    let folder = Folder::new("other");
    let rule = (ClipNorm(1.0), Adam::new(0.1));
    let batches = Batches::shuffled(8).seed(3);
    Trainer::new(&risk, rule, vec![0.0; 3])
        .batches(batches)
        .max_steps(6)
        .checkpoints(Checkpoints::new(&folder.0))
        .run()
        .unwrap();
    let error = other(&risk).resume_from(&folder.0).max_steps(9).run().err();
    let text = match error {
        None => return "nothing".to_owned(),
        Some(Error::Checkpoint { path, problem: problem @ CheckpointProblem::Other { .. } }) => {
            assert!(path.starts_with(&folder.0), "{}", path.display());
            problem.to_string()
        }
        Some(other) => panic!("{other}"),
    };
    let text = text.strip_prefix("the checkpoint is one of another run: its ").unwrap();
    text.strip_suffix("; resume with what wrote the checkpoint, or begin anew").unwrap().to_owned()
}

#[test]
fn checkpoints_of_other_runs() {
    let rule = || (ClipNorm(1.0), Adam::new(0.1));
    let batches = || Batches::shuffled(8).seed(3);
    let start = || vec![0.0; 3];
    // A run like it is not refused, whatever its start, its threads and its limits are.
    assert_eq!(told(|_| Trainer::new(risk(40), rule(), vec![7.0; 3]).batches(batches()).threads(3)), "nothing");
    // So is one that is validated where the saved one was not.
    assert_eq!(told(|_| Trainer::new(risk(40), rule(), start()).batches(batches()).validate(risk(9))), "nothing");
    assert_eq!(
        told(|_| Trainer::new(risk(40), Adam::new(0.1), start()).batches(batches())),
        "rule is (ClipNorm, Adam), and here it is Adam"
    );
    assert_eq!(
        told(|_| Trainer::new(risk(40), (ClipNorm(1.0), Adam::new(0.2)), start()).batches(batches())),
        "setting 1 of the rule is learning rate = 0.1, and here it is learning rate = 0.2"
    );
    assert_eq!(
        told(|_| Trainer::new(risk(40), (ClipNorm(1.0), Adam::new(0.1).eps(1e-2)), start()).batches(batches())),
        "setting 4 of the rule is eps = 0.00000001, and here it is eps = 0.01"
    );
    assert_eq!(
        told(|_| Trainer::new(risk(40), rule(), start()).batches(Batches::shuffled(8).seed(4))),
        "division into batches is Batches::shuffled(8).seed(3), and here it is Batches::shuffled(8).seed(4)"
    );
    for (other, text) in [
        (Batches::shuffled(9).seed(3), "Batches::shuffled(9).seed(3)"),
        (Batches::shuffled(8).seed(3).drop_last(true), "Batches::shuffled(8).seed(3).drop_last(true)"),
        (Batches::sequential(8), "Batches::sequential(8)"),
        (Batches::full(), "Batches::full()"),
    ] {
        let expected = format!("division into batches is Batches::shuffled(8).seed(3), and here it is {text}");
        assert_eq!(told(|_| Trainer::new(risk(40), rule(), start()).batches(other)), expected);
    }
    assert_eq!(
        told(|_| Trainer::new(risk(41), rule(), start()).batches(batches())),
        "number of samples is 40, and here it is 41"
    );
    assert_eq!(
        told(|_| Trainer::new(risk(40), rule(), start()).batches(batches()).maximise()),
        "goal is a minimum, and here it is a maximum"
    );
    let held_out = told(|_| Trainer::new(risk(40), rule(), start()).batches(batches()).hold_out(vec![3]));
    assert!(held_out.starts_with("set of held-out samples is none, and here it is 1, with the hash "));
    struct Renamed(EmpiricalRisk, Vec<String>);
    impl Differentiable for Renamed {
        fn dim(&self) -> usize {
            self.1.len().max(3)
        }
        fn num_samples(&self) -> usize {
            self.0.num_samples()
        }
        fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
            self.0.value_and_gradient(x, batch, grad)
        }
        fn names(&self) -> Vec<String> {
            self.1.clone()
        }
    }
    let renamed = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let start = vec![0.0; names.len().max(3)];
        told(|_| Trainer::new(Renamed(risk(40), names), rule(), start).batches(batches()))
    };
    assert_eq!(renamed(&["bias", "second", "first"]), "name of unknown 1 is first, and here it is second");
    assert_eq!(renamed(&[]), "name of unknown 0 is bias, and here it is without a name");
    assert_eq!(renamed(&["a", "b", "c", "d"]), "number of unknowns is 3, and here it is 4");
}

#[test]
fn another_validation_is_refused() {
    let folder = Folder::new("other-validation");
    let risk = risk(40);
    let toward = |goal: f64| {
        from_fn(3, move |x, grad| {
            grad.fill(0.0);
            (x[0] - goal).powi(2)
        })
    };
    let trainer = || Trainer::new(&risk, Adam::new(0.1), vec![0.0; 3]).max_steps(5);
    trainer().validate(toward(0.5)).checkpoints(Checkpoints::new(&folder.0)).run().unwrap();
    let further = || trainer().resume_from(&folder.0).max_steps(6);
    let error = further().validate(toward(0.25)).run().unwrap_err().to_string();
    assert!(error.contains("its value on validation samples is ") && error.contains(" at its best point"), "{error}");
    further().validate(toward(0.5)).run().unwrap();
    further().run().unwrap();
}

#[test]
fn a_rule_that_hides_its_state_is_told_before_the_first_step() {
    struct Hidden;
    impl Rule for Hidden {
        type State = Vec<f64>;
        fn init(&self, dim: usize) -> Result<Vec<f64>, Error> {
            Ok(vec![0.0; dim])
        }
        fn step(&self, _: &mut Vec<f64>, _: &Iterate<'_>, _: &mut Update<'_>) {}
    }
    let folder = Folder::new("hidden");
    let mut trainer = Trainer::new(risk(5), Hidden, vec![0.0; 3]).checkpoints(Checkpoints::new(folder.0.join("made")));
    let error = trainer.next().unwrap().unwrap_err();
    assert!(matches!(&error, Error::StateNotVisited { kind } if kind == "Hidden"), "{error}");
    assert!(folder.names().is_empty());
}

// Damaged files.

/// A small checkpoint in which every part is there: names, settings, state, history, a position within an epoch.
fn small() -> Vec<u8> {
    let folder = Folder::new(&format!("small-{:?}", std::thread::current().id()));
    let (risk, other) = (risk(20), risk(5));
    Trainer::new(&risk, (Accumulate::new(2, ClipNorm(1.0)), Adam::new(0.1), Schedule::cosine(9)), vec![0.0; 3])
        .batches(Batches::shuffled(6).seed(3))
        .validate(&other)
        .max_steps(6)
        .checkpoints(Checkpoints::new(&folder.0))
        .run()
        .unwrap();
    let bytes = fs::read(folder.0.join("step-000000000006.ckpt")).unwrap();
    assert_eq!(Checkpoint::from_bytes(&bytes).unwrap().to_bytes().unwrap(), bytes);
    bytes
}

#[test]
fn a_checkpoint_cut_off_anywhere() {
    let bytes = small();
    for length in 0..bytes.len() {
        let problem = Checkpoint::from_bytes(&bytes[..length]).unwrap_err();
        match length {
            0 => assert_eq!(problem, CheckpointProblem::NotACheckpoint),
            1..20 => assert_eq!(problem, CheckpointProblem::Length { expected: None, found: length as u64 }),
            _ => assert_eq!(
                problem,
                CheckpointProblem::Length { expected: Some(bytes.len() as u64), found: length as u64 }
            ),
        }
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(Checkpoint::from_bytes(&longer), Err(CheckpointProblem::Length { .. })));
    assert_eq!(Checkpoint::from_bytes(b"{\"step\":1}"), Err(CheckpointProblem::NotACheckpoint));
}

#[test]
fn a_checkpoint_with_any_byte_changed() {
    let bytes = small();
    let mut changed = bytes.clone();
    for position in 0..bytes.len() {
        // Every single bit, and all of them.
        for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
            changed[position] = bytes[position] ^ flip;
            let problem = Checkpoint::from_bytes(&changed).unwrap_err();
            match position {
                0..8 => assert_eq!(problem, CheckpointProblem::NotACheckpoint),
                8..12 => assert!(matches!(problem, CheckpointProblem::UnknownVersion { known: 1, .. })),
                12..20 => assert!(matches!(problem, CheckpointProblem::Length { expected: Some(_), .. })),
                _ => assert!(matches!(problem, CheckpointProblem::Checksum { .. })),
            }
        }
        changed[position] = bytes[position];
    }
    // The same in a file, as a run meets it.
    let folder = Folder::new("damaged");
    let path = folder.0.join("step-000000000006.ckpt");
    changed[100] ^= 1;
    fs::write(&path, &changed).unwrap();
    let error = Trainer::new(risk(20), Adam::new(0.1), vec![0.0; 3]).resume_from(&folder.0).run().unwrap_err();
    assert!(
        matches!(&error, Error::Checkpoint { path: told, problem: CheckpointProblem::Checksum { .. } } if *told == path)
    );
    assert!(error.to_string().contains("is damaged: its checksum is "), "{error}");
}

/// CRC-64/XZ, bit by bit.
fn crc64(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u64::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xc96c_5795_d787_0f42 } else { 0 })
    })
}

/// Someone may make files on purpose: with a checksum that is right, and anything before it.
#[test]
fn a_forged_checkpoint() {
    assert_eq!(crc64(b"123456789"), 0x995d_c9bb_df19_39fa, "the check value of CRC-64/XZ");
    let bytes = small();
    let body = 20..bytes.len() - 8;
    assert_eq!(crc64(&bytes[..body.end]).to_le_bytes(), bytes[body.end..], "the checksum is CRC-64/XZ");
    let seal = |mut bytes: Vec<u8>| {
        let end = bytes.len() - 8;
        let checksum = crc64(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        bytes
    };
    let (risk, other) = (risk(20), risk(5));
    let rule = || (Accumulate::new(2, ClipNorm(1.0)), Adam::new(0.1), Schedule::cosine(9));
    let folder = Folder::new("forged");
    let path = folder.0.join("forged.ckpt");
    let mut read = 0;
    for position in body.clone() {
        for value in [0, 1, 0x7f, 0xff, bytes[position] ^ 1] {
            let mut forged = bytes.clone();
            forged[position] = value;
            // A count of almost 2⁶⁴, too.
            if value == 0xff && position + 8 <= body.end {
                forged[position..position + 8].fill(0xff);
            }
            let forged = seal(forged);
            match Checkpoint::from_bytes(&forged) {
                Ok(_) => read += 1,
                Err(CheckpointProblem::Malformed { offset, .. }) => {
                    assert!((20..=body.end as u64).contains(&offset));
                    continue;
                }
                Err(other) => panic!("{other}"),
            }
            // What can be read does not make a run panic either.
            fs::write(&path, &forged).unwrap();
            let trainer = Trainer::new(&risk, rule(), vec![0.0; 3]).batches(Batches::shuffled(6).seed(3));
            let _ = trainer.validate(&other).max_steps(9).max_time(Duration::from_secs(1)).resume_from(&path).run();
        }
    }
    assert!(read > 100, "{read}");
    // Bytes left over, and none at all.
    for length in [body.start, body.start + 7] {
        let mut short = bytes[..length + 8].to_vec();
        short[12..20].copy_from_slice(&((length - 20) as u64).to_le_bytes());
        assert!(matches!(Checkpoint::from_bytes(&seal(short)), Err(CheckpointProblem::Malformed { .. })));
    }
    let mut long = [&bytes[..], &[0; 9]].concat();
    long[12..20].copy_from_slice(&((body.len() + 9) as u64).to_le_bytes());
    assert!(matches!(Checkpoint::from_bytes(&seal(long)), Err(CheckpointProblem::Malformed { .. })));
}

// Disks.

#[cfg(unix)]
fn in_a_process(test: &str, commands: &str, folder: &Path) -> std::process::Output {
    let command = format!("{commands}; exec \"$0\" --exact {test} --nocapture");
    let program = std::env::current_exe().unwrap();
    std::process::Command::new("sh").args(["-c", &command]).arg(program).env("CHILD", folder).output().unwrap()
}

fn child() -> Option<PathBuf> {
    std::env::var_os("CHILD").map(PathBuf::from)
}

/// A disk is full: here, because no file may grow beyond 1024 bytes (512 in some shells), and the history grows.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up() {
    let f = from_fn(1, |x, grad| {
        grad[0] = 2.0 * x[0];
        x[0] * x[0]
    });
    let trainer = |folder: &Path| {
        Trainer::new(&f, GradientDescent::new(0.01), vec![1.0])
            .max_steps(100)
            .checkpoints(Checkpoints::new(folder).every(1).keep_last(1))
            .resume_latest()
    };
    if let Some(folder) = child() {
        let error = trainer(&folder).run().unwrap_err();
        println!("{error}");
        assert!(matches!(&error, Error::Write { path, .. } if path.starts_with(&folder)), "{error}");
        return;
    }
    let folder = Folder::new("full");
    let output = in_a_process("a_disk_that_fills_up", "ulimit -f 1; trap '' XFSZ", &folder.0);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The last one that went in is there, whole and alone; from there the run goes on once there is room.
    let names = folder.names();
    let [name] = &names[..] else { panic!("{names:?}") };
    let saved = Checkpoint::read(folder.0.join(name)).unwrap();
    assert!((1..20).contains(&saved.steps), "{}", saved.steps);
    let unbroken = Trainer::new(&f, GradientDescent::new(0.01), vec![1.0]).max_steps(100).run().unwrap();
    assert_eq!(bits(&trainer(&folder.0).run().unwrap()), bits(&unbroken));
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let risk = risk(20);
    let trainer = |folder: &Path| {
        Trainer::new(&risk, Adam::new(0.1), vec![0.0; 3])
            .max_steps(4)
            .checkpoints(Checkpoints::new(folder).every(2))
            .resume_latest()
    };
    // A file stands where the folder should be.
    let folder = Folder::new("unwritable");
    fs::write(folder.0.join("file"), "").unwrap();
    let error = trainer(&folder.0.join("file/folder")).run().unwrap_err();
    assert!(matches!(error, Error::Write { .. } | Error::Read { .. }), "{error}");
    // No file can be made in /proc, nor in a folder without the permission; root may do the latter.
    if cfg!(target_os = "linux") {
        let error = trainer(Path::new("/proc/checkpoints")).run().unwrap_err();
        assert!(matches!(&error, Error::Write { path, .. } if path.starts_with("/proc/checkpoints")), "{error}");
    }
    let locked = folder.0.join("locked");
    trainer(&locked).run().unwrap();
    let before = fs::read(locked.join("step-000000000004.ckpt")).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    let is_root = fs::write(locked.join("probe"), "").is_ok();
    let result = trainer(&locked).max_steps(8).run();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root {
        eprintln!("skipped: this user may write anywhere");
    } else {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::Write { path, .. } if path.starts_with(&locked)), "{error}");
        assert!(error.to_string().contains("cannot be written: "), "{error}");
        assert_eq!(fs::read(locked.join("step-000000000004.ckpt")).unwrap(), before);
    }
}

/// Where a checkpoint should be, there is a device that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_device() {
    let folder = Folder::new("full-device");
    let risk = risk(20);
    let trainer = || {
        Trainer::new(&risk, Adam::new(0.1), vec![0.0; 3]).checkpoints(Checkpoints::new(&folder.0).every(2).keep_last(9))
    };
    trainer().max_steps(4).run().unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.0.join("step-000000000006.ckpt")).unwrap();
    // The link is no checkpoint of ours to go on from, so the run is told where to begin.
    let begin = folder.0.join("step-000000000004.ckpt");
    let error = trainer().resume_from(&begin).max_steps(8).run().unwrap_err();
    assert!(matches!(error, Error::Checkpoint { problem: CheckpointProblem::FolderInUse { step: 6 }, .. }), "{error}");
    fs::remove_file(folder.0.join("step-000000000006.ckpt")).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.0.join("best.ckpt")).unwrap();
    let best = Checkpoints::new(&folder.0).every(2).keep_best();
    let error = trainer().checkpoints(best).resume_from(&begin).max_steps(8).run().unwrap_err();
    assert!(
        matches!(&error, Error::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
    assert_eq!(Checkpoint::read(begin).unwrap().steps, 4);
}

// Runs that are killed.

/// A run of a thousand steps and more, saved again and again: in epochs of minibatches, with a rule that remembers.
fn long_run<'a>(
    risk: &'a EmpiricalRisk,
    other: &'a EmpiricalRisk,
) -> Trainer<'a, &'a EmpiricalRisk, impl Rule + use<>> {
    Trainer::new(risk, (ClipNorm(0.7), Adam::new(0.01), Schedule::cosine(1500), WeightDecay(0.01)), vec![0.5; 3])
        .batches(Batches::shuffled(150).seed(11))
        .validate(other)
        .max_steps(1500)
}

#[test]
fn a_run_killed_at_fifty_moments() {
    const KILLS: usize = 50;
    const STARTED: &str = "the run begins";
    // Batches of more than one leaf of 64, so that threads have something to share.
    let (risk, other) = (risk(400), risk(70));
    let saved = |folder: &Path| {
        long_run(&risk, &other).checkpoints(Checkpoints::new(folder).every(2).keep_last(2).keep_best()).resume_latest()
    };
    if let Some(folder) = child() {
        // The number of threads is another one each time.
        let threads: usize = std::env::var("THREADS").unwrap().parse().unwrap();
        println!("{STARTED}");
        let trainer = saved(&folder).threads(threads).observe(|_| {
            std::thread::sleep(Duration::from_micros(500));
            ControlFlow::Continue(())
        });
        trainer.run().unwrap();
        return;
    }
    if !cfg!(unix) {
        eprintln!("skipped: no SIGKILL on this system");
        return;
    }
    let folder = Folder::new("killed");
    let program = std::env::current_exe().unwrap();
    let unbroken = long_run(&risk, &other).run().unwrap();
    let (mut moment, mut killed, mut further) = (12345_u64, 0, 0);
    while killed < KILLS {
        let before = Checkpoints::new(&folder.0).latest().unwrap();
        let mut child = std::process::Command::new(&program)
            .args(["--exact", "a_run_killed_at_fifty_moments", "--nocapture"])
            .env("CHILD", &folder.0)
            .env("THREADS", [1, 2, 3, 4, 8][killed % 5].to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(STARTED)));
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((moment >> 33) % 50_000));
        let is_over = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever is there can be read.
        if let Some(latest) = Checkpoints::new(&folder.0).latest().unwrap() {
            Checkpoint::read(&latest).unwrap();
            further += usize::from(before.is_some_and(|before| before < latest));
        }
        if is_over {
            // The machine is a fast one: there is time for another run.
            assert_eq!(bits(&saved(&folder.0).run().unwrap()), bits(&unbroken));
            fs::remove_dir_all(&folder.0).unwrap();
        } else {
            killed += 1;
        }
    }
    let reached = Checkpoint::read(&folder.0).map_or(0, |checkpoint| checkpoint.steps);
    eprintln!("{KILLS} kills, {further} of them after new checkpoints, the last at step {reached}");
    assert!(further > KILLS / 10, "{further} of the killed runs came further");
    let out = saved(&folder.0).threads(3).run().unwrap();
    assert_eq!(bits(&out), bits(&unbroken));
    assert_eq!(out, unbroken);
    let names = folder.names();
    assert_eq!(names, ["best.ckpt", "step-000000001498.ckpt", "step-000000001500.ckpt"]);
}

#[test]
fn a_file_in_place_of_the_folder() {
    let folder = Folder::new("file");
    fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("file");
    fs::write(&file, "text").unwrap();
    let trainer =
        || Trainer::new(risk(20), Adam::new(0.1), vec![0.0; 3]).max_steps(1).checkpoints(Checkpoints::new(&file));
    for error in [trainer().run().unwrap_err(), trainer().resume_latest().run().unwrap_err()] {
        assert!(
            matches!(&error, Error::Checkpoint { path, problem: CheckpointProblem::NotAFolder } if *path == file),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
}

#[test]
fn a_setting_of_a_schedule_is_told_by_its_name() {
    let folder = Folder::new("named-setting");
    let trainer = |schedule| {
        Trainer::new(risk(20), (Adam::new(0.1), schedule), vec![0.0; 3])
            .max_steps(1)
            .checkpoints(Checkpoints::new(&folder.0))
    };
    trainer(Schedule::cosine(9)).run().unwrap();
    let told = |schedule| trainer(schedule).resume_latest().run().unwrap_err().to_string();
    let total = told(Schedule::cosine(10));
    assert!(total.contains("is total of steps = 9, and here it is total of steps = 10"), "{total}");
    let shape = told(Schedule::one_cycle(9));
    assert!(shape.contains("is cosine = 1, and here it is one_cycle = 1"), "{shape}");
}
