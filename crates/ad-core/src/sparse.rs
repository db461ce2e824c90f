//! Sparse Jacobians and Hessians: patterns, matrices in compressed rows, and
//! their values by few sweeps.
//!
//! Columns that have no nonzero in a common row share a direction of a forward
//! sweep, rows without a nonzero in a common column a reverse sweep, and columns
//! of a Hessian a Hessian-vector product; `pattern.rs` finds the nonzeros and
//! `colouring.rs` what can share. A [`Plan`] says which sweeps to do and where
//! the numbers go. It depends on the list alone, so all clones of a tape share it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::colouring::{self, Colouring};
use crate::drivers::{Columns, DIRECTIONS, OutputWeights, SECOND_DIRECTIONS};
use crate::error::{Error, expect_len};
use crate::matrix::Matrix;
use crate::pattern;
use crate::replay::Workspace;
use crate::tape::Tape;

/// The most nonzeros of a pattern: eight gigabytes of column indices.
const MOST_NONZEROS: usize = 1 << 30;

/// Which entries of a matrix can differ from 0, in compressed rows.
///
/// From [`Tape::sparsity`] and [`Tape::hessian_sparsity`].
///
/// ```
/// use ad_core::Tape;
///
/// // Differences of neighbours, and the sum of the ends.
/// let tape = Tape::record(&[0.0; 4], |x| vec![x[1] - x[0], x[2] - x[1], x[3] - x[2], x[0] + x[3]])?;
/// let sparsity = tape.sparsity()?;
/// assert_eq!((sparsity.rows(), sparsity.cols(), sparsity.nonzeros()), (4, 4, 8));
/// assert_eq!(sparsity.row(1), [1, 2]);
/// assert_eq!(sparsity.to_string(), "\
/// [* * . .]
/// [. * * .]
/// [. . * *]
/// [* . . *]
/// ");
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Sparsity {
    cols: usize,
    /// Where each row starts in `columns`, and where the last one ends.
    offsets: Vec<usize>,
    columns: Vec<usize>,
}

impl Default for Sparsity {
    /// The pattern without rows and columns.
    fn default() -> Sparsity {
        Sparsity::empty(0)
    }
}

impl Sparsity {
    /// No rows of `cols` columns.
    pub(crate) fn empty(cols: usize) -> Sparsity {
        Sparsity { cols, offsets: vec![0], columns: Vec::new() }
    }

    /// Appends a row with nonzeros in the given columns, in ascending order.
    pub(crate) fn push_row(&mut self, columns: &[usize]) {
        self.columns.extend_from_slice(columns);
        self.offsets.push(self.columns.len());
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The number of entries that can differ from 0.
    pub fn nonzeros(&self) -> usize {
        self.columns.len()
    }

    /// The columns of the nonzeros of row i, in ascending order.
    ///
    /// # Panics
    ///
    /// If there is no row i, as slices do.
    pub fn row(&self, i: usize) -> &[usize] {
        assert!(i < self.rows(), "row {i} of a pattern with {} rows", self.rows());
        &self.columns[self.offsets[i]..self.offsets[i + 1]]
    }

    /// Where each row starts among the nonzeros, and where the last one ends:
    /// rows + 1 numbers.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let sparsity = Tape::record(&[1.0, 2.0], |x| (x[1].exp(), x[0] * x[1]))?.sparsity()?;
    /// assert_eq!(sparsity.row_offsets(), [0, 1, 3]);
    /// assert_eq!(sparsity.column_indices(), [1, 0, 1]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn row_offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The columns of all nonzeros, row by row.
    pub fn column_indices(&self) -> &[usize] {
        &self.columns
    }

    /// Whether entry (i, j) can differ from 0; no entry outside the matrix can.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let sparsity = Tape::record(&[1.0, 2.0], |x| (x[1].exp(), x[0] * x[1]))?.sparsity()?;
    /// assert!(sparsity.contains(0, 1) && !sparsity.contains(0, 0) && !sparsity.contains(7, 7));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn contains(&self, i: usize, j: usize) -> bool {
        self.position(i, j).is_some()
    }

    /// The number of nonzero (i, j) among all of them, if it is one.
    fn position(&self, i: usize, j: usize) -> Option<usize> {
        let start = *self.offsets.get(i)?;
        let end = *self.offsets.get(i + 1)?;
        self.columns[start..end].binary_search(&j).ok().map(|at| start + at)
    }

