//! The scalar engine beside derivatives written by hand, in the same run: only
//! the ratio of two rows of one run means anything on a noisy machine.

mod common;

use ad_bench::cases::{self, Kind};
use ad_bench::tasks;
use ad_core::Tape;

fn main() {
    common::run(|c| {
        for kind in [Kind::Value, Kind::Jvp, Kind::Gradient] {
            common::bench(c, cases::classical(kind)?)?;
        }
        c.bench_function("T1 record", |b| b.iter(|| Tape::record(&[2.0, 4.0], tasks::classical)));
        for kind in [Kind::Value, Kind::Jvp, Kind::Gradient] {
            common::bench(c, cases::rosenbrock(kind)?)?;
        }
        let x = tasks::rosenbrock_point(1000);
        c.bench_function("T2 record", |b| b.iter(|| Tape::record(&x, tasks::rosenbrock)));
        for kind in [Kind::Value, Kind::Jvp, Kind::Jacobian] {
            common::bench(c, cases::lotka_volterra(kind)?)?;
        }
        for kind in [Kind::Value, Kind::Gradient] {
            common::bench(c, cases::determinant(kind)?)?;
        }
        common::bench(c, cases::mixture()?)
    });
}
