//! Rows a second on tapes of 10³ to 10⁷ rows: flat, as long as what a sweep
//! touches streams through the caches.

mod common;

use std::time::Duration;

use ad_bench::scaling::{self, Start};
use ad_bench::tasks::{self, Generator};
use ad_core::{Matrix, Tape, Workspace};
use criterion::Throughput;

fn main() {
    common::run(|c| {
        for exponent in 3..=7 {
            let (tape, x) = scaling::tape(10_usize.pow(exponent))?;
            let n = x.len();
            let mut group = c.benchmark_group(format!("1e{exponent} rows"));
            group.throughput(Throughput::Elements(tape.len() as u64)).sample_size(10);
            group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));

            let (mut y, mut dy, mut gradient, mut jp) = ([0.0], [0.0], vec![0.0; n], Matrix::default());
            let mut ws = Workspace::new();
            let p = Generator::new(9).numbers(n, -1.0, 1.0);
            let seeds = Generator::new(10).numbers(n * scaling::DIRECTIONS, -1.0, 1.0);
            let seeds = Matrix::from_vec(n, scaling::DIRECTIONS, seeds)?;
            group.bench_function("Tape::record", |b| b.iter(|| Tape::record(&x, tasks::rosenbrock)));
            let mut start = |part: fn(&Start) -> f64, count: u64| {
                let ns = (0..count).map(|_| scaling::start(&x, &mut ws, &mut gradient).map_or(f64::NAN, |s| part(&s)));
                Duration::from_nanos(ns.sum::<f64>().max(1.0) as u64)
            };
            group.bench_function("record", |b| b.iter_custom(|count| start(|s| s.record, count)));
            group.bench_function("finish", |b| b.iter_custom(|count| start(|s| s.finish, count)));
            group.bench_function("forward program", |b| b.iter_custom(|count| start(|s| s.forward, count)));
            group.bench_function("reverse program", |b| b.iter_custom(|count| start(|s| s.reverse, count)));
            group.bench_function("value", |b| b.iter(|| tape.eval_into(&mut ws, &x, &mut y)));
            group.bench_function("J·p", |b| b.iter(|| tape.jvp_into(&mut ws, &x, &p, &mut y, &mut dy)));
            group.bench_function("gradient", |b| b.iter(|| tape.gradient_into(&mut ws, &x, &mut gradient)));
            group.bench_function("7 directions", |b| {
                b.iter(|| tape.jvp_many_into(&mut ws, &x, &seeds, &mut y, &mut jp));
            });
            group.finish();
        }
        Ok(())
    });
}
