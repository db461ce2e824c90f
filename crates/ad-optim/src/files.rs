//! Files that are there whole or not at all.

use crate::Error;
use ad_core::durable;
use std::fs;
use std::io::Write;
use std::path::Path;

/// The whole of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Replaces a file by `contents`, as [`durable::replace`] says.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let written = durable::replace(path, |file| file.write_all(contents));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Makes a folder, and those that it lies in, so that they are still there after a crash.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    let made = fs::create_dir_all(path).and_then(|()| missing.into_iter().rev().try_for_each(durable::sync_folder_of));
    made.map_err(|source| Error::Write { path: path.to_owned(), source })
}
