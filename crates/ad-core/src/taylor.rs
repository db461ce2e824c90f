//! Taylor coefficients along a line: [`Tape::taylor`].
//!
//! A truncated series goes down the list with every value that depends on an
//! input. For v = φ(x₁(t), …, xₙ(t)) the chain rule v′ = Σᵢ ∂φ/∂xᵢ·xᵢ′ reads in
//! coefficients
//!
//! ```text
//! k·v_k = Σᵢ Σ_{j=1..k} j·x_{i,j}·(∂φ/∂xᵢ)_{k−j}
//! ```
//!
//! so what a row needs besides its operands are the series of its partials, of
//! one order less. The rule of the table, evaluated in symbols, says what these
//! are: expressions of the operands, the results, and operations that have
//! partials themselves. All of them together are a [`System`]: a short list of
//! rows of the table, each with its partials somewhere on the same list. Most
//! systems close (tanh needs sech², whose partial is −2·tanh·sech²); the others
//! (powers, polygamma functions) go on for as many levels as the order has, but
//! each level needs one coefficient less than the one before. So no operation
//! has a recurrence of its own here.
//!
//! Every row of a system follows the strict rule of the sweeps
//! (`replay/scalar.rs`): a product that is NaN is 0 if a factor is 0, and the
//! partials of a value outside its domain are NaN. The partials of the row
//! itself are evaluated as the table states them, so that coefficient 1 is the
//! tangent; beyond, quotients are products with reciprocals, since the partials
//! of x·(1/y) close and those of x/y do not.
//!
//! A row that calls a function hands the series of its operands to it
//! (`function/series.rs`), and a body runs down its list like any tape, from
//! whatever series its inputs have.
//!
//! Source: Griewank & Walther, Evaluating Derivatives (2008), ch. 13.

use std::collections::HashMap;
use std::ops::Range;

use smallvec::SmallVec;

use crate::derive::{Node, Recorder};
use crate::drivers::check_seed;
use crate::error::{Error, expect_len};
use crate::function::{Function, Series, SeriesMemory, SeriesVec};
use crate::math;
use crate::matrix::Matrix;
use crate::ops::Op;
use crate::optimize::{Identities, Operands};
use crate::replay::Workspace;
use crate::rule::Rule;
use crate::tape::{Tape, TapeData};

