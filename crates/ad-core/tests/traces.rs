//! Traces and graphs: the textbook's table row by row, and a snapshot of every
//! format. A changed snapshot is a breaking change, to be told in CHANGELOG.md.

#![allow(clippy::unwrap_used, missing_docs)]

use ad_core::{Matrix, Tape, Var};
use insta::assert_snapshot;

/// y = cos(x₁) + x₁·x₂ − exp(x₂), in the rows of the classical table.
fn classical() -> Tape {
    Tape::record(&[2.0, 4.0], |x| {
        let v1 = x[0].cos();
        let v2 = x[0] * x[1];
        let v3 = x[1].exp();
        let v4 = v1 + v2;
        v4 - v3
    })
    .unwrap()
}

/// Names, parameters, several outputs, every kind of row.
fn assorted() -> Tape {
    Tape::builder()
        .inputs(&["x", "speed & more"], &[0.5, 1.5])
        .params(&["k_1"], &[2.0])
        .record(|x, k| {
            let (s, c) = x[0].sin_cos();
            let fixed = k[0].exp() * 3.0;
            let many: Var = (0..10).map(|i| x[i % 2]).sum();
            let kinks = x[0].max(x[1]) + x[0].abs().clamp(-1.0, 1.0) - x[0].relu();
            [
                s * c / x[1] - fixed.powi(-2),
                many * 1e-7 + ad_core::Rule::dot(&[s, c], &[x[0], x[1]]),
                x[0].select_gt(x[1], s, -c) + kinks.powf(1.5),
                k[0],
            ]
        })
        .unwrap()
}

#[test]
fn the_classical_table_row_by_row() {
    let trace = classical().tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap();
    let (cos2, sin2, exp4) = (2f64.cos(), 2f64.sin(), 4f64.exp());
    #[rustfmt::skip]
    let expected = [
        ("v₋₁", "x₁",        2.0,                     "v̇₋₁", "p₁",               1.0),
        ("v₀",  "x₂",        4.0,                     "v̇₀",  "p₂",               0.0),
        ("v₁",  "cos(v₋₁)",  cos2,                    "v̇₁",  "−sin(v₋₁)·v̇₋₁",    -sin2),
        ("v₂",  "v₋₁·v₀",    8.0,                     "v̇₂",  "v̇₋₁·v₀ + v₋₁·v̇₀",  4.0),
        ("v₃",  "exp(v₀)",   exp4,                    "v̇₃",  "exp(v₀)·v̇₀",       0.0),
        ("v₄",  "v₁ + v₂",   cos2 + 8.0,              "v̇₄",  "v̇₁ + v̇₂",          4.0 - sin2),
        ("v₅",  "v₄ − v₃",   cos2 + 8.0 - exp4,       "v̇₅",  "v̇₄ − v̇₃",          4.0 - sin2),
        ("y",   "v₅",        -47.01429686969138,      "y\u{307}", "v̇₅",           3.090702573174318),
    ];
    assert_eq!(trace.rows().len(), expected.len());
    for (row, (name, operation, value, dname, formula, tangent)) in trace.rows().iter().zip(expected) {
        assert_eq!((row.name.as_str(), row.operation.as_str()), (name, operation));
        assert!((row.value - value).abs() <= 1e-14 * value.abs(), "{name}: {} for {value}", row.value);
        let [derivative] = &row.derivatives[..] else { panic!("one seed, one derivative") };
        assert_eq!((derivative.name.as_str(), derivative.formula.as_str()), (dname, formula));
        assert!(
            (derivative.value - tangent).abs() <= 1e-14 * tangent.abs(),
            "{name}: {} for {tangent}",
            derivative.value
        );
    }
}

#[test]
fn text() {
    let tape = classical();
    assert_snapshot!("wengert_list", tape.to_string());
    assert_snapshot!("primal", tape.primal_trace(&[2.0, 4.0]).unwrap());
    assert_snapshot!("tangent", tape.tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap());
    assert_snapshot!("tangents_of_two_seeds", tape.tangent_traces(&[2.0, 4.0], &Matrix::identity(2)).unwrap());
    assert_snapshot!("adjoint", tape.adjoint_trace(&[2.0, 4.0], &[1.0]).unwrap());
    assert_snapshot!("twelve_digits", format!("{:.12}", tape.tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap()));
    assert_snapshot!("ascii", tape.tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap().ascii());
    let assorted = assorted();
    assert_snapshot!("assorted_wengert_list", assorted.to_string());
    assert_snapshot!("assorted_tangent", assorted.tangent_trace(&[0.5, 1.5], &[1.0, 0.0]).unwrap());
    assert_snapshot!("assorted_adjoint", assorted.adjoint_trace(&[0.5, 1.5], &[1.0, 0.0, 2.0, 0.0]).unwrap());
}

