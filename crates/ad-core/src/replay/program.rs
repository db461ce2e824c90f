//! Freezing: a tape lowered to the program that the engines run.
//!
//! A program computes what its tape computes, bit for bit, adjoints included,
//! with fewer and plainer rows:
//!
//! - Values are numbered [passive | inputs | rows]: constants, parameters and
//!   what depends on parameters alone come first, so that an operand is active
//!   (depends on an input) if its number is not below that of the first input.
//!   The rows among the passive values are a program of their own, the
//!   prologue, which is run once for each set of parameters.
//! - Rows that reach neither an output nor a guard are gone.
//! - A product that the next row adds or subtracts is one row with it, and a
//!   loop of such additions is one row, a chain. Each keeps its roundings. Only
//!   neighbours are joined, so that the adjoints of their operands receive
//!   their contributions in the order of the recording.
//! - The program for forward sweeps stores a result where a value was that is
//!   no longer needed. That for reverse sweeps keeps every value.

use std::sync::OnceLock;

use crate::ops::{Code, Fold, Op, Operation, ProgramVisitor};
use crate::replay::{engine, shape};
use crate::tape::TapeData;

/// A tape made ready to run.
///
/// The words of a row are its operands and then its results. A row of any
/// number of operands has that number before and after them, so that a program
/// can be read from either end.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// The rows that depend on parameters alone.
    pub prologue: Rows,
    /// The rows that depend on an input.
    pub rows: Rows,
    /// The number of slots, [passive | inputs | rows].
    pub num_slots: usize,
    pub first_input: usize,
    pub outputs: Vec<u32>,
    /// The slots of the operands of the guards, in the order of the recording.
    pub guards: Vec<[u32; 2]>,
}

/// Rows of a program, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub codes: Vec<Code>,
    pub words: Vec<u32>,
}

/// Which program is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// For values and tangents: slots are used again.
    Forward,
    /// For adjoints: every value stays.
    Reverse,
}

/// The programs of a tape, each made when it is first wanted.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    forward: OnceLock<Program>,
    reverse: OnceLock<Program>,
}

impl Programs {
    /// The program for values and tangents.
    pub fn forward(&self, data: &TapeData) -> &Program {
        self.forward.get_or_init(|| Program::new(data, Direction::Forward))
    }

    /// The program for adjoints.
    pub fn reverse(&self, data: &TapeData) -> &Program {
        self.reverse.get_or_init(|| Program::new(data, Direction::Reverse))
    }
}

/// Additions of products in a row from which on they make a chain.
const CHAIN: usize = 4;

/// The words of a row: how many operands, how many results, or any number of operands.
#[derive(Clone, Copy)]
struct Shape {
    operands: usize,
    results: usize,
    counted: bool,
}

impl ProgramVisitor for Shape {
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self) {
        *self = Shape { operands: N, results: M, counted: false };
    }
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self) {
        *self = Shape { operands: 2, results: 1, counted: false };
    }
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self) {
        *self = Shape { operands: 3, results: 1, counted: false };
    }
    fn fold<O: Fold>(&mut self) {
        *self = Shape { operands: 0, results: 1, counted: true };
    }
    fn chain<O: Fold, const INITIAL: bool>(&mut self) {
        *self = Shape { operands: 0, results: 1, counted: true };
    }
}

/// The shapes of all codes.
struct Shapes(Vec<Shape>);

impl Shapes {
    fn new() -> Shapes {
        let shape = |code| {
            let mut shape = Shape { operands: 0, results: 0, counted: false };
            Code(code).visit(&mut shape);
            shape
        };
        Shapes((0..=u8::MAX).map(shape).collect())
    }

    /// The words of the row that begins at `at`: those of operands, those of results, and the end.
    #[inline(always)]
    fn of(&self, code: Code, words: &[u32], at: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>, usize) {
        let Shape { operands, results, counted } = self.0[code.0 as usize];
        if counted {
            let last = at + 1 + words[at] as usize;
            (at + 1..last, last..last + 1, last + 2)
        } else {
            let last = at + operands;
            (at..last, last..last + results, last + results)
        }
    }
}

