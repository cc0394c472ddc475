//! What a terminal would do with text.

/// Characters that a terminal obeys, and lines that a stranger has forged.
pub fn obeyed(text: &str) -> u64 {
    let controls = text.chars().filter(|c| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    let forged = text.lines().filter(|line| line.starts_with("INFO forged"));
    (controls.count() + forged.count()) as u64
}
