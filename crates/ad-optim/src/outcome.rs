use crate::DEFAULT_MAX_STEPS;
use std::fmt;
use std::time::Duration;

/// How a run ended, and with what.
///
/// `value` and `grad_norm` belong to `x`, and `best_value` to `best_x`; both values are means over *all* samples,
/// whatever the batches were, and `best_value ≤ value`. See [the best point](crate::Trainer#the-best-point) for what
/// "best" is judged on with minibatches, and [`StopReason::NonFinite`] for the one case in which less is known.
///
/// `Display` prints a table, with at most ten rows of the history and six significant digits; `{:.12}` sets another
/// number of digits, and `{:#}` adds times. `==` compares everything but times and takes NaN for equal to NaN, so that two
/// runs are equal if they computed the same.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, StopReason, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| {
///     grad[0] = 2.0 * x[0];
///     x[0] * x[0] + 6.0
/// });
/// let out = Trainer::new(&f, GradientDescent::new(0.25), vec![8.0]).max_steps(3).run()?;
/// assert_eq!((out.x[0], out.value, out.grad_norm), (1.0, 7.0, 2.0));
/// assert_eq!((out.steps, out.evaluations), (3, 4));
/// assert_eq!(out.stop, StopReason::MaxSteps);
/// assert_eq!(
///     out.to_string(),
///     "\
/// stopped        at the step limit
/// steps          3
/// epochs         3
/// evaluations    4
/// value          7
/// gradient norm  2
/// x              [1]
/// best value     7
/// best x         [1]
///
/// value and gradient norm are those before the step:
/// epoch  step  value  gradient norm  rate
///     1     1     70             16  0.25
///     2     2     22              8  0.25
///     3     3     10              4  0.25
/// "
/// );
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The last point; always finite.
    pub x: Vec<f64>,
    /// The mean of all samples at `x`.
    pub value: f64,
    /// The point with the smallest known value, see [the best point](crate::Trainer#the-best-point).
    ///
    /// Of points with equal values it is the one with the smallest gradient norm, and of those the latest. So where the
    /// value has bottomed out, as near a minimum it does long before the point, this is `x` if the gradient kept falling.
    pub best_x: Vec<f64>,
    /// The mean of all samples at `best_x`.
    pub best_value: f64,
    /// The Euclidean norm of the gradient of the mean of all samples, at `x`.
    pub grad_norm: f64,
    /// The number of updates made.
    pub steps: usize,
    /// The number of epochs completed. With full batches every step is one.
    pub epochs: usize,
    /// How often value and gradient were asked for: once a step, for the measurements at the end, and whenever a
    /// [`Method`](crate::Method) asked the objective itself (a Jacobian of residuals counts as one). The search for
    /// the sample behind a non-finite value is not counted.
    pub evaluations: usize,
    /// Why the run ended.
    pub stop: StopReason,
    /// What was recorded on the way, as [`History`] says.
    pub history: Vec<Record>,
    /// What the run came to on samples that it did not learn from; `None` unless
    /// [`validate`](crate::Trainer::validate) or [`hold_out`](crate::Trainer::hold_out) named some.
    pub validation: Option<Validation>,
    /// The time that passed from the first step to the outcome; of a run that was resumed, the sum over all programs
    /// that had a part in it, up to their last checkpoints.
    pub time: Duration,
    /// The names of the unknowns, for `Display`; empty if they have none.
    pub(crate) names: Vec<String>,
    /// Whether the step limit that ended the run is the default one, so that `Display` can say so.
    pub(crate) at_default_limit: bool,
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Outcome) -> bool {
        let Outcome {
            x,
            value,
            best_x,
            best_value,
            grad_norm,
            steps,
            epochs,
            evaluations,
            stop,
            history,
            validation,
            time: _,
            names: _,
            at_default_limit,
        } = self;
        same(x, &other.x)
            && same(best_x, &other.best_x)
            && same(&[*value, *best_value, *grad_norm], &[other.value, other.best_value, other.grad_norm])
            && *steps == other.steps
            && *epochs == other.epochs
            && *evaluations == other.evaluations
            && *stop == other.stop
            && *history == other.history
            && *validation == other.validation
            && *at_default_limit == other.at_default_limit
    }
}

/// Whether two runs computed the same numbers, among which NaN is one like any other.
pub(crate) fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan())
}

/// [`same`], for numbers that may be missing.
pub(crate) fn same_if_any(a: Option<f64>, b: Option<f64>) -> bool {
    same(a.as_slice(), b.as_slice())
}

