//! Files that are there whole or not at all.

use crate::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process;

/// The whole of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Replaces a file by `contents`, so that whoever looks at any moment, after a crash too, finds the old file or the new
/// one: the bytes go to a temporary file beside it, reach the disk, and take the name. On an error the old file is there
/// as it was, but for a disk that fails when all that is left is to make the new name last. What is no regular file, such as a pipe or a terminal, is written to as it is.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let special = fs::metadata(path).is_ok_and(|found| !found.is_file());
    let written = if special { fs::write(path, contents) } else { replace_regular(path, contents) };
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn replace_regular(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A link stays a link: the file that it leads to is the one that is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a file"));
    };
    // A name of its own: others may write the same file at the same time, and a crash may have left one behind.
    let (temporary, file) = (0_u32..)
        .find_map(|number| {
            let mut temporary = name.to_owned();
            temporary.push(format!(".{}-{number}.tmp", process::id()));
            let temporary = path.with_file_name(temporary);
            match File::create_new(&temporary) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                result => Some(result.map(|file| (temporary, file))),
            }
        })
        .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))?;
    let result = write_through(file, contents, &path).and_then(|()| fs::rename(&temporary, &path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
        return result;
    }
    sync_folder_of(&path)
}

/// Makes a folder, and those that it lies in, so that they are still there after a crash.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    let made = fs::create_dir_all(path).and_then(|()| missing.into_iter().rev().try_for_each(sync_folder_of));
    made.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Brings the name of a file or a folder to the disk, which is done when the folder that it stands in is there.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Not every system lets folders be opened for that, and not every one that does syncs them.
    let Ok(folder) = File::open(folder) else { return Ok(()) };
    match folder.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => Ok(()),
        result => result,
    }
}

fn write_through(mut file: File, contents: &[u8], replaced: &Path) -> io::Result<()> {
    // Who may read the old file may read the new one, and nobody else.
    if let Ok(old) = fs::metadata(replaced) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(contents)?;
    file.sync_all()
}
