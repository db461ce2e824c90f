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
//! - A product that the next row adds, subtracts or multiplies is one row with it, and a
//!   loop of such additions is one row, a chain. Each keeps its roundings. Only
//!   neighbours are joined, so that the adjoints of their operands receive
//!   their contributions in the order of the recording.
//! - The program for forward sweeps stores a result where a value was that is
//!   no longer needed. That for reverse sweeps keeps every value.

use std::ops::Range;
use std::sync::OnceLock;

use crate::function::Function;
use crate::ops::{Code, Fold, Op, Operation, ProgramVisitor};
use crate::replay::engine;
use crate::replay::runs::Run;
use crate::tape::TapeData;

/// A tape made ready to run.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// The rows that depend on parameters alone.
    pub prologue: Vec<Row>,
    /// The rows that depend on an input.
    pub rows: Vec<Row>,
    /// Those of them that the scalar engine runs as loops, for reverse sweeps.
    pub runs: Vec<Run>,
    /// Whether it is for adjoints.
    pub is_reverse: bool,
    /// The rows that call functions.
    pub calls: Vec<CallRow>,
    /// The operands of the rows that have more than three; before those of a call
    /// the number of its function.
    pub wide: Vec<u32>,
    /// The number of slots, [passive | inputs | rows].
    pub num_slots: usize,
    pub first_input: usize,
    /// The inputs, by number, that are no weights: see [`Weights`].
    pub unweighted: Vec<usize>,
    pub outputs: Vec<u32>,
    /// The slots of the operands of the guards, in the order of the recording.
    pub guards: Vec<[u32; 2]>,
}

/// A row that calls a function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallRow {
    /// Its number among them.
    pub number: usize,
    /// Its place among the rows.
    pub at: usize,
    /// Which row of the tape it is.
    pub row: usize,
    /// The slot of the first operand, if the others are in the slots after it in their order.
    pub first: Option<usize>,
}

/// A row of a program, 20 bytes, so that the loop over the rows reads them
/// straight from a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub code: Code,
    /// The slots of the operands, of a pair in the order a, b, c; of a row with
    /// more than three the place of the first in [`Program::wide`], their number,
    /// and for a chain its [`Weights`], for a call the number of its results.
    pub x: [u32; 3],
    /// The slot of the first result; further ones follow.
    pub result: u32,
}

impl Row {
    /// The operands of a row with more than three.
    #[inline(always)]
    pub fn wide(self, wide: &[u32]) -> &[u32] {
        &wide[self.x[0] as usize..][..self.x[1] as usize]
    }
}

/// Which factor of the terms of a chain is an input that no other row and no
/// output reads, in each term the same one, while the other factor is neither an
/// input nor a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    Neither,
    First,
    Second,
}

impl Row {
    /// Which factor of the terms of a chain is a weight.
    #[inline(always)]
    pub fn weights(self) -> Weights {
        match self.x[2] {
            1 => Weights::First,
            2 => Weights::Second,
            _ => Weights::Neither,
        }
    }
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

/// The number of operands that a row holds itself, 0 for any other number, the
/// number of its results, and that of the slots it takes.
struct Shape(usize, usize, usize);

impl ProgramVisitor for Shape {
    type Row = ();
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, (): ()) {
        *self = Shape(if N > INLINE { 0 } else { N }, M, M);
    }
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, (): ()) {
        *self = Shape(2, 1, 1);
    }
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, (): ()) {
        *self = Shape(3, 1, 1);
    }
    fn kept<O: Operation<1, 1>>(&mut self, (): ()) {
        *self = Shape(1, 1, 2);
    }
    fn fold<O: Fold>(&mut self, (): ()) {
        *self = Shape(0, 1, 1);
    }
    fn chain<O: Fold, const INITIAL: bool>(&mut self, (): ()) {
        *self = Shape(0, 1, 1);
    }
}

/// For a chain of terms of two operands, how many operands stand before them.
struct ChainTerms(Option<usize>);

