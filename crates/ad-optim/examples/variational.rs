//! Mean-field variational inference: the normal distribution with independent components that is nearest to a posterior,
//! found by Adam, and held against the exact optimum.
//!
//! Run it with `cargo run --release --example variational`. How does the mass of a penguin depend on its flippers and its
//! bill? We look for q(b) = Π N(bᵢ; μᵢ, sᵢ²) with the largest evidence lower bound (ELBO), the mean over q of
//! ln p(y, b) − ln q(b). The reparameterisation b = μ + s·z, z standard normal, makes it the mean over noise z, which does
//! not depend on μ and s: so it has a gradient in these, and the noise are the samples of a tape. For this linear
//! regression the best q is known in closed form, and the example fails if training does not find it.

use std::array::from_fn;
use std::error::Error;
use std::f64::consts::{E, PI};

use ad_core::{Real, Samples, Tape};
use ad_optim::data::{Csv, Missing, Standardisation};
use ad_optim::{Adam, Batches, EmpiricalRisk, Schedule, Trainer};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Three columns explain the fourth. All are standardised, so that the regression needs no constant.
const COLUMNS: [&str; 4] = ["flipper_length_mm", "bill_length_mm", "bill_depth_mm", "body_mass_g"];
const WEIGHTS: usize = COLUMNS.len() - 1;
/// The standard deviations of the noise in the data, and of the weights in the prior.
const NOISE: f64 = 0.5;
const PRIOR: f64 = 1.0;
/// Draws of z. Their mean is off by 1/√`DRAWS`, and as much, in units of s, the result will be.
const DRAWS: usize = 32_768;
const BATCH: usize = 64;
const EPOCHS: usize = 6;
/// The key of a generator that is named, so that no update of a library changes the draws.
const KEY: [u8; 32] = *b"example: variational mean field ";

fn log_normal<T: Real>(x: T, deviation: f64) -> T {
    (x / deviation).powi(2) * -0.5 - (deviation * (2.0 * PI).sqrt()).ln()
}

/// ln p(y, b): of the data, given the weights, and of the weights.
fn log_joint<T: Real>(weights: &[T], rows: &[f64]) -> T {
    let data = rows.chunks_exact(COLUMNS.len()).map(|row| {
        let terms: Vec<T> = weights.iter().zip(row).map(|(&weight, &u)| weight * u).collect();
        log_normal(T::sum_of(&terms) - row[WEIGHTS], NOISE)
    });
    let terms: Vec<T> = data.chain(weights.iter().map(|&weight| log_normal(weight, PRIOR))).collect();
    T::sum_of(&terms)
}

/// What one draw of the noise adds to −ELBO. The entropy of q, the mean of −ln q, is known: Σ ln sᵢ + ½·ln 2πe for each.
fn loss<T: Real>(theta: &[T], z: &[T], rows: &[f64]) -> T {
    let (mu, log_s) = theta.split_at(WEIGHTS);
    let weights: Vec<T> = (0..WEIGHTS).map(|i| mu[i] + log_s[i].exp() * z[i]).collect();
    let entropy = T::sum_of(log_s) + WEIGHTS as f64 / 2.0 * (2.0 * PI * E).ln();
    -log_joint(&weights, rows) - entropy
}

