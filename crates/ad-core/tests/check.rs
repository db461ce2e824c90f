//! The tools for doubt: constants, diagnoses, self-checks, differences, hashes.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Error, NonFinite, NotChecked, Op, Part, Real, Rule, Tape, Var, Verdict};
use common::{operation_list, product, takes_constant, unit};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

fn line_of(needle: &str) -> u32 {
    let position = include_str!("check.rs").lines().position(|line| line.contains(needle) && !line.contains("line_of"));
    position.unwrap() as u32 + 1
}

// Constants.

#[test]
fn constants_come_in_the_order_of_their_first_use_with_their_places() {
    let tape = Tape::record(&[2.0], |x| {
        let a = x[0] * 0.5; // first half
        let b = if a < 7.25 { a + 0.5 } else { a }; // second half
        vec![b.powi(3) + 0.5, Var::from(-0.0), Var::from(0.0), x[0] * 3.0 * 3.0]
    })
    .unwrap();
    let constants = tape.constants();
    let summary: Vec<(f64, usize)> = constants.iter().map(|constant| (constant.value, constant.uses)).collect();
    assert_eq!(summary, [(0.5, 3), (7.25, 1), (3.0, 3), (-0.0, 1), (0.0, 1)]);
    assert!(constants[3].value.is_sign_negative() && constants[4].value.is_sign_positive());
    let lines: Vec<u32> = constants[0].locations.iter().map(|location| location.line()).collect();
    let half = [line_of("// first half"), line_of("// second half")];
    assert_eq!(lines, [half[0], half[1], half[1] + 1]);
    assert_eq!(constants[1].locations[0].line(), half[1], "the place of a guard");
    assert_eq!(constants[2].locations.len(), 1, "one line is one place");
    assert!(constants[0].to_string().starts_with("0.5, used 3 times: "));
    assert!(constants[0].to_string().ends_with(&format!("check.rs:{}", half[1] + 1)));
    assert_eq!(constants[4].to_string(), "0, used once: as an output");
}

#[test]
fn steps_of_a_few_ulps_are_no_alarm() {
    let tape = Tape::record(&[0.5], |x| [x[0].floor(), x[0].ceil(), x[0].round(), x[0].trunc(), x[0] % 1.0]).unwrap();
    for power in 40..60 {
        let binade = 2.0_f64.powi(power);
        for part in [1.0, 1.25, 1.5868, 1.75, 1.999] {
            for beside in [0.0, 0.25, 0.5, 0.75] {
                for x in [(part * binade).trunc() + beside, -(part * binade).trunc() - beside] {
                    let check = tape.self_check(&[x]).unwrap();
                    assert!(check.passed(), "{check}");
                }
            }
        }
    }
}

#[test]
fn poles_between_the_steps_are_no_alarm() {
    let tape = Tape::record(&[0.5], |x| x[0].lgamma()).unwrap();
    let check = tape.self_check(&[-204573790605.4501]).unwrap();
    assert!(check.passed(), "{check}");
}

#[test]
fn every_nan_is_one_constant() {
    let tape = Tape::record(&[1.0], |x| [x[0] * f64::NAN + x[0] * -f64::NAN, x[0] + f64::NAN]).unwrap();
    let constants = tape.constants();
    assert_eq!(constants.len(), 1, "{constants:?}");
    assert!(constants[0].value.is_nan() && constants[0].uses == 3 && constants[0].locations.len() == 1);
}

#[test]
fn what_escaped_is_among_the_constants() {
    let tape = Tape::record(&[3.0], |x| x[0] * (x[0].value() + 1.0)).unwrap();
    assert_eq!((tape.constants()[0].value, tape.escapes()[0].value()), (4.0, 3.0));
    assert!(Tape::record(&[3.0], |x| x[0] * x[0]).unwrap().constants().is_empty());
}

// Diagnosis.

#[test]
fn a_value_outside_the_domain_is_named_with_line_operands_and_way() {
    let tape = Tape::builder()
        .inputs(&["mass", "speed"], &[5.0, 1.0])
        .params(&["limit"], &[3.0])
        .record(|x, k| {
            let rest = x[0] - k[0];
            let log = rest.ln(); // outside
            log * x[1] + x[1].exp()
        })
        .unwrap();
    assert_eq!(tape.diagnose(&[5.0, 1.0], &[1.0, 1.0]).unwrap(), None);
    let found = tape.diagnose(&[2.0, 1.0], &[0.0, 1.0]).unwrap().unwrap();
    assert_eq!(found.what, NonFinite::Value);
    assert_eq!((found.origin.name.as_str(), found.origin.operation.as_str()), ("v₂", "ln(v₁)"));
    assert_eq!(found.origin.location.as_ref().unwrap().line(), line_of("// outside"));
    assert_eq!(found.operands[0].value, -1.0);
    let names: Vec<&str> = found.path.iter().map(|value| value.name.as_str()).collect();
    assert_eq!(names, ["v₋₁", "v₁", "v₂"]);
    assert_eq!((found.path[0].operation.as_str(), found.path_omitted), ("mass", 0));
    assert_eq!(found.reaches, ["y"]);
    let text = found.to_string();
    assert!(text.starts_with("v₂ = ln(v₁) is NaN at "), "{text}");
    assert!(text.contains("ln is defined for x > 0"), "{text}");
    assert!(text.contains("with v₁ = v₋₁ − limit = -1"), "{text}");
    assert!(text.ends_with("non-finite outputs: y\n"), "{text}");
    // The parameter decides, too.
    assert!(tape.with_params(&[1.0]).unwrap().diagnose(&[2.0, 1.0], &[0.0, 1.0]).unwrap().is_none());
}

