//! Measures every task beside its derivative by hand and writes
//! docs/performance.md.
//!
//! ```sh
//! cargo run --release -p ad-bench --bin report            # a few minutes
//! cargo run --release -p ad-bench --bin report -- --quick # a smoke run, writes nothing
//! cargo run --release -p ad-bench --bin report -- --peak  # the machine's peak alone
//! ```
//!
//! On a noisy machine `--rounds 201` has more rounds than the usual 41, and
//! `--pin 1` stays on processor 1 (by the command taskset; `taskset -c 1 cargo run …`
//! would keep the second thread from a core of its own).

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use ad_bench::cases::{self, Case, Kind};
use ad_bench::counting::{self, Arithmetic};
use ad_bench::goals::{self, Judge, Notes};
use ad_bench::measure::{self, Timings, Work};
use ad_bench::{scaling, structure};
use ad_core::{Lanes, Matrix, Rule, Tape, Var, Workspace};

const COMMAND: &str = "cargo run --release -p ad-bench --bin report";

/// What a run does.
struct Plan {
    rounds: usize,
    scaling_rounds: usize,
    exponents: std::ops::RangeInclusive<u32>,
    write: bool,
    /// The processor to stay on.
    pin: Option<usize>,
}

/// The rounds of a case are timed in so many passes over all cases, so that no
/// case has all of its rounds in one slow stretch of the machine.
const PASSES: usize = 3;

