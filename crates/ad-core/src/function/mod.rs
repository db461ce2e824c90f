//! Functions that a tape calls as one row: a recorded tape once, over many
//! arguments or along a recurrence ([`Loop`]), a user's own operation
//! ([`Custom`]), the solution of equations ([`Implicit`]).
//!
//! A function does two things, each with k tangents for every number:
//!
//! - *values*: y = F(x), and ẏ = J·ẋ in each of the k directions;
//! - *adjoints*: x̄ = Jᵀ·w, and with tangents of x and w the tangents of x̄,
//!   which is second order.
//!
//! And it has a *tangent function* TF(x, ẋ) = (F(x), J·ẋ), which is a function
//! again. With that the family is closed under differentiation: Jᵀ·w is
//! [`Kind::Adjoint`], whose values are the adjoints of F and whose tangent is
//! the adjoint of TF, since d/dε F′(x + εẋ)ᵀ(w + εẇ) is what the adjoint of TF
//! gives for the weights ẇ on F(x) and w on J·ẋ. So derivative tapes of any
//! order call functions as their originals do.
//!
//! Along Taylor series it does the same two things, with series in place of
//! numbers with tangents (`series.rs`).
//!
//! Functions follow the strict rule of the sweeps (0·∞ is 0): a body by its
//! drivers, the others in their own products.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use crate::error::Error;
use crate::formula::{Accent, CallName, DIGITS, Name, Script};
use crate::record::{LIMIT, SourceLocation};
use crate::replay::{Block, SimdLevel, Workspace};
use crate::rule::Rule;
use crate::tape::Tape;

mod custom;
mod implicit;
mod rolled;
mod series;
mod stored;
mod structure;
mod unplaced;

pub use custom::{Custom, CustomOp, CustomProducts, RuleCheck};
pub use implicit::Implicit;
pub(crate) use rolled::{Column, Given, Loop, Source, Taken, Target};
pub(crate) use series::{Series, SeriesMemory, SeriesVec};
pub(crate) use stored::Stored;
pub(crate) use unplaced::Unplaced;

/// Functions called inside of functions, no deeper than this.
pub(crate) const DEEPEST: usize = 64;

/// Derivatives of derivatives of functions, one inside of the other, that a file
/// may hold. Each doubles the work at least, so that nobody evaluates as many.
pub(crate) const MOST_DERIVED: usize = 32;

/// Numbers, and k tangents of each: those of the first number, of the second, …
#[derive(Clone, Copy)]
pub(crate) struct Numbers<'a> {
    pub v: &'a [f64],
    pub t: &'a [f64],
}

/// Numbers to be written, and k tangents of each.
pub(crate) struct NumbersMut<'a> {
    pub v: &'a mut [f64],
    pub t: &'a mut [f64],
}

/// Memory for numbers with tangents.
#[derive(Debug, Clone, Default)]
pub(crate) struct NumberVec {
    v: Vec<f64>,
    t: Vec<f64>,
    k: usize,
}

impl NumberVec {
    /// So many zeros with k tangents each.
    pub fn reset(&mut self, len: usize, k: usize) {
        self.v.clear();
        self.v.resize(len, 0.0);
        self.t.clear();
        self.t.resize(len * k, 0.0);
        self.k = k;
    }

    /// [`NumberVec::reset`] to a size that may be too large for the memory.
    pub fn try_reset(&mut self, len: usize, k: usize) -> Result<(), Error> {
        let tangents = len.checked_mul(k);
        let room = |list: &mut Vec<f64>, len: usize| {
            list.clear();
            list.try_reserve(len).is_ok()
        };
        if tangents.is_none_or(|tangents| !room(&mut self.v, len) || !room(&mut self.t, tangents)) {
            return Err(Error::TooManyStates { numbers: len.saturating_mul(1 + k) });
        }
        self.reset(len, k);
        Ok(())
    }

