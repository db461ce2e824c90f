//! Sums over samples and their gradients: a minibatch of 256 with other data at
//! each call, and all 4096 samples on one and on two threads.

mod common;

use ad_bench::cases::{self, Kind};

fn main() {
    common::run(|c| {
        for kind in [Kind::SumGradient, Kind::ShuffledGradient] {
            common::bench(c, cases::logistic(kind)?)?;
            common::bench(c, cases::network(kind)?)?;
        }
        common::bench(c, cases::network_threads(&[1, 2])?)
    });
}
