//! Data of users: what is read, what is refused and where, and that what is learned from the training part stays there.
#![allow(clippy::unwrap_used)]

use ad_core::{Samples, Tape};
use ad_optim::data::{Column, Csv, DataError, DataProblem, Dataset, Idx, Missing, Standardisation, labelled_rows};
use ad_optim::{Batches, EmpiricalRisk, Error};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;

const PENGUINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/penguins.csv");
const FEATURES: [&str; 4] = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"];

fn problem(result: Result<impl Sized, Error>) -> DataError {
    match result.err().unwrap() {
        Error::Data(error) => *error,
        other => panic!("{other}"),
    }
}

/// Reads the columns `u` (numeric) and `k` (categorical).
fn read(text: impl AsRef<[u8]>) -> Result<Dataset, Error> {
    Csv::new().numeric(&["u"]).categorical(&["k"]).read_bytes("t.csv", text.as_ref())
}

/// Asserts the place, the problem and the beginning of the message.
fn assert_refused(text: impl AsRef<[u8]>, line: u64, column: Option<&str>, expected: DataProblem) {
    let text = text.as_ref();
    let error = problem(read(text));
    let place = (Some(line).filter(|&line| line > 0), column.map(str::to_owned));
    assert_eq!((error.line, error.column.clone(), &error.problem), (place.0, place.1, &expected), "{text:?}: {error}");
    let mut start = "t.csv".to_owned();
    if line > 0 {
        start += &format!(", line {line}");
    }
    if let Some(column) = column {
        start += &format!(", column {column}");
    }
    assert!(error.to_string().starts_with(&format!("{start}: ")), "{error}");
}

#[test]
fn penguins() {
    let csv = Csv::new().numeric(&FEATURES).categorical(&["species", "sex"]);
    let error = problem(csv.read_path(PENGUINS));
    assert_eq!((error.line, error.column.as_deref()), (Some(5), Some("bill_length_mm")), "{error}");
    assert_eq!(error.problem, DataProblem::Missing { text: "NA".into(), categorical: false });

    let data = csv.clone().missing(Missing::DropRow).read_path(PENGUINS).unwrap();
    assert_eq!((data.len(), data.dropped()), (333, 11));
    assert_eq!(data.levels("species").unwrap(), ["Adelie", "Chinstrap", "Gentoo"]);
    assert_eq!((data.line(0), data.line(3), data.line(332), data.line(333)), (Some(2), Some(6), Some(345), None));
    assert_eq!(data.names(), [&FEATURES[..], &["species", "sex"]].concat());

    // A column that is not read may hold what it likes: the sex is missing in nine rows more.
    let measured = Csv::new().numeric(&FEATURES).missing(Missing::DropRow).read_path(PENGUINS).unwrap();
    assert_eq!((measured.len(), measured.dropped()), (342, 2));

    // There is no mean of categories.
    let error = problem(csv.clone().missing(Missing::TrainingMean).read_path(PENGUINS));
    assert_eq!((error.line, error.column.as_deref()), (Some(5), Some("sex")), "{error}");
    assert_eq!(error.problem, DataProblem::Missing { text: "NA".into(), categorical: true });
}

