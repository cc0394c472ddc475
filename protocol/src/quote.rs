//! Text from outside, as error messages show it.

/// `text` in quotes, on one line, with control characters escaped, cut to a length that a message can bear.
#[must_use]
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}
