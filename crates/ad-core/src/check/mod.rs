//! What a doubtful reader asks of a tape: which numbers are baked in (here), where a
//! result went non-finite (`diagnosis.rs`), whether the derivatives are right
//! (`self_check.rs`), and what changed since the last version (`diff.rs`, and the hash
//! of `content.rs`).
//!
//! Nothing here is fast or needs to be. All of it but the self-check, which sweeps
//! once for each output, is linear in the tape, or nearly so, and none of it recurses
//! but into functions that are called, which are nested to a bounded depth.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::function::{Function, Given, Loop, Taken};
use crate::ops::Op;
use crate::record::SourceLocation;
use crate::rule::Rule;
use crate::tape::{Tape, TapeData};

mod content;
mod diagnosis;
mod diff;
mod self_check;

use content::number_bits;
pub(crate) use content::{Contents, Fnv};
pub use diagnosis::{Diagnosis, DiagnosisInside, NonFinite, ValueAt};
pub use diff::{Difference, Part, TapeDiff};
pub(crate) use self_check::compare_with_rule;
pub use self_check::{Comparison, NotChecked, RowComparison, SelfCheck, Verdict};

/// The operands of a row, or its results.
type Numbers = SmallVec<[f64; 4]>;

/// So many digits tell any two numbers apart.
const ALL_DIGITS: usize = 17;

/// A number as short as it can be without losing a bit.
fn exact(x: f64) -> String {
    let text = format!("{x:?}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn list(items: &[impl fmt::Display]) -> String {
    items.iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

// What is baked in.

/// A literal of the recorded function, which every replay repeats; from
/// [`Tape::constants`].
///
/// `Display` prints it as `2.5, used twice: src/model.rs:7, src/model.rs:9`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Constant {
    /// Its value.
    pub value: f64,
    /// How often rows and guards read it, and how many outputs are it.
    pub uses: usize,
    /// The distinct places of the rows that read it, in their order, then those
    /// of the guards. None if it is an output and nothing else; of a tape
    /// [`without_locations`](Tape::without_locations) one that is not known.
    pub locations: Vec<SourceLocation>,
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uses {
            1 => write!(f, "{}, used once", exact(self.value))?,
            2 => write!(f, "{}, used twice", exact(self.value))?,
            uses => write!(f, "{}, used {uses} times", exact(self.value))?,
        }
        match self.locations.is_empty() {
            true => write!(f, ": as an output"),
            false => write!(f, ": {}", list(&self.locations)),
        }
    }
}

impl Tape {
    /// The literals baked in, in the order of their first use: what no replay
    /// changes, neither by x nor by parameters. Equal ones are one entry; −0 and
    /// 0 are two.
    ///
    /// A number that was read by [`Var::value`](crate::Var::value) and computed
    /// with is such a literal too; [`Tape::escapes`] says where that happened.
    /// What the function computed from literals alone is there as its result.
    ///
    /// Those of the tapes that rows call come after its own, however often they
    /// are called; so do the parameters of those tapes, which no replay of this
    /// one changes.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let rate = 0.25; // Meant to change between replays? Then it should be a parameter.
    /// let tape = Tape::record(&[3.0], |x| x[0] * rate + x[0].exp() * rate + 1.0)?;
    /// let constants = tape.constants();
    /// assert_eq!((constants[0].value, constants[0].uses), (0.25, 2));
    /// assert_eq!((constants[1].value, constants[1].uses), (1.0, 1));
    /// println!("{}", constants[0]); // 0.25, used twice: src/main.rs:3
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn constants(&self) -> Vec<Constant> {
        let mut constants: Vec<Constant> = Vec::new();
        let mut places: HashMap<u64, usize> = HashMap::new();
        let (mut located, mut seen) = (HashSet::new(), HashSet::new());
        // Each tape with those parameters that no replay changes.
        let mut waiting: Vec<(&Tape, &[f64])> = vec![(self, &[])];
        while let Some((tape, fixed)) = waiting.pop() {
            if !seen.insert((Arc::as_ptr(&tape.data), std::ptr::from_ref(fixed))) {
                continue;
            }
            let bodies = tape.functions().iter().rev().filter_map(Function::body);
            waiting.extend(bodies.map(|body| (body, &*body.params)));
            for other in tape.own_constants(fixed, &mut located) {
                match places.get(&number_bits(other.value)) {
                    Some(&place) => {
                        constants[place].uses += other.uses;
                        constants[place].locations.extend(other.locations);
                    }
                    None => {
                        places.insert(number_bits(other.value), constants.len());
                        constants.push(other);
                    }
                }
            }
        }
        constants
    }

