//! The reference sweeps: one point at a time, straight down or up the list, in
//! any number type, by the plain rule or by the strict one.
//!
//! They state what every engine must agree with, bit for bit:
//!
//! - A tangent is the sum of partial·tangent over the operands that depend on
//!   an input, in the order of the operands, starting from the first product.
//! - An adjoint starts at +0.0; the rows contribute in the reverse order of the
//!   recording, each row to its operands in their order. A row whose adjoint is
//!   exactly 0 contributes nothing.
//! - The product is plain IEEE. Where a NaN shows among the results, the sweep
//!   is done again with the strict rule: a product that is NaN is 0 if one of
//!   its factors is exactly 0, and the partials of a value that is NaN though
//!   no operand is (outside its domain) are NaN. This changes no finite result.

use std::ops::Range;

use crate::dual::Dual;
use crate::error::Error;
use crate::function::{Function, FunctionMemory, NumberVec, Numbers, NumbersMut};
use crate::ops::{Fold, Op, Operation, Visitor};
use crate::rule::Rule;
use crate::tape::TapeData;

/// A number type that derivative sweeps run in.
pub(crate) trait Differentiated: Rule {
    /// Whether it is exactly zero, derivatives included.
    fn is_zero(self) -> bool;
}

impl Differentiated for f64 {
    #[inline(always)]
    fn is_zero(self) -> bool {
        self == 0.0
    }
}

impl Differentiated for Dual {
    fn is_zero(self) -> bool {
        self.v == 0.0 && self.dv == 0.0
    }
}

/// A number type of the reference sweeps for adjoints: a value, and a tangent
/// if `K` is 1.
pub(crate) trait Adjoint: Differentiated {
    const K: usize;
    fn parts(self) -> (f64, f64);
    fn from_parts(v: f64, dv: f64) -> Self;
}

impl Adjoint for f64 {
    const K: usize = 0;
    fn parts(self) -> (f64, f64) {
        (self, 0.0)
    }
    fn from_parts(v: f64, _: f64) -> f64 {
        v
    }
}

impl Adjoint for Dual {
    const K: usize = 1;
    fn parts(self) -> (f64, f64) {
        (self.v, self.dv)
    }
    fn from_parts(v: f64, dv: f64) -> Dual {
        Dual::new(v, dv)
    }
}

/// An error of a function, and the row that called it.
pub(crate) type CallError = (usize, Error);

/// Numbers as functions take them.
fn number_vec<T: Adjoint>(numbers: impl ExactSizeIterator<Item = T>) -> NumberVec {
    let mut vec = NumberVec::default();
    vec.reset(numbers.len(), T::K);
    for (i, number) in numbers.enumerate() {
        let (v, dv) = number.parts();
        vec.set(i, (v, &[dv][..T::K]));
    }
    vec
}

/// Brings the operands of a fold side by side, in memory that is kept.
///
/// Out of line, so that the loop over the rows stays small.
#[inline(never)]
fn gather<'a, T: Copy>(operands: &[u32], values: &[T], gathered: &'a mut Vec<T>) -> &'a [T] {
    gathered.clear();
    gathered.extend(operands.iter().map(|&operand| values[operand as usize]));
    gathered
}

/// How many operands and results the operation of a row has, if it has
/// `given` operands: those that a fold cannot take are rounded down.
pub(crate) fn shape(op: Op, given: usize) -> (usize, usize) {
    struct Shape(usize);
    impl Visitor for Shape {
        type Output = (usize, usize);
        fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> (usize, usize) {
            (N, M)
        }
        fn fold<O: Fold>(self) -> (usize, usize) {
            ((self.0 - self.0 % O::STRIDE).max(O::STRIDE), 1)
        }
        fn no_operation(self) -> (usize, usize) {
            (0, 0)
        }
    }
    op.visit(Shape(given))
}

/// Fills the values of constants, inputs and parameters.
pub(crate) fn load<T: Rule>(data: &TapeData, x: &[T], params: &[f64], values: &mut Vec<T>) {
    values.clear();
    values.reserve(data.num_values());
    values.extend(data.constants.iter().map(|&c| T::lit(c)));
    values.extend_from_slice(x);
    values.extend(params.iter().map(|&k| T::lit(k)));
    values.resize(data.num_values(), T::lit(0.0));
}

struct PrimalRow<'a, T> {
    operands: &'a [u32],
    values: &'a mut [T],
    gathered: &'a mut Vec<T>,
    at: usize,
}

