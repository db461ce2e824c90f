//! Sums over samples, with the one fold that every engine and thread count shares.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::thread::ScopedJoinHandle;

use crate::error::{Error, expect_len, room_for};
use crate::lanes::Lanes;
use crate::replay::lanes::{self, Block, Eighth, Layout, STREAMS, Stream, Streams, WIDTH};
use crate::replay::{LaneMemory, Workspace};
use crate::rule::Rule;
use crate::tape::Tape;

/// The parameters of many samples: one row of `num_params` numbers each. They
/// fit any tape with as many parameters. They are kept twice, the second time
/// packed for lanes; samples that are taken in sequence load fastest.
///
/// ```
/// use ad_core::{Samples, Tape};
/// // The squared error of one observation (k₁, k₂) under the line x₁ + x₂·k₁.
/// let loss = Tape::builder()
///     .inputs(&[], &[0.0, 0.0])
///     .params(&[], &[0.0, 0.0])
///     .record(|x, k| (x[0] + x[1] * k[0] - k[1]).powi(2))?;
/// let samples = Samples::from_rows(&loss, &[0.0, 1.0, 1.0, 3.0, 2.0, 5.0])?;
/// assert_eq!(samples.len(), 3);
/// assert_eq!(loss.sum_value(&[1.0, 2.0], &samples, &[0, 1, 2])?, 0.0);
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Samples {
    width: usize,
    rows: Vec<f64>,
    /// The same numbers, parameter by parameter within each eight samples, as
    /// lanes take them; without the last ones if they are not eight.
    packed: Vec<Stream>,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples").field("len", &self.len()).field("width", &self.width).finish_non_exhaustive()
    }
}

impl Samples {
    /// The samples whose parameters are `rows`: N × num_params numbers, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] if the tape has no parameters or there are no rows,
    /// [`Error::Length`] if the last row is incomplete: the number expected is
    /// the next multiple of num_params; [`Error::TooManyNumbers`] if memory does
    /// not hold them twice more.
    pub fn from_rows(tape: &Tape, rows: &[f64]) -> Result<Samples, Error> {
        let width = tape.num_params();
        if width == 0 {
            return Err(Error::Empty {
                what: "the tape's list of parameters",
                hint: "a sample is one set of parameters; record them with Tape::builder().params(..)",
            });
        }
        if rows.is_empty() {
            return Err(Error::Empty { what: "rows", hint: "give at least one sample" });
        }
        if !rows.len().is_multiple_of(width) {
            let expected = rows.len().next_multiple_of(width);
            return Err(Error::Length {
                what: "rows (whole samples: a multiple of num_params numbers)",
                expected,
                got: rows.len(),
            });
        }
        let mut samples = Samples { width, rows: room_for("samples", rows.len(), 1)?, packed: Vec::new() };
        samples.rows.extend_from_slice(rows);
        let eights = samples.len() / STREAMS;
        let mut packed = room_for("samples", eights, width)?;
        for first in (0..eights).map(|eight| eight * STREAMS) {
            let rows: [&[f64]; STREAMS] = std::array::from_fn(|lane| samples.row(first + lane));
            packed.extend((0..width).map(|j| Lanes(rows.map(|row| row[j]))));
        }
        samples.packed = packed;
        Ok(samples)
    }

    /// Puts the parameters of the samples `idx`, eight at most, into lanes.
    /// Lanes without a sample repeat the last one.
    fn load(&self, layout: Layout<'_>, values: &mut [Block], to: Eighth, idx: &[usize]) {
        let first = idx[0];
        let consecutive = idx.iter().enumerate().all(|(lane, &i)| i == first + lane);
        if first.is_multiple_of(STREAMS) && consecutive && idx.len() == STREAMS {
            let start = first / STREAMS * self.width;
            lanes::store_packed(layout, values, to, &self.packed[start..start + self.width]);
        } else {
            let last = idx.len() - 1;
            lanes::store_rows(layout, values, to, std::array::from_fn(|lane| self.row(idx[lane.min(last)])));
        }
    }

    /// The number of samples N.
    #[allow(clippy::len_without_is_empty)] // There is at least one.
    pub fn len(&self) -> usize {
        self.rows.len() / self.width
    }

    /// The numbers per sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The parameters of sample `i`.
    ///
    /// # Panics
    ///
    /// If there is no sample `i`, as slices do.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.rows[i * self.width..(i + 1) * self.width]
    }
}

