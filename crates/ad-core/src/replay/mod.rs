//! Replaying a tape: sweeps over its rows, and the memory they use.

use crate::dual::Dual;
use crate::error::Error;
use crate::matrix::Matrix;
use crate::taylor::TaylorMemory;

mod calls;
mod engine;
mod lanes;
mod many;
mod mapped;
mod program;
mod runs;
mod samples;
mod scalar;
mod second;
mod simd;

pub(crate) use calls::{CallMemory, Calls, Step, forward_steps, reverse_steps};
pub(crate) use engine::{forward, reverse, values};
pub(crate) use lanes::{Block, WIDTH};
pub(crate) use mapped::{Group, MOST_LANES, Mapped};
pub(crate) use program::{Program, Programs};
pub use samples::Samples;
pub(crate) use samples::{LEAF, SampleScratch, sum_over_threads, threads_for};
pub(crate) use scalar::{
    CallError, load, primal_above, primal_all, primal_numbers, reverse_sweep, shape, tangent_sweep,
};
pub(crate) use second::reverse_with_tangents;
pub use simd::SimdLevel;

/// The scratch memory of the sweeps.
///
/// One workspace serves any tape, one at a time. It grows to what the largest
/// tape needs and stays; a sweep on a warm workspace allocates nothing. What a
/// sweep computes does not depend on what the workspace was used for before.
///
/// ```
/// use ad_core::{Tape, Workspace};
/// let tape = Tape::record(&[1.0, 2.0], |x| x[0] * x[1])?;
/// let (mut ws, mut gradient) = (Workspace::new(), [0.0; 2]);
/// for i in 0..10 {
///     let y = tape.gradient_into(&mut ws, &[i as f64, 3.0], &mut gradient)?;
///     assert_eq!((y, gradient), (3.0 * i as f64, [3.0, i as f64]));
/// }
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Workspace {
    /// The slots of a program.
    slots: Vec<f64>,
    pub(crate) calls: CallMemory,
    /// Whether the sweeps of a body are to follow the strict rule from the start.
    pub(crate) strict: bool,
    /// The values of the last reference sweep.
    pub(crate) values: Vec<f64>,
    pub(crate) sweep: SweepMemory,
    /// The reference sweep of second order.
    pub(crate) second: SecondMemory,
    /// The seeds of a reference sweep.
    pub(crate) seed: Vec<f64>,
    /// Values of the outputs that are not asked for, or their weights.
    pub(crate) y: Vec<f64>,
    /// Several columns of a sparse derivative in one.
    pub(crate) compressed: Vec<f64>,
    /// The Jacobian at one of many points.
    jac: Matrix,
    pub(crate) taylor: TaylorMemory,
    pub(crate) samples: SampleScratch,
    pub(crate) lanes: LaneMemory,
}

/// What the lane engine works in.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaneMemory {
    /// The level asked for; the best one if there is none.
    level: Option<SimdLevel>,
    /// The lanes asked for; as many as suit the program if there are none.
    lanes: Option<usize>,
    pub scalars: Vec<f64>,
    pub values: Vec<Block>,
    pub tangents: Vec<Block>,
    pub adjoints: Vec<Block>,
    pub streams: Vec<lanes::Stream>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LaneMemory { level, lanes, .. } = &self.lanes;
        f.debug_struct("Workspace").field("simd_level", level).field("lanes", lanes).finish_non_exhaustive()
    }
}

impl LaneMemory {
    /// The vector instructions to use.
    pub fn level(&mut self) -> SimdLevel {
        *self.level.get_or_insert_with(SimdLevel::best)
    }

    /// The blocks there is memory for already.
    fn capacity(&self) -> usize {
        self.values.capacity() + self.tangents.capacity() + self.adjoints.capacity()
    }

    /// The blocks of a slot for a program of so many slots in lanes, `usual` many
    /// unless they are so few that more fit the fastest cache; none if they are
    /// so many that they fit none, where one point at a time is faster and takes
    /// less memory; none, too, if there is no memory for the lanes asked for.
    /// `derivatives` are the slots of tangents or adjoints besides.
    pub fn blocks_for(&self, slots: usize, derivatives: usize, usual: usize) -> Option<usize> {
        const MOST: usize = 1 << 18;
        match self.lanes {
            Some(lanes) => {
                let blocks = lanes / WIDTH;
                let room = slots.saturating_add(derivatives).saturating_mul(blocks);
                let fits = || Vec::<Block>::new().try_reserve_exact(room).is_ok();
                (room <= MOST.max(self.capacity()) || fits()).then_some(blocks)
            }
            None if slots <= 32 && derivatives <= MOST / 4 => Some(4),
            None if slots.saturating_add(derivatives) <= MOST / usual => Some(usual),
            None if slots.saturating_add(derivatives) <= MOST => Some(1),
            None => None,
        }
    }
}

/// What a sweep writes, and the memory it needs besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct SweepMemory {
    pub tangents: Vec<f64>,
    pub adjoints: Vec<f64>,
    /// The operands of one fold.
    pub gathered: Vec<f64>,
}

