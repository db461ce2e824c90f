//! Derivative tapes against the drivers: every operation of the table alone,
//! second derivatives, and what they keep of the tape. (`laws.rs` has random
//! programs.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Dual, Error, Op, Real, Tape, Var};
use common::agreement::Seen;
use common::derivatives::Derivatives;
use common::programs::{Random, call, operands_of};
use common::{assert_equal, product, takes_constant, unit};
use insta::assert_snapshot;

#[test]
fn derivative_tapes_agree_with_the_drivers_at_every_probe_point() {
    let mut seen = Seen::default();
    for &op in Op::ALL {
        let probes = op.info().probes;
        let count = operands_of(op);
        let constants = if takes_constant(op) { probes[count] } else { &[0.0] };
        for &c in constants {
            let tape = Tape::record(&vec![0.75; count], |x| call(op, x, c)).unwrap();
            let m = tape.num_outputs();
            let derivatives = Derivatives::new(&tape);
            for x in product(&probes[..count]) {
                derivatives.check(&x, &vec![1.0; count], &vec![1.0; m], &mut seen);
                derivatives.check(&x, &unit(count, 0), &unit(m, m - 1), &mut seen);
            }
        }
    }
    let [finite, not_finite, nan_of_infinities] =
        ["finite", "not finite", "NaN of infinities"].map(|what| seen.times(what));
    assert!(finite > 4000 && not_finite > 4000 && nan_of_infinities < not_finite / 5, "{seen:?}");
}

#[test]
fn operations_with_a_constant_operand_agree_too() {
    // Which partials need to look out for NaN depends on the constant.
    let mut seen = Seen::default();
    for &op in Op::ALL.iter().filter(|op| operands_of(**op) == 2) {
        let probes = op.info().probes;
        for at in 0..2 {
            for &c in probes[at] {
                let operands = |x: Var| if at == 0 { [Var::from(c), x] } else { [x, Var::from(c)] };
                let tape = Tape::record(&[0.75], |x| call(op, &operands(x[0]), 0.0)).unwrap();
                let derivatives = Derivatives::new(&tape);
                for &x in probes[1 - at] {
                    derivatives.check(&[x], &[1.5], &[-0.5], &mut seen);
                }
            }
        }
    }
    assert!(seen.times("finite") > 2000 && seen.times("not finite") > 2000, "{seen:?}");
}

#[test]
fn a_partial_outside_the_domain_is_nan() {
    let of = |f: fn(Var) -> Var, x: f64| {
        let tape = Tape::record(&[0.5], |x| f(x[0])).unwrap();
        tape.gradient_tape().unwrap().eval(&[x]).unwrap()[0]
    };
    assert!(of(|x| x.ln(), -1.0).is_nan());
    assert!(of(|x| x.atanh(), 2.0).is_nan());
    assert!(of(|x| x.ln_1p(), -2.0).is_nan());
    assert!(of(|x| (x - x) / (x - x), 2.0).is_nan());
    assert!(of(|x| x % (x - x), 2.0).is_nan());
    // The exponent minus 1 is a whole number, but the exponent is none.
    assert!(of(|x| x.powf(1e-17), -2.0).is_nan());
    assert!(of(|x| x.pow(1e-17 + 0.0 * x), -2.0).is_nan());
    // A zero factor still makes it 0.
    assert_eq!(of(|x| x.select_gt(0.0, x.ln(), 0.0), -1.0), 0.0);
    assert_eq!(of(|x| x.select_gt(0.0, x.sqrt(), 0.0), 0.0), 0.0);
}

// Second derivatives.

/// A smooth function of moderate size, from the numbers of a random generator.
fn smooth<T: Real>(steps: &[[usize; 4]], x: &[T]) -> T {
    let mut values = x.to_vec();
    for &[op, a, b, c] in steps {
        let (a, b, k) = (values[a % values.len()], values[b % values.len()], 0.25 * (c % 9) as f64 - 1.0);
        values.push(match op % 14 {
            0 => (a + b) * 0.5,
            1 => (a - b) * k,
            2 => a.sin() * b,
            3 => a.cos() + k,
            4 => a.tanh() * b.tanh(),
            5 => a / (b * b + 1.0),
            6 => (a * a + 0.5).sqrt(),
            7 => (a * a + 1.0).ln(),
            8 => a.atan() - b.logistic(),
            9 => a.softplus() * k,
            10 => T::dot(&[a, b], &[b, a]) * 0.25,
            11 => a.erf() + b.powi(2) * 0.1,
            12 => (a * a + 1.0).powf(0.75),
            _ => T::sum_of(&[a, b, a.sinh() * 0.05]),
        });
    }
    let last = values.len();
    values[last - 1] + values[last / 2]
}

