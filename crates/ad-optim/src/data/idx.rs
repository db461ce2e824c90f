//! IDX files, as the MNIST family of data sets comes in.

use super::{DataError, DataProblem};
use crate::{Error, files};
use std::path::Path;

/// An array of numbers from an IDX file: images, labels and the like, one item after the other.
///
/// The format: two zero bytes, a type, a number of dimensions; each size in 4 bytes; the numbers, the last dimension
/// fastest. Everything has its highest byte first. The types are bytes without sign (08), with sign (09), whole numbers
/// of 16 (0b) and 32 bits (0c), and floating-point numbers of 32 (0d) and 64 bits (0e). With the feature `gzip` a file
/// may be compressed, as the data sets are handed out (`.gz`).
///
/// The numbers are kept as in the file, so that 60 000 images take no more memory than their bytes, and become `f64`
/// where they are asked for.
///
/// # Example
///
/// ```
/// use ad_optim::data::Idx;
///
/// // Two images of 1 × 3 pixels.
/// let bytes = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, /* the pixels */ 0, 128, 255, 9, 8, 7];
/// let images = Idx::read_bytes("images", &bytes)?;
/// assert_eq!((images.len(), images.shape()), (2, &[2, 1, 3][..]));
/// assert_eq!(images.item(0), Some(vec![0.0, 128.0, 255.0]));
/// assert_eq!(images.item(2), None);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Idx {
    source: String,
    kind: Kind,
    shape: Vec<usize>,
    numbers: Vec<u8>,
}

/// The type of the numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl Kind {
    fn of(code: u8) -> Option<Kind> {
        Some(match code {
            0x08 => Kind::U8,
            0x09 => Kind::I8,
            0x0b => Kind::I16,
            0x0c => Kind::I32,
            0x0d => Kind::F32,
            0x0e => Kind::F64,
            _ => return None,
        })
    }

    fn width(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 => 1,
            Kind::I16 => 2,
            Kind::I32 | Kind::F32 => 4,
            Kind::F64 => 8,
        }
    }

    /// The number that `bytes` hold; 0 for a slice of the wrong length, which `chunks_exact(width)` never gives.
    fn number(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Kind::U8, &[a]) => f64::from(a),
            (Kind::I8, &[a]) => f64::from(i8::from_be_bytes([a])),
            (Kind::I16, &[a, b]) => f64::from(i16::from_be_bytes([a, b])),
            (Kind::I32, &[a, b, c, d]) => f64::from(i32::from_be_bytes([a, b, c, d])),
            (Kind::F32, &[a, b, c, d]) => f64::from(f32::from_be_bytes([a, b, c, d])),
            (Kind::F64, &[a, b, c, d, e, f, g, h]) => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => 0.0,
        }
    }
}

