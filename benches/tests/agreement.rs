//! Everyone who is timed computes the same numbers.

use ad_bench::cases::{self, Failure, Kind};

#[test]
fn every_contender_has_the_numbers_by_hand() -> Result<(), Failure> {
    let mut all = cases::all()?;
    all.extend([
        cases::classical(Kind::Value)?,
        cases::classical(Kind::Gradient)?,
        cases::rosenbrock(Kind::Value)?,
        cases::lotka_volterra(Kind::Value)?,
        cases::determinant(Kind::Value)?,
        cases::network_threads(&[1, 2])?,
    ]);
    all.iter_mut().try_for_each(|case| case.check())
}

/// A check that would pass anything is none.
#[test]
fn a_wrong_number_is_reported() -> Result<(), Failure> {
    let mut case = cases::classical(Kind::Jvp)?;
    case.add("wrong", |out| {
        out.copy_from_slice(&[-47.01429686969138, 1.0]);
        Ok(())
    });
    match case.check() {
        Err(Failure::Mismatch(message)) => {
            assert!(message.contains("computed by wrong"), "{message}");
            Ok(())
        }
        other => panic!("{other:?}"),
    }
}
