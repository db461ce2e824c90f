//! What can go wrong, with the values, the place and what to do next.

use std::fmt;
use std::io;
use std::path::Path;

use crate::file::TapeFileProblem;
use crate::formula::{Accent, DIGITS, Name, Script};
use crate::record::{Answer, Guard, SourceLocation};

/// Every error of this crate.
///
/// Messages give the values, the file and line of your code where there is
/// one, and what to call instead.
///
/// ```
/// use ad_core::{Error, Tape};
/// let tape = Tape::record(&[2.0], |x| if x[0] > 0.0 { x[0] * x[0] } else { -x[0] })?;
/// match tape.eval(&[-3.0]) {
///     Err(Error::BranchChanged { guard, .. }) => assert_eq!(guard.to_string(), "v₀ > 0 was true"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice has the wrong length.
    #[error("{what}: expected {expected} numbers, got {got}")]
    Length {
        /// What the slice is, such as "x (one number per input)".
        what: &'static str,
        /// The length that fits the tape.
        expected: usize,
        /// The length that was given.
        got: usize,
    },

    /// Something that must hold at least one element is empty.
    #[error("{what} is empty: {hint}")]
    Empty {
        /// What is empty.
        what: &'static str,
        /// What to do instead.
        hint: &'static str,
    },

    /// A seed (p, w) is NaN or infinite.
    #[error("{what}[{index}] is {value}: a seed must be finite (non-finite points x are allowed)")]
    NonFiniteSeed {
        /// Which seed.
        what: &'static str,
        /// The position in it, row-major for a matrix.
        index: usize,
        /// What stands there.
        value: f64,
    },

    /// A point at which something was to be checked is NaN or infinite.
    #[error("{what}[{index}] is {value}: a rule can only be checked at a finite point")]
    NonFinitePoint {
        /// Which point.
        what: &'static str,
        /// The position in it.
        index: usize,
        /// What stands there.
        value: f64,
    },

    /// The closure returned no dependent variable.
    #[error("the recorded function at {location} returned no output: return a Var, an array, a Vec or a tuple of Vars")]
    NoOutputs {
        /// Where the recording was asked for.
        location: SourceLocation,
    },

    /// A variable was used or returned outside its recording: in another one, or on another thread.
    #[error(
        "a variable of another recording, or of one on another thread, was used at {location}: \
         a Var lives only inside the closure that it was given to, on its thread; \
         pass the number ({}) in as a parameter, or use .value() there to make it a constant",
        exact(*value)
    )]
    ForeignVar {
        /// Where it was first used, or where the recording that returned it was asked for.
        location: SourceLocation,
        /// Its primal value.
        value: f64,
    },

    /// A comparison made while recording would be answered otherwise now.
    #[error(
        "{}the branch taken at {location}{} would change: {guard} when recorded, now {} {}; \
         record again at this point (Retape does that by itself, but not inside of a tape that is called: that one is \
         recorded already), or keep both branches on the tape, as in a.select_gt(b, if_true, if_false), min, max, abs or clamp",
        sample.map(|i| format!("sample {i}: ")).unwrap_or_default(), calls_text(calls), operands_text(guard, *lhs, *rhs),
        now_text(now)
    )]
    BranchChanged {
        /// The first guard that fails, in the order of the recording.
        guard: Box<Guard>,
        /// Where the comparison stands in your code.
        location: SourceLocation,
        /// What the comparison would answer now.
        now: Answer,
        /// The left operand now.
        lhs: f64,
        /// The right operand now; NaN for a question with one operand.
        rhs: f64,
        /// The row at which it fails: of [`Samples`](crate::Samples) in a sum over
        /// samples, of the matrix of points in a driver of many points.
        sample: Option<usize>,
        /// The calls that lead to it, the innermost first, if it is a guard of a tape
        /// that is called; the names in `guard` are of that tape, or of the equations of an
        /// implicit function, or of the derivative of a custom one. Empty if it is a guard
        /// of the tape itself.
        calls: Vec<CallSite>,
    },

    /// A function returned another number of outputs on another branch.
    #[error(
        "the function at {location} returned {expected} outputs when first recorded and {got} on the branch taken now: \
         return the same number on every branch, filling up with constants such as Var::from(0.0)"
    )]
    OutputCount {
        /// Where its first recording was asked for.
        location: SourceLocation,
        /// How many outputs it had then.
        expected: usize,
        /// How many it has on the branch taken now.
        got: usize,
    },

    /// A function took another branch than its own values say.
    #[error(
        "the function at {location} took another branch than its values say: the comparison {guard} at {} gives {now} at this point, \
         but a new recording there went another way; it must depend on nothing but its arguments, not on a clock, a random number or a counter",
        guard.location()
    )]
    NotDeterministic {
        /// Where the function's first recording was asked for.
        location: SourceLocation,
        /// The comparison at which the recordings part.
        guard: Box<Guard>,
        /// What it answers at the point, by the earlier recording.
        now: Answer,
    },

    /// A function was called in a recording with arguments that do not fit it.
    #[error("{function}, called at {location}: {what}: expected {expected}, got {got}")]
    CallArguments {
        /// The name of the function.
        function: String,
        /// What was counted.
        what: &'static str,
        /// How many fit.
        expected: usize,
        /// How many were given.
        got: usize,
        /// Where it was called.
        location: SourceLocation,
    },

    /// A recorded tape calls a tape that calls a tape and so on, too deep.
    #[error(
        "{function} was called at {location}, and functions in it are nested deeper than {limit}: record some of them as plain code"
    )]
    NestedTooDeep {
        /// The name of the outermost function.
        function: String,
        /// How deep they may be nested.
        limit: usize,
        /// Where it was called.
        location: SourceLocation,
    },

    /// Your rule or equations have another shape than the function.
    #[error("{function}: {what}: expected {expected}, got {got}")]
    RuleShape {
        /// The name of the function.
        function: String,
        /// What was counted.
        what: &'static str,
        /// How many fit.
        expected: usize,
        /// How many there are.
        got: usize,
    },

    /// The rule of a custom operation is not its derivative.
    #[error(
        "{function}: {what} give {} for the derivative of result {result} by operand {operand}, and what they are compared with gives {}, so one of the two is wrong{}",
        exact(*stated), exact(*found), suspicion(*stated, *found)
    )]
    WrongRule {
        /// The name of the operation.
        function: String,
        /// Which statement of the derivative was checked.
        what: &'static str,
        /// The result, counted from 0.
        result: usize,
        /// The operand, counted from 0.
        operand: usize,
        /// The derivative as stated.
        stated: f64,
        /// The derivative as found, by difference quotients or by the other statement.
        found: f64,
    },

    /// Second derivatives of a custom operation are wanted that it does not state.
    #[error(
        "second derivatives are wanted of {function}{}, which states first ones alone: \
         implement CustomOp::derivative for it (CustomProducts::vjp_tape), or give it one with Custom::with_derivative",
        called_at(location)
    )]
    NoSecondDerivative {
        /// The name of the operation.
        function: String,
        /// Where a recording calls it, if it was called by one.
        location: Option<SourceLocation>,
    },

    /// A function that is no tape was to be replayed in another number type than `f64` and `Dual`.
    #[error("{function} is no tape, so it can only be replayed in f64, Dual, Lanes and Var, not in {number}")]
    OnlyNumbers {
        /// The function.
        function: String,
        /// The number type.
        number: &'static str,
    },

    /// The matrix ∂g/∂y of an implicit function is singular, or nearly so.
    #[error(
        "{function}{}: the derivative of the equations by the unknowns is singular (condition number {}): \
         there the solution is no differentiable function; look for equations that are missing or say the same",
        called_at(location), exact(*condition)
    )]
    SingularImplicit {
        /// The name of the implicit function.
        function: String,
        /// The condition number in the 1-norm; infinite if a pivot is 0, NaN if
        /// an entry is not finite.
        condition: f64,
        /// Where a recording calls it.
        location: Option<SourceLocation>,
    },

    /// What the solver of an implicit function gave does not solve its equations.
    #[error(
        "{function}{}: the solver's result is no solution: the next Newton step would be {}, more than {}; let the solver go on for longer",
        called_at(location), exact(*step), exact(*limit)
    )]
    NotSolved {
        /// The name of the implicit function.
        function: String,
        /// The largest change of an unknown in a Newton step.
        step: f64,
        /// The largest that is let pass.
        limit: f64,
        /// Where a recording calls it.
        location: Option<SourceLocation>,
    },

    /// The solver of an implicit function gave up.
    #[error("{function}{}: the solver failed: {reason}", called_at(location))]
    SolverFailed {
        /// The name of the implicit function.
        function: String,
        /// What the solver said.
        reason: String,
        /// Where a recording calls it.
        location: Option<SourceLocation>,
    },

    /// Room for zero tapes was asked for.
    #[error("room for 0 tapes was asked for: give 1 or more")]
    NoTapes,

    /// The driver needs a tape with one output.
    #[error("{driver} needs a tape with one output, this one has {outputs}: use {instead}")]
    NotScalar {
        /// The driver that was called.
        driver: &'static str,
        /// How many outputs the tape has.
        outputs: usize,
        /// What to call instead.
        instead: &'static str,
    },

    /// Names were given, but not one for each variable.
    #[error("{got} names for {expected} {what}: give one for each, or an empty list")]
    NameCount {
        /// "inputs" or "parameters".
        what: &'static str,
        /// How many variables there are.
        expected: usize,
        /// How many names were given.
        got: usize,
    },

    /// A name is empty, holds a control character, or stands twice.
    #[error("the name {name:?} {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A sample index is out of range.
    #[error("idx[{position}] is {index}, but there are {samples} samples (0 to {})", samples.saturating_sub(1))]
    SampleIndex {
        /// The position in the list of indices.
        position: usize,
        /// What stands there.
        index: usize,
        /// How many samples there are.
        samples: usize,
    },

    /// The samples were made for a tape with another number of parameters.
    #[error(
        "the samples have {got} numbers each, the tape has {expected} parameters: make them with Samples::from_rows(&tape, ..)"
    )]
    SampleWidth {
        /// The tape's number of parameters.
        expected: usize,
        /// The samples' row length.
        got: usize,
    },

    /// The rows of a matrix differ in length, or its size overflows.
    #[error("a matrix of {rows} × {cols} needs {rows}·{cols} numbers, got {got}")]
    MatrixShape {
        /// The number of rows.
        rows: usize,
        /// The number of columns.
        cols: usize,
        /// How many numbers were given.
        got: usize,
    },

    /// The recording has more rows, operands or constants than an index can name.
    #[error("the recording at {location} exceeds {limit} {what}: split the function into several tapes")]
    TooLarge {
        /// Where the recording was asked for.
        location: SourceLocation,
        /// What there are too many of.
        what: &'static str,
        /// The largest number allowed.
        limit: usize,
    },

    /// A sparse derivative has more nonzeros than are kept.
    #[error(
        "the derivative has more than {limit} entries that can differ from 0: \
         use jvp, vjp or hvp, which form no matrix, or split the function into several tapes"
    )]
    TooManyNonzeros {
        /// The most there may be.
        limit: usize,
    },

    /// A matrix does not fit into memory.
    #[error("a dense matrix of {rows} × {cols} numbers does not fit into memory: keep it sparse")]
    TooLargeMatrix {
        /// The number of rows.
        rows: usize,
        /// The number of columns.
        cols: usize,
    },

    /// So many numbers as were given or asked for do not fit into memory.
    #[error("{what}: {numbers} numbers do not fit into memory: work on fewer at a time")]
    TooManyNumbers {
        /// What the numbers are.
        what: &'static str,
        /// How many there would be; `usize::MAX` if they are more.
        numbers: usize,
    },

    /// Taylor coefficients to an order for which the memory is too small, or the
    /// stack, where derivatives of custom operations call custom operations.
    #[error(
        "the Taylor coefficients of {values} values to order {order} do not fit into memory: \
         ask for a lower order, or split the function into several tapes"
    )]
    TooHighOrder {
        /// The order that was asked for.
        order: usize,
        /// How many values have coefficients at the same time.
        values: usize,
    },

    /// The states that a reverse sweep through a recurrence keeps do not fit into memory.
    #[error(
        "a reverse sweep would keep {numbers} numbers of the states of a recurrence, which do not fit into memory: \
         run it in parts, one scan after the other, or over fewer iterations"
    )]
    TooManyStates {
        /// How many numbers would be kept.
        numbers: usize,
    },

    /// A tape file cannot be loaded, or a document of a tape cannot be.
    #[error("{}{problem}", file_text(path, *offset))]
    TapeFile {
        /// The file, if it was opened by its name.
        path: Option<Box<Path>>,
        /// How many bytes of the file stand before what is wrong.
        offset: u64,
        /// What is wrong.
        problem: Box<TapeFileProblem>,
    },

    /// A tape cannot be written to a file, since it calls code of yours, or
    /// derivatives of derivatives of functions that are nested too deep.
    #[error("{function}, called at {location}, cannot be written to a file: {reason}")]
    NotStorable {
        /// The function.
        function: String,
        /// Where the tape calls it.
        location: SourceLocation,
        /// Why not, and what to do.
        reason: &'static str,
    },

    /// A tape has more of something than a tape file can count, such as letters of a name.
    #[error("the tape has {found} {what}, and a file can hold {limit} at most: shorten it, or split the tape")]
    TooLargeForFile {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The most that a file can hold.
        limit: u64,
    },

    /// Reading or writing failed.
    #[error("{what}{}: {message}", path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default())]
    Io {
        /// What was being done, such as "writing".
        what: &'static str,
        /// The file, if it was opened by its name.
        path: Option<Box<Path>>,
        /// The kind of the system's error.
        kind: io::ErrorKind,
        /// What the system says.
        message: String,
    },

    /// A number of lanes was asked for that the engine does not have.
    #[error("{lanes} lanes were asked for: ask for 16, 32 or 64")]
    Lanes {
        /// The number asked for.
        lanes: usize,
    },

    /// Zero threads were asked for.
    #[error("0 threads were asked for: give 1 or more")]
    NoThreads,

    /// The tape breaks one of its own invariants; a defect of this crate or of a file.
    #[error(
        "the tape breaks an invariant: {}{reason}; a defect of ad-core, or of the file that it came from: please report it",
        operation.map(|name| row_text(*row, Some(name)) + ": ").unwrap_or_default()
    )]
    Malformed {
        /// The row, counted from 0: printed traces call row 0 v₁.
        row: usize,
        /// The name of its operation; `None` if it is no row that breaks the invariant.
        operation: Option<&'static str>,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Error {
    /// Cannot be: who saw a guard fail in one engine asks another, which says where.
    pub(crate) fn of_guards() -> Error {
        Error::Malformed { row: 0, operation: None, reason: "two engines answer a guard differently" }
    }

    /// The error with the call that it comes from: one more for a guard, elsewhere the
    /// place if there is none yet that is known.
    pub(crate) fn called_by(mut self, call: impl FnOnce() -> CallSite) -> Error {
        match &mut self {
            Error::BranchChanged { calls, .. } => calls.push(call()),
            Error::NoSecondDerivative { location, .. }
            | Error::SingularImplicit { location, .. }
            | Error::NotSolved { location, .. }
            | Error::SolverFailed { location, .. } => {
                *location = location.take().or_else(|| Some(call().location).filter(SourceLocation::is_known));
            }
            _ => {}
        }
        self
    }

    /// The error, if it is a changed branch, as that of sample `i`.
    pub(crate) fn at_sample(mut self, i: usize) -> Error {
        if let Error::BranchChanged { sample, .. } = &mut self {
            *sample = Some(i);
        }
        self
    }
}

