//! Printed traces: the textbook's table of a forward or a reverse sweep.
//!
//! The formulas come from the table of operations, evaluated in
//! [`Formula`](crate::Formula). The text is meant to be snapshot-tested: the
//! same bytes on every machine, in debug and release. A change of the format is
//! a breaking change.

use std::cell::OnceCell;
use std::fmt::{self, Write};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::drivers::check_seed;
use crate::error::{Error, expect_len};
use crate::formula::{
    Accent, Call, DIGITS, Formula, Formulas, Name, SHOWN_OPERANDS, Script, escape_latex, more, number,
};
use crate::function::Function;
use crate::matrix::Matrix;
use crate::ops::Op;
use crate::record::SourceLocation;
use crate::replay::{self, Workspace};
use crate::tape::{Tape, TapeData};

/// Which sweep a [`Trace`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum TraceKind {
    /// Values alone.
    Primal,
    /// Values and tangents, from the inputs down to the outputs.
    Tangent,
    /// Values and adjoints, from the outputs up to the inputs.
    Adjoint,
}

/// A row of a [`Trace`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TraceRow {
    /// The name of the variable, such as `v₁`.
    pub name: String,
    /// The elementary operation, such as `cos(v₋₁)`.
    pub operation: String,
    /// The primal value.
    pub value: f64,
    /// The tangent of each seed, or the adjoint; none in a primal trace.
    pub derivatives: Vec<TraceDerivative>,
    /// Where the operation stands in your code; none for inputs, parameters and
    /// outputs, and for a tape without places ([`Tape::without_locations`]).
    pub location: Option<SourceLocation>,
}

/// A derivative in a [`TraceRow`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TraceDerivative {
    /// The name, such as `v̇₁` or `v̄₁`.
    pub name: String,
    /// How it is computed, such as `−sin(v₋₁)·v̇₋₁`.
    pub formula: String,
    /// Its value.
    pub value: f64,
}

/// The list of a function that rows of a [`Trace`] call: of a recorded tape, or
/// of the equations of an [`Implicit`](crate::Implicit).
///
/// A trace shows each call as a row, and the list of its function once, below.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TraceBody {
    /// Its name, `f` if it has none.
    pub name: String,
    /// The names of the rows that call it, such as `v₁`, of each the first result.
    pub called_by: Vec<String>,
    /// Its rows without numbers, as [`Tape`] prints them, with the functions
    /// that it calls in turn.
    pub list: String,
}

impl TraceBody {
    /// A heading, and the list below it.
    pub(crate) fn text(&self, script: Script) -> String {
        let mut callers = self.called_by[..self.called_by.len().min(SHOWN_OPERANDS)].to_vec();
        if self.called_by.len() > callers.len() {
            callers.push(more(self.called_by.len() - callers.len(), script));
        }
        let mut text = format!("{}, called by {}:\n", self.name, callers.join(", "));
        for line in self.list.lines() {
            let indent = if line.is_empty() { "" } else { "  " };
            let _ = writeln!(text, "{indent}{line}");
        }
        text
    }
}

/// A sweep at one point, row by row; from [`Tape::primal_trace`],
/// [`Tape::tangent_trace`], [`Tape::tangent_traces`] and [`Tape::adjoint_trace`].
///
/// `Display` is the aligned text table, with six significant digits or as many
/// as the formatter's precision says: `{trace:.12}`.
///
/// ```
/// use ad_core::Tape;
/// let tape = Tape::record(&[3.0], |x| x[0] * x[0])?;
/// assert_eq!(tape.tangent_trace(&[3.0], &[1.0])?.to_string(), "\
/// primal      value  tangent, p = (1)    value
/// ────────────────────────────────────────────
/// v₀ = x₁         3  v̇₀ = p                  1
/// v₁ = v₀·v₀      9  v̇₁ = v̇₀·v₀ + v₀·v̇₀      6
/// y = v₁          9  ẏ = v̇₁                  6
/// ");
/// # Ok::<(), ad_core::Error>(())
/// ```
///
/// A call of a function is one row, and the function's list stands below the table:
///
/// ```
/// use ad_core::Tape;
/// let square = Tape::record(&[1.0], |x| x[0] * x[0])?.named("square");
/// let tape = Tape::record(&[3.0], |x| square.call(x)[0] + 1.0)?;
/// assert_eq!(tape.tangent_trace(&[3.0], &[1.0])?.to_string(), "\
/// primal           value  tangent, p = (1)         value
/// ──────────────────────────────────────────────────────
/// v₀ = x₁              3  v̇₀ = p                       1
/// v₁ = square(v₀)      9  v̇₁ = jvp square(v₀; v̇₀)      6
/// v₂ = v₁ + 1         10  v̇₂ = v̇₁                      6
/// y = v₂              10  ẏ = v̇₂                       6
///
/// square, called by v₁:
///   v₀ = x₁
///   v₁ = v₀·v₀
///   y = v₁
/// ");
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Trace {
    kind: TraceKind,
    tape: Tape,
    values: Vec<f64>,
    /// `seeds.len()` numbers a value.
    derivatives: Vec<f64>,
    seeds: Vec<Vec<f64>>,
    script: Script,
    digits: usize,
    locations: bool,
    rows: Vec<TraceRow>,
}

