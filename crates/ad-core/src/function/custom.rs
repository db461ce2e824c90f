//! A user's own operation.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use crate::derive::tangent_of_custom;
use crate::error::Error;
use crate::function::{Function, FunctionMemory, Kind, Loop, NumberVec, Numbers, NumbersMut, Tangent};
use crate::record::{SourceLocation, Var, record_call, refuse_call};
use crate::rule::Rule;
use crate::tape::Tape;

mod series;

/// A function ℝⁿ → ℝᵐ with its derivative, stated by you; see [`Custom`].
///
/// What you write is evaluated wherever a tape is replayed, not only where it
/// is recorded. It must be a function of its operands: the same operands, the
/// same bits.
pub trait CustomOp: Send + Sync + 'static {
    /// The name that traces, graphs and errors show.
    fn name(&self) -> &str;

    /// n, the number of operands.
    fn num_operands(&self) -> usize;

    /// m, the number of results.
    fn num_results(&self) -> usize {
        1
    }

    /// Writes y = f(x), m numbers. Outside the domain they are NaN.
    fn value(&self, x: &[f64], y: &mut [f64]);

    /// Writes ∂yⱼ/∂xᵢ to `partials[j·n + i]`, at x with the results y.
    fn partials(&self, x: &[f64], y: &[f64], partials: &mut [f64]);

    /// The partials as a tape: n inputs x, and the m·n outputs that
    /// [`CustomOp::partials`] writes. It may call this very operation (the
    /// derivative of eˣ is eˣ), and others.
    ///
    /// Second derivatives and derivative tapes need it; without it they are
    /// [`Error::NoSecondDerivative`]. It is asked for once.
    ///
    /// # Errors
    ///
    /// Those of the recording.
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        Ok(None)
    }
}

/// An operation of your own: a [`CustomOp`] that recordings can call.
///
/// ```
/// use ad_core::{Custom, CustomOp, Error, Tape, Var};
///
/// /// A table of resistances, linear in between, that a closure could only read at one temperature.
/// struct Resistance;
///
/// impl CustomOp for Resistance {
///     fn name(&self) -> &str { "resistance" }
///     fn num_operands(&self) -> usize { 1 }
///     fn value(&self, x: &[f64], y: &mut [f64]) {
///         y[0] = if x[0] < 20.0 { 100.0 + 0.4 * x[0] } else { 108.0 + 0.3 * (x[0] - 20.0) };
///     }
///     fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
///         partials[0] = if x[0] < 20.0 { 0.4 } else { 0.3 };
///     }
/// }
///
/// let resistance = Custom::new(Resistance);
/// resistance.check_rule(&[10.0])?;
/// let tape = Tape::record(&[10.0], |x| resistance.call(x)[0] * x[0])?;
/// assert_eq!(tape.gradient(&[10.0])?, (1040.0, vec![108.0]));
/// assert_eq!(tape.gradient(&[30.0])?, (3330.0, vec![120.0])); // the other branch, no error
/// assert_eq!(tape.to_string(), "v₀ = x₁\nv₁ = resistance(v₀)\nv₂ = v₁·v₀\ny = v₂\n");
/// # Ok::<(), Error>(())
/// ```
///
/// Derivatives of any order, where the operation states its derivative as a tape:
///
/// ```
/// use ad_core::{Custom, CustomOp, Error, Tape};
///
/// struct Exponential;
/// impl CustomOp for Exponential {
///     fn name(&self) -> &str { "exponential" }
///     fn num_operands(&self) -> usize { 1 }
///     fn value(&self, x: &[f64], y: &mut [f64]) { y[0] = x[0].exp(); }
///     fn partials(&self, _x: &[f64], y: &[f64], partials: &mut [f64]) { partials[0] = y[0]; }
///     fn derivative(&self) -> Result<Option<Tape>, Error> {
///         Tape::record(&[0.0], |x| Custom::new(Exponential).call(x)).map(Some)
///     }
/// }
///
/// let tape = Tape::record(&[0.5], |x| Custom::new(Exponential).call(x))?;
/// assert_eq!(tape.hessian(&[2.0])?[(0, 0)], 2f64.exp());
/// let third = tape.gradient_tape()?.gradient_tape()?.gradient_tape()?;
/// assert_eq!(third.eval(&[2.0])?, [2f64.exp()]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Custom(Arc<Data>);

