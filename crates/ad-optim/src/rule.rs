use crate::differentiable::Differentiable;
use crate::{Error, StopReason};
use ad_core::Matrix;

/// An update rule: turns a gradient into the amount δ by which the point moves, x ← x − δ.
///
/// A rule is a value that holds settings alone. What it remembers between steps is its `State`, made by
/// [`init`](Rule::init) and kept by the trainer, which never looks inside. A rule never sees data.
///
/// Rules compose in tuples: each member receives the δ that the one before it left, and the first receives the
/// gradient. A transform, such as clipping, is therefore nothing but a rule that comes before or after another. Which of
/// the two is right is told by its [`Part`], and a run with a wrong order ends before its first step. A rule of your own
/// takes part in that once it says its [`part`](Rule::part); unless it does, it may stand anywhere. And a resumed run
/// must have the settings of the saved one once the rule says its [`settings`](Rule::settings).
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, Error, Iterate, Part, Rule, Trainer, Update, from_fn};
///
/// /// Shortens the gradient to at most the given Euclidean length.
/// struct Shorten(f64);
///
/// impl Rule for Shorten {
///     type State = ();
///     fn init(&self, _dim: usize) -> Result<(), Error> {
///         Ok(())
///     }
///     fn step(&self, _state: &mut (), _at: &Iterate<'_>, update: &mut Update<'_>) {
///         let length = update.delta.iter().map(|d| d * d).sum::<f64>().sqrt();
///         if length > self.0 {
///             update.delta.iter_mut().for_each(|d| *d *= self.0 / length);
///         }
///     }
///     fn part(&self) -> Part {
///         Part::Gradient
///     }
///     fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
///         report("length", self.0);
///     }
/// }
///
/// let steep = from_fn(1, |x, grad| {
///     grad[0] = 4e6 * x[0].powi(3);
///     1e6 * x[0].powi(4)
/// });
/// let out = Trainer::new(&steep, (Shorten(1.0), Adam::new(0.01)), vec![1.0]).max_steps(500).run()?;
/// assert!(out.x[0].abs() < 0.1);
/// let error = Trainer::new(&steep, (Adam::new(0.01), Shorten(1.0)), vec![1.0]).run().unwrap_err();
/// assert!(error.to_string().ends_with("write (Shorten, Adam)"));
/// # Ok::<(), Error>(())
/// ```
///
/// One that remembers something shows it by [`visit_state`](Rule::visit_state), so that runs can be saved:
/// [`StateVisitor`] has an example.
pub trait Rule {
    /// What the rule remembers between steps, such as a running mean of gradients.
    type State;

    /// Checks the settings and makes the state from which a run over `dim` unknowns starts.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for a setting outside its range. The run ends with it before its first step.
    fn init(&self, dim: usize) -> Result<Self::State, Error>;

    /// Rewrites `update.delta`, which holds the gradient or what an earlier rule of a tuple made of it.
    fn step(&self, state: &mut Self::State, at: &Iterate<'_>, update: &mut Update<'_>);

    /// Moves a point into the set that the rule confines it to. The trainer asks after each update and for the start,
    /// in whatever place of a tuple the rule stands. The provided method leaves the point alone.
    fn project(&self, state: &mut Self::State, x: &mut [f64]) {
        let _ = (state, x);
    }

    /// The part that the rule plays among others, from which the run tells whether they stand in order. The provided
    /// method says [`Part::Any`], for which every place is right.
    fn part(&self) -> Part {
        Part::Any
    }

    /// Calls `report` with the name and the part of the rule; of a tuple, of each of its members. A rule that wraps
    /// another one may pass on what that one reports.
    fn parts(&self, report: &mut dyn FnMut(String, Part)) {
        report(self.kind(), self.part());
    }

    /// The name under which a checkpoint knows the rule; of a tuple, those of its members. The provided method takes
    /// the name of the type.
    fn kind(&self) -> String {
        short_name(std::any::type_name::<Self>())
    }

    /// Calls `report` with the name and the value of each setting that a resumed run must have in common with the one
    /// that wrote the checkpoint. The provided method knows of none.
    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        let _ = report;
    }

    /// Shows every number of the state to `visitor`, which reads it into a checkpoint or sets it from one. The same
    /// visit serves both, so that what is written and what is read cannot differ.
    ///
    /// The provided method suits rules whose state has no size, such as `()`.
    ///
    /// # Errors
    ///
    /// What the visitor returns, and by the provided method [`Error::StateNotVisited`] for a state that holds
    /// something.
    fn visit_state(&self, state: &mut Self::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        let _ = (state, visitor);
        match size_of::<Self::State>() {
            0 => Ok(()),
            _ => Err(Error::StateNotVisited { kind: self.kind() }),
        }
    }
}

/// What a [`Rule`] does in a tuple, which decides where it may stand.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, ClipNorm, Error, Part, Rule, Schedule, Trainer, from_fn};
///
/// assert_eq!((ClipNorm(1.0).part(), Adam::new(0.1).part()), (Part::Gradient, Part::Update));
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let error = Trainer::new(&f, (Schedule::cosine(10), Adam::new(0.1)), vec![1.0]).run().unwrap_err();
/// assert!(matches!(error, Error::WrongOrder { part: Part::Rate, .. }));
/// assert_eq!(
///     error.to_string(),
///     "Schedule stands before Adam, where it would scale the gradient: write (Adam, Schedule)"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// It changes the gradient, and stands before the update: [`ClipNorm`](crate::ClipNorm),
    /// [`ClipValue`](crate::ClipValue), [`L2`](crate::L2).
    Gradient,
    /// It turns the gradient into a step. There is one such rule.
    Update,
    /// It scales the step and the learning rate, and stands after the update: [`Schedule`](crate::Schedule),
    /// [`schedule_fn`](crate::schedule_fn), [`ReduceOnPlateau`](crate::ReduceOnPlateau).
    Rate,
    /// It changes the step otherwise, and stands after the update: [`WeightDecay`](crate::WeightDecay).
    Step,
    /// It moves the point after the step, wherever it stands: [`ProjectBox`](crate::ProjectBox).
    Point,
    /// It may do any of these: a rule of your own, and [`Freeze`](crate::Freeze).
    Any,
}

