//! Records an ordinary Rust function once, as a Wengert list of elementary
//! operations, and replays it: forward with tangents for J·p, in reverse with
//! adjoints for Jᵀ·w, over many samples, and as a printed trace.
//!
//! ```
//! use ad_core::Tape;
//!
//! // y = cos(x₁) + x₁·x₂ − exp(x₂)
//! let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
//!
//! let (y, dy) = tape.jvp(&[2.0, 4.0], &[1.0, 0.0])?; // J·p
//! let (y, gradient) = tape.gradient(&[3.0, 1.0])?; // at another point, without recording again
//! println!("{}", tape.tangent_trace(&[2.0, 4.0], &[1.0, 0.0])?); // the textbook's table
//! # Ok::<(), ad_core::Error>(())
//! ```
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | record a function; names, parameters | [`Tape::record`], [`Tape::builder`], [`Var`] |
//! | write it once for `f64`, duals and recording | [`Real`] |
//! | value, J·p, Jᵀ·w, gradient, Jacobian | [`Tape::eval`], [`Tape::jvp`], [`Tape::vjp`], [`Tape::gradient`], [`Tape::jacobian`] |
//! | which derivatives can differ from 0; large sparse Jacobians and Hessians | [`Tape::sparsity`], [`Tape::hessian_sparsity`], [`Tape::sparse_jacobian`], [`Tape::sparse_hessian`] |
//! | second derivatives: Hessian times vector, Hessian | [`Tape::hvp`], [`Tape::hessian`] |
//! | Taylor coefficients along a line, of any order | [`Tape::taylor`] |
//! | several directions, several sweeps at one point | [`Tape::jvp_many`], [`Tape::at`] |
//! | no allocation in a loop | the `_into` twins and [`Workspace`] |
//! | functions whose branches change: record again, a tape a branch | [`Retape`] |
//! | other parameters | [`Tape::with_params`] |
//! | sums over data, in minibatches, over threads | [`Samples`], [`Tape::sum_value`], [`Tape::sum_gradient`], [`Tape::sum_gradient_threads`] |
//! | many points at once | [`Tape::eval_many`], [`Tape::jacobian_many`] |
//! | measure with other vector instructions | [`SimdLevel`], [`Workspace::set_simd_level`], [`Workspace::set_lanes`] |
//! | derivatives as tapes: second and higher ones, printed formulas | [`Tape::gradient_tape`], [`Tape::jvp_tape`], [`Tape::vjp_tape`], [`Tape::jacobian_tape`] |
//! | loops recorded once: a part called, mapped, summed, along a recurrence | [`Tape::call`], [`Tape::map`], [`Tape::map_sum`], [`Tape::scan`], `docs/functions.md` |
//! | an operation of your own, with its derivative | [`Custom`], [`CustomOp`], [`CustomProducts`] |
//! | the solution of equations | [`Implicit`] |
//! | fewer rows | [`Tape::optimized`] |
//! | files: save a tape, load it in another program | [`Tape::save`], [`Tape::load`], [`Tape::write_to`], [`Tape::read_from`], `docs/tape-files.md` |
//! | printed traces and graphs | [`Tape::primal_trace`], [`Tape::tangent_trace`], [`Tape::adjoint_trace`], [`Tape::graph`] |
//! | when a number looks wrong | [`Tape::diagnose`], [`Tape::diagnose_adjoint`], [`Tape::self_check`], [`Tape::constants`], [`Tape::escapes`] |
//! | what changed between two tapes | [`Tape::diff`], [`Tape::content_hash`] |
//! | another number type | [`Tape::eval_with`], [`Rule`], [`Dual`], [`Lanes`], [`Formula`] |
//! | functions generic over `num_traits::Float`, nalgebra, ndarray, faer | [`interop`] |
//! | what each operation computes and differentiates to | [`Op`], `docs/ops.md` |
//!
//! # What a replay promises
//!
//! - **It is never silently wrong.** A comparison made while recording is a
//!   guard; a replay that would answer it otherwise is
//!   [`Error::BranchChanged`] with the line of your code; a [`Retape`] records the
//!   other branch instead.
//! - **The same bits everywhere**: elementary functions come with the crate, and
//!   no result depends on the machine, on debug or release, on threads or on
//!   what a workspace was used for before.
//! - **It does not panic** on bad input: every failure of a recording or a driver
//!   is an [`Error`] that says what to do next. (Indexing a [`Matrix`] outside its
//!   bounds panics, as slices do.)
//!
//! # Conventions
//!
//! - A product of derivatives that is 0·∞ or 0·NaN counts as 0, forward and in
//!   reverse alike; outside its domain an operation has a NaN value and NaN
//!   derivatives. (Forward and reverse may differ where the zero itself arose by
//!   cancellation or underflow, as in √(x − x).)
//! - Where a derivative is not unique, `docs/ops.md` says what is chosen:
//!   0 for `abs` at 0, ½ and ½ for `max` at a tie, 0 for `relu` at 0.
//! - Overflow and underflow follow IEEE 754. Processor modes that flush
//!   subnormal numbers to zero are not supported.
//!
//! # Features
//!
//! - `serde`: `Serialize` for [`Trace`], [`Matrix`] and what they hold; `Serialize` and
//!   `Deserialize` for [`Tape`].
//! - `nalgebra`, `ndarray`: [`Var`] and [`Dual`] as entries of their matrices and arrays;
//!   [`Matrix`] from and to `DMatrix<f64>` and `Array2<f64>`. See [`interop`].
//! - `faer`: [`Matrix`] from and to `Mat<f64>`.