    /// The pattern with rows and columns exchanged.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let sparsity = Tape::record(&[1.0, 2.0], |x| (x[1].exp(), x[0] * x[1], x[1]))?.sparsity()?;
    /// assert_eq!(sparsity.transposed().to_string(), "[. * .]\n[* * *]\n");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn transposed(&self) -> Sparsity {
        let mut offsets = vec![0; self.cols + 1];
        self.columns.iter().for_each(|&j| offsets[j + 1] += 1);
        for j in 0..self.cols {
            offsets[j + 1] += offsets[j];
        }
        let mut next = offsets.clone();
        let mut columns = vec![0; self.columns.len()];
        for (i, j) in self.entries() {
            columns[next[j]] = i;
            next[j] += 1;
        }
        Sparsity { cols: self.rows(), offsets, columns }
    }

    /// All nonzeros (i, j), row by row.
    fn entries(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.rows()).flat_map(|i| self.row(i).iter().map(move |&j| (i, j)))
    }
}

/// Rows and columns that are printed of a pattern, entries of a matrix.
const SHOWN: (usize, usize) = (40, 60);
const ENTRIES_SHOWN: usize = 100;

impl fmt::Display for Sparsity {
    /// A row a line: `*` where an entry can differ from 0, `.` elsewhere. Of a
    /// large pattern the first rows and columns, and how large it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, cols) = (self.rows().min(SHOWN.0), self.cols.min(SHOWN.1));
        let elided = (rows, cols) != (self.rows(), self.cols);
        for i in 0..rows {
            let marks: Vec<&str> = (0..cols).map(|j| if self.contains(i, j) { "*" } else { "." }).collect();
            writeln!(f, "[{}{}]", marks.join(" "), if cols < self.cols { " …" } else { "" })?;
        }
        if elided {
            writeln!(f, "… {} × {} with {} nonzeros", self.rows(), self.cols, self.nonzeros())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sparsity")
            .field("rows", &self.rows())
            .field("cols", &self.cols)
            .field("nonzeros", &self.nonzeros())
            .finish_non_exhaustive()
    }
}

/// A sparse matrix of `f64` in compressed rows (CSR): a [`Sparsity`] and a number
/// for each of its nonzeros.
///
/// From [`Tape::sparse_jacobian`], [`Tape::sparse_hessian`] and their plans. A
/// Hessian holds both halves.
///
/// ```
/// use ad_core::Tape;
///
/// let tape = Tape::record(&[1.0; 3], |x| [x[0] * x[0], x[1] * x[2], x[2].sin()])?;
/// let jac = tape.sparse_jacobian(&[3.0, 4.0, 0.0])?;
/// assert_eq!((jac.rows(), jac.cols()), (3, 3));
/// assert_eq!(jac.row_offsets(), [0, 1, 3, 4]);
/// assert_eq!(jac.column_indices(), [0, 1, 2, 2]);
/// assert_eq!(jac.values(), [6.0, 0.0, 4.0, 1.0]);
/// assert_eq!(jac.to_string(), "(0, 0) 6\n(1, 1) 0\n(1, 2) 4\n(2, 2) 1\n");
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseMatrix {
    pattern: Arc<Sparsity>,
    values: Vec<f64>,
}

