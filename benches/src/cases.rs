//! What is timed beside what: for each task a derivative by hand and the tape's,
//! and whoever else computes the same numbers.

use std::fmt;
use std::hint::black_box;

use ad_core::{Error, Matrix, Samples, SimdLevel, Tape, Workspace};

use crate::tasks::{self, Generator, MINIBATCH, SAMPLES};
use crate::{by_hand, measure};

/// Why a case cannot be timed.
#[derive(Debug)]
pub enum Failure {
    /// The tape reports an error.
    Tape(Error),
    /// A contender's numbers are not those by hand.
    Mismatch(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Tape(error) => write!(f, "{error}"),
            Failure::Mismatch(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Tape(error)
    }
}

/// What a case computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// f(x).
    Value,
    /// f(x) and J·p.
    Jvp,
    /// f(x) and ∇f(x).
    Gradient,
    /// J(x).
    Jacobian,
    /// The sum over a minibatch of consecutive samples and its gradient.
    SumGradient,
    /// The sum over a minibatch of shuffled samples and its gradient.
    ShuffledGradient,
    /// The sum over all samples and its gradient, on several threads.
    Threads,
    /// The Jacobians at many points.
    Jacobians,
    /// The gradients at many points.
    Gradients,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Value => "value",
            Kind::Jvp => "J·p",
            Kind::Gradient => "gradient",
            Kind::Jacobian => "Jacobian",
            Kind::SumGradient => "gradient of a minibatch of 256",
            Kind::ShuffledGradient => "gradient of a shuffled minibatch of 256",
            Kind::Threads => "gradient over 4096 samples",
            Kind::Jacobians => "Jacobian at many points",
            Kind::Gradients => "gradient at many points",
        })
    }
}

type Run = dyn FnMut(usize, &mut [f64]) -> Result<(), Error>;

/// One way to compute the numbers of a case.
pub struct Contender {
    /// Whose way it is.
    pub name: String,
    /// The vector instructions that a tape is told to use.
    pub level: Option<SimdLevel>,
    run: Box<Run>,
}

impl Contender {
    /// The contender that computes by `f`: one call, one evaluation of the case.
    pub fn new(name: impl Into<String>, mut f: impl FnMut(&mut [f64]) -> Result<(), Error> + 'static) -> Contender {
        // The loop stands inside the box, so that a short `f` is inlined into
        // it and no call through a pointer is timed.
        let run = move |repetitions: usize, out: &mut [f64]| {
            for _ in 0..repetitions {
                f(black_box(&mut *out))?;
            }
            Ok(())
        };
        Contender { name: name.into(), level: None, run: Box::new(run) }
    }

    /// Computes the numbers so many times.
    ///
    /// # Errors
    ///
    /// The tape's.
    pub fn run(&mut self, repetitions: usize, out: &mut [f64]) -> Result<(), Error> {
        (self.run)(repetitions, out)
    }
}

/// A task and all who compute it; the first contender is the one by hand, then
/// comes the tape, once for each SIMD level where it computes in lanes.
pub struct Case {
    /// The task, T1 to T8.
    pub task: &'static str,
    /// What is computed.
    pub kind: Kind,
    /// The tape.
    pub tape: Tape,
    /// How many evaluations of the tape's function one call asks for.
    pub evaluations: usize,
    /// The point, for a contender to be added.
    pub x: Vec<f64>,
    /// The seed of a J·p.
    pub p: Vec<f64>,
    /// Numbers that a call computes.
    pub outputs: usize,
    /// Those who compute them.
    pub contenders: Vec<Contender>,
}

impl Case {
    /// The task and what is computed, as a title.
    pub fn title(&self) -> String {
        format!("{} {}", self.task, self.kind)
    }

    fn with(mut self, contender: Contender) -> Case {
        self.contenders.push(contender);
        self
    }

    /// Adds one who computes the same numbers.
    pub fn add(&mut self, name: impl Into<String>, f: impl FnMut(&mut [f64]) -> Result<(), Error> + 'static) {
        self.contenders.push(Contender::new(name, f));
    }

