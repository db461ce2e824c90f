//! Tape → tape with fewer rows: [`Tape::optimized`], and the list that
//! derivative tapes are written into.
//!
//! A [`List`] takes one row after the other. Before it appends one it looks
//! whether the row is needed at all: an expression of constants is a constant,
//! an identity of IEEE arithmetic may give an operand instead, and a row that
//! is there already is shared. Operands come before the rows that read them, so
//! one run over a tape finds whatever follows from what it found, and a second
//! run finds nothing. Rows that nothing reads are left out at the end.
//!
//! The identities are those that keep every bit of a value, and every tangent:
//! x·1, x/1, x − 0, x + (−0), −(−x) and their kin, stated in [`List::simpler`].
//! What would change a bit somewhere is not done: x + 0 (+0 at −0), 0·x (NaN at
//! ∞), x − x, x² for x·x (its tangent rounds otherwise where it is subnormal),
//! sums or products in another order. Taylor series alone, where no bits are
//! promised beyond the tangent, take x·(1/y) for x/y as well.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

use crate::formula::Name;
use crate::function::Function;
use crate::ops::Op;
use crate::record::{Escape, Guard, LIMIT, OperandName, number_of};
use crate::replay::shape;
use crate::tape::{Row, Tape, TapeData};

/// A tape with fewer rows and what was done to it; from [`Tape::optimized`].
///
/// It derefs to its tape, so that every driver can be called on it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Optimized {
    /// The tape.
    pub tape: Tape,
    /// What became of the rows.
    pub report: OptimizationReport,
}

impl Deref for Optimized {
    type Target = Tape;

    fn deref(&self) -> &Tape {
        &self.tape
    }
}

/// What [`Tape::optimized`] did, in rows as [`Tape::len`] counts them:
/// `before − folded − simplified − shared − dead = after`.
///
/// `Display` prints it in one line.
///
/// ```
/// use ad_core::Tape;
/// let tape = Tape::record(&[1.0, 2.0], |x| x[0].sin() * x[1] + x[0].sin() / 1.0)?;
/// let report = tape.optimized().report;
/// assert_eq!((report.before, report.simplified, report.shared, report.after), (7, 1, 1, 5));
/// assert_eq!(report.to_string(), "7 rows, 5 left: 0 folded, 1 simplified, 1 shared, 0 dead");
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OptimizationReport {
    /// The rows of the original.
    pub before: usize,
    /// Rows of constants alone: they are constants now.
    pub folded: usize,
    /// Rows that an identity replaced by an operand or a constant, such as x·1 by x.
    pub simplified: usize,
    /// Rows that computed what a row above them computes.
    pub shared: usize,
    /// Rows that no output, guard or escape needs.
    pub dead: usize,
    /// The rows left.
    pub after: usize,
}

impl fmt::Display for OptimizationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OptimizationReport { before, folded, simplified, shared, dead, after } = self;
        write!(f, "{before} rows, {after} left: {folded} folded, {simplified} simplified, {shared} shared, {dead} dead")
    }
}