    /// So many numbers with k tangents each, to be written before they are read.
    pub fn reserve(&mut self, len: usize, k: usize) {
        self.v.resize(len, 0.0);
        self.t.resize(len * k, 0.0);
        self.k = k;
    }

    pub fn view(&self) -> Numbers<'_> {
        Numbers { v: &self.v, t: &self.t }
    }

    pub fn view_mut(&mut self) -> NumbersMut<'_> {
        NumbersMut { v: &mut self.v, t: &mut self.t }
    }

    /// Number i and its tangents.
    pub fn get(&self, i: usize) -> (f64, &[f64]) {
        (self.v[i], &self.t[i * self.k..(i + 1) * self.k])
    }

    pub fn set(&mut self, i: usize, (v, t): (f64, &[f64])) {
        self.v[i] = v;
        self.t[i * self.k..(i + 1) * self.k].copy_from_slice(t);
    }

    pub fn add(&mut self, i: usize, number: (f64, &[f64])) {
        self.view_mut().add(i, number);
    }

    /// Whether numbers and tangents are all 0.
    pub fn is_zero(&self) -> bool {
        self.v.iter().chain(&self.t).all(|&number| number == 0.0)
    }
}

impl<'a> Numbers<'a> {
    /// Number i and its tangents, of which there are k.
    pub fn get(self, i: usize, k: usize) -> (f64, &'a [f64]) {
        (self.v[i], &self.t[i * k..(i + 1) * k])
    }

    pub fn part(self, range: Range<usize>, k: usize) -> Numbers<'a> {
        Numbers { v: &self.v[range.clone()], t: &self.t[range.start * k..range.end * k] }
    }
}

impl NumbersMut<'_> {
    pub fn reborrow(&mut self) -> NumbersMut<'_> {
        NumbersMut { v: self.v, t: self.t }
    }

    pub fn set(&mut self, i: usize, (v, t): (f64, &[f64])) {
        self.v[i] = v;
        self.t[i * t.len()..(i + 1) * t.len()].copy_from_slice(t);
    }

    pub fn add(&mut self, i: usize, (v, t): (f64, &[f64])) {
        self.v[i] += v;
        for (sum, t) in self.t[i * t.len()..].iter_mut().zip(t) {
            *sum += t;
        }
    }
}

/// What functions work in: the workspace of their bodies, and buffers.
#[derive(Clone, Default)]
pub(crate) struct FunctionMemory {
    body: Option<Box<Workspace>>,
    /// The vector instructions and lanes that were asked for.
    pub level: Option<SimdLevel>,
    pub lanes: Option<usize>,
    x: NumberVec,
    y: NumberVec,
    w: NumberVec,
    xbar: NumberVec,
    carry: NumberVec,
    checkpoints: NumberVec,
    segment: NumberVec,
    /// What is lent, the next on top.
    spare: Vec<NumberVec>,
    spare_lus: Vec<implicit::Lu>,
    /// The values of iterations in lanes.
    lanes_of_body: Vec<Block>,
    /// Those that wait for the adjoints of a call, by the number of the call.
    kept: Vec<Vec<Block>>,
    /// The number of the call whose adjoints will be wanted, or are.
    pub call: Option<usize>,
    /// Whether bodies follow the strict rule from the start: those that a strict
    /// sweep calls. Were each level of nested functions swept by the plain rule
    /// before, a NaN would double the work with each of them.
    strict: bool,
}

impl FunctionMemory {
    /// Memory for the values of iterations, so many blocks: those of this call, if
    /// its adjoints will be wanted, or are.
    fn take_lanes(&mut self, blocks: usize) -> Vec<Block> {
        let mut lanes = match self.call {
            Some(call) => {
                if self.kept.len() <= call {
                    self.kept.resize_with(call + 1, Vec::new);
                }
                std::mem::take(&mut self.kept[call])
            }
            None => std::mem::take(&mut self.lanes_of_body),
        };
        if lanes.len() < blocks {
            lanes.resize(blocks, Block::from(0.0));
        }
        lanes
    }

