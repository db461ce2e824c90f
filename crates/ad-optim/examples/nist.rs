//! Nonlinear regression against certified results: ten problems of NIST's Statistical Reference Datasets.
//!
//! Run it with `cargo run --release --example nist`. NIST publishes data, a model, two starting points, one far from the
//! solution and one near it, and the solution: parameters and their standard deviations to eleven digits, from 128-bit
//! arithmetic. Here are a problem of the lower level of difficulty, one of the average, and all eight of the higher. A
//! model is an ordinary function; Levenberg–Marquardt takes its Jacobian from the tape, so that nobody has to write
//! derivatives by hand. The example fails unless six digits of every certified number are found from both starts.

use std::error::Error;

use ad_core::{Samples, Tape, Var};
use ad_optim::{FitStatistics, LeastSquares, LevenbergMarquardt, Trainer};

/// So many digits are certified, and so many must be right at least.
const CERTIFIED_DIGITS: f64 = 11.0;
const REQUIRED_DIGITS: f64 = 6.0;

/// A model y = f(b, x), and NIST's file with its data; data/nist/README.md says where the files come from.
struct Problem {
    formula: &'static str,
    /// The damping λ to begin with, from each of the starts.
    damping: [f64; 2],
    model: fn(&[Var], Var) -> Var,
    file: &'static str,
}

/// The default of `LevenbergMarquardt`.
const USUAL: [f64; 2] = [1e-3; 2];

