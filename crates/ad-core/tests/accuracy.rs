//! How far value, first and second derivatives of the operations are from the
//! exact ones, and that `docs/accuracy.md` says so.
//!
//! The exact results are stored in `tests/reference/derivatives.bin`, which
//! `derivatives.py` beside it writes. The errors are the same on every machine,
//! as the bits of the operations are. `UPDATE_DOCS=1 cargo test -p ad-core
//! --test accuracy` writes the page anew.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::array::from_fn;
use std::fmt::Write;

use ad_core::ops::{self, Operation};
use ad_core::{Dual, Op, Rule};
use common::operation_list;

const REFERENCE: &[u8] = include_bytes!("reference/derivatives.bin");

/// The value, both first derivatives and the second derivative by operands i and j.
fn nested<O: Operation<N, M>, const N: usize, const M: usize>(x: &[f64], i: usize, j: usize) -> Dual<Dual> {
    let seed = |a: usize, b: usize| if a == b { 1.0 } else { 0.0 };
    let x: [Dual<Dual>; N] = from_fn(|k| Dual::new(Dual::new(x[k], seed(i, k)), Dual::new(seed(j, k), 0.0)));
    Dual::apply::<O, N, M>(x)[0]
}

macro_rules! operations {
    (operations { $( $Op:ident $o:tt => $call:expr; )* } folds { $($folds:tt)* }) => {
        fn differentiate(op: Op, x: &[f64], i: usize, j: usize) -> Dual<Dual> {
            match op {
                $(Op::$Op => nested::<ops::$Op, _, _>(x, i, j),)*
                other => panic!("{other:?} is no operation of a fixed number of operands"),
            }
        }
    };
}
operation_list!(operations);

// The stored results.

/// An exact result: the nearest number and what it lacks, in units in the last place.
#[derive(Debug, Clone, Copy)]
struct Exact {
    nearest: f64,
    rest: f64,
}

impl Exact {
    /// The distance to `got` in units in the last place of the exact result,
    /// where infinity counts as the number that would follow the largest one.
    fn error(self, got: f64) -> f64 {
        if got.is_nan() {
            return f64::INFINITY;
        }
        if got == self.nearest && (got.is_infinite() || self.rest == 0.0) {
            return 0.0;
        }
        // In the upper binades everything is scaled, so that nothing overflows.
        let large = got.abs().max(self.nearest.abs()) > 1e300;
        let scaled = |x: f64| match (large, x.is_infinite()) {
            (false, _) => x,
            (true, false) => x / 2.0_f64.powi(100),
            (true, true) => 2.0_f64.powi(924).copysign(x),
        };
        let exponent = ((self.nearest.abs().to_bits() >> 52) as i32).clamp(1, 2046) - 1075;
        let unit = if exponent < -1022 {
            f64::from_bits(1 << (exponent + 1074))
        } else {
            f64::from_bits(((exponent + 1023) as u64) << 52)
        };
        ((scaled(got) - scaled(self.nearest)) / scaled(unit) - self.rest).abs()
    }
}

/// The points of one operation.
struct Section {
    op: Op,
    operands: usize,
    variables: usize,
    points: Vec<(Vec<f64>, Vec<Exact>)>,
}

impl Section {
    /// The pairs of variables by which second derivatives are taken.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let variables = self.variables;
        (0..variables).flat_map(move |i| (i..variables).map(move |j| (i, j)))
    }
}

fn sections() -> Vec<Section> {
    let mut bytes = REFERENCE;
    let mut sections = Vec::new();
    while !bytes.is_empty() {
        let (line, rest) = bytes.split_at(bytes.iter().position(|&byte| byte == b'\n').unwrap());
        let words: Vec<&str> = std::str::from_utf8(line).unwrap().split(' ').collect();
        let number = |i: usize| words[i].parse::<usize>().unwrap();
        let op = *Op::ALL.iter().find(|op| op.info().name == words[0]).unwrap_or_else(|| panic!("no {}", words[0]));
        let mut section = Section { op, operands: number(1), variables: number(2), points: Vec::new() };
        let results = 1 + section.variables + section.pairs().count();
        let size = 8 * section.operands + 9 * results;
        let (points, next) = rest[1..].split_at(size * number(3));
        let float = |bytes: &[u8]| f64::from_le_bytes(bytes[..8].try_into().unwrap());
        section.points.extend(points.chunks(size).map(|point| {
            let (x, results) = point.split_at(8 * section.operands);
            let exact = |r: &[u8]| Exact { nearest: float(r), rest: f64::from(r[8].cast_signed()) / 256.0 };
            (x.chunks(8).map(float).collect(), results.chunks(9).map(exact).collect())
        }));
        sections.push(section);
        bytes = next;
    }
    sections
}

// What is measured.

