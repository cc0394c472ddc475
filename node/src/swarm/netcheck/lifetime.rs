//! How long mappings live, with traffic and without (`--lifetime`).
//!
//! 1. Each of some ports sends one request to the relay, which makes a mapping, and is silent from then on.
//! 2. After its time, another port has the relay answer to that mapping (RESPONSE-PORT, [RFC 5780, section 4.6](https://www.rfc-editor.org/rfc/rfc5780#section-4.6)).
//!    If the answer comes in, the mapping was still there.
//! 3. In the meantime one more port asks every few seconds. If the relay sees it elsewhere at some time, mappings end by age.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use futures::future::{join, join_all};
use p2pnode_protocol::stun::Message;
use p2pnode_transports::{ClaimedUdp, Family, Handle};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{
    path::{MAPPINGS, request},
    udp::ask_from,
};
use crate::core::netcheck::Lifetime;

/// When mappings without traffic are looked at, in seconds. The last one is the lifetime that RFC 4787 recommends.
const IDLE: [u32; 6] = [15, 30, 60, 120, 180, 300];

/// How often the port with traffic asks, and for how long it does at least.
const USED: Duration = Duration::from_secs(10);
const AGE: Duration = Duration::from_secs(120);

/// How long the whole look takes at most.
pub(crate) const LONGEST: Duration = Duration::from_secs(330);

/// Looks at the mappings of UDP of a family. `None` if the relay answers nothing to other ports, or no port is left.
pub(super) async fn look(sockets: &Handle, family: Family, relay: SocketAddr) -> Option<Lifetime> {
    let asker = sockets.claim_udp(family).ok()?;
    let used = sockets.claim_udp(family).ok()?;
    let mut silent = Vec::new();
    for seconds in IDLE {
        let port = sockets.claim_udp(family).ok()?;
        let mapped = mapped(&port, relay).await?;
        silent.push((seconds, port, mapped, Instant::now()));
    }
    // Whether the relay does it at all.
    let control = sockets.claim_udp(family).ok()?;
    let at = mapped(&control, relay).await?;
    if !is_there(&asker, &control, at, relay).await {
        return None;
    }
    let idle = async {
        let mut lifetime = Lifetime::default();
        for (seconds, port, mapped, made) in &silent {
            sleep_until(*made + Duration::from_secs((*seconds).into())).await;
            if is_there(&asker, port, *mapped, relay).await {
                lifetime.idle_alive = Some(*seconds);
            } else {
                lifetime.idle_dead = Some(*seconds);
                break;
            }
        }
        lifetime
    };
    let (idle, age) = join(idle, age(&used, relay)).await;
    Some(Lifetime { age, ..idle })
}

/// After how many seconds the relay sees a port elsewhere that is used all the time.
async fn age(port: &ClaimedUdp, relay: SocketAddr) -> Option<u32> {
    let began = Instant::now();
    let first = mapped(port, relay).await?;
    while began.elapsed() < AGE {
        sleep(USED).await;
        if mapped(port, relay).await.is_some_and(|now| now != first) {
            return u32::try_from(began.elapsed().as_secs()).ok();
        }
    }
    None
}

async fn mapped(port: &ClaimedUdp, relay: SocketAddr) -> Option<SocketAddr> {
    let answers = ask_from(port, &[(relay, request())], 1, MAPPINGS).await;
    let (message, _) = answers.into_iter().next().flatten()?;
    message.mapped
}

/// Whether an answer that `asker` asks for comes in to `port`.
async fn is_there(
    asker: &ClaimedUdp,
    port: &ClaimedUdp,
    mapped: SocketAddr,
    relay: SocketAddr,
) -> bool {
    let message = Message {
        response_port: NonZeroU16::new(mapped.port()),
        ..request()
    };
    let (transaction, bytes) = (message.transaction, message.encode());
    let bytes = bytes.as_slice();
    let deadline = Instant::now() + MAPPINGS * 2;
    let mut buffer = [0; 2048];
    let comes = async {
        loop {
            let received = timeout_at(deadline, port.socket().recv_from(&mut buffer)).await;
            match received {
                Ok(Ok((length, _))) => {
                    let answer = Message::decode(&buffer[..length]);
                    if answer.is_ok_and(|answer| answer.transaction == transaction) {
                        return true;
                    }
                }
                // What a router reports about an earlier packet.
                Ok(Err(_)) => {}
                Err(_) => return false,
            }
        }
    };
    let asks = join_all([0, 1, 2].map(|turn| async move {
        sleep(MAPPINGS / 2 * turn).await;
        // Without a route no answer comes.
        let _ = asker.socket().send_to(bytes, relay).await;
    }));
    tokio::pin!(asks);
    tokio::select! {
        comes = comes => comes,
        never = async {
            (&mut asks).await;
            std::future::pending::<bool>().await
        } => never,
    }
}
