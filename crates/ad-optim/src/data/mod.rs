//! Data of users: tables from CSV files, arrays from IDX files, and how they become samples of an
//! [`EmpiricalRisk`](crate::EmpiricalRisk).
//!
//! A [`Dataset`] is a table with named columns, of numbers or of categories. [`Csv`] reads one from a file and says what
//! is to happen to missing values; [`Dataset::split`] divides it; a [`Standardisation`] is fitted on the training part
//! and applied to every part; [`Dataset::samples`] makes the samples. An [`Idx`] holds images or labels in the format of
//! the MNIST family.
//!
//! Nothing is guessed and nothing passes silently: what cannot be read is an [`Error::Data`] that names file, line and
//! column.
//!
//! # Example
//!
//! A classifier from a table: four rows to learn from, one held out.
//!
//! ```
//! use ad_core::Tape;
//! use ad_optim::data::{Csv, Standardisation};
//! use ad_optim::{Adam, EmpiricalRisk, Trainer};
//!
//! let text = "length,kind\n1.0,short\n2.0,short\n8.0,long\n9.0,long\n8.5,long\n";
//! let data = Csv::new().numeric(&["length"]).categorical(&["kind"]).read_bytes("kinds.csv", text.as_bytes())?;
//! let (training, held_out) = data.split(0.8, 7)?;
//! let scale = Standardisation::fit(&training, &["length"])?;
//! let (training, held_out) = (scale.apply(&training)?, scale.apply(&held_out)?);
//!
//! // Levels are sorted: a sample is the length, then a 1 for "long" or for "short".
//! let columns = ["length", "kind"];
//! assert_eq!(training.row_names(&columns)?, ["length", "kind=long", "kind=short"]);
//! let loss = Tape::builder()
//!     .inputs(&["bias", "weight"], &[0.0, 0.0])
//!     .params(&["length", "long", "short"], &[0.0, 1.0, 0.0])
//!     .record(|theta, k| ((k[2] - k[1]) * (theta[0] + theta[1] * k[0])).softplus())?;
//! let samples = training.samples(&loss, &columns)?;
//! let risk = EmpiricalRisk::new(loss, samples)?;
//! let out = Trainer::new(&risk, Adam::new(0.1), vec![0.0, 0.0]).max_steps(200).run()?;
//!
//! let score = out.x[0] + out.x[1] * held_out.numbers("length")?[0];
//! let answer = if score > 0.0 { "long" } else { "short" };
//! assert_eq!(answer, held_out.levels("kind")?[held_out.codes("kind")?[0]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod csv;
mod idx;

pub use csv::{Csv, Missing};
pub use idx::{Idx, labelled_rows};

use crate::{Batches, Error};
use ad_core::{Samples, Tape};
use std::fmt;
use std::sync::Arc;

/// A table: rows of observations, columns with names, each column of numbers or of categories.
///
/// Read by [`Csv`], or made of columns by [`from_columns`](Dataset::from_columns). A number may be missing only if the
/// reader was told to leave it to the training part's mean ([`Missing::TrainingMean`]); such a table makes no rows until
/// a [`Standardisation`] has filled it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    columns: Vec<Column>,
    len: usize,
    /// The file, for messages.
    source: Arc<str>,
    /// The line of the file on which each row begins; empty for a table that was not read from a file.
    lines: Vec<u64>,
    dropped: usize,
}

/// A column of a [`Dataset`]: a name, and numbers or categories.
///
/// # Example
///
/// ```
/// use ad_optim::data::{Column, Dataset};
///
/// let data = Dataset::from_columns(vec![
///     Column::numbers("mass", vec![3.5, 4.0, 3.8]),
///     Column::categories("sex", &["male", "female", "male"]),
/// ])?;
/// assert_eq!(data.levels("sex")?, ["female", "male"]);
/// assert_eq!(data.codes("sex")?, [1, 0, 1]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    name: String,
    values: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    /// NaN stands for a missing number, and for nothing else.
    Numbers(Vec<f64>),
    /// For each row the place of its category in `levels`.
    Categories { levels: Vec<String>, codes: Vec<usize> },
}

