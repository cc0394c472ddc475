//! The messages of [circuit relay v2](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md#protobuf): what a relay
//! is asked over HOP and answers there, and what it asks over STOP and is answered there.

use std::{fmt, time::Duration};

use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::wire::{MAX_MESSAGE, NotAMessage, Value, Writer, fields};

/// The protocol over which peers ask a relay.
pub const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");

/// The protocol over which a relay asks a peer to take a circuit.
pub const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Granted.
    Ok,
    /// There is no place for the reservation.
    ReservationRefused,
    /// There is no place for the circuit.
    ResourceLimitExceeded,
    /// The peer may not use the relay.
    PermissionDenied,
    /// The destination did not take the circuit.
    ConnectionFailed,
    /// The destination has no reservation.
    NoReservation,
    /// That was no message.
    MalformedMessage,
    /// That was a message, but no request.
    UnexpectedMessage,
}

impl Status {
    const ALL: [Self; 8] = [
        Self::Ok,
        Self::ReservationRefused,
        Self::ResourceLimitExceeded,
        Self::PermissionDenied,
        Self::ConnectionFailed,
        Self::NoReservation,
        Self::MalformedMessage,
        Self::UnexpectedMessage,
    ];

    /// Its number in the protocol.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::Ok => 100,
            Self::ReservationRefused => 200,
            Self::ResourceLimitExceeded => 201,
            Self::PermissionDenied => 202,
            Self::ConnectionFailed => 203,
            Self::NoReservation => 204,
            Self::MalformedMessage => 400,
            Self::UnexpectedMessage => 401,
        }
    }

    /// Its name in the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::ReservationRefused => "RESERVATION_REFUSED",
            Self::ResourceLimitExceeded => "RESOURCE_LIMIT_EXCEEDED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ConnectionFailed => "CONNECTION_FAILED",
            Self::NoReservation => "NO_RESERVATION",
            Self::MalformedMessage => "MALFORMED_MESSAGE",
            Self::UnexpectedMessage => "UNEXPECTED_MESSAGE",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// It can be read, and is not what is due.
    #[error("unexpected: {0}")]
    Unexpected(&'static str),
}

impl Fault {
    /// How it is answered.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Malformed(_) => Status::MalformedMessage,
            Self::Unexpected(_) => Status::UnexpectedMessage,
        }
    }
}

impl From<NotAMessage> for Fault {
    fn from(_: NotAMessage) -> Self {
        Self::Malformed("no protocol buffer")
    }
}

/// What a peer asks over HOP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A reservation, or its renewal.
    Reserve,
    /// A circuit.
    Connect {
        /// To this peer.
        destination: PeerId,
    },
}

/// The types of a `HopMessage`.
mod hop {
    pub(super) const RESERVE: u64 = 0;
    pub(super) const CONNECT: u64 = 1;
    pub(super) const STATUS: u64 = 2;
}

/// The types of a `StopMessage`.
mod stop {
    pub(super) const CONNECT: u64 = 0;
    pub(super) const STATUS: u64 = 1;
}

impl Request {
    /// Reads a `HopMessage`. Fields that are not known, or of no use here, are passed over.
    ///
    /// # Errors
    /// If it is no request.
    pub fn decode(message: &[u8]) -> Result<Self, Fault> {
        let (mut kind, mut peer) = (None, None);
        for field in fields(message) {
            match field? {
                (1, Value::Number(number)) => kind = Some(number),
                (2, Value::Bytes(bytes)) => peer = Some(bytes),
                (1 | 2, _) => return Err(Fault::Malformed("a field of another kind")),
                _ => {}
            }
        }
        match kind {
            Some(hop::RESERVE) => Ok(Self::Reserve),
            Some(hop::CONNECT) => {
                let peer = peer.ok_or(Fault::Malformed("no destination"))?;
                let destination = peer_id(peer)?;
                Ok(Self::Connect { destination })
            }
            Some(hop::STATUS) => Err(Fault::Unexpected("a status")),
            Some(_) => Err(Fault::Unexpected("a type that does not exist")),
            None => Err(Fault::Malformed("no type")),
        }
    }

