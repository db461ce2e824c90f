//! Loops over a recorded body: [`Tape::call`], [`Tape::map`],
//! [`Tape::map_sum`] and [`Tape::scan`].

use std::collections::HashMap;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

use crate::error::Error;
use crate::function::{Function, FunctionMemory, Kind, NumberVec, Numbers, NumbersMut, Tangent};
use crate::lanes::Lanes;
use crate::record::{LIMIT, SourceLocation, Var, VarKey, record_call, refuse_call};
use crate::replay::{Block, Group, MOST_LANES, Mapped, WIDTH, Workspace};
use crate::rule::Rule;
use crate::tape::Tape;

mod reading;
mod series;

pub(crate) use reading::{Given, Taken};

/// A body run so many times, from carry to carry.
#[derive(Clone)]
pub(crate) struct Loop {
    pub(crate) body: Tape,
    /// What each input of the body is.
    pub(crate) inputs: Vec<Source>,
    /// What each output of the body is.
    pub(crate) outputs: Vec<Target>,
    /// Where among the operands each number of the carry begins.
    pub(crate) initial: Vec<u32>,
    pub(crate) count: usize,
    /// How many outputs of the body are no carry.
    pub(crate) outs: usize,
    /// Whether those are added up, or are results for each iteration.
    pub(crate) summed: bool,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Source {
    Carry(u32),
    Argument(Column),
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Target {
    Carry(u32),
    Out(u32),
}

/// Where among the operands an argument is in each iteration.
#[derive(Clone, PartialEq)]
pub(crate) enum Column {
    /// At `first` and then `stride` further on each time.
    Strided {
        first: i64,
        stride: i64,
    },
    Listed(Vec<u32>),
}

impl Column {
    fn at(&self, iteration: usize) -> usize {
        match self {
            Column::Strided { first, stride } => (first + stride * iteration as i64) as usize,
            Column::Listed(places) => places[iteration] as usize,
        }
    }

    /// Takes note of the place in iteration `iteration`, those before it being known.
    fn push(&mut self, iteration: usize, place: u32) {
        match self {
            Column::Strided { first, .. } if iteration == 0 => *first = place.into(),
            Column::Strided { first, stride } if iteration == 1 => *stride = i64::from(place) - *first,
            Column::Strided { first, stride } if *first + *stride * iteration as i64 == i64::from(place) => {}
            Column::Strided { .. } => {
                let mut places: Vec<u32> = (0..iteration).map(|i| self.at(i) as u32).collect();
                places.push(place);
                *self = Column::Listed(places);
            }
            Column::Listed(places) => places.push(place),
        }
    }

    /// Adds what iterations contribute to their arguments, from the last to the
    /// first; that of iteration i is number `at + i % BLOCK`.
    fn scatter(
        &self,
        k: usize,
        iterations: Range<usize>,
        contributions: &NumberVec,
        at: usize,
        xbar: &mut NumbersMut<'_>,
    ) {
        match *self {
            // No two iterations meet, so that their order is nobody's business.
            Column::Strided { first, stride: 1 } if k == 0 => {
                let place = first as usize + iterations.start;
                let contributions = &contributions.view().v[at..at + iterations.len()];
                for (sum, contribution) in xbar.v[place..].iter_mut().zip(contributions) {
                    *sum += contribution;
                }
            }
            _ => {
                for iteration in iterations.rev() {
                    xbar.add(self.at(iteration), contributions.get(at + iteration % BLOCK));
                }
            }
        }
    }

    /// Whether each of `count` iterations finds an operand; and the stride is no larger than one could be.
    fn fits(&self, count: usize, num_operands: usize) -> bool {
        match self {
            Column::Strided { first, stride } => {
                // What lies between the first and the last lies between their operands.
                let last = i128::from(*first) + i128::from(*stride) * (count as i128 - 1);
                let operands = 0..num_operands as i128;
                let is_small = stride.unsigned_abs() <= LIMIT as u64;
                is_small && operands.contains(&i128::from(*first)) && operands.contains(&last)
            }
            Column::Listed(places) => {
                places.len() == count && places.iter().all(|&place| (place as usize) < num_operands)
            }
        }
    }

    /// The same places, so many operands further on.
    fn shifted(&self, by: usize) -> Column {
        match self {
            Column::Strided { first, stride } => Column::Strided { first: first + by as i64, stride: *stride },
            Column::Listed(places) => Column::Listed(places.iter().map(|place| place + by as u32).collect()),
        }
    }
}

impl PartialEq for Loop {
    /// Whether they do the same with the same body.
    fn eq(&self, other: &Loop) -> bool {
        self.body.is_same(&other.body)
            && (self.count, self.summed, &self.initial) == (other.count, other.summed, &other.initial)
            && (&self.inputs, &self.outputs) == (&other.inputs, &other.outputs)
    }
}

/// Iterations from which on lanes are faster than one after the other.
const FEWEST: usize = 4;

/// Blocks of values that are kept from the values of a call to its adjoints: half a megabyte.
const KEPT_BLOCKS: usize = 1 << 12;

/// Blocks that the calls of a tape keep together: call number c keeps its values
/// if they are at most 1/(c + 1) of these 64 megabytes, so that a tape of
/// many calls takes no more than a few times as much.
const KEPT_BLOCKS_OF_CALLS: usize = 1 << 19;

/// Iterations whose contributions to adjoints are added together.
const BLOCK: usize = MOST_LANES;

/// The most numbers that are kept to go back through a recurrence without
/// computing any of it again.
const KEPT: usize = 1 << 20;

impl Loop {
    /// What stands before the name of the body.
    pub(crate) fn word(&self) -> Option<&'static str> {
        match (self.initial.len(), self.count, self.summed) {
            (1.., ..) => Some("scan"),
            (0, _, true) => Some("Σ"),
            (0, 1, false) => None,
            (0, _, false) => Some("map"),
        }
    }

    /// The inputs of the body in an iteration.
    fn load(&self, k: usize, iteration: usize, x: Numbers<'_>, carry: &NumberVec, of_body: &mut NumberVec) {
        for (i, source) in self.inputs.iter().enumerate() {
            match source {
                Source::Carry(place) => of_body.set(i, carry.get(*place as usize)),
                Source::Argument(column) => of_body.set(i, x.get(column.at(iteration), k)),
            }
        }
    }

    /// Takes the carry out of the outputs of the body.
    fn take_carry(&self, of_body: &NumberVec, carry: &mut NumberVec) {
        for (j, target) in self.outputs.iter().enumerate() {
            if let Target::Carry(place) = *target {
                carry.set(place as usize, of_body.get(j));
            }
        }
    }

    /// The result that an output of the body is in an iteration, if it is no carry.
    fn result(&self, target: Target, iteration: usize) -> Option<usize> {
        match target {
            Target::Carry(_) => None,
            Target::Out(place) if self.summed => Some(self.initial.len() + place as usize),
            Target::Out(place) => Some(self.initial.len() + iteration * self.outs + place as usize),
        }
    }

    fn begin(&self, k: usize, x: Numbers<'_>, memory: &mut FunctionMemory) {
        let FunctionMemory { x: of_body, y, carry, .. } = memory;
        of_body.reset(self.inputs.len(), k);
        y.reset(self.outputs.len(), k);
        carry.reset(self.initial.len(), k);
        for (place, &operand) in self.initial.iter().enumerate() {
            carry.set(place, x.get(operand as usize, k));
        }
    }

    /// One iteration: the carry moves on, the outputs of the body are left in `y`.
    fn step(&self, k: usize, iteration: usize, x: Numbers<'_>, memory: &mut FunctionMemory) -> Result<(), Error> {
        memory.body();
        let FunctionMemory { body: Some(ws), x: of_body, y, carry, .. } = memory else { return Ok(()) };
        self.load(k, iteration, x, carry, of_body);
        self.body.body_values(ws, k, of_body.view(), y.view_mut())?;
        self.take_carry(y, carry);
        Ok(())
    }

    pub(crate) fn values(
        &self,
        k: usize,
        x: Numbers<'_>,
        mut results: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        if k == 0
            && self.suits_lanes()
            && let Some(mapped) = self.mapped(memory)
        {
            return self.values_in_lanes(mapped, x, results, memory);
        }
        self.begin(k, x, memory);
        for iteration in 0..self.count {
            self.step(k, iteration, x, memory)?;
            for (j, &target) in self.outputs.iter().enumerate() {
                match self.result(target, iteration) {
                    Some(result) if self.summed && iteration > 0 => results.add(result, memory.y.get(j)),
                    Some(result) => results.set(result, memory.y.get(j)),
                    None => {}
                }
            }
        }
        for place in 0..self.initial.len() {
            results.set(place, memory.carry.get(place));
        }
        Ok(())
    }

    /// The body in lanes, if they suit it: for adjoints if those will be wanted and
    /// there is room to keep the values for them.
    fn mapped(&self, memory: &mut FunctionMemory) -> Option<Mapped<'_>> {
        let wanted = memory.call.is_some();
        let mapped = self.body.mapped(memory.body(), wanted, self.count)?;
        if memory.call.is_none_or(|call| self.keeps(mapped, call)) {
            return Some(mapped);
        }
        memory.call = None;
        self.body.mapped(memory.body(), false, self.count)
    }

