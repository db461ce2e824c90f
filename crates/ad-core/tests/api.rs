//! The public surface as a user writes it: every call that the crate promises
//! compiles as it stands here and gives these numbers.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{
    Answer, Dual, Error, Formulas, Lanes, Linearization, Matrix, Question, Real, Rule, Samples, Tape, Var, Workspace,
};

const Y: f64 = -47.01429686969138;
const DY: f64 = 3.090702573174318;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 4.0 * f64::EPSILON * b.abs()
}

fn classical() -> Result<Tape, Error> {
    Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())
}

#[test]
fn record_and_drive() -> Result<(), Error> {
    let tape = classical()?;
    assert_eq!((tape.num_inputs(), tape.num_outputs(), tape.num_params(), tape.len()), (2, 1, 0, 7));
    let y: Vec<f64> = tape.eval(&[2.0, 4.0])?;
    assert!(close(y[0], Y), "{y:?}");
    let (y, dy) = tape.jvp(&[2.0, 4.0], &[1.0, 0.0])?;
    assert!(close(y[0], Y) && close(dy[0], DY) && dy[0] == 4.0 - 2.0_f64.sin(), "{y:?} {dy:?}");

    let x = [2.0, 4.0];
    let seeds = Matrix::from_vec(2, 3, vec![1.0, 0.0, 2.0, 0.0, 1.0, -1.0])?;
    let (y, jp): (Vec<f64>, Matrix) = tape.jvp_many(&x, &seeds)?;
    assert_eq!((y.len(), jp.rows(), jp.cols()), (1, 1, 3));
    assert!(close(jp[(0, 0)], DY) && close(jp[(0, 1)], 2.0 - 4.0_f64.exp()));

    let (y, xw) = tape.vjp(&[2.0, 4.0], &[1.0])?;
    assert!(close(y[0], Y) && close(xw[0], DY) && close(xw[1], 2.0 - 4.0_f64.exp()));
    let (y, g): (f64, Vec<f64>) = tape.gradient(&[2.0, 4.0])?;
    assert!(close(y, Y) && g == xw);
    let jac = tape.jacobian(&x)?;
    assert_eq!(jac.row(0), g);
    assert_eq!(jac[(0, 1)], g[1]);
    Ok(())
}

/// The methods and operators that `Var` has under std's names, in one list for both types.
macro_rules! std_methods {
    ($a:ident, $b:ident) => {
        [
            $a.sin(),
            $a.cos(),
            $a.tan(),
            $a.asin(),
            $a.acos(),
            $a.atan(),
            $a.sinh(),
            $a.cosh(),
            $a.tanh(),
            $a.asinh(),
            $b.acosh(),
            $a.atanh(),
            $a.exp(),
            $a.exp2(),
            $a.exp_m1(),
            $a.ln(),
            $a.log2(),
            $a.log10(),
            $a.ln_1p(),
            $a.log($b),
            $a.sqrt(),
            $a.cbrt(),
            $a.powi(3),
            $a.powf(1.5),
            $a.hypot($b),
            $a.atan2($b),
            $a.atan2(3.0),
            $a.mul_add($b, 1.0),
            $a.abs(),
            $a.signum(),
            $a.copysign($b),
            $a.copysign(-1.0),
            $a.min($b),
            $a.max(0.25),
            $a.clamp(0.0, 1.0),
            $a.floor(),
            $a.ceil(),
            $a.round(),
            $a.trunc(),
            $a.round_ties_even(),
            $a.fract(),
            $a.rem_euclid($b),
            $a.div_euclid(0.2),
            $a.recip(),
            $a.to_degrees(),
            $a.to_radians(),
            $a % $b,
            $a % 0.2,
            $a.sin_cos().0,
        ]
    };
}

