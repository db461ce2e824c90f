//! Functions along truncated Taylor series: the series of the results, from
//! those of the operands, for the rows of [`Tape::taylor`] that call functions.
//!
//! What a series is multiplied with are series of partials, of which each
//! function has its own: a loop runs its body on series, a custom operation asks
//! the function of its derivative, an implicit one solves its equations
//! coefficient by coefficient. Jᵀ·w along series of x and w does the same with
//! the tape of the adjoints of the body.

use std::ops::Range;

use crate::error::Error;
use crate::function::{DEEPEST, Function, FunctionMemory, Kind, Rearranged, Tangent};
use crate::replay::Workspace;
use crate::tape::Tape;
use crate::taylor::make_room;

/// Series to one order, side by side.
#[derive(Clone, Copy)]
pub(crate) struct Series<'a> {
    coefficients: &'a [f64],
    order: usize,
}

/// Memory for series to one order.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeriesVec {
    coefficients: Vec<f64>,
    len: usize,
    order: usize,
}

/// Where series number i lies among series to an order.
fn place(i: usize, order: usize) -> Range<usize> {
    i * (order + 1)..(i + 1) * (order + 1)
}

impl<'a> Series<'a> {
    /// The last coefficient.
    pub fn order(self) -> usize {
        self.order
    }

    pub fn len(self) -> usize {
        self.coefficients.len() / (self.order + 1)
    }

    pub fn get(self, i: usize) -> &'a [f64] {
        &self.coefficients[place(i, self.order)]
    }

    pub fn part(self, range: Range<usize>) -> Series<'a> {
        let range = range.start * (self.order + 1)..range.end * (self.order + 1);
        Series { coefficients: &self.coefficients[range], ..self }
    }

    /// The zeroth coefficients.
    pub fn values(self) -> Vec<f64> {
        self.coefficients.iter().step_by(self.order + 1).copied().collect()
    }

    pub fn is_zero(self) -> bool {
        self.coefficients.iter().all(|&c| c == 0.0)
    }
}

impl SeriesVec {
    /// So many series of zeros.
    ///
    /// # Errors
    ///
    /// [`Error::TooHighOrder`] if they do not fit into memory.
    pub fn new(len: usize, order: usize) -> Result<SeriesVec, Error> {
        let mut series = SeriesVec::default();
        series.reset(len, order)?;
        Ok(series)
    }

    /// [`SeriesVec::new`] in the memory that is there.
    pub fn reset(&mut self, len: usize, order: usize) -> Result<(), Error> {
        make_room(&mut self.coefficients, len, order)?;
        (self.len, self.order) = (len, order);
        self.coefficients[..len * (order + 1)].fill(0.0);
        Ok(())
    }

    pub fn view(&self) -> Series<'_> {
        Series { coefficients: &self.coefficients[..self.len * (self.order + 1)], order: self.order }
    }

    pub fn get_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.coefficients[place(i, self.order)]
    }

    pub fn set(&mut self, i: usize, series: &[f64]) {
        self.get_mut(i).copy_from_slice(series);
    }

    pub fn add(&mut self, i: usize, series: &[f64]) {
        for (sum, c) in self.get_mut(i).iter_mut().zip(series) {
            *sum += c;
        }
    }
}

/// What functions work in along series.
#[derive(Clone, Default)]
pub(crate) struct SeriesMemory {
    pub body: BodyMemory,
    /// What solutions of equations work in at one point.
    pub function: FunctionMemory,
    /// The inputs and the outputs of a body, and what a loop carries.
    pub x: SeriesVec,
    pub y: SeriesVec,
    pub carry: SeriesVec,
    /// Series that are in nobody's hands.
    spare: Vec<SeriesVec>,
}

impl SeriesMemory {
    /// [`SeriesVec::new`], in memory that is kept if it is given back.
    pub fn take(&mut self, len: usize, order: usize) -> Result<SeriesVec, Error> {
        let mut series = self.spare.pop().unwrap_or_default();
        series.reset(len, order)?;
        Ok(series)
    }

    /// Takes series back, named in the order in which they were taken, so that a
    /// sweep that is repeated finds each as large as it needs it.
    pub fn give_back<const N: usize>(&mut self, series: [SeriesVec; N]) {
        self.spare.extend(series.into_iter().rev());
    }
}

/// The workspace of a body, and how many functions are around it.
#[derive(Clone, Default)]
pub(crate) struct BodyMemory {
    workspace: Option<Box<Workspace>>,
    level: usize,
}

impl BodyMemory {
    /// Functions run inside of functions, no deeper than this, so that the stack
    /// holds them. Bodies do not nest as deep, but the derivative of an operation
    /// may call the operation, for as many levels as there are coefficients.
    const DEEPEST: usize = DEEPEST + 8;

    /// # Errors
    ///
    /// [`Error::TooHighOrder`] where functions run too deep inside of functions.
    pub fn workspace(&mut self, body: &Tape, order: usize) -> Result<&mut Workspace, Error> {
        if self.level >= BodyMemory::DEEPEST {
            return Err(Error::TooHighOrder { order, values: body.num_outputs() });
        }
        let workspace = self.workspace.get_or_insert_default();
        workspace.taylor.functions.body.level = self.level + 1;
        Ok(workspace)
    }
}

