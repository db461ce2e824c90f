//! The traits that nalgebra asks of the entries of a matrix, for [`Var`] and [`Dual`].

use approx::{AbsDiffEq, RelativeEq, UlpsEq};
use num_traits::{Float, FloatConst, ToPrimitive};
use simba::scalar::{ComplexField, Field, RealField, SubsetOf};
use simba::simd::SimdValue;

use crate::dual::Dual;
use crate::record::Var;
use crate::rule::{Real, Rule};

macro_rules! field_traits {
    ([$($generics:tt)*] $Type:ty) => {
        // One lane, which is the number itself.
        impl<$($generics)*> SimdValue for $Type {
            const LANES: usize = 1;
            type Element = Self;
            type SimdBool = bool;

            fn splat(val: Self) -> Self {
                val
            }
            fn extract(&self, _: usize) -> Self {
                *self
            }
            // The trait declares these two unsafe for numbers that have lanes
            // to miss; here nothing unsafe happens.
            #[allow(unsafe_code)]
            unsafe fn extract_unchecked(&self, _: usize) -> Self {
                *self
            }
            fn replace(&mut self, _: usize, val: Self) {
                *self = val;
            }
            #[allow(unsafe_code)]
            unsafe fn replace_unchecked(&mut self, _: usize, val: Self) {
                *self = val;
            }
            fn select(self, cond: bool, other: Self) -> Self {
                if cond { self } else { other }
            }
        }

        impl<$($generics)*> Field for $Type {}

        impl<$($generics)*> SubsetOf<$Type> for $Type {
            fn to_superset(&self) -> Self {
                *self
            }
            fn from_superset_unchecked(element: &Self) -> Self {
                *element
            }
            fn is_in_subset(_: &Self) -> bool {
                true
            }
        }

        /// A number is a constant; back again it is guarded, as by `to_f64`.
        impl<$($generics)*> SubsetOf<$Type> for f64 {
            fn to_superset(&self) -> $Type {
                Rule::lit(*self)
            }
            #[track_caller]
            fn from_superset_unchecked(element: &$Type) -> f64 {
                element.to_f64().unwrap_or(f64::NAN)
            }
            fn is_in_subset(_: &$Type) -> bool {
                true
            }
        }

        /// A number is a constant; back again it is guarded, as by `to_f32`.
        impl<$($generics)*> SubsetOf<$Type> for f32 {
            fn to_superset(&self) -> $Type {
                Rule::lit(f64::from(*self))
            }
            #[track_caller]
            fn from_superset_unchecked(element: &$Type) -> f32 {
                element.to_f32().unwrap_or(f32::NAN)
            }
            fn is_in_subset(_: &$Type) -> bool {
                true
            }
        }

        impl<$($generics)*> ComplexField for $Type {
            type RealField = Self;

            field_traits! { @table
                floor() ceil() round() trunc() fract() recip() sqrt() cbrt() exp() exp2() exp_m1() ln() log2() log10() ln_1p()
                sin() cos() tan() asin() acos() atan() sinh() cosh() tanh() asinh() acosh() atanh() abs() signum()
                log(base) hypot(other) mul_add(a, b)
            }

            fn from_real(re: Self) -> Self {
                re
            }
            fn real(self) -> Self {
                self
            }
            fn imaginary(self) -> Self {
                Self::lit(0.0)
            }
            #[track_caller]
            fn modulus(self) -> Self {
                Rule::abs(self)
            }
            #[track_caller]
            fn modulus_squared(self) -> Self {
                self * self
            }
            #[track_caller]
            fn norm1(self) -> Self {
                Rule::abs(self)
            }
            /// 0 or π. Both stay on the tape.
            #[track_caller]
            fn argument(self) -> Self {
                Rule::select_ge(self, 0.0, 0.0, std::f64::consts::PI)
            }
            /// (|x|, 1 or −1 with the sign of x). Both signs stay on the tape.
            #[track_caller]
            fn to_exp(self) -> (Self, Self) {
                (Rule::abs(self), Rule::select_ge(self, 0.0, 1.0, -1.0))
            }
            #[track_caller]
            fn to_polar(self) -> (Self, Self) {
                (ComplexField::modulus(self), ComplexField::argument(self))
            }
            #[track_caller]
            fn scale(self, factor: Self) -> Self {
                self * factor
            }
            #[track_caller]
            fn unscale(self, factor: Self) -> Self {
                self / factor
            }
            fn conjugate(self) -> Self {
                self
            }
            #[track_caller]
            fn sin_cos(self) -> (Self, Self) {
                Rule::sin_cos(self)
            }
            #[track_caller]
            fn powi(self, n: i32) -> Self {
                Rule::powi(self, n)
            }
            #[track_caller]
            fn powf(self, n: Self) -> Self {
                Float::powf(self, n)
            }
            #[track_caller]
            fn powc(self, n: Self) -> Self {
                Float::powf(self, n)
            }
            #[track_caller]
            fn is_finite(&self) -> bool {
                <$Type>::is_finite(*self)
            }
            #[track_caller]
            fn try_sqrt(self) -> Option<Self> {
                if self >= 0.0 { Some(Rule::sqrt(self)) } else { None }
            }
        }

        impl<$($generics)*> RealField for $Type {
            field_traits! { @table max(other) min(other) atan2(other) clamp(min, max) copysign(sign) }
            field_traits! { @constants
                pi PI, two_pi TAU, frac_pi_2 FRAC_PI_2, frac_pi_3 FRAC_PI_3, frac_pi_4 FRAC_PI_4, frac_pi_6 FRAC_PI_6,
                frac_pi_8 FRAC_PI_8, frac_1_pi FRAC_1_PI, frac_2_pi FRAC_2_PI, frac_2_sqrt_pi FRAC_2_SQRT_PI, e E,
                log2_e LOG2_E, log10_e LOG10_E, ln_2 LN_2, ln_10 LN_10
            }

            #[track_caller]
            fn is_sign_positive(&self) -> bool {
                <$Type>::is_sign_positive(*self)
            }
            #[track_caller]
            fn is_sign_negative(&self) -> bool {
                <$Type>::is_sign_negative(*self)
            }
            fn min_value() -> Option<Self> {
                Some(Self::lit(f64::MIN))
            }
            fn max_value() -> Option<Self> {
                Some(Self::lit(f64::MAX))
            }
        }

        impl<$($generics)*> AbsDiffEq for $Type {
            type Epsilon = Self;

            fn default_epsilon() -> Self {
                Self::lit(f64::default_epsilon())
            }
            /// |x − y| ≤ ε; the comparison is a guard.
            #[track_caller]
            fn abs_diff_eq(&self, other: &Self, epsilon: Self) -> bool {
                Rule::abs(*self - *other) <= epsilon
            }
        }

        impl<$($generics)*> RelativeEq for $Type {
            fn default_max_relative() -> Self {
                Self::lit(f64::default_max_relative())
            }
            /// x = y, or |x − y| ≤ ε, or |x − y| ≤ r·max(|x|, |y|); each comparison is a guard.
            #[track_caller]
            fn relative_eq(&self, other: &Self, epsilon: Self, max_relative: Self) -> bool {
                if *self == *other {
                    return true;
                }
                if <$Type>::is_infinite(*self) || <$Type>::is_infinite(*other) {
                    return false;
                }
                let difference = Rule::abs(*self - *other);
                if difference <= epsilon {
                    return true;
                }
                difference <= Rule::max(Rule::abs(*self), Rule::abs(*other)) * max_relative
            }
        }

        impl<$($generics)*> UlpsEq for $Type {
            fn default_max_ulps() -> u32 {
                f64::default_max_ulps()
            }
            /// |x − y| ≤ ε, or so few floating-point numbers apart. Only the first is a comparison that a guard
            /// can state; for the second both values are guarded, as by `to_f64`.
            #[track_caller]
            fn ulps_eq(&self, other: &Self, epsilon: Self, max_ulps: u32) -> bool {
                if self.abs_diff_eq(other, epsilon) {
                    return true;
                }
                let values = (self.to_f64(), other.to_f64());
                matches!(values, (Some(x), Some(y)) if x.ulps_eq(&y, 0.0, max_ulps))
            }
        }
    };
    (@table $($name:ident($($operand:ident),*))*) => {
        $(
            #[track_caller]
            fn $name(self $(, $operand: Self)*) -> Self {
                Rule::$name(self $(, $operand)*)
            }
        )*
    };
    (@constants $($name:ident $NAME:ident),*) => {
        $(
            fn $name() -> Self {
                <Self as FloatConst>::$NAME()
            }
        )*
    };
}

field_traits! { [] Var }
field_traits! { [T: Real + Float + Send + Sync + 'static] Dual<T> }
