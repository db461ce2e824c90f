//! The bytes of a tape file, version 1; `docs/tape-files.md` describes them.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::parts::{
    Assembler, LoopParts, MOST, NameKind, NameParts, Part, Parts, letter, listed, more_room, operation, room, unnamed,
};
use super::{TapeFileProblem, VERSION};
use crate::durable::Crc64;
use crate::error::{Error, row_text};
use crate::formula::{Accent, Name};
use crate::function::{Column, Function, Source, Stored, Target};
use crate::ops::Op;
use crate::record::{Answer, Escape, Guard, Question, SourceLocation};
use crate::tape::{Row, Tape, TapeData};

/// What every tape file begins with.
pub(super) const MAGIC: [u8; 8] = *b"ad-tape\n";
/// Magic, version, a word without meaning, the length of the body.
const HEADER: usize = 24;
const CHECKSUM: usize = 8;

/// The words that every part begins with: what they have no meaning for is 0.
///
/// So many, since a part takes about as much memory: what a file takes to load
/// is bounded by its own size.
const HEAD: usize = 64;
/// The bytes of a text are a multiple of this, for the same reason.
const TEXT: usize = 16;
/// What a guard and an escape take in a file, again for that reason: they end
/// in words without meaning.
const GUARD: usize = 48;
const ESCAPE: usize = 32;
const _: () = assert!(size_of::<Guard>() <= 3 * GUARD && size_of::<Escape>() <= 3 * ESCAPE);
/// What a place in the code takes.
const PLACE: usize = 12;
const _: () = assert!(size_of::<SourceLocation>() <= 3 * PLACE);

const LIST: u32 = 1;
const TAPE: u32 = 2;
const LOOP: u32 = 3;
const ADJOINT: u32 = 4;
const REARRANGED: u32 = 5;

/// Bytes that are read and written at once.
const CHUNK: usize = 1 << 16;

// Writing.

/// Where bytes go: they are counted, or written and summed up.
struct Encoder<'w> {
    to: Option<&'w mut dyn Write>,
    buffer: Vec<u8>,
    crc: Crc64,
    length: u64,
    /// The first thing of which there are more than a file can count, and how many.
    too_many: Option<(&'static str, u64)>,
}

impl<'w> Encoder<'w> {
    fn new(to: Option<&'w mut dyn Write>) -> Encoder<'w> {
        let buffer = Vec::with_capacity(if to.is_some() { CHUNK } else { 0 });
        Encoder { to, buffer, crc: Crc64::new(), length: 0, too_many: None }
    }
}

impl Encoder<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if self.to.is_some() {
            for piece in bytes.chunks(CHUNK) {
                if self.buffer.len() + piece.len() > CHUNK {
                    self.hand_over()?;
                }
                self.buffer.extend_from_slice(piece);
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if let Some(to) = &mut self.to {
            self.crc.update(&self.buffer);
            to.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn word(&mut self, word: u32) -> io::Result<()> {
        self.bytes(&word.to_le_bytes())
    }

    fn words(&mut self, words: impl IntoIterator<Item = u32>) -> io::Result<()> {
        words.into_iter().try_for_each(|word| self.word(word))
    }

    fn long(&mut self, long: u64) -> io::Result<()> {
        self.bytes(&long.to_le_bytes())
    }

    fn numbers(&mut self, numbers: &[f64]) -> io::Result<()> {
        numbers.iter().try_for_each(|number| self.long(number.to_bits()))
    }

    /// The word for so many things, if a file can hold so many.
    fn count(&mut self, what: &'static str, count: usize) -> u32 {
        let count = count as u64;
        if count > MOST {
            self.too_many.get_or_insert((what, count));
        }
        count as u32
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let len = self.count("bytes of a text", text.len());
        self.word(len)?;
        self.bytes(text.as_bytes())?;
        self.bytes(&[0; TEXT][..padding(text.len())])
    }

    fn head<const N: usize>(&mut self, words: [u32; N]) -> io::Result<()> {
        self.words(words)?;
        self.words([0; HEAD].into_iter().skip(N))
    }
}

/// The zeros that follow a text of so many bytes.
fn padding(len: usize) -> usize {
    (4 + len).next_multiple_of(TEXT) - 4 - len
}

/// A tape, taken apart to be written.
pub(super) struct File<'a> {
    parts: Parts<'a>,
    /// The operations that it uses, and the number of each.
    operations: Vec<Op>,
    operation_numbers: [u8; 256],
    /// The files of code that it names, and their numbers.
    sources: Vec<&'a str>,
    source_numbers: HashMap<&'a str, u32>,
    /// The length of the body.
    length: u64,
}

impl<'a> File<'a> {
    /// # Errors
    ///
    /// [`Error::NotStorable`], and [`Error::TooLargeForFile`].
    pub fn of(tape: &'a Tape) -> Result<File<'a>, Error> {
        let mut file = File {
            parts: Parts::of(tape)?,
            operations: Vec::new(),
            operation_numbers: [u8::MAX; 256],
            sources: Vec::new(),
            source_numbers: HashMap::new(),
            length: 0,
        };
        let mut is_used = [false; 256];
        for data in file.parts.lists() {
            data.rows.iter().for_each(|row| is_used[row.op() as usize] = true);
            let of_guards = data.guards.iter().map(|guard| &guard.location);
            let places = data.locations.iter().chain(of_guards).chain(data.escapes.iter().map(|e| &e.location));
            for place in places {
                // Neighbours are in one file mostly.
                let (sources, numbers) = (&mut file.sources, &mut file.source_numbers);
                if sources.last() != Some(&place.file()) && !numbers.contains_key(place.file()) {
                    numbers.insert(place.file(), sources.len() as u32);
                    sources.push(place.file());
                }
            }
        }
        for op in Op::ALL.iter().copied().chain([Op::FurtherResult, Op::Call]).filter(|&op| is_used[op as usize]) {
            file.operation_numbers[op as usize] = file.operations.len() as u8;
            file.operations.push(op);
        }
        // Where nothing is written nothing fails.
        let mut counted = Encoder::new(None);
        let _ = file.body(&mut counted);
        file.length = counted.length;
        match counted.too_many {
            None => Ok(file),
            Some((what, found)) => Err(Error::TooLargeForFile { what, found, limit: MOST }),
        }
    }

    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut encoder = Encoder::new(Some(to));
        encoder.bytes(&MAGIC)?;
        encoder.words([VERSION, 0])?;
        encoder.long(self.length)?;
        self.body(&mut encoder)?;
        encoder.hand_over()?;
        encoder.long(encoder.crc.value())?;
        encoder.hand_over()
    }