#[test]
fn what_is_well_formed() {
    let plain = "u,k\n1,a\n-2.5e3,b\n";
    let data = read(plain).unwrap();
    assert_eq!(data.numbers("u").unwrap(), [1.0, -2500.0]);
    let same = [
        "\u{feff}u,k\n1,a\n-2.5e3,b\n",
        "u,k\r\n1,a\r\n-2.5e3,b\r\n",
        "u,k\r1,a\r-2.5e3,b\r",
        "u,k\n1,a\n-2.5e3,b",
        "\"u\",\"k\"\n\"1\",\"a\"\n\"-2.5e3\",\"b\"\n",
        " u ,\tk\n 1, a \n-2.5e3 ,b  \n",
        "k,x,u\na,,1\nb,\"no, \"\"number\"\"\",-2500\n",
    ];
    for text in same {
        let read = read(text).unwrap();
        assert_eq!(read.numbers("u").unwrap(), data.numbers("u").unwrap(), "{text:?}");
        assert_eq!(read.codes("k").unwrap(), data.codes("k").unwrap(), "{text:?}");
        assert_eq!((read.line(0), read.line(1)), (Some(2), Some(3)), "{text:?}");
    }
    // Blank lines hold nothing, but count.
    let data = read("\n\nu,k\n\n1,a\n   \n2,b\n\n").unwrap();
    assert_eq!((data.line(0), data.line(1)), (Some(5), Some(7)));
    // A quoted cell is taken as it is, line ends and all.
    let data = read("u,k\n1,\" a\r\nb\"\n2,c\n").unwrap();
    assert_eq!(data.levels("k").unwrap(), [" a\r\nb", "c"]);
    assert_eq!(data.line(1), Some(4));

    let semicolons = Csv::new().separator(';').numeric(&["u"]).read_bytes("t.csv", b"u;k\n1;a,b\n").unwrap();
    assert_eq!(semicolons.numbers("u").unwrap(), [1.0]);
    let tabs = Csv::new().separator('\t').categorical(&["k"]).read_bytes("t.csv", b"u\tk\n1\ta b\n").unwrap();
    assert_eq!(tabs.levels("k").unwrap(), ["a b"]);
    let bare = Csv::new().without_header(&["k", "u"]).numeric(&["u"]).read_bytes("t.csv", b"a,1\nb,2\n").unwrap();
    assert_eq!((bare.numbers("u").unwrap(), bare.line(0)), (&[1.0, 2.0][..], Some(1)));
}

#[test]
fn what_is_malformed_is_named_with_its_place() {
    use DataProblem::*;
    let text = |text: &str| text.to_owned();
    assert_refused("", 0, None, Empty);
    assert_refused("\n\n", 0, None, Empty);
    assert_refused("u,k\n", 0, None, NoRows { dropped: 0 });
    assert_refused("u\n1\n", 1, Some("k"), NoSuchColumn { columns: vec![text("u")] });
    assert_refused("u,k,u\n1,a,2\n", 1, Some("u"), DuplicateColumn { first: 0, second: 2 });
    assert_refused("u,k,x,x\n1,a,2,3\n", 1, Some("x"), DuplicateColumn { first: 2, second: 3 });
    assert_refused("u,k,\n1,a,2\n", 1, Some("3"), UnnamedColumn { index: 2 });
    assert_refused("u,k\n1,a\n2\n", 3, None, Ragged { expected: 2, got: 1 });
    assert_refused("u,k\n1,a\n2,b,c\n", 3, None, Ragged { expected: 2, got: 3 });
    assert_refused("u,k\n1,a\n\n2,b,\n", 4, None, Ragged { expected: 2, got: 3 });
    for wrong in ["abc", "1,5", "0x10", "1_000", "--1", "1e", "."] {
        let row = format!("u,k\n1,a\n\"{wrong}\",b\n");
        assert_refused(&row, 3, Some("u"), NotANumber { text: text(wrong) });
    }
    for wrong in ["NaN", "nan", "inf", "-Infinity", "1e999"] {
        assert_refused(format!("u,k\r\n1,a\r\n{wrong},b"), 3, Some("u"), NotFinite { text: text(wrong) });
    }
    assert_refused("u,k\n,a\n", 2, Some("u"), Missing { text: text(""), categorical: false });
    assert_refused("u,k\n1,NA\n", 2, Some("k"), Missing { text: text("NA"), categorical: true });
    assert_refused("u,k\n1,\"a\n2,b\n3,c\n", 2, Some("2"), UnclosedQuote);
    assert_refused("u,k\n1,\"a\nb\"\n2,\"c", 4, Some("2"), UnclosedQuote);
    assert_refused("u,k\n\"1\"2,a\n", 2, Some("1"), StrayQuote);
    assert_refused("u,k\n1, \"a\"\n", 2, Some("2"), StrayQuote);
    assert_refused(b"u,k\n1,caf\xe9\n", 2, Some("2"), NotUtf8);
    assert_refused(b"\xff\xfeu\0,\0k\0", 1, Some("1"), NotUtf8);
    // Of several faults the first is told.
    assert_refused("u,k\n1,a\nx,b\n2,\"c\n", 3, Some("u"), NotANumber { text: text("x") });
    // A long cell is not repeated in full, and no control character reaches the terminal.
    let message = problem(read(format!("u,k\n\x1b[31m{},a\n", "x".repeat(5000)))).to_string();
    assert!(message.len() < 200 && message.contains("\\u{1b}[31mxxx"), "{message}");
}

