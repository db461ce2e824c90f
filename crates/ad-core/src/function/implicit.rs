//! Functions given by equations: y(x) with g(x, y) = 0.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::error::Error;
use crate::function::{Function, FunctionMemory, Kind, NumberVec, Numbers, NumbersMut, Tangent};
use crate::record::{SourceLocation, Var, record_call, refuse_call};
use crate::rule::Rule;
use crate::tape::Tape;

mod series;

/// The solution y(x) of q equations g(x, y) = 0 in q unknowns, found by your
/// own solver and differentiated by the implicit function theorem:
/// ∂y/∂x = −(∂g/∂y)⁻¹·∂g/∂x.
///
/// The tape g has the inputs x and then y, and q outputs. The solver runs
/// wherever a tape that calls this is replayed; how it finds y is its own
/// affair and is not differentiated. It must be a function of x: the same
/// x, the same bits. That cannot be checked.
///
/// Each y that it gives is tried:
///
/// - if the Newton step −(∂g/∂y)⁻¹·g is larger than 10⁻⁶·(1 + max|y|), that is [`Error::NotSolved`];
/// - if the condition number of ∂g/∂y in the 1-norm, estimated, is above 10¹⁴, that is
///   [`Error::SingularImplicit`];
/// - if it is NaN or infinite, the solver says that there is no solution at x: all
///   derivatives are NaN, as outside the domain of an operation.
///
/// Where an x is NaN or infinite, the solver is not asked, and all of y is NaN.
///
/// A call costs the solver, q tangents of g and a dense decomposition (q³/3
/// multiplications); with derivatives one sweep of g more, and for tangents in
/// second order two. Second order and derivative tapes pass through.
///
/// Source: Griewank & Walther, Evaluating Derivatives (2008), §15.3; N. J.
/// Higham, Accuracy and Stability of Numerical Algorithms (2002), §15.2, for the condition number.
///
/// ```
/// use ad_core::{Error, Implicit, Tape};
///
/// // Kepler's equation E − e·sin E = M, solved for E.
/// let equation = Tape::record(&[1.0, 0.1, 1.0], |v| v[2] - v[1] * v[2].sin() - v[0])?;
/// let anomaly = Implicit::new(&equation, |x: &[f64]| {
///     let mut y = x[0];
///     for _ in 0..50 {
///         y -= (y - x[1] * y.sin() - x[0]) / (1.0 - x[1] * y.cos());
///     }
///     Ok::<_, String>(vec![y])
/// })?.named("anomaly");
///
/// let tape = Tape::record(&[1.0, 0.1], |x| anomaly.call(x))?;
/// let (y, dy) = tape.jvp(&[1.0, 0.3], &[1.0, 0.0])?;
/// assert!((y[0] - 0.3 * y[0].sin() - 1.0).abs() < 1e-15);
/// assert!((dy[0] - 1.0 / (1.0 - 0.3 * y[0].cos())).abs() < 1e-15);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Implicit(System);

/// The equations, and what finds their solution.
#[derive(Clone)]
pub(crate) struct System(Arc<Data>);

#[derive(Clone)]
struct Data {
    name: Option<Arc<str>>,
    g: Tape,
    /// What each input of g is.
    inputs: Vec<Input>,
    num_operands: usize,
    solver: Solver,
}

#[derive(Clone, Copy)]
enum Input {
    Operand(u32),
    Unknown(u32),
}

/// Writes y, or says why it cannot.
type UserSolver = dyn Fn(&[f64], &mut [f64]) -> Result<(), Unsolved> + Send + Sync;

enum Unsolved {
    /// In the words of the user's error.
    Failed(String),
    /// There are so many numbers.
    Count(usize),
}

#[derive(Clone)]
enum Solver {
    User(Arc<UserSolver>),
    /// y by the system without tangents, ẏ from it.
    Tangent(System),
}

/// Newton steps larger than this, relative to 1 + max|y|, show that nothing was solved.
const UNSOLVED: f64 = 1e-6;
/// Matrices of a larger condition number count as singular.
const SINGULAR: f64 = 1e14;