impl Trace {
    fn new(kind: TraceKind, tape: &Tape, values: Vec<f64>, derivatives: Vec<f64>, seeds: Vec<Vec<f64>>) -> Trace {
        let mut trace = Trace {
            kind,
            tape: tape.clone(),
            values,
            derivatives,
            seeds,
            script: Script::Unicode,
            digits: DIGITS,
            locations: false,
            rows: Vec::new(),
        };
        trace.rows = trace.build(trace.script, trace.digits);
        trace
    }

    /// The rows, from the inputs to the outputs; of an adjoint trace from the
    /// outputs to the inputs.
    pub fn rows(&self) -> &[TraceRow] {
        &self.rows
    }

    /// The lists of the functions that rows call, in the order of the first calls.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let square = Tape::record(&[1.0], |x| x[0] * x[0])?.named("square");
    /// let trace = Tape::record(&[3.0], |x| square.call(x))?.primal_trace(&[3.0])?;
    /// assert_eq!(trace.bodies()[0].called_by, ["v₁"]);
    /// assert_eq!(trace.bodies()[0].list, "v₀ = x₁\nv₁ = v₀·v₀\ny = v₁\n");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn bodies(&self) -> Vec<TraceBody> {
        self.tape.data.bodies(self.script, self.digits)
    }

    /// Which sweep this is.
    pub fn kind(&self) -> TraceKind {
        self.kind
    }

    /// The same trace with a column that shows where each operation stands in
    /// your code, as file:line. The line numbers make a snapshot change with
    /// every edit above them, so they are left out by default.
    #[must_use]
    pub fn with_locations(mut self) -> Trace {
        self.locations = true;
        self
    }

    /// The same trace in ASCII: `v[1]`, `dv[1]`, `bv[1]`, `*`, `-`. Names that
    /// you gave are printed as they are.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let trace = Tape::record(&[3.0], |x| x[0] * x[0])?.tangent_trace(&[3.0], &[1.0])?.ascii();
    /// assert_eq!(trace.rows()[1].derivatives[0].formula, "dv[0]*v[0] + v[0]*dv[0]");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[must_use]
    pub fn ascii(mut self) -> Trace {
        self.script = Script::Ascii;
        self.rows = self.build(self.script, self.digits);
        self
    }

    /// The same trace with so many significant digits (at least 1).
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let trace = Tape::record(&[1.0], |x| x[0] / 3.0)?.primal_trace(&[1.0])?.digits(3);
    /// assert!(trace.to_string().ends_with("y = v₁     0.333\n"));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[must_use]
    pub fn digits(mut self, digits: usize) -> Trace {
        self.digits = digits;
        self.rows = self.build(self.script, self.digits);
        self
    }

    /// A Markdown table; the lists of functions that rows call as code below it.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[3.0], |x| x[0].exp())?;
    /// assert!(tape.primal_trace(&[3.0])?.to_markdown().starts_with("| name | operation | value |\n|---|---|---:|\n"));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let escape = |text: &String| {
            let special = |c: char| matches!(c, '|' | '\\' | '*' | '_' | '`' | '<' | '[' | ']');
            text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect::<String>()
        };
        let mut text = line(&self.header());
        let rule: Vec<&str> =
            self.numeric_columns().iter().map(|&numeric| if numeric { "---:" } else { "---" }).collect();
        let _ = writeln!(text, "|{}|", rule.join("|"));
        for row in &self.rows {
            let cells: Vec<String> =
                self.cells(row, &|x| number(x, self.digits, self.script)).iter().map(escape).collect();
            text += &line(&cells);
        }
        for body in self.bodies() {
            let _ = write!(text, "\n```text\n{}```\n", body.text(self.script));
        }
        text
    }

    /// A LaTeX `tabular`; its formulas need the package amsmath. The lists of
    /// functions that rows call stand below it in `verbatim`, and so in ASCII.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let trace = Tape::record(&[4.0], |x| x[0].sqrt())?.primal_trace(&[4.0])?;
    /// assert!(trace.to_latex().contains(r"$v_{1}$ & $\sqrt{v_{0}}$ & $2$ \\"));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn to_latex(&self) -> String {
        let rows = self.build(Script::Latex, self.digits);
        let columns: String = self.numeric_columns().iter().map(|&numeric| if numeric { 'r' } else { 'l' }).collect();
        let mut text = format!("\\begin{{tabular}}{{{columns}}}\n");
        let header: Vec<String> = self.header().iter().map(|cell| escape_latex(cell)).collect();
        let _ = writeln!(text, "{} \\\\\n\\hline", header.join(" & "));
        for row in &rows {
            let mut cells = self.cells(row, &|x| number(x, self.digits, Script::Latex));
            let formulas = if self.locations { cells.len() - 1 } else { cells.len() };
            for cell in &mut cells[..formulas] {
                *cell = format!("${cell}$");
            }
            if let (true, Some(location)) = (self.locations, cells.last_mut()) {
                *location = format!(r"\texttt{{{}}}", escape_latex(location));
            }
            let _ = writeln!(text, "{} \\\\", cells.join(" & "));
        }
        text += "\\end{tabular}\n";
        for body in self.tape.data.bodies(Script::Ascii, self.digits) {
            let _ = write!(text, "\n\\begin{{verbatim}}\n{}\\end{{verbatim}}\n", body.text(Script::Ascii));
        }
        text
    }

    /// Comma-separated values after RFC 4180, but with `\n` line ends; numbers
    /// in full, so that reading them back gives the same bits. The lists of
    /// functions that rows call are no rows of the table: see [`Trace::bodies`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let trace = Tape::record(&[1.0], |x| x[0] / 3.0)?.primal_trace(&[1.0])?;
    /// assert!(trace.to_csv().ends_with("y,v₁,0.3333333333333333\n"));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn to_csv(&self) -> String {
        let quote = |cell: &String| match cell.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.clone(),
        };
        let line = |cells: Vec<String>| cells.iter().map(quote).collect::<Vec<_>>().join(",") + "\n";
        let mut text = line(self.header());
        for row in &self.rows {
            text += &line(self.cells(row, &|x| format!("{x:?}")));
        }
        text
    }

    /// The word for the derivative: tangent or adjoint.
    fn word(&self) -> &'static str {
        if self.kind == TraceKind::Adjoint { "adjoint" } else { "tangent" }
    }

    /// The seed as shown in a heading: `tangent, p = (1, 0)`.
    fn heading(&self, seed: &[f64], script: Script, digits: usize) -> String {
        let letter = if self.kind == TraceKind::Adjoint { "w" } else { "p" };
        let mut shown: Vec<String> = seed.iter().take(SHOWN_OPERANDS).map(|&s| number(s, digits, script)).collect();
        if seed.len() > SHOWN_OPERANDS {
            shown.push(more(seed.len() - SHOWN_OPERANDS, script));
        }
        format!("{}, {letter} = ({})", self.word(), shown.join(", "))
    }

    /// The headings where name and operation are columns of their own.
    fn header(&self) -> Vec<String> {
        let mut header = vec!["name".to_owned(), "operation".to_owned(), "value".to_owned()];
        for seed in &self.seeds {
            header.push(self.heading(seed, self.script, self.digits));
            header.push(format!("{} value", self.word()));
        }
        if self.locations {
            header.push("location".to_owned());
        }
        header
    }

    fn numeric_columns(&self) -> Vec<bool> {
        let mut numeric = vec![false, false, true];
        numeric.extend(self.seeds.iter().flat_map(|_| [false, true]));
        numeric.extend(self.locations.then_some(false));
        numeric
    }

    fn cells(&self, row: &TraceRow, number: &dyn Fn(f64) -> String) -> Vec<String> {
        let mut cells = vec![row.name.clone(), row.operation.clone(), number(row.value)];
        for derivative in &row.derivatives {
            cells.push(format!("{} = {}", derivative.name, derivative.formula));
            cells.push(number(derivative.value));
        }
        if self.locations {
            cells.push(row.location.as_ref().map(SourceLocation::to_string).unwrap_or_default());
        }
        cells
    }

    /// The rows in a script, the numbers of the formulas with so many digits.
    fn build(&self, script: Script, digits: usize) -> Vec<TraceRow> {
        let data = &*self.tape.data;
        let uses = if self.kind == TraceKind::Adjoint { Uses::new(data) } else { Uses::default() };
        let symbols = (0..data.num_rows()).map(|_| OnceCell::new()).collect();
        let formulas = Formulas::new();
        RowWriter { trace: self, data, script, digits, uses, formulas: &formulas, symbols }.rows()
    }

    /// The aligned text table.
    fn write_text(&self, f: &mut fmt::Formatter<'_>, rows: &[TraceRow], digits: usize) -> fmt::Result {
        let mut table = vec![vec!["primal".to_owned(), "value".to_owned()]];
        for seed in &self.seeds {
            table[0].extend([self.heading(seed, self.script, digits), "value".to_owned()]);
        }
        if self.locations {
            table[0].push("location".to_owned());
        }
        for row in rows {
            let cells = self.cells(row, &|x| number(x, digits, self.script));
            let primal = format!("{} = {}", cells[0], cells[1]);
            table.push(std::iter::once(primal).chain(cells.into_iter().skip(2)).collect());
        }
        let columns = table[0].len();
        let widths: Vec<usize> =
            (0..columns).map(|c| table.iter().map(|line| width(&line[c])).max().unwrap_or(0)).collect();
        let total = widths.iter().sum::<usize>() + 2 * (columns - 1);
        // Numbers stand in the odd columns, on the right of what they belong to.
        let right = |c: usize| c % 2 == 1;
        for (i, line) in table.iter().enumerate() {
            let mut text = String::new();
            for (c, cell) in line.iter().enumerate() {
                let padding = " ".repeat(widths[c] - width(cell));
                let gap = if c > 0 { "  " } else { "" };
                text += gap;
                text += &if right(c) { padding + cell } else { cell.clone() + &padding };
            }
            writeln!(f, "{}", text.trim_end())?;
            if i == 0 {
                writeln!(f, "{}", if self.script == Script::Ascii { "-" } else { "─" }.repeat(total))?;
            }
        }
        for body in self.tape.data.bodies(self.script, digits) {
            write!(f, "\n{}", body.text(self.script))?;
        }
        Ok(())
    }
}

