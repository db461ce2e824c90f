use crate::{Error, Step};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A log of a run: one line an entry, as JSON Lines or as CSV.
///
/// An entry is a [`Step`], a [`Record`](crate::Record), an array of named numbers, or anything that is an [`Entry`].
///
/// Every line is handed to the system whole before [`record`](Log::record) returns, so a program that is killed leaves
/// the lines it had recorded. If a line cannot be written, say because the disk is full, the error says so, and what
/// came of the line is taken off the file again: the lines before it stay, whole. [`finish`](Log::finish) waits until
/// all of it is on the disk.
///
/// # Numbers
///
/// They are written with as many digits as it takes to read the same number back. JSON has no NaN and no infinities:
/// there such a number is `null`. In CSV it is `NaN`, `inf` or `-inf`. A field that an entry does not have, such as the
/// `epoch_mean` of a step within an epoch, is left out of the JSON object, and an empty cell in CSV.
///
/// # Example
///
/// ```
/// use ad_optim::report::{Log, LogFormat};
/// use ad_optim::{GradientDescent, Trainer, from_fn};
///
/// let mut text = Vec::new();
/// let mut log = Log::to(&mut text, "the log", LogFormat::JsonLines);
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, GradientDescent::new(0.25), vec![1.0]).max_steps(2).run()?;
/// for record in &out.history {
///     log.record(record)?;
/// }
/// log.record(&[("held_out", 0.5), ("worst", f64::INFINITY)])?;
/// log.finish()?;
/// let text = String::from_utf8(text)?;
/// let lines: Vec<&str> = text.lines().collect();
/// assert!(lines[0].starts_with("{\"step\":1,\"epoch\":1,\"samples\":1,\"value\":1,\"grad_norm\":2,\"rate\":0.25,\"seconds\":"));
/// assert!(lines[1].starts_with("{\"step\":2,\"epoch\":2,\"samples\":1,\"value\":0.25,"));
/// assert_eq!(lines[2], "{\"held_out\":0.5,\"worst\":null}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a log gets the lines that are recorded, and is finished by finish"]
pub struct Log<'a> {
    sink: Sink<'a>,
    /// The file, or what messages call the stream.
    path: PathBuf,
    format: LogFormat,
    /// The columns of a CSV log that has its header.
    columns: Option<Vec<String>>,
    /// The first error that an observer met.
    failed: Option<Error>,
}

/// How a [`Log`] is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// A JSON object a line, in UTF-8. Lines may have different fields.
    JsonLines,
    /// A header and rows, as RFC 4180 has them, but with `\n` at the end of lines, and blanks for line ends within a text.
    /// The first entry decides on the columns; an entry with others is refused.
    Csv,
}

/// What a line of a [`Log`] is made of.
///
/// # Example
///
/// ```
/// use ad_optim::report::{Entry, Field, Log, LogFormat};
///
/// struct Epoch {
///     number: usize,
///     accuracy: f64,
///     note: String,
/// }
///
/// impl Entry for Epoch {
///     fn fields(&self) -> Vec<(&str, Field<'_>)> {
///         vec![
///             ("epoch", Field::Count(self.number)),
///             ("accuracy", Field::Number(self.accuracy)),
///             ("note", Field::Text(&self.note)),
///         ]
///     }
/// }
///
/// let mut text = Vec::new();
/// let mut log = Log::to(&mut text, "the log", LogFormat::Csv);
/// log.record(&Epoch { number: 1, accuracy: 0.75, note: "slow, but \"sure\"".into() })?;
/// log.finish()?;
/// assert_eq!(String::from_utf8(text)?, "epoch,accuracy,note\n1,0.75,\"slow, but \"\"sure\"\"\"\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Entry {
    /// The names of the fields, all different, and their values.
    fn fields(&self) -> Vec<(&str, Field<'_>)>;
}

/// The value of a field of an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Field<'a> {
    /// A count or an index.
    Count(usize),
    /// A number; may be NaN or infinite.
    Number(f64),
    /// A text.
    Text(&'a str),
    /// No value: this entry does not have the field, others of its kind do.
    Absent,
}