    /// Puts back what [`FunctionMemory::take_lanes`] gave.
    fn put_lanes(&mut self, lanes: Vec<Block>) {
        match self.call {
            Some(call) => self.kept[call] = lanes,
            None => self.lanes_of_body = lanes,
        }
    }

    /// Lends buffers for the time of `work`, which may borrow others. They are
    /// given back in reverse order: so a sweep that is repeated finds each where
    /// it was, and as large as it needs it.
    fn borrow<const N: usize, R>(&mut self, work: impl FnOnce(&mut Self, [&mut NumberVec; N]) -> R) -> R {
        let mut buffers: [NumberVec; N] = std::array::from_fn(|_| self.spare.pop().unwrap_or_default());
        let result = work(self, buffers.each_mut());
        self.spare.extend(buffers.into_iter().rev());
        result
    }

    /// The workspace for a body.
    fn body(&mut self) -> &mut Workspace {
        let body = self.body.get_or_insert_default();
        body.use_lanes(self.level, self.lanes);
        body.strict = self.strict;
        body
    }

    /// The memory for functions that a sweep by the plain or the strict rule calls.
    pub fn of_sweep(strict: bool) -> FunctionMemory {
        FunctionMemory { strict, ..FunctionMemory::default() }
    }
}

/// A function that a tape calls as one row; see [`Tape::functions`].
///
/// Cheap to clone. Equal functions are the same one.
#[derive(Clone)]
pub struct Function(Arc<Data>);

struct Data {
    name: Option<Arc<str>>,
    kind: Kind,
    num_operands: usize,
    num_results: usize,
    depth: usize,
    /// How many derivatives stand one inside of the other.
    derived: usize,
    guarded: bool,
    tangent: OnceLock<Result<Tangent, Error>>,
    /// Jᵀ·w of the body as a tape, for series of adjoints.
    adjoint_body: OnceLock<Result<Tape, Error>>,
}

enum Kind {
    Loop(Loop),
    Custom(Custom),
    Implicit(implicit::System),
    /// (x, w) ↦ Jᵀ·w.
    Adjoint(Function),
    /// Another function with operands and results in other places.
    Rearranged(Rearranged),
}

/// TF, whose operands are x and then ẋ.
#[derive(Clone)]
pub(crate) struct Tangent {
    pub function: Function,
    /// Which result is each value of F.
    pub values: Vec<u32>,
    /// Which result is the tangent of each value.
    pub tangents: Vec<u32>,
}

/// A function with operands and results in other places.
pub(crate) struct Rearranged {
    of: Function,
    /// Which operand here each of the function's is; none for 0.
    operands: Vec<Option<u32>>,
    /// Which of the function's results each one here is.
    results: Vec<u32>,
}

impl Function {
    fn new(name: Option<Arc<str>>, kind: Kind, num_operands: usize, num_results: usize) -> Function {
        let (body, inner) = match &kind {
            Kind::Loop(rolled) => (Some(&rolled.body), rolled.body.functions()),
            Kind::Custom(_) => (None, &[][..]),
            Kind::Implicit(system) => (Some(system.equations()), system.equations().functions()),
            Kind::Adjoint(of) | Kind::Rearranged(Rearranged { of, .. }) => (None, std::slice::from_ref(of)),
        };
        let guarded = body.is_some_and(|body| !body.guards().is_empty()) || inner.iter().any(Function::is_guarded);
        let deepest = inner.iter().map(|function| function.0.depth).max();
        let most_derived = inner.iter().map(|function| function.0.derived).max().unwrap_or(0);
        let derived = most_derived + usize::from(matches!(kind, Kind::Adjoint(_) | Kind::Rearranged(_)));
        let depth = match kind {
            Kind::Adjoint(_) | Kind::Rearranged(_) => deepest.unwrap_or(0),
            _ => deepest.map_or(0, |depth| depth + 1),
        };
        let (tangent, adjoint_body) = Default::default();
        Function(Arc::new(Data {
            name,
            kind,
            num_operands,
            num_results,
            depth,
            derived,
            guarded,
            tangent,
            adjoint_body,
        }))
    }

