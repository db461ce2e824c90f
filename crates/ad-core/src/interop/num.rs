//! The traits of num-traits for [`Var`] and [`Dual`].

use std::cmp::Ordering;
use std::num::{FpCategory, ParseFloatError};
use std::str::FromStr;

use num_traits::float::TotalOrder;
use num_traits::{
    AsPrimitive, Bounded, ConstOne, ConstZero, Euclid, Float, FloatConst, FromPrimitive, Inv, MulAdd, MulAddAssign,
    Num, NumCast, One, Pow, Signed, ToPrimitive, Zero,
};

use crate::dual::Dual;
use crate::record::Var;
use crate::rule::{Real, Rule};

/// The positive difference: 0 where x ≤ y, x − y elsewhere, NaN if either is NaN.
#[track_caller]
fn positive_difference<T: Rule>(x: T, y: T) -> T {
    x.select_le(y, 0.0, x - y)
}

/// The traits that look the same for both types. The methods of `Float` that
/// do not are given in braces.
macro_rules! number_traits {
    ([$($generics:tt)*] $Type:ty { $($float:tt)* }) => {
        impl<$($generics)*> Zero for $Type {
            fn zero() -> Self {
                Self::lit(0.0)
            }
            #[track_caller]
            fn is_zero(&self) -> bool {
                *self == 0.0
            }
        }

        impl<$($generics)*> One for $Type {
            fn one() -> Self {
                Self::lit(1.0)
            }
            #[track_caller]
            fn is_one(&self) -> bool {
                *self == 1.0
            }
        }

        impl<$($generics)*> Num for $Type {
            type FromStrRadixErr = <f64 as Num>::FromStrRadixErr;

            fn from_str_radix(text: &str, radix: u32) -> Result<Self, Self::FromStrRadixErr> {
                <f64 as Num>::from_str_radix(text, radix).map(Self::lit)
            }
        }

        impl<$($generics)*> FromStr for $Type {
            type Err = ParseFloatError;

            /// The constant that the text shows.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self::lit)
            }
        }

        impl<$($generics)*> NumCast for $Type {
            #[track_caller]
            fn from<N: ToPrimitive>(n: N) -> Option<Self> {
                n.to_f64().map(Self::lit)
            }
        }

        impl<$($generics)*> FromPrimitive for $Type {
            fn from_i64(n: i64) -> Option<Self> {
                Some(Self::lit(n as f64))
            }
            fn from_u64(n: u64) -> Option<Self> {
                Some(Self::lit(n as f64))
            }
            fn from_i128(n: i128) -> Option<Self> {
                Some(Self::lit(n as f64))
            }
            fn from_u128(n: u128) -> Option<Self> {
                Some(Self::lit(n as f64))
            }
            fn from_f32(n: f32) -> Option<Self> {
                Some(Self::lit(n.into()))
            }
            fn from_f64(n: f64) -> Option<Self> {
                Some(Self::lit(n))
            }
        }

        impl<$($generics)*> Bounded for $Type {
            fn min_value() -> Self {
                Self::lit(f64::MIN)
            }
            fn max_value() -> Self {
                Self::lit(f64::MAX)
            }
        }

        impl<$($generics)*> Signed for $Type {
            #[track_caller]
            fn abs(&self) -> Self {
                Rule::abs(*self)
            }
            #[track_caller]
            fn abs_sub(&self, other: &Self) -> Self {
                positive_difference(*self, *other)
            }
            #[track_caller]
            fn signum(&self) -> Self {
                Rule::signum(*self)
            }
            #[track_caller]
            fn is_positive(&self) -> bool {
                <$Type>::is_sign_positive(*self)
            }
            #[track_caller]
            fn is_negative(&self) -> bool {
                <$Type>::is_sign_negative(*self)
            }
        }

        impl<$($generics)*> TotalOrder for $Type {
            /// −∞ … −0, +0 … +∞, NaN. All NaNs are equal.
            #[track_caller]
            fn total_cmp(&self, other: &Self) -> Ordering {
                match self.partial_cmp(other) {
                    // The values are equal: only zeros still differ.
                    Some(Ordering::Equal) if *self == 0.0 => {
                        <$Type>::is_sign_negative(*other).cmp(&<$Type>::is_sign_negative(*self))
                    }
                    Some(ordering) => ordering,
                    None => <$Type>::is_nan(*self).cmp(&<$Type>::is_nan(*other)),
                }
            }
        }

        number_traits! { @constants [$($generics)*] $Type:
            E FRAC_1_PI FRAC_1_SQRT_2 FRAC_2_PI FRAC_2_SQRT_PI FRAC_PI_2 FRAC_PI_3 FRAC_PI_4 FRAC_PI_6 FRAC_PI_8 LN_10 LN_2
            LOG10_E LOG2_E PI SQRT_2 TAU LOG10_2 LOG2_10
        }

        impl<$($generics)*> Inv for $Type {
            type Output = Self;

            #[track_caller]
            fn inv(self) -> Self {
                Rule::recip(self)
            }
        }

        impl<$($generics)*> MulAdd for $Type {
            type Output = Self;

            #[track_caller]
            fn mul_add(self, a: Self, b: Self) -> Self {
                Rule::mul_add(self, a, b)
            }
        }

        impl<$($generics)*> MulAddAssign for $Type {
            #[track_caller]
            fn mul_add_assign(&mut self, a: Self, b: Self) {
                *self = Rule::mul_add(*self, a, b);
            }
        }

        impl<$($generics)*> Euclid for $Type {
            #[track_caller]
            fn div_euclid(&self, y: &Self) -> Self {
                Rule::div_euclid(*self, *y)
            }
            #[track_caller]
            fn rem_euclid(&self, y: &Self) -> Self {
                Rule::rem_euclid(*self, *y)
            }
            #[track_caller]
            fn div_rem_euclid(&self, y: &Self) -> (Self, Self) {
                (Rule::div_euclid(*self, *y), Rule::rem_euclid(*self, *y))
            }
        }

        number_traits! { @power [$($generics)*] $Type: $Type, x y => <$Type as Float>::powf(x, y) }
        number_traits! { @power [$($generics)*] $Type: f64, x y => Rule::powf(x, y) }
        number_traits! { @power [$($generics)*] $Type: f32, x y => Rule::powf(x, y.into()) }
        number_traits! { @power [$($generics)*] $Type: i32, x y => Rule::powi(x, y) }
        number_traits! { @power [$($generics)*] $Type: i16, x y => Rule::powi(x, y.into()) }
        number_traits! { @power [$($generics)*] $Type: u16, x y => Rule::powi(x, y.into()) }
        number_traits! { @power [$($generics)*] $Type: i8, x y => Rule::powi(x, y.into()) }
        number_traits! { @power [$($generics)*] $Type: u8, x y => Rule::powi(x, y.into()) }

        impl<$($generics)*> Float for $Type {
            number_traits! { @literals
                nan: f64::NAN, infinity: f64::INFINITY, neg_infinity: f64::NEG_INFINITY, neg_zero: -0.0,
                min_value: f64::MIN, max_value: f64::MAX,
                min_positive_value: f64::MIN_POSITIVE, epsilon: f64::EPSILON
            }
            number_traits! { @questions $Type:
                is_nan is_finite is_infinite is_normal is_subnormal is_sign_positive is_sign_negative
            }
            number_traits! { @table
                floor() ceil() round() trunc() fract() abs() signum() recip() to_degrees() to_radians()
                sqrt() cbrt() exp() exp2() exp_m1() ln() log2() log10() ln_1p()
                sin() cos() tan() asin() acos() atan() sinh() cosh() tanh() asinh() acosh() atanh()
                log(base) max(other) min(other) hypot(other) atan2(other) copysign(sign)
                mul_add(a, b) clamp(min, max)
            }

            #[track_caller]
            fn classify(self) -> FpCategory {
                <$Type>::classify(self)
            }
            #[track_caller]
            fn powi(self, n: i32) -> Self {
                Rule::powi(self, n)
            }
            #[track_caller]
            fn sin_cos(self) -> (Self, Self) {
                Rule::sin_cos(self)
            }
            #[track_caller]
            fn abs_sub(self, other: Self) -> Self {
                positive_difference(self, other)
            }
            $($float)*
        }
    };
    (@constants [$($generics:tt)*] $Type:ty: $($NAME:ident)*) => {
        impl<$($generics)*> FloatConst for $Type {
            $(
                fn $NAME() -> Self {
                    Self::lit(<f64 as FloatConst>::$NAME())
                }
            )*
        }
    };
    (@power [$($generics:tt)*] $Type:ty: $Exponent:ty, $x:ident $y:ident => $power:expr) => {
        impl<$($generics)*> Pow<$Exponent> for $Type {
            type Output = $Type;
            #[track_caller]
            fn pow(self, $y: $Exponent) -> $Type {
                let $x = self;
                $power
            }
        }
        impl<$($generics)*> Pow<&$Exponent> for $Type {
            type Output = $Type;
            #[track_caller]
            fn pow(self, &$y: &$Exponent) -> $Type {
                let $x = self;
                $power
            }
        }
        impl<$($generics)*> Pow<$Exponent> for &$Type {
            type Output = $Type;
            #[track_caller]
            fn pow(self, $y: $Exponent) -> $Type {
                let $x = *self;
                $power
            }
        }
        impl<$($generics)*> Pow<&$Exponent> for &$Type {
            type Output = $Type;
            #[track_caller]
            fn pow(self, &$y: &$Exponent) -> $Type {
                let $x = *self;
                $power
            }
        }
    };
    (@literals $($name:ident: $value:expr),*) => {
        $(
            fn $name() -> Self {
                Self::lit($value)
            }
        )*
    };
    (@questions $Type:ty: $($name:ident)*) => {
        $(
            #[track_caller]
            fn $name(self) -> bool {
                <$Type>::$name(self)
            }
        )*
    };
    (@table $($name:ident($($operand:ident),*))*) => {
        $(
            #[track_caller]
            fn $name(self $(, $operand: Self)*) -> Self {
                Rule::$name(self $(, $operand)*)
            }
        )*
    };
}

