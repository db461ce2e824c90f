//! What a file holds of a function, and functions from what a file holds.

use std::sync::Arc;

use super::{Function, Kind, Loop, Rearranged};
use crate::record::LIMIT;

/// What a function consists of.
pub(crate) enum Stored<'a> {
    Loop {
        rolled: &'a Loop,
        name: Option<&'a Arc<str>>,
    },
    Adjoint(&'a Function),
    Rearranged {
        of: &'a Function,
        operands: &'a [Option<u32>],
        results: &'a [u32],
    },
    /// Code of the user's, which no file can hold.
    Code,
}

impl Function {
    pub(crate) fn stored(&self) -> Stored<'_> {
        match &self.0.kind {
            Kind::Loop(rolled) => Stored::Loop { rolled, name: self.0.name.as_ref() },
            Kind::Adjoint(of) => Stored::Adjoint(of),
            Kind::Rearranged(Rearranged { of, operands, results }) => Stored::Rearranged { of, operands, results },
            Kind::Custom(_) | Kind::Implicit(_) => Stored::Code,
        }
    }

    /// Whether it is code of the user's, or a derivative of such.
    pub(crate) fn is_code(&self) -> bool {
        let mut function = self;
        loop {
            match function.stored() {
                Stored::Adjoint(of) | Stored::Rearranged { of, .. } => function = of,
                Stored::Code => return true,
                Stored::Loop { .. } => return false,
            }
        }
    }

    /// (x, w) ↦ Jᵀ·w, unless those are more numbers than an index can name.
    pub(crate) fn checked_adjoint(&self) -> Result<Function, &'static str> {
        match self.num_operands() + self.num_results() <= LIMIT {
            true => Ok(self.adjoint()),
            false => Err("it takes or gives more values than an index can name"),
        }
    }

    /// A function with operands and results in other places, or what no
    /// derivative would have left in it.
    pub(crate) fn checked_rearrangement(
        &self,
        operands: Vec<Option<u32>>,
        results: Vec<u32>,
        num_operands: usize,
    ) -> Result<Function, &'static str> {
        if operands.len() != self.num_operands() || num_operands > LIMIT {
            return Err("it has not an operand for each of those of the function that it rearranges");
        }
        // Derivatives put values before their tangents: there are as many of both.
        if num_operands == 0 || !num_operands.is_multiple_of(2) || !results.len().is_multiple_of(2) {
            return Err("it takes or gives no pairs of values and tangents");
        }
        if operands.iter().flatten().any(|&operand| operand as usize >= num_operands) {
            return Err("it takes an operand that it does not have");
        }
        if results.iter().any(|&result| result as usize >= self.num_results()) {
            return Err("it gives a result that the function that it rearranges does not have");
        }
        // A derivative takes all results: so none are computed that have no row.
        if results.is_empty() || results.len() < self.num_results() {
            return Err("it leaves out results of the function that it rearranges");
        }
        let num_results = results.len();
        let kind = Kind::Rearranged(Rearranged { of: self.clone(), operands, results });
        Ok(Function::new(None, kind, num_operands, num_results))
    }
}
