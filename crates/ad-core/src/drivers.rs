//! The drivers: value, J·p, Jᵀ·w, gradient, Jacobian and Hessian at a point.

use crate::dual::Dual;
use crate::error::{Error, expect_len};
use crate::function::{Numbers, NumbersMut};
use crate::matrix::Matrix;
use crate::record::{Answer, Guard};
use crate::replay::{self, CallError, CallMemory, Calls, Program, SimdLevel, Step, Workspace};
use crate::rule::Rule;
use crate::tape::Tape;

/// The most directions that one forward sweep carries.
pub(crate) const DIRECTIONS: usize = 16;
/// Inputs from which on a copy of memory is faster than number by number.
const MANY: usize = 64;
/// The most directions that one sweep of second order carries.
pub(crate) const SECOND_DIRECTIONS: usize = 8;

/// Columns of a row-major matrix: `count` of them from `first` on.
pub(crate) struct Columns<'a> {
    pub numbers: &'a mut [f64],
    pub stride: usize,
    pub first: usize,
    pub count: usize,
}

impl Columns<'_> {
    /// The numbers of row i.
    fn row(&mut self, i: usize) -> &mut [f64] {
        let start = i * self.stride + self.first;
        &mut self.numbers[start..start + self.count]
    }
}

/// The weights of the outputs, and some of their tangents; no tangents for 0.
#[derive(Clone, Copy)]
pub(crate) struct OutputWeights<'a> {
    pub w: &'a [f64],
    pub tangents: &'a [f64],
    pub stride: usize,
    pub first: usize,
}

impl OutputWeights<'_> {
    /// The weight of one output.
    pub const ONE: OutputWeights<'static> = OutputWeights { w: &[1.0], tangents: &[], stride: 0, first: 0 };

    fn tangent(&self, output: usize, direction: usize) -> f64 {
        match self.tangents {
            [] => 0.0,
            tangents => tangents[output * self.stride + self.first + direction],
        }
    }
}

/// A number of a seed, unless it is not finite.
#[inline(always)]
fn finite(what: &'static str, seed: &[f64], index: usize) -> Result<f64, Error> {
    let value = seed[index];
    if value.is_finite() { Ok(value) } else { Err(Error::NonFiniteSeed { what, index, value }) }
}

pub(crate) fn check_seed(what: &'static str, seed: &[f64]) -> Result<(), Error> {
    (0..seed.len()).try_for_each(|index| finite(what, seed, index).map(|_| ()))
}

/// A primal sweep of the program for reverse sweeps.
pub(crate) struct Primal<'p, 'w> {
    tape: &'p Tape,
    program: &'p Program,
    values: &'w [f64],
    adjoints: &'w mut [f64],
    calls: &'w mut CallMemory,
}

impl Primal<'_, '_> {
    fn outputs(&self) -> impl Iterator<Item = f64> {
        self.program.outputs.iter().map(|&output| self.values[output as usize])
    }

    /// The adjoints of the inputs for the weights `w` into `xbar`; false if a
    /// NaN shows, and the strict rule decides. If it shows in an adjoint, those
    /// up to it at least are in `xbar`.
    #[inline]
    pub fn reverse_into(&mut self, w: impl Iterator<Item = f64>, xbar: &mut [f64]) -> Result<bool, Error> {
        self.adjoints.fill(0.0);
        for (&output, weight) in self.program.outputs.iter().zip(w) {
            self.adjoints[output as usize] += weight;
        }
        if self.program.calls.is_empty() {
            replay::reverse(self.program, 0..self.program.rows.len(), self.values, self.adjoints);
        } else {
            self.reverse_with_calls()?;
        }
        if xbar.len() >= MANY {
            let adjoints = &self.adjoints[self.program.first_input..][..xbar.len()];
            xbar.copy_from_slice(adjoints);
            // Without a way out at the first one, this is a loop of vectors.
            let nan = adjoints.iter().fold(false, |nan, adjoint| nan | adjoint.is_nan());
            return Ok(!nan && !self.outputs().any(f64::is_nan));
        }
        // Number by number, as the sweep wrote them: a copy of memory reads in
        // wider pieces what was only just written, which stalls.
        for (xbar, &adjoint) in xbar.iter_mut().zip(&self.adjoints[self.program.first_input..]) {
            *xbar = adjoint;
            if adjoint.is_nan() {
                return Ok(false);
            }
        }
        Ok(!self.outputs().any(f64::is_nan))
    }

    #[inline(never)]
    fn reverse_with_calls(&mut self) -> Result<(), Error> {
        let Primal { tape, program, values, adjoints, calls } = self;
        let none = vec![[]; values.len()];
        let mut none_of_adjoints = none.clone();
        let mut calls = Calls { program, functions: &tape.data.functions, memory: calls };
        replay::reverse_steps(program, |step| match step {
            Step::Rows(rows) => {
                replay::reverse(program, rows, values, adjoints);
                Ok(())
            }
            Step::Call(call) => calls.adjoints::<0>(call, values, &none, adjoints, &mut none_of_adjoints),
        })
        .map_err(|failure| tape.of_function(failure))
    }
}

impl Tape {
    pub(crate) fn expect_scalar(&self, driver: &'static str, instead: &'static str) -> Result<(), Error> {
        match self.num_outputs() {
            1 => Ok(()),
            outputs => Err(Error::NotScalar { driver, outputs, instead }),
        }
    }