impl Tape {
    /// The Taylor coefficients of t ↦ f(x + t·p) at t = 0 up to `order`: a
    /// matrix of m × (order + 1) numbers whose row i holds those of output i,
    /// c_k = (1/k!)·dᵏfᵢ(x + t·p)/dtᵏ.
    ///
    /// c₀ is the value, with the bits of [`Tape::eval`]; c₁ is J·p, equal to
    /// [`Tape::jvp`] by `==`; 2·c₂ is pᵀ·H·p. Sums, differences and products
    /// with constants round once for each coefficient, as they would alone.
    /// Guards are checked at x, so the series is that of the branch there; at a
    /// kink it is that of the derivatives that the table chooses.
    ///
    /// The work is about rows·order² products for each function that a row's
    /// partials are made of. For powers, `exp2`, `hypot`, `atan2` and the gamma
    /// functions, whose every derivative is another function, it is rows·order³,
    /// and rows·order⁴ for x^y with both variable. The memory is a series of
    /// order + 1 numbers for each row.
    ///
    /// Coefficients are NaN beyond the order to which the table knows the
    /// derivatives: 30 for `powf` and `pow` (√x and `powi` have no limit), 100 for
    /// `hypot`, `atan2` and the gamma functions.
    ///
    /// Calls of functions have the series of the code written out. A
    /// [`Custom`](crate::Custom) operation needs its derivative as a tape from
    /// order 2 on; where that tape calls such operations (the derivative of eˣ is
    /// eˣ), they are gone through to one order less, and so on, to about 70
    /// levels. An [`Implicit`](crate::Implicit) function is found coefficient by
    /// coefficient, from its equations to each order in turn, which is
    /// rows·order³ for those.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], [`Error::Length`] and [`Error::NonFiniteSeed`]
    /// for p, [`Error::TooHighOrder`] if the series do not fit into memory, or
    /// those levels onto the stack, [`Error::NoSecondDerivative`] of a custom
    /// operation that states first derivatives alone, from order 2 on.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[0.0], |x| x[0].sin().exp())?;
    /// let c = tape.taylor(&[0.0], &[1.0], 6)?;
    /// // exp(sin t) = 1 + t + t²/2 − t⁴/8 − t⁵/15 − t⁶/240 + …
    /// let expected = [1.0, 1.0, 0.5, 0.0, -1.0 / 8.0, -1.0 / 15.0, -1.0 / 240.0];
    /// for (c, expected) in c.row(0).iter().zip(expected) {
    ///     assert!((c - expected).abs() < 1e-16);
    /// }
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// Newton's method of third order (Halley's) for f(x) = 0, which takes f, f′
    /// and f″ from one call:
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0], |x| x[0].exp() + x[0] - 3.0)?;
    /// let mut x = 1.0;
    /// for _ in 0..3 {
    ///     let c = tape.taylor(&[x], &[1.0], 2)?;
    ///     x -= c[(0, 0)] * c[(0, 1)] / (c[(0, 1)] * c[(0, 1)] - c[(0, 0)] * c[(0, 2)]);
    /// }
    /// assert!((x.exp() + x - 3.0).abs() < 1e-15);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// Source: Griewank & Walther, Evaluating Derivatives (2008), ch. 13.
    pub fn taylor(&self, x: &[f64], p: &[f64], order: usize) -> Result<Matrix, Error> {
        let mut coefficients = Matrix::default();
        self.taylor_into(&mut Workspace::new(), x, p, order, &mut coefficients)?;
        Ok(coefficients)
    }

    /// [`Tape::taylor`] that allocates nothing on a workspace that has seen this
    /// tape and order, and a matrix that was m × (order + 1) before, if all
    /// functions that the tape calls are recorded ones.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::taylor`].
    pub fn taylor_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        p: &[f64],
        order: usize,
        coefficients: &mut Matrix,
    ) -> Result<(), Error> {
        expect_len("p (one number per input)", p.len(), self.num_inputs())?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        check_seed("p", p)?;
        let data = &*self.data;
        let outputs = self.num_outputs();
        let width = order.checked_add(1).ok_or(Error::TooHighOrder { order, values: outputs })?;
        coefficients.reset(outputs, width).map_err(|_| Error::TooHighOrder { order, values: outputs })?;
        self.reference(ws, x)?;
        let Workspace { values, taylor, .. } = ws;
        if order > 0 {
            let swept = taylor.sweep(data, values, order, |input, series| {
                series.fill(0.0);
                series[0] = p[input];
            });
            // The order of what a function needs may be another one.
            swept.map_err(|error| match error {
                Error::TooHighOrder { values, .. } => Error::TooHighOrder { order, values },
                error => error,
            })?;
        }
        for (i, &output) in data.outputs.iter().enumerate() {
            let coefficients = coefficients.row_mut(i);
            coefficients[0] = values[output as usize];
            if order > 0 && data.active[output as usize] {
                coefficients[1..].copy_from_slice(&taylor.series[series_of(data, output, order)][1..]);
            }
        }
        Ok(())
    }

    /// The series of the outputs of a body, from those of its inputs. Guards are
    /// checked at the zeroth coefficients.
    pub(crate) fn body_series(&self, ws: &mut Workspace, x: Series<'_>, y: &mut SeriesVec) -> Result<(), Error> {
        let data = &*self.data;
        let order = x.order();
        let mut point = std::mem::take(&mut ws.taylor.point);
        point.clear();
        point.extend((0..self.num_inputs()).map(|i| x.get(i)[0]));
        let done = self.reference(ws, &point);
        ws.taylor.point = point;
        done?;
        let Workspace { values, taylor, .. } = ws;
        if order > 0 {
            taylor.sweep(data, values, order, |input, series| series.copy_from_slice(&x.get(input)[1..]))?;
        }
        for (i, &output) in data.outputs.iter().enumerate() {
            let series = y.get_mut(i);
            series[0] = values[output as usize];
            match data.active[output as usize] && order > 0 {
                true => series[1..].copy_from_slice(&taylor.series[series_of(data, output, order)][1..]),
                false => series[1..].fill(0.0),
            }
        }
        Ok(())
    }
}