    fn body(&self, to: &mut Encoder<'_>) -> io::Result<()> {
        to.word(self.operations.len() as u32)?;
        self.operations.iter().try_for_each(|op| to.text(op.info().name))?;
        let sources = to.count("files of code", self.sources.len());
        to.word(sources)?;
        self.sources.iter().try_for_each(|source| to.text(source))?;
        let parts = to.count("lists, tapes and functions", self.parts.list.len());
        to.word(parts)?;
        self.parts.list.iter().try_for_each(|&part| match part {
            Part::List(data) => self.list(data, to),
            Part::Tape(tape) => self.tape(tape, to),
            Part::Function(function) => self.function(function, to),
        })
    }

    fn list(&self, data: &TapeData, to: &mut Encoder<'_>) -> io::Result<()> {
        let head = [
            LIST,
            to.count("inputs", data.num_inputs),
            to.count("parameters", data.num_params),
            to.count("constants", data.constants.len()),
            to.count("rows", data.num_rows()),
            // The numbers of functions that lie among the operands stand in the rows.
            to.count("operands", data.wide.len() - data.calls.len()),
            to.count("outputs", data.outputs.len()),
            to.count("functions", data.functions.len()),
            to.count("places in the code", data.locations.len()),
            to.count("guards", data.guards.len()),
            to.count("escapes", data.escapes.len()),
        ];
        to.head(head)?;
        to.text(data.output_letter)?;
        to.numbers(&data.constants)?;
        for input in 0..data.num_inputs {
            match data.input_names.get(input) {
                None => to.word(0)?,
                Some(name) => name_to(name, to)?,
            }
        }
        for param in 0..data.num_params {
            match data.param_names.get(param) {
                None => to.word(0)?,
                Some(name) => {
                    to.word(1)?;
                    to.text(name)?;
                }
            }
        }
        data.locations.iter().try_for_each(|place| self.place(place, to))?;
        to.words(data.functions.iter().map(|function| self.parts.number_of_function(function)))?;
        self.rows(data, to)?;
        to.words(data.outputs.iter().copied())?;
        data.guards.iter().try_for_each(|guard| self.guard(guard, to))?;
        data.escapes.iter().try_for_each(|escape| {
            to.word(escape.operand)?;
            to.long(escape.value.to_bits())?;
            self.place(&escape.location, to)?;
            to.words([0; 2])
        })
    }