#[test]
fn a_tangent_alone() {
    let tape = Tape::record(&[4.0], |x| x[0].sqrt() + 1.0).unwrap();
    let found = tape.diagnose(&[0.0], &[1.0]).unwrap().unwrap();
    assert_eq!((found.what, found.origin.operation.as_str()), (NonFinite::Tangent, "sqrt(v₀)"));
    assert_eq!((found.origin.value, found.origin.derivative), (0.0, Some(INF)));
    assert_eq!(found.operands[0].derivative, Some(1.0));
    assert_eq!(found.why, "∂v₁/∂v₀ is inf here; chosen for sqrt: inf at 0");
    assert!(found.to_string().starts_with("the tangent of v₁ = sqrt(v₀) is inf at "));
    // Along a zero seed J·p is 0, and so there is nothing to report.
    assert_eq!(tape.diagnose(&[0.0], &[0.0]).unwrap(), None);
    // A product of finite numbers may overflow.
    let tape = Tape::record(&[1.0], |x| x[0] * 1e200).unwrap();
    let found = tape.diagnose(&[1.0], &[1e200]).unwrap().unwrap();
    assert!(found.why.contains("overflows"), "{found}");
}

#[test]
fn poles_overflows_and_meaningless_values_are_told_apart() {
    let why = |f: fn(&[Var]) -> Var, x: &[f64]| {
        let found = Tape::record(&vec![0.5; x.len()], f).unwrap().diagnose(x, &vec![1.0; x.len()]).unwrap().unwrap();
        (found.what, found.why)
    };
    let value = |text: &str| (NonFinite::Value, text.to_owned());
    let overflow = value("the result is too large for a number of 64 bits: it overflows");
    assert_eq!(why(|x| x[0].exp(), &[1000.0]), overflow);
    assert_eq!(why(|x| x[0] / x[1], &[1e300, 1e-300]), overflow);
    assert_eq!(why(|x| x[0].powi(4), &[1e100]), overflow);
    assert_eq!(why(|x| x[0] / x[1], &[1.0, 0.0]), value("div is defined for y ≠ 0; ±inf at y = 0, x ≠ 0"));
    assert_eq!(why(|x| x[0].powi(-3), &[0.0]), value("powi is defined for all x; x ≠ 0 if n < 0"));
    assert_eq!(why(|x| x[0].atanh(), &[1.0]), value("atanh is defined for −1 < x < 1; ±inf at ±1"));
    assert_eq!(why(|x| x[0].ln(), &[0.0]), value("ln is defined for x > 0; −inf at 0"));
    assert_eq!(why(|x| x[0] + x[1], &[1.0, NAN]), value("the input has this value"));
    assert_eq!(why(|x| x[0] + INF, &[1.0]), value("this literal stands in the code"));
    assert_eq!(why(|x| x[0] * INF, &[0.0]), value("this literal stands in the code"));
}

#[test]
fn a_parameter_or_a_literal_can_be_the_origin() {
    let tape = Tape::builder().inputs(&[], &[1.0]).params(&["k"], &[1.0]).record(|x, k| x[0] * k[0].exp()).unwrap();
    let found = tape.with_params(&[NAN]).unwrap().diagnose(&[1.0], &[1.0]).unwrap().unwrap();
    assert_eq!((found.origin.name.as_str(), found.why.as_str()), ("k", "the parameter has this value"));
    let found = tape.with_params(&[1000.0]).unwrap().diagnose(&[1.0], &[1.0]).unwrap().unwrap();
    assert_eq!(found.origin.operation, "exp(k)");
    let tape = Tape::record(&[1.0], |x| x[0] + INF).unwrap(); // endless
    let found = tape.diagnose(&[1.0], &[1.0]).unwrap().unwrap();
    assert_eq!(found.origin.location.as_ref().unwrap().line(), line_of("// endless"));
    assert!(found.to_string().starts_with("the constant inf at "), "{found}");
    assert_eq!(found.origin.part, Part::Constant);
    // An input of that name is no constant.
    let tape = Tape::builder().inputs(&["constant"], &[1.0]).record(|x, _| x[0] * 2.0).unwrap();
    let found = tape.diagnose(&[NAN], &[1.0]).unwrap().unwrap();
    assert!(found.to_string().starts_with("v₀ = constant is NaN\n"), "{found}");
    // Of many operands the first are shown.
    let tape = Tape::record(&[1e308; 20], |x| Rule::sum_of(x)).unwrap();
    let found = tape.diagnose(&[1e308; 20], &[0.0; 20]).unwrap().unwrap();
    assert_eq!((found.operands.len(), found.operands_omitted), (8, 12));
    assert!(found.why.contains("overflows") && found.to_string().contains("… 12 operands more"), "{found}");
}

#[test]
fn what_the_strict_rule_removes_is_no_finding() {
    type Case = (fn(&[Var]) -> Var, f64);
    let silent: [Case; 6] = [
        (|x| x[0].select_gt(0.0, x[0].sqrt(), 0.0), 0.0),
        (|x| x[0].select_gt(0.0, x[0].ln(), x[0]), -1.0),
        (|x| x[0].exp().recip(), 1000.0),
        (|x| x[0].powi(2).sqrt(), 0.0),
        (|x| (x[0] * 0.0).sqrt() + x[0], 2.0),
        (|x| x[0] / INF, 2.0),
    ];
    for (f, x) in silent {
        let tape = Tape::record(&[0.5], f).unwrap();
        assert_eq!(tape.diagnose(&[x], &[1.0]).unwrap(), None, "{tape}");
        assert_eq!(tape.diagnose_adjoint(&[x], &[1.0]).unwrap(), None, "{tape}");
    }
    // The same row is a finding where an output does depend on it.
    let tape = Tape::record(&[0.5], |x| [x[0].select_gt(0.0, x[0].ln(), x[0]), x[0].ln() + 1.0]).unwrap();
    let found = tape.diagnose(&[-1.0], &[1.0]).unwrap().unwrap();
    assert_eq!((found.origin.operation.as_str(), found.reaches), ("ln(v₀)", vec!["y₂".to_owned()]));
    // Of two branches the one taken is to blame.
    let tape = Tape::record(&[0.5], |x| x[0].ln().select_gt(-INF, x[0], (x[0] - 1.0).sqrt())).unwrap();
    assert_eq!(tape.diagnose(&[-1.0], &[1.0]).unwrap().unwrap().origin.operation, "sqrt(v₂)");
}

