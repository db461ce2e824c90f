//! Every operation of the table, in every number type, at its probe points:
//! the values agree to the last bit, forward = reverse = `Dual`, and the
//! derivatives agree with difference quotients that know nothing of the rules.
//!
//! One list, in `common/operations.rs`, says how each operation is called; an
//! entry of the table that is missing from it fails `the_list_is_complete`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::array::from_fn;

use ad_core::ops::{self, Fold, Form, Operation};
use ad_core::{Dual, Formula, Formulas, Lanes, Matrix, Op, Relation, Rule, Script, Tape, Var};
use common::{all_equal, assert_equal, assert_same, equal, operation_list, product, same, takes_constant, unit};

/// What a test does with the two kinds of entries.
trait Action {
    type Output;
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> Self::Output;
    fn fold<O: Fold>(self) -> Self::Output;
}

macro_rules! operations {
    (
        operations { $( $Op:ident $o:tt => $call:expr; )* }
        folds { $( $Fold:ident $f:tt => $fold:expr; )* }
    ) => {
        /// The operations this test knows how to call.
        const LISTED: &[Op] = &[$(Op::$Op,)* $(Op::$Fold,)*];

        operations! { @apply rule [T: Rule] T; $($Op $o => $call;)* $($Fold $f => $fold;)* }
        operations! { @apply var [] Var; $($Op $o => $call;)* $($Fold $f => $fold;)* }
        operations! { @apply dual [T: Rule] Dual<T>; $($Op $o => $call;)* $($Fold $f => $fold;)* }

        fn visit<A: Action>(op: Op, action: A) -> A::Output {
            match op {
                $(Op::$Op => action.operation::<ops::$Op, _, _>(),)*
                $(Op::$Fold => action.fold::<ops::$Fold>(),)*
                other => panic!("{other:?} is missing from the list of this test"),
            }
        }
    };
    // The same calls by the trait's methods and by the inherent ones of `Var` and `Dual`.
    (@apply $name:ident [$($generics:tt)*] $Type:ty; $($Op:ident ($x:ident, $c:ident) => $call:expr;)*) => {
        fn $name<$($generics)*>(op: Op, x: &[$Type], c: f64) -> Vec<$Type> {
            match op {
                $(Op::$Op => {
                    let ($x, $c) = (x, c);
                    let _ = ($x, $c);
                    <[$Type]>::to_vec(&$call)
                })*
                other => panic!("{other:?} is missing from the list of this test"),
            }
        }
    };
}

operation_list!(operations);

/// One operation recorded alone, with one value of its constant.
struct Case {
    op: Op,
    c: f64,
    tape: Tape,
    /// The probe points of its inputs.
    points: Vec<Vec<f64>>,
}

impl Case {
    fn inputs(&self) -> usize {
        self.tape.num_inputs()
    }

    fn outputs(&self) -> usize {
        self.tape.num_outputs()
    }

    /// The inputs and, where there is one, the constant.
    fn operands(&self, x: &[f64]) -> Vec<f64> {
        let constant = takes_constant(self.op).then_some(self.c);
        x.iter().copied().chain(constant).collect()
    }

    fn describe(&self, x: &[f64]) -> String {
        format!("{} at {:?}", self.op, self.operands(x))
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &op in Op::ALL {
        let mut probes = op.info().probes.to_vec();
        let constants = if takes_constant(op) { probes.pop().unwrap() } else { &[0.0] };
        let points = product(&probes);
        for &c in constants {
            let tape = Tape::record(&points[0], |x| var(op, x, c)).unwrap();
            cases.push(Case { op, c, tape, points: points.clone() });
        }
    }
    cases
}

#[test]
fn the_list_is_complete() {
    for op in Op::ALL {
        assert!(LISTED.contains(op), "{op:?} is missing from the list of this test");
        let info = op.info();
        assert!(!info.doc.is_empty() && !info.domain.is_empty() && !info.name.is_empty(), "{op:?}");
        for probes in info.probes {
            let has = |what: fn(&f64) -> bool| probes.iter().any(what);
            if !takes_constant(*op) {
                assert!(has(|x| x.is_nan()) && has(|x| x.is_infinite()), "{op:?}: probe NaN and inf");
                assert!(has(|x| *x > 0.0) && has(|x| *x < 0.0) && has(|x| *x == 0.0), "{op:?}: probe both signs and 0");
            }
        }
    }
    assert_eq!(LISTED.len(), Op::ALL.len(), "an operation is listed twice, or is no entry of the table");
    let mut names: Vec<&str> = Op::ALL.iter().map(|op| op.info().name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Op::ALL.len(), "two operations share a name");
}

/// The results by the table's own `value`.
struct Value<'a>(&'a [f64]);

