use crate::rule::{StateVisitor, check_order, collect_parts, needs_rule};
use crate::rules::{add_l2, check_not_negative, check_rate};
use crate::run::norm;
use crate::{Error, Iterate, Part, Rule, Update};
use std::ops::Range;

/// Shortens δ to at most a given Euclidean length, keeping its direction.
///
/// ```text
/// δ ← δ·c/‖δ‖   if ‖δ‖ > c
/// ```
///
/// It stands before the rule and clips the gradient. Source: Pascanu, Mikolov and Bengio, arXiv:1211.5063,
/// algorithm 1. optax's `clip_by_global_norm` is the same; torch's `clip_grad_norm_` divides by ‖δ‖ + 1e-6. In
/// [`Groups`] each group is clipped by its own norm.
///
/// # Errors
///
/// Of the run: c must be positive and finite.
///
/// # Example
///
/// ```
/// use ad_optim::{ClipNorm, GradientDescent, Trainer, from_fn};
///
/// let f = from_fn(2, |_, grad| { grad.copy_from_slice(&[3.0, 4.0]); 0.0 });
/// let out = Trainer::new(&f, (ClipNorm(2.5), GradientDescent::new(1.0)), vec![0.0; 2]).max_steps(1).run()?;
/// assert_eq!(out.x, [-1.5, -2.0]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipNorm(pub f64);

impl Rule for ClipNorm {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        check_positive("ClipNorm", "norm", self.0)
    }

    fn part(&self) -> Part {
        Part::Gradient
    }

    fn step(&self, _state: &mut (), _at: &Iterate<'_>, update: &mut Update<'_>) {
        let length = norm(update.delta);
        if length > self.0 {
            // An infinite δ stays one that the trainer reports: ∞·0 is NaN.
            let factor = self.0 / length;
            update.delta.iter_mut().for_each(|d| *d *= factor);
        }
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("norm", self.0);
    }
}

/// Moves each component of δ into [−c, c].
///
/// torch's `clip_grad_value_` and optax's `clip` do the same. Unlike [`ClipNorm`] it changes the direction.
///
/// # Errors
///
/// Of the run: c must be positive and finite.
///
/// # Example
///
/// ```
/// use ad_optim::{ClipValue, GradientDescent, Trainer, from_fn};
///
/// let f = from_fn(2, |_, grad| { grad.copy_from_slice(&[0.5, -4.0]); 0.0 });
/// let out = Trainer::new(&f, (ClipValue(1.0), GradientDescent::new(1.0)), vec![0.0; 2]).max_steps(1).run()?;
/// assert_eq!(out.x, [-0.5, 1.0]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipValue(pub f64);

impl Rule for ClipValue {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        check_positive("ClipValue", "largest value", self.0)
    }

    fn part(&self) -> Part {
        Part::Gradient
    }

    fn step(&self, _state: &mut (), _at: &Iterate<'_>, update: &mut Update<'_>) {
        update.delta.iter_mut().for_each(|d| *d = d.clamp(-self.0, self.0));
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("largest value", self.0);
    }
}

/// Weight decay, decoupled from the gradient: with γ the product of the rates before it in the tuple,
///
/// ```text
/// δ ← δ + γ·λ·x
/// ```
///
/// It stands after the rule whose rate it uses; a [`Schedule`](crate::Schedule) on either side scales it with the
/// step. Source: Loshchilov and Hutter, arXiv:1711.05101; [`AdamW`](crate::AdamW) says how torch and optax read it.
/// For a penalty that the rule treats like the rest of the gradient there is [`L2`].
///
/// # Errors
///
/// Of the run: λ must be finite and at least 0.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, AdamW, Trainer, WeightDecay, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let tuple = Trainer::new(&f, (Adam::new(0.1), WeightDecay(0.01)), vec![1.0]).max_steps(9).run()?;
/// let named = Trainer::new(&f, AdamW::new(0.1), vec![1.0]).max_steps(9).run()?;
/// assert_eq!(tuple.x, named.x);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightDecay(pub f64);

