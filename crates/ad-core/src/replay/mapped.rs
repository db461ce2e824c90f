//! A body at the iterations of a loop that carries nothing, side by side in lanes.

#![allow(clippy::needless_range_loop, reason = "indices are what the vectoriser follows best")]

use crate::error::Error;
use crate::lanes::Lanes;
use crate::replay::lanes::{self, Block, Layout, WIDTH};
use crate::replay::samples::grow;
use crate::replay::{LaneMemory, Workspace};
use crate::tape::Tape;

/// The most blocks that a slot has here. There are more than elsewhere, since a
/// body is short: its slots fit the fastest cache even so, and a row costs the
/// less for each lane.
const MOST_BLOCKS: usize = 16;
/// The slots up to which a body has so many.
const FEW_SLOTS: usize = 16;
/// The most lanes side by side.
pub(crate) const MOST_LANES: usize = MOST_BLOCKS * WIDTH;

/// A group of iterations side by side that has been run.
pub(crate) enum Group {
    /// All is well.
    Whole,
    /// In some iterations, a bit each in the word of their block, a number is not
    /// finite: the scalar engine does them again. Bits of lanes beyond the last
    /// iteration say nothing.
    Again([u16; MOST_BLOCKS]),
}

/// A body and how its iterations lie in lanes.
#[derive(Clone, Copy)]
pub(crate) struct Mapped<'a> {
    body: &'a Tape,
    layout: Layout<'a>,
}

impl Tape {
    /// The body in lanes for so many iterations, for values alone or for adjoints
    /// as well, unless lanes do not suit it.
    pub(crate) fn mapped(&self, ws: &mut Workspace, adjoints: bool, iterations: usize) -> Option<Mapped<'_>> {
        let program = if adjoints { self.programs.reverse(&self.data) } else { self.programs.forward(&self.data) };
        let mut layout = self.lanes_of_points(ws, program, false, usize::from(adjoints))?;
        // Guards are looked at in a word of bits, one a lane.
        if ws.lanes.lanes.is_none() && self.guards().is_empty() && program.num_slots <= FEW_SLOTS {
            while layout.blocks < MOST_BLOCKS && layout.blocks * WIDTH < iterations {
                layout.blocks *= 2;
            }
        }
        Some(Mapped { body: self, layout })
    }
}

impl Mapped<'_> {
    /// The blocks that the values of a group take.
    pub fn value_blocks(&self) -> usize {
        self.layout.value_blocks()
    }

    /// How many iterations a group has.
    pub fn lanes(&self) -> usize {
        self.layout.blocks * WIDTH
    }

    /// Runs the body at `count` iterations, in the memory `values`; `load(i, block)` gives
    /// input i in the iterations of a block. Gives the first iteration whose
    /// guards are off their branch, if there is one.
    ///
    /// Lanes beyond `count` must be loaded with numbers of an iteration.
    pub fn values(
        &self,
        ws: &Workspace,
        values: &mut [Block],
        count: usize,
        load: impl Fn(usize, usize) -> Block,
    ) -> Result<(), usize> {
        let Mapped { body, layout } = *self;
        let scalars = &ws.lanes.scalars;
        let inputs = layout.value(layout.program.first_input as u32);
        let used = count.div_ceil(WIDTH);
        // At the level of what reads them: a wide load of what narrow stores have only just written stalls.
        layout.level.run(
            #[inline(always)]
            || {
                let of_inputs = values[inputs..].chunks_exact_mut(layout.blocks).take(body.num_inputs());
                for (i, blocks) in of_inputs.enumerate() {
                    for (block, numbers) in blocks.iter_mut().enumerate() {
                        // Blocks that no iteration is in repeat the last one that is.
                        *numbers = load(i, block.min(used - 1));
                    }
                }
            },
        );
        lanes::values(layout, &layout.program.rows, scalars, values);
        match body.guards().is_empty() {
            true => Ok(()),
            false => body.first_lane_off_branch(layout, scalars, values, count).map_or(Ok(()), Err),
        }
    }

    /// Output j in the iterations of a block.
    pub fn output(&self, ws: &Workspace, values: &[Block], j: usize, block: usize) -> Block {
        self.layout.fetch(&ws.lanes.scalars, values, self.layout.program.outputs[j], block)
    }

    /// The adjoints of the inputs in the iterations whose values are given:
    /// `weight(j, block)` are the weights of output j in a block, and
    /// `store(i, block, adjoints)` takes the adjoints of input i.
    pub fn adjoints(
        &self,
        ws: &mut Workspace,
        values: &mut [Block],
        count: usize,
        weight: impl Fn(usize, usize) -> Block,
        mut store: impl FnMut(usize, usize, Block),
    ) -> Group {
        let Mapped { body, layout } = *self;
        let LaneMemory { scalars, adjoints, .. } = &mut ws.lanes;
        grow(adjoints, layout.derivative_blocks());
        let used = count.div_ceil(WIDTH);
        let mut probes = [Lanes([0.0; WIDTH]); MOST_BLOCKS];
        layout.level.run(
            #[inline(always)]
            || {
                for (j, &output) in layout.program.outputs.iter().enumerate() {
                    let active = output as usize >= layout.program.first_input;
                    for block in 0..used {
                        if active {
                            adjoints[layout.derivative(output) + block] += weight(j, block);
                        }
                        look_at(&mut probes[block], layout.fetch(scalars, values, output, block));
                    }
                }
            },
        );
        lanes::adjoints(layout, scalars, values, adjoints, None);
        layout.level.run(
            #[inline(always)]
            || {
                for i in 0..body.num_inputs() {
                    for block in 0..layout.blocks {
                        let adjoint = lanes::take(adjoints, i * layout.blocks + block);
                        if block < used {
                            look_at(&mut probes[block], adjoint);
                            store(i, block, adjoint);
                        }
                    }
                }
            },
        );
        let all = probes[..used].iter().fold(Lanes([0.0; WIDTH]), |sum, &probe| sum + probe);
        if !all.0.iter().any(|probe| probe.is_nan()) {
            return Group::Whole;
        }
        let mut again = [0; MOST_BLOCKS];
        for (bits, Lanes(probe)) in again.iter_mut().zip(&probes[..used]) {
            for (lane, probe) in probe.iter().enumerate() {
                *bits |= u16::from(probe.is_nan()) << lane;
            }
        }
        Group::Again(again)
    }

    /// Why a guard is off its branch: the scalar engine says.
    pub fn changed(&self, ws: &mut Workspace, x: &[f64]) -> Error {
        let mut y = vec![0.0; self.body.num_outputs()];
        match self.body.eval_at(ws, x, None, &mut y) {
            Err(error) => error,
            Ok(()) => Error::of_guards(),
        }
    }
}

/// Adds 0, or NaN in the lanes where a number is NaN or infinite: those are done
/// again, and then it is seen which it was.
#[inline(always)]
fn look_at(probe: &mut Block, numbers: Block) {
    *probe += numbers * 0.0;
}