/// What the reference sweep of second order works in.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecondMemory {
    pub inputs: Vec<Dual>,
    pub values: Vec<Dual>,
    pub adjoints: Vec<Dual>,
    /// The operands of one fold.
    pub gathered: Vec<Dual>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Workspace {
        Workspace::default()
    }

    /// Uses the given vector instructions from now on, instead of the best that
    /// the machine has. It concerns what runs in vectors: the drivers of samples,
    /// of many points, and of several directions. The results are the same bits. A new workspace goes
    /// back to the best.
    pub fn set_simd_level(&mut self, level: SimdLevel) {
        self.lanes.level = Some(level);
        self.calls.function.level = Some(level);
    }

    /// Evaluates so many samples or points side by side from now on, 16, 32 or
    /// 64 at any level, instead of as many as suit the tape. More lanes share
    /// the work of reading a row, and take more of the cache. Where memory has no
    /// room for them, one is evaluated after the other. The results are the same bits.
    ///
    /// # Errors
    ///
    /// [`Error::Lanes`] for any other number.
    ///
    /// ```
    /// # use ad_core::Workspace;
    /// assert!(Workspace::new().set_lanes(32).is_ok());
    /// assert!(Workspace::new().set_lanes(3).is_err());
    /// ```
    pub fn set_lanes(&mut self, lanes: usize) -> Result<(), Error> {
        if ![16, 32, 64].contains(&lanes) {
            return Err(Error::Lanes { lanes });
        }
        self.lanes.lanes = Some(lanes);
        self.calls.function.lanes = Some(lanes);
        Ok(())
    }

    /// Uses these vector instructions and lanes, where they were asked for.
    pub(crate) fn use_lanes(&mut self, level: Option<SimdLevel>, lanes: Option<usize>) {
        self.lanes.level = level.or(self.lanes.level);
        self.lanes.lanes = lanes.or(self.lanes.lanes);
        (self.calls.function.level, self.calls.function.lanes) = (level, lanes);
    }

    /// So many numbers, as an earlier sweep left them, from the border of a cache
    /// line on, and the memory of functions.
    #[inline]
    pub(crate) fn slots_and_calls(&mut self, numbers: usize) -> (&mut [f64], &mut CallMemory) {
        const LINE: usize = 64;
        const PADDING: usize = LINE / size_of::<f64>();
        if self.slots.len() < numbers + PADDING {
            self.slots.resize(numbers + PADDING, 0.0);
        }
        let start = self.slots.as_ptr().addr().wrapping_neg() % LINE / size_of::<f64>();
        (&mut self.slots[start..start + numbers], &mut self.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_shows_and_reaches_functions() {
        let mut ws = Workspace::new();
        assert_eq!(format!("{ws:?}"), "Workspace { simd_level: None, lanes: None, .. }");
        assert_eq!(ws.lanes.level(), SimdLevel::best());
        ws.set_simd_level(SimdLevel::baseline());
        ws.set_lanes(32).expect("32 lanes are a number of lanes");
        let asked = format!("Workspace {{ simd_level: Some({}), lanes: Some(32), .. }}", SimdLevel::baseline());
        assert_eq!(format!("{ws:?}"), asked);
        assert_eq!(ws.lanes.level(), SimdLevel::baseline());
        let function = |ws: &Workspace| (ws.calls.function.level, ws.calls.function.lanes);
        assert_eq!(function(&ws), (Some(SimdLevel::baseline()), Some(32)));
        assert!(matches!(ws.set_lanes(48), Err(Error::Lanes { lanes: 48 })));
        assert_eq!(format!("{ws:?}"), asked);

        let mut of_body = Workspace::new();
        of_body.use_lanes(ws.calls.function.level, ws.calls.function.lanes);
        assert_eq!((format!("{of_body:?}"), function(&of_body)), (asked, function(&ws)));
    }

    #[test]
    fn lanes_that_no_memory_holds_are_no_lanes() {
        let asked = |lanes| LaneMemory { lanes: Some(lanes), ..LaneMemory::default() };
        for lanes in [16, 32, 64] {
            assert_eq!(asked(lanes).blocks_for(1 << 20, 1 << 20, 4), Some(lanes / WIDTH));
            for slots in [usize::MAX / 1024, usize::MAX] {
                assert_eq!(asked(lanes).blocks_for(slots, 0, 4), None);
                assert_eq!(asked(lanes).blocks_for(10, slots, 4), None);
            }
        }
        let (values, tangents, adjoints) = (Vec::with_capacity(3), Vec::with_capacity(5), Vec::with_capacity(7));
        assert_eq!(LaneMemory { values, tangents, adjoints, ..LaneMemory::default() }.capacity(), 15);
    }

    #[test]
    fn lanes_are_as_many_as_fit_the_cache() {
        let blocks = |slots, derivatives| LaneMemory::default().blocks_for(slots, derivatives, 2);
        assert_eq!(blocks(32, 1 << 16), Some(4), "few values");
        assert_eq!(blocks(33, 0), Some(2));
        assert_eq!(blocks(10, (1 << 16) + 1), Some(2), "few values, and many adjoints");
        assert_eq!(blocks(1 << 16, 1 << 16), Some(2));
        assert_eq!(blocks(1 << 16, (1 << 16) + 1), Some(1));
        assert_eq!(blocks(1 << 17, 1 << 17), Some(1));
        assert_eq!(blocks(1 << 17, (1 << 17) + 1), None);
        assert_eq!(blocks(1 << 20, usize::MAX), None);
    }
}
