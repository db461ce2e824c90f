//! What a doubtful reader asks of a tape: which numbers are baked in, where a
//! result went non-finite, whether the derivatives are right, and what changed
//! since the last version.
//!
//! Nothing here is fast or needs to be. All of it but the self-check, which sweeps
//! once for each output, is linear in the tape, or nearly so, and none of it recurses
//! but into functions that are called, which are nested to a bounded depth.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::formula::{Accent, DIGITS, Formulas, Name, Script};
use crate::function::{Function, Given, Loop, Taken};
use crate::ops::Op;
use crate::record::{Guard, SourceLocation};
use crate::replay::{self, Workspace};
use crate::rule::Rule;
use crate::tape::{Tape, TapeData};

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

// What identifies a tape.

/// The hash FNV-1a with 128 bits.
pub(crate) struct Fnv(u128);

impl Fnv {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Fnv::PRIME);
        }
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.bytes(&(count as u64).to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    fn texts(&mut self, texts: impl ExactSizeIterator<Item = String>) {
        self.count(texts.len());
        texts.for_each(|text| self.text(&text));
    }

    fn operands(&mut self, data: &TapeData, operands: &[u32]) {
        self.count(operands.len());
        for &operand in operands {
            match (operand as usize).checked_sub(data.first_input()) {
                None => {
                    self.bytes(b"c");
                    self.bytes(&constant_bits(data, operand).to_le_bytes());
                }
                Some(variable) => {
                    self.bytes(b"v");
                    self.count(variable);
                }
            }
        }
    }
}

/// The bits of a constant; all NaN are one, since their bits differ between processors.
fn constant_bits(data: &TapeData, index: u32) -> u64 {
    number_bits(data.constants[index as usize])
}

fn number_bits(value: f64) -> u64 {
    if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() }
}

/// The hashes of functions and of the tapes that they run, each computed once.
#[derive(Default)]
pub(crate) struct Contents {
    functions: HashMap<*const (), u128>,
    tapes: HashMap<*const TapeData, u128>,
}

impl Contents {
    pub(crate) fn function(&mut self, function: &Function) -> u128 {
        if let Some(&known) = self.functions.get(&function.address()) {
            return known;
        }
        let mut hash = Fnv(Fnv::OFFSET);
        hash.text("ad-core function 1");
        function.write_content(&mut hash, self);
        self.functions.insert(function.address(), hash.0);
        hash.0
    }

    /// A tape that a function runs, with the values that its parameters have.
    pub(crate) fn write_body(&mut self, body: &Tape, hash: &mut Fnv) {
        hash.bytes(&self.tape(&body.data).to_le_bytes());
        hash.count(body.params.len());
        body.params.iter().for_each(|&k| hash.bytes(&number_bits(k).to_le_bytes()));
    }

    fn tape(&mut self, data: &Arc<TapeData>) -> u128 {
        if let Some(&known) = self.tapes.get(&Arc::as_ptr(data)) {
            return known;
        }
        let mut hash = Fnv(Fnv::OFFSET);
        hash.text("ad-core tape 1");
        hash.count(data.num_inputs);
        hash.count(data.num_params);
        hash.texts(data.input_names.iter().map(Name::to_string));
        hash.texts(data.param_names.iter().cloned());
        hash.count(data.num_rows());
        for row in 0..data.num_rows() {
            hash.text(data.op(row).info().name);
            if let Some(function) = data.function(row) {
                hash.bytes(&self.function(function).to_le_bytes());
            }
            hash.operands(data, data.operands(row));
        }
        hash.count(data.guards.len());
        for guard in &data.guards {
            hash.text(guard.question().word());
            hash.operands(data, &guard.operands[..guard.question().operands()]);
            hash.text(&guard.answer().to_string());
        }
        hash.operands(data, &data.outputs);
        self.tapes.insert(Arc::as_ptr(data), hash.0);
        hash.0
    }
}

impl Tape {
    /// A number that two tapes share if they state the same function in the
    /// same rows: to see whether a model changed, or to name a file in a cache.
    /// Print it by `{:032x}`.
    ///
    /// It does not depend on the machine or the version of Rust. Locations,
    /// escapes and the current values of the parameters are left out: moving code
    /// or [`Tape::with_params`] leaves it as it is. [`Tape::diff`] of two tapes is
    /// empty exactly if they share it (but for accidents, 1 in 2¹²⁸).
    ///
    /// It is FNV-1a with 128 bits over these bytes; a *count* is a number of 8
    /// bytes, the lowest first, and a *text* the count of its bytes and they
    /// themselves, in UTF-8:
    ///
    /// 1. the text `ad-core tape 1`; the counts of inputs and of parameters; the
    ///    count of the names of inputs (0 if none were given) and each as a text;
    ///    those of parameters in the same way;
    /// 2. the count of rows, and for each the name of its operation as a text and
    ///    its operands; between these, for a row that calls a function, the 16 bytes
    ///    of the function's own hash, the lowest first;
    /// 3. the count of guards, and for each the question as a text (`<`, `<=`,
    ///    `>`, `>=`, `==`, `!=`, `partial_cmp`, `is_nan`, `is_finite`,
    ///    `is_infinite`, `is_sign_negative`, `to_i64`, `is_normal`, `is_subnormal`), its operands, and the
    ///    answer as a text (as [`Answer`](crate::Answer) prints it);
    /// 4. the outputs as operands.
    ///
    /// *Operands* are their count, and for each either the byte `c` and the 8 bytes
    /// of a constant (a NaN as `7ff8000000000000`), the lowest first, or the byte
    /// `v` and the count that numbers inputs, parameters and rows from 0.
    ///
    /// The hash of a function covers what it runs: of a loop its body, the values of
    /// the body's parameters, the iterations and the places of the arguments; of
    /// an [`Implicit`](crate::Implicit) its equations, not the solver; of a
    /// [`Custom`](crate::Custom) its name and shape, since code has no content.
    /// Names of tapes are left out.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let square = Tape::record(&[2.0], |x| x[0] * x[0])?;
    /// let elsewhere = Tape::record(&[7.0], |x| x[0] * x[0])?;
    /// let cube = Tape::record(&[2.0], |x| x[0] * x[0] * x[0])?;
    /// assert_eq!(square.content_hash(), elsewhere.content_hash());
    /// assert_ne!(square.content_hash(), cube.content_hash());
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn content_hash(&self) -> u128 {
        Contents::default().tape(&self.data)
    }
}

// What changed.

/// What a [`Difference`] concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// An input.
    Input,
    /// A parameter.
    Parameter,
    /// A literal that only one of the tapes has.
    Constant,
    /// A row.
    Row,
    /// A guard.
    Guard,
    /// An output.
    Output,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Input => "input",
            Part::Parameter => "parameter",
            Part::Constant => "constant",
            Part::Row => "row",
            Part::Guard => "guard",
            Part::Output => "output",
        })
    }
}

/// One difference between two tapes; from [`Tape::diff`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs.
    pub part: Part,
    /// As the old tape prints it; none if it was added.
    pub old: Option<String>,
    /// As the new tape prints it; none if it was removed.
    pub new: Option<String>,
    /// Where it stands in the code of the old tape, if it is a row or a guard.
    pub old_location: Option<SourceLocation>,
    /// Where it stands in the code of the new tape, if it is a row or a guard.
    pub new_location: Option<SourceLocation>,
}

/// What changed from one tape to another; from [`Tape::diff`].
///
/// `Display` prints it like a unified diff of the two printed lists, with up to
/// two unchanged lines around each change, named as in the new tape.
#[derive(Debug, Clone, PartialEq)]
pub struct TapeDiff {
    differences: Vec<Difference>,
    text: String,
}

impl TapeDiff {
    /// Whether the tapes are the same in what [`Tape::content_hash`] covers.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }

    /// The differences: inputs, parameters, constants, rows, guards, outputs.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }
}

impl fmt::Display for TapeDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Two lists brought side by side: an entry of the old one, of the new one, or of both.
type Alignment = Vec<(Option<usize>, Option<usize>)>;

/// Stirs a number into a hash.
fn mix(hash: u64, number: u64) -> u64 {
    let z = (hash.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z ^ z >> 29
}

fn mix_text(text: &str) -> u64 {
    text.bytes().fold(text.len() as u64, |hash, byte| mix(hash, u64::from(byte)))
}

/// The entries that occur in both lists, the k-th occurrence with the k-th: the
/// longest run of them in which both sides ascend.
fn anchors(old: &[u64], new: &[u64]) -> Vec<(usize, usize)> {
    let mut places: HashMap<u64, (usize, Vec<usize>)> = HashMap::new();
    for (j, &token) in new.iter().enumerate() {
        places.entry(token).or_default().1.push(j);
    }
    // For each length the end of a run of that length that leaves most room, and
    // for each pair the one before it.
    let mut pairs: Vec<(usize, usize, Option<usize>)> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    for (i, token) in old.iter().enumerate() {
        let Some((used, places)) = places.get_mut(token) else { continue };
        let Some(&j) = places.get(*used) else { continue };
        *used += 1;
        let length = ends.partition_point(|&end| pairs[end].1 < j);
        pairs.push((i, j, length.checked_sub(1).map(|shorter| ends[shorter])));
        match ends.get_mut(length) {
            Some(end) => *end = pairs.len() - 1,
            None => ends.push(pairs.len() - 1),
        }
    }
    let mut run = Vec::new();
    let mut next = ends.last().copied();
    while let Some(pair) = next {
        let (i, j, before) = pairs[pair];
        run.push((i, j));
        next = before;
    }
    run.reverse();
    run
}

/// The longest common subsequence by the fewest insertions and removals, unless
/// there are more than a limit.
///
/// Source: Myers, An O(ND) difference algorithm and its variations (1986).
fn shortest_edit(old: &[u64], new: &[u64]) -> Option<Vec<(usize, usize)>> {
    const LIMIT: usize = 512;
    let (n, m) = (old.len() as isize, new.len() as isize);
    let limit = LIMIT.min(old.len() + new.len()) as isize;
    let at = |diagonal: isize| (diagonal + limit + 1) as usize;
    let mut furthest = vec![0isize; 2 * limit as usize + 3];
    // For each number of edits how far each diagonal reached before.
    let mut history: Vec<Vec<isize>> = Vec::new();
    let down = |furthest: &dyn Fn(isize) -> isize, k: isize, d: isize| {
        k == -d || (k != d && furthest(k - 1) < furthest(k + 1))
    };
    for d in 0..=limit {
        history.push(furthest[at(-d - 1)..=at(d + 1)].to_vec());
        for k in (-d..=d).step_by(2) {
            let reach = |k: isize| furthest[at(k)];
            let mut x = if down(&reach, k, d) { reach(k + 1) } else { reach(k - 1) + 1 };
            while x < n && x - k < m && old[x as usize] == new[(x - k) as usize] {
                x += 1;
            }
            furthest[at(k)] = x;
            if x < n || x - k < m {
                continue;
            }
            let (mut x, mut y) = (n, m);
            let mut pairs = Vec::new();
            for d in (0..=d).rev() {
                let reach = |k: isize| history[d as usize][(k + d + 1) as usize];
                let k = x - y;
                let before = if down(&reach, k, d) { k + 1 } else { k - 1 };
                let (start_x, start_y) = if d == 0 { (0, 0) } else { (reach(before), reach(before) - before) };
                while x > start_x && y > start_y {
                    (x, y) = (x - 1, y - 1);
                    pairs.push((x as usize, y as usize));
                }
                (x, y) = (start_x, start_y);
            }
            pairs.reverse();
            return Some(pairs);
        }
    }
    None
}

/// Pairs of entries with equal tokens, both sides ascending.
fn common(old: &[u64], new: &[u64]) -> Vec<(usize, usize)> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[prefix..], &new[prefix..]);
    let suffix = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old_rest[..old_rest.len() - suffix], &new_rest[..new_rest.len() - suffix]);
    let middle = shortest_edit(old_rest, new_rest).unwrap_or_else(|| anchors(old_rest, new_rest));
    let ends = (old.len() - suffix..old.len()).zip(new.len() - suffix..new.len());
    (0..prefix).map(|i| (i, i)).chain(middle.into_iter().map(|(i, j)| (i + prefix, j + prefix))).chain(ends).collect()
}

/// Brings two lists side by side: first what is equal in depth, between that
/// what looks alike, and what is left over in pairs from its end, since the last
/// row of a piece of code holds its result.
fn align(old: [&[u64]; 2], new: [&[u64]; 2]) -> Alignment {
    let ([old_deep, old_shallow], [new_deep, new_shallow]) = (old, new);
    let mut alignment = Vec::new();
    let (mut i, mut j) = (0, 0);
    let gap = |alignment: &mut Alignment, olds: Range<usize>, news: Range<usize>| {
        let pairs = common(&old_shallow[olds.clone()], &new_shallow[news.clone()]);
        let (mut i, mut j) = (olds.start, news.start);
        let ends = pairs.iter().map(|&(a, b)| (a + olds.start, b + news.start)).chain([(olds.end, news.end)]);
        for (a, b) in ends {
            let both = (a - i).min(b - j);
            alignment.extend((i..a - both).map(|i| (Some(i), None)));
            alignment.extend((j..b - both).map(|j| (None, Some(j))));
            alignment.extend((a - both..a).zip(b - both..b).map(|(i, j)| (Some(i), Some(j))));
            if (a, b) != (olds.end, news.end) {
                alignment.push((Some(a), Some(b)));
            }
            (i, j) = (a + 1, b + 1);
        }
    };
    for (a, b) in anchors(old_deep, new_deep) {
        gap(&mut alignment, i..a, j..b);
        alignment.push((Some(a), Some(b)));
        (i, j) = (a + 1, b + 1);
    }
    gap(&mut alignment, i..old_deep.len(), j..new_deep.len());
    alignment
}

