//! The whole path, end to end: record a function, look at its derivatives, minimise, and train on real data.
//!
//! Run it from the root of the repository with `cargo run --release --example quickstart`. It tells its story on stdout,
//! the same bytes every time, reports progress on stderr, and leaves a plot of the training in the target directory.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{array, env, fs};

use ad_core::{Real, Tape};
use ad_optim::data::{Csv, Dataset, Missing, Standardisation};
use ad_optim::report::{Chart, Progress};
use ad_optim::{Adam, Batches, EmpiricalRisk, GradientDescent, Trainer, init};

/// Whatever goes wrong is shown to the user as one line.
type Fallible<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let Err(error) = run(&mut io::stdout().lock()) else { return ExitCode::SUCCESS };
    let message = match error.downcast::<io::Error>() {
        // A reader that has seen enough, such as `head`, closes the pipe: that is no failure.
        Ok(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        // A bare io::Error comes from stdout: everything else below says what it was about.
        Ok(error) => format!("stdout cannot be written: {error}"),
        Err(error) => error.to_string(),
    };
    // Nobody is left to be told if stderr is closed as well.
    let _ = writeln!(io::stderr(), "quickstart: {message}");
    ExitCode::FAILURE
}

fn run(out: &mut impl Write) -> Fallible {
    record_and_differentiate(out)?;
    minimise(out)?;
    train(out)?;
    Ok(out.flush()?)
}

fn heading(out: &mut impl Write, title: &str) -> io::Result<()> {
    writeln!(out, "{title}\n{}\n", "=".repeat(title.chars().count()))
}

// Part 1: a function, its list of operations, and its derivatives.

fn record_and_differentiate(out: &mut impl Write) -> Fallible {
    heading(out, "1. Record a function and differentiate it")?;

    writeln!(
        out,
        "We run y = cos(x₁) + x₁·x₂ − exp(x₂) once, at (x₁, x₂) = (2, 4), and write down\n\
         every elementary operation on the way. This is the Wengert list, or tape; v₋₁\n\
         and v₀ stand for the two inputs:\n"
    )?;
    let x = [2.0, 4.0];
    let tape = Tape::record(&x, |x| {
        let (x1, x2) = (x[0], x[1]);
        let v1 = x1.cos();
        let v2 = x1 * x2;
        let v3 = x2.exp();
        let v4 = v1 + v2;
        v4 - v3
    })?;
    writeln!(out, "{tape}")?;

    writeln!(
        out,
        "Forward mode asks: how fast does y change if we move the inputs in a direction\n\
         p? It goes down the list with two columns, the value v of each row and its\n\
         tangent v̇, by the chain rule. Moving x₁ alone, p = (1, 0), gives ∂y/∂x₁ in the\n\
         last row:\n"
    )?;
    writeln!(out, "{}", tape.tangent_trace(&x, &[1.0, 0.0])?)?;
    writeln!(out, "Moving x₂ alone, p = (0, 1), gives ∂y/∂x₂:\n")?;
    writeln!(out, "{}", tape.tangent_trace(&x, &[0.0, 1.0])?)?;

    writeln!(
        out,
        "Reverse mode asks: how much does each row matter for y? It goes up the same list\n\
         with the adjoint v̄ of each row, starting from ȳ = w, the weight of the output,\n\
         here 1; v₀ is used by v₂ and v₃, so its adjoint adds up what both send back. One\n\
         pass gives the derivatives for all inputs, in the last two rows:\n"
    )?;
    writeln!(out, "{}", tape.adjoint_trace(&x, &[1.0])?)?;

    writeln!(out, "The same list as a graph, in the language of Graphviz (`dot -Tsvg` draws it):\n")?;
    writeln!(out, "{}", tape.graph().to_dot())?;

    writeln!(
        out,
        "A program rarely needs the table, only the numbers. J is the Jacobian, the\n\
         matrix of all partial derivatives; J·p is one forward sweep, without building J:\n"
    )?;
    for p in [[1.0, 0.0], [0.0, 1.0]] {
        let (y, dy) = tape.jvp(&x, &p)?;
        writeln!(out, "y = {}   J·p = {} for p = ({}, {})", y[0], dy[0], p[0], p[1])?;
    }
    let jacobian = tape.jacobian(&x)?;
    writeln!(out, "J = {jacobian}")?;
    writeln!(out, "By hand: ∂y/∂x₁ = x₂ − sin x₁ = 4 − sin 2 and ∂y/∂x₂ = x₁ − exp x₂ = 2 − exp 4.\n")?;
    Ok(())
}

