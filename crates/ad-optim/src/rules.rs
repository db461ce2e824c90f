use crate::rule::StateVisitor;
use crate::transforms::WeightDecay;
use crate::{Error, Iterate, Part, Rule, Update};

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

    fn part(&self) -> Part {
        Part::Update
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

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("learning rate", self.rate);
        report("momentum", self.momentum);
        report("nesterov", f64::from(u8::from(self.nesterov)));
    }

    fn visit_state(&self, velocity: &mut Vec<f64>, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        visitor.floats("velocity", velocity)
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
/// corrections into α, scales ε by √(1 − β₂ᵗ) and is *not* used; Keras' `Adam` does use it. Defaults: β₁ = 0.9,
/// β₂ = 0.999, ε = 1e-8.
///
/// [`l2(λ)`](Adam::l2) adds λ·x to the gradient before anything else, as `weight_decay` of torch's `Adam` does: the
/// gradient of the penalty λ/2·‖x‖². Adam divides it by √v̂ like any gradient, so that components with large gradients
/// decay less; [`AdamW`] does not.
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
    l2: f64,
}

/// What [`Adam`] remembers between steps: running means of the gradient and of its square.
///
/// # Example
///
/// A rule built on Adam names this type: here one that moves no component against its present gradient (Liang et al.,
/// arXiv:2411.16085).
///
/// ```
/// use ad_optim::{Adam, AdamState, Error, Iterate, Part, Rule, StateVisitor, Trainer, Update, from_fn};
///
/// struct Cautious(Adam);
///
/// impl Rule for Cautious {
///     type State = AdamState;
///     fn init(&self, dim: usize) -> Result<AdamState, Error> {
///         self.0.init(dim)
///     }
///     fn step(&self, state: &mut AdamState, at: &Iterate<'_>, update: &mut Update<'_>) {
///         self.0.step(state, at, update);
///         for (d, g) in update.delta.iter_mut().zip(at.gradient) {
///             if *d * g < 0.0 {
///                 *d = 0.0;
///             }
///         }
///     }
///     // What Adam says of itself holds for the whole: its place in a tuple, what a resumed run must have in common, what
///     // a checkpoint holds.
///     fn part(&self) -> Part {
///         self.0.part()
///     }
///     fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
///         self.0.settings(report);
///     }
///     fn visit_state(&self, state: &mut AdamState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
///         self.0.visit_state(state, visitor)
///     }
/// }
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, Cautious(Adam::new(0.1)), vec![1.0]).max_steps(300).run()?;
/// assert!(out.best_value < 1e-6);
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
        Adam { rate, beta1: 0.9, beta2: 0.999, eps: 1e-8, l2: 0.0 }
    }

    /// Sets the decay rates of the two running means, each in [0, 1); default (0.9, 0.999).
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        Adam { beta1, beta2, ..self }
    }

    /// Sets ε, in units of the gradient; default 1e-8.
    pub fn eps(self, eps: f64) -> Self {
        Adam { eps, ..self }
    }

    /// Adds λ·x to the gradient, λ at least 0; default 0.
    pub fn l2(self, lambda: f64) -> Self {
        Adam { l2: lambda, ..self }
    }
}

impl Rule for Adam {
    type State = AdamState;

    fn init(&self, dim: usize) -> Result<AdamState, Error> {
        check_rate("Adam", self.rate)?;
        check_betas("Adam", self.beta1, self.beta2)?;
        check_eps("Adam", self.eps)?;
        check_not_negative("Adam", "l2", self.l2)?;
        Ok(AdamState { m: vec![0.0; dim], v: vec![0.0; dim], t: 0 })
    }

    fn part(&self) -> Part {
        Part::Update
    }