/// One of two tapes that are compared.
struct Side<'a> {
    data: &'a TapeData,
    /// For each value a hash of the whole computation that leads to it; for
    /// inputs and parameters one that it shares with its partner in the other tape.
    deep: Vec<u64>,
    /// The hashes of the functions that rows call.
    functions: Vec<u128>,
}

impl<'a> Side<'a> {
    fn new(data: &'a TapeData) -> Side<'a> {
        let constants = (0..data.constants.len()).map(|index| mix(1, constant_bits(data, index as u32)));
        let mut contents = Contents::default();
        let functions = data.functions.iter().map(|function| contents.function(function)).collect();
        Side { data, deep: constants.collect(), functions }
    }

    /// The hash of the function that a row calls.
    fn function(&self, row: usize) -> Option<u128> {
        (self.data.op(row) == Op::Call).then(|| self.functions[self.data.function_number(row) as usize])
    }

    /// The names of inputs or parameters; by position where none were given.
    fn name_tokens(&self, values: Range<usize>) -> Vec<u64> {
        values.map(|value| mix_text(&self.data.variable_name(value).to_string())).collect()
    }

    /// Fills in the hashes of the rows once those of inputs and parameters are known.
    fn hash_rows(&mut self) {
        let mut of_head = 0;
        for row in 0..self.data.num_rows() {
            let (head, result) = self.data.head(row);
            if result == 0 {
                let operands = self.data.operands(head).iter().map(|&operand| self.deep[operand as usize]);
                let function = self.function(head).unwrap_or(0);
                let name = mix_text(self.data.op(head).info().name);
                of_head = operands.fold(mix(mix(name, function as u64), (function >> 64) as u64), mix);
            }
            self.deep.push(mix(of_head, result as u64));
        }
    }

    /// What the operands look like apart from which rows they are.
    fn look(&self, hash: u64, operands: &[u32]) -> u64 {
        let first_row = self.data.first_row();
        operands.iter().fold(mix(hash, operands.len() as u64), |hash, &operand| {
            mix(hash, if (operand as usize) < first_row { self.deep[operand as usize] } else { 0 })
        })
    }

    fn row_looks(&self) -> Vec<u64> {
        let look = |row: usize| {
            let name = match self.data.function(row) {
                Some(function) => mix_text(&function.to_string()),
                None => mix_text(self.data.op(row).info().name),
            };
            self.look(name, self.data.operands(row))
        };
        (0..self.data.num_rows()).map(look).collect()
    }

    fn guard_hash(guard: &Guard) -> u64 {
        mix(mix_text(guard.question().word()), mix_text(&guard.answer().to_string()))
    }

    fn guard_looks(&self) -> Vec<u64> {
        self.data.guards.iter().map(|guard| self.look(Self::guard_hash(guard), asked(guard))).collect()
    }

    fn guard_depths(&self) -> Vec<u64> {
        let deep = |guard: &Guard| {
            asked(guard).iter().fold(Self::guard_hash(guard), |hash, &operand| mix(hash, self.deep[operand as usize]))
        };
        self.data.guards.iter().map(deep).collect()
    }

    fn text(&self, part: Part, index: usize, digits: usize) -> String {
        let data = self.data;
        let render = |value: usize| data.value_name(value, Accent::None).render(Script::Unicode, digits);
        match part {
            Part::Input => {
                let value = data.first_input() + index;
                format!("{} = {}", render(value), data.variable_name(value))
            }
            Part::Parameter => format!("{} = parameter", render(data.first_param() + index)),
            Part::Row => {
                let formulas = Formulas::new();
                let formula = data.row_formula(index, &formulas).render(Script::Unicode, digits);
                format!("{} = {formula}", render(data.first_row() + index))
            }
            Part::Guard => data.guards[index].text(digits),
            Part::Output => format!("{} = {}", data.output_name(index), render(data.outputs[index] as usize)),
            Part::Constant => exact(data.constants[index]),
        }
    }

    fn location(&self, part: Part, index: usize) -> Option<SourceLocation> {
        match part {
            Part::Row => self.data.known_location(index),
            Part::Guard => Some(self.data.guards[index].location().clone()).filter(SourceLocation::is_known),
            _ => None,
        }
    }
}

/// The operands that a guard looks at.
fn asked(guard: &Guard) -> &[u32] {
    &guard.operands[..guard.question().operands()]
}

impl Tape {
    /// What changed from this tape to `other`, as a reviewer of a model change
    /// reads it: inputs, parameters, literals, rows, guards, outputs.
    ///
    /// A row whose number alone changed is no difference: operands are compared
    /// by the rows they stand for. Rows are brought side by side by what they
    /// compute, then by what they look like; for long tapes with more than a few
    /// hundred changes in one place the result is right, but may not be the shortest.
    ///
    /// Locations, escapes and the current values of the parameters are not compared.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let old = Tape::record(&[2.0, 4.0], |x| x[0].sin() * x[1] + 2.0)?;
    /// let new = Tape::record(&[2.0, 4.0], |x| x[0].sin() * x[1].sqrt() + 3.0)?;
    /// assert_eq!(old.diff(&new).to_string(), "\
    /// --- 2 inputs, 0 parameters, 3 rows, 0 guards, 1 output
    /// +++ 2 inputs, 0 parameters, 4 rows, 0 guards, 1 output
    /// @@ constants @@
    /// - 2
    /// + 3
    /// @@ rows @@
    ///   v₁ = sin(v₋₁)
    /// - v₂ = v₁·v₀
    /// - v₃ = v₂ + 2
    /// + v₂ = sqrt(v₀)
    /// + v₃ = v₁·v₂
    /// + v₄ = v₃ + 3
    /// ");
    /// assert!(old.diff(&old).is_empty());
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// A row that calls another function than before is a difference; where both
    /// functions run tapes, what changed in these stands below the rows.
    pub fn diff(&self, other: &Tape) -> TapeDiff {
        self.diff_but(other, &mut HashSet::new())
    }