impl Column {
    /// A column of numbers; NaN stands for a missing one.
    pub fn numbers(name: &str, values: Vec<f64>) -> Column {
        Column { name: name.to_owned(), values: Values::Numbers(values) }
    }

    /// A column of categories, whose levels are the different ones among `values`, sorted.
    pub fn categories<S: AsRef<str>>(name: &str, values: &[S]) -> Column {
        let mut levels: Vec<String> = values.iter().map(|value| value.as_ref().to_owned()).collect();
        levels.sort();
        levels.dedup();
        // Every value is among the levels, which were made of them.
        let code = |value: &S| levels.binary_search_by(|level| level.as_str().cmp(value.as_ref())).unwrap_or_default();
        let codes = values.iter().map(code).collect();
        Column { name: name.to_owned(), values: Values::Categories { levels, codes } }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::Numbers(values) => values.len(),
            Values::Categories { codes, .. } => codes.len(),
        }
    }

    fn select(&self, rows: &[usize]) -> Column {
        let values = match &self.values {
            Values::Numbers(values) => Values::Numbers(rows.iter().map(|&row| values[row]).collect()),
            Values::Categories { levels, codes } => Values::Categories {
                // Levels that no selected row has are kept, so that all parts of a table have the same codes.
                levels: levels.clone(),
                codes: rows.iter().map(|&row| codes[row]).collect(),
            },
        };
        Column { name: self.name.clone(), values }
    }
}

impl Dataset {
    /// A table of columns of equal length.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for no columns or no rows, columns of different lengths, an empty name, two columns of the same
    /// name, or an infinite number.
    pub fn from_columns(columns: Vec<Column>) -> Result<Dataset, Error> {
        Dataset::new(columns, "the table".into(), Vec::new(), 0)
    }

    fn new(columns: Vec<Column>, source: Arc<str>, lines: Vec<u64>, dropped: usize) -> Result<Dataset, Error> {
        let len = columns.first().map_or(0, Column::len);
        let data = Dataset { columns, len, source, lines, dropped };
        if data.columns.is_empty() {
            return Err(data.problem(None, None, DataProblem::NoColumns));
        }
        for (index, column) in data.columns.iter().enumerate() {
            let problem = |row, problem| Err(data.problem(row, Some(&column.name), problem));
            if column.name.is_empty() {
                return problem(None, DataProblem::UnnamedColumn { index });
            }
            if let Some(first) = data.columns[..index].iter().position(|other| other.name == column.name) {
                return problem(None, DataProblem::DuplicateColumn { first, second: index });
            }
            if column.len() != len {
                return problem(None, DataProblem::UnequalColumns { expected: len, got: column.len() });
            }
            if let Values::Numbers(values) = &column.values
                && let Some(row) = values.iter().position(|value| value.is_infinite())
            {
                return problem(Some(row), DataProblem::NotFinite { text: values[row].to_string() });
            }
        }
        if len == 0 {
            return Err(data.problem(None, None, DataProblem::NoRows { dropped }));
        }
        Ok(data)
    }

