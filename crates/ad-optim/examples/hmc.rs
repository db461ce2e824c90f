//! Hamiltonian Monte Carlo: draws from a posterior, led by its gradient, and held against what theory says of it.
//!
//! Run it with `cargo run --release --example hmc`. How does the mass of a penguin depend on its flippers and its bill?
//! With a normal prior on the weights and an inverse gamma one on the variance of the noise, the posterior of a linear
//! regression is known in closed form. The sampler does not know that: it sees a density and, from the tape, its
//! gradient. The example fails if a moment is further from the exact one than five standard errors of the simulation.

use std::array::from_fn;
use std::error::Error;

use ad_core::{Real, Tape, Workspace};
use ad_optim::data::{Csv, Missing, Standardisation};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};

/// Three columns explain the fourth. All are standardised, so that the regression needs no constant.
const COLUMNS: [&str; 4] = ["flipper_length_mm", "bill_length_mm", "bill_depth_mm", "body_mass_g"];
const WEIGHTS: usize = COLUMNS.len() - 1;
/// The prior: weights normal with variance σ²·`SPREAD`, and σ² inverse gamma with `SHAPE` and `SCALE`.
const SPREAD: f64 = 10.0;
const SHAPE: f64 = 3.0;
const SCALE: f64 = 1.0;
const WARM_UP: usize = 1000;
const DRAWS: usize = 10_000;
/// The acceptance rate at which the warm-up aims, and the largest number of leapfrog steps, a power of two.
const TARGET: f64 = 0.8;
const MOST_STEPS: u32 = 16;
/// The key of a generator that is named, so that no update of a library changes the draws.
const KEY: [u8; 32] = *b"example: Hamiltonian Monte Carlo";

/// −ln of the posterior density of the weights and ln σ, but for a constant.
fn potential<T: Real>(theta: &[T], rows: &[f64]) -> T {
    let (weights, log_sigma) = theta.split_at(WEIGHTS);
    let squares = rows.chunks_exact(COLUMNS.len()).map(|row| {
        let terms: Vec<T> = weights.iter().zip(row).map(|(&weight, &u)| weight * u).collect();
        (T::sum_of(&terms) - row[WEIGHTS]).powi(2)
    });
    let squares: Vec<T> = squares.collect();
    // σ to the power −1 for each observation and each weight, −2·SHAPE − 2 from the prior, and 2 because ln σ is drawn.
    let power = (squares.len() + WEIGHTS) as f64 + 2.0 * SHAPE;
    let sum = T::sum_of(&squares) + T::dot(weights, weights) / SPREAD + 2.0 * SCALE;
    log_sigma[0] * power + sum * (log_sigma[0] * -2.0).exp() / 2.0
}

fn main() -> Result<(), Box<dyn Error>> {
    let csv = Csv::new().numeric(&COLUMNS).missing(Missing::DropRow);
    let penguins = csv.read_bytes("penguins.csv", include_bytes!("../data/penguins.csv"))?;
    let rows = Standardisation::fit(&penguins, &COLUMNS)?.apply(&penguins)?.rows(&COLUMNS)?;
    let mut theta = vec![0.0; WEIGHTS + 1];
    let tape = Tape::record(&theta, |theta| potential(theta, &rows))?;
    println!("{} penguins, {} unknowns, a tape of {} rows", penguins.len(), theta.len(), tape.len());

    let (mut workspace, mut rng) = (Workspace::new(), ChaCha8Rng::from_seed(KEY));
    let (mut height, mut slope) = tape.gradient(&theta)?;
    let (mut draws, mut acceptance_rate) = (Vec::new(), 0.0);
    let (mut step, mut mean_log_step, mut shortfall) = (0.1, 0.0, 0.0);
    let centre = f64::ln(10.0 * step);
    for round in 1..=WARM_UP + DRAWS {
        // A particle at θ is pushed at random and rolls over the potential: far away, and yet to where it is as likely.
        let mut momentum: Vec<f64> = StandardNormal.sample_iter(&mut rng).take(theta.len()).collect();
        let energy = |height: f64, momentum: &[f64]| height + momentum.iter().map(|p| p * p).sum::<f64>() / 2.0;
        let energy_before = energy(height, &momentum);
        let (mut to, mut to_height, mut to_slope) = (theta.clone(), height, slope.clone());
        // The number of steps varies, lest an orbit end where it began.
        for _ in 0..1 + rng.next_u32() % MOST_STEPS {
            // The leapfrog: half a push, a step, half a push. It keeps volumes, and can be run backwards.
            momentum.iter_mut().zip(&to_slope).for_each(|(p, slope)| *p -= step / 2.0 * slope);
            to.iter_mut().zip(&momentum).for_each(|(q, p)| *q += step * p);
            to_height = tape.gradient_into(&mut workspace, &to, &mut to_slope)?;
            momentum.iter_mut().zip(&to_slope).for_each(|(p, slope)| *p -= step / 2.0 * slope);
        }
        // Metropolis: it stays there with the probability min(1, exp(−gain)), which is that an exponential number
        // exceeds the gain. The gain of an orbit that left all bounds is NaN, and exceeded by none.
        let gain = energy(to_height, &momentum) - energy_before;
        let exponential: f64 = Exp1.sample(&mut rng);
        if exponential > gain {
            (theta, height, slope) = (to, to_height, to_slope);
        }
        let acceptance = if gain.is_nan() { 0.0 } else { (-gain).exp().min(1.0) };
        if round > WARM_UP {
            draws.push(theta.clone());
            acceptance_rate += acceptance / DRAWS as f64;
            continue;
        }
        // Dual averaging, by Hoffman and Gelman (2014), with their constants: a step that is accepted too rarely shrinks.
        let t = round as f64;
        shortfall += (TARGET - acceptance - shortfall) / (t + 10.0);
        let log_step = centre - t.sqrt() / 0.05 * shortfall;
        mean_log_step += (log_step - mean_log_step) * t.powf(-0.75);
        step = if round < WARM_UP { log_step.exp() } else { mean_log_step.exp() };
    }
    println!("{DRAWS} draws after {WARM_UP} of warm-up, with steps of {step:.4}");
    println!("acceptance rate {acceptance_rate:.3}, aimed at {TARGET}\n");

    println!("weights: b1 of {}, b2 of {}, b3 of {}", COLUMNS[0], COLUMNS[1], COLUMNS[2]);
    println!("{:11}  {:>9}  {:>9}  {:>14}  {:>15}", "", "exact", "estimate", "standard error", "effective draws");
    let mut worst: f64 = 0.0;
    let mut compare = |name: String, exact: f64, function: &dyn Fn(&[f64]) -> f64| {
        let values: Vec<f64> = draws.iter().map(|theta| function(theta)).collect();
        let (mean, variance, size) = summary(&values);
        let error = (variance / size).sqrt();
        println!("{name:11}  {exact:9.6}  {mean:9.6}  {error:14.6}  {size:15.0}");
        // Not f64::max, which would pass over NaN.
        let deviation = (mean - exact).abs() / error;
        worst = if deviation <= worst { worst } else { deviation };
    };
    let (mean, covariance, variance) = exact_moments(&rows);
    compare("mean σ²".to_owned(), variance, &|theta| (2.0 * theta[WEIGHTS]).exp());
    for i in 0..WEIGHTS {
        compare(format!("mean b{}", i + 1), mean[i], &|theta| theta[i]);
    }
    for i in 0..WEIGHTS {
        for j in 0..=i {
            // About the exact means, a covariance is a mean like any other.
            let product = |theta: &[f64]| (theta[i] - mean[i]) * (theta[j] - mean[j]);
            compare(format!("cov b{}, b{}", i + 1, j + 1), covariance[i][j], &product);
        }
    }
    println!("\nThe largest deviation is {worst:.1} standard errors.");
    if worst > 5.0 || worst.is_nan() {
        return Err("a moment is off by more than 5 standard errors: these draws are not from the posterior".into());
    }
    Ok(())
}

