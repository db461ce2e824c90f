//! Measures every task beside its derivative by hand and writes
//! docs/performance.md.
//!
//! ```sh
//! cargo run --release -p ad-bench --bin report            # a few minutes
//! cargo run --release -p ad-bench --bin report -- --quick # a smoke run, writes nothing
//! cargo run --release -p ad-bench --bin report -- --peak  # the machine's peak alone
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use ad_bench::cases::{self, Case, Kind};
use ad_bench::counting::{self, Arithmetic};
use ad_bench::measure::{self, Timings, Work};
use ad_bench::scaling;
use ad_core::{Lanes, Rule};

const COMMAND: &str = "cargo run --release -p ad-bench --bin report";

/// What a run does.
struct Plan {
    rounds: usize,
    scaling_rounds: usize,
    exponents: std::ops::RangeInclusive<u32>,
    write: bool,
}

/// What the processor can do at most, measured.
struct Peak {
    flops_per_ns: f64,
    exps_per_ns: f64,
}

/// The vector instructions that this program was compiled for.
fn compiled_level() -> &'static str {
    if cfg!(target_feature = "avx512f") {
        "AVX-512"
    } else if cfg!(target_feature = "avx2") {
        "AVX2"
    } else if cfg!(target_feature = "sse2") {
        "SSE2"
    } else if cfg!(target_feature = "neon") {
        "NEON"
    } else {
        "no SIMD"
    }
}

/// Independent chains of a product and a sum in each register that there is.
fn peak(rounds: usize) -> Peak {
    const CHAINS: usize = if cfg!(target_feature = "avx512f") { 128 } else { 24 };
    const STEPS: usize = 1000;
    let flops: &mut Work<'_> = &mut |count| {
        for _ in 0..count {
            let (mut x, a, b) = (black_box([1.0; CHAINS]), black_box(0.999), black_box(1e-3));
            for _ in 0..STEPS {
                for x in &mut x {
                    *x = *x * a + b;
                }
            }
            black_box(x);
        }
    };
    const BLOCKS: usize = 64;
    let arguments: Vec<Lanes<16>> =
        (0..BLOCKS).map(|block| Lanes(std::array::from_fn(|lane| (block * 16 + lane) as f64 * 0.01 - 5.0))).collect();
    let mut values = arguments.clone();
    let exps: &mut Work<'_> = &mut |count| {
        for _ in 0..count {
            for (value, argument) in values.iter_mut().zip(black_box(&arguments)) {
                *value = argument.exp();
            }
            black_box(&mut values);
        }
    };
    let timings = measure::interleaved(&mut [("flops", flops), ("exp", exps)], rounds);
    let lanes = (BLOCKS * 16) as f64 / timings.ns(1);
    Peak { flops_per_ns: (2 * CHAINS * STEPS) as f64 / timings.ns(0), exps_per_ns: lanes.max(replayed_exps(rounds)) }
}

/// Exponentials a nanosecond in the engine's own lanes, replaying a tape of them.
#[cfg(feature = "engine")]
fn replayed_exps(rounds: usize) -> f64 {
    use ad_core::{Matrix, Tape, Workspace};
    const CALLS: usize = 32;
    const POINTS: usize = 1024;
    let measured = || -> Result<f64, ad_core::Error> {
        let record = |x: &[ad_core::Var]| {
            let mut sum = x[0].exp();
            for i in 1..CALLS {
                sum += (x[0] + 0.01 * i as f64).exp();
            }
            sum
        };
        let tape = Tape::record(&[0.5], record)?;
        let points = Matrix::from_vec(POINTS, 1, ad_bench::tasks::Generator::new(11).numbers(POINTS, -1.0, 1.0))?;
        let (mut ws, mut values) = (Workspace::new(), Matrix::zeros(POINTS, 1));
        tape.eval_many_into(&mut ws, &points, &mut values)?;
        let work: &mut Work<'_> = &mut |count| {
            for _ in 0..count {
                // Whether it can fail was seen just above.
                let _ = tape.eval_many_into(&mut ws, &points, &mut values);
            }
        };
        let timings = measure::interleaved(&mut [("exp", work)], rounds);
        Ok((CALLS * POINTS) as f64 / timings.ns(0))
    };
    measured().unwrap_or(0.0)
}