    /// Pairs of bodies that were compared already are left out.
    fn diff_but(&self, other: &Tape, compared: &mut HashSet<[*const TapeData; 2]>) -> TapeDiff {
        let mut sides = [Side::new(&self.data), Side::new(&other.data)];
        let mut diff = DiffWriter { differences: Vec::new(), text: String::new() };
        // For each value of the old tape its partner in the new one.
        let mut partners: Vec<Option<u32>> = vec![None; self.data.num_values()];

        let variables = |data: &TapeData, part| match part {
            Part::Input => data.first_input()..data.first_param(),
            _ => data.first_param()..data.first_row(),
        };
        for part in [Part::Input, Part::Parameter] {
            let ranges = [0, 1].map(|side: usize| variables(sides[side].data, part));
            let names = [0, 1].map(|side: usize| sides[side].name_tokens(ranges[side].clone()));
            let [old, new] = &names;
            let alignment = align([old, old], [new, new]);
            let mut hashes = names.each_ref().map(|names| vec![0; names.len()]);
            for (position, &(i, j)) in alignment.iter().enumerate() {
                let hash = mix(mix(2, part as u64), position as u64);
                for (side, index) in [i, j].into_iter().enumerate() {
                    if let Some(index) = index {
                        hashes[side][index] = hash;
                    }
                }
                if let (Some(i), Some(j)) = (i, j) {
                    partners[ranges[0].start + i] = Some((ranges[1].start + j) as u32);
                }
            }
            for (side, hashes) in sides.iter_mut().zip(hashes) {
                side.deep.extend(hashes);
            }
            // Unnamed inputs that moved keep their names, and named ones are who they are.
            let same = |i: usize, j: usize| names[0][i] == names[1][j] && given(&sides, part);
            diff.section(&sides, part, &alignment, same);
        }
        let literals = sides.each_ref().map(|side| side.deep[..side.data.constants.len()].to_vec());
        let [old, new] = literals.each_ref().map(|tokens| tokens.iter().copied().collect::<HashSet<u64>>());
        let removed = (0..literals[0].len()).filter(|&i| !new.contains(&literals[0][i])).map(|i| (Some(i), None));
        let added = (0..literals[1].len()).filter(|&j| !old.contains(&literals[1][j])).map(|j| (None, Some(j)));
        let alignment: Alignment = removed.chain(added).collect();
        diff.section(&sides, Part::Constant, &alignment, |_, _| true);

        sides.iter_mut().for_each(Side::hash_rows);
        let first_rows = sides.each_ref().map(|side| side.data.first_row());
        let looks = sides.each_ref().map(Side::row_looks);
        let alignment =
            align([&sides[0].deep[first_rows[0]..], &looks[0]], [&sides[1].deep[first_rows[1]..], &looks[1]]);
        for &(i, j) in &alignment {
            if let (Some(i), Some(j)) = (i, j) {
                partners[first_rows[0] + i] = Some((first_rows[1] + j) as u32);
            }
        }
        let [old, new] = sides.each_ref().map(|side| side.data);
        let same_operand =
            |&a: &u32, &b: &u32| match ((a as usize) < old.first_input(), (b as usize) < new.first_input()) {
                (true, true) => constant_bits(old, a) == constant_bits(new, b),
                (false, false) => partners[a as usize] == Some(b),
                _ => false,
            };
        let same_operands =
            |a: &[u32], b: &[u32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_operand(a, b));
        diff.section(&sides, Part::Row, &alignment, |i, j| {
            old.op(i) == new.op(j)
                && sides[0].function(i) == sides[1].function(j)
                && same_operands(old.operands(i), new.operands(j))
        });
        for &(i, j) in &alignment {
            let (Some(i), Some(j)) = (i, j) else { continue };
            let (Some(old_function), Some(new_function)) = (old.function(i), new.function(j)) else { continue };
            let (Some(before), Some(after)) = (old_function.body(), new_function.body()) else { continue };
            if sides[0].function(i) == sides[1].function(j)
                || !compared.insert([Arc::as_ptr(&before.data), Arc::as_ptr(&after.data)])
            {
                continue;
            }
            let of_bodies = before.diff_but(after, compared);
            if !of_bodies.is_empty() {
                let row = new.value_name(new.first_row() + j, Accent::None);
                let _ = writeln!(diff.text, "@@ {}, called by {row} @@", new_function.call_name().name);
                of_bodies.text.lines().for_each(|line| diff.text += &format!("  {line}\n"));
            }
        }

        let looks = sides.each_ref().map(Side::guard_looks);
        let depths = sides.each_ref().map(Side::guard_depths);
        let alignment = align([&depths[0], &looks[0]], [&depths[1], &looks[1]]);
        diff.section(&sides, Part::Guard, &alignment, |i, j| {
            let (a, b) = (&old.guards[i], &new.guards[j]);
            a.question() == b.question() && a.answer() == b.answer() && same_operands(asked(a), asked(b))
        });

        let longer = old.outputs.len().max(new.outputs.len());
        let within = |index: usize, data: &TapeData| (index < data.outputs.len()).then_some(index);
        let alignment: Alignment = (0..longer).map(|i| (within(i, old), within(i, new))).collect();
        diff.section(&sides, Part::Output, &alignment, |i, j| same_operand(&old.outputs[i], &new.outputs[j]));
        diff.finish(&sides)
    }
}

/// Whether both tapes have names for their inputs or parameters, or neither has.
fn given(sides: &[Side<'_>; 2], part: Part) -> bool {
    let [old, new] = sides.each_ref().map(|side| match part {
        Part::Input => side.data.input_names.is_empty(),
        _ => side.data.param_names.is_empty(),
    });
    old == new
}

struct DiffWriter {
    differences: Vec<Difference>,
    text: String,
}

impl DiffWriter {
    /// Unchanged lines that are shown on either side of a change.
    const CONTEXT: usize = 2;

    /// Notes what differs in one part; `same` decides on entries that stand side by side.
    fn section(
        &mut self,
        sides: &[Side<'_>; 2],
        part: Part,
        alignment: &Alignment,
        same: impl Fn(usize, usize) -> bool,
    ) {
        let differs = |&(i, j): &(Option<usize>, Option<usize>)| match (i, j) {
            (Some(i), Some(j)) => !same(i, j),
            _ => true,
        };
        let changed: Vec<bool> = alignment.iter().map(differs).collect();
        let Some(mut at) = changed.iter().position(|&changed| changed) else { return };
        let _ = writeln!(self.text, "@@ {part}s @@");
        let mut shown = 0;
        while at < changed.len() {
            let end = at + changed[at..].iter().take_while(|&&changed| changed).count();
            let start = shown.max(at.saturating_sub(Self::CONTEXT));
            if start > shown {
                self.text += "  …\n";
            }
            self.context(sides, part, &alignment[start..at]);
            self.change(sides, part, &alignment[at..end]);
            let next = changed[end..].iter().position(|&changed| changed).map_or(changed.len(), |next| end + next);
            shown = next.min(end + Self::CONTEXT);
            self.context(sides, part, &alignment[end..shown]);
            at = next;
        }
        if shown < changed.len() {
            self.text += "  …\n";
        }
    }

    fn context(&mut self, sides: &[Side<'_>; 2], part: Part, lines: &[(Option<usize>, Option<usize>)]) {
        for new in lines.iter().filter_map(|&(_, new)| new) {
            let _ = writeln!(self.text, "  {}", sides[1].text(part, new, DIGITS));
        }
    }

    fn change(&mut self, sides: &[Side<'_>; 2], part: Part, lines: &[(Option<usize>, Option<usize>)]) {
        let first = self.differences.len();
        for &(old, new) in lines {
            let texts = |digits| {
                [old, new]
                    .into_iter()
                    .zip(sides)
                    .map(|(index, side)| index.map(|index| side.text(part, index, digits)))
                    .collect::<SmallVec<[_; 2]>>()
            };
            let mut shown = texts(DIGITS);
            if shown[0] == shown[1] {
                shown = texts(ALL_DIGITS);
            }
            if let (true, Some(text)) = (shown[0] == shown[1], &mut shown[1]) {
                let functions = [(0, old), (1, new)].map(|(side, index): (usize, Option<usize>)| {
                    index.filter(|_| part == Part::Row).and_then(|index| sides[side].function(index))
                });
                let iterations = [(0, old), (1, new)].map(|(side, index): (usize, Option<usize>)| {
                    let data = sides[side].data;
                    let row = index.filter(|_| part == Part::Row).map(|index| data.head(index).0);
                    let function = row.and_then(|row| data.function(row));
                    function.map_or(String::new(), |function| function.iterations_text(Script::Unicode))
                });
                *text += &match functions[0] == functions[1] {
                    true => " (a name in it now means another value)".to_owned(),
                    false if iterations[0] == iterations[1] => " (it now calls another function)".to_owned(),
                    false => {
                        let [old, new] = iterations.map(|text| if text.is_empty() { "once".to_owned() } else { text });
                        format!(" (it ran {old}; now {new})")
                    }
                };
            }
            let location =
                |side: usize, index: Option<usize>| index.and_then(|index| sides[side].location(part, index));
            let [old_text, new_text] = [shown[0].take(), shown[1].take()];
            self.differences.push(Difference {
                part,
                old: old_text,
                new: new_text,
                old_location: location(0, old),
                new_location: location(1, new),
            });
        }
        let changes = &self.differences[first..];
        changes.iter().filter_map(|change| change.old.as_ref()).for_each(|old| self.text += &format!("- {old}\n"));
        changes.iter().filter_map(|change| change.new.as_ref()).for_each(|new| self.text += &format!("+ {new}\n"));
    }

    fn finish(self, sides: &[Side<'_>; 2]) -> TapeDiff {
        let [old, new] = sides.each_ref().map(|side| {
            let counts = [
                plural(side.data.num_inputs, "input"),
                plural(side.data.num_params, "parameter"),
                plural(side.data.num_rows(), "row"),
                plural(side.data.guards.len(), "guard"),
                plural(side.data.outputs.len(), "output"),
            ];
            counts.join(", ")
        });
        let text = match self.differences.is_empty() {
            true => "no differences\n".to_owned(),
            false => format!("--- {old}\n+++ {new}\n{}", self.text),
        };
        TapeDiff { differences: self.differences, text }
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

// Where it went wrong.

/// What became non-finite first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NonFinite {
    /// The value.
    Value,
    /// The tangent, of a finite value.
    Tangent,
    /// The adjoint, or what the row adds to the adjoint of an operand.
    Adjoint,
}

/// A value of a tape at a point, as [`Diagnosis`] shows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ValueAt {
    /// An input, a parameter, a constant or a row.
    pub part: Part,
    /// Its name, such as `v₁`; of a constant, the number.
    pub name: String,
    /// What it is: an elementary operation such as `ln(v₀)`, the name of an
    /// input, `parameter` or `constant`.
    pub operation: String,
    /// Its value.
    pub value: f64,
    /// Its tangent or adjoint; none for what depends on no input.
    pub derivative: Option<f64>,
    /// Where it stands in your code, if it is a row; for a constant, where it
    /// is first used.
    pub location: Option<SourceLocation>,
}

/// Where a result went non-finite; from [`Tape::diagnose`] and
/// [`Tape::diagnose_adjoint`]. `Display` tells it in a few lines.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What went non-finite: value, tangent or adjoint.
    pub what: NonFinite,
    /// The first row, input, parameter or constant that did; of an adjoint, the
    /// first in the order of the reverse sweep.
    pub origin: ValueAt,
    /// Its operands, all of them finite as far as they matter; the first eight.
    pub operands: Vec<ValueAt>,
    /// How many operands are left out.
    pub operands_omitted: usize,
    /// Why, in words.
    pub why: String,
    /// One chain of rows that led there: from an input to the origin; of an
    /// adjoint, from the origin on to an input whose adjoint is non-finite.
    /// A long one is cut in the middle.
    pub path: Vec<ValueAt>,
    /// How many rows of the chain are left out, after the first four.
    pub path_omitted: usize,
    /// What the caller sees of it: the names of the outputs, for an adjoint of
    /// the inputs, that are non-finite because of it or of something later; the
    /// first eight.
    pub reaches: Vec<String>,
    /// If the origin calls a tape: what happens inside of it. None if a carried
    /// number or a sum of finite terms overflows.
    pub inside: Option<Box<DiagnosisInside>>,
}

/// Where in a called tape a result went non-finite; in [`Diagnosis`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DiagnosisInside {
    /// The name of the function.
    pub function: String,
    /// The first iteration in which it happens, from 0, of an adjoint the last.
    pub iteration: usize,
    /// How many iterations there are.
    pub iterations: usize,
    /// What happens to the tape in this iteration.
    pub diagnosis: Diagnosis,
}

impl Diagnosis {
    /// Rows of a path that are shown before and after those left out.
    const PATH: [usize; 2] = [4, 8];
    const REACHES: usize = 8;
    const OPERANDS: usize = 8;

    fn value_text(&self, value: &ValueAt) -> String {
        let ValueAt { name, operation, .. } = value;
        let mut text = match value.part {
            Part::Constant => return format!("the constant {}", exact(value.value)),
            Part::Parameter => format!("{name} = {}", exact(value.value)),
            _ => format!("{name} = {operation} = {}", exact(value.value)),
        };
        if let (Some(derivative), true) = (value.derivative, self.what != NonFinite::Value) {
            let _ = write!(text, ", {} {}", self.word(), exact(derivative));
        }
        if let Some(location) = &value.location {
            let _ = write!(text, "  ({location})");
        }
        text
    }

    fn word(&self) -> &'static str {
        if self.what == NonFinite::Adjoint { "adjoint" } else { "tangent" }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ValueAt { name, operation, location, .. } = &self.origin;
        let (value, derivative) = (exact(self.origin.value), exact(self.origin.derivative.unwrap_or(0.0)));
        let at = location.as_ref().map(|location| format!(" at {location}")).unwrap_or_default();
        match self.what {
            NonFinite::Value if self.origin.part == Part::Constant => {
                writeln!(f, "the constant {value}{at} is not finite")?
            }
            NonFinite::Value => writeln!(f, "{name} = {operation} is {value}{at}")?,
            NonFinite::Tangent => writeln!(f, "the tangent of {name} = {operation} is {derivative}{at}")?,
            NonFinite::Adjoint if self.origin.derivative.is_some_and(f64::is_finite) => {
                writeln!(f, "{name} = {operation} passes on a non-finite adjoint{at}")?
            }
            NonFinite::Adjoint => writeln!(f, "the adjoint of {name} = {operation} is {derivative}{at}")?,
        }
        writeln!(f, "  {}", self.why)?;
        for operand in &self.operands {
            writeln!(f, "  with {}", self.value_text(operand))?;
        }
        if self.operands_omitted > 0 {
            writeln!(f, "  … {} more", plural(self.operands_omitted, "operand"))?;
        }
        if self.path.len() > 1 {
            writeln!(f, "the way {}:", if self.what == NonFinite::Adjoint { "from there" } else { "there" })?;
            for (i, value) in self.path.iter().enumerate() {
                if i == Self::PATH[0] && self.path_omitted > 0 {
                    writeln!(f, "  … {} more", plural(self.path_omitted, "row"))?;
                }
                writeln!(f, "  {}", self.value_text(value))?;
            }
        }
        let word = if self.what == NonFinite::Adjoint { "non-finite adjoints of inputs" } else { "non-finite outputs" };
        writeln!(f, "{word}: {}", self.reaches.join(", "))?;
        if let Some(inside) = &self.inside {
            writeln!(f, "inside of {}:", inside.place())?;
            inside.diagnosis.to_string().lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

impl DiagnosisInside {
    fn place(&self) -> String {
        match self.iterations {
            1 => self.function.clone(),
            iterations => format!("{}, iteration {} of {iterations}", self.function, self.iteration + 1),
        }
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

/// The first iteration whose outputs, those that are `wanted` or carried, are not finite
/// because of a row of the body.
fn inside_values(function: &Function, operands: &Pass, wanted: impl Fn(usize) -> bool) -> Option<DiagnosisInside> {
    let rolled = function.as_loop()?;
    let mut carry = Pass::initial(rolled, operands);
    for iteration in 0..rolled.count {
        let Pass { x, dx } = Pass::of_body(rolled, iteration, operands, &carry);
        let (y, dy) = rolled.body.jvp(&x, &dx).ok()?;
        let concerned = |output: usize| match rolled.given(output, iteration) {
            Given::Carry(_) => true,
            Given::Result(result) => wanted(result),
        };
        let finite = |output: usize| y[output].is_finite() && dy[output].is_finite();
        if (0..y.len()).any(|output| concerned(output) && !finite(output)) {
            let found = rolled.body.diagnose(&x, &dx).ok()?;
            if let Some(diagnosis) = found.filter(|found| found.origin.part != Part::Input) {
                let (function, iterations) = (function.to_string(), rolled.count);
                return Some(DiagnosisInside { function, iteration, iterations, diagnosis });
            }
        }
        carry.take_carry(rolled, iteration, &y, &dy);
    }
    None
}

/// The last iteration through which the adjoint of an operand that is `wanted`, or of
/// the carry, becomes non-finite for finite weights.
fn inside_adjoints(
    function: &Function,
    x: &[f64],
    weights: &[f64],
    wanted: impl Fn(usize) -> bool,
) -> Option<DiagnosisInside> {
    /// The most numbers that are kept to look for an iteration.
    const MOST: usize = 1 << 27;
    let rolled = function.as_loop()?;
    if rolled.count.saturating_mul(rolled.body.num_inputs()) > MOST {
        return None;
    }
    let operands = Pass { x: x.to_vec(), dx: vec![0.0; x.len()] };
    let mut carry = Pass::initial(rolled, &operands);
    let mut before = Vec::new();
    for iteration in 0..rolled.count {
        let inputs = Pass::of_body(rolled, iteration, &operands, &carry);
        let y = rolled.body.eval(&inputs.x).ok()?;
        carry.take_carry(rolled, iteration, &y, &vec![0.0; y.len()]);
        before.push(inputs.x);
    }
    let mut adjoint = weights[..rolled.initial().len()].to_vec();
    for (iteration, x) in before.iter().enumerate().rev() {
        let weight = |output: usize| match rolled.given(output, iteration) {
            Given::Carry(place) => adjoint[place],
            Given::Result(result) => weights[result],
        };
        let w: Vec<f64> = (0..rolled.body.num_outputs()).map(weight).collect();
        let xbar = rolled.body.vjp(x, &w).ok()?.1;
        let concerned = |input: usize| match rolled.taken(input, iteration) {
            Taken::Carry(_) => true,
            Taken::Operand(operand) => wanted(operand),
        };
        if (0..xbar.len()).any(|input| concerned(input) && !xbar[input].is_finite()) {
            let diagnosis = rolled.body.diagnose_adjoint(x, &w).ok()??;
            let (function, iterations) = (function.to_string(), rolled.count);
            return Some(DiagnosisInside { function, iteration, iterations, diagnosis });
        }
        for (input, &xbar) in xbar.iter().enumerate() {
            if let Taken::Carry(place) = rolled.taken(input, iteration) {
                adjoint[place] = xbar;
            }
        }
    }
    None
}

/// The sweeps at a point, of which the first non-finite number is wanted.
struct Patient<'a> {
    tape: &'a Tape,
    what: NonFinite,
    values: &'a [f64],
    /// The tangents or the adjoints.
    derivatives: &'a [f64],
    /// The values that had a part in it.
    guilty: Vec<bool>,
}

impl Patient<'_> {
    fn data(&self) -> &TapeData {
        &self.tape.data
    }

    fn row(&self, index: usize) -> Option<RowAt<'_>> {
        index.checked_sub(self.data().first_row()).map(|row| RowAt::new(self.data(), self.values, row))
    }

    /// Finds the operands through which values and tangents became non-finite.
    fn blame_operands(&mut self) {
        for index in (self.data().first_row()..self.data().num_values()).rev() {
            if let Some((function, head, result)) = self.call(index) {
                // When the first result is reached it is known which of them are guilty.
                if result == 0 {
                    self.blame_operands_of_call(&function, head);
                }
                continue;
            }
            if !self.guilty[index] {
                continue;
            }
            let Some(row) = self.row(index) else { continue };
            let bad_value = |operand: u32| !self.values[operand as usize].is_finite();
            let bad_tangent =
                |operand: u32| self.data().active[operand as usize] && !self.derivatives[operand as usize].is_finite();
            let (own_value, own_tangent) = (bad_value(index as u32), bad_tangent(index as u32));
            let mut blamed: Vec<u32> = Vec::new();
            for (i, &operand) in row.operands.iter().enumerate() {
                let (value, tangent) = (bad_value(operand), bad_tangent(operand));
                // What enters with a partial of exactly 0 has no part in it, such
                // as the branch not taken of a select.
                if ((value && (own_value || own_tangent)) || (tangent && own_tangent)) && row.partial(i) != 0.0 {
                    blamed.push(operand);
                }
            }
            if own_value && !blamed.iter().any(|&operand| bad_value(operand)) {
                // The partial may be 0 where the value passes through, as in floor(inf).
                blamed.extend(row.operands.iter().filter(|&&operand| bad_value(operand)));
            }
            for operand in blamed {
                self.guilty[operand as usize] = true;
            }
        }
    }

    /// The function of a value that a call gave, the row of the call and which result it is.
    fn call(&self, index: usize) -> Option<(Function, usize, usize)> {
        let (head, result) = self.data().head(index.checked_sub(self.data().first_row())?);
        Some((self.data().function(head)?.clone(), head, result))
    }

    fn values_of(&self, operands: &[u32]) -> Vec<f64> {
        operands.iter().map(|&operand| self.values[operand as usize]).collect()
    }

    fn derivatives_of(&self, operands: &[u32]) -> Vec<f64> {
        operands.iter().map(|&operand| self.derivatives[operand as usize]).collect()
    }

    /// The operands that a result of a call has to do with.
    fn operands_of_result(&self, function: &Function, head: usize, result: usize) -> Vec<u32> {
        let operands = self.data().operands(head);
        let concerned = function.blocks().filter(|block| block.results.contains(&(result as u32)));
        let mut positions: Vec<u32> = concerned.flat_map(|block| block.operands).collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|position| operands[position as usize]).collect()
    }

    fn blame_operands_of_call(&mut self, function: &Function, head: usize) {
        let first = self.data().first_row() + head;
        let (m, operands) = (function.num_results(), self.data().operands(head).to_vec());
        let guilty = |j: usize| self.guilty[first + j];
        if !(0..m).any(guilty) {
            return;
        }
        let x = self.values_of(&operands);
        let bad_value = |value: usize| !self.values[value].is_finite();
        let bad_tangent = |value: usize| self.data().active[value] && !self.derivatives[value].is_finite();
        // By which operands any of these results changes: weights of different
        // sizes do not cancel.
        let changes = |concerned: &dyn Fn(usize) -> bool| {
            let weight = |j: usize| if concerned(j) { 1.0 + j as f64 / (7.0 * m as f64) } else { 0.0 };
            let weights: Vec<f64> = (0..m).map(weight).collect();
            function.pull_back(&x, &weights).unwrap_or_else(|_| vec![f64::NAN; x.len()])
        };
        let by_any = changes(&guilty);
        let by_tangents = changes(&|j| guilty(j) && bad_tangent(first + j));
        let mut blamed: Vec<u32> = Vec::new();
        for (i, &operand) in operands.iter().enumerate() {
            let value = bad_value(operand as usize) && by_any[i] != 0.0;
            if value || (bad_tangent(operand as usize) && by_tangents[i] != 0.0) {
                blamed.push(operand);
            }
        }
        let bad_results = (0..m).filter(|&j| guilty(j) && bad_value(first + j));
        if bad_results.clone().next().is_some() && !blamed.iter().any(|&operand| bad_value(operand as usize)) {
            // A partial may be 0 where the value passes through, unless a row inside is the origin.
            let point = Pass { dx: vec![0.0; x.len()], x };
            if inside_values(function, &point, guilty).is_none() {
                let bad_results: HashSet<u32> = bad_results.map(|j| j as u32).collect();
                for block in function.blocks() {
                    if block.results.iter().any(|j| bad_results.contains(j)) {
                        let of_block = block.operands.iter().map(|&position| operands[position as usize]);
                        blamed.extend(of_block.filter(|&operand| bad_value(operand as usize)));
                    }
                }
            }
        }
        for operand in blamed {
            self.guilty[operand as usize] = true;
        }
    }

    /// What a call adds to the adjoints of its operands, all of it and what finite adjoints add.
    fn contributions(&self, function: &Function, head: usize) -> [Vec<f64>; 2] {
        let first = self.data().first_row() + head;
        let x = self.values_of(self.data().operands(head));
        let weights = &self.derivatives[first..first + function.num_results()];
        let finite: Vec<f64> = weights.iter().map(|&w| if w.is_finite() { w } else { 0.0 }).collect();
        let add = |w: &[f64]| function.pull_back(&x, w).unwrap_or_else(|_| vec![f64::NAN; x.len()]);
        let of_finite = add(&finite);
        match finite.iter().zip(weights).all(|(a, b)| a == b) {
            true => [of_finite.clone(), of_finite],
            false => [add(weights), of_finite],
        }
    }

    fn blame_results_of_call(&mut self, function: &Function, head: usize) {
        let operands = self.data().operands(head).to_vec();
        if !operands.iter().any(|&operand| self.guilty[operand as usize]) {
            return;
        }
        let first = self.data().first_row() + head;
        let [all, of_finite] = self.contributions(function, head);
        let bad = |contributions: &[f64], i: usize| self.guilty[operands[i] as usize] && !contributions[i].is_finite();
        if (0..operands.len()).any(|i| bad(&of_finite, i)) {
            self.guilty[first] = true;
            return;
        }
        let mut guilty = Vec::new();
        for block in function.blocks() {
            if block.operands.iter().any(|&i| bad(&all, i as usize)) {
                let results = block.results.iter().map(|&j| first + j as usize);
                guilty.extend(results.filter(|&result| !self.derivatives[result].is_finite()));
            }
        }
        guilty.into_iter().for_each(|result| self.guilty[result] = true);
    }

    /// Finds the rows through which adjoints of inputs became non-finite.
    fn blame_readers(&mut self) {
        for index in self.data().first_row()..self.data().num_values() {
            if let Some((function, head, result)) = self.call(index) {
                if result == 0 {
                    self.blame_results_of_call(&function, head);
                }
                continue;
            }
            if self.data().active[index] && self.derivatives[index] != 0.0 {
                let Some(row) = self.row(index) else { continue };
                let guilty = row
                    .operands
                    .iter()
                    .enumerate()
                    .any(|(i, &operand)| self.guilty[operand as usize] && !self.term(&row, index, i).is_finite());
                self.guilty[index] = guilty;
            }
        }
    }

    /// What a row adds to the adjoint of its operand i.
    fn term(&self, row: &RowAt<'_>, index: usize, i: usize) -> f64 {
        Rule::chain_mul(row.partial(i), self.derivatives[index])
    }

    fn value_at(&self, index: usize) -> ValueAt {
        let data = self.data();
        let row = index.checked_sub(data.first_row());
        let (part, operation) = match row {
            Some(row) => (Part::Row, data.row_formula(row, &Formulas::new()).to_string()),
            None if index < data.first_input() => (Part::Constant, "constant".to_owned()),
            None if index < data.first_param() => (Part::Input, data.variable_name(index).to_string()),
            None => (Part::Parameter, "parameter".to_owned()),
        };
        ValueAt {
            part,
            name: data.value_name(index, Accent::None).to_string(),
            operation,
            value: self.values[index],
            derivative: data.active[index].then(|| self.derivatives[index]),
            location: row.and_then(|row| data.known_location(row)),
        }
    }

    /// The operand that a chain from the inputs comes through: the latest that
    /// depends on an input, else the latest that depends on a parameter.
    fn came_through(&self, index: usize) -> Option<usize> {
        let operands = match self.call(index) {
            Some((function, head, result)) => self.operands_of_result(&function, head, result),
            None => self.row(index)?.operands.to_vec(),
        };
        let active = |&&operand: &&u32| self.data().active[operand as usize];
        let variable = |&&operand: &&u32| operand as usize >= self.data().first_input();
        let latest = operands.iter().filter(active).max().or_else(|| operands.iter().filter(variable).max());
        latest.map(|&operand| operand as usize)
    }

    /// The operand that a non-finite adjoint goes on to.
    fn goes_on_to(&self, index: usize) -> Option<usize> {
        if let Some((function, head, _)) = self.call(index) {
            let [all, _] = self.contributions(&function, head);
            let mut operands = self.data().operands(head).iter().zip(all);
            let next = operands.find(|(operand, added)| self.guilty[**operand as usize] && !added.is_finite());
            return next.map(|(&operand, _)| operand as usize);
        }
        let row = self.row(index)?;
        let next = row
            .operands
            .iter()
            .enumerate()
            .find(|&(i, &operand)| self.guilty[operand as usize] && !self.term(&row, index, i).is_finite());
        next.map(|(_, &operand)| operand as usize)
    }

    fn diagnosis(&self, origin: usize, reaches: Vec<String>) -> Diagnosis {
        let adjoint = self.what == NonFinite::Adjoint;
        let step = |index: &usize| if adjoint { self.goes_on_to(*index) } else { self.came_through(*index) };
        let mut path: Vec<usize> = std::iter::successors(Some(origin), step).collect();
        if !adjoint {
            path.reverse();
        }
        let [first, last] = Diagnosis::PATH;
        let omitted = path.len().saturating_sub(first + last);
        if omitted > 0 {
            path.drain(first..first + omitted);
        }
        let operands = match (self.call(origin), self.row(origin)) {
            (Some((function, head, result)), _) => self.operands_of_result(&function, head, result),
            (None, row) => row.map_or(Vec::new(), |row| row.operands.to_vec()),
        };
        let shown = &operands[..operands.len().min(Diagnosis::OPERANDS)];
        let mut at = self.value_at(origin);
        if let (None, Some(&constant)) = (&at.location, self.data().constants.get(origin)) {
            let constants = self.tape.constants();
            let found = constants.iter().find(|other| other.value.to_bits() == constant.to_bits());
            at.location = found.and_then(|found| found.locations.first().cloned()).filter(SourceLocation::is_known);
        }
        let what = match at.value.is_finite() {
            false if !adjoint => NonFinite::Value,
            _ => self.what,
        };
        let inside = self.inside(origin);
        Diagnosis {
            what,
            why: match (&inside, self.call(origin)) {
                (Some(inside), _) => {
                    let found = inside.diagnosis.to_string();
                    format!("inside of {}: {}", inside.place(), found.lines().next().unwrap_or_default())
                }
                (None, Some((function, ..))) => why_call(&function, what, self.values[origin]),
                (None, None) => self.why(origin, what),
            },
            origin: at,
            operands: shown.iter().map(|&operand| self.value_at(operand as usize)).collect(),
            operands_omitted: operands.len() - shown.len(),
            path: path.into_iter().map(|index| self.value_at(index)).collect(),
            path_omitted: omitted,
            reaches,
            inside: inside.map(Box::new),
        }
    }

    /// What happens inside of the tape that a row calls.
    fn inside(&self, origin: usize) -> Option<DiagnosisInside> {
        let (function, head, result) = self.call(origin)?;
        let (operands, first) = (self.data().operands(head), self.data().first_row() + head);
        let x = self.values_of(operands);
        match self.what {
            NonFinite::Adjoint => {
                let weights = &self.derivatives[first..first + function.num_results()];
                let finite: Vec<f64> = weights.iter().map(|&w| if w.is_finite() { w } else { 0.0 }).collect();
                inside_adjoints(&function, &x, &finite, |i| self.guilty[operands[i] as usize])
            }
            _ => {
                let dx = self.derivatives_of(operands);
                inside_values(&function, &Pass { x, dx }, |other| other == result)
            }
        }
    }

    fn why(&self, origin: usize, what: NonFinite) -> String {
        let data = self.data();
        let Some(row) = self.row(origin) else {
            return match origin {
                _ if origin < data.first_input() => "this literal stands in the code".to_owned(),
                _ if origin >= data.first_param() => "the parameter has this value".to_owned(),
                _ if what == NonFinite::Value => "the input has this value".to_owned(),
                _ => "the contributions to it are finite; their sum overflows".to_owned(),
            };
        };
        if what == NonFinite::Value {
            return why_value(&row, data);
        }
        let name = |index: u32| data.operand_name(index);
        let own = data.value_name(origin, Accent::None);
        let derivative = self.derivatives[origin];
        for (i, &operand) in row.operands.iter().enumerate() {
            let (partial, concerned) = (
                row.partial(i),
                match what {
                    NonFinite::Adjoint => self.guilty[operand as usize] && derivative != 0.0,
                    _ => data.active[operand as usize] && self.derivatives[operand as usize] != 0.0,
                },
            );
            if concerned && !partial.is_finite() {
                return format!("∂{own}/∂{} is {} here{}", name(operand), exact(partial), table_says(row.op));
            }
        }
        match (what, derivative.is_finite()) {
            (NonFinite::Adjoint, true) => "the product of a partial and its adjoint overflows".to_owned(),
            (NonFinite::Adjoint, false) => {
                "the contributions to its adjoint are finite; their sum overflows".to_owned()
            }
            _ => "the partials are finite; their product with a tangent, or the sum, overflows".to_owned(),
        }
    }
}

/// Why a call has non-finite results where no row inside of it is to blame.
fn why_call(function: &Function, what: NonFinite, value: f64) -> String {
    let is_own = function.body().is_none();
    match what {
        NonFinite::Value if is_own || value.is_nan() => format!("{function} has no finite value at these operands"),
        NonFinite::Value => "the terms are finite; their sum overflows".to_owned(),
        NonFinite::Tangent => format!("the partials of {function} are not finite here, or the tangent overflows"),
        NonFinite::Adjoint => format!("the partials of {function} are not finite here, or the adjoint overflows"),
    }
}

/// What the table says of kinks, or else of the domain, of an operation.
fn table_says(op: Op) -> String {
    let info = op.info();
    match (info.kink, info.domain) {
        ("", domain) if domain.starts_with("all") && !domain.contains([';', '(']) => String::new(),
        ("", domain) => format!("; {op} is defined for {domain}"),
        (kink, _) => format!("; chosen for {op}: {kink}"),
    }
}

/// Why an operation has a non-finite value at operands that are not to blame.
fn why_value(row: &RowAt<'_>, data: &TapeData) -> String {
    let (op, domain) = (row.op, row.op.info().domain);
    let everywhere = domain.starts_with("all") && !domain.contains(';');
    if row.v[row.result].is_nan() {
        return match everywhere {
            true => format!("{op} has no value at these operands"),
            false => format!("{op} is defined for {domain}"),
        };
    }
    // At a pole the operation is finite beside it; where it overflows it is not.
    let nudge = |(&operand, &x): (&u32, &f64), sign: f64| match x {
        _ if (operand as usize) < data.first_input() => x,
        0.0 => sign * 1e-50,
        x => x * (1.0 + sign * 1e-9),
    };
    let beside = |sign: f64| {
        let nudged: Numbers = row.operands.iter().zip(&row.x).map(|pair| nudge(pair, sign)).collect();
        value(op, row.result, &nudged).is_finite()
    };
    match !everywhere && (beside(1.0) || beside(-1.0)) {
        true => format!("{op} is defined for {domain}"),
        false => "the result is too large for a number of 64 bits: it overflows".to_owned(),
    }
}

impl Tape {
    /// Where f(x) or J·p goes non-finite: the first row, in the order of the
    /// recording, that is NaN or infinite in value, or in tangent alone, and has a
    /// part in an output that is; its operands, its line, why, and the way there.
    /// None if all that [`Tape::jvp`] returns is finite.
    ///
    /// It follows the rules of the drivers: a NaN in a branch that a select does
    /// not take, or one that a factor of exactly 0 removes, is no finding. An
    /// input, a parameter or a literal that is itself NaN or infinite is one.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::jvp`]; so [`Error::BranchChanged`] if the recording does
    /// not hold at x, since none of its numbers mean anything there.
    ///
    /// ```
    /// use ad_core::{NonFinite, Tape};
    /// let tape = Tape::record(&[5.0], |x| (x[0] - 3.0).ln() * 2.0)?;
    /// assert_eq!(tape.diagnose(&[5.0], &[1.0])?, None);
    ///
    /// let found = tape.diagnose(&[2.0], &[1.0])?.expect("ln of a negative number");
    /// assert_eq!(found.what, NonFinite::Value);
    /// assert_eq!((found.origin.name.as_str(), found.origin.operation.as_str()), ("v₂", "ln(v₁)"));
    /// assert_eq!(found.operands[0].value, -1.0);
    /// assert_eq!(found.why, "ln is defined for x > 0; −inf at 0");
    /// println!("{found}");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn diagnose(&self, x: &[f64], p: &[f64]) -> Result<Option<Diagnosis>, Error> {
        let (y, dy) = self.jvp(x, p)?;
        if y.iter().chain(&dy).all(|number| number.is_finite()) {
            return Ok(None);
        }
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let replay::SweepMemory { tangents, gathered, .. } = &mut ws.sweep;
        replay::tangent_sweep::<true>(&self.data, &ws.values, p, 1, tangents, gathered)
            .map_err(|failure| self.of_function(failure))?;
        let mut patient = Patient {
            tape: self,
            what: NonFinite::Tangent,
            values: &ws.values,
            derivatives: tangents,
            guilty: vec![false; self.data.num_values()],
        };
        let bad: Vec<usize> = (0..y.len()).filter(|&i| !y[i].is_finite() || !dy[i].is_finite()).collect();
        for &i in &bad {
            patient.guilty[self.data.outputs[i] as usize] = true;
        }
        patient.blame_operands();
        let reaches = bad.iter().take(Diagnosis::REACHES).map(|&i| self.data.output_name(i).to_string()).collect();
        let origin = patient.guilty.iter().position(|&guilty| guilty);
        Ok(origin.map(|origin| patient.diagnosis(origin, reaches)))
    }

    /// Where f(x) or Jᵀ·w goes non-finite; for a gradient w is `[1.0]`. A value is
    /// reported as by [`Tape::diagnose`]. If the outputs are finite, the
    /// first row in the order of the reverse sweep that makes the adjoint of an
    /// input NaN or infinite. None if all that [`Tape::vjp`] returns is finite.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::vjp`].
    ///
    /// ```
    /// use ad_core::{NonFinite, Tape};
    /// let tape = Tape::record(&[4.0], |x| x[0].sqrt() + 1.0)?;
    /// let found = tape.diagnose_adjoint(&[0.0], &[1.0])?.expect("√ has the slope inf at 0");
    /// assert_eq!((found.what, found.origin.operation.as_str()), (NonFinite::Adjoint, "sqrt(v₀)"));
    /// assert_eq!(found.why, "∂v₁/∂v₀ is inf here; chosen for sqrt: inf at 0");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn diagnose_adjoint(&self, x: &[f64], w: &[f64]) -> Result<Option<Diagnosis>, Error> {
        let (y, xbar) = self.vjp(x, w)?;
        if y.iter().any(|y| !y.is_finite()) {
            return self.diagnose(x, &vec![0.0; self.num_inputs()]);
        }
        if xbar.iter().all(|number| number.is_finite()) {
            return Ok(None);
        }
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let replay::SweepMemory { adjoints, gathered, .. } = &mut ws.sweep;
        replay::reverse_sweep::<f64, true>(&self.data, &ws.values, w, adjoints, gathered)
            .map_err(|failure| self.of_function(failure))?;
        let mut patient = Patient {
            tape: self,
            what: NonFinite::Adjoint,
            values: &ws.values,
            derivatives: adjoints,
            guilty: vec![false; self.data.num_values()],
        };
        let first_input = self.data.first_input();
        let bad: Vec<usize> = (0..xbar.len()).filter(|&i| !xbar[i].is_finite()).collect();
        for &i in &bad {
            patient.guilty[first_input + i] = true;
        }
        patient.blame_readers();
        let name = |&i: &usize| self.data.variable_name(first_input + i).to_string();
        let reaches = bad.iter().take(Diagnosis::REACHES).map(name).collect();
        let origin = patient.guilty.iter().rposition(|&guilty| guilty);
        Ok(origin.map(|origin| patient.diagnosis(origin, reaches)))
    }
}

// Whether the derivatives are right.

/// Why [`Tape::self_check`] could not compare a derivative with a quotient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotChecked {
    /// The value, the derivative or the direction is NaN or infinite.
    NotFinite,
    /// A guard is answered otherwise within any step.
    BranchChanges(String),
    /// The quotients on the left and on the right differ: a kink or a jump; or the
    /// derivative rests on what was chosen at one, as that of relu(x) − relu(−x) at 0.
    Kink,
    /// There is no finite value on one side at least: the edge of the domain.
    Edge,
    /// The quotient cannot be computed accurately enough here, as where the
    /// function is far larger than its change, or varies within a few ulp.
    Inaccurate,
}

impl fmt::Display for NotChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotChecked::NotFinite => f.write_str("not finite"),
            NotChecked::BranchChanges(guard) => write!(f, "kink: {guard}, and is not within a step"),
            NotChecked::Kink => f.write_str("kink: no slope, or one that was chosen"),
            NotChecked::Edge => f.write_str("the edge of the domain: no finite value on one side"),
            NotChecked::Inaccurate => f.write_str("the difference quotient is not accurate enough"),
        }
    }
}

