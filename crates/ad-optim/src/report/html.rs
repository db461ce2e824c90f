use super::{Chart, escape};
use crate::outcome::{duration, excerpt, number, point};
use crate::{DEFAULT_MAX_STEPS, Error, Outcome, files};
use std::fmt::{Display, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, thread};

/// One page about a run, as HTML: curves, settings, outcome, tables of your own, and where it ran.
///
/// The page is one file. It asks nothing of the network and runs no script, which its security policy forbids; so it can
/// be mailed, kept, and opened in many years. All text is escaped.
///
/// # Example
///
/// ```
/// use ad_optim::report::{Chart, Report};
/// use ad_optim::{GradientDescent, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, GradientDescent::new(0.25), vec![8.0]).max_steps(20).run()?;
/// let page = Report::new("A first descent")
///     .text("From 8 downhill.")
///     .setting("rule", "gradient descent")
///     .setting("rate", 0.25)
///     .chart(&Chart::of_history("Value", &out.history))
///     .outcome(&out)
///     .table("Marks", &["pupil", "mark"], &[["Ada", "1"], ["Bob", "<2"]])
///     .to_html();
/// assert!(page.starts_with("<!doctype html>") && page.contains("<td>&lt;2</td>"));
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a report is written by write or to_html"]
pub struct Report {
    title: String,
    /// The paragraphs before everything else.
    introduction: String,
    settings: Vec<(String, String)>,
    sections: Vec<String>,
    environment: Vec<(String, String)>,
}

/// At most so many rows of the history are shown.
const ROWS: usize = 200;

