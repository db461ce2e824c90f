//! Solutions of equations: their derivatives in every driver, and their errors.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ad_core::{Custom, Dual, Error, Implicit, Matrix, Tape, Var, Workspace};
use allocation_counter::measure;

#[path = "common/twins.rs"]
mod twins;

use twins::{Comparison, Recorded};

/// A·y = b for A = [[x₀, x₁], [x₁, 2 + x₀]], b = (x₂, 1), solved by Cramer's rule.
fn linear() -> Implicit {
    let g = Tape::record(&[3.0, 1.0, 2.0, 1.0, 1.0], |v| {
        [v[0] * v[3] + v[1] * v[4] - v[2], v[1] * v[3] + (v[0] + 2.0) * v[4] - 1.0]
    })
    .unwrap();
    Implicit::new_into(&g, |x: &[f64], y: &mut [f64]| {
        let det = x[0] * (x[0] + 2.0) - x[1] * x[1];
        y[0] = (x[2] * (x[0] + 2.0) - x[1]) / det;
        y[1] = (x[0] - x[1] * x[2]) / det;
        Ok::<_, String>(())
    })
    .unwrap()
    .named("linear")
}

fn linear_written_out(x: &[Var]) -> Vec<Var> {
    let det = x[0] * (x[0] + 2.0) - x[1] * x[1];
    vec![(x[2] * (x[0] + 2.0) - x[1]) / det, (x[0] - x[1] * x[2]) / det]
}

/// y₀ + y₁ = x₀ and y₀·y₁ = x₁, for y₀ > y₁: the roots of a quadratic.
fn roots() -> Implicit {
    let sum = Tape::record(&[1.0, 1.0], |v| [v[0] + v[1], v[0] * v[1]]).unwrap().named("symmetric");
    // The equations call another function.
    let g = Tape::record(&[3.0, 2.0, 2.0, 1.0], |v| {
        let symmetric = sum.call(&v[2..]);
        [symmetric[0] - v[0], symmetric[1] - v[1]]
    })
    .unwrap()
    .named("vieta");
    Implicit::new(&g, |x: &[f64]| {
        let root = (x[0] * x[0] / 4.0 - x[1]).sqrt();
        if root.is_nan() { Err("no real roots") } else { Ok(vec![x[0] / 2.0 + root, x[0] / 2.0 - root]) }
    })
    .unwrap()
}

fn roots_written_out(a: Var, b: Var) -> Vec<Var> {
    let root = (a * a / 4.0 - b).sqrt();
    vec![a / 2.0 + root, a / 2.0 - root]
}

/// eʸ = x with a custom operation among the equations: y = ln x.
fn logarithm() -> Implicit {
    let slope = Tape::record(&[0.0], |x| x[0].exp()).unwrap();
    let exponential = Custom::unary("exponential", f64::exp, |_, y| y).with_derivative(&slope).unwrap();
    let slope = Tape::record(&[0.0], |x| exponential.call(x)).unwrap();
    let exponential = exponential.with_derivative(&slope).unwrap();
    let g = Tape::record(&[1.0, 0.0], |v| exponential.call(&v[1..])[0] - v[0]).unwrap();
    Implicit::new(&g, |x: &[f64]| Ok::<_, String>(vec![x[0].ln()])).unwrap()
}

#[test]
fn every_driver_says_what_it_says_of_the_closed_form() {
    let (linear, roots, logarithm) = (linear(), roots(), logarithm());
    let body = {
        let roots = roots.clone();
        Tape::record(&[3.0, 1.0], move |x| roots.call(x)[0] * x[1]).unwrap()
    };
    let cases: [(&str, Recorded<'_>, Recorded<'_>); 4] = [
        ("linear", &|x| linear.call(x), &|x| linear_written_out(x)),
        (
            "roots, one variable twice",
            &|x| [roots.call(&[x[0] + x[2], x[1]]), roots.call(&[x[0] * 4.0, x[0]])].concat(),
            &|x| [roots_written_out(x[0] + x[2], x[1]), roots_written_out(x[0] * 4.0, x[0])].concat(),
        ),
        ("in the body of a map", &|x| vec![body.map_sum([[x[0], x[1]], [x[0] + x[2], x[1]]])[0] * x[2]], &|x| {
            let term = |a: Var, b: Var| roots_written_out(a, b)[0] * b;
            vec![(term(x[0], x[1]) + term(x[0] + x[2], x[1])) * x[2]]
        }),
        ("logarithm", &|x| vec![logarithm.call(&[x[0] * x[2]])[0] * x[1]], &|x| vec![(x[0] * x[2]).ln() * x[1]]),
    ];
    for (name, called, flat) in cases {
        // Small enough for a wrong sign or a forgotten term, large enough for two ways of solving.
        Comparison { name, tolerance: 1e-9 }.everywhere(called, flat, &[3.0, 1.0, 2.0], &[3.4, 0.7, 1.6]);
    }
}