impl ProgramVisitor for ChainTerms {
    type Row = ();
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, (): ()) {}
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, (): ()) {}
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, (): ()) {}
    fn kept<O: Operation<1, 1>>(&mut self, (): ()) {}
    fn fold<O: Fold>(&mut self, (): ()) {}
    fn chain<O: Fold, const INITIAL: bool>(&mut self, (): ()) {
        self.0 = (O::STRIDE == 2).then_some(usize::from(INITIAL));
    }
}

impl Row {
    /// Whether this is the operator alone, not joined with other rows.
    fn is_operator(&self, op: Op) -> bool {
        (0b01..=0b11).any(|active| Code::operator(op, active) == Some(self.code))
    }

    /// The operands, for a pass over the program, the number of results, and
    /// that of slots.
    #[inline(always)]
    fn parts<'a>(&'a mut self, wide: &'a mut [u32]) -> (&'a mut [u32], usize, usize) {
        // That of a call, but for its results.
        let mut shape = Shape(0, 0, 0);
        self.code.visit(&mut shape, ());
        match shape {
            Shape(0, 0, 0) => {
                let results = self.x[2] as usize;
                (&mut wide[self.x[0] as usize..][..self.x[1] as usize], results, results)
            }
            Shape(0, results, slots) => (&mut wide[self.x[0] as usize..][..self.x[1] as usize], results, slots),
            Shape(operands, results, slots) => (&mut self.x[..operands], results, slots),
        }
    }
}

/// Counts the rows that read each value, up to 2; 2 for outputs and operands of
/// guards, and for the results of a function that has guards itself. What
/// reaches none of these has none.
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
        if data.function(row).is_some_and(Function::is_guarded) {
            uses[first_row + row] = 2;
            needed = true;
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
    rows: Vec<Row>,
    wide: Vec<u32>,
    /// Whether rows may keep their partials.
    keeping: bool,
}

