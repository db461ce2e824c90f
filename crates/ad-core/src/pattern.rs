//! Which derivatives of a tape can differ from 0, found without any number.
//!
//! The rules of the table are evaluated in number types that have no values: a
//! [`Constant`] tells whether a partial is identically 0, a [`Dependence`] by
//! which operands a partial changes. So no operation is named here, and one that
//! is added to the table has its pattern.
//!
//! A pattern then comes from sweeps in which each value is a word of 64 bits:
//! forward, one bit for each of 64 inputs, which the value depends on; or back,
//! one for each of 64 outputs, which depend on it. A sweep visits only what its
//! inputs or outputs reach, so that a banded Jacobian takes about as long as the
//! list; and it never takes longer than the list, a word a value of memory, so
//! that nothing grows where everything depends on everything.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;
use crate::function::{Function, Given, Loop, Taken};
use crate::ops::{Fold, Op, Operation, Visitor};
use crate::record::{Answer, Question};
use crate::rule::Rule;
use crate::rule_operators;
use crate::sparse::Sparsity;
use crate::tape::{Tape, TapeData};

/// A number of which only this is known: its value, if the rule states it.
#[derive(Debug, Clone, Copy)]
struct Constant(Option<f64>);

impl Constant {
    const UNKNOWN: Constant = Constant(None);

    fn is_zero(self) -> bool {
        self.0 == Some(0.0)
    }

    /// The results of an operation, which are known if all operands are.
    fn results<O: Operation<N, M>, const N: usize, const M: usize>(x: [Constant; N]) -> [Constant; M] {
        let mut values = [0.0; N];
        for (value, x) in values.iter_mut().zip(x) {
            match x.0 {
                Some(constant) => *value = constant,
                None => return [Constant::UNKNOWN; M],
            }
        }
        O::value(values).map(Constant::from)
    }
}

impl From<f64> for Constant {
    fn from(c: f64) -> Constant {
        Constant(Some(c))
    }
}

impl Rule for Constant {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Constant; N]) -> [Constant; M] {
        Constant::results::<O, N, M>(x)
    }

    fn confirm(_: Question, _: Answer, _: Constant, _: Constant) -> Result<(), (Answer, f64, f64)> {
        Ok(())
    }
}

rule_operators!([] Constant);

/// A number of which only this is known: its value, if the rule states it, and
/// which operands of the row it changes with, bit i for operand i.
#[derive(Debug, Clone, Copy)]
struct Dependence {
    constant: Constant,
    on: u32,
}

impl Dependence {
    /// Operand i of a row; one that no input changes depends on nothing.
    fn operand(i: usize, active: bool) -> Dependence {
        Dependence { constant: Constant::UNKNOWN, on: if active { 1 << i } else { 0 } }
    }
}

impl From<f64> for Dependence {
    fn from(c: f64) -> Dependence {
        Dependence { constant: Constant::from(c), on: 0 }
    }
}

impl Rule for Dependence {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Dependence; N]) -> [Dependence; M] {
        let constants = x.map(|x| x.constant);
        let results = Constant::results::<O, N, M>(constants);
        let mut dependences = results.map(|constant| Dependence { constant, on: 0 });
        for (j, result) in dependences.iter_mut().enumerate() {
            for (i, operand) in x.iter().enumerate().filter(|(_, operand)| operand.on != 0) {
                if !O::partial(j, i, constants, results).is_zero() {
                    result.on |= operand.on;
                }
            }
        }
        dependences
    }

    fn confirm(_: Question, _: Answer, _: Dependence, _: Dependence) -> Result<(), (Answer, f64, f64)> {
        Ok(())
    }
}

rule_operators!([] Dependence);

/// Whether the table's probes show an operation that is NaN though no operand
/// is. By the strict rule its partials are NaN then, also those that are 0 elsewhere.
fn leaves_domain<O: Operation<N, M>, const N: usize, const M: usize>() -> bool {
    let probes = O::OP.info().probes;
    let points: usize = probes.iter().map(|list| list.len()).product();
    (0..points).any(|mut point| {
        let mut x = [0.0; N];
        for (x, list) in x.iter_mut().zip(probes) {
            *x = list[point % list.len()];
            point /= list.len();
        }
        !x.iter().any(|x| x.is_nan()) && O::value(x).iter().any(|v| v.is_nan())
    })
}

