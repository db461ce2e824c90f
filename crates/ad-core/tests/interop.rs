//! Functions that are generic over the traits of other crates, and the matrices of those.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::num::FpCategory;

use ad_core::ops::Operation;
use ad_core::{Answer, Dual, Error, Op, Question, Rule, Tape, Var};
use common::{assert_equal, assert_same, product, unit};
use num_traits::float::TotalOrder;
use num_traits::{
    AsPrimitive, Bounded, ConstOne, ConstZero, Euclid, Float, FloatConst, FromPrimitive, Inv, MulAdd, MulAddAssign,
    Num, NumAssign, NumAssignRef, NumCast, NumRef, One, Pow, RefNum, Signed, ToPrimitive, Zero,
};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// Numbers of every class.
const POINTS: &[f64] = &[
    0.0, -0.0, 1.0, -1.0, 0.5, -0.7, 2.5, 2.75, -3.75, 30.0, 300.5, 1e-9, 5e-324, -1e-310, 4e9, -1e19, 1.2e19, 1e30,
    1e300, INF, -INF, NAN,
];

/// Every trait that generic code may ask for.
fn number<T>()
where
    T: Float
        + FloatConst
        + NumAssign
        + NumAssignRef
        + NumRef
        + Signed
        + Bounded
        + FromPrimitive
        + ToPrimitive
        + NumCast,
    T: num_traits::real::Real + TotalOrder + Euclid + Inv<Output = T> + MulAdd<Output = T> + MulAddAssign,
    T: Pow<T, Output = T> + Pow<f64, Output = T> + Pow<i32, Output = T> + for<'a> Pow<&'a T, Output = T> + Pow<u8>,
    T: ConstZero + ConstOne + std::str::FromStr + std::iter::Sum + std::iter::Product + Debug + std::fmt::Display,
    T: AsPrimitive<f64> + AsPrimitive<usize> + AsPrimitive<T> + Default + Send + Sync + 'static,
    for<'a> &'a T: RefNum<T>,
    usize: AsPrimitive<T>,
    f32: AsPrimitive<T>,
{
}

#[test]
fn every_number_type_has_every_trait() {
    number::<f64>();
    number::<Var>();
    number::<Dual>();
    number::<Dual<Dual>>();
    number::<Dual<Var>>();
}

/// Operations that are exactly rounded in every library: `f64` has the same bits whose methods they are.
fn exact<T: Float + FloatConst>(x: &[T]) -> T {
    let half = T::from(0.5).unwrap();
    let mut sum = T::zero();
    for (i, &v) in x.iter().enumerate() {
        let v = if v < T::zero() { (-v).sqrt() } else { v.mul_add(half, T::PI()) };
        sum = sum + v * T::from(i + 1).unwrap() - (v / x[0]).floor().abs();
    }
    (sum % T::from(7).unwrap()).max(half).recip().copysign(x[1]) + T::epsilon()
}

#[test]
fn a_generic_function_has_one_result_in_every_number_type() {
    for x in [[1.5, -2.0, 3.25], [-0.3, 4.0, -7.5]] {
        let tape = Tape::record(&x, exact).unwrap();
        let gradient = tape.gradient(&x).unwrap().1;
        let value = exact(&x);
        assert_same(&tape.eval(&x).unwrap(), &[value], "recorded");
        for (i, &derivative) in gradient.iter().enumerate() {
            let seed = unit(x.len(), i);
            let duals: Vec<Dual> = (0..x.len()).map(|j| Dual::new(x[j], seed[j])).collect();
            let dual = exact(&duals);
            assert_same(&[dual.v], &[value], "Dual");
            assert_equal(&[dual.dv], &[derivative], "derivative");
        }
    }
}

/// A method of `Float` in any type, and what the table has for it.
macro_rules! float_methods {
    ($([$name:literal, $arity:literal] $x:ident => $by_trait:expr, $by_table:expr;)*) => {
        const METHODS: &[(&str, usize)] = &[$(($name, $arity)),*];

        fn by_trait<T: Float>(name: &str, x: &[T]) -> Vec<T> {
            match name {
                $($name => {
                    let $x = x;
                    $by_trait.to_vec()
                })*
                _ => unreachable!(),
            }
        }

        fn by_table<T: Rule>(name: &str, x: &[T]) -> Vec<T> {
            match name {
                $($name => {
                    let $x = x;
                    $by_table.to_vec()
                })*
                _ => unreachable!(),
            }
        }
    };
}

