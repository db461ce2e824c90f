//! Loops along series.

use super::{BLOCK, KEPT, Loop, Source, Target};
use crate::error::Error;
use crate::function::{Series, SeriesMemory, SeriesVec};
use crate::tape::Tape;

impl Loop {
    /// The inputs of the body in an iteration, the first in `of_body`.
    fn load_series(&self, iteration: usize, x: Series<'_>, carry: Series<'_>, of_body: &mut SeriesVec) {
        for (i, source) in self.inputs.iter().enumerate() {
            match source {
                Source::Carry(place) => of_body.set(i, carry.get(*place as usize)),
                Source::Argument(column) => of_body.set(i, x.get(column.at(iteration))),
            }
        }
    }

    fn begin_series(&self, x: Series<'_>, memory: &mut SeriesMemory) -> Result<(), Error> {
        let order = x.order();
        memory.x.reset(self.inputs.len(), order)?;
        memory.y.reset(self.outputs.len(), order)?;
        memory.carry.reset(self.initial.len(), order)?;
        for (place, &operand) in self.initial.iter().enumerate() {
            memory.carry.set(place, x.get(operand as usize));
        }
        Ok(())
    }

    /// One iteration: the carry moves on, the outputs of the body are left in `y`.
    fn step_series(&self, iteration: usize, x: Series<'_>, memory: &mut SeriesMemory) -> Result<(), Error> {
        let SeriesMemory { body, x: of_body, y, carry, .. } = memory;
        self.load_series(iteration, x, carry.view(), of_body);
        self.body.body_series(body.workspace(&self.body, x.order())?, of_body.view(), y)?;
        for (j, &target) in self.outputs.iter().enumerate() {
            if let Target::Carry(place) = target {
                carry.set(place as usize, y.view().get(j));
            }
        }
        Ok(())
    }

    /// The body on series, from carry to carry.
    pub(in crate::function) fn series(
        &self,
        x: Series<'_>,
        results: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        self.begin_series(x, memory)?;
        for iteration in 0..self.count {
            self.step_series(iteration, x, memory)?;
            for (j, &target) in self.outputs.iter().enumerate() {
                match self.result(target, iteration) {
                    Some(result) if self.summed && iteration > 0 => results.add(result, memory.y.view().get(j)),
                    Some(result) => results.set(result, memory.y.view().get(j)),
                    None => {}
                }
            }
        }
        for place in 0..self.initial.len() {
            results.set(place, memory.carry.view().get(place));
        }
        Ok(())
    }

    /// The series of the adjoints, contributions in the order of
    /// [`Loop::adjoints`]; `adjoint` is the tape of the adjoints of the body.
    pub(in crate::function) fn adjoint_series(
        &self,
        adjoint: &Tape,
        x: Series<'_>,
        weights: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let (carried, order) = (self.initial.len(), x.order());
        if carried == 0 {
            return self.adjoint_series_of_map(adjoint, x, weights, xbar, memory);
        }
        self.begin_series(x, memory)?;
        // The carry is kept as in the sweeps of one point.
        let fits = carried.saturating_mul(1 + order).saturating_mul(self.count) <= KEPT;
        let length = if fits { self.count } else { self.count.isqrt() };
        let segments = self.count.div_ceil(length);
        let mut checkpoints = memory.take(segments * carried, order)?;
        let mut kept = memory.take(length * carried, order)?;
        for segment in 0..segments {
            copy(memory.carry.view(), &mut checkpoints, segment * carried);
            if segment + 1 == segments {
                break;
            }
            for iteration in segment * length..(segment + 1) * length {
                self.step_series(iteration, x, memory)?;
            }
        }
        let mut of_carry = memory.take(carried, order)?;
        copy(weights.part(0..carried), &mut of_carry, 0);
        let mut of_inputs = memory.take(self.inputs.len(), order)?;
        for segment in (0..segments).rev() {
            let iterations = segment * length..self.count.min((segment + 1) * length);
            let checkpoint = checkpoints.view().part(segment * carried..(segment + 1) * carried);
            copy(checkpoint, &mut memory.carry, 0);
            for iteration in iterations.clone() {
                copy(memory.carry.view(), &mut kept, (iteration - iterations.start) * carried);
                if iteration + 1 < iterations.end {
                    self.step_series(iteration, x, memory)?;
                }
            }
            for iteration in iterations.clone().rev() {
                let place = (iteration - iterations.start) * carried;
                let carry = kept.view().part(place..place + carried);
                let w = [of_carry.view(), weights];
                self.adjoint_series_of_one(adjoint, iteration, x, carry, w, &mut of_inputs, memory)?;
                for (i, source) in self.inputs.iter().enumerate() {
                    match source {
                        Source::Carry(place) => of_carry.set(*place as usize, of_inputs.view().get(i)),
                        Source::Argument(column) => xbar.add(column.at(iteration), of_inputs.view().get(i)),
                    }
                }
            }
        }
        for (place, &operand) in self.initial.iter().enumerate() {
            xbar.add(operand as usize, of_carry.view().get(place));
        }
        memory.give_back([checkpoints, kept, of_carry, of_inputs]);
        Ok(())
    }

