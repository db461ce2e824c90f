//! Recording: [`Var`] and what it writes while a function runs.
//!
//! The active recording belongs to the thread. A `Var` is a number with the
//! name of its recording and its place in it; an operation on it appends a row.
//! Recordings nest: an inner one suspends the outer one until it ends, however
//! it ends. A variable of any other recording than the active one is foreign:
//! whatever is computed from it is poisoned, and the recording that met it ends
//! in an error, since a number of one tape means nothing on another.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::iter::{Product, Sum};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::formula::Name;
use crate::ops::{Fold, Op, Operation, Relation};
use crate::rule::{Real, Rule};
use crate::rule_operators;
use crate::tape::{Tape, TapeData};

/// A number that records what is done with it.
///
/// `Copy`, `'static`, `Send` and `Sync`: a value, the number of its recording
/// and its row. It has std's methods for `f64` (`sin`, `powi`, `atan2`, `max`,
/// …), all operators with `Var` and `f64` on either side, comparisons with
/// both, `Sum` and `Product`. A constant (`Var::from(2.0)`) belongs to no
/// recording and may be used in any.
///
/// Comparisons become guards: a replay that would answer one otherwise is
/// [`Error::BranchChanged`], never a wrong number. `min`, `max`, `abs`,
/// `clamp` and `select_*` are operations, not guards.
///
/// ```
/// use ad_core::Tape;
/// let tape = Tape::record(&[3.0], |x| {
///     let mut y = 1.0 - x[0].sin().powi(2);
///     y += x[0].max(0.5);
///     y
/// })?;
/// assert_eq!(tape.len(), 6);
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Var {
    value: f64,
    recording: u64,
    node: u32,
}

/// The `recording` of a constant.
const CONSTANT: u64 = 0;
/// The `recording` of what was computed from a foreign variable.
const POISONED: u64 = u64::MAX;
/// Marks an operand that is an index into the constants.
const CONSTANT_BIT: u32 = 1 << 31;

/// Numbers the recordings of the process; a number never repeats.
static NEXT_RECORDING: AtomicU64 = AtomicU64::new(1);

/// The recordings under way in the process, with the first question that was
/// put to one of their variables where its answer could not be noted: on
/// another thread.
///
/// A `Var` may travel to another thread, where a comparison would otherwise
/// leave no guard. Touched when a recording begins and ends, and by strays.
static STRAYS: Mutex<BTreeMap<u64, Option<Stray>>> = Mutex::new(BTreeMap::new());

/// A variable used where its recording is not active: its value, and where.
type Stray = (f64, &'static Location<'static>);

fn strays() -> MutexGuard<'static, BTreeMap<u64, Option<Stray>>> {
    // No code panics while it holds the lock; a poisoned map is still whole.
    STRAYS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the recording of `x`, if it is still under way, that `x` strayed.
fn report_stray(x: Var, location: &'static Location<'static>) {
    if let Some(stray) = strays().get_mut(&x.recording) {
        stray.get_or_insert((x.value, location));
    }
}

thread_local! {
    static ACTIVE: RefCell<Option<Box<Recording>>> = const { RefCell::new(None) };
}

/// A place in the user's code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SourceLocation {
    #[cfg_attr(feature = "serde", serde(serialize_with = "serialize_file"))]
    file: Arc<str>,
    line: u32,
    nearest: bool,
}

#[cfg(feature = "serde")]
fn serialize_file<S: serde::Serializer>(file: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(file)
}

impl SourceLocation {
    fn new(location: &Location<'_>) -> Self {
        SourceLocation { file: location.file().into(), line: location.line(), nearest: false }
    }

    /// The file, as the compiler was given it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Whether this is the nearest place known rather than the exact one: the
    /// operation was called from inside std (a reference comparison, a tuple,
    /// a sort, `Iterator::sum`), so this is the row recorded before it.
    pub fn is_nearest(&self) -> bool {
        self.nearest
    }
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = if self.nearest { "near " } else { "" };
        write!(f, "{near}{}:{}", self.file, self.line)
    }
}