    /// Whether it is nested too deep to be called.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.0.depth > DEEPEST
    }

    /// Whether more derivatives stand one inside of the other than a file may hold.
    pub(crate) fn is_derived_too_often(&self) -> bool {
        self.0.derived > MOST_DERIVED
    }

    /// Whether a comparison in it may be answered otherwise than recorded: then
    /// it is called even where nothing reads its results, as the guards of the
    /// code written out would be asked.
    pub(crate) fn is_guarded(&self) -> bool {
        self.0.guarded
    }

    /// The name, if it was given one: [`Tape::named`], or that of a [`CustomOp`].
    ///
    /// ```
    /// use ad_core::Tape;
    /// let square = Tape::record(&[1.0], |x| x[0] * x[0])?.named("square");
    /// let tape = Tape::record(&[3.0], |x| square.call(&[x[0]]))?;
    /// assert_eq!(tape.functions()[0].name(), Some("square"));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        match &self.0.kind {
            Kind::Adjoint(of) | Kind::Rearranged(Rearranged { of, .. }) => of.name(),
            _ => self.0.name.as_deref(),
        }
    }

    /// How many numbers it takes: the distinct variables that a row calls it with.
    pub fn num_operands(&self) -> usize {
        self.0.num_operands
    }

    /// How many numbers it gives.
    pub fn num_results(&self) -> usize {
        self.0.num_results
    }

    /// The tape that it runs, if it runs one: the body of a loop, or the
    /// equations of an implicit function.
    pub fn body(&self) -> Option<&Tape> {
        match &self.0.kind {
            Kind::Loop(rolled) => Some(&rolled.body),
            Kind::Implicit(system) => Some(system.equations()),
            Kind::Custom(_) => None,
            Kind::Adjoint(of) | Kind::Rearranged(Rearranged { of, .. }) => of.body(),
        }
    }

    /// How often the body runs for one call.
    pub fn iterations(&self) -> usize {
        match &self.0.kind {
            Kind::Loop(rolled) => rolled.count,
            Kind::Adjoint(of) | Kind::Rearranged(Rearranged { of, .. }) => of.iterations(),
            _ => 1,
        }
    }

    /// Which operands its iterations take; empty if there is one alone.
    pub(crate) fn iterations_text(&self, script: Script) -> String {
        match &self.0.kind {
            Kind::Loop(rolled) => rolled.iterations_text(script),
            Kind::Adjoint(of) | Kind::Rearranged(Rearranged { of, .. }) => of.iterations_text(script),
            _ => String::new(),
        }
    }

    /// What it is, in words that stand before the name, and the name.
    pub(crate) fn call_name(&self) -> CallName {
        let word = match &self.0.kind {
            Kind::Loop(rolled) => rolled.word(),
            Kind::Custom(_) => None,
            Kind::Implicit(_) => Some("solve"),
            Kind::Adjoint(_) => Some("vjp"),
            Kind::Rearranged(_) => Some("jvp"),
        };
        let mut call = match &self.0.kind {
            Kind::Adjoint(of) | Kind::Rearranged(Rearranged { of, .. }) => of.call_name(),
            _ => CallName {
                words: Vec::new(),
                name: match self.name() {
                    Some(name) => Name::Given(name.to_owned(), Accent::None),
                    None => Name::Letter("f", Accent::None),
                },
            },
        };
        call.words.splice(0..0, word);
        call
    }

    /// y = F(x), with k tangents.
    pub(crate) fn values(
        &self,
        k: usize,
        x: Numbers<'_>,
        mut y: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        // Only what a row calls itself comes back for its adjoints.
        memory.call = memory.call.filter(|_| matches!(self.0.kind, Kind::Loop(_)));
        match &self.0.kind {
            Kind::Loop(rolled) => rolled.values(k, x, y, memory),
            Kind::Custom(custom) => custom.values(k, x, y, memory),
            Kind::Implicit(system) => system.values(k, x, y, memory),
            Kind::Adjoint(of) => {
                let n = of.num_operands();
                of.adjoints(k, x.part(0..n, k), x.part(n..x.v.len(), k), y, memory)
            }
            Kind::Rearranged(Rearranged { of, operands, results }) => memory.borrow(|memory, [inner, outer]| {
                inner.reset(operands.len(), k);
                outer.reset(of.num_results(), k);
                for (i, operand) in operands.iter().enumerate() {
                    if let Some(operand) = *operand {
                        inner.set(i, x.get(operand as usize, k));
                    }
                }
                of.values(k, inner.view(), outer.view_mut(), memory)?;
                for (j, &result) in results.iter().enumerate() {
                    y.set(j, outer.get(result as usize));
                }
                Ok(())
            }),
        }
    }

    /// x̄ = Jᵀ·w, with k tangents; x̄ is overwritten.
    pub(crate) fn adjoints(
        &self,
        k: usize,
        x: Numbers<'_>,
        w: Numbers<'_>,
        mut xbar: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        memory.call = memory.call.filter(|_| matches!(self.0.kind, Kind::Loop(_)));
        match &self.0.kind {
            Kind::Loop(rolled) => rolled.adjoints(k, x, w, xbar, memory),
            Kind::Custom(custom) => custom.adjoints(k, x, w, xbar, memory),
            Kind::Implicit(system) => system.adjoints(k, x, w, xbar, memory),
            Kind::Adjoint(of) => adjoints_of_adjoint(of, k, x, w, xbar, memory),
            Kind::Rearranged(Rearranged { of, operands, results }) => {
                memory.borrow(|memory, [inner, weights, sums]| {
                    inner.reset(operands.len(), k);
                    weights.reset(of.num_results(), k);
                    sums.reset(operands.len(), k);
                    for (i, operand) in operands.iter().enumerate() {
                        if let Some(operand) = *operand {
                            inner.set(i, x.get(operand as usize, k));
                        }
                    }
                    for (j, &result) in results.iter().enumerate() {
                        weights.add(result as usize, w.get(j, k));
                    }
                    of.adjoints(k, inner.view(), weights.view(), sums.view_mut(), memory)?;
                    xbar.v.fill(0.0);
                    xbar.t.fill(0.0);
                    for (i, operand) in operands.iter().enumerate() {
                        if let Some(operand) = *operand {
                            xbar.add(operand as usize, sums.get(i));
                        }
                    }
                    Ok(())
                })
            }
        }
    }

    /// TF, made when it is first wanted.
    #[track_caller]
    pub(crate) fn tangent(&self) -> Result<&Tangent, Error> {
        let numbers = 2 * (self.num_operands() + self.num_results());
        if numbers > LIMIT {
            let location = SourceLocation::new(Location::caller());
            return Err(Error::TooLarge {
                location,
                what: "numbers that a function with tangents takes or gives",
                limit: LIMIT,
            });
        }
        let tangent = self.0.tangent.get_or_init(|| match &self.0.kind {
            Kind::Loop(rolled) => rolled.tangent(self.0.name.clone(), self.num_operands()),
            Kind::Custom(custom) => {
                // TF calls F. If that were this very one, which holds TF, neither would ever be dropped.
                let (name, kind) = (self.0.name.clone(), Kind::Custom(custom.clone()));
                custom.tangent(&Function::new(name, kind, self.num_operands(), self.num_results()))
            }
            Kind::Implicit(system) => system.tangent(self.num_operands(), self.num_results()),
            Kind::Adjoint(of) => {
                let tangent = of.tangent()?;
                let (n, m) = (of.num_operands() as u32, of.num_results() as u32);
                // The operands here are x, w, ẋ, ẇ; those of the adjoint of TF
                // are x, ẋ and the weights of the results of TF.
                let mut weights = vec![None; tangent.function.num_results()];
                for j in 0..m as usize {
                    weights[tangent.values[j] as usize] = Some(2 * n + m + j as u32);
                    weights[tangent.tangents[j] as usize] = Some(n + j as u32);
                }
                let points = (0..n).chain(n + m..2 * n + m).map(Some);
                let rearranged = Rearranged {
                    of: tangent.function.adjoint(),
                    operands: points.chain(weights).collect(),
                    // With the weights w on J·ẋ, the adjoint of ẋ is Jᵀ·w and that of x its tangent.
                    results: (n..2 * n).chain(0..n).collect(),
                };
                let (operands, results) = (2 * (n + m) as usize, 2 * n as usize);
                let function = Function::new(None, Kind::Rearranged(rearranged), operands, results);
                Ok(Tangent { function, values: (0..n).collect(), tangents: (n..2 * n).collect() })
            }
            Kind::Rearranged(Rearranged { of, operands, results }) => {
                let tangent = of.tangent()?;
                let (n, m) = (self.num_operands() as u32, self.num_results() as u32);
                let of_tangents = operands.iter().map(|operand| operand.map(|operand| operand + n));
                let of_values = results.iter().map(|&result| tangent.values[result as usize]);
                let rearranged = Rearranged {
                    of: tangent.function.clone(),
                    operands: operands.iter().copied().chain(of_tangents).collect(),
                    results: of_values.chain(results.iter().map(|&result| tangent.tangents[result as usize])).collect(),
                };
                let function = Function::new(None, Kind::Rearranged(rearranged), 2 * n as usize, 2 * m as usize);
                Ok(Tangent { function, values: (0..m).collect(), tangents: (m..2 * m).collect() })
            }
        });
        tangent.as_ref().map_err(Error::clone)
    }

    /// (x, w) ↦ Jᵀ·w.
    pub(crate) fn adjoint(&self) -> Function {
        let (n, m) = (self.num_operands(), self.num_results());
        Function::new(None, Kind::Adjoint(self.clone()), n + m, n)
    }

    /// The results in any number type, for functions that are tapes all through.
    ///
    /// # Errors
    ///
    /// [`Error::OnlyNumbers`] for the others.
    pub(crate) fn replay<T: Rule>(&self, x: &[T]) -> Result<Vec<T>, Error> {
        match &self.0.kind {
            Kind::Loop(rolled) => rolled.replay(x),
            Kind::Rearranged(Rearranged { of, operands, results }) => {
                let operands: Vec<T> =
                    operands.iter().map(|operand| operand.map_or(T::lit(0.0), |operand| x[operand as usize])).collect();
                let values = of.replay(&operands)?;
                Ok(results.iter().map(|&result| values[result as usize]).collect())
            }
            _ => Err(Error::OnlyNumbers { function: self.to_string(), number: std::any::type_name::<T>() }),
        }
    }
}

