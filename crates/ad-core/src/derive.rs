//! Tape → derivative tape: the derivative of a recorded function is a recorded
//! function, [`Tape::jvp_tape`], [`Tape::vjp_tape`], [`Tape::gradient_tape`] and
//! [`Tape::jacobian_tape`].
//!
//! The rules of the table are evaluated in [`Node`], a number type whose
//! numbers are rows of a [`List`]: what a sweep computes, it writes down. (Not
//! in `Var`: a `Var` computes a value that nobody wants here, knows the line of
//! this file instead of the user's, and appends rows that are there already.)
//! The primal rows come first, exactly as recorded; those that no derivative
//! reads are left out at the end. What the derivation adds goes through the
//! identities of `optimize.rs`, which change no bit, and through two shortcuts
//! that may change the sign of a zero: a product with a constant 0 and a sum
//! with nothing are not written down.
//!
//! A derivative tape states the strict rule of the sweeps (`replay/scalar.rs`):
//!
//! - The product of a partial and a tangent or an adjoint is `chain_mul`, 0
//!   where it is NaN and a factor is 0. It is a plain product where one factor
//!   is a constant other than 0 and finite: those have the same bits. A partial
//!   that is bounded (that of `max`, or `sech2`) is no such case, since it may be
//!   0 where the tangent is infinite.
//! - A partial that may be a number where the value is NaN though no operand is
//!   (1/x of ln x below 0) goes through `domain`. Which partials those are is
//!   asked of the table: each operation is evaluated once at its probe points,
//!   with the constants among its operands as they are. So x/2 needs no such
//!   row, and x/y does, for 0/0.
//!
//! The probe points asked are the finite ones, and folds are not asked: every
//! sum is NaN for ∞ − ∞, and a row that looks out for that after each addition
//! would be the most of a tape. Where an operation of several operands makes a NaN
//! of infinite ones (∞ − ∞, 0·∞, ∞/∞, ∞ % c) the drivers therefore give NaN and a derivative tape may
//! give the number of its formula. Everywhere else they are equal.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use crate::error::Error;
use crate::formula::{Accent, Name};
use crate::function::Function;
use crate::ops::{Fold, Op, Operation, Visitor};
use crate::optimize::{Ends, Identities, List, Operands};
use crate::record::{Answer, LIMIT, Question, SourceLocation};
use crate::rule::Rule;
use crate::rule_operators;
use crate::tape::{Row, Tape, TapeData};

