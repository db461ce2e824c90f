//! The update rules against 40-digit references, which `reference/trajectories.py` computes from the
//! papers with mpmath.
#![allow(clippy::unwrap_used)]

mod reference;

use ad_optim::{
    Accumulate, Adagrad, Adam, AdamW, Adamax, AmsGrad, Batches, ClipNorm, ClipValue, Differentiable, Error,
    GradientDescent, Groups, Iterate, Nadam, ProjectBox, RmsProp, Rule, Schedule, Trainer, Update, WeightDecay,
};
use reference::{BATCH, Case, Trajectory, by_hand, recorded, references};
use std::collections::BTreeMap;

fn gradient_descent(case: &Case) -> GradientDescent {
    let rule = GradientDescent::new(case.setting("rate")).momentum(case.setting("momentum"));
    if case.setting("nesterov") == 1.0 { rule.nesterov() } else { rule }
}

fn adam(case: &Case, rate: &str) -> Adam {
    let [beta1, beta2, eps] = ["beta1", "beta2", "eps"].map(|name| case.setting(name));
    Adam::new(case.setting(rate)).betas(beta1, beta2).eps(eps).l2(case.setting("l2"))
}

fn adamw(case: &Case) -> AdamW {
    let [beta1, beta2, eps] = ["beta1", "beta2", "eps"].map(|name| case.setting(name));
    AdamW::new(case.setting("rate")).betas(beta1, beta2).eps(eps).weight_decay(case.setting("decay"))
}

/// Runs the rule that the case names on an objective and compares.
fn check_rule(case: &Case, reference: &Trajectory, objective: Box<dyn Differentiable>) -> Result<(), String> {
    let [rate, beta1, beta2, eps] = ["rate", "beta1", "beta2", "eps"].map(|name| case.setting(name));
    let amsgrad = |rule: AmsGrad| check_on(&*objective, case, reference, rule.betas(beta1, beta2).eps(eps));
    let scheduled = |schedule: Schedule| check_on(&*objective, case, reference, (gradient_descent(case), schedule));
    let count = |name: &str| case.setting(name) as usize;
    match case.rule.as_str() {
        "gd" | "momentum" | "nesterov" => check_on(&*objective, case, reference, gradient_descent(case)),
        "adam" | "adam_l2" => check_on(&*objective, case, reference, adam(case, "rate")),
        "adamw" => check_on(&*objective, case, reference, adamw(case)),
        "amsgrad_reddi" => amsgrad(AmsGrad::reddi(rate)),
        "amsgrad_torch" => amsgrad(AmsGrad::torch(rate)),
        "amsgrad_optax" => amsgrad(AmsGrad::optax(rate)),
        "rmsprop" => {
            let mut rule = RmsProp::new(rate).decay(case.setting("decay")).eps(eps);
            rule = rule.momentum(case.setting("momentum"));
            rule = if case.setting("inside") == 1.0 { rule.eps_inside_root() } else { rule };
            rule = if case.setting("centered") == 1.0 { rule.centered() } else { rule };
            rule = if case.setting("nesterov") == 1.0 { rule.nesterov() } else { rule };
            check_on(&*objective, case, reference, rule)
        }
        "adagrad" => {
            let rule = Adagrad::new(rate).eps(eps).initial_accumulator(case.setting("initial"));
            let rule = if case.setting("inside") == 1.0 { rule.eps_inside_root() } else { rule };
            check_on(&*objective, case, reference, rule)
        }
        "adamax" => check_on(&*objective, case, reference, Adamax::new(rate).betas(beta1, beta2).eps(eps)),
        "nadam" => {
            let rule = Nadam::new(rate).betas(beta1, beta2).eps(eps);
            let psi = case.setting("psi");
            let rule = if psi < 0.0 { rule.constant_momentum() } else { rule.momentum_decay(psi) };
            check_on(&*objective, case, reference, rule)
        }
        "clipped_adam_decay" => {
            let rule = (ClipNorm(case.setting("norm")), adam(case, "rate"), WeightDecay(case.setting("decay")));
            check_on(&*objective, case, reference, rule)
        }
        "value_clipped" => {
            check_on(&*objective, case, reference, (ClipValue(case.setting("most")), gradient_descent(case)))
        }
        "boxed" => {
            let project = ProjectBox::all(case.setting("lower"), case.setting("upper"));
            check_on(&*objective, case, reference, (gradient_descent(case), project))
        }
        "cosine_adamw" => {
            let schedule = Schedule::cosine(count("total")).warm_up(count("warm_up")).end(case.setting("end"));
            check_on(&*objective, case, reference, (adamw(case), schedule))
        }
        "one_cycle" => scheduled(Schedule::one_cycle(count("total"))),
        "polynomial" => {
            let schedule = Schedule::polynomial(count("total"), case.setting("power"));
            scheduled(schedule.end(case.setting("end")))
        }
        "stepped" => scheduled(Schedule::step(count("every"), case.setting("gamma"))),
        "exponential" => scheduled(Schedule::exponential(case.setting("gamma"))),
        "accumulated" => check_on(&*objective, case, reference, Accumulate::new(count("every"), adam(case, "rate"))),
        "grouped" => {
            let first = GradientDescent::new(case.setting("rate0"));
            let rule = Groups::new().with(0..1, first).rest(adam(case, "rate1"));
            check_on(&*objective, case, reference, rule)
        }
        other => panic!("no rule {other}"),
    }
}