#[rustfmt::skip]
float_methods! {
    ["floor", 1] x => [Float::floor(x[0])], [Rule::floor(x[0])];
    ["ceil", 1] x => [Float::ceil(x[0])], [Rule::ceil(x[0])];
    ["round", 1] x => [Float::round(x[0])], [Rule::round(x[0])];
    ["trunc", 1] x => [Float::trunc(x[0])], [Rule::trunc(x[0])];
    ["fract", 1] x => [Float::fract(x[0])], [Rule::fract(x[0])];
    ["abs", 1] x => [Float::abs(x[0])], [Rule::abs(x[0])];
    ["signum", 1] x => [Float::signum(x[0])], [Rule::signum(x[0])];
    ["recip", 1] x => [Float::recip(x[0])], [Rule::recip(x[0])];
    ["to_degrees", 1] x => [Float::to_degrees(x[0])], [Rule::to_degrees(x[0])];
    ["to_radians", 1] x => [Float::to_radians(x[0])], [Rule::to_radians(x[0])];
    ["sqrt", 1] x => [Float::sqrt(x[0])], [Rule::sqrt(x[0])];
    ["cbrt", 1] x => [Float::cbrt(x[0])], [Rule::cbrt(x[0])];
    ["exp", 1] x => [Float::exp(x[0])], [Rule::exp(x[0])];
    ["exp2", 1] x => [Float::exp2(x[0])], [Rule::exp2(x[0])];
    ["exp_m1", 1] x => [Float::exp_m1(x[0])], [Rule::exp_m1(x[0])];
    ["ln", 1] x => [Float::ln(x[0])], [Rule::ln(x[0])];
    ["log2", 1] x => [Float::log2(x[0])], [Rule::log2(x[0])];
    ["log10", 1] x => [Float::log10(x[0])], [Rule::log10(x[0])];
    ["ln_1p", 1] x => [Float::ln_1p(x[0])], [Rule::ln_1p(x[0])];
    ["sin", 1] x => [Float::sin(x[0])], [Rule::sin(x[0])];
    ["cos", 1] x => [Float::cos(x[0])], [Rule::cos(x[0])];
    ["tan", 1] x => [Float::tan(x[0])], [Rule::tan(x[0])];
    ["asin", 1] x => [Float::asin(x[0])], [Rule::asin(x[0])];
    ["acos", 1] x => [Float::acos(x[0])], [Rule::acos(x[0])];
    ["atan", 1] x => [Float::atan(x[0])], [Rule::atan(x[0])];
    ["sinh", 1] x => [Float::sinh(x[0])], [Rule::sinh(x[0])];
    ["cosh", 1] x => [Float::cosh(x[0])], [Rule::cosh(x[0])];
    ["tanh", 1] x => [Float::tanh(x[0])], [Rule::tanh(x[0])];
    ["asinh", 1] x => [Float::asinh(x[0])], [Rule::asinh(x[0])];
    ["acosh", 1] x => [Float::acosh(x[0])], [Rule::acosh(x[0])];
    ["atanh", 1] x => [Float::atanh(x[0])], [Rule::atanh(x[0])];
    ["sin_cos", 1] x => <[T; 2]>::from(Float::sin_cos(x[0])), <[T; 2]>::from(Rule::sin_cos(x[0]));
    ["powi 3", 1] x => [Float::powi(x[0], 3)], [Rule::powi(x[0], 3)];
    ["powi -2", 1] x => [Float::powi(x[0], -2)], [Rule::powi(x[0], -2)];
    ["powf 2.5", 1] x => [Float::powf(x[0], T::from(2.5).unwrap())], [Rule::powf(x[0], 2.5)];
    ["powf -3", 1] x => [Float::powf(x[0], T::from(-3).unwrap())], [Rule::powf(x[0], -3.0)];
    ["powf", 2] x => [Float::powf(x[0], x[1])], [Rule::pow(x[0], x[1])];
    ["log", 2] x => [Float::log(x[0], x[1])], [Rule::log(x[0], x[1])];
    ["max", 2] x => [Float::max(x[0], x[1])], [Rule::max(x[0], x[1])];
    ["min", 2] x => [Float::min(x[0], x[1])], [Rule::min(x[0], x[1])];
    ["abs_sub", 2] x => [Float::abs_sub(x[0], x[1])], [x[0].select_le(x[1], 0.0, x[0] - x[1])];
    ["hypot", 2] x => [Float::hypot(x[0], x[1])], [Rule::hypot(x[0], x[1])];
    ["atan2", 2] x => [Float::atan2(x[0], x[1])], [Rule::atan2(x[0], x[1])];
    ["copysign", 2] x => [Float::copysign(x[0], x[1])], [Rule::copysign(x[0], x[1])];
    ["mul_add", 3] x => [Float::mul_add(x[0], x[1], x[2])], [Rule::mul_add(x[0], x[1], x[2])];
    ["clamp", 3] x => [Float::clamp(x[0], x[1], x[2])], [Rule::clamp(x[0], x[1], x[2])];
}

/// The points a method of so many operands is tried at.
fn points(arity: usize) -> Vec<Vec<f64>> {
    match arity {
        1 => product(&[POINTS]),
        2 => product(&[POINTS, POINTS]),
        _ => product(&[&[0.0, 1.0, -1.5, 2.5, INF, NAN] as &[f64]; 3]),
    }
}

#[test]
fn every_method_of_float_is_the_operation_of_the_table() {
    for &(name, arity) in METHODS {
        // Recorded at one point, replayed at all: no method leaves a guard.
        let x0 = vec![0.5; arity];
        let tape = Tape::record(&x0, |x| by_trait(name, x)).unwrap();
        let table = Tape::record(&x0, |x| by_table(name, x)).unwrap();
        assert_eq!(tape.to_string(), table.to_string(), "{name}");
        let m = tape.num_outputs();
        for x in points(arity) {
            let value = by_table(name, &x);
            assert_same(&tape.eval(&x).unwrap(), &value, format!("{name} at {x:?}"));
            for j in 0..m {
                let w = unit(m, j);
                let (adjoint, expected) = (tape.vjp(&x, &w).unwrap().1, table.vjp(&x, &w).unwrap().1);
                assert_same(&adjoint, &expected, format!("adjoints of {name} at {x:?}"));
            }
            for i in 0..arity {
                let seed = unit(arity, i);
                let duals: Vec<Dual> = x.iter().zip(&seed).map(|(&v, &dv)| Dual::new(v, dv)).collect();
                let (v, dv): (Vec<f64>, Vec<f64>) = by_trait(name, &duals).iter().map(|d| (d.v, d.dv)).unzip();
                assert_same(&v, &value, format!("Dual {name} at {x:?}"));
                assert_equal(&dv, &tape.jvp(&x, &seed).unwrap().1, format!("derivative {i} of {name} at {x:?}"));
            }
        }
    }
}

#[test]
fn every_method_of_float_is_that_of_f64_up_to_its_last_bits() {
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-13 * a.abs().max(1e-300);
    for &(name, arity) in METHODS {
        for x in points(arity) {
            let nan = x.iter().any(|x| x.is_nan());
            // std takes the other operand for a NaN, has no empty interval, and
            // knows the sign of a NaN.
            match name {
                "max" | "min" | "copysign" if nan => continue,
                "clamp" if nan || x[1] > x[2] => continue,
                _ => (),
            }
            let (ours, theirs) = (by_table(name, &x), by_trait(name, &x));
            let all_close = ours.iter().zip(&theirs).all(|(&a, &b)| close(a, b));
            assert!(all_close, "{name} at {x:?}: {ours:?}, but f64 has {theirs:?}");
        }
    }
}

#[test]
fn inherent_methods_are_not_ambiguous_beside_the_traits() {
    // All traits are in scope here.
    let tape = Tape::record(&[0.3, 2.0], |x| {
        let y = x[0].sin().powi(2).max(x[1]).powf(1.5).mul_add(x[0], 1.0).clamp(-9.0, 9.0);
        y.abs().signum() * x[0].pow(x[1]) + x[0].recip().hypot(3.0)
    })
    .unwrap();
    assert!(tape.gradient(&[0.3, 2.0]).is_ok());
    let x = Dual::new(0.3, 1.0);
    assert_eq!(x.sin().powi(2).max(0.1).signum().abs().clamp(0.0, 0.5).v, 0.5);
    assert_eq!((x.is_sign_negative(), x.is_normal(), x.to_i64()), (false, true, Some(0)));
}

