
//! Every elementary function of the crate.
