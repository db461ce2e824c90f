use crate::Error;

/// An update rule: turns a gradient into the amount δ by which the point moves, x ← x − δ.
///
/// A rule is a value that holds settings alone. What it remembers between steps is its `State`, made by
/// [`init`](Rule::init) and kept by the trainer, which never looks inside. A rule never sees data.
///
/// Rules compose in tuples: each member receives the δ that the one before it left, and the first receives the
/// gradient. A transform, such as clipping, is therefore nothing but a rule that comes before or after another.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, Error, Iterate, Rule, Trainer, Update, from_fn};
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
/// }
///
/// let steep = from_fn(1, |x, grad| {
///     grad[0] = 4e6 * x[0].powi(3);
///     1e6 * x[0].powi(4)
/// });
/// let out = Trainer::new(&steep, (Shorten(1.0), Adam::new(0.01)), vec![1.0]).max_steps(500).run()?;
/// assert!(out.x[0].abs() < 0.1);
/// # Ok::<(), Error>(())
/// ```
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
}

/// Where a step starts: what a [`Rule`] may read. [`Rule`] has an example.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Iterate<'a> {
    /// The number of the step, from 1.
    pub step: usize,
    /// The number of the epoch that the step belongs to, from 1.
    pub epoch: usize,
    /// The value at `x`, on the batch of this step.
    pub value: f64,
    /// The point before the step.
    pub x: &'a [f64],
    /// The gradient at `x`, on the batch of this step, untouched by any rule.
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

/// Gradient descent, with momentum and Nesterov's variant of it on request.
///
/// With learning rate γ, momentum μ, gradient g at the current point, and v starting at 0:
///
/// ```text
/// plain                x ← x − γ·g
/// .momentum(μ)         v ← μ·v + g,    x ← x − γ·v
/// .nesterov() as well  v ← μ·v + g,    x ← x − γ·(g + μ·v)
/// ```
///
/// The rate is applied outside v, as in torch's `SGD` and optax's `sgd`: a change of the rate acts at once. Sutskever
/// et al. (ICML 2013) put it inside, v ← μ·v − γ·g, which is the same for a constant rate. Sources: Polyak, *USSR
/// Comp. Math. Math. Phys.* 4 (1964); Nesterov, *Soviet Math. Doklady* 27 (1983), in the form of Bengio et al.,
/// arXiv:1212.0901, that evaluates the gradient at x itself.
///
/// # Errors
///
/// Of the run: γ must be positive and finite, μ in [0, 1).
///
/// # Example
///
/// ```
/// use ad_optim::{GradientDescent, Trainer, from_fn};
///
/// let valley = from_fn(2, |x, grad| {
///     grad[0] = 2.0 * x[0];
///     grad[1] = 200.0 * x[1];
///     x[0] * x[0] + 100.0 * x[1] * x[1]
/// });
/// let steps = |rule| Trainer::new(&valley, rule, vec![1.0, 1.0]).grad_tol(1e-6).run().map(|out| out.steps);
/// // Along a narrow valley the memory of v pays.
/// assert!(steps(GradientDescent::new(0.004).momentum(0.9))? < steps(GradientDescent::new(0.009))?);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GradientDescent {
    rate: f64,
    momentum: f64,
    nesterov: bool,
}

impl GradientDescent {
    /// Plain gradient descent with learning rate γ, in units of x² per unit of the objective.
    pub fn new(rate: f64) -> Self {
        GradientDescent { rate, momentum: 0.0, nesterov: false }
    }

    /// Sets the momentum μ in [0, 1); default 0, usual 0.9.
    pub fn momentum(self, momentum: f64) -> Self {
        GradientDescent { momentum, ..self }
    }

    /// Takes Nesterov's step g + μ·v in place of v. Without momentum this is plain gradient descent.
    pub fn nesterov(self) -> Self {
        GradientDescent { nesterov: true, ..self }
    }
}

impl Rule for GradientDescent {
    /// The velocity v; empty without momentum.
    type State = Vec<f64>;

    fn init(&self, dim: usize) -> Result<Vec<f64>, Error> {
        check_rate("GradientDescent", self.rate)?;
        if !(0.0..1.0).contains(&self.momentum) {
            let must_be = "at least 0 and below 1; 0.9 is usual";
            return Err(Error::setting("GradientDescent", "momentum", self.momentum, must_be));
        }
        Ok(vec![0.0; if self.momentum > 0.0 { dim } else { 0 }])
    }

    fn step(&self, velocity: &mut Vec<f64>, _at: &Iterate<'_>, update: &mut Update<'_>) {
        let (rate, mu) = (self.rate, self.momentum);
        update.rate *= rate;
        if mu == 0.0 {
            update.delta.iter_mut().for_each(|d| *d *= rate);
            return;
        }
        for (d, v) in update.delta.iter_mut().zip(velocity) {
            *v = mu * *v + *d;
            *d = rate * if self.nesterov { *d + mu * *v } else { *v };
        }
    }
}

