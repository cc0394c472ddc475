//! A source address of its own for each peer, out of 127.64.0.0/10. See decision 0709.
//!
//! Linux gives all of 127.0.0.0/8 to the loopback interface, so a process binds to any address of it without privilege. The address
//! follows from the peer id. If another peer has it already, the next free one is taken. Once given, an address is the
//! peer's for ever: rules of targets name it. So the owner keeps the table in a file, to which [`Addresses::assign`] adds lines.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
    net::Ipv4Addr,
};

use libp2p::PeerId;
use p2pnode_protocol::{addr, quote};

use crate::config::Peers;

/// The first address of the block, which stays free, as does the last.
const BLOCK: u32 = 0x7f40_0000;

/// The bits that differ within the block.
const MASK: u32 = 0x003f_ffff;

/// The most peers that have an address: a file of 1 MB. An address of one peer is never given to another, so the table does not
/// make room.
pub const MOST: usize = 16_384;

/// The most with those that the configuration names, for whom strangers leave room.
pub const MOST_NAMED: usize = 2 * MOST;

/// Which peer has which address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    of: BTreeMap<PeerId, Ipv4Addr>,
    peers: BTreeMap<Ipv4Addr, PeerId>,
}

/// The address of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: Ipv4Addr,
    /// The line to add to the file, if the peer had none before.
    pub line: Option<String>,
}

/// Why a peer has no address: [`MOST`] others have one, or [`MOST_NAMED`] if the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MOST} peers or more have an address in 127.64.0.0/10, as many as are remembered; name the peer in `allow` or `peers`, or remove the lines of those that are gone, and start again"
)]
pub struct Full;

impl Addresses {
    /// Reads the lines of a file. A line without its end is what a crash has left, and not read.
    ///
    /// # Errors
    /// The number of a line that is no address and peer id, or contradicts an earlier one, and what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut addresses = Self::default();
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        for (index, line) in whole.enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let added = addresses.read_line(line);
            added.map_err(|problem| format!("line {}: {problem}", index + 1))?;
        }
        Ok(addresses)
    }

    fn read_line(&mut self, line: &str) -> Result<(), String> {
        let (address, peer) = line
            .split_once(char::is_whitespace)
            .and_then(|(address, peer)| {
                let peer = addr::peer_id(peer.trim()).ok()?;
                Some((address.parse().ok().filter(is_given)?, peer))
            })
            .ok_or_else(|| {
                let line = quote(line);
                format!("{line} is no address in 127.64.0.0/10 and a peer id")
            })?;
        let known = self.of.insert(peer, address);
        let holder = self.peers.insert(address, peer);
        match known.is_some() || holder.is_some() {
            true => Err(format!("{address} or {peer} stands in an earlier line")),
            false => Ok(()),
        }
    }

    /// The address of `peer`, if it has one.
    #[must_use]
    pub fn of(&self, peer: &PeerId) -> Option<Ipv4Addr> {
        self.of.get(peer).copied()
    }

    /// Every peer that has an address, in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, PeerId)> {
        self.peers.iter().map(|(address, peer)| (*address, *peer))
    }

    /// The address of `peer`, which gets one if it has none. The configuration may name it.
    ///
    /// # Errors
    /// If it has none, and as many peers as may be have one.
    pub fn assign(&mut self, peer: PeerId, is_named: bool) -> Result<Assigned, Full> {
        if let Some(address) = self.of(&peer) {
            let line = None;
            return Ok(Assigned { address, line });
        }
        let most = if is_named { MOST_NAMED } else { MOST };
        if self.of.len() >= most {
            return Err(Full);
        }
        let mut number = wanted(&peer);
        loop {
            let address = Ipv4Addr::from_bits(BLOCK | number);
            if is_given(&address)
                && let Entry::Vacant(free) = self.peers.entry(address)
            {
                free.insert(peer);
                self.of.insert(peer, address);
                let line = Some(format!("{address} {peer}\n"));
                return Ok(Assigned { address, line });
            }
            // There are 4 million, and a few thousand are taken.
            number = (number + 1) & MASK;
        }
    }
}

/// Addresses that stand for peers, as a hosts file (hosts(5)). `PEER.p2p` is the first name, PEER a name of `names` or the peer id as
/// a CID in base 36.
pub fn hosts(
    addresses: impl IntoIterator<Item = (impl std::fmt::Display, PeerId)>,
    names: &Peers,
) -> String {
    let mut hosts = String::new();
    for (address, peer) in addresses {
        let named = names.iter().filter(|(_, id)| **id == peer);
        let named = named.map(|(name, _)| name.to_ascii_lowercase());
        let all: Vec<_> = named
            .chain([addr::base36(&peer)])
            .map(|name| format!("{name}.p2p"))
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(hosts, "{address}\t{}\t# {peer}", all.join(" "));
    }
    hosts
}

