//! Random programs that hold what the engines treat apart: chains, weights,
//! joined rows, folds, rows without inputs, dead rows, guards, and if wanted
//! calls of functions that are random programs as well. Everything is drawn
//! from the number of the program, so a failure repeats.

use ad_core::{Dual, Op, Real, Rule, Tape, Var};

use super::{operation_list, takes_constant};

// Random numbers.

/// SplitMix64: a few lines, and the same numbers everywhere. What was drawn is
/// kept: it can be drawn again, and with other numbers in its place it is
/// another, smaller program.
pub struct Random {
    state: u64,
    /// What was drawn so far, from the first number on.
    drawn: Vec<u64>,
    /// How much of that is drawn again already.
    at: usize,
    /// Whether only zeros follow what was drawn.
    ends: bool,
}

impl Random {
    pub fn new(test: u64, program: usize) -> Random {
        let mut random = Random { state: test << 32 ^ program as u64, drawn: Vec::new(), at: 0, ends: false };
        random.state = random.fresh();
        random
    }

    /// Draws these numbers, and then nothing but zeros.
    pub fn of(drawn: Vec<u64>) -> Random {
        Random { state: 0, drawn, at: 0, ends: true }
    }

    /// The numbers that were drawn.
    pub fn drawn(&self) -> &[u64] {
        &self.drawn[..self.at]
    }

    /// Where it stands, to draw the same again from there.
    pub fn place(&self) -> usize {
        self.at
    }

    pub fn return_to(&mut self, place: usize) {
        self.at = place;
    }

