//! Recording: [`Var`] and what it writes while a function runs.
//!
//! The active recording belongs to the thread. A `Var` is a number with the
//! name of its recording and its place in it; an operation on it appends a row.
//! Recordings nest: an inner one suspends the outer one until it ends, however
//! it ends. A variable of any other recording than the active one is foreign:
//! whatever is computed from it is poisoned, and the recording that met it ends
//! in an error, since a number of one tape means nothing on another.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::{Product, Sum};
use std::mem::{self, ManuallyDrop};
use std::num::FpCategory;
use std::ops::Deref;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{CallSite, Error};
use crate::formula::{Accent, DIGITS, Name, Script};
use crate::function::{DEEPEST, Function};
use crate::ops::{Fold, Op, Operation, Relation};
use crate::rule::{Real, Rule};
use crate::rule_operators;
use crate::tape::{Row, Tape, TapeData};

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
static STRAYS: Mutex<Vec<(u64, Option<Stray>)>> = Mutex::new(Vec::new());

/// A variable used where its recording is not active: its value, and where.
type Stray = (f64, &'static Location<'static>);

fn strays() -> MutexGuard<'static, Vec<(u64, Option<Stray>)>> {
    // No code panics while it holds the lock; a poisoned list is still whole.
    STRAYS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the recording of `x`, if it is still under way, that `x` strayed.
fn report_stray(x: Var, location: &'static Location<'static>) {
    if let Some((_, stray)) = strays().iter_mut().find(|(id, _)| *id == x.recording) {
        stray.get_or_insert((x.value, location));
    }
}

/// Takes the recording off the list of those under way, with what strayed from it.
fn take_stray(id: u64) -> Option<Stray> {
    let mut strays = strays();
    // The latest begun is the likeliest to end.
    let position = strays.iter().rposition(|(other, _)| *other == id)?;
    strays.swap_remove(position).1
}

/// A place in the user's code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SourceLocation {
    file: FileName,
    line: u32,
    nearest: bool,
}

/// The name of a file of code.
#[derive(Clone)]
enum FileName {
    /// The compiler left it in the program.
    Compiled(&'static str),
    /// It came with a tape from elsewhere.
    Loaded(Arc<str>),
}

impl Deref for FileName {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            FileName::Compiled(name) => name,
            FileName::Loaded(name) => name,
        }
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for FileName {
    fn eq(&self, other: &FileName) -> bool {
        **self == **other
    }
}

impl Eq for FileName {}

impl Hash for FileName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        str::hash(self, state);
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for FileName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl SourceLocation {
    /// Stands where there is no place any more; a file that has no name tells it from the others.
    pub(crate) const UNKNOWN: SourceLocation = SourceLocation { file: FileName::Compiled(""), line: 0, nearest: false };

    pub(crate) fn new(location: &'static Location<'static>) -> Self {
        SourceLocation { file: FileName::Compiled(location.file()), line: location.line(), nearest: false }
    }

    /// A place that was noted in another program. Control characters, which would break what is
    /// printed, are replaced. One without the name of a file is no place.
    pub(crate) fn loaded(file: Arc<str>, line: u32, nearest: bool) -> Self {
        if file.is_empty() {
            return SourceLocation::UNKNOWN;
        }
        let file = match file.contains(char::is_control) {
            true => file.replace(char::is_control, "\u{FFFD}").into(),
            false => file,
        };
        SourceLocation { file: FileName::Loaded(file), line, nearest }
    }

    /// Whether there is a place: not in a tape from which they were taken away, by
    /// [`Tape::without_locations`](crate::Tape::without_locations).
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[2.0], |x| if x[0] > 0.0 { x[0].ln() } else { x[0] })?;
    /// assert!(tape.guards()[0].location().is_known());
    /// let anonymous = tape.without_locations();
    /// let place = anonymous.guards()[0].location();
    /// assert!(!place.is_known());
    /// assert_eq!(place.to_string(), "an unknown place");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn is_known(&self) -> bool {
        !self.file.is_empty()
    }

    /// The file, as the compiler was given it; empty if the place is not known.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1; 0 if the place is not known.
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
        if !self.is_known() {
            return f.write_str("an unknown place");
        }
        let near = if self.nearest { "near " } else { "" };
        write!(f, "{near}{}:{}", &*self.file, self.line)
    }
}

/// Whether the code stands in std or in this crate: then the user's line is not known.
fn is_library(file: &str) -> bool {
    let this_directory = file!().trim_end_matches("record.rs");
    let file = file.replace('\\', "/");
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
    /// Is it neither 0, subnormal, infinite nor NaN?
    IsNormal,
    /// Is it closer to 0 than any normal number, and not 0?
    IsSubnormal,
}

impl Question {
    /// How many operands it looks at, 1 or 2.
    pub fn operands(self) -> usize {
        match self {
            Question::Relation(_) | Question::Compare => 2,
            _ => 1,
        }
    }

    /// Every question, in the order in which tape files number them: a new one comes last.
    pub(crate) const ALL: [Question; 14] = {
        use Relation::{Eq, Ge, Gt, Le, Lt, Ne};
        [
            Question::Relation(Lt),
            Question::Relation(Le),
            Question::Relation(Gt),
            Question::Relation(Ge),
            Question::Relation(Eq),
            Question::Relation(Ne),
            Question::Compare,
            Question::IsNan,
            Question::IsFinite,
            Question::IsInfinite,
            Question::IsSignNegative,
            Question::ToI64,
            Question::IsNormal,
            Question::IsSubnormal,
        ]
    };

    /// The relation's symbol or the method's name, as Rust writes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Question::Relation(relation) => relation.symbol(),
            Question::Compare => "partial_cmp",
            Question::IsNan => "is_nan",
            Question::IsFinite => "is_finite",
            Question::IsInfinite => "is_infinite",
            Question::IsSignNegative => "is_sign_negative",
            Question::ToI64 => "to_i64",
            Question::IsNormal => "is_normal",
            Question::IsSubnormal => "is_subnormal",
        }
    }

    /// The answer at the operands a and b (b is ignored where there is only one).
    #[inline]
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
            Question::IsNormal => Answer::Bool(a.is_normal()),
            Question::IsSubnormal => Answer::Bool(a.is_subnormal()),
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

