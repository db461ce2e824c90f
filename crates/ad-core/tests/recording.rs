//! What a recording keeps: rows, constants, names, parameters, guards, escapes,
//! source lines; and what it refuses: foreign variables.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::cell::Cell;
use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use ad_core::{
    Answer, Dual, Error, Formulas, Guard, Lanes, Linearization, Matrix, Question, Real, Relation, Rule, Samples, Tape,
    Var, Workspace,
};
use common::{assert_same, same};

const NAN: f64 = f64::NAN;

#[test]
fn types_may_go_anywhere() {
    fn anywhere<T: Send + Sync + 'static>() {}
    fn copied<T: Copy>() {}
    anywhere::<Var>();
    copied::<Var>();
    anywhere::<Tape>();
    anywhere::<Error>();
    anywhere::<Samples>();
    anywhere::<Workspace>();
    anywhere::<Linearization>();
    anywhere::<Dual<Var>>();
    anywhere::<Matrix>();
    copied::<Dual>();
    copied::<Lanes<4>>();
    fn std_error<E: std::error::Error>() {}
    std_error::<Error>();
}

// Rows, constants, outputs.

#[test]
fn outputs_of_every_shape() {
    let x0 = [2.0, 3.0];
    let one = Tape::record(&x0, |x| x[0] * x[1]).unwrap();
    assert_eq!((one.num_inputs(), one.num_outputs(), one.num_params(), one.len()), (2, 1, 0, 3));
    assert_eq!(one.eval(&x0).unwrap(), [6.0]);
    let array = Tape::record(&x0, |x| [x[0] + x[1], x[0] - x[1], x[0] * x[1]]).unwrap();
    assert_eq!(array.eval(&x0).unwrap(), [5.0, -1.0, 6.0]);
    let vector = Tape::record(&x0, |x| x.iter().map(|&x| x.sin()).collect::<Vec<_>>()).unwrap();
    assert_eq!(vector.num_outputs(), 2);
    let single = Tape::record(&x0, |x| (x[0],)).unwrap();
    assert_eq!(single.eval(&[7.0, 0.0]).unwrap(), [7.0]);
    let mixed = Tape::record(&x0, |x| (x[0], [x[1], x[0]], vec![x[1] * 2.0], (x[0] + 1.0, x[1]))).unwrap();
    assert_eq!(mixed.eval(&[10.0, 20.0]).unwrap(), [10.0, 20.0, 10.0, 40.0, 11.0, 20.0]);
    let twelve = Tape::record(&x0, |x| {
        let y = x[0];
        (y, y, y, y, y, y, y, y, y, y, y, x[1])
    });
    assert_eq!(twelve.unwrap().num_outputs(), 12);
    // By move: the closure is FnOnce.
    let shift = vec![1.0, 2.0];
    let moved = Tape::record(&x0, move |x| shift.into_iter().zip(x).map(|(s, &x)| s * x).collect::<Vec<_>>()).unwrap();
    assert_eq!(moved.eval(&[1.0, 1.0]).unwrap(), [1.0, 2.0]);
}

#[test]
fn inputs_constants_and_duplicates_as_outputs() {
    let tape = Tape::builder()
        .inputs(&[], &[2.0, 3.0])
        .params(&[], &[5.0])
        .record(|x, k| {
            let y = x[0] * x[1];
            (x[1], Var::from(7.0), y, y, x[1], Var::default(), k[0], k[0] * 2.0)
        })
        .unwrap();
    assert_eq!(tape.len(), 5, "two inputs, a parameter, two rows: constants are no rows");
    assert_eq!(tape.eval(&[4.0, 10.0]).unwrap(), [10.0, 7.0, 40.0, 40.0, 10.0, 0.0, 5.0, 10.0]);
    let (_, dy) = tape.jvp(&[4.0, 10.0], &[1.0, 100.0]).unwrap();
    assert_eq!(dy, [100.0, 0.0, 410.0, 410.0, 100.0, 0.0, 0.0, 0.0]);
    let (_, xbar) = tape.vjp(&[4.0, 10.0], &[1.0, 1e3, 10.0, 100.0, 1.0, 1e3, 1e3, 1e3]).unwrap();
    assert_eq!(xbar, [1100.0, 2.0 + 440.0]);
    // Nothing but a constant: all derivatives are 0.
    let constant = Tape::record(&[1.0], |_| Var::from(3.5)).unwrap();
    assert_eq!(constant.gradient(&[9.0]).unwrap(), (3.5, vec![0.0]));
    assert_eq!(constant.len(), 1);
}

#[test]
fn expressions_of_constants_are_folded() {
    let tape = Tape::record(&[2.0], |x| {
        let mut scale = Var::from(2.0).sin() * 3.0 + Var::from(1.0).max(4.0) - 1.0;
        scale += 2.0;
        scale = scale.select_gt(0.0, scale, Var::from(0.0));
        let total: Var = [scale, Var::from(1.0)].iter().sum();
        assert!(total > 0.0, "no guard either");
        x[0] * total
    })
    .unwrap();
    assert_eq!((tape.len(), tape.guards().len(), tape.escapes().len()), (2, 0, 0));
    let scale = 2.0_f64.sin_cos().0 * 3.0 + 4.0 - 1.0 + 2.0 + 1.0;
    assert!((tape.eval(&[10.0]).unwrap()[0] - 10.0 * scale).abs() < 1e-12);
    // A constant made outside belongs to no recording.
    let outside = Var::from(2.0) * 4.0;
    assert_eq!(Tape::record(&[1.0], |x| x[0] * outside).unwrap().eval(&[3.0]).unwrap(), [24.0]);
    assert_eq!(outside.value(), 8.0);
    assert_eq!(format!("{outside} {outside:?} {outside:.2}"), "8 Var(8.0, constant) 8.00");
}

#[test]
fn both_zeros_are_constants_of_their_own() {
    let tape = Tape::record(&[1.0], |x| [x[0] * 0.0, x[0] * -0.0, x[0].copysign(-0.0), x[0].copysign(0.0)]).unwrap();
    assert_same(&tape.eval(&[1.0]).unwrap(), &[0.0, -0.0, -1.0, 1.0], "signs of zero");
}

#[test]
fn operators_with_numbers_on_either_side() {
    type Pair = (fn(Var, Var) -> Var, fn(f64, f64) -> f64);
    macro_rules! both {
        ($($x:ident $y:ident => $body:expr;)*) => { [$((|$x: Var, $y: Var| $body, |$x: f64, $y: f64| $body)),*] };
    }
    macro_rules! assigned {
        ($x:ident $op:tt $y:expr) => {{
            let mut z = $x;
            z $op $y;
            z
        }};
    }
    let pairs: [Pair; 22] = both! {
        x y => x + y;
        x y => x - y;
        x y => x * y;
        x y => x / y;
        x y => x % y;
        x y => (x + 1.5) - (y - 2.5);
        x y => (x * 1.5) / (y / 2.5);
        x y => (x % 1.5) + (y % -2.5);
        x y => (1.5 + x) * (2.5 - y);
        x y => (1.5 * x) + (2.5 / y);
        x y => (17.5 % x) - (9.5 % y);
        x y => -x + -(-y);
        x y => assigned!(x += y);
        x y => assigned!(x -= y);
        x y => assigned!(x *= y);
        x y => assigned!(x /= y);
        x y => assigned!(x %= y);
        x y => assigned!(x += 3.25) + assigned!(y -= 3.25);
        x y => assigned!(x *= 3.25) + assigned!(y /= 3.25);
        x y => assigned!(x %= 3.25) - y;
        x y => x.mul_add(y, 2.0) - x.powi(3);
        x y => x.sqrt() + y.abs() + x.floor() + y.recip();
    };
    for (i, (f, g)) in pairs.into_iter().enumerate() {
        let tape = Tape::record(&[1.0, 1.0], |x| f(x[0], x[1])).unwrap();
        assert!(tape.guards().is_empty());
        for (x, y) in [(2.5, -3.5), (7.0, 0.3), (1e10, 1e-10), (0.1, 4.0)] {
            assert_same(&tape.eval(&[x, y]).unwrap(), &[g(x, y)], format!("expression {i} at ({x}, {y})"));
        }
    }
}

