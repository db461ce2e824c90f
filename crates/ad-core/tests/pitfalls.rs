//! The classical pitfalls of automatic differentiation: for each what comes out,
//! and which tool says so.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use ad_core::{Diagnosis, Error, NonFinite, NotChecked, Part, Real, SelfCheck, Tape, Var, Verdict};
use common::{assert_equal, unit};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// The value and the gradient, the latter by forward and reverse sweeps alike.
#[track_caller]
fn expect(tape: &Tape, x: &[f64], value: f64, gradient: &[f64]) {
    let (y, reverse) = tape.gradient(x).unwrap();
    let forward: Vec<f64> = (0..x.len()).map(|i| tape.jvp(x, &unit(x.len(), i)).unwrap().1[0]).collect();
    assert_equal(&[y], &[value], "the value");
    assert_equal(&reverse, gradient, "in reverse");
    assert_equal(&forward, gradient, "forward");
}

/// A tape recorded at a harmless point.
fn record(inputs: usize, f: impl FnOnce(&[Var]) -> Var) -> Tape {
    Tape::record(&vec![0.5; inputs], f).unwrap()
}

/// What is diagnosed along all inputs at once, in either direction.
fn diagnoses(tape: &Tape, x: &[f64]) -> [Option<Diagnosis>; 2] {
    [tape.diagnose(x, &vec![1.0; x.len()]).unwrap(), tape.diagnose_adjoint(x, &[1.0]).unwrap()]
}

/// The one finding in either direction: its operation and why.
#[track_caller]
fn finding(tape: &Tape, x: &[f64]) -> (NonFinite, String, String) {
    let [forward, reverse] = diagnoses(tape, x).map(Option::unwrap);
    assert_eq!((&forward.origin.name, &forward.why), (&reverse.origin.name, &reverse.why));
    (forward.what, forward.origin.operation, forward.why)
}

/// The check at a point, which must raise no alarm.
#[track_caller]
fn check(tape: &Tape, x: &[f64]) -> SelfCheck {
    let check = tape.self_check(x).unwrap();
    assert!(check.passed(), "{check}");
    check
}

fn differences(check: &SelfCheck) -> Vec<Verdict> {
    check.comparisons.iter().map(|comparison| comparison.difference.clone()).collect()
}

#[test]
fn the_root_of_zero_times_zero() {
    // 0·∞ in the chain rule is 0 where the factor is an exact 0.
    for tape in [record(1, |x| x[0].sqrt() * 0.0), record(1, |x| x[0].sqrt() * x[0])] {
        expect(&tape, &[0.0], 0.0, &[0.0]);
        assert_eq!(diagnoses(&tape, &[0.0]), [None, None]);
        // The check says which row it could say nothing of.
        let check = check(&tape, &[0.0]);
        assert_eq!(check.not_checked[0].operation, "sqrt(v₀)");
        assert_eq!(check.not_checked[0].verdict, Verdict::NotChecked(NotChecked::NotFinite));
    }
    let bare = record(1, |x| x[0].sqrt());
    expect(&bare, &[0.0], 0.0, &[INF]);
    assert!(diagnoses(&bare, &[0.0])[0].as_ref().unwrap().why.ends_with("chosen for sqrt: inf at 0"));
}

#[test]
fn zero_over_zero() {
    let tape = record(1, |x| x[0] / x[0]);
    expect(&tape, &[0.0], NAN, &[NAN]);
    let why = "div is defined for y ≠ 0; ±inf at y = 0, x ≠ 0".to_owned();
    assert_eq!(finding(&tape, &[0.0]), (NonFinite::Value, "v₀/v₀".to_owned(), why));
    expect(&tape, &[3.0], 1.0, &[0.0]);
    // sin(x)/x has a limit at 0, but its formula has no value there.
    let sinc = record(1, |x| x[0].sin() / x[0]);
    assert_eq!(finding(&sinc, &[0.0]).1, "v₁/v₀");
}

#[test]
fn the_absolute_value_at_its_kink() {
    let tape = record(1, |x| x[0].abs());
    expect(&tape, &[0.0], 0.0, &[0.0]);
    assert_eq!(diagnoses(&tape, &[0.0]), [None, None]);
    assert_eq!(differences(&check(&tape, &[0.0])), [Verdict::NotChecked(NotChecked::Kink)]);
}

#[test]
fn a_branch_on_an_input() {
    let tape = Tape::record(&[2.0], |x| if x[0] > 1.0 { x[0] * x[0] } else { -x[0] }).unwrap();
    expect(&tape, &[3.0], 9.0, &[6.0]);
    // On the other side every driver and every tool refuses to answer, with the line.
    let errors = [
        tape.gradient(&[0.5]).unwrap_err(),
        tape.diagnose(&[0.5], &[1.0]).unwrap_err(),
        tape.self_check(&[0.5]).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::BranchChanged { location, .. } if location.file().ends_with("pitfalls.rs")));
    }
    // Just beside the branch the check finds no step that stays on this one.
    let beside = 1.0 + f64::EPSILON;
    let verdicts = differences(&check(&tape, &[beside]));
    assert!(
        matches!(&verdicts[0], Verdict::NotChecked(NotChecked::BranchChanges(guard)) if guard.starts_with("v₀ > 1 was true at "))
    );
    // A branch that nothing follows is on the tape: a constant function is no surprise.
    assert_eq!(tape.guards().len(), 1);
}

