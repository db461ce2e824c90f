//! The scalar engine: runs a program at one point.
//!
//! Its bits are those of the reference sweeps in `scalar.rs` by plain IEEE,
//! which that file states; where a NaN shows, the drivers repeat a sweep there
//! by the strict rule.

#![allow(clippy::needless_range_loop, reason = "indices are what the vectoriser follows best")]

use std::ops::Range;

use crate::lanes::Lanes;
use crate::ops::{Fold, Operation, ProgramVisitor};
use crate::replay::program::{Program, Row};
use crate::replay::runs;
use crate::replay::scalar::Differentiated;
use crate::replay::simd::SimdLevel;
use crate::rule::Rule;

/// The values of an operation.
///
/// Out of line, like [`partials`], so that the loops over the rows stay small.
#[inline(never)]
fn value<O: Operation<N, M>, const N: usize, const M: usize>(x: [f64; N]) -> [f64; M] {
    O::value(x)
}

/// The partials of an operation, a list for each result.
#[inline(never)]
fn partials<T: Rule, O: Operation<N, M>, const N: usize, const M: usize>(x: [T; N], v: [T; M]) -> [[T; N]; M] {
    std::array::from_fn(|j| std::array::from_fn(|i| O::partial(j, i, x, v)))
}

/// The values and the partials of an operation, in one lane: by the kernel for
/// both, where there is one.
#[inline(never)]
pub(crate) fn linearize<O: Operation<N, M>, const N: usize, const M: usize>(x: [f64; N]) -> ([f64; M], [[f64; N]; M]) {
    let (v, partials) = O::linearize::<1>(x.map(|x| Lanes([x])));
    (v.map(|Lanes([v])| v), partials.map(|of_result| of_result.map(|Lanes([partial])| partial)))
}

// The same for one operand and one result. Numbers alone are passed in registers
// for floating point, arrays of them in others or in memory.

#[inline(never)]
fn value_of_one<O: Operation<N, M>, const N: usize, const M: usize>(x: f64) -> f64 {
    O::value([x; N])[0]
}

#[inline(never)]
pub(crate) fn partial_of_one<T: Rule, O: Operation<N, M>, const N: usize, const M: usize>(x: T, v: T) -> T {
    O::partial(0, 0, [x; N], [v; M])
}

#[inline(never)]
fn linearize_one<O: Operation<N, M>, const N: usize, const M: usize>(x: f64) -> (f64, f64) {
    let (v, partials) = O::linearize::<1>([Lanes([x]); N]);
    (v[0].0[0], partials[0][0].0[0])
}

/// The slots of the operands of a row of the table.
#[inline(always)]
pub(crate) fn operands<const N: usize>(row: &Row, wide: &[u32]) -> [u32; N] {
    let mut operands = [0; N];
    operands.copy_from_slice(if N <= row.x.len() { &row.x[..N] } else { &row.wide(wide)[..N] });
    operands
}

/// The values of slots.
///
/// A loop, here and elsewhere in the engines: what std's functions on arrays
/// call is not always inlined, and then it costs more than the row.
#[inline(always)]
fn values_of<const N: usize>(values: &[f64], slots: [u32; N]) -> [f64; N] {
    let mut x = [0.0; N];
    for i in 0..N {
        x[i] = values[slots[i] as usize];
    }
    x
}

/// The operands of a term; a term has two at most.
#[inline(always)]
fn term_of<O: Fold>(values: &[f64], term: &[u32]) -> [f64; 2] {
    let mut x = [0.0; 2];
    for (x, &operand) in x[..O::STRIDE].iter_mut().zip(term) {
        *x = values[operand as usize];
    }
    x
}

/// A forward sweep: values, and K tangents for each.
struct Forward<'a, const K: usize> {
    wide: &'a [u32],
    values: &'a mut [f64],
    tangents: &'a mut [[f64; K]],
    first_input: u32,
}

/// Adds partial·tangent in every direction; the first product stands alone.
#[inline(always)]
pub(crate) fn contribute<const K: usize>(sum: &mut [f64; K], first: bool, partial: f64, tangents: &[f64; K]) {
    for k in 0..K {
        let term = partial * tangents[k];
        sum[k] = if first { term } else { sum[k] + term };
    }
}