/// The outcome of one comparison of [`Tape::self_check`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// They agree.
    Agrees,
    /// They do not: one of them is wrong.
    Disagrees,
    /// They were not compared, and why.
    NotChecked(NotChecked),
}

/// A derivative of an output, computed in three ways; in [`SelfCheck`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// The position of the direction in [`SelfCheck::directions`].
    pub direction: usize,
    /// The position of the output.
    pub output: usize,
    /// J·d at this output, by a forward sweep.
    pub forward: f64,
    /// The same by a reverse sweep: (Jᵀ·w)·d with the output's unit vector w.
    pub reverse: f64,
    /// Whether forward and reverse agree.
    pub sweeps: Verdict,
    /// The difference quotient, where there is one.
    pub quotient: Option<f64>,
    /// Whether the sweeps and the quotient agree.
    pub difference: Verdict,
}

/// A partial derivative of one row beside the quotient of its operation; in
/// [`SelfCheck`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RowComparison {
    /// The row's name, such as `v₁`.
    pub name: String,
    /// Its operation, such as `v₀·v₋₁`.
    pub operation: String,
    /// The name of the operand that the partial is by. A call with more than
    /// sixteen operands is compared along mixtures of all.
    pub operand: String,
    /// The values of the operation's operands; of a fold, those of the term, of
    /// a call the first sixteen.
    pub operands: Vec<f64>,
    /// The partial by the table of operations.
    pub partial: f64,
    /// The difference quotient of the operation, where there is one.
    pub quotient: Option<f64>,
    /// Whether they agree.
    pub verdict: Verdict,
    /// Where the row stands in your code, if that [is known](SourceLocation::is_known).
    pub location: SourceLocation,
}