/// The adjoints of (x, w) ↦ Jᵀ·w for the weights z: J·z for w, and for x the
/// gradient of w·J(x)·z.
fn adjoints_of_adjoint(
    of: &Function,
    k: usize,
    x: Numbers<'_>,
    z: Numbers<'_>,
    mut xbar: NumbersMut<'_>,
    memory: &mut FunctionMemory,
) -> Result<(), Error> {
    let (n, m) = (of.num_operands(), of.num_results());
    let (x, w) = (x.part(0..n, k), x.part(n..n + m, k));
    memory.borrow(|memory, [point, weights, sums]| {
        if k == 0 {
            // z are tangents of x: what changes with them is what is wanted.
            let x = Numbers { v: x.v, t: z.v };
            weights.reset(m, 1);
            of.values(1, x, weights.view_mut(), memory)?;
            xbar.v[n..].copy_from_slice(&weights.t);
            weights.t.fill(0.0);
            weights.v.copy_from_slice(w.v);
            sums.reset(n, 1);
            of.adjoints(1, x, weights.view(), sums.view_mut(), memory)?;
            xbar.v[..n].copy_from_slice(&sums.t);
            return Ok(());
        }
        // z would need tangents that have tangents: TF has them.
        let Tangent { function, tangents, .. } = of.tangent()?;
        point.reset(2 * n, k);
        for i in 0..n {
            point.set(i, x.get(i, k));
            point.set(n + i, z.get(i, k));
        }
        weights.reset(function.num_results(), k);
        function.values(k, point.view(), weights.view_mut(), memory)?;
        for (j, &tangent) in tangents.iter().enumerate() {
            xbar.set(n + j, weights.get(tangent as usize));
        }
        weights.reset(function.num_results(), k);
        for (j, &tangent) in tangents.iter().enumerate() {
            weights.set(tangent as usize, w.get(j, k));
        }
        sums.reset(2 * n, k);
        function.adjoints(k, point.view(), weights.view(), sums.view_mut(), memory)?;
        for i in 0..n {
            xbar.set(i, sums.get(i));
        }
        Ok(())
    })
}

