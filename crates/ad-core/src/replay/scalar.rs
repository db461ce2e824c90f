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

use crate::dual::Dual;
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
        fn further_result(self) -> (usize, usize) {
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

    fn further_result(self) {}
}

#[inline(always)]
fn primal_row<T: Rule>(data: &TapeData, row: usize, values: &mut [T], gathered: &mut Vec<T>) {
    data.op(row).visit(PrimalRow { operands: data.operands(row), values, gathered, at: data.first_row() + row });
}

/// The values of all rows.
pub(crate) fn primal_all<T: Rule>(data: &TapeData, values: &mut [T], gathered: &mut Vec<T>) {
    for row in 0..data.num_rows() {
        primal_row(data, row, values, gathered);
    }
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

    fn further_result(self) {}
}

/// The tangents of every active value in `k` directions at once: `seeds` holds
/// k numbers per input, and so does `tangents` afterwards for each value.
pub(crate) fn tangent_sweep<T: Rule, const STRICT: bool>(
    data: &TapeData,
    values: &[T],
    seeds: &[T],
    k: usize,
    tangents: &mut Vec<T>,
    gathered: &mut Vec<T>,
) {
    tangents.clear();
    tangents.resize(data.num_values() * k, T::lit(0.0));
    let first_input = data.first_input() * k;
    tangents[first_input..first_input + seeds.len()].copy_from_slice(seeds);
    for span in &data.spans {
        for row in span.clone() {
            data.op(row).visit(TangentRow::<T, STRICT> {
                operands: data.operands(row),
                active: &data.active,
                values,
                gathered,
                tangents,
                directions: k,
                at: data.first_row() + row,
            });
        }
    }
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

    fn further_result(self) {}
}

/// The adjoints of every value, from one weight an output.
pub(crate) fn reverse_sweep<T: Differentiated, const STRICT: bool>(
    data: &TapeData,
    values: &[T],
    weights: &[T],
    adjoints: &mut Vec<T>,
    gathered: &mut Vec<T>,
) {
    adjoints.clear();
    adjoints.resize(data.num_values(), T::lit(0.0));
    for (&output, &weight) in data.outputs.iter().zip(weights) {
        let output = output as usize;
        adjoints[output] = adjoints[output] + weight;
    }
    for span in data.spans.iter().rev() {
        for row in span.clone().rev() {
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
}
