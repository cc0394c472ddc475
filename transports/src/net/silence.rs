//! A dial whose port is silent: other ports of the range are tried alongside.
//!
//! A firewall may drop a part of the range, and a NAT may remember an earlier connection of a port. What was silent may also have been too
//! early. So a port that is answered in its place counts only if the first one, tried once more at that moment, stays silent.

use std::{future::Future, pin::pin, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::Fuse, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};

/// How long the first port has for its answer once another one was answered: four times what that took, within these.
const SHORT: Duration = Duration::from_millis(250);
pub(crate) const LONG: Duration = Duration::from_secs(1);

/// Dials by `first`, and for each `gap` without an answer by one of the `others` too, if there is one: at most so many. Returns the
/// connection, and what `others` gave with it if the first stays silent.
///
/// # Errors
///
/// That of `first`. What becomes of others is of no interest without an answer.
pub(crate) async fn dial<C, E, L, First, Other>(
    gap: Duration,
    most: u32,
    first: impl Fn() -> First,
    others: impl Fn() -> Option<Other>,
) -> Result<(C, Option<L>), E>
where
    First: Future<Output = Result<C, E>>,
    Other: Future<Output = Option<(C, L)>>,
{
    let (answer, lease, took) = {
        let mut dialed = pin!(first().fuse());
        let mut tried = FuturesUnordered::new();
        let mut silent = pin!(sleep(gap).fuse());
        let mut ticks = 0;
        loop {
            futures::select! {
                done = dialed => return done.map(|connection| (connection, None)),
                () = silent => {
                    let began = Instant::now();
                    let other = others();
                    tried.extend(other.map(|other| other.map(move |done| (done, began.elapsed()))));
                    ticks += 1;
                    silent.set(if ticks < most { sleep(gap).fuse() } else { Fuse::terminated() });
                }
                (done, took) = tried.select_next_some() => if let Some((connection, lease)) = done {
                    break (connection, lease, took);
                }
            }
        }
    };
    match timeout((took * 4).clamp(SHORT, LONG), first()).await {
        Ok(Ok(connection)) => Ok((connection, None)),
        Ok(Err(_)) | Err(_) => Ok((answer, Some(lease))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::{
        cell::Cell,
        future::{pending, ready},
    };

    use super::*;

    const GAP: Duration = Duration::from_secs(1);

    /// The first port is silent for so many dials, and the others are answered 20 ms after this number of them.
    async fn dialed(silent: u32, others: u32) -> (&'static str, Option<u32>, u32, Duration) {
        let (firsts, seconds) = (Cell::new(0), Cell::new(0));
        let began = Instant::now();
        let first = || {
            firsts.set(firsts.get() + 1);
            let is_silent = firsts.get() <= silent;
            async move {
                match is_silent {
                    true => pending().await,
                    false => Ok::<_, ()>("first"),
                }
            }
        };
        let other = || {
            seconds.set(seconds.get() + 1);
            let number = seconds.get();
            let answers = async move {
                match number >= others {
                    true => sleep(Duration::from_millis(20)).await,
                    false => pending().await,
                }
                Some(("other", number))
            };
            Some(answers)
        };
        let (by, lease) = dial(GAP, 5, first, other).await.unwrap();
        (by, lease, seconds.get(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_answered_is_taken_at_once() {
        assert_eq!(dialed(0, 1).await, ("first", None, 0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_was_too_early_is_taken_though_another_is_answered_first() {
        let (by, lease, tried, took) = dialed(1, 2).await;
        assert_eq!((by, lease, tried), ("first", None, 2));
        assert!(took < GAP * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_stays_silent_is_left_for_one_that_is_answered() {
        let (by, lease, tried, took) = dialed(9, 3).await;
        assert_eq!((by, lease, tried), ("other", Some(3), 3));
        assert!(took < GAP * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_remote_that_is_away_costs_a_bounded_number_of_ports_and_its_refusal_is_final() {
        let tried = timeout(GAP * 60, dialed(9, 9)).await;
        tried.unwrap_err();
        let other = || -> Option<std::future::Pending<Option<(u8, ())>>> { panic!("no other") };
        let refused = dial(GAP, 5, || ready(Err(7)), other).await;
        assert_eq!(refused.unwrap_err(), 7);
    }
}