    fn fresh(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below n; 0 is what is simplest.
    fn draw(&mut self, n: u64) -> u64 {
        if self.at == self.drawn.len() {
            let fresh = if self.ends { 0 } else { self.fresh() };
            self.drawn.push(fresh % n);
        }
        self.at += 1;
        self.drawn[self.at - 1] % n
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.draw(n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// In (−3, 3); sometimes a multiple of ½, so that ties occur.
    pub fn ordinary(&mut self) -> f64 {
        if self.chance(12) {
            return self.below(9) as f64 * 0.5 - 2.0;
        }
        // What is simplest is 1.
        (self.draw(1 << 53) as f64 / (1_u64 << 53) as f64 * 6.0 + 4.0) % 6.0 - 3.0
    }

    /// Numbers, of which so many percent are from a list of edges.
    pub fn numbers(&mut self, count: usize, edges: &[f64], percent: usize) -> Vec<f64> {
        (0..count).map(|_| if self.chance(percent) { self.one_of(edges) } else { self.ordinary() }).collect()
    }

    /// A point: an ordinary one, one with a single edge, or one with many.
    pub fn point(&mut self, count: usize) -> Vec<f64> {
        match self.below(6) {
            5 => {
                let mut x = self.numbers(count, &[], 0);
                if count > 0 {
                    let at = self.below(count);
                    x[at] = self.one_of(&EDGES);
                }
                x
            }
            4 => self.numbers(count, &FINITE_EDGES, 40),
            3 => self.numbers(count, &EDGES, 25),
            _ => self.numbers(count, &[], 0),
        }
    }

    /// A seed; seeds are finite.
    pub fn seed(&mut self, count: usize) -> Vec<f64> {
        match self.below(4) {
            3 => self.numbers(count, &FINITE_EDGES, 30),
            _ => self.numbers(count, &[0.0, -0.0, 1.0], 20),
        }
    }
}

/// Zeros, subnormal, tiny and huge numbers.
pub const FINITE_EDGES: [f64; 13] =
    [0.0, -0.0, 1.0, -1.0, 5e-324, -3e-310, 2.2250738585072014e-308, 1e-160, 1e-9, -1e9, 1e160, -1e300, f64::MAX];
/// The same, infinities and NaN.
pub const EDGES: [f64; 9] = [0.0, -0.0, 5e-324, -1e-300, 1e300, -1e160, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];

// Random programs.

macro_rules! define_call {
    (
        operations { $( $Op:ident ($x:ident, $c:ident) => $call:expr; )* }
        folds { $( $Fold:ident ($fx:ident, $fc:ident) => $fold:expr; )* }
    ) => {
        /// An operation of the table; a `Var` records it.
        pub fn call<T: Rule>(op: Op, x: &[T], c: f64) -> Vec<T> {
            match op {
                $(Op::$Op => {
                    let ($x, $c) = (x, c);
                    let _ = ($x, $c);
                    <[T]>::to_vec(&$call)
                })*
                $(Op::$Fold => {
                    let ($fx, $fc) = (x, c);
                    let _ = $fc;
                    let _ = $fx;
                    <[T]>::to_vec(&$fold)
                })*
                other => panic!("{other:?} is missing from the list of operations"),
            }
        }
    };
}
operation_list!(define_call);

/// How many operands are given to [`call`].
pub fn operands_of(op: Op) -> usize {
    op.info().probes.len() - usize::from(takes_constant(op))
}

/// What a program is made for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// One output, as gradients and sums need.
    pub single: bool,
    /// At least one parameter, as samples need.
    pub params: bool,
    /// Percent of the programs that compare.
    pub guarded: usize,
    /// Percent of the programs that call functions.
    pub calls: usize,
}

/// A number type that programs run in: `Var` records them.
pub trait Number: Real {
    fn is_below_zero(self) -> bool;
    fn whole(self) -> Option<i64>;

    /// What a loop over a function computes, unless it calls it: with the body
    /// evaluated again and again.
    fn loop_of(function: &Function, _called: bool, way: Way, initial: &[Self], arguments: &[Vec<Self>]) -> Vec<Self> {
        written_out(&function.flat, initial, arguments, way == Way::Sum)
    }
}

impl Number for f64 {
    fn is_below_zero(self) -> bool {
        f64::is_sign_negative(self) && !f64::is_nan(self)
    }
    fn whole(self) -> Option<i64> {
        num_traits::ToPrimitive::to_i64(&self)
    }
}

impl Number for Dual {
    fn is_below_zero(self) -> bool {
        self.v.is_below_zero()
    }
    fn whole(self) -> Option<i64> {
        self.v.whole()
    }
}

impl Number for Var {
    fn is_below_zero(self) -> bool {
        self.is_sign_negative()
    }
    fn whole(self) -> Option<i64> {
        self.to_i64()
    }
    fn loop_of(function: &Function, called: bool, way: Way, initial: &[Var], arguments: &[Vec<Var>]) -> Vec<Var> {
        match (called, way) {
            (false, _) => written_out(&function.flat, initial, arguments, way == Way::Sum),
            (true, Way::Call) => function.called.call(&arguments[0]),
            (true, Way::Map) => function.called.map(arguments),
            (true, Way::Sum) => function.called.map_sum(arguments),
            (true, Way::Scan) => {
                let (state, outs) = function.called.scan(initial, arguments);
                [state, outs].concat()
            }
        }
    }
}

/// How a function is called: once, over many arguments, or along a recurrence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Call,
    Map,
    Sum,
    Scan,
}

/// A random program, recorded.
pub struct Program {
    pub tape: Tape,
    /// Where it was recorded, so that its guards hold there.
    pub x0: Vec<f64>,
    pub k0: Vec<f64>,
    functions: Functions,
    shape: Shape,
    /// What its steps were drawn from.
    steps: Vec<u64>,
}

/// What a program has besides its steps.
#[derive(Clone, Copy)]
struct Shape {
    /// How many of the inputs may be read again and again; the others are weights.
    shared: usize,
    outputs: usize,
    guarded: bool,
}

impl Program {
    pub fn new(random: &mut Random, purpose: Purpose) -> Program {
        let mut functions = Functions { called: true, ..Functions::default() };
        if random.chance(purpose.calls) {
            for number in 0..1 + random.below(5) {
                let function = Function::new(random, purpose.guarded, &functions);
                functions.list.push(if number % 2 == 0 { function } else { function.named("f") });
            }
        }
        let shared = 1 + random.below(4);
        let weights = if random.chance(50) { 4 + random.below(12) } else { 0 };
        let params = usize::from(purpose.params) + random.below(4);
        let outputs = if purpose.single || !random.chance(65) { 1 } else { 2 + random.below(4) };
        let shape = Shape { shared, outputs, guarded: random.chance(purpose.guarded) };
        let (x0, k0) = (random.numbers(shared + weights, &[], 0), random.numbers(params, &[], 0));
        let start = random.place();
        let record = |x: &[Var], k: &[Var]| shape.run(random, &functions, x, k);
        let tape = Tape::builder().inputs(&[], &x0).params(&[], &k0).record(record).unwrap();
        tape.check().unwrap();
        let steps = random.drawn()[start..].to_vec();
        Program { tape, x0, k0, functions, shape, steps }
    }

