use crate::Step;
use crate::outcome::number;
use std::fmt;
use std::io::{self, Write};
use std::ops::ControlFlow;

/// Shows on stderr how far a run is: a bar in a terminal, a line now and then elsewhere.
///
/// The bar needs the feature `progress`; without it there are lines in a terminal, too. A line is written when another
/// tenth of the run is done, or, where no end is known, after 1, 2, 5, 10, 20, 50, … steps or epochs. Nothing is ever
/// written to stdout, so that what is piped from there stays as it is; and that stderr is closed ends no run.
///
/// # Example
///
/// ```
/// use ad_optim::report::Progress;
/// use ad_optim::{GradientDescent, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let mut lines = Vec::new();
/// let mut progress = Progress::steps("descending", None).lines_to(&mut lines);
/// Trainer::new(&f, GradientDescent::new(0.25), vec![1.0]).max_steps(6).observe(|step| progress.observe(step)).run()?;
/// progress.finish();
/// assert_eq!(
///     String::from_utf8(lines)?,
///     "descending: step 1, value 1\n\
///      descending: step 2, value 0.25\n\
///      descending: step 5, value 0.00390625\n\
///      descending: done after step 6, value 0.000976562\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "progress is shown when steps are recorded"]
pub struct Progress<'a> {
    label: String,
    unit: Unit,
    total: Option<usize>,
    output: Output<'a>,
    /// The last position and value, and whether a line was written for them.
    last: Option<(usize, f64)>,
    shown: bool,
    /// The position from which the next line is due.
    due: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Step,
    Epoch,
}

enum Output<'a> {
    Lines(Box<dyn Write + 'a>),
    #[cfg(feature = "progress")]
    Bar(indicatif::ProgressBar),
}

impl Progress<'static> {
    /// Counts steps, of which there are at most `total`, if that is known.
    pub fn steps(label: &str, total: Option<usize>) -> Progress<'static> {
        Progress::new(label, Unit::Step, total)
    }

    /// Counts epochs, of which there are at most `total`, if that is known.
    pub fn epochs(label: &str, total: Option<usize>) -> Progress<'static> {
        Progress::new(label, Unit::Epoch, total)
    }

    fn new(label: &str, unit: Unit, total: Option<usize>) -> Progress<'static> {
        let label: String = label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let output = bar(&label, unit, total).unwrap_or_else(|| Output::Lines(Box::new(io::stderr())));
        Progress { label, unit, total, output, last: None, shown: true, due: 1 }
    }
}

impl<'a> Progress<'a> {
    /// Writes lines to `writer` instead of showing anything on stderr.
    pub fn lines_to<'b>(mut self, writer: impl Write + 'b) -> Progress<'b> {
        self.clear();
        Progress {
            label: std::mem::take(&mut self.label),
            unit: self.unit,
            total: self.total,
            output: Output::Lines(Box::new(writer)),
            last: self.last,
            shown: self.shown,
            due: self.due,
        }
    }

    /// Shows that a step is done. Where epochs are counted, the last step of each is what counts.
    pub fn record(&mut self, step: &Step) {
        let (position, value) = match (self.unit, step.epoch_mean) {
            (Unit::Step, _) => (step.step, step.value),
            (Unit::Epoch, Some(mean)) => (step.epoch, mean),
            (Unit::Epoch, None) => return,
        };
        self.last = Some((position, value));
        self.shown = false;
        match &mut self.output {
            #[cfg(feature = "progress")]
            Output::Bar(bar) => {
                bar.set_position(position as u64);
                bar.set_message(format!("value {}", number(value, 4)));
            }
            Output::Lines(_) if position >= self.due => {
                self.due = self.next_due(position);
                self.shown = true;
                let of = self.total.map_or(String::new(), |total| format!(" of at most {total}"));
                self.write_line(&format!("{} {position}{of}, value {}", self.unit, number(value, 6)));
            }
            Output::Lines(_) => {}
        }
    }

    /// Records a step for an observer: `.observe(|step| progress.observe(step))`. Never ends the run.
    pub fn observe(&mut self, step: &Step) -> ControlFlow<()> {
        self.record(step);
        ControlFlow::Continue(())
    }

    /// Takes the bar off the screen while `write` writes to stdout or stderr, and shows it again.
    pub fn suspend<T>(&mut self, write: impl FnOnce() -> T) -> T {
        match &self.output {
            #[cfg(feature = "progress")]
            Output::Bar(bar) => bar.suspend(write),
            Output::Lines(_) => write(),
        }
    }

    /// Takes the bar off the screen, or writes the last line. Dropping it takes the bar off, too.
    pub fn finish(mut self) {
        if let (Some((position, value)), false) = (self.last, self.shown) {
            self.write_line(&format!("done after {} {position}, value {}", self.unit, number(value, 6)));
        }
    }

    fn next_due(&self, position: usize) -> usize {
        if let Some(total) = self.total {
            let stride = (total / 10).max(1);
            return (position / stride + 1).saturating_mul(stride);
        }
        let mut power = 1_usize;
        loop {
            for digit in [1, 2, 5] {
                let due = power.saturating_mul(digit);
                if due > position || due == usize::MAX {
                    return due;
                }
            }
            power = power.saturating_mul(10);
        }
    }

    fn write_line(&mut self, line: &str) {
        match &mut self.output {
            #[cfg(feature = "progress")]
            Output::Bar(_) => {}
            // One write a line, so that lines of several processes stay apart. Progress is a courtesy: nobody is left to
            // be told if stderr is closed.
            Output::Lines(writer) => {
                let _ = writer.write_all(format!("{}: {line}\n", self.label).as_bytes()).and_then(|()| writer.flush());
            }
        }
    }

    fn clear(&mut self) {
        #[cfg(feature = "progress")]
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("label", &self.label).field("total", &self.total).finish_non_exhaustive()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Step => "step",
            Unit::Epoch => "epoch",
        })
    }
}

/// A bar, if stderr is a terminal that can show one.
#[cfg(feature = "progress")]
fn bar(label: &str, unit: Unit, total: Option<usize>) -> Option<Output<'static>> {
    use indicatif::{ProgressBar, ProgressStyle};

    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total as u64), "{prefix} {bar:30} UNIT {pos} of at most {len}, {msg} [{eta} left]")
        }
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} UNIT {pos}, {msg} [{elapsed}]"),
    };
    let style = ProgressStyle::with_template(&template.replace("UNIT", &unit.to_string())).ok()?;
    // indicatif draws on stderr, and hides a bar where that is no terminal.
    let bar = bar.with_style(style).with_prefix(label.to_owned());
    if bar.is_hidden() { None } else { Some(Output::Bar(bar)) }
}

#[cfg(not(feature = "progress"))]
fn bar(_: &str, _: Unit, _: Option<usize>) -> Option<Output<'static>> {
    None
}