struct Data {
    op: Box<dyn CustomOp>,
    /// The function of the derivative, once it was asked for.
    derivative: OnceLock<Result<Option<Function>, Error>>,
}

impl Custom {
    /// The operation, ready to be called.
    pub fn new(op: impl CustomOp) -> Custom {
        Custom(Arc::new(Data { op: Box::new(op), derivative: OnceLock::new() }))
    }

    /// Calls the operation in a recording: one row, whose results are the m
    /// numbers f(x). With constants alone it gives constants.
    ///
    /// [`Error::CallArguments`] ends the recording unless there are n numbers.
    #[track_caller]
    pub fn call(&self, x: &[Var]) -> Vec<Var> {
        let location = Location::caller();
        let (n, m) = self.shape();
        let wrong = |what, expected, got| {
            let (function, location) = (self.0.op.name().to_owned(), SourceLocation::new(location));
            refuse_call(Error::CallArguments { function, what, expected, got, location });
            vec![Var::poisoned(); m]
        };
        if x.len() != n {
            return wrong("operands", n, x.len());
        }
        if n == 0 || m == 0 {
            return wrong("operands and results: at least so many", 1, 0);
        }
        record_call(&self.function(), x, location)
    }

    fn function(&self) -> Function {
        let (n, m) = self.shape();
        Function::new(Some(self.0.op.name().into()), Kind::Custom(self.clone()), n, m)
    }

    fn shape(&self) -> (usize, usize) {
        (self.0.op.num_operands(), self.0.op.num_results())
    }

    /// The function of the partials.
    fn derivative(&self) -> Result<&Function, Error> {
        let (n, m) = self.shape();
        let derivative = self.0.derivative.get_or_init(|| {
            let Some(tape) = self.0.op.derivative()? else { return Ok(None) };
            let name = || self.0.op.name().to_owned();
            if tape.num_inputs() != n {
                return Err(Error::RuleShape {
                    function: name(),
                    what: "inputs of the derivative",
                    expected: n,
                    got: tape.num_inputs(),
                });
            }
            if tape.num_outputs() != m * n {
                return Err(Error::RuleShape {
                    function: name(),
                    what: "outputs of the derivative",
                    expected: m * n,
                    got: tape.num_outputs(),
                });
            }
            Ok(Some(Loop::once(tape)))
        });
        match derivative {
            Ok(Some(function)) => Ok(function),
            Ok(None) => Err(Error::NoSecondDerivative { function: self.0.op.name().to_owned() }),
            Err(error) => Err(error.clone()),
        }
    }

    pub(super) fn values(&self, k: usize, x: Numbers<'_>, mut y: NumbersMut<'_>) -> Result<(), Error> {
        self.0.op.value(x.v, y.v);
        if k == 0 {
            return Ok(());
        }
        let (n, m) = self.shape();
        let mut partials = vec![0.0; n * m];
        self.0.op.partials(x.v, y.v, &mut partials);
        let y = y.reborrow();
        for (partials, tangents) in partials.chunks(n).zip(y.t.chunks_mut(k)) {
            for (d, sum) in tangents.iter_mut().enumerate() {
                let terms = (0..n).map(|i| partials[i].chain_mul(x.t[i * k + d]));
                *sum = terms.reduce(|sum, term| sum + term).unwrap_or(0.0);
            }
        }
        Ok(())
    }

    pub(super) fn adjoints(
        &self,
        k: usize,
        x: Numbers<'_>,
        w: Numbers<'_>,
        xbar: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let (n, m) = self.shape();
        // The partials, and with tangents theirs.
        let mut partials = NumberVec::default();
        partials.reset(n * m, k);
        if k > 0 {
            self.derivative()?.values(k, x, partials.view_mut(), memory)?;
        }
        let mut y = vec![0.0; m];
        self.0.op.value(x.v, &mut y);
        self.0.op.partials(x.v, &y, &mut partials.v);
        for i in 0..n {
            let of_value = (0..m).map(|j| partials.v[j * n + i].chain_mul(w.v[j]));
            xbar.v[i] = of_value.reduce(|sum, term| sum + term).unwrap_or(0.0);
            for d in 0..k {
                let term = |j: usize| {
                    let (partial, changes) = partials.get(j * n + i);
                    partial.chain_mul(w.t[j * k + d]) + changes[d].chain_mul(w.v[j])
                };
                xbar.t[i * k + d] = (0..m).map(term).reduce(|sum, term| sum + term).unwrap_or(0.0);
            }
        }
        Ok(())
    }

