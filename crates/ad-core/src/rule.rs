//! The number types: [`Rule`], which the rules of the table are written over,
//! and [`Real`], which users write functions over.

use std::fmt::{Debug, Display};
use std::iter::{Product, Sum};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Rem, RemAssign, Sub, SubAssign};

use crate::error::Error;
use crate::function::{Function, FunctionMemory, Numbers, NumbersMut};
use crate::ops::{self, Fold, Operation, operation_table};
use crate::record::{Answer, Question};

macro_rules! define_rule {
    (
        operators { $($operators:tt)* }
        methods { $(
            [$Op:ident] $name:ident($x:ident $(, $y:ident)* $(; $c:ident: $cty:ty)?) -> ($v:ident) {
                doc $doc:literal, forms $forms:tt, $kind:ident $value:tt, partials $partials:tt,
                domain $domain:literal, kink $kink:literal, probes $probes:tt,
            }
        )* }
        pairs { $(
            [$Pair:ident] $pair:ident($p:ident) -> $results:tt {
                doc $pdoc:literal, $($pbody:tt)*
            }
        )* }
        folds { $($folds:tt)* }
    ) => {
        /// A number type that the rules of the table can be evaluated in.
        ///
        /// It has arithmetic, the table's operations and `select_*`, and no
        /// comparisons: a block of lanes or a formula has no single answer to
        /// `x < y`. Implemented by `f64`, [`Lanes`](crate::Lanes),
        /// [`Dual`](crate::Dual), [`Var`](crate::Var) and
        /// [`Formula`](crate::Formula). Functions of users are written over
        /// [`Real`], which adds comparisons.
        ///
        /// # Implementing it
        ///
        /// A type of your own needs [`Rule::apply`], [`Rule::confirm`] and its operators, which
        /// [`rule_operators!`](crate::rule_operators) writes. Every other method
        /// has a default that calls `apply`, so an operation that is added to the
        /// table later does not break the type.
        /// [`Tape::eval_with`](crate::Tape::eval_with) then replays any tape in it:
        ///
        /// ```
        /// use ad_core::{Answer, Question, Rule, Tape, ops::Operation};
        ///
        /// /// Every operation rounded to single precision.
        /// #[derive(Debug, Clone, Copy)]
        /// struct Single(f32);
        ///
        /// impl From<f64> for Single {
        ///     fn from(c: f64) -> Self { Single(c as f32) }
        /// }
        /// impl Rule for Single {
        ///     fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        ///         O::value(x.map(|s| f64::from(s.0))).map(Single::from)
        ///     }
        ///     fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        ///         f64::confirm(question, answer, a.0.into(), b.0.into())
        ///     }
        /// }
        /// ad_core::rule_operators!([] Single);
        ///
        /// let tape = Tape::record(&[0.1], |x| x[0].sin() / 3.0)?;
        /// let y = tape.eval_with(&[Single(0.1)])?;
        /// assert!((f64::from(y[0].0) - tape.eval(&[0.1])?[0]).abs() < 1e-8);
        /// # Ok::<(), ad_core::Error>(())
        /// ```
        pub trait Rule:
            Copy + Debug + From<f64> + Neg<Output = Self>
            + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Rem<Output = Self>
            + Add<f64, Output = Self> + Sub<f64, Output = Self> + Mul<f64, Output = Self>
            + Div<f64, Output = Self> + Rem<f64, Output = Self>
        {
            /// The results of operation `O` at the operands `x`.
            #[track_caller]
            fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M];

            /// The result of the fold `O` at the operands `x`; there is at least one.
            #[track_caller]
            fn fold<O: Fold>(x: &[Self]) -> Self {
                O::value(x)
            }

            /// The constant `c`, whose derivatives are 0.
            ///
            /// ```
            /// use ad_core::Real;
            /// fn one_minus<T: Real>(x: T) -> T { T::lit(1.0) - x }
            /// assert_eq!(one_minus(0.25), 0.75);
            /// ```
            #[track_caller]
            fn lit(c: f64) -> Self {
                Self::from(c)
            }

            $(
                #[doc = concat!("`", stringify!($name), "`: ", $doc, ".")]
                #[doc = ""]
                #[doc = concat!("Defined for: ", $domain, ".")]
                #[doc = concat!("Derivatives: see [`", stringify!($Op), "`](crate::ops::", stringify!($Op), ") and `docs/ops.md`.")]
                #[inline(always)]
                #[track_caller]
                fn $name(self $(, $y: impl Into<Self>)* $(, $c: $cty)?) -> Self {
                    let [v] = Self::apply::<ops::$Op, _, 1>([self $(, $y.into())* $(, Self::lit(f64::from($c)))?]);
                    v
                }
            )*

            $(
                #[doc = concat!("`", stringify!($pair), "`: ", $pdoc, ".")]
                #[inline(always)]
                #[track_caller]
                fn $pair(self) -> (Self, Self) {
                    Self::apply::<ops::$Pair, _, 2>([self]).into()
                }
            )*

            /// The sum x₁ + x₂ + …, one row of the tape: a left fold with a
            /// rounding at each step, bit-equal to the loop. Empty: −0, as
            /// `Iterator::sum` has it.
            ///
            /// ```
            /// use ad_core::Rule;
            /// assert_eq!(f64::sum_of(&[1.0, 2.0, 3.5]), 6.5);
            /// ```
            #[inline(always)]
            #[track_caller]
            fn sum_of(terms: &[Self]) -> Self {
                match terms {
                    [] => Self::lit(-0.0),
                    [term] => *term,
                    _ => Self::fold::<ops::Sum>(terms),
                }
            }

            /// The dot product a₁·b₁ + a₂·b₂ + …, one row of the tape: a left
            /// fold with two roundings at each step, bit-equal to the loop that
            /// starts from the first product. Empty: −0. Factors without a
            /// partner in the longer slice are left out, as `zip` does.
            ///
            /// ```
            /// use ad_core::Rule;
            /// assert_eq!(f64::dot(&[1.0, 2.0], &[3.0, 4.0]), 11.0);
            /// ```
            #[inline(always)]
            #[track_caller]
            fn dot(a: &[Self], b: &[Self]) -> Self {
                let factors: smallvec::SmallVec<[Self; 32]> = a.iter().zip(b).flat_map(|(&a, &b)| [a, b]).collect();
                if factors.is_empty() { Self::lit(-0.0) } else { Self::fold::<ops::Dot>(&factors) }
            }

            /// Whether a guard's question, put to `a` and `b` of this type, still has
            /// its recorded answer; if not, the answer now and the values that give it.
            ///
            /// [`Tape::eval_with`](crate::Tape::eval_with) asks it for every guard,
            /// so that no branch is silently the wrong one. A type without a value
            /// to compare answers `Ok(())`.
            ///
            /// # Errors
            ///
            /// The answer now, and the primal values of `a` and `b`.
            #[track_caller]
            fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)>;

            /// The results of a function that a row calls.
            ///
            /// # Errors
            ///
            /// That of the function: a changed branch in its body, say.
            #[doc(hidden)]
            #[track_caller]
            fn call(function: &Function, x: &[Self]) -> Result<Vec<Self>, Error> {
                function.replay(x)
            }

            /// The results of a function that a row calls, and their tangents.
            #[doc(hidden)]
            #[track_caller]
            fn call_with_tangents(function: &Function, x: &[Self], dx: &[Self]) -> Result<[Vec<Self>; 2], Error> {
                let tangent = function.tangent()?;
                let operands: Vec<Self> = x.iter().chain(dx).copied().collect();
                let results = Self::call(&tangent.function, &operands)?;
                let at = |places: &[u32]| places.iter().map(|&place| results[place as usize]).collect();
                Ok([at(&tangent.values), at(&tangent.tangents)])
            }

            /// [`Rule::powi`] with the exponent as an operand, for the rules of the table.
            #[doc(hidden)]
            #[inline(always)]
            #[track_caller]
            fn powi_rule(self, n: Self) -> Self {
                let [v] = Self::apply::<ops::Powi, 2, 1>([self, n]);
                v
            }

            /// [`Rule::powf`] with the exponent as an operand, for the rules of the table.
            #[doc(hidden)]
            #[inline(always)]
            #[track_caller]
            fn powf_rule(self, c: Self) -> Self {
                let [v] = Self::apply::<ops::Powf, 2, 1>([self, c]);
                v
            }

            /// The fraction x − trunc(x), with the sign of x.
            #[inline(always)]
            #[track_caller]
            fn fract(self) -> Self {
                self - self.trunc()
            }

            /// The remainder in [0, |y|): x % y, plus |y| where that is below 0.
            #[inline(always)]
            #[track_caller]
            fn rem_euclid(self, y: impl Into<Self>) -> Self {
                let y = y.into();
                let r = self % y;
                r.select_lt(0.0, r + y.abs(), r)
            }

            /// The whole number q with x = q·y + x.rem_euclid(y), up to rounding.
            #[inline(always)]
            #[track_caller]
            fn div_euclid(self, y: impl Into<Self>) -> Self {
                let y = y.into();
                let q = (self / y).trunc();
                (self % y).select_lt(0.0, y.select_gt(0.0, q - 1.0, q + 1.0), q)
            }

            /// Radians to degrees: x·(180/π).
            #[inline(always)]
            #[track_caller]
            fn to_degrees(self) -> Self {
                self * (180.0 / std::f64::consts::PI)
            }

            /// Degrees to radians: x·(π/180).
            #[inline(always)]
            #[track_caller]
            fn to_radians(self) -> Self {
                self * (std::f64::consts::PI / 180.0)
            }
        }
    };
}
operation_table!(define_rule);