    /// The `HopMessage`.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Reserve => Writer::default().number(1, hop::RESERVE),
            Self::Connect { destination } => Writer::default()
                .number(1, hop::CONNECT)
                .message(2, Some(peer(&destination))),
        }
        .done()
    }
}

/// What a circuit may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// For how long, in whole seconds; `None`: for ever.
    pub duration: Option<Duration>,
    /// How many bytes; `None`: any number.
    pub bytes: Option<u64>,
}

impl Limit {
    /// The message; none if there is no limit, which go-libp2p takes as leave to use the circuit like any other connection.
    fn message(self) -> Option<Writer> {
        let Self { duration, bytes } = self;
        if duration.is_none() && bytes.is_none() {
            return None;
        }
        let mut message = Writer::default();
        if let Some(duration) = duration {
            // A part of a second is told as a whole one: 0 would be no limit.
            let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
            message = message.number(1, seconds.min(u32::MAX.into()));
        }
        if let Some(bytes) = bytes {
            message = message.number(2, bytes);
        }
        Some(message)
    }
}

/// The `HopMessage` that grants a reservation up to `expires`, in seconds since 1970, at `addresses` of the relay. Addresses that
/// do not fit into a message are left out.
pub(super) fn reserved(expires: u64, addresses: &[Multiaddr], limit: Limit) -> Vec<u8> {
    /// More than all other fields take.
    const OTHERS: usize = 128;
    let mut reservation = Writer::default().number(1, expires);
    for address in addresses {
        if reservation.len() + address.len() + OTHERS < MAX_MESSAGE {
            reservation = reservation.bytes(2, address.as_ref());
        }
    }
    Writer::default()
        .number(1, hop::STATUS)
        .message(3, Some(reservation))
        .message(4, limit.message())
        .number(5, Status::Ok.code())
        .done()
}

/// The `HopMessage` that grants a circuit.
pub(super) fn connected(limit: Limit) -> Vec<u8> {
    Writer::default()
        .number(1, hop::STATUS)
        .message(4, limit.message())
        .number(5, Status::Ok.code())
        .done()
}

/// The `HopMessage` that refuses.
pub(super) fn refused(status: Status) -> Vec<u8> {
    Writer::default()
        .number(1, hop::STATUS)
        .number(5, status.code())
        .done()
}

/// The `StopMessage` that asks a peer to take a circuit from `source`.
pub(super) fn offer(source: &PeerId, limit: Limit) -> Vec<u8> {
    Writer::default()
        .number(1, stop::CONNECT)
        .message(2, Some(peer(source)))
        .message(3, limit.message())
        .done()
}

/// Reads the `StopMessage` with which a peer answers an offer: the status, `None` for one that is not known.
///
/// # Errors
/// If it is no answer.
pub fn decode_answer(message: &[u8]) -> Result<Option<Status>, Fault> {
    let (mut kind, mut status) = (None, None);
    for field in fields(message) {
        match field? {
            (1, Value::Number(number)) => kind = Some(number),
            (4, Value::Number(number)) => status = Some(number),
            (1 | 4, _) => return Err(Fault::Malformed("a field of another kind")),
            _ => {}
        }
    }
    match kind {
        Some(stop::STATUS) => {
            let code = status.ok_or(Fault::Malformed("no status"))?;
            Ok(Status::ALL.into_iter().find(|status| status.code() == code))
        }
        Some(_) => Err(Fault::Unexpected("no status")),
        None => Err(Fault::Malformed("no type")),
    }
}

fn peer(id: &PeerId) -> Writer {
    Writer::default().bytes(1, &id.to_bytes())
}