impl Rule for WeightDecay {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        check_not_negative("WeightDecay", "decay", self.0)
    }

    fn part(&self) -> Part {
        Part::Step
    }

    fn step(&self, _state: &mut (), at: &Iterate<'_>, update: &mut Update<'_>) {
        let decay = update.rate * self.0;
        add_l2(decay, at, update);
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("decay", self.0);
    }
}

/// Adds the gradient λ·x of the penalty λ/2·‖x‖².
///
/// It stands before the rule, which then treats the penalty like the rest of the gradient: torch's `weight_decay` of
/// all optimisers but `AdamW`, optax's `add_decayed_weights` in front. Value and gradient norm in reports are
/// those of the objective without it.
///
/// # Errors
///
/// Of the run: λ must be finite and at least 0.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, L2, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let tuple = Trainer::new(&f, (L2(0.01), Adam::new(0.1)), vec![1.0]).max_steps(9).run()?;
/// let method = Trainer::new(&f, Adam::new(0.1).l2(0.01), vec![1.0]).max_steps(9).run()?;
/// assert_eq!(tuple.x, method.x);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct L2(pub f64);

impl Rule for L2 {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        check_not_negative("L2", "lambda", self.0)
    }

    fn part(&self) -> Part {
        Part::Gradient
    }

    fn step(&self, _state: &mut (), at: &Iterate<'_>, update: &mut Update<'_>) {
        add_l2(self.0, at, update);
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("lambda", self.0);
    }
}

/// Keeps what it is applied to where it is: δ ← 0. For the groups of [`Groups`] that are not to be trained.
///
/// # Example
///
/// ```
/// use ad_optim::{Freeze, GradientDescent, Groups, Trainer, from_fn};
///
/// let f = from_fn(2, |x, grad| { grad[0] = x[0]; grad[1] = x[1]; 0.5 * (x[0] * x[0] + x[1] * x[1]) });
/// let rule = Groups::new().with(0..1, GradientDescent::new(0.5)).rest(Freeze);
/// let out = Trainer::new(&f, rule, vec![1.0, 1.0]).max_steps(2).run()?;
/// assert_eq!(out.x, [0.25, 1.0]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze;

impl Rule for Freeze {
    type State = ();

    fn init(&self, _dim: usize) -> Result<(), Error> {
        Ok(())
    }

    fn step(&self, _state: &mut (), _at: &Iterate<'_>, update: &mut Update<'_>) {
        update.delta.fill(0.0);
        update.rate = 0.0;
    }
}

/// Projects the point on a box after each step: xᵢ ← min(max(xᵢ, lowerᵢ), upperᵢ).
///
/// Its place in a tuple does not matter, since it acts on the point and not on δ; the starting point is projected, too.
/// With plain gradient descent this is the projected gradient method (Goldstein 1964; Levitin and Polyak 1966). Bounds
/// may be infinite. optax has it as `projections.projection_box`, to be called by hand; torch leaves it to
/// `clamp_`. At a minimum on the border the gradient itself is not 0, so `grad_tol` cannot stop the run there; use
/// [`patience`](crate::Trainer::patience).
///
/// # Errors
///
/// Of the run: no bound may be NaN or above its counterpart, and there must be one pair for each unknown, or of its group.
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, ProjectBox, Trainer, from_fn};
///
/// let f = from_fn(2, |x, grad| {
///     grad[0] = 2.0 * (x[0] - 3.0);
///     grad[1] = 2.0 * (x[1] - 0.5);
///     (x[0] - 3.0).powi(2) + (x[1] - 0.5).powi(2)
/// });
/// let rule = (GradientDescent::new(0.25), ProjectBox::all(0.0, 0.9));
/// let out = Trainer::new(&f, rule, vec![0.1, 0.1]).patience(3, 0.0).run()?;
/// assert_eq!(out.x[0], 0.9);
/// assert!((out.x[1] - 0.5).abs() < 1e-6);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectBox {
    /// One bound for all components, or one for each.
    lower: Vec<f64>,
    upper: Vec<f64>,
    each: bool,
}

impl ProjectBox {
    /// The same bounds for every component.
    pub fn all(lower: f64, upper: f64) -> Self {
        ProjectBox { lower: vec![lower], upper: vec![upper], each: false }
    }

    /// Bounds for each component.
    pub fn each(lower: Vec<f64>, upper: Vec<f64>) -> Self {
        ProjectBox { lower, upper, each: true }
    }
}