    /// What it computes, called as plain code. Away from where it was recorded
    /// this is the same program unless functions with guards make it another.
    pub fn run<T: Number>(&self, x: &[T], k: &[T]) -> Vec<T> {
        let functions = Functions { list: self.functions.list.clone(), called: false };
        self.shape.run(&mut Random::of(self.steps.clone()), &functions, x, k)
    }

    /// Recorded again, with the functions written out.
    pub fn record(&self, x: &[f64], k: &[f64]) -> Tape {
        let tape = Tape::builder().inputs(&[], x).params(&[], k).record(|x, k| self.run(x, k)).unwrap();
        tape.check().unwrap();
        tape
    }
}

impl Shape {
    fn run<T: Number>(self, random: &mut Random, functions: &Functions, x: &[T], k: &[T]) -> Vec<T> {
        let Shape { shared, outputs, guarded } = self;
        let (values, weights) = ([&x[..shared], k].concat(), x[shared..].to_vec());
        let mut recorder = Recorder { random, values, shared, weights, inputs: x, params: k, guarded, functions };
        // Asked before each step, so that a program can lose one from its middle.
        for step in 0..16 {
            if step > 0 && !recorder.random.chance(78) {
                break;
            }
            recorder.step();
        }
        recorder.outputs(outputs)
    }
}

/// A function for programs to call: a random program, which may call others.
#[derive(Clone)]
pub struct Function {
    /// It with its calls, and with all of them written out.
    called: Tape,
    flat: Tape,
    depth: usize,
}

/// The functions that a program may call, and whether it calls them or has them written out.
#[derive(Default)]
struct Functions {
    list: Vec<Function>,
    called: bool,
}

impl Function {
    /// A small program that may call those of the functions that are not nested too deep.
    fn new(random: &mut Random, guarded: usize, functions: &Functions) -> Function {
        let inner: Vec<Function> = functions.list.iter().filter(|function| function.depth < 2).cloned().collect();
        let nests = !inner.is_empty() && random.chance(50);
        let depth = if nests { 1 + inner.iter().map(|function| function.depth).max().unwrap_or(0) } else { 0 };
        let list = if nests { inner } else { Vec::new() };
        let (inputs, params, outputs) = (1 + random.below(4), random.below(2), 1 + random.below(4));
        let guarded = random.chance(guarded);
        let (x0, k0) = (random.numbers(inputs, &[], 0), random.numbers(params, &[], 0));
        let (steps, tame) = (1 + random.below(4), random.chance(60));
        let start = random.place();
        let mut record = |called: bool| {
            random.return_to(start);
            let functions = &Functions { list: list.clone(), called };
            let record = |x: &[Var], k: &[Var]| {
                let values = [x, k].concat();
                let weights = Vec::new();
                let mut recorder =
                    Recorder { random, values, shared: inputs, weights, inputs: x, params: k, guarded, functions };
                (0..steps).for_each(|_| recorder.step());
                let outputs = recorder.outputs(outputs);
                // What grows at each step of a recurrence soon is infinite.
                if tame { outputs.into_iter().map(Var::tanh).collect() } else { outputs }
            };
            Tape::builder().inputs(&[], &x0).params(&[], &k0).record(record).unwrap()
        };
        let (called, flat) = (record(true), record(false));
        called.check().unwrap();
        Function { called, flat, depth }
    }

    fn named(self, name: &str) -> Function {
        Function { called: self.called.named(name), ..self }
    }
}

/// A program that runs.
struct Recorder<'a, T> {
    random: &'a mut Random,
    /// What operands are drawn from: so many inputs, parameters, and what was computed.
    values: Vec<T>,
    shared: usize,
    /// Inputs that nothing has read yet.
    weights: Vec<T>,
    inputs: &'a [T],
    params: &'a [T],
    guarded: bool,
    functions: &'a Functions,
}