impl Implicit {
    /// The solution of the equations g(x, y) = 0 that `solver` finds at x.
    ///
    /// # Errors
    ///
    /// [`Error::RuleShape`] unless g has more inputs than outputs.
    pub fn new<E: fmt::Display>(
        g: &Tape,
        solver: impl Fn(&[f64]) -> Result<Vec<f64>, E> + Send + Sync + 'static,
    ) -> Result<Implicit, Error> {
        Implicit::with_solver(g, move |x, y| {
            let solution = solver(x).map_err(|error| Unsolved::Failed(error.to_string()))?;
            if solution.len() != y.len() {
                return Err(Unsolved::Count(solution.len()));
            }
            y.copy_from_slice(&solution);
            Ok(())
        })
    }

    /// [`Implicit::new`] with a solver that writes y, q numbers that are 0
    /// before, and need not allocate.
    ///
    /// # Errors
    ///
    /// Those of [`Implicit::new`].
    ///
    /// ```
    /// use ad_core::{Error, Implicit, Tape};
    /// // y² = x, for y > 0.
    /// let equation = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0])?;
    /// let root = Implicit::new_into(&equation, |x: &[f64], y: &mut [f64]| {
    ///     y[0] = x[0].sqrt();
    ///     Ok::<_, String>(())
    /// })?;
    /// let tape = Tape::record(&[4.0], |x| root.call(x))?;
    /// assert_eq!(tape.gradient(&[16.0])?, (4.0, vec![0.125]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new_into<E: fmt::Display>(
        g: &Tape,
        solver: impl Fn(&[f64], &mut [f64]) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Implicit, Error> {
        Implicit::with_solver(g, move |x, y| solver(x, y).map_err(|error| Unsolved::Failed(error.to_string())))
    }

    fn with_solver(
        g: &Tape,
        solver: impl Fn(&[f64], &mut [f64]) -> Result<(), Unsolved> + Send + Sync + 'static,
    ) -> Result<Implicit, Error> {
        let unknowns = g.num_outputs();
        let Some(num_operands) = g.num_inputs().checked_sub(unknowns).filter(|&operands| operands > 0) else {
            return Err(Error::RuleShape {
                function: g.name.as_deref().unwrap_or("the equations").to_owned(),
                what: "inputs, at least (x, and an unknown for each output)",
                expected: unknowns + 1,
                got: g.num_inputs(),
            });
        };
        let operands = (0..num_operands as u32).map(Input::Operand);
        Ok(Implicit(System(Arc::new(Data {
            name: g.name.clone(),
            g: g.clone(),
            inputs: operands.chain((0..unknowns as u32).map(Input::Unknown)).collect(),
            num_operands,
            solver: Solver::User(Arc::new(solver)),
        }))))
    }

    /// The same under a name, which traces and errors show; without one they
    /// show that of the equations ([`Tape::named`]).
    #[must_use]
    pub fn named(self, name: &str) -> Implicit {
        Implicit(System(Arc::new(Data { name: Some(name.into()), ..(*self.0.0).clone() })))
    }

    /// Calls it in a recording: one row, whose results are the q unknowns at x.
    /// With constants alone it gives constants.
    ///
    /// What is wrong ends the recording in an error: [`Error::CallArguments`], [`Error::SolverFailed`],
    /// [`Error::NotSolved`], [`Error::SingularImplicit`], [`Error::RuleShape`] where the solver gives
    /// another number of unknowns, [`Error::BranchChanged`] where a comparison in the equations
    /// is answered otherwise than in their recording. In a replay they are errors of the driver.
    #[track_caller]
    pub fn call(&self, x: &[Var]) -> Vec<Var> {
        let location = Location::caller();
        let (n, q) = (self.0.0.num_operands, self.0.unknowns());
        if x.len() != n {
            refuse_call(Error::CallArguments {
                function: self.0.name(),
                what: "operands",
                expected: n,
                got: x.len(),
                location: SourceLocation::new(location),
            });
            return vec![Var::poisoned(); q];
        }
        record_call(&Function::new(self.0.0.name.clone(), Kind::Implicit(self.0.clone()), n, q), x, location)
    }
}

fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |largest, number| largest.max(number.abs()))
}

impl System {
    pub fn equations(&self) -> &Tape {
        &self.0.g
    }

    /// The same system with each of its tapes, of equations and of their tangents, replaced by what `replace` gives.
    pub fn with_equations(&self, replace: &mut impl FnMut(&Tape) -> Tape) -> System {
        let solver = match &self.0.solver {
            Solver::User(solver) => Solver::User(solver.clone()),
            Solver::Tangent(base) => Solver::Tangent(base.with_equations(replace)),
        };
        System(Arc::new(Data { g: replace(&self.0.g), solver, ..Data::clone(&self.0) }))
    }

    fn unknowns(&self) -> usize {
        self.0.g.num_outputs()
    }

    fn name(&self) -> String {
        self.0.name.as_deref().unwrap_or("an implicit function").to_owned()
    }

    /// y, and with it ∂g/∂y decomposed, if all numbers are finite and it is wanted.
    fn solve(
        &self,
        x: &[f64],
        y: &mut [f64],
        lu: &mut Lu,
        wanted: bool,
        memory: &mut FunctionMemory,
    ) -> Result<bool, Error> {
        if x.iter().any(|x| !x.is_finite()) {
            y.fill(f64::NAN);
            return Ok(false);
        }
        match &self.0.solver {
            Solver::User(solver) => {
                y.fill(0.0);
                solver(x, y).map_err(|error| match error {
                    Unsolved::Failed(reason) => Error::SolverFailed { function: self.name(), reason, location: None },
                    Unsolved::Count(got) => Error::RuleShape {
                        function: self.name(),
                        what: "numbers from the solver (one for each unknown)",
                        expected: self.unknowns(),
                        got,
                    },
                })?;
            }
            Solver::Tangent(base) => {
                let (x, dx) = x.split_at(x.len() / 2);
                let (y, dy) = y.split_at_mut(base.unknowns());
                base.values(1, Numbers { v: x, t: dx }, NumbersMut { v: y, t: dy }, memory)?;
            }
        }
        if y.iter().any(|y| !y.is_finite()) {
            return Ok(false);
        }
        match self.0.solver {
            Solver::User(_) => self.decompose(x, y, lu, true, memory)?,
            // y was tried below, and the condition number of this matrix depends on ẋ.
            Solver::Tangent(_) if wanted => self.decompose(x, y, lu, false, memory)?,
            Solver::Tangent(_) => {}
        }
        Ok(true)
    }

    /// ∂g/∂y at a point, decomposed, and tried if it is to be.
    fn decompose(
        &self,
        x: &[f64],
        y: &[f64],
        lu: &mut Lu,
        tried: bool,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let q = self.unknowns();
        memory.borrow(|memory, [point, g]| {
            point.reset(self.0.inputs.len(), q);
            for (i, &input) in self.0.inputs.iter().enumerate() {
                match input {
                    Input::Operand(operand) => point.v[i] = x[operand as usize],
                    Input::Unknown(unknown) => {
                        point.v[i] = y[unknown as usize];
                        // A unit seed for each unknown: the tangents of g are ∂g/∂y.
                        point.t[i * q + unknown as usize] = 1.0;
                    }
                }
            }
            g.reset(q, q);
            self.0.g.body_values(memory.body(), q, point.view(), g.view_mut())?;
            lu.decompose(q, &g.t);
            if !tried {
                return Ok(());
            }
            let condition = lu.condition(&mut g.t);
            if condition.is_nan() || condition > SINGULAR {
                return Err(Error::SingularImplicit { function: self.name(), condition, location: None });
            }
            lu.solve(&mut g.v);
            let (step, limit) = (largest(&g.v), UNSOLVED * (1.0 + largest(y)));
            match g.v.iter().all(|step| step.abs() <= limit) {
                true => Ok(()),
                false => Err(Error::NotSolved { function: self.name(), step, limit, location: None }),
            }
        })
    }

