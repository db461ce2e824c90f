//! Taylor coefficients of tapes that call functions: the code written out,
//! closed forms, and nested derivative tapes.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::f64::consts::PI;

use ad_core::{Custom, CustomOp, CustomProducts, Error, Implicit, Matrix, Outputs, Rule, Tape, Var, Workspace};
use common::{assert_equal, assert_same};

const ORDER: usize = 12;

/// A function recorded with calls, and the same written out.
struct Twin {
    name: &'static str,
    called: Tape,
    flat: Tape,
    x: Vec<f64>,
}

impl Twin {
    fn new<A: Outputs, B: Outputs>(
        name: &'static str,
        x: &[f64],
        called: impl FnOnce(&[Var]) -> A,
        flat: impl FnOnce(&[Var]) -> B,
    ) -> Twin {
        let (called, flat) = (Tape::record(x, called).unwrap(), Tape::record(x, flat).unwrap());
        assert!(!called.functions().is_empty() && flat.functions().is_empty(), "{name}");
        Twin { name, called, flat, x: x.iter().map(|x| 0.9 * x + 0.05).collect() }
    }
}

fn pair_of(a: Var, b: Var) -> [Var; 2] {
    [a.sin() * b / (a * a + 2.0), (b - a).exp() - a.powf(1.5)]
}

fn step_of(s: [Var; 2], h: Var) -> [Var; 3] {
    [s[0] + h * s[1], s[1] - h * s[0].sin(), s[0] * s[1].tanh()]
}

fn sum_of(terms: impl IntoIterator<Item = Var>) -> Var {
    terms.into_iter().reduce(|sum, term| sum + term).unwrap()
}

fn twins() -> Vec<Twin> {
    let points = [0.3, 0.5, 0.4, 0.9, 0.7, 0.2, 0.6];
    let pair = Tape::record(&[0.3, 0.5], |x| pair_of(x[0], x[1])).unwrap().named("pair");
    let first = Tape::record(&[0.3, 0.5], |x| pair_of(x[0], x[1])[0]).unwrap();
    let step = Tape::record(&[0.2, 0.4, 0.9], |v| step_of([v[0], v[1]], v[2])).unwrap();
    let unused = Tape::record(&[0.2, 0.4], |x| [x[0] * x[0], Var::from(3.0)]).unwrap();
    let nested = Tape::record(&[0.5, 0.6], |x| {
        let y = pair.call(x);
        let z = pair.map_sum([[x[0], y[0]], [x[1], x[1]]]);
        [z[0] * y[1], step.scan(&z, [[x[0]], [y[0]]]).0[1]]
    })
    .unwrap();
    vec![
        Twin::new("call", &[0.3, 0.8], |x| pair.call(x), |x| pair_of(x[0], x[1])),
        Twin::new(
            "one variable twice, and constants",
            &[0.3],
            |x| {
                let y = pair.call(&[x[0], x[0] * x[0]]);
                let square = unused.call(&[x[0], y[0]]);
                [pair.call(&[x[0], Var::from(2.0)])[0] * y[1] + pair.call(&[y[0], y[0]])[1], square[0], square[1]]
            },
            |x| {
                let y = pair_of(x[0], x[0] * x[0]);
                let c = pair_of(x[0], Var::from(2.0))[0];
                [c * y[1] + pair_of(y[0], y[0])[1], x[0] * x[0], Var::from(3.0)]
            },
        ),
        Twin::new(
            "map",
            &points,
            |x| pair.map([[x[0], x[5]], [x[1], x[2]], [x[6], x[0]], [x[3], x[3]], [x[2], x[1]]]),
            |x| {
                let items = [[x[0], x[5]], [x[1], x[2]], [x[6], x[0]], [x[3], x[3]], [x[2], x[1]]];
                items.map(|[a, b]| pair_of(a, b)).concat()
            },
        ),
        Twin::new(
            "map of blocks",
            &points,
            |x| [sum_of(first.map((0..150).map(|i| [x[i % 7], x[i % 5]])))],
            |x| [sum_of((0..150).map(|i| pair_of(x[i % 7], x[i % 5])[0]))],
        ),
        Twin::new(
            "map_sum",
            &points,
            |x| pair.map_sum(x.windows(2)),
            |x| [0, 1].map(|j| sum_of(x.windows(2).map(|x| pair_of(x[0], x[1])[j]))),
        ),
        Twin::new(
            "scan",
            &[0.2, 0.4, 0.3],
            |x| {
                let (carry, outs) = step.scan(&x[..2], (0..4).map(|i| [x[2 - i % 2]]));
                [carry[0], carry[1], outs[0], outs[1] * outs[2], outs[3]]
            },
            |x| {
                let (mut s, mut outs) = ([x[0], x[1]], Vec::new());
                for i in 0..4 {
                    let [a, b, out] = step_of(s, x[2 - i % 2]);
                    s = [a, b];
                    outs.push(out);
                }
                [s[0], s[1], outs[0], outs[1] * outs[2], outs[3]]
            },
        ),
        Twin::new(
            "nested",
            &[0.5, 0.6],
            |x| nested.call(&[x[1], x[0]]),
            |x| {
                let [a, b] = [x[1], x[0]];
                let y = pair_of(a, b);
                let z = [0, 1].map(|j| pair_of(a, y[0])[j] + pair_of(b, b)[j]);
                let [c, d, _] = step_of(z, a);
                [z[0] * y[1], step_of([c, d], y[0])[1]]
            },
        ),
    ]
}