#[test]
fn sums_and_products_of_iterators() {
    let x0 = [1e16, 1.0, -1e16, 3.0, 0.1];
    let by_iterator: f64 = x0.iter().sum();
    let tapes = [
        Tape::record(&x0, |x| x.iter().sum::<Var>()).unwrap(),
        Tape::record(&x0, |x| x.iter().copied().sum::<Var>()).unwrap(),
        Tape::record(&x0, |x| <Var as Rule>::sum_of(x)).unwrap(),
    ];
    for tape in &tapes {
        assert_eq!(tape.len(), 6, "a sum is one row");
        assert_same(&tape.eval(&x0).unwrap(), &[by_iterator], "a left fold");
        assert_eq!(tape.gradient(&x0).unwrap().1, [1.0; 5]);
    }
    let product = Tape::record(&x0, |x| (x.iter().product::<Var>(), x.iter().copied().product::<Var>())).unwrap();
    assert_same(&product.eval(&x0).unwrap(), &[x0.iter().product(); 2], "a product");
    let dot = Tape::record(&x0, |x| Var::dot(x, &x[1..])).unwrap();
    assert_eq!(dot.len(), 6, "a dot product is one row");
    let by_hand = x0[1..].iter().zip(&x0).skip(1).fold(x0[0] * x0[1], |sum, (b, a)| sum + a * b);
    assert_same(&dot.eval(&x0).unwrap(), &[by_hand], "a left fold with two roundings");
    // Empty and single ones leave no row.
    let none: [Var; 0] = [];
    let tape = Tape::record(&[2.0], |x| {
        (
            none.iter().sum::<Var>(),
            none.iter().product::<Var>(),
            x[..1].iter().sum::<Var>(),
            x.iter().product::<Var>(),
            Var::dot(&none, x),
        )
    })
    .unwrap();
    assert_eq!(tape.len(), 1);
    assert_same(&tape.eval(&[5.0]).unwrap(), &[-0.0, 1.0, 5.0, 5.0, -0.0], "empty and single");
}

/// Nothing recurses over a tape: a long chain neither overflows the stack nor drops slowly.
#[test]
fn a_long_chain() {
    const ROWS: usize = 300_000;
    let tape = Tape::record(&[0.5], |x| (0..ROWS).fold(x[0], |y, _| y * 0.999_999)).unwrap();
    assert_eq!(tape.len(), 1 + ROWS);
    let expected = (0..ROWS).fold(1.0, |y, _| y * 0.999_999);
    let (y, dy) = tape.jvp(&[1.0], &[1.0]).unwrap();
    let (_, gradient) = tape.gradient(&[1.0]).unwrap();
    assert_eq!((y[0], dy[0], gradient[0]), (expected, expected, expected));
    let formulas = Formulas::new();
    let formula = tape.eval_with(&[formulas.symbol("x")]).unwrap()[0];
    assert!(formula.to_string().len() < 100_000, "a long formula is cut");
    // Shared parts would repeat without end.
    let doubled = Tape::record(&[0.5], |x| (0..200).fold(x[0], |y, _| y * y)).unwrap();
    let formula = doubled.eval_with(&[formulas.symbol("x")]).unwrap()[0];
    assert!(formula.to_string().len() < 100_000);
    // A wide row.
    let wide = Tape::record(&vec![1.0; 10_000], |x| x.iter().sum::<Var>()).unwrap();
    assert_eq!(wide.gradient(&vec![2.0; 10_000]).unwrap(), (20_000.0, vec![1.0; 10_000]));
    assert!(wide.to_string().contains("9992 more"), "{}", wide.to_string().lines().nth(10_000).unwrap());
}

#[test]
fn a_row_with_two_results() {
    let tape = Tape::record(&[0.5], |x| {
        let (s, c) = x[0].sin_cos();
        [c, s * c, x[0].sin_cos().1]
    })
    .unwrap();
    tape.check().unwrap();
    for x in [0.5_f64, -2.0, 1e5] {
        let (s, c) = Rule::sin_cos(x);
        assert_same(&tape.eval(&[x]).unwrap(), &[c, s * c, c], "values");
        assert_eq!(tape.jvp(&[x], &[1.0]).unwrap().1, [-s, c * c + s * -s, -s]);
        assert_eq!(tape.vjp(&[x], &[0.0, 1.0, 0.0]).unwrap().1, [c * c + -s * s]);
        assert_eq!(tape.vjp(&[x], &[1.0, 0.0, 0.0]).unwrap().1, [-s]);
    }
    let listed = tape.to_string();
    assert!(listed.contains("sin(v₀)") && listed.contains("cos(v₀)"), "{listed}");
}

#[test]
fn select_keeps_both_branches_without_a_guard() {
    for relation in Relation::ALL {
        let tape = Tape::record(&[1.0, 2.0], |x| {
            let (a, b) = (x[0], x[1]);
            let (t, f) = (a * 10.0, b * 100.0);
            match relation {
                Relation::Lt => a.select_lt(b, t, f),
                Relation::Le => a.select_le(b, t, f),
                Relation::Gt => a.select_gt(b, t, f),
                Relation::Ge => a.select_ge(b, t, f),
                Relation::Eq => a.select_eq(b, t, f),
                Relation::Ne => a.select_ne(b, t, f),
            }
        })
        .unwrap();
        assert!(tape.guards().is_empty());
        for (a, b) in [(1.0, 2.0), (2.0, 1.0), (2.0, 2.0), (0.0, -0.0), (NAN, 1.0), (1.0, NAN)] {
            let taken = relation.holds(a, b);
            assert_same(&tape.eval(&[a, b]).unwrap(), &[if taken { a * 10.0 } else { b * 100.0 }], relation.symbol());
            let gradient = if taken { [10.0, 0.0] } else { [0.0, 100.0] };
            assert_eq!(tape.gradient(&[a, b]).unwrap().1, gradient, "{} at ({a}, {b})", relation.symbol());
        }
    }
}

#[test]
fn kinks_are_operations_and_not_guards() {
    let tape = Tape::record(&[1.0, 2.0], |x| {
        let y = x[0].min(x[1]).max(0.5).abs().clamp(-1.0, x[1]).relu() + x[0].sign() + x[0].floor();
        y + x[0].rem_euclid(x[1]) + x[0].div_euclid(2.0) + x[0].fract() + x[1].to_degrees() + x[1].to_radians()
    })
    .unwrap();
    assert!(tape.guards().is_empty());
    assert!(tape.eval(&[-3.0, 0.25]).is_ok());
    let tape = Tape::record(&[1.0, 1.0], |x| [x[0].rem_euclid(x[1]), x[0].div_euclid(x[1]), x[0].fract()]).unwrap();
    for (a, b) in [(7.5_f64, 2.0_f64), (-7.5, 2.0), (7.5, -2.0), (-7.5, -2.0), (6.0, 3.0)] {
        assert_same(&tape.eval(&[a, b]).unwrap(), &[a.rem_euclid(b), a.div_euclid(b), a.fract()], format!("{a}, {b}"));
    }
}

// Names and parameters.

#[test]
fn names_show_in_the_list() {
    let tape = Tape::builder()
        .inputs(&["speed", "größe"], &[1.0, 2.0])
        .params(&["k"], &[3.0])
        .record(|x, k| x[0] * x[1] + k[0])
        .unwrap();
    let listed = tape.to_string();
    assert!(listed.contains("speed") && listed.contains("größe") && listed.contains('k'), "{listed}");
    assert_eq!((tape.num_inputs(), tape.num_params(), tape.len()), (2, 1, 5));
    let unnamed = Tape::builder().inputs(&[], &[1.0, 2.0]).params(&[], &[3.0]).record(|x, k| x[0] * k[0]).unwrap();
    let listed = unnamed.to_string();
    assert!(listed.contains("x₁") && listed.contains("k₁"), "{listed}");
}

