//! Dual numbers v + v̇ε with ε² = 0: a value and its derivative along one direction.

use std::cmp::Ordering;
use std::fmt;
use std::iter::{Product, Sum};
use std::num::FpCategory;

use num_traits::Float;

use crate::error::Error;
use crate::function::Function;
use crate::ops::{Fold, Operation};
use crate::record::{Answer, Question};
use crate::rule::{Real, Rule};
use crate::rule_operators;

/// A dual number v + v̇ε, ε² = 0: forward differentiation without a tape.
///
/// f(v + v̇ε) = f(v) + f′(v)·v̇ε. The derivatives come from the same table as
/// the tape's, so both agree. Over a `Dual` again it gives second derivatives.
///
/// Comparisons look at the value alone, as the function itself would.
///
/// ```
/// use ad_core::Dual;
/// let x = Dual::new(3.0, 1.0);
/// let y = x * x + 1.0;
/// assert_eq!((y.v, y.dv), (10.0, 6.0));
/// assert_eq!(y.to_string(), "10 + 6ε");
///
/// // d²/dx² x³ = 6x, by duals of duals.
/// let x = Dual::new(Dual::new(2.0, 1.0), Dual::new(1.0, 0.0));
/// assert_eq!((x * x * x).dv.dv, 12.0);
/// ```
///
/// Source: W. K. Clifford, Preliminary sketch of biquaternions (1873);
/// Griewank & Walther, Evaluating Derivatives (2008), §3.1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dual<T = f64> {
    /// The value v.
    pub v: T,
    /// The derivative v̇ along the chosen direction.
    pub dv: T,
}

impl<T: Rule> Dual<T> {
    /// The dual number v + v̇ε. Seed an independent with v̇ = 1, a constant with 0.
    ///
    /// ```
    /// # use ad_core::Dual;
    /// assert_eq!(Dual::new(0.0, 1.0).sin().dv, 1.0);
    /// ```
    pub fn new(v: T, dv: T) -> Self {
        Dual { v, dv }
    }

    /// The derivative v̇.
    pub fn tangent(self) -> T {
        self.dv
    }

    /// Σᵢ pᵢ·ẋᵢ with the chain product, in the order of the operands.
    ///
    /// A partial of a value that is NaN though no operand is (outside the
    /// domain) counts as NaN; a zero tangent still contributes 0.
    #[inline(always)]
    fn chain(v: T, x: &[Self], partial: impl Fn(usize) -> T) -> T {
        let largest = x.iter().skip(1).fold(x[0].v, |m, d| m.max(d.v));
        let term = |i: usize| partial(i).domain(v, largest).chain_mul(x[i].dv);
        (1..x.len()).fold(term(0), |sum, i| sum + term(i))
    }
}

impl<T: Rule> From<f64> for Dual<T> {
    fn from(c: f64) -> Self {
        Dual::new(T::lit(c), T::lit(0.0))
    }
}

impl<T: Rule> Rule for Dual<T> {
    #[inline(always)]
    #[track_caller]
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let primals = x.map(|d| d.v);
        let v = T::apply::<O, N, M>(primals);
        std::array::from_fn(|j| {
            let dv = Self::chain(v[j], &x, |i| O::partial(j, i, primals, v));
            Dual::new(v[j], dv)
        })
    }

    #[inline]
    #[track_caller]
    fn fold<O: Fold>(x: &[Self]) -> Self {
        let primals: smallvec::SmallVec<[T; 16]> = x.iter().map(|d| d.v).collect();
        let v = T::fold::<O>(&primals);
        Dual::new(v, Self::chain(v, x, |i| O::partial(i, &primals)))
    }

    fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        T::confirm(question, answer, a.v, b.v)
    }

    #[track_caller]
    fn call(function: &Function, x: &[Self]) -> Result<Vec<Self>, Error> {
        let (primals, tangents): (Vec<T>, Vec<T>) = x.iter().map(|d| (d.v, d.dv)).unzip();
        let [v, dv] = T::call_with_tangents(function, &primals, &tangents)?;
        Ok(v.into_iter().zip(dv).map(|(v, dv)| Dual::new(v, dv)).collect())
    }
}

rule_operators!([T: Rule] Dual<T>);

impl<T: Real> Real for Dual<T> {
    fn value(self) -> f64 {
        self.v.value()
    }
    fn is_nan(self) -> bool {
        self.v.is_nan()
    }
    fn is_finite(self) -> bool {
        self.v.is_finite()
    }
    fn is_infinite(self) -> bool {
        self.v.is_infinite()
    }
}

impl<T: Real> Dual<T> {
    /// The value v, as a number.
    #[track_caller]
    pub fn value(self) -> f64 {
        Real::value(self)
    }

    /// Whether the value is NaN.
    #[track_caller]
    pub fn is_nan(self) -> bool {
        Real::is_nan(self)
    }

