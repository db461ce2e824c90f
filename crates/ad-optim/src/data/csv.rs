//! CSV files: RFC 4180, read strictly.
//!
//! The csv crate would do, were it not so lenient: a quotation mark that is never closed swallows the rest of a file
//! without a word, and the line of a record is a blank one if blank ones precede it. What a reader here owes its users
//! is the place of every fault; that takes the few lines of
//! [`Records`].

use super::{Column, DataError, DataProblem, Dataset, Values};
use crate::{Error, files};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Reads a [`Dataset`] from a CSV file.
///
/// Say which columns hold numbers and which hold categories; others are not looked at, beyond their being there. The
/// first line has the names of the columns, unless [`without_header`](Csv::without_header) gives them.
///
/// # The format
///
/// RFC 4180, in UTF-8. Cells are separated by commas (or by what [`separator`](Csv::separator) says), lines end in `\n`,
/// `\r\n` or `\r`, a byte order mark is passed over, and so are blank lines. A cell in quotation marks may hold
/// separators, line ends, and quotation marks, doubled; it is taken as it is. Blanks around any other cell are no part of
/// it. All rows have as many cells as the header. A number is what Rust's `f64` parses, and finite: `1`, `-2.5`, `.5`,
/// `3e-4`.
///
/// # Example
///
/// ```
/// use ad_optim::data::{Csv, Missing};
///
/// let text = "\
/// species,mass,island
/// Adelie,3750,Torgersen
/// Gentoo,NA,Biscoe
/// \"Gentoo\",4500,\"Biscoe, north\"
/// ";
/// let data = Csv::new()
///     .numeric(&["mass"])
///     .categorical(&["species"])
///     .missing(Missing::DropRow)
///     .read_bytes("penguins.csv", text.as_bytes())?;
/// assert_eq!((data.len(), data.dropped()), (2, 1));
/// assert_eq!(data.numbers("mass")?, [3750.0, 4500.0]);
/// assert_eq!(data.levels("species")?, ["Adelie", "Gentoo"]);
/// assert_eq!(data.line(1), Some(4));
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a reader reads nothing until read_path or read_bytes is called"]
pub struct Csv {
    columns: Vec<Wanted>,
    missing: Missing,
    markers: Vec<String>,
    separator: char,
    header: Option<Vec<String>>,
}

/// A column that was asked for.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Numeric,
    Categorical,
    /// Categorical, with these levels alone.
    Levels(Vec<String>),
}

/// What is to happen where a value is missing.
///
/// # Example
///
/// ```
/// use ad_optim::data::{Csv, Missing, Standardisation};
///
/// let read = |missing| Csv::new().numeric(&["u"]).missing(missing).read_bytes("u.csv", b"u\n1\nNA\n5\n");
/// let error = read(Missing::Refuse).unwrap_err();
/// assert!(error.to_string().starts_with("u.csv, line 3, column u: the value is missing"));
/// assert_eq!(read(Missing::DropRow)?.numbers("u")?, [1.0, 5.0]);
/// assert_eq!(read(Missing::Fill(0.0))?.numbers("u")?, [1.0, 0.0, 5.0]);
/// let data = read(Missing::TrainingMean)?;
/// assert_eq!(Standardisation::fit(&data, &["u"])?.fill(&data)?.numbers("u")?, [1.0, 3.0, 5.0]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Missing {
    /// It is an error that names line and column. The default.
    #[default]
    Refuse,
    /// Its row is left out, and counted in [`Dataset::dropped`].
    DropRow,
    /// This number stands in for it. A missing category is an error.
    Fill(f64),
    /// It stays missing until a [`Standardisation`](super::Standardisation), fitted on the training part, puts the mean
    /// of that part in. A missing category is an error.
    TrainingMean,
}

impl Csv {
    /// A reader that reads no columns yet.
    pub fn new() -> Csv {
        Csv {
            columns: Vec::new(),
            missing: Missing::default(),
            markers: ["", "NA"].map(str::to_owned).into(),
            separator: ',',
            header: None,
        }
    }

    /// Reads these columns as numbers.
    pub fn numeric(mut self, names: &[&str]) -> Csv {
        self.columns.extend(names.iter().map(|&name| Wanted { name: name.to_owned(), kind: Kind::Numeric }));
        self
    }