    /// TF: y by this operation, ẏ = J·ẋ by the function of the partials.
    pub(super) fn tangent(&self, function: &Function) -> Result<Tangent, Error> {
        let tape = tangent_of_custom(function, self.derivative()?)?;
        let m = function.num_results() as u32;
        Ok(Tangent { function: Loop::once(tape), values: (0..m).collect(), tangents: (m..2 * m).collect() })
    }

    /// Compares the stated partials at x with difference quotients, and the
    /// derivative, if there is one, with the partials and their quotients.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless there are n finite numbers, [`Error::RuleShape`] for a
    /// derivative of another shape, [`Error::WrongRule`] with the first entry
    /// that disagrees.
    pub fn check_rule(&self, x: &[f64]) -> Result<(), Error> {
        let (n, m) = self.shape();
        crate::error::expect_len("x (one number per operand)", x.len(), n)?;
        let value = |x: &[f64]| {
            let mut y = vec![0.0; m];
            self.0.op.value(x, &mut y);
            y
        };
        let partials = |x: &[f64]| {
            let mut partials = vec![0.0; m * n];
            self.0.op.partials(x, &value(x), &mut partials);
            partials
        };
        self.compare("partials", x, &partials(x), value)?;
        match self.derivative() {
            Ok(derivative) => {
                let memory = &mut FunctionMemory::default();
                let (mut jacobian, mut changes) = (NumberVec::default(), NumberVec::default());
                let mut seeds = NumberVec::default();
                seeds.reset(n, n);
                for i in 0..n {
                    seeds.t[i * n + i] = 1.0;
                }
                jacobian.reset(m * n, n);
                let point = Numbers { v: x, t: &seeds.t };
                derivative.values(n, point, jacobian.view_mut(), memory)?;
                changes.reset(m * n, 0);
                for (entry, (stated, written)) in partials(x).into_iter().zip(&jacobian.v).enumerate() {
                    if (stated - written).abs() > 1e-12 * stated.abs() {
                        let (result, operand) = (entry / n, entry % n);
                        let function = self.0.op.name().to_owned();
                        let what = "the derivative as a tape, beside the partials";
                        return Err(Error::WrongRule {
                            function,
                            what,
                            result,
                            operand,
                            stated: *written,
                            found: stated,
                        });
                    }
                }
                self.compare("the derivative of the derivative", x, &jacobian.t, partials)
            }
            Err(Error::NoSecondDerivative { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Compares the stated derivatives of f, row-major, with extrapolated difference quotients.
    fn compare(
        &self,
        what: &'static str,
        x: &[f64],
        stated: &[f64],
        f: impl Fn(&[f64]) -> Vec<f64>,
    ) -> Result<(), Error> {
        let n = x.len();
        let mut moved = x.to_vec();
        for operand in 0..n {
            let mut central = |step: f64| -> Vec<f64> {
                let (above, below) = (x[operand] + step, x[operand] - step);
                moved[operand] = above;
                let right = f(&moved);
                moved[operand] = below;
                let left = f(&moved);
                moved[operand] = x[operand];
                right.iter().zip(&left).map(|(right, left)| (right - left) / (above - below)).collect()
            };
            let step = 1e-3 * x[operand].abs().max(1e-3);
            let (coarse, fine) = (central(step), central(step / 2.0));
            for (result, (coarse, fine)) in coarse.iter().zip(&fine).enumerate() {
                let found = fine + (fine - coarse) / 3.0;
                let stated = stated[result * n + operand];
                // As far as the quotients themselves agree, and what rounding leaves of them.
                let tolerance = (fine - coarse).abs() + 1e-7 * (found.abs() + stated.abs()) + 1e-9;
                if !((stated - found).abs() <= tolerance) && found.is_finite() {
                    let function = self.0.op.name().to_owned();
                    return Err(Error::WrongRule { function, what, result, operand, stated, found });
                }
            }
        }
        Ok(())
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Custom) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, m) = self.shape();
        f.debug_struct("Custom").field("name", &self.0.op.name()).field("operands", &n).field("results", &m).finish()
    }
}
