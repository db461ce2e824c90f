//! A number type that prints itself: rules evaluated in it give the formulas of
//! traces, graphs and the reference page.
//!
//! Formulas are nodes of an arena, so that they are `Copy` like every number a
//! rule is evaluated in. What is printed is shortened only where the reader
//! expects it: factors 1 and −1 and terms 0 are left out, signs are drawn to
//! the front, `a + (−b)` is `a − b`. Nothing is rearranged otherwise.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::function::Function;
use crate::ops::{self, Fold, Form, Op, Operation, Relation};
use crate::record::{Answer, Question};
use crate::rule::Rule;
use crate::rule_operators;

/// In which script a formula is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Script {
    /// Unicode: `v̇₁ = −sin(v₋₁)·v̇₋₁`.
    #[default]
    Unicode,
    /// ASCII: `dv[1] = -sin(v[-1])*dv[-1]`.
    Ascii,
    /// LaTeX: `\dot{v}_{1} = -\sin\left(v_{-1}\right) \cdot \dot{v}_{-1}`.
    Latex,
}

impl Script {
    /// What stands for what is left out.
    pub(crate) fn dots(self) -> &'static str {
        match self {
            Script::Unicode => "…",
            Script::Ascii => "...",
            Script::Latex => r"\dots",
        }
    }

    /// The sign of a difference.
    pub(crate) fn minus(self) -> &'static str {
        if self == Script::Unicode { "−" } else { "-" }
    }

    /// The sign of a product.
    pub(crate) fn times(self) -> &'static str {
        match self {
            Script::Unicode => "·",
            Script::Ascii => "*",
            Script::Latex => r" \cdot ",
        }
    }
}

/// What stands over a variable's letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accent {
    /// Nothing: the primal value.
    None,
    /// A dot: the tangent.
    Dot,
    /// A bar: the adjoint.
    Bar,
}

/// The printed name of a variable, or a number in its place.
///
/// ```
/// use ad_core::{Accent, Name, Script};
/// let tangent = Name::Indexed("v", Accent::Dot, -1);
/// assert_eq!(tangent.to_string(), "v̇₋₁");
/// assert_eq!(tangent.render(Script::Ascii, 6), "dv[-1]");
/// assert_eq!(tangent.render(Script::Latex, 6), r"\dot{v}_{-1}");
/// assert_eq!(Name::Number(2.0 / 3.0).render(Script::Unicode, 3), "0.667");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Name {
    /// A letter with an index, such as v₋₁ or v̇₂.
    Indexed(&'static str, Accent, i64),
    /// A letter alone, such as y.
    Letter(&'static str, Accent),
    /// A name the user gave.
    Given(String, Accent),
    /// A constant.
    Number(f64),
}

impl Name {
    /// The name in a script; numbers with so many significant digits.
    pub fn render(&self, script: Script, digits: usize) -> String {
        match self {
            Name::Indexed(letter, accent, index) => match script {
                Script::Unicode => format!("{}{}", accented(letter, *accent, script), subscript(*index)),
                Script::Ascii => format!("{}[{index}]", accented(letter, *accent, script)),
                Script::Latex => format!("{}_{{{index}}}", accented(letter, *accent, script)),
            },
            Name::Letter(letter, accent) => accented(letter, *accent, script),
            Name::Given(name, accent) => match script {
                Script::Latex => accented(&format!(r"\mathrm{{{}}}", escape_latex(name)), *accent, script),
                _ => accented(name, *accent, script),
            },
            Name::Number(x) => number(*x, digits, script),
        }
    }
}

impl Name {
    /// The same name with an accent; a number has none.
    pub(crate) fn with_accent(self, accent: Accent) -> Name {
        match self {
            Name::Indexed(letter, _, index) => Name::Indexed(letter, accent, index),
            Name::Letter(letter, _) => Name::Letter(letter, accent),
            Name::Given(name, _) => Name::Given(name, accent),
            Name::Number(x) => Name::Number(x),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Script::Unicode, f.precision().unwrap_or(DIGITS)))
    }
}