#[test]
fn long_ways_are_cut_and_errors_are_those_of_jvp() {
    let tape = Tape::record(&[1.0], |x| {
        let mut y = x[0];
        for _ in 0..1000 {
            y += 1.0;
        }
        if x[0] > 0.5 { (y - 2000.0).sqrt() } else { y }
    })
    .unwrap();
    let found = tape.diagnose(&[1.0], &[1.0]).unwrap().unwrap();
    assert_eq!((found.path.len(), found.path_omitted), (12, 991));
    assert_eq!((found.path[0].name.as_str(), found.path[11].name.as_str()), ("v₀", "v₁₀₀₂"));
    assert!(found.to_string().contains("  … 991 rows more\n"), "{found}");
    assert!(matches!(tape.diagnose(&[0.0], &[1.0]), Err(Error::BranchChanged { .. })));
    assert!(matches!(tape.diagnose(&[1.0], &[]), Err(Error::Length { .. })));
    assert!(matches!(tape.diagnose(&[1.0], &[NAN]), Err(Error::NonFiniteSeed { .. })));
    assert!(matches!(tape.diagnose_adjoint(&[1.0], &[1.0, 1.0]), Err(Error::Length { .. })));
    assert!(matches!(tape.diagnose_adjoint(&[0.0], &[1.0]), Err(Error::BranchChanged { .. })));
}

#[test]
fn an_adjoint_alone() {
    // y is finite, and along p = 1 so is every tangent; the adjoint overflows on the way.
    let tape = Tape::record(&[1e-200], |x| (x[0] * 1e-200) * 1e200 * 1e200).unwrap();
    assert_eq!(tape.diagnose(&[1e-200], &[1e-200]).unwrap(), None);
    let found = tape.diagnose_adjoint(&[1e-200], &[1.0]).unwrap().unwrap();
    assert_eq!((found.what, found.origin.name.as_str()), (NonFinite::Adjoint, "v₂"));
    assert!(found.why.contains("overflows"), "{found}");
    let names: Vec<&str> = found.path.iter().map(|value| value.name.as_str()).collect();
    assert_eq!(names, ["v₂", "v₁", "v₀"]);
    assert_eq!(found.reaches, ["x₁"]);
    // A value is told first.
    let tape = Tape::record(&[1.0], |x| x[0].ln().sqrt()).unwrap();
    assert_eq!(tape.diagnose_adjoint(&[-1.0], &[1.0]).unwrap().unwrap().what, NonFinite::Value);
    // Only what leads to an input with a non-finite adjoint counts.
    let tape = Tape::record(&[1.0, 1.0], |x| [x[0].sqrt(), x[1].cbrt()]).unwrap();
    let found = tape.diagnose_adjoint(&[0.0, 0.0], &[1.0, 0.0]).unwrap().unwrap();
    assert_eq!((found.origin.operation.as_str(), &found.reaches[..]), ("sqrt(v₋₁)", &["x₁".to_owned()][..]));
    assert!(found.to_string().contains("passes on a non-finite adjoint at "), "{found}");
}

/// Each operation at each of its probes: `diagnose` speaks exactly if `jvp` or
/// `vjp` returns something non-finite, and `self_check` raises no alarm.
struct AtProbes;

impl AtProbes {
    fn visit(&self, op: Op, f: impl Fn(&[Var], f64) -> Vec<Var>, failures: &mut Vec<String>) {
        let probes = op.info().probes;
        let lists: Vec<&[f64]> = probes.iter().map(|list| &list[..]).collect();
        // Many operands have many points: some of them will do.
        let points = product(&lists);
        for point in points.iter().step_by(1 + points.len() / 100) {
            let constant = takes_constant(op);
            let (x, c) = if constant { point.split_at(point.len() - 1) } else { (&point[..], &[][..]) };
            let c = c.first().copied().unwrap_or(0.0);
            // One more row on either side, so that there is a way there and beyond.
            let tape = Tape::record(x, |x| {
                let x: Vec<Var> = x.iter().map(|&x| x * 1.0).collect();
                f(&x, c).into_iter().map(|y| y + 1.0).collect::<Vec<Var>>()
            })
            .unwrap();
            for i in 0..x.len() {
                let (y, dy) = tape.jvp(x, &unit(x.len(), i)).unwrap();
                let found = tape.diagnose(x, &unit(x.len(), i)).unwrap();
                if found.is_some() == y.iter().chain(&dy).all(|number| number.is_finite()) {
                    failures.push(format!("{op} at {x:?}, {c}, direction {i}: {y:?}, {dy:?}, but {found:?}"));
                }
            }
            for j in 0..tape.num_outputs() {
                let w = unit(tape.num_outputs(), j);
                let (y, xbar) = tape.vjp(x, &w).unwrap();
                let found = tape.diagnose_adjoint(x, &w).unwrap();
                if found.is_some() == y.iter().chain(&xbar).all(|number| number.is_finite()) {
                    failures.push(format!("{op} at {x:?}, {c}, output {j}: {y:?}, {xbar:?}, but {found:?}"));
                }
            }
            let check = tape.self_check(x).unwrap();
            if !check.passed() {
                failures.push(format!("{op} at {x:?}, {c}:\n{check}"));
            }
        }
    }
}