/// Some numbers that have no pattern, in between −1 and 1.
fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * i * 7 + 3 * i + 2) % 17) as f64 / 8.5 - 0.97).collect()
}

/// Compares coefficients with those of another tape: within rounding of the
/// largest of the same order, since outputs have terms that cancel.
#[track_caller]
fn assert_series(name: &str, called: &Matrix, flat: &Matrix, tolerance: f64) {
    assert_eq!((called.rows(), called.cols()), (flat.rows(), flat.cols()), "{name}");
    for k in 0..flat.cols() {
        let largest = (0..flat.rows()).fold(0.0_f64, |largest, i| largest.max(flat[(i, k)].abs()));
        for i in 0..flat.rows() {
            let (a, b) = (called[(i, k)], flat[(i, k)]);
            assert!((a - b).abs() <= tolerance * largest, "{name}: c{k} of output {i} is {a}, not {b}");
        }
    }
}

#[track_caller]
fn compare(name: &str, called: &Tape, flat: &Tape, x: &[f64], order: usize) {
    let p = numbers(x.len());
    let series = called.taylor(x, &p, order).unwrap();
    assert_series(name, &series, &flat.taylor(x, &p, order).unwrap(), 1e-11);
    // The higher coefficients are there, so that no zeros were compared.
    assert!((0..series.rows()).any(|i| series[(i, order)] != 0.0), "{name}: {series:?}");
}

/// A tape whose one output is a weighted sum of those of another one.
fn weighted(tape: &Tape, x: &[f64]) -> Tape {
    let w = numbers(tape.num_outputs());
    Tape::record(x, |x| sum_of(tape.eval_with(x).unwrap().iter().zip(&w).map(|(&y, &w)| y * w))).unwrap()
}

#[test]
fn calls_have_the_series_of_the_code_written_out() {
    for Twin { name, called, flat, x } in twins() {
        compare(name, &called, &flat, &x, ORDER);
        let p = numbers(x.len());
        let (series, (y, dy)) = (called.taylor(&x, &p, ORDER).unwrap(), called.jvp(&x, &p).unwrap());
        let column = |k| (0..series.rows()).map(|i| series[(i, k)]).collect::<Vec<f64>>();
        assert_same(&column(0), &y, name);
        assert_equal(&column(1), &dy, name);
    }
}