impl Tape {
    /// J·p as a tape: its inputs are x and then ẋ (2n), its outputs the m
    /// numbers of J(x)·ẋ.
    ///
    /// It is a tape like any other: it prints, replays, and has derivatives.
    /// Parameters, names, guards and the source locations of the rows are those
    /// of this tape; a row that a rule adds has the location of the row it
    /// differentiates. The new inputs are called ẋ₁, ẋ₂, … after their inputs
    /// (or p₁, p₂, … where there are such already), the outputs dy.
    ///
    /// The outputs are equal to those of [`Tape::jvp`] by `==` (so ±0 may
    /// differ), except where an operation of several operands makes a NaN of
    /// infinite ones (∞ − ∞, 0·∞, ∞/∞, ∞ % c): there J·p may be a number of the formula.
    ///
    /// Of a tape that is a derivative itself and calls the adjoints of a function
    /// ([`Tape::call`] and its kin) they are equal up to rounding.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the derivative has more rows than an index can name,
    /// [`Error::NoSecondDerivative`] for a [`Custom`](crate::Custom) operation without one.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
    /// let jvp = tape.jvp_tape()?;
    /// assert_eq!(jvp.eval(&[2.0, 4.0, 1.0, 0.0])?, tape.jvp(&[2.0, 4.0], &[1.0, 0.0])?.1);
    /// assert_eq!(jvp.to_string(), "\
    /// v₋₃ = x₁
    /// v₋₂ = x₂
    /// v₋₁ = ẋ₁
    /// v₀ = ẋ₂
    /// v₁ = exp(v₋₂)
    /// v₂ = sin(v₋₃)
    /// v₃ = v₂·v₋₁
    /// v₄ = v₋₂·v₋₁
    /// v₅ = v₋₃·v₀
    /// v₆ = v₄ + v₅
    /// v₇ = v₆ − v₃
    /// v₈ = v₁·v₀
    /// v₉ = v₇ − v₈
    /// dy = v₉
    /// ");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn jvp_tape(&self) -> Result<Tape, Error> {
        self.derivative(Location::caller(), self.tangent_names(), "dy", 0, |sweep, seeds| {
            let seeds = seeds.iter().map(|&seed| vec![(0, seed)]).collect();
            sweep.forward(seeds, 1).into_iter().map(|row| row.first().map_or(Node::lit(0.0), |&(_, t)| t)).collect()
        })
    }

    /// Jᵀ·w as a tape: its inputs are x and then ȳ (n + m), its outputs the n
    /// numbers of J(x)ᵀ·ȳ.
    ///
    /// For what such a tape keeps and how exact it is, see [`Tape::jvp_tape`];
    /// its driver is [`Tape::vjp`]. The new inputs are called ȳ₁, ȳ₂, … after the
    /// outputs (or w₁, w₂, … where there are such already), the outputs g.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the derivative has more rows than an index can name.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[1.0, 2.0], |x| [x[0] * x[1], x[0].sin()])?;
    /// let vjp = tape.vjp_tape()?;
    /// assert_eq!(vjp.eval(&[3.0, 4.0, 1.0, 0.0])?, [4.0, 3.0]);
    /// assert_eq!(vjp.eval(&[3.0, 4.0, 0.5, 2.0])?, tape.vjp(&[3.0, 4.0], &[0.5, 2.0])?.1);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn vjp_tape(&self) -> Result<Tape, Error> {
        self.derivative(Location::caller(), self.adjoint_names(), "g", 0, |sweep, seeds| sweep.reverse(seeds))
    }

    /// The gradient of a one-output tape as a tape: its inputs are x, its
    /// outputs the n numbers of ∇f(x).
    ///
    /// Its Jacobian is the Hessian of f, and so on to any order. For what such a
    /// tape keeps and how exact it is, see [`Tape::jvp_tape`]; its driver is
    /// [`Tape::gradient`]. The outputs are called g₁, g₂, …
    ///
    /// # Errors
    ///
    /// [`Error::NotScalar`] unless there is one output, and [`Error::TooLarge`]
    /// if the derivative has more rows than an index can name.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
    /// let gradient = tape.gradient_tape()?;
    /// assert_eq!(gradient.eval(&[2.0, 4.0])?, tape.gradient(&[2.0, 4.0])?.1);
    /// assert_eq!(gradient.to_string(), "\
    /// v₋₁ = x₁
    /// v₀ = x₂
    /// v₁ = exp(v₀)
    /// v₂ = v₋₁ − v₁
    /// v₃ = sin(v₋₁)
    /// v₄ = v₀ − v₃
    /// g₁ = v₄
    /// g₂ = v₂
    /// ");
    /// let hessian = gradient.jacobian(&[2.0, 4.0])?;
    /// assert_eq!(hessian.as_slice(), [-2f64.cos(), 1.0, 1.0, -4f64.exp()]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn gradient_tape(&self) -> Result<Tape, Error> {
        let caller = Location::caller();
        self.expect_scalar("gradient_tape", "jacobian_tape, or vjp_tape with a weight for each output")?;
        self.derivative(caller, Vec::new(), "g", 0, |sweep, _| sweep.reverse(&[Node::lit(1.0)]))
    }

    /// The Jacobian as a tape: its inputs are x, its outputs the m·n numbers
    /// ∂yᵢ/∂xⱼ, row-major.
    ///
    /// A zero of the Jacobian that does not depend on x is the constant 0. For
    /// what such a tape keeps and how exact it is, see [`Tape::jvp_tape`]; its
    /// driver is [`Tape::jacobian`], which goes forward or in reverse by the same
    /// choice. The outputs are called J₁, J₂, …
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the derivative has more rows, or m·n is more, than
    /// an index can name.
    ///
    /// ```
    /// use ad_core::{Matrix, Tape};
    /// let tape = Tape::record(&[1.0, 2.0], |x| [x[0] * x[1], x[0].powi(3)])?;
    /// let jacobian = tape.jacobian_tape()?;
    /// let entries = jacobian.eval(&[3.0, 4.0])?;
    /// assert_eq!(entries, [4.0, 3.0, 27.0, 0.0]);
    /// assert_eq!(Matrix::from_vec(2, 2, entries)?, tape.jacobian(&[3.0, 4.0])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    pub fn jacobian_tape(&self) -> Result<Tape, Error> {
        let (m, n) = (self.num_outputs(), self.num_inputs());
        let entries = m.saturating_mul(n);
        self.derivative(Location::caller(), Vec::new(), "J", entries, |sweep, _| {
            let mut jacobian = vec![Node::lit(0.0); entries];
            if self.jacobian_is_forward() {
                let seeds = (0..n).map(|i| vec![(i as u32, Node::lit(1.0))]).collect();
                for (row, tangents) in jacobian.chunks_mut(n).zip(sweep.forward(seeds, n)) {
                    tangents.into_iter().for_each(|(i, tangent)| row[i as usize] = tangent);
                }
            } else {
                let mut weights = vec![Node::lit(0.0); m];
                for (j, row) in jacobian.chunks_mut(n).enumerate() {
                    weights[j] = Node::lit(1.0);
                    row.copy_from_slice(&sweep.reverse(&weights));
                    weights[j] = Node::lit(0.0);
                }
            }
            jacobian
        })
    }

    /// f(x) and J·ẋ as a tape, for functions that run this one with tangents: its
    /// inputs are x and then ẋ, its outputs y and then ẏ.
    pub(crate) fn tangent_body(&self) -> Result<Tape, Error> {
        self.derivative(Location::caller(), self.tangent_names(), "y", 0, |sweep, seeds| {
            let seeds = seeds.iter().map(|&seed| vec![(0, seed)]).collect();
            let tangents = sweep.forward(seeds, 1);
            let tangents = tangents.iter().map(|row| row.first().map_or(Node::lit(0.0), |&(_, t)| t));
            sweep.outputs().into_iter().chain(tangents).collect()
        })
    }

    /// A tape with the inputs of this one and `seed_names` more, whose outputs,
    /// at most `entries` of them if that is more than usual, `sweep` computes
    /// from the seeds.
    fn derivative(
        &self,
        caller: &'static Location<'static>,
        seed_names: Vec<Name>,
        output_letter: &'static str,
        entries: usize,
        sweep: impl for<'a> FnOnce(&mut Sweep<'a>, &[Node<'a>]) -> Vec<Node<'a>>,
    ) -> Result<Tape, Error> {
        let data = &*self.data;
        let num_inputs = data.num_inputs + seed_names.len();
        let too_large = |what| Error::TooLarge { location: SourceLocation::new(caller), what, limit: LIMIT };
        if num_inputs.saturating_add(data.num_params) > LIMIT {
            return Err(too_large("inputs, seeds and parameters"));
        }
        if entries > LIMIT {
            return Err(too_large("derivatives"));
        }
        // The place of what belongs to no row: the caller's, after those of the rows.
        let no_row = data.locations.len().min(Row::LOCATIONS - 1);
        let recorder = Recorder::new(num_inputs + data.num_params, no_row as u32);
        let values = recorder.list.borrow_mut().copy(data, num_inputs, Identities::Leave);
        let seeds: Vec<Node<'_>> = (data.num_inputs..num_inputs).map(|seed| recorder.node(seed as u32)).collect();
        let mut rules = Sweep::new(data, &recorder, &values);
        let outputs = sweep(&mut rules, &seeds);
        if let Some(error) = rules.failure.take() {
            return Err(error);
        }
        let outputs = outputs.into_iter().map(|output| recorder.operand(output)).collect();
        let list = recorder.list.into_inner();
        if list.overflows() {
            return Err(too_large("rows or operands"));
        }
        let mut input_names = data.input_names.clone();
        if !seed_names.is_empty() {
            let variables = data.first_input()..data.first_param();
            input_names = variables.map(|index| data.variable_name(index)).chain(seed_names).collect();
        }
        let ends = Ends { outputs, output_letter, num_inputs, input_names };
        let mut derivative = list.finish(data, &values, ends);
        if derivative.rows.iter().any(|row| row.location() as usize == derivative.locations.len()) {
            derivative.locations.push(SourceLocation::new(caller));
        }
        Ok(Tape::new(derivative, self.params.to_vec()))
    }

    /// ẋ for each input x, or p₁, p₂, …
    fn tangent_names(&self) -> Vec<Name> {
        let names: Vec<Name> = (self.data.first_input()..self.data.first_param())
            .map(|index| self.data.variable_name(index).with_accent(Accent::Dot))
            .collect();
        self.fresh_names(names, "p")
    }

    /// ȳ for each output y, or w₁, w₂, …
    fn adjoint_names(&self) -> Vec<Name> {
        let names =
            (0..self.num_outputs()).map(|output| self.data.output_name(output).with_accent(Accent::Bar)).collect();
        self.fresh_names(names, "w")
    }

    /// The names, if no variable has one of them; else the letter, or another
    /// one, with numbers.
    fn fresh_names(&self, names: Vec<Name>, letter: &'static str) -> Vec<Name> {
        let data = &*self.data;
        let taken: std::collections::HashSet<String> =
            (data.first_input()..data.first_row()).map(|index| data.variable_name(index).to_string()).collect();
        let numbers = 1..=names.len();
        let numbered = || numbers.clone().map(|i| Name::Indexed(letter, Accent::None, i as i64));
        let plain = numbered().collect();
        let primed = (1..).map(|primes| {
            numbered().map(|name| Name::Given(format!("{name}{}", "′".repeat(primes)), Accent::None)).collect()
        });
        let mut candidates = [names.clone(), plain].into_iter().chain(primed);
        let is_fresh = |names: &Vec<Name>| {
            let texts: std::collections::HashSet<String> = names.iter().map(Name::to_string).collect();
            texts.len() == names.len() && texts.is_disjoint(&taken)
        };
        // There are more primes than names.
        candidates.find(is_fresh).unwrap_or(names)
    }
}

