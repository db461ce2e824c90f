//! A tape as a flat list of parts, and a tape from parts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::TapeFileProblem;
use crate::error::Error;
use crate::formula::{Accent, Name};
use crate::function::{Column, DEEPEST, Function, Loop, MOST_DERIVED, Source, Stored, Target};
use crate::ops::Op;
use crate::record::{LIMIT, OperandName, fault_of_name};
use crate::tape::{Tape, TapeData};

/// One of the things that a tape consists of.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    List(&'a TapeData),
    /// A list with a name and values of its parameters.
    Tape(&'a Tape),
    Function(&'a Function),
}

/// What tells a part from the others of a tape.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    List(*const TapeData),
    Tape(*const TapeData, *const f64, Option<&'a str>),
    Function(*const ()),
}

impl<'a> Key<'a> {
    fn of_tape(tape: &'a Tape) -> Key<'a> {
        // Without parameters it makes no difference which ones.
        let params = if tape.params.is_empty() { std::ptr::null() } else { tape.params.as_ptr() };
        Key::Tape(Arc::as_ptr(&tape.data), params, tape.name.as_deref())
    }
}

impl<'a> Part<'a> {
    fn key(self) -> Key<'a> {
        match self {
            Part::List(data) => Key::List(data),
            Part::Tape(tape) => Key::of_tape(tape),
            Part::Function(function) => Key::Function(function.address()),
        }
    }

    /// The parts that it uses itself, the first of them last.
    fn used(self) -> Vec<Part<'a>> {
        match self {
            Part::List(data) => data.functions.iter().rev().map(Part::Function).collect(),
            Part::Tape(tape) => vec![Part::List(&tape.data)],
            Part::Function(function) => match function.stored() {
                Stored::Loop { rolled, .. } => vec![Part::Tape(&rolled.body)],
                Stored::Adjoint(of) | Stored::Rearranged { of, .. } => vec![Part::Function(of)],
                Stored::Code => Vec::new(),
            },
        }
    }
}

/// The parts of a tape, each once and after those that it uses; the tape itself is the last.
pub(super) struct Parts<'a> {
    pub list: Vec<Part<'a>>,
    numbers: HashMap<Key<'a>, u32>,
}

impl<'a> Parts<'a> {
    /// # Errors
    ///
    /// [`Error::NotStorable`].
    pub fn of(tape: &'a Tape) -> Result<Parts<'a>, Error> {
        let mut parts = Parts { list: Vec::new(), numbers: HashMap::new() };
        // Those that wait, and whether what they use has been seen to.
        let mut waiting = vec![(Part::Tape(tape), false)];
        while let Some((part, is_ready)) = waiting.pop() {
            if parts.numbers.contains_key(&part.key()) {
                continue;
            }
            if is_ready {
                parts.numbers.insert(part.key(), parts.list.len() as u32);
                parts.list.push(part);
                continue;
            }
            if let Part::List(data) = part {
                check_storable(data)?;
            }
            waiting.push((part, true));
            waiting.extend(part.used().into_iter().map(|used| (used, false)));
        }
        Ok(parts)
    }

    fn number(&self, part: Part<'_>) -> u32 {
        self.numbers.get(&part.key()).copied().unwrap_or(u32::MAX)
    }

    pub fn number_of_list(&self, data: &TapeData) -> u32 {
        self.number(Part::List(data))
    }

    pub fn number_of_tape(&self, tape: &Tape) -> u32 {
        self.number(Part::Tape(tape))
    }

    pub fn number_of_function(&self, function: &Function) -> u32 {
        self.number(Part::Function(function))
    }

    /// The lists among the parts.
    pub fn lists(&self) -> impl Iterator<Item = &'a TapeData> + '_ {
        self.list.iter().filter_map(|part| match *part {
            Part::List(data) => Some(data),
            _ => None,
        })
    }
}

/// Whether a file can hold the functions that a list calls.
fn check_storable(data: &TapeData) -> Result<(), Error> {
    let reason = |function: &Function| {
        if function.is_code() {
            return Some(
                "it is code of yours, which no file can hold; write the tapes around it to files, \
                 and call it where you put them together, or record it as plain code",
            );
        }
        function.is_derived_too_often().then_some(
            "derivatives of derivatives of functions are nested deeper than 32; \
             write the tape to a file that they were taken of, and take those of the loaded one",
        )
    };
    for (number, function) in data.functions.iter().enumerate() {
        if let Some(reason) = reason(function) {
            let call = data.calls.iter().find(|&&row| data.function_number(row as usize) as usize == number);
            let location = data.location(call.map_or(0, |&row| row as usize)).clone();
            return Err(Error::NotStorable { function: function.to_string(), location, reason });
        }
    }
    Ok(())
}

const DERIVED_TOO_OFTEN: &str = "derivatives of derivatives of functions are nested deeper than 32";
const _: () = assert!(MOST_DERIVED == 32);
const NESTED_TOO_DEEP: &str = "functions are nested deeper than 64";
const _: () = assert!(DEEPEST == 64);

/// The letters of variables and outputs. Names hold them for as long as the
/// program runs, so that no file may bring others.
pub(super) const LETTERS: [&str; 12] = ["x", "k", "p", "w", "y", "dy", "f", "g", "J", "v", "out", "output"];

/// The letter that a file gives.
pub(super) fn letter(text: &str) -> Result<&'static str, TapeFileProblem> {
    LETTERS.into_iter().find(|&letter| letter == text).ok_or_else(|| TapeFileProblem::Unexpected {
        what: "a letter of variables",
        found: format!("{text:?}"),
        expected: format!("one of {}", LETTERS.join(", ")),
    })
}

