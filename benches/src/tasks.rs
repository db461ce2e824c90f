//! The tasks: each a function as a user would write it, over [`Rule`], with
//! data that is the same on every machine.
//!
//! The functions use loops of products and sums, not the operations that
//! ad-core has for them: what is timed is what users write first.

use ad_core::Rule;

/// A generator of the data: splitmix64.
///
/// Source: G. L. Steele, D. Lea, C. H. Flood, Fast splittable pseudorandom
/// number generators (2014).
#[derive(Debug, Clone)]
pub struct Generator(u64);

impl Generator {
    /// The generator that starts from `seed`.
    pub fn new(seed: u64) -> Generator {
        Generator(seed)
    }

    /// The next number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next number in [low, high).
    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// The next `count` numbers in [low, high).
    pub fn numbers(&mut self, count: usize, low: f64, high: f64) -> Vec<f64> {
        (0..count).map(|_| self.within(low, high)).collect()
    }
}

/// The numbers below `count` in a random order, by exchanges from the end.
///
/// Source: R. Durstenfeld, Algorithm 235: Random permutation (1964).
pub fn shuffled(count: usize) -> Vec<usize> {
    let (mut generator, mut order) = (Generator::new(12), (0..count).collect::<Vec<_>>());
    for i in (1..count).rev() {
        order.swap(i, (generator.unit() * (i + 1) as f64) as usize);
    }
    order
}

/// T1: cos(x₁) + x₁·x₂ − exp(x₂), the classical example.
pub fn classical<T: Rule>(x: &[T]) -> T {
    x[0].cos() + x[0] * x[1] - x[1].exp()
}

/// T2: Σ 100·(xᵢ₊₁ − xᵢ²)² + (1 − xᵢ)², the chained Rosenbrock function.
pub fn rosenbrock<T: Rule>(x: &[T]) -> T {
    x.windows(2).map(rosenbrock_term).reduce(|sum, term| sum + term).unwrap_or(T::lit(0.0))
}

/// A term of T2, of xᵢ and xᵢ₊₁.
pub fn rosenbrock_term<T: Rule>(x: &[T]) -> T {
    let (a, b) = (x[1] - x[0] * x[0], T::lit(1.0) - x[0]);
    a * a * 100.0 + b * b
}

/// A point of T2 with n numbers.
pub fn rosenbrock_point(n: usize) -> Vec<f64> {
    Generator::new(2).numbers(n, 0.5, 1.5)
}

/// Samples of T3 and T4 in one call.
pub const MINIBATCH: usize = 256;
/// Samples of T3 and T4 in all.
pub const SAMPLES: usize = 4096;
/// Features of a sample of T3.
pub const FEATURES: usize = 64;

/// T3: the logistic loss ln(1 + exp(−y·(w·x + b))) of one sample (x, y) given as
/// `sample`; `weights` are w and b.
pub fn logistic_loss<T: Rule>(weights: &[T], sample: &[T]) -> T {
    let mut z = weights[FEATURES];
    for i in 0..FEATURES {
        z = z + weights[i] * sample[i];
    }
    (-(sample[FEATURES] * z)).softplus()
}

/// The samples of T3, 65 numbers each: x and the label y, 1 or −1.
pub fn logistic_samples(count: usize) -> Vec<f64> {
    let mut generator = Generator::new(3);
    let mut samples = Vec::with_capacity(count * (FEATURES + 1));
    for _ in 0..count {
        samples.extend(generator.numbers(FEATURES, -1.0, 1.0));
        samples.push(if generator.unit() < 0.5 { -1.0 } else { 1.0 });
    }
    samples
}

/// Weights of T3: 65 numbers.
pub fn logistic_weights() -> Vec<f64> {
    Generator::new(33).numbers(FEATURES + 1, -0.5, 0.5)
}

/// Inputs of the network of T4.
pub const NETWORK_INPUTS: usize = 8;
/// Units of each of its two hidden layers.
pub const HIDDEN: usize = 16;
/// Numbers that the network of T4 learns.
pub const NETWORK_WEIGHTS: usize = HIDDEN * NETWORK_INPUTS + HIDDEN + HIDDEN * HIDDEN + HIDDEN + HIDDEN + 1;

