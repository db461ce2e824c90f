//! Other Rust crates on the same tasks: `echidna` records a tape and replays it,
//! `num-dual` computes with dual numbers, `easy-ml` records at every call.

use std::fmt::Debug;
use std::hint::black_box;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use ad_core::ops::Operation;
use ad_core::{Answer, Question, Rule};
use easy_ml::differentiation::{Record, WengertList};
use easy_ml::numeric::extra::{Cos, Exp, Ln, Sin, Sqrt};
use echidna::{BReverse, BytecodeTape};
use num_dual::{Dual64, DualNum, DualSVec64};
use num_traits::Float;

use crate::cases::{Case, Kind, Minibatches};
use crate::tasks::{self, MINIBATCH, SAMPLES};

/// What the tasks ask of another crate's number type.
pub trait Number:
    Copy
    + Debug
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
    + Mul<f64, Output = Self>
    + Div<f64, Output = Self>
{
    /// The constant c.
    fn constant(c: f64) -> Self;
    /// sin(x).
    fn sine(self) -> Self;
    /// cos(x).
    fn cosine(self) -> Self;
    /// exp(x).
    fn exponential(self) -> Self;
    /// ln(x).
    fn logarithm(self) -> Self;
    /// √x.
    fn root(self) -> Self;
    /// tanh(x).
    fn hyperbolic(self) -> Self;
    /// The larger one.
    fn larger(self, other: Self) -> Self;
    /// ln(1 + exp(x)).
    fn soft_plus(self) -> Self {
        (self.exponential() + 1.0).logarithm()
    }
}

/// Another crate's number in the tasks, which are written over [`Rule`].
#[derive(Debug, Clone, Copy)]
pub struct Peer<T>(pub T);

impl<T: Number> From<f64> for Peer<T> {
    #[inline]
    fn from(c: f64) -> Self {
        Peer(T::constant(c))
    }
}

macro_rules! operators {
    ($($Op:ident $op:ident)*) => { $(
        impl<T: Number> $Op for Peer<T> {
            type Output = Self;
            #[inline]
            fn $op(self, y: Self) -> Self {
                Peer(self.0.$op(y.0))
            }
        }
        impl<T: Number> $Op<f64> for Peer<T> {
            type Output = Self;
            #[inline]
            fn $op(self, y: f64) -> Self {
                Peer(self.0.$op(y))
            }
        }
    )* };
}
operators! { Add add Sub sub Mul mul Div div }

impl<T: Number> Rem for Peer<T> {
    type Output = Self;
    fn rem(self, _: Self) -> Self {
        panic!("no task takes a remainder")
    }
}

impl<T: Number> Rem<f64> for Peer<T> {
    type Output = Self;
    fn rem(self, _: f64) -> Self {
        panic!("no task takes a remainder")
    }
}

impl<T: Number> Neg for Peer<T> {
    type Output = Self;
    #[inline]
    fn neg(self) -> Self {
        Peer(-self.0)
    }
}

impl<T: Number> Rule for Peer<T> {
    fn apply<O: Operation<N, M>, const N: usize, const M: usize>(_: [Self; N]) -> [Self; M] {
        panic!("no task uses {:?}", O::OP)
    }
    fn confirm(_: Question, _: Answer, _: Self, _: Self) -> Result<(), (Answer, f64, f64)> {
        Ok(())
    }
    #[inline]
    fn sin(self) -> Self {
        Peer(self.0.sine())
    }
    #[inline]
    fn cos(self) -> Self {
        Peer(self.0.cosine())
    }
    #[inline]
    fn exp(self) -> Self {
        Peer(self.0.exponential())
    }
    #[inline]
    fn ln(self) -> Self {
        Peer(self.0.logarithm())
    }
    #[inline]
    fn sqrt(self) -> Self {
        Peer(self.0.root())
    }
    #[inline]
    fn tanh(self) -> Self {
        Peer(self.0.hyperbolic())
    }
    #[inline]
    fn softplus(self) -> Self {
        Peer(self.0.soft_plus())
    }
    #[inline]
    fn max(self, y: impl Into<Self>) -> Self {
        Peer(self.0.larger(y.into().0))
    }
}