/// TF of a custom operation as a tape, from the function of its partials:
/// (x, ẋ) ↦ (f(x), J(x)·ẋ).
pub(crate) fn tangent_by_partials(function: &Function, partials: &Function) -> Tape {
    let (n, m) = (function.num_operands(), function.num_results());
    tangent_of_custom(function, |recorder, x, dx, y, largest| {
        let partials = Node::call(recorder, partials, x);
        let tangent = |j: usize| {
            let mut tangent = None;
            for (&partial, &dx) in partials[j * n..(j + 1) * n].iter().zip(dx) {
                if let Some(term) = Node::chain_product(partial.domain(y[j], largest), dx) {
                    Node::add_to(&mut tangent, term);
                }
            }
            tangent.unwrap_or(Node::lit(0.0))
        };
        (0..m).map(tangent).collect()
    })
}

/// The same from (x, w) ↦ Jᵀ·w, whose adjoints of w are J·ẋ.
pub(crate) fn tangent_by_adjoint(function: &Function, vjp: &Function) -> Tape {
    let (n, m) = (function.num_operands(), function.num_results());
    tangent_of_custom(function, |recorder, x, dx, y, largest| {
        let mut operands = x.to_vec();
        operands.resize(n + m, Node::lit(0.0));
        operands.extend(dx);
        let adjoints = Node::call(recorder, &vjp.adjoint(), &operands);
        // Outside the domain whatever is not 0 becomes NaN.
        let moved = dx.iter().map(|dx| dx.abs()).reduce(|sum, dx| sum + dx).unwrap_or(Node::lit(0.0));
        let outside = |j: usize| Node::lit(0.0).domain(y[j], largest).chain_mul(moved);
        (0..m).map(|j| adjoints[n + j] + outside(j)).collect()
    })
}

