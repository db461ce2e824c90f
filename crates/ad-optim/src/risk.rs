use crate::differentiable::{check_batch, check_lengths, check_point};
use crate::{Differentiable, Error};
use ad_core::{Samples, Tape, Workspace};
use std::cell::RefCell;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The empirical risk of a recorded per-sample loss: its mean over samples.
///
/// With a tape of the loss ℓ(θ; k), whose inputs are the unknowns θ and whose parameters are the data k of one sample,
///
/// ```text
/// f(θ) = 1/N · Σᵢ ℓ(θ; kᵢ)
/// ```
///
/// The sum is folded by ad-core in a tree whose shape depends on the length of the batch alone, so that the bits do not
/// depend on the number of threads.
///
/// # Example
///
/// A line through four points by least squares.
///
/// ```
/// use ad_core::{Samples, Tape};
/// use ad_optim::{Batches, EmpiricalRisk, GradientDescent, Trainer};
///
/// let loss = Tape::builder()
///     .inputs(&["slope", "intercept"], &[0.0, 0.0])
///     .params(&["u", "y"], &[0.0, 1.0])
///     .record(|theta, k| (theta[0] * k[0] + theta[1] - k[1]).powi(2))?;
/// let points = Samples::from_rows(&loss, &[0.0, 1.0, 1.0, 3.0, 2.0, 5.0, 3.0, 7.0])?;
/// let risk = EmpiricalRisk::new(loss, points)?;
///
/// let out = Trainer::new(&risk, GradientDescent::new(0.1), vec![0.0, 0.0])
///     .batches(Batches::shuffled(2).seed(7))
///     .max_epochs(500)
///     .run()?;
/// assert!((out.x[0] - 2.0).abs() < 1e-6 && (out.x[1] - 1.0).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmpiricalRisk {
    tape: Tape,
    samples: Samples,
    /// Scratch memory, one a thread that evaluates at the same time: a warm evaluation allocates nothing.
    scratch: Mutex<Vec<Workspace>>,
    /// 0, 1, …, N−1, made when [`value`](EmpiricalRisk::value) is first asked for.
    all: OnceLock<Vec<usize>>,
}

impl EmpiricalRisk {
    /// The mean of the loss recorded in `tape` over `samples`; the parameters the tape was recorded with play no part.
    ///
    /// # Errors
    ///
    /// [`Error::NotScalar`] unless the tape has one output, [`Error::ParameterMismatch`] unless each sample has as many
    /// values as the tape has parameters.
    pub fn new(tape: Tape, samples: Samples) -> Result<Self, Error> {
        check_scalar(&tape)?;
        if samples.width() != tape.num_params() {
            return Err(Error::ParameterMismatch { tape: tape.num_params(), sample: samples.width() });
        }
        Ok(EmpiricalRisk { tape, samples, scratch: Mutex::new(Vec::new()), all: OnceLock::new() })
    }

    /// The tape of the per-sample loss.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// The samples.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// The mean over all samples at `x`, without its gradient: how a point does on data held out from training.
    ///
    /// It has the bits of [`value_and_gradient`](Differentiable::value_and_gradient) over the samples 0 to N−1. Once
    /// warm it allocates nothing.
    ///
    /// # Errors
    ///
    /// [`Error::DimensionMismatch`] unless `x` has one component for each unknown, and [`Error::Core`] when the tape
    /// cannot be replayed: a branch that it recorded goes the other way. NaN and infinity are results, not errors.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_core::{Samples, Tape};
    /// use ad_optim::EmpiricalRisk;
    ///
    /// let loss =
    ///     Tape::builder().inputs(&["x"], &[0.0]).params(&["k"], &[0.0]).record(|x, k| (x[0] - k[0]).powi(2))?;
    /// let held_out = Samples::from_rows(&loss, &[1.0, 3.0, 5.0, 7.0])?;
    /// let risk = EmpiricalRisk::new(loss, held_out)?;
    /// assert_eq!(risk.value(&[4.0])?, 5.0); // (9 + 1 + 1 + 9) / 4
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn value(&self, x: &[f64]) -> Result<f64, Error> {
        check_point(self.dim(), x)?;
        let all = self.all.get_or_init(|| (0..self.num_samples()).collect());
        let sum = self.with_workspace(|workspace| self.tape.sum_value_into(workspace, x, &self.samples, all))?;
        Ok(sum / all.len() as f64)
    }

    /// Lends a workspace of the pool.
    fn with_workspace<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        // A thread that panicked took its workspace with it, so the pool behind a poisoned lock is sound.
        let pooled = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = pooled.unwrap_or_default();
        let result = work(&mut workspace);
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result
    }
}

impl fmt::Debug for EmpiricalRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmpiricalRisk")
            .field("dim", &self.dim())
            .field("num_samples", &self.num_samples())
            .finish_non_exhaustive()
    }
}

impl Differentiable for EmpiricalRisk {
    fn dim(&self) -> usize {
        self.tape.num_inputs()
    }

    fn num_samples(&self) -> usize {
        self.samples.len()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        check_lengths(self.dim(), x, grad)?;
        check_batch(self.num_samples(), batch)?;
        let sum =
            self.with_workspace(|workspace| self.tape.sum_gradient_into(workspace, x, &self.samples, batch, grad))?;
        Ok(mean(sum, grad, batch.len()))
    }

    fn value_and_gradient_threads(
        &self,
        x: &[f64],
        batch: &[usize],
        grad: &mut [f64],
        threads: usize,
    ) -> Result<f64, Error> {
        if threads <= 1 {
            return self.value_and_gradient(x, batch, grad);
        }
        check_lengths(self.dim(), x, grad)?;
        check_batch(self.num_samples(), batch)?;
        let (sum, gradient) = self.tape.sum_gradient_threads(x, &self.samples, batch, threads)?;
        grad.copy_from_slice(&gradient);
        Ok(mean(sum, grad, batch.len()))
    }

    /// Names the first NaN or infinity in the data of the sample. Where its data are finite, it knows nothing.
    fn describe_non_finite(&self, _x: &[f64], sample: usize) -> Option<String> {
        if sample >= self.samples.len() {
            return None;
        }
        let (index, value) = self.samples.row(sample).iter().enumerate().find(|(_, value)| !value.is_finite())?;
        Some(format!(
            "the data of sample {sample} hold {value} at parameter {index}; \
             mend them before you try a smaller learning rate"
        ))
    }
}

/// A tape with one output is a function of its inputs, at the parameters it holds; it has one sample.
impl Differentiable for Tape {
    fn dim(&self) -> usize {
        self.num_inputs()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        thread_local! {
            /// A tape has no room for scratch memory, and one workspace serves any tape.
            static SCRATCH: RefCell<Option<Workspace>> = const { RefCell::new(None) };
        }
        check_scalar(self)?;
        check_lengths(self.num_inputs(), x, grad)?;
        check_batch(1, batch)?;
        // Taken out while in use, so that an evaluation inside an evaluation finds none and makes its own.
        let mut workspace = SCRATCH.take().unwrap_or_default();
        let value = self.gradient_into(&mut workspace, x, grad);
        SCRATCH.set(Some(workspace));
        Ok(value?)
    }
}

fn check_scalar(tape: &Tape) -> Result<(), Error> {
    match tape.num_outputs() {
        1 => Ok(()),
        outputs => Err(Error::NotScalar { outputs }),
    }
}

fn mean(sum: f64, gradient: &mut [f64], count: usize) -> f64 {
    let count = count as f64;
    gradient.iter_mut().for_each(|g| *g /= count);
    sum / count
}
