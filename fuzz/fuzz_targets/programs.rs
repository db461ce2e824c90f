//! Random programs, drawn by the bytes, in every engine: the bits of the reference sweeps, of lanes, of sums over
//! samples, and of a tape that was written and read again.

#![no_main]

#[path = "../../crates/ad-core/tests/common/mod.rs"]
mod common;

use ad_core::{SimdLevel, Tape, Workspace};
use common::agreement::{
    Directions, LANES, ROWS, Seen, check_many_points, check_scalar_engine, check_sums, expected_sum, indices,
    points_of, samples_of, terms_of,
};
use common::programs::{Program, Purpose, Random};
use libfuzzer_sys::fuzz_target;

const PURPOSE: Purpose = Purpose { single: true, params: true, guarded: 30, calls: 25 };

fuzz_target!(|bytes: &[u8]| {
    // Two bytes a choice: few choices have more outcomes.
    let drawn =
        bytes.chunks(2).map(|pair| pair.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))).collect();
    let random = &mut Random::of(drawn);
    let (mut ws, mut seen) = (Workspace::new(), Seen::default());
    let program = Program::new(random, PURPOSE);
    let columns = random.one_of(&[1, 3, 4, 8, 17]);
    let lanes = (random.one_of(&SimdLevel::available()), random.one_of(&LANES));

    check_scalar_engine(&program.tape, &program.x0, columns, random, &mut ws, &mut Directions::default(), &mut seen);
    check_many_points(&program.tape, &points_of(&program, random), lanes, &mut ws, &mut seen);

    let (x, samples) = samples_of(&program, random, true);
    let terms = terms_of(&program.tape, &x, &samples);
    let idx = indices(random, 70, ROWS);
    check_sums(&program.tape, &x, &samples, &idx, &expected_sum(&terms, &idx), lanes, &mut ws);

    let mut file = Vec::new();
    program.tape.write_to(&mut file).expect("a recorded tape can be saved");
    let loaded = Tape::read_from(&file[..]).expect("a saved tape can be loaded");
    assert_eq!(loaded.content_hash(), program.tape.content_hash());
});
