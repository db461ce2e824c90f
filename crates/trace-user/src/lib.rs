//! A model such as a numerical engineer would review: the price of a
//! zero-coupon bond that may default, with the sensitivities to its inputs.

use ad_core::{Error, Real, Tape};

/// exp(−(r + s)·t)·(1 − q): discounted at the rate r with the spread s over t
/// years, lost with probability q.
pub fn price<T: Real>(rate: T, spread: T, loss: T, years: f64) -> T {
    let discount = (-(rate + spread) * years).exp();
    discount * (T::lit(1.0) - loss)
}

/// The price recorded with named inputs.
///
/// # Errors
///
/// Those of [`ad_core::Builder::record`].
pub fn priced_tape(years: f64) -> Result<Tape, Error> {
    Tape::builder()
        .inputs(&["rate", "spread", "loss"], &[0.03, 0.01, 0.02])
        .record(|x, _| price(x[0], x[1], x[2], years))
}