#[test]
fn other_formats() {
    let trace = classical().tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap();
    assert_snapshot!("markdown", trace.to_markdown());
    assert_snapshot!("latex", trace.to_latex());
    assert_snapshot!("csv", trace.to_csv());
    assert_snapshot!(
        "json",
        serde_json::to_string_pretty(&trace).unwrap().replace("crates/ad-core/", "").replace("\\\\", "/")
    );
    let assorted = assorted().adjoint_trace(&[0.5, 1.5], &[1.0, 0.0, 2.0, 0.0]).unwrap();
    assert_snapshot!("assorted_markdown", assorted.to_markdown());
    assert_snapshot!("assorted_latex", assorted.to_latex());
    assert_snapshot!("assorted_csv", assorted.to_csv());
    let graph = classical().graph();
    assert_snapshot!("dot", graph.to_dot());
    assert_snapshot!("mermaid", graph.to_mermaid());
}

#[test]
fn ascii_is_ascii_in_every_format() {
    let tape = Tape::record(&[0.5, 1.5], |x| {
        (x[0].abs().erf() - x[0].tanh() + x[1].atan() + x[0].max(x[1]) + x[1].clamp(x[0], 2.0) + x[0].logaddexp(x[1]))
            * Var::from(f64::INFINITY).min(x[0]).sqrt()
            + (0..20).map(|_| x[0]).sum::<Var>()
    })
    .unwrap();
    for trace in
        [tape.tangent_trace(&[0.5, 1.5], &[1.0, 0.0]).unwrap(), tape.adjoint_trace(&[0.5, 1.5], &[1.0]).unwrap()]
    {
        let ascii = trace.with_locations().ascii();
        for text in [ascii.to_string(), ascii.to_markdown(), ascii.to_csv()] {
            assert!(text.is_ascii(), "{text}");
        }
    }
}

#[test]
fn locations_name_the_line_of_each_operation() {
    let first = line!() + 2;
    let tape = Tape::record(&[2.0], |x| {
        let s = x[0].sin();
        s * x[0]
    })
    .unwrap();
    let text = tape.primal_trace(&[2.0]).unwrap().with_locations().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[3].ends_with(&format!("traces.rs:{first}")), "{text}");
    assert!(lines[4].ends_with(&format!("traces.rs:{}", first + 1)), "{text}");
}

#[test]
fn numbers_have_significant_digits_and_exponents_only_far_out() {
    #[rustfmt::skip]
    let cases = [
        (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-2.5, "-2.5"), (1.0 / 3.0, "0.333333"), (1e-5, "0.00001"),
        (9.9999999e-6, "0.00001"), (9.99e-6, "9.99e-6"), (1234567.0, "1234567"), (9999999.4, "1e7"), (1e7, "1e7"),
        (-1.23456789e300, "-1.23457e300"), (5e-324, "4.94066e-324"), (f64::NAN, "NaN"), (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"), (0.1 + 0.2, "0.3"), (123456.5, "123456"), (0.000012345678, "0.0000123457"),
    ];
    for (x, text) in cases {
        let tape = Tape::record(&[x], |x| x[0]).unwrap();
        let trace = tape.primal_trace(&[x]).unwrap().to_string();
        let shown = trace.lines().last().unwrap().split_whitespace().last().unwrap().to_owned();
        assert_eq!(shown, text, "{x:?}");
    }
    let trace = Tape::record(&[1.0], |x| x[0] / 3.0).unwrap().primal_trace(&[1.0]).unwrap();
    assert!(format!("{trace:.12}").contains("0.333333333333\n"));
    assert!(trace.digits(2).to_markdown().contains(" 0.33 |"));
}

#[test]
fn csv_gives_the_bits_back() {
    let tape = classical();
    let trace = tape.tangent_trace(&[2.0, 4.0], &[0.1, 0.7]).unwrap();
    let csv = trace.to_csv();
    for (line, row) in csv.lines().skip(1).zip(trace.rows()) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[2].parse::<f64>().unwrap().to_bits(), row.value.to_bits());
        assert_eq!(cells[4].parse::<f64>().unwrap().to_bits(), row.derivatives[0].value.to_bits());
    }
}

