//! [`Matrix`] from and to the matrices of other crates, and the marks that
//! ndarray asks of numbers.
//!
//! Every crate lays its entries out in its own way, so each conversion copies.

#[cfg(any(feature = "nalgebra", feature = "ndarray", feature = "faer"))]
use crate::matrix::Matrix;

#[cfg(feature = "nalgebra")]
mod of_nalgebra {
    use super::Matrix;
    use nalgebra::DMatrix;

    /// Copies the entries, column by column as nalgebra keeps them.
    ///
    /// ```
    /// use ad_core::{Matrix, Tape};
    /// use nalgebra::DMatrix;
    ///
    /// let tape = Tape::record(&[1.0, 2.0], |x| [x[0] * x[1], x[0] + x[1], x[1].powi(2)])?;
    /// let jacobian = DMatrix::from(tape.jacobian(&[1.0, 2.0])?);
    /// assert_eq!(jacobian.shape(), (3, 2));
    /// assert_eq!(jacobian.transpose() * &jacobian, DMatrix::from_row_slice(2, 2, &[5.0, 3.0, 3.0, 18.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    impl From<&Matrix> for DMatrix<f64> {
        fn from(matrix: &Matrix) -> Self {
            DMatrix::from_row_slice(matrix.rows(), matrix.cols(), matrix.as_slice())
        }
    }

    /// Copies the entries, row by row as [`Matrix`] keeps them.
    ///
    /// ```
    /// use ad_core::Matrix;
    /// use nalgebra::DMatrix;
    ///
    /// let matrix = Matrix::from(DMatrix::from_row_slice(2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    /// assert_eq!(matrix, Matrix::from_rows(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    impl From<&DMatrix<f64>> for Matrix {
        fn from(matrix: &DMatrix<f64>) -> Self {
            Matrix::from_entries(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, j)])
        }
    }

    super::from_owned!(DMatrix<f64>);
}

#[cfg(feature = "ndarray")]
mod of_ndarray {
    use super::Matrix;
    use crate::dual::Dual;
    use crate::record::Var;
    use ndarray::{Array2, ScalarOperand};

    /// A `Var` may stand on the right of an operator whose left side is an array.
    impl ScalarOperand for Var {}

    /// A `Dual` may stand on the right of an operator whose left side is an array.
    impl<T: Clone + 'static> ScalarOperand for Dual<T> {}

    /// Copies the entries.
    ///
    /// # Panics
    ///
    /// If the matrix has no entries and an axis longer than ndarray allows, `isize::MAX`.
    ///
    /// ```
    /// use ad_core::{Matrix, Tape};
    /// use ndarray::{Array2, array};
    ///
    /// let tape = Tape::record(&[1.0, 2.0], |x| [x[0] * x[1], x[0] + x[1], x[1].powi(2)])?;
    /// let jacobian = Array2::from(tape.jacobian(&[1.0, 2.0])?);
    /// assert_eq!(jacobian, array![[2.0, 1.0], [1.0, 1.0], [0.0, 4.0]]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    impl From<&Matrix> for Array2<f64> {
        fn from(matrix: &Matrix) -> Self {
            Array2::from_shape_fn((matrix.rows(), matrix.cols()), |at| matrix[at])
        }
    }

    /// Copies the entries, whatever the layout of the array.
    ///
    /// ```
    /// use ad_core::Matrix;
    /// use ndarray::array;
    ///
    /// let matrix = Matrix::from(array![[1.0, 2.0], [3.0, 4.0]].reversed_axes());
    /// assert_eq!(matrix, Matrix::from_rows(&[[1.0, 3.0], [2.0, 4.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    impl From<&Array2<f64>> for Matrix {
        fn from(array: &Array2<f64>) -> Self {
            Matrix::from_entries(array.nrows(), array.ncols(), |i, j| array[(i, j)])
        }
    }

    super::from_owned!(Array2<f64>);
}

#[cfg(feature = "faer")]
mod of_faer {
    use super::Matrix;
    use faer::Mat;

    /// Copies the entries, column by column as faer keeps them.
    ///
    /// ```
    /// use ad_core::{Matrix, Tape};
    /// use faer::Mat;
    ///
    /// let tape = Tape::record(&[1.0, 2.0], |x| [x[0] * x[1], x[0] + x[1], x[1].powi(2)])?;
    /// let jacobian = Mat::from(tape.jacobian(&[1.0, 2.0])?);
    /// assert_eq!((jacobian.nrows(), jacobian.ncols()), (3, 2));
    /// assert_eq!(jacobian[(2, 1)], 4.0);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    impl From<&Matrix> for Mat<f64> {
        fn from(matrix: &Matrix) -> Self {
            Mat::from_fn(matrix.rows(), matrix.cols(), |i, j| matrix[(i, j)])
        }
    }

    /// Copies the entries, row by row as [`Matrix`] keeps them.
    ///
    /// ```
    /// use ad_core::Matrix;
    /// use faer::Mat;
    ///
    /// let matrix = Matrix::from(Mat::from_fn(2, 3, |i, j| (3 * i + j) as f64));
    /// assert_eq!(matrix, Matrix::from_rows(&[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    impl From<&Mat<f64>> for Matrix {
        fn from(matrix: &Mat<f64>) -> Self {
            Matrix::from_entries(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, j)])
        }
    }

    super::from_owned!(Mat<f64>);
}

/// The conversions of matrices that are given away: those of references.
#[cfg(any(feature = "nalgebra", feature = "ndarray", feature = "faer"))]
macro_rules! from_owned {
    ($Theirs:ty) => {
        /// As from a reference: the layouts differ, so the entries are copied all the same.
        impl From<Matrix> for $Theirs {
            fn from(matrix: Matrix) -> Self {
                Self::from(&matrix)
            }
        }

        /// As from a reference: the layouts differ, so the entries are copied all the same.
        impl From<$Theirs> for Matrix {
            fn from(matrix: $Theirs) -> Self {
                Self::from(&matrix)
            }
        }
    };
}
#[cfg(any(feature = "nalgebra", feature = "ndarray", feature = "faer"))]
use from_owned;
