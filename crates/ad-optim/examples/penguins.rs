//! A table from a CSV file to a trained classifier, with all that people look at on the way.
//!
//! Run it from the root of the repository with `cargo run --release --example penguins`. Which of three species is a
//! penguin, given four measurements? The table goes through `Dataset`: missing values are filled with means of the
//! training part, every level of the species is split alike, and the scale of the measurements is learned from the
//! training part alone. The run leaves a log, a chart and a page in the target directory, and reports progress on stderr.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use ad_core::{Real, Tape};
use ad_optim::data::{Csv, Dataset, Missing, Standardisation};
use ad_optim::report::{Chart, Log, LogFormat, Progress, Report};
use ad_optim::{Adam, Batches, EmpiricalRisk, Trainer};

/// 344 penguins; data/README.md says where they come from. They are in the public domain (CC0).
const DATA: &str = include_str!("../data/penguins.csv");
const FEATURES: [&str; 4] = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"];
const SPECIES: [&str; 3] = ["Adelie", "Chinstrap", "Gentoo"];
/// What makes a row: the measurements, then a 1 at the place of the species and 0 elsewhere.
const COLUMNS: [&str; 5] = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "species"];
const SEED: u64 = 7;
const EPOCHS: usize = 60;

/// One score a species: a weighted sum of the measurements, and a bias.
fn scores<T: Real>(theta: &[T], features: &[T]) -> [T; SPECIES.len()] {
    let (weights, biases) = theta.split_at(SPECIES.len() * FEATURES.len());
    std::array::from_fn(|i| T::dot(&weights[i * FEATURES.len()..][..FEATURES.len()], features) + biases[i])
}

/// The cross-entropy: ln(Σ exp(scores)) − score of the true species.
fn loss<T: Real>(theta: &[T], row: &[T]) -> T {
    let (features, one_hot) = row.split_at(FEATURES.len());
    let scores = scores(theta, features);
    let [a, b, c] = scores;
    a.logaddexp(b).logaddexp(c) - T::dot(&scores, one_hot)
}

fn main() -> Result<(), Box<dyn Error>> {
    let data = Csv::new()
        .numeric(&FEATURES)
        .levels("species", &SPECIES)
        .missing(Missing::TrainingMean)
        .read_bytes("penguins.csv", DATA.as_bytes())?;
    let (training, held_out) = data.split_by("species", 0.8, SEED)?;
    let scale = Standardisation::fit(&training, &FEATURES)?;
    let (training, held_out) = (scale.apply(&training)?, scale.apply(&held_out)?);
    println!("{} penguins to learn from, {} held out", training.len(), held_out.len());

    // The loss of one penguin is recorded once. The weights are the inputs of the tape, by which it differentiates; the
    // numbers of the penguin are its parameters, which every other penguin replaces by its own.
    let theta0 = vec![0.0; SPECIES.len() * (FEATURES.len() + 1)];
    let names = training.row_names(&COLUMNS)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let row = &training.rows(&COLUMNS)?[..names.len()];
    let tape = Tape::builder().inputs(&[], &theta0).params(&names, row).record(loss)?;
    let risk = EmpiricalRisk::new(tape.clone(), training.samples(&tape, &COLUMNS)?)?;
    let held_out_risk = EmpiricalRisk::new(tape.clone(), held_out.samples(&tape, &COLUMNS)?)?;

    let folder = target_folder();
    fs::create_dir_all(&folder)?;
    let mut log = Log::create(folder.join("penguins.jsonl"), LogFormat::JsonLines)?;
    let mut progress = Progress::epochs("penguins", Some(EPOCHS));
    let mut curve = Vec::new();
    let mut trainer = Trainer::new(&risk, Adam::new(0.05), theta0)
        .batches(Batches::shuffled(32).seed(SEED))
        .max_epochs(EPOCHS)
        .patience(10, 1e-4);
    while let Some(step) = trainer.next() {
        let step = step?;
        progress.record(&step);
        // Only the last step of an epoch has a mean over it.
        if step.epoch_mean.is_some() {
            let theta = trainer.x();
            let (training_loss, held_out_loss) = (risk.value(theta)?, held_out_risk.value(theta)?);
            let epoch = step.epoch as f64;
            log.record(&[("epoch", epoch), ("training_loss", training_loss), ("held_out_loss", held_out_loss)])?;
            curve.push((epoch, training_loss, held_out_loss));
        }
    }
    progress.finish();
    log.finish()?;
    let outcome = trainer.finish()?;

    let confusion = confusion(&outcome.best_x, &held_out)?;
    let right: usize = (0..SPECIES.len()).map(|i| confusion[i][i]).sum();
    println!("stopped {}", outcome.stop);
    println!("training loss {:.4}, right about {right} of {} held-out penguins", outcome.best_value, held_out.len());

    let chart = Chart::new("Palmer penguins: loss")
        .x_label("epoch")
        .y_label("mean cross-entropy")
        .log_y()
        .line("training", curve.iter().map(|&(epoch, training, _)| (epoch, training)))
        .line("held out", curve.iter().map(|&(epoch, _, held_out)| (epoch, held_out)));
    chart.write(folder.join("penguins.svg"))?;
    let rows = [0, 1, 2].map(|i| {
        let [a, b, c] = confusion[i].map(|count| count.to_string());
        [SPECIES[i].to_owned(), a, b, c]
    });
    Report::new("Palmer penguins")
        .text("Which of three species is a penguin? Softmax regression on four standardised measurements.")
        .setting("rule", "Adam, rate 0.05")
        .setting("batches", "32, shuffled")
        .setting("seed", SEED)
        .setting("rows", format!("{} to learn from, {} held out", training.len(), held_out.len()))
        .chart(&chart)
        .table("Held-out penguins: species (rows) and answers", &["", SPECIES[0], SPECIES[1], SPECIES[2]], &rows)
        .outcome(&outcome)
        .write(folder.join("penguins.html"))?;
    println!("penguins.html, penguins.svg and penguins.jsonl are in {}", folder.display());
    Ok(())
}

/// How often a species (row) was given an answer (column).
fn confusion(theta: &[f64], penguins: &Dataset) -> Result<[[usize; 3]; 3], Box<dyn Error>> {
    let mut counts = [[0; 3]; 3];
    let rows = penguins.rows(&FEATURES)?;
    for (features, &species) in rows.chunks_exact(FEATURES.len()).zip(penguins.codes("species")?) {
        let scores = scores(theta, features);
        let answer = (0..3).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        counts[species][answer] += 1;
    }
    Ok(counts)
}

/// Cargo's target directory, wherever the example is started from.
fn target_folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(""));
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