#[test]
fn an_output_gives_way_to_an_input_of_its_name() {
    let tape = Tape::builder().inputs(&["y", "f"], &[1.0, 2.0]).record(|x, _| x[0] + x[1]).unwrap();
    assert!(tape.to_string().ends_with("out = v₁\n"), "{tape}");
}

#[test]
fn formulas_that_share_parts_without_end_are_cut() {
    let tape = Tape::record(&[1.5], |x| (0..100).fold(x[0], |y, _| y * y - x[0])).unwrap();
    let formulas = ad_core::Formulas::new();
    let y = tape.eval_with(&[formulas.symbol("x")]).unwrap();
    let text = y[0].to_string();
    assert!(text.len() < 100_000 && text.contains('…'));
}

#[test]
fn traces_show_the_strict_sweep() {
    // The branch not taken is outside its domain; nothing is NaN in the output.
    let tape = Tape::record(&[1.0], |x| x[0].select_gt(0.0, x[0].ln(), 0.0)).unwrap();
    let of = |trace: &ad_core::Trace, name: &str| {
        let row = trace.rows().iter().find(|row| row.name == name).unwrap();
        (row.value, row.derivatives[0].value)
    };
    let tangent = tape.tangent_trace(&[-1.0], &[1.0]).unwrap();
    let (value, derivative) = of(&tangent, "v₁");
    assert!(value.is_nan() && derivative.is_nan(), "{tangent}");
    assert_eq!(of(&tangent, "y"), (0.0, 0.0));
    let adjoint = tape.adjoint_trace(&[-1.0], &[1.0]).unwrap();
    assert_eq!((of(&adjoint, "v₁").1, of(&adjoint, "v₀").1), (0.0, 0.0), "{adjoint}");
    // Where nothing is NaN the rows hold what the drivers give.
    let (classical, x) = (classical(), [2.0, 4.0]);
    let trace = classical.tangent_trace(&x, &[0.3, -1.5]).unwrap();
    assert_eq!(of(&trace, "y").1.to_bits(), classical.jvp(&x, &[0.3, -1.5]).unwrap().1[0].to_bits());
    let trace = classical.adjoint_trace(&x, &[0.7]).unwrap();
    let xbar = classical.vjp(&x, &[0.7]).unwrap().1;
    assert_eq!([of(&trace, "v₋₁").1, of(&trace, "v₀").1], xbar[..]);
}

#[test]
fn long_folds_are_traced_in_time_proportional_to_their_length() {
    const TERMS: usize = 20_000;
    let x = vec![0.5; TERMS];
    let tape = Tape::record(&x, |x| Var::sum_of(x) + Var::dot(x, x)).unwrap();
    let mut p = vec![0.0; TERMS];
    p[0] = 1.0;
    let trace = tape.tangent_trace(&x, &p).unwrap();
    assert!(trace.rows()[TERMS].derivatives[0].formula.ends_with("… 19992 more"));
    let trace = tape.adjoint_trace(&x, &[1.0]).unwrap();
    let last = &trace.rows().last().unwrap().derivatives[0];
    assert_eq!((last.formula.as_str(), last.value), ("v̄₂·v₋₁₉₉₉₉ + v̄₂·v₋₁₉₉₉₉ + v̄₁", 2.0));
    // As many outputs as rows.
    let tape = Tape::record(&x, <[Var]>::to_vec).unwrap();
    let trace = tape.adjoint_trace(&x, &p).unwrap();
    assert_eq!(trace.rows().last().unwrap().derivatives[0].formula, "y\u{304}₁");
}

