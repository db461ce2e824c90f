//! What readers of a tape ask of the functions that it calls, without a number.

use std::sync::Arc;

use crate::check::{Contents, Fnv};
use crate::error::Error;
use crate::function::{Function, FunctionMemory, Given, Kind, Loop, Numbers, NumbersMut, Rearranged, Taken};

/// Operands and results of a function that have to do with each other. A result
/// is a sum over the blocks that it is in, and each term depends on the operands
/// of its block alone.
#[derive(Debug)]
pub(crate) struct Block {
    pub operands: Vec<u32>,
    pub results: Vec<u32>,
}

impl Function {
    /// What tells it from other functions that are alive.
    pub(crate) fn address(&self) -> *const () {
        Arc::as_ptr(&self.0).cast()
    }

    /// F(x), and J·ẋ for k tangents of each operand.
    pub(crate) fn evaluate(&self, x: &[f64], tangents: &[f64]) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let k = tangents.len().checked_div(x.len()).unwrap_or(0);
        let (mut y, mut dy) = (vec![0.0; self.num_results()], vec![0.0; self.num_results() * k]);
        let results = NumbersMut { v: &mut y, t: &mut dy };
        self.values(k, Numbers { v: x, t: tangents }, results, &mut FunctionMemory::default())?;
        Ok((y, dy))
    }

    /// Jᵀ·w.
    pub(crate) fn pull_back(&self, x: &[f64], w: &[f64]) -> Result<Vec<f64>, Error> {
        let mut xbar = vec![0.0; x.len()];
        let (x, w) = (Numbers { v: x, t: &[] }, Numbers { v: w, t: &[] });
        self.adjoints(0, x, w, NumbersMut { v: &mut xbar, t: &mut [] }, &mut FunctionMemory::default())?;
        Ok(xbar)
    }

    /// What [`Tape::content_hash`](crate::Tape::content_hash) covers of it.
    pub(crate) fn write_content(&self, hash: &mut Fnv, contents: &mut Contents) {
        match &self.0.kind {
            Kind::Loop(rolled) => {
                hash.text("loop");
                contents.write_body(&rolled.body, hash);
                rolled.write_content(hash);
            }
            Kind::Custom(_) => {
                hash.text("custom");
                hash.text(self.name().unwrap_or_default());
                hash.count(self.num_operands());
                hash.count(self.num_results());
            }
            Kind::Implicit(system) => {
                hash.text("implicit");
                contents.write_body(system.equations(), hash);
                hash.count(self.num_operands());
            }
            Kind::Adjoint(of) => {
                hash.text("adjoint");
                hash.bytes(&contents.function(of).to_le_bytes());
            }
            Kind::Rearranged(Rearranged { of, operands, results }) => {
                hash.text("rearranged");
                hash.bytes(&contents.function(of).to_le_bytes());
                hash.count(operands.len());
                operands.iter().for_each(|operand| hash.count(operand.map_or(0, |operand| operand as usize + 1)));
                hash.count(results.len());
                results.iter().for_each(|&result| hash.count(result as usize));
            }
        }
    }

    /// The loop, if it is one itself.
    pub(crate) fn as_loop(&self) -> Option<&Loop> {
        match &self.0.kind {
            Kind::Loop(rolled) => Some(rolled),
            _ => None,
        }
    }

    /// A block for each iteration of a loop without carry and of its derivatives;
    /// one for all else.
    pub(crate) fn blocks(&self) -> Box<dyn Iterator<Item = Block> + '_> {
        match &self.0.kind {
            Kind::Loop(rolled) if rolled.initial().is_empty() => {
                let (n, m) = (rolled.body.num_inputs(), rolled.body.num_outputs());
                let operand = move |input: usize, iteration: usize| match rolled.taken(input, iteration) {
                    Taken::Operand(number) | Taken::Carry(number) => number as u32,
                };
                let result = move |output: usize, iteration: usize| match rolled.given(output, iteration) {
                    Given::Result(number) | Given::Carry(number) => number as u32,
                };
                let block = move |iteration: usize| Block {
                    operands: (0..n).map(|input| operand(input, iteration)).collect(),
                    results: (0..m).map(|output| result(output, iteration)).collect(),
                };
                Box::new((0..rolled.count).map(block))
            }
            Kind::Adjoint(of) => {
                // The operands are those of the function and a weight for each of its results.
                let first_weight = of.num_operands() as u32;
                let transposed = move |Block { operands, results }: Block| Block {
                    operands: operands.iter().copied().chain(results.iter().map(|j| j + first_weight)).collect(),
                    results: operands,
                };
                Box::new(of.blocks().map(transposed))
            }
            Kind::Rearranged(Rearranged { of, operands, results }) => {
                let mut places = vec![Vec::new(); of.num_results()];
                for (place, &result) in results.iter().enumerate() {
                    places[result as usize].push(place as u32);
                }
                let rearranged = move |block: Block| Block {
                    operands: block.operands.iter().filter_map(|&i| operands[i as usize]).collect(),
                    results: block.results.iter().flat_map(|&j| places[j as usize].iter().copied()).collect(),
                };
                Box::new(of.blocks().map(rearranged))
            }
            _ => Box::new(std::iter::once(Block {
                operands: (0..self.num_operands() as u32).collect(),
                results: (0..self.num_results() as u32).collect(),
            })),
        }
    }

    /// How many of the operands stand together where a call is printed: the
    /// point and the weights of an adjoint.
    pub(crate) fn operand_groups(&self) -> Vec<usize> {
        match &self.0.kind {
            Kind::Adjoint(of) => vec![of.num_operands(), of.num_results()],
            Kind::Rearranged(Rearranged { .. }) => vec![self.num_operands() / 2; 2],
            _ => vec![self.num_operands()],
        }
    }
}
