//! Where the names of relays lead, for questions that come again and again: the resolver is not asked for each.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

/// A name has to be resolved within this.
const RESOLVE: Duration = Duration::from_millis(1_000);

/// How long an answer is used, as long as its relays answer.
const KEPT: Duration = Duration::from_secs(600);

/// How long a name is not asked for again that cannot be resolved, or whose relays do not answer.
const PAUSE: Duration = Duration::from_secs(10);

/// The answers. The names are those of the configuration. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<BTreeMap<String, Asked>>>);

/// What was answered, and when.
#[derive(Debug, Clone)]
struct Asked {
    answer: Result<Vec<IpAddr>, String>,
    at: Instant,
    /// Whether a relay has not answered since.
    is_doubtful: bool,
}

impl Names {
    /// The addresses of `name`, by an answer that is kept, or else by `lookup`.
    pub(super) async fn resolve<L>(&self, name: &str, lookup: L) -> Result<Vec<IpAddr>, String>
    where
        L: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let kept = self.asked().get(name).cloned();
        if let Some(asked) = kept
            && asked.at.elapsed() < asked.lasts()
        {
            return asked.answer;
        }
        let answer = match timeout(RESOLVE, lookup).await {
            Ok(Ok(found)) => Ok(found.iter().map(SocketAddr::ip).collect()),
            Ok(Err(error)) => Err(format!("cannot resolve {name}: {error}")),
            Err(_) => Err(format!("cannot resolve {name} within 1 s")),
        };
        let asked = Asked {
            answer: answer.clone(),
            at: Instant::now(),
            is_doubtful: false,
        };
        self.asked().insert(name.to_owned(), asked);
        answer
    }

    /// A relay does not answer where its name led.
    pub(super) fn doubt(&self) {
        for asked in self.asked().values_mut() {
            asked.is_doubtful = true;
        }
    }

    /// The newest answers are wanted.
    pub(super) fn forget(&self) {
        self.asked().clear();
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn lasts(&self) -> Duration {
        match self.answer.is_ok() && !self.is_doubtful {
            true => KEPT,
            false => PAUSE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_when_it_is_old_or_forgotten_and_less_often_where_nothing_answers()
     {
        let (names, asked) = (Names::default(), Cell::new(0));
        let answer: SocketAddr = ([192, 0, 2, 1], 443).into();
        let resolve = |found: io::Result<Vec<SocketAddr>>| {
            let lookup = async {
                asked.set(asked.get() + 1);
                found
            };
            names.resolve("relay", lookup)
        };
        let refused = || Err(io::Error::other("refused"));
        let second = Duration::from_secs(1);
        // A minute in which the name cannot be resolved.
        for _ in 0..60 {
            let reason = "cannot resolve relay: refused".to_owned();
            assert_eq!(resolve(refused()).await, Err(reason));
            tokio::time::advance(second).await;
        }
        assert_eq!(asked.take(), 6);
        for _ in 0..3 {
            assert_eq!(resolve(Ok(vec![answer])).await, Ok(vec![answer.ip()]));
        }
        assert_eq!(asked.take(), 1);
        // A minute in which the relay does not answer.
        for _ in 0..60 {
            tokio::time::advance(second).await;
            names.doubt();
            assert!(resolve(Ok(vec![answer])).await.is_ok());
        }
        assert_eq!(asked.take(), 6);
        tokio::time::advance(KEPT).await;
        assert!(resolve(Ok(vec![answer])).await.is_ok());
        names.forget();
        assert!(resolve(refused()).await.is_err());
        assert_eq!(asked.take(), 2);
    }
}