impl Rule for ProjectBox {
    type State = ();

    fn init(&self, dim: usize) -> Result<(), Error> {
        let expected = if self.each { dim } else { 1 };
        for (what, bounds) in [("the lower bounds", &self.lower), ("the upper bounds", &self.upper)] {
            if bounds.len() != expected {
                return Err(Error::DimensionMismatch { what, expected, got: bounds.len() });
            }
        }
        for (&lower, &upper) in self.lower.iter().zip(&self.upper) {
            if lower.is_nan() || lower == f64::INFINITY {
                return Err(Error::setting("ProjectBox", "lower bound", lower, "a number, or −∞ for no bound"));
            }
            if upper.is_nan() || upper == f64::NEG_INFINITY {
                return Err(Error::setting("ProjectBox", "upper bound", upper, "a number, or ∞ for no bound"));
            }
            if lower > upper {
                return Err(Error::setting("ProjectBox", "lower bound", lower, "at most the upper bound"));
            }
        }
        Ok(())
    }

    fn part(&self) -> Part {
        Part::Point
    }

    fn step(&self, _state: &mut (), _at: &Iterate<'_>, _update: &mut Update<'_>) {}

    fn project(&self, _state: &mut (), x: &mut [f64]) {
        let bounds = self.lower.iter().zip(&self.upper).cycle();
        // `clamp` keeps a NaN, which the trainer reports.
        x.iter_mut().zip(bounds).for_each(|(x, (&lower, &upper))| *x = x.clamp(lower, upper));
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        self.lower.iter().for_each(|&lower| report("lower bound", lower));
        self.upper.iter().for_each(|&upper| report("upper bound", upper));
    }
}

/// Gradient accumulation: collects the gradients of several batches and makes one step from their mean.
///
/// `Accumulate::new(k, rule)` leaves the point alone for k − 1 steps, and in the k-th gives `rule` the mean of the k
/// gradients, each weighted by the number of samples in its batch. So k batches of 16 make the step of one batch of
/// 16·k, up to the rounding of the mean. Steps that leave the point alone have rate 0. The rule inside counts its own
/// steps: a schedule belongs inside, as `Accumulate::new(4, (Adam::new(1e-3), Schedule::cosine(1000)))`. In [`Iterate`] it
/// finds the means, too: of the values, and as `gradient` of what the rules before `Accumulate` left of the gradients.
/// What has been collected when a run ends is dropped.
///
/// optax's `MultiSteps` takes the mean of the gradients without weights; in torch `backward` adds gradients up, and the
/// mean is left to whoever scales the loss.
///
/// # Errors
///
/// Of the run: k must be at least 1, and those of the rule inside.
///
/// # Example
///
/// ```
/// use ad_optim::{Accumulate, Adam, Batches, Differentiable, Error, Trainer};
///
/// struct Spread([f64; 4]);
/// impl Differentiable for Spread {
///     fn dim(&self) -> usize { 1 }
///     fn num_samples(&self) -> usize { 4 }
///     fn value_and_gradient(&self, x: &[f64], batch: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
///         let n = batch.len() as f64;
///         grad[0] = batch.iter().map(|&i| 2.0 * (x[0] - self.0[i]) / n).sum();
///         Ok(batch.iter().map(|&i| (x[0] - self.0[i]).powi(2) / n).sum())
///     }
/// }
///
/// let data = Spread([1.0, 2.0, 4.0, 8.0]);
/// let single = Trainer::new(&data, Accumulate::new(4, Adam::new(0.1)), vec![0.0])
///     .batches(Batches::sequential(1))
///     .max_epochs(10)
///     .run()?;
/// let whole = Trainer::new(&data, Adam::new(0.1), vec![0.0]).max_epochs(10).run()?;
/// assert!((single.x[0] - whole.x[0]).abs() < 1e-14);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Accumulate<R> {
    every: usize,
    rule: R,
}

/// What [`Accumulate`] remembers: the gradients since the last step, and the state of the rule inside.
#[derive(Clone, Debug, PartialEq)]
pub struct AccumulateState<S> {
    inner: S,
    gradient: Vec<f64>,
    value: f64,
    batches: u64,
    samples: u64,
    steps: u64,
}