/// What a run came to on samples that it did not learn from.
///
/// # Example
///
/// ```
/// use ad_core::{Samples, Tape};
/// use ad_optim::{EmpiricalRisk, GradientDescent, Trainer};
///
/// // The mean of the first four numbers, judged by the last two.
/// let loss = Tape::builder().inputs(&["mean"], &[0.0]).params(&["k"], &[0.0]).record(|x, k| (x[0] - k[0]).powi(2))?;
/// let samples = Samples::from_rows(&loss, &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0])?;
/// let risk = EmpiricalRisk::new(loss, samples)?;
/// let out = Trainer::new(&risk, GradientDescent::new(0.1), vec![0.0])
///     .hold_out(vec![4, 5])
///     .max_epochs(100)
///     .run()?;
/// let Some(validation) = &out.validation else { unreachable!("two samples are held out") };
/// assert!((out.x[0] - 2.5).abs() < 1e-6);
/// assert_eq!(validation.best_epoch, 4); // later steps lead away from what the last two want
/// assert!(validation.best_value < validation.value);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `==` takes NaN for equal to NaN.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Validation {
    /// The mean of the validation samples at the last point.
    pub value: f64,
    /// The smallest mean at the end of an epoch, or at the last point; under
    /// [`maximise`](crate::Trainer::maximise) the largest.
    pub best_value: f64,
    /// The point where it was, of equal values the first.
    pub best_x: Vec<f64>,
    /// The number of epochs that were completed then.
    pub best_epoch: usize,
}

impl PartialEq for Validation {
    fn eq(&self, other: &Validation) -> bool {
        let Validation { value, best_value, best_x, best_epoch } = self;
        same(&[*value, *best_value], &[other.value, other.best_value])
            && same(best_x, &other.best_x)
            && *best_epoch == other.best_epoch
    }
}

/// Why a run ended. `Display` says it in words, and what to try next where there is something to try.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, StopReason, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 1.0 / x[0]; x[0].ln() });
/// let out = Trainer::new(&f, GradientDescent::new(1.0), vec![2.0]).max_steps(100).run()?;
/// // 2 → 1.5 → 0.83 → −0.37, where the logarithm is NaN: the last point that was finite is kept.
/// assert!(matches!(out.stop, StopReason::NonFinite { step: 4, .. }));
/// assert_eq!(
///     out.stop.to_string(),
///     "the value is NaN in step 4 (epoch 4); try a smaller learning rate, or look at the data"
/// );
/// assert!((out.x[0] - 5.0 / 6.0).abs() < 1e-15);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StopReason {
    /// The number of steps given to `max_steps` was reached; or, if no limit of steps, epochs or time was set, the
    /// default limit of [`DEFAULT_MAX_STEPS`] steps, and then the text of the [`Outcome`] says so.
    MaxSteps,
    /// The number of epochs given to `max_epochs` was reached.
    MaxEpochs,
    /// The gradient norm is at most the `grad_tol`, and `grad_norm` of the outcome is that norm.
    GradientNorm,
    /// The value is at most the `target_value` (under `maximise`, at least), and `value` of the outcome is that value.
    TargetValue,
    /// The epoch means, or the means of the validation samples, improved by no more than the tolerance for as many epochs in succession as `patience` allows.
    Patience,
    /// The time given to `max_time` is over.
    MaxTime,
    /// An observer returned `ControlFlow::Break`, or the caller stopped iterating.
    Observer,
    /// The method found no point with a smaller value along the direction of descent: the value has reached the limit
    /// of its rounding, or the gradient does not belong to it.
    NoDescent,
    /// The step was no longer than the `x_tol` of the method.
    SmallStep,
    /// The decrease, actual and predicted, was no larger than the `f_tol` of the method.
    SmallDecrease,
    /// A value, a gradient or a point was NaN or infinite.
    ///
    /// The outcome's `x` is then the last point at which value and gradient were finite. Its `value` and `grad_norm`,
    /// and `best_value`, are means over all samples where those are finite, and else over the last batch or epoch that
    /// was. If even the starting point is non-finite, `x` and `best_x` are that point and the values say what was
    /// found there.
    NonFinite {
        /// The step that could not be made, from 1. The measurement after the last step counts as one more.
        step: usize,
        /// The epoch it belongs to, from 1.
        epoch: usize,
        /// The first sample of the batch that is non-finite by itself; `None` when none is (a sum that overflows, a
        /// rule's own arithmetic) and for objectives of one sample.
        sample: Option<usize>,
        /// What was non-finite.
        quantity: NonFinite,
        /// Where it arose, if the objective can tell: of what was recorded, the row of the tape, its operands, and their
        /// lines of code.
        detail: Option<String>,
    },
}