#[test]
fn the_jacobian_of_the_gradient_is_the_hessian() {
    for index in 0..if cfg!(debug_assertions) { 150 } else { 1000 } {
        let random = &mut Random::new(12, index);
        let n = 1 + random.below(4);
        let steps: Vec<[usize; 4]> = (0..1 + random.below(10)).map(|_| [0; 4].map(|_| random.below(1 << 20))).collect();
        let x = random.numbers(n, &[], 0);
        let tape = Tape::record(&x, |x| smooth(&steps, x)).unwrap();
        let gradient = tape.gradient_tape().unwrap();
        let hessian = gradient.jacobian(&x).unwrap();
        let by_tape = gradient.jacobian_tape().unwrap().eval(&x).unwrap();
        assert_equal(&by_tape, hessian.as_slice(), &gradient);
        let by_sweeps = tape.hessian(&x).unwrap();
        let size = hessian.as_slice().iter().fold(1.0, |size: f64, h| size.max(h.abs()));
        for i in 0..n {
            for j in 0..n {
                let seed = |k: usize| {
                    let [first, second] = [i, j].map(|at| if at == k { 1.0 } else { 0.0 });
                    Dual::new(Dual::new(x[k], first), Dual::new(second, 0.0))
                };
                let duals: Vec<Dual<Dual>> = (0..n).map(seed).collect();
                let expected = smooth(&steps, &duals).dv.dv;
                let by_product = tape.hvp(&x, &unit(n, j)).unwrap()[i];
                for entry in [hessian[(i, j)], by_sweeps[(i, j)], by_product] {
                    let error = (entry - expected).abs();
                    assert!(error <= 1e-9 * size, "{i}, {j}: {entry} for {expected}\n{tape}\n{gradient}");
                }
            }
        }
    }
}

#[test]
fn derivatives_of_any_order() {
    let tape = Tape::record(&[0.5], |x| (x[0] * 2.0).sin() * x[0].exp() + x[0].powi(5)).unwrap();
    let mut derivative = tape.clone();
    let x: f64 = 0.3;
    for order in 1..=4_i32 {
        derivative = derivative.gradient_tape().unwrap();
        // d^n/dx^n e^x·sin(2x) = 5^(n/2)·e^x·sin(2x + n·atan 2).
        let wave = 5f64.powf(f64::from(order) / 2.0) * x.exp() * (2.0 * x + f64::from(order) * 2f64.atan()).sin();
        let falling: f64 = (0..order).map(|k| f64::from(5 - k)).product();
        let expected = wave + falling * x.powi(5 - order);
        let got = derivative.eval(&[x]).unwrap()[0];
        assert!((got - expected).abs() < 1e-12 * expected.abs(), "order {order}: {got} for {expected}\n{derivative}");
    }
}

#[test]
fn every_tape_of_every_tape_is_one() {
    let tape = Tape::record(&[0.5, 1.5], |x| [x[0].ln() * x[1], x[1].tanh() / x[0]]).unwrap();
    let first = Derivatives::new(&tape);
    let mut seen = Seen::default();
    for derivative in first.all() {
        let (n, m) = (derivative.num_inputs(), derivative.num_outputs());
        let x: Vec<f64> = (0..n).map(|i| 0.5 + 0.25 * i as f64).collect();
        let second = Derivatives::new(derivative);
        second.check(&x, &vec![0.75; n], &vec![-1.25; m], &mut seen);
        for third in second.all() {
            let (n, m) = (third.num_inputs(), third.num_outputs());
            let x: Vec<f64> = (0..n).map(|i| 0.5 + 0.25 * i as f64).collect();
            Derivatives::new(third).check(&x, &vec![0.75; n], &vec![-1.25; m], &mut seen);
        }
    }
    assert_eq!(seen.times("finite"), 12, "{seen:?}");
}

// What they keep, and what is left out.

