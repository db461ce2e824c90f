//! Operations of users: their derivatives in every driver, and what the check of their rules finds.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ad_core::{Custom, CustomOp, CustomProducts, Error, Matrix, Rule, Tape, Var, Workspace};
use allocation_counter::measure;

#[path = "common/twins.rs"]
mod twins;

use twins::{Comparison, Recorded};

/// Sine and cosine, each the other's derivative: of any order.
struct Circular {
    is_sine: bool,
}

impl CustomOp for Circular {
    fn name(&self) -> &str {
        if self.is_sine { "sine" } else { "cosine" }
    }
    fn num_operands(&self) -> usize {
        1
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y[0] = if self.is_sine { Rule::sin(x[0]) } else { Rule::cos(x[0]) };
    }
    fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
        partials[0] = if self.is_sine { Rule::cos(x[0]) } else { -Rule::sin(x[0]) };
    }
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        let other = Custom::new(Circular { is_sine: !self.is_sine });
        let sign = if self.is_sine { 1.0 } else { -1.0 };
        Tape::record(&[0.0], |x| sign * other.call(x)[0]).map(Some)
    }
}

/// (a, b) ↦ (a·b, e^a, a·sin b), or with a defect in its rule.
#[derive(Clone, Copy)]
struct Mixed(Defect);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Defect {
    None,
    Sign,
    Transposed,
    Factor,
    Missing,
    NotANumber,
    DerivativeSign,
    DerivativeTransposed,
    DerivativeConstant,
}

impl CustomOp for Mixed {
    fn name(&self) -> &str {
        "mixed"
    }
    fn num_operands(&self) -> usize {
        2
    }
    fn num_results(&self) -> usize {
        3
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        y.copy_from_slice(&[x[0] * x[1], Rule::exp(x[0]), x[0] * Rule::sin(x[1])]);
    }
    fn partials(&self, x: &[f64], y: &[f64], partials: &mut [f64]) {
        let mut right = [x[1], x[0], y[1], 0.0, Rule::sin(x[1]), x[0] * Rule::cos(x[1])];
        match self.0 {
            Defect::Sign => right[5] *= -1.0,
            Defect::Factor => right[1] *= 2.0,
            Defect::Missing => right[2] = 0.0,
            Defect::NotANumber => right[4] = f64::NAN,
            Defect::Transposed => right = [right[0], right[2], right[4], right[1], right[3], right[5]],
            _ => {}
        }
        partials.copy_from_slice(&right);
    }
    fn derivative(&self) -> Result<Option<Tape>, Error> {
        Tape::record(&[0.3, 0.7], |x| {
            let zero = Var::from(0.0);
            let right = [x[1], x[0], x[0].exp(), zero, x[1].sin(), x[0] * x[1].cos()];
            match self.0 {
                Defect::DerivativeSign => [right[0], right[1], -right[2], right[3], right[4], right[5]],
                Defect::DerivativeTransposed => [right[0], right[2], right[4], right[1], right[3], right[5]],
                // Right where it is recorded, and only there.
                Defect::DerivativeConstant => right.map(|entry| Var::from(entry.value())),
                _ => right,
            }
        })
        .map(Some)
    }
}

/// yⱼ = Σ xᵢ² over i ≤ j, by products: J is a triangle.
#[derive(Clone, Copy)]
struct RunningSquares(usize, ProductDefect);

#[derive(Clone, Copy, PartialEq, Debug)]
enum ProductDefect {
    None,
    Jvp,
    Vjp,
    Tape,
}