#[test]
fn parameters_are_data_of_a_replay() {
    let f = |x: &[Var], k: &[Var]| [x[0] * k[0] + (k[1] * k[0]).exp(), k[1].sin(), x[1] - k[1].sin() * k[0]];
    let tape = Tape::builder().inputs(&[], &[1.0, 2.0]).params(&[], &[0.5, 0.25]).record(f).unwrap();
    assert_eq!(tape.params(), [0.5, 0.25]);
    for k in [[0.5, 0.25], [-1.0, 3.0], [0.0, NAN], [f64::INFINITY, 1.0]] {
        let with = tape.with_params(&k).unwrap();
        assert_same(with.params(), &k, "parameters");
        let fresh = Tape::builder().inputs(&[], &[1.0, 2.0]).params(&[], &k).record(f).unwrap();
        // A tape with the numbers written in as constants.
        let baked = Tape::record(&[1.0, 2.0], |x| f(x, &k.map(Var::from))).unwrap();
        for x in [[1.0, 2.0], [-3.0, 0.5]] {
            for other in [&fresh, &baked] {
                assert_same(&with.eval(&x).unwrap(), &other.eval(&x).unwrap(), "values");
                assert_same(
                    &with.jvp(&x, &[1.0, -2.0]).unwrap().1,
                    &other.jvp(&x, &[1.0, -2.0]).unwrap().1,
                    "tangents",
                );
                let w = [0.5, 2.0, -1.0];
                assert_same(&with.vjp(&x, &w).unwrap().1, &other.vjp(&x, &w).unwrap().1, "adjoints");
            }
        }
    }
    assert_eq!(tape.params(), [0.5, 0.25], "with_params leaves its tape alone");
}

#[test]
fn a_guard_on_parameters_is_asked_again() {
    let record = |x: &[Var], k: &[Var]| if k[0] > 0.0 { x[0] * k[0] } else { x[0] };
    let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[2.0]).record(record).unwrap();
    assert_eq!(tape.with_params(&[3.0]).unwrap().eval(&[5.0]).unwrap(), [15.0]);
    let changed = tape.with_params(&[-3.0]).unwrap().eval(&[5.0]);
    let Err(Error::BranchChanged { lhs, rhs, sample: None, .. }) = changed else { panic!("{changed:?}") };
    assert_eq!((lhs, rhs), (-3.0, 0.0));
}

// Guards.