#[test]
fn derivative_tapes_have_the_series_of_those_of_the_code_written_out() {
    for Twin { name, called, flat, x } in twins() {
        let (n, m) = (called.num_inputs(), called.num_outputs());
        let with = |x: &[f64], more: usize| [x, &numbers(more)].concat();
        let [of_called, of_flat] = [&called, &flat].map(|tape| tape.jvp_tape().unwrap());
        compare(&format!("{name}: jvp"), &of_called, &of_flat, &with(&x, n), 7);
        let [of_called, of_flat] = [&called, &flat].map(|tape| tape.vjp_tape().unwrap());
        let at = with(&x, m);
        compare(&format!("{name}: vjp"), &of_called, &of_flat, &at, 7);
        let series = of_called.taylor(&at, &numbers(n + m), 1).unwrap();
        let (y, dy) = of_called.jvp(&at, &numbers(n + m)).unwrap();
        for i in 0..n {
            assert_eq!(series[(i, 0)], y[i], "{name}");
            assert!((series[(i, 1)] - dy[i]).abs() <= 1e-13 * dy[i].abs().max(1.0), "{name}");
        }
        let [of_called, of_flat] = [&of_called, &of_flat].map(|tape| tape.vjp_tape().unwrap());
        compare(&format!("{name}: vjp of vjp"), &of_called, &of_flat, &with(&at, n), 5);
        let [of_called, of_flat] = [&of_called, &of_flat].map(|tape| tape.vjp_tape().unwrap());
        compare(&format!("{name}: vjp of vjp of vjp"), &of_called, &of_flat, &with(&with(&at, n), n + m), 3);
        let [of_called, of_flat] = [&called, &flat].map(|tape| weighted(tape, &x).gradient_tape().unwrap());
        compare(&format!("{name}: gradient"), &of_called, &of_flat, &x, 7);
        let [of_called, of_flat] = [&of_called, &of_flat].map(|tape| tape.jvp_tape().unwrap());
        compare(&format!("{name}: jvp of gradient"), &of_called, &of_flat, &with(&x, n), 5);
        let [of_called, of_flat] = [&of_called, &of_flat].map(|tape| tape.vjp_tape().unwrap());
        compare(&format!("{name}: vjp of jvp of gradient"), &of_called, &of_flat, &with(&with(&x, n), n), 4);
    }
}

/// Coefficient k by k derivative tapes, one of the other.
fn by_tapes(tape: &Tape, x: &[f64], p: &[f64], order: usize) -> Matrix {
    let mut series = Matrix::zeros(tape.num_outputs(), order + 1);
    let (mut derivative, mut at, mut tangent, mut factorial) = (tape.clone(), x.to_vec(), p.to_vec(), 1.0);
    for k in 0..=order {
        for (i, e) in derivative.eval(&at).unwrap().into_iter().enumerate() {
            series[(i, k)] = e / factorial;
        }
        if k < order {
            derivative = derivative.jvp_tape().unwrap();
            let zeros = vec![0.0; at.len()];
            at.extend_from_slice(&tangent);
            tangent.extend(zeros);
            factorial *= (k + 1) as f64;
        }
    }
    series
}

#[test]
fn a_flow_has_a_taylor_series_in_its_initial_state() {
    // The pendulum x″ = −sin x by the classical method of Runge and Kutta.
    let field = |s: [Var; 2]| [s[1], -s[0].sin()];
    let step = Tape::record(&[0.5, 0.1, 0.1], |v| {
        let (s, h) = ([v[0], v[1]], v[2]);
        let moved = |k: [Var; 2], by: Var| [s[0] + by * k[0], s[1] + by * k[1]];
        let k1 = field(s);
        let k2 = field(moved(k1, h / 2.0));
        let k3 = field(moved(k2, h / 2.0));
        let k4 = field(moved(k3, h));
        [0, 1].map(|i| s[i] + h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
    })
    .unwrap();
    let flow = Tape::record(&[0.5, 0.1, 0.1], |x| step.scan(&x[..2], std::iter::repeat_n(&x[2..], 30)).0).unwrap();
    let (x, p) = ([0.8, -0.2, 0.1], [1.0, 0.5, 0.0]);
    let series = flow.taylor(&x, &p, 14).unwrap();
    assert_series("flow", &flow.taylor(&x, &p, 3).unwrap(), &by_tapes(&flow, &x, &p, 3), 1e-12);
    // The polynomial is the flow nearby.
    let t = 0.05;
    let moved = flow.eval(&[x[0] + t * p[0], x[1] + t * p[1], x[2]]).unwrap();
    for (i, y) in moved.iter().enumerate() {
        let polynomial = series.row(i).iter().rev().fold(0.0, |sum, c| sum * t + c);
        assert!((polynomial - y).abs() < 1e-13, "{polynomial} is not {y}");
    }
}

#[test]
fn the_adjoints_of_a_long_recurrence_are_found_from_checkpoints() {
    // A line of delays, with more than a million coefficients in what it carries.
    const DELAYS: usize = 64;
    const STEPS: usize = 2500;
    let start: Vec<f64> = (0..=DELAYS).map(|i| 0.4 + 0.003 * i as f64).collect();
    let step = Tape::record(&start, |v| {
        let grown = v[0] + 0.004 * v[DELAYS - 1] * (v[DELAYS] - v[0]);
        [&[grown], &v[..DELAYS - 1]].concat()
    })
    .unwrap();
    let tape = Tape::record(&start, |x| {
        let (line, limit) = x.split_at(DELAYS);
        let line = step.scan(line, std::iter::repeat_n(limit, STEPS)).0;
        sum_of(line.iter().map(|y| y * y))
    })
    .unwrap();
    let gradient = tape.gradient_tape().unwrap();
    let (p, order) = (numbers(DELAYS + 1), 7);
    assert!(DELAYS * STEPS * (order + 1) > 1 << 20);
    // d/dt f(x + t·p) = ∇f(x + t·p)·p.
    let (f, g) = (tape.taylor(&start, &p, order).unwrap(), gradient.taylor(&start, &p, order).unwrap());
    for k in 0..order {
        let terms = (0..=DELAYS).map(|i| g[(i, k)] * p[i]);
        let (c, e) = (terms.sum::<f64>(), (k + 1) as f64 * f[(0, k + 1)]);
        assert!((c - e).abs() <= 1e-11 * e.abs() && e != 0.0, "{k}: {c} is not {e}");
    }
}

// Operations of users.

/// eˣ, whose derivative calls it.
struct Exponential;

impl CustomOp for Exponential {
    fn name(&self) -> &str {
        "exponential"
    }
    fn num_operands(&self) -> usize {
        1
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y[0] = Rule::exp(x[0]);
    }
    fn partials(&self, _x: &[f64], y: &[f64], partials: &mut [f64]) {
        partials[0] = y[0];
    }
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        Tape::record(&[0.0], |x| Custom::new(Exponential).call(x)).map(Some)
    }
}

