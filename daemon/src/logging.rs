//! Logs go to stderr; stdout belongs to results. Lines that remotes cause are bounded.

mod throttle;

use std::{
    fmt,
    io::{self, Write},
    str::FromStr,
    sync::OnceLock,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt as _,
    fmt::{FormatFields, format::debug_fn, layer},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use p2pnode_protocol::{escape, escape_json, quote};

use crate::{lossy, terminal};

/// The filter in force.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// What to log: a filter that parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a filter.
    #[error("{} is not a log filter: {problem}", quote(.filter))]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// The text is not a format.
    #[error("{} is not a log format; give text or json", quote(.0))]
    Format(String),
    /// Another part of the process has set up logging.
    #[error("logging is already set up: {0}")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for Filter {
    type Err = Error;

    /// Parses directives as of [`EnvFilter`], separated by commas; each is a level or `TARGET=LEVEL`.
    ///
    /// A bare target is an error: in practice it is a misspelled level, with which nothing would be logged.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Filter {
            filter: text.to_owned(),
            problem,
        };
        for directive in text.split(',').map(str::trim) {
            if directive.is_empty() {
                return Err(wrong(
                    "it has an empty directive; give a level such as info".to_owned(),
                ));
            }
            // The filter's own parser checks `TARGET[span{field=value}]=LEVEL`.
            let is_level = LEVELS
                .iter()
                .any(|level| level.eq_ignore_ascii_case(directive));
            if !is_level && !directive.contains(['=', '[']) {
                return Err(wrong(format!(
                    "{} is not a level; give {} or TARGET=LEVEL",
                    quote(directive),
                    LEVELS.join(", ")
                )));
            }
            if let Some((_, level)) = directive.rsplit_once('=')
                && !directive.ends_with([']', '}'])
                && !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
            {
                return Err(wrong(format!(
                    "{} is not a level; give {}",
                    quote(level),
                    LEVELS.join(", ")
                )));
            }
        }
        EnvFilter::try_new(text).map_err(|error| {
            let error = error.to_string().replace('\n', " ");
            wrong(format!("{error}; give a level or TARGET=LEVEL"))
        })?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Format {
    /// The names that [`Format::from_str`] knows.
    pub const NAMES: &[&str] = &["text", "json"];
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Sets up logging for the process.
///
/// # Errors
/// [`Error::Taken`] if logging is already set up.
pub fn init(filter: &Filter, format: Format) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&filter.0).map_err(|error| Error::Filter {
        filter: filter.0.clone(),
        problem: error.to_string(),
    })?;
    let colour = terminal::has_colour(&io::stderr());
    // A line that cannot be written is lost. To report that on stderr would end the process.
    let lines = layer().log_internal_errors(false);
    // Libraries log what remotes send.
    let lines = match format {
        // The default would escape it in messages and leave it in fields as it is.
        Format::Text => lines
            .with_writer(lossy::stderr)
            .with_ansi(colour)
            .fmt_fields(fields(colour))
            .boxed(),
        Format::Json => lines
            .with_writer(|| EscapedJson(lossy::stderr()))
            .json()
            .boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter);
    Registry::default()
        .with(filter)
        .with(throttle::Throttle::default())
        .with(lines)
        .try_init()
        .map_err(Error::Taken)?;
    // Only the first call gets here.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Replaces the filter of the process, if [`init`] has set one.
pub fn set(filter: &Filter) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), EnvFilter::try_new(&filter.0)) {
        // An error means that the subscriber is gone, and nothing is logged any more.
        let _ = handle.reload(filter);
    }
}

/// Writes lines of JSON with everything escaped in them that a terminal would obey. A layer writes each line with one call.
#[derive(Debug)]
struct EscapedJson<W>(W);

impl<W: Write> Write for EscapedJson<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let escaped = escape_json(String::from_utf8_lossy(line).into_owned());
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Fields as the default has them, on one line and with everything escaped that a terminal would obey.
fn fields(colour: bool) -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let (name, plain) = match colour {
        true => ("\x1b[3m", "\x1b[0m"),
        false => ("", ""),
    };
    debug_fn(move |writer, field, value| {
        let value = escape(format_args!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            field => write!(
                writer,
                "{name}{}{plain}={value}",
                field.trim_start_matches("r#")
            ),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing::subscriber::with_default;

    use super::*;

    #[test]
    fn levels_and_targets_are_filters() {
        for text in [
            "info",
            "WARN",
            "off",
            "info,quinn=debug",
            "libp2p=trace, info",
            "p2pnode[dial]=debug",
            "p2pnode[dial{peer=x}]=debug",
        ] {
            let filter: Filter = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(filter.to_string(), text);
        }
    }

    #[test]
    fn misspelled_filters_are_errors_instead_of_logging_nothing() {
        for (text, what) in [
            ("inof", "\"inof\" is not a level"),
            ("info,", "an empty directive"),
            ("", "an empty directive"),
            ("libp2p=verbose", "\"verbose\" is not a level"),
            ("info;debug", "\"info;debug\" is not a level"),
            ("a[b=info", "not a log filter"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert!(
                error.contains("TARGET=LEVEL") || error.contains("info"),
                "{error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn text_of_remotes_in_a_json_line_is_escaped_and_means_the_same() {
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl Write for Written {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, hostile) = (
            Written::default(),
            "\u{1b}[2J\n\u{7f}\u{9b}31m\u{2028}\u{202e}\u{2066}\u{e0041}",
        );
        let writer = written.clone();
        let lines = layer()
            .with_writer(move || EscapedJson(writer.clone()))
            .json();
        with_default(Registry::default().with(lines), || {
            let _span = tracing::info_span!("dial", hostile).entered();
            tracing::info!(hostile, debug = ?hostile, "{hostile}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.chars().all(|c| matches!(c, ' '..='~')), "{line}");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["fields"]["message"], hostile);
        assert_eq!(line["fields"]["hostile"], hostile);
        assert_eq!(line["span"]["hostile"], hostile);
    }

    proptest! {
        #[test]
        fn a_filter_that_parses_can_be_used(text in "[a-z_:=,\\[\\]{}]{0,30}|\\PC{0,30}") {
            if let Ok(filter) = text.parse::<Filter>() {
                prop_assert!(EnvFilter::try_new(&filter.0).is_ok());
            }
        }

        #[test]
        fn formats_print_as_they_parse(text in "text|json|[a-z]{0,5}") {
            match text.parse::<Format>() {
                Ok(format) => prop_assert_eq!(format.to_string(), text),
                Err(error) => prop_assert!(error.to_string().contains("text or json")),
            }
        }
    }
}
