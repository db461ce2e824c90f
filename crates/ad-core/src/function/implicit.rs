//! Functions given by equations: y(x) with g(x, y) = 0.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::error::{Error, expect_len};
use crate::function::{Function, FunctionMemory, Kind, NumberVec, Numbers, NumbersMut, Tangent};
use crate::record::{SourceLocation, Var, record_call, refuse_call};
use crate::tape::Tape;

mod series;

/// The solution y(x) of q equations g(x, y) = 0 in q unknowns, found by your
/// own solver and differentiated by the implicit function theorem:
/// ∂y/∂x = −(∂g/∂y)⁻¹·∂g/∂x.
///
/// The tape g has the inputs x and then y, and q outputs. The solver runs
/// wherever a tape that calls this is replayed; how it finds y is its own
/// affair and is not differentiated. Each y that it gives is tried: if the
/// Newton step −(∂g/∂y)⁻¹·g is larger than 10⁻⁶·(1 + max|y|), that is
/// [`Error::NotSolved`]. A matrix ∂g/∂y whose condition number in the 1-norm is
/// above 10¹⁴ is [`Error::SingularImplicit`].
///
/// A call costs the solver, q tangents of g and a dense decomposition (q³/3
/// multiplications). Second order and derivative tapes pass through.
///
/// Source: Griewank & Walther, Evaluating Derivatives (2008), §15.3.
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
pub struct Implicit {
    system: System,
    name: Option<Arc<str>>,
}

/// The equations, and what finds their solution.
#[derive(Clone)]
pub(crate) struct System(Arc<Data>);

struct Data {
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

type UserSolver = dyn Fn(&[f64]) -> Result<Vec<f64>, String> + Send + Sync;

enum Solver {
    User(Box<UserSolver>),
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
        let unknowns = g.num_outputs();
        let Some(num_operands) = g.num_inputs().checked_sub(unknowns).filter(|&operands| operands > 0) else {
            return Err(Error::RuleShape {
                function: g.name.as_deref().unwrap_or("the equations").to_owned(),
                what: "inputs (x, and an unknown for each output): at least so many",
                expected: unknowns + 1,
                got: g.num_inputs(),
            });
        };
        let operands = (0..num_operands as u32).map(Input::Operand);
        let system = System(Arc::new(Data {
            g: g.clone(),
            inputs: operands.chain((0..unknowns as u32).map(Input::Unknown)).collect(),
            num_operands,
            solver: Solver::User(Box::new(move |x| solver(x).map_err(|error| error.to_string()))),
        }));
        Ok(Implicit { system, name: g.name.clone() })
    }

    /// The same under a name, which traces and errors show.
    #[must_use]
    pub fn named(mut self, name: &str) -> Implicit {
        self.name = Some(name.into());
        self
    }

    /// Calls it in a recording: one row, whose results are the q unknowns at x.
    /// With constants alone it gives constants.
    ///
    /// What is wrong ends the recording in an error: [`Error::CallArguments`], [`Error::NotSolved`],
    /// [`Error::SingularImplicit`].
    #[track_caller]
    pub fn call(&self, x: &[Var]) -> Vec<Var> {
        let location = Location::caller();
        let (n, q) = (self.system.0.num_operands, self.system.unknowns());
        if x.len() != n {
            refuse_call(Error::CallArguments {
                function: self.name.as_deref().unwrap_or("an implicit function").to_owned(),
                what: "operands",
                expected: n,
                got: x.len(),
                location: SourceLocation::new(location),
            });
            return vec![Var::poisoned(); q];
        }
        record_call(&Function::new(self.name.clone(), Kind::Implicit(self.system.clone()), n, q), x, location)
    }
}

impl System {
    pub fn equations(&self) -> &Tape {
        &self.0.g
    }

    fn unknowns(&self) -> usize {
        self.0.g.num_outputs()
    }

    fn solve(&self, x: &[f64], memory: &mut FunctionMemory) -> Result<Vec<f64>, Error> {
        match &self.0.solver {
            Solver::User(solver) => {
                let y = solver(x).map_err(|reason| Error::SolverFailed { function: self.name(), reason })?;
                expect_len("y (what the solver gives: one number per unknown)", y.len(), self.unknowns())?;
                Ok(y)
            }
            Solver::Tangent(base) => {
                let n = x.len() / 2;
                let mut y = NumberVec::default();
                y.reset(base.unknowns(), 1);
                base.values(1, Numbers { v: &x[..n], t: &x[n..] }, y.view_mut(), memory)?;
                Ok(y.v.into_iter().chain(y.t).collect())
            }
        }
    }