#[test]
fn outputs_and_methods() -> Result<(), Error> {
    let tape = Tape::record(&[0.5, 2.0], |x| {
        let (a, b) = (x[0], x[1]);
        let std = std_methods!(a, b);
        let ours = [
            a.pow(b),
            a.pow(2.0),
            a.logistic(),
            a.softplus(),
            a.relu(),
            a.logaddexp(b),
            a.logaddexp(1.0),
            a.xlogx(),
            a.erf(),
            a.erfc(),
            a.sign(),
            a.select_gt(b, 1.0, b),
            a.select_lt(0.0, a, b),
            a.select_le(b, a, b),
            a.select_ge(b, a, 2.0),
            a.select_eq(b, a, b),
            a.select_ne(b, a, b),
        ];
        (std, ours, vec![a], a, (b, a))
    })?;
    let (a, b) = (0.5_f64, 2.0_f64);
    let ours = [
        a.powf(b),
        0.25,
        1.0 / (1.0 + (-a).exp()),
        (1.0 + a.exp()).ln(),
        a,
        (a.exp() + b.exp()).ln(),
        (a.exp() + 1.0_f64.exp()).ln(),
        a * a.ln(),
        0.5204998778130465,
        0.4795001221869535,
        1.0,
        b,
        b,
        a,
        2.0,
        b,
        a,
        a,
        a,
        b,
        a,
    ];
    let expected = [&std_methods!(a, b)[..], &ours].concat();
    let y = tape.eval(&[a, b])?;
    assert_eq!(y.len(), expected.len());
    for (i, (y, expected)) in y.iter().zip(expected).enumerate() {
        assert!(close(*y, expected), "output {i}: {y} {expected}");
    }
    Ok(())
}

fn f<T: Real>(x: &[T]) -> T {
    x[0].cos() + x[0] * x[1] - x[1].exp()
}

/// Everything generic code may do.
fn generic<T: Real>(x: &[T]) -> T {
    let mut y = T::lit(1.0) - x[0];
    y += x[1];
    y *= 2.0;
    y -= x[0] / 3.0;
    y /= x[1];
    y %= 5.0;
    let total: T = x.iter().copied().sum();
    let product: T = x.iter().product();
    let larger = if x[0] > x[1] { x[0] } else { x[1] };
    let positive = if larger > 0.0 { larger.sqrt() } else { -larger };
    assert!(positive.is_finite() && !positive.is_nan());
    y + total * product + positive.max(0.5) + T::from(2.0) + T::dot(x, x).powi(2) - x[0].select_gt(0.0, x[1], 1.0)
}

#[test]
fn functions_written_once() -> Result<(), Error> {
    let x = [2.0, 4.0];
    let tape = Tape::record(&x, f)?;
    assert_eq!(tape.eval(&x)?, [f(&x)]);
    let dual = f(&[Dual::new(2.0, 1.0), Dual::new(4.0, 0.0)]);
    assert_eq!((dual.v, dual.dv), (f(&x), tape.jvp(&x, &[1.0, 0.0])?.1[0]));

    let tape = Tape::record(&x, generic)?;
    assert_eq!(tape.eval(&x)?, [generic(&x)]);
    let dual = generic(&[Dual::new(2.0, 0.0), Dual::new(4.0, 1.0)]);
    assert_eq!((dual.v, dual.dv), (generic(&x), tape.jvp(&x, &[0.0, 1.0])?.1[0]));
    Ok(())
}

/// In generic code both the sum of a slice and that of an iterator are in scope.
#[test]
fn sums_of_slices_in_generic_code() {
    fn total<T: Real>(x: &[T]) -> T {
        T::sum_of(x) + x.iter().sum::<T>()
    }
    assert_eq!(total(&[1.0, 2.0]), 6.0);
    assert_eq!(Tape::record(&[1.0, 2.0], total).unwrap().eval(&[3.0, 4.0]).unwrap(), [14.0]);
}