macro_rules! visit_operations {
    (
        operations { $($Op:ident($x:ident, $c:ident) => $call:expr;)* }
        folds { $($Fold:ident($y:ident, $d:ident) => [$fold:expr];)* }
    ) => {
        fn visit_all(failures: &mut Vec<String>) {
            $(AtProbes.visit(Op::$Op, |$x, $c| { let _ = $c; Vec::from($call) }, failures);)*
            $(AtProbes.visit(Op::$Fold, |$y, $d| { let _ = $d; vec![$fold] }, failures);)*
        }
    };
}
operation_list!(visit_operations);

#[test]
fn every_operation_at_its_probes() {
    let mut failures = Vec::new();
    visit_all(&mut failures);
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures\n{shown}", failures.len());
}

// Self-check.

fn example<T: Real>(x: &[T]) -> T {
    x[0].cos() + x[0] * x[1] - x[1].exp()
}

#[test]
fn several_outputs_parameters_and_guards_pass() {
    let tape = Tape::builder()
        .inputs(&[], &[2.0, 4.0])
        .params(&[], &[3.0])
        .record(|x, k| {
            let steep = if x[0] > 1.0 { x[0].powf(2.5) } else { x[0] };
            [example(x), steep * k[0], Rule::sum_of(&[x[0], x[1], k[0]]) / x[1]]
        })
        .unwrap();
    let check = tape.self_check(&[2.0, 4.0]).unwrap();
    assert!(check.passed(), "{check}");
    assert_eq!((check.comparisons.len(), check.partials_not_checked), (6, 0));
    assert!(check.comparisons.iter().all(|c| c.difference == Verdict::Agrees), "{check}");
    let other = tape.with_params(&[-7.0]).unwrap().self_check(&[1.5, 0.3]).unwrap();
    assert!(other.comparisons.iter().all(|c| c.difference == Verdict::Agrees), "{other}");
    assert!(matches!(tape.self_check(&[0.5, 1.0]), Err(Error::BranchChanged { .. })));
    assert!(matches!(tape.self_check(&[0.5]), Err(Error::Length { .. })));
}

#[test]
fn many_inputs_are_checked_in_mixtures() {
    let x: Vec<f64> = (0..40).map(|i| (i as f64 - 20.5) * 0.1).collect();
    let tape = Tape::record(&x, |x| x.iter().map(|&x| x.sin() * x.exp()).sum::<Var>()).unwrap();
    let check = tape.self_check(&x).unwrap();
    assert_eq!((check.directions.len(), check.partials_agreed), (16, 40 + 40 + 80 + 40));
    assert!(check.comparisons.iter().all(|c| c.difference == Verdict::Agrees), "{check}");
}

#[test]
fn kinks_jumps_and_edges_are_not_checked_and_no_alarm() {
    let verdict = |f: fn(&[Var]) -> Var, x: f64| {
        let check = Tape::record(&[x], f).unwrap().self_check(&[x]).unwrap();
        assert!(check.passed(), "{check}");
        check.comparisons[0].difference.clone()
    };
    let not = Verdict::NotChecked;
    assert_eq!(verdict(|x| x[0].abs(), 0.0), not(NotChecked::Kink));
    assert_eq!(verdict(|x| x[0].relu() + x[0].sin(), 0.0), not(NotChecked::Kink));
    assert_eq!(verdict(|x| x[0].max(1.0), 1.0), not(NotChecked::Kink));
    assert_eq!(verdict(|x| x[0].floor(), 3.0), not(NotChecked::Kink));
    assert_eq!(verdict(|x| x[0].select_ge(2.0, x[0] * 3.0, x[0]), 2.0), not(NotChecked::Kink));
    assert_eq!(verdict(|x| x[0].relu() - (-x[0]).relu(), 0.0), not(NotChecked::Kink));
    assert_eq!(verdict(|x| x[0].clamp(2.0, 2.0), 2.0), not(NotChecked::Kink));
    assert_eq!(verdict(|x| x[0].powf(1.5), 0.0), not(NotChecked::Edge));
    assert_eq!(verdict(|x| x[0].sqrt(), 0.0), not(NotChecked::NotFinite));
    assert!(matches!(
        verdict(|x| if x[0] >= 1.0 { x[0] } else { -x[0] }, 1.0),
        Verdict::NotChecked(NotChecked::BranchChanges(_))
    ));
    // Beside them it is checked.
    assert_eq!(verdict(|x| x[0].abs(), 1e-12), Verdict::Agrees);
    assert_eq!(verdict(|x| x[0].max(1.0), 1.001), Verdict::Agrees);
    assert_eq!(verdict(|x| x[0].floor() + x[0], 3.001), Verdict::Agrees);
    assert_eq!(verdict(|x| if x[0] >= 1.0 { x[0] } else { -x[0] }, 1.0001), Verdict::Agrees);
    // Numbers of any size, derivatives that vanish, constants.
    assert_eq!(verdict(|x| x[0].sin(), std::f64::consts::FRAC_PI_2), Verdict::Agrees);
    assert_eq!(verdict(|x| x[0].ln(), 1e-250), Verdict::Agrees);
    assert_eq!(verdict(|x| x[0].sqrt(), 1e250), Verdict::Agrees);
    assert_eq!(verdict(|x| x[0] + 1.0, 1e-20), Verdict::Agrees);
    assert_eq!(verdict(|_| Var::from(3.0), 1.0), Verdict::Agrees);
    assert_eq!(verdict(|x| x[0] * 0.0 + 5.0, 1.0), Verdict::Agrees);
}

