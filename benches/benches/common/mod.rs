//! Hands a case to criterion, after its check.

// Every benchmark is a program of its own and takes what it needs of these.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use ad_bench::cases::{Case, Failure};
use criterion::Criterion;

/// Times every contender of a case, as one group.
///
/// # Errors
///
/// Those of [`Case::check`]: wrong numbers are not worth timing.
pub fn bench(c: &mut Criterion, mut case: Case) -> Result<(), Failure> {
    case.check()?;
    let mut group = c.benchmark_group(case.title());
    let mut out = vec![0.0; case.outputs];
    for contender in &mut case.contenders {
        let mut failed = None;
        group.bench_function(contender.name.clone(), |b| {
            b.iter_custom(|repetitions| {
                let start = Instant::now();
                if let Err(error) = contender.run(repetitions as usize, &mut out) {
                    failed = Some(error);
                }
                // Criterion divides by the time.
                start.elapsed().max(Duration::from_nanos(1))
            });
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    group.finish();
    Ok(())
}

/// Runs the benchmarks; a failure ends the program with its message.
pub fn run(benches: impl FnOnce(&mut Criterion) -> Result<(), Failure>) {
    let mut criterion = Criterion::default().configure_from_args();
    if let Err(failure) = benches(&mut criterion) {
        eprintln!("{failure}");
        std::process::exit(1);
    }
    criterion.final_summary();
}
