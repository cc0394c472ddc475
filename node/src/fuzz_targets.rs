//! The fuzz targets as tests: each compiles, takes its seeds, and takes what becomes of them by chance.
//!
//! `cargo xtask fuzz` runs the same targets with libFuzzer, which finds more and compiles for long. Here the same inputs come in each
//! run, unless `P2PNODE_FUZZ_SECONDS` says for how long each target gets new ones.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

macro_rules! targets {
    ($($name:ident, $path:literal;)*) => {
        $(
            #[allow(unused_attributes, reason = "`no_main` is for a program")]
            #[path = $path]
            mod $name;

            #[test]
            fn $name() {
                fuzz(stringify!($name), $name::run);
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    candidates, "../../fuzz/fuzz_targets/candidates.rs";
    circuit, "../../fuzz/fuzz_targets/circuit.rs";
    dcutr, "../../fuzz/fuzz_targets/dcutr.rs";
    dcutr_stream, "../../fuzz/fuzz_targets/dcutr_stream.rs";
    dns_update, "../../fuzz/fuzz_targets/dns_update.rs";
    hop_answer, "../../fuzz/fuzz_targets/hop_answer.rs";
    hop_request, "../../fuzz/fuzz_targets/hop_request.rs";
    join_answer, "../../fuzz/fuzz_targets/join_answer.rs";
    join_request, "../../fuzz/fuzz_targets/join_request.rs";
    join_token, "../../fuzz/fuzz_targets/join_token.rs";
    mapping, "../../fuzz/fuzz_targets/mapping.rs";
    mdns, "../../fuzz/fuzz_targets/mdns.rs";
    meet, "../../fuzz/fuzz_targets/meet.rs";
    probe, "../../fuzz/fuzz_targets/probe.rs";
    quote, "../../fuzz/fuzz_targets/quote.rs";
    record, "../../fuzz/fuzz_targets/record.rs";
    service_datagram, "../../fuzz/fuzz_targets/service_datagram.rs";
    service_frames, "../../fuzz/fuzz_targets/service_frames.rs";
    service_socks, "../../fuzz/fuzz_targets/service_socks.rs";
    shared_key, "../../fuzz/fuzz_targets/shared_key.rs";
    stun, "../../fuzz/fuzz_targets/stun.rs";
}

/// Stands in for the macro of libFuzzer. Below the targets, which import it.
macro_rules! fuzz_target {
    (|$text:ident: &str| $body:expr) => {
        pub(super) fn run(bytes: &[u8]) {
            if let Ok($text) = std::str::from_utf8(bytes) {
                $body
            }
        }
    };
    (|$bytes:ident: &[u8]| $body:expr) => {
        pub(super) fn run($bytes: &[u8]) {
            $body
        }
    };
}
pub(crate) use fuzz_target;

#[test]
fn every_target_is_here() {
    let files = fs::read_dir(folder().join("fuzz_targets")).expect("the targets");
    let mut files: Vec<_> = files
        .map(|file| file.expect("a file").path().with_extension(""))
        .map(|path| path.file_name().expect("a name").to_owned())
        .collect();
    files.sort();
    assert_eq!(files, NAMES);
}

/// Inputs of each target by default: a second at most.
const INPUTS: u32 = 2000;

/// Bytes at which lengths and limits are, and any.
const BYTES: [u8; 8] = [0, 1, 0x0a, 0x20, 0x7f, 0x80, 0xfe, 0xff];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn fuzz(name: &str, run: fn(&[u8])) {
    let seeds = fs::read_dir(folder().join("seeds").join(name)).expect("each target has seeds");
    let seeds = seeds.map(|seed| fs::read(seed.expect("a seed").path()).expect("its bytes"));
    let mut seeds: Vec<Vec<u8>> = seeds.collect();
    seeds.sort();
    let seconds = std::env::var("P2PNODE_FUZZ_SECONDS").ok();
    let until = seconds.map(|seconds| {
        let seconds = seconds.parse().expect("a number of seconds");
        Instant::now() + Duration::from_secs(seconds)
    });
    let mut chance = Chance(match until {
        None => 1,
        Some(_) => rand_seed(),
    });
    for seed in &seeds {
        run(seed);
    }
    let mut inputs = 0;
    while until.map_or(inputs < INPUTS, |until| Instant::now() < until) {
        let input = chance.mutated(&seeds);
        let tried = std::panic::catch_unwind(|| run(&input));
        assert!(tried.is_ok(), "{name} panics at {input:?}");
        inputs += 1;
    }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) | 1
}

/// [xorshift](https://en.wikipedia.org/wiki/Xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        let any = u8::try_from(self.below(256)).unwrap_or_default();
        BYTES
            .get(self.below(2 * BYTES.len()))
            .copied()
            .unwrap_or(any)
    }

    /// A seed with some changes.
    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(input.len() + 1);
            match self.below(6) {
                0 => input.truncate(at),
                1 => input.insert(at, self.byte()),
                2 => {
                    let other = &seeds[self.below(seeds.len())];
                    input.truncate(at);
                    input.extend(&other[self.below(other.len() + 1)..]);
                }
                3 => {
                    let again = input[at..].to_vec();
                    input.extend(again);
                }
                4 if at < input.len() => drop(input.remove(at)),
                _ => {
                    let byte = self.byte();
                    if let Some(changed) = input.get_mut(at) {
                        *changed = byte;
                    }
                }
            }
        }
        input
    }
}