/// Counts the rows that read each value, up to 2; 2 for outputs and operands of
/// guards. What reaches neither has none.
fn count_uses(data: &TapeData) -> Vec<u8> {
    let mut uses = vec![0_u8; data.num_values()];
    for &output in &data.outputs {
        uses[output as usize] = 2;
    }
    for guard in &data.guards {
        for &operand in &guard.operands[..guard.question.operands()] {
            uses[operand as usize] = 2;
        }
    }
    let first_row = data.first_row();
    let mut needed = false;
    for row in (0..data.num_rows()).rev() {
        // A row that holds a further result comes below the row of its operation.
        needed |= uses[first_row + row] > 0;
        if data.op(row) == Op::FurtherResult {
            continue;
        }
        if std::mem::take(&mut needed) {
            for &operand in data.operands(row) {
                let uses = &mut uses[operand as usize];
                *uses = (*uses + 1).min(2);
            }
        }
    }
    uses
}

/// The rows of a program under construction, still with the tape's numbers of values.
struct Lowering<'a> {
    data: &'a TapeData,
    uses: Vec<u8>,
    rows: Rows,
    /// The (first) result of each row.
    results: Vec<u32>,
    /// How many rows at the end each add a product to the result of the one before.
    linked: usize,
}

impl Lowering<'_> {
    fn emit(&mut self, code: Code, words: &[u32], result: u32) {
        self.rows.codes.push(code);
        self.rows.words.extend_from_slice(words);
        self.results.push(result);
    }

    /// Takes the last row off again, which has so many words.
    fn pop<const WORDS: usize>(&mut self) -> [u32; WORDS] {
        self.rows.codes.pop();
        self.results.pop();
        let start = self.rows.words.len() - WORDS;
        let words = std::array::from_fn(|i| self.rows.words[start + i]);
        self.rows.words.truncate(start);
        words
    }

    fn is_active(&self, value: u32) -> bool {
        self.data.active[value as usize]
    }

    /// Which of the operands are active, a bit each.
    fn active(&self, operands: &[u32]) -> u8 {
        operands.iter().enumerate().map(|(i, &operand)| u8::from(self.is_active(operand)) << i).sum()
    }

    /// Whether the row of `value` is the one that stands `back` rows before the
    /// end, and nothing else reads it.
    fn is_link(&self, value: u32, back: usize) -> bool {
        self.uses[value as usize] == 1
            && self.results.len() > back
            && self.results[self.results.len() - 1 - back] == value
    }

    fn op_of(&self, value: u32) -> Op {
        self.data.op(value as usize - self.data.first_row())
    }

    /// Emits the active row `row`, joined with those before it where it can be.
    fn lower(&mut self, row: usize) {
        let data = self.data;
        let (op, operands) = (data.op(row), data.operands(row));
        let result = (data.first_row() + row) as u32;
        if let &[x, y] = operands {
            for (at, inner, other) in [(1, y, x), (0, x, y)] {
                if self.is_link(inner, 0) && self.fuse(op, at, inner, other, result) {
                    return;
                }
            }
            self.linked = 0;
            if let Some(code) = Code::operator(op, self.active(&[x, y])) {
                return self.emit(code, &[x, y, result], result);
            }
        }
        self.linked = 0;
        let (_, results) = shape(op, operands.len());
        if op.fold_stride().is_some() {
            if let Some(code) = self.chain_of_terms(op, operands) {
                return self.emit_terms(code, operands.len(), result);
            }
            let count = operands.len() as u32;
            self.rows.words.push(count);
            self.rows.words.extend_from_slice(operands);
            return self.emit(Code::operation(op), &[result, count], result);
        }
        self.rows.words.extend_from_slice(operands);
        self.rows.words.extend(result..result + results as u32);
        self.emit(Code::operation(op), &[], result);
    }

    /// Joins the last row, whose result is `inner`, with the row `op` that reads
    /// it as operand `at`, if there is a code for both.
    fn fuse(&mut self, op: Op, at: usize, inner: u32, other: u32, result: u32) -> bool {
        let inner_op = self.op_of(inner);
        let Some((start, &[a, b, _])) = self.rows.words.split_last_chunk::<3>().map(|(start, row)| (start.len(), row))
        else {
            return false;
        };
        if self.rows.codes.last().copied() != Code::operator(inner_op, self.active(&[a, b])) {
            return false;
        }
        let Some(code) = Code::fused(inner_op, op, at, self.active(&[a, b, other])) else { return false };
        self.rows.words.truncate(start);
        self.rows.codes.pop();
        self.results.pop();
        let follows = self.is_link(other, 0);
        match code.chain_of_fused() {
            Some(chain) if follows && self.rows.codes.last() == Some(&chain) => self.extend_chain([a, b], result),
            Some(chain) => {
                self.linked = if follows && self.linked > 0 { self.linked + 1 } else { 1 };
                self.emit(code, &[a, b, other, result], result);
                if self.linked == CHAIN {
                    self.begin_chain(chain, result);
                }
            }
            None => {
                self.linked = 0;
                self.emit(code, &[a, b, other, result], result);
            }
        }
        true
    }

    /// Makes one row of the last rows, each of which adds a product to the one before.
    fn begin_chain(&mut self, chain: Code, result: u32) {
        let mut initial = 0;
        let mut terms = [[0; 2]; CHAIN];
        for term in terms.iter_mut().rev() {
            let [a, b, before, _] = self.pop();
            *term = [a, b];
            initial = before;
        }
        let count = 1 + 2 * CHAIN as u32;
        self.rows.words.extend([count, initial]);
        self.rows.words.extend_from_slice(terms.as_flattened());
        self.emit(chain, &[result, count], result);
        self.linked = 0;
    }

    /// Adds a term to the last row, which is a chain.
    fn extend_chain(&mut self, term: [u32; 2], result: u32) {
        let words = &mut self.rows.words;
        if let Some(count) = words.pop() {
            words.pop();
            let start = words.len() - count as usize - 1;
            words[start] = count + 2;
            words.extend(term);
            words.extend([result, count + 2]);
        }
        if let Some(last) = self.results.last_mut() {
            *last = result;
        }
    }

    /// The chain that the fold of these operands is, if the last rows are theirs in their order.
    fn chain_of_terms(&self, op: Op, operands: &[u32]) -> Option<Code> {
        let terms = operands.len();
        let (&first, _) = operands.split_first()?;
        if !operands.iter().enumerate().all(|(i, &operand)| self.is_link(operand, terms - 1 - i)) {
            return None;
        }
        let term = self.op_of(first);
        let code = Code::chain_of_terms(term, op)?;
        let rows = &self.rows.codes[self.rows.codes.len() - terms..];
        let plain = |code: &Code| (1..4).any(|active| Code::operator(term, active) == Some(*code));
        rows.iter().all(plain).then_some(code)
    }

    /// Makes one row of the last rows, each a term of two operands.
    fn emit_terms(&mut self, code: Code, terms: usize, result: u32) {
        let start = self.rows.words.len() - 3 * terms;
        let count = 2 * terms as u32;
        let operands: Vec<u32> = self.rows.words[start..].chunks_exact(3).flat_map(|row| [row[0], row[1]]).collect();
        self.rows.words.truncate(start);
        self.rows.codes.truncate(self.rows.codes.len() - terms);
        self.results.truncate(self.results.len() - terms);
        self.rows.words.push(count);
        self.rows.words.extend(operands);
        self.emit(code, &[result, count], result);
    }
}

