//! Starting values for weights, drawn from one seed.
//!
//! The generator is ChaCha with 8 rounds, keyed by the 32 bytes `seed` (8, little-endian), zero (8) and
//! `"ad-optim initial"` (16, ASCII). One call draws one stream from its beginning: give every layer its own seed, or
//! two layers of one size start with equal weights. [`dense`] does the like by itself: it puts the number of the layer,
//! from 0, in the place of the zero.
//!
//! rand_distr computes normal draws in the rare tails (beyond 3.65 standard deviations, about 1 draw in 4000) with the
//! platform's `ln`, so that normal weights may differ in the last bit between platforms, while uniform ones never do:
//! [`dense`] and [`glorot_uniform`] are exact.
//!
//! # Example
//!
//! ```
//! use ad_optim::init;
//!
//! // A network of 4 inputs, 8 tanh units and 3 outputs.
//! let theta = init::dense(&[4, 8, 3], 7)?;
//! assert_eq!(theta.len(), 4 * 8 + 8 + 8 * 3 + 3);
//!
//! // The same with 8 rectified linear units, layer by layer; the biases start at zero.
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
use std::iter::repeat_n;

const PURPOSE: &[u8; 16] = b"ad-optim initial";

/// Weights and biases of a fully connected network with layers of the given `sizes`, the inputs first.
///
/// Layer by layer, from inputs m to outputs n: its n·m weights, row by row (a row holds the m weights of one unit), then
/// its n biases. The weights are those of [`glorot_uniform`], the biases are zero. The weights of the first layer have
/// the bits of `glorot_uniform(sizes[0], sizes[1], seed)`; no two layers draw from one stream.
///
/// # Errors
///
/// [`Error::InvalidSetting`] for fewer than two sizes or a size of 0, [`Error::TooLarge`] when the numbers do not fit in
/// memory.
///
/// # Example
///
/// ```
/// use ad_optim::init;
///
/// let theta = init::dense(&[4, 8, 3], 7)?;
/// let (hidden, output) = theta.split_at(8 * (4 + 1));
/// let (weights, biases) = hidden.split_at(8 * 4);
/// assert_eq!(weights, init::glorot_uniform(4, 8, 7)?);
/// assert_eq!(biases, [0.0; 8]);
/// // The score of the first of the three outputs, of 8 hidden units that are all 1.
/// let score = output[..8].iter().sum::<f64>() + output[8 * 3];
/// assert!(score.abs() < 8.0);
/// # Ok::<(), ad_optim::Error>(())
/// ```
pub fn dense(sizes: &[usize], seed: u64) -> Result<Vec<f64>, Error> {
    const OWNER: &str = "init::dense";
    if sizes.len() < 2 {
        let must_be = "at least 2: the inputs, and the units of each layer";
        return Err(Error::setting(OWNER, "number of sizes", sizes.len() as f64, must_be));
    }
    if sizes.contains(&0) {
        return Err(Error::setting(OWNER, "size of a layer", 0.0, "at least 1"));
    }
    let mut theta = Vec::new();
    for (layer, (&fan_in, &fan_out)) in sizes.iter().zip(&sizes[1..]).enumerate() {
        // One more row, for the biases.
        reserve(&mut theta, OWNER, fan_in.saturating_add(1), fan_out)?;
        let weights = glorot(fan_in, fan_out)?.sample_iter(generator(seed, layer as u64, PURPOSE));
        theta.extend(weights.take(fan_in * fan_out));
        theta.extend(repeat_n(0.0, fan_out));
    }
    Ok(theta)
}

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
    draw(OWNER, fan_in, fan_out, seed, glorot(fan_in, fan_out)?)
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

fn glorot(fan_in: usize, fan_out: usize) -> Result<Uniform<f64>, Error> {
    let a = (6.0 / (fan_in as f64 + fan_out as f64)).sqrt();
    // The bound is positive and finite for any two fans, which is all that `Uniform` asks for.
    Uniform::new(-a, a).map_err(Error::objective)
}

fn draw(
    owner: &'static str,
    rows: usize,
    columns: usize,
    seed: u64,
    distribution: impl Distribution<f64>,
) -> Result<Vec<f64>, Error> {
    let mut numbers = Vec::new();
    reserve(&mut numbers, owner, rows, columns)?;
    numbers.extend(distribution.sample_iter(generator(seed, 0, PURPOSE)).take(rows * columns));
    Ok(numbers)
}

/// Makes room for rows · columns more numbers: growing on the way would abort the process where the size is absurd.
fn reserve(numbers: &mut Vec<f64>, owner: &'static str, rows: usize, columns: usize) -> Result<(), Error> {
    let reserved = rows.checked_mul(columns).is_some_and(|count| numbers.try_reserve_exact(count).is_ok());
    reserved.then_some(()).ok_or(Error::TooLarge { owner, rows, columns })
}
