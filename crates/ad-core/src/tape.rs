//! The Wengert list: what a recording leaves behind, immutable and shared.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::error::{CallSite, Error, expect_len};
use crate::formula::{Accent, Call, DIGITS, Formula, Formulas, Name, Script};
use crate::function::{Function, Unplaced};
use crate::ops::Op;
use crate::record::{Builder, Escape, Guard, LIMIT, Outputs, SourceLocation, Var};
use crate::replay::{self, Program, Programs};
use crate::sparse::Plans;
use crate::trace::TraceBody;

/// A recorded function ℝⁿ → ℝᵐ: its Wengert list, ready to be replayed.
///
/// ```
/// use ad_core::Tape;
///
/// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
/// let (y, dy) = tape.jvp(&[2.0, 4.0], &[1.0, 0.0])?;
/// assert_eq!(y, [-47.01429686969138]);
/// assert!((dy[0] - 3.090702573174318).abs() < 1e-15);
/// assert_eq!(tape.to_string(), "\
/// v₋₁ = x₁
/// v₀ = x₂
/// v₁ = cos(v₋₁)
/// v₂ = v₋₁·v₀
/// v₃ = v₁ + v₂
/// v₄ = exp(v₀)
/// v₅ = v₃ − v₄
/// y = v₅
/// ");
/// # Ok::<(), ad_core::Error>(())
/// ```
///
/// Cheap to clone, immutable, `Send + Sync`: every driver takes `&self`, and
/// scratch memory is the caller's [`Workspace`](crate::Workspace).
#[derive(Clone)]
pub struct Tape {
    pub(crate) data: Arc<TapeData>,
    pub(crate) params: Arc<[f64]>,
    pub(crate) programs: Arc<Programs>,
    pub(crate) sparse_plans: Arc<Plans>,
    /// What it is called, if it was given a name.
    pub(crate) name: Option<Arc<str>>,
    /// The passive values of the programs, once they are known.
    pub(crate) passive: Arc<OnceLock<Vec<f64>>>,
}

/// What all clones of a tape share.
///
/// Values are numbered in one index space: constants, inputs, parameters, rows.
/// An operand is such an index. A row with several results is followed by a
/// [`Op::FurtherResult`] row for each result after the first. The operands of an
/// [`Op::Call`] row lie in `wide`, behind the number of its function.
#[derive(Default, Clone)]
pub(crate) struct TapeData {
    pub num_inputs: usize,
    pub num_params: usize,
    pub constants: Vec<f64>,
    pub rows: Vec<Row>,
    /// The operands of the rows that have more than two.
    pub wide: Vec<u32>,
    pub outputs: Vec<u32>,
    /// What the outputs are called, where no input has that name.
    pub output_letter: &'static str,
    /// That, or another one where a variable is named so, once it was looked for.
    pub free_letter: OnceLock<&'static str>,
    /// A name for each input, or none at all.
    pub input_names: Vec<Name>,
    pub param_names: Vec<String>,
    /// The functions that rows call.
    pub functions: Vec<Function>,
    /// The rows that call one.
    pub calls: Vec<u32>,
    pub guards: Vec<Guard>,
    pub escapes: Vec<Escape>,
    /// The places that the rows name by number.
    pub locations: Vec<SourceLocation>,
    /// For each index of a value, whether it depends on an input.
    pub active: Vec<bool>,
    /// The runs of rows that depend on an input.
    pub spans: Vec<Range<usize>>,
    /// The rows that depend on parameters alone.
    pub param_rows: Vec<u32>,
}

/// One row: its operation, its operands and its place in the user's code.
///
/// Twelve bytes, so that five rows share a cache line: a recording is as fast
/// as memory takes it, and so are the sweeps over a long tape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// The operation in the low 8 bits, then 2 with the number of operands or
    /// [`Row::WIDE`], then the number of the location. One word, which is
    /// copied at once.
    head: u32,
    /// The operands, or where they lie in [`TapeData::wide`] and how many there are.
    operands: [u32; 2],
}