    fn step(&self, state: &mut AdamState, at: &Iterate<'_>, update: &mut Update<'_>) {
        add_l2(self.l2, at, update);
        update.rate *= self.rate;
        state.t = state.t.saturating_add(1);
        let correction1 = 1.0 - power(self.beta1, state.t);
        let correction2 = 1.0 - power(self.beta2, state.t);
        for ((d, m), v) in update.delta.iter_mut().zip(&mut state.m).zip(&mut state.v) {
            let g = *d;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * (g * g);
            let m_hat = *m / correction1;
            let v_hat = *v / correction2;
            *d = quotient(self.rate * m_hat, v_hat.sqrt() + self.eps);
        }
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("learning rate", self.rate);
        report("beta1", self.beta1);
        report("beta2", self.beta2);
        report("eps", self.eps);
        report("l2", self.l2);
    }

    fn visit_state(&self, state: &mut AdamState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        visitor.floats("m", &mut state.m)?;
        visitor.floats("v", &mut state.v)?;
        visitor.counts("t", std::slice::from_mut(&mut state.t))
    }
}

/// Adam with weight decay that is decoupled from the gradient.
///
/// With δ the step of [`Adam`] with learning rate α, and λ the decay:
///
/// ```text
/// x ← x − δ − α·λ·x
/// ```
///
/// It is the tuple `(Adam::new(α), WeightDecay(λ))` under its usual name. Source: Loshchilov and Hutter,
/// arXiv:1711.05101, algorithm 2, where the decay is *not* multiplied by α but only by the schedule; torch's and
/// optax's `adamw` multiply by both, as here. Defaults: λ = 0.01 as in torch (optax: 1e-4), the rest as for [`Adam`].
///
/// # Errors
///
/// Of the run: those of [`Adam`], and λ must be finite and at least 0.
///
/// # Example
///
/// ```
/// use ad_optim::{AdamW, Trainer, from_fn};
///
/// // No gradient, so that the decay acts alone: a factor 1 − 0.5 · 0.5 a step.
/// let flat = from_fn(1, |_, grad| { grad[0] = 0.0; 1.0 });
/// let out = Trainer::new(&flat, AdamW::new(0.5).weight_decay(0.5), vec![16.0]).max_steps(2).run()?;
/// assert_eq!(out.x, [9.0]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    adam: Adam,
    decay: WeightDecay,
}

impl AdamW {
    /// AdamW with learning rate α, in units of x.
    pub fn new(rate: f64) -> Self {
        AdamW { adam: Adam::new(rate), decay: WeightDecay(0.01) }
    }

    /// Sets λ, at least 0; default 0.01.
    pub fn weight_decay(self, lambda: f64) -> Self {
        AdamW { decay: WeightDecay(lambda), ..self }
    }

    /// Sets the decay rates of the two running means, each in [0, 1); default (0.9, 0.999).
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        AdamW { adam: self.adam.betas(beta1, beta2), ..self }
    }

    /// Sets ε, in units of the gradient; default 1e-8.
    pub fn eps(self, eps: f64) -> Self {
        AdamW { adam: self.adam.eps(eps), ..self }
    }
}

impl Rule for AdamW {
    type State = AdamState;

    fn init(&self, dim: usize) -> Result<AdamState, Error> {
        self.decay.init(dim)?;
        self.adam.init(dim)
    }

    fn part(&self) -> Part {
        Part::Update
    }

    fn step(&self, state: &mut AdamState, at: &Iterate<'_>, update: &mut Update<'_>) {
        self.adam.step(state, at, update);
        self.decay.step(&mut (), at, update);
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        self.adam.settings(report);
        self.decay.settings(report);
    }

    fn visit_state(&self, state: &mut AdamState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        self.adam.visit_state(state, visitor)
    }
}

