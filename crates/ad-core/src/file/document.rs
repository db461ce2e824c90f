//! Tapes in the data model of serde: the parts of a tape file as a structured
//! document, with names in place of codes.
//!
//! Numbers are texts where people read them (`"0.1"`, `"-0.0"`, `"NaN"`), since
//! JSON has no NaN, no infinities, and readers that round; else they are their
//! 64 bits. What is read goes through [`Assembler`], as bytes do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::parts::{Assembler, LoopParts, MOST, NameKind, NameParts, Part, Parts, letter, operation, unnamed};
use super::{TapeFileProblem, VERSION};
use crate::formula::{Accent, Name};
use crate::function::{Column, Function, Source, Stored, Target};
use crate::ops::Op;
use crate::record::{Answer, Escape, Guard, Question, SourceLocation};
use crate::tape::{Row, Tape, TapeData};

const FORMAT: &str = "ad-core tape";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    /// Each after those that it uses; the last one is the tape.
    parts: Vec<PartDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartDocument {
    List(ListDocument),
    Tape(TapeDocument),
    Loop(LoopDocument),
    Adjoint(u32),
    Rearranged(RearrangedDocument),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListDocument {
    /// The names, or nothing for each.
    inputs: Vec<Option<NameDocument>>,
    params: Vec<Option<String>>,
    output_letter: String,
    constants: Vec<Number>,
    locations: Vec<PlaceDocument>,
    functions: Vec<u32>,
    rows: Vec<RowDocument>,
    outputs: Vec<u32>,
    guards: Vec<GuardDocument>,
    escapes: Vec<EscapeDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowDocument {
    op: String,
    /// Of a call, which of the functions of the list it calls.
    function: Option<u32>,
    operands: Vec<u32>,
    location: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameDocument {
    kind: NameKind,
    text: String,
    accent: AccentDocument,
    index: i64,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum AccentDocument {
    None,
    Dot,
    Bar,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceDocument {
    file: String,
    line: u32,
    nearest: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardDocument {
    /// The relation's symbol or the method's name.
    question: String,
    operands: [u32; 2],
    answer: AnswerDocument,
    location: PlaceDocument,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AnswerDocument {
    Bool(bool),
    /// −1, 0 or 1.
    Ordering(Option<i8>),
    Integer(Option<i64>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EscapeDocument {
    operand: u32,
    value: Number,
    location: PlaceDocument,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TapeDocument {
    list: u32,
    name: Option<String>,
    params: Vec<Number>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoopDocument {
    body: u32,
    name: Option<String>,
    operands: u32,
    inputs: Vec<InputDocument>,
    outputs: Vec<OutputDocument>,
    initial: Vec<u32>,
    count: u64,
    summed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InputDocument {
    Carry(u32),
    Strided(StridedDocument),
    Listed(Vec<u32>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StridedDocument {
    first: i64,
    stride: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutputDocument {
    Carry(u32),
    Out(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RearrangedDocument {
    of: u32,
    num_operands: u32,
    operands: Vec<Option<u32>>,
    results: Vec<u32>,
}

/// A number that comes back with its bits.
#[derive(Clone, Copy)]
struct Number(f64);

/// The NaN that is written without its bits.
const USUAL_NAN: u64 = 0x7ff8_0000_0000_0000;

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (number, bits) = (self.0, self.0.to_bits());
        match serializer.is_human_readable() {
            false => serializer.serialize_u64(bits),
            true if number.is_nan() && bits != USUAL_NAN => serializer.collect_str(&format_args!("NaN:{bits:016x}")),
            // The shortest text that is read as this number.
            true => serializer.collect_str(&format_args!("{number:?}")),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number as a text, such as \"0.1\", \"-0.0\", \"inf\" or \"NaN\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                if let Some(digits) = text.strip_prefix("NaN:") {
                    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                    if digits.len() != 16 || !digits.bytes().all(is_digit) {
                        return Err(wrong());
                    }
                    let bits = u64::from_str_radix(digits, 16).map_err(|_| wrong())?;
                    return Some(f64::from_bits(bits)).filter(|nan| nan.is_nan()).map(Number).ok_or_else(wrong);
                }
                let number: f64 = text.parse().map_err(|_| wrong())?;
                // Digits that overflow are not what they say; infinity has a name.
                match number.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) {
                    true => Err(wrong()),
                    false => Ok(Number(number)),
                }
            }
        }
        match deserializer.is_human_readable() {
            true => deserializer.deserialize_str(Text),
            false => u64::deserialize(deserializer).map(|bits| Number(f64::from_bits(bits))),
        }
    }
}

impl Serialize for Tape {
    /// As a document with the fields `format`, `version` and `parts`, which
    /// `docs/tape-files.md` describes. A tape that calls code of yours is an error.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = Parts::of(self).map_err(serde::ser::Error::custom)?;
        let documents = parts.list.iter().filter_map(|&part| part_document(&parts, part)).collect();
        Document { format: FORMAT.to_owned(), version: VERSION, parts: documents }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tape {
    /// What is wrong with a document is an error, as it is with a file; see [`Tape::load`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tape, D::Error> {
        let Document { format, version, parts } = Document::deserialize(deserializer)?;
        if format != FORMAT {
            return Err(de::Error::invalid_value(de::Unexpected::Str(&format), &FORMAT));
        }
        if version != VERSION {
            return Err(de::Error::custom(TapeFileProblem::UnknownVersion { found: version, known: VERSION }));
        }
        let mut assembler = Assembler::default();
        for (number, part) in parts.into_iter().enumerate() {
            push(&mut assembler, part)
                .map_err(|problem| de::Error::custom(format_args!("part {number}: {problem}")))?;
        }
        assembler.finish().map_err(de::Error::custom)
    }
}

fn part_document(parts: &Parts<'_>, part: Part<'_>) -> Option<PartDocument> {
    Some(match part {
        Part::List(data) => PartDocument::List(list_document(parts, data)),
        Part::Tape(tape) => PartDocument::Tape(TapeDocument {
            list: parts.number_of_list(&tape.data),
            name: tape.name.as_deref().map(str::to_owned),
            params: tape.params.iter().copied().map(Number).collect(),
        }),
        Part::Function(function) => function_document(parts, function)?,
    })
}

fn list_document(parts: &Parts<'_>, data: &TapeData) -> ListDocument {
    let row = |(number, row): (usize, &Row)| RowDocument {
        op: row.op().info().name.to_owned(),
        function: (row.op() == Op::Call).then(|| data.function_number(number)),
        operands: data.operands(number).to_vec(),
        location: row.location(),
    };
    let guard = |guard: &Guard| GuardDocument {
        question: guard.question.word().to_owned(),
        operands: guard.operands,
        answer: match guard.answer {
            Answer::Bool(answer) => AnswerDocument::Bool(answer),
            Answer::Ordering(answer) => AnswerDocument::Ordering(answer.map(|ordering| ordering as i8)),
            Answer::Integer(answer) => AnswerDocument::Integer(answer),
        },
        location: place_document(&guard.location),
    };
    let escape = |escape: &Escape| EscapeDocument {
        operand: escape.operand,
        value: Number(escape.value),
        location: place_document(&escape.location),
    };
    ListDocument {
        inputs: (0..data.num_inputs).map(|input| data.input_names.get(input).map(name_document)).collect(),
        params: (0..data.num_params).map(|param| data.param_names.get(param).cloned()).collect(),
        output_letter: data.output_letter.to_owned(),
        constants: data.constants.iter().copied().map(Number).collect(),
        locations: data.locations.iter().map(place_document).collect(),
        functions: data.functions.iter().map(|function| parts.number_of_function(function)).collect(),
        rows: data.rows.iter().enumerate().map(row).collect(),
        outputs: data.outputs.clone(),
        guards: data.guards.iter().map(guard).collect(),
        escapes: data.escapes.iter().map(escape).collect(),
    }
}

fn name_document(name: &Name) -> NameDocument {
    let NameParts { kind, text, accent, index } = NameParts::of(name);
    let accent = match accent {
        Accent::None => AccentDocument::None,
        Accent::Dot => AccentDocument::Dot,
        Accent::Bar => AccentDocument::Bar,
    };
    NameDocument { kind, text: text.to_owned(), accent, index }
}

fn place_document(place: &SourceLocation) -> PlaceDocument {
    PlaceDocument { file: place.file().to_owned(), line: place.line(), nearest: place.is_nearest() }
}

fn function_document(parts: &Parts<'_>, function: &Function) -> Option<PartDocument> {
    Some(match function.stored() {
        Stored::Loop { rolled, name } => PartDocument::Loop(LoopDocument {
            body: parts.number_of_tape(&rolled.body),
            name: name.map(|name| (**name).to_owned()),
            operands: function.num_operands() as u32,
            inputs: rolled
                .inputs
                .iter()
                .map(|input| match input {
                    Source::Carry(place) => InputDocument::Carry(*place),
                    Source::Argument(Column::Strided { first, stride }) => {
                        InputDocument::Strided(StridedDocument { first: *first, stride: *stride })
                    }
                    Source::Argument(Column::Listed(places)) => InputDocument::Listed(places.clone()),
                })
                .collect(),
            outputs: rolled
                .outputs
                .iter()
                .map(|&output| match output {
                    Target::Carry(place) => OutputDocument::Carry(place),
                    Target::Out(place) => OutputDocument::Out(place),
                })
                .collect(),
            initial: rolled.initial.clone(),
            count: rolled.count as u64,
            summed: rolled.summed,
        }),
        Stored::Adjoint(of) => PartDocument::Adjoint(parts.number_of_function(of)),
        Stored::Rearranged { of, operands, results } => PartDocument::Rearranged(RearrangedDocument {
            of: parts.number_of_function(of),
            num_operands: function.num_operands() as u32,
            operands: operands.to_vec(),
            results: results.to_vec(),
        }),
        Stored::Code => return None,
    })
}

fn push(assembler: &mut Assembler, part: PartDocument) -> Result<(), TapeFileProblem> {
    match part {
        PartDocument::List(list) => {
            let data = list_of(assembler, list)?;
            assembler.push_list(data)
        }
        PartDocument::Tape(TapeDocument { list, name, params }) => {
            assembler.push_tape(list, name.map(Into::into), params.into_iter().map(|Number(number)| number).collect())
        }
        PartDocument::Loop(LoopDocument { body, name, operands, inputs, outputs, initial, count, summed }) => {
            let input = |input: InputDocument| match input {
                InputDocument::Carry(place) => Source::Carry(place),
                InputDocument::Strided(StridedDocument { first, stride }) => {
                    Source::Argument(Column::Strided { first, stride })
                }
                InputDocument::Listed(places) => Source::Argument(Column::Listed(places)),
            };
            let output = |output: OutputDocument| match output {
                OutputDocument::Carry(place) => Target::Carry(place),
                OutputDocument::Out(place) => Target::Out(place),
            };
            assembler.push_loop(LoopParts {
                body,
                name: name.map(Into::into),
                num_operands: operands,
                inputs: inputs.into_iter().map(input).collect(),
                outputs: outputs.into_iter().map(output).collect(),
                initial,
                count,
                summed,
            })
        }
        PartDocument::Adjoint(of) => assembler.push_adjoint(of),
        PartDocument::Rearranged(RearrangedDocument { of, num_operands, operands, results }) => {
            assembler.push_rearranged(of, num_operands, operands, results)
        }
    }
}

fn unexpected<T>(what: &'static str, found: String, expected: &str) -> Result<T, TapeFileProblem> {
    Err(TapeFileProblem::Unexpected { what, found, expected: expected.to_owned() })
}

/// The names, if there is one for each; none if there is none.
fn names_of<T>(names: Vec<Option<T>>) -> Result<Vec<T>, TapeFileProblem> {
    let (all, named) = (names.len(), names.iter().flatten().count());
    match named == 0 || named == all {
        true => Ok(names.into_iter().flatten().collect()),
        false => unexpected("the names of variables", format!("{named} for {all}"), "one for each or none"),
    }
}

fn list_of(assembler: &mut Assembler, list: ListDocument) -> Result<TapeData, TapeFileProblem> {
    let mut files: HashMap<String, Arc<str>> = HashMap::new();
    let mut place = |place: PlaceDocument| {
        let PlaceDocument { file, line, nearest } = place;
        let file = files.entry(file).or_insert_with_key(|file| file.as_str().into());
        SourceLocation::loaded(file.clone(), line, nearest)
    };
    let mut data = TapeData {
        num_inputs: list.inputs.len(),
        num_params: list.params.len(),
        output_letter: letter(&list.output_letter)?,
        input_names: names_of(list.inputs)?.into_iter().map(name_of).collect::<Result<_, _>>()?,
        param_names: names_of(list.params)?,
        constants: list.constants.into_iter().map(|Number(number)| number).collect(),
        locations: list.locations.into_iter().map(&mut place).collect(),
        outputs: list.outputs,
        ..TapeData::default()
    };
    for number in list.functions {
        data.functions.push(assembler.function(number)?);
    }
    for row in list.rows {
        push_row(&mut data, row)?;
    }
    for GuardDocument { question, operands, answer, location } in list.guards {
        let Some(question) = Question::ALL.into_iter().find(|known| known.word() == question) else {
            return unexpected("the question of a guard", question, "such as \"<\" or \"is_nan\"");
        };
        let answer = match answer {
            AnswerDocument::Bool(answer) => Answer::Bool(answer),
            AnswerDocument::Integer(answer) => Answer::Integer(answer),
            AnswerDocument::Ordering(None) => Answer::Ordering(None),
            AnswerDocument::Ordering(Some(ordering @ -1..=1)) => Answer::Ordering(Some(ordering.cmp(&0))),
            AnswerDocument::Ordering(Some(other)) => return unexpected("an ordering", other.to_string(), "-1, 0 or 1"),
        };
        data.guards.push(Guard {
            question,
            operands,
            answer,
            location: place(location),
            names: [unnamed(), unnamed()],
        });
    }
    for EscapeDocument { operand, value: Number(value), location } in list.escapes {
        data.escapes.push(Escape { operand, value, location: place(location), name: unnamed() });
    }
    Ok(data)
}

fn name_of(name: NameDocument) -> Result<Name, TapeFileProblem> {
    let accent = match name.accent {
        AccentDocument::None => Accent::None,
        AccentDocument::Dot => Accent::Dot,
        AccentDocument::Bar => Accent::Bar,
    };
    NameParts { kind: name.kind, text: name.text, accent, index: name.index }.name()
}

fn push_row(data: &mut TapeData, row: RowDocument) -> Result<(), TapeFileProblem> {
    let RowDocument { op, function, operands, location } = row;
    let op = operation(&op)?;
    if location as usize >= Row::LOCATIONS || (data.wide.len() + operands.len() + 1) as u64 > MOST {
        return unexpected("a row", format!("place {location}, {} operands", operands.len()), "fewer");
    }
    if function.is_some() != (op == Op::Call) {
        return unexpected("the function of a row", format!("{function:?} for {op}"), "one for a call alone");
    }
    data.wide.extend(function);
    data.rows.push(match *operands {
        [] if op != Op::Call => Row::new(op, location, 0, [0; 2]),
        [a] if op != Op::Call => Row::new(op, location, 1, [a, 0]),
        [a, b] if op != Op::Call => Row::new(op, location, 2, [a, b]),
        _ => {
            let start = data.wide.len() as u32;
            data.wide.extend_from_slice(&operands);
            Row::wide(op, location, start, operands.len() as u32)
        }
    });
    Ok(())
}
