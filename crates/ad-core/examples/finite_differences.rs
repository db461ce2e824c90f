//! Automatic differentiation beside difference quotients and the derivative by hand.
//!
//! ```text
//! cargo run --release -p ad-core --example finite_differences [file.svg]
//! ```
//!
//! For f(x) = eˣ·sin x / (1 + x²) at x = 1.5 it prints the relative errors of
//! forward and central difference quotients over sixteen step sizes, and draws
//! them: with a large step the formula is wrong, with a small one the digits
//! cancel, and in between lies the best that a quotient can do. Automatic
//! differentiation has no step. The same text every run; times go to stderr.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use ad_core::{Real, Rule, Tape};

fn f<T: Real>(x: T) -> T {
    x.exp() * x.sin() / (x * x + 1.0)
}

/// f′(1.5), from 40 digits computed by mpmath: what all are measured by.
const EXACT: f64 = 0.203_355_035_401_802_9;

/// f′ by hand.
fn derivative(x: f64) -> f64 {
    let square = x * x + 1.0;
    Rule::exp(x) * ((Rule::sin(x) + Rule::cos(x)) * square - 2.0 * x * Rule::sin(x)) / (square * square)
}

const X: f64 = 1.5;

/// The relative errors at the step 10^−power.
struct Step {
    power: i32,
    forward: f64,
    central: f64,
}

fn relative_error(derivative: f64) -> f64 {
    ((derivative - EXACT) / EXACT).abs()
}

fn steps() -> Vec<Step> {
    let step = |power: i32| {
        let h = format!("1e-{power}").parse::<f64>().unwrap_or(f64::NAN);
        Step {
            power,
            forward: relative_error((f(X + h) - f(X)) / h),
            central: relative_error((f(X + h) - f(X - h)) / (2.0 * h)),
        }
    };
    (1..=16).map(step).collect()
}

fn table(steps: &[Step], ad: [f64; 2]) -> String {
    let mut text = format!("{:<18} {:>14} {:>14} {:>14}\n", "method", "step", "relative error", "evaluations");
    let mut line = |method: &str, step: &str, error: f64, evaluations: &str| {
        let _ = writeln!(text, "{method:<18} {step:>14} {error:>14.1e} {evaluations:>14}");
    };
    for step in steps {
        line("forward quotient", &format!("1e-{}", step.power), step.forward, "2");
    }
    for step in steps {
        line("central quotient", &format!("1e-{}", step.power), step.central, "2");
    }
    line("by hand", "none", relative_error(derivative(X)), "1 formula");
    line("AD, forward sweep", "none", ad[0], "1 sweep");
    line("AD, reverse sweep", "none", ad[1], "1 sweep");
    let best = |error: fn(&Step) -> f64| steps.iter().map(error).fold(f64::INFINITY, f64::min);
    let (forward, central) = (best(|step| step.forward), best(|step| step.central));
    let _ =
        writeln!(text, "\nthe best forward quotient is off by {forward:.1e}, the best central one by {central:.1e}");
    text += "for n inputs: n + 1 evaluations by forward quotients, 2n by central ones, 1 sweep by reverse AD\n";
    text
}

// The frame of the plot.
const LEFT: f64 = 90.0;
const TOP: f64 = 60.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;