#[test]
fn dual_numbers() {
    let x = Dual::new(3.0, 1.0);
    let y = 2.0 / x + x * x - 1.0;
    assert!(close(y.v, 8.0 + 2.0 / 3.0) && close(y.dv, 6.0 - 2.0 / 9.0));
    assert_eq!(Dual::new(10.0, 6.0).to_string(), "10 + 6ε");
    assert_eq!(Dual::new(1.5, -0.25).to_string(), "1.5 - 0.25ε");
    assert_eq!(format!("{:.2}", Dual::new(1.0, 2.0)), "1.00 + 2.00ε");
    assert!(x > 2.0 && x < Dual::new(4.0, 0.0));
    assert_eq!(3.0, x);
    assert_eq!(x, 3.0);
    assert_eq!(x, Dual::new(3.0, 7.0));
    assert_eq!((x.value(), x.tangent(), x.is_nan(), x.is_finite()), (3.0, 1.0, false, true));
    let total: Dual = [x, x].iter().sum();
    assert_eq!((total.v, total.dv), (6.0, 2.0));
    let product: Dual = [x, x].into_iter().product();
    assert_eq!((product.v, product.dv), (9.0, 6.0));
}

#[test]
fn replay_in_other_number_types() -> Result<(), Error> {
    let tape = classical()?;
    let y = tape.eval_with::<Dual>(&[Dual::new(2.0, 1.0), Dual::new(4.0, 0.0)])?;
    assert!(close(y[0].v, Y) && close(y[0].dv, DY));
    let y = tape.eval_with(&[Lanes([2.0, 1.0]), Lanes([4.0, 1.0])])?;
    assert!(close(y[0].0[0], Y) && y[0].0[1] == tape.eval(&[1.0, 1.0])?[0]);
    let formulas = Formulas::new();
    let y = tape.eval_with(&[formulas.symbol("a"), formulas.symbol("b")])?;
    assert_eq!(y[0].to_string(), "cos(a) + a·b − exp(b)");
    let second = tape.eval_with(&[Dual::new(Dual::new(2.0, 1.0), Dual::new(1.0, 0.0)), Dual::from(4.0)])?;
    assert!(close(second[0].dv.dv, -2.0_f64.cos()));
    Ok(())
}

#[test]
fn drivers_into_memory_of_the_caller() -> Result<(), Error> {
    let tape = classical()?;
    let (x, mut ws) = ([2.0, 4.0], Workspace::new());
    let (mut y, mut dy, mut xbar, mut g) = ([0.0], [0.0], [0.0; 2], vec![0.0; 2]);
    tape.eval_into(&mut ws, &x, &mut y)?;
    assert!(close(y[0], Y));
    tape.jvp_into(&mut ws, &x, &[1.0, 0.0], &mut y, &mut dy)?;
    assert!(close(dy[0], DY));
    tape.vjp_into(&mut ws, &x, &[1.0], &mut y, &mut xbar)?;
    assert!(close(xbar[0], DY));
    let value: f64 = tape.gradient_into(&mut ws, &x, &mut g)?;
    assert!(close(value, Y) && g == xbar);
    let mut jac = Matrix::default();
    tape.jacobian_into(&mut ws, &x, &mut jac)?;
    assert_eq!(jac, tape.jacobian(&x)?);
    // One workspace serves any tape.
    let other = Tape::record(&[1.0; 3], |x| x[0] * x[1] * x[2])?;
    assert_eq!(other.gradient_into(&mut ws, &[1.0, 2.0, 3.0], &mut [0.0; 3])?, 6.0);
    tape.eval_into(&mut ws, &x, &mut y)?;
    assert!(close(y[0], Y));
    Ok(())
}

#[test]
fn linearization() -> Result<(), Error> {
    let there: Linearization = classical()?.at(&[2.0, 4.0])?;
    assert!(close(there.value()[0], Y));
    assert!(close(there.jvp(&[1.0, 0.0])?[0], DY));
    assert!(close(there.vjp(&[1.0])?[0], DY));
    Ok(())
}

