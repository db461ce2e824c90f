//! Comparisons of optimised tapes with what they were made of.

use ad_core::{Error, Tape};

use super::{assert_equal, assert_same};

/// What is asked of an optimised tape whatever its function is.
pub fn optimized(tape: &Tape) -> Tape {
    let optimized = tape.optimized();
    optimized.check().unwrap();
    let report = optimized.report;
    assert_eq!((report.before, report.after), (tape.len(), optimized.len()));
    assert_eq!(report.before - report.folded - report.simplified - report.shared - report.dead, report.after);
    let again = optimized.optimized();
    assert_eq!(again.to_string(), optimized.to_string());
    assert_eq!((again.report.before, again.report.after), (report.after, report.after), "{tape}");
    assert_eq!(optimized.params(), tape.params());
    let guards = |tape: &Tape| -> Vec<_> {
        tape.guards().iter().map(|guard| (guard.question(), guard.answer(), guard.location().clone())).collect()
    };
    assert_eq!(guards(&optimized), guards(tape));
    let escapes = |tape: &Tape| -> Vec<_> {
        tape.escapes().iter().map(|escape| (escape.value().to_bits(), escape.location().clone())).collect()
    };
    assert_eq!(escapes(&optimized), escapes(tape));
    optimized.tape
}

/// Compares an optimised tape with its tape at x; whether a guard fails there.
pub fn check_optimized(tape: &Tape, optimized: &Tape, x: &[f64], p: &[f64], w: &[f64]) -> bool {
    let what = || format!("at {x:?} of\n{tape}\n{optimized}");
    match (tape.jvp(x, p), optimized.jvp(x, p)) {
        (Ok((y, dy)), Ok((z, dz))) => {
            assert_same(&z, &y, format_args!("the value {}", what()));
            assert_equal(&dz, &dy, format_args!("the tangent {}", what()));
            assert_same(&optimized.eval(x).unwrap(), &y, what());
            let (before, after) = (tape.vjp(x, w).unwrap().1, optimized.vjp(x, w).unwrap().1);
            assert_eq!(before.len(), after.len());
            false
        }
        (
            Err(Error::BranchChanged { guard, now, lhs, .. }),
            Err(Error::BranchChanged { guard: g, now: n, lhs: l, .. }),
        ) => {
            assert_eq!((guard.question(), now, guard.location()), (g.question(), n, g.location()), "{}", what());
            assert_same(&[lhs], &[l], what());
            true
        }
        (before, after) => panic!("{before:?} and {after:?} {}", what()),
    }
}
