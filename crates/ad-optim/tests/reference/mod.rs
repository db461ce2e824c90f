//! The references that the scripts beside this file write, and the problems that they belong to.
#![allow(clippy::unwrap_used, dead_code)] // each test file uses a part of it

use ad_core::{Samples, Tape};
use ad_optim::{Differentiable, EmpiricalRisk, Error, Method, Trainer, from_fn};
use std::collections::BTreeMap;

/// One trajectory, as the columns of the csv give it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub problem: String,
    pub rule: String,
    pub settings: String,
}

impl Case {
    /// The setting, 0 where the case has none of that name.
    pub fn setting(&self, name: &str) -> f64 {
        let setting = self.settings.split(' ').find_map(|setting| setting.strip_prefix(name)?.strip_prefix('='));
        setting.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Runs a trainer and compares its points with all those of the reference.
    pub fn compare<D: Differentiable, M: Method>(
        &self,
        reference: &Trajectory,
        mut trainer: Trainer<'_, D, M>,
    ) -> Result<(), String> {
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
                    return Err(format!("{self:?}, step {step}, x[{component}]: {x} for {expected}"));
                }
            }
        }
        match compared == reference.len() {
            true => Ok(()),
            false => Err(format!("{self:?}: the run ended before the reference did: {:?}", trainer.stop())),
        }
    }
}

/// The reference points of a case, by step.
pub type Trajectory = BTreeMap<usize, Vec<f64>>;

/// Reads a csv of the scripts.
pub fn references(text: &str) -> BTreeMap<Case, Trajectory> {
    let mut cases = BTreeMap::<Case, Trajectory>::new();
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
pub struct Logistic;

pub const BATCH: usize = 5;
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
pub fn by_hand(problem: &str) -> Box<dyn Differentiable> {
    match problem {
        "quadratic" => Box::new(from_fn(2, quadratic)),
        "rosenbrock" => Box::new(from_fn(2, rosenbrock)),
        "logistic" => Box::new(Logistic),
        other => panic!("no problem {other}"),
    }
}

/// The problems as recorded tapes.
pub fn recorded(problem: &str) -> Box<dyn Differentiable> {
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
