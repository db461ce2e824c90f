//! Tapes in files: [`Tape::save`] and [`Tape::load`].
//!
//! `docs/tape-files.md` describes the format byte by byte and says what is
//! promised. A tape is taken apart into a flat list of parts, each after those
//! that it uses (`parts.rs`), so that nothing here recurses; the parts are
//! written and read as bytes (`bytes.rs`) or handed to serde (`document.rs`).
//! Whatever comes from outside is put together by [`parts::Assembler`] alone,
//! which lets pass what a recording could have left and nothing else.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::durable;
use crate::error::{Error, row_text};
use crate::tape::Tape;

mod bytes;
#[cfg(feature = "serde")]
mod document;
mod parts;

/// The version of the format that is written; it is the one that is read as well.
const VERSION: u32 = 1;

impl Tape {
    /// Writes the tape to a file, which [`Tape::load`] reads again: the same
    /// list, bit by bit, with parameters, names, guards, escapes, places in the
    /// code and the tapes that it calls.
    ///
    /// A file that is there already is replaced at once: whoever looks, after a
    /// crash too, finds the old file or the new one. The memory that it takes
    /// does not grow with the tape. Files are the same on every machine;
    /// `docs/tape-files.md` describes them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the path if the system cannot write; then the old file
    /// is there as it was, but for a disk that fails when the new one is complete
    /// and only its name may not last. [`Error::NotStorable`] if the tape calls a
    /// [`Custom`](crate::Custom) or an [`Implicit`](crate::Implicit), which are
    /// code, or derivatives of functions nested too deep;
    /// [`Error::TooLargeForFile`] if a name, say, is longer than a file can say.
    ///
    /// ```
    /// use ad_core::Tape;
    /// # let folder = std::env::temp_dir().join(format!("ad-core-save-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp())?;
    /// tape.save(folder.join("model.tape"))?;
    ///
    /// // In another program:
    /// let tape = Tape::load(folder.join("model.tape"))?;
    /// assert_eq!(tape.eval(&[2.0, 4.0])?, [-47.01429686969138]);
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let file = bytes::File::of(self)?;
        durable::replace(path, |to| file.write(to)).map_err(|error| writing_failed(Some(path), &error))
    }

    /// Writes what [`Tape::save`] writes to anything that takes bytes. It is
    /// handed large pieces: `w` needs no buffer of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with what `w` says, after which it may hold a part of the
    /// file; [`Error::NotStorable`] and [`Error::TooLargeForFile`] as [`Tape::save`],
    /// before anything is written.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let tape = Tape::record(&[3.0], |x| x[0] * x[0])?;
    /// let mut bytes = Vec::new();
    /// tape.write_to(&mut bytes)?;
    /// assert_eq!(Tape::read_from(&bytes[..])?.to_string(), tape.to_string());
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn write_to(&self, mut w: impl Write) -> Result<(), Error> {
        let file = bytes::File::of(self)?;
        file.write(&mut w).and_then(|()| w.flush()).map_err(|error| writing_failed(None, &error))
    }

    /// The tape in a file that [`Tape::save`] wrote, in this program or another
    /// one, on this machine or another one.
    ///
    /// All results of the loaded tape have the bits of the saved one. Files of
    /// version 1 will be readable for ever.
    ///
    /// The file need not be trusted: one that is damaged, or made on purpose, is
    /// an error or a tape that passes [`Tape::check`] and can be used like any
    /// other. Loading takes memory for at most four times the file's bytes and a
    /// mebibyte. How long a tape runs is another matter: a short file can say that a body is to
    /// run 10¹⁸ times; [`Tape::operation_count`] says how much work it is.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system cannot read, [`Error::TapeFile`] if the file
    /// is none, is damaged or cut off, or is of a later version; both with the path.
    ///
    /// ```
    /// use ad_core::{Error, Tape};
    /// match Tape::load("Cargo.toml") {
    ///     Err(Error::TapeFile { path, offset, .. }) => {
    ///         assert_eq!((path.as_deref(), offset), (Some("Cargo.toml".as_ref()), 0));
    ///     }
    ///     other => panic!("{other:?}"),
    /// }
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Tape, Error> {
        let path = path.as_ref();
        let read = || bytes::read(File::open(path).map_err(bytes::Failure::Io)?);
        read().map_err(|failure| reading_failed(Some(path), failure))
    }

    /// Reads what [`Tape::write_to`] wrote, to the end: bytes that follow the
    /// tape are an error, and [`Tape::read_next`] is for streams that go on. For
    /// errors and what is promised see [`Tape::load`].
    ///
    /// `r` is read in large pieces and needs no buffer. All that it gives is kept
    /// until its length is known; of a stranger's stream take no more than you
    /// have room for, with [`Read::take`].
    ///
    /// # Errors
    ///
    /// Those of [`Tape::load`], without a path.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let mut bytes = Vec::new();
    /// Tape::record(&[3.0], |x| x[0] * x[0])?.write_to(&mut bytes)?;
    /// assert_eq!(Tape::read_from(&bytes[..])?.gradient(&[5.0])?, (25.0, vec![10.0]));
    ///
    /// bytes[40] ^= 1;
    /// let error = Tape::read_from(&bytes[..]).unwrap_err();
    /// assert!(error.to_string().contains("checksum"), "{error}");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn read_from(r: impl Read) -> Result<Tape, Error> {
        bytes::read(r).map_err(|failure| reading_failed(None, failure))
    }

    /// Reads the tape that a stream goes on with, and no byte more: what follows
    /// is left in `r`, such as the next tape. `None` where the stream ends.
    ///
    /// So several [`Tape::write_to`] to one writer are read back by as many calls,
    /// and a tape can stand between other things. A tape knows its length; what
    /// else is to tell the pieces of a stream apart is up to you. For a whole file
    /// use [`Tape::load`], which says so where something was added to it.
    ///
    /// Pass `&mut r`: a `&[u8]` that is passed by value is copied, and gives its first
    /// tape again and again. It is read in large pieces and needs no buffer; where it has
    /// one, such as a [`BufReader`](std::io::BufReader), go on reading from that
    /// and not from what it wraps. For what is promised see [`Tape::read_from`]; the
    /// memory that it takes is in proportion to the tape, whatever follows it.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::load`], without a path; bytes are counted from the
    /// beginning of the tape. After an error `r` stands somewhere in the tape, or
    /// behind it: nothing that follows can be trusted to be a beginning.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let mut stream = Vec::new();
    /// Tape::record(&[3.0], |x| x[0] * x[0])?.write_to(&mut stream)?;
    /// Tape::record(&[3.0], |x| x[0].sqrt())?.write_to(&mut stream)?;
    ///
    /// let (mut reader, mut values) = (&stream[..], Vec::new());
    /// while let Some(tape) = Tape::read_next(&mut reader)? {
    ///     values.extend(tape.eval(&[4.0])?);
    /// }
    /// assert_eq!(values, [16.0, 2.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn read_next(r: impl Read) -> Result<Option<Tape>, Error> {
        bytes::read_next(r).map_err(|failure| reading_failed(None, failure))
    }
}

