//! Other Rust crates on the tasks, beside ours and the derivatives by hand.

mod common;

use ad_bench::cases;

fn main() {
    common::run(|c| cases::all()?.into_iter().try_for_each(|case| common::bench(c, case)));
}