impl fmt::Display for RowComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RowComparison { name, operation, operand, location, .. } = self;
        let operands: Vec<String> = self.operands.iter().map(|&x| exact(x)).collect();
        write!(f, "{name} = {operation} ({location}): ∂{name}/∂{operand} is {}", exact(self.partial))?;
        if let Some(quotient) = self.quotient {
            write!(f, ", the difference quotient {}", exact(quotient))?;
        }
        write!(f, ", with operands {}", list(&operands))?;
        match &self.verdict {
            Verdict::NotChecked(reason) => write!(f, "; not checked: {reason}"),
            _ => Ok(()),
        }
    }
}

/// Forward and reverse sweeps beside each other and beside difference
/// quotients; from [`Tape::self_check`]. `Display` tells it in a few lines.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SelfCheck {
    /// The directions d: each input by itself, scaled to its size; with more than
    /// sixteen inputs sixteen mixtures of all.
    pub directions: Vec<Vec<f64>>,
    /// f(x).
    pub value: Vec<f64>,
    /// For each output about how far rounding may put its value off, each row being
    /// rounded once, to first order. Far more than an ulp of the value if digits
    /// cancel on the way.
    pub rounding: Vec<f64>,
    /// For each direction and output the derivative in three ways.
    pub comparisons: Vec<Comparison>,
    /// How many partials of rows agree with the quotients of their operations.
    pub partials_agreed: usize,
    /// How many partials of rows were not compared.
    pub partials_not_checked: usize,
    /// The first eight of them, with the reasons.
    pub not_checked: Vec<RowComparison>,
    /// The first row, in the order of the recording, with a partial that
    /// disagrees.
    pub first_disagreement: Option<RowComparison>,
}

impl SelfCheck {
    const NOT_CHECKED: usize = 8;
    /// An output that rounding may put off by more, in proportion, is worth a line.
    const LOST: f64 = 1e-8;
    /// With more inputs than this, directions are mixtures.
    const DIRECTIONS: usize = 16;

    fn take_note(&mut self, verdict: &Verdict, comparison: impl FnOnce() -> RowComparison) {
        match verdict {
            Verdict::Agrees => self.partials_agreed += 1,
            Verdict::Disagrees => {
                self.first_disagreement.get_or_insert_with(comparison);
            }
            Verdict::NotChecked(_) => {
                self.partials_not_checked += 1;
                if self.not_checked.len() < SelfCheck::NOT_CHECKED {
                    self.not_checked.push(comparison());
                }
            }
        }
    }

    /// Whether nothing disagrees. What was not checked does not count against it.
    pub fn passed(&self) -> bool {
        let fine = |verdict: &Verdict| *verdict != Verdict::Disagrees;
        let comparisons = self.comparisons.iter().all(|c| fine(&c.sweeps) && fine(&c.difference));
        comparisons && self.first_disagreement.is_none()
    }
}

