//! Rows that call functions, in the sweeps of the scalar engine: a sweep runs
//! the rows up to a call, then the function, then the rows after it.

use std::ops::Range;

use crate::error::Error;
use crate::function::{Function, FunctionMemory, NumberVec, Numbers};
use crate::replay::program::{CallRow, Program};
use crate::replay::scalar::CallError;

/// What calls work in.
#[derive(Clone, Default)]
pub(crate) struct CallMemory {
    x: NumberVec,
    y: NumberVec,
    xbar: NumberVec,
    pub function: FunctionMemory,
}

/// A part of a sweep.
pub(crate) enum Step<'a> {
    /// Rows none of which calls a function.
    Rows(Range<usize>),
    Call(&'a CallRow),
}

/// The steps of a program from the first to the last; an error is that of a
/// row of the tape.
#[inline(always)]
pub(crate) fn forward_steps(
    program: &Program,
    mut step: impl FnMut(Step<'_>) -> Result<(), Error>,
) -> Result<(), CallError> {
    let mut done = 0;
    for call in &program.calls {
        let of_row = |error| (call.row, error);
        step(Step::Rows(done..call.at)).map_err(of_row)?;
        step(Step::Call(call)).map_err(of_row)?;
        done = call.at + 1;
    }
    step(Step::Rows(done..program.rows.len())).map_err(|error| (0, error))
}

/// The steps of a program from the last to the first; an error is that of a row of the tape.
#[inline(always)]
pub(crate) fn reverse_steps(
    program: &Program,
    mut step: impl FnMut(Step<'_>) -> Result<(), Error>,
) -> Result<(), CallError> {
    let mut before = program.rows.len();
    for call in program.calls.iter().rev() {
        let of_row = |error| (call.row, error);
        step(Step::Rows(call.at + 1..before)).map_err(of_row)?;
        step(Step::Call(call)).map_err(of_row)?;
        before = call.at;
    }
    step(Step::Rows(0..before)).map_err(|error| (0, error))
}

/// The functions of a program, and what they work in.
pub(crate) struct Calls<'a> {
    pub program: &'a Program,
    pub functions: &'a [Function],
    pub memory: &'a mut CallMemory,
}

/// The operands of a call, their tangents being 0 where they are passive: as they
/// lie in their slots, if they do, else side by side in `x`.
fn load<'a, const K: usize>(
    program: &Program,
    call: &CallRow,
    operands: &[u32],
    values: &'a [f64],
    tangents: &[[f64; K]],
    x: &'a mut NumberVec,
) -> Numbers<'a> {
    if let (Some(first), 0) = (call.first, K) {
        return Numbers { v: &values[first..first + operands.len()], t: &[] };
    }
    x.reserve(operands.len(), K);
    for (i, &operand) in operands.iter().enumerate() {
        let slot = operand as usize;
        x.set(i, (values[slot], if slot < program.first_input { &[0.0; K] } else { &tangents[slot] }));
    }
    x.view()
}

impl Calls<'_> {
    /// The results of a call, and their tangents in K directions.
    pub fn values<const K: usize>(
        &mut self,
        call: &CallRow,
        values: &mut [f64],
        tangents: &mut [[f64; K]],
    ) -> Result<(), Error> {
        let row = &self.program.rows[call.at];
        let function = &self.functions[self.program.function_of(call) as usize];
        let operands = row.wide(&self.program.wide);
        let CallMemory { x, y, function: memory, .. } = &mut *self.memory;
        let x = load(self.program, call, operands, values, tangents, x);
        y.reserve(function.num_results(), K);
        memory.call = (K == 0 && self.program.is_reverse).then_some(call.number);
        function.values(K, x, y.view_mut(), memory)?;
        for (j, slot) in (row.result as usize..).take(function.num_results()).enumerate() {
            let (value, of_value) = y.get(j);
            values[slot] = value;
            tangents[slot].copy_from_slice(of_value);
        }
        Ok(())
    }

    /// What a call contributes to the adjoints of its operands, in their order.
    pub fn adjoints<const K: usize>(
        &mut self,
        call: &CallRow,
        values: &[f64],
        tangents: &[[f64; K]],
        adjoints: &mut [f64],
        adjoint_tangents: &mut [[f64; K]],
    ) -> Result<(), Error> {
        let row = &self.program.rows[call.at];
        let function = &self.functions[self.program.function_of(call) as usize];
        let operands = row.wide(&self.program.wide);
        let CallMemory { x, y: weights, xbar, function: memory } = &mut *self.memory;
        weights.reserve(function.num_results(), K);
        for (j, slot) in (row.result as usize..).take(function.num_results()).enumerate() {
            weights.set(j, (adjoints[slot], &adjoint_tangents[slot]));
        }
        if weights.is_zero() {
            return Ok(());
        }
        let x = load(self.program, call, operands, values, tangents, x);
        xbar.reserve(operands.len(), K);
        memory.call = (K == 0).then_some(call.number);
        function.adjoints(K, x, weights.view(), xbar.view_mut(), memory)?;
        match call.first {
            Some(first) if K == 0 && first >= self.program.first_input => {
                for (sum, contribution) in adjoints[first..].iter_mut().zip(xbar.view().v) {
                    *sum += contribution;
                }
            }
            _ => {
                for (i, &operand) in operands.iter().enumerate() {
                    let slot = operand as usize;
                    if slot >= self.program.first_input {
                        let (value, of_value) = xbar.get(i);
                        adjoints[slot] += value;
                        for (sum, tangent) in adjoint_tangents[slot].iter_mut().zip(of_value) {
                            *sum += tangent;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