/// sin(x + q·π/2): the sine, and the cosine, which have each other in their derivatives.
struct Wave(u32);

impl CustomOp for Wave {
    fn name(&self) -> &str {
        ["sine", "cosine"][self.0 as usize]
    }
    fn num_operands(&self) -> usize {
        1
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y[0] = if self.0 == 0 { Rule::sin(x[0]) } else { Rule::cos(x[0]) };
    }
    fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
        partials[0] = if self.0 == 0 { Rule::cos(x[0]) } else { -Rule::sin(x[0]) };
    }
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        let other = Custom::new(Wave(1 - self.0));
        let sign = if self.0 == 0 { 1.0 } else { -1.0 };
        Tape::record(&[0.0], |x| other.call(x)[0] * sign).map(Some)
    }
}

/// (a·sin b, a/b), with or without a derivative.
struct Polar {
    stated: bool,
}

fn polar(a: Var, b: Var) -> [Var; 2] {
    [a * b.sin(), a / b]
}

impl CustomOp for Polar {
    fn name(&self) -> &str {
        "polar"
    }
    fn num_operands(&self) -> usize {
        2
    }
    fn num_results(&self) -> usize {
        2
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        (y[0], y[1]) = (x[0] * Rule::sin(x[1]), x[0] / x[1]);
    }
    fn partials(&self, x: &[f64], y: &[f64], partials: &mut [f64]) {
        partials.copy_from_slice(&[Rule::sin(x[1]), x[0] * Rule::cos(x[1]), 1.0 / x[1], -(y[1] / x[1])]);
    }
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        let partials = |x: &[Var]| [x[1].sin(), x[0] * x[1].cos(), 1.0 / x[1], -(x[0] / x[1] / x[1])];
        if self.stated { Tape::record(&[1.0, 1.0], partials).map(Some) } else { Ok(None) }
    }
}

impl CustomProducts for Polar {
    fn name(&self) -> &str {
        "polar"
    }
    fn num_operands(&self) -> usize {
        2
    }
    fn num_results(&self) -> usize {
        2
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        CustomOp::value(self, x, y);
    }
    fn jvp(&self, x: &[f64], y: &[f64], p: &[f64], jp: &mut [f64]) {
        let mut j = [0.0; 4];
        self.partials(x, y, &mut j);
        (jp[0], jp[1]) = (j[0] * p[0] + j[1] * p[1], j[2] * p[0] + j[3] * p[1]);
    }
    fn vjp(&self, x: &[f64], y: &[f64], w: &[f64], xbar: &mut [f64]) {
        let mut j = [0.0; 4];
        self.partials(x, y, &mut j);
        (xbar[0], xbar[1]) = (j[0] * w[0] + j[2] * w[1], j[1] * w[0] + j[3] * w[1]);
    }
    fn vjp_tape(&self) -> Result<Option<Tape>, Error> {
        let adjoints = |v: &[Var]| {
            let [a, b, w0, w1] = [v[0], v[1], v[2], v[3]];
            [b.sin() * w0 + w1 / b, a * b.cos() * w0 - a / b / b * w1]
        };
        if self.stated { Tape::record(&[1.0; 4], adjoints).map(Some) } else { Ok(None) }
    }
}

