//! Files that are there whole or not at all, and the checksum that finds damage
//! in them. For ad-optim as well, which is why it is public; no promise is made
//! to others.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

/// Replaces a file by what `write` writes, so that whoever looks at any moment,
/// after a crash too, finds the old file or the new one: the bytes go to a
/// temporary file beside it, reach the disk, and take the name. On an error the
/// old file is there as it was, and nothing else, but for a disk that fails when
/// all that is left is to make the new name last. What is no regular file, such
/// as a pipe or a terminal, is written to as it is.
///
/// # Errors
///
/// Those of the system, and that of `write`.
pub fn replace<E: From<io::Error>>(path: &Path, write: impl FnOnce(&mut File) -> Result<(), E>) -> Result<(), E> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return write(&mut File::options().write(true).open(path)?);
    }
    let path = end_of_links(path);
    let (temporary, mut file) = create_beside(&path)?;
    let result = write_through(&mut file, &path, write);
    // Some systems rename no file that is open.
    drop(file);
    let result = result.and_then(|()| Ok(fs::rename(&temporary, &path)?));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
        return result;
    }
    Ok(sync_folder_of(&path)?)
}

/// A link stays a link: the file that it leads to is the one that is replaced, also one that is not there yet.
fn end_of_links(path: &Path) -> PathBuf {
    /// What systems follow at most.
    const MOST: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        let Ok(target) = fs::read_link(&path) else { break };
        // An absolute target takes the place of the whole.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// A new file with a name of its own: others may write the same file at the same
/// time, and a crash may have left one behind.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a file"));
    };
    for number in 0_u32.. {
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}-{number}.tmp", process::id()));
        let temporary = path.with_file_name(temporary);
        match File::create_new(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|file| (temporary, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn write_through<E: From<io::Error>>(
    file: &mut File,
    replaced: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    // The old file's permissions; its owner and what else a system knows are those of any new file.
    if let Ok(old) = fs::metadata(replaced) {
        file.set_permissions(old.permissions())?;
    }
    write(file)?;
    Ok(file.sync_all()?)
}

/// Lets the names of the folder that a file is in reach the disk, on systems that can be told to.
///
/// # Errors
///
/// Those of the system, but for the one that says that it does not do that.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    // Elsewhere folders cannot be opened.
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Who may not read a folder may still have written to it, and some file
        // systems know no such thing as a folder that is synced.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// CRC-64/XZ: any change within 64 neighbouring bits is found for certain, any
/// other but for one in 2⁶⁴.
#[derive(Debug, Clone, Copy)]
pub struct Crc64(u64);

/// The checksums of single bytes, each followed by 0 to 7 zeros: eight bytes at
/// once take eight look-ups that do not wait for each other.
static TABLES: [[u64; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u64, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xC96C_5795_D787_0F42 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[zeros - 1][byte];
            tables[zeros][byte] = crc >> 8 ^ tables[0][(crc & 0xFF) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
};

impl Crc64 {
    /// The checksum of no bytes.
    pub fn new() -> Crc64 {
        Crc64(!0)
    }

    /// Takes in further bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = (self.0 ^ u64::from_le_bytes(*word)).to_le_bytes();
            self.0 = (0..8).fold(0, |crc, i| crc ^ TABLES[7 - i][usize::from(word[i])]);
        }
        for &byte in rest {
            self.0 = TABLES[0][usize::from(self.0 as u8 ^ byte)] ^ self.0 >> 8;
        }
    }

    /// The checksum.
    pub fn value(self) -> u64 {
        !self.0
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Crc64::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Crc64;

    #[test]
    fn the_checksum_is_that_of_the_catalogue() {
        let text = b"123456789";
        for split in 0..=text.len() {
            let mut crc = Crc64::new();
            crc.update(&text[..split]);
            crc.update(&text[split..]);
            assert_eq!(crc.value(), 0x995D_C9BB_DF19_39FA);
        }
    }
}