/// What Taylor sweeps work in.
#[derive(Clone, Default)]
pub(crate) struct TaylorMemory {
    systems: Systems,
    /// The series of the values from the first input on.
    series: Vec<f64>,
    /// Those of the slots of one system.
    slots: Vec<f64>,
    /// The operands of one row.
    numbers: Vec<f64>,
    /// The zeroth coefficients of the inputs of a body.
    point: Vec<f64>,
    /// The series of the operands and the results of one call.
    x: SeriesVec,
    y: SeriesVec,
    pub functions: SeriesMemory,
}

/// Where the series of a value that is no constant lies.
fn series_of(data: &TapeData, value: u32, order: usize) -> Range<usize> {
    let start = (value as usize - data.first_input()) * (order + 1);
    start..start + order + 1
}

/// Makes room for the series of so many values.
pub(crate) fn make_room(series: &mut Vec<f64>, values: usize, order: usize) -> Result<(), Error> {
    let size = values.checked_mul(order + 1).filter(|&size| {
        let more = size.saturating_sub(series.len());
        series.try_reserve(more).is_ok()
    });
    let size = size.ok_or(Error::TooHighOrder { order, values })?;
    series.resize(size.max(series.len()), 0.0);
    Ok(())
}

impl TaylorMemory {
    /// The series of all values that depend on an input, from the values of all
    /// rows and the coefficients of the inputs from the first on, which `input`
    /// writes.
    fn sweep(
        &mut self,
        data: &TapeData,
        values: &[f64],
        order: usize,
        input: impl Fn(usize, &mut [f64]),
    ) -> Result<(), Error> {
        self.systems.forget_many();
        make_room(&mut self.series, data.num_values() - data.first_input(), order)?;
        for i in 0..data.num_inputs {
            let index = data.first_input() + i;
            let series = &mut self.series[series_of(data, index as u32, order)];
            series[0] = values[index];
            input(i, &mut series[1..]);
        }
        for row in data.spans.iter().flat_map(|span| span.clone()) {
            match data.function(row) {
                Some(function) => self
                    .call(data, row, function, values, order)
                    .map_err(|error| error.called_by(|| data.call_site(row)))?,
                // Further results were computed together with the first.
                None if data.op(row) == Op::FurtherResult => {}
                None => self.row(data, row, values, order)?,
            }
        }
        Ok(())
    }

    /// The series of the results of a call, whose values stay those of the row.
    fn call(
        &mut self,
        data: &TapeData,
        row: usize,
        function: &Function,
        values: &[f64],
        order: usize,
    ) -> Result<(), Error> {
        let TaylorMemory { series, x, y, functions, .. } = self;
        let operands = data.operands(row);
        x.reset(operands.len(), order)?;
        y.reset(function.num_results(), order)?;
        for (i, &operand) in operands.iter().enumerate() {
            match data.active[operand as usize] {
                true => x.set(i, &series[series_of(data, operand, order)]),
                false => x.get_mut(i)[0] = values[operand as usize],
            }
        }
        function.series(x.view(), y, functions)?;
        let first = data.first_row() + row;
        for result in 0..function.num_results() {
            let of_result = &mut series[series_of(data, (first + result) as u32, order)];
            of_result.copy_from_slice(y.view().get(result));
            of_result[0] = values[first + result];
        }
        Ok(())
    }

    /// The series of a row's results, from those of its operands.
    fn row(&mut self, data: &TapeData, row: usize, values: &[f64], order: usize) -> Result<(), Error> {
        let TaylorMemory { systems, series, slots, numbers, .. } = self;
        let operands = data.operands(row);
        let kinds = operands.iter().map(|&operand| match operand as usize {
            index if data.active[index] => Operand::Active,
            index if index < data.first_input() => Operand::Constant(values[index].to_bits()),
            _ => Operand::Passive,
        });
        let system = systems.of(data.op(row), order, kinds)?;
        make_room(slots, system.slots, order)?;
        for (slot, &operand) in slots.chunks_exact_mut(order + 1).zip(operands) {
            match data.active[operand as usize] {
                true => slot.copy_from_slice(&series[series_of(data, operand, order)]),
                false => slot[0] = values[operand as usize],
            }
        }
        system.solve(slots, numbers, order);
        let first = (data.first_row() + row) as u32;
        for (result, slot) in slots.chunks_exact(order + 1).skip(operands.len()).take(system.results).enumerate() {
            series[series_of(data, first + result as u32, order)].copy_from_slice(slot);
        }
        Ok(())
    }
}

