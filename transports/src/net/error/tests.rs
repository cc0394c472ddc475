#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use libp2p::core::transport::TransportError;

use super::*;
use crate::net::{
    closed::ClosedHere,
    holder::{HeldBy, Holder},
};

/// A wrapper that forwards `source()` and hides itself, as `Either` does in a combined transport.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Hidden(io::Error);

fn exhausted() -> Exhausted {
    let by = HeldBy::Process {
        pid: 123,
        comm: "nc".into(),
    };
    Exhausted {
        range: "40000".parse().unwrap(),
        holders: vec![Holder {
            transport: Transport::Quic,
            port: 40000,
            by,
        }],
    }
}

#[test]
fn an_exhausted_range_says_what_holds_it() {
    assert_eq!(
        Error::Exhausted(exhausted()).to_string(),
        "port range 40000-40000 exhausted: udp 40000 held by pid 123 (nc)"
    );
}

#[test]
fn exhaustion_is_found_through_every_box() {
    let error = || io::Error::other(Reported(Error::Exhausted(exhausted())));
    assert_eq!(
        find_exhausted(&TransportError::Other(error())),
        Some(&exhausted())
    );
    assert_eq!(
        find_exhausted(&io::Error::other(error())),
        Some(&exhausted())
    );
    assert_eq!(
        find_exhausted(&io::Error::other(Hidden(error()))),
        Some(&exhausted())
    );

    let addr: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    let named = Error::Unreachable {
        host: "relay.example.net".into(),
        failures: vec![(addr, Error::Exhausted(exhausted()))],
    };
    assert_eq!(find_exhausted(&io::Error::other(named)), Some(&exhausted()));
}

#[test]
fn other_errors_hold_no_exhaustion() {
    assert_eq!(find_exhausted(&io::Error::other("refused")), None);
    let error = Error::TransportDisabled {
        transport: Transport::Tcp,
    };
    assert_eq!(
        find_exhausted(&TransportError::Other(io::Error::other(error))),
        None
    );
}

#[test]
fn the_innermost_error_decides() {
    let aborted = io::Error::new(
        io::ErrorKind::ConnectionAborted,
        quinn::ConnectionError::ApplicationClosed(quinn::ApplicationClose {
            error_code: 0_u8.into(),
            reason: Vec::new().into(),
        }),
    );
    assert_eq!(closed(&io::Error::other(aborted)), Some(Closed::ByPeer));
    for (error, how) in [
        (quinn::ConnectionError::Reset, Some(Closed::Reset)),
        (quinn::ConnectionError::TimedOut, Some(Closed::TimedOut)),
        (quinn::ConnectionError::LocallyClosed, Some(Closed::Local)),
        (quinn::ConnectionError::CidsExhausted, None),
    ] {
        assert_eq!(closed(&io::Error::other(io::Error::from(error))), how);
    }
}

#[test]
fn the_kernel_and_yamux_say_it_too() {
    for (error, how) in [
        (io::ErrorKind::ConnectionReset.into(), Some(Closed::Reset)),
        (io::ErrorKind::UnexpectedEof.into(), Some(Closed::Reset)),
        (io::ErrorKind::TimedOut.into(), Some(Closed::TimedOut)),
        (io::Error::other(ClosedHere), Some(Closed::Local)),
        (
            io::Error::other(yamux::ConnectionError::Closed),
            Some(Closed::ByPeer),
        ),
        (
            io::Error::other(yamux::ConnectionError::NoMoreStreamIds),
            None,
        ),
        (io::Error::other("words such as timed out"), None),
    ] {
        assert_eq!(closed(&io::Error::other(error)), how);
    }
    let within = yamux::ConnectionError::Io(io::ErrorKind::ConnectionReset.into());
    assert_eq!(closed(&within), Some(Closed::Reset));
}

#[test]
fn every_timeout_is_one_and_nothing_else_is() {
    let ours = || Error::timeout("the handshake", Duration::from_secs(4));
    assert!(timed_out(&io::Error::other(io::Error::other(ours()))));
    let named = Error::Unreachable {
        host: "relay.example.net".into(),
        failures: vec![("/ip4/192.0.2.1/tcp/1".parse().expect("an address"), ours())],
    };
    assert!(timed_out(&io::Error::other(named)));
    assert!(timed_out(&TransportTimeoutError::<io::Error>::Timeout));
    assert!(timed_out(&io::Error::from(io::ErrorKind::TimedOut)));
    assert!(!timed_out(&io::Error::other("timed out")));
    assert!(!timed_out(&io::Error::from(io::ErrorKind::ConnectionReset)));
}

#[test]
fn the_words_of_tls_about_an_end_without_its_close_never_appear() {
    let text = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
    let of_tls = || io::Error::new(io::ErrorKind::UnexpectedEof, text);
    let of_yamux = io::Error::other(yamux::ConnectionError::Io(of_tls()));
    let failed = Error::io(
        "tcp connection to 192.0.2.1:443 failed".to_owned(),
        of_tls(),
    );
    for error in [
        of_tls(),
        io::Error::other(of_tls()),
        of_yamux,
        io::Error::other(failed),
    ] {
        let shown = innermost(&error);
        assert!(
            !shown.contains("close_notify") && !shown.contains("https://"),
            "{shown}"
        );
        assert!(shown.contains("ended without a graceful close"), "{shown}");
    }
}

/// What TLS reports of a certificate, on the side that has looked at it and on the other, over TCP and over QUIC.
fn tls(here: rustls::CertificateError, alert: u8) -> [io::Error; 4] {
    let code = quinn::TransportErrorCode::crypto(alert);
    let there = rustls::Error::AlertReceived(alert.into());
    let tcp = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let closed = quinn::ConnectionClose {
        error_code: code,
        frame_type: None,
        reason: Default::default(),
    };
    let quic = |error: quinn::ConnectionError| io::Error::other(error);
    [
        tcp(rustls::Error::InvalidCertificate(here)),
        tcp(there),
        quic(quinn::ConnectionError::TransportError(code.into())),
        quic(quinn::ConnectionError::ConnectionClosed(closed)),
    ]
}

#[test]
fn a_certificate_that_is_not_valid_now_is_a_matter_of_a_clock_and_no_other_one_is() {
    let remote = "192.0.2.1:443".parse().unwrap();
    let texts = |error: &io::Error| {
        let handshake = Error::handshake(remote, error);
        [
            innermost(error),
            handshake.to_string(),
            innermost(&handshake),
        ]
    };
    let expired = tls(rustls::CertificateError::Expired, 45);
    for (error, whose) in expired.iter().zip(["the peer's", "this host's"].repeat(2)) {
        for text in texts(error) {
            let names = format!("clock: {whose} certificate is not valid at the time");
            assert!(text.contains(&names), "{text}");
        }
    }
    let ends = expired.map(|error| closed(&error));
    let there = Some(Closed::Clock);
    assert_eq!(ends, [None, there, None, there]);
    // bad_certificate, unsupported_certificate, certificate_revoked, certificate_unknown, decrypt_error, no_application_protocol.
    for alert in [42, 43, 44, 46, 51, 120] {
        for error in tls(rustls::CertificateError::BadSignature, alert) {
            for text in texts(&error) {
                assert!(!text.contains("clock"), "{text}");
            }
        }
    }
}