impl SparseMatrix {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.pattern.rows()
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.pattern.cols()
    }

    /// Which entries are kept.
    pub fn sparsity(&self) -> &Sparsity {
        &self.pattern
    }

    /// Where each row starts among the values, and where the last one ends:
    /// rows + 1 numbers.
    pub fn row_offsets(&self) -> &[usize] {
        self.pattern.row_offsets()
    }

    /// The column of each value.
    pub fn column_indices(&self) -> &[usize] {
        self.pattern.column_indices()
    }

    /// The values row by row, those of a row by ascending columns.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Entry (i, j), 0 where none is kept; nothing outside the matrix.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let jac = Tape::record(&[1.0; 2], |x| [x[0].exp(), x[1]])?.sparse_jacobian(&[0.0, 0.0])?;
    /// assert_eq!((jac.get(0, 0), jac.get(0, 1), jac.get(0, 2)), (Some(1.0), Some(0.0), None));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn get(&self, i: usize, j: usize) -> Option<f64> {
        let inside = i < self.rows() && j < self.cols();
        inside.then(|| self.pattern.position(i, j).map_or(0.0, |at| self.values[at]))
    }

    /// The entries that are kept, as (row, column, value), row by row.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let jac = Tape::record(&[1.0; 2], |x| [x[1] * 2.0, x[0] * 3.0])?.sparse_jacobian(&[0.0, 0.0])?;
    /// assert_eq!(jac.triplets().collect::<Vec<_>>(), [(0, 1, 2.0), (1, 0, 3.0)]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn triplets(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        self.pattern.entries().zip(&self.values).map(|((i, j), &value)| (i, j, value))
    }

    /// The product with a vector, one number per row. Entries that are not kept
    /// take no part, whatever the vector holds there.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless v has one number per column.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let jac = Tape::record(&[1.0; 2], |x| [x[0] * x[1], x[1]])?.sparse_jacobian(&[3.0, 5.0])?;
    /// assert_eq!(jac.mul(&[1.0, 10.0])?, [35.0, 10.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn mul(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        expect_len("v (one number per column)", v.len(), self.cols())?;
        let mut product = vec![0.0; self.rows()];
        for (i, j, value) in self.triplets() {
            product[i] += value * v[j];
        }
        Ok(product)
    }

    /// The dense matrix.
    ///
    /// # Errors
    ///
    /// [`Error::TooLargeMatrix`] if it does not fit into memory.
    ///
    /// ```
    /// # use ad_core::{Matrix, Tape};
    /// let tape = Tape::record(&[1.0; 2], |x| [x[0].exp(), x[0] * x[1]])?;
    /// assert_eq!(tape.sparse_jacobian(&[0.0, 2.0])?.to_dense()?, tape.jacobian(&[0.0, 2.0])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn to_dense(&self) -> Result<Matrix, Error> {
        let (rows, cols) = (self.rows(), self.cols());
        let too_large = Error::TooLargeMatrix { rows, cols };
        let mut numbers = Vec::new();
        let Some(size) = rows.checked_mul(cols).filter(|&size| numbers.try_reserve_exact(size).is_ok()) else {
            return Err(too_large);
        };
        numbers.resize(size, 0.0);
        for (i, j, value) in self.triplets() {
            numbers[i * cols + j] = value;
        }
        Matrix::from_vec(rows, cols, numbers)
    }

    /// Takes on a pattern, keeping its memory; the values are left as they are.
    fn reset(&mut self, pattern: &Arc<Sparsity>) {
        self.pattern = pattern.clone();
        self.values.resize(pattern.nonzeros(), 0.0);
    }
}

impl fmt::Display for SparseMatrix {
    /// An entry a line, `(row, column) value`; of many the first ones, and how
    /// many more there are. The formatter's precision, where there is one, applies
    /// to every value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, j, value) in self.triplets().take(ENTRIES_SHOWN) {
            match f.precision() {
                Some(p) => writeln!(f, "({i}, {j}) {value:.p$}")?,
                None => writeln!(f, "({i}, {j}) {value}")?,
            }
        }
        match self.values.len().saturating_sub(ENTRIES_SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "… {more} more"),
        }
    }
}

/// Where one number of a sweep goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The number of the nonzero.
    to: usize,
    /// Where it stands in what the sweep gives.
    from: usize,
}

/// What is computed together, and where the numbers go.
#[derive(Debug)]
struct Plan {
    pattern: Arc<Sparsity>,
    /// The colour of each column, or of each row if the sweeps are reverse sweeps
    /// of the Jacobian.
    colouring: Colouring,
    /// How many colours a sweep takes, and so many columns what it gives has.
    width: usize,
    /// The places of the numbers of all sweeps, and where those of each sweep end.
    places: Vec<Place>,
    ends: Vec<usize>,
}

/// The plans of a tape, each made when it is first wanted.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    jacobian: OnceLock<Result<Arc<JacobianPlan>, Error>>,
    hessian: OnceLock<Result<Arc<Plan>, Error>>,
}

impl Plan {
    /// A plan for sweeps of at most `most` colours, where nonzero k comes from
    /// the direction of colour `source(k).1`, at row `source(k).0` of what it gives.
    fn new(
        pattern: Arc<Sparsity>,
        colouring: Colouring,
        most: usize,
        source: impl Fn(usize, usize, usize) -> (usize, usize),
    ) -> Plan {
        let width = most.min(colouring.count);
        let sweeps = colouring.count.div_ceil(width);
        let sources = || pattern.entries().enumerate().map(|(at, (i, j))| (at, source(at, i, j)));
        let mut ends = vec![0; sweeps];
        sources().for_each(|(_, (_, colour))| ends[colour / width] += 1);
        let mut total = 0;
        for end in &mut ends {
            // For now where the sweep starts; each place moves it on, to its end at last.
            total += std::mem::replace(end, total);
        }
        let mut places = vec![Place { to: 0, from: 0 }; total];
        for (to, (row, colour)) in sources() {
            let end = &mut ends[colour / width];
            places[*end] = Place { to, from: row * width + colour % width };
            *end += 1;
        }
        Plan { pattern, colouring, width, places, ends }
    }

    fn sweeps(&self) -> usize {
        self.ends.len()
    }

    /// The places of the numbers of a sweep.
    fn places(&self, sweep: usize) -> &[Place] {
        let start = if sweep == 0 { 0 } else { self.ends[sweep - 1] };
        &self.places[start..self.ends[sweep]]
    }