impl CustomProducts for RunningSquares {
    fn name(&self) -> &str {
        "running_squares"
    }
    fn num_operands(&self) -> usize {
        self.0
    }
    fn num_results(&self) -> usize {
        self.0
    }
    fn value(&self, x: &[f64], y: &mut [f64]) {
        let mut sum = 0.0;
        for (y, x) in y.iter_mut().zip(x) {
            sum += x * x;
            *y = sum;
        }
    }
    fn jvp(&self, x: &[f64], _y: &[f64], p: &[f64], jp: &mut [f64]) {
        let mut sum = 0.0;
        for ((jp, x), p) in jp.iter_mut().zip(x).zip(p) {
            sum += if self.1 == ProductDefect::Jvp { x * p } else { 2.0 * x * p };
            *jp = sum;
        }
    }
    fn vjp(&self, x: &[f64], _y: &[f64], w: &[f64], xbar: &mut [f64]) {
        let mut sum = 0.0;
        for i in (0..x.len()).rev() {
            sum += w[i];
            xbar[i] = 2.0 * x[i] * sum;
            if self.1 == ProductDefect::Vjp {
                sum = 0.0;
            }
        }
    }
    fn vjp_tape(&self) -> Result<Option<Tape>, Error> {
        let n = self.0;
        Tape::record(&vec![1.0; 2 * n], |v| {
            let (x, w) = v.split_at(n);
            let mut sum = Var::from(0.0);
            let mut xbar = vec![sum; n];
            for i in (0..n).rev() {
                sum += w[i];
                xbar[i] = if self.1 == ProductDefect::Tape { sum + x[i] } else { 2.0 * x[i] * sum };
            }
            xbar
        })
        .map(Some)
    }
}

fn closed_root() -> Custom {
    let slope = Tape::record(&[1.0], |x| 0.5 / x[0].sqrt()).unwrap();
    Custom::unary("root", f64::sqrt, |_, y| 0.5 / y).with_derivative(&slope).unwrap()
}

#[test]
fn every_driver_says_what_it_says_of_the_code_written_out() {
    let (sine, mixed, root) =
        (Custom::new(Circular { is_sine: true }), Custom::new(Mixed(Defect::None)), closed_root());
    let squares = Custom::from_products(RunningSquares(3, ProductDefect::None));
    let body = {
        let mixed = mixed.clone();
        Tape::record(&[0.2, 0.4], move |x| mixed.call(x)[2] + x[0]).unwrap()
    };
    let flat_mixed = |a: Var, b: Var| vec![a * b, a.exp(), a * b.sin()];
    let flat_squares = |x: &[Var]| {
        let mut sum = Var::from(0.0);
        x.iter()
            .map(|&x| {
                sum += x * x;
                sum
            })
            .collect::<Vec<_>>()
    };
    let cases: [(&str, Recorded<'_>, Recorded<'_>); 6] = [
        ("sine", &|x| vec![sine.call(&[x[0] * x[1]])[0] * x[2]], &|x| vec![(x[0] * x[1]).sin() * x[2]]),
        ("mixed", &|x| mixed.call(&[x[0], x[2]]), &|x| flat_mixed(x[0], x[2])),
        (
            "one variable twice, and a constant",
            &|x| [mixed.call(&[x[0], x[0]]), mixed.call(&[Var::from(0.5), x[1] + x[2]])].concat(),
            &|x| [flat_mixed(x[0], x[0]), flat_mixed(Var::from(0.5), x[1] + x[2])].concat(),
        ),
        ("in the body of a map", &|x| vec![body.map_sum(x.windows(2))[0], body.map(x.windows(2))[1]], &|x| {
            let body = |a: Var, b: Var| a * b.sin() + a;
            vec![body(x[0], x[1]) + body(x[1], x[2]), body(x[1], x[2])]
        }),
        ("products", &|x| squares.call(&[x[0], x[1] * x[2], x[2]]), &|x| flat_squares(&[x[0], x[1] * x[2], x[2]])),
        ("closures", &|x| vec![root.call(&[x[0] * x[0] + 1.0])[0] * x[1] * x[2]], &|x| {
            vec![(x[0] * x[0] + 1.0).sqrt() * x[1] * x[2]]
        }),
    ];
    for (name, called, flat) in cases {
        Comparison { name, tolerance: 1e-12 }.everywhere(called, flat, &[0.3, 0.8, -0.4], &[0.7, -0.4, 1.3]);
    }
}