#[test]
fn the_other_traits_are_the_operations_of_the_table() {
    let f = |x: &[Var]| {
        let mut fused = x[0];
        MulAddAssign::mul_add_assign(&mut fused, x[1], x[2]);
        let [a, b, c] = [x[0], x[1], x[2]];
        let (quotient, remainder) = Euclid::div_rem_euclid(&a, &b);
        vec![
            fused,
            MulAdd::mul_add(a, b, c),
            Inv::inv(a),
            Signed::abs(&a),
            Signed::signum(&b),
            Signed::abs_sub(&a, &b),
            quotient,
            remainder,
            Euclid::div_euclid(&a, &b),
            Euclid::rem_euclid(&a, &b),
            Pow::pow(a, b),
            Pow::pow(&a, &b),
            Pow::pow(a, 2.5),
            Pow::pow(a, 2.5f32),
            Pow::pow(a, 3i32),
            Pow::pow(&a, &3u8),
            Pow::pow(a, -3i16),
        ]
    };
    let expected = |x: &[f64]| {
        let [a, b, c] = [x[0], x[1], x[2]];
        let fused = Rule::mul_add(a, b, c);
        let (quotient, remainder) = (Rule::div_euclid(a, b), Rule::rem_euclid(a, b));
        let difference = if a > b { a - b } else { 0.0 };
        let head = [fused, fused, 1.0 / a, a.abs(), b.signum(), difference, quotient, remainder, quotient, remainder];
        let power = Rule::pow(a, b);
        let tail = [power, power, Rule::powf(a, 2.5), Rule::powf(a, 2.5), a * a * a, a * a * a, Rule::powi(a, -3)];
        [head.as_slice(), &tail].concat()
    };
    let tape = Tape::record(&[1.5, 2.0, 0.5], f).unwrap();
    for x in [[1.5, 2.0, 0.5], [7.25, -2.0, 1.0], [-7.25, 3.0, -1.0], [0.0, 1.0, 2.0]] {
        assert_same(&tape.eval(&x).unwrap(), &expected(&x), format!("{x:?}"));
    }
    assert!(tape.guards().is_empty());
}

/// A number that notes which operations it goes through.
#[derive(Debug, Clone, Copy)]
struct Noting(f64);

thread_local! {
    static NOTED: RefCell<Vec<Op>> = const { RefCell::new(Vec::new()) };
}

impl From<f64> for Noting {
    fn from(c: f64) -> Self {
        Noting(c)
    }
}

impl Rule for Noting {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        NOTED.with(|noted| noted.borrow_mut().push(O::OP));
        O::value(x.map(|x| x.0)).map(Noting)
    }
    fn confirm(_: Question, _: Answer, _: Self, _: Self) -> Result<(), (Answer, f64, f64)> {
        Ok(())
    }
}
ad_core::rule_operators!([] Noting);

#[test]
fn a_constant_exponent_takes_no_logarithm_of_the_base() {
    let operations = |tape: &Tape| {
        NOTED.take();
        tape.eval_with(&vec![Noting(2.0); tape.num_inputs()]).unwrap();
        NOTED.take()
    };
    let constant = Tape::record(&[2.0], |x| Float::powf(x[0], <Var as NumCast>::from(3).unwrap())).unwrap();
    assert_eq!(operations(&constant), [Op::Powf]);
    assert_eq!(constant.gradient(&[-2.0]).unwrap(), (-8.0, vec![12.0]));
    let variable = Tape::record(&[2.0, 3.0], |x| Float::powf(x[0], x[1])).unwrap();
    assert_eq!(operations(&variable), [Op::Pow]);
}

#[test]
fn constants_are_constants() {
    fn constants<T: Float + FloatConst + Bounded + FromPrimitive + ConstZero + ConstOne + 'static>() -> Vec<T>
    where
        usize: AsPrimitive<T>,
        f32: AsPrimitive<T>,
        i64: AsPrimitive<T>,
    {
        let large = u64::MAX - 1;
        vec![
            T::zero(),
            T::one(),
            T::ZERO,
            T::ONE,
            T::nan(),
            T::infinity(),
            T::neg_infinity(),
            T::neg_zero(),
            <T as Float>::min_value(),
            <T as Float>::max_value(),
            <T as Bounded>::min_value(),
            <T as Bounded>::max_value(),
            T::min_positive_value(),
            T::epsilon(),
            T::E(),
            T::FRAC_1_PI(),
            T::FRAC_1_SQRT_2(),
            T::FRAC_2_PI(),
            T::FRAC_2_SQRT_PI(),
            T::FRAC_PI_2(),
            T::FRAC_PI_3(),
            T::FRAC_PI_4(),
            T::FRAC_PI_6(),
            T::FRAC_PI_8(),
            T::LN_10(),
            T::LN_2(),
            T::LOG10_E(),
            T::LOG2_E(),
            T::PI(),
            T::SQRT_2(),
            T::TAU(),
            T::LOG10_2(),
            T::LOG2_10(),
            T::from(0.1).unwrap(),
            T::from(0.1f32).unwrap(),
            T::from(large).unwrap(),
            T::from(i128::MAX).unwrap(),
            T::from_i8(-3).unwrap(),
            T::from_u32(7).unwrap(),
            T::from_usize(7).unwrap(),
            T::from_i64(i64::MIN).unwrap(),
            T::from_u64(large).unwrap(),
            T::from_i128(-5).unwrap(),
            T::from_u128(u128::MAX).unwrap(),
            T::from_f32(0.1).unwrap(),
            T::from_f64(0.1).unwrap(),
            12usize.as_(),
            0.1f32.as_(),
            (i64::MAX - 1).as_(),
            T::from_str_radix("101.1", 2).ok().unwrap(),
        ]
    }
    let expected = constants::<f64>();
    let tape = Tape::record(&[0.0], |_| constants::<Var>()).unwrap();
    assert_eq!((tape.guards().len(), tape.escapes().len()), (0, 0));
    assert_same(&tape.eval(&[0.0]).unwrap(), &expected, "Var");
    let duals: Vec<f64> = constants::<Dual>().iter().map(|d| d.v).collect();
    assert_same(&duals, &expected, "Dual");
    assert!(constants::<Dual>().iter().all(|d| d.dv == 0.0));
    assert_eq!("2.5".parse::<Var>().unwrap(), 2.5);
    assert_eq!("2.5".parse::<Dual>().unwrap(), 2.5);
    assert!("two".parse::<Var>().is_err());
    assert!(<Dual as Num>::from_str_radix("1.z", 10).is_err());
}

