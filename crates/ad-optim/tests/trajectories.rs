//! The update rules against 40-digit references, which `reference/trajectories.py` computes from the
//! papers with mpmath.
#![allow(clippy::unwrap_used)]

use ad_core::{Samples, Tape};
use ad_optim::{
    Accumulate, Adagrad, Adam, AdamW, Adamax, AmsGrad, Batches, ClipNorm, ClipValue, Differentiable, EmpiricalRisk,
    Error, GradientDescent, Groups, Iterate, Nadam, ProjectBox, RmsProp, Rule, Schedule, Trainer, Update, WeightDecay,
    from_fn,
};
use std::collections::BTreeMap;

/// One trajectory, as the columns of the csv give it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    problem: String,
    rule: String,
    settings: String,
}

impl Case {
    /// The setting, 0 where the case has none of that name.
    fn setting(&self, name: &str) -> f64 {
        let setting = self.settings.split(' ').find_map(|setting| setting.strip_prefix(name)?.strip_prefix('='));
        setting.map_or(0.0, |value| value.parse().unwrap())
    }

    fn gradient_descent(&self) -> GradientDescent {
        let rule = GradientDescent::new(self.setting("rate")).momentum(self.setting("momentum"));
        if self.setting("nesterov") == 1.0 { rule.nesterov() } else { rule }
    }

    fn adam(&self, rate: &str) -> Adam {
        let [beta1, beta2, eps] = ["beta1", "beta2", "eps"].map(|name| self.setting(name));
        Adam::new(self.setting(rate)).betas(beta1, beta2).eps(eps).l2(self.setting("l2"))
    }

    fn adamw(&self) -> AdamW {
        let [beta1, beta2, eps] = ["beta1", "beta2", "eps"].map(|name| self.setting(name));
        AdamW::new(self.setting("rate")).betas(beta1, beta2).eps(eps).weight_decay(self.setting("decay"))
    }

    /// Runs the rule that the case names on an objective and compares.
    fn check(&self, reference: &Trajectory, objective: Box<dyn Differentiable>) -> Result<(), String> {
        let [rate, beta1, beta2, eps] = ["rate", "beta1", "beta2", "eps"].map(|name| self.setting(name));
        let amsgrad = |rule: AmsGrad| check_on(&*objective, self, reference, rule.betas(beta1, beta2).eps(eps));
        let scheduled =
            |schedule: Schedule| check_on(&*objective, self, reference, (self.gradient_descent(), schedule));
        let count = |name: &str| self.setting(name) as usize;
        match self.rule.as_str() {
            "gd" | "momentum" | "nesterov" => check_on(&*objective, self, reference, self.gradient_descent()),
            "adam" | "adam_l2" => check_on(&*objective, self, reference, self.adam("rate")),
            "adamw" => check_on(&*objective, self, reference, self.adamw()),
            "amsgrad_reddi" => amsgrad(AmsGrad::reddi(rate)),
            "amsgrad_torch" => amsgrad(AmsGrad::torch(rate)),
            "amsgrad_optax" => amsgrad(AmsGrad::optax(rate)),
            "rmsprop" => {
                let mut rule = RmsProp::new(rate).decay(self.setting("decay")).eps(eps);
                rule = rule.momentum(self.setting("momentum"));
                rule = if self.setting("inside") == 1.0 { rule.eps_inside_root() } else { rule };
                rule = if self.setting("centered") == 1.0 { rule.centered() } else { rule };
                rule = if self.setting("nesterov") == 1.0 { rule.nesterov() } else { rule };
                check_on(&*objective, self, reference, rule)
            }
            "adagrad" => {
                let rule = Adagrad::new(rate).eps(eps).initial_accumulator(self.setting("initial"));
                let rule = if self.setting("inside") == 1.0 { rule.eps_inside_root() } else { rule };
                check_on(&*objective, self, reference, rule)
            }
            "adamax" => check_on(&*objective, self, reference, Adamax::new(rate).betas(beta1, beta2).eps(eps)),
            "nadam" => {
                let rule = Nadam::new(rate).betas(beta1, beta2).eps(eps);
                let psi = self.setting("psi");
                let rule = if psi < 0.0 { rule.constant_momentum() } else { rule.momentum_decay(psi) };
                check_on(&*objective, self, reference, rule)
            }
            "clipped_adam_decay" => {
                let rule = (ClipNorm(self.setting("norm")), self.adam("rate"), WeightDecay(self.setting("decay")));
                check_on(&*objective, self, reference, rule)
            }
            "value_clipped" => {
                check_on(&*objective, self, reference, (ClipValue(self.setting("most")), self.gradient_descent()))
            }
            "boxed" => {
                let project = ProjectBox::all(self.setting("lower"), self.setting("upper"));
                check_on(&*objective, self, reference, (self.gradient_descent(), project))
            }
            "cosine_adamw" => {
                let schedule = Schedule::cosine(count("total")).warm_up(count("warm_up")).end(self.setting("end"));
                check_on(&*objective, self, reference, (self.adamw(), schedule))
            }
            "one_cycle" => scheduled(Schedule::one_cycle(count("total"))),
            "polynomial" => {
                let schedule = Schedule::polynomial(count("total"), self.setting("power"));
                scheduled(schedule.end(self.setting("end")))
            }
            "stepped" => scheduled(Schedule::step(count("every"), self.setting("gamma"))),
            "exponential" => scheduled(Schedule::exponential(self.setting("gamma"))),
            "accumulated" => check_on(&*objective, self, reference, Accumulate::new(count("every"), self.adam("rate"))),
            "grouped" => {
                let first = GradientDescent::new(self.setting("rate0"));
                let rule = Groups::new().with(0..1, first).rest(self.adam("rate1"));
                check_on(&*objective, self, reference, rule)
            }
            other => panic!("no rule {other}"),
        }
    }
}