#[test]
fn reports_count_and_give_reasons() {
    let tape = Tape::record(&[0.0, 1.0], |x| x[0].abs() + x[1]).unwrap();
    let check = tape.self_check(&[0.0, 1.0]).unwrap();
    assert_eq!((check.partials_agreed, check.partials_not_checked), (2, 1));
    assert_eq!(check.not_checked[0].operation, "|v₋₁|");
    let text = check.to_string();
    assert!(text.starts_with("self-check passed\n"), "{text}");
    assert!(text.contains("1 derivative not checked: kink"), "{text}");
}

// Differences.

fn diff_text(old: impl FnOnce(&[Var]) -> Vec<Var>, new: impl FnOnce(&[Var]) -> Vec<Var>) -> String {
    let [old, new] = [Tape::record(&[2.0, 3.0], old).unwrap(), Tape::record(&[2.0, 3.0], new).unwrap()];
    let diff = old.diff(&new);
    assert_eq!(diff.is_empty(), old.content_hash() == new.content_hash(), "{diff}");
    assert_eq!(new.diff(&old).is_empty(), diff.is_empty());
    let flipped = |part: Part| new.diff(&old).differences().iter().filter(|d| d.part == part).count();
    let count = |part: Part| diff.differences().iter().filter(|d| d.part == part).count();
    assert_eq!(count(Part::Output), flipped(Part::Output), "{diff}");
    diff.to_string()
}

#[test]
fn an_inserted_row_does_not_touch_the_renumbered_ones() {
    let text = diff_text(
        |x| {
            let a = x[0].sin() * x[1];
            vec![(a + x[1]).exp().sqrt().ln()]
        },
        |x| {
            let a = x[0].sin() * x[1].cos();
            vec![(a + x[1]).exp().sqrt().ln()]
        },
    );
    assert_eq!(
        text,
        "\
--- 2 inputs, 0 parameters, 6 rows, 0 guards, 1 output
+++ 2 inputs, 0 parameters, 7 rows, 0 guards, 1 output
@@ rows @@
  v₁ = sin(v₋₁)
- v₂ = v₁·v₀
+ v₂ = cos(v₀)
+ v₃ = v₁·v₂
  v₄ = v₃ + v₀
  v₅ = exp(v₄)
  …
"
    );
}

#[test]
fn constants_guards_outputs_and_hidden_digits() {
    let text = diff_text(|x| vec![x[0] * 1.0000001], |x| vec![x[0] * 1.0000002, x[1]]);
    assert!(text.contains("- 1.0000001\n+ 1.0000002\n"), "{text}");
    assert!(text.contains("- v₁ = v₋₁·1.0000001000"), "{text}");
    assert!(text.contains("@@ outputs @@\n  y₁ = v₁\n+ y₂ = v₀\n"), "{text}");
    let text = diff_text(
        |x| if x[0] > 1.0 { vec![x[0]] } else { vec![x[1]] },
        |x| if x[0] > 1.5 { vec![x[0]] } else { vec![x[1]] },
    );
    assert!(text.contains("@@ guards @@\n- v₋₁ > 1 was true\n+ v₋₁ > 1.5 was true\n"), "{text}");
    assert!(!text.contains("@@ rows @@") && !text.contains("@@ outputs @@"), "{text}");
    assert_eq!(diff_text(|x| vec![x[0] * x[1]], |x| vec![x[0] * x[1]]), "no differences\n");
    // Which of two equal rows an output is does count.
    let text = diff_text(
        |x| vec![x[0].sin(), x[0].sin()],
        |x| {
            let a = x[0].sin();
            let _ = x[0].sin();
            vec![a, a]
        },
    );
    assert!(text.contains("@@ outputs @@"), "{text}");
}

#[test]
fn named_inputs_are_matched_by_name() {
    let named = |names: &[&str], params: &[&str], f: fn(&[Var], &[Var]) -> Var| {
        let builder = Tape::builder().inputs(names, &vec![1.0; names.len()]).params(params, &vec![2.0; params.len()]);
        builder.record(f).unwrap()
    };
    let old = named(&["mass", "speed"], &["k"], |x, k| x[0] * x[1] * k[0]);
    let new = named(&["mass", "angle", "speed"], &["k", "c"], |x, k| x[0] * x[2] * k[0] + x[1]);
    let diff = old.diff(&new);
    let parts: Vec<Part> = diff.differences().iter().map(|difference| difference.part).collect();
    assert_eq!(parts, [Part::Input, Part::Parameter, Part::Row, Part::Output], "{diff}");
    assert_eq!(diff.differences()[0].new.as_deref(), Some("v₋₁ = angle"));
    assert_eq!(diff.differences()[2].old, None);
    assert_eq!(diff.differences()[2].new.as_deref(), Some("v₃ = v₂ + v₋₁"));
    assert_eq!(diff.differences()[2].new_location.as_ref().unwrap().line(), line_of("x[0] * x[2] * k[0] + x[1]"));
    // Another name for the same input is one difference, and names are part of the hash.
    let renamed = named(&["mass", "velocity"], &["k"], |x, k| x[0] * x[1] * k[0]);
    let diff = old.diff(&renamed);
    assert_eq!(diff.differences().len(), 1, "{diff}");
    assert_ne!(old.content_hash(), renamed.content_hash());
    assert_eq!(old.content_hash(), old.with_params(&[9.0]).unwrap().content_hash());
}