/// The names and the parts of a rule or of the members of a tuple, in their order.
pub(crate) fn collect_parts(rule: &impl Rule) -> Vec<(String, Part)> {
    let mut parts = Vec::new();
    rule.parts(&mut |kind, part| parts.push((kind, part)));
    parts
}

/// Fails unless each part stands on its side of the update.
pub(crate) fn check_order(parts: &[(String, Part)]) -> Result<(), Error> {
    let mut updates = parts.iter().enumerate().filter(|(_, (_, part))| *part == Part::Update);
    let Some((place, (rule, _))) = updates.next() else { return Ok(()) };
    if let Some((_, (second, _))) = updates.next() {
        return Err(Error::TwoRules { first: rule.clone(), second: second.clone() });
    }
    let misplaced = |i: usize, part: Part| match part {
        Part::Gradient => i > place,
        Part::Rate | Part::Step => i < place,
        Part::Update | Part::Point | Part::Any => false,
    };
    match parts.iter().enumerate().find(|(i, (_, part))| misplaced(*i, *part)) {
        None => Ok(()),
        Some((_, (transform, part))) => {
            Err(Error::WrongOrder { transform: transform.clone(), rule: rule.clone(), part: *part })
        }
    }
}

/// Whether none of the parts can turn the gradient into a step.
pub(crate) fn needs_rule(parts: &[(String, Part)]) -> bool {
    !parts.iter().any(|(_, part)| matches!(part, Part::Update | Part::Any))
}

/// An update that may ask for more evaluations than the one it starts from, such as a line search: what a
/// [`Trainer`](crate::Trainer) runs.
///
/// Every [`Rule`] is a method that asks for none. A type of your own implements one of the two traits. Methods do not
/// compose in tuples: whoever chooses among several points must be the last to do so.
///
/// # Example
///
/// Steepest descent that halves its step until the value falls.
///
/// ```
/// use ad_optim::{Error, Iterate, Method, Oracle, StopReason, Trainer, Update, from_fn};
///
/// struct Halving;
///
/// impl Method for Halving {
///     type State = Vec<f64>;
///     fn prepare(&self, dim: usize) -> Result<Vec<f64>, Error> {
///         Ok(vec![0.0; dim])
///     }
///     fn advance(
///         &self,
///         trial_gradient: &mut Vec<f64>,
///         at: &Iterate<'_>,
///         update: &mut Update<'_>,
///         oracle: &mut Oracle<'_>,
///     ) -> Result<Option<StopReason>, Error> {
///         while oracle.evaluate(update.delta, trial_gradient)? > at.value {
///             update.delta.iter_mut().for_each(|d| *d *= 0.5);
///             update.rate *= 0.5;
///         }
///         Ok(None)
///     }
/// }
///
/// let f = from_fn(1, |x, grad| { grad[0] = 100.0 * x[0]; 50.0 * x[0] * x[0] });
/// let out = Trainer::new(&f, Halving, vec![1.0]).grad_tol(1e-9).run()?;
/// assert!(out.x[0].abs() < 1e-11);
/// # Ok::<(), Error>(())
/// ```
pub trait Method {
    /// What the method remembers between steps.
    type State;

    /// Checks the settings and makes the state, as [`Rule::init`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for a setting outside its range. The run ends with it before its first step.
    fn prepare(&self, dim: usize) -> Result<Self::State, Error>;

    /// Makes the step `update.delta` of the gradient that it holds, as [`Rule::step`], asking `oracle` for what it
    /// wants to know elsewhere. It may end the run by giving a reason: after the step, or without one if δ is 0. An
    /// evaluation made at the very point that the step leads to is not made again by the trainer.
    ///
    /// # Errors
    ///
    /// Those of the evaluations; the run ends with them.
    fn advance(
        &self,
        state: &mut Self::State,
        at: &Iterate<'_>,
        update: &mut Update<'_>,
        oracle: &mut Oracle<'_>,
    ) -> Result<Option<StopReason>, Error>;

    /// The name of a method that compares values at different points, and so makes no sense on minibatches. The
    /// provided method says that this is not one.
    fn needs_full_batches(&self) -> Option<&'static str> {
        None
    }

    /// As [`Rule::project`].
    fn confine(&self, state: &mut Self::State, x: &mut [f64]) {
        let _ = (state, x);
    }

    /// As [`Rule::kind`].
    fn name(&self) -> String {
        short_name(std::any::type_name::<Self>())
    }

    /// As [`Rule::settings`].
    fn report_settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        let _ = report;
    }

    /// As [`Rule::visit_state`].
    ///
    /// # Errors
    ///
    /// As [`Rule::visit_state`].
    fn visit(&self, state: &mut Self::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        let _ = (state, visitor);
        match size_of::<Self::State>() {
            0 => Ok(()),
            _ => Err(Error::StateNotVisited { kind: self.name() }),
        }
    }
}

impl<R: Rule> Method for R {
    type State = R::State;

    fn prepare(&self, dim: usize) -> Result<R::State, Error> {
        let state = self.init(dim)?;
        let parts = collect_parts(self);
        check_order(&parts)?;
        match needs_rule(&parts) {
            true => Err(Error::NoRule { given: self.kind() }),
            false => Ok(state),
        }
    }

    fn advance(
        &self,
        state: &mut R::State,
        at: &Iterate<'_>,
        update: &mut Update<'_>,
        _oracle: &mut Oracle<'_>,
    ) -> Result<Option<StopReason>, Error> {
        self.step(state, at, update);
        Ok(None)
    }