/// Kepler's equation: E − e·sin E = M.
fn kepler() -> Implicit {
    let g = Tape::record(&[1.0, 0.1, 1.0], |v| v[2] - v[1] * v[2].sin() - v[0]).unwrap();
    Implicit::new(&g, |x: &[f64]| {
        let mut y = x[0];
        for _ in 0..100 {
            y -= (y - x[1] * y.sin() - x[0]) / (1.0 - x[1] * y.cos());
        }
        Ok::<_, String>(vec![y])
    })
    .unwrap()
    .named("kepler")
}

#[test]
fn keplers_equation_has_its_known_derivatives() {
    let kepler = kepler();
    let tape = Tape::record(&[1.0, 0.1], |x| kepler.call(x)).unwrap();
    for (m, e) in [(1.0, 0.3), (0.2, 0.9), (3.0, 0.0), (-2.0, 0.5)] {
        let (value, gradient) = tape.gradient(&[m, e]).unwrap();
        let (sin, cos) = value.sin_cos();
        let d = 1.0 - e * cos;
        // E_M = 1/d, E_e = sin E/d; E_MM = −e·sin E/d³, E_Me = (cos E − e)/d³,
        // E_ee = sin E·(2·cos E − e·(1 + cos² E))/d³.
        let second = [-e * sin, cos - e, cos - e, sin * (2.0 * cos - e * (1.0 + cos * cos))].map(|h| h / d.powi(3));
        let close = Comparison { name: "kepler", tolerance: 1e-12 };
        close.close("gradient", &gradient, &[1.0 / d, sin / d]);
        close.close("Hessian", tape.hessian(&[m, e]).unwrap().as_slice(), &second);
        let third = tape.gradient_tape().unwrap().jacobian_tape().unwrap();
        close.close("Hessian by tapes", &third.eval(&[m, e]).unwrap(), &second);
    }
}

#[test]
fn the_solver_runs_at_every_replay_and_once_a_sweep() {
    let solved = Arc::new(AtomicUsize::new(0));
    let counted = solved.clone();
    let g = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0]).unwrap();
    let root = Implicit::new(&g, move |x: &[f64]| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok::<_, String>(vec![x[0].sqrt()])
    })
    .unwrap();
    let tape = Tape::record(&[4.0], |x| root.call(x)).unwrap();
    let count = |work: &dyn Fn()| {
        let before = solved.load(Ordering::Relaxed);
        work();
        solved.load(Ordering::Relaxed) - before
    };
    let twice = Tape::record(&[4.0], |x| root.call(&root.call(x))).unwrap();
    assert_eq!(twice.functions().len(), 1);
    assert_eq!(twice.optimized().eval(&[16.0]).unwrap(), [2.0]);
    assert_eq!(count(&|| assert_eq!(tape.eval(&[9.0]).unwrap(), [3.0])), 1);
    assert_eq!(count(&|| assert_eq!(tape.jvp(&[16.0], &[8.0]).unwrap().1, [1.0])), 1);
    // Once in the forward and once in the reverse part.
    assert_eq!(count(&|| assert_eq!(tape.gradient(&[16.0]).unwrap().1, [0.125])), 2);
    assert_eq!(count(&|| assert_eq!(tape.hessian(&[4.0]).unwrap().as_slice(), [-1.0 / 32.0])), 2);
}

#[test]
fn numbers_that_are_not_finite_give_nan() {
    let roots = roots();
    let tape = Tape::record(&[3.0, 1.0, 1.0], |x| vec![roots.call(&x[..2])[0] * x[2], x[2] + 0.0]).unwrap();
    for x in [[f64::NAN, 1.0, 2.0], [f64::INFINITY, 1.0, 2.0], [3.0, f64::NEG_INFINITY, 2.0]] {
        let (y, dy) = tape.jvp(&x, &[1.0, 0.0, 1.0]).unwrap();
        assert!(y[0].is_nan() && dy[0].is_nan() && y[1] == 2.0 && dy[1] == 1.0, "{x:?}");
        let (_, xbar) = tape.vjp(&x, &[1.0, 0.0]).unwrap();
        assert!(xbar.iter().all(|x| x.is_nan()), "{x:?}: {xbar:?}");
        assert_eq!(tape.vjp(&x, &[0.0, 1.0]).unwrap().1, [0.0, 0.0, 1.0]);
    }
    // A solver may say so by NaN, too.
    let g = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0]).unwrap();
    let root = Implicit::new(&g, |x: &[f64]| Ok::<_, String>(vec![x[0].sqrt()])).unwrap();
    let tape = Tape::record(&[4.0, 1.0], |x| root.call(&x[..1])[0] + x[1]).unwrap();
    let (y, gradient) = tape.gradient(&[-1.0, 1.0]).unwrap();
    assert!(y.is_nan() && gradient[0].is_nan() && gradient[1] == 1.0);
    assert_eq!(tape.jvp(&[-1.0, 1.0], &[0.0, 1.0]).unwrap().1, [1.0]);
}

