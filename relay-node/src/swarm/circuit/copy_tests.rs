#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::VecDeque;

use bounded::{Pipe, pipe};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::join};
use libp2p::PeerId;
use proptest::prelude::*;

use super::*;
use crate::swarm::circuit::pace::Paces;

/// A pipe that holds as many bytes as it is made for, which is what backpressure is made of.
mod bounded {
    use std::{
        sync::{Arc, Mutex},
        task::Waker,
    };

    use super::*;

    #[derive(Default)]
    struct Half {
        bytes: VecDeque<u8>,
        ended: bool,
        gone: bool,
        wakers: Vec<Waker>,
    }

    impl Half {
        fn wake(&mut self) {
            self.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// One end.
    pub(super) struct Pipe {
        capacity: usize,
        read: Arc<Mutex<Half>>,
        write: Arc<Mutex<Half>>,
    }

    pub(super) fn pipe(capacity: usize) -> (Pipe, Pipe) {
        let (one, other) = (Arc::<Mutex<Half>>::default(), Arc::<Mutex<Half>>::default());
        let end = |read: &Arc<Mutex<Half>>, write: &Arc<Mutex<Half>>| Pipe {
            capacity,
            read: read.clone(),
            write: write.clone(),
        };
        (end(&one, &other), end(&other, &one))
    }

    impl AsyncRead for Pipe {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let mut half = self.read.lock().unwrap();
            let bytes = buffer.len().min(half.bytes.len());
            if bytes > 0 {
                for (to, from) in buffer.iter_mut().zip(half.bytes.drain(..bytes)) {
                    *to = from;
                }
            } else if half.gone {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            } else if !half.ended {
                half.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            half.wake();
            Poll::Ready(Ok(bytes))
        }
    }

    impl AsyncWrite for Pipe {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut half = self.write.lock().unwrap();
            assert!(!half.ended, "written after its end");
            if half.gone {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let bytes = buffer.len().min(self.capacity - half.bytes.len());
            if bytes == 0 {
                half.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            half.bytes.extend(&buffer[..bytes]);
            half.wake();
            Poll::Ready(Ok(bytes))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            let mut half = self.write.lock().unwrap();
            half.ended = true;
            half.wake();
            Poll::Ready(Ok(()))
        }
    }

    impl Drop for Pipe {
        fn drop(&mut self) {
            for half in [&self.read, &self.write] {
                let mut half = half.lock().unwrap();
                half.gone |= !half.ended;
                half.wake();
            }
        }
    }
}

/// A circuit: the ends that its peers have, and its run.
fn circuit(capacity: usize, terms: Terms) -> (Pipe, Pipe, impl Future<Output = Result<(), Cut>>) {
    let (source, here) = pipe(capacity);
    let (destination, there) = pipe(capacity);
    (source, destination, copy(here, there, terms))
}

fn terms() -> (Terms, Arc<Traffic>) {
    let terms = Terms::default();
    let traffic = terms.traffic.clone();
    (terms, traffic)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// Sends `bytes` and their end, and reads to the end.
async fn exchange(mut pipe: Pipe, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut got = Vec::new();
    let (mut reader, mut writer) = (&mut pipe).split();
    let send = async {
        writer.write_all(bytes).await?;
        writer.close().await
    };
    let (sent, read) = join(send, reader.read_to_end(&mut got)).await;
    sent.and(read)?;
    Ok(got)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However much goes either way through however small a pipe, at whatever pace: all of it arrives, and is counted.
    #[test]
    fn every_byte_arrives_and_is_counted(
        there in proptest::collection::vec(any::<u8>(), 0..300_000),
        back in proptest::collection::vec(any::<u8>(), 0..3_000),
        capacity in prop_oneof![1..100_usize, 10_000..200_000_usize],
        rate in prop_oneof![Just(0), 1_000..1_000_000_u64],
    ) {
        let (mut terms, traffic) = terms();
        terms.bytes = Some((there.len() + back.len()) as u64);
        terms.pace = Paces::new(rate).between(PeerId::random(), PeerId::random(), std::time::Instant::now());
        let carried = terms.carried.clone();
        let (source, destination, run) = circuit(capacity, terms);
        let (ran, (to_source, to_destination)) = block_on(join(
            run,
            join(exchange(source, &there), exchange(destination, &back)),
        ));
        prop_assert!(ran.is_ok());
        prop_assert_eq!(to_destination.unwrap(), there.clone());
        prop_assert_eq!(to_source.unwrap(), back.clone());
        prop_assert_eq!(traffic.to_destination(), there.len() as u64);
        prop_assert_eq!(traffic.to_source(), back.len() as u64);
        prop_assert_eq!(carried.to_destination.get(), there.len() as u64);
        prop_assert_eq!(carried.to_source.get(), back.len() as u64);
    }

    #[test]
    fn a_circuit_carries_exactly_as_many_bytes_as_it_may(limit in 0..200_000_u64, more in 1..100_000_u64) {
        let (mut terms, traffic) = terms();
        terms.bytes = Some(limit);
        let (source, destination, run) = circuit(1 << 20, terms);
        let bytes = vec![7; usize::try_from(limit + more).unwrap()];
        let (ran, _) = block_on(join(run, join(exchange(source, &bytes), exchange(destination, &[]))));
        prop_assert!(matches!(ran, Err(Cut::Bytes)), "{ran:?}");
        prop_assert_eq!(traffic.to_destination(), limit);
    }
}

#[test]
fn one_direction_goes_on_after_the_other_has_ended() {
    let (terms, _) = terms();
    let (mut source, mut destination, run) = circuit(16, terms);
    block_on(join(
        async {
            run.await.unwrap();
        },
        async {
            source.close().await.unwrap();
            let mut end = Vec::new();
            destination.read_to_end(&mut end).await.unwrap();
            assert!(end.is_empty());
            destination.write_all(b"still here").await.unwrap();
            destination.close().await.unwrap();
            source.read_to_end(&mut end).await.unwrap();
            assert_eq!(end, b"still here");
        },
    ));
}

#[test]
fn a_stream_that_is_reset_resets_the_other() {
    let (terms, _) = terms();
    let (source, mut destination, run) = circuit(16, terms);
    block_on(async {
        drop(source);
        assert!(matches!(run.await, Err(Cut::Stream(_))));
        let read = destination.read(&mut [0; 1]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_receiver_that_does_not_read_stops_its_sender_and_not_the_other_direction() {
    const CAPACITY: usize = 1000;
    let (terms, traffic) = terms();
    let (mut source, mut destination, run) = circuit(CAPACITY, terms);
    block_on(async {
        let mut run = Box::pin(run);
        let mut sent = 0;
        // Time is paused and only runs where nothing else does: so this ends when everything is full.
        while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), async {
            tokio::select! {
                written = source.write(&[7; 100_000]) => written.unwrap(),
                ran = &mut run => panic!("it ended: {ran:?}"),
            }
        })
        .await
        {
            sent += written;
        }
        assert_eq!(traffic.to_destination(), CAPACITY as u64);
        assert!(sent <= 2 * CAPACITY + PIECE, "{sent} bytes are held");
        destination.write_all(b"back").await.unwrap();
        let mut got = [0; 4];
        tokio::select! {
            read = source.read_exact(&mut got) => read.unwrap(),
            ran = &mut run => panic!("it ended: {ran:?}"),
        }
        assert_eq!(&got, b"back");
    });
}

#[test]
fn a_circuit_ends_when_its_time_is_up() {
    let (mut terms, _) = terms();
    terms.duration = Some(Duration::from_secs(60));
    let (_source, _destination, run) = circuit(16, terms);
    assert!(matches!(block_on(run), Err(Cut::Duration)));
}

#[test]
fn a_circuit_ends_if_a_peer_takes_nothing_for_a_minute_even_if_the_other_direction_goes_on() {
    let (terms, traffic) = terms();
    let (mut source, mut destination, run) = circuit(1000, terms);
    let talk = async {
        // The destination answers and never reads.
        let mut got = [0; 10];
        source.write_all(&[7; 5000]).await.unwrap_err();
        for _ in 0..10 {
            let _ = destination.write_all(&[1; 10]).await;
            let _ = source.read(&mut got).await;
        }
    };
    let (ran, ()) = block_on(join(run, talk));
    assert!(matches!(ran, Err(Cut::Stalled(_))), "{ran:?}");
    assert_eq!(traffic.to_destination(), 1000);
}

#[test]
fn a_circuit_goes_on_as_long_as_a_byte_is_taken_each_minute_and_without_bytes_for_ever() {
    let (terms, _) = terms();
    let (mut source, mut destination, run) = circuit(1, terms);
    let talk = async {
        let read = async {
            let mut byte = [0];
            for _ in 0..20 {
                sleep(STALLED * 3 / 4).await;
                destination.read_exact(&mut byte).await.unwrap();
            }
        };
        let (written, ()) = join(source.write_all(&[7; 20]), read).await;
        written.unwrap();
        sleep(STALLED * 10).await;
        source.close().await.unwrap();
        destination.close().await.unwrap();
    };
    let (ran, ()) = block_on(join(run, talk));
    assert!(ran.is_ok(), "{ran:?}");
}
