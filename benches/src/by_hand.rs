//! The derivatives of the tasks as a careful programmer writes them: plain
//! `f64`, std's elementary functions, no allocation, plain loops that the compiler
//! turns into vector instructions where it can. Sums are one chain of additions.
//!
//! They are the measure of everything else: a ratio "× by hand" is to these.

use crate::tasks::{
    CAMERA, COMPONENTS, DEGREES, DIMENSION, FACTOR, FEATURES, GAMMA, HIDDEN, MIXTURE, NETWORK_INPUTS, NETWORK_WEIGHTS,
    ORDER, POINTS, STEP, STEPS,
};

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(sum: &mut [f64], factor: f64, term: &[f64]) {
    for (sum, term) in sum.iter_mut().zip(term) {
        *sum += factor * term;
    }
}

/// T1: the value and J·p.
pub fn classical_jvp(x: &[f64; 2], p: &[f64; 2]) -> (f64, f64) {
    let [a, b] = *x;
    let exp = b.exp();
    (a.cos() + a * b - exp, (b - a.sin()) * p[0] + (a - exp) * p[1])
}

/// T1: the value and the gradient.
pub fn classical_gradient(x: &[f64; 2], gradient: &mut [f64]) -> f64 {
    let [a, b] = *x;
    let exp = b.exp();
    gradient[0] = b - a.sin();
    gradient[1] = a - exp;
    a.cos() + a * b - exp
}

/// T1: the value.
pub fn classical_value(x: &[f64; 2]) -> f64 {
    let [a, b] = *x;
    a.cos() + a * b - b.exp()
}

/// T2: the value.
pub fn rosenbrock_value(x: &[f64]) -> f64 {
    let mut sum = 0.0;
    for x in x.windows(2) {
        let (a, b) = (x[1] - x[0] * x[0], 1.0 - x[0]);
        sum += 100.0 * a * a + b * b;
    }
    sum
}

/// Lanes of T2's vectorised sums: few enough that all of them stay in registers.
const NARROW: usize = 4;

/// T2: the value in vector instructions; the factor 100 is taken out of the sum.
pub fn rosenbrock_value_vectorised(x: &[f64]) -> f64 {
    let n = x.len() - 1;
    let term = |x: f64, next: f64| (next - x * x, 1.0 - x);
    let (mut squares, mut rests) = ([0.0; NARROW], [0.0; NARROW]);
    let blocks = x[..n].as_chunks::<NARROW>().0.iter().zip(x[1..].as_chunks::<NARROW>().0);
    for (x, next) in blocks {
        for lane in 0..NARROW {
            let (a, b) = term(x[lane], next[lane]);
            squares[lane] += a * a;
            rests[lane] += b * b;
        }
    }
    for i in n - n % NARROW..n {
        let (a, b) = term(x[i], x[i + 1]);
        squares[0] += a * a;
        rests[0] += b * b;
    }
    100.0 * squares.iter().sum::<f64>() + rests.iter().sum::<f64>()
}

