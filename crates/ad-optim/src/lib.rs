//! Trains functions recorded by ad-core.
mod batches;
mod differentiable;
mod error;
pub mod init;
mod outcome;
// mod risk;
mod rules;
mod trainer;

pub use batches::Batches;
pub use differentiable::{Differentiable, FromFn, from_fn};
pub use error::Error;
pub use outcome::{History, NonFinite, Outcome, Record, StopReason};
// pub use risk::EmpiricalRisk;
pub use rules::{Adam, AdamState, GradientDescent, Iterate, Rule, Update};
pub use trainer::{DEFAULT_MAX_STEPS, Step, Trainer};
