//! Records a Rust function once as a Wengert list and replays it.
mod math;