impl<T: Rule> Visitor for PrimalRow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) {
        let x: [T; N] = std::array::from_fn(|i| self.values[self.operands[i] as usize]);
        self.values[self.at..self.at + M].copy_from_slice(&T::apply::<O, N, M>(x));
    }

    #[inline(always)]
    fn fold<O: Fold>(self) {
        self.values[self.at] = T::fold::<O>(gather(self.operands, self.values, self.gathered));
    }

    fn no_operation(self) {}
}

#[inline(always)]
fn primal_row<T: Rule>(data: &TapeData, row: usize, values: &mut [T], gathered: &mut Vec<T>) {
    data.op(row).visit(PrimalRow { operands: data.operands(row), values, gathered, at: data.first_row() + row });
}

/// The values of all rows.
pub(crate) fn primal_all<T: Rule>(data: &TapeData, values: &mut [T], gathered: &mut Vec<T>) -> Result<(), CallError> {
    primal_above(data, data.num_rows(), values, gathered)
}

/// The values of the rows above row `end`.
pub(crate) fn primal_above<T: Rule>(
    data: &TapeData,
    end: usize,
    values: &mut [T],
    gathered: &mut Vec<T>,
) -> Result<(), CallError> {
    for part in parts(data, 0..end) {
        match part {
            Part::Rows(rows) => primal_rows(data, rows, values, gathered),
            Part::Call(row, function) => {
                let results = T::call(function, gather(data.operands(row), values, gathered));
                let at = data.first_row() + row;
                values[at..at + function.num_results()].copy_from_slice(&results.map_err(|error| (row, error))?);
            }
        }
    }
    Ok(())
}

/// [`primal_all`] in numbers, for which functions have memory that is kept.
pub(crate) fn primal_numbers(
    data: &TapeData,
    values: &mut [f64],
    gathered: &mut Vec<f64>,
    memory: &mut FunctionMemory,
) -> Result<(), CallError> {
    for part in parts(data, 0..data.num_rows()) {
        match part {
            Part::Rows(rows) => primal_rows(data, rows, values, gathered),
            Part::Call(row, function) => {
                let (above, results) = values.split_at_mut(data.first_row() + row);
                let x = Numbers { v: gather(data.operands(row), above, gathered), t: &[] };
                let y = NumbersMut { v: &mut results[..function.num_results()], t: &mut [] };
                // No adjoints of this call follow.
                memory.call = None;
                function.values(0, x, y, memory).map_err(|error| (row, error))?;
            }
        }
    }
    Ok(())
}

/// Out of line, as the loops of the other sweeps: a function may call others,
/// sweep within sweep, and the rules of all operations take much of the stack.
#[inline(never)]
fn primal_rows<T: Rule>(data: &TapeData, rows: Range<usize>, values: &mut [T], gathered: &mut Vec<T>) {
    for row in rows {
        primal_row(data, row, values, gathered);
    }
}

/// A part of a sweep.
enum Part<'a> {
    /// Rows none of which calls a function.
    Rows(Range<usize>),
    Call(usize, &'a Function),
}

/// The parts of a range of rows, in their order.
fn parts(data: &TapeData, range: Range<usize>) -> impl DoubleEndedIterator<Item = Part<'_>> {
    let at = |row: usize| data.calls.partition_point(|&call| (call as usize) < row);
    let calls = &data.calls[at(range.start)..at(range.end)];
    // Before the first call, between two, and after the last.
    (0..=calls.len()).flat_map(move |gap| {
        let start = gap.checked_sub(1).map_or(range.start, |last| calls[last] as usize + 1);
        let call = calls.get(gap).map(|&call| call as usize);
        let of_call = call.and_then(|row| Some(Part::Call(row, data.function(row)?)));
        [Some(Part::Rows(start..call.unwrap_or(range.end))), of_call].into_iter().flatten()
    })
}

/// partial·derivative, by plain IEEE or by the strict rule.
#[inline(always)]
fn product<T: Rule, const STRICT: bool>(partial: T, derivative: T) -> T {
    if STRICT { partial.chain_mul(derivative) } else { partial * derivative }
}

/// What the strict rule needs of the operands: one that is NaN if any is.
#[inline(always)]
fn largest<T: Rule, const STRICT: bool>(x: &[T]) -> T {
    if STRICT { x.iter().skip(1).fold(x[0], |m, &x| m.max(x)) } else { x[0] }
}

/// The partial, or by the strict rule NaN outside the domain of the operation.
#[inline(always)]
fn checked<T: Rule, const STRICT: bool>(partial: T, v: T, largest: T) -> T {
    if STRICT { partial.domain(v, largest) } else { partial }
}

