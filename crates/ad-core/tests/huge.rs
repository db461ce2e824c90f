//! Tapes of many rows: a few bytes a row, no recursion, and the right numbers.
//!
//! The longest is left out of an ordinary run, as it needs some 10 GB in the end:
//! `cargo test --release -p ad-core --test huge -- --ignored --nocapture`.
//! With `--nocapture` each step prints its bytes and its time a row.

#![allow(clippy::unwrap_used, missing_docs)]

use ad_core::{Tape, Workspace};
use allocation_counter::measure;

/// Rows of the test that is always run.
const ROWS: usize = if cfg!(debug_assertions) { 500_000 } else { 10_000_000 };
/// What a thread has that recurses over no tape. Without optimisation the one
/// frame of an engine's loop is large.
const STACK: usize = if cfg!(debug_assertions) { 1 << 20 } else { 128 << 10 };

#[test]
fn many_rows_take_few_bytes_each_and_no_stack() {
    // The few rows are there to compare the times that are printed.
    on_a_small_stack(100_000);
    on_a_small_stack(ROWS);
}

#[test]
#[ignore = "needs some GB of memory"]
fn a_hundred_million_rows_take_few_bytes_each_and_no_stack() {
    on_a_small_stack(100_000_000);
}

fn on_a_small_stack(rows: usize) {
    let thread = std::thread::Builder::new().stack_size(STACK);
    thread.spawn(move || check(rows)).unwrap().join().unwrap();
}

/// A long recurrence y ← y·x₁ + x₂, two rows a step. After n of them y is
/// y₀ + n·x₂ at x₁ = 1, and its derivatives there are whole quarters, too.
fn recurrence(rows: usize) -> Tape {
    Tape::record(&X, |x| (0..rows / 2).fold(x[0], |y, _| y * x[1] + x[2])).unwrap()
}

/// y₀, x₁ and x₂.
const X: [f64; 3] = [0.5, 1.0, 0.25];

/// What a measured step keeps and what it takes at most, in bytes a row.
struct Bytes {
    kept: f64,
    peak: f64,
}

/// Runs a step and prints what it needs.
fn step<T>(name: &str, rows: usize, run: impl FnOnce() -> T) -> (T, Bytes) {
    let start = std::time::Instant::now();
    let mut result = None;
    let counted = measure(|| result = Some(run()));
    let ns = start.elapsed().as_nanos() as f64 / rows as f64;
    let bytes =
        Bytes { kept: counted.bytes_current as f64 / rows as f64, peak: counted.bytes_max as f64 / rows as f64 };
    println!(
        "{rows:9} rows: {name:18} {:6.2} bytes a row kept, {:6.2} at most, {ns:6.1} ns a row",
        bytes.kept, bytes.peak
    );
    (result.unwrap(), bytes)
}

fn check(rows: usize) {
    let (tape, bytes) = step("record", rows, || recurrence(rows));
    assert_eq!(tape.len(), 3 + rows);
    assert!(bytes.kept <= 24.0, "the tape takes {} bytes a row", bytes.kept);

    // The first sweep of a kind freezes the list into a program, which stays.
    let (y, _) = step("first value", rows, || tape.eval(&X).unwrap());
    let n = (rows / 2) as f64;
    assert_eq!(y, [X[0] + n * X[2]]);
    let (first, _) = step("first gradient", rows, || tape.gradient(&X).unwrap());
    let expected = [1.0, n * X[0] + X[2] * (n * (n - 1.0) / 2.0), n];
    assert_eq!(first, (y[0], expected.to_vec()));

    // What a sweep itself works in: a number for each value, tangent or adjoint.
    let mut ws = Workspace::new();
    let mut out = [0.0];
    let ((), values) = step("value", rows, || tape.eval_into(&mut ws, &X, &mut out).unwrap());
    assert!(values.kept <= 8.0 && values.peak <= 8.0, "values take {} bytes a row", values.peak);
    assert_eq!(out[0], y[0]);
    let (mut ws, mut tangent) = (Workspace::new(), [0.0]);
    let ((), both) = step("J·p", rows, || {
        tape.jvp_into(&mut ws, &X, &[0.0, 0.0, 1.0], &mut out, &mut tangent).unwrap();
    });
    assert!(both.peak <= 16.0, "values and tangents take {} bytes a row", both.peak);
    assert_eq!(tangent, [n]);
    let (mut ws, mut gradient) = (Workspace::new(), [0.0; 3]);
    let (value, both) = step("gradient", rows, || tape.gradient_into(&mut ws, &X, &mut gradient).unwrap());
    assert!(both.peak <= 16.0, "values and adjoints take {} bytes a row", both.peak);
    assert_eq!((value, gradient), (y[0], expected));
    drop(ws);

    // Through a file: saving takes no memory that grows with the tape, loading takes what the file has and the tape.
    let path = std::env::temp_dir().join(format!("ad-core-huge-{}-{rows}.tape", std::process::id()));
    let ((), bytes) = step("save", rows, || tape.save(&path).unwrap());
    assert!(bytes.peak * (rows as f64) < 1e6, "saving takes {} bytes a row", bytes.peak);
    let file = std::fs::metadata(&path).unwrap().len() as f64 / rows as f64;
    println!("{rows:9} rows: {file:.2} bytes a row in the file");
    let (loaded, bytes) = step("load", rows, || Tape::load(&path));
    std::fs::remove_file(&path).unwrap();
    let loaded = loaded.unwrap();
    assert!(bytes.kept <= 24.0 && bytes.peak <= 4.0 * file, "loading takes {} bytes a row", bytes.peak);
    assert_eq!(loaded.eval(&X).unwrap(), y);
    step("drop loaded", rows, || drop(loaded));

    // Tapes made of the tape.
    let (optimized, bytes) = step("optimized", rows, || tape.optimized().tape);
    assert_eq!(optimized.len(), tape.len());
    assert!(bytes.kept <= 24.0, "the optimised tape takes {} bytes a row", bytes.kept);
    assert_eq!(optimized.eval(&X).unwrap(), y);
    step("drop optimized", rows, || drop(optimized));
    step("drop", rows, || drop(tape));
}