/// Points that answer each relation both ways.
const PAIRS: [[f64; 2]; 6] = [[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [NAN, 2.0], [0.0, -0.0], [f64::INFINITY, 1.0]];

/// A comparison, the line it stands on, and its operands as functions of the inputs.
struct Comparison {
    question: Question,
    line: u32,
    /// From inside std, where the line is that of the row before.
    nearest: bool,
    ask: fn(Var, Var) -> Answer,
    operands: fn(f64, f64) -> [f64; 2],
}

/// Records the comparison at every pair and replays it at every pair.
fn check_comparison(comparison: &Comparison) {
    let Comparison { question, line, nearest, ask, operands } = *comparison;
    for x0 in PAIRS {
        let told = Cell::new(Answer::Bool(false));
        let tape = Tape::record(&x0, |x| {
            let first = x[0] + x[1]; // The row before the comparison.
            told.set(ask(x[0], x[1]));
            first * 2.0
        })
        .unwrap();
        let what = format!("{question:?} of line {line} recorded at {x0:?}");
        let [guard] = tape.guards() else { panic!("{what}: {:?}", tape.guards()) };
        let answer = |x: [f64; 2]| {
            let [a, b] = operands(x[0], x[1]);
            answer_of(question, a, b)
        };
        assert_eq!(guard.question(), question, "{what}");
        assert_eq!((guard.answer(), told.get()), (answer(x0), answer(x0)), "{what}");
        assert_eq!(guard.location().is_nearest(), nearest, "{what}: {}", guard.location());
        assert_eq!(guard.location().file(), file!(), "{what}");
        if !nearest {
            assert_eq!(guard.location().line(), line, "{what}");
        }
        for x in PAIRS {
            let (now, [a, b]) = (answer(x), operands(x[0], x[1]));
            match tape.eval(&x) {
                Ok(y) => {
                    assert_eq!(now, answer(x0), "{what}: no error at {x:?}");
                    assert_same(&y, &[(x[0] + x[1]) * 2.0], &what);
                }
                Err(error) => {
                    assert_ne!(now, answer(x0), "{what}: {error} at {x:?}");
                    changed(&error, guard, now, a, if question.operands() == 1 { NAN } else { b });
                }
            }
            // Every driver asks.
            let asked = [
                tape.jvp(&x, &[1.0, 0.0]).is_err(),
                tape.vjp(&x, &[1.0]).is_err(),
                tape.gradient(&x).is_err(),
                tape.jacobian(&x).is_err(),
                tape.jvp_many(&x, &Matrix::identity(2)).is_err(),
                tape.at(&x).is_err(),
                tape.eval_with(&x.map(Lanes::<2>::from)).is_err(),
                tape.eval_with(&x.map(Dual::<f64>::from)).is_err(),
                tape.eval_with(&x).is_err(),
            ];
            assert_eq!(asked, [now != answer(x0); 9], "{what}, replayed at {x:?}");
        }
    }
}

/// The answer by std's comparisons.
fn answer_of(question: Question, a: f64, b: f64) -> Answer {
    match question {
        Question::Relation(Relation::Lt) => Answer::Bool(a < b),
        Question::Relation(Relation::Le) => Answer::Bool(a <= b),
        Question::Relation(Relation::Gt) => Answer::Bool(a > b),
        Question::Relation(Relation::Ge) => Answer::Bool(a >= b),
        Question::Relation(Relation::Eq) => Answer::Bool(a == b),
        Question::Relation(Relation::Ne) => Answer::Bool(a != b),
        Question::Compare => Answer::Ordering(a.partial_cmp(&b)),
        Question::IsNan => Answer::Bool(a.is_nan()),
        Question::IsFinite => Answer::Bool(a.is_finite()),
        Question::IsInfinite => Answer::Bool(a.is_infinite()),
        Question::IsSignNegative => Answer::Bool(a.is_sign_negative()),
        Question::ToI64 => Answer::Integer(a.is_finite().then_some(a as i64)),
        Question::IsNormal => Answer::Bool(a.is_normal()),
        Question::IsSubnormal => Answer::Bool(a.is_subnormal()),
        other => panic!("{other:?}"),
    }
}

/// Checks the fields and the message of a changed branch.
#[track_caller]
fn changed(error: &Error, expected: &Guard, answer: Answer, a: f64, b: f64) {
    let Error::BranchChanged { guard, location, now, lhs, rhs, sample, .. } = error else { panic!("{error:?}") };
    assert_eq!(**guard, *expected);
    assert_eq!(location, expected.location());
    assert!(*now == answer && same(*lhs, a) && same(*rhs, b) && sample.is_none(), "{error:?}");
    let message = error.to_string();
    let place = format!("{}:{}", expected.location().file(), expected.location().line());
    // A long number is written with an exponent.
    let number = if a.abs() >= 1e16 { format!("{a:e}") } else { format!("{a}") };
    for part in [place, expected.to_string(), number, answer.to_string(), "select_".to_owned(), "record".to_owned()] {
        assert!(message.contains(&part), "{part:?} is missing: {message}");
    }
}

#[test]
#[rustfmt::skip]
fn every_relation_is_a_guard_with_its_line() {
    use Relation::{Eq, Ge, Gt, Le, Lt, Ne};
    let both: fn(f64, f64) -> [f64; 2] = |a, b| [a, b];
    let right: fn(f64, f64) -> [f64; 2] = |a, _| [a, 2.0];
    let left: fn(f64, f64) -> [f64; 2] = |a, _| [2.0, a];
    let of = |relation, line, ask, operands| Comparison { question: Question::Relation(relation), line, nearest: false, ask, operands };
    let table = [
        of(Lt, line!(), |a, b| Answer::Bool(a < b), both),
        of(Le, line!(), |a, b| Answer::Bool(a <= b), both),
        of(Gt, line!(), |a, b| Answer::Bool(a > b), both),
        of(Ge, line!(), |a, b| Answer::Bool(a >= b), both),
        of(Eq, line!(), |a, b| Answer::Bool(a == b), both),
        of(Ne, line!(), |a, b| Answer::Bool(a != b), both),
        of(Lt, line!(), |a, _| Answer::Bool(a < 2.0), right),
        of(Le, line!(), |a, _| Answer::Bool(a <= 2.0), right),
        of(Gt, line!(), |a, _| Answer::Bool(a > 2.0), right),
        of(Ge, line!(), |a, _| Answer::Bool(a >= 2.0), right),
        of(Eq, line!(), |a, _| Answer::Bool(a == 2.0), right),
        of(Ne, line!(), |a, _| Answer::Bool(a != 2.0), right),
        of(Lt, line!(), |a, _| Answer::Bool(2.0 < a), left),
        of(Le, line!(), |a, _| Answer::Bool(2.0 <= a), left),
        of(Gt, line!(), |a, _| Answer::Bool(2.0 > a), left),
        of(Ge, line!(), |a, _| Answer::Bool(2.0 >= a), left),
        of(Eq, line!(), |a, _| Answer::Bool(2.0 == a), left),
        of(Ne, line!(), |a, _| Answer::Bool(2.0 != a), left),
    ];
    table.iter().for_each(check_comparison);
}

/// Compares in code that knows only the trait, in a line of its own each.
#[rustfmt::skip]
mod generic {
    use super::*;
    pub const FIRST_LINE: u32 = line!() + 1;
    pub fn lt<T: Real>(a: T, b: T) -> bool { a < b }
    pub fn le<T: Real>(a: T, b: T) -> bool { a <= b }
    pub fn gt<T: Real>(a: T, b: T) -> bool { a > b }
    pub fn ge<T: Real>(a: T, b: T) -> bool { a >= b }
    pub fn eq<T: Real>(a: T, b: T) -> bool { a == b }
    pub fn ne<T: Real>(a: T, b: T) -> bool { a != b }
    pub fn lt_number<T: Real>(a: T) -> bool { a < 2.0 }
    pub fn ne_number<T: Real>(a: T) -> bool { a != 2.0 }
    pub fn compare<T: Real>(a: T, b: T) -> Option<Ordering> { a.partial_cmp(&b) }
    pub fn nan<T: Real>(a: T) -> bool { a.is_nan() }
    pub fn finite<T: Real>(a: T) -> bool { a.is_finite() }
    pub fn value<T: Real>(a: T) -> f64 { a.value() }
}

#[test]
fn comparisons_in_generic_code_have_its_line() {
    use Relation::{Eq, Ge, Gt, Le, Lt, Ne};
    let both: fn(f64, f64) -> [f64; 2] = |a, b| [a, b];
    let right: fn(f64, f64) -> [f64; 2] = |a, _| [a, 2.0];
    let one: fn(f64, f64) -> [f64; 2] = |a, _| [a, NAN];
    let of = |question, offset, ask, operands| Comparison {
        question,
        line: generic::FIRST_LINE + offset,
        nearest: false,
        ask,
        operands,
    };
    let table = [
        of(Question::Relation(Lt), 0, |a, b| Answer::Bool(generic::lt(a, b)), both),
        of(Question::Relation(Le), 1, |a, b| Answer::Bool(generic::le(a, b)), both),
        of(Question::Relation(Gt), 2, |a, b| Answer::Bool(generic::gt(a, b)), both),
        of(Question::Relation(Ge), 3, |a, b| Answer::Bool(generic::ge(a, b)), both),
        of(Question::Relation(Eq), 4, |a, b| Answer::Bool(generic::eq(a, b)), both),
        of(Question::Relation(Ne), 5, |a, b| Answer::Bool(generic::ne(a, b)), both),
        of(Question::Relation(Lt), 6, |a, _| Answer::Bool(generic::lt_number(a)), right),
        of(Question::Relation(Ne), 7, |a, _| Answer::Bool(generic::ne_number(a)), right),
        of(Question::Compare, 8, |a, b| Answer::Ordering(generic::compare(a, b)), both),
        of(Question::IsNan, 9, |a, _| Answer::Bool(generic::nan(a)), one),
        of(Question::IsFinite, 10, |a, _| Answer::Bool(generic::finite(a)), one),
    ];
    table.iter().for_each(check_comparison);
    let tape = Tape::record(&[3.0], |x| x[0] * generic::value(x[0])).unwrap();
    assert_eq!(tape.escapes()[0].location().line(), generic::FIRST_LINE + 11);
}

#[test]
#[rustfmt::skip]
fn three_way_comparisons_and_questions_of_one_operand() {
    let both: fn(f64, f64) -> [f64; 2] = |a, b| [a, b];
    let one: fn(f64, f64) -> [f64; 2] = |a, _| [a, NAN];
    let of = |question, line, ask, operands| Comparison { question, line, nearest: false, ask, operands };
    let table = [
        of(Question::Compare, line!(), |a, b| Answer::Ordering(a.partial_cmp(&b)), both),
        of(Question::Compare, line!(), |a, _| Answer::Ordering(a.partial_cmp(&2.0)), |a, _| [a, 2.0]),
        of(Question::Compare, line!(), |a, _| Answer::Ordering(2.0.partial_cmp(&a)), |a, _| [2.0, a]),
        of(Question::IsNan, line!(), |a, _| Answer::Bool(a.is_nan()), one),
        of(Question::IsFinite, line!(), |a, _| Answer::Bool(a.is_finite()), one),
        of(Question::IsInfinite, line!(), |a, _| Answer::Bool(a.is_infinite()), one),
        of(Question::IsSignNegative, line!(), |_, b| Answer::Bool(b.is_sign_negative()), |_, b| [b, NAN]),
        of(Question::IsSignNegative, line!(), |_, b| Answer::Bool(!b.is_sign_positive()), |_, b| [b, NAN]),
        of(Question::ToI64, line!(), |a, _| Answer::Integer(a.to_i64()), one),
        of(Question::IsNormal, line!(), |a, _| Answer::Bool(a.is_normal()), one),
        of(Question::IsSubnormal, line!(), |a, _| Answer::Bool(a.is_subnormal()), one),
    ];
    table.iter().for_each(check_comparison);
}

#[test]
#[allow(clippy::op_ref)]
fn comparisons_through_references_show_the_row_before() {
    use Relation::{Eq, Ge, Gt, Le, Lt, Ne};
    let both: fn(f64, f64) -> [f64; 2] = |a, b| [a, b];
    let of = |question, ask| Comparison { question, line: 0, nearest: true, ask, operands: both };
    let table = [
        of(Question::Relation(Lt), |a, b| Answer::Bool(&a < &b)),
        of(Question::Relation(Le), |a, b| Answer::Bool(&a <= &b)),
        of(Question::Relation(Gt), |a, b| Answer::Bool(&a > &b)),
        of(Question::Relation(Ge), |a, b| Answer::Bool(&a >= &b)),
        of(Question::Relation(Eq), |a, b| Answer::Bool(&a == &b)),
        of(Question::Relation(Ne), |a, b| Answer::Bool(&a != &b)),
        of(Question::Relation(Gt), |a, b| Answer::Bool(&&a > &&b)),
    ];
    table.iter().for_each(check_comparison);

    let mut line = 0;
    let tape = Tape::record(&[1.0, 2.0], |x| {
        let (a, b) = (&x[0], &x[1]);
        line = line!() + 1;
        let y = x[0] * 3.0;
        if a < b { y } else { -y }
    })
    .unwrap();
    let location = tape.guards()[0].location();
    assert_eq!((location.line(), location.is_nearest()), (line, true));
    assert_eq!(location.to_string(), format!("near {}:{line}", file!()));
    let message = tape.eval(&[2.0, 1.0]).unwrap_err().to_string();
    assert!(message.contains(&location.to_string()), "{message}");
    // Without a row before it, the place of the recording.
    let line = line!() + 1;
    let tape = Tape::record(&[1.0, 2.0], |x| if &x[0] < &x[1] { x[0] } else { x[1] }).unwrap();
    assert_eq!((tape.guards()[0].location().line(), tape.guards()[0].location().is_nearest()), (line, true));
}

#[test]
fn sorting_and_tuples_are_guarded() {
    let sorted = |x: &[Var]| {
        let mut y = x.to_vec();
        y.sort_by(|a, b| a.partial_cmp(b).unwrap());
        y
    };
    let tape = Tape::record(&[3.0, 1.0, 2.0], sorted).unwrap();
    assert!(!tape.guards().is_empty() && tape.guards().iter().all(|guard| guard.location().file() == file!()));
    assert_eq!(tape.eval(&[30.0, 1.5, 2.0]).unwrap(), [1.5, 2.0, 30.0]);
    assert!(matches!(tape.eval(&[1.0, 2.0, 3.0]), Err(Error::BranchChanged { .. })));
    assert!(matches!(tape.eval(&[3.0, 1.0, NAN]), Err(Error::BranchChanged { .. })));

    let largest = |x: &[Var]| x.iter().copied().reduce(|a, b| if b > a { b } else { a }).unwrap();
    let tape = Tape::record(&[3.0, 1.0, 2.0], largest).unwrap();
    assert_eq!(tape.guards().len(), 2);
    assert_eq!(tape.gradient(&[5.0, 4.0, 3.0]).unwrap(), (5.0, vec![1.0, 0.0, 0.0]));
    assert!(tape.gradient(&[5.0, 6.0, 3.0]).is_err());

    let tuples = |x: &[Var]| if (x[0], x[1]) < (x[2], x[3]) { x[0] } else { x[2] };
    let tape = Tape::record(&[1.0, 2.0, 1.0, 3.0], tuples).unwrap();
    assert!(!tape.guards().is_empty() && tape.guards().iter().all(|guard| guard.location().is_nearest()));
    assert_eq!(tape.eval(&[7.0, 2.0, 7.0, 3.0]).unwrap(), [7.0]);
    assert!(tape.eval(&[1.0, 4.0, 1.0, 3.0]).is_err(), "the second pair decides, the other way");
    let tape = Tape::record(&[1.0, 2.0], |x| if [x[0]] == [x[1]] { x[0] } else { x[1] }).unwrap();
    assert!(tape.eval(&[1.0, 1.0]).is_err());
}

#[test]
fn comparisons_in_duals_of_variables_have_the_users_line() {
    fn f<T: Real>(x: T) -> T {
        if x > 1.0 { x * x } else { x }
    }
    let line = line!() - 2;
    let tape = Tape::record(&[3.0], |x| {
        let y = f(Dual::new(x[0], Var::from(1.0)));
        [y.v, y.dv]
    })
    .unwrap();
    assert_eq!(tape.eval(&[5.0]).unwrap(), [25.0, 10.0]);
    assert!(matches!(tape.eval(&[0.5]), Err(Error::BranchChanged { .. })));
    let location = tape.guards()[0].location();
    assert_eq!((location.file(), location.line()), (file!(), line), "{}", tape.guards()[0]);
}

#[test]
fn the_first_guard_that_fails_is_reported() {
    let tape = Tape::record(&[1.0, 1.0], |x| {
        let mut y = x[0];
        if x[1] > 0.0 {
            y += 1.0;
        }
        if x[0] > 0.0 {
            y += 1.0;
        }
        y
    })
    .unwrap();
    let failed = |x: [f64; 2]| match tape.eval(&x) {
        Err(Error::BranchChanged { guard, .. }) => tape.guards().iter().position(|other| *other == *guard),
        other => panic!("{other:?}"),
    };
    assert_eq!(failed([-1.0, -1.0]), Some(0));
    assert_eq!(failed([-1.0, 1.0]), Some(1));
}

#[test]
fn whole_numbers_are_guarded() {
    let tape = Tape::record(&[2.75], |x| x[0] * x[0].to_i64().unwrap() as f64).unwrap();
    assert_eq!(tape.eval(&[2.0]).unwrap(), [4.0]);
    for x in [1.9999, 3.0, -2.5, NAN, f64::INFINITY, 1e300] {
        let error = tape.eval(&[x]).unwrap_err();
        let answer = Answer::Integer((x.abs() < 1e18).then_some(x as i64));
        changed(&error, &tape.guards()[0], answer, x, NAN);
    }
    // 2⁶³: one more than the largest i64.
    const LIMIT: f64 = (1_u64 << 63) as f64;
    for (x, whole) in [
        (-0.5, Some(0)),
        (-LIMIT, Some(i64::MIN)),
        (LIMIT, None),
        (LIMIT - 1024.0, Some(i64::MAX - 1023)),
        (f64::NEG_INFINITY, None),
        (NAN, None),
    ] {
        let told = Cell::new(None);
        Tape::record(&[x], |v| {
            told.set(v[0].to_i64());
            v[0]
        })
        .unwrap();
        assert_eq!(told.get(), whole, "{x}");
    }
}

#[test]
fn a_replay_in_var_takes_the_guards_along() {
    let inner = Tape::record(&[1.0], |x| if x[0] > 0.0 { x[0] * 2.0 } else { -x[0] }).unwrap();
    let outer = Tape::record(&[4.0], |x| inner.eval_with(&[x[0] - 1.0]).unwrap()[0]).unwrap();
    assert_eq!(outer.guards().len(), 1);
    assert_eq!(outer.eval(&[3.0]).unwrap(), [4.0]);
    assert!(matches!(outer.eval(&[0.5]), Err(Error::BranchChanged { .. })));
    let refused = Tape::record(&[-4.0], |x| match inner.eval_with(x) {
        Err(Error::BranchChanged { lhs, .. }) => x[0] * lhs,
        other => panic!("{other:?}"),
    });
    assert_eq!(refused.unwrap().eval(&[-4.0]).unwrap(), [16.0]);
}

// Escapes.

#[test]
fn escapes_are_listed_with_value_and_line() {
    let mut lines = Vec::new();
    let tape = Tape::builder()
        .inputs(&[], &[3.0])
        .params(&[], &[7.0])
        .record(|x, k| {
            lines.push(line!() + 1);
            let scale = x[0].value();
            lines.push(line!() + 1);
            let square = (x[0] * x[0]).value();
            lines.push(line!() + 1);
            let shift = k[0].value();
            assert_eq!(Var::from(2.0).value(), 2.0);
            x[0] * scale + square + shift
        })
        .unwrap();
    let escapes: Vec<(f64, u32)> = tape.escapes().iter().map(|e| (e.value(), e.location().line())).collect();
    assert_eq!(escapes, [(3.0, lines[0]), (9.0, lines[1]), (7.0, lines[2])]);
    let text = tape.escapes()[1].to_string();
    assert!(text.contains("v₁") && text.contains('9') && text.contains(&format!("{}:{}", file!(), lines[1])), "{text}");
    assert_eq!(tape.gradient(&[10.0]).unwrap(), (46.0, vec![3.0]), "what escaped is a constant");
    // Printing is for looking, not an escape.
    let tape = Tape::record(&[3.0], |x| {
        assert_eq!(format!("{} {:.1}", x[0], x[0]), "3 3.0");
        assert!(format!("{:?}", x[0]).starts_with("Var(3.0, node 0 of recording "));
        x[0]
    });
    assert!(tape.unwrap().escapes().is_empty());
}

// Recordings inside recordings, in panics, on threads.

#[test]
fn recordings_nest() {
    let outer = Tape::record(&[2.0], |x| {
        let y = x[0] * 3.0;
        let inner = Tape::record(&[5.0], |u| {
            let innermost = Tape::record(&[1.0], |w| w[0] + 1.0).unwrap();
            u[0] * u[0] + innermost.eval(&[1.0]).unwrap()[0]
        })
        .unwrap();
        assert_eq!(inner.eval(&[3.0]).unwrap(), [11.0]);
        let z = inner.eval_with(&[y]).unwrap()[0];
        z + x[0]
    })
    .unwrap();
    assert_eq!(outer.eval(&[1.0]).unwrap(), [3.0 * 3.0 + 2.0 + 1.0]);
    assert_eq!(outer.gradient(&[1.0]).unwrap().1, [19.0]);
}

/// Panics without a message on stderr.
fn quietly() -> Var {
    resume_unwind(Box::new("on purpose"))
}

#[test]
fn a_panic_leaves_no_recording_behind() {
    let works = || assert_eq!(Tape::record(&[1.0], |x| x[0] * 2.0).unwrap().eval(&[4.0]).unwrap(), [8.0]);
    for _ in 0..3 {
        let leaked = Cell::new(Var::from(0.0));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            Tape::record(&[1.0], |x| {
                leaked.set(x[0].sin());
                quietly()
            })
        }));
        assert!(panicked.is_err());
        works();
        // Its variables are foreign now.
        let leaked = leaked.get();
        assert!(matches!(Tape::record(&[1.0], |x| x[0] + leaked), Err(Error::ForeignVar { .. })));
    }
    // A panic of an inner recording that the outer one catches.
    let outer = Tape::record(&[2.0], |x| {
        let before = x[0] * 3.0;
        let inner = catch_unwind(AssertUnwindSafe(|| {
            Tape::record(&[1.0], |_| {
                let _ = Tape::record(&[1.0], |_| quietly());
                Var::from(0.0)
            })
        }));
        assert!(inner.is_err());
        works();
        before + x[0]
    })
    .unwrap();
    assert_eq!((outer.eval(&[5.0]).unwrap(), outer.len()), (vec![20.0], 3));
    works();
    // A panic through both.
    let both =
        catch_unwind(|| Tape::record(&[1.0], |_| Tape::record(&[1.0], |_| quietly()).map(|_| Var::from(0.0)).unwrap()));
    assert!(both.is_err());
    works();
}

