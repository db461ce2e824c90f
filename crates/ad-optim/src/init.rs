//! Starting values for weights, drawn from one seed.
//!
//! The generator is ChaCha with 8 rounds, keyed by the 32 bytes `seed` (8, little-endian), zero (8) and
//! `"ad-optim initial"` (16, ASCII). One call draws one stream from its beginning: give every layer its own seed, or
//! two layers of one size start with equal weights. The uniform draws have the same bits on every machine; so do the
//! normal ones, but for about one in four thousand that lies in the tail beyond 3.65 standard deviations, which
//! rand_distr computes with the platform's logarithm.
//!
//! # Example
//!
//! ```
//! use ad_optim::init;
//!
//! // A network of 4 inputs, 8 hidden units and 3 outputs; the biases start at zero.
//! let mut theta = init::he_normal(4, 8, 1)?;
//! theta.extend([0.0; 8]);
//! theta.extend(init::glorot_uniform(8, 3, 2)?);
//! theta.extend([0.0; 3]);
//! assert_eq!(theta.len(), 4 * 8 + 8 + 8 * 3 + 3);
//! # Ok::<(), ad_optim::Error>(())
//! ```

use crate::Error;
use crate::batches::generator;
use rand_distr::{Distribution, StandardNormal, Uniform};

/// `fan_in · fan_out` weights uniform in (−a, a), a = √(6 / (fan_in + fan_out)).
///
/// Keeps the variance of activations and of adjoints near 1 through layers of tanh or logistic units. Source: Glorot
/// and Bengio, *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010, eq. 16.
///
/// # Errors
///
/// [`Error::InvalidSetting`] when a fan is 0, [`Error::TooLarge`] when the product does not fit in memory.
///
/// # Example
///
/// ```
/// let w = ad_optim::init::glorot_uniform(2, 4, 7)?;
/// assert_eq!(w.len(), 8);
/// assert!(w.iter().all(|w| w.abs() < 1.0)); // √(6 / (2 + 4)) = 1
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn glorot_uniform(fan_in: usize, fan_out: usize, seed: u64) -> Result<Vec<f64>, Error> {
    const OWNER: &str = "init::glorot_uniform";
    check_fans(OWNER, fan_in, fan_out)?;
    let a = (6.0 / (fan_in as f64 + fan_out as f64)).sqrt();
    // The bound is positive and finite for any two fans, which is all that `Uniform` asks for.
    let uniform = Uniform::new(-a, a).map_err(Error::objective)?;
    draw(OWNER, fan_in, fan_out, seed, uniform)
}

/// `fan_in · fan_out` weights from the normal distribution of mean 0 and standard deviation √(2 / fan_in).
///
/// Keeps the variance of activations through layers of rectified linear units. Source: He, Zhang, Ren and Sun,
/// *Delving deep into rectifiers*, ICCV 2015 (arXiv:1502.01852), eq. 10.
///
/// # Errors
///
/// [`Error::InvalidSetting`] when a fan is 0, [`Error::TooLarge`] when the product does not fit in memory.
///
/// # Example
///
/// ```
/// let w = ad_optim::init::he_normal(50, 200, 7)?;
/// let variance = w.iter().map(|w| w * w).sum::<f64>() / 10_000.0;
/// assert!((variance - 2.0 / 50.0).abs() < 0.002);
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn he_normal(fan_in: usize, fan_out: usize, seed: u64) -> Result<Vec<f64>, Error> {
    const OWNER: &str = "init::he_normal";
    check_fans(OWNER, fan_in, fan_out)?;
    let std = (2.0 / fan_in as f64).sqrt();
    draw(OWNER, fan_in, fan_out, seed, StandardNormal.map(move |z: f64| std * z))
}

/// `count` numbers from the normal distribution of mean 0 and standard deviation `std`.
///
/// Drawn by the ziggurat method (Doornik, *An improved ziggurat method to generate normal random samples*, 2005, as
/// implemented by rand_distr). A `std` of 0 gives zeros.
///
/// # Errors
///
/// [`Error::InvalidSetting`] when `count` is 0 or `std` is negative, NaN or infinite; [`Error::TooLarge`] when `count`
/// numbers do not fit in memory.
///
/// # Example
///
/// ```
/// let z = ad_optim::init::normal(3, 0.1, 7)?;
/// assert_eq!(z, ad_optim::init::normal(3, 0.1, 7)?);
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn normal(count: usize, std: f64, seed: u64) -> Result<Vec<f64>, Error> {
    const OWNER: &str = "init::normal";
    if count == 0 {
        return Err(Error::setting(OWNER, "count", 0.0, "at least 1"));
    }
    if !(std.is_finite() && std >= 0.0) {
        return Err(Error::setting(OWNER, "standard deviation", std, "finite and not negative; try 0.01"));
    }
    draw(OWNER, count, 1, seed, StandardNormal.map(move |z: f64| std * z))
}

fn check_fans(owner: &'static str, fan_in: usize, fan_out: usize) -> Result<(), Error> {
    for (setting, fan) in [("fan_in", fan_in), ("fan_out", fan_out)] {
        if fan == 0 {
            return Err(Error::setting(
                owner,
                setting,
                0.0,
                "at least 1: the number of units on that side of the layer",
            ));
        }
    }
    Ok(())
}

fn draw(
    owner: &'static str,
    rows: usize,
    columns: usize,
    seed: u64,
    distribution: impl Distribution<f64>,
) -> Result<Vec<f64>, Error> {
    let too_large = Error::TooLarge { owner, rows, columns };
    let mut numbers = Vec::new();
    // Reserving first turns an absurd size into an error: growing by `collect` would abort the process.
    match rows.checked_mul(columns) {
        Some(count) if numbers.try_reserve_exact(count).is_ok() => {
            let mut rng = generator(seed, 0, b"ad-optim initial");
            numbers.extend((0..count).map(|_| distribution.sample(&mut rng)));
            Ok(numbers)
        }
        _ => Err(too_large),
    }
}
