//! A node's admin HTTP as probes and scrapers see it, and a strict reading of
//! [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{args::PATIENCE, lab::Host};

/// The variable that makes a node serve admin HTTP.
pub const ADMIN_LISTEN: &str = "P2PNODE_ADMIN_LISTEN";

/// Where: every host of the lab has a loopback interface of its own.
pub const ADMIN: &str = "127.0.0.1:9464";

/// Between two looks at what changes without saying so.
const PAUSE: Duration = Duration::from_millis(50);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, in lower case.
    pub head: String,
    /// Its body.
    pub body: String,
}

/// Asks the node that runs on `host` and listens on [`ADMIN`].
pub async fn get(host: &Host, path: &str) -> Result<Answer> {
    get_at(host, SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)), path).await
}

/// Asks who listens on `admin`, from `host`.
pub async fn get_at(host: &Host, admin: SocketAddr, path: &str) -> Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    let exchange = host.device.spawn(move |_| async move {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    })?;
    let answer = timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("{path} is not answered"))???;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?;
    Ok(Answer {
        status: status.parse().context("no HTTP status")?,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}

/// Waits until `/readyz` answers with that status, and returns its body.
pub async fn readiness(host: &Host, status: u16) -> Result<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = get(host, "/readyz").await?;
        if answer.status == status {
            return Ok(answer.body);
        }
        ensure!(
            Instant::now() < until,
            "/readyz keeps answering {} {:?}",
            answer.status,
            answer.body
        );
        sleep(PAUSE).await;
    }
}

/// What `/metrics` of the node on `host` says.
pub async fn metrics(host: &Host) -> Result<Exposition> {
    let answer = get(host, "/metrics").await?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(
        answer
            .head
            .contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    Exposition::parse(&answer.body).with_context(|| answer.body)
}

/// Waits until `/metrics` of the node on `host` is as `look` wants it: numbers change without saying so.
pub async fn until<T>(
    host: &Host,
    what: &str,
    look: impl Fn(&Exposition) -> Option<T>,
) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        let read = metrics(host).await?;
        if let Some(found) = look(&read) {
            return Ok(found);
        }
        ensure!(
            Instant::now() < until,
            "{what} does not come: {:?}",
            read.samples
        );
        sleep(PAUSE).await;
    }
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name, with the suffix of its type.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// A metric's type and unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The unit, if one is told.
    pub unit: Option<String>,
    /// The help.
    pub help: String,
}

/// All that `/metrics` says.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// By the name without the suffix of the type.
    pub families: BTreeMap<String, Metadata>,
    /// In the order of the text.
    pub samples: Vec<Sample>,
}

