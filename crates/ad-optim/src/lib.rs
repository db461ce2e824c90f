//! Trains functions recorded by [`ad_core`]: gradient descent, stochastic minibatch Adam and their kin, L-BFGS, and
//! Levenberg–Marquardt for least squares.
//!
//! An objective is anything [`Differentiable`]: a recorded [`ad_core::Tape`] with one output, the mean of a recorded
//! loss over samples ([`EmpiricalRisk`]), or a type of your own. A [`Rule`] says how a gradient moves the point,
//! [`Batches`] how the samples are divided, and a [`Trainer`] repeats the step until a stop rule holds. It returns an
//! [`Outcome`] that says why it stopped and that never lost the best point. [`Checkpoints`] let a run that was killed go
//! on with the same bits, [`Trainer::validate`] judges it by other samples, [`check_gradient`] doubts a gradient written
//! by hand. [`data`] reads tables and images into samples,
//! [`report`] has the logs, curves and pages by which people follow a run.
//!
//! ```
//! use ad_core::{Samples, Tape};
//! use ad_optim::{Adam, Batches, EmpiricalRisk, Trainer};
//!
//! // Minimise a recorded function.
//! let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[0] + x[1] * x[1] + 6.0)?;
//! let out = Trainer::new(&tape, Adam::new(0.1), vec![1.0, 1.0]).max_steps(1000).grad_tol(1e-8).run()?;
//! assert!((out.best_value - 6.0).abs() < 1e-12);
//!
//! // Train: mean over samples of a recorded per-sample loss (parameters of the tape = one sample's data).
//! // Here logistic regression on one feature u with labels ±1: ln(1 + exp(−label · (θ₁ + θ₂·u))).
//! let tape = Tape::builder()
//!     .inputs(&["theta1", "theta2"], &[0.0, 0.0])
//!     .params(&["u", "label"], &[0.0, 1.0])
//!     .record(|theta, k| (-k[1] * (theta[0] + theta[1] * k[0])).softplus())?;
//! let rows: Vec<f64> = (0..200)
//!     .flat_map(|i| {
//!         let u = f64::from(i) / 100.0 - 1.0;
//!         [u, if u + 0.3 * (f64::from(i) * 0.7).sin() > 0.0 { 1.0 } else { -1.0 }]
//!     })
//!     .collect();
//! let samples = Samples::from_rows(&tape, &rows)?;
//! let theta0 = vec![0.0, 0.0];
//!
//! let risk = EmpiricalRisk::new(tape, samples)?;
//! let out = Trainer::new(&risk, Adam::new(1e-3), theta0)
//!     .batches(Batches::shuffled(64).seed(7)).max_epochs(20).threads(2).run()?;
//! assert!(out.value < 0.6931); // ln 2, the value at the start
//! println!("{out}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which rule?
//!
//! | for | take |
//! |---|---|
//! | minibatches, to begin with | [`Adam`], or [`AdamW`] with weight decay, with a [`Schedule::cosine`] |
//! | minibatches, with time to choose a rate | [`GradientDescent`] with momentum |
//! | sparse or badly scaled gradients | [`Adagrad`], [`RmsProp`], [`AmsGrad`], [`Adamax`], [`Nadam`] |
//! | a smooth function, all samples at once | [`Lbfgs`] |
//! | a sum of squares, up to some hundred unknowns | [`LevenbergMarquardt`] on [`LeastSquares`]; [`GaussNewton`] near the minimum |
//!
//! Rules and transforms compose in tuples, from left to right: `(ClipNorm(1.0), Adam::new(1e-3), WeightDecay(1e-2))`.
//! [`ClipNorm`], [`ClipValue`] and [`L2`] change the gradient; [`WeightDecay`], [`Schedule`], [`schedule_fn`] and
//! [`ReduceOnPlateau`] stand after the rule; [`ProjectBox`] acts on the point. A run refuses another order of these, and of
//! your own ones that say their [`Part`]. [`Groups`] gives ranges of the unknowns
//! rules of their own, [`Accumulate`] makes one step from several batches.
//!
//! # Features
//!
//! None is on by default. `progress` draws a bar in terminals ([`report::Progress`]), with indicatif; `gzip` reads
//! compressed IDX files ([`data::Idx`]), with flate2.
//!
//! # For readers of the literature
//!
//! Two slips are repeated in introductions to automatic differentiation, and corrected here. The step of gradient
//! descent is x ← x − γ·∇f(x), with the *gradient*; x − γ·f(x) subtracts a number from a vector. And the usual example,
//! f(x, y) = x² + y² + 6, has a *minimum* at the origin, of value 6; it has no maximum.
//!
//! # What is deliberately absent
//!
//! Rules never see data, the loop never sees a rule's state, and observers never change the run. There is one source of
//! randomness, the seed that you pass; no clock enters a result but the times that are reported, unless you set a time
//! limit.

#![forbid(unsafe_code)]

mod batches;
mod checkpoint;
mod checkpoints;
pub mod data;
mod differentiable;
mod error;
mod files;
mod gradient_check;
pub mod init;
mod lbfgs;
mod least_squares;
mod outcome;
pub mod report;
mod risk;
mod rule;
mod rules;
mod run;
mod schedules;
mod trainer;
mod transforms;

pub use batches::Batches;
pub use checkpoint::{Checkpoint, CheckpointProblem};
pub use checkpoints::Checkpoints;
pub use differentiable::{Differentiable, FromFn, from_fn};
pub use error::Error;
pub use gradient_check::{GradientCheck, check_gradient};
pub use lbfgs::{Lbfgs, LbfgsState};
pub use least_squares::{
    FitStatistics, GaussNewton, GaussNewtonState, LeastSquares, LevenbergMarquardt, LevenbergMarquardtState,
};
pub use outcome::{History, NonFinite, Outcome, Record, StopReason, Validation};
pub use risk::{EmpiricalRisk, SampleLoss};
pub use rule::{Iterate, Method, Oracle, Part, Rule, StateSlice, StateVisitor, Update, load_state, save_state};
pub use rules::{
    Adagrad, Adam, AdamState, AdamW, Adamax, AmsGrad, AmsGradState, GradientDescent, Nadam, NadamState, RmsProp,
    RmsPropState,
};
pub use schedules::{PlateauState, ReduceOnPlateau, Schedule, ScheduleFn, schedule_fn};
pub use trainer::{DEFAULT_MAX_STEPS, Step, Trainer};
pub use transforms::{
    Accumulate, AccumulateState, ClipNorm, ClipValue, Freeze, Group, GroupList, GroupState, Groups, L2, ProjectBox,
    WeightDecay,
};

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The page about training, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/training.md")]
struct TrainingPage;

/// The page about checkpoints, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/checkpoints.md")]
struct CheckpointsPage;
