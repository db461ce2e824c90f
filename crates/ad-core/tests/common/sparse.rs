//! Comparisons of the sparse drivers with the dense ones.

use ad_core::{SparseJacobian, Tape};

use super::{equal, unit};

/// The columns that stand for row `i` of the Jacobian, each from a sweep of its own.
pub fn columns(tape: &Tape, x: &[f64]) -> Vec<Vec<f64>> {
    (0..x.len()).map(|j| tape.jvp(x, &unit(x.len(), j)).unwrap().1).collect()
}

/// Fails unless nothing outside the pattern differs from 0, and every entry is
/// the one of a sweep of its own.
#[track_caller]
pub fn check_jacobian(tape: &Tape, x: &[f64], what: &str) {
    let (m, n) = (tape.num_outputs(), tape.num_inputs());
    let plan = SparseJacobian::new(tape).unwrap();
    let sparse = plan.values(x).unwrap();
    assert_eq!(sparse.sparsity(), &tape.sparsity().unwrap());
    assert_eq!((sparse.rows(), sparse.cols()), (m, n));
    let columns = columns(tape, x);
    let rows: Vec<Vec<f64>> = (0..m).map(|i| tape.vjp(x, &unit(m, i)).unwrap().1).collect();
    for i in 0..m {
        for j in 0..n {
            let alone = if plan.is_forward() { columns[j][i] } else { rows[i][j] };
            let entry = sparse.get(i, j).unwrap();
            assert!(equal(entry, alone), "({i}, {j}) is {entry}, alone {alone}: {what} at {x:?}\n{tape}");
        }
    }
}

/// Whether the value or the gradient is NaN: an operation is outside the domain of its derivatives.
pub fn is_outside(tape: &Tape, x: &[f64]) -> bool {
    let (y, gradient) = tape.gradient(x).unwrap();
    y.is_nan() || gradient.iter().any(|entry| entry.is_nan())
}

/// The same for a Hessian, whose entries may come from either half. Outside the
/// domain the pattern tells nothing, and more entries may be NaN.
#[track_caller]
pub fn check_hessian(tape: &Tape, x: &[f64], what: &str) {
    let n = tape.num_inputs();
    let outside = is_outside(tape, x);
    let sparse = tape.sparse_hessian(x).unwrap();
    assert_eq!(sparse.sparsity(), &tape.hessian_sparsity().unwrap());
    assert_eq!(sparse.sparsity(), &sparse.sparsity().transposed());
    let alone: Vec<Vec<f64>> = (0..n).map(|j| tape.hvp(x, &unit(n, j)).unwrap()).collect();
    for i in 0..n {
        for j in 0..n {
            let entry = sparse.get(i, j).unwrap();
            let alone = [alone[j][i], alone[i][j]];
            assert_eq!(entry.to_bits(), sparse.get(j, i).unwrap().to_bits());
            if sparse.sparsity().contains(i, j) {
                assert!(
                    alone.iter().any(|&alone| equal(entry, alone)) || (outside && entry.is_nan()),
                    "({i}, {j}) is {entry}, alone {alone:?}: {what} at {x:?}\n{tape}"
                );
            } else if !outside {
                assert_eq!(alone, [0.0; 2], "({i}, {j}): {what} at {x:?}\n{tape}");
            }
        }
    }
}