/// Whether the code stands in std or in this crate: then the user's line is not known.
fn is_library(location: &Location<'_>) -> bool {
    let this_directory = file!().trim_end_matches("record.rs");
    let file = location.file().replace('\\', "/");
    file.starts_with(&this_directory.replace('\\', "/"))
        || ["library/core/src/", "library/alloc/src/", "library/std/src/"].iter().any(|dir| file.contains(dir))
}

/// What a guard asks of its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Question {
    /// Does the relation hold? Answered by a bool.
    Relation(Relation),
    /// `partial_cmp`: which is larger? Answered by an ordering, or none with a NaN.
    Compare,
    /// Is it NaN?
    IsNan,
    /// Is it neither NaN nor infinite?
    IsFinite,
    /// Is it +inf or −inf?
    IsInfinite,
    /// Is its sign bit set? Not that of a NaN, which differs between processors.
    IsSignNegative,
    /// Which `i64` is left when the fraction is dropped? None outside the range and for NaN.
    ToI64,
}

impl Question {
    /// How many operands it looks at, 1 or 2.
    pub fn operands(self) -> usize {
        match self {
            Question::Relation(_) | Question::Compare => 2,
            _ => 1,
        }
    }

    /// The answer at the operands a and b (b is ignored where there is only one).
    pub(crate) fn ask(self, a: f64, b: f64) -> Answer {
        match self {
            Question::Relation(relation) => Answer::Bool(relation.holds(a, b)),
            Question::Compare => Answer::Ordering(a.partial_cmp(&b)),
            Question::IsNan => Answer::Bool(a.is_nan()),
            Question::IsFinite => Answer::Bool(a.is_finite()),
            Question::IsInfinite => Answer::Bool(a.is_infinite()),
            // The sign of a NaN differs between processors: it counts as positive.
            Question::IsSignNegative => Answer::Bool(a.is_sign_negative() && !a.is_nan()),
            Question::ToI64 => {
                // −2⁶³ is a number of f64, 2⁶³ − 1 is not: the range is half open.
                let limit = 2f64.powi(63);
                Answer::Integer((-limit..limit).contains(&a).then_some(a as i64))
            }
        }
    }
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Answer {
    /// Yes or no.
    Bool(bool),
    /// Which is larger; none if one is NaN.
    Ordering(Option<Ordering>),
    /// A whole number; none if there is none.
    Integer(Option<i64>),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Bool(b) => write!(f, "{b}"),
            Answer::Ordering(Some(ordering)) => write!(f, "{ordering:?}"),
            Answer::Integer(Some(i)) => write!(f, "{i}"),
            Answer::Ordering(None) | Answer::Integer(None) => write!(f, "None"),
        }
    }
}

/// A comparison that the recorded function made, and its answer.
///
/// `Display` prints it as `v₁ > 0 was true`.
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    pub(crate) question: Question,
    pub(crate) operands: [u32; 2],
    pub(crate) answer: Answer,
    pub(crate) location: SourceLocation,
    pub(crate) names: [Name; 2],
}

impl Guard {
    /// What was asked.
    pub fn question(&self) -> Question {
        self.question
    }

    /// What was answered while recording.
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Where the comparison stands.
    pub fn location(&self) -> &SourceLocation {
        &self.location
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.names;
        match self.question {
            Question::Relation(relation) => write!(f, "{a} {} {b}", relation.symbol())?,
            Question::Compare => write!(f, "{a}.partial_cmp({b})")?,
            Question::IsNan => write!(f, "{a}.is_nan()")?,
            Question::IsFinite => write!(f, "{a}.is_finite()")?,
            Question::IsInfinite => write!(f, "{a}.is_infinite()")?,
            Question::IsSignNegative => write!(f, "{a}.is_sign_negative()")?,
            Question::ToI64 => write!(f, "{a}.to_i64()")?,
        }
        write!(f, " was {}", self.answer)
    }
}

/// A value that left the recording through [`Var::value`].
///
/// What the function computed from it is a constant of the tape: a replay does
/// not follow it.
#[derive(Debug, Clone, PartialEq)]
pub struct Escape {
    pub(crate) operand: u32,
    pub(crate) value: f64,
    pub(crate) location: SourceLocation,
    pub(crate) name: Name,
}