/// Asks at every point, replays at every other: the answer is that of `f64`,
/// and a replay goes through if and only if the answer is still the same.
fn ask<R: PartialEq + Debug>(
    what: &str,
    expected: impl Fn(f64) -> R,
    of_var: impl Fn(Var) -> R,
    of_dual: impl Fn(Dual) -> R,
    same_question: impl Fn(f64, f64) -> bool,
) {
    for &x0 in POINTS {
        assert_eq!(of_dual(Dual::new(x0, 1.0)), expected(x0), "{what} of a Dual at {x0}");
        let tape = Tape::record(&[x0], |x| {
            assert_eq!(of_var(x[0]), expected(x0), "{what} at {x0}");
            x[0]
        })
        .unwrap();
        assert_eq!(tape.len(), 1, "{what} leaves no rows");
        assert!(tape.escapes().is_empty(), "{what} is no escape");
        for &x1 in POINTS {
            let replay = tape.eval(&[x1]);
            if expected(x0) != expected(x1) {
                assert!(
                    matches!(replay, Err(Error::BranchChanged { .. })),
                    "{what} at {x1}, recorded at {x0}: {replay:?}"
                );
            } else if same_question(x0, x1) {
                assert!(replay.is_ok(), "{what} at {x1}, recorded at {x0}: {replay:?}");
            }
        }
    }
}

#[test]
fn questions_are_guards() {
    macro_rules! ask_each {
        ($($name:ident)*) => {
            $(ask(stringify!($name), f64::$name, |x| Float::$name(x), |x| Float::$name(x), |_, _| true);)*
        };
    }
    ask_each! { is_nan is_infinite is_finite is_normal is_subnormal is_sign_positive is_sign_negative classify }
    ask("is_zero", |x| x == 0.0, |x| x.is_zero(), |x| x.is_zero(), |_, _| true);
    ask("is_one", |x| x == 1.0, |x| x.is_one(), |x| x.is_one(), |_, _| true);
    ask("is_positive", |x| Signed::is_positive(&x), |x| x.is_positive(), |x| x.is_positive(), |_, _| true);
    ask("is_negative", |x| Signed::is_negative(&x), |x| x.is_negative(), |x| x.is_negative(), |_, _| true);
    for &y in POINTS {
        let expected = |x: f64| TotalOrder::total_cmp(&x, &y);
        let (of_var, of_dual) = (|x: Var| x.total_cmp(&y.into()), |x: Dual| x.total_cmp(&y.into()));
        // The three-way comparison is a guard, and tells more apart than the total order.
        ask(&format!("total_cmp with {y}"), expected, of_var, of_dual, |x0, x1| {
            x0.partial_cmp(&y) == x1.partial_cmp(&y)
        });
    }
    // The sign of a NaN differs between processors: it counts as positive.
    assert!(Float::is_sign_positive(Var::lit(-NAN)) && Float::is_sign_positive(Dual::<f64>::lit(-NAN)));
    assert_eq!(Float::classify(Dual::new(Dual::new(5e-324, 1.0), 1.0.into())), FpCategory::Subnormal);
}

#[test]
fn conversions_to_integers_are_guards() {
    // What is left of either is the same, and an i64 can say so; so can any comparison of the value itself.
    let same = |x: f64, y: f64| (x.to_i64().is_some() && x.to_i64() == y.to_i64()) || x == y;
    macro_rules! convert_each {
        ($($to:ident $Integer:ident)*) => {
            $(
                ask(stringify!($to), |x| x.$to(), |x| ToPrimitive::$to(&x), |x| ToPrimitive::$to(&x), same);
                ask(
                    concat!("as ", stringify!($Integer)),
                    |x| x as $Integer,
                    |x| AsPrimitive::<$Integer>::as_(x),
                    |x| AsPrimitive::<$Integer>::as_(x),
                    same,
                );
            )*
        };
    }
    convert_each! {
        to_i8 i8 to_i16 i16 to_i32 i32 to_i64 i64 to_i128 i128 to_isize isize
        to_u8 u8 to_u16 u16 to_u32 u32 to_u64 u64 to_u128 u128 to_usize usize
    }
}

#[test]
fn conversions_that_keep_the_value_guard_it() {
    // Bits, so that the zeros differ and NaN is itself.
    let bits = |x: Option<f64>| x.map(|x| if x.is_nan() { NAN.to_bits() } else { x.to_bits() });
    let same = |x: f64, y: f64| bits(Some(x)) == bits(Some(y));
    ask("to_f64", |x| bits(Some(x)), |x| bits(x.to_f64()), |x| bits(x.to_f64()), same);
    let single = |x: Option<f32>| bits(x.map(|x| x.into()));
    ask("to_f32", |x| single(Some(x as f32)), |x| single(x.to_f32()), |x| single(x.to_f32()), same);
    ask("as f64", |x| bits(Some(x)), |x| bits(Some(x.as_())), |x| bits(Some(x.as_())), same);
    ask("to another Float", |x| bits(Some(x)), |x| bits(NumCast::from(x)), |x| bits(NumCast::from(x)), same);
    let decode = |x: f64| Float::integer_decode(if x.is_nan() { NAN } else { x });
    ask("integer_decode", decode, Float::integer_decode, Float::integer_decode, same);
}

#[test]
fn generic_code_is_named_by_its_line() {
    let line = Cell::new(0);
    fn integer<T: Float>(x: T, line: &Cell<u32>) -> T {
        line.set(line!() + 1);
        let whole = x.to_u8().unwrap();
        T::from(whole).unwrap() * x
    }
    let tape = Tape::record(&[2.5], |x| integer(x[0], &line)).unwrap();
    let Err(Error::BranchChanged { location, .. }) = tape.eval(&[3.5]) else { panic!() };
    assert_eq!((location.line(), location.is_nearest()), (line.get(), false));
    assert!(location.file().ends_with("interop.rs"));

    fn operation<T: Float>(x: T, line: &Cell<u32>) -> T {
        line.set(line!() + 1);
        x.abs_sub(T::one())
    }
    let tape = Tape::record(&[2.5], |x| operation(x[0], &line)).unwrap();
    let trace = tape.primal_trace(&[2.5]).unwrap().with_locations().to_string();
    assert!(trace.contains(&format!("interop.rs:{}", line.get())), "{trace}");
}