    /// Puts passive values into their slots and gives the other slots, those of
    /// the inputs first; `params` are the tape's own if there are none.
    #[inline(always)]
    fn load_point<'v>(&self, program: &Program, params: Option<&[f64]>, values: &'v mut [f64]) -> &'v mut [f64] {
        let (passive, active) = values.split_at_mut(program.first_input);
        match params {
            // A loop, not a copy of memory, whose call costs more where there is little.
            None => {
                for (slot, &value) in passive.iter_mut().zip(self.passive(program)) {
                    *slot = value;
                }
            }
            Some(params) => program.passive_into(&self.data, params, passive),
        }
        active
    }

    /// The values of a program's slots.
    #[inline(always)]
    fn unguarded_values(
        &self,
        program: &Program,
        x: &[f64],
        params: Option<&[f64]>,
        values: &mut [f64],
        calls: &mut CallMemory,
    ) -> Result<(), CallError> {
        let inputs = &mut self.load_point(program, params, values)[..x.len()];
        if x.len() < MANY {
            for (slot, &x) in inputs.iter_mut().zip(x) {
                *slot = x;
            }
        } else {
            inputs.copy_from_slice(x);
        }
        if program.calls.is_empty() {
            replay::values(program, 0..program.rows.len(), values);
            return Ok(());
        }
        self.values_with_calls(program, values, calls)
    }

    #[inline(never)]
    fn values_with_calls(
        &self,
        program: &Program,
        values: &mut [f64],
        calls: &mut CallMemory,
    ) -> Result<(), CallError> {
        let mut none = vec![[]; values.len()];
        let mut calls = Calls { program, functions: &self.data.functions, memory: calls };
        replay::forward_steps(program, |step| match step {
            Step::Rows(rows) => {
                replay::values(program, rows, values);
                Ok(())
            }
            Step::Call(call) => calls.values::<0>(call, values, &mut none),
        })
    }

    /// The values of a program's slots, guards checked.
    #[inline(always)]
    fn values(
        &self,
        program: &Program,
        x: &[f64],
        params: Option<&[f64]>,
        values: &mut [f64],
        calls: &mut CallMemory,
    ) -> Result<(), Error> {
        match self.unguarded_values(program, x, params, values, calls) {
            Ok(()) => self.check_guards_of(program, values),
            Err(error) => Err(self.first_cause(x, params, error)),
        }
    }

    /// Why a sweep failed in the function that row `row` calls: because a guard
    /// above it is off its branch, if one is, else for the error of the function.
    #[cold]
    #[inline(never)]
    fn first_cause(&self, x: &[f64], params: Option<&[f64]>, (row, error): CallError) -> Error {
        self.guards_above(row, x, params).err().unwrap_or_else(|| self.of_function((row, error)))
    }

    /// Asks the guards above row `row`, whose function fails at x. (It is not
    /// called again: where functions are nested that would double the work with
    /// each level.)
    fn guards_above(&self, row: usize, x: &[f64], params: Option<&[f64]>) -> Result<(), Error> {
        let data = &*self.data;
        let mut values = Vec::new();
        replay::load(data, x, params.unwrap_or(&self.params), &mut values);
        let evaluated = replay::primal_above(data, row, &mut values, &mut Vec::new());
        self.ask_guards_above(evaluated.map_or_else(|(failed, _)| failed, |()| row), &values)
    }

    /// Asks the guards whose operands are above row `row`.
    fn ask_guards_above<T: Rule>(&self, row: usize, values: &[T]) -> Result<(), Error> {
        let known = self.data.first_row() + row;
        let above = |guard: &&Guard| guard.operands.iter().all(|&operand| (operand as usize) < known);
        let guards = self.guards().iter().take_while(above);
        self.ask_guards(guards.map(|guard| guard.operands.map(|operand| values[operand as usize])))
    }

    /// The error of a function, with the place of the row that called it.
    #[cold]
    pub(crate) fn of_function(&self, (row, error): CallError) -> Error {
        error.called_by(|| self.data.call_site(row))
    }

    /// The position of the first guard that is answered otherwise at x than in
    /// the recording, and its answer there.
    pub(crate) fn first_guard_off_branch(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
    ) -> Option<(usize, Answer)> {
        let program = self.programs.forward(&self.data);
        let (values, calls) = ws.slots_and_calls(program.num_slots);
        if let Err((row, _)) = self.unguarded_values(program, x, params, values, calls) {
            // A function failed, for which a guard above it may be the cause.
            let Err(Error::BranchChanged { guard, now, .. }) = self.guards_above(row, x, params) else {
                return None;
            };
            return self.guards().iter().position(|other| *other == *guard).map(|position| (position, now));
        }
        let guards = self.guards().iter().zip(&program.guards);
        guards.enumerate().find_map(|(position, (guard, slots))| {
            let [a, b] = slots.map(|slot| values[slot as usize]);
            f64::confirm(guard.question(), guard.answer(), a, b).err().map(|(now, ..)| (position, now))
        })
    }

    /// A forward sweep in K directions, guards checked: values and tangents of
    /// the program's slots. `seed(i, d)` is the tangent of input i in direction d;
    /// the directions from `count` on are 0.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "two of them are what it fills")]
    fn forward<const K: usize>(
        &self,
        program: &Program,
        level: SimdLevel,
        x: &[f64],
        params: Option<&[f64]>,
        seed: impl Fn(usize, usize) -> Result<f64, Error>,
        count: usize,
        values: &mut [f64],
        tangents: &mut [[f64; K]],
        calls: &mut CallMemory,
    ) -> Result<(), Error> {
        let inputs = self.load_point(program, params, values).iter_mut().zip(&mut tangents[program.first_input..]);
        for (i, ((value, tangents), &x)) in inputs.zip(x).enumerate() {
            *value = x;
            *tangents = [0.0; K];
            for (d, tangent) in tangents.iter_mut().enumerate().take(count) {
                *tangent = seed(i, d)?;
            }
        }
        if program.calls.is_empty() {
            replay::forward(level, program, 0..program.rows.len(), values, tangents);
        } else if let Err(error) = self.forward_with_calls(program, level, values, tangents, calls) {
            return Err(self.first_cause(x, params, error));
        }
        self.check_guards_of(program, values)
    }

    #[inline(never)]
    fn forward_with_calls<const K: usize>(
        &self,
        program: &Program,
        level: SimdLevel,
        values: &mut [f64],
        tangents: &mut [[f64; K]],
        calls: &mut CallMemory,
    ) -> Result<(), CallError> {
        let mut calls = Calls { program, functions: &self.data.functions, memory: calls };
        replay::forward_steps(program, |step| match step {
            Step::Rows(rows) => {
                replay::forward(level, program, rows, values, tangents);
                Ok(())
            }
            Step::Call(call) => calls.values(call, values, tangents),
        })
    }

    /// The value and, unless `gradient` is empty, the gradient of a one-output
    /// tape with other parameters than its own, if there are some.
    pub(crate) fn gradient_at(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
        gradient: &mut [f64],
    ) -> Result<f64, Error> {
        if gradient.is_empty() {
            let program = self.programs.forward(&self.data);
            let (values, calls) = ws.slots_and_calls(program.num_slots);
            self.values(program, x, params, values, calls)?;
            return Ok(values[program.outputs[0] as usize]);
        }
        let mut primal = self.primal(ws, x, params)?;
        let value = primal.values[primal.program.outputs[0] as usize];
        if !primal.reverse_into(std::iter::once(1.0), gradient)? {
            self.strict_adjoints_into(ws, x, params.unwrap_or(&self.params), &[1.0], gradient)?;
        }
        Ok(value)
    }

    /// The primal part of a reverse sweep, guards checked. (Always inlined: what
    /// a call returns in memory is read in wider pieces than it was just written,
    /// which stalls.)
    #[inline(always)]
    pub(crate) fn primal<'w>(
        &self,
        ws: &'w mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
    ) -> Result<Primal<'_, 'w>, Error> {
        let program = self.programs.reverse(&self.data);
        let (slots, calls) = ws.slots_and_calls(2 * program.num_slots);
        let (values, adjoints) = slots.split_at_mut(program.num_slots);
        self.values(program, x, params, values, calls)?;
        Ok(Primal { tape: self, program, values, adjoints, calls })
    }

    /// The values of all rows at x, guards checked, in the workspace.
    pub(crate) fn reference(&self, ws: &mut Workspace, x: &[f64]) -> Result<(), Error> {
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        let Workspace { values, sweep, calls, .. } = ws;
        replay::load(&self.data, x, &self.params, values);
        match replay::primal_numbers(&self.data, values, &mut sweep.gathered, &mut calls.function) {
            Ok(()) => self.check_guards(values),
            Err(error) => Err(self.first_cause(x, None, error)),
        }
    }

    /// Puts the question of every guard again, in the order of the recording.
    #[track_caller]
    fn check_guards<T: Rule>(&self, values: &[T]) -> Result<(), Error> {
        self.ask_guards(self.guards().iter().map(|guard| guard.operands.map(|operand| values[operand as usize])))
    }

    /// [`Tape::check_guards`] for the values of a program's slots.
    #[inline(always)]
    fn check_guards_of(&self, program: &Program, values: &[f64]) -> Result<(), Error> {
        if program.guards.is_empty() { Ok(()) } else { self.ask_guards_of(program, values) }
    }

    #[inline(never)]
    fn ask_guards_of(&self, program: &Program, values: &[f64]) -> Result<(), Error> {
        self.ask_guards(program.guards.iter().map(|slots| slots.map(|slot| values[slot as usize])))
    }

    #[track_caller]
    fn ask_guards<T: Rule>(&self, operands: impl Iterator<Item = [T; 2]>) -> Result<(), Error> {
        for (guard, [lhs, rhs]) in self.guards().iter().zip(operands) {
            if let Err((now, lhs, rhs)) = T::confirm(guard.question(), guard.answer(), lhs, rhs) {
                let rhs = if guard.question().operands() == 1 { f64::NAN } else { rhs };
                let location = guard.location().clone();
                return Err(Error::BranchChanged {
                    guard: Box::new(guard.clone()),
                    location,
                    now,
                    lhs,
                    rhs,
                    sample: None,
                    calls: Vec::new(),
                });
            }
        }
        Ok(())
    }

    fn outputs<'a>(&'a self, values: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.data.outputs.iter().map(|&output| values[output as usize])
    }

    /// Tangents of the outputs in k directions, from `seeds` (k numbers an
    /// input) into `dy` (k numbers per output), after a primal sweep.
    fn tangents_into(
        &self,
        values: &[f64],
        sweep: &mut replay::SweepMemory,
        seeds: &[f64],
        k: usize,
        dy: &mut [f64],
    ) -> Result<(), Error> {
        let data = &*self.data;
        let replay::SweepMemory { tangents, gathered, .. } = sweep;
        replay::tangent_sweep::<false>(data, values, seeds, k, tangents, gathered)
            .map_err(|failure| self.of_function(failure))?;
        let mut strict = self.outputs(values).any(f64::is_nan);
        for (dy, &output) in dy.chunks_mut(k).zip(&data.outputs) {
            dy.copy_from_slice(&tangents[output as usize * k..(output as usize + 1) * k]);
            strict |= dy.iter().any(|t| t.is_nan());
        }
        if strict {
            replay::tangent_sweep::<true>(data, values, seeds, k, tangents, gathered)
                .map_err(|failure| self.of_function(failure))?;
            for (dy, &output) in dy.chunks_mut(k).zip(&data.outputs) {
                let output = output as usize;
                for (dy, &strict) in dy.iter_mut().zip(&tangents[output * k..(output + 1) * k]) {
                    // Only what the NaN concerns: the strict rule may turn a −0
                    // of another direction into +0, and a direction's bits must
                    // not depend on its company.
                    if dy.is_nan() || values[output].is_nan() {
                        *dy = strict;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adjoints of the inputs for the weights `w` into `xbar`, after a primal sweep.
    fn adjoints_into(
        &self,
        values: &[f64],
        sweep: &mut replay::SweepMemory,
        w: &[f64],
        xbar: &mut [f64],
    ) -> Result<(), Error> {
        let data = &*self.data;
        let inputs = data.first_input()..data.first_param();
        let replay::SweepMemory { adjoints, gathered, .. } = sweep;
        replay::reverse_sweep::<f64, false>(data, values, w, adjoints, gathered)
            .map_err(|failure| self.of_function(failure))?;
        if adjoints[inputs.clone()].iter().any(|a| a.is_nan()) || self.outputs(values).any(f64::is_nan) {
            replay::reverse_sweep::<f64, true>(data, values, w, adjoints, gathered)
                .map_err(|failure| self.of_function(failure))?;
        }
        xbar.copy_from_slice(&adjoints[inputs]);
        Ok(())
    }

    /// The reference sweep by the strict rule.
    #[cold]
    pub(crate) fn strict_adjoints_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: &[f64],
        w: &[f64],
        xbar: &mut [f64],
    ) -> Result<(), Error> {
        let data = &*self.data;
        let Workspace { values, sweep, .. } = ws;
        let replay::SweepMemory { adjoints, gathered, .. } = sweep;
        replay::load(data, x, params, values);
        replay::primal_all(data, values, gathered).map_err(|failure| self.of_function(failure))?;
        replay::reverse_sweep::<f64, true>(data, values, w, adjoints, gathered)
            .map_err(|failure| self.of_function(failure))?;
        xbar.copy_from_slice(&adjoints[data.first_input()..data.first_param()]);
        Ok(())
    }

    /// Values and tangents by one forward sweep in as many directions as `dy` has
    /// columns, at most [`DIRECTIONS`]; `seed(i, d)` is the tangent of input i in
    /// direction d.
    pub(crate) fn tangents(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
        seed: impl Fn(usize, usize) -> Result<f64, Error>,
        y: &mut [f64],
        dy: Columns<'_>,
    ) -> Result<(), Error> {
        match dy.count {
            1 => self.tangents_in::<1>(ws, x, params, seed, y, dy),
            2..=4 => self.tangents_in::<4>(ws, x, params, seed, y, dy),
            5..=8 => self.tangents_in::<8>(ws, x, params, seed, y, dy),
            _ => self.tangents_in::<16>(ws, x, params, seed, y, dy),
        }
    }

    fn tangents_in<const K: usize>(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
        seed: impl Fn(usize, usize) -> Result<f64, Error>,
        y: &mut [f64],
        mut dy: Columns<'_>,
    ) -> Result<(), Error> {
        let program = self.programs.forward(&self.data);
        let level = ws.lanes.level();
        let (slots, calls) = ws.slots_and_calls(program.num_slots * (1 + K));
        let (tangents, values) = slots.split_at_mut(program.num_slots * K);
        let tangents = tangents.as_chunks_mut().0;
        self.forward::<K>(program, level, x, params, &seed, dy.count, values, tangents, calls)?;
        let mut plain = true;
        for (i, (y, &output)) in y.iter_mut().zip(&program.outputs).enumerate() {
            let output = output as usize;
            *y = values[output];
            plain &= !y.is_nan();
            // What does not depend on an input has no tangent.
            let active = output >= program.first_input;
            for (dy, &tangent) in dy.row(i).iter_mut().zip(&tangents[output]) {
                *dy = if active { tangent } else { 0.0 };
                plain &= !dy.is_nan();
            }
        }
        if !plain {
            self.strict_tangents(ws, x, params, seed, y, dy)?;
        }
        Ok(())
    }

    /// Replaces what a NaN concerns by what the reference sweep gives by the
    /// strict rule.
    #[cold]
    fn strict_tangents(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
        seed: impl Fn(usize, usize) -> Result<f64, Error>,
        y: &[f64],
        mut dy: Columns<'_>,
    ) -> Result<(), Error> {
        let data = &*self.data;
        let k = dy.count;
        let Workspace { values, sweep, seed: seeds, .. } = ws;
        let replay::SweepMemory { tangents, gathered, .. } = sweep;
        seeds.clear();
        seeds.extend((0..x.len()).flat_map(|i| (0..k).map(move |d| (i, d))).flat_map(|(i, d)| seed(i, d)));
        replay::load(data, x, params.unwrap_or(&self.params), values);
        replay::primal_all(data, values, gathered).map_err(|failure| self.of_function(failure))?;
        replay::tangent_sweep::<true>(data, values, seeds, k, tangents, gathered)
            .map_err(|failure| self.of_function(failure))?;
        for (i, (y, &output)) in y.iter().zip(&data.outputs).enumerate() {
            let strict = &tangents[output as usize * k..];
            for (dy, &strict) in dy.row(i).iter_mut().zip(strict) {
                // Only what the NaN concerns: the strict rule may turn a −0 of
                // another direction into +0, and a direction's bits must not
                // depend on its company.
                if dy.is_nan() || y.is_nan() {
                    *dy = strict;
                }
            }
        }
        Ok(())
    }

    /// The adjoints x̄ = Jᵀ·w, unless `xbar` is empty, and their tangents in as
    /// many directions as `dxbar` has columns, at most [`SECOND_DIRECTIONS`];
    /// `seed(i, d)` is the tangent of input i in direction d, `weights` are w and
    /// its tangents. Gives the value of the first output.
    ///
    /// For one output with the weight 1, whose tangents are 0, x̄ is the gradient
    /// and its tangents are H·V.
    pub(crate) fn second_order(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        seed: impl Fn(usize, usize) -> Result<f64, Error>,
        weights: OutputWeights<'_>,
        xbar: &mut [f64],
        dxbar: Columns<'_>,
    ) -> Result<f64, Error> {
        match dxbar.count {
            1 => self.second_order_in::<1>(ws, x, seed, weights, xbar, dxbar),
            _ => self.second_order_in::<SECOND_DIRECTIONS>(ws, x, seed, weights, xbar, dxbar),
        }
    }

    fn second_order_in<const K: usize>(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        seed: impl Fn(usize, usize) -> Result<f64, Error>,
        weights: OutputWeights<'_>,
        xbar: &mut [f64],
        mut dxbar: Columns<'_>,
    ) -> Result<f64, Error> {
        let program = self.programs.reverse(&self.data);
        let level = ws.lanes.level();
        let slots = program.num_slots;
        let (all, calls) = ws.slots_and_calls(slots * (2 * K + 2));
        let (all_tangents, numbers) = all.split_at_mut(slots * 2 * K);
        let (tangents, adjoint_tangents) = all_tangents.as_chunks_mut().0.split_at_mut(slots);
        let (values, adjoints) = numbers.split_at_mut(slots);

        tangents[..program.first_input].fill([0.0; K]);
        self.forward::<K>(program, level, x, None, &seed, dxbar.count, values, tangents, calls)?;
        adjoints.fill(0.0);
        adjoint_tangents.fill([0.0; K]);
        for (j, &output) in program.outputs.iter().enumerate() {
            let output = output as usize;
            adjoints[output] += weights.w[j];
            for (d, sum) in adjoint_tangents[output].iter_mut().enumerate().take(dxbar.count) {
                *sum += weights.tangent(j, d);
            }
        }
        let mut calls = Calls { program, functions: &self.data.functions, memory: calls };
        replay::reverse_steps(program, |step| match step {
            Step::Rows(rows) => {
                replay::reverse_with_tangents(program, rows, values, tangents, adjoints, adjoint_tangents);
                Ok(())
            }
            Step::Call(call) => calls.adjoints(call, values, tangents, adjoints, adjoint_tangents),
        })
        .map_err(|failure| self.of_function(failure))?;

        let value = values[program.outputs[0] as usize];
        let nan = program.outputs.iter().any(|&output| values[output as usize].is_nan());
        let inputs = program.first_input..program.first_input + x.len();
        let adjoints = &adjoints[inputs.clone()];
        let strict = nan || adjoints.iter().any(|adjoint| adjoint.is_nan());
        let mut concerned = [strict; K];
        for (i, tangents) in adjoint_tangents[inputs].iter().enumerate() {
            for (d, (dxbar, &tangent)) in dxbar.row(i).iter_mut().zip(tangents).enumerate() {
                *dxbar = tangent;
                concerned[d] |= tangent.is_nan();
            }
        }
        for (xbar, &adjoint) in xbar.iter_mut().zip(adjoints) {
            *xbar = adjoint;
        }
        for d in (0..dxbar.count).filter(|&d| concerned[d]) {
            // The adjoints are the same in every direction, and only if a NaN
            // concerns them do they come from here.
            let xbar = if strict { &mut *xbar } else { &mut [] };
            self.strict_second_order(ws, x, |i| seed(i, d), weights, xbar, d, &mut dxbar)?;
        }
        Ok(value)
    }

    /// Replaces the adjoints, unless there are to be none, and column `d` of
    /// `dxbar` by what the reference sweep gives by the strict rule.
    #[cold]
    #[allow(clippy::too_many_arguments, reason = "two of them are what it fills")]
    fn strict_second_order(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        seed: impl Fn(usize) -> Result<f64, Error>,
        weights: OutputWeights<'_>,
        xbar: &mut [f64],
        d: usize,
        dxbar: &mut Columns<'_>,
    ) -> Result<(), Error> {
        let data = &*self.data;
        let replay::SecondMemory { inputs, values, adjoints, gathered } = &mut ws.second;
        inputs.clear();
        for (i, &x) in x.iter().enumerate() {
            inputs.push(Dual::new(x, seed(i)?));
        }
        replay::load(data, inputs, &self.params, values);
        replay::primal_all(data, values, gathered).map_err(|failure| self.of_function(failure))?;
        inputs.clear();
        inputs.extend((0..self.num_outputs()).map(|j| Dual::new(weights.w[j], weights.tangent(j, d))));
        replay::reverse_sweep::<Dual, true>(data, values, inputs, adjoints, gathered)
            .map_err(|failure| self.of_function(failure))?;
        let adjoints = &adjoints[data.first_input()..data.first_param()];
        for (xbar, adjoint) in xbar.iter_mut().zip(adjoints) {
            *xbar = adjoint.v;
        }
        for (i, adjoint) in adjoints.iter().enumerate() {
            dxbar.row(i)[d] = adjoint.dv;
        }
        Ok(())
    }

    /// The outputs of a body at x, with k tangents each.
    pub(crate) fn body_values(
        &self,
        ws: &mut Workspace,
        k: usize,
        x: Numbers<'_>,
        y: NumbersMut<'_>,
    ) -> Result<(), Error> {
        if k == 0 {
            return self.eval_at(ws, x.v, None, y.v);
        }
        if ws.strict {
            self.eval_at(ws, x.v, None, y.v)?;
            // All of them are to come from the strict sweep.
            y.t.fill(f64::NAN);
            let dy = Columns { numbers: y.t, stride: k, first: 0, count: k };
            return self.strict_tangents(ws, x.v, None, |i, d| Ok(x.t[i * k + d]), y.v, dy);
        }
        for first in (0..k).step_by(DIRECTIONS) {
            let dy = Columns { numbers: &mut *y.t, stride: k, first, count: DIRECTIONS.min(k - first) };
            self.tangents(ws, x.v, None, |i, d| Ok(x.t[i * k + first + d]), &mut *y.v, dy)?;
        }
        Ok(())
    }

    /// The adjoints of the inputs of a body for the weights w, with k tangents each.
    pub(crate) fn body_adjoints(
        &self,
        ws: &mut Workspace,
        k: usize,
        x: Numbers<'_>,
        w: Numbers<'_>,
        xbar: NumbersMut<'_>,
    ) -> Result<(), Error> {
        if ws.strict {
            self.reference(ws, x.v)?;
            if k == 0 {
                return self.strict_adjoints_into(ws, x.v, &self.params, w.v, xbar.v);
            }
            let weights = OutputWeights { w: w.v, tangents: w.t, stride: k, first: 0 };
            let mut dxbar = Columns { numbers: xbar.t, stride: k, first: 0, count: k };
            return (0..k).try_for_each(|d| {
                self.strict_second_order(ws, x.v, |i| Ok(x.t[i * k + d]), weights, xbar.v, d, &mut dxbar)
            });
        }
        if k == 0 {
            let mut primal = self.primal(ws, x.v, None)?;
            if !primal.reverse_into(w.v.iter().copied(), xbar.v)? {
                self.strict_adjoints_into(ws, x.v, &self.params, w.v, xbar.v)?;
            }
            return Ok(());
        }
        for first in (0..k).step_by(SECOND_DIRECTIONS) {
            let count = SECOND_DIRECTIONS.min(k - first);
            let dxbar = Columns { numbers: &mut *xbar.t, stride: k, first, count };
            let weights = OutputWeights { w: w.v, tangents: w.t, stride: k, first };
            // The adjoints are the same in every sweep.
            let adjoints = if first == 0 { &mut *xbar.v } else { &mut [] };
            self.second_order(ws, x.v, |i, d| Ok(x.t[i * k + first + d]), weights, adjoints, dxbar)?;
        }
        Ok(())
    }

    /// The values f(x), m numbers.
    ///
    /// NaN and infinite x are allowed.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless x has one number per input,
    /// [`Error::BranchChanged`] where a comparison would be answered otherwise
    /// than in the recording.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0], |x| [x[0] + 1.0, x[0] * 2.0])?;
    /// assert_eq!(tape.eval(&[5.0])?, [6.0, 10.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn eval(&self, x: &[f64]) -> Result<Vec<f64>, Error> {
        let mut y = vec![0.0; self.num_outputs()];
        self.eval_into(&mut Workspace::new(), x, &mut y)?;
        Ok(y)
    }

    /// [`Tape::eval`] that allocates nothing on a warm workspace; y has m numbers.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], and [`Error::Length`] for y.
    pub fn eval_into(&self, ws: &mut Workspace, x: &[f64], y: &mut [f64]) -> Result<(), Error> {
        expect_len("y (one number per output)", y.len(), self.num_outputs())?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        self.eval_at(ws, x, None, y)
    }

    /// [`Tape::eval_into`] with other parameters than the tape's, if there are some.
    pub(crate) fn eval_at(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
        y: &mut [f64],
    ) -> Result<(), Error> {
        let program = self.programs.forward(&self.data);
        let (values, calls) = ws.slots_and_calls(program.num_slots);
        self.values(program, x, params, values, calls)?;
        for (y, &output) in y.iter_mut().zip(&program.outputs) {
            *y = values[output as usize];
        }
        Ok(())
    }

    /// The values f(x) in another number type: [`Dual`](crate::Dual),
    /// [`Lanes`](crate::Lanes), [`Formula`](crate::Formula), [`Var`](crate::Var),
    /// or any [`Rule`] of your own. Parameters become its constants.
    ///
    /// Guards are checked in `f64`, `Dual`, every lane of `Lanes`, and `Var`,
    /// where they become guards of the recording under way. A type of yours
    /// decides in [`Rule::confirm`]. One without values to compare, such as
    /// `Formula`, is replayed along the recorded branches.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless x has one number per input, [`Error::BranchChanged`].
    ///
    /// ```
    /// # use ad_core::{Dual, Tape};
    /// let tape = Tape::record(&[1.0], |x| x[0].sin())?;
    /// let y = tape.eval_with(&[Dual::new(0.0, 1.0)])?;
    /// assert_eq!((y[0].v, y[0].dv), (0.0, 1.0));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn eval_with<T: Rule>(&self, x: &[T]) -> Result<Vec<T>, Error> {
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        let mut values = Vec::new();
        replay::load(&self.data, x, &self.params, &mut values);
        if let Err((row, error)) = replay::primal_all(&self.data, &mut values, &mut Vec::new()) {
            // Where a guard above the function is off its branch, that is the cause.
            self.ask_guards_above(row, &values)?;
            return Err(self.of_function((row, error)));
        }
        self.check_guards(&values)?;
        Ok(self.data.outputs.iter().map(|&output| values[output as usize]).collect())
    }

    /// f(x) and J·p, m numbers each: one forward sweep with the seed p (n numbers).
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], [`Error::Length`] and [`Error::NonFiniteSeed`] for p.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
    /// let (y, dy) = tape.jvp(&[2.0, 4.0], &[1.0, 0.0])?;
    /// assert_eq!(dy, [4.0 - 2.0_f64.sin()]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// Source: Griewank & Walther, Evaluating Derivatives (2008), §3.1.
    pub fn jvp(&self, x: &[f64], p: &[f64]) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let (mut y, mut dy) = (vec![0.0; self.num_outputs()], vec![0.0; self.num_outputs()]);
        self.jvp_into(&mut Workspace::new(), x, p, &mut y, &mut dy)?;
        Ok((y, dy))
    }

    /// [`Tape::jvp`] that allocates nothing on a warm workspace.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::jvp`], and [`Error::Length`] for y and dy.
    pub fn jvp_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        p: &[f64],
        y: &mut [f64],
        dy: &mut [f64],
    ) -> Result<(), Error> {
        expect_len("p (one number per input)", p.len(), self.num_inputs())?;
        expect_len("dy (one number per output)", dy.len(), self.num_outputs())?;
        expect_len("y (one number per output)", y.len(), self.num_outputs())?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        self.tangents(ws, x, None, |i, _| finite("p", p, i), y, Columns { numbers: dy, stride: 1, first: 0, count: 1 })
    }

    /// f(x) and J·P for k seeds at once: `seeds` is n × k, one seed a column,
    /// the result m × k. Forward sweeps of up to sixteen directions; column j has
    /// the bits of `jvp` with column j.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::jvp`], and [`Error::Empty`] without a column.
    ///
    /// ```
    /// # use ad_core::{Matrix, Tape};
    /// let tape = Tape::record(&[1.0, 1.0], |x| [x[0] * x[1], x[0] - x[1]])?;
    /// let (y, jp) = tape.jvp_many(&[3.0, 5.0], &Matrix::identity(2))?;
    /// assert_eq!(jp, Matrix::from_rows(&[[5.0, 3.0], [1.0, -1.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn jvp_many(&self, x: &[f64], seeds: &Matrix) -> Result<(Vec<f64>, Matrix), Error> {
        let (mut y, mut jp) = (vec![0.0; self.num_outputs()], Matrix::default());
        self.jvp_many_into(&mut Workspace::new(), x, seeds, &mut y, &mut jp)?;
        Ok((y, jp))
    }

    /// [`Tape::jvp_many`] that allocates nothing on a warm workspace and a
    /// matrix that was m × k before.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::jvp_many`], and [`Error::Length`] for y.
    pub fn jvp_many_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        seeds: &Matrix,
        y: &mut [f64],
        jp: &mut Matrix,
    ) -> Result<(), Error> {
        expect_len("seeds (one row per input)", seeds.rows(), self.num_inputs())?;
        if seeds.cols() == 0 {
            return Err(Error::Empty { what: "seeds", hint: "give at least one column" });
        }
        expect_len("y (one number per output)", y.len(), self.num_outputs())?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        let columns = seeds.cols();
        jp.reset(self.num_outputs(), columns)?;
        for first in (0..columns).step_by(DIRECTIONS) {
            let count = DIRECTIONS.min(columns - first);
            let dy = Columns { numbers: jp.as_mut_slice(), stride: columns, first, count };
            let seed = |i, d| finite("seeds", seeds.as_slice(), i * columns + first + d);
            self.tangents(ws, x, None, seed, y, dy)?;
        }
        Ok(())
    }

    /// f(x) (m numbers) and Jᵀ·w (n numbers): one reverse sweep with the
    /// weights w (m numbers).
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], [`Error::Length`] and [`Error::NonFiniteSeed`] for w.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0, 1.0], |x| [x[0] * x[1], x[0] - x[1]])?;
    /// let (y, xbar) = tape.vjp(&[3.0, 5.0], &[1.0, 10.0])?;
    /// assert_eq!((y, xbar), (vec![15.0, -2.0], vec![15.0, -7.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// Source: Griewank & Walther, Evaluating Derivatives (2008), §3.2.
    pub fn vjp(&self, x: &[f64], w: &[f64]) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let (mut y, mut xbar) = (vec![0.0; self.num_outputs()], vec![0.0; self.num_inputs()]);
        self.vjp_into(&mut Workspace::new(), x, w, &mut y, &mut xbar)?;
        Ok((y, xbar))
    }

    /// [`Tape::vjp`] that allocates nothing on a warm workspace.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::vjp`], and [`Error::Length`] for y and xbar.
    pub fn vjp_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        w: &[f64],
        y: &mut [f64],
        xbar: &mut [f64],
    ) -> Result<(), Error> {
        expect_len("w (one number per output)", w.len(), self.num_outputs())?;
        expect_len("xbar (one number per input)", xbar.len(), self.num_inputs())?;
        check_seed("w", w)?;
        expect_len("y (one number per output)", y.len(), self.num_outputs())?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        let mut primal = self.primal(ws, x, None)?;
        for (y, value) in y.iter_mut().zip(primal.outputs()) {
            *y = value;
        }
        if !primal.reverse_into(w.iter().copied(), xbar)? {
            self.strict_adjoints_into(ws, x, &self.params, w, xbar)?;
        }
        Ok(())
    }

    /// f(x) and its gradient ∇f(x) (n numbers) of a one-output tape: one
    /// reverse sweep.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], and [`Error::NotScalar`] for several outputs.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[0] + x[1] * x[1] + 6.0)?;
    /// assert_eq!(tape.gradient(&[1.0, -2.0])?, (11.0, vec![2.0, -4.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn gradient(&self, x: &[f64]) -> Result<(f64, Vec<f64>), Error> {
        let mut gradient = vec![0.0; self.num_inputs()];
        let value = self.gradient_into(&mut Workspace::new(), x, &mut gradient)?;
        Ok((value, gradient))
    }

    /// [`Tape::gradient`] that allocates nothing on a warm workspace: writes
    /// the gradient and returns the value.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::gradient`], and [`Error::Length`] for the gradient.
    pub fn gradient_into(&self, ws: &mut Workspace, x: &[f64], gradient: &mut [f64]) -> Result<f64, Error> {
        self.expect_scalar("gradient", "jacobian, or vjp with a weight for each output")?;
        expect_len("gradient (one number per input)", gradient.len(), self.num_inputs())?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        self.gradient_at(ws, x, None, gradient)
    }

    /// The Jacobian J (m × n), entry (i, j) = ∂yᵢ/∂xⱼ.
    ///
    /// By forward sweeps of up to sixteen directions if m > 1 and n ≤ 4·m, else
    /// by a reverse sweep an output: the choice depends on m and n alone, and so do
    /// the bits. Row i has then those of `vjp` with the i-th unit vector, or
    /// column j those of `jvp` with the j-th.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    ///
    /// ```
    /// # use ad_core::{Matrix, Tape};
    /// let tape = Tape::record(&[1.0, 1.0], |x| [x[0] * x[1], x[0] - x[1]])?;
    /// assert_eq!(tape.jacobian(&[3.0, 5.0])?, Matrix::from_rows(&[[5.0, 3.0], [1.0, -1.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn jacobian(&self, x: &[f64]) -> Result<Matrix, Error> {
        let mut jac = Matrix::default();
        self.jacobian_into(&mut Workspace::new(), x, &mut jac)?;
        Ok(jac)
    }

    /// [`Tape::jacobian`] that allocates nothing on a warm workspace and a
    /// matrix that was m × n before.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    pub fn jacobian_into(&self, ws: &mut Workspace, x: &[f64], jac: &mut Matrix) -> Result<(), Error> {
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        self.jacobian_at(ws, x, None, jac)
    }

    /// [`Tape::jacobian_into`] with other parameters than the tape's, if there are some.
    pub(crate) fn jacobian_at(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        params: Option<&[f64]>,
        jac: &mut Matrix,
    ) -> Result<(), Error> {
        let (m, n) = (self.num_outputs(), self.num_inputs());
        jac.reset(m, n)?;
        if self.jacobian_is_forward() {
            let mut y = std::mem::take(&mut ws.y);
            y.resize(m, 0.0);
            let mut chunks = (0..n).step_by(DIRECTIONS);
            let done = chunks.try_for_each(|first| {
                let count = DIRECTIONS.min(n - first);
                let dy = Columns { numbers: jac.as_mut_slice(), stride: n, first, count };
                let seed = |i, d| Ok(if i == first + d { 1.0 } else { 0.0 });
                self.tangents(ws, x, params, seed, &mut y, dy)
            });
            ws.y = y;
            return done;
        }
        let mut primal = self.primal(ws, x, params)?;
        let mut plain = true;
        for i in 0..m {
            let unit = (0..m).map(|j| if i == j { 1.0 } else { 0.0 });
            plain &= primal.reverse_into(unit, jac.row_mut(i))?;
        }
        if !plain {
            let all = primal.outputs().any(f64::is_nan);
            let mut w = std::mem::take(&mut ws.y);
            w.clear();
            w.resize(m, 0.0);
            for i in 0..m {
                let row = jac.row_mut(i);
                if all || row.iter().any(|entry| entry.is_nan()) {
                    w[i] = 1.0;
                    self.strict_adjoints_into(ws, x, params.unwrap_or(&self.params), &w, row)?;
                    w[i] = 0.0;
                }
            }
            ws.y = w;
        }
        Ok(())
    }

    /// H·v, the product of the Hessian of a one-output tape with the vector v
    /// (n numbers): Σⱼ ∂²f/∂xᵢ∂xⱼ·vⱼ, which is the derivative of the gradient
    /// along v.
    ///
    /// One forward and one reverse sweep in numbers that carry a tangent, so it
    /// costs a small multiple of a gradient, whatever n is, and the Hessian is
    /// not formed. Second derivatives at kinks and edges are those of the first
    /// derivative that the table chooses there: 0 for `abs` at 0, −inf for `sqrt`
    /// at 0.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], [`Error::NotScalar`] for several outputs,
    /// [`Error::Length`] and [`Error::NonFiniteSeed`] for v.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[0] * x[1])?;
    /// // The Hessian at (3, 5) is [[10, 6], [6, 0]].
    /// assert_eq!(tape.hvp(&[3.0, 5.0], &[1.0, 2.0])?, [22.0, 6.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// Source: B. A. Pearlmutter, Fast exact multiplication by the Hessian, Neural
    /// Computation 6 (1994); Griewank & Walther, Evaluating Derivatives (2008), ch. 5.
    pub fn hvp(&self, x: &[f64], v: &[f64]) -> Result<Vec<f64>, Error> {
        let mut hv = vec![0.0; self.num_inputs()];
        self.hvp_into(&mut Workspace::new(), x, v, &mut hv)?;
        Ok(hv)
    }

    /// [`Tape::hvp`] that allocates nothing on a warm workspace: writes H·v and
    /// returns the value f(x).
    ///
    /// # Errors
    ///
    /// Those of [`Tape::hvp`], and [`Error::Length`] for hv.
    pub fn hvp_into(&self, ws: &mut Workspace, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<f64, Error> {
        self.hvp_at(ws, x, v, &mut [], hv)
    }

    /// The value f(x), the gradient and H·v by the sweeps of [`Tape::hvp`], which
    /// compute the gradient anyway: it has the bits of [`Tape::gradient`]. It
    /// allocates nothing on a warm workspace.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::hvp`], and [`Error::Length`] for the gradient and hv.
    ///
    /// ```
    /// # use ad_core::{Tape, Workspace};
    /// let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[0] * x[1])?;
    /// let (mut gradient, mut hv) = ([0.0; 2], [0.0; 2]);
    /// let y = tape.gradient_hvp_into(&mut Workspace::new(), &[3.0, 5.0], &[1.0, 2.0], &mut gradient, &mut hv)?;
    /// assert_eq!((y, gradient, hv), (45.0, [30.0, 9.0], [22.0, 6.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn gradient_hvp_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        v: &[f64],
        gradient: &mut [f64],
        hv: &mut [f64],
    ) -> Result<f64, Error> {
        expect_len("gradient (one number per input)", gradient.len(), self.num_inputs())?;
        self.hvp_at(ws, x, v, gradient, hv)
    }

    fn hvp_at(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        v: &[f64],
        gradient: &mut [f64],
        hv: &mut [f64],
    ) -> Result<f64, Error> {
        self.expect_scalar("hvp", "hvp of a tape of one output, or of their weighted sum")?;
        expect_len("v (one number per input)", v.len(), self.num_inputs())?;
        expect_len("hv (one number per input)", hv.len(), self.num_inputs())?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        let hv = Columns { numbers: hv, stride: 1, first: 0, count: 1 };
        self.second_order(ws, x, |i, _| finite("v", v, i), OutputWeights::ONE, gradient, hv)
    }

    /// The Hessian H of a one-output tape (n × n), entry (i, j) = ∂²f/∂xᵢ∂xⱼ,
    /// exactly symmetric.
    ///
    /// By sweeps of [`Tape::hvp`] that carry up to eight directions. Entry (i, j)
    /// with i ≤ j comes from the direction eⱼ and has the bits of entry i of
    /// `hvp(x, eⱼ)`; the entries below the diagonal are copies of those above. So
    /// below the diagonal `hvp(x, eⱼ)` may differ in the last bits.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], and [`Error::NotScalar`] for several outputs.
    ///
    /// ```
    /// # use ad_core::{Matrix, Tape};
    /// let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[0] * x[1])?;
    /// assert_eq!(tape.hessian(&[3.0, 5.0])?, Matrix::from_rows(&[[10.0, 6.0], [6.0, 0.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// Source: Griewank & Walther, Evaluating Derivatives (2008), ch. 5.
    pub fn hessian(&self, x: &[f64]) -> Result<Matrix, Error> {
        let mut hessian = Matrix::default();
        self.hessian_into(&mut Workspace::new(), x, &mut hessian)?;
        Ok(hessian)
    }

    /// [`Tape::hessian`] that allocates nothing on a warm workspace and a matrix
    /// that was n × n before: writes the Hessian and returns the value f(x).
    ///
    /// # Errors
    ///
    /// Those of [`Tape::hessian`].
    pub fn hessian_into(&self, ws: &mut Workspace, x: &[f64], hessian: &mut Matrix) -> Result<f64, Error> {
        self.hessian_at(ws, x, &mut [], hessian)
    }

    /// The value f(x), the gradient, with the bits of [`Tape::gradient`], and the
    /// Hessian of [`Tape::hessian`]: what a step of Newton's method takes. It
    /// allocates nothing on a warm workspace and a matrix that was n × n before.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::hessian`], and [`Error::Length`] for the gradient.
    ///
    /// ```
    /// # use ad_core::{Matrix, Tape, Workspace};
    /// let tape = Tape::record(&[1.0], |x| x[0].powi(3))?;
    /// let (mut gradient, mut hessian) = ([0.0], Matrix::default());
    /// let y = tape.gradient_hessian_into(&mut Workspace::new(), &[2.0], &mut gradient, &mut hessian)?;
    /// assert_eq!((y, gradient, hessian[(0, 0)]), (8.0, [12.0], 12.0));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn gradient_hessian_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        gradient: &mut [f64],
        hessian: &mut Matrix,
    ) -> Result<f64, Error> {
        expect_len("gradient (one number per input)", gradient.len(), self.num_inputs())?;
        self.hessian_at(ws, x, gradient, hessian)
    }

    fn hessian_at(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        gradient: &mut [f64],
        hessian: &mut Matrix,
    ) -> Result<f64, Error> {
        self.expect_scalar("hessian", "hessian of a tape of one output, or of their weighted sum")?;
        let n = self.num_inputs();
        expect_len("x (one number per input)", x.len(), n)?;
        hessian.reset(n, n)?;
        let mut value = 0.0;
        for first in (0..n).step_by(SECOND_DIRECTIONS) {
            let count = SECOND_DIRECTIONS.min(n - first);
            let columns = Columns { numbers: hessian.as_mut_slice(), stride: n, first, count };
            let seed = |i, d| Ok(if i == first + d { 1.0 } else { 0.0 });
            // The gradient is the same in every sweep.
            let gradient = if first == 0 { &mut *gradient } else { &mut [] };
            value = self.second_order(ws, x, seed, OutputWeights::ONE, gradient, columns)?;
        }
        for j in 0..n {
            for i in 0..j {
                hessian[(j, i)] = hessian[(i, j)];
            }
        }
        Ok(value)
    }

    /// Whether the Jacobian is computed forward: by what the sweeps cost. One
    /// direction more costs about a quarter of a reverse sweep, in lanes less
    /// than half of one.
    pub(crate) fn jacobian_is_forward(&self) -> bool {
        let (m, n) = (self.num_outputs(), self.num_inputs());
        m > 1 && n.div_ceil(4) <= m
    }

    /// The primal sweep at x, done once, for as many J·p and Jᵀ·w there as wanted.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[1])?;
    /// let there = tape.at(&[3.0, 5.0])?;
    /// assert_eq!(there.value(), [15.0]);
    /// assert_eq!(there.jvp(&[1.0, 0.0])?, [5.0]);
    /// assert_eq!(there.vjp(&[2.0])?, [10.0, 6.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn at(&self, x: &[f64]) -> Result<Linearization, Error> {
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let value = self.outputs(&ws.values).collect();
        Ok(Linearization { tape: self.clone(), values: ws.values, value })
    }
}