    fn name(&self) -> String {
        self.0.g.name.as_deref().unwrap_or("an implicit function").to_owned()
    }

    /// The inputs of g: x and y, with their tangents.
    fn point(&self, k: usize, x: Numbers<'_>, y: Numbers<'_>) -> NumberVec {
        let mut point = NumberVec::default();
        point.reset(self.0.inputs.len(), k);
        for (i, &input) in self.0.inputs.iter().enumerate() {
            match input {
                Input::Operand(operand) => point.set(i, x.get(operand as usize, k)),
                Input::Unknown(unknown) => point.set(i, y.get(unknown as usize, k)),
            }
        }
        point
    }

    /// y, and ∂g/∂y there, decomposed; none where a number is not finite.
    fn solved(&self, x: &[f64], memory: &mut FunctionMemory) -> Result<(Vec<f64>, Option<Lu>), Error> {
        let y = self.solve(x, memory)?;
        if x.iter().chain(&y).any(|number| !number.is_finite()) {
            return Ok((y, None));
        }
        let (n, q) = (self.0.num_operands, self.unknowns());
        // A unit seed for each unknown: the tangents of g are ∂g/∂y.
        let (mut seeds, mut units) = (NumberVec::default(), NumberVec::default());
        seeds.reset(n, q);
        units.reset(q, q);
        for unknown in 0..q {
            units.t[unknown * q + unknown] = 1.0;
        }
        let point = self.point(q, Numbers { v: x, t: &seeds.t }, Numbers { v: &y, t: &units.t });
        let mut g = NumberVec::default();
        g.reset(q, q);
        self.0.g.body_values(memory.body(), q, point.view(), g.view_mut())?;
        let lu = Lu::new(q, g.t);
        let condition = lu.condition();
        if !(condition <= SINGULAR) {
            return Err(Error::SingularImplicit { function: self.name(), condition });
        }
        lu.solve(&mut g.v);
        let largest = |numbers: &[f64]| numbers.iter().fold(0.0_f64, |largest, number| largest.max(number.abs()));
        let (step, limit) = (largest(&g.v), UNSOLVED * (1.0 + largest(&y)));
        if !(step <= limit) {
            return Err(Error::NotSolved { function: self.name(), step, limit });
        }
        Ok((y, Some(lu)))
    }

