//! A small network that tells ten kinds of clothes apart, on pictures of Fashion-MNIST.
//!
//! Run it with `cargo run --release --example fashion_mnist`. The data are Debian's package `dataset-fashion-mnist`
//! (`apt-get install dataset-fashion-mnist`); the variable `FASHION_MNIST` names another folder with the same four
//! files. Where they are absent, the example says so and does nothing.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

use ad_core::{Real, Samples, Tape};
use ad_optim::data::{Idx, labelled_rows};
use ad_optim::report::{Chart, Progress, Report};
use ad_optim::{Adam, Batches, EmpiricalRisk, Trainer, init};

const PIXELS: usize = 28 * 28;
const HIDDEN: usize = 32;
const CLASSES: usize = 10;
/// Of the 60 000 and 10 000 pictures, so many are used: enough to learn from in seconds.
const TRAINING: usize = 12_000;
const HELD_OUT: usize = 4000;
const EPOCHS: usize = 8;
const SEED: u64 = 7;

/// Fully connected units: each a weighted sum of the inputs, and a bias.
fn layer<T: Real>(units: usize, theta: &[T], inputs: &[T]) -> Vec<T> {
    let (weights, biases) = theta.split_at(units * inputs.len());
    weights.chunks_exact(inputs.len()).zip(biases).map(|(weights, &bias)| T::dot(weights, inputs) + bias).collect()
}

/// One score a class, the higher the likelier.
fn scores<T: Real>(theta: &[T], pixels: &[T]) -> Vec<T> {
    let (first, second) = theta.split_at(HIDDEN * (PIXELS + 1));
    let hidden: Vec<T> = layer(HIDDEN, first, pixels).into_iter().map(T::tanh).collect();
    layer(CLASSES, second, &hidden)
}

/// The cross-entropy: ln(Σ exp(scores)) − score of the true class.
fn loss<T: Real>(theta: &[T], row: &[T]) -> T {
    let (pixels, one_hot) = row.split_at(PIXELS);
    let scores = scores(theta, pixels);
    let total = scores[1..].iter().fold(scores[0], |total, &score| total.logaddexp(score));
    total - T::dot(&scores, one_hot)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::var_os("FASHION_MNIST").filter(|folder| !folder.is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("/usr/share/datasets/fashion-mnist"), PathBuf::from);
    let first = folder.join("train-images-idx3-ubyte.gz");
    if !first.exists() {
        println!(
            "skipped: there is no {}. On Debian and its kin, `apt-get install dataset-fashion-mnist` puts it there; \
             or set FASHION_MNIST to the folder that has it and the other three files of the data set.",
            first.display()
        );
        return Ok(());
    }
    let read = |part: &str, count: usize| -> Result<Vec<f64>, Box<dyn Error>> {
        let images = Idx::read_path(folder.join(format!("{part}-images-idx3-ubyte.gz")))?;
        let labels = Idx::read_path(folder.join(format!("{part}-labels-idx1-ubyte.gz")))?;
        let order = Batches::shuffled(count).seed(SEED).epoch(images.len(), 1)?;
        Ok(labelled_rows(&images, &labels, &order[0], 255.0, CLASSES)?)
    };
    let (training, held_out) = (read("train", TRAINING)?, read("t10k", HELD_OUT)?);

    let theta0 = init::dense(&[PIXELS, HIDDEN, CLASSES], SEED)?;
    let tape = Tape::builder().inputs(&[], &theta0).params(&[], &training[..PIXELS + CLASSES]).record(loss)?;
    println!("{} weights, a tape of {} rows, {TRAINING} pictures to learn from", theta0.len(), tape.len());
    let risk = EmpiricalRisk::new(tape.clone(), Samples::from_rows(&tape, &training)?)?;
    let right = |theta: &[f64]| held_out.chunks_exact(PIXELS + CLASSES).filter(|row| is_right(theta, row)).count();

    let started = Instant::now();
    let mut progress = Progress::epochs("fashion", Some(EPOCHS));
    let mut accuracy = vec![(0.0, right(&theta0) as f64 / HELD_OUT as f64)];
    let mut trainer = Trainer::new(&risk, Adam::new(2e-3), theta0)
        .batches(Batches::shuffled(64).seed(SEED))
        .max_epochs(EPOCHS)
        .threads(2);
    while let Some(step) = trainer.next() {
        let step = step?;
        progress.record(&step);
        if let Some(mean) = step.epoch_mean {
            let share = right(trainer.x()) as f64 / HELD_OUT as f64;
            accuracy.push((step.epoch as f64, share));
            progress.suspend(|| println!("epoch {}: mean loss {mean:.4}, held out right {share:.3}", step.epoch));
        }
    }
    progress.finish();
    let outcome = trainer.finish()?;

    let target = target_folder();
    fs::create_dir_all(&target)?;
    let page = target.join("fashion_mnist.html");
    Report::new("Fashion-MNIST")
        .setting("network", format!("{PIXELS} pixels, {HIDDEN} tanh units, {CLASSES} scores"))
        .setting("rule", "Adam, rate 0.002")
        .setting("pictures", format!("{TRAINING} to learn from, {HELD_OUT} held out"))
        .setting("seconds", format!("{:.1}", started.elapsed().as_secs_f64()))
        .chart(&Chart::of_history("Loss on the training part", &outcome.history))
        .chart(&Chart::new("Held-out pictures").x_label("epoch").y_label("share right").line("", accuracy))
        .outcome(&outcome)
        .write(&page)?;
    println!("right about {} of {HELD_OUT} held-out pictures; see {}", right(&outcome.best_x), page.display());
    Ok(())
}

fn is_right(theta: &[f64], row: &[f64]) -> bool {
    let (pixels, one_hot) = row.split_at(PIXELS);
    let scores = scores(theta, pixels);
    let answer = (0..CLASSES).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
    one_hot[answer] == 1.0
}

/// Cargo's target directory, wherever the example is started from.
fn target_folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(""));
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