/// What the table says of the partials of one row.
#[derive(Debug, Default)]
struct Structure {
    /// What [`leaves_domain`] says of the operations with partials that are 0, as far as it was asked.
    leaves_domain: HashMap<Op, bool>,
    /// A result and a value that it depends on.
    depends: Vec<(usize, u32)>,
    /// A result and two operands by which it has a second derivative.
    interacts: Vec<(usize, [u32; 2])>,
}

/// Fills in the structure of a row.
struct StructureOf<'a> {
    operands: &'a [u32],
    active: &'a [bool],
    structure: &'a mut Structure,
}

impl StructureOf<'_> {
    fn operand(&self, i: usize, at: usize) -> Dependence {
        Dependence::operand(i, self.active[self.operands[at] as usize])
    }
}

impl Visitor for StructureOf<'_> {
    type Output = ();

    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(self) {
        let x: [Dependence; N] = std::array::from_fn(|i| self.operand(i, i));
        let v = Dependence::apply::<O, N, M>(x);
        let active = x.iter().fold(0, |all, x| all | x.on);
        for (j, result) in v.iter().enumerate() {
            let mut leaves = || *self.structure.leaves_domain.entry(O::OP).or_insert_with(leaves_domain::<O, N, M>);
            let counted = if result.on != active && leaves() { active } else { result.on };
            self.structure.depends.extend(positions(counted.into()).map(|i| (j, self.operands[i])));
            for i in positions(result.on.into()) {
                let other = |k: usize| (j, [self.operands[i], self.operands[k]]);
                self.structure.interacts.extend(positions(O::partial(j, i, x, v).on.into()).map(other));
            }
        }
    }

    fn fold<O: Fold>(self) {
        for first in (0..self.operands.len()).step_by(O::STRIDE) {
            let x: smallvec::SmallVec<[Dependence; 4]> = (0..O::STRIDE).map(|i| self.operand(i, first + i)).collect();
            let constants: smallvec::SmallVec<[Constant; 4]> = x.iter().map(|x| x.constant).collect();
            for i in (0..O::STRIDE).filter(|&i| x[i].on != 0) {
                if !O::term_partial(i, &constants).is_zero() {
                    self.structure.depends.push((0, self.operands[first + i]));
                    let other = |k: usize| (0, [self.operands[first + i], self.operands[first + k]]);
                    self.structure.interacts.extend(positions(O::term_partial(i, &x).on.into()).map(other));
                }
            }
        }
    }

    fn no_operation(self) {}
}

impl Structure {
    /// The structure of row `row`, in the memory of the row before.
    fn read(&mut self, data: &TapeData, row: usize) {
        self.depends.clear();
        self.interacts.clear();
        if data.active[data.first_row() + row] {
            data.op(row).visit(StructureOf { operands: data.operands(row), active: &data.active, structure: self });
        }
    }
}

/// Lists of values, one list for each value.
#[derive(Debug, Default)]
struct Lists {
    /// Where each list ends.
    ends: Vec<usize>,
    items: Vec<u32>,
}

impl Lists {
    fn of(&self, i: usize) -> &[u32] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.items[start..self.ends[i]]
    }

    /// The lists of `count` values with the second of each pair in the list of the first.
    fn from_pairs(count: usize, pairs: impl Iterator<Item = [u32; 2]> + Clone) -> Lists {
        let mut ends = vec![0; count];
        pairs.clone().for_each(|[of, _]| ends[of as usize] += 1);
        let mut total = 0;
        for end in &mut ends {
            // For now where the list starts; each item moves it on, to its end at last.
            total += std::mem::replace(end, total);
        }
        let mut items = vec![0; total];
        for [of, item] in pairs {
            items[ends[of as usize]] = item;
            ends[of as usize] += 1;
        }
        Lists { ends, items }
    }
}