#[test]
fn operations_whose_derivatives_call_operations_have_closed_forms() {
    const ORDER: usize = 15;
    let factorial = |k: usize| (1..=k).map(|j| j as f64).product::<f64>();
    let (x, p) = (0.7, 1.5);
    let tape = Tape::record(&[x], |x| {
        [Custom::new(Exponential).call(x)[0], Custom::new(Wave(0)).call(x)[0], Custom::new(Wave(1)).call(x)[0]]
    })
    .unwrap();
    let series = tape.taylor(&[x], &[p], ORDER).unwrap();
    for k in 0..=ORDER {
        let scale = p.powi(k as i32) / factorial(k);
        let turned = x + k as f64 * PI / 2.0;
        for (i, e) in [x.exp(), turned.sin(), turned.cos()].into_iter().enumerate() {
            let (c, e) = (series[(i, k)], e * scale);
            assert!((c - e).abs() <= 1e-14 * scale.max(e.abs()), "c{k} of output {i} is {c}, not {e}");
        }
    }
    // Of a series that is no line, and within a body.
    let body = Tape::record(&[x], |x| Custom::new(Exponential).call(&[Custom::new(Wave(0)).call(x)[0]])).unwrap();
    let twin = Twin::new("exp sin", &[x], |x| [body.call(&[x[0] * x[0]])[0]], |x| [(x[0] * x[0]).sin().exp()]);
    compare(twin.name, &twin.called, &twin.flat, &twin.x, ORDER);
    let [of_called, of_flat] = [&twin.called, &twin.flat].map(|tape| tape.gradient_tape().unwrap());
    compare("its gradient", &of_called, &of_flat, &twin.x, 10);
    let [of_called, of_flat] = [&of_called, &of_flat].map(|tape| tape.gradient_tape().unwrap());
    compare("its second derivative", &of_called, &of_flat, &twin.x, 8);
}

#[test]
fn operations_of_several_operands_and_results() {
    for op in [Custom::new(Polar { stated: true }), Custom::from_products(Polar { stated: true })] {
        let called = |x: &[Var]| op.call(&[x[0] * x[1], x[1].exp()]);
        let twin = Twin::new("polar", &[0.6, 0.4], called, |x| polar(x[0] * x[1], x[1].exp()));
        compare("polar", &twin.called, &twin.flat, &twin.x, ORDER);
        let p = numbers(2);
        let (series, (y, dy)) = (twin.called.taylor(&twin.x, &p, 4).unwrap(), twin.called.jvp(&twin.x, &p).unwrap());
        for j in 0..2 {
            assert_eq!([series[(j, 0)], series[(j, 1)]], [y[j], dy[j]]);
        }
        let at = [&twin.x[..], &[0.3, -0.8]].concat();
        let [of_called, of_flat] = [&twin.called, &twin.flat].map(|tape| tape.vjp_tape().unwrap());
        compare("vjp", &of_called, &of_flat, &at, 8);
        let at = [&at[..], &[0.5, 0.9]].concat();
        let [of_called, of_flat] = [&of_called, &of_flat].map(|tape| tape.vjp_tape().unwrap());
        compare("vjp of vjp", &of_called, &of_flat, &at, 6);
    }
}

