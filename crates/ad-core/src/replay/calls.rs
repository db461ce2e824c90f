//! Rows that call functions, in the sweeps of the scalar engine: a sweep runs
//! the rows up to a call, then the function, then the rows after it.

use std::ops::Range;

use crate::error::Error;
use crate::function::{Function, FunctionMemory, NumberVec};
use crate::replay::program::{Program, Row};
use crate::replay::scalar::CallError;

/// What calls work in.
#[derive(Clone, Default)]
pub(crate) struct CallMemory {
    x: NumberVec,
    y: NumberVec,
    xbar: NumberVec,
    function: FunctionMemory,
}

/// A part of a sweep.
pub(crate) enum Step<'a> {
    /// Rows none of which calls a function.
    Rows(Range<usize>),
    Call(&'a Row),
}

/// The steps of a program from the first to the last; an error is that of a
/// row of the tape.
#[inline(always)]
pub(crate) fn forward_steps(
    program: &Program,
    mut step: impl FnMut(Step<'_>) -> Result<(), Error>,
) -> Result<(), CallError> {
    let mut done = 0;
    for (&call, &row) in program.calls.iter().zip(&program.calling_rows) {
        let (call, of_row) = (call as usize, |error| (row as usize, error));
        step(Step::Rows(done..call)).map_err(of_row)?;
        step(Step::Call(&program.rows[call])).map_err(of_row)?;
        done = call + 1;
    }
    step(Step::Rows(done..program.rows.len())).map_err(|error| (0, error))
}

/// The steps of a program from the last to the first.
#[inline(always)]
pub(crate) fn reverse_steps(
    program: &Program,
    mut step: impl FnMut(Step<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut before = program.rows.len();
    for &call in program.calls.iter().rev() {
        let call = call as usize;
        step(Step::Rows(call + 1..before))?;
        step(Step::Call(&program.rows[call]))?;
        before = call;
    }
    step(Step::Rows(0..before))
}

/// The functions of a program, and what they work in.
pub(crate) struct Calls<'a> {
    pub program: &'a Program,
    pub functions: &'a [Function],
    pub memory: &'a mut CallMemory,
}

impl<'a> Calls<'a> {
    fn function(&self, row: &Row) -> (&'a Function, &'a [u32]) {
        let wide = &self.program.wide;
        (&self.functions[wide[row.x[0] as usize - 1] as usize], row.wide(wide))
    }

    /// Brings the operands of a call into `memory.x`, their tangents being 0 where they are passive.
    fn load<const K: usize>(&mut self, operands: &[u32], values: &[f64], tangents: &[[f64; K]]) {
        let x = &mut self.memory.x;
        x.reset(operands.len(), K);
        for (i, &operand) in operands.iter().enumerate() {
            let slot = operand as usize;
            let tangents = if slot < self.program.first_input { &[0.0; K] } else { &tangents[slot] };
            x.set(i, (values[slot], tangents));
        }
    }

    /// The results of a call, and their tangents in K directions.
    pub fn values<const K: usize>(
        &mut self,
        row: &Row,
        values: &mut [f64],
        tangents: &mut [[f64; K]],
    ) -> Result<(), Error> {
        let (function, operands) = self.function(row);
        self.load(operands, values, tangents);
        let CallMemory { x, y, function: memory, .. } = &mut *self.memory;
        y.reset(function.num_results(), K);
        function.values(K, x.view(), y.view_mut(), memory)?;
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
        row: &Row,
        values: &[f64],
        tangents: &[[f64; K]],
        adjoints: &mut [f64],
        adjoint_tangents: &mut [[f64; K]],
    ) -> Result<(), Error> {
        let (function, operands) = self.function(row);
        let weights = &mut self.memory.y;
        weights.reset(function.num_results(), K);
        for (j, slot) in (row.result as usize..).take(function.num_results()).enumerate() {
            weights.set(j, (adjoints[slot], &adjoint_tangents[slot]));
        }
        if weights.is_zero() {
            return Ok(());
        }
        self.load(operands, values, tangents);
        let CallMemory { x, y, xbar, function: memory } = &mut *self.memory;
        xbar.reset(operands.len(), K);
        function.adjoints(K, x.view(), y.view(), xbar.view_mut(), memory)?;
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
        Ok(())
    }
}
