//! The same derivative at many points.

mod common;

use ad_bench::cases;

fn main() {
    common::run(|c| {
        common::bench(c, cases::lotka_volterra_points()?)?;
        common::bench(c, cases::determinant_points()?)?;
        common::bench(c, cases::reprojection_points()?)
    });
}