impl Action for Value<'_> {
    type Output = Vec<f64>;
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> Vec<f64> {
        O::value(self.0.try_into().unwrap()).to_vec()
    }
    fn fold<O: Fold>(self) -> Vec<f64> {
        vec![O::value(self.0)]
    }
}

/// The number that a formula without symbols is; zeros print without their sign.
fn number(formula: Formula<'_>) -> f64 {
    let number = |formula: Formula<'_>| formula.render(Script::Ascii, 17).parse::<f64>().unwrap();
    if number(formula) == 0.0 { 0.0_f64.copysign(number(formula.signum())) } else { number(formula) }
}

fn lanes_agree<const L: usize>(case: &Case, expected: &[Vec<f64>]) {
    // The last block repeats its last point.
    for first in (0..case.points.len()).step_by(L) {
        let place = |lane: usize| (first + lane).min(case.points.len() - 1);
        let x: Vec<Lanes<L>> = (0..case.inputs()).map(|i| Lanes(from_fn(|lane| case.points[place(lane)][i]))).collect();
        let replayed = case.tape.eval_with(&x).unwrap();
        let called = rule(case.op, &x, case.c);
        for lane in 0..L {
            let x = &case.points[place(lane)];
            let lane_of = |y: &[Lanes<L>]| y.iter().map(|y| y.0[lane]).collect::<Vec<_>>();
            let what = format!("{} in lane {lane} of {L}", case.describe(x));
            assert_same(&lane_of(&replayed), &expected[place(lane)], &what);
            assert_same(&lane_of(&called), &expected[place(lane)], &what);
        }
    }
}

#[test]
fn values_are_the_same_bits_in_every_number_type() {
    for case in cases() {
        let (op, c) = (case.op, case.c);
        let expected: Vec<Vec<f64>> = case.points.iter().map(|x| visit(op, Value(&case.operands(x)))).collect();
        for (x, expected) in case.points.iter().zip(&expected) {
            let what = |engine: &str| format!("{} in {engine}", case.describe(x));
            assert_same(&case.tape.eval(x).unwrap(), expected, what("a replay"));
            assert_same(&rule(op, x, c), expected, what("f64"));

            let duals: Vec<Dual> = x.iter().map(|&x| Dual::new(x, 1.0)).collect();
            let values = |y: Vec<Dual>| y.iter().map(|y| y.v).collect::<Vec<_>>();
            assert_same(&values(dual(op, &duals, c)), expected, what("Dual"));
            assert_same(&values(rule(op, &duals, c)), expected, what("Dual by the trait"));
            assert_same(&values(case.tape.eval_with(&duals).unwrap()), expected, what("a replay in Dual"));
            let nested: Vec<Dual<Dual>> = duals.iter().map(|&x| Dual::new(x, Dual::from(1.0))).collect();
            let values: Vec<f64> = dual(op, &nested, c).iter().map(|y| y.v.v).collect();
            assert_same(&values, expected, what("Dual of Dual"));

            let formulas: Vec<Formula<'_>> = x.iter().map(|&x| Formula::from(x)).collect();
            let numbers: Vec<f64> = case.tape.eval_with(&formulas).unwrap().into_iter().map(number).collect();
            assert_same(&numbers, expected, what("Formula"));

            let again = Tape::record(x, |x| rule(op, x, c)).unwrap();
            assert_same(&again.eval(x).unwrap(), expected, what("a recording at the point, by the trait"));
            let again = Tape::record(x, |x| case.tape.eval_with(x).unwrap()).unwrap();
            assert_same(&again.eval(x).unwrap(), expected, what("a replay in Var"));
            let constants: Vec<Var> = x.iter().map(|&x| Var::from(x)).collect();
            let folded = Tape::record(&[0.0], |_| var(op, &constants, c)).unwrap();
            assert_eq!(folded.len(), 1, "{}: an operation of constants leaves no row", case.describe(x));
            assert_same(&folded.eval(&[0.0]).unwrap(), expected, what("constants"));
        }
        lanes_agree::<1>(&case, &expected);
        lanes_agree::<4>(&case, &expected);
        lanes_agree::<8>(&case, &expected);
    }
}