/// A plot with logarithmic axes: the error over the step.
fn svg(steps: &[Step], ad: f64) -> String {
    // Errors from 10^0 at the top to 10^−17 at the bottom; an error of 0 lies on the lower edge.
    let x = |power: f64| LEFT + (power - 1.0) / 15.0 * WIDTH;
    let y = |error: f64| TOP + (-error.log10()).clamp(0.0, 17.0) / 17.0 * HEIGHT;
    let mut text = String::new();
    let mut add = |line: String| text += &(line + "\n");
    add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 780 560\" width=\"780\" height=\"560\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"14\">"
        .to_owned());
    add("<rect width=\"780\" height=\"560\" fill=\"#ffffff\"/>".to_owned());
    add(format!(
        "<text x=\"{}\" y=\"32\" text-anchor=\"middle\" font-size=\"17\">Derivative of eˣ·sin x/(1 + x²) at x = {X}</text>",
        LEFT + WIDTH / 2.0
    ));
    let label =
        |power: i32| format!("10<tspan dy=\"-6\" font-size=\"10\">{}</tspan>", format!("{}", -power).replace('-', "−"));
    for power in 1..=16 {
        let x = x(f64::from(power));
        add(format!("<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#e8e8e8\"/>", TOP + HEIGHT));
        if power % 3 == 1 {
            let y = TOP + HEIGHT + 24.0;
            add(format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", label(power)));
        }
    }
    for power in 0..=17 {
        let y = y(10f64.powi(-power));
        add(format!("<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#e8e8e8\"/>", LEFT + WIDTH));
        if power % 4 == 0 {
            let (x, y) = (LEFT - 10.0, y + 5.0);
            let label = if power == 0 { "1".to_owned() } else { label(power) };
            add(format!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>"));
        }
    }
    add(format!(
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#444444\"/>"
    ));
    add(format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">step h</text>",
        LEFT + WIDTH / 2.0,
        TOP + HEIGHT + 50.0
    ));
    let middle = TOP + HEIGHT / 2.0;
    add(format!(
        "<text x=\"24\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 24 {middle})\">relative error</text>"
    ));

    let mut curve = |color: &str, dash: &str, error: fn(&Step) -> f64| {
        let points: Vec<(f64, f64)> = steps.iter().map(|step| (x(f64::from(step.power)), y(error(step)))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        add(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
            path.join(" ")
        ));
        for (x, y) in points {
            add(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>"));
        }
    };
    curve("#d55e00", "none", |step| step.forward);
    curve("#0072b2", "7 4", |step| step.central);
    let level = y(ad);
    add(format!(
        "<line x1=\"{LEFT}\" y1=\"{level:.1}\" x2=\"{}\" y2=\"{level:.1}\" stroke=\"#009e73\" stroke-width=\"3\"/>",
        LEFT + WIDTH
    ));
    let legend = [
        ("#d55e00", "none", "forward quotient, (f(x + h) − f(x))/h"),
        ("#0072b2", "7 4", "central quotient, (f(x + h) − f(x − h))/2h"),
        ("#009e73", "none", "automatic differentiation, no step"),
    ];
    add(format!(
        "<rect x=\"{}\" y=\"{}\" width=\"366\" height=\"82\" fill=\"#ffffff\" stroke=\"#bbbbbb\"/>",
        LEFT + 240.0,
        TOP + 272.0
    ));
    for (i, (color, dash, name)) in legend.into_iter().enumerate() {
        let (x, y) = (LEFT + 252.0, TOP + 290.0 + 24.0 * i as f64);
        add(format!(
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{color}\" stroke-width=\"3\" stroke-dasharray=\"{dash}\"/>",
            x + 32.0
        ));
        add(format!("<text x=\"{}\" y=\"{}\">{name}</text>", x + 42.0, y + 5.0));
    }
    add("</svg>".to_owned());
    text
}

/// Nanoseconds a call, over many calls.
fn nanoseconds(mut call: impl FnMut() -> f64) -> f64 {
    const CALLS: u32 = 100_000;
    let start = Instant::now();
    let sum: f64 = (0..CALLS).map(|_| std::hint::black_box(call())).sum();
    std::hint::black_box(sum);
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let path =
        std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("finite_differences.svg"), PathBuf::from);
    let tape = Tape::record(&[X], |x| f(x[0]))?;
    let (_, dy) = tape.jvp(&[X], &[1.0])?;
    let (_, gradient) = tape.gradient(&[X])?;
    let ad = [dy[0], gradient[0]].map(relative_error);
    let steps = steps();
    print!("{}", table(&steps, ad));

    let (mut ws, mut g) = (ad_core::Workspace::new(), [0.0]);
    let black_box = std::hint::black_box;
    let quotient = nanoseconds(|| (f(black_box(X) + 1e-5) - f(black_box(X) - 1e-5)) / 2e-5);
    let reverse = nanoseconds(|| tape.gradient_into(&mut ws, &[black_box(X)], &mut g).map_or(f64::NAN, |_| g[0]));
    let by_hand = nanoseconds(|| derivative(black_box(X)));
    eprintln!("ns a call: by hand {by_hand:.0}, central quotient {quotient:.0}, value and gradient by AD {reverse:.0}");

    std::fs::write(&path, svg(&steps, ad[0].max(ad[1]))).map_err(|error| {
        format!("cannot write the plot to {}: {error}; give another path as argument", path.display())
    })?;
    eprintln!("the plot is in {}", path.display());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