/// The patterns of the bodies of loops, each found once.
struct Bodies {
    jacobians: HashMap<*const TapeData, Arc<Sparsity>>,
    /// For the outputs whose second derivatives count.
    hessians: HashMap<*const TapeData, HashMap<Vec<bool>, Arc<Sparsity>>>,
    /// The most nonzeros there may be.
    most: usize,
}

impl Bodies {
    /// For more different sets of outputs of one body all of them count.
    const SETS: usize = 16;

    fn new(most: usize) -> Bodies {
        Bodies { jacobians: HashMap::new(), hessians: HashMap::new(), most }
    }

    fn jacobian(&mut self, body: &Tape) -> Result<Arc<Sparsity>, Error> {
        let key = Arc::as_ptr(&body.data);
        if let Some(pattern) = self.jacobians.get(&key) {
            return Ok(pattern.clone());
        }
        let pattern = Arc::new(jacobian(&Graph::new(&body.data, None, self)?, self.most)?);
        self.jacobians.insert(key, pattern.clone());
        Ok(pattern)
    }

    fn hessian(&mut self, body: &Tape, outputs: &[bool]) -> Result<Arc<Sparsity>, Error> {
        let key = Arc::as_ptr(&body.data);
        let known = self.hessians.entry(key).or_default();
        let outputs = match known.contains_key(outputs) || known.len() < Bodies::SETS {
            true => outputs.to_vec(),
            false => vec![true; outputs.len()],
        };
        if let Some(pattern) = known.get(&outputs) {
            return Ok(pattern.clone());
        }
        let pattern = Arc::new(hessian(&Graph::new(&body.data, Some(&outputs), self)?, self.most)?);
        self.hessians.entry(key).or_default().insert(outputs, pattern.clone());
        Ok(pattern)
    }

    /// For each iteration which outputs of the body, and which operands of the
    /// loop, reach results that are `live`.
    fn alive(&mut self, rolled: &Loop, operands: usize, live: &[bool]) -> Result<(Vec<bool>, Vec<bool>), Error> {
        let pattern = self.jacobian(&rolled.body)?;
        let m = rolled.body.num_outputs();
        if rolled.count.saturating_mul(m) > Graph::MOST {
            return Err(Error::TooManyNonzeros { limit: Graph::MOST });
        }
        let carried = rolled.initial().len();
        let mut of_operands = vec![false; operands];
        let mut of_outputs = vec![false; rolled.count * m];
        let (mut carry, mut before) = (live[..carried].to_vec(), vec![false; carried]);
        for iteration in (0..rolled.count).rev() {
            before.fill(false);
            for output in 0..m {
                let alive = match rolled.given(output, iteration) {
                    Given::Carry(place) => carry[place],
                    Given::Result(result) => live[result],
                };
                of_outputs[iteration * m + output] = alive;
                for &input in pattern.row(output).iter().filter(|_| alive) {
                    match rolled.taken(input, iteration) {
                        Taken::Carry(place) => before[place] = true,
                        Taken::Operand(operand) => of_operands[operand] = true,
                    }
                }
            }
            std::mem::swap(&mut carry, &mut before);
        }
        for (&operand, alive) in rolled.initial().iter().zip(carry) {
            of_operands[operand as usize] |= alive;
        }
        Ok((of_outputs, of_operands))
    }

    /// Which operands of a function reach results that are `live`.
    fn live_operands(&mut self, function: &Function, live: &[bool]) -> Result<Vec<bool>, Error> {
        if let Some(rolled) = function.as_loop() {
            return Ok(self.alive(rolled, function.num_operands(), live)?.1);
        }
        if function.iterations() > Graph::MOST {
            return Err(Error::TooManyNonzeros { limit: Graph::MOST });
        }
        let mut operands = vec![false; function.num_operands()];
        for block in function.blocks() {
            if block.results.iter().any(|&result| live[result as usize]) {
                block.operands.iter().for_each(|&operand| operands[operand as usize] = true);
            }
        }
        Ok(operands)
    }
}