number_traits! { [] Var {
    /// A constant exponent makes it the operation `powf`, any other one `pow`.
    #[track_caller]
    fn powf(self, n: Self) -> Self {
        if n.is_constant() { self.powf_rule(n) } else { Rule::pow(self, n) }
    }

    /// Guards that the value is the same in a replay.
    #[track_caller]
    fn integer_decode(self) -> (u64, i16, i8) {
        Float::integer_decode(self.pinned())
    }
} }

number_traits! { [T: Real + Float] Dual<T> {
    #[track_caller]
    fn powf(self, n: Self) -> Self {
        Rule::pow(self, n)
    }

    /// That of the value.
    #[track_caller]
    fn integer_decode(self) -> (u64, i16, i8) {
        Float::integer_decode(self.v)
    }
} }

impl ConstZero for Var {
    const ZERO: Self = Var::constant(0.0);
}

impl ConstOne for Var {
    const ONE: Self = Var::constant(1.0);
}

impl<T: Real + Float + ConstZero> ConstZero for Dual<T> {
    const ZERO: Self = Dual { v: T::ZERO, dv: T::ZERO };
}

impl<T: Real + Float + ConstZero + ConstOne> ConstOne for Dual<T> {
    const ONE: Self = Dual { v: T::ONE, dv: T::ZERO };
}

