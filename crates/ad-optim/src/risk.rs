use crate::differentiable::{check_batch, check_lengths, check_point};
use crate::{Differentiable, Error};
use ad_core::{Diagnosis, Retape, Samples, Tape, Var, Workspace};
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
///
/// A loss whose branch depends on the sample, or changes on the way, is recorded as a [`Retape`]: each sample is then
/// evaluated on the branch that it takes.
///
/// ```
/// use ad_core::Tape;
/// use ad_optim::{EmpiricalRisk, GradientDescent, Trainer};
///
/// // The Huber loss of θ against each k.
/// let loss = Tape::builder().inputs(&["theta"], &[0.0]).params(&["k"], &[0.0]).retape(|theta, k| {
///     let r = (theta[0] - k[0]).abs();
///     if r <= 1.0 { 0.5 * r * r } else { r - 0.5 }
/// })?;
/// let samples = loss.samples(&[1.0, 2.0, 3.0, 100.0])?;
/// let risk = EmpiricalRisk::new(loss, samples)?;
/// let out = Trainer::new(&risk, GradientDescent::new(0.5), vec![0.0]).grad_tol(1e-9).run()?;
/// assert!((out.x[0] - 2.5).abs() < 1e-6); // the outlier pulls no harder than any other
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmpiricalRisk<L = Tape> {
    loss: L,
    samples: Samples,
    /// Scratch memory, one a thread that evaluates at the same time: a warm evaluation allocates nothing.
    scratch: Mutex<Vec<Workspace>>,
    /// 0, 1, …, N−1, made when [`value`](EmpiricalRisk::value) is first asked for.
    all: OnceLock<Vec<usize>>,
}

impl EmpiricalRisk {
    /// The tape of the per-sample loss.
    pub fn tape(&self) -> &Tape {
        &self.loss
    }
}

impl<L: SampleLoss> EmpiricalRisk<L> {
    /// The mean of the recorded loss over `samples`, a [`Tape`] or a [`Retape`]; the parameters it was recorded with play
    /// no part.
    ///
    /// # Errors
    ///
    /// [`Error::NotScalar`] unless the loss has one output, [`Error::ParameterMismatch`] unless each sample has as many
    /// values as the loss has parameters.
    pub fn new(loss: L, samples: Samples) -> Result<Self, Error> {
        check_scalar(loss.num_outputs())?;
        if samples.width() != loss.num_params() {
            return Err(Error::ParameterMismatch { tape: loss.num_params(), sample: samples.width() });
        }
        Ok(EmpiricalRisk { loss, samples, scratch: Mutex::new(Vec::new()), all: OnceLock::new() })
    }

    /// The recorded per-sample loss.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// # use ad_optim::EmpiricalRisk;
    /// let loss = Tape::builder().inputs(&[], &[0.0]).params(&[], &[0.0]).retape(|x, k| x[0] * k[0])?;
    /// let samples = loss.samples(&[1.0, 2.0])?;
    /// let risk = EmpiricalRisk::new(loss, samples)?;
    /// println!("{}", risk.loss().stats());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loss(&self) -> &L {
        &self.loss
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
        let sum = self.with_workspace(|workspace| self.loss.sum_value_into(workspace, x, &self.samples, all))?;
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

impl<L: SampleLoss> fmt::Debug for EmpiricalRisk<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmpiricalRisk")
            .field("dim", &self.dim())
            .field("num_samples", &self.num_samples())
            .finish_non_exhaustive()
    }
}

impl<L: SampleLoss> Differentiable for EmpiricalRisk<L> {
    fn dim(&self) -> usize {
        self.loss.num_inputs()
    }

    fn num_samples(&self) -> usize {
        self.samples.len()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        check_lengths(self.dim(), x, grad)?;
        check_batch(self.num_samples(), batch)?;
        let sum =
            self.with_workspace(|workspace| self.loss.sum_gradient_into(workspace, x, &self.samples, batch, grad))?;
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
        let (sum, gradient) = self.loss.sum_gradient_threads(x, &self.samples, batch, threads)?;
        grad.copy_from_slice(&gradient);
        Ok(mean(sum, grad, batch.len()))
    }