impl Rule for f64 {
    #[inline(always)]
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [f64; N]) -> [f64; M] {
        O::value(x)
    }

    #[inline]
    fn confirm(question: Question, answer: Answer, a: f64, b: f64) -> Result<(), (Answer, f64, f64)> {
        let now = question.ask(a, b);
        if now == answer { Ok(()) } else { Err((now, a, b)) }
    }

    fn call(function: &Function, x: &[f64]) -> Result<Vec<f64>, Error> {
        let mut y = vec![0.0; function.num_results()];
        let (x, results) = (Numbers { v: x, t: &[] }, NumbersMut { v: &mut y, t: &mut [] });
        function.values(0, x, results, &mut FunctionMemory::default())?;
        Ok(y)
    }

    fn call_with_tangents(function: &Function, x: &[f64], dx: &[f64]) -> Result<[Vec<f64>; 2], Error> {
        let (mut y, mut dy) = (vec![0.0; function.num_results()], vec![0.0; function.num_results()]);
        let results = NumbersMut { v: &mut y, t: &mut dy };
        function.values(1, Numbers { v: x, t: dx }, results, &mut FunctionMemory::default())?;
        Ok([y, dy])
    }
}

/// Writes the operators of a type that implements [`Rule`]: `+ − * / %` with
/// the type or an `f64` on either side, unary minus, and the assigning forms.
///
/// The first argument lists the generic parameters in brackets:
/// `rule_operators!([T: Rule] MyPair<T>)`; see [`Rule`] for an example.
#[macro_export]
macro_rules! rule_operators {
    ([$($generics:tt)*] $Type:ty) => {
        $crate::rule_operators! { @binary [$($generics)*] $Type, Add add AddAssign add_assign }
        $crate::rule_operators! { @binary [$($generics)*] $Type, Sub sub SubAssign sub_assign }
        $crate::rule_operators! { @binary [$($generics)*] $Type, Mul mul MulAssign mul_assign }
        $crate::rule_operators! { @binary [$($generics)*] $Type, Div div DivAssign div_assign }
        $crate::rule_operators! { @binary [$($generics)*] $Type, Rem rem RemAssign rem_assign }

        impl<$($generics)*> ::std::ops::Neg for $Type {
            type Output = Self;
            #[inline(always)]
            #[track_caller]
            fn neg(self) -> Self {
                let [v] = <Self as $crate::Rule>::apply::<$crate::ops::Neg, 1, 1>([self]);
                v
            }
        }
        impl<$($generics)*> ::std::ops::Neg for &$Type {
            type Output = $Type;
            #[inline(always)]
            #[track_caller]
            fn neg(self) -> $Type {
                ::std::ops::Neg::neg(*self)
            }
        }
    };
    (@reference [$($generics:tt)*] $Op:ident $op:ident ($Left:ty) ($Right:ty) $Type:ty, $this:tt $y:ident => $x:tt $z:tt) => {
        impl<$($generics)*> ::std::ops::$Op<$Right> for $Left {
            type Output = $Type;
            #[inline(always)]
            #[track_caller]
            fn $op($this, $y: $Right) -> $Type {
                ::std::ops::$Op::$op($x, $z)
            }
        }
    };
    (@binary [$($generics:tt)*] $Type:ty, $Op:ident $op:ident $OpAssign:ident $op_assign:ident) => {
        impl<$($generics)*> ::std::ops::$Op for $Type {
            type Output = Self;
            #[inline(always)]
            #[track_caller]
            fn $op(self, y: Self) -> Self {
                let [v] = <Self as $crate::Rule>::apply::<$crate::ops::$Op, 2, 1>([self, y]);
                v
            }
        }
        impl<$($generics)*> ::std::ops::$Op<f64> for $Type {
            type Output = Self;
            #[inline(always)]
            #[track_caller]
            fn $op(self, y: f64) -> Self {
                ::std::ops::$Op::$op(self, <Self as From<f64>>::from(y))
            }
        }
        impl<$($generics)*> ::std::ops::$Op<$Type> for f64 {
            type Output = $Type;
            #[inline(always)]
            #[track_caller]
            fn $op(self, y: $Type) -> $Type {
                ::std::ops::$Op::$op(<$Type as From<f64>>::from(self), y)
            }
        }
        $crate::rule_operators! { @reference [$($generics)*] $Op $op (&$Type) ($Type) $Type, self y => (*self) y }
        $crate::rule_operators! { @reference [$($generics)*] $Op $op ($Type) (&$Type) $Type, self y => self (*y) }
        $crate::rule_operators! { @reference [$($generics)*] $Op $op (&$Type) (&$Type) $Type, self y => (*self) (*y) }
        $crate::rule_operators! { @reference [$($generics)*] $Op $op (&$Type) (f64) $Type, self y => (*self) y }
        $crate::rule_operators! { @reference [$($generics)*] $Op $op (f64) (&$Type) $Type, self y => self (*y) }
        impl<$($generics)*> ::std::ops::$OpAssign<&$Type> for $Type {
            #[inline(always)]
            #[track_caller]
            fn $op_assign(&mut self, y: &$Type) {
                *self = ::std::ops::$Op::$op(*self, *y);
            }
        }
        impl<$($generics)*> ::std::ops::$OpAssign for $Type {
            #[inline(always)]
            #[track_caller]
            fn $op_assign(&mut self, y: Self) {
                *self = ::std::ops::$Op::$op(*self, y);
            }
        }
        impl<$($generics)*> ::std::ops::$OpAssign<f64> for $Type {
            #[inline(always)]
            #[track_caller]
            fn $op_assign(&mut self, y: f64) {
                *self = ::std::ops::$Op::$op(*self, y);
            }
        }
    };
}