    /// Adds the tape that uses the vector instructions of `level`.
    fn add_level(&mut self, level: SimdLevel, f: impl FnMut(&mut [f64]) -> Result<(), Error> + 'static) {
        let contender = Contender::new(format!("tape, {level}"), f);
        self.contenders.push(Contender { level: Some(level), ..contender });
    }

    /// Adds other loops by hand.
    fn with_variant(mut self, name: &str, by_hand: impl Fn(&[f64], &[f64], &mut [f64]) + 'static) -> Case {
        let (x, p) = (self.x.clone(), self.p.clone());
        self.add(name, move |out| {
            by_hand(black_box(&x), black_box(&p), out);
            Ok(())
        });
        self
    }

    /// Those of the contenders that are the tape as a user has it: one, or one
    /// for each SIMD level, the best one last.
    pub fn tapes(&self) -> Vec<usize> {
        let is_tape = |contender: &Contender| contender.name == "tape" || contender.level.is_some();
        (0..self.contenders.len()).filter(|&i| is_tape(&self.contenders[i])).collect()
    }

    /// Whether every contender has the numbers by hand, to 10⁻⁹, in the first
    /// three calls: where data change, each call has others.
    ///
    /// # Errors
    ///
    /// [`Failure::Mismatch`] with the first number that differs, and the tape's
    /// errors.
    pub fn check(&mut self) -> Result<(), Failure> {
        let title = self.title();
        for call in 0..3 {
            let mut expected = vec![f64::NAN; self.outputs];
            for (contender, entry) in self.contenders.iter_mut().zip(0..) {
                let mut computed = vec![f64::NAN; self.outputs];
                contender.run(1, &mut computed)?;
                if entry == 0 {
                    expected = computed;
                    continue;
                }
                // An entry that cancels to almost nothing keeps the rounding
                // errors of its larger neighbours.
                let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
                let differs = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-9 * b.abs().max(1e-3 * largest) || a.is_nan();
                if let Some(i) = computed.iter().zip(&expected).position(differs) {
                    return Err(Failure::Mismatch(format!(
                        "{title}, call {call}: number {i} is {} computed by {}, and {} by hand",
                        computed[i], contender.name, expected[i]
                    )));
                }
            }
        }
        Ok(())
    }