impl Report {
    /// A page that names the environment: this library, the program, the machine, and the time of this call.
    pub fn new(title: &str) -> Report {
        let program = env::args_os().next();
        let program = program.as_deref().map(Path::new).and_then(Path::file_name);
        let mut environment = vec![("ad-optim", env!("CARGO_PKG_VERSION").to_owned())];
        if let Some(program) = program {
            environment.push(("program", program.to_string_lossy().into_owned()));
        }
        let build = if cfg!(debug_assertions) { "debug (slow: use --release)" } else { "release" };
        environment.push(("build", build.to_owned()));
        environment.push(("system", format!("{} on {}", env::consts::OS, env::consts::ARCH)));
        if let Ok(threads) = thread::available_parallelism() {
            environment.push(("processors", threads.to_string()));
        }
        if let Ok(time) = SystemTime::now().duration_since(UNIX_EPOCH) {
            environment.push(("time", date_and_time(time.as_secs())));
        }
        Report {
            title: title.to_owned(),
            introduction: String::new(),
            settings: Vec::new(),
            sections: Vec::new(),
            environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// Leaves out the environment, with which no two pages have the same bytes; to be called first.
    pub fn without_environment(mut self) -> Report {
        self.environment.clear();
        self
    }

    /// Adds a line to the environment, such as the version of the data.
    pub fn environment(mut self, name: &str, value: impl Display) -> Report {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a line to the settings: what was asked for.
    pub fn setting(mut self, name: &str, value: impl Display) -> Report {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a paragraph of text. What comes before the first chart, outcome or table stands above the settings.
    pub fn text(mut self, text: &str) -> Report {
        let paragraph = format!("<p>{}</p>\n", escape(text));
        match self.sections.is_empty() {
            true => self.introduction += &paragraph,
            false => self.sections.push(paragraph),
        }
        self
    }

    /// Adds a chart.
    pub fn chart(mut self, chart: &Chart) -> Report {
        self.sections.push(format!("<figure>\n{}</figure>\n", chart.to_svg()));
        self
    }

    /// Adds what a run left: why it stopped, its points and values, and its history, of which at most 200 rows are shown.
    /// The time that it took goes to the environment.
    pub fn outcome(mut self, outcome: &Outcome) -> Report {
        let digits = |value| number(value, 6);
        let at = |x: &[f64]| point(x, &outcome.names, digits);
        let stopped = match outcome.at_default_limit {
            true => format!("at the default limit of {DEFAULT_MAX_STEPS} steps; set max_steps or max_epochs"),
            false => outcome.stop.to_string(),
        };
        let mut rows = vec![
            ("stopped", stopped),
            ("steps", outcome.steps.to_string()),
            ("epochs", outcome.epochs.to_string()),
            ("evaluations", outcome.evaluations.to_string()),
            ("value", digits(outcome.value)),
            ("gradient norm", digits(outcome.grad_norm)),
            ("x", at(&outcome.x)),
            ("best value", digits(outcome.best_value)),
            ("best x", at(&outcome.best_x)),
        ];
        if let Some(validation) = &outcome.validation {
            let (best, epoch) = (digits(validation.best_value), validation.best_epoch);
            rows.push(("validation", digits(validation.value)));
            rows.push(("best validation", format!("{best} after epoch {epoch}")));
            rows.push(("x of best validation", at(&validation.best_x)));
        }
        let rows: Vec<_> = rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        // A time says something about the machine, and has no place on a page that is to have the same bytes each time.
        if !self.environment.is_empty() {
            self.environment.push(("time of the run".to_owned(), duration(outcome.time)));
        }
        self.sections.push(format!("<h2>Outcome</h2>\n{}", pairs(&rows)));
        if !outcome.history.is_empty() {
            let rows = excerpt(&outcome.history, ROWS).map(|record| {
                let [value, grad_norm, rate] = [record.value, record.grad_norm, record.rate].map(digits);
                let validation = record.validation.map_or(String::new(), digits);
                [record.epoch.to_string(), record.step.to_string(), value, grad_norm, rate, validation]
            });
            let rows: Vec<_> = rows.collect();
            let shown = match outcome.history.len() {
                all if all == rows.len() => String::new(),
                all => format!(", {} rows of {all}", rows.len()),
            };
            let caption = format!("value and gradient norm are those before the step{shown}");
            let header = ["epoch", "step", "value", "gradient norm", "rate", "validation"];
            let table = match outcome.validation {
                Some(_) => table(&caption, &header, &rows),
                None => {
                    let [header @ .., _] = header;
                    let rows: Vec<_> = rows.into_iter().map(|[row @ .., _]| row).collect();
                    table(&caption, &header, &rows)
                }
            };
            self.sections.push(format!("<details>\n<summary>History</summary>\n{table}</details>\n"));
        }
        self
    }

    /// Adds a table, such as a confusion matrix.
    pub fn table<const N: usize>(mut self, caption: &str, header: &[&str; N], rows: &[[impl AsRef<str>; N]]) -> Report {
        self.sections.push(table(caption, header, rows));
        self
    }

    /// Writes the page to a file, all or nothing: a file of that name stays as it was until the new one is whole.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        files::replace(path.as_ref(), self.to_html().as_bytes())
    }

    /// The page.
    pub fn to_html(&self) -> String {
        let title = escape(&self.title);
        let mut page =
            format!("{HEAD}<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n");
        page += &self.introduction;
        if !self.settings.is_empty() {
            let _ = write!(page, "<h2>Settings</h2>\n{}", pairs(&self.settings));
        }
        page.extend(self.sections.iter().map(String::as_str));
        if !self.environment.is_empty() {
            let _ = write!(page, "<h2>Environment</h2>\n{}", pairs(&self.environment));
        }
        page + "</body>\n</html>\n"
    }
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
    <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n";

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: .3rem; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
.pairs th, .pairs td { text-align: left; overflow-wrap: anywhere; } .pairs th { font-weight: normal; color: #555; white-space: nowrap; }
summary { cursor: pointer; }
@media print { details { display: none; } figure, table { break-inside: avoid; } }
";

/// A table of names and values.
fn pairs(rows: &[(String, String)]) -> String {
    let mut table = String::from("<table class=\"pairs\">\n");
    for (name, value) in rows {
        let _ = writeln!(table, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name), escape(value));
    }
    table + "</table>\n"
}

fn table<const N: usize>(caption: &str, header: &[&str; N], rows: &[[impl AsRef<str>; N]]) -> String {
    let mut table = format!("<table>\n<caption>{}</caption>\n<tr>", escape(caption));
    table.extend(header.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name))));
    table.push_str("</tr>\n");
    for row in rows {
        table.push_str("<tr>");
        table.extend(row.iter().map(|cell| format!("<td>{}</td>", escape(cell.as_ref()))));
        table.push_str("</tr>\n");
    }
    table + "</table>\n"
}

/// Seconds since the beginning of 1970 as a date and a time of day in UTC.
///
/// The calendar repeats every 400 years, and a year that begins in March has its leap day at its end; so the months
/// before each are 153 days in five (H. Hinnant, *chrono-compatible low-level date algorithms*).
fn date_and_time(seconds: u64) -> String {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // From the first of March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (400 * era + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::date_and_time;

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_704_067_199, "2023-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date_and_time(seconds), date);
        }
    }
}
