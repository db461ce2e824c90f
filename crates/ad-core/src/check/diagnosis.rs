//! Where a number went non-finite.

use std::collections::HashSet;
use std::fmt::{self, Write};

use super::{Numbers, Part, Pass, RowAt, exact, plural, value};
use crate::error::Error;
use crate::formula::{Accent, Formulas};
use crate::function::{Function, Given, Taken};
use crate::ops::Op;
use crate::record::SourceLocation;
use crate::replay::{self, Workspace};
use crate::rule::Rule;
use crate::tape::{Tape, TapeData};

/// What became non-finite first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NonFinite {
    /// The value.
    Value,
    /// The tangent, of a finite value.
    Tangent,
    /// The adjoint, or what the row adds to the adjoint of an operand.
    Adjoint,
}

/// A value of a tape at a point, as [`Diagnosis`] shows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ValueAt {
    /// An input, a parameter, a constant or a row.
    pub part: Part,
    /// Its name, such as `v₁`; of a constant, the number.
    pub name: String,
    /// What it is: an elementary operation such as `ln(v₀)`, the name of an
    /// input, `parameter` or `constant`.
    pub operation: String,
    /// Its value.
    pub value: f64,
    /// Its tangent or adjoint; none for what depends on no input.
    pub derivative: Option<f64>,
    /// Where it stands in your code, if it is a row; for a constant, where it
    /// is first used.
    pub location: Option<SourceLocation>,
}

/// Where a result went non-finite; from [`Tape::diagnose`] and
/// [`Tape::diagnose_adjoint`]. `Display` tells it in a few lines.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What went non-finite: value, tangent or adjoint.
    pub what: NonFinite,
    /// The first row, input, parameter or constant that did; of an adjoint, the
    /// first in the order of the reverse sweep.
    pub origin: ValueAt,
    /// Its operands, all of them finite as far as they matter; the first eight.
    pub operands: Vec<ValueAt>,
    /// How many operands are left out.
    pub operands_omitted: usize,
    /// Why, in words.
    pub why: String,
    /// One chain of rows that led there: from an input to the origin; of an
    /// adjoint, from the origin on to an input whose adjoint is non-finite.
    /// A long one is cut in the middle.
    pub path: Vec<ValueAt>,
    /// How many rows of the chain are left out, after the first four.
    pub path_omitted: usize,
    /// What the caller sees of it: the names of the outputs, for an adjoint of
    /// the inputs, that are non-finite because of it or of something later; the
    /// first eight.
    pub reaches: Vec<String>,
    /// If the origin calls a tape: what happens inside of it. None if a carried
    /// number or a sum of finite terms overflows.
    pub inside: Option<Box<DiagnosisInside>>,
}

/// Where in a called tape a result went non-finite; in [`Diagnosis`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DiagnosisInside {
    /// The name of the function.
    pub function: String,
    /// The first iteration in which it happens, from 0, of an adjoint the last.
    pub iteration: usize,
    /// How many iterations there are.
    pub iterations: usize,
    /// What happens to the tape in this iteration.
    pub diagnosis: Diagnosis,
}

impl Diagnosis {
    /// Rows of a path that are shown before and after those left out.
    const PATH: [usize; 2] = [4, 8];
    const REACHES: usize = 8;
    const OPERANDS: usize = 8;

    fn value_text(&self, value: &ValueAt) -> String {
        let ValueAt { name, operation, .. } = value;
        let mut text = match value.part {
            Part::Constant => return format!("the constant {}", exact(value.value)),
            Part::Parameter => format!("{name} = {}", exact(value.value)),
            _ => format!("{name} = {operation} = {}", exact(value.value)),
        };
        if let (Some(derivative), true) = (value.derivative, self.what != NonFinite::Value) {
            let _ = write!(text, ", {} {}", self.word(), exact(derivative));
        }
        if let Some(location) = &value.location {
            let _ = write!(text, "  ({location})");
        }
        text
    }