#[test]
fn names_parameters_and_samples() -> Result<(), Error> {
    let (x0, k0) = ([1.0, 2.0], [3.0]);
    let tape = Tape::builder().inputs(&["x", "y"], &x0).params(&["k"], &k0).record(|x, k| x[0] * x[1] * k[0])?;
    assert_eq!(tape.num_params(), 1);
    assert_eq!(tape.eval(&x0)?, [6.0]);
    let changed = tape.with_params(&[5.0])?;
    assert_eq!(changed.eval(&x0)?, [10.0]);
    assert_eq!(changed.gradient(&x0)?.1, [10.0, 5.0]);

    let samples = Samples::from_rows(&tape, &[1.0, 2.0, 4.0])?;
    assert_eq!((samples.len(), samples.width(), samples.row(2)), (3, 1, &[4.0][..]));
    let wide = Tape::builder().inputs(&[], &[1.0]).params(&[], &[0.0; 3]).record(|x, k| x[0] * k[2])?;
    let wide = Samples::from_rows(&wide, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    assert_eq!((wide.len(), wide.width(), wide.row(1)), (2, 3, &[4.0, 5.0, 6.0][..]));
    let (x, idx) = ([1.0, 2.0], [0, 1, 2, 2]);
    assert_eq!(tape.sum_value(&x, &samples, &idx)?, 22.0);
    let (value, g): (f64, Vec<f64>) = tape.sum_gradient(&x, &samples, &idx)?;
    assert_eq!((value, &g[..]), (22.0, &[22.0, 11.0][..]));
    let mut ws = Workspace::new();
    let mut into = vec![0.0; 2];
    assert_eq!(tape.sum_gradient_into(&mut ws, &x, &samples, &idx, &mut into)?, 22.0);
    assert_eq!(tape.sum_value_into(&mut ws, &x, &samples, &idx)?, 22.0);
    assert_eq!(tape.sum_gradient_threads(&x, &samples, &idx, 2)?, (22.0, into));
    Ok(())
}

#[test]
fn matrices() -> Result<(), Error> {
    let m = Matrix::from_rows(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])?;
    assert_eq!(m, Matrix::from_vec(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?);
    assert_eq!((m.rows(), m.cols(), m[(1, 2)]), (2, 3, 6.0));
    assert_eq!((m.row(1), m.as_slice().len()), (&[4.0, 5.0, 6.0][..], 6));
    assert_eq!(Matrix::identity(2), Matrix::from_rows(&[[1.0, 0.0], [0.0, 1.0]])?);
    assert_eq!(m.to_string(), "[1, 2, 3]\n[4, 5, 6]\n");
    Ok(())
}

/// The rows of the classical table.
#[test]
fn the_wengert_list_of_the_textbook() -> Result<(), Error> {
    let tape = Tape::record(&[2.0, 4.0], |x| {
        let (x1, x2) = (x[0], x[1]);
        let v1 = x1.cos();
        let v2 = x1 * x2;
        let v3 = x2.exp();
        let v4 = v1 + v2;
        v4 - v3
    })?;
    let list = "v₋₁ = x₁\nv₀ = x₂\nv₁ = cos(v₋₁)\nv₂ = v₋₁·v₀\nv₃ = exp(v₀)\nv₄ = v₁ + v₂\nv₅ = v₄ − v₃\ny = v₅\n";
    assert_eq!(tape.to_string(), list);
    Ok(())
}

#[test]
fn traces_and_graphs() -> Result<(), Error> {
    let tape = classical()?;
    let (x, p, w) = ([2.0, 4.0], [1.0, 0.0], [1.0]);
    let primal = tape.primal_trace(&x)?;
    let tangent = tape.tangent_trace(&x, &p)?;
    let tangents = tape.tangent_traces(&x, &Matrix::identity(2))?;
    let adjoint = tape.adjoint_trace(&x, &w)?;
    for trace in [&primal, &tangent, &tangents, &adjoint] {
        let text = trace.to_string();
        assert!(text.contains("-47.0143") && text.contains("cos(v₋₁)"), "{text}");
        assert!(format!("{trace:.12}").contains("-47.0142968697"));
        assert!(text.ends_with('\n') && !text.contains('\r'));
        assert!(trace.to_markdown().contains('|'));
        assert!(trace.to_latex().contains(r"\cos"));
        assert!(trace.to_csv().contains(','));
        assert!(!trace.rows().is_empty());
        assert!(trace.clone().with_locations().to_string().contains(file!()));
        assert!(trace.clone().ascii().to_string().is_ascii());
    }
    assert!(tangent.to_string().contains("3.0907") && adjoint.to_string().contains("3.0907"));
    let graph = tape.graph();
    assert!(graph.to_dot().starts_with("digraph") && graph.to_mermaid().starts_with("flowchart"));
    Ok(())
}

#[test]
fn guards_and_escapes() -> Result<(), Error> {
    let tape = Tape::record(&[3.0], |x| if x[0] > 0.0 { x[0] * x[0].value() } else { -x[0] })?;
    assert_eq!(tape.escapes().len(), 1);
    assert_eq!(tape.guards()[0].to_string(), "v₀ > 0 was true");
    assert_eq!(tape.eval(&[5.0])?, [15.0]);
    match tape.eval(&[-3.0]) {
        Err(Error::BranchChanged { guard, location, now, lhs, rhs, sample, .. }) => {
            assert_eq!(guard.location(), &location);
            assert_eq!((now.to_string(), lhs, rhs, sample), ("false".to_owned(), -3.0, 0.0, None));
        }
        other => panic!("{other:?}"),
    }
    let smooth = Tape::record(&[3.0], |x| x[0].select_gt(0.0, x[0] * x[0], -x[0]))?;
    assert_eq!(smooth.gradient(&[-3.0])?, (3.0, vec![-1.0]));
    Ok(())
}

#[test]
fn cheap_and_shared() -> Result<(), Error> {
    let tape = classical()?;
    let clone = tape.clone();
    let handle = std::thread::spawn(move || clone.eval(&[2.0, 4.0]));
    assert_eq!(handle.join().unwrap()?, tape.eval(&[2.0, 4.0])?);
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    shared(&tape);
    assert!(format!("{tape:?}").contains("inputs: 2"));
    Ok(())
}

/// A number type of a user's own: the value and a count of the operations behind it.
#[derive(Debug, Clone, Copy)]
struct Counted {
    value: f64,
    operations: usize,
}

impl From<f64> for Counted {
    fn from(value: f64) -> Self {
        Counted { value, operations: 0 }
    }
}

impl Rule for Counted {
    fn apply<O: ad_core::ops::Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let operations = 1 + x.iter().map(|x| x.operations).sum::<usize>();
        O::value(x.map(|x| x.value)).map(|value| Counted { value, operations })
    }

    fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        f64::confirm(question, answer, a.value, b.value)
    }
}
ad_core::rule_operators!([] Counted);

#[test]
fn a_number_type_of_ones_own() -> Result<(), Error> {
    let tape = classical()?;
    let y = tape.eval_with(&[Counted::from(2.0), Counted::from(4.0)])?;
    assert_eq!((y[0].value, y[0].operations), (tape.eval(&[2.0, 4.0])?[0], 5));
    let nested = tape.eval_with(&[Dual::new(Counted::from(2.0), Counted::from(1.0)), Dual::from(4.0)])?;
    assert!(close(nested[0].dv.value, DY));
    let sum = Tape::record(&[1.0; 3], |x| x.iter().sum::<Var>() + Var::dot(x, x))?;
    assert_eq!(sum.eval_with(&[Counted::from(1.0); 3])?[0].value, 6.0);
    Ok(())
}
