//! Laws of rows that call functions, on random programs and at their limits:
//! a call is the code written out, memory and time are those of the body, and
//! what is wrong is an error. (`engines.rs`, `derive.rs` and `optimize.rs` hold
//! such programs to what holds for all tapes, `allocation.rs` to no allocation.)

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::iter::repeat_n;
use std::time::{Duration, Instant};

use ad_core::{Error, Retape, Tape, Var, Workspace};
use allocation_counter::measure;
use common::programs::{Program, Purpose, Random};
use common::{assert_same, unit};

const PROGRAMS: usize = 800;

// A call is the code written out.

/// What was compared, so that a test cannot pass because nothing is.
#[derive(Debug, Default)]
struct Seen {
    finite: usize,
    changed: usize,
    derivatives: usize,
    far: usize,
}

/// Counts the derivatives that differ by more than rounding can explain. What
/// rounding does to them is seen where forward and reverse sweeps differ.
fn compare(called: &[f64], flat: &[f64], other_way: &[f64], seen: &mut Seen) {
    assert_eq!(called.len(), flat.len());
    let all = [called, flat, other_way].concat();
    if all.iter().any(|number| !number.is_finite()) {
        return;
    }
    let size = all.iter().fold(1.0, |size: f64, number| size.max(number.abs()));
    let noise = flat.iter().zip(other_way).fold(0.0, |noise: f64, (a, b)| noise.max((a - b).abs()));
    let far = |(&a, &b): (&f64, &f64)| (a - b).abs() > 1e-9 * size + 1e4 * noise;
    seen.derivatives += 1;
    seen.far += usize::from(called.iter().zip(flat).any(far));
}

fn check_twins(called: &Tape, flat: &Tape, x: &[f64], seen: &mut Seen) {
    let (y, expected) = (called.eval(x), flat.eval(x));
    let (y, expected) = match (y, expected) {
        (Ok(y), Ok(expected)) => (y, expected),
        (Err(a @ Error::BranchChanged { .. }), Err(b @ Error::BranchChanged { .. })) => {
            // The same comparison of the same numbers. (Written out it stands where the body is replayed.)
            let asked = |error: &Error| match error {
                Error::BranchChanged { guard, now, lhs, rhs, .. } => {
                    let bits = [lhs, rhs].map(|x| if x.is_nan() { 0 } else { x.to_bits() });
                    (guard.question(), guard.answer(), *now, bits)
                }
                other => panic!("{other}"),
            };
            assert_eq!(asked(&a), asked(&b), "at {x:?} of\n{called}");
            seen.changed += 1;
            return;
        }
        (y, expected) => panic!("{y:?} by calls, {expected:?} written out, at {x:?} of\n{called}\n{flat}"),
    };
    assert_same(&y, &expected, format_args!("at {x:?} of\n{called}\n{flat}"));
    seen.finite += usize::from(y.iter().all(|y| y.is_finite()));
    let (n, m) = (called.num_inputs(), called.num_outputs());
    let [of_called, of_flat] = [called, flat].map(|tape| tape.at(x).unwrap());
    for i in 0..n {
        let by_rows: Vec<f64> = (0..m).map(|j| of_flat.vjp(&unit(m, j)).unwrap()[i]).collect();
        compare(&of_called.jvp(&unit(n, i)).unwrap(), &of_flat.jvp(&unit(n, i)).unwrap(), &by_rows, seen);
    }
    for j in 0..m {
        let by_columns: Vec<f64> = (0..n).map(|i| of_flat.jvp(&unit(n, i)).unwrap()[j]).collect();
        compare(&of_called.vjp(&unit(m, j)).unwrap(), &of_flat.vjp(&unit(m, j)).unwrap(), &by_columns, seen);
    }
    if m == 1 && n < 8 {
        let (of_called, of_flat) = (called.hessian(x).unwrap(), flat.hessian(x).unwrap());
        for i in 0..n {
            let row: Vec<f64> = (0..n).map(|j| flat.hvp(x, &unit(n, j)).unwrap()[i]).collect();
            compare(of_called.row(i), of_flat.row(i), &row, seen);
        }
    }
}

#[test]
fn calls_are_the_code_written_out_in_random_programs() {
    let mut seen = Seen::default();
    let (mut calling, mut nested, mut kinds) = (0, 0, [0; 4]);
    for index in 0..PROGRAMS {
        let random = &mut Random::new(31, index);
        let purpose = Purpose { single: index % 2 == 0, params: false, guarded: 20 };
        let [called, flat] = Program::called_and_flat(random, purpose);
        assert!(flat.tape.functions().is_empty());
        let functions = called.tape.functions();
        calling += usize::from(!functions.is_empty());
        nested += usize::from(functions.iter().any(|function| !function.body().unwrap().functions().is_empty()));
        for function in functions {
            let name = function.to_string();
            let kind = ["map", "Σ", "scan"].iter().position(|word| name.starts_with(word)).unwrap_or(3);
            kinds[kind] += 1;
        }
        check_twins(&called.tape, &flat.tape, &called.x0, &mut seen);
        for _ in 0..3 {
            let (x, k) = (random.point(called.x0.len()), random.point(called.k0.len()));
            let [called, flat] = [&called, &flat].map(|program| program.tape.with_params(&k).unwrap());
            check_twins(&called, &flat, &x, &mut seen);
        }
    }
    let Seen { finite, changed, derivatives, far } = seen;
    assert!(finite > PROGRAMS && changed > PROGRAMS / 20 && derivatives > 10 * PROGRAMS, "{seen:?}");
    assert!(far <= derivatives / 1000, "{seen:?}");
    assert!(calling > PROGRAMS / 2 && nested > PROGRAMS / 8, "{calling} programs call, {nested} nest");
    assert!(kinds.iter().all(|&kind| kind > PROGRAMS / 20), "map, Σ, scan, call: {kinds:?}");
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
    for count in [16_384, 128 * 128 - 1, 10_000, 9_999, 9_001] {
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
        assert!(location.file().ends_with("function_laws.rs"));
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
