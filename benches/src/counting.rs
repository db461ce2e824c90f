//! Counts the arithmetic of a tape by replaying it in a number type that counts.

use std::cell::Cell;

use ad_core::ops::Operation;
use ad_core::{Answer, Error, Op, Question, Rule, Tape};

/// How much arithmetic an evaluation takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Arithmetic {
    /// Additions, subtractions, multiplications, divisions and square roots,
    /// negations, choices.
    pub flops: usize,
    /// Calls of exp, sin, tanh and their like.
    pub calls: usize,
    /// The flops that one direction of a forward sweep adds.
    pub tangent_flops: usize,
    /// The flops that one reverse sweep adds.
    pub adjoint_flops: usize,
}

thread_local! {
    static COUNT: Cell<Arithmetic> = Cell::new(Arithmetic::default());
}

/// A number that counts what is done to it, and knows whether it depends on an
/// input: constants and parameters have no derivative to compute.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    value: f64,
    active: bool,
}

impl From<f64> for Counted {
    fn from(value: f64) -> Self {
        Counted { value, active: false }
    }
}

/// Of an operation with so many active operands: the flops of the value, those
/// that a tangent adds, those that an adjoint adds, the calls.
fn cost(op: Op, active: usize) -> (usize, usize, usize, usize) {
    match op {
        // Adjoints are added to what is already there.
        Op::Add | Op::Sub => (1, active - 1, active, 0),
        Op::Neg => (1, 1, 1, 0),
        // A product for each operand, and the additions.
        Op::Mul | Op::Div => (1, 2 * active - 1, 2 * active, 0),
        Op::Sqrt => (1, 2, 3, 0),
        Op::Max | Op::Min | Op::Abs => (1, 1, 2, 0),
        // The partial is taken to cost no more than one flop beyond what the
        // value leaves behind.
        _ => (0, 2, 3, 1),
    }
}

impl Rule for Counted {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let active = x.iter().filter(|x| x.active).count();
        let (flops, tangent, adjoint, calls) = cost(O::OP, active.max(1));
        let mut count = COUNT.get();
        count.flops += flops;
        count.calls += calls;
        if active > 0 {
            count.tangent_flops += tangent;
            count.adjoint_flops += adjoint;
        }
        COUNT.set(count);
        O::value(x.map(|x| x.value)).map(|value| Counted { value, active: active > 0 })
    }

    fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        f64::confirm(question, answer, a.value, b.value)
    }
}

ad_core::rule_operators!([] Counted);

/// The arithmetic of one evaluation of the tape at x.
///
/// # Errors
///
/// Those of [`Tape::eval_with`].
pub fn count(tape: &Tape, x: &[f64]) -> Result<Arithmetic, Error> {
    let x: Vec<Counted> = x.iter().map(|&value| Counted { value, active: true }).collect();
    COUNT.set(Arithmetic::default());
    tape.eval_with(&x)?;
    Ok(COUNT.get())
}
