//! Kinds of values: what they parse, and how they print it.

use std::time::Duration;

use p2pnode_protocol::quote;
use proptest::prelude::*;

use super::super::kind::*;

#[test]
fn durations_need_units_and_sizes_may_have_them() {
    for (text, expected) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("2m", 120_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("1.5s", 1_500),
    ] {
        assert_eq!(
            (DURATION.parse)(text),
            Ok(Duration::from_millis(expected)),
            "{text}"
        );
    }
    for wrong in ["", "30", "0", "0s", "s", "-1s", "200y", "1 fortnight", "٣s"] {
        assert!((DURATION.parse)(wrong).is_err(), "{wrong}");
    }
    assert_eq!((DURATION_LIMIT.parse)("0"), Ok(Duration::ZERO));
    assert!((DURATION_LIMIT.parse)("30").is_err());

    for (text, expected) in [
        ("0", 0),
        ("1024", 1024),
        ("5B", 5),
        ("1KiB", 1 << 10),
        ("1 GiB", 1 << 30),
        ("3MB", 3_000_000),
        ("16777215TiB", 16_777_215 << 40),
    ] {
        assert_eq!((BYTES_LIMIT.parse)(text), Ok(expected), "{text}");
    }
    for wrong in [
        "",
        "GiB",
        "-1",
        "1.5GiB",
        "1gib",
        "1XB",
        "18446744073709551616",
        "16777216TiB",
    ] {
        let error = (BYTES_LIMIT.parse)(wrong).unwrap_err();
        assert!(error.contains("1GiB"), "{error}");
    }
}

/// The error of any text is one line with that text; a value prints so that it parses again.
fn holds<T: PartialEq + std::fmt::Debug>(kind: &Kind<T>, text: &str) -> Result<(), TestCaseError> {
    match (kind.parse)(text) {
        Ok(value) => {
            let printed = (kind.print)(&value);
            prop_assert_eq!(
                (kind.parse)(&printed),
                Ok(value),
                "{:?} printed {:?}",
                text,
                printed
            );
        }
        Err(error) => {
            prop_assert!(!error.contains('\n'), "{}", error);
            let start: String = text.chars().take(8).collect();
            let named = quote(&start);
            prop_assert!(
                error.contains(named.trim_matches('"')),
                "{:?}: {}",
                text,
                error
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn kinds_print_what_they_parse_and_name_what_they_refuse(
        text in "\\PC{0,20}|[0-9]{0,22}|[0-9]{1,5} ?(ns|us|ms|s|m|h|d|w|M|y|B|KiB|MiB|GiB|TiB|kB|MB|TB)|[0-9.:\\[\\]]{0,20}"
    ) {
        holds(&COUNT, &text)?;
        holds(&LIMIT, &text)?;
        holds(&BOOL, &text)?;
        holds(&DURATION, &text)?;
        holds(&DURATION_LIMIT, &text)?;
        holds(&BYTES_LIMIT, &text)?;
        holds(&SOCKET_ADDR, &text)?;
        holds(&PATH, &text)?;
    }

    #[test]
    fn sizes_print_exactly(bytes in any::<u64>(), shift in 0..64u32) {
        let bytes = bytes >> shift << shift;
        prop_assert_eq!((BYTES_LIMIT.parse)(&(BYTES_LIMIT.print)(&bytes)), Ok(bytes));
    }
}