/// What an operand of a guard or of an escape is called.
#[derive(Debug, Clone)]
pub(crate) enum OperandName {
    Own(Name),
    /// All that look at one variable of a loaded tape have its name in common:
    /// a long name that many look at takes its memory once.
    Shared(Arc<Name>),
}

impl Deref for OperandName {
    type Target = Name;
    fn deref(&self) -> &Name {
        match self {
            OperandName::Own(name) => name,
            OperandName::Shared(name) => name,
        }
    }
}

impl PartialEq for OperandName {
    fn eq(&self, other: &OperandName) -> bool {
        **self == **other
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
    pub(crate) names: [OperandName; 2],
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

    /// Whether the answer is one that the question can have.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(
            (self.question, self.answer),
            (Question::Compare, Answer::Ordering(_))
                | (Question::ToI64, Answer::Integer(_))
                | (
                    Question::Relation(_)
                        | Question::IsNan
                        | Question::IsFinite
                        | Question::IsInfinite
                        | Question::IsSignNegative
                        | Question::IsNormal
                        | Question::IsSubnormal,
                    Answer::Bool(_)
                )
        )
    }
}

impl Guard {
    /// The question and its answer, numbers with so many significant digits.
    pub(crate) fn text(&self, digits: usize) -> String {
        let [a, b] = self.names.each_ref().map(|name| name.render(Script::Unicode, digits));
        let word = self.question.word();
        let question = match self.question {
            Question::Relation(_) => format!("{a} {word} {b}"),
            Question::Compare => format!("{a}.{word}({b})"),
            _ => format!("{a}.{word}()"),
        };
        format!("{question} was {}", self.answer)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(DIGITS))
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
    pub(crate) name: OperandName,
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
        write!(f, "{} = {} was read at {}", *self.name, self.value, self.location)
    }
}

/// Finds a number by its key: a hash table that stays on its thread, so that a
/// short recording pays for no table of its own.
struct Numbers {
    slots: Vec<Slot>,
    /// How many slots hold a key of this generation.
    used: usize,
    /// A slot of another generation counts as empty: so all are emptied at once.
    generation: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    number: u32,
    generation: u32,
}

impl Numbers {
    const FEWEST: usize = 64;
    /// A thread keeps no more slots than this from one recording to the next.
    const KEPT: usize = 1024;
    const EMPTY: Slot = Slot { key: 0, number: 0, generation: 0 };

    fn new() -> Self {
        Numbers { slots: vec![Numbers::EMPTY; Numbers::FEWEST], used: 0, generation: 1 }
    }

    fn clear(&mut self) {
        self.used = 0;
        self.generation = self.generation.wrapping_add(1);
        if self.slots.len() > Numbers::KEPT || self.generation == 0 {
            *self = Numbers::new();
        }
    }

