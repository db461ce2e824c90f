//! How each operation of the table is called: a line for each, with the operands
//! `x` and, where the last operand is a constant of the call, that constant `c`.

/// Hands the list to the macro named by `$with`.
#[allow(unused_macros)] // Each test file is a crate of its own, and some use it.
#[rustfmt::skip]
macro_rules! operation_list {
    ($with:ident) => { $with! {
        operations {
            Add(x, c) => [x[0] + x[1]];
            Sub(x, c) => [x[0] - x[1]];
            Mul(x, c) => [x[0] * x[1]];
            Div(x, c) => [x[0] / x[1]];
            Rem(x, c) => [x[0] % x[1]];
            Neg(x, c) => [-x[0]];
            Recip(x, c) => [x[0].recip()];
            Powi(x, c) => [x[0].powi(c as i32)];
            Powf(x, c) => [x[0].powf(c)];
            Pow(x, c) => [x[0].pow(x[1])];
            Sqrt(x, c) => [x[0].sqrt()];
            Cbrt(x, c) => [x[0].cbrt()];
            Hypot(x, c) => [x[0].hypot(x[1])];
            Exp(x, c) => [x[0].exp()];
            Exp2(x, c) => [x[0].exp2()];
            ExpM1(x, c) => [x[0].exp_m1()];
            Ln(x, c) => [x[0].ln()];
            Log2(x, c) => [x[0].log2()];
            Log10(x, c) => [x[0].log10()];
            Log(x, c) => [x[0].log(x[1])];
            Ln1p(x, c) => [x[0].ln_1p()];
            Sin(x, c) => [x[0].sin()];
            Cos(x, c) => [x[0].cos()];
            Tan(x, c) => [x[0].tan()];
            Asin(x, c) => [x[0].asin()];
            Acos(x, c) => [x[0].acos()];
            Atan(x, c) => [x[0].atan()];
            Atan2(x, c) => [x[0].atan2(x[1])];
            Sinh(x, c) => [x[0].sinh()];
            Cosh(x, c) => [x[0].cosh()];
            Tanh(x, c) => [x[0].tanh()];
            Asinh(x, c) => [x[0].asinh()];
            Acosh(x, c) => [x[0].acosh()];
            Atanh(x, c) => [x[0].atanh()];
            Logistic(x, c) => [x[0].logistic()];
            Softplus(x, c) => [x[0].softplus()];
            Relu(x, c) => [x[0].relu()];
            LogAddExp(x, c) => [x[0].logaddexp(x[1])];
            XLogX(x, c) => [x[0].xlogx()];
            XLogY(x, c) => [x[0].xlogy(x[1])];
            Abs(x, c) => [x[0].abs()];
            Sign(x, c) => [x[0].sign()];
            Signum(x, c) => [x[0].signum()];
            Copysign(x, c) => [x[0].copysign(x[1])];
            Min(x, c) => [x[0].min(x[1])];
            Max(x, c) => [x[0].max(x[1])];
            Clamp(x, c) => [x[0].clamp(x[1], x[2])];
            Floor(x, c) => [x[0].floor()];
            Ceil(x, c) => [x[0].ceil()];
            Round(x, c) => [x[0].round()];
            RoundTiesEven(x, c) => [x[0].round_ties_even()];
            Trunc(x, c) => [x[0].trunc()];
            Erf(x, c) => [x[0].erf()];
            Erfc(x, c) => [x[0].erfc()];
            Lgamma(x, c) => [x[0].lgamma()];
            Digamma(x, c) => [x[0].digamma()];
            MulAdd(x, c) => [x[0].mul_add(x[1], x[2])];
            SelectLt(x, c) => [x[0].select_lt(x[1], x[2], x[3])];
            SelectLe(x, c) => [x[0].select_le(x[1], x[2], x[3])];
            SelectGt(x, c) => [x[0].select_gt(x[1], x[2], x[3])];
            SelectGe(x, c) => [x[0].select_ge(x[1], x[2], x[3])];
            SelectEq(x, c) => [x[0].select_eq(x[1], x[2], x[3])];
            SelectNe(x, c) => [x[0].select_ne(x[1], x[2], x[3])];
            PowerSlope(x, c) => [x[0].power_slope(x[1], x[2])];
            PowerTimesLn(x, c) => [x[0].power_times_ln(x[1])];
            PowerDerivative(x, c) => [x[0].power_derivative(x[1], x[2], x[3])];
            Exp2Scaled(x, c) => [x[0].exp2_scaled(x[1])];
            LogSlope(x, c) => [x[0].log_slope(x[1])];
            CbrtSlope(x, c) => [x[0].cbrt_slope()];
            Direction(x, c) => [x[0].direction(x[1])];
            DirectionSlope(x, c) => [x[0].direction_slope(x[1])];
            DirectionTurn(x, c) => [x[0].direction_turn(x[1])];
            Inversion(x, c) => [x[0].inversion(x[1])];
            InversePowerRe(x, c) => [x[0].inverse_power_re(x[1], x[2])];
            InversePowerIm(x, c) => [x[0].inverse_power_im(x[1], x[2])];
            Trigamma(x, c) => [x[0].trigamma()];
            Polygamma(x, c) => [x[0].polygamma(x[1])];
            Sech2(x, c) => [x[0].sech2()];
            Gauss(x, c) => [x[0].gauss()];
            GaussSlope(x, c) => [x[0].gauss_slope()];
            Lorentz(x, c) => [x[0].lorentz()];
            OnePlusLn(x, c) => [x[0].one_plus_ln()];
            LogisticSlope(x, c) => [x[0].logistic_slope()];
            OneMinusSquare(x, c) => [x[0].one_minus_square()];
            LogisticDifference(x, c) => [x[0].logistic_difference(x[1])];
            HeavisideDifference(x, c) => [x[0].heaviside_difference(x[1])];
            Exceeds(x, c) => [x[0].exceeds(x[1])];
            Inside(x, c) => [x[0].inside(x[1], x[2])];
            ChainMul(x, c) => [x[0].chain_mul(x[1])];
            ChainDiv(x, c) => [x[0].chain_div(x[1])];
            Domain(x, c) => [x[0].domain(x[1], x[2])];
            SinCos(x, c) => <[_; 2]>::from(x[0].sin_cos());
        }
        folds {
            Sum(x, c) => [Rule::sum_of(x)];
            Dot(x, c) => [Rule::dot(&[x[0], x[2]], &[x[1], x[3]])];
        }
    } };
}
#[allow(unused_imports)]
pub(crate) use operation_list;