/// The operation of each code.
static OPS: [Op; 256] = {
    let mut ops = [Op::FurtherResult; 256];
    let mut i = 0;
    while i < Op::ALL.len() {
        ops[Op::ALL[i] as usize] = Op::ALL[i];
        i += 1;
    }
    ops[Op::Call as usize] = Op::Call;
    ops
};

impl Row {
    /// Marks a row whose operands lie in [`TapeData::wide`].
    const WIDE: usize = 3;
    /// How many locations a row can tell apart.
    pub const LOCATIONS: usize = 1 << 22;

    /// A row with the first `count` of two operands.
    #[inline]
    pub fn new(op: Op, location: u32, count: usize, operands: [u32; 2]) -> Row {
        debug_assert!(count <= Row::WIDE && (location as usize) < Row::LOCATIONS);
        Row { head: op as u32 | (count as u32) << 8 | location << 10, operands }
    }

    /// A row with the operands `wide[start..start + count]`.
    pub fn wide(op: Op, location: u32, start: u32, count: u32) -> Row {
        Row::new(op, location, Row::WIDE, [start, count])
    }

    #[inline]
    pub fn op(&self) -> Op {
        OPS[(self.head & 0xFF) as usize]
    }

    #[inline]
    fn count(&self) -> usize {
        (self.head >> 8 & 3) as usize
    }

    /// The operands that lie in the row itself; none if they lie in [`TapeData::wide`].
    pub fn inline_operands(&self) -> Option<&[u32]> {
        self.operands.get(..self.count())
    }

    /// How many operands it has in [`TapeData::wide`], if they lie there.
    pub fn num_wide(&self) -> u32 {
        self.operands[1]
    }

    /// The number of the row's location.
    #[inline]
    pub fn location(&self) -> u32 {
        self.head >> 10
    }

    /// The row with other numbers added to its operands.
    #[inline]
    pub fn plus(self, [a, b]: [u32; 2]) -> Row {
        Row { head: self.head, operands: [self.operands[0].wrapping_add(a), self.operands[1].wrapping_add(b)] }
    }

    /// The row at another place, by its number.
    pub fn at(self, location: u32) -> Row {
        Row { head: self.head & 0x3FF | location << 10, ..self }
    }

    /// Replaces the operands that lie in the row itself.
    #[inline]
    pub fn replace_operands(&mut self, index: impl Fn(u32) -> u32) {
        if self.count() != Row::WIDE {
            self.operands = self.operands.map(index);
        }
    }
}

/// The bodies that a text has listed: their lists, parameters and names.
type Listed<'a> = HashSet<(*const TapeData, *const f64, Option<&'a str>)>;

impl TapeData {
    /// The index of the first input.
    pub fn first_input(&self) -> usize {
        self.constants.len()
    }

    /// The index of the first parameter.
    pub fn first_param(&self) -> usize {
        self.constants.len() + self.num_inputs
    }

    /// The index of row 0.
    pub fn first_row(&self) -> usize {
        self.constants.len() + self.num_inputs + self.num_params
    }

    /// The number of values: constants, inputs, parameters and rows.
    pub fn num_values(&self) -> usize {
        self.first_row() + self.num_rows()
    }

    /// The number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// The operation of a row.
    #[inline]
    pub fn op(&self, row: usize) -> Op {
        self.rows[row].op()
    }