    /// The rows, and the operands of those that do not hold them.
    fn rows(&self, data: &TapeData, to: &mut Encoder<'_>) -> io::Result<()> {
        for (number, row) in data.rows.iter().enumerate() {
            let (count, operands) = match row.inline_operands() {
                // What a row has no operand for may hold anything.
                Some(&[a, b]) => (2, [a, b]),
                Some(&[a]) => (1, [a, 0]),
                Some(_) => (0, [0, 0]),
                None if row.op() == Op::Call => (3, [data.operands(number).len() as u32, data.function_number(number)]),
                None => (3, [data.operands(number).len() as u32, 0]),
            };
            let op = u32::from(self.operation_numbers[row.op() as usize]);
            let words = [op | count << 8 | row.location() << 10, operands[0], operands[1]];
            let mut bytes = [0; 12];
            for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            to.bytes(&bytes)?;
        }
        let wide = data.rows.iter().enumerate().filter(|(_, row)| row.inline_operands().is_none());
        wide.map(|(number, _)| data.operands(number)).try_for_each(|operands| to.words(operands.iter().copied()))
    }

    fn place(&self, place: &SourceLocation, to: &mut Encoder<'_>) -> io::Result<()> {
        let source = self.source_numbers.get(place.file()).copied().unwrap_or(u32::MAX);
        to.words([source, place.line(), u32::from(place.is_nearest())])
    }

    fn guard(&self, guard: &Guard, to: &mut Encoder<'_>) -> io::Result<()> {
        let question = Question::ALL.iter().position(|&question| question == guard.question).unwrap_or(usize::MAX);
        let (kind, answer) = match guard.answer {
            Answer::Bool(answer) => (0, Some(i64::from(answer))),
            Answer::Ordering(answer) => (1, answer.map(|ordering| ordering as i64)),
            Answer::Integer(answer) => (2, answer),
        };
        to.words([question as u32, guard.operands[0], guard.operands[1], kind, u32::from(answer.is_some())])?;
        to.long(answer.unwrap_or(0) as u64)?;
        self.place(&guard.location, to)?;
        to.words([0; 2])
    }

    fn tape(&self, tape: &Tape, to: &mut Encoder<'_>) -> io::Result<()> {
        let list = self.parts.number_of_list(&tape.data);
        let params = to.count("parameters", tape.params.len());
        to.head([TAPE, list, params, u32::from(tape.name.is_some())])?;
        tape.name.iter().try_for_each(|name| to.text(name))?;
        to.numbers(&tape.params)
    }

    fn function(&self, function: &Function, to: &mut Encoder<'_>) -> io::Result<()> {
        match function.stored() {
            Stored::Loop { rolled, name } => {
                let body = self.parts.number_of_tape(&rolled.body);
                let listed = rolled.inputs.iter().filter_map(|input| match input {
                    Source::Argument(Column::Listed(places)) => Some(places),
                    _ => None,
                });
                let num_listed: u64 =
                    listed.clone().map(|places| u64::from(to.count("listed places", places.len()))).sum();
                let count = rolled.count as u64;
                let head = [
                    LOOP,
                    body,
                    to.count("operands of a call", function.num_operands()),
                    to.count("inputs of a body", rolled.inputs.len()),
                    to.count("outputs of a body", rolled.outputs.len()),
                    to.count("numbers of a state", rolled.initial.len()),
                    u32::from(rolled.summed),
                    u32::from(name.is_some()),
                    count as u32,
                    (count >> 32) as u32,
                    num_listed as u32,
                    (num_listed >> 32) as u32,
                ];
                to.head(head)?;
                name.into_iter().try_for_each(|name| to.text(name))?;
                for input in &rolled.inputs {
                    let (kind, place, [first, stride]) = match *input {
                        Source::Carry(place) => (0, place, [0; 2]),
                        Source::Argument(Column::Strided { first, stride }) => (1, 0, [first, stride]),
                        Source::Argument(Column::Listed(_)) => (2, 0, [0; 2]),
                    };
                    to.words([kind, place])?;
                    to.long(first as u64)?;
                    to.long(stride as u64)?;
                }
                for output in &rolled.outputs {
                    to.words(match *output {
                        Target::Carry(place) => [0, place],
                        Target::Out(place) => [1, place],
                    })?;
                }
                to.words(rolled.initial.iter().copied())?;
                for places in listed {
                    to.words(places.iter().copied())?;
                }
                Ok(())
            }
            Stored::Adjoint(of) => to.head([ADJOINT, self.parts.number_of_function(of)]),
            Stored::Rearranged { of, operands, results } => {
                let head = [
                    REARRANGED,
                    self.parts.number_of_function(of),
                    to.count("operands of a call", function.num_operands()),
                    to.count("operands that are rearranged", operands.len()),
                    to.count("results that are rearranged", results.len()),
                ];
                to.head(head)?;
                to.words(operands.iter().map(|operand| operand.map_or(0, |operand| operand + 1)))?;
                to.words(results.iter().copied())
            }
            // Parts::of has refused it.
            Stored::Code => Ok(()),
        }
    }
}

fn name_to(name: &Name, to: &mut Encoder<'_>) -> io::Result<()> {
    let NameParts { kind, text, accent, index } = NameParts::of(name);
    to.words([kind as u32, accent as u32])?;
    to.long(index as u64)?;
    to.text(text)
}

// Reading.

/// Why no tape could be read.
pub(super) enum Failure {
    Io(io::Error),
    /// After so many bytes there is a problem.
    Bad(u64, TapeFileProblem),
}

/// The tape in a file, which has nothing else in it.
pub(super) fn read(mut from: impl Read) -> Result<Tape, Failure> {
    let mut header = [0; HEADER];
    let found = read_full(&mut from, &mut header)?;
    let body = Body::read(&mut from, &header[..found])?;
    match read_full(&mut from, &mut [0])? {
        0 => body.tape(),
        _ => Err(Failure::Bad(body.whole, TapeFileProblem::TooLong { expected: body.whole })),
    }
}

/// The tape that a stream goes on with, of which no byte more is read; none where the stream ends.
pub(super) fn read_next(mut from: impl Read) -> Result<Option<Tape>, Failure> {
    let mut header = [0; HEADER];
    match read_full(&mut from, &mut header)? {
        0 => Ok(None),
        found => Body::read(&mut from, &header[..found])?.tape().map(Some),
    }
}

/// Fills the buffer, or reads to the end of the file; gives how many bytes there were.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Failure> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read.min(buffer.len() - len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Io(error)),
        }
    }
    Ok(len)
}

