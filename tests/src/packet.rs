//! Packets as `tcpdump -i any -y LINUX_SLL2 -w -` writes them.
//!
//! Formats: [pcap](https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html) and
//! [LINKTYPE_LINUX_SLL2](https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html).

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Result, bail, ensure};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Little-endian pcap with microseconds: what tcpdump writes on the machines the lab runs on.
const MAGIC: u32 = 0xa1b2_c3d4;
const LINKTYPE_LINUX_SLL2: u32 = 276;
const SLL2_HEADER: usize = 20;
/// `sll2_pkttype`: sent by this machine.
const PACKET_OUTGOING: u8 = 4;
/// No packet of the capture is longer: the capture cuts them.
const LONGEST: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp {
        /// SYN without ACK: whoever sent it originates the connection.
        opens: bool,
        resets: bool,
    },
    Udp,
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub interface: u32,
    /// Whether it left through that interface; else it came in.
    pub outgoing: bool,
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Bytes of the IP packet, also of what the capture has cut.
    pub length: usize,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.name();
        write!(f, "{protocol} {} > {}", self.source, self.destination)
    }
}

pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; 24]> {
    let mut header = [0; 24];
    stream.read_exact(&mut header).await?;
    let magic = word(&header, 0);
    ensure!(
        magic == MAGIC,
        "not a little-endian pcap: magic {magic:#010x}"
    );
    let link = word(&header, 20) & 0xffff;
    ensure!(
        link == LINKTYPE_LINUX_SLL2,
        "capture of link type {link} instead of {LINKTYPE_LINUX_SLL2}"
    );
    Ok(header)
}

/// Reads one record: its bytes as in the file, and its packet if that is whole enough to be TCP or UDP.
pub async fn read_record(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(Vec<u8>, Option<Packet>)>> {
    let mut header = [0; 16];
    if let Err(error) = stream.read_exact(&mut header).await {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Ok(None);
        }
        return Err(error.into());
    }
    let length = usize::try_from(word(&header, 8))?;
    if length > LONGEST {
        bail!("record of {length} bytes in the capture");
    }
    let mut record = header.to_vec();
    record.resize(header.len() + length, 0);
    let Some(data) = record.get_mut(header.len()..) else {
        bail!("empty record in the capture");
    };
    stream.read_exact(data).await?;
    let whole = usize::try_from(word(&header, 12))?.saturating_sub(SLL2_HEADER);
    let packet = parse(data, whole);
    Ok(Some((record, packet)))
}

fn parse(data: &[u8], length: usize) -> Option<Packet> {
    let (sll, ip) = data.split_at_checked(SLL2_HEADER)?;
    let interface = u32::from_be_bytes(sll.get(4..8)?.try_into().ok()?);
    let outgoing = *sll.get(10)? == PACKET_OUTGOING;
    let sliced = LaxSlicedPacket::from_ip(ip).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match sliced.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let (protocol, from, to) = match sliced.transport? {
        TransportSlice::Udp(udp) => (Protocol::Udp, udp.source_port(), udp.destination_port()),
        TransportSlice::Tcp(tcp) => {
            let protocol = Protocol::Tcp {
                opens: tcp.syn() && !tcp.ack(),
                resets: tcp.rst(),
            };
            (protocol, tcp.source_port(), tcp.destination_port())
        }
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) => return None,
    };
    Some(Packet {
        interface,
        outgoing,
        protocol,
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
        length,
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}