    /// The name of the operation of a row, if there is such a row.
    pub fn operation_name(&self, row: usize) -> Option<&'static str> {
        self.rows.get(row).map(|row| row.op().info().name)
    }

    /// The operands of a row.
    #[inline]
    pub fn operands(&self, row: usize) -> &[u32] {
        let row = &self.rows[row];
        match row.count() {
            Row::WIDE => {
                let [start, count] = row.operands.map(|number| number as usize);
                &self.wide[start..start + count]
            }
            count => &row.operands[..count],
        }
    }

    /// The function that a row calls.
    #[inline]
    pub fn function(&self, row: usize) -> Option<&Function> {
        (self.op(row) == Op::Call).then(|| &self.functions[self.function_number(row) as usize])
    }

    /// The number of the function that a calling row calls.
    pub fn function_number(&self, row: usize) -> u32 {
        self.wide[self.rows[row].operands[0] as usize - 1]
    }

    /// The number of results of the operation or function of a row; 0 for a further result.
    #[inline]
    pub fn num_results(&self, row: usize) -> usize {
        match self.op(row) {
            Op::Call => self.function(row).map_or(0, Function::num_results),
            op => op.info().forms.len(),
        }
    }

    /// For a row that holds a result: the row of its operation, and which result it is.
    pub fn head(&self, row: usize) -> (usize, usize) {
        if self.op(row) != Op::FurtherResult {
            return (row, 0);
        }
        // A function may have any number of results, an operation has two at most.
        let call = self.calls.partition_point(|&call| call as usize <= row).checked_sub(1);
        let call = call.map(|last| self.calls[last] as usize).filter(|&call| row < call + self.num_results(call));
        let head = call.unwrap_or(row - 1);
        (head, row - head)
    }

    /// Fills in what depends on an input.
    pub fn find_activity(&mut self) {
        let first_row = self.first_row();
        if !self.functions.is_empty() {
            self.calls = (0..self.num_rows()).filter(|&row| self.op(row) == Op::Call).map(|row| row as u32).collect();
        }
        if self.num_params == 0 {
            // Every row reads a variable, and every variable depends on an input.
            self.active = vec![true; self.num_values()];
            self.active[..self.constants.len()].fill(false);
            self.spans.extend((!self.rows.is_empty()).then(|| 0..self.num_rows()));
            return;
        }
        let mut active = vec![false; self.num_values()];
        active[self.first_input()..self.first_param()].fill(true);
        for row in 0..self.num_rows() {
            // A further result shares the activity of the result above it.
            active[first_row + row] = match self.op(row) {
                Op::FurtherResult => active[first_row + row - 1],
                // Only sweeps call functions, and they run what is active.
                Op::Call => true,
                _ => self.operands(row).iter().any(|&operand| active[operand as usize]),
            };
            if !active[first_row + row] {
                self.param_rows.push(row as u32);
            } else if self.spans.last().is_some_and(|span| span.end == row) {
                if let Some(span) = self.spans.last_mut() {
                    span.end = row + 1;
                }
            } else {
                self.spans.push(row..row + 1);
            }
        }
        self.active = active;
    }

    /// The name of value `index` in printed traces: v₁₋ₙ … v₀ are the inputs,
    /// v₁ … the rows.
    pub fn value_name(&self, index: usize, accent: Accent) -> Name {
        if index < self.first_input() {
            Name::Number(self.constants[index])
        } else if index < self.first_param() {
            Name::Indexed("v", accent, (index - self.first_input()) as i64 + 1 - self.num_inputs as i64)
        } else if index < self.first_row() {
            self.variable_name(index).with_accent(accent)
        } else {
            Name::Indexed("v", accent, (index - self.first_row()) as i64 + 1)
        }
    }

    /// The name of value `index` where it stands as an operand.
    pub fn operand_name(&self, index: u32) -> Name {
        self.value_name(index as usize, Accent::None)
    }

    /// The name the user gave value `index`, or else that of its row.
    pub fn given_name(&self, index: u32) -> Name {
        let variables = self.first_input()..self.first_row();
        match variables.contains(&(index as usize)).then(|| self.variable_name(index as usize)) {
            Some(name @ Name::Given(..)) => name,
            _ => self.operand_name(index),
        }
    }

    /// The name the user gave an input or a parameter, or xᵢ and kᵢ.
    pub fn variable_name(&self, index: usize) -> Name {
        if index < self.first_param() {
            let position = index - self.first_input();
            let unnamed = || Name::Indexed("x", Accent::None, position as i64 + 1);
            return self.input_names.get(position).cloned().unwrap_or_else(unnamed);
        }
        let position = index - self.first_param();
        match self.param_names.get(position) {
            Some(name) => Name::Given(name.clone(), Accent::None),
            None => Name::Indexed("k", Accent::None, position as i64 + 1),
        }
    }

    /// The name of output `position`: y, or y₁, y₂, … where there are several,
    /// or the tape's own letter; another one where an input or a parameter is named so.
    pub fn output_name(&self, position: usize) -> Name {
        let letter = *self.free_letter.get_or_init(|| self.find_free_letter());
        match self.outputs.len() {
            1 => Name::Letter(letter, Accent::None),
            _ => Name::Indexed(letter, Accent::None, position as i64 + 1),
        }
    }

    fn find_free_letter(&self) -> &'static str {
        let is_input = |letter: &str| {
            self.input_names.iter().any(|name| matches!(name, Name::Given(name, Accent::None) if name == letter))
        };
        let taken = |letter: &str| is_input(letter) || self.param_names.iter().any(|name| name == letter);
        let letters = [self.output_letter, "y", "f", "out"];
        letters.into_iter().find(|letter| !taken(letter)).unwrap_or("output")
    }

    /// The operation of a row, with the names of its operands.
    pub fn row_formula<'a>(&self, row: usize, formulas: &'a Formulas) -> Formula<'a> {
        let (head, result) = self.head(row);
        let name = |&operand: &u32| formulas.name(self.operand_name(operand));
        match self.function(head) {
            None => {
                let operands: Vec<Formula<'a>> = self.operands(head).iter().map(name).collect();
                formulas.verbatim(self.op(head), result, &operands)
            }
            Some(function) => {
                let (mut call, mut operands) = (Call::new(function.call_name()), self.operands(head));
                for count in function.operand_groups() {
                    let (group, others) = operands.split_at(count);
                    call = call.with(group.iter().map(name));
                    operands = others;
                }
                formulas.call(&Arc::new(call), (function.num_results() > 1).then_some(result))
            }
        }
    }

    /// The bodies of the functions that rows call, each with the rows that call it.
    pub fn bodies(&self, script: Script, digits: usize) -> Vec<TraceBody> {
        self.bodies_not_listed(script, digits, &mut HashSet::new())
    }

    /// The same, where some bodies have been listed already: a list stands once in
    /// a text, since what calls functions that call functions may call one of them
    /// more often than any text is long.
    fn bodies_not_listed<'a>(&'a self, script: Script, digits: usize, listed: &mut Listed<'a>) -> Vec<TraceBody> {
        let mut bodies: Vec<(&'a Tape, String, Vec<u32>)> = Vec::new();
        let mut numbers: HashMap<*const TapeData, Vec<usize>> = HashMap::new();
        for &row in &self.calls {
            let function = self.function(row as usize);
            let Some((function, body)) = function.and_then(|function| Some((function, function.body()?))) else {
                continue;
            };
            // Those with one list are few: they differ in name or parameters.
            let of_list = numbers.entry(Arc::as_ptr(&body.data)).or_default();
            match of_list.iter().find(|&&number| bodies[number].0.is_same(body)) {
                Some(&number) => bodies[number].2.push(row),
                None => {
                    of_list.push(bodies.len());
                    bodies.push((body, function.call_name().name.render(script, digits), vec![row]));
                }
            }
        }
        let caller = |&row: &u32| {
            let name = self.value_name(self.first_row() + row as usize, Accent::None).render(script, digits);
            match self.function(row as usize).map(|function| function.iterations_text(script)) {
                Some(iterations) if !iterations.is_empty() => format!("{name} ({iterations})"),
                _ => name,
            }
        };
        let finished = |(body, name, rows): (&'a Tape, String, Vec<u32>)| {
            let params = if body.params.is_empty() { std::ptr::null() } else { body.params.as_ptr() };
            let list = match listed.insert((Arc::as_ptr(&body.data), params, body.name.as_deref())) {
                true => body.list_with(script, digits, listed),
                false => "(listed above)\n".to_owned(),
            };
            TraceBody { name, called_by: rows.iter().map(caller).collect(), list }
        };
        bodies.into_iter().map(finished).collect()
    }

    /// Where row `row` stands in the user's code.
    pub fn location(&self, row: usize) -> &SourceLocation {
        &self.locations[self.rows[row].location() as usize]
    }

    /// The call of a row that calls a function, for errors.
    pub fn call_site(&self, row: usize) -> CallSite {
        let function = self.function(row).map(Function::to_string).unwrap_or_default();
        CallSite { function, row: Some(row), location: self.location(row).clone() }
    }

    /// The same, if it is known.
    pub fn known_location(&self, row: usize) -> Option<SourceLocation> {
        Some(self.location(row)).filter(|location| location.is_known()).cloned()
    }

    /// The same list without places in the code, and with other functions in the place of its own.
    pub fn without_locations(&self, functions: Vec<Function>) -> TapeData {
        let mut data = TapeData { functions, ..self.clone() };
        data.rows.iter_mut().for_each(|row| *row = row.at(0));
        data.guards.iter_mut().for_each(|guard| guard.location = SourceLocation::UNKNOWN);
        data.escapes.iter_mut().for_each(|escape| escape.location = SourceLocation::UNKNOWN);
        data.locations = vec![SourceLocation::UNKNOWN];
        data
    }
}