    /// Reads these columns as categories, whose levels are what the rows hold, sorted.
    pub fn categorical(mut self, names: &[&str]) -> Csv {
        self.columns.extend(names.iter().map(|&name| Wanted { name: name.to_owned(), kind: Kind::Categorical }));
        self
    }

    /// Reads a column as categories with these levels, in this order; any other is an error.
    ///
    /// A second file read so has the same codes as the first.
    ///
    /// ```
    /// use ad_optim::data::Csv;
    ///
    /// let sizes = Csv::new().levels("size", &["small", "large"]);
    /// assert_eq!(sizes.read_bytes("a.csv", b"size\nlarge\nlarge\n")?.codes("size")?, [1, 1]);
    /// let error = sizes.read_bytes("b.csv", b"size\nlarge\nhuge\n").unwrap_err();
    /// assert_eq!(error.to_string(), "b.csv, line 3, column size: \"huge\" is none of the levels small, large");
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn levels(mut self, name: &str, levels: &[&str]) -> Csv {
        let levels = levels.iter().map(|&level| level.to_owned()).collect();
        self.columns.push(Wanted { name: name.to_owned(), kind: Kind::Levels(levels) });
        self
    }

    /// Sets what happens where a value is missing in a column that is read; default [`Missing::Refuse`].
    pub fn missing(mut self, policy: Missing) -> Csv {
        self.missing = policy;
        self
    }

    /// Sets which cells count as missing; default an empty one and `NA`.
    pub fn missing_markers(mut self, markers: &[&str]) -> Csv {
        self.markers = markers.iter().map(|&marker| marker.to_owned()).collect();
        self
    }

    /// Sets what separates cells; default a comma. A semicolon or a tab are common, too.
    pub fn separator(mut self, separator: char) -> Csv {
        self.separator = separator;
        self
    }

