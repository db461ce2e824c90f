//! Optimised tapes: which rows they save, and what stays. (`laws.rs` holds random
//! programs to the same values and tangents.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Error, Op, Tape, Var};
use common::optimized::{check_optimized, optimized};
use common::programs::{Random, call, operands_of};
use common::{all_same, assert_same, takes_constant};

const PROGRAMS: usize = if cfg!(debug_assertions) { 150 } else { 1000 };

/// Every operation with a constant in each place: whether there is an identity
/// for it or not, the values keep their bits and the tangents are equal.
#[test]
fn identities_are_exact_at_every_probe_point() {
    #[rustfmt::skip]
    const CONSTANTS: [f64; 18] = [
        0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, 1024.0, 1e300, 5e-324, 2.2250738585072014e-308,
        8.98846567431158e307, 1.7976931348623157e308, -0.25, f64::INFINITY, f64::NEG_INFINITY, f64::NAN,
    ];
    const MORE: [f64; 6] = [5e-324, -3e-310, 2.2250738585072014e-308, 1e-160, 1e300, -f64::MAX];
    let mut fired = Vec::new();
    let mut compare = |tape: &Tape, name: String, probes: &[f64]| {
        let shorter = optimized(tape);
        if shorter.to_string() != tape.to_string() {
            fired.push(name);
        }
        for &x in probes.iter().chain(&MORE) {
            for seed in [1.0, -0.7, 5e-324, 1e-310, 1e300, 0.0] {
                check_optimized(tape, &shorter, &[x], &[seed], &vec![seed; tape.num_outputs()]);
            }
        }
    };
    for &op in Op::ALL {
        let probes = op.info().probes;
        let name = op.info().name;
        if takes_constant(op) {
            for c in [0.0, 1.0, 2.0, -1.0, 3.0] {
                compare(&Tape::record(&[0.75], |x| call(op, x, c)).unwrap(), format!("{name} x {c}"), probes[0]);
            }
        } else if operands_of(op) == 2 {
            for at in 0..2 {
                for c in CONSTANTS {
                    let operands = |x: Var| if at == 0 { [Var::from(c), x] } else { [x, Var::from(c)] };
                    let tape = Tape::record(&[0.75], |x| call(op, &operands(x[0]), 0.0)).unwrap();
                    let name = if at == 0 { format!("{name} {c} x") } else { format!("{name} x {c}") };
                    compare(&tape, name, probes[1 - at]);
                }
            }
        }
    }
    // Every operation of what a sign was changed of.
    for &op in Op::ALL.iter().filter(|&&op| !takes_constant(op)) {
        let name = op.info().name;
        let tape =
            |operands: &dyn Fn(Var) -> Vec<Var>| Tape::record(&[0.75], |x| call(op, &operands(x[0]), 0.0)).unwrap();
        let probes = Op::Neg.info().probes[0];
        match operands_of(op) {
            1 => compare(&tape(&|x| vec![-x]), format!("{name} (-x)"), probes),
            2 => {
                compare(&tape(&|x| vec![-x, x.sin()]), format!("{name} (-a) b"), probes);
                compare(&tape(&|x| vec![x.sin(), -x]), format!("{name} a (-b)"), probes);
            }
            _ => {}
        }
    }
    let y = 0.75;
    let tape = Tape::record(&[0.5], |x| -x[0] - (y - x[0])).unwrap();
    compare(&tape, "no identity".to_owned(), Op::Neg.info().probes[0]);
    #[rustfmt::skip]
    let expected = [
        "add -0 x", "add x -0",
        "sub -0 x", "sub x 0",
        "mul 1 x", "mul -1 x", "mul x 1", "mul x -1",
        "div x 1", "div x -1", "div x 2", "div x -2", "div x 0.5", "div x 1024",
        "powi x 0", "powi x 1", "powf x 0", "powf x 1", "chain_mul -1 x", "chain_mul x 1", "div x -0.25",
        "chain_div x 2",
        "neg (-x)", "add a (-b)", "add (-a) b", "sub a (-b)",
    ];
    let fired: Vec<&str> = fired.iter().map(String::as_str).collect();
    for name in &expected {
        assert!(fired.contains(name), "{name} has no identity: {fired:?}");
    }
    for name in ["add x 0", "sub 0 x", "sub x -0", "mul x 0", "div x 3", "powi x 2", "chain_mul 0 x", "no identity"] {
        assert!(!fired.contains(&name), "{name} is not exact");
    }
    let signs: Vec<&str> = fired.iter().copied().filter(|name| name.contains("(-")).collect();
    assert_eq!(signs, ["add (-a) b", "add a (-b)", "sub a (-b)", "neg (-x)"], "operations that heed a changed sign");
}