#[test]
fn ties_of_max_and_min() {
    let tape = record(2, |x| x[0].max(x[1]));
    expect(&tape, &[2.0, 2.0], 2.0, &[0.5, 0.5]);
    assert_eq!(
        differences(&check(&tape, &[2.0, 2.0])),
        [Verdict::NotChecked(NotChecked::Kink), Verdict::NotChecked(NotChecked::Kink)]
    );
    expect(&record(2, |x| x[0].min(x[1])), &[2.0, 2.0], 2.0, &[0.5, 0.5]);
    expect(&record(2, |x| x[0].max(x[1])), &[NAN, 1.0], NAN, &[NAN, NAN]);
}

#[test]
fn zero_to_the_power_of_zero() {
    let tape = record(2, |x| x[0].pow(x[1]));
    expect(&tape, &[0.0, 0.0], 1.0, &[0.0, 0.0]);
    assert_eq!(diagnoses(&tape, &[0.0, 0.0]), [None, None]);
    assert_eq!(differences(&check(&tape, &[0.0, 0.0])), [Verdict::Agrees, Verdict::NotChecked(NotChecked::Edge)]);
    expect(&record(1, |x| x[0].powi(0)), &[0.0], 1.0, &[0.0]);
    expect(&record(1, |x| x[0].powf(0.0)), &[0.0], 1.0, &[0.0]);
}

#[test]
fn a_variable_exponent_at_zero_and_below() {
    let tape = record(2, |x| x[0].pow(x[1]));
    expect(&tape, &[0.0, 2.0], 0.0, &[0.0, 0.0]);
    expect(&tape, &[0.0, 1.0], 0.0, &[1.0, 0.0]);
    expect(&tape, &[0.0, 0.5], 0.0, &[INF, 0.0]);
    assert_eq!(finding(&tape, &[0.0, 0.5]).1, "v₋₁^v₀");
    expect(&tape, &[-2.0, 3.0], -8.0, &[12.0, NAN]);
    // Along the base alone there is nothing to report, along the exponent there is.
    assert_eq!(tape.diagnose(&[-2.0, 3.0], &[1.0, 0.0]).unwrap(), None);
    let found = tape.diagnose(&[-2.0, 3.0], &[0.0, 1.0]).unwrap().unwrap();
    assert_eq!(found.what, NonFinite::Tangent);
    assert!(found.why.starts_with("∂v₁/∂v₀ is NaN here"), "{found}");
    // A constant exponent is an operation of its own and has no such partial.
    expect(&record(1, |x| x[0].powi(3)), &[-2.0], -8.0, &[12.0]);
}

#[test]
fn numbers_baked_in() {
    let rate = 0.25;
    let tape = record(1, |x| x[0] * rate);
    expect(&tape, &[8.0], 2.0, &[0.25]);
    let constants = tape.constants();
    assert_eq!((constants.len(), constants[0].value), (1, 0.25));
    assert!(constants[0].locations[0].file().ends_with("pitfalls.rs"));
    // As a parameter it is none.
    let tape = Tape::builder().inputs(&[], &[0.5]).params(&[], &[rate]).record(|x, k| x[0] * k[0]).unwrap();
    assert!(tape.constants().is_empty());
}

#[test]
fn a_value_that_escaped() {
    let tape = Tape::record(&[3.0], |x| x[0] * x[0].value()).unwrap();
    // 5·3, not 5·5; and the derivative is that of 3·x.
    expect(&tape, &[5.0], 15.0, &[3.0]);
    assert_eq!((tape.escapes().len(), tape.escapes()[0].value()), (1, 3.0));
    assert!(tape.escapes()[0].location().file().ends_with("pitfalls.rs"));
    assert_eq!(tape.constants()[0].value, 3.0);
    // The check compares the tape with itself: this it cannot see.
    check(&tape, &[5.0]);
}

#[test]
fn catastrophic_cancellation() {
    // (1 − cos x)/x² tends to ½ with slope 0; in floating point nothing is left of 1 − cos x.
    fn naive<T: Real>(x: T) -> T {
        (T::lit(1.0) - x.cos()) / (x * x)
    }
    fn stable<T: Real>(x: T) -> T {
        let half = (x * 0.5).sin() / x;
        half * half * 2.0
    }
    let (x, naive, stable) = ([1e-9], record(1, |x| naive(x[0])), record(1, |x| stable(x[0])));
    assert_eq!(naive.eval(&x).unwrap(), [0.0]);
    assert!((stable.eval(&x).unwrap()[0] - 0.5).abs() < 1e-15);
    assert!(naive.gradient(&x).unwrap().1[0] > 1e8, "the derivative is lost as well");
    // All numbers are finite, and each row is right by itself; what tells is how far
    // rounding may put the value off.
    assert_eq!(diagnoses(&naive, &x), [None, None]);
    let check = check(&naive, &x);
    assert_eq!(differences(&check), [Verdict::NotChecked(NotChecked::Inaccurate)]);
    assert!(check.rounding[0] > 1.0, "{check}");
    assert!(check.to_string().contains("y[0] = 0 may be off by about 2e2: digits cancel on the way"), "{check}");
    let check = stable.self_check(&x).unwrap();
    assert!(check.rounding[0] < 1e-15 && !check.to_string().contains("cancel"), "{check}");
}