/// (x, ẋ) ↦ (f(x), what `tangents` makes of x, ẋ, f(x) and the largest operand).
fn tangent_of_custom(
    function: &Function,
    tangents: impl for<'a> Fn(&'a Recorder, &[Node<'a>], &[Node<'a>], &[Node<'a>], Node<'a>) -> Vec<Node<'a>>,
) -> Tape {
    let n = function.num_operands();
    let recorder = Recorder::new(2 * n, 0);
    let inputs: Vec<Node<'_>> = (0..2 * n).map(|i| recorder.node(i as u32)).collect();
    let (x, dx) = inputs.split_at(n);
    let largest = x[1..].iter().fold(x[0], |largest, &x| largest.max(x));
    let y = Node::call(&recorder, function, x);
    let dy = tangents(&recorder, x, dx, &y, largest);
    let outputs = y.into_iter().chain(dy).map(|output| recorder.operand(output)).collect();
    let ends = Ends { outputs, output_letter: "y", num_inputs: 2 * n, input_names: Vec::new() };
    let places = TapeData { locations: vec![SourceLocation::new(Location::caller())], ..TapeData::default() };
    let tape = Tape::new(recorder.list.into_inner().finish(&places, &[], ends), Vec::new());
    Tape { name: function.name().map(Into::into), ..tape }
}

