//! The table of operations: the only place that states a value, a derivative,
//! a printed form, a domain or a convention at a kink.
//!
//! Each entry of `operation_table!` reads, from left to right:
//!
//! ```text
//! [Variant] method(operands; constant: type) -> (results) {
//!     doc "what it computes",
//!     forms [how each result prints, in text and in LaTeX],
//!     value [the results, from f64 operands],
//!     // or vector [..]: the same, so short that the compiler makes vector instructions of a loop over lanes,
//!     // or kernel [name]: the function of that name in `math::kernels`, written for any number of lanes;
//!     // kernel [name both]: and one that gives the value and the partial at once, with the same bits
//!     partials [[∂result/∂operand, one for each operand], one list for each result],
//!     domain "where the value is defined", kink "what is chosen where the derivative is not unique",
//!     probes [the points each operand is tested at],
//! }
//! ```
//!
//! `value` and `vector` are plain `f64` code. `partials` are written over `T: Rule`, so that
//! the same line yields numbers in a sweep, numbers in lanes, second
//! derivatives in [`Dual`](crate::Dual), a new tape in [`Var`](crate::Var) and
//! readable text in [`Formula`](crate::Formula). Rules therefore never compare:
//! a lane block or a formula cannot answer with one bool; they select.
//!
//! A partial that has no short formula, or that would lose accuracy, is an
//! operation of its own (`sech2` for tanh′, `gauss` for erf′), and the table is
//! closed under differentiation. `docs/adding-an-op.md` walks through adding one.

use std::f64::consts::{FRAC_PI_2, LN_2, LOG2_E, LOG10_E, PI, TAU};

use smallvec::SmallVec;

use crate::lanes::Lanes;
use crate::math;
use crate::rule::Rule;

/// How one result of an operation is printed.
///
/// In templates `@0` stands for operand 0 and `#0` for operand 0 in
/// parentheses unless it is a single symbol, number or call.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Form {
    /// `a + b`.
    Sum,
    /// `a − b`.
    Difference,
    /// `a·b`.
    Product,
    /// `a/b`.
    Quotient,
    /// `−a`.
    Negation,
    /// `a^b`.
    Power,
    /// `name(a, b, …)`: the name in text and in LaTeX.
    Call(&'static str, &'static str),
    /// A text template and a LaTeX template of an expression that needs no
    /// parentheses around it, such as `|@0|`.
    Closed(&'static str, &'static str),
    /// A text template and a LaTeX template of an expression that binds like a
    /// product, such as `1/#0`.
    Open(&'static str, &'static str),
    /// A text template and a LaTeX template of an expression that binds like a
    /// sum, such as `1 − #0²`.
    Terms(&'static str, &'static str),
    /// `select(a ⋄ b, t, f)` for a relation ⋄; `[a ⋄ b]` where t and f are 1 and 0.
    Select(Relation),
}

/// A comparison of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a >= b`.
    Ge,
    /// `a == b`.
    Eq,
    /// `a != b`.
    Ne,
}

impl Relation {
    /// All six relations.
    pub const ALL: [Relation; 6] = [Relation::Lt, Relation::Le, Relation::Gt, Relation::Ge, Relation::Eq, Relation::Ne];

    /// Whether `a ⋄ b` holds. With a NaN on either side only `!=` does.
    ///
    /// ```
    /// use ad_core::Relation;
    /// assert!(Relation::Lt.holds(1.0, 2.0));
    /// assert!(!Relation::Lt.holds(1.0, f64::NAN));
    /// ```
    #[inline(always)]
    pub fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Relation::Lt => a < b,
            Relation::Le => a <= b,
            Relation::Gt => a > b,
            Relation::Ge => a >= b,
            Relation::Eq => a == b,
            Relation::Ne => a != b,
        }
    }

    /// The relation as Rust writes it, such as `<=`.
    pub fn symbol(self) -> &'static str {
        match self {
            Relation::Lt => "<",
            Relation::Le => "<=",
            Relation::Gt => ">",
            Relation::Ge => ">=",
            Relation::Eq => "==",
            Relation::Ne => "!=",
        }
    }
}

/// An operation of N operands and M results, as the table states it.
///
/// The table implements it once for each entry; a type that implements
/// [`Rule`] receives it as the type parameter of [`Rule::apply`].
pub trait Operation<const N: usize, const M: usize>: 'static + Sized {
    /// The entry's variant.
    const OP: Op;

    /// The results at the operands `x`.
    fn value(x: [f64; N]) -> [f64; M];

    /// Whether the compiler turns [`Operation::values`] into vector instructions.
    #[doc(hidden)]
    const VECTORIZED: bool = false;

    /// The results in each lane, with the bits of [`Operation::value`].
    #[doc(hidden)]
    #[inline(always)]
    fn values<const L: usize>(x: [Lanes<L>; N]) -> [Lanes<L>; M] {
        Lanes::each::<Self, N, M>(x)
    }

    /// The results and all partials in each lane, with the bits of
    /// [`Operation::value`] and [`Operation::partial`].
    #[doc(hidden)]
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "indices are what the vectoriser follows best")]
    fn linearize<const L: usize>(x: [Lanes<L>; N]) -> ([Lanes<L>; M], [[Lanes<L>; N]; M]) {
        let v = Self::values(x);
        let mut partials = [[Lanes([0.0; L]); N]; M];
        for j in 0..M {
            for i in 0..N {
                partials[j][i] = Self::partial(j, i, x, v);
            }
        }
        (v, partials)
    }

    /// ∂v\[result\]/∂x\[operand\] at the operands `x` with the results `v`.
    ///
    /// # Panics
    ///
    /// If there is no such result or operand.
    fn partial<T: Rule>(result: usize, operand: usize, x: [T; N], v: [T; M]) -> T;
}

/// An operation of any number of operands (one or more) and one result: the sum
/// of terms that each take the same number of operands.
///
/// It is a left fold, t₁ + t₂ + …, with a rounding at each step, so that a
/// recorded fold has the bits of the loop that a user would write.
pub trait Fold: 'static {
    /// The entry's variant.
    const OP: Op;

    /// How many operands each term of the fold takes: 1 for a sum, 2 for a
    /// dot product (a₀, b₀, a₁, b₁, …).
    const STRIDE: usize;

    /// One term, of the `STRIDE` operands `x`.
    fn term<T: Rule>(x: &[T]) -> T;

    /// ∂term/∂x\[operand\], of the `STRIDE` operands `x` of the term; since
    /// terms are added, that of the fold as well.
    ///
    /// # Panics
    ///
    /// If there is no such operand.
    fn term_partial<T: Rule>(operand: usize, x: &[T]) -> T;

    /// The result at the operands `x`.
    #[inline(always)]
    fn value<T: Rule>(x: &[T]) -> T {
        let mut terms = x.chunks_exact(Self::STRIDE).map(Self::term);
        let first = terms.next().unwrap_or(T::lit(-0.0));
        terms.fold(first, |sum, term| sum + term)
    }

    /// ∂v/∂x\[operand\] at the operands `x`.
    #[inline(always)]
    fn partial<T: Rule>(operand: usize, x: &[T]) -> T {
        let term = operand / Self::STRIDE * Self::STRIDE;
        Self::term_partial(operand - term, &x[term..term + Self::STRIDE])
    }
}

/// What an engine does for each kind of row; [`Op::visit`] chooses the method.
///
/// This is how an engine runs every operation without naming one: the `match`
/// over the variants is written once, by the table.
pub(crate) trait Visitor {
    type Output;
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> Self::Output;
    fn fold<O: Fold>(self) -> Self::Output;
    /// The row has no entry in the table: it holds a further result of a row
    /// above it, or it calls a function, which engines see to before they visit.
    fn no_operation(self) -> Self::Output;
}

/// What the table says of an operation, apart from its value and derivative.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct OpInfo {
    /// The method's name, or that of the operator's trait method.
    pub name: &'static str,
    /// What it computes, in words and as a formula.
    pub doc: &'static str,
    /// The names of the operands.
    pub operands: &'static [&'static str],
    /// How each result prints.
    pub forms: &'static [Form],
    /// Where the value is defined.
    pub domain: &'static str,
    /// What is chosen where the derivative is not unique; empty if nothing is.
    pub kink: &'static str,
    /// Values to test each operand at.
    pub probes: &'static [&'static [f64]],
}

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// Both signs, both zeros, both infinities, NaN, halves and large numbers.
const ANY: &[f64] =
    &[0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.3, -0.7, 3.75, -4.25, 30.0, -30.0, 1e-9, INF, -INF, NAN];