struct TangentRow<'a, T, const STRICT: bool> {
    operands: &'a [u32],
    active: &'a [bool],
    values: &'a [T],
    gathered: &'a mut Vec<T>,
    tangents: &'a mut [T],
    directions: usize,
    at: usize,
}

impl<T: Rule, const STRICT: bool> TangentRow<'_, T, STRICT> {
    /// Adds partial·tangent of value `operand` to the tangents of value `result`, in every direction.
    #[inline(always)]
    fn contribute(tangents: &mut [T], k: usize, result: usize, operand: usize, partial: T, first: &mut bool) {
        let (above, from) = tangents.split_at_mut(result * k);
        let terms = above[operand * k..(operand + 1) * k].iter().map(|&t| product::<T, STRICT>(partial, t));
        for (sum, term) in from[..k].iter_mut().zip(terms) {
            *sum = if *first { term } else { *sum + term };
        }
        *first = false;
    }
}

impl<T: Rule, const STRICT: bool> Visitor for TangentRow<'_, T, STRICT> {
    type Output = ();

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) {
        let x: [T; N] = std::array::from_fn(|i| self.values[self.operands[i] as usize]);
        let v: [T; M] = std::array::from_fn(|j| self.values[self.at + j]);
        let largest = largest::<T, STRICT>(&x);
        for j in 0..M {
            let mut first = true;
            for i in 0..N {
                if self.active[self.operands[i] as usize] {
                    let partial = checked::<T, STRICT>(O::partial(j, i, x, v), v[j], largest);
                    let operand = self.operands[i] as usize;
                    Self::contribute(self.tangents, self.directions, self.at + j, operand, partial, &mut first);
                }
            }
        }
    }

    #[inline(always)]
    fn fold<O: Fold>(self) {
        let x = gather(self.operands, self.values, self.gathered);
        let v = self.values[self.at];
        let largest = largest::<T, STRICT>(x);
        let mut first = true;
        for i in 0..x.len() {
            if self.active[self.operands[i] as usize] {
                let partial = checked::<T, STRICT>(O::partial(i, x), v, largest);
                let operand = self.operands[i] as usize;
                Self::contribute(self.tangents, self.directions, self.at, operand, partial, &mut first);
            }
        }
    }

    fn no_operation(self) {}
}

/// The tangents of every active value in `k` directions at once: `seeds` holds
/// k numbers per input, and so does `tangents` afterwards for each value.
pub(crate) fn tangent_sweep<const STRICT: bool>(
    data: &TapeData,
    values: &[f64],
    seeds: &[f64],
    k: usize,
    tangents: &mut Vec<f64>,
    gathered: &mut Vec<f64>,
) -> Result<(), CallError> {
    tangents.clear();
    tangents.resize(data.num_values() * k, 0.0);
    let first_input = data.first_input() * k;
    tangents[first_input..first_input + seeds.len()].copy_from_slice(seeds);
    for part in data.spans.iter().flat_map(|span| parts(data, span.clone())) {
        match part {
            Part::Rows(rows) => tangent_rows::<STRICT>(data, rows, values, k, tangents, gathered),
            Part::Call(row, function) => {
                tangents_of_call::<STRICT>(function, data.operands(row), values, k, tangents, data.first_row() + row)
                    .map_err(|error| (row, error))?;
            }
        }
    }
    Ok(())
}

#[inline(never)]
fn tangent_rows<const STRICT: bool>(
    data: &TapeData,
    rows: Range<usize>,
    values: &[f64],
    directions: usize,
    tangents: &mut [f64],
    gathered: &mut Vec<f64>,
) {
    for row in rows {
        data.op(row).visit(TangentRow::<f64, STRICT> {
            operands: data.operands(row),
            active: &data.active,
            values,
            gathered,
            tangents,
            directions,
            at: data.first_row() + row,
        });
    }
}

/// The tangents of the results of a call, which begin with value `at`.
fn tangents_of_call<const STRICT: bool>(
    function: &Function,
    operands: &[u32],
    values: &[f64],
    k: usize,
    tangents: &mut [f64],
    at: usize,
) -> Result<(), Error> {
    let (mut x, mut y) = (NumberVec::default(), NumberVec::default());
    x.reset(operands.len(), k);
    y.reset(function.num_results(), k);
    for (i, &operand) in operands.iter().enumerate() {
        let operand = operand as usize;
        x.set(i, (values[operand], &tangents[operand * k..(operand + 1) * k]));
    }
    function.values(k, x.view(), y.view_mut(), &mut FunctionMemory::of_sweep(STRICT))?;
    tangents[at * k..][..y.view().t.len()].copy_from_slice(y.view().t);
    Ok(())
}