/// AMSGrad: Adam whose second moment never falls, in the three variants that are about.
///
/// With m and v the running means of [`Adam`], t the number of the step, and w starting at 0:
///
/// ```text
/// reddi    w ← max(w, v)                 x ← x − α·m / (√w + ε)
/// torch    w ← max(w, v)                 x ← x − α·(m/(1 − β₁ᵗ)) / (√(w/(1 − β₂ᵗ)) + ε)
/// optax    w ← max(w, v/(1 − β₂ᵗ))       x ← x − α·(m/(1 − β₁ᵗ)) / (√w + ε)
/// ```
///
/// - [`AmsGrad::reddi`] is algorithm 2 of Reddi, Kale and Kumar, *On the convergence of Adam and beyond* (ICLR 2018),
///   which corrects no bias. The paper has no ε either; it is added here, since w may be 0.
/// - [`AmsGrad::torch`] is what torch's `Adam(amsgrad=True)` computes: the maximum is taken of the raw second moment
///   and corrected afterwards. (The formula printed in torch's documentation was for long that of optax.) Keras'
///   `Adam(amsgrad=True)` does the same with its ε of the paper's shorter form: √w + ε, both over √(1 − β₂ᵗ).
/// - [`AmsGrad::optax`] is optax's `amsgrad`: the maximum is taken of the corrected second moment. (With
///   `bias_correction_mu=False, bias_correction_nu=False` of its `scale_by_amsgrad` it is the first variant.)
///
/// With optax's variant, the first gradients, which the correction makes large, are remembered for ever; with torch's
/// they are corrected away. Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8.
///
/// # Errors
///
/// Of the run: those of [`Adam`].
///
/// # Example
///
/// ```
/// use ad_optim::{AmsGrad, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// for rule in [AmsGrad::reddi(0.01), AmsGrad::torch(0.1), AmsGrad::optax(0.1)] {
///     let out = Trainer::new(&f, rule, vec![1.0]).max_steps(2000).run()?;
///     assert!(out.best_value < 1e-6);
/// }
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AmsGrad {
    adam: Adam,
    variant: AmsGradVariant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum AmsGradVariant {
    Reddi,
    Torch,
    Optax,
}

/// What [`AmsGrad`] remembers between steps: the means of [`Adam`], and the largest second moments.
#[derive(Clone, Debug, PartialEq)]
pub struct AmsGradState {
    adam: AdamState,
    w: Vec<f64>,
}

impl AmsGrad {
    /// The variant of the paper, without bias correction. Its first steps are up to (1 − β₁)/√(1 − β₂) ≈ 3.2 times as
    /// long as those of Adam.
    pub fn reddi(rate: f64) -> Self {
        AmsGrad { adam: Adam::new(rate), variant: AmsGradVariant::Reddi }
    }

    /// The variant of torch: bias correction after the maximum.
    pub fn torch(rate: f64) -> Self {
        AmsGrad { adam: Adam::new(rate), variant: AmsGradVariant::Torch }
    }

    /// The variant of optax: bias correction before the maximum.
    pub fn optax(rate: f64) -> Self {
        AmsGrad { adam: Adam::new(rate), variant: AmsGradVariant::Optax }
    }

    /// Sets the decay rates of the two running means, each in [0, 1); default (0.9, 0.999).
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        AmsGrad { adam: self.adam.betas(beta1, beta2), ..self }
    }

    /// Sets ε, in units of the gradient; default 1e-8.
    pub fn eps(self, eps: f64) -> Self {
        AmsGrad { adam: self.adam.eps(eps), ..self }
    }
}

impl Rule for AmsGrad {
    type State = AmsGradState;

    fn init(&self, dim: usize) -> Result<AmsGradState, Error> {
        check_rate("AmsGrad", self.adam.rate)?;
        check_betas("AmsGrad", self.adam.beta1, self.adam.beta2)?;
        check_eps("AmsGrad", self.adam.eps)?;
        Ok(AmsGradState { adam: self.adam.init(dim)?, w: vec![0.0; dim] })
    }

    fn part(&self) -> Part {
        Part::Update
    }

    fn step(&self, state: &mut AmsGradState, _at: &Iterate<'_>, update: &mut Update<'_>) {
        let Adam { rate, beta1, beta2, eps, .. } = self.adam;
        let AdamState { m, v, t } = &mut state.adam;
        update.rate *= rate;
        *t = t.saturating_add(1);
        let (correction1, before, after) = match self.variant {
            AmsGradVariant::Reddi => (1.0, 1.0, 1.0),
            AmsGradVariant::Torch => (1.0 - power(beta1, *t), 1.0, 1.0 - power(beta2, *t)),
            AmsGradVariant::Optax => (1.0 - power(beta1, *t), 1.0 - power(beta2, *t), 1.0),
        };
        for (((d, m), v), w) in update.delta.iter_mut().zip(m).zip(v).zip(&mut state.w) {
            let g = *d;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * (g * g);
            *w = larger(*w, *v / before);
            *d = quotient(rate * (*m / correction1), (*w / after).sqrt() + eps);
        }
    }

