//! A body at the iterations of a loop that carries nothing, side by side in lanes.

use crate::error::Error;
use crate::lanes::Lanes;
use crate::replay::lanes::{self, Block, Layout, WIDTH};
use crate::replay::samples::grow;
use crate::replay::{LaneMemory, Workspace};
use crate::tape::Tape;

/// A group of iterations side by side that has been run.
pub(crate) enum Group {
    /// All is well.
    Whole,
    /// In these iterations, a bit each, a NaN shows: the scalar engine does them again.
    Again(u64),
}

/// A body and how its iterations lie in lanes.
#[derive(Clone, Copy)]
pub(crate) struct Mapped<'a> {
    body: &'a Tape,
    layout: Layout<'a>,
}

impl Tape {
    /// The body in lanes, for values alone or for adjoints as well, unless lanes do not suit it.
    pub(crate) fn mapped(&self, ws: &mut Workspace, adjoints: bool) -> Option<Mapped<'_>> {
        let program = if adjoints { self.programs.reverse(&self.data) } else { self.programs.forward(&self.data) };
        let layout = self.lanes_of_points(ws, program, false, usize::from(adjoints))?;
        Some(Mapped { body: self, layout })
    }
}

impl Mapped<'_> {
    /// How many iterations a group has.
    pub fn lanes(&self) -> usize {
        self.layout.blocks * WIDTH
    }

    /// Runs the body at `count` iterations; `load(i, block, numbers)` writes
    /// input i in the iterations of a block. Gives the first iteration whose
    /// guards are off their branch, if there is one.
    ///
    /// Lanes beyond `count` must be loaded with numbers of an iteration.
    pub fn values(
        &self,
        ws: &mut Workspace,
        count: usize,
        load: impl Fn(usize, usize, &mut [f64; WIDTH]),
    ) -> Result<(), usize> {
        let Mapped { body, layout } = *self;
        let LaneMemory { scalars, values, .. } = &mut ws.lanes;
        grow(values, layout.value_blocks());
        let inputs = layout.value(layout.program.first_input as u32);
        let used = count.div_ceil(WIDTH);
        for (i, blocks) in values[inputs..].chunks_exact_mut(layout.blocks).take(body.num_inputs()).enumerate() {
            for (block, Lanes(numbers)) in blocks.iter_mut().enumerate() {
                // Blocks that no iteration is in repeat the last one that is.
                load(i, block.min(used - 1), numbers);
            }
        }
        lanes::values(layout, &layout.program.rows, scalars, values);
        match body.guards().is_empty() {
            true => Ok(()),
            false => body.first_lane_off_branch(layout, scalars, values, count).map_or(Ok(()), Err),
        }
    }

    /// Output j in the iterations of a block.
    pub fn output(&self, ws: &Workspace, j: usize, block: usize) -> Block {
        let LaneMemory { scalars, values, .. } = &ws.lanes;
        self.layout.fetch(scalars, values, self.layout.program.outputs[j], block)
    }

    /// The adjoints of the inputs in the iterations whose values were run last:
    /// `weight(j, block)` are the weights of output j in a block, and
    /// `store(i, block, adjoints)` takes the adjoints of input i.
    pub fn adjoints(
        &self,
        ws: &mut Workspace,
        count: usize,
        weight: impl Fn(usize, usize) -> Block,
        mut store: impl FnMut(usize, usize, &[f64; WIDTH]),
    ) -> Group {
        let Mapped { body, layout } = *self;
        let LaneMemory { scalars, values, adjoints, .. } = &mut ws.lanes;
        grow(adjoints, layout.derivative_blocks());
        let used = count.div_ceil(WIDTH);
        let mut nan = [false; 4];
        for (j, &output) in layout.program.outputs.iter().enumerate() {
            for block in 0..used {
                let active = output as usize >= layout.program.first_input;
                if active {
                    adjoints[layout.derivative(output) + block] += weight(j, block);
                }
                nan[block] |= has_nan(&layout.fetch(scalars, values, output, block).0);
            }
        }
        lanes::adjoints(layout, scalars, values, adjoints, None);
        for (i, blocks) in adjoints.chunks_exact_mut(layout.blocks).take(body.num_inputs()).enumerate() {
            for (block, adjoint) in blocks.iter_mut().enumerate() {
                let Lanes(adjoint) = std::mem::replace(adjoint, Lanes([0.0; WIDTH]));
                if block < used {
                    nan[block] |= has_nan(&adjoint);
                    store(i, block, &adjoint);
                }
            }
        }
        let again = (0..count).filter(|lane| nan[lane / WIDTH]).fold(0, |bits, lane| bits | 1 << lane);
        if again == 0 { Group::Whole } else { Group::Again(again) }
    }

    /// Why a guard is off its branch: the scalar engine says.
    pub fn changed(&self, ws: &mut Workspace, x: &[f64]) -> Error {
        let mut y = vec![0.0; self.body.num_outputs()];
        match self.body.eval_at(ws, x, None, &mut y) {
            Err(error) => error,
            Ok(()) => Error::Malformed { row: 0, reason: "two engines answer a guard differently" },
        }
    }
}

/// Whether one of them is NaN; without a way out at the first one, this is a loop of vectors.
#[inline(always)]
fn has_nan(numbers: &[f64; WIDTH]) -> bool {
    numbers.iter().fold(false, |nan, number| nan | number.is_nan())
}
