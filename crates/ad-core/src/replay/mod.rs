//! Replaying a tape: sweeps over its rows, and the memory they use.

mod engine;
mod program;
mod samples;
mod scalar;

pub(crate) use engine::{forward, reverse, values};
pub(crate) use program::{Program, Programs};
pub(crate) use samples::SampleScratch;
pub use samples::Samples;
pub(crate) use scalar::{load, primal_all, reverse_sweep, shape, tangent_sweep};

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
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// The slots of a program.
    slots: Vec<f64>,
    /// The values of the last reference sweep.
    pub(crate) values: Vec<f64>,
    pub(crate) sweep: SweepMemory,
    /// The seeds of a reference sweep.
    pub(crate) seed: Vec<f64>,
    /// Values of the outputs that are not asked for.
    pub(crate) y: Vec<f64>,
    pub(crate) samples: SampleScratch,
}

/// What a sweep writes, and the memory it needs besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct SweepMemory {
    pub tangents: Vec<f64>,
    pub adjoints: Vec<f64>,
    /// The operands of one fold.
    pub gathered: Vec<f64>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Workspace {
        Workspace::default()
    }

    /// So many numbers, as an earlier sweep left them, from the border of a
    /// cache line on.
    pub(crate) fn slots(&mut self, numbers: usize) -> &mut [f64] {
        const LINE: usize = 64 / size_of::<f64>();
        if self.slots.len() < numbers + LINE {
            self.slots.resize(numbers + LINE, 0.0);
        }
        let start = self.slots.as_ptr().align_offset(64).min(LINE);
        &mut self.slots[start..start + numbers]
    }
}