impl Number for BReverse<f64> {
    #[inline]
    fn constant(c: f64) -> Self {
        BReverse::constant(c)
    }
    #[inline]
    fn sine(self) -> Self {
        Float::sin(self)
    }
    #[inline]
    fn cosine(self) -> Self {
        Float::cos(self)
    }
    #[inline]
    fn exponential(self) -> Self {
        Float::exp(self)
    }
    #[inline]
    fn logarithm(self) -> Self {
        Float::ln(self)
    }
    #[inline]
    fn root(self) -> Self {
        Float::sqrt(self)
    }
    #[inline]
    fn hyperbolic(self) -> Self {
        Float::tanh(self)
    }
    #[inline]
    fn larger(self, other: Self) -> Self {
        Float::max(self, other)
    }
    #[inline]
    fn soft_plus(self) -> Self {
        Float::ln_1p(Float::exp(self))
    }
}

impl Number for Dual64 {
    #[inline]
    fn constant(c: f64) -> Self {
        Dual64::from(c)
    }
    #[inline]
    fn sine(self) -> Self {
        DualNum::sin(&self)
    }
    #[inline]
    fn cosine(self) -> Self {
        DualNum::cos(&self)
    }
    #[inline]
    fn exponential(self) -> Self {
        DualNum::exp(&self)
    }
    #[inline]
    fn logarithm(self) -> Self {
        DualNum::ln(&self)
    }
    #[inline]
    fn root(self) -> Self {
        DualNum::sqrt(&self)
    }
    #[inline]
    fn hyperbolic(self) -> Self {
        DualNum::tanh(&self)
    }
    #[inline]
    fn larger(self, other: Self) -> Self {
        if self.re >= other.re { self } else { other }
    }
    #[inline]
    fn soft_plus(self) -> Self {
        DualNum::ln_1p(&DualNum::exp(&self))
    }
}

impl<const N: usize> Number for DualSVec64<N> {
    #[inline]
    fn constant(c: f64) -> Self {
        DualSVec64::from(c)
    }
    #[inline]
    fn sine(self) -> Self {
        DualNum::sin(&self)
    }
    #[inline]
    fn cosine(self) -> Self {
        DualNum::cos(&self)
    }
    #[inline]
    fn exponential(self) -> Self {
        DualNum::exp(&self)
    }
    #[inline]
    fn logarithm(self) -> Self {
        DualNum::ln(&self)
    }
    #[inline]
    fn root(self) -> Self {
        DualNum::sqrt(&self)
    }
    #[inline]
    fn hyperbolic(self) -> Self {
        DualNum::tanh(&self)
    }
    #[inline]
    fn larger(self, other: Self) -> Self {
        if self.re >= other.re { self } else { other }
    }
    #[inline]
    fn soft_plus(self) -> Self {
        DualNum::ln_1p(&DualNum::exp(&self))
    }
}

impl Number for Record<'_, f64> {
    #[inline]
    fn constant(c: f64) -> Self {
        Record::constant(c)
    }
    #[inline]
    fn sine(self) -> Self {
        Sin::sin(self)
    }
    #[inline]
    fn cosine(self) -> Self {
        Cos::cos(self)
    }
    #[inline]
    fn exponential(self) -> Self {
        Exp::exp(self)
    }
    #[inline]
    fn logarithm(self) -> Self {
        Ln::ln(self)
    }
    #[inline]
    fn root(self) -> Self {
        Sqrt::sqrt(self)
    }
    #[inline]
    fn hyperbolic(self) -> Self {
        Record::constant(1.0) - Record::constant(2.0) / ((self * 2.0).exp() + 1.0)
    }
    #[inline]
    fn larger(self, other: Self) -> Self {
        if self.number >= other.number { self } else { other }
    }
}

/// The numbers as those of another crate.
fn lift<T: Copy>(x: &[T]) -> Vec<Peer<T>> {
    x.iter().copied().map(Peer).collect()
}

/// `echidna`'s tape of the function of a case: the parameters are further inputs,
/// since it has none.
fn echidna_tape(x: &[f64], f: impl FnOnce(&[Peer<BReverse<f64>>]) -> Vec<Peer<BReverse<f64>>>) -> BytecodeTape<f64> {
    let (mut tape, _) = echidna::record_multi(|x| f(&lift(x)).into_iter().map(|y| y.0).collect(), x);
    tape.optimize();
    tape
}

fn echidna_jvp(case: &mut Case, tape: BytecodeTape<f64>) {
    let (x, p, mut buffer, mut inputs) = (case.x.clone(), case.p.clone(), Vec::new(), Vec::new());
    case.add("echidna", move |out| {
        inputs.clear();
        inputs.extend(black_box(&x).iter().zip(black_box(&p)).map(|(&x, &p)| echidna::Dual::new(x, p)));
        tape.forward_tangent_dual(&inputs, &mut buffer);
        let (y, dy) = out.split_at_mut(tape.num_outputs());
        for ((y, dy), &output) in y.iter_mut().zip(dy).zip(tape.all_output_indices()) {
            *y = buffer[output as usize].re;
            *dy = buffer[output as usize].eps;
        }
        Ok(())
    });
}