    /// The slot that the search for a key begins at. Hashed by multiplication:
    /// the same on every machine.
    #[inline]
    fn first_slot(&self, key: u64) -> usize {
        let hash = (key ^ key >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u32> {
        let mut at = self.first_slot(key);
        loop {
            let slot = &self.slots[at];
            if slot.generation != self.generation {
                return None;
            }
            if slot.key == key {
                return Some(slot.number);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a key that is not there yet.
    fn insert(&mut self, key: u64, number: u32) {
        self.used += 1;
        if self.used > self.slots.len() / 2 {
            let more = vec![Numbers::EMPTY; self.slots.len() * 2];
            let full = mem::replace(&mut self.slots, more);
            let generation = self.generation;
            full.into_iter().filter(|slot| slot.generation == generation).for_each(|slot| self.place(slot));
        }
        self.place(Slot { key, number, generation: self.generation });
    }

    fn place(&mut self, slot: Slot) {
        let mut at = self.first_slot(slot.key);
        while self.slots[at].generation == self.generation {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }
}

/// The constants of a recording, each once, in the order of their first use.
struct Constants {
    /// By their bits, so that −0 and 0 are two constants.
    numbers: Numbers,
    values: Vec<f64>,
}

impl Constants {
    #[inline]
    fn number(&mut self, bits: u64) -> u32 {
        match self.numbers.get(bits) {
            Some(number) => number,
            None => self.add(bits),
        }
    }

    /// The operand of a row for a constant.
    fn operand(&mut self, bits: u64, shift: u32) -> u32 {
        let number = self.number(bits);
        if number < shift { number } else { number | CONSTANT_BIT }
    }

    #[cold]
    fn add(&mut self, bits: u64) -> u32 {
        let number = self.values.len() as u32;
        self.numbers.insert(bits, number);
        self.values.push(f64::from_bits(bits));
        number
    }
}

/// The places in the user's code that the rows of a recording come from.
struct Locations {
    /// The number of the place of each of the compiler's statics, by its
    /// address; [`Locations::LIBRARY`] for one inside a library.
    numbers: Numbers,
    places: Vec<SourceLocation>,
    /// The last row's place outside libraries; [`Locations::NONE`] before there is one.
    known: u32,
    /// The number of "near p" for each place p, and before them "near the caller"; `NONE` where unused.
    nearest: Vec<u32>,
    caller: &'static Location<'static>,
    /// The file that was looked at last, and whether it belongs to a library.
    file: (&'static str, bool),
}

impl Locations {
    const LIBRARY: u32 = u32::MAX;
    const NONE: u32 = u32::MAX;

    /// The number of the place of the next row.
    #[inline]
    fn of_row(&mut self, location: &'static Location<'static>) -> u32 {
        let number = self.number(location);
        if number == Locations::LIBRARY {
            return self.nearest();
        }
        self.known = number;
        number
    }

    /// The place of a guard or an escape before the next row.
    fn of_guard(&mut self, location: &'static Location<'static>) -> SourceLocation {
        let number = match self.number(location) {
            Locations::LIBRARY => self.nearest(),
            number => number,
        };
        self.places[number as usize].clone()
    }

    #[inline]
    fn number(&mut self, location: &'static Location<'static>) -> u32 {
        match self.numbers.get(std::ptr::from_ref(location) as u64) {
            Some(number) => number,
            None => self.look_at(location),
        }
    }

    #[cold]
    fn look_at(&mut self, location: &'static Location<'static>) -> u32 {
        if !std::ptr::eq(self.file.0, location.file()) {
            self.file = (location.file(), is_library(location.file()));
        }
        let number = if self.file.1 { Locations::LIBRARY } else { self.add(SourceLocation::new(location)) };
        self.numbers.insert(std::ptr::from_ref(location) as u64, number);
        number
    }

    /// The number of the place of a row recorded from inside a library: near that of the row before it.
    #[cold]
    fn nearest(&mut self) -> u32 {
        let index = self.known.wrapping_add(1) as usize;
        if self.nearest.len() <= index {
            self.nearest.resize(index + 1, Locations::NONE);
        }
        if self.nearest[index] == Locations::NONE {
            let base = match self.places.get(self.known as usize) {
                Some(known) => known.clone(),
                None => SourceLocation::new(self.caller),
            };
            self.nearest[index] = self.add(SourceLocation { nearest: true, ..base });
        }
        self.nearest[index]
    }

    fn add(&mut self, place: SourceLocation) -> u32 {
        if self.places.len() < Row::LOCATIONS {
            self.places.push(place);
        } else if let Some(last) = self.places.last_mut() {
            // It stands for all that a row has no number for.
            last.nearest = true;
        }
        self.places.len() as u32 - 1
    }
}

/// A question that was asked, with the operands as recorded.
struct RecordedGuard {
    question: Question,
    operands: [u32; 2],
    answer: Answer,
    location: SourceLocation,
}

struct RecordedEscape {
    operand: u32,
    value: f64,
    location: SourceLocation,
}

/// A recording under way.
///
/// Its variables are numbered inputs, parameters, rows. An operand of a guard
/// or an escape is such a number, or [`CONSTANT_BIT`] and the number of a
/// constant. An operand of a row is the index of a tape whose constants are
/// the first `shift` of them; the later ones have the bit.
struct Recording {
    id: u64,
    first_row: u32,
    rows: Vec<Row>,
    /// The operands of the rows that have more than two.
    wide: Vec<u32>,
    shift: u32,
    /// The runs of rows that reckon with another shift.
    placed: Vec<Placed>,
    memory: Memory,
    constants: Constants,
    locations: Locations,
    guards: Vec<RecordedGuard>,
    escapes: Vec<RecordedEscape>,
    /// The functions that rows call.
    functions: Vec<Function>,
    /// Where in the list of operands the number of the function of each calling row is, and the number.
    calls: Vec<(u32, u32)>,
    /// What was wrong with the first call that was.
    refused: Option<Error>,
    /// The first foreign variable met: its value and where.
    foreign: Option<Stray>,
    /// What an index could not hold any more.
    overflow: Option<&'static str>,
}

/// A thread keeps memory for no more rows than this from one recording to the next.
const KEPT_ROWS: usize = 1 << 14;

/// More rows or operands than this do not fit an index. The unit tests of this
/// crate get on with few, so that they can come to the limit.
pub(crate) const LIMIT: usize = if cfg!(test) { 1 << 17 } else { (CONSTANT_BIT - 1) as usize };

/// Where a run of rows and of wide operands ends that reckon with `shift` constants.
struct Placed {
    rows: usize,
    wide: usize,
    shift: u32,
}

impl Placed {
    /// The index in a tape with `constants` constants of an operand of these rows.
    #[inline]
    fn index(&self, operand: u32, constants: u32) -> u32 {
        match operand {
            _ if operand & CONSTANT_BIT != 0 => operand & !CONSTANT_BIT,
            _ if operand >= self.shift => operand + (constants - self.shift),
            _ => operand,
        }
    }
}

impl Recording {
    /// How many runs of rows may reckon with different numbers of constants.
    const PLACED: usize = 32;

    fn new(caller: &'static Location<'static>) -> Recording {
        Recording {
            id: CONSTANT,
            first_row: 0,
            rows: Vec::new(),
            wide: Vec::new(),
            shift: 0,
            placed: Vec::new(),
            memory: Memory::new(),
            constants: Constants { numbers: Numbers::new(), values: Vec::new() },
            locations: Locations {
                numbers: Numbers::new(),
                places: Vec::new(),
                known: Locations::NONE,
                nearest: Vec::new(),
                caller,
                file: ("", false),
            },
            guards: Vec::new(),
            escapes: Vec::new(),
            functions: Vec::new(),
            calls: Vec::new(),
            refused: None,
            foreign: None,
            overflow: None,
        }
    }

    /// Gives up what was recorded, and keeps the memory that is worth keeping.
    fn clear(&mut self) {
        self.id = CONSTANT;
        if self.rows.capacity() > KEPT_ROWS {
            self.rows = Vec::new();
        }
        self.rows.clear();
        self.wide = Vec::new();
        self.shift = 0;
        self.placed.clear();
        self.memory.clear();
        self.constants.numbers.clear();
        self.constants.values = Vec::new();
        self.locations.numbers.clear();
        self.locations.places = Vec::new();
        self.locations.known = Locations::NONE;
        self.locations.nearest.clear();
        self.guards = Vec::new();
        self.escapes = Vec::new();
        self.functions = Vec::new();
        self.calls = Vec::new();
        self.refused = None;
        self.foreign = None;
        self.overflow = None;
    }

    fn operand(&mut self, x: Var) -> u32 {
        if x.recording == CONSTANT { self.constants.number(x.value.to_bits()) | CONSTANT_BIT } else { x.node }
    }

    /// An operand of a row.
    fn row_operand(&mut self, x: Var) -> u32 {
        match x.recording {
            CONSTANT => self.constants.operand(x.value.to_bits(), self.shift),
            _ => x.node.wrapping_add(self.shift),
        }
    }

    /// Whether each of `x` belongs here; notes the first that does not.
    fn owns(&mut self, x: &[Var], location: &'static Location<'static>) -> bool {
        let foreign = x.iter().find(|v| v.recording != self.id && v.recording != CONSTANT);
        if let Some(v) = foreign {
            self.foreign.get_or_insert((v.value, location));
        }
        foreign.is_none()
    }

    /// The node of the next row.
    fn next_node(&self) -> u32 {
        self.first_row + self.rows.len() as u32
    }

    /// Whether there is no room for more rows and operands.
    fn overflows(&mut self, rows: usize, operands: usize) -> bool {
        if self.next_node() as usize + rows > LIMIT || self.wide.len() + operands > LIMIT {
            self.overflow = Some("rows or operands");
        }
        self.overflow.is_some()
    }

    /// Appends the rows of the chunk and empties it.
    fn take(&mut self, chunk: &Chunk) {
        let len = chunk.len.replace(0);
        if len == 0 || self.overflows(len, 0) {
            return;
        }
        self.place_after_constants();
        let Recording { rows, memory, constants, locations, shift, .. } = self;
        let mut known = locations.known;
        rows.extend(chunk.rows[..len].iter().map(|row| {
            let remembered = &mut memory.entries[row.slot()];
            if remembered.fits(row, memory.generation) {
                known = remembered.row.location();
            } else {
                locations.known = known;
                remembered.learn(row, memory.generation, *shift, constants, locations);
                known = locations.known;
            }
            remembered.row.plus(row.operands.get())
        }));
        locations.known = known;
        chunk.next_node.set(self.next_node());
    }

    /// Lets the operands of further rows be indices of the tape, if no other
    /// constants come after those known now.
    ///
    /// Most functions meet all of their constants in the first rows. Those that
    /// go on and on are left to the end.
    fn place_after_constants(&mut self) {
        let shift = self.constants.values.len() as u32;
        if shift != self.shift && self.placed.len() < Recording::PLACED {
            self.placed.push(Placed { rows: self.rows.len(), wide: self.wide.len(), shift: self.shift });
            self.shift = shift;
            self.memory.clear();
        }
    }

    /// Appends a row with any number of operands, and gives the node of its first result.
    fn push_wide(&mut self, op: Op, x: &[Var], results: usize, location: &'static Location<'static>) -> u32 {
        let node = self.next_node();
        if self.overflows(results, x.len()) {
            return node;
        }
        let location = self.locations.of_row(location);
        let row = match *x {
            [a] => Row::new(op, location, 1, [self.row_operand(a), 0]),
            [a, b] => Row::new(op, location, 2, [self.row_operand(a), self.row_operand(b)]),
            _ => {
                let start = self.wide.len() as u32;
                for &operand in x {
                    let operand = self.row_operand(operand);
                    self.wide.push(operand);
                }
                Row::wide(op, location, start, x.len() as u32)
            }
        };
        self.push_with_results(row, results);
        node
    }

    fn push_with_results(&mut self, row: Row, results: usize) {
        self.rows.push(row);
        self.rows.extend((1..results).map(|_| Row::new(Op::FurtherResult, row.location(), 0, [0; 2])));
    }

    /// Appends a row that calls a function, and gives the node of its first result.
    fn push_call(&mut self, function: &Function, x: &[Var], location: &'static Location<'static>) -> u32 {
        let node = self.next_node();
        if self.overflows(function.num_results(), x.len() + 1) {
            return node;
        }
        let location = self.locations.of_row(location);
        let number = number_of(&mut self.functions, function);
        self.calls.push((self.wide.len() as u32, number));
        self.wide.push(number);
        let start = self.wide.len() as u32;
        for &operand in x {
            let operand = self.row_operand(operand);
            self.wide.push(operand);
        }
        self.push_with_results(Row::wide(Op::Call, location, start, x.len() as u32), function.num_results());
        node
    }
}

/// The number of a function on a list, to which it is added if it is not among the last ones.
pub(crate) fn number_of(functions: &mut Vec<Function>, function: &Function) -> u32 {
    const LAST: usize = 16;
    let first = functions.len().saturating_sub(LAST);
    let found = functions[first..].iter().position(|other| other == function);
    let number = found.map_or(functions.len(), |position| first + position);
    if number == functions.len() {
        functions.push(function.clone());
    }
    number as u32
}

/// What became of the last rows: a line of code that runs again mostly leaves
/// the same row again, but for the nodes it reads.
struct Memory {
    entries: Box<[Remembered; Memory::ENTRIES]>,
    /// An entry of another generation is of an earlier recording.
    generation: u32,
}

impl Memory {
    const ENTRIES: usize = 256;
    /// Added to the generation each time; the bits below are those of [`ChunkRow::code`].
    const STEP: u32 = 1 << 12;

    fn new() -> Memory {
        let row = Row::new(Op::FurtherResult, 0, 0, [0; 2]);
        let nothing = Remembered { address: 0, constant: 0, code: 0, row };
        Memory { entries: Box::new([nothing; Memory::ENTRIES]), generation: Memory::STEP }
    }

    fn clear(&mut self) {
        match self.generation.checked_add(Memory::STEP) {
            Some(next) => self.generation = next,
            None => *self = Memory::new(),
        }
    }
}

#[derive(Clone, Copy)]
struct Remembered {
    address: usize,
    constant: u64,
    /// The code and the generation.
    code: u32,
    /// The row as recorded, but for the nodes, which are to be added.
    row: Row,
}

impl Remembered {
    #[inline]
    fn fits(&self, row: &ChunkRow, generation: u32) -> bool {
        self.address == row.address() && self.constant == row.constant.get() && self.code == row.code.get() | generation
    }

    #[cold]
    #[inline(never)]
    fn learn(
        &mut self,
        row: &ChunkRow,
        generation: u32,
        shift: u32,
        constants: &mut Constants,
        locations: &mut Locations,
    ) {
        let (code, constant) = (row.code.get(), row.constant.get());
        let number = row.location.get().map_or(0, |location| locations.of_row(location));
        let operand = |i: u32| match code >> (10 + i) & 1 {
            1 => constants.operand(constant, shift),
            _ => shift,
        };
        // The place of a row from inside a library depends on the row before
        // it: that one is not remembered.
        let generation = if number == locations.known { generation } else { 0 };
        let row_count = (code >> 8 & 3) as usize;
        *self = Remembered {
            address: row.address(),
            constant,
            code: code | generation,
            row: Row::new(row.op.get(), number, row_count, [0, 1].map(operand)),
        };
    }
}

/// How many rows gather before the recording takes them.
const CHUNK: usize = 256;

/// The last rows of the thread's active recording, as its operations leave them.
///
/// Cells in a fixed place: an operation fills in the next one and is done, with
/// nothing to borrow, to grow or to look up. Numbers for constants and
/// locations are found when the recording takes the rows, all in one loop.
struct Chunk {
    /// The active recording, or [`CONSTANT`] if there is none.
    recording: Cell<u64>,
    /// The node of the first row here.
    next_node: Cell<u32>,
    len: Cell<usize>,
    rows: [ChunkRow; CHUNK],
}

/// A row with at most two operands; one of them may be a constant, and not
/// both, since an expression of constants leaves no row.
struct ChunkRow {
    location: Cell<Option<&'static Location<'static>>>,
    /// The bits of the constant, if there is one.
    constant: Cell<u64>,
    /// The nodes; 0 in place of the constant.
    operands: Cell<[u32; 2]>,
    /// The operation in the low 8 bits, then 2 with the number of operands,
    /// then for each operand whether it is the constant.
    code: Cell<u32>,
    op: Cell<Op>,
}

impl ChunkRow {
    const fn new() -> ChunkRow {
        ChunkRow {
            location: Cell::new(None),
            constant: Cell::new(0),
            operands: Cell::new([0; 2]),
            code: Cell::new(0),
            op: Cell::new(Op::FurtherResult),
        }
    }

    #[inline]
    fn address(&self) -> usize {
        self.location.get().map_or(0, |location| std::ptr::from_ref(location) as usize)
    }

    /// Where such a row is remembered.
    #[inline]
    fn slot(&self) -> usize {
        let hash = (self.address() as u64).wrapping_add(self.code.get().into()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 56) as usize
    }
}

impl Chunk {
    const fn new() -> Chunk {
        Chunk {
            recording: Cell::new(CONSTANT),
            next_node: Cell::new(0),
            len: Cell::new(0),
            rows: [const { ChunkRow::new() }; CHUNK],
        }
    }
}

/// The recordings under way on a thread, the active one last, and behind them
/// the memory of one that has ended.
struct Recordings {
    list: Vec<Recording>,
    under_way: usize,
}

thread_local! {
    static CHUNK_OF_THREAD: Chunk = const { Chunk::new() };
    static RECORDINGS: RefCell<Recordings> = const { RefCell::new(Recordings { list: Vec::new(), under_way: 0 }) };
}

/// Runs `action` on the recordings under way on this thread, if there are any;
/// the active one stands last, with all of its rows.
fn with_recordings<R>(action: impl FnOnce(&mut [Recording]) -> R) -> Option<R> {
    // A thread that is being torn down has no active recording any more.
    let result = RECORDINGS.try_with(|recordings| {
        let recordings = &mut *recordings.borrow_mut();
        let under_way = &mut recordings.list[..recordings.under_way];
        CHUNK_OF_THREAD.with(|chunk| under_way.last_mut().map(|active| active.take(chunk)))?;
        Some(action(under_way))
    });
    result.ok().flatten()
}

/// Records `op` with the given values, or poisons them.
///
/// Every operation has a copy of this, so it is short: no operand has its
/// address taken, which would keep it out of the registers, the closures are
/// small enough to be inlined each, and whatever is rare is called.
#[inline(always)]
fn push_row<const N: usize, const M: usize>(
    op: Op,
    x: [Var; N],
    values: [f64; M],
    location: &'static Location<'static>,
) -> [Var; M] {
    if N > 2 {
        return push_wide(op, &x, values, location);
    }
    let (a, b) = (x[0], x[N - 1]);
    if a.recording == CONSTANT && b.recording == CONSTANT {
        return values.map(Var::constant);
    }
    let active = CHUNK_OF_THREAD.with(|chunk| chunk.recording.get());
    let (recording, node) = if a.recording != active && a.recording != CONSTANT {
        refuse(a.value, location)
    } else if b.recording != active && b.recording != CONSTANT {
        refuse(b.value, location)
    } else {
        (active, push_narrow::<N, M>(op, a, b, location))
    };
    Var::results(values, recording, node)
}

/// Leaves a row with the operand a, or with a and b, in the chunk, and gives
/// the node of its first result.
#[inline(always)]
fn push_narrow<const N: usize, const M: usize>(op: Op, a: Var, b: Var, location: &'static Location<'static>) -> u32 {
    let mut len = CHUNK_OF_THREAD.with(|chunk| chunk.len.get());
    if len > CHUNK - M {
        hand_over();
        len = 0;
    }
    let (a_constant, b_constant) = (a.recording == CONSTANT, N == 2 && b.recording == CONSTANT);
    let constant = match (a_constant, b_constant) {
        (true, _) => a.value.to_bits(),
        (_, true) => b.value.to_bits(),
        _ => 0,
    };
    let operands = [if a_constant { 0 } else { a.node }, if N < 2 || b_constant { 0 } else { b.node }];
    let code = op as u32 | (N as u32) << 8 | u32::from(a_constant) << 10 | u32::from(b_constant) << 11;
    CHUNK_OF_THREAD.with(|chunk| {
        let row = &chunk.rows[len];
        row.location.set(Some(location));
        row.constant.set(constant);
        row.operands.set(operands);
        row.code.set(code);
        row.op.set(op);
    });
    for result in 1..M {
        CHUNK_OF_THREAD.with(|chunk| {
            let row = &chunk.rows[len + result];
            row.location.set(Some(location));
            row.constant.set(0);
            row.operands.set([0; 2]);
            row.code.set(Op::FurtherResult as u32);
            row.op.set(Op::FurtherResult);
        });
    }
    CHUNK_OF_THREAD.with(|chunk| chunk.len.set(len + M));
    CHUNK_OF_THREAD.with(|chunk| chunk.next_node.get()) + len as u32
}

/// Gives the rows of the full chunk to the recording.
#[cold]
#[inline(never)]
fn hand_over() {
    with_recordings(|_| ());
    // Of a thread that is being torn down nobody takes the rows.
    CHUNK_OF_THREAD.with(|chunk| chunk.len.set(0));
}

/// Notes in the active recording that a foreign variable was met; the
/// recording and the node of what is computed from it.
#[cold]
#[inline(never)]
fn refuse(value: f64, location: &'static Location<'static>) -> (u64, u32) {
    with_recordings(|recordings| recordings.last_mut().map(|active| active.foreign.get_or_insert((value, location)).0));
    (POISONED, 0)
}

/// Records an operation with any number of operands, or poisons its results.
#[inline(never)]
fn push_wide<const M: usize>(op: Op, x: &[Var], values: [f64; M], location: &'static Location<'static>) -> [Var; M] {
    if x.iter().all(|v| v.recording == CONSTANT) {
        return values.map(Var::constant);
    }
    let pushed = with_recordings(|recordings| {
        let active = recordings.last_mut()?;
        active.owns(x, location).then(|| {
            let node = active.push_wide(op, x, M, location);
            CHUNK_OF_THREAD.with(|chunk| chunk.next_node.set(active.next_node()));
            (active.id, node)
        })
    });
    let (recording, node) = pushed.flatten().unwrap_or((POISONED, 0));
    Var::results(values, recording, node)
}

/// What identifies a variable: its recording and node, or the bits of a constant.
pub(crate) type VarKey = (u64, u64);

/// Records a row that calls a function, or poisons its results; the error of a
/// call that fails here ends the recording.
pub(crate) fn record_call(function: &Function, x: &[Var], location: &'static Location<'static>) -> Vec<Var> {
    let point: Vec<f64> = x.iter().map(|v| v.value).collect();
    let evaluated = if function.is_too_deep() {
        let location = SourceLocation::new(location);
        Err(Error::NestedTooDeep { function: function.to_string(), limit: DEEPEST, location })
    } else {
        f64::call(function, &point)
    };
    let values = match evaluated {
        Ok(values) => values,
        Err(error) => {
            refuse_call(error.called_by(|| CallSite {
                function: function.to_string(),
                row: None,
                location: SourceLocation::new(location),
            }));
            return vec![Var::poisoned(); function.num_results()];
        }
    };
    if x.iter().all(|v| v.recording == CONSTANT) {
        return values.into_iter().map(Var::constant).collect();
    }
    let pushed = with_recordings(|recordings| {
        let active = recordings.last_mut()?;
        active.owns(x, location).then(|| {
            let node = active.push_call(function, x, location);
            CHUNK_OF_THREAD.with(|chunk| chunk.next_node.set(active.next_node()));
            (active.id, node)
        })
    });
    let (recording, node) = pushed.flatten().unwrap_or((POISONED, 0));
    values.into_iter().zip(node..).map(|(value, node)| Var { value, recording, node }).collect()
}

/// Lets the active recording end in an error.
pub(crate) fn refuse_call(error: Error) {
    with_recordings(|recordings| recordings.last_mut().map(|active| active.refused.get_or_insert(error).clone()));
}

/// Answers a question and notes it as a guard, unless its operands are constants.
fn ask(question: Question, a: Var, b: Var, location: &'static Location<'static>) -> Answer {
    let answer = question.ask(a.value, b.value);
    if a.recording != CONSTANT || b.recording != CONSTANT {
        let noted = with_recordings(|recordings| {
            if let Some(active) = recordings.last_mut() {
                active.owns(&[a, b], location);
            }
            // An outer recording that the active one suspends still hears the answer.
            let belong = |recording: &Recording| [a, b].iter().all(|x| [recording.id, CONSTANT].contains(&x.recording));
            let recording = recordings.iter_mut().rev().find(|recording| belong(recording));
            recording.map(|recording| {
                let operands = [recording.operand(a), recording.operand(b)];
                let location = recording.locations.of_guard(location);
                recording.guards.push(RecordedGuard { question, operands, answer, location });
            })
        });
        if noted.flatten().is_none() {
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
    #[inline]
    pub(crate) const fn constant(value: f64) -> Var {
        Var { value, recording: CONSTANT, node: 0 }
    }

    /// What stands for a result that there is none of.
    pub(crate) const fn poisoned() -> Var {
        Var { value: f64::NAN, recording: POISONED, node: 0 }
    }

    /// What identifies it.
    pub(crate) fn key(self) -> VarKey {
        match self.recording {
            CONSTANT => (CONSTANT, self.value.to_bits()),
            recording => (recording, self.node.into()),
        }
    }

    /// Whether it belongs to no recording.
    pub(crate) fn is_constant(self) -> bool {
        self.recording == CONSTANT
    }

    /// The results of one row, at `node` and below it.
    #[inline(always)]
    fn results<const M: usize>(values: [f64; M], recording: u64, node: u32) -> [Var; M] {
        let mut result = 0;
        values.map(|value| {
            result += 1;
            Var { value, recording, node: node + result - 1 }
        })
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
            let noted = with_recordings(|recordings| {
                let recording = recordings.iter_mut().rev().find(|recording| recording.id == self.recording);
                recording.map(|recording| {
                    let location = recording.locations.of_guard(location);
                    recording.escapes.push(RecordedEscape { operand: self.node, value: self.value, location });
                })
            });
            if noted.flatten().is_none() {
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

    /// Whether the value is neither 0, subnormal, infinite nor NaN; a guard.
    #[track_caller]
    pub fn is_normal(self) -> bool {
        ask_bool(Question::IsNormal, self, Var::constant(0.0), Location::caller())
    }

    /// Whether the value is closer to 0 than any normal number, and not 0; a guard.
    #[track_caller]
    pub fn is_subnormal(self) -> bool {
        ask_bool(Question::IsSubnormal, self, Var::constant(0.0), Location::caller())
    }

    /// Whether the value is normal, zero, subnormal, NaN or infinite; as many
    /// guards as it takes to tell, in this order.
    #[track_caller]
    pub fn classify(self) -> FpCategory {
        if self.is_normal() {
            FpCategory::Normal
        } else if self == 0.0 {
            FpCategory::Zero
        } else if self.is_subnormal() {
            FpCategory::Subnormal
        } else if self.is_nan() {
            FpCategory::Nan
        } else {
            FpCategory::Infinite
        }
    }

    /// The value, with guards that it is still the same in a replay.
    ///
    /// For conversions to numbers that keep all of it: unlike [`Var::value`]
    /// they are called by code that knows nothing of tapes, so nothing that is
    /// computed from them may silently be a constant.
    #[track_caller]
    pub(crate) fn pinned(self) -> f64 {
        if self.is_nan() {
            return self.value;
        }
        // No guard could tell the zeros apart by comparing them.
        if self == self.value && self.value == 0.0 {
            self.is_sign_negative();
        }
        self.value
    }
}

impl From<f64> for Var {
    #[inline]
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
        push_row(O::OP, x, O::value(x.map(|v| v.value)), Location::caller())
    }

    #[track_caller]
    fn fold<O: Fold>(x: &[Var]) -> Var {
        let values: smallvec::SmallVec<[f64; 32]> = x.iter().map(|v| v.value).collect();
        let [v] = push_wide(O::OP, x, [O::value(&values)], Location::caller());
        v
    }

    /// Asks the question again in the active recording, as a guard of that one.
    #[track_caller]
    fn confirm(question: Question, answer: Answer, a: Var, b: Var) -> Result<(), (Answer, f64, f64)> {
        let now = ask(question, a, b, Location::caller());
        if now == answer { Ok(()) } else { Err((now, a.value, b.value)) }
    }

    #[track_caller]
    fn call(function: &Function, x: &[Var]) -> Result<Vec<Var>, Error> {
        Ok(record_call(function, x, Location::caller()))
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
    fn is_infinite(self) -> bool {
        self.is_infinite()
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
    fn start(id: u64, first_row: u32, caller: &'static Location<'static>) -> Activation {
        // The recording that is suspended takes its rows.
        with_recordings(|_| ());
        // A thread that is being torn down records nothing; the function then
        // computes with foreign variables, and finishing says so.
        let _ = RECORDINGS.try_with(|recordings| {
            let Recordings { list, under_way } = &mut *recordings.borrow_mut();
            if list.len() == *under_way {
                list.push(Recording::new(caller));
            }
            let recording = &mut list[*under_way];
            if recording.id != CONSTANT {
                // Something panicked before the last one was cleared.
                recording.clear();
            }
            strays().push((id, None));
            recording.id = id;
            recording.first_row = first_row;
            recording.locations.caller = caller;
            *under_way += 1;
            CHUNK_OF_THREAD.with(|chunk| {
                chunk.recording.set(id);
                chunk.next_node.set(first_row);
            });
        });
        Activation
    }

    /// Ends the recording and runs `action` on what was recorded.
    fn finish<R>(self, action: impl FnOnce(&mut Recording) -> R) -> Option<R> {
        // Should the action panic, the recording has ended all the same.
        let _ended = ManuallyDrop::new(self);
        with_recordings(|_| ());
        Activation::end(action)
    }

    /// Ends the active recording without the rows that still lie in the chunk.
    fn end<R>(action: impl FnOnce(&mut Recording) -> R) -> Option<R> {
        let result = RECORDINGS.try_with(|recordings| {
            let Recordings { list, under_way } = &mut *recordings.borrow_mut();
            *under_way = under_way.checked_sub(1)?;
            list.truncate(*under_way + 1);
            let (suspended, ended) = list.split_at_mut(*under_way);
            CHUNK_OF_THREAD.with(|chunk| {
                chunk.len.set(0);
                chunk.recording.set(suspended.last().map_or(CONSTANT, |recording| recording.id));
                chunk.next_node.set(suspended.last().map_or(0, Recording::next_node));
            });
            let ended = ended.first_mut()?;
            if let Some(stray) = take_stray(ended.id) {
                ended.foreign.get_or_insert(stray);
            }
            let result = action(ended);
            ended.clear();
            Some(result)
        });
        result.ok().flatten()
    }
}

impl Drop for Activation {
    fn drop(&mut self) {
        Activation::end(|_| ());
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
        self.record_for(Location::caller(), f)
    }

    /// The point to record at, if that is not the one given before.
    pub(crate) fn at(self, x0: &[f64], k0: &[f64]) -> Self {
        Builder { x0: x0.to_vec(), k0: k0.to_vec(), ..self }
    }

    /// The point to record at.
    pub(crate) fn point(&self) -> [&[f64]; 2] {
        [&self.x0, &self.k0]
    }

    /// [`Builder::record`] on behalf of another place in the user's code.
    pub(crate) fn record_for<O: Outputs>(
        self,
        caller: &'static Location<'static>,
        f: impl FnOnce(&[Var], &[Var]) -> O,
    ) -> Result<Tape, Error> {
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
        let activation = Activation::start(id, first_row as u32, caller);
        let (x, k) = variables.split_at(self.x0.len());
        let mut outputs = Vec::new();
        f(x, k).collect_into(&mut outputs);
        let tape = activation.finish(|recording| {
            if let Some(error) = recording.refused.take() {
                return Err(error);
            }
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
            if recording.constants.values.len() + first_row + recording.rows.len() > LIMIT {
                return Err(too_large("rows and constants"));
            }
            Ok(self.finish(recording, outputs))
        });
        // While the closure ran, nothing else could take the recording away.
        tape.unwrap_or(Err(Error::Malformed {
            row: 0,
            operation: None,
            reason: "the recording ended before its function did",
        }))
    }

    /// Brings the recording into the tape's index space: constants, inputs,
    /// parameters, rows.
    fn finish(self, recording: &mut Recording, outputs: Vec<u32>) -> Tape {
        let shift = recording.constants.values.len() as u32;
        let place = |operand: u32| if operand & CONSTANT_BIT != 0 { operand & !CONSTANT_BIT } else { operand + shift };

        let mut data = TapeData {
            free_letter: Default::default(),
            num_inputs: self.x0.len(),
            num_params: self.k0.len(),
            constants: mem::take(&mut recording.constants.values),
            rows: Vec::new(),
            wide: mem::take(&mut recording.wide),
            outputs: outputs.into_iter().map(place).collect(),
            output_letter: "y",
            input_names: self.input_names.into_iter().map(|name| Name::Given(name, Accent::None)).collect(),
            param_names: self.param_names,
            functions: mem::take(&mut recording.functions),
            calls: Vec::new(),
            active: Vec::new(),
            spans: Vec::new(),
            param_rows: Vec::new(),
            guards: Vec::new(),
            escapes: Vec::new(),
            locations: mem::take(&mut recording.locations.places),
        };
        // The thread keeps the memory of few rows: the next short recording
        // need not grow its own.
        data.rows = match recording.rows.len() {
            0..=KEPT_ROWS => recording.rows.clone(),
            _ => mem::take(&mut recording.rows),
        };
        let last = Placed { rows: data.rows.len(), wide: data.wide.len(), shift: recording.shift };
        let (mut row, mut wide) = (0, 0);
        for run in recording.placed.drain(..).chain([last]) {
            if run.shift != shift {
                let index = |operand| run.index(operand, shift);
                data.rows[row..run.rows].iter_mut().for_each(|row| row.replace_operands(index));
                data.wide[wide..run.wide].iter_mut().for_each(|operand| *operand = index(*operand));
            }
            (row, wide) = (run.rows, run.wide);
        }
        for &(place, number) in &recording.calls {
            // It lies among operands, and is none.
            data.wide[place as usize] = number;
        }
        data.rows.shrink_to_fit();
        data.wide.shrink_to_fit();
        data.constants.shrink_to_fit();
        data.guards = mem::take(&mut recording.guards)
            .into_iter()
            .map(|guard| {
                let operands = guard.operands.map(place);
                Guard {
                    question: guard.question,
                    operands,
                    answer: guard.answer,
                    location: guard.location,
                    names: operands.map(|operand| OperandName::Own(data.given_name(operand))),
                }
            })
            .collect();
        data.escapes = mem::take(&mut recording.escapes)
            .into_iter()
            .map(|escape| Escape {
                operand: place(escape.operand),
                value: escape.value,
                location: escape.location,
                name: OperandName::Own(data.given_name(place(escape.operand))),
            })
            .collect();
        data.find_activity();
        Tape::new(data, self.k0)
    }
}

fn check_names(what: &'static str, names: &[String], expected: usize) -> Result<(), Error> {
    if !names.is_empty() && names.len() != expected {
        return Err(Error::NameCount { what, expected, got: names.len() });
    }
    for name in names {
        if let Some(reason) = fault_of_name(name) {
            return Err(Error::BadName { name: name.clone(), reason });
        }
    }
    Ok(())
}

/// What is wrong with the name of a variable, if anything is.
pub(crate) fn fault_of_name(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        return Some("is empty: give it a letter at least");
    }
    name.chars().any(char::is_control).then_some("holds a control character: it would break the printed tables")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::function::Custom;

    /// Records in a list that holds no more than `LIMIT` of anything.
    fn recorded<O: Outputs>(f: impl FnOnce(&[Var]) -> O) -> Result<Tape, Error> {
        Tape::record(&[0.5, 2.0], f)
    }

    #[track_caller]
    fn assert_too_large(tape: Result<Tape, Error>, expected: &str) {
        match tape {
            Err(Error::TooLarge { what, limit: LIMIT, location }) => {
                assert!(what == expected && location.file().ends_with("record.rs"), "{what} at {location}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn as_many_rows_as_an_index_can_name_and_no_more() {
        let of_rows = |rows: usize| recorded(|x| (0..rows).fold(x[0], |y, _| y * x[1]));
        let tape = of_rows(LIMIT - 2).unwrap();
        assert_eq!(tape.len(), LIMIT);
        assert_eq!(tape.gradient(&[0.5, 1.0]).unwrap().1[0], 1.0);
        assert_too_large(of_rows(LIMIT - 1), "rows or operands");
        assert_too_large(of_rows(3 * LIMIT), "rows or operands");
        // With one constant besides there is one too many.
        assert_too_large(recorded(|x| (0..LIMIT - 2).fold(x[0], |y, _| y * 2.0)), "rows and constants");
        // What is made of the tape has a limit too.
        assert_too_large(tape.gradient_tape(), "rows or operands");
    }

    #[test]
    fn as_many_operands_constants_and_inputs_as_an_index_can_name_and_no_more() {
        let many = vec![Var::from(1.0); LIMIT - 1];
        let sum = |x: &[Var], more: usize| Var::sum_of(&[&many[..], &vec![x[0]; more]].concat());
        assert_eq!(recorded(|x| sum(x, 1)).unwrap().eval(&[0.5, 2.0]).unwrap(), [LIMIT as f64 - 0.5]);
        assert_too_large(recorded(|x| sum(x, 2)), "rows or operands");
        let constants =
            |count: usize| recorded(|x| (0..count).map(|i| Var::from(i as f64)).chain([x[0]]).collect::<Vec<_>>());
        assert_eq!(constants(LIMIT - 2).unwrap().num_outputs(), LIMIT - 1);
        assert_too_large(constants(LIMIT - 1), "rows and constants");
        assert_eq!(Tape::record(&vec![1.0; LIMIT], |x| x[0]).unwrap().len(), LIMIT);
        assert_too_large(Tape::record(&vec![1.0; LIMIT + 1], |x| x[0]), "inputs and parameters");
    }

    #[test]
    fn derivatives_of_as_many_inputs_as_an_index_can_name_and_no_more() {
        let first = |n: usize| Tape::record(&vec![1.0; n], |x| x[0]).unwrap();
        let jvp = first(LIMIT / 2).jvp_tape().unwrap();
        assert_eq!(jvp.num_inputs(), LIMIT);
        assert_too_large(first(LIMIT / 2 + 1).jvp_tape(), "inputs, seeds and parameters");
        let (m, n) = (LIMIT / 512, 512);
        let outputs = |m: usize| Tape::record(&[1.0; 512], |x| vec![x[0]; m]).unwrap();
        assert_eq!(outputs(m).jacobian_tape().unwrap().num_outputs(), m * n);
        assert_too_large(outputs(m + 1).jacobian_tape(), "derivatives");
    }

    #[test]
    fn a_tape_whose_identities_need_too_many_constants_stays_as_it_is() {
        // A quotient by a power of two becomes a product with another constant.
        let quotients = 20;
        let of_rows = |rows: usize| {
            let tape = recorded(|x| {
                let y = (1..=quotients).fold(x[0], |y, i| y / 2.0_f64.powi(i));
                (0..rows).fold(y, |y, _| y.sin())
            });
            tape.unwrap()
        };
        let fits = of_rows(LIMIT - 2 - 3 * quotients as usize);
        assert_eq!(fits.optimized().report.after, fits.len());
        assert_eq!(fits.optimized().tape.constants()[0].value, 0.5);
        let too_many = of_rows(LIMIT - 1 - 3 * quotients as usize);
        let optimized = too_many.optimized();
        assert_eq!((optimized.report.before, optimized.report.after), (too_many.len(), too_many.len()));
        assert_eq!(optimized.tape.constants()[0].value, 2.0);
    }

    #[test]
    fn as_many_results_of_a_call_as_an_index_can_name_and_no_more() {
        let body = recorded(|x| [x[0], x[1], x[0] * x[1]]).unwrap();
        let mapped = |count: usize| recorded(|x| body.map(std::iter::repeat_n(x, count)));
        assert_eq!(LIMIT % 3, 2);
        assert_too_large(mapped(LIMIT / 3 + 1), "results of one call");
        assert_eq!(mapped(LIMIT / 3).unwrap().len(), 2 + LIMIT / 3 * 3);
        let square = Custom::unary("square", |x| x * x, |x, _| 2.0 * x);
        assert_too_large(recorded(|x| (0..LIMIT).fold(x[0], |y, _| square.call(&[y])[0])), "rows or operands");
    }
}