    /// The number of rows; at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a table without rows is an error of whatever would make it")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The names of the columns.
    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(Column::name).collect()
    }

    /// The number of rows of the file that were left out, see [`Missing::DropRow`].
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The line of the file on which a row begins, from 1; `None` for a row that does not exist or was not read from a
    /// file.
    pub fn line(&self, row: usize) -> Option<u64> {
        self.lines.get(row).copied()
    }

    /// A column of numbers; a missing number is NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if there is no such column or it has categories.
    pub fn numbers(&self, name: &str) -> Result<&[f64], Error> {
        match &self.column(name)?.values {
            Values::Numbers(values) => Ok(values),
            Values::Categories { .. } => Err(self.problem(None, Some(name), DataProblem::NotNumeric)),
        }
    }

    /// The levels of a column of categories: what its codes stand for.
    ///
    /// They are sorted, unless [`Csv::levels`] gave them in another order, and the same in all parts of a table.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if there is no such column or it has numbers.
    pub fn levels(&self, name: &str) -> Result<&[String], Error> {
        Ok(self.categories(name)?.0)
    }

    /// A column of categories: for each row, the place of its category among the [levels](Dataset::levels).
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if there is no such column or it has numbers.
    pub fn codes(&self, name: &str) -> Result<&[usize], Error> {
        Ok(self.categories(name)?.1)
    }

    fn categories(&self, name: &str) -> Result<(&[String], &[usize]), Error> {
        match &self.column(name)?.values {
            Values::Categories { levels, codes } => Ok((levels, codes)),
            Values::Numbers(_) => Err(self.problem(None, Some(name), DataProblem::NotCategorical)),
        }
    }

    fn column(&self, name: &str) -> Result<&Column, Error> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let columns = self.names().into_iter().map(str::to_owned).collect();
            self.problem(None, Some(name), DataProblem::NoSuchColumn { columns })
        })
    }

    /// The given rows in the given order; a row may be taken several times.
    ///
    /// # Errors
    ///
    /// [`Error::SampleOutOfRange`] for a row that does not exist, [`Error::EmptyBatch`] for no rows.
    pub fn select(&self, rows: &[usize]) -> Result<Dataset, Error> {
        if rows.is_empty() {
            return Err(Error::EmptyBatch);
        }
        if let Some(&sample) = rows.iter().find(|&&row| row >= self.len) {
            return Err(Error::SampleOutOfRange { sample, samples: self.len });
        }
        Ok(Dataset {
            columns: self.columns.iter().map(|column| column.select(rows)).collect(),
            len: rows.len(),
            source: Arc::clone(&self.source),
            lines: rows.iter().filter_map(|&row| self.line(row)).collect(),
            dropped: self.dropped,
        })
    }

    /// A training part and the rest, drawn at random: a pure function of the number of rows, the share and the seed.
    ///
    /// The rows are put in the order of the first shuffled epoch, [`Batches::shuffled(len).seed(seed).epoch(len, 1)`](
    /// Batches#the-shuffle), the same on every machine and in every later version. The training part are the first
    /// `round(training_share · len)` of them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for a share that leaves a part without rows.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::data::{Column, Dataset};
    ///
    /// let data = Dataset::from_columns(vec![Column::numbers("u", (0..10).map(f64::from).collect())])?;
    /// let (training, held_out) = data.split(0.8, 7)?;
    /// assert_eq!(training.numbers("u")?, [5.0, 2.0, 8.0, 0.0, 4.0, 9.0, 1.0, 3.0]);
    /// assert_eq!(held_out.numbers("u")?, [6.0, 7.0]);
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn split(&self, training_share: f64, seed: u64) -> Result<(Dataset, Dataset), Error> {
        let order = self.order(seed)?;
        let size = share_of(self.len, training_share)?;
        let (training, rest) = order.split_at(size);
        self.parts("Dataset::split", training_share, training, rest)
    }

    /// A training part and the rest as by [`split`](Dataset::split), with the same share of every level of a column.
    ///
    /// Of the n rows of a level, the first `round(training_share · n)` in the order of the shuffle are for training.
    ///
    /// # Errors
    ///
    /// Those of [`split`](Dataset::split), and [`Error::Data`] unless the column has categories.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::data::{Column, Dataset};
    ///
    /// let kinds = ["a", "a", "a", "a", "a", "a", "b", "b", "b"];
    /// let data = Dataset::from_columns(vec![Column::categories("kind", &kinds)])?;
    /// let (training, held_out) = data.split_by("kind", 2.0 / 3.0, 7)?;
    /// assert_eq!(training.codes("kind")?.iter().sum::<usize>(), 2); // of six rows
    /// assert_eq!(held_out.codes("kind")?.iter().sum::<usize>(), 1); // of three
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn split_by(&self, column: &str, training_share: f64, seed: u64) -> Result<(Dataset, Dataset), Error> {
        let (levels, codes) = self.categories(column)?;
        let mut wanted = vec![0; levels.len()];
        codes.iter().for_each(|&code| wanted[code] += 1);
        for count in &mut wanted {
            *count = share_of(*count, training_share)?;
        }
        let (training, rest): (Vec<usize>, Vec<usize>) = self.order(seed)?.into_iter().partition(|&row| {
            let wanted = &mut wanted[codes[row]];
            let taken = *wanted > 0;
            *wanted = wanted.saturating_sub(1);
            taken
        });
        self.parts("Dataset::split_by", training_share, &training, &rest)
    }

    fn order(&self, seed: u64) -> Result<Vec<usize>, Error> {
        Ok(Batches::shuffled(self.len).seed(seed).epoch(self.len, 1)?.concat())
    }

    fn parts(
        &self,
        owner: &'static str,
        training_share: f64,
        training: &[usize],
        rest: &[usize],
    ) -> Result<(Dataset, Dataset), Error> {
        if training.is_empty() || rest.is_empty() {
            return Err(Error::setting(
                owner,
                "training share",
                training_share,
                "such that both parts have at least one row; try 0.8",
            ));
        }
        Ok((self.select(training)?, self.select(rest)?))
    }

    /// The names of the numbers of a row made of these columns: a column of numbers has its own name, a column of
    /// categories one `column=level` for each level.
    ///
    /// They are good as names of the parameters of a tape.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if no column is named, one is named twice, or there is no such column.
    pub fn row_names(&self, columns: &[&str]) -> Result<Vec<String>, Error> {
        self.check_asked(columns)?;
        let mut names = Vec::new();
        for &column in columns {
            match &self.column(column)?.values {
                Values::Numbers(_) => names.push(column.to_owned()),
                Values::Categories { levels, .. } => {
                    names.extend(levels.iter().map(|level| format!("{column}={level}")));
                }
            }
        }
        Ok(names)
    }

    /// The columns as numbers, row after row: what [`Samples::from_rows`] and `Retape::samples` take.
    ///
    /// A column of numbers gives one number; a column of categories gives one for each level, 1 at that of the row and 0
    /// elsewhere ("one-hot"). [`row_names`](Dataset::row_names) names them.
    ///
    /// # Errors
    ///
    /// Those of [`row_names`](Dataset::row_names), and [`Error::Data`] if a number is missing.
    ///
    /// # Example
    ///
    /// ```
    /// use ad_optim::data::{Column, Dataset};
    ///
    /// let data = Dataset::from_columns(vec![
    ///     Column::numbers("mass", vec![3.5, 4.0]),
    ///     Column::categories("sex", &["male", "female"]),
    /// ])?;
    /// assert_eq!(data.rows(&["mass", "sex"])?, [3.5, 0.0, 1.0, /* the next row */ 4.0, 1.0, 0.0]);
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn rows(&self, columns: &[&str]) -> Result<Vec<f64>, Error> {
        self.check_asked(columns)?;
        let columns = columns.iter().map(|name| self.column(name)).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        for row in 0..self.len {
            for column in &columns {
                match &column.values {
                    Values::Numbers(values) if values[row].is_nan() => {
                        return Err(self.problem(Some(row), Some(&column.name), DataProblem::StillMissing { row }));
                    }
                    Values::Numbers(values) => rows.push(values[row]),
                    Values::Categories { levels, codes } => {
                        rows.extend((0..levels.len()).map(|level| f64::from(u8::from(level == codes[row]))));
                    }
                }
            }
        }
        Ok(rows)
    }

    /// The columns as samples of a tape: a row's [numbers](Dataset::rows) are its parameters.
    ///
    /// # Errors
    ///
    /// Those of [`rows`](Dataset::rows), and [`Error::Data`] unless a row has as many numbers as the tape has parameters,
    /// or if the tape's parameters have the [names](Dataset::row_names) of the row's numbers, in another order.
    pub fn samples(&self, tape: &Tape, columns: &[&str]) -> Result<Samples, Error> {
        let (row, parameters) = (self.row_names(columns)?, tape.param_names());
        if row.len() != tape.num_params() {
            let problem = DataProblem::RowOfOtherLength { row, parameters: tape.num_params() };
            return Err(self.problem(None, None, problem));
        }
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        if row != parameters && sorted(&row) == sorted(&parameters) {
            return Err(self.problem(None, None, DataProblem::RowInOtherOrder { row, parameters }));
        }
        Ok(Samples::from_rows(tape, &self.rows(columns)?)?)
    }

    /// Whether columns are asked for, and none of them twice.
    fn check_asked(&self, columns: &[&str]) -> Result<(), Error> {
        if columns.is_empty() {
            return Err(self.problem(None, None, DataProblem::NoColumns));
        }
        let mut asked = std::collections::HashSet::new();
        match columns.iter().find(|column| !asked.insert(**column)) {
            Some(twice) => Err(self.problem(None, Some(twice), DataProblem::AskedTwice)),
            None => Ok(()),
        }
    }

    fn problem(&self, row: Option<usize>, column: Option<&str>, problem: DataProblem) -> Error {
        let line = row.and_then(|row| self.line(row));
        DataError { file: self.source.to_string(), line, column: column.map(str::to_owned), problem }.into()
    }
}