impl Tape {
    /// Runs `f` once, at `x0`, and keeps what it did.
    ///
    /// `f` may return a `Var`, an array, a `Vec` or a tuple of them. See
    /// [`Tape::builder`] for names and parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] for an empty `x0`, [`Error::NoOutputs`],
    /// [`Error::ForeignVar`] if a variable of another recording was used or
    /// returned, [`Error::TooLarge`].
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[1.0, 2.0], |x| (x[0] * x[1], x[0] + x[1]))?;
    /// assert_eq!(tape.eval(&[3.0, 4.0])?, [12.0, 7.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn record<O: Outputs>(x0: &[f64], f: impl FnOnce(&[Var]) -> O) -> Result<Tape, Error> {
        Tape::builder().inputs(&[], x0).record(|x, _| f(x))
    }

    /// A recording with names and parameters; see [`Builder::record`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(data: TapeData, params: Vec<f64>) -> Tape {
        let tape = Tape {
            data: Arc::new(data),
            params: params.into(),
            programs: Arc::default(),
            sparse_plans: Arc::default(),
            name: None,
            passive: Arc::default(),
        };
        debug_assert_eq!(tape.check(), Ok(()));
        tape
    }

    /// A tape with a checked list, whose programs are those of `sibling`, a tape with the same list.
    pub(crate) fn of_list(
        data: &Arc<TapeData>,
        params: Arc<[f64]>,
        name: Option<Arc<str>>,
        sibling: Option<&Tape>,
    ) -> Tape {
        Tape {
            data: data.clone(),
            params,
            programs: sibling.map_or_else(Arc::default, |sibling| sibling.programs.clone()),
            sparse_plans: sibling.map_or_else(Arc::default, |sibling| sibling.sparse_plans.clone()),
            name,
            passive: Arc::default(),
        }
    }

    /// Constants, parameters and what depends on them alone, in the order of the
    /// programs' slots; `program` is either of them.
    pub(crate) fn passive(&self, program: &Program) -> &[f64] {
        self.passive.get_or_init(|| program.passive(&self.data, &self.params))
    }

    /// The same tape with other values of its parameters. The list is shared;
    /// only the rows that depend on parameters alone are evaluated, once. Guards
    /// are checked by the drivers, also those on parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless there is one number per parameter.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::builder()
    ///     .inputs(&[], &[1.0])
    ///     .params(&[], &[2.0])
    ///     .record(|x, k| x[0] * k[0].exp())?;
    /// assert_eq!(tape.with_params(&[0.0])?.eval(&[5.0])?, [5.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn with_params(&self, params: &[f64]) -> Result<Tape, Error> {
        expect_len("params (one number per parameter)", params.len(), self.num_params())?;
        Ok(Tape { params: params.into(), passive: Arc::default(), ..self.clone() })
    }

    /// The same tape without the places in your code: of the tapes that it calls,
    /// too, and of guards and escapes.
    ///
    /// A tape, and a file of it, names the files and lines that recorded it, which
    /// say how your folders are called. Take them away before you give a tape to
    /// others. All results keep their bits, traces and errors their text but for
    /// the places: errors name rows, guards and functions as before and say "an
    /// unknown place", [`SourceLocation::is_known`] is false, and the column of
    /// [`Trace::with_locations`](crate::Trace::with_locations) is empty. Names of variables and
    /// of tapes stay, since they are yours; functions that are code
    /// ([`Custom`](crate::Custom)) are those of this tape, and so are the tapes that
    /// state their derivatives: no file can hold them.
    ///
    /// Do it last: what is made of the tape later, such as [`Tape::jvp_tape`], may
    /// name the line that asked for it, and a recording that calls it its own lines.
    ///
    /// It takes the time and the memory of a copy of the tape.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[2.0], |x| if x[0] > 0.0 { x[0].ln() } else { x[0] })?;
    /// assert!(tape.guards()[0].location().is_known());
    ///
    /// let anonymous = tape.without_locations();
    /// assert_eq!(anonymous.gradient(&[4.0])?, tape.gradient(&[4.0])?);
    /// assert_eq!(anonymous.to_string(), tape.to_string());
    /// let error = anonymous.eval(&[-1.0]).unwrap_err().to_string();
    /// assert!(error.starts_with("the branch taken at an unknown place would change: v₀ > 0 was true"), "{error}");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn without_locations(&self) -> Tape {
        Unplaced::default().tape(self)
    }

    /// n, the number of independent variables.
    pub fn num_inputs(&self) -> usize {
        self.data.num_inputs
    }

    /// m, the number of dependent variables.
    pub fn num_outputs(&self) -> usize {
        self.data.outputs.len()
    }

    /// The names of the inputs, as [`Tape::builder`] was given them; empty if it was given none.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::builder().inputs(&["slope", "intercept"], &[1.0, 0.0]).record(|x, _| x[0] + x[1])?;
    /// assert_eq!(tape.input_names(), ["slope", "intercept"]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn input_names(&self) -> Vec<String> {
        self.data.input_names.iter().map(ToString::to_string).collect()
    }

    /// The names of the parameters, as [`Tape::builder`] was given them; empty if it was given none.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::builder().inputs(&[], &[1.0]).params(&["rate"], &[2.0]).record(|x, k| x[0] * k[0])?;
    /// assert_eq!(tape.param_names(), ["rate"]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn param_names(&self) -> Vec<String> {
        self.data.param_names.clone()
    }

    /// The number of parameters.
    pub fn num_params(&self) -> usize {
        self.data.num_params
    }

    /// The values of the parameters.
    pub fn params(&self) -> &[f64] {
        &self.params
    }

    /// The number of rows: inputs, parameters and operations. Constants and
    /// guards are not rows.
    #[allow(clippy::len_without_is_empty)] // A tape has an input at least.
    pub fn len(&self) -> usize {
        self.data.num_inputs + self.data.num_params + self.data.num_rows()
    }

    /// The comparisons that the function made, in their order.
    pub fn guards(&self) -> &[Guard] {
        &self.data.guards
    }

    /// The values that left the recording through [`Var::value`], in their order:
    /// what is computed from them does not follow x any more.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[3.0], |x| x[0] * x[0].value())?;
    /// assert_eq!(tape.gradient(&[5.0])?, (15.0, vec![3.0])); // 5·3, not 5·5
    /// assert_eq!(tape.escapes()[0].value(), 3.0);
    /// println!("{}", tape.escapes()[0]); // v₀ = 3 was read at src/main.rs:2
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn escapes(&self) -> &[Escape] {
        &self.data.escapes
    }

    /// The functions that rows of this tape call, in the order of their first
    /// call: tapes ([`Tape::call`], [`Tape::map`], [`Tape::scan`]), operations
    /// of yours ([`Custom`](crate::Custom)), solutions of equations ([`Implicit`](crate::Implicit)).
    pub fn functions(&self) -> &[Function] {
        &self.data.functions
    }

    /// How many operations one evaluation takes, about: the rows of the list, and
    /// those of each function that it calls as often as they run, a derivative of
    /// a function three times; `u64::MAX` if they are more than that can count.
    ///
    /// A small file may hold a tape that never ends: a body that is to run 10¹⁸
    /// times, or functions that call functions, each of them twice. Ask before
    /// you evaluate the tape of a stranger; the answer takes no longer than
    /// reading the tape.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let square = Tape::record(&[1.0], |x| x[0] * x[0])?; // an input and a row
    /// assert_eq!(square.operation_count(), 2);
    /// let sum = Tape::record(&[1.0; 10], |x| square.map_sum(x.chunks(1)))?;
    /// assert_eq!(sum.operation_count(), 11 + 10 * 2);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn operation_count(&self) -> u64 {
        crate::function::operation_count(self)
    }

    /// Whether it is a clone with the same parameters.
    pub(crate) fn is_same(&self, other: &Tape) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
            && self.name == other.name
            && (Arc::ptr_eq(&self.params, &other.params) || self.params.is_empty())
    }

    /// Checks the invariants of the list: every row reads only rows above it,
    /// and as many operands as its operation takes; whatever is named by a number
    /// is on the list that the number is of; and so on, everything that the
    /// sweeps rely on. What this crate makes passes; [`Tape::load`] refuses the
    /// files that do not.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] with the first row that breaks one.
    pub fn check(&self) -> Result<(), Error> {
        let named = |(row, reason)| Error::Malformed { row, operation: self.data.operation_name(row), reason };
        self.data.check().map_err(named)
    }
}