fn writing_failed(path: Option<&Path>, error: &io::Error) -> Error {
    failed("writing the tape file", path, error)
}

fn reading_failed(path: Option<&Path>, failure: bytes::Failure) -> Error {
    match failure {
        bytes::Failure::Io(error) => failed("reading the tape file", path, &error),
        bytes::Failure::Bad(offset, problem) => {
            Error::TapeFile { path: path.map(Into::into), offset, problem: Box::new(problem) }
        }
    }
}

fn failed(what: &'static str, path: Option<&Path>, error: &io::Error) -> Error {
    Error::Io { what, path: path.map(Into::into), kind: error.kind(), message: error.to_string() }
}

/// Why a tape file, or a document of a tape, cannot be loaded; in [`Error::TapeFile`].
///
/// ```
/// use ad_core::{Error, Tape, TapeFileProblem};
/// let Err(Error::TapeFile { problem, .. }) = Tape::read_from(&b"%PDF-1.7"[..]) else { panic!() };
/// assert!(matches!(*problem, TapeFileProblem::NotATapeFile { .. }));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TapeFileProblem {
    /// It does not begin as tape files do.
    NotATapeFile {
        /// What it begins with.
        found: Vec<u8>,
    },
    /// The format is of a version that this library does not know.
    UnknownVersion {
        /// The version of the file.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
    /// The file ends too early.
    CutOff {
        /// The bytes that it should have; `None` where the length itself is missing.
        expected: Option<u64>,
        /// The bytes that it has.
        found: u64,
    },
    /// There are bytes after the end of the tape.
    TooLong {
        /// The bytes that it should have.
        expected: u64,
    },
    /// The bytes are not those that were written.
    Checksum {
        /// The checksum that the file ends with.
        stored: u64,
        /// The checksum of its bytes.
        computed: u64,
    },
    /// The tape uses an operation that this library does not have.
    UnknownOperation {
        /// Its name.
        name: String,
    },
    /// There are to be more of something than the file has room for, or than there may be.
    TooMany {
        /// What.
        what: &'static str,
        /// How many there are to be.
        found: u64,
        /// The most there can be.
        most: u64,
    },
    /// Something else stands where only certain things can.
    Unexpected {
        /// What it is.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A list breaks an invariant; see [`Tape::check`]. Or a part of the file is none that a recording leaves.
    Malformed {
        /// The part of the file, counted from 0; `None` if it is all of them.
        part: Option<usize>,
        /// The row, if one breaks it, counted from 0: printed traces call row 0 v₁.
        row: Option<usize>,
        /// The name of that row's operation.
        operation: Option<&'static str>,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no memory for the tape.
    OutOfMemory {
        /// How many bytes were asked for.
        bytes: u64,
    },
}

/// What to do about a file that is whole, and whose content is none that a recording leaves.
const ADVICE: &str = "ad-core saves nothing like that, so another program made or changed it: \
                      use another copy, or save the tape again";

impl TapeFileProblem {
    /// The same problem, said to be in a part of the file.
    fn in_part(self, number: usize) -> TapeFileProblem {
        match self {
            TapeFileProblem::Malformed { row, operation, reason, .. } => {
                TapeFileProblem::Malformed { part: Some(number), row, operation, reason }
            }
            other => other,
        }
    }
}

impl fmt::Display for TapeFileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TapeFileProblem::NotATapeFile { found } => write!(
                f,
                "this is no tape file: it begins with \"{}\", and tape files with \"{}\"; \
                 give a file that Tape::save or Tape::write_to wrote, and of a stream \
                 read first what stands before the tape",
                found.escape_ascii(),
                bytes::MAGIC.escape_ascii()
            ),
            TapeFileProblem::UnknownVersion { found, known } => write!(
                f,
                "the file has version {found} of the format, and this library knows version {known}: {}",
                match found > known {
                    true => "a newer version of ad-core wrote it; load it with that one",
                    false => "no version of ad-core wrote that; use another copy",
                }
            ),
            TapeFileProblem::CutOff { expected: Some(expected), found } => {
                write!(f, "the file should have {expected} bytes and has {found}: it was cut off; use another copy")
            }
            TapeFileProblem::CutOff { expected: None, found: 0 } => write!(f, "the file is empty; use another copy"),
            TapeFileProblem::CutOff { expected: None, found } => {
                write!(f, "the file is cut off after {found} bytes, within its header; use another copy")
            }
            TapeFileProblem::TooLong { expected } => {
                write!(
                    f,
                    "the tape ends here, after {expected} bytes, and the file does not: something was added to it; \
                     use another copy, or Tape::read_next if there is to be more than one tape"
                )
            }
            TapeFileProblem::Checksum { stored, computed } => write!(
                f,
                "a byte of the file is damaged: the checksum that stands here is {stored:016x}, and that of what \
                 stands before it {computed:016x}; use another copy"
            ),
            TapeFileProblem::UnknownOperation { name } => write!(
                f,
                "the tape uses the operation {name:?}, which this version of ad-core does not have: \
                 a newer version may have written it; load it with that one"
            ),
            TapeFileProblem::TooMany { what, found, most } => {
                write!(
                    f,
                    "it says that there are {found} {what}, and there is room for {most} at most: another program made or \
                     changed it, or a machine with longer words wrote it; use another copy, or load it there"
                )
            }
            TapeFileProblem::Unexpected { what, found, expected } => {
                write!(f, "{what}: found {found}, expected {expected}; {ADVICE}")
            }
            TapeFileProblem::Malformed { part, row, operation, reason } => {
                if let Some(part) = part {
                    write!(f, "part {part}: ")?;
                }
                if let Some(row) = *row {
                    write!(f, "{}: ", row_text(row, *operation))?;
                }
                write!(f, "{reason}; {ADVICE}")
            }
            TapeFileProblem::OutOfMemory { bytes } => write!(
                f,
                "there is no memory for {bytes} bytes of the tape: make room, or load it on a machine that has more"
            ),
        }
    }
}
