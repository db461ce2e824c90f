//! The tasks that the benchmarks time: each a function over [`Real`] to record,
//! and its derivative written by hand.

use ad_core::Real;

/// cos(x₁) + x₁·x₂ − exp(x₂): the classical example.
pub fn classical<T: Real>(x: &[T]) -> T {
    x[0].cos() + x[0] * x[1] - x[1].exp()
}

/// J·p of [`classical`].
pub fn classical_jvp(x: &[f64; 2], p: &[f64; 2]) -> (f64, f64) {
    let [a, b] = *x;
    let exp = b.exp();
    (a.cos() + a * b - exp, (b - a.sin()) * p[0] + (a - exp) * p[1])
}

/// Σ 100·(xᵢ₊₁ − xᵢ²)² + (1 − xᵢ)²: the chained Rosenbrock function.
pub fn rosenbrock<T: Real>(x: &[T]) -> T {
    let terms = x.windows(2).map(|w| {
        let (a, b) = (w[1] - w[0] * w[0], T::lit(1.0) - w[0]);
        a * a * 100.0 + b * b
    });
    terms.reduce(|sum, term| sum + term).unwrap_or(T::lit(0.0))
}

/// The value and the gradient of [`rosenbrock`].
pub fn rosenbrock_gradient(x: &[f64], gradient: &mut [f64]) -> f64 {
    gradient.fill(0.0);
    let mut sum = 0.0;
    for i in 0..x.len().saturating_sub(1) {
        let (a, b) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
        sum += a * a * 100.0 + b * b;
        gradient[i] += -400.0 * x[i] * a - 2.0 * b;
        gradient[i + 1] += 200.0 * a;
    }
    sum
}