    /// Whether the values of all iterations are kept from the values of a call to its adjoints.
    fn keeps(&self, mapped: Mapped<'_>, call: usize) -> bool {
        let blocks = self.count.div_ceil(mapped.lanes()).saturating_mul(mapped.value_blocks());
        blocks <= KEPT_BLOCKS.min(KEPT_BLOCKS_OF_CALLS / (call + 1))
    }

    /// Whether iterations may run side by side, and are enough for it.
    fn suits_lanes(&self) -> bool {
        self.initial.is_empty() && self.count >= FEWEST
    }

    /// Input i in a block of lanes, the first of which is iteration `first`; lanes
    /// beyond the last iteration repeat that one.
    #[inline(always)]
    fn load_lanes(&self, i: usize, first: usize, x: &[f64]) -> Lanes<WIDTH> {
        let mut lanes = [0.0; WIDTH];
        match &self.inputs[i] {
            Source::Argument(Column::Strided { first: start, stride: 1 }) if first + WIDTH <= self.count => {
                let start = *start as usize + first;
                let numbers = &x[start..start + WIDTH];
                lanes.copy_from_slice(numbers);
            }
            Source::Argument(column) => {
                for (lane, number) in lanes.iter_mut().enumerate() {
                    *number = x[column.at((first + lane).min(self.count - 1))];
                }
            }
            Source::Carry(_) => {}
        }
        Lanes(lanes)
    }

