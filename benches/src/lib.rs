//! Shared tasks of the benchmarks.