    fn recover(&self, sweep: usize, compressed: &[f64], values: &mut [f64]) {
        for place in self.places(sweep) {
            values[place.to] = compressed[place.from];
        }
    }

    /// The colours of a sweep: the first one and their number.
    fn colours_of(&self, sweep: usize) -> (usize, usize) {
        let first = sweep * self.width;
        (first, self.width.min(self.colouring.count - first))
    }

    /// The columns of `compressed` that a sweep fills.
    fn columns<'a>(&self, sweep: usize, compressed: &'a mut [f64]) -> Columns<'a> {
        Columns { numbers: compressed, stride: self.width, first: 0, count: self.colours_of(sweep).1 }
    }

    /// Entry (i, d) of the seed of a sweep.
    fn seed(&self, sweep: usize, i: usize, d: usize) -> f64 {
        if self.colouring.colours[i] == sweep * self.width + d { 1.0 } else { 0.0 }
    }
}

/// A plan for a Jacobian, by columns or by rows.
#[derive(Debug)]
struct JacobianPlan {
    plan: Plan,
    forward: bool,
}

impl JacobianPlan {
    fn new(tape: &Tape) -> Result<JacobianPlan, Error> {
        let pattern = pattern::of_jacobian(&tape.data, MOST_NONZEROS)?;
        let transposed = pattern.transposed();
        // By what the sweeps cost, as the dense Jacobian; at equal cost forward.
        let pays = |columns: usize, rows: usize| pattern.rows() > 1 && columns.div_ceil(4) <= rows;
        let [columns, rows] = [&pattern, &transposed].map(colouring::longest_row);
        let by_columns = || colouring::distance_2(&pattern);
        let by_rows = || colouring::distance_2(&transposed);
        // What looks cheaper is coloured first, and often that settles it.
        let (forward, colouring) = if pays(columns, rows) {
            let columns = by_columns();
            match (!pays(columns.count, rows)).then(by_rows) {
                Some(rows) if !pays(columns.count, rows.count) => (false, rows),
                _ => (true, columns),
            }
        } else {
            let rows = by_rows();
            match pays(columns, rows.count).then(by_columns) {
                Some(columns) if pays(columns.count, rows.count) => (true, columns),
                _ => (false, rows),
            }
        };
        let colours = colouring.colours.clone();
        let plan = match forward {
            true => Plan::new(Arc::new(pattern), colouring, DIRECTIONS, |_, i, j| (i, colours[j])),
            false => Plan::new(Arc::new(pattern), colouring, 1, |_, i, j| (j, colours[i])),
        };
        Ok(JacobianPlan { plan, forward })
    }
}

/// A plan for a Hessian: each nonzero comes from its row and the direction of its
/// column, if it stands alone there, or else from the one opposite it.
fn hessian_plan(tape: &Tape) -> Result<Plan, Error> {
    let pattern = Arc::new(pattern::of_hessian(&tape.data, MOST_NONZEROS)?);
    let colouring = colouring::star(&pattern);
    let colours = colouring.colours.clone();
    // Whether a nonzero is the only one of its colour in its row.
    let mut alone = vec![true; pattern.nonzeros()];
    // For each colour the nonzero met last, and its row.
    let mut met = vec![(usize::MAX, 0); colouring.count];
    for (at, (i, j)) in pattern.entries().enumerate() {
        let (row, before) = std::mem::replace(&mut met[colours[j]], (i, at));
        if row == i {
            (alone[before], alone[at]) = (false, false);
        }
    }
    // Above the diagonal decides, as for the dense Hessian, and for both of two
    // opposite entries, so that they are equal.
    let upper: Vec<usize> = {
        let above = |(at, (i, j))| if i <= j { at } else { pattern.position(j, i).unwrap_or(at) };
        pattern.entries().enumerate().map(above).collect()
    };
    let source = |at: usize, i: usize, j: usize| {
        let (i, j) = (i.min(j), i.max(j));
        if alone[upper[at]] { (i, colours[j]) } else { (j, colours[i]) }
    };
    Ok(Plan::new(pattern.clone(), colouring, SECOND_DIRECTIONS, source))
}