#[cfg(feature = "nalgebra")]
mod of_nalgebra {
    use super::*;
    use ad_core::{Matrix, Real};
    use approx::UlpsEq;
    use nalgebra::{ComplexField, DMatrix, DVector, Matrix3, RealField, Vector3};
    use simba::scalar::SupersetOf;
    use simba::simd::SimdValue;

    /// A point whose first pivots are the rows in order, and which is well conditioned.
    const A: [f64; 9] = [4.0, 1.0, -2.0, 1.5, 5.0, 0.5, -1.0, 2.0, 6.0];

    /// A, moved a little and a lot, with the same pivots.
    fn matrices() -> [[f64; 9]; 3] {
        let moved = |size: f64| std::array::from_fn(|i| A[i] + size * ((i * i) as f64).sin());
        [A, moved(0.1), moved(0.8)]
    }

    /// The matrices of [`matrices`] times their transposes.
    fn positive_definite() -> [[f64; 9]; 3] {
        matrices().map(|a| {
            let a = Matrix3::from_row_slice(&a);
            (a * a.transpose()).as_slice().try_into().unwrap()
        })
    }

    #[track_caller]
    fn assert_close<'a>(a: impl IntoIterator<Item = &'a f64>, b: &[f64]) {
        let a: Vec<f64> = a.into_iter().copied().collect();
        let largest = b.iter().fold(1.0, |m: f64, b| m.max(b.abs()));
        let close = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * largest);
        assert!(close, "left {a:?}\nright {b:?}");
    }

    /// Records f at the first of the points and compares gradients at all: of
    /// the recorded function, of the function of duals, and in closed form.
    fn compare(
        points: &[[f64; 9]],
        recorded: impl Fn(&[Var]) -> Var,
        duals: impl Fn(&[Dual]) -> Dual,
        closed: impl Fn(&DMatrix<f64>) -> (f64, DMatrix<f64>),
    ) {
        let tape = Tape::record(&points[0], recorded).unwrap();
        assert!(tape.escapes().is_empty());
        for a in points {
            let (value, gradient) = tape.gradient(a).unwrap();
            let (expected_value, expected) = closed(&DMatrix::from_row_slice(3, 3, a));
            assert_close(&[value], &[expected_value]);
            // Row by row, as the inputs.
            assert_close(&gradient, expected.transpose().as_slice());
            for (i, &derivative) in gradient.iter().enumerate() {
                let seeded: Vec<Dual> = (0..9).map(|j| Dual::new(a[j], if i == j { 1.0 } else { 0.0 })).collect();
                let dual = duals(&seeded);
                assert_same(&[dual.v], &[value], "value");
                assert_close(&[dual.dv], &[derivative]);
            }
        }
    }

    #[test]
    fn every_number_type_is_a_real_field() {
        fn field<T: RealField + SupersetOf<f64>>() {
            complex_field::<nalgebra::Complex<T>>();
        }
        fn complex_field<T: ComplexField>() {}
        field::<Var>();
        field::<Dual>();
        field::<Dual<Dual>>();
        field::<Dual<Var>>();
    }

    fn determinant<T: RealField + Copy>(a: &[T]) -> T {
        DMatrix::from_row_slice(3, 3, a).lu().determinant()
    }

    /// d det/dA = det·A⁻ᵀ.
    fn determinant_closed(a: &DMatrix<f64>) -> (f64, DMatrix<f64>) {
        let det = a.determinant();
        (det, det * a.clone().try_inverse().unwrap().transpose())
    }

    #[test]
    fn the_determinant_by_lu_has_the_gradient_in_closed_form() {
        compare(&matrices(), determinant, determinant, determinant_closed);
        // Also with a fixed size, where nalgebra has the formula instead.
        let fixed = |a: &[Var]| Matrix3::from_row_slice(a).determinant();
        compare(&matrices(), fixed, |a| Matrix3::from_row_slice(a).determinant(), determinant_closed);
    }

    fn lu_solution<T: RealField + Copy>(a: &[T]) -> T {
        let b = DVector::from_fn(3, |i, _| nalgebra::convert(1.0 + i as f64));
        let w = DVector::from_fn(3, |i, _| nalgebra::convert(2.0 - i as f64));
        DMatrix::from_row_slice(3, 3, a).lu().solve(&b).unwrap().dot(&w)
    }

    fn qr_solution<T: RealField + Copy>(a: &[T]) -> T {
        let b = DVector::from_fn(3, |i, _| nalgebra::convert(1.0 + i as f64));
        let w = DVector::from_fn(3, |i, _| nalgebra::convert(2.0 - i as f64));
        DMatrix::from_row_slice(3, 3, a).qr().solve(&b).unwrap().dot(&w)
    }

    /// d(w·A⁻¹b)/dA = −A⁻ᵀw·(A⁻¹b)ᵀ.
    fn solution_closed(a: &DMatrix<f64>) -> (f64, DMatrix<f64>) {
        let (b, w) = (DVector::from_vec(vec![1.0, 2.0, 3.0]), DVector::from_vec(vec![2.0, 1.0, 0.0]));
        let inverse = a.clone().try_inverse().unwrap();
        let x = &inverse * b;
        (w.dot(&x), -(inverse.transpose() * w) * x.transpose())
    }

    #[test]
    fn the_solution_by_lu_and_by_qr_has_the_gradient_in_closed_form() {
        compare(&matrices(), lu_solution, lu_solution, solution_closed);
        compare(&matrices(), qr_solution, qr_solution, solution_closed);
    }

    #[test]
    fn the_sign_of_a_reflection_is_followed() {
        // The first column changes sign between recording and replay.
        let flipped = std::array::from_fn(|i| if i % 3 == 0 { -A[i] } else { A[i] });
        compare(&[A, flipped], qr_solution, qr_solution, solution_closed);
    }

    fn log_determinant<T: RealField + Copy>(a: &[T]) -> T {
        let l = DMatrix::from_row_slice(3, 3, a).cholesky().unwrap().unpack();
        l.diagonal().map(|x| ComplexField::ln(x)).sum() * nalgebra::convert(2.0)
    }

    #[test]
    fn the_determinant_by_cholesky_has_the_gradient_in_closed_form() {
        // d ln det A/dA = A⁻¹; only the lower half of A is read, so each entry of it stands for two.
        let closed = |a: &DMatrix<f64>| {
            let inverse = a.clone().try_inverse().unwrap();
            let factor = |i, j| {
                if i == j {
                    1.0
                } else if i > j {
                    2.0
                } else {
                    0.0
                }
            };
            (a.determinant().ln(), DMatrix::from_fn(3, 3, |i, j| factor(i, j) * inverse[(i, j)]))
        };
        compare(&positive_definite(), log_determinant, log_determinant, closed);
    }

    #[test]
    fn the_solution_by_cholesky_has_the_value_of_the_inverse() {
        let a = positive_definite();
        let tape = Tape::record(&a[0], |x| {
            let b = Vector3::new(1.0, 2.0, 3.0).map(Var::lit);
            let x = Matrix3::from_row_slice(x).cholesky().unwrap().solve(&b);
            x.as_slice().to_vec()
        })
        .unwrap();
        for a in a {
            let expected = Matrix3::from_row_slice(&a).try_inverse().unwrap() * Vector3::new(1.0, 2.0, 3.0);
            assert_close(&tape.eval(&a).unwrap(), expected.as_slice());
        }
    }

    #[test]
    fn another_choice_is_an_error() {
        let changed = |result: Result<(f64, Vec<f64>), Error>| match result {
            Err(Error::BranchChanged { location, .. }) => assert!(location.file().contains("nalgebra"), "{location}"),
            other => panic!("{other:?}"),
        };
        // The first pivot, and the second one after the first step.
        let tape = Tape::record(&A, determinant).unwrap();
        let with = |i: usize, value: f64| std::array::from_fn::<f64, 9, _>(|j| if i == j { value } else { A[j] });
        assert!(tape.gradient(&with(3, 3.9)).is_ok());
        changed(tape.gradient(&with(3, 4.1)));
        changed(tape.gradient(&with(7, 40.0)));
        // No longer invertible: `solve` would be none.
        let tape = Tape::record(&[4.0, 0.0, 0.0, 2.0], |x| {
            let solution = DMatrix::from_row_slice(2, 2, x).lu().solve(&DVector::from_vec(vec![Var::lit(1.0); 2]));
            solution.map_or(Var::lit(0.0), |x| x[0] + x[1])
        })
        .unwrap();
        changed(tape.gradient(&[4.0, 0.0, 0.0, 0.0]));
        // No longer positive definite.
        let tape = Tape::record(&positive_definite()[0], log_determinant).unwrap();
        let mut a = positive_definite()[0];
        a[4] = -1.0;
        changed(tape.gradient(&a));
    }

    #[test]
    fn eigenvalues_have_the_derivatives_in_closed_form() {
        // dλ = vᵀ·dA·v for a symmetric A, with the lower half of A read.
        let a = positive_definite()[1];
        let eigen = DMatrix::from_row_slice(3, 3, &a).symmetric_eigen();
        for i in 0..3 {
            for j in 0..=i {
                let entry = |at: usize| Dual::new(a[at], if at == 3 * i + j || at == 3 * j + i { 1.0 } else { 0.0 });
                let duals = DMatrix::from_fn(3, 3, |i, j| entry(3 * i + j)).symmetric_eigen();
                for k in 0..3 {
                    let v = eigen.eigenvectors.column(k);
                    let both = if i == j { 1.0 } else { 2.0 };
                    assert_close(
                        &[duals.eigenvalues[k].v, duals.eigenvalues[k].dv],
                        &[eigen.eigenvalues[k], both * v[i] * v[j]],
                    );
                }
            }
        }
    }

    #[test]
    fn the_methods_of_a_real_field_are_the_operations_of_the_table() {
        // Every method of both traits whose result is a number.
        macro_rules! methods {
            ($([$($by_field:tt)*] [$($by_table:tt)*])*) => {
                const COUNT: usize = [$(stringify!($($by_table)*)),*].len();
                fn by_field<T: RealField + Copy>(x: T, y: T, z: T) -> [T; COUNT] {
                    let _ = (x, y, z);
                    [$(methods!(@field x y z $($by_field)*)),*]
                }
                fn by_table<T: Rule>(x: T, y: T, z: T) -> [T; COUNT] {
                    let _ = (x, y, z);
                    [$(methods!(@table x y z $($by_table)*)),*]
                }
            };
            (@field $x:ident $y:ident $z:ident $name:ident 1) => { ComplexField::$name($x) };
            (@field $x:ident $y:ident $z:ident $name:ident 2) => { ComplexField::$name($x, $y) };
            (@field $x:ident $y:ident $z:ident $name:ident 3) => { ComplexField::$name($x, $y, $z) };
            (@field $x:ident $y:ident $z:ident real $name:ident 2) => { RealField::$name($x, $y) };
            (@field $x:ident $y:ident $z:ident real $name:ident 3) => { RealField::$name($x, $y, $z) };
            (@table $x:ident $y:ident $z:ident $name:ident 1) => { Rule::$name($x) };
            (@table $x:ident $y:ident $z:ident $name:ident 2) => { Rule::$name($x, $y) };
            (@table $x:ident $y:ident $z:ident $name:ident 3) => { Rule::$name($x, $y, $z) };
        }
        methods! {
            [floor 1] [floor 1] [ceil 1] [ceil 1] [round 1] [round 1] [trunc 1] [trunc 1] [fract 1] [fract 1]
            [abs 1] [abs 1] [norm1 1] [abs 1] [modulus 1] [abs 1] [signum 1] [signum 1] [recip 1] [recip 1]
            [sqrt 1] [sqrt 1] [cbrt 1] [cbrt 1] [exp 1] [exp 1] [exp2 1] [exp2 1] [exp_m1 1] [exp_m1 1]
            [ln 1] [ln 1] [log2 1] [log2 1] [log10 1] [log10 1] [ln_1p 1] [ln_1p 1]
            [sin 1] [sin 1] [cos 1] [cos 1] [tan 1] [tan 1] [asin 1] [asin 1] [acos 1] [acos 1] [atan 1] [atan 1]
            [sinh 1] [sinh 1] [cosh 1] [cosh 1] [tanh 1] [tanh 1] [asinh 1] [asinh 1] [acosh 1] [acosh 1] [atanh 1] [atanh 1]
            [log 2] [log 2] [hypot 2] [hypot 2] [powf 2] [pow 2] [powc 2] [pow 2] [mul_add 3] [mul_add 3]
            [real max 2] [max 2] [real min 2] [min 2] [real atan2 2] [atan2 2] [real copysign 2] [copysign 2]
            [real clamp 3] [clamp 3]
        }
        let x0 = [0.5, 0.6, 0.7];
        let field = Tape::record(&x0, |x| by_field(x[0], x[1], x[2])).unwrap();
        let table = Tape::record(&x0, |x| by_table(x[0], x[1], x[2])).unwrap();
        assert_eq!(field.to_string(), table.to_string());

        let others = |x: f64, y: f64| {
            let (sine, cosine) = Rule::sin_cos(x);
            let angle = if x >= 0.0 { 0.0 } else { f64::pi() };
            let sign = if x >= 0.0 { 1.0 } else { -1.0 };
            vec![
                x,
                0.0,
                x,
                x,
                x * x,
                x * y,
                x / y,
                angle,
                x.abs(),
                angle,
                x.abs(),
                sign,
                sine,
                cosine,
                Rule::powi(x, 3),
            ]
        };
        let tape = Tape::record(&[0.5, 0.6], |x| {
            let [x, y] = [x[0], x[1]];
            let ((modulus, angle), (size, sign), (sine, cosine)) = (x.to_polar(), x.to_exp(), ComplexField::sin_cos(x));
            let head = [Var::from_real(x), x.imaginary(), x.real(), x.conjugate(), x.modulus_squared(), x.scale(y)];
            let tail = [x.unscale(y), x.argument(), modulus, angle, size, sign, sine, cosine, ComplexField::powi(x, 3)];
            [head.as_slice(), &tail].concat()
        })
        .unwrap();
        for x in points(2) {
            assert_equal(&tape.eval(&x).unwrap(), &others(x[0], x[1]), format!("{x:?}"));
        }
        assert!(tape.guards().is_empty());
    }

    #[test]
    fn questions_and_constants_of_a_real_field() {
        let finite = |x: f64| x.is_finite();
        ask("is_finite", finite, |x| ComplexField::is_finite(&x), |x| ComplexField::is_finite(&x), |_, _| true);
        let negative = |x: f64| x.is_sign_negative();
        ask(
            "negative",
            negative,
            |x| RealField::is_sign_negative(&x),
            |x| RealField::is_sign_negative(&x),
            |_, _| true,
        );
        let positive = |x: f64| x.is_sign_positive();
        ask(
            "positive",
            positive,
            |x| RealField::is_sign_positive(&x),
            |x| RealField::is_sign_positive(&x),
            |_, _| true,
        );
        let bits = |x: Option<f64>| x.map(|x| if x.is_nan() { NAN.to_bits() } else { x.to_bits() });
        ask(
            "to_subset",
            |x| bits(Some(x)),
            |x| bits(x.to_subset()),
            |x| bits(x.to_subset()),
            |x, y| bits(Some(x)) == bits(Some(y)),
        );
        assert!(
            ComplexField::try_sqrt(Var::lit(-1.0)).is_none() && ComplexField::try_sqrt(Var::lit(4.0)).unwrap() == 2.0
        );

        fn constants<T: RealField + Copy>() -> Vec<T> {
            let limits =
                [T::min_value().unwrap(), T::max_value().unwrap(), T::default_epsilon(), T::default_max_relative()];
            let circle =
                [T::pi(), T::two_pi(), T::frac_pi_2(), T::frac_pi_3(), T::frac_pi_4(), T::frac_pi_6(), T::frac_pi_8()];
            let others = [
                T::frac_1_pi(),
                T::frac_2_pi(),
                T::frac_2_sqrt_pi(),
                T::e(),
                T::log2_e(),
                T::log10_e(),
                T::ln_2(),
                T::ln_10(),
            ];
            let numbers = [nalgebra::convert(0.1), nalgebra::convert(0.1f32)];
            [limits.as_slice(), &circle, &others, &numbers].concat()
        }
        let tape = Tape::record(&[0.0], |_| constants::<Var>()).unwrap();
        assert_same(&tape.eval(&[0.0]).unwrap(), &constants::<f64>(), "constants");
        assert_eq!(Var::default_max_ulps(), f64::default_max_ulps());
    }

    #[test]
    fn approximate_comparisons_are_those_of_f64_and_guards() {
        fn approximately<T: RealField + Copy>(how: usize, x: T, y: T) -> bool {
            let [small, relative]: [T; 2] = [1e-12, 1e-9].map(nalgebra::convert);
            match how {
                0 => x.abs_diff_eq(&y, small),
                1 => x.relative_eq(&y, small, relative),
                2 => x.ulps_eq(&y, small, 4),
                _ => x.ulps_eq(&y, T::zero(), 0),
            }
        }
        let near =
            [0.0, 1.0, 1.0 + f64::EPSILON, 1.0 + 1e-10, 1.0 + 1e-6, -1.0, 1e300, 1e300 * (1.0 + 1e-10), INF, -INF, NAN];
        for (how, x0) in (0..4).flat_map(|how| product(&[&near, &near]).into_iter().map(move |x0| (how, x0))) {
            let answer = approximately(how, x0[0], x0[1]);
            let tape = Tape::record(&x0, |x| {
                assert_eq!(approximately(how, x[0], x[1]), answer, "{how} at {x0:?}");
                x[0]
            })
            .unwrap();
            assert!(tape.eval(&x0).is_ok() && tape.escapes().is_empty());
            for x1 in product(&[&near, &near]) {
                if approximately(how, x1[0], x1[1]) != answer {
                    let replay = tape.eval(&x1);
                    assert!(matches!(replay, Err(Error::BranchChanged { .. })), "{how} at {x0:?} then {x1:?}");
                }
            }
        }
    }

    /// Code over lanes sees one, and takes it out and puts it back by the methods
    /// that the trait declares unsafe.
    #[test]
    fn a_number_is_its_only_lane() {
        fn square_plus<T: Real + SimdValue<Element = T, SimdBool = bool>>(x: T, y: T) -> T {
            assert_eq!(T::LANES, 1);
            let square = x.map_lanes(|lane| lane * lane);
            let sum = square.zip_map_lanes(y, |a, b| a + b);
            T::splat(sum.extract(0)).select(true, x)
        }
        let tape = Tape::record(&[3.0, 4.0], |x| square_plus(x[0], x[1])).unwrap();
        assert!(tape.escapes().is_empty() && tape.guards().is_empty());
        assert_eq!(tape.gradient(&[5.0, 7.0]).unwrap(), (32.0, vec![10.0, 1.0]));
        let along_x = square_plus(Dual::new(5.0, 1.0), Dual::new(7.0, 0.0));
        assert_eq!((along_x.v, along_x.dv), (32.0, 10.0));
    }

    #[test]
    fn matrices_convert_both_ways() {
        for (rows, cols) in [(2, 3), (3, 2), (1, 1), (0, 3), (3, 0), (0, 0)] {
            let numbers = (0..rows * cols).map(|i| i as f64).collect();
            let matrix = Matrix::from_vec(rows, cols, numbers).unwrap();
            let theirs = DMatrix::from(&matrix);
            assert_eq!(theirs.shape(), (rows, cols));
            if matrix.as_slice().len() > 1 {
                assert_eq!((theirs[(0, 1)], theirs[(1, 0)]), (1.0, cols as f64));
            }
            assert_eq!(Matrix::from(&theirs), matrix);
            assert_eq!(Matrix::from(theirs.clone()), matrix);
            assert_eq!(DMatrix::from(matrix), theirs);
        }
    }
}