fn peer_id(message: &[u8]) -> Result<PeerId, Fault> {
    let mut id = None;
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => id = Some(bytes),
            (1, _) => return Err(Fault::Malformed("a field of another kind")),
            _ => {}
        }
    }
    let id = id.ok_or(Fault::Malformed("a peer without id"))?;
    PeerId::from_bytes(id).map_err(|_| Fault::Malformed("a peer id that is none"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNLIMITED: Limit = Limit {
        duration: None,
        bytes: None,
    };

    fn limited() -> Limit {
        Limit {
            duration: Some(Duration::from_millis(1500)),
            bytes: Some(300),
        }
    }

    #[test]
    fn requests_are_written_as_the_specification_has_them() {
        assert_eq!(Request::Reserve.encode(), [8, 0]);
        let destination = PeerId::random();
        let id = destination.to_bytes();
        let length = u8::try_from(id.len()).unwrap();
        let expected = [&[8, 1, 18, length + 2, 10, length][..], &id].concat();
        assert_eq!(Request::Connect { destination }.encode(), expected);
    }

    #[test]
    fn answers_are_written_as_the_specification_has_them() {
        assert_eq!(
            refused(Status::NoReservation),
            [8, 2, 40, 0xcc, 1],
            "type STATUS, status 204"
        );
        assert_eq!(connected(UNLIMITED), [8, 2, 40, 100]);
        assert_eq!(
            connected(limited()),
            [8, 2, 34, 5, 8, 2, 16, 0xac, 2, 40, 100]
        );
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/9".parse().unwrap();
        assert_eq!(
            reserved(7, &[address], UNLIMITED),
            [8, 2, 26, 12, 8, 7, 18, 8, 4, 192, 0, 2, 1, 6, 0, 9, 40, 100]
        );
    }

    #[test]
    fn a_reservation_at_a_thousand_addresses_fits_into_a_message() {
        let address: Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
        let message = reserved(u64::MAX, &vec![address; 1000], limited());
        assert!(message.len() <= MAX_MESSAGE);
        assert!(message.len() > MAX_MESSAGE - 256, "and most are told");
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        let malformed: [&[u8]; 8] = [
            &[],
            &[8],
            &[0, 0],
            &[10, 1, 0],
            &[8, 1],
            &[8, 1, 18, 0],
            &[8, 1, 18, 3, 10, 1, 0],
            &[8, 1, 18, 200, 1, 10],
        ];
        for message in malformed {
            let fault = Request::decode(message).unwrap_err();
            assert_eq!(fault.status(), Status::MalformedMessage, "{message:?}");
        }
        for message in [[8, 2], [8, 3], [8, 99]] {
            let fault = Request::decode(&message).unwrap_err();
            assert_eq!(fault.status(), Status::UnexpectedMessage, "{message:?}");
        }
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        let message = [8, 0, 34, 2, 8, 1, 120, 5, 125, 1, 2, 3, 4];
        assert_eq!(Request::decode(&message), Ok(Request::Reserve));
    }

    #[test]
    fn the_answer_of_a_destination_is_a_status() {
        assert_eq!(decode_answer(&[8, 1, 32, 100]), Ok(Some(Status::Ok)));
        let denied = Ok(Some(Status::PermissionDenied));
        assert_eq!(decode_answer(&[8, 1, 32, 0xca, 1]), denied);
        assert_eq!(decode_answer(&[8, 1, 32, 7]), Ok(None));
        let offered = decode_answer(&offer(&PeerId::random(), limited()));
        assert_eq!(offered, Err(Fault::Unexpected("no status")));
        for message in [&[8, 1][..], &[], &[32, 100], &[8, 1, 34, 0]] {
            let fault = decode_answer(message).unwrap_err();
            assert_eq!(fault.status(), Status::MalformedMessage, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_can_be_said_and_is_understood_again(
            bytes in proptest::collection::vec(any::<u8>(), 0..128),
        ) {
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
            }
            let _understood = decode_answer(&bytes);
        }

        #[test]
        fn a_message_that_is_cut_off_is_never_another_request(cut in 0..40_usize) {
            let message = Request::Connect { destination: PeerId::random() }.encode();
            if let Some(part) = message.get(..cut) && part.len() < message.len() {
                prop_assert!(Request::decode(part).is_err());
            }
        }
    }
}