/// The sparse Jacobian of a tape, ready to be computed at many points.
///
/// Columns without a nonzero in a common row share a colour, and a direction of
/// a forward sweep; or rows without a nonzero in a common column share a colour
/// and a reverse sweep, whichever costs less. Pattern and colours are found once
/// for all clones of a tape, whatever their parameters.
///
/// ```
/// use ad_core::{SparseJacobian, SparseMatrix, Tape, Workspace};
///
/// // Each output reads three neighbours: three directions do for any number of inputs.
/// let tape = Tape::record(&vec![1.0; 1000], |x| {
///     (0..998).map(|i| x[i] - 2.0 * x[i + 1] + x[i + 2] * x[i + 1].exp()).collect::<Vec<_>>()
/// })?;
/// let jacobian = SparseJacobian::new(&tape)?;
/// assert_eq!((jacobian.num_colours(), jacobian.sweeps()), (3, 1));
///
/// let (mut ws, mut jac) = (Workspace::new(), SparseMatrix::default());
/// for i in 0..3 {
///     let x = vec![i as f64; 1000];
///     jacobian.values_into(&mut ws, &x, &mut jac)?;
///     assert_eq!(jac.get(500, 502), Some((i as f64).exp()));
/// }
/// # Ok::<(), ad_core::Error>(())
/// ```
///
/// Source: A. H. Gebremedhin, F. Manne, A. Pothen, What color is your Jacobian?,
/// SIAM Review 47 (2005).
#[derive(Debug, Clone)]
pub struct SparseJacobian {
    tape: Tape,
    plan: Arc<JacobianPlan>,
}

impl SparseJacobian {
    /// Finds the pattern and the colours, unless that was done for this tape or a
    /// clone of it. The parameters are those of `tape`: for others, call it again
    /// with [`Tape::with_params`], which is cheap.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyNonzeros`].
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[2.0]).record(|x, k| x[0] * k[0])?;
    /// let jacobian = SparseJacobian::new(&tape.with_params(&[7.0])?)?;
    /// assert_eq!(jacobian.values(&[1.0])?.values(), [7.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn new(tape: &Tape) -> Result<SparseJacobian, Error> {
        let plan = tape.sparse_plans.jacobian.get_or_init(|| JacobianPlan::new(tape).map(Arc::new)).clone()?;
        Ok(SparseJacobian { tape: tape.clone(), plan })
    }

    /// The pattern, m × n.
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).collect::<Vec<_>>())?;
    /// let jacobian = SparseJacobian::new(&tape)?;
    /// assert_eq!(jacobian.sparsity().to_string(), "[* * . .]\n[. * * .]\n[. . * *]\n");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sparsity(&self) -> &Sparsity {
        &self.plan.plan.pattern
    }

    /// Whether forward sweeps compute it, so that columns are coloured, or
    /// reverse sweeps, so that rows are.
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).collect::<Vec<_>>())?;
    /// let jacobian = SparseJacobian::new(&tape)?;
    /// assert!(jacobian.is_forward());
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn is_forward(&self) -> bool {
        self.plan.forward
    }

    /// The colour of each column, or of each row, from 0 on.
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).collect::<Vec<_>>())?;
    /// let jacobian = SparseJacobian::new(&tape)?;
    /// assert_eq!(jacobian.colours(), [0, 1, 0, 1]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn colours(&self) -> &[usize] {
        &self.plan.plan.colouring.colours
    }

    /// How many colours there are.
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).collect::<Vec<_>>())?;
    /// let jacobian = SparseJacobian::new(&tape)?;
    /// assert_eq!(jacobian.num_colours(), 2);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn num_colours(&self) -> usize {
        self.plan.plan.colouring.count
    }

    /// How many sweeps it takes: forward sweeps carry up to sixteen colours,
    /// reverse sweeps one.
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).collect::<Vec<_>>())?;
    /// let jacobian = SparseJacobian::new(&tape)?;
    /// assert_eq!(jacobian.sweeps(), 1);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sweeps(&self) -> usize {
        self.plan.plan.sweeps()
    }

    /// The Jacobian at x.
    ///
    /// Entry (i, j) equals (`==`) entry i of [`Tape::jvp`] with the j-th unit
    /// vector if the sweeps are forward, and else entry j of [`Tape::vjp`] with
    /// the i-th. Infinite and NaN derivatives stay in their own entries, though
    /// others share the sweep.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).collect::<Vec<_>>())?;
    /// let jacobian = SparseJacobian::new(&tape)?;
    /// assert_eq!(jacobian.values(&[1.0, 2.0, 3.0, 4.0])?.values(), [2.0, 1.0, 3.0, 2.0, 4.0, 3.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn values(&self, x: &[f64]) -> Result<SparseMatrix, Error> {
        let mut matrix = SparseMatrix::default();
        self.values_into(&mut Workspace::new(), x, &mut matrix)?;
        Ok(matrix)
    }

    /// [`SparseJacobian::values`] that allocates nothing on a warm workspace and
    /// a matrix with so many values before.
    ///
    /// # Errors
    ///
    /// Those of [`SparseJacobian::values`].
    ///
    /// ```
    /// # use ad_core::{SparseJacobian, Tape};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).collect::<Vec<_>>())?;
    /// let jacobian = SparseJacobian::new(&tape)?;
    /// let (mut ws, mut jac) = (ad_core::Workspace::new(), ad_core::SparseMatrix::default());
    /// jacobian.values_into(&mut ws, &[1.0, 2.0, 3.0, 4.0], &mut jac)?;
    /// assert_eq!(jac.get(1, 2), Some(2.0));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn values_into(&self, ws: &mut Workspace, x: &[f64], matrix: &mut SparseMatrix) -> Result<(), Error> {
        expect_len("x (one number per input)", x.len(), self.tape.num_inputs())?;
        matrix.reset(&self.plan.plan.pattern);
        let mut compressed = std::mem::take(&mut ws.compressed);
        let mut y = std::mem::take(&mut ws.y);
        let done = match self.plan.forward {
            true => self.by_columns(ws, x, &mut y, &mut compressed, &mut matrix.values),
            false => self.by_rows(ws, x, &mut y, &mut compressed, &mut matrix.values),
        };
        (ws.compressed, ws.y) = (compressed, y);
        done
    }

    fn by_columns(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        y: &mut Vec<f64>,
        compressed: &mut Vec<f64>,
        values: &mut [f64],
    ) -> Result<(), Error> {
        let plan = &self.plan.plan;
        y.resize(self.tape.num_outputs(), 0.0);
        compressed.resize(self.tape.num_outputs() * plan.width, 0.0);
        for sweep in 0..plan.sweeps() {
            let seed = |i, d| Ok(plan.seed(sweep, i, d));
            self.tape.tangents(ws, x, None, seed, y, plan.columns(sweep, compressed))?;
            plan.recover(sweep, compressed, values);
        }
        Ok(())
    }

    fn by_rows(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        w: &mut Vec<f64>,
        compressed: &mut Vec<f64>,
        values: &mut [f64],
    ) -> Result<(), Error> {
        let plan = &self.plan.plan;
        compressed.resize(self.tape.num_inputs(), 0.0);
        let weights = |sweep: usize| (0..self.tape.num_outputs()).map(move |i| plan.seed(sweep, i, 0));
        let mut primal = self.tape.primal(ws, x, None)?;
        let mut plain = true;
        for sweep in 0..plan.sweeps() {
            if !primal.reverse_into(weights(sweep), compressed)? {
                // For now a mark that the strict rule decides.
                compressed.fill(f64::NAN);
                plain = false;
            }
            plan.recover(sweep, compressed, values);
        }
        if plain {
            return Ok(());
        }
        for sweep in 0..plan.sweeps() {
            if plan.places(sweep).first().is_some_and(|place| values[place.to].is_nan()) {
                w.clear();
                w.extend(weights(sweep));
                self.tape.strict_adjoints_into(ws, x, self.tape.params(), w, compressed)?;
                plan.recover(sweep, compressed, values);
            }
        }
        Ok(())
    }
}

