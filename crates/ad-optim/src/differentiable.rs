use crate::Error;
use ad_core::Matrix;
use std::rc::Rc;
use std::sync::Arc;

/// A function of `dim()` unknowns that can be minimised: value and gradient together.
///
/// An objective may be a mean over `num_samples()` samples,
///
/// ```text
/// f(x) = 1/N · Σᵢ fᵢ(x),      f_B(x) = 1/|B| · Σ_{i ∈ B} fᵢ(x)
/// ```
///
/// and is then asked for batches B of sample indices. A plain function has one sample, numbered 0.
///
/// Implemented for [`ad_core::Tape`] and [`ad_core::Retape`] (one output), for [`EmpiricalRisk`](crate::EmpiricalRisk),
/// for closures through [`from_fn`], and for references and boxes of all of them. The trait is object-safe.
///
/// # Example
///
/// ```
/// use ad_optim::{Differentiable, Error, GradientDescent, Trainer};
///
/// /// The mean of (x − kᵢ)² over data kᵢ, whose minimum is at the mean of the data.
/// struct Spread(Vec<f64>);
///
/// impl Differentiable for Spread {
///     fn dim(&self) -> usize {
///         1
///     }
///     fn num_samples(&self) -> usize {
///         self.0.len()
///     }
///     fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
///         let n = batch.len() as f64;
///         grad[0] = batch.iter().map(|&i| 2.0 * (x[0] - self.0[i])).sum::<f64>() / n;
///         Ok(batch.iter().map(|&i| (x[0] - self.0[i]).powi(2)).sum::<f64>() / n)
///     }
/// }
///
/// let out = Trainer::new(Spread(vec![1.0, 2.0, 6.0]), GradientDescent::new(0.1), vec![0.0])
///     .grad_tol(1e-9)
///     .run()?;
/// assert!((out.x[0] - 3.0).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
pub trait Differentiable {
    /// The number n of unknowns: the length of every point and gradient.
    fn dim(&self) -> usize;

    /// The number N of samples the objective is a mean over; 1 for a plain function.
    fn num_samples(&self) -> usize {
        1
    }

    /// The *mean* of the samples in `batch` at `x`, and its gradient.
    ///
    /// `x` and `grad` have length `dim()`. `grad` is overwritten, never added to: a trainer hands over a buffer of NaNs
    /// on its first call, so that an implementation that adds is found in the first step. `batch` holds indices below
    /// `num_samples()`, in the order in which the trainer drew them; a trainer never passes an empty batch.
    /// NaN and infinity are results, not errors: a trainer stops on them and keeps the best point.
    ///
    /// # Errors
    ///
    /// Whatever makes the evaluation impossible; see [`Error::objective`] for errors of your own. The contents of
    /// `grad` are then unspecified.
    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error>;

    /// The same as [`value_and_gradient`](Self::value_and_gradient), with up to `threads` threads.
    ///
    /// The bits of the result must not depend on `threads`. The provided method uses the calling thread alone.
    ///
    /// # Errors
    ///
    /// As for [`value_and_gradient`](Self::value_and_gradient).
    fn value_and_gradient_threads(
        &self,
        x: &[f64],
        batch: &[usize],
        grad: &mut [f64],
        threads: usize,
    ) -> Result<f64, Error> {
        let _ = threads;
        self.value_and_gradient(x, batch, grad)
    }

    /// The residuals r(x) of an objective ½·‖r(x)‖², and their Jacobian; both are given the size that they need. The
    /// provided method has none.
    ///
    /// # Errors
    ///
    /// [`Error::NoResiduals`] by the provided method; else as for
    /// [`value_and_gradient`](Self::value_and_gradient).
    fn residuals_and_jacobian(&self, x: &[f64], residuals: &mut Vec<f64>, jacobian: &mut Matrix) -> Result<(), Error> {
        let _ = (x, residuals, jacobian);
        Err(Error::NoResiduals)
    }