/// The columns a text takes: combining accents take none.
fn width(text: &str) -> usize {
    text.chars().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).count()
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.precision() {
            Some(digits) if digits != self.digits => self.write_text(f, &self.build(self.script, digits), digits),
            _ => self.write_text(f, &self.rows, self.digits),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Trace {
    /// As a struct with the fields kind, seeds, rows and bodies.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut trace = serializer.serialize_struct("Trace", 4)?;
        trace.serialize_field("kind", &self.kind)?;
        trace.serialize_field("seeds", &self.seeds)?;
        trace.serialize_field("rows", &self.rows)?;
        trace.serialize_field("bodies", &self.bodies())?;
        trace.end()
    }
}

/// For each value the places where it is read, the last row first.
#[derive(Default)]
struct Uses {
    starts: Vec<usize>,
    /// Row, result and operand position; for a call the row of its first result,
    /// since all of its results contribute at once.
    places: Vec<(usize, usize, usize)>,
    /// The values that are outputs, in order, with the positions of the outputs.
    outputs: Vec<(usize, usize)>,
}

impl Uses {
    fn new(data: &TapeData) -> Uses {
        let active = |row: usize| data.active[data.first_row() + row];
        let mut starts = vec![0; data.num_values() + 1];
        let each = |visit: &mut dyn FnMut(usize, (usize, usize, usize))| {
            for row in (0..data.num_rows()).rev().filter(|&row| active(row)) {
                let (head, result) = data.head(row);
                if result > 0 && data.op(head) == Op::Call {
                    continue;
                }
                for (position, &operand) in data.operands(head).iter().enumerate() {
                    visit(operand as usize, (row, result, position));
                }
            }
        };
        each(&mut |operand, _| starts[operand + 1] += 1);
        for value in 0..data.num_values() {
            starts[value + 1] += starts[value];
        }
        let mut next = starts.clone();
        let mut places = vec![(0, 0, 0); starts[data.num_values()]];
        each(&mut |operand, place| {
            places[next[operand]] = place;
            next[operand] += 1;
        });
        let mut outputs: Vec<(usize, usize)> =
            data.outputs.iter().enumerate().map(|(position, &output)| (output as usize, position)).collect();
        outputs.sort_unstable();
        Uses { starts, places, outputs }
    }