    fn confine(&self, state: &mut R::State, x: &mut [f64]) {
        self.project(state, x);
    }

    fn name(&self) -> String {
        self.kind()
    }

    fn report_settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        self.settings(report);
    }

    fn visit(&self, state: &mut R::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        self.visit_state(state, visitor)
    }
}

/// What a [`Method`] asks for evaluations, at x − δ for any δ. [`Method`] has an example.
///
/// All evaluations are over all samples, and each one counts among the
/// [`evaluations`](crate::Outcome::evaluations) of the run.
pub struct Oracle<'a> {
    pub(crate) objective: &'a dyn Differentiable,
    pub(crate) x: &'a [f64],
    pub(crate) all: &'a [usize],
    pub(crate) threads: usize,
    pub(crate) evaluations: &'a mut usize,
    pub(crate) trial: &'a mut Trial,
}

/// The last evaluation that an [`Oracle`] made, kept in case the step leads there.
#[derive(Default)]
pub(crate) struct Trial {
    pub x: Vec<f64>,
    pub value: f64,
    pub gradient: Vec<f64>,
}

impl Oracle<'_> {
    /// The value at x − δ; `gradient` is overwritten by the gradient there. NaN and infinity are results.
    ///
    /// # Errors
    ///
    /// Those of [`Differentiable::value_and_gradient`], and [`Error::DimensionMismatch`] for a δ of another length.
    pub fn evaluate(&mut self, delta: &[f64], gradient: &mut [f64]) -> Result<f64, Error> {
        if delta.len() != self.x.len() {
            return Err(Error::DimensionMismatch { what: "the step", expected: self.x.len(), got: delta.len() });
        }
        let trial = &mut *self.trial;
        trial.x.clear();
        trial.x.extend(self.x.iter().zip(delta).map(|(x, d)| x - d));
        *self.evaluations += 1;
        trial.value = match self.threads {
            1 => self.objective.value_and_gradient(&trial.x, self.all, gradient)?,
            threads => self.objective.value_and_gradient_threads(&trial.x, self.all, gradient, threads)?,
        };
        trial.gradient.clear();
        trial.gradient.extend_from_slice(gradient);
        Ok(trial.value)
    }

    /// The residuals at the point x itself, and their Jacobian, for objectives that are sums of squares. `residuals`
    /// takes the length m that there are, `jacobian` the shape m×n.
    ///
    /// # Errors
    ///
    /// [`Error::NoResiduals`] unless the objective has residuals, as [`LeastSquares`](crate::LeastSquares) has, and
    /// [`Error::NotForResiduals`] where the trainer maximises or holds samples out.
    pub fn residuals(&mut self, residuals: &mut Vec<f64>, jacobian: &mut Matrix) -> Result<(), Error> {
        if self.all.len() < self.objective.num_samples() {
            return Err(Error::NotForResiduals { asked: "hold_out" });
        }
        *self.evaluations += 1;
        self.objective.residuals_and_jacobian(self.x, residuals, jacobian)
    }
}

impl std::fmt::Debug for Oracle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle").field("x", &self.x).field("evaluations", &self.evaluations).finish_non_exhaustive()
    }
}