#[test]
fn threads_record_for_themselves() {
    let tapes: Vec<Tape> = std::thread::scope(|scope| {
        let record = |t: usize| {
            Tape::record(&[1.0], |x| {
                let mut y = x[0];
                for i in 0..200 {
                    y = (y * (t as f64) + i as f64).sin();
                    std::thread::yield_now();
                }
                y
            })
            .unwrap()
        };
        let handles: Vec<_> = (0..4).map(|t| scope.spawn(move || record(t))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    for (t, tape) in tapes.iter().enumerate() {
        let expected = (0..200).fold(1.0, |y: f64, i| Rule::sin(y * (t as f64) + i as f64));
        assert_same(&tape.eval(&[1.0]).unwrap(), &[expected], format!("thread {t}"));
    }
    // One tape, read by many.
    let tape = &tapes[3];
    let expected = tape.gradient(&[0.7]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(tape.gradient(&[0.7]).unwrap(), expected));
        }
    });
}

// Foreign variables.

#[track_caller]
fn foreign(result: Result<Tape, Error>, line: u32, value: f64) {
    let Err(Error::ForeignVar { location, value: got }) = &result else { panic!("{result:?}") };
    assert_eq!((location.file(), location.line(), *got), (file!(), line, value));
    let message = result.unwrap_err().to_string();
    for part in [&format!("{}:{line}", file!()), &format!("{value}"), "parameter", ".value()"] {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
}

/// A variable of a recording that has ended.
fn leaked(value: f64) -> Var {
    let leak = Cell::new(Var::from(0.0));
    Tape::record(&[value], |x| {
        leak.set(x[0]);
        x[0]
    })
    .unwrap();
    leak.get()
}

#[test]
#[rustfmt::skip]
fn every_use_of_a_leaked_variable_is_an_error() {
    let old = leaked(4.5);
    type Use = (u32, fn(Var, Var) -> Var);
    let uses: [Use; 20] = [
        (line!(), |x, old| x + old),
        (line!(), |x, old| old * x),
        (line!(), |x, old| { let _ = old + 1.0; x }),
        (line!(), |x, old| { let _ = 2.0 / old; x }),
        (line!(), |x, old| { let _ = -old; x }),
        (line!(), |x, old| { let mut x = x; x += old; x }),
        (line!(), |x, old| { let mut o = old; o *= 2.0; x }),
        (line!(), |x, old| { let _ = old.sin(); x }),
        (line!(), |x, old| { let _ = old.sin_cos(); x }),
        (line!(), |x, old| x.atan2(old)),
        (line!(), |x, old| x.select_gt(0.0, x, old)),
        (line!(), |x, old| Var::dot(&[x, x], &[x, old])),
        (line!(), |x, old| if x > old { x } else { -x }),
        (line!(), |x, old| if 0.0 < old { x } else { -x }),
        (line!(), |x, old| if x == old { x } else { -x }),
        (line!(), |x, old| x * if old.is_nan() { 1.0 } else { 2.0 }),
        (line!(), |x, old| x * old.to_i64().unwrap_or(0) as f64),
        (line!(), |x, old| { let _ = x.partial_cmp(&old); x }),
        (line!(), |x, old| { let y = old.exp(); y.ln() + x }),
        (line!(), |x, old| <Var as Rule>::sum_of(&[x, x, old])),
    ];
    for (line, f) in uses {
        foreign(Tape::record(&[1.0], |x| f(x[0], old)), line, 4.5);
    }
    // Returned, it is met where the recording was asked for.
    foreign(Tape::record(&[1.0], |_| old), line!(), 4.5);
    foreign(Tape::record(&[1.0], |x| (x[0], vec![x[0], old])), line!(), 4.5);
    foreign(Tape::builder().inputs(&[], &[1.0]).record(|_, _| old), line!(), 4.5);
    // Computed from it outside any recording, it is poisoned.
    let poisoned = old * 2.0;
    assert!(format!("{poisoned:?}").contains("foreign"));
    foreign(Tape::record(&[1.0], |_| poisoned), line!(), 9.0);
    foreign(Tape::record(&[1.0], |x| x[0] * poisoned), line!(), 9.0);
    foreign(Tape::record(&[1.0], |x| if poisoned > x[0] { x[0] } else { -x[0] }), line!(), 9.0);
    foreign(Tape::record(&[1.0], |x| if poisoned.is_finite() { x[0] } else { -x[0] }), line!(), 9.0);
    // The first of several is named.
    foreign(Tape::record(&[1.0], |x| x[0] * old + poisoned), line!(), 4.5);
    // Reading it is allowed: it is a number.
    assert_eq!(Tape::record(&[1.0], |x| x[0] * old.value()).unwrap().eval(&[2.0]).unwrap(), [9.0]);
}

#[test]
fn a_recording_inside_another_cannot_use_its_variables() {
    let mut line = 0;
    let outer = Tape::record(&[3.0], |x| {
        line = line!() + 1;
        let inner = Tape::record(&[1.0], |u| u[0] * x[0]);
        foreign(inner, line, 3.0);
        let inner = Tape::record(&[1.0], |u| if x[0] > 0.0 { u[0] } else { -u[0] });
        assert!(matches!(inner, Err(Error::ForeignVar { .. })));
        // As a number it may go in: an escape of the outer recording, which is listed there.
        let inner = Tape::record(&[1.0], |u| u[0] * x[0].value()).unwrap();
        assert!(inner.escapes().is_empty());
        assert_eq!(inner.eval(&[2.0]).unwrap(), [6.0]);
        // As a parameter too.
        let inner =
            Tape::builder().inputs(&[], &[1.0]).params(&[], &[x[0].value()]).record(|u, k| u[0] * k[0]).unwrap();
        assert_eq!(inner.eval(&[2.0]).unwrap(), [6.0]);
        x[0] * 2.0
    })
    .unwrap();
    assert_eq!(outer.escapes().len(), 2, "the inner failures leave the outer recording whole");
    // The comparison that failed the inner one is a guard of the variable's own recording.
    assert_eq!((outer.guards().len(), outer.eval(&[4.0]).unwrap()), (1, vec![8.0]));
    assert!(matches!(outer.eval(&[-4.0]), Err(Error::BranchChanged { .. })));
    // An inner variable in the outer recording.
    let leak = Cell::new(Var::from(0.0));
    let outer = Tape::record(&[3.0], |x| {
        Tape::record(&[1.5], |u| {
            leak.set(u[0]);
            u[0]
        })
        .unwrap();
        line = line!() + 1;
        x[0] * leak.get()
    });
    foreign(outer, line, 1.5);
    // What was poisoned inside is poisoned outside, even of the outer's own variables.
    let outer = Tape::record(&[3.0], |x| {
        let _ = Tape::record(&[1.5], |u| {
            leak.set(x[0] * 2.0);
            u[0]
        });
        line = line!() + 1;
        x[0] + leak.get()
    });
    foreign(outer, line, 6.0);
}

#[test]
fn a_variable_of_another_thread_is_foreign() {
    let slot = Mutex::new(None);
    let (gave, took) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tape = Tape::record(&[2.5], |x| {
                *slot.lock().unwrap() = Some(x[0]);
                gave.wait();
                took.wait();
                x[0] * 2.0
            });
            assert!(tape.is_ok(), "the recording that it belongs to is unharmed");
        });
        gave.wait();
        let theirs = slot.lock().unwrap().unwrap();
        let used = Tape::record(&[1.0], |x| x[0] + theirs);
        let line = line!() - 1;
        let outside = theirs + 1.0;
        took.wait();
        foreign(used, line, 2.5);
        assert!(format!("{outside:?}").contains("foreign"));
    });
}

