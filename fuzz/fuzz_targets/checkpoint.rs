//! Bytes as a checkpoint: as they are, and with a checksum that is right, as whoever makes a file on purpose would have
//! it. What can be read must be written again with the same meaning.

#![no_main]

mod seal;

use ad_optim::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Checkpoint::from_bytes(bytes);
    let Some(body) = bytes.get(..bytes.len().saturating_sub(8)) else { return };
    let mut forged = body.to_vec();
    // The length of the body stands behind the magic and the version.
    if let Some(length) = forged.get_mut(12..20) {
        length.copy_from_slice(&((body.len() as u64).wrapping_sub(20)).to_le_bytes());
    }
    let Ok(checkpoint) = Checkpoint::from_bytes(&seal::sealed(forged)) else { return };
    let written = checkpoint.to_bytes().expect("what was read fits the format");
    assert_eq!(Checkpoint::from_bytes(&written).as_ref(), Ok(&checkpoint));
});