/// A tape with the primal sweep at one point done; from [`Tape::at`].
#[derive(Debug, Clone)]
pub struct Linearization {
    tape: Tape,
    values: Vec<f64>,
    value: Vec<f64>,
}

impl Linearization {
    /// f(x), m numbers.
    pub fn value(&self) -> &[f64] {
        &self.value
    }

    /// J·p, m numbers, with the bits of [`Tape::jvp`].
    ///
    /// # Errors
    ///
    /// [`Error::Length`] and [`Error::NonFiniteSeed`] for p.
    pub fn jvp(&self, p: &[f64]) -> Result<Vec<f64>, Error> {
        expect_len("p (one number per input)", p.len(), self.tape.num_inputs())?;
        check_seed("p", p)?;
        let mut dy = vec![0.0; self.value.len()];
        self.tape.tangents_into(&self.values, &mut Default::default(), p, 1, &mut dy)?;
        Ok(dy)
    }

    /// Jᵀ·w, n numbers, with the bits of [`Tape::vjp`].
    ///
    /// # Errors
    ///
    /// [`Error::Length`] and [`Error::NonFiniteSeed`] for w.
    pub fn vjp(&self, w: &[f64]) -> Result<Vec<f64>, Error> {
        expect_len("w (one number per output)", w.len(), self.value.len())?;
        check_seed("w", w)?;
        let mut xbar = vec![0.0; self.tape.num_inputs()];
        self.tape.adjoints_into(&self.values, &mut Default::default(), w, &mut xbar)?;
        Ok(xbar)
    }
}