/// What depends on what: a node for each input, and for each value that depends
/// on several nodes. A value that depends on one node alone has that one stand for
/// it; those that reach no output are left out.
///
/// The calls of loops are written out, with nodes for what is carried from
/// iteration to iteration: not the rows of the body, but its pattern each time.
struct Graph<'a> {
    data: &'a TapeData,
    /// For each value its node; [`Graph::NONE`] if it depends on no input.
    node: Vec<u32>,
    /// For each node the nodes it depends on, all of them before it; none for an input.
    depends: Lists,
    /// The pairs of nodes by which a row has a second derivative, the smaller node first.
    interacts: Vec<[u32; 2]>,
}

impl<'a> Graph<'a> {
    const NONE: u32 = u32::MAX;
    /// The most nodes: what iterations of a loop may make of a small tape takes no more memory than a few of its sweeps.
    const MOST: usize = 1 << 27;

    /// The graph of what reaches the outputs, or those of them that are `wanted`.
    fn new(data: &'a TapeData, wanted: Option<&[bool]>, bodies: &mut Bodies) -> Result<Graph<'a>, Error> {
        let first_row = data.first_row();
        let mut structure = Structure::default();
        let mut live = vec![false; data.num_values()];
        for (i, &output) in data.outputs.iter().enumerate() {
            live[output as usize] |= wanted.is_none_or(|wanted| wanted[i]);
        }
        for row in (0..data.num_rows()).rev().filter(|&row| data.op(row) != Op::FurtherResult) {
            let value = first_row + row;
            if let Some(function) = data.function(row) {
                let results = &live[value..value + function.num_results()];
                if results.contains(&true) {
                    let operands = bodies.live_operands(function, results)?;
                    for (&operand, _) in data.operands(row).iter().zip(operands).filter(|(_, alive)| *alive) {
                        live[operand as usize] = true;
                    }
                }
                continue;
            }
            structure.read(data, row);
            for &(result, operand) in &structure.depends {
                live[operand as usize] |= live[value + result];
            }
        }

        let mut node = vec![Graph::NONE; data.num_values()];
        let inputs = data.first_input()..data.first_param();
        node[inputs].iter_mut().zip(0..).for_each(|(node, input)| *node = input);
        let depends = Lists { ends: vec![0; data.num_inputs], items: Vec::new() };
        let mut graph = Graph { data, node, depends, interacts: Vec::new() };
        let mut list = Vec::new();
        for row in (0..data.num_rows()).filter(|&row| data.op(row) != Op::FurtherResult) {
            let value = first_row + row;
            if let Some(function) = data.function(row) {
                let live = &live[value..value + function.num_results()];
                if live.contains(&true) {
                    let operands: Vec<u32> =
                        data.operands(row).iter().map(|&operand| graph.node[operand as usize]).collect();
                    let results = graph.call(bodies, function, &operands, live)?;
                    graph.node[value..value + results.len()].copy_from_slice(&results);
                }
                continue;
            }
            structure.read(data, row);
            for result in (0..data.num_results(row)).filter(|result| live[value + result]) {
                let of_result = structure.depends.iter().filter(|(of, _)| *of == result);
                list.extend(of_result.map(|&(_, operand)| graph.node[operand as usize]));
                graph.node[value + result] = graph.node_of(&mut list);
                for (_, pair) in structure.interacts.iter().filter(|(of, _)| *of == result) {
                    graph.interact(pair.map(|operand| graph.node[operand as usize]));
                }
            }
        }
        graph.interacts.sort_unstable();
        graph.interacts.dedup();
        Ok(graph)
    }

    /// The node that depends on those of the list, which is empty afterwards.
    fn node_of(&mut self, list: &mut Vec<u32>) -> u32 {
        list.retain(|&node| node != Graph::NONE);
        list.sort_unstable();
        list.dedup();
        let node = match list[..] {
            [] => Graph::NONE,
            [one] => one,
            _ => {
                self.depends.items.extend_from_slice(list);
                self.depends.ends.push(self.depends.items.len());
                self.num_nodes() as u32 - 1
            }
        };
        list.clear();
        node
    }

    fn interact(&mut self, [a, b]: [u32; 2]) {
        if a != Graph::NONE && b != Graph::NONE {
            self.interacts.push([a.min(b), a.max(b)]);
        }
    }

    /// The nodes of the results of a call, of those that are `live`.
    fn call(&mut self, bodies: &mut Bodies, function: &Function, x: &[u32], live: &[bool]) -> Result<Vec<u32>, Error> {
        match function.as_loop() {
            Some(rolled) => self.call_loop(bodies, rolled, x, live),
            None => self.call_blocks(function, x, live),
        }
    }

    fn call_loop(&mut self, bodies: &mut Bodies, rolled: &Loop, x: &[u32], live: &[bool]) -> Result<Vec<u32>, Error> {
        let (n, m) = (rolled.body.num_inputs(), rolled.body.num_outputs());
        self.check_nodes(rolled.count.saturating_mul(m))?;
        let pattern = bodies.jacobian(&rolled.body)?;
        let (alive, _) = bodies.alive(rolled, x.len(), live)?;
        let mut results = vec![Graph::NONE; live.len()];
        let mut sums = vec![Vec::new(); if rolled.is_summed() { live.len() } else { 0 }];
        let mut carry: Vec<u32> = rolled.initial().iter().map(|&operand| x[operand as usize]).collect();
        let mut inputs = vec![Graph::NONE; n];
        let mut list = Vec::new();
        let mut second: Option<(&[bool], Arc<Sparsity>)> = None;
        for (iteration, alive) in alive.chunks(m).enumerate() {
            for (input, node) in inputs.iter_mut().enumerate() {
                *node = match rolled.taken(input, iteration) {
                    Taken::Carry(place) => carry[place],
                    Taken::Operand(operand) => x[operand],
                };
            }
            for (output, &alive) in alive.iter().enumerate() {
                let nodes = pattern.row(output).iter().filter(|_| alive).map(|&input| inputs[input]);
                match rolled.given(output, iteration) {
                    Given::Carry(place) => {
                        list.extend(nodes);
                        carry[place] = self.node_of(&mut list);
                    }
                    Given::Result(result) if rolled.is_summed() => sums[result].extend(nodes),
                    Given::Result(result) => {
                        list.extend(nodes);
                        results[result] = self.node_of(&mut list);
                    }
                }
            }
            // Mostly the same outputs count in all iterations.
            let hessian = match &second {
                Some((outputs, hessian)) if *outputs == alive => hessian.clone(),
                _ => bodies.hessian(&rolled.body, alive)?,
            };
            for a in 0..n {
                let row = hessian.row(a);
                row[row.partition_point(|&b| b < a)..].iter().for_each(|&b| self.interact([inputs[a], inputs[b]]));
            }
            second = Some((alive, hessian));
        }
        for (result, list) in results.iter_mut().zip(&mut sums) {
            *result = self.node_of(list);
        }
        results[..carry.len()].copy_from_slice(&carry);
        Ok(results)
    }

    /// Results that depend on all operands of their blocks in every way.
    fn call_blocks(&mut self, function: &Function, x: &[u32], live: &[bool]) -> Result<Vec<u32>, Error> {
        // The adjoint of a loop has a block for each iteration.
        self.check_nodes(function.iterations())?;
        let mut pairs = Vec::new();
        let mut list = Vec::new();
        for block in function.blocks() {
            let results = block.results.iter().filter(|&&result| live[result as usize]);
            if results.clone().next().is_some() {
                list.extend(block.operands.iter().map(|&operand| x[operand as usize]));
                let node = self.node_of(&mut list);
                self.check_nodes(1)?;
                self.interact([node, node]);
                pairs.extend(results.map(|&result| [result, node]));
            }
        }
        let nodes = Lists::from_pairs(live.len(), pairs.iter().copied());
        let node = |result: usize| {
            list.extend_from_slice(nodes.of(result));
            self.node_of(&mut list)
        };
        Ok((0..live.len()).map(node).collect())
    }

    /// Whether there may be so many more nodes.
    fn check_nodes(&self, more: usize) -> Result<(), Error> {
        match more.saturating_add(self.num_nodes()) <= Graph::MOST {
            true => Ok(()),
            false => Err(Error::TooManyNonzeros { limit: Graph::MOST }),
        }
    }

    fn num_nodes(&self) -> usize {
        self.depends.ends.len()
    }

    /// The number of the input that a node is.
    fn input(&self, node: usize) -> Option<usize> {
        (node < self.data.num_inputs).then_some(node)
    }

    /// For each node those that depend on it, of the ones that are `wanted`.
    fn dependents(&self, wanted: impl Fn(usize) -> bool + Copy) -> Lists {
        let nodes = (0..self.num_nodes()).filter(|&node| wanted(node));
        let pairs = nodes.flat_map(|node| self.depends.of(node).iter().map(move |&on| [on, node as u32]));
        Lists::from_pairs(self.num_nodes(), pairs)
    }

    /// Sends the bits of the waiting nodes back to the inputs they depend on:
    /// inputs and their bits, from the last to the first.
    fn send_back(&self, bits: &mut Bits, inputs: &mut Vec<(usize, u64)>) {
        inputs.clear();
        while let Some((node, word)) = bits.take_last() {
            match self.input(node) {
                Some(input) => inputs.push((input, word)),
                None => self.depends.of(node).iter().for_each(|&on| bits.add(on as usize, word)),
            }
        }
    }
}

/// A word of bits for each value, and which values wait to be visited.
struct Bits {
    words: Vec<u64>,
    /// A bit for each value.
    waiting: Vec<u64>,
    /// No word of `waiting` before or after these has a bit.
    first: usize,
    last: usize,
}

impl Bits {
    fn new(values: usize) -> Bits {
        let waiting = vec![0; values.div_ceil(64)];
        Bits { words: vec![0; values], first: waiting.len(), last: 0, waiting }
    }