fn echidna_gradient(case: &mut Case, mut tape: BytecodeTape<f64>) {
    let (x, mut buffer) = (case.x.clone(), Vec::new());
    case.add("echidna", move |out| {
        let gradient = tape.gradient_with_buf(black_box(&x), &mut buffer);
        out[0] = tape.output_value();
        out[1..].copy_from_slice(&gradient);
        Ok(())
    });
}

fn echidna_minibatch(case: &mut Case, mut tape: BytecodeTape<f64>, data: Vec<f64>) {
    let (x, n, mut batches, mut buffer) = (case.x.clone(), case.x.len(), Minibatches::default(), Vec::new());
    let width = data.len() / SAMPLES;
    let mut inputs = vec![0.0; n + width];
    case.add("echidna", move |out| {
        out.fill(0.0);
        inputs[..n].copy_from_slice(black_box(&x));
        let start = batches.next_start() * width;
        for sample in data[start..start + MINIBATCH * width].chunks_exact(width) {
            inputs[n..].copy_from_slice(sample);
            let gradient = tape.gradient_with_buf(&inputs, &mut buffer);
            out[0] += tape.output_value();
            for (sum, term) in out[1..].iter_mut().zip(&gradient) {
                *sum += term;
            }
        }
        Ok(())
    });
}

/// `echidna`'s Jacobians, forward in six directions, at each of the points.
fn echidna_orbits(case: &mut Case, tape: BytecodeTape<f64>) {
    let (points, mut buffer) = (case.x.clone(), Vec::new());
    case.add("echidna", move |out| {
        for (point, out) in black_box(&points).chunks_exact(6).zip(out.chunks_exact_mut(12)) {
            let inputs: [echidna::DualVec<f64, 6>; 6] =
                std::array::from_fn(|i| echidna::DualVec::with_tangent(point[i], i));
            tape.forward_tangent(&inputs, &mut buffer);
            for (row, &output) in out.chunks_exact_mut(6).zip(tape.all_output_indices()) {
                row.copy_from_slice(&buffer[output as usize].eps);
            }
        }
        Ok(())
    });
}

fn echidna_points(case: &mut Case, mut tape: BytecodeTape<f64>, n: usize) {
    let (points, width, m) = (case.x.clone(), tape.num_inputs(), tape.num_outputs());
    case.add("echidna", move |out| {
        for (point, out) in black_box(&points).chunks_exact(width).zip(out.chunks_exact_mut(m * n)) {
            for (row, jacobian) in out.chunks_exact_mut(n).zip(tape.jacobian(point)) {
                row.copy_from_slice(&jacobian[..n]);
            }
        }
        Ok(())
    });
}

fn num_dual_jvp<const M: usize>(case: &mut Case, f: impl Fn(&[Peer<Dual64>]) -> [Peer<Dual64>; M] + 'static) {
    let (x, p, mut inputs) = (case.x.clone(), case.p.clone(), Vec::new());
    case.add("num-dual", move |out| {
        inputs.clear();
        inputs.extend(black_box(&x).iter().zip(black_box(&p)).map(|(&x, &p)| Peer(Dual64::new(x, p))));
        for (i, y) in f(&inputs).iter().enumerate() {
            out[i] = y.0.re;
            out[M + i] = y.0.eps;
        }
        Ok(())
    });
}

/// `num-dual`'s Jacobian of `f` at the first n numbers of `point`, K directions at a time.
fn num_dual_jacobian<const K: usize, const M: usize>(
    f: &impl Fn(&[Peer<DualSVec64<K>>]) -> [Peer<DualSVec64<K>>; M],
    point: &[f64],
    n: usize,
    inputs: &mut Vec<Peer<DualSVec64<K>>>,
    values: &mut [f64; M],
    jacobian: &mut [f64],
) {
    for first in (0..n).step_by(K) {
        let seeded = first..n.min(first + K);
        inputs.clear();
        inputs.extend(point.iter().enumerate().map(|(i, &x)| {
            let x = DualSVec64::<K>::from(x);
            Peer(if seeded.contains(&i) { x.derivative(i - first) } else { x })
        }));
        for (row, y) in f(inputs).iter().enumerate() {
            values[row] = y.0.re;
            for i in seeded.clone() {
                jacobian[row * n + i] = y.0.eps.0.map_or(0.0, |eps| eps[i - first]);
            }
        }
    }
}

