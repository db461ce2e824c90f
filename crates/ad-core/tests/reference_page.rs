//! `docs/ops.md` is written from the table of operations. This test fails when
//! the committed page is stale; `UPDATE_DOCS=1 cargo test -p ad-core --test
//! reference_page` writes it anew.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write;

use ad_core::Op;

const HEAD: &str = "\
# Operations

Every operation that a tape can hold, as the table in `crates/ad-core/src/ops.rs` states it.
This page is generated: change the table, then run `UPDATE_DOCS=1 cargo test -p ad-core --test reference_page`.

- *Derivatives*: one for each operand, in the order of the operands. `H` is the Heaviside step with H(0) = ½,
  `[a > b]` is 1 where a > b and 0 elsewhere. A constant operand (n, c) is not differentiated; its entry is 0.
- *Products of derivatives* (the chain rule) count 0·∞ and 0·NaN as 0. Outside the domain the value is NaN and so are the derivatives.
- *Convention*: what is chosen where the derivative is not unique.
- Sums and dot products take any number of operands and fold from the left, rounding at each step.

| method | value | what it is | derivatives | defined for | convention |
|---|---|---|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let cell = |text: &str| text.replace('|', "\\|");
    for op in Op::ALL {
        let info = op.info();
        let partials: Vec<String> = op.partial_formulas().iter().map(|row| format!("`{}`", row.join("`, `"))).collect();
        writeln!(
            page,
            "| `{}` | `{}` | {} | {} | {} | {} |",
            info.name,
            cell(&op.formulas().join("`, `")),
            cell(info.doc),
            cell(&partials.join("; ")),
            cell(info.domain),
            cell(info.kink),
        )
        .unwrap();
    }
    page
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ops.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
    let stale = committed.lines().zip(page().lines().map(str::to_owned)).find(|(old, new)| old != new);
    assert!(
        committed == page(),
        "docs/ops.md is stale, first at {stale:?}; run `UPDATE_DOCS=1 cargo test -p ad-core --test reference_page`"
    );
}

#[test]
fn every_operation_is_described() {
    for op in Op::ALL {
        let info = op.info();
        assert!(!info.doc.is_empty() && !info.domain.is_empty() && !info.probes.is_empty(), "{op}");
        assert!(
            info.doc.chars().next().unwrap().is_lowercase() || !info.doc.chars().next().unwrap().is_alphabetic(),
            "{op}"
        );
        assert!(!info.operands.is_empty() && !info.forms.is_empty(), "{op}");
    }
}