/// Sees the numbers of a [`Rule`]'s state, in an order that depends on the rule and on the number of unknowns alone.
///
/// [`save_state`] and [`load_state`] are the two visits that checkpoints need.
///
/// # Example
///
/// A rule of one's own that can be saved: momentum, with a count of its steps.
///
/// ```
/// use ad_optim::{Error, Iterate, Rule, StateVisitor, Update, save_state};
///
/// struct Heavy;
///
/// impl Rule for Heavy {
///     type State = (Vec<f64>, u64);
///     fn init(&self, dim: usize) -> Result<Self::State, Error> {
///         Ok((vec![0.0; dim], 0))
///     }
///     fn step(&self, (velocity, steps): &mut Self::State, _at: &Iterate<'_>, update: &mut Update<'_>) {
///         *steps += 1;
///         for (d, v) in update.delta.iter_mut().zip(velocity) {
///             *v = 0.9 * *v + 1e-3 * *d;
///             *d = *v;
///         }
///     }
///     fn visit_state(&self, state: &mut Self::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
///         visitor.floats("velocity", &mut state.0)?;
///         visitor.counts("steps", std::slice::from_mut(&mut state.1))
///     }
/// }
///
/// assert_eq!(save_state(&Heavy, &mut Heavy.init(3)?)?.len(), 2);
/// # Ok::<(), Error>(())
/// ```
pub trait StateVisitor {
    /// Sees a slice of numbers; it may overwrite them.
    ///
    /// # Errors
    ///
    /// [`Error::StateMismatch`] if it cannot.
    fn floats(&mut self, name: &'static str, values: &mut [f64]) -> Result<(), Error>;

    /// Sees a slice of counts; it may overwrite them.
    ///
    /// # Errors
    ///
    /// [`Error::StateMismatch`] if it cannot.
    fn counts(&mut self, name: &'static str, values: &mut [u64]) -> Result<(), Error>;
}

/// A slice of the state of a rule, as plain numbers. [`save_state`] has an example.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StateSlice {
    /// Numbers.
    Floats {
        /// What the rule calls them.
        name: String,
        /// The numbers.
        values: Vec<f64>,
    },
    /// Counts.
    Counts {
        /// What the rule calls them.
        name: String,
        /// The counts.
        values: Vec<u64>,
    },
}

/// The state of a rule as plain numbers, from which [`load_state`] makes the same state.
///
/// # Errors
///
/// [`Error::StateNotVisited`] if the rule is one of your own with a state that it does not show.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, ClipNorm, Rule, StateSlice, load_state, save_state};
///
/// let rule = (ClipNorm(1.0), Adam::new(1e-3));
/// let mut state = rule.init(2)?;
/// let saved = save_state(&rule, &mut state)?;
/// assert_eq!(saved[0], StateSlice::Floats { name: "m".into(), values: vec![0.0, 0.0] });
///
/// let mut resumed = rule.init(2)?;
/// load_state(&rule, &mut resumed, &saved)?;
/// assert_eq!(resumed, state);
/// // A state for another number of unknowns is refused.
/// let error = load_state(&rule, &mut rule.init(3)?, &saved).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the saved state does not belong to (ClipNorm, Adam): it has 2 numbers m where there must be 3 numbers m; \
///      resume with the objective and the rule that saved it"
/// );
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn save_state<M: Method>(method: &M, state: &mut M::State) -> Result<Vec<StateSlice>, Error> {
    struct Save(Vec<StateSlice>);
    impl StateVisitor for Save {
        fn floats(&mut self, name: &'static str, values: &mut [f64]) -> Result<(), Error> {
            self.0.push(StateSlice::Floats { name: name.to_owned(), values: values.to_vec() });
            Ok(())
        }
        fn counts(&mut self, name: &'static str, values: &mut [u64]) -> Result<(), Error> {
            self.0.push(StateSlice::Counts { name: name.to_owned(), values: values.to_vec() });
            Ok(())
        }
    }
    let mut save = Save(Vec::new());
    method.visit(state, &mut save)?;
    Ok(save.0)
}

/// Sets `state`, made for the same rule and number of unknowns, to what [`save_state`] saved.
///
/// # Errors
///
/// [`Error::StateMismatch`] if the slices are not those of the rule; the state is then unspecified but valid.
pub fn load_state<M: Method>(method: &M, state: &mut M::State, saved: &[StateSlice]) -> Result<(), Error> {
    struct Load<'a> {
        kind: String,
        saved: std::slice::Iter<'a, StateSlice>,
    }
    impl Load<'_> {
        fn mismatch(&self, found: Option<&StateSlice>, expected: String) -> Error {
            let found = found.map_or("nothing".to_owned(), StateSlice::description);
            Error::StateMismatch { kind: self.kind.clone(), found, expected }
        }
    }
    impl StateVisitor for Load<'_> {
        fn floats(&mut self, name: &'static str, values: &mut [f64]) -> Result<(), Error> {
            match self.saved.next() {
                Some(StateSlice::Floats { name: saved_name, values: saved })
                    if saved_name == name && saved.len() == values.len() =>
                {
                    values.copy_from_slice(saved);
                    Ok(())
                }
                other => Err(self.mismatch(other, format!("{} numbers {name}", values.len()))),
            }
        }
        fn counts(&mut self, name: &'static str, values: &mut [u64]) -> Result<(), Error> {
            match self.saved.next() {
                Some(StateSlice::Counts { name: saved_name, values: saved })
                    if saved_name == name && saved.len() == values.len() =>
                {
                    values.copy_from_slice(saved);
                    Ok(())
                }
                other => Err(self.mismatch(other, format!("{} counts {name}", values.len()))),
            }
        }
    }
    let mut load = Load { kind: method.name(), saved: saved.iter() };
    method.visit(state, &mut load)?;
    match load.saved.next() {
        None => Ok(()),
        more => Err(load.mismatch(more, "nothing more".to_owned())),
    }
}

impl StateSlice {
    fn description(&self) -> String {
        match self {
            StateSlice::Floats { name, values } => format!("{} numbers {name}", values.len()),
            StateSlice::Counts { name, values } => format!("{} counts {name}", values.len()),
        }
    }
}

/// The name of a type without its path and its parameters.
fn short_name(type_name: &str) -> String {
    let bare = type_name.split('<').next().unwrap_or(type_name);
    bare.rsplit("::").next().unwrap_or(bare).to_owned()
}

/// Where a step starts: what a [`Rule`] may read. [`Rule`] has an example.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Iterate<'a> {
    /// The number of the step, from 1.
    pub step: usize,
    /// The number of the epoch that the step belongs to, from 1.
    pub epoch: usize,
    /// The number of samples in the batch of this step.
    pub samples: usize,
    /// The value at `x`, on the batch of this step.
    pub value: f64,
    /// The value over the validation samples at the end of the epoch before, where there are some and an epoch has
    /// ended.
    pub validation: Option<f64>,
    /// The point before the step.
    pub x: &'a [f64],
    /// The gradient at `x`, on the batch of this step, untouched by any rule (but [`Accumulate`](crate::Accumulate)
    /// gives the rule inside of it a mean).
    pub gradient: &'a [f64],
}

/// What a step does: what a [`Rule`] may write. [`Rule`] has an example.
#[derive(Debug)]
#[non_exhaustive]
pub struct Update<'a> {
    /// The amount δ to be subtracted from the point. It starts as the gradient.
    pub delta: &'a mut [f64],
    /// The product of the learning rates applied so far. It starts as 1; a rule that multiplies δ by a rate multiplies
    /// this too, so that reports, and rules further on (decoupled weight decay), know the rate.
    pub rate: f64,
}

/// A tuple applies its rules from left to right, each to the δ that the one before it left.
macro_rules! compose {
    ($($rule:ident . $index:tt),+) => {
        impl<$($rule: Rule),+> Rule for ($($rule,)+) {
            type State = ($($rule::State,)+);

            fn init(&self, dim: usize) -> Result<Self::State, Error> {
                Ok(($(self.$index.init(dim)?,)+))
            }

            fn step(&self, state: &mut Self::State, at: &Iterate<'_>, update: &mut Update<'_>) {
                $(self.$index.step(&mut state.$index, at, update);)+
            }

            fn project(&self, state: &mut Self::State, x: &mut [f64]) {
                $(self.$index.project(&mut state.$index, x);)+
            }

            fn parts(&self, report: &mut dyn FnMut(String, Part)) {
                $(self.$index.parts(report);)+
            }

            fn kind(&self) -> String {
                format!("({})", [$(self.$index.kind()),+].join(", "))
            }

            fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
                $(self.$index.settings(report);)+
            }

            fn visit_state(&self, state: &mut Self::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
                $(self.$index.visit_state(&mut state.$index, visitor)?;)+
                Ok(())
            }
        }
    };
}