    fn kind(&self) -> String {
        let variant = match self.variant {
            AmsGradVariant::Reddi => "AmsGrad::reddi",
            AmsGradVariant::Torch => "AmsGrad::torch",
            AmsGradVariant::Optax => "AmsGrad::optax",
        };
        variant.to_owned()
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        self.adam.settings(report);
    }

    fn visit_state(&self, state: &mut AmsGradState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        self.adam.visit_state(&mut state.adam, visitor)?;
        visitor.floats("w", &mut state.w)
    }
}

/// RMSprop: gradients divided by the root of a running mean of their squares.
///
/// With learning rate γ, decay ρ, gradient g, and v, ḡ, b starting at 0:
///
/// ```text
/// v ← ρ·v + (1 − ρ)·g²
/// .centered()          ḡ ← ρ·ḡ + (1 − ρ)·g,   ṽ = v − ḡ²          else  ṽ = v
/// .eps_inside_root()   u = g / √(ṽ + ε)                           else  u = g / (√ṽ + ε)
/// .momentum(μ)         b ← μ·b + u,   x ← x − γ·b                 else  x ← x − γ·u
/// .nesterov() as well  b ← μ·b + u,   x ← x − γ·(u + μ·b)
/// ```
///
/// Sources: Hinton, *Neural Networks for Machine Learning*, lecture 6e (2012); the centred form is Graves,
/// arXiv:1308.0850, equation 40. The bias of v is not corrected, as nobody does by default.
///
/// Where others differ: torch's `RMSprop` puts ε outside the root, ρ = 0.99; optax's `rmsprop` puts it inside by
/// default (`eps_in_sqrt=True`), ρ = 0.9, and has γ inside b, which is the same for a constant rate; both have
/// ε = 1e-8. TensorFlow 1 starts v at 1 and puts ε inside. torch has no Nesterov variant. Neither guards ṽ, which rounding can make
/// negative where g hardly changes; here it is then 0. Defaults: ρ = 0.9 as in the lecture, ε = 1e-8 outside the root,
/// no momentum, not centred.
///
/// # Errors
///
/// Of the run: γ must be positive and finite, ρ and μ in [0, 1), ε positive and finite.
///
/// # Example
///
/// ```
/// use ad_optim::{RmsProp, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2e6 * x[0]; 1e6 * x[0] * x[0] });
/// let out = Trainer::new(&f, RmsProp::new(1e-3).momentum(0.5), vec![1.0]).max_steps(1000).run()?;
/// assert!(out.x[0].abs() < 0.01);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    rate: f64,
    decay: f64,
    eps: f64,
    inside: bool,
    centered: bool,
    momentum: f64,
    nesterov: bool,
}

/// What [`RmsProp`] remembers between steps: v, and ḡ and b where they are used.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsPropState {
    v: Vec<f64>,
    mean: Vec<f64>,
    b: Vec<f64>,
}

impl RmsProp {
    /// RMSprop with learning rate γ, in units of x.
    pub fn new(rate: f64) -> Self {
        RmsProp { rate, decay: 0.9, eps: 1e-8, inside: false, centered: false, momentum: 0.0, nesterov: false }
    }

    /// Sets ρ in [0, 1); default 0.9.
    pub fn decay(self, rho: f64) -> Self {
        RmsProp { decay: rho, ..self }
    }

    /// Sets ε; default 1e-8. In units of the gradient outside the root, of its square inside.
    pub fn eps(self, eps: f64) -> Self {
        RmsProp { eps, ..self }
    }

    /// Adds ε inside the root in place of outside.
    pub fn eps_inside_root(self) -> Self {
        RmsProp { inside: true, ..self }
    }

