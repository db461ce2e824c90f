//! Bytes as a tape file: as they are, and with a length and a checksum that are right, as whoever makes a file on purpose
//! would have them. What is loaded keeps the invariants of a list, is written again as it was, and runs in every engine
//! without a panic.

#![no_main]

mod exercise;
mod seal;

use ad_core::Tape;
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
            exercise::use_it(&tape);
        }
    }
});