/// A call of a function on the way to what an error is about.
///
/// ```
/// use ad_core::{Error, Tape};
/// let root = Tape::record(&[4.0], |x| if x[0] > 0.0 { x[0].sqrt() } else { x[0] })?.named("root");
/// let tape = Tape::record(&[9.0], |x| root.call(&[x[0] - 1.0])[0])?;
/// let Err(Error::BranchChanged { calls, .. }) = tape.eval(&[0.5]) else { panic!() };
/// assert_eq!((calls.len(), calls[0].function.as_str(), calls[0].row), (1, "root", Some(1)));
/// assert!(calls[0].to_string().starts_with("root, called by row v₂ at "));
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CallSite {
    /// The function that is called, as traces name it: `Σ root`, `f` if it has no name.
    pub function: String,
    /// The row that calls it, counted from 0: row r is v₍ᵣ₊₁₎ in traces. `None` while it is being recorded.
    pub row: Option<usize>,
    /// Where the call stands in your code.
    pub location: SourceLocation,
}

impl fmt::Display for CallSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, called", self.function)?;
        if let Some(row) = self.row {
            write!(f, " by {}", row_text(row, None))?;
        }
        match self.location.is_known() || self.row.is_none() {
            true => write!(f, " at {}", self.location),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    /// The message, as `Display` has it: a `main` that returns the error, and
    /// `unwrap`, print this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number with all its digits, and an exponent where it would be long.
fn exact(number: f64) -> String {
    match number.abs() {
        size if size == 0.0 || (1e-5..1e16).contains(&size) => format!("{number}"),
        _ => format!("{number:e}"),
    }
}

/// In what a guard stands: all calls, or of very many the innermost and the outermost ones.
pub(crate) fn calls_text(calls: &[CallSite]) -> String {
    const ENDS: usize = 3;
    let all = |calls: &[CallSite]| calls.iter().map(|call| format!(" in {call},")).collect::<String>();
    match calls.len().checked_sub(2 * ENDS) {
        None | Some(0 | 1) => all(calls),
        Some(more) => {
            format!("{} in {more} more calls,{}", all(&calls[..ENDS]), all(&calls[ENDS + more..]))
        }
    }
}

fn called_at(location: &Option<SourceLocation>) -> String {
    location.as_ref().map(|location| format!(", called at {location}")).unwrap_or_default()
}

/// A row as traces call it, and the name of its operation.
pub(crate) fn row_text(row: usize, operation: Option<&str>) -> String {
    let name = Name::Indexed("v", Accent::None, row as i64 + 1).render(Script::Unicode, DIGITS);
    match operation {
        Some(operation) => format!("row {name} ({operation})"),
        None => format!("row {name}"),
    }
}

fn file_text(path: &Option<Box<Path>>, offset: u64) -> String {
    let path = path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
    format!("{path}at byte {offset}: ")
}

/// What two derivatives that disagree look like.
fn suspicion(stated: f64, found: f64) -> String {
    let near = |factor: f64| (stated - factor * found).abs() <= 1e-3 * stated.abs();
    match () {
        () if stated == 0.0 => ": it is missing, or stands in another place".to_owned(),
        () if near(-1.0) => ": the sign is wrong".to_owned(),
        () if near(2.0) => ": twice as much".to_owned(),
        () if near(0.5) => ": half as much".to_owned(),
        () => String::new(),
    }
}

fn operands_text(guard: &Guard, lhs: f64, rhs: f64) -> String {
    match guard.question().operands() {
        1 => exact(lhs),
        _ => format!("{} and {}", exact(lhs), exact(rhs)),
    }
}

fn now_text(answer: &Answer) -> String {
    match answer {
        Answer::Bool(b) => format!("make it {b}"),
        other => format!("give {other}"),
    }
}

/// Checks the length of a slice of the caller's.
pub(crate) fn expect_len(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}

/// An empty list with room for `rows` times `cols` elements, sizes that come from the caller.
pub(crate) fn room_for<T>(what: &'static str, rows: usize, cols: usize) -> Result<Vec<T>, Error> {
    let numbers = rows.saturating_mul(cols);
    let mut room = Vec::new();
    match room.try_reserve_exact(numbers) {
        Ok(()) => Ok(room),
        Err(_) => Err(Error::TooManyNumbers { what, numbers }),
    }
}