fn layer<T: Rule>(weights: &[T], biases: &[T], x: &[T]) -> Vec<T> {
    let mut out = Vec::with_capacity(biases.len());
    for (row, &bias) in weights.chunks(x.len()).zip(biases) {
        let mut sum = bias;
        for (&w, &x) in row.iter().zip(x) {
            sum = sum + w * x;
        }
        out.push(sum);
    }
    out
}

/// T4: the squared error of a tanh network 8-16-16-1 on one sample: 8 inputs and
/// the target. The weights of a layer stand row by row, its biases after them.
pub fn network_loss<T: Rule>(weights: &[T], sample: &[T]) -> T {
    let (w1, rest) = weights.split_at(HIDDEN * NETWORK_INPUTS);
    let (b1, rest) = rest.split_at(HIDDEN);
    let (w2, rest) = rest.split_at(HIDDEN * HIDDEN);
    let (b2, rest) = rest.split_at(HIDDEN);
    let (w3, b3) = rest.split_at(HIDDEN);
    let first: Vec<T> = layer(w1, b1, &sample[..NETWORK_INPUTS]).into_iter().map(|z| z.tanh()).collect();
    let second: Vec<T> = layer(w2, b2, &first).into_iter().map(|z| z.tanh()).collect();
    let error = layer(w3, b3, &second)[0] - sample[NETWORK_INPUTS];
    error * error
}

/// The samples of T4, 9 numbers each: 8 inputs and the target.
pub fn network_samples(count: usize) -> Vec<f64> {
    Generator::new(4).numbers(count * (NETWORK_INPUTS + 1), -1.0, 1.0)
}

/// Weights of T4: 433 numbers.
pub fn network_weights() -> Vec<f64> {
    Generator::new(44).numbers(NETWORK_WEIGHTS, -0.5, 0.5)
}

/// Steps of T5.
pub const STEPS: usize = 100;
/// The length of a step of T5.
pub const STEP: f64 = 0.02;
/// The point of T5: a, b, c, d, x₀, y₀.
pub const ORBIT: [f64; 6] = [1.5, 1.0, 3.0, 1.0, 2.0, 1.0];

/// T5: where 100 steps of the classical Runge–Kutta method bring the
/// Lotka–Volterra equations x′ = a·x − b·x·y, y′ = d·x·y − c·y; the inputs are
/// (a, b, c, d, x₀, y₀).
pub fn lotka_volterra<T: Rule>(inputs: &[T]) -> [T; 2] {
    let parameters = [inputs[0], inputs[1], inputs[2], inputs[3]];
    (0..STEPS).fold([inputs[4], inputs[5]], |state, _| lotka_volterra_step(state, parameters))
}

/// One step of T5 from (x, y).
pub fn lotka_volterra_step<T: Rule>([x, y]: [T; 2], [a, b, c, d]: [T; 4]) -> [T; 2] {
    let field = |x: T, y: T| (a * x - b * x * y, d * x * y - c * y);
    let (x1, y1) = field(x, y);
    let (x2, y2) = field(x + x1 * (STEP / 2.0), y + y1 * (STEP / 2.0));
    let (x3, y3) = field(x + x2 * (STEP / 2.0), y + y2 * (STEP / 2.0));
    let (x4, y4) = field(x + x3 * STEP, y + y3 * STEP);
    [x + (x1 + x2 * 2.0 + x3 * 2.0 + x4) * (STEP / 6.0), y + (y1 + y2 * 2.0 + y3 * 2.0 + y4) * (STEP / 6.0)]
}

/// `count` points near that of T5.
pub fn orbits(count: usize) -> Vec<f64> {
    let mut generator = Generator::new(5);
    (0..count).flat_map(|_| ORBIT.map(|x| x * generator.within(0.9, 1.1))).collect()
}

/// The dimension of the data of T6.
pub const DIMENSION: usize = 10;
/// Components of the mixture of T6.
pub const COMPONENTS: usize = 5;
/// Data points of T6.
pub const POINTS: usize = 1000;
/// Numbers that describe the precision of one component of T6.
pub const FACTOR: usize = DIMENSION * (DIMENSION + 1) / 2;
/// Inputs of T6: the log-weights, the means, the factors of the precisions.
pub const MIXTURE: usize = COMPONENTS * (1 + DIMENSION + FACTOR);
/// γ of the Wishart prior of T6.
pub const GAMMA: f64 = 1.0;
/// m of the Wishart prior of T6.
pub const DEGREES: f64 = 2.0;