fn accented(letter: &str, accent: Accent, script: Script) -> String {
    match (accent, script) {
        (Accent::None, _) => letter.to_owned(),
        (Accent::Dot, Script::Unicode) => format!("{letter}\u{307}"),
        (Accent::Bar, Script::Unicode) => format!("{letter}\u{304}"),
        (Accent::Dot, Script::Ascii) => format!("d{letter}"),
        (Accent::Bar, Script::Ascii) => format!("b{letter}"),
        (Accent::Dot, Script::Latex) => format!(r"\dot{{{letter}}}"),
        (Accent::Bar, Script::Latex) => format!(r"\bar{{{letter}}}"),
    }
}

fn subscript(index: i64) -> String {
    let digit = |c: char| match c {
        '-' => '₋',
        c => char::from_u32('₀' as u32 + (c as u32 - '0' as u32)).unwrap_or(c),
    };
    index.to_string().chars().map(digit).collect()
}

/// Text made safe inside LaTeX.
pub(crate) fn escape_latex(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str(r"\textbackslash{}"),
            '~' => escaped.push_str(r"\textasciitilde{}"),
            '^' => escaped.push_str(r"\textasciicircum{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Significant digits of a printed number, unless the formatter asks for others.
pub(crate) const DIGITS: usize = 6;

/// A number with so many significant digits, trailing zeros left out, with an
/// exponent below 1e-5 and from 1e7 on.
///
/// The digits come from Rust's exact decimal conversion: the same on every machine.
pub(crate) fn number(x: f64, digits: usize, script: Script) -> String {
    let digits = digits.max(1);
    if x.is_nan() {
        return if script == Script::Latex { r"\mathrm{NaN}" } else { "NaN" }.to_owned();
    }
    if x.is_infinite() {
        let size = if script == Script::Latex { r"\infty" } else { "inf" };
        return format!("{}{size}", if x < 0.0 { "-" } else { "" });
    }
    // Both zeros print alike: which one arises is of no interest to a reader,
    // and is the one thing that engines may disagree on.
    if x == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{x:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    if (-5..7).contains(&exponent) {
        let decimals = (digits as i64 - 1 - exponent).max(0) as usize;
        return trim_zeros(&format!("{x:.decimals$}")).to_owned();
    }
    let mantissa = trim_zeros(mantissa);
    match script {
        Script::Latex => format!(r"{mantissa} \cdot 10^{{{exponent}}}"),
        _ => format!("{mantissa}e{exponent}"),
    }
}

fn trim_zeros(decimal: &str) -> &str {
    match decimal.contains('.') {
        true => decimal.trim_end_matches('0').trim_end_matches('.'),
        false => decimal,
    }
}

/// The arena that holds the nodes of [`Formula`]s.
///
/// ```
/// use ad_core::{Formulas, Tape};
/// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
/// let formulas = Formulas::new();
/// let y = tape.eval_with(&[formulas.symbol("a"), formulas.symbol("b")])?;
/// assert_eq!(y[0].to_string(), "cos(a) + a·b − exp(b)");
/// # Ok::<(), ad_core::Error>(())
/// ```
///
/// The formulas of one expression must come from one arena. An operation on
/// formulas of two arenas has no formula in either; it prints as `?`:
///
/// ```
/// use ad_core::Formulas;
/// let (here, there) = (Formulas::new(), Formulas::new());
/// let mixed = here.symbol("a") + there.symbol("b");
/// assert_eq!((mixed * 2.0).to_string(), "?·2");
/// ```
#[derive(Debug, Default)]
pub struct Formulas {
    nodes: RefCell<Vec<Node>>,
}

#[derive(Debug, Clone)]
enum Node {
    Symbol(Name),
    Apply {
        op: Op,
        result: usize,
        operands: SmallVec<[Term; 4]>,
    },
    /// A call of a function; one of its results, if there are several.
    Call {
        call: Arc<Call>,
        result: Option<usize>,
    },
}

/// A function, and its operands in groups: such as values, and tangents.
///
/// The formulas of all its results share it.
#[derive(Debug)]
pub(crate) struct Call {
    name: CallName,
    groups: Vec<Group>,
}

/// Operands of a function: those that are printed, and how many there are.
#[derive(Debug)]
struct Group {
    shown: Vec<Term>,
    count: usize,
}

impl Call {
    pub fn new(name: CallName) -> Call {
        Call { name, groups: Vec::new() }
    }

    /// The call with a further group of operands, of which no more are looked at than are printed.
    #[must_use]
    pub fn with<'a>(mut self, operands: impl ExactSizeIterator<Item = Formula<'a>>) -> Call {
        let count = operands.len();
        self.groups.push(Group { shown: operands.take(SHOWN_OPERANDS).map(|x| x.term).collect(), count });
        self
    }
}

/// What a function is, as [`Function::word`](crate::Function) has it, and its name.
#[derive(Debug, Clone)]
pub(crate) struct CallName {
    pub words: Vec<&'static str>,
    pub name: Name,
}

impl CallName {
    /// The name as it stands before the operands.
    pub fn render(&self, script: Script, digits: usize) -> String {
        let mut text = String::new();
        for &word in &self.words {
            match (word, script) {
                ("Σ", Script::Unicode) => text.push_str("Σ "),
                ("Σ", Script::Ascii) => text.push_str("sum "),
                ("Σ", Script::Latex) => text.push_str(r"\sum "),
                (word, Script::Latex) => text.push_str(&format!(r"\operatorname{{{word}}} ")),
                (word, _) => text.push_str(&format!("{word} ")),
            }
        }
        text + &self.name.render(script, digits)
    }
}

/// An operand inside the arena.
#[derive(Debug, Clone, Copy)]
enum Term {
    Number(f64),
    Node(u32),
}

/// A formula: a [`Rule`] type whose numbers are expressions.
///
/// `Display` prints it in Unicode, the formatter's precision being the
/// significant digits of its numbers. Very long formulas are cut with `…`.
///
/// ```
/// use ad_core::{Formulas, Rule, Script};
/// let formulas = Formulas::new();
/// let (x, y) = (formulas.symbol("x"), formulas.symbol("y"));
/// let f = x.sin() * y - 1.0 / 3.0;
/// assert_eq!(f.to_string(), "sin(x)·y − 0.333333");
/// assert_eq!(format!("{f:.2}"), "sin(x)·y − 0.33");
/// assert_eq!(f.render(Script::Ascii, 2), "sin(x)*y - 0.33");
/// ```
#[derive(Clone, Copy)]
pub struct Formula<'a> {
    arena: Option<&'a Formulas>,
    term: Term,
}

impl Formulas {
    /// An empty arena.
    pub fn new() -> Formulas {
        Formulas::default()
    }

    /// The variable of that name.
    pub fn symbol(&self, name: &str) -> Formula<'_> {
        self.name(Name::Given(name.to_owned(), Accent::None))
    }

    /// The variable, or the number, of that name.
    pub(crate) fn name(&self, name: Name) -> Formula<'_> {
        match name {
            Name::Number(x) => Formula::from(x),
            name => self.node(Node::Symbol(name)),
        }
    }

    /// What stands for an operation on formulas of several arenas.
    fn unknown(&self) -> Formula<'_> {
        self.symbol("?")
    }

    /// An operation exactly as it stands, nothing left out.
    pub(crate) fn verbatim(&self, op: Op, result: usize, operands: &[Formula<'_>]) -> Formula<'_> {
        self.node(Node::Apply { op, result, operands: operands.iter().map(|x| x.term).collect() })
    }

    /// A call of a function; one of its results, if there are several.
    pub(crate) fn call(&self, call: &Arc<Call>, result: Option<usize>) -> Formula<'_> {
        self.node(Node::Call { call: call.clone(), result })
    }

    fn node(&self, node: Node) -> Formula<'_> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        Formula { arena: Some(self), term: Term::Node(nodes.len() as u32 - 1) }
    }
}