/// The reference points of a case, by step.
type Trajectory = BTreeMap<usize, Vec<f64>>;

fn references() -> BTreeMap<Case, Trajectory> {
    let mut cases = BTreeMap::<Case, Trajectory>::new();
    let text = include_str!("reference/trajectories.csv");
    for row in csv::Reader::from_reader(text.as_bytes()).records() {
        let row = row.unwrap();
        let [problem, rule, settings, step, component, x] = row.iter().collect::<Vec<_>>()[..] else {
            panic!("a row of too few columns: {row:?}");
        };
        let case = Case { problem: problem.to_owned(), rule: rule.to_owned(), settings: settings.to_owned() };
        let point = cases.entry(case).or_default().entry(step.parse().unwrap()).or_default();
        assert_eq!(point.len(), component.parse::<usize>().unwrap());
        point.push(x.parse().unwrap());
    }
    cases
}

/// The logistic regression of the reference: labels ±1, the last unknown is the intercept.
struct Logistic;

const BATCH: usize = 5;
/// The number of trajectories in the csv.
const CASES: usize = 109;
const LABELS: [f64; 12] = [1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0];
const FEATURES: [[f64; 3]; 12] = [
    [0.5, 1.25, -0.75],
    [1.5, -0.25, 0.375],
    [-1.0, 0.625, 1.125],
    [0.25, -1.5, 0.5],
    [2.0, 0.75, -0.125],
    [-0.5, -0.875, 1.75],
    [1.125, 1.0, 0.25],
    [-1.75, 0.125, -0.625],
    [0.875, -0.5, -1.25],
    [-0.25, 1.625, 0.75],
    [0.375, 0.25, -1.5],
    [-1.375, -1.125, 0.125],
];

impl Differentiable for Logistic {
    fn dim(&self) -> usize {
        4
    }

    fn num_samples(&self) -> usize {
        LABELS.len()
    }

    fn value_and_gradient(&self, theta: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        let n = batch.len() as f64;
        let mut value = 0.0;
        grad.fill(0.0);
        for &i in batch {
            let [a, b, c] = FEATURES[i];
            let row = [a, b, c, 1.0];
            let margin = LABELS[i] * row.iter().zip(theta).map(|(r, t)| r * t).sum::<f64>();
            value += (-margin).exp().ln_1p() / n;
            let weight = -LABELS[i] / (1.0 + margin.exp());
            for (g, r) in grad.iter_mut().zip(row) {
                *g += weight * r / n;
            }
        }
        Ok(value)
    }
}

fn quadratic(x: &[f64], grad: &mut [f64]) -> f64 {
    grad[0] = 2.0 * x[0];
    grad[1] = 2.0 * x[1];
    x[0] * x[0] + x[1] * x[1] + 6.0
}