/// The value and the tangents of I(a, b).
#[inline(always)]
fn binary<I: Operation<2, 1>, const ACTIVE: u8, const K: usize>(
    x: [f64; 2],
    a: &[f64; K],
    b: &[f64; K],
) -> (f64, [f64; K]) {
    let v = I::value(x);
    let mut tangents = [0.0; K];
    if ACTIVE & 1 != 0 {
        contribute(&mut tangents, true, I::partial(0, 0, x, v), a);
    }
    if ACTIVE & 2 != 0 {
        contribute(&mut tangents, ACTIVE & 1 == 0, I::partial(0, 1, x, v), b);
    }
    (v[0], tangents)
}

impl<'a, const K: usize> ProgramVisitor for Forward<'a, K> {
    type Row = &'a Row;

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, row: &'a Row) {
        let operands = operands::<N>(row, self.wide);
        let result = row.result as usize;
        let x = values_of(self.values, operands);
        if K == 0 && N == 1 && M == 1 {
            self.values[result] = value_of_one::<O, N, M>(x[0]);
            return;
        }
        if K == 0 {
            self.values[result..result + M].copy_from_slice(&value::<O, N, M>(x));
            return;
        }
        if K < 4 && N == 1 && M == 1 {
            let (v, partial) = linearize_one::<O, N, M>(x[0]);
            self.values[result] = v;
            let mut tangents = [0.0; K];
            contribute(&mut tangents, true, partial, &self.tangents[operands[0] as usize]);
            self.tangents[result] = tangents;
            return;
        }
        let (v, partials) = linearize::<O, N, M>(x);
        self.values[result..result + M].copy_from_slice(&v);
        for j in 0..M {
            let mut tangents = [0.0; K];
            let mut first = true;
            for i in 0..N {
                if N == 1 || operands[i] >= self.first_input {
                    contribute(&mut tangents, first, partials[j][i], &self.tangents[operands[i] as usize]);
                    first = false;
                }
            }
            self.tangents[result + j] = tangents;
        }
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let (a, b) = (row.x[0] as usize, row.x[1] as usize);
        let x = [self.values[a], self.values[b]];
        let (v, tangents) = binary::<O, ACTIVE, K>(x, &self.tangents[a], &self.tangents[b]);
        self.values[row.result as usize] = v;
        self.tangents[row.result as usize] = tangents;
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let (a, b, c) = (row.x[0] as usize, row.x[1] as usize, row.x[2] as usize);
        let (m, inner) = binary::<I, ACTIVE, K>([self.values[a], self.values[b]], &self.tangents[a], &self.tangents[b]);
        let (other, outer) = (self.values[c], &self.tangents[c]);
        let (v, tangents) = match (AT, ACTIVE & 4 != 0) {
            (0, true) => binary::<O, 0b11, K>([m, other], &inner, outer),
            (0, false) => binary::<O, 0b01, K>([m, other], &inner, outer),
            (_, true) => binary::<O, 0b11, K>([other, m], outer, &inner),
            (_, false) => binary::<O, 0b10, K>([other, m], outer, &inner),
        };
        self.values[row.result as usize] = v;
        self.tangents[row.result as usize] = tangents;
    }

    /// Only in programs for reverse sweeps.
    #[inline(always)]
    fn kept<O: Operation<1, 1>>(&mut self, row: &'a Row) {
        let (operand, result) = (row.x[0] as usize, row.result as usize);
        let (v, partial) = linearize_one::<O, 1, 1>(self.values[operand]);
        self.values[result] = v;
        self.values[result + 1] = partial;
        if K > 0 {
            let mut tangents = [0.0; K];
            contribute(&mut tangents, true, partial, &self.tangents[operand]);
            self.tangents[result] = tangents;
        }
    }

    #[inline(always)]
    fn fold<O: Fold>(&mut self, row: &'a Row) {
        forward_fold::<O, K>(row, self.wide, self.values, self.tangents, self.first_input);
    }

    #[inline(always)]
    fn chain<O: Fold, const INITIAL: bool>(&mut self, row: &'a Row) {
        forward_chain::<O, INITIAL, K>(row, self.wide, self.values, self.tangents, self.first_input);
    }
}

/// A recorded fold: the tangent adds partial·tangent operand by operand.
#[inline(never)]
fn forward_fold<O: Fold, const K: usize>(
    row: &Row,
    wide: &[u32],
    values: &mut [f64],
    tangents: &mut [[f64; K]],
    first_input: u32,
) {
    let mut sum = [0.0; K];
    let (mut value, mut first) = (None, true);
    for term in row.wide(wide).chunks_exact(O::STRIDE) {
        let x = term_of::<O>(values, term);
        let x = &x[..O::STRIDE];
        value = Some(value.map_or(O::term(x), |value| value + O::term(x)));
        for (i, &operand) in term.iter().enumerate() {
            if K > 0 && operand >= first_input {
                contribute(&mut sum, first, O::term_partial(i, x), &tangents[operand as usize]);
                first = false;
            }
        }
    }
    values[row.result as usize] = value.unwrap_or(-0.0);
    tangents[row.result as usize] = sum;
}

