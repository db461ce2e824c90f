use crate::data::DataError;
use crate::report::LogFormat;
use crate::{CheckpointProblem, Part};
use std::path::PathBuf;
use std::{fmt, io};

/// Everything that can be wrong with a run, a batch plan, a rule or an initialiser.
///
/// A message gives the values at fault and what to call instead. A run that goes non-finite is *not* an error: it ends
/// with [`StopReason::NonFinite`](crate::StopReason::NonFinite) and keeps its best point.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, Error, Trainer, from_fn};
///
/// let bowl = from_fn(1, |x, grad| {
///     grad[0] = 2.0 * x[0];
///     x[0] * x[0]
/// });
/// let err = Trainer::new(&bowl, Adam::new(-1.0), vec![1.0]).run().unwrap_err();
/// assert!(matches!(err, Error::InvalidSetting { setting: "learning rate", .. }));
/// assert_eq!(err.to_string(), "Adam: the learning rate is -1, but it must be positive and finite; try 1e-3");
/// ```
#[non_exhaustive]
#[derive(thiserror::Error)]
pub enum Error {
    /// The tape could not be replayed; the error of ad-core says why and on which line.
    #[error(transparent)]
    Core(#[from] ad_core::Error),

    /// An objective written by the user failed; made by [`Error::objective`].
    #[error("the objective failed: {0}")]
    Objective(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A number given to a rule, to the trainer or to an initialiser is outside its range.
    #[error("{owner}: the {setting} is {value}, but it must be {must_be}")]
    InvalidSetting {
        /// The type or function that was given the number, such as `"Adam"`.
        owner: &'static str,
        /// Which of its settings, such as `"learning rate"`.
        setting: &'static str,
        /// The number that was given.
        value: f64,
        /// The allowed range, and where there is one a value to try.
        must_be: &'static str,
    },

    /// A point with no components was given, or an objective of no unknowns.
    #[error(
        "there is nothing to optimise: the starting point or the objective has no components; \
         pass one starting value for each unknown"
    )]
    EmptyPoint,

    /// Two lengths that must agree do not.
    #[error("{what} has length {got}, but the objective has {expected} unknowns; pass one component for each unknown")]
    DimensionMismatch {
        /// The slice at fault, such as `"the starting point"`.
        what: &'static str,
        /// The number of unknowns of the objective.
        expected: usize,
        /// The length that was given.
        got: usize,
    },

    /// The starting point has a NaN or infinite component.
    #[error("component {index} of the starting point is {value}; start from finite numbers")]
    NonFiniteStart {
        /// Which component.
        index: usize,
        /// Its value.
        value: f64,
    },