/// T2: the value and J·p in vector instructions; the constant factors are taken out of the four sums.
pub fn rosenbrock_jvp_vectorised(x: &[f64], p: &[f64]) -> (f64, f64) {
    let n = x.len() - 1;
    let mut sums = [[0.0; NARROW]; 4];
    let term = |x: f64, next: f64, p: f64, p_next: f64| {
        let (a, b, xp) = (next - x * x, 1.0 - x, x * p);
        [a * a, b * b, a * (p_next - (xp + xp)), b * p]
    };
    let points = x[..n].as_chunks::<NARROW>().0.iter().zip(x[1..].as_chunks::<NARROW>().0);
    let seeds = p[..n].as_chunks::<NARROW>().0.iter().zip(p[1..].as_chunks::<NARROW>().0);
    for ((x, next), (p, p_next)) in points.zip(seeds) {
        for lane in 0..NARROW {
            let terms = term(x[lane], next[lane], p[lane], p_next[lane]);
            for (sum, term) in sums.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    for i in n - n % NARROW..n {
        let terms = term(x[i], x[i + 1], p[i], p[i + 1]);
        for (sum, term) in sums.iter_mut().zip(terms) {
            sum[0] += term;
        }
    }
    let [squares, rests, slopes, seeds] = sums.map(|lanes| lanes.iter().sum::<f64>());
    (100.0 * squares + rests, 200.0 * slopes - 2.0 * seeds)
}

/// T2: the value and J·p.
pub fn rosenbrock_jvp(x: &[f64], p: &[f64]) -> (f64, f64) {
    let (mut sum, mut tangent) = (0.0, 0.0);
    for (x, p) in x.windows(2).zip(p.windows(2)) {
        let (a, b) = (x[1] - x[0] * x[0], 1.0 - x[0]);
        sum += 100.0 * a * a + b * b;
        tangent += 200.0 * a * (p[1] - 2.0 * x[0] * p[0]) - 2.0 * b * p[0];
    }
    (sum, tangent)
}

/// T2: the value and the gradient in vector instructions, each entry gathered from its neighbours.
pub fn rosenbrock_gradient_vectorised(x: &[f64], gradient: &mut [f64]) -> f64 {
    let last = x.len() - 1;
    let entry = |before: f64, x: f64, next: f64| {
        let (a, b) = (next - x * x, 1.0 - x);
        (200.0 * ((x - before * before) - (x + x) * a) - (b + b), a, b)
    };
    let (mut squares, mut rests) = ([0.0; NARROW], [0.0; NARROW]);
    let inner = last - 1 - (last - 1) % NARROW;
    let points = x.as_chunks::<NARROW>().0.iter().zip(x[1..].as_chunks::<NARROW>().0);
    let points = points.zip(x[2..].as_chunks::<NARROW>().0);
    for (((before, x), next), g) in points.zip(gradient[1..=inner].as_chunks_mut::<NARROW>().0) {
        for lane in 0..NARROW {
            let (slope, a, b) = entry(before[lane], x[lane], next[lane]);
            g[lane] = slope;
            squares[lane] += a * a;
            rests[lane] += b * b;
        }
    }
    for i in inner + 1..last {
        let (slope, a, b) = entry(x[i - 1], x[i], x[i + 1]);
        gradient[i] = slope;
        squares[0] += a * a;
        rests[0] += b * b;
    }
    let (a, b) = (x[1] - x[0] * x[0], 1.0 - x[0]);
    gradient[0] = -400.0 * x[0] * a - 2.0 * b;
    gradient[last] = 200.0 * (x[last] - x[last - 1] * x[last - 1]);
    100.0 * (squares.iter().sum::<f64>() + a * a) + rests.iter().sum::<f64>() + b * b
}

/// T2: the value and the gradient in one loop that scatters.
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

/// T3: the loss summed over the samples `idx` of `data`, and its gradient.
pub fn logistic_gradient(weights: &[f64], data: &[f64], idx: &[usize], gradient: &mut [f64]) -> f64 {
    const WIDTH: usize = FEATURES + 1;
    gradient.fill(0.0);
    let (w, bias) = (&weights[..FEATURES], weights[FEATURES]);
    let (gradient, gradient_of_bias) = gradient.split_at_mut(FEATURES);
    let mut sum = 0.0;
    for &i in idx {
        let sample = &data[i * WIDTH..(i + 1) * WIDTH];
        let (x, y) = (&sample[..FEATURES], sample[FEATURES]);
        let z = -y * (dot(w, x) + bias);
        // One exponential serves the loss and its derivative, and never overflows.
        let small = (-z.abs()).exp();
        sum += z.max(0.0) + small.ln_1p();
        let sigmoid = if z >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) };
        add_scaled(gradient, -y * sigmoid, x);
        gradient_of_bias[0] -= y * sigmoid;
    }
    sum
}