/// The largest error of the value or of the derivatives of one order, and where it is.
#[derive(Debug, Clone, Default)]
struct Worst {
    error: f64,
    at: Vec<f64>,
}

impl Worst {
    fn take(&mut self, error: f64, x: &[f64]) {
        if self.at.is_empty() || error > self.error {
            *self = Worst { error, at: x.to_vec() };
        }
    }
}

/// What a number of units is allowed for the value, the first and the second
/// derivatives of an operation.
struct Limits {
    name: &'static str,
    allowed: [f64; 3],
}

const LIMITS: &[Limits] = &[
    Limits { name: "add", allowed: [0.5, 0.0, 0.0] },
    Limits { name: "sub", allowed: [0.5, 0.0, 0.0] },
    Limits { name: "mul", allowed: [0.5, 0.0, 0.0] },
    Limits { name: "div", allowed: [0.5, 2.0, 4.0] },
    Limits { name: "recip", allowed: [0.5, 2.0, 4.0] },
    Limits { name: "powi", allowed: [1.0, 1.0, 1.0] }, // Times `share`.
    Limits { name: "powf", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "pow", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "sqrt", allowed: [0.5, 2.0, 4.0] },
    Limits { name: "cbrt", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "hypot", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "exp", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "exp2", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "exp_m1", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "ln", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "log2", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "log10", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "log", allowed: [3.0, 8.0, 600.0] },
    Limits { name: "ln_1p", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "sin", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "cos", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "tan", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "asin", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "acos", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "atan", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "atan2", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "sinh", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "cosh", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "tanh", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "asinh", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "acosh", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "atanh", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "logistic", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "softplus", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "logaddexp", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "xlogx", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "xlogy", allowed: [2.0, 4.0, 8.0] },
    Limits { name: "erf", allowed: [1.0, 4.0, 8.0] },
    Limits { name: "erfc", allowed: [4.0, 4.0, 8.0] },
    Limits { name: "lgamma", allowed: [4.0, 4.0, 8.0] },
    Limits { name: "digamma", allowed: [4.0, 4.0, 8.0] },
];

/// The error that counts as one unit: the allowance of `powi` grows with its exponent.
fn share(op: Op, order: usize, x: &[f64]) -> f64 {
    match (op, order, x[x.len() - 1].abs()) {
        (Op::Powi, 0, n) if n > 3.0 => n,
        (Op::Powi, 1, n) => n + 3.0,
        (Op::Powi, 2, n) => n * n + 6.0,
        _ => 1.0,
    }
}

/// The worst of value, first and second derivatives.
fn measure(section: &Section) -> [Worst; 3] {
    let mut worst: [Worst; 3] = Default::default();
    let n = section.variables;
    for (x, exact) in &section.points {
        let mut take = |order: usize, exact: Exact, got: f64| {
            worst[order].take(exact.error(got) / share(section.op, order, x), x);
        };
        for (k, (i, j)) in section.pairs().enumerate() {
            let y = differentiate(section.op, x, i, j);
            take(0, exact[0], y.v.v);
            take(1, exact[1 + i], y.v.dv);
            take(1, exact[1 + j], y.dv.v);
            take(2, exact[1 + n + k], y.dv.dv);
        }
    }
    worst
}

const ORDERS: [&str; 3] = ["value", "first derivative", "second derivative"];

