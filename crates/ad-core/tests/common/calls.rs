//! Comparisons of tapes that call functions with the same tapes written out.

use ad_core::{Error, Tape};

use super::agreement::Seen;
use super::{assert_same, unit};

/// Counts the derivatives that differ by more than rounding can explain. What
/// rounding does to them is seen where forward and reverse sweeps differ.
fn compare(called: &[f64], flat: &[f64], other_way: &[f64], seen: &mut Seen) {
    assert_eq!(called.len(), flat.len());
    let all = [called, flat, other_way].concat();
    if all.iter().any(|number| !number.is_finite()) {
        return;
    }
    let size = all.iter().fold(1.0, |size: f64, number| size.max(number.abs()));
    let noise = flat.iter().zip(other_way).fold(0.0, |noise: f64, (a, b)| noise.max((a - b).abs()));
    let far = |(&a, &b): (&f64, &f64)| (a - b).abs() > 1e-9 * size + 1e4 * noise;
    seen.note("derivatives");
    if called.iter().zip(flat).any(far) {
        seen.note("far");
    }
}

/// Compares a tape that calls functions with the same tape written out.
pub fn check_twins(called: &Tape, flat: &Tape, x: &[f64], seen: &mut Seen) {
    let (y, expected) = (called.eval(x), flat.eval(x));
    let (y, expected) = match (y, expected) {
        (Ok(y), Ok(expected)) => (y, expected),
        (Err(a @ Error::BranchChanged { .. }), Err(b @ Error::BranchChanged { .. })) => {
            // The same comparison of the same numbers. (Written out it stands where the body is replayed.)
            let asked = |error: &Error| match error {
                Error::BranchChanged { guard, now, lhs, rhs, .. } => {
                    let bits = [lhs, rhs].map(|x| if x.is_nan() { 0 } else { x.to_bits() });
                    (guard.question(), guard.answer(), *now, bits)
                }
                other => panic!("{other}"),
            };
            // Where several guards fail, one in a body may be met before one above the call.
            if asked(&a) != asked(&b) {
                assert!(flat.guards().len() > 1, "{a}\n{b}\nat {x:?} of\n{called}\n{flat}");
                seen.note("another guard");
            }
            seen.note("changed");
            return;
        }
        (y, expected) => panic!("{y:?} by calls, {expected:?} written out, at {x:?} of\n{called}\n{flat}"),
    };
    assert_same(&y, &expected, format_args!("at {x:?} of\n{called}\n{flat}"));
    seen.result(&y);
    let (n, m) = (called.num_inputs(), called.num_outputs());
    let [of_called, of_flat] = [called, flat].map(|tape| tape.at(x).unwrap());
    for i in 0..n {
        let by_rows: Vec<f64> = (0..m).map(|j| of_flat.vjp(&unit(m, j)).unwrap()[i]).collect();
        compare(&of_called.jvp(&unit(n, i)).unwrap(), &of_flat.jvp(&unit(n, i)).unwrap(), &by_rows, seen);
    }
    for j in 0..m {
        let by_columns: Vec<f64> = (0..n).map(|i| of_flat.jvp(&unit(n, i)).unwrap()[j]).collect();
        compare(&of_called.vjp(&unit(m, j)).unwrap(), &of_flat.vjp(&unit(m, j)).unwrap(), &by_columns, seen);
    }
    if m == 1 && n < 8 {
        let (of_called, of_flat) = (called.hessian(x).unwrap(), flat.hessian(x).unwrap());
        for i in 0..n {
            let row: Vec<f64> = (0..n).map(|j| flat.hvp(x, &unit(n, j)).unwrap()[i]).collect();
            compare(of_called.row(i), of_flat.row(i), &row, seen);
        }
    }
}