impl Tape {
    /// The same function in fewer rows: constants folded, common
    /// subexpressions computed once, identities such as x·1 = x applied, rows
    /// that nothing needs left out.
    ///
    /// Values and tangents keep their bits (±0 of a tangent may differ).
    /// Adjoints may differ in the last bits: a value that is shared collects in
    /// one sum what was collected in two. Guards, escapes, names, parameters,
    /// outputs and the source locations of the rows stay; a shared row has the
    /// location of the first. A second run changes nothing.
    ///
    /// The replay drivers run only what a result needs, so nothing has to be
    /// optimised to be fast. It pays where a function computes the same thing
    /// several times, and for what a reader is shown.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[1.0, 2.0], |x| {
    ///     let unused = x[0].exp();
    ///     let r = (x[0] * x[0] + x[1] * x[1]).sqrt();
    ///     x[0] / (x[0] * x[0] + x[1] * x[1]).sqrt() + r * 1.0
    /// })?;
    /// let optimized = tape.optimized();
    /// assert_eq!(optimized.eval(&[3.0, 4.0])?, tape.eval(&[3.0, 4.0])?);
    /// assert_eq!(optimized.to_string(), "\
    /// v₋₁ = x₁
    /// v₀ = x₂
    /// v₁ = v₋₁·v₋₁
    /// v₂ = v₀·v₀
    /// v₃ = v₁ + v₂
    /// v₄ = sqrt(v₃)
    /// v₅ = v₋₁/v₄
    /// v₆ = v₅ + v₄
    /// y = v₆
    /// ");
    /// assert_eq!((optimized.report.before, optimized.report.after), (14, 8));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[must_use]
    pub fn optimized(&self) -> Optimized {
        let data = &*self.data;
        let mut list = List::new(data.num_inputs + data.num_params);
        let values = list.copy(data, data.num_inputs, Identities::Apply);
        let mut report = list.report;
        report.before = self.len();
        if list.overflows() {
            // More constants than an index can name: the tape stays as it is.
            let report = OptimizationReport { before: self.len(), after: self.len(), ..OptimizationReport::default() };
            return Optimized { tape: self.clone(), report };
        }
        let ends = Ends {
            outputs: data.outputs.iter().map(|&output| values[output as usize]).collect(),
            output_letter: data.output_letter,
            num_inputs: data.num_inputs,
            input_names: data.input_names.clone(),
        };
        let tape = Tape::new(list.finish(data, &values, ends), self.params.to_vec());
        report.after = tape.len();
        report.dead = report.before - report.folded - report.simplified - report.shared - report.after;
        Optimized { tape, report }
    }
}

/// Whether identities are applied to the rows that a [`List`] is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identities {
    Apply,
    /// Those, and a quotient becomes a product with a reciprocal, which rounds
    /// otherwise: then its derivatives of every order are products of the two.
    Reciprocals,
    /// Rows keep their operations; they are shared all the same.
    Leave,
}

/// The operands of a row, and its results.
pub(crate) type Operands = SmallVec<[u32; 4]>;
pub(crate) type Results = SmallVec<[u32; 2]>;

/// Marks an operand that is the number of a constant.
const CONSTANT_BIT: u32 = 1 << 31;

struct Entry {
    op: Op,
    location: u32,
    /// Where its operands begin, and how many there are.
    start: u32,
    count: u32,
}

/// The hash of a row, which spares a look at most of those that are not meant,
/// and its number + 1; 0 and 0 where there is none.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    hash: u32,
    row: u32,
}

/// What a row amounts to.
enum Simpler {
    Operand(u32),
    Row(Op, Operands),
}

/// What a finished list is besides its rows.
pub(crate) struct Ends {
    pub outputs: Vec<u32>,
    pub output_letter: &'static str,
    pub num_inputs: usize,
    pub input_names: Vec<Name>,
}

/// A Wengert list under construction, in which no row stands twice.
///
/// An operand is the number of a variable (inputs, then parameters) or of a
/// row, which are numbered on from there, or [`CONSTANT_BIT`] and the number of
/// a constant.
pub(crate) struct List {
    num_variables: u32,
    rows: Vec<Entry>,
    operands: Vec<u32>,
    /// The functions that rows call; the number of a call's one stands before its operands.
    functions: Vec<Function>,
    constants: Vec<f64>,
    /// The number of each constant, by its bits.
    constant_numbers: HashMap<u64, u32>,
    /// The places of the rows, where their hashes say or after that.
    places: Vec<Place>,
    used: usize,
    overflow: bool,
    report: OptimizationReport,
}

impl List {
    pub fn new(num_variables: usize) -> List {
        List {
            num_variables: num_variables as u32,
            rows: Vec::new(),
            operands: Vec::new(),
            functions: Vec::new(),
            constants: Vec::new(),
            constant_numbers: HashMap::new(),
            places: vec![Place::default(); 64],
            used: 0,
            overflow: false,
            report: OptimizationReport::default(),
        }
    }

    /// The operand for a constant.
    pub fn constant(&mut self, c: f64) -> u32 {
        let List { constant_numbers, constants, .. } = self;
        let number = *constant_numbers.entry(c.to_bits()).or_insert_with(|| {
            constants.push(c);
            constants.len() as u32 - 1
        });
        number | CONSTANT_BIT
    }

