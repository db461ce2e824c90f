//! Records a Rust function once as a Wengert list and replays it.

mod drivers;
mod dual;
mod error;
mod formula;
mod graph;
mod lanes;
mod math;
mod matrix;
pub mod ops;
mod record;
mod replay;
mod rule;
mod tape;
mod trace;

pub use drivers::Linearization;
pub use dual::Dual;
pub use error::Error;
pub use formula::{Accent, Formula, Formulas, Name, Script};
pub use graph::Graph;
pub use lanes::Lanes;
pub use matrix::Matrix;
pub use ops::{Op, OpInfo, Relation};
pub use record::{Answer, Builder, Escape, Guard, Outputs, Question, SourceLocation, Var};
pub use replay::{Samples, Workspace};
pub use rule::{Real, Rule};
pub use tape::Tape;
pub use trace::{Trace, TraceDerivative, TraceKind, TraceRow};
