use crate::differentiable::{check_batch, check_lengths, check_point};
use crate::lbfgs::dot;
use crate::outcome::number;
use crate::risk::in_one_line;
use crate::rule::StateVisitor;
use crate::rules::check_not_negative;
use crate::run::norm;
use crate::{Differentiable, Error, Iterate, Method, Oracle, StopReason, Update};
use ad_core::{Matrix, Samples, Tape, Workspace};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Half the sum of the squares of residuals, one for each output of a tape.
///
/// With the tape's outputs r₁ … rₘ at the unknowns x, and J their Jacobian:
///
/// ```text
/// f(x) = ½·‖r(x)‖²        ∇f = Jᵀ·r
/// ```
///
/// [`LevenbergMarquardt`] and [`GaussNewton`] take r and J themselves; every other rule can minimise f. The residuals are
/// the outputs of one tape, [`new`](LeastSquares::new), or those of a tape for each of many samples, its parameters,
/// [`over_samples`](LeastSquares::over_samples). Either way the objective has one sample: all residuals belong to each
/// evaluation. For minibatches, record the loss of one sample and use [`EmpiricalRisk`](crate::EmpiricalRisk).
///
/// # Example
///
/// The model b₁·(1 − exp(−b₂·u)) through six points, and how well they determine it.
///
/// ```
/// use ad_core::{Samples, Tape};
/// use ad_optim::{LeastSquares, LevenbergMarquardt, Trainer};
///
/// let residual = Tape::builder()
///     .inputs(&["b1", "b2"], &[1.0, 1.0])
///     .params(&["u", "y"], &[0.0, 0.0])
///     .record(|b, k| b[0] * (1.0 - (-b[1] * k[0]).exp()) - k[1])?;
/// let data = [1.0, 8.3, 2.0, 10.3, 3.0, 19.0, 4.0, 16.0, 5.0, 15.6, 7.0, 19.8];
/// let samples = Samples::from_rows(&residual, &data)?;
/// let fit = LeastSquares::over_samples(residual, samples)?;
/// let out = Trainer::new(&fit, LevenbergMarquardt::new(), vec![10.0, 1.0]).run()?;
/// let statistics = fit.statistics(&out.x)?;
/// println!("{statistics}");
/// assert!((out.x[0] - 19.143).abs() < 1e-3 && (out.x[1] - 0.5311).abs() < 1e-4);
/// assert!((statistics.standard_errors[1] - 0.2031).abs() < 1e-3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LeastSquares {
    /// Their outputs, one tape after the other, are the residuals. There is at least one, and all have the same shape.
    tapes: Vec<Tape>,
    /// Scratch memory, one a thread that evaluates at the same time.
    scratch: Mutex<Vec<Scratch>>,
}

#[derive(Default)]
struct Scratch {
    workspace: Workspace,
    residuals: Vec<f64>,
    outputs: Vec<f64>,
    gradient: Vec<f64>,
    jacobian: Option<Matrix>,
}

impl LeastSquares {
    /// The residuals are the outputs of `tape`.
    ///
    /// # Errors
    ///
    /// [`Error::NoResiduals`] if it has none.
    pub fn new(tape: Tape) -> Result<Self, Error> {
        match tape.num_outputs() {
            0 => Err(Error::NoResiduals),
            _ => Ok(LeastSquares { tapes: vec![tape], scratch: Mutex::default() }),
        }
    }

    /// The residuals are the outputs of `tape` at the parameters of each sample, sample by sample.
    ///
    /// # Errors
    ///
    /// [`Error::NoResiduals`] if the tape has no output, and [`Error::ParameterMismatch`] unless each sample has as many
    /// values as the tape has parameters.
    pub fn over_samples(tape: Tape, samples: Samples) -> Result<Self, Error> {
        if tape.num_outputs() == 0 {
            return Err(Error::NoResiduals);
        }
        if samples.width() != tape.num_params() {
            return Err(Error::ParameterMismatch { tape: tape.num_params(), sample: samples.width() });
        }
        // Tapes with other parameters share all but these. There is at least one, as there is at least one sample.
        let tapes: Result<Vec<Tape>, _> = (0..samples.len()).map(|i| tape.with_params(samples.row(i))).collect();
        Ok(LeastSquares { tapes: tapes?, scratch: Mutex::default() })
    }