/// What [`Node`]s are written into.
pub(crate) struct Recorder {
    pub list: RefCell<List>,
    /// The location of the rows that are written now.
    location: Cell<u32>,
    /// What they go through.
    pub identities: Cell<Identities>,
}

impl Recorder {
    pub fn new(num_variables: usize, location: u32) -> Recorder {
        Recorder {
            list: RefCell::new(List::new(num_variables)),
            location: Cell::new(location),
            identities: Cell::new(Identities::Apply),
        }
    }

    pub fn node(&self, operand: u32) -> Node<'_> {
        match self.list.borrow().number(operand) {
            Some(c) => Node { recorder: None, term: Term::Constant(c) },
            None => Node { recorder: Some(self), term: Term::Value(operand) },
        }
    }

    pub fn operand(&self, node: Node<'_>) -> u32 {
        match node.term {
            Term::Constant(c) => self.list.borrow_mut().constant(c),
            Term::Value(operand) => operand,
        }
    }
}

/// A [`Rule`] type whose numbers are the rows of a list, or constants.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    /// None for a constant.
    recorder: Option<&'a Recorder>,
    term: Term,
}

#[derive(Debug, Clone, Copy)]
enum Term {
    Constant(f64),
    Value(u32),
}

impl<'a> Node<'a> {
    fn constant(self) -> Option<f64> {
        match self.term {
            Term::Constant(c) => Some(c),
            Term::Value(_) => None,
        }
    }

    fn is_zero(self) -> bool {
        self.constant() == Some(0.0)
    }

    /// x, if this is −x.
    fn negated(self) -> Option<Node<'a>> {
        match (self.term, self.recorder) {
            (Term::Value(operand), Some(recorder)) => {
                let negated = recorder.list.borrow().negated(operand);
                negated.map(|operand| recorder.node(operand))
            }
            _ => None,
        }
    }

    /// The results of an operation on `x`.
    fn results(op: Op, x: &[Node<'a>]) -> Option<SmallVec<[Node<'a>; 2]>> {
        let recorder = x.iter().find_map(|node| node.recorder)?;
        let operands: Operands = x.iter().map(|&node| recorder.operand(node)).collect();
        let (location, identities) = (recorder.location.get(), recorder.identities.get());
        let results = recorder.list.borrow_mut().push(op, operands, location, identities);
        Some(results.into_iter().map(|result| recorder.node(result)).collect())
    }

    /// The results of a function at `x`, of which one at least is no constant.
    fn call(recorder: &'a Recorder, function: &Function, x: &[Node<'a>]) -> Vec<Node<'a>> {
        let operands: Operands = x.iter().map(|&node| recorder.operand(node)).collect();
        let results = recorder.list.borrow_mut().push_call(function, &operands, recorder.location.get());
        results.into_iter().map(|result| recorder.node(result)).collect()
    }

    /// partial·derivative by the chain rule; none if it is 0 whatever the values.
    fn chain_product(partial: Node<'a>, derivative: Node<'a>) -> Option<Node<'a>> {
        if partial.is_zero() || derivative.is_zero() {
            return None;
        }
        // Signs are drawn to the front, where they become differences.
        let product = match (partial.negated(), derivative.negated()) {
            (Some(p), Some(d)) => p.chain_mul(d),
            (Some(p), None) => -p.chain_mul(derivative),
            (None, Some(d)) => -partial.chain_mul(d),
            (None, None) => partial.chain_mul(derivative),
        };
        (!product.is_zero()).then_some(product)
    }

    /// Adds a term to a sum that may have none yet.
    fn add_to(sum: &mut Option<Node<'a>>, term: Node<'a>) {
        *sum = Some(sum.map_or(term, |sum| sum + term));
    }
}