impl Idx {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] where the system cannot, and those of [`read_bytes`](Idx::read_bytes).
    pub fn read_path(path: impl AsRef<Path>) -> Result<Idx, Error> {
        let path = path.as_ref();
        Idx::read_bytes(&path.display().to_string(), &files::read(path)?)
    }

    /// Reads the contents of a file; `source` is what messages call it.
    ///
    /// No memory is reserved for what the sizes of a file promise: they are held against the bytes that are there first.
    /// Of a compressed file no more is decompressed than its sizes ask for.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a file that does not begin as an IDX file does, ends too early, goes on after its last
    /// number, has no numbers at all, or holds one that is NaN or infinite; and for a compressed one that is damaged, or
    /// that this build cannot decompress.
    pub fn read_bytes(source: &str, bytes: &[u8]) -> Result<Idx, Error> {
        let (kind, shape, numbers) = decode(bytes).map_err(|problem| DataError {
            file: source.to_owned(),
            line: None,
            column: None,
            problem,
        })?;
        let idx = Idx { source: source.to_owned(), kind, shape, numbers };
        if let Some((index, value)) = idx.numbers().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(idx.problem(DataProblem::IdxNotFinite { index, value }));
        }
        Ok(idx)
    }

    /// The sizes of all dimensions; the first is the number of items. All are at least 1.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of items: images, or labels; at least 1.
    #[allow(clippy::len_without_is_empty, reason = "an array without items is an error of whatever would read it")]
    pub fn len(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The number of numbers in an item: pixels, or 1 for labels.
    pub fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The numbers of item `index`, from 0; `None` if there is no such item.
    pub fn item(&self, index: usize) -> Option<Vec<f64>> {
        let width = self.kind.width();
        let item = self.numbers.chunks_exact(self.width() * width).nth(index)?;
        Some(item.chunks_exact(width).map(|number| self.kind.number(number)).collect())
    }

    /// All numbers as classes below `classes`, such as the labels of images.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a number that is no class.
    ///
    /// ```
    /// use ad_optim::data::Idx;
    ///
    /// let labels = Idx::read_bytes("labels", &[0, 0, 8, 1, 0, 0, 0, 3, /* the labels */ 9, 0, 2])?;
    /// assert_eq!(labels.classes(10)?, [9, 0, 2]);
    /// let error = labels.classes(9).unwrap_err();
    /// assert_eq!(error.to_string(), "labels: label 0 is 9, but it must be a whole number below 9");
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn classes(&self, classes: usize) -> Result<Vec<usize>, Error> {
        let class = |(index, value): (usize, f64)| {
            if value >= 0.0 && value < classes as f64 && value.fract() == 0.0 {
                Ok(value as usize)
            } else {
                Err(self.problem(DataProblem::Label { index, value, classes }))
            }
        };
        self.numbers().enumerate().map(class).collect()
    }

    fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        self.numbers.chunks_exact(self.kind.width()).map(|number| self.kind.number(number))
    }

    fn problem(&self, problem: DataProblem) -> Error {
        DataError { file: self.source.clone(), line: None, column: None, problem }.into()
    }
}

/// The chosen images and their labels as rows of numbers, ready for `Samples::from_rows`.
///
/// A row holds the numbers of the image, each divided by `scale` (255 makes pixels of 0 to 1), and then a 1 at the place
/// of its class and 0 for the other classes. Choose a part of a large set: a row takes eight bytes a number.
///
/// # Errors
///
/// [`Error::Data`] unless there is one label for each image, and for a label that is no class. [`Error::SampleOutOfRange`]
/// for an image that does not exist, and [`Error::InvalidSetting`] for a scale that is 0 or not finite.
///
/// # Example
///
/// ```
/// use ad_optim::data::{Idx, labelled_rows};
///
/// let images = Idx::read_bytes("images", &[0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, /* the pixels */ 0, 255, 51, 102])?;
/// let labels = Idx::read_bytes("labels", &[0, 0, 8, 1, 0, 0, 0, 2, /* the labels */ 1, 0])?;
/// let rows = labelled_rows(&images, &labels, &[1, 0], 255.0, 2)?;
/// assert_eq!(rows, [0.2, 0.4, 1.0, 0.0, /* the other image */ 0.0, 1.0, 0.0, 1.0]);
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn labelled_rows(
    images: &Idx,
    labels: &Idx,
    chosen: &[usize],
    scale: f64,
    classes: usize,
) -> Result<Vec<f64>, Error> {
    if !scale.is_normal() {
        return Err(Error::setting("labelled_rows", "scale", scale, "finite and not 0; try 255"));
    }
    if labels.len() != images.len() || labels.width() != 1 {
        let problem = DataProblem::Unpaired { images: images.len(), labels: labels.shape.clone() };
        return Err(labels.problem(problem));
    }
    let labels = labels.classes(classes)?;
    let mut rows = Vec::new();
    for &image in chosen {
        let (Some(&label), Some(numbers)) = (labels.get(image), images.item(image)) else {
            return Err(Error::SampleOutOfRange { sample: image, samples: labels.len() });
        };
        rows.extend(numbers.into_iter().map(|number| number / scale));
        rows.extend((0..classes).map(|class| f64::from(u8::from(class == label))));
    }
    Ok(rows)
}