    /// The number m of residuals.
    pub fn num_residuals(&self) -> usize {
        self.tapes.len() * self.outputs()
    }

    /// The number of outputs of each tape.
    fn outputs(&self) -> usize {
        self.tapes[0].num_outputs()
    }

    /// What the residuals say about the unknowns at `x`, as a rule the minimum.
    ///
    /// ```
    /// use ad_core::Tape;
    /// use ad_optim::LeastSquares;
    ///
    /// // The mean of four numbers: 6, with the standard error σ/√4.
    /// let mean = LeastSquares::new(Tape::record(&[0.0], |x| [3.0, 5.0, 7.0, 9.0].map(|y| x[0] - y))?)?;
    /// assert_eq!(
    ///     mean.statistics(&[6.0])?.to_string(),
    ///     "\
    /// residuals           4
    /// degrees of freedom  3
    /// sum of squares      20
    /// standard deviation  2.58199
    /// x1                  6 ± 1.29099
    /// "
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::DimensionMismatch`] unless `x` has one component for each unknown; [`Error::NonFiniteFit`] where a residual
    /// or a derivative is not finite; [`Error::RankDeficient`] where the residuals do not determine all unknowns; [`Error::Core`] when the tape cannot be replayed.
    pub fn statistics(&self, x: &[f64]) -> Result<FitStatistics, Error> {
        let (mut residuals, mut jacobian) = (Vec::new(), Matrix::zeros(0, 0));
        self.residuals_and_jacobian(x, &mut residuals, &mut jacobian)?;
        if residuals.iter().chain(jacobian.as_slice()).any(|number| !number.is_finite()) {
            let detail = self.describe_non_finite(x, 0).unwrap_or_default();
            return Err(Error::NonFiniteFit { detail });
        }
        let (m, n) = (residuals.len(), x.len());
        let sum_of_squares = dot(&residuals, &residuals);
        let degrees_of_freedom = m.saturating_sub(n);
        let variance = sum_of_squares / degrees_of_freedom as f64;
        let mut triangle = Triangle::default();
        triangle.reduce(&jacobian, &residuals);
        triangle.check_rank("LeastSquares::statistics", m)?;
        // (JᵀJ)⁻¹ = R⁻¹·R⁻ᵀ; column j of R⁻ᵀ solves Rᵀz = eⱼ.
        let mut covariance = Matrix::zeros(n, n);
        for j in 0..n {
            let mut column = vec![0.0; n];
            column[j] = 1.0;
            triangle.solve_transposed(&mut column);
            triangle.solve(&mut column);
            for (i, entry) in column.iter().enumerate() {
                covariance[(i, j)] = if degrees_of_freedom > 0 { variance * entry } else { f64::NAN };
            }
        }
        // Roundings must not make it asymmetric.
        for i in 0..n {
            for j in 0..i {
                let mean = 0.5 * (covariance[(i, j)] + covariance[(j, i)]);
                (covariance[(i, j)], covariance[(j, i)]) = (mean, mean);
            }
        }
        let standard_errors = (0..n).map(|i| covariance[(i, i)].sqrt()).collect();
        let standard_deviation = if degrees_of_freedom > 0 { variance.sqrt() } else { f64::NAN };
        Ok(FitStatistics {
            x: x.to_vec(),
            names: self.names(),
            residuals,
            sum_of_squares,
            degrees_of_freedom,
            standard_deviation,
            standard_errors,
            covariance,
        })
    }

    /// Lends scratch memory of the pool.
    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        // A thread that panicked took its scratch memory with it, so the pool behind a poisoned lock is sound.
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = work(&mut scratch);
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }

    fn residuals_into(&self, workspace: &mut Workspace, x: &[f64], residuals: &mut Vec<f64>) -> Result<(), Error> {
        residuals.resize(self.num_residuals(), 0.0);
        for (tape, outputs) in self.tapes.iter().zip(residuals.chunks_exact_mut(self.outputs())) {
            tape.eval_into(workspace, x, outputs)?;
        }
        Ok(())
    }
}

impl fmt::Debug for LeastSquares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeastSquares")
            .field("dim", &self.dim())
            .field("num_residuals", &self.num_residuals())
            .finish_non_exhaustive()
    }
}

impl Differentiable for LeastSquares {
    fn dim(&self) -> usize {
        self.tapes[0].num_inputs()
    }

    fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        check_lengths(self.dim(), x, grad)?;
        check_batch(1, batch)?;
        self.with_scratch(|scratch| {
            let Scratch { workspace, residuals, outputs, gradient, .. } = scratch;
            self.residuals_into(workspace, x, residuals)?;
            let value = 0.5 * dot(residuals, residuals);
            if residuals.iter().any(|residual| !residual.is_finite()) {
                // Adjoints have finite seeds; the value tells what happened.
                grad.fill(f64::NAN);
                return Ok(value);
            }
            outputs.resize(self.outputs(), 0.0);
            gradient.resize(x.len(), 0.0);
            for (i, (tape, weights)) in self.tapes.iter().zip(residuals.chunks_exact(self.outputs())).enumerate() {
                match i {
                    0 => tape.vjp_into(workspace, x, weights, outputs, grad)?,
                    _ => {
                        tape.vjp_into(workspace, x, weights, outputs, gradient)?;
                        grad.iter_mut().zip(&*gradient).for_each(|(sum, g)| *sum += g);
                    }
                }
            }
            Ok(value)
        })
    }

    fn residuals_and_jacobian(&self, x: &[f64], residuals: &mut Vec<f64>, jacobian: &mut Matrix) -> Result<(), Error> {
        check_point(self.dim(), x)?;
        let (m, n) = (self.num_residuals(), self.dim());
        if (jacobian.rows(), jacobian.cols()) != (m, n) {
            *jacobian = Matrix::zeros(m, n);
        }
        self.with_scratch(|scratch| {
            self.residuals_into(&mut scratch.workspace, x, residuals)?;
            if let [tape] = &self.tapes[..] {
                return Ok(tape.jacobian_into(&mut scratch.workspace, x, jacobian)?);
            }
            let part = scratch.jacobian.get_or_insert_with(|| Matrix::zeros(self.outputs(), n));
            for (tape, rows) in self.tapes.iter().zip(jacobian.as_mut_slice().chunks_exact_mut(self.outputs() * n)) {
                tape.jacobian_into(&mut scratch.workspace, x, part)?;
                rows.copy_from_slice(part.as_slice());
            }
            Ok(())
        })
    }

    /// Names the first residual that is NaN or infinite, or else the first derivative of one, the row that is to blame,
    /// and the sample it belongs to where there are several.
    fn describe_non_finite(&self, x: &[f64], _sample: usize) -> Option<String> {
        let (mut residuals, mut jacobian) = (Vec::new(), Matrix::zeros(0, 0));
        self.residuals_and_jacobian(x, &mut residuals, &mut jacobian).ok()?;
        let first = |numbers: &[f64]| numbers.iter().position(|number| !number.is_finite());
        let (index, unknown, value) = match first(&residuals) {
            Some(index) => (index, None, residuals[index]),
            None => {
                let place = first(jacobian.as_slice())?;
                (place / x.len(), Some(place % x.len()), jacobian.as_slice()[place])
            }
        };
        let (tape, output) = (&self.tapes[index / self.outputs()], index % self.outputs());
        let found = match unknown {
            None => tape.diagnose(x, &vec![0.0; x.len()]),
            Some(_) => {
                let mut weights = vec![0.0; self.outputs()];
                weights[output] = 1.0;
                tape.diagnose_adjoint(x, &weights)
            }
        };
        let cause = match found {
            Ok(Some(found)) => format!(", since {}", in_one_line(&found)),
            _ => String::new(),
        };
        let sample = match self.tapes.len() {
            1 => String::new(),
            _ => format!(" (sample {})", index / self.outputs()),
        };
        let what = match unknown {
            None => format!("residual {index}{sample}"),
            Some(unknown) => {
                let names = self.names();
                let name = names.get(unknown).map_or_else(|| format!("unknown {unknown}"), Clone::clone);
                format!("the derivative of residual {index}{sample} by {name}")
            }
        };
        Some(format!("{what} is {value}{cause}; start nearer to the minimum, or look at the data"))
    }

    fn names(&self) -> Vec<String> {
        self.tapes[0].input_names()
    }
}

/// What the residuals of a fit say about its unknowns, by [`LeastSquares::statistics`].
///
/// With m residuals r, n unknowns and the Jacobian J, to first order about the minimum and for independent errors of
/// one variance:
///
/// ```text
/// σ² = ‖r‖²/(m − n)        covariance = σ²·(JᵀJ)⁻¹        standard errors = √ of its diagonal
/// ```
///
/// `Display` prints a table, as the example of [`LeastSquares::statistics`] shows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FitStatistics {
    /// The unknowns.
    pub x: Vec<f64>,
    /// Their names, as the tape was given them; empty if it was given none.
    pub names: Vec<String>,
    /// The residuals there.
    pub residuals: Vec<f64>,
    /// The sum of their squares, ‖r‖², which is twice the value of the objective.
    pub sum_of_squares: f64,
    /// m − n.
    pub degrees_of_freedom: usize,
    /// σ, the standard deviation of a residual; NaN without degrees of freedom.
    pub standard_deviation: f64,
    /// The standard error of each unknown; NaN without degrees of freedom.
    pub standard_errors: Vec<f64>,
    /// The covariance matrix of the unknowns; NaN without degrees of freedom.
    pub covariance: Matrix,
}