    /// The constant that an operand is.
    pub fn number(&self, operand: u32) -> Option<f64> {
        (operand & CONSTANT_BIT != 0).then(|| self.constants[(operand & !CONSTANT_BIT) as usize])
    }

    /// Whether there was no room for a row: what was given since then is wrong.
    pub fn overflows(&self) -> bool {
        self.overflow
    }

    /// The operand x if this one is −x.
    pub fn negated(&self, operand: u32) -> Option<u32> {
        let row = operand.checked_sub(self.num_variables)?;
        let row = self.rows.get(row as usize).filter(|row| row.op == Op::Neg)?;
        Some(self.operands[row.start as usize])
    }

    /// How many rows there are, one for each result.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row that computes an operand, and which of its results that is; none
    /// for a variable or a constant.
    pub fn row_of(&self, operand: u32) -> Option<(usize, usize)> {
        let row = operand.checked_sub(self.num_variables).filter(|_| operand & CONSTANT_BIT == 0)? as usize;
        let further = self.rows[..=row].iter().rev().take_while(|row| row.op == Op::FurtherResult).count();
        Some((row - further, further))
    }

    /// What a row does, to which operands, and the operands that its results are.
    pub fn row(&self, row: usize) -> (Op, &[u32], Results) {
        let (op, operands) = (self.rows[row].op, self.operands(row));
        (op, operands, self.results(row as u32, shape(op, operands.len()).1))
    }

    /// Takes over the rows of a tape, whose parameters come after `num_inputs`
    /// inputs here; gives the operand for each of its values.
    pub fn copy(&mut self, data: &TapeData, num_inputs: usize, identities: Identities) -> Vec<u32> {
        let mut values = Vec::with_capacity(data.num_values());
        if data.num_rows() > self.places.len() / 2 {
            self.make_places(data.num_rows());
        }
        for &c in &data.constants {
            values.push(self.constant(c));
        }
        values.extend(0..data.num_inputs as u32);
        values.extend(num_inputs as u32..(num_inputs + data.num_params) as u32);
        for row in (0..data.num_rows()).filter(|&row| data.op(row) != Op::FurtherResult) {
            let operands: Operands = data.operands(row).iter().map(|&operand| values[operand as usize]).collect();
            if let Some(function) = data.function(row) {
                values.extend(self.push_call(function, &operands, data.rows[row].location()));
                continue;
            }
            values.extend(self.push(data.op(row), operands, data.rows[row].location(), identities));
        }
        values
    }

    /// The results of a row, which is appended if it has to be.
    pub fn push(&mut self, op: Op, operands: Operands, location: u32, identities: Identities) -> Results {
        let (mut op, mut operands) = (op, operands);
        loop {
            let numbers: SmallVec<[f64; 4]> = operands.iter().map_while(|&operand| self.number(operand)).collect();
            if numbers.len() == operands.len() {
                let results: Results = op.results(&numbers).into_iter().map(|c| self.constant(c)).collect();
                self.report.folded += results.len();
                return results;
            }
            let simpler = match identities {
                Identities::Leave => None,
                Identities::Apply => self.simpler(op, &operands),
                Identities::Reciprocals => {
                    self.simpler(op, &operands).or_else(|| self.by_reciprocal(op, &operands, location))
                }
            };
            match simpler {
                Some(Simpler::Operand(operand)) => {
                    self.report.simplified += 1;
                    return Results::from_slice(&[operand]);
                }
                // A row that no identity leads back to: this ends.
                Some(Simpler::Row(simpler, of)) => (op, operands) = (simpler, of),
                None => return self.share(op, &operands, location),
            }
        }
    }

    /// The results of a row that calls a function, which is appended if it is not there.
    pub fn push_call(&mut self, function: &Function, operands: &[u32], location: u32) -> Results {
        let mut row = Operands::with_capacity(operands.len() + 1);
        row.push(number_of(&mut self.functions, function));
        row.extend_from_slice(operands);
        self.share(Op::Call, &row, location)
    }