impl<R: Rule> Accumulate<R> {
    /// Makes one step of `rule` from every `every` batches.
    pub fn new(every: usize, rule: R) -> Self {
        Accumulate { every, rule }
    }
}

impl<R: Rule> Rule for Accumulate<R> {
    type State = AccumulateState<R::State>;

    fn init(&self, dim: usize) -> Result<Self::State, Error> {
        if self.every == 0 {
            return Err(Error::setting("Accumulate", "number of batches", 0.0, "at least 1"));
        }
        let inner = self.rule.init(dim)?;
        Ok(AccumulateState { inner, gradient: vec![0.0; dim], value: 0.0, batches: 0, samples: 0, steps: 0 })
    }

    fn step(&self, state: &mut Self::State, at: &Iterate<'_>, update: &mut Update<'_>) {
        if state.batches == 0 {
            state.samples = 0;
            state.value = 0.0;
            state.gradient.fill(0.0);
        }
        state.batches = state.batches.saturating_add(1);
        state.samples = state.samples.saturating_add(at.samples as u64);
        // The weight of the first batch is 1, so that its gradient is taken over exactly.
        let weight = at.samples as f64 / state.samples as f64;
        state.value += (at.value - state.value) * weight;
        for (mean, d) in state.gradient.iter_mut().zip(&*update.delta) {
            *mean += (d - *mean) * weight;
        }
        if state.batches < self.every as u64 {
            update.delta.fill(0.0);
            update.rate = 0.0;
            return;
        }
        state.batches = 0;
        state.steps = state.steps.saturating_add(1);
        update.delta.copy_from_slice(&state.gradient);
        let (step, samples) = (state.steps as usize, state.samples as usize);
        let at = Iterate { step, samples, value: state.value, gradient: &state.gradient, ..*at };
        self.rule.step(&mut state.inner, &at, update);
    }

    fn project(&self, state: &mut Self::State, x: &mut [f64]) {
        self.rule.project(&mut state.inner, x);
    }

    fn part(&self) -> Part {
        self.rule.part()
    }

    fn parts(&self, report: &mut dyn FnMut(String, Part)) {
        self.rule.parts(report);
    }

    fn kind(&self) -> String {
        format!("Accumulate({})", self.rule.kind())
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("number of batches", self.every as f64);
        self.rule.settings(report);
    }

    fn visit_state(&self, state: &mut Self::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        visitor.floats("accumulated gradient", &mut state.gradient)?;
        visitor.floats("accumulated value", std::slice::from_mut(&mut state.value))?;
        let mut counts = [state.batches, state.samples, state.steps];
        visitor.counts("accumulated batches", &mut counts)?;
        [state.batches, state.samples, state.steps] = counts;
        self.rule.visit_state(&mut state.inner, visitor)
    }
}

/// Parameter groups: ranges of the unknowns, each with a rule of its own.
///
/// A rule may be a tuple, so that each group can have its own rate, decay, clipping, schedule and box. Every component
/// belongs to one group, and [`rest`](Groups::rest) takes all that are in none, wherever they lie. Within its group a
/// rule sees the components of the group alone. The rate that reports show is that of the group added first; decoupled
/// decay belongs inside the groups, where the rate is known.
///
/// torch's `param_groups` share one rule with different settings; optax's `multi_transform` is the same as this, with
/// labels in place of ranges.
///
/// # Errors
///
/// Of the run: [`Error::GroupOutside`] for a range that is empty or reaches beyond the unknowns,
/// [`Error::GroupsOverlap`], [`Error::NoGroup`] for a component in no group, and those of the rules.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, GradientDescent, Groups, Trainer, WeightDecay, from_fn};
///
/// let f = from_fn(3, |x, grad| {
///     grad.iter_mut().zip(x).for_each(|(g, x)| *g = 2.0 * x);
///     x.iter().map(|x| x * x).sum()
/// });
/// // The weights decay, the intercept does not.
/// let rule = Groups::new()
///     .with(0..2, (Adam::new(0.1), WeightDecay(0.01)))
///     .with(2..3, GradientDescent::new(0.25));
/// let out = Trainer::new(&f, rule, vec![1.0; 3]).max_steps(1).run()?;
/// assert_eq!(out.x[2], 0.5);
/// assert!((out.x[0] - 0.899).abs() < 1e-6);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Groups<G = ()> {
    groups: G,
}