impl fmt::Display for FitStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(6);
        let number = |v| number(v, digits);
        writeln!(f, "residuals           {}", self.residuals.len())?;
        writeln!(f, "degrees of freedom  {}", self.degrees_of_freedom)?;
        writeln!(f, "sum of squares      {}", number(self.sum_of_squares))?;
        writeln!(f, "standard deviation  {}", number(self.standard_deviation))?;
        for (i, (x, error)) in self.x.iter().zip(&self.standard_errors).enumerate() {
            let name = self.names.get(i).map_or_else(|| format!("x{}", i + 1), Clone::clone);
            writeln!(f, "{name:<18}  {} ± {}", number(*x), number(*error))?;
        }
        Ok(())
    }
}

/// The method of Levenberg and Marquardt for [`LeastSquares`]: Gauss–Newton steps, damped towards short steps down the
/// gradient as far as the model of the step was wrong.
///
/// With residuals r, Jacobian J, damping λ, and D the diagonal matrix of the largest norms that the columns of J had so
/// far:
///
/// ```text
/// (JᵀJ + λ·D²)·δ = Jᵀr,  solved by QR of J and then of [R; √λ·D]          x ← x − δ
/// ρ = (f(x) − f(x − δ)) / (½·‖Jδ‖² + λ·‖Dδ‖²),  the decrease over the predicted one
/// ρ > 0:  the step is taken,  λ ← λ·max(1/3, 1 − (2ρ − 1)³),  ν ← 2
/// else:   another one is tried with  λ ← λ·ν,  ν ← 2·ν
/// ```
///
/// It ends with [`StopReason::SmallStep`] when ‖Dδ‖ ≤ `x_tol`·‖Dx‖, and with [`StopReason::SmallDecrease`] when the
/// decrease and the predicted one are at most `f_tol`·f; and like any run by the stop rules of the trainer. Scaling by D
/// makes the steps independent of the units of the unknowns. The rank of J does not matter.
///
/// Sources: Levenberg, *Quart. Appl. Math.* 2 (1944); Marquardt, *SIAM J. Appl. Math.* 11 (1963); D as by Moré, *Lecture
/// Notes in Math.* 630 (1978); the change of λ by Nielsen, report IMM-REP-1999-05. Defaults: λ starts at 1e-3, `x_tol`
/// = 1e-10, `f_tol` = 1e-14.
///
/// MINPACK, which SciPy's `least_squares(method="lm")` calls, keeps the length ‖Dδ‖ within a trust region and finds the λ
/// that belongs to it; Ceres changes λ as here, and scales by the present columns of J alone. torch and optax have none.
///
/// # Errors
///
/// Of the run: [`Error::NoResiduals`] for objectives that are no [`LeastSquares`], [`Error::NeedsFullBatches`] for
/// minibatches; λ must be positive and finite, the
/// tolerances finite and at least 0.
///
/// # Example
///
/// [`LeastSquares`] has one that fits data. Rosenbrock's function is a sum of squares, too:
///
/// ```
/// use ad_core::Tape;
/// use ad_optim::{LeastSquares, LevenbergMarquardt, Trainer};
///
/// let residuals = Tape::record(&[1.0, 1.0], |x| [10.0 * (x[1] - x[0] * x[0]), 1.0 - x[0]])?;
/// let fit = LeastSquares::new(residuals)?;
/// let out = Trainer::new(&fit, LevenbergMarquardt::new(), vec![-1.2, 1.0]).run()?;
/// assert!((out.x[0] - 1.0).abs() < 1e-12 && out.steps < 30);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LevenbergMarquardt {
    damping: f64,
    x_tol: f64,
    f_tol: f64,
}