#[test]
fn a_quotient_in_a_product_stands_in_parentheses() {
    let formulas = ad_core::Formulas::new();
    let [x, y, z] = ["x", "y", "z"].map(|name| formulas.symbol(name));
    #[rustfmt::skip]
    let cases = [
        (x / y * z, "(x/y)·z"), (x * (y / z), "x·(y/z)"), (x * y / z, "x·y/z"), (-(x / y) * z, "−(x/y)·z"),
        (x / y * (y / z), "(x/y)·(y/z)"), (ad_core::Rule::recip(x) * y, "(1/x)·y"), (x * y * z, "x·y·z"),
        (x % y * z, "(x % y)·z"), ((x + y) * z, "(x + y)·z"), (x / y / z, "x/y/z"),
    ];
    for (formula, text) in cases {
        assert_eq!(formula.to_string(), text);
    }
    let latex = |f: ad_core::Formula<'_>| f.render(ad_core::Script::Latex, 6);
    assert_eq!(latex(x / y * z), r"\frac{\mathrm{x}}{\mathrm{y}} \cdot \mathrm{z}");
    assert_eq!(latex(x % y * z), r"\left(\mathrm{x} \bmod \mathrm{y}\right) \cdot \mathrm{z}");
}

#[test]
fn formulas_of_two_arenas_have_no_formula() {
    use ad_core::{Formula, Rule};
    let (here, there) = (ad_core::Formulas::new(), ad_core::Formulas::new());
    let (a, b) = (here.symbol("a"), there.symbol("b"));
    // A node of either arena has the number that another has in the other one.
    let c = there.symbol("c") * b;
    for mixed in
        [a + b, a * c, c / a, a.atan2(b), Formula::sum_of(&[a, b]), Formula::dot(&[a], &[c]), a.select_lt(0.0, b, c)]
    {
        assert_eq!(mixed.to_string(), "?");
    }
    assert_eq!((1.0 - (a + b).sin()).to_string(), "1 − sin(?)");
    assert_eq!((a * 2.0, a + 0.0 * c).0.to_string(), "a·2");
    assert_eq!((a + 0.0 * c).to_string(), "a");
}

/// The README shows the trace of its own example, as it is printed.
#[test]
fn the_readme_shows_the_trace_as_printed() {
    let readme = include_str!("../../../README.md").replace("\r\n", "\n");
    let tape = Tape::record(&[2.0, 4.0], |x| x[0].cos() + x[0] * x[1] - x[1].exp()).unwrap();
    let trace = tape.tangent_trace(&[2.0, 4.0], &[1.0, 0.0]).unwrap().to_string();
    // An editor may have composed the y and its dot into one character.
    assert!(readme.replace('ẏ', "y\u{307}").contains(&trace), "{trace}");
}

/// Rows that call functions: tapes, a custom operation, the solution of an equation.
mod calls {
    use ad_core::{Custom, CustomOp, Implicit};

    use super::*;

    struct Resistance;

    impl CustomOp for Resistance {
        fn name(&self) -> &str {
            "resistance"
        }
        fn num_operands(&self) -> usize {
            2
        }
        fn value(&self, x: &[f64], y: &mut [f64]) {
            y[0] = x[0] * x[1];
        }
        fn partials(&self, x: &[f64], _y: &[f64], partials: &mut [f64]) {
            partials.copy_from_slice(&[x[1], x[0]]);
        }
    }

    fn polar() -> Tape {
        Tape::record(&[1.0, 1.0], |v| [v[0] * v[1].cos(), v[0] * v[1].sin()]).unwrap().named("polar")
    }

    fn term() -> Tape {
        Tape::record(&[1.0, 1.0], |x| (x[1] - x[0] * x[0]).powi(2)).unwrap().named("term")
    }

