//! How the costs grow with the length of the tape: chained Rosenbrock functions
//! of growing n.

use std::cell::Cell;

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

/// The nanoseconds that it takes until a new tape can be replayed.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// What the function takes while it is recorded.
    pub record: f64,
    /// What is left of `Tape::record`.
    pub finish: f64,
    /// The program for values and tangents: what the first value takes longer than the second.
    pub forward: f64,
    /// The program for adjoints: what the first gradient takes longer than the second.
    pub reverse: f64,
}

/// Records at x and replays twice, on a workspace that is warm after the first call.
///
/// # Errors
///
/// Those of the tape.
pub fn start(x: &[f64], ws: &mut Workspace, gradient: &mut [f64]) -> Result<Start, Error> {
    let recording = Cell::new(0.0);
    let (whole, tape) = measure::once(|| {
        Tape::record(x, |x| {
            let (ns, y) = measure::once(|| tasks::rosenbrock(x));
            recording.set(ns);
            y
        })
    });
    let (tape, mut y) = (tape?, [0.0]);
    let mut value = || -> Result<f64, Error> {
        let (ns, done) = measure::once(|| tape.eval_into(ws, x, &mut y));
        done.map(|()| ns)
    };
    let forward = value()? - value()?;
    let mut adjoints = || -> Result<f64, Error> {
        let (ns, done) = measure::once(|| tape.gradient_into(ws, x, gradient));
        done.map(|_| ns)
    };
    let reverse = adjoints()? - adjoints()?;
    Ok(Start { record: recording.get(), finish: whole - recording.get(), forward, reverse })
}

/// Nanoseconds a row of everything that is done with a tape of one length.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The length of the tape.
    pub rows: usize,
    /// The way to the first replay.
    pub start: Start,
    /// The value.
    pub value: f64,
    /// The value and J·p.
    pub jvp: f64,
    /// The value and the gradient.
    pub gradient: f64,
    /// The value and seven directions.
    pub directions: f64,
}

impl Row {
    /// Freezing: all that a first derivative takes besides recording and its
    /// sweep, by the dearer of the two programs.
    pub fn freezing(&self) -> f64 {
        self.start.finish + self.start.forward.max(self.start.reverse)
    }
}

/// Measures one length.
///
/// # Errors
///
/// Those of the tape.
pub fn measure(rows: usize, rounds: usize) -> Result<Row, Error> {
    let (tape, x) = tape(rows)?;
    let rows = tape.len();
    let (mut ws, mut gradient) = (Workspace::new(), vec![0.0; x.len()]);
    start(&x, &mut ws, &mut gradient)?;
    let starts = (0..(200_000 / rows).clamp(rounds, rounds.max(50))).map(|_| start(&x, &mut ws, &mut gradient));
    let starts = starts.collect::<Result<Vec<Start>, Error>>()?;
    drop(ws);
    let a_row = |ns: f64| ns / rows as f64;
    let middle = |part: fn(&Start) -> f64| a_row(measure::median(&starts.iter().map(part).collect::<Vec<f64>>()));

    let n = x.len();
    let p = Generator::new(9).numbers(n, -1.0, 1.0);
    let seeds = Matrix::from_vec(n, DIRECTIONS, Generator::new(10).numbers(n * DIRECTIONS, -1.0, 1.0))?;
    let (mut y, mut dy, mut jp) = ([0.0], [0.0], Matrix::default());
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
    Ok(Row {
        rows,
        start: Start {
            record: middle(|start| start.record),
            finish: middle(|start| start.finish),
            forward: middle(|start| start.forward),
            reverse: middle(|start| start.reverse),
        },
        value: a_row(timings.ns(0)),
        jvp: a_row(timings.ns(1)),
        gradient: a_row(timings.ns(2)),
        directions: a_row(timings.ns(3)),
    })
}

/// Nanoseconds a row of what is done with a tape as a whole, and bytes a row.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// The length of the tape.
    pub rows: usize,
    /// [`Tape::optimized`].
    pub optimise: f64,
    /// [`Tape::write_to`] to memory.
    pub save: f64,
    /// [`Tape::read_from`] from memory.
    pub load: f64,
    /// Dropping the tape that was loaded.
    pub drop: f64,
    /// The bytes of the file.
    pub file: f64,
}

/// Measures one length: the median of some rounds.
///
/// # Errors
///
/// Those of the tape.
pub fn whole(rows: usize, rounds: usize) -> Result<Whole, Error> {
    let (tape, _) = tape(rows)?;
    let rows = tape.len();
    let (mut times, mut bytes) = ([const { Vec::new() }; 4], Vec::new());
    for _ in 0..rounds {
        let (optimise, optimized) = measure::once(|| tape.optimized());
        drop(optimized);
        bytes.clear();
        let (save, saved) = measure::once(|| tape.write_to(&mut bytes));
        saved?;
        let (load, loaded) = measure::once(|| Tape::read_from(&bytes[..]));
        let loaded = loaded?;
        let (dropping, ()) = measure::once(|| drop(loaded));
        times.iter_mut().zip([optimise, save, load, dropping]).for_each(|(times, ns)| times.push(ns));
    }
    let [optimise, save, load, drop] = times.map(|times| measure::median(&times) / rows as f64);
    Ok(Whole { rows, optimise, save, load, drop, file: bytes.len() as f64 / rows as f64 })
}