#[test]
fn settings_of_the_reader() {
    let csv = || Csv::new().numeric(&["u"]);
    assert_eq!(problem(Csv::new().read_bytes("t.csv", b"u\n1\n")).problem, DataProblem::NoColumns);
    for separator in ['"', '\n', '·'] {
        let error = problem(csv().separator(separator).read_bytes("t.csv", b"u\n1\n"));
        assert_eq!(error.problem, DataProblem::Separator(separator));
    }
    let error = csv().missing(Missing::Fill(f64::NAN)).read_bytes("t.csv", b"u\n1\n").unwrap_err();
    assert!(matches!(error, Error::InvalidSetting { .. }), "{error}");
    let error = problem(csv().numeric(&["u"]).read_bytes("t.csv", b"u\n1\n"));
    assert_eq!((error.column.as_deref(), error.problem), (Some("u"), DataProblem::AskedTwice));
    let error = csv().read_path("no/such/file.csv").unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path == Path::new("no/such/file.csv")), "{error}");
    assert!(error.to_string().starts_with("no/such/file.csv cannot be read: "), "{error}");

    let text = b"u\n1\n?\nNA\n3\n";
    let marked = |markers: &[&str]| csv().missing_markers(markers).missing(Missing::DropRow).read_bytes("t.csv", text);
    let data = marked(&["?", "NA"]).unwrap();
    assert_eq!((data.numbers("u").unwrap(), data.dropped()), (&[1.0, 3.0][..], 2));
    assert_eq!(problem(marked(&["?"])).line, Some(4));
    assert_eq!(problem(marked(&["?", "NA", "1", "3"])).problem, DataProblem::NoRows { dropped: 4 });
}