/// A chain: the tangent of each term is complete before it is added.
#[inline(never)]
fn forward_chain<O: Fold, const INITIAL: bool, const K: usize>(
    row: &Row,
    wide: &[u32],
    values: &mut [f64],
    tangents: &mut [[f64; K]],
    first_input: u32,
) {
    let (initial, terms) = row.wide(wide).split_at(usize::from(INITIAL));
    let (mut value, mut sum, mut first) = (None, [0.0; K], true);
    for &initial in initial {
        value = Some(values[initial as usize]);
        if K > 0 && initial >= first_input {
            sum = tangents[initial as usize];
            first = false;
        }
    }
    for term in terms.chunks_exact(O::STRIDE) {
        let x = term_of::<O>(values, term);
        let x = &x[..O::STRIDE];
        value = Some(value.map_or(O::term(x), |value| value + O::term(x)));
        let (mut inner, mut first_factor) = ([0.0; K], true);
        for (i, &operand) in term.iter().enumerate() {
            if K > 0 && operand >= first_input {
                contribute(&mut inner, first_factor, O::term_partial(i, x), &tangents[operand as usize]);
                first_factor = false;
            }
        }
        // Each term has an active operand: a passive row is in no chain.
        contribute(&mut sum, first, 1.0, &inner);
        first = false;
    }
    values[row.result as usize] = value.unwrap_or(-0.0);
    tangents[row.result as usize] = sum;
}

/// Values, and K tangents for each: passive values and inputs with their seeds
/// are in their slots. Tangents of passive values are neither read nor written.
///
/// Several tangents fill vector registers, so their sweep is compiled for each
/// level.
pub(crate) fn forward<const K: usize>(
    level: SimdLevel,
    program: &Program,
    rows: Range<usize>,
    values: &mut [f64],
    tangents: &mut [[f64; K]],
) {
    let (rows, wide, first_input) = (&program.rows[rows], &program.wide, program.first_input);
    if K < 4 {
        return sweep(rows, wide, first_input, values, tangents);
    }
    level.run(
        #[inline(always)]
        || sweep(rows, wide, first_input, values, tangents),
    );
}

#[inline(always)]
fn sweep<const K: usize>(
    rows: &[Row],
    wide: &[u32],
    first_input: usize,
    values: &mut [f64],
    tangents: &mut [[f64; K]],
) {
    // Known to the compiler, this makes one check of an operand do for both.
    assert_eq!(values.len(), tangents.len(), "each value has its tangents");
    let mut sweep = Forward { wide, values, tangents, first_input: first_input as u32 };
    if K == 1 {
        // Two rows a turn, as in the reverse sweep; with more tangents a row takes longer than the jump.
        let mut rows = rows.iter();
        while let Some(row) = rows.next() {
            row.code.visit(&mut sweep, row);
            let Some(row) = rows.next() else { break };
            row.code.visit(&mut sweep, row);
        }
        return;
    }
    for row in rows {
        row.code.visit(&mut sweep, row);
    }
}

/// The values of rows one by one, their operands being in their slots.
pub(crate) fn plain_values(rows: &[Row], wide: &[u32], values: &mut [f64]) {
    // Tangents in no direction take no memory.
    let mut tangents = vec![[]; values.len()];
    sweep::<0>(rows, wide, 0, values, &mut tangents);
}

/// The values of rows of a program, some of them in runs; passive values and
/// inputs are in their slots.
pub(crate) fn values(program: &Program, rows: Range<usize>, values: &mut [f64]) {
    let mut done = rows.start;
    for &run in program.runs_among(&rows) {
        let start = run.start as usize;
        plain_values(&program.rows[done..start], &program.wide, values);
        let first = &program.rows[start];
        first.code.visit(&mut runs::Values { run, values }, first);
        done = start + run.len as usize;
    }
    plain_values(&program.rows[done..rows.end], &program.wide, values);
}