    /// The inputs of g: x and y, with their tangents.
    fn fill(&self, point: &mut NumberVec, k: usize, x: Numbers<'_>, y: Numbers<'_>) {
        point.reset(self.0.inputs.len(), k);
        for (i, &input) in self.0.inputs.iter().enumerate() {
            match input {
                Input::Operand(operand) => point.set(i, x.get(operand as usize, k)),
                Input::Unknown(unknown) => point.set(i, y.get(unknown as usize, k)),
            }
        }
    }

    /// Lends the memory for a decomposition.
    fn with_lu<R>(memory: &mut FunctionMemory, work: impl FnOnce(&mut FunctionMemory, &mut Lu) -> R) -> R {
        let mut lu = memory.spare_lus.pop().unwrap_or_default();
        let result = work(memory, &mut lu);
        memory.spare_lus.push(lu);
        result
    }

    /// y and ẏ, by g_y·ẏ = −g_x·ẋ.
    pub fn values(
        &self,
        k: usize,
        x: Numbers<'_>,
        y: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        System::with_lu(memory, |memory, lu| {
            let decomposed = self.solve(x.v, y.v, lu, k > 0, memory)?;
            match decomposed {
                true => self.tangents(k, x, y, lu, memory),
                false => {
                    self.no_tangents(k, x, y.t);
                    Ok(())
                }
            }
        })
    }

    /// The tangents where there is no solution: NaN, but 0 in a direction that is 0.
    fn no_tangents(&self, k: usize, x: Numbers<'_>, dy: &mut [f64]) {
        for d in 0..k {
            let moves = x.t.iter().skip(d).step_by(k).any(|&dx| dx != 0.0);
            dy.iter_mut().skip(d).step_by(k).for_each(|dy| *dy = if moves { f64::NAN } else { 0.0 });
        }
    }

    /// ẏ at a solution.
    fn tangents(
        &self,
        k: usize,
        x: Numbers<'_>,
        y: NumbersMut<'_>,
        lu: &Lu,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        if k == 0 {
            return Ok(());
        }
        let q = self.unknowns();
        memory.borrow(|memory, [point, g]| {
            y.t.fill(0.0);
            self.fill(point, k, x, Numbers { v: y.v, t: y.t });
            g.reset(q, k + 1);
            let (g, column) = g.t.split_at_mut(q * k);
            memory.borrow(|memory, [values]| {
                values.reset(q, 0);
                let g = NumbersMut { v: &mut values.v, t: g };
                self.0.g.body_values(memory.body(), k, point.view(), g)
            })?;
            for d in 0..k {
                for (j, number) in column.iter_mut().enumerate() {
                    *number = -g[j * k + d];
                }
                lu.solve(column);
                for (j, &number) in column.iter().enumerate() {
                    y.t[j * k + d] = number;
                }
            }
            Ok(())
        })
    }

    /// x̄ = −g_xᵀ·λ with g_yᵀ·λ = w; the tangents by differentiating both.
    pub fn adjoints(
        &self,
        k: usize,
        x: Numbers<'_>,
        w: Numbers<'_>,
        xbar: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let q = self.unknowns();
        System::with_lu(memory, |memory, lu| {
            memory.borrow(|memory, [y, point, lambda, of_inputs]| {
                y.reset(q, k);
                if !self.solve(x.v, &mut y.v, lu, true, memory)? {
                    let weighed = |w: &f64| *w != 0.0;
                    xbar.v.fill(if w.v.iter().any(weighed) { f64::NAN } else { 0.0 });
                    for d in 0..k {
                        let weighed = w.v.iter().chain(w.t.iter().skip(d).step_by(k)).any(weighed);
                        let adjoint = if weighed { f64::NAN } else { 0.0 };
                        xbar.t.iter_mut().skip(d).step_by(k).for_each(|xbar| *xbar = adjoint);
                    }
                    return Ok(());
                }
                self.tangents(k, x, y.view_mut(), lu, memory)?;
                self.fill(point, k, x, y.view());
                lambda.reset(q, k);
                lambda.v.copy_from_slice(w.v);
                lu.solve_transposed(&mut lambda.v);
                of_inputs.reset(self.0.inputs.len(), k);
                if k > 0 {
                    // With λ at rest, the adjoints of y change by what g_yᵀ does.
                    self.0.g.body_adjoints(memory.body(), k, point.view(), lambda.view(), of_inputs.view_mut())?;
                    memory.borrow(|_, [column]| {
                        column.reset(q, 0);
                        for d in 0..k {
                            for (i, &input) in self.0.inputs.iter().enumerate() {
                                if let Input::Unknown(unknown) = input {
                                    let place = unknown as usize;
                                    column.v[place] = w.t[place * k + d] - of_inputs.t[i * k + d];
                                }
                            }
                            lu.solve_transposed(&mut column.v);
                            for (j, &number) in column.v.iter().enumerate() {
                                lambda.t[j * k + d] = number;
                            }
                        }
                    });
                }
                self.0.g.body_adjoints(memory.body(), k, point.view(), lambda.view(), of_inputs.view_mut())?;
                for (i, &input) in self.0.inputs.iter().enumerate() {
                    if let Input::Operand(operand) = input {
                        let operand = operand as usize;
                        xbar.v[operand] = -of_inputs.v[i];
                        for d in 0..k {
                            xbar.t[operand * k + d] = -of_inputs.t[i * k + d];
                        }
                    }
                }
                Ok(())
            })
        })
    }