fn num_dual_points<const K: usize, const M: usize>(
    case: &mut Case,
    f: impl Fn(&[Peer<DualSVec64<K>>]) -> [Peer<DualSVec64<K>>; M] + 'static,
) {
    let (n, width, points) = (case.tape.num_inputs(), case.tape.num_inputs() + case.tape.num_params(), case.x.clone());
    let (mut inputs, mut values) = (Vec::new(), [0.0; M]);
    case.add("num-dual", move |out| {
        for (point, out) in black_box(&points).chunks_exact(width).zip(out.chunks_exact_mut(M * n)) {
            num_dual_jacobian(&f, point, n, &mut inputs, &mut values, out);
        }
        Ok(())
    });
}

fn num_dual_gradient<const K: usize>(
    case: &mut Case,
    f: impl Fn(&[Peer<DualSVec64<K>>]) -> Peer<DualSVec64<K>> + 'static,
) {
    let (n, x, mut inputs) = (case.x.len(), case.x.clone(), Vec::new());
    case.add("num-dual", move |out| {
        let (value, gradient) = out.split_at_mut(1);
        let mut values = [0.0];
        num_dual_jacobian(&|x: &[_]| [f(x)], black_box(&x), n, &mut inputs, &mut values, gradient);
        value[0] = values[0];
        Ok(())
    });
}

fn num_dual_logistic(case: &mut Case, data: Vec<f64>) {
    // All directions in one sweep: a constant of this crate carries none, so a
    // product with one is cheap.
    const K: usize = tasks::FEATURES + 1;
    let (x, n, mut batches) = (case.x.clone(), case.x.len(), Minibatches::default());
    let width = data.len() / SAMPLES;
    let (mut point, mut inputs, mut term) = (vec![0.0; n + width], Vec::new(), vec![0.0; n]);
    case.add("num-dual", move |out| {
        out.fill(0.0);
        point[..n].copy_from_slice(black_box(&x));
        let start = batches.next_start() * width;
        let f = |x: &[Peer<DualSVec64<K>>]| [tasks::logistic_loss(&x[..n], &x[n..])];
        for sample in data[start..start + MINIBATCH * width].chunks_exact(width) {
            point[n..].copy_from_slice(sample);
            let mut values = [0.0];
            num_dual_jacobian(&f, &point, n, &mut inputs, &mut values, &mut term);
            out[0] += values[0];
            for (sum, term) in out[1..].iter_mut().zip(&term) {
                *sum += term;
            }
        }
        Ok(())
    });
}

type Recorded<'a> = Peer<Record<'a, f64>>;

/// A function for `easy-ml`, whose numbers borrow their list.
trait Scalar {
    fn call<'a>(&self, x: &[Recorded<'a>], sample: &[f64]) -> Recorded<'a>;
}

macro_rules! scalars {
    ($($Name:ident($x:ident, $sample:ident, $data:ident) => $value:expr;)*) => { $(
        struct $Name(Vec<f64>);
        impl Scalar for $Name {
            fn call<'a>(&self, $x: &[Recorded<'a>], $sample: &[f64]) -> Recorded<'a> {
                let $data = &self.0;
                $value
            }
        }
    )* };
}
scalars! {
    Rosenbrock(x, _sample, _data) => tasks::rosenbrock(x);
    Determinant(x, _sample, _data) => tasks::determinant(x);
    Mixture(x, _sample, data) => tasks::mixture(x, data);
    Logistic(x, sample, _data) => tasks::logistic_loss(x, &constants(sample));
    Network(x, sample, _data) => tasks::network_loss(x, &constants(sample));
}

fn constants<'a>(sample: &[f64]) -> Vec<Recorded<'a>> {
    sample.iter().map(|&k| Peer(Record::constant(k))).collect()
}

/// Records f(x; sample) and adds its value and gradient to `out`.
fn easy_ml_add(f: &impl Scalar, x: &[f64], sample: &[f64], list: &WengertList<f64>, out: &mut [f64]) {
    list.clear();
    let inputs: Vec<Recorded<'_>> = x.iter().map(|&x| Peer(Record::variable(x, list))).collect();
    let y = f.call(&inputs, sample);
    let derivatives = y.0.derivatives();
    out[0] += y.0.number;
    for (out, input) in out[1..].iter_mut().zip(&inputs) {
        *out += derivatives[&input.0];
    }
}

