//! The scalar engine: runs a program at one point.
//!
//! Its bits are those of the reference sweeps in `scalar.rs` by plain IEEE,
//! which that file states; where a NaN shows, the drivers repeat a sweep there
//! by the strict rule.

use crate::ops::{Fold, Operation, ProgramVisitor};
use crate::replay::program::{Program, Rows};

/// The values of an operation.
///
/// Out of line, like [`partials`], so that the loops over the rows stay small.
#[inline(never)]
fn values<O: Operation<N, M>, const N: usize, const M: usize>(x: [f64; N]) -> [f64; M] {
    O::value(x)
}

/// The partials of an operation, a list for each result.
#[inline(never)]
fn partials<O: Operation<N, M>, const N: usize, const M: usize>(x: [f64; N], v: [f64; M]) -> [[f64; N]; M] {
    std::array::from_fn(|j| std::array::from_fn(|i| O::partial(j, i, x, v)))
}

/// The values and the partials of an operation; what they have in common is computed once.
#[inline(never)]
fn linearize<O: Operation<N, M>, const N: usize, const M: usize>(x: [f64; N]) -> ([f64; M], [[f64; N]; M]) {
    let v = O::value(x);
    (v, std::array::from_fn(|j| std::array::from_fn(|i| O::partial(j, i, x, v))))
}

/// Takes `LEN` words off the front.
macro_rules! next_words {
    ($row:ident, $LEN:expr) => {{
        // There are always as many: a program is whole.
        let Some((words, rest)) = $row.words.split_first_chunk::<{ $LEN }>() else { return };
        $row.words = rest;
        words
    }};
}

/// A forward sweep: each slot holds a value and W − 1 tangents.
struct Forward<'a, const W: usize> {
    words: &'a [u32],
    slots: &'a mut [[f64; W]],
    first_input: u32,
}

impl<const W: usize> Forward<'_, W> {
    /// Adds partial·tangent in every direction; the first product stands alone.
    #[inline(always)]
    fn contribute(sum: &mut [f64; W], first: bool, partial: f64, tangents: &[f64; W]) {
        for k in 1..W {
            let term = partial * tangents[k];
            sum[k] = if first { term } else { sum[k] + term };
        }
    }

    /// The slot of m = I(a, b).
    #[inline(always)]
    fn inner<I: Operation<2, 1>, const ACTIVE: u8>(a: &[f64; W], b: &[f64; W]) -> [f64; W] {
        let x = [a[0], b[0]];
        let v = I::value(x);
        let mut slot = [v[0]; W];
        if ACTIVE & 1 != 0 {
            Self::contribute(&mut slot, true, I::partial(0, 0, x, v), a);
        }
        if ACTIVE & 2 != 0 {
            Self::contribute(&mut slot, ACTIVE & 1 == 0, I::partial(0, 1, x, v), b);
        }
        slot
    }
}

impl<const W: usize> ProgramVisitor for Forward<'_, W> {
    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self) {
        let Some((&operands, rest)) = self.words.split_first_chunk::<N>() else { return };
        let Some((&results, rest)) = rest.split_first_chunk::<M>() else { return };
        self.words = rest;
        let x = operands.map(|operand| self.slots[operand as usize][0]);
        if W == 1 {
            let v = values::<O, N, M>(x);
            for j in 0..M {
                self.slots[results[j] as usize][0] = v[j];
            }
            return;
        }
        let (v, partials) = linearize::<O, N, M>(x);
        for j in 0..M {
            let mut slot = [v[j]; W];
            let mut first = true;
            for i in 0..N {
                if N == 1 || operands[i] >= self.first_input {
                    Self::contribute(&mut slot, first, partials[j][i], &self.slots[operands[i] as usize]);
                    first = false;
                }
            }
            self.slots[results[j] as usize] = slot;
        }
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self) {
        let &[a, b, result] = next_words!(self, 3);
        let slot = Self::inner::<O, ACTIVE>(&self.slots[a as usize], &self.slots[b as usize]);
        self.slots[result as usize] = slot;
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self) {
        let &[a, b, c, result] = next_words!(self, 4);
        let m = Self::inner::<I, ACTIVE>(&self.slots[a as usize], &self.slots[b as usize]);
        let c = &self.slots[c as usize];
        let slot = match (AT, ACTIVE & 4 != 0) {
            (0, true) => Self::inner::<O, 3>(&m, c),
            (0, false) => Self::inner::<O, 1>(&m, c),
            (_, true) => Self::inner::<O, 3>(c, &m),
            (_, false) => Self::inner::<O, 2>(c, &m),
        };
        self.slots[result as usize] = slot;
    }

    fn fold<O: Fold>(&mut self) {
        self.words = forward_fold::<O, W>(self.words, self.slots, self.first_input);
    }

    fn chain<O: Fold, const INITIAL: bool>(&mut self) {
        self.words = forward_chain::<O, INITIAL, W>(self.words, self.slots, self.first_input);
    }
}