/// Exponentials a nanosecond in the engine's own lanes, replaying a tape of them.
#[cfg(not(feature = "engine"))]
fn replayed_exps(_rounds: usize) -> f64 {
    0.0
}

/// The flops of one evaluation of a case: the value's and those that the
/// cheaper kind of sweep adds.
fn flops(case: &Case, count: Arithmetic) -> usize {
    let (n, m) = (case.tape.num_inputs(), case.tape.num_outputs());
    count.flops
        + match case.kind {
            Kind::Value => 0,
            Kind::Jvp => count.tangent_flops,
            Kind::Gradient | Kind::SumGradient | Kind::Threads | Kind::Gradients => count.adjoint_flops,
            Kind::Jacobian | Kind::Jacobians => (n * count.tangent_flops).min(m * count.adjoint_flops),
        }
}

/// Three digits.
fn digits(x: f64) -> String {
    match x {
        x if x.is_nan() => "–".to_owned(),
        x if x >= 99.5 => format!("{x:.0}"),
        x if x >= 9.95 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    match Command::new(rustc).arg("--version").output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "rustc unknown".to_owned(),
    }
}

/// Today in UTC.
///
/// Source: H. Hinnant, chrono-compatible low-level date algorithms (2013).
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let days = seconds as i64 / 86_400 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

/// The position of a contender.
fn position(case: &Case, name: &str) -> Option<usize> {
    case.contenders.iter().position(|contender| contender.name == name)
}

/// The contender that stands for ours, and the one by hand it is compared to.
fn ours(case: &Case) -> usize {
    position(case, "tape").or_else(|| position(case, "tape, point by point")).unwrap_or(1)
}

fn tasks_table(timed: &[(Case, Timings)], peak: &Peak) -> Result<String, Box<dyn Error>> {
    let mut table = String::from(
        "| task | rows | evaluations | by hand, ns | tape, ns | × by hand | ns a row | flops | calls | share of peak |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (case, timings) in timed {
        let count = counting::count(&case.tape, &case.x[..case.tape.num_inputs()])?;
        let (ours, flops, evaluations) = (ours(case), flops(case, count), case.evaluations as f64);
        let least = evaluations * (flops as f64 / peak.flops_per_ns + count.calls as f64 / peak.exps_per_ns);
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | **{}** | {} | {} | {} | {:.0} % |",
            case.title(),
            case.tape.len(),
            case.evaluations,
            digits(timings.ns(0)),
            digits(timings.ns(ours)),
            digits(timings.ratio(ours, 0)),
            digits(timings.ns(ours) / (evaluations * case.tape.len() as f64)),
            flops,
            count.calls,
            100.0 * least / timings.ns(ours),
        )?;
    }
    Ok(table)
}

/// Everyone else in the same rounds: other loops by hand, SIMD levels, point by point.
fn variants_table(timed: &[(Case, Timings)]) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("| task | contender | ns | × by hand | the tape takes × |\n|---|---|--:|--:|--:|\n");
    for (case, timings) in timed {
        let ours = ours(case);
        for (i, contender) in case.contenders.iter().enumerate().skip(1) {
            let own = contender.name.contains("by hand") || contender.name.starts_with("tape,");
            if own && i != ours {
                writeln!(
                    table,
                    "| {} | {} | {} | {} | {} |",
                    case.title(),
                    contender.name,
                    digits(timings.ns(i)),
                    digits(timings.ratio(i, 0)),
                    digits(timings.ratio(ours, i)),
                )?;
            }
        }
    }
    Ok(table)
}

const PEERS: [&str; 3] = ["echidna", "num-dual", "easy-ml"];

fn peers_table(timed: &[(Case, Timings)]) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("| task | tape |");
    for peer in PEERS {
        write!(table, " {peer} |")?;
    }
    for peer in PEERS {
        write!(table, " tape ÷ {peer} |")?;
    }
    table.push_str("\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (case, timings) in timed {
        let ours = ours(case);
        let positions = PEERS.map(|peer| position(case, peer));
        if positions.iter().all(Option::is_none) {
            continue;
        }
        write!(table, "| {} | {} |", case.title(), digits(timings.ratio(ours, 0)))?;
        for i in positions {
            write!(table, " {} |", digits(i.map_or(f64::NAN, |i| timings.ratio(i, 0))))?;
        }
        for i in positions {
            write!(table, " {} |", digits(i.map_or(f64::NAN, |i| timings.ratio(ours, i))))?;
        }
        table.push('\n');
    }
    Ok(table)
}