/// T4: the squared error of the network summed over the samples `idx` of `data`,
/// and its gradient.
pub fn network_gradient(weights: &[f64], data: &[f64], idx: &[usize], gradient: &mut [f64]) -> f64 {
    const IN: usize = NETWORK_INPUTS;
    const WIDTH: usize = IN + 1;
    debug_assert_eq!(weights.len(), NETWORK_WEIGHTS);
    gradient.fill(0.0);
    let (w1, rest) = weights.split_at(HIDDEN * IN);
    let (b1, rest) = rest.split_at(HIDDEN);
    let (w2, rest) = rest.split_at(HIDDEN * HIDDEN);
    let (b2, rest) = rest.split_at(HIDDEN);
    let (w3, b3) = rest.split_at(HIDDEN);
    let (g1, rest) = gradient.split_at_mut(HIDDEN * IN);
    let (gb1, rest) = rest.split_at_mut(HIDDEN);
    let (g2, rest) = rest.split_at_mut(HIDDEN * HIDDEN);
    let (gb2, rest) = rest.split_at_mut(HIDDEN);
    let (g3, gb3) = rest.split_at_mut(HIDDEN);

    let mut sum = 0.0;
    for &i in idx {
        let sample = &data[i * WIDTH..(i + 1) * WIDTH];
        let x = &sample[..IN];
        let (mut first, mut second) = ([0.0; HIDDEN], [0.0; HIDDEN]);
        for ((h, w), b) in first.iter_mut().zip(w1.chunks_exact(IN)).zip(b1) {
            *h = (dot(w, x) + b).tanh();
        }
        for ((h, w), b) in second.iter_mut().zip(w2.chunks_exact(HIDDEN)).zip(b2) {
            *h = (dot(w, &first) + b).tanh();
        }
        let error = dot(w3, &second) + b3[0] - sample[IN];
        sum += error * error;

        let out = 2.0 * error;
        gb3[0] += out;
        add_scaled(g3, out, &second);
        let (mut bar2, mut bar1) = ([0.0; HIDDEN], [0.0; HIDDEN]);
        for j in 0..HIDDEN {
            bar2[j] = out * w3[j] * (1.0 - second[j] * second[j]);
            gb2[j] += bar2[j];
        }
        for ((g, w), &bar) in g2.chunks_exact_mut(HIDDEN).zip(w2.chunks_exact(HIDDEN)).zip(&bar2) {
            add_scaled(g, bar, &first);
            add_scaled(&mut bar1, bar, w);
        }
        for j in 0..HIDDEN {
            bar1[j] *= 1.0 - first[j] * first[j];
            gb1[j] += bar1[j];
        }
        for (g, &bar) in g1.chunks_exact_mut(IN).zip(&bar1) {
            add_scaled(g, bar, x);
        }
    }
    sum
}

/// T5: the end of the orbit.
pub fn lotka_volterra_value(inputs: &[f64; 6]) -> [f64; 2] {
    let [a, b, c, d, mut x, mut y] = *inputs;
    let field = |x: f64, y: f64| {
        let xy = x * y;
        (a * x - b * xy, d * xy - c * y)
    };
    for _ in 0..STEPS {
        let (x1, y1) = field(x, y);
        let (x2, y2) = field(x + x1 * (STEP / 2.0), y + y1 * (STEP / 2.0));
        let (x3, y3) = field(x + x2 * (STEP / 2.0), y + y2 * (STEP / 2.0));
        let (x4, y4) = field(x + x3 * STEP, y + y3 * STEP);
        x += (x1 + 2.0 * (x2 + x3) + x4) * (STEP / 6.0);
        y += (y1 + 2.0 * (y2 + y3) + y4) * (STEP / 6.0);
    }
    [x, y]
}