#[test]
fn what_is_not_exact_stays() {
    let tape = Tape::record(&[1.0, 2.0], |x| {
        let (a, b) = (x[0], x[1]);
        [a + 0.0, a * 0.0, a - a, a / a, (a + b) - b, a * 2.0 * 3.0, a / 3.0, a.powi(2), a + b + a, a + (b + a)]
    })
    .unwrap();
    let shorter = optimized(&tape);
    // a + b and b + a are one row, and so are the sums of that and a.
    assert_eq!(shorter.len(), tape.len() - 3, "{shorter}");
}

#[test]
fn what_is_the_same_is_computed_once() {
    let tape = Tape::record(&[1.0, 2.0], |x| {
        let (a, b) = (x[0], x[1]);
        let (s, c) = (a * b).sin_cos();
        let (s2, c2) = (b * a).sin_cos();
        let sums = Var::sum_of(&[a, b, s]) - Var::sum_of(&[a, b, s2]) + Var::sum_of(&[b, a, s]);
        (s * c2, s2 * c, a - b, b - a, sums, a + 2.0, 2.0 + a)
    })
    .unwrap();
    let shorter = optimized(&tape);
    assert_eq!(
        shorter.to_string(),
        "\
v₋₁ = x₁
v₀ = x₂
v₁ = v₋₁·v₀
v₂ = sin(v₁)
v₃ = cos(v₁)
v₄ = sum(v₋₁, v₀, v₂)
v₅ = v₄ − v₄
v₆ = sum(v₀, v₋₁, v₂)
v₇ = v₅ + v₆
v₈ = v₂·v₃
v₉ = v₋₁ − v₀
v₁₀ = v₀ − v₋₁
v₁₁ = v₋₁ + 2
y₁ = v₈
y₂ = v₈
y₃ = v₉
y₄ = v₁₀
y₅ = v₇
y₆ = v₁₁
y₇ = v₁₁
"
    );
    let report = tape.optimized().report;
    assert_eq!((report.folded, report.simplified, report.dead), (0, 0, 0));
    assert_eq!(report.shared, report.before - report.after);
}

#[test]
fn constants_that_identities_leave_are_folded() {
    let tape = Tape::record(&[3.0], |x| {
        let one = x[0].powi(0);
        (one * 2.0).exp() * x[0] + (one + 1.0).sin_cos().1 * 1.0
    })
    .unwrap();
    let report = tape.optimized().report;
    assert_eq!(report.to_string(), "10 rows, 3 left: 6 folded, 1 simplified, 0 shared, 0 dead");
    let shorter = optimized(&tape);
    assert_eq!(shorter.to_string(), "v₀ = x₁\nv₁ = 7.38906·v₀\nv₂ = v₁ + (-0.416147)\ny = v₂\n");
    check_optimized(&tape, &shorter, &[-2.5], &[1.0], &[1.0]);
    // A function that turns out to be constant.
    let tape = Tape::record(&[3.0], |x| x[0].powi(0) * 2.0).unwrap();
    let shorter = optimized(&tape);
    assert_eq!(shorter.to_string(), "v₀ = x₁\ny = 2\n");
    assert_eq!(shorter.gradient(&[7.0]).unwrap(), (2.0, vec![0.0]));
}