/// The error of a driver at x.
fn failure(implicit: &Implicit, x0: &[f64], x: &[f64]) -> (u32, Error) {
    let line = line!() + 1;
    let tape = Tape::record(x0, |x| implicit.call(x)[0] * 2.0).unwrap();
    let errors = [
        tape.eval(x).unwrap_err(),
        tape.gradient(x).unwrap_err(),
        tape.hessian(x).unwrap_err(),
        tape.at(x).unwrap_err(),
        tape.gradient_tape().unwrap().eval(x).unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.to_string(), errors[0].to_string());
    }
    (line, errors[0].clone())
}

#[test]
fn errors_say_what_failed_and_where() {
    // A singular matrix, exactly and nearly.
    for (x1, condition) in [(2.0, None), (2.0 + 1e-15, Some(1e14))] {
        let g =
            Tape::record(&[1.0, 2.0, 3.0, 0.0, 0.0], |v| [v[0] * v[3] + v[1] * v[4] - v[2], v[3] + 2.0 * v[4] - v[2]])
                .unwrap();
        let implicit = Implicit::new(&g, |_: &[f64]| Ok::<_, String>(vec![0.0, 0.0])).unwrap().named("twins");
        match failure(&implicit, &[3.0, 5.0, 0.0], &[1.0, x1, 0.0]) {
            (line, Error::SingularImplicit { function, condition: found, location: Some(location) }) => {
                assert_eq!((function.as_str(), location.line()), ("twins", line));
                assert!(condition.map_or(found == f64::INFINITY, |least| found > least), "{found}");
            }
            (_, other) => panic!("{other}"),
        }
    }
    // Equations whose derivative is NaN at the solution.
    let g = Tape::record(&[4.0, 2.0], |v| v[1] + (v[0] - 9.0).select_gt(0.0, (v[0] * -1.0).sqrt(), v[0] - 6.0) * v[1])
        .unwrap();
    let implicit = Implicit::new(&g, |_: &[f64]| Ok::<_, String>(vec![0.0])).unwrap();
    let (_, error) = failure(&implicit, &[4.0], &[10.0]);
    assert!(matches!(&error, Error::SingularImplicit { condition, .. } if condition.is_nan()), "{error}");

    // A solver that stops early, gives up, or gives too much.
    let g = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0]).unwrap();
    let root = |solver: fn(f64) -> Result<Vec<f64>, String>| {
        Implicit::new(&g, move |x: &[f64]| solver(x[0])).unwrap().named("root")
    };
    let early = root(|x| Ok(vec![x.sqrt() * if x > 5.0 { 1.001 } else { 1.0 }]));
    match failure(&early, &[4.0], &[9.0]) {
        (line, Error::NotSolved { function, step, limit, location: Some(location) }) => {
            assert_eq!((function.as_str(), location.line()), ("root", line));
            assert!((0.002..0.004).contains(&step) && limit < 5e-6, "{step}, {limit}");
        }
        (_, other) => panic!("{other}"),
    }
    let failed = root(|x| if x > 5.0 { Err("no convergence".to_owned()) } else { Ok(vec![x.sqrt()]) });
    let (line, error) = failure(&failed, &[4.0], &[9.0]);
    let message = error.to_string();
    assert!(
        message.starts_with("root, called at ") && message.ends_with("the solver failed: no convergence"),
        "{message}"
    );
    assert!(message.contains(&format!("implicit.rs:{line}: the solver failed")), "{message}");
    let line = line!() + 1;
    let tape = Tape::record(&[4.0], |x| failed.call(x)).unwrap();
    for error in [tape.eval_with(&[9.0]).unwrap_err(), tape.eval_with(&[Dual::new(9.0, 1.0)]).unwrap_err()] {
        let location = matches!(&error, Error::SolverFailed { location: Some(at), .. } if at.line() == line);
        assert!(location, "{error}");
    }
    // The innermost place that is known.
    let anonymous = tape.without_locations();
    assert!(matches!(anonymous.eval(&[9.0]).unwrap_err(), Error::SolverFailed { location: None, .. }));
    let line = line!() + 1;
    let outer = Tape::record(&[4.0], |x| anonymous.call(x)).unwrap();
    for error in [outer.eval(&[9.0]).unwrap_err(), outer.gradient(&[9.0]).unwrap_err()] {
        let location = matches!(&error, Error::SolverFailed { location: Some(at), .. } if at.line() == line);
        assert!(location, "{error}");
    }
    let count = root(|x| Ok(vec![x.sqrt(); if x > 5.0 { 2 } else { 1 }]));
    let (_, error) = failure(&count, &[4.0], &[9.0]);
    assert!(matches!(&error, Error::RuleShape { function, expected: 1, got: 2, .. } if function == "root"), "{error}");

    // At the recording, and with arguments that do not fit.
    let error = Tape::record(&[9.0], |x| failed.call(x)).unwrap_err();
    assert!(matches!(error, Error::SolverFailed { location: Some(_), .. }), "{error}");
    let error = Tape::record(&[4.0], |x| early.call(&[x[0], x[0]])).unwrap_err();
    assert!(matches!(&error, Error::CallArguments { function, .. } if function == "root"), "{error}");
    let square = Tape::record(&[4.0], |v| v[0] * v[0]).unwrap();
    let error = Implicit::new(&square, |_: &[f64]| Ok::<_, String>(vec![0.0])).unwrap_err();
    assert!(matches!(error, Error::RuleShape { expected: 2, got: 1, .. }), "{error}");

    // A guard of the equations.
    let g = Tape::record(&[4.0, 2.0], |v| if v[0] > 1.0 { v[1] - v[0] } else { v[1] + v[0] }).unwrap();
    let branch = Implicit::new(&g, |x: &[f64]| Ok::<_, String>(vec![x[0]])).unwrap();
    assert!(matches!(failure(&branch, &[4.0], &[0.0]).1, Error::BranchChanged { .. }));
}

