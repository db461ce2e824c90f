//! A user's own operation.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use crate::check::{Verdict, compare_with_rule};
use crate::derive::{tangent_by_adjoint, tangent_by_partials};
use crate::error::{Error, expect_len, room_for};
use crate::function::{Function, FunctionMemory, Kind, Loop, Numbers, NumbersMut, Tangent};
use crate::record::{LIMIT, SourceLocation, Var, record_call, refuse_call};
use crate::rule::Rule;
use crate::tape::Tape;

mod series;

/// A function ℝⁿ → ℝᵐ with its partial derivatives, stated by you; see [`Custom`].
///
/// What you write is evaluated wherever a tape is replayed, not only where it
/// is recorded. It must be a function of its operands: the same operands, the
/// same bits. That cannot be checked; an operation that draws random numbers or
/// counts its calls gives values and derivatives that do not belong together.
///
/// Where the m·n partials are too many to write down, see [`CustomProducts`].
pub trait CustomOp: Send + Sync + 'static {
    /// The name that traces, graphs and errors show.
    fn name(&self) -> &str;

    /// n, the number of operands, at least 1.
    fn num_operands(&self) -> usize;

    /// m, the number of results, at least 1.
    fn num_results(&self) -> usize {
        1
    }

    /// Writes y = f(x), m numbers. Outside the domain they are NaN, and so is
    /// what is not written.
    fn value(&self, x: &[f64], y: &mut [f64]);

    /// Writes ∂yⱼ/∂xᵢ to `partials[j·n + i]`, at x with the results y. What is
    /// not written is 0. A result that is NaN though no operand is has partials
    /// that are NaN, whatever is written.
    fn partials(&self, x: &[f64], y: &[f64], partials: &mut [f64]);

    /// The partials as a tape: n inputs x, and the m·n outputs that
    /// [`CustomOp::partials`] writes. It may call this very operation (the
    /// derivative of eˣ is eˣ), and others.
    ///
    /// First derivatives come from what is stated in numbers, higher ones from
    /// this tape, in drivers and derivative tapes alike; without it those are
    /// [`Error::NoSecondDerivative`]. It is asked for once.
    ///
    /// # Errors
    ///
    /// Those of the recording.
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        Ok(None)
    }
}

/// A function ℝⁿ → ℝᵐ with the products of its Jacobian J, stated by you: for
/// one whose m·n partials are too many to write down. See [`Custom::from_products`].
///
/// What [`CustomOp`] says of values holds here. Drivers take 0·∞ for 0 in the
/// chain rule; within a product that is yours to see to.
pub trait CustomProducts: Send + Sync + 'static {
    /// The name that traces, graphs and errors show.
    fn name(&self) -> &str;

    /// n, the number of operands, at least 1.
    fn num_operands(&self) -> usize;

    /// m, the number of results, at least 1.
    fn num_results(&self) -> usize;

    /// Writes y = f(x), m numbers. Outside the domain they are NaN, and so is
    /// what is not written.
    fn value(&self, x: &[f64], y: &mut [f64]);

    /// Writes J·p, m numbers, at x with the results y; `jp` is 0 before.
    fn jvp(&self, x: &[f64], y: &[f64], p: &[f64], jp: &mut [f64]);

    /// Writes Jᵀ·w, n numbers, at x with the results y; `xbar` is 0 before.
    fn vjp(&self, x: &[f64], y: &[f64], w: &[f64], xbar: &mut [f64]);

    /// Jᵀ·w as a tape: n inputs x and then m inputs w, and n outputs. It may
    /// call this very operation, and others.
    ///
    /// First derivatives come from what is stated in numbers, higher ones from
    /// this tape, in drivers and derivative tapes alike; without it those are
    /// [`Error::NoSecondDerivative`]. It is asked for once.
    ///
    /// # Errors
    ///
    /// Those of the recording.
    fn vjp_tape(&self) -> Result<Option<Tape>, Error> {
        Ok(None)
    }
}