    /// The outputs that are this value.
    fn outputs(&self, value: usize) -> &[(usize, usize)] {
        let start = self.outputs.partition_point(|&(output, _)| output < value);
        let end = self.outputs.partition_point(|&(output, _)| output <= value);
        &self.outputs[start..end]
    }

    fn of(&self, value: usize) -> &[(usize, usize, usize)] {
        &self.places[self.starts[value]..self.starts[value + 1]]
    }
}

/// The names of a row's operands, and its results.
struct RowSymbols<'a> {
    x: SmallVec<[Formula<'a>; 2]>,
    v: SmallVec<[Formula<'a>; 2]>,
    /// Of a call, what its derivatives are printed as.
    derivative: Option<Arc<Call>>,
}

struct RowWriter<'a> {
    trace: &'a Trace,
    data: &'a TapeData,
    script: Script,
    digits: usize,
    uses: Uses,
    formulas: &'a Formulas,
    /// For each row, made when first wanted: a fold is read by each of its operands.
    symbols: Vec<OnceCell<RowSymbols<'a>>>,
}

impl<'a> RowWriter<'a> {
    fn rows(self) -> Vec<TraceRow> {
        let data = self.data;
        let values = (data.first_input()..data.num_values()).map(|value| self.value_row(value));
        let outputs = (0..data.outputs.len()).map(|position| self.output_row(position));
        let mut rows: Vec<TraceRow> = values.chain(outputs).collect();
        if self.trace.kind == TraceKind::Adjoint {
            rows.reverse();
        }
        rows
    }