/// [`Tape::operation_count`]. Each list is counted once, however many functions run it.
pub(crate) fn operation_count(tape: &Tape) -> u64 {
    fn of_list(tape: &Tape, known: &mut HashMap<*const (), u64>) -> u64 {
        let key = Arc::as_ptr(&tape.data).cast();
        if let Some(&count) = known.get(&key) {
            return count;
        }
        let of_calls = tape.data.calls.iter().filter_map(|&row| tape.data.function(row as usize));
        let mut count = tape.len() as u64;
        for function in of_calls {
            count = count.saturating_add(of_function(function, known));
        }
        known.insert(key, count);
        count
    }
    fn of_function(function: &Function, known: &mut HashMap<*const (), u64>) -> u64 {
        let key = Arc::as_ptr(&function.0).cast();
        if let Some(&count) = known.get(&key) {
            return count;
        }
        let count = match &function.0.kind {
            Kind::Loop(rolled) => of_list(&rolled.body, known).saturating_mul(rolled.count as u64),
            Kind::Custom(_) => 1,
            Kind::Implicit(system) => of_list(system.equations(), known),
            Kind::Adjoint(of) => of_function(of, known).saturating_mul(3),
            Kind::Rearranged(Rearranged { of, .. }) => of_function(of, known),
        };
        known.insert(key, count);
        count
    }
    of_list(tape, &mut HashMap::new())
}