/// The number of training rows among `count`; refuses what is no share.
fn share_of(count: usize, share: f64) -> Result<usize, Error> {
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::setting("Dataset", "training share", share, "between 0 and 1; try 0.8"));
    }
    Ok((count as f64 * share).round() as usize)
}

/// Means and standard deviations of columns, learned from one part of the data and applied to every part.
///
/// ```text
/// x ← (x − mean) / deviation,    mean = 1/n · Σ xᵢ,    deviation = √(1/n · Σ (xᵢ − mean)²)
/// ```
///
/// over the n numbers of the column in the part it was fitted on that are not missing. Fit it on the training part
/// alone: a mean over all rows would tell the training about those that are held out. The divisor is n, as in
/// scikit-learn's `StandardScaler` (R's `scale` divides by n − 1). A column whose numbers are all equal has the deviation
/// 0, says [`deviation`](Standardisation::deviation), and is divided by 1.
///
/// A missing number becomes the mean: 0 after [`apply`](Standardisation::apply).
///
/// # Example
///
/// ```
/// use ad_optim::data::{Column, Dataset, Standardisation};
///
/// let training = Dataset::from_columns(vec![Column::numbers("u", vec![1.0, 3.0, f64::NAN])])?;
/// let held_out = Dataset::from_columns(vec![Column::numbers("u", vec![5.0])])?;
/// let scale = Standardisation::fit(&training, &["u"])?;
/// assert_eq!((scale.mean("u"), scale.deviation("u")), (Some(2.0), Some(1.0)));
/// assert_eq!(scale.apply(&training)?.numbers("u")?, [-1.0, 1.0, 0.0]);
/// assert_eq!(scale.apply(&held_out)?.numbers("u")?, [3.0]);
/// assert_eq!(scale.fill(&training)?.numbers("u")?, [1.0, 3.0, 2.0]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Standardisation {
    columns: Vec<Moments>,
}