    fn word(&self) -> &'static str {
        if self.what == NonFinite::Adjoint { "adjoint" } else { "tangent" }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ValueAt { name, operation, location, .. } = &self.origin;
        let (value, derivative) = (exact(self.origin.value), exact(self.origin.derivative.unwrap_or(0.0)));
        let at = location.as_ref().map(|location| format!(" at {location}")).unwrap_or_default();
        match self.what {
            NonFinite::Value if self.origin.part == Part::Constant => {
                writeln!(f, "the constant {value}{at} is not finite")?
            }
            NonFinite::Value => writeln!(f, "{name} = {operation} is {value}{at}")?,
            NonFinite::Tangent => writeln!(f, "the tangent of {name} = {operation} is {derivative}{at}")?,
            NonFinite::Adjoint if self.origin.derivative.is_some_and(f64::is_finite) => {
                writeln!(f, "{name} = {operation} passes on a non-finite adjoint{at}")?
            }
            NonFinite::Adjoint => writeln!(f, "the adjoint of {name} = {operation} is {derivative}{at}")?,
        }
        writeln!(f, "  {}", self.why)?;
        for operand in &self.operands {
            writeln!(f, "  with {}", self.value_text(operand))?;
        }
        if self.operands_omitted > 0 {
            writeln!(f, "  … {} more", plural(self.operands_omitted, "operand"))?;
        }
        if self.path.len() > 1 {
            writeln!(f, "the way {}:", if self.what == NonFinite::Adjoint { "from there" } else { "there" })?;
            for (i, value) in self.path.iter().enumerate() {
                if i == Self::PATH[0] && self.path_omitted > 0 {
                    writeln!(f, "  … {} more", plural(self.path_omitted, "row"))?;
                }
                writeln!(f, "  {}", self.value_text(value))?;
            }
        }
        let word = if self.what == NonFinite::Adjoint { "non-finite adjoints of inputs" } else { "non-finite outputs" };
        writeln!(f, "{word}: {}", self.reaches.join(", "))?;
        if let Some(inside) = &self.inside {
            writeln!(f, "inside of {}:", inside.place())?;
            inside.diagnosis.to_string().lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

impl DiagnosisInside {
    fn place(&self) -> String {
        match self.iterations {
            1 => self.function.clone(),
            iterations => format!("{}, iteration {} of {iterations}", self.function, self.iteration + 1),
        }
    }
}

/// The first iteration whose outputs, those that are `wanted` or carried, are not finite
/// because of a row of the body.
fn inside_values(function: &Function, operands: &Pass, wanted: impl Fn(usize) -> bool) -> Option<DiagnosisInside> {
    let rolled = function.as_loop()?;
    let mut carry = Pass::initial(rolled, operands);
    for iteration in 0..rolled.count {
        let Pass { x, dx } = Pass::of_body(rolled, iteration, operands, &carry);
        let (y, dy) = rolled.body.jvp(&x, &dx).ok()?;
        let concerned = |output: usize| match rolled.given(output, iteration) {
            Given::Carry(_) => true,
            Given::Result(result) => wanted(result),
        };
        let finite = |output: usize| y[output].is_finite() && dy[output].is_finite();
        if (0..y.len()).any(|output| concerned(output) && !finite(output)) {
            let found = rolled.body.diagnose(&x, &dx).ok()?;
            if let Some(diagnosis) = found.filter(|found| found.origin.part != Part::Input) {
                let (function, iterations) = (function.to_string(), rolled.count);
                return Some(DiagnosisInside { function, iteration, iterations, diagnosis });
            }
        }
        carry.take_carry(rolled, iteration, &y, &dy);
    }
    None
}

/// The last iteration through which the adjoint of an operand that is `wanted`, or of
/// the carry, becomes non-finite for finite weights.
fn inside_adjoints(
    function: &Function,
    x: &[f64],
    weights: &[f64],
    wanted: impl Fn(usize) -> bool,
) -> Option<DiagnosisInside> {
    /// The most numbers that are kept to look for an iteration.
    const MOST: usize = 1 << 27;
    let rolled = function.as_loop()?;
    if rolled.count.saturating_mul(rolled.body.num_inputs()) > MOST {
        return None;
    }
    let operands = Pass { x: x.to_vec(), dx: vec![0.0; x.len()] };
    let mut carry = Pass::initial(rolled, &operands);
    let mut before = Vec::new();
    for iteration in 0..rolled.count {
        let inputs = Pass::of_body(rolled, iteration, &operands, &carry);
        let y = rolled.body.eval(&inputs.x).ok()?;
        carry.take_carry(rolled, iteration, &y, &vec![0.0; y.len()]);
        before.push(inputs.x);
    }
    let mut adjoint = weights[..rolled.initial().len()].to_vec();
    for (iteration, x) in before.iter().enumerate().rev() {
        let weight = |output: usize| match rolled.given(output, iteration) {
            Given::Carry(place) => adjoint[place],
            Given::Result(result) => weights[result],
        };
        let w: Vec<f64> = (0..rolled.body.num_outputs()).map(weight).collect();
        let xbar = rolled.body.vjp(x, &w).ok()?.1;
        let concerned = |input: usize| match rolled.taken(input, iteration) {
            Taken::Carry(_) => true,
            Taken::Operand(operand) => wanted(operand),
        };
        if (0..xbar.len()).any(|input| concerned(input) && !xbar[input].is_finite()) {
            let diagnosis = rolled.body.diagnose_adjoint(x, &w).ok()??;
            let (function, iterations) = (function.to_string(), rolled.count);
            return Some(DiagnosisInside { function, iteration, iterations, diagnosis });
        }
        for (input, &xbar) in xbar.iter().enumerate() {
            if let Taken::Carry(place) = rolled.taken(input, iteration) {
                adjoint[place] = xbar;
            }
        }
    }
    None
}

/// The sweeps at a point, of which the first non-finite number is wanted.
struct Patient<'a> {
    tape: &'a Tape,
    what: NonFinite,
    values: &'a [f64],
    /// The tangents or the adjoints.
    derivatives: &'a [f64],
    /// The values that had a part in it.
    guilty: Vec<bool>,
}

impl Patient<'_> {
    fn data(&self) -> &TapeData {
        &self.tape.data
    }