/// What [`LevenbergMarquardt`] remembers between steps: λ, ν and D.
#[derive(Clone, Debug, PartialEq)]
pub struct LevenbergMarquardtState {
    damping: f64,
    growth: f64,
    scale: Vec<f64>,
    work: LeastSquaresWork,
}

/// Room for r, J and their factors.
#[derive(Clone, Debug, PartialEq)]
struct LeastSquaresWork {
    residuals: Vec<f64>,
    jacobian: Matrix,
    triangle: Triangle,
    damped: Triangle,
    gradient: Vec<f64>,
}

impl LeastSquaresWork {
    fn new(dim: usize) -> Self {
        LeastSquaresWork {
            residuals: Vec::new(),
            jacobian: Matrix::zeros(0, 0),
            triangle: Triangle::default(),
            damped: Triangle::default(),
            gradient: vec![0.0; dim],
        }
    }

    /// Factors the Jacobian at x; `false` if it is not finite, which no step can mend.
    fn factor(&mut self, oracle: &mut Oracle<'_>) -> Result<bool, Error> {
        oracle.residuals(&mut self.residuals, &mut self.jacobian)?;
        self.triangle.reduce(&self.jacobian, &self.residuals);
        Ok(self.jacobian.as_slice().iter().chain(&self.residuals).all(|entry| entry.is_finite()))
    }
}

