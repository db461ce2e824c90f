//! Bad inputs of every public driver and constructor: a typed error whose
//! message names the values and what to do instead, and never a panic.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Dual, Error, Matrix, Samples, Tape, Var, Workspace};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// Two inputs, two outputs.
fn square() -> Tape {
    Tape::record(&[1.0, 2.0], |x| [x[0] * x[1], x[0] - x[1]]).unwrap()
}

/// Two inputs, a parameter, one output.
fn scalar() -> Tape {
    Tape::builder().inputs(&[], &[1.0, 2.0]).params(&[], &[3.0]).record(|x, k| x[0] * x[1] * k[0]).unwrap()
}

fn recorded(names: &[&str], x0: &[f64], param_names: &[&str], k0: &[f64]) -> Result<(), Error> {
    Tape::builder().inputs(names, x0).params(param_names, k0).record(|_, _| Var::from(1.0)).map(drop)
}

/// A call, the error it must give, and what its message must say.
type Case = (&'static str, Result<(), Error>, fn(&Error) -> bool, &'static [&'static str]);

/// A case whose error must match the pattern.
macro_rules! case {
    ($call:expr, $error:pat, $parts:expr) => {
        (stringify!($call), $call.map(drop), |error| matches!(error, $error), $parts)
    };
}

fn check(cases: Vec<Case>) {
    let mut failures = Vec::new();
    for (call, result, expected, parts) in cases {
        match result {
            Ok(()) => failures.push(format!("{call}: no error")),
            Err(error) if !expected(&error) => failures.push(format!("{call}: {error:?}")),
            Err(error) => {
                let message = error.to_string();
                failures.extend(
                    parts
                        .iter()
                        .filter(|part| !message.contains(**part))
                        .map(|part| format!("{call}: {part:?} is missing: {message}")),
                );
                if message.contains('\n')
                    || message.ends_with('.')
                    || message.contains("..") && !message.contains("(..)") && !message.contains("&tape, ..")
                {
                    failures.push(format!("{call}: the message is no single clause: {message}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
#[rustfmt::skip]
fn recordings() {
    use Error::{BadName, Empty, NameCount, NoOutputs};
    check(vec![
        case!(Tape::record(&[], |_| Var::from(1.0)), Empty { .. }, &["inputs is empty", "at least one"]),
        case!(recorded(&[], &[], &[], &[1.0]), Empty { .. }, &["inputs", "at least one"]),
        case!(Tape::record(&[1.0], |_| Vec::new()), NoOutputs { .. }, &[file!(), "return a Var"]),
        case!(Tape::record(&[1.0], |_| []), NoOutputs { .. }, &["no output", "array, a Vec or a tuple"]),
        case!(Tape::record(&[1.0], |_| (Vec::new(), [])), NoOutputs { .. }, &["no output"]),
        case!(recorded(&["x"], &[1.0, 2.0], &[], &[]), NameCount { what: "inputs", expected: 2, got: 1 }, &["1 names for 2 inputs", "or an empty list"]),
        case!(recorded(&["x", "y"], &[1.0], &[], &[]), NameCount { expected: 1, got: 2, .. }, &["2 names", "1 inputs"]),
        case!(recorded(&[], &[1.0], &["k"], &[]), NameCount { what: "parameters", expected: 0, got: 1 }, &["parameters"]),
        case!(recorded(&[], &[1.0], &["k"], &[1.0, 2.0]), NameCount { what: "parameters", expected: 2, got: 1 }, &["parameters"]),
        case!(recorded(&["x", "x"], &[1.0, 2.0], &[], &[]), BadName { .. }, &["\"x\"", "twice"]),
        case!(recorded(&["x"], &[1.0], &["x"], &[2.0]), BadName { .. }, &["\"x\"", "twice"]),
        case!(recorded(&[], &[1.0], &["k", "k"], &[2.0, 3.0]), BadName { .. }, &["\"k\"", "twice"]),
        case!(recorded(&[""], &[1.0], &[], &[]), BadName { .. }, &["\"\"", "empty"]),
        case!(recorded(&["  "], &[1.0], &[], &[]), BadName { .. }, &["\"  \"", "empty"]),
        case!(recorded(&["a\nb"], &[1.0], &[], &[]), BadName { .. }, &[r#""a\nb""#, "control character"]),
        case!(recorded(&["\u{1b}[31m"], &[1.0], &[], &[]), BadName { .. }, &["control character"]),
        case!(recorded(&["x"], &[1.0], &["\t"], &[2.0]), BadName { .. }, &["\"\\t\""]),
    ]);
}

#[test]
#[rustfmt::skip]
fn drivers() {
    use Error::{Empty, Lanes, Length, NonFiniteSeed, NotScalar, TooHighOrder};
    let (tape, ws) = (square(), &mut Workspace::new());
    let (x, one) = ([3.0, 5.0], [1.0, 1.0]);
    let matrix = |rows, cols| Matrix::zeros(rows, cols);
    let with = |i: usize, j: usize, value| { let mut m = Matrix::identity(2); m[(i, j)] = value; m };
    let there = tape.at(&x).unwrap();
    let scalar = scalar();
    check(vec![
        // The point.
        case!(tape.eval(&[]), Length { expected: 2, got: 0, .. }, &["x", "expected 2", "got 0"]),
        case!(tape.eval(&[1.0]), Length { expected: 2, got: 1, .. }, &["one number per input", "expected 2", "got 1"]),
        case!(tape.eval(&[1.0; 3]), Length { expected: 2, got: 3, .. }, &["got 3"]),
        case!(tape.eval_with(&[Dual::new(1.0, 1.0)]), Length { expected: 2, got: 1, .. }, &["x"]),
        case!(tape.jvp(&[1.0], &one), Length { got: 1, .. }, &["x (one number per input)"]),
        case!(tape.jvp_many(&[1.0], &matrix(2, 1)), Length { got: 1, .. }, &["x (one number per input)"]),
        case!(tape.vjp(&[1.0; 3], &one), Length { got: 3, .. }, &["x (one number per input)"]),
        case!(tape.jacobian(&[]), Length { got: 0, .. }, &["x (one number per input)"]),
        case!(tape.at(&[1.0; 4]), Length { got: 4, .. }, &["x (one number per input)"]),
        case!(scalar.gradient(&[1.0]), Length { expected: 2, got: 1, .. }, &["x (one number per input)"]),
        // Seeds and weights.
        case!(tape.jvp(&x, &[1.0]), Length { expected: 2, got: 1, .. }, &["p (one number per input)"]),
        case!(tape.vjp(&x, &[1.0; 3]), Length { expected: 2, got: 3, .. }, &["w (one number per output)"]),
        case!(there.jvp(&[]), Length { expected: 2, got: 0, .. }, &["p (one number per input)"]),
        case!(there.vjp(&[1.0]), Length { expected: 2, got: 1, .. }, &["w (one number per output)"]),
        case!(tape.jvp_many(&x, &matrix(3, 2)), Length { expected: 2, got: 3, .. }, &["seeds (one row per input)"]),
        case!(tape.jvp_many(&x, &matrix(2, 0)), Empty { .. }, &["seeds is empty", "column"]),
        case!(tape.jvp_many(&x, &matrix(0, 0)), Length { expected: 2, got: 0, .. }, &["seeds"]),
        case!(tape.jvp(&x, &[1.0, NAN]), NonFiniteSeed { what: "p", index: 1, .. }, &["p[1] is NaN", "finite"]),
        case!(tape.jvp(&x, &[INF, 1.0]), NonFiniteSeed { what: "p", index: 0, .. }, &["p[0] is inf"]),
        case!(tape.vjp(&x, &[1.0, -INF]), NonFiniteSeed { what: "w", index: 1, .. }, &["w[1] is -inf"]),
        case!(there.jvp(&[NAN, NAN]), NonFiniteSeed { what: "p", index: 0, .. }, &["p[0] is NaN"]),
        case!(there.vjp(&[0.0, INF]), NonFiniteSeed { what: "w", index: 1, .. }, &["w[1] is inf"]),
        case!(tape.jvp_many(&x, &with(1, 0, NAN)), NonFiniteSeed { what: "seeds", index: 2, .. }, &["seeds[2] is NaN"]),
        // One output.
        case!(tape.gradient(&x), NotScalar { driver: "gradient", outputs: 2, .. }, &["gradient", "has 2", "jacobian", "vjp"]),
        case!(tape.gradient_into(ws, &x, &mut [0.0; 2]), NotScalar { outputs: 2, .. }, &["use jacobian"]),
        // The outputs of the twins.
        case!(tape.eval_into(ws, &x, &mut [0.0]), Length { expected: 2, got: 1, .. }, &["y (one number per output)"]),
        case!(tape.eval_into(ws, &[1.0], &mut [0.0; 2]), Length { expected: 2, got: 1, .. }, &["x (one number per input)"]),
        case!(tape.jvp_into(ws, &x, &one, &mut [0.0; 3], &mut [0.0; 2]), Length { got: 3, .. }, &["y (one number per output)"]),
        case!(tape.jvp_into(ws, &x, &one, &mut [0.0; 2], &mut []), Length { got: 0, .. }, &["dy (one number per output)"]),
        case!(tape.jvp_into(ws, &x, &[NAN, 0.0], &mut [0.0; 2], &mut [0.0; 2]), NonFiniteSeed { .. }, &["p[0]"]),
        case!(tape.vjp_into(ws, &x, &one, &mut [0.0; 1], &mut [0.0; 2]), Length { got: 1, .. }, &["y (one number per output)"]),
        case!(tape.vjp_into(ws, &x, &one, &mut [0.0; 2], &mut [0.0; 1]), Length { got: 1, .. }, &["xbar (one number per input)"]),
        case!(tape.vjp_into(ws, &x, &[0.0, NAN], &mut [0.0; 2], &mut [0.0; 2]), NonFiniteSeed { .. }, &["w[1]"]),
        case!(tape.jvp_many_into(ws, &x, &matrix(2, 2), &mut [0.0; 3], &mut matrix(2, 2)), Length { got: 3, .. }, &["y"]),
        case!(tape.jacobian_into(ws, &[1.0], &mut matrix(2, 2)), Length { got: 1, .. }, &["x"]),
        case!(scalar.gradient_into(ws, &x, &mut [0.0; 3]), Length { expected: 2, got: 3, .. }, &["gradient (one number per input)"]),
        case!(scalar.gradient_into(ws, &[1.0], &mut [0.0; 2]), Length { expected: 2, got: 1, .. }, &["x"]),
        // Second derivatives.
        case!(tape.hvp(&x, &one), NotScalar { driver: "hvp", outputs: 2, .. }, &["hvp", "has 2", "weighted sum"]),
        case!(tape.hessian(&x), NotScalar { driver: "hessian", outputs: 2, .. }, &["hessian", "has 2", "weighted sum"]),
        case!(scalar.hvp(&[1.0], &one), Length { expected: 2, got: 1, .. }, &["x (one number per input)"]),
        case!(scalar.hvp(&x, &[1.0]), Length { expected: 2, got: 1, .. }, &["v (one number per input)"]),
        case!(scalar.hvp(&x, &[1.0, INF]), NonFiniteSeed { what: "v", index: 1, .. }, &["v[1] is inf"]),
        case!(scalar.hvp_into(ws, &x, &one, &mut [0.0; 3]), Length { expected: 2, got: 3, .. }, &["hv (one number per input)"]),
        case!(scalar.gradient_hvp_into(ws, &x, &one, &mut [0.0; 1], &mut [0.0; 2]), Length { got: 1, .. }, &["gradient"]),
        case!(scalar.hessian(&[1.0; 3]), Length { expected: 2, got: 3, .. }, &["x (one number per input)"]),
        case!(scalar.hessian_into(ws, &[], &mut matrix(2, 2)), Length { got: 0, .. }, &["x"]),
        case!(scalar.gradient_hessian_into(ws, &x, &mut [], &mut matrix(2, 2)), Length { expected: 2, got: 0, .. }, &["gradient"]),
        // Taylor coefficients.
        case!(tape.taylor(&[1.0], &one, 3), Length { expected: 2, got: 1, .. }, &["x (one number per input)"]),
        case!(tape.taylor(&x, &[1.0; 3], 3), Length { expected: 2, got: 3, .. }, &["p (one number per input)"]),
        case!(tape.taylor(&x, &[1.0, NAN], 0), NonFiniteSeed { what: "p", index: 1, .. }, &["p[1] is NaN"]),
        case!(tape.taylor_into(ws, &x, &[INF, 0.0], 2, &mut matrix(2, 3)), NonFiniteSeed { index: 0, .. }, &["p[0] is inf"]),
        case!(tape.taylor(&x, &one, usize::MAX), TooHighOrder { order: usize::MAX, .. }, &["ask for a lower order"]),
        // Many points.
        case!(tape.eval_many(&matrix(3, 1)), Length { expected: 2, got: 1, .. }, &["points (a row per point", "expected 2", "got 1"]),
        case!(tape.eval_many(&matrix(3, 4)), Length { expected: 2, got: 4, .. }, &["x followed by all parameters"]),
        case!(tape.jacobian_many(&matrix(20, 3)), Length { expected: 2, got: 3, .. }, &["points (a row per point"]),
        case!(scalar.eval_many(&matrix(1, 1)), Length { expected: 2, got: 1, .. }, &["points"]),
        case!(scalar.eval_many(&matrix(20, 4)), Length { expected: 2, got: 4, .. }, &["points"]),
        case!(scalar.jacobian_many(&matrix(20, 0)), Length { expected: 2, got: 0, .. }, &["points"]),
        case!(scalar.jacobian_many_into(ws, &matrix(20, 5), &mut matrix(1, 1)), Length { got: 5, .. }, &["points"]),
        case!(Workspace::new().set_lanes(3), Lanes { lanes: 3, .. }, &["3 lanes", "16, 32 or 64"]),
        case!(Workspace::new().set_lanes(0), Lanes { lanes: 0, .. }, &["0 lanes"]),
        // Traces.
        case!(tape.primal_trace(&[1.0]), Length { expected: 2, got: 1, .. }, &["x (one number per input)"]),
        case!(tape.tangent_trace(&x, &[1.0]), Length { expected: 2, got: 1, .. }, &["p (one number per input)"]),
        case!(tape.tangent_trace(&x, &[1.0, NAN]), NonFiniteSeed { what: "p", index: 1, .. }, &["p[1] is NaN"]),
        case!(tape.tangent_traces(&x, &matrix(3, 1)), Length { expected: 2, got: 3, .. }, &["seeds (one row per input)"]),
        case!(tape.tangent_traces(&x, &matrix(2, 0)), Empty { .. }, &["seeds is empty"]),
        case!(tape.tangent_traces(&x, &with(0, 1, INF)), NonFiniteSeed { index: 1, .. }, &["seeds[1] is inf"]),
        case!(tape.adjoint_trace(&x, &[1.0; 3]), Length { expected: 2, got: 3, .. }, &["w (one number per output)"]),
        case!(tape.adjoint_trace(&x, &[NAN, 0.0]), NonFiniteSeed { what: "w", index: 0, .. }, &["w[0] is NaN"]),
        // Parameters.
        case!(scalar.with_params(&[]), Length { expected: 1, got: 0, .. }, &["params (one number per parameter)"]),
        case!(scalar.with_params(&[1.0, 2.0]), Length { expected: 1, got: 2, .. }, &["expected 1", "got 2"]),
        case!(tape.with_params(&[1.0]), Length { expected: 0, got: 1, .. }, &["params"]),
    ]);
    // Points of inputs alone or with parameters are none, and no points have any width.
    assert_eq!(scalar.eval_many(&Matrix::from_rows(&[[2.0, 5.0]; 9]).unwrap()).unwrap().as_slice(), [30.0; 9]);
    assert_eq!(scalar.eval_many(&Matrix::from_rows(&[[2.0, 5.0, 7.0]; 9]).unwrap()).unwrap().as_slice(), [70.0; 9]);
    assert_eq!(scalar.eval_many(&matrix(0, 7)).unwrap().rows(), 0);
    assert_eq!(scalar.jacobian_many(&matrix(0, 7)).unwrap().rows(), 0);
    // A workspace that has seen errors serves on.
    let mut y = [0.0; 2];
    tape.eval_into(ws, &x, &mut y).unwrap();
    assert_eq!(y, [15.0, -2.0]);
}

#[test]
#[rustfmt::skip]
fn samples() {
    use Error::{Empty, Length, NoThreads, NotScalar, SampleIndex, SampleWidth};
    let (tape, ws) = (scalar(), &mut Workspace::new());
    let rows = Samples::from_rows(&tape, &[1.0, 2.0, 4.0]).unwrap();
    let wide = Tape::builder().inputs(&[], &[1.0, 2.0]).params(&[], &[3.0, 4.0]).record(|x, k| x[0] * k[1]).unwrap();
    let many = Tape::builder().inputs(&[], &[1.0, 2.0]).params(&[], &[3.0]).record(|x, k| [x[0] * k[0], x[1]]).unwrap();
    let x = [1.0, 2.0];
    let mut short = [0.0; 1];
    check(vec![
        case!(Samples::from_rows(&square(), &[1.0]), Empty { .. }, &["parameters", "Tape::builder().params"]),
        case!(Samples::from_rows(&tape, &[]), Empty { .. }, &["rows is empty", "at least one sample"]),
        case!(Samples::from_rows(&wide, &[1.0, 2.0, 3.0]), Length { expected: 4, got: 3, .. }, &["num_params", "expected 4", "got 3"]),
        case!(tape.sum_value(&x, &rows, &[]), Empty { .. }, &["idx is empty", "at least one"]),
        case!(tape.sum_gradient(&x, &rows, &[]), Empty { .. }, &["idx"]),
        case!(tape.sum_gradient_threads(&x, &rows, &[], 2), Empty { .. }, &["idx"]),
        case!(tape.sum_value(&x, &rows, &[0, 3]), SampleIndex { position: 1, index: 3, samples: 3 }, &["idx[1] is 3", "3 samples (0 to 2)"]),
        case!(tape.sum_gradient(&x, &rows, &[usize::MAX]), SampleIndex { position: 0, .. }, &["idx[0]", "3 samples"]),
        case!(tape.sum_gradient_threads(&x, &rows, &[vec![0; 200], vec![9]].concat(), 3), SampleIndex { position: 200, index: 9, samples: 3 }, &["idx[200] is 9"]),
        case!(tape.sum_gradient_threads(&x, &rows, &[0], 0), NoThreads, &["0 threads", "1 or more"]),
        case!(tape.sum_value(&[1.0], &rows, &[0]), Length { expected: 2, got: 1, .. }, &["x (one number per input)"]),
        case!(tape.sum_gradient(&[1.0; 3], &rows, &[0]), Length { expected: 2, got: 3, .. }, &["x"]),
        case!(tape.sum_gradient_into(ws, &x, &rows, &[0], &mut short), Length { expected: 2, got: 1, .. }, &["gradient (one number per input)"]),
        case!(wide.sum_value(&x, &rows, &[0]), SampleWidth { expected: 2, got: 1 }, &["1 numbers each", "2 parameters", "Samples::from_rows"]),
        case!(square().sum_gradient(&x, &rows, &[0]), NotScalar { outputs: 2, .. }, &["sum_gradient", "one output"]),
        case!(many.sum_value(&x, &rows, &[0]), NotScalar { driver: "sum_value", outputs: 2, .. }, &["sum_value", "has 2", "weighted sum"]),
        case!(many.sum_gradient_threads(&x, &rows, &[0; 100], 4), NotScalar { outputs: 2, .. }, &["sum_gradient_threads", "one output"]),
        case!(many.sum_gradient_threads(&x, &rows, &[0], 4), NotScalar { driver: "sum_gradient_threads", .. }, &["one output"]),
        case!(many.sum_gradient_threads(&x, &rows, &[0; 100], 1), NotScalar { driver: "sum_gradient_threads", .. }, &["one output"]),
    ]);
    // More threads than samples are no error.
    assert_eq!(tape.sum_gradient_threads(&x, &rows, &[0, 1], 1000).unwrap(), tape.sum_gradient(&x, &rows, &[0, 1]).unwrap());
    // An absurd number of threads neither.
    assert!(tape.sum_gradient_threads(&x, &rows, &[0, 1], usize::MAX).is_ok());
}

#[test]
#[rustfmt::skip]
fn matrices() {
    use Error::MatrixShape;
    check(vec![
        case!(Matrix::from_rows(&[vec![1.0, 2.0], vec![3.0]]), MatrixShape { rows: 2, cols: 2, got: 3 }, &["2 × 2", "got 3"]),
        case!(Matrix::from_rows(&[vec![], vec![3.0]]), MatrixShape { rows: 2, cols: 0, got: 1 }, &["2 × 0"]),
        case!(Matrix::from_vec(2, 3, vec![1.0; 5]), MatrixShape { rows: 2, cols: 3, got: 5 }, &["2 × 3", "got 5"]),
        case!(Matrix::from_vec(usize::MAX, 2, vec![]), MatrixShape { cols: 2, got: 0, .. }, &["got 0"]),
        case!(Matrix::from_vec(0, 3, vec![1.0]), MatrixShape { got: 1, .. }, &["0 × 3"]),
    ]);
    assert_eq!(Matrix::from_vec(0, 3, vec![]).unwrap().cols(), 3);
    // The same row again and again takes little memory, all of them more than there is.
    let row = vec![0.0; 1 << 26];
    check(vec![
        case!(Matrix::from_rows(&vec![&row; 1 << 19]), Error::TooManyNumbers { what: "rows", numbers: 0x2000_0000_0000 }, &["35184372088832 numbers", "fewer"]),
        case!(Matrix::try_zeros(1 << 45, 3), Error::TooLargeMatrix { cols: 3, .. }, &["35184372088832 × 3"]),
        case!(Matrix::try_zeros(usize::MAX, 2), Error::TooLargeMatrix { cols: 2, .. }, &["× 2"]),
    ]);
    let none: [[f64; 2]; 0] = [];
    assert_eq!(Matrix::from_rows(&none).unwrap().rows(), 0);
}

#[test]
fn a_changed_branch_names_the_values_and_the_place() {
    let line = line!() + 1;
    let tape = Tape::record(&[2.0], |x| if x[0] * 3.0 > 1.5 { x[0] } else { -x[0] }).unwrap();
    let error = tape.eval(&[0.25]).unwrap_err();
    let message = error.to_string();
    for part in
        [&format!("{}:{line}", file!()), "v₁ > 1.5 was true", "0.75 and 1.5", "false", "record again", "select_"]
    {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
    let tape = Tape::record(&[2.0], |x| if x[0].is_nan() { -x[0] } else { x[0] }).unwrap();
    let message = tape.eval(&[NAN]).unwrap_err().to_string();
    assert!(message.contains("v₀.is_nan() was false when recorded, now NaN make it true"), "{message}");
}

#[test]
fn errors_are_values() {
    fn value<E: std::error::Error + Clone + PartialEq + Send + Sync + 'static>() {}
    value::<Error>();
    let boxed: Box<dyn std::error::Error + Send + Sync> = square().eval(&[]).unwrap_err().into();
    assert!(boxed.downcast_ref::<Error>().is_some());
    assert!(boxed.source().is_none());
}
