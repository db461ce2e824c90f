//! Bytes as a tape file: as they are, and with a length and a checksum that are right, as whoever makes a file on purpose
//! would have them. What is loaded keeps the invariants of a list, is written again as it was, and runs in every engine
//! without a panic.

#![no_main]

mod seal;

use ad_core::{Samples, Tape};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Tape::read_from(bytes);
    let mut forged = bytes[..bytes.len().saturating_sub(8)].to_vec();
    let length = (forged.len() as u64).wrapping_sub(24);
    if let Some(field) = forged.get_mut(16..24) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    if let Ok(tape) = Tape::read_from(&seal::sealed(forged)[..]) {
        assert_eq!(tape.check(), Ok(()));
        // To use a tape takes a hundred times as long as to load it.
        if bytes.len().is_multiple_of(16) {
            use_it(&tape);
        }
    }
});

fn use_it(tape: &Tape) {
    let mut written = Vec::new();
    tape.write_to(&mut written).expect("what was loaded can be saved");
    let again = Tape::read_from(&written[..]).expect("what was saved can be loaded");
    let mut twice = Vec::new();
    again.write_to(&mut twice).expect("what was loaded can be saved");
    assert_eq!(written, twice);
    assert_eq!(tape.content_hash(), again.content_hash());
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