impl Escape {
    /// The value that was read.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Where it was read.
    pub fn location(&self) -> &SourceLocation {
        &self.location
    }
}

impl fmt::Display for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} was read at {}", self.name, self.value, self.location)
    }
}

/// Numbers distinct keys in the order of their first use.
///
/// A function's keys repeat in loops, so a small direct-mapped cache answers
/// most look-ups.
struct Interner<K> {
    cache: Box<[Option<(K, u32)>; 64]>,
    numbers: HashMap<K, u32>,
    keys: Vec<K>,
}

impl<K: Copy + Eq + Hash> Interner<K> {
    fn new() -> Self {
        Interner { cache: Box::new([None; 64]), numbers: HashMap::new(), keys: Vec::new() }
    }

    #[inline]
    fn number(&mut self, key: K, hash: u64) -> u32 {
        let slot = (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize;
        match self.cache[slot] {
            Some((cached, number)) if cached == key => number,
            _ => {
                let next = self.keys.len() as u32;
                let number = *self.numbers.entry(key).or_insert(next);
                if number == next {
                    self.keys.push(key);
                }
                self.cache[slot] = Some((key, number));
                number
            }
        }
    }
}

/// A question asked before row `row`, with the operands as recorded.
struct RecordedGuard {
    question: Question,
    operands: [u32; 2],
    answer: Answer,
    row: usize,
    location: &'static Location<'static>,
}

struct RecordedEscape {
    operand: u32,
    value: f64,
    row: usize,
    location: &'static Location<'static>,
}

/// A recording under way.
struct Recording {
    id: u64,
    first_row: u32,
    ops: Vec<Op>,
    operand_starts: Vec<u32>,
    operands: Vec<u32>,
    row_locations: Vec<u32>,
    /// Keyed by the bits, so that −0 and 0 are two constants.
    constants: Interner<u64>,
    /// Keyed by the address of the compiler's static.
    locations: Interner<usize>,
    location_statics: Vec<&'static Location<'static>>,
    guards: Vec<RecordedGuard>,
    escapes: Vec<RecordedEscape>,
    /// The first foreign variable met: its value and where.
    foreign: Option<(f64, &'static Location<'static>)>,
    /// What an index could not hold any more.
    overflow: Option<&'static str>,
    parent: Option<Box<Recording>>,
}

/// More rows or operands than this do not fit an index.
const LIMIT: usize = (CONSTANT_BIT - 1) as usize;

impl Recording {
    fn location_number(&mut self, location: &'static Location<'static>) -> u32 {
        let address = std::ptr::from_ref(location) as usize;
        let number = self.locations.number(address, address as u64);
        if number as usize == self.location_statics.len() {
            self.location_statics.push(location);
        }
        number
    }

    fn operand(&mut self, x: Var) -> u32 {
        if x.recording == CONSTANT {
            let bits = x.value.to_bits();
            self.constants.number(bits, bits) | CONSTANT_BIT
        } else {
            x.node
        }
    }

    /// Whether each of `x` belongs here; notes the first that does not.
    #[inline]
    fn owns(&mut self, x: &[Var], location: &'static Location<'static>) -> bool {
        let foreign = x.iter().find(|v| v.recording != self.id && v.recording != CONSTANT);
        if let Some(v) = foreign {
            self.foreign.get_or_insert((v.value, location));
        }
        foreign.is_none()
    }