    /// Divides by the standard deviation of the gradient in place of its root mean square.
    pub fn centered(self) -> Self {
        RmsProp { centered: true, ..self }
    }

    /// Sets the momentum μ in [0, 1); default 0.
    pub fn momentum(self, mu: f64) -> Self {
        RmsProp { momentum: mu, ..self }
    }

    /// Takes Nesterov's step u + μ·b in place of b.
    pub fn nesterov(self) -> Self {
        RmsProp { nesterov: true, ..self }
    }
}

impl Rule for RmsProp {
    type State = RmsPropState;

    fn init(&self, dim: usize) -> Result<RmsPropState, Error> {
        const OWNER: &str = "RmsProp";
        check_rate(OWNER, self.rate)?;
        check_fraction(OWNER, "decay", self.decay, "at least 0 and below 1; 0.9 is usual")?;
        check_fraction(OWNER, "momentum", self.momentum, "at least 0 and below 1; 0.9 is usual")?;
        check_eps(OWNER, self.eps)?;
        let zeros = |used: bool| vec![0.0; if used { dim } else { 0 }];
        Ok(RmsPropState { v: zeros(true), mean: zeros(self.centered), b: zeros(self.momentum > 0.0) })
    }

    fn part(&self) -> Part {
        Part::Update
    }

    fn step(&self, state: &mut RmsPropState, _at: &Iterate<'_>, update: &mut Update<'_>) {
        let (rho, mu) = (self.decay, self.momentum);
        update.rate *= self.rate;
        for (i, (d, v)) in update.delta.iter_mut().zip(&mut state.v).enumerate() {
            let g = *d;
            *v = rho * *v + (1.0 - rho) * (g * g);
            let spread = match state.mean.get_mut(i) {
                Some(mean) => {
                    *mean = rho * *mean + (1.0 - rho) * g;
                    larger(*v - *mean * *mean, 0.0)
                }
                None => *v,
            };
            let u = quotient(g, if self.inside { (spread + self.eps).sqrt() } else { spread.sqrt() + self.eps });
            *d = self.rate
                * match state.b.get_mut(i) {
                    Some(b) => {
                        *b = mu * *b + u;
                        if self.nesterov { u + mu * *b } else { *b }
                    }
                    None => u,
                };
        }
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("learning rate", self.rate);
        report("decay", self.decay);
        report("eps", self.eps);
        report("eps inside the root", f64::from(u8::from(self.inside)));
        report("centered", f64::from(u8::from(self.centered)));
        report("momentum", self.momentum);
        report("nesterov", f64::from(u8::from(self.nesterov)));
    }

    fn visit_state(&self, state: &mut RmsPropState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        visitor.floats("v", &mut state.v)?;
        visitor.floats("mean", &mut state.mean)?;
        visitor.floats("b", &mut state.b)
    }
}

/// Adagrad: gradients divided by the root of the sum of all their squares so far.
///
/// With learning rate γ, gradient g, and G starting at the initial accumulator:
///
/// ```text
/// G ← G + g²          x ← x − γ·g / (√G + ε)
/// .eps_inside_root()  x ← x − γ·g / √(G + ε)
/// ```
///
/// Source: Duchi, Hazan and Singer, JMLR 12 (2011), figure 1 with the diagonal matrix, where δ is this ε. Defaults: G
/// starts at 0 and ε = 1e-10, as in torch's `Adagrad`, whose `lr_decay` is a [`Schedule`](crate::Schedule) here.
/// optax's `adagrad` starts G at 0.1 and puts ε = 1e-7 inside the root; Keras starts at 0.1 with ε = 1e-7 inside, too.
///
/// # Errors
///
/// Of the run: γ and ε must be positive and finite, the initial accumulator finite and at least 0.
///
/// # Example
///
/// ```
/// use ad_optim::{Adagrad, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, Adagrad::new(0.5), vec![1.0]).max_steps(100).run()?;
/// assert!(out.best_value < 1e-9);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad {
    rate: f64,
    eps: f64,
    inside: bool,
    initial: f64,
}

