//! Logs, charts, pages and progress: what they hold, that other programs can read them, and what happens when the disk is
//! full or the reader has gone.
#![allow(clippy::unwrap_used)]

use ad_optim::data::Csv;
use ad_optim::report::{Chart, Entry, Field, Log, LogFormat, Progress, Report};
use ad_optim::{Batches, Differentiable, Error, GradientDescent, History, Outcome, StopReason, Trainer, from_fn};
use proptest::prelude::*;
use serde_json::Value;
use std::fs;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

fn bowl() -> impl Differentiable {
    from_fn(1, |x, grad| {
        grad[0] = 2.0 * x[0];
        x[0] * x[0]
    })
}

fn run(rate: f64, steps: usize) -> Outcome {
    Trainer::new(bowl(), GradientDescent::new(rate), vec![8.0]).max_steps(steps).run().unwrap()
}

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ad-optim-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn logged(format: LogFormat, entries: &[&dyn Entry]) -> String {
    struct Of<'a>(&'a dyn Entry);
    impl Entry for Of<'_> {
        fn fields(&self) -> Vec<(&str, Field<'_>)> {
            self.0.fields()
        }
    }
    let mut text = Vec::new();
    let mut log = Log::to(&mut text, "the log", format);
    for &entry in entries {
        log.record(&Of(entry)).unwrap();
    }
    log.finish().unwrap();
    String::from_utf8(text).unwrap()
}

struct Note<'a>(&'a str, &'a str);

impl Entry for Note<'_> {
    fn fields(&self) -> Vec<(&str, Field<'_>)> {
        vec![(self.0, Field::Text(self.1)), ("n", Field::Count(1))]
    }
}

// Logs.