/// The orbit of T5 with its derivatives in K directions: `seeds` holds those of
/// the six inputs, the result those of x and y.
fn lotka_volterra_tangents<const K: usize>(inputs: &[f64; 6], seeds: &[[f64; K]; 6]) -> ([f64; 2], [[f64; K]; 2]) {
    let [a, b, c, d, mut x, mut y] = *inputs;
    let [da, db, dc, dd, mut dx, mut dy] = *seeds;
    let field = |x: f64, y: f64, dx: &[f64; K], dy: &[f64; K]| {
        let xy = x * y;
        let (x_by_x, x_by_y, y_by_x, y_by_y) = (a - b * y, -b * x, d * y, d * x - c);
        let (mut dfx, mut dfy) = ([0.0; K], [0.0; K]);
        for i in 0..K {
            dfx[i] = x_by_x * dx[i] + x_by_y * dy[i] + (x * da[i] - xy * db[i]);
            dfy[i] = y_by_x * dx[i] + y_by_y * dy[i] + (xy * dd[i] - y * dc[i]);
        }
        (a * x - b * xy, d * xy - c * y, dfx, dfy)
    };
    let step = |x: &[f64; K], by: f64, dx: &[f64; K]| {
        let mut there = *x;
        for i in 0..K {
            there[i] += by * dx[i];
        }
        there
    };
    for _ in 0..STEPS {
        let half = STEP / 2.0;
        let (x1, y1, dx1, dy1) = field(x, y, &dx, &dy);
        let (x2, y2, dx2, dy2) = field(x + x1 * half, y + y1 * half, &step(&dx, half, &dx1), &step(&dy, half, &dy1));
        let (x3, y3, dx3, dy3) = field(x + x2 * half, y + y2 * half, &step(&dx, half, &dx2), &step(&dy, half, &dy2));
        let (x4, y4, dx4, dy4) = field(x + x3 * STEP, y + y3 * STEP, &step(&dx, STEP, &dx3), &step(&dy, STEP, &dy3));
        x += (x1 + 2.0 * (x2 + x3) + x4) * (STEP / 6.0);
        y += (y1 + 2.0 * (y2 + y3) + y4) * (STEP / 6.0);
        for i in 0..K {
            dx[i] += (dx1[i] + 2.0 * (dx2[i] + dx3[i]) + dx4[i]) * (STEP / 6.0);
            dy[i] += (dy1[i] + 2.0 * (dy2[i] + dy3[i]) + dy4[i]) * (STEP / 6.0);
        }
    }
    ([x, y], [dx, dy])
}

/// T5: the end of the orbit and J·p.
pub fn lotka_volterra_jvp(inputs: &[f64; 6], p: &[f64; 6]) -> ([f64; 2], [f64; 2]) {
    let (values, tangents) = lotka_volterra_tangents(inputs, &p.map(|p| [p]));
    (values, tangents.map(|[tangent]| tangent))
}