impl Adagrad {
    /// Adagrad with learning rate γ, in units of x.
    pub fn new(rate: f64) -> Self {
        Adagrad { rate, eps: 1e-10, inside: false, initial: 0.0 }
    }

    /// Sets ε; default 1e-10. In units of the gradient outside the root, of its square inside.
    pub fn eps(self, eps: f64) -> Self {
        Adagrad { eps, ..self }
    }

    /// Adds ε inside the root in place of outside.
    pub fn eps_inside_root(self) -> Self {
        Adagrad { inside: true, ..self }
    }

    /// Sets where the sum of squares G starts; default 0.
    pub fn initial_accumulator(self, sum_of_squares: f64) -> Self {
        Adagrad { initial: sum_of_squares, ..self }
    }
}

impl Rule for Adagrad {
    /// The sums of squares G.
    type State = Vec<f64>;

    fn init(&self, dim: usize) -> Result<Vec<f64>, Error> {
        check_rate("Adagrad", self.rate)?;
        check_eps("Adagrad", self.eps)?;
        check_not_negative("Adagrad", "initial accumulator", self.initial)?;
        Ok(vec![self.initial; dim])
    }

    fn part(&self) -> Part {
        Part::Update
    }

    fn step(&self, sums: &mut Vec<f64>, _at: &Iterate<'_>, update: &mut Update<'_>) {
        update.rate *= self.rate;
        for (d, sum) in update.delta.iter_mut().zip(sums) {
            *sum += *d * *d;
            let root = if self.inside { (*sum + self.eps).sqrt() } else { sum.sqrt() + self.eps };
            *d = quotient(self.rate * *d, root);
        }
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("learning rate", self.rate);
        report("eps", self.eps);
        report("eps inside the root", f64::from(u8::from(self.inside)));
        report("initial accumulator", self.initial);
    }

    fn visit_state(&self, sums: &mut Vec<f64>, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        visitor.floats("sums", sums)
    }
}

/// Adamax: Adam with a decaying maximum of |g| in place of the root of the mean square.
///
/// With learning rate α, gradient g, m and u starting at 0, and t the number of the step, from 1:
///
/// ```text
/// m ← β₁·m + (1 − β₁)·g        u ← max(β₂·u, |g| + ε)        x ← x − (α / (1 − β₁ᵗ))·m / u
/// ```
///
/// Source: Kingma and Ba, arXiv:1412.6980, algorithm 2, which has no ε; there u is 0 and the step 0/0 where a
/// component's gradient has always been 0. torch's `Adamax` and optax's `adamax` add ε inside the maximum, as here;
/// Keras' divides by u + ε. Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8; the paper has α = 0.002.
///
/// # Errors
///
/// Of the run: those of [`Adam`].
///
/// # Example
///
/// ```
/// use ad_optim::{Adamax, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// let out = Trainer::new(&f, Adamax::new(0.1), vec![1.0]).max_steps(500).run()?;
/// assert!(out.best_value < 1e-3);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Adamax {
    rate: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
}

impl Adamax {
    /// Adamax with learning rate α, in units of x.
    pub fn new(rate: f64) -> Self {
        Adamax { rate, beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }

    /// Sets the decay rates of the mean and of the maximum, each in [0, 1); default (0.9, 0.999).
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        Adamax { beta1, beta2, ..self }
    }

    /// Sets ε, in units of the gradient; default 1e-8.
    pub fn eps(self, eps: f64) -> Self {
        Adamax { eps, ..self }
    }
}

impl Rule for Adamax {
    /// m and u in place of v.
    type State = AdamState;

    fn init(&self, dim: usize) -> Result<AdamState, Error> {
        check_rate("Adamax", self.rate)?;
        check_betas("Adamax", self.beta1, self.beta2)?;
        check_eps("Adamax", self.eps)?;
        Ok(AdamState { m: vec![0.0; dim], v: vec![0.0; dim], t: 0 })
    }

    fn part(&self) -> Part {
        Part::Update
    }