#[cfg(feature = "ndarray")]
mod of_ndarray {
    use super::*;
    use ad_core::Matrix;
    use ndarray::{Array1, Array2, LinalgScalar, ScalarOperand, array, s};

    #[test]
    fn every_number_type_may_be_an_entry() {
        fn entry<T: LinalgScalar + ScalarOperand>() {}
        entry::<Var>();
        entry::<Dual>();
        entry::<Dual<Var>>();
    }

    fn network<T: LinalgScalar + ScalarOperand + Float>(x: &[T]) -> T {
        let a = Array2::from_shape_fn((3, 2), |(i, j)| T::from(i + 2 * j + 1).unwrap());
        let hidden = (a.dot(&Array1::from(x[..2].to_vec())) * x[2] + x[0]).mapv(|z| z.tanh());
        let products = &hidden * &hidden.slice(s![..;-1]);
        products.sum() + hidden.dot(&hidden) - a.t().dot(&a).sum() / x[2] + hidden.product()
    }

    #[test]
    fn arrays_of_variables_record_and_replay() {
        let tape = Tape::record(&[0.1, -0.2, 0.5], network).unwrap();
        assert!(tape.guards().is_empty() && tape.escapes().is_empty());
        for x in [[0.1, -0.2, 0.5], [1.0, 0.3, -0.7]] {
            let (value, gradient) = tape.gradient(&x).unwrap();
            for i in 0..3 {
                let duals: Vec<Dual> = (0..3).map(|j| Dual::new(x[j], if i == j { 1.0 } else { 0.0 })).collect();
                let dual = network(&duals);
                assert_same(&[dual.v], &[value], "value");
                assert!((dual.dv - gradient[i]).abs() <= 1e-12 * gradient[i].abs().max(1.0));
                let moved =
                    |h: f64| network(&std::array::from_fn::<f64, 3, _>(|j| if i == j { x[j] + h } else { x[j] }));
                let quotient = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((quotient - gradient[i]).abs() <= 1e-6 * gradient[i].abs().max(1.0), "{quotient} {gradient:?}");
            }
        }
    }