/// T5: the end of the orbit and the 2 × 6 Jacobian, all six directions in the
/// same loop. What a seed that is a unit vector saves is saved: the parameters
/// enter as sources, not as products with zeros.
pub fn lotka_volterra_jacobian(inputs: &[f64; 6]) -> ([f64; 2], [[f64; 6]; 2]) {
    let [a, b, c, d, mut x, mut y] = *inputs;
    let (mut dx, mut dy) = ([0.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let field = |x: f64, y: f64, dx: &[f64; 6], dy: &[f64; 6]| {
        let xy = x * y;
        let (x_by_x, x_by_y, y_by_x, y_by_y) = (a - b * y, -b * x, d * y, d * x - c);
        let (mut dfx, mut dfy) = ([0.0; 6], [0.0; 6]);
        for i in 0..6 {
            dfx[i] = x_by_x * dx[i] + x_by_y * dy[i];
            dfy[i] = y_by_x * dx[i] + y_by_y * dy[i];
        }
        dfx[0] += x;
        dfx[1] -= xy;
        dfy[2] -= y;
        dfy[3] += xy;
        (a * x - b * xy, d * xy - c * y, dfx, dfy)
    };
    let step = |x: &[f64; 6], by: f64, dx: &[f64; 6]| {
        let mut there = *x;
        for i in 0..6 {
            there[i] += by * dx[i];
        }
        there
    };
    for _ in 0..STEPS {
        let half = STEP / 2.0;
        let (x1, y1, dx1, dy1) = field(x, y, &dx, &dy);
        let (x2, y2, dx2, dy2) = field(x + x1 * half, y + y1 * half, &step(&dx, half, &dx1), &step(&dy, half, &dy1));
        let (x3, y3, dx3, dy3) = field(x + x2 * half, y + y2 * half, &step(&dx, half, &dx2), &step(&dy, half, &dy2));
        let (x4, y4, dx4, dy4) = field(x + x3 * STEP, y + y3 * STEP, &step(&dx, STEP, &dx3), &step(&dy, STEP, &dy3));
        x += (x1 + 2.0 * (x2 + x3) + x4) * (STEP / 6.0);
        y += (y1 + 2.0 * (y2 + y3) + y4) * (STEP / 6.0);
        for i in 0..6 {
            dx[i] += (dx1[i] + 2.0 * (dx2[i] + dx3[i]) + dx4[i]) * (STEP / 6.0);
            dy[i] += (dy1[i] + 2.0 * (dy2[i] + dy3[i]) + dy4[i]) * (STEP / 6.0);
        }
    }
    ([x, y], [dx, dy])
}

/// The softmax of five numbers, and ln Σ exp.
fn softmax(terms: &[f64; COMPONENTS]) -> (f64, [f64; COMPONENTS]) {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut weights = terms.map(|term| (term - largest).exp());
    let sum: f64 = weights.iter().sum();
    for weight in &mut weights {
        *weight /= sum;
    }
    (sum.ln() + largest, weights)
}

/// T6: the value and the gradient. `constant` is that of
/// [`mixture_constant`](crate::tasks::mixture_constant).
pub fn mixture_gradient(inputs: &[f64], data: &[f64], constant: f64, gradient: &mut [f64]) -> f64 {
    const D: usize = DIMENSION;
    debug_assert_eq!(inputs.len(), MIXTURE);
    gradient.fill(0.0);
    let (alphas, rest) = inputs.split_at(COMPONENTS);
    let (means, factors) = rest.split_at(COMPONENTS * D);
    let (alphas_bar, rest) = gradient.split_at_mut(COMPONENTS);
    let (means_bar, factors_bar) = rest.split_at_mut(COMPONENTS * D);

    let (mut diagonals, mut log_dets) = ([[0.0; D]; COMPONENTS], [0.0; COMPONENTS]);
    for (k, factor) in factors.chunks_exact(FACTOR).enumerate() {
        for i in 0..D {
            diagonals[k][i] = factor[i].exp();
            log_dets[k] += factor[i];
        }
    }
    // The diagonal as it stands in the products: its exponentials are
    // differentiated once, at the end.
    let mut diagonals_bar = [[0.0; D]; COMPONENTS];
    let mut weight_sums = [0.0; COMPONENTS];

    let mut sum = constant;
    for point in data.chunks_exact(D) {
        let (mut centred, mut scaled, mut terms) = ([[0.0; D]; COMPONENTS], [[0.0; D]; COMPONENTS], [0.0; COMPONENTS]);
        for k in 0..COMPONENTS {
            let (centred, scaled) = (&mut centred[k], &mut scaled[k]);
            for i in 0..D {
                centred[i] = point[i] - means[k * D + i];
                scaled[i] = diagonals[k][i] * centred[i];
            }
            let mut below = &factors[k * FACTOR + D..(k + 1) * FACTOR];
            for i in 0..D {
                let (column, rest) = below.split_at(D - 1 - i);
                add_scaled(&mut scaled[i + 1..], centred[i], column);
                below = rest;
            }
            terms[k] = alphas[k] + log_dets[k] - 0.5 * dot(scaled, scaled);
        }
        let (value, weights) = softmax(&terms);
        sum += value;
        for k in 0..COMPONENTS {
            let weight = weights[k];
            weight_sums[k] += weight;
            let (centred, scaled) = (&centred[k], scaled[k].map(|s| -weight * s));
            let below = &factors[k * FACTOR + D..(k + 1) * FACTOR];
            let below_bar = &mut factors_bar[k * FACTOR + D..(k + 1) * FACTOR];
            let mut start = 0;
            for i in 0..D {
                let column = start..start + D - 1 - i;
                let mut bar = scaled[i] * diagonals[k][i];
                diagonals_bar[k][i] += scaled[i] * centred[i];
                for ((l, l_bar), s) in
                    below[column.clone()].iter().zip(&mut below_bar[column.clone()]).zip(&scaled[i + 1..])
                {
                    *l_bar += s * centred[i];
                    bar += s * l;
                }
                means_bar[k * D + i] -= bar;
                start = column.end;
            }
        }
    }

    let alphas: [f64; COMPONENTS] = std::array::from_fn(|k| alphas[k]);
    let (value, shares) = softmax(&alphas);
    sum -= POINTS as f64 * value;
    for k in 0..COMPONENTS {
        alphas_bar[k] = weight_sums[k] - POINTS as f64 * shares[k];
        let (diagonal_bar, below_bar) = factors_bar[k * FACTOR..(k + 1) * FACTOR].split_at_mut(D);
        let below = &factors[k * FACTOR + D..(k + 1) * FACTOR];
        let frobenius = dot(&diagonals[k], &diagonals[k]) + dot(below, below);
        sum += 0.5 * GAMMA * GAMMA * frobenius - DEGREES * log_dets[k];
        add_scaled(below_bar, GAMMA * GAMMA, below);
        for i in 0..D {
            let q = diagonals[k][i];
            diagonal_bar[i] = q * (diagonals_bar[k][i] + GAMMA * GAMMA * q) + weight_sums[k] - DEGREES;
        }
    }
    sum
}

/// T7: the residual and its 2 × 15 Jacobian, row-major.
pub fn reprojection_jacobian(inputs: &[f64], feature: &[f64], jacobian: &mut [f64]) -> [f64; 2] {
    let r = [inputs[0], inputs[1], inputs[2]];
    let x = [inputs[11] - inputs[3], inputs[12] - inputs[4], inputs[13] - inputs[5]];
    let (focal, k1, k2, weight) = (inputs[6], inputs[9], inputs[10], inputs[14]);

    let theta = (r[0] * r[0] + r[1] * r[1] + r[2] * r[2]).sqrt();
    let (sin, cos) = theta.sin_cos();
    let inverse = 1.0 / theta;
    let axis = r.map(|r| r * inverse);
    let cross = [axis[1] * x[2] - axis[2] * x[1], axis[2] * x[0] - axis[0] * x[2], axis[0] * x[1] - axis[1] * x[0]];
    let inner = axis[0] * x[0] + axis[1] * x[1] + axis[2] * x[2];
    let versine = 1.0 - cos;
    let mut seen = [0.0; 3];
    for i in 0..3 {
        seen[i] = x[i] * cos + cross[i] * sin + axis[i] * (inner * versine);
    }
    // The rotation matrix: ∂seen/∂x.
    let by_x = [
        [
            cos + versine * axis[0] * axis[0],
            versine * axis[0] * axis[1] - sin * axis[2],
            versine * axis[0] * axis[2] + sin * axis[1],
        ],
        [
            versine * axis[1] * axis[0] + sin * axis[2],
            cos + versine * axis[1] * axis[1],
            versine * axis[1] * axis[2] - sin * axis[0],
        ],
        [
            versine * axis[2] * axis[0] - sin * axis[1],
            versine * axis[2] * axis[1] + sin * axis[0],
            cos + versine * axis[2] * axis[2],
        ],
    ];

    let depth = 1.0 / seen[2];
    let (u, v) = (seen[0] * depth, seen[1] * depth);
    let radius = u * u + v * v;
    let distortion = 1.0 + k1 * radius + k2 * radius * radius;
    let slope = 2.0 * (k1 + 2.0 * k2 * radius);
    let residual = [u * distortion * focal + inputs[7] - feature[0], v * distortion * focal + inputs[8] - feature[1]];

    let scale = weight * focal;
    let by_plane = [
        [scale * (distortion + u * u * slope), scale * u * v * slope],
        [scale * u * v * slope, scale * (distortion + v * v * slope)],
    ];
    let plane = [u, v];
    for (row, jacobian) in jacobian.chunks_exact_mut(CAMERA).enumerate() {
        let [by_u, by_v] = by_plane[row];
        let by_seen = [by_u * depth, by_v * depth, -(by_u * u + by_v * v) * depth];

        // The adjoint of the rotation: of the axis, then of the vector it comes from.
        let along = by_seen[0] * axis[0] + by_seen[1] * axis[1] + by_seen[2] * axis[2];
        let by_theta = (0..3).map(|i| by_seen[i] * (cos * cross[i] - sin * x[i] + sin * inner * axis[i])).sum::<f64>();
        let x_cross_bar = [
            x[1] * by_seen[2] - x[2] * by_seen[1],
            x[2] * by_seen[0] - x[0] * by_seen[2],
            x[0] * by_seen[1] - x[1] * by_seen[0],
        ];
        let mut by_axis = [0.0; 3];
        for i in 0..3 {
            by_axis[i] = sin * x_cross_bar[i] + versine * (inner * by_seen[i] + along * x[i]);
        }
        let radial = by_axis[0] * axis[0] + by_axis[1] * axis[1] + by_axis[2] * axis[2];
        for i in 0..3 {
            jacobian[i] = (by_axis[i] - radial * axis[i]) * inverse + by_theta * axis[i];
            let by_point = by_seen[0] * by_x[0][i] + by_seen[1] * by_x[1][i] + by_seen[2] * by_x[2][i];
            jacobian[3 + i] = -by_point;
            jacobian[11 + i] = by_point;
        }
        jacobian[6] = weight * plane[row] * distortion;
        jacobian[7] = 0.0;
        jacobian[8] = 0.0;
        jacobian[7 + row] = weight;
        jacobian[9] = scale * plane[row] * radius;
        jacobian[10] = scale * plane[row] * radius * radius;
        jacobian[14] = residual[row];
    }
    residual.map(|residual| weight * residual)
}

/// T8: the matrix after elimination, the factors in place of the zeros, and the
/// determinant.
fn eliminate(matrix: &[f64]) -> ([[f64; ORDER]; ORDER], f64) {
    let mut a = [[0.0; ORDER]; ORDER];
    for (row, matrix) in a.iter_mut().zip(matrix.chunks_exact(ORDER)) {
        row.copy_from_slice(matrix);
    }
    for k in 0..ORDER {
        let (above, below) = a.split_at_mut(k + 1);
        let pivot = &above[k];
        let inverse = 1.0 / pivot[k];
        for row in below {
            let factor = row[k] * inverse;
            row[k] = factor;
            for j in k + 1..ORDER {
                row[j] -= factor * pivot[j];
            }
        }
    }
    let det = (0..ORDER).fold(1.0, |det, k| det * a[k][k]);
    (a, det)
}

/// T8: the determinant.
pub fn determinant_value(matrix: &[f64]) -> f64 {
    eliminate(matrix).1
}

/// T8: the determinant and its gradient: the elimination in reverse.
pub fn determinant_gradient(matrix: &[f64], gradient: &mut [f64]) -> f64 {
    let (a, det) = eliminate(matrix);
    let mut bar = [[0.0; ORDER]; ORDER];
    for k in (0..ORDER).rev() {
        let inverse = 1.0 / a[k][k];
        let (above, below) = bar.split_at_mut(k + 1);
        let pivot_bar = &mut above[k];
        let mut diagonal = det * inverse;
        for (row, row_bar) in a[k + 1..].iter().zip(below) {
            let factor = row[k];
            let mut factor_bar = 0.0;
            for j in k + 1..ORDER {
                factor_bar -= row_bar[j] * a[k][j];
                pivot_bar[j] -= factor * row_bar[j];
            }
            row_bar[k] = factor_bar * inverse;
            diagonal -= factor_bar * factor * inverse;
        }
        pivot_bar[k] = diagonal;
    }
    for (gradient, bar) in gradient.chunks_exact_mut(ORDER).zip(&bar) {
        gradient.copy_from_slice(bar);
    }
    det
}