// Part 2: the gradient tells the way downhill.

fn minimise(out: &mut impl Write) -> Fallible {
    heading(out, "2. Minimise a function by gradient descent")?;

    writeln!(
        out,
        "The gradient ∇f points uphill, so we repeat x ← x − γ·∇f(x) with a small step\n\
         γ = 0.1 until the gradient is as good as zero. f(x, y) = x² + y² + 6 is a bowl:\n\
         its minimum, 6, lies at the origin (and it has no maximum). We start at (1, 1):\n"
    )?;
    let bowl = Tape::builder().inputs(&["x", "y"], &[1.0, 1.0]).record(|v, _| v[0].powi(2) + v[1].powi(2) + 6.0)?;
    let outcome =
        Trainer::new(&bowl, GradientDescent::new(0.1), vec![1.0, 1.0]).max_steps(1000).grad_tol(1e-8).run()?;
    writeln!(out, "{outcome}")?;
    writeln!(
        out,
        "Once x² + y² is below 4e-16, f is 6 to all sixteen digits of a number, and points\n\
         still closer to the origin have no smaller value. The gradient still tells them\n\
         apart: of points with equal values, the best is the one where it is smallest.\n"
    )?;
    Ok(())
}

// Part 3: training is minimising the mean loss over data.

/// 344 penguins of three species; data/README.md says where they come from. They are in the public domain (CC0).
const DATA: &str = include_str!("../data/penguins.csv");
const SPECIES: [&str; 3] = ["Adelie", "Chinstrap", "Gentoo"];
const FEATURES: [&str; 4] = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"];
/// The data of a penguin: its features, then a 1 at the place of its species and 0 elsewhere ("one-hot").
const SAMPLE: [&str; 5] = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "species"];

/// The number of units in the hidden layer of the network.
const HIDDEN: usize = 8;

/// The one source of everything random: the split, the initial weights, the order of the minibatches.
const SEED: u64 = 7;
const MAX_EPOCHS: usize = 200;

/// Fully connected units: each adds up its inputs, weighted, and its bias.
fn layer<T: Real, const UNITS: usize>(theta: &[T], inputs: &[T]) -> [T; UNITS] {
    let (weights, biases) = theta.split_at(UNITS * inputs.len());
    array::from_fn(|unit| T::dot(&weights[unit * inputs.len()..][..inputs.len()], inputs) + biases[unit])
}

/// The network: one score a species, the higher the likelier. Written once, for any number type: with `Var` it is
/// recorded for training, with `f64` it classifies.
fn scores<T: Real>(theta: &[T], features: &[T]) -> [T; SPECIES.len()] {
    let (first, second) = theta.split_at(HIDDEN * (FEATURES.len() + 1));
    let hidden: [T; HIDDEN] = layer(first, features).map(T::tanh);
    layer(second, &hidden)
}

/// The cross-entropy −ln(probability of the true species), where the probabilities are the softmax of the scores:
/// ln(Σ exp(scores)) − score of the true species. `logaddexp` forms the first term without overflow.
fn loss<T: Real>(theta: &[T], sample: &[T]) -> T {
    let (features, one_hot) = sample.split_at(FEATURES.len());
    let scores = scores(theta, features);
    let [a, b, c] = scores;
    a.logaddexp(b).logaddexp(c) - T::dot(&scores, one_hot)
}

