//! The local socket of a session: a client, or the target.
//!
//! A write that fails shows that the other side has reset the socket. The kernel still has what that side sent before: it is read first,
//! and the session is reset behind it.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use p2pnode_services::wire::ResetReason;

use super::{Driver, IN_A_ROW, Local};
use crate::services::{
    local::READ,
    target::{Connected, Failed},
};

impl Driver {
    pub(super) fn poll_dialing(&mut self, cx: &mut Context<'_>) -> bool {
        let Local::Dialing(dialing) = &mut self.local else {
            return false;
        };
        let Poll::Ready(dialed) = dialing.poll_unpin(cx) else {
            return false;
        };
        let now = Instant::now();
        match dialed {
            Ok(Connected {
                socket,
                prefix,
                port,
                was_reset,
            }) => {
                (self.local, self.prefix, self._port) = (Local::Open(socket), prefix, port);
                self.is_broken = was_reset;
                self.session.handle_connected(now);
            }
            Err(Failed { reason, detail }) => {
                self.local = Local::Gone;
                self.detail = Some(detail);
                self.session.handle_reset(reason, now);
            }
        }
        true
    }

    /// To the local socket. Returns whether something is left that will not wake the task.
    pub(super) fn poll_deliver(&mut self, cx: &mut Context<'_>) -> bool {
        let Local::Open(socket) = &mut self.local else {
            return false;
        };
        if self.is_broken {
            return false;
        }
        let mut any = false;
        for turn in 1..=IN_A_ROW {
            let is_prefix = !self.prefix.is_empty();
            if !is_prefix && self.piece.is_empty() {
                match self.session.poll_data() {
                    Some(piece) => self.piece = piece,
                    None => break,
                }
            }
            let bytes = match is_prefix {
                true => &mut self.prefix,
                false => &mut self.piece,
            };
            match socket.poll_write(cx, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.broken();
                    return true;
                }
                Poll::Ready(Ok(written)) => {
                    any |= turn == IN_A_ROW;
                    bytes.advance(written);
                    if !is_prefix {
                        self.running.came_in(written);
                        self.session.handle_delivered(written, Instant::now());
                    }
                }
            }
        }
        let ends = self.shuts_down && self.piece.is_empty() && self.prefix.is_empty();
        // On an error it was reset in the meantime, and all is delivered.
        if ends && socket.poll_shutdown(cx).is_ready() {
            self.shuts_down = false;
            any = true;
        }
        any
    }

    /// Its other side has reset the local socket. What that side sent before is still to be read.
    fn broken(&mut self) {
        (self.piece, self.prefix) = (Bytes::new(), Bytes::new());
        (self.is_broken, self.shuts_down) = (true, false);
        self.session.handle_broken(Instant::now());
        if self.is_read {
            self.gone();
        }
    }

    /// Its other side has reset the local socket, and all is read.
    fn gone(&mut self) {
        (self.is_read, self.local) = (true, Local::Gone);
        self.session
            .handle_reset(ResetReason::LocalReset, Instant::now());
    }

    /// From the local socket. Returns whether something is left that will not wake the task.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = self.keeps_socket && !self.is_opened;
        let mut any = false;
        for turn in 1..=IN_A_ROW {
            let Local::Open(socket) = &mut self.local else {
                break;
            };
            let room = self.session.room();
            if self.is_read || waits || room == 0 {
                break;
            }
            let read = socket.poll_read(cx, room.min(READ));
            let is_data = matches!(&read, Poll::Ready(Ok(bytes)) if !bytes.is_empty());
            any |= read.is_ready() && (!is_data || turn == IN_A_ROW);
            match read {
                Poll::Pending => break,
                Poll::Ready(Ok(bytes)) if is_data => {
                    self.running.went_out(bytes.len());
                    self.session.handle_data(bytes, Instant::now());
                }
                Poll::Ready(Ok(_)) if !self.is_broken => {
                    self.is_read = true;
                    self.session.handle_end(Instant::now());
                }
                Poll::Ready(Ok(_) | Err(_)) => self.gone(),
            }
        }
        any
    }

    pub(super) fn reset_local(&mut self) {
        self.piece = Bytes::new();
        self.shuts_down = false;
        if self.keeps_socket && !self.is_opened {
            return;
        }
        if let Local::Open(socket) = std::mem::replace(&mut self.local, Local::Gone) {
            socket.reset();
        }
    }
}