#[test]
fn sparse_drivers_and_self_checks_go_through_calls() {
    let (sine, mixed) = (Custom::new(Circular { is_sine: true }), Custom::new(Mixed(Defect::None)));
    let squares = Custom::from_products(RunningSquares(3, ProductDefect::None));
    let cases: [(&str, Recorded<'_>); 3] = [
        ("sine", &|x| vec![sine.call(&[x[0] * x[1]])[0] * x[2]]),
        ("mixed", &|x| mixed.call(&[x[0], x[2]])),
        ("products", &|x| squares.call(&[x[0], x[1] * x[2], x[2]])),
    ];
    for (name, called) in cases {
        let compare = Comparison { name, tolerance: 1e-12 };
        compare.sparse(called, &[0.3, 0.8, -0.4], &[0.7, -0.4, 1.3]);
        compare.self_check(called, &[0.3, 0.8, -0.4], &[0.7, -0.4, 1.3]);
    }
}

#[test]
fn it_is_evaluated_at_replay() {
    // The rule is asked at each point, not once at the recording.
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let floor = Custom::unary(
        "hat",
        move |x| {
            counted.fetch_add(1, Ordering::Relaxed);
            (x - x.floor()).abs()
        },
        |_, _| 1.0,
    );
    let tape = Tape::record(&[0.25], |x| floor.call(x)).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(tape.eval(&[7.75]).unwrap(), [0.75]);
    assert_eq!(tape.optimized().eval(&[-0.5]).unwrap(), [0.5]);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert!(tape.guards().is_empty() && tape.escapes().is_empty());
    // Of constants it is a constant.
    let constant = Tape::record(&[0.25], |x| floor.call(&[Var::from(3.5)])[0] * x[0]).unwrap();
    assert_eq!(constant.eval(&[4.0]).unwrap(), [2.0]);
    assert!(constant.functions().is_empty());
}

#[test]
fn outside_the_domain_derivatives_are_nan() {
    // The slope of the logarithm, 1/x, is a number for negative x, too.
    let slope = Tape::record(&[1.0], |x| x[0].recip()).unwrap();
    let ln = Custom::unary("ln", f64::ln, |x, _| 1.0 / x).with_derivative(&slope).unwrap();
    let flat = Tape::record(&[2.0, 1.0], |x| x[0].ln() * x[1] + x[1]).unwrap();
    let called = Tape::record(&[2.0, 1.0], |x| ln.call(&x[..1])[0] * x[1] + x[1]).unwrap();
    let tape = |f: &Tape| [f.jvp_tape().unwrap(), f.vjp_tape().unwrap()];
    for x in [[-1.0, 2.0], [0.0, 0.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0], [2.0, f64::NAN], [0.0, 3.0]] {
        let close = Comparison { name: "ln", tolerance: 1e-15 };
        for p in [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] {
            close.close("J·p", &called.jvp(&x, &p).unwrap().1, &flat.jvp(&x, &p).unwrap().1);
            let point = [x, p].concat();
            let [of_called, of_flat] = [&called, &flat].map(|f| tape(f)[0].eval(&point).unwrap());
            close.close("jvp tape", &of_called, &of_flat);
        }
        for w in [0.0, 1.0] {
            close.close("Jᵀ·w", &called.vjp(&x, &[w]).unwrap().1, &flat.vjp(&x, &[w]).unwrap().1);
            let point = [x.as_slice(), &[w]].concat();
            let [of_called, of_flat] = [&called, &flat].map(|f| tape(f)[1].eval(&point).unwrap());
            close.close("vjp tape", &of_called, &of_flat);
        }
    }
    // A branch that is not taken does not matter.
    let select = Tape::record(&[2.0], |x| x[0].select_gt(0.0, ln.call(x)[0], x[0])).unwrap();
    assert_eq!(select.gradient(&[-3.0]).unwrap(), (-3.0, vec![1.0]));

    // By products: 0 where nothing moves, NaN where something does.
    struct Root;
    impl CustomProducts for Root {
        fn name(&self) -> &str {
            "root"
        }
        fn num_operands(&self) -> usize {
            2
        }
        fn num_results(&self) -> usize {
            2
        }
        fn value(&self, x: &[f64], y: &mut [f64]) {
            y.copy_from_slice(&[x[0].sqrt(), x[1]]);
        }
        fn jvp(&self, _: &[f64], _: &[f64], p: &[f64], jp: &mut [f64]) {
            jp.copy_from_slice(p);
        }
        fn vjp(&self, _: &[f64], _: &[f64], w: &[f64], xbar: &mut [f64]) {
            xbar.copy_from_slice(w);
        }
        fn vjp_tape(&self) -> Result<Option<Tape>, Error> {
            Tape::record(&[1.0; 4], |v| [v[2], v[3]]).map(Some)
        }
    }
    let root = Custom::from_products(Root);
    let tape = Tape::record(&[1.0, 1.0], |x| root.call(x)).unwrap();
    let jvp = tape.jvp_tape().unwrap();
    let (dy, none) = (tape.jvp(&[-1.0, 1.0], &[0.0, 1.0]).unwrap().1, tape.jvp(&[-1.0, 1.0], &[0.0, 0.0]).unwrap().1);
    assert!(dy[0].is_nan() && dy[1] == 1.0 && none == [0.0, 0.0]);
    let of_tape = jvp.eval(&[-1.0, 1.0, 0.0, 1.0]).unwrap();
    assert!(of_tape[0].is_nan() && of_tape[1] == 1.0, "{of_tape:?}");
    // Operands that move alike, or against each other, move.
    for p in [[1.0, 1.0], [1.0, -1.0]] {
        assert!(jvp.eval(&[-1.0, 1.0, p[0], p[1]]).unwrap()[0].is_nan(), "{p:?}");
    }
    assert_eq!(jvp.eval(&[-1.0, 1.0, 0.0, 0.0]).unwrap(), [0.0, 0.0]);
    assert_eq!(tape.vjp(&[-1.0, 1.0], &[0.0, 2.0]).unwrap().1, [0.0, 2.0]);
    assert!(tape.vjp(&[-1.0, 1.0], &[1.0, 2.0]).unwrap().1.iter().all(|x| x.is_nan()));
}

#[test]
fn calls_that_do_not_matter_are_not_differentiated() {
    let square = Custom::unary("square", |x| x * x, |x, _| 2.0 * x);
    // No input moves it, and no derivative of it is known.
    let tape = Tape::builder().inputs(&[], &[1.0]).params(&[], &[3.0]).record(|x, k| x[0] * square.call(k)[0]).unwrap();
    assert_eq!(tape.jvp_tape().unwrap().eval(&[2.0, 1.0]).unwrap(), [9.0]);
    // Nothing reads it.
    let recorded = |dead: bool| {
        let f = |x: &[Var]| {
            let y = x[0].sin();
            if dead {
                square.call(&[y]);
            }
            y * x[0]
        };
        Tape::record(&[1.0], f).unwrap().gradient_tape().unwrap()
    };
    assert_eq!(recorded(true).to_string(), recorded(false).to_string());
}

#[test]
fn derivatives_of_named_functions_have_their_names() {
    let ln = Custom::unary("ln", f64::ln, |x, _| 1.0 / x);
    let ln = ln.with_derivative(&Tape::record(&[1.0], |x| x[0].recip()).unwrap()).unwrap();
    let square = Tape::record(&[1.0], |x| x[0] * x[0]).unwrap().named("square");
    let tape = Tape::record(&[2.0, 3.0], |x| [ln.call(&[x[0]])[0], square.call(&x[1..])[0]]).unwrap();
    for derivative in [tape.jvp_tape().unwrap(), tape.jvp_tape().unwrap().jvp_tape().unwrap()] {
        let names: Vec<_> = derivative.functions().iter().map(|function| function.name()).collect();
        assert_eq!(names, [Some("ln"), Some("square")]);
    }
}

#[test]
fn infinite_partials_count_as_zero_beside_zero() {
    // √ at 0: ∞·0 is 0, as for the operation of the table.
    let root = closed_root();
    let tape = Tape::record(&[1.0, 1.0], |x| root.call(&x[..1])[0] * x[1]).unwrap();
    assert_eq!(tape.jvp(&[0.0, 2.0], &[0.0, 1.0]).unwrap().1, [0.0]);
    assert_eq!(tape.vjp(&[0.0, 0.0], &[1.0]).unwrap().1, [0.0, 0.0]);
    assert_eq!(tape.gradient(&[0.0, 2.0]).unwrap().1, [f64::INFINITY, 0.0]);
}

#[test]
fn what_is_not_written_shows() {
    struct Forgetful;
    impl CustomOp for Forgetful {
        fn name(&self) -> &str {
            "forgetful"
        }
        fn num_operands(&self) -> usize {
            1
        }
        fn num_results(&self) -> usize {
            2
        }
        fn value(&self, x: &[f64], y: &mut [f64]) {
            y[0] = x[0];
        }
        fn partials(&self, _: &[f64], _: &[f64], partials: &mut [f64]) {
            partials[0] = 1.0;
        }
    }
    let forgetful = Custom::new(Forgetful);
    let tape = Tape::record(&[1.0], |x| forgetful.call(x)).unwrap();
    let ws = &mut Workspace::new();
    for _ in 0..2 {
        let (mut y, mut dy) = ([0.0; 2], [0.0; 2]);
        tape.jvp_into(ws, &[3.0], &[1.0], &mut y, &mut dy).unwrap();
        assert!(y[0] == 3.0 && y[1].is_nan() && dy[0] == 1.0 && dy[1].is_nan());
    }
}

/// A function that claims more results than there can be.
struct Boundless;

impl CustomOp for Boundless {
    fn name(&self) -> &str {
        "boundless"
    }
    fn num_operands(&self) -> usize {
        1
    }
    fn num_results(&self) -> usize {
        usize::MAX
    }
    fn value(&self, _: &[f64], _: &mut [f64]) {}
    fn partials(&self, _: &[f64], _: &[f64], _: &mut [f64]) {}
}

#[test]
fn results_beyond_all_bounds_are_an_error() {
    let boundless = Custom::new(Boundless);
    for operands in 0..3 {
        let tape = Tape::record(&[1.0, 2.0], |x| boundless.call(&x[..operands])[0] + x[0]);
        assert!(matches!(tape, Err(Error::TooLarge { .. })), "{tape:?}");
    }
    let derivative = Tape::record(&[1.0], |x| x[0]).unwrap();
    let checked = boundless.check_rule(&[1.0]);
    assert!(matches!(checked, Err(Error::TooManyNumbers { numbers: usize::MAX, .. })), "{checked:?}");
    assert!(matches!(boundless.with_derivative(&derivative), Err(Error::RuleShape { .. })));
}

#[test]
fn errors_say_what_is_missing_and_where() {
    let root = Custom::unary("root", f64::sqrt, |_, y| 0.5 / y);
    let line = line!() + 1;
    let tape = Tape::record(&[4.0], |x| root.call(x)[0] * x[0]).unwrap();
    let errors = [
        tape.hessian(&[4.0]).unwrap_err(),
        tape.hvp(&[4.0], &[1.0]).unwrap_err(),
        tape.jvp_tape().unwrap_err(),
        tape.gradient_tape().unwrap().jvp_tape().unwrap_err(),
        tape.gradient_tape().unwrap().gradient(&[4.0]).unwrap_err(),
        Tape::record(&[4.0], |x| tape.call(x)).unwrap().hessian(&[4.0]).unwrap_err(),
    ];
    for error in errors {
        let Error::NoSecondDerivative { function, location: Some(location) } = &error else { panic!("{error}") };
        assert_eq!((function.as_str(), location.line()), ("root", line), "{error}");
        assert!(location.file().ends_with("custom.rs"));
        assert!(error.to_string().starts_with("second derivatives are wanted of root, called at "), "{error}");
    }
    // A first-order derivative tape needs none.
    assert_eq!(tape.gradient_tape().unwrap().eval(&[4.0]).unwrap(), [3.0]);

    for (x, expected) in [(0, 1), (2, 1)] {
        let wrong = Tape::record(&[1.0; 2], |v| {
            root.call(&v[..x]);
            v[0]
        });
        assert!(
            matches!(&wrong, Err(Error::CallArguments { function, expected: e, got, .. }) if function == "root" && *e == expected && *got == x),
            "{wrong:?}"
        );
    }
    let nothing = Custom::scalar("nothing", 0, |_| 1.0, |_, _, _| {});
    assert!(matches!(Tape::record(&[1.0], |_| nothing.call(&[])), Err(Error::CallArguments { .. })));
    assert_eq!(nothing.check_rule(&[]).unwrap().agreed, 0);

    let two = Tape::record(&[1.0, 1.0], |x| x[0] * x[1]).unwrap();
    assert!(matches!(root.with_derivative(&two), Err(Error::RuleShape { expected: 1, got: 2, .. })));
    let twice = Tape::record(&[1.0], |x| [x[0], x[0]]).unwrap();
    assert!(matches!(root.with_derivative(&twice), Err(Error::RuleShape { expected: 1, got: 2, .. })));

    // Other number types have no way to run it.
    #[derive(Clone, Copy, Debug)]
    struct Single(f64);
    impl From<f64> for Single {
        fn from(c: f64) -> Single {
            Single(c)
        }
    }
    impl Rule for Single {
        fn apply<O: ad_core::ops::Operation<N, M>, const N: usize, const M: usize>(x: [Single; N]) -> [Single; M] {
            f64::apply::<O, N, M>(x.map(|x| x.0)).map(Single)
        }
        fn fold<O: ad_core::ops::Fold>(x: &[Single]) -> Single {
            let x: Vec<f64> = x.iter().map(|x| x.0).collect();
            Single::from(O::value(&x))
        }
        fn confirm(
            _: ad_core::Question,
            _: ad_core::Answer,
            _: Single,
            _: Single,
        ) -> Result<(), (ad_core::Answer, f64, f64)> {
            Ok(())
        }
    }
    ad_core::rule_operators!([] Single);
    let error = tape.eval_with(&[Single(4.0)]).unwrap_err();
    assert!(matches!(&error, Error::OnlyNumbers { function, .. } if function == "root"), "{error}");
}

#[test]
fn check_rule_finds_what_is_wrong() {
    use Defect::{
        DerivativeConstant, DerivativeSign, DerivativeTransposed, Factor, Missing, NotANumber, Sign, Transposed,
    };
    // The defect, and the entry that is named at (0.5, 1.25).
    let defects = [
        (Sign, "the partials", 2, 1),
        (Transposed, "the partials", 1, 0),
        (Factor, "the partials", 0, 1),
        (Missing, "the partials", 1, 0),
        (NotANumber, "the partials", 2, 0),
        (DerivativeSign, "the outputs of the derivative tape", 1, 0),
        (DerivativeTransposed, "the outputs of the derivative tape", 0, 1),
        (DerivativeConstant, "the outputs of the derivative tape", 0, 0),
    ];
    for (defect, expected, of_result, by_operand) in defects {
        match Custom::new(Mixed(defect)).check_rule(&[0.5, 1.25]) {
            Err(Error::WrongRule { function, what, result, operand, .. }) => {
                assert_eq!((function.as_str(), what), ("mixed", expected), "{defect:?}");
                assert_eq!((result, operand), (of_result, by_operand), "{defect:?}");
            }
            other => panic!("{defect:?}: {other:?}"),
        }
    }
    // Where it was recorded, only the derivatives of the derivative give the constants away.
    let what = |op: Custom, x: &[f64]| match op.check_rule(x) {
        Err(Error::WrongRule { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let there = what(Custom::new(Mixed(DerivativeConstant)), &[0.3, 0.7]);
    assert_eq!(there, "the derivatives of the derivative tape");
    let products = [
        (ProductDefect::Jvp, "the products jvp"),
        (ProductDefect::Vjp, "the products vjp"),
        (ProductDefect::Tape, "the outputs of the tape vjp_tape"),
    ];
    for (defect, expected) in products {
        assert_eq!(what(Custom::from_products(RunningSquares(3, defect)), &[0.5, -1.0, 2.0]), expected);
    }
    let message = Custom::new(Mixed(Sign)).check_rule(&[0.5, 1.25]).unwrap_err().to_string();
    assert!(message.ends_with(": the sign is wrong"), "{message}");
    let message = Custom::new(Mixed(Factor)).check_rule(&[0.5, 1.25]).unwrap_err().to_string();
    assert!(message.ends_with(": twice as much"), "{message}");
    for (x, index) in [([f64::NAN, 1.0], 0), ([1.0, f64::INFINITY], 1)] {
        let error = Custom::new(Mixed(Defect::None)).check_rule(&x).unwrap_err();
        assert!(matches!(error, Error::NonFinitePoint { index: i, .. } if i == index), "{error}");
    }
    assert!(matches!(closed_root().check_rule(&[1.0, 2.0]), Err(Error::Length { .. })));
}

type Scalar = fn(f64) -> f64;

/// Rules that are right, of every kind that a difference quotient has trouble with.
fn right_rules() -> Vec<(&'static str, Scalar, Scalar)> {
    vec![
        ("sin", f64::sin, f64::cos),
        ("exp", f64::exp, f64::exp),
        ("steep exp", |x| (1e4 * x).exp(), |x| 1e4 * (1e4 * x).exp()),
        ("steep tanh", |x| (1e6 * x).tanh(), |x| 1e6 / (1e6 * x).cosh().powi(2)),
        ("fast sine", |x| (1e5 * x).sin(), |x| 1e5 * (1e5 * x).cos()),
        ("cube", |x| x * x * x, |x| 3.0 * x * x),
        ("1/x", |x| 1.0 / x, |x| -1.0 / (x * x)),
        ("1/x²", |x| x.powi(-2), |x| -2.0 * x.powi(-3)),
        ("sqrt", f64::sqrt, |x| 0.5 / x.sqrt()),
        ("cbrt", f64::cbrt, |x| 1.0 / (3.0 * x.cbrt().powi(2))),
        ("ln", f64::ln, |x| 1.0 / x),
        ("abs", f64::abs, |x| x.signum()),
        ("relu", |x| x.max(0.0), |x| f64::from(u8::from(x > 0.0))),
        ("abs beside 1", |x| (x - 1.0).abs(), |x| (x - 1.0).signum()),
        ("step", f64::floor, |_| 0.0),
        ("saw", |x| x - x.floor(), |_| 1.0),
        ("large and flat", |x| 1e10 + 1e-6 * x, |_| 1e-6),
        ("tiny", |x| 1e-200 * x, |_| 1e-200),
        ("cancelling", |x| (1.0 + x) - 1.0, |_| 1.0),
        ("gauss", |x| (-x * x).exp(), |x| -2.0 * x * (-x * x).exp()),
        (
            "polynomial",
            |x| (x - 1.0) * (x - 2.0) * (x + 3.0),
            |x| (x - 2.0) * (x + 3.0) + (x - 1.0) * (x + 3.0) + (x - 1.0) * (x - 2.0),
        ),
        // Good to nine digits: a rounded table, an integral, an iteration.
        ("rounded", |x| (x.sin() * 1e9).round() / 1e9, f64::cos),
        ("constant", |_| 7.0, |_| 0.0),
    ]
}

/// From 1e-8 to 1e8, on both sides of 0, and where kinks and edges are.
fn points() -> Vec<f64> {
    let sizes = (-16..=16).map(|power| 10f64.powf(f64::from(power) / 2.0));
    let around_one = [1.0, 1.0 + 1e-12, 1.0 - 1e-6, 0.5, 2.0, std::f64::consts::FRAC_PI_2, std::f64::consts::PI];
    sizes.chain(around_one).flat_map(|x| [x, -x]).chain([0.0, 1e-300, 5e-324]).collect()
}

#[test]
fn check_rule_raises_no_false_alarm() {
    for (name, value, slope) in right_rules() {
        let op = Custom::unary(name, value, move |x, _| slope(x));
        for x in points() {
            if let Err(error) = op.check_rule(&[x]) {
                panic!("at {x}: {error}");
            }
        }
    }
    for x in points() {
        for (op, n) in [(Custom::new(Mixed(Defect::None)), 2), (Custom::new(Circular { is_sine: true }), 1)] {
            op.check_rule(&vec![x; n]).unwrap_or_else(|error| panic!("at {x}: {error}"));
        }
        let x = [x, 1.0, -x];
        Custom::from_products(RunningSquares(3, ProductDefect::None))
            .check_rule(&x)
            .unwrap_or_else(|e| panic!("{x:?}: {e}"));
    }
}

#[test]
fn check_rule_finds_wrong_slopes_at_most_points() {
    // Wherever quotients say anything a defect is found; where they do not, no entry counts as agreed.
    let smooth = ["sin", "exp", "cube", "1/x", "sqrt", "ln", "gauss", "polynomial", "steep tanh", "fast sine"];
    for factor in [-1.0, 0.5, 2.0, 1.001] {
        let (mut found, mut agreed, mut all) = (0, 0, 0);
        for (name, value, slope) in right_rules().into_iter().filter(|(name, ..)| smooth.contains(name)) {
            let wrong = Custom::unary(name, value, move |x, _| factor * slope(x));
            let right = Custom::unary(name, value, move |x, _| slope(x));
            // A slope of 0 is right whatever the factor.
            for x in points().into_iter().filter(|&x| value(x).is_finite() && slope(x).abs() > 1e-12) {
                all += usize::from(right.check_rule(&[x]).unwrap().agreed == 1);
                match wrong.check_rule(&[x]) {
                    Err(_) => found += 1,
                    Ok(check) => agreed += check.agreed,
                }
            }
        }
        assert!(all > 300, "{all}");
        assert!(found * 100 >= all * 92, "factor {factor}: {found} of {all}");
        assert!(agreed == 0, "factor {factor}: {agreed} of {all} pass");
    }
}

#[test]
fn sweeps_on_a_warm_workspace_allocate_nothing() {
    let (sine, mixed) = (Custom::new(Circular { is_sine: true }), Custom::new(Mixed(Defect::None)));
    let squares = Custom::from_products(RunningSquares(3, ProductDefect::None));
    let tape = Tape::record(&[0.3, 0.8, -0.4], |x| {
        let a = mixed.call(&[sine.call(&x[..1])[0], x[1]]);
        squares.call(&[a[0], a[1], x[2]])[2] + a[2]
    })
    .unwrap();
    let tapes = [tape.clone(), tape.gradient_tape().unwrap(), tape.gradient_tape().unwrap().jvp_tape().unwrap()];
    for (order, tape) in tapes.iter().enumerate() {
        let ws = &mut Workspace::new();
        let (n, m) = (tape.num_inputs(), tape.num_outputs());
        let x: Vec<f64> = (0..n).map(|i| 0.2 + 0.1 * i as f64).collect();
        let (mut y, mut dy, mut xbar, mut jac) = (vec![0.0; m], vec![0.0; m], vec![0.0; n], Matrix::default());
        let (p, w) = (vec![1.0; n], vec![1.0; m]);
        let mut hessian = Matrix::default();
        let mut round = || {
            let first = [
                measure(|| tape.eval_into(ws, &x, &mut y).unwrap()),
                measure(|| tape.jvp_into(ws, &x, &p, &mut y, &mut dy).unwrap()),
                measure(|| tape.vjp_into(ws, &x, &w, &mut y, &mut xbar).unwrap()),
                measure(|| tape.jacobian_into(ws, &x, &mut jac).unwrap()),
            ];
            let second = measure(|| {
                if m == 1 {
                    tape.hessian_into(ws, &x, &mut hessian).unwrap();
                }
            });
            first.iter().map(|counted| counted.count_total).sum::<u64>() + second.count_total
        };
        assert!(round() > 0, "nothing is counted");
        assert_eq!(round(), 0, "derivative {order}");
    }
}

/// What derivatives of an operation are made of is gone with the last tape that calls it.
#[test]
fn nothing_is_kept_for_ever() {
    struct Counted {
        _held: Arc<()>,
    }
    impl CustomOp for Counted {
        fn name(&self) -> &str {
            "counted"
        }
        fn num_operands(&self) -> usize {
            1
        }
        fn value(&self, x: &[f64], y: &mut [f64]) {
            y[0] = x[0] * x[0];
        }
        fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
            partials[0] = 2.0 * x[0];
        }
        fn derivative(&self) -> Result<Option<Tape>, Error> {
            Tape::record(&[0.0], |x| x[0] * 2.0).map(Some)
        }
    }
    let count = Arc::new(());
    {
        let square = Custom::new(Counted { _held: count.clone() });
        let tape = Tape::record(&[3.0], |x| square.call(x)[0] * x[0]).unwrap();
        assert_eq!(tape.hessian(&[3.0]).unwrap()[(0, 0)], 18.0);
        let third = tape.gradient_tape().unwrap().gradient_tape().unwrap().gradient_tape().unwrap();
        assert_eq!(third.eval(&[3.0]).unwrap(), [6.0]);
        tape.taylor(&[3.0], &[1.0], 4).unwrap();
    }
    assert_eq!(Arc::strong_count(&count), 1);
}