    /// TF is the solution (y, ẏ) of g(x, y) = 0 and g_x·ẋ + g_y·ẏ = 0.
    pub fn tangent(&self, n: usize, q: usize) -> Result<Tangent, Error> {
        let shifted = |&input: &Input| match input {
            Input::Operand(operand) => Input::Operand(operand + n as u32),
            Input::Unknown(unknown) => Input::Unknown(unknown + q as u32),
        };
        let name = self.0.name.clone();
        let system = System(Arc::new(Data {
            name: name.clone(),
            g: self.0.g.tangent_body()?,
            inputs: self.0.inputs.iter().copied().chain(self.0.inputs.iter().map(shifted)).collect(),
            num_operands: 2 * n,
            solver: Solver::Tangent(self.clone()),
        }));
        let function = Function::new(name, Kind::Implicit(system), 2 * n, 2 * q);
        let q = q as u32;
        Ok(Tangent { function, values: (0..q).collect(), tangents: (q..2 * q).collect() })
    }
}

impl PartialEq for System {
    /// Whether they are clones of one.
    fn eq(&self, other: &System) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Data { name, g, .. } = &*self.0;
        f.debug_struct("System").field("name", name).field("equations", g).finish_non_exhaustive()
    }
}

/// The product of factors of a matrix and numbers like these.
fn product_for(b: &[f64]) -> fn(f64, f64) -> f64 {
    match b.iter().all(|number| number.is_finite()) {
        true => |factor, number| factor * number,
        false => |factor, number| factor.chain_mul(number),
    }
}

/// A square matrix as a product of triangular ones, rows exchanged: PA = LU.
///
/// Written out here: it is short, its bits may not depend on a library's, and
/// this crate is to stay light.
#[derive(Clone, Default)]
pub(super) struct Lu {
    n: usize,
    /// L below the diagonal, whose ones are left out, and U.
    factors: Vec<f64>,
    /// Which row was taken at each step.
    pivots: Vec<usize>,
    /// The largest sum of magnitudes in a column of A.
    norm: f64,
}

impl Lu {
    /// Decomposes A, row-major.
    fn decompose(&mut self, n: usize, a: &[f64]) {
        self.n = n;
        self.norm = 0.0;
        for j in 0..n {
            let sum: f64 = (0..n).map(|i| a[i * n + j].abs()).sum();
            self.norm = if sum.is_nan() { sum } else { self.norm.max(sum) };
            if sum.is_nan() {
                break;
            }
        }
        self.factors.clear();
        self.factors.extend_from_slice(a);
        self.pivots.clear();
        let a = &mut self.factors[..];
        for step in 0..n {
            let pivot = (step..n).fold(step, |best, i| match a[i * n + step].abs() > a[best * n + step].abs() {
                true => i,
                false => best,
            });
            self.pivots.push(pivot);
            if pivot != step {
                for j in 0..n {
                    a.swap(step * n + j, pivot * n + j);
                }
            }
            let (above, below) = a.split_at_mut((step + 1) * n);
            let row = &above[step * n..];
            for other in below.chunks_mut(n) {
                let factor = other[step] / row[step];
                other[step] = factor;
                for (entry, &of_row) in other[step + 1..].iter_mut().zip(&row[step + 1..]) {
                    *entry -= factor * of_row;
                }
            }
        }
    }