    /// Names the first NaN or infinity in the data of the sample; where they are finite, the row of the tape that is to
    /// blame.
    fn describe_non_finite(&self, x: &[f64], sample: usize) -> Option<String> {
        if sample >= self.samples.len() {
            return None;
        }
        let data = self.samples.row(sample);
        match data.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            Some((index, value)) => Some(format!(
                "the data of sample {sample} hold {value} at parameter {index}; \
                 mend them before you try a smaller learning rate"
            )),
            None => self.loss.diagnose_at(x, data).map(|found| in_one_line(&found)),
        }
    }

    fn names(&self) -> Vec<String> {
        self.loss.input_names()
    }
}

/// What a diagnosis found: the row with its operation, its value and its line, why, and the operands.
pub(crate) fn in_one_line(found: &Diagnosis) -> String {
    // As many digits as it takes to read the same number back, with an exponent where it is far from 1.
    let number = |v: f64| format!("{v:?}");
    let at = |location: &Option<ad_core::SourceLocation>| {
        location.as_ref().map_or(String::new(), |location| format!(" at {location}"))
    };
    let origin = &found.origin;
    let (name, operation) = (&origin.name, &origin.operation);
    let derivative = origin.derivative.unwrap_or(0.0);
    let mut line = match found.what {
        ad_core::NonFinite::Value => format!("{name} = {operation} is {}", number(origin.value)),
        _ if derivative.is_finite() => format!("{name} = {operation} passes on a non-finite adjoint"),
        _ => format!("the adjoint of {name} = {operation} is {}", number(derivative)),
    };
    line += &format!("{}: {}", at(&origin.location), found.why);
    for (i, operand) in found.operands.iter().enumerate() {
        let (before, value) = (if i == 0 { "; with" } else { "," }, number(operand.value));
        line += &format!("{before} {} = {value}{}", operand.name, at(&operand.location));
    }
    if found.operands_omitted > 0 {
        line += &format!(", and {} more", found.operands_omitted);
    }
    line
}

/// A tape with one output is a function of its inputs, at the parameters it holds; it has one sample.
impl Differentiable for Tape {
    fn dim(&self) -> usize {
        self.num_inputs()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        check_scalar(self.num_outputs())?;
        check_lengths(self.num_inputs(), x, grad)?;
        check_batch(1, batch)?;
        with_scratch(|workspace| self.gradient_into(workspace, x, grad))
    }

    fn describe_non_finite(&self, x: &[f64], _sample: usize) -> Option<String> {
        self.diagnose_adjoint(x, &[1.0]).ok()?.map(|found| in_one_line(&found))
    }

    fn names(&self) -> Vec<String> {
        self.input_names()
    }
}

/// A function with one output that is recorded again where its branch changes, at the parameters it holds; it has one
/// sample.
impl<F: Fn(&[Var], &[Var]) -> Vec<Var> + ?Sized> Differentiable for Retape<F> {
    fn dim(&self) -> usize {
        self.num_inputs()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        check_scalar(self.num_outputs())?;
        check_lengths(self.num_inputs(), x, grad)?;
        check_batch(1, batch)?;
        with_scratch(|workspace| self.gradient_into(workspace, x, grad))
    }

    fn describe_non_finite(&self, x: &[f64], sample: usize) -> Option<String> {
        self.tape_at(x).ok()?.describe_non_finite(x, sample)
    }

    fn names(&self) -> Vec<String> {
        self.input_names()
    }
}

/// Lends the workspace of the thread: a recorded function has no room for scratch memory, and one workspace serves any.
fn with_scratch(gradient: impl FnOnce(&mut Workspace) -> Result<f64, ad_core::Error>) -> Result<f64, Error> {
    thread_local! {
        static SCRATCH: RefCell<Option<Workspace>> = const { RefCell::new(None) };
    }
    // Taken out while in use, so that an evaluation inside an evaluation finds none and makes its own.
    let mut workspace = SCRATCH.take().unwrap_or_default();
    let value = gradient(&mut workspace);
    SCRATCH.set(Some(workspace));
    Ok(value?)
}