    /// Reads a file whose first line is a row of data; `names` are the names of all its columns.
    pub fn without_header(mut self, names: &[&str]) -> Csv {
        self.header = Some(names.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] where the system cannot, and those of [`read_bytes`](Csv::read_bytes).
    pub fn read_path(&self, path: impl AsRef<Path>) -> Result<Dataset, Error> {
        let path = path.as_ref();
        self.read_bytes(&path.display().to_string(), &files::read(path)?)
    }

    /// Reads the contents of a file; `source` is what messages call it.
    ///
    /// # Errors
    ///
    /// [`Error::Data`], which names line and column, for whatever is not of [the format](Csv#the-format), a column that
    /// is not there or has the name of another, a cell that is no finite number, a missing value that the
    /// [policy](Csv::missing) does not deal with, and a table without rows. [`Error::InvalidSetting`] for
    /// [`Missing::Fill`] with what is not finite.
    pub fn read_bytes(&self, source: &str, bytes: &[u8]) -> Result<Dataset, Error> {
        let fault = |line, column: Option<&str>, problem| {
            let column = column.map(str::to_owned);
            Error::from(DataError { file: source.to_owned(), line, column, problem })
        };
        if let Missing::Fill(value) = self.missing
            && !value.is_finite()
        {
            return Err(Error::setting("Csv", "value for what is missing", value, "finite"));
        }
        if matches!(self.separator, '"' | '\n' | '\r') || !self.separator.is_ascii() {
            return Err(fault(None, None, DataProblem::Separator(self.separator)));
        }
        if self.columns.is_empty() {
            return Err(fault(None, None, DataProblem::NoColumns));
        }
        let mut asked = HashSet::new();
        if let Some(twice) = self.columns.iter().find(|wanted| !asked.insert(&wanted.name)) {
            return Err(fault(None, Some(&twice.name), DataProblem::AskedTwice));
        }
        for wanted in &self.columns {
            if let Kind::Levels(levels) = &wanted.kind {
                let mut given = HashSet::new();
                if let Some(twice) = levels.iter().find(|level| !given.insert(*level)) {
                    return Err(fault(None, Some(&wanted.name), DataProblem::LevelTwice { level: twice.clone() }));
                }
            }
        }
        let misread = |Fault { line, cell, problem }| fault(Some(line), Some(&(cell + 1).to_string()), problem);
        let mut records = Records::new(bytes, self.separator as u8);
        let (header_line, header) = match &self.header {
            Some(names) => (None, names.clone()),
            None => match records.next() {
                Some(record) => record.map(|record| (Some(record.line), record.cells)).map_err(misread)?,
                None => return Err(fault(None, None, DataProblem::Empty)),
            },
        };
        check_header(&header).map_err(|(index, problem)| {
            let number = (index + 1).to_string();
            let name = Some(header[index].as_str()).filter(|name| !name.is_empty());
            fault(header_line, name.or(Some(&number)), problem)
        })?;
        let places = self.places(&header).map_err(|(name, problem)| fault(header_line, Some(name), problem))?;

        let mut cells: Vec<Vec<String>> = vec![Vec::new(); self.columns.len()];
        let mut numbers: Vec<Vec<f64>> = vec![Vec::new(); self.columns.len()];
        let (mut lines, mut dropped) = (Vec::new(), 0);
        for record in records {
            let mut record = record.map_err(misread)?;
            let line = Some(record.line);
            if record.cells.len() != header.len() {
                let problem = DataProblem::Ragged { expected: header.len(), got: record.cells.len() };
                return Err(fault(line, None, problem));
            }
            let is_missing = |cell: &String| self.markers.contains(cell);
            let lacks = |(wanted, &place): (&Wanted, &usize)| {
                let is_level = matches!(&wanted.kind, Kind::Levels(levels) if levels.contains(&record.cells[place]));
                is_missing(&record.cells[place]) && !is_level
            };
            if self.missing == Missing::DropRow && self.columns.iter().zip(&places).any(lacks) {
                dropped += 1;
                continue;
            }
            lines.push(record.line);
            for (index, (wanted, &place)) in self.columns.iter().zip(&places).enumerate() {
                let text = std::mem::take(&mut record.cells[place]);
                let fault = |problem| Err(fault(line, Some(&wanted.name), problem));
                match &wanted.kind {
                    Kind::Numeric if is_missing(&text) => match self.missing {
                        Missing::Fill(value) => numbers[index].push(value),
                        Missing::TrainingMean => numbers[index].push(f64::NAN),
                        _ => return fault(DataProblem::Missing { text, categorical: false }),
                    },
                    Kind::Numeric => match text.parse::<f64>() {
                        Ok(number) if number.is_finite() => numbers[index].push(number),
                        Ok(_) => return fault(DataProblem::NotFinite { text }),
                        Err(_) => return fault(DataProblem::NotANumber { text }),
                    },
                    // A level that was named is one, whatever missing cells look like.
                    Kind::Levels(levels) if levels.contains(&text) => cells[index].push(text),
                    _ if is_missing(&text) => return fault(DataProblem::Missing { text, categorical: true }),
                    Kind::Levels(levels) if !levels.contains(&text) => {
                        return fault(DataProblem::UnknownLevel { text, levels: levels.clone() });
                    }
                    _ => cells[index].push(text),
                }
            }
        }
        let columns = self.columns.iter().zip(cells.into_iter().zip(numbers)).map(|(wanted, (cells, numbers))| {
            match &wanted.kind {
                Kind::Numeric => Column::numbers(&wanted.name, numbers),
                Kind::Categorical => Column::categories(&wanted.name, &cells),
                Kind::Levels(levels) => {
                    let code: HashMap<&str, usize> = levels.iter().map(String::as_str).zip(0..).collect();
                    let codes = cells.iter().map(|cell| code[cell.as_str()]).collect();
                    Column { name: wanted.name.clone(), values: Values::Categories { levels: levels.clone(), codes } }
                }
            }
        });
        Dataset::new(columns.collect(), source.into(), lines, dropped)
    }

    /// Where in the header the columns stand that were asked for.
    fn places(&self, header: &[String]) -> Result<Vec<usize>, (&str, DataProblem)> {
        let mut places = Vec::new();
        for wanted in &self.columns {
            let place = header.iter().position(|name| *name == wanted.name);
            let missing = || (wanted.name.as_str(), DataProblem::NoSuchColumn { columns: header.to_vec() });
            places.push(place.ok_or_else(missing)?);
        }
        Ok(places)
    }
}

impl Default for Csv {
    fn default() -> Csv {
        Csv::new()
    }
}

/// Refuses columns without a name or with that of another: which one is meant would be a guess.
fn check_header(header: &[String]) -> Result<(), (usize, DataProblem)> {
    let mut seen = HashMap::new();
    for (index, name) in header.iter().enumerate() {
        if name.is_empty() {
            return Err((index, DataProblem::UnnamedColumn { index }));
        }
        if let Some(first) = seen.insert(name, index) {
            return Err((index, DataProblem::DuplicateColumn { first, second: index }));
        }
    }
    Ok(())
}

/// A row of cells, and the line on which it begins.
struct Record {
    line: u64,
    cells: Vec<String>,
}

/// What is wrong with a cell: the line on which it begins, and its number in its row, from 0.
struct Fault {
    line: u64,
    cell: usize,
    problem: DataProblem,
}

/// The rows of a file one after the other, blank lines left out; nothing after the first fault.
struct Records<'a> {
    rest: &'a [u8],
    line: u64,
    separator: u8,
}