    /// Appends a row and gives the node of its first result.
    fn push(&mut self, op: Op, x: &[Var], results: usize, location: &'static Location<'static>) -> u32 {
        let row = self.ops.len();
        let node = self.first_row as usize + row;
        if node + results > LIMIT || self.operands.len() + x.len() > LIMIT {
            self.overflow = Some("rows or operands");
            return 0;
        }
        for &operand in x {
            let operand = self.operand(operand);
            self.operands.push(operand);
        }
        let location = self.location_number(location);
        for result in 0..results {
            self.ops.push(if result == 0 { op } else { Op::FurtherResult });
            self.operand_starts.push(self.operands.len() as u32);
            self.row_locations.push(location);
        }
        node as u32
    }
}

/// Runs `action` on the active recording of this thread, if there is one.
#[inline]
fn with_active<R>(action: impl FnOnce(&mut Recording) -> R) -> Option<R> {
    // A thread that is being torn down has no active recording any more.
    ACTIVE.try_with(|active| active.borrow_mut().as_deref_mut().map(action)).ok().flatten()
}

/// Records `op` with the given values, or poisons them.
#[inline]
fn push_row<const M: usize>(op: Op, x: &[Var], values: [f64; M], location: &'static Location<'static>) -> [Var; M] {
    if x.iter().all(|v| v.recording == CONSTANT) {
        return values.map(Var::constant);
    }
    let first = with_active(|recording| {
        recording.owns(x, location).then(|| (recording.id, recording.push(op, x, M, location)))
    });
    let (recording, node) = first.flatten().unwrap_or((POISONED, 0));
    let mut result = 0;
    values.map(|value| {
        result += 1;
        Var { value, recording, node: node + result - 1 }
    })
}

/// Answers a question and notes it as a guard, unless its operands are constants.
fn ask(question: Question, a: Var, b: Var, location: &'static Location<'static>) -> Answer {
    let answer = question.ask(a.value, b.value);
    if a.recording != CONSTANT || b.recording != CONSTANT {
        let noted = with_active(|active| {
            active.owns(&[a, b], location);
            // An outer recording that this one suspends still hears the answer.
            let mut next = Some(active);
            while let Some(recording) = next {
                if [a, b].iter().all(|x| x.recording == recording.id || x.recording == CONSTANT) {
                    let operands = [recording.operand(a), recording.operand(b)];
                    let row = recording.ops.len();
                    recording.guards.push(RecordedGuard { question, operands, answer, row, location });
                    return true;
                }
                next = recording.parent.as_deref_mut();
            }
            false
        });
        if noted != Some(true) {
            // The answer may steer the recording that owns the variable, and
            // no result carries the poison there.
            report_stray(a, location);
            report_stray(b, location);
        }
    }
    answer
}

fn ask_bool(question: Question, a: Var, b: Var, location: &'static Location<'static>) -> bool {
    ask(question, a, b, location) == Answer::Bool(true)
}

impl Var {
    fn constant(value: f64) -> Var {
        Var { value, recording: CONSTANT, node: 0 }
    }

    /// The value at the recording point: an escape, listed by
    /// [`Tape::escapes`]. What is computed from it is a constant of the tape.
    /// After its recording has ended a variable is a plain number, and reading
    /// it is listed nowhere.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[3.0], |x| x[0] * x[0].value())?;
    /// assert_eq!(tape.eval(&[5.0])?, [15.0]); // 5·3: the 3 was baked in,
    /// assert_eq!(tape.escapes().len(), 1);    // and the tape says so.
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn value(self) -> f64 {
        let location = Location::caller();
        if self.recording != CONSTANT && self.recording != POISONED {
            // The variable may belong to a recording that this one suspends.
            let noted = with_active(|active| {
                let mut next = Some(active);
                while let Some(recording) = next {
                    if recording.id == self.recording {
                        let row = recording.ops.len();
                        recording.escapes.push(RecordedEscape { operand: self.node, value: self.value, row, location });
                        return true;
                    }
                    next = recording.parent.as_deref_mut();
                }
                false
            });
            if noted != Some(true) {
                report_stray(self, location);
            }
        }
        self.value
    }

    /// Whether the value is NaN; a guard.
    #[track_caller]
    pub fn is_nan(self) -> bool {
        ask_bool(Question::IsNan, self, Var::constant(0.0), Location::caller())
    }

    /// Whether the value is neither NaN nor infinite; a guard.
    #[track_caller]
    pub fn is_finite(self) -> bool {
        ask_bool(Question::IsFinite, self, Var::constant(0.0), Location::caller())
    }

    /// Whether the value is +inf or −inf; a guard.
    #[track_caller]
    pub fn is_infinite(self) -> bool {
        ask_bool(Question::IsInfinite, self, Var::constant(0.0), Location::caller())
    }

    /// Whether the sign bit is set, and it is no NaN; a guard.
    #[track_caller]
    pub fn is_sign_negative(self) -> bool {
        ask_bool(Question::IsSignNegative, self, Var::constant(0.0), Location::caller())
    }