    fn step(&self, state: &mut AdamState, _at: &Iterate<'_>, update: &mut Update<'_>) {
        update.rate *= self.rate;
        state.t = state.t.saturating_add(1);
        let rate = self.rate / (1.0 - power(self.beta1, state.t));
        for ((d, m), u) in update.delta.iter_mut().zip(&mut state.m).zip(&mut state.v) {
            let g = *d;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *u = larger(self.beta2 * *u, g.abs() + self.eps);
            *d = quotient(rate * *m, *u);
        }
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        report("learning rate", self.rate);
        report("beta1", self.beta1);
        report("beta2", self.beta2);
        report("eps", self.eps);
    }

    fn visit_state(&self, state: &mut AdamState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        visitor.floats("m", &mut state.m)?;
        visitor.floats("u", &mut state.v)?;
        visitor.counts("t", std::slice::from_mut(&mut state.t))
    }
}

/// Nadam: Adam with Nesterov's momentum.
///
/// With m and v the running means of [`Adam`], t the number of the step, from 1, and the momenta
/// μₜ = β₁·(1 − ½·0.96^(t·ψ)):
///
/// ```text
/// m̂ = μₜ₊₁·m / (1 − μ₁·…·μₜ₊₁) + (1 − μₜ)·g / (1 − μ₁·…·μₜ)
/// v̂ = v / (1 − β₂ᵗ)                                               x ← x − α·m̂ / (√v̂ + ε)
/// .constant_momentum()   μₜ = β₁, so that the products are powers
/// ```
///
/// Source: Dozat, *Incorporating Nesterov momentum into Adam* (ICLR 2016 workshop), in the form of its report with the
/// warming momentum μₜ. Like all implementations this one leaves out the factor β₂ of v̂ in algorithm 2 of the paper.
/// torch's `NAdam` is this with ψ = 0.004 (`momentum_decay`), the default here; Keras' `Nadam` has ψ = 1; optax's
/// `nadam` has the constant momentum. Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8, ψ = 0.004.
///
/// # Errors
///
/// Of the run: those of [`Adam`], and ψ must be finite and at least 0.
///
/// # Example
///
/// ```
/// use ad_optim::{Nadam, Trainer, from_fn};
///
/// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
/// for rule in [Nadam::new(0.1), Nadam::new(0.1).constant_momentum()] {
///     let out = Trainer::new(&f, rule, vec![1.0]).max_steps(500).run()?;
///     assert!(out.best_value < 1e-3);
/// }
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Nadam {
    adam: Adam,
    /// ψ; `None` for the constant momentum.
    momentum_decay: Option<f64>,
}

/// What [`Nadam`] remembers between steps: the means of [`Adam`], and the product of the momenta so far.
#[derive(Clone, Debug, PartialEq)]
pub struct NadamState {
    adam: AdamState,
    product: f64,
}

impl Nadam {
    /// Nadam with learning rate α, in units of x.
    pub fn new(rate: f64) -> Self {
        Nadam { adam: Adam::new(rate), momentum_decay: Some(0.004) }
    }

    /// Sets the decay rates of the two running means, each in [0, 1); default (0.9, 0.999).
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        Nadam { adam: self.adam.betas(beta1, beta2), ..self }
    }

    /// Sets ε, in units of the gradient; default 1e-8.
    pub fn eps(self, eps: f64) -> Self {
        Nadam { adam: self.adam.eps(eps), ..self }
    }

    /// Sets ψ, at least 0; default 0.004.
    pub fn momentum_decay(self, psi: f64) -> Self {
        Nadam { momentum_decay: Some(psi), ..self }
    }

    /// Takes μₜ = β₁ for all t.
    pub fn constant_momentum(self) -> Self {
        Nadam { momentum_decay: None, ..self }
    }

    /// μₜ.
    fn momentum(&self, t: u64) -> f64 {
        let beta1 = self.adam.beta1;
        match self.momentum_decay {
            // The power of ad-core has the same bits on every machine.
            Some(psi) => beta1 * (1.0 - 0.5 * ad_core::Rule::powf(0.96, t as f64 * psi)),
            None => beta1,
        }
    }
}

impl Rule for Nadam {
    type State = NadamState;