    /// Replaces b by A⁻¹·b. The strict rule holds: 0·∞ is 0.
    fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        let product = product_for(b);
        for (step, &pivot) in self.pivots.iter().enumerate() {
            b.swap(step, pivot);
        }
        for i in 0..n {
            for j in 0..i {
                b[i] -= product(self.factors[i * n + j], b[j]);
            }
        }
        for i in (0..n).rev() {
            for j in i + 1..n {
                b[i] -= product(self.factors[i * n + j], b[j]);
            }
            b[i] /= self.factors[i * n + i];
        }
    }

    /// Replaces b by A⁻ᵀ·b, by the same rule.
    fn solve_transposed(&self, b: &mut [f64]) {
        let n = self.n;
        let product = product_for(b);
        for i in 0..n {
            for j in 0..i {
                b[i] -= product(self.factors[j * n + i], b[j]);
            }
            b[i] /= self.factors[i * n + i];
        }
        for i in (0..n).rev() {
            for j in i + 1..n {
                b[i] -= product(self.factors[j * n + i], b[j]);
            }
        }
        for (step, &pivot) in self.pivots.iter().enumerate().rev() {
            b.swap(step, pivot);
        }
    }

    /// An estimate of ‖A‖₁·‖A⁻¹‖₁ from below, seldom by more than a factor of 3;
    /// infinite for a singular matrix, NaN for one with entries that are not finite.
    /// `b` is memory for n numbers at least.
    ///
    /// Source: W. W. Hager, Condition estimates (1984): climbs from one corner of the unit
    /// ball to the next along the gradient of ‖A⁻¹·x‖₁. Higham adds the last
    /// vector, against matrices that the climb goes wrong on.
    fn condition(&self, b: &mut [f64]) -> f64 {
        const CLIMBS: usize = 5;
        let n = self.n;
        let b = &mut b[..n];
        if !self.norm.is_finite() {
            return f64::NAN;
        }
        let sum = |b: &[f64]| b.iter().map(|number| number.abs()).sum::<f64>();
        b.fill(1.0 / n as f64);
        let (mut inverse, mut corner) = (0.0_f64, None);
        for _ in 0..CLIMBS {
            self.solve(b);
            let found = sum(b);
            if !found.is_finite() {
                return f64::INFINITY;
            }
            if found <= inverse {
                break;
            }
            inverse = found;
            b.iter_mut().for_each(|number| *number = 1f64.copysign(*number));
            self.solve_transposed(b);
            let steepest = (0..n).fold(0, |best, i| if b[i].abs() > b[best].abs() { i } else { best });
            if corner == Some(steepest) {
                break;
            }
            corner = Some(steepest);
            b.fill(0.0);
            b[steepest] = 1.0;
        }
        for (i, number) in b.iter_mut().enumerate() {
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            *number = sign * (1.0 + i as f64 / (n.max(2) - 1) as f64);
        }
        self.solve(b);
        let inverse = inverse.max(2.0 * sum(b) / (3.0 * n as f64));
        if inverse.is_finite() { self.norm * inverse } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests {
    use super::Lu;

    /// Numbers between −1 and 1 that look random.
    fn numbers(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    fn decomposed(n: usize, a: &[f64]) -> Lu {
        let mut lu = Lu::default();
        // What was there before must not matter.
        lu.decompose(2, &[1.0, 2.0, 3.0, 4.0]);
        lu.decompose(n, a);
        lu
    }

    fn condition(n: usize, a: &[f64]) -> f64 {
        decomposed(n, a).condition(&mut vec![0.0; n])
    }

    #[test]
    fn solves_with_a_matrix_and_its_transpose() {
        for n in 1..12 {
            for seed in 0..20 {
                let a = numbers(n * n, seed + 100 * n as u64);
                let lu = decomposed(n, &a);
                let x = numbers(n, seed + 7);
                let mut b: Vec<f64> = (0..n).map(|i| (0..n).map(|j| a[i * n + j] * x[j]).sum()).collect();
                let mut of_transpose: Vec<f64> = (0..n).map(|i| (0..n).map(|j| a[j * n + i] * x[j]).sum()).collect();
                lu.solve(&mut b);
                lu.solve_transposed(&mut of_transpose);
                let tolerance = 1e-15 * n as f64 * lu.condition(&mut vec![0.0; n]);
                for found in [&b, &of_transpose] {
                    let error = found.iter().zip(&x).map(|(found, x)| (found - x).abs()).fold(0.0, f64::max);
                    assert!(error <= tolerance, "n = {n}, seed {seed}: {error} > {tolerance}");
                }
            }
        }
    }

    #[test]
    fn exchanges_rows_where_a_pivot_is_zero() {
        // A cyclic permutation: A·x = (x₁, x₂, …, x₀).
        for n in 2..9 {
            let mut a = vec![0.0; n * n];
            (0..n).for_each(|i| a[i * n + (i + 1) % n] = 1.0);
            let lu = decomposed(n, &a);
            let b: Vec<f64> = (0..n).map(|i| i as f64 + 1.0).collect();
            let (mut x, mut of_transpose) = (b.clone(), b.clone());
            lu.solve(&mut x);
            lu.solve_transposed(&mut of_transpose);
            assert_eq!(x, (0..n).map(|i| b[(i + n - 1) % n]).collect::<Vec<_>>());
            assert_eq!(of_transpose, (0..n).map(|i| b[(i + 1) % n]).collect::<Vec<_>>());
            assert_eq!(lu.condition(&mut vec![0.0; n]), 1.0);
        }
    }

    #[test]
    fn estimates_the_condition_number() {
        // Those of Hilbert's matrices in the 1-norm: Higham (2002), §28.1.
        let known = [1.0, 27.0, 748.0, 28_375.0, 943_656.0, 29_070_279.0, 985_194_889.7, 3.387_279_1e10];
        for (n, known) in (1..).zip(known) {
            let hilbert: Vec<f64> = (0..n * n).map(|at| 1.0 / ((at / n + at % n) as f64 + 1.0)).collect();
            let ratio = condition(n, &hilbert) / known;
            assert!((0.3..1.001).contains(&ratio), "n = {n}: {ratio}");
        }
        for n in 1..10 {
            for seed in 0..50 {
                let a = numbers(n * n, seed + 1000 * n as u64);
                let lu = decomposed(n, &a);
                let column = |j: usize| {
                    let mut b = vec![0.0; n];
                    b[j] = 1.0;
                    lu.solve(&mut b);
                    b.iter().map(|number| number.abs()).sum::<f64>()
                };
                let exact = lu.norm * (0..n).map(column).fold(0.0, f64::max);
                let ratio = lu.condition(&mut vec![0.0; n]) / exact;
                assert!((0.3..1.0 + 1e-9).contains(&ratio), "n = {n}, seed {seed}: {ratio}");
            }
        }
    }

    #[test]
    fn singular_matrices_have_no_finite_condition() {
        assert_eq!(condition(1, &[0.0]), f64::INFINITY);
        assert_eq!(condition(2, &[1.0, 2.0, 2.0, 4.0]), f64::INFINITY);
        assert_eq!(condition(3, &[0.0; 9]), f64::INFINITY);
        assert!(condition(2, &[1.0, f64::NAN, 0.0, 1.0]).is_nan());
        assert!(condition(2, &[f64::INFINITY, 0.0, 0.0, 1.0]).is_nan());
        assert!(condition(2, &[1.0, 1.0, 1.0, 1.0 + 1e-15]) > 1e14);
        assert!(condition(2, &[1e-200, 0.0, 0.0, 1e-200]) == 1.0);
    }
}
