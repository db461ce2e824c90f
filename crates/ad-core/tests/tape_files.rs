//! Tapes in files: what is saved is what is loaded, and no file does harm.
//!
//! `tests/golden/*.tape` are files of version 1 of the format, and
//! `tapes-v1.txt` is what is in them and what they compute. They are written
//! once for a version and never again, since they have to be readable for ever:
//! `WRITE_GOLDEN_TAPE=1 cargo test -p ad-core --test tape_files golden` writes
//! those that are not there. Of `operations-v1.txt` no line may ever change.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ad_core::durable::Crc64;
use ad_core::{Custom, Error, Implicit, Matrix, Op, Rule, Samples, Tape, TapeFileProblem, Var};
use allocation_counter::measure;
use common::programs::{Program, Purpose, Random, call, operands_of};
use common::{assert_same, takes_constant};

fn bytes_of(tape: &Tape) -> Vec<u8> {
    let mut bytes = Vec::new();
    tape.write_to(&mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Tape, Error> {
    Tape::read_from(bytes)
}

fn round_trip(tape: &Tape) -> Tape {
    let bytes = bytes_of(tape);
    let loaded = read(&bytes).unwrap();
    assert!(bytes == bytes_of(&loaded), "it is written otherwise than it was:\n{tape}");
    loaded
}

/// A folder of a test, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("ad-core-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn files(&self) -> Vec<String> {
        let mut files: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// What is saved is what is loaded.

/// All that can be seen of a tape without a point.
fn assert_reads_the_same(old: &Tape, new: &Tape) {
    new.check().unwrap();
    assert_eq!(old.content_hash(), new.content_hash());
    assert!(old.diff(new).is_empty(), "{}", old.diff(new));
    assert_eq!(old.to_string(), new.to_string());
    assert_eq!(old.input_names(), new.input_names());
    assert_same(old.params(), new.params(), "parameters");
    assert_eq!(old.guards(), new.guards());
    let texts = |tape: &Tape| {
        let guards = tape.guards().iter().map(|guard| format!("{guard} {:?} {}", guard.answer(), guard.location()));
        let escapes = tape.escapes().iter().map(|escape| format!("{escape} {:x}", escape.value().to_bits()));
        let constants = tape.constants();
        let constants = constants.iter().map(|constant| format!("{constant:?}"));
        guards.chain(escapes).chain(constants).collect::<Vec<_>>()
    };
    assert_eq!(texts(old), texts(new));
    let functions = |tape: &Tape| {
        let text = |f: &ad_core::Function| {
            format!("{f} {:?} {} {} {}", f.name(), f.num_operands(), f.num_results(), f.iterations())
        };
        tape.functions().iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(functions(old), functions(new));
    assert_eq!(old.graph().to_dot(), new.graph().to_dot());
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    // The sign and payload of a NaN that is computed may differ from run to run.
    numbers.iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
}

/// All results at a point, with their bits, and all printed traces.
fn results(tape: &Tape, x: &[f64]) -> Vec<Result<Vec<u64>, String>> {
    let (n, m) = (tape.num_inputs(), tape.num_outputs());
    let (p, w): (Vec<f64>, Vec<f64>) =
        ((0..n).map(|i| 1.0 - i as f64 / 3.0).collect(), (0..m).map(|j| 0.5 + j as f64).collect());
    let pair = |result: Result<(Vec<f64>, Vec<f64>), Error>| result.map(|(a, b)| [bits(&a), bits(&b)].concat());
    let text = |trace: Result<ad_core::Trace, Error>| {
        trace.map(|trace| format!("{}{}", trace.clone().with_locations(), trace).bytes().map(u64::from).collect())
    };
    let mut results = vec![
        tape.eval(x).map(|y| bits(&y)),
        pair(tape.jvp(x, &p)),
        pair(tape.vjp(x, &w)),
        tape.jacobian(x).map(|jacobian| bits(jacobian.as_slice())),
        text(tape.primal_trace(x)),
        text(tape.tangent_trace(x, &p)),
        text(tape.adjoint_trace(x, &w)),
    ];
    if m == 1 {
        results.push(tape.gradient(x).map(|(y, gradient)| bits(&[&[y][..], &gradient].concat())));
        results.push(tape.hvp(x, &p).map(|hv| bits(&hv)));
        let rows: Vec<f64> = (0..20 * tape.num_params()).map(|i| 0.5 + (i % 7) as f64 / 5.0).collect();
        if let (Ok(samples), true) = (Samples::from_rows(tape, &rows), tape.num_params() > 0) {
            let idx: Vec<usize> = (0..20).collect();
            results.push(tape.sum_gradient(x, &samples, &idx).map(|(y, g)| bits(&[&[y][..], &g].concat())));
        }
    }
    results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect()
}

fn assert_same_tape(old: &Tape, points: &[Vec<f64>]) {
    let new = round_trip(old);
    assert_reads_the_same(old, &new);
    for x in points {
        assert_eq!(results(old, x), results(&new, x), "at {x:?} of\n{old}");
    }
}

#[test]
fn every_operation_comes_back() {
    for &op in Op::ALL {
        let constants: &[f64] = if takes_constant(op) { &[2.0, -1.0] } else { &[0.0] };
        for &c in constants {
            let x0: Vec<f64> = (0..operands_of(op)).map(|i| 0.25 + i as f64 / 8.0).collect();
            let tape = Tape::record(&x0, |x| call(op, x, c)).unwrap();
            assert!(tape.to_string().lines().count() > x0.len(), "{op}");
            assert_same_tape(&tape, &[x0.clone(), vec![-1.5; x0.len()], vec![f64::NAN; x0.len()]]);
        }
    }
}

#[test]
fn random_programs_come_back() {
    for index in 0..30 {
        for calls in [0, 50] {
            let random = &mut Random::new(71, index);
            let program =
                Program::new(random, Purpose { single: index % 2 == 0, params: index % 3 == 0, guarded: 40, calls });
            let points = [program.x0.clone(), random.point(program.x0.len())];
            assert_same_tape(&program.tape, &points);
            assert_same_tape(&program.tape.optimized().tape, &points);
        }
    }
}

#[test]
fn derivative_tapes_come_back() {
    for index in 0..10 {
        for calls in [0, 50] {
            let random = &mut Random::new(72, index);
            let Program { tape, x0, .. } =
                Program::new(random, Purpose { single: true, params: index % 2 == 0, guarded: 20, calls });
            let twice = |x: &[f64]| [x, x].concat();
            let w = [&x0[..], &[1.0]].concat();
            assert_same_tape(&tape.jvp_tape().unwrap(), &[twice(&x0)]);
            assert_same_tape(&tape.vjp_tape().unwrap(), &[w]);
            assert_same_tape(&tape.jacobian_tape().unwrap(), std::slice::from_ref(&x0));
            let gradient = tape.gradient_tape().unwrap();
            assert_same_tape(&gradient, std::slice::from_ref(&x0));
            assert_same_tape(&gradient.jacobian_tape().unwrap(), std::slice::from_ref(&x0));
            assert_same_tape(&gradient.vjp_tape().unwrap(), &[twice(&x0)]);
            assert_same_tape(&gradient.jvp_tape().unwrap().jvp_tape().unwrap(), &[twice(&twice(&x0))]);
        }
    }
}

/// A tape with one of everything.
fn assorted() -> Tape {
    let wave = Tape::builder()
        .inputs(&["angle"], &[0.5])
        .params(&["phase"], &[0.25])
        .record(|x, k| if x[0] > -10.0 { (x[0] + k[0]).sin() } else { x[0] })
        .unwrap()
        .named("wave");
    let shifted = wave.with_params(&[0.75]).unwrap();
    let step = Tape::record(&[0.5, 1.0], |x| [x[0] * 0.5 + wave.call(&[x[1]])[0], x[0] * x[1]]).unwrap().named("step");
    let slope = step.jvp_tape().unwrap();
    let energy = Tape::record(&[0.5, 0.5], |x| x[0] * step.call(x)[1]).unwrap();
    let force = energy.gradient_tape().unwrap();
    Tape::builder()
        .inputs(&["x", "y", "z"], &[0.5, -0.0, 2.0])
        .params(&["k", "größe"], &[-0.0, f64::from_bits(0x7ff8_0000_dead_beef)])
        .record(|x, k| {
            let mapped = wave.map(x.windows(1));
            let sum = shifted.map_sum([[x[2]], [x[0]], [x[1]], [x[0]]])[0];
            let (last, all) = step.scan(&x[..1], x.windows(1));
            let slopes = slope.call(&[x[0], x[1], x[2], mapped[0]]);
            let forces = force.map([[x[0], x[1]], [x[1], x[2]]]);
            let (sin, cos) = x[0].sin_cos();
            let whole = x[2].to_i64().unwrap() as f64;
            let baked = x[2].value();
            let ordered = if x[0].partial_cmp(&x[1]) == Some(std::cmp::Ordering::Greater) { sin } else { cos };
            let select = x[0].select_lt(k[0], sin, cos) + x[2].powi(3) + Var::from(f64::NAN).max(x[0]);
            let folded = Rule::dot(x, &mapped) + Var::sum_of(&[x[0], x[1], x[2], 3.5.into()]);
            let numbers = x[0] * f64::from_bits(0xfff0_0000_0000_0001) + x[1] * -0.0 + x[1] * f64::INFINITY;
            let _ = numbers;
            vec![
                last[0] + all[1] + sum + folded,
                slopes[1] * forces[3] + ordered * whole * baked,
                select + k[0] * x[2].max(k[1]),
                x[1],
                Var::from(7.0),
            ]
        })
        .unwrap()
        .named("a \u{1F600} name, and what belongs to it")
}

#[test]
fn one_of_everything_comes_back() {
    let tape = assorted();
    assert_eq!(tape.functions().len(), 5);
    assert_same_tape(&tape, &[vec![0.5, -0.0, 2.0], vec![0.75, 0.5, 2.5], vec![f64::NAN, 1.0, 2.0]]);
    assert_same_tape(&tape.jvp_tape().unwrap(), &[vec![0.5, -0.0, 2.0, 1.0, 2.0, 3.0]]);
    assert_same_tape(&tape.vjp_tape().unwrap(), &[vec![0.5, -0.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0]]);
    let loaded = round_trip(&tape);
    let outer = |body: &Tape| Tape::record(&[0.5, -0.0, 2.0], |x| body.call(x)).unwrap().to_string();
    assert_eq!(outer(&tape), outer(&loaded), "the name of a tape");
}

#[test]
fn bodies_that_are_shared_are_stored_once_and_shared_again() {
    let body = Tape::record(&[1.0], |x| (0..1000).fold(x[0], |sum, i| sum * 0.5 + f64::from(i)).sin()).unwrap();
    let once = Tape::record(&[1.0], |x| body.call(x)).unwrap();
    let often = Tape::record(&[1.0], |x| {
        let mut y = x[0];
        for count in 1..6 {
            y = body.map_sum(std::iter::repeat_n(&[y], count))[0];
        }
        y
    })
    .unwrap();
    assert_eq!(often.functions().len(), 5);
    assert!(bytes_of(&often).len() < bytes_of(&once).len() + 6 * 1000);
    let loaded = round_trip(&often);
    assert_same(&often.eval(&[0.5]).unwrap(), &loaded.eval(&[0.5]).unwrap(), "values");
}

#[test]
fn derivatives_of_a_loaded_tape_are_those_of_the_saved_one() {
    let tape = assorted();
    let x = [0.5, -0.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    let (old, new) = (tape.vjp_tape().unwrap(), round_trip(&tape).vjp_tape().unwrap());
    assert_reads_the_same(&old, &new);
    assert_eq!(results(&old, &x)[..4], results(&new, &x)[..4]);
    assert_eq!(tape.optimized().tape.to_string(), round_trip(&tape).optimized().tape.to_string());
}

#[test]
fn functions_nested_as_deep_as_may_be_come_back() {
    let mut tape = Tape::record(&[0.5], |x| x[0].sin()).unwrap();
    for _ in 0..65 {
        let body = tape;
        tape = Tape::record(&[0.5], |x| body.call(x)).unwrap();
    }
    let loaded = round_trip(&tape);
    assert_same(&tape.eval(&[0.25]).unwrap(), &loaded.eval(&[0.25]).unwrap(), "values");
    assert_eq!(tape.gradient(&[0.25]).unwrap(), loaded.gradient(&[0.25]).unwrap());
    let anonymous = round_trip(&tape.without_locations());
    assert!(!contains(&bytes_of(&anonymous), file!()));
    assert_eq!(tape.gradient(&[0.25]).unwrap(), anonymous.gradient(&[0.25]).unwrap());
}

// Without places.

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// All that is computed at a point, and the traces and errors but for the places in them.
fn results_but_for_places(tape: &Tape, x: &[f64]) -> Vec<Result<Vec<u64>, String>> {
    let mut places = places_of(tape);
    // One may be the beginning or the end of another.
    places.sort_by_key(|place| std::cmp::Reverse(place.len()));
    let texts = [tape.primal_trace(x), tape.tangent_trace(x, &vec![1.0; x.len()])];
    let texts = texts.map(|trace| trace.map(|trace| trace.to_string().bytes().map(u64::from).collect()));
    let texts = texts.into_iter().map(|trace| trace.map_err(|error| error.to_string()));
    let mut all: Vec<_> = results(tape, x).drain(..4).chain(texts).collect();
    for error in all.iter_mut().filter_map(|result| result.as_mut().err()) {
        for place in &places {
            *error = error.replace(&**place, "an unknown place");
        }
        *error = without_places_of_calls(error);
    }
    all
}

/// A row that calls a function has a name, and only then a place.
fn without_places_of_calls(error: &str) -> String {
    const CALLED: &str = ", called by row ";
    let mut calls = error.split(CALLED);
    let mut text = calls.next().unwrap_or_default().to_owned();
    for call in calls {
        let (caller, rest) = call.split_once(',').unwrap();
        let row = caller.split_once(" at ").map_or(caller, |(row, _)| row);
        text += &format!("{CALLED}{row},{rest}");
    }
    text
}

fn places_of(tape: &Tape) -> Vec<String> {
    let places = tape.guards().iter().map(|guard| guard.location().to_string());
    places.chain(tape.functions().iter().filter_map(|f| f.body()).flat_map(places_of)).collect()
}

#[test]
fn without_places_no_file_of_code_is_named() {
    let random = &mut Random::new(75, 3);
    // Its rows stand in another file.
    let elsewhere = Program::new(random, Purpose { single: true, params: false, guarded: 100, calls: 0 });
    let inner = Tape::record(&elsewhere.x0, |x| elsewhere.tape.call(x)[0].sin()).unwrap();
    let outer = Tape::record(&elsewhere.x0, |x| {
        let looked = if x[0].value() < f64::INFINITY { x[0] } else { -x[0] };
        inner.map_sum([x, x])[0] + if looked == looked { inner.call(x)[0] } else { looked }
    })
    .unwrap();
    let gradient = outer.gradient_tape().unwrap();
    let second = outer.gradient_tape().unwrap().jvp_tape().unwrap();
    let mut all = [small_tapes(), vec![assorted(), outer.clone(), gradient, second]].concat();
    for index in 0..10 {
        let random = &mut Random::new(76, index);
        all.push(Program::new(random, Purpose { single: true, params: true, guarded: 40, calls: 60 }).tape);
    }
    for tape in all {
        let anonymous = tape.without_locations();
        anonymous.check().unwrap();
        assert_eq!(anonymous.content_hash(), tape.content_hash());
        assert!(tape.diff(&anonymous).is_empty(), "{}", tape.diff(&anonymous));
        assert_eq!(anonymous.to_string(), tape.to_string());
        assert_eq!(anonymous.len(), tape.len());
        assert_eq!(anonymous.functions().len(), tape.functions().len());
        let bytes = bytes_of(&anonymous);
        for path in ["tape_files.rs", "programs.rs", "tests", ".rs", file!()] {
            assert!(!contains(&bytes, path), "{path} in the file of\n{tape}");
        }
        assert!(contains(&bytes_of(&tape), ".rs"));
        assert!(bytes.len() <= bytes_of(&tape).len());
        let loaded = round_trip(&anonymous);
        assert_reads_the_same(&anonymous, &loaded);
        // Once more changes nothing.
        assert!(bytes_of(&loaded.without_locations()) == bytes);
        for x in [vec![0.5; tape.num_inputs()], vec![-2.0; tape.num_inputs()], vec![f64::NAN; tape.num_inputs()]] {
            let expected = results_but_for_places(&tape, &x);
            assert_eq!(results_but_for_places(&anonymous, &x), expected, "at {x:?} of\n{tape}");
            if let (1, Ok(gradient)) = (tape.num_outputs(), tape.gradient(&x)) {
                let (y, g) = anonymous.gradient(&x).unwrap();
                assert_same(&[gradient.0], &[y], "value");
                assert_same(&gradient.1, &g, "gradient");
            }
            assert_eq!(results(&anonymous, &x), results(&loaded, &x));
        }
        for guard in anonymous.guards() {
            assert!(!guard.location().is_known());
            assert_eq!((guard.location().file(), guard.location().line()), ("", 0));
        }
    }
    let whole = bytes_of(&outer);
    assert!(contains(&whole, "tape_files.rs") && contains(&whole, "programs.rs"));
    // What two rows share is shared again.
    let shares = Tape::record(&[0.5], |x| inner_of(&elsewhere.tape).map_sum([[x[0]], [x[0]]])[0]).unwrap();
    assert!(bytes_of(&shares.without_locations()).len() <= bytes_of(&shares).len());
    let json = serde_json::to_string(&outer.without_locations()).unwrap();
    assert!(!json.contains(".rs"), "{json}");
    let loaded: Tape = serde_json::from_str(&json).unwrap();
    assert!(bytes_of(&loaded) == bytes_of(&outer.without_locations()));
}

fn inner_of(body: &Tape) -> Tape {
    let ones = vec![1.0; body.num_inputs()];
    Tape::record(&[0.5], |x| body.call(&ones.iter().map(|&one| x[0] * one).collect::<Vec<_>>())).unwrap()
}

#[test]
fn without_places_errors_name_rows_guards_and_functions() {
    let tape = Tape::record(&[2.0], |x| if x[0] > 0.0 { x[0].ln() } else { x[0] }).unwrap();
    let error = tape.without_locations().eval(&[-1.0]).unwrap_err();
    let Error::BranchChanged { location, guard, .. } = &error else { panic!("{error}") };
    assert!(!location.is_known() && guard.to_string() == "v₀ > 0 was true");
    assert!(
        error.to_string().contains("the branch taken at an unknown place would change: v₀ > 0 was true"),
        "{error}"
    );
    let slope = Tape::record(&[0.0], |x| x[0].sqrt()).unwrap();
    let found = slope.without_locations().diagnose(&[-1.0], &[1.0]).unwrap().unwrap().to_string();
    assert!(found.contains("v₁ = sqrt(v₀)") && !found.contains("unknown"), "{found}");
    assert!(slope.diagnose(&[-1.0], &[1.0]).unwrap().unwrap().to_string().contains("tape_files.rs"));
    // A column of places has nothing to say.
    let trace = slope.without_locations().primal_trace(&[4.0]).unwrap();
    assert!(trace.rows().iter().all(|row| row.location.is_none()));
    assert!(!trace.with_locations().to_string().contains("place"));

    // Code stays what it is, and what it is called by has no place.
    let twice = Custom::unary("twice", |x| 2.0 * x, |_, _| 2.0);
    let g = Tape::record(&[2.0, 4.0], |v| v[1] * v[1] - v[0]).unwrap();
    let root = Implicit::new(&g, |x: &[f64]| Ok::<_, String>(vec![x[0].sqrt()])).unwrap();
    let both = Tape::record(&[2.0], |x| twice.call(&root.call(x))[0]).unwrap();
    let root = Tape::record(&[2.0], |x| root.call(x)[0]).unwrap();
    for tape in [both, root.vjp_tape().unwrap().jvp_tape().unwrap()] {
        let (anonymous, x) = (tape.without_locations(), vec![1.5; tape.num_inputs()]);
        let named = |tape: &Tape| tape.functions().iter().map(|f| format!("{f}")).collect::<Vec<_>>();
        assert_eq!(named(&anonymous), named(&tape));
        assert_eq!(results(&anonymous, &x)[..4], results(&tape, &x)[..4]);
        let places = |tape: &Tape| -> Vec<bool> {
            let bodies = tape.functions().iter().filter_map(|f| f.body());
            bodies
                .map(|body| {
                    format!("{}", body.primal_trace(&vec![1.0; body.num_inputs()]).unwrap().with_locations())
                        .contains(".rs")
                })
                .collect()
        };
        assert!(places(&tape).contains(&true) && !places(&anonymous).contains(&true));
        let error = anonymous.write_to(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(", called at an unknown place, cannot be written to a file"), "{error}");
    }
}

// The golden files.

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Every operation, and every question with each of its answers.
fn every_operation() -> Tape {
    let x0: Vec<f64> = (0..8).map(|i| 0.25 + f64::from(i) / 8.0).collect();
    Tape::record(&x0, |x| {
        let same = x[0];
        let _ = (same < x[0], same <= x[0], same > x[0], same >= x[0], same == x[0], same != x[0]);
        let _ = same.partial_cmp(&x[0]);
        for c in [0.0, 1.0, f64::NAN] {
            let _ = (same < c, same <= c, same > c, same >= c, same == c, same != c, same.partial_cmp(&c));
        }
        for other in [same, -same, same * f64::NAN, same * f64::INFINITY, same * 1e-310, same * 1e300] {
            let _ = (other.is_nan(), other.is_finite(), other.is_infinite(), other.is_sign_negative());
            let _ = (other.to_i64(), other.is_normal(), other.is_subnormal());
        }
        Op::ALL.iter().flat_map(|&op| call(op, &x[..operands_of(op)], 2.0)).collect::<Vec<_>>()
    })
    .unwrap()
}

/// A derivative of an adjoint of a tape that calls others in every way.
fn derivative_of_an_adjoint() -> Tape {
    let square = Tape::record(&[0.5], |x| x[0] * x[0]).unwrap().named("square");
    let scaled = Tape::builder().inputs(&[], &[0.5]).params(&["k"], &[2.0]).record(|x, k| x[0].sin() * k[0]).unwrap();
    let step = Tape::record(&[0.5, 1.0], |x| [x[0] * x[1], x[0] + square.call(&x[1..])[0]]).unwrap();
    let tape = Tape::builder()
        .inputs(&["a", "b"], &[0.5, 0.25])
        .params(&["c"], &[1.5])
        .record(|x, k| {
            let (last, all) = step.scan(&x[..1], x.windows(1));
            let listed = square.map_sum([[x[1]], [x[0]], [x[0]], [x[1]]])[0];
            listed * k[0] + last[0] + all[1] + scaled.map(x.windows(1))[1]
        })
        .unwrap();
    tape.vjp_tape().unwrap().jvp_tape().unwrap().vjp_tape().unwrap()
}

/// A file of version 1: its name, what was recorded for it, and points at which it is evaluated.
type Golden = (&'static str, fn() -> Tape, fn() -> [Vec<f64>; 2]);

const GOLDEN: [Golden; 3] = [
    ("tape-v1.tape", assorted, || [vec![0.5, -0.0, 2.0], vec![0.75, 0.5, 2.5]]),
    ("operations-v1.tape", every_operation, || [vec![0.25; 8], (0..8).map(|i| 0.5 + f64::from(i) / 4.0).collect()]),
    ("derivative-v1.tape", derivative_of_an_adjoint, || [vec![0.5; 8], (0..8).map(|i| f64::from(i) / 8.0).collect()]),
];

/// What a golden file holds and computes.
fn golden_text(name: &str, tape: &Tape, points: &[Vec<f64>]) -> String {
    let mut lines = vec![format!("{name} {:032x}", tape.content_hash())];
    for x in points {
        let hex = |bits: &[u64]| bits.iter().map(|bits| format!(" {bits:016x}")).collect::<String>();
        lines.push(format!("at{}", hex(&bits(x))));
        // The places in the traces are of no interest here.
        for (what, result) in ["values", "tangents", "adjoints", "jacobian"].into_iter().zip(results(tape, x)) {
            lines.push(format!("{what}{}", hex(&result.unwrap())));
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn golden_files_are_readable_for_ever() {
    let write = |name: &str, to: &dyn Fn(&Path)| {
        let path = golden_path(name);
        if std::env::var_os("WRITE_GOLDEN_TAPE").is_some() && !path.exists() {
            to(&path);
        }
        path
    };
    let mut text = String::new();
    for (name, record, points) in GOLDEN {
        let path = write(name, &|path| record().save(path).unwrap());
        let loaded = Tape::load(path).unwrap();
        loaded.check().unwrap();
        text += &golden_text(name, &loaded, &points());
        // As long as version 1 is what is written, with the same bytes.
        assert!(fs::read(golden_path(name)).unwrap() == bytes_of(&loaded), "{name} is written otherwise");
    }
    let path = write("tapes-v1.txt", &|path| fs::write(path, &text).unwrap());
    for (stored, now) in fs::read_to_string(path).unwrap().lines().zip(text.lines()) {
        assert_eq!(stored, now);
    }
    assert_eq!(fs::read_to_string(golden_path("tapes-v1.txt")).unwrap().lines().count(), text.lines().count());

    let loaded = Tape::load(golden_path("tape-v1.tape")).unwrap();
    assert_eq!(loaded.input_names(), ["x", "y", "z"]);
    assert_eq!(loaded.params()[1].to_bits(), 0x7ff8_0000_dead_beef);
    assert_eq!(loaded.guards()[0].to_string(), "z.to_i64() was 2");
    assert!(loaded.guards()[0].location().file().ends_with("tape_files.rs"));
    assert!(loaded.guards()[0].location().line() > 1);
    assert_eq!(loaded.escapes()[0].value(), 2.0);
    let derivative = Tape::load(golden_path("derivative-v1.tape")).unwrap();
    assert_eq!(derivative.input_names()[..6], ["a", "b", "y\u{304}", "a\u{307}", "b\u{307}", "y\u{307}"]);
}

/// The lines of a list that is only ever added to.
fn operations_of_version_1() -> Vec<String> {
    let text = fs::read_to_string(golden_path("operations-v1.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn operations_of_golden_files_stay_as_they_are() {
    let now: Vec<String> = Op::ALL
        .iter()
        .map(|op| format!("{} {} {}", op.info().name, op.info().operands.len(), op.info().forms.len()))
        .collect();
    if std::env::var_os("WRITE_GOLDEN_TAPE").is_some() && !golden_path("operations-v1.txt").exists() {
        fs::write(golden_path("operations-v1.txt"), now.join("\n") + "\n").unwrap();
    }
    let stored = operations_of_version_1();
    for line in &stored {
        assert!(now.contains(line), "name, operands, results: {line:?} stands in files and is no operation any more");
    }
    for line in &now {
        assert!(stored.contains(line), "{line:?} is new: add it as the last line, and a golden file that uses it");
    }
}

#[test]
fn golden_files_hold_everything_that_files_can_hold() {
    let mut seen = BTreeSet::new();
    for (name, ..) in GOLDEN {
        let json = serde_json::to_value(Tape::load(golden_path(name)).unwrap()).unwrap();
        let items = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let key = |value: &serde_json::Value| value.as_object().unwrap().keys().next().unwrap().clone();
        for part in items(&json["parts"]) {
            let kind = key(&part);
            let part = &part[&kind];
            for row in items(&part["rows"]) {
                seen.insert(format!("operation {}", row["op"].as_str().unwrap()));
            }
            for guard in items(&part["guards"]) {
                let answer = &guard["answer"][&key(&guard["answer"])];
                seen.insert(format!("{} {answer}", guard["question"].as_str().unwrap()));
            }
            if kind == "list" {
                for input in items(&part["inputs"]).iter().filter(|input| !input.is_null()) {
                    let word = |field: &str| input[field].as_str().unwrap().to_owned();
                    seen.insert(format!("name {} {}", word("kind"), word("accent")));
                }
            }
            if kind == "loop" {
                seen.extend(items(&part["inputs"]).iter().map(|input| format!("input {}", key(input))));
                seen.extend(items(&part["outputs"]).iter().map(|output| format!("output {}", key(output))));
                seen.insert(format!("summed {}", part["summed"]));
                seen.insert(format!("named {}", !part["name"].is_null()));
            }
            seen.insert(format!("part {kind}"));
        }
    }
    let mut expected: Vec<String> =
        ["list", "tape", "loop", "adjoint", "rearranged"].map(|kind| format!("part {kind}")).into();
    expected
        .extend(operations_of_version_1().iter().map(|line| format!("operation {}", line.split(' ').next().unwrap())));
    expected.extend(["further_result", "call"].map(|op| format!("operation {op}")));
    let questions = ["<", "<=", ">", ">=", "==", "!=", "is_nan", "is_finite", "is_infinite", "is_sign_negative"];
    for question in questions.into_iter().chain(["is_normal", "is_subnormal"]) {
        expected.extend([true, false].map(|answer| format!("{question} {answer}")));
    }
    expected.extend(["-1", "0", "1", "null"].map(|answer| format!("partial_cmp {answer}")));
    expected.extend(["0", "2", "null"].map(|answer| format!("to_i64 {answer}")));
    expected.extend(
        ["given none", "given dot", "indexed bar", "letter dot", "letter bar"].map(|name| format!("name {name}")),
    );
    expected.extend(["carry", "strided", "listed"].map(|input| format!("input {input}")));
    expected.extend(["carry", "out"].map(|output| format!("output {output}")));
    expected.extend([true, false].iter().flat_map(|is| [format!("summed {is}"), format!("named {is}")]));
    for item in expected {
        assert!(seen.contains(&item), "no golden file has {item:?}, but {seen:?}");
    }
}

// Damage.

#[test]
fn every_truncation_and_every_changed_byte_is_an_error() {
    let golden = fs::read(golden_path("tape-v1.tape")).unwrap();
    let small = bytes_of(&Tape::record(&[2.0], |x| x[0] * 3.0).unwrap());
    for (bytes, all) in [(&golden, false), (&small, true)] {
        for len in 0..bytes.len() {
            let error = read(&bytes[..len]).unwrap_err();
            assert!(matches!(error, Error::TapeFile { .. }), "{error}");
            if len >= 24 {
                let Error::TapeFile { offset, problem, .. } = error else { unreachable!() };
                let expected = TapeFileProblem::CutOff { expected: Some(bytes.len() as u64), found: len as u64 };
                assert_eq!((offset, *problem), (len as u64, expected));
            }
        }
        let mut bytes = bytes.clone();
        for at in 0..bytes.len() {
            let right = bytes[at];
            let few = || [0x00, 0xff].into_iter().chain((0..8).map(|bit| right ^ 1 << bit)).collect();
            let wrong: Vec<u8> = match (all, cfg!(debug_assertions)) {
                // Each takes the sum of the whole file, which is slow without optimisation.
                (_, true) => vec![right ^ 1 << (at % 8)],
                (true, false) => (0..=255).collect(),
                (false, false) => few(),
            };
            for wrong in wrong.into_iter().filter(|&wrong| wrong != right) {
                bytes[at] = wrong;
                let error = read(&bytes).unwrap_err();
                assert!(matches!(error, Error::TapeFile { .. }), "byte {at}: {error}");
            }
            bytes[at] = right;
        }
        bytes.push(0);
        let Err(Error::TapeFile { offset, problem, .. }) = read(&bytes) else { panic!("a byte too many") };
        let expected = bytes.len() as u64 - 1;
        assert_eq!((offset, *problem), (expected, TapeFileProblem::TooLong { expected }));
    }
}

/// Gives the file the length and the checksum that its bytes have.
fn reseal(bytes: &mut [u8]) {
    let (body, end) = (bytes.len() - 32, bytes.len() - 8);
    bytes[16..24].copy_from_slice(&(body as u64).to_le_bytes());
    let mut crc = Crc64::new();
    crc.update(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.value().to_le_bytes());
}

/// Does everything with a tape that comes from a stranger.
fn exercise(tape: &Tape) {
    tape.check().unwrap();
    let text = tape.to_string();
    assert!(!text.is_empty());
    let _ = (tape.content_hash(), tape.constants(), tape.graph().to_dot(), format!("{:?}", tape.guards()));
    if tape.operation_count() > 3_000 {
        return;
    }
    for x in [vec![0.5; tape.num_inputs()], vec![-1e300; tape.num_inputs()]] {
        let _ = results(tape, &x);
        let _ = tape.diagnose(&x, &x);
        let _ = tape.self_check(&x);
        let _ = tape.taylor(&x, &vec![1.0; x.len()], 2);
        let _ = tape.sparse_jacobian(&x);
        let _ = tape.sparse_hessian(&x);
        let _ = tape.eval_with::<ad_core::Dual>(&x.iter().map(|&x| ad_core::Dual::new(x, 1.0)).collect::<Vec<_>>());
        let points = Matrix::from_vec(5, x.len(), x.repeat(5)).unwrap();
        let _ = tape.eval_many(&points);
    }
    let _ = tape.optimized().tape.check();
    for derivative in [tape.jvp_tape(), tape.vjp_tape(), tape.jacobian_tape()].into_iter().flatten() {
        let _ = derivative.eval(&vec![0.5; derivative.num_inputs()]);
    }
}

/// [`exercise`], unless a tape with the same content was seen to already.
fn exercise_if_new(known: &mut HashSet<u128>, tape: &Tape) {
    match known.insert(tape.content_hash()) {
        true => exercise(tape),
        false => drop((tape.to_string(), format!("{:?} {:?}", tape.guards(), tape.escapes()))),
    }
}

/// Small tapes that together have something of everything.
fn small_tapes() -> Vec<Tape> {
    let body = Tape::builder()
        .inputs(&["a"], &[0.5])
        .params(&[], &[2.0])
        .record(|x, k| if x[0] < 3.0 { x[0] * k[0] } else { x[0] })
        .unwrap();
    let step = Tape::record(&[0.5, 1.0], |x| [x[0] * x[1], x[0].sin()]).unwrap().named("s");
    let plain = |x: &[Var], k: &[Var]| {
        let (sin, cos) = x[0].sin_cos();
        assert!(x[0] > k[0]);
        [Rule::dot(x, &[sin, cos]) + x[1].powi(2) + x[0].value(), x[1].clamp(-1.0, 1.0)]
    };
    let square = Tape::record(&[0.5], |x| x[0] * x[0]).unwrap();
    let gradient = Tape::record(&[0.5, 0.5], |x| square.map_sum(x.windows(1))[0]).unwrap().gradient_tape().unwrap();
    vec![
        Tape::builder().inputs(&["x", "y"], &[1.0, 2.0]).params(&["k"], &[0.5]).record(plain).unwrap(),
        Tape::record(&[0.5, 0.25], |x| body.map(x.windows(1))).unwrap(),
        Tape::record(&[0.5, 0.25], |x| step.scan(&x[..1], [[x[1]], [x[0]], [x[0]]]).1).unwrap(),
        gradient.jvp_tape().unwrap(),
    ]
}

#[test]
fn resealed_damage_does_no_harm() {
    let (mut loaded, mut refused, mut known) = (0, 0, HashSet::new());
    for tape in small_tapes() {
        let bytes = bytes_of(&tape);
        let mut damaged = bytes.clone();
        for at in 24..bytes.len() - 8 {
            let right = bytes[at];
            let mut wrong = [0, 1, 0xff, right ^ 0x80, right.wrapping_add(1), right.wrapping_sub(1)];
            // What has no meaning is refused whatever it is.
            let neighbours = &bytes[at - 16..(at + 16).min(bytes.len())];
            let tried = match neighbours.iter().all(|&byte| byte == 0) {
                true => 2,
                false if cfg!(debug_assertions) => {
                    wrong.rotate_left(at % 6);
                    2
                }
                false => wrong.len(),
            };
            for &wrong in wrong[..tried].iter().filter(|&&wrong| wrong != right) {
                damaged[at] = wrong;
                reseal(&mut damaged);
                match read(&damaged) {
                    Ok(tape) => {
                        loaded += 1;
                        exercise_if_new(&mut known, &tape);
                    }
                    Err(Error::TapeFile { offset, problem, .. }) => {
                        refused += 1;
                        assert!(offset <= bytes.len() as u64 && !problem.to_string().is_empty());
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            damaged[at] = right;
        }
    }
    assert!(loaded > 100 && refused > 1000, "{loaded} loaded, {refused} refused");
}

#[test]
fn random_resealed_damage_does_no_harm() {
    let mut loaded = 0;
    for (number, tape) in small_tapes().into_iter().enumerate() {
        let bytes = bytes_of(&tape);
        let words = (bytes.len() - 32) / 4;
        // Words that mean something, and what other words of the file mean.
        let meant: Vec<usize> =
            (0..words).map(|word| 24 + 4 * word).filter(|&at| bytes[at..at + 4] != [0; 4]).collect();
        for round in 0..600 {
            let random = &mut Random::new(73, number * 10_000 + round);
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.one_of(&meant);
                let from = random.one_of(&meant);
                let word = match random.below(4) {
                    0 => bytes[from..from + 4].try_into().unwrap(),
                    1 => (random.below(4) as u32).to_le_bytes(),
                    2 => random.one_of(&[u32::MAX, 1 << 31, i32::MAX as u32, 1 << 16]).to_le_bytes(),
                    _ => (random.below(1 << 32) as u32).to_le_bytes(),
                };
                damaged[at..at + 4].copy_from_slice(&word);
            }
            // And sometimes bytes are gone or there twice.
            if random.chance(20) {
                let at = 24 + 4 * random.below(words);
                let len = (4 * random.below(20)).min(damaged.len() - 8 - at);
                match random.chance(50) {
                    true => drop(damaged.drain(at..at + len)),
                    false => drop(damaged.splice(at..at, bytes[at..at + len].to_vec())),
                }
            }
            reseal(&mut damaged);
            if let Ok(tape) = read(&damaged) {
                loaded += 1;
                exercise(&tape);
            }
        }
    }
    assert!(loaded > 50, "{loaded}");
}

// Files made on purpose.

/// The place of a part in a file whose operations and files of code are those of `bytes`.
fn parts_of(bytes: &[u8]) -> usize {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut at = 24;
    for _table in 0..2 {
        let count = word(at);
        at += 4;
        for _ in 0..count {
            at += (4 + word(at)).next_multiple_of(16);
        }
    }
    at + 4
}

fn set_word(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn problem_of(bytes: &[u8]) -> TapeFileProblem {
    match read(bytes) {
        Err(Error::TapeFile { problem, .. }) => *problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn counts_are_held_against_the_bytes_that_are_there() {
    let bytes = bytes_of(&Tape::record(&[2.0], |x| x[0] * 3.0).unwrap());
    let parts = parts_of(&bytes);
    // Operations, parts, then every count of the list and of the tape.
    let counts = [24, parts - 4].into_iter().chain((1..11).map(|word| parts + 4 * word));
    for at in counts {
        for count in [u32::MAX, 1 << 31, i32::MAX as u32, 1 << 24] {
            let mut hostile = bytes.clone();
            set_word(&mut hostile, at, count);
            reseal(&mut hostile);
            let mut result = None;
            let memory = measure(|| result = Some(read(&hostile)));
            assert!(result.unwrap().is_err(), "{count} at {at}");
            assert!(memory.bytes_max < 300_000, "{} bytes for {count} at {at}", memory.bytes_max);
        }
    }
    // The length of the whole.
    for length in [u64::MAX, 1 << 63, 1 << 40] {
        let mut hostile = bytes.clone();
        hostile[16..24].copy_from_slice(&length.to_le_bytes());
        let memory = measure(|| assert!(read(&hostile).is_err(), "{length}"));
        assert!(memory.bytes_max < 300_000, "{} bytes for a length of {length}", memory.bytes_max);
    }
}

/// The place of the first loop among the parts.
fn first_loop(bytes: &[u8]) -> usize {
    let is_loop = |&at: &usize| {
        bytes[at..at + 4] == 3_u32.to_le_bytes() && bytes[at + 44..at + 256].iter().all(|&byte| byte == 0)
    };
    (24..bytes.len() - 264).step_by(4).find(is_loop).unwrap()
}

#[test]
fn loops_may_run_for_ever_but_take_no_memory_for_it() {
    let body = Tape::record(&[0.5, 1.0], |x| x[0] * x[1]).unwrap();
    let scan = Tape::record(&[0.5, 0.25], |x| body.scan(&x[..1], [[x[1]]; 3]).0).unwrap();
    let sum = Tape::record(&[0.5, 0.25], |x| body.map_sum([[x[0], x[1]]; 5])).unwrap();
    for tape in [scan, sum] {
        let bytes = bytes_of(&tape);
        let head = first_loop(&bytes);
        let with_count = |count: u64| {
            let mut hostile = bytes.clone();
            hostile[head + 32..head + 40].copy_from_slice(&count.to_le_bytes());
            reseal(&mut hostile);
            hostile
        };
        // As many as suits: the same tape with another number.
        let seven = read(&with_count(7)).unwrap();
        assert_eq!(seven.functions()[0].iterations(), 7);
        assert!(seven.gradient(&[1.0, 1.0]).is_ok());
        assert!(matches!(problem_of(&with_count(0)), TapeFileProblem::Malformed { .. }));
        assert!(matches!(problem_of(&with_count(1 << 63)), TapeFileProblem::Malformed { .. }));
        let endless = read(&with_count(1 << 62)).unwrap();
        assert_eq!(endless.functions()[0].iterations(), 1 << 62);
        endless.check().unwrap();
        assert!(endless.to_string().contains("4611686018427387904"));
    }
}

#[test]
fn results_and_places_of_loops_have_to_be_there() {
    let body = Tape::record(&[0.5], |x| x[0].sin()).unwrap();
    let bytes = bytes_of(&Tape::record(&[0.5, 0.25, 0.125], |x| body.map(x.windows(1))).unwrap());
    let head = first_loop(&bytes);
    let changed = |at: usize, word: u32| {
        let mut hostile = bytes.clone();
        set_word(&mut hostile, head + at, word);
        reseal(&mut hostile);
        problem_of(&hostile).to_string()
    };
    assert!(changed(32, 4).contains("part 2: "), "{}", changed(32, 4));
    // The head has 64 words; the input of the body is a kind, a place, and two words each for first and stride.
    assert!(changed(32, 4).contains("it does not have"), "an iteration more");
    assert!(changed(32, 2).contains("takes other numbers"), "an iteration less: fewer results than rows");
    assert!(changed(256 + 8, 1).contains("it does not have"), "one operand further");
    assert!(changed(256 + 16, 1 << 31).contains("it does not have"), "a long stride");
    assert!(changed(256 + 24, 2).contains("found 2"), "another kind of output");
    assert!(changed(256 + 28, 1).contains("two of its results or none"), "a second output of one");
    assert!(changed(8, 0).contains("it does not have"), "no operands");
    assert!(changed(4, 9).contains("part 9"), "a part that is not above");
}

#[test]
fn operations_of_a_newer_version_are_named() {
    let mut bytes = bytes_of(&Tape::record(&[2.0], |x| x[0].sqrt()).unwrap());
    assert_eq!(&bytes[32..36], b"sqrt");
    bytes[32..36].copy_from_slice(b"cube");
    reseal(&mut bytes);
    let error = read(&bytes).unwrap_err();
    let Error::TapeFile { offset, problem, path: None } = &error else { panic!("{error}") };
    assert_eq!((*offset, &**problem), (28, &TapeFileProblem::UnknownOperation { name: "cube".to_owned() }));
    assert!(error.to_string().contains("\"cube\"") && error.to_string().contains("newer version"), "{error}");

    set_word(&mut bytes, 8, 2);
    reseal(&mut bytes);
    assert_eq!(problem_of(&bytes), TapeFileProblem::UnknownVersion { found: 2, known: 1 });
    assert!(problem_of(&bytes).to_string().contains("newer version"));
    set_word(&mut bytes, 8, 0);
    reseal(&mut bytes);
    assert_eq!(problem_of(&bytes), TapeFileProblem::UnknownVersion { found: 0, known: 1 });
    assert!(problem_of(&bytes).to_string().contains("no version of ad-core wrote that"));
}

#[test]
fn rows_are_checked_with_their_places() {
    let tape = Tape::record(&[2.0, 3.0], |x| (x[0] * x[1]).powi(2)).unwrap();
    let bytes = bytes_of(&tape);
    let rows = bytes.windows(12).rposition(|row| row[4..] == [1, 0, 0, 0, 2, 0, 0, 0]).unwrap();
    let changed = |at: usize, word: u32| {
        let mut hostile = bytes.clone();
        set_word(&mut hostile, at, word);
        reseal(&mut hostile);
        match read(&hostile) {
            Err(Error::TapeFile { offset, problem, .. }) => (offset as usize, problem.to_string()),
            other => panic!("{other:?}"),
        }
    };
    // Constants, inputs, rows: 0 | 1, 2 | 3, 4.
    let (offset, text) = changed(rows + 4, 3);
    assert_eq!(offset, rows);
    assert!(text.starts_with("part 0: row v₁ (mul): it reads a row that is not above it; "), "{text}");
    assert!(text.ends_with("use another copy, or save the tape again"), "{text}");
    let (offset, text) = changed(rows + 12 + 4, 0);
    assert_eq!((offset, text.contains("row v₂ (powi): it reads constants alone; ")), (rows + 12, true), "{text}");
    let head = u32::from_le_bytes(bytes[rows..rows + 4].try_into().unwrap());
    assert!(changed(rows, head | 0x3f_ffff << 10).1.contains("its place in the code is not on the list"));
    let (_, text) = changed(rows, head | 0xff);
    assert!(text.starts_with("the number of an operation: found 255 for row v₁, expected less than 2, "), "{text}");
    let (_, text) = changed(rows, head & !(3 << 8) | 1 << 8);
    assert!(
        text.starts_with("the operands of a row: found 1 for row v₁ (mul), the words 1 and 2, expected "),
        "{text}"
    );
    let error = Error::Malformed { row: 1, operation: Some("sin"), reason: "it is wrong" }.to_string();
    assert!(error.starts_with("the tape breaks an invariant: row v₂ (sin): it is wrong; "), "{error}");
    let error = Error::Malformed { row: 0, operation: None, reason: "there is no input" }.to_string();
    assert!(error.starts_with("the tape breaks an invariant: there is no input; "), "{error}");
}

#[test]
fn names_of_variables_are_checked_by_what_they_print() {
    let json = |tape: &Tape| serde_json::to_value(tape).unwrap();
    let load = |value: &serde_json::Value| serde_json::from_value::<Tape>(value.clone());
    let refused = |value: &serde_json::Value, expected: &str| {
        let error = load(value).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let tape = Tape::record(&[0.5, 1.0], |x| x[0] * x[1]).unwrap();
    let names = |first: serde_json::Value, second: serde_json::Value| {
        let mut document = json(&tape);
        document["parts"][0]["list"]["inputs"] = [first, second].into();
        document
    };
    let name = |kind: &str, text: &str, accent: &str, index: i64| serde_json::json!({ "kind": kind, "text": text, "accent": accent, "index": index });
    let x1 = name("indexed", "x", "none", 1);
    load(&names(x1.clone(), name("indexed", "x", "none", 2))).unwrap();
    load(&names(x1.clone(), name("indexed", "x", "dot", 1))).unwrap();
    refused(&names(x1.clone(), x1.clone()), "\"x₁\" twice");
    refused(&names(x1.clone(), name("given", "x₁", "none", 0)), "\"x₁\" twice");
    refused(&names(name("letter", "y", "bar", 0), name("given", "y\u{304}", "none", 0)), "twice");
    refused(&names(name("given", "a", "dot", 0), name("given", "a", "dot", 0)), "twice");
    refused(&names(x1.clone(), name("given", "a", "none", 1)), "the index of a name: found 1");
    refused(&names(x1.clone(), name("letter", "y", "none", -1)), "the index of a name: found -1");
    refused(&names(x1.clone(), name("given", " ", "none", 0)), "is empty");
    refused(&names(x1.clone(), name("indexed", "q", "none", 2)), "a letter of variables");

    // A parameter may be called as an input without a name is: so the inputs of a derivative are.
    let k = Tape::builder().inputs(&[], &[0.5]).params(&["x₁"], &[2.0]).record(|x, k| x[0] * k[0]).unwrap();
    for tape in [&k, &k.jvp_tape().unwrap(), &k.vjp_tape().unwrap(), &k.jvp_tape().unwrap().vjp_tape().unwrap()] {
        assert_reads_the_same(tape, &round_trip(tape));
        assert_reads_the_same(tape, &load(&json(tape)).unwrap());
    }
    // But not as any other.
    let mut document = json(&k.jvp_tape().unwrap());
    document["parts"][0]["list"]["params"] = serde_json::json!(["x\u{307}₁"]);
    let seed = document["parts"][0]["list"]["inputs"][1].clone();
    assert_eq!(seed, name("indexed", "x", "dot", 1), "the name of the tangent");
    refused(&document, "twice");

    // Names of files have three kinds, and no index that they do not print.
    let bytes = bytes_of(&Tape::builder().inputs(&["speed"], &[0.5]).record(|x, _| x[0].sin()).unwrap());
    let text = bytes.windows(5).position(|bytes| bytes == b"speed").unwrap();
    for (at, word) in [(text - 20, 4), (text - 20, 0), (text - 16, 3), (text - 12, 1)] {
        let mut hostile = bytes.clone();
        set_word(&mut hostile, at, word);
        reseal(&mut hostile);
        assert!(matches!(problem_of(&hostile), TapeFileProblem::Unexpected { .. }), "{word} at {at}");
    }
}

#[test]
fn words_without_meaning_are_zeros() {
    let tape = Tape::record(&[0.5], |x| if x[0] > 0.0 { x[0] * x[0].value() } else { x[0] }).unwrap();
    let bytes = bytes_of(&tape);
    // The guard and the escape are the end of the list, which a tape without parameters follows.
    let end = bytes.len() - 8 - 256;
    for at in [end - 8, end - 4, end - 32 - 8, end - 32 - 4] {
        let mut hostile = bytes.clone();
        assert_eq!(hostile[at..at + 4], [0; 4]);
        set_word(&mut hostile, at, 1);
        reseal(&mut hostile);
        assert!(problem_of(&hostile).to_string().contains("words that have no meaning"), "{at}");
    }
}

// The system.

/// Takes so many bytes, and fails then.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.len().min(self.0) {
            0 => Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full")),
            taken => {
                self.0 -= taken;
                Ok(taken)
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_is_an_error_wherever_it_fails() {
    let tape = Tape::record(&[2.0], |x| x[0] * 3.0).unwrap();
    let len = bytes_of(&tape).len();
    for room in 0..len {
        let error = tape.write_to(Full(room)).unwrap_err();
        let Error::Io { kind, path: None, message, .. } = &error else { panic!("{error}") };
        assert_eq!((*kind, &**message), (io::ErrorKind::StorageFull, "the disk is full"));
    }
    tape.write_to(Full(len)).unwrap();
}

/// Gives a few bytes at a time, is interrupted each time, and fails at the end if it is to.
struct Halting<'a>(&'a [u8], bool, bool);

impl Read for Halting<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.0.is_empty() && self.2 {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "gone"));
        }
        let len = self.0.len().min(to.len()).min(7);
        to[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

#[test]
fn readers_may_halt_and_fail() {
    let tape = assorted();
    let bytes = bytes_of(&tape);
    assert_reads_the_same(&tape, &Tape::read_from(Halting(&bytes, false, false)).unwrap());
    for len in (0..bytes.len()).step_by(97) {
        let error = Tape::read_from(Halting(&bytes[..len], false, true)).unwrap_err();
        assert!(matches!(&error, Error::Io { kind: io::ErrorKind::ConnectionReset, .. }), "{error}");
        assert_eq!(error.to_string(), "reading the tape file: gone");
    }
}

// Streams.

/// Gives what it has, and counts what was taken.
struct Taken<'a>(&'a [u8], usize);

impl Read for Taken<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(to)?;
        self.1 += read;
        Ok(read)
    }
}

#[test]
fn tapes_of_one_stream_are_read_one_by_one() {
    let tapes = [small_tapes(), vec![assorted()]].concat();
    let mut stream = Vec::new();
    let mut ends = vec![0];
    for tape in &tapes {
        tape.write_to(&mut stream).unwrap();
        ends.push(stream.len());
    }
    let mut reader = Taken(&stream, 0);
    for (number, tape) in tapes.iter().enumerate() {
        assert_reads_the_same(tape, &Tape::read_next(&mut reader).unwrap().unwrap());
        // Not a byte more than the tape.
        assert_eq!(reader.1, ends[number + 1]);
    }
    assert!(Tape::read_next(&mut reader).unwrap().is_none());
    assert!(Tape::read_next(&mut reader).unwrap().is_none(), "the end stays the end");

    // Through a buffer, in small pieces, from a file, and between other things.
    let mut reader = io::BufReader::with_capacity(100, Halting(&stream, false, false));
    let count = std::iter::from_fn(|| Tape::read_next(&mut reader).unwrap()).count();
    assert_eq!(count, tapes.len());
    let folder = Folder::new("streams");
    let path = folder.0.join("several.tape");
    fs::write(&path, &stream).unwrap();
    let mut file = fs::File::open(&path).unwrap();
    assert_eq!(std::iter::from_fn(|| Tape::read_next(&mut file).unwrap()).count(), tapes.len());
    let mixed = [&stream[..ends[1]], b"some text"].concat();
    let mut reader = &mixed[..];
    assert_reads_the_same(&tapes[0], &Tape::read_next(&mut reader).unwrap().unwrap());
    assert_eq!(reader, b"some text");
    let Err(Error::TapeFile { problem, .. }) = Tape::read_next(&mut reader) else { panic!("text is no tape") };
    assert_eq!(*problem, TapeFileProblem::NotATapeFile { found: b"some tex".to_vec() });

    // What is to be one tape is one.
    let expected = ends[1] as u64;
    for error in [Tape::load(&path).unwrap_err(), Tape::read_from(&stream[..]).unwrap_err()] {
        let Error::TapeFile { offset, problem, .. } = &error else { panic!("{error}") };
        assert_eq!((*offset, &**problem), (expected, &TapeFileProblem::TooLong { expected }));
        assert!(error.to_string().contains("Tape::read_next"), "{error}");
    }
}

#[test]
fn a_stream_that_ends_within_a_tape_is_an_error() {
    let tape = Tape::record(&[2.0], |x| x[0] * 3.0).unwrap();
    let bytes = bytes_of(&tape);
    let stream = bytes.repeat(2);
    for len in bytes.len() + 1..stream.len() {
        let mut reader = &stream[..len];
        Tape::read_next(&mut reader).unwrap().unwrap();
        let Err(Error::TapeFile { offset, problem, path: None }) = Tape::read_next(&mut reader) else {
            panic!("{len} bytes")
        };
        // Counted from the beginning of the second.
        let found = (len - bytes.len()) as u64;
        let expected = (found >= 24).then_some(bytes.len() as u64);
        assert_eq!((offset, *problem), (found, TapeFileProblem::CutOff { expected, found }));
    }
    // A damaged tape is read to its end, and nothing of the next one.
    let mut damaged = stream.clone();
    damaged[40] ^= 1;
    let mut reader = Taken(&damaged, 0);
    let Err(Error::TapeFile { problem, .. }) = Tape::read_next(&mut reader) else { panic!("damaged") };
    assert!(matches!(*problem, TapeFileProblem::Checksum { .. }), "{problem}");
    assert_eq!(reader.1, bytes.len());
    // A reader that fails between two tapes does not end the stream.
    let error = Tape::read_next(Halting(&[], false, true)).unwrap_err();
    assert!(matches!(error, Error::Io { kind: io::ErrorKind::ConnectionReset, .. }), "{error}");
    // And a length that lies takes no memory that is not filled.
    let mut hostile = stream;
    hostile[16..24].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let memory = measure(|| assert!(Tape::read_next(&hostile[..]).is_err()));
    assert!(memory.bytes_max < 300_000, "{}", memory.bytes_max);
}

/// A program that saves one tape and then the other, again and again, is killed at moments of chance.
#[cfg(unix)]
#[test]
fn a_program_killed_while_it_saves_leaves_a_whole_file() {
    use std::io::BufRead;
    use std::time::{Duration, Instant};
    const KILLS: usize = 25;
    const STARTED: &str = "saving begins";
    const ROWS: usize = 20_000;
    let sum = |c: f64| Tape::record(&[1.0], |x| (0..ROWS).fold(x[0], |sum, i| sum * c + i as f64)).unwrap();
    // Of different lengths, too.
    let tapes = [sum(0.5), Tape::record(&[1.0], |x| (0..ROWS / 3).fold(x[0], |sum, _| sum.sin())).unwrap()];
    if let Some(folder) = std::env::var_os("AD_CORE_SAVES_FOR_EVER_IN") {
        let path = Path::new(&folder).join("model.tape");
        println!("{STARTED}");
        loop {
            tapes.iter().for_each(|tape| tape.save(&path).unwrap());
        }
    }
    let folder = Folder::new("killed");
    let path = folder.0.join("model.tape");
    let start = Instant::now();
    tapes[1].save(&path).unwrap();
    // Some saves on this disk, and no more than keeps the test short.
    let longest = (4 * start.elapsed().as_micros() as u64).clamp(1_000, 100_000);
    let contents = tapes.each_ref().map(Tape::content_hash);
    let (mut moment, mut left, mut seen) = (12345_u64, 0, [0; 2]);
    for _ in 0..KILLS {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_program_killed_while_it_saves_leaves_a_whole_file", "--nocapture"])
            .env("AD_CORE_SAVES_FOR_EVER_IN", &folder.0)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(STARTED)));
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((moment >> 33) % longest));
        assert!(child.try_wait().unwrap().is_none(), "it saves for ever");
        child.kill().unwrap();
        child.wait().unwrap();
        // The file is one of the two, and at most the one that was being written lies beside it.
        let found = Tape::load(&path).unwrap().content_hash();
        let which = contents.iter().position(|&content| content == found);
        seen[which.expect("the file is neither of the two")] += 1;
        let others: Vec<String> = folder.files().into_iter().filter(|name| name != "model.tape").collect();
        let temporary = format!("model.tape.{}-0.tmp", child.id());
        assert!(others.is_empty() || others == [&*temporary], "{others:?}");
        left += others.len();
        others.iter().for_each(|name| fs::remove_file(folder.0.join(name)).unwrap());
    }
    eprintln!("{KILLS} kills, {left} of them while a file was written; the file was {seen:?} times each of the two");
    assert!(left > 0, "no kill struck a file that was being written");
}

#[test]
fn files_are_replaced_at_once_and_stay_if_that_fails() {
    let folder = Folder::new("tape-files");
    let path = folder.0.join("model.tape");
    let (old, new) = (Tape::record(&[2.0], |x| x[0].sin()).unwrap(), Tape::record(&[2.0], |x| x[0].cos()).unwrap());
    old.save(&path).unwrap();
    assert_reads_the_same(&old, &Tape::load(&path).unwrap());
    new.save(&path).unwrap();
    assert_reads_the_same(&new, &Tape::load(&path).unwrap());
    assert_eq!(folder.files(), ["model.tape"]);

    // A folder of that name, and one that is not there.
    let taken = folder.0.join("taken");
    fs::create_dir(&taken).unwrap();
    let missing = folder.0.join("missing").join("model.tape");
    for path in [&taken, &missing] {
        let error = new.save(path).unwrap_err();
        assert!(matches!(&error, Error::Io { path: Some(of), .. } if **of == **path), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        let error = Tape::load(path).unwrap_err();
        assert!(matches!(&error, Error::Io { path: Some(of), .. } if **of == **path), "{error}");
    }
    assert_eq!(folder.files(), ["model.tape", "taken"]);
    fs::write(&path, b"something else").unwrap();
    let error = Tape::load(&path).unwrap_err();
    assert!(matches!(&error, Error::TapeFile { path: Some(of), offset: 0, .. } if **of == *path), "{error}");
    assert!(error.to_string().contains("model.tape: at byte 0: this is no tape file"), "{error}");
}

#[test]
fn a_failed_replacement_leaves_the_old_file_and_nothing_else() {
    let folder = Folder::new("durable");
    let path = folder.0.join("file");
    ad_core::durable::replace(&path, |file| file.write_all(b"old")).unwrap();
    let failed = ad_core::durable::replace(&path, |file| {
        file.write_all(b"ne")?;
        Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full"))
    });
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!((fs::read(&path).unwrap(), folder.files()), (b"old".to_vec(), vec!["file".to_owned()]));
}

#[cfg(unix)]
#[test]
fn links_and_permissions_stay_and_closed_folders_are_errors() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new("tape-links");
    let tape = Tape::record(&[2.0], |x| x[0].sin()).unwrap();
    let (file, link) = (folder.0.join("file"), folder.0.join("link"));
    fs::write(&file, b"old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    symlink("file", &link).unwrap();
    tape.save(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_reads_the_same(&tape, &Tape::load(&file).unwrap());

    let closed = folder.0.join("closed");
    fs::create_dir(&closed).unwrap();
    tape.save(closed.join("tape")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write there all the same.
    if fs::write(closed.join("probe"), b"").is_err() {
        let error = tape.save(closed.join("tape")).unwrap_err();
        assert!(matches!(error, Error::Io { kind: io::ErrorKind::PermissionDenied, .. }), "{error}");
        assert_reads_the_same(&tape, &Tape::load(closed.join("tape")).unwrap());
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}

/// A disk that is always full, where there is one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_the_path() {
    let error = Tape::record(&[2.0], |x| x[0].sin()).unwrap().save("/dev/full").unwrap_err();
    assert!(matches!(error, Error::Io { kind: io::ErrorKind::StorageFull, .. }), "{error}");
    assert!(error.to_string().starts_with("writing the tape file /dev/full: "), "{error}");
}

// What no file can hold.

#[test]
fn code_is_refused_with_its_name_and_place() {
    let twice = Custom::unary("twice", |x| 2.0 * x, |_, _| 2.0);
    let direct = Tape::record(&[2.0], |x| x[0] + twice.call(&[x[0]])[0]).unwrap();
    let inside = Tape::record(&[2.0], |x| direct.call(x)).unwrap();
    let adjoint = direct.gradient_tape().unwrap();
    for tape in [&direct, &inside, &adjoint] {
        let mut bytes = Vec::new();
        let error = tape.write_to(&mut bytes).unwrap_err();
        let Error::NotStorable { function, location, .. } = &error else { panic!("{error}") };
        assert!(function.ends_with("twice"), "{function}");
        assert!(location.file().ends_with("tape_files.rs"), "{location}");
        assert!(error.to_string().contains("call it where you put them together"), "{error}");
        assert!(bytes.is_empty());
    }
}

// Memory.

/// Loading takes at most four times the file, and a mebibyte.
#[track_caller]
fn assert_bounded(what: &str, tape: &Tape) {
    let mut bytes = Vec::new();
    let len = {
        let mut counted = Counted(0);
        tape.write_to(&mut counted).unwrap();
        counted.0
    };
    bytes.reserve_exact(len);
    let saving = measure(|| tape.write_to(&mut bytes).unwrap());
    let small = 1 << 20;
    let functions = 4 * len as u64 / 10;
    assert!(saving.bytes_max < small + functions, "saving {what} of {len} bytes takes {}", saving.bytes_max);
    let mut loaded = None;
    let loading = measure(|| loaded = Some(read(&bytes).unwrap()));
    assert_takes_little(what, len, loading.bytes_max);
    assert_eq!(loaded.unwrap().content_hash(), tape.content_hash());
}

/// What is promised is a mebibyte. Where things are few, since nothing is
/// optimised, less has to do: else it would hide what each of them takes.
const SLACK: u64 = if cfg!(debug_assertions) { 1 << 17 } else { 1 << 20 };

#[track_caller]
fn assert_takes_little(what: &str, len: usize, taken: u64) {
    let most = 4 * len as u64 + SLACK;
    assert!(taken <= most, "loading {what} of {len} bytes takes {taken} > {most}");
}

struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn loading_and_saving_take_bounded_memory() {
    const N: usize = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let long = Tape::record(&[1.0, 2.0], |x| (0..10 * N).fold(x[0], |y, _| y * x[1])).unwrap();
    assert_bounded("a long tape", &long);
    let mixed = Tape::builder()
        .inputs(&[], &[1.0])
        .params(&[], &[2.0])
        .record(|x, k| {
            let mut sum = x[0];
            let mut param = k[0];
            for _ in 0..3 * N {
                param *= 0.5;
                sum += param;
            }
            sum
        })
        .unwrap();
    assert_bounded("rows of parameters and others by turns", &mixed);
    let guards = Tape::record(&[1.0], |x| {
        let above = (0..N).filter(|&i| x[0] > -(i as f64)).count();
        assert!((0..N).all(|_| x[0].value() == 1.0));
        x[0] * above as f64
    })
    .unwrap();
    assert_bounded("guards and escapes", &guards);
    let names: Vec<String> = (0..N).map(|i| format!("{i:x}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let numbers = vec![1.0; N];
    let inputs = Tape::builder().inputs(&names, &numbers).record(|x, _| x[0]).unwrap();
    assert_bounded("names of inputs", &inputs);
    let params = Tape::builder().inputs(&["x"], &[1.0]).params(&names, &numbers).record(|x, _| x[0]).unwrap();
    assert_bounded("names of parameters", &params);
    let unnamed = Tape::record(&numbers, |x| Var::sum_of(x)).unwrap();
    assert_bounded("inputs without names", &unnamed);
    let long_name = "n".repeat(N);
    let looked_at = Tape::builder()
        .inputs(&[&long_name], &[1.0])
        .record(|x, _| x[0] * (0..1000).filter(|&i| x[0] > -(i as f64)).count() as f64)
        .unwrap();
    assert_bounded("guards on a variable with a long name", &looked_at);
    let bodies = Tape::record(&[1.0], |x| {
        (0..3_000).fold(x[0], |y, i| {
            let body = Tape::record(&[1.0], |z| z[0] + f64::from(i)).unwrap();
            body.call(&[y])[0]
        })
    })
    .unwrap();
    assert_bounded("many small bodies", &bodies);
    let body = Tape::record(&[1.0], |z| z[0].sin()).unwrap();
    let derivatives = Tape::record(&vec![1.0; 40], |x| {
        (1..2_000).map(|i| body.map_sum((0..i % 37 + 2).map(|j| [x[j]]))[0]).collect::<Vec<_>>()
    })
    .unwrap();
    assert_bounded("many loops", &derivatives);
    let places: Vec<usize> = (0..N).map(|i| i * i % 40).collect();
    let listed = Tape::record(&vec![1.0; 40], |x| body.map_sum(places.iter().map(|&i| [x[i]]))).unwrap();
    assert_bounded("listed places", &listed);
}

/// Each alone, and so many that a mebibyte is little.
#[test]
fn loading_takes_bounded_memory_for_many_of_one_kind() {
    const N: usize = if cfg!(debug_assertions) { 50_000 } else { 500_000 };
    let guards = Tape::record(&[1.0], |x| {
        assert!((0..N).all(|_| x[0] > 0.0));
        x[0]
    });
    assert_bounded("guards alone", &guards.unwrap());
    let escapes = Tape::record(&[1.0], |x| {
        assert!((0..N).all(|_| x[0].value() == 1.0));
        x[0]
    });
    assert_bounded("escapes alone", &escapes.unwrap());
    let constants = Tape::record(&[1.0], |_| (0..N).map(|i| Var::from(i as f64)).collect::<Vec<_>>()).unwrap();
    assert_bounded("constants", &constants);
    let outputs = Tape::record(&[1.0], |x| vec![x[0]; N]).unwrap();
    assert_bounded("outputs", &outputs);
    let wide = Tape::record(&[1.0], |x| (0..N / 4).fold(x[0], |y, _| Var::sum_of(&[y, x[0], y, x[0]]))).unwrap();
    assert_bounded("operands", &wide);

    // Names that fill their place in the file, with guards and escapes that look at them.
    let names: Vec<String> = (0..N).map(|i| format!("{i:012}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let numbers = vec![1.0; N];
    for what in ["nothing", "half a guard", "a guard", "an escape"] {
        let look = |x: &[Var]| match what {
            "half a guard" => x.chunks(2).filter(|x| x[0] == x[1]).count(),
            "a guard" => x.iter().filter(|x| **x > 0.0).count(),
            "an escape" => x.iter().filter(|x| x.value() == 1.0).count(),
            _ => 0,
        };
        let inputs = Tape::builder().inputs(&names, &numbers).record(|x, _| x[0] * look(x) as f64).unwrap();
        assert_bounded(&format!("inputs with {what} each"), &inputs);
        let params = Tape::builder().inputs(&["x"], &[1.0]).params(&names, &numbers);
        assert_bounded(&format!("parameters with {what} each"), &params.record(|x, k| x[0] * look(k) as f64).unwrap());
    }

    // More places than the lines of this file: those of a tape, again and again.
    let small = bytes_of(&Tape::record(&[1.0], |x| x[0].sin()).unwrap());
    let list = parts_of(&small);
    let place = list + 256 + 16 + 4;
    let mut places = [&small[..place], &small[place..place + 12].repeat(N), &small[place..]].concat();
    assert_eq!(small[list + 32..list + 36], [1, 0, 0, 0], "one place");
    set_word(&mut places, list + 32, N as u32 + 1);
    reseal(&mut places);
    let mut loaded = None;
    let loading = measure(|| loaded = Some(read(&places).unwrap()));
    assert_takes_little("places", places.len(), loading.bytes_max);
    assert_same(&loaded.unwrap().eval(&[0.5]).unwrap(), &[0.5_f64.sin()], "sin");
}

// serde.

#[test]
fn documents_bring_back_the_same_tape() {
    let tape = assorted();
    let force = tape.vjp_tape().unwrap().jvp_tape().unwrap();
    for tape in [&tape, &force].into_iter().chain(&small_tapes()) {
        let json = serde_json::to_string(tape).unwrap();
        let loaded: Tape = serde_json::from_str(&json).unwrap();
        assert_reads_the_same(tape, &loaded);
        assert!(bytes_of(tape) == bytes_of(&loaded), "the files of both differ");
        assert_eq!(json, serde_json::to_string(&loaded).unwrap());
    }
    for index in 0..20 {
        let random = &mut Random::new(74, index);
        let program = Program::new(random, Purpose { single: false, params: true, guarded: 40, calls: 50 });
        let loaded: Tape = serde_json::from_str(&serde_json::to_string(&program.tape).unwrap()).unwrap();
        assert!(bytes_of(&program.tape) == bytes_of(&loaded), "{}", program.tape);
    }
}

#[test]
fn documents_can_be_read_by_people() {
    let tape = Tape::builder()
        .inputs(&["x"], &[1.5])
        .record(|x, _| x[0] * 0.1 + x[0] * -0.0 + x[0].max(f64::NAN) + x[0] * f64::NEG_INFINITY)
        .unwrap();
    let json: serde_json::Value = serde_json::to_value(&tape).unwrap();
    assert_eq!((&json["format"], &json["version"]), (&"ad-core tape".into(), &1.into()));
    let list = &json["parts"][0]["list"];
    assert_eq!(list["constants"], serde_json::json!(["0.1", "-0.0", "NaN", "-inf"]));
    assert_eq!(list["inputs"][0]["text"], "x");
    assert_eq!((&list["rows"][0]["op"], &list["rows"][0]["operands"]), (&"mul".into(), &serde_json::json!([4, 0])));
    assert_eq!(json["parts"][1]["tape"]["list"], 0);
}

/// The document that the page on tape files shows.
#[test]
fn the_document_of_the_page_is_a_tape() {
    let page = include_str!("../../../docs/tape-files.md");
    let json = page.split("```json").nth(1).unwrap().split("```").next().unwrap();
    let tape: Tape = serde_json::from_str(json).unwrap();
    assert_eq!(tape.to_string(), "v₀ = x\nk = parameter\nv₁ = sin(v₀)\nv₂ = v₁·k\ny = v₂\n");
    assert_eq!(tape.guards()[0].to_string(), "x < 2.5 was true");
}

#[test]
fn hostile_documents_are_errors() {
    let tape = small_tapes().swap_remove(2);
    let right = serde_json::to_value(&tape).unwrap();
    // Each number and each text of the document, replaced by others.
    let mut paths = Vec::new();
    let mut waiting = vec![(String::new(), &right)];
    while let Some((path, value)) = waiting.pop() {
        match value {
            serde_json::Value::Array(items) => {
                waiting.extend(items.iter().enumerate().map(|(i, item)| (format!("{path}/{i}"), item)));
            }
            serde_json::Value::Object(items) => {
                waiting.extend(items.iter().map(|(key, item)| (format!("{path}/{key}"), item)));
            }
            _ => {}
        }
        if !path.is_empty() {
            paths.push(path);
        }
    }
    let others = ["4294967295", "0", "1", "-1", "1e400", "\"NaN:0\"", "\"mul\"", "[]", "[0,0,0]", "{}", "null", "true"];
    let others = others.map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default());
    let (mut loaded, mut refused, mut known) = (0, 0, HashSet::new());
    for path in &paths {
        for other in &others {
            let mut hostile = right.clone();
            *hostile.pointer_mut(path).unwrap() = other.clone();
            match serde_json::from_value::<Tape>(hostile) {
                Ok(tape) => {
                    loaded += 1;
                    exercise_if_new(&mut known, &tape);
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    assert!(loaded > 20 && refused > 500, "{loaded} loaded, {refused} refused");
    for (right, wrong) in [
        ("\"NaN:7ff80000deadbeef\"", "\"NaN:+ff80000deadbeef\""),
        ("\"NaN:7ff80000deadbeef\"", "\"NaN:07ff80000deadbeef\""),
        ("\"NaN:7ff80000deadbeef\"", "\"NaN:7FF80000DEADBEEF\""),
        ("\"NaN:7ff80000deadbeef\"", "\"NaN:0000000000000001\""),
        ("\"strided\":{", "\"strided\":{\"third\":1,"),
    ] {
        let json = serde_json::to_string(&assorted()).unwrap();
        assert!(json.contains(right), "{right}");
        assert!(serde_json::from_str::<Tape>(&json.replacen(right, wrong, 1)).is_err(), "{wrong}");
    }
    let error = serde_json::from_str::<Tape>(r#"{"format": "ad-core tape", "version": 2, "parts": []}"#).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
    let error = serde_json::from_str::<Tape>(r#"{"format": "ad-core tape", "version": 1, "parts": []}"#).unwrap_err();
    assert!(error.to_string().contains("the last part is no tape"), "{error}");
}

#[test]
fn functions_nested_too_deep_are_errors_and_not_stack_overflows() {
    let square = Tape::record(&[0.5], |x| x[0] * x[0]).unwrap();
    let right = serde_json::to_value(Tape::record(&[0.5], |x| square.call(x)).unwrap()).unwrap();
    let [list, tape, rolled, outer_list, outer_tape] = &right["parts"].as_array().unwrap()[..] else {
        panic!("{right}")
    };
    let document =
        |parts: Vec<serde_json::Value>| serde_json::json!({ "format": "ad-core tape", "version": 1, "parts": parts });

    // Calls in calls: list, tape and loop again and again.
    let nested = |levels: usize| {
        let mut parts = vec![list.clone(), tape.clone()];
        for _ in 0..levels {
            let [mut rolled, mut list, mut tape] = [rolled, outer_list, outer_tape].map(Clone::clone);
            rolled["loop"]["body"] = (parts.len() - 1).into();
            list["list"]["functions"][0] = parts.len().into();
            tape["tape"]["list"] = (parts.len() + 1).into();
            parts.extend([rolled, list, tape]);
        }
        document(parts)
    };
    let deepest: Tape = serde_json::from_value(nested(65)).unwrap();
    assert_eq!(deepest.eval(&[1.0]).unwrap(), [1.0]);
    for levels in [66, 5_000] {
        let error = serde_json::from_value::<Tape>(nested(levels)).unwrap_err();
        assert!(error.to_string().contains("nested deeper than 64"), "{error}");
    }

    // Adjoints of adjoints.
    let derived = |levels: usize| {
        let mut parts = vec![list.clone(), tape.clone(), rolled.clone()];
        parts.extend((0..levels).map(|level| serde_json::json!({ "adjoint": level + 2 })));
        document(parts)
    };
    let error = |levels| serde_json::from_value::<Tape>(derived(levels)).unwrap_err().to_string();
    assert!(error(32).contains("the last part is no tape"), "{}", error(32));
    assert!(error(33).contains("nested deeper than 32"), "{}", error(33));
    assert!(error(5_000).contains("nested deeper than 32"), "{}", error(5_000));
}