impl Lowering<'_> {
    fn is_active(&self, value: u32) -> bool {
        self.data.active[value as usize]
    }

    /// Which of the operands are active, a bit each.
    fn active<const N: usize>(&self, operands: [u32; N]) -> u8 {
        (0..N).map(|i| u8::from(self.is_active(operands[i])) << i).sum()
    }

    /// Whether the row of `value` is the one that stands `back` rows before the
    /// end, and nothing else reads it.
    fn is_link(&self, value: u32, back: usize) -> bool {
        self.rows.len() > back
            && self.rows[self.rows.len() - 1 - back].result == value
            && self.uses[value as usize] == 1
    }

    fn op_of(&self, value: u32) -> Op {
        self.data.op(value as usize - self.data.first_row())
    }

    /// Appends a row with so many operands of its own.
    fn emit(&mut self, code: Code, operands: &[u32], result: u32) {
        let mut x = [0; INLINE];
        x[..operands.len()].copy_from_slice(operands);
        self.rows.push(Row { code, x, result });
    }

    /// Appends a row whose operands stand apart.
    fn emit_wide(&mut self, code: Code, operands: impl IntoIterator<Item = u32>, result: u32) {
        let start = self.wide.len() as u32;
        self.wide.extend(operands);
        self.rows.push(Row { code, x: [start, self.wide.len() as u32 - start, 0], result });
    }

    /// Appends row `row` of the tape as it is.
    fn emit_operation(&mut self, row: usize) {
        let (op, operands) = (self.data.op(row), self.data.operands(row));
        if op == Op::Call {
            self.wide.push(self.data.function_number(row));
            self.emit_wide(Code::Call, operands.iter().copied(), (self.data.first_row() + row) as u32);
            if let Some(call) = self.rows.last_mut() {
                call.x[2] = self.data.num_results(row) as u32;
            }
            return;
        }
        let kept = if self.keeping { Code::kept(op) } else { None };
        let Some(code) = kept.or(Code::operation(op)) else { return };
        let result = (self.data.first_row() + row) as u32;
        if op.fold_stride().is_some() || operands.len() > INLINE {
            self.emit_wide(code, operands.iter().copied(), result);
        } else {
            self.emit(code, operands, result);
        }
    }

    /// Appends the active row `row`, joined with those before it where it can be.
    fn lower(&mut self, row: usize) {
        let data = self.data;
        let (op, operands) = (data.op(row), data.operands(row));
        let result = (data.first_row() + row) as u32;
        if op == Op::Call {
            return self.emit_operation(row);
        }
        if let &[x, y] = operands
            && op.fold_stride().is_none()
        {
            for (at, inner, other) in [(1, y, x), (0, x, y)] {
                if self.is_link(inner, 0) && self.fuse(op, at, inner, other, result) {
                    return;
                }
            }
            match Code::operator(op, self.active([x, y])) {
                Some(code) => self.emit(code, operands, result),
                None => self.emit_operation(row),
            }
            return;
        }
        match self.chain_of_terms(op, operands) {
            Some(code) => {
                let terms = self.rows.split_off(self.rows.len() - operands.len());
                self.emit_wide(code, terms.iter().flat_map(|term| [term.x[0], term.x[1]]), result);
            }
            None => self.emit_operation(row),
        }
    }

    /// Joins the last row, whose result is `inner`, with the row `op` that reads
    /// it as operand `at`, if there is a code for both.
    fn fuse(&mut self, op: Op, at: usize, inner: u32, other: u32, result: u32) -> bool {
        let inner_op = self.op_of(inner);
        let Some(&inner @ Row { x: [a, b, _], .. }) = self.rows.last() else { return false };
        if !inner.is_operator(inner_op) {
            return false;
        }
        let Some(code) = Code::fused(inner_op, op, at, self.active([a, b, other])) else { return false };
        self.rows.pop();
        let follows = self.is_link(other, 0);
        let chain = code.chain_of_fused();
        if let Some(last) = self.rows.last_mut()
            && follows
            && chain == Some(last.code)
            && self.wide.len() < MOST_WIDE
        {
            // The operands of the last chain are the last ones, so it can grow.
            self.wide.extend([a, b]);
            last.x[1] += 2;
            last.result = result;
            return true;
        }
        self.emit(code, &[a, b, other], result);
        if let Some(chain) = chain
            && self.ends_in_links(chain)
            && self.wide.len() < MOST_WIDE
        {
            let links = self.rows.split_off(self.rows.len() - CHAIN);
            let initial = links[0].x[2];
            let terms = links.iter().flat_map(|link| [link.x[0], link.x[1]]);
            self.emit_wide(chain, std::iter::once(initial).chain(terms), result);
        }
        true
    }

    /// Whether the last rows each add a product to the result of the one before,
    /// as many as make a chain.
    fn ends_in_links(&self, chain: Code) -> bool {
        let Some(rows) = self.rows.len().checked_sub(CHAIN).map(|start| &self.rows[start..]) else { return false };
        rows.iter().all(|row| row.code.chain_of_fused() == Some(chain))
            && rows.windows(2).all(|pair| {
                let [first, second] = [pair[0], pair[1]];
                second.x[2] == first.result && self.uses[first.result as usize] == 1
            })
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
        let rows = &self.rows[self.rows.len() - terms..];
        rows.iter().all(|row| row.is_operator(term)).then_some(code)
    }
}