#[test]
fn guards_escapes_names_parameters_and_locations_stay() {
    let first = line!() + 5;
    let tape = Tape::builder()
        .inputs(&["speed"], &[2.0])
        .params(&["k"], &[1.5])
        .record(|x, k| {
            let a = (x[0] * 1.0).sin() + k[0].exp();
            let dead = a.ln() * x[0];
            let asked = (x[0] * x[0]).cosh();
            let read = (x[0] * x[0]).sqrt().value();
            if asked > k[0] { a * read } else { dead }
        })
        .unwrap();
    let shorter = optimized(&tape);
    assert_eq!(
        shorter.to_string(),
        "\
v₀ = speed
k = parameter
v₁ = sin(v₀)
v₂ = exp(k)
v₃ = v₁ + v₂
v₄ = v₀·v₀
v₅ = cosh(v₄)
v₆ = sqrt(v₄)
v₇ = v₃·2
y = v₇
"
    );
    assert_eq!(shorter.guards()[0].to_string(), "v₅ > k was true");
    assert!(shorter.escapes()[0].to_string().starts_with("v₆ = 2 was read at "));
    let trace = shorter.primal_trace(&[2.0]).unwrap();
    let lines: Vec<u32> = trace.rows().iter().filter_map(|row| Some(row.location.as_ref()?.line() - first)).collect();
    assert_eq!(lines, [0, 0, 0, 2, 2, 3, 4]);
    let Err(Error::BranchChanged { lhs, location, .. }) = shorter.with_params(&[1e9]).unwrap().eval(&[1.0]) else {
        panic!("the branch changes")
    };
    assert_eq!((lhs, location.line() - first), (ad_core::Rule::cosh(1.0), 4));
}

#[test]
fn adjoints_may_differ_in_the_last_bits_and_no_more() {
    for index in 0..PROGRAMS {
        let random = &mut Random::new(23, index);
        let n = 1 + random.below(3);
        let x = random.numbers(n, &[], 0);
        let steps: Vec<[usize; 3]> = (0..12).map(|_| [0; 3].map(|_| random.below(1 << 20))).collect();
        let tape = Tape::record(&x, |x| {
            let mut values = x.to_vec();
            for &[op, a, b] in &steps {
                let (a, b) = (values[a % values.len().min(4)], values[b % values.len().min(4)]);
                values.push(match op % 5 {
                    0 => a * b,
                    1 => a.sin() - b,
                    2 => a.tanh() * 1.0 + b,
                    3 => a / (b * b + 1.0),
                    _ => -(-a) - 0.0 + b,
                });
            }
            Var::sum_of(&values)
        })
        .unwrap();
        let (before, after) = (tape.gradient(&x).unwrap(), optimized(&tape).gradient(&x).unwrap());
        assert_same(&[before.0], &[after.0], "the value");
        let size = before.1.iter().fold(1.0, |size: f64, g| size.max(g.abs()));
        for (before, after) in before.1.iter().zip(&after.1) {
            assert!((before - after).abs() <= 1e-12 * size, "{before} {after}\n{tape}");
        }
    }
}

#[test]
fn long_tapes_take_time_proportional_to_their_length() {
    let tape = Tape::record(&[0.5, 1.0], |x| {
        (0..150_000).fold(x[0], |y, _| (y * 0.999 + x[1]).sin() + (y * 0.999 + x[1]).sin() * 1.0)
    })
    .unwrap();
    let optimized = tape.optimized();
    assert_eq!(optimized.len(), 2 + 4 * 150_000);
    assert_eq!(optimized.report.shared, 3 * 150_000);
    let x = [0.25, 0.75];
    assert!(all_same(&optimized.eval(&x).unwrap(), &tape.eval(&x).unwrap()));
}