/// The last bits of a peer id are those of a key or of a hash: evenly spread. Who makes keys until these bits are another peer's
/// gains nothing, since the address stays with the peer that has it.
fn wanted(peer: &PeerId) -> u32 {
    let bytes = peer.to_bytes();
    let last = bytes.last_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(last) & MASK
}

fn is_given(address: &Ipv4Addr) -> bool {
    let number = address.to_bits() ^ BLOCK;
    (1..MASK).contains(&number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn peer_ending_in(end: [u8; 4]) -> PeerId {
        // The identity hash of 36 bytes, as that of an ed25519 key.
        let mut bytes = vec![0x00, 0x24];
        bytes.extend(std::array::from_fn::<u8, 32, _>(|_| fastrand::u8(..)));
        bytes.extend(end);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn a_peer_has_the_same_address_after_every_restart() {
        let peer = peer_ending_in([0xff, 0x41, 0x02, 0x03]);
        let mut addresses = Addresses::default();
        let first = addresses.assign(peer, false).unwrap();
        assert_eq!(first.address, Ipv4Addr::new(127, 65, 2, 3));
        let line = first.line.unwrap();
        assert_eq!(line, format!("127.65.2.3 {peer}\n"));
        let again = addresses.assign(peer, false).unwrap();
        assert_eq!((again.address, again.line), (first.address, None));
        assert_eq!(Addresses::read(&line).unwrap(), addresses);
        // Even a lost file gives it the same one, unless another peer comes first.
        assert_eq!(
            Addresses::default().assign(peer, false).unwrap().address,
            first.address
        );
    }

    #[test]
    fn peers_that_want_the_same_address_get_different_ones_and_keep_them() {
        let end = [0, 0x3f, 0xff, 0xfe];
        let peers: [_; 3] = std::array::from_fn(|_| peer_ending_in(end));
        let mut addresses = Addresses::default();
        let mut file = "# Kept by p2pnode.\n\n".to_owned();
        let given = peers.map(|peer| {
            let assigned = addresses.assign(peer, false).unwrap();
            file += &assigned.line.unwrap();
            assigned.address
        });
        let expected = [[127, 127, 255, 254], [127, 64, 0, 1], [127, 64, 0, 2]];
        assert_eq!(given, expected.map(Ipv4Addr::from));
        let mut read = Addresses::read(&file).unwrap();
        // In another order, and next to one that is new.
        read.assign(peer_ending_in(end), false).unwrap();
        for (peer, address) in peers.into_iter().zip(given).rev() {
            assert_eq!(read.assign(peer, false).unwrap().address, address);
        }
    }

    #[test]
    fn every_address_is_in_the_block_and_the_table_is_bounded() {
        let mut addresses = Addresses::default();
        for _ in 0..MOST {
            let address = addresses.assign(PeerId::random(), false).unwrap().address;
            let [first, second, ..] = address.octets();
            assert!(first == 127 && (64..128).contains(&second), "{address}");
        }
        assert_eq!(addresses.assign(PeerId::random(), false), Err(Full));
        let named = addresses.assign(PeerId::random(), true);
        assert!(named.is_ok(), "strangers leave room for it");
        assert_eq!(addresses.iter().count(), MOST + 1);
        let (_, known) = addresses.iter().next().unwrap();
        assert!(addresses.assign(known, false).is_ok());
    }

    #[test]
    fn a_file_that_was_damaged_is_refused_with_its_line_and_a_torn_end_is_not() {
        let [one, other] = [peer_ending_in([1; 4]), peer_ending_in([2; 4])];
        for (text, line) in [
            (format!("127.0.0.1 {one}\n"), 1),
            (format!("127.64.0.0 {one}\n"), 1),
            (format!("127.127.255.255 {one}\n"), 1),
            ("127.64.0.1 me\n".to_owned(), 1),
            ("\n127.64.0.1\n".to_owned(), 2),
            (format!("127.64.0.1 {one}\n127.64.0.1 {other}\n"), 2),
            (format!("127.64.0.1 {one}\n127.64.0.2 {one}\n"), 2),
        ] {
            let error = Addresses::read(&text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
        let torn = format!("127.64.0.1 {one}\n127.64.0.2 12D3Koo");
        let read = Addresses::read(&torn).unwrap();
        assert_eq!(
            read.iter().collect::<Vec<_>>(),
            [([127, 64, 0, 1].into(), one)]
        );
    }

    #[test]
    fn the_hosts_file_has_the_names_and_the_id_of_each_peer() {
        let peer = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt"
            .parse()
            .unwrap();
        let mut addresses = Addresses::default();
        let address = addresses.assign(peer, false).unwrap().address;
        let names = [("West".to_owned(), peer)].into();
        let id = addr::base36(&peer);
        assert_eq!(
            hosts(addresses.iter(), &names),
            format!("{address}\twest.p2p {id}.p2p\t# {peer}\n")
        );
        assert!(id.len() <= 63 && addr::peer_id(&id).unwrap() == peer);
    }
}