impl Exposition {
    /// Reads a text and holds it to the rules for what the nodes use: counters, gauges and histograms, without timestamps and
    /// exemplars.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text
            .strip_suffix("# EOF\n")
            .context("the end is not `# EOF` and a line feed")?;
        let mut read = Self::default();
        let (mut current, mut series) = (String::new(), BTreeSet::new());
        for line in body.lines() {
            read.line(line, &mut current, &mut series)
                .with_context(|| format!("in the line {line:?}"))?;
        }
        for (name, metadata) in &read.families {
            if metadata.kind == "histogram" {
                read.check_histogram(name)?;
            }
        }
        Ok(read)
    }

    fn line(
        &mut self,
        line: &str,
        current: &mut String,
        series: &mut BTreeSet<String>,
    ) -> Result<()> {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next());
            let (name, rest) = name.zip(rest).context("no name, or nothing after it")?;
            if name != current {
                ensure!(is_name(name), "{name:?} is no name");
                ensure!(
                    !self.families.contains_key(name),
                    "{name} was there already"
                );
                name.clone_into(current);
            }
            ensure!(
                !self
                    .samples
                    .iter()
                    .any(|sample| sample.name.starts_with(name)
                        && self.family(&sample.name) == Some(name)),
                "after its samples"
            );
            let metadata = self.families.entry(name.to_owned()).or_default();
            match what {
                Some("TYPE") => {
                    ensure!(metadata.kind.is_empty(), "a second type");
                    ensure!(
                        ["counter", "gauge", "histogram"].contains(&rest),
                        "the type {rest}"
                    );
                    rest.clone_into(&mut metadata.kind);
                }
                Some("UNIT") => {
                    ensure!(name.ends_with(&format!("_{rest}")), "not in the name");
                    ensure!(metadata.unit.is_none(), "a second unit");
                    metadata.unit = Some(rest.to_owned());
                }
                Some("HELP") => {
                    ensure!(metadata.help.is_empty(), "a second help");
                    rest.clone_into(&mut metadata.help);
                }
                other => bail!("{other:?}"),
            }
            return Ok(());
        }
        let sample = sample(line)?;
        ensure!(
            self.family(&sample.name) == Some(current.as_str()),
            "{} does not belong to {current}",
            sample.name
        );
        ensure!(
            series.insert(format!("{} {:?}", sample.name, sample.labels)),
            "a second time"
        );
        self.samples.push(sample);
        Ok(())
    }

    /// The family to which a sample belongs by its name.
    fn family(&self, sample: &str) -> Option<&str> {
        let suffixes = |kind: &str| -> &[&str] {
            match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            }
        };
        let mut families = self.families.iter();
        let (name, _) = families.find(|(name, metadata)| {
            let rest = sample.strip_prefix(name.as_str());
            rest.is_some_and(|rest| suffixes(&metadata.kind).contains(&rest))
        })?;
        Some(name)
    }

    fn check_histogram(&self, name: &str) -> Result<()> {
        let buckets = self.all(&format!("{name}_bucket"), &[]);
        let mut before = (f64::NEG_INFINITY, 0.0);
        for bucket in &buckets {
            let le = bucket.labels.get("le").context("a bucket without le")?;
            let le = if le == "+Inf" {
                f64::INFINITY
            } else {
                le.parse()?
            };
            ensure!(
                le > before.0 && bucket.value >= before.1,
                "{name}: the buckets are not cumulative: {buckets:?}"
            );
            before = (le, bucket.value);
        }
        ensure!(
            before == (f64::INFINITY, self.sum(&format!("{name}_count"), &[])),
            "{name}: the last bucket is not the count: {buckets:?}"
        );
        Ok(())
    }

    /// The samples of that name that have these labels, among others.
    pub fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let has = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|l| l == value))
        };
        self.samples.iter().filter(has).collect()
    }

    /// The sum of these samples; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // An empty sum of floats is -0.
        self.all(name, labels)
            .iter()
            .fold(0.0, |sum, sample| sum + sample.value)
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `name{label="value",...} number`.
fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name), "{name:?} is no name");
    let mut labels = BTreeMap::new();
    if let Some(set) = rest.strip_prefix('{') {
        rest = set;
        loop {
            let (label, after) = rest.split_once("=\"").context("a label without a value")?;
            ensure!(is_name(label), "{label:?} is no label");
            let (value, after) = quoted(after)?;
            ensure!(
                labels.insert(label.to_owned(), value).is_none(),
                "{label} twice"
            );
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = after.strip_prefix('}').context("the labels do not end")?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').context("no value")?;
    let value: f64 = value.parse().with_context(|| format!("{value:?}"))?;
    ensure!(value.is_finite() && value >= 0.0, "the value {value}");
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Result<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                other => bail!("{other:?} after a backslash"),
            },
            other => value.push(other),
        }
    }
    bail!("a value does not end")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const GOOD: &str = "# HELP a A.\n# TYPE a counter\na_total{b=\"c\",d=\"e\\\"f\"} 1\na_total{b=\"x\"} 2\n# HELP t_seconds T.\n# TYPE t_seconds histogram\n# UNIT t_seconds seconds\nt_seconds_sum 3.0\nt_seconds_count 1\nt_seconds_bucket{le=\"1.0\"} 0\nt_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";

    #[test]
    fn what_is_open_metrics_is_read() {
        let read = Exposition::parse(GOOD).unwrap();
        assert_eq!(read.sum("a_total", &[("b", "c")]), 1.0);
        assert_eq!(read.sum("a_total", &[]), 3.0);
        assert_eq!(read.all("a_total", &[("d", "e\"f")]).len(), 1);
        assert_eq!(read.families["t_seconds"].unit.as_deref(), Some("seconds"));
    }

    #[test]
    fn what_is_not_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("# EOF\n", "# EOF"),
            ("# EOF\n", "\n# EOF\n"),
            ("a_total{b=\"x\"} 2", "a{b=\"x\"} 2"),
            ("a_total{b=\"x\"} 2", "a_total{b=\"c\",d=\"e\\\"f\"} 2"),
            ("a_total{b=\"x\"} 2", "a_total{b=\"x\",b=\"y\"} 2"),
            ("a_total{b=\"x\"} 2", "a_total{b=\"x} 2"),
            ("a_total{b=\"x\"} 2", "a_total{b=\"x\"} two"),
            ("a_total{b=\"x\"} 2", "a_total{b=\"x\"} NaN"),
            ("# TYPE a counter", "# TYPE a thing"),
            ("# HELP t_seconds", "# HELP a"),
            ("{le=\"1.0\"} 0", "{le=\"1.0\"} 2"),
            ("{le=\"+Inf\"} 1", "{le=\"+Inf\"} 2"),
            ("# UNIT t_seconds seconds", "# UNIT t_seconds bytes"),
        ] {
            let broken = GOOD.replacen(from, to, 1);
            assert_ne!(broken, GOOD, "{from:?}");
            assert!(Exposition::parse(&broken).is_err(), "{from:?} -> {to:?}");
        }
    }
}