/// The operation that a file names.
pub(super) fn operation(name: &str) -> Result<Op, TapeFileProblem> {
    let mut operations = Op::ALL.iter().copied().chain([Op::FurtherResult, Op::Call]);
    operations
        .find(|op| op.info().name == name)
        .ok_or_else(|| TapeFileProblem::UnknownOperation { name: name.to_owned() })
}

/// A loop as a file has it.
pub(super) struct LoopParts {
    pub body: u32,
    pub name: Option<Arc<str>>,
    pub num_operands: u32,
    pub inputs: Vec<Source>,
    pub outputs: Vec<Target>,
    pub initial: Vec<u32>,
    pub count: u64,
    pub summed: bool,
}

/// Whether [`Tape::named`] could have given this name.
fn check_name_of_function(name: Option<&str>) -> Result<(), TapeFileProblem> {
    match name.and_then(|name| Some((name, fault_of_name(name)?))) {
        None => Ok(()),
        Some((name, reason)) => {
            let (found, expected) = (format!("{name:?}, which {reason}"), "a name".to_owned());
            Err(TapeFileProblem::Unexpected { what: "the name of a tape", found, expected })
        }
    }
}

enum Made {
    /// With the first tape that was made of it: others share what that computes.
    List(Arc<TapeData>, Option<Tape>),
    Tape(Tape),
    Function(Function),
}

/// Puts together the parts of a tape that come from outside. It lets pass only
/// what a recording could have left.
#[derive(Default)]
pub(super) struct Assembler {
    parts: Vec<Made>,
    /// Whether a later part uses it.
    used: Vec<bool>,
}

fn malformed(reason: &'static str) -> TapeFileProblem {
    TapeFileProblem::Malformed { part: None, row: None, operation: None, reason }
}

impl Assembler {
    /// Makes room for so many parts.
    pub fn reserve(&mut self, count: usize) -> Result<(), TapeFileProblem> {
        let done = self.parts.try_reserve_exact(count).and_then(|()| self.used.try_reserve_exact(count));
        done.map_err(|_| TapeFileProblem::OutOfMemory { bytes: (count * (size_of::<Made>() + 1)) as u64 })
    }

    fn push(&mut self, part: Made) {
        self.parts.push(part);
        self.used.push(false);
    }

    /// A part that another one uses.
    fn part(&mut self, number: u32, what: &'static str) -> Result<&mut Made, TapeFileProblem> {
        let (number, known) = (number as usize, self.parts.len());
        match self.used.get_mut(number) {
            Some(used) => *used = true,
            None => {
                let expected = format!("one of the {known} parts above this one");
                return Err(TapeFileProblem::Unexpected { what, found: format!("part {number}"), expected });
            }
        }
        Ok(&mut self.parts[number])
    }

    /// The function with this number.
    pub fn function(&mut self, number: u32) -> Result<Function, TapeFileProblem> {
        match self.part(number, "a function")? {
            Made::Function(function) => Ok(function.clone()),
            _ => Err(malformed("a part stands where only a function can")),
        }
    }

    /// Takes a list, in which guards and escapes have no names yet.
    pub fn push_list(&mut self, mut data: TapeData) -> Result<(), TapeFileProblem> {
        data.check().map_err(|(row, reason)| {
            let operation = data.operation_name(row);
            TapeFileProblem::Malformed { part: None, row: operation.map(|_| row), operation, reason }
        })?;
        check_names(&data)?;
        name_operands(&mut data)?;
        data.find_activity();
        self.push(Made::List(Arc::new(data), None));
        Ok(())
    }

