#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io;

use tracing::{Dispatch, debug, info, subscriber::with_default, warn};
use tracing_subscriber::{
    fmt::MakeWriter,
    layer::{Layered, SubscriberExt as _},
    registry::Registry,
};

use super::*;

fn admits<K: Copy + Eq + Hash>(lines: &mut Lines<K>, place: K, now: Instant) -> bool {
    let verdict = lines.judge(place, now);
    if verdict == Verdict::LeaveOutFirst {
        lines.describe(place, "denied".to_owned());
    }
    verdict == Verdict::Log
}

#[test]
fn a_place_logs_a_few_lines_and_the_others_are_summed_up_a_minute_later() {
    let (mut lines, now) = (Lines::default(), Instant::now());
    let logged = (0..1000).filter(|_| admits(&mut lines, 1, now));
    assert_eq!(logged.count(), 5);
    assert_eq!(lines.poll_timeout(), Some(now + MINUTE));
    assert_eq!(lines.handle_timeout(now + MINUTE / 2), []);
    let sum = Sum {
        place: 1,
        text: "995 more like: denied".to_owned(),
    };
    assert_eq!(lines.handle_timeout(now + MINUTE), [sum]);
    assert_eq!(lines.poll_timeout(), None);
    assert!(admits(&mut lines, 1, now + MINUTE));
}

#[test]
fn no_minute_has_more_than_sixty_lines_whatever_is_logged_when() {
    let (mut lines, start) = (Lines::default(), Instant::now());
    let mut logged = Vec::new();
    for tick in 0..6000 {
        let now = start + Duration::from_millis(50) * tick;
        for place in 0..40 {
            if admits(&mut lines, place, now) {
                logged.push(now);
            }
        }
        logged.extend(lines.handle_timeout(now).iter().map(|_| now));
    }
    for first in &logged {
        let minute = |at: &&Instant| (*first..*first + MINUTE).contains(*at);
        assert!(logged.iter().filter(minute).count() <= 60);
    }
}

#[test]
fn a_place_that_is_noisy_does_not_silence_another() {
    let (mut lines, now) = (Lines::default(), Instant::now());
    for _ in 0..100_000 {
        admits(&mut lines, 1, now);
    }
    assert!(admits(&mut lines, 2, now));
}

#[test]
fn beyond_some_places_the_others_have_one_sum() {
    let (mut lines, now) = (Lines::default(), Instant::now());
    for place in 0..20_usize {
        for _ in 0..=10 + place {
            admits(&mut lines, place, now);
        }
    }
    let sums = lines.handle_timeout(now + MINUTE);
    assert_eq!(sums.len(), SUMS + 1);
    assert_eq!(sums[0].place, 19, "the most first");
    assert!(sums[SUMS].text.ends_with("of 11 other kinds"), "{sums:?}");
}

#[test]
fn a_line_that_all_places_together_may_not_log_is_not_counted_as_logged_by_its_own() {
    let (mut lines, now) = (Lines::default(), Instant::now());
    for place in 0..4 {
        assert!((0..5).all(|_| admits(&mut lines, place, now)));
    }
    for _ in 0..100 {
        assert!(!admits(&mut lines, 9, now));
    }
    let later = now + ALL.period * 5;
    let logged = (0..10).filter(|_| admits(&mut lines, 9, later)).count();
    assert_eq!(logged, 5, "the place has all of its own");
}

#[test]
fn a_line_is_formatted_while_other_threads_can_log() {
    struct Slow(Throttle);
    impl fmt::Display for Slow {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let is_free = self.0.0.try_lock().is_ok();
            write!(f, "formatted: {is_free}")
        }
    }
    let throttle = Throttle::default();
    throttle.state().awaited = true;
    with_default(Registry::default().with(throttle.clone()), || {
        for _ in 0..6 {
            info!("{}", Slow(throttle.clone()));
        }
    });
    let sums = throttle
        .state()
        .lines
        .handle_timeout(Instant::now() + MINUTE);
    let texts: Vec<_> = sums.iter().map(|sum| sum.text.as_str()).collect();
    assert_eq!(texts, ["1 more like: formatted: true"]);
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What is written of a flood, and a minute later.
fn flood<L>(format: impl FnOnce(Written) -> L) -> Vec<String>
where
    L: Layer<Layered<Throttle, Registry>> + Send + Sync,
    Layered<L, Layered<Throttle, Registry>>: Into<Dispatch>,
{
    let (written, throttle) = (Written::default(), Throttle::default());
    // Nobody waits for the sums but the test.
    throttle.state().awaited = true;
    let layers = Registry::default()
        .with(throttle.clone())
        .with(format(written.clone()));
    with_default(layers, || {
        for number in 0..1000 {
            info!(number, "circuit denied");
            debug!(number, "packet");
            info!(own = number < 20, number, "connected");
            warn!(own = tracing::field::Empty, number, "draining");
        }
        throttle.sum_up(Instant::now() + MINUTE);
    });
    let written = written.0.lock().unwrap().clone();
    let text = String::from_utf8(written).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn count(lines: &[String], of: &str) -> usize {
    lines.iter().filter(|line| line.contains(of)).count()
}

#[test]
fn text_lines_are_bounded_unless_they_are_debug_or_the_users_own() {
    let lines = flood(|written| {
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(written)
    });
    assert_eq!(count(&lines, "packet"), 1000);
    assert_eq!(count(&lines, "draining number="), 1000);
    assert_eq!(count(&lines, "connected own=true"), 20);
    assert_eq!(count(&lines, "connected own=false"), 5);
    assert_eq!(count(&lines, "circuit denied number="), 5);
    let sum = lines.iter().find(|line| line.contains("995 more"));
    let target = "INFO p2pnode_daemon::logging::throttle::tests: ";
    let sum = sum.and_then(|line| line.split_once(target)).unwrap();
    assert_eq!(sum.1, "995 more like: circuit denied");
    assert_eq!(count(&lines, "975 more like: connected"), 1);
}

#[test]
fn json_lines_are_bounded_alike_and_stay_json() {
    let lines = flood(|written| tracing_subscriber::fmt::layer().json().with_writer(written));
    let sum = lines.iter().find(|line| line.contains("995 more"));
    let sum: serde_json::Value = serde_json::from_str(sum.unwrap()).unwrap();
    assert_eq!(sum["level"], "INFO");
    assert_eq!(
        sum["fields"],
        serde_json::json!({"message": "995 more like: circuit denied"})
    );
    assert_eq!(count(&lines, "\"circuit denied\""), 5);
}