    /// What is equal to a row to the last bit, value and tangent, by an identity
    /// of IEEE arithmetic, and is less work or gives more rows to share.
    fn simpler(&mut self, op: Op, x: &[u32]) -> Option<Simpler> {
        let row = |op, x: &[u32]| Some(Simpler::Row(op, Operands::from_slice(x)));
        let operand = |x| Some(Simpler::Operand(x));
        let (a, b) = match *x {
            [a] if op == Op::Neg => return self.negated(a).and_then(operand),
            [a, b] => (a, b),
            _ => return None,
        };
        let is = |x: Option<f64>, c: f64| x.is_some_and(|x| x.to_bits() == c.to_bits());
        let (left, right) = (self.number(a), self.number(b));
        match op {
            Op::Mul if is(left, 1.0) => operand(b),
            Op::Mul | Op::Div | Op::Powi | Op::Powf if is(right, 1.0) => operand(a),
            Op::Mul if is(left, -1.0) => row(Op::Neg, &[b]),
            Op::Mul | Op::Div if is(right, -1.0) => row(Op::Neg, &[a]),
            // x⁰ is 1 even for NaN.
            Op::Powi | Op::Powf if right == Some(0.0) => operand(self.constant(1.0)),
            Op::Div => {
                let reciprocal = right.and_then(exact_reciprocal)?;
                row(Op::Mul, &[a, self.constant(reciprocal)])
            }
            Op::Add if is(left, -0.0) => operand(b),
            Op::Add if is(right, -0.0) => operand(a),
            Op::Sub if is(right, 0.0) => operand(a),
            Op::Sub if is(left, -0.0) => row(Op::Neg, &[b]),
            Op::Add => match (self.negated(a), self.negated(b)) {
                (_, Some(b)) => row(Op::Sub, &[a, b]),
                (Some(a), _) => row(Op::Sub, &[b, a]),
                _ => None,
            },
            Op::Sub => self.negated(b).and_then(|b| row(Op::Add, &[a, b])),
            // With a factor that is neither 0 nor infinite there is nothing that the chain rule treats apart.
            Op::ChainMul if is_ordinary(left) || is_ordinary(right) => row(Op::Mul, x),
            Op::ChainDiv if is_ordinary(right) => row(Op::Div, x),
            _ => None,
        }
    }

    /// A quotient as a product with the reciprocal.
    fn by_reciprocal(&mut self, op: Op, x: &[u32], location: u32) -> Option<Simpler> {
        let product = match op {
            Op::Div => Op::Mul,
            Op::ChainDiv => Op::ChainMul,
            _ => return None,
        };
        let reciprocal = self.push(Op::Recip, Operands::from_slice(&x[1..]), location, Identities::Reciprocals);
        Some(Simpler::Row(product, Operands::from_slice(&[x[0], reciprocal[0]])))
    }

    /// The results of a row that is there already, or else is appended.
    fn share(&mut self, op: Op, operands: &[u32], location: u32) -> Results {
        let results = match op {
            Op::Call => self.functions[operands[0] as usize].num_results(),
            op => shape(op, operands.len()).1,
        };
        let mask = self.places.len() - 1;
        let hash = hash(op, operands);
        let mut at = hash as usize & mask;
        while self.places[at].row != 0 {
            let place = self.places[at];
            if place.hash == hash && self.is(place.row - 1, op, operands) {
                self.report.shared += results;
                return self.results(place.row - 1, results);
            }
            at = (at + 1) & mask;
        }
        let row = self.rows.len() as u32;
        let room = |taken: usize, more: usize| taken + more <= LIMIT;
        let values = self.num_variables as usize + self.constants.len() + self.rows.len();
        if !room(values, results) || !room(self.operands.len(), operands.len()) {
            self.overflow = true;
            return (0..results).map(|_| 0).collect();
        }
        self.places[at] = Place { hash, row: row + 1 };
        let start = self.operands.len() as u32;
        self.operands.extend_from_slice(operands);
        self.rows.push(Entry { op, location, start, count: operands.len() as u32 });
        let further = Entry { op: Op::FurtherResult, location, start, count: 0 };
        self.rows.extend((1..results).map(|_| Entry { ..further }));
        self.used += 1;
        if self.used > self.places.len() / 2 {
            self.make_places(0);
        }
        self.results(row, results)
    }

