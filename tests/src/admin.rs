//! A node's admin HTTP as probes and scrapers see it, and its
//! [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{args::PATIENCE, host::Host};

pub const ADMIN_LISTEN: &str = "P2PNODE_ADMIN_LISTEN";

/// Where: every host of the lab has a loopback interface of its own.
pub const ADMIN: &str = "127.0.0.1:9464";
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub async fn get(host: &Host, path: &str) -> Result<Answer> {
    get_at(host, ADMIN.parse()?, path).await
}

pub async fn get_at(host: &Host, admin: SocketAddr, path: &str) -> Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    let exchange = host.device.spawn(move |_| async move {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    })?;
    let answer = timeout(PATIENCE, exchange).await;
    let answer = answer.with_context(|| format!("{path} is not answered"))???;
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

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// The types, `counter`, `gauge` or `histogram`, by the name without the suffix of the type.
    pub families: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

impl Exposition {
    /// Reads a text. The encoder is a library's, so this checks what the nodes choose: each family has a type and a help, each
    /// sample belongs to one and is there once.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text
            .strip_suffix("# EOF\n")
            .context("no `# EOF` at the end")?;
        let (mut read, mut helped, mut series) =
            (Self::default(), BTreeSet::new(), BTreeSet::new());
        for line in body.lines() {
            match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
                ["#", "TYPE", name, kind] => {
                    let earlier = read.families.insert(name.to_owned(), kind.to_owned());
                    ensure!(earlier.is_none(), "{name} has two types");
                }
                ["#", "HELP", name, _] => drop(helped.insert(name)),
                ["#", "UNIT", name, unit] => ensure!(name.ends_with(unit), "{line}"),
                _ => {
                    let sample = sample(line).with_context(|| line.to_owned())?;
                    ensure!(read.family(&sample.name).is_some(), "no family: {line}");
                    let name = format!("{} {:?}", sample.name, sample.labels);
                    ensure!(series.insert(name), "twice: {line}");
                    read.samples.push(sample);
                }
            }
        }
        let mut names = read.families.keys();
        ensure!(
            names.all(|name| helped.contains(name.as_str())),
            "no help: {text}"
        );
        Ok(read)
    }

    pub fn family(&self, sample: &str) -> Option<&str> {
        let suffixes: [(&str, &[&str]); 3] = [
            ("counter", &["_total"]),
            ("histogram", &["_bucket", "_sum", "_count"]),
            ("gauge", &[""]),
        ];
        let mut families = self.families.iter();
        let (name, _) = families.find(|(name, kind)| {
            let rest = sample.strip_prefix(name.as_str());
            let of_kind = suffixes.iter().find(|(of, _)| of == kind);
            of_kind.is_some_and(|(_, allowed)| rest.is_some_and(|rest| allowed.contains(&rest)))
        })?;
        Some(name)
    }

    /// The samples of that name that have these labels, among others.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let has = move |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| {
                sample.labels.get(*label).is_some_and(|has| has == value)
            };
            sample.name == name && labels.iter().all(has)
        };
        self.samples.iter().filter(has)
    }

    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // An empty sum of floats is -0.
        self.all(name, labels)
            .fold(0.0, |sum, sample| sum + sample.value)
    }

    pub fn is(&self, name: &str, labels: &[(&str, &str)], wanted: f64) -> Result<()> {
        let sum = self.sum(name, labels);
        ensure!(
            sum == wanted,
            "{name} {labels:?} is {sum}, not {wanted}: {:?}",
            self.samples
        );
        Ok(())
    }
}

/// `name{label="value",...} number`. No label of ours has a quote or a comma in its value.
fn sample(line: &str) -> Result<Sample> {
    let (series, value) = line.rsplit_once(' ').context("no value")?;
    let (name, set) = series.split_once('{').unwrap_or((series, "}"));
    let set = set.strip_suffix('}').context("the labels do not end")?;
    let label = |label: &str| {
        let (label, value) = label.split_once("=\"")?;
        Some((label.to_owned(), value.strip_suffix('"')?.to_owned()))
    };
    let labels = set.split(',').filter(|label| !label.is_empty()).map(label);
    let value: f64 = value.parse()?;
    ensure!(value.is_finite() && value >= 0.0, "the value {value}");
    Ok(Sample {
        name: name.to_owned(),
        labels: labels.collect::<Option<_>>().context("a label")?,
        value,
    })
}