fn scaling_table(plan: &Plan) -> Result<String, Box<dyn Error>> {
    let mut table = String::from(
        "| rows | record | freeze | value | J·p | gradient | 7 directions | bytes a row |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for exponent in plan.exponents.clone() {
        let row = scaling::measure(10_usize.pow(exponent), plan.scaling_rounds)?;
        write!(table, "| {} |", row.rows)?;
        for ns in [row.record, row.freeze, row.value, row.jvp, row.gradient, row.directions] {
            write!(table, " {} |", digits(ns))?;
        }
        writeln!(table, " {} |", digits(row.bytes.unwrap_or(f64::NAN)))?;
    }
    Ok(table)
}

fn threads_paragraph(plan: &Plan) -> Result<String, Box<dyn Error>> {
    let mut case = cases::network_threads(&[1, 2])?;
    let timings = case.time(plan.rounds)?;
    Ok(format!(
        "T4 over 4096 samples: by hand {} µs, one thread {} µs (× by hand {}), two threads {} µs: a speed-up of {}.\n",
        digits(timings.ns(0) / 1e3),
        digits(timings.ns(1) / 1e3),
        digits(timings.ratio(1, 0)),
        digits(timings.ns(2) / 1e3),
        digits(timings.ratio(1, 2)),
    ))
}

fn workspace_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// What benches/peers/run.sh measured: `peer,task,ns,by_hand_ns` a line.
fn foreign_peers() -> Result<String, Box<dyn Error>> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let paths = [target.join("peers.csv"), workspace_root().join("target/peers.csv")];
    let Some(text) = paths.iter().find_map(|path| std::fs::read_to_string(path).ok()) else {
        return Ok(String::new());
    };
    // In the order of the file: its peers, and its tasks.
    let (mut peers, mut tasks, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [peer, task, ns, by_hand] = fields[..] else {
            return Err(format!("peers.csv: a line has four fields, not those of: {line}").into());
        };
        if ns == "ns" {
            continue;
        }
        let (ns, by_hand): (f64, f64) = (ns.parse()?, by_hand.parse()?);
        if !peers.contains(&peer) {
            peers.push(peer);
        }
        if !tasks.contains(&task) {
            tasks.push(task);
        }
        ratios.push((peer, task, ns / by_hand));
    }
    let mut table = format!("| task | {} |\n|---|{}\n", peers.join(" | "), "--:|".repeat(peers.len()));
    for task in tasks {
        write!(table, "| {task} |")?;
        for &peer in &peers {
            let ratio = ratios.iter().find(|(p, t, _)| *p == peer && *t == task).map_or(f64::NAN, |(.., ratio)| *ratio);
            write!(table, " {} |", digits(ratio))?;
        }
        table.push('\n');
    }
    Ok(format!(
        "## Libraries in other languages\n\n\
         Times a derivative by hand in C, measured in the same run by `benches/peers/run.sh`; then `{COMMAND}`.\n\n{table}\n"
    ))
}