impl Groups {
    /// No groups yet.
    #[expect(clippy::new_without_default, reason = "no groups are nothing to start a run with")]
    pub fn new() -> Self {
        Groups { groups: () }
    }
}

impl<G: GroupList> Groups<G> {
    /// Adds the group of the components in `range`.
    pub fn with<R: Rule>(self, range: Range<usize>, rule: R) -> Groups<(G, Group<R>)> {
        Groups { groups: (self.groups, Group { range: Some(range), rule }) }
    }

    /// Adds the group of the components that no group added before has.
    pub fn rest<R: Rule>(self, rule: R) -> Groups<(G, Group<R>)> {
        Groups { groups: (self.groups, Group { range: None, rule }) }
    }
}

/// One group of [`Groups`].
#[derive(Clone, Debug, PartialEq)]
pub struct Group<R> {
    /// `None` for all that no group before has.
    range: Option<Range<usize>>,
    rule: R,
}

/// What a group of [`Groups`] remembers between steps.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupState<S> {
    /// The components of the group.
    components: Vec<usize>,
    x: Vec<f64>,
    gradient: Vec<f64>,
    delta: Vec<f64>,
    inner: S,
}

/// The groups of a [`Groups`], in the order in which they were added.
pub trait GroupList: sealed::Sealed {
    /// What the groups remember.
    type State;
    #[doc(hidden)]
    fn init(&self, taken: &mut [bool]) -> Result<Self::State, Error>;
    /// Returns the rate of the first group, if there is one.
    #[doc(hidden)]
    fn step(&self, state: &mut Self::State, at: &Iterate<'_>, update: &mut Update<'_>) -> Option<f64>;
    #[doc(hidden)]
    fn project(&self, state: &mut Self::State, x: &mut [f64]);
    #[doc(hidden)]
    fn kinds(&self, kinds: &mut Vec<String>);
    /// The parts that the rules of each group play.
    #[doc(hidden)]
    fn parts(&self, groups: &mut Vec<Vec<(String, Part)>>);
    #[doc(hidden)]
    fn settings(&self, report: &mut dyn FnMut(&'static str, f64));
    #[doc(hidden)]
    fn visit_state(&self, state: &mut Self::State, visitor: &mut dyn StateVisitor) -> Result<(), Error>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<G: Sealed, R> Sealed for (G, super::Group<R>) {}
}

impl GroupList for () {
    type State = ();
    fn init(&self, _taken: &mut [bool]) -> Result<(), Error> {
        Ok(())
    }
    fn step(&self, _state: &mut (), _at: &Iterate<'_>, _update: &mut Update<'_>) -> Option<f64> {
        None
    }
    fn project(&self, _state: &mut (), _x: &mut [f64]) {}
    fn kinds(&self, _kinds: &mut Vec<String>) {}
    fn parts(&self, _groups: &mut Vec<Vec<(String, Part)>>) {}
    fn settings(&self, _report: &mut dyn FnMut(&'static str, f64)) {}
    fn visit_state(&self, _state: &mut (), _visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        Ok(())
    }
}

impl<G: GroupList, R: Rule> GroupList for (G, Group<R>) {
    type State = (G::State, GroupState<R::State>);

    fn init(&self, taken: &mut [bool]) -> Result<Self::State, Error> {
        let before = self.0.init(taken)?;
        let (dim, Group { range, rule }) = (taken.len(), &self.1);
        let components: Vec<usize> = match range {
            Some(range) => {
                if range.is_empty() || range.end > dim {
                    return Err(Error::GroupOutside { start: range.start, end: range.end, dim });
                }
                range.clone().collect()
            }
            None => (0..dim).filter(|&component| !taken[component]).collect(),
        };
        for &component in &components {
            if std::mem::replace(&mut taken[component], true) {
                return Err(Error::GroupsOverlap { component });
            }
        }
        let room = vec![0.0; components.len()];
        let inner = rule.init(components.len())?;
        Ok((before, GroupState { components, x: room.clone(), gradient: room.clone(), delta: room, inner }))
    }

    fn step(&self, (before, state): &mut Self::State, at: &Iterate<'_>, update: &mut Update<'_>) -> Option<f64> {
        let rate_before = self.0.step(before, at, update);
        let GroupState { components, x, gradient, delta, inner } = state;
        gather(components, at.x, x);
        gather(components, at.gradient, gradient);
        gather(components, update.delta, delta);
        let at = Iterate { x, gradient, ..*at };
        let mut of_group = Update { delta, rate: update.rate };
        self.1.rule.step(inner, &at, &mut of_group);
        let rate = of_group.rate;
        scatter(components, delta, update.delta);
        rate_before.or(Some(rate))
    }

    fn project(&self, (before, state): &mut Self::State, x: &mut [f64]) {
        self.0.project(before, x);
        gather(&state.components, x, &mut state.x);
        self.1.rule.project(&mut state.inner, &mut state.x);
        scatter(&state.components, &state.x, x);
    }

    fn kinds(&self, kinds: &mut Vec<String>) {
        self.0.kinds(kinds);
        let kind = self.1.rule.kind();
        kinds.push(match &self.1.range {
            Some(Range { start, end }) => format!("{start}..{end} {kind}"),
            None => format!("rest {kind}"),
        });
    }

    fn parts(&self, groups: &mut Vec<Vec<(String, Part)>>) {
        self.0.parts(groups);
        groups.push(collect_parts(&self.1.rule));
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        self.0.settings(report);
        self.1.rule.settings(report);
    }

    fn visit_state(&self, (before, state): &mut Self::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        self.0.visit_state(before, visitor)?;
        self.1.rule.visit_state(&mut state.inner, visitor)
    }
}

impl<G: GroupList> Rule for Groups<G> {
    type State = G::State;

    fn init(&self, dim: usize) -> Result<G::State, Error> {
        let mut taken = vec![false; dim];
        let state = self.groups.init(&mut taken)?;
        if let Some(component) = taken.iter().position(|taken| !taken) {
            return Err(Error::NoGroup { component });
        }
        let mut groups = Vec::new();
        self.groups.parts(&mut groups);
        groups.iter().try_for_each(|parts| check_order(parts))?;
        // Where some groups make steps of their gradients, the others must too: they would mix steps with gradients.
        if self.part() == Part::Update
            && let Some(parts) = groups.iter().find(|parts| needs_rule(parts))
        {
            let kinds: Vec<&str> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
            return Err(Error::NoRule { given: format!("the group with {}", kinds.join(", ")) });
        }
        Ok(state)
    }

    /// That of an update where a group makes one; else what all groups have in common.
    fn part(&self) -> Part {
        let mut groups = Vec::new();
        self.groups.parts(&mut groups);
        let mut parts = groups.iter().flatten().map(|(_, part)| *part);
        if parts.clone().any(|part| part == Part::Update) {
            return Part::Update;
        }
        match parts.next() {
            Some(first) if parts.all(|part| part == first) => first,
            _ => Part::Any,
        }
    }

    fn step(&self, state: &mut G::State, at: &Iterate<'_>, update: &mut Update<'_>) {
        if let Some(rate) = self.groups.step(state, at, update) {
            update.rate = rate;
        }
    }

    fn project(&self, state: &mut G::State, x: &mut [f64]) {
        self.groups.project(state, x);
    }

    fn kind(&self) -> String {
        let mut kinds = Vec::new();
        self.groups.kinds(&mut kinds);
        format!("Groups({})", kinds.join(", "))
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        self.groups.settings(report);
    }

    fn visit_state(&self, state: &mut G::State, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        self.groups.visit_state(state, visitor)
    }
}

fn gather(components: &[usize], from: &[f64], to: &mut [f64]) {
    to.iter_mut().zip(components).for_each(|(to, &component)| *to = from[component]);
}

fn scatter(components: &[usize], from: &[f64], to: &mut [f64]) {
    from.iter().zip(components).for_each(|(from, &component)| to[component] = *from);
}

fn check_positive(owner: &'static str, setting: &'static str, value: f64) -> Result<(), Error> {
    match check_rate(owner, value) {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::setting(owner, setting, value, "positive and finite; 1 is usual")),
    }
}