/// The operands and the result of a row of any number of operands, and the words after it.
#[inline(always)]
fn counted(words: &[u32]) -> Option<(&[u32], u32, &[u32])> {
    let (&count, rest) = words.split_first()?;
    let (operands, rest) = rest.split_at_checked(count as usize)?;
    let (&[result, _], rest) = rest.split_first_chunk::<2>()?;
    Some((operands, result, rest))
}

/// A recorded fold: the tangent adds partial·tangent operand by operand.
#[inline(never)]
fn forward_fold<'a, O: Fold, const W: usize>(
    words: &'a [u32],
    slots: &mut [[f64; W]],
    first_input: u32,
) -> &'a [u32] {
    let Some((operands, result, rest)) = counted(words) else { return &[] };
    let mut sum = [0.0; W];
    let (mut first, mut first_active) = (true, true);
    for term in operands.chunks_exact(O::STRIDE) {
        let mut x = [0.0; 2];
        for (x, &operand) in x.iter_mut().zip(term) {
            *x = slots[operand as usize][0];
        }
        let x = &x[..O::STRIDE];
        let value = O::term(x);
        sum[0] = if first { value } else { sum[0] + value };
        first = false;
        for (i, &operand) in term.iter().enumerate() {
            if W > 1 && operand >= first_input {
                let partial = O::term_partial(i, x);
                Forward::<W>::contribute(&mut sum, first_active, partial, &slots[operand as usize]);
                first_active = false;
            }
        }
    }
    slots[result as usize] = sum;
    rest
}

/// A chain: the tangent of each term is complete before it is added.
#[inline(never)]
fn forward_chain<'a, O: Fold, const INITIAL: bool, const W: usize>(
    words: &'a [u32],
    slots: &mut [[f64; W]],
    first_input: u32,
) -> &'a [u32] {
    let Some((mut operands, result, rest)) = counted(words) else { return &[] };
    let mut sum = [0.0; W];
    let (mut first, mut first_active) = (true, true);
    if INITIAL && let Some((&initial, terms)) = operands.split_first() {
        sum = slots[initial as usize];
        (first, first_active) = (false, initial < first_input);
        operands = terms;
    }
    for term in operands.chunks_exact(O::STRIDE) {
        let mut x = [0.0; 2];
        for (x, &operand) in x.iter_mut().zip(term) {
            *x = slots[operand as usize][0];
        }
        let x = &x[..O::STRIDE];
        let value = O::term(x);
        sum[0] = if first { value } else { sum[0] + value };
        first = false;
        if W > 1 {
            let mut tangents = [0.0; W];
            let mut first_factor = true;
            for (i, &operand) in term.iter().enumerate() {
                if operand >= first_input {
                    let partial = O::term_partial(i, x);
                    Forward::<W>::contribute(&mut tangents, first_factor, partial, &slots[operand as usize]);
                    first_factor = false;
                }
            }
            // A row is on the program's list since an operand is active.
            for k in 1..W {
                sum[k] = if first_active { tangents[k] } else { sum[k] + tangents[k] };
            }
            first_active = false;
        }
    }
    slots[result as usize] = sum;
    rest
}

/// Values and W − 1 tangents: passive values and inputs with their seeds are in their slots.
pub(crate) fn forward<const W: usize>(rows: &Rows, first_input: usize, slots: &mut [[f64; W]]) {
    let mut row = Forward { words: &rows.words, slots, first_input: first_input as u32 };
    for &code in &rows.codes {
        code.visit(&mut row);
    }
}

/// The values of all slots, each beside an adjoint of 0.
struct Primal<'a> {
    words: &'a [u32],
    slots: &'a mut [[f64; 2]],
}

