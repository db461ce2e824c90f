//! What the tests of this crate share: comparisons of numbers, and points.

#![allow(dead_code)] // Each test file is a crate of its own and uses some of it.

pub mod agreement;
pub mod calls;
pub mod cases;
pub mod derivatives;
mod operations;
pub mod optimized;
pub mod programs;
pub mod sparse;

#[allow(unused_imports)]
pub(crate) use operations::operation_list;

/// Whether the last operand of an operation is a constant of the call, `c` in the list of operations.
pub fn takes_constant(op: ad_core::Op) -> bool {
    matches!(op, ad_core::Op::Powi | ad_core::Op::Powf)
}

/// Equal to the last bit; all NaN are equal.
pub fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Equal as numbers: ±0 are equal, and so are all NaN.
pub fn equal(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// [`same`] for each pair of two slices of one length.
pub fn all_same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same(a, b))
}

/// [`equal`] for each pair of two slices of one length.
pub fn all_equal(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| equal(a, b))
}

/// Fails with both sides unless they are equal to the last bit.
#[track_caller]
pub fn assert_same(a: &[f64], b: &[f64], what: impl std::fmt::Display) {
    assert!(all_same(a, b), "{what}:\n left {a:?}\nright {b:?}");
}

/// Fails with both sides unless they are equal as numbers.
#[track_caller]
pub fn assert_equal(a: &[f64], b: &[f64], what: impl std::fmt::Display) {
    assert!(all_equal(a, b), "{what}:\n left {a:?}\nright {b:?}");
}

/// The unit vector `i` of dimension `n`.
pub fn unit(n: usize, i: usize) -> Vec<f64> {
    (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect()
}

/// Every choice of one element of each list.
pub fn product(lists: &[&[f64]]) -> Vec<Vec<f64>> {
    lists.iter().fold(vec![Vec::new()], |points, list| {
        points.iter().flat_map(|point| list.iter().map(move |&x| point.iter().copied().chain([x]).collect())).collect()
    })
}