#[test]
fn long_tapes_are_compared_in_little_time() {
    let chain = |f: fn(Var) -> Var| {
        let step = |y: Var, i: usize| if i % 1000 == 500 { f(y) } else { y * 1.0001 + 0.5 };
        Tape::record(&[1.0], |x| (0..100_000).fold(x[0], step)).unwrap()
    };
    let (a, b) = (chain(|y| y.sin()), chain(|y| y.cos()));
    let diff = a.diff(&b);
    assert_eq!(diff.differences().len(), 100);
    assert!(diff.differences().iter().all(|difference| difference.part == Part::Row && difference.new.is_some()));
    // Too many changes for the shortest script.
    let diff = a.diff(&Tape::record(&[1.0], |x| (0..100_000).fold(x[0], |y, _| y.cos())).unwrap());
    assert!(!diff.is_empty());
}

// Hashes.

#[test]
fn the_hash_is_the_same_everywhere() {
    let tape = Tape::builder()
        .inputs(&["x", "y"], &[2.0, 4.0])
        .params(&["k"], &[3.0])
        .record(|x, k| {
            let (s, c) = x[0].sin_cos();
            let product = Rule::dot(&[s, x[1]], &[c, k[0]]);
            if product > 1.0 { [product.powi(3), x[1] + f64::NAN] } else { [x[0], x[1]] }
        })
        .unwrap();
    assert_eq!(format!("{:032x}", tape.content_hash()), "aa119b2e9ca91d01935284ab9bbe10e1");
}

#[test]
fn the_hash_sees_what_matters_and_nothing_else() {
    let hash = |f: fn(&[Var]) -> Var| Tape::record(&[2.0, 4.0], f).unwrap().content_hash();
    let base = hash(|x| x[0] * x[1]);
    let others: [fn(&[Var]) -> Var; 7] = [
        |x| x[1] * x[0],
        |x| x[0] + x[1],
        |x| x[0] * 4.0,
        |x| x[0] * x[0],
        |x| if x[0] < 5.0 { x[0] * x[1] } else { x[0] },
        |x| if x[0] <= 5.0 { x[0] * x[1] } else { x[0] },
        |x| if x[0] > 5.0 { x[0] } else { x[0] * x[1] },
    ];
    let mut hashes: Vec<u128> =
        others.into_iter().map(hash).chain([base, hash(|x| x[0] * 0.0), hash(|x| x[0] * -0.0)]).collect();
    let count = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
    // Escapes compute nothing.
    assert_eq!(
        hash(|x| {
            let _ = x[0].value();
            x[0] * x[1]
        }),
        base
    );
    // Constants are named by their bits, not by their number.
    let flag = Tape::record(&[2.0, 4.0], |x| x[0] * 2.0 + 3.0).unwrap();
    assert_eq!(flag.content_hash(), Tape::record(&[0.0, 0.0], |x| x[0] * 2.0 + 3.0).unwrap().content_hash());
}

/// What the tools find in functions that rows call.
mod calls {
    use ad_core::{Custom, CustomOp, Error, Implicit};

    use super::*;

    /// x·y, with a partial by y that may be wrong.
    struct Product {
        slope: f64,
    }