/// The non-finite number that ended a run.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, NonFinite, StopReason, Trainer, from_fn};
///
/// // The square root has no derivative at 0, where the second point lies.
/// let f = from_fn(1, |x, grad| { grad[0] = 0.5 / x[0].sqrt(); x[0].sqrt() });
/// let out = Trainer::new(&f, GradientDescent::new(2.0), vec![1.0]).max_steps(9).run()?;
/// let StopReason::NonFinite { step: 2, quantity, .. } = out.stop else { unreachable!("{}", out.stop) };
/// assert_eq!(quantity, NonFinite::Gradient { index: 0, value: f64::INFINITY });
/// assert_eq!(quantity.to_string(), "component 0 of the gradient is inf");
/// # Ok::<(), ad_optim::Error>(())
/// ```
///
/// `==` takes NaN for equal to NaN.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum NonFinite {
    /// The value of the objective.
    Value(f64),
    /// A component of the gradient; the value was finite.
    Gradient {
        /// Which component.
        index: usize,
        /// What it was.
        value: f64,
    },
    /// A component of the point after the update; value and gradient before it were finite.
    Point {
        /// Which component.
        index: usize,
        /// What it was.
        value: f64,
    },
}

impl PartialEq for NonFinite {
    fn eq(&self, other: &NonFinite) -> bool {
        use NonFinite::{Gradient, Point, Value};
        match (*self, *other) {
            (Value(a), Value(b)) => same(&[a], &[b]),
            (Gradient { index: i, value: a }, Gradient { index: j, value: b })
            | (Point { index: i, value: a }, Point { index: j, value: b }) => i == j && same(&[a], &[b]),
            _ => false,
        }
    }
}

/// What a run records on its way.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, History, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let trainer = || Trainer::new(&f, GradientDescent::new(0.25), vec![1.0]).max_steps(3);
/// let values: Vec<f64> = trainer().run()?.history.iter().map(|record| record.value).collect();
/// assert_eq!(values, [1.0, 0.25, 0.0625]);
/// assert!(trainer().history(History::Off).run()?.history.is_empty());
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum History {
    /// Nothing.
    Off,
    /// One [`Record`] an epoch. With full batches, where every step is an epoch, that is one a step. The last epoch is
    /// recorded even if the run ended within it. The default.
    #[default]
    Epochs,
    /// One [`Record`] a step.
    Steps,
}

