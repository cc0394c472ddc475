//! Text of users and remotes, as error messages show it.

/// `text` in quotes, on one line, with control characters escaped, cut to 120 characters.
#[must_use]
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_escapes_and_cuts() {
        assert_eq!(quote("a\nb"), "\"a\\nb\"");
        assert_eq!(quote(&"x".repeat(500)).len(), 125);
        assert_eq!(quote(&"ä".repeat(120)), format!("\"{}\"", "ä".repeat(120)));
    }
}