#[test]
fn errors_stay_within_their_limits() {
    let sections = sections();
    let names: Vec<&str> = sections.iter().map(|section| section.op.info().name).collect();
    assert_eq!(names, LIMITS.iter().map(|limits| limits.name).collect::<Vec<_>>());
    let mut failures = Vec::new();
    for (section, limits) in sections.iter().zip(LIMITS) {
        assert!(section.points.len() >= 1000, "{}: too few points", limits.name);
        for ((worst, order), allowed) in measure(section).iter().zip(ORDERS).zip(limits.allowed) {
            // The stored rest has a resolution of 1/256, which is 0.004.
            if worst.error > allowed + 0.004 {
                failures.push(format!("{}: {order}: {worst:?}, allowed are {allowed}", limits.name));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn textbook_derivatives_are_rejected() {
    type Formula = (&'static str, fn(&[f64]) -> f64);
    let sections = sections();
    let formulas: &[Formula] = &[
        ("tanh", |x| 1.0 - x[0].tanh().powi(2)),
        ("logistic", |x| Rule::logistic(x[0]) * (1.0 - Rule::logistic(x[0]))),
        ("asin", |x| 1.0 / (1.0 - x[0] * x[0]).sqrt()),
        ("acosh", |x| 1.0 / (x[0] * x[0] - 1.0).sqrt()),
        ("atanh", |x| 1.0 / (1.0 - x[0] * x[0])),
        ("asinh", |x| 1.0 / (1.0 + x[0] * x[0]).sqrt()),
        ("erf", |x| std::f64::consts::FRAC_2_SQRT_PI * Rule::exp(-x[0] * x[0])),
        ("powf", |x| x[1] * Rule::pow(x[0], x[1] - 1.0)),
        ("pow", |x| x[1] * Rule::pow(x[0], x[1] - 1.0)),
        ("hypot", |x| x[0] / Rule::hypot(x[0], x[1])),
        ("atan2", |x| x[1] / (x[0] * x[0] + x[1] * x[1])),
    ];
    for (name, formula) in formulas {
        let section = sections.iter().find(|section| section.op.info().name == *name).unwrap();
        let allowed = LIMITS.iter().find(|limits| limits.name == *name).unwrap().allowed[1];
        let worst = section.points.iter().map(|(x, exact)| exact[1].error(formula(x))).fold(0.0, f64::max);
        assert!(worst > allowed, "the textbook formula of {name}′ passes: {worst}");
    }
}

#[test]
fn an_error_is_measured_in_units_of_the_exact_result() {
    let error = |nearest: f64, rest: f64, got: f64| Exact { nearest, rest }.error(got);
    assert_eq!(error(1.0, 0.25, 1.0), 0.25);
    assert_eq!(error(1.0, 0.25, 1.0 + f64::EPSILON), 0.75);
    assert_eq!(error(5e-324, -0.5, 0.0), 0.5);
    assert_eq!(error(f64::MIN_POSITIVE, 0.0, 0.0), 2.0_f64.powi(52));
    assert_eq!(error(f64::MAX, 0.5, f64::INFINITY), 0.5);
    assert_eq!(error(f64::INFINITY, -0.5, f64::MAX), 0.5);
    assert_eq!(error(f64::INFINITY, 0.0, f64::INFINITY), 0.0);
    assert_eq!(error(1.0, 0.0, f64::NAN), f64::INFINITY);
    assert!(error(-f64::INFINITY, 0.0, f64::INFINITY) > 1e15);
}

// The page.

const HEAD: &str = "\
# Accuracy

The largest errors of the operations, in units in the last place (ulp) of the exact result: of the value, of the first
derivatives and of the second derivatives (the mixed ones included), each with the point where it was found.
This page is generated: `UPDATE_DOCS=1 cargo test -p ad-core --test accuracy`. The same test holds every figure to a limit.

- The exact results were computed with 160 bits and more (`crates/ad-core/tests/reference/derivatives.py`), at 1000 points
  an operation: all exponents, subnormal numbers, the edges between branches and of the range, and where digits cancel.
- Derivatives are those of `Dual` and `Dual<Dual>`; every engine gives the same ones. All bits are the same on every
  machine, and so are these figures.
- ½ ulp is what rounding the exact result costs. A subnormal result has the unit 2⁻¹⁰⁷⁴.
- Operations that are not listed are exact, or round once; their derivatives are 0, ½, ±1, an operand, or one of those here.

| operation | value | at | first derivative | at | second derivative | at |
|---|---|---|---|---|---|---|
";

const TAIL: &str = "
Remarks:

- `powi` multiplies by squaring, so its error grows with the exponent n. Its figures are divided by |n| for the value (by 1
  up to |n| = 3), by |n| + 3 for the first derivative n·xⁿ⁻¹, and by n² + 6 for the second one, whose factor n·(n − 1)
  multiplies the rounding error of a subnormal power.
- `log` with a variable base: the second derivative by the base has a zero at base = e⁻², and only its absolute error is
  small there. Its bases and operands here are between 2⁻³⁰⁰ and 2³⁰⁰; beyond, products inside may overflow.
- `div` by y: the derivative is −(x/y)/y. Where x/y is subnormal and |y| < 1, it has the few digits of x/y. The same goes for
  `xlogy`, whose derivative by y is x/y.
- `lgamma` and `digamma`: for x > 0. Between the poles left of 0 both have zeros, near which all digits are lost; the first
  derivative of `lgamma` by any other x < 0 is right to an absolute error.
- Third and higher derivatives have no stated bound; those of `lgamma`, `digamma` and the like end at the order 100,
  those of `powf` and `pow` at the order 30, beyond which they are NaN.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for section in sections() {
        write!(page, "| `{}` |", section.op.info().name).unwrap();
        for Worst { error, at } in measure(&section) {
            let at: Vec<String> = at.iter().map(|x| format!("{x:?}")).collect();
            if error == 0.0 {
                write!(page, " 0 | |").unwrap();
            } else {
                write!(page, " {error:.2} | {} |", at.join(", ")).unwrap();
            }
        }
        page.push('\n');
    }
    page + TAIL
}

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/accuracy.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
    let stale = committed.lines().zip(page.lines()).find(|(old, new)| old != new);
    assert!(
        committed == page,
        "docs/accuracy.md is stale, first at {stale:?}; run `UPDATE_DOCS=1 cargo test -p ad-core --test accuracy`"
    );
}