    /// Whether the sign bit is not set, or it is a NaN; a guard.
    #[track_caller]
    pub fn is_sign_positive(self) -> bool {
        !self.is_sign_negative()
    }

    /// The whole part, or `None` for NaN and outside the range of `i64`; a
    /// guard, so that an index computed from it cannot silently be another one
    /// in a replay.
    ///
    /// ```
    /// use ad_core::{Error, Tape};
    /// let table = [1.0, 10.0, 100.0];
    /// let tape = Tape::record(&[1.5], |x| x[0] * table[x[0].to_i64().unwrap() as usize])?;
    /// assert_eq!(tape.eval(&[1.25])?, [12.5]);
    /// assert!(matches!(tape.eval(&[2.5]), Err(Error::BranchChanged { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    #[track_caller]
    pub fn to_i64(self) -> Option<i64> {
        match ask(Question::ToI64, self, Var::constant(0.0), Location::caller()) {
            Answer::Integer(whole) => whole,
            _ => None,
        }
    }
}

impl From<f64> for Var {
    fn from(c: f64) -> Var {
        Var::constant(c)
    }
}

impl Default for Var {
    /// The constant 0.
    fn default() -> Var {
        Var::constant(0.0)
    }
}

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.recording {
            CONSTANT => write!(f, "Var({:?}, constant)", self.value),
            POISONED => write!(f, "Var({:?}, foreign)", self.value),
            id => write!(f, "Var({:?}, node {} of recording {id})", self.value, self.node),
        }
    }
}

impl fmt::Display for Var {
    /// The value at the recording point, for a look while recording. Not an escape.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Rule for Var {
    #[inline]
    #[track_caller]
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Var; N]) -> [Var; M] {
        push_row(O::OP, &x, O::value(x.map(|v| v.value)), Location::caller())
    }

    #[track_caller]
    fn fold<O: Fold>(x: &[Var]) -> Var {
        let values: smallvec::SmallVec<[f64; 32]> = x.iter().map(|v| v.value).collect();
        let [v] = push_row(O::OP, x, [O::value(&values)], Location::caller());
        v
    }

    /// Asks the question again in the active recording, as a guard of that one.
    #[track_caller]
    fn confirm(question: Question, answer: Answer, a: Var, b: Var) -> Result<(), (Answer, f64, f64)> {
        let now = ask(question, a, b, Location::caller());
        if now == answer { Ok(()) } else { Err((now, a.value, b.value)) }
    }
}

rule_operators!([] Var);

impl Real for Var {
    fn value(self) -> f64 {
        self.value()
    }
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

/// Writes the comparisons of one pair of types. Each method stands alone, since
/// `partial_cmp` by itself would not know the caller's line.
macro_rules! comparisons {
    ($Left:ty, $Right:ty) => {
        impl PartialEq<$Right> for $Left {
            #[track_caller]
            fn eq(&self, other: &$Right) -> bool {
                ask_bool(Question::Relation(Relation::Eq), Var::from(*self), Var::from(*other), Location::caller())
            }
            #[track_caller]
            #[allow(clippy::partialeq_ne_impl)]
            fn ne(&self, other: &$Right) -> bool {
                ask_bool(Question::Relation(Relation::Ne), Var::from(*self), Var::from(*other), Location::caller())
            }
        }
        impl PartialOrd<$Right> for $Left {
            #[track_caller]
            fn partial_cmp(&self, other: &$Right) -> Option<Ordering> {
                match ask(Question::Compare, Var::from(*self), Var::from(*other), Location::caller()) {
                    Answer::Ordering(ordering) => ordering,
                    _ => None,
                }
            }
            #[track_caller]
            fn lt(&self, other: &$Right) -> bool {
                ask_bool(Question::Relation(Relation::Lt), Var::from(*self), Var::from(*other), Location::caller())
            }
            #[track_caller]
            fn le(&self, other: &$Right) -> bool {
                ask_bool(Question::Relation(Relation::Le), Var::from(*self), Var::from(*other), Location::caller())
            }
            #[track_caller]
            fn gt(&self, other: &$Right) -> bool {
                ask_bool(Question::Relation(Relation::Gt), Var::from(*self), Var::from(*other), Location::caller())
            }
            #[track_caller]
            fn ge(&self, other: &$Right) -> bool {
                ask_bool(Question::Relation(Relation::Ge), Var::from(*self), Var::from(*other), Location::caller())
            }
        }
    };
}
comparisons!(Var, Var);
comparisons!(Var, f64);
comparisons!(f64, Var);

impl Sum for Var {
    /// One row for the whole sum, bit-equal to std's fold. Empty: the constant −0.
    #[track_caller]
    fn sum<I: Iterator<Item = Var>>(iter: I) -> Var {
        let terms: Vec<Var> = iter.collect();
        Rule::sum_of(&terms)
    }
}

impl<'a> Sum<&'a Var> for Var {
    #[track_caller]
    fn sum<I: Iterator<Item = &'a Var>>(iter: I) -> Var {
        iter.copied().sum()
    }
}

