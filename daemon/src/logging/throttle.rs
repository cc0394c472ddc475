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
mod tests;