impl fmt::Display for SelfCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: &dyn Fn(&Verdict) -> bool| {
            self.comparisons.iter().filter(|comparison| wanted(&comparison.difference)).count()
        };
        let agreed = count(&|verdict| *verdict == Verdict::Agrees);
        let skipped = count(&|verdict| matches!(verdict, Verdict::NotChecked(_)));
        let outcome = match self.passed() {
            false => "FAILED",
            true if agreed == 0 => "passed, but nothing could be compared",
            true => "passed",
        };
        writeln!(f, "self-check {outcome}")?;
        writeln!(
            f,
            "  {} of outputs in {}: {agreed} agree with the difference quotient, {skipped} not checked",
            plural(self.comparisons.len(), "derivative"),
            plural(self.directions.len(), "direction"),
        )?;
        let (partials, skipped) = (self.partials_agreed, self.partials_not_checked);
        writeln!(f, "  partials of rows: {partials} agree, {skipped} not checked")?;
        let mut reasons: Vec<(&NotChecked, usize)> = Vec::new();
        for comparison in &self.comparisons {
            let Comparison { direction, output, forward, reverse, .. } = comparison;
            let (forward, reverse) = (exact(*forward), exact(*reverse));
            if comparison.sweeps == Verdict::Disagrees {
                writeln!(f, "  y[{output}], direction {direction}: forward {forward}, reverse {reverse}")?;
            }
            match (&comparison.difference, comparison.quotient) {
                (Verdict::Disagrees, Some(quotient)) => writeln!(
                    f,
                    "  y[{output}], direction {direction}: sweeps {forward} and {reverse}, difference quotient {}",
                    exact(quotient)
                )?,
                (Verdict::NotChecked(reason), _) => match reasons.iter_mut().find(|(other, _)| *other == reason) {
                    Some((_, count)) => *count += 1,
                    None => reasons.push((reason, 1)),
                },
                _ => {}
            }
        }
        for (reason, count) in reasons {
            writeln!(f, "  {} not checked: {reason}", plural(count, "derivative"))?;
        }
        for (output, (&value, &rounding)) in self.value.iter().zip(&self.rounding).enumerate() {
            if value.is_finite() && rounding > Self::LOST * value.abs() {
                let value = exact(value);
                writeln!(f, "  y[{output}] = {value} may be off by about {rounding:.0e}: digits cancel on the way")?;
            }
        }
        match &self.first_disagreement {
            Some(row) => writeln!(f, "  the first row that disagrees: {row}")?,
            None if !self.passed() => {
                writeln!(f, "  each row is right by itself: a sweep is wrong, or digits cancel on the way")?
            }
            None => {}
        }
        for row in &self.not_checked {
            writeln!(f, "  {row}")?;
        }
        if self.partials_not_checked > self.not_checked.len() {
            writeln!(
                f,
                "  … {} more not checked",
                plural(self.partials_not_checked - self.not_checked.len(), "partial")
            )?;
        }
        Ok(())
    }
}

/// A function of a step t from the point, or why it has no value there, and how
/// far rounding may put its values off.
struct Along<'a> {
    value: &'a mut dyn FnMut(f64) -> Result<f64, NotChecked>,
    rounding: f64,
}

impl Along<'_> {
    fn at(&mut self, t: f64) -> Result<f64, NotChecked> {
        (self.value)(t)
    }

    /// Its values at −h and h, if it has both.
    fn around(&mut self, h: f64) -> Option<[f64; 2]> {
        let values = [self.at(-h).ok()?, self.at(h).ok()?];
        values.iter().all(|value| value.is_finite()).then_some(values)
    }

    /// What rounding alone may do to a quotient of two values with a step h.
    fn noise(&self, [a, b]: [f64; 2], h: f64) -> f64 {
        let subnormal = f64::MIN_POSITIVE * f64::EPSILON;
        (2.0 * f64::EPSILON * a.abs().max(b.abs()) + 2.0 * subnormal + self.rounding) / h
    }
}

/// A derivative below this is not told from 0: a factor on the way to it may have
/// underflowed, forward or in reverse.
const NOTHING: f64 = 1e-140;

/// A difference quotient and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Quotient {
    value: f64,
    error: f64,
}

/// The largest power of two that is not above |x|: steps that are multiples of
/// it are added to x without rounding. 1 for 0 and for numbers without a binade.
fn binade(x: f64) -> f64 {
    let power = f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000);
    if power.is_normal() { power } else { 1.0 }
}

/// Central quotients at steps h, h/2, h/4, …, extrapolated to step 0: the entry
/// of the tableau that its neighbours differ least from. None without three steps in a row
/// at which the function is finite on both sides.
///
/// Source: Richardson (1911); the choice by Ridders, Accurate computation of
/// F′(x) and F″(x)·F‴(x) (1982).
fn extrapolate(f: &mut Along<'_>, mut h: f64) -> Option<Quotient> {
    const STEPS: usize = 9;
    let mut best: Option<Quotient> = None;
    let mut above: Vec<f64> = Vec::new();
    for _ in 0..STEPS {
        let mut row = Vec::with_capacity(STEPS);
        if let Some([left, right]) = f.around(h) {
            let rounding = f.noise([left, right], h);
            row.push((right / 2.0 - left / 2.0) / h);
            for (k, &coarser) in above.iter().enumerate() {
                let finer = row[k];
                let next = finer + (finer - coarser) / (4f64.powi(k as i32 + 1) - 1.0);
                for (value, error) in
                    [(finer, (finer - coarser).abs()), (next, (next - finer).abs().max((next - coarser).abs()))]
                {
                    let error = error + rounding;
                    if above.len() > 1 && value.is_finite() && best.is_none_or(|best| error < best.error) {
                        best = Some(Quotient { value, error });
                    }
                }
                row.push(next);
            }
        }
        above = row;
        h /= 2.0;
    }
    best
}

/// Whether the point is a kink or a jump: as steps shrink to an eighth, so do the
/// difference of a smooth function's left and right quotients and that of its
/// values; at a kink the former stays, at a jump the latter.
fn has_kink(f: &mut Along<'_>, scale: f64) -> bool {
    let Ok(here) = f.at(0.0) else { return false };
    let (mut kink, mut jump) = (true, true);
    let mut before: Option<(f64, [f64; 2])> = None;
    for power in [8, 11, 14, 17] {
        let h = scale * 2f64.powi(-power);
        let Some([left, right]) = f.around(h) else { return false };
        let (right_slope, left_slope) = ((right - here) / h, (here - left) / h);
        let noise = 16.0 * f.noise([left, right], h);
        let (gap, leap) = ((right_slope - left_slope).abs(), (right - left).abs());
        let slope = right_slope.abs().max(left_slope.abs());
        kink &= gap.is_finite() && gap > noise.max(1e-4 * slope);
        jump &= leap.is_finite() && leap > noise * h;
        if let Some((gap_before, [left_before, right_before])) = before {
            kink &= (0.6..1.7).contains(&(gap / gap_before));
            // Each side stays where it is; the values of a function that varies
            // within the steps do not.
            jump &= (left - left_before).abs().max((right - right_before).abs()) < 0.4 * leap;
        }
        before = Some((gap, [left, right]));
    }
    kink || jump
}

/// Whether the function is a straight line of that slope on small scales, down to
/// that of single ulps: only then does an alarm mean something. The fine quotient
/// of a saw with many teeth within a step says nothing of the slope of a tooth.
fn is_straight(f: &mut Along<'_>, slope: f64, size: f64, tolerance: f64, scale: f64) -> bool {
    let Ok(here) = f.at(0.0) else { return false };
    let quotients = [22, 26, 30].into_iter().all(|power| {
        let h = scale * 2f64.powi(-power);
        let Some([left, right]) = f.around(h) else { return false };
        let apart = ((right / 2.0 - left / 2.0) / h - slope).abs();
        let bend = (((right - here) - (here - left)) / h).abs();
        let rounding = 4.0 * f64::EPSILON * left.abs().max(right.abs()) / h;
        apart <= 1e-3 * size + 4.0 * f.noise([left, right], h) && bend <= 1e-2 * slope.abs() + rounding
    });
    // The larger ones see what the steps of the quotients jump over and ulps are too
    // small for, such as the way from pole to pole of lgamma near −1e11.
    let ulps = [1.0, 3.0, 4.0, 7.0, 256.0, 16384.0, 1048576.0].into_iter().all(|ulps| {
        let h = ulps * f64::EPSILON * scale;
        let Some([left, right]) = f.around(h) else { return false };
        let rounding = f.noise([left, right], 1.0) + 1e-5 * tolerance;
        (right - here - slope * h).abs() <= rounding && (here - left - slope * h).abs() <= rounding
    });
    quotients && ulps
}

/// Compares a derivative, known up to `tolerance`, with the difference quotient
/// of `f`, which varies on the scale of `scale` or of 1.
fn compare(f: &mut Along<'_>, derivative: f64, tolerance: f64, scale: f64) -> (Option<f64>, Verdict) {
    let not_checked = |reason| (None, Verdict::NotChecked(reason));
    match f.at(0.0) {
        Ok(here) if here.is_finite() && derivative.is_finite() => {}
        Ok(_) => return not_checked(NotChecked::NotFinite),
        Err(reason) => return not_checked(reason),
    }
    if has_kink(f, scale) {
        return not_checked(NotChecked::Kink);
    }
    let mut found: Vec<Quotient> = Vec::new();
    let size = |quotient: Quotient| quotient.value.abs().max(derivative.abs());
    let agrees = |quotient: Quotient| {
        (quotient.value - derivative).abs() <= 1e-6 * size(quotient) + 10.0 * quotient.error + tolerance
    };
    let scales: &[f64] = if scale < 1.0 { &[scale, 1.0] } else { &[scale] };
    for power in [4, 12, 20, 28] {
        for &scale in scales {
            let Some(quotient) = extrapolate(f, scale * 2f64.powi(-power)) else { continue };
            if quotient.error <= 1e-5 * size(quotient) && agrees(quotient) {
                return (Some(quotient.value), Verdict::Agrees);
            }
            found.push(quotient);
        }
    }
    found.sort_by(|a, b| a.error.total_cmp(&b.error));
    let Some(&best) = found.first() else {
        // No step had values on both sides: say why at the smallest.
        let h = scale * 2f64.powi(-36);
        return not_checked([f.at(h), f.at(-h)].into_iter().find_map(Result::err).unwrap_or(NotChecked::Edge));
    };
    // A derivative that is next to nothing beside the function itself need not
    // be met in its own digits: that of the sine at π/2.
    let small = NOTHING + f.at(0.0).map_or(0.0, |here| 1e-9 * here.abs() / scale.max(1.0));
    if agrees(best) && best.error <= small {
        return (Some(best.value), Verdict::Agrees);
    }
    let alarming = !agrees(best) && best.error <= 1e-4 * size(best);
    let supported = alarming && is_straight(f, best.value, size(best), tolerance, scale);
    match supported {
        true => (Some(best.value), Verdict::Disagrees),
        false => (Some(best.value), Verdict::NotChecked(NotChecked::Inaccurate)),
    }
}

/// [`compare`] for a function of a user's own, at x: its values may be good to fewer
/// digits than those of the table, so straightness down to ulps cannot be asked
/// for. Instead an alarm needs two quotients of different steps that agree.
///
/// Gives the quotient, if there is one that says something.
pub(crate) fn compare_with_rule(value: &mut dyn FnMut(f64) -> f64, derivative: f64, x: f64) -> (Option<f64>, Verdict) {
    let mut along = |t: f64| Ok(value(t));
    let f = &mut Along { value: &mut along, rounding: 0.0 };
    let here = f.at(0.0).unwrap_or(f64::NAN);
    if !here.is_finite() {
        return (None, Verdict::NotChecked(NotChecked::NotFinite));
    }
    // An infinite slope agrees with no quotient.
    let size = |quotient: Quotient| match derivative.is_infinite() {
        true => quotient.value.abs(),
        false => quotient.value.abs().max(derivative.abs()),
    };
    let agrees =
        |quotient: Quotient| (quotient.value - derivative).abs() <= 1e-6 * size(quotient) + 10.0 * quotient.error;
    let own = binade(x);
    let scales: &[f64] = if own == 1.0 { &[1.0] } else { &[own, 1.0] };
    // With the smallest step of each.
    let mut found: Vec<(Quotient, f64)> = Vec::new();
    for power in [4, 12, 20, 28] {
        for &scale in scales {
            let h = scale * 2f64.powi(-power);
            // The smallest step must not be rounded away.
            if h * 2f64.powi(-8) < own * f64::EPSILON {
                continue;
            }
            let Some(quotient) = extrapolate(f, h) else { continue };
            if quotient.error <= 1e-5 * size(quotient) && agrees(quotient) {
                return (Some(quotient.value), Verdict::Agrees);
            }
            found.push((quotient, h * 2f64.powi(-8)));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.error.total_cmp(&b.error));
    let Some(&(best, finest)) = found.first() else {
        return (None, Verdict::NotChecked(NotChecked::Edge));
    };
    if agrees(best) && best.error <= NOTHING + 1e-9 * here.abs() / own.max(1.0) {
        return (Some(best.value), Verdict::Agrees);
    }
    let near = |other: Quotient| (other.value - best.value).abs() <= 1e-3 * best.value.abs() + other.error;
    let supported = found[1..].iter().any(|&(other, _)| other.error <= 1e-2 * size(best) && near(other));
    // A function that varies within smaller steps has a slope that none of the
    // quotients saw. Nine digits of the values are believed.
    let smaller = std::iter::successors(Some(finest), |h| Some(h / 8.0)).take_while(|h| *h >= 4.0 * f64::EPSILON * own);
    let is_straight = smaller.into_iter().all(|h| {
        f.around(h).is_none_or(|[left, right]| {
            let values = left.abs().max(right.abs());
            (right - left - 2.0 * h * best.value).abs() <= 2e-2 * h * best.value.abs() + 1e-9 * values
        })
    });
    let supported = supported && is_straight;
    if agrees(best) || best.error > 1e-4 * size(best) || !supported {
        return (Some(best.value), Verdict::NotChecked(NotChecked::Inaccurate));
    }
    // Looked for at the steps that the quotient is from.
    match has_kink(f, finest * 2f64.powi(16)) {
        true => (Some(best.value), Verdict::NotChecked(NotChecked::Kink)),
        false => (Some(best.value), Verdict::Disagrees),
    }
}

/// A sweep: of a point and a seed, J·p or Jᵀ·w.
type Sweep<'a> = dyn Fn(&[f64], &[f64]) -> Result<Vec<f64>, Error> + 'a;

/// What is checked: the tape's own derivatives, or in a test wrong ones.
struct Derivatives<'a> {
    tangents: &'a Sweep<'a>,
    adjoints: &'a Sweep<'a>,
    partial: &'a Partial<'a>,
}