    fn results(&self, row: u32, results: usize) -> Results {
        (0..results as u32).map(|result| self.num_variables + row + result).collect()
    }

    fn operands(&self, row: usize) -> &[u32] {
        let number_of_function = usize::from(self.rows[row].op == Op::Call);
        &self.numbers(row)[number_of_function..]
    }

    /// The function that a row calls.
    fn function(&self, row: usize) -> Option<&Function> {
        (self.rows[row].op == Op::Call).then(|| &self.functions[self.numbers(row)[0] as usize])
    }

    /// What identifies a row besides its operation: the operands, and before them
    /// the number of the function that it calls.
    fn numbers(&self, row: usize) -> &[u32] {
        let Entry { start, count, .. } = self.rows[row];
        &self.operands[start as usize..(start + count) as usize]
    }

    /// Whether a row computes this.
    fn is(&self, row: u32, op: Op, x: &[u32]) -> bool {
        let row = row as usize;
        self.rows[row].op == op
            && match (self.numbers(row), x) {
                (&[a, b], &[c, d]) if commutes(op) => (a, b) == (c, d) || (a, b) == (d, c),
                (operands, x) => operands == x,
            }
    }

    /// Makes places for twice as many rows as now, or for `rows`.
    fn make_places(&mut self, rows: usize) {
        let count = (2 * self.places.len()).max(2 * rows.next_power_of_two());
        let full = std::mem::replace(&mut self.places, vec![Place::default(); count]);
        let mask = count - 1;
        for place in full.into_iter().filter(|place| place.row != 0) {
            let mut at = place.hash as usize & mask;
            while self.places[at].row != 0 {
                at = (at + 1) & mask;
            }
            self.places[at] = place;
        }
    }

    /// The rows that the outputs, and the guards and escapes of the tape `from`,
    /// need, as a list of their own; `values` are the operands for the values of
    /// that tape, and its locations are those that the rows name.
    pub fn finish(self, from: &TapeData, values: &[u32], ends: Ends) -> TapeData {
        let live = self.live(from, values, &ends.outputs);
        // The numbers of constants and rows that are left.
        let mut constants = vec![u32::MAX; self.constants.len()];
        let mut data = TapeData {
            free_letter: Default::default(),
            num_inputs: ends.num_inputs,
            num_params: from.num_params,
            constants: Vec::new(),
            rows: Vec::with_capacity(live.iter().filter(|&&live| live).count()),
            wide: Vec::new(),
            outputs: Vec::new(),
            output_letter: ends.output_letter,
            input_names: ends.input_names,
            param_names: from.param_names.clone(),
            functions: Vec::new(),
            calls: Vec::new(),
            guards: Vec::new(),
            escapes: Vec::new(),
            locations: from.locations.clone(),
            active: Vec::new(),
            spans: Vec::new(),
            param_rows: Vec::new(),
        };
        let mut number = |operand: u32| {
            if let Some(c) = self.number(operand) {
                let number = &mut constants[(operand & !CONSTANT_BIT) as usize];
                if *number == u32::MAX {
                    *number = data.constants.len() as u32;
                    data.constants.push(c);
                }
            }
        };
        let end_values =
            || from.guards.iter().flat_map(|guard| guard.operands).chain(from.escapes.iter().map(|e| e.operand));
        (0..self.rows.len()).filter(|&row| live[row]).flat_map(|row| self.operands(row)).for_each(|&x| number(x));
        ends.outputs.iter().copied().chain(end_values().map(|value| values[value as usize])).for_each(number);

        let shift = data.constants.len() as u32;
        let mut rows = Vec::with_capacity(self.rows.len());
        let index = |rows: &[u32], operand: u32| match operand.checked_sub(self.num_variables) {
            _ if operand & CONSTANT_BIT != 0 => constants[(operand & !CONSTANT_BIT) as usize],
            None => operand + shift,
            Some(row) => rows[row as usize],
        };
        for (row, &live) in live.iter().enumerate() {
            rows.push(shift + self.num_variables + data.rows.len() as u32);
            if !live {
                continue;
            }
            let Entry { op, location, .. } = self.rows[row];
            if let Some(function) = self.function(row) {
                data.wide.push(number_of(&mut data.functions, function));
            }
            let mut operands = self.operands(row).iter().map(|&operand| index(&rows, operand));
            let count = operands.len() as u32;
            data.rows.push(match count {
                0..=2 if op != Op::Call => {
                    let mut next = || operands.next().unwrap_or(0);
                    Row::new(op, location, count as usize, [next(), next()])
                }
                _ => {
                    let start = data.wide.len() as u32;
                    data.wide.extend(operands);
                    Row::wide(op, location, start, count)
                }
            });
        }
        data.outputs = ends.outputs.iter().map(|&output| index(&rows, output)).collect();
        let place = |value: u32| index(&rows, values[value as usize]);
        data.guards = from.guards.iter().map(|guard| self.guard(&data, guard, guard.operands.map(place))).collect();
        data.escapes = from
            .escapes
            .iter()
            .map(|escape| {
                let operand = place(escape.operand);
                Escape { operand, name: OperandName::Own(data.given_name(operand)), ..escape.clone() }
            })
            .collect();
        data.find_activity();
        data
    }

