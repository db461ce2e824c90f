//! A block of numbers that every operation acts on side by side.

use crate::error::Error;
use crate::function::Function;
use crate::ops::Operation;
use crate::record::{Answer, Question};
use crate::rule::Rule;
use crate::rule_operators;

/// `L` numbers side by side: a replay at `L` points at once.
///
/// Lane `l` of every result has the bits that the scalar operation gives for
/// lane `l` of the operands. Aligned to a cache line, so that vector loads do
/// not straddle two.
///
/// ```
/// use ad_core::{Lanes, Tape};
/// let tape = Tape::record(&[1.0], |x| x[0].exp())?;
/// let y = tape.eval_with(&[Lanes([0.0, 1.0, 2.0, 3.0])])?;
/// assert_eq!(y[0].0[2], tape.eval(&[2.0])?[0]);
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub struct Lanes<const L: usize>(pub [f64; L]);

impl<const L: usize> Lanes<L> {
    /// The results of an operation, lane by lane.
    #[inline(always)]
    pub(crate) fn each<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        let mut results = [Lanes([0.0; L]); M];
        // Loops over indices: what std's functions call is not always inlined,
        // and then not compiled for the vector instructions of the caller.
        for lane in 0..L {
            let mut of_lane = [0.0; N];
            for i in 0..N {
                of_lane[i] = x[i].0[lane];
            }
            let v = O::value(of_lane);
            for j in 0..M {
                results[j].0[lane] = v[j];
            }
        }
        results
    }
}

impl<const L: usize> From<f64> for Lanes<L> {
    #[inline(always)]
    fn from(c: f64) -> Self {
        Lanes([c; L])
    }
}

impl<const L: usize> Rule for Lanes<L> {
    #[inline(always)]
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(x: [Self; N]) -> [Self; M] {
        // Out of line where there is nothing to vectorise: what calls this is
        // compiled for each level of vector instructions.
        #[inline(never)]
        fn one_by_one<O: Operation<N, M>, const N: usize, const M: usize, const L: usize>(
            x: [Lanes<L>; N],
        ) -> [Lanes<L>; M] {
            O::values(x)
        }
        if O::VECTORIZED { O::values(x) } else { one_by_one::<O, N, M, L>(x) }
    }

    fn confirm(question: Question, answer: Answer, a: Self, b: Self) -> Result<(), (Answer, f64, f64)> {
        a.0.into_iter().zip(b.0).try_for_each(|(a, b)| f64::confirm(question, answer, a, b))
    }

    fn call(function: &Function, x: &[Self]) -> Result<Vec<Self>, Error> {
        let mut results = vec![Lanes([0.0; L]); function.num_results()];
        for lane in 0..L {
            let x: Vec<f64> = x.iter().map(|x| x.0[lane]).collect();
            for (result, value) in results.iter_mut().zip(f64::call(function, &x)?) {
                result.0[lane] = value;
            }
        }
        Ok(results)
    }

    fn call_with_tangents(function: &Function, x: &[Self], dx: &[Self]) -> Result<[Vec<Self>; 2], Error> {
        let mut results = [(); 2].map(|()| vec![Lanes([0.0; L]); function.num_results()]);
        for lane in 0..L {
            let [x, dx] = [x, dx].map(|x| x.iter().map(|x| x.0[lane]).collect::<Vec<f64>>());
            for (results, of_lane) in results.iter_mut().zip(f64::call_with_tangents(function, &x, &dx)?) {
                for (result, value) in results.iter_mut().zip(of_lane) {
                    result.0[lane] = value;
                }
            }
        }
        Ok(results)
    }
}

rule_operators!([const L: usize] Lanes<L>);