impl From<f64> for Node<'_> {
    fn from(c: f64) -> Self {
        Node { recorder: None, term: Term::Constant(c) }
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.term.fmt(f)
    }
}

impl Rule for Node<'_> {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        match Node::results(O::OP, &x) {
            Some(results) => std::array::from_fn(|result| results[result]),
            None => O::value(x.map(|node| node.constant().unwrap_or(f64::NAN))).map(Node::from),
        }
    }

    fn fold<O: Fold>(x: &[Self]) -> Self {
        match Node::results(O::OP, x) {
            Some(results) => results[0],
            None => O::value(x),
        }
    }

    /// A row has no value: guards are taken over as they are.
    fn confirm(_question: Question, _answer: Answer, _a: Self, _b: Self) -> Result<(), (Answer, f64, f64)> {
        Ok(())
    }
}

rule_operators!(['a] Node<'a>);

/// The derivatives that are not 0, in the order of their directions.
type Directions<'a> = Vec<(u32, Node<'a>)>;

/// The sweeps over the rows of a tape that write down what they compute.
struct Sweep<'a> {
    data: &'a TapeData,
    recorder: &'a Recorder,
    /// The location of what belongs to no row.
    no_row: u32,
    values: Vec<Node<'a>>,
    domains: Domains,
    /// The first function that has no derivative.
    failure: Option<Error>,
}