// A trait that nalgebra asks for has unsafe methods: an implementation must
// declare them so, though it does nothing unsafe.
#![cfg_attr(not(feature = "nalgebra"), forbid(unsafe_code))]

mod check;
mod colouring;
mod derive;
mod drivers;
mod dual;
#[doc(hidden)]
pub mod durable;
mod error;
mod file;
mod formula;
mod function;
mod graph;
pub mod interop;
mod lanes;
mod math;
mod matrix;
pub mod ops;
mod optimize;
mod pattern;
mod record;
mod replay;
mod retape;
mod rule;
mod sparse;
mod tape;
mod taylor;
mod trace;

pub use check::{
    Comparison, Constant, Diagnosis, DiagnosisInside, Difference, NonFinite, NotChecked, Part, RowComparison,
    SelfCheck, TapeDiff, ValueAt, Verdict,
};
pub use drivers::Linearization;
pub use dual::Dual;
pub use error::{CallSite, Error};
pub use file::TapeFileProblem;
pub use formula::{Accent, Formula, Formulas, Name, Script};
pub use function::{Custom, CustomOp, CustomProducts, Function, Implicit, RuleCheck};
pub use graph::Graph;
pub use lanes::Lanes;
pub use matrix::Matrix;
pub use ops::{Op, OpInfo, Relation};
pub use optimize::{OptimizationReport, Optimized};
pub use record::{Answer, Builder, Escape, Guard, Outputs, Question, SourceLocation, Var};
pub use replay::{Samples, SimdLevel, Workspace};
pub use retape::{RecordedFunction, Retape, RetapeStats};
pub use rule::{Real, Rule};
pub use sparse::{SparseHessian, SparseJacobian, SparseMatrix, Sparsity};
pub use tape::Tape;
pub use trace::{Trace, TraceBody, TraceDerivative, TraceKind, TraceRow};

#[cfg(all(target_arch = "x86", not(target_feature = "sse2")))]
compile_error!("without SSE2, x86 rounds intermediate results twice: the same bits everywhere cannot be kept");

/// The examples of the page on checking, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/checking.md")]
struct CheckingPage;

/// The example of the page on tape files, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/tape-files.md")]
struct TapeFilesPage;

/// The examples of the page on functions, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/functions.md")]
struct FunctionsPage;