/// The body of a file, in chunks, and the length of the whole.
struct Body {
    chunks: VecDeque<Vec<u8>>,
    whole: u64,
}

impl Body {
    /// What follows the header, if it is as long as that says and has the checksum at the end.
    /// A header that is too short is all that there was.
    fn read(from: &mut impl Read, header: &[u8]) -> Result<Body, Failure> {
        let found = header.len();
        let magic = &header[..found.min(MAGIC.len())];
        if magic.len() < MAGIC.len() && MAGIC.starts_with(magic) {
            return Err(Failure::Bad(found as u64, TapeFileProblem::CutOff { expected: None, found: found as u64 }));
        }
        if magic != MAGIC {
            return Err(Failure::Bad(0, TapeFileProblem::NotATapeFile { found: magic.to_vec() }));
        }
        let cut_off = |expected, found| Failure::Bad(found, TapeFileProblem::CutOff { expected, found });
        if found < HEADER {
            return Err(cut_off(None, found as u64));
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let version = word(8);
        if version != VERSION {
            return Err(Failure::Bad(8, TapeFileProblem::UnknownVersion { found: version, known: VERSION }));
        }
        if word(12) != 0 {
            let (found, expected) = (word(12).to_string(), "0".to_owned());
            return Err(Failure::Bad(
                12,
                TapeFileProblem::Unexpected { what: "a word of the header", found, expected },
            ));
        }
        let length = u64::from(word(16)) | u64::from(word(20)) << 32;
        let most = u64::MAX - (HEADER + CHECKSUM) as u64;
        if length > most {
            return Err(Failure::Bad(16, TapeFileProblem::TooMany { what: "bytes", found: length, most }));
        }
        let whole = length + (HEADER + CHECKSUM) as u64;

        let mut crc = Crc64::new();
        crc.update(header);
        let (mut chunks, mut read) = (VecDeque::new(), 0);
        while read < length {
            let size = (length - read).min(CHUNK as u64) as usize;
            let no_room = |_| Failure::Bad(HEADER as u64 + read, TapeFileProblem::OutOfMemory { bytes: length });
            let mut chunk = Vec::new();
            chunk.try_reserve_exact(size).map_err(no_room)?;
            chunks.try_reserve(1).map_err(no_room)?;
            chunk.resize(size, 0);
            let found = read_full(from, &mut chunk)?;
            read += found as u64;
            if found < size {
                return Err(cut_off(Some(whole), HEADER as u64 + read));
            }
            crc.update(&chunk);
            chunks.push_back(chunk);
        }
        let mut stored = [0; CHECKSUM];
        let found = read_full(from, &mut stored)?;
        if found < CHECKSUM {
            return Err(cut_off(Some(whole), HEADER as u64 + read + found as u64));
        }
        let (stored, computed) = (u64::from_le_bytes(stored), crc.value());
        if stored != computed {
            return Err(Failure::Bad(HEADER as u64 + length, TapeFileProblem::Checksum { stored, computed }));
        }
        Ok(Body { chunks, whole })
    }

    fn tape(self) -> Result<Tape, Failure> {
        let length = self.whole - (HEADER + CHECKSUM) as u64;
        let mut decoder = Decoder {
            chunks: self.chunks,
            at: 0,
            offset: HEADER as u64,
            end: HEADER as u64 + length,
            start_of_item: 0,
        };
        tape_from(&mut decoder).map_err(|problem| Failure::Bad(decoder.start_of_item, problem))
    }
}

/// The bytes of the body that are left; a chunk is let go when it has been read.
struct Decoder {
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first chunk has been read.
    at: usize,
    /// The place in the file, and where the body ends.
    offset: u64,
    end: u64,
    /// Where what is read now begins.
    start_of_item: u64,
}

type Found<T> = Result<T, TapeFileProblem>;

fn unexpected<T>(what: &'static str, found: impl ToString, expected: impl ToString) -> Found<T> {
    Err(TapeFileProblem::Unexpected { what, found: found.to_string(), expected: expected.to_string() })
}

impl Decoder {
    /// Copies the next bytes.
    fn copy(&mut self, mut to: &mut [u8]) -> Found<()> {
        if (self.end - self.offset) < to.len() as u64 {
            let left = format!("{} bytes before the checksum", self.end - self.offset);
            return unexpected("the body of the file", left, format!("{} at least", to.len()));
        }
        self.offset += to.len() as u64;
        while !to.is_empty() {
            let Some(chunk) = self.chunks.front() else { break };
            let left = &chunk[self.at..];
            let len = left.len().min(to.len());
            to[..len].copy_from_slice(&left[..len]);
            to = &mut to[len..];
            self.at += len;
            if self.at == chunk.len() {
                self.chunks.pop_front();
                self.at = 0;
            }
        }
        Ok(())
    }