const PROBLEMS: [Problem; 10] = [
    Problem {
        formula: "b1·(1 − exp(−b2·x))",
        damping: USUAL,
        model: |b, x| b[0] * (1.0 - (-b[1] * x).exp()),
        file: include_str!("../data/nist/Misra1a.dat"),
    },
    Problem {
        formula: "b1 + b2·exp(−b4·x) + b3·exp(−b5·x)",
        damping: USUAL,
        model: |b, x| b[0] + b[1] * (-b[3] * x).exp() + b[2] * (-b[4] * x).exp(),
        file: include_str!("../data/nist/MGH17.dat"),
    },
    Problem {
        formula: "b1·(x² + b2·x) / (x² + b3·x + b4)",
        damping: USUAL,
        model: |b, x| b[0] * (x * (x + b[1])) / (x * (x + b[2]) + b[3]),
        file: include_str!("../data/nist/MGH09.dat"),
    },
    Problem {
        formula: "(b1 + b2·x + b3·x² + b4·x³) / (1 + b5·x + b6·x² + b7·x³)",
        damping: USUAL,
        model: |b, x| (b[0] + x * (b[1] + x * (b[2] + x * b[3]))) / (1.0 + x * (b[4] + x * (b[5] + x * b[6]))),
        file: include_str!("../data/nist/Thurber.dat"),
    },
    Problem {
        formula: "b1·(1 − exp(−b2·x))",
        // With little damping the first steps lead to a b2 so large that the exponential, and the slope in b2, are 0.
        damping: [100.0, 1e-3],
        model: |b, x| b[0] * (1.0 - (-b[1] * x).exp()),
        file: include_str!("../data/nist/BoxBOD.dat"),
    },
    Problem {
        formula: "b1 / (1 + exp(b2 − b3·x))",
        damping: USUAL,
        model: |b, x| b[0] / (1.0 + (b[1] - b[2] * x).exp()),
        file: include_str!("../data/nist/Rat42.dat"),
    },
    Problem {
        formula: "b1·exp(b2 / (x + b3))",
        // The valley is long and bent; damped steps would creep along it.
        damping: [1e-14, 1e-3],
        model: |b, x| b[0] * (b[1] / (x + b[2])).exp(),
        file: include_str!("../data/nist/MGH10.dat"),
    },
    Problem {
        formula: "b1/b2·exp(−((x − b3)/b2)² / 2)",
        damping: USUAL,
        model: |b, x| b[0] / b[1] * (-0.5 * ((x - b[2]) / b[1]).powi(2)).exp(),
        file: include_str!("../data/nist/Eckerle4.dat"),
    },
    Problem {
        formula: "b1 / (1 + exp(b2 − b3·x))^(1/b4)",
        damping: USUAL,
        model: |b, x| b[0] / (1.0 + (b[1] - b[2] * x).exp()).pow(1.0 / b[3]),
        file: include_str!("../data/nist/Rat43.dat"),
    },
    Problem {
        formula: "b1·(b2 + x)^(−1/b3)",
        damping: USUAL,
        model: |b, x| b[0] * (b[1] + x).pow(-1.0 / b[2]),
        file: include_str!("../data/nist/Bennett5.dat"),
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut least = CERTIFIED_DIGITS;
    for problem in &PROBLEMS {
        let certified = Certified::read(problem.file)?;
        println!("{}, {} level of difficulty", certified.name, certified.difficulty);
        println!("y = {}, {} observations", problem.formula, certified.observations.len() / 2);
        let [far, near] = &certified.starts;
        let [far_damping, near_damping] = problem.damping;
        let fits = [fit(problem, &certified, far, far_damping)?, fit(problem, &certified, near, near_damping)?];
        least = least.min(compare(&certified, &fits));
    }
    println!("Of {CERTIFIED_DIGITS} certified digits, at least {least:.1} are right in all these numbers.");
    match least >= REQUIRED_DIGITS {
        true => Ok(()),
        false => Err(format!("fewer than {REQUIRED_DIGITS} digits of a certified number are right").into()),
    }
}

fn fit(problem: &Problem, certified: &Certified, start: &[f64], damping: f64) -> Result<FitStatistics, Box<dyn Error>> {
    // The residual of one observation is recorded; every observation replays it, as the parameters of the tape.
    let residual = Tape::builder()
        .inputs(&[], start)
        .params(&["y", "x"], &certified.observations[..2])
        .record(|b, observation| (problem.model)(b, observation[1]) - observation[0])?;
    let observations = Samples::from_rows(&residual, &certified.observations)?;
    let squares = LeastSquares::over_samples(residual, observations)?;
    let rule = LevenbergMarquardt::new().damping(damping);
    let outcome = Trainer::new(&squares, rule, start.to_vec()).run()?;
    println!("from {start:?} with λ = {damping:e}: {} steps, then {}", outcome.steps, outcome.stop);
    Ok(squares.statistics(&outcome.x)?)
}

/// Prints what was found from both starts beside what is certified, and returns the least number of right digits.
fn compare(certified: &Certified, fits: &[FitStatistics; 2]) -> f64 {
    println!("\n{:18}  {:>17}  {:>17}  digits  {:>17}  digits", "", "certified", "from start 1", "from start 2");
    let mut least = CERTIFIED_DIGITS;
    let mut row = |name: String, certified: f64, ours: fn(&FitStatistics, usize) -> f64, i: usize| {
        let [a, b] = fits.each_ref().map(|fit| ours(fit, i));
        let [digits_a, digits_b] = [a, b].map(|ours| right_digits(certified, ours));
        println!("{name:18}  {certified:17.10e}  {a:17.10e}  {digits_a:6.1}  {b:17.10e}  {digits_b:6.1}");
        least = least.min(digits_a).min(digits_b);
    };
    for (i, &parameter) in certified.parameters.iter().enumerate() {
        row(format!("b{}", i + 1), parameter, |fit, i| fit.x[i], i);
    }
    for (i, &deviation) in certified.deviations.iter().enumerate() {
        row(format!("deviation of b{}", i + 1), deviation, |fit, i| fit.standard_errors[i], i);
    }
    row("sum of squares".to_owned(), certified.sum_of_squares, |fit, _| fit.sum_of_squares, 0);
    row("residual deviation".to_owned(), certified.residual_deviation, |fit, _| fit.standard_deviation, 0);
    println!();
    least
}

/// −log₁₀ of the relative error, the usual measure for these data; at most what is certified, and 0 for NaN.
fn right_digits(certified: f64, ours: f64) -> f64 {
    let error = ((ours - certified) / certified).abs();
    if error.is_nan() { 0.0 } else { (-error.log10()).clamp(0.0, CERTIFIED_DIGITS) }
}

/// What a file of NIST's says.
struct Certified {
    name: String,
    difficulty: String,
    starts: [Vec<f64>; 2],
    parameters: Vec<f64>,
    deviations: Vec<f64>,
    sum_of_squares: f64,
    residual_deviation: f64,
    /// y and x, one observation after the other.
    observations: Vec<f64>,
}

impl Certified {
    /// Reads the layout that all these files share: headings, one line for each parameter, and the data from line 61 on.
    fn read(file: &str) -> Result<Certified, Box<dyn Error>> {
        let after = |heading: &str| -> Result<&str, String> {
            let rest = file.lines().find_map(|line| line.trim_start().strip_prefix(heading));
            Ok(rest.ok_or_else(|| format!("the file has no line that begins with \"{heading}\""))?.trim())
        };
        let level = file.lines().find_map(|line| line.trim().strip_suffix("Level of Difficulty"));
        let mut certified = Certified {
            name: after("Dataset Name:")?.split_whitespace().take(1).collect(),
            difficulty: level.ok_or("the file does not say how difficult it is")?.trim().to_lowercase(),
            starts: [vec![], vec![]],
            parameters: vec![],
            deviations: vec![],
            sum_of_squares: after("Residual Sum of Squares:")?.parse()?,
            residual_deviation: after("Residual Standard Deviation:")?.parse()?,
            observations: vec![],
        };
        // "b1 =   500         250           2.3894212918E+02  2.7070075241E+00"
        for i in 1.. {
            let Ok(numbers) = after(&format!("b{i} =")) else { break };
            let numbers = numbers.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
            let [far, near, parameter, deviation] = numbers[..] else {
                return Err(format!("b{i} has {} numbers, not 4", numbers.len()).into());
            };
            certified.starts[0].push(far);
            certified.starts[1].push(near);
            certified.parameters.push(parameter);
            certified.deviations.push(deviation);
        }
        for number in file.lines().skip(60).flat_map(str::split_whitespace) {
            certified.observations.push(number.parse()?);
        }
        let announced: usize = after("Number of Observations:")?.parse()?;
        match certified.observations.len() == 2 * announced {
            true => Ok(certified),
            false => Err(format!("{} numbers are no {announced} observations", certified.observations.len()).into()),
        }
    }
}
