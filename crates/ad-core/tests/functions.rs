//! Functions that a tape calls as one row: the same numbers as the code written out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ad_core::{Dual, Matrix, Tape, Var, Workspace};

/// A function recorded with calls, and the same written out.
struct Twin {
    name: &'static str,
    called: Tape,
    flat: Tape,
    x: Vec<f64>,
}

fn term(x: &[Var]) -> Var {
    100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).powi(2)
}

fn twins() -> Vec<Twin> {
    let body = Tape::record(&[1.0, 1.0], term).unwrap();
    let points: Vec<f64> = (0..7).map(|i| 0.3 + 0.2 * f64::from(i)).collect();
    let pair = Tape::record(&[0.3, 0.5], |x| [x[0].sin() * x[1], x[1].exp() - x[0]]).unwrap().named("pair");
    let step = Tape::record(&[0.2, 0.4, 0.9], |v| [v[0] + v[2] * v[1], v[1] - v[2] * v[0].sin(), v[0] * v[1]]).unwrap();
    let nested = {
        let pair = pair.clone();
        Tape::record(&[0.1, 0.2], move |x| {
            let y = pair.call(x);
            [y[0] * y[1], y[1].tanh()]
        })
        .unwrap()
    };
    let flat_pair = |a: Var, b: Var| [a.sin() * b, b.exp() - a];
    vec![
        Twin {
            name: "call",
            called: Tape::record(&[0.3, 0.8], |x| pair.call(x)).unwrap(),
            flat: Tape::record(&[0.3, 0.8], |x| flat_pair(x[0], x[1])).unwrap(),
            x: vec![0.7, -0.4],
        },
        Twin {
            name: "call with one variable twice",
            called: Tape::record(&[0.3], |x| {
                let y = pair.call(&[x[0], x[0] * x[0]]);
                pair.call(&[y[0], y[0]])[1] * pair.call(&[x[0], Var::from(2.0)])[0]
            })
            .unwrap(),
            flat: Tape::record(&[0.3], |x| {
                let y = flat_pair(x[0], x[0] * x[0]);
                flat_pair(y[0], y[0])[1] * flat_pair(x[0], Var::from(2.0))[0]
            })
            .unwrap(),
            x: vec![0.7],
        },
        Twin {
            name: "nested",
            called: Tape::record(&[0.3, 0.8], |x| nested.call(&[x[1], x[0]])).unwrap(),
            flat: Tape::record(&[0.3, 0.8], |x| {
                let y = flat_pair(x[1], x[0]);
                [y[0] * y[1], y[1].tanh()]
            })
            .unwrap(),
            x: vec![0.7, -0.4],
        },
        Twin {
            name: "map",
            called: Tape::record(&points, |x| pair.map(x.chunks(2).take(3))).unwrap(),
            flat: Tape::record(&points, |x| {
                x.chunks(2).take(3).flat_map(|x| flat_pair(x[0], x[1])).collect::<Vec<_>>()
            })
            .unwrap(),
            x: points.iter().map(|x| x * 1.1 - 0.3).collect(),
        },
        Twin {
            name: "map with places at unequal distances",
            called: Tape::record(&points, |x| pair.map([[x[0], x[5]], [x[1], x[2]], [x[6], x[0]], [x[3], x[3]]]))
                .unwrap(),
            flat: Tape::record(&points, |x| {
                [[x[0], x[5]], [x[1], x[2]], [x[6], x[0]], [x[3], x[3]]].map(|[a, b]| flat_pair(a, b)).concat()
            })
            .unwrap(),
            x: points.iter().map(|x| x * 1.1 - 0.3).collect(),
        },
        Twin {
            name: "map_sum",
            called: Tape::record(&points, |x| body.map_sum(x.windows(2))).unwrap(),
            flat: Tape::record(&points, |x| {
                let mut sum = term(&x[..2]);
                for window in x.windows(2).skip(1) {
                    sum += term(window);
                }
                sum
            })
            .unwrap(),
            x: points.iter().map(|x| x * 1.1 - 0.3).collect(),
        },
        Twin {
            name: "scan",
            called: Tape::record(&[0.2, 0.4, 0.9], |x| {
                let (carry, outs) = step.scan(&x[..2], std::iter::repeat_n(&x[2..], 5));
                carry.into_iter().chain(outs).collect::<Vec<_>>()
            })
            .unwrap(),
            flat: Tape::record(&[0.2, 0.4, 0.9], |x| {
                let (mut a, mut b, mut outs) = (x[0], x[1], Vec::new());
                for _ in 0..5 {
                    let out = a * b;
                    (a, b) = (a + x[2] * b, b - x[2] * a.sin());
                    outs.push(out);
                }
                [a, b].into_iter().chain(outs).collect::<Vec<_>>()
            })
            .unwrap(),
            x: vec![0.3, -0.2, 0.4],
        },
    ]
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1.0)
}

