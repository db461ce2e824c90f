//! What the figures are to be, and the reasons noted for those that are not.

use std::collections::HashMap;
use std::fmt::Write as _;

use ad_core::SimdLevel;

use crate::cases::{Case, Kind};

/// Nanoseconds a row of recording, at most.
pub const RECORDING: f64 = 5.0;
/// Nanoseconds a row of freezing, at most.
pub const FREEZING: f64 = 40.0;
/// Bytes a row of a tape, at most.
pub const BYTES: f64 = 24.0;
/// The speed-up of T4 over 4096 samples by a second thread on a second core, at least.
pub const THREADS: f64 = 1.7;

/// How many times the derivative by hand the tape may take; in lanes at the given level.
pub fn of_task(case: &Case, level: Option<SimdLevel>) -> Option<f64> {
    let by_level = |avx512, avx2, sse2| match level?.to_string().as_str() {
        "AVX-512" => Some(avx512),
        "AVX2" => Some(avx2),
        "SSE2" => Some(sse2),
        _ => None,
    };
    match (case.task, case.kind) {
        ("T1", Kind::Jvp) => Some(1.5),
        ("T2", Kind::Jvp) => Some(5.0),
        ("T2", Kind::Gradient) => Some(10.0),
        ("T3", Kind::SumGradient | Kind::ShuffledGradient) => by_level(0.4, 0.5, 0.8),
        ("T4", Kind::SumGradient | Kind::ShuffledGradient) => by_level(0.21, 0.35, 0.7),
        ("T5", Kind::Jvp) => Some(3.0),
        ("T5", Kind::Jacobian) | ("T8", Kind::Gradient) => Some(2.5),
        // The goal is that of the level a user gets.
        ("T5", Kind::Jacobians) | ("T8", Kind::Gradients) if level == Some(SimdLevel::best()) => Some(0.5),
        _ => None,
    }
}

/// Why goals are missed: lines `T2 gradient: text`, of the text of benches/notes.md.
#[derive(Debug, Clone, Default)]
pub struct Notes(HashMap<String, String>);

impl Notes {
    /// Reads the lines; comments of HTML are left out.
    ///
    /// # Errors
    ///
    /// A message with the line that is no note, or the comment that has no end.
    pub fn parse(mut text: &str) -> Result<Notes, String> {
        let mut plain = String::new();
        while let Some((before, comment)) = text.split_once("<!--") {
            plain.push_str(before);
            text = comment.split_once("-->").ok_or("notes.md: a comment has no end")?.1;
        }
        plain.push_str(text);
        let mut notes = HashMap::new();
        for line in plain.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, note) = line.split_once(": ").ok_or(format!("notes.md: no `task: text` is in: {line}"))?;
            notes.insert(key.trim().to_owned(), note.trim().to_owned());
        }
        Ok(Notes(notes))
    }

    /// The note of a row, or else that of its task at all levels: `T3 gradient, AVX2`
    /// is a row of the task `T3 gradient`.
    fn of(&self, row: &str) -> Option<&str> {
        let task = row.rsplit_once(", ").map_or(row, |(task, _)| task);
        self.0.get(row).or_else(|| self.0.get(task)).map(String::as_str)
    }
}

/// Compares figures with goals and remembers which are missed.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    notes: Notes,
    missed: String,
}

impl Judge {
    /// One who knows the notes.
    pub fn new(notes: Notes) -> Judge {
        Judge { notes, missed: String::new() }
    }

    /// `met` or `missed`, for a figure that is to be at most the goal.
    pub fn at_most(&mut self, row: &str, figure: f64, goal: f64) -> &'static str {
        self.verdict(row, figure, goal, figure <= goal)
    }

    /// `met` or `missed`, for a figure that is to be at least the goal.
    pub fn at_least(&mut self, row: &str, figure: f64, goal: f64) -> &'static str {
        self.verdict(row, figure, goal, figure >= goal)
    }

    fn verdict(&mut self, row: &str, figure: f64, goal: f64, met: bool) -> &'static str {
        if figure.is_nan() {
            return "not measured";
        }
        if met {
            return "met";
        }
        let note = self.notes.of(row).map_or(String::new(), |note| format!(": {note}"));
        // Writing to a string cannot fail.
        let _ = writeln!(self.missed, "- **{row}** missed, {figure:.3} and not {goal}{note}");
        "missed"
    }

    /// A list of what was missed since it was last asked for, for below a table.
    pub fn take_missed(&mut self) -> String {
        let missed = std::mem::take(&mut self.missed);
        if missed.is_empty() { missed } else { format!("\n{missed}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_row_has_its_note() -> Result<(), String> {
        let notes = Notes::parse("<!-- Not\na: note. -->\nT2 gradient: memory.\nT3 x: all.\nT3 x, SSE2: two lanes.\n")?;
        let mut judge = Judge::new(notes);
        assert_eq!(judge.at_most("T2 gradient", 10.0, 10.0), "met");
        assert_eq!(judge.take_missed(), "");
        assert_eq!(judge.at_most("T2 gradient", 10.5, 10.0), "missed");
        assert_eq!(judge.at_most("T3 x, SSE2", 1.0, 0.5), "missed");
        assert_eq!(judge.at_most("T3 x, AVX2", 1.0, 0.5), "missed");
        assert_eq!(judge.at_least("threads", 1.5, 1.7), "missed");
        assert_eq!(judge.at_least("threads", 1.8, 1.7), "met");
        assert_eq!(judge.at_most("freezing", f64::NAN, 40.0), "not measured");
        assert_eq!(
            judge.take_missed(),
            "\n- **T2 gradient** missed, 10.500 and not 10: memory.\n\
             - **T3 x, SSE2** missed, 1.000 and not 0.5: two lanes.\n\
             - **T3 x, AVX2** missed, 1.000 and not 0.5: all.\n\
             - **threads** missed, 1.500 and not 1.7\n"
        );
        assert_eq!(judge.take_missed(), "");
        Ok(())
    }

    #[test]
    fn a_line_that_is_no_note_is_an_error() {
        assert!(Notes::parse("T2 gradient").is_err());
        assert!(Notes::parse("<!-- T2 gradient: x").is_err());
    }
}