/// ln Γ(x/2) for a whole x ≥ 1.
fn ln_gamma_of_half(x: usize) -> f64 {
    let start = if x.is_multiple_of(2) { 0.0 } else { std::f64::consts::PI.sqrt().ln() };
    let first = if x.is_multiple_of(2) { 2 } else { 1 };
    (first..x).step_by(2).fold(start, |sum, half| sum + (half as f64 / 2.0).ln())
}

/// What T6 adds that no input changes: the normalisation of the densities and
/// that of the Wishart prior.
pub fn mixture_constant() -> f64 {
    let (d, n) = (DIMENSION as f64, DIMENSION as f64 + DEGREES + 1.0);
    let multivariate = d * (d - 1.0) / 4.0 * std::f64::consts::PI.ln()
        + (1..=DIMENSION).map(|j| ln_gamma_of_half(DIMENSION + DEGREES as usize + 2 - j)).sum::<f64>();
    let wishart = n * d * (GAMMA.ln() - 0.5 * std::f64::consts::LN_2) - multivariate;
    -(POINTS as f64) * d * 0.5 * (2.0 * std::f64::consts::PI).ln() - COMPONENTS as f64 * wishart
}

fn log_sum_exp<T: Rule>(terms: &[T]) -> T {
    let mut largest = terms[0];
    for &term in &terms[1..] {
        largest = largest.max(term);
    }
    let mut sum = (terms[0] - largest).exp();
    for &term in &terms[1..] {
        sum = sum + (term - largest).exp();
    }
    sum.ln() + largest
}

/// T6: the logarithm of the posterior of a Gaussian mixture, with a Wishart
/// prior, over 1000 points in ten dimensions, `data`, row-major.
///
/// The inputs are the 5 log-weights, the 5 means, and for each component the
/// logarithms of the diagonal and then the columns below it of the lower factor
/// of the precision.
///
/// Source: F. Srajer, Z. Kukelova, A. Fitzgibbon, A benchmark of selected
/// algorithmic differentiation tools (2018), §4.1.
pub fn mixture<T: Rule>(inputs: &[T], data: &[f64]) -> T {
    const D: usize = DIMENSION;
    let (alphas, rest) = inputs.split_at(COMPONENTS);
    let (means, factors) = rest.split_at(COMPONENTS * D);
    let diagonals: Vec<Vec<T>> =
        factors.chunks(FACTOR).map(|factor| factor[..D].iter().map(|log| log.exp()).collect()).collect();
    let log_dets: Vec<T> =
        factors.chunks(FACTOR).map(|factor| factor[1..D].iter().fold(factor[0], |sum, &log| sum + log)).collect();

    let mut likelihood = T::lit(mixture_constant());
    for point in data.chunks(D) {
        let mut terms = Vec::with_capacity(COMPONENTS);
        for k in 0..COMPONENTS {
            let below = &factors[k * FACTOR + D..(k + 1) * FACTOR];
            let centred: Vec<T> = (0..D).map(|i| T::lit(point[i]) - means[k * D + i]).collect();
            let mut scaled: Vec<T> = (0..D).map(|i| diagonals[k][i] * centred[i]).collect();
            let mut below = below.iter();
            for (i, &c) in centred.iter().enumerate() {
                for (s, &entry) in scaled[i + 1..].iter_mut().zip(&mut below) {
                    *s = *s + entry * c;
                }
            }
            let mut square = scaled[0] * scaled[0];
            for &s in &scaled[1..] {
                square = square + s * s;
            }
            terms.push(alphas[k] + log_dets[k] - square * 0.5);
        }
        likelihood = likelihood + log_sum_exp(&terms);
    }
    likelihood = likelihood - log_sum_exp(alphas) * POINTS as f64;

    for k in 0..COMPONENTS {
        let below = &factors[k * FACTOR + D..(k + 1) * FACTOR];
        let mut frobenius = diagonals[k][0] * diagonals[k][0];
        for &entry in diagonals[k][1..].iter().chain(below) {
            frobenius = frobenius + entry * entry;
        }
        likelihood = likelihood + (frobenius * (0.5 * GAMMA * GAMMA) - log_dets[k] * DEGREES);
    }
    likelihood
}

/// The data of T6: 1000 points.
pub fn mixture_data() -> Vec<f64> {
    Generator::new(6).numbers(POINTS * DIMENSION, -1.0, 1.0)
}