    pub fn push_tape(&mut self, list: u32, name: Option<Arc<str>>, params: Vec<f64>) -> Result<(), TapeFileProblem> {
        check_name_of_function(name.as_deref())?;
        let Made::List(data, first) = self.part(list, "the list of a tape")? else {
            return Err(malformed("a part stands where only a list can"));
        };
        if params.len() != data.num_params {
            let (found, expected) = (format!("{} values", params.len()), format!("{}", data.num_params));
            return Err(TapeFileProblem::Unexpected { what: "the parameters of a tape", found, expected });
        }
        let tape = Tape::of_list(data, params.into(), name, first.as_ref());
        first.get_or_insert_with(|| tape.clone());
        self.push(Made::Tape(tape));
        Ok(())
    }

    pub fn push_loop(&mut self, parts: LoopParts) -> Result<(), TapeFileProblem> {
        let LoopParts { body, name, num_operands, inputs, outputs, initial, count, summed } = parts;
        check_name_of_function(name.as_deref())?;
        let Made::Tape(body) = self.part(body, "the body of a loop")? else {
            return Err(malformed("a part stands where only a tape can"));
        };
        let count = usize::try_from(count).map_err(|_| TapeFileProblem::TooMany {
            what: "iterations",
            found: count,
            most: usize::MAX as u64,
        })?;
        let Some(outs) = outputs.len().checked_sub(initial.len()) else {
            return Err(malformed("a loop carries more numbers than its body gives"));
        };
        let rolled = Loop { body: body.clone(), inputs, outputs, initial, count, outs, summed };
        let function = rolled.checked(name, num_operands as usize).map_err(malformed)?;
        self.push_function(function)
    }

    pub fn push_adjoint(&mut self, of: u32) -> Result<(), TapeFileProblem> {
        let function = self.function(of)?.checked_adjoint().map_err(malformed)?;
        self.push_function(function)
    }

    pub fn push_rearranged(
        &mut self,
        of: u32,
        num_operands: u32,
        operands: Vec<Option<u32>>,
        results: Vec<u32>,
    ) -> Result<(), TapeFileProblem> {
        let of = self.function(of)?;
        let function = of.checked_rearrangement(operands, results, num_operands as usize).map_err(malformed)?;
        self.push_function(function)
    }

    fn push_function(&mut self, function: Function) -> Result<(), TapeFileProblem> {
        if function.is_too_deep() {
            return Err(malformed(NESTED_TOO_DEEP));
        }
        if function.is_derived_too_often() {
            return Err(malformed(DERIVED_TOO_OFTEN));
        }
        self.push(Made::Function(function));
        Ok(())
    }

    /// The tape, which is the last part.
    pub fn finish(mut self) -> Result<Tape, TapeFileProblem> {
        let last = self.used.pop();
        match self.parts.pop() {
            Some(Made::Tape(tape)) if last == Some(false) && !self.used.contains(&false) => Ok(tape),
            Some(Made::Tape(_)) => Err(malformed("a part is used by no other one")),
            _ => Err(malformed("the last part is no tape")),
        }
    }
}

/// Which of the names of variables it is; its number in files.
#[derive(Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub(super) enum NameKind {
    Given = 1,
    Indexed = 2,
    Letter = 3,
}

/// The name of a variable as files have it.
pub(super) struct NameParts<T> {
    pub kind: NameKind,
    /// The name, or the letter.
    pub text: T,
    pub accent: Accent,
    /// 0 where there is none.
    pub index: i64,
}