    /// y and ẏ, by g_y·ẏ = −g_x·ẋ.
    pub fn values(
        &self,
        k: usize,
        x: Numbers<'_>,
        y: NumbersMut<'_>,
        memory: &mut FunctionMemory,
    ) -> Result<(), Error> {
        let (solution, lu) = self.solved(x.v, memory)?;
        y.v.copy_from_slice(&solution);
        if k == 0 {
            return Ok(());
        }
        let Some(lu) = lu else {
            y.t.fill(f64::NAN);
            return Ok(());
        };
        let q = self.unknowns();
        let still = vec![0.0; q * k];
        let point = self.point(k, x, Numbers { v: y.v, t: &still });
        let mut g = NumberVec::default();
        g.reset(q, k);
        self.0.g.body_values(memory.body(), k, point.view(), g.view_mut())?;
        let mut column = vec![0.0; q];
        for d in 0..k {
            for (j, number) in column.iter_mut().enumerate() {
                *number = -g.t[j * k + d];
            }
            lu.solve(&mut column);
            for (j, &number) in column.iter().enumerate() {
                y.t[j * k + d] = number;
            }
        }
        Ok(())
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
        let mut y = NumberVec::default();
        y.reset(q, k);
        // With the tangents of y, if they are wanted.
        self.values(k, x, y.view_mut(), memory)?;
        let (_, lu) = self.solved(x.v, memory)?;
        let Some(lu) = lu else {
            xbar.v.fill(f64::NAN);
            xbar.t.fill(f64::NAN);
            return Ok(());
        };
        let point = self.point(k, x, y.view());
        let (mut lambda, mut of_inputs) = (NumberVec::default(), NumberVec::default());
        lambda.reset(q, k);
        lambda.v.copy_from_slice(w.v);
        lu.solve_transposed(&mut lambda.v);
        of_inputs.reset(self.0.inputs.len(), k);
        if k > 0 {
            self.0.g.body_adjoints(memory.body(), k, point.view(), lambda.view(), of_inputs.view_mut())?;
            let mut column = vec![0.0; q];
            for d in 0..k {
                for (i, &input) in self.0.inputs.iter().enumerate() {
                    if let Input::Unknown(unknown) = input {
                        let place = unknown as usize;
                        column[place] = w.t[place * k + d] - of_inputs.t[i * k + d];
                    }
                }
                lu.solve_transposed(&mut column);
                for (j, &number) in column.iter().enumerate() {
                    lambda.t[j * k + d] = number;
                }
            }
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
    }

    /// TF is the solution (y, ẏ) of g(x, y) = 0 and g_x·ẋ + g_y·ẏ = 0.
    pub fn tangent(&self, name: Option<Arc<str>>, n: usize, q: usize) -> Result<Tangent, Error> {
        let shifted = |&input: &Input| match input {
            Input::Operand(operand) => Input::Operand(operand + n as u32),
            Input::Unknown(unknown) => Input::Unknown(unknown + q as u32),
        };
        let system = System(Arc::new(Data {
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

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("equations", &self.0.g).finish_non_exhaustive()
    }
}

/// A square matrix as a product of triangular ones, rows exchanged: PA = LU.
///
/// Written out here: it is short, its bits may not depend on a library's, and
/// this crate is to stay light.
struct Lu {
    n: usize,
    /// L below the diagonal, whose ones are left out, and U.
    factors: Vec<f64>,
    /// Which row was taken at each step.
    pivots: Vec<usize>,
    /// The largest sum of magnitudes in a column of A.
    norm: f64,
}

impl Lu {
    fn new(n: usize, mut a: Vec<f64>) -> Lu {
        let norm = (0..n).map(|j| (0..n).map(|i| a[i * n + j].abs()).sum::<f64>()).fold(0.0, f64::max);
        let mut pivots = Vec::with_capacity(n);
        for step in 0..n {
            let below = (step..n).max_by(|&i, &j| a[i * n + step].abs().total_cmp(&a[j * n + step].abs()));
            let pivot = below.unwrap_or(step);
            pivots.push(pivot);
            for j in 0..n {
                a.swap(step * n + j, pivot * n + j);
            }
            for i in step + 1..n {
                let factor = a[i * n + step] / a[step * n + step];
                a[i * n + step] = factor;
                for j in step + 1..n {
                    a[i * n + j] -= factor * a[step * n + j];
                }
            }
        }
        Lu { n, factors: a, pivots, norm }
    }

    /// Replaces b by A⁻¹·b.
    fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        for (step, &pivot) in self.pivots.iter().enumerate() {
            b.swap(step, pivot);
        }
        for i in 0..n {
            for j in 0..i {
                b[i] -= self.factors[i * n + j] * b[j];
            }
        }
        for i in (0..n).rev() {
            for j in i + 1..n {
                b[i] -= self.factors[i * n + j] * b[j];
            }
            b[i] /= self.factors[i * n + i];
        }
    }

    /// Replaces b by A⁻ᵀ·b.
    fn solve_transposed(&self, b: &mut [f64]) {
        let n = self.n;
        for i in 0..n {
            for j in 0..i {
                b[i] -= self.factors[j * n + i] * b[j];
            }
            b[i] /= self.factors[i * n + i];
        }
        for i in (0..n).rev() {
            for j in i + 1..n {
                b[i] -= self.factors[j * n + i] * b[j];
            }
        }
        for (step, &pivot) in self.pivots.iter().enumerate().rev() {
            b.swap(step, pivot);
        }
    }

    /// ‖A‖₁·‖A⁻¹‖₁; infinite or NaN for a singular matrix.
    fn condition(&self) -> f64 {
        let mut largest = 0.0_f64;
        let mut column = vec![0.0; self.n];
        for j in 0..self.n {
            column.fill(0.0);
            column[j] = 1.0;
            self.solve(&mut column);
            let sum: f64 = column.iter().map(|number| number.abs()).sum();
            if !sum.is_finite() {
                return f64::INFINITY;
            }
            largest = largest.max(sum);
        }
        self.norm * largest
    }
}