/// Mean and variance of correlated draws, and their effective size: of independent draws, so many would have a mean as
/// sure as theirs.
///
/// With ρₖ the autocorrelation at lag k, that is n / (1 + 2·Σρₖ), where the sum ends by Geyer's initial positive
/// sequence (*Statistical Science* 7 (1992)): before the first pair ρ₂ₖ + ρ₂ₖ₊₁ that is not positive, since for a
/// reversible chain all are, and what follows is noise. It is above n where draws alternate about the mean.
fn summary(values: &[f64]) -> (f64, f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let covariance =
        |lag: usize| values.iter().zip(&values[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / n;
    let variance = covariance(0);
    let pairs = (0..values.len() / 2).map(|k| (covariance(2 * k) + covariance(2 * k + 1)) / variance);
    let sum: f64 = pairs.take_while(|&pair| pair > 0.0).sum();
    (mean, variance, n / (2.0 * sum - 1.0))
}

type Square = [[f64; WEIGHTS]; WEIGHTS];

/// Mean and covariance of the weights, and the mean of σ², by the formulas of the conjugate prior.
fn exact_moments(rows: &[f64]) -> ([f64; WEIGHTS], Square, f64) {
    // Λ = XᵀX + 1/SPREAD, and the weights have the mean Λ⁻¹·Xᵀy.
    let rows: Vec<&[f64]> = rows.chunks_exact(COLUMNS.len()).collect();
    let products = |i: usize, j: usize| rows.iter().map(|row| row[i] * row[j]).sum::<f64>();
    let prior = |i: usize, j: usize| if i == j { 1.0 / SPREAD } else { 0.0 };
    let mut inverse: Square = from_fn(|i| from_fn(|j| products(i, j) + prior(i, j)));
    invert(&mut inverse);
    let mean = inverse.map(|row| (0..WEIGHTS).map(|j| row[j] * products(j, WEIGHTS)).sum::<f64>());
    // σ² is inverse gamma again, and the weights have Student's t distribution.
    let explained: f64 = (0..WEIGHTS).map(|j| mean[j] * products(j, WEIGHTS)).sum();
    let scale = SCALE + (products(WEIGHTS, WEIGHTS) - explained) / 2.0;
    let variance = scale / (SHAPE + rows.len() as f64 / 2.0 - 1.0);
    (mean, inverse.map(|row| row.map(|entry| variance * entry)), variance)
}

/// Inverts a symmetric positive definite matrix, by Gauss and Jordan, which need no pivoting for these.
fn invert(a: &mut Square) {
    for k in 0..WEIGHTS {
        let pivot = std::mem::replace(&mut a[k][k], 1.0);
        a[k] = a[k].map(|entry| entry / pivot);
        let row = a[k];
        for i in (0..WEIGHTS).filter(|&i| i != k) {
            let factor = std::mem::replace(&mut a[i][k], 0.0);
            a[i].iter_mut().zip(row).for_each(|(entry, above)| *entry -= factor * above);
        }
    }
}