impl Product for Var {
    /// A row for each factor after the first. Empty: the constant 1.
    #[track_caller]
    fn product<I: Iterator<Item = Var>>(iter: I) -> Var {
        // A loop, so that the rows have the caller's line where it is known.
        let mut product: Option<Var> = None;
        for factor in iter {
            product = Some(product.map_or(factor, |product| product * factor));
        }
        product.unwrap_or(Var::constant(1.0))
    }
}

impl<'a> Product<&'a Var> for Var {
    #[track_caller]
    fn product<I: Iterator<Item = &'a Var>>(iter: I) -> Var {
        iter.copied().product()
    }
}

/// What a recorded function may return: `Var`, `[Var; N]`, `Vec<Var>`, or a
/// tuple of up to twelve of them in any mixture.
pub trait Outputs {
    /// Appends the dependent variables in order.
    fn collect_into(self, outputs: &mut Vec<Var>);
}

impl Outputs for Var {
    fn collect_into(self, outputs: &mut Vec<Var>) {
        outputs.push(self);
    }
}

impl<const N: usize> Outputs for [Var; N] {
    fn collect_into(self, outputs: &mut Vec<Var>) {
        outputs.extend(self);
    }
}

impl Outputs for Vec<Var> {
    fn collect_into(self, outputs: &mut Vec<Var>) {
        outputs.extend(self);
    }
}

macro_rules! tuple_outputs {
    ($($T:ident)+) => {
        impl<$($T: Outputs),+> Outputs for ($($T,)+) {
            #[allow(non_snake_case)]
            fn collect_into(self, outputs: &mut Vec<Var>) {
                let ($($T,)+) = self;
                $($T.collect_into(outputs);)+
            }
        }
    };
}
tuple_outputs!(A);
tuple_outputs!(A B);
tuple_outputs!(A B C);
tuple_outputs!(A B C D);
tuple_outputs!(A B C D E);
tuple_outputs!(A B C D E F);
tuple_outputs!(A B C D E F G);
tuple_outputs!(A B C D E F G H);
tuple_outputs!(A B C D E F G H I);
tuple_outputs!(A B C D E F G H I J);
tuple_outputs!(A B C D E F G H I J K);
tuple_outputs!(A B C D E F G H I J K L);

/// Takes the recording off the thread again and reinstates the one it
/// suspended, also when the closure panics.
struct Activation;

impl Activation {
    fn start(mut recording: Box<Recording>) -> Activation {
        strays().insert(recording.id, None);
        ACTIVE.with(|active| {
            let mut active = active.borrow_mut();
            recording.parent = active.take();
            *active = Some(recording);
        });
        Activation
    }

    fn finish(self) -> Option<Box<Recording>> {
        let recording = Activation::end();
        std::mem::forget(self);
        recording
    }

    fn end() -> Option<Box<Recording>> {
        ACTIVE
            .try_with(|active| {
                let mut active = active.borrow_mut();
                let mut ended = active.take();
                *active = ended.as_mut().and_then(|recording| recording.parent.take());
                if let Some(recording) = &mut ended
                    && let Some(Some(stray)) = strays().remove(&recording.id)
                {
                    recording.foreign.get_or_insert(stray);
                }
                ended
            })
            .ok()
            .flatten()
    }
}

