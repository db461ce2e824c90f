//! The report runs, and every table has its rows.

use std::process::Command;

#[test]
fn a_quick_report_has_every_table() -> Result<(), Box<dyn std::error::Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_report")).arg("--quick").output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let level = format!("| T3 gradient of a shuffled minibatch of 256 | {} |", ad_core::SimdLevel::best());
    for part in ["## Tasks", "| T1 J·p |", "| T8 gradient |", &level, "| **goal** |", "## Lengths", "## Threads"] {
        assert!(text.contains(part), "without {part}:\n{text}");
    }
    Ok(())
}

#[test]
fn an_unknown_option_is_an_error() -> Result<(), std::io::Error> {
    for arguments in [&["--fast"][..], &["--rounds"], &["--rounds", "many"], &["--rounds", "0"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_report")).args(arguments).output()?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn bytes_are_counted() -> Result<(), Box<dyn std::error::Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_bytes")).args(["1000", "10000"]).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        assert_eq!(numbers.len(), 4, "{line}");
        assert!(numbers.iter().all(|&number| number > 0.0), "{line}");
    }
    Ok(())
}
