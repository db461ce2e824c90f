//! What the benchmarks time, and the checks that come before any timing.
//!
//! [`tasks`] holds functions as users write them, [`by_hand`] their derivatives
//! in plain `f64`, [`cases`] puts the two and others side by side, [`measure`]
//! times them in turn, [`counting`] says how much arithmetic there is to do, [`goals`] how
//! fast it is to be. [`scaling`] makes tapes longer and longer, [`structure`] records the same
//! functions with and without what they repeat.

pub mod by_hand;
pub mod cases;
pub mod counting;
pub mod goals;
pub mod measure;
#[cfg(feature = "peers")]
pub mod peers;
pub mod scaling;
pub mod structure;
pub mod tasks;