/// Fewer points, for operations whose operands multiply the number of cases.
const FEW: &[f64] = &[0.0, -0.0, 1.0, -1.5, 2.5, -0.25, INF, NAN];
/// Fewer still, for four operands.
const PAIR: &[f64] = &[0.0, 1.0, -1.5, INF, NAN];
/// Around the multiples of π/2, and large arguments.
const ANGLES: &[f64] =
    &[0.0, -0.0, 0.5, -0.5, 1.0, -2.0, FRAC_PI_2, -FRAC_PI_2, PI, -PI, TAU, 100.0, 1e5, INF, -INF, NAN];
/// Around the ends of (−1, 1).
const UNIT: &[f64] = &[0.0, -0.0, 0.5, -0.5, 0.3, -0.7, 0.999, -0.999, 1.0, -1.0, 1.5, -1.5, 1e-9, INF, -INF, NAN];
/// Positive numbers, and the edge at 0.
const POSITIVE: &[f64] = &[
    0.0,
    -0.0,
    1e-300,
    1e-9,
    0.25,
    0.36787944117144233,
    0.5,
    1.0,
    1.5,
    2.0,
    10.0,
    1e9,
    1e300,
    -1.0,
    -2.5,
    INF,
    -INF,
    NAN,
];
/// Whole numbers and halves, where the rounding functions jump.
const STEPS: &[f64] =
    &[0.0, -0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, -0.25, -0.5, -0.75, -1.0, -1.5, -2.5, 1e15, INF, -INF, NAN];
/// Where exponentials overflow and underflow.
const EXPONENTS: &[f64] =
    &[0.0, -0.0, 1.0, -1.0, 0.3, -0.7, 10.0, -10.0, 40.0, -40.0, 700.0, -700.0, 1000.0, -1000.0, 1e-9, INF, -INF, NAN];
/// Exponents that `powi` takes.
const WHOLE: &[f64] = &[0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 5.0, -7.0];
/// Exponents that are variables: anything.
const ANY_POWER: &[f64] = &[0.0, -0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, 1.5, -2.0, INF, -INF, NAN];
/// Exponents that `powf` takes.
const POWERS: &[f64] = &[0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, 1.5, -2.0];

/// Orders of derivatives and whole powers, and what is none.
const ORDERS: &[f64] = &[0.0, 1.0, 2.0, -1.0, INF, NAN];