/// What a row knows of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operand {
    /// It depends on an input.
    Active,
    /// It does not, so its series ends with its value.
    Passive,
    /// It is a number that stands on the tape, with these bits.
    Constant(u64),
    /// It is some number that stands on the tape.
    AnyConstant,
}

/// The number of the system for operands of these kinds; none where it would be
/// too large, or does not close for all constants alike.
type Numbers = HashMap<Box<[Operand]>, Option<usize>>;

/// The systems built so far, each for one order, operation and kind of operands.
#[derive(Clone, Default)]
struct Systems {
    systems: Vec<System>,
    numbers: HashMap<(usize, Op), Numbers>,
    /// The operands that are looked up.
    pattern: Vec<Operand>,
}

impl Systems {
    /// How many are kept from one call to the next.
    const KEPT: usize = 4096;

    /// Forgets all if there are many: exponents of tapes that come and go.
    fn forget_many(&mut self) {
        if self.systems.len() > Self::KEPT {
            *self = Systems::default();
        }
    }

    /// The system of a row: one for all constants if it closes, else the one for
    /// the constants at hand, which may: powers with a whole exponent end.
    fn of(&mut self, op: Op, order: usize, operands: impl Iterator<Item = Operand> + Clone) -> Result<&System, Error> {
        let is_constant = |operand: Operand| matches!(operand, Operand::Constant(_));
        let mut number = None;
        if operands.clone().any(is_constant) {
            let any = |operand| if is_constant(operand) { Operand::AnyConstant } else { operand };
            number = self.number(op, order, operands.clone().map(any), |operands| System::closed(op, operands, order));
        }
        if number.is_none() {
            number = self.number(op, order, operands, |operands| System::to_order(op, operands, order));
        }
        let number = number.ok_or(Error::TooHighOrder { order, values: System::MOST_ROWS })?;
        Ok(&self.systems[number])
    }

    fn number(
        &mut self,
        op: Op,
        order: usize,
        operands: impl Iterator<Item = Operand>,
        build: impl FnOnce(&[Operand]) -> Option<System>,
    ) -> Option<usize> {
        let Systems { systems, numbers, pattern } = self;
        pattern.clear();
        pattern.extend(operands);
        let numbers = numbers.entry((order, op)).or_default();
        if let Some(&number) = numbers.get(&pattern[..]) {
            return number;
        }
        let number = build(pattern).map(|system| {
            systems.push(system);
            systems.len() - 1
        });
        numbers.insert(pattern[..].into(), number);
        number
    }
}

/// A row, its partials, their partials, and so on, as steps that compute one
/// coefficient after the other.
///
/// Its series lie in slots: those of the operands, then the results of the
/// steps, the row's own first, then constants.
#[derive(Debug, Clone)]
struct System {
    slots: usize,
    /// How many results the row has.
    results: usize,
    steps: Vec<Step>,
    /// The slots of the steps' operands.
    operands: Vec<u32>,
    terms: Vec<Term>,
    constants: Vec<f64>,
}

/// An operation of a system.
#[derive(Debug, Clone)]
struct Step {
    op: Op,
    operands: Range<usize>,
    /// The slot of its first result.
    first: usize,
    results: usize,
    /// The last coefficient that is needed.
    order: usize,
    /// The terms of all results, as many for each.
    terms: Range<usize>,
}

/// ∂φ/∂x·x′, by the slots of x and of the partial.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    pub operand: u32,
    pub partial: u32,
    /// Whether the partial is more than its value.
    pub active: bool,
}

impl System {
    /// How many rows a system may have that is built in the hope that it closes.
    const FEW_ROWS: usize = 64;
    /// How many rows any may have.
    const MOST_ROWS: usize = 1 << 16;

    /// The system, if it has all its partials; whether it has does not depend on
    /// the order.
    fn closed(op: Op, operands: &[Operand], order: usize) -> Option<System> {
        System::new(op, operands, order, usize::MAX, System::FEW_ROWS)
    }

    /// The system with the partials that the order needs.
    fn to_order(op: Op, operands: &[Operand], order: usize) -> Option<System> {
        System::new(op, operands, order, order, System::MOST_ROWS)
    }