compose!(A.0);
compose!(A.0, B.1);
compose!(A.0, B.1, C.2);
compose!(A.0, B.1, C.2, D.3);
compose!(A.0, B.1, C.2, D.3, E.4);
compose!(A.0, B.1, C.2, D.3, E.4, F.5);
compose!(A.0, B.1, C.2, D.3, E.4, F.5, G.6);
compose!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        Accumulate, Adagrad, Adam, AdamW, Adamax, AmsGrad, ClipNorm, ClipValue, Freeze, GaussNewton, GradientDescent,
        Groups, L2, Lbfgs, LeastSquares, LevenbergMarquardt, Nadam, ProjectBox, ReduceOnPlateau, RmsProp, Schedule,
        WeightDecay, from_fn, schedule_fn,
    };

    const DIM: usize = 4;

    /// One step of a loop around `method`, at a point and with a gradient of the objective; returns δ and the rate.
    fn step<M: Method>(
        method: &M,
        state: &mut M::State,
        objective: &dyn Differentiable,
        x: &mut [f64],
        step: usize,
    ) -> Vec<u64> {
        let mut gradient = vec![0.0; x.len()];
        let value = objective.value_and_gradient(x, &[0], &mut gradient).unwrap();
        let mut delta = gradient.clone();
        let mut update = Update { delta: &mut delta, rate: 1.0 };
        let at = Iterate { step, epoch: step.div_ceil(2), samples: 3, value, validation: None, x, gradient: &gradient };
        let (mut evaluations, mut trial) = (0, Trial::default());
        let oracle =
            &mut Oracle { objective, x, all: &[0], threads: 1, evaluations: &mut evaluations, trial: &mut trial };
        method.advance(state, &at, &mut update, oracle).unwrap();
        let rate = update.rate;
        x.iter_mut().zip(&delta).for_each(|(x, d)| *x -= d);
        method.confine(state, x);
        delta.iter().chain([&rate]).chain(x.iter()).map(|v| v.to_bits()).collect()
    }

    /// A state that is saved in any step and loaded into a new one goes on with the same bits.
    fn resumes<M: Method>(kind: &str, method: M) {
        assert_eq!(method.name(), kind);
        let objective = from_fn(DIM, |x, grad| {
            grad.iter_mut().zip(x).enumerate().for_each(|(i, (g, x))| *g = (i + 1) as f64 * (x - 0.1).sinh());
            x.iter().enumerate().map(|(i, x)| (i + 1) as f64 * (x - 0.1).cosh()).sum()
        });
        resumes_on(&objective, &method);
        let mut fresh = method.prepare(DIM).unwrap();
        let saved = save_state(&method, &mut fresh).unwrap();
        for other in states_of_others(&saved) {
            let error = load_state(&method, &mut fresh, &other).unwrap_err();
            assert!(matches!(&error, Error::StateMismatch { kind: k, .. } if k == kind), "{error}");
        }
    }

    /// What is almost `saved`: a slice of another name, another length or another type, one slice less, one more.
    fn states_of_others(saved: &[StateSlice]) -> Vec<Vec<StateSlice>> {
        use StateSlice::{Counts, Floats};
        let mut others = Vec::new();
        for (place, slice) in saved.iter().enumerate() {
            let renamed = |name: &str| format!("{name} of another");
            let changed = match slice.clone() {
                Floats { name, values } => [
                    Floats { name: renamed(&name), values: values.clone() },
                    Floats { name: name.clone(), values: [&values[..], &[0.0]].concat() },
                    Counts { name, values: vec![0; values.len()] },
                ],
                Counts { name, values } => [
                    Counts { name: renamed(&name), values: values.clone() },
                    Counts { name: name.clone(), values: [&values[..], &[0]].concat() },
                    Floats { name, values: vec![0.0; values.len()] },
                ],
            };
            for slice in changed {
                others.push(saved.to_vec());
                others.last_mut().unwrap()[place] = slice;
            }
            others.push([&saved[..place], &saved[place + 1..]].concat());
        }
        others.push(saved.to_vec());
        others.last_mut().unwrap().push(Counts { name: "t".to_owned(), values: vec![0] });
        others
    }

    fn resumes_on<M: Method>(objective: &dyn Differentiable, method: &M) {
        let dim = objective.dim();
        for stop in 0..7 {
            let (mut state, mut x) = (method.prepare(dim).unwrap(), vec![1.0; dim]);
            for number in 1..=stop {
                step(method, &mut state, objective, &mut x, number);
            }
            let saved = save_state(method, &mut state).unwrap();
            let (mut resumed, mut resumed_x) = (method.prepare(dim).unwrap(), x.clone());
            load_state(method, &mut resumed, &saved).unwrap();
            assert_eq!(save_state(method, &mut resumed).unwrap(), saved);
            for number in stop + 1..=stop + 5 {
                let uninterrupted = step(method, &mut state, objective, &mut x, number);
                assert_eq!(step(method, &mut resumed, objective, &mut resumed_x, number), uninterrupted);
            }
        }
    }

    #[test]
    fn every_state_resumes_with_the_same_bits() {
        resumes("GradientDescent", GradientDescent::new(0.1));
        resumes("GradientDescent", GradientDescent::new(0.1).momentum(0.9).nesterov());
        resumes("Adam", Adam::new(0.1));
        resumes("AdamW", AdamW::new(0.1));
        resumes("AmsGrad::reddi", AmsGrad::reddi(0.1));
        resumes("AmsGrad::torch", AmsGrad::torch(0.1));
        resumes("AmsGrad::optax", AmsGrad::optax(0.1));
        resumes("RmsProp", RmsProp::new(0.1).centered().momentum(0.5));
        resumes("Adagrad", Adagrad::new(0.1));
        resumes("Adamax", Adamax::new(0.1));
        resumes("Nadam", Nadam::new(0.1));
        resumes("Lbfgs", Lbfgs::new().memory(2));
        resumes("Freeze", Freeze);
        resumes(
            "(L2, ClipNorm, ClipValue, GradientDescent)",
            (L2(0.1), ClipNorm(1.0), ClipValue(0.5), GradientDescent::new(1.0)),
        );
        resumes("(Adam, WeightDecay, ProjectBox)", (Adam::new(0.1), WeightDecay(0.1), ProjectBox::all(0.2, 1.0)));
        resumes("(Adam, Schedule)", (Adam::new(0.1), Schedule::cosine(10).warm_up(3)));
        resumes("(Adam, ScheduleFn)", (Adam::new(0.1), schedule_fn(|at| 1.0 / at.step as f64)));
        resumes(
            "(GradientDescent, ReduceOnPlateau)",
            (GradientDescent::new(0.2), ReduceOnPlateau::new(0.5).patience(0).threshold(0.9)),
        );
        resumes("Accumulate((Adam, Schedule))", Accumulate::new(3, (Adam::new(0.1), Schedule::exponential(0.9))));
        let groups = Groups::new().with(1..3, Adam::new(0.1)).rest(GradientDescent::new(0.1).momentum(0.5));
        resumes("Groups(1..3 Adam, rest GradientDescent)", groups);
    }

    #[test]
    fn methods_for_residuals_resume_too() {
        let tape = ad_core::Tape::record(&[1.0, 1.0], |x| [10.0 * (x[1] - x[0] * x[0]), 1.0 - x[0] * x[1]]).unwrap();
        let fit = LeastSquares::new(tape).unwrap();
        resumes_on(&fit, &LevenbergMarquardt::new().damping(1.0));
        resumes_on(&fit, &GaussNewton::new());
    }

    /// Two methods differ in their settings or in their names wherever they make different steps; that every setting
    /// stands in these lists is what a resumed run relies on.
    #[test]
    fn every_method_reports_all_its_settings() {
        #[track_caller]
        fn reports(method: impl Method, expected: &[(&'static str, f64)]) {
            let mut settings = Vec::new();
            method.report_settings(&mut |name, value| settings.push((name, value)));
            assert_eq!(settings, expected, "{}", method.name());
        }
        let adam = [("learning rate", 0.1), ("beta1", 0.5), ("beta2", 0.75), ("eps", 0.25), ("l2", 0.0)];
        let (l2, decay) = ([&adam[..4], &[("l2", 0.125)]].concat(), [&adam[..], &[("decay", 0.125)]].concat());
        reports(Adam::new(0.1).betas(0.5, 0.75).eps(0.25).l2(0.125), &l2);
        reports(AdamW::new(0.1).betas(0.5, 0.75).eps(0.25).weight_decay(0.125), &decay);
        for variant in [AmsGrad::reddi(0.1), AmsGrad::torch(0.1), AmsGrad::optax(0.1)] {
            reports(variant.betas(0.5, 0.75).eps(0.25), &adam);
        }
        reports(Adamax::new(0.1).betas(0.5, 0.75).eps(0.25), &adam[..4]);
        let nadam = || Nadam::new(0.1).betas(0.5, 0.75).eps(0.25);
        reports(nadam().momentum_decay(0.125), &[&adam[..], &[("momentum decay", 0.125)]].concat());
        reports(nadam().constant_momentum(), &[&adam[..], &[("momentum decay", -1.0)]].concat());
        reports(GradientDescent::new(0.1), &[("learning rate", 0.1), ("momentum", 0.0), ("nesterov", 0.0)]);
        let nesterov = [("learning rate", 0.1), ("momentum", 0.5), ("nesterov", 1.0)];
        reports(GradientDescent::new(0.1).momentum(0.5).nesterov(), &nesterov);
        let rms_prop = |[rate, decay, eps, inside, centered, momentum, nesterov]: [f64; 7]| {
            [
                ("learning rate", rate),
                ("decay", decay),
                ("eps", eps),
                ("eps inside the root", inside),
                ("centered", centered),
                ("momentum", momentum),
                ("nesterov", nesterov),
            ]
        };
        let plain = || RmsProp::new(0.1).decay(0.5).eps(0.25);
        reports(plain(), &rms_prop([0.1, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]));
        reports(plain().eps_inside_root(), &rms_prop([0.1, 0.5, 0.25, 1.0, 0.0, 0.0, 0.0]));
        reports(plain().centered(), &rms_prop([0.1, 0.5, 0.25, 0.0, 1.0, 0.0, 0.0]));
        reports(plain().momentum(0.75).nesterov(), &rms_prop([0.1, 0.5, 0.25, 0.0, 0.0, 0.75, 1.0]));
        let adagrad = |inside, initial| {
            [("learning rate", 0.1), ("eps", 0.25), ("eps inside the root", inside), ("initial accumulator", initial)]
        };
        reports(Adagrad::new(0.1).eps(0.25), &adagrad(0.0, 0.0));
        reports(Adagrad::new(0.1).eps(0.25).initial_accumulator(2.0).eps_inside_root(), &adagrad(1.0, 2.0));
        let lbfgs = [
            ("memory", 3.0),
            ("decrease of the Wolfe conditions", 0.25),
            ("curvature of the Wolfe conditions", 0.5),
            ("largest number of evaluations", 7.0),
        ];
        reports(Lbfgs::new().memory(3).wolfe(0.25, 0.5).max_evaluations(7), &lbfgs);
        let marquardt = LevenbergMarquardt::new().damping(0.5).x_tol(0.25).f_tol(0.125);
        reports(marquardt, &[("damping", 0.5), ("x_tol", 0.25), ("f_tol", 0.125)]);
        reports(GaussNewton::new().x_tol(0.25).f_tol(0.125), &[("x_tol", 0.25), ("f_tol", 0.125)]);

        reports(ClipNorm(2.0), &[("norm", 2.0)]);
        reports(ClipValue(2.0), &[("largest value", 2.0)]);
        reports(WeightDecay(2.0), &[("decay", 2.0)]);
        reports(L2(2.0), &[("lambda", 2.0)]);
        reports(Freeze, &[]);
        reports(ProjectBox::all(1.0, 2.0), &[("lower bound", 1.0), ("upper bound", 2.0)]);
        let bounds = [("lower bound", 1.0), ("lower bound", 2.0), ("upper bound", 3.0), ("upper bound", 4.0)];
        reports(ProjectBox::each(vec![1.0, 2.0], vec![3.0, 4.0]), &bounds);

        let none = ("no further setting of the shape", 0.0);
        let shapes = [
            (Schedule::constant(), [("constant", 1.0), none, none]),
            (Schedule::step(5, 0.25), [("step", 1.0), ("number of steps between changes", 5.0), ("factor", 0.25)]),
            (Schedule::exponential(0.25), [("exponential", 1.0), ("factor", 0.25), none]),
            (Schedule::polynomial(9, 2.0), [("polynomial", 1.0), ("total of steps", 9.0), ("power", 2.0)]),
            (Schedule::cosine(9), [("cosine", 1.0), ("total of steps", 9.0), none]),
            (Schedule::one_cycle(9), [("one_cycle", 1.0), ("total of steps", 9.0), none]),
        ];
        for (schedule, shape) in shapes {
            let all = |end, warm_up, per_epoch| {
                let rest = [("factor at the end", end), ("warm-up", warm_up), ("per epoch", per_epoch)];
                [&shape[..], &rest].concat()
            };
            reports(schedule.clone(), &all(0.0, 0.0, 0.0));
            reports(schedule.end(0.5).warm_up(3).per_epoch(), &all(0.5, 3.0, 1.0));
        }
        reports(schedule_fn(|_| 1.0), &[]);
        let plateau =
            [("factor", 0.5), ("patience", 3.0), ("threshold", 0.25), ("cooldown", 2.0), ("smallest factor", 0.125)];
        reports(ReduceOnPlateau::new(0.5).patience(3).threshold(0.25).cooldown(2).min_factor(0.125), &plateau);

        // What is made of several rules reports those of each, in their order.
        reports((ClipNorm(2.0), GradientDescent::new(0.1), L2(3.0)), &{
            let descent = [("learning rate", 0.1), ("momentum", 0.0), ("nesterov", 0.0)];
            [&[("norm", 2.0)], &descent[..], &[("lambda", 3.0)]].concat()
        });
        reports(
            Accumulate::new(4, (ClipNorm(2.0), L2(3.0))),
            &[("number of batches", 4.0), ("norm", 2.0), ("lambda", 3.0)],
        );
        let groups = Groups::new().with(0..1, ClipNorm(2.0)).with(1..2, Freeze).rest((L2(3.0), ClipValue(4.0)));
        reports(groups, &[("norm", 2.0), ("lambda", 3.0), ("largest value", 4.0)]);
    }

    /// A checkpoint holds what the rule needs and nothing else, under names that later versions must still know.
    #[test]
    fn states_hold_what_their_rules_need() {
        #[track_caller]
        fn holds(rule: impl Rule, expected: &[(&str, usize)]) {
            let saved = save_state(&rule, &mut rule.init(DIM).unwrap()).unwrap();
            let found = saved.iter().map(|slice| match slice {
                StateSlice::Floats { name, values } => (name.as_str(), values.len()),
                StateSlice::Counts { name, values } => (name.as_str(), values.len()),
            });
            assert_eq!(found.collect::<Vec<_>>(), expected, "{}", rule.kind());
        }
        holds(GradientDescent::new(0.1), &[("velocity", 0)]);
        holds(GradientDescent::new(0.1).momentum(0.9), &[("velocity", DIM)]);
        holds(Adam::new(0.1), &[("m", DIM), ("v", DIM), ("t", 1)]);
        holds(AdamW::new(0.1), &[("m", DIM), ("v", DIM), ("t", 1)]);
        holds(AmsGrad::torch(0.1), &[("m", DIM), ("v", DIM), ("t", 1), ("w", DIM)]);
        holds(RmsProp::new(0.1), &[("v", DIM), ("mean", 0), ("b", 0)]);
        holds(RmsProp::new(0.1).centered(), &[("v", DIM), ("mean", DIM), ("b", 0)]);
        holds(RmsProp::new(0.1).momentum(0.9), &[("v", DIM), ("mean", 0), ("b", DIM)]);
        holds(Adagrad::new(0.1), &[("sums", DIM)]);
        holds(Adamax::new(0.1), &[("m", DIM), ("u", DIM), ("t", 1)]);
        holds(Nadam::new(0.1), &[("m", DIM), ("v", DIM), ("t", 1), ("product of the momenta", 1)]);
        holds((ClipNorm(1.0), Freeze, Schedule::cosine(9), ProjectBox::all(0.0, 1.0)), &[]);
    }

    /// δ of each step of a rule over one unknown, given the gradients.
    fn steps<R: Rule>(rule: &R, state: &mut R::State, gradients: &[f64]) -> Vec<f64> {
        let step = |(index, &gradient): (usize, &f64)| {
            let mut delta = [gradient];
            let (x, gradient) = (&[1.0][..], &[gradient][..]);
            let step = index + 1;
            let at = Iterate { step, epoch: step, samples: 1, value: 1.0, validation: None, x, gradient };
            rule.step(state, &at, &mut Update { delta: &mut delta, rate: 1.0 });
            delta[0]
        };
        gradients.iter().enumerate().map(step).collect()
    }

    #[test]
    fn the_centred_mean_of_rms_prop() {
        let rule = RmsProp::new(1.0).decay(0.5).centered();
        let mut state = rule.init(1).unwrap();
        let delta = steps(&rule, &mut state, &[2.0, 4.0]);
        // v = 2, then 1 + 8; the mean is 1, then 0.5 + 2; the spread v − mean² is 1, then 2.75. The sign of the mean
        // shows in the state alone, which a checkpoint passes on.
        let expected = [2.0 / (1.0 + 1e-8), 4.0 / (f64::sqrt(2.75) + 1e-8)];
        assert!(delta.iter().zip(expected).all(|(d, e)| (d - e).abs() < 1e-15), "{delta:?}");
        let floats = |name: &str, values: &[f64]| StateSlice::Floats { name: name.to_owned(), values: values.to_vec() };
        let expected = [floats("v", &[9.0]), floats("mean", &[2.5]), floats("b", &[])];
        assert_eq!(save_state(&rule, &mut state).unwrap(), expected);
    }

    #[test]
    fn a_state_of_another_is_refused_with_what_it_has() {
        let floats = |name: &str, len: usize| StateSlice::Floats { name: name.to_owned(), values: vec![0.0; len] };
        let counts = |name: &str, len: usize| StateSlice::Counts { name: name.to_owned(), values: vec![0; len] };
        let (m, v, t) = (floats("m", 2), floats("v", 2), counts("t", 1));
        let table = [
            (vec![], "nothing where there must be 2 numbers m"),
            (vec![v.clone()], "2 numbers v where there must be 2 numbers m"),
            (vec![floats("m", 3)], "3 numbers m where there must be 2 numbers m"),
            (vec![m.clone(), counts("v", 2)], "2 counts v where there must be 2 numbers v"),
            (vec![m.clone(), v.clone(), counts("u", 1)], "1 counts u where there must be 1 counts t"),
            (vec![m.clone(), v.clone(), counts("t", 2)], "2 counts t where there must be 1 counts t"),
            (vec![m.clone(), v.clone()], "nothing where there must be 1 counts t"),
            (vec![m, v, t, floats("w", 2)], "2 numbers w where there must be nothing more"),
        ];
        let adam = Adam::new(0.1);
        for (saved, difference) in table {
            let error = load_state(&adam, &mut adam.init(2).unwrap(), &saved).unwrap_err().to_string();
            assert!(error.contains(&format!("does not belong to Adam: it has {difference}; resume with")), "{error}");
        }
    }

    #[test]
    fn every_rule_reports_its_rate() {
        fn rate(rule: impl Rule) -> f64 {
            let (mut state, mut delta) = (rule.init(1).unwrap(), [1.0]);
            let mut update = Update { delta: &mut delta, rate: 0.5 };
            let (x, gradient) = (&[1.0][..], &[1.0][..]);
            let at = Iterate { step: 1, epoch: 1, samples: 1, value: 1.0, validation: None, x, gradient };
            rule.step(&mut state, &at, &mut update);
            update.rate
        }
        assert_eq!(rate(GradientDescent::new(0.25)), 0.125);
        assert_eq!(rate(Adam::new(0.25)), 0.125);
        assert_eq!(rate(AdamW::new(0.25)), 0.125);
        assert_eq!([AmsGrad::reddi(0.25), AmsGrad::torch(0.25), AmsGrad::optax(0.25)].map(rate), [0.125; 3]);
        assert_eq!(rate(RmsProp::new(0.25)), 0.125);
        assert_eq!(rate(Adagrad::new(0.25)), 0.125);
        assert_eq!(rate(Adamax::new(0.25)), 0.125);
        assert_eq!(rate(Nadam::new(0.25)), 0.125);
        assert_eq!(rate(Freeze), 0.0);
    }

    #[test]
    fn a_rule_that_hides_its_state_cannot_be_saved() {
        struct Hidden;
        impl Rule for Hidden {
            type State = Vec<f64>;
            fn init(&self, dim: usize) -> Result<Vec<f64>, Error> {
                Ok(vec![0.0; dim])
            }
            fn step(&self, _: &mut Vec<f64>, _: &Iterate<'_>, _: &mut Update<'_>) {}
        }
        let rule = (Adam::new(0.1), Hidden);
        let error = save_state(&rule, &mut rule.init(2).unwrap()).unwrap_err();
        assert!(matches!(&error, Error::StateNotVisited { kind } if kind == "Hidden"), "{error}");

        // The same holds for methods: without a state there is nothing to save, and one that is hidden is an error.
        struct Searching<S>(std::marker::PhantomData<S>);
        impl<S: Default> Method for Searching<S> {
            type State = S;
            fn prepare(&self, _: usize) -> Result<S, Error> {
                Ok(S::default())
            }
            fn advance(
                &self,
                _: &mut S,
                _: &Iterate<'_>,
                _: &mut Update<'_>,
                _: &mut Oracle<'_>,
            ) -> Result<Option<StopReason>, Error> {
                Ok(None)
            }
        }
        assert_eq!(save_state(&Searching::<()>(std::marker::PhantomData), &mut ()).unwrap(), []);
        let error = save_state(&Searching::<u64>(std::marker::PhantomData), &mut 0).unwrap_err();
        assert!(matches!(&error, Error::StateNotVisited { kind } if kind == "Searching"), "{error}");
    }
}