impl LevenbergMarquardt {
    /// The method with its defaults.
    #[expect(clippy::new_without_default, reason = "methods are made by new, like all rules")]
    pub fn new() -> Self {
        LevenbergMarquardt { damping: 1e-3, x_tol: 1e-10, f_tol: 1e-14 }
    }

    /// Sets the λ to start with; default 1e-3. Larger where the start is far from the minimum.
    pub fn damping(self, lambda: f64) -> Self {
        LevenbergMarquardt { damping: lambda, ..self }
    }

    /// Sets the relative length of a step that ends the run; default 1e-10.
    pub fn x_tol(self, tol: f64) -> Self {
        LevenbergMarquardt { x_tol: tol, ..self }
    }

    /// Sets the relative decrease that ends the run; default 1e-14.
    pub fn f_tol(self, tol: f64) -> Self {
        LevenbergMarquardt { f_tol: tol, ..self }
    }
}

impl Method for LevenbergMarquardt {
    type State = LevenbergMarquardtState;

    fn prepare(&self, dim: usize) -> Result<LevenbergMarquardtState, Error> {
        const OWNER: &str = "LevenbergMarquardt";
        if !(self.damping.is_finite() && self.damping > 0.0) {
            return Err(Error::setting(OWNER, "damping", self.damping, "positive and finite; 1e-3 is usual"));
        }
        check_not_negative(OWNER, "x_tol", self.x_tol)?;
        check_not_negative(OWNER, "f_tol", self.f_tol)?;
        let (damping, scale) = (self.damping, vec![0.0; dim]);
        Ok(LevenbergMarquardtState { damping, growth: 2.0, scale, work: LeastSquaresWork::new(dim) })
    }