    /// Adds bits to a value, which then waits.
    fn add(&mut self, value: usize, word: u64) {
        self.words[value] |= word;
        let at = value / 64;
        self.waiting[at] |= 1 << (value % 64);
        self.first = self.first.min(at);
        self.last = self.last.max(at);
    }

    /// The first value that waits, and its bits, which it keeps.
    fn visit_first(&mut self) -> Option<(usize, u64)> {
        while self.first <= self.last && self.first < self.waiting.len() {
            let waiting = &mut self.waiting[self.first];
            if *waiting != 0 {
                let value = 64 * self.first + waiting.trailing_zeros() as usize;
                *waiting &= *waiting - 1;
                return Some((value, self.words[value]));
            }
            self.first += 1;
        }
        (self.first, self.last) = (self.waiting.len(), 0);
        None
    }

    /// The last value that waits, and its bits, which are 0 afterwards.
    fn take_last(&mut self) -> Option<(usize, u64)> {
        loop {
            let waiting = &mut self.waiting[self.last];
            if *waiting != 0 {
                let value = 64 * self.last + waiting.ilog2() as usize;
                *waiting ^= 1 << (value % 64);
                return Some((value, std::mem::take(&mut self.words[value])));
            }
            if self.last <= self.first {
                (self.first, self.last) = (self.waiting.len(), 0);
                return None;
            }
            self.last -= 1;
        }
    }
}

/// The positions of the bits of a word.
fn positions(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let position = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(position)
    })
}