impl Tape {
    /// Compares the derivatives at x with each other and with difference quotients:
    ///
    /// - J·d by a forward and by a reverse sweep, for each input's direction (for
    ///   sixteen mixtures, if there are more inputs), and both with central
    ///   quotients at steps scaled to x and extrapolated to 0;
    /// - each partial of each row with the quotient of its operation at the values of
    ///   its operands, so that the first row that disagrees can be named.
    ///
    /// What cannot be compared is no alarm but reported as not checked, with the
    /// reason: a kink or a jump, a guard that changes, the edge of a domain, a
    /// derivative that is not finite, a quotient that rounding spoils. A pass means
    /// agreement to about six digits; what is below 1e-140 is not told from 0.
    ///
    /// It tells as well how far rounding may put the outputs off, and so where
    /// digits cancel ([`SelfCheck::rounding`]). What the recording left out it does
    /// not see: numbers baked in ([`Tape::constants`]) and values that escaped
    /// ([`Tape::escapes`]).
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    ///
    /// ```
    /// use ad_core::{NotChecked, Tape, Verdict};
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
    /// let check = tape.self_check(&[2.0, 4.0])?;
    /// assert!(check.passed(), "{check}");
    ///
    /// let kink = Tape::record(&[2.0], |x| x[0].abs())?.self_check(&[0.0])?;
    /// assert!(kink.passed());
    /// assert_eq!(kink.comparisons[0].difference, Verdict::NotChecked(NotChecked::Kink));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn self_check(&self, x: &[f64]) -> Result<SelfCheck, Error> {
        let derivatives = Derivatives {
            tangents: &|x, p| Ok(self.jvp(x, p)?.1),
            adjoints: &|x, w| Ok(self.vjp(x, w)?.1),
            partial: &partial,
        };
        self.check_derivatives(x, &derivatives)
    }

    fn check_derivatives(&self, x: &[f64], derivatives: &Derivatives<'_>) -> Result<SelfCheck, Error> {
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let mut check = SelfCheck {
            directions: directions(x),
            value: self.data.outputs.iter().map(|&output| ws.values[output as usize]).collect(),
            rounding: Vec::new(),
            comparisons: Vec::new(),
            partials_agreed: 0,
            partials_not_checked: 0,
            not_checked: Vec::new(),
            first_disagreement: None,
        };
        let unchecked = self.check_rows(&ws.values, derivatives, &mut check);
        self.check_outputs(x, &ws.values, &unchecked, derivatives, &mut check)?;
        Ok(check)
    }

    /// Each partial of each row beside the quotient of its operation. Gives for
    /// each value whether a row on the way to it was not checked.
    fn check_rows(&self, values: &[f64], derivatives: &Derivatives<'_>, check: &mut SelfCheck) -> Vec<bool> {
        let data = &*self.data;
        let mut unchecked = vec![false; data.num_values()];
        for index in data.first_row()..data.num_values() {
            if !data.active[index] {
                continue;
            }
            let (head, result) = data.head(index - data.first_row());
            if let Some(function) = data.function(head) {
                if result == 0 {
                    self.check_call(function, head, values, &mut unchecked, check);
                }
                continue;
            }
            let row = RowAt::new(data, values, index - data.first_row());
            unchecked[index] = row.operands.iter().any(|&operand| unchecked[operand as usize]);
            for (i, &operand) in row.operands.iter().enumerate() {
                if !data.active[operand as usize] {
                    continue;
                }
                // A fold adds its terms: one of them says all of a partial.
                let stride = row.op.fold_stride().unwrap_or(row.x.len());
                let (term, i) = (i / stride * stride, i % stride);
                let mut x = Numbers::from_slice(&row.x[term..term + stride]);
                let v = if stride < row.x.len() { Numbers::from_slice(&[value(row.op, 0, &x)]) } else { row.v.clone() };
                let partial = (derivatives.partial)(row.op, row.result, i, &x, &v);
                let here = x[i];
                let mut along = |t: f64| {
                    x[i] = here + t;
                    let value = value(row.op, row.result, &x);
                    x[i] = here;
                    Ok(value)
                };
                let (quotient, mut verdict) = match here.is_finite() {
                    true => compare(&mut Along { value: &mut along, rounding: 0.0 }, partial, 0.0, binade(here)),
                    false => (None, Verdict::NotChecked(NotChecked::NotFinite)),
                };
                if let (Verdict::Disagrees, Some(quotient)) = (&verdict, quotient) {
                    // What the table chooses at a point where its partial jumps, such
                    // as clamp between equal bounds.
                    let mut chosen = |t: f64| {
                        x[i] = here + t * binade(here);
                        let v: Numbers = (0..v.len()).map(|result| value(row.op, result, &x)).collect();
                        let beside = (derivatives.partial)(row.op, row.result, i, &x, &v);
                        x[i] = here;
                        let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
                        near(beside, quotient) && !near(beside, partial)
                    };
                    if chosen(1e-6) || chosen(-1e-6) {
                        verdict = Verdict::NotChecked(NotChecked::Kink);
                    }
                    // Steps or teeth that are narrower than a few ulps, as of floor(1e15):
                    // rounding may hide that they are there.
                    let size = |least: f64, &x: &f64| if x == 0.0 { least } else { least.min(x.abs()) };
                    let (finest, largest) = (x.iter().fold(1.0, size), x.iter().fold(0.0, |m: f64, x| m.max(x.abs())));
                    if !row.op.info().kink.is_empty() && 8.0 * largest * f64::EPSILON >= finest {
                        verdict = Verdict::NotChecked(NotChecked::Inaccurate);
                    }
                }
                unchecked[index] |= matches!(verdict, Verdict::NotChecked(_));
                let comparison = || RowComparison {
                    name: data.value_name(index, Accent::None).to_string(),
                    operation: data.row_formula(index - data.first_row(), &Formulas::new()).to_string(),
                    operand: data.operand_name(operand).to_string(),
                    operands: x.to_vec(),
                    partial,
                    quotient,
                    verdict: verdict.clone(),
                    location: data.location(index - data.first_row()).clone(),
                };
                check.take_note(&verdict, comparison);
            }
        }
        unchecked
    }

    /// The tangents and adjoints of a function that a row calls beside its quotients:
    /// along each operand, or sixteen mixtures of them, of each result, or sixteen mixtures.
    fn check_call(
        &self,
        function: &Function,
        head: usize,
        values: &[f64],
        unchecked: &mut [bool],
        check: &mut SelfCheck,
    ) {
        let data = &*self.data;
        let (operands, first, m) = (data.operands(head), data.first_row() + head, function.num_results());
        let x: Vec<f64> = operands.iter().map(|&operand| values[operand as usize]).collect();
        let tainted = operands.iter().any(|&operand| unchecked[operand as usize]);
        unchecked[first..first + m].fill(tainted);
        let still = vec![0.0; x.len()];
        let rounding = sums_of_call(function, &x, &values[first..first + m], &still, &|v| f64::EPSILON * v.abs());
        let weights = directions(&vec![1.0; m]);
        let adjoints: Vec<Option<Vec<f64>>> = weights.iter().map(|w| function.pull_back(&x, w).ok()).collect();
        let total = |w: &[f64], y: &[f64]| w.iter().zip(y).map(|(&w, &y)| Rule::chain_mul(w, y)).sum::<f64>();
        let sizes_of = |w: &[f64], sizes: &[f64]| w.iter().zip(sizes).map(|(w, size)| w.abs() * size).sum::<f64>();
        for (number, mut d) in directions(&x).into_iter().enumerate() {
            for (d, &operand) in d.iter_mut().zip(operands) {
                *d = if data.active[operand as usize] { *d } else { 0.0 };
            }
            let single = x.len() <= SelfCheck::DIRECTIONS;
            if single && !data.active[operands[number] as usize] {
                continue;
            }
            let scale = if single && d[number] != 0.0 { d[number] } else { 1.0 };
            let moved = |t: f64| -> Vec<f64> {
                x.iter().zip(&d).map(|(&x, &d)| if d == 0.0 { x } else { x + t * d }).collect()
            };
            let tangents = |x: &[f64]| function.evaluate(x, &d).map_or_else(|_| vec![f64::NAN; m], |(_, dy)| dy);
            let dy = tangents(&x);
            let sizes = sums_of_call(function, &x, &values[first..first + m], &d, &|_| 0.0);
            // All results at a step come at once and are kept for the next one.
            let mut known: HashMap<u64, Result<Vec<f64>, NotChecked>> = HashMap::new();
            let mut at = |t: f64, w: &[f64]| {
                let evaluate = || match function.evaluate(&moved(t), &[]) {
                    Ok((y, _)) => Ok(y),
                    Err(Error::BranchChanged { guard, location, .. }) => {
                        Err(NotChecked::BranchChanges(format!("{guard} at {location}")))
                    }
                    Err(_) => Err(NotChecked::NotFinite),
                };
                known.entry(t.to_bits()).or_insert_with(evaluate).as_ref().map(|y| total(w, y)).map_err(Clone::clone)
            };
            for ((w, adjoint), result) in weights.iter().zip(&adjoints).zip(0..) {
                let forward = total(w, &dy);
                let reverse = adjoint.as_ref().map_or(f64::NAN, |xbar| total(xbar, &d));
                let tolerance = 1e-10 * sizes_of(w, &sizes) + NOTHING;
                let mut partial = forward;
                let finite = forward.is_finite() && reverse.is_finite() && d.iter().any(|&d| d != 0.0);
                let (quotient, mut verdict) = match finite {
                    true => {
                        let rounding = sizes_of(w, &rounding);
                        compare(&mut Along { value: &mut |t| at(t, w), rounding }, forward, tolerance, 1.0)
                    }
                    false => (None, Verdict::NotChecked(NotChecked::NotFinite)),
                };
                if let (Verdict::Disagrees, Some(quotient)) = (&verdict, quotient) {
                    let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
                    let chosen = |t: f64| {
                        let beside = total(w, &tangents(&moved(t)));
                        near(beside, quotient) && !near(beside, forward)
                    };
                    if chosen(1e-6) || chosen(-1e-6) {
                        verdict = Verdict::NotChecked(NotChecked::Kink);
                    }
                }
                if verdict == Verdict::Agrees && (forward - reverse).abs() > tolerance {
                    (partial, verdict) = (reverse, Verdict::Disagrees);
                }
                if matches!(verdict, Verdict::NotChecked(_)) {
                    let mixed = m > SelfCheck::DIRECTIONS;
                    let concerned = if mixed { first..first + m } else { first + result..first + result + 1 };
                    unchecked[concerned].fill(true);
                }
                let row = if m > SelfCheck::DIRECTIONS { head } else { head + result };
                let comparison = || RowComparison {
                    name: data.value_name(data.first_row() + row, Accent::None).to_string(),
                    operation: data.row_formula(row, &Formulas::new()).to_string(),
                    operand: match single {
                        true => data.operand_name(operands[number]).to_string(),
                        false => "(a mixture of all operands)".to_owned(),
                    },
                    operands: x[..x.len().min(SelfCheck::DIRECTIONS)].to_vec(),
                    partial: partial / scale,
                    quotient: quotient.map(|quotient| quotient / scale),
                    verdict: verdict.clone(),
                    location: data.location(head).clone(),
                };
                check.take_note(&verdict, comparison);
            }
        }
    }

    /// The derivatives of the outputs in each direction, in three ways.
    fn check_outputs(
        &self,
        x: &[f64],
        values: &[f64],
        unchecked: &[bool],
        derivatives: &Derivatives<'_>,
        check: &mut SelfCheck,
    ) -> Result<(), Error> {
        let m = self.num_outputs();
        let unit = |i: usize| (0..m).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
        let rows: Vec<Vec<f64>> = (0..m).map(|i| (derivatives.adjoints)(x, &unit(i))).collect::<Result<_, _>>()?;
        let still = vec![0.0; self.num_inputs()];
        let rounding = self.sums_over_paths(values, &still, &|value| f64::EPSILON * value.abs());
        check.rounding = self.data.outputs.iter().map(|&output| rounding[output as usize]).collect();
        let mut ws = Workspace::new();
        for (direction, d) in check.directions.iter().enumerate() {
            let tangents = (derivatives.tangents)(x, d)?;
            let sizes = self.sums_over_paths(values, d, &|_| 0.0);
            // All outputs at a step come at once and are kept for the next one.
            let mut known: HashMap<u64, Result<Vec<f64>, NotChecked>> = HashMap::new();
            let mut at = |t: f64, output: usize| {
                let evaluate = || {
                    let there: Vec<f64> =
                        x.iter().zip(d).map(|(&x, &d)| if d == 0.0 { x } else { x + t * d }).collect();
                    let mut y = vec![0.0; m];
                    match self.eval_into(&mut ws, &there, &mut y) {
                        Ok(()) => Ok(y),
                        Err(Error::BranchChanged { guard, location, .. }) => {
                            Err(NotChecked::BranchChanges(format!("{guard} at {location}")))
                        }
                        Err(_) => Err(NotChecked::NotFinite),
                    }
                };
                known.entry(t.to_bits()).or_insert_with(evaluate).as_ref().map(|y| y[output]).map_err(Clone::clone)
            };
            for (output, row) in rows.iter().enumerate() {
                // By the strict rule, as in the sweeps.
                let reverse = row.iter().zip(d).map(|(&a, &d)| Rule::chain_mul(a, d)).sum::<f64>() + 0.0;
                let forward = tangents[output];
                // What rounding may do to sums over all paths through the tape, and
                // underflow to adjoints, which are not scaled by d.
                let tolerance = 1e-10 * sizes[self.data.outputs[output] as usize]
                    + 1e-312 * d.iter().map(|d| d.abs()).sum::<f64>()
                    + NOTHING;
                let sweeps = match forward.is_finite() && reverse.is_finite() {
                    // A NaN tolerance comes from an infinite partial inside.
                    true if (forward - reverse).abs() > tolerance => Verdict::Disagrees,
                    true => Verdict::Agrees,
                    false => Verdict::NotChecked(NotChecked::NotFinite),
                };
                let finite = sweeps != Verdict::NotChecked(NotChecked::NotFinite) && d.iter().any(|&d| d != 0.0);
                let (quotient, mut difference) = match finite {
                    true => {
                        let rounding = check.rounding[output];
                        compare(&mut Along { value: &mut |t| at(t, output), rounding }, forward, tolerance, 1.0)
                    }
                    false => (None, Verdict::NotChecked(NotChecked::NotFinite)),
                };
                if let (Verdict::Disagrees, Some(quotient)) = (&difference, quotient) {
                    // A point that stands alone, as where select_eq holds: beside it the
                    // derivative is another one, and right.
                    let chosen = |t: f64| {
                        let there: Vec<f64> = x.iter().zip(d).map(|(&x, &d)| x + t * d).collect();
                        let beside = (derivatives.tangents)(&there, d).map_or(f64::NAN, |dy| dy[output]);
                        let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
                        near(beside, quotient) && !near(beside, forward)
                    };
                    if chosen(1e-6) || chosen(-1e-6) {
                        difference = Verdict::NotChecked(NotChecked::Kink);
                    }
                }
                if difference == Verdict::Disagrees && unchecked[self.data.outputs[output] as usize] {
                    // Kinks may add up to a smooth function, whose slope none of the
                    // slopes chosen at them gives: relu(x) − relu(−x) at 0.
                    difference = Verdict::NotChecked(NotChecked::Kink);
                }
                check.comparisons.push(Comparison {
                    direction,
                    output,
                    forward,
                    reverse,
                    sweeps,
                    quotient,
                    difference,
                });
            }
        }
        Ok(())
    }

    /// For each value the sum over all paths to it of |partials|·size, where a
    /// path may start at an input, with its size, and at a row, with `own` of its
    /// value: what rounding does to a tangent, or to a value, is in proportion.
    fn sums_over_paths(&self, values: &[f64], inputs: &[f64], own: &dyn Fn(f64) -> f64) -> Vec<f64> {
        let data = &*self.data;
        let mut sums = vec![0.0; data.num_values()];
        for (sum, size) in sums[data.first_input()..].iter_mut().zip(inputs) {
            *sum = size.abs();
        }
        for index in data.first_row()..data.num_values() {
            let (head, result) = data.head(index - data.first_row());
            if let Some(function) = data.function(head) {
                if result == 0 {
                    let of = |from: &[f64]| -> Vec<f64> {
                        data.operands(head).iter().map(|&operand| from[operand as usize]).collect()
                    };
                    let results = index..index + function.num_results();
                    let found = sums_of_call(function, &of(values), &values[results.clone()], &of(&sums), own);
                    sums[results].copy_from_slice(&found);
                }
            } else if data.active[index] {
                let row = RowAt::new(data, values, index - data.first_row());
                let terms = row.operands.iter().enumerate();
                let term = |(i, &operand): (usize, &u32)| {
                    // What underflows in a partial counts as well.
                    Rule::chain_mul(row.partial(i).abs() + 1e-312, sums[operand as usize])
                };
                sums[index] = terms.map(term).fold(own(values[index]), |sum, term| sum + term);
            }
        }
        sums
    }
}