    /// Says where inside the evaluation of one sample at `x` the first non-finite number arose: in one line, with the
    /// operation, its operands, and the line of code.
    ///
    /// A trainer asks once, after a non-finite value or gradient, and puts the answer in
    /// [`StopReason::NonFinite`](crate::StopReason::NonFinite). Whoever is recorded on tapes has it from
    /// [`ad_core::Tape::diagnose_adjoint`]. The provided method knows nothing.
    fn describe_non_finite(&self, x: &[f64], sample: usize) -> Option<String> {
        let _ = (x, sample);
        None
    }

    /// The names of the unknowns, which a checkpoint holds against those of the run that wants to go on from it; none,
    /// or one for each. The provided method has none.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes an objective of a closure: `f(x, grad)` overwrites `grad` and returns the value.
///
/// For functions whose gradient you wrote by hand. A recorded [`ad_core::Tape`] needs no closure.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, Trainer, from_fn};
///
/// let f = from_fn(2, |x, grad| {
///     grad[0] = 2.0 * x[0];
///     grad[1] = 2.0 * x[1];
///     x[0] * x[0] + x[1] * x[1] + 6.0
/// });
/// let out = Trainer::new(&f, GradientDescent::new(0.5), vec![1.0, 1.0]).grad_tol(0.0).run()?;
/// assert_eq!((out.value, out.steps), (6.0, 1));
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn from_fn<F>(dim: usize, f: F) -> FromFn<F>
where
    F: Fn(&[f64], &mut [f64]) -> f64,
{
    FromFn { dim, f }
}

/// The objective made by [`from_fn`].
#[derive(Clone, Copy)]
pub struct FromFn<F> {
    dim: usize,
    f: F,
}

impl<F> std::fmt::Debug for FromFn<F> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("FromFn").field("dim", &self.dim).finish_non_exhaustive()
    }
}

impl<F> Differentiable for FromFn<F>
where
    F: Fn(&[f64], &mut [f64]) -> f64,
{
    fn dim(&self) -> usize {
        self.dim
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        check_lengths(self.dim, x, grad)?;
        check_batch(1, batch)?;
        Ok((self.f)(x, grad))
    }
}

/// Pointers pass every method on, the provided ones too, so that nothing an objective overrides is lost behind one.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: Differentiable + ?Sized> Differentiable for $pointer {
            fn dim(&self) -> usize {
                (**self).dim()
            }
            fn num_samples(&self) -> usize {
                (**self).num_samples()
            }
            fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
                (**self).value_and_gradient(x, batch, grad)
            }
            fn value_and_gradient_threads(
                &self,
                x: &[f64],
                batch: &[usize],
                grad: &mut [f64],
                threads: usize,
            ) -> Result<f64, Error> {
                (**self).value_and_gradient_threads(x, batch, grad, threads)
            }
            fn residuals_and_jacobian(
                &self,
                x: &[f64],
                residuals: &mut Vec<f64>,
                jacobian: &mut Matrix,
            ) -> Result<(), Error> {
                (**self).residuals_and_jacobian(x, residuals, jacobian)
            }
            fn describe_non_finite(&self, x: &[f64], sample: usize) -> Option<String> {
                (**self).describe_non_finite(x, sample)
            }
            fn names(&self) -> Vec<String> {
                (**self).names()
            }
        }
    )*};
}

forward!(&T, Box<T>, Rc<T>, Arc<T>);

/// Refuses points and gradients of the wrong length before an evaluation indexes them.
pub(crate) fn check_lengths(dim: usize, x: &[f64], grad: &[f64]) -> Result<(), Error> {
    check_point(dim, x)?;
    check_length("the gradient", dim, grad.len())
}

pub(crate) fn check_point(dim: usize, x: &[f64]) -> Result<(), Error> {
    check_length("the point", dim, x.len())
}

fn check_length(what: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    match got == expected {
        true => Ok(()),
        false => Err(Error::DimensionMismatch { what, expected, got }),
    }
}

/// Refuses batches that have no mean or that name a sample that does not exist.
pub(crate) fn check_batch(samples: usize, batch: &[usize]) -> Result<(), Error> {
    if batch.is_empty() {
        return Err(Error::EmptyBatch);
    }
    match batch.iter().find(|&&sample| sample >= samples) {
        Some(&sample) => Err(Error::SampleOutOfRange { sample, samples }),
        None => Ok(()),
    }
}