    /// Times the contenders in turn. [`Case::check`] is to come before, not after:
    /// by then not all of them are at the same minibatch.
    ///
    /// # Errors
    ///
    /// The tape's.
    pub fn time(&mut self, rounds: usize) -> Result<measure::Timings, Failure> {
        let mut failure = None;
        let failed = std::cell::RefCell::new(&mut failure);
        let outputs = self.outputs;
        let mut works: Vec<(String, Box<measure::Work<'_>>)> = Vec::new();
        for contender in &mut self.contenders {
            let (name, failed) = (contender.name.clone(), &failed);
            let mut out = vec![0.0; outputs];
            let work = move |repetitions| {
                if let Err(error) = contender.run(repetitions, &mut out) {
                    **failed.borrow_mut() = Some(error);
                }
            };
            works.push((name, Box::new(work)));
        }
        let mut list: Vec<(&str, &mut measure::Work<'_>)> =
            works.iter_mut().map(|(n, w)| (n.as_str(), &mut **w)).collect();
        let timings = measure::interleaved(&mut list, rounds);
        drop(list);
        drop(works);
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(timings),
        }
    }
}

/// A case at one point: the tape computes by the driver of `kind`.
fn at_point(
    task: &'static str,
    kind: Kind,
    tape: Tape,
    x: Vec<f64>,
    by_hand: impl Fn(&[f64], &[f64], &mut [f64]) + 'static,
) -> Case {
    let (n, m) = (tape.num_inputs(), tape.num_outputs());
    let p = Generator::new(1000).numbers(n, -1.0, 1.0);
    let outputs = match kind {
        Kind::Value => m,
        Kind::Jvp => 2 * m,
        Kind::Gradient => 1 + n,
        _ => m * n,
    };
    let case = Case { task, kind, tape, evaluations: 1, x, p, outputs, contenders: Vec::new() };
    let (x, p, tape, mut ws, mut jacobian) =
        (case.x.clone(), case.p.clone(), case.tape.clone(), Workspace::new(), Matrix::default());
    let recorded = match kind {
        Kind::Value => Contender::new("tape", move |out| tape.eval_into(&mut ws, black_box(&x), out)),
        Kind::Jvp => Contender::new("tape", move |out| {
            let (y, dy) = out.split_at_mut(m);
            tape.jvp_into(&mut ws, black_box(&x), black_box(&p), y, dy)
        }),
        Kind::Gradient => Contender::new("tape", move |out| {
            out[0] = tape.gradient_into(&mut ws, black_box(&x), &mut out[1..])?;
            Ok(())
        }),
        _ => Contender::new("tape", move |out| {
            tape.jacobian_into(&mut ws, black_box(&x), &mut jacobian)?;
            out.copy_from_slice(jacobian.as_slice());
            Ok(())
        }),
    };
    let (x, p) = (case.x.clone(), case.p.clone());
    let hand = Contender::new("by hand", move |out| {
        by_hand(black_box(&x), black_box(&p), out);
        Ok(())
    });
    case.with(hand).with(recorded)
}

fn six(x: &[f64]) -> &[f64; 6] {
    x.first_chunk().unwrap_or(&tasks::ORBIT)
}

fn two(x: &[f64]) -> &[f64; 2] {
    x.first_chunk().unwrap_or(&[0.0; 2])
}

/// T1.
///
/// # Errors
///
/// Those of the recording.
pub fn classical(kind: Kind) -> Result<Case, Error> {
    let x = vec![2.0, 4.0];
    let tape = Tape::record(&x, tasks::classical)?;
    Ok(match kind {
        Kind::Value => at_point("T1", kind, tape, x, |x, _, out| out[0] = by_hand::classical_value(two(x))),
        Kind::Jvp => at_point("T1", kind, tape, x, |x, p, out| {
            let (y, dy) = by_hand::classical_jvp(two(x), two(p));
            out[0] = y;
            out[1] = dy;
        }),
        _ => at_point("T1", Kind::Gradient, tape, x, |x, _, out| {
            let (value, gradient) = out.split_at_mut(1);
            value[0] = by_hand::classical_gradient(two(x), gradient);
        }),
    })
}

/// T2. Loops that regroup their sums compete as well: no tape may do so, since
/// a recorded sum keeps its order.
///
/// # Errors
///
/// Those of the recording.
pub fn rosenbrock(kind: Kind) -> Result<Case, Error> {
    const VARIANT: &str = "by hand, vectorised";
    let x = tasks::rosenbrock_point(1000);
    let tape = Tape::record(&x, tasks::rosenbrock)?;
    Ok(match kind {
        Kind::Value => at_point("T2", kind, tape, x, |x, _, out| out[0] = by_hand::rosenbrock_value(x))
            .with_variant(VARIANT, |x, _, out| out[0] = by_hand::rosenbrock_value_vectorised(x)),
        Kind::Jvp => at_point("T2", kind, tape, x, |x, p, out| (out[0], out[1]) = by_hand::rosenbrock_jvp(x, p))
            .with_variant(VARIANT, |x, p, out| (out[0], out[1]) = by_hand::rosenbrock_jvp_vectorised(x, p)),
        _ => at_point("T2", Kind::Gradient, tape, x, |x, _, out| {
            let (value, gradient) = out.split_at_mut(1);
            value[0] = by_hand::rosenbrock_gradient(x, gradient);
        })
        .with_variant(VARIANT, |x, _, out| {
            let (value, gradient) = out.split_at_mut(1);
            value[0] = by_hand::rosenbrock_gradient_vectorised(x, gradient);
        }),
    })
}

/// The tape of T3.
///
/// # Errors
///
/// Those of the recording.
pub fn logistic_tape() -> Result<Tape, Error> {
    Tape::builder()
        .inputs(&[], &tasks::logistic_weights())
        .params(&[], &tasks::logistic_samples(1))
        .record(tasks::logistic_loss)
}

/// The tape of T4.
///
/// # Errors
///
/// Those of the recording.
pub fn network_tape() -> Result<Tape, Error> {
    Tape::builder()
        .inputs(&[], &tasks::network_weights())
        .params(&[], &tasks::network_samples(1))
        .record(tasks::network_loss)
}

/// The SIMD levels to compare, and a workspace for each.
fn levels() -> impl Iterator<Item = (SimdLevel, Workspace)> {
    SimdLevel::available().into_iter().map(|level| {
        let mut ws = Workspace::new();
        ws.set_simd_level(level);
        (level, ws)
    })
}

/// Which samples the next call takes: all calls together walk through the data,
/// since a branch predictor learns 256 samples by heart.
#[derive(Debug, Clone, Default)]
pub struct Minibatches {
    calls: usize,
}

impl Minibatches {
    /// The first sample of the next minibatch.
    pub fn next_start(&mut self) -> usize {
        let start = self.calls % (SAMPLES / MINIBATCH) * MINIBATCH;
        self.calls += 1;
        start
    }
}

/// A case over minibatches, of consecutive samples or of shuffled ones: shuffled
/// once, as before an epoch, and then taken in that order.
fn minibatch(
    task: &'static str,
    kind: Kind,
    tape: Tape,
    x: Vec<f64>,
    data: Vec<f64>,
    by_hand: impl Fn(&[f64], &[f64], &[usize], &mut [f64]) -> f64 + 'static,
) -> Result<Case, Error> {
    let samples = Samples::from_rows(&tape, &data)?;
    let order: Vec<usize> = match kind {
        Kind::ShuffledGradient => tasks::shuffled(SAMPLES),
        _ => (0..SAMPLES).collect(),
    };
    let outputs = 1 + tape.num_inputs();
    let mut case = Case { task, kind, tape, evaluations: MINIBATCH, x, p: Vec::new(), outputs, contenders: Vec::new() };
    let (x, own, mut batches) = (case.x.clone(), order.clone(), Minibatches::default());
    case.add("by hand", move |out| {
        let idx = &own[batches.next_start()..][..MINIBATCH];
        let (value, gradient) = out.split_at_mut(1);
        value[0] = by_hand(black_box(&x), &data, idx, gradient);
        Ok(())
    });
    for (level, mut ws) in levels() {
        let (x, tape, samples, order) = (case.x.clone(), case.tape.clone(), samples.clone(), order.clone());
        let mut batches = Minibatches::default();
        case.add_level(level, move |out| {
            let idx = &order[batches.next_start()..][..MINIBATCH];
            let (value, gradient) = out.split_at_mut(1);
            value[0] = tape.sum_gradient_into(&mut ws, black_box(&x), &samples, idx, gradient)?;
            Ok(())
        });
    }
    Ok(case)
}

/// T3, of consecutive or of shuffled samples.
///
/// # Errors
///
/// Those of the recording.
pub fn logistic(kind: Kind) -> Result<Case, Error> {
    let (x, data) = (tasks::logistic_weights(), tasks::logistic_samples(SAMPLES));
    minibatch("T3", kind, logistic_tape()?, x, data, by_hand::logistic_gradient)
}

/// T4, of consecutive or of shuffled samples.
///
/// # Errors
///
/// Those of the recording.
pub fn network(kind: Kind) -> Result<Case, Error> {
    let (x, data) = (tasks::network_weights(), tasks::network_samples(SAMPLES));
    minibatch("T4", kind, network_tape()?, x, data, by_hand::network_gradient)
}

/// T4 over all samples, on one thread and on several.
///
/// # Errors
///
/// Those of the recording.
pub fn network_threads(threads: &[usize]) -> Result<Case, Error> {
    let (x, data) = (tasks::network_weights(), tasks::network_samples(SAMPLES));
    let tape = network_tape()?;
    let samples = Samples::from_rows(&tape, &data)?;
    let all: Vec<usize> = (0..SAMPLES).collect();
    let mut case = Case {
        task: "T4",
        kind: Kind::Threads,
        outputs: 1 + tape.num_inputs(),
        tape,
        evaluations: SAMPLES,
        x,
        p: Vec::new(),
        contenders: Vec::new(),
    };
    let (x, idx) = (case.x.clone(), all.clone());
    case.add("by hand", move |out| {
        let (value, gradient) = out.split_at_mut(1);
        value[0] = by_hand::network_gradient(black_box(&x), &data, &idx, gradient);
        Ok(())
    });
    for &threads in threads {
        let (x, tape, samples, all) = (case.x.clone(), case.tape.clone(), samples.clone(), all.clone());
        case.add(if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }, move |out| {
            let (value, gradient) = tape.sum_gradient_threads(black_box(&x), &samples, &all, threads)?;
            out[0] = value;
            out[1..].copy_from_slice(&gradient);
            Ok(())
        });
    }
    Ok(case)
}