    /// The adjoints of a loop that carries nothing, block by block.
    fn adjoint_series_of_map(
        &self,
        adjoint: &Tape,
        x: Series<'_>,
        weights: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let (inputs, order) = (self.inputs.len(), x.order());
        let block = BLOCK.min(self.count);
        let mut of_block = memory.take(inputs * block, order)?;
        let mut of_inputs = memory.take(inputs, order)?;
        let nothing = memory.take(0, order)?;
        for start in (0..self.count).step_by(BLOCK).rev() {
            let iterations = start..self.count.min(start + BLOCK);
            for iteration in iterations.clone() {
                let w = [nothing.view(), weights];
                self.adjoint_series_of_one(adjoint, iteration, x, nothing.view(), w, &mut of_inputs, memory)?;
                copy(of_inputs.view(), &mut of_block, (iteration - start) * inputs);
            }
            for (i, source) in self.inputs.iter().enumerate() {
                let Source::Argument(column) = source else { continue };
                for iteration in iterations.clone().rev() {
                    xbar.add(column.at(iteration), of_block.view().get((iteration - start) * inputs + i));
                }
            }
        }
        memory.give_back([of_block, of_inputs, nothing]);
        Ok(())
    }

    /// The adjoints of the inputs of the body in one iteration, from those of the
    /// carry after it and the weights of the results.
    #[allow(clippy::too_many_arguments, reason = "a point, its weights, what it fills")]
    fn adjoint_series_of_one(
        &self,
        adjoint: &Tape,
        iteration: usize,
        x: Series<'_>,
        carry: Series<'_>,
        [of_carry, weights]: [Series<'_>; 2],
        of_inputs: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let (n, m, order) = (self.inputs.len(), self.outputs.len(), x.order());
        of_inputs.reset(n, order)?;
        let mut point = std::mem::take(&mut memory.x);
        let done = point.reset(n + m, order).and_then(|()| {
            for (j, &target) in self.outputs.iter().enumerate() {
                match (target, self.result(target, iteration)) {
                    (Target::Carry(place), _) => point.set(n + j, of_carry.get(place as usize)),
                    (_, Some(result)) => point.set(n + j, weights.get(result)),
                    (_, None) => {}
                }
            }
            if point.view().part(n..n + m).is_zero() {
                return Ok(());
            }
            self.load_series(iteration, x, carry, &mut point);
            adjoint.body_series(memory.body.workspace(adjoint, order)?, point.view(), of_inputs)
        });
        // The steps of the body need its inputs alone.
        let ready = point.reset(n, order);
        memory.x = point;
        done.and(ready)
    }
}

/// Copies series to others, which begin at `place`.
fn copy(from: Series<'_>, to: &mut SeriesVec, place: usize) {
    for i in 0..from.len() {
        to.set(place + i, from.get(i));
    }
}
