//! Comparisons of derivative tapes with the drivers.

use std::cell::Cell;

use ad_core::ops::{Fold, Operation};
use ad_core::{Answer, Error, Question, Rule, Tape};

use super::agreement::Seen;
use super::assert_equal;

// Where a derivative tape may have a number and the drivers NaN.

thread_local! {
    static MADE_NAN: Cell<bool> = const { Cell::new(false) };
}

/// A number that notes where an operation of several operands makes a NaN of infinite numbers.
#[derive(Debug, Clone, Copy)]
pub struct Watched(f64);

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

pub fn makes_nan_of_infinities(tape: &Tape, x: &[f64], y: &[f64]) -> bool {
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
pub struct Derivatives {
    tape: Tape,
    jvp: Tape,
    vjp: Tape,
    jacobian: Tape,
    gradient: Option<Tape>,
}

/// Compares what a derivative tape gives with its driver: equal, except where
/// the tape is one that calls the adjoints of a function. Their tangents are
/// the adjoints of its tangents, the same terms in another order.
#[track_caller]
pub fn compare(tape: &Tape, numbers: &[f64], expected: &[f64], what: String, seen: &mut Seen) {
    if !tape.functions().iter().any(|function| function.to_string().contains("vjp")) {
        return assert_equal(numbers, expected, what);
    }
    assert_eq!(numbers.len(), expected.len(), "{what}");
    let size = expected.iter().filter(|x| x.is_finite()).fold(1.0, |size: f64, x| size.max(x.abs()));
    let far = |(&a, &b): (&f64, &f64)| a.is_finite() && b.is_finite() && (a - b).abs() > 1e-9 * size;
    if numbers.iter().zip(expected).any(far) {
        // Rounding of what nearly cancels may be more than that, so these are counted.
        seen.note("far");
    }
}

impl Derivatives {
    pub fn new(tape: &Tape) -> Derivatives {
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

    pub fn all(&self) -> impl Iterator<Item = &Tape> {
        [&self.jvp, &self.vjp, &self.jacobian].into_iter().chain(&self.gradient)
    }

    pub fn with_params(&self, k: &[f64]) -> Derivatives {
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
    pub fn check(&self, x: &[f64], p: &[f64], w: &[f64], seen: &mut Seen) {
        let tape = &self.tape;
        let y = match tape.eval(x) {
            Ok(y) => y,
            Err(expected) => {
                seen.note("changed");
                return self.check_changed_branch(x, p, w, &expected);
            }
        };
        // A function has the strict rule to itself, so a NaN within counts even where none comes out.
        let looks_out = y.iter().any(|y| y.is_nan()) || !tape.functions().is_empty();
        if looks_out && makes_nan_of_infinities(tape, x, &y) {
            seen.note("NaN of infinities");
            return;
        }
        seen.result(&y);
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
pub fn check_what_stays(tape: &Tape, derivative: &Tape) {
    derivative.check().unwrap();
    assert_eq!(derivative.params(), tape.params());
    let guards = |tape: &Tape| -> Vec<_> {
        tape.guards().iter().map(|guard| (guard.question(), guard.answer(), guard.location().clone())).collect()
    };
    assert_eq!(guards(derivative), guards(tape));
    assert_eq!(derivative.escapes().len(), tape.escapes().len());
}