/// T5.
///
/// # Errors
///
/// Those of the recording.
pub fn lotka_volterra(kind: Kind) -> Result<Case, Error> {
    let x = tasks::ORBIT.to_vec();
    let tape = Tape::record(&x, tasks::lotka_volterra)?;
    Ok(match kind {
        Kind::Value => {
            at_point("T5", kind, tape, x, |x, _, out| out.copy_from_slice(&by_hand::lotka_volterra_value(six(x))))
        }
        Kind::Jvp => at_point("T5", kind, tape, x, |x, p, out| {
            let (y, dy) = by_hand::lotka_volterra_jvp(six(x), six(p));
            out[..2].copy_from_slice(&y);
            out[2..].copy_from_slice(&dy);
        }),
        _ => at_point("T5", Kind::Jacobian, tape, x, |x, _, out| {
            out.copy_from_slice(by_hand::lotka_volterra_jacobian(six(x)).1.as_flattened());
        }),
    })
}

/// T6, the gradient.
///
/// # Errors
///
/// Those of the recording.
pub fn mixture() -> Result<Case, Error> {
    let (x, data, constant) = (tasks::mixture_point(), tasks::mixture_data(), tasks::mixture_constant());
    let tape = Tape::record(&x, |x| tasks::mixture(x, &data))?;
    Ok(at_point("T6", Kind::Gradient, tape, x, move |x, _, out| {
        let (value, gradient) = out.split_at_mut(1);
        value[0] = by_hand::mixture_gradient(x, &data, constant, gradient);
    }))
}

