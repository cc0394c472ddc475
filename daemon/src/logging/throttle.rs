//! Bounds the lines that remotes can cause: 60 in any minute at INFO and above.
//!
//! Each place in the source may log a few lines, and all places together may log [`ALL`]. What goes beyond is counted, and summed
//! up a minute later in one line for each place. That line has the target and level of those that it replaces. DEBUG and TRACE
//! are not bounded. Neither are the lines of a place that declares the field `own`: those follow from what the operator does, or
//! from the node's own dials. A place may give the field the value `false`, and then the line is bounded.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use p2pnode_protocol::bucket::{Bucket, Measure};
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Value, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// The field that marks lines that no remote causes.
const OWN: &str = "own";

/// Lines of one place in the source: ten in a minute at most.
const PLACE: Measure = Measure {
    burst: 5,
    period: Duration::from_secs(12),
};

/// Lines of all of them: 50 in a minute at most. The sums take the rest.
const ALL: Measure = Measure {
    burst: 20,
    period: Duration::from_secs(2),
};

/// Between two sums.
const MINUTE: Duration = Duration::from_secs(60);

/// Places that have a sum of their own; the others have one in common.
const SUMS: usize = 9;

/// The most characters of a line that is summed up.
const LONGEST: usize = 120;

/// What was not logged, by place. Pure, with the time as an argument.
#[derive(Debug)]
struct Lines<K> {
    all: Option<Bucket>,
    places: HashMap<K, Place>,
    sums_due: Option<Instant>,
}

#[derive(Debug)]
struct Place {
    bucket: Bucket,
    left_out: u64,
    /// One of the lines that were left out.
    text: String,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Log,
    /// It is the first of its place that is left out: [`Lines::describe`] takes its text.
    LeaveOutFirst,
    LeaveOut,
}

/// Lines of a place that were left out.
#[derive(Debug, PartialEq, Eq)]
struct Sum<K> {
    place: K,
    text: String,
}

impl<K> Default for Lines<K> {
    fn default() -> Self {
        Self {
            all: None,
            places: HashMap::new(),
            sums_due: None,
        }
    }
}

impl<K: Copy + Eq + Hash> Lines<K> {
    /// Whether a line of `place` is logged.
    fn judge(&mut self, place: K, now: Instant) -> Verdict {
        let all = self.all.get_or_insert_with(|| Bucket::full(ALL, now));
        let place = self.places.entry(place).or_insert_with(|| Place {
            bucket: Bucket::full(PLACE, now),
            left_out: 0,
            text: String::new(),
        });
        if all.has_left(ALL, now) && place.bucket.admits(PLACE, now) {
            all.admits(ALL, now);
            return Verdict::Log;
        }
        place.left_out += 1;
        self.sums_due.get_or_insert(now + MINUTE);
        match place.left_out {
            1 => Verdict::LeaveOutFirst,
            _ => Verdict::LeaveOut,
        }
    }

    /// What the first line of `place` that was left out says.
    fn describe(&mut self, place: K, text: String) {
        if let Some(place) = self.places.get_mut(&place) {
            place.text = text;
        }
    }

    /// When [`Self::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant> {
        self.sums_due
    }

    /// Sums up what was left out, the places with the most lines first.
    fn handle_timeout(&mut self, now: Instant) -> Vec<Sum<K>> {
        if self.sums_due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.sums_due = None;
        let mut places: Vec<_> = self
            .places
            .iter_mut()
            .filter(|(_, place)| place.left_out > 0)
            .map(|(key, place)| {
                let left_out = std::mem::take(&mut place.left_out);
                (left_out, *key, std::mem::take(&mut place.text))
            })
            .collect();
        places.sort_by_key(|(left_out, ..)| std::cmp::Reverse(*left_out));
        let rest = places.split_off(places.len().min(SUMS));
        let sum = |(left_out, place, text)| Sum {
            place,
            text: format!("{left_out} more like: {text}"),
        };
        let rest_sum = rest.first().map(|(_, place, _)| {
            let lines: u64 = rest.iter().map(|(left_out, ..)| left_out).sum();
            let text = format!("{lines} more lines of {} other kinds", rest.len());
            Sum {
                place: *place,
                text,
            }
        });
        let mut sums: Vec<_> = places.into_iter().map(sum).collect();
        sums.extend(rest_sum);
        sums
    }
}

/// A place in the source.
#[derive(Clone, Copy)]
struct Callsite(&'static Metadata<'static>);

impl Callsite {
    fn id(self) -> Identifier {
        self.0.callsite()
    }

    /// Logs a line with the target and level of this place.
    fn log(self, text: &str) {
        let fields = self.0.fields();
        let Some(message) = fields.field("message") else {
            tracing::warn!(own = tracing::field::Empty, "{text}");
            return;
        };
        Event::dispatch(
            self.0,
            &fields.value_set(&[(&message, Some(&format_args!("{text}") as &dyn Value))]),
        );
    }
}

impl PartialEq for Callsite {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Callsite {}

impl Hash for Callsite {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Debug for Callsite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// The layer that leaves lines out. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Throttle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lines: Lines<Callsite>,
    /// Whether a thread waits to log the sums.
    awaited: bool,
}

thread_local! {
    /// Whether this thread logs sums, which are not bounded again.
    static SUMS_UP: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Throttle {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || SUMS_UP.get() || is_own(event) {
            return true;
        }
        let place = Callsite(metadata);
        let verdict = self.state().lines.judge(place, now);
        if verdict == Verdict::Log {
            return true;
        }
        if verdict == Verdict::LeaveOutFirst {
            // What is formatted takes time and may log itself, so other threads must not wait for it.
            let text = text(event);
            self.state().lines.describe(place, text);
        }
        self.await_sums();
        false
    }

    /// Starts the thread that logs the sums, unless there is one.
    fn await_sums(&self) {
        let mut state = self.state();
        if !state.awaited {
            let this = self.clone();
            let thread = std::thread::Builder::new().name("log".to_owned());
            // Without a thread the lines are summed up with the next one that is left out.
            state.awaited = thread.spawn(move || this.wait()).is_ok();
        }
    }

    /// Logs sums as they become due, until there is none to wait for.
    fn wait(&self) {
        while let Some(due) = self.next_due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.sum_up(Instant::now());
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let mut state = self.state();
        let due = state.lines.poll_timeout();
        state.awaited = due.is_some();
        due
    }

    /// Logs the sums that are due.
    fn sum_up(&self, now: Instant) {
        let sums = self.state().lines.handle_timeout(now);
        SUMS_UP.set(true);
        for Sum { place, text } in sums {
            place.log(&text);
        }
        SUMS_UP.set(false);
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.admits(event, Instant::now())
    }
}

/// Whether no remote causes the line.
fn is_own(event: &Event<'_>) -> bool {
    struct Own(bool);
    impl Visit for Own {
        fn record_bool(&mut self, field: &Field, value: bool) {
            if field.name() == OWN {
                self.0 = value;
            }
        }

        fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
    }
    if event.metadata().fields().field(OWN).is_none() {
        return false;
    }
    let mut own = Own(true);
    event.record(&mut own);
    own.0
}

/// The message of a line, without its fields.
fn text(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                // Writing to a string does not fail.
                let _ = write!(self.0, "{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    if let Some((cut, _)) = message.0.char_indices().nth(LONGEST) {
        message.0.truncate(cut);
        message.0.push_str("...");
    }
    message.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
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
}