/// One line of the history: a step, or the mean of an epoch.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, Record, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, GradientDescent::new(0.25), vec![8.0]).max_steps(3).run()?;
/// let line = |r: &Record| format!("{},{},{},{}", r.step, r.value, r.grad_norm, r.rate);
/// let csv: Vec<String> = out.history.iter().map(line).collect();
/// assert_eq!(csv, ["1,64,16,0.25", "2,16,8,0.25", "3,4,4,0.25"]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
///
/// `==` compares everything but the time, and takes NaN for equal to NaN.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Record {
    /// The step, or the last step of the epoch, from 1.
    pub step: usize,
    /// The epoch, from 1.
    pub epoch: usize,
    /// The number of samples that the value is a mean over.
    pub samples: usize,
    /// The value before the step; for an epoch the mean over its samples, each taken at the point that was current when
    /// its turn came.
    pub value: f64,
    /// The norm of the gradient before the step; for an epoch the norm of the mean of its gradients.
    pub grad_norm: f64,
    /// The learning rate of the step, or of the last step of the epoch.
    pub rate: f64,
    /// At the end of an epoch, the mean of the validation samples after its last step, where there are some.
    pub validation: Option<f64>,
    /// The time that the step or the epoch took, its validation included, observers and checkpoints not.
    pub time: Duration,
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        let Record { step, epoch, samples, value, grad_norm, rate, validation, time: _ } = *self;
        (step, epoch, samples) == (other.step, other.epoch, other.samples)
            && same(&[value, grad_norm, rate], &[other.value, other.grad_norm, other.rate])
            && same_if_any(validation, other.validation)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(6);
        let number = |v| number(v, digits);
        let point = |x: &[f64]| point(x, &self.names, number);
        if self.at_default_limit {
            let advice = "set max_steps or max_epochs";
            writeln!(f, "stopped        at the default limit of {DEFAULT_MAX_STEPS} steps; {advice}")?;
        } else {
            writeln!(f, "stopped        {}", self.stop)?;
        }
        writeln!(f, "steps          {}", self.steps)?;
        writeln!(f, "epochs         {}", self.epochs)?;
        writeln!(f, "evaluations    {}", self.evaluations)?;
        writeln!(f, "value          {}", number(self.value))?;
        writeln!(f, "gradient norm  {}", number(self.grad_norm))?;
        writeln!(f, "x              {}", point(&self.x))?;
        writeln!(f, "best value     {}", number(self.best_value))?;
        writeln!(f, "best x         {}", point(&self.best_x))?;
        if let Some(validation) = &self.validation {
            writeln!(f, "validation     {}", number(validation.value))?;
            let (best, epoch) = (number(validation.best_value), validation.best_epoch);
            writeln!(f, "  best value   {best} after epoch {epoch}")?;
            writeln!(f, "  best x       {}", point(&validation.best_x))?;
        }
        if f.alternate() {
            writeln!(f, "time           {}", duration(self.time))?;
        }
        if self.history.is_empty() {
            return Ok(());
        }
        let validated = self.history.iter().any(|record| record.validation.is_some());
        let mut head: Vec<String> = ["epoch", "step", "value", "gradient norm", "rate"].map(str::to_owned).into();
        head.extend(validated.then(|| "validation".to_owned()));
        head.extend(f.alternate().then(|| "time".to_owned()));
        let rows: Vec<Vec<String>> = std::iter::once(head)
            .chain(excerpt(&self.history, 10).map(|r| {
                let mut row = vec![r.epoch.to_string(), r.step.to_string()];
                row.extend([r.value, r.grad_norm, r.rate].map(number));
                row.extend(validated.then(|| r.validation.map_or(String::new(), number)));
                row.extend(f.alternate().then(|| duration(r.time)));
                row
            }))
            .collect();
        writeln!(f, "\nvalue and gradient norm are those before the step:")?;
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
                write!(f, "{}{cell:>width$}", if column == 0 { "" } else { "  " })?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::MaxSteps => write!(f, "at the step limit"),
            StopReason::MaxEpochs => write!(f, "at the epoch limit"),
            StopReason::GradientNorm => write!(f, "the gradient norm is within its tolerance"),
            StopReason::TargetValue => write!(f, "the target value is reached"),
            StopReason::Patience => {
                write!(f, "for as many epochs as patience allows, no mean improved by more than min_delta")
            }
            StopReason::MaxTime => write!(f, "at the time limit"),
            StopReason::Observer => write!(f, "on request"),
            StopReason::NoDescent => write!(
                f,
                "no lower point lies along the direction of descent: the value is at the limit of its rounding, \
                 or the gradient is not its gradient"
            ),
            StopReason::SmallStep => write!(f, "the step is within its tolerance"),
            StopReason::SmallDecrease => write!(f, "the decrease is within its tolerance"),
            StopReason::NonFinite { step, epoch, sample, quantity, detail } => {
                write!(f, "{quantity} in step {step} (epoch {epoch})")?;
                if let Some(sample) = sample {
                    write!(f, ", sample {sample}")?;
                }
                match (detail, quantity) {
                    (Some(detail), _) => write!(f, ": {detail}"),
                    (None, NonFinite::Point { .. }) => write!(f, "; try a smaller learning rate"),
                    (None, NonFinite::Gradient { .. }) if *step == 1 => {
                        write!(f, "; does the objective overwrite every component of the gradient?")
                    }
                    (None, _) if *step == 1 => write!(f, "; start from another point, or look at the data"),
                    (None, _) => write!(f, "; try a smaller learning rate, or look at the data"),
                }
            }
        }
    }
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NonFinite::Value(value) => write!(f, "the value is {value}"),
            NonFinite::Gradient { index, value } => write!(f, "component {index} of the gradient is {value}"),
            NonFinite::Point { index, value } => write!(f, "component {index} of the point is {value}"),
        }
    }
}

/// At most `rows` ≥ 2 records: from the first on in equal strides, and the last.
pub(crate) fn excerpt(history: &[Record], rows: usize) -> impl Iterator<Item = &Record> {
    let (last, others) = history.split_last().unzip();
    let others: &[Record] = others.unwrap_or_default();
    others.iter().step_by(others.len().div_ceil(rows - 1).max(1)).chain(last)
}

/// The first components of a point, with their names where there is one for each.
pub(crate) fn point(x: &[f64], names: &[String], number: impl Fn(f64) -> String) -> String {
    const SHOWN: usize = 8;
    let named = names.len() == x.len();
    let part = |(i, &v): (usize, &f64)| if named { format!("{} = {}", names[i], number(v)) } else { number(v) };
    let mut parts: Vec<String> = x.iter().enumerate().take(SHOWN).map(part).collect();
    if x.len() > SHOWN {
        parts.push(format!("… {} more", x.len() - SHOWN));
    }
    format!("[{}]", parts.join(", "))
}

/// A time in three digits or so, in the unit that suits it.
pub(crate) fn duration(time: Duration) -> String {
    format!("{time:.2?}")
}

/// Significant digits without trailing zeros, with an exponent outside 1e-5 … 1e7.
pub(crate) fn number(v: f64, digits: usize) -> String {
    let digits = digits.clamp(1, 17);
    if !v.is_finite() || v == 0.0 {
        return v.to_string();
    }
    // Formatting rounds, and may carry into a new digit: so the exponent is read off the rounded text.
    let scientific = format!("{v:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-5..7).contains(&exponent) {
        let places = (digits as i32 - 1 - exponent).max(0) as usize;
        trim(&format!("{v:.places$}"))
    } else {
        format!("{}e{exponent}", trim(mantissa))
    }
}