#[test]
fn steps_as_lines() {
    let folder = Folder::new("steps");
    let objective = Minibatches;
    for (name, format) in [("run.jsonl", LogFormat::JsonLines), ("run.csv", LogFormat::Csv)] {
        let mut log = Log::create(folder.file(name), format).unwrap();
        let out = Trainer::new(&objective, GradientDescent::new(0.25), vec![8.0])
            .batches(Batches::sequential(2))
            .max_epochs(2)
            .observe(|step| log.observe(step))
            .run()
            .unwrap();
        assert_eq!(out.stop, StopReason::MaxEpochs);
        log.finish().unwrap();
    }
    let text = fs::read_to_string(folder.file("run.csv")).unwrap();
    let (rows, seconds): (Vec<&str>, Vec<&str>) = text.lines().map(|line| line.rsplit_once(',').unwrap()).unzip();
    assert_eq!(
        rows,
        [
            "step,epoch,samples,value,grad_norm,rate,epoch_mean,validation",
            "1,1,2,64,16,0.25,,",
            "2,1,1,16,8,0.25,48,",
            "3,2,2,4,4,0.25,,",
            "4,2,1,1,2,0.25,3,",
        ]
    );
    assert_eq!(seconds[0], "seconds");
    assert!(seconds[1..].iter().all(|seconds| seconds.parse::<f64>().is_ok_and(|seconds| seconds > 0.0)));
    let text = fs::read_to_string(folder.file("run.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1]["epoch_mean"], 48);
    assert_eq!(lines[0].get("epoch_mean"), None);
    assert_eq!(lines[2]["value"], 4);
    assert_eq!(lines[0].as_object().unwrap().len(), 7);
}

/// x² three times over, as three samples.
struct Minibatches;

impl Differentiable for Minibatches {
    fn dim(&self) -> usize {
        1
    }
    fn num_samples(&self) -> usize {
        3
    }
    fn value_and_gradient(&self, x: &[f64], _: &[usize], grad: &mut [f64]) -> Result<f64, Error> {
        grad[0] = 2.0 * x[0];
        Ok(x[0] * x[0])
    }
}

#[test]
fn what_is_not_finite() {
    let entry = [("a", NAN), ("b", INF), ("c", -INF), ("d", -0.0)];
    assert_eq!(logged(LogFormat::JsonLines, &[&entry]), "{\"a\":null,\"b\":null,\"c\":null,\"d\":-0}\n");
    assert_eq!(logged(LogFormat::Csv, &[&entry]), "a,b,c,d\nNaN,inf,-inf,-0\n");
}

#[test]
fn entries_of_other_kinds_are_refused_by_csv() {
    let mut log = Log::to(Vec::new(), "the log", LogFormat::Csv);
    log.record(&[("a", 1.0), ("b, c", 2.0)]).unwrap();
    for other in [&[("a", 1.0)][..], &[("b, c", 2.0), ("a", 1.0)], &[]] {
        let error = log.record(other).unwrap_err();
        assert!(matches!(error, Error::LogColumns { .. }), "{error}");
        assert!(error.to_string().starts_with("the log has the columns a,\"b, c\", but"), "{error}");
    }
    log.record(&[("a", 1.0), ("b, c", 2.0)]).unwrap();
}

#[test]
fn a_log_goes_on_where_it_was() {
    let folder = Folder::new("append");
    let path = folder.file("run.csv");
    // What is not there is made; what lacks the end of its line is cut.
    for (left, text) in [
        ("", "a,\"b \"\"c\"\"\"\n1,2\n"),
        ("1,", "a,\"b \"\"c\"\"\"\n1,2\n1,2\n"),
        ("", "a,\"b \"\"c\"\"\"\n1,2\n1,2\n1,2\n"),
    ] {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(left.as_bytes()).unwrap();
        let mut log = Log::append(&path, LogFormat::Csv).unwrap();
        log.record(&[("a", 1.0), ("b \"c\"", 2.0)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        log.finish().unwrap();
    }
    assert!(matches!(Log::append(&path, LogFormat::Csv).unwrap().record(&[("a", 1.0)]), Err(Error::LogColumns { .. })));
    // A header that was torn is no header.
    fs::write(&path, "a,b").unwrap();
    let mut log = Log::append(&path, LogFormat::Csv).unwrap();
    log.record(&[("x", 1.0)]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "x\n1\n");
    // To create is to begin anew.
    let mut log = Log::create(&path, LogFormat::JsonLines).unwrap();
    log.record(&[("y", 0.5)]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"y\":0.5}\n");
    let mut log = Log::append(&path, LogFormat::JsonLines).unwrap();
    log.record(&[("z", 1.5)]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"y\":0.5}\n{\"z\":1.5}\n");
}

#[test]
fn a_log_does_not_go_on_in_a_file_of_another_format() {
    let folder = Folder::new("format");
    let path = folder.0.join("log");
    for (text, format) in [
        ("a,b\n1,2\n3", LogFormat::JsonLines),
        ("a", LogFormat::JsonLines),
        ("\n", LogFormat::JsonLines),
        ("{\"a\":1}\n{\"a\":", LogFormat::Csv),
    ] {
        fs::write(&path, text).unwrap();
        let error = Log::append(&path, format).unwrap_err();
        assert!(matches!(&error, Error::OtherLogFormat { path: at, format: of } if *at == path && *of == format));
        assert!(error.to_string().contains("was left as it is"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // What a log of the format left is gone on with, torn or empty.
    for (text, format, left) in [
        ("", LogFormat::JsonLines, ""),
        ("{\"a\":1}\n{\"a", LogFormat::JsonLines, "{\"a\":1}\n"),
        ("{", LogFormat::JsonLines, ""),
        ("{a,b\n1", LogFormat::Csv, "{a,b\n"),
    ] {
        fs::write(&path, text).unwrap();
        Log::append(&path, format).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), left);
    }
}

proptest! {
    #[test]
    fn numbers_and_texts_are_read_back(bits: u64, name in "\\PC{1,6}", text in any::<String>()) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let line = logged(LogFormat::JsonLines, &[&[("x", number)]]);
        let read: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(line.trim().trim_start_matches("{\"x\":").trim_end_matches('}').parse::<f64>().unwrap().to_bits(), bits);
        prop_assert!(read["x"].is_number());

        let line = logged(LogFormat::JsonLines, &[&Note(&name, &text)]);
        prop_assert_eq!(line.matches(['\n', '\r']).count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(read[&name].as_str(), if name == "n" { None } else { Some(text.as_str()) });

        // Two readers of CSV, the csv crate and our own.
        let table = logged(LogFormat::Csv, &[&Note(&name, &text)]);
        let flat = text.replace(['\n', '\r'], " ");
        let mut others = csv::Reader::from_reader(table.as_bytes());
        prop_assert_eq!(&others.headers().unwrap()[0], name.as_str());
        prop_assert_eq!(&others.records().next().unwrap().unwrap()[0], flat.as_str());
        if name != "n" {
            let ours = Csv::new().missing_markers(&[]).categorical(&[&name]).read_bytes("t", table.as_bytes()).unwrap();
            prop_assert_eq!(&ours.levels(&name).unwrap()[0], &flat);
        }
    }
}

#[test]
fn a_folder_that_is_not_there() {
    let missing = Path::new("/no/such/folder/file");
    let errors = [
        Log::create(missing, LogFormat::Csv).err().unwrap(),
        Log::append(missing, LogFormat::Csv).err().unwrap(),
        Chart::new("").write(missing).unwrap_err(),
        Report::new("").write(missing).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::Write { path, .. } if path == missing), "{error}");
        assert!(error.to_string().starts_with("/no/such/folder/file cannot be written: "), "{error}");
    }
    // A folder is no file.
    let folder = Folder::new("folder");
    assert!(matches!(Chart::new("").write(&folder.0), Err(Error::Write { .. })));
    assert!(folder.names().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device() {
    let full = Path::new("/dev/full");
    let mut log = Log::create(full, LogFormat::JsonLines).unwrap();
    for _ in 0..2 {
        let error = log.record(&[("a", 1.0)]).unwrap_err();
        assert!(
            matches!(&error, Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
    }
    assert!(matches!(Chart::new("").write(full), Err(Error::Write { .. })));
    assert!(matches!(Report::new("").write(full), Err(Error::Write { .. })));
    assert!(full.exists());

    // An observer ends the run, and finish tells why.
    let mut log = Log::create(full, LogFormat::Csv).unwrap();
    let out =
        Trainer::new(bowl(), GradientDescent::new(0.25), vec![1.0]).observe(|step| log.observe(step)).run().unwrap();
    assert_eq!((out.stop, out.steps), (StopReason::Observer, 1));
    assert!(matches!(log.finish(), Err(Error::Write { .. })));
}

#[test]
fn a_reader_that_has_gone() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut log = Log::to(writer, "the pipe", LogFormat::JsonLines);
    let error = log.record(&[("a", 1.0)]).unwrap_err();
    assert!(matches!(&error, Error::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe), "{error}");

    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut progress = Progress::steps("unseen", None).lines_to(writer);
    let out = Trainer::new(bowl(), GradientDescent::new(0.25), vec![1.0])
        .max_steps(9)
        .observe(|step| progress.observe(step))
        .run();
    assert_eq!(out.unwrap().steps, 9);
    progress.finish();
}

/// Runs a test of this file in a process of its own, in which the variable `CHILD` is set, behind the given commands.
#[cfg(unix)]
fn in_a_process(test: &str, commands: &str, folder: &Path) -> std::process::Output {
    let command = format!("{commands}; exec \"$0\" --exact {test} --nocapture");
    let program = std::env::current_exe().unwrap();
    std::process::Command::new("sh").args(["-c", &command]).arg(program).env("CHILD", folder).output().unwrap()
}

/// A disk is full in the middle of a line: here, because no file may grow beyond 1024 bytes (512 in some shells).
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up() {
    if let Some(folder) = std::env::var_os("CHILD") {
        let folder = PathBuf::from(folder);
        let mut log = Log::create(folder.join("run.jsonl"), LogFormat::JsonLines).unwrap();
        // So long that there is room for a short line where there is none for another one of these.
        let name = "number of the line, with a name that makes the line a long one";
        let mut written = 0;
        let error = loop {
            match log.record(&[(name, f64::from(written))]) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Write { .. }), "{error}");
        // The lines before stay, and nothing comes after them.
        assert!(log.record(&[(name, 1e6)]).is_err());
        let text = fs::read_to_string(folder.join("run.jsonl")).unwrap();
        assert_eq!(text.lines().count() as i32, written);
        assert!(text.ends_with("}\n"));
        // A line that fits goes in.
        log.record(&[("", 1.0)]).unwrap();

        // A page that does not fit leaves the old one as it was.
        fs::write(folder.join("run.html"), "the old page").unwrap();
        let error = Report::new("A page").write(folder.join("run.html")).unwrap_err();
        assert!(matches!(error, Error::Write { .. }), "{error}");
        assert_eq!(fs::read_to_string(folder.join("run.html")).unwrap(), "the old page");
        return;
    }
    let folder = Folder::new("full");
    let output = in_a_process("a_disk_that_fills_up", "ulimit -f 1; trap '' XFSZ", &folder.0);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(folder.file("run.jsonl")).unwrap();
    assert!(text.len() > 400 && text.ends_with("\n{\"\":1}\n"), "{text}");
    assert_eq!(folder.names(), ["run.html", "run.jsonl"]);
}

// Charts.

/// Panics unless the text is well-formed XML; `void` names elements without an end, as HTML has them.
fn assert_well_formed(text: &str, void: &[&str]) {
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray >: {}", &rest[..start]);
        for entity in rest[..start].split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|known| entity.starts_with(known)), "&{entity}");
        }
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains('<'), "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !(tag.ends_with('/') || tag.starts_with('!') || void.contains(&name)) {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
}

/// The texts of a drawing, the numbers at the axes among them.
fn texts(svg: &str) -> Vec<&str> {
    let end = |text: &str| text.find("</text>").unwrap();
    svg.split("<text ").skip(1).map(|text| &text[text.find('>').unwrap() + 1..end(text)]).collect()
}

/// The curves of a drawing: for each the points of its runs.
fn curves(svg: &str) -> Vec<Vec<Vec<(f64, f64)>>> {
    let paths = svg.split("<path d=\"").skip(1).filter(|path| path.contains("linejoin"));
    let point = |text: &str| {
        let (x, y) = text.split_once(' ').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    };
    paths
        .map(|path| {
            path[..path.find('"').unwrap()].split('M').skip(1).map(|run| run.split('L').map(point).collect()).collect()
        })
        .collect()
}

#[test]
fn a_small_chart() {
    let chart = Chart::new("Loss")
        .x_label("epoch")
        .y_label("mean")
        .log_y()
        .line("training", [(0.0, 1.0), (1.0, 0.5), (2.0, 0.25), (3.0, NAN), (4.0, 0.1)])
        .line("held out", [(0.0, 1.5), (2.0, 0.5), (4.0, 0.2)]);
    let svg = chart.to_svg();
    assert_well_formed(&svg, &[]);
    insta::assert_snapshot!(svg);
}

#[test]
fn ticks_are_round_numbers() {
    let ticks = |chart: Chart| {
        let svg = chart.to_svg();
        let texts: Vec<String> = texts(&svg).into_iter().map(str::to_owned).collect();
        texts.join(" ")
    };
    let line = |points: &[(f64, f64)]| Chart::new("").line("", points.to_vec());
    assert_eq!(ticks(line(&[(0.0, 0.0), (7.0, 1.0)])), "0 2 4 6 0 0.2 0.4 0.6 0.8 1");
    assert_eq!(ticks(line(&[(1.0, -3.0), (3.0, 4.0)])), "1 2 3 -2 0 2 4");
    assert_eq!(ticks(line(&[(0.0, 1e-9), (0.5, 3e-9)])), "0 0.1 0.2 0.3 0.4 0.5 1e-9 1.5e-9 2e-9 2.5e-9 3e-9");
    assert_eq!(ticks(line(&[(0.0, 1000.001), (1.0, 1000.003)])), "0 1 1000.001 1000.0015 1000.002 1000.0025 1000.003");
    assert_eq!(ticks(line(&[(0.0, 1e-5), (2.0, 10.0)]).log_y()), "0 1 2 0.00001 0.0001 0.001 0.01 0.1 1 10 log scale");
    assert_eq!(ticks(line(&[(0.0, 0.3), (2.0, 30.0)]).log_y()), "0 1 2 0.5 1 2 5 10 20 log scale");
    assert_eq!(
        ticks(line(&[(0.0, 1.0), (2.0, 1e-300)]).log_y()),
        "0 1 2 1e-300 1e-250 1e-200 1e-150 1e-100 1e-50 1 log scale"
    );
}

#[test]
fn gaps() {
    let svg = Chart::new("")
        .line("a", [(0.0, 1.0), (1.0, 2.0), (2.0, INF), (3.0, 4.0), (4.0, 3.0), (NAN, 1.0), (6.0, 1.0)])
        .to_svg();
    let runs: Vec<usize> = curves(&svg)[0].iter().map(Vec::len).collect();
    assert_eq!(runs, [2, 2, 1]);
    // A point alone is drawn as such.
    assert_eq!(svg.matches("<circle").count(), 1);
    assert!(texts(&svg).contains(&"a: 2 points not finite, where the curve has gaps"), "{svg}");
    let svg = Chart::new("").log_y().line("a", [(0.0, 1.0), (1.0, 2.0), (2.0, 0.0), (3.0, -4.0)]).to_svg();
    assert!(texts(&svg).contains(&"a: 2 points not above 0, which a log scale cannot show"), "{svg}");
    assert_eq!(curves(&svg)[0][0].len(), 2);
    for empty in [Chart::new(""), Chart::new("").log_y().line("a", [(0.0, NAN), (1.0, -1.0)])] {
        let svg = empty.to_svg();
        assert!(svg.contains("there is no point to draw"));
        assert_well_formed(&svg, &[]);
    }
}

#[test]
fn a_million_points_keep_their_peaks() {
    let value = |i: u32| if i == 123_456 { 50.0 } else { f64::from(i % 7) };
    let svg = Chart::new("").line("", (0..1_000_000).map(|i| (f64::from(i), value(i)))).to_svg();
    assert!(svg.len() < 100_000, "{}", svg.len());
    let highest = curves(&svg)[0][0].iter().map(|point| point.1).fold(INF, f64::min);
    let usual = curves(&svg)[0][0].iter().map(|point| point.1).fold(-INF, f64::max);
    assert!(usual - highest > 300.0, "{highest} {usual}");
    // Gaps too narrow to be seen end no run, so that they cannot make the file large.
    let gappy = (0..1_000_000).map(|i| (f64::from(i), if i % 2 == 0 { 1.0 } else { NAN }));
    assert!(Chart::new("").line("", gappy).to_svg().len() < 100_000);
}

#[test]
fn histories() {
    let svg = Chart::of_history("Descent", &run(0.25, 20).history).to_svg();
    assert!(texts(&svg).contains(&"value (log scale)") && texts(&svg).contains(&"epoch"), "{svg}");
    assert_eq!(curves(&svg)[0][0].len(), 20);
    let steps = Trainer::new(Minibatches, GradientDescent::new(0.25), vec![8.0])
        .batches(Batches::sequential(2))
        .max_epochs(3)
        .history(History::Steps)
        .run()
        .unwrap();
    let svg = Chart::of_history("Descent", &steps.history).to_svg();
    assert!(texts(&svg).contains(&"step"));
    // Little change, no change, or values below 0: a linear axis.
    for out in [run(0.01, 3), run(1.0, 3)] {
        assert!(!Chart::of_history("", &out.history).to_svg().contains("log scale"));
    }
    assert!(Chart::of_history("", &[]).to_svg().contains("there is no point to draw"));
}

proptest! {
    #[test]
    fn any_points_make_a_drawing(
        points in prop::collection::vec((any::<u64>(), any::<u64>()), 0..6),
        name in any::<String>(),
        log: bool,
    ) {
        // Numbers of all sizes, as the bits come.
        let points = points.into_iter().map(|(x, y)| (f64::from_bits(x), f64::from_bits(y)));
        let chart = Chart::new(&name).x_label(&name).y_label(&name).line(&name, points);
        let svg = if log { chart.log_y() } else { chart }.to_svg();
        assert_well_formed(&svg, &[]);
        // Names are escaped, and a number of the drawing is one.
        let numbers = svg.split("d=\"").skip(1).map(|path| &path[..path.find('"').unwrap()]);
        for path in numbers {
            prop_assert!(!path.contains("NaN") && !path.contains("inf"), "{}", path);
        }
        for (x, y) in curves(&svg).into_iter().flatten().flatten() {
            prop_assert!((90.0..=774.0).contains(&x) && (0.0..=4000.0).contains(&y), "{} {}", x, y);
        }
    }
}

// Pages.

#[test]
fn a_page() {
    let out = run(0.25, 3);
    let page = Report::new("Descent <& \"more\">")
        .without_environment()
        .text("It's\u{0} <b>fine</b>.")
        .setting("rate", 0.25)
        .chart(&Chart::of_history("Value", &out.history))
        .outcome(&out)
        .table("Marks", &["who", "mark"], &[["<Ada>", "1"]]);
    let html = page.to_html();
    assert_eq!(html, page.clone().to_html());
    assert_well_formed(&html[html.find("<body>").unwrap()..html.find("</html>").unwrap()], &[]);
    assert_well_formed(&html, &["meta"]);
    for part in [
        "<title>Descent &lt;&amp; &quot;more&quot;&gt;</title>",
        "<p>It&#39;s\u{fffd} &lt;b&gt;fine&lt;/b&gt;.</p>",
        "<th scope=\"row\">rate</th><td>0.25</td>",
        "<th scope=\"row\">stopped</th><td>at the step limit</td>",
        "<th scope=\"row\">best x</th><td>[1]</td>",
        "<tr><td>2</td><td>2</td><td>16</td><td>8</td><td>0.25</td></tr>",
        "<td>&lt;Ada&gt;</td>",
        "<svg ",
    ] {
        assert!(html.contains(part), "{part} is not in\n{html}");
    }
    assert!(html.find("<p>It").unwrap() < html.find("Settings").unwrap());
    // Nothing is fetched, and no script runs.
    let links = html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=\"", "href", "url(", "<script", "<link", "@import"] {
        assert!(!links.contains(outside), "{outside}");
    }
    assert!(html.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    assert!(!html.contains("Environment"));

    let html = Report::new("x").environment("data", "version 3").to_html();
    for part in ["Environment", "ad-optim", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, "UTC", "version 3"] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn a_long_history_is_shown_in_part() {
    let html = Report::new("").outcome(&run(1e-4, 5000)).to_html();
    let rows = html.matches("<tr><td>").count();
    assert!((150..=200).contains(&rows), "{rows}");
    assert!(html.contains(&format!(", {rows} rows of 5000")));
    assert!(html.contains("<tr><td>1</td>") && html.contains("<tr><td>5000</td>"));
    // The advice of the outcome's own text.
    let default = Trainer::new(bowl(), GradientDescent::new(1e-4), vec![8.0]).run().unwrap();
    assert!(Report::new("").outcome(&default).to_html().contains("at the default limit of 1000 steps; set max_steps"));
}

#[test]
fn files_are_replaced_whole() {
    let folder = Folder::new("replace");
    let path = folder.file("page.html");
    fs::write(&path, "old").unwrap();
    Report::new("new").write(&path).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("<h1>new</h1>"));
    assert_eq!(folder.names(), ["page.html"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&path, folder.file("link.html")).unwrap();
        Report::new("newer").write(folder.file("link.html")).unwrap();
        assert!(fs::symlink_metadata(folder.file("link.html")).unwrap().is_symlink());
        assert!(fs::read_to_string(&path).unwrap().contains("<h1>newer</h1>"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Several at a time: one of them wins, and nothing is left behind.
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || (0..10).for_each(|_| Report::new(&format!("writer {writer}")).write(path).unwrap()));
        }
    });
    assert!(fs::read_to_string(&path).unwrap().ends_with("</html>\n"));
    assert!(folder.names().iter().all(|name| !name.ends_with(".tmp")), "{:?}", folder.names());
}

// Progress.

fn progress_lines(progress: Progress<'_>, batch: usize, epochs: usize) -> String {
    let mut lines = Vec::new();
    let mut progress = progress.lines_to(&mut lines);
    Trainer::new(Minibatches, GradientDescent::new(0.25), vec![8.0])
        .batches(Batches::sequential(batch))
        .max_epochs(epochs)
        .observe(|step| progress.observe(step))
        .run()
        .unwrap();
    progress.finish();
    String::from_utf8(lines).unwrap()
}

#[test]
fn lines_now_and_then() {
    assert_eq!(
        progress_lines(Progress::epochs("tr\nain", Some(4)), 2, 3),
        "tr ain: epoch 1 of at most 4, value 48\n\
         tr ain: epoch 2 of at most 4, value 3\n\
         tr ain: epoch 3 of at most 4, value 0.1875\n"
    );
    let numbers = |text: String| -> Vec<usize> {
        text.lines().map(|line| line.split([' ', ',']).find_map(|word| word.parse().ok()).unwrap()).collect()
    };
    assert_eq!(numbers(progress_lines(Progress::steps("t", None), 3, 60)), [1, 2, 5, 10, 20, 50, 60]);
    assert_eq!(numbers(progress_lines(Progress::steps("t", Some(50)), 3, 18)), [1, 5, 10, 15, 18]);
    assert_eq!(numbers(progress_lines(Progress::steps("t", Some(50)), 3, 15)), [1, 5, 10, 15]);
    assert_eq!(progress_lines(Progress::epochs("t", None), 3, 0), "");
}

#[cfg(unix)]
#[test]
fn stdout_stays_as_it_is() {
    if std::env::var_os("CHILD").is_some() {
        let mut progress = Progress::steps("progress", Some(3));
        let out = Trainer::new(bowl(), GradientDescent::new(0.25), vec![1.0])
            .max_steps(3)
            .observe(|step| progress.observe(step))
            .run()
            .unwrap();
        progress.suspend(|| writeln!(io::stdout(), "RESULT {}", out.steps).unwrap());
        progress.finish();
        return;
    }
    let folder = Folder::new("stdout");
    let piped = in_a_process("stdout_stays_as_it_is", "true", &folder.0);
    let (out, err) = (String::from_utf8(piped.stdout).unwrap(), String::from_utf8(piped.stderr).unwrap());
    assert!(out.contains("RESULT 3\n") && !out.contains("progress:"), "{out}");
    assert!(err.contains("progress: step 3 of at most 3, value 0.0625\n") && !err.contains('\u{1b}'), "{err}");
    let closed = in_a_process("stdout_stays_as_it_is", "exec 2>&-", &folder.0);
    assert!(closed.status.success(), "{}", String::from_utf8_lossy(&closed.stdout));
}

#[test]
fn progress_never_ends_a_run() {
    let mut progress = Progress::steps("t", None).lines_to(Vec::new());
    let mut trainer = Trainer::new(bowl(), GradientDescent::new(0.25), vec![1.0]);
    let step = trainer.next().unwrap().unwrap();
    assert_eq!(progress.observe(&step), ControlFlow::Continue(()));
}