#[test]
fn a_nan_in_the_branch_not_taken() {
    let tape = record(1, |x| x[0].select_gt(0.0, x[0].ln(), 0.0));
    expect(&tape, &[-1.0], 0.0, &[0.0]);
    assert_eq!(diagnoses(&tape, &[-1.0]), [None, None]);
    // Who wants to see it looks at the trace.
    assert!(tape.primal_trace(&[-1.0]).unwrap().rows()[1].value.is_nan());
    expect(&record(1, |x| x[0].select_gt(0.0, x[0].sqrt(), 0.0)), &[0.0], 0.0, &[0.0]);
    // A NaN that decides makes every comparison false.
    expect(&record(1, |x| x[0].ln().select_gt(0.0, 1.0, x[0] * 2.0)), &[-1.0], -2.0, &[2.0]);
}

#[test]
fn the_logarithm_of_a_negative_number() {
    let tape = record(1, |x| x[0].ln());
    // Not −1, which the formula 1/x would give for the derivative of no value.
    expect(&tape, &[-1.0], NAN, &[NAN]);
    let why = "ln is defined for x > 0; −inf at 0".to_owned();
    assert_eq!(finding(&tape, &[-1.0]), (NonFinite::Value, "ln(v₀)".to_owned(), why));
    expect(&tape, &[0.0], -INF, &[INF]);
}

#[test]
fn lengths_and_angles_at_the_origin() {
    let hypot = record(2, |x| x[0].hypot(x[1]));
    expect(&hypot, &[0.0, 0.0], 0.0, &[0.0, 0.0]);
    assert_eq!(diagnoses(&hypot, &[0.0, 0.0]), [None, None]);
    assert_eq!(
        differences(&check(&hypot, &[0.0, 0.0])),
        [Verdict::NotChecked(NotChecked::Kink), Verdict::NotChecked(NotChecked::Kink)]
    );
    // Written out, the root meets a square whose zero is exact.
    expect(&record(2, |x| (x[0] * x[0] + x[1] * x[1]).sqrt()), &[0.0, 0.0], 0.0, &[0.0, 0.0]);
    let atan2 = record(2, |x| x[0].atan2(x[1]));
    expect(&atan2, &[0.0, 0.0], 0.0, &[NAN, NAN]);
    let [forward, reverse] = diagnoses(&atan2, &[0.0, 0.0]).map(Option::unwrap);
    assert_eq!((forward.what, reverse.what), (NonFinite::Tangent, NonFinite::Adjoint));
    assert_eq!(forward.why, "∂v₁/∂v₋₁ is NaN here; chosen for atan2: NaN, NaN at (0, 0)");
}

#[test]
fn the_sine_of_a_large_number() {
    // 1e15 is a number, and so is its sine: all digits of it.
    let tape = record(1, |x| x[0].sin());
    let (y, dy) = tape.jvp(&[1e15], &[1.0]).unwrap();
    assert!((y[0] - 0.858_272_793_170_235_9).abs() < 1e-15, "{y:?}");
    assert!((y[0] * y[0] + dy[0] * dy[0] - 1.0).abs() < 1e-15);
    // A step is at least 0.125 there: too large for a quotient to say much.
    assert_eq!(differences(&check(&tape, &[1e15])), [Verdict::NotChecked(NotChecked::Inaccurate)]);
    assert_eq!(differences(&check(&tape, &[100.0])), [Verdict::Agrees]);
    expect(&tape, &[INF], NAN, &[NAN]);
    assert_eq!(finding(&tape, &[INF]).2, "the input has this value");
}

#[test]
fn the_order_of_a_sum() {
    // 1e16 + 1 has no room for the 1: the order decides, and it is that of the iterator.
    let forward = record(3, |x| x.iter().sum());
    let backward = record(3, |x| x.iter().rev().sum());
    let x = [1e16, -1e16, 1.0];
    expect(&forward, &x, 1.0, &[1.0, 1.0, 1.0]);
    expect(&backward, &x, 0.0, &[1.0, 1.0, 1.0]);
    // The same bits as the plain loop, every time; and a change of order is a change of the tape.
    assert_eq!(backward.eval(&x).unwrap()[0].to_bits(), x.iter().rev().sum::<f64>().to_bits());
    assert_ne!(forward.content_hash(), backward.content_hash());
    let diff = forward.diff(&backward);
    assert_eq!((diff.differences().len(), diff.differences()[0].part), (1, Part::Row), "{diff}");
    check(&backward, &x);
}