#[derive(Clone, Debug, PartialEq)]
struct Moments {
    name: String,
    mean: f64,
    deviation: f64,
}

impl Standardisation {
    /// Learns mean and standard deviation of the named columns from `training`.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if no column is named or one twice, there is no such column, it has categories, all its numbers are
    /// missing, or they are so large that mean or deviation overflows.
    pub fn fit(training: &Dataset, columns: &[&str]) -> Result<Standardisation, Error> {
        training.check_asked(columns)?;
        let fitted = columns.iter().map(|&name| {
            let present: Vec<f64> = training.numbers(name)?.iter().copied().filter(|value| !value.is_nan()).collect();
            let Some((&first, others)) = present.split_first() else {
                return Err(training.problem(None, Some(name), DataProblem::AllMissing));
            };
            if others.iter().all(|&other| other == first) {
                // Exactly 0: the rounding of a mean would else pass for variation.
                return Ok(Moments { name: name.to_owned(), mean: first, deviation: 0.0 });
            }
            let average = |of: &dyn Fn(f64) -> f64| present.iter().map(|&x| of(x)).sum::<f64>() / present.len() as f64;
            let mean = average(&|x| x);
            let deviation = average(&|x| (x - mean).powi(2)).sqrt();
            if !mean.is_finite() || !deviation.is_normal() {
                return Err(training.problem(None, Some(name), DataProblem::NoDeviation { mean, deviation }));
            }
            Ok(Moments { name: name.to_owned(), mean, deviation })
        });
        Ok(Standardisation { columns: fitted.collect::<Result<_, _>>()? })
    }

