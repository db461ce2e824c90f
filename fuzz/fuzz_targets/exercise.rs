//! Everything that can be done with a tape from a file.

use ad_core::{Samples, Tape};

/// Saves, prints, derives and, if that does not take long, evaluates the tape.
pub fn use_it(tape: &Tape) {
    let mut written = Vec::new();
    tape.write_to(&mut written).expect("what was loaded can be saved");
    let again = Tape::read_from(&written[..]).expect("what was saved can be loaded");
    let mut twice = Vec::new();
    again.write_to(&mut twice).expect("what was loaded can be saved");
    assert_eq!(written, twice);
    twice.extend(&written);
    let mut stream = &twice[..];
    for left in [1, 0] {
        let next = Tape::read_next(&mut stream).expect("two tapes were saved").expect("two tapes were saved");
        assert_eq!((next.content_hash(), stream.len()), (tape.content_hash(), left * written.len()));
    }
    assert_eq!(tape.content_hash(), again.content_hash());
    let unplaced = tape.without_locations();
    assert_eq!((unplaced.check(), unplaced.content_hash()), (Ok(()), tape.content_hash()));
    // What needs no evaluation, however long that would take.
    assert!(tape.to_string().len() < 1 << 24);
    let _ = (tape.sparsity(), tape.hessian_sparsity(), tape.constants(), tape.optimized(), tape.jvp_tape());
    // A short file may say that a body runs very often.
    if tape.operation_count() > 10_000 {
        return;
    }
    let (n, m) = (tape.num_inputs(), tape.num_outputs());
    let x: Vec<f64> = (0..n).map(|i| 0.5 + i as f64).collect();
    let _ = tape.primal_trace(&x).map(|trace| trace.to_string());
    let _ = (tape.eval(&x), tape.jvp(&x, &vec![1.0; n]), tape.vjp(&x, &vec![1.0; m]), tape.jacobian(&x));
    let _ = (tape.hvp(&x, &vec![1.0; n]), tape.diagnose(&x, &vec![1.0; n]));
    let _ = tape.optimized().tape.eval(&x);
    if let Ok(derivative) = tape.jvp_tape() {
        let _ = derivative.eval(&vec![0.5; derivative.num_inputs()]);
    }
    if m == 1
        && let Ok(samples) = Samples::from_rows(tape, &tape.params().repeat(70))
    {
        let idx: Vec<usize> = (0..70).collect();
        let _ = tape.sum_gradient(&x, &samples, &idx);
    }
}