    /// The weight of output j in a block of lanes, the first of which is iteration
    /// `first`; 0 from iteration `end` on.
    #[inline(always)]
    fn weight_lanes(&self, j: usize, first: usize, end: usize, weights: &[f64]) -> Lanes<WIDTH> {
        let mut lanes = [0.0; WIDTH];
        if let Target::Out(place) = self.outputs[j] {
            let (start, step) = match self.summed {
                true => (place as usize, 0),
                false => (first * self.outs + place as usize, self.outs),
            };
            if step == 0 && first + WIDTH <= end {
                return Lanes([weights[start]; WIDTH]);
            }
            for lane in 0..WIDTH.min(end - first) {
                lanes[lane] = weights[start + lane * step];
            }
        }
        Lanes(lanes)
    }

    /// Runs the body in the iterations from `first` on, as many as there are lanes.
    fn run_lanes(
        &self,
        mapped: Mapped<'_>,
        ws: &mut Workspace,
        values: &mut [Block],
        first: usize,
        x: &[f64],
    ) -> Result<(), Error> {
        let count = mapped.lanes().min(self.count - first);
        let done = mapped.values(
            ws,
            values,
            count,
            #[inline(always)]
            |i, block| self.load_lanes(i, first + block * WIDTH, x),
        );
        done.map_err(|lane| {
            let at = |source: &Source| match source {
                Source::Argument(column) => x[column.at(first + lane)],
                Source::Carry(_) => f64::NAN,
            };
            mapped.changed(ws, &self.inputs.iter().map(at).collect::<Vec<f64>>())
        })
    }

    fn values_in_lanes(
        &self,
        mapped: Mapped<'_>,
        x: Numbers<'_>,
        results: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let blocks = mapped.value_blocks();
        let keeps = memory.call.is_some();
        let groups = if keeps { self.count.div_ceil(mapped.lanes()) } else { 1 };
        let mut lanes = memory.take_lanes(groups * blocks);
        let done = self.sums_in_lanes(mapped, x, results, memory.body(), &mut lanes, keeps);
        memory.put_lanes(lanes);
        done
    }