/// Hands the whole table to the macro named by `$with`.
#[rustfmt::skip]
macro_rules! operation_table { ($with:ident) => { $with! {

operators {
[Add] add(x, y) -> (v) {
    doc "the sum x + y",
    forms [Form::Sum], vector [x + y], partials [[T::lit(1.0), T::lit(1.0)]],
    domain "all x, y", kink "", probes [ANY, ANY],
}
[Sub] sub(x, y) -> (v) {
    doc "the difference x − y",
    forms [Form::Difference], vector [x - y], partials [[T::lit(1.0), T::lit(-1.0)]],
    domain "all x, y", kink "", probes [ANY, ANY],
}
[Mul] mul(x, y) -> (v) {
    doc "the product x·y",
    forms [Form::Product], vector [x * y], partials [[y, x]],
    domain "all x, y", kink "", probes [ANY, ANY],
}
[Div] div(x, y) -> (v) {
    doc "the quotient x/y",
    forms [Form::Quotient], vector [x / y], partials [[y.recip(), -(v / y)]],
    domain "y ≠ 0; ±inf at y = 0, x ≠ 0", kink "", probes [ANY, ANY],
}
[Rem] rem(x, y) -> (v) {
    doc "the remainder x − y·trunc(x/y), with the sign of x",
    forms [Form::Open("#0 % #1", r"#0 \bmod #1")], value [math::rem(x, y)],
    // x − v is y times a whole number up to rounding, which `round` removes.
    partials [[T::lit(1.0), -((x - v) / y).round()]],
    domain "y ≠ 0, x finite", kink "slope of the branch it is on where x/y is whole", probes [ANY, ANY],
}
[Neg] neg(x) -> (v) {
    doc "the negative −x",
    forms [Form::Negation], vector [-x], partials [[T::lit(-1.0)]],
    domain "all x", kink "", probes [ANY],
}
}

methods {
[Recip] recip(x) -> (v) {
    doc "the reciprocal 1/x",
    forms [Form::Open("1/#0", r"\frac{1}{@0}")], vector [1.0 / x], partials [[-(v * v)]],
    domain "x ≠ 0; ±inf at ±0", kink "", probes [ANY],
}
[Powi] powi(x; n: i32) -> (v) {
    doc "the power xⁿ with a whole constant exponent, by squaring from the least significant bit",
    forms [Form::Power], value [math::powi(x, n as i64)],
    partials [[n.chain_mul(T::powi_rule(x, n - 1.0)), T::lit(0.0)]],
    domain "all x; x ≠ 0 if n < 0", kink "", probes [ANY, WHOLE],
}
[Powf] powf(x; c: f64) -> (v) {
    doc "the power x^c with a constant exponent",
    forms [Form::Power], value [math::pow(x, c)],
    partials [[x.power_slope(c, c - 1.0), T::lit(0.0)]],
    domain "x > 0; x = 0 if c ≥ 0; x < 0 if c is whole", kink "", probes [POSITIVE, POWERS],
}
[Pow] pow(x, y) -> (v) {
    doc "the power x^y with base and exponent both variable",
    forms [Form::Power], value [math::pow(x, y)],
    partials [[x.power_slope(y, y - 1.0), x.power_times_ln(y)]],
    domain "x > 0; x = 0 if y ≥ 0; x < 0 if y is whole (∂/∂y is NaN there)", kink "∂/∂y = 0 at x = 0, y ≥ 0", probes [POSITIVE, ANY_POWER],
}
[Sqrt] sqrt(x) -> (v) {
    doc "the square root √x",
    // √−0 is −0; adding +0 keeps the slope at −0 from being −inf.
    forms [Form::Closed("sqrt(@0)", r"\sqrt{@0}")], vector [math::sqrt(x)], partials [[T::lit(0.5) / (v + 0.0)]],
    domain "x ≥ 0", kink "inf at 0", probes [POSITIVE],
}
[Cbrt] cbrt(x) -> (v) {
    doc "the cube root ∛x",
    forms [Form::Call("cbrt", r"\operatorname{cbrt}")], value [math::cbrt(x)], partials [[x.cbrt_slope()]],
    domain "all x", kink "inf at 0", probes [ANY],
}
[Hypot] hypot(x, y) -> (v) {
    doc "the length √(x² + y²), without overflow inside",
    forms [Form::Call("hypot", r"\operatorname{hypot}")], value [math::hypot(x, y)], partials [[x.direction(y), y.direction(x)]],
    domain "all x, y", kink "0, 0 at (0, 0); NaN, NaN where both are infinite", probes [ANY, ANY],
}
[Exp] exp(x) -> (v) {
    doc "the exponential eˣ",
    forms [Form::Call("exp", r"\exp")], kernel [exp], partials [[v]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Exp2] exp2(x) -> (v) {
    doc "the power 2ˣ",
    forms [Form::Call("exp2", r"\operatorname{exp2}")], value [math::exp2(x)],
    // Not ln 2·v, since 2ˣ overflows before its derivative does.
    partials [[x.exp2_scaled(LN_2)]],
    domain "all x", kink "", probes [EXPONENTS],
}
[ExpM1] exp_m1(x) -> (v) {
    doc "eˣ − 1, accurate near 0",
    // Not v + 1, which loses everything for x far below 0.
    forms [Form::Call("exp_m1", r"\operatorname{expm1}")], kernel [exp_m1], partials [[x.exp()]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Ln] ln(x) -> (v) {
    doc "the natural logarithm ln x",
    // At −0 as at 0: adding +0 keeps the slope from being −inf.
    forms [Form::Call("ln", r"\ln")], kernel [ln], partials [[(x + 0.0).recip()]],
    domain "x > 0; −inf at 0", kink "", probes [POSITIVE],
}
[Log2] log2(x) -> (v) {
    doc "the logarithm to base 2",
    forms [Form::Call("log2", r"\log_2")], value [math::log2(x)], partials [[T::lit(LOG2_E) / (x + 0.0)]],
    domain "x > 0; −inf at 0", kink "", probes [POSITIVE],
}
[Log10] log10(x) -> (v) {
    doc "the logarithm to base 10",
    forms [Form::Call("log10", r"\log_{10}")], value [math::log10(x)], partials [[T::lit(LOG10_E) / (x + 0.0)]],
    domain "x > 0; −inf at 0", kink "", probes [POSITIVE],
}
[Log] log(x, base) -> (v) {
    doc "the logarithm of x to the given base, ln x / ln base, both variable",
    forms [Form::Call("log", r"\operatorname{log}")], value [math::log(x, base)],
    partials [[base.ln().recip() / x, x.log_slope(base)]],
    domain "x > 0, base > 0, base ≠ 1", kink "", probes [POSITIVE, POSITIVE],
}
[Ln1p] ln_1p(x) -> (v) {
    doc "ln(1 + x), accurate near 0",
    forms [Form::Call("ln_1p", r"\operatorname{log1p}")], kernel [ln_1p], partials [[(x + 1.0).recip()]],
    domain "x > −1; −inf at −1", kink "", probes [UNIT],
}
[Sin] sin(x) -> (v) {
    doc "the sine of x, in radians",
    forms [Form::Call("sin", r"\sin")], kernel [sin sin_cos], partials [[x.cos()]],
    domain "x finite", kink "", probes [ANGLES],
}
[Cos] cos(x) -> (v) {
    doc "the cosine of x, in radians",
    forms [Form::Call("cos", r"\cos")], kernel [cos cos_and_slope], partials [[-x.sin()]],
    domain "x finite", kink "", probes [ANGLES],
}
[Tan] tan(x) -> (v) {
    doc "the tangent of x, in radians",
    forms [Form::Call("tan", r"\tan")], value [math::tan(x)], partials [[v * v + 1.0]],
    domain "x finite", kink "", probes [ANGLES],
}
[Asin] asin(x) -> (v) {
    doc "the arc sine, in [−π/2, π/2]",
    forms [Form::Call("asin", r"\arcsin")], value [math::asin(x)], partials [[x.one_minus_square().sqrt().recip()]],
    domain "−1 ≤ x ≤ 1", kink "inf at ±1", probes [UNIT],
}
[Acos] acos(x) -> (v) {
    doc "the arc cosine, in [0, π]",
    forms [Form::Call("acos", r"\arccos")], value [math::acos(x)], partials [[-x.one_minus_square().sqrt().recip()]],
    domain "−1 ≤ x ≤ 1", kink "−inf at ±1", probes [UNIT],
}
[Atan] atan(x) -> (v) {
    doc "the arc tangent, in [−π/2, π/2]",
    forms [Form::Call("atan", r"\arctan")], value [math::atan(x)], partials [[x.lorentz()]],
    domain "all x", kink "", probes [ANY],
}
[Atan2] atan2(y, x) -> (v) {
    doc "the angle of the point (x, y) from the positive x axis, in [−π, π]",
    forms [Form::Call("atan2", r"\operatorname{atan2}")], value [math::atan2(y, x)],
    partials [[x.inversion(y), -y.inversion(x)]],
    domain "all y, x", kink "NaN, NaN at (0, 0)", probes [ANY, ANY],
}
[Sinh] sinh(x) -> (v) {
    doc "the hyperbolic sine",
    forms [Form::Call("sinh", r"\sinh")], kernel [sinh sinh_and_slope], partials [[x.cosh()]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Cosh] cosh(x) -> (v) {
    doc "the hyperbolic cosine",
    forms [Form::Call("cosh", r"\cosh")], kernel [cosh cosh_and_slope], partials [[x.sinh()]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Tanh] tanh(x) -> (v) {
    doc "the hyperbolic tangent",
    forms [Form::Call("tanh", r"\tanh")], kernel [tanh tanh_and_slope], partials [[x.sech2()]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Asinh] asinh(x) -> (v) {
    doc "the inverse hyperbolic sine",
    forms [Form::Call("asinh", r"\operatorname{arsinh}")], value [math::asinh(x)], partials [[T::lit(1.0).hypot(x).recip()]],
    domain "all x", kink "", probes [ANY],
}
[Acosh] acosh(x) -> (v) {
    doc "the inverse hyperbolic cosine",
    // Two roots: their product overflows nowhere, and is NaN below 1.
    forms [Form::Call("acosh", r"\operatorname{arcosh}")], value [math::acosh(x)], partials [[((x - 1.0).sqrt() * (x + 1.0).sqrt()).recip()]],
    domain "x ≥ 1", kink "inf at 1", probes [POSITIVE],
}
[Atanh] atanh(x) -> (v) {
    doc "the inverse hyperbolic tangent",
    forms [Form::Call("atanh", r"\operatorname{artanh}")], value [math::atanh(x)], partials [[x.one_minus_square().recip()]],
    domain "−1 < x < 1; ±inf at ±1", kink "", probes [UNIT],
}
[Logistic] logistic(x) -> (v) {
    doc "the logistic function 1/(1 + e⁻ˣ)",
    forms [Form::Call("logistic", r"\sigma")], kernel [logistic logistic_and_slope], partials [[x.logistic_slope()]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Softplus] softplus(x) -> (v) {
    doc "ln(1 + eˣ), without overflow inside",
    forms [Form::Call("softplus", r"\operatorname{softplus}")], kernel [softplus softplus_and_slope], partials [[x.logistic()]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Relu] relu(x) -> (v) {
    doc "the positive part, x if x > 0 and 0 otherwise",
    forms [Form::Call("relu", r"\operatorname{relu}")], vector [math::relu(x)], partials [[x.exceeds(0.0)]],
    domain "all x", kink "0 at 0", probes [ANY],
}
[LogAddExp] logaddexp(x, y) -> (v) {
    doc "ln(eˣ + eʸ), without overflow inside",
    forms [Form::Call("logaddexp", r"\operatorname{logaddexp}")], value [math::logaddexp(x, y)],
    partials [[x.logistic_difference(y), y.logistic_difference(x)]],
    domain "all x, y", kink "0, 0 at (−inf, −inf)", probes [EXPONENTS, EXPONENTS],
}
[XLogX] xlogx(x) -> (v) {
    doc "x·ln x, 0 at 0",
    forms [Form::Call("xlogx", r"\operatorname{xlogx}")], value [math::xlogx(x)], partials [[x.one_plus_ln()]],
    domain "x ≥ 0", kink "−inf at 0", probes [POSITIVE],
}
[XLogY] xlogy(x, y) -> (v) {
    doc "x·ln y, 0 where x = 0",
    // At −0 as at 0: adding +0 keeps the slope from being −inf.
    forms [Form::Call("xlogy", r"\operatorname{xlogy}")], value [math::xlogy(x, y)], partials [[y.ln(), x.chain_div(y + 0.0)]],
    domain "y > 0; x = 0", kink "−inf, 0 at (0, 0)", probes [ANY, POSITIVE],
}
[Abs] abs(x) -> (v) {
    doc "the absolute value",
    forms [Form::Closed("|@0|", r"\left|@0\right|")], vector [x.abs()], partials [[x.sign()]],
    domain "all x", kink "0 at 0", probes [ANY],
}
[Sign] sign(x) -> (v) {
    doc "−1, 0 or 1 as x is below, at or above 0",
    forms [Form::Call("sign", r"\operatorname{sign}")], vector [math::sign(x)], partials [[T::lit(0.0)]],
    domain "all x", kink "0 at 0", probes [ANY],
}
[Signum] signum(x) -> (v) {
    doc "1 with the sign bit of x: 1 at +0, −1 at −0, as std has it",
    forms [Form::Call("signum", r"\operatorname{signum}")], value [math::signum(x)], partials [[T::lit(0.0)]],
    domain "all x", kink "0 at 0", probes [ANY],
}
[Copysign] copysign(x, y) -> (v) {
    doc "|x| with the sign bit of y; NaN if y is NaN",
    forms [Form::Call("copysign", r"\operatorname{copysign}")], value [math::copysign(x, y)],
    partials [[x.sign() * y.signum(), T::lit(0.0)]],
    domain "all x, y", kink "0 at x = 0", probes [ANY, ANY],
}
[Min] min(x, y) -> (v) {
    doc "the smaller of x and y, NaN if either is NaN",
    forms [Form::Call("min", r"\min")], vector [math::min(x, y)],
    partials [[y.heaviside_difference(x), x.heaviside_difference(y)]],
    domain "all x, y", kink "½, ½ at x = y", probes [ANY, ANY],
}
[Max] max(x, y) -> (v) {
    doc "the larger of x and y, NaN if either is NaN",
    forms [Form::Call("max", r"\max")], vector [math::max(x, y)],
    partials [[x.heaviside_difference(y), y.heaviside_difference(x)]],
    domain "all x, y", kink "½, ½ at x = y", probes [ANY, ANY],
}
[Clamp] clamp(x, lo, hi) -> (v) {
    doc "x brought into [lo, hi]; NaN where lo > hi",
    forms [Form::Call("clamp", r"\operatorname{clamp}")], value [math::clamp(x, lo, hi)],
    partials [[x.inside(lo, hi), lo.exceeds(x), x.exceeds(hi)]],
    domain "lo ≤ hi", kink "1, 0, 0 at a bound", probes [FEW, FEW, FEW],
}
[Floor] floor(x) -> (v) {
    doc "the largest whole number not above x",
    forms [Form::Call("floor", r"\operatorname{floor}")], value [math::floor(x)], partials [[T::lit(0.0)]],
    domain "all x", kink "0 everywhere", probes [STEPS],
}
[Ceil] ceil(x) -> (v) {
    doc "the smallest whole number not below x",
    forms [Form::Call("ceil", r"\operatorname{ceil}")], value [math::ceil(x)], partials [[T::lit(0.0)]],
    domain "all x", kink "0 everywhere", probes [STEPS],
}
[Round] round(x) -> (v) {
    doc "the nearest whole number, halves away from 0",
    forms [Form::Call("round", r"\operatorname{round}")], value [math::round(x)], partials [[T::lit(0.0)]],
    domain "all x", kink "0 everywhere", probes [STEPS],
}
[RoundTiesEven] round_ties_even(x) -> (v) {
    doc "the nearest whole number, halves to the even one",
    forms [Form::Call("round_ties_even", r"\operatorname{roundeven}")], value [math::round_ties_even(x)], partials [[T::lit(0.0)]],
    domain "all x", kink "0 everywhere", probes [STEPS],
}
[Trunc] trunc(x) -> (v) {
    doc "x without its fraction",
    forms [Form::Call("trunc", r"\operatorname{trunc}")], value [math::trunc(x)], partials [[T::lit(0.0)]],
    domain "all x", kink "0 everywhere", probes [STEPS],
}
[Erf] erf(x) -> (v) {
    doc "the error function 2/√π·∫₀ˣ exp(−t²) dt",
    forms [Form::Call("erf", r"\operatorname{erf}")], value [math::erf(x)], partials [[x.gauss()]],
    domain "all x", kink "", probes [ANY],
}
[Erfc] erfc(x) -> (v) {
    doc "1 − erf(x), accurate for large x",
    forms [Form::Call("erfc", r"\operatorname{erfc}")], value [math::erfc(x)], partials [[-x.gauss()]],
    domain "all x", kink "", probes [ANY],
}
[Lgamma] lgamma(x) -> (v) {
    doc "ln |Γ(x)|, the logarithm of the gamma function (near its zeros left of 0 all digits are lost)",
    forms [Form::Call("lgamma", r"\ln\Gamma")], value [math::lgamma(x)], partials [[x.digamma()]],
    domain "x > 0; x < 0 not whole; inf at 0, −1, −2, …", kink "−inf at 0, NaN at −1, −2, …", probes [POSITIVE],
}
[Digamma] digamma(x) -> (v) {
    doc "the derivative of ln Γ, ψ(x) = Γ′(x)/Γ(x) (near its zeros left of 0 all digits are lost)",
    forms [Form::Call("digamma", r"\psi")], value [math::digamma(x)], partials [[x.trigamma()]],
    domain "x > 0; x < 0 not whole; −inf at 0", kink "inf at 0", probes [POSITIVE],
}
[MulAdd] mul_add(x, a, b) -> (v) {
    doc "x·a + b with one rounding (fused)",
    forms [Form::Call("mul_add", r"\operatorname{fma}")], value [math::mul_add(x, a, b)], partials [[a, x, T::lit(1.0)]],
    domain "all x, a, b", kink "", probes [FEW, FEW, FEW],
}
[SelectLt] select_lt(x, a, t, f) -> (v) {
    doc "t if x < a, else f; both branches stay on the tape",
    forms [Form::Select(Relation::Lt)], vector [if x < a { t } else { f }],
    partials [[T::lit(0.0), T::lit(0.0), x.select_lt(a, 1.0, 0.0), x.select_lt(a, 0.0, 1.0)]],
    domain "all", kink "that of the branch taken", probes [PAIR, PAIR, PAIR, PAIR],
}
[SelectLe] select_le(x, a, t, f) -> (v) {
    doc "t if x <= a, else f; both branches stay on the tape",
    forms [Form::Select(Relation::Le)], vector [if x <= a { t } else { f }],
    partials [[T::lit(0.0), T::lit(0.0), x.select_le(a, 1.0, 0.0), x.select_le(a, 0.0, 1.0)]],
    domain "all", kink "that of the branch taken", probes [PAIR, PAIR, PAIR, PAIR],
}
[SelectGt] select_gt(x, a, t, f) -> (v) {
    doc "t if x > a, else f; both branches stay on the tape",
    forms [Form::Select(Relation::Gt)], vector [if x > a { t } else { f }],
    partials [[T::lit(0.0), T::lit(0.0), x.select_gt(a, 1.0, 0.0), x.select_gt(a, 0.0, 1.0)]],
    domain "all", kink "that of the branch taken", probes [PAIR, PAIR, PAIR, PAIR],
}
[SelectGe] select_ge(x, a, t, f) -> (v) {
    doc "t if x >= a, else f; both branches stay on the tape",
    forms [Form::Select(Relation::Ge)], vector [if x >= a { t } else { f }],
    partials [[T::lit(0.0), T::lit(0.0), x.select_ge(a, 1.0, 0.0), x.select_ge(a, 0.0, 1.0)]],
    domain "all", kink "that of the branch taken", probes [PAIR, PAIR, PAIR, PAIR],
}
[SelectEq] select_eq(x, a, t, f) -> (v) {
    doc "t if x == a, else f; both branches stay on the tape",
    forms [Form::Select(Relation::Eq)], vector [if x == a { t } else { f }],
    partials [[T::lit(0.0), T::lit(0.0), x.select_eq(a, 1.0, 0.0), x.select_eq(a, 0.0, 1.0)]],
    domain "all", kink "that of the branch taken", probes [PAIR, PAIR, PAIR, PAIR],
}
[SelectNe] select_ne(x, a, t, f) -> (v) {
    doc "t if x != a, else f; both branches stay on the tape",
    forms [Form::Select(Relation::Ne)], vector [if x != a { t } else { f }],
    partials [[T::lit(0.0), T::lit(0.0), x.select_ne(a, 1.0, 0.0), x.select_ne(a, 0.0, 1.0)]],
    domain "all", kink "that of the branch taken", probes [PAIR, PAIR, PAIR, PAIR],
}

// What closes the table under differentiation.

[PowerSlope] power_slope(x, y, z) -> (v) {
    doc "the derivative of x^y by x, y·x^(y − 1), without a rounding of y − 1 or an overflow inside; z = y − 1 is there to be printed",
    forms [Form::Open("#1·#0^#2", r"#1 \cdot #0^{@2}")], value [{ let _ = z; math::power_slope(x, y) }],
    partials [[x.power_derivative(y, 2.0, 0.0), x.power_derivative(y, 1.0, 1.0), T::lit(0.0)]],
    domain "x > 0; x = 0 if y ≥ 1 or y = 0; x < 0 if y is whole", kink "", probes [POSITIVE, ANY_POWER, PAIR],
}
[PowerTimesLn] power_times_ln(x, y) -> (v) {
    doc "the derivative of x^y by y, x^y·ln x, without an overflow inside",
    forms [Form::Open("#0^#1·ln(@0)", r"#0^{#1} \cdot \ln\left(@0\right)")], value [math::power_times_ln(x, y)],
    partials [[x.power_derivative(y, 1.0, 1.0), x.power_derivative(y, 0.0, 2.0)]],
    domain "x > 0; x = 0 if y ≥ 0", kink "", probes [POSITIVE, ANY_POWER],
}
[PowerDerivative] power_derivative(x, y, m, n) -> (v) {
    doc "the derivative of x^y of order m by x and n by y, whole numbers up to 30",
    forms [Form::Call("power_derivative", r"\operatorname{power\_derivative}")], value [math::power_derivative(x, y, m, n)],
    partials [[x.power_derivative(y, m + 1.0, n), x.power_derivative(y, m, n + 1.0), T::lit(0.0), T::lit(0.0)]],
    domain "x > 0; x < 0 if y is whole and n = 0", kink "0 everywhere by m and n", probes [PAIR, PAIR, ORDERS, ORDERS],
}
[Exp2Scaled] exp2_scaled(x, c) -> (v) {
    doc "c·2ˣ, without an overflow of 2ˣ; with c = ln 2 the derivative of 2ˣ",
    forms [Form::Open("#1·exp2(@0)", r"#1 \cdot \operatorname{exp2}\left(@0\right)")], value [math::exp2_scaled(x, c)],
    partials [[x.exp2_scaled(c * LN_2), x.exp2()]],
    domain "all x, c", kink "", probes [EXPONENTS, ANY],
}
[LogSlope] log_slope(x, base) -> (v) {
    doc "the derivative of log(x, base) by the base, −ln x/(base·ln² base)",
    forms [Form::Open("−log(@0, @1)/(#1·ln(@1))", r"-\frac{\operatorname{log}\left(@0, @1\right)}{#1 \ln\left(@1\right)}")],
    value [math::log_slope(x, base)],
    partials [[
        -(base.ln().recip() / base.ln() / base / x),
        // A sum of two terms of either sign would be inf − inf for a tiny base.
        -(v / base * ((base.ln() + 2.0) / base.ln())),
    ]],
    domain "x > 0, base > 0, base ≠ 1", kink "", probes [POSITIVE, POSITIVE],
}
[CbrtSlope] cbrt_slope(x) -> (v) {
    doc "the derivative of ∛x, 1/(3·∛x²), with the rounding errors of the root and its square removed",
    forms [Form::Open("1/(3·cbrt(@0)²)", r"\frac{1}{3 \operatorname{cbrt}\left(@0\right)^2}")], value [math::cbrt_slope(x)],
    partials [[-(v / (x + 0.0) / 1.5)]],
    domain "all x", kink "inf at 0", probes [ANY],
}
[Direction] direction(x, y) -> (v) {
    doc "the derivative of hypot(x, y) by x, x/√(x² + y²), without overflow inside",
    forms [Form::Open("#0/hypot(@0, @1)", r"\frac{@0}{\operatorname{hypot}\left(@0, @1\right)}")], value [math::direction(x, y)],
    partials [[x.direction_slope(y), x.direction_turn(y)]],
    domain "all x, y but both infinite", kink "0 at (0, 0)", probes [ANY, ANY],
}
[DirectionSlope] direction_slope(x, y) -> (v) {
    doc "the second derivative of hypot(x, y) by x, y²/(x² + y²)^1.5, without overflow inside",
    forms [Form::Open("#1²/(#0² + #1²)^1.5", r"\frac{#1^2}{\operatorname{hypot}\left(@0, @1\right)^3}")], value [math::direction_slope(x, y)],
    partials [[
        T::lit(-3.0) * v * x.inversion(y),
        y.inversion(x) * (T::lit(2.0) * x.direction(y) * x.direction(y) - y.direction(x) * y.direction(x)) / x.hypot(y),
    ]],
    domain "all x, y but both infinite", kink "0 at (0, 0)", probes [ANY, ANY],
}
[DirectionTurn] direction_turn(x, y) -> (v) {
    doc "the mixed second derivative of hypot(x, y), −x·y/(x² + y²)^1.5, without overflow inside",
    forms [Form::Open("−#0·#1/(#0² + #1²)^1.5", r"-\frac{#0 #1}{\operatorname{hypot}\left(@0, @1\right)^3}")], value [math::direction_turn(x, y)],
    partials [[
        y.inversion(x) * (T::lit(2.0) * x.direction(y) * x.direction(y) - y.direction(x) * y.direction(x)) / x.hypot(y),
        x.inversion(y) * (T::lit(2.0) * y.direction(x) * y.direction(x) - x.direction(y) * x.direction(y)) / x.hypot(y),
    ]],
    domain "all x, y but both infinite", kink "0 at (0, 0)", probes [ANY, ANY],
}
[Inversion] inversion(x, y) -> (v) {
    doc "x/(x² + y²), without overflow inside",
    forms [Form::Open("#0/(#0² + #1²)", r"\frac{@0}{#0^2 + #1^2}")], value [math::inversion(x, y)],
    partials [[-x.inverse_power_re(y, 2.0), x.inverse_power_im(y, 2.0)]],
    domain "(x, y) ≠ (0, 0)", kink "", probes [ANY, ANY],
}
[InversePowerRe] inverse_power_re(x, y, k) -> (v) {
    doc "the real part of 1/(x + iy)^k, for a whole k from 1 to 100",
    forms [Form::Closed("Re(1/(@0 + i·#1)^#2)", r"\operatorname{Re} \left(@0 + i #1\right)^{-#2}")], value [math::inverse_power_re(x, y, k)],
    partials [[-(k.round() * x.inverse_power_re(y, k + 1.0)), k.round() * x.inverse_power_im(y, k + 1.0), T::lit(0.0)]],
    domain "(x, y) ≠ (0, 0)", kink "0 everywhere by k", probes [FEW, FEW, ORDERS],
}
[InversePowerIm] inverse_power_im(x, y, k) -> (v) {
    doc "the imaginary part of 1/(x + iy)^k, for a whole k from 1 to 100",
    forms [Form::Closed("Im(1/(@0 + i·#1)^#2)", r"\operatorname{Im} \left(@0 + i #1\right)^{-#2}")], value [math::inverse_power_im(x, y, k)],
    partials [[-(k.round() * x.inverse_power_im(y, k + 1.0)), -(k.round() * x.inverse_power_re(y, k + 1.0)), T::lit(0.0)]],
    domain "(x, y) ≠ (0, 0)", kink "0 everywhere by k", probes [FEW, FEW, ORDERS],
}
[Trigamma] trigamma(x) -> (v) {
    doc "the derivative of digamma, Σ 1/(x + k)² over k = 0, 1, …",
    forms [Form::Call("trigamma", r"\psi_1")], value [math::trigamma(x)], partials [[x.polygamma(2.0)]],
    domain "x > 0; x < 0 not whole; inf at 0, −1, −2, …", kink "−inf at 0, NaN at −1, −2, …", probes [POSITIVE],
}
[Polygamma] polygamma(x, n) -> (v) {
    doc "the derivative of digamma of order n, a whole number up to 100",
    forms [Form::Call("polygamma", r"\operatorname{polygamma}")], value [math::polygamma(x, n)],
    partials [[x.polygamma(n + 1.0), T::lit(0.0)]],
    domain "x > 0; x < 0 not whole", kink "0 everywhere by n", probes [POSITIVE, ORDERS],
}
[Sech2] sech2(x) -> (v) {
    doc "the derivative of tanh, sech²x = 1/cosh²x = 4e/(1 + e)² with e = exp(−2|x|)",
    forms [Form::Closed("sech²(@0)", r"\operatorname{sech}^2\left(@0\right)")], kernel [sech2], partials [[T::lit(-2.0) * x.tanh() * v]],
    domain "all x", kink "", probes [EXPONENTS],
}
[Gauss] gauss(x) -> (v) {
    doc "the derivative of erf, 2/√π·exp(−x²)",
    forms [Form::Call("gauss", r"\operatorname{gauss}")], value [math::gauss(x)], partials [[x.gauss_slope()]],
    domain "all x", kink "", probes [ANY],
}
[GaussSlope] gauss_slope(x) -> (v) {
    doc "the derivative of gauss, −2x·gauss(x), without an underflow inside",
    forms [Form::Open("−2·#0·gauss(@0)", r"-2 #0 \cdot \operatorname{gauss}\left(@0\right)")], value [math::gauss_slope(x)],
    partials [[T::lit(-2.0) * (x.gauss() + x.chain_mul(v))]],
    domain "all x", kink "", probes [ANY],
}
[Lorentz] lorentz(x) -> (v) {
    doc "the derivative of atan, 1/(1 + x²)",
    forms [Form::Open("1/(1 + #0²)", r"\frac{1}{1 + #0^2}")], value [math::lorentz(x)], partials [[(T::lit(-2.0) * x).chain_mul(v) * v]],
    domain "all x", kink "", probes [ANY],
}
[OnePlusLn] one_plus_ln(x) -> (v) {
    doc "the derivative of x·ln x, 1 + ln x, accurate near 1/e",
    forms [Form::Terms("1 + ln(@0)", r"1 + \ln\left(@0\right)")], value [math::one_plus_ln(x)], partials [[x.recip()]],
    domain "x > 0; −inf at 0", kink "", probes [POSITIVE],
}
[LogisticSlope] logistic_slope(x) -> (v) {
    doc "the derivative of the logistic function, logistic(x)·logistic(−x)",
    // Differentiating the product would lose all digits near 0.
    forms [Form::Open("logistic(@0)·logistic(−#0)", r"\sigma\left(@0\right) \cdot \sigma\left(-#0\right)")],
    vector [math::logistic(x) * math::logistic(-x)], partials [[-((x * 0.5).tanh() * v)]],
    domain "all x", kink "", probes [EXPONENTS],
}
[OneMinusSquare] one_minus_square(x) -> (v) {
    doc "1 − x², computed as (1 − x)·(1 + x), which keeps its digits near ±1",
    forms [Form::Terms("1 − #0²", "1 - #0^2")], vector [(1.0 - x) * (1.0 + x)], partials [[T::lit(-2.0) * x]],
    domain "all x", kink "", probes [UNIT],
}
[LogisticDifference] logistic_difference(x, y) -> (v) {
    doc "the weight of x in logaddexp(x, y), logistic(x − y) = eˣ/(eˣ + eʸ)",
    forms [Form::Closed("logistic(@0 − #1)", r"\sigma\left(@0 - #1\right)")], value [math::logistic_difference(x, y)],
    partials [[v * y.logistic_difference(x), -(v * y.logistic_difference(x))]],
    domain "all x, y", kink "0 at (−inf, −inf)", probes [EXPONENTS, EXPONENTS],
}
[HeavisideDifference] heaviside_difference(x, y) -> (v) {
    doc "the weight of x in max(x, y): 1 if x > y, ½ if x = y, 0 if x < y",
    forms [Form::Closed("H(@0 − #1)", r"H\left(@0 - #1\right)")], vector [math::heaviside_difference(x, y)], partials [[T::lit(0.0), T::lit(0.0)]],
    domain "all x, y", kink "0 everywhere", probes [ANY, ANY],
}
[Exceeds] exceeds(x, y) -> (v) {
    doc "1 if x > y, 0 if x ≤ y",
    forms [Form::Closed("[@0 > @1]", r"\left[@0 > @1\right]")], vector [math::exceeds(x, y)], partials [[T::lit(0.0), T::lit(0.0)]],
    domain "all x, y", kink "0 everywhere", probes [ANY, ANY],
}
[Inside] inside(x, lo, hi) -> (v) {
    doc "1 if lo ≤ x ≤ hi, 0 otherwise; NaN where lo > hi",
    forms [Form::Closed("[@1 ≤ @0 ≤ @2]", r"\left[@1 \le @0 \le @2\right]")], value [math::inside(x, lo, hi)],
    partials [[T::lit(0.0), T::lit(0.0), T::lit(0.0)]],
    domain "lo ≤ hi", kink "0 everywhere", probes [FEW, FEW, FEW],
}
[ChainMul] chain_mul(x, y) -> (v) {
    doc "the chain product x·y: 0 where x·y is NaN and a factor is exactly 0",
    forms [Form::Product], vector [math::chain_mul(x, y)], partials [[y, x]],
    domain "all x, y", kink "", probes [ANY, ANY],
}
[ChainDiv] chain_div(x, y) -> (v) {
    doc "the quotient x/y: 0 where it is NaN and x is exactly 0",
    forms [Form::Quotient], vector [math::chain_div(x, y)], partials [[y.recip(), -(v.chain_div(y))]],
    domain "all x, y", kink "", probes [ANY, ANY],
}
[Domain] domain(x, y, z) -> (v) {
    doc "x, but NaN where y is NaN though z is not: the partial x of a result y outside the domain of its operands z",
    forms [Form::Call("domain", r"\operatorname{domain}")], value [math::domain(x, y, z)], partials [[T::lit(1.0).domain(y, z), T::lit(0.0), T::lit(0.0)]],
    domain "all x, y, z", kink "", probes [FEW, FEW, FEW],
}
}

pairs {
[SinCos] sin_cos(x) -> (s, c) {
    doc "the sine and the cosine of x, in radians, as two results of one row",
    forms [Form::Call("sin", r"\sin"), Form::Call("cos", r"\cos")],
    kernel [sin_cos], partials [[c], [-s]],
    domain "x finite", kink "", probes [ANGLES],
}
}

folds {
[Sum] sum(terms: x) -> v {
    doc "the sum x₁ + x₂ + …, a left fold with a rounding at each step",
    form Form::Call("sum", r"\operatorname{sum}"), term [x], partials [T::lit(1.0)],
    domain "all x", kink "", probes [FEW, FEW, FEW],
}
[Dot] dot(factors: a, b) -> v {
    doc "the dot product a₁·b₁ + a₂·b₂ + …, a left fold with two roundings at each step",
    form Form::Call("dot", r"\operatorname{dot}"), term [a * b], partials [b, a],
    domain "all a, b", kink "", probes [PAIR, PAIR, PAIR, PAIR],
}
}

} } }
pub(crate) use operation_table;

macro_rules! count {
    ($($x:ident),*) => { <[&str]>::len(&[$(stringify!($x)),*]) };
}

/// The value of an entry, from the kind of its definition.
macro_rules! value_of {
    (kernel [$kernel:ident $($both:ident)?] ($x:ident) ($v:ident)) => {
        [math::$kernel($x)]
    };
    (kernel [$kernel:ident] ($x:ident) ($s:ident, $c:ident)) => {
        math::$kernel($x).into()
    };
    ($kind:ident $value:tt $x:tt $v:tt) => {
        $value
    };
}

/// The values of an entry in lanes.
macro_rules! values_of {
    (kernel [$kernel:ident $($both:ident)?] $x:ident ($v:ident)) => {
        [Lanes(math::kernels::$kernel($x[0].0))]
    };
    (kernel [$kernel:ident] $x:ident ($s:ident, $c:ident)) => {
        math::kernels::$kernel($x[0].0).map(Lanes)
    };
    ($kind:ident $value:tt $x:ident $v:tt) => {
        Lanes::each::<Self, _, _>($x)
    };
}

/// [`Operation::linearize`] where a kernel gives the value and the partial at once.
macro_rules! linearize_by {
    (kernel [$kernel:ident $both:ident]) => {
        #[inline(always)]
        fn linearize<const L: usize>([x]: [Lanes<L>; 1]) -> ([Lanes<L>; 1], [[Lanes<L>; 1]; 1]) {
            let [value, partial] = math::kernels::$both(x.0);
            ([Lanes(value)], [[Lanes(partial)]])
        }
    };
    ($kind:ident $value:tt) => {};
}

macro_rules! is_vectorized {
    (value) => {
        false
    };
    ($kind:ident) => {
        true
    };
}

/// Binds the names of a term's operands to the first entries of a slice.
macro_rules! operands_of_term {
    ($x:ident, $a:ident) => {
        let $a = $x[0];
    };
    ($x:ident, $a:ident $b:ident) => {
        let ($a, $b) = ($x[0], $x[1]);
    };
}

macro_rules! define_operations {
    (
        operators { $($operators:tt)* }
        methods { $($methods:tt)* }
        pairs { $($pairs:tt)* }
        folds { $(
            [$Fold:ident] $fold:ident($terms:ident: $($fname:ident),*) -> $fv:ident {
                doc $fdoc:literal, form $fform:expr, term [$fterm:expr], partials [$($fpartial:expr),*],
                domain $fdomain:literal, kink $fkink:literal, probes [$($fprobes:ident),*],
            }
        )* }
    ) => {
        define_operations! { @operations [$($operators)* $($methods)* $($pairs)*] [$($Fold $fold)*] }
        $(
            #[doc = concat!($fdoc, ".")]
            #[derive(Debug, Clone, Copy)]
            pub struct $Fold;

            impl Fold for $Fold {
                const OP: Op = Op::$Fold;
                const STRIDE: usize = count!($($fname),*);

                #[inline(always)]
                fn term<T: Rule>(x: &[T]) -> T {
                    operands_of_term!(x, $($fname)*);
                    $fterm
                }

                #[inline(always)]
                #[allow(unused_variables, unused_assignments)]
                fn term_partial<T: Rule>(operand: usize, x: &[T]) -> T {
                    operands_of_term!(x, $($fname)*);
                    let mut i = 0;
                    $(
                        if operand == i {
                            return $fpartial;
                        }
                        i += 1;
                    )*
                    panic!("a term of {} has no operand {operand}", stringify!($fold))
                }
            }

            impl $Fold {
                const INFO: OpInfo = OpInfo {
                    name: stringify!($fold),
                    doc: $fdoc,
                    operands: &[$(stringify!($fname)),*],
                    forms: &[$fform],
                    domain: $fdomain,
                    kink: $fkink,
                    probes: &[$($fprobes),*],
                };
            }
        )*
    };
    (
        @operations [$(
            [$Op:ident] $name:ident($($x:ident),* $(; $c:ident: $cty:ty)?) -> ($($v:ident),*) {
                doc $doc:literal,
                forms [$($form:expr),* $(,)?], $kind:ident $value:tt,
                partials [$([$($partial:expr),* $(,)?]),* $(,)?],
                domain $domain:literal, kink $kink:literal, probes [$($probes:ident),*],
            }
        )*] [$($Fold:ident $fold:ident)*]
    ) => {
        /// The variant of each entry of the table of operations.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Op {
            $(#[doc = concat!("`", stringify!($name), "`: ", $doc, ".")] $Op,)*
            $(#[doc = concat!("`", stringify!($fold), "`, of any number of operands.")] $Fold,)*
            /// A result, other than the first, of a row above it.
            FurtherResult,
            /// A function called as one row; see [`Tape::functions`](crate::Tape::functions).
            Call,
        }

        impl Op {
            /// Every entry of the table, in its order.
            pub const ALL: &'static [Op] = &[$(Op::$Op,)* $(Op::$Fold,)*];

            /// Runs the visitor's method for this operation.
            #[inline(always)]
            pub(crate) fn visit<V: Visitor>(self, visitor: V) -> V::Output {
                match self {
                    $(Op::$Op => visitor.operation::<$Op, { count!($($x),* $(, $c)?) }, { count!($($v),*) }>(),)*
                    $(Op::$Fold => visitor.fold::<$Fold>(),)*
                    Op::FurtherResult | Op::Call => visitor.no_operation(),
                }
            }

            /// What the table says of this operation.
            ///
            /// ```
            /// use ad_core::Op;
            /// assert_eq!(Op::Ln.info().name, "ln");
            /// assert_eq!(Op::Ln.info().domain, "x > 0; −inf at 0");
            /// ```
            pub fn info(self) -> &'static OpInfo {
                match self {
                    $(Op::$Op => const { &$Op::INFO },)*
                    $(Op::$Fold => const { &$Fold::INFO },)*
                    Op::FurtherResult => const { &OpInfo {
                        name: "further_result", doc: "a further result of a row above",
                        operands: &[], forms: &[], domain: "", kink: "", probes: &[],
                    } },
                    Op::Call => const { &OpInfo {
                        name: "call", doc: "a function called as one row",
                        operands: &[], forms: &[], domain: "", kink: "", probes: &[],
                    } },
                }
            }
        }

        $(
            #[doc = concat!($doc, ".")]
            #[derive(Debug, Clone, Copy)]
            pub struct $Op;

            impl Operation<{ count!($($x),* $(, $c)?) }, { count!($($v),*) }> for $Op {
                const OP: Op = Op::$Op;

                #[inline(always)]
                fn value([$($x),* $(, $c)?]: [f64; { count!($($x),* $(, $c)?) }]) -> [f64; { count!($($v),*) }] {
                    value_of!($kind $value ($($x),*) ($($v),*))
                }

                const VECTORIZED: bool = is_vectorized!($kind);

                linearize_by!($kind $value);

                #[inline(always)]
                fn values<const L: usize>(
                    x: [Lanes<L>; { count!($($x),* $(, $c)?) }],
                ) -> [Lanes<L>; { count!($($v),*) }] {
                    values_of!($kind $value x ($($v),*))
                }

                // The indices are constants wherever an engine calls this, so
                // that only the partial asked for is computed.
                #[inline(always)]
                #[allow(unused_variables, unused_assignments)]
                fn partial<T: Rule>(
                    result: usize,
                    operand: usize,
                    [$($x),* $(, $c)?]: [T; { count!($($x),* $(, $c)?) }],
                    [$($v),*]: [T; { count!($($v),*) }],
                ) -> T {
                    let mut j = 0;
                    $(
                        if result == j {
                            let mut i = 0;
                            $(
                                if operand == i {
                                    return $partial;
                                }
                                i += 1;
                            )*
                        }
                        j += 1;
                    )*
                    panic!("{} has no partial of result {result} by operand {operand}", stringify!($name))
                }
            }

            impl $Op {
                const INFO: OpInfo = OpInfo {
                    name: stringify!($name),
                    doc: $doc,
                    operands: &[$(stringify!($x),)* $(stringify!($c))?],
                    forms: &[$($form),*],
                    domain: $domain,
                    kink: $kink,
                    probes: &[$($probes),*],
                };
            }
        )*
    };
}
operation_table!(define_operations);

impl Op {
    /// The results at the operands `x`, of which there are as many as the operation takes.
    pub(crate) fn results<T: Rule>(self, x: &[T]) -> SmallVec<[T; 2]> {
        struct Results<'x, T>(&'x [T]);
        impl<T: Rule> Visitor for Results<'_, T> {
            type Output = SmallVec<[T; 2]>;
            fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> SmallVec<[T; 2]> {
                T::apply::<O, N, M>(std::array::from_fn(|i| self.0[i])).into_iter().collect()
            }
            fn fold<O: Fold>(self) -> SmallVec<[T; 2]> {
                SmallVec::from_slice(&[T::fold::<O>(self.0)])
            }
            fn no_operation(self) -> SmallVec<[T; 2]> {
                SmallVec::new()
            }
        }
        self.visit(Results(x))
    }

    /// ∂v\[result\]/∂x\[operand\] at the operands `x` with the results `v`, as the table states it.
    pub(crate) fn partial<T: Rule>(self, result: usize, operand: usize, x: &[T], v: &[T]) -> T {
        struct Partial<'x, T>(usize, usize, &'x [T], &'x [T]);
        impl<T: Rule> Visitor for Partial<'_, T> {
            type Output = T;
            fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> T {
                let Partial(result, operand, x, v) = self;
                O::partial(result, operand, std::array::from_fn(|i| x[i]), std::array::from_fn(|j| v[j]))
            }
            fn fold<O: Fold>(self) -> T {
                let Partial(_, operand, x, _) = self;
                O::partial(operand, x)
            }
            fn no_operation(self) -> T {
                T::lit(0.0)
            }
        }
        self.visit(Partial(result, operand, x, v))
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().name)
    }
}

/// What an engine does for each kind of row of a replay program;
/// [`Code::visit`] chooses the method.
///
/// A program has rows that a tape has not: operators that know which of their
/// operands are active (depend on an input), and pairs and chains of operators
/// that run as one row with the roundings, and so the bits, of the rows they
/// replace.
pub(crate) trait ProgramVisitor {
    /// What the visitor is told of the row.
    type Row: Copy;
    /// A row of the table.
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, row: Self::Row);
    /// A row of two operands, of which operand i is active if bit i of `ACTIVE` is set.
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, row: Self::Row);
    /// The row m = I(a, b) and then the row O with m as operand `AT` and c as
    /// the other one; bits 0, 1, 2 of `ACTIVE` stand for a, b, c.
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, row: Self::Row);
    /// A row of the table that keeps its partial in the slot after its result,
    /// since both together cost little more than one of them.
    fn kept<O: Operation<1, 1>>(&mut self, row: Self::Row);
    /// A row of any number of operands.
    fn fold<O: Fold>(&mut self, row: Self::Row);
    /// Rows that compute a term each and rows that add it: to an operand, if
    /// there is an `INITIAL` one, and then to what came before.
    fn chain<O: Fold, const INITIAL: bool>(&mut self, row: Self::Row);
    /// A row that calls a function. Sweeps stop before it, so only passes over a
    /// program meet it here.
    fn call(&mut self, _row: Self::Row) {}
}