/// The sparse Hessian of a tape with one output, ready to be computed at many
/// points.
///
/// Columns share a colour, and a Hessian-vector product, if every entry, or the
/// one opposite it, can still be read off: a star colouring. Pattern and colours
/// are found once for all clones of a tape, whatever their parameters.
///
/// ```
/// use ad_core::{SparseHessian, SparseMatrix, Tape, Workspace};
///
/// // An arrow: a variable that all others meet. Two products do for any number of inputs.
/// let tape = Tape::record(&vec![1.0; 1000], |x| {
///     x[1..].iter().map(|&xi| xi * x[0] + xi.powi(3)).sum::<ad_core::Var>()
/// })?;
/// let hessian = SparseHessian::new(&tape)?;
/// assert_eq!((hessian.num_colours(), hessian.sweeps()), (2, 1));
///
/// let (mut ws, mut h) = (Workspace::new(), SparseMatrix::default());
/// let y = hessian.values_into(&mut ws, &vec![2.0; 1000], &mut h)?;
/// assert_eq!(y, 12.0 * 999.0);
/// assert_eq!((h.get(0, 7), h.get(7, 0), h.get(7, 7)), (Some(1.0), Some(1.0), Some(12.0)));
/// # Ok::<(), ad_core::Error>(())
/// ```
///
/// Source: A. H. Gebremedhin, F. Manne, A. Pothen, What color is your Jacobian?,
/// SIAM Review 47 (2005), §4.
#[derive(Debug, Clone)]
pub struct SparseHessian {
    tape: Tape,
    plan: Arc<Plan>,
}

