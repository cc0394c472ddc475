//! Exchanges over streams that somebody else opens.

use std::io;

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::Stream;

use super::{Protocol, Reply, ask};

/// The exchanges under way, each with a key `K` by which the caller knows it.
#[derive(Debug)]
pub struct Asking<K, P: Protocol>(FuturesUnordered<BoxFuture<'static, (K, Reply<P::Answer>)>>);

impl<K, P: Protocol> Default for Asking<K, P> {
    fn default() -> Self {
        Self(FuturesUnordered::new())
    }
}

impl<K: Send + 'static, P: Protocol> Asking<K, P> {
    /// Sends `request` once the stream is open.
    pub fn ask(
        &mut self,
        key: K,
        stream: impl Future<Output = io::Result<Stream>> + Send + 'static,
        request: P::Request,
    ) {
        let exchange = async move { (key, ask::<P>(stream, &request).await) };
        self.0.push(exchange.boxed());
    }

    /// The next exchange that ends. Pending for ever without any: call again after [`Self::ask`].
    pub async fn next(&mut self) -> (K, Reply<P::Answer>) {
        match self.0.next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}