    /// The mean of a column that was fitted.
    pub fn mean(&self, column: &str) -> Option<f64> {
        Some(self.of(column)?.mean)
    }

    /// The standard deviation of a column that was fitted; 0 where all its numbers were equal.
    pub fn deviation(&self, column: &str) -> Option<f64> {
        Some(self.of(column)?.deviation)
    }

    fn of(&self, column: &str) -> Option<&Moments> {
        self.columns.iter().find(|fitted| fitted.name == column)
    }

    /// The table with the fitted columns standardised and what was missing in them filled with the mean.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] if the table lacks a fitted column, it has categories there, or a number so far from the mean that
    /// the quotient overflows.
    pub fn apply(&self, data: &Dataset) -> Result<Dataset, Error> {
        self.map(data, |x, fitted| match fitted.deviation {
            _ if x.is_nan() => 0.0,
            0.0 => x - fitted.mean,
            deviation => (x - fitted.mean) / deviation,
        })
    }

    /// The table with what was missing in the fitted columns filled with the mean, and nothing else changed.
    ///
    /// # Errors
    ///
    /// Those of [`apply`](Standardisation::apply).
    pub fn fill(&self, data: &Dataset) -> Result<Dataset, Error> {
        self.map(data, |x, fitted| if x.is_nan() { fitted.mean } else { x })
    }

    fn map(&self, data: &Dataset, change: impl Fn(f64, &Moments) -> f64) -> Result<Dataset, Error> {
        let mut changed = data.clone();
        for fitted in &self.columns {
            // Asked for first, since its errors say what is wrong with the column.
            data.numbers(&fitted.name)?;
            for column in changed.columns.iter_mut().filter(|column| column.name == fitted.name) {
                if let Values::Numbers(values) = &mut column.values {
                    for (row, x) in values.iter_mut().enumerate() {
                        let value = *x;
                        *x = change(value, fitted);
                        if !x.is_finite() {
                            let problem = DataProblem::Overflows { value };
                            return Err(data.problem(Some(row), Some(&fitted.name), problem));
                        }
                    }
                }
            }
        }
        Ok(changed)
    }
}

/// What is wrong with data, and where.
///
/// # Example
///
/// ```
/// use ad_optim::Error;
/// use ad_optim::data::{Csv, DataProblem};
///
/// let text = "u,v\n1,2\n3,abc\n";
/// let Err(Error::Data(error)) = Csv::new().numeric(&["u", "v"]).read_bytes("my.csv", text.as_bytes()) else { panic!() };
/// assert_eq!((error.line, error.column.as_deref()), (Some(3), Some("v")));
/// assert_eq!(error.problem, DataProblem::NotANumber { text: "abc".into() });
/// assert_eq!(
///     error.to_string(),
///     "my.csv, line 3, column v: \"abc\" is no number; mend it, or read the column with categorical(..)"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DataError {
    /// The file, or what else the data came from.
    pub file: String,
    /// The line of the file on which the row at fault begins, from 1; of a quoted cell with line ends, its first.
    pub line: Option<u64>,
    /// The column at fault, by its name, or where it has none by its number, from 1.
    pub column: Option<String>,
    /// What is wrong.
    pub problem: DataProblem,
}