/// The slots that a reverse sweep reads and adds to, in the number type of its
/// partials.
pub(crate) trait Slots {
    type Number: Differentiated;
    fn value(&self, slot: usize) -> Self::Number;
    fn adjoint(&self, slot: usize) -> Self::Number;
    fn add_to_adjoint(&mut self, slot: usize, contribution: Self::Number);
    /// The partial of the row `result` that keeps it, by its operand.
    fn kept_partial<O: Operation<1, 1>>(&self, operand: usize, result: usize) -> Self::Number;
}

/// Values and adjoints. They are apart: side by side, the compiler would load
/// both at once just after one was stored, which stalls.
struct First<'a> {
    values: &'a [f64],
    adjoints: &'a mut [f64],
}

impl Slots for First<'_> {
    type Number = f64;

    #[inline(always)]
    fn value(&self, slot: usize) -> f64 {
        self.values[slot]
    }

    #[inline(always)]
    fn adjoint(&self, slot: usize) -> f64 {
        self.adjoints[slot]
    }

    #[inline(always)]
    fn add_to_adjoint(&mut self, slot: usize, contribution: f64) {
        self.adjoints[slot] += contribution;
    }

    #[inline(always)]
    fn kept_partial<O: Operation<1, 1>>(&self, _: usize, result: usize) -> f64 {
        self.values[result + 1]
    }
}

/// A reverse sweep.
struct Reverse<'a, S> {
    wide: &'a [u32],
    slots: S,
    first_input: u32,
}

impl<'a, S: Slots> ProgramVisitor for Reverse<'a, S> {
    type Row = &'a Row;

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, row: &'a Row) {
        let result = row.result as usize;
        let adjoints: [S::Number; M] = std::array::from_fn(|j| self.slots.adjoint(result + j));
        if adjoints.iter().all(|adjoint| adjoint.is_zero()) {
            return;
        }
        let operands = operands::<N>(row, self.wide);
        if N == 1 && M == 1 {
            let operand = operands[0] as usize;
            let partial = partial_of_one::<_, O, N, M>(self.slots.value(operand), self.slots.value(result));
            self.slots.add_to_adjoint(operand, partial * adjoints[0]);
            return;
        }
        let mut x = [adjoints[0]; N];
        for i in 0..N {
            x[i] = self.slots.value(operands[i] as usize);
        }
        let v = std::array::from_fn(|j| self.slots.value(result + j));
        let partials = partials::<_, O, N, M>(x, v);
        for i in 0..N {
            if N == 1 || operands[i] >= self.first_input {
                let term = |j: usize| partials[j][i] * adjoints[j];
                self.slots.add_to_adjoint(operands[i] as usize, (1..M).fold(term(0), |sum, j| sum + term(j)));
            }
        }
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let result = row.result as usize;
        let adjoint = self.slots.adjoint(result);
        if adjoint.is_zero() {
            return;
        }
        let (a, b) = (row.x[0] as usize, row.x[1] as usize);
        let x = [self.slots.value(a), self.slots.value(b)];
        let v = [self.slots.value(result)];
        if ACTIVE & 1 != 0 {
            self.slots.add_to_adjoint(a, O::partial(0, 0, x, v) * adjoint);
        }
        if ACTIVE & 2 != 0 {
            self.slots.add_to_adjoint(b, O::partial(0, 1, x, v) * adjoint);
        }
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let result = row.result as usize;
        let adjoint = self.slots.adjoint(result);
        if adjoint.is_zero() {
            return;
        }
        let (a, b, c) = (row.x[0] as usize, row.x[1] as usize, row.x[2] as usize);
        let x = [self.slots.value(a), self.slots.value(b)];
        let m = S::Number::apply::<I, 2, 1>(x);
        let other = self.slots.value(c);
        let outer = if AT == 0 { [m[0], other] } else { [other, m[0]] };
        let v = [self.slots.value(result)];
        let inner_adjoint = O::partial(0, AT, outer, v) * adjoint;
        if ACTIVE & 4 != 0 {
            self.slots.add_to_adjoint(c, O::partial(0, 1 - AT, outer, v) * adjoint);
        }
        if inner_adjoint.is_zero() {
            return;
        }
        if ACTIVE & 1 != 0 {
            self.slots.add_to_adjoint(a, I::partial(0, 0, x, m) * inner_adjoint);
        }
        if ACTIVE & 2 != 0 {
            self.slots.add_to_adjoint(b, I::partial(0, 1, x, m) * inner_adjoint);
        }
    }

    #[inline(always)]
    fn kept<O: Operation<1, 1>>(&mut self, row: &'a Row) {
        let (operand, result) = (row.x[0] as usize, row.result as usize);
        let adjoint = self.slots.adjoint(result);
        if !adjoint.is_zero() {
            self.slots.add_to_adjoint(operand, self.slots.kept_partial::<O>(operand, result) * adjoint);
        }
    }

    #[inline(always)]
    fn fold<O: Fold>(&mut self, row: &'a Row) {
        reverse_fold::<O, S>(row, self.wide, &mut self.slots, self.first_input);
    }

    #[inline(always)]
    fn chain<O: Fold, const INITIAL: bool>(&mut self, row: &'a Row) {
        reverse_chain::<O, INITIAL, S>(row, self.wide, &mut self.slots, self.first_input);
    }
}