#[test]
fn first_derivatives_alone_serve_to_order_1() {
    for op in [Custom::new(Polar { stated: false }), Custom::from_products(Polar { stated: false })] {
        let tape = Tape::record(&[1.0, 2.0], |x| op.call(&[x[0], x[0] * x[1]])).unwrap();
        let (x, p) = ([0.6, 0.4], [1.0, -0.5]);
        let (series, (y, dy)) = (tape.taylor(&x, &p, 1).unwrap(), tape.jvp(&x, &p).unwrap());
        assert_eq!(series.as_slice(), [y[0], dy[0], y[1], dy[1]]);
        assert_eq!(tape.taylor(&x, &p, 0).unwrap().as_slice(), y);
        for tape in [&tape, &Tape::record(&[1.0, 2.0], |x| tape.call(x)).unwrap()] {
            let error = tape.taylor(&x, &p, 2).unwrap_err();
            assert!(matches!(&error, Error::NoSecondDerivative { function, .. } if function == "polar"), "{error}");
        }
        let gradient = tape.vjp_tape().unwrap();
        let at = [0.6, 0.4, 1.0, 1.0];
        assert_eq!(gradient.taylor(&at, &[1.0; 4], 0).unwrap().as_slice(), gradient.eval(&at).unwrap());
        let error = gradient.taylor(&at, &[1.0; 4], 1).unwrap_err();
        assert!(matches!(error, Error::NoSecondDerivative { .. }), "{error}");
    }
}

#[test]
fn outside_the_domain_nothing_has_a_slope() {
    let log = Custom::unary("log", Rule::ln, |x, _| 1.0 / x);
    let log = log.with_derivative(&Tape::record(&[1.0], |x| 1.0 / x[0]).unwrap()).unwrap();
    let tape = Tape::record(&[1.0, 2.0], |x| log.call(&[x[0] * x[1]])).unwrap();
    let flat = Tape::record(&[1.0, 2.0], |x| (x[0] * x[1]).ln()).unwrap();
    for p in [[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]] {
        let [called, flat] = [&tape, &flat].map(|tape| tape.taylor(&[-1.0, 2.0], &p, 3).unwrap());
        assert_equal(called.as_slice(), flat.as_slice(), format!("{p:?}"));
    }
}

#[test]
fn a_derivative_that_calls_itself_ends_with_the_stack_or_the_order() {
    let tape = Tape::record(&[0.0], |x| Custom::new(Exponential).call(x)).unwrap();
    let series = tape.taylor(&[0.0], &[1.0], 64).unwrap();
    let mut e = 1.0;
    for (k, &c) in series.row(0).iter().enumerate() {
        e /= k.max(1) as f64;
        assert!((c - e).abs() <= 1e-14 * e, "c{k} is {c}, not {e}");
    }
    let error = tape.taylor(&[0.0], &[1.0], 1000).unwrap_err();
    assert!(matches!(error, Error::TooHighOrder { order: 1000, .. }), "{error}");
}

// Solutions of equations.

/// √x as the solution of y² = x.
fn root() -> Implicit {
    let g = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0]).unwrap();
    Implicit::new(&g, |x: &[f64]| Ok::<_, String>(vec![x[0].sqrt()])).unwrap().named("root")
}

/// The solution of E − e·sin E = M.
fn anomaly() -> Implicit {
    let g = Tape::record(&[1.0, 0.1, 1.0], |v| v[2] - v[1] * v[2].sin() - v[0]).unwrap();
    Implicit::new(&g, |x: &[f64]| {
        let mut y = x[0];
        for _ in 0..50 {
            y -= (y - x[1] * y.sin() - x[0]) / (1.0 - x[1] * y.cos());
        }
        Ok::<_, String>(vec![y])
    })
    .unwrap()
    .named("anomaly")
}

#[test]
fn solutions_have_the_series_of_closed_forms() {
    let root = root();
    let twin = Twin::new(
        "√",
        &[0.6, 0.9],
        |x| [root.call(&[x[0] * x[1] + 1.0])[0] * x[1]],
        |x| [(x[0] * x[1] + 1.0).sqrt() * x[1]],
    );
    compare("√", &twin.called, &twin.flat, &twin.x, 15);
    let p = [0.4, -0.8];
    let (series, (y, dy)) = (twin.called.taylor(&twin.x, &p, 15).unwrap(), twin.called.jvp(&twin.x, &p).unwrap());
    assert_eq!([series[(0, 0)], series[(0, 1)]], [y[0], dy[0]]);
    let derivatives = [&twin.called, &twin.flat].map(|tape| tape.gradient_tape().unwrap());
    compare("gradient of √", &derivatives[0], &derivatives[1], &twin.x, 10);
    let derivatives = derivatives.map(|tape| tape.vjp_tape().unwrap());
    let at = [&twin.x[..], &[0.5, 0.9]].concat();
    compare("vjp of the gradient of √", &derivatives[0], &derivatives[1], &at, 6);
    let derivatives = [&twin.called, &twin.flat].map(|tape| tape.jvp_tape().unwrap().jvp_tape().unwrap());
    let at = [&twin.x[..], &numbers(6)].concat();
    compare("jvp of jvp of √", &derivatives[0], &derivatives[1], &at, 6);
}

