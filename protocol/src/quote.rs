//! Text of users and remotes, as messages, logs and output show it.

use std::fmt;

use serde::Serialize;

/// `text` in quotes, on one line, with control characters escaped, cut to 120 characters.
#[must_use]
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Text of a remote, or text that may contain some, on one line and cut to 256 characters. Everything is escaped that a terminal
/// or a reader would not take as what it is.
///
/// Call it where the text enters. Text that went through it comes out of it again unchanged.
#[must_use]
pub fn from_remote(text: impl fmt::Display) -> String {
    const LONGEST: usize = 256;
    const MARK: &str = "...";
    let mut text = escape(text);
    if text.chars().count() > LONGEST {
        let cut = text.char_indices().nth(LONGEST - MARK.len());
        text.truncate(cut.map_or(0, |(at, _)| at));
        text.push_str(MARK);
    }
    text
}

/// `text` on one line, without control characters, marks of direction, invisible and combining characters: each becomes an escape,
/// such as `\n` or `\u{202e}`.
#[must_use]
pub fn escape(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_default());
        }
    }
    escaped
}

/// `json` with the same characters escaped as in [`escape`], as JSON escapes them: a serializer leaves all but the first 32 as they
/// are.
#[must_use]
pub fn escape_json(json: String) -> String {
    if json.chars().all(is_printable) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if is_printable(character) || character == '\n' {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

/// A value as one line of JSON that shows what it is: see [`escape_json`]. What a program prints or answers as JSON goes through
/// this function.
///
/// # Errors
/// Those of the serializer, as for a map whose keys are no strings.
pub fn to_json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(escape_json)
}

/// Whether a character is what it looks like, and takes its own place on the line.
fn is_printable(character: char) -> bool {
    // Letters that show nothing.
    const BLANK: [char; 5] = ['\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];
    matches!(character, '\\' | '"' | '\'')
        || (character.escape_debug().len() == 1 && !BLANK.contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_remotes_has_one_line_and_nothing_that_a_terminal_obeys() {
        for (text, shown) in [
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("a\r\n2026 INFO b\t", "a\\r\\n2026 INFO b\\t"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("\u{202e}\u{2066}\u{200f}", "\\u{202e}\\u{2066}\\u{200f}"),
            (
                "\u{200b}\u{feff}\u{ad}\u{3164}",
                "\\u{200b}\\u{feff}\\u{ad}\\u{3164}",
            ),
            (
                "\u{2028}\u{2029}\u{85}\u{a0}",
                "\\u{2028}\\u{2029}\\u{85}\\u{a0}",
            ),
            ("z\u{300}\u{301}", "z\\u{300}\\u{301}"),
            ("it's \"plain\" \\ äö 日本", "it's \"plain\" \\ äö 日本"),
        ] {
            assert_eq!(escape(text), shown);
            assert_eq!(from_remote(from_remote(text)), shown, "it is stable");
        }
    }

    #[test]
    fn text_of_remotes_is_cut_once_with_a_mark() {
        for long in ["x", "ä", "\u{1b}"] {
            let cut = from_remote(long.repeat(70_000));
            assert_eq!(cut.chars().count(), 256);
            assert!(cut.ends_with("..."));
            assert_eq!(from_remote(&cut), cut);
        }
        assert_eq!(from_remote("x".repeat(256)), "x".repeat(256));
    }

    #[test]
    fn json_stays_what_it_means() {
        let texts = [
            "\u{9b}31m",
            "\u{202e}",
            "\u{e0041}",
            "\n\u{1b}\"",
            "plain ä",
        ];
        for text in texts {
            let json = escape_json(serde_json::to_string(text).expect("JSON"));
            assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
            assert!(json.chars().all(is_printable), "{json}");
        }
        assert_eq!(escape_json("{}\n".to_owned()), "{}\n");
        let shown = to_json(&["\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{7f}"]);
        let escaped = r#"["\u0085\u2028\u2029\u202e\u2066\u200b\u007f"]"#;
        assert_eq!(shown.expect("JSON"), escaped);
    }

    #[test]
    fn quoting_escapes_and_cuts() {
        assert_eq!(quote("a\nb"), "\"a\\nb\"");
        assert_eq!(quote(&"x".repeat(500)).len(), 125);
        assert_eq!(quote(&"ä".repeat(120)), format!("\"{}\"", "ä".repeat(120)));
    }
}
