//! Many points at once, in lanes.

use crate::drivers::DIRECTIONS;
use crate::error::{Error, expect_len};
use crate::lanes::Lanes;
use crate::matrix::Matrix;
use crate::replay::lanes::{self, Block, Eighth, Layout, STREAMS, WIDTH};
use crate::replay::program::Program;
use crate::replay::samples::{FEW, grow};
use crate::replay::{LaneMemory, Workspace};
use crate::tape::Tape;

impl Tape {
    /// The values at many points: row i of the result is f(xᵢ), m numbers.
    ///
    /// `points` has a row for each point: x, n numbers, and the tape's own
    /// parameters hold; or x followed by the point's parameters k, n +
    /// num_params numbers. Without a row the result is empty. The points are
    /// evaluated side by side in vector instructions; each has the bits of
    /// [`Tape::eval`].
    ///
    /// ([`Tape::jvp_many`] is another thing: many directions at one point.)
    ///
    /// # Errors
    ///
    /// [`Error::Length`] for rows of another length, [`Error::BranchChanged`]
    /// with the first point at which a guard fails, as `sample`. The result is
    /// then unspecified.
    ///
    /// ```
    /// # use ad_core::{Matrix, Tape};
    /// let tape = Tape::record(&[1.0, 1.0], |x| [x[0] * x[1], x[0] - x[1]])?;
    /// let points = Matrix::from_rows(&[[3.0, 5.0], [2.0, 1.0], [0.0, 1.0]])?;
    /// let values = tape.eval_many(&points)?;
    /// assert_eq!(values, Matrix::from_rows(&[[15.0, -2.0], [2.0, 1.0], [0.0, -1.0]])?);
    ///
    /// // x·k with k = 10 on the tape, and with a k of each point's own.
    /// let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[10.0]).record(|x, k| x[0] * k[0])?;
    /// assert_eq!(tape.eval_many(&Matrix::from_rows(&[[1.0], [2.0]])?)?.as_slice(), [10.0, 20.0]);
    /// assert_eq!(tape.eval_many(&Matrix::from_rows(&[[1.0, 3.0], [2.0, 5.0]])?)?.as_slice(), [3.0, 10.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn eval_many(&self, points: &Matrix) -> Result<Matrix, Error> {
        let mut values = Matrix::default();
        self.eval_many_into(&mut Workspace::new(), points, &mut values)?;
        Ok(values)
    }

    /// [`Tape::eval_many`] that allocates nothing on a warm workspace and a
    /// matrix that was as large before.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval_many`].
    pub fn eval_many_into(&self, ws: &mut Workspace, points: &Matrix, values: &mut Matrix) -> Result<(), Error> {
        self.check_points(points)?;
        values.reset(points.rows(), self.num_outputs())?;
        let program = self.programs.forward(&self.data);
        let layout = self.lanes_of_points(ws, program, points.cols() > self.num_inputs(), 0);
        let lanes = layout.map_or(FEW, |layout| layout.blocks * WIDTH);
        for first in (0..points.rows()).step_by(lanes) {
            let group = first..points.rows().min(first + lanes);
            let Some(layout) = layout.filter(|_| group.len() >= FEW) else {
                for i in group {
                    let (x, params) = self.point(points, i);
                    self.eval_at(ws, x, params, values.row_mut(i)).map_err(|error| error.at_sample(i))?;
                }
                continue;
            };
            self.values_of_points(ws, layout, points, first)?;
            let LaneMemory { scalars, values: blocks, .. } = &ws.lanes;
            for (j, &output) in program.outputs.iter().enumerate() {
                for block in 0..group.len().div_ceil(WIDTH) {
                    let Lanes(value) = layout.fetch(scalars, blocks, output, block);
                    for (i, value) in group.clone().skip(block * WIDTH).zip(value) {
                        values[(i, j)] = value;
                    }
                }
            }
        }
        Ok(())
    }

    /// The Jacobians at many points: row i of the result is the Jacobian at xᵢ,
    /// m·n numbers row by row; with one output, its gradient.
    ///
    /// `points` are as in [`Tape::eval_many`]; there are no columns for the
    /// parameters. Each Jacobian has the bits of [`Tape::jacobian`].
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval_many`].
    ///
    /// ```
    /// # use ad_core::{Matrix, Tape};
    /// let tape = Tape::record(&[1.0, 1.0], |x| x[0] * x[1])?;
    /// let gradients = tape.jacobian_many(&Matrix::from_rows(&[[3.0, 5.0], [2.0, 1.0]])?)?;
    /// assert_eq!(gradients, Matrix::from_rows(&[[5.0, 3.0], [1.0, 2.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[doc(alias = "gradient_many")]
    pub fn jacobian_many(&self, points: &Matrix) -> Result<Matrix, Error> {
        let mut jacobians = Matrix::default();
        self.jacobian_many_into(&mut Workspace::new(), points, &mut jacobians)?;
        Ok(jacobians)
    }

    /// [`Tape::jacobian_many`] that allocates nothing on a warm workspace and a
    /// matrix that was as large before.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::eval_many`].
    pub fn jacobian_many_into(&self, ws: &mut Workspace, points: &Matrix, jacobians: &mut Matrix) -> Result<(), Error> {
        self.check_points(points)?;
        let (m, n) = (self.num_outputs(), self.num_inputs());
        jacobians.reset(points.rows(), m.saturating_mul(n))?;
        let forward = self.jacobian_is_forward();
        let program = if forward { self.programs.forward(&self.data) } else { self.programs.reverse(&self.data) };
        let own_params = points.cols() > n;
        let layout = self.lanes_of_points(ws, program, own_params, if forward { n.min(DIRECTIONS) } else { 1 });
        let lanes = layout.map_or(FEW, |layout| layout.blocks * WIDTH);
        for first in (0..points.rows()).step_by(lanes) {
            let group = first..points.rows().min(first + lanes);
            // One bit a point that the scalar engine does, or does again.
            let mut one_by_one = u64::MAX;
            if let Some(layout) = layout.filter(|_| group.len() >= FEW) {
                match forward {
                    true => self.tangents_of_points(ws, layout, points, group.clone(), jacobians)?,
                    false => self.adjoints_of_points(ws, layout, points, group.clone(), jacobians)?,
                }
                let LaneMemory { scalars, values, .. } = &ws.lanes;
                one_by_one = group.clone().fold(0, |bits, i| {
                    let (block, lane) = ((i - first) / WIDTH, (i - first) % WIDTH);
                    let value = |&output| layout.fetch(scalars, values, output, block).0[lane];
                    let nan = program.outputs.iter().any(|output| value(output).is_nan())
                        // Without a way out at the first one, this is a loop of vectors.
                        || jacobians.row(i).iter().fold(false, |nan, entry| nan | entry.is_nan());
                    bits | u64::from(nan) << (i - first)
                });
            }
            for i in group.filter(|i| one_by_one >> (i - first) & 1 == 1) {
                let (x, params) = self.point(points, i);
                let mut jac = std::mem::take(&mut ws.jac);
                let done = self.jacobian_at(ws, x, params, &mut jac).map_err(|error| error.at_sample(i));
                if done.is_ok() {
                    jacobians.row_mut(i).copy_from_slice(jac.as_slice());
                }
                ws.jac = jac;
                done?;
            }
        }
        Ok(())
    }

    fn check_points(&self, points: &Matrix) -> Result<(), Error> {
        if points.rows() == 0 || points.cols() == self.num_inputs() + self.num_params() {
            return Ok(());
        }
        expect_len("points (a row per point: x, or x followed by all parameters)", points.cols(), self.num_inputs())
    }

    /// Point i: x, and its own parameters if it has some.
    fn point<'a>(&self, points: &'a Matrix, i: usize) -> (&'a [f64], Option<&'a [f64]>) {
        let (x, params) = points.row(i).split_at(self.num_inputs());
        (x, (!params.is_empty()).then_some(params))
    }

    /// The layout of lanes each of which has its own inputs, its own parameters
    /// if they are not the tape's, and so many derivatives, unless lanes do not
    /// suit the tape.
    pub(super) fn lanes_of_points<'p>(
        &self,
        ws: &mut Workspace,
        program: &'p Program,
        own_params: bool,
        derivatives: usize,
    ) -> Option<Layout<'p>> {
        let uniform_passive = if own_params { self.data.constants.len() } else { program.first_input };
        let lanes = &mut ws.lanes;
        lanes.scalars.clear();
        if own_params {
            lanes.scalars.extend_from_slice(&self.data.constants);
        } else {
            lanes.scalars.extend_from_slice(self.passive(program));
        }
        let derivatives = (program.num_slots - program.first_input).saturating_mul(derivatives);
        if !program.calls.is_empty() {
            // Functions run at one point at a time.
            return None;
        }
        let blocks = lanes.blocks_for(program.num_slots - uniform_passive, derivatives, 4)?;
        Some(Layout { level: lanes.level(), program, blocks, uniform_passive, uniform_inputs: 0 })
    }

    /// Puts the points from `first` on into lanes, as many as there are; the
    /// lanes that are left repeat the last one.
    fn load_points(&self, ws: &mut Workspace, layout: Layout<'_>, points: &Matrix, first: usize) {
        let LaneMemory { scalars, values, .. } = &mut ws.lanes;
        grow(values, layout.value_blocks());
        let (inputs, last) = (self.num_inputs(), points.rows() - 1);
        for eighth in 0..layout.blocks * WIDTH / STREAMS {
            let rows: [&[f64]; STREAMS] =
                std::array::from_fn(|lane| points.row((first + eighth * STREAMS + lane).min(last)));
            let of_inputs = Eighth { first: layout.value(layout.program.first_input as u32), eighth };
            lanes::store_rows(layout, values, of_inputs, rows.map(|row| &row[..inputs]));
            // Parameters follow the inputs of a point, and the constants on the tape.
            let of_params = Eighth { first: 0, eighth };
            lanes::store_rows(layout, values, of_params, rows.map(|row| &row[inputs..]));
        }
        if points.cols() > inputs && !layout.program.prologue.is_empty() {
            lanes::values(layout, &layout.program.prologue, scalars, values);
        }
    }

    /// The values of the program at the points from `first` on, guards checked.
    fn values_of_points(
        &self,
        ws: &mut Workspace,
        layout: Layout<'_>,
        points: &Matrix,
        first: usize,
    ) -> Result<(), Error> {
        self.load_points(ws, layout, points, first);
        let LaneMemory { scalars, values, .. } = &mut ws.lanes;
        lanes::values(layout, &layout.program.rows, scalars, values);
        self.check_points_guards(ws, layout, points, first)
    }

    fn check_points_guards(
        &self,
        ws: &mut Workspace,
        layout: Layout<'_>,
        points: &Matrix,
        first: usize,
    ) -> Result<(), Error> {
        let count = (points.rows() - first).min(layout.blocks * WIDTH);
        let LaneMemory { scalars, values, .. } = &ws.lanes;
        match self.first_lane_off_branch(layout, scalars, values, count) {
            None => Ok(()),
            Some(lane) => {
                // The scalar engine says which guard it was.
                let mut y = std::mem::take(&mut ws.y);
                y.resize(self.num_outputs(), 0.0);
                let (x, params) = self.point(points, first + lane);
                let found = self.eval_at(ws, x, params, &mut y).map_err(|error| error.at_sample(first + lane));
                ws.y = y;
                found.and(Err(Error::of_guards()))
            }
        }
    }

    fn tangents_of_points(
        &self,
        ws: &mut Workspace,
        layout: Layout<'_>,
        points: &Matrix,
        group: std::ops::Range<usize>,
        jacobians: &mut Matrix,
    ) -> Result<(), Error> {
        let (n, blocks, program) = (self.num_inputs(), layout.blocks, layout.program);
        for start in (0..n).step_by(DIRECTIONS) {
            let directions = DIRECTIONS.min(n - start);
            self.load_points(ws, layout, points, group.start);
            let LaneMemory { scalars, values, tangents, .. } = &mut ws.lanes;
            grow(tangents, layout.derivative_blocks() * directions);
            let seeds = &mut tangents[..n * blocks * directions];
            for (place, seed) in seeds.iter_mut().enumerate() {
                let (input, direction) = (place / directions / blocks, place % directions);
                *seed = Lanes([if input == start + direction { 1.0 } else { 0.0 }; WIDTH]);
            }
            lanes::tangents(layout, directions, scalars, values, tangents);
            if start == 0 {
                self.check_points_guards(ws, layout, points, group.start)?;
            }
            let tangents = &ws.lanes.tangents;
            for (j, &output) in program.outputs.iter().enumerate() {
                for d in 0..directions {
                    for block in 0..group.len().div_ceil(WIDTH) {
                        // What does not depend on an input has no tangent.
                        let tangent = if (output as usize) < program.first_input {
                            Lanes([0.0; WIDTH])
                        } else {
                            tangents[(layout.derivative(output) + block) * directions + d]
                        };
                        scatter(jacobians, group.clone().skip(block * WIDTH), j * n + start + d, tangent);
                    }
                }
            }
        }
        Ok(())
    }

    fn adjoints_of_points(
        &self,
        ws: &mut Workspace,
        layout: Layout<'_>,
        points: &Matrix,
        group: std::ops::Range<usize>,
        jacobians: &mut Matrix,
    ) -> Result<(), Error> {
        let (m, n) = (self.num_outputs(), self.num_inputs());
        let (blocks, program) = (layout.blocks, layout.program);
        self.values_of_points(ws, layout, points, group.start)?;
        let LaneMemory { scalars, values, adjoints, .. } = &mut ws.lanes;
        grow(adjoints, layout.derivative_blocks());
        for (j, &output) in program.outputs.iter().enumerate() {
            if output as usize >= program.first_input {
                adjoints[layout.derivative(output)..][..blocks].fill(Lanes([1.0; WIDTH]));
            }
            lanes::adjoints(layout, scalars, values, adjoints, None);
            let rows = jacobians.as_mut_slice().chunks_exact_mut(m * n).take(group.end).skip(group.start);
            let rows = rows.map(|row| &mut row[j * n..(j + 1) * n]);
            lanes::take_rows(layout, &mut adjoints[..n * blocks], rows);
        }
        Ok(())
    }
}

/// Writes the lanes of a block into a column, a row a point.
fn scatter(matrix: &mut Matrix, points: impl Iterator<Item = usize>, column: usize, lanes: Block) {
    for (i, value) in points.zip(lanes.0) {
        matrix[(i, column)] = value;
    }
}