#[test]
fn parameters_guards_escapes_names_and_locations_stay() {
    let first = line!() + 5;
    let tape = Tape::builder()
        .inputs(&["speed", "x"], &[2.0, 3.0])
        .params(&["k"], &[1.5])
        .record(|x, k| {
            let a = x[0].sin() * k[0].exp();
            let b = if a > x[1] { a } else { a * x[1] };
            b * a.value()
        })
        .unwrap();
    let gradient = tape.gradient_tape().unwrap();
    assert_eq!(gradient.params(), [1.5]);
    assert_eq!(gradient.guards().len(), 1);
    assert_eq!(gradient.guards()[0].location().line(), first + 1);
    assert_eq!(gradient.escapes()[0].value(), tape.escapes()[0].value());
    assert!(matches!(gradient.eval(&[2.0, 9.0]), Err(Error::BranchChanged { .. })));
    let other = gradient.with_params(&[1.75]).unwrap();
    assert_equal(
        &other.eval(&[2.0, 3.0]).unwrap(),
        &tape.with_params(&[1.75]).unwrap().gradient(&[2.0, 3.0]).unwrap().1,
        "other parameters",
    );
    assert_snapshot!("names_of_a_gradient", gradient);
    assert_snapshot!("names_of_a_tangent", tape.jvp_tape().unwrap());
    // Every row stands where its row of the function stands.
    for derivative in [gradient, tape.jvp_tape().unwrap(), tape.vjp_tape().unwrap()] {
        let x = vec![2.0; derivative.num_inputs()];
        let Ok(trace) = derivative.primal_trace(&x) else { panic!("the branch stays") };
        for location in trace.rows().iter().filter_map(|row| row.location.as_ref()) {
            assert!(location.file().ends_with("derive.rs") && !location.is_nearest(), "{location}");
            assert!((first..first + 3).contains(&location.line()), "{location}");
        }
    }
}

#[test]
fn seeds_get_names_that_nothing_has() {
    let tape = Tape::builder().inputs(&["x\u{307}₁", "y"], &[1.0, 2.0]).record(|x, _| x[0] * x[1]).unwrap();
    let jvp = tape.jvp_tape().unwrap();
    let twice = jvp.jvp_tape().unwrap();
    let thrice = twice.jvp_tape().unwrap();
    for tape in [&jvp, &twice, &thrice] {
        let text = tape.to_string();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split(" = ").nth(1)).collect();
        names.truncate(tape.num_inputs());
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{text}");
    }
    let unnamed = Tape::record(&[1.0], |x| x[0].sin()).unwrap();
    assert!(unnamed.jvp_tape().unwrap().to_string().starts_with("v₋₁ = x₁\nv₀ = x\u{307}₁\n"));
    let ascii = unnamed.jvp_tape().unwrap().primal_trace(&[1.0, 1.0]).unwrap().ascii().to_string();
    assert!(ascii.is_ascii() && ascii.contains("v[0] = dx[1]"), "{ascii}");
    assert!(unnamed.vjp_tape().unwrap().to_string().starts_with("v₋₁ = x₁\nv₀ = y\u{304}\n"));
}

#[test]
fn what_is_zero_or_one_is_not_recorded() {
    let rows = |tape: Result<Tape, Error>| {
        let tape = tape.unwrap();
        tape.len() - tape.num_inputs()
    };
    let linear = Tape::record(&[1.0, 2.0, 3.0], |x| x[0] - x[1] + x[2].floor()).unwrap();
    assert_eq!(rows(linear.gradient_tape()), 0);
    assert_eq!(linear.gradient_tape().unwrap().eval(&[1.0; 3]).unwrap(), [1.0, -1.0, 0.0]);
    assert_eq!(rows(linear.jvp_tape()), 1);
    // sin and cos of one argument, and the value of exp, are there already.
    let wave = Tape::record(&[1.0], |x| x[0].sin() * x[0].cos()).unwrap();
    assert_eq!(rows(wave.gradient_tape()), 5);
    let growth = Tape::record(&[1.0], |x| x[0].exp()).unwrap();
    assert_eq!(rows(growth.gradient_tape()), 1);
    assert_eq!(rows(growth.gradient_tape().unwrap().gradient_tape()), 1);
    let square = Tape::record(&[1.0], |x| x[0].powi(2)).unwrap();
    assert_eq!(square.gradient_tape().unwrap().to_string(), "v₀ = x₁\nv₁ = 2·v₀\ng = v₁\n");
    // Only those entries of a Jacobian that are not always 0 take rows.
    let separate = Tape::record(&[1.0; 30], |x| x.iter().map(|x| x.exp()).collect::<Vec<_>>()).unwrap();
    assert_eq!(rows(separate.jacobian_tape()), 30);
}

#[test]
fn outputs_of_every_kind() {
    let tape = Tape::builder()
        .inputs(&[], &[1.0, 2.0])
        .params(&[], &[3.0])
        .record(|x, k| (x[0], k[0], Var::from(5.0), k[0].exp(), x[0] * k[0], x[0], x[1].sin_cos().1))
        .unwrap();
    Derivatives::new(&tape).check(
        &[0.5, 0.25],
        &[1.0, -2.0],
        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        &mut Seen::default(),
    );
}