    impl CustomOp for Product {
        fn name(&self) -> &str {
            "product"
        }
        fn num_operands(&self) -> usize {
            2
        }
        fn value(&self, x: &[f64], y: &mut [f64]) {
            y[0] = x[0] * x[1];
        }
        fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
            partials.copy_from_slice(&[x[1], self.slope * x[0]]);
        }
        fn derivative(&self) -> Result<Option<Tape>, Error> {
            Tape::record(&[1.0, 1.0], |x| [x[1], x[0]]).map(Some)
        }
    }

    fn term() -> Tape {
        Tape::record(&[1.0, 1.0], |x| 100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).ln()).unwrap().named("term")
    }

    fn step() -> Tape {
        Tape::record(&[0.5, 3.0], |x| [x[1] * x[0] * (1.0 - x[0]), x[0].sqrt()]).unwrap().named("step")
    }

    #[test]
    fn constants_of_bodies_are_listed_once_with_their_places() {
        let line = line!() + 1;
        let inner = Tape::record(&[1.0], |x| x[0] * 2.5 + 7.0).unwrap();
        let scaled = Tape::builder()
            .inputs(&[], &[1.0])
            .params(&["k"], &[0.125])
            .record(|x, k| inner.call(x)[0] * k[0])
            .unwrap();
        let tape = Tape::record(&[1.0, 2.0, 3.0], |x| {
            let mapped = scaled.map(x.chunks(1));
            mapped[0] * 2.5 + scaled.call(&mapped[1..2])[0]
        })
        .unwrap();
        let constants = tape.constants();
        let found: Vec<(f64, usize)> = constants.iter().map(|c| (c.value, c.uses)).collect();
        assert_eq!(found, [(2.5, 2), (0.125, 1), (7.0, 1)]);
        assert_eq!(constants[0].locations[1].line(), line);
        assert_eq!(constants[2].locations[0].line(), line);
    }

    #[test]
    fn equal_functions_have_equal_hashes_and_others_have_not() {
        let x = [0.1, 0.2, 0.3, 0.4];
        let of = |f: &dyn Fn(&[Var]) -> Vec<Var>| Tape::record(&x, |x| f(x)).unwrap();
        let map = || of(&|x| term().map(x.windows(2)));
        assert_eq!(map().content_hash(), map().content_hash());
        assert_eq!(map().content_hash(), of(&|x| term().named("other").map(x.windows(2))).content_hash());
        let other = Tape::record(&[1.0, 1.0], |x| 10.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).ln()).unwrap();
        let nested = |body: Tape| Tape::record(&[0.1, 0.2], move |x| body.call(x)).unwrap();
        let custom = |name: &'static str| {
            struct Named(&'static str);
            impl CustomOp for Named {
                fn name(&self) -> &str {
                    self.0
                }
                fn num_operands(&self) -> usize {
                    2
                }
                fn value(&self, x: &[f64], y: &mut [f64]) {
                    y[0] = x[0];
                }
                fn partials(&self, _x: &[f64], _y: &[f64], partials: &mut [f64]) {
                    partials.copy_from_slice(&[1.0, 0.0]);
                }
            }
            Custom::new(Named(name))
        };
        assert_eq!(
            of(&|x| custom("a").call(&x[..2])).content_hash(),
            of(&|x| custom("a").call(&x[..2])).content_hash()
        );
        let scale = |k: f64| {
            Tape::builder().inputs(&[], &[1.0, 1.0]).params(&[], &[k]).record(|x, k| x[0] * x[1] * k[0]).unwrap()
        };
        let tapes = [
            map(),
            of(&|x| term().map_sum(x.windows(2))),
            of(&|x| term().map(x.chunks(2))),
            of(&|x| term().map([[x[0], x[1]], [x[2], x[1]], [x[3], x[0]]])),
            of(&|x| other.map(x.windows(2))),
            of(&|x| nested(term()).map(x.windows(2))),
            of(&|x| nested(other.clone()).map(x.windows(2))),
            of(&|x| step().scan(&x[..1], x[1..].chunks(1)).0),
            of(&|x| custom("a").call(&x[..2])),
            of(&|x| custom("b").call(&x[..2])),
            of(&|x| scale(2.0).call(&x[..2])),
            of(&|x| scale(3.0).call(&x[..2])),
            map().vjp_tape().unwrap(),
            map().jvp_tape().unwrap(),
            map().vjp_tape().unwrap().jvp_tape().unwrap(),
        ];
        for (i, a) in tapes.iter().enumerate() {
            for (j, b) in tapes.iter().enumerate() {
                assert_eq!(a.content_hash() == b.content_hash(), i == j, "{i} and {j}");
                assert_eq!(a.diff(b).is_empty(), i == j, "{i} and {j}:\n{}", a.diff(b));
            }
        }
    }

    #[test]
    fn a_diff_goes_into_the_bodies() {
        let of = |power: i32| {
            let body = Tape::record(&[1.0, 1.0], |x| (x[0] - x[1]).powi(power)).unwrap().named("distance");
            Tape::record(&[0.1, 0.2, 0.3], |x| body.map_sum(x.windows(2))).unwrap()
        };
        let diff = of(2).diff(&of(4));
        assert_eq!(diff.differences().len(), 1);
        assert_eq!(
            diff.to_string(),
            "\
--- 3 inputs, 0 parameters, 1 row, 0 guards, 1 output
+++ 3 inputs, 0 parameters, 1 row, 0 guards, 1 output
@@ rows @@
- v₁ = Σ distance(v₋₂, v₋₁, v₀)
+ v₁ = Σ distance(v₋₂, v₋₁, v₀) (it now calls another function)
@@ distance, called by v₁ @@
  --- 2 inputs, 0 parameters, 2 rows, 0 guards, 1 output
  +++ 2 inputs, 0 parameters, 2 rows, 0 guards, 1 output
  @@ constants @@
  - 2
  + 4
  @@ rows @@
    v₁ = v₋₁ − v₀
  - v₂ = v₁^2
  + v₂ = v₁^4
"
        );
    }

    #[test]
    fn a_diagnosis_names_the_call_and_goes_inside() {
        let tape = Tape::record(&[0.5; 5], |x| term().map_sum(x.windows(2))[0] * 2.0).unwrap();
        let x = [0.5, 0.6, 0.7, 3.0, 0.2];
        let found = tape.diagnose(&x, &[0.0; 5]).unwrap().unwrap();
        assert_eq!((found.what, found.origin.name.as_str()), (NonFinite::Value, "v₁"));
        let inside = found.inside.as_ref().unwrap();
        assert_eq!((inside.function.as_str(), inside.iteration, inside.iterations), ("Σ term", 3, 4));
        assert_eq!(inside.diagnosis.origin.operation, "ln(v₅)");
        assert!(found.to_string().contains("inside of Σ term, iteration 4 of 4:\n  v₆ = ln(v₅) is NaN at "), "{found}");
        assert!(tape.diagnose(&[0.5; 5], &[1.0; 5]).unwrap().is_none());

        // Along a recurrence, and an operand that is itself to blame.
        let scan = Tape::record(&[0.5, 0.5, 0.5, 0.5], |x| step().scan(&x[..1], x[1..].chunks(1)).1).unwrap();
        let found = scan.diagnose(&[0.5, -2.0, 2.0, 2.0], &[0.0; 4]).unwrap().unwrap();
        let inside = found.inside.as_ref().unwrap();
        assert_eq!((inside.iteration, inside.diagnosis.origin.operation.as_str()), (1, "sqrt(v₋₁)"), "{found}");
        let found = scan.diagnose(&[0.5, 2.0, f64::NAN, 2.0], &[0.0; 4]).unwrap().unwrap();
        assert_eq!((found.origin.part, found.origin.name.as_str(), found.inside), (Part::Input, "v₋₁", None));

        // A branch that is not taken inside is no finding.
        let safe = Tape::record(&[1.0], |x| x[0].select_gt(0.0, x[0].ln(), 0.0)).unwrap();
        let tape = Tape::record(&[1.0, 2.0], |x| safe.map(x.chunks(1))[0] + x[1].ln()).unwrap();
        let found = tape.diagnose(&[-1.0, -1.0], &[0.0; 2]).unwrap().unwrap();
        assert_eq!(found.origin.operation, "ln(v₀)", "{found}");

        // Adjoints.
        let root = Tape::record(&[1.0, 1.0], |x| x[0] * x[1].sqrt()).unwrap().named("root");
        let tape = Tape::record(&[1.0; 4], |x| root.map_sum(x.windows(2))[0].exp()).unwrap();
        let found = tape.diagnose_adjoint(&[1.0, 4.0, 0.0, 1.0], &[1.0]).unwrap().unwrap();
        assert_eq!((found.what, found.origin.name.as_str()), (NonFinite::Adjoint, "v₁"), "{found}");
        let inside = found.inside.as_ref().unwrap();
        assert_eq!((inside.iteration, inside.diagnosis.origin.operation.as_str()), (1, "sqrt(v₀)"), "{found}");
        assert_eq!(found.reaches, ["x₃"]);
        let late = Tape::record(&[1.0; 3], |x| root.map(x.windows(2))[1].sqrt()).unwrap();
        let found = late.diagnose_adjoint(&[1.0, 0.0, 1.0], &[1.0]).unwrap().unwrap();
        assert_eq!(found.origin.operation, "sqrt(v₂)", "{found}");

        // A custom operation has no inside.
        let product = Custom::new(Product { slope: f64::INFINITY });
        let tape = Tape::record(&[1.0, 2.0], |x| product.call(x)).unwrap();
        let found = tape.diagnose_adjoint(&[1.0, 2.0], &[1.0]).unwrap().unwrap();
        assert_eq!((found.origin.operation.as_str(), &found.inside), ("product(v₋₁, v₀)", &None));
        assert!(found.why.contains("the partials of product are not finite"), "{found}");
        let found = tape.diagnose(&[1e200, 1e200], &[0.0; 2]).unwrap().unwrap();
        assert_eq!(found.why, "product has no finite value at these operands");
    }

    #[test]
    fn a_diagnosis_of_a_wide_call_takes_time_proportional_to_it() {
        let mut x = vec![0.5; 50_001];
        let tape = Tape::record(&x, |x| term().map(x.windows(2))).unwrap();
        x[40_000] = 2.0;
        let found = tape.diagnose(&x, &vec![0.0; 50_001]).unwrap().unwrap();
        assert_eq!((found.origin.name.as_str(), found.operands.len()), ("v₄₀₀₀₁", 2));
        assert_eq!(found.inside.unwrap().iteration, 40_000);
        let diff = tape.diff(&tape);
        assert!(diff.is_empty());
    }

    #[test]
    fn self_checks_pass_where_all_is_right_and_name_a_wrong_rule() {
        let square = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0]).unwrap();
        let root = Implicit::new(&square, |x: &[f64]| Ok::<_, String>(vec![x[0].sqrt()])).unwrap();
        let f = |slope: f64| {
            let (term, step, root) = (term(), step(), root.clone());
            Tape::record(&[0.3, 0.4, 0.5, 0.6], move |x| {
                let wide: Vec<Var> = (0..20).map(|i| x[i % 4] * (0.1 * i as f64 + 0.5)).collect();
                let sums = term.map_sum(wide.iter().take(4).map(|&w| [w, x[0]]));
                let maps = step.map(wide.chunks(2));
                let (state, outs) = step.scan(&x[..1], wide[..10].chunks(1));
                let product = Custom::new(Product { slope }).call(&[x[1], state[0]]);
                let solved = root.call(&[maps[3] + 1.0]);
                [sums[0] + product[0], outs[9] * solved[0], maps[18]]
            })
            .unwrap()
        };
        let x = [0.35, 0.45, 0.3, 0.2];
        for (name, tape) in
            [("values", f(1.0)), ("jvp tape", f(1.0).jvp_tape().unwrap()), ("vjp tape", f(1.0).vjp_tape().unwrap())]
        {
            let x: Vec<f64> = x.iter().copied().chain([0.7, -0.4, 0.9, 0.2]).take(tape.num_inputs()).collect();
            let check = tape.self_check(&x).unwrap();
            assert!(check.passed(), "{name}: {check}");
            assert!(check.comparisons.iter().all(|c| c.difference == Verdict::Agrees), "{name}: {check}");
            assert_eq!(check.partials_not_checked, 0, "{name}: {check}");
        }
        let check = f(1.01).self_check(&x).unwrap();
        assert!(!check.passed());
        let row = check.first_disagreement.as_ref().unwrap();
        assert!(row.operation.starts_with("product("), "{check}");
        assert!((row.partial - 1.01 * x[1]).abs() < 1e-12 && (row.quotient.unwrap() - x[1]).abs() < 1e-9, "{row}");
        // Also inside of a tape that is called.
        let wrong = Tape::record(&[1.0, 1.0], |x| Custom::new(Product { slope: 0.9 }).call(x)).unwrap().named("outer");
        let tape = Tape::record(&[1.0, 2.0, 3.0], |x| wrong.map_sum(x.windows(2))).unwrap();
        let check = tape.self_check(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(check.first_disagreement.unwrap().operation, "Σ outer(v₋₂, v₋₁, v₀)");
        // Kinks inside are no alarm.
        let kinks = Tape::record(&[1.0], |x| x[0].abs()).unwrap();
        let check = Tape::record(&[1.0, 2.0], |x| kinks.map_sum(x.chunks(1))).unwrap().self_check(&[0.0, 1.0]).unwrap();
        assert!(check.passed(), "{check}");
    }
}