impl PartialEq for Function {
    /// Whether they are the same one. What takes another number of operands is another, though a
    /// file may hold two loops that differ in nothing but operands that they do not look at.
    fn eq(&self, other: &Function) -> bool {
        if self.num_operands() != other.num_operands() {
            return false;
        }
        Arc::ptr_eq(&self.0, &other.0)
            || match (&self.0.kind, &other.0.kind) {
                (Kind::Loop(one), Kind::Loop(other)) => one == other,
                (Kind::Custom(one), Kind::Custom(other)) => one == other,
                (Kind::Implicit(one), Kind::Implicit(other)) => one == other,
                (Kind::Adjoint(one), Kind::Adjoint(other)) => one == other,
                _ => false,
            }
    }
}

impl fmt::Display for Function {
    /// What it is, and its name: `scan step`, `f` where it has none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.call_name().render(Script::Unicode, DIGITS))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.to_string())
            .field("operands", &self.num_operands())
            .field("results", &self.num_results())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::NumberVec;
    use crate::error::Error;

    #[test]
    fn states_that_do_not_fit_into_memory_are_an_error() {
        for (len, k) in [(usize::MAX, 0), (usize::MAX, 1), (1 << 62, 4), (1 << 60, 0)] {
            let error = NumberVec::default().try_reset(len, k).unwrap_err();
            assert!(matches!(error, Error::TooManyStates { .. }), "{error}");
        }
        assert_eq!(NumberVec::default().try_reset(10, 2), Ok(()));
    }
}
