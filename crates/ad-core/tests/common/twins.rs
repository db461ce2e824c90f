//! A function that calls something, beside the same function written out: every
//! driver must say the same of both.

#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use ad_core::{Dual, Lanes, Matrix, Retape, Samples, Tape, Var};

/// How a recording makes its outputs.
pub type Recorded<'a> = &'a (dyn Fn(&[Var]) -> Vec<Var> + Sync);

pub struct Comparison<'a> {
    pub name: &'a str,
    /// How far the two may be apart, relative to the larger number or 1.
    pub tolerance: f64,
}

impl Comparison<'_> {
    #[track_caller]
    pub fn close(&self, what: &str, a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len(), "{}: {what}", self.name);
        for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
            let same = a == b || a.is_nan() && b.is_nan();
            assert!(
                same || (a - b).abs() <= self.tolerance * a.abs().max(b.abs()).max(1.0),
                "{}: {what}[{i}]: {a} and {b}",
                self.name
            );
        }
    }

    /// Compares all drivers at `x` of what is recorded at `x0`.
    pub fn everywhere(&self, called: Recorded<'_>, flat: Recorded<'_>, x0: &[f64], x: &[f64]) {
        let [called_tape, flat_tape] = [called, flat].map(|f| Tape::record(x0, f).unwrap());
        let m = called_tape.num_outputs();
        let p: Vec<f64> = (0..x.len()).map(|i| 0.5 - 0.3 * i as f64).collect();
        let w: Vec<f64> = (0..m).map(|j| 1.0 - 0.4 * j as f64).collect();
        self.first_order(&called_tape, &flat_tape, x, &p, &w);

        let retape = Retape::new(x0, called).unwrap();
        self.close("Retape", &retape.vjp(x, &w).unwrap().1, &flat_tape.vjp(x, &w).unwrap().1);

        // A weighted sum of the outputs has a Hessian.
        let sum = |y: Vec<Var>| y.iter().zip(&w).map(|(&y, &w)| y * w).sum::<Var>();
        let [called_sum, flat_sum] = [called, flat].map(|f| Tape::record(x0, |x| sum(f(x))).unwrap());
        self.second_order(&called_sum, &flat_sum, x, &p);
        self.third_order(&called_sum, &flat_sum, x, &p);
        self.derivative_tapes(&called_tape, &flat_tape, x, &p, &w);

        let weighted = |f: Recorded<'_>| {
            let tape = Tape::builder().inputs(&[], x0).params(&[], &vec![1.0; m]);
            tape.record(|x, k| f(x).iter().zip(k).map(|(&y, &k)| y * k).sum::<Var>()).unwrap()
        };
        self.samples(&weighted(called), &weighted(flat), x);
    }

    /// Compares the derivatives with difference quotients.
    pub fn self_check(&self, called: Recorded<'_>, x0: &[f64], x: &[f64]) {
        let check = Tape::record(x0, called).unwrap().self_check(x).unwrap();
        assert!(check.passed(), "{}: {check}", self.name);
    }

    /// Compares the sparse drivers with the dense ones.
    pub fn sparse(&self, called: Recorded<'_>, x0: &[f64], x: &[f64]) {
        let tape = Tape::record(x0, called).unwrap();
        let sparse = tape.sparse_jacobian(x).unwrap().to_dense().unwrap();
        self.close("sparse J", sparse.as_slice(), tape.jacobian(x).unwrap().as_slice());
        let sum = Tape::record(x0, |x| called(x).into_iter().sum::<Var>()).unwrap();
        let sparse = sum.sparse_hessian(x).unwrap().to_dense().unwrap();
        self.close("sparse H", sparse.as_slice(), sum.hessian(x).unwrap().as_slice());
    }

    fn first_order(&self, called: &Tape, flat: &Tape, x: &[f64], p: &[f64], w: &[f64]) {
        self.close("values", &called.eval(x).unwrap(), &flat.eval(x).unwrap());
        let dy = flat.jvp(x, p).unwrap().1;
        self.close("J·p", &called.jvp(x, p).unwrap().1, &dy);
        self.close("Jᵀ·w", &called.vjp(x, w).unwrap().1, &flat.vjp(x, w).unwrap().1);
        let jacobian = flat.jacobian(x).unwrap();
        self.close("J", called.jacobian(x).unwrap().as_slice(), jacobian.as_slice());
        let seeds = Matrix::identity(x.len());
        self.close("J·I", called.jvp_many(x, &seeds).unwrap().1.as_slice(), jacobian.as_slice());
        let optimized = called.optimized();
        assert_eq!(optimized.eval(x).unwrap(), called.eval(x).unwrap(), "{}: optimized", self.name);
        self.close("optimized", &optimized.vjp(x, w).unwrap().1, &flat.vjp(x, w).unwrap().1);
        let at = called.at(x).unwrap();
        assert_eq!(at.jvp(p).unwrap(), called.jvp(x, p).unwrap().1, "{}: at", self.name);
        assert_eq!(at.vjp(w).unwrap(), called.vjp(x, w).unwrap().1, "{}: at", self.name);

        let duals: Vec<Dual> = x.iter().zip(p).map(|(&x, &p)| Dual::new(x, p)).collect();
        let tangents: Vec<f64> = called.eval_with(&duals).unwrap().iter().map(|y| y.dv).collect();
        self.close("Dual", &tangents, &dy);
        let lanes: Vec<Lanes<4>> = x.iter().map(|&x| Lanes([x, 1.01 * x, 0.99 * x, x])).collect();
        let [of_called, of_flat] =
            [called, flat].map(|tape| tape.eval_with(&lanes).unwrap().iter().flat_map(|y| y.0).collect::<Vec<_>>());
        self.close("Lanes", &of_called, &of_flat);
        let duals: Vec<Dual<Lanes<4>>> = lanes.iter().zip(p).map(|(&x, &p)| Dual::new(x, Lanes([p; 4]))).collect();
        let [of_called, of_flat] =
            [called, flat].map(|tape| tape.eval_with(&duals).unwrap().iter().flat_map(|y| y.dv.0).collect::<Vec<_>>());
        self.close("Dual<Lanes>", &of_called, &of_flat);
        let duals: Vec<Dual<Dual>> =
            x.iter().zip(p).map(|(&x, &p)| Dual::new(Dual::new(x, p), Dual::new(p, 0.0))).collect();
        let [of_called, of_flat] =
            [called, flat].map(|tape| tape.eval_with(&duals).unwrap().iter().map(|y| y.dv.dv).collect::<Vec<_>>());
        self.close("Dual<Dual>", &of_called, &of_flat);

        let rows: Vec<Vec<f64>> =
            (0..20).map(|i| x.iter().map(|x| x * (1.0 + 0.002 * f64::from(i))).collect()).collect();
        let points = Matrix::from_rows(&rows).unwrap();
        let [of_called, of_flat] = [called, flat].map(|tape| tape.eval_many(&points).unwrap());
        self.close("eval_many", of_called.as_slice(), of_flat.as_slice());
        let [of_called, of_flat] = [called, flat].map(|tape| tape.jacobian_many(&points).unwrap());
        self.close("jacobian_many", of_called.as_slice(), of_flat.as_slice());
    }

    fn second_order(&self, called: &Tape, flat: &Tape, x: &[f64], p: &[f64]) {
        let hessian = flat.hessian(x).unwrap();
        self.close("H", called.hessian(x).unwrap().as_slice(), hessian.as_slice());
        self.close("H·p", &called.hvp(x, p).unwrap(), &flat.hvp(x, p).unwrap());
        let gradient = called.gradient_tape().unwrap();
        self.close("gradient tape", &gradient.eval(x).unwrap(), &flat.gradient(x).unwrap().1);
        self.close("J of the gradient tape", gradient.jacobian(x).unwrap().as_slice(), hessian.as_slice());
    }

    fn third_order(&self, called: &Tape, flat: &Tape, x: &[f64], p: &[f64]) {
        let point = [x, p].concat();
        let [of_called, of_flat] = [called, flat].map(|tape| tape.gradient_tape().unwrap().vjp_tape().unwrap());
        let jacobians = [&of_called, &of_flat].map(|tape| tape.jacobian(&point).unwrap());
        self.close("third order", jacobians[0].as_slice(), jacobians[1].as_slice());
        let [of_called, of_flat] = [called, flat].map(|tape| {
            let jvp = tape.gradient_tape().unwrap().jvp_tape().unwrap();
            let sum = Tape::record(&point, |x| jvp.eval_with(x).unwrap().into_iter().sum::<Var>()).unwrap();
            let third = sum.gradient_tape().unwrap();
            [third.eval(&point).unwrap(), sum.hvp(&point, &vec![1.0; point.len()]).unwrap()].concat()
        });
        self.close("third and fourth order", &of_called, &of_flat);
    }

    fn derivative_tapes(&self, called: &Tape, flat: &Tape, x: &[f64], p: &[f64], w: &[f64]) {
        let of_tapes = [called, flat].map(|tape| (tape.jvp_tape().unwrap(), tape.vjp_tape().unwrap()));
        let point = [x, p].concat();
        let [of_called, of_flat] = of_tapes.each_ref().map(|(jvp, _)| jvp);
        self.close("jvp tape", &of_called.eval(&point).unwrap(), &of_flat.eval(&point).unwrap());
        let jacobians = [of_called, of_flat].map(|tape| tape.jacobian(&point).unwrap());
        self.close("J of the jvp tape", jacobians[0].as_slice(), jacobians[1].as_slice());
        let point = [x, w].concat();
        let [of_called, of_flat] = of_tapes.each_ref().map(|(_, vjp)| vjp);
        self.close("vjp tape", &of_called.eval(&point).unwrap(), &of_flat.eval(&point).unwrap());
        let jacobians = [of_called, of_flat].map(|tape| tape.jacobian(&point).unwrap());
        self.close("J of the vjp tape", jacobians[0].as_slice(), jacobians[1].as_slice());
        let jacobians = [called, flat].map(|tape| tape.jacobian_tape().unwrap().eval(x).unwrap());
        self.close("Jacobian tape", &jacobians[0], &jacobians[1]);
    }

    fn samples(&self, called: &Tape, flat: &Tape, x: &[f64]) {
        let rows: Vec<f64> = (0..150 * called.num_params()).map(|i| 0.1 + (i % 17) as f64).collect();
        let samples = Samples::from_rows(called, &rows).unwrap();
        let idx: Vec<usize> = (0..150).collect();
        let sums = [called, flat].map(|tape| tape.sum_gradient(x, &samples, &idx).unwrap());
        self.close("sum over samples", &[sums[0].0], &[sums[1].0]);
        self.close("gradient over samples", &sums[0].1, &sums[1].1);
        assert_eq!(called.sum_gradient_threads(x, &samples, &idx, 3).unwrap(), sums[0], "{}: threads", self.name);
    }
}