/// More operands apart than this are not made by chains: those of the tape
/// itself have to fit an index as well.
const MOST_WIDE: usize = 1 << 30;
/// The operands that a row holds itself.
const INLINE: usize = 3;
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
        let mut lowering = Lowering { data, uses, rows: Vec::new(), wide: Vec::new(), keeping: false };
        let results = |row: usize| first_row + row..first_row + row + data.num_results(row);
        for &row in &data.param_rows {
            let results = results(row as usize);
            if lowering.uses[results.clone()].iter().any(|&uses| uses > 0) {
                number(&mut slot_of[results]);
                lowering.emit_operation(row as usize);
            }
        }
        let mut prologue = std::mem::take(&mut lowering.rows);
        prologue.shrink_to_fit();
        for row in &mut prologue {
            row.result = slot_of[row.result as usize];
            let (operands, ..) = row.parts(&mut lowering.wide);
            operands.iter_mut().for_each(|operand| *operand = slot_of[*operand as usize]);
        }
        let first_input = number(&mut []);
        let first_result = number(&mut slot_of[data.first_input()..data.first_param()]);

        lowering.keeping = direction == Direction::Reverse;
        lowering.rows.reserve(data.num_rows());
        for span in &data.spans {
            for row in span.clone() {
                if lowering.uses[results(row)].iter().any(|&uses| uses > 0) {
                    lowering.lower(row);
                }
            }
        }
        let Lowering { mut rows, mut wide, .. } = lowering;
        let is_call = |row: &&Row| row.code == Code::Call;
        let calling_rows: Vec<usize> = rows.iter().filter(is_call).map(|row| row.result as usize - first_row).collect();
        let kept = data.outputs.iter().chain(data.guards.iter().flat_map(|guard| &guard.operands)).copied();
        let num_slots = match direction {
            Direction::Forward => share_slots(&mut rows, &mut wide, &mut slot_of, first_result, kept),
            Direction::Reverse => number_slots(&mut rows, &mut wide, &mut slot_of, first_result),
        };
        rows.shrink_to_fit();
        wide.shrink_to_fit();
        let runs = if direction == Direction::Reverse { Run::find(&rows) } else { Vec::new() };
        let calls = (0..rows.len()).filter(|&at| rows[at].code == Code::Call).zip(calling_rows).enumerate();
        let calls = calls.map(|(number, (at, row))| {
            let operands = rows[at].wide(&wide);
            let in_order = operands.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
            CallRow { number, at, row, first: operands.first().filter(|_| in_order).map(|&first| first as usize) }
        });
        let mut program = Program {
            is_reverse: direction == Direction::Reverse,
            calls: calls.collect(),
            prologue,
            rows,
            runs,
            wide,
            num_slots: num_slots as usize,
            first_input: first_input as usize,
            outputs: data.outputs.iter().map(|&output| slot_of[output as usize]).collect(),
            guards: data.guards.iter().map(|guard| guard.operands.map(|operand| slot_of[operand as usize])).collect(),
            unweighted: Vec::new(),
        };
        program.find_weights(data.constants.len(), data.num_inputs);
        program
    }

    /// Marks the chains whose terms each have an input that is read nowhere else.
    fn find_weights(&mut self, num_constants: usize, num_inputs: usize) {
        let mut reads = vec![0_u8; num_inputs];
        let mut is_weight = vec![false; num_inputs];
        let Program { rows, wide, first_input, outputs, unweighted, .. } = self;
        let input = |slot: u32| (slot as usize).checked_sub(*first_input).filter(|&input| input < num_inputs);
        for row in rows.iter_mut() {
            for &mut operand in row.parts(wide).0 {
                if let Some(input) = input(operand) {
                    reads[input] = (reads[input] + 1).min(2);
                }
            }
        }
        for input in outputs.iter().filter_map(|&output| input(output)) {
            reads[input] = 2;
        }
        for row in rows {
            let mut chain = ChainTerms(None);
            row.code.visit(&mut chain, ());
            let ChainTerms(Some(initial)) = chain else { continue };
            let terms = &row.wide(wide)[initial..];
            let read_once = |operand: u32| input(operand).is_some_and(|input| reads[input] == 1);
            let varies = |operand: u32| input(operand).is_none() && operand as usize >= num_constants;
            for (at, choice) in [Weights::First, Weights::Second].into_iter().enumerate() {
                if terms.chunks_exact(2).all(|term| read_once(term[at]) && varies(term[1 - at])) {
                    row.x[2] = choice as u32;
                    terms
                        .iter()
                        .skip(at)
                        .step_by(2)
                        .filter_map(|&weight| input(weight))
                        .for_each(|i| is_weight[i] = true);
                }
            }
        }
        unweighted.extend((0..num_inputs).filter(|&input| !is_weight[input]));
    }
}

