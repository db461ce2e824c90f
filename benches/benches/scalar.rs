//! The scalar engine beside derivatives written by hand, in the same run: only
//! the ratio of two rows of one run means anything on a noisy machine.

use std::hint::black_box;

use ad_bench::{classical, classical_jvp, rosenbrock, rosenbrock_gradient};
use ad_core::{Error, Tape, Workspace};
use criterion::{Criterion, criterion_group, criterion_main};

/// Fails the benchmark unless both agree: a wrong result is not worth timing.
fn check(computed: &[f64], by_hand: &[f64]) {
    for (a, b) in computed.iter().zip(by_hand) {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} computed, {b} by hand");
    }
}

fn classical_example(c: &mut Criterion) -> Result<(), Error> {
    let (x, p) = ([2.0, 4.0], [1.0, 0.0]);
    let tape = Tape::record(&x, classical)?;
    let (mut ws, mut y, mut dy) = (Workspace::new(), [0.0], [0.0]);
    tape.jvp_into(&mut ws, &x, &p, &mut y, &mut dy)?;
    let by_hand = classical_jvp(&x, &p);
    check(&[y[0], dy[0]], &[by_hand.0, by_hand.1]);

    let mut group = c.benchmark_group("classical example, J·p");
    group.bench_function("by hand", |b| b.iter(|| classical_jvp(black_box(&x), black_box(&p))));
    group.bench_function("tape", |b| b.iter(|| tape.jvp_into(&mut ws, black_box(&x), black_box(&p), &mut y, &mut dy)));
    group.bench_function("record", |b| b.iter(|| Tape::record(black_box(&x), classical)));
    group.finish();
    Ok(())
}

fn chained_rosenbrock(c: &mut Criterion) -> Result<(), Error> {
    let x: Vec<f64> = (0..1000).map(|i| 0.5 + 0.001 * f64::from(i)).collect();
    let tape = Tape::record(&x, rosenbrock)?;
    let (mut ws, mut gradient, mut by_hand) = (Workspace::new(), vec![0.0; x.len()], vec![0.0; x.len()]);
    tape.gradient_into(&mut ws, &x, &mut gradient)?;
    rosenbrock_gradient(&x, &mut by_hand);
    check(&gradient, &by_hand);

    let mut group = c.benchmark_group("chained Rosenbrock, n = 1000, gradient");
    group.bench_function("by hand", |b| b.iter(|| rosenbrock_gradient(black_box(&x), &mut by_hand)));
    group.bench_function("tape", |b| b.iter(|| tape.gradient_into(&mut ws, black_box(&x), &mut gradient)));
    group.bench_function("record", |b| b.iter(|| Tape::record(black_box(&x), rosenbrock)));
    group.finish();
    Ok(())
}

fn all(c: &mut Criterion) {
    for task in [classical_example, chained_rosenbrock] {
        if let Err(error) = task(c) {
            panic!("{error}");
        }
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