proptest! {
    /// The csv crate is the oracle: what its writer writes is read back, cell by cell.
    #[test]
    fn reads_what_others_write(
        rows in prop::collection::vec(prop::collection::vec("[a-c\"\n\r,; é]{0,5}", 3), 1..8),
        crlf: bool,
        quote_all: bool,
    ) {
        let style = if quote_all { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer = csv::WriterBuilder::new().quote_style(style).terminator(terminator).from_writer(Vec::new());
        writer.write_record(["a", "b", "c"]).unwrap();
        for row in &rows {
            // Blanks around a cell that is not quoted are no part of it.
            let row: Vec<&str> = if quote_all { row.iter().map(String::as_str).collect() } else { row.iter().map(|cell| cell.trim_matches(' ')).collect() };
            writer.write_record(row).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let data = Csv::new().missing_markers(&[]).categorical(&["a", "b", "c"]).read_bytes("t.csv", &bytes).unwrap();
        prop_assert_eq!(data.len(), rows.len());
        for (column, name) in ["a", "b", "c"].into_iter().enumerate() {
            let (levels, codes) = (data.levels(name).unwrap(), data.codes(name).unwrap());
            for (row, &code) in codes.iter().enumerate() {
                let cell = if quote_all { &rows[row][column] } else { rows[row][column].trim_matches(' ') };
                prop_assert_eq!(levels[code].as_str(), cell);
            }
        }
    }

    /// No bytes make the reader panic, and it never reports a line that the file does not have.
    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(prop::sample::select(b"u,k\n\r\"1 \xff\xef\xbb\xbfNA".to_vec()), 0..60)) {
        let mut text = b"u,k\n".to_vec();
        text.extend(&bytes);
        let lines = 1 + text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
        for bytes in [&bytes, &text] {
            if let Err(Error::Data(error)) = read(bytes) {
                prop_assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{}", error);
            }
        }
    }

    /// A split is a partition, the same for the same seed, and every level has its share.
    #[test]
    fn splits(len in 2..60_usize, share in 0.2..0.8_f64, seed: u64, levels in 1..4_usize) {
        let kinds: Vec<String> = (0..len).map(|i| (i % levels).to_string()).collect();
        let data = Dataset::from_columns(vec![
            Column::numbers("u", (0..len).map(|i| i as f64).collect()),
            Column::categories("k", &kinds),
        ]).unwrap();
        let rows = |part: &Dataset| part.numbers("u").unwrap().iter().map(|&u| u as usize).collect::<Vec<_>>();
        let size = (len as f64 * share).round() as usize;
        match data.split(share, seed) {
            Ok((training, rest)) => {
                prop_assert_eq!(training.len(), size);
                let order = Batches::shuffled(len).seed(seed).epoch(len, 1).unwrap().concat();
                prop_assert_eq!([rows(&training), rows(&rest)].concat(), order);
                prop_assert_eq!(data.split(share, seed).unwrap(), (training, rest));
            }
            Err(error) => prop_assert!(size == 0 || size == len, "{}", error),
        }
        if let Ok((training, rest)) = data.split_by("k", share, seed) {
            let mut all = [rows(&training), rows(&rest)].concat();
            all.sort();
            prop_assert_eq!(all, (0..len).collect::<Vec<_>>());
            for level in 0..levels {
                let count = |part: &Dataset| part.codes("k").unwrap().iter().filter(|&&code| code == level).count();
                let of_level = count(&data);
                prop_assert_eq!(count(&training), (of_level as f64 * share).round() as usize);
                prop_assert_eq!(count(&training) + count(&rest), of_level);
            }
        }
    }
}

#[test]
fn tables_from_columns() {
    use DataProblem::*;
    let refused = |columns| problem(Dataset::from_columns(columns)).problem;
    assert_eq!(refused(vec![]), NoColumns);
    assert_eq!(refused(vec![Column::numbers("u", vec![])]), NoRows { dropped: 0 });
    assert_eq!(refused(vec![Column::numbers("", vec![1.0])]), UnnamedColumn { index: 0 });
    let (u, k) = (Column::numbers("u", vec![1.0, 2.0]), Column::categories("k", &["a"]));
    assert_eq!(refused(vec![u.clone(), k.clone()]), UnequalColumns { expected: 2, got: 1 });
    assert_eq!(refused(vec![u.clone(), u.clone()]), DuplicateColumn { first: 0, second: 1 });
    let infinite = Column::numbers("v", vec![1.0, f64::INFINITY]);
    assert_eq!(refused(vec![u.clone(), infinite]), NotFinite { text: "inf".into() });

    let data = Dataset::from_columns(vec![u, Column::categories("k", &["b", "a"])]).unwrap();
    assert_eq!(problem(data.numbers("k")).problem, NotNumeric);
    assert_eq!(problem(data.codes("u")).problem, NotCategorical);
    assert_eq!(problem(data.levels("x")).problem, NoSuchColumn { columns: vec!["u".into(), "k".into()] });
    assert!(matches!(data.select(&[2]), Err(Error::SampleOutOfRange { sample: 2, samples: 2 })));
    assert!(matches!(data.select(&[]), Err(Error::EmptyBatch)));
    // A part without a level keeps its code.
    let part = data.select(&[0, 0]).unwrap();
    assert_eq!(part.rows(&["k", "u"]).unwrap(), [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    for share in [0.0, 0.1, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
        for split in [data.split(share, 1), data.split_by("k", share, 1)] {
            let error = split.unwrap_err();
            assert!(matches!(error, Error::InvalidSetting { setting: "training share", .. }), "{error}");
        }
    }
}

#[test]
fn standardisation_learns_from_the_training_part_alone() {
    let csv = Csv::new().numeric(&FEATURES).categorical(&["species"]).missing(Missing::TrainingMean);
    let data = csv.read_path(PENGUINS).unwrap();
    assert_eq!(data.len(), 344);
    let (training, held_out) = data.split_by("species", 0.8, 7).unwrap();

    // What is still missing does not become a row, and the message names its line.
    let error = problem(data.rows(&FEATURES));
    assert_eq!((error.line, error.column.as_deref()), (Some(5), Some("bill_length_mm")));
    assert_eq!(error.problem, DataProblem::StillMissing { row: 3 });

    let scale = Standardisation::fit(&training, &FEATURES).unwrap();
    let (scaled, scaled_held_out) = (scale.apply(&training).unwrap(), scale.apply(&held_out).unwrap());
    for name in FEATURES {
        let present: Vec<f64> = training.numbers(name).unwrap().iter().copied().filter(|x| !x.is_nan()).collect();
        let n = present.len() as f64;
        let mean = present.iter().sum::<f64>() / n;
        assert!((scale.mean(name).unwrap() / mean - 1.0).abs() < 1e-14);
        let values = scaled.numbers(name).unwrap();
        let standardised_mean = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|x| x * x).sum::<f64>() / n;
        assert!(
            standardised_mean.abs() < 1e-12 && (square - 1.0).abs() < 1e-12,
            "{name}: {standardised_mean} {square}"
        );
        // The held-out part is moved by the same amounts, and would not be centred by itself.
        let (before, after) = (held_out.numbers(name).unwrap(), scaled_held_out.numbers(name).unwrap());
        for (x, z) in before.iter().zip(after) {
            let expected = if x.is_nan() { 0.0 } else { (x - mean) / scale.deviation(name).unwrap() };
            assert!((z - expected).abs() < 1e-12);
        }
        assert!((after.iter().sum::<f64>() / after.len() as f64).abs() > 1e-6);
    }
    // Other held-out rows change nothing that was learned.
    let (_, others) = data.split(0.5, 3).unwrap();
    assert_eq!(Standardisation::fit(&training, &FEATURES).unwrap(), scale);
    assert_ne!(Standardisation::fit(&others, &FEATURES).unwrap(), scale);
    assert!(scaled.rows(&FEATURES).is_ok() && scaled_held_out.rows(&FEATURES).is_ok());
    assert_eq!(scaled.codes("species").unwrap(), training.codes("species").unwrap());
}

#[test]
fn standardisation_at_the_edges() {
    let table = |values: Vec<f64>| Dataset::from_columns(vec![Column::numbers("u", values)]).unwrap();
    // 0.1 a thousand times has a mean that is not 0.1 in floating-point numbers; its deviation is 0 all the same.
    let constant = table(vec![0.1; 1000]);
    let scale = Standardisation::fit(&constant, &["u"]).unwrap();
    assert_eq!((scale.mean("u"), scale.deviation("u")), (Some(0.1), Some(0.0)));
    assert!(scale.apply(&constant).unwrap().numbers("u").unwrap().iter().all(|&x| x == 0.0));
    assert_eq!(scale.apply(&table(vec![1.1])).unwrap().numbers("u").unwrap(), [1.0]);
    assert_eq!((scale.mean("v"), scale.deviation("v")), (None, None));

    let refused = |values| problem(Standardisation::fit(&table(values), &["u"])).problem;
    assert_eq!(refused(vec![f64::NAN, f64::NAN]), DataProblem::AllMissing);
    assert!(matches!(refused(vec![f64::MAX, f64::MAX / 2.0]), DataProblem::NoDeviation { .. }));
    assert!(matches!(refused(vec![0.0, 1e-300]), DataProblem::NoDeviation { .. }));
    let other = Dataset::from_columns(vec![Column::numbers("v", vec![1.0])]).unwrap();
    assert!(matches!(problem(scale.apply(&other)).problem, DataProblem::NoSuchColumn { .. }));
    let categories = Dataset::from_columns(vec![Column::categories("u", &["a"])]).unwrap();
    assert_eq!(problem(scale.fill(&categories)).problem, DataProblem::NotNumeric);
    assert_eq!(problem(Standardisation::fit(&categories, &["u"])).problem, DataProblem::NotNumeric);
}

#[test]
fn a_held_out_number_that_overflows_and_a_level_given_twice() {
    let near = Dataset::from_columns(vec![Column::numbers("u", vec![0.0, 1e-3])]).unwrap();
    let far = Dataset::from_columns(vec![Column::numbers("u", vec![1.0, 1e308])]).unwrap();
    let error = Standardisation::fit(&near, &["u"]).unwrap().apply(&far).unwrap_err();
    assert!(error.to_string().contains("too far from the mean"), "{error}");
    assert_eq!(problem(Standardisation::fit(&near, &["u", "u"])).problem, DataProblem::AskedTwice);
    assert_eq!(problem(near.rows(&["u", "u"])).problem, DataProblem::AskedTwice);
    assert_eq!(problem(near.row_names(&[])).problem, DataProblem::NoColumns);
    let twice = Csv::new().levels("k", &["a", "b", "a"]).read_bytes("k.csv", b"k\na\n").unwrap_err();
    assert!(twice.to_string().starts_with("k.csv, column k: the level \"a\" is given twice"), "{twice}");
}

#[test]
fn samples_of_a_tape() {
    let data = read("u,k\n1,b\n2,a\n").unwrap();
    let tape = Tape::builder()
        .inputs(&["x"], &[0.0])
        .params(&["u", "a", "b"], &[0.0, 0.0, 0.0])
        .record(|x, k| x[0] * k[0] + k[2])
        .unwrap();
    let samples = data.samples(&tape, &["u", "k"]).unwrap();
    assert_eq!((samples.row(0), samples.row(1)), (&[1.0, 0.0, 1.0][..], &[2.0, 1.0, 0.0][..]));
    assert_eq!(EmpiricalRisk::new(tape.clone(), samples).unwrap().value(&[4.0]).unwrap(), 6.5);
    let by_hand = Samples::from_rows(&tape, &data.rows(&["u", "k"]).unwrap()).unwrap();
    assert_eq!(by_hand.row(1), [2.0, 1.0, 0.0]);
    let found = problem(data.samples(&tape, &["u"]));
    assert!(matches!(found.problem, DataProblem::RowOfOtherLength { parameters: 3, .. }), "{found}");
}

/// An IDX file with the given type and sizes.
fn idx(code: u8, sizes: &[u32], numbers: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(numbers);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx_problem(bytes: &[u8]) -> DataProblem {
    problem(Idx::read_bytes("t.idx", bytes)).problem
}

#[test]
fn idx_of_every_type() {
    let numbers = [1.0, -2.0, 100.0];
    let files: [(u8, Vec<u8>); 6] = [
        (0x08, vec![1, 254, 100]),
        (0x09, vec![1, 254, 100]),
        (0x0b, numbers.iter().flat_map(|&x| (x as i16).to_be_bytes()).collect()),
        (0x0c, numbers.iter().flat_map(|&x| (x as i32).to_be_bytes()).collect()),
        (0x0d, numbers.iter().flat_map(|&x| (x as f32).to_be_bytes()).collect()),
        (0x0e, numbers.iter().flat_map(|&x: &f64| x.to_be_bytes()).collect()),
    ];
    for (code, bytes) in files {
        let file = idx(code, &[3, 1, 1], &bytes);
        let plain = Idx::read_bytes("t.idx", &file).unwrap();
        assert_eq!((plain.len(), plain.width(), plain.shape()), (3, 1, &[3, 1, 1][..]));
        let read = [0, 1, 2].map(|i| plain.item(i).unwrap()[0]);
        assert_eq!(read, if code == 0x08 { [1.0, 254.0, 100.0] } else { numbers }, "type {code:02x}");
        assert_eq!(Idx::read_bytes("t.idx", &gzip(&file)).unwrap(), plain);
    }
    let nan = idx(0x0d, &[2], &[1.0_f32, f32::NAN].map(f32::to_be_bytes).concat());
    assert!(matches!(idx_problem(&nan), DataProblem::IdxNotFinite { index: 1, value } if value.is_nan()));
    let infinite = idx(0x0e, &[1], &f64::NEG_INFINITY.to_be_bytes());
    assert_eq!(idx_problem(&infinite), DataProblem::IdxNotFinite { index: 0, value: f64::NEG_INFINITY });
}

#[test]
fn idx_cut_anywhere_or_grown_is_refused() {
    let file = idx(0x08, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
    assert_eq!(idx_problem(&[]), DataProblem::Empty);
    for end in 1..file.len() {
        match idx_problem(&file[..end]) {
            DataProblem::NotIdx(start) => assert_eq!(start, file[..end.min(4)]),
            DataProblem::Truncated { has, needs, shape } => {
                assert_eq!(has, end);
                assert_eq!(needs, if end < 16 { 16 } else { file.len() });
                assert_eq!(shape, [2, 1, 3][..((end - 4) / 4).min(3)]);
            }
            other => panic!("{end}: {other}"),
        }
    }
    let grown = [&file[..], &[0]].concat();
    assert_eq!(idx_problem(&grown), DataProblem::TrailingBytes { shape: vec![2, 1, 3], needs: 22 });
    assert_eq!(idx_problem(&gzip(&grown)), DataProblem::TrailingBytes { shape: vec![2, 1, 3], needs: 22 });
    let packed = gzip(&file);
    for end in 2..packed.len() {
        let problem = idx_problem(&packed[..end]);
        assert!(matches!(problem, DataProblem::Gzip(_)), "{end}: {problem}");
    }
    // Compression of a cut file is sound; the file is not.
    assert_eq!(idx_problem(&gzip(&file[..20])), DataProblem::Truncated { shape: vec![2, 1, 3], needs: 22, has: 20 });
}

#[test]
fn idx_damaged_anywhere_never_panics() {
    let file = idx(0x08, &[2, 3], &[1, 2, 3, 4, 5, 6]);
    let sound = Idx::read_bytes("t.idx", &file).unwrap();
    for (at, flip) in (0..file.len()).flat_map(|at| (1..=255).map(move |flip| (at, flip))) {
        let mut damaged = file.clone();
        damaged[at] ^= flip;
        // The format has no checksum, so damage within the numbers is not found; damage of the sizes is.
        match Idx::read_bytes("t.idx", &damaged) {
            Ok(read) => assert!(at >= 12 && read != sound || at == 2 && damaged[2] == 9, "byte {at} flipped by {flip}"),
            Err(error) => assert!(at < 12, "byte {at} flipped by {flip}: {error}"),
        }
    }
    let packed = gzip(&file);
    for (at, bit) in (0..packed.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut damaged = packed.clone();
        damaged[at] ^= 1 << bit;
        // Some bits mean nothing, such as those of the time; no other content ever comes out, though.
        match Idx::read_bytes("t.idx", &damaged) {
            Ok(read) => assert!(read == sound, "byte {at}, bit {bit}"),
            Err(Error::Data(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn idx_sizes_that_lie_reserve_nothing() {
    use DataProblem::*;
    let huge = idx(0x0e, &[u32::MAX; 2], &[0; 16]);
    assert!(matches!(idx_problem(&huge), Truncated { has: 28, .. } | TooLarge { .. }));
    assert_eq!(idx_problem(&idx(0x08, &[u32::MAX; 9], &[])), TooLarge { shape: vec![u32::MAX as usize; 9] });
    assert!(matches!(idx_problem(&idx(0x08, &[u32::MAX], &[1])), Truncated { has: 9, .. }));
    // A compressed file that promises more than any of its length can hold.
    assert!(matches!(idx_problem(&gzip(&huge)), TooLarge { .. }));
    assert_eq!(idx_problem(&idx(0x08, &[0, 5], &[])), NoRows { dropped: 0 });
    assert_eq!(idx_problem(&idx(0x08, &[], &[])), NotIdx(vec![0, 0, 8, 0]));
    assert_eq!(idx_problem(&idx(0x0a, &[1], &[1])), UnknownIdxType(0x0a));
    assert_eq!(idx_problem(b"\x89PNG\r\n"), NotIdx(b"\x89PNG".to_vec()));
    assert!(matches!(Idx::read_path("no/such/file"), Err(Error::Read { .. })));
}

#[test]
fn images_and_labels_belong_together() {
    let read = |bytes: Vec<u8>| Idx::read_bytes("t.idx", &bytes).unwrap();
    let images = read(idx(0x08, &[2, 2], &[0, 255, 255, 0]));
    let labels = read(idx(0x08, &[2], &[1, 0]));
    let rows = labelled_rows(&images, &labels, &[0, 1], 255.0, 2).unwrap();
    assert_eq!(rows, [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0]);
    for labels in [read(idx(0x08, &[3], &[1, 0, 0])), read(idx(0x08, &[2, 2], &[1, 0, 0, 1]))] {
        let error = problem(labelled_rows(&images, &labels, &[0], 255.0, 2));
        assert_eq!(error.problem, DataProblem::Unpaired { images: 2, labels: labels.shape().to_vec() });
    }
    let error = problem(labelled_rows(&images, &labels, &[0], 255.0, 1));
    assert_eq!(error.problem, DataProblem::Label { index: 0, value: 1.0, classes: 1 });
    let fractions = read(idx(0x0d, &[2], &[0.5_f32, -1.0].map(f32::to_be_bytes).concat()));
    assert!(fractions.classes(2).is_err());
    assert!(matches!(labelled_rows(&images, &labels, &[2], 255.0, 2), Err(Error::SampleOutOfRange { .. })));
    for scale in [0.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(labelled_rows(&images, &labels, &[0], scale, 2), Err(Error::InvalidSetting { .. })));
    }
}

#[test]
fn rows_that_do_not_fit_the_tape() {
    let columns =
        vec![Column::numbers("a", vec![1.0]), Column::categories("c", &["x"]), Column::numbers("b", vec![2.0])];
    let data = Dataset::from_columns(columns).unwrap();
    let tape = |names: &[&str]| {
        Tape::builder().inputs(&[], &[1.0]).params(names, &[0.0; 2]).record(|x, k| x[0] * k[0] + k[1]).unwrap()
    };
    assert_eq!(data.samples(&tape(&["a", "b"]), &["a", "b"]).unwrap().row(0), [1.0, 2.0]);
    let swapped = problem(data.samples(&tape(&["a", "b"]), &["b", "a"])).to_string();
    assert!(
        swapped.ends_with("is b, a, but the parameters of the tape are a, b; name the columns in that order"),
        "{swapped}"
    );
    // Other names, or none, say nothing about the order.
    assert!(data.samples(&tape(&["u", "v"]), &["b", "a"]).is_ok() && data.samples(&tape(&[]), &["b", "a"]).is_ok());
    let wide = problem(data.samples(&tape(&["a", "b"]), &["a", "c", "b"])).to_string();
    assert!(wide.contains("is a, c=x, b: 3 numbers, but the tape has 2 parameters"), "{wide}");
    let unequal = Dataset::from_columns(vec![Column::numbers("a", vec![1.0]), Column::numbers("b", vec![])]);
    assert!(matches!(problem(unequal).problem, DataProblem::UnequalColumns { expected: 1, got: 0 }));
    // What a cell of a missing value looks like may be the name of a level.
    let namibia =
        Csv::new().levels("k", &["NA", "x"]).missing(Missing::DropRow).read_bytes("k.csv", b"k\nNA\nx\n").unwrap();
    assert_eq!(namibia.codes("k").unwrap(), [0, 1]);
}