    /// The literals of this list alone, and the parameters if they are fixed, each
    /// with those places where no equal number has been `located` before: a set,
    /// since a list may have as many places as rows.
    fn own_constants<'a>(&'a self, fixed: &[f64], located: &mut HashSet<(u64, &'a SourceLocation)>) -> Vec<Constant> {
        let data = &*self.data;
        let unused = |&value: &f64| Constant { value, uses: 0, locations: Vec::new() };
        let mut constants: Vec<Constant> = data.constants.iter().chain(fixed).map(unused).collect();
        let (first_input, first_param) = (data.first_input(), data.first_param());
        let place = move |operand: u32| match operand as usize {
            constant if constant < first_input => constant,
            // Further than all constants unless the parameters are fixed.
            parameter if parameter >= first_param => parameter - first_param + first_input,
            _ => usize::MAX,
        };
        let mut used = |operand: u32, location: &'a SourceLocation| {
            let Some(constant) = constants.get_mut(place(operand)) else { return };
            constant.uses += 1;
            // Two places of one line are one for a reader.
            if located.insert((number_bits(constant.value), location)) {
                constant.locations.push(location.clone());
            }
        };
        for row in 0..data.num_rows() {
            data.operands(row).iter().for_each(|&operand| used(operand, data.location(row)));
        }
        for guard in &data.guards {
            guard.operands[..guard.question().operands()].iter().for_each(|&operand| used(operand, guard.location()));
        }
        for &output in &data.outputs {
            if let Some(constant) = constants.get_mut(place(output)) {
                constant.uses += 1;
            }
        }
        constants.retain(|constant| constant.uses > 0);
        constants
    }
}

// One row at a time.

/// ∂result/∂operand of an operation at the operands `x` with the results `v`, as
/// the table states it; of a fold, by the operands of one term or of all.
fn partial(op: Op, result: usize, operand: usize, x: &[f64], v: &[f64]) -> f64 {
    op.partial(result, operand, x, v)
}

/// A function like [`partial`].
type Partial<'a> = dyn Fn(Op, usize, usize, &[f64], &[f64]) -> f64 + 'a;

/// One result of an operation at the operands `x`.
fn value(op: Op, result: usize, x: &[f64]) -> f64 {
    op.results(x)[result]
}

/// A row at a point: its operation, operands and results; of a call the operands alone.
struct RowAt<'a> {
    op: Op,
    /// Which result of the operation the row holds.
    result: usize,
    operands: &'a [u32],
    x: Numbers,
    v: Numbers,
    /// NaN if an operand is.
    largest: f64,
}

impl<'a> RowAt<'a> {
    fn new(data: &'a TapeData, values: &[f64], row: usize) -> RowAt<'a> {
        let (head, result) = data.head(row);
        let op = data.op(head);
        let operands = data.operands(head);
        if op == Op::Call {
            return RowAt { op, result, operands, x: Numbers::new(), v: Numbers::new(), largest: 0.0 };
        }
        let x: Numbers = operands.iter().map(|&operand| values[operand as usize]).collect();
        let first = data.first_row() + head;
        let v = Numbers::from_slice(&values[first..first + data.num_results(head)]);
        let largest = x.iter().skip(1).fold(x[0], |largest, &x| Rule::max(largest, x));
        RowAt { op, result, operands, x, v, largest }
    }

    /// The partial by operand `i`, as the strict sweeps use it.
    fn partial(&self, i: usize) -> f64 {
        Rule::domain(partial(self.op, self.result, i, &self.x, &self.v), self.v[self.result], self.largest)
    }
}

/// The values and tangents, or adjoints, that a loop goes through in an iteration.
struct Pass {
    x: Vec<f64>,
    dx: Vec<f64>,
}

impl Pass {
    /// The inputs of the body in an iteration.
    fn of_body(rolled: &Loop, iteration: usize, operands: &Pass, carry: &Pass) -> Pass {
        let inputs = 0..rolled.body.num_inputs();
        let taken: Vec<Taken> = inputs.map(|input| rolled.taken(input, iteration)).collect();
        let of = |carry: &[f64], operands: &[f64]| -> Vec<f64> {
            let number = |taken: &Taken| match *taken {
                Taken::Carry(place) => carry[place],
                Taken::Operand(operand) => operands[operand],
            };
            taken.iter().map(number).collect()
        };
        Pass { x: of(&carry.x, &operands.x), dx: of(&carry.dx, &operands.dx) }
    }

    /// The carry that a loop begins with.
    fn initial(rolled: &Loop, operands: &Pass) -> Pass {
        let of = |operands: &[f64]| rolled.initial().iter().map(|&operand| operands[operand as usize]).collect();
        Pass { x: of(&operands.x), dx: of(&operands.dx) }
    }

    /// Takes the carry out of the outputs of the body.
    fn take_carry(&mut self, rolled: &Loop, iteration: usize, y: &[f64], dy: &[f64]) {
        for (output, (&y, &dy)) in y.iter().zip(dy).enumerate() {
            if let Given::Carry(place) = rolled.given(output, iteration) {
                (self.x[place], self.dx[place]) = (y, dy);
            }
        }
    }
}