/// An operation of your own that recordings can call.
///
/// It comes from a [`CustomOp`] ([`Custom::new`]), from two closures
/// ([`Custom::unary`], [`Custom::scalar`]) or from [`CustomProducts`]
/// ([`Custom::from_products`]). Make it once and call it often: every value made
/// by one of these is an operation of its own, clones are the same one.
///
/// ```
/// use ad_core::{Custom, CustomOp, Error, Tape};
///
/// /// Resistances, linear in between: a branch that a closure could only take at one temperature.
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
    name: Arc<str>,
    n: usize,
    m: usize,
    rules: Arc<Rules>,
    /// The function of the derivative, once it was asked for: of x the partials,
    /// or of x and w the adjoints.
    derivative: OnceLock<Result<Option<Function>, Error>>,
}

/// What the user states.
enum Rules {
    Partials(Box<dyn CustomOp>),
    Products(Box<dyn CustomProducts>),
}

/// What [`Custom::check_rule`] could compare at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleCheck {
    /// How many stated derivatives agree with the difference quotients.
    pub agreed: usize,
    /// How many could not be compared: at a kink, at the edge of the domain, or
    /// where no quotient is accurate.
    pub not_checked: usize,
}

impl Rules {
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y.fill(f64::NAN);
        match self {
            Rules::Partials(op) => op.value(x, y),
            Rules::Products(op) => op.value(x, y),
        }
    }
}

/// Whether the result is NaN though no operand is.
fn is_outside(x: &[f64], y: f64) -> bool {
    y.is_nan() && !x.iter().any(|x| x.is_nan())
}

/// Writes the partials, those outside the domain being NaN.
fn write_partials(op: &dyn CustomOp, x: &[f64], y: &[f64], partials: &mut [f64]) {
    partials.fill(0.0);
    op.partials(x, y, partials);
    for (&y, row) in y.iter().zip(partials.chunks_mut(x.len().max(1))) {
        if is_outside(x, y) {
            row.fill(f64::NAN);
        }
    }
}

/// Writes J·p.
fn write_jvp(op: &dyn CustomProducts, x: &[f64], y: &[f64], p: &[f64], jp: &mut [f64]) {
    jp.fill(0.0);
    if p.iter().all(|&p| p == 0.0) {
        return;
    }
    op.jvp(x, y, p, jp);
    for (&y, jp) in y.iter().zip(jp) {
        if is_outside(x, y) {
            *jp = f64::NAN;
        }
    }
}

/// Writes Jᵀ·w.
fn write_vjp(op: &dyn CustomProducts, x: &[f64], y: &[f64], w: &[f64], xbar: &mut [f64]) {
    xbar.fill(0.0);
    if w.iter().all(|&w| w == 0.0) {
        return;
    }
    op.vjp(x, y, w, xbar);
    if y.iter().zip(w).any(|(&y, &w)| w != 0.0 && is_outside(x, y)) {
        xbar.fill(f64::NAN);
    }
}

/// An operation with one result, from closures.
struct Scalar<F, G> {
    name: String,
    num_operands: usize,
    value: F,
    gradient: G,
}

impl<F, G> CustomOp for Scalar<F, G>
where
    F: Fn(&[f64]) -> f64 + Send + Sync + 'static,
    G: Fn(&[f64], f64, &mut [f64]) + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }
    fn num_operands(&self) -> usize {
        self.num_operands
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y[0] = (self.value)(x);
    }
    fn partials(&self, x: &[f64], y: &[f64], partials: &mut [f64]) {
        (self.gradient)(x, y[0], partials);
    }
}

impl Custom {
    /// The operation, ready to be called.
    pub fn new(op: impl CustomOp) -> Custom {
        let (name, n, m) = (op.name().into(), op.num_operands(), op.num_results());
        Custom::from_rules(name, n, m, Arc::new(Rules::Partials(Box::new(op))))
    }