fn main() -> Result<(), Box<dyn Error>> {
    let csv = Csv::new().numeric(&COLUMNS).missing(Missing::DropRow);
    let penguins = csv.read_bytes("penguins.csv", include_bytes!("../data/penguins.csv"))?;
    let rows = Standardisation::fit(&penguins, &COLUMNS)?.apply(&penguins)?.rows(&COLUMNS)?;

    // The unknowns are μ and ln s, so that s is positive everywhere; we start from the standard normal distribution.
    let theta0 = vec![0.0; 2 * WEIGHTS];
    let rng = ChaCha8Rng::from_seed(KEY);
    let noise: Vec<f64> = StandardNormal.sample_iter(rng).take(DRAWS * WEIGHTS).collect();
    let tape = Tape::builder()
        .inputs(&["mu1", "mu2", "mu3", "ln s1", "ln s2", "ln s3"], &theta0)
        .params(&["z1", "z2", "z3"], &noise[..WEIGHTS])
        .record(|theta, z| loss(theta, z, &rows))?;
    println!("{} penguins, {} unknowns, a tape of {} rows", penguins.len(), tape.num_inputs(), tape.len());
    let samples = Samples::from_rows(&tape, &noise)?;
    let negative_elbo = EmpiricalRisk::new(tape, samples)?;

    // The rate falls to 0, which averages the noise of the batches out. The first gradients are steeper than the last by
    // orders of magnitude; with its usual β₂ of 0.999 Adam would shorten its steps for their sake until the end.
    let rule = (Adam::new(0.05).betas(0.9, 0.99), Schedule::cosine(EPOCHS * DRAWS / BATCH));
    let mut trainer =
        Trainer::new(&negative_elbo, rule, theta0).batches(Batches::shuffled(BATCH).seed(7)).max_epochs(EPOCHS);
    println!("\nepoch  ELBO, mean over the epoch");
    for step in trainer.by_ref() {
        let step = step?;
        if let Some(mean) = step.epoch_mean {
            println!("{:5}  {:10.4}", step.epoch, -mean);
        }
    }
    let outcome = trainer.finish()?;
    let (mu, log_s) = outcome.x.split_at(WEIGHTS);

    // The posterior is normal with precision Λ; the best q has its mean, and the variances 1/Λᵢᵢ.
    let exact = Posterior::of(&rows);
    println!("\nweights: b1 of {}, b2 of {}, b3 of {}\n", COLUMNS[0], COLUMNS[1], COLUMNS[2]);
    println!("               mean               standard deviation");
    println!("         ours       best        ours       best  of the posterior");
    let mut worst = 0.0;
    for i in 0..WEIGHTS {
        let (s, best_s) = (log_s[i].exp(), exact.precision[i][i].powf(-0.5));
        let posterior_s = exact.covariance[i][i].sqrt();
        println!("b{}  {:9.5}  {:9.5}   {s:9.5}  {best_s:9.5}  {posterior_s:16.5}", i + 1, mu[i], exact.mean[i]);
        for error in [(mu[i] - exact.mean[i]) / best_s, s / best_s - 1.0] {
            // Not f64::max, which would pass over NaN.
            worst = if error.abs() <= worst { worst } else { error.abs() };
        }
    }
    println!("\nNo q with independent components knows that the columns are correlated, so its");
    println!("deviations are smaller than those of the posterior.\n");

    let peak = log_joint(&exact.mean, &rows) + WEIGHTS as f64 / 2.0 * (2.0 * PI).ln();
    let best_elbo = peak - (0..WEIGHTS).map(|i| exact.precision[i][i].ln()).sum::<f64>() / 2.0;
    let log_evidence = peak - exact.log_determinant / 2.0;
    println!("ELBO          ours  {:10.4}", -outcome.value);
    println!("              best  {best_elbo:10.4}");
    println!("ln p(y), its bound  {log_evidence:10.4}");

    let expected = 1.0 / (DRAWS as f64).sqrt();
    println!("\nThe largest error is {worst:.4} standard deviations; {DRAWS} draws let expect {expected:.4}.");
    if worst > 5.0 * expected || worst.is_nan() {
        return Err("that is more than five times what the number of draws explains".into());
    }
    Ok(())
}

type Square = [[f64; WEIGHTS]; WEIGHTS];

/// The exact posterior: normal, with the precision Λ = XᵀX/NOISE² + 1/PRIOR² and the mean Λ⁻¹·Xᵀy/NOISE².
struct Posterior {
    mean: [f64; WEIGHTS],
    precision: Square,
    covariance: Square,
    log_determinant: f64,
}

impl Posterior {
    fn of(rows: &[f64]) -> Posterior {
        let rows: Vec<&[f64]> = rows.chunks_exact(COLUMNS.len()).collect();
        let products = |i: usize, j: usize| rows.iter().map(|row| row[i] * row[j]).sum::<f64>() / NOISE.powi(2);
        let prior = |i: usize, j: usize| if i == j { PRIOR.powi(-2) } else { 0.0 };
        let precision: Square = from_fn(|i| from_fn(|j| products(i, j) + prior(i, j)));
        let mut covariance = precision;
        let log_determinant = invert(&mut covariance);
        let mean = covariance.map(|row| (0..WEIGHTS).map(|j| row[j] * products(j, WEIGHTS)).sum());
        Posterior { mean, precision, covariance, log_determinant }
    }
}

/// Inverts a symmetric positive definite matrix, by Gauss and Jordan, which need no pivoting for these; returns ln of its
/// determinant.
fn invert(a: &mut Square) -> f64 {
    let mut log_determinant = 0.0;
    for k in 0..WEIGHTS {
        let pivot = std::mem::replace(&mut a[k][k], 1.0);
        log_determinant += pivot.ln();
        a[k] = a[k].map(|entry| entry / pivot);
        let row = a[k];
        for i in (0..WEIGHTS).filter(|&i| i != k) {
            let factor = std::mem::replace(&mut a[i][k], 0.0);
            a[i].iter_mut().zip(row).for_each(|(entry, above)| *entry -= factor * above);
        }
    }
    log_determinant
}