/// Rows of a pattern, 64 at a time.
struct Collector {
    pattern: Sparsity,
    rows: Vec<Vec<usize>>,
    /// The most nonzeros there may be.
    most: usize,
}

impl Collector {
    fn new(cols: usize, most: usize) -> Collector {
        Collector { pattern: Sparsity::empty(cols), rows: vec![Vec::new(); 64], most }
    }

    /// Appends `count` rows, from the columns with their bits in ascending order.
    fn append(&mut self, count: usize, columns: impl Iterator<Item = (usize, u64)> + Clone) -> Result<(), Error> {
        let total = columns.clone().fold(self.pattern.nonzeros(), |sum, (_, word)| sum + word.count_ones() as usize);
        if total > self.most {
            return Err(Error::TooManyNonzeros { limit: self.most });
        }
        for (column, word) in columns {
            positions(word).for_each(|row| self.rows[row].push(column));
        }
        for row in &mut self.rows[..count] {
            self.pattern.push_row(row);
            row.clear();
        }
        Ok(())
    }
}

/// The pattern of the Jacobian of a tape.
pub(crate) fn of_jacobian(data: &TapeData, most: usize) -> Result<Sparsity, Error> {
    jacobian(&Graph::new(data, None, &mut Bodies::new(most))?, most)
}