    fn advance(
        &self,
        state: &mut LevenbergMarquardtState,
        at: &Iterate<'_>,
        update: &mut Update<'_>,
        oracle: &mut Oracle<'_>,
    ) -> Result<Option<StopReason>, Error> {
        /// Below it a step is Gauss–Newton's, whatever the rank.
        const LEAST_DAMPING: f64 = 1e-30;
        let LevenbergMarquardtState { damping, growth, scale, work } = state;
        if !work.factor(oracle)? {
            update.delta.fill(f64::NAN);
            return Ok(None);
        }
        for (j, scale) in scale.iter_mut().enumerate() {
            *scale = scale.max(work.triangle.column_norm(j));
        }
        // A column of zeros says nothing about its unknown: any scale will do.
        let scale_of = |j: usize| if scale[j] > 0.0 { scale[j] } else { 1.0 };
        let scaled = |v: &[f64]| v.iter().enumerate().map(|(j, v)| scale_of(j) * v).collect::<Vec<f64>>();
        let length_of_x = norm(&scaled(at.x));
        loop {
            work.damped.reduce_damped(&work.triangle, |j| damping.sqrt() * scale_of(j));
            update.delta.copy_from_slice(work.damped.right_side());
            work.damped.solve(update.delta);
            let length = norm(&scaled(update.delta));
            let along = norm(&work.triangle.product(update.delta));
            let predicted = 0.5 * along * along + *damping * length * length;
            // Beyond the largest damping there is no shorter step.
            let is_short = length <= self.x_tol * length_of_x || *damping == f64::INFINITY;
            let value = match length.is_finite() {
                true => oracle.evaluate(update.delta, &mut work.gradient)?,
                false => f64::NAN,
            };
            let decrease = at.value - value;
            if decrease > 0.0 && value.is_finite() {
                let wrong = 2.0 * (decrease / predicted) - 1.0;
                *damping = (*damping * (1.0 - wrong * wrong * wrong).max(1.0 / 3.0)).max(LEAST_DAMPING);
                *growth = 2.0;
                let enough = self.f_tol * at.value;
                return Ok(match () {
                    () if is_short => Some(StopReason::SmallStep),
                    () if decrease <= enough && predicted <= enough => Some(StopReason::SmallDecrease),
                    () => None,
                });
            }
            if is_short || (value == at.value && predicted <= self.f_tol * at.value) {
                update.delta.fill(0.0);
                return Ok(Some(if is_short { StopReason::SmallStep } else { StopReason::SmallDecrease }));
            }
            *damping *= *growth;
            *growth *= 2.0;
        }
    }

    fn needs_full_batches(&self) -> Option<&'static str> {
        Some("LevenbergMarquardt")
    }

    fn report_settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("damping", self.damping);
        report("x_tol", self.x_tol);
        report("f_tol", self.f_tol);
    }

    fn visit(&self, state: &mut LevenbergMarquardtState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        let mut numbers = [state.damping, state.growth];
        visitor.floats("damping and its growth", &mut numbers)?;
        [state.damping, state.growth] = numbers;
        visitor.floats("scale", &mut state.scale)
    }
}

/// The method of Gauss and Newton for [`LeastSquares`], with its steps halved until the value falls.
///
/// With residuals r and Jacobian J:
///
/// ```text
/// δ = argmin ‖J·δ − r‖,  by QR of J          x ← x − a·δ,   a the first of 1, ½, ¼, … with
/// f(x − a·δ) ≤ f(x) − 1e-4·a·‖Jδ‖²
/// ```
///
/// For problems that are nearly linear, or whose residuals are small at the minimum, and for starts not far from it;
/// [`LevenbergMarquardt`] needs neither. It ends as that does, with `x_tol` = 1e-10 and `f_tol` = 1e-14 by default,
/// and with [`StopReason::NoDescent`] where no a will do. Sources: Gauss, *Theoria motus* (1809); the search is
/// Armijo's (1966). torch and optax have none.
///
/// The reported rate is a.
///
/// # Errors
///
/// Of the run: [`Error::NoResiduals`] for objectives that are no [`LeastSquares`], [`Error::RankDeficient`] where the
/// columns of J depend on each other, and the tolerances must be finite and at least 0.
///
/// # Example
///
/// ```
/// use ad_core::Tape;
/// use ad_optim::{GaussNewton, LeastSquares, StopReason, Trainer};
///
/// // A line through three points: linear, so that one step finds it.
/// let line = Tape::record(&[0.0, 0.0], |b| [b[0] - 1.0, b[0] + b[1] - 2.0, b[0] + 2.0 * b[1] - 4.0])?;
/// let fit = LeastSquares::new(line)?;
/// let out = Trainer::new(&fit, GaussNewton::new(), vec![0.0, 0.0]).max_steps(1).run()?;
/// assert!((out.x[0] - 5.0 / 6.0).abs() < 1e-15 && (out.x[1] - 1.5).abs() < 1e-15);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GaussNewton {
    x_tol: f64,
    f_tol: f64,
}