impl<'a> Sweep<'a> {
    fn new(data: &'a TapeData, recorder: &'a Recorder, values: &[u32]) -> Sweep<'a> {
        let values = values.iter().map(|&operand| recorder.node(operand)).collect();
        Sweep { data, recorder, no_row: recorder.location.get(), values, domains: Domains::default(), failure: None }
    }

    /// What the rules of a row are evaluated at; what they add is at its place.
    fn rules(&mut self, row: usize) -> Rules<'a> {
        let data = self.data;
        self.recorder.location.set(data.rows[row].location());
        let x: SmallVec<[Node<'a>; 4]> =
            data.operands(row).iter().map(|&operand| self.values[operand as usize]).collect();
        let op = data.op(row);
        let guarded = self.domains.of(op, &x);
        let first = data.first_row() + row;
        let v = SmallVec::from_slice(&self.values[first..first + op.info().forms.len()]);
        Rules { op, x, v, guarded, largest: OnceCell::new() }
    }

    /// Whether the tape has grown too large: then the rest is not worth the time.
    fn is_over(&self) -> bool {
        self.recorder.list.borrow().overflows()
    }

    /// The values of the outputs.
    fn outputs(&self) -> Vec<Node<'a>> {
        self.data.outputs.iter().map(|&output| self.values[output as usize]).collect()
    }

    /// The values of the operands of a row; what is added is at its place.
    fn operands(&self, row: usize) -> Vec<Node<'a>> {
        self.recorder.location.set(self.data.rows[row].location());
        self.data.operands(row).iter().map(|&operand| self.values[operand as usize]).collect()
    }

    /// The tangents of the results of a call, direction by direction, by the tangent function.
    fn tangents_of_call(&self, row: usize, function: &Function, tangents: &mut [Directions<'a>]) -> Result<(), Error> {
        let data = self.data;
        let operands = data.operands(row);
        let mut directions: Vec<u32> = operands
            .iter()
            .flat_map(|&operand| tangents[operand as usize].iter().map(|&(direction, _)| direction))
            .collect();
        directions.sort_unstable();
        directions.dedup();
        let tangent = function.tangent()?;
        for direction in directions {
            let mut x = self.operands(row);
            for &operand in operands {
                let of_operand = &tangents[operand as usize];
                let place = of_operand.binary_search_by_key(&direction, |&(direction, _)| direction);
                x.push(place.map_or(Node::lit(0.0), |place| of_operand[place].1));
            }
            let results = Node::call(self.recorder, &tangent.function, &x);
            for (result, &place) in tangent.tangents.iter().enumerate() {
                tangents[data.first_row() + row + result].push((direction, results[place as usize]));
            }
        }
        Ok(())
    }

    /// What a call contributes to its operands, by the function of its adjoints.
    fn adjoints_of_call(&self, row: usize, function: &Function, adjoints: &mut [Option<Node<'a>>]) {
        let data = self.data;
        let first = data.first_row() + row;
        let mut x = self.operands(row);
        x.extend(adjoints[first..first + function.num_results()].iter().map(|a| a.unwrap_or(Node::lit(0.0))));
        let contributions = Node::call(self.recorder, &function.adjoint(), &x);
        for (&operand, contribution) in data.operands(row).iter().zip(contributions) {
            if data.active[operand as usize] {
                Node::add_to(&mut adjoints[operand as usize], contribution);
            }
        }
    }

    /// The tangents of the outputs in `directions` directions, from those of the
    /// inputs: partial·tangent over the operands, in their order.
    fn forward(&mut self, seeds: Vec<Directions<'a>>, directions: usize) -> Vec<Directions<'a>> {
        let data = self.data;
        let mut tangents = vec![Directions::new(); data.num_values()];
        for (i, seed) in seeds.into_iter().enumerate() {
            tangents[data.first_input() + i] = seed;
        }
        let mut sums = vec![None; directions];
        let mut touched = Vec::new();
        for row in data.spans.iter().flat_map(|span| span.clone()) {
            let operands = data.operands(row);
            if operands.iter().all(|&operand| tangents[operand as usize].is_empty()) || self.is_over() {
                continue;
            }
            if let Some(function) = data.function(row) {
                if let Err(error) = self.tangents_of_call(row, function, &mut tangents) {
                    self.failure.get_or_insert(error.called_by(|| data.call_site(row)));
                    break;
                }
                continue;
            }
            let rules = self.rules(row);
            for result in 0..rules.v.len() {
                for (i, &operand) in operands.iter().enumerate() {
                    if tangents[operand as usize].is_empty() {
                        continue;
                    }
                    let partial = rules.partial(result, i);
                    for &(direction, tangent) in &tangents[operand as usize] {
                        if let Some(term) = Node::chain_product(partial, tangent) {
                            touched.extend(sums[direction as usize].is_none().then_some(direction));
                            Node::add_to(&mut sums[direction as usize], term);
                        }
                    }
                }
                touched.sort_unstable();
                let sums = touched.drain(..).filter_map(|d| sums[d as usize].take().map(|sum| (d, sum)));
                tangents[data.first_row() + row + result] = sums.collect();
            }
        }
        data.outputs.iter().map(|&output| tangents[output as usize].clone()).collect()
    }

    /// The adjoints of the inputs, from a weight for each output: the rows
    /// contribute in reverse order, each to its operands in their order.
    fn reverse(&mut self, weights: &[Node<'a>]) -> Vec<Node<'a>> {
        let data = self.data;
        let mut adjoints: Vec<Option<Node<'a>>> = vec![None; data.num_values()];
        for (&output, &weight) in data.outputs.iter().zip(weights).filter(|(_, weight)| !weight.is_zero()) {
            let row = (output as usize).checked_sub(data.first_row());
            self.recorder.location.set(row.map_or(self.no_row, |row| data.rows[row].location()));
            Node::add_to(&mut adjoints[output as usize], weight);
        }
        for row in data.spans.iter().rev().flat_map(|span| span.clone().rev()) {
            let first = data.first_row() + row;
            let results = data.num_results(row);
            if adjoints[first..first + results].iter().all(Option::is_none) || self.is_over() {
                continue;
            }
            if let Some(function) = data.function(row) {
                self.adjoints_of_call(row, function, &mut adjoints);
                continue;
            }
            let rules = self.rules(row);
            for (i, &operand) in data.operands(row).iter().enumerate() {
                if !data.active[operand as usize] {
                    continue;
                }
                let mut contribution = None;
                for result in 0..results {
                    let term = adjoints[first + result]
                        .and_then(|adjoint| Node::chain_product(rules.partial(result, i), adjoint));
                    if let Some(term) = term {
                        Node::add_to(&mut contribution, term);
                    }
                }
                if let Some(contribution) = contribution {
                    Node::add_to(&mut adjoints[operand as usize], contribution);
                }
            }
        }
        adjoints[data.first_input()..data.first_param()].iter().map(|a| a.unwrap_or(Node::lit(0.0))).collect()
    }
}

/// A row whose partials are wanted.
struct Rules<'a> {
    op: Op,
    x: SmallVec<[Node<'a>; 4]>,
    v: SmallVec<[Node<'a>; 2]>,
    /// For each result and operand whether the partial goes through `domain`; empty if none does.
    guarded: Rc<[bool]>,
    /// What is NaN if an operand is.
    largest: OnceCell<Node<'a>>,
}

impl<'a> Rules<'a> {
    fn partial(&self, result: usize, operand: usize) -> Node<'a> {
        let partial = self.op.partial(result, operand, &self.x, &self.v);
        match self.guarded.get(result * self.x.len() + operand) {
            Some(true) => partial.domain(self.v[result], self.largest()),
            _ => partial,
        }
    }

    fn largest(&self) -> Node<'a> {
        *self.largest.get_or_init(|| {
            // No constant is NaN: the operation would not be guarded.
            let mut variables = self.x.iter().copied().filter(|x| x.constant().is_none());
            let first = variables.next().unwrap_or(Node::lit(0.0));
            variables.fold(first, |largest, x| largest.max(x))
        })
    }
}

/// For an operation, with the bits of those of its operands that are constants.
type Pattern = (Op, SmallVec<[Option<u64>; 4]>);

/// Which partials may be numbers outside the domain, as found at the probe points.
#[derive(Default)]
struct Domains(HashMap<Pattern, Rc<[bool]>>);

impl Domains {
    fn of(&mut self, op: Op, x: &[Node<'_>]) -> Rc<[bool]> {
        let constants: SmallVec<[Option<f64>; 4]> = match op.fold_stride() {
            None => x.iter().map(|node| node.constant()).collect(),
            Some(_) => SmallVec::new(),
        };
        let pattern = (op, constants.iter().map(|c| c.map(f64::to_bits)).collect());
        let guarded = self.0.entry(pattern).or_insert_with(|| op.visit(Undefined(&constants)).into());
        Rc::clone(guarded)
    }
}

/// Finds the partials that are numbers at a probe point where the value is NaN
/// though no operand is; the operands that are constants stay as they are.
struct Undefined<'c>(&'c [Option<f64>]);

impl Visitor for Undefined<'_> {
    type Output = Vec<bool>;

    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> Vec<bool> {
        // Besides the points of the table what rounding loses beside 1, as an exponent may.
        const TINY: [f64; 2] = [1e-17, -1e-17];
        if self.0.iter().flatten().any(|c| c.is_nan()) {
            return Vec::new();
        }
        let probes: [SmallVec<[f64; 24]>; N] = std::array::from_fn(|i| match self.0[i] {
            Some(c) => smallvec![c],
            None => O::OP.info().probes[i].iter().chain(&TINY).copied().filter(|x| x.is_finite()).collect(),
        });
        let mut undefined = vec![false; N * M];
        let mut at = [0; N];
        loop {
            let x: [f64; N] = std::array::from_fn(|i| probes[i][at[i]]);
            let v = O::value(x);
            for j in (0..M).filter(|&j| v[j].is_nan()) {
                for i in 0..N {
                    undefined[j * N + i] |= !O::partial(j, i, x, v).is_nan();
                }
            }
            // On to the next point, the last operand the fastest.
            let Some(i) = (0..N).rev().find(|&i| at[i] + 1 < probes[i].len()) else { break };
            at[i] += 1;
            at[i + 1..].fill(0);
        }
        if undefined.contains(&true) { undefined } else { Vec::new() }
    }

    fn fold<O: Fold>(self) -> Vec<bool> {
        Vec::new()
    }

    fn no_operation(self) -> Vec<bool> {
        Vec::new()
    }
}