/// Samples a leaf of the tree of partial sums holds. Position p of a leaf goes
/// to partial sum p mod [`STREAMS`].
pub(crate) const LEAF: usize = 64;
/// Fewer samples than this are evaluated one by one.
pub(super) const FEW: usize = 4;

/// Sums of complete subtrees, each with its number of leaves.
type Subtrees = Vec<(usize, Vec<f64>)>;

/// What the fold keeps between samples, each entry a vector of `width` numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct SampleScratch {
    /// The values and gradient of one sample.
    sample: Vec<f64>,
    /// The partial sums of a leaf.
    streams: Vec<f64>,
    /// Sums of complete subtrees, the largest first.
    subtrees: Vec<f64>,
    /// How many leaves each of them holds.
    sizes: Vec<usize>,
}

/// Makes room for so many blocks.
pub(super) fn grow(blocks: &mut Vec<Block>, count: usize) {
    if blocks.len() < count {
        blocks.resize(count, Lanes([0.0; WIDTH]));
    }
}

/// Adds vectors, starting from −0, which adds to any number without changing it.
fn add(sum: &mut [f64], term: &[f64]) {
    for (sum, &term) in sum.iter_mut().zip(term) {
        *sum += term;
    }
}

impl SampleScratch {
    /// The sum of one leaf, into `self.streams[..width]`: `sample(position, out)`
    /// gives the terms.
    fn leaf<E>(
        &mut self,
        width: usize,
        positions: usize,
        mut sample: impl FnMut(usize, &mut [f64]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.streams.clear();
        self.streams.resize(STREAMS * width, -0.0);
        self.sample.resize(width, 0.0);
        for position in 0..positions {
            sample(position, &mut self.sample[..width])?;
            let stream = position % STREAMS;
            add(&mut self.streams[stream * width..(stream + 1) * width], &self.sample[..width]);
        }
        let mut half = STREAMS / 2;
        while half > 0 {
            let (low, high) = self.streams.split_at_mut(half * width);
            add(low, &high[..half * width]);
            half /= 2;
        }
        Ok(())
    }

    /// Begins a sum.
    pub fn start(&mut self) {
        self.subtrees.clear();
        self.sizes.clear();
    }

    /// Adds the next subtree, of so many leaves: equal subtrees merge, the
    /// earlier on the left.
    fn push(&mut self, subtree: &[f64], leaves: usize) {
        self.subtrees.extend_from_slice(subtree);
        self.sizes.push(leaves);
        while let [.., a, b] = self.sizes[..] {
            if a != b {
                break;
            }
            self.merge(subtree.len());
        }
    }

    /// Adds the leaf whose sum is in `self.streams`.
    fn push_leaf(&mut self, width: usize) {
        let streams = std::mem::take(&mut self.streams);
        self.push(&streams[..width], 1);
        self.streams = streams;
    }

    /// Adds the leaf of the samples whose values and gradients are complete:
    /// `width` numbers each, in the order of their positions.
    pub fn push_leaf_of(&mut self, samples: &[f64], width: usize) {
        let copy = |position: usize, out: &mut [f64]| {
            out.copy_from_slice(&samples[position * width..(position + 1) * width]);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = self.leaf(width, samples.len() / width, copy);
        self.push_leaf(width);
    }

    fn merge(&mut self, width: usize) {
        let last = self.subtrees.len() - width;
        let (rest, right) = self.subtrees.split_at_mut(last);
        add(&mut rest[last - width..], right);
        self.subtrees.truncate(last);
        let right = self.sizes.pop().unwrap_or(0);
        if let Some(left) = self.sizes.last_mut() {
            *left += right;
        }
    }

    /// Merges what is left, the later subtrees first, into the total.
    pub fn total(&mut self, width: usize) -> &[f64] {
        while self.sizes.len() > 1 {
            self.merge(width);
        }
        &self.subtrees[..width]
    }
}

impl Tape {
    pub(crate) fn check_samples(
        &self,
        driver: &'static str,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
    ) -> Result<(), Error> {
        self.expect_scalar(driver, "one tape an output, or a weighted sum as the output")?;
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        if samples.width != self.num_params() {
            return Err(Error::SampleWidth { expected: self.num_params(), got: samples.width });
        }
        if idx.is_empty() {
            return Err(Error::Empty { what: "idx", hint: "give the index of at least one sample" });
        }
        match idx.iter().position(|&i| i >= samples.len()) {
            Some(position) => Err(Error::SampleIndex { position, index: idx[position], samples: samples.len() }),
            None => Ok(()),
        }
    }

    /// The sum of one leaf, one sample after the other: entry 0 of `out` is the
    /// value, the rest the gradient, if it is wanted.
    fn scalar_leaf(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        width: usize,
    ) -> Result<(), Error> {
        let mut scratch = std::mem::take(&mut ws.samples);
        let summed = scratch.leaf(width, idx.len(), |position, out| {
            let i = idx[position];
            let (value, gradient) = out.split_at_mut(1);
            value[0] = self.gradient_at(ws, x, Some(samples.row(i)), gradient).map_err(|error| error.at_sample(i))?;
            Ok(())
        });
        ws.samples = scratch;
        summed
    }

    /// The layout of lanes of which inputs are shared and parameters are not,
    /// unless lanes do not suit the tape.
    fn lanes_of_samples(&self, ws: &mut Workspace, gradient: bool) -> Option<Layout<'_>> {
        let program = if gradient { self.programs.reverse(&self.data) } else { self.programs.forward(&self.data) };
        let uniform_passive = self.data.constants.len();
        let uniform_inputs = self.num_inputs();
        let slots = program.num_slots - uniform_passive - uniform_inputs;
        let adjoints = if gradient { program.num_slots - program.first_input } else { 0 };
        if !program.calls.is_empty() {
            // Functions run at one point at a time.
            return None;
        }
        let blocks = ws.lanes.blocks_for(slots, adjoints, 2)?;
        Some(Layout { level: ws.lanes.level(), program, blocks, uniform_passive, uniform_inputs })
    }

    /// The sum of one leaf in lanes.
    fn lane_leaf(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        width: usize,
    ) -> Result<(), Error> {
        let Some(layout) = self.lanes_of_samples(ws, width > 1) else {
            return self.scalar_leaf(ws, x, samples, idx, width);
        };
        let program = layout.program;
        let blocks = layout.blocks;
        self.load_shared(&mut ws.lanes, layout, x, width > 1);
        let streams = &mut ws.lanes.streams;
        // Sums of values start from −0. An adjoint is never −0, so that a sum of
        // adjoints may start from +0, even one that no sample contributes to.
        streams.resize(width, Lanes([0.0; STREAMS]));
        streams[0] = Lanes([-0.0; STREAMS]);
        streams[1..].fill(Lanes([0.0; STREAMS]));
        for group in idx.chunks(blocks * WIDTH) {
            values_of_samples(&mut ws.lanes, layout, samples, group);
            let LaneMemory { scalars, values, adjoints, streams, .. } = &mut ws.lanes;
            if let Some(lane) = self.first_lane_off_branch(layout, scalars, values, group.len()) {
                let i = group[lane];
                // The scalar engine says which guard it was.
                return match self.gradient_at(ws, x, Some(samples.row(i)), &mut []) {
                    Err(error) => Err(error.at_sample(i)),
                    Ok(_) => Err(Error::of_guards()),
                };
            }
            let output = program.outputs[0];
            for block in 0..blocks {
                let value = layout.fetch(scalars, values, output, block);
                streams[0] = lanes::add_samples(streams[0], value, group.len().saturating_sub(block * WIDTH));
            }
            if width > 1 {
                if output as usize >= program.first_input {
                    adjoints[layout.derivative(output)..][..blocks].fill(Lanes([1.0; WIDTH]));
                }
                let mut of_weights = Streams { sums: &mut streams[1..], samples: group.len() };
                lanes::adjoints(layout, scalars, values, adjoints, Some(&mut of_weights));
                for &input in &program.unweighted {
                    for block in 0..blocks {
                        let adjoint = lanes::take(adjoints, input * blocks + block);
                        let count = group.len().saturating_sub(block * WIDTH);
                        streams[1 + input] = lanes::add_samples(streams[1 + input], adjoint, count);
                    }
                }
            }
        }
        let streams = &mut ws.samples.streams;
        streams.clear();
        streams.resize(width, 0.0);
        if lanes::halve(layout.level, &ws.lanes.streams, streams) {
            return self.scalar_leaf(ws, x, samples, idx, width);
        }
        Ok(())
    }

    /// Loads what is the same in all samples, and makes room for what is not.
    fn load_shared(&self, lanes: &mut LaneMemory, layout: Layout<'_>, x: &[f64], gradient: bool) {
        let LaneMemory { scalars, values, adjoints, .. } = lanes;
        scalars.clear();
        scalars.extend_from_slice(&self.data.constants);
        scalars.resize(layout.program.first_input, 0.0);
        scalars.extend_from_slice(x);
        grow(values, layout.value_blocks());
        if gradient {
            grow(adjoints, layout.derivative_blocks());
        }
    }

    /// The lanes, of so many, in which a guard is answered otherwise than
    /// recorded: one bit a lane, the first the lowest.
    fn lanes_off_branch(&self, layout: Layout<'_>, scalars: &[f64], values: &[Block], lanes: usize) -> u64 {
        let mut off = 0;
        for (guard, operands) in self.guards().iter().zip(&layout.program.guards) {
            let (question, answer) = (guard.question(), guard.answer());
            for block in 0..lanes.div_ceil(WIDTH) {
                let [a, b] = operands.map(|slot| layout.fetch(scalars, values, slot, block).0);
                for lane in 0..WIDTH {
                    let changed = f64::confirm(question, answer, a[lane], b[lane]).is_err();
                    off |= u64::from(changed) << (block * WIDTH + lane);
                }
            }
        }
        // Lanes without a sample repeat others.
        off & (u64::MAX >> (64 - lanes))
    }

    /// The first of so many lanes in which a guard is answered otherwise than recorded.
    pub(super) fn first_lane_off_branch(
        &self,
        layout: Layout<'_>,
        scalars: &[f64],
        values: &[Block],
        lanes: usize,
    ) -> Option<usize> {
        let off = self.lanes_off_branch(layout, scalars, values, lanes);
        (off != 0).then(|| off.trailing_zeros() as usize)
    }

    /// For each of the samples `idx`, whether all guards are answered at x as recorded.
    pub(crate) fn samples_on_branch(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
    ) -> Vec<bool> {
        if self.guards().is_empty() {
            return vec![true; idx.len()];
        }
        let alone = |ws: &mut Workspace, i: usize| self.first_guard_off_branch(ws, x, Some(samples.row(i))).is_none();
        let Some(layout) = self.lanes_of_samples(ws, false) else {
            return idx.iter().map(|&i| alone(ws, i)).collect();
        };
        self.load_shared(&mut ws.lanes, layout, x, false);
        let mut on_branch = Vec::with_capacity(idx.len());
        for group in idx.chunks(layout.blocks * WIDTH) {
            if group.len() < FEW {
                on_branch.extend(group.iter().map(|&i| alone(ws, i)));
                continue;
            }
            values_of_samples(&mut ws.lanes, layout, samples, group);
            let off = self.lanes_off_branch(layout, &ws.lanes.scalars, &ws.lanes.values, group.len());
            on_branch.extend((0..group.len()).map(|lane| off >> lane & 1 == 0));
        }
        on_branch
    }

    /// The value and, for `width` > 1, the gradient of each of the samples `idx`,
    /// all of them on the tape's branch: `width` numbers each into `rows`.
    pub(crate) fn each_sample(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        width: usize,
        rows: &mut [f64],
    ) -> Result<(), Error> {
        let layout = self.lanes_of_samples(ws, width > 1);
        let lanes = layout.map_or(FEW, |layout| layout.blocks * WIDTH);
        if let Some(layout) = layout {
            self.load_shared(&mut ws.lanes, layout, x, width > 1);
        }
        for (group, rows) in idx.chunks(lanes).zip(rows.chunks_mut(lanes * width)) {
            let in_lanes = layout.filter(|_| group.len() >= FEW);
            if let Some(layout) = in_lanes {
                values_of_samples(&mut ws.lanes, layout, samples, group);
                let LaneMemory { scalars, values, adjoints, .. } = &mut ws.lanes;
                let output = layout.program.outputs[0];
                for (lane, row) in rows.chunks_mut(width).enumerate() {
                    row[0] = layout.fetch(scalars, values, output, lane / WIDTH).0[lane % WIDTH];
                }
                if width > 1 {
                    if output as usize >= layout.program.first_input {
                        adjoints[layout.derivative(output)..][..layout.blocks].fill(Lanes([1.0; WIDTH]));
                    }
                    lanes::adjoints(layout, scalars, values, adjoints, None);
                    let gradients = rows.chunks_mut(width).map(|row| &mut row[1..]);
                    lanes::take_rows(layout, &mut adjoints[..(width - 1) * layout.blocks], gradients);
                }
            }
            for (&i, row) in group.iter().zip(rows.chunks_mut(width)) {
                if in_lanes.is_none() || row.iter().any(|number| number.is_nan()) {
                    let (value, gradient) = row.split_at_mut(1);
                    let params = Some(samples.row(i));
                    value[0] = self.gradient_at(ws, x, params, gradient).map_err(|error| error.at_sample(i))?;
                }
            }
        }
        Ok(())
    }

    /// Adds the sum of one leaf to those in the workspace.
    pub(crate) fn push_leaf(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        leaf: &[usize],
        width: usize,
    ) -> Result<(), Error> {
        if leaf.len() < FEW {
            self.scalar_leaf(ws, x, samples, leaf, width)?;
        } else {
            self.lane_leaf(ws, x, samples, leaf, width)?;
        }
        ws.samples.push_leaf(width);
        Ok(())
    }

    /// The subtrees of Σᵢ f(x; kᵢ) and, for `width` > 1, its gradient, left in
    /// the workspace.
    fn sum_subtrees(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        width: usize,
    ) -> Result<(), Error> {
        ws.samples.start();
        idx.chunks(LEAF).try_for_each(|leaf| self.push_leaf(ws, x, samples, leaf, width))
    }

    /// Σᵢ f(x; kᵢ) and, for `width` > 1, its gradient, left in the first
    /// `width` entries of the workspace's tree.
    fn sum_samples(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        width: usize,
    ) -> Result<(), Error> {
        self.sum_subtrees(ws, x, samples, idx, width)?;
        ws.samples.total(width);
        Ok(())
    }

    /// Σᵢ f(x; kᵢ) over the samples `idx` of a one-output tape.
    ///
    /// The fold has a fixed shape, the same for every engine and thread count:
    /// within leaves of 64 positions of `idx`, position p is added to partial
    /// sum p mod 8; the eight are added in halves; leaves are added pairwise in
    /// a tree whose shape depends on their number alone. So the bits depend on
    /// the order of `idx`, in which an index may stand more than once.
    ///
    /// # Errors
    ///
    /// [`Error::NotScalar`], [`Error::Length`] for x, [`Error::SampleWidth`],
    /// [`Error::Empty`] or [`Error::SampleIndex`] for `idx`, and
    /// [`Error::BranchChanged`] with the sample for the smallest position at
    /// which a guard fails.
    ///
    /// ```
    /// # use ad_core::{Samples, Tape};
    /// let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).record(|x, k| x[0] * k[0])?;
    /// let samples = Samples::from_rows(&tape, &[1.0, 2.0, 4.0])?;
    /// assert_eq!(tape.sum_value(&[3.0], &samples, &[0, 2])?, 15.0);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sum_value(&self, x: &[f64], samples: &Samples, idx: &[usize]) -> Result<f64, Error> {
        self.sum_value_into(&mut Workspace::new(), x, samples, idx)
    }