/// A point of T6: 330 numbers.
pub fn mixture_point() -> Vec<f64> {
    Generator::new(66).numbers(MIXTURE, -0.5, 0.5)
}

/// Observations of T7.
pub const OBSERVATIONS: usize = 1000;
/// Inputs of T7: 11 of the camera, 3 of the point, the weight.
pub const CAMERA: usize = 15;

/// T7: the weighted residual of a reprojection.
///
/// The inputs are the camera (rotation vector, centre, focal length, principal
/// point, two coefficients of radial distortion), the point, and the weight;
/// `feature` is where the point was seen.
///
/// Source: F. Srajer, Z. Kukelova, A. Fitzgibbon, A benchmark of selected
/// algorithmic differentiation tools (2018), §4.2.
pub fn reprojection<T: Rule>(inputs: &[T], feature: &[T]) -> [T; 2] {
    let rotation = [inputs[0], inputs[1], inputs[2]];
    let x = [inputs[11] - inputs[3], inputs[12] - inputs[4], inputs[13] - inputs[5]];
    let (focal, weight) = (inputs[6], inputs[14]);
    let [r0, r1, r2] = rotation;
    let theta = (r0 * r0 + r1 * r1 + r2 * r2).sqrt();
    let (cos, sin) = (theta.cos(), theta.sin());
    let axis = rotation.map(|r| r / theta);
    let cross = [axis[1] * x[2] - axis[2] * x[1], axis[2] * x[0] - axis[0] * x[2], axis[0] * x[1] - axis[1] * x[0]];
    let along = (axis[0] * x[0] + axis[1] * x[1] + axis[2] * x[2]) * (T::lit(1.0) - cos);
    let seen = [0, 1, 2].map(|i| x[i] * cos + cross[i] * sin + axis[i] * along);
    let plane = [seen[0] / seen[2], seen[1] / seen[2]];
    let radius = plane[0] * plane[0] + plane[1] * plane[1];
    let distortion = T::lit(1.0) + inputs[9] * radius + inputs[10] * radius * radius;
    [0, 1].map(|i| weight * (plane[i] * distortion * focal + inputs[7 + i] - feature[i]))
}

/// The observations of T7, 17 numbers each: the 15 inputs and the 2 features.
pub fn observations() -> Vec<f64> {
    let mut generator = Generator::new(7);
    let mut observations = Vec::with_capacity(OBSERVATIONS * (CAMERA + 2));
    for _ in 0..OBSERVATIONS {
        observations.extend(generator.numbers(3, 0.1, 0.6)); // rotation
        observations.extend(generator.numbers(3, -1.0, 1.0)); // centre
        observations.push(generator.within(0.8, 1.2)); // focal length
        observations.extend(generator.numbers(2, -0.2, 0.2)); // principal point
        observations.extend(generator.numbers(2, -0.1, 0.1)); // radial distortion
        observations.extend(generator.numbers(2, -1.0, 1.0));
        observations.push(generator.within(5.0, 8.0)); // in front of the camera
        observations.push(generator.within(0.5, 1.5)); // weight
        observations.extend(generator.numbers(2, -0.5, 0.5)); // features
    }
    observations
}

/// The order of the matrix of T8.
pub const ORDER: usize = 12;

/// T8: the determinant of a 12 × 12 matrix, row-major, by elimination without
/// pivoting.
pub fn determinant<T: Rule>(matrix: &[T]) -> T {
    const N: usize = ORDER;
    let mut a = matrix.to_vec();
    for k in 0..N {
        for i in k + 1..N {
            let factor = a[i * N + k] / a[k * N + k];
            for j in k + 1..N {
                a[i * N + j] = a[i * N + j] - factor * a[k * N + j];
            }
        }
    }
    let mut det = a[0];
    for k in 1..N {
        det = det * a[k * N + k];
    }
    det
}

/// `count` matrices of T8, with a heavy diagonal so that no pivot is small.
pub fn matrices(count: usize) -> Vec<f64> {
    let mut generator = Generator::new(8);
    let mut matrices = generator.numbers(count * ORDER * ORDER, -0.5, 0.5);
    for matrix in matrices.chunks_mut(ORDER * ORDER) {
        for k in 0..ORDER {
            matrix[k * ORDER + k] += 2.0;
        }
    }
    matrices
}