/// Runs `rule` on the problem of `case` and compares every reference point.
fn check(case: &Case, reference: &Trajectory, rule: impl Rule) -> Result<(), String> {
    check_on(&*by_hand(&case.problem), case, reference, rule)
}

fn check_on(
    objective: &dyn Differentiable,
    case: &Case,
    reference: &Trajectory,
    rule: impl Rule,
) -> Result<(), String> {
    let start = match case.problem.as_str() {
        "quadratic" => vec![1.0, 1.0],
        "rosenbrock" => vec![-1.2, 1.0],
        "logistic" => vec![0.25, -0.5, 0.75, 0.0],
        other => panic!("no problem {other}"),
    };
    let batches = match case.problem.as_str() {
        "logistic" => Batches::sequential(BATCH),
        _ => Batches::full(),
    };
    case.compare(reference, Trainer::new(objective, rule, start).batches(batches).max_steps(100))
}

fn trajectories() -> BTreeMap<Case, Trajectory> {
    references(include_str!("reference/trajectories.csv"))
}

/// The number of trajectories in the csv.
const CASES: usize = 109;

#[test]
fn every_rule_follows_its_reference() {
    let cases = trajectories();
    let mut failures = Vec::new();
    for (case, reference) in &cases {
        assert_eq!(Vec::from_iter(reference.keys()), [&1, &2, &3, &4, &5, &100]);
        for objective in [by_hand(&case.problem), recorded(&case.problem)] {
            failures.extend(check_rule(case, reference, objective).err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(cases.len(), CASES);
}

/// Every case must tell itself from all others of its problem: a reference of another rule, of another variant, or of
/// another place of ε is rejected.
#[test]
fn no_rule_follows_the_reference_of_another() {
    let cases = trajectories();
    let mut tried = 0;
    for case in cases.keys() {
        for (other, reference) in cases.iter().filter(|(other, _)| other.problem == case.problem) {
            if case != other {
                let followed = check_rule(case, reference, by_hand(&case.problem)).is_ok();
                assert!(!followed, "{case:?} follows the reference of {other:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 10 * cases.len());
}

/// Adam with ε in places where it does not belong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Misplaced {
    InsideTheRoot,
    BeforeTheCorrection,
    /// Not misplaced: shows that this transcription is wrong in nothing else.
    No,
}

struct WrongAdam {
    case: Case,
    misplaced: Misplaced,
}

impl Rule for WrongAdam {
    type State = (Vec<f64>, Vec<f64>);

    fn init(&self, dim: usize) -> Result<Self::State, Error> {
        Ok((vec![0.0; dim], vec![0.0; dim]))
    }

    fn step(&self, (m, v): &mut Self::State, at: &Iterate<'_>, update: &mut Update<'_>) {
        let [rate, beta1, beta2, eps] = ["rate", "beta1", "beta2", "eps"].map(|name| self.case.setting(name));
        let correction1 = 1.0 - f64::powi(beta1, at.step as i32);
        let correction2 = 1.0 - f64::powi(beta2, at.step as i32);
        for ((d, m), v) in update.delta.iter_mut().zip(m).zip(v) {
            *m = beta1 * *m + (1.0 - beta1) * *d;
            *v = beta2 * *v + (1.0 - beta2) * *d * *d;
            let denominator = match self.misplaced {
                Misplaced::InsideTheRoot => (*v / correction2 + eps).sqrt(),
                Misplaced::BeforeTheCorrection => (v.sqrt() + eps) / correction2.sqrt(),
                Misplaced::No => (*v / correction2).sqrt() + eps,
            };
            *d = rate * (*m / correction1) / denominator;
        }
    }
}

#[test]
fn the_checker_rejects_adam_with_a_misplaced_eps() {
    use Misplaced::{BeforeTheCorrection, InsideTheRoot, No};
    let cases = trajectories();
    let adam = cases.iter().filter(|(case, _)| case.rule == "adam" && case.setting("eps") == 0.01);
    let mut tried = 0;
    for (case, reference) in adam {
        for misplaced in [InsideTheRoot, BeforeTheCorrection, No] {
            let rule = WrongAdam { case: case.clone(), misplaced };
            let accepted = check(case, reference, rule).is_ok();
            assert_eq!(accepted, misplaced == No, "{misplaced:?} on {case:?}");
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
}

#[test]
fn the_checker_tells_momentum_from_nesterov() {
    let cases = trajectories();
    let mut tried = 0;
    for (case, reference) in cases.iter().filter(|(case, _)| case.rule == "momentum") {
        let rule = gradient_descent(case);
        assert!(check(case, reference, rule.clone()).is_ok());
        assert!(check(case, reference, rule.nesterov()).is_err());
        tried += 1;
    }
    assert_eq!(tried, 3);
}

#[test]
fn the_checker_rejects_an_error_in_the_twelfth_digit() {
    let cases = trajectories();
    let (case, reference) = cases.iter().find(|(case, _)| case.rule == "gd").unwrap();
    let off = GradientDescent::new(case.setting("rate") * (1.0 + 1e-11));
    assert!(check(case, reference, off).is_err());
}