/// Room that [`GaussNewton`] works in; it remembers nothing between steps.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussNewtonState(LeastSquaresWork);

impl GaussNewton {
    /// The method with its defaults.
    #[expect(clippy::new_without_default, reason = "methods are made by new, like all rules")]
    pub fn new() -> Self {
        GaussNewton { x_tol: 1e-10, f_tol: 1e-14 }
    }

    /// Sets the length of a step, relative to that of x, that ends the run; default 1e-10. Lengths are scaled by the
    /// norms of the columns of J.
    pub fn x_tol(self, tol: f64) -> Self {
        GaussNewton { x_tol: tol, ..self }
    }

    /// Sets the relative decrease that ends the run; default 1e-14.
    pub fn f_tol(self, tol: f64) -> Self {
        GaussNewton { f_tol: tol, ..self }
    }
}

impl Method for GaussNewton {
    type State = GaussNewtonState;

    fn prepare(&self, dim: usize) -> Result<GaussNewtonState, Error> {
        check_not_negative("GaussNewton", "x_tol", self.x_tol)?;
        check_not_negative("GaussNewton", "f_tol", self.f_tol)?;
        Ok(GaussNewtonState(LeastSquaresWork::new(dim)))
    }

    fn advance(
        &self,
        GaussNewtonState(work): &mut GaussNewtonState,
        at: &Iterate<'_>,
        update: &mut Update<'_>,
        oracle: &mut Oracle<'_>,
    ) -> Result<Option<StopReason>, Error> {
        const DECREASE: f64 = 1e-4;
        const LEAST_RATE: f64 = f64::EPSILON;
        if !work.factor(oracle)? {
            update.delta.fill(f64::NAN);
            return Ok(None);
        }
        let triangle = &work.triangle;
        triangle.check_rank("GaussNewton", work.residuals.len())?;
        update.delta.copy_from_slice(triangle.right_side());
        triangle.solve(update.delta);
        let along = norm(&triangle.product(update.delta));
        let scaled =
            |v: &[f64]| norm(&v.iter().enumerate().map(|(j, v)| triangle.column_norm(j) * v).collect::<Vec<f64>>());
        let (length_of_x, mut rate) = (scaled(at.x), 1.0);
        loop {
            let length = scaled(update.delta);
            let is_short = length <= self.x_tol * length_of_x;
            let value = oracle.evaluate(update.delta, &mut work.gradient)?;
            let predicted = rate * (1.0 - 0.5 * rate) * along * along;
            let decrease = at.value - value;
            if decrease > 0.0 && decrease >= DECREASE * rate * along * along && value.is_finite() {
                update.rate *= rate;
                let enough = self.f_tol * at.value;
                return Ok(match () {
                    () if is_short => Some(StopReason::SmallStep),
                    () if decrease <= enough && predicted <= enough => Some(StopReason::SmallDecrease),
                    () => None,
                });
            }
            if is_short || predicted <= self.f_tol * at.value || rate < LEAST_RATE {
                update.delta.fill(0.0);
                return Ok(Some(match () {
                    // The full step was long, and no part of it led down.
                    () if rate < 1.0 => StopReason::NoDescent,
                    () if is_short => StopReason::SmallStep,
                    () => StopReason::SmallDecrease,
                }));
            }
            rate *= 0.5;
            update.delta.iter_mut().for_each(|d| *d *= 0.5);
        }
    }

    fn needs_full_batches(&self) -> Option<&'static str> {
        Some("GaussNewton")
    }

    fn report_settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("x_tol", self.x_tol);
        report("f_tol", self.f_tol);
    }

    fn visit(&self, _state: &mut GaussNewtonState, _visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        Ok(())
    }
}

/// The triangle R of A = Q·R, with Qᵀb beside it, by Householder reflections.
#[derive(Clone, Debug, Default, PartialEq)]
struct Triangle {
    /// A with b as its last column, column by column; once reduced, R stands in the upper n rows.
    columns: Vec<f64>,
    rows: usize,
    n: usize,
}