fn easy_ml_gradient(case: &mut Case, f: impl Scalar + 'static) {
    let (x, list) = (case.x.clone(), WengertList::new());
    case.add("easy-ml", move |out| {
        out.fill(0.0);
        easy_ml_add(&f, black_box(&x), &[], &list, out);
        Ok(())
    });
}

fn easy_ml_minibatch(case: &mut Case, f: impl Scalar + 'static, data: Vec<f64>) {
    let (x, list, mut batches) = (case.x.clone(), WengertList::new(), Minibatches::default());
    let width = data.len() / SAMPLES;
    case.add("easy-ml", move |out| {
        out.fill(0.0);
        let start = batches.next_start() * width;
        for sample in data[start..start + MINIBATCH * width].chunks_exact(width) {
            easy_ml_add(&f, black_box(&x), sample, &list, out);
        }
        Ok(())
    });
}

/// Adds to a case the crates that can do it sensibly: forward ones where there
/// are few inputs for the outputs, those without a replay where it is a gradient.
pub fn join(case: &mut Case) {
    let x = case.x.clone();
    match (case.task, case.kind) {
        ("T1", Kind::Jvp) => {
            echidna_jvp(case, echidna_tape(&x, |x| vec![tasks::classical(x)]));
            num_dual_jvp(case, |x| [tasks::classical(x)]);
        }
        ("T2", Kind::Jvp) => {
            echidna_jvp(case, echidna_tape(&x, |x| vec![tasks::rosenbrock(x)]));
            num_dual_jvp(case, |x| [tasks::rosenbrock(x)]);
        }
        ("T2", Kind::Gradient) => {
            echidna_gradient(case, echidna_tape(&x, |x| vec![tasks::rosenbrock(x)]));
            easy_ml_gradient(case, Rosenbrock(Vec::new()));
        }
        ("T3", Kind::SumGradient) => {
            let data = tasks::logistic_samples(SAMPLES);
            let (n, at) = (x.len(), [&x, &data[..tasks::FEATURES + 1]].concat());
            let tape = echidna_tape(&at, |x| vec![tasks::logistic_loss(&x[..n], &x[n..])]);
            echidna_minibatch(case, tape, data.clone());
            num_dual_logistic(case, data.clone());
            easy_ml_minibatch(case, Logistic(Vec::new()), data);
        }
        ("T4", Kind::SumGradient) => {
            let data = tasks::network_samples(SAMPLES);
            let (n, at) = (x.len(), [&x, &data[..tasks::NETWORK_INPUTS + 1]].concat());
            let tape = echidna_tape(&at, |x| vec![tasks::network_loss(&x[..n], &x[n..])]);
            echidna_minibatch(case, tape, data.clone());
            easy_ml_minibatch(case, Network(Vec::new()), data);
        }
        ("T5", Kind::Jvp) => {
            echidna_jvp(case, echidna_tape(&x, |x| tasks::lotka_volterra(x).to_vec()));
            num_dual_jvp(case, tasks::lotka_volterra);
        }
        ("T5", Kind::Jacobian | Kind::Jacobians) => {
            echidna_orbits(case, echidna_tape(&x[..6], |x| tasks::lotka_volterra(x).to_vec()));
            num_dual_points::<6, 2>(case, tasks::lotka_volterra);
        }
        ("T6", Kind::Gradient) => {
            let data = tasks::mixture_data();
            echidna_gradient(case, echidna_tape(&x, |x| vec![tasks::mixture(x, &data)]));
            easy_ml_gradient(case, Mixture(data));
        }
        ("T7", Kind::Jacobians) => {
            const N: usize = tasks::CAMERA;
            let tape = echidna_tape(&x[..N + 2], |x| tasks::reprojection(&x[..N], &x[N..]).to_vec());
            echidna_points(case, tape, N);
            num_dual_points::<N, 2>(case, |x| tasks::reprojection(&x[..N], &x[N..]));
        }
        ("T8", Kind::Gradient) => {
            echidna_gradient(case, echidna_tape(&x, |x| vec![tasks::determinant(x)]));
            num_dual_gradient::<48>(case, tasks::determinant);
            easy_ml_gradient(case, Determinant(Vec::new()));
        }
        ("T8", Kind::Gradients) => {
            const N: usize = tasks::ORDER * tasks::ORDER;
            echidna_points(case, echidna_tape(&x[..N], |x| vec![tasks::determinant(x)]), N);
        }
        _ => {}
    }
}
