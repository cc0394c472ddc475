//! Numbers as a person reads them.

/// With three digits that count, and no more decimals than these ask for.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        size if size.is_infinite() => "never".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The same, without the zeros at its end: for numbers that somebody has chosen.
pub(super) fn short(value: f64) -> String {
    let number = number(value);
    if number.contains('.') {
        number
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [1234.4, 99.96, 12.34, 9.999, 1.0, 0.5, 0.0, -3.0].map(number);
        assert_eq!(
            shown,
            ["1234", "100", "12.3", "10.0", "1.00", "0.500", "0", "-3.00"]
        );
        assert_eq!([number(f64::INFINITY), number(f64::NAN)], ["never", "-"]);
        assert_eq!(
            [100.0, 1.5, 0.95, 40.0].map(short),
            ["100", "1.5", "0.95", "40"]
        );
    }
}
