//! Derivative tapes against the drivers: random programs, every operation of
//! the table alone, second derivatives, and what they keep of the tape.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::cell::Cell;

use ad_core::ops::{Fold, Operation};
use ad_core::{Answer, Dual, Error, Op, Question, Real, Rule, Tape, Var};
use common::programs::{Maker, Program, Purpose, Random, call, operands_of};
use common::{assert_equal, product, takes_constant, unit};
use insta::assert_snapshot;

/// The programs of each test.
const PROGRAMS: usize = 1000;
/// Those of each test of programs that call functions.
const PROGRAMS_WITH_CALLS: usize = 300;

// Where a derivative tape may have a number and the drivers NaN.

thread_local! {
    static MADE_NAN: Cell<bool> = const { Cell::new(false) };
}

/// A number that notes where an operation of several operands makes a NaN of infinite numbers.
#[derive(Debug, Clone, Copy)]
struct Watched(f64);

impl From<f64> for Watched {
    fn from(c: f64) -> Self {
        Watched(c)
    }
}

impl Rule for Watched {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let x = x.map(|x| x.0);
        let v = O::value(x);
        let infinite = x.iter().any(|x| x.is_infinite()) && !x.iter().any(|x| x.is_nan());
        if N > 1 && v[0].is_nan() && infinite {
            MADE_NAN.set(true);
        }
        v.map(Watched)
    }

    fn fold<O: Fold>(x: &[Self]) -> Self {
        let x: Vec<f64> = x.iter().map(|x| x.0).collect();
        let v = O::value(&x);
        if v.is_nan() && !x.iter().any(|x| x.is_nan()) {
            MADE_NAN.set(true);
        }
        Watched(v)
    }

    fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        f64::confirm(question, answer, a.0, b.0)
    }
}
ad_core::rule_operators!([] Watched);

fn makes_nan_of_infinities(tape: &Tape, x: &[f64], y: &[f64]) -> bool {
    MADE_NAN.set(false);
    let x: Vec<Watched> = x.iter().map(|&x| Watched(x)).collect();
    match tape.eval_with(&x) {
        Ok(_) => MADE_NAN.get(),
        // The adjoints of a function are computed in few number types.
        Err(Error::OnlyNumbers { .. }) => y.iter().any(|y| y.is_nan()),
        Err(error) => panic!("{error}"),
    }
}

// Comparisons with the drivers.

/// The derivative tapes of a tape.
struct Derivatives {
    tape: Tape,
    jvp: Tape,
    vjp: Tape,
    jacobian: Tape,
    gradient: Option<Tape>,
}

/// What was compared, so that a test cannot pass because nothing is.
#[derive(Debug, Default)]
struct Seen {
    finite: usize,
    not_finite: usize,
    nan_of_infinities: usize,
    changed: usize,
    /// Numbers that differ by more than rounding, where that is all they may differ by.
    far: usize,
}

/// Compares what a derivative tape gives with its driver: equal, except where
/// the tape is one that calls the adjoints of a function. Their tangents are
/// the adjoints of its tangents, the same terms in another order.
#[track_caller]
fn compare(tape: &Tape, numbers: &[f64], expected: &[f64], what: String, seen: &mut Seen) {
    if !tape.functions().iter().any(|function| function.to_string().contains("vjp")) {
        return assert_equal(numbers, expected, what);
    }
    assert_eq!(numbers.len(), expected.len(), "{what}");
    let size = expected.iter().filter(|x| x.is_finite()).fold(1.0, |size: f64, x| size.max(x.abs()));
    let far = |(&a, &b): (&f64, &f64)| a.is_finite() && b.is_finite() && (a - b).abs() > 1e-9 * size;
    seen.far += numbers.iter().zip(expected).filter(|&pair| far(pair)).count();
}

impl Derivatives {
    fn new(tape: &Tape) -> Derivatives {
        let derivatives = Derivatives {
            tape: tape.clone(),
            jvp: tape.jvp_tape().unwrap(),
            vjp: tape.vjp_tape().unwrap(),
            jacobian: tape.jacobian_tape().unwrap(),
            gradient: (tape.num_outputs() == 1).then(|| tape.gradient_tape().unwrap()),
        };
        derivatives.all().for_each(|derivative| check_what_stays(tape, derivative));
        derivatives
    }

    fn all(&self) -> impl Iterator<Item = &Tape> {
        [&self.jvp, &self.vjp, &self.jacobian].into_iter().chain(&self.gradient)
    }

    fn with_params(&self, k: &[f64]) -> Derivatives {
        let with = |tape: &Tape| tape.with_params(k).unwrap();
        Derivatives {
            tape: with(&self.tape),
            jvp: with(&self.jvp),
            vjp: with(&self.vjp),
            jacobian: with(&self.jacobian),
            gradient: self.gradient.as_ref().map(with),
        }
    }

