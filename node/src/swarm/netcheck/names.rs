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

/// What was answered, and when, by name.
type Answers = BTreeMap<String, (Vec<IpAddr>, Instant)>;

/// The answers. The names are those of the configuration. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<Answers>>);

impl Names {
    /// The addresses of `name`, by an answer that is kept, or else by `lookup`.
    pub(super) async fn resolve<L>(&self, name: &str, lookup: L) -> Result<Vec<IpAddr>, String>
    where
        L: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let kept = self.answers().get(name).cloned();
        if let Some((ips, since)) = kept
            && since.elapsed() < KEPT
        {
            return Ok(ips);
        }
        match timeout(RESOLVE, lookup).await {
            Ok(Ok(found)) => {
                let ips: Vec<IpAddr> = found.iter().map(SocketAddr::ip).collect();
                self.answers()
                    .insert(name.to_owned(), (ips.clone(), Instant::now()));
                Ok(ips)
            }
            Ok(Err(error)) => Err(format!("cannot resolve {name}: {error}")),
            Err(_) => Err(format!("cannot resolve {name} within 1 s")),
        }
    }

    /// A relay does not answer where its name led, or the newest answers are wanted.
    pub(super) fn forget(&self) {
        self.answers().clear();
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_after_ten_minutes_after_a_failure_and_when_forgotten() {
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
        let reason = "cannot resolve relay: refused".to_owned();
        assert_eq!(resolve(refused()).await, Err(reason));
        for _ in 0..3 {
            assert_eq!(resolve(Ok(vec![answer])).await, Ok(vec![answer.ip()]));
        }
        assert_eq!(asked.get(), 2);
        tokio::time::advance(KEPT).await;
        assert!(resolve(refused()).await.is_err());
        assert_eq!(asked.get(), 3);
        assert!(resolve(Ok(vec![answer])).await.is_ok());
        names.forget();
        assert!(resolve(refused()).await.is_err());
        assert_eq!(asked.get(), 5);
    }
}