#[test]
fn every_operation_prints_in_every_script() {
    for case in cases() {
        let formulas = Formulas::new();
        let names = ["a", "b", "c", "d"];
        let symbols: Vec<Formula<'_>> = names[..case.inputs()].iter().map(|name| formulas.symbol(name)).collect();
        for y in case.tape.eval_with(&symbols).unwrap() {
            for script in [Script::Unicode, Script::Ascii, Script::Latex] {
                let text = y.render(script, 6);
                assert!(!text.contains(['@', '#', '\n']), "{}: {text}", case.op);
                assert!(script == Script::Unicode || text.is_ascii(), "{}: {text}", case.op);
                let shown = |name: &&&str| text.contains(**name);
                // A marker of the domain prints the partial alone.
                let expected = if case.op == Op::Domain { 1 } else { case.inputs() };
                assert!(names.iter().filter(shown).count() >= expected, "{}: {text}", case.op);
            }
        }
        assert_eq!(case.tape.to_string().lines().count(), case.inputs() + 2 * case.outputs(), "{}", case.op);
    }
}

/// The derivatives of all outputs by input `i`, in dual numbers.
fn dual_derivative(case: &Case, x: &[f64], i: usize) -> Vec<f64> {
    let x: Vec<Dual> = (0..x.len()).map(|j| Dual::new(x[j], if i == j { 1.0 } else { 0.0 })).collect();
    dual(case.op, &x, case.c).iter().map(|y| y.dv).collect()
}

#[test]
fn forward_reverse_and_dual_agree() {
    for case in cases() {
        let (n, m) = (case.inputs(), case.outputs());
        for x in &case.points {
            let what = |which: &str| format!("{}: {which}", case.describe(x));
            let columns: Vec<Vec<f64>> = (0..n).map(|i| case.tape.jvp(x, &unit(n, i)).unwrap().1).collect();
            let rows: Vec<Vec<f64>> = (0..m).map(|j| case.tape.vjp(x, &unit(m, j)).unwrap().1).collect();
            let there = case.tape.at(x).unwrap();
            let (_, many) = case.tape.jvp_many(x, &Matrix::identity(n)).unwrap();
            let jacobian = case.tape.jacobian(x).unwrap();
            for i in 0..n {
                assert_equal(&columns[i], &dual_derivative(&case, x, i), what("jvp and Dual"));
                assert_same(&columns[i], &there.jvp(&unit(n, i)).unwrap(), what("jvp and its linearization"));
                for j in 0..m {
                    assert_equal(&[rows[j][i]], &[columns[i][j]], what("vjp and jvp"));
                    assert_same(&[many[(j, i)]], &[columns[i][j]], what("jvp_many and jvp"));
                    assert_equal(&[jacobian[(j, i)]], &[columns[i][j]], what("jacobian and jvp"));
                }
            }
            for (j, row) in rows.iter().enumerate() {
                assert_same(row, &there.vjp(&unit(m, j)).unwrap(), what("vjp and its linearization"));
            }
            // Zero seeds give zeros, whatever the partials are.
            assert_equal(&case.tape.jvp(x, &vec![0.0; n]).unwrap().1, &vec![0.0; m], what("a zero seed"));
            assert_equal(&case.tape.vjp(x, &vec![0.0; m]).unwrap().1, &vec![0.0; n], what("zero weights"));
            // All directions at once.
            let ones: Vec<Dual> = x.iter().map(|&x| Dual::new(x, 1.0)).collect();
            let along: Vec<f64> = dual(case.op, &ones, case.c).iter().map(|y| y.dv).collect();
            assert_equal(&case.tape.jvp(x, &vec![1.0; n]).unwrap().1, &along, what("jvp along (1, …, 1) and Dual"));
        }
    }
}

