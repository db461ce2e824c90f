//! Runs one piece of work so many times, for `instructions.sh` to count the
//! instructions of: `instructions <piece> <times>`. Without arguments it lists
//! the pieces, each with the rows that one repetition replays.

use std::hint::black_box;
use std::process::ExitCode;

use ad_bench::cases::{self, Case, Failure, Kind};
use ad_bench::tasks;
use ad_core::{Error, Tape};

const RECORDING: &str = "recording";

/// A name, the cases of a task, and which of them.
type Piece = (&'static str, fn(Kind) -> Result<Case, Error>, Kind);

const PIECES: [Piece; 7] = [
    ("T1-value", cases::classical, Kind::Value),
    ("T1-jvp", cases::classical, Kind::Jvp),
    ("T1-gradient", cases::classical, Kind::Gradient),
    ("T2-value", cases::rosenbrock, Kind::Value),
    ("T2-jvp", cases::rosenbrock, Kind::Jvp),
    ("T2-gradient", cases::rosenbrock, Kind::Gradient),
    ("T5-jvp", cases::lotka_volterra, Kind::Jvp),
];

/// Repetitions before those that are asked for, so that every buffer has its size.
const WARM_UP: usize = 10;

fn list() -> Result<(), Failure> {
    println!("{RECORDING} {}", Tape::record(&tasks::rosenbrock_point(1000), tasks::rosenbrock)?.len());
    for (name, case, kind) in PIECES {
        println!("{name} {}", case(kind)?.tape.len());
    }
    Ok(())
}

fn run(piece: &str, times: usize) -> Result<(), Failure> {
    if piece == RECORDING {
        let x = tasks::rosenbrock_point(1000);
        for _ in 0..WARM_UP + times {
            black_box(Tape::record(black_box(&x), tasks::rosenbrock)?);
        }
        return Ok(());
    }
    let Some((_, case, kind)) = PIECES.into_iter().find(|(name, ..)| *name == piece) else {
        return Err(Failure::Mismatch(format!("there is no piece {piece}; without arguments the pieces are listed")));
    };
    let mut case = case(kind)?;
    let mut out = vec![0.0; case.outputs];
    match case.contenders.iter_mut().find(|contender| contender.name == "tape") {
        Some(tape) => Ok(tape.run(WARM_UP + times, &mut out)?),
        None => Err(Failure::Mismatch(format!("no tape computes {piece}"))),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [] => list(),
        [piece, times] => match times.parse() {
            Ok(times) => run(piece, times),
            Err(_) => Err(Failure::Mismatch(format!("{times} is no number of repetitions"))),
        },
        _ => Err(Failure::Mismatch("usage: instructions [<piece> <times>]".to_owned())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