    #[test]
    fn dot_has_the_transposed_matrix_as_its_gradient() {
        let a = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let tape =
            Tape::record(&[1.0, 1.0, 1.0], |x| a.mapv(Var::lit).dot(&Array1::from(x.to_vec())).to_vec()).unwrap();
        assert_eq!(Array2::from(tape.jacobian(&[0.5, 7.0, -1.0]).unwrap()), a);
    }

    #[test]
    fn matrices_convert_both_ways() {
        for (rows, cols) in [(2, 3), (3, 2), (1, 1), (0, 3), (3, 0), (0, 0)] {
            let numbers = (0..rows * cols).map(|i| i as f64).collect();
            let matrix = Matrix::from_vec(rows, cols, numbers).unwrap();
            let theirs = Array2::from(&matrix);
            assert_eq!(theirs.dim(), (rows, cols));
            if matrix.as_slice().len() > 1 {
                assert_eq!((theirs[(0, 1)], theirs[(1, 0)]), (1.0, cols as f64));
            }
            assert_eq!(Matrix::from(&theirs), matrix);
            // Other layouts: by columns, and a part of a larger array backwards.
            let columns = theirs.t().as_standard_layout().into_owned().reversed_axes();
            assert_eq!(Matrix::from(&columns), matrix);
            let mut backwards = theirs.clone();
            backwards.invert_axis(ndarray::Axis(0));
            for i in 0..rows {
                assert_eq!(Matrix::from(&backwards).row(i), matrix.row(rows - 1 - i));
            }
            assert_eq!(Matrix::from(theirs.clone()), matrix);
            assert_eq!(Array2::from(matrix), theirs);
        }
    }
}

#[cfg(feature = "faer")]
mod of_faer {
    use ad_core::Matrix;
    use faer::Mat;

    #[test]
    fn matrices_convert_both_ways() {
        for (rows, cols) in [(2, 3), (3, 2), (1, 1), (0, 3), (3, 0), (0, 0)] {
            let numbers = (0..rows * cols).map(|i| i as f64).collect();
            let matrix = Matrix::from_vec(rows, cols, numbers).unwrap();
            let theirs = Mat::from(&matrix);
            assert_eq!((theirs.nrows(), theirs.ncols()), (rows, cols));
            if matrix.as_slice().len() > 1 {
                assert_eq!((theirs[(0, 1)], theirs[(1, 0)]), (1.0, cols as f64));
            }
            assert_eq!(Matrix::from(&theirs), matrix);
            assert_eq!(Matrix::from(theirs.clone()), matrix);
            assert_eq!(Mat::from(matrix), theirs);
        }
    }
}
