//! A range that several nodes share.

use super::*;

#[test]
fn nodes_that_share_a_range_have_a_part_each_and_one_firewall() {
    const SHARED: &str = "dial: { port_range: 40000-40049, ports_per_ordinal: 10, ordinal: 3 }";
    for purpose in [Purpose::Run, Purpose::Dial] {
        let dial = read(SHARED, purpose).unwrap().dial;
        assert_eq!(dial.port_range.to_string(), "40030-40039");
        assert_eq!(dial.shared_range.to_string(), "40000-40049");
    }
    let dial = read(&SHARED.replace(", ordinal: 3", ""), Purpose::Firewall)
        .unwrap()
        .dial;
    assert_eq!(dial.port_range, dial.shared_range);

    let fault = read(
        &SHARED.replace("ordinal: 3 }", "ordinal: 5 }"),
        Purpose::Run,
    )
    .unwrap_err();
    assert!(
        fault.starts_with("f.yaml:1:") && fault.contains("dial.ordinal: 5 has no ports"),
        "{fault}"
    );
    // A listener among the ports of another node would take them on the same host.
    let overlapping = format!("{SHARED}\nadmin: {{ listen: 0.0.0.0:40001 }}");
    let fault = read(&overlapping, Purpose::Run).unwrap_err();
    assert!(
        fault.contains("is in the dial range 40000-40049"),
        "{fault}"
    );
}

#[test]
fn a_range_that_a_flag_gives_is_taken_as_it_is() {
    let flags = Flags::default().one("dial.port_range", "--port-range", Some(&"50000".to_owned()));
    let file = "dial: { ports_per_ordinal: 10 }";
    let loaded = load(&PROGRAM, &sources(file, flags), |reader| {
        Config::read(reader, Purpose::Dial)
    });
    assert_eq!(
        loaded.unwrap().config.dial.port_range.to_string(),
        "50000-50000"
    );
}
