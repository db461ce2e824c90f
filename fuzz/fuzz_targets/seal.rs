//! The checksum of the project's files.

use ad_core::durable::Crc64;

/// The bytes with their checksum behind them.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut checksum = Crc64::new();
    checksum.update(&bytes);
    bytes.extend(checksum.value().to_le_bytes());
    bytes
}