/// Adam, exactly as algorithm 1 of Kingma and Ba (arXiv:1412.6980).
///
/// With learning rate α, gradient g, m and v starting at 0, and t the number of the step, from 1:
///
/// ```text
/// m ← β₁·m + (1 − β₁)·g          m̂ = m / (1 − β₁ᵗ)
/// v ← β₂·v + (1 − β₂)·g²         v̂ = v / (1 − β₂ᵗ)          x ← x − α·m̂ / (√v̂ + ε)
/// ```
///
/// ε stands outside the root and is added after the bias correction, as in torch's `Adam` and in optax's `adam` (whose
/// `eps_root`, inside the root, is 0 by default). The paper's shorter form at the end of its section 2, which puts the
/// corrections into α, scales ε by √(1 − β₂ᵗ) and is *not* used. Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8.
///
/// A component whose v overflows (gradients beyond 1e154) ends the run as non-finite; plain arithmetic would freeze
/// that component without a word.
///
/// # Errors
///
/// Of the run: α must be positive and finite, β₁ and β₂ in [0, 1), ε positive and finite.
///
/// # Example
///
/// ```
/// use ad_optim::{Adam, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| {
///     grad[0] = 1e6 * x[0];
///     0.5e6 * x[0] * x[0]
/// });
/// // The first step has length α in every component, whatever the scale of the objective.
/// let out = Trainer::new(&f, Adam::new(0.125), vec![1.0]).max_steps(1).run()?;
/// assert!((out.x[0] - 0.875).abs() < 1e-12);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    rate: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
}

/// What [`Adam`] remembers between steps: running means of the gradient and of its square.
///
/// # Example
///
/// A rule built on Adam names this type: here weight decay, decoupled from the gradient (Loshchilov and Hutter,
/// arXiv:1711.05101).
///
/// ```
/// use ad_optim::{Adam, AdamState, Error, Iterate, Rule, Trainer, Update, from_fn};
///
/// struct AdamW(Adam, f64);
///
/// impl Rule for AdamW {
///     type State = AdamState;
///     fn init(&self, dim: usize) -> Result<AdamState, Error> {
///         self.0.init(dim)
///     }
///     fn step(&self, state: &mut AdamState, at: &Iterate<'_>, update: &mut Update<'_>) {
///         self.0.step(state, at, update);
///         for (d, x) in update.delta.iter_mut().zip(at.x) {
///             *d += update.rate * self.1 * x;
///         }
///     }
/// }
///
/// // No gradient, so that the decay acts alone: a factor 1 − 0.5 · 0.5 a step.
/// let flat = from_fn(1, |_, grad| { grad[0] = 0.0; 1.0 });
/// let out = Trainer::new(&flat, AdamW(Adam::new(0.5), 0.5), vec![16.0]).max_steps(2).run()?;
/// assert_eq!(out.x, [9.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AdamState {
    m: Vec<f64>,
    v: Vec<f64>,
    t: u64,
}

impl Adam {
    /// Adam with learning rate α, in units of x, and the defaults of the paper for the rest.
    pub fn new(rate: f64) -> Self {
        Adam { rate, beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }

    /// Sets the decay rates of the two running means, each in [0, 1); default (0.9, 0.999).
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        Adam { beta1, beta2, ..self }
    }

    /// Sets ε, in units of the gradient; default 1e-8.
    pub fn eps(self, eps: f64) -> Self {
        Adam { eps, ..self }
    }
}

impl Rule for Adam {
    type State = AdamState;

    fn init(&self, dim: usize) -> Result<AdamState, Error> {
        check_rate("Adam", self.rate)?;
        for (setting, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::setting(
                    "Adam",
                    setting,
                    beta,
                    "at least 0 and below 1; the paper has 0.9 and 0.999",
                ));
            }
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            // With ε = 0 a component whose gradient has always been 0 would move by 0/0.
            return Err(Error::setting("Adam", "eps", self.eps, "positive and finite; the paper has 1e-8"));
        }
        Ok(AdamState { m: vec![0.0; dim], v: vec![0.0; dim], t: 0 })
    }

    fn step(&self, state: &mut AdamState, _at: &Iterate<'_>, update: &mut Update<'_>) {
        update.rate *= self.rate;
        state.t += 1;
        let correction1 = 1.0 - power(self.beta1, state.t);
        let correction2 = 1.0 - power(self.beta2, state.t);
        for ((d, m), v) in update.delta.iter_mut().zip(&mut state.m).zip(&mut state.v) {
            let g = *d;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * (g * g);
            let m_hat = *m / correction1;
            let v_hat = *v / correction2;
            // An infinite v would give δ = 0 for ever after; NaN is what the trainer reports.
            *d = if v_hat < f64::INFINITY { self.rate * m_hat / (v_hat.sqrt() + self.eps) } else { f64::NAN };
        }
    }
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
        }
    };
}

compose!(A.0);
compose!(A.0, B.1);
compose!(A.0, B.1, C.2);
compose!(A.0, B.1, C.2, D.3);
compose!(A.0, B.1, C.2, D.3, E.4);
compose!(A.0, B.1, C.2, D.3, E.4, F.5);

fn check_rate(owner: &'static str, rate: f64) -> Result<(), Error> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(());
    }
    Err(Error::setting(owner, "learning rate", rate, "positive and finite; try 1e-3"))
}

/// βᵗ by repeated squaring, from products alone: `f64::powi` may have other bits on another platform.
fn power(beta: f64, mut t: u64) -> f64 {
    let (mut result, mut square) = (1.0, beta);
    while t > 0 {
        if t & 1 == 1 {
            result *= square;
        }
        square *= square;
        t >>= 1;
    }
    result
}