/// Gives a type the methods of [`Rule`] without the trait in scope.
macro_rules! inherent_methods {
    (
        [$($generics:tt)*] $Type:ty;
        operators { $($operators:tt)* }
        methods { $(
            [$Op:ident] $name:ident($x:ident $(, $y:ident)* $(; $c:ident: $cty:ty)?) -> $results:tt {
                doc $doc:literal, forms $forms:tt, $kind:ident $value:tt, partials $partials:tt,
                domain $domain:literal, kink $kink:literal, probes $probes:tt,
            }
        )* }
        pairs { $(
            [$Pair:ident] $pair:ident($p:ident) -> $presults:tt { doc $pdoc:literal, $($pbody:tt)* }
        )* }
        folds { $($folds:tt)* }
    ) => {
        impl<$($generics)*> $Type {
            $(
                #[doc = concat!("`", stringify!($name), "`: ", $doc, ".")]
                #[doc = ""]
                #[doc = concat!("Defined for: ", $domain, ". The same as [`Rule::", stringify!($name), "`].")]
                #[inline(always)]
                #[track_caller]
                pub fn $name(self $(, $y: impl Into<Self>)* $(, $c: $cty)?) -> Self {
                    Rule::$name(self $(, $y)* $(, $c)?)
                }
            )*
            $(
                #[doc = concat!("`", stringify!($pair), "`: ", $pdoc, ".")]
                #[inline(always)]
                #[track_caller]
                pub fn $pair(self) -> (Self, Self) {
                    Rule::$pair(self)
                }
            )*
            /// The sum of all terms as one row of the tape; the same as [`Rule::sum_of`].
            #[inline(always)]
            #[track_caller]
            pub fn sum_of(terms: &[Self]) -> Self {
                Rule::sum_of(terms)
            }

            /// The dot product of two vectors as one row of the tape; the same as [`Rule::dot`].
            #[inline(always)]
            #[track_caller]
            pub fn dot(a: &[Self], b: &[Self]) -> Self {
                Rule::dot(a, b)
            }

            inherent_methods! { @composed
                [fract()] "The fraction x − trunc(x), with the sign of x."
                [rem_euclid(y)] "The remainder in [0, |y|): x % y, plus |y| where that is below 0."
                [div_euclid(y)] "The whole number q with x = q·y + x.rem_euclid(y), up to rounding."
                [to_degrees()] "Radians to degrees: x·(180/π)."
                [to_radians()] "Degrees to radians: x·(π/180)."
            }
        }
    };
    (@composed $([$name:ident($($y:ident)?)] $doc:literal)*) => {
        $(
            #[doc = $doc]
            #[inline(always)]
            #[track_caller]
            pub fn $name(self $(, $y: impl Into<Self>)?) -> Self {
                Rule::$name(self $(, $y)?)
            }
        )*
    };
}