/// Writes [`Code`] and its `match`.
macro_rules! define_codes {
    (
        operators { $($Operator:ident: $Left:ident $Right:ident $Both:ident;)* }
        fused {
            $($Inner:ident in $Outer:ident at $at:literal: $A:ident $B:ident $Ab:ident $Ac:ident $Bc:ident $Abc:ident
                $(makes $FusedChain:ident)?;)*
        }
        kept { $($Kept:ident: $Keeping:ident;)* }
        chains { $($Chain:ident: $Fold_of_chain:ident of $Term:ident $initial:literal;)* }
        table {
            $([$Op:ident] $name:ident($($x:ident),* $(; $c:ident: $cty:ty)?) -> ($($v:ident),*) $body:tt)*
        }
        folds { $([$Fold:ident] $fold:ident $operands:tt -> $fv:ident $fbody:tt)* }
    ) => {
        /// What a row of a replay program does: an operation of the table, or
        /// one of the rows that only programs have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Code {
            $($Op,)*
            $($Fold,)*
            $($Left, $Right, $Both,)*
            $($A, $B, $Ab, $Ac, $Bc, $Abc,)*
            $($Kept,)*
            $($Chain,)*
            /// A function called as one row.
            Call,
        }

        impl Code {
            /// Runs the visitor's method for this kind of row.
            #[inline(always)]
            pub fn visit<V: ProgramVisitor>(self, visitor: &mut V, row: V::Row) {
                match self {
                    $(Code::$Op => visitor.operation::<$Op, { count!($($x),* $(, $c)?) }, { count!($($v),*) }>(row),)*
                    $(Code::$Fold => visitor.fold::<$Fold>(row),)*
                    $(
                        Code::$Left => visitor.operator::<$Operator, 0b01>(row),
                        Code::$Right => visitor.operator::<$Operator, 0b10>(row),
                        Code::$Both => visitor.operator::<$Operator, 0b11>(row),
                    )*
                    $(
                        Code::$A => visitor.fused::<$Inner, $Outer, $at, 0b001>(row),
                        Code::$B => visitor.fused::<$Inner, $Outer, $at, 0b010>(row),
                        Code::$Ab => visitor.fused::<$Inner, $Outer, $at, 0b011>(row),
                        Code::$Ac => visitor.fused::<$Inner, $Outer, $at, 0b101>(row),
                        Code::$Bc => visitor.fused::<$Inner, $Outer, $at, 0b110>(row),
                        Code::$Abc => visitor.fused::<$Inner, $Outer, $at, 0b111>(row),
                    )*
                    $(Code::$Kept => visitor.kept::<$Keeping>(row),)*
                    $(Code::$Chain => visitor.chain::<$Fold_of_chain, $initial>(row),)*
                    Code::Call => visitor.call(row),
                }
            }

            /// The row of an operation as the table has it; none for a further result.
            pub fn operation(op: Op) -> Option<Code> {
                match op {
                    $(Op::$Op => Some(Code::$Op),)*
                    $(Op::$Fold => Some(Code::$Fold),)*
                    Op::FurtherResult | Op::Call => None,
                }
            }

            /// The row of an operation that keeps its partial, if that pays.
            pub fn kept(op: Op) -> Option<Code> {
                match op {
                    $(Op::$Keeping => Some(Code::$Kept),)*
                    _ => None,
                }
            }

            /// The row of an operator whose active operands are known, bit i for operand i.
            pub fn operator(op: Op, active: u8) -> Option<Code> {
                match (op, active) {
                    $(
                        (Op::$Operator, 0b01) => Some(Code::$Left),
                        (Op::$Operator, 0b10) => Some(Code::$Right),
                        (Op::$Operator, 0b11) => Some(Code::$Both),
                    )*
                    _ => None,
                }
            }

            /// The row for `inner` and then `outer`, with the result of the first
            /// as operand `at` of the second; bits 0, 1, 2 of `active` stand for
            /// the operands of the first and the other one of the second.
            pub fn fused(inner: Op, outer: Op, at: usize, active: u8) -> Option<Code> {
                match (inner, outer, at, active) {
                    $(
                        (Op::$Inner, Op::$Outer, $at, 0b001) => Some(Code::$A),
                        (Op::$Inner, Op::$Outer, $at, 0b010) => Some(Code::$B),
                        (Op::$Inner, Op::$Outer, $at, 0b011) => Some(Code::$Ab),
                        (Op::$Inner, Op::$Outer, $at, 0b101) => Some(Code::$Ac),
                        (Op::$Inner, Op::$Outer, $at, 0b110) => Some(Code::$Bc),
                        (Op::$Inner, Op::$Outer, $at, 0b111) => Some(Code::$Abc),
                    )*
                    _ => None,
                }
            }

            /// The chain that several such rows make, each adding to the one before.
            pub fn chain_of_fused(self) -> Option<Code> {
                match self {
                    $($(
                        Code::$A | Code::$B | Code::$Ab | Code::$Ac | Code::$Bc | Code::$Abc => Some(Code::$FusedChain),
                    )?)*
                    _ => None,
                }
            }

            /// The chain without an initial operand that adds up the results of rows `term`.
            pub fn chain_of_terms(term: Op, fold: Op) -> Option<Code> {
                match (term, fold) {
                    $((Op::$Term, Op::Sum) if !$initial => Some(Code::$Chain),)*
                    _ => None,
                }
            }
        }
    };
}