    fn accent(&self) -> Accent {
        if self.trace.kind == TraceKind::Adjoint { Accent::Bar } else { Accent::Dot }
    }

    fn text(&self, name: &Name) -> String {
        name.render(self.script, self.digits)
    }

    /// The row of an input, a parameter or an operation.
    fn value_row(&self, value: usize) -> TraceRow {
        let data = self.data;
        let operation = match value.checked_sub(data.first_row()) {
            Some(row) => data.row_formula(row, &Formulas::new()).render(self.script, self.digits),
            None if value < data.first_param() => self.text(&data.variable_name(value)),
            None if self.script == Script::Latex => r"\text{parameter}".to_owned(),
            None => "parameter".to_owned(),
        };
        let k = self.trace.seeds.len();
        let name = self.text(&data.value_name(value, self.accent()));
        let formula = match self.trace.kind {
            TraceKind::Primal => String::new(),
            TraceKind::Tangent => self.tangent_formula(value),
            TraceKind::Adjoint => self.adjoint_formula(value),
        };
        let derivative = |d: usize| TraceDerivative {
            name: name.clone(),
            formula: formula.clone(),
            value: self.trace.derivatives[value * k + d],
        };
        TraceRow {
            name: self.text(&data.value_name(value, Accent::None)),
            operation,
            value: self.trace.values[value],
            derivatives: (0..k).map(derivative).collect(),
            location: value.checked_sub(data.first_row()).and_then(|row| data.known_location(row)),
        }
    }

    fn output_row(&self, position: usize) -> TraceRow {
        let data = self.data;
        let output = data.outputs[position] as usize;
        let name = data.output_name(position);
        let k = self.trace.seeds.len();
        let derivative = |d: usize| {
            let (formula, value) = match self.trace.kind {
                TraceKind::Adjoint => {
                    (self.text(&self.seed_name("w", position, data.outputs.len())), self.trace.seeds[d][position])
                }
                _ if data.active[output] => {
                    (self.text(&data.value_name(output, Accent::Dot)), self.trace.derivatives[output * k + d])
                }
                _ => ("0".to_owned(), 0.0),
            };
            TraceDerivative { name: self.text(&name.clone().with_accent(self.accent())), formula, value }
        };
        TraceRow {
            name: self.text(&name),
            operation: self.text(&data.value_name(output, Accent::None)),
            value: self.trace.values[output],
            derivatives: (0..k).map(derivative).collect(),
            location: None,
        }
    }