#[test]
fn large_tangents_are_no_singular_matrix() {
    // The matrix of the tangent's equations holds ẋ; only ∂g/∂y may be singular.
    let kepler = kepler();
    let tape = Tape::record(&[1.0, 0.1], |x| kepler.call(x)).unwrap();
    let jvp = tape.jvp_tape().unwrap();
    let (small, large) = (jvp.eval(&[1.0, 0.3, 1.0, 0.5]).unwrap()[0], jvp.eval(&[1.0, 0.3, 1e20, 0.5e20]).unwrap()[0]);
    assert!((large / 1e20 - small).abs() < 1e-14 * small.abs(), "{small}, {large}");
    assert!(jvp.gradient(&[1.0, 0.3, 1e20, 0.5e20]).unwrap().1.iter().all(|g| g.is_finite()));
}

#[test]
fn sweeps_on_a_warm_workspace_allocate_nothing() {
    let linear = linear();
    let tape = Tape::record(&[3.0, 1.0, 2.0], |x| linear.call(x)[0] * x[1]).unwrap();
    let tapes = [tape.clone(), tape.gradient_tape().unwrap(), tape.gradient_tape().unwrap().jvp_tape().unwrap()];
    for (order, tape) in tapes.iter().enumerate() {
        let ws = &mut Workspace::new();
        let (n, m) = (tape.num_inputs(), tape.num_outputs());
        let x = [&[3.4, 0.7, 1.6][..], &[1.0; 3]].concat()[..n].to_vec();
        let (mut y, mut dy, mut xbar, mut jac) = (vec![0.0; m], vec![0.0; m], vec![0.0; n], Matrix::default());
        let (p, w, mut hessian) = (vec![1.0; n], vec![1.0; m], Matrix::default());
        let mut round = || {
            measure(|| {
                tape.eval_into(ws, &x, &mut y).unwrap();
                tape.jvp_into(ws, &x, &p, &mut y, &mut dy).unwrap();
                tape.vjp_into(ws, &x, &w, &mut y, &mut xbar).unwrap();
                tape.jacobian_into(ws, &x, &mut jac).unwrap();
                if m == 1 {
                    tape.hessian_into(ws, &x, &mut hessian).unwrap();
                }
            })
            .count_total
        };
        assert!(round() > 0, "nothing is counted");
        assert_eq!(round(), 0, "derivative {order}");
    }
}