fn rosenbrock(x: &[f64], grad: &mut [f64]) -> f64 {
    let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
    grad[0] = -2.0 * a - 400.0 * x[0] * b;
    grad[1] = 200.0 * b;
    a * a + 100.0 * b * b
}

/// The problems with gradients written by hand.
fn by_hand(problem: &str) -> Box<dyn Differentiable> {
    match problem {
        "quadratic" => Box::new(from_fn(2, quadratic)),
        "rosenbrock" => Box::new(from_fn(2, rosenbrock)),
        "logistic" => Box::new(Logistic),
        other => panic!("no problem {other}"),
    }
}

/// The problems as recorded tapes.
fn recorded(problem: &str) -> Box<dyn Differentiable> {
    match problem {
        "quadratic" => Box::new(Tape::record(&[1.0, 1.0], |x| x[0] * x[0] + x[1] * x[1] + 6.0).unwrap()),
        "rosenbrock" => {
            let rosenbrock = Tape::record(&[1.0, 1.0], |x| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2));
            Box::new(rosenbrock.unwrap())
        }
        "logistic" => {
            let loss = Tape::builder()
                .inputs(&["a", "b", "c", "intercept"], &[0.0; 4])
                .params(&["u", "v", "w", "label"], &[0.0; 4])
                .record(|t, k| (-k[3] * (t[0] * k[0] + t[1] * k[1] + t[2] * k[2] + t[3])).softplus())
                .unwrap();
            let rows: Vec<f64> = FEATURES.iter().zip(LABELS).flat_map(|(&[a, b, c], label)| [a, b, c, label]).collect();
            let samples = Samples::from_rows(&loss, &rows).unwrap();
            Box::new(EmpiricalRisk::new(loss, samples).unwrap())
        }
        other => panic!("no problem {other}"),
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
    let mut trainer = Trainer::new(objective, rule, start).batches(batches).max_steps(100);
    let mut compared = 0;
    while let Some(step) = trainer.next() {
        let step = step.unwrap();
        let Some(point) = reference.get(&step.step) else { continue };
        compared += 1;
        for (component, (&x, &expected)) in trainer.x().iter().zip(point).enumerate() {
            let error = (x - expected).abs() / expected.abs().max(1.0);
            // A NaN must not pass.
            if error.is_nan() || error > 1e-12 {
                let step = step.step;
                return Err(format!("{case:?}, step {step}, x[{component}]: {x} for {expected}"));
            }
        }
    }
    assert_eq!(compared, reference.len(), "{case:?}: the run ended before the reference did");
    Ok(())
}

#[test]
fn every_rule_follows_its_reference() {
    let cases = references();
    let mut failures = Vec::new();
    for (case, reference) in &cases {
        assert_eq!(Vec::from_iter(reference.keys()), [&1, &2, &3, &4, &5, &100]);
        for objective in [by_hand(&case.problem), recorded(&case.problem)] {
            failures.extend(case.check(reference, objective).err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(cases.len(), CASES);
}

/// Every case must tell itself from all others of its problem: a reference of another rule, of another variant, or of
/// another place of ε is rejected.
#[test]
fn no_rule_follows_the_reference_of_another() {
    let cases = references();
    let mut tried = 0;
    for case in cases.keys() {
        for (other, reference) in cases.iter().filter(|(other, _)| other.problem == case.problem) {
            if case != other {
                let followed = case.check(reference, by_hand(&case.problem)).is_ok();
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
    let cases = references();
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
    let cases = references();
    let mut tried = 0;
    for (case, reference) in cases.iter().filter(|(case, _)| case.rule == "momentum") {
        let rule = case.gradient_descent();
        assert!(check(case, reference, rule.clone()).is_ok());
        assert!(check(case, reference, rule.nesterov()).is_err());
        tried += 1;
    }
    assert_eq!(tried, 3);
}

#[test]
fn the_checker_rejects_an_error_in_the_twelfth_digit() {
    let cases = references();
    let (case, reference) = cases.iter().find(|(case, _)| case.rule == "gd").unwrap();
    let off = GradientDescent::new(case.setting("rate") * (1.0 + 1e-11));
    assert!(check(case, reference, off).is_err());
}