/// The ways in which data can be wrong; `Display` says what to do about each.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DataProblem {
    /// A file without a single byte.
    #[error("the file is empty")]
    Empty,
    /// A table without rows.
    #[error("there are no rows{}", if *.dropped > 0 { ": all were dropped for missing values" } else { "" })]
    NoRows {
        /// How many were left out for missing values.
        dropped: usize,
    },
    /// Neither were columns of numbers or categories asked for, nor given.
    #[error("no columns were asked for; name them with numeric(..) and categorical(..)")]
    NoColumns,
    /// A column was asked for twice.
    #[error("the column was asked for twice; once is enough, as numbers or as categories")]
    AskedTwice,
    /// A column that does not exist was asked for.
    #[error(
        "there is no such column; the columns are {}{}",
        .columns.join(", "),
        match .columns.as_slice() {
            [one] if one.contains([';', '\t', '|']) => "; set the separator between them with separator(..)",
            _ => "",
        }
    )]
    NoSuchColumn {
        /// The columns there are.
        columns: Vec<String>,
    },
    /// Two columns have the same name.
    #[error("columns {} and {} have the same name; rename one of them", .first + 1, .second + 1)]
    DuplicateColumn {
        /// The first of them, from 0.
        first: usize,
        /// The second, from 0.
        second: usize,
    },
    /// A column has no name.
    #[error("column {} has no name", .index + 1)]
    UnnamedColumn {
        /// Which, from 0.
        index: usize,
    },
    /// A row with more or fewer cells than the header has.
    #[error("there are {got} cells where {expected} belong; is a separator missing, or a text with one not quoted?")]
    Ragged {
        /// The number of cells of the header.
        expected: usize,
        /// That of the row.
        got: usize,
    },
    /// A column with more or fewer values than the first.
    #[error("there are {got} values, and {expected} in the first column; give one for each row")]
    UnequalColumns {
        /// The number of values of the first column.
        expected: usize,
        /// That of this one.
        got: usize,
    },
    /// Rows were to be samples of a tape with another number of parameters.
    #[error(
        "a row of these columns is {}: {} numbers, but the tape has {parameters} parameters; \
         record it with those that row_names gives",
        .row.join(", "), .row.len()
    )]
    RowOfOtherLength {
        /// The names of the numbers of a row.
        row: Vec<String>,
        /// The number of parameters of the tape.
        parameters: usize,
    },
    /// Rows were to be samples of a tape whose parameters have the same names in another order.
    #[error(
        "a row of these columns is {}, but the parameters of the tape are {}; name the columns in that order",
        .row.join(", "), .parameters.join(", ")
    )]
    RowInOtherOrder {
        /// The names of the numbers of a row.
        row: Vec<String>,
        /// The names of the parameters.
        parameters: Vec<String>,
    },
    /// A cell of a numeric column is no number.
    #[error("{} is no number; mend it, or read the column with categorical(..)", excerpt(.text))]
    NotANumber {
        /// The cell.
        text: String,
    },
    /// A cell of a numeric column is NaN or infinite, or too large for a number of 64 bits.
    #[error("{} is not finite; mend it, or count it as missing with missing_markers(..)", excerpt(.text))]
    NotFinite {
        /// The cell.
        text: String,
    },
    /// A cell is missing, and the reader was not told what to do about it.
    #[error(
        "the value is missing ({}); say with missing(..) what is to be done, such as Missing::DropRow{}",
        excerpt(.text),
        if *.categorical { ", the one way for categories" } else { "" }
    )]
    Missing {
        /// The cell.
        text: String,
        /// Whether the column has categories, for which there is no mean.
        categorical: bool,
    },
    /// A number was left to the training part's mean, and never filled.
    #[error(
        "the number in row {row} is missing; fit a Standardisation on the training part, \
         and fill(..) or apply(..) it to this one"
    )]
    StillMissing {
        /// The row, from 0.
        row: usize,
    },
    /// A column without a single number has no mean.
    #[error("all numbers of the training part are missing, so they have no mean; leave the column out")]
    AllMissing,
    /// The numbers of a column are so large or so close that their deviation is no number to divide by.
    #[error("mean {mean} and deviation {deviation} are no numbers to standardise by; rescale the column")]
    NoDeviation {
        /// The mean, or what became of it.
        mean: f64,
        /// The deviation.
        deviation: f64,
    },
    /// A number that overflows when it is standardised.
    #[error("{value} is too far from the mean to be standardised; mend it, or rescale the column")]
    Overflows {
        /// The number.
        value: f64,
    },
    /// A level that was given twice to [`Csv::levels`].
    #[error("the level {} is given twice; name each one once", excerpt(.level))]
    LevelTwice {
        /// The level.
        level: String,
    },
    /// A category that is not among those that [`Csv::levels`] named.
    #[error(
        "{} is none of the levels{}",
        excerpt(.text),
        if .levels.is_empty() { ": none was given".to_owned() } else { format!(" {}", .levels.join(", ")) }
    )]
    UnknownLevel {
        /// The cell.
        text: String,
        /// The levels.
        levels: Vec<String>,
    },
    /// Numbers were asked for of a column of categories.
    #[error("the column has categories, not numbers; call codes(..), or read it with numeric(..)")]
    NotNumeric,
    /// Categories were asked for of a column of numbers.
    #[error("the column has numbers, not categories; call numbers(..), or read it with categorical(..)")]
    NotCategorical,
    /// A text that is not UTF-8.
    #[error("the text is not UTF-8; save the file in that encoding")]
    NotUtf8,
    /// A quoted cell that never ends.
    #[error("a quotation mark is never closed; add the closing one")]
    UnclosedQuote,
    /// Something stands between a quotation mark and the separator.
    #[error("a quotation mark stands beside other text; quote the whole cell, and double the marks within it")]
    StrayQuote,
    /// The separator is a character that cannot separate.
    #[error("{0:?} cannot separate cells; use a comma, a semicolon or a tab")]
    Separator(char),
    /// The file does not begin as an IDX file does.
    #[error("this is no IDX file: it begins with {0:02x?}, where 00 00, a type and a number of dimensions belong")]
    NotIdx(Vec<u8>),
    /// The type of the numbers of an IDX file is none that the format has.
    #[error("an IDX file has no numbers of type 0x{0:02x}; known are 08, 09, 0b, 0c, 0d and 0e")]
    UnknownIdxType(u8),
    /// An IDX file ends too early.
    #[error("the file ends after {has} bytes, but the sizes {shape:?} need {needs}; fetch it again")]
    Truncated {
        /// The sizes that the file names, as far as it does.
        shape: Vec<usize>,
        /// The bytes that a file with these sizes has.
        needs: usize,
        /// The bytes there are.
        has: usize,
    },
    /// An IDX file goes on after its last number.
    #[error("the sizes {shape:?} make a file of {needs} bytes, but it goes on after them; fetch it again")]
    TrailingBytes {
        /// The sizes that the file names.
        shape: Vec<usize>,
        /// The bytes that a file with these sizes has.
        needs: usize,
    },
    /// An IDX file names sizes whose product no memory holds.
    #[error("the sizes {shape:?} are too large; is the file damaged?")]
    TooLarge {
        /// The sizes that the file names.
        shape: Vec<usize>,
    },
    /// A compressed file, and a build that cannot decompress it.
    #[error("the file is compressed; build ad-optim with its feature gzip, or decompress the file (gunzip)")]
    GzipIsOff,
    /// A compressed file that is damaged.
    #[error("the file is damaged: {0}; fetch it again")]
    Gzip(String),
    /// An IDX file with a number that is NaN or infinite.
    #[error("number {index} is {value}; mend the file")]
    IdxNotFinite {
        /// Which, from 0.
        index: usize,
        /// What it is.
        value: f64,
    },
    /// Images and labels that do not belong together.
    #[error("there are {images} images, but the labels have the sizes {labels:?}; use the two files of one set")]
    Unpaired {
        /// The number of images.
        images: usize,
        /// The sizes of the labels.
        labels: Vec<usize>,
    },
    /// A label that is no whole number from 0 to the number of classes less 1.
    #[error("label {index} is {value}, but it must be a whole number below {classes}")]
    Label {
        /// Which, from 0.
        index: usize,
        /// What it is.
        value: f64,
        /// The number of classes.
        classes: usize,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for DataError {}

impl From<DataError> for Error {
    fn from(error: DataError) -> Error {
        Error::Data(Box::new(error))
    }
}

/// The beginning of a cell, in quotation marks, fit for one line of a terminal.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 40;
    if text.chars().nth(SHOWN).is_none() {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
}