    fn sums_in_lanes(
        &self,
        mapped: Mapped<'_>,
        x: Numbers<'_>,
        results: NumbersMut<'_>,
        ws: &mut Workspace,
        lanes: &mut [Block],
        keeps: bool,
    ) -> Result<(), Error> {
        let blocks = mapped.value_blocks();
        for (group, first) in (0..self.count).step_by(mapped.lanes()).enumerate() {
            let start = if keeps { group * blocks } else { 0 };
            let values = &mut lanes[start..start + blocks];
            self.run_lanes(mapped, ws, values, first, x.v)?;
            let last = self.count.min(first + mapped.lanes());
            for (j, &target) in self.outputs.iter().enumerate() {
                let Target::Out(place) = target else { continue };
                for (block, start) in (first..last).step_by(WIDTH).enumerate() {
                    let Lanes(lanes) = mapped.output(ws, values, j, block);
                    let lanes = &lanes[..WIDTH.min(last - start)];
                    if self.summed {
                        let sum = &mut results.v[place as usize];
                        // −0 adds to any number without changing it.
                        let before = if start == 0 { -0.0 } else { *sum };
                        *sum = lanes.iter().fold(before, |sum, value| sum + value);
                    } else {
                        for (iteration, &value) in (start..).zip(lanes) {
                            results.v[iteration * self.outs + place as usize] = value;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The adjoints of a loop that carries nothing: blocks of [`BLOCK`] iterations
    /// contribute from the last to the first, in each one argument after the
    /// other, from the last iteration to the first.
    fn adjoints_of_map(
        &self,
        k: usize,
        x: Numbers<'_>,
        weights: Numbers<'_>,
        mut xbar: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let mapped =
            if k == 0 && self.suits_lanes() { self.body.mapped(memory.body(), true, self.count) } else { None };
        memory.call = memory.call.filter(|&call| mapped.is_some_and(|mapped| self.keeps(mapped, call)));
        for start in (0..self.count).step_by(BLOCK).rev() {
            let iterations = start..self.count.min(start + BLOCK);
            let mut of_inputs = std::mem::take(&mut memory.segment);
            of_inputs.reserve(self.inputs.len() * BLOCK, k);
            let done = match mapped {
                Some(mapped) => self.adjoints_in_lanes(mapped, iterations.clone(), x, weights, &mut of_inputs, memory),
                None => iterations
                    .clone()
                    .try_for_each(|iteration| self.adjoints_of_one(k, iteration, x, weights, &mut of_inputs, memory)),
            };
            if done.is_ok() {
                for (i, source) in self.inputs.iter().enumerate() {
                    if let Source::Argument(column) = source {
                        column.scatter(k, iterations.clone(), &of_inputs, i * BLOCK, &mut xbar);
                    }
                }
            }
            memory.segment = of_inputs;
            done?;
        }
        Ok(())
    }

    /// The adjoints of the inputs of the body in one iteration of a map.
    fn adjoints_of_one(
        &self,
        k: usize,
        iteration: usize,
        x: Numbers<'_>,
        weights: Numbers<'_>,
        of_inputs: &mut NumberVec,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        memory.body();
        let FunctionMemory { body: Some(ws), x: of_body, w, xbar, carry, .. } = memory else { return Ok(()) };
        of_body.reset(self.inputs.len(), k);
        w.reset(self.outputs.len(), k);
        xbar.reset(self.inputs.len(), k);
        for (j, &target) in self.outputs.iter().enumerate() {
            if let Some(result) = self.result(target, iteration) {
                w.set(j, weights.get(result, k));
            }
        }
        if !w.is_zero() {
            self.load(k, iteration, x, carry, of_body);
            self.body.body_adjoints(ws, k, of_body.view(), w.view(), xbar.view_mut())?;
        }
        for i in 0..self.inputs.len() {
            of_inputs.set(i * BLOCK + iteration % BLOCK, xbar.get(i));
        }
        Ok(())
    }

    fn adjoints_in_lanes(
        &self,
        mapped: Mapped<'_>,
        iterations: Range<usize>,
        x: Numbers<'_>,
        weights: Numbers<'_>,
        of_inputs: &mut NumberVec,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let blocks = mapped.value_blocks();
        for first in iterations.clone().step_by(mapped.lanes()) {
            let count = mapped.lanes().min(iterations.end - first);
            let keeps = memory.call.is_some();
            let start = if keeps { first / mapped.lanes() * blocks } else { 0 };
            let mut lanes = memory.take_lanes(start + blocks);
            let values = &mut lanes[start..start + blocks];
            let ws = memory.body();
            let run = if keeps { Ok(()) } else { self.run_lanes(mapped, ws, values, first, x.v) };
            let of_inputs_now = &mut *of_inputs;
            let group = run.map(|()| {
                mapped.adjoints(
                    ws,
                    values,
                    count,
                    #[inline(always)]
                    |j, block| self.weight_lanes(j, first + block * WIDTH, first + count, weights.v),
                    #[inline(always)]
                    |i, block, Lanes(adjoints)| {
                        let place = i * BLOCK + first % BLOCK + block * WIDTH;
                        let places = &mut of_inputs_now.v[place..place + WIDTH];
                        places.copy_from_slice(&adjoints);
                    },
                )
            });
            memory.put_lanes(lanes);
            if let Group::Again(lanes) = group? {
                for lane in (0..count).filter(|lane| lanes[lane / WIDTH] >> (lane % WIDTH) & 1 == 1) {
                    self.adjoints_of_one(0, first + lane, x, weights, of_inputs, memory)?;
                }
            }
        }
        Ok(())
    }

    /// From the last iteration to the first. The carry before each of them is
    /// computed once and kept if there is room, else kept at every √count-th and
    /// computed again from there.
    pub(crate) fn adjoints(
        &self,
        k: usize,
        x: Numbers<'_>,
        weights: Numbers<'_>,
        xbar: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let carried = self.initial.len();
        xbar.v.fill(0.0);
        xbar.t.fill(0.0);
        if carried == 0 {
            return self.adjoints_of_map(k, x, weights, xbar, memory);
        }
        self.begin(k, x, memory);
        memory.body();
        memory.w.reset(self.outputs.len(), k);
        memory.xbar.reset(self.inputs.len(), k);
        let fits = carried.saturating_mul(1 + k).saturating_mul(self.count) <= KEPT;
        let length = if fits { self.count } else { self.count.isqrt() };
        let segments = self.count.div_ceil(length);
        memory.checkpoints.try_reset(segments.saturating_mul(carried), k)?;
        memory.segment.try_reset(length.saturating_mul(carried), k)?;
        for segment in 0..segments {
            copy(&memory.carry, 0, &mut memory.checkpoints, segment * carried, carried);
            if segment + 1 == segments {
                // It is gone through below in any case.
                break;
            }
            for iteration in segment * length..(segment + 1) * length {
                self.step(k, iteration, x, memory)?;
            }
        }
        memory.borrow(|memory, [adjoint]| {
            // The adjoints of the carry, after the last iteration for now.
            adjoint.reset(carried, k);
            for place in 0..carried {
                adjoint.set(place, weights.get(place, k));
            }
            self.adjoints_of_segments(k, x, weights, xbar, memory, adjoint, length)
        })
    }

    /// The contributions of a recurrence, whose states are kept before every
    /// segment of so many iterations.
    #[allow(clippy::too_many_arguments, reason = "a sweep's numbers are that many")]
    fn adjoints_of_segments(
        &self,
        k: usize,
        x: Numbers<'_>,
        weights: Numbers<'_>,
        mut xbar: NumbersMut<'_>,
        memory: &mut FunctionMemory,
        adjoint: &mut NumberVec,
        length: usize,
    ) -> Result<(), Error> {
        let carried = self.initial.len();
        let segments = self.count.div_ceil(length);
        for segment in (0..segments).rev() {
            let iterations = segment * length..self.count.min((segment + 1) * length);
            copy(&memory.checkpoints, segment * carried, &mut memory.carry, 0, carried);
            for iteration in iterations.clone() {
                let place = (iteration - iterations.start) * carried;
                copy(&memory.carry, 0, &mut memory.segment, place, carried);
                if iteration + 1 < iterations.end {
                    self.step(k, iteration, x, memory)?;
                }
            }
            for iteration in iterations.clone().rev() {
                let FunctionMemory { body: Some(ws), x: of_body, w, xbar: of_inputs, carry, segment, .. } = memory
                else {
                    return Ok(());
                };
                copy(segment, (iteration - iterations.start) * carried, carry, 0, carried);
                for (j, &target) in self.outputs.iter().enumerate() {
                    match (target, self.result(target, iteration)) {
                        (Target::Carry(place), _) => w.set(j, adjoint.get(place as usize)),
                        (_, Some(result)) => w.set(j, weights.get(result, k)),
                        (_, None) => {}
                    }
                }
                if w.is_zero() {
                    of_inputs.reset(self.inputs.len(), k);
                } else {
                    self.load(k, iteration, x, carry, of_body);
                    self.body.body_adjoints(ws, k, of_body.view(), w.view(), of_inputs.view_mut())?;
                }
                for (i, source) in self.inputs.iter().enumerate() {
                    match source {
                        Source::Carry(place) => adjoint.set(*place as usize, of_inputs.get(i)),
                        Source::Argument(column) => xbar.add(column.at(iteration), of_inputs.get(i)),
                    }
                }
            }
        }
        for (place, &operand) in self.initial.iter().enumerate() {
            xbar.add(operand as usize, adjoint.get(place));
        }
        Ok(())
    }

    /// TF: the same loop over the body with tangents.
    pub(crate) fn tangent(&self, name: Option<Arc<str>>, num_operands: usize) -> Result<Tangent, Error> {
        let (carried, outs) = (self.initial.len() as u32, self.outs as u32);
        let source = |source: &Source| match source {
            Source::Carry(place) => Source::Carry(place + carried),
            Source::Argument(column) => Source::Argument(column.shifted(num_operands)),
        };
        let target = |target: &Target| match *target {
            Target::Carry(place) => Target::Carry(place + carried),
            Target::Out(place) => Target::Out(place + outs),
        };
        let rolled = Loop {
            body: self.body.tangent_body()?,
            inputs: self.inputs.iter().cloned().chain(self.inputs.iter().map(source)).collect(),
            outputs: self.outputs.iter().copied().chain(self.outputs.iter().map(target)).collect(),
            initial: self.initial.iter().copied().chain(self.initial.iter().map(|i| i + num_operands as u32)).collect(),
            outs: 2 * self.outs,
            ..*self
        };
        let runs = match self.outs {
            0 => 0,
            _ if self.summed => 1,
            _ => self.count as u32,
        };
        let results_at = |of_carry: u32, of_outs: u32| -> Vec<u32> {
            let first = move |run: u32| 2 * carried + run * 2 * outs + of_outs;
            let of_runs = (0..runs).flat_map(|run| (0..outs).map(move |out| first(run) + out));
            (0..carried).map(|place| of_carry + place).chain(of_runs).collect()
        };
        let (values, tangents) = (results_at(0, 0), results_at(carried, outs));
        let function = rolled.function(name, 2 * num_operands);
        Ok(Tangent { function, values, tangents })
    }

    /// The function of a loop that comes from elsewhere, or what no recording would have left in it.
    pub(crate) fn checked(self, name: Option<Arc<str>>, num_operands: usize) -> Result<Function, &'static str> {
        let Loop { body, inputs, outputs, initial, count, outs, summed } = &self;
        if (inputs.len(), outputs.len()) != (body.num_inputs(), body.num_outputs()) {
            return Err("its body takes or gives other numbers of values");
        }
        if *count == 0 || i64::try_from(*count).is_err() {
            return Err("it runs its body never, or more than 2^63 − 1 times");
        }
        if initial.len() + outs != outputs.len() {
            return Err("its state and its further outputs are not the outputs of its body");
        }
        let runs = if *summed { 1 } else { *count };
        if outs.saturating_mul(runs) > LIMIT - initial.len().min(LIMIT) || num_operands > LIMIT {
            return Err("it takes or gives more values than an index can name");
        }
        if initial.iter().any(|&operand| operand as usize >= num_operands) {
            return Err("its state begins with an operand that it does not have");
        }
        // What is a carry of the body, or a further output, is so once.
        let mut carried = vec![false; initial.len()];
        for input in inputs {
            let fits = match input {
                Source::Carry(place) => is_first(&mut carried, *place),
                Source::Argument(column) => column.fits(*count, num_operands),
            };
            if !fits {
                return Err("an input of its body is an operand or a number of its state that it does not have");
            }
        }
        let (mut next, mut further) = (vec![false; initial.len()], vec![false; *outs]);
        let is_output = |output: &Target| match *output {
            Target::Carry(place) => is_first(&mut next, place),
            Target::Out(place) => is_first(&mut further, place),
        };
        if !outputs.iter().all(is_output) || carried.contains(&false) {
            return Err("an output of its body is two of its results or none");
        }
        Ok(self.function(name, num_operands))
    }

    fn function(self, name: Option<Arc<str>>, num_operands: usize) -> Function {
        let runs = if self.summed { 1 } else { self.count };
        let results = self.initial.len() + self.outs * runs;
        Function::new(name, Kind::Loop(self), num_operands, results)
    }

    pub(crate) fn replay<T: Rule>(&self, x: &[T]) -> Result<Vec<T>, Error> {
        let mut carry: Vec<T> = self.initial.iter().map(|&operand| x[operand as usize]).collect();
        let mut outs = Vec::new();
        for iteration in 0..self.count {
            let of_body: Vec<T> = self
                .inputs
                .iter()
                .map(|source| match source {
                    Source::Carry(place) => carry[*place as usize],
                    Source::Argument(column) => x[column.at(iteration)],
                })
                .collect();
            let values = self.body.eval_with(&of_body)?;
            for (&target, value) in self.outputs.iter().zip(values) {
                match target {
                    Target::Carry(place) => carry[place as usize] = value,
                    Target::Out(place) if self.summed && iteration > 0 => {
                        outs[place as usize] = outs[place as usize] + value;
                    }
                    Target::Out(_) => outs.push(value),
                }
            }
        }
        Ok(carry.into_iter().chain(outs).collect())
    }

    /// The function that runs a tape once: its operands are the inputs.
    pub(crate) fn once(body: Tape) -> Function {
        let name = body.name.clone();
        let (n, m) = (body.num_inputs(), body.num_outputs());
        let argument = |i: usize| Source::Argument(Column::Strided { first: i as i64, stride: 0 });
        let rolled = Loop {
            inputs: (0..n).map(argument).collect(),
            outputs: (0..m as u32).map(Target::Out).collect(),
            initial: Vec::new(),
            count: 1,
            outs: m,
            summed: false,
            body,
        };
        rolled.function(name, n)
    }
}

/// Whether a place is one of those that are not taken yet; then it is taken.
fn is_first(taken: &mut [bool], place: u32) -> bool {
    taken.get_mut(place as usize).is_some_and(|taken| !std::mem::replace(taken, true))
}

/// Copies `count` numbers with their tangents.
fn copy(from: &NumberVec, at: usize, to: &mut NumberVec, place: usize, count: usize) {
    for i in 0..count {
        to.set(place + i, from.get(at + i));
    }
}

/// The variables that a loop is called with, each once, and where its arguments are among them.
struct Arguments {
    operands: Vec<Var>,
    places: HashMap<VarKey, u32>,
    columns: Vec<Column>,
    count: usize,
}

impl Arguments {
    fn new(width: usize) -> Arguments {
        let columns = vec![Column::Strided { first: 0, stride: 0 }; width];
        Arguments { operands: Vec::new(), places: HashMap::new(), columns, count: 0 }
    }

    fn place(&mut self, x: Var) -> u32 {
        let Arguments { operands, places, .. } = self;
        *places.entry(x.key()).or_insert_with(|| {
            operands.push(x);
            operands.len() as u32 - 1
        })
    }

    fn push(&mut self, arguments: &[Var]) {
        for (i, &x) in arguments.iter().enumerate() {
            let place = self.place(x);
            self.columns[i].push(self.count, place);
        }
        self.count += 1;
    }
}

impl Tape {
    /// The same tape under a name, which traces and errors show where it is called.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let square = Tape::record(&[1.0], |x| x[0] * x[0])?.named("square");
    /// let tape = Tape::record(&[3.0], |x| square.call(x)[0] + 1.0)?;
    /// assert_eq!(tape.to_string(), "\
    /// v₀ = x₁
    /// v₁ = square(v₀)
    /// v₂ = v₁ + 1
    /// y = v₂
    ///
    /// square, called by v₁:
    ///   v₀ = x₁
    ///   v₁ = v₀·v₀
    ///   y = v₁
    /// ");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// Control characters, which would break the printed tables, are replaced by
    /// `\u{FFFD}`; a name of nothing but white space is none.
    #[must_use]
    pub fn named(&self, name: &str) -> Tape {
        let printed = name.replace(char::is_control, "\u{FFFD}");
        let name = if name.trim().is_empty() { None } else { Some(printed.into()) };
        Tape { name, ..self.clone() }
    }

    /// The name that [`Tape::named`] gave it; a file keeps it.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[1.0], |x| x[0] * x[0])?;
    /// assert_eq!((tape.name(), tape.named("square").name()), (None, Some("square")));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Calls this tape in a recording: one row, whose results are the m outputs
    /// at the n numbers `x`. See [`Tape::map`] for many calls at once.
    ///
    /// The body is replayed wherever the row is: its guards are checked, its
    /// parameters are those it has now. Values have the bits of the same code
    /// written out, derivatives are equal up to rounding. Called with constants
    /// alone it gives constants.
    ///
    /// What is wrong ends the recording in an error, and the results are of no
    /// use until then: [`Error::CallArguments`] unless there are n numbers, [`Error::ForeignVar`],
    /// [`Error::BranchChanged`] where a comparison in the body is answered
    /// otherwise than in its own recording, [`Error::NestedTooDeep`].
    ///
    /// ```
    /// use ad_core::Tape;
    /// let norm = Tape::record(&[1.0, 1.0], |x| (x[0] * x[0] + x[1] * x[1]).sqrt())?;
    /// let tape = Tape::record(&[1.0, 2.0, 3.0], |x| norm.call(&[x[0], x[1]])[0] * norm.call(&[x[1], x[2]])[0])?;
    /// assert_eq!(tape.len(), 3 + 3); // two calls and a product
    /// assert_eq!(tape.eval(&[3.0, 4.0, 3.0])?, [25.0]);
    /// assert_eq!(tape.gradient(&[3.0, 4.0, 3.0])?.1, [3.0, 8.0, 3.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn call(&self, x: &[Var]) -> Vec<Var> {
        self.record_loop(Location::caller(), &[], [x], false).1
    }

    /// Calls this tape once for each item of `arguments`, n numbers each: one
    /// row with m results for every item, in their order.
    ///
    /// An item is anything that gives a slice of variables: windows and chunks
    /// of a slice, arrays, vectors. However many items there are, the body is
    /// recorded once, and arguments that lie at equal distances (as they do in
    /// windows, chunks and repetitions) take no memory.
    ///
    /// For errors and what is exact see [`Tape::call`]; no items at all are
    /// [`Error::CallArguments`].
    ///
    /// ```
    /// use ad_core::Tape;
    /// let difference = Tape::record(&[0.0, 0.0], |x| x[1] - x[0])?;
    /// let tape = Tape::record(&[0.0; 1000], |x| difference.map(x.windows(2)))?;
    /// assert_eq!(tape.num_outputs(), 999);
    /// let x: Vec<f64> = (0..1000).map(|i| (i * i) as f64).collect();
    /// assert_eq!(tape.eval(&x)?[..3], [1.0, 3.0, 5.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn map<A: AsRef<[Var]>>(&self, arguments: impl IntoIterator<Item = A>) -> Vec<Var> {
        self.record_loop(Location::caller(), &[], arguments, false).1
    }

    /// Σ f(argument) over the items of `arguments`, n numbers each, for this
    /// tape f: one row with m results.
    ///
    /// The sums are left folds, with the bits of the loop that adds term after
    /// term. For the arguments and errors see [`Tape::map`].
    ///
    /// ```
    /// use ad_core::Tape;
    /// let term = Tape::record(&[1.0, 1.0], |x| {
    ///     100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).powi(2)
    /// })?;
    /// let rosenbrock = Tape::record(&[0.0; 1000], |x| term.map_sum(x.windows(2)))?;
    /// let (value, gradient) = rosenbrock.gradient(&[1.0; 1000])?;
    /// assert_eq!((value, gradient), (0.0, vec![0.0; 1000]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn map_sum<A: AsRef<[Var]>>(&self, arguments: impl IntoIterator<Item = A>) -> Vec<Var> {
        self.record_loop(Location::caller(), &[], arguments, true).1
    }

    /// A recurrence: the state goes through this tape once for each item of `arguments`.
    ///
    /// The tape takes the state (as many numbers as `initial` has) and then an
    /// argument; it gives the next state and, if it likes, further outputs.
    /// The results are the last state and the further outputs of all iterations,
    /// in their order: one row.
    ///
    /// A reverse sweep needs the states from the last to the first. Up to a
    /// million numbers of them are kept; beyond that they are kept at every √N-th of N
    /// iterations and computed again from there, which takes one more forward
    /// sweep (Griewank & Walther, Evaluating Derivatives (2008), §12.1).
    ///
    /// For the arguments and errors see [`Tape::map`]; [`Error::CallArguments`] also unless
    /// the tape takes and gives a state.
    ///
    /// ```
    /// use ad_core::Tape;
    /// // One step of the logistic map: x ← r·x·(1 − x).
    /// let step = Tape::record(&[0.5, 3.0], |x| x[1] * x[0] * (1.0 - x[0]))?;
    /// let tape = Tape::record(&[0.5, 3.0], |x| {
    ///     step.scan(&x[..1], std::iter::repeat_n(&x[1..], 1_000_000)).0
    /// })?;
    /// assert_eq!(tape.len(), 3); // x₀, r, and a million steps
    /// assert_eq!(tape.eval(&[0.5, 2.0])?, [0.5]);
    /// assert_eq!(tape.gradient(&[0.5, 2.0])?.1, [0.0, 0.25]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn scan<A: AsRef<[Var]>>(
        &self,
        initial: &[Var],
        arguments: impl IntoIterator<Item = A>,
    ) -> (Vec<Var>, Vec<Var>) {
        self.record_loop(Location::caller(), initial, arguments, false)
    }

    fn record_loop<A: AsRef<[Var]>>(
        &self,
        location: &'static Location<'static>,
        initial: &[Var],
        arguments: impl IntoIterator<Item = A>,
        summed: bool,
    ) -> (Vec<Var>, Vec<Var>) {
        let carried = initial.len();
        let (n, m) = (self.num_inputs(), self.num_outputs());
        /// After an argument that does not fit no more are counted.
        const COUNTED: usize = 1 << 20;
        // As many results as there were for so many items: the user's code goes on with them.
        let refused = |error, items| {
            refuse_call(error);
            let outs = m.saturating_sub(carried) * if summed { 1 } else { items };
            (vec![Var::poisoned(); carried], vec![Var::poisoned(); outs])
        };
        let wrong = |what, expected, got, items| {
            let function = self.name.as_deref().unwrap_or("a function").to_owned();
            let location = SourceLocation::new(location);
            refused(Error::CallArguments { function, what, expected, got, location }, items)
        };
        if carried > n.min(m) {
            return wrong("numbers in the state, at most (each is an input and an output)", n.min(m), carried, 1);
        }
        let mut collected = Arguments::new(n - carried);
        let starts: Vec<u32> = initial.iter().map(|&x| collected.place(x)).collect();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.as_ref();
            if argument.len() != n - carried {
                let items = collected.count + 1 + arguments.take(COUNTED).count();
                return wrong("numbers in an argument", n - carried, argument.len(), items);
            }
            collected.push(argument);
        }
        let Arguments { operands, columns, count, .. } = collected;
        if count == 0 {
            return wrong("items to run over, at least", 1, 0, 1);
        }
        let outs = (m - carried).saturating_mul(if summed { 1 } else { count });
        if outs > LIMIT - carried {
            let location = SourceLocation::new(location);
            return refused(Error::TooLarge { location, what: "results of one call", limit: LIMIT }, 1);
        }
        let rolled = Loop {
            body: self.clone(),
            inputs: (0..carried as u32).map(Source::Carry).chain(columns.into_iter().map(Source::Argument)).collect(),
            outputs: (0..carried as u32).map(Target::Carry).chain((0..(m - carried) as u32).map(Target::Out)).collect(),
            initial: starts,
            count,
            outs: m - carried,
            summed,
        };
        let function = rolled.function(self.name.clone(), operands.len());
        let mut results = record_call(&function, &operands, location);
        let outs = results.split_off(carried);
        (results, outs)
    }
}