/// One variable as every operand: the contributions of the operands are added.
#[test]
fn repeated_operands_agree() {
    for case in cases() {
        let n = case.inputs();
        let tape = Tape::record(&[1.0], |x| var(case.op, &vec![x[0]; n], case.c)).unwrap();
        for &x in case.op.info().probes[0] {
            let (y, forward) = tape.jvp(&[x], &[1.0]).unwrap();
            let same_point = vec![Dual::new(x, 1.0); n];
            let duals = dual(case.op, &same_point, case.c);
            for j in 0..case.outputs() {
                let (_, reverse) = tape.vjp(&[x], &unit(case.outputs(), j)).unwrap();
                assert!(same(y[j], duals[j].v), "{} of {x} thrice: {} {}", case.op, y[j], duals[j].v);
                assert!(
                    equal(forward[j], reverse[0]) && equal(forward[j], duals[j].dv),
                    "{} of equal operands {x}: forward {}, reverse {}, Dual {}",
                    case.op,
                    forward[j],
                    reverse[0],
                    duals[j].dv
                );
            }
        }
    }
}

// Partials, in every number type.

/// All partials, result by result, in the number type of the operands.
struct Partials<'a, T>(&'a [T]);

impl<T: Rule> Action for Partials<'_, T> {
    type Output = Vec<T>;
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> Vec<T> {
        let x: [T; N] = self.0.try_into().unwrap();
        let v = T::apply::<O, N, M>(x);
        (0..M).flat_map(|j| (0..N).map(move |i| O::partial(j, i, x, v))).collect()
    }
    fn fold<O: Fold>(self) -> Vec<T> {
        (0..self.0.len()).map(|i| O::partial(i, self.0)).collect()
    }
}

#[test]
fn partials_agree_in_every_number_type() {
    for &op in Op::ALL {
        let points = product(op.info().probes);
        let n = points[0].len();
        // The derivative of the operation, recorded as a function of its own.
        let derivative = Tape::record(&points[0], |x| visit(op, Partials(x))).unwrap();
        derivative.check().unwrap();
        assert!(derivative.guards().is_empty(), "{op}: a rule compares");
        for x in &points {
            let expected = visit(op, Partials::<f64>(x));
            let what = |engine: &str| format!("the partials of {op} at {x:?} in {engine}");
            assert_same(&derivative.eval(x).unwrap(), &expected, what("a replay"));

            let lanes: Vec<Lanes<4>> = x.iter().map(|&x| Lanes([1.0, x, x, 0.5])).collect();
            let lane: Vec<f64> = visit(op, Partials(&lanes)).iter().map(|p| p.0[2]).collect();
            assert_same(&lane, &expected, what("a lane"));

            let formulas: Vec<Formula<'_>> = x.iter().map(|&x| Formula::from(x)).collect();
            let numbers: Vec<f64> = visit(op, Partials(&formulas)).into_iter().map(number).collect();
            assert_same(&numbers, &expected, what("Formula"));

            for i in 0..n {
                let duals: Vec<Dual> = (0..n).map(|j| Dual::new(x[j], if i == j { 1.0 } else { 0.0 })).collect();
                let duals = visit(op, Partials(&duals));
                let values: Vec<f64> = duals.iter().map(|p| p.v).collect();
                assert_same(&values, &expected, what("Dual"));
                let second: Vec<f64> = duals.iter().map(|p| p.dv).collect();
                assert_equal(
                    &derivative.jvp(x, &unit(n, i)).unwrap().1,
                    &second,
                    what("jvp of the recorded partials and Dual"),
                );
            }
        }
        // As a formula of symbols it prints, in ASCII if asked to.
        let formulas = Formulas::new();
        let symbols: Vec<Formula<'_>> = ["a", "b", "c", "d"][..n].iter().map(|name| formulas.symbol(name)).collect();
        for partial in visit(op, Partials(&symbols)) {
            assert!(partial.render(Script::Ascii, 6).is_ascii(), "{op}");
            assert!(!partial.render(Script::Latex, 6).contains(['@', '#']), "{op}");
        }
    }
}

