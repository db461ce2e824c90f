//! Using your generic code: functions written over the traits of num-traits,
//! nalgebra or ndarray, without a change.
//!
//! [`Var`](crate::Var) and [`Dual`](crate::Dual) implement `num_traits::Float` and its kin, so what runs
//! in `f64` records and differentiates too:
//!
//! ```
//! use ad_core::{Dual, Tape};
//! use num_traits::Float;
//!
//! /// ∫ₐᵇ f by Simpson's rule on n panels, as a library that has never heard of tapes would write it.
//! fn simpson<T: Float>(f: impl Fn(T) -> T, a: T, b: T, n: usize) -> T {
//!     let number = |c: f64| T::from(c).unwrap();
//!     let h = (b - a) / number(2.0 * n as f64);
//!     let inner = (1..2 * n).fold(T::zero(), |sum, i| {
//!         let weight = if i % 2 == 1 { 4.0 } else { 2.0 };
//!         sum + number(weight) * f(a + h * number(i as f64))
//!     });
//!     (f(a) + inner + f(b)) * h / number(3.0)
//! }
//!
//! let tape = Tape::record(&[0.0, 2.0], |x| simpson(|t| t.sin(), x[0], x[1], 40))?;
//! // The derivative by the upper end is the integrand there.
//! let (_, gradient) = tape.gradient(&[0.0, 3.0])?;
//! assert!((gradient[1] - 3f64.sin()).abs() < 1e-6);
//!
//! let y = simpson(|t: Dual| t.sin(), 0.0.into(), Dual::new(3.0, 1.0), 40);
//! assert_eq!((vec![y.v], vec![y.dv]), tape.jvp(&[0.0, 3.0], &[0.0, 1.0])?);
//! # Ok::<(), ad_core::Error>(())
//! ```
//!
//! # `Real` or `Float`?
//!
//! - For code of your own, [`Real`](crate::Real): it has more operations (`softplus`, `select_gt`, …) and takes numbers
//!   as they are (`x * 2.0`, `x > 0.0`).
//! - For code that others use with `f32` and `f64`, or that exists already, `Float`.
//! - Not both in one bound: `sin` and most others would stand in both traits, and Rust would want `Float::sin(x)`.
//! - In code that is not generic `x.sin()` of a `Var` or a `Dual` is its own method, whatever traits are in scope. It has
//!   the same result as the trait's. (Beside `NumCast`, `Var::from(2.0)` is ambiguous, as `f64::from` is: write
//!   `2.0.into()`.)
//!
//! # What the methods do
//!
//! - A method is the operation of that name in `docs/ops.md`; `abs_sub`, `div_euclid`, `to_degrees` and their like are
//!   composed of such. `powf` with a constant exponent is the operation `powf`, with any other one `pow`.
//! - Constants (`T::zero()`, `T::PI()`, `T::from(2.0)`, `"0.5".parse()`) are constants of the tape.
//! - The bits are those of `Real` for `f64`. num-traits gives `f64` the functions of std or of `libm`, whose last bits may
//!   differ; `max`, `min` and `clamp` of a NaN are NaN here, and the sign of a NaN counts as positive.
//! - **Comparisons and questions are guards**: `is_zero`, `is_nan`, `is_sign_negative`, `classify`, `total_cmp`. A replay
//!   that would answer one otherwise is [`Error::BranchChanged`](crate::Error::BranchChanged).
//! - **Conversions to integers guard the whole part** (`to_i64`, `to_usize`, `as_`).
//! - **Conversions that keep all of the value guard the value**: `to_f64`, `to_f32`, `integer_decode`, and whole numbers
//!   outside the range of `i64`. What is computed from them would not follow a replay, so a replay at another value is an
//!   error, which names the line. To let a number go unguarded say so: [`Var::value`](crate::Var::value) is an escape, and
//!   `Display` leaves no mark at all.
//! - A conversion of a `Dual` is that of its value: the derivative ends there.
//!
//! # nalgebra
//!
//! With the feature `nalgebra`, `Var` and `Dual` are `RealField`s: matrices of them multiply, decompose and solve. The
//! choices of an algorithm are comparisons, hence guards. An LU decomposition that would choose other pivots, a Cholesky
//! decomposition of a matrix that is no longer positive definite, an iteration that would take another number of steps
//! are errors, not wrong numbers; the line they name is the one of the comparison, in nalgebra.
//!
#![cfg_attr(feature = "nalgebra", doc = "```")]
#![cfg_attr(not(feature = "nalgebra"), doc = "```ignore")]
//! use ad_core::{Error, Tape};
//! use nalgebra::Matrix2;
//!
//! let a = [4.0, 1.0, 2.0, 3.0];
//! let tape = Tape::record(&a, |x| Matrix2::from_row_slice(x).lu().determinant())?;
//! // d det/dA = det·A⁻ᵀ
//! assert_eq!(tape.gradient(&[5.0, 1.0, 2.0, 3.0])?, (13.0, vec![3.0, -2.0, -1.0, 5.0]));
//! // The larger entry of the first column was the first pivot.
//! assert!(matches!(tape.gradient(&[1.0, 1.0, 2.0, 3.0]), Err(Error::BranchChanged { .. })));
//! # Ok::<(), Error>(())
//! ```
//!
//! The sign of a Householder reflection (QR) is kept on the tape with both branches and needs no guard.
//!
//! # ndarray
//!
//! With the feature `ndarray`, `Var` and `Dual` may stand beside an array (`&a * x`); arrays of them add, multiply and
//! fold as those of `f64` do.
//!
#![cfg_attr(feature = "ndarray", doc = "```")]
#![cfg_attr(not(feature = "ndarray"), doc = "```ignore")]
//! use ad_core::Tape;
//! use ndarray::{ArrayView1, array};
//!
//! let tape = Tape::record(&[1.0, 2.0], |x| {
//!     let weights = array![[1.0, 2.0], [3.0, 4.0]].mapv(ad_core::Var::from);
//!     weights.dot(&ArrayView1::from(x)).mapv(|z| z.tanh()).sum()
//! })?;
//! assert_eq!(tape.eval(&[0.0, 0.0])?, [0.0]);
//! assert_eq!(tape.gradient(&[0.0, 0.0])?.1, [4.0, 6.0]);
//! # Ok::<(), ad_core::Error>(())
//! ```
//!
//! # Matrices
//!
//! [`Matrix`](crate::Matrix) converts from and to nalgebra's `DMatrix<f64>`, ndarray's `Array2<f64>` and, with the feature
//! `faer`, faer's `Mat<f64>`, by `From` and `Into`, of references as well. All of them are dense and rectangular, so no
//! conversion fails; layouts differ, so each copies.
//!
//! # Versions
//!
//! The traits are those of the versions re-exported here: if yours are other ones, the compiler says that a trait is not
//! implemented.

#[cfg(feature = "nalgebra")]
mod linear_algebra;
mod matrices;
mod num;

#[cfg(feature = "faer")]
pub use faer;
#[cfg(feature = "nalgebra")]
pub use nalgebra;
#[cfg(feature = "ndarray")]
pub use ndarray;
pub use num_traits;