impl ProgramVisitor for Primal<'_> {
    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self) {
        let Some((&operands, rest)) = self.words.split_first_chunk::<N>() else { return };
        let Some((&results, rest)) = rest.split_first_chunk::<M>() else { return };
        self.words = rest;
        let v = values::<O, N, M>(operands.map(|operand| self.slots[operand as usize][0]));
        for j in 0..M {
            self.slots[results[j] as usize] = [v[j], 0.0];
        }
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self) {
        let &[a, b, result] = next_words!(self, 3);
        let [v] = O::value([self.slots[a as usize][0], self.slots[b as usize][0]]);
        self.slots[result as usize] = [v, 0.0];
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self) {
        let &[a, b, c, result] = next_words!(self, 4);
        let [m] = I::value([self.slots[a as usize][0], self.slots[b as usize][0]]);
        let c = self.slots[c as usize][0];
        let [v] = O::value(if AT == 0 { [m, c] } else { [c, m] });
        self.slots[result as usize] = [v, 0.0];
    }

    fn fold<O: Fold>(&mut self) {
        self.words = primal_chain::<O, false>(self.words, self.slots);
    }

    fn chain<O: Fold, const INITIAL: bool>(&mut self) {
        self.words = primal_chain::<O, INITIAL>(self.words, self.slots);
    }
}

#[inline(never)]
fn primal_chain<'a, O: Fold, const INITIAL: bool>(words: &'a [u32], slots: &mut [[f64; 2]]) -> &'a [u32] {
    let Some((mut operands, result, rest)) = counted(words) else { return &[] };
    let mut sum = None;
    if INITIAL && let Some((&initial, terms)) = operands.split_first() {
        sum = Some(slots[initial as usize][0]);
        operands = terms;
    }
    for term in operands.chunks_exact(O::STRIDE) {
        let mut x = [0.0; 2];
        for (x, &operand) in x.iter_mut().zip(term) {
            *x = slots[operand as usize][0];
        }
        let value = O::term(&x[..O::STRIDE]);
        sum = Some(sum.map_or(value, |sum| sum + value));
    }
    slots[result as usize] = [sum.unwrap_or(-0.0), 0.0];
    rest
}

/// The values of a program for reverse sweeps, and adjoints of 0.
pub(crate) fn primal(rows: &Rows, slots: &mut [[f64; 2]]) {
    let mut row = Primal { words: &rows.words, slots };
    for &code in &rows.codes {
        code.visit(&mut row);
    }
}

/// A reverse sweep: each slot holds a value and an adjoint.
struct Reverse<'a> {
    words: &'a [u32],
    slots: &'a mut [[f64; 2]],
    first_input: u32,
}

/// Takes `LEN` words off the end.
macro_rules! last_words {
    ($row:ident, $LEN:expr) => {{
        let Some((rest, words)) = $row.words.split_last_chunk::<{ $LEN }>() else { return };
        $row.words = rest;
        words
    }};
}

impl Reverse<'_> {
    #[inline(always)]
    fn add(&mut self, slot: u32, contribution: f64) {
        self.slots[slot as usize][1] += contribution;
    }
}