macro_rules! define_inherent_methods {
    ($($table:tt)*) => {
        inherent_methods! { [] crate::Var; $($table)* }
        inherent_methods! { [T: Rule] crate::Dual<T>; $($table)* }
    };
}
operation_table!(define_inherent_methods);

/// The number type that users' functions are written over: [`Rule`] with
/// comparisons. Implemented by `f64`, [`Dual`](crate::Dual) and [`Var`](crate::Var).
///
/// Written once, a function then evaluates, differentiates and records:
///
/// ```
/// use ad_core::{Dual, Real, Tape};
///
/// fn f<T: Real>(x: &[T]) -> T {
///     x[0].cos() + x[0] * x[1] - x[1].exp()
/// }
///
/// let y = f(&[2.0, 4.0]);
/// let d = f(&[Dual::new(2.0, 1.0), Dual::new(4.0, 0.0)]);
/// let tape = Tape::record(&[2.0, 4.0], f)?;
/// let (v, dv) = tape.jvp(&[2.0, 4.0], &[1.0, 0.0])?;
/// assert_eq!((y, y), (d.v, v[0]));
/// assert_eq!(d.dv, dv[0]);
/// # Ok::<(), ad_core::Error>(())
/// ```
///
/// The functions (`cos`, `lgamma`, …) are methods of [`Rule`], which every `Real`
/// is: outside generic code bring `Rule` into scope to call them on an `f64`.
///
/// An `f64` may stand on the right of an operator or a comparison (`x * 2.0`,
/// `x > 0.0`) and as an argument (`x.max(0.0)`); on the left Rust allows none
/// in generic code: write `T::lit(1.0) - x`. For `f64` the functions are those
/// of this crate, not of std, so that all number types agree to the last bit.
///
/// A comparison made by a [`Var`](crate::Var) is a guard: a replay that would
/// answer it otherwise is an error. To keep both branches, use
/// [`select_gt`](Rule::select_gt) and its siblings.
pub trait Real:
    Rule
    + Display
    + PartialOrd
    + PartialOrd<f64>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + RemAssign
    + AddAssign<f64>
    + SubAssign<f64>
    + MulAssign<f64>
    + DivAssign<f64>
    + RemAssign<f64>
    + Sum
    + Product
    + for<'a> Sum<&'a Self>
    + for<'a> Product<&'a Self>
{
    /// The primal value. On a tape this is an escape, listed by
    /// [`Tape::escapes`](crate::Tape::escapes): what is computed from it is
    /// a constant of the recording.
    #[track_caller]
    fn value(self) -> f64;

    /// Whether the primal value is NaN; a guard on a tape.
    #[track_caller]
    #[allow(clippy::wrong_self_convention)]
    fn is_nan(self) -> bool;

    /// Whether the primal value is neither NaN nor infinite; a guard on a tape.
    #[track_caller]
    #[allow(clippy::wrong_self_convention)]
    fn is_finite(self) -> bool;

    /// Whether the primal value is +inf or −inf; a guard on a tape.
    #[track_caller]
    #[allow(clippy::wrong_self_convention)]
    fn is_infinite(self) -> bool {
        !self.is_finite() && !self.is_nan()
    }
}

impl Real for f64 {
    fn value(self) -> f64 {
        self
    }
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}
