//! Second derivatives: the reverse sweep of the scalar engine in numbers that
//! carry tangents, so that each adjoint carries its own (forward over reverse).
//!
//! With the seed V (n × K) for the tangents of the inputs, the adjoints of the
//! inputs are the gradient and their tangents H·V.
//!
//! As everywhere, the products are plain IEEE, and where a NaN shows the drivers
//! repeat the sweep by the strict rule: the reference sweeps in [`Dual`](crate::Dual),
//! one direction at a time. A row is passed over where its adjoint and all the
//! adjoint's tangents are 0. In company a row may run that one direction alone
//! would pass over: it adds 0 to that direction, or shows a NaN, and then the
//! strict rule adds 0. So a direction has the same bits alone and in company.

#![allow(clippy::needless_range_loop, reason = "indices are what the vectoriser follows best")]

use std::ops::Range;

use crate::ops::Operation;
use crate::record::{Answer, Question};
use crate::replay::engine::{Slots, contribute, linearize, partial_of_one, sweep_back};
use crate::replay::program::Program;
use crate::replay::scalar::Differentiated;
use crate::rule::Rule;
use crate::rule_operators;

/// A value with tangents in K directions: [`Dual`](crate::Dual) by plain IEEE.
#[derive(Debug, Clone, Copy)]
struct Duals<const K: usize> {
    v: f64,
    dv: [f64; K],
}

impl<const K: usize> From<f64> for Duals<K> {
    #[inline(always)]
    fn from(c: f64) -> Self {
        Duals { v: c, dv: [0.0; K] }
    }
}

impl<const K: usize> Rule for Duals<K> {
    // Not always inlined: in the loop over the rows that makes one function with
    // so large a frame that it overflows the stack of a thread in debug builds.
    #[inline]
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let mut primals = [0.0; N];
        for i in 0..N {
            primals[i] = x[i].v;
        }
        // Out of line but for arithmetic: every partial is compiled for each K,
        // and some for each level.
        let (v, partials) = if N == 2 && O::VECTORIZED {
            let (v, mut partials) = (O::value(primals), [[0.0; N]; M]);
            for j in 0..M {
                for i in 0..N {
                    partials[j][i] = O::partial(j, i, primals, v);
                }
            }
            (v, partials)
        } else {
            linearize::<O, N, M>(primals)
        };
        let mut results = [Duals::from(0.0); M];
        for j in 0..M {
            results[j].v = v[j];
            for i in 0..N {
                contribute(&mut results[j].dv, i == 0, partials[j][i], &x[i].dv);
            }
        }
        results
    }

    fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        f64::confirm(question, answer, a.v, b.v)
    }
}

rule_operators!([const K: usize] Duals<K>);

impl<const K: usize> Differentiated for Duals<K> {
    #[inline(always)]
    fn is_zero(self) -> bool {
        let mut zero = self.v == 0.0;
        for k in 0..K {
            zero &= self.dv[k] == 0.0;
        }
        zero
    }
}

/// Values and adjoints, each with its tangents.
struct Second<'a, const K: usize> {
    values: &'a [f64],
    tangents: &'a [[f64; K]],
    adjoints: &'a mut [f64],
    adjoint_tangents: &'a mut [[f64; K]],
}

impl<const K: usize> Slots for Second<'_, K> {
    type Number = Duals<K>;

    #[inline(always)]
    fn value(&self, slot: usize) -> Duals<K> {
        Duals { v: self.values[slot], dv: self.tangents[slot] }
    }

    #[inline(always)]
    fn adjoint(&self, slot: usize) -> Duals<K> {
        Duals { v: self.adjoints[slot], dv: self.adjoint_tangents[slot] }
    }

    #[inline(always)]
    fn add_to_adjoint(&mut self, slot: usize, contribution: Duals<K>) {
        self.adjoints[slot] += contribution.v;
        let tangents = &mut self.adjoint_tangents[slot];
        for k in 0..K {
            tangents[k] += contribution.dv[k];
        }
    }

    /// The kept partial has no tangents, so it is computed again.
    #[inline(always)]
    fn kept_partial<O: Operation<1, 1>>(&self, operand: usize, result: usize) -> Duals<K> {
        partial_of_one::<_, O, 1, 1>(self.value(operand), self.value(result))
    }
}

/// What rows of a program for reverse sweeps add to adjoints and their tangents:
/// values and tangents are in their slots, those of passive values 0, and what is
/// below these rows has contributed.
pub(crate) fn reverse_with_tangents<const K: usize>(
    program: &Program,
    rows: Range<usize>,
    values: &[f64],
    tangents: &[[f64; K]],
    adjoints: &mut [f64],
    adjoint_tangents: &mut [[f64; K]],
) {
    // Known to the compiler, this makes one check of a slot do for all.
    let slots = values.len();
    assert!(tangents.len() == slots && adjoints.len() == slots && adjoint_tangents.len() == slots);
    // Not compiled for each level of vector instructions: that would make the sweep, which holds
    // the second derivative of every operation, several times over.
    sweep_back::<false>(program, rows, Second { values, tangents, adjoints, adjoint_tangents });
}
