//! What a terminal may be sent.

use std::{env, io::IsTerminal};

/// Whether `stream` is a terminal that understands escape codes.
pub fn is_live(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !is_dumb(env::var("TERM").ok().as_deref())
}

/// Whether `stream` is a terminal that is to show colours. A user who wants none sets [`NO_COLOR`](https://no-color.org).
pub fn has_colour(stream: &impl IsTerminal) -> bool {
    is_live(stream) && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn is_dumb(term: Option<&str>) -> bool {
    term == Some("dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_that_says_so_is_dumb() {
        assert!(is_dumb(Some("dumb")));
        assert!(!is_dumb(Some("xterm-256color")) && !is_dumb(None));
    }
}