/// What an [`EmpiricalRisk`] asks of the recorded loss of a sample: [`Tape`] and [`Retape`] have it.
///
/// The sums are those of ad-core, with one fold, whatever the number of threads.
pub trait SampleLoss: sealed::Sealed {
    /// The number of unknowns.
    fn num_inputs(&self) -> usize;
    /// The number of outputs; 1 for a loss.
    fn num_outputs(&self) -> usize;
    /// The number of values of one sample.
    fn num_params(&self) -> usize;
    /// The sum over the samples `idx`; see [`Tape::sum_value_into`].
    ///
    /// # Errors
    ///
    /// Those of [`Tape::sum_value_into`].
    fn sum_value_into(
        &self,
        workspace: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
    ) -> Result<f64, ad_core::Error>;
    /// The sum and its gradient; see [`Tape::sum_gradient_into`].
    ///
    /// # Errors
    ///
    /// Those of [`Tape::sum_gradient_into`].
    fn sum_gradient_into(
        &self,
        workspace: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        gradient: &mut [f64],
    ) -> Result<f64, ad_core::Error>;
    /// The sum and its gradient over threads; see [`Tape::sum_gradient_threads`].
    ///
    /// # Errors
    ///
    /// Those of [`Tape::sum_gradient_threads`].
    fn sum_gradient_threads(
        &self,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        threads: usize,
    ) -> Result<(f64, Vec<f64>), ad_core::Error>;
    /// The names of the unknowns; empty if they have none.
    fn input_names(&self) -> Vec<String>;
    /// Where the gradient of the loss of one sample goes non-finite, if it does; see [`Tape::diagnose_adjoint`].
    fn diagnose_at(&self, x: &[f64], params: &[f64]) -> Option<Diagnosis>;
}

mod sealed {
    pub trait Sealed {}
}

/// Hands every method on to the method of the same name.
macro_rules! sample_loss {
    ([$($generics:tt)*] $Loss:ty, $tape_at:expr) => {
        impl<$($generics)*> sealed::Sealed for $Loss {}
        impl<$($generics)*> SampleLoss for $Loss {
            fn num_inputs(&self) -> usize {
                self.num_inputs()
            }
            fn num_outputs(&self) -> usize {
                self.num_outputs()
            }
            fn num_params(&self) -> usize {
                self.num_params()
            }
            fn sum_value_into(
                &self,
                workspace: &mut Workspace,
                x: &[f64],
                samples: &Samples,
                idx: &[usize],
            ) -> Result<f64, ad_core::Error> {
                self.sum_value_into(workspace, x, samples, idx)
            }
            fn sum_gradient_into(
                &self,
                workspace: &mut Workspace,
                x: &[f64],
                samples: &Samples,
                idx: &[usize],
                gradient: &mut [f64],
            ) -> Result<f64, ad_core::Error> {
                self.sum_gradient_into(workspace, x, samples, idx, gradient)
            }
            fn sum_gradient_threads(
                &self,
                x: &[f64],
                samples: &Samples,
                idx: &[usize],
                threads: usize,
            ) -> Result<(f64, Vec<f64>), ad_core::Error> {
                self.sum_gradient_threads(x, samples, idx, threads)
            }
            fn input_names(&self) -> Vec<String> {
                self.input_names()
            }
            fn diagnose_at(&self, x: &[f64], params: &[f64]) -> Option<Diagnosis> {
                let of_sample = self.with_params(params).ok()?;
                ($tape_at)(&of_sample, x)?.diagnose_adjoint(x, &[1.0]).ok()?
            }
        }
    };
}
sample_loss!([] Tape, |tape: &Tape, _: &[f64]| Some(tape.clone()));
sample_loss!([F: Fn(&[Var], &[Var]) -> Vec<Var> + Send + Sync + ?Sized] Retape<F>, |retape: &Retape<F>, x: &[f64]| retape.tape_at(x).ok());

fn check_scalar(outputs: usize) -> Result<(), Error> {
    match outputs {
        1 => Ok(()),
        outputs => Err(Error::NotScalar { outputs }),
    }
}

fn mean(sum: f64, gradient: &mut [f64], count: usize) -> f64 {
    let count = count as f64;
    gradient.iter_mut().for_each(|g| *g /= count);
    sum / count
}