impl ProgramVisitor for Reverse<'_> {
    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self) {
        let Some((rest, &results)) = self.words.split_last_chunk::<M>() else { return };
        let Some((rest, &operands)) = rest.split_last_chunk::<N>() else { return };
        self.words = rest;
        let adjoints = results.map(|result| self.slots[result as usize][1]);
        if adjoints.iter().all(|&adjoint| adjoint == 0.0) {
            return;
        }
        let x = operands.map(|operand| self.slots[operand as usize][0]);
        let v = results.map(|result| self.slots[result as usize][0]);
        let partials = partials::<O, N, M>(x, v);
        for i in 0..N {
            if N == 1 || operands[i] >= self.first_input {
                let term = |j: usize| partials[j][i] * adjoints[j];
                self.add(operands[i], (1..M).fold(term(0), |sum, j| sum + term(j)));
            }
        }
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self) {
        let &[a, b, result] = last_words!(self, 3);
        let [v, adjoint] = self.slots[result as usize];
        if adjoint == 0.0 {
            return;
        }
        let x = [self.slots[a as usize][0], self.slots[b as usize][0]];
        if ACTIVE & 1 != 0 {
            self.add(a, O::partial(0, 0, x, [v]) * adjoint);
        }
        if ACTIVE & 2 != 0 {
            self.add(b, O::partial(0, 1, x, [v]) * adjoint);
        }
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self) {
        let &[a, b, c, result] = last_words!(self, 4);
        let [v, adjoint] = self.slots[result as usize];
        if adjoint == 0.0 {
            return;
        }
        let x = [self.slots[a as usize][0], self.slots[b as usize][0]];
        let m = I::value(x);
        let other = self.slots[c as usize][0];
        let outer = if AT == 0 { [m[0], other] } else { [other, m[0]] };
        let inner_adjoint = O::partial(0, AT, outer, [v]) * adjoint;
        if ACTIVE & 4 != 0 {
            self.add(c, O::partial(0, 1 - AT, outer, [v]) * adjoint);
        }
        if inner_adjoint == 0.0 {
            return;
        }
        if ACTIVE & 1 != 0 {
            self.add(a, I::partial(0, 0, x, m) * inner_adjoint);
        }
        if ACTIVE & 2 != 0 {
            self.add(b, I::partial(0, 1, x, m) * inner_adjoint);
        }
    }

    fn fold<O: Fold>(&mut self) {
        self.words = reverse_fold::<O>(self.words, self.slots, self.first_input);
    }

    fn chain<O: Fold, const INITIAL: bool>(&mut self) {
        self.words = reverse_chain::<O, INITIAL>(self.words, self.slots, self.first_input);
    }
}

/// The words before a row of any number of operands, its operands and its result.
#[inline(always)]
fn counted_back(words: &[u32]) -> Option<(&[u32], &[u32], u32)> {
    let (rest, &[result, count]) = words.split_last_chunk::<2>()?;
    let (rest, operands) = rest.split_at_checked(rest.len() - count as usize)?;
    Some((&rest[..rest.len() - 1], operands, result))
}

/// Adds what a term passes on to its operands.
#[inline(always)]
fn reverse_term<O: Fold>(slots: &mut [[f64; 2]], first_input: u32, term: &[u32], adjoint: f64) {
    let mut x = [0.0; 2];
    for (x, &operand) in x.iter_mut().zip(term) {
        *x = slots[operand as usize][0];
    }
    for (i, &operand) in term.iter().enumerate() {
        if operand >= first_input {
            slots[operand as usize][1] += O::term_partial(i, &x[..O::STRIDE]) * adjoint;
        }
    }
}

/// A recorded fold contributes to its operands in their order.
#[inline(never)]
fn reverse_fold<'a, O: Fold>(words: &'a [u32], slots: &mut [[f64; 2]], first_input: u32) -> &'a [u32] {
    let Some((rest, operands, result)) = counted_back(words) else { return &[] };
    let adjoint = slots[result as usize][1];
    if adjoint != 0.0 {
        for term in operands.chunks_exact(O::STRIDE) {
            reverse_term::<O>(slots, first_input, term, adjoint);
        }
    }
    rest
}

/// A chain contributes to its operands as the rows that it replaces do: the
/// last term first, the initial operand before the first term.
#[inline(never)]
fn reverse_chain<'a, O: Fold, const INITIAL: bool>(
    words: &'a [u32],
    slots: &mut [[f64; 2]],
    first_input: u32,
) -> &'a [u32] {
    let Some((rest, operands, result)) = counted_back(words) else { return &[] };
    let adjoint = slots[result as usize][1];
    if adjoint == 0.0 {
        return rest;
    }
    let (initial, terms) = operands.split_at(usize::from(INITIAL));
    let (first, others) = terms.split_at(O::STRIDE);
    for term in others.rchunks_exact(O::STRIDE) {
        reverse_term::<O>(slots, first_input, term, adjoint);
    }
    for &initial in initial {
        if initial >= first_input {
            slots[initial as usize][1] += adjoint;
        }
    }
    reverse_term::<O>(slots, first_input, first, adjoint);
    rest
}

/// The adjoints of a program for reverse sweeps, whose values and weights are in their slots.
pub(crate) fn reverse(program: &Program, slots: &mut [[f64; 2]]) {
    let mut row = Reverse { words: &program.rows.words, slots, first_input: program.first_input as u32 };
    for &code in program.rows.codes.iter().rev() {
        code.visit(&mut row);
    }
}