    /// Whether the value is neither NaN nor infinite.
    #[track_caller]
    pub fn is_finite(self) -> bool {
        Real::is_finite(self)
    }

    /// Whether the value is +inf or −inf.
    #[track_caller]
    pub fn is_infinite(self) -> bool {
        Real::is_infinite(self)
    }
}

impl<T: Real + Float> Dual<T> {
    /// Whether the value's sign bit is set, and it is no NaN.
    #[track_caller]
    pub fn is_sign_negative(self) -> bool {
        // The sign of a NaN differs between processors: it counts as positive.
        !self.is_nan() && Float::is_sign_negative(self.v)
    }

    /// Whether the value's sign bit is not set, or it is a NaN.
    #[track_caller]
    pub fn is_sign_positive(self) -> bool {
        !self.is_sign_negative()
    }

    /// The whole part of the value, or `None` for NaN and outside the range of `i64`.
    #[track_caller]
    pub fn to_i64(self) -> Option<i64> {
        self.v.to_i64()
    }

    /// Whether the value is neither 0, subnormal, infinite nor NaN.
    #[track_caller]
    pub fn is_normal(self) -> bool {
        Float::is_normal(self.v)
    }

    /// Whether the value is closer to 0 than any normal number, and not 0.
    #[track_caller]
    pub fn is_subnormal(self) -> bool {
        Float::is_subnormal(self.v)
    }

    /// Whether the value is normal, zero, subnormal, NaN or infinite.
    #[track_caller]
    pub fn classify(self) -> FpCategory {
        Float::classify(self.v)
    }
}

/// Writes the comparisons of one pair of types, each handed on to the same
/// comparison of the values, so that a recorded guard has the relation that
/// was asked and the caller's line.
macro_rules! comparisons {
    ($Left:ty: $T:ty, $Right:ty: $Bound:ty, ($($before:tt)*) self ($($after:tt)*), ($($other_before:tt)*) other ($($other_after:tt)*)) => {
        impl<T> PartialEq<$Right> for $Left
        where
            $T: PartialEq<$Bound>,
        {
            #[track_caller]
            fn eq(&self, other: &$Right) -> bool {
                $($before)* self $($after)* == $($other_before)* other $($other_after)*
            }
            #[track_caller]
            #[allow(clippy::partialeq_ne_impl)]
            fn ne(&self, other: &$Right) -> bool {
                $($before)* self $($after)* != $($other_before)* other $($other_after)*
            }
        }
        impl<T> PartialOrd<$Right> for $Left
        where
            $T: PartialOrd<$Bound>,
        {
            #[track_caller]
            fn partial_cmp(&self, other: &$Right) -> Option<Ordering> {
                ($($before)* self $($after)*).partial_cmp(&$($other_before)* other $($other_after)*)
            }
            #[track_caller]
            fn lt(&self, other: &$Right) -> bool {
                $($before)* self $($after)* < $($other_before)* other $($other_after)*
            }
            #[track_caller]
            fn le(&self, other: &$Right) -> bool {
                $($before)* self $($after)* <= $($other_before)* other $($other_after)*
            }
            #[track_caller]
            fn gt(&self, other: &$Right) -> bool {
                $($before)* self $($after)* > $($other_before)* other $($other_after)*
            }
            #[track_caller]
            fn ge(&self, other: &$Right) -> bool {
                $($before)* self $($after)* >= $($other_before)* other $($other_after)*
            }
        }
    };
}
comparisons!(Dual<T>: T, Dual<T>: T, () self (.v), () other (.v));
comparisons!(Dual<T>: T, f64: f64, () self (.v), (*) other ());
comparisons!(f64: f64, Dual<T>: T, (*) self (), () other (.v));

impl<T: Rule> Sum for Dual<T> {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        let terms: Vec<Self> = iter.collect();
        Rule::sum_of(&terms)
    }
}

impl<'a, T: Rule> Sum<&'a Dual<T>> for Dual<T> {
    fn sum<I: Iterator<Item = &'a Self>>(iter: I) -> Self {
        iter.copied().sum()
    }
}

impl<T: Rule> Product for Dual<T> {
    fn product<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.reduce(|a, b| a * b).unwrap_or(Self::lit(1.0))
    }
}

impl<'a, T: Rule> Product<&'a Dual<T>> for Dual<T> {
    fn product<I: Iterator<Item = &'a Self>>(iter: I) -> Self {
        iter.copied().product()
    }
}

impl<T: fmt::Display> fmt::Display for Dual<T> {
    /// v + v̇ε, with the formatter's precision for both.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dv = match f.precision() {
            Some(p) => format!("{:.p$}", self.dv),
            None => self.dv.to_string(),
        };
        self.v.fmt(f)?;
        if dv.contains(' ') {
            return write!(f, " + ({dv})ε");
        }
        match dv.strip_prefix('-') {
            Some(size) => write!(f, " - {size}ε"),
            None => write!(f, " + {dv}ε"),
        }
    }
}
