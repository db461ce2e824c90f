//! Counts the bytes a row that tapes of the given lengths allocate and keep:
//! `bytes <rows>…` prints for each length, on one line, the rows and the bytes a
//! row of the tape alone, of its program for values and tangents, and of that for
//! adjoints.
//!
//! This is a program of its own because the allocator that counts is slower: it
//! copies where the system's would extend.

use std::process::ExitCode;

use ad_bench::cases::Failure;
use ad_bench::{scaling, tasks};
use ad_core::{Error, Tape, Workspace};

/// The bytes that `f` allocates and leaves.
fn kept<R>(f: impl FnOnce() -> Result<R, Error>) -> Result<(f64, R), Failure> {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(f()));
    match result {
        Some(result) => Ok((info.bytes_current as f64, result?)),
        None => Err(Failure::Mismatch("nothing was measured".to_owned())),
    }
}

fn measure(rows: usize) -> Result<(), Failure> {
    let (mut ws, mut y) = (Workspace::new(), [0.0]);
    let x = {
        // What the recording and the sweeps keep for the next ones is not the tape's.
        let (tape, x) = scaling::tape(rows)?;
        tape.eval_into(&mut ws, &x, &mut y)?;
        tape.gradient_into(&mut ws, &x, &mut vec![0.0; x.len()])?;
        x
    };
    let mut gradient = vec![0.0; x.len()];
    let (alone, tape) = kept(|| Tape::record(&x, tasks::rosenbrock))?;
    let (forward, ()) = kept(|| tape.eval_into(&mut ws, &x, &mut y))?;
    let (reverse, _) = kept(|| tape.gradient_into(&mut ws, &x, &mut gradient))?;
    let a_row = |bytes: f64| bytes / tape.len() as f64;
    println!("{} {:.2} {:.2} {:.2}", tape.len(), a_row(alone), a_row(forward), a_row(reverse));
    Ok(())
}

fn main() -> ExitCode {
    let outcome = std::env::args().skip(1).try_for_each(|rows| match rows.parse() {
        Ok(rows) => measure(rows),
        Err(_) => Err(Failure::Mismatch(format!("{rows} is no number of rows"))),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
