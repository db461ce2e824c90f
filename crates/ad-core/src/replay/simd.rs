//! Which vector instructions the lane engine uses: chosen when it runs, not when it is built.

use std::fmt;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use fearless_simd::{Avx2, Avx512};
use fearless_simd::{Level, Simd};

/// A set of vector instructions that this machine has.
///
/// The engine takes the best one by itself, and the results are the same bits
/// with each: this type is there to measure and to test that.
///
/// ```
/// use ad_core::{SimdLevel, Tape, Samples, Workspace};
/// let tape = Tape::builder().inputs(&[], &[0.5]).params(&[], &[1.0]).record(|x, k| (x[0] * k[0]).tanh())?;
/// let rows: Vec<f64> = (0..100).map(f64::from).collect();
/// let (samples, idx) = (Samples::from_rows(&tape, &rows)?, Vec::from_iter(0..100));
/// let sums = SimdLevel::available().into_iter().map(|level| {
///     let mut ws = Workspace::new();
///     ws.set_simd_level(level);
///     tape.sum_value_into(&mut ws, &[0.5], &samples, &idx)
/// });
/// let sums: Vec<f64> = sums.collect::<Result<_, _>>()?;
/// assert!(sums.iter().all(|&sum| sum.to_bits() == sums[0].to_bits()));
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct SimdLevel(Kind);

/// The tokens prove that the processor has the instructions.
#[derive(Clone, Copy)]
enum Kind {
    Baseline,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx2(Avx2),
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx512(Avx512),
}

impl SimdLevel {
    /// What every processor of the architecture that the program was built for
    /// has: SSE2 on x86-64, NEON on AArch64.
    pub fn baseline() -> SimdLevel {
        SimdLevel(Kind::Baseline)
    }

    /// The levels of this machine, the slowest first.
    pub fn available() -> Vec<SimdLevel> {
        #[allow(unused_mut)]
        let mut levels = vec![SimdLevel::baseline()];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            let level = Level::new();
            levels.extend(level.as_avx2().map(|token| SimdLevel(Kind::Avx2(token))));
            levels.extend(level.as_avx512().map(|token| SimdLevel(Kind::Avx512(token))));
        }
        levels
    }

    /// The widest level of this machine, usually the fastest.
    pub fn best() -> SimdLevel {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            let level = Level::new();
            if let Some(token) = level.as_avx512() {
                return SimdLevel(Kind::Avx512(token));
            }
            if let Some(token) = level.as_avx2() {
                return SimdLevel(Kind::Avx2(token));
            }
        }
        SimdLevel::baseline()
    }

    /// Runs `f` compiled for this level, as far as it is inlined.
    #[inline(always)]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self.0 {
            Kind::Baseline => f(),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Kind::Avx2(token) => token.vectorize(f),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Kind::Avx512(token) => token.vectorize(f),
        }
    }

    fn name(self) -> &'static str {
        match self.0 {
            Kind::Baseline if cfg!(target_arch = "x86_64") => "SSE2",
            Kind::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            Kind::Baseline => "baseline",
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Kind::Avx2(_) => "AVX2",
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Kind::Avx512(_) => "AVX-512",
        }
    }
}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for SimdLevel {
    fn eq(&self, other: &SimdLevel) -> bool {
        self.name() == other.name()
    }
}

impl Eq for SimdLevel {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_a_name_of_its_own() {
        let levels = SimdLevel::available();
        assert_eq!((levels[0], levels.last()), (SimdLevel::baseline(), Some(&SimdLevel::best())));
        let all = ["SSE2", "NEON", "baseline", "AVX2", "AVX-512"];
        for (i, a) in levels.iter().enumerate() {
            assert!(all.contains(&a.to_string().as_str()), "{a}");
            assert_eq!(format!("{a:?}"), a.to_string());
            for (j, b) in levels.iter().enumerate() {
                assert_eq!(a == b, i == j, "{a}, {b}");
            }
        }
        if cfg!(target_arch = "x86_64") {
            assert_eq!(levels[0].to_string(), "SSE2");
        } else if cfg!(target_arch = "aarch64") {
            assert_eq!(levels[0].to_string(), "NEON");
        }
    }
}
