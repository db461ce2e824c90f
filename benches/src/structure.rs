//! Functions with structure beside their flat twins: loops that are recorded
//! once, sparse derivatives, Taylor series, operations of users, solutions of
//! equations.

use ad_core::{Custom, CustomOp, Error, Implicit, Matrix, Rule, SparseHessian, SparseJacobian, Tape, Var, Workspace};

use crate::by_hand;
use crate::measure::{self, Timings};
use crate::tasks;

/// Work that is done as often as it is told to; told 0 times, it is done once and leaves its numbers.
type Contender = Box<dyn FnMut(usize, &mut Vec<f64>) -> Result<(), Error>>;

/// The same derivative with structure, flat, and by hand where there is such.
pub struct Twin {
    /// What is computed.
    pub what: &'static str,
    /// What the structure is, and what stands beside it.
    pub how: &'static str,
    /// The rows of the tape with structure, bodies included, and of the flat one.
    pub rows: [usize; 2],
    /// The one with structure, the flat one, and perhaps the one by hand.
    contenders: Vec<Contender>,
}

impl Twin {
    /// Compares what the contenders compute, as far as rounding allows.
    ///
    /// # Errors
    ///
    /// Those of the tapes, and a text if two disagree.
    pub fn check(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let mut results = Vec::new();
        for contender in &mut self.contenders {
            let mut numbers = Vec::new();
            contender(0, &mut numbers)?;
            results.push(numbers);
        }
        let scale = results[0].iter().fold(0.0_f64, |largest, number| largest.max(number.abs()));
        for other in &results[1..] {
            let agree = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * scale;
            if other.len() != results[0].len() || !other.iter().zip(&results[0]).all(agree) {
                return Err(format!("{}: the contenders disagree", self.what).into());
            }
        }
        Ok(())
    }

    /// Times the contenders in turn: with structure, flat, by hand.
    ///
    /// # Errors
    ///
    /// Those of the tapes.
    pub fn time(&mut self, rounds: usize) -> Result<Timings, Error> {
        let failure = std::cell::Cell::new(None);
        let mut works: Vec<Box<measure::Work<'_>>> = Vec::new();
        for contender in &mut self.contenders {
            let failure = &failure;
            let mut numbers = Vec::new();
            works.push(Box::new(move |count| {
                if let Err(error) = contender(count, &mut numbers) {
                    failure.set(Some(error));
                }
            }));
        }
        let mut named: Vec<(&str, &mut measure::Work<'_>)> = works.iter_mut().map(|work| ("", &mut **work)).collect();
        let timings = measure::interleaved(&mut named, rounds);
        drop(named);
        drop(works);
        failure.take().map_or(Ok(timings), Err)
    }

    /// Whether the last contender is by hand.
    pub fn has_hand(&self) -> bool {
        self.contenders.len() == 3
    }
}

/// The rows of a tape and of the bodies that it calls.
fn rows(tape: &Tape) -> usize {
    tape.len() + tape.functions().iter().filter_map(|function| function.body()).map(rows).sum::<usize>()
}

/// A contender that computes a gradient.
fn gradient(tape: Tape, x: Vec<f64>) -> Contender {
    let mut ws = Workspace::new();
    Box::new(move |count, numbers| {
        numbers.resize(x.len(), 0.0);
        (0..count.max(1)).try_for_each(|_| tape.gradient_into(&mut ws, std::hint::black_box(&x), numbers).map(|_| ()))
    })
}

/// A contender that computes a Jacobian.
fn jacobian(tape: Tape, x: Vec<f64>) -> Contender {
    let (mut ws, mut jac) = (Workspace::new(), Matrix::default());
    Box::new(move |count, numbers| {
        for _ in 0..count.max(1) {
            tape.jacobian_into(&mut ws, std::hint::black_box(&x), &mut jac)?;
        }
        if count == 0 {
            numbers.extend_from_slice(jac.as_slice());
        }
        Ok(())
    })
}

/// A contender that runs plain code.
fn plain(mut work: impl FnMut(&mut Vec<f64>) + 'static) -> Contender {
    Box::new(move |count, numbers| {
        (0..count.max(1)).for_each(|_| work(numbers));
        Ok(())
    })
}

/// T2 by `map_sum` over the windows of x.
///
/// # Errors
///
/// Those of the recordings.
pub fn rosenbrock_by_map_sum(n: usize) -> Result<Tape, Error> {
    let term = Tape::record(&[1.0, 1.0], tasks::rosenbrock_term)?.named("term");
    Tape::record(&tasks::rosenbrock_point(n), |x| term.map_sum(x.windows(2)))
}

/// T5 by `scan`, a step after the other.
///
/// # Errors
///
/// Those of the recordings.
pub fn lotka_volterra_by_scan(steps: usize) -> Result<Tape, Error> {
    let step = |v: &[Var]| tasks::lotka_volterra_step([v[0], v[1]], [v[2], v[3], v[4], v[5]]);
    let step = Tape::record(&[2.0, 1.0, 1.5, 1.0, 3.0, 1.0], step)?.named("step");
    Tape::record(&tasks::ORBIT, |x| step.scan(&x[4..], std::iter::repeat_n(&x[..4], steps)).0)
}

/// The sine, as a user would add it.
struct Sine;

/// Its derivative.
struct Cosine;

impl CustomOp for Sine {
    fn name(&self) -> &str {
        "sine"
    }
    fn num_operands(&self) -> usize {
        1
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y[0] = Rule::sin(x[0]);
    }
    fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
        partials[0] = Rule::cos(x[0]);
    }
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        Tape::record(&[0.0], |x| Custom::new(Cosine).call(x)).map(Some)
    }
}

