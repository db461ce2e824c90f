//! Dense row-major matrices.

use std::fmt;
use std::ops::{Index, IndexMut};

use crate::error::{Error, room_for};

/// A dense matrix of `f64`, row-major: entry (i, j) stands at i·cols + j.
///
/// ```
/// use ad_core::Matrix;
/// let a = Matrix::from_rows(&[[1.0, 2.0], [3.0, 4.0]])?;
/// assert_eq!(a[(1, 0)], 3.0);
/// assert_eq!(a.row(0), [1.0, 2.0]);
/// assert_eq!(a.to_string(), "[1, 2]\n[3, 4]\n");
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

/// rows·cols, if a vector can hold so many numbers.
fn size(rows: usize, cols: usize) -> usize {
    let most = isize::MAX as usize / size_of::<f64>();
    match rows.checked_mul(cols) {
        Some(size) if size <= most => size,
        _ => panic!("a matrix of {rows} × {cols} numbers does not fit into the address space"),
    }
}

impl Matrix {
    /// The matrix with the given rows, which must be of equal length.
    ///
    /// # Errors
    ///
    /// [`Error::MatrixShape`] if a row's length differs from the first one's,
    /// [`Error::TooManyNumbers`] if they do not fit into memory.
    pub fn from_rows<R: AsRef<[f64]>>(rows: &[R]) -> Result<Matrix, Error> {
        let cols = rows.first().map_or(0, |row| row.as_ref().len());
        // Nothing is reserved before it is known that the rows fit together.
        let got = rows.iter().fold(0, |sum: usize, row| sum.saturating_add(row.as_ref().len()));
        if rows.iter().any(|row| row.as_ref().len() != cols) || rows.len().checked_mul(cols).is_none() {
            return Err(Error::MatrixShape { rows: rows.len(), cols, got });
        }
        let mut data = room_for("rows", rows.len(), cols)?;
        for row in rows {
            data.extend_from_slice(row.as_ref());
        }
        Matrix::from_vec(rows.len(), cols, data)
    }

    /// The rows × cols matrix with the entries `data`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::MatrixShape`] if `data` does not hold rows·cols numbers.
    ///
    /// ```
    /// # use ad_core::Matrix;
    /// assert!(Matrix::from_vec(2, 2, vec![1.0, 2.0, 3.0]).is_err());
    /// ```
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f64>) -> Result<Matrix, Error> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(Error::MatrixShape { rows, cols, got: data.len() });
        }
        Ok(Matrix { rows, cols, data })
    }

    /// The n × n identity: as seeds of [`Tape::jvp_many`](crate::Tape::jvp_many) it gives the Jacobian.
    ///
    /// # Panics
    ///
    /// If n·n numbers do not fit into the address space; see [`Matrix::try_zeros`].
    ///
    /// ```
    /// # use ad_core::Matrix;
    /// assert_eq!(Matrix::identity(2), Matrix::from_rows(&[[1.0, 0.0], [0.0, 1.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn identity(n: usize) -> Matrix {
        let mut identity = Matrix::zeros(n, n);
        for i in 0..n {
            identity[(i, i)] = 1.0;
        }
        identity
    }

    /// The rows × cols matrix of zeros.
    ///
    /// # Panics
    ///
    /// If rows·cols numbers do not fit into the address space; where the sizes
    /// come from outside, use [`Matrix::try_zeros`].
    ///
    /// ```
    /// # use ad_core::Matrix;
    /// let zeros = Matrix::zeros(2, 3);
    /// assert_eq!((zeros.rows(), zeros.cols()), (2, 3));
    /// assert_eq!(zeros.as_slice(), [0.0; 6]);
    /// ```
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: vec![0.0; size(rows, cols)] }
    }

    /// [`Matrix::zeros`] for sizes that come from outside.
    ///
    /// # Errors
    ///
    /// [`Error::TooLargeMatrix`] if rows·cols numbers do not fit into memory.
    ///
    /// ```
    /// # use ad_core::{Error, Matrix};
    /// assert_eq!(Matrix::try_zeros(2, 3)?, Matrix::zeros(2, 3));
    /// assert!(matches!(Matrix::try_zeros(usize::MAX, 3), Err(Error::TooLargeMatrix { cols: 3, .. })));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn try_zeros(rows: usize, cols: usize) -> Result<Matrix, Error> {
        let mut zeros = Matrix::default();
        zeros.reset(rows, cols)?;
        Ok(zeros)
    }

    /// The rows × cols matrix with the entries `entry(i, j)`.
    #[cfg(any(feature = "nalgebra", feature = "ndarray", feature = "faer"))]
    pub(crate) fn from_entries(rows: usize, cols: usize, entry: impl Fn(usize, usize) -> f64) -> Matrix {
        let mut matrix = Matrix::zeros(rows, cols);
        // Without columns there are no chunks, however many rows.
        for (i, row) in matrix.data.chunks_exact_mut(cols.max(1)).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, x)| *x = entry(i, j));
        }
        matrix
    }

    /// Makes it rows × cols with entries 0, keeping its memory.
    pub(crate) fn reset(&mut self, rows: usize, cols: usize) -> Result<(), Error> {
        self.data.clear();
        (self.rows, self.cols) = (0, 0);
        match rows.checked_mul(cols).filter(|&size| self.data.try_reserve(size).is_ok()) {
            Some(size) => self.data.resize(size, 0.0),
            None => return Err(Error::TooLargeMatrix { rows, cols }),
        }
        (self.rows, self.cols) = (rows, cols);
        Ok(())
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row i.
    ///
    /// # Panics
    ///
    /// If there is no row i, as slices do.
    pub fn row(&self, i: usize) -> &[f64] {
        assert!(i < self.rows, "row {i} of a matrix with {} rows", self.rows);
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row i, to be written.
    ///
    /// # Panics
    ///
    /// If there is no row i, as slices do.
    ///
    /// ```
    /// # use ad_core::Matrix;
    /// let mut a = Matrix::zeros(2, 2);
    /// a.row_mut(1).copy_from_slice(&[3.0, 4.0]);
    /// assert_eq!(a[(1, 0)], 3.0);
    /// ```
    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        assert!(i < self.rows, "row {i} of a matrix with {} rows", self.rows);
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// All entries, row-major.
    ///
    /// ```
    /// # use ad_core::Matrix;
    /// let a = Matrix::from_rows(&[[1.0, 2.0], [3.0, 4.0]])?;
    /// assert_eq!(a.as_slice(), [1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn as_slice(&self) -> &[f64] {
        &self.data
    }

    /// All entries, row-major, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// All entries, row-major, without the shape.
    pub fn into_vec(self) -> Vec<f64> {
        self.data
    }
}