    /// [`Tape::sum_value`] that allocates nothing on a warm workspace.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::sum_value`].
    pub fn sum_value_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
    ) -> Result<f64, Error> {
        self.check_samples("sum_value", x, samples, idx)?;
        self.sum_samples(ws, x, samples, idx, 1)?;
        Ok(ws.samples.subtrees[0])
    }

    /// Σᵢ f(x; kᵢ) and its gradient Σᵢ ∇f(x; kᵢ) (n numbers) over the samples
    /// `idx` of a one-output tape, by the fold of [`Tape::sum_value`]. One
    /// sample gives the bits of `with_params(row)` and `gradient`.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::sum_value`].
    ///
    /// ```
    /// # use ad_core::{Samples, Tape};
    /// let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).record(|x, k| x[0] * x[0] * k[0])?;
    /// let samples = Samples::from_rows(&tape, &[1.0, 2.0, 4.0])?;
    /// assert_eq!(tape.sum_gradient(&[3.0], &samples, &[0, 1, 2])?, (63.0, vec![42.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sum_gradient(&self, x: &[f64], samples: &Samples, idx: &[usize]) -> Result<(f64, Vec<f64>), Error> {
        let mut gradient = vec![0.0; self.num_inputs()];
        let value = self.sum_gradient_into(&mut Workspace::new(), x, samples, idx, &mut gradient)?;
        Ok((value, gradient))
    }

    /// [`Tape::sum_gradient`] that allocates nothing on a warm workspace: writes
    /// the gradient and returns the value. Divide by `idx.len()` for the mean.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::sum_value`], and [`Error::Length`] for `gradient`. The
    /// gradient is then unspecified.
    ///
    /// ```
    /// # use ad_core::{Samples, Tape, Workspace};
    /// // Logistic regression: the loss of one sample (k₁, k₂) with the label k₃ = ±1.
    /// let loss = Tape::builder()
    ///     .inputs(&[], &[0.0; 3])
    ///     .params(&[], &[0.0; 3])
    ///     .record(|x, k| (-(k[2] * (x[0] * k[0] + x[1] * k[1] + x[2]))).softplus())?;
    /// let rows: Vec<f64> = (0..200)
    ///     .flat_map(|i| {
    ///         let (a, b) = ((f64::from(i) * 0.7).sin(), (f64::from(i) * 1.3).cos());
    ///         [a, b, if a + 2.0 * b > 0.3 { 1.0 } else { -1.0 }]
    ///     })
    ///     .collect();
    /// let samples = Samples::from_rows(&loss, &rows)?;
    ///
    /// let (mut ws, mut x, mut gradient) = (Workspace::new(), [0.0; 3], [0.0; 3]);
    /// let order: Vec<usize> = (0..samples.len()).collect(); // shuffle it for stochastic descent
    /// for minibatch in order.chunks(50).cycle().take(400) {
    ///     loss.sum_gradient_into(&mut ws, &x, &samples, minibatch, &mut gradient)?;
    ///     for (x, g) in x.iter_mut().zip(gradient) {
    ///         *x -= 0.5 * g / minibatch.len() as f64;
    ///     }
    /// }
    /// assert!(loss.sum_value(&x, &samples, &order)? / 200.0 < 0.2);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sum_gradient_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        gradient: &mut [f64],
    ) -> Result<f64, Error> {
        self.check_samples("sum_gradient", x, samples, idx)?;
        expect_len("gradient (one number per input)", gradient.len(), self.num_inputs())?;
        self.sum_samples(ws, x, samples, idx, 1 + self.num_inputs())?;
        gradient.copy_from_slice(&ws.samples.subtrees[1..=self.num_inputs()]);
        Ok(ws.samples.subtrees[0])
    }

    /// [`Tape::sum_gradient`] over so many threads: the same bits for any number.
    ///
    /// No more threads run than there are leaves of 64 samples, nor more than
    /// four times [`std::thread::available_parallelism`]. Each works at the best
    /// [`SimdLevel`](crate::SimdLevel) in memory of its own, allocated at each call. A thread that the
    /// system refuses to start is no error: its share is done by the calling one.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::sum_value`], and [`Error::NoThreads`] for 0.
    ///
    /// ```
    /// # use ad_core::{Samples, Tape};
    /// let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).record(|x, k| (x[0] * k[0]).sin())?;
    /// let samples = Samples::from_rows(&tape, &(0..1000).map(f64::from).collect::<Vec<_>>())?;
    /// let idx: Vec<usize> = (0..1000).collect();
    /// let one = tape.sum_gradient_threads(&[0.3], &samples, &idx, 1)?;
    /// assert_eq!(tape.sum_gradient_threads(&[0.3], &samples, &idx, 4)?, one);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sum_gradient_threads(
        &self,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        threads: usize,
    ) -> Result<(f64, Vec<f64>), Error> {
        let threads = threads_for(idx, threads)?;
        self.check_samples("sum_gradient_threads", x, samples, idx)?;
        if threads == 1 {
            return self.sum_gradient(x, samples, idx);
        }
        let width = 1 + self.num_inputs();
        sum_over_threads(idx, width, threads, |ws, idx| self.sum_subtrees(ws, x, samples, idx, width))
    }
}