macro_rules! define_program_rows {
    (
        operators { $($operators:tt)* } methods { $($methods:tt)* } pairs { $($pairs:tt)* } folds { $($folds:tt)* }
    ) => {
        define_codes! {
            operators {
                Add: AddLeft AddRight AddBoth;
                Sub: SubLeft SubRight SubBoth;
                Mul: MulLeft MulRight MulBoth;
                Div: DivLeft DivRight DivBoth;
            }
            fused {
                Mul in Add at 0: MulAddA MulAddB MulAddAb MulAddAc MulAddBc MulAddAbc makes Affine;
                Mul in Add at 1: AddMulA AddMulB AddMulAb AddMulAc AddMulBc AddMulAbc makes Affine;
                Mul in Mul at 0: MulMulA MulMulB MulMulAb MulMulAc MulMulBc MulMulAbc;
                Mul in Sub at 0: MulSubA MulSubB MulSubAb MulSubAc MulSubBc MulSubAbc;
                Mul in Sub at 1: SubMulA SubMulB SubMulAb SubMulAc SubMulBc SubMulAbc;
            }
            kept {
                SinKept: Sin;
                CosKept: Cos;
                SinhKept: Sinh;
                CoshKept: Cosh;
                TanhKept: Tanh;
                LogisticKept: Logistic;
                SoftplusKept: Softplus;
            }
            chains {
                Affine: Dot of Mul true;
                Linear: Dot of Mul false;
            }
            table { $($operators)* $($methods)* $($pairs)* }
            folds { $($folds)* }
        }
    };
}
operation_table!(define_program_rows);
