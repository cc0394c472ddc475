//! `init`: what both programs need to write a first configuration: questions on a terminal, and the file.

use std::{
    fs,
    io::{self, BufRead, IsTerminal as _, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;

use crate::{command, exit::Usage, remedy};

/// Where the configuration goes.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// File to write; - for stdout
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
}

impl OutputArgs {
    /// Writes the configuration. Returns the path, if it is a file; `default` is the name of the file if none is given.
    ///
    /// # Errors
    /// If the file exists and may not be replaced, or cannot be written.
    pub fn write(&self, text: &str, default: &str) -> anyhow::Result<Option<PathBuf>> {
        let path = self.output.clone().unwrap_or_else(|| default.into());
        if path.as_os_str() == "-" {
            command::print(text)?;
            return Ok(None);
        }
        if path.exists() && !self.force {
            return Err(Usage(format!(
                "{} exists; give another --output, or --force to replace it",
                path.display()
            ))
            .into());
        }
        fs::write(&path, text).map_err(|error| {
            let what = remedy::of(&error, &path);
            let what = what.unwrap_or_else(|| "give a path in a directory that exists".to_owned());
            Usage(format!("cannot write {}: {error}; {what}", path.display()))
        })?;
        Ok(Some(path))
    }
}

/// Asks what no flag has given.
#[derive(Debug)]
pub struct Questions<R, W> {
    input: R,
    output: W,
}

/// Questions to the user at the terminal; nothing if stdin or stderr is none.
#[must_use]
pub fn on_terminal() -> Option<Questions<io::StdinLock<'static>, io::Stderr>> {
    let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    is_terminal.then(|| Questions::new(io::stdin().lock(), io::stderr()))
}

impl<R: BufRead, W: Write> Questions<R, W> {
    /// Asks on `output` and reads from `input`.
    pub const fn new(input: R, output: W) -> Self {
        Self { input, output }
    }

    /// One value; an empty answer is `default`. `check` returns what is wrong with an answer, which is then asked for again.
    ///
    /// # Errors
    /// If the terminal cannot be read or written, or ends.
    pub fn one(
        &mut self,
        question: &str,
        default: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> io::Result<String> {
        loop {
            let shown = match default.is_empty() {
                true => String::new(),
                false => format!(" [{default}]"),
            };
            write!(self.output, "{question}{shown}: ")?;
            self.output.flush()?;
            let mut answer = String::new();
            if self.input.read_line(&mut answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let answer = match answer.trim() {
                "" => default,
                answer => answer,
            };
            if answer.is_empty() {
                return Ok(String::new());
            }
            match check(answer) {
                Ok(()) => return Ok(answer.to_owned()),
                Err(problem) => writeln!(self.output, "{problem}")?,
            }
        }
    }

    /// Several values, until an empty answer.
    ///
    /// # Errors
    /// If the terminal cannot be read or written, or ends.
    pub fn many(
        &mut self,
        question: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> io::Result<Vec<String>> {
        let mut answers = Vec::new();
        loop {
            let answer = self.one(question, "", &check)?;
            if answer.is_empty() {
                return Ok(answers);
            }
            answers.push(answer);
        }
    }
}

/// The absolute path of a file that the user has named.
///
/// # Errors
/// If the working directory is gone.
pub fn absolute(path: String) -> anyhow::Result<String> {
    let absolute = std::path::absolute(&path)
        .with_context(|| format!("cannot find out where {path} is; give an absolute path"))?;
    // A path that came from text stays text.
    Ok(absolute.into_os_string().into_string().unwrap_or(path))
}

/// A text as YAML has it, in double quotes.
#[must_use]
pub fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The ports of `ports` that another program of this host holds, for UDP or for TCP over IPv4.
#[must_use]
pub fn taken(ports: impl Iterator<Item = u16>) -> Vec<u16> {
    let is_taken = |port: &u16| {
        let any = (Ipv4Addr::UNSPECIFIED, *port);
        let in_use = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
        UdpSocket::bind(any).err().is_some_and(in_use)
            || TcpListener::bind(any).err().is_some_and(in_use)
    };
    ports.filter(is_taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(input: &str) -> Questions<&[u8], Vec<u8>> {
        Questions::new(input.as_bytes(), Vec::new())
    }

    fn check(answer: &str) -> Result<(), String> {
        match answer {
            "bad" => Err("bad is wrong".to_owned()),
            _ => Ok(()),
        }
    }

    #[test]
    fn an_empty_answer_is_the_default_and_a_wrong_one_is_asked_for_again() {
        let mut questions = asked("\nbad\ngood\n");
        assert_eq!(questions.one("A", "x", check).ok().as_deref(), Some("x"));
        assert_eq!(questions.one("B", "x", check).ok().as_deref(), Some("good"));
        let shown = String::from_utf8_lossy(&questions.output).into_owned();
        assert_eq!(shown, "A [x]: B [x]: bad is wrong\nB [x]: ");
        assert!(
            questions.one("C", "x", check).is_err(),
            "the input has ended"
        );
    }

    #[test]
    fn several_answers_end_with_an_empty_one() {
        let mut questions = asked("a\nb\n\nc\n");
        let answers = questions.many("A", check).ok();
        assert_eq!(answers, Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_port_that_is_bound_is_taken() -> io::Result<()> {
        let held = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = held.local_addr()?.port();
        assert_eq!(taken([port].into_iter()), [port]);
        Ok(())
    }

    #[test]
    fn a_text_is_quoted_for_yaml() {
        assert_eq!(yaml("/ip4/1.2.3.4"), "\"/ip4/1.2.3.4\"");
        assert_eq!(yaml("a\"b"), "\"a\\\"b\"");
    }
}