    fn row(&self, index: usize) -> Option<RowAt<'_>> {
        index.checked_sub(self.data().first_row()).map(|row| RowAt::new(self.data(), self.values, row))
    }

    /// Finds the operands through which values and tangents became non-finite.
    fn blame_operands(&mut self) {
        for index in (self.data().first_row()..self.data().num_values()).rev() {
            if let Some((function, head, result)) = self.call(index) {
                // When the first result is reached it is known which of them are guilty.
                if result == 0 {
                    self.blame_operands_of_call(&function, head);
                }
                continue;
            }
            if !self.guilty[index] {
                continue;
            }
            let Some(row) = self.row(index) else { continue };
            let bad_value = |operand: u32| !self.values[operand as usize].is_finite();
            let bad_tangent =
                |operand: u32| self.data().active[operand as usize] && !self.derivatives[operand as usize].is_finite();
            let (own_value, own_tangent) = (bad_value(index as u32), bad_tangent(index as u32));
            let mut blamed: Vec<u32> = Vec::new();
            for (i, &operand) in row.operands.iter().enumerate() {
                let (value, tangent) = (bad_value(operand), bad_tangent(operand));
                // What enters with a partial of exactly 0 has no part in it, such
                // as the branch not taken of a select.
                if ((value && (own_value || own_tangent)) || (tangent && own_tangent)) && row.partial(i) != 0.0 {
                    blamed.push(operand);
                }
            }
            if own_value && !blamed.iter().any(|&operand| bad_value(operand)) {
                // The partial may be 0 where the value passes through, as in floor(inf).
                blamed.extend(row.operands.iter().filter(|&&operand| bad_value(operand)));
            }
            for operand in blamed {
                self.guilty[operand as usize] = true;
            }
        }
    }

    /// The function of a value that a call gave, the row of the call and which result it is.
    fn call(&self, index: usize) -> Option<(Function, usize, usize)> {
        let (head, result) = self.data().head(index.checked_sub(self.data().first_row())?);
        Some((self.data().function(head)?.clone(), head, result))
    }

    fn values_of(&self, operands: &[u32]) -> Vec<f64> {
        operands.iter().map(|&operand| self.values[operand as usize]).collect()
    }

    fn derivatives_of(&self, operands: &[u32]) -> Vec<f64> {
        operands.iter().map(|&operand| self.derivatives[operand as usize]).collect()
    }

    /// The operands that a result of a call has to do with.
    fn operands_of_result(&self, function: &Function, head: usize, result: usize) -> Vec<u32> {
        let operands = self.data().operands(head);
        let concerned = function.blocks().filter(|block| block.results.contains(&(result as u32)));
        let mut positions: Vec<u32> = concerned.flat_map(|block| block.operands).collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|position| operands[position as usize]).collect()
    }

    fn blame_operands_of_call(&mut self, function: &Function, head: usize) {
        let first = self.data().first_row() + head;
        let (m, operands) = (function.num_results(), self.data().operands(head).to_vec());
        let guilty = |j: usize| self.guilty[first + j];
        if !(0..m).any(guilty) {
            return;
        }
        let x = self.values_of(&operands);
        let bad_value = |value: usize| !self.values[value].is_finite();
        let bad_tangent = |value: usize| self.data().active[value] && !self.derivatives[value].is_finite();
        // By which operands any of these results changes: weights of different
        // sizes do not cancel.
        let changes = |concerned: &dyn Fn(usize) -> bool| {
            let weight = |j: usize| if concerned(j) { 1.0 + j as f64 / (7.0 * m as f64) } else { 0.0 };
            let weights: Vec<f64> = (0..m).map(weight).collect();
            function.pull_back(&x, &weights).unwrap_or_else(|_| vec![f64::NAN; x.len()])
        };
        let by_any = changes(&guilty);
        let by_tangents = changes(&|j| guilty(j) && bad_tangent(first + j));
        let mut blamed: Vec<u32> = Vec::new();
        for (i, &operand) in operands.iter().enumerate() {
            let value = bad_value(operand as usize) && by_any[i] != 0.0;
            if value || (bad_tangent(operand as usize) && by_tangents[i] != 0.0) {
                blamed.push(operand);
            }
        }
        let bad_results = (0..m).filter(|&j| guilty(j) && bad_value(first + j));
        if bad_results.clone().next().is_some() && !blamed.iter().any(|&operand| bad_value(operand as usize)) {
            // A partial may be 0 where the value passes through, unless a row inside is the origin.
            let point = Pass { dx: vec![0.0; x.len()], x };
            if inside_values(function, &point, guilty).is_none() {
                let bad_results: HashSet<u32> = bad_results.map(|j| j as u32).collect();
                for block in function.blocks() {
                    if block.results.iter().any(|j| bad_results.contains(j)) {
                        let of_block = block.operands.iter().map(|&position| operands[position as usize]);
                        blamed.extend(of_block.filter(|&operand| bad_value(operand as usize)));
                    }
                }
            }
        }
        for operand in blamed {
            self.guilty[operand as usize] = true;
        }
    }

    /// What a call adds to the adjoints of its operands, all of it and what finite adjoints add.
    fn contributions(&self, function: &Function, head: usize) -> [Vec<f64>; 2] {
        let first = self.data().first_row() + head;
        let x = self.values_of(self.data().operands(head));
        let weights = &self.derivatives[first..first + function.num_results()];
        let finite: Vec<f64> = weights.iter().map(|&w| if w.is_finite() { w } else { 0.0 }).collect();
        let add = |w: &[f64]| function.pull_back(&x, w).unwrap_or_else(|_| vec![f64::NAN; x.len()]);
        let of_finite = add(&finite);
        match finite.iter().zip(weights).all(|(a, b)| a == b) {
            true => [of_finite.clone(), of_finite],
            false => [add(weights), of_finite],
        }
    }

    fn blame_results_of_call(&mut self, function: &Function, head: usize) {
        let operands = self.data().operands(head).to_vec();
        if !operands.iter().any(|&operand| self.guilty[operand as usize]) {
            return;
        }
        let first = self.data().first_row() + head;
        let [all, of_finite] = self.contributions(function, head);
        let bad = |contributions: &[f64], i: usize| self.guilty[operands[i] as usize] && !contributions[i].is_finite();
        if (0..operands.len()).any(|i| bad(&of_finite, i)) {
            self.guilty[first] = true;
            return;
        }
        let mut guilty = Vec::new();
        for block in function.blocks() {
            if block.operands.iter().any(|&i| bad(&all, i as usize)) {
                let results = block.results.iter().map(|&j| first + j as usize);
                guilty.extend(results.filter(|&result| !self.derivatives[result].is_finite()));
            }
        }
        guilty.into_iter().for_each(|result| self.guilty[result] = true);
    }

    /// Finds the rows through which adjoints of inputs became non-finite.
    fn blame_readers(&mut self) {
        for index in self.data().first_row()..self.data().num_values() {
            if let Some((function, head, result)) = self.call(index) {
                if result == 0 {
                    self.blame_results_of_call(&function, head);
                }
                continue;
            }
            if self.data().active[index] && self.derivatives[index] != 0.0 {
                let Some(row) = self.row(index) else { continue };
                let guilty = row
                    .operands
                    .iter()
                    .enumerate()
                    .any(|(i, &operand)| self.guilty[operand as usize] && !self.term(&row, index, i).is_finite());
                self.guilty[index] = guilty;
            }
        }
    }

    /// What a row adds to the adjoint of its operand i.
    fn term(&self, row: &RowAt<'_>, index: usize, i: usize) -> f64 {
        Rule::chain_mul(row.partial(i), self.derivatives[index])
    }

    fn value_at(&self, index: usize) -> ValueAt {
        let data = self.data();
        let row = index.checked_sub(data.first_row());
        let (part, operation) = match row {
            Some(row) => (Part::Row, data.row_formula(row, &Formulas::new()).to_string()),
            None if index < data.first_input() => (Part::Constant, "constant".to_owned()),
            None if index < data.first_param() => (Part::Input, data.variable_name(index).to_string()),
            None => (Part::Parameter, "parameter".to_owned()),
        };
        ValueAt {
            part,
            name: data.value_name(index, Accent::None).to_string(),
            operation,
            value: self.values[index],
            derivative: data.active[index].then(|| self.derivatives[index]),
            location: row.and_then(|row| data.known_location(row)),
        }
    }

    /// The operand that a chain from the inputs comes through: the latest that
    /// depends on an input, else the latest that depends on a parameter.
    fn came_through(&self, index: usize) -> Option<usize> {
        let operands = match self.call(index) {
            Some((function, head, result)) => self.operands_of_result(&function, head, result),
            None => self.row(index)?.operands.to_vec(),
        };
        let active = |&&operand: &&u32| self.data().active[operand as usize];
        let variable = |&&operand: &&u32| operand as usize >= self.data().first_input();
        let latest = operands.iter().filter(active).max().or_else(|| operands.iter().filter(variable).max());
        latest.map(|&operand| operand as usize)
    }

    /// The operand that a non-finite adjoint goes on to.
    fn goes_on_to(&self, index: usize) -> Option<usize> {
        if let Some((function, head, _)) = self.call(index) {
            let [all, _] = self.contributions(&function, head);
            let mut operands = self.data().operands(head).iter().zip(all);
            let next = operands.find(|(operand, added)| self.guilty[**operand as usize] && !added.is_finite());
            return next.map(|(&operand, _)| operand as usize);
        }
        let row = self.row(index)?;
        let next = row
            .operands
            .iter()
            .enumerate()
            .find(|&(i, &operand)| self.guilty[operand as usize] && !self.term(&row, index, i).is_finite());
        next.map(|(_, &operand)| operand as usize)
    }

    fn diagnosis(&self, origin: usize, reaches: Vec<String>) -> Diagnosis {
        let adjoint = self.what == NonFinite::Adjoint;
        let step = |index: &usize| if adjoint { self.goes_on_to(*index) } else { self.came_through(*index) };
        let mut path: Vec<usize> = std::iter::successors(Some(origin), step).collect();
        if !adjoint {
            path.reverse();
        }
        let [first, last] = Diagnosis::PATH;
        let omitted = path.len().saturating_sub(first + last);
        if omitted > 0 {
            path.drain(first..first + omitted);
        }
        let operands = match (self.call(origin), self.row(origin)) {
            (Some((function, head, result)), _) => self.operands_of_result(&function, head, result),
            (None, row) => row.map_or(Vec::new(), |row| row.operands.to_vec()),
        };
        let shown = &operands[..operands.len().min(Diagnosis::OPERANDS)];
        let mut at = self.value_at(origin);
        if let (None, Some(&constant)) = (&at.location, self.data().constants.get(origin)) {
            let constants = self.tape.constants();
            let found = constants.iter().find(|other| other.value.to_bits() == constant.to_bits());
            at.location = found.and_then(|found| found.locations.first().cloned()).filter(SourceLocation::is_known);
        }
        let what = match at.value.is_finite() {
            false if !adjoint => NonFinite::Value,
            _ => self.what,
        };
        let inside = self.inside(origin);
        Diagnosis {
            what,
            why: match (&inside, self.call(origin)) {
                (Some(inside), _) => {
                    let found = inside.diagnosis.to_string();
                    format!("inside of {}: {}", inside.place(), found.lines().next().unwrap_or_default())
                }
                (None, Some((function, ..))) => why_call(&function, what, self.values[origin]),
                (None, None) => self.why(origin, what),
            },
            origin: at,
            operands: shown.iter().map(|&operand| self.value_at(operand as usize)).collect(),
            operands_omitted: operands.len() - shown.len(),
            path: path.into_iter().map(|index| self.value_at(index)).collect(),
            path_omitted: omitted,
            reaches,
            inside: inside.map(Box::new),
        }
    }

    /// What happens inside of the tape that a row calls.
    fn inside(&self, origin: usize) -> Option<DiagnosisInside> {
        let (function, head, result) = self.call(origin)?;
        let (operands, first) = (self.data().operands(head), self.data().first_row() + head);
        let x = self.values_of(operands);
        match self.what {
            NonFinite::Adjoint => {
                let weights = &self.derivatives[first..first + function.num_results()];
                let finite: Vec<f64> = weights.iter().map(|&w| if w.is_finite() { w } else { 0.0 }).collect();
                inside_adjoints(&function, &x, &finite, |i| self.guilty[operands[i] as usize])
            }
            _ => {
                let dx = self.derivatives_of(operands);
                inside_values(&function, &Pass { x, dx }, |other| other == result)
            }
        }
    }

    fn why(&self, origin: usize, what: NonFinite) -> String {
        let data = self.data();
        let Some(row) = self.row(origin) else {
            return match origin {
                _ if origin < data.first_input() => "this literal stands in the code".to_owned(),
                _ if origin >= data.first_param() => "the parameter has this value".to_owned(),
                _ if what == NonFinite::Value => "the input has this value".to_owned(),
                _ => "the contributions to it are finite; their sum overflows".to_owned(),
            };
        };
        if what == NonFinite::Value {
            return why_value(&row, data);
        }
        let name = |index: u32| data.operand_name(index);
        let own = data.value_name(origin, Accent::None);
        let derivative = self.derivatives[origin];
        for (i, &operand) in row.operands.iter().enumerate() {
            let (partial, concerned) = (
                row.partial(i),
                match what {
                    NonFinite::Adjoint => self.guilty[operand as usize] && derivative != 0.0,
                    _ => data.active[operand as usize] && self.derivatives[operand as usize] != 0.0,
                },
            );
            if concerned && !partial.is_finite() {
                return format!("∂{own}/∂{} is {} here{}", name(operand), exact(partial), table_says(row.op));
            }
        }
        match (what, derivative.is_finite()) {
            (NonFinite::Adjoint, true) => "the product of a partial and its adjoint overflows".to_owned(),
            (NonFinite::Adjoint, false) => {
                "the contributions to its adjoint are finite; their sum overflows".to_owned()
            }
            _ => "the partials are finite; their product with a tangent, or the sum, overflows".to_owned(),
        }
    }
}