/// Else the answer would steer the recording without a guard.
#[test]
fn a_comparison_on_another_thread_or_in_an_inner_recording_is_not_lost() {
    let mut line = 0;
    let threaded = Tape::record(&[2.0], |x| {
        let v = x[0];
        line = line!() + 1;
        let positive = std::thread::scope(|scope| scope.spawn(move || v > 0.0).join().unwrap());
        if positive { v * v } else { -v }
    });
    foreign(threaded, line, 2.0);
    let converted = Tape::record(&[2.0], |x| {
        let v = x[0];
        line = line!() + 1;
        let whole = std::thread::scope(|scope| scope.spawn(move || v.to_i64()).join().unwrap());
        v * whole.unwrap() as f64
    });
    foreign(converted, line, 2.0);
    let read = Tape::record(&[2.0], |x| {
        let v = x[0];
        line = line!() + 1;
        let value = std::thread::scope(|scope| scope.spawn(move || v.value()).join().unwrap());
        v * value
    });
    foreign(read, line, 2.0);
    // An inner recording on the same thread suspends the outer one, which still
    // notes the guard.
    let outer = Tape::record(&[2.0], |x| {
        let mut positive = false;
        let _ = Tape::record(&[1.0], |u| {
            positive = x[0] > 0.0;
            u[0]
        });
        if positive { x[0] * x[0] } else { -x[0] }
    });
    let changed = outer.unwrap().eval(&[-3.0]);
    assert!(matches!(changed, Err(Error::BranchChanged { .. })), "{changed:?}");
    assert!(Tape::record(&[2.0], |x| x[0] * 2.0).is_ok(), "nothing is left behind");
}