impl CustomOp for Cosine {
    fn name(&self) -> &str {
        "cosine"
    }
    fn num_operands(&self) -> usize {
        1
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y[0] = Rule::cos(x[0]);
    }
    fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
        partials[0] = -Rule::sin(x[0]);
    }
}

/// Newton's method for Kepler's equation E − e·sin E = M, seven steps from M.
fn anomaly<T: Rule>(mean: T, eccentricity: T) -> T {
    let step = |e: T| e - (e - eccentricity * e.sin() - mean) / (T::lit(1.0) - eccentricity * e.cos());
    (0..7).fold(mean, |e, _| step(e))
}

/// Every function with structure, and its twins.
///
/// # Errors
///
/// Those of the recordings.
pub fn twins() -> Result<Vec<Twin>, Error> {
    let mut twins = Vec::new();
    let mut twin = |what, how, rows, contenders| twins.push(Twin { what, how, rows, contenders });

    let x = tasks::rosenbrock_point(1000);
    let (rolled, flat) = (rosenbrock_by_map_sum(1000)?, Tape::record(&x, tasks::rosenbrock)?);
    let both = [rows(&rolled), rows(&flat)];
    let at = x.clone();
    let hand = plain(move |numbers| {
        numbers.resize(at.len(), 0.0);
        std::hint::black_box(by_hand::rosenbrock_gradient(std::hint::black_box(&at), numbers));
    });
    let contenders = vec![gradient(rolled.clone(), x.clone()), gradient(flat.clone(), x.clone()), hand];
    twin("T2 gradient", "map_sum over windows; a loop", both, contenders);

    let v = tasks::Generator::new(9).numbers(1000, -1.0, 1.0);
    let hvp = |tape: Tape| -> Contender {
        let (mut ws, x, v) = (Workspace::new(), x.clone(), v.clone());
        Box::new(move |count, numbers| {
            numbers.resize(x.len(), 0.0);
            (0..count.max(1))
                .try_for_each(|_| tape.hvp_into(&mut ws, std::hint::black_box(&x), &v, numbers).map(|_| ()))
        })
    };
    twin("T2 H·v", "map_sum over windows; a loop", both, vec![hvp(rolled.clone()), hvp(flat.clone())]);

    let (rolled, flat) = (lotka_volterra_by_scan(tasks::STEPS)?, Tape::record(&tasks::ORBIT, tasks::lotka_volterra)?);
    let both = [rows(&rolled), rows(&flat)];
    let hand = plain(|numbers| {
        let (_, rows) = by_hand::lotka_volterra_jacobian(std::hint::black_box(&tasks::ORBIT));
        numbers.clear();
        numbers.extend(rows.as_flattened());
    });
    let contenders =
        vec![jacobian(rolled.clone(), tasks::ORBIT.to_vec()), jacobian(flat.clone(), tasks::ORBIT.to_vec()), hand];
    twin("T5 Jacobian", "scan over steps; a loop", both, contenders);
    let vjp = |tape: Tape| -> Contender {
        let (mut ws, mut y) = (Workspace::new(), [0.0; 2]);
        Box::new(move |count, numbers| {
            numbers.resize(6, 0.0);
            (0..count.max(1)).try_for_each(|_| {
                tape.vjp_into(&mut ws, std::hint::black_box(&tasks::ORBIT), &[1.0, 0.5], &mut y, numbers)
            })
        })
    };
    twin("T5 Jᵀ·w", "scan over steps; a loop", both, vec![vjp(rolled), vjp(flat)]);
    let record = |record: fn() -> Result<Tape, Error>| -> Contender {
        Box::new(move |count, numbers| {
            for _ in 0..count.max(1) {
                let tape = std::hint::black_box(record()?);
                numbers.resize(tape.num_inputs(), 0.0);
            }
            Ok(())
        })
    };
    let contenders = vec![
        record(|| lotka_volterra_by_scan(tasks::STEPS)),
        record(|| Tape::record(&tasks::ORBIT, tasks::lotka_volterra)),
    ];
    twin("T5 recording", "scan over steps; a loop", both, contenders);

    let x = tasks::rosenbrock_point(400);
    let tape = Tape::record(&x, tasks::rosenbrock)?;
    let both = [tape.len(); 2];
    let sparse: Contender = {
        let (mut ws, x, plan) = (Workspace::new(), x.clone(), SparseHessian::new(&tape)?);
        let mut hessian = plan.values(&x)?;
        Box::new(move |count, numbers| {
            for _ in 0..count.max(1) {
                plan.values_into(&mut ws, std::hint::black_box(&x), &mut hessian)?;
            }
            if count == 0 {
                numbers.extend_from_slice(hessian.to_dense()?.as_slice());
            }
            Ok(())
        })
    };
    let full: Contender = {
        let (mut ws, mut hessian, x, tape) = (Workspace::new(), Matrix::default(), x.clone(), tape.clone());
        Box::new(move |count, numbers| {
            for _ in 0..count.max(1) {
                tape.hessian_into(&mut ws, std::hint::black_box(&x), &mut hessian)?;
            }
            if count == 0 {
                numbers.extend_from_slice(hessian.as_slice());
            }
            Ok(())
        })
    };
    twin("T2 Hessian, n = 400", "sparse, 3 colours; dense", both, vec![sparse, full]);

    let band = |x: &[Var]| -> Vec<Var> { x.windows(3).map(|w| w[0] * w[1] - w[2].sin()).collect() };
    let tape = Tape::record(&x, band)?;
    let both = [tape.len(); 2];
    let sparse: Contender = {
        let (mut ws, x, plan) = (Workspace::new(), x.clone(), SparseJacobian::new(&tape)?);
        let mut jacobian = plan.values(&x)?;
        Box::new(move |count, numbers| {
            for _ in 0..count.max(1) {
                plan.values_into(&mut ws, std::hint::black_box(&x), &mut jacobian)?;
            }
            if count == 0 {
                numbers.extend_from_slice(jacobian.to_dense()?.as_slice());
            }
            Ok(())
        })
    };
    twin("Jacobian of a band, 398 × 400", "sparse, 3 colours; dense", both, vec![sparse, jacobian(tape, x)]);

    const ORDER: usize = 4;
    let tape = Tape::record(&[0.4], |x| x[0].sin().exp() / (x[0] * x[0] + 1.0))?;
    let nested = (0..ORDER).try_fold(tape.clone(), |tape, _| tape.gradient_tape())?;
    let both = [tape.len(), nested.len()];
    let series: Contender = {
        let (mut ws, mut coefficients) = (Workspace::new(), Matrix::default());
        Box::new(move |count, numbers| {
            for _ in 0..count.max(1) {
                tape.taylor_into(&mut ws, std::hint::black_box(&[0.4]), &[1.0], ORDER, &mut coefficients)?;
            }
            numbers.clear();
            numbers.push(coefficients[(0, ORDER)] * 24.0);
            Ok(())
        })
    };
    let derivative: Contender = {
        let mut ws = Workspace::new();
        Box::new(move |count, numbers| {
            numbers.resize(1, 0.0);
            (0..count.max(1)).try_for_each(|_| nested.eval_into(&mut ws, std::hint::black_box(&[0.4]), numbers))
        })
    };
    twin("fourth derivative", "Taylor to order 4; four gradient tapes", both, vec![series, derivative]);

    let sine = Custom::new(Sine);
    let x = tasks::Generator::new(3).numbers(100, -1.0, 1.0);
    let called = Tape::record(&x, |x| {
        let sines: Vec<Var> = x.iter().map(|&x| sine.call(&[x])[0]).collect();
        Var::sum_of(&sines)
    })?;
    let flat = Tape::record(&x, |x| x.iter().map(|x| x.sin()).sum::<Var>())?;
    let both = [rows(&called), rows(&flat)];
    let contenders = vec![gradient(called, x.clone()), gradient(flat, x)];
    twin("gradient of 100 sines", "a custom operation; that of the table", both, contenders);

    let equation = Tape::record(&[1.0, 0.3, 1.2], |v| v[2] - v[1] * v[2].sin() - v[0])?;
    let solve = |x: &[f64]| Ok::<_, String>(vec![anomaly(x[0], x[1])]);
    let solution = Implicit::new(&equation, solve)?.named("anomaly");
    let x = vec![1.0, 0.3];
    let (called, flat) = (Tape::record(&x, |x| solution.call(x))?, Tape::record(&x, |x| anomaly(x[0], x[1]))?);
    let both = [rows(&called), rows(&flat)];
    let contenders = vec![gradient(called, x.clone()), gradient(flat, x)];
    twin("Kepler's equation, gradient", "implicit; seven Newton steps recorded", both, contenders);
    Ok(twins)
}