fn report(plan: &Plan) -> Result<String, Box<dyn Error>> {
    eprintln!("checking and timing the tasks …");
    let mut timed = Vec::new();
    let mut cases = cases::all()?;
    // A wrong number is found before the first minute is spent.
    cases.iter_mut().try_for_each(Case::check)?;
    for mut case in cases {
        eprintln!("  {}", case.title());
        let timings = case.time(plan.rounds)?;
        timed.push((case, timings));
    }
    let peak = peak(plan.rounds);
    eprintln!("threads …");
    let threads = threads_paragraph(plan)?;
    eprintln!("lengths …");
    let lengths = scaling_table(plan)?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);

    let mut doc = String::new();
    writeln!(
        doc,
        "# Performance\n\n\
         Written by `{COMMAND}`; the numbers are those of one machine and one run. Ratios are medians, over {} \
         interleaved rounds, of the ratio within a round; times are medians. Every derivative was compared with the one \
         by hand before it was timed.\n\n\
         {}, {cores} cores, {}, {}, compiled for {}.\n",
        plan.rounds,
        processor(),
        compiler(),
        today(),
        compiled_level(),
    )?;
    writeln!(
        doc,
        "The tasks, in benches/src/tasks.rs: T1 the classical example; T2 the chained Rosenbrock function, n = 1000; \
         T3 logistic loss, 64 features; T4 tanh network 8-16-16-1; T5 100 Runge–Kutta steps of Lotka–Volterra; T6 Gaussian \
         mixture, 10 dimensions, 5 components, 1000 points; T7 reprojection residual, 15 → 2, 1000 observations; T8 \
         determinant of a 12 × 12 matrix. By hand, in benches/src/by_hand.rs: plain `f64`, std's functions, no allocation. \
         T3 and T4 take other samples at each call.\n"
    )?;
    writeln!(
        doc,
        "## Tasks\n\n`{COMMAND}`; with criterion: `cargo bench -p ad-bench --bench scalar`, `--bench minibatch`, \
         `--bench many_points`.\n\n{}",
        tasks_table(&timed, &peak)?
    )?;
    writeln!(
        doc,
        "Flops and calls (of exp, sin, tanh and the like) are those of one evaluation, counted by replaying the tape in a \
         number type that counts; rows of constants and parameters have no derivative. The peak of this machine, in the \
         same run, by code compiled for {}: {} flops a nanosecond, in independent chains of a product and a sum, and {} \
         exponentials a nanosecond by ad-core's kernel in lanes. The share is the time at that peak (a call as one \
         exponential) by the time of the tape; lanes chosen at run time for a wider level may exceed it. \
         `{COMMAND} -- --peak` prints the peak alone; `RUSTFLAGS=\"-C target-cpu=native\"` before it, that of the widest \
         level.\n",
        compiled_level(),
        digits(peak.flops_per_ns),
        digits(peak.exps_per_ns),
    )?;
    writeln!(
        doc,
        "## Variants in the same rounds\n\nThe plain loops by hand add up in one chain, as a tape must to keep its bits.\n\n{}",
        variants_table(&timed)?
    )?;
    if cfg!(feature = "peers") {
        writeln!(
            doc,
            "## Rust crates in the same rounds\n\n× by hand, and how many times the peer's time the tape takes. \
             `{COMMAND}`; with criterion: `cargo bench -p ad-bench --bench peers`. echidna replays its tape, optimised; \
             num-dual computes with dual numbers; easy-ml records at every call.\n\n{}",
            peers_table(&timed)?
        )?;
    }
    writeln!(
        doc,
        "## Lengths\n\nNanoseconds a row on chained Rosenbrock functions of growing n. Recording is what the function takes \
         while it is recorded, freezing the rest of `Tape::record`. Bytes are the resident memory that a tape takes after \
         its first replays. `{COMMAND}`; with criterion: `cargo bench -p ad-bench --bench scaling`.\n\n{lengths}"
    )?;
    writeln!(
        doc,
        "## Threads\n\n{threads}\n`{COMMAND}`; with criterion: `cargo bench -p ad-bench --bench minibatch`.\n"
    )?;
    doc.push_str(&foreign_peers()?);
    doc.push_str("## Instructions\n\nInstructions a row are in benches/instructions.txt: `benches/instructions.sh`.\n");
    Ok(doc)
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut plan = Plan { rounds: 41, scaling_rounds: 5, exponents: 3..=7, write: true };
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => plan = Plan { rounds: 3, scaling_rounds: 3, exponents: 3..=4, write: false },
            "--peak" => {
                let peak = peak(41);
                println!("{}: {:.2} flops/ns, {:.3} exp/ns", compiled_level(), peak.flops_per_ns, peak.exps_per_ns);
                return Ok(());
            }
            other => return Err(format!("unknown option {other}; there are --quick and --peak").into()),
        }
    }
    let doc = report(&plan)?;
    print!("{doc}");
    if plan.write {
        let path = workspace_root().join("docs").join("performance.md");
        std::fs::write(&path, doc).map_err(|error| format!("docs/performance.md: {error}"))?;
        eprintln!("docs/performance.md is written");
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