#[test]
fn two_unknowns_in_a_body() {
    // u + v = a and u·v = b, so u and v are the roots of z² − a·z + b.
    let g = Tape::record(&[3.0, 2.0, 2.0, 1.0], |v| [v[2] + v[3] - v[0], v[2] * v[3] - v[1]]).unwrap();
    let roots = Implicit::new(&g, |x: &[f64]| {
        let d = (x[0] * x[0] / 4.0 - x[1]).sqrt();
        Ok::<_, String>(vec![x[0] / 2.0 + d, x[0] / 2.0 - d])
    })
    .unwrap();
    let body = Tape::record(&[3.0, 2.0], |x| roots.call(&[x[0] + x[1], x[1]])).unwrap();
    let twin = Twin::new(
        "roots",
        &[3.0, 1.5],
        |x| body.call(x),
        |x| {
            let (half, b) = ((x[0] + x[1]) / 2.0, x[1]);
            let d = (half * half - b).sqrt();
            [half + d, half - d]
        },
    );
    compare("roots", &twin.called, &twin.flat, &twin.x, ORDER);
    let at = [&twin.x[..], &[0.7, -0.4]].concat();
    let derivatives = [&twin.called, &twin.flat].map(|tape| tape.vjp_tape().unwrap());
    compare("vjp of roots", &derivatives[0], &derivatives[1], &at, 8);
    let derivatives = derivatives.map(|tape| tape.vjp_tape().unwrap());
    let at = [&at[..], &[0.3, 0.6]].concat();
    compare("vjp of vjp of roots", &derivatives[0], &derivatives[1], &at, 5);
}

#[test]
fn the_equations_hold_along_the_series() {
    let anomaly = anomaly();
    let kepler = Tape::record(&[1.0, 0.1], |x| {
        let e = anomaly.call(x)[0];
        [e, e - x[1] * e.sin() - x[0]]
    })
    .unwrap();
    let (x, p) = ([1.2, 0.3], [1.0, 0.2]);
    let series = kepler.taylor(&x, &p, 15).unwrap();
    assert!(series.row(1).iter().all(|c| c.abs() < 1e-14), "{series:?}");
    assert_series("Kepler", &kepler.taylor(&x, &p, 3).unwrap(), &by_tapes(&kepler, &x, &p, 3), 1e-13);

    // W·e^W = x.
    let g = Tape::record(&[1.0, 0.5], |v| v[1] * v[1].exp() - v[0]).unwrap();
    let lambert = Implicit::new(&g, |x: &[f64]| {
        let mut w = 0.5;
        for _ in 0..60 {
            w -= (w * f64::exp(w) - x[0]) / (f64::exp(w) * (1.0 + w));
        }
        Ok::<_, String>(vec![w])
    })
    .unwrap();
    let tape = Tape::record(&[1.0], |x| {
        let w = lambert.call(x)[0];
        [w * w.exp(), w]
    })
    .unwrap();
    let series = tape.taylor(&[0.8], &[0.5], 15).unwrap();
    let line = [0.8, 0.5].into_iter().chain(std::iter::repeat(0.0));
    for (k, (c, e)) in series.row(0).iter().zip(line).enumerate() {
        assert!((c - e).abs() < 1e-14, "c{k} is {c}, not {e}");
    }
    assert!(series.row(1).iter().all(|&c| c != 0.0));
}

// Edges, errors, and what a workspace keeps.

#[test]
fn guards_of_bodies_are_checked() {
    let body = Tape::record(&[2.0], |x| if x[0] > 1.0 { x[0].ln() } else { -x[0] }).unwrap();
    let tape = Tape::record(&[2.0, 3.0], |x| body.map_sum(x.chunks(1))).unwrap();
    assert!(tape.taylor(&[1.5, 4.0], &[1.0, 1.0], 4).is_ok());
    for tape in [&tape, &tape.gradient_tape().unwrap()] {
        let error = tape.taylor(&[1.5, 0.5], &[1.0, 1.0], 4).unwrap_err();
        assert!(matches!(error, Error::BranchChanged { lhs: 0.5, .. }), "{error}");
    }
}