impl<'a> Records<'a> {
    fn new(bytes: &'a [u8], separator: u8) -> Records<'a> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        Records { rest: bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes), line: 1, separator }
    }

    /// One row, which may be a blank line.
    fn record(&mut self) -> Result<Record, Fault> {
        let mut record = Record { line: self.line, cells: Vec::new() };
        loop {
            record.cells.push(self.cell(record.cells.len())?);
            let Some((&end, rest)) = self.rest.split_first() else { return Ok(record) };
            self.rest = rest;
            if end != self.separator {
                if end == b'\r' {
                    self.rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                }
                self.line += 1;
                return Ok(record);
            }
        }
    }

    /// The next cell, up to the separator, the end of the line or that of the file.
    fn cell(&mut self, cell: usize) -> Result<String, Fault> {
        let line = self.line;
        let fault = |problem| Fault { line, cell, problem };
        let ends = |byte: u8| byte == self.separator || matches!(byte, b'\n' | b'\r');
        let bytes = match self.rest.strip_prefix(b"\"") {
            Some(quoted) => {
                let (bytes, after) = quoted_cell(quoted).ok_or_else(|| fault(DataProblem::UnclosedQuote))?;
                if after.first().is_some_and(|&next| !ends(next)) {
                    return Err(fault(DataProblem::StrayQuote));
                }
                self.line += line_ends(&self.rest[..self.rest.len() - after.len()]);
                self.rest = after;
                bytes
            }
            None => {
                let end = self.rest.iter().position(|&byte| ends(byte));
                let (bytes, after) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = after;
                let bytes = bytes.trim_ascii();
                if bytes.starts_with(b"\"") {
                    return Err(fault(DataProblem::StrayQuote));
                }
                bytes.to_vec()
            }
        };
        String::from_utf8(bytes).map_err(|_| fault(DataProblem::NotUtf8))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Fault>;

    fn next(&mut self) -> Option<Result<Record, Fault>> {
        while !self.rest.is_empty() {
            let quoted = self.rest.starts_with(b"\"");
            match self.record() {
                Ok(record) if !quoted && record.cells == [""] => {}
                Ok(record) => return Some(Ok(record)),
                Err(fault) => {
                    self.rest = &[];
                    return Some(Err(fault));
                }
            }
        }
        None
    }
}

/// The text up to the closing quotation mark, and what follows that; `None` if it is never closed.
fn quoted_cell(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut cell = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|&byte| byte == b'"')?;
        cell.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(b"\"") {
            Some(after) => {
                cell.push(b'"');
                rest = after;
            }
            None => return Some((cell, rest)),
        }
    }
}

/// How many lines end in the text; `\r\n` is one end.
fn line_ends(text: &[u8]) -> u64 {
    let lone = |(i, &byte): (usize, &u8)| byte == b'\n' || byte == b'\r' && text.get(i + 1) != Some(&b'\n');
    text.iter().enumerate().filter(|&at| lone(at)).count() as u64
}