#[test]
#[allow(clippy::op_ref)] // That references work is the point.
fn operators_take_references() {
    let x0 = [3.0, 2.0];
    let tape = Tape::record(&x0, |x| {
        let (a, b) = (&x[0], &x[1]);
        let mut c = a + b;
        c += a;
        c -= &(b * 2.0);
        c = &c * b + *a / b - 1.0 % a + -b;
        x.iter().map(|v| v * v).sum::<Var>() + c
    })
    .unwrap();
    assert_eq!(tape.eval(&x0).unwrap(), [13.0 + ((3.0 + 2.0 + 3.0 - 4.0) * 2.0 + 1.5 - 1.0 - 2.0)]);
}

#[test]
fn the_sign_of_a_nan_is_not_looked_at() {
    // Which sign a computed NaN has depends on the processor.
    for nan in [NAN, -NAN] {
        let tape = Tape::record(&[nan], |x| if x[0].is_sign_negative() { x[0] * 2.0 } else { x[0] }).unwrap();
        assert_eq!(tape.len(), 1);
        let copied = Tape::record(&[nan], |x| Var::from(1.0).copysign(x[0])).unwrap();
        assert!(copied.eval(&[nan]).unwrap()[0].is_nan());
    }
}

#[test]
fn guards_show_the_names_that_were_given() {
    let tape = Tape::builder().inputs(&["rate", "x"], &[0.5, 1.0]).record(|x, _| if x[0] > 0.0 { x[1] } else { x[0] });
    assert_eq!(tape.unwrap().guards()[0].to_string(), "rate > 0 was true");
}

// Rows in bulk: they gather in chunks before the recording takes them.

/// As many rows as a chunk holds; the tests look at both sides of it.
const CHUNK: usize = 256;

fn around(rows: usize) -> std::ops::RangeInclusive<usize> {
    rows - 3..=rows + 3
}

/// `rows` rows of all kinds, each of which reads the one before it.
fn program<T: Real>(x: T, k: T, rows: usize) -> T {
    let mut y = x;
    for i in 0..rows {
        y = match i % 11 {
            0 => y + x,
            1 => y * 0.75,
            2 => -y,
            3 => T::lit(0.5 + i as f64 / 64.0) - y,
            4 => y.mul_add(0.5, x),
            5 => y.sin(),
            6 => y.select_gt(0.0, y, k),
            7 => k * y,
            8 => T::sum_of(&[y, x, T::lit(2.0)]),
            9 => T::dot(&[y], &[k]),
            _ => y - k,
        };
    }
    y
}

#[test]
fn recordings_of_every_length() {
    let lengths = (0..4).chain(around(CHUNK)).chain(around(2 * CHUNK)).chain(around(1 << 14)).chain([100_000]);
    for rows in lengths {
        let tape = Tape::builder().inputs(&[], &[0.7]).params(&[], &[1.25]);
        let tape = tape.record(|x, k| program(x[0], k[0], rows)).unwrap();
        assert_eq!(tape.check(), Ok(()));
        assert_eq!(tape.len(), 2 + rows);
        assert_same(&tape.eval(&[0.7]).unwrap(), &[program(0.7, 1.25, rows)], format!("{rows} rows"));
        let elsewhere = tape.with_params(&[-0.5]).unwrap().eval(&[-3.0]).unwrap();
        assert_same(&elsewhere, &[program(-3.0, -0.5, rows)], format!("{rows} rows elsewhere"));
    }
}

