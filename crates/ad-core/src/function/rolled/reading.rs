//! What readers of a tape ask of a loop, without a number.

use super::{Loop, Source, Target};

/// What an input of the body is in an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A number of the carry.
    Carry(usize),
    /// An operand of the call.
    Operand(usize),
}

/// What an output of the body is in an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// A number of the carry into the next iteration; the last one is the result of that number.
    Carry(usize),
    /// A result of the call, or a term of it where they are summed.
    Result(usize),
}

impl Loop {
    /// Which operand each number of the carry begins with.
    pub(crate) fn initial(&self) -> &[u32] {
        &self.initial
    }

    /// Whether the results are sums over the iterations.
    pub(crate) fn is_summed(&self) -> bool {
        self.summed
    }

    pub(crate) fn taken(&self, input: usize, iteration: usize) -> Taken {
        match &self.inputs[input] {
            Source::Carry(place) => Taken::Carry(*place as usize),
            Source::Argument(column) => Taken::Operand(column.at(iteration)),
        }
    }

    pub(crate) fn given(&self, output: usize, iteration: usize) -> Given {
        match (self.outputs[output], self.result(self.outputs[output], iteration)) {
            (_, Some(result)) => Given::Result(result),
            (Target::Carry(place) | Target::Out(place), None) => Given::Carry(place as usize),
        }
    }
}
