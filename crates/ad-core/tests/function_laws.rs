//! Laws of rows that call functions, on random programs and at their limits:
//! a call is the code written out, memory and time are those of the body, and
//! what is wrong is an error. (`engines.rs`, `derive.rs` and `optimize.rs` hold
//! such programs to what holds for all tapes, `allocation.rs` to no allocation.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::iter::repeat_n;
use std::time::{Duration, Instant};

use ad_core::{Error, Tape, Var};
use allocation_counter::measure;
use common::programs::{Program, Purpose, Random};
use common::{assert_same, unit};

const PROGRAMS: usize = 800;

// A call is the code written out.

/// What was compared, so that a test cannot pass because nothing is.
#[derive(Debug, Default)]
struct Seen {
    finite: usize,
    changed: usize,
    derivatives: usize,
    far: usize,
}

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
    seen.derivatives += 1;
    seen.far += usize::from(called.iter().zip(flat).any(|pair| far(pair)));
}

fn check_twins(called: &Tape, flat: &Tape, x: &[f64], seen: &mut Seen) {
    let (y, expected) = (called.eval(x), flat.eval(x));
    let (y, expected) = match (y, expected) {
        (Ok(y), Ok(expected)) => (y, expected),
        (Err(a @ Error::BranchChanged { .. }), Err(b @ Error::BranchChanged { .. })) => {
            // The same comparison of the same numbers, whichever list it is a row of.
            let asked = |error: &Error| match error {
                Error::BranchChanged { guard, location, now, lhs, rhs, .. } => {
                    let bits = [lhs, rhs].map(|x| if x.is_nan() { 0 } else { x.to_bits() });
                    (guard.question(), guard.answer(), location.clone(), *now, bits)
                }
                other => panic!("{other}"),
            };
            assert_eq!(asked(&a), asked(&b), "at {x:?} of\n{called}");
            seen.changed += 1;
            return;
        }
        (y, expected) => panic!("{y:?} by calls, {expected:?} written out, at {x:?} of\n{called}\n{flat}"),
    };
    assert_same(&y, &expected, format_args!("at {x:?} of\n{called}\n{flat}"));
    seen.finite += usize::from(y.iter().all(|y| y.is_finite()));
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

#[test]
fn calls_are_the_code_written_out_in_random_programs() {
    let mut seen = Seen::default();
    let (mut calling, mut nested, mut kinds) = (0, 0, [0; 4]);
    for index in 0..PROGRAMS {
        let random = &mut Random::new(31, index);
        let purpose = Purpose { single: index % 2 == 0, params: false, guarded: 20 };
        let [called, flat] = Program::called_and_flat(random, purpose);
        assert!(flat.tape.functions().is_empty());
        let functions = called.tape.functions();
        calling += usize::from(!functions.is_empty());
        nested += usize::from(functions.iter().any(|function| !function.body().unwrap().functions().is_empty()));
        for function in functions {
            let name = function.to_string();
            let kind = ["map", "Σ", "scan"].iter().position(|word| name.starts_with(word)).unwrap_or(3);
            kinds[kind] += 1;
        }
        check_twins(&called.tape, &flat.tape, &called.x0, &mut seen);
        for _ in 0..3 {
            let (x, k) = (random.point(called.x0.len()), random.point(called.k0.len()));
            let [called, flat] = [&called, &flat].map(|program| program.tape.with_params(&k).unwrap());
            check_twins(&called, &flat, &x, &mut seen);
        }
    }
    let Seen { finite, changed, derivatives, far } = seen;
    assert!(finite > PROGRAMS && changed > PROGRAMS / 20 && derivatives > 10 * PROGRAMS, "{seen:?}");
    assert!(far <= derivatives / 1000, "{seen:?}");
    assert!(calling > PROGRAMS / 2 && nested > PROGRAMS / 5, "{calling} programs call, {nested} nest");
    assert!(kinds.iter().all(|&kind| kind > PROGRAMS / 20), "map, Σ, scan, call: {kinds:?}");
}