impl Program {
    /// The number of the function that a row calls.
    pub fn function_of(&self, call: &CallRow) -> u32 {
        self.wide[self.rows[call.at].x[0] as usize - 1]
    }

    /// The runs among these rows, all of which they hold or none.
    #[inline(always)]
    pub fn runs_among(&self, rows: &Range<usize>) -> &[Run] {
        if self.calls.is_empty() {
            // Then these are all rows.
            return &self.runs;
        }
        let before = |row: usize| self.runs.partition_point(|run| (run.start as usize) < row);
        &self.runs[before(rows.start)..before(rows.end)]
    }

    /// The passive values for the given parameters.
    pub fn passive(&self, data: &TapeData, params: &[f64]) -> Vec<f64> {
        let mut passive = vec![0.0; self.first_input];
        self.passive_into(data, params, &mut passive);
        passive
    }

    /// Writes the passive values for the given parameters.
    pub fn passive_into(&self, data: &TapeData, params: &[f64], passive: &mut [f64]) {
        let (constants, rest) = passive.split_at_mut(data.constants.len());
        constants.copy_from_slice(&data.constants);
        rest[..params.len()].copy_from_slice(params);
        engine::plain_values(&self.prologue, &self.wide, passive);
    }
}

/// Gives every result a slot of its own, from `next` on, and returns the number of slots.
fn number_slots(rows: &mut [Row], wide: &mut [u32], slot_of: &mut [u32], mut next: u32) -> u32 {
    for row in rows {
        let (value, result) = (row.result as usize, next);
        let (operands, results, slots) = row.parts(wide);
        for operand in operands {
            *operand = slot_of[*operand as usize];
        }
        for (slot, of_value) in (next..).zip(&mut slot_of[value..value + results]) {
            *of_value = slot;
        }
        next += slots as u32;
        row.result = result;
    }
    next
}

/// Gives results the slots of values that no later row reads, and new ones
/// where none is free; returns the number of slots.
fn share_slots(
    rows: &mut [Row],
    wide: &mut [u32],
    slot_of: &mut [u32],
    mut next: u32,
    kept: impl Iterator<Item = u32>,
) -> u32 {
    let first_shared = next;
    let mut last_read = vec![UNREAD; slot_of.len()];
    for (at, row) in rows.iter_mut().enumerate() {
        for &mut operand in row.parts(wide).0 {
            last_read[operand as usize] = at as u32;
        }
    }
    for value in kept {
        last_read[value as usize] = KEPT;
    }
    let mut free = Vec::new();
    for (at, row) in rows.iter_mut().enumerate() {
        let value = row.result as usize;
        let (operands, results, _) = row.parts(wide);
        // A result must not lie where an operand is, since a row may write its
        // result before it has read all operands; so operands are freed last.
        let result = match free.pop() {
            Some(slot) if results == 1 => slot,
            slot => {
                free.extend(slot);
                next += results as u32;
                next - results as u32
            }
        };
        for (j, slot) in (result..result + results as u32).enumerate() {
            slot_of[value + j] = slot;
        }
        for operand in operands {
            let read = &mut last_read[*operand as usize];
            *operand = slot_of[*operand as usize];
            if *read == at as u32 && *operand >= first_shared {
                free.push(*operand);
                // Not again for a second operand.
                *read = KEPT;
            }
        }
        let unread = (0..results).filter(|j| last_read[value + j] == UNREAD);
        free.extend(unread.map(|j| result + j as u32));
        row.result = result;
    }
    next
}
