//! The report runs, and every table has its rows.

use std::process::Command;

#[test]
fn a_quick_report_has_every_table() -> Result<(), Box<dyn std::error::Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_report")).arg("--quick").output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["## Tasks", "| T1 J·p |", "| T8 gradient |", "## Lengths", "## Threads"] {
        assert!(text.contains(part), "without {part}:\n{text}");
    }
    Ok(())
}

#[test]
fn an_unknown_option_is_an_error() -> Result<(), std::io::Error> {
    let output = Command::new(env!("CARGO_BIN_EXE_report")).arg("--fast").output()?;
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}