#[test]
fn what_depends_on_parameters_alone_is_known_in_every_row() {
    for rows in around(CHUNK) {
        let function = |x: f64, k: f64| x * k.sin() + program(k, 2.0, rows) * k.cos();
        let tape = Tape::builder().inputs(&[], &[0.5]).params(&[], &[0.25]).record(|x, k| {
            let y = program(k[0], Var::from(2.0), rows);
            let (sin, cos) = k[0].sin_cos();
            x[0] * sin + y * cos
        });
        let tape = tape.unwrap().with_params(&[0.75]).unwrap();
        let (sin, cos) = Rule::sin_cos(0.75);
        let expected = 3.0 * sin + program(0.75, 2.0, rows) * cos;
        assert!((expected - function(3.0, 0.75)).abs() < 1e-9);
        assert_eq!(tape.gradient(&[3.0]).unwrap(), (expected, vec![sin]));
    }
}

#[test]
fn rows_with_two_results_or_many_operands_stand_at_the_end_of_a_chunk() {
    for rows in around(CHUNK).chain(around(2 * CHUNK)) {
        let x0 = [0.3, 0.6];
        let tape = Tape::record(&x0, |x| {
            let y = program(x[0], x[1], rows);
            let (sin, cos) = y.sin_cos();
            let many: Vec<Var> = (0..40).map(|i| if i % 3 == 0 { sin } else { x[i % 2] }).collect();
            let (again, _) = Var::sum_of(&many).sin_cos();
            again * cos
        });
        let tape = tape.unwrap();
        assert_eq!(tape.len(), 2 + rows + 2 + 1 + 2 + 1);
        let (sin, cos) = Rule::sin_cos(program(x0[0], x0[1], rows));
        let many: Vec<f64> = (0..40).map(|i| if i % 3 == 0 { sin } else { x0[i % 2] }).collect();
        let (again, _) = Rule::sin_cos(<f64 as Rule>::sum_of(&many));
        assert_same(&tape.eval(&x0).unwrap(), &[again * cos], format!("{rows} rows"));
    }
}

#[test]
fn constants_may_come_at_any_time() {
    // A new one in each row, one in a while, and one at the very end.
    for every in [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 100_000] {
        fn function<T: Real>(x: T, every: usize) -> T {
            let mut y = x;
            for i in 0..20_000 {
                y = if i % every == 0 { y * (1.0 / (i as f64 + 2.0)) + x } else { y.mul_add(-0.5, x) };
            }
            y.select_lt(1e9, y + 1e7, x)
        }
        let tape = Tape::record(&[0.5], |x| function(x[0], every)).unwrap();
        assert_eq!(tape.check(), Ok(()));
        assert_same(&tape.eval(&[1.5]).unwrap(), &[function(1.5, every)], format!("every {every} rows"));
    }
    let signs = Tape::record(&[1.0], |x| [x[0] * 0.0, x[0] * -0.0, x[0] * 0.0, -0.0 - x[0] * NAN]).unwrap();
    let y = signs.eval(&[1.0]).unwrap();
    assert_eq!(y[..3].iter().map(|y| y.is_sign_negative()).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn guards_and_escapes_stand_anywhere_in_a_chunk() {
    for rows in (0..3).chain(around(CHUNK)) {
        let mut line = 0;
        let tape = Tape::record(&[0.7], |x| {
            let y = program(x[0], x[0], rows) + x[0] * 1e3;
            line = line!() + 1;
            let positive = y > 0.0;
            assert!(positive);
            let z = program(y, x[0], rows);
            let read = z.value();
            program(z, x[0], CHUNK) * read
        });
        let tape = tape.unwrap();
        let before = |x: f64| program(x, x, rows) + x * 1e3;
        let z = program(before(0.7), 0.7, rows);
        assert_eq!((tape.guards().len(), tape.escapes().len()), (1, 1));
        assert_eq!((tape.guards()[0].location().line(), tape.guards()[0].location().is_nearest()), (line, false));
        assert_eq!((tape.escapes()[0].value(), tape.escapes()[0].location().line()), (z, line + 3));
        assert_same(&tape.eval(&[0.7]).unwrap(), &[program(z, 0.7, CHUNK) * z], format!("{rows} rows"));
        changed(&tape.eval(&[-0.7]).unwrap_err(), &tape.guards()[0], Answer::Bool(false), before(-0.7), 0.0);
    }
}

#[test]
fn a_recording_is_suspended_anywhere_in_a_chunk() {
    for rows in (0..3).chain(around(CHUNK)) {
        let outer = Tape::record(&[0.7], |x| {
            let y = program(x[0], x[0], rows);
            let inner = Tape::record(&[0.2, 0.4], |u| program(u[0], u[1], rows)).unwrap();
            assert_same(&inner.eval(&[0.2, 0.4]).unwrap(), &[program(0.2, 0.4, rows)], "inner");
            let escaping = Tape::record(&[0.5], |u| program(u[0], u[0], rows) * y.value()).unwrap();
            assert!(escaping.escapes().is_empty());
            program(y, x[0], rows)
        });
        let outer = outer.unwrap();
        assert_eq!((outer.len(), outer.escapes().len()), (1 + 2 * rows, 1));
        let expected = program(program(0.3, 0.3, rows), 0.3, rows);
        assert_same(&outer.eval(&[0.3]).unwrap(), &[expected], format!("{rows} rows"));
    }
}

#[test]
fn a_panic_anywhere_in_a_chunk_takes_its_rows_along() {
    for rows in (0..3).chain(around(CHUNK)) {
        let outer = Tape::record(&[0.7], |x| {
            let y = program(x[0], x[0], rows);
            let inner = catch_unwind(AssertUnwindSafe(|| {
                Tape::record(&[1.0], |u| {
                    let _ = program(u[0], u[0], rows) > 0.0;
                    quietly()
                })
            }));
            assert!(inner.is_err());
            program(y, x[0], 5)
        });
        let outer = outer.unwrap();
        assert_eq!((outer.len(), outer.guards().len()), (1 + rows + 5, 0));
        let expected = program(program(0.3, 0.3, rows), 0.3, 5);
        assert_same(&outer.eval(&[0.3]).unwrap(), &[expected], format!("{rows} rows"));
    }
}

#[test]
fn every_row_of_a_chunk_has_its_place() {
    // One line with several operations, in turn with rows from inside std.
    for rows in around(CHUNK) {
        let mut lines = [0; 2];
        let tape = Tape::record(&[0.7, 0.9], |x| {
            let mut y = program(x[0], x[1], rows);
            for i in 0..CHUNK {
                lines[0] = line!() + 1;
                y = (y * 0.5 - 1.0).fract() + if i % 2 == 0 { x[0] } else { -x[1] };
                y = [y, x[0], x[1]].iter().product();
                lines[1] = line!() + 1;
                y /= 3.0;
                y = [x[0], y].into_iter().product();
            }
            y
        });
        let trace = tape.unwrap().primal_trace(&[0.7, 0.9]).unwrap();
        let places: Vec<(u32, bool)> = trace.rows()[2 + rows..]
            .iter()
            .filter_map(|row| row.location.as_ref())
            .map(|place| (place.line(), place.is_nearest()))
            .collect();
        let round = |negated: usize| {
            let first = std::iter::repeat_n((lines[0], false), 5 + negated);
            first.chain([(lines[0], true), (lines[0], true), (lines[1], false), (lines[1], true)])
        };
        let expected: Vec<(u32, bool)> = (0..CHUNK).flat_map(|i| round(i % 2)).collect();
        assert_eq!(places, expected, "{rows} rows");
    }
}

#[test]
fn a_stray_is_heard_after_any_number_of_rows() {
    for rows in around(CHUNK) {
        let mut line = 0;
        let result = Tape::record(&[2.0], |x| {
            let (y, v) = (program(x[0], x[0], rows), x[0]);
            line = line!() + 1;
            let positive = std::thread::scope(|scope| scope.spawn(move || v > 0.0).join().unwrap());
            if positive { y } else { -y }
        });
        foreign(result, line, 2.0);
        let old = leaked(4.5);
        let result = Tape::record(&[2.0], |x| {
            let y = program(x[0], x[0], rows);
            line = line!() + 1;
            let z = y * old;
            program(y, x[0], rows) + z
        });
        foreign(result, line, 4.5);
    }
}
