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

use crate::error::Error;
use crate::ops::{Fold, Op, Operation, Visitor};
use crate::record::{Answer, Question};
use crate::rule::Rule;
use crate::rule_operators;
use crate::sparse::Sparsity;
use crate::tape::TapeData;

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

/// What depends on what, with the values left out that reach no output and those
/// that depend on one other value alone, for which that one stands.
struct Graph<'a> {
    data: &'a TapeData,
    /// For each value the one that stands for it; [`Graph::NONE`] if it depends on no input.
    node: Vec<u32>,
    /// For each value that stands for itself the values it depends on; none for an input.
    depends: Lists,
    /// The pairs of values by which a row has a second derivative, the smaller value first.
    interacts: Vec<[u32; 2]>,
}

impl<'a> Graph<'a> {
    const NONE: u32 = u32::MAX;

    fn new(data: &'a TapeData) -> Graph<'a> {
        let first_row = data.first_row();
        let mut structure = Structure::default();
        let mut live = vec![false; data.num_values()];
        for &output in &data.outputs {
            live[output as usize] = true;
        }
        for row in (0..data.num_rows()).rev().filter(|&row| data.op(row) != Op::FurtherResult) {
            structure.read(data, row);
            for &(result, operand) in &structure.depends {
                live[operand as usize] |= live[first_row + row + result];
            }
        }

        let mut node = vec![Graph::NONE; data.num_values()];
        let inputs = data.first_input()..data.first_param();
        node[inputs.clone()].iter_mut().zip(inputs).for_each(|(node, input)| *node = input as u32);
        let mut depends = Lists { ends: vec![0; first_row], items: Vec::new() };
        let mut interacts = Vec::new();
        let mut list = Vec::new();
        for row in (0..data.num_rows()).filter(|&row| data.op(row) != Op::FurtherResult) {
            structure.read(data, row);
            let results = 1 + (row + 1..data.num_rows()).take_while(|&r| data.op(r) == Op::FurtherResult).count();
            for result in 0..results {
                let value = first_row + row + result;
                if live[value] {
                    let of_result = structure.depends.iter().filter(|(of, _)| *of == result);
                    list.extend(of_result.map(|&(_, operand)| node[operand as usize]));
                    list.retain(|&node| node != Graph::NONE);
                    list.sort_unstable();
                    list.dedup();
                    match list[..] {
                        [] => {}
                        [one] => node[value] = one,
                        _ => {
                            node[value] = value as u32;
                            depends.items.extend_from_slice(&list);
                        }
                    }
                    list.clear();
                    for (_, pair) in structure.interacts.iter().filter(|(of, _)| *of == result) {
                        let [a, b] = pair.map(|operand| node[operand as usize]);
                        if a != Graph::NONE && b != Graph::NONE {
                            interacts.push([a.min(b), a.max(b)]);
                        }
                    }
                }
                depends.ends.push(depends.items.len());
            }
        }
        interacts.sort_unstable();
        interacts.dedup();
        Graph { data, node, depends, interacts }
    }

    fn num_values(&self) -> usize {
        self.node.len()
    }

    /// The number of the input that a value is.
    fn input(&self, value: usize) -> Option<usize> {
        let inputs = self.data.first_input()..self.data.first_param();
        inputs.contains(&value).then(|| value - inputs.start)
    }

    /// For each value those that depend on it, of the ones that are `wanted`.
    fn dependents(&self, wanted: impl Fn(usize) -> bool + Copy) -> Lists {
        let values = (0..self.num_values()).filter(|&value| wanted(value));
        let pairs = values.flat_map(|value| self.depends.of(value).iter().map(move |&on| [on, value as u32]));
        Lists::from_pairs(self.num_values(), pairs)
    }

    /// Sends the bits of the waiting values back to the inputs they depend on:
    /// inputs and their bits, from the last to the first.
    fn send_back(&self, bits: &mut Bits, inputs: &mut Vec<(usize, u64)>) {
        inputs.clear();
        while let Some((value, word)) = bits.take_last() {
            match self.input(value) {
                Some(input) => inputs.push((input, word)),
                None => self.depends.of(value).iter().for_each(|&on| bits.add(on as usize, word)),
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
    let graph = Graph::new(data);
    // By as few sweeps as there can be.
    if data.num_inputs < data.outputs.len() { forward(&graph, most) } else { back(&graph, most) }
}

/// 64 outputs at a time, each sweep back to the inputs.
fn back(graph: &Graph<'_>, most: usize) -> Result<Sparsity, Error> {
    let mut collector = Collector::new(graph.data.num_inputs, most);
    let mut bits = Bits::new(graph.num_values());
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
    let mut bits = Bits::new(graph.num_values());
    let (mut visited, mut words) = (Vec::new(), Vec::new());
    // Which outputs a value is, so that a sweep looks at those alone that it reaches.
    let nodes = data.outputs.iter().map(|&output| graph.node[output as usize]).enumerate();
    let of_values = nodes.filter(|(_, node)| *node != Graph::NONE).map(|(i, node)| [node, i as u32]);
    let outputs = Lists::from_pairs(graph.num_values(), of_values);
    for first in (0..data.num_inputs).step_by(64) {
        let count = 64.min(data.num_inputs - first);
        (0..count).for_each(|i| bits.add(data.first_input() + first + i, 1 << i));
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
    let graph = Graph::new(data);
    let mut wanted = vec![false; graph.num_values()];
    for &value in graph.interacts.as_flattened() {
        wanted[value as usize] = true;
    }
    for value in (data.first_row()..graph.num_values()).rev() {
        if wanted[value] {
            graph.depends.of(value).iter().for_each(|&on| wanted[on as usize] = true);
        }
    }
    let dependents = graph.dependents(|value| wanted[value]);
    let both_orders =
        graph.interacts.iter().flat_map(|&[a, b]| [[a, b], [b, a]].into_iter().take(1 + usize::from(a != b)));
    let partners = Lists::from_pairs(graph.num_values(), both_orders);

    let mut collector = Collector::new(data.num_inputs, most);
    let (mut along, mut across) = (Bits::new(graph.num_values()), Bits::new(graph.num_values()));
    let (mut visited, mut inputs) = (Vec::new(), Vec::new());
    for first in (0..data.num_inputs).step_by(64) {
        let count = 64.min(data.num_inputs - first);
        (0..count).for_each(|i| along.add(data.first_input() + first + i, 1 << i));
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
    use crate::tape::Tape;

    #[test]
    fn too_many_nonzeros_are_an_error() {
        let tape = Tape::record(&[1.0; 70], |x| vec![crate::Var::sum_of(x); 3]).unwrap();
        assert_eq!(of_jacobian(&tape.data, 210).map(|pattern| pattern.nonzeros()), Ok(210));
        assert_eq!(of_jacobian(&tape.data, 209), Err(Error::TooManyNonzeros { limit: 209 }));
        let tape = Tape::record(&[1.0; 70], |x| crate::Var::sum_of(x).exp()).unwrap();
        assert_eq!(of_hessian(&tape.data, 4900).map(|pattern| pattern.nonzeros()), Ok(4900));
        assert_eq!(of_hessian(&tape.data, 4899), Err(Error::TooManyNonzeros { limit: 4899 }));
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
            let graph = Graph::new(&tape.data);
            assert_eq!(forward(&graph, usize::MAX), back(&graph, usize::MAX), "{n} inputs");
        }
    }
}