/// No row reads the value.
const UNREAD: u32 = u32::MAX;
/// The value is needed to the end.
const KEPT: u32 = u32::MAX - 1;

impl Program {
    /// The program of a tape.
    pub fn new(data: &TapeData, direction: Direction) -> Program {
        let uses = count_uses(data);
        let first_row = data.first_row();
        let mut slot_of = vec![0_u32; data.num_values()];
        let mut next = 0;
        let mut number = |slots: &mut [u32]| {
            for slot in slots {
                *slot = next;
                next += 1;
            }
            next
        };
        number(&mut slot_of[..data.first_input()]);
        number(&mut slot_of[data.first_param()..first_row]);
        let mut prologue = Rows::default();
        for &row in &data.param_rows {
            let row = row as usize;
            let op = data.op(row);
            let results = shape(op, data.operands(row).len()).1;
            let values = first_row + row..first_row + row + results;
            if op == Op::FurtherResult || uses[values.clone()].iter().all(|&uses| uses == 0) {
                continue;
            }
            number(&mut slot_of[values.clone()]);
            let operands = data.operands(row);
            prologue.codes.push(Code::operation(op));
            let counted = op.fold_stride().is_some().then_some(operands.len() as u32);
            prologue.words.extend(counted);
            prologue.words.extend(operands.iter().map(|&operand| slot_of[operand as usize]));
            prologue.words.extend_from_slice(&slot_of[values]);
            prologue.words.extend(counted);
        }
        let first_input = number(&mut []);
        let first_result = number(&mut slot_of[data.first_input()..data.first_param()]);

        let rows = Rows { codes: Vec::with_capacity(data.num_rows()), words: Vec::with_capacity(3 * data.num_rows()) };
        let mut lowering = Lowering { data, uses, rows, results: Vec::with_capacity(data.num_rows()), linked: 0 };
        for span in &data.spans {
            for row in span.clone() {
                let results = shape(data.op(row), data.operands(row).len()).1;
                if lowering.uses[first_row + row..first_row + row + results].iter().any(|&uses| uses > 0) {
                    lowering.lower(row);
                }
            }
        }
        let Lowering { mut rows, .. } = lowering;
        let kept = data.outputs.iter().chain(data.guards.iter().flat_map(|guard| &guard.operands)).copied();
        let num_slots = match direction {
            Direction::Forward => rows.share_slots(&mut slot_of, first_result, kept),
            Direction::Reverse => rows.number_slots(&mut slot_of, first_result),
        };
        rows.codes.shrink_to_fit();
        rows.words.shrink_to_fit();
        Program {
            prologue,
            rows,
            num_slots: num_slots as usize,
            first_input: first_input as usize,
            outputs: data.outputs.iter().map(|&output| slot_of[output as usize]).collect(),
            guards: data
                .guards
                .iter()
                .map(|guard| guard.operands.map(|operand| slot_of[operand as usize]))
                .collect(),
        }
    }
}