fn assert_close(name: &str, what: &str, a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "{name}: {what}");
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        assert!(close(a, b), "{name}: {what}[{i}]: {a} and {b}");
    }
}

#[test]
fn calls_agree_with_the_code_written_out() {
    for Twin { name, called, flat, x } in twins() {
        assert_eq!(called.eval(&x).unwrap(), flat.eval(&x).unwrap(), "{name}: values");
        let p: Vec<f64> = (0..x.len()).map(|i| 0.5 - 0.3 * i as f64).collect();
        let w: Vec<f64> = (0..called.num_outputs()).map(|j| 1.0 - 0.4 * j as f64).collect();
        assert_close(name, "J·p", &called.jvp(&x, &p).unwrap().1, &flat.jvp(&x, &p).unwrap().1);
        assert_close(name, "Jᵀ·w", &called.vjp(&x, &w).unwrap().1, &flat.vjp(&x, &w).unwrap().1);
        let jacobians = [&called, &flat].map(|tape| tape.jacobian(&x).unwrap());
        assert_close(name, "J", jacobians[0].as_slice(), jacobians[1].as_slice());
        let seeds = Matrix::identity(x.len());
        assert_close(name, "J·I", called.jvp_many(&x, &seeds).unwrap().1.as_slice(), jacobians[1].as_slice());

        // A weighted sum of the outputs has a Hessian.
        let scalar = |tape: &Tape| {
            Tape::record(&x, |v| {
                let y = tape.eval_with(v).unwrap();
                y.iter().zip(&w).map(|(&y, &w)| y * w).sum::<Var>()
            })
            .unwrap()
        };
        let [called_sum, flat_sum] = [&called, &flat].map(scalar);
        let hessian = flat_sum.hessian(&x).unwrap();
        assert_close(name, "H", called_sum.hessian(&x).unwrap().as_slice(), hessian.as_slice());
        let gradient = called_sum.gradient_tape().unwrap();
        assert_close(name, "gradient tape", &gradient.eval(&x).unwrap(), &flat_sum.gradient(&x).unwrap().1);
        assert_close(name, "J of the gradient tape", gradient.jacobian(&x).unwrap().as_slice(), hessian.as_slice());
        let jvp = called.jvp_tape().unwrap();
        let xp: Vec<f64> = x.iter().chain(&p).copied().collect();
        assert_close(name, "jvp tape", &jvp.eval(&xp).unwrap(), &flat.jvp(&x, &p).unwrap().1);
        let vjp = called.vjp_tape().unwrap();
        let xw: Vec<f64> = x.iter().chain(&w).copied().collect();
        assert_close(name, "vjp tape", &vjp.eval(&xw).unwrap(), &flat.vjp(&x, &w).unwrap().1);
        let flat_vjp = flat.vjp_tape().unwrap();
        assert_close(
            name,
            "J of the vjp tape",
            vjp.jacobian(&xw).unwrap().as_slice(),
            flat_vjp.jacobian(&xw).unwrap().as_slice(),
        );
        // Third order, in two ways.
        let (third, flat_third) = (gradient.vjp_tape().unwrap(), flat_sum.gradient_tape().unwrap().vjp_tape().unwrap());
        let point: Vec<f64> = x.iter().chain(&p).copied().collect();
        assert_close(
            name,
            "third order",
            third.jacobian(&point).unwrap().as_slice(),
            flat_third.jacobian(&point).unwrap().as_slice(),
        );
        let third = gradient.jvp_tape().unwrap().gradient_of_sum();
        let flat_third = flat_sum.gradient_tape().unwrap().jvp_tape().unwrap().gradient_of_sum();
        assert_close(name, "third order forward", &third.eval(&point).unwrap(), &flat_third.eval(&point).unwrap());

        let duals: Vec<Dual> = x.iter().zip(&p).map(|(&x, &p)| Dual::new(x, p)).collect();
        let tangents: Vec<f64> = called.eval_with(&duals).unwrap().iter().map(|y| y.dv).collect();
        assert_close(name, "Dual", &tangents, &flat.jvp(&x, &p).unwrap().1);
        assert_eq!(called.optimized().eval(&x).unwrap(), flat.eval(&x).unwrap(), "{name}: optimized");
        let at = called.at(&x).unwrap();
        assert_eq!(at.jvp(&p).unwrap(), called.jvp(&x, &p).unwrap().1, "{name}: at");
        assert_eq!(at.vjp(&w).unwrap(), called.vjp(&x, &w).unwrap().1, "{name}: at");
    }
}