impl Drop for Activation {
    fn drop(&mut self) {
        Activation::end();
    }
}

/// Names, parameters and the point of a recording to be made; from [`Tape::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder records nothing until record is called"]
pub struct Builder {
    input_names: Vec<String>,
    x0: Vec<f64>,
    param_names: Vec<String>,
    k0: Vec<f64>,
}

impl Builder {
    /// The independent variables: a name for each (or no names at all) and the
    /// point to record at.
    ///
    /// A name stands in the input's own row of a trace and in error messages;
    /// the formulas of a trace call the inputs v₁₋ₙ … v₀, as the textbook does.
    pub fn inputs(mut self, names: &[&str], x0: &[f64]) -> Self {
        self.input_names = names.iter().map(|&name| name.to_owned()).collect();
        self.x0 = x0.to_vec();
        self
    }

    /// The parameters: data that may change between replays and is not
    /// differentiated. A name for each (or no names at all) and their values
    /// at the recording.
    pub fn params(mut self, names: &[&str], k0: &[f64]) -> Self {
        self.param_names = names.iter().map(|&name| name.to_owned()).collect();
        self.k0 = k0.to_vec();
        self
    }

    /// Runs `f` once, at the given point, and keeps what it did.
    ///
    /// `f` receives the independent variables and the parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] without inputs, [`Error::NameCount`] and
    /// [`Error::BadName`] for names that do not fit, [`Error::NoOutputs`],
    /// [`Error::ForeignVar`] if a variable of another recording was used or
    /// returned, [`Error::TooLarge`].
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::builder()
    ///     .inputs(&["x", "y"], &[1.0, 2.0])
    ///     .params(&["k"], &[3.0])
    ///     .record(|x, k| x[0] * x[1] + k[0])?;
    /// assert_eq!(tape.eval(&[2.0, 5.0])?, [13.0]);
    /// assert_eq!(tape.with_params(&[1.0])?.eval(&[2.0, 5.0])?, [11.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn record<O: Outputs>(self, f: impl FnOnce(&[Var], &[Var]) -> O) -> Result<Tape, Error> {
        let caller = Location::caller();
        if self.x0.is_empty() {
            return Err(Error::Empty {
                what: "the list of inputs",
                hint: "a tape needs at least one independent variable",
            });
        }
        check_names("inputs", &self.input_names, self.x0.len())?;
        check_names("parameters", &self.param_names, self.k0.len())?;
        let mut seen = HashSet::new();
        if let Some(name) = self.input_names.iter().chain(&self.param_names).find(|&name| !seen.insert(name)) {
            return Err(Error::BadName { name: name.clone(), reason: "stands twice: give each variable its own" });
        }
        let too_large = |what| Error::TooLarge { location: SourceLocation::new(caller), what, limit: LIMIT };
        let first_row = self.x0.len() + self.k0.len();
        if first_row > LIMIT {
            return Err(too_large("inputs and parameters"));
        }

        let id = NEXT_RECORDING.fetch_add(1, AtomicOrdering::Relaxed);
        let variable = |(node, &value): (usize, &f64)| Var { value, recording: id, node: node as u32 };
        let variables: Vec<Var> = self.x0.iter().chain(&self.k0).enumerate().map(variable).collect();
        let activation = Activation::start(Box::new(Recording {
            id,
            first_row: first_row as u32,
            ops: Vec::new(),
            operand_starts: vec![0],
            operands: Vec::new(),
            row_locations: Vec::new(),
            constants: Interner::new(),
            locations: Interner::new(),
            location_statics: Vec::new(),
            guards: Vec::new(),
            escapes: Vec::new(),
            foreign: None,
            overflow: None,
            parent: None,
        }));
        let (x, k) = variables.split_at(self.x0.len());
        let mut outputs = Vec::new();
        f(x, k).collect_into(&mut outputs);
        // While the closure ran, nothing else could take the recording away.
        let Some(mut recording) = activation.finish() else {
            return Err(Error::Malformed { row: 0, reason: "the recording ended before its function did" });
        };