/// Why a call has non-finite results where no row inside of it is to blame.
fn why_call(function: &Function, what: NonFinite, value: f64) -> String {
    let is_own = function.body().is_none();
    match what {
        NonFinite::Value if is_own || value.is_nan() => format!("{function} has no finite value at these operands"),
        NonFinite::Value => "the terms are finite; their sum overflows".to_owned(),
        NonFinite::Tangent => format!("the partials of {function} are not finite here, or the tangent overflows"),
        NonFinite::Adjoint => format!("the partials of {function} are not finite here, or the adjoint overflows"),
    }
}

/// What the table says of kinks, or else of the domain, of an operation.
fn table_says(op: Op) -> String {
    let info = op.info();
    match (info.kink, info.domain) {
        ("", domain) if domain.starts_with("all") && !domain.contains([';', '(']) => String::new(),
        ("", domain) => format!("; {op} is defined for {domain}"),
        (kink, _) => format!("; chosen for {op}: {kink}"),
    }
}

/// Why an operation has a non-finite value at operands that are not to blame.
fn why_value(row: &RowAt<'_>, data: &TapeData) -> String {
    let (op, domain) = (row.op, row.op.info().domain);
    let everywhere = domain.starts_with("all") && !domain.contains(';');
    if row.v[row.result].is_nan() {
        return match everywhere {
            true => format!("{op} has no value at these operands"),
            false => format!("{op} is defined for {domain}"),
        };
    }
    // At a pole the operation is finite beside it; where it overflows it is not.
    let nudge = |(&operand, &x): (&u32, &f64), sign: f64| match x {
        _ if (operand as usize) < data.first_input() => x,
        0.0 => sign * 1e-50,
        x => x * (1.0 + sign * 1e-9),
    };
    let beside = |sign: f64| {
        let nudged: Numbers = row.operands.iter().zip(&row.x).map(|pair| nudge(pair, sign)).collect();
        value(op, row.result, &nudged).is_finite()
    };
    match !everywhere && (beside(1.0) || beside(-1.0)) {
        true => format!("{op} is defined for {domain}"),
        false => "the result is too large for a number of 64 bits: it overflows".to_owned(),
    }
}

