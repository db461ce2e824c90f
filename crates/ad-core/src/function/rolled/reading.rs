//! What readers of a tape ask of a loop, without a number.

use super::{Column, Loop, Source, Target};
use crate::check::Fnv;
use crate::formula::{SHOWN_OPERANDS, Script, more};

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

    /// Which operands the iterations take, such as `i = 1 … 999: operands i, i + 1`;
    /// empty for a call that runs once and carries nothing.
    pub(crate) fn iterations_text(&self, script: Script) -> String {
        if self.count == 1 && self.initial.is_empty() {
            return String::new();
        }
        let dots = script.dots();
        let term = |(first, stride): (i64, i64)| {
            // Operands and iterations are counted from 1.
            let rest = match first + 1 - stride {
                0 => String::new(),
                rest if rest < 0 => format!(" {} {}", script.minus(), -rest),
                rest => format!(" + {rest}"),
            };
            match stride {
                0 => format!("{}", first + 1),
                1 => format!("i{rest}"),
                stride => format!("{stride}{}i{rest}", script.times()),
            }
        };
        let place = |column: &Column| match column {
            Column::Strided { first, stride } => term((*first, *stride)),
            Column::Listed(places) => {
                let shown = places.iter().take(SHOWN_OPERANDS).map(|place| (place + 1).to_string());
                let shown = shown.chain((places.len() > SHOWN_OPERANDS).then(|| dots.to_owned()));
                format!("[{}]", shown.collect::<Vec<_>>().join(", "))
            }
        };
        let (mut state, mut operands) = (Vec::new(), Vec::new());
        for source in &self.inputs {
            match source {
                Source::Carry(number) => state.push((number + 1).to_string()),
                Source::Argument(column) => operands.push(place(column)),
            }
        }
        let list = |word: &str, mut items: Vec<String>| match items.len() {
            0 => String::new(),
            len => {
                items.truncate(SHOWN_OPERANDS);
                items.extend((len > SHOWN_OPERANDS).then(|| more(len - SHOWN_OPERANDS, script)));
                format!(" {word} {}", items.join(", "))
            }
        };
        let (state, operands) = (list("state", state), list("operands", operands));
        let between = if state.is_empty() || operands.is_empty() { "" } else { ";" };
        format!("i = 1 {dots} {}:{state}{between}{operands}", self.count)
    }

    /// The places of an argument in all iterations.
    fn hash_places(column: &Column, hash: &mut Fnv) {
        match column {
            Column::Strided { first, stride } => {
                hash.bytes(b"s");
                hash.bytes(&first.to_le_bytes());
                hash.bytes(&stride.to_le_bytes());
            }
            Column::Listed(places) => {
                hash.bytes(b"l");
                hash.count(places.len());
                places.iter().for_each(|&place| hash.count(place as usize));
            }
        }
    }

    /// What [`Tape::content_hash`](crate::Tape::content_hash) covers of it, apart from the body.
    pub(crate) fn write_content(&self, hash: &mut Fnv) {
        hash.count(self.count);
        hash.count(usize::from(self.summed));
        hash.count(self.initial.len());
        self.initial.iter().for_each(|&operand| hash.count(operand as usize));
        hash.count(self.inputs.len());
        for input in &self.inputs {
            match input {
                Source::Carry(place) => {
                    hash.bytes(b"c");
                    hash.count(*place as usize);
                }
                Source::Argument(column) => Loop::hash_places(column, hash),
            }
        }
        hash.count(self.outputs.len());
        for &output in &self.outputs {
            let (kind, place) = match output {
                Target::Carry(place) => (b"c", place),
                Target::Out(place) => (b"o", place),
            };
            hash.bytes(kind);
            hash.count(place as usize);
        }
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
