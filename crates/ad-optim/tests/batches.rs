//! The laws of batches, and the bits of everything that is drawn from a seed.
#![allow(clippy::unwrap_used)]

use ad_optim::{Batches, Error, init};
use proptest::prelude::*;

#[test]
fn the_shuffle_follows_its_reference() {
    let mut rows = 0;
    let text = include_str!("reference/permutations.csv");
    for row in csv::Reader::from_reader(text.as_bytes()).deserialize() {
        let (seed, epoch, order): (u64, usize, String) = row.unwrap();
        let order: Vec<usize> = order.split(' ').map(|i| i.parse().unwrap()).collect();
        let n = order.len();
        let drawn = Batches::shuffled(n).seed(seed).epoch(n, epoch).unwrap();
        assert_eq!(drawn, [order], "seed {seed}, epoch {epoch}");
        rows += 1;
    }
    assert_eq!(rows, 4);
}

proptest! {
    #[test]
    fn an_epoch_visits_every_sample_once(
        samples in 1..500usize,
        size in 1..600usize,
        seed: u64,
        epoch in 1..1000usize,
        shuffled: bool,
    ) {
        let plan = if shuffled { Batches::shuffled(size) } else { Batches::sequential(size) };
        let plan = plan.seed(seed);
        let batches = plan.epoch(samples, epoch).unwrap();
        let (last, others) = batches.split_last().unwrap();
        prop_assert!(others.iter().all(|batch| batch.len() == size));
        prop_assert!((1..=size).contains(&last.len()));
        let mut visited = batches.concat();
        if !shuffled {
            prop_assert!(visited.is_sorted());
        }
        visited.sort_unstable();
        prop_assert_eq!(visited, (0..samples).collect::<Vec<_>>());

        // Dropping the last batch changes no other.
        match plan.clone().drop_last(true).epoch(samples, epoch) {
            Ok(kept) => {
                prop_assert_eq!(kept.len(), samples / size);
                prop_assert_eq!(&kept[..], &batches[..kept.len()]);
            }
            Err(Error::NoBatch { size: s, samples: n }) => {
                prop_assert_eq!((s, n), (size, samples));
                prop_assert!(size > samples);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn an_epoch_is_a_function_of_seed_and_number(seed: u64, epoch in 1..1000usize) {
        let order = |seed, epoch| Batches::shuffled(64).seed(seed).epoch(64, epoch).unwrap();
        prop_assert_eq!(order(seed, epoch), order(seed, epoch));
        prop_assert_ne!(order(seed, epoch), order(seed, epoch + 1));
        prop_assert_ne!(order(seed, epoch), order(seed.wrapping_add(1), epoch));
    }
}

#[test]
fn the_size_of_the_batches_does_not_change_the_order() {
    let order = |size| Batches::shuffled(size).seed(3).epoch(100, 1).unwrap().concat();
    assert_eq!(order(7), order(100));
}

#[test]
fn every_place_is_as_likely_for_every_sample() {
    const EPOCHS: usize = 6000;
    let mut counts = [[0u32; 6]; 6];
    for epoch in 1..=EPOCHS {
        let order = Batches::shuffled(6).seed(11).epoch(6, epoch).unwrap().concat();
        for (place, sample) in order.into_iter().enumerate() {
            counts[sample][place] += 1;
        }
    }
    // 1000 expected in each cell, with a standard deviation of 29.
    assert!(counts.iter().flatten().all(|&count| (850..1150).contains(&count)), "{counts:?}");
}

#[test]
fn full_batches_are_all_samples_in_order() {
    assert_eq!(Batches::full().epoch(4, 9).unwrap(), [[0, 1, 2, 3]]);
    assert_eq!(Batches::default(), Batches::full());
}

#[test]
fn impossible_sizes_are_typed_errors() {
    assert!(matches!(Batches::full().epoch(0, 1), Err(Error::NoSamples)));
    assert!(matches!(Batches::sequential(0).epoch(3, 1), Err(Error::ZeroBatchSize)));
    assert!(matches!(Batches::shuffled(4).drop_last(true).epoch(3, 1), Err(Error::NoBatch { size: 4, samples: 3 })));
    // A batch of all samples is not smaller than the others, and stays.
    assert_eq!(Batches::sequential(3).drop_last(true).epoch(3, 1).unwrap(), [[0, 1, 2]]);
}

#[test]
fn initial_weights_have_the_same_bits_for_ever() {
    let bits = |v: Vec<f64>| v.into_iter().map(f64::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(init::glorot_uniform(2, 1, 7).unwrap()), [0xbfee5899ea369da8, 0x3fd0b4df63d02198]);
    assert_eq!(bits(init::he_normal(2, 1, 7).unwrap()), [0xbff4af82186a2cdb, 0x3fc687c790c3ac24]);
    assert_eq!(bits(init::normal(2, 0.5, 7).unwrap()), [0xbfe4af82186a2cdb, 0x3fb687c790c3ac24]);
}

#[test]
fn a_dense_network_is_laid_out_layer_by_layer() {
    let theta = init::dense(&[4, 8, 8, 8, 3], 7).unwrap();
    let mut rest = &theta[..];
    let mut layers = Vec::new();
    for (fan_in, fan_out) in [(4, 8), (8, 8), (8, 8), (8, 3)] {
        let (weights, biases) = rest[..(fan_in + 1) * fan_out].split_at(fan_in * fan_out);
        let bound = (6.0 / (fan_in + fan_out) as f64).sqrt();
        assert!(weights.iter().all(|w| *w != 0.0 && w.abs() < bound));
        assert!(biases.iter().all(|bias| *bias == 0.0));
        layers.push(weights);
        rest = &rest[(fan_in + 1) * fan_out..];
    }
    assert!(rest.is_empty());
    assert_eq!(layers[0], init::glorot_uniform(4, 8, 7).unwrap());
    assert_ne!(layers[1], layers[2]);
    assert_ne!(theta, init::dense(&[4, 8, 8, 8, 3], 8).unwrap());
    assert_eq!(init::dense(&[2, 1], 7).unwrap()[..2], init::glorot_uniform(2, 1, 7).unwrap());
}

#[test]
fn initial_weights_have_the_stated_moments() {
    let moments = |v: &[f64]| {
        let n = v.len() as f64;
        let mean = v.iter().sum::<f64>() / n;
        (mean, v.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / n)
    };
    let (mean, variance) = moments(&init::glorot_uniform(100, 200, 1).unwrap());
    assert!(mean.abs() < 2e-3 && (variance / (2.0 / 300.0) - 1.0).abs() < 0.05);
    let (mean, variance) = moments(&init::he_normal(100, 200, 1).unwrap());
    assert!(mean.abs() < 4e-3 && (variance / (2.0 / 100.0) - 1.0).abs() < 0.05);
    let (mean, variance) = moments(&init::normal(20_000, 3.0, 1).unwrap());
    assert!(mean.abs() < 0.1 && (variance / 9.0 - 1.0).abs() < 0.05);
    assert_ne!(init::normal(5, 1.0, 1).unwrap(), init::normal(5, 1.0, 2).unwrap());
}

#[test]
fn bad_initialisers_are_typed_errors() {
    let bad = |result: Result<Vec<f64>, Error>| match result {
        Err(Error::InvalidSetting { setting, .. }) => setting,
        Err(Error::TooLarge { .. }) => "size",
        other => panic!("{other:?}"),
    };
    assert_eq!(bad(init::glorot_uniform(0, 3, 1)), "fan_in");
    assert_eq!(bad(init::glorot_uniform(3, 0, 1)), "fan_out");
    assert_eq!(bad(init::he_normal(0, 3, 1)), "fan_in");
    assert_eq!(bad(init::he_normal(usize::MAX, usize::MAX, 1)), "size");
    assert_eq!(bad(init::glorot_uniform(usize::MAX, 1, 1)), "size");
    assert_eq!(bad(init::normal(0, 1.0, 1)), "count");
    for sizes in [&[][..], &[4]] {
        assert_eq!(bad(init::dense(sizes, 1)), "number of sizes");
    }
    for sizes in [[0, 8, 3], [4, 0, 3], [4, 8, 0]] {
        assert_eq!(bad(init::dense(&sizes, 1)), "size of a layer");
    }
    for sizes in [[usize::MAX, 1], [1, usize::MAX], [usize::MAX / 2, 2]] {
        assert_eq!(bad(init::dense(&sizes, 1)), "size");
    }
    for std in [-1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(bad(init::normal(3, std, 1)), "standard deviation");
    }
    assert_eq!(init::normal(2, 0.0, 1).unwrap(), [0.0, 0.0]);
}