/// Conversions to numbers, each with the caller's line.
macro_rules! to_primitive {
    (narrow { $($narrow:ident $Narrow:ident)* } wide { $($wide:ident $Wide:ident)* }) => {
        /// Conversions to integers guard the whole part. `to_f64`, `to_f32` and integers outside the range of
        /// `i64` guard the value: a replay at another one is an error.
        impl ToPrimitive for Var {
            $(
                #[track_caller]
                fn $narrow(&self) -> Option<$Narrow> {
                    Var::to_i64(*self)?.try_into().ok()
                }
            )*
            $(
                #[track_caller]
                fn $wide(&self) -> Option<$Wide> {
                    match Var::to_i64(*self) {
                        Some(whole) => whole.try_into().ok(),
                        None => self.pinned().$wide(),
                    }
                }
            )*
            #[track_caller]
            fn to_f32(&self) -> Option<f32> {
                self.pinned().to_f32()
            }
            #[track_caller]
            fn to_f64(&self) -> Option<f64> {
                Some(self.pinned())
            }
        }

        /// Conversions of the value.
        impl<T: Real + Float> ToPrimitive for Dual<T> {
            to_primitive! { @value $($narrow $Narrow)* $($wide $Wide)* to_f32 f32 to_f64 f64 }
        }
    };
    (@value $($name:ident $Number:ident)*) => {
        $(
            #[track_caller]
            fn $name(&self) -> Option<$Number> {
                self.v.$name()
            }
        )*
    };
}

to_primitive! {
    narrow { to_i8 i8 to_i16 i16 to_i32 i32 to_i64 i64 to_isize isize to_u8 u8 to_u16 u16 to_u32 u32 }
    wide { to_usize usize to_u64 u64 to_i128 i128 to_u128 u128 }
}

/// Conversions as by the operator `as`.
macro_rules! as_primitive {
    (integers { $($Integer:ident)* } floats { $($Float:ident)* }) => {
        as_primitive! { @into $($Integer)* $($Float)* }
        $(
            /// Guards the whole part.
            impl AsPrimitive<$Integer> for Var {
                #[track_caller]
                fn as_(self) -> $Integer {
                    // The whole part of an f64 is an f64, which `as` saturates.
                    match self.to_i64() {
                        Some(whole) => whole as f64 as $Integer,
                        None => self.pinned() as $Integer,
                    }
                }
            }
        )*
        $(
            /// Guards the value.
            impl AsPrimitive<$Float> for Var {
                #[track_caller]
                fn as_(self) -> $Float {
                    self.pinned() as $Float
                }
            }
        )*
    };
    (@into $($Number:ident)*) => {
        $(
            impl AsPrimitive<Var> for $Number {
                fn as_(self) -> Var {
                    Var::constant(self as f64)
                }
            }
            impl<T: Real + Float + 'static> AsPrimitive<Dual<T>> for $Number {
                fn as_(self) -> Dual<T> {
                    Dual::lit(self as f64)
                }
            }
            impl<T: Real + Float + AsPrimitive<$Number>> AsPrimitive<$Number> for Dual<T> {
                #[track_caller]
                fn as_(self) -> $Number {
                    self.v.as_()
                }
            }
        )*
    };
}

as_primitive! {
    integers { i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize }
    floats { f32 f64 }
}

impl AsPrimitive<Var> for Var {
    fn as_(self) -> Var {
        self
    }
}

impl<T: Real + Float + 'static> AsPrimitive<Dual<T>> for Dual<T> {
    fn as_(self) -> Dual<T> {
        self
    }
}