impl SparseHessian {
    /// Finds the pattern and the colours, unless that was done for this tape or a
    /// clone of it. The parameters are those of `tape`: for others, call it again
    /// with [`Tape::with_params`], which is cheap.
    ///
    /// # Errors
    ///
    /// [`Error::NotScalar`] for several outputs, [`Error::TooManyNonzeros`].
    ///
    /// ```
    /// # use ad_core::{SparseHessian, Tape};
    /// let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[2.0]).record(|x, k| x[0] * x[0] * k[0])?;
    /// let hessian = SparseHessian::new(&tape.with_params(&[7.0])?)?;
    /// assert_eq!(hessian.values(&[1.0])?.values(), [14.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn new(tape: &Tape) -> Result<SparseHessian, Error> {
        expect_hessian(tape)?;
        let plan = tape.sparse_plans.hessian.get_or_init(|| hessian_plan(tape).map(Arc::new)).clone()?;
        Ok(SparseHessian { tape: tape.clone(), plan })
    }

    /// The pattern, n × n and symmetric.
    ///
    /// ```
    /// # use ad_core::{SparseHessian, Tape, Var};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).sum::<Var>())?;
    /// let hessian = SparseHessian::new(&tape)?;
    /// assert_eq!(hessian.sparsity().nonzeros(), 6);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sparsity(&self) -> &Sparsity {
        &self.plan.pattern
    }

    /// The colour of each column, from 0 on.
    ///
    /// ```
    /// # use ad_core::{SparseHessian, Tape, Var};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).sum::<Var>())?;
    /// let hessian = SparseHessian::new(&tape)?;
    /// assert_eq!(hessian.colours().len(), 4);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn colours(&self) -> &[usize] {
        &self.plan.colouring.colours
    }

    /// How many colours there are.
    ///
    /// ```
    /// # use ad_core::{SparseHessian, Tape, Var};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).sum::<Var>())?;
    /// let hessian = SparseHessian::new(&tape)?;
    /// assert_eq!(hessian.num_colours(), 3);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn num_colours(&self) -> usize {
        self.plan.colouring.count
    }

    /// How many sweeps it takes; one carries up to eight colours.
    ///
    /// ```
    /// # use ad_core::{SparseHessian, Tape, Var};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).sum::<Var>())?;
    /// let hessian = SparseHessian::new(&tape)?;
    /// assert_eq!(hessian.sweeps(), 1);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sweeps(&self) -> usize {
        self.plan.sweeps()
    }

    /// The Hessian at x, both halves, exactly symmetric.
    ///
    /// Entry (i, j) with i ≤ j, and the one opposite it, equals (`==`) entry i of
    /// [`Tape::hvp`] with the j-th unit vector, as that of [`Tape::hessian`]
    /// does, or entry j of `hvp` with the i-th if the colours tell only that one.
    /// So it may differ from the dense Hessian in the last bits, and where mixed
    /// second derivatives depend on the order. Infinite and NaN entries concern no
    /// others, unless f(x) or an entry of its gradient is NaN: then entries that
    /// share the sweep may be NaN too.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`].
    ///
    /// ```
    /// # use ad_core::{SparseHessian, Tape, Var};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).sum::<Var>())?;
    /// let hessian = SparseHessian::new(&tape)?;
    /// assert_eq!(hessian.values(&[1.0; 4])?.get(2, 3), Some(1.0));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn values(&self, x: &[f64]) -> Result<SparseMatrix, Error> {
        let mut matrix = SparseMatrix::default();
        self.values_into(&mut Workspace::new(), x, &mut matrix)?;
        Ok(matrix)
    }

    /// [`SparseHessian::values`] that allocates nothing on a warm workspace and a
    /// matrix with so many values before: writes the Hessian and returns the value f(x).
    ///
    /// # Errors
    ///
    /// Those of [`SparseHessian::values`].
    ///
    /// ```
    /// # use ad_core::{SparseHessian, Tape, Var};
    /// let tape = Tape::record(&[1.0; 4], |x| x.windows(2).map(|pair| pair[0] * pair[1]).sum::<Var>())?;
    /// let hessian = SparseHessian::new(&tape)?;
    /// let (mut ws, mut h) = (ad_core::Workspace::new(), ad_core::SparseMatrix::default());
    /// assert_eq!(hessian.values_into(&mut ws, &[1.0, 2.0, 3.0, 4.0], &mut h)?, 20.0);
    /// assert_eq!(h.get(2, 3), Some(1.0));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn values_into(&self, ws: &mut Workspace, x: &[f64], matrix: &mut SparseMatrix) -> Result<f64, Error> {
        expect_len("x (one number per input)", x.len(), self.tape.num_inputs())?;
        let plan = &*self.plan;
        matrix.reset(&plan.pattern);
        let mut compressed = std::mem::take(&mut ws.compressed);
        compressed.resize(self.tape.num_inputs() * plan.width, 0.0);
        let done = (0..plan.sweeps()).try_fold(0.0, |_, sweep| {
            let seed = |i, d| Ok(plan.seed(sweep, i, d));
            let value = self.tape.second_order(
                ws,
                x,
                seed,
                OutputWeights::ONE,
                &mut [],
                plan.columns(sweep, &mut compressed),
            )?;
            plan.recover(sweep, &compressed, &mut matrix.values);
            Ok(value)
        });
        ws.compressed = compressed;
        done
    }
}