/// The row that breaks an invariant, the number of rows where none does, and what is wrong.
pub(crate) type Breach = (usize, &'static str);

impl TapeData {
    /// [`Tape::check`]. It indexes by no number before that number is checked.
    pub fn check(&self) -> Result<(), Breach> {
        self.check_counts()?;
        let mut row = 0;
        // Where the operands of the next row that has many of them begin.
        let mut next = 0;
        let mut called = vec![false; self.functions.len()];
        while row < self.num_rows() {
            row += self.check_row(row, &mut next, &mut called).map_err(|reason| (row, reason))?;
        }
        let expect = |holds: bool, reason| if holds { Ok(()) } else { Err((self.num_rows(), reason)) };
        let is_value = |index: &u32| (*index as usize) < self.num_values();
        expect(next == self.wide.len(), "there are operands that belong to no row")?;
        expect(!called.contains(&false), "a function is called by no row")?;
        expect(self.outputs.iter().all(is_value), "an output is not on the list")?;
        expect(
            self.guards.iter().all(|guard| guard.operands.iter().all(is_value)),
            "a guard reads what is not on the list",
        )?;
        expect(self.guards.iter().all(Guard::is_answered), "a guard's answer is none to its question")?;
        expect(self.escapes.iter().all(|escape| is_value(&escape.operand)), "an escape is not on the list")
    }

    /// Whether there are inputs and outputs, not more of anything than a number
    /// can name, and as many names as variables, if any.
    fn check_counts(&self) -> Result<(), Breach> {
        let expect = |holds: bool, reason| if holds { Ok(()) } else { Err((self.num_rows(), reason)) };
        let values = [self.constants.len(), self.num_inputs, self.num_params, self.num_rows()];
        let num_values = values.into_iter().fold(0, usize::saturating_add);
        expect(self.num_inputs > 0, "there is no input")?;
        expect(!self.outputs.is_empty(), "there is no output")?;
        expect(
            num_values <= LIMIT && self.wide.len() <= LIMIT,
            "there are more values or operands than an index can name",
        )?;
        expect(self.locations.len() <= Row::LOCATIONS, "there are more places than a row can name")?;
        let fits = |names: usize, variables: usize| names == 0 || names == variables;
        expect(fits(self.input_names.len(), self.num_inputs), "there are names, but not one for each input")?;
        expect(fits(self.param_names.len(), self.num_params), "there are names, but not one for each parameter")
    }

    /// Checks a row and those of its further results; gives how many they are.
    fn check_row(&self, at: usize, next: &mut usize, called: &mut [bool]) -> Result<usize, &'static str> {
        let row = &self.rows[at];
        let (op, [start, count]) = (row.op(), row.operands);
        let (is_call, is_wide) = (op == Op::Call, row.count() == Row::WIDE);
        if is_wide {
            let (start, count) = (start as usize, count as usize);
            let ends = start.checked_add(count).is_some_and(|end| end <= self.wide.len());
            if start != *next + usize::from(is_call) || !ends {
                return Err("its operands lie outside the list of operands, or not after those of the row above");
            }
            *next = start + count;
        }
        // A row holds two operands itself, and those of a call never.
        if is_wide != (is_call || is_wide && count > 2) {
            return Err("its operands lie elsewhere than they should");
        }
        let operands = self.operands(at);
        if operands.iter().any(|&operand| operand as usize >= self.first_row() + at) {
            return Err("it reads a row that is not above it");
        }
        if is_call && operands.is_empty() {
            return Err("it calls a function with no operand");
        }
        let (num_operands, num_results) = match op {
            Op::FurtherResult => return Err("a further result has no row above it"),
            Op::Call => {
                // The number lies before the operands.
                let number = self.wide[start as usize - 1] as usize;
                let Some(function) = self.functions.get(number) else { return Err("its function is not on the list") };
                called[number] = true;
                (function.num_operands(), function.num_results())
            }
            op => replay::shape(op, operands.len()),
        };
        let further = self.rows[at + 1..].iter().take_while(|next| next.op() == Op::FurtherResult).count();
        if num_operands != operands.len() || num_results != further + 1 {
            return Err("its operation takes other numbers of operands or results");
        }
        let constants = self.constants.len();
        if !is_call && operands.iter().all(|&operand| (operand as usize) < constants) {
            return Err("it reads constants alone");
        }
        let results = &self.rows[at..=at + further];
        if results.iter().any(|row| row.location() as usize >= self.locations.len()) {
            return Err("its place in the code is not on the list");
        }
        match results[1..].iter().all(|row| row.count() == 0) {
            true => Ok(num_results),
            false => Err("a further result has operands"),
        }
    }
}