impl From<f64> for Formula<'_> {
    fn from(c: f64) -> Self {
        Formula { arena: None, term: Term::Number(c) }
    }
}

/// Where the operands of an operation live.
enum Arena<'a> {
    /// They are numbers all.
    None,
    One(&'a Formulas),
    /// In several arenas, of which this is one.
    Mixed(&'a Formulas),
}

impl<'a> Formula<'a> {
    /// Whether both are the same node of the same arena.
    pub(crate) fn is_same_node(self, other: Formula<'_>) -> bool {
        match (self.term, other.term) {
            (Term::Node(a), Term::Node(b)) => {
                a == b && self.arena.map(std::ptr::from_ref) == other.arena.map(std::ptr::from_ref)
            }
            _ => false,
        }
    }

    /// The arena of an operation on `x`, if all its formulas have the same.
    fn common_arena(x: &[Formula<'a>]) -> Arena<'a> {
        let mut arenas = x.iter().filter_map(|f| f.arena);
        match arenas.next() {
            None => Arena::None,
            Some(arena) if arenas.all(|other| std::ptr::eq(arena, other)) => Arena::One(arena),
            Some(arena) => Arena::Mixed(arena),
        }
    }

    fn number(self) -> Option<f64> {
        match self.term {
            Term::Number(c) => Some(c),
            Term::Node(_) => None,
        }
    }

    /// x, if this is −x; the size of a negative number.
    fn negated(self) -> Option<Formula<'a>> {
        match (self.term, self.arena) {
            (Term::Number(c), _) => (c.is_sign_negative() && c != 0.0).then(|| Formula::from(-c)),
            (Term::Node(id), Some(arena)) => match &arena.nodes.borrow()[id as usize] {
                Node::Apply { op, result, operands } if op.info().forms.get(*result) == Some(&Form::Negation) => {
                    Some(Formula { arena: Some(arena), term: operands[0] })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// ∂result/∂operand of `op` at the operands `x`, as the table states it.
    /// `v` are the results, as [`Formula::results`] gives them.
    pub(crate) fn partial(op: Op, result: usize, operand: usize, x: &[Formula<'a>], v: &[Formula<'a>]) -> Formula<'a> {
        op.partial(result, operand, x, v)
    }

    /// The results of `op` at the operands `x`, each printed as its elementary expression.
    pub(crate) fn results(arena: &'a Formulas, op: Op, x: &[Formula<'a>]) -> SmallVec<[Formula<'a>; 2]> {
        (0..op.info().forms.len()).map(|result| arena.verbatim(op, result, x)).collect()
    }

    /// What a reader would write for this operation.
    fn simplified(form: Form, x: &[Formula<'a>]) -> Option<Formula<'a>> {
        let is = |i: usize, c: f64| x[i].number() == Some(c);
        match form {
            Form::Sum if is(0, 0.0) => Some(x[1]),
            Form::Sum | Form::Difference if is(1, 0.0) => Some(x[0]),
            Form::Sum => x[1].negated().map(|y| x[0] - y),
            Form::Difference if is(0, 0.0) => Some(-x[1]),
            Form::Difference => x[1].negated().map(|y| x[0] + y),
            Form::Product if is(0, 1.0) => Some(x[1]),
            Form::Product | Form::Quotient if is(1, 1.0) => Some(x[0]),
            Form::Product if is(0, 0.0) || is(1, 0.0) => Some(Formula::from(0.0)),
            Form::Product => match (x[0].negated(), x[1].negated()) {
                (Some(a), _) => Some(-(a * x[1])),
                (_, Some(b)) => Some(-(x[0] * b)),
                _ => None,
            },
            Form::Quotient => match (x[0].negated(), x[1].negated()) {
                (Some(a), _) => Some(-(a / x[1])),
                (_, Some(b)) => Some(-(x[0] / b)),
                _ => None,
            },
            Form::Negation => x[0].negated(),
            _ => None,
        }
    }

    /// The formula in a script, numbers with so many significant digits.
    pub fn render(self, script: Script, digits: usize) -> String {
        let mut printer = Printer { nodes: self.arena.map(|arena| arena.nodes.borrow()), script, digits, budget: 2000 };
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = printer.print(self.term, Binding::Sum, 0, &mut text);
        text
    }
}

impl<'a> Rule for Formula<'a> {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let numbers: SmallVec<[f64; 4]> = x.iter().filter_map(|f| f.number()).collect();
        if let Ok(numbers) = <[f64; N]>::try_from(numbers.as_slice()) {
            return O::value(numbers).map(Formula::from);
        }
        let arena = match Formula::common_arena(&x) {
            Arena::One(arena) => arena,
            Arena::Mixed(arena) => return [arena.unknown(); M],
            Arena::None => return [Formula::from(f64::NAN); M],
        };
        std::array::from_fn(|result| {
            let form = O::OP.info().forms[result];
            Formula::simplified(form, &x).unwrap_or_else(|| arena.verbatim(O::OP, result, &x))
        })
    }

    /// A formula has no value to compare: it follows the recorded branches.
    fn confirm(_question: Question, _answer: Answer, _a: Self, _b: Self) -> Result<(), (Answer, f64, f64)> {
        Ok(())
    }

    fn call(function: &Function, x: &[Self]) -> Result<Vec<Self>, Error> {
        let arena = match Formula::common_arena(x) {
            Arena::One(arena) => arena,
            Arena::Mixed(arena) => return Ok(vec![arena.unknown(); function.num_results()]),
            Arena::None => return Ok(vec![Formula::from(f64::NAN); function.num_results()]),
        };
        let results = function.num_results();
        let call = Arc::new(Call::new(function.call_name()).with(x.iter().copied()));
        Ok((0..results).map(|i| arena.call(&call, (results > 1).then_some(i))).collect())
    }

    fn fold<O: Fold>(x: &[Self]) -> Self {
        match Formula::common_arena(x) {
            Arena::One(arena) => arena.verbatim(O::OP, 0, x),
            Arena::Mixed(arena) => arena.unknown(),
            Arena::None => O::value(x),
        }
    }
}

rule_operators!(['a] Formula<'a>);

impl fmt::Display for Formula<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Script::Unicode, f.precision().unwrap_or(DIGITS)))
    }
}

impl fmt::Debug for Formula<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Op {
    /// The printed form of each result, in the names of the operands; two
    /// terms of a fold.
    ///
    /// ```
    /// use ad_core::Op;
    /// assert_eq!(Op::Atan2.formulas(), ["atan2(y, x)"]);
    /// ```
    pub fn formulas(self) -> Vec<String> {
        let arena = Formulas::new();
        let x = self.operand_symbols(&arena);
        Formula::results(&arena, self, &x).iter().map(Formula::to_string).collect()
    }

    /// The printed form of ∂result/∂operand, a list of operands for each
    /// result, as the table states it; the first term of a fold.
    ///
    /// ```
    /// use ad_core::Op;
    /// assert_eq!(Op::Mul.partial_formulas(), [["y", "x"]]);
    /// assert_eq!(Op::Tanh.partial_formulas(), [["sech²(x)"]]);
    /// ```
    pub fn partial_formulas(self) -> Vec<Vec<String>> {
        let arena = Formulas::new();
        let x = self.operand_symbols(&arena);
        let v = Formula::results(&arena, self, &x);
        let partial = |result, operand| Formula::partial(self, result, operand, &x, &v).to_string();
        let operands = self.info().operands.len();
        (0..self.info().forms.len()).map(|j| (0..operands).map(|i| partial(j, i)).collect()).collect()
    }

    fn operand_symbols(self, arena: &Formulas) -> Vec<Formula<'_>> {
        let names = self.info().operands;
        match self.fold_stride() {
            None => names.iter().map(|name| arena.symbol(name)).collect(),
            Some(_) => (1..=2)
                .flat_map(|i| names.iter().map(move |&name| Name::Indexed(name, Accent::None, i)))
                .map(|name| arena.name(name))
                .collect(),
        }
    }

    /// How many operands a term of a fold takes; none if this is no fold.
    pub(crate) fn fold_stride(self) -> Option<usize> {
        struct Stride;
        impl ops::Visitor for Stride {
            type Output = Option<usize>;
            fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) -> Option<usize> {
                None
            }
            fn fold<O: Fold>(self) -> Option<usize> {
                Some(O::STRIDE)
            }
            fn no_operation(self) -> Option<usize> {
                None
            }
        }
        self.visit(Stride)
    }
}