impl Entry for [(&str, f64)] {
    fn fields(&self) -> Vec<(&str, Field<'_>)> {
        self.iter().map(|&(name, value)| (name, Field::Number(value))).collect()
    }
}

impl<const N: usize> Entry for [(&str, f64); N] {
    fn fields(&self) -> Vec<(&str, Field<'_>)> {
        self.as_slice().fields()
    }
}

/// Where lines go.
enum Sink<'a> {
    /// A file that is appended to, and its length after the last whole line.
    File(File, u64),
    Stream(Box<dyn Write + 'a>),
}

impl Log<'static> {
    /// A log in a new file; one of that name is emptied.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the file cannot be made.
    pub fn create(path: impl AsRef<Path>, format: LogFormat) -> Result<Log<'static>, Error> {
        let path = path.as_ref().to_owned();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // A pipe or a terminal has no length to set; there is nothing in it to empty either.
        let file = file.and_then(|file| match file.metadata()?.is_file() {
            true => file.set_len(0).map(|()| file),
            false => Ok(file),
        });
        match file {
            Ok(file) => Ok(Log { sink: Sink::File(file, 0), path, format, columns: None, failed: None }),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// A log that goes on in a file, for a run that is resumed; a new file if there is none.
    ///
    /// A last line that is not whole, left by a machine that lost its power, is taken off. A CSV log keeps its columns.
    ///
    /// # Errors
    ///
    /// [`Error::OtherLogFormat`] if the file begins as no log of this format does; it is then left as it is.
    /// [`Error::Read`] or [`Error::Write`] if the file cannot be read or written.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::report::{Log, LogFormat};
    ///
    /// # let path = std::env::temp_dir().join(format!("ad-optim-append-{}.csv", std::process::id()));
    /// std::fs::write(&path, "epoch,loss\n1,0.5\n2,0.2")?; // the last line has no end
    /// let mut log = Log::append(&path, LogFormat::Csv)?;
    /// log.record(&[("epoch", 2.0), ("loss", 0.25)])?;
    /// log.finish()?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "epoch,loss\n1,0.5\n2,0.25\n");
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(path: impl AsRef<Path>, format: LogFormat) -> Result<Log<'static>, Error> {
        let path = path.as_ref().to_owned();
        let mut text = Vec::new();
        let mut file = match OpenOptions::new().create(true).append(true).read(true).open(&path) {
            Ok(file) => file,
            Err(source) => return Err(Error::Write { path, source }),
        };
        if let Err(source) = file.read_to_end(&mut text) {
            return Err(Error::Read { path, source });
        }
        // Nothing is cut off a file that was not written as this log is. No header of CSV has a bare quotation mark.
        let fits = match format {
            LogFormat::JsonLines => text.is_empty() || text.starts_with(b"{"),
            LogFormat::Csv => !text.starts_with(b"{\""),
        };
        if !fits {
            return Err(Error::OtherLogFormat { path, format });
        }
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len()
            && let Err(source) = file.set_len(whole as u64)
        {
            return Err(Error::Write { path, source });
        }
        let header = text[..whole].split(|&byte| byte == b'\n').next().unwrap_or_default();
        let header = String::from_utf8_lossy(header);
        let columns = (format == LogFormat::Csv && !header.is_empty()).then(|| cells(&header));
        Ok(Log { sink: Sink::File(file, whole as u64), path, format, columns, failed: None })
    }
}