/// What a constant of the table is multiplied by, should it ever have a tangent.
#[test]
fn partials_by_constants_are_zero() {
    for &op in Op::ALL.iter().filter(|&&op| takes_constant(op)) {
        for x in product(op.info().probes) {
            let partials = visit(op, Partials::<f64>(&x));
            assert_same(&partials[x.len() - 1..], &[0.0], format!("{op} at {x:?}"));
        }
    }
}

/// Where the table says that a slope is 0 everywhere, it is, and so is that of
/// the other partials along the same operand.
#[test]
fn operands_without_slope_have_none_in_second_order_either() {
    let mut checked = 0;
    for &op in Op::ALL {
        let info = op.info();
        let Some(by) = info.kink.strip_prefix("0 everywhere") else { continue };
        let named = |name: &&str| by.is_empty() || by.split_whitespace().any(|word| word == *name);
        let points = product(info.probes);
        for x in points.iter().filter(|x| visit(op, Value(x)).iter().all(|v| v.is_finite())) {
            let partials = visit(op, Partials::<f64>(x));
            for (i, _) in info.operands.iter().enumerate().filter(|(_, name)| named(name)) {
                let what = format!("{op} at {x:?} by operand {i}");
                assert_same(&partials[i..=i], &[0.0], &what);
                let duals: Vec<Dual> = (0..x.len()).map(|j| Dual::new(x[j], if i == j { 1.0 } else { 0.0 })).collect();
                for partial in visit(op, Partials(&duals)).iter().filter(|partial| partial.v.is_finite()) {
                    assert_equal(&[partial.dv], &[0.0], &what);
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 1000, "{checked}");
}

/// A selection is the branch that its relation chooses, in value and slope.
#[test]
fn selections_choose_by_their_relation() {
    let mut found = 0;
    for &op in Op::ALL {
        let [Form::Select(relation)] = op.info().forms else { continue };
        found += 1;
        assert_eq!(op.info().name, format!("select_{relation:?}").to_lowercase());
        for x in product(op.info().probes) {
            let branch = if relation.holds(x[0], x[1]) { 2 } else { 3 };
            assert_same(&visit(op, Value(&x)), &[x[branch]], format!("{op} at {x:?}"));
            assert_same(&visit(op, Partials::<f64>(&x)), &unit(4, branch), format!("the partials of {op} at {x:?}"));
        }
    }
    assert_eq!(found, Relation::ALL.len());
}

/// The derivative of x^y carries the exponent y − 1 to be printed alone, so no
/// number depends on it.
#[test]
fn derivatives_of_powers_print_the_exponent_less_one() {
    let formulas = Formulas::new();
    let symbols = [formulas.symbol("a"), formulas.symbol("b")];
    for op in [Op::Powf, Op::Pow] {
        assert_eq!(visit(op, Partials(&symbols))[0].render(Script::Ascii, 6), "b*a^(b - 1)", "{op}");
    }
}

// Difference quotients.

/// A central difference quotient in the limit of small steps, with an estimate
/// of its error (Ridders' extrapolation), or nothing where the function jumps,
/// bends or ends.
///
/// Source: C. J. F. Ridders, Accurate computation of F′(x) and F′(x)F″(x),
/// Advances in Engineering Software 4 (1982) 75–76.
fn quotient(f: &dyn Fn(f64) -> f64, x: f64, size: f64, steps: &[f64]) -> Option<(f64, f64)> {
    const LEVELS: usize = 7;
    const SHRINK: f64 = 1.6;
    let here = f(x);
    // Forward minus backward quotient: of the size of the step, unless there is a kink or a jump.
    let step = 1e-5 * size;
    let bend = |h: f64| ((f(x + h) - here) / h - (here - f(x - h)) / h).abs();
    let (wide, narrow) = (bend(step), bend(step / 8.0));
    let noise = 64.0 * f64::EPSILON * here.abs() / step;
    if wide.is_nan() || narrow.is_nan() || (narrow > 0.5 * wide && narrow > noise && narrow > 1e-290) {
        return None;
    }
    let mut best: Option<(f64, f64)> = None;
    for &first in steps {
        let mut h = first;
        let mut row: Vec<f64> = Vec::new();
        for level in 0..LEVELS {
            let (above, below) = (f(x + h), f(x - h));
            let mut column = vec![(above - below) / ((x + h) - (x - h))];
            let rounding = (4.0 * f64::EPSILON * (above.abs() + below.abs()) + 2e-323) / h;
            let mut factor = 1.0;
            for k in 0..level {
                factor *= SHRINK * SHRINK;
                let refined = (column[k] * factor - row[k]) / (factor - 1.0);
                let error = (refined - column[k]).abs().max((refined - row[k]).abs()) + rounding;
                column.push(refined);
                let relative = |(quotient, error): (f64, f64)| if error == 0.0 { 0.0 } else { error / quotient.abs() };
                if error.is_finite() && best.is_none_or(|best| relative((refined, error)) < relative(best)) {
                    best = Some((refined, error));
                }
            }
            row = column;
            h /= SHRINK;
        }
    }
    best
}

/// What a check of derivatives looked at.
#[derive(Debug, Default, Clone, Copy)]
struct Coverage {
    /// Finite derivatives where the quotient was good enough to compare with.
    checked: usize,
    /// Finite derivatives where it was not: kinks, jumps, ends of the domain, cancellation.
    skipped: usize,
}

impl Coverage {
    fn plus(self, other: Coverage) -> Coverage {
        Coverage { checked: self.checked + other.checked, skipped: self.skipped + other.skipped }
    }
}

/// Compares the derivatives ∂f_j/∂x_i that `derivative(x, i)` gives with
/// difference quotients of `f`; names the first that differs.
fn check_derivatives(
    f: &dyn Fn(&[f64]) -> Vec<f64>,
    derivative: &dyn Fn(&[f64], usize) -> Vec<f64>,
    points: &[Vec<f64>],
    jumps: bool,
) -> Result<Coverage, String> {
    let mut coverage = Coverage::default();
    for x in points.iter().filter(|x| x.iter().all(|x| x.is_finite())) {
        let y = f(x);
        for i in 0..x.len() {
            let claimed = derivative(x, i);
            for j in 0..y.len() {
                if !y[j].is_finite() || !claimed[j].is_finite() {
                    continue;
                }
                let along = |t: f64| {
                    let mut x = x.clone();
                    x[i] = t;
                    f(&x)[j]
                };
                // The length on which the function may change, seen from the operands.
                let sizes = x.iter().map(|x| x.abs()).filter(|&size| size > 0.0);
                let least = sizes.fold(1.0, f64::min);
                let size = if x[i] == 0.0 || jumps { least } else { x[i].abs() };
                let wide = [0.2 * size, 0.02 * size, 0.1_f64.min(0.2 * size), 1e-3_f64.min(0.2 * size)];
                let steps = if jumps { &[0.01 * least][..] } else { &wide };
                let scale = y[j].abs() / size.max(1.0);
                match quotient(&along, x[i], size, steps) {
                    Some((quotient, error)) if error <= 1e-6 * (quotient.abs() + scale + 1e-300) => {
                        coverage.checked += 1;
                        let difference = (claimed[j] - quotient).abs();
                        if difference > 1e-7 * claimed[j].abs().max(quotient.abs()) + 20.0 * error {
                            return Err(format!(
                                "∂y[{j}]/∂x[{i}] at {x:?} is given as {}, the difference quotient is {quotient} ± {error:e}",
                                claimed[j]
                            ));
                        }
                    }
                    _ => coverage.skipped += 1,
                }
            }
        }
    }
    Ok(coverage)
}

/// The probe points, and as many beside them, off the kinks and edges.
fn with_neighbours(points: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let beside = |(i, &x): (usize, &f64)| x * (1.0 + 0.03125 * (i + 1) as f64) + 0.0173 * (i + 1) as f64;
    let finite = points.iter().filter(|x| x.iter().all(|x| x.is_finite()));
    finite.clone().cloned().chain(finite.map(|x| x.iter().enumerate().map(beside).collect())).collect()
}

/// Functions that jump, where a wide step would see a slope.
fn jumps(op: Op) -> bool {
    op == Op::Rem || op.info().kink.starts_with("0 everywhere") || matches!(op, Op::Sign | Op::Signum)
}

/// What is wrong with an operation, if anything: a derivative, or that fewer
/// than `times` as many points were checked as skipped.
fn failure(case: &Case, checked: Result<Coverage, String>, times: usize) -> Option<String> {
    let what = format!("{} (constant {})", case.op, case.c);
    match checked {
        Err(difference) => Some(format!("{what}: {difference}")),
        Ok(coverage) if coverage.checked < 5 || coverage.checked < times * coverage.skipped => {
            Some(format!("{what}: too many points are skipped: {coverage:?}"))
        }
        Ok(_) => None,
    }
}

#[test]
fn first_derivatives_are_those_of_difference_quotients() {
    let mut failures: Vec<String> = Vec::new();
    for case in cases() {
        let f = |x: &[f64]| visit(case.op, Value(&case.operands(x)));
        let derivative = |x: &[f64], i: usize| case.tape.jvp(x, &unit(x.len(), i)).unwrap().1;
        let mut points = with_neighbours(&case.points);
        // Where the bounds coincide clamp is constant, and has slope 1 by convention.
        points.retain(|x| case.op != Op::Clamp || x[1] != x[2]);
        let checked = check_derivatives(&f, &derivative, &points, jumps(case.op));
        failures.extend(failure(&case, checked, 2));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn second_derivatives_are_those_of_difference_quotients() {
    let mut failures: Vec<String> = Vec::new();
    for case in cases() {
        let mut points = with_neighbours(&case.points);
        // Farther out the products of two derivatives overflow and underflow.
        points.retain(|x| x.iter().all(|&x| x == 0.0 || (1e-100..1e100).contains(&x.abs())));
        // Three and four operands make many points and pairs of operands.
        let points: Vec<Vec<f64>> = points.iter().step_by(points.len() / 200 + 1).cloned().collect();
        let n = case.inputs();
        let mut coverage = Ok(Coverage::default());
        for i in 0..n {
            let first = |x: &[f64]| dual_derivative(&case, x, i);
            let second = |x: &[f64], k: usize| {
                let seed = |a: usize, b: usize| if a == b { 1.0 } else { 0.0 };
                let seeded = |j: usize| Dual::new(Dual::new(x[j], seed(j, k)), Dual::new(seed(j, i), 0.0));
                let x: Vec<Dual<Dual>> = (0..n).map(seeded).collect();
                dual(case.op, &x, case.c).iter().map(|y| y.dv.dv).collect()
            };
            let checked = check_derivatives(&first, &second, &points, jumps(case.op));
            let differs = |difference| format!("derivative of ∂/∂x[{i}]: {difference}");
            coverage = coverage.and_then(|sum: Coverage| checked.map_err(differs).map(|more| sum.plus(more)));
        }
        failures.extend(failure(&case, coverage, 1));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Replaying in nested duals gives what calling the function in them gives.
#[test]
fn second_derivatives_agree_between_a_replay_and_a_call() {
    for case in cases() {
        for x in &case.points {
            let x: Vec<Dual<Dual>> = x.iter().map(|&x| Dual::new(Dual::new(x, 1.0), Dual::new(1.0, 0.0))).collect();
            let parts =
                |y: Vec<Dual<Dual>>| y.iter().flat_map(|y| [y.v.v, y.v.dv, y.dv.v, y.dv.dv]).collect::<Vec<_>>();
            let (replayed, called) = (parts(case.tape.eval_with(&x).unwrap()), parts(dual(case.op, &x, case.c)));
            assert!(all_equal(&replayed, &called), "{} at {x:?}: {replayed:?} {called:?}", case.op);
            for y in called.chunks(4) {
                assert!(equal(y[1], y[2]), "{} at {x:?}: the two first derivatives differ: {y:?}", case.op);
            }
        }
    }
}

/// ∂²/∂x∂y = ∂²/∂y∂x, away from the edges.
#[test]
fn second_derivatives_are_symmetric() {
    for case in cases() {
        let n = case.inputs();
        let inside = |x: &&Vec<f64>| x.iter().all(|x| (1e-100..1e100).contains(&x.abs()));
        for x in with_neighbours(&case.points).iter().filter(inside) {
            let mixed = |i: usize, k: usize| {
                let seed = |a: usize, b: usize| if a == b { 1.0 } else { 0.0 };
                let seeded = |j: usize| Dual::new(Dual::new(x[j], seed(j, k)), Dual::new(seed(j, i), 0.0));
                let x: Vec<Dual<Dual>> = (0..n).map(seeded).collect();
                dual(case.op, &x, case.c).iter().map(|y| y.dv.dv).collect::<Vec<_>>()
            };
            for (i, k) in (0..n).flat_map(|i| (0..i).map(move |k| (i, k))) {
                // Where the mixed ones cancel, the others say what is small.
                let size = |j: usize| mixed(i, i)[j].abs() + mixed(k, k)[j].abs();
                for (j, (a, b)) in mixed(i, k).into_iter().zip(mixed(k, i)).enumerate() {
                    let close = (a - b).abs() <= 1e-11 * (a.abs() + b.abs()) + 1e-14 * size(j);
                    assert!(close || equal(a, b) || !(a * b).is_finite(), "{}: {i}, {k}: {a} {b}", case.describe(x));
                }
            }
        }
    }
}

// The checker itself.

macro_rules! wrong_rules {
    ($( $Wrong:ident of $Right:ident<$n:literal, $m:literal>: |$j:ident, $i:ident, $x:ident, $v:ident| $partial:expr; )*) => {
        $(
            struct $Wrong;
            impl Operation<$n, $m> for $Wrong {
                const OP: Op = Op::$Right;
                fn value(x: [f64; $n]) -> [f64; $m] {
                    ops::$Right::value(x)
                }
                fn partial<T: Rule>($j: usize, $i: usize, $x: [T; $n], $v: [T; $m]) -> T {
                    let _ = ($j, $i, &$x, &$v);
                    $partial
                }
            }
        )*

        #[test]
        fn a_wrong_rule_is_rejected() {
            $({
                let right = verdict::<ops::$Right, $n, $m>();
                assert!(right.is_ok(), "{}: {right:?}", stringify!($Right));
                let wrong = verdict::<$Wrong, $n, $m>();
                assert!(wrong.is_err(), "{} passes as the rule of {}: {wrong:?}", stringify!($Wrong), stringify!($Right));
            })*
        }
    };
}

/// The checker's answer to a rule, its derivatives taken in dual numbers.
fn verdict<O: Operation<N, M>, const N: usize, const M: usize>() -> Result<Coverage, String> {
    let f = |x: &[f64]| O::value(x.try_into().unwrap()).to_vec();
    let derivative = |x: &[f64], i: usize| {
        let x: [Dual; N] = from_fn(|j| Dual::new(x[j], if i == j { 1.0 } else { 0.0 }));
        Dual::apply::<O, N, M>(x).iter().map(|y| y.dv).collect()
    };
    check_derivatives(&f, &derivative, &with_neighbours(&product(O::OP.info().probes)), jumps(O::OP))
}

wrong_rules! {
    SignOfCosine of Cos<1, 1>: |j, i, x, v| x[0].sin();
    TwiceTheSquareRoot of Sqrt<1, 1>: |j, i, x, v| v[0].recip();
    HalfTheTangent of Tan<1, 1>: |j, i, x, v| (v[0] * v[0] + 1.0) * 0.5;
    BranchOfAbs of Abs<1, 1>: |j, i, x, v| T::lit(1.0);
    BranchOfRelu of Relu<1, 1>: |j, i, x, v| x[0].sign();
    OtherOperandOfMax of Max<2, 1>: |j, i, x, v| Partials::<T>(&x).operation::<ops::Max, 2, 1>()[1 - i];
    OtherOperandOfProduct of Mul<2, 1>: |j, i, x, v| x[i];
    OtherResultOfSinCos of SinCos<1, 2>: |j, i, x, v| v[j];
    SlopeOfFloor of Floor<1, 1>: |j, i, x, v| T::lit(1.0);
    NaiveLogistic of Logistic<1, 1>: |j, i, x, v| v[0] * (T::lit(1.0) + v[0]);
    SlightlyWrongExp of Exp<1, 1>: |j, i, x, v| v[0] * 1.00001;
    WrongForNegativeAtan2 of Atan2<2, 1>: |j, i, x, v| Partials::<T>(&x).operation::<ops::Atan2, 2, 1>()[i].abs();
    NothingOfHypot of Hypot<2, 1>: |j, i, x, v| T::lit(0.0);
}
