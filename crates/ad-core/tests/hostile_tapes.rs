//! Tapes that no one would record and a file may hold: they are counted, printed and asked for patterns without a panic,
//! and without more memory or time than the file is worth.
#![allow(clippy::unwrap_used)]

use ad_core::durable::Crc64;
use ad_core::{Error, Tape};

fn bytes_of(tape: &Tape) -> Vec<u8> {
    let mut bytes = Vec::new();
    tape.write_to(&mut bytes).unwrap();
    bytes
}

/// The checksum that belongs to the bytes before it.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 8;
    let mut crc = Crc64::new();
    crc.update(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.value().to_le_bytes());
    bytes
}

/// Where heads of a part of a kind may begin: after ten numbers or so they have nothing but zeros.
fn heads(bytes: &[u8], kind: u32) -> impl Iterator<Item = usize> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let is_head = move |at: &usize| word(*at) == kind && bytes[at + 64..at + 256].iter().all(|&byte| byte == 0);
    (24..bytes.len() - 264).step_by(4).filter(is_head)
}

/// A tape whose first loop runs so often.
fn with_count(tape: &Tape, count: u64) -> Tape {
    let bytes = bytes_of(tape);
    let forged = heads(&bytes, 3).filter_map(|head| {
        let mut forged = bytes.clone();
        forged[head + 32..head + 40].copy_from_slice(&count.to_le_bytes());
        Tape::read_from(&sealed(forged)[..]).ok()
    });
    let runs_so_often = |tape: &Tape| tape.functions().iter().any(|function| function.iterations() as u64 == count);
    forged.into_iter().find(runs_so_often).unwrap()
}

#[test]
fn what_runs_for_ever_is_counted_and_printed() {
    for outputs in [1, 2, 4] {
        let body =
            Tape::record(&[0.5, 1.0], |x| (0..outputs).map(|i| x[0] * x[1] + i as f64).collect::<Vec<_>>()).unwrap();
        let sum = Tape::record(&[0.5, 0.25], |x| body.map_sum([[x[0], x[1]]; 5])).unwrap();
        let gradient = sum.vjp_tape().unwrap();
        for (tape, count) in [(&sum, 1 << 62), (&sum, 1 << 40), (&gradient, 1 << 62), (&gradient, 1 << 34)] {
            let endless = with_count(tape, count);
            assert!(endless.operation_count() >= count, "{}", endless.operation_count());
            assert!(endless.to_string().len() < 10_000);
            let x = vec![0.5; endless.num_inputs()];
            // What goes through every iteration says that there are too many.
            for error in [endless.sparsity().err(), endless.sparse_jacobian(&x).err()] {
                assert!(matches!(error, Some(Error::TooManyNonzeros { .. })), "{error:?}");
            }
            assert_eq!(endless.optimized().tape.num_outputs(), endless.num_outputs());
            endless.jvp_tape().unwrap();
        }
    }
    let step = Tape::record(&[0.5, 1.0], |x| x[0] * x[1]).unwrap();
    let scan = Tape::record(&[0.5, 0.25], |x| step.scan(&x[..1], [[x[1]]; 3]).0).unwrap();
    let endless = with_count(&scan, (1 << 63) - 1);
    assert_eq!(endless.operation_count(), u64::MAX);
    assert!(endless.sparsity().is_err() && endless.jvp_tape().is_ok());
}

#[test]
fn functions_that_call_functions_twice_are_printed_once() {
    let mut levels = vec![Tape::record(&[0.5], |x| x[0].sin()).unwrap()];
    for level in 0..14 {
        let below = levels.last().unwrap();
        levels.push(Tape::record(&[0.5], |x| below.call(x)[0] + below.call(&[x[0] * f64::from(level)])[0]).unwrap());
    }
    let tape = levels.last().unwrap();
    assert!(tape.operation_count() > 1 << 15 && tape.operation_count() < 1 << 18, "{}", tape.operation_count());
    let text = tape.to_string();
    assert_eq!(text.matches("= sin(").count(), 1);
    assert!(text.len() < 10_000, "{} characters", text.len());
    // Two lists a level, of which each calls both of the level below.
    let mut pair = [0.5, 2.0].map(|c| Tape::record(&[0.5], |x| x[0] * c).unwrap());
    for _ in 0..12 {
        let [a, b] = &pair;
        pair = [0.5, 2.0].map(|c| Tape::record(&[0.5], |x| a.call(x)[0] + b.call(x)[0] * c).unwrap());
    }
    let text = pair[0].to_string();
    assert!(text.len() < 20_000 && text.contains("(listed above)"), "{} characters", text.len());
    let trace = pair[0].primal_trace(&[1.0]).unwrap().to_string();
    assert!(trace.len() < 30_000, "{} characters", trace.len());
}

#[test]
fn a_rearrangement_has_operands_and_pairs() {
    let body = Tape::record(&[0.5], |x| x[0].sin()).unwrap();
    let twice = Tape::record(&[0.5], |x| body.call(x)).unwrap().vjp_tape().unwrap().jvp_tape().unwrap();
    let bytes = bytes_of(&twice);
    let mut forged = 0;
    for num_operands in [0_u32, 1, 3, 5, u32::MAX] {
        for head in heads(&bytes, 5) {
            let mut bytes = bytes.clone();
            bytes[head + 8..head + 12].copy_from_slice(&num_operands.to_le_bytes());
            // Some of the words found are others.
            if let Err(Error::TapeFile { problem, .. }) = Tape::read_from(&sealed(bytes)[..]) {
                forged += usize::from(problem.to_string().contains("pairs of values and tangents"));
            }
        }
    }
    assert!(forged >= 4, "{forged}");
}

/// No recording has operands that its loop does not look at.
#[test]
fn loops_with_operands_that_they_ignore_stay_apart() {
    let body = Tape::record(&[0.5], |x| x[0] * x[0]).unwrap();
    let tape = Tape::record(&[0.5, 1.5, 2.5], |x| {
        [body.map_sum([[x[0]], [x[1]]])[0], body.map_sum([[x[0]], [x[1]], [x[2]]])[0]]
    })
    .unwrap();
    let gradient = tape.vjp_tape().unwrap();
    for tape in [tape, gradient] {
        let bytes = bytes_of(&tape);
        let is_long = |head: &usize| bytes[head + 32..head + 40] == 3_u64.to_le_bytes();
        let long = heads(&bytes, 3).find(is_long).unwrap();
        let mut forged = bytes.clone();
        // One iteration less: the loops are one but for an operand.
        forged[long + 32] = 2;
        let forged = Tape::read_from(&sealed(forged)[..]).unwrap();
        let [one, other] = forged.functions() else { panic!("{:?}", forged.functions()) };
        assert!(one != other && one.num_operands().abs_diff(other.num_operands()) == 1, "{one:?} {other:?}");
        let optimized = forged.optimized().tape;
        optimized.check().unwrap();
        let x = vec![2.0; forged.num_inputs()];
        assert_eq!(optimized.eval(&x).unwrap(), forged.eval(&x).unwrap());
        assert_eq!(optimized.jacobian(&x).unwrap(), forged.jacobian(&x).unwrap());
        forged.jvp_tape().unwrap().check().unwrap();
    }
}