    /// The next bytes, which begin an item or go on with one.
    #[inline]
    fn bytes<const N: usize>(&mut self) -> Found<[u8; N]> {
        // What does not end its chunk is there at once.
        if let Some(chunk) = self.chunks.front()
            && let Some(bytes) = chunk[self.at..].first_chunk::<N>()
            && self.at + N < chunk.len()
        {
            self.at += N;
            self.offset += N as u64;
            return Ok(*bytes);
        }
        let mut bytes = [0; N];
        self.copy(&mut bytes)?;
        Ok(bytes)
    }

    /// Errors from here on are at this place.
    #[inline]
    fn begin(&mut self) {
        self.start_of_item = self.offset;
    }

    #[inline]
    fn word(&mut self) -> Found<u32> {
        self.begin();
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn long(&mut self) -> Found<u64> {
        self.begin();
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A word that is 0 or 1.
    fn flag(&mut self, what: &'static str) -> Found<bool> {
        match self.word()? {
            0 => Ok(false),
            1 => Ok(true),
            word => unexpected(what, word, "0 or 1"),
        }
    }

    /// So many items, each of so many bytes at least, if there are as many bytes.
    fn expect_items(&mut self, what: &'static str, count: u32, bytes: usize) -> Found<usize> {
        let most = (self.end - self.offset) / bytes as u64;
        match u64::from(count) <= most.min(MOST) {
            true => Ok(count as usize),
            false => Err(TapeFileProblem::TooMany { what, found: count.into(), most: most.min(MOST) }),
        }
    }

    fn items<T>(
        &mut self,
        what: &'static str,
        count: u32,
        bytes: usize,
        mut item: impl FnMut(&mut Self) -> Found<T>,
    ) -> Found<Vec<T>> {
        self.begin();
        let count = self.expect_items(what, count, bytes)?;
        let mut list = room(count)?;
        for _ in 0..count {
            list.push(item(self)?);
        }
        Ok(list)
    }

    fn words(&mut self, what: &'static str, count: u32) -> Found<Vec<u32>> {
        self.items(what, count, 4, Decoder::word)
    }

    fn numbers(&mut self, what: &'static str, count: u32) -> Found<Vec<f64>> {
        self.items(what, count, 8, |from| from.long().map(f64::from_bits))
    }

    fn text(&mut self) -> Found<String> {
        let len = self.word()?;
        let len = self.expect_items("bytes of a text", len, 1)?;
        let mut bytes = room(len)?;
        bytes.resize(len, 0);
        self.copy(&mut bytes)?;
        let mut zeros = [0; TEXT];
        self.copy(&mut zeros[..padding(len)])?;
        if zeros != [0; TEXT] {
            return unexpected("what fills up a text", "other bytes", "zeros");
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => unexpected("a text", error, "UTF-8"),
        }
    }

    /// The words without meaning at the end of an item.
    fn padding(&mut self) -> Found<()> {
        match [self.word()?, self.word()?] {
            [0, 0] => Ok(()),
            words => unexpected("words that have no meaning", format!("{words:?}"), "zeros"),
        }
    }

    /// The words of a head after the first, of which so many have a meaning.
    fn head(&mut self, kind: u32, meant: usize) -> Found<[u32; HEAD]> {
        let mut words = [0; HEAD];
        words[0] = kind;
        for (number, word) in words.iter_mut().enumerate().skip(1) {
            *word = self.word()?;
            if number >= meant && *word != 0 {
                return unexpected("a word of a part that has no meaning", *word, 0);
            }
        }
        Ok(words)
    }
}

/// What the parts of a file name by number.
struct Tables {
    operations: Vec<Op>,
    sources: Vec<Arc<str>>,
}

fn tape_from(from: &mut Decoder) -> Found<Tape> {
    let count = from.word()?;
    if count > 256 {
        return Err(TapeFileProblem::TooMany { what: "operations", found: count.into(), most: 256 });
    }
    let operations = from.items("operations", count, TEXT, |from| {
        let name = from.text()?;
        operation(&name)
    })?;
    let count = from.word()?;
    let sources = from.items("files of code", count, TEXT, |from| from.text().map(Arc::from))?;
    let tables = Tables { operations, sources };
    let count = from.word()?;
    let count = from.expect_items("parts", count, 4 * HEAD)?;
    let mut assembler = Assembler::default();
    assembler.reserve(count)?;
    for number in 0..count {
        part_from(from, &tables, &mut assembler).map_err(|problem| problem.in_part(number))?;
    }
    from.begin();
    if from.offset != from.end {
        return unexpected("what follows the last part", format!("{} bytes", from.end - from.offset), "nothing");
    }
    assembler.finish()
}

fn part_from(from: &mut Decoder, tables: &Tables, assembler: &mut Assembler) -> Found<()> {
    let start = from.offset;
    let part = match from.word()? {
        LIST => return list_from(from, tables, assembler),
        TAPE => {
            let [_, list, num_params, is_named, ..] = from.head(TAPE, 4)?;
            let name = name_from(from, is_named)?;
            let params = from.numbers("parameters", num_params)?;
            assembler.push_tape(list, name, params)
        }
        LOOP => {
            let parts = loop_from(from)?;
            assembler.push_loop(parts)
        }
        ADJOINT => {
            let [_, of, ..] = from.head(ADJOINT, 2)?;
            assembler.push_adjoint(of)
        }
        REARRANGED => {
            let [_, of, num_operands, operands, results, ..] = from.head(REARRANGED, 5)?;
            let operand = |from: &mut Decoder| from.word().map(|operand| operand.checked_sub(1));
            let operands = from.items("operands that are rearranged", operands, 4, operand)?;
            let results = from.words("results that are rearranged", results)?;
            assembler.push_rearranged(of, num_operands, operands, results)
        }
        kind => return unexpected("the kind of a part", kind, "1 to 5"),
    };
    if part.is_err() {
        // What is wrong is the part as a whole.
        from.start_of_item = start;
    }
    part
}

fn name_from(from: &mut Decoder, is_named: u32) -> Found<Option<Arc<str>>> {
    match is_named {
        0 => Ok(None),
        1 => from.text().map(|name| Some(name.into())),
        word => unexpected("whether there is a name", word, "0 or 1"),
    }
}

fn loop_from(from: &mut Decoder) -> Found<LoopParts> {
    let head = from.head(LOOP, 12)?;
    let [_, body, num_operands, inputs, outputs, initial, summed, is_named, low, high, ..] = head;
    let long = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let (count, num_listed) = (long(low, high), long(head[10], head[11]));
    let summed = match summed {
        0 | 1 => summed == 1,
        word => return unexpected("whether results are added up", word, "0 or 1"),
    };
    let name = name_from(from, is_named)?;
    let mut inputs = from.items("inputs of a body", inputs, 24, |from| {
        let (kind, place) = (from.word()?, from.word()?);
        let (first, stride) = (from.long()? as i64, from.long()? as i64);
        match (kind, place, first, stride) {
            (0, _, 0, 0) => Ok(Source::Carry(place)),
            (1, 0, ..) => Ok(Source::Argument(Column::Strided { first, stride })),
            (2, 0, 0, 0) => Ok(listed(Vec::new())),
            _ => unexpected("what an input of a body is", format!("kind {kind}"), "0, 1 or 2 and its numbers alone"),
        }
    })?;
    let outputs = from.items("outputs of a body", outputs, 8, |from| match (from.word()?, from.word()?) {
        (0, place) => Ok(Target::Carry(place)),
        (1, place) => Ok(Target::Out(place)),
        (kind, _) => unexpected("what an output of a body is", kind, "0 or 1"),
    })?;
    let initial = from.words("numbers of a state", initial)?;
    let mut left = num_listed;
    for input in &mut inputs {
        if let Source::Argument(Column::Listed(_)) = input {
            // Each list has a place for every iteration.
            let (Ok(places), Some(rest)) = (u32::try_from(count), left.checked_sub(count)) else {
                return unexpected("places of arguments", left, format!("{count} for each list"));
            };
            left = rest;
            *input = listed(from.words("places of an argument", places)?);
        }
    }
    if left != 0 {
        return unexpected("places of arguments that belong to no list", left, 0);
    }
    Ok(LoopParts { body, name, num_operands, inputs, outputs, initial, count, summed })
}

fn list_from(from: &mut Decoder, tables: &Tables, assembler: &mut Assembler) -> Found<()> {
    let start = from.start_of_item;
    let head = from.head(LIST, 11)?;
    let [_, num_inputs, num_params, constants, rows, operands, outputs, functions, locations, guards, escapes, ..] =
        head;
    let mut data = TapeData { output_letter: letter(&from.text()?)?, ..TapeData::default() };
    data.constants = from.numbers("constants", constants)?;
    (data.num_inputs, data.input_names) = input_names_from(from, num_inputs)?;
    (data.num_params, data.param_names) = param_names_from(from, num_params)?;
    data.locations = from.items("places in the code", locations, PLACE, |from| place_from(from, tables))?;
    data.functions = from.items("functions", functions, 4, |from| {
        let number = from.word()?;
        assembler.function(number)
    })?;
    let first_row = from.offset;
    rows_from(from, tables, rows, operands, &mut data)?;
    data.outputs = from.words("outputs", outputs)?;
    data.guards = from.items("guards", guards, GUARD, |from| guard_from(from, tables))?;
    data.escapes = from.items("escapes", escapes, ESCAPE, |from| {
        let (operand, value) = (from.word()?, f64::from_bits(from.long()?));
        let escape = Escape { operand, value, location: place_from(from, tables)?, name: unnamed() };
        from.padding().map(|()| escape)
    })?;
    let made = assembler.push_list(data);
    from.start_of_item = match made {
        Err(TapeFileProblem::Malformed { row: Some(row), .. }) => first_row + 12 * row as u64,
        _ => start,
    };
    made
}

fn input_names_from(from: &mut Decoder, count: u32) -> Found<(usize, Vec<Name>)> {
    from.begin();
    let count = from.expect_items("inputs", count, 4)?;
    let mut names = Vec::new();
    for input in 0..count {
        let kind = from.word()?;
        if kind == 0 && names.is_empty() {
            continue;
        }
        if input == 0 {
            names = room(from.expect_items("names of inputs", count as u32, 4 * 3 + TEXT)?)?;
        }
        let start = from.start_of_item;
        let accent = match from.word()? {
            0 => Accent::None,
            1 => Accent::Dot,
            2 => Accent::Bar,
            word => return unexpected("what stands over a name", word, "0, 1 or 2"),
        };
        let (index, text) = (from.long()?, from.text()?);
        from.start_of_item = start;
        let kind = match kind {
            1 => NameKind::Given,
            2 => NameKind::Indexed,
            3 => NameKind::Letter,
            _ => return unexpected("the kind of a name", kind, "0 for all inputs, or 1 to 3 for each"),
        };
        names.push(NameParts { kind, text, accent, index: index as i64 }.name()?);
    }
    Ok((count, names))
}

fn param_names_from(from: &mut Decoder, count: u32) -> Found<(usize, Vec<String>)> {
    from.begin();
    let count = from.expect_items("parameters", count, 4)?;
    let mut names = Vec::new();
    for param in 0..count {
        let is_named = from.flag("whether a parameter has a name")?;
        if param == 0 && is_named {
            names = room(from.expect_items("names of parameters", count as u32, TEXT)?)?;
        }
        match (is_named, names.len() == param) {
            (true, true) => names.push(from.text()?),
            (false, _) if names.is_empty() => {}
            _ => return unexpected("the name of a parameter", "one for some", "one for all or none"),
        }
    }
    Ok((count, names))
}

fn place_from(from: &mut Decoder, tables: &Tables) -> Found<SourceLocation> {
    let file = from.word()?;
    let Some(file) = tables.sources.get(file as usize) else {
        return unexpected("the number of a file of code", file, format!("less than {}", tables.sources.len()));
    };
    let line = from.word()?;
    Ok(SourceLocation::loaded(file.clone(), line, from.flag("whether a place is the nearest known")?))
}

fn guard_from(from: &mut Decoder, tables: &Tables) -> Found<Guard> {
    let question = from.word()?;
    let Some(&question) = Question::ALL.get(question as usize) else {
        return unexpected("the question of a guard", question, format!("less than {}", Question::ALL.len()));
    };
    let operands = [from.word()?, from.word()?];
    let start = from.offset;
    let (kind, is_some, number) = (from.word()?, from.flag("whether there is an answer")?, from.long()? as i64);
    from.start_of_item = start;
    let ordering = || match number {
        -1 => Some(std::cmp::Ordering::Less),
        0 => Some(std::cmp::Ordering::Equal),
        1 => Some(std::cmp::Ordering::Greater),
        _ => None,
    };
    let answer = match (kind, is_some, number) {
        (0, true, 0 | 1) => Answer::Bool(number == 1),
        (1, true, -1..=1) => Answer::Ordering(ordering()),
        (1, false, 0) => Answer::Ordering(None),
        (2, true, _) => Answer::Integer(Some(number)),
        (2, false, 0) => Answer::Integer(None),
        _ => return unexpected("an answer", format!("{number} of kind {kind}"), "one of the kind"),
    };
    let location = place_from(from, tables)?;
    from.padding()?;
    Ok(Guard { question, operands, answer, location, names: [unnamed(), unnamed()] })
}

/// The rows, and the operands of those that do not hold them, which lie one
/// after the other, each call's behind the number of its function.
fn rows_from(from: &mut Decoder, tables: &Tables, rows: u32, operands: u32, data: &mut TapeData) -> Found<()> {
    from.begin();
    let count = from.expect_items("rows", rows, 12)?;
    data.rows = room(count)?;
    let (mut functions, mut next) = (Vec::new(), 0_u64);
    for number in 0..count {
        from.begin();
        let bytes: [u8; 12] = from.bytes()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let [head, a, b] = [word(0), word(4), word(8)];
        let Some(&op) = tables.operations.get((head & 0xFF) as usize) else {
            return unexpected(
                "the number of an operation",
                format!("{} for {}", head & 0xFF, row_text(number, None)),
                format!("less than {}, since so many operations stand at the beginning", tables.operations.len()),
            );
        };
        let (in_row, location) = ((head >> 8 & 3) as usize, head >> 10);
        data.rows.push(match (in_row, a, b) {
            (0, 0, 0) | (1, _, 0) | (2, ..) => Row::new(op, location, in_row, [a, b]),
            (3, ..) if b == 0 || op == Op::Call => {
                if op == Op::Call {
                    if functions.len() == functions.capacity() {
                        // As much again, so that a long list is not copied for each call.
                        more_room(&mut functions)?;
                    }
                    functions.push(b);
                    next += 1;
                }
                let start = next;
                next += u64::from(a);
                match u32::try_from(next) {
                    Ok(next) if u64::from(next) <= MOST => Row::wide(op, location, start as u32, a),
                    _ => return Err(TapeFileProblem::TooMany { what: "operands", found: next, most: MOST }),
                }
            }
            _ => {
                let row = row_text(number, Some(op.info().name));
                let expected = "zeros behind the operands that it has";
                return unexpected(
                    "the operands of a row",
                    format!("{in_row} for {row}, the words {a} and {b}"),
                    expected,
                );
            }
        });
    }
    from.begin();
    let count = from.expect_items("operands", operands, 4)?;
    if next != (count + functions.len()) as u64 {
        return unexpected("the operands of all rows", next - functions.len() as u64, count);
    }
    data.wide = room(count + functions.len())?;
    let mut functions = functions.into_iter();
    for row in data.rows.iter().filter(|row| row.inline_operands().is_none()) {
        if row.op() == Op::Call {
            data.wide.extend(functions.next());
        }
        for _ in 0..row.num_wide() {
            data.wide.push(from.word()?);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Counts that no word holds, and those that no file may have, are errors
    /// before anything is written.
    #[test]
    fn what_cannot_be_counted_is_not_written() {
        // No more than this of anything in these tests.
        let most = MOST as usize;
        let tape = |name_len: usize| {
            let name = "n".repeat(name_len);
            Tape::builder().inputs(&[&name], &[1.0]).record(|x, _| x[0] * x[0]).unwrap()
        };
        let named = |len: usize| Tape::record(&[1.0], |x| x[0] * x[0]).unwrap().named(&"n".repeat(len));
        for tape in [tape(most), named(most)] {
            let mut bytes = Vec::new();
            tape.write_to(&mut bytes).unwrap();
            assert_eq!(Tape::read_from(&bytes[..]).unwrap().content_hash(), tape.content_hash());
        }
        for tape in [tape(most + 1), named(most + 1)] {
            let mut bytes = Vec::new();
            let error = tape.write_to(&mut bytes).unwrap_err();
            let expected = Error::TooLargeForFile { what: "bytes of a text", found: MOST + 1, limit: MOST };
            assert_eq!(error, expected);
            assert!(bytes.is_empty());
        }
        let mut counted = Encoder::new(None);
        counted.count("things", most);
        assert_eq!(counted.too_many, None);
        counted.count("things", most + 1);
        counted.count("others", usize::MAX);
        assert_eq!(counted.too_many, Some(("things", MOST + 1)));
    }
}