    fn guard(&self, data: &TapeData, guard: &Guard, operands: [u32; 2]) -> Guard {
        let names = operands.map(|operand| OperandName::Own(data.given_name(operand)));
        Guard { operands, names, ..guard.clone() }
    }

    /// For each row whether something needs it; all results of a row live together.
    fn live(&self, from: &TapeData, values: &[u32], outputs: &[u32]) -> Vec<bool> {
        let mut live = vec![false; self.rows.len()];
        let mark = |live: &mut [bool], operand: u32| {
            let row = operand.checked_sub(self.num_variables);
            if let Some(live) = row.and_then(|row| live.get_mut(row as usize)) {
                *live = true;
            }
        };
        let guards = from.guards.iter().flat_map(|guard| guard.operands);
        let escapes = from.escapes.iter().map(|escape| escape.operand);
        let ends = guards.chain(escapes).map(|value| values[value as usize]);
        outputs.iter().copied().chain(ends).for_each(|operand| mark(&mut live, operand));
        for row in (0..live.len()).rev() {
            // A guard in a function is one of the tape.
            live[row] |= self.function(row).is_some_and(Function::is_guarded);
            if !live[row] {
                continue;
            }
            match self.rows[row].op {
                Op::FurtherResult => live[row - 1] = true,
                _ => self.operands(row).iter().for_each(|&operand| mark(&mut live, operand)),
            }
        }
        for row in 1..live.len() {
            if self.rows[row].op == Op::FurtherResult {
                live[row] = live[row - 1];
            }
        }
        live
    }
}

/// Whether x ⋄ y and y ⋄ x have the same bits, and the same tangents.
fn commutes(op: Op) -> bool {
    matches!(op, Op::Add | Op::Mul | Op::ChainMul)
}

/// Whether it is a number that is finite and not 0.
fn is_ordinary(c: Option<f64>) -> bool {
    c.is_some_and(|c| c.is_finite() && c != 0.0)
}

/// 1/c if that is exact and both are normal: then x/c and x·(1/c) round alike.
fn exact_reciprocal(c: f64) -> Option<f64> {
    const MANTISSA: u64 = (1 << 52) - 1;
    let is_power_of_two = c.is_normal() && c.to_bits() & MANTISSA == 0;
    (is_power_of_two && c.recip().is_normal()).then(|| c.recip())
}

/// The same on every machine, and for both orders of two operands that commute.
fn hash(op: Op, x: &[u32]) -> u32 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |hash: u64, number: u32| (hash.rotate_left(23) ^ u64::from(number)).wrapping_mul(FACTOR);
    let hash = match *x {
        [a, b] if commutes(op) => mix(mix(op as u64, a.min(b)), a.max(b)),
        _ => x.iter().fold(op as u64, |hash, &number| mix(hash, number)),
    };
    (hash >> 32) as u32
}