impl Tape {
    /// The Wengert list without numbers, and those of the functions that it calls.
    pub(crate) fn list(&self, script: Script, digits: usize) -> String {
        self.list_with(script, digits, &mut HashSet::new())
    }

    fn list_with<'a>(&'a self, script: Script, digits: usize, listed: &mut Listed<'a>) -> String {
        let data = &*self.data;
        let text_of = |name: Name| name.render(script, digits);
        let mut lines = String::new();
        let mut line = |name: Name, what: String| lines += &format!("{} = {what}\n", text_of(name));
        for index in data.first_input()..data.first_param() {
            line(data.value_name(index, Accent::None), text_of(data.variable_name(index)));
        }
        for index in data.first_param()..data.first_row() {
            line(data.variable_name(index), "parameter".to_owned());
        }
        for row in 0..data.num_rows() {
            let formulas = Formulas::new();
            let name = data.value_name(data.first_row() + row, Accent::None);
            line(name, data.row_formula(row, &formulas).render(script, digits));
        }
        for (position, &output) in data.outputs.iter().enumerate() {
            line(data.output_name(position), text_of(data.operand_name(output)));
        }
        lines
            + &data
                .bodies_not_listed(script, digits, listed)
                .iter()
                .map(|body| format!("\n{}", body.text(script)))
                .collect::<String>()
    }
}

impl fmt::Display for Tape {
    /// The Wengert list without numbers, a line a row; the lists of the functions
    /// that it calls stand below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.list(Script::Unicode, DIGITS))
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape")
            .field("inputs", &self.num_inputs())
            .field("outputs", &self.num_outputs())
            .field("params", &self.params)
            .field("rows", &self.len())
            .field("guards", &self.guards().len())
            .finish_non_exhaustive()
    }
}