/// From this load on somebody else takes the processors' time.
const BUSY: f64 = 1.5;

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
fn replayed_exps(rounds: usize) -> f64 {
    const CALLS: usize = 32;
    const POINTS: usize = 1024;
    let measured = || -> Result<f64, ad_core::Error> {
        let record = |x: &[Var]| {
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

/// The flops of one evaluation of a case: the value's and those that the
/// cheaper kind of sweep adds.
fn flops(case: &Case, count: Arithmetic) -> usize {
    let (n, m) = (case.tape.num_inputs(), case.tape.num_outputs());
    count.flops
        + match case.kind {
            Kind::Value => 0,
            Kind::Jvp => count.tangent_flops,
            Kind::Gradient | Kind::SumGradient | Kind::ShuffledGradient | Kind::Threads | Kind::Gradients => {
                count.adjoint_flops
            }
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

/// The load of the machine over the last minute, where the system tells.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The processors this program may use, as taskset lists them.
fn allowed() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|list| list.trim().to_owned())
}

/// Stays on the given processors from now on, as do the threads that start from now on.
fn stay_on(processors: &str) -> Result<(), Box<dyn Error>> {
    let output = Command::new("taskset").args(["-cp", processors, &std::process::id().to_string()]).output();
    let output = output.map_err(|error| format!("taskset: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    Ok(())
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

/// The tape at its best, to compare others to.
fn ours(case: &Case) -> usize {
    case.tapes().last().copied().unwrap_or(1)
}

fn tasks_table(timed: &[(Case, Timings)], peak: &Peak, judge: &mut Judge) -> Result<String, Box<dyn Error>> {
    let mut table = String::from(
        "| task | SIMD | rows | evaluations | by hand, ns | tape, ns | × by hand | goal | | ns a row | flops | calls \
         | share of peak |\n\
         |---|---|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|\n",
    );
    for (case, timings) in timed {
        let count = counting::count(&case.tape, &case.x[..case.tape.num_inputs()])?;
        let (flops, evaluations) = (flops(case, count), case.evaluations as f64);
        let least = evaluations * (flops as f64 / peak.flops_per_ns + count.calls as f64 / peak.exps_per_ns);
        for tape in case.tapes() {
            let (level, ratio) = (case.contenders[tape].level, timings.ratio(tape, 0));
            let row = level.map_or(case.title(), |level| format!("{}, {level}", case.title()));
            let goal = goals::of_task(case, level);
            let verdict = goal.map_or("", |goal| judge.at_most(&row, ratio, goal));
            writeln!(
                table,
                "| {} | {} | {} | {} | {} | {} | **{}** | {} | {verdict} | {} | {} | {} | {:.0} % |",
                case.title(),
                level.map_or("–".to_owned(), |level| level.to_string()),
                case.tape.len(),
                case.evaluations,
                digits(timings.ns(0)),
                digits(timings.ns(tape)),
                digits(ratio),
                goal.map_or("–".to_owned(), |goal| goal.to_string()),
                digits(timings.ns(tape) / (evaluations * case.tape.len() as f64)),
                flops,
                count.calls,
                100.0 * least / timings.ns(tape),
            )?;
        }
    }
    table.push_str(&judge.take_missed());
    Ok(table)
}

/// Everyone else in the same rounds: other loops by hand, point by point.
fn variants_table(timed: &[(Case, Timings)]) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("| task | contender | ns | × by hand | the tape takes × |\n|---|---|--:|--:|--:|\n");
    for (case, timings) in timed {
        let (ours, tapes) = (ours(case), case.tapes());
        for (i, contender) in case.contenders.iter().enumerate().skip(1) {
            let own = contender.name.contains("by hand") || contender.name.starts_with("tape,");
            if own && !tapes.contains(&i) {
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

/// What the program `bytes` counts at each length: of the tape alone, of the
/// program for values and tangents, of that for adjoints. Nothing if it does not run.
fn bytes(lengths: &[usize]) -> Vec<[f64; 3]> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--package", "ad-bench", "--bin", "bytes"]);
    command.args(if cfg!(feature = "peers") { &[][..] } else { &["--no-default-features"] });
    command.args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] });
    command.arg("--").args(lengths.iter().map(usize::to_string)).current_dir(workspace_root());
    let output = match command.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            eprintln!("warning: bytes: {}", String::from_utf8_lossy(&output.stderr).trim());
            return Vec::new();
        }
        Err(error) => {
            eprintln!("warning: bytes: {error}");
            return Vec::new();
        }
    };
    let numbers = |line: &str| {
        let mut numbers = line.split_whitespace().skip(1).map(|number| number.parse().unwrap_or(f64::NAN));
        std::array::from_fn(|_| numbers.next().unwrap_or(f64::NAN))
    };
    String::from_utf8_lossy(&output.stdout).lines().map(numbers).collect()
}

fn scaling_table(plan: &Plan, judge: &mut Judge) -> Result<String, Box<dyn Error>> {
    let mut table = String::from(
        "| rows | record | finish | forward program | reverse program | freezing | value | J·p | gradient | 7 \
         directions | tape bytes | forward bytes | reverse bytes |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let lengths: Vec<usize> = plan.exponents.clone().map(|exponent| 10_usize.pow(exponent)).collect();
    let bytes = bytes(&lengths);
    let judged = [("recording", goals::RECORDING), ("freezing", goals::FREEZING), ("tape bytes", goals::BYTES)];
    let mut figures = judged.map(|_| Vec::new());
    for (i, &length) in lengths.iter().enumerate() {
        let row = scaling::measure(length, plan.scaling_rounds)?;
        let bytes = bytes.get(i).copied().unwrap_or([f64::NAN; 3]);
        let start = row.start;
        let parts = [start.record, start.finish, start.forward, start.reverse, row.freezing()];
        let replays = [row.value, row.jvp, row.gradient, row.directions];
        write!(table, "| {} |", row.rows)?;
        for number in parts.into_iter().chain(replays).chain(bytes) {
            write!(table, " {} |", digits(number))?;
        }
        table.push('\n');
        for (figures, figure) in figures.iter_mut().zip([start.record, row.freezing(), bytes[0]]) {
            figures.push((row.rows, figure));
        }
    }
    // A goal is met if it is at every length.
    let [recording, freezing, memory] = [0, 1, 2].map(|i| {
        let ((name, goal), figures) = (judged[i], &figures[i]);
        let worst = figures.iter().fold(f64::NAN, |worst, (_, figure)| figure.max(worst));
        let verdict = judge.at_most(name, worst, goal);
        let missed = figures.iter().filter(|(_, figure)| *figure > goal).map(|(rows, _)| rows.to_string());
        let missed = missed.collect::<Vec<_>>().join(", ");
        if missed.is_empty() { format!("{goal}: {verdict}") } else { format!("{goal}: {verdict} at {missed}") }
    });
    writeln!(table, "| **goal** | {recording} | | | | {freezing} | | | | | {memory} | | |")?;
    table.push_str(&judge.take_missed());
    Ok(table)
}

fn whole_table(plan: &Plan) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("| rows | optimise | save | load | drop | file bytes |\n|--:|--:|--:|--:|--:|--:|\n");
    for exponent in plan.exponents.clone() {
        let row = scaling::whole(10_usize.pow(exponent), plan.scaling_rounds)?;
        write!(table, "| {} |", row.rows)?;
        for number in [row.optimise, row.save, row.load, row.drop, row.file] {
            write!(table, " {} |", digits(number))?;
        }
        table.push('\n');
    }
    Ok(table)
}

fn structure_table(plan: &Plan) -> Result<String, Box<dyn Error>> {
    let mut table = String::from(
        "| derivative | with structure; flat twin | rows | flat rows | ns | flat ns | ÷ flat | × by hand |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for mut twin in structure::twins()? {
        twin.check()?;
        let timings = twin.time(plan.rounds)?;
        let by_hand = if twin.has_hand() { timings.ratio(0, 2) } else { f64::NAN };
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | **{}** | {} |",
            twin.what,
            twin.how,
            twin.rows[0],
            twin.rows[1],
            digits(timings.ns(0)),
            digits(timings.ns(1)),
            digits(timings.ratio(0, 1)),
            digits(by_hand),
        )?;
    }
    Ok(table)
}

fn threads_paragraph(plan: &Plan, judge: &mut Judge) -> Result<String, Box<dyn Error>> {
    let mut case = cases::network_threads(&[1, 2])?;
    case.check()?;
    let timings = case.time(plan.rounds)?;
    let speed_up = timings.ratio(1, 2);
    let verdict = match std::thread::available_parallelism() {
        Ok(cores) if cores.get() > 1 => judge.at_least("threads", speed_up, goals::THREADS),
        _ => "not measured without a second core",
    };
    Ok(format!(
        "T4 over 4096 samples: by hand {} µs, one thread {} µs (× by hand {}), two threads {} µs: a speed-up of \
         **{}**; goal {}: {verdict}.\n{}",
        digits(timings.ns(0) / 1e3),
        digits(timings.ns(1) / 1e3),
        digits(timings.ratio(1, 0)),
        digits(timings.ns(2) / 1e3),
        digits(speed_up),
        goals::THREADS,
        judge.take_missed(),
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
         Times a derivative by hand in C, measured in the same run by `benches/peers/run.sh`; then \
         `{COMMAND}`.\n\n{table}\n"
    ))
}

/// Times every case, a part of the rounds in each pass.
fn timed_cases(plan: &Plan) -> Result<Vec<(Case, Timings)>, Box<dyn Error>> {
    eprintln!("checking and timing the tasks …");
    let mut timed = Vec::new();
    let mut cases = cases::all()?;
    // A wrong number is found before the first minute is spent.
    cases.iter_mut().try_for_each(Case::check)?;
    let rounds = |pass| plan.rounds * (pass + 1) / PASSES - plan.rounds * pass / PASSES;
    for mut case in cases {
        eprintln!("  {}", case.title());
        let timings = case.time(rounds(0))?;
        timed.push((case, timings));
    }
    for pass in 1..PASSES {
        eprintln!("  all again …");
        for (case, timings) in &mut timed {
            timings.extend(case.time(rounds(pass))?);
        }
    }
    Ok(timed)
}

fn report(plan: &Plan) -> Result<String, Box<dyn Error>> {
    let notes_path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("notes.md");
    let notes = std::fs::read_to_string(&notes_path).map_err(|error| format!("benches/notes.md: {error}"))?;
    let judge = &mut Judge::new(Notes::parse(&notes)?);
    let load = load();
    if let Some(load) = load.filter(|&load| load > BUSY) {
        eprintln!("warning: the load of the machine is {load}: the figures will be noisy, --rounds N has more rounds");
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let everywhere = allowed();
    if let Some(processor) = plan.pin {
        stay_on(&processor.to_string())?;
    }
    let timed = timed_cases(plan)?;
    let peak = peak(plan.rounds);
    eprintln!("lengths …");
    let lengths = scaling_table(plan, judge)?;
    let whole = whole_table(plan)?;
    eprintln!("structure …");
    let structure = structure_table(plan)?;
    if let Some(everywhere) = everywhere.filter(|_| plan.pin.is_some()) {
        stay_on(&everywhere)?;
    }
    eprintln!("threads …");
    let threads = threads_paragraph(plan, judge)?;

    let mut doc = String::new();
    writeln!(
        doc,
        "# Performance\n\n\
         Written by `{COMMAND}`; the numbers are those of one machine and one run. Ratios are medians, over {} \
         interleaved rounds, of the ratio within a round; times are medians. Every derivative was compared with the \
         one by hand before it was timed. Goals are judged by the figures of this run; the reasons below a table are \
         those of benches/notes.md. On a noisy machine `{COMMAND} -- --rounds 201 --pin 1` takes more rounds and \
         stays on one processor.\n\n\
         {}, {cores} cores, {}, {}, compiled for {}; the load was {} at the start{}.\n",
        plan.rounds,
        processor(),
        compiler(),
        today(),
        compiled_level(),
        load.map_or("unknown".to_owned(), |load| load.to_string()),
        plan.pin.map_or(String::new(), |processor| format!(", all but the threads on processor {processor}")),
    )?;
    writeln!(
        doc,
        "The tasks, in benches/src/tasks.rs: T1 the classical example; T2 the chained Rosenbrock function, n = 1000; \
         T3 logistic loss, 64 features; T4 tanh network 8-16-16-1; T5 100 Runge–Kutta steps of Lotka–Volterra; T6 \
         Gaussian mixture, 10 dimensions, 5 components, 1000 points; T7 reprojection residual, 15 → 2, 1000 \
         observations; T8 determinant of a 12 × 12 matrix. By hand, in benches/src/by_hand.rs: plain `f64` in plain \
         loops, each sum one chain of additions, std's functions, no allocation. T3 and T4 take other samples at each \
         call, consecutive ones or those of a random order.\n"
    )?;
    writeln!(
        doc,
        "## Tasks\n\n`{COMMAND}`; with criterion: `cargo bench -p ad-bench --bench scalar`, `--bench minibatch`, \
         `--bench many_points`.\n\n{}",
        tasks_table(&timed, &peak, judge)?
    )?;
    writeln!(
        doc,
        "SIMD is the level that the tape's lanes use, chosen at run time; – is one point in scalars. \
         Flops and calls (of exp, sin, tanh and the like) are those of one evaluation, counted by replaying the tape \
         in a number type that counts; rows of constants and parameters have no derivative. The peak of this machine, \
         in the same run, by code compiled for {}: {} flops a nanosecond, in independent chains of a product and a \
         sum, and {} exponentials a nanosecond by ad-core's kernel in lanes. The share is the time at that peak (a \
         call as one exponential) by the time of the tape; lanes chosen at run time for a wider level may exceed it. \
         `{COMMAND} -- --peak` prints the peak alone; `RUSTFLAGS=\"-C target-cpu=native\"` before it, that of the \
         widest level.\n",
        compiled_level(),
        digits(peak.flops_per_ns),
        digits(peak.exps_per_ns),
    )?;
    writeln!(
        doc,
        "## Variants in the same rounds\n\nBy hand, vectorised: regroups its sums, which a tape may not do, to keep \
         its bits. The last column compares the tape, at its best level, with the contender.\n\n{}",
        variants_table(&timed)?
    )?;
    if cfg!(feature = "peers") {
        writeln!(
            doc,
            "## Rust crates in the same rounds\n\n× by hand, and how many times the peer's time the tape takes. \
             `{COMMAND}`; with criterion: `cargo bench -p ad-bench --bench peers`. echidna replays its tape, \
             optimised; num-dual computes with dual numbers; easy-ml records at every call.\n\n{}",
            peers_table(&timed)?
        )?;
    }
    writeln!(
        doc,
        "## Lengths\n\nNanoseconds a row on chained Rosenbrock functions of growing n. Recording is what the function \
         takes while it is recorded, finishing the rest of `Tape::record`; the program of a kind of sweep, forward \
         for values and tangents, reverse for adjoints, is made before the first one, and is what that takes longer \
         than the second. Freezing is finishing and the dearer of the two programs. Bytes a row are counted by an \
         allocator, what the tape and the two programs each keep. `{COMMAND}`; with criterion: `cargo bench -p \
         ad-bench --bench scaling`.\n\n{lengths}\n\
         What is done with a tape as a whole, in nanoseconds a row, and the bytes a row of its file: optimising, \
         saving to memory and loading from it, dropping what was loaded. Tapes of 10⁸ rows: `cargo test --release -p \
         ad-core --test huge -- --ignored --nocapture`.\n\n{whole}"
    )?;
    writeln!(
        doc,
        "## Structure\n\nWhat a tape gains from knowing what repeats, what is zero and what an operation means, in \
         benches/src/structure.rs: the same derivative with it and flat, in the same rounds. Rows are those of the \
         tape and of the bodies that it calls. A body's rows read and write their lanes in the fastest cache, while \
         the code by hand keeps a term in registers; second order, scans, custom and implicit functions run their \
         body, or the user's code, once for each iteration and call. `{COMMAND}`.\n\n{structure}"
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
    let mut plan = Plan { rounds: 41, scaling_rounds: 5, exponents: 3..=7, write: true, pin: None };
    let mut arguments = std::env::args().skip(1);
    let (mut quick, mut rounds) = (false, None);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<usize, Box<dyn Error>> {
            let number = arguments.next().ok_or(format!("{argument} needs a number"))?;
            number.parse().map_err(|_| format!("{argument}: {number} is no number").into())
        };
        match argument.as_str() {
            "--quick" => quick = true,
            "--rounds" => rounds = Some(number()?),
            "--pin" => plan.pin = Some(number()?),
            "--peak" => {
                let peak = peak(41);
                println!("{}: {:.2} flops/ns, {:.3} exp/ns", compiled_level(), peak.flops_per_ns, peak.exps_per_ns);
                return Ok(());
            }
            other => {
                return Err(
                    format!("unknown option {other}; there are --quick, --rounds N, --pin CPU and --peak").into()
                );
            }
        }
    }
    if quick {
        plan = Plan { rounds: 3, scaling_rounds: 3, exponents: 3..=4, write: false, pin: plan.pin };
    }
    plan.rounds = rounds.unwrap_or(plan.rounds);
    if plan.rounds < PASSES {
        return Err(format!("--rounds: at least {PASSES}").into());
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