    fn seed_name(&self, letter: &'static str, position: usize, count: usize) -> Name {
        match count {
            1 => Name::Letter(letter, Accent::None),
            _ => Name::Indexed(letter, Accent::None, position as i64 + 1),
        }
    }

    fn symbols(&self, head: usize) -> &RowSymbols<'a> {
        self.symbols[head].get_or_init(|| {
            let data = self.data;
            if let Some(function) = data.function(head) {
                let derivative = Some(Arc::new(self.derivative_of_call(head, function)));
                return RowSymbols { x: SmallVec::new(), v: SmallVec::new(), derivative };
            }
            let names = data.operands(head).iter().map(|&operand| self.formulas.name(data.operand_name(operand)));
            let x: SmallVec<[Formula<'a>; 2]> = names.collect();
            let v = Formula::results(self.formulas, data.op(head), &x);
            RowSymbols { x, v, derivative: None }
        })
    }

    /// `jvp f(v₁, v₂; v̇₁, v̇₂)`, or in an adjoint trace `vjp f(v₁, v₂; v̄₅)`.
    fn derivative_of_call(&self, head: usize, function: &Function) -> Call {
        let (data, operands) = (self.data, self.data.operands(head));
        let mut name = function.call_name();
        let is_adjoint = self.trace.kind == TraceKind::Adjoint;
        name.words.insert(0, if is_adjoint { "vjp" } else { "jvp" });
        let values = operands.iter().map(|&operand| self.formulas.name(data.operand_name(operand)));
        let call = Call::new(name).with(values);
        let first = data.first_row() + head;
        match is_adjoint {
            true => call.with((0..function.num_results()).map(|j| self.derivative_name(first + j))),
            false => call.with(operands.iter().map(|&operand| self.derivative_name(operand as usize))),
        }
    }

    /// The name of a tangent or an adjoint; 0 where no input changes the value.
    fn derivative_name(&self, value: usize) -> Formula<'a> {
        match self.data.active[value] {
            true => self.formulas.name(self.data.value_name(value, self.accent())),
            false => Formula::from(0.0),
        }
    }

    /// ∂result/∂operand of the operation whose first result is row `head`.
    fn partial(&self, head: usize, result: usize, position: usize) -> Formula<'a> {
        let RowSymbols { x, v, .. } = self.symbols(head);
        Formula::partial(self.data.op(head), result, position, x, v)
    }

    /// A sum of terms, the ninth and later ones counted.
    fn sum(&self, terms: usize, term: impl Fn(usize) -> Formula<'a>) -> String {
        if terms == 0 {
            return "0".to_owned();
        }
        let shown = (1..terms.min(SHOWN_OPERANDS)).fold(term(0), |sum, i| sum + term(i));
        let mut text = shown.render(self.script, self.digits);
        if terms > SHOWN_OPERANDS {
            text += &format!(" + {}", more(terms - SHOWN_OPERANDS, self.script));
        }
        text
    }

    fn tangent_formula(&self, value: usize) -> String {
        let data = self.data;
        let Some(row) = value.checked_sub(data.first_row()) else {
            return match value < data.first_param() {
                true => self.text(&self.seed_name("p", value - data.first_input(), data.num_inputs)),
                false => "0".to_owned(),
            };
        };
        let (head, result) = data.head(row);
        if let (Some(call), Some(function)) = (&self.symbols(head).derivative, data.function(head)) {
            let tangent = self.formulas.call(call, (function.num_results() > 1).then_some(result));
            return tangent.render(self.script, self.digits);
        }
        let operands = data.operands(head);
        let active: Vec<usize> = (0..operands.len()).filter(|&i| data.active[operands[i] as usize]).collect();
        self.sum(active.len(), |term| {
            let position = active[term];
            let tangent = self.formulas.name(data.value_name(operands[position] as usize, Accent::Dot));
            let partial = self.partial(head, result, position);
            // The product rule keeps the order of the factors: v̇₁·v₂ + v₁·v̇₂.
            match self.symbols(head).x.iter().skip(position + 1).any(|x| x.is_same_node(partial)) {
                true => tangent * partial,
                false => partial * tangent,
            }
        })
    }

    fn adjoint_formula(&self, value: usize) -> String {
        let data = self.data;
        if !data.active[value] {
            return "0".to_owned();
        }
        let seeded = self.uses.outputs(value);
        let uses = self.uses.of(value);
        self.sum(seeded.len() + uses.len(), |term| match term.checked_sub(seeded.len()) {
            None => self.formulas.name(data.output_name(seeded[term].1).with_accent(Accent::Bar)),
            Some(i) => {
                let (row, result, position) = uses[i];
                if let Some(call) = &self.symbols(row - result).derivative {
                    let several = data.operands(row).len() > 1;
                    return self.formulas.call(call, several.then_some(position));
                }
                let adjoint = self.formulas.name(data.value_name(data.first_row() + row, Accent::Bar));
                adjoint * self.partial(row - result, result, position)
            }
        })
    }
}