#[test]
fn tapes_with_other_calls_may_take_turns_on_one_workspace() {
    let product = Tape::record(&[1.0, 1.0], |x| (x[0] * x[1]).sin() * x[1].exp()).unwrap();
    let reciprocal = Tape::record(&[1.0], |x| 1.0 / x[0]).unwrap();
    let x: Vec<f64> = (0..150).map(|i| 0.3 + 0.01 * f64::from(i)).collect();
    // The calls of the same number differ in body, iterations and whether they are summed.
    let maps = Tape::record(&x, |x| {
        let products = product.map(x.windows(2));
        products.into_iter().chain(reciprocal.map(x.chunks(1))).collect::<Vec<_>>()
    });
    let sums = Tape::record(&x, |x| {
        let reciprocals = reciprocal.map(x.chunks(1));
        let product = product.map_sum(x.windows(2))[0];
        [product, reciprocal.map_sum(reciprocals.chunks(1))[0], reciprocals[3]]
    });
    let sums = sums.unwrap();
    let nested = Tape::record(&x, |x| {
        let (one, five) = (sums.call(x), sums.map([x, x, x, x, x]));
        [one[0], five[4], five[7]]
    });
    let tapes = [maps.unwrap(), sums, nested.unwrap()];
    let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    let mut ws = Workspace::new();
    for lanes in [16, 32, 64] {
        ws.set_lanes(lanes).unwrap();
        for point in 0..3 {
            let mut x = x.clone();
            x[7] += 0.1 * f64::from(point);
            if point == 2 {
                // A NaN shows, so that iterations and sweeps are done again.
                (x[5], x[70]) = (f64::INFINITY, 0.0);
            }
            for tape in [0, 1, 2, 0, 2, 1].map(|number| &tapes[number]) {
                let m = tape.num_outputs();
                let w: Vec<f64> = (0..m).map(|j| if j % 3 == 0 { 0.0 } else { 1.0 + j as f64 }).collect();
                let (y, adjoints) = tape.vjp(&x, &w).unwrap();
                let (mut y_again, mut adjoints_again) = (vec![0.0; m], vec![0.0; x.len()]);
                tape.vjp_into(&mut ws, &x, &w, &mut y_again, &mut adjoints_again).unwrap();
                assert_eq!((bits(&y), bits(&adjoints)), (bits(&y_again), bits(&adjoints_again)), "point {point}");
                if m == 3 {
                    // Several weights after one forward sweep.
                    let mut jacobian = Matrix::default();
                    tape.jacobian_into(&mut ws, &x, &mut jacobian).unwrap();
                    for i in 0..m {
                        let mut w = vec![0.0; m];
                        w[i] = 1.0;
                        let row = tape.vjp(&x, &w).unwrap().1;
                        assert_eq!(bits(jacobian.row(i)), bits(&row), "point {point}, row {i}");
                    }
                }
            }
        }
    }
}

/// Beyond so many calls the values of the iterations are computed again.
#[test]
fn a_tape_of_many_calls_keeps_a_bounded_amount() {
    const CALLS: usize = 3000;
    let body = Tape::record(&[1.0], |x| (0..40).fold(x[0], |y, _| (y * 0.5).sin() + x[0])).unwrap();
    let x: Vec<f64> = (0..64).map(|i| 0.01 * f64::from(i)).collect();
    let tape = Tape::record(&x, |x| {
        let mut sum = Var::from(0.0);
        for _ in 0..CALLS {
            sum += body.map_sum(x.chunks(1))[0];
        }
        sum
    });
    let tape = tape.unwrap();
    let one = Tape::record(&x, |x| body.map_sum(x.chunks(1))).unwrap();
    let mut gradient = vec![0.0; x.len()];
    let mut ws = Workspace::new();
    let bytes = allocation_counter::measure(|| {
        tape.gradient_into(&mut ws, &x, &mut gradient).unwrap();
    });
    let expected: Vec<f64> = one.gradient(&x).unwrap().1.iter().map(|d| CALLS as f64 * d).collect();
    for (found, expected) in gradient.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} and {expected}");
    }
    assert!(bytes.bytes_current < 150 << 20, "{} bytes are kept", bytes.bytes_current);
}

trait GradientOfSum {
    fn gradient_of_sum(&self) -> Tape;
}

impl GradientOfSum for Tape {
    fn gradient_of_sum(&self) -> Tape {
        let x = vec![0.1; self.num_inputs()];
        Tape::record(&x, |x| self.eval_with(x).unwrap().into_iter().sum::<Var>()).unwrap().gradient_tape().unwrap()
    }
}