    /// A tape with several outputs, or none, was given where one number is minimised.
    #[error(
        "the tape has {outputs} outputs, but only a single number can be minimised; \
         record a closure that returns one Var, for example the sum of the squares"
    )]
    NotScalar {
        /// The number of outputs of the tape.
        outputs: usize,
    },

    /// The tape and the samples disagree about the number of parameters.
    #[error(
        "each sample has {sample} values, but the tape has {tape} parameters; \
         build the samples with Samples::from_rows from this very tape"
    )]
    ParameterMismatch {
        /// Parameters of the tape.
        tape: usize,
        /// Values in a sample.
        sample: usize,
    },

    /// The objective has no samples, so it has no mean.
    #[error("the objective has no samples, so their mean is undefined; pass at least one row of data")]
    NoSamples,

    /// A mean over an empty batch was asked for.
    #[error("the batch is empty, so its mean is undefined; pass at least one sample index")]
    EmptyBatch,

    /// A batch names a sample that does not exist.
    #[error("the batch names sample {sample}, but the samples are 0 to {last}", last = samples.saturating_sub(1))]
    SampleOutOfRange {
        /// The index that was asked for.
        sample: usize,
        /// The number of samples.
        samples: usize,
    },

    /// The samples that `hold_out` names cannot be held out.
    #[error(
        "hold_out {}",
        match sample {
            Some(sample) => format!("names sample {sample}, but the samples are 0 to {}", samples.saturating_sub(1)),
            None if *held_out == 0 => "names no sample; name at least one, or leave it out".to_owned(),
            None if *samples == 1 => {
                "leaves nothing to learn from: all of this objective is one sample (as with LeastSquares); \
                 judge it by another objective, with validate".to_owned()
            }
            None => format!("names all {samples} samples and leaves none to learn from"),
        }
    )]
    HeldOut {
        /// The first one that does not exist, if that is what is wrong.
        sample: Option<usize>,
        /// How many different samples are named.
        held_out: usize,
        /// The number of samples.
        samples: usize,
    },

    /// Batches of no samples were asked for.
    #[error("batches of size 0 were asked for; use a size of at least 1, or Batches::full() for all samples at once")]
    ZeroBatchSize,

    /// `drop_last(true)` with more samples a batch than there are samples leaves no batch at all.
    #[error(
        "batches of {size} from {samples} samples with drop_last(true) leave no batch; \
         use a size of at most {samples}, or drop_last(false)"
    )]
    NoBatch {
        /// The batch size asked for.
        size: usize,
        /// The number of samples there are.
        samples: usize,
    },

    /// A range of a parameter group reaches beyond the unknowns, or holds none.
    #[error(
        "the group {start}..{end} does not lie within the {dim} unknowns; \
         use a range with at least one component, of 0..{dim}"
    )]
    GroupOutside {
        /// First component of the range.
        start: usize,
        /// The component after the last.
        end: usize,
        /// The number of unknowns.
        dim: usize,
    },

    /// Two parameter groups have a component in common.
    #[error("component {component} belongs to two groups; let the ranges of groups not overlap")]
    GroupsOverlap {
        /// The first component that belongs to both.
        component: usize,
    },

    /// A component belongs to no parameter group.
    #[error(
        "component {component} belongs to no group; add a range with it, \
         or a rule for all others with rest, such as rest(Freeze)"
    )]
    NoGroup {
        /// The first component without a group.
        component: usize,
    },

    /// A rule of a tuple stands on the wrong side of the one that turns the gradient into a step.
    #[error(
        "{transform} stands {}: write {}",
        match part {
            Part::Gradient => format!("after {rule}, where it would change the step in place of the gradient"),
            Part::Rate => format!("before {rule}, where it would scale the gradient"),
            _ => format!("before {rule}, where it would change the gradient in place of the step"),
        },
        match part {
            Part::Gradient => format!("({transform}, {rule})"),
            _ => format!("({rule}, {transform})"),
        }
    )]
    WrongOrder {
        /// The rule that stands in the wrong place.
        transform: String,
        /// The rule that turns the gradient into a step.
        rule: String,
        /// The part of the former.
        part: Part,
    },

    /// Two rules of a tuple turn the gradient into a step.
    #[error(
        "{first} and {second} each turn a gradient into a step, but {second} would be given the step of {first}: \
         keep one of them, or give each its own components with Groups"
    )]
    TwoRules {
        /// The one that stands first.
        first: String,
        /// The one that stands after it.
        second: String,
    },

    /// There are transforms, but no rule that turns the gradient into a step.
    #[error("{given} does not turn the gradient into a step: add a rule that does, such as Adam, to make a tuple")]
    NoRule {
        /// The rule or the tuple that was given.
        given: String,
    },

    /// A method that compares values at different points was given minibatches.
    #[error("{method} compares values at different points and needs all samples in every batch; use Batches::full()")]
    NeedsFullBatches {
        /// The method, such as `"Lbfgs"`.
        method: &'static str,
    },

    /// A method for sums of squares was given an objective without residuals.
    #[error(
        "the objective has no residuals; record a tape with one output for each residual, \
         and minimise LeastSquares::new(tape)"
    )]
    NoResiduals,

    /// Something was asked of a method that looks at residuals, which it cannot do with them.
    #[error(
        "residuals serve to minimise over all samples, and {asked} asks for something else; use another rule, such as Lbfgs"
    )]
    NotForResiduals {
        /// The method of the trainer that asked for it.
        asked: &'static str,
    },

    /// The gradient is not that of the value, as [`check_gradient`](crate::check_gradient) found by difference quotients.
    #[error(
        "the gradient is wrong: component {component}{} is {gradient}, but difference quotients give {quotient}; \
         of {checked} components that could be checked {wrong} differed, this one the most{}",
        name.as_ref().map_or(String::new(), |name| format!(" ({name})")),
        if gradient.is_nan() { "; does the objective overwrite every component of the gradient?" } else { "" }
    )]
    WrongGradient {
        /// The component that is off the most.
        component: usize,
        /// Its name, if it has one.
        name: Option<String>,
        /// What the objective gave.
        gradient: f64,
        /// What the values give.
        quotient: f64,
        /// How many components were found to be wrong.
        wrong: usize,
        /// How many could be checked, as [`check_gradient`](crate::check_gradient) says.
        checked: usize,
    },

    /// What residuals say about the unknowns was asked for where they are not finite, or their Jacobian is not.
    #[error("LeastSquares::statistics: {detail}")]
    NonFiniteFit {
        /// Which number is not, and where it arose.
        detail: String,
    },

    /// A Jacobian of residuals without full rank was met where its columns must be independent.
    #[error(
        "{owner}: column {column} of the Jacobian of the residuals depends on those before it, \
         so the residuals do not determine the unknowns; fix one of them, or use LevenbergMarquardt, which needs no rank"
    )]
    RankDeficient {
        /// Who needs the rank.
        owner: &'static str,
        /// The first column that depends on earlier ones.
        column: usize,
    },

    /// A state was asked for that a rule does not show.
    #[error("{kind} does not show its state, so it cannot be saved; implement Rule::visit_state for it")]
    StateNotVisited {
        /// The rule.
        kind: String,
    },

    /// A saved state is not one of this rule for this number of unknowns.
    #[error(
        "the saved state does not belong to {kind}: it has {found} where there must be {expected}; \
         resume with the objective and the rule that saved it"
    )]
    StateMismatch {
        /// The rule.
        kind: String,
        /// What was saved.
        found: String,
        /// What the rule has in that place.
        expected: String,
    },

    /// A checkpoint cannot be used.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file or the folder.
        path: PathBuf,
        /// Why.
        problem: CheckpointProblem,
    },

    /// More numbers were asked for than memory can hold.
    #[error("{owner}: {rows} × {columns} numbers do not fit in memory; check the two sizes")]
    TooLarge {
        /// The function that was asked.
        owner: &'static str,
        /// The first size.
        rows: usize,
        /// The second size.
        columns: usize,
    },

    /// Data cannot be used as they are; the error says which line and column of which file, and why.
    #[error(transparent)]
    Data(Box<DataError>),

    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A file or a stream cannot be written: the disk is full, the folder is missing, the reader of a pipe is gone.
    #[error("{} cannot be written: {source}{}", path.display(), folder_hint(path, source))]
    Write {
        /// The file, or the name that a stream was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A log was to go on in a file of another format.
    #[error(
        "{} does not begin as a log in the format {format:?} does, and was left as it is; \
         append in the format of the file, or use a file of its own for each log",
        path.display()
    )]
    OtherLogFormat {
        /// The file.
        path: PathBuf,
        /// The format that was asked for.
        format: LogFormat,
    },

    /// A line of a CSV log has other columns than the log.
    #[error(
        "{} has the columns {expected}, but a line for it has {got}; give every kind of line a log of its own",
        path.display()
    )]
    LogColumns {
        /// The log.
        path: PathBuf,
        /// Its columns, as its first line has them.
        expected: String,
        /// The columns of the line that was refused.
        got: String,
    },
}

fn folder_hint(path: &std::path::Path, source: &io::Error) -> String {
    match path.parent() {
        Some(folder)
            if source.kind() == io::ErrorKind::NotFound && !folder.as_os_str().is_empty() && !folder.exists() =>
        {
            format!("; there is no folder {}: make it first", folder.display())
        }
        _ => String::new(),
    }
}

/// The text of `Display`. A `main` that returns `Result<(), Box<dyn Error>>` prints its error by `Debug`, and what helps
/// there is the message with its advice, not the names of a variant and its fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// Wraps the error of an objective that is not a tape, so that it travels through a run unchanged.
    ///
    /// # Example
    ///
    /// ```
    /// let err = ad_optim::Error::objective("the solver did not converge");
    /// assert_eq!(err.to_string(), "the objective failed: the solver did not converge");
    /// ```
    pub fn objective(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Objective(source.into())
    }

    pub(crate) fn setting(owner: &'static str, setting: &'static str, value: f64, must_be: &'static str) -> Self {
        Error::InvalidSetting { owner, setting, value, must_be }
    }
}