impl Function {
    /// The series of y = F(x), from those of x. They are written over zeros.
    pub(crate) fn series(&self, x: Series<'_>, y: &mut SeriesVec, memory: &mut SeriesMemory) -> Result<(), Error> {
        match &self.0.kind {
            Kind::Loop(rolled) => rolled.series(x, y, memory),
            Kind::Custom(custom) => custom.series(x, y, memory),
            Kind::Implicit(system) => system.series(x, y, memory),
            Kind::Adjoint(of) => {
                let (n, m) = (of.num_operands(), of.num_results());
                of.adjoint_series(x.part(0..n), x.part(n..n + m), y, memory)
            }
            Kind::Rearranged(rearranged) => {
                let Rearranged { of, results, .. } = rearranged;
                let inner = rearranged.inner(x, memory)?;
                let mut outer = memory.take(of.num_results(), x.order())?;
                of.series(inner.view(), &mut outer, memory)?;
                for (j, &result) in results.iter().enumerate() {
                    y.set(j, outer.view().get(result as usize));
                }
                memory.give_back([inner, outer]);
                Ok(())
            }
        }
    }

    /// The series of x̄ = Jᵀ·w, from those of x and w. They are written over zeros.
    pub(crate) fn adjoint_series(
        &self,
        x: Series<'_>,
        w: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        match &self.0.kind {
            Kind::Loop(rolled) => rolled.adjoint_series(self.adjoint_body(&rolled.body)?, x, w, xbar, memory),
            Kind::Custom(custom) => custom.adjoint_series(x, w, xbar, memory),
            Kind::Implicit(system) => system.adjoint_series(self.adjoint_body(system.equations())?, x, w, xbar, memory),
            Kind::Adjoint(of) => adjoint_series_of_adjoint(of, x, w, xbar, memory),
            Kind::Rearranged(rearranged) => {
                let Rearranged { of, operands, results } = rearranged;
                let inner = rearranged.inner(x, memory)?;
                let mut weights = memory.take(of.num_results(), x.order())?;
                let mut sums = memory.take(of.num_operands(), x.order())?;
                for (j, &result) in results.iter().enumerate() {
                    weights.add(result as usize, w.get(j));
                }
                of.adjoint_series(inner.view(), weights.view(), &mut sums, memory)?;
                for (i, operand) in operands.iter().enumerate() {
                    if let Some(operand) = *operand {
                        xbar.add(operand as usize, sums.view().get(i));
                    }
                }
                memory.give_back([inner, weights, sums]);
                Ok(())
            }
        }
    }

    /// Jᵀ·w of the body as a tape, made when it is first wanted.
    fn adjoint_body(&self, body: &Tape) -> Result<&Tape, Error> {
        self.0.adjoint_body.get_or_init(|| body.vjp_tape()).as_ref().map_err(Error::clone)
    }
}

impl Rearranged {
    /// The operands of the function that it is made of.
    fn inner(&self, x: Series<'_>, memory: &mut SeriesMemory) -> Result<SeriesVec, Error> {
        let mut inner = memory.take(self.operands.len(), x.order())?;
        for (i, operand) in self.operands.iter().enumerate() {
            if let Some(operand) = *operand {
                inner.set(i, x.get(operand as usize));
            }
        }
        Ok(inner)
    }
}

/// The adjoints of (x, w) ↦ Jᵀ·w for the weights z: J·z for w, and for x the
/// gradient of w·J(x)·z. Both are found in TF at (x, z).
fn adjoint_series_of_adjoint(
    of: &Function,
    x: Series<'_>,
    z: Series<'_>,
    xbar: &mut SeriesVec,
    memory: &mut SeriesMemory,
) -> Result<(), Error> {
    let (n, m, order) = (of.num_operands(), of.num_results(), x.order());
    let (x, w) = (x.part(0..n), x.part(n..n + m));
    let Tangent { function, tangents, .. } = of.tangent()?;
    let mut point = memory.take(2 * n, order)?;
    for i in 0..n {
        point.set(i, x.get(i));
        point.set(n + i, z.get(i));
    }
    let mut weights = memory.take(function.num_results(), order)?;
    function.series(point.view(), &mut weights, memory)?;
    for (j, &tangent) in tangents.iter().enumerate() {
        xbar.set(n + j, weights.view().get(tangent as usize));
    }
    weights.reset(function.num_results(), order)?;
    for (j, &tangent) in tangents.iter().enumerate() {
        weights.set(tangent as usize, w.get(j));
    }
    let mut sums = memory.take(2 * n, order)?;
    function.adjoint_series(point.view(), weights.view(), &mut sums, memory)?;
    for i in 0..n {
        xbar.set(i, sums.view().get(i));
    }
    memory.give_back([point, weights, sums]);
    Ok(())
}