/// How tightly an expression holds together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Sum,
    Product,
    Power,
    Atom,
}

/// What stands for so many things left out.
pub(crate) fn more(count: usize, script: Script) -> String {
    match script {
        Script::Unicode => format!("… {count} more"),
        Script::Ascii => format!("... {count} more"),
        Script::Latex => format!(r"\dots\ \text{{{count} more}}"),
    }
}

/// Operands of a fold that are printed; the others are counted.
pub(crate) const SHOWN_OPERANDS: usize = 8;
/// Formulas nested deeper than this are cut.
const MAX_DEPTH: usize = 60;

struct Printer<'a> {
    nodes: Option<std::cell::Ref<'a, Vec<Node>>>,
    script: Script,
    digits: usize,
    /// How many more nodes may be printed: shared parts could repeat without end.
    budget: usize,
}

impl Printer<'_> {
    fn symbols(&self, unicode: &'static str, ascii: &'static str, latex: &'static str) -> &'static str {
        match self.script {
            Script::Unicode => unicode,
            Script::Ascii => ascii,
            Script::Latex => latex,
        }
    }

    fn get(&self, term: Term) -> Option<&Node> {
        match (term, &self.nodes) {
            (Term::Node(id), Some(nodes)) => nodes.get(id as usize),
            _ => None,
        }
    }

    fn form(&self, term: Term) -> Option<Form> {
        match self.get(term) {
            Some(Node::Apply { op, result, .. }) => op.info().forms.get(*result).copied(),
            _ => None,
        }
    }

    /// Whether it is written with a `/` or a `%`, not as a fraction.
    fn is_inline_quotient(&self, term: Term) -> bool {
        let latex = self.script == Script::Latex;
        match self.form(term) {
            Some(Form::Quotient) => !latex,
            Some(Form::Open(_, template)) if latex => template.contains(r"\bmod"),
            Some(Form::Open(template, _)) => template.contains(['/', '%']),
            _ => false,
        }
    }

    fn binding(&self, term: Term) -> Binding {
        match (term, self.form(term)) {
            (Term::Number(c), _) if c.is_sign_negative() => Binding::Sum,
            (_, Some(Form::Sum | Form::Difference | Form::Negation | Form::Terms(..))) => Binding::Sum,
            (_, Some(Form::Product | Form::Quotient | Form::Open(..))) => Binding::Product,
            (_, Some(Form::Power)) => Binding::Power,
            _ => Binding::Atom,
        }
    }

    /// Prints the term, in parentheses if it binds less than `least`.
    fn print(&mut self, term: Term, least: Binding, depth: usize, out: &mut String) -> fmt::Result {
        if depth > MAX_DEPTH || self.budget == 0 {
            return out.write_str(self.symbols("…", "...", r"\dots"));
        }
        self.budget -= 1;
        let parentheses = self.binding(term) < least;
        if parentheses {
            out.write_str(self.symbols("(", "(", r"\left("))?;
        }
        match (term, self.get(term).cloned()) {
            (Term::Number(c), _) => out.write_str(&number(c, self.digits, self.script))?,
            (_, Some(Node::Symbol(name))) => out.write_str(&name.render(self.script, self.digits))?,
            (_, Some(Node::Apply { op, result, operands })) => {
                self.print_form(op, result, &operands, depth + 1, out)?
            }
            (_, Some(Node::Call { call, result })) => self.print_function(&call, result, depth + 1, out)?,
            (_, None) => out.write_str("?")?,
        }
        if parentheses {
            out.write_str(self.symbols(")", ")", r"\right)"))?;
        }
        Ok(())
    }

    fn print_form(&mut self, op: Op, result: usize, x: &[Term], depth: usize, out: &mut String) -> fmt::Result {
        let infix = |printer: &mut Self, sign: &str, left: Binding, right: Binding, out: &mut String| {
            printer.print(x[0], left, depth, out)?;
            out.write_str(sign)?;
            printer.print(x[1], right, depth, out)
        };
        match op.info().forms[result] {
            Form::Sum => infix(self, " + ", Binding::Sum, Binding::Product, out),
            Form::Difference => infix(self, self.symbols(" − ", " - ", " - "), Binding::Sum, Binding::Product, out),
            Form::Product => {
                // Beside a point a quotient written in a line would leave open what it divides.
                let [left, right] = [x[0], x[1]].map(|factor| match self.is_inline_quotient(factor) {
                    true => Binding::Power,
                    false => Binding::Product,
                });
                infix(self, self.symbols("·", "*", r" \cdot "), left, right, out)
            }
            Form::Quotient if self.script == Script::Latex => self.print_template(r"\frac{@0}{@1}", x, depth, out),
            Form::Quotient => infix(self, "/", Binding::Product, Binding::Power, out),
            Form::Power if self.script == Script::Latex => self.print_template("#0^{@1}", x, depth, out),
            Form::Power => infix(self, "^", Binding::Atom, Binding::Atom, out),
            Form::Negation => {
                out.write_str(self.symbols("−", "-", "-"))?;
                self.print(x[0], Binding::Product, depth, out)
            }
            Form::Call(text, latex) => {
                self.print_call(op, if self.script == Script::Latex { latex } else { text }, x, depth, out)
            }
            Form::Closed(text, latex) | Form::Open(text, latex) | Form::Terms(text, latex) => {
                self.print_template(if self.script == Script::Latex { latex } else { text }, x, depth, out)
            }
            Form::Select(relation) => self.print_select(relation, x, depth, out),
        }
    }

    fn print_call(&mut self, op: Op, name: &str, x: &[Term], depth: usize, out: &mut String) -> fmt::Result {
        let (open, close) = (self.symbols("(", "(", r"\left("), self.symbols(")", ")", r"\right)"));
        write!(out, "{name}{open}")?;
        // A dot product shows its two vectors, each in parentheses.
        let stride = op.fold_stride().unwrap_or(1);
        for vector in 0..stride {
            let members = x.iter().skip(vector).step_by(stride);
            let count = members.len();
            if stride > 1 {
                write!(out, "{}{open}", if vector > 0 { ", " } else { "" })?;
            }
            self.print_list(members, count, depth, out)?;
            if stride > 1 {
                out.write_str(close)?;
            }
        }
        out.write_str(close)
    }

    fn print_function(&mut self, call: &Call, result: Option<usize>, depth: usize, out: &mut String) -> fmt::Result {
        out.write_str(&call.name.render(self.script, self.digits))?;
        out.write_str(self.symbols("(", "(", r"\left("))?;
        for (i, group) in call.groups.iter().enumerate() {
            if i > 0 {
                out.write_str("; ")?;
            }
            self.print_list(group.shown.iter(), group.count, depth, out)?;
        }
        out.write_str(self.symbols(")", ")", r"\right)"))?;
        match (result, self.script) {
            (None, _) => Ok(()),
            (Some(result), Script::Unicode) => out.write_str(&subscript(result as i64 + 1)),
            (Some(result), Script::Ascii) => write!(out, "[{}]", result + 1),
            (Some(result), Script::Latex) => write!(out, "_{{{}}}", result + 1),
        }
    }

    /// So many operands, the ninth and later ones counted.
    fn print_list<'t>(
        &mut self,
        operands: impl Iterator<Item = &'t Term>,
        count: usize,
        depth: usize,
        out: &mut String,
    ) -> fmt::Result {
        for (i, &operand) in operands.take(SHOWN_OPERANDS).enumerate() {
            if i > 0 {
                out.write_str(", ")?;
            }
            self.print(operand, Binding::Sum, depth, out)?;
        }
        if count > SHOWN_OPERANDS {
            write!(out, ", {}", more(count - SHOWN_OPERANDS, self.script))?;
        }
        Ok(())
    }

    fn print_select(&mut self, relation: Relation, x: &[Term], depth: usize, out: &mut String) -> fmt::Result {
        let latex = self.script == Script::Latex;
        let sign = match relation {
            Relation::Lt => "<",
            Relation::Gt => ">",
            Relation::Le => self.symbols("≤", "<=", r"\le"),
            Relation::Ge => self.symbols("≥", ">=", r"\ge"),
            Relation::Eq => self.symbols("=", "==", "="),
            Relation::Ne => self.symbols("≠", "!=", r"\ne"),
        };
        let indicator = match (x[2], x[3]) {
            (Term::Number(1.0), Term::Number(0.0)) => Some(""),
            (Term::Number(0.0), Term::Number(1.0)) => Some(self.symbols("not ", "not ", r"\text{not } ")),
            _ => None,
        };
        out.write_str(match (indicator, latex) {
            (Some(_), true) => r"\left[",
            (Some(_), false) => "[",
            (None, true) => r"\operatorname{select}\left(",
            (None, false) => "select(",
        })?;
        out.write_str(indicator.unwrap_or_default())?;
        self.print(x[0], Binding::Sum, depth, out)?;
        write!(out, " {sign} ")?;
        self.print(x[1], Binding::Sum, depth, out)?;
        if indicator.is_none() {
            for &branch in &x[2..] {
                out.write_str(", ")?;
                self.print(branch, Binding::Sum, depth, out)?;
            }
        }
        out.write_str(match (indicator, latex) {
            (Some(_), true) => r"\right]",
            (Some(_), false) => "]",
            (None, true) => r"\right)",
            (None, false) => ")",
        })
    }

    /// Prints a template of the table: `@i` is operand i, `#i` in parentheses
    /// unless it is an atom.
    fn print_template(&mut self, template: &str, x: &[Term], depth: usize, out: &mut String) -> fmt::Result {
        let mut chars = template.chars().peekable();
        while let Some(c) = chars.next() {
            let operand = match c {
                '@' | '#' => chars.peek().and_then(|d| d.to_digit(10)).and_then(|i| x.get(i as usize)),
                _ => None,
            };
            match (operand, c, self.script) {
                (Some(&operand), ..) => {
                    chars.next();
                    let least = if c == '@' { Binding::Sum } else { Binding::Atom };
                    self.print(operand, least, depth, out)?;
                }
                (None, '²', Script::Ascii) => out.write_str("^2")?,
                (None, '·', Script::Ascii) => out.write_char('*')?,
                (None, '−', Script::Ascii) => out.write_char('-')?,
                (None, '≤', Script::Ascii) => out.write_str("<=")?,
                (None, c, _) => out.write_char(c)?,
            }
        }
        Ok(())
    }
}
