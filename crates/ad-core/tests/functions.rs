//! Functions that a tape calls as one row: the same numbers as the code written
//! out, memory and time of the body alone, and what is wrong is an error.
//! (`laws.rs` has random programs that call functions.)

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::iter::repeat_n;
use std::time::{Duration, Instant};

use ad_core::{Dual, Error, Implicit, Matrix, Retape, Samples, Tape, Var, Workspace};
use allocation_counter::measure;
use common::{assert_same, unit};

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
                let (carry, outs) = step.scan(&x[..2], repeat_n(&x[2..], 5));
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
    let bytes = measure(|| {
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

// Memory and time.

/// A rotation of the first two numbers of a state that is `width` wide.
fn rotation(width: usize) -> Tape {
    let x0 = vec![0.5; width + 1];
    let turn = |x: &[Var]| {
        let (sine, cosine) = x[width].sin_cos();
        let mut state = x[..width].to_vec();
        (state[0], state[1]) = (cosine * x[0] - sine * x[1], sine * x[0] + cosine * x[1]);
        state
    };
    Tape::record(&x0, turn).unwrap()
}

/// So many rotations by one angle, and the sum of the two numbers.
fn rotations(width: usize, count: usize) -> Tape {
    let step = rotation(width);
    Tape::record(&vec![0.5; width + 1], |x| {
        let (state, _) = step.scan(&x[..width], repeat_n(&x[width..], count));
        state[0] * 2.0 + state[1]
    })
    .unwrap()
}

/// The states of a long recurrence are not all kept. With tangents they take
/// twice the room, so there is a length at which a gradient has all of them and
/// a second derivative goes back in segments; its gradient has the same bits.
#[test]
fn going_back_in_segments_has_the_bits_of_keeping_all_states() {
    const WIDTH: usize = 64;
    // Lengths that are, and are not, whole numbers of segments.
    const LENGTHS: [usize; 5] = [16_384, 9_999, 128 * 128 - 1, 10_000, 9_001];
    for count in &LENGTHS[..if cfg!(debug_assertions) { 2 } else { 5 }] {
        let count = *count;
        let tape = rotations(WIDTH, count);
        let mut x: Vec<f64> = (0..WIDTH).map(|i| 0.3 + i as f64 * 0.01).collect();
        x.push(1.25e-3);
        let (value, all_kept) = tape.gradient(&x).unwrap();
        let (mut ws, mut gradient, mut hv) = (Workspace::new(), vec![0.0; x.len()], vec![0.0; x.len()]);
        let seed = unit(x.len(), WIDTH);
        let again = tape.gradient_hvp_into(&mut ws, &x, &seed, &mut gradient, &mut hv).unwrap();
        assert_same(&[again], &[value], "the value");
        assert_same(&gradient, &all_kept, format_args!("the gradient of {count} steps"));
        // n rotations by φ are one by n·φ.
        let (sine, cosine) = (count as f64 * x[WIDTH]).sin_cos();
        let (turned, n) = ([cosine * x[0] - sine * x[1], sine * x[0] + cosine * x[1]], count as f64);
        let of_angle = n * (turned[0] - 2.0 * turned[1]);
        let second = -n * n * (2.0 * turned[0] + turned[1]);
        assert!((gradient[WIDTH] - of_angle).abs() < 1e-8 * n, "{} {of_angle}", gradient[WIDTH]);
        assert!((hv[WIDTH] - second).abs() < 1e-8 * n * n, "{} {second}", hv[WIDTH]);
        assert!((hv[0] - n * (-2.0 * sine + cosine)).abs() < 1e-8 * n);
    }
}

#[test]
fn a_long_recurrence_takes_little_memory_and_linear_time() {
    const COUNT: usize = 20_000;
    const WIDTH: usize = 64;
    let mut tape = None;
    let recorded = measure(|| tape = Some(rotations(WIDTH, COUNT)));
    let tape = tape.unwrap();
    assert_eq!(tape.len(), WIDTH + 1 + WIDTH + 2);
    assert!(recorded.bytes_max < 200_000, "{recorded:?}");
    let mut x = vec![0.5; WIDTH + 1];
    x[WIDTH] = 1e-5;
    // All states are 8·64·20 000 bytes, √N of them twice less than a fiftieth of that.
    let swept = measure(|| assert!(tape.gradient(&x).unwrap().0.is_finite()));
    assert!(swept.bytes_max < 400_000, "{swept:?}");

    if cfg!(debug_assertions) {
        return; // The time is that of optimised code.
    }
    let shortest_of = |count: usize| -> Duration {
        let tape = rotations(WIDTH, count);
        let mut gradient = vec![0.0; WIDTH + 1];
        let mut ws = Workspace::new();
        let time = |_| {
            let start = Instant::now();
            tape.gradient_into(&mut ws, &x, &mut gradient).unwrap();
            start.elapsed()
        };
        (0..2).map(time).min().unwrap()
    };
    // Both go back in segments. What is quadratic would take 16 times as long.
    let (short, long) = (shortest_of(COUNT), shortest_of(4 * COUNT));
    assert!(long < 10 * short, "{short:?} and {long:?}");
}

#[test]
fn a_sum_of_many_terms_records_in_the_memory_of_one() {
    const COUNT: usize = 500_000;
    let term = Tape::record(&[1.0, 2.0], |x| (x[0] * x[1]).sin()).unwrap();
    let mut tape = None;
    let recorded = measure(|| tape = Some(Tape::record(&[0.5, 0.25], |x| term.map_sum(repeat_n(x, COUNT))).unwrap()));
    assert!(recorded.bytes_max < 100_000, "{recorded:?}");
    let tape = tape.unwrap();
    assert_eq!(tape.functions()[0].iterations(), COUNT);
    let expected = COUNT as f64 * 0.125_f64.sin();
    let swept = measure(|| assert!((tape.gradient(&[0.5, 0.25]).unwrap().0 - expected).abs() < 1e-6));
    assert!(swept.bytes_max < 100_000, "{swept:?}");
}

// Functions inside of functions.

/// A function that calls one that calls one and so on, `depth` deep.
fn nested(depth: usize, mut innermost: Tape) -> Result<Tape, Error> {
    for _ in 0..depth {
        innermost = Tape::record(&[1.0], |x| innermost.call(x)[0] + x[0])?;
    }
    Ok(innermost)
}

/// Each level of functions adds its own work, whatever happens inside; were it
/// doubled with each, these would not end.
#[test]
fn deep_functions_take_no_more_than_their_levels() {
    let guarded = Tape::record(&[1.0], |x| if x[0] > 0.0 { x[0] * x[0] } else { -x[0] }).unwrap();
    let tape = nested(60, guarded).unwrap();
    assert_eq!(tape.gradient(&[3.0]).unwrap(), (9.0 + 180.0, vec![6.0 + 60.0]));
    assert_eq!(tape.hessian(&[3.0]).unwrap().as_slice(), [2.0]);
    for changed in [
        tape.eval(&[-1.0]).map(|_| ()),
        tape.jvp(&[-1.0], &[1.0]).map(|_| ()),
        tape.gradient(&[-1.0]).map(|_| ()),
        tape.hvp(&[-1.0], &[1.0]).map(|_| ()),
        tape.at(&[-1.0]).map(|_| ()),
    ] {
        assert!(matches!(changed, Err(Error::BranchChanged { lhs: -1.0, sample: None, .. })), "{changed:?}");
    }

    let outside = nested(24, Tape::record(&[1.0], |x| x[0].ln()).unwrap()).unwrap();
    assert!(outside.jvp(&[-1.0], &[1.0]).unwrap().1[0].is_nan());
    assert!(outside.gradient(&[-1.0]).unwrap().1[0].is_nan());
    assert!(outside.hvp(&[-1.0], &[1.0]).unwrap()[0].is_nan());
    assert!(outside.at(&[-1.0]).unwrap().vjp(&[1.0]).unwrap()[0].is_nan());
    // A branch not taken is outside its domain, which is no matter.
    let inside = nested(24, Tape::record(&[1.0], |x| x[0].select_gt(0.0, x[0].ln(), x[0] * x[0])).unwrap()).unwrap();
    assert_eq!(inside.gradient(&[-1.0]).unwrap(), (-23.0, vec![22.0]));
    assert_eq!(inside.hvp(&[-1.0], &[1.0]).unwrap(), [2.0]);
}

#[test]
fn functions_nested_too_deep_are_an_error() {
    let square = || Tape::record(&[1.0], |x| x[0] * x[0]).unwrap();
    assert_eq!(nested(65, square()).unwrap().eval(&[2.0]).unwrap(), [4.0 + 130.0]);
    match nested(66, square()) {
        Err(Error::NestedTooDeep { limit: 64, .. }) => {}
        other => panic!("{:?}", other.map(|tape| tape.len())),
    }
}

// Bad input.

#[test]
fn arguments_that_do_not_fit_are_errors() {
    let body = Tape::record(&[1.0, 2.0], |x| [x[0] * x[1], x[0] - x[1]]).unwrap().named("f");
    type Call = fn(&Tape, &[Var]) -> Var;
    let calls: [(Call, usize, usize); 9] = [
        (|f, x| f.call(&x[..1])[1], 2, 1),
        (|f, _| f.call(&[])[0], 2, 0),
        // The closure may go on with as many results as there would be.
        (|f, x| f.map([&x[..2], &x[..3], &x[..2]])[5], 2, 3),
        (|f, x| f.map_sum([&x[..2], &x[..1]])[1], 2, 1),
        (|f, x| f.map(std::iter::repeat(&x[..3]))[1], 2, 3),
        (|f, x| f.map([[x[0]; 2]; 0]).into_iter().next().unwrap_or(x[0]), 1, 0),
        (|f, x| f.map_sum([[x[0]; 2]; 0])[1], 1, 0),
        (|f, x| f.scan(&x[..1], [[x[0]; 1]; 0]).0[0], 1, 0),
        (|f, x| f.scan(&x[..3], [[]]).0[2], 2, 3),
    ];
    for (place, (call, expected, got)) in calls.into_iter().enumerate() {
        let error = Tape::record(&[1.0, 2.0, 3.0], |x| call(&body, x)).unwrap_err();
        let Error::CallArguments { function, expected: e, got: g, ref location, .. } = error else { panic!("{error}") };
        assert_eq!((function.as_str(), e, g), ("f", expected, got), "call {place}");
        assert!(location.file().ends_with("functions.rs"));
    }
}

#[test]
fn too_many_results_are_an_error() {
    let wide = Tape::record(&[1.0], |x| vec![x[0]; 4096]).unwrap();
    let counted = measure(|| {
        let error = Tape::record(&[1.0], |x| wide.map(repeat_n(x, 600_000))).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    });
    assert!(counted.bytes_max < 1 << 20, "{counted:?}");
}

#[test]
fn foreign_variables_are_errors() {
    let body = Tape::record(&[1.0], |x| x[0] * 2.0).unwrap();
    let mut ended = None;
    Tape::record(&[7.0], |x| {
        ended = Some(x[0]);
        x[0]
    })
    .unwrap();
    let ended = ended.unwrap();
    let is_foreign = |error: Result<Tape, Error>| matches!(error, Err(Error::ForeignVar { value: 7.0, .. }));
    assert!(is_foreign(Tape::record(&[1.0], |_| body.call(&[ended]))));
    assert!(is_foreign(Tape::record(&[1.0], |x| body.map([[x[0]], [ended]]))));
    assert!(is_foreign(Tape::record(&[1.0], |x| body.scan(&[ended], [[]; 2]).0[0] + x[0])));
    // A variable of the outer recording means nothing in the recording of a body.
    Tape::record(&[7.0], |outer| {
        assert!(is_foreign(Tape::record(&[1.0], |x| x[0] * outer[0])));
        assert!(is_foreign(Tape::record(&[1.0], |_| body.call(outer))));
        body.call(outer)
    })
    .unwrap();
}

#[test]
fn a_body_off_its_branch_is_an_error_when_recorded() {
    let root = Tape::record(&[1.0], |x| if x[0] > 0.0 { x[0].sqrt() } else { x[0] }).unwrap();
    for record in [
        Tape::record(&[-4.0], |x| root.call(x)),
        Tape::record(&[-4.0], |x| root.map([[x[0] + 9.0], [x[0]]])),
        // The second step is off.
        Tape::record(&[1.0], |x| {
            let less = Tape::record(&[1.0], |x| if x[0] > 0.5 { x[0] - 5.0 } else { x[0] }).unwrap();
            less.scan(x, [[]; 2]).0
        }),
    ] {
        match record {
            Err(Error::BranchChanged { lhs: -4.0, sample: None, .. }) => {}
            other => panic!("{:?}", other.map(|tape| tape.to_string())),
        }
    }
}

/// A guard inside of functions is told with the calls that lead to it, by every driver.
#[test]
fn a_changed_branch_in_a_body_names_the_calls_that_lead_to_it() {
    let root = Tape::record(&[1.0], |x| if x[0] > 0.0 { x[0].sqrt() } else { x[0] }).unwrap().named("root");
    // As many turns as run in lanes.
    let inner = Tape::record(&[1.0], |x| root.map_sum((0..20).map(|i| [x[0] + f64::from(i)]))).unwrap();
    let record = |x: &[Var], k: &[Var]| inner.call(&[x[0] * k[0] - 3.0])[0] * x[0];
    let tape = Tape::builder().inputs(&[], &[2.0]).params(&[], &[2.0]).record(record).unwrap();
    let place = |of: &str| {
        let line = include_str!("functions.rs").lines().position(|line| line.contains(of)).unwrap() + 1;
        format!(" at {}:{line}", file!())
    };
    let places = [place("let inner = Tape::record(&[1.0], |x| root.map"), place("let record = |x: &[Var], k")];
    // Row `row` of the tape calls, for sample `expected` if there are samples.
    let check = |driver: &str, error: Error, row: usize, expected: Option<usize>| {
        let Error::BranchChanged { guard, lhs, calls, sample, .. } = &error else { panic!("{driver}: {error}") };
        assert_eq!((guard.to_string().as_str(), *lhs, *sample), ("v₀ > 0 was true", -2.0, expected), "{driver}");
        let told: Vec<_> = calls.iter().map(|call| (call.function.as_str(), call.row)).collect();
        assert_eq!(told, [("Σ root", Some(20)), ("f", Some(row))], "{driver}");
        let places = if calls[0].location.is_known() { places.each_ref().map(String::as_str) } else { ["", ""] };
        let row: String = (row + 1)
            .to_string()
            .bytes()
            .map(|d| ['₀', '₁', '₂', '₃', '₄', '₅', '₆', '₇', '₈', '₉'][usize::from(d - b'0')])
            .collect();
        let of = format!(
            " in Σ root, called by row v₂₁{}, in f, called by row v{row}{}, would change: v₀ > 0 was true",
            places[0], places[1]
        );
        assert!(error.to_string().contains(&of), "{driver}: {error}\n{of}");
    };
    let (x, one) = ([1.0], [1.0]);
    let points = Matrix::from_rows(&[[2.0, 2.0], [1.0, 1.0]]).unwrap();
    let samples = Samples::from_rows(&tape, &[[4.0; 70], [1.0; 70]].concat()).unwrap();
    let idx: Vec<usize> = (0..140).collect();
    for (tape, known) in
        [(tape.with_params(&one).unwrap(), true), (tape.with_params(&one).unwrap().without_locations(), false)]
    {
        let errors = [
            ("eval", tape.eval(&x).map(drop)),
            ("eval_with", tape.eval_with(&[Dual::new(1.0, 1.0)]).map(drop)),
            ("jvp", tape.jvp(&x, &one).map(drop)),
            ("vjp", tape.vjp(&x, &one).map(drop)),
            ("jacobian", tape.jacobian(&x).map(drop)),
            ("gradient", tape.gradient(&x).map(drop)),
            ("hvp", tape.hvp(&x, &one).map(drop)),
            ("hessian", tape.hessian(&x).map(drop)),
            ("sparse_jacobian", tape.sparse_jacobian(&x).map(drop)),
            ("sparse_hessian", tape.sparse_hessian(&x).map(drop)),
            ("taylor", tape.taylor(&x, &one, 3).map(drop)),
            ("at", tape.at(&x).map(drop)),
            ("primal_trace", tape.primal_trace(&x).map(drop)),
            ("tangent_trace", tape.tangent_trace(&x, &one).map(drop)),
            ("adjoint_trace", tape.adjoint_trace(&x, &one).map(drop)),
            ("self_check", tape.self_check(&x).map(drop)),
            ("optimized", tape.optimized().eval(&x).map(drop)),
        ];
        for (driver, error) in errors {
            check(driver, error.unwrap_err(), 2, None);
        }
        let samples = [
            ("eval_many", 1, tape.eval_many(&points).map(drop)),
            ("jacobian_many", 1, tape.jacobian_many(&points).map(drop)),
            ("sum_value", 70, tape.sum_value(&x, &samples, &idx).map(drop)),
            ("sum_gradient", 70, tape.sum_gradient(&x, &samples, &idx).map(drop)),
            ("sum_gradient_threads", 70, tape.sum_gradient_threads(&x, &samples, &idx, 2).map(drop)),
        ];
        for (driver, sample, error) in samples {
            check(driver, error.unwrap_err(), 2, Some(sample));
        }
        for derivative in
            [tape.gradient_tape(), tape.jvp_tape(), tape.gradient_tape().and_then(|tape| tape.gradient_tape())]
        {
            let derivative = derivative.unwrap();
            let error = derivative.eval(&[1.0, 1.0][..derivative.num_inputs()]).unwrap_err();
            let Error::BranchChanged { calls, .. } = &error else { panic!("{error}") };
            // The row that its table shows.
            let table = derivative.to_string();
            let line = table.lines().find(|line| line.contains("f(")).unwrap();
            assert!(
                calls[1].to_string().contains(&format!("row {}", line.split(' ').next().unwrap())),
                "{error}\n{table}"
            );
            assert_eq!(calls[1].location.is_known(), known, "{error}");
            check("a derivative tape", error.clone(), calls[1].row.unwrap(), None);
        }
    }
    let retape = Tape::builder().inputs(&[], &[2.0]).params(&[], &[2.0]).retape(record).unwrap();
    check("a retape", retape.gradient(&[0.5]).unwrap_err(), 2, None);
    // What is told of a check that a step leaves undone.
    let edge = Tape::record(&[1.0], |x| root.call(&[x[0] - 1.0 + 1e-300])[0]).unwrap();
    let text = edge.self_check(&[1.0]).unwrap().to_string();
    assert!(text.contains("in root, called by row v₃ at "), "{text}");
    // Equations and derivatives of one's own are in no table of the tape.
    let equation = Tape::record(&[2.0, 4.0], |v| if v[1] > 0.0 { v[1] * v[1] - v[0] } else { v[1] }).unwrap();
    let solved = Implicit::new(&equation, |x: &[f64]| Ok::<_, String>(vec![x[0]])).unwrap().named("solved");
    let tape = Tape::record(&[1.0], |x| solved.call(x)).unwrap();
    match tape.eval(&[-1.0]) {
        Err(Error::BranchChanged { calls, .. }) => {
            assert_eq!(calls[0].to_string(), format!("solve solved, called by row v₁{}", place("|x| solved.call(x)")))
        }
        other => panic!("{other:?}"),
    }
    // While it is being recorded a call has no row.
    match Tape::record(&[1.0], |x| record(x, &[Var::from(1.0)])) {
        Err(Error::BranchChanged { calls, .. }) => {
            let told: Vec<_> = calls.iter().map(|call| (call.function.as_str(), call.row)).collect();
            assert_eq!(told, [("Σ root", Some(20)), ("f", None)]);
        }
        other => panic!("{:?}", other.map(|tape| tape.to_string())),
    }
    // A guard of the tape's own is in no call.
    let own = Tape::record(&[1.0], |x| if x[0] > 0.0 { inner.call(x)[0] } else { x[0] }).unwrap();
    assert!(matches!(own.eval(&[-1.0]), Err(Error::BranchChanged { calls, .. }) if calls.is_empty()));
    // Of very many calls those at both ends are told.
    let deep = |calls: usize| (0..calls).fold(root.clone(), |body, _| Tape::record(&[1.0], |x| body.call(x)).unwrap());
    for (calls, told, more) in
        [(7, 7, ""), (8, 6, " in 2 more calls, in f, called"), (40, 6, " in 34 more calls, in f, called")]
    {
        let error = deep(calls).eval(&[-2.0]).unwrap_err().to_string();
        assert!(error.matches("called by row").count() == told && error.contains(more), "{error}");
    }
}

#[test]
fn calls_with_constants_alone_fold() {
    let body = Tape::builder().inputs(&[], &[1.0, 1.0]).params(&[], &[3.0]).record(|x, k| x[0] * k[0] + x[1]).unwrap();
    let [a, b] = [2.0, 5.0].map(Var::from);
    // Outside of any recording, too.
    assert_eq!(body.call(&[a, b])[0].value(), 11.0);
    assert_eq!(body.map_sum([[a, b], [b, a]])[0].value(), 28.0);
    assert_eq!(body.scan(&[a], [[b], [b]]).0[0].value(), 38.0);
    let tape = Tape::record(&[1.0], |x| x[0] * body.call(&[a, b])[0]).unwrap();
    assert_eq!((tape.len(), tape.functions().len()), (2, 0));
    assert!(tape.escapes().is_empty());
    assert_eq!(tape.gradient(&[4.0]).unwrap(), (44.0, vec![11.0]));
}

// Functions that are recorded again.

/// A `Retape` records its own function again, not the bodies that it calls:
/// theirs is an error, unless a new recording of the function takes another one.
#[test]
fn a_changed_branch_in_a_body_ends_a_retape_in_an_error() {
    let size = |x: &[Var]| if x[0] > 0.0 { x[0] * x[0] } else { -x[0] };
    let [above, below] = [1.0, -1.0].map(|x| Tape::record(&[x], size).unwrap());
    let fixed = Retape::new(&[1.0], |x| above.call(x)[0] + 1.0).unwrap();
    assert_eq!(fixed.gradient(&[3.0]).unwrap(), (10.0, vec![6.0]));
    for _ in 0..2 {
        let changed = [fixed.eval(&[-2.0]).map(|_| ()), fixed.gradient(&[-2.0]).map(|_| ())];
        assert!(changed.iter().all(|changed| matches!(changed, Err(Error::BranchChanged { lhs: -2.0, .. }))));
    }
    assert_eq!(fixed.eval(&[2.0]).unwrap(), [5.0]);

    // Here the function chooses the body by a comparison of its own.
    let choosing = Retape::new(&[1.0], |x| if x[0] > 0.0 { above.call(x)[0] } else { below.call(x)[0] }).unwrap();
    for x in [1.0, -2.0, 3.0, -4.0] {
        assert_eq!(choosing.eval(&[x]).unwrap(), [if x > 0.0 { x * x } else { -x }]);
    }
    assert_eq!(choosing.stats().recordings, 2);

    // And sums over samples.
    let of_samples =
        Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0]).retape(|x, k| above.call(&[x[0] * k[0]])[0]).unwrap();
    let rows: Vec<f64> = (0..200).map(|i| if i == 133 { -1.0 } else { 1.0 + f64::from(i) }).collect();
    let samples = of_samples.samples(&rows).unwrap();
    let idx: Vec<usize> = (0..200).collect();
    let error = of_samples.sum_gradient(&[1.0], &samples, &idx).unwrap_err();
    assert!(matches!(error, Error::BranchChanged { sample: Some(133), .. }), "{error}");
    assert!(of_samples.sum_gradient(&[1.0], &samples, &idx[..133]).is_ok());
}