    /// The operation that states products of its Jacobian, ready to be called.
    ///
    /// ```
    /// use ad_core::{Custom, CustomProducts, Error, Tape};
    ///
    /// /// Running sums: the Jacobian is a triangle of ones, which nobody needs to see.
    /// struct RunningSums(usize);
    ///
    /// impl CustomProducts for RunningSums {
    ///     fn name(&self) -> &str { "running_sums" }
    ///     fn num_operands(&self) -> usize { self.0 }
    ///     fn num_results(&self) -> usize { self.0 }
    ///     fn value(&self, x: &[f64], y: &mut [f64]) {
    ///         let mut sum = 0.0;
    ///         for (y, x) in y.iter_mut().zip(x) { sum += x; *y = sum; }
    ///     }
    ///     fn jvp(&self, _x: &[f64], _y: &[f64], p: &[f64], jp: &mut [f64]) { self.value(p, jp); }
    ///     fn vjp(&self, _x: &[f64], _y: &[f64], w: &[f64], xbar: &mut [f64]) {
    ///         let mut sum = 0.0;
    ///         for (xbar, w) in xbar.iter_mut().zip(w).rev() { sum += w; *xbar = sum; }
    ///     }
    /// }
    ///
    /// let sums = Custom::from_products(RunningSums(1000));
    /// let x = vec![1.0; 1000];
    /// let tape = Tape::record(&x, |x| sums.call(x)[999])?;
    /// assert_eq!(tape.gradient(&x)?, (1000.0, vec![1.0; 1000]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_products(op: impl CustomProducts) -> Custom {
        let (name, n, m) = (op.name().into(), op.num_operands(), op.num_results());
        Custom::from_rules(name, n, m, Arc::new(Rules::Products(Box::new(op))))
    }

    /// An operation of one operand: y = `value`(x), dy/dx = `slope`(x, y).
    ///
    /// ```
    /// use ad_core::{Custom, Tape};
    /// let cube = Custom::unary("cube", |x| x * x * x, |x, _y| 3.0 * x * x);
    /// cube.check_rule(&[2.0])?;
    /// let tape = Tape::record(&[1.0], |x| cube.call(x))?;
    /// assert_eq!(tape.gradient(&[2.0])?, (8.0, vec![12.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn unary(
        name: &str,
        value: impl Fn(f64) -> f64 + Send + Sync + 'static,
        slope: impl Fn(f64, f64) -> f64 + Send + Sync + 'static,
    ) -> Custom {
        let gradient = move |x: &[f64], y: f64, gradient: &mut [f64]| gradient[0] = slope(x[0], y);
        Custom::scalar(name, 1, move |x| value(x[0]), gradient)
    }

    /// An operation of n operands and one result: y = `value`(x), and
    /// `gradient`(x, y, g) writes ∂y/∂xᵢ to `g[i]`, which is 0 before.
    ///
    /// ```
    /// use ad_core::{Custom, Tape};
    /// let product = Custom::scalar("product", 2, |x| x[0] * x[1], |x, _y, g| {
    ///     g[0] = x[1];
    ///     g[1] = x[0];
    /// });
    /// let tape = Tape::record(&[1.0, 1.0], |x| product.call(x))?;
    /// assert_eq!(tape.gradient(&[2.0, 5.0])?, (10.0, vec![5.0, 2.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn scalar(
        name: &str,
        num_operands: usize,
        value: impl Fn(&[f64]) -> f64 + Send + Sync + 'static,
        gradient: impl Fn(&[f64], f64, &mut [f64]) + Send + Sync + 'static,
    ) -> Custom {
        Custom::new(Scalar { name: name.to_owned(), num_operands, value, gradient })
    }

    /// The same operation with its derivative as a tape, as
    /// [`CustomOp::derivative`] or [`CustomProducts::vjp_tape`] would give it.
    ///
    /// # Errors
    ///
    /// [`Error::RuleShape`] unless the tape has the inputs and outputs that belong to it.
    ///
    /// ```
    /// use ad_core::{Custom, Tape};
    /// let slope = Tape::record(&[1.0], |x| 3.0 * x[0] * x[0])?;
    /// let cube = Custom::unary("cube", |x| x * x * x, |x, _y| 3.0 * x * x).with_derivative(&slope)?;
    /// let tape = Tape::record(&[1.0], |x| cube.call(x))?;
    /// assert_eq!(tape.hessian(&[2.0])?[(0, 0)], 12.0);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn with_derivative(&self, derivative: &Tape) -> Result<Custom, Error> {
        let Data { ref name, n, m, ref rules, .. } = *self.0;
        let custom = Custom::from_rules(name.clone(), n, m, rules.clone());
        let function = custom.function_of(derivative.clone())?;
        custom.0.derivative.get_or_init(|| Ok(Some(function)));
        Ok(custom)
    }

    fn from_rules(name: Arc<str>, n: usize, m: usize, rules: Arc<Rules>) -> Custom {
        Custom(Arc::new(Data { name, n, m, rules, derivative: OnceLock::new() }))
    }

    /// Calls the operation in a recording: one row, whose results are the m
    /// numbers f(x). With constants alone it gives constants.
    ///
    /// [`Error::CallArguments`] ends the recording unless there are n numbers,
    /// [`Error::TooLarge`] if m is more than an index can name.
    #[track_caller]
    pub fn call(&self, x: &[Var]) -> Vec<Var> {
        let location = Location::caller();
        let Data { ref name, n, m, .. } = *self.0;
        if m > LIMIT {
            let location = SourceLocation::new(location);
            refuse_call(Error::TooLarge { location, what: "results of one call", limit: LIMIT });
            return vec![Var::poisoned()];
        }
        let wrong = |what, expected, got| {
            let (function, location) = (name.to_string(), SourceLocation::new(location));
            refuse_call(Error::CallArguments { function, what, expected, got, location });
            vec![Var::poisoned(); m]
        };
        if x.len() != n {
            return wrong("operands", n, x.len());
        }
        if n == 0 || m == 0 {
            return wrong("operands and results, at least", 1, 0);
        }
        record_call(&Function::new(Some(name.clone()), Kind::Custom(self.clone()), n, m), x, location)
    }

    /// The function of a derivative that is a tape.
    fn function_of(&self, tape: Tape) -> Result<Function, Error> {
        let Data { ref name, n, m, ref rules, .. } = *self.0;
        let (inputs, outputs) = match **rules {
            Rules::Partials(_) => (n, m.saturating_mul(n)),
            Rules::Products(_) => (n.saturating_add(m), n),
        };
        let shape = [
            ("inputs of the derivative", inputs, tape.num_inputs()),
            ("outputs of the derivative", outputs, tape.num_outputs()),
        ];
        match shape.into_iter().find(|(_, expected, got)| expected != got) {
            Some((what, expected, got)) => Err(Error::RuleShape { function: name.to_string(), what, expected, got }),
            None => Ok(Loop::once(tape)),
        }
    }

    /// The function of the derivative.
    fn derivative(&self) -> Result<&Function, Error> {
        let derivative = self.0.derivative.get_or_init(|| {
            let tape = match &*self.0.rules {
                Rules::Partials(op) => op.derivative()?,
                Rules::Products(op) => op.vjp_tape()?,
            };
            tape.map(|tape| self.function_of(tape)).transpose()
        });
        match derivative {
            Ok(Some(function)) => Ok(function),
            Ok(None) => Err(Error::NoSecondDerivative { function: self.0.name.to_string(), location: None }),
            Err(error) => Err(error.clone()),
        }
    }

    pub(super) fn values(
        &self,
        k: usize,
        x: Numbers<'_>,
        y: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let Data { n, m, ref rules, .. } = *self.0;
        rules.value(x.v, y.v);
        if k == 0 {
            return Ok(());
        }
        memory.borrow(|_, [partials, p, jp]| match &**rules {
            Rules::Partials(op) => {
                partials.reset(n * m, 0);
                write_partials(&**op, x.v, y.v, &mut partials.v);
                for (partials, tangents) in partials.v.chunks(n).zip(y.t.chunks_mut(k)) {
                    for (d, sum) in tangents.iter_mut().enumerate() {
                        let terms = (0..n).map(|i| partials[i].chain_mul(x.t[i * k + d]));
                        *sum = terms.reduce(|sum, term| sum + term).unwrap_or(0.0);
                    }
                }
            }
            Rules::Products(op) => {
                p.reset(n, 0);
                jp.reset(m, 0);
                for d in 0..k {
                    for (i, p) in p.v.iter_mut().enumerate() {
                        *p = x.t[i * k + d];
                    }
                    write_jvp(&**op, x.v, y.v, &p.v, &mut jp.v);
                    for (j, &jp) in jp.v.iter().enumerate() {
                        y.t[j * k + d] = jp;
                    }
                }
            }
        });
        Ok(())
    }

    pub(super) fn adjoints(
        &self,
        k: usize,
        x: Numbers<'_>,
        w: Numbers<'_>,
        mut xbar: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let Data { n, m, ref rules, .. } = *self.0;
        memory.borrow(|memory, [y, stated]| {
            y.reset(m, 0);
            rules.value(x.v, &mut y.v);
            match &**rules {
                Rules::Partials(op) => {
                    // The partials, and with tangents theirs.
                    stated.reset(n * m, k);
                    if k > 0 {
                        self.derivative()?.values(k, x, stated.view_mut(), memory)?;
                    }
                    write_partials(&**op, x.v, &y.v, &mut stated.v);
                    for i in 0..n {
                        let of_value = (0..m).map(|j| stated.v[j * n + i].chain_mul(w.v[j]));
                        xbar.v[i] = of_value.reduce(|sum, term| sum + term).unwrap_or(0.0);
                        for d in 0..k {
                            let term = |j: usize| {
                                let (partial, changes) = stated.get(j * n + i);
                                let change = if is_outside(x.v, y.v[j]) { f64::NAN } else { changes[d] };
                                partial.chain_mul(w.t[j * k + d]) + change.chain_mul(w.v[j])
                            };
                            xbar.t[i * k + d] = (0..m).map(term).reduce(|sum, term| sum + term).unwrap_or(0.0);
                        }
                    }
                }
                Rules::Products(op) => {
                    if k > 0 {
                        stated.reset(n + m, k);
                        for i in 0..n {
                            stated.set(i, x.get(i, k));
                        }
                        for j in 0..m {
                            stated.set(n + j, w.get(j, k));
                        }
                        self.derivative()?.values(k, stated.view(), xbar.reborrow(), memory)?;
                        let outside = |j: usize| is_outside(x.v, y.v[j]);
                        for d in 0..k {
                            if (0..m).any(|j| outside(j) && (w.v[j] != 0.0 || w.t[j * k + d] != 0.0)) {
                                (0..n).for_each(|i| xbar.t[i * k + d] = f64::NAN);
                            }
                        }
                    }
                    write_vjp(&**op, x.v, &y.v, w.v, xbar.v);
                }
            }
            Ok(())
        })
    }

    /// TF: y by this operation, ẏ = J·ẋ by the function of the derivative.
    pub(super) fn tangent(&self, function: &Function) -> Result<Tangent, Error> {
        let tape = match *self.0.rules {
            Rules::Partials(_) => tangent_by_partials(function, self.derivative()?),
            Rules::Products(_) => tangent_by_adjoint(function, self.derivative()?),
        };
        let m = self.0.m as u32;
        Ok(Tangent { function: Loop::once(tape), values: (0..m).collect(), tangents: (m..2 * m).collect() })
    }

    /// Checks what you state at the point x (n numbers) and says how much of it could be checked:
    ///
    /// - each partial ∂yⱼ/∂xᵢ beside central difference quotients of the value, at steps
    ///   from the scale of xᵢ and of 1 downwards, extrapolated to 0;
    /// - of [`CustomProducts`], Jᵀ·w beside J·p, in unit vectors;
    /// - the derivative as a tape, if there is one: its outputs beside the
    ///   partials or products, and its own derivatives beside quotients of those.
    ///
    /// An alarm is raised only where quotients of several steps agree with each
    /// other to about four digits and not with what is stated to about six.
    /// At kinks, at the edge of the domain and where rounding spoils the
    /// quotients nothing is compared. So check at several points, and look at
    /// [`RuleCheck::agreed`].
    ///
    /// It takes some hundred evaluations for each operand.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless there are n numbers, [`Error::NonFinitePoint`]
    /// unless they are finite, [`Error::RuleShape`] for a derivative of another
    /// shape, [`Error::WrongRule`] with the first entry that disagrees; those of
    /// the recording of the derivative.
    ///
    /// ```
    /// use ad_core::{Custom, Error};
    /// let wrong = Custom::unary("cube", |x| x * x * x, |x, _y| 2.0 * x * x);
    /// assert!(matches!(wrong.check_rule(&[2.0]), Err(Error::WrongRule { stated: 8.0, .. })));
    ///
    /// let size = Custom::unary("size", f64::abs, |x, _y| x.signum());
    /// assert_eq!(size.check_rule(&[2.0])?.agreed, 1);
    /// assert_eq!(size.check_rule(&[0.0])?.not_checked, 1); // a kink
    /// # Ok::<(), Error>(())
    /// ```
    pub fn check_rule(&self, x: &[f64]) -> Result<RuleCheck, Error> {
        let Data { n, m, ref rules, .. } = *self.0;
        expect_len("x (one number per operand)", x.len(), n)?;
        if let Some(index) = x.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinitePoint { what: "x", index, value: x[index] });
        }
        room_for::<f64>("the derivatives of the operation", m, n)?;
        let mut check = RuleCheck { agreed: 0, not_checked: 0 };
        let value = |x: &[f64]| {
            let mut y = vec![0.0; m];
            rules.value(x, &mut y);
            y
        };
        let y = value(x);
        let unit = |len: usize, i: usize| -> Vec<f64> { (0..len).map(|j| f64::from(u8::from(i == j))).collect() };
        match &**rules {
            Rules::Partials(op) => {
                let partials = |x: &[f64]| {
                    let mut partials = vec![0.0; m * n];
                    write_partials(&**op, x, &value(x), &mut partials);
                    partials
                };
                let stated = partials(x);
                self.beside_quotients("the partials", x, &stated, value, &mut check)?;
                if let Some([outputs, changes]) = self.derivative_at(x)? {
                    self.beside_each_other("the outputs of the derivative tape", n, &outputs, &stated, &y)?;
                    self.beside_quotients("the derivatives of the derivative tape", x, &changes, partials, &mut check)?;
                }
            }
            Rules::Products(op) => {
                let adjoints = |x: &[f64], w: &[f64]| {
                    let mut xbar = vec![0.0; n];
                    write_vjp(&**op, x, &value(x), w, &mut xbar);
                    xbar
                };
                let mut columns = vec![0.0; m * n];
                let mut jp = vec![0.0; m];
                for i in 0..n {
                    write_jvp(&**op, x, &y, &unit(n, i), &mut jp);
                    jp.iter().enumerate().for_each(|(j, &jp)| columns[j * n + i] = jp);
                }
                self.beside_quotients("the products jvp", x, &columns, value, &mut check)?;
                let rows: Vec<f64> = (0..m).flat_map(|j| adjoints(x, &unit(m, j))).collect();
                self.beside_each_other("the products vjp", n, &rows, &columns, &y)?;
                // Weights that no symmetry hides behind.
                let w: Vec<f64> = (0..m).map(|j| 1.0 + (j as f64 * 0.618_033_988_749_894_8).fract()).collect();
                let xw: Vec<f64> = x.iter().chain(&w).copied().collect();
                if let Some([outputs, changes]) = self.derivative_at(&xw)? {
                    self.beside_each_other("the outputs of the tape vjp_tape", n, &outputs, &adjoints(x, &w), &y)?;
                    let adjoints = |xw: &[f64]| adjoints(&xw[..n], &xw[n..]);
                    self.beside_quotients("the derivatives of the tape vjp_tape", &xw, &changes, adjoints, &mut check)?;
                }
            }
        }
        Ok(check)
    }

    /// The outputs of the derivative that is a tape, if there is one, and its Jacobian.
    fn derivative_at(&self, x: &[f64]) -> Result<Option<[Vec<f64>; 2]>, Error> {
        let derivative = match self.derivative() {
            Ok(derivative) => derivative,
            Err(Error::NoSecondDerivative { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (n, outputs) = (derivative.num_operands(), derivative.num_results());
        let (mut seeds, mut values, mut changes) = (vec![0.0; n * n], vec![0.0; outputs], vec![0.0; outputs * n]);
        (0..n).for_each(|i| seeds[i * n + i] = 1.0);
        let results = NumbersMut { v: &mut values, t: &mut changes };
        derivative.values(n, Numbers { v: x, t: &seeds }, results, &mut FunctionMemory::default())?;
        Ok(Some([values, changes]))
    }

    fn wrong(&self, what: &'static str, [result, operand]: [usize; 2], [stated, found]: [f64; 2]) -> Error {
        Error::WrongRule { function: self.0.name.to_string(), what, result, operand, stated, found }
    }

    /// Two statements of the same derivatives, row-major: they are to agree but
    /// for rounding, also where it is next to nothing beside the value.
    fn beside_each_other(
        &self,
        what: &'static str,
        n: usize,
        stated: &[f64],
        found: &[f64],
        y: &[f64],
    ) -> Result<(), Error> {
        let largest = |numbers: &[f64]| numbers.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f64::max);
        for (entry, (&stated, &found)) in stated.iter().zip(found).enumerate() {
            let y = y.get(entry / n).map_or_else(|| largest(y), |y| y.abs());
            let tolerance = 1e-6 * stated.abs().max(found.abs()) + 1e-10 * if y.is_finite() { y } else { 0.0 };
            let same = stated == found || stated.is_nan() && found.is_nan();
            // Beside 0·∞ two right statements may differ.
            if !same && stated.is_finite() && found.is_finite() && (stated - found).abs() > tolerance {
                return Err(self.wrong(what, [entry / n, entry % n], [stated, found]));
            }
        }
        Ok(())
    }

    /// The stated derivatives of f, row-major, beside difference quotients.
    fn beside_quotients(
        &self,
        what: &'static str,
        x: &[f64],
        stated: &[f64],
        f: impl Fn(&[f64]) -> Vec<f64>,
        check: &mut RuleCheck,
    ) -> Result<(), Error> {
        let n = x.len();
        let mut moved = x.to_vec();
        for operand in 0..n {
            // The results have their steps in common.
            let mut known: HashMap<u64, Vec<f64>> = HashMap::new();
            for result in 0..stated.len() / n {
                let mut along = |t: f64| {
                    let values = known.entry(t.to_bits()).or_insert_with(|| {
                        moved[operand] = x[operand] + t;
                        let values = f(&moved);
                        moved[operand] = x[operand];
                        values
                    });
                    values[result]
                };
                let stated = stated[result * n + operand];
                match compare_with_rule(&mut along, stated, x[operand]) {
                    (Some(found), Verdict::Disagrees) => {
                        return Err(self.wrong(what, [result, operand], [stated, found]));
                    }
                    (_, Verdict::Agrees) => check.agreed += 1,
                    _ => check.not_checked += 1,
                }
            }
        }
        Ok(())
    }
}

impl PartialEq for Custom {
    /// Whether they are clones of one.
    fn eq(&self, other: &Custom) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Data { ref name, n, m, .. } = *self.0;
        f.debug_struct("Custom").field("name", name).field("operands", &n).field("results", &m).finish()
    }
}