fn expect_hessian(tape: &Tape) -> Result<(), Error> {
    tape.expect_scalar("the sparse Hessian", "a tape of one output, or of their weighted sum")
}

impl Tape {
    /// Which entries of the Jacobian (m × n) can differ from 0.
    ///
    /// Entry (i, j) can if a path of operations leads from xⱼ to yᵢ on which no
    /// partial derivative is identically 0, as those of `floor`, `sign` and the
    /// compared operands of `select_gt` are. That holds at every point and for
    /// any parameters; a derivative may still be 0 at some points, or cancel
    /// everywhere, as in x − x. A constant factor counts as other than 0.
    ///
    /// Rows that call tapes ([`Tape::map`], [`Tape::scan`]) count as the code
    /// written out; a [`Custom`](crate::Custom) or an [`Implicit`](crate::Implicit) depends on all its operands.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyNonzeros`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0; 3], |x| [x[0] * x[1], x[2].floor() + x[1], x[0].select_gt(0.0, x[2], 1.0)])?;
    /// assert_eq!(tape.sparsity()?.to_string(), "\
    /// [* * .]
    /// [. * .]
    /// [. . *]
    /// ");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sparsity(&self) -> Result<Sparsity, Error> {
        pattern::of_jacobian(&self.data, MOST_NONZEROS)
    }

    /// Which entries of the Hessian (n × n) of a one-output tape can differ from
    /// 0; symmetric.
    ///
    /// Entry (i, j) can if an operation has a second derivative that is not
    /// identically 0 by two of its operands, of which one depends on xᵢ and one
    /// on xⱼ, in the sense of [`Tape::sparsity`], and the output depends on it.
    /// Where f(x) or an entry of its gradient is NaN, outside the domain of an
    /// operation, [`Tape::hessian`] may have NaN in other entries as well.
    ///
    /// # Errors
    ///
    /// [`Error::NotScalar`] for several outputs, [`Error::TooManyNonzeros`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0; 4], |x| x[0] * x[1] + x[2].sin() + x[3].abs())?;
    /// assert_eq!(tape.hessian_sparsity()?.to_string(), "\
    /// [. * . .]
    /// [* . . .]
    /// [. . * .]
    /// [. . . .]
    /// ");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn hessian_sparsity(&self) -> Result<Sparsity, Error> {
        expect_hessian(self)?;
        pattern::of_hessian(&self.data, MOST_NONZEROS)
    }

    /// The Jacobian (m × n) in compressed rows; see [`SparseJacobian`] for what
    /// its entries equal, and for one that allocates nothing.
    ///
    /// Pattern and colours are found with the first call for this tape or a clone
    /// of it, and kept.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], and [`Error::TooManyNonzeros`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0; 3], |x| [x[0] * x[0], x[1] * x[2], x[2].exp()])?;
    /// let jac = tape.sparse_jacobian(&[3.0, 4.0, 0.0])?;
    /// assert_eq!(jac.to_dense()?, tape.jacobian(&[3.0, 4.0, 0.0])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sparse_jacobian(&self, x: &[f64]) -> Result<SparseMatrix, Error> {
        SparseJacobian::new(self)?.values(x)
    }

    /// The Hessian (n × n) of a one-output tape in compressed rows, both halves;
    /// see [`SparseHessian`] for what its entries equal, and for one that
    /// allocates nothing.
    ///
    /// Pattern and colours are found with the first call for this tape or a clone
    /// of it, and kept.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval`], [`Error::NotScalar`] for several outputs, and
    /// [`Error::TooManyNonzeros`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[1.0; 3], |x| x[0] * x[1] + x[2].powi(3))?;
    /// let h = tape.sparse_hessian(&[3.0, 4.0, 2.0])?;
    /// assert_eq!(h.to_string(), "(0, 1) 1\n(1, 0) 1\n(2, 2) 12\n");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sparse_hessian(&self, x: &[f64]) -> Result<SparseMatrix, Error> {
        SparseHessian::new(self)?.values(x)
    }
}
