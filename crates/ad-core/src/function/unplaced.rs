//! Tapes and functions without the places in the code that they were recorded at.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Function, Kind, Loop, Rearranged};
use crate::tape::{Tape, TapeData};

/// Takes the places away: tapes and functions that are shared are shared again, and
/// seen to once, however often functions call functions. (The equations of an
/// `Implicit` are each function's own afterwards.)
#[derive(Default)]
pub(crate) struct Unplaced {
    /// For each list the first tape that was made of its new one.
    lists: HashMap<*const TapeData, Tape>,
    functions: HashMap<*const (), Function>,
}

impl Unplaced {
    /// [`Tape::without_locations`].
    pub fn tape(&mut self, tape: &Tape) -> Tape {
        let key = Arc::as_ptr(&tape.data);
        if let Some(sibling) = self.lists.get(&key) {
            return Tape::of_list(&sibling.data, tape.params.clone(), tape.name.clone(), Some(sibling));
        }
        let functions = tape.functions().iter().map(|function| self.function(function)).collect();
        let data = Arc::new(tape.data.without_locations(functions));
        let unplaced = Tape::of_list(&data, tape.params.clone(), tape.name.clone(), None);
        self.lists.insert(key, unplaced.clone());
        unplaced
    }

    fn function(&mut self, function: &Function) -> Function {
        if let Some(known) = self.functions.get(&function.address()) {
            return known.clone();
        }
        let kind = match &function.0.kind {
            // No file can hold code, and it is told from other code by its address.
            Kind::Custom(_) => return function.clone(),
            Kind::Loop(rolled) => Kind::Loop(Loop { body: self.tape(&rolled.body), ..rolled.clone() }),
            Kind::Implicit(system) => Kind::Implicit(system.with_equations(&mut |equations| self.tape(equations))),
            Kind::Adjoint(of) => Kind::Adjoint(self.function(of)),
            Kind::Rearranged(Rearranged { of, operands, results }) => Kind::Rearranged(Rearranged {
                of: self.function(of),
                operands: operands.clone(),
                results: results.clone(),
            }),
        };
        let unplaced = Function::new(function.0.name.clone(), kind, function.num_operands(), function.num_results());
        self.functions.insert(function.address(), unplaced.clone());
        unplaced
    }
}