#[test]
fn edges_of_functions_follow_the_strict_rule() {
    let body = Tape::record(&[1.0, 1.0], |x| [x[0].sqrt() * x[1], x[1]]).unwrap();
    let tape = Tape::record(&[1.0, 1.0], |x| body.call(&[x[0] * x[0], x[1]])).unwrap();
    let (x, p) = ([0.0, 2.0], [1.0, 1.0]);
    let (series, dy) = (tape.taylor(&x, &p, 1).unwrap(), tape.jvp(&x, &p).unwrap().1);
    assert_equal(&[series[(0, 1)], series[(1, 1)]], &dy, "an infinite slope times 0");
    // Where a solver is given no number, it has no slope.
    let root = root();
    let tape = Tape::record(&[4.0], |x| root.call(x)).unwrap();
    let series = tape.taylor(&[f64::INFINITY], &[1.0], 2).unwrap();
    assert_equal(series.as_slice(), &[f64::NAN; 3], "√∞");
    let error = tape.taylor(&[0.0], &[1.0], 2).unwrap_err();
    assert!(matches!(error, Error::SingularImplicit { .. }), "{error}");
}

#[test]
fn parameters_of_bodies_are_those_they_have_now() {
    let body = Tape::builder().inputs(&[], &[1.0]).params(&[], &[2.0]);
    let body = body.record(|x, k| (x[0] * k[0]).sin() * k[0].exp()).unwrap().with_params(&[0.5]).unwrap();
    let twin = Twin::new("params", &[0.4], |x| [body.call(x)[0]], |x| [(x[0] * 0.5).sin() * Rule::exp(0.5)]);
    compare("params", &twin.called, &twin.flat, &twin.x, ORDER);
    let derivatives = [&twin.called, &twin.flat].map(|tape| tape.gradient_tape().unwrap());
    compare("gradient", &derivatives[0], &derivatives[1], &twin.x, 8);
}

#[test]
fn functions_may_be_nested_as_deep_as_they_can_be_recorded() {
    let mut body = Tape::record(&[0.5], |x| x[0].sin()).unwrap();
    let mut depth = 0;
    while let Ok(outer) = Tape::record(&[0.5], |x| body.call(x)[0] + 0.5 * x[0]) {
        (body, depth) = (outer, depth + 1);
    }
    assert!(depth >= 64, "{depth}");
    let flat = Tape::record(&[0.5], |x| (0..depth).fold(x[0].sin(), |y, _| y + 0.5 * x[0])).unwrap();
    compare("nested", &body, &flat, &[0.5], 4);
    let derivatives = [&body, &flat].map(|tape| tape.gradient_tape().unwrap());
    compare("gradient of nested", &derivatives[0], &derivatives[1], &[0.5], 3);
    let derivatives = derivatives.map(|tape| tape.gradient_tape().unwrap());
    compare("second derivative of nested", &derivatives[0], &derivatives[1], &[0.5], 3);
}

#[test]
fn an_order_that_memory_does_not_hold_is_an_error() {
    let body = Tape::record(&[1.0], |x| x[0].sin()).unwrap();
    let tape = Tape::record(&[1.0], |x| body.call(x)).unwrap();
    for order in [usize::MAX, usize::MAX / 8, 1 << 58] {
        let error = tape.taylor(&[2.0], &[1.0], order).unwrap_err();
        assert!(matches!(error, Error::TooHighOrder { order: of_error, .. } if of_error == order), "{error}");
    }
}

#[test]
fn what_a_workspace_was_used_for_before_does_not_matter() {
    let (mut ws, mut series) = (Workspace::new(), Matrix::default());
    let tapes: Vec<(Tape, Vec<f64>)> = twins()
        .into_iter()
        .flat_map(|twin| {
            let gradient = weighted(&twin.called, &twin.x).gradient_tape().unwrap();
            [(twin.called, twin.x.clone()), (gradient, twin.x)]
        })
        .collect();
    for order in [4, 1, 0, 7, 2] {
        for (tape, x) in &tapes {
            let p = numbers(x.len());
            tape.taylor_into(&mut ws, x, &p, order, &mut series).unwrap();
            let fresh = tape.taylor(x, &p, order).unwrap();
            assert_same(series.as_slice(), fresh.as_slice(), format!("order {order}"));
            let longer = tape.taylor(x, &p, order + 2).unwrap();
            for i in 0..tape.num_outputs() {
                assert_same(fresh.row(i), &longer.row(i)[..=order], format!("order {order} of {}", order + 2));
            }
        }
    }
}