impl Program {
    /// The passive values for the given parameters.
    pub fn passive(&self, data: &TapeData, params: &[f64]) -> Vec<f64> {
        let mut passive = Vec::with_capacity(self.first_input);
        passive.extend_from_slice(&data.constants);
        passive.extend_from_slice(params);
        passive.resize(self.first_input, 0.0);
        engine::forward::<1>(&self.prologue, 0, passive.as_chunks_mut().0);
        passive
    }
}

impl Rows {
    /// Gives every result a slot of its own, from `next` on, and returns the number of slots.
    fn number_slots(&mut self, slot_of: &mut [u32], mut next: u32) -> u32 {
        let shapes = Shapes::new();
        let mut at = 0;
        for &code in &self.codes {
            let (operands, results, end) = shapes.of(code, &self.words, at);
            for word in &mut self.words[operands] {
                *word = slot_of[*word as usize];
            }
            for word in &mut self.words[results] {
                slot_of[*word as usize] = next;
                *word = next;
                next += 1;
            }
            at = end;
        }
        next
    }

    /// Gives results the slots of values that no later row reads, and new ones
    /// where none is free; returns the number of slots.
    fn share_slots(&mut self, slot_of: &mut [u32], mut next: u32, kept: impl Iterator<Item = u32>) -> u32 {
        let shapes = Shapes::new();
        let mut last_read = vec![UNREAD; slot_of.len()];
        let mut at = 0;
        for (row, &code) in self.codes.iter().enumerate() {
            let (operands, _, end) = shapes.of(code, &self.words, at);
            for &word in &self.words[operands] {
                last_read[word as usize] = row as u32;
            }
            at = end;
        }
        for value in kept {
            last_read[value as usize] = KEPT;
        }
        let first_shared = next;
        let (mut free, mut unread) = (Vec::new(), Vec::new());
        let mut at = 0;
        for (row, &code) in self.codes.iter().enumerate() {
            let (operands, results, end) = shapes.of(code, &self.words, at);
            for word in &mut self.words[results] {
                let slot = free.pop().unwrap_or_else(|| {
                    next += 1;
                    next - 1
                });
                slot_of[*word as usize] = slot;
                unread.extend((last_read[*word as usize] == UNREAD).then_some(slot));
                *word = slot;
            }
            free.append(&mut unread);
            for word in &mut self.words[operands] {
                let value = *word as usize;
                *word = slot_of[value];
                if last_read[value] == row as u32 && *word >= first_shared {
                    free.push(*word);
                    // Not again for a second operand.
                    last_read[value] = KEPT;
                }
            }
            at = end;
        }
        next
    }
}