    fn new(op: Op, operands: &[Operand], order: usize, levels: usize, most_rows: usize) -> Option<System> {
        let recorder = Recorder::new(operands.len(), 0);
        let variables = (0..).zip(operands).map(|(variable, operand)| match *operand {
            Operand::Constant(bits) => recorder.operand(Node::lit(f64::from_bits(bits))),
            _ => variable,
        });
        let variables: Operands = variables.collect();
        let results = recorder.list.borrow_mut().push(op, variables, 0, Identities::Leave);
        let mut growth = Growth { recorder: &recorder, operands, rows: Vec::new(), queue: Vec::new() };
        growth.need(results[0], 0);
        let mut next = 0;
        while let Some(&row) = growth.queue.get(next) {
            next += 1;
            growth.differentiate(row, levels);
            if recorder.list.borrow().len() > most_rows {
                return None;
            }
        }
        Some(growth.into_system(results.len(), order))
    }

    /// Fills the slots of a row's results and of what they need, to `order`, from
    /// those of its operands.
    fn solve(&self, slots: &mut [f64], numbers: &mut Vec<f64>, order: usize) {
        let width = order + 1;
        for (slot, &c) in (self.slots - self.constants.len()..).zip(&self.constants) {
            slots[slot * width] = c;
        }
        for step in &self.steps {
            numbers.clear();
            numbers.extend(self.operands[step.operands.clone()].iter().map(|&slot| slots[slot as usize * width]));
            for (slot, value) in (step.first..).zip(step.op.results(numbers)) {
                slots[slot * width] = value;
            }
        }
        // Operands come before the steps that read them, and of the partials
        // only coefficients below k are read: all of them are there.
        for k in 1..=order {
            for step in self.steps.iter().filter(|step| k <= step.order) {
                let terms = &self.terms[step.terms.clone()];
                for (slot, terms) in (step.first..).zip(terms.chunks_exact(terms.len() / step.results)) {
                    slots[slot * width + k] = match slots[slot * width].is_nan() && self.is_outside(step, slots, width)
                    {
                        true => outside(terms, slots, width, k),
                        false => coefficient(terms, slots, width, k),
                    };
                }
            }
        }
    }

    /// Whether no operand of a step, whose value is NaN, is NaN.
    #[cold]
    fn is_outside(&self, step: &Step, slots: &[f64], width: usize) -> bool {
        self.operands[step.operands.clone()].iter().all(|&slot| !slots[slot as usize * width].is_nan())
    }
}

/// Coefficient k by the chain rule.
///
/// The terms with x_k, in which k cancels, stand apart: they are the tangent
/// for k = 1, and all there is where partials are constant.
pub(crate) fn coefficient(terms: &[Term], slots: &[f64], width: usize, k: usize) -> f64 {
    let series = |slot: u32| &slots[slot as usize * width..][..=k];
    let last = |term: &Term| math::chain_mul(series(term.partial)[0], series(term.operand)[k]);
    let (first, others) = match terms {
        [] => return 0.0,
        [first, others @ ..] => (last(first), others),
    };
    let tangent = others.iter().fold(first, |sum, term| sum + last(term));
    let mut rest = 0.0;
    for term in terms.iter().filter(|term| term.active) {
        let (x, partial) = (&series(term.operand)[1..k], &series(term.partial)[1..k]);
        for ((j, &x), &partial) in (1..k).zip(x).zip(partial.iter().rev()) {
            rest += j as f64 * math::chain_mul(partial, x);
        }
    }
    tangent + rest / k as f64
}

/// Coefficient k outside the domain, where all partials are NaN.
#[cold]
fn outside(terms: &[Term], slots: &[f64], width: usize, k: usize) -> f64 {
    let is_zero = |term: &Term| slots[term.operand as usize * width..][1..=k].iter().all(|&x| x == 0.0);
    if terms.iter().all(is_zero) { 0.0 } else { f64::NAN }
}

/// A system under construction.
struct Growth<'a> {
    recorder: &'a Recorder,
    /// What the variables of the list are.
    operands: &'a [Operand],
    /// What is known of the rows of the list.
    rows: Vec<Growing>,
    /// The rows needed, those of lower levels first.
    queue: Vec<usize>,
}

#[derive(Clone)]
struct Growing {
    active: bool,
    /// How many partials of partials away it is from the row that the system is
    /// for, which is how many coefficients less are needed; none if nothing needs it.
    level: Option<usize>,
    /// For each result and active operand the operand and the partial.
    partials: Vec<[u32; 2]>,
}