/// The values of the program for the samples `group`, one a lane.
fn values_of_samples(lanes: &mut LaneMemory, layout: Layout<'_>, samples: &Samples, group: &[usize]) {
    let LaneMemory { scalars, values, .. } = lanes;
    // The parameters follow the constants, which are the same in every lane.
    let first = 0;
    for eighth in 0..layout.blocks * WIDTH / STREAMS {
        // The lanes without a sample repeat others.
        let start = (eighth * STREAMS).min((group.len() - 1) / STREAMS * STREAMS);
        let idx = &group[start..group.len().min(start + STREAMS)];
        samples.load(layout, values, Eighth { first, eighth }, idx);
    }
    if !layout.program.prologue.is_empty() {
        lanes::values(layout, &layout.program.prologue, scalars, values);
    }
    lanes::values(layout, &layout.program.rows, scalars, values);
}

/// How many of the threads asked for are worth starting.
pub(crate) fn threads_for(idx: &[usize], threads: usize) -> Result<usize, Error> {
    let threads = NonZeroUsize::new(threads).ok_or(Error::NoThreads)?.get();
    let available = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let leaves = idx.len().div_ceil(LEAF);
    Ok(threads.min(leaves.max(1)).min(available.saturating_mul(4)))
}

/// A sum over the samples `idx` and its gradient, `width` numbers, by so many
/// threads: `subtrees` leaves the subtrees of whole leaves in its workspace.
pub(crate) fn sum_over_threads(
    idx: &[usize],
    width: usize,
    threads: usize,
    subtrees: impl Fn(&mut Workspace, &[usize]) -> Result<(), Error> + Sync,
) -> Result<(f64, Vec<f64>), Error> {
    let leaves = idx.len().div_ceil(LEAF);
    // Each thread folds blocks of leaves, as many as a power of two, so that
    // every block is a subtree of the one tree, whose shape knows nothing of
    // threads; several blocks a thread keep the shares even.
    let share = leaves.div_ceil(threads);
    let block = 1 << share.div_ceil(8).ilog2();
    let share = share.next_multiple_of(block);
    let work = |idx: &[usize]| {
        let mut ws = Workspace::new();
        let mut sums = Vec::new();
        for idx in idx.chunks(block * LEAF) {
            subtrees(&mut ws, idx)?;
            let sizes = ws.samples.sizes.iter().copied();
            sums.extend(sizes.zip(ws.samples.subtrees.chunks(width).map(<[f64]>::to_vec)));
        }
        Ok(sums)
    };
    let work = &work;
    let outcomes: Vec<Result<Subtrees, Error>> = std::thread::scope(|scope| {
        let spawn = |share| (share, std::thread::Builder::new().spawn_scoped(scope, move || work(share)).ok());
        let mut shares = idx.chunks(share * LEAF);
        // This thread does the first share itself, while the others run.
        let own = shares.next();
        let handles: Vec<_> = shares.map(spawn).collect();
        let outcome = |(share, handle): (_, Option<ScopedJoinHandle<'_, _>>)| match handle {
            // A panic of a thread is passed on as it was.
            Some(handle) => handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => work(share),
        };
        let own = own.map(work);
        own.into_iter().chain(handles.into_iter().map(outcome)).collect()
    });
    let mut tree = SampleScratch::default();
    for outcome in outcomes {
        // The first share that failed holds the smallest position.
        for (leaves, sum) in outcome? {
            tree.push(&sum, leaves);
        }
    }
    let total = tree.total(width);
    Ok((total[0], total[1..].to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_leaves_and_threads_folds_one_tree() {
        let f = |x: &[crate::Var], k: &[crate::Var]| (x[0] * k[0]).sin() * x[1];
        let tape = Tape::builder().inputs(&[], &[0.3, 1.7]).params(&[], &[1.0]).record(f).unwrap();
        let rows: Vec<f64> = (0..70).map(|i| f64::from(i) * 0.37).collect();
        let samples = Samples::from_rows(&tape, &rows).unwrap();
        for count in (1..=40).map(|leaves| leaves * LEAF - 5).chain([150 * LEAF, 150 * LEAF + 1]) {
            let idx: Vec<usize> = (0..count).map(|i| i * i % 70).collect();
            let bits = |(value, gradient): (f64, Vec<f64>)| [value, gradient[0], gradient[1]].map(f64::to_bits);
            let one = bits(tape.sum_gradient(&[0.3, 1.7], &samples, &idx).unwrap());
            for threads in 2..=8 {
                let many = tape.sum_gradient_threads(&[0.3, 1.7], &samples, &idx, threads).unwrap();
                assert_eq!(bits(many), one, "{count} samples, {threads} threads");
            }
        }
    }
}