impl Triangle {
    /// R and Qᵀb of a matrix and a right side.
    fn reduce(&mut self, matrix: &Matrix, right_side: &[f64]) {
        let (m, n) = (matrix.rows(), matrix.cols());
        self.clear(m.max(n), n);
        for i in 0..m {
            for (j, entry) in matrix.row(i).iter().enumerate() {
                self.columns[j * self.rows + i] = *entry;
            }
        }
        let rows = self.rows;
        self.columns[n * rows..n * rows + m].copy_from_slice(right_side);
        self.reflect();
    }

    /// R and Qᵀb of the triangle `upper` with a diagonal matrix below it, and zeros below its right side.
    fn reduce_damped(&mut self, upper: &Triangle, diagonal: impl Fn(usize) -> f64) {
        let n = upper.n;
        self.clear(2 * n, n);
        for j in 0..=n {
            self.columns[j * 2 * n..][..n].copy_from_slice(&upper.columns[j * upper.rows..][..n]);
        }
        for j in 0..n {
            self.columns[j * 2 * n + n + j] = diagonal(j);
        }
        self.reflect();
    }

    fn clear(&mut self, rows: usize, n: usize) {
        (self.rows, self.n) = (rows, n);
        self.columns.clear();
        self.columns.resize(rows * (n + 1), 0.0);
    }

    /// Reflects each column on its axis, and all columns after it alike.
    fn reflect(&mut self) {
        let (rows, n) = (self.rows, self.n);
        for j in 0..n {
            let (done, rest) = self.columns.split_at_mut((j + 1) * rows);
            let axis = &mut done[j * rows + j..];
            let length = norm(axis);
            if length == 0.0 {
                continue;
            }
            // v = a + sign(a₁)·‖a‖·e₁, whose first component cannot cancel; scaled so that vᵀv = 2·v₁ does not overflow.
            let signed = length.copysign(axis[0]);
            axis.iter_mut().for_each(|a| *a /= signed);
            axis[0] += 1.0;
            let first = axis[0];
            for column in rest.chunks_exact_mut(rows) {
                let column = &mut column[j..];
                let factor = dot(axis, column) / first;
                column.iter_mut().zip(&*axis).for_each(|(c, v)| *c -= factor * v);
            }
            axis.fill(0.0);
            axis[0] = -signed;
        }
    }

    fn entry(&self, i: usize, j: usize) -> f64 {
        self.columns[j * self.rows + i]
    }

    /// The first n components of Qᵀb.
    fn right_side(&self) -> &[f64] {
        &self.columns[self.n * self.rows..][..self.n]
    }

    /// The norm of column j of A, which is that of R.
    fn column_norm(&self, j: usize) -> f64 {
        norm(&self.columns[j * self.rows..][..=j])
    }

    /// R·v.
    fn product(&self, v: &[f64]) -> Vec<f64> {
        (0..self.n).map(|i| (i..self.n).map(|j| self.entry(i, j) * v[j]).sum()).collect()
    }

    /// R⁻¹·v.
    fn solve(&self, v: &mut [f64]) {
        for i in (0..self.n).rev() {
            let below: f64 = (i + 1..self.n).map(|j| self.entry(i, j) * v[j]).sum();
            v[i] = (v[i] - below) / self.entry(i, i);
        }
    }

    /// R⁻ᵀ·v.
    fn solve_transposed(&self, v: &mut [f64]) {
        for i in 0..self.n {
            let above: f64 = (0..i).map(|j| self.entry(j, i) * v[j]).sum();
            v[i] = (v[i] - above) / self.entry(i, i);
        }
    }

    /// A column of m entries depends on those before it if the part perpendicular to them is within its rounding.
    fn check_rank(&self, owner: &'static str, m: usize) -> Result<(), Error> {
        let rounding = m.max(self.n) as f64 * f64::EPSILON;
        match (0..self.n).find(|&j| self.entry(j, j).abs() <= rounding * self.column_norm(j)) {
            None => Ok(()),
            Some(column) => Err(Error::RankDeficient { owner, column }),
        }
    }
}
