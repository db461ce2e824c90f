//! Bytes as a CSV file, and as an IDX file. What a table holds must be what its lines say.

#![no_main]

use ad_optim::data::{Csv, Idx, Missing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Idx::read_bytes("fuzzed", bytes);
    // The first bytes choose how the rest is read.
    let Some((&[policy, separator, columns], text)) = bytes.split_first_chunk::<3>() else { return };
    let missing =
        [Missing::Refuse, Missing::DropRow, Missing::Fill(0.5), Missing::TrainingMean][usize::from(policy % 4)];
    let csv = Csv::new().missing(missing).separator([',', ';', '\t', '|'][usize::from(separator % 4)]);
    let csv = match columns % 3 {
        0 => csv.numeric(&["a", "b"]),
        1 => csv.numeric(&["a"]).categorical(&["b"]),
        _ => csv.numeric(&["a"]).levels("b", &["x", "y"]),
    };
    let Ok(table) = csv.read_bytes("fuzzed", text) else { return };
    let numbers = table.numbers("a").expect("it was asked for");
    assert_eq!(numbers.len(), table.len());
    assert!(numbers.iter().all(|number| number.is_finite() || missing == Missing::TrainingMean && number.is_nan()));
    if let Ok(codes) = table.codes("b") {
        let levels = table.levels("b").expect("it has codes");
        assert!(codes.len() == table.len() && codes.iter().all(|&code| code < levels.len()));
    }
    // What one part learned from nothing but itself serves the other.
    if let Ok((training, held_out)) = table.split(0.5, 1)
        && let Ok(scale) = ad_optim::data::Standardisation::fit(&training, &["a"])
    {
        let _ = (scale.apply(&training), scale.apply(&held_out));
    }
});