    #[test]
    fn calls_are_rows_and_bodies_stand_apart() {
        let call = Tape::record(&[2.0, 0.5], |v| {
            let xy = polar().call(v);
            xy[0] + xy[1] * 3.0
        })
        .unwrap();
        assert_snapshot!("call_tangent", call.tangent_trace(&[2.0, 0.5], &[1.0, 0.0]).unwrap());
        assert_snapshot!("call_adjoint", call.adjoint_trace(&[2.0, 0.5], &[1.0]).unwrap());
        assert_snapshot!("call_ascii", call.adjoint_trace(&[2.0, 0.5], &[1.0]).unwrap().ascii());
        assert_snapshot!("call_markdown", call.tangent_trace(&[2.0, 0.5], &[1.0, 0.0]).unwrap().to_markdown());
        assert_snapshot!("call_latex", call.tangent_trace(&[2.0, 0.5], &[1.0, 0.0]).unwrap().to_latex());
        assert_snapshot!("call_csv", call.primal_trace(&[2.0, 0.5]).unwrap().to_csv());
        assert_snapshot!("call_dot", call.graph().to_dot());
        assert_snapshot!("call_vjp_tape", call.vjp_tape().unwrap());

        let map = Tape::record(&[1.0, 2.0, 4.0], |x| term().map(x.windows(2))).unwrap();
        assert_snapshot!("map_adjoint", map.adjoint_trace(&[1.0, 2.0, 4.0], &[1.0, 0.5]).unwrap());
        let sum = Tape::record(&[1.0, 2.0, 4.0], |x| term().map_sum(x.windows(2))).unwrap();
        assert_snapshot!("map_sum_tangent", sum.tangent_trace(&[1.0, 2.0, 4.0], &[1.0, 0.0, 0.0]).unwrap());
        assert_snapshot!("map_sum_latex", sum.primal_trace(&[1.0, 2.0, 4.0]).unwrap().to_latex());
        assert_snapshot!("map_sum_gradient_tape", sum.gradient_tape().unwrap());

        let step = Tape::record(&[0.5, 3.0], |x| x[1] * x[0] * (1.0 - x[0])).unwrap().named("step");
        let scan = Tape::record(&[0.5, 3.0], |x| step.scan(&x[..1], std::iter::repeat_n(&x[1..], 1000)).0).unwrap();
        assert_snapshot!("scan_adjoint", scan.adjoint_trace(&[0.5, 2.0], &[1.0]).unwrap());
    }

    #[test]
    fn custom_operations_and_implicit_functions_show_by_name() {
        let custom = Tape::record(&[2.0, 3.0], |x| Custom::new(Resistance).call(x)[0].sqrt()).unwrap();
        assert_snapshot!("custom_adjoint", custom.adjoint_trace(&[2.0, 8.0], &[1.0]).unwrap());
        let square = Tape::record(&[4.0, 2.0], |v| v[1] * v[1] - v[0]).unwrap();
        let root = Implicit::new(&square, |x: &[f64]| Ok::<_, String>(vec![x[0].sqrt()])).unwrap().named("root");
        let implicit = Tape::record(&[4.0], |x| root.call(x)[0] * 3.0).unwrap();
        assert_snapshot!("implicit_tangent", implicit.tangent_trace(&[4.0], &[1.0]).unwrap());
    }

    #[test]
    fn parameters_and_constants_have_no_derivative_in_a_call() {
        let tape = Tape::builder()
            .inputs(&[], &[1.0])
            .params(&["k"], &[2.0])
            .record(|x, k| polar().call(&[k[0], x[0]])[0] + term().call(&[x[0], Var::from(3.0)])[0])
            .unwrap();
        let trace = tape.tangent_trace(&[1.0], &[1.0]).unwrap();
        assert_eq!(trace.rows()[2].derivatives[0].formula, "jvp polar(k, v₀; 0, v̇₀)₁");
        assert_eq!(trace.rows()[4].derivatives[0].formula, "jvp term(v₀, 3; v̇₀, 0)");
        let adjoint = tape.adjoint_trace(&[1.0], &[1.0]).unwrap();
        let row = adjoint.rows().iter().find(|row| row.name == "v₀").unwrap();
        assert_eq!(row.derivatives[0].formula, "vjp term(v₀, 3; v̄₃)₁ + vjp polar(k, v₀; v̄₁, v̄₂)₂");
        assert_eq!(row.derivatives[0].value, tape.gradient(&[1.0]).unwrap().1[0]);
    }

    #[test]
    fn calls_with_many_results_are_traced_and_drawn_in_time_proportional_to_them() {
        const RESULTS: usize = 50_000;
        let x = vec![1.0; RESULTS + 1];
        let tape = Tape::record(&x, |x| term().map(x.windows(2))).unwrap();
        let trace = tape.adjoint_trace(&x, &vec![1.0; RESULTS]).unwrap();
        let last = &trace.rows().last().unwrap().derivatives[0];
        assert!(last.formula.starts_with("vjp map term(v₋₅₀₀₀₀, "), "{}", last.formula);
        assert!(last.formula.ends_with("… 49992 more)₁"), "{}", last.formula);
        assert_eq!(trace.to_string().matches("term, called by").count(), 1);
        let dot = tape.graph().to_dot();
        assert_eq!(dot.matches(" -> ").count(), (RESULTS + 1) + RESULTS + RESULTS);
        assert_eq!(tape.to_string().lines().count(), (RESULTS + 1) + 2 * RESULTS + 2 + 6);
    }
}