        recording.owns(&outputs, caller);
        if let Some((value, location)) = recording.foreign {
            return Err(Error::ForeignVar { location: SourceLocation::new(location), value });
        }
        if let Some(what) = recording.overflow {
            return Err(too_large(what));
        }
        if outputs.is_empty() {
            return Err(Error::NoOutputs { location: SourceLocation::new(caller) });
        }
        let outputs: Vec<u32> = outputs.into_iter().map(|output| recording.operand(output)).collect();
        if recording.constants.keys.len() + first_row + recording.ops.len() > LIMIT {
            return Err(too_large("rows and constants"));
        }
        Ok(self.finish(*recording, outputs, caller))
    }

    /// Brings the recording into the tape's index space: constants, inputs,
    /// parameters, rows.
    fn finish(self, recording: Recording, outputs: Vec<u32>, caller: &'static Location<'static>) -> Tape {
        let shift = recording.constants.keys.len() as u32;
        let place = |operand: u32| if operand & CONSTANT_BIT != 0 { operand & !CONSTANT_BIT } else { operand + shift };

        // The place of a row recorded from inside a library is that of the row before it.
        let mut places: Vec<SourceLocation> =
            recording.location_statics.iter().map(|l| SourceLocation::new(l)).collect();
        let in_library: Vec<bool> = recording.location_statics.iter().map(|l| is_library(l)).collect();
        let mut nearest_numbers: HashMap<Option<u32>, u32> = HashMap::new();
        let mut known: Option<u32> = None;
        let mut known_before = Vec::with_capacity(recording.ops.len() + 1);
        let mut row_locations = recording.row_locations;
        for number in &mut row_locations {
            known_before.push(known);
            if in_library[*number as usize] {
                *number = *nearest_numbers.entry(known).or_insert_with(|| {
                    let base = known.map_or(SourceLocation::new(caller), |number| places[number as usize].clone());
                    places.push(SourceLocation { nearest: true, ..base });
                    places.len() as u32 - 1
                });
            } else {
                known = Some(*number);
            }
        }
        known_before.push(known);
        let locate = |row: usize, location: &'static Location<'static>| {
            if is_library(location) {
                let base =
                    known_before[row].map_or(SourceLocation::new(caller), |number| places[number as usize].clone());
                SourceLocation { nearest: true, ..base }
            } else {
                SourceLocation::new(location)
            }
        };

        let mut data = TapeData {
            num_inputs: self.x0.len(),
            num_params: self.k0.len(),
            constants: recording.constants.keys.iter().map(|&bits| f64::from_bits(bits)).collect(),
            ops: recording.ops,
            operand_starts: recording.operand_starts,
            operands: recording.operands.into_iter().map(place).collect(),
            outputs: outputs.into_iter().map(place).collect(),
            input_names: self.input_names,
            param_names: self.param_names,
            active: Vec::new(),
            spans: Vec::new(),
            param_rows: Vec::new(),
            guards: Vec::new(),
            escapes: Vec::new(),
            row_locations: Vec::new(),
            locations: Vec::new(),
        };
        data.guards = recording
            .guards
            .into_iter()
            .map(|guard| {
                let operands = guard.operands.map(place);
                Guard {
                    question: guard.question,
                    operands,
                    answer: guard.answer,
                    location: locate(guard.row, guard.location),
                    names: operands.map(|operand| data.given_name(operand)),
                }
            })
            .collect();
        data.escapes = recording
            .escapes
            .into_iter()
            .map(|escape| Escape {
                operand: place(escape.operand),
                value: escape.value,
                location: locate(escape.row, escape.location),
                name: data.given_name(place(escape.operand)),
            })
            .collect();
        data.row_locations = row_locations;
        data.locations = places;
        data.find_activity();
        Tape::new(data, self.k0)
    }
}

fn check_names(what: &'static str, names: &[String], expected: usize) -> Result<(), Error> {
    if !names.is_empty() && names.len() != expected {
        return Err(Error::NameCount { what, expected, got: names.len() });
    }
    for name in names {
        if name.trim().is_empty() {
            return Err(Error::BadName { name: name.clone(), reason: "is empty: give it a letter at least" });
        }
        if name.chars().any(char::is_control) {
            return Err(Error::BadName {
                name: name.clone(),
                reason: "holds a control character: it would break the printed tables",
            });
        }
    }
    Ok(())
}