/// Adds what a term passes on to its operands; a term has two at most.
#[inline(always)]
fn reverse_term<O: Fold, S: Slots>(slots: &mut S, first_input: u32, term: &[u32], adjoint: S::Number) {
    let mut x = [adjoint; 2];
    for (x, &operand) in x[..O::STRIDE].iter_mut().zip(term) {
        *x = slots.value(operand as usize);
    }
    for (i, &operand) in term.iter().enumerate() {
        if operand >= first_input {
            slots.add_to_adjoint(operand as usize, O::term_partial(i, &x[..O::STRIDE]) * adjoint);
        }
    }
}

/// A recorded fold contributes to its operands in their order.
#[inline(never)]
fn reverse_fold<O: Fold, S: Slots>(row: &Row, wide: &[u32], slots: &mut S, first_input: u32) {
    let adjoint = slots.adjoint(row.result as usize);
    if !adjoint.is_zero() {
        for term in row.wide(wide).chunks_exact(O::STRIDE) {
            reverse_term::<O, S>(slots, first_input, term, adjoint);
        }
    }
}

/// A chain contributes to its operands as the rows that it replaces do: the
/// last term first, the initial operand before the first term.
#[inline(never)]
fn reverse_chain<O: Fold, const INITIAL: bool, S: Slots>(row: &Row, wide: &[u32], slots: &mut S, first_input: u32) {
    let adjoint = slots.adjoint(row.result as usize);
    if adjoint.is_zero() {
        return;
    }
    let (initial, terms) = row.wide(wide).split_at(usize::from(INITIAL));
    let (first, others) = terms.split_at(O::STRIDE);
    for term in others.rchunks_exact(O::STRIDE) {
        reverse_term::<O, S>(slots, first_input, term, adjoint);
    }
    for &initial in initial {
        if initial >= first_input {
            slots.add_to_adjoint(initial as usize, adjoint);
        }
    }
    reverse_term::<O, S>(slots, first_input, first, adjoint);
}

/// What rows of a program for reverse sweeps add to adjoints; values are in
/// their slots, and what is below these rows has contributed.
pub(crate) fn reverse(program: &Program, rows: Range<usize>, values: &[f64], adjoints: &mut [f64]) {
    assert_eq!(values.len(), adjoints.len(), "each value has an adjoint");
    let mut before = rows.end;
    for &run in program.runs_among(&rows).iter().rev() {
        let start = run.start as usize;
        reverse_rows(program, start + run.len as usize..before, values, adjoints);
        let first = &program.rows[start];
        first.code.visit(&mut runs::Adjoints { run, values, adjoints }, first);
        before = start;
    }
    reverse_rows(program, rows.start..before, values, adjoints);
}

/// The adjoints of rows one by one.
fn reverse_rows(program: &Program, rows: Range<usize>, values: &[f64], adjoints: &mut [f64]) {
    sweep_back::<true>(program, rows, First { values, adjoints });
}

/// What rows add to the adjoints of their operands, from the last one to the first.
#[inline(always)]
pub(crate) fn sweep_back<const PAIRS: bool>(program: &Program, rows: Range<usize>, slots: impl Slots) {
    let first_input = program.first_input as u32;
    let mut sweep = Reverse { wide: &program.wide, slots, first_input };
    // Two rows a turn: the processor foresees better where two jumps lead, each
    // with half of the rows, than where one leads. It makes the code twice as long.
    let mut rows = program.rows[rows].iter().rev();
    while let Some(row) = rows.next() {
        row.code.visit(&mut sweep, row);
        if PAIRS {
            let Some(row) = rows.next() else { break };
            row.code.visit(&mut sweep, row);
        }
    }
}