impl Tape {
    /// The values row by row at x.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0] * x[1])?;
    /// assert_eq!(tape.primal_trace(&[2.0, 4.0])?.rows()[2].value, 8.0);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn primal_trace(&self, x: &[f64]) -> Result<Trace, Error> {
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        Ok(Trace::new(TraceKind::Primal, self, ws.values, Vec::new(), Vec::new()))
    }

    /// Values and tangents row by row at x, for the seed p.
    ///
    /// A trace shows the strict sweep in every row: 0·NaN and 0·∞ are 0, and a
    /// row outside the domain of its operation has a NaN derivative, also where
    /// no output depends on it.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::jvp`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1])?;
    /// let trace = tape.tangent_trace(&[2.0, 4.0], &[1.0, 0.0])?;
    /// assert_eq!(trace.rows()[2].derivatives[0].formula, "−sin(v₋₁)·v̇₋₁");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn tangent_trace(&self, x: &[f64], p: &[f64]) -> Result<Trace, Error> {
        expect_len("p (one number per input)", p.len(), self.num_inputs())?;
        check_seed("p", p)?;
        self.tangent_traces(x, &Matrix::from_vec(self.num_inputs(), 1, p.to_vec())?)
    }

    /// Values and tangents row by row at x, for k seeds: `seeds` is n × k, one
    /// seed a column; the table has a formula and a value for each.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::jvp_many`].
    pub fn tangent_traces(&self, x: &[f64], seeds: &Matrix) -> Result<Trace, Error> {
        expect_len("seeds (one row per input)", seeds.rows(), self.num_inputs())?;
        if seeds.cols() == 0 {
            return Err(Error::Empty { what: "seeds", hint: "give at least one column" });
        }
        check_seed("seeds", seeds.as_slice())?;
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let replay::SweepMemory { tangents, gathered, .. } = &mut ws.sweep;
        let (seeds_by_row, k) = (seeds.as_slice(), seeds.cols());
        replay::tangent_sweep::<true>(&self.data, &ws.values, seeds_by_row, k, tangents, gathered)
            .map_err(|failure| self.of_function(failure))?;
        let columns = (0..seeds.cols()).map(|j| (0..seeds.rows()).map(|i| seeds[(i, j)]).collect()).collect();
        Ok(Trace::new(TraceKind::Tangent, self, ws.values, ws.sweep.tangents, columns))
    }

    /// Values and adjoints row by row at x, for the weights w (one per output),
    /// from the outputs up to the inputs; of the strict sweep, as in
    /// [`Tape::tangent_trace`].
    ///
    /// # Errors
    ///
    /// Those of [`Tape::vjp`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1])?;
    /// let trace = tape.adjoint_trace(&[2.0, 4.0], &[1.0])?;
    /// assert_eq!(trace.rows().last().unwrap().derivatives[0].formula, "v̄₂·v₀ − v̄₁·sin(v₋₁)");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn adjoint_trace(&self, x: &[f64], w: &[f64]) -> Result<Trace, Error> {
        expect_len("w (one number per output)", w.len(), self.num_outputs())?;
        check_seed("w", w)?;
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let replay::SweepMemory { adjoints, gathered, .. } = &mut ws.sweep;
        replay::reverse_sweep::<f64, true>(&self.data, &ws.values, w, adjoints, gathered)
            .map_err(|failure| self.of_function(failure))?;
        Ok(Trace::new(TraceKind::Adjoint, self, ws.values, ws.sweep.adjoints, vec![w.to_vec()]))
    }
}
