//! Runs a law on many random cases, and makes a case that breaks it smaller.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::agreement::Seen;
use super::programs::Random;

/// How many cases of each law are tried: `LAW_CASES`, or few in a debug build
/// and more in a release build.
pub fn cases() -> usize {
    let usual = if cfg!(debug_assertions) { 200 } else { 2000 };
    std::env::var("LAW_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// How often a case that breaks a law is run again to find a smaller one.
const ATTEMPTS: usize = 20_000;

/// What happened in the cases of a law.
pub struct Report {
    cases: usize,
    seen: Seen,
}

/// Tries a law on random cases; `number` is what makes them others than those
/// of other laws. A law is broken by a panic, whose message tells the case.
pub fn law(number: u64, mut holds: impl FnMut(&mut Random, &mut Seen)) -> Report {
    let (cases, mut seen) = (cases(), Seen::default());
    for case in 0..cases {
        let mut random = Random::new(number, case);
        let Err(message) = attempt(&mut random, &mut seen, &mut holds) else { continue };
        let (smaller, message) = smallest(random.drawn().to_vec(), message, |drawn| {
            let mut random = Random::of(drawn.to_vec());
            let broken = attempt(&mut random, &mut Seen::default(), &mut holds).err();
            broken.map(|message| (random.drawn().to_vec(), message))
        });
        panic!("case {case} breaks the law; the smallest like it, of {} numbers:\n{message}", smaller.len());
    }
    Report { cases, seen }
}

impl Report {
    /// Fails unless it was so in so many percent of the cases at least.
    #[track_caller]
    pub fn saw(self, what: &str, percent: usize) -> Report {
        let times = self.seen.times(what);
        let few = self.cases < 100;
        assert!(few || times * 100 >= percent * self.cases, "{what}: {times} times in {} cases", self.cases);
        self
    }

    /// Fails if it was so more than once in so many cases.
    #[track_caller]
    pub fn saw_at_most_once_in(self, cases: usize, what: &str) -> Report {
        let times = self.seen.times(what);
        assert!(times <= self.cases.div_ceil(cases), "{what}: {times} times in {} cases", self.cases);
        self
    }
}

thread_local! {
    /// Whether panics of this thread are part of a search, and not told.
    static SEARCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the law holds; if not, what it says.
fn attempt(random: &mut Random, seen: &mut Seen, holds: &mut impl FnMut(&mut Random, &mut Seen)) -> Result<(), String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !SEARCHING.get() {
                told(info);
            }
        }));
    });
    SEARCHING.set(true);
    let broken = panic::catch_unwind(AssertUnwindSafe(|| holds(random, seen)));
    SEARCHING.set(false);
    let text = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("a panic without a message").to_owned(),
    };
    broken.map_err(text)
}

/// The smallest list of numbers found that still breaks the law: shorter, or as
/// short with smaller numbers. `broken` gives what it drew and said.
pub fn smallest(
    mut drawn: Vec<u64>,
    mut message: String,
    mut broken: impl FnMut(&[u64]) -> Option<(Vec<u64>, String)>,
) -> (Vec<u64>, String) {
    let mut attempts = 0;
    let mut accept = |candidate: &[u64], drawn: &mut Vec<u64>| {
        attempts += 1;
        let Some((used, text)) = (attempts <= ATTEMPTS).then(|| broken(candidate)).flatten() else { return false };
        let is_smaller = (used.len(), &used) < (drawn.len(), &*drawn);
        if is_smaller {
            (*drawn, message) = (used, text);
        }
        is_smaller
    };
    loop {
        let before = drawn.clone();
        // Steps are left out, then numbers made smaller.
        for size in [64, 32, 16, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1] {
            let mut end = drawn.len();
            while end > 0 {
                let start = end.saturating_sub(size);
                let candidate = [&drawn[..start], &drawn[end..]].concat();
                end = if accept(&candidate, &mut drawn) { start.min(drawn.len()) } else { end - 1 };
            }
        }
        for place in 0..drawn.len() {
            for smaller in
                [|_| 0, |number| number / 2, |number: u64| if number < 64 { number.max(1) - 1 } else { number }]
            {
                while drawn.get(place).is_some_and(|&number| smaller(number) < number) {
                    let mut candidate = drawn.clone();
                    candidate[place] = smaller(candidate[place]);
                    if !accept(&candidate, &mut drawn) {
                        break;
                    }
                }
            }
        }
        if drawn == before {
            return (drawn, message);
        }
    }
}
