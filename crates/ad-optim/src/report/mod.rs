//! What people look at: logs, curves, a page about a run, and progress.
//!
//! | | for | written |
//! |---|---|---|
//! | [`Log`] | programs: JSON Lines or CSV, a line a step or an epoch | as the run goes |
//! | [`Chart`] | eyes: curves as SVG | when asked for |
//! | [`Report`] | readers: one HTML page with curves, settings, outcome and environment | at the end |
//! | [`Progress`] | whoever waits: a bar, or lines where there is no terminal | as the run goes, on stderr |
//!
//! None of them changes a run. They take a [`Step`], a [`Record`] or an [`Outcome`](crate::Outcome), so that an observer
//! of a trainer, or a loop of your own, can hand them on.
//!
//! # Example
//!
//! ```
//! use ad_optim::report::{Chart, Log, LogFormat, Progress, Report};
//! use ad_optim::{GradientDescent, Trainer, from_fn};
//!
//! # let folder = std::env::temp_dir().join(format!("ad-optim-report-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
//! let mut log = Log::create(folder.join("run.jsonl"), LogFormat::JsonLines)?;
//! let mut progress = Progress::steps("descending", Some(20));
//! let out = Trainer::new(&f, GradientDescent::new(0.25), vec![8.0])
//!     .max_steps(20)
//!     .observe(|step| log.observe(step))
//!     .observe(|step| progress.observe(step))
//!     .run()?;
//! progress.finish();
//! log.finish()?; // an error of the log, such as a full disk, ended the run and is told here
//!
//! let chart = Chart::of_history("Descent", &out.history);
//! chart.write(folder.join("run.svg"))?;
//! Report::new("Descent").setting("rate", 0.25).chart(&chart).outcome(&out).write(folder.join("run.html"))?;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chart;
mod html;
mod log;
mod progress;

pub use chart::Chart;
pub use html::Report;
pub use log::{Entry, Field, Log, LogFormat};
pub use progress::Progress;

use crate::{Record, Step};

impl Entry for Step {
    fn fields(&self) -> Vec<(&str, Field<'_>)> {
        vec![
            ("step", Field::Count(self.step)),
            ("epoch", Field::Count(self.epoch)),
            ("samples", Field::Count(self.samples)),
            ("value", Field::Number(self.value)),
            ("grad_norm", Field::Number(self.grad_norm)),
            ("rate", Field::Number(self.rate)),
            ("epoch_mean", self.epoch_mean.map_or(Field::Absent, Field::Number)),
            ("validation", self.validation.map_or(Field::Absent, Field::Number)),
            ("seconds", Field::Number(self.time.as_secs_f64())),
        ]
    }
}

impl Entry for Record {
    fn fields(&self) -> Vec<(&str, Field<'_>)> {
        vec![
            ("step", Field::Count(self.step)),
            ("epoch", Field::Count(self.epoch)),
            ("samples", Field::Count(self.samples)),
            ("value", Field::Number(self.value)),
            ("grad_norm", Field::Number(self.grad_norm)),
            ("rate", Field::Number(self.rate)),
            ("validation", self.validation.map_or(Field::Absent, Field::Number)),
            ("seconds", Field::Number(self.time.as_secs_f64())),
        ]
    }
}

/// The text with what XML and HTML would take for markup escaped, and what XML forbids replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