    fn init(&self, dim: usize) -> Result<NadamState, Error> {
        check_rate("Nadam", self.adam.rate)?;
        check_betas("Nadam", self.adam.beta1, self.adam.beta2)?;
        check_eps("Nadam", self.adam.eps)?;
        check_not_negative("Nadam", "momentum decay", self.momentum_decay.unwrap_or(0.0))?;
        Ok(NadamState { adam: self.adam.init(dim)?, product: 1.0 })
    }

    fn part(&self) -> Part {
        Part::Update
    }

    fn step(&self, state: &mut NadamState, _at: &Iterate<'_>, update: &mut Update<'_>) {
        let Adam { rate, beta1, beta2, eps, .. } = self.adam;
        let AdamState { m, v, t } = &mut state.adam;
        update.rate *= rate;
        *t = t.saturating_add(1);
        let (mu, next) = (self.momentum(*t), self.momentum(t.saturating_add(1)));
        state.product *= mu;
        let of_mean = next / (1.0 - state.product * next);
        let of_gradient = (1.0 - mu) / (1.0 - state.product);
        let correction2 = 1.0 - power(beta2, *t);
        for ((d, m), v) in update.delta.iter_mut().zip(m).zip(v) {
            let g = *d;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * (g * g);
            let m_hat = of_mean * *m + of_gradient * g;
            *d = quotient(rate * m_hat, (*v / correction2).sqrt() + eps);
        }
    }

    fn settings(&self, report: &mut dyn FnMut(&'static str, f64)) {
        self.adam.settings(report);
        // A negative number, which no setting can have, stands for the constant momentum.
        report("momentum decay", self.momentum_decay.unwrap_or(-1.0));
    }

    fn visit_state(&self, state: &mut NadamState, visitor: &mut dyn StateVisitor) -> Result<(), Error> {
        self.adam.visit_state(&mut state.adam, visitor)?;
        visitor.floats("product of the momenta", std::slice::from_mut(&mut state.product))
    }
}

pub(crate) fn check_rate(owner: &'static str, rate: f64) -> Result<(), Error> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(());
    }
    Err(Error::setting(owner, "learning rate", rate, "positive and finite; try 1e-3"))
}

fn check_betas(owner: &'static str, beta1: f64, beta2: f64) -> Result<(), Error> {
    const MUST_BE: &str = "at least 0 and below 1; the paper has 0.9 and 0.999";
    check_fraction(owner, "beta1", beta1, MUST_BE)?;
    check_fraction(owner, "beta2", beta2, MUST_BE)
}

fn check_fraction(owner: &'static str, setting: &'static str, value: f64, must_be: &'static str) -> Result<(), Error> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(Error::setting(owner, setting, value, must_be)),
    }
}

/// With ε = 0 a component whose gradient has always been 0 would move by 0/0.
fn check_eps(owner: &'static str, eps: f64) -> Result<(), Error> {
    match eps.is_finite() && eps > 0.0 {
        true => Ok(()),
        false => Err(Error::setting(owner, "eps", eps, "positive and finite; 1e-8 is usual")),
    }
}

pub(crate) fn check_not_negative(owner: &'static str, setting: &'static str, value: f64) -> Result<(), Error> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::setting(owner, setting, value, "finite and at least 0")),
    }
}

/// The gradient of λ/2·‖x‖² on top of δ.
pub(crate) fn add_l2(lambda: f64, at: &Iterate<'_>, update: &mut Update<'_>) {
    if lambda != 0.0 {
        for (d, x) in update.delta.iter_mut().zip(at.x) {
            *d += lambda * x;
        }
    }
}

/// A step over its scale. An infinite scale, from gradients whose squares overflow, would give δ = 0 for ever after; NaN
/// is what the trainer reports.
fn quotient(step: f64, scale: f64) -> f64 {
    if scale < f64::INFINITY { step / scale } else { f64::NAN }
}

/// The larger number; NaN if one of them is, which `f64::max` would hide.
fn larger(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

/// βᵗ by repeated squaring, from products alone: `f64::powi` may have other bits on another platform.
pub(crate) fn power(beta: f64, mut t: u64) -> f64 {
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