/// T8.
///
/// # Errors
///
/// Those of the recording.
pub fn determinant(kind: Kind) -> Result<Case, Error> {
    let x = tasks::matrices(1);
    let tape = Tape::record(&x, tasks::determinant)?;
    Ok(match kind {
        Kind::Value => at_point("T8", kind, tape, x, |x, _, out| out[0] = by_hand::determinant_value(x)),
        _ => at_point("T8", Kind::Gradient, tape, x, |x, _, out| {
            let (value, gradient) = out.split_at_mut(1);
            value[0] = by_hand::determinant_gradient(x, gradient);
        }),
    })
}

/// A case at many points, `width` numbers each: the inputs, and after them the
/// parameters if there are any.
fn at_many(
    task: &'static str,
    kind: Kind,
    tape: Tape,
    points: Vec<f64>,
    by_hand: impl Fn(&[f64], &mut [f64]) + 'static,
) -> Result<Case, Error> {
    let (n, m, width) = (tape.num_inputs(), tape.num_outputs(), tape.num_inputs() + tape.num_params());
    let count = points.len() / width;
    let mut case = Case {
        task,
        kind,
        tape,
        evaluations: count,
        x: points,
        p: Vec::new(),
        outputs: count * m * n,
        contenders: Vec::new(),
    };
    let points = case.x.clone();
    case.add("by hand", move |out| {
        for (point, out) in black_box(&points).chunks_exact(width).zip(out.chunks_exact_mut(m * n)) {
            by_hand(point, out);
        }
        Ok(())
    });
    for (level, mut ws) in levels() {
        let (tape, points) = (case.tape.clone(), Matrix::from_vec(count, width, case.x.clone())?);
        let mut jacobians = Matrix::default();
        case.add_level(level, move |out| {
            tape.jacobian_many_into(&mut ws, black_box(&points), &mut jacobians)?;
            out.copy_from_slice(jacobians.as_slice());
            Ok(())
        });
    }
    let (tape, points) = (case.tape.clone(), case.x.clone());
    let (mut ws, mut jacobian) = (Workspace::new(), Matrix::default());
    case.add("tape, point by point", move |out| {
        for (point, out) in black_box(&points).chunks_exact(width).zip(out.chunks_exact_mut(m * n)) {
            let (x, params) = point.split_at(n);
            match params {
                [] => tape.jacobian_into(&mut ws, x, &mut jacobian)?,
                _ => tape.with_params(params)?.jacobian_into(&mut ws, x, &mut jacobian)?,
            }
            out.copy_from_slice(jacobian.as_slice());
        }
        Ok(())
    });
    Ok(case)
}

