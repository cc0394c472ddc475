//! Text that a terminal would obey.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use futures::AsyncWriteExt as _;
use tokio::time::sleep;

use super::{
    Args, Tally,
    raw::{HOP, Identity, MEET, PING, Stream, Wire, connect_message, field, line, with_length},
};

/// Clears the screen, rings, sets the title, forges a line of a log, and turns the direction of what follows.
const OBEYED: &str = "\u{1b}[2J\u{7}\u{1b}]0;owned\u{7}\r\nINFO forged: line\u{202e}\u{9b}31m";
const PAUSE: Duration = Duration::from_millis(300);

/// Over each of the addresses, and over circuits to `to`, everything that a remote can put text into.
pub(super) async fn run(args: Arc<Args>, tally: Tally) -> Result<()> {
    loop {
        for number in 0..args.at.len() {
            let mut identity = Identity::new().speaking(&[MEET, OBEYED]);
            identity.agent = format!("evil {OBEYED}");
            let wire = args.connect(number, &identity).await;
            tally.outcome("connected", &wire);
            if let Ok(wire) = wire {
                if let Some(to) = args.to {
                    let circuit = wire.circuit(to).await;
                    tally.outcome("circuits", &circuit);
                    if let Ok(circuit) = circuit {
                        let inside = Wire::inside(circuit, &identity).await;
                        tally.outcome("handshakes", &inside);
                        if let Ok(inside) = inside {
                            speak(&inside, &identity, &tally).await;
                        }
                    }
                }
                speak(&wire, &identity, &tally).await;
                wire.close(OBEYED.as_bytes());
            }
            sleep(PAUSE).await;
        }
    }
}

async fn speak(wire: &Wire, identity: &Identity, tally: &Tally) {
    let address = dns4(&format!("{OBEYED}.example"));
    let connect = [vec![0x08, 100], field(2, &address)].concat();
    let request = format!(
        r#"{{"peer":"{}\u001b[31m","addrs":["/dns4/{}/tcp/1"]}}"#,
        identity.id(),
        "\\u001b[2Jx"
    );
    let length = u16::try_from(request.len())
        .unwrap_or_default()
        .to_be_bytes();
    let said: [(&str, Vec<u8>); 5] = [
        ("/libp2p/dcutr", with_length(&connect)),
        (MEET, [&length, request.as_bytes()].concat()),
        ("/ipfs/id/push/1.0.0", with_length(&identity.message())),
        (HOP, connect_message(identity.id())),
        (PING, OBEYED.as_bytes().to_vec()),
    ];
    for (protocol, bytes) in said {
        let outcome = async {
            let mut stream: Stream = wire.speak(protocol).await?;
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            sleep(PAUSE).await;
            anyhow::Ok(())
        };
        tally.outcome("said", &outcome.await);
    }
    // As a name of a protocol.
    if let Ok(mut stream) = wire.stream().await {
        let _gone = stream
            .write_all(&[line("/multistream/1.0.0"), line(OBEYED)].concat())
            .await;
        let _gone = stream.flush().await;
        sleep(PAUSE).await;
    }
}

/// `/dns4/NAME/tcp/1`, which libp2p would not make of such a name.
fn dns4(name: &str) -> Vec<u8> {
    [with_length(name.as_bytes()), vec![6, 0, 1]]
        .concat()
        .into_iter()
        .fold(vec![54], |mut bytes, byte| {
            bytes.push(byte);
            bytes
        })
}
