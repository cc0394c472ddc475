//! The streams of a session.

use std::{
    io,
    task::{Context, Poll},
    time::Instant,
};

use futures::FutureExt as _;
use p2pnode_protocol::upgrade::is_refusal;
use p2pnode_services::{
    core::session::StreamId,
    wire::{Frame, Refusal, Refuse, ResetReason},
};

use super::{Driver, IN_A_ROW};
use crate::services::{carrier::Carrier, opening::OpenError};

impl Driver {
    pub(super) fn poll_opening(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Poll::Ready(opened)) = self.opening.as_mut().map(|opening| opening.poll_unpin(cx))
        else {
            return false;
        };
        self.opening = None;
        let now = Instant::now();
        match opened {
            Ok((connection, stream)) => {
                let id = self.hub.stream_id();
                self.carriers.push(Carrier::new(id, connection, stream));
                self.session.handle_stream(id, now);
            }
            Err(OpenError::Unsupported) => {
                // As a peer that offers the protocol and not the service.
                let id = self.hub.stream_id();
                self.session.handle_stream(id, now);
                self.unsupported(id);
            }
            Err(error) => {
                tracing::debug!(session = %self.running.key.session, %error, "no stream");
                self.session.handle_stream_failed(now);
            }
        }
        true
    }

    fn unsupported(&mut self, stream: StreamId) {
        let now = Instant::now();
        if self.is_opened {
            // A process that offers nothing: not the one that had the session.
            self.session.handle_peer_restarted(now);
            return self.session.handle_stream_lost(stream, now);
        }
        let refuse = Frame::Refuse(Refuse {
            instance: 0,
            refusal: Refusal::Unavailable,
        });
        self.session.handle_frame(stream, refuse, now);
        self.session.handle_stream_lost(stream, now);
    }

    /// From the streams. Returns whether something is left that will not wake the task.
    pub(super) fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut any, mut index) = (false, 0);
        while let Some(carrier) = self.carriers.get_mut(index) {
            let id = carrier.id;
            let mut lost = None;
            for turn in 1..=IN_A_ROW {
                if carrier.is_closing {
                    break;
                }
                match carrier.poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(Some(frame))) => {
                        any |= turn == IN_A_ROW;
                        self.session.handle_frame(id, frame, Instant::now());
                    }
                    Poll::Ready(Ok(None)) => lost = Some(None),
                    Poll::Ready(Err(error)) => lost = Some(Some(error)),
                }
                if lost.is_some() {
                    break;
                }
            }
            match lost {
                None => index += 1,
                Some(error) => {
                    any = true;
                    self.lost(index, error);
                }
            }
        }
        any
    }

    /// The stream at `index` has ended.
    fn lost(&mut self, index: usize, error: Option<io::Error>) {
        let carrier = self.carriers.remove(index);
        let now = Instant::now();
        let (session, id) = (self.running.key.session, carrier.id);
        match error {
            Some(error) if is_refusal(&error) => return self.unsupported(id),
            Some(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::info!(peer = %self.running.key.peer, %session, %error, "a peer broke the protocol of services");
                self.hub.metrics().violation("frame");
                self.session.handle_reset(ResetReason::Violation, now);
            }
            Some(error) => tracing::debug!(%session, %error, "a stream broke"),
            None => {}
        }
        self.session.handle_stream_lost(id, now);
    }

    /// To the streams. What one has sent may let another one send.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut any, mut index) = (false, 0);
        let (now, are_many) = (Instant::now(), self.carriers.len() > 1);
        while let Some(carrier) = self.carriers.get_mut(index) {
            let (id, session) = (carrier.id, &mut self.session);
            let sent = carrier.poll_send(cx, || {
                let frame = session.poll_transmit(id, now);
                any |= frame.is_some() && are_many;
                frame
            });
            match sent {
                Poll::Ready(Ok(())) if carrier.is_closing => {
                    any = true;
                    self.carriers.remove(index);
                    self.session.handle_stream_lost(id, now);
                }
                Poll::Pending | Poll::Ready(Ok(())) => index += 1,
                // What the peer has sent before may say why: the end is seen when all is read.
                Poll::Ready(Err(error)) if !carrier.is_closing && !is_refusal(&error) => {
                    index += 1;
                }
                Poll::Ready(Err(error)) => {
                    any = true;
                    self.lost(index, Some(error));
                }
            }
        }
        any
    }
}