struct AdjointRow<'a, T, const STRICT: bool> {
    operands: &'a [u32],
    active: &'a [bool],
    values: &'a [T],
    gathered: &'a mut Vec<T>,
    adjoints: &'a mut [T],
    at: usize,
}

impl<T: Differentiated, const STRICT: bool> Visitor for AdjointRow<'_, T, STRICT> {
    type Output = ();

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) {
        let adjoints: [T; M] = std::array::from_fn(|j| self.adjoints[self.at + j]);
        if adjoints.iter().all(|a| a.is_zero()) {
            return;
        }
        let x: [T; N] = std::array::from_fn(|i| self.values[self.operands[i] as usize]);
        let v: [T; M] = std::array::from_fn(|j| self.values[self.at + j]);
        let largest = largest::<T, STRICT>(&x);
        for i in 0..N {
            let operand = self.operands[i] as usize;
            if self.active[operand] {
                let term = |j: usize| {
                    product::<T, STRICT>(checked::<T, STRICT>(O::partial(j, i, x, v), v[j], largest), adjoints[j])
                };
                let contribution = (1..M).fold(term(0), |sum, j| sum + term(j));
                self.adjoints[operand] = self.adjoints[operand] + contribution;
            }
        }
    }

    #[inline(always)]
    fn fold<O: Fold>(self) {
        let adjoint = self.adjoints[self.at];
        if adjoint.is_zero() {
            return;
        }
        let x = gather(self.operands, self.values, self.gathered);
        let v = self.values[self.at];
        let largest = largest::<T, STRICT>(x);
        for i in 0..x.len() {
            let operand = self.operands[i] as usize;
            if self.active[operand] {
                let partial = checked::<T, STRICT>(O::partial(i, x), v, largest);
                self.adjoints[operand] = self.adjoints[operand] + product::<T, STRICT>(partial, adjoint);
            }
        }
    }

    fn no_operation(self) {}
}

/// The adjoints of every value, from one weight an output.
pub(crate) fn reverse_sweep<T: Adjoint, const STRICT: bool>(
    data: &TapeData,
    values: &[T],
    weights: &[T],
    adjoints: &mut Vec<T>,
    gathered: &mut Vec<T>,
) -> Result<(), CallError> {
    adjoints.clear();
    adjoints.resize(data.num_values(), T::lit(0.0));
    for (&output, &weight) in data.outputs.iter().zip(weights) {
        let output = output as usize;
        adjoints[output] = adjoints[output] + weight;
    }
    for part in data.spans.iter().rev().flat_map(|span| parts(data, span.clone()).rev()) {
        match part {
            Part::Rows(rows) => adjoint_rows::<T, STRICT>(data, rows, values, adjoints, gathered),
            Part::Call(row, function) => {
                adjoints_of_call::<T, STRICT>(data, function, row, values, adjoints).map_err(|error| (row, error))?;
            }
        }
    }
    Ok(())
}

#[inline(never)]
fn adjoint_rows<T: Adjoint, const STRICT: bool>(
    data: &TapeData,
    rows: Range<usize>,
    values: &[T],
    adjoints: &mut [T],
    gathered: &mut Vec<T>,
) {
    for row in rows.rev() {
        data.op(row).visit(AdjointRow::<T, STRICT> {
            operands: data.operands(row),
            active: &data.active,
            values,
            gathered,
            adjoints,
            at: data.first_row() + row,
        });
    }
}

/// What a call contributes to its operands, in their order.
fn adjoints_of_call<T: Adjoint, const STRICT: bool>(
    data: &TapeData,
    function: &Function,
    row: usize,
    values: &[T],
    adjoints: &mut [T],
) -> Result<(), Error> {
    let (operands, at) = (data.operands(row), data.first_row() + row);
    let weights = number_vec(adjoints[at..at + function.num_results()].iter().copied());
    if weights.is_zero() {
        return Ok(());
    }
    let x = number_vec(operands.iter().map(|&operand| values[operand as usize]));
    let mut xbar = NumberVec::default();
    xbar.reset(operands.len(), T::K);
    function.adjoints(T::K, x.view(), weights.view(), xbar.view_mut(), &mut FunctionMemory::of_sweep(STRICT))?;
    for (i, &operand) in operands.iter().enumerate().filter(|&(_, &operand)| data.active[operand as usize]) {
        let (v, dv) = xbar.get(i);
        let adjoint = &mut adjoints[operand as usize];
        *adjoint = *adjoint + T::from_parts(v, dv.first().copied().unwrap_or(0.0));
    }
    Ok(())
}