/// [`Tape::sums_over_paths`] for the results y of a function at x, whose operands
/// have these sums. Infinite where it cannot be evaluated.
///
/// Along the rows of a loop; by the partials of all else, if there are few, or as
/// far as sums with random signs tell.
fn sums_of_call(function: &Function, x: &[f64], y: &[f64], sizes: &[f64], own: &dyn Fn(f64) -> f64) -> Vec<f64> {
    let n = x.len();
    let unknown = || vec![f64::INFINITY; y.len()];
    let Some(rolled) = function.as_loop() else {
        let mixtures = n > SelfCheck::DIRECTIONS;
        let seeds: Vec<f64> = match mixtures {
            // Row-major, a row an operand.
            true => {
                let signs = directions(&vec![1.0; n]);
                (0..n).flat_map(|i| signs.iter().map(move |d| d[i].signum())).collect()
            }
            false => (0..n * n).map(|at| if at / n == at % n { 1.0 } else { 0.0 }).collect(),
        };
        let k = seeds.len() / n;
        let scaled: Vec<f64> = seeds.iter().enumerate().map(|(at, seed)| seed * sizes[at / k]).collect();
        let Ok((_, dy)) = function.evaluate(x, &scaled) else { return unknown() };
        let sum = |(tangents, &y): (&[f64], &f64)| {
            let own = own(y);
            match mixtures {
                true => own + (n as f64 / k as f64 * tangents.iter().map(|t| t * t).sum::<f64>()).sqrt(),
                false => tangents.iter().fold(own, |sum, t| sum + t.abs()),
            }
        };
        return dy.chunks(k).zip(y).map(sum).collect();
    };
    let operands = Pass { x: x.to_vec(), dx: sizes.to_vec() };
    let mut carry = Pass::initial(rolled, &operands);
    let (mut values, mut sums) = (vec![0.0; y.len()], vec![0.0; y.len()]);
    let mut ws = Workspace::new();
    for iteration in 0..rolled.count {
        let inputs = Pass::of_body(rolled, iteration, &operands, &carry);
        if rolled.body.reference(&mut ws, &inputs.x).is_err() {
            return unknown();
        }
        let inner = rolled.body.sums_over_paths(&ws.values, &inputs.dx, own);
        let of_outputs = |from: &[f64]| -> Vec<f64> {
            rolled.body.data.outputs.iter().map(|&output| from[output as usize]).collect()
        };
        let (outputs, inner) = (of_outputs(&ws.values), of_outputs(&inner));
        carry.take_carry(rolled, iteration, &outputs, &inner);
        for (output, (&value, &size)) in outputs.iter().zip(&inner).enumerate() {
            if let Given::Result(result) = rolled.given(output, iteration) {
                values[result] += value;
                sums[result] += size;
                if rolled.is_summed() && iteration > 0 {
                    sums[result] += own(values[result]);
                }
            }
        }
    }
    sums[..carry.dx.len()].copy_from_slice(&carry.dx);
    sums
}

/// The directions to check: each input by itself, or sixteen mixtures of all.
///
/// Their entries have few digits, so that a step is added without rounding.
fn directions(x: &[f64]) -> Vec<Vec<f64>> {
    let scale = |x: f64| if x.is_finite() { binade(x) } else { 0.0 };
    if x.len() <= SelfCheck::DIRECTIONS {
        return (0..x.len()).map(|i| (0..x.len()).map(|j| if i == j { scale(x[j]) } else { 0.0 }).collect()).collect();
    }
    // SplitMix64, from a fixed seed: the same directions every time.
    let mut state = 0u64;
    let mut random = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) >> 59
    };
    // Odd multiples of 1/32 in (−1, 1): never 0.
    let mut entry = |x: f64| scale(x) * ((2.0 * random() as f64 - 31.0) / 32.0);
    (0..SelfCheck::DIRECTIONS).map(|_| x.iter().map(|&x| entry(x)).collect()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The report on a tape whose derivatives were replaced in part.
    fn report(
        tape: &Tape,
        x: &[f64],
        forward: f64,
        reverse: f64,
        wrong: impl Fn(Op, usize, usize, &[f64], &[f64]) -> f64,
    ) -> SelfCheck {
        let derivatives = Derivatives {
            tangents: &|x, p| Ok(tape.jvp(x, p)?.1.into_iter().map(|dy| dy * forward).collect()),
            adjoints: &|x, w| Ok(tape.vjp(x, w)?.1.into_iter().map(|xbar| xbar * reverse).collect()),
            partial: &wrong,
        };
        tape.check_derivatives(x, &derivatives).unwrap()
    }

    fn example() -> Tape {
        Tape::record(&[2.0, 4.0], |x| [x[0].cos() + x[0] * x[1] - x[1].exp(), x[0].ln() * x[1]]).unwrap()
    }

    #[test]
    fn a_wrong_sweep_is_found() {
        let x = [2.0, 4.0];
        assert!(report(&example(), &x, 1.0, 1.0, partial).passed());
        let forward = report(&example(), &x, 1.0 + 1e-4, 1.0, partial);
        assert!(!forward.passed() && forward.first_disagreement.is_none());
        assert!(forward.comparisons.iter().all(|c| c.sweeps == Verdict::Disagrees), "{forward}");
        assert!(forward.comparisons.iter().all(|c| c.difference == Verdict::Disagrees), "{forward}");
        let reverse = report(&example(), &x, 1.0, 1.0 - 1e-4, partial);
        assert!(reverse.comparisons.iter().all(|c| c.sweeps == Verdict::Disagrees), "{reverse}");
        // Both wrong in the same way: the quotient alone can tell.
        let both = report(&example(), &x, -1.0, -1.0, partial);
        assert!(both.comparisons.iter().all(|c| c.sweeps == Verdict::Agrees), "{both}");
        assert!(both.comparisons.iter().all(|c| c.difference == Verdict::Disagrees), "{both}");
        assert!(both.to_string().starts_with("self-check FAILED\n"), "{both}");
    }

    #[test]
    fn the_first_wrong_row_is_named() {
        // exp and ln are both wrong: exp comes first.
        let check = report(&example(), &[2.0, 4.0], 1.0, 1.0, |op, result, operand, x, v| match op {
            Op::Exp | Op::Ln => partial(op, result, operand, x, v) * (1.0 + 1e-4),
            _ => partial(op, result, operand, x, v),
        });
        assert!(!check.passed());
        let row = check.first_disagreement.as_ref().unwrap();
        assert_eq!((row.name.as_str(), row.operation.as_str(), row.operand.as_str()), ("v₄", "exp(v₀)", "v₀"));
        assert_eq!(row.operands, [4.0]);
        assert!((row.quotient.unwrap() - 4f64.exp()).abs() < 1e-6);
        assert!(row.location.file().ends_with("check.rs") && row.location.line() > 0);
        assert!(check.to_string().contains("the first row that disagrees: v₄ = exp(v₀)"), "{check}");
    }

    #[test]
    fn a_wrong_partial_of_a_fold_or_a_second_result_is_found() {
        let tape = Tape::record(&[2.0, 3.0], |x| {
            let (s, c) = x[0].sin_cos();
            Rule::dot(&[s, x[1], x[0]], &[c, x[0], x[1]])
        })
        .unwrap();
        assert!(report(&tape, &[2.0, 3.0], 1.0, 1.0, partial).passed());
        for (op, result, operand) in [(Op::SinCos, 1, 0), (Op::Dot, 0, 1)] {
            let check = report(&tape, &[2.0, 3.0], 1.0, 1.0, |other, r, i, x, v| {
                let wrong = (op, result, operand) == (other, r, i);
                partial(other, r, i, x, v) + if wrong { 0.01 } else { 0.0 }
            });
            let row = check.first_disagreement.unwrap();
            assert_eq!(row.name, if op == Op::SinCos { "v₂" } else { "v₃" });
        }
    }

    #[test]
    fn the_shortest_edit_is_short() {
        assert_eq!(shortest_edit(&[1, 2, 3], &[1, 2, 3]), Some(vec![(0, 0), (1, 1), (2, 2)]));
        assert_eq!(shortest_edit(&[], &[1]), Some(vec![]));
        // The example of Myers' paper: abcabba and cbabac have four letters in common.
        let pairs = shortest_edit(&[1, 2, 3, 1, 2, 2, 1], &[3, 2, 1, 2, 1, 3]).unwrap();
        assert_eq!(pairs.len(), 4);
        assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
    }

    #[test]
    fn anchors_ascend_on_both_sides() {
        assert_eq!(anchors(&[1, 2, 3, 4], &[9, 2, 1, 3, 4]), [(1, 1), (2, 3), (3, 4)]);
        assert_eq!(anchors(&[5, 5], &[5, 5, 5]), [(0, 0), (1, 1)]);
    }
}