impl Tape {
    /// Where f(x) or J·p goes non-finite: the first row, in the order of the
    /// recording, that is NaN or infinite in value, or in tangent alone, and has a
    /// part in an output that is; its operands, its line, why, and the way there.
    /// None if all that [`Tape::jvp`] returns is finite.
    ///
    /// It follows the rules of the drivers: a NaN in a branch that a select does
    /// not take, or one that a factor of exactly 0 removes, is no finding. An
    /// input, a parameter or a literal that is itself NaN or infinite is one.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::jvp`]; so [`Error::BranchChanged`] if the recording does
    /// not hold at x, since none of its numbers mean anything there.
    ///
    /// ```
    /// use ad_core::{NonFinite, Tape};
    /// let tape = Tape::record(&[5.0], |x| (x[0] - 3.0).ln() * 2.0)?;
    /// assert_eq!(tape.diagnose(&[5.0], &[1.0])?, None);
    ///
    /// let found = tape.diagnose(&[2.0], &[1.0])?.expect("ln of a negative number");
    /// assert_eq!(found.what, NonFinite::Value);
    /// assert_eq!((found.origin.name.as_str(), found.origin.operation.as_str()), ("v₂", "ln(v₁)"));
    /// assert_eq!(found.operands[0].value, -1.0);
    /// assert_eq!(found.why, "ln is defined for x > 0; −inf at 0");
    /// println!("{found}");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn diagnose(&self, x: &[f64], p: &[f64]) -> Result<Option<Diagnosis>, Error> {
        let (y, dy) = self.jvp(x, p)?;
        if y.iter().chain(&dy).all(|number| number.is_finite()) {
            return Ok(None);
        }
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let replay::SweepMemory { tangents, gathered, .. } = &mut ws.sweep;
        replay::tangent_sweep::<true>(&self.data, &ws.values, p, 1, tangents, gathered)
            .map_err(|failure| self.of_function(failure))?;
        let mut patient = Patient {
            tape: self,
            what: NonFinite::Tangent,
            values: &ws.values,
            derivatives: tangents,
            guilty: vec![false; self.data.num_values()],
        };
        let bad: Vec<usize> = (0..y.len()).filter(|&i| !y[i].is_finite() || !dy[i].is_finite()).collect();
        for &i in &bad {
            patient.guilty[self.data.outputs[i] as usize] = true;
        }
        patient.blame_operands();
        let reaches = bad.iter().take(Diagnosis::REACHES).map(|&i| self.data.output_name(i).to_string()).collect();
        let origin = patient.guilty.iter().position(|&guilty| guilty);
        Ok(origin.map(|origin| patient.diagnosis(origin, reaches)))
    }

    /// Where f(x) or Jᵀ·w goes non-finite; for a gradient w is `[1.0]`. A value is
    /// reported as by [`Tape::diagnose`]. If the outputs are finite, the
    /// first row in the order of the reverse sweep that makes the adjoint of an
    /// input NaN or infinite. None if all that [`Tape::vjp`] returns is finite.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::vjp`].
    ///
    /// ```
    /// use ad_core::{NonFinite, Tape};
    /// let tape = Tape::record(&[4.0], |x| x[0].sqrt() + 1.0)?;
    /// let found = tape.diagnose_adjoint(&[0.0], &[1.0])?.expect("√ has the slope inf at 0");
    /// assert_eq!((found.what, found.origin.operation.as_str()), (NonFinite::Adjoint, "sqrt(v₀)"));
    /// assert_eq!(found.why, "∂v₁/∂v₀ is inf here; chosen for sqrt: inf at 0");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn diagnose_adjoint(&self, x: &[f64], w: &[f64]) -> Result<Option<Diagnosis>, Error> {
        let (y, xbar) = self.vjp(x, w)?;
        if y.iter().any(|y| !y.is_finite()) {
            return self.diagnose(x, &vec![0.0; self.num_inputs()]);
        }
        if xbar.iter().all(|number| number.is_finite()) {
            return Ok(None);
        }
        let mut ws = Workspace::new();
        self.reference(&mut ws, x)?;
        let replay::SweepMemory { adjoints, gathered, .. } = &mut ws.sweep;
        replay::reverse_sweep::<f64, true>(&self.data, &ws.values, w, adjoints, gathered)
            .map_err(|failure| self.of_function(failure))?;
        let mut patient = Patient {
            tape: self,
            what: NonFinite::Adjoint,
            values: &ws.values,
            derivatives: adjoints,
            guilty: vec![false; self.data.num_values()],
        };
        let first_input = self.data.first_input();
        let bad: Vec<usize> = (0..xbar.len()).filter(|&i| !xbar[i].is_finite()).collect();
        for &i in &bad {
            patient.guilty[first_input + i] = true;
        }
        patient.blame_readers();
        let name = |&i: &usize| self.data.variable_name(first_input + i).to_string();
        let reaches = bad.iter().take(Diagnosis::REACHES).map(name).collect();
        let origin = patient.guilty.iter().rposition(|&guilty| guilty);
        Ok(origin.map(|origin| patient.diagnosis(origin, reaches)))
    }
}