impl<T: Number> Recorder<'_, T> {
    fn constant(&mut self) -> T {
        let ordinary = self.random.ordinary();
        T::from(self.random.one_of(&[2.0, -0.5, 1.0, 0.0, -0.0, ordinary, ordinary]))
    }

    /// A value without inputs.
    fn passive(&mut self) -> T {
        if self.params.is_empty() || self.random.chance(30) { self.constant() } else { self.random.one_of(self.params) }
    }

    /// Any value, late ones most often.
    fn any(&mut self) -> T {
        match self.random.below(10) {
            0..=4 => self.random.one_of(&self.values[self.values.len().saturating_sub(5)..]),
            5..=8 => self.random.one_of(&self.values),
            _ => self.passive(),
        }
    }

    /// A row or a parameter, if there is one.
    fn row(&mut self) -> T {
        match self.values.get(self.shared..) {
            None | Some([]) => self.any(),
            Some(rows) => self.random.one_of(rows),
        }
    }

    fn some(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| self.any()).collect()
    }

    /// An input that nothing else reads, as long as there are some.
    fn weight(&mut self) -> T {
        self.weights.pop().unwrap_or_else(|| self.any())
    }

    fn step(&mut self) {
        let before = self.values.len();
        if self.guarded && self.random.chance(35) {
            return self.comparison();
        }
        if !self.functions.list.is_empty() && self.random.chance(30) {
            self.call_function();
            if self.random.chance(6) {
                self.values.truncate(before);
            }
            return;
        }
        match self.random.below(17) {
            0 | 1 => self.arithmetic(),
            2..=4 => self.operation(),
            5..=7 => self.chain(),
            8 => self.sum_of_products(),
            9 => self.fold(),
            10 => self.layer(),
            11 | 12 => self.pair(),
            13 => self.both_results(),
            14 | 15 => self.loop_over_slices(),
            _ => self.without_inputs(),
        }
        // Now and then nothing reads what was computed.
        if self.random.chance(6) {
            self.values.truncate(before);
        }
    }

    fn arithmetic(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            let (a, b) = (self.any(), self.any());
            let result = match self.random.below(7) {
                0 | 1 => a + b,
                2 => a - b,
                3 | 4 => a * b,
                5 => a / b,
                _ => a * a,
            };
            self.values.push(result);
        }
    }

    fn operation(&mut self) {
        let op = self.random.one_of(Op::ALL);
        let c = self.random.one_of(&[2.0, 3.0, -1.0, 0.0, 1.0, 0.5, -2.0]);
        let operands = self.some(operands_of(op));
        self.values.extend(call(op, &operands, c));
    }

    /// A loop that adds products.
    fn chain(&mut self) {
        let terms = 1 + self.random.below(12);
        let (style, turned, swapped) = (self.random.below(7), self.random.chance(50), self.random.chance(50));
        // Operands that the chain, or this one and another, read several times.
        let shared = self.some(3);
        let initial = match self.random.below(6) {
            0 => self.passive(),
            1 => self.any() * self.any(),
            2 => self.weight(),
            3 => shared[0],
            _ => self.any(),
        };
        let mut sum = initial;
        for term in 0..terms {
            let (w, x) = match style {
                // Weights, each read once, times rows, parameters or constants.
                0 | 1 => (self.weight(), self.row()),
                2 => (self.weight(), self.passive()),
                3 => (self.passive(), self.any()),
                // The same operands again and again, squares among them.
                4 => (self.random.one_of(&shared), self.random.one_of(&shared)),
                5 => (self.random.one_of(&shared), initial),
                _ => (self.any(), self.any()),
            };
            let turned = turned ^ self.random.chance(2);
            let product = if turned { x * w } else { w * x };
            let swapped = swapped ^ self.random.chance(4);
            sum = match self.random.below(60) {
                0 => sum - product,
                1 => product - sum,
                _ if swapped => product + sum,
                _ => sum + product,
            };
            // Now and then something else reads it midway.
            if self.random.below(40) == 0 && term + 1 < terms {
                self.values.push(sum);
            }
        }
        self.values.push(sum);
        if self.random.chance(40) {
            self.values.push(sum.tanh());
        }
    }

    /// A loop whose operands lie at equal distances, as in a factorisation: each
    /// is one value for all rows, or a slice of earlier values, or of what the
    /// loop itself computes; slices may overlap.
    fn loop_over_slices(&mut self) {
        let rows = 2 + self.random.below(10);
        let start = self.values.len();
        let operand = |recorder: &mut Self| {
            let first = match recorder.random.below(4) {
                0 => start.saturating_sub(1 + recorder.random.below(3)),
                _ => recorder.random.below(start),
            };
            let distance = recorder.random.one_of(&[0, 1, 1, 1, 2]);
            move |values: &[T], row: usize| values[(first + distance * row).min(values.len() - 1)]
        };
        let [a, b, c] = [0, 1, 2].map(|_| operand(self));
        let constant = self.random.chance(10).then(|| self.passive());
        let style = self.random.below(11);
        for row in 0..rows {
            let (a, b) = (a(&self.values, row), b(&self.values, row));
            let (a, c) = (constant.unwrap_or(a), c(&self.values, row));
            let result = match style {
                0..=2 => c - a * b,
                3 => a * b + c,
                4 => c + a * b,
                5 => a * b - c,
                6 => a * b,
                7 => a * b * c,
                8 => a + b,
                9 => a - b,
                _ => a / b,
            };
            self.values.push(result);
        }
        // What nothing reads is no part of a program.
        if self.random.chance(70) {
            let all = T::sum_of(&self.values[start..]);
            self.values.push(all);
        }
    }

    /// A sum of products that stand just above it, with the odd one among them.
    fn sum_of_products(&mut self) {
        let style = self.random.below(4);
        let terms: Vec<T> = (0..1 + self.random.below(7))
            .map(|_| match style {
                0 => self.weight() * self.any(),
                1 => self.any() * self.weight(),
                2 if self.random.chance(15) => self.any() / self.any(),
                _ => self.any() * self.any(),
            })
            .collect();
        let sum = if self.random.chance(50) { terms.iter().sum::<T>() } else { T::sum_of(&terms) };
        if self.random.chance(20) {
            self.values.push(self.random.one_of(&terms));
        }
        if self.random.chance(20) {
            self.values.push(terms.iter().sum::<T>());
        }
        self.values.push(sum);
    }

    fn fold(&mut self) {
        let terms = 1 + self.random.below(6);
        let (a, b) = (self.some(terms), self.some(terms));
        let sum = if self.random.chance(50) { T::sum_of(&a) } else { T::dot(&a, &b) };
        self.values.push(sum);
    }

    /// A matrix times a vector, plus a vector, and a function of each entry.
    fn layer(&mut self) {
        let width = 1 + self.random.below(4);
        let x = self.some(width);
        let (style, activation) = (self.random.below(3), self.random.below(4));
        for _ in 0..1 + self.random.below(3) {
            let w: Vec<T> = (0..width).map(|_| if style < 2 { self.weight() } else { self.passive() }).collect();
            let bias = self.any();
            let sum = match style {
                0 => w.iter().zip(&x).fold(bias, |sum, (&w, &x)| sum + w * x),
                1 => w.iter().zip(&x).map(|(&w, &x)| x * w).sum::<T>() + bias,
                _ => T::dot(&w, &x) + bias,
            };
            self.values.push(match activation {
                0 => sum.tanh(),
                1 => sum.logistic(),
                2 => sum.relu(),
                _ => sum.softplus(),
            });
        }
    }

    /// Two rows that become one: a product, and what it is added to or subtracted from.
    fn pair(&mut self) {
        let (a, b) = (self.any(), self.any());
        let c = if self.random.chance(30) { self.passive() } else { self.any() };
        let product = a * b;
        self.values.push(match self.random.below(5) {
            0 => product + c,
            1 => c + product,
            2 => product - c,
            3 => c - product,
            _ => product + product,
        });
        if self.random.chance(20) {
            self.values.push(product);
        }
    }

    fn both_results(&mut self) {
        let (sine, cosine) = self.any().sin_cos();
        match self.random.below(4) {
            0 => self.values.push(sine),
            1 => self.values.push(cosine),
            2 => self.values.push(sine * cosine),
            _ => self.values.extend([sine, cosine]),
        }
    }

    fn without_inputs(&mut self) {
        let op = self.random.one_of(Op::ALL);
        let operands: Vec<T> = (0..operands_of(op)).map(|_| self.passive()).collect();
        self.values.extend(call(op, &operands, 2.0));
    }

    /// Calls a function once, over many arguments, or along a recurrence.
    fn call_function(&mut self) {
        let functions = self.functions;
        let function = &functions.list[self.random.below(functions.list.len())];
        let (n, m) = (function.called.num_inputs(), function.called.num_outputs());
        let way = self.random.one_of(&[Way::Call, Way::Call, Way::Map, Way::Sum, Way::Scan, Way::Scan]);
        let carried = if way == Way::Scan { 1 + self.random.below(n.min(m)) } else { 0 };
        let count = match way {
            Way::Call => 1,
            Way::Map => self.random.one_of(&[1, 2, 3, 5, 8]),
            Way::Sum | Way::Scan => self.random.one_of(&[1, 2, 3, 5, 8, 13, 40]),
        };
        let initial = self.some(carried);
        let mut arguments = self.arguments(n - carried, count);
        if !function.flat.guards().is_empty() {
            let iterations = iterations_on_branch(function, &initial, &arguments);
            arguments.truncate(iterations);
            if iterations == 0 {
                return self.arithmetic();
            }
        }
        let results = T::loop_of(function, functions.called, way, &initial, &arguments);
        self.values.extend(results);
    }

    /// Arguments of so many numbers each: slices of the values at equal distances,
    /// the same again and again, or any numbers.
    fn arguments(&mut self, width: usize, count: usize) -> Vec<Vec<T>> {
        let len = self.values.len();
        let (first, step) = (self.random.below(len), self.random.one_of(&[1, 1, 0, 2, len - 1]));
        let distance = self.random.one_of(&[0, 1, 1, width, len - 1, 2]);
        match self.random.below(5) {
            0..=2 => {
                let at = |item: usize, i: usize| self.values[(first + distance * item + step * i) % len];
                (0..count).map(|item| (0..width).map(|i| at(item, i)).collect()).collect()
            }
            // A constant and a parameter among variables.
            3 => {
                let mut argument = self.some(width);
                if width > 0 {
                    let at = self.random.below(width);
                    argument[at] = self.passive();
                }
                vec![argument; count]
            }
            _ => (0..count).map(|_| self.some(width)).collect(),
        }
    }

    fn comparison(&mut self) {
        let last = self.values[self.values.len() - 1];
        let a = if self.random.chance(50) { last } else { self.any() };
        let (b, c) = (self.any(), self.constant());
        let result = match self.random.below(7) {
            0 if a > b => a * 2.0,
            1 if a <= c => a,
            2 if a == b => a + 1.0,
            3 if a.is_finite() => a,
            4 if a.is_below_zero() => -a,
            5 => match a.partial_cmp(&b) {
                Some(std::cmp::Ordering::Less) => a,
                Some(_) => b * 0.5,
                None => c,
            },
            6 => a * a.whole().map_or(1.5, |whole| (whole % 8) as f64),
            _ => b - c,
        };
        self.values.push(result);
    }

    fn outputs(&mut self, count: usize) -> Vec<T> {
        let mut outputs: Vec<T> = Vec::new();
        for _ in 0..count {
            let output = match self.random.below(20) {
                0 => self.passive(),
                1 => self.random.one_of(self.inputs),
                // What else the program computes matters to its guards alone.
                2 | 3 if self.guarded => self.inputs[self.inputs.len() - 1],
                2..=5 => self.random.one_of(&self.values),
                6 if !outputs.is_empty() => outputs[0],
                _ => self.random.one_of(&self.values[self.values.len().saturating_sub(4)..]),
            };
            outputs.push(output);
        }
        outputs
    }
}

