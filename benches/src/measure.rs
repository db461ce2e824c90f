//! Measuring on a machine that slows down for seconds at a time: everything
//! that is compared is timed in turn, round after round, and only the ratios
//! of one round are trusted.

use std::time::{Duration, Instant};

/// The shortest time worth reading the clock for.
const SAMPLE: Duration = Duration::from_millis(1);

/// What is measured: it does its work as often as it is told to.
pub type Work<'a> = dyn FnMut(usize) + 'a;

/// The nanoseconds of one repetition of each contender, in every round.
#[derive(Debug, Clone)]
pub struct Timings {
    /// One entry a contender, in it one number a round.
    rounds: Vec<Vec<f64>>,
}

/// The middle of the numbers; NaN of none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]),
    }
}

impl Timings {
    /// The median time of a contender in nanoseconds.
    pub fn ns(&self, contender: usize) -> f64 {
        median(&self.rounds[contender])
    }

    /// Adds rounds of the same contenders, timed at another moment.
    pub fn extend(&mut self, others: Timings) {
        for (rounds, others) in self.rounds.iter_mut().zip(others.rounds) {
            rounds.extend(others);
        }
    }

    /// The median, over the rounds, of how many times longer a contender took
    /// than another one.
    pub fn ratio(&self, contender: usize, to: usize) -> f64 {
        let ratios: Vec<f64> = self.rounds[contender].iter().zip(&self.rounds[to]).map(|(a, b)| a / b).collect();
        median(&ratios)
    }
}

/// How many repetitions take at least 1 ms; the calls also warm everything up.
pub fn calibrate(work: &mut Work<'_>) -> usize {
    let mut time = |repetitions| {
        let start = Instant::now();
        work(repetitions);
        start.elapsed()
    };
    let mut repetitions = 1;
    // The first call is cold, and any call may be interrupted: all of three have
    // to take long enough, or one more is asked for.
    while repetitions < 1 << 24 && (0..3).any(|_| time(repetitions) < SAMPLE) {
        repetitions *= 2;
    }
    repetitions
}

/// Times the contenders in turn, `rounds` times each, in every other round from
/// the last to the first: nobody always follows the same neighbour.
pub fn interleaved(contenders: &mut [(&str, &mut Work<'_>)], rounds: usize) -> Timings {
    let repetitions: Vec<usize> = contenders.iter_mut().map(|(_, work)| calibrate(*work)).collect();
    let mut timings = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..rounds {
        for place in 0..contenders.len() {
            let i = if round % 2 == 0 { place } else { contenders.len() - 1 - place };
            let (_, work) = &mut contenders[i];
            // What the neighbours left in the caches is no part of the work.
            work(1);
            let start = Instant::now();
            work(repetitions[i]);
            timings[i].push(start.elapsed().as_nanos() as f64 / repetitions[i] as f64);
        }
    }
    Timings { rounds: timings }
}

/// The nanoseconds that `work` takes once, and what it gives.
pub fn once<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let result = std::hint::black_box(work());
    (start.elapsed().as_nanos() as f64, result)
}
