//! A change of the model shows as a diff of this trace.

#[test]
fn the_sensitivity_to_the_rate() -> Result<(), ad_core::Error> {
    let tape = trace_user::priced_tape(5.0)?;
    let trace = tape.tangent_trace(&[0.03, 0.01, 0.02], &[1.0, 0.0, 0.0])?;
    insta::assert_snapshot!(trace);
    Ok(())
}