/// Type, sizes and numbers of a file that may be compressed.
fn decode(bytes: &[u8]) -> Result<(Kind, Vec<usize>, Vec<u8>), DataProblem> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    if bytes.is_empty() {
        return Err(DataProblem::Empty);
    }
    if bytes.starts_with(GZIP) { gunzip(bytes) } else { read(&mut Plain(bytes), bytes.len()) }
}

/// Where the bytes come from: a slice, or a decompressor.
trait Source {
    /// Up to `count` bytes; fewer at the end alone.
    fn take(&mut self, count: usize) -> Result<Vec<u8>, DataProblem>;
}

struct Plain<'a>(&'a [u8]);

impl Source for Plain<'_> {
    fn take(&mut self, count: usize) -> Result<Vec<u8>, DataProblem> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        Ok(taken.to_vec())
    }
}

/// Reads a file of at most `most` bytes.
fn read(source: &mut impl Source, most: usize) -> Result<(Kind, Vec<usize>, Vec<u8>), DataProblem> {
    let magic = source.take(4)?;
    let &[0, 0, code, dimensions] = magic.as_slice() else {
        return Err(DataProblem::NotIdx(magic));
    };
    let kind = Kind::of(code).ok_or(DataProblem::UnknownIdxType(code))?;
    if dimensions == 0 {
        return Err(DataProblem::NotIdx(magic));
    }
    let header = 4 + 4 * usize::from(dimensions);
    let sizes = source.take(header - 4)?;
    let size = |bytes: &[u8]| bytes.iter().fold(0, |size, &byte| size << 8 | usize::from(byte));
    let shape: Vec<usize> = sizes.chunks_exact(4).map(size).collect();
    if sizes.len() < header - 4 {
        return Err(DataProblem::Truncated { shape, needs: header, has: 4 + sizes.len() });
    }
    if shape.contains(&0) {
        return Err(DataProblem::NoRows { dropped: 0 });
    }
    let count = shape.iter().try_fold(kind.width(), |product, &size| product.checked_mul(size));
    let Some((count, needs)) = count.and_then(|count| Some((count, count.checked_add(header)?))) else {
        return Err(DataProblem::TooLarge { shape });
    };
    if needs > most {
        return Err(DataProblem::Truncated { shape, needs, has: most });
    }
    let numbers = source.take(count)?;
    if numbers.len() < count {
        return Err(DataProblem::Truncated { shape, needs, has: header + numbers.len() });
    }
    // One byte more, if there is one, is one too many; of a compressed file it makes the checksum be looked at.
    if !source.take(1)?.is_empty() {
        return Err(DataProblem::TrailingBytes { shape, needs });
    }
    Ok((kind, shape, numbers))
}

#[cfg(feature = "gzip")]
fn gunzip(bytes: &[u8]) -> Result<(Kind, Vec<usize>, Vec<u8>), DataProblem> {
    use std::io::Read;

    /// What DEFLATE makes of a byte at the very most.
    const LARGEST_RATIO: usize = 1032;

    struct Compressed<R>(R);

    impl<R: Read> Source for Compressed<R> {
        fn take(&mut self, count: usize) -> Result<Vec<u8>, DataProblem> {
            let mut taken = Vec::new();
            let read = (&mut self.0).take(count as u64).read_to_end(&mut taken);
            read.map_err(|error| DataProblem::Gzip(error.to_string()))?;
            Ok(taken)
        }
    }

    let most = bytes.len().saturating_mul(LARGEST_RATIO);
    read(&mut Compressed(flate2::read::MultiGzDecoder::new(bytes)), most).map_err(|problem| match problem {
        // Nobody has looked how many bytes there are; but there cannot be that many.
        DataProblem::Truncated { shape, has, .. } if has == most => DataProblem::TooLarge { shape },
        problem => problem,
    })
}

#[cfg(not(feature = "gzip"))]
fn gunzip(_: &[u8]) -> Result<(Kind, Vec<usize>, Vec<u8>), DataProblem> {
    Err(DataProblem::GzipIsOff)
}