fn classify(theta: &[f64], features: &[f64]) -> usize {
    let scores = scores(theta, features);
    (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

fn train(out: &mut impl Write) -> Fallible {
    heading(out, "3. Train a classifier on real data")?;

    let penguins = Csv::new()
        .numeric(&FEATURES)
        .levels("species", &SPECIES)
        .missing(Missing::DropRow)
        .read_bytes("penguins.csv", DATA.as_bytes())?;
    writeln!(
        out,
        "Which of three species is a penguin, given the length and depth of its bill, the\n\
         length of its flippers and its body mass? The Palmer penguins (public domain,\n\
         CC0; Horst, Hill and Gorman 2020) are {} rows; we drop {} of them because\n\
         measurements are missing, and keep {}.\n",
        penguins.len() + penguins.dropped(),
        penguins.dropped(),
        penguins.len()
    )?;

    let (training, held_out) = penguins.split_by("species", 0.8, SEED)?;
    writeln!(
        out,
        "We train on {} of them, and hold out {}, drawn at random, a fifth of each\n\
         species: the network never sees these, so they show how it does on penguins that\n\
         it does not know. Each feature is shifted and scaled to mean 0 and standard\n\
         deviation 1, as measured on the training part alone.\n",
        training.len(),
        held_out.len()
    )?;
    let scale = Standardisation::fit(&training, &FEATURES)?;
    let (training, held_out) = (scale.apply(&training)?, scale.apply(&held_out)?);

    // Weights start small and random, or all hidden units would learn the same; biases start at 0.
    let theta0 = init::dense(&[FEATURES.len(), HIDDEN, SPECIES.len()], SEED)?;

    // The weights are the inputs of the tape, by which it differentiates; the data of a penguin are its parameters.
    let first = training.select(&[0])?.rows(&SAMPLE)?;
    let tape = Tape::builder().inputs(&[], &theta0).params(&[], &first).record(loss)?;
    writeln!(
        out,
        "The network has {} inputs, {HIDDEN} tanh units and {} scores: {} weights to be\n\
         learned. A tanh unit adds up its inputs, each times a weight, and squeezes the sum\n\
         to between −1 and 1; a score is such a sum of the units, one for each species, and\n\
         the highest score is the answer. The loss for one penguin is recorded once, {}\n\
         rows long, and replayed for every other.\n\
         \n\
         A minibatch is a handful of penguins, here 32 in random order, whose mean gradient\n\
         stands in for that of all and costs less; an epoch is one pass over the training\n\
         part. Adam is gradient descent with a memory: it averages the gradients it has met\n\
         and fits the step of each weight to their size. We stop when 20 epochs have not\n\
         lowered the training loss by more than 0.001, or after {MAX_EPOCHS} epochs.\n",
        FEATURES.len(),
        SPECIES.len(),
        tape.num_inputs(),
        tape.len()
    )?;
    let mean_loss = |part: &Dataset| -> Fallible<EmpiricalRisk> {
        Ok(EmpiricalRisk::new(tape.clone(), part.samples(&tape, &SAMPLE)?)?)
    };
    let (risk, held_out_risk) = (mean_loss(&training)?, mean_loss(&held_out)?);
    let measure = |epoch, theta: &[f64]| -> Fallible<Point> {
        let (training_loss, held_out_loss) = (risk.value(theta)?, held_out_risk.value(theta)?);
        Ok(Point { epoch, training_loss, held_out_loss, percent: percent_right(theta, &held_out)? })
    };
    let mut trainer = Trainer::new(&risk, Adam::new(0.01), theta0)
        .batches(Batches::shuffled(32).seed(SEED))
        .max_epochs(MAX_EPOCHS)
        .patience(20, 1e-3)
        .threads(2);

    let mut curve = vec![measure(0, trainer.x())?];
    // Every tenth epoch, and after the training the last one.
    let in_table = |point: &Point| point.epoch.is_multiple_of(10);
    let mut progress = Progress::epochs("training", Some(MAX_EPOCHS));
    writeln!(out, "epoch  training loss  held-out loss  held-out accuracy")?;
    writeln!(out, "{}", curve[0])?;
    while let Some(step) = trainer.next() {
        let step = step?;
        progress.record(&step);
        if step.epoch_mean.is_none() {
            continue;
        }
        let point = measure(step.epoch, trainer.x())?;
        if in_table(&point) {
            progress.suspend(|| writeln!(out, "{point}"))?;
        }
        curve.push(point);
    }
    progress.finish();
    if let Some(last) = curve.last().filter(|point| !in_table(point)) {
        writeln!(out, "{last}")?;
    }
    let outcome = trainer.finish()?;
    writeln!(out, "\nStopped after {} epochs:\n{}.\n", outcome.epochs, outcome.stop)?;

    // The best point is chosen by the training loss; to choose it on the held-out penguins would flatter the result.
    let theta = &outcome.best_x;
    writeln!(
        out,
        "The best weights met on the way have a training loss of {:.4}. With them the\n\
         network names the species of the held-out penguins; rows are the true species,\n\
         columns the answers:\n",
        outcome.best_value
    )?;
    write_confusion(out, theta, &held_out)?;
    let right = count_right(theta, &held_out)?;
    let percent = percent_right(theta, &held_out)?;
    writeln!(
        out,
        "\nAccuracy on held-out penguins: {right} of {}, {percent:.1} %. With so few of them, one\n\
         penguin is worth about {:.1} %, so that luck in the draw plays a part.\n",
        held_out.len(),
        100.0 / held_out.len() as f64
    )?;

    let path = plot_path();
    write_plot(&path, &curve)?;
    writeln!(out, "The loss of both parts, epoch by epoch, is drawn in {}.", shown(&path).display())?;
    Ok(())
}

/// The true species of each penguin, and the answer.
fn answers(theta: &[f64], penguins: &Dataset) -> Fallible<Vec<(usize, usize)>> {
    let features = penguins.rows(&FEATURES)?;
    let answers = features.chunks_exact(FEATURES.len()).map(|features| classify(theta, features));
    Ok(penguins.codes("species")?.iter().copied().zip(answers).collect())
}

fn count_right(theta: &[f64], penguins: &Dataset) -> Fallible<usize> {
    Ok(answers(theta, penguins)?.iter().filter(|(species, answer)| species == answer).count())
}

fn percent_right(theta: &[f64], penguins: &Dataset) -> Fallible<f64> {
    Ok(100.0 * count_right(theta, penguins)? as f64 / penguins.len() as f64)
}

/// How well some weights do, on both parts of the data.
struct Point {
    epoch: usize,
    training_loss: f64,
    held_out_loss: f64,
    percent: f64,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Point { epoch, training_loss, held_out_loss, percent } = self;
        write!(f, "{epoch:5}  {training_loss:13.4}  {held_out_loss:13.4}  {percent:15.1} %")
    }
}

fn write_confusion(out: &mut impl Write, theta: &[f64], penguins: &Dataset) -> Fallible {
    let mut counts = [[0; SPECIES.len()]; SPECIES.len()];
    for (species, answer) in answers(theta, penguins)? {
        counts[species][answer] += 1;
    }
    let [a, b, c] = SPECIES;
    writeln!(out, "{:9}  {a:>9}  {b:>9}  {c:>9}", "")?;
    for (name, [a, b, c]) in SPECIES.iter().zip(counts) {
        writeln!(out, "{name:9}  {a:9}  {b:9}  {c:9}")?;
    }
    Ok(())
}

/// Where the plot goes: to cargo's target directory, wherever the example is started from.
fn plot_path() -> PathBuf {
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        // The package lies two directories below the root of the workspace.
        None => Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("")).join("target"),
    };
    target.join("quickstart-loss.svg")
}

/// The path as seen from the current directory, where it lies below that.
fn shown(path: &Path) -> &Path {
    let below = env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path)
}

/// The loss of both parts over the epochs.
fn write_plot(path: &Path, curve: &[Point]) -> Fallible {
    let losses = |loss: fn(&Point) -> f64| curve.iter().map(move |point| (point.epoch as f64, loss(point)));
    let chart = Chart::new("Palmer penguins: loss over the training")
        .x_label("epoch")
        .y_label("mean cross-entropy")
        // Because the loss falls by orders of magnitude.
        .log_y()
        .line("training", losses(|point| point.training_loss))
        .line("held out", losses(|point| point.held_out_loss));
    fs::create_dir_all(path.parent().unwrap_or(Path::new("")))
        .map_err(|error| format!("the loss curve cannot be written to {}: {error}", path.display()))?;
    Ok(chart.write(path)?)
}