/// By as few sweeps as there can be.
fn jacobian(graph: &Graph<'_>, most: usize) -> Result<Sparsity, Error> {
    let data = graph.data;
    if data.num_inputs < data.outputs.len() { forward(graph, most) } else { back(graph, most) }
}

/// 64 outputs at a time, each sweep back to the inputs.
fn back(graph: &Graph<'_>, most: usize) -> Result<Sparsity, Error> {
    let mut collector = Collector::new(graph.data.num_inputs, most);
    let mut bits = Bits::new(graph.num_nodes());
    let mut inputs = Vec::new();
    for outputs in graph.data.outputs.chunks(64) {
        for (i, &output) in outputs.iter().enumerate() {
            let node = graph.node[output as usize];
            if node != Graph::NONE {
                bits.add(node as usize, 1 << i);
            }
        }
        graph.send_back(&mut bits, &mut inputs);
        collector.append(outputs.len(), inputs.iter().rev().copied())?;
    }
    Ok(collector.pattern)
}

/// 64 inputs at a time, each sweep forward to the outputs.
fn forward(graph: &Graph<'_>, most: usize) -> Result<Sparsity, Error> {
    let data = graph.data;
    let dependents = graph.dependents(|_| true);
    let mut collector = Collector::new(data.outputs.len(), most);
    let mut bits = Bits::new(graph.num_nodes());
    let (mut visited, mut words) = (Vec::new(), Vec::new());
    // Which outputs a value is, so that a sweep looks at those alone that it reaches.
    let nodes = data.outputs.iter().map(|&output| graph.node[output as usize]).enumerate();
    let of_values = nodes.filter(|(_, node)| *node != Graph::NONE).map(|(i, node)| [node, i as u32]);
    let outputs = Lists::from_pairs(graph.num_nodes(), of_values);
    for first in (0..data.num_inputs).step_by(64) {
        let count = 64.min(data.num_inputs - first);
        (0..count).for_each(|i| bits.add(first + i, 1 << i));
        while let Some((value, word)) = bits.visit_first() {
            visited.push(value);
            dependents.of(value).iter().for_each(|&dependent| bits.add(dependent as usize, word));
        }
        words.clear();
        for &value in &visited {
            words.extend(outputs.of(value).iter().map(|&output| (output as usize, bits.words[value])));
        }
        words.sort_unstable();
        collector.append(count, words.iter().copied())?;
        visited.drain(..).for_each(|value| bits.words[value] = 0);
    }
    Ok(collector.pattern.transposed())
}

/// The pattern of the Hessian of a tape with one output.
///
/// If a row has a second derivative by its operands a and b, the output has one
/// by each input that a depends on and each that b depends on. So bits go
/// forward from 64 inputs, cross over from a to b, and go back from there, as
/// tangents and the tangents of adjoints do in a Hessian-vector product. Where
/// nothing crosses over, as in a sum of many terms, no bits are sent.
pub(crate) fn of_hessian(data: &TapeData, most: usize) -> Result<Sparsity, Error> {
    hessian(&Graph::new(data, None, &mut Bodies::new(most))?, most)
}