impl<'a> Log<'a> {
    /// A log that goes to any writer, such as stdout; `name` is what messages call it.
    ///
    /// The writer is flushed after each line.
    pub fn to(writer: impl Write + 'a, name: &str, format: LogFormat) -> Log<'a> {
        Log { sink: Sink::Stream(Box::new(writer)), path: name.into(), format, columns: None, failed: None }
    }

    /// Writes one line.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the line cannot be written; the log may be used again, say when there is room on the disk.
    /// [`Error::LogColumns`] for an entry whose fields are not the columns of a CSV log.
    pub fn record(&mut self, entry: &(impl Entry + ?Sized)) -> Result<(), Error> {
        let fields = entry.fields();
        match self.format {
            LogFormat::JsonLines => self.write_line(&json(&fields)),
            LogFormat::Csv => {
                let names: Vec<String> = fields.iter().map(|&(name, _)| name.to_owned()).collect();
                let row = join(fields.iter().map(|&(_, value)| cell(value)));
                match &self.columns {
                    Some(columns) if *columns == names => self.write_line(&row),
                    Some(columns) => Err(Error::LogColumns {
                        path: self.path.clone(),
                        expected: join(columns.iter().map(|name| quoted(name))),
                        got: join(names.iter().map(|name| quoted(name))),
                    }),
                    None => {
                        // Header and first row in one, so that a file never has a header written twice.
                        self.write_line(&format!("{}\n{row}", join(names.iter().map(|name| quoted(name)))))?;
                        self.columns = Some(names);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Records a step for an observer: `.observe(|step| log.observe(step))`.
    ///
    /// The first error breaks off the run; [`finish`](Log::finish) returns it.
    pub fn observe(&mut self, step: &Step) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.record(step).err();
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    ///
    /// The first error of an observer, see [`observe`](Log::observe); else [`Error::Write`] if the system could not keep
    /// what it had taken.
    pub fn finish(self) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let finished = match self.sink {
            Sink::File(file, _) => match file.sync_all() {
                // Pipes and terminals have no disk to be waited for.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                result => result,
            },
            Sink::Stream(mut stream) => stream.flush(),
        };
        finished.map_err(|source| Error::Write { path: self.path, source })
    }

    fn write_line(&mut self, line: &str) -> Result<(), Error> {
        let line = format!("{line}\n");
        let written = match &mut self.sink {
            Sink::File(file, length) => match file.write_all(line.as_bytes()) {
                Ok(()) => {
                    *length += line.len() as u64;
                    Ok(())
                }
                Err(error) => {
                    // The error is what counts; where the file cannot be cut either, it ends in a part of a line.
                    let _ = file.set_len(*length);
                    Err(error)
                }
            },
            Sink::Stream(stream) => stream.write_all(line.as_bytes()).and_then(|()| stream.flush()),
        };
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

impl std::fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("path", &self.path).field("format", &self.format).finish_non_exhaustive()
    }
}

fn json(fields: &[(&str, Field<'_>)]) -> String {
    let mut object = String::from("{");
    for &(name, value) in fields {
        let value = match value {
            Field::Count(count) => count.to_string(),
            Field::Number(number) if number.is_finite() => digits(number),
            Field::Number(_) => "null".to_owned(),
            Field::Text(text) => json_text(text),
            Field::Absent => continue,
        };
        if object.len() > 1 {
            object.push(',');
        }
        let _ = write!(object, "{}:{value}", json_text(name));
    }
    object + "}"
}

fn json_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // All control characters, and the two that end a line of JavaScript.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The shortest digits that are read back as the same number; a whole number has no point.
fn digits(number: f64) -> String {
    let digits = format!("{number:?}");
    digits.strip_suffix(".0").map_or(digits.clone(), str::to_owned)
}

fn cell(value: Field<'_>) -> String {
    match value {
        Field::Count(count) => count.to_string(),
        Field::Number(number) => digits(number),
        Field::Text(text) => quoted(text),
        Field::Absent => String::new(),
    }
}

/// A cell of CSV, in quotation marks where its text asks for them. Its line ends become blanks: an entry is one line.
fn quoted(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let plain = !text.is_empty() && text.trim() == text && !text.contains(['"', ',']);
    if plain { text } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

fn join(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(",")
}

/// The cells of a header that [`quoted`] wrote.
fn cells(header: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let (mut inside, mut chars) = (false, header.chars().peekable());
    while let (Some(c), Some(cell)) = (chars.next(), cells.last_mut()) {
        match c {
            '"' if inside && chars.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' => inside = !inside,
            ',' if !inside => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    cells
}