impl Growth<'_> {
    fn is_active(&self, operand: u32) -> bool {
        match self.recorder.list.borrow().row_of(operand) {
            Some((row, _)) => self.rows[row].active,
            None => matches!(self.operands.get(operand as usize), Some(Operand::Active)),
        }
    }

    /// Notes that an operand, and what it is computed from, is needed at a level.
    fn need(&mut self, operand: u32, level: usize) {
        let list = self.recorder.list.borrow();
        for row in self.rows.len()..list.len() {
            let (_, operands, _) = list.row(row);
            let active = operands.iter().any(|&operand| self.is_active(operand));
            self.rows.push(Growing { active, level: None, partials: Vec::new() });
        }
        let mut open: SmallVec<[u32; 8]> = SmallVec::from_slice(&[operand]);
        while let Some(operand) = open.pop() {
            let Some((row, _)) = list.row_of(operand) else { continue };
            if self.rows[row].level.is_none() {
                self.rows[row].level = Some(level);
                self.queue.push(row);
                open.extend_from_slice(list.row(row).1);
            }
        }
    }

    /// Writes down the partials of a row, unless it is so many levels away that
    /// nothing but its value is needed.
    fn differentiate(&mut self, row: usize, levels: usize) {
        let Growing { active: true, level: Some(level), .. } = self.rows[row] else { return };
        if level >= levels {
            return;
        }
        let recorder = self.recorder;
        let (op, operands, results) = {
            let list = recorder.list.borrow();
            let (op, operands, results) = list.row(row);
            (op, Operands::from_slice(operands), results)
        };
        let nodes = |operands: &[u32]| operands.iter().map(|&x| recorder.node(x)).collect::<SmallVec<[Node<'_>; 4]>>();
        let (x, v) = (nodes(&operands), nodes(&results));
        recorder.identities.set(if level == 0 { Identities::Apply } else { Identities::Reciprocals });
        let mut partials = Vec::new();
        for result in 0..v.len() {
            for (i, &operand) in operands.iter().enumerate().filter(|&(_, &operand)| self.is_active(operand)) {
                let partial = recorder.operand(op.partial(result, i, &x, &v));
                partials.push([operand, partial]);
            }
        }
        for &[_, partial] in &partials {
            self.need(partial, level + 1);
        }
        self.rows[row].partials = partials;
    }

    /// The rows needed, as steps to `order`; those of the row itself come first.
    fn into_system(self, results: usize, order: usize) -> System {
        let list = self.recorder.list.borrow();
        let needed = || {
            let levels = self.rows.iter().enumerate().filter_map(|(row, growing)| Some((row, growing.level?)));
            levels.filter(|&(_, level)| level <= order)
        };
        let mut system = System {
            slots: self.operands.len(),
            results,
            steps: Vec::new(),
            operands: Vec::new(),
            terms: Vec::new(),
            constants: Vec::new(),
        };
        // The slot of the first result of each row.
        let mut slots = vec![0; self.rows.len()];
        for (row, _) in needed() {
            slots[row] = system.slots;
            system.slots += list.row(row).2.len();
        }
        let (first_constant, mut constants) = (system.slots, Vec::new());
        let mut slot_of = |operand: u32| match (list.number(operand), list.row_of(operand)) {
            (Some(c), _) => {
                // There are few: most often 1, many times over.
                let known = constants.iter().position(|known: &f64| known.to_bits() == c.to_bits());
                let number = known.unwrap_or_else(|| {
                    constants.push(c);
                    constants.len() - 1
                });
                (first_constant + number) as u32
            }
            (None, Some((row, result))) => (slots[row] + result) as u32,
            (None, None) => operand,
        };
        for (row, level) in needed() {
            let Growing { active, ref partials, .. } = self.rows[row];
            let (op, operands, results) = list.row(row);
            let (start, first_term) = (system.operands.len(), system.terms.len());
            system.operands.extend(operands.iter().map(|&operand| slot_of(operand)));
            let order = if active { order - level } else { 0 };
            if order > 0 {
                system.terms.extend(partials.iter().map(|&[operand, partial]| Term {
                    operand: slot_of(operand),
                    partial: slot_of(partial),
                    active: self.is_active(partial),
                }));
            }
            system.steps.push(Step {
                op,
                operands: start..system.operands.len(),
                first: slots[row],
                results: results.len(),
                order,
                terms: first_term..system.terms.len(),
            });
        }
        system.slots += constants.len();
        system.constants = constants;
        system
    }
}