/// How many iterations of a loop keep to the branches of its body.
fn iterations_on_branch<T: Number>(function: &Function, initial: &[T], arguments: &[Vec<T>]) -> usize {
    let mut state: Vec<f64> = initial.iter().map(|x| x.value()).collect();
    let on_branch = |argument: &&Vec<T>| {
        let x: Vec<f64> = state.iter().copied().chain(argument.iter().map(|x| x.value())).collect();
        match function.flat.eval(&x) {
            Ok(values) => {
                let carried = state.len();
                state.copy_from_slice(&values[..carried]);
                true
            }
            Err(_) => false,
        }
    };
    arguments.iter().take_while(on_branch).count()
}

/// What a loop computes, with its body recorded again and again.
fn written_out<T: Number>(body: &Tape, initial: &[T], arguments: &[Vec<T>], summed: bool) -> Vec<T> {
    let (mut state, mut outs) = (initial.to_vec(), Vec::new());
    let carried = state.len();
    for (iteration, argument) in arguments.iter().enumerate() {
        let values = body.eval_with(&[&state[..], argument].concat()).unwrap();
        state.copy_from_slice(&values[..carried]);
        let further = &values[carried..];
        if summed && iteration > 0 {
            outs.iter_mut().zip(further).for_each(|(sum, &value): (&mut T, _)| *sum += value);
        } else {
            outs.extend_from_slice(further);
        }
    }
    [state, outs].concat()
}