/// T5, the Jacobians at 64 points.
///
/// # Errors
///
/// Those of the recording.
pub fn lotka_volterra_points() -> Result<Case, Error> {
    let tape = Tape::record(&tasks::ORBIT, tasks::lotka_volterra)?;
    at_many("T5", Kind::Jacobians, tape, tasks::orbits(64), |x, out| {
        out.copy_from_slice(by_hand::lotka_volterra_jacobian(six(x)).1.as_flattened());
    })
}

/// The tape of T7.
///
/// # Errors
///
/// Those of the recording.
pub fn reprojection_tape() -> Result<Tape, Error> {
    let observations = tasks::observations();
    let (x, feature) = observations[..tasks::CAMERA + 2].split_at(tasks::CAMERA);
    Tape::builder().inputs(&[], x).params(&[], feature).record(tasks::reprojection)
}

/// T7: the Jacobians of 1000 observations.
///
/// # Errors
///
/// Those of the recording.
pub fn reprojection_points() -> Result<Case, Error> {
    at_many("T7", Kind::Jacobians, reprojection_tape()?, tasks::observations(), |point, out| {
        let (x, feature) = point.split_at(tasks::CAMERA);
        by_hand::reprojection_jacobian(x, feature, out);
    })
}

/// T8, the gradients at 64 matrices.
///
/// # Errors
///
/// Those of the recording.
pub fn determinant_points() -> Result<Case, Error> {
    let tape = Tape::record(&tasks::matrices(1), tasks::determinant)?;
    at_many("T8", Kind::Gradients, tape, tasks::matrices(64), |x, out| {
        by_hand::determinant_gradient(x, out);
    })
}

/// Every case of the tables, with the other crates where the feature `peers` is on.
///
/// # Errors
///
/// Those of the recordings.
pub fn all() -> Result<Vec<Case>, Error> {
    let mut cases = vec![
        classical(Kind::Jvp)?,
        rosenbrock(Kind::Jvp)?,
        rosenbrock(Kind::Gradient)?,
        logistic(Kind::SumGradient)?,
        logistic(Kind::ShuffledGradient)?,
        network(Kind::SumGradient)?,
        network(Kind::ShuffledGradient)?,
        lotka_volterra(Kind::Jvp)?,
        lotka_volterra(Kind::Jacobian)?,
        mixture()?,
        reprojection_points()?,
        determinant(Kind::Gradient)?,
        lotka_volterra_points()?,
        determinant_points()?,
    ];
    #[cfg(feature = "peers")]
    for case in &mut cases {
        crate::peers::join(case);
    }
    // Without the feature nothing changes the list.
    #[cfg(not(feature = "peers"))]
    let _ = &mut cases;
    Ok(cases)
}