impl<'a> NameParts<&'a str> {
    pub fn of(name: &'a Name) -> NameParts<&'a str> {
        let (kind, text, accent, index) = match name {
            Name::Given(name, accent) => (NameKind::Given, name.as_str(), *accent, 0),
            Name::Indexed(letter, accent, index) => (NameKind::Indexed, *letter, *accent, *index),
            Name::Letter(letter, accent) => (NameKind::Letter, *letter, *accent, 0),
            // No variable is called so, and what loads files refuses it.
            Name::Number(_) => (NameKind::Given, "", Accent::None, 0),
        };
        NameParts { kind, text, accent, index }
    }
}

impl NameParts<String> {
    /// The name, if a variable can be called so.
    pub fn name(self) -> Result<Name, TapeFileProblem> {
        let NameParts { kind, text, accent, index } = self;
        if kind != NameKind::Indexed && index != 0 {
            let expected = "0 for a name without one".to_owned();
            return Err(TapeFileProblem::Unexpected {
                what: "the index of a name",
                found: index.to_string(),
                expected,
            });
        }
        Ok(match kind {
            NameKind::Given => Name::Given(text, accent),
            NameKind::Indexed => Name::Indexed(letter(&text)?, accent, index),
            NameKind::Letter => Name::Letter(letter(&text)?, accent),
        })
    }
}

/// What stands for the name of an operand until all variables are known.
pub(super) fn unnamed() -> OperandName {
    OperandName::Own(Name::Number(0.0))
}

/// Room for so many items, which the file has been found to hold.
pub(super) fn room<T>(count: usize) -> Result<Vec<T>, TapeFileProblem> {
    let mut list = Vec::new();
    match list.try_reserve_exact(count) {
        Ok(()) => Ok(list),
        Err(_) => Err(out_of_memory::<T>(count)),
    }
}

/// Room for as many items again.
pub(super) fn more_room<T>(list: &mut Vec<T>) -> Result<(), TapeFileProblem> {
    let count = list.len().max(16);
    list.try_reserve_exact(count).map_err(|_| out_of_memory::<T>(count))
}

fn out_of_memory<T>(count: usize) -> TapeFileProblem {
    TapeFileProblem::OutOfMemory { bytes: (count as u64).saturating_mul(size_of::<T>() as u64) }
}

/// Whether the variables have names that a recording could have left: such as
/// [`Tape::builder`] takes, and no two that print alike. There is no table of
/// them: a file may hold many.
fn check_names(data: &TapeData) -> Result<(), TapeFileProblem> {
    let wrong = |found: String, expected: &str| {
        Err(TapeFileProblem::Unexpected { what: "the name of a variable", found, expected: expected.to_owned() })
    };
    let num_inputs = data.input_names.len();
    let printed = |place: u32| match data.input_names.get(place as usize) {
        Some(Name::Given(name, Accent::None)) => Cow::Borrowed(name.as_str()),
        Some(name) => Cow::Owned(name.to_string()),
        None => Cow::Borrowed(data.param_names[place as usize - num_inputs].as_str()),
    };
    let given = data.input_names.iter().filter_map(|name| match name {
        Name::Given(name, _) => Some(name),
        _ => None,
    });
    for name in given.chain(&data.param_names) {
        if let Some(reason) = fault_of_name(name) {
            return wrong(format!("{name:?}, which {reason}"), "a name");
        }
    }
    // Sums of the texts stand for them: a text is printed once, and again where sums agree.
    let count = num_inputs + data.param_names.len();
    let mut places = room(count)?;
    places.extend((0..count as u32).map(|place| {
        let mut hasher = DefaultHasher::new();
        printed(place).hash(&mut hasher);
        (hasher.finish(), place)
    }));
    places.sort_unstable_by(|(sum, place), (other_sum, other)| {
        let by_text = || printed(*place).cmp(&printed(*other));
        sum.cmp(other_sum).then_with(by_text).then(place.cmp(other))
    });
    let is_wrong = |pair: &&[(u64, u32)]| {
        let [(sum, place), (other_sum, other)] = **pair else { return false };
        // An input that has the name it would have without one may share it with
        // a parameter: so do those of a derivative of a tape without names of inputs.
        let own = i64::from(place) + 1;
        let is_unnamed = data.input_names.get(place as usize) == Some(&Name::Indexed("x", Accent::None, own));
        sum == other_sum && printed(place) == printed(other) && !(is_unnamed && other as usize >= num_inputs)
    };
    match places.windows(2).find(is_wrong) {
        None => Ok(()),
        Some(pair) => wrong(format!("{:?} twice", printed(pair[0].1)), "a name for each variable"),
    }
}

/// Gives the operands of guards and escapes the names that they were recorded with.
fn name_operands(data: &mut TapeData) -> Result<(), TapeFileProblem> {
    // The names given by the user, which operands of one variable have in common.
    let (first_input, first_param) = (data.first_input(), data.first_param());
    let count = data.input_names.len() + data.param_names.len();
    let mut shared: Vec<Option<Arc<Name>>> = room(count)?;
    shared.resize(count, None);
    let (mut guards, mut escapes) = (std::mem::take(&mut data.guards), std::mem::take(&mut data.escapes));
    let mut name_of = |operand: u32| {
        let index = operand as usize;
        let place = match index.checked_sub(first_param) {
            Some(param) => (param < data.param_names.len()).then_some(data.input_names.len() + param),
            None => index.checked_sub(first_input).filter(|&input| input < data.input_names.len()),
        };
        if let Some(Some(name)) = place.map(|place| &shared[place]) {
            return OperandName::Shared(name.clone());
        }
        match (data.given_name(operand), place) {
            (name @ Name::Given(..), Some(place)) => OperandName::Shared(shared[place].insert(Arc::new(name)).clone()),
            (name, _) => OperandName::Own(name),
        }
    };
    for guard in &mut guards {
        guard.names = guard.operands.map(&mut name_of);
    }
    for escape in &mut escapes {
        escape.name = name_of(escape.operand);
    }
    (data.guards, data.escapes) = (guards, escapes);
    Ok(())
}

/// Places of an argument, as many as there are iterations.
pub(super) fn listed(places: Vec<u32>) -> Source {
    Source::Argument(Column::Listed(places))
}

/// The most numbers that an index can name.
pub(super) const MOST: u64 = LIMIT as u64;