    /// Compares each tape at x with its driver.
    fn check(&self, x: &[f64], p: &[f64], w: &[f64], seen: &mut Seen) {
        let tape = &self.tape;
        let y = match tape.eval(x) {
            Ok(y) => y,
            Err(expected) => {
                seen.changed += 1;
                return self.check_changed_branch(x, p, w, &expected);
            }
        };
        // A function has the strict rule to itself, so a NaN within counts even where none comes out.
        let looks_out = y.iter().any(|y| y.is_nan()) || !tape.functions().is_empty();
        if looks_out && makes_nan_of_infinities(tape, x, &y) {
            seen.nan_of_infinities += 1;
            return;
        }
        *if y.iter().all(|y| y.is_finite()) { &mut seen.finite } else { &mut seen.not_finite } += 1;
        let what = |name: &str, derivative: &Tape| format!("{name} at {x:?}, {p:?}, {w:?} of\n{tape}\n{derivative}");
        let expected = tape.jvp(x, p).unwrap().1;
        compare(tape, &self.jvp.eval(&[x, p].concat()).unwrap(), &expected, what("jvp", &self.jvp), seen);
        let expected = tape.vjp(x, w).unwrap().1;
        compare(tape, &self.vjp.eval(&[x, w].concat()).unwrap(), &expected, what("vjp", &self.vjp), seen);
        let (entries, expected) = (self.jacobian.eval(x).unwrap(), tape.jacobian(x).unwrap());
        compare(tape, &entries, expected.as_slice(), what("Jacobian", &self.jacobian), seen);
        if let Some(gradient) = &self.gradient {
            let expected = tape.gradient(x).unwrap().1;
            compare(tape, &gradient.eval(x).unwrap(), &expected, what("gradient", gradient), seen);
        }
    }

    /// Fails unless each tape finds the same branch changed.
    fn check_changed_branch(&self, x: &[f64], p: &[f64], w: &[f64], expected: &Error) {
        let bits = |x: f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
        let branch = |error: &Error| {
            let Error::BranchChanged { guard, location, now, lhs, rhs, .. } = error else { panic!("{error}") };
            (guard.question(), guard.answer(), location.clone(), *now, [bits(*lhs), bits(*rhs)])
        };
        let points = [[x, p].concat(), [x, w].concat(), x.to_vec(), x.to_vec()];
        for (tape, x) in self.all().zip(points) {
            assert_eq!(branch(&tape.eval(&x).unwrap_err()), branch(expected));
        }
    }
}

/// A derivative tape has the parameters, guards and escapes of its tape, and
/// no place in the code that is not one of the tape's.
fn check_what_stays(tape: &Tape, derivative: &Tape) {
    derivative.check().unwrap();
    assert_eq!(derivative.params(), tape.params());
    let guards = |tape: &Tape| -> Vec<_> {
        tape.guards().iter().map(|guard| (guard.question(), guard.answer(), guard.location().clone())).collect()
    };
    assert_eq!(guards(derivative), guards(tape));
    assert_eq!(derivative.escapes().len(), tape.escapes().len());
}

fn check_random_programs(make: Maker, programs: usize) {
    let mut seen = Seen::default();
    for index in 0..programs {
        let random = &mut Random::new(11, index);
        let purpose = Purpose { single: index % 2 == 0, params: false, guarded: 20 };
        let Program { tape, x0, k0 } = make(random, purpose);
        let derivatives = Derivatives::new(&tape);
        let (n, m) = (tape.num_inputs(), tape.num_outputs());
        derivatives.check(&x0, &random.seed(n), &random.seed(m), &mut seen);
        for _ in 0..3 {
            let (x, k) = (random.point(x0.len()), random.point(k0.len()));
            derivatives.with_params(&k).check(&x, &random.seed(n), &random.seed(m), &mut seen);
        }
    }
    let Seen { finite, not_finite, nan_of_infinities, changed, .. } = seen;
    assert!(finite > programs && not_finite > programs / 4 && changed > programs / 20, "{seen:?}");
    assert!(nan_of_infinities < finite / 4, "{seen:?}");
}

#[test]
fn derivative_tapes_agree_with_the_drivers_on_random_programs() {
    check_random_programs(Program::new, PROGRAMS);
}

#[test]
fn derivative_tapes_agree_with_the_drivers_on_random_programs_with_calls() {
    check_random_programs(Program::with_calls, PROGRAMS_WITH_CALLS);
}

fn check_derivatives_of_derivatives(make: Maker, programs: usize) {
    let mut seen = Seen::default();
    for index in 0..programs / 2 {
        let random = &mut Random::new(13, index);
        let purpose = Purpose { single: true, params: false, guarded: 20 };
        let Program { tape, x0, k0 } = make(random, purpose);
        let first = if index % 2 == 0 { tape.gradient_tape() } else { tape.jvp_tape() }.unwrap();
        let second = Derivatives::new(&first);
        let (n, m) = (first.num_inputs(), first.num_outputs());
        let at = |x: Vec<f64>, random: &mut Random| [&x[..], &random.seed(n - x.len())].concat();
        let x = at(x0.clone(), random);
        second.check(&x, &random.seed(n), &random.seed(m), &mut seen);
        let (x, k) = (random.point(x0.len()), random.point(k0.len()));
        let x = at(x, random);
        second.with_params(&k).check(&x, &random.seed(n), &random.seed(m), &mut seen);
    }
    let Seen { finite, not_finite, nan_of_infinities, far, .. } = seen;
    assert!(far <= finite / 100, "{seen:?}");
    assert!(finite > programs / 4 && not_finite > programs / 100 && nan_of_infinities < finite, "{seen:?}");
}

#[test]
fn derivative_tapes_of_derivative_tapes_agree_with_their_drivers() {
    check_derivatives_of_derivatives(Program::new, PROGRAMS);
}

#[test]
fn derivative_tapes_of_derivative_tapes_agree_with_their_drivers_with_calls() {
    check_derivatives_of_derivatives(Program::with_calls, PROGRAMS_WITH_CALLS);
}

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
    let Seen { finite, not_finite, nan_of_infinities, .. } = seen;
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
    assert!(seen.finite > 2000 && seen.not_finite > 2000, "{seen:?}");
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
    for index in 0..PROGRAMS {
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
    assert_eq!(seen.finite, 12, "{seen:?}");
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
    let Error::TooLarge { location, .. } = &error else { panic!("{error}") };
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