#[test]
fn a_tape_without_rows_has_derivatives() {
    let tape = Tape::record(&[1.0, 2.0], |x| [x[0], x[1], x[0]]).unwrap();
    Derivatives::new(&tape).check(&[0.5, 0.25], &[1.0, -2.0], &[1.0, 2.0, 3.0], &mut Seen::default());
    let line = line!() + 1;
    let vjp = tape.vjp_tape().unwrap();
    // The sum of two weights belongs to no row: it stands where the derivative is asked for.
    let trace = vjp.primal_trace(&[1.0; 5]).unwrap();
    let rows: Vec<_> = trace.rows().iter().filter_map(|row| row.location.as_ref()).collect();
    assert_eq!(rows.iter().map(|location| location.line()).collect::<Vec<_>>(), [line]);
    assert_eq!(vjp.vjp_tape().unwrap().eval(&[1.0, 2.0, 0.0, 0.0, 0.0, 5.0, 7.0]).unwrap(), [0.0, 0.0, 5.0, 7.0, 5.0]);
}

#[test]
fn derivative_tapes_of_sums_do_not_ask_for_infinities() {
    let tape = Tape::record(&[1.0, 2.0, 3.0], |x| Var::sum_of(x)).unwrap();
    let gradient = tape.gradient_tape().unwrap();
    assert_eq!(gradient.eval(&[f64::INFINITY, f64::NEG_INFINITY, 1.0]).unwrap(), [1.0; 3]);
}

#[test]
fn several_outputs_have_no_gradient() {
    let tape = Tape::record(&[1.0], |x| [x[0], x[0]]).unwrap();
    let error = tape.gradient_tape().unwrap_err();
    assert!(matches!(error, Error::NotScalar { driver: "gradient_tape", outputs: 2, .. }), "{error}");
}

#[test]
fn more_derivatives_than_can_be_named_are_an_error() {
    let n = 50_000;
    let tape = Tape::record(&vec![1.0; n], |x| x.to_vec()).unwrap();
    let line = line!() + 1;
    let error = tape.jacobian_tape().unwrap_err();
    let Error::TooLarge { location, what: "derivatives", .. } = &error else { panic!("{error}") };
    assert_eq!(location.line(), line);
}

#[test]
fn long_tapes_have_derivatives_in_time_proportional_to_their_length() {
    let tape = Tape::record(&[0.5, 1.0], |x| (0..200_000).fold(x[0], |y, _| (y * 0.999 + x[1]).sin())).unwrap();
    let gradient = tape.gradient_tape().unwrap();
    assert!(gradient.len() < 4 * tape.len());
    let x = [0.25, 0.75];
    assert_equal(&gradient.eval(&x).unwrap(), &tape.gradient(&x).unwrap().1, "a long tape");
    // Many outputs that share everything but the last row.
    let fan = Tape::record(&[0.5], |x| {
        let y = x[0].sin();
        (0..20_000).map(|i| y * f64::from(i)).collect::<Vec<_>>()
    })
    .unwrap();
    assert_eq!(fan.jacobian_tape().unwrap().num_outputs(), 20_000);
}

// How they print.

fn classical() -> Tape {
    Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp()).unwrap()
}

#[test]
fn printed() {
    let tape = classical();
    let (jvp, vjp) = (tape.jvp_tape().unwrap(), tape.vjp_tape().unwrap());
    let gradient = tape.gradient_tape().unwrap();
    assert_snapshot!("jvp", jvp);
    assert_snapshot!("vjp", vjp);
    assert_snapshot!("gradient", gradient);
    assert_snapshot!("jacobian", tape.jacobian_tape().unwrap());
    assert_snapshot!("hessian", gradient.jacobian_tape().unwrap());
    assert_snapshot!("third", gradient.jvp_tape().unwrap().jvp_tape().unwrap());
    assert_snapshot!("jvp_primal", jvp.primal_trace(&[2.0, 4.0, 1.0, 0.0]).unwrap());
    assert_snapshot!("gradient_tangent", gradient.tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap());
    assert_snapshot!("gradient_adjoint", gradient.adjoint_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap());
    assert_snapshot!("jvp_latex", jvp.primal_trace(&[2.0, 4.0, 1.0, 0.0]).unwrap().to_latex());
    let domain = Tape::record(&[2.0, 4.0], |x| x[0].ln() / x[1] + x[0].powf(1.5) * x[1].tanh()).unwrap();
    assert_snapshot!("gradient_with_domains", domain.gradient_tape().unwrap());
    assert_snapshot!(
        "gradient_with_domains_tangent",
        domain.gradient_tape().unwrap().tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap()
    );
}
