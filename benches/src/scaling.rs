//! How the costs grow with the length of the tape: chained Rosenbrock functions
//! of growing n.

use std::cell::Cell;
use std::time::Instant;

use ad_core::{Error, Matrix, Tape, Workspace};

use crate::measure::{self, Work};
use crate::tasks::{self, Generator};

/// Directions of the forward sweep that carries several.
pub const DIRECTIONS: usize = 7;

/// The tape of a chained Rosenbrock function with about so many rows, and its point.
///
/// # Errors
///
/// Those of the recording.
pub fn tape(rows: usize) -> Result<(Tape, Vec<f64>), Error> {
    let one = Tape::record(&tasks::rosenbrock_point(3), tasks::rosenbrock)?.len();
    let two = Tape::record(&tasks::rosenbrock_point(4), tasks::rosenbrock)?.len();
    let x = tasks::rosenbrock_point((rows.saturating_sub(one) / (two - one) + 3).max(3));
    Ok((Tape::record(&x, tasks::rosenbrock)?, x))
}

/// The nanoseconds of recording and of freezing at x: what the function takes,
/// and what is left of the whole.
///
/// # Errors
///
/// Those of the recording.
pub fn record(x: &[f64]) -> Result<(f64, f64), Error> {
    let recording = Cell::new(0.0);
    let start = Instant::now();
    let tape = Tape::record(x, |x| {
        let start = Instant::now();
        let y = tasks::rosenbrock(x);
        recording.set(start.elapsed().as_nanos() as f64);
        y
    })?;
    let whole = start.elapsed().as_nanos() as f64;
    drop(tape);
    Ok((recording.get(), whole - recording.get()))
}

/// Nanoseconds a row of everything that is done with a tape of one length.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The length of the tape.
    pub rows: usize,
    /// Recording, without freezing.
    pub record: f64,
    /// Freezing: what follows the function that is recorded.
    pub freeze: f64,
    /// The value.
    pub value: f64,
    /// The value and J·p.
    pub jvp: f64,
    /// The value and the gradient.
    pub gradient: f64,
    /// The value and seven directions.
    pub directions: f64,
    /// Bytes of resident memory that the tape takes, where the system tells.
    pub bytes: Option<f64>,
}

/// The resident memory of this process in bytes, on Linux.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()? * 1024.0)
}

/// Measures one length.
///
/// # Errors
///
/// Those of the tape.
pub fn measure(rows: usize, rounds: usize) -> Result<Row, Error> {
    let before = resident();
    let (tape, x) = tape(rows)?;
    let rows = tape.len();
    // What the first replay leaves with the tape counts, the workspace does not.
    tape.eval(&x)?;
    tape.gradient(&x)?;
    // Of a short tape, pages that were there before are most of it.
    let bytes = if rows < 5_000_000 { None } else { resident().zip(before).map(|(after, before)| after - before) };
    let (mut records, mut freezes) = (Vec::new(), Vec::new());
    for _ in 0..(200_000 / rows).clamp(rounds.min(3), 50) {
        let (record, freeze) = record(&x)?;
        records.push(record);
        freezes.push(freeze);
    }

    let n = x.len();
    let p = Generator::new(9).numbers(n, -1.0, 1.0);
    let seeds = Matrix::from_vec(n, DIRECTIONS, Generator::new(10).numbers(n * DIRECTIONS, -1.0, 1.0))?;
    let (mut y, mut dy, mut gradient, mut jp) = ([0.0], [0.0], vec![0.0; n], Matrix::default());
    let (mut first, mut second, mut third, mut fourth) =
        (Workspace::new(), Workspace::new(), Workspace::new(), Workspace::new());
    let failure = Cell::new(None);
    let note = |result: Result<(), Error>| {
        if let Err(error) = result {
            failure.set(Some(error));
        }
    };
    let mut other = [0.0];
    let mut another = [0.0];
    let value: &mut Work<'_> = &mut |count| (0..count).for_each(|_| note(tape.eval_into(&mut first, &x, &mut y)));
    let jvp: &mut Work<'_> =
        &mut |count| (0..count).for_each(|_| note(tape.jvp_into(&mut second, &x, &p, &mut other, &mut dy)));
    let reverse: &mut Work<'_> =
        &mut |count| (0..count).for_each(|_| note(tape.gradient_into(&mut third, &x, &mut gradient).map(|_| ())));
    let directions: &mut Work<'_> =
        &mut |count| (0..count).for_each(|_| note(tape.jvp_many_into(&mut fourth, &x, &seeds, &mut another, &mut jp)));
    let mut works = [("value", value), ("J·p", jvp), ("gradient", reverse), ("7 directions", directions)];
    let timings = measure::interleaved(&mut works, rounds);
    if let Some(error) = failure.take() {
        return Err(error);
    }
    let a_row = |ns: f64| ns / rows as f64;
    Ok(Row {
        rows,
        record: a_row(measure::median(&records)),
        freeze: a_row(measure::median(&freezes)),
        value: a_row(timings.ns(0)),
        jvp: a_row(timings.ns(1)),
        gradient: a_row(timings.ns(2)),
        directions: a_row(timings.ns(3)),
        bytes: bytes.map(a_row),
    })
}