impl Index<(usize, usize)> for Matrix {
    type Output = f64;

    /// Entry (i, j). Panics outside the matrix, as slices do.
    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        assert!(j < self.cols, "column {j} of a matrix with {} columns", self.cols);
        &self.row(i)[j]
    }
}

impl IndexMut<(usize, usize)> for Matrix {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        assert!(j < self.cols, "column {j} of a matrix with {} columns", self.cols);
        &mut self.row_mut(i)[j]
    }
}

impl fmt::Display for Matrix {
    /// A row a line, in brackets, the entries right-aligned in columns. The
    /// formatter's precision, where there is one, applies to every entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = |x: &f64| match f.precision() {
            Some(p) => format!("{x:.p$}"),
            None => x.to_string(),
        };
        let cells: Vec<String> = self.data.iter().map(entry).collect();
        let width = |j: usize| (0..self.rows).map(|i| cells[i * self.cols + j].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.cols).map(width).collect();
        for i in 0..self.rows {
            let row = &cells[i * self.cols..(i + 1) * self.cols];
            let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:>w$}")).collect();
            writeln!(f, "[{}]", padded.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "does not fit into the address space")]
    fn a_size_that_wraps_around_is_no_small_matrix() {
        Matrix::zeros(usize::MAX / 2 + 1, 2);
    }

    #[test]
    #[should_panic(expected = "2305843009213693952 × 1 numbers does not fit")]
    #[cfg(target_pointer_width = "64")]
    fn nor_is_one_whose_bytes_cannot_be_counted() {
        Matrix::zeros(1 << 61, 1);
    }

    #[test]
    fn rows_of_different_lengths_reserve_nothing() {
        // By its first row the matrix would take 2⁴⁰ numbers.
        let long = vec![0.0; 1 << 20];
        let mut rows = vec![&long[..0]; 1 << 20];
        rows[0] = &long;
        assert_eq!(Matrix::from_rows(&rows), Err(Error::MatrixShape { rows: 1 << 20, cols: 1 << 20, got: 1 << 20 }));
    }
}