/// Of the sum of the outputs that the graph reaches.
fn hessian(graph: &Graph<'_>, most: usize) -> Result<Sparsity, Error> {
    let data = graph.data;
    let mut wanted = vec![false; graph.num_nodes()];
    for &value in graph.interacts.as_flattened() {
        wanted[value as usize] = true;
    }
    for node in (data.num_inputs..graph.num_nodes()).rev() {
        if wanted[node] {
            graph.depends.of(node).iter().for_each(|&on| wanted[on as usize] = true);
        }
    }
    let dependents = graph.dependents(|node| wanted[node]);
    let both_orders =
        graph.interacts.iter().flat_map(|&[a, b]| [[a, b], [b, a]].into_iter().take(1 + usize::from(a != b)));
    let partners = Lists::from_pairs(graph.num_nodes(), both_orders);

    let mut collector = Collector::new(data.num_inputs, most);
    let (mut along, mut across) = (Bits::new(graph.num_nodes()), Bits::new(graph.num_nodes()));
    let (mut visited, mut inputs) = (Vec::new(), Vec::new());
    for first in (0..data.num_inputs).step_by(64) {
        let count = 64.min(data.num_inputs - first);
        (0..count).for_each(|i| along.add(first + i, 1 << i));
        while let Some((value, word)) = along.visit_first() {
            visited.push(value);
            dependents.of(value).iter().for_each(|&dependent| along.add(dependent as usize, word));
            partners.of(value).iter().for_each(|&partner| across.add(partner as usize, word));
        }
        graph.send_back(&mut across, &mut inputs);
        collector.append(count, inputs.iter().rev().copied())?;
        visited.drain(..).for_each(|value| along.words[value] = 0);
    }
    Ok(collector.pattern)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn too_many_nonzeros_are_an_error() {
        let tape = Tape::record(&[1.0; 70], |x| vec![crate::Var::sum_of(x); 3]).unwrap();
        assert_eq!(of_jacobian(&tape.data, 210).map(|pattern| pattern.nonzeros()), Ok(210));
        assert_eq!(of_jacobian(&tape.data, 209), Err(Error::TooManyNonzeros { limit: 209 }));
        let tape = Tape::record(&[1.0; 70], |x| crate::Var::sum_of(x).exp()).unwrap();
        assert_eq!(of_hessian(&tape.data, 4900).map(|pattern| pattern.nonzeros()), Ok(4900));
        assert_eq!(of_hessian(&tape.data, 4899), Err(Error::TooManyNonzeros { limit: 4899 }));
        // The outputs of a recurrence fill a triangle.
        let step = Tape::record(&[0.0, 1.0], |x| [x[0] + x[1], x[0] * 2.0]).unwrap();
        let tape = Tape::record(&[1.0; 100], |x| step.scan(&x[..1], x[1..].chunks(1)).1).unwrap();
        assert_eq!(of_jacobian(&tape.data, 4950).map(|pattern| pattern.nonzeros()), Ok(4950));
        assert_eq!(of_jacobian(&tape.data, 4949), Err(Error::TooManyNonzeros { limit: 4949 }));
        // So does the body of a loop that is asked for before it.
        let wide = Tape::record(&[1.0; 70], |x| vec![crate::Var::sum_of(x); 3]).unwrap();
        let tape = Tape::record(&[1.0; 70], |x| wide.call(x)[0]).unwrap();
        assert_eq!(of_jacobian(&tape.data, 209), Err(Error::TooManyNonzeros { limit: 209 }));
    }

    #[test]
    fn both_directions_find_the_same_pattern() {
        for n in [1, 5, 64, 65, 130] {
            let tape = Tape::record(&vec![1.0; n], |x| {
                let (s, c) = x[0].sin_cos();
                let mut y: Vec<_> = (0..n).map(|i| x[i] * x[(i * 7 + 3) % n] + x[i / 2].floor()).collect();
                y.extend([s * x[n / 2], c, crate::Var::sum_of(&x[n / 3..]), x[0].round()]);
                y
            })
            .unwrap();
            let graph = Graph::new(&tape.data, None, &mut Bodies::new(usize::MAX)).unwrap();
            assert_eq!(forward(&graph, usize::MAX), back(&graph, usize::MAX), "{n} inputs");
        }
    }
}
