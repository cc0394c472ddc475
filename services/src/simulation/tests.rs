//! What holds whatever happens.

use std::time::Duration;

use p2pnode_protocol::bucket::Measure;

use super::World;
use crate::{
    core::{
        access::Limits,
        session::{End, Settings},
    },
    wire::ResetReason,
};

/// More with `SESSION_SEEDS`.
const SEEDS: u64 = 1_000;

fn settings() -> Settings {
    Settings {
        linger: Duration::from_secs(6),
        open_timeout: Duration::from_secs(8),
        answer_timeout: Duration::from_secs(2),
        first_window: 4 << 10,
        most_window: 32 << 10,
        ..Settings::default()
    }
}

/// In each other world a resume is admitted once in three seconds only, behind the three openings.
fn limits(seed: u64) -> Limits {
    let opens = Measure {
        burst: 3,
        period: Duration::from_secs(3),
    };
    match seed % 2 {
        0 => Limits::default(),
        _ => Limits {
            opens,
            ..Limits::default()
        },
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let more = std::env::var("SESSION_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    0..more.unwrap_or(SEEDS)
}

/// Prints the seed of a run that fails.
struct Seed(u64);

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "it leads to what failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with the seed {}", self.0);
        }
    }
}

/// Runs until all sessions are over, and for how long that may take.
fn calm(world: &mut World) {
    (world.resets, world.least_reads) = (false, 100);
    for host in &mut world.hosts {
        for driven in host.driven.values_mut() {
            driven.app.reads = 100;
        }
    }
    let end = world.now + Duration::from_secs(120);
    while world.hosts.iter().any(|host| !host.driven.is_empty()) {
        if world.now >= end {
            let left = world.hosts.iter().flat_map(|host| host.driven.values());
            let left: Vec<_> = left.map(|driven| (&driven.session, &driven.app)).collect();
            panic!("{} sessions do not end: {left:#?}", left.len());
        }
        world.step();
    }
    for host in &world.hosts {
        assert_eq!(host.memory.held_at_most(), 0);
        assert!(host.table.is_empty());
    }
}

/// What both applications of each session have seen.
fn judge(world: &World) -> [u32; 2] {
    let mut ends = [0; 2];
    for side in 0..2 {
        for (id, app) in &world.ended[side] {
            let other = world.ended[1 - side].get(id);
            let sent = other.map_or(0, |other| other.sent);
            assert!(app.got <= sent, "{id}: more than was sent");
            assert!(app.opened <= 1);
            match app.end {
                Some(End::Completed) => {
                    ends[0] += 1;
                    let other = other.expect("somebody answered");
                    assert!(
                        app.got_end && app.got == other.total,
                        "{id}: {app:?} {other:?}"
                    );
                    assert_eq!(other.got, app.total, "{id}: all of it is delivered");
                    assert!(other.got_end);
                }
                Some(End::ResetByPeer(ResetReason::LocalReset)) => {
                    ends[1] += 1;
                    let other = other.expect("somebody reset it");
                    assert!(other.resets);
                    // Else it has waited for its path longer than it lingers.
                    if !app.resets && other.end == Some(End::Reset(ResetReason::LocalReset)) {
                        assert_eq!(app.got, other.sent, "{id}: what was sent before the reset");
                    }
                }
                Some(End::PeerRestarted) => {
                    ends[1] += 1;
                    // What the earlier process of a caller has sent may arrive after its end.
                    let before = if side == 0 { app.peer_crashes } else { 0 };
                    assert!(world.crashed[1 - side] > before, "{id}");
                }
                Some(_) => ends[1] += 1,
                None => assert!(world.crashed[side] > 0, "{id}: ends with its process"),
            }
        }
    }
    ends
}

#[test]
fn sessions_over_paths_that_break_and_get_better_lose_nothing() {
    let (mut completed, mut delayed) = (0, 0);
    for seed in seeds() {
        let _seed = Seed(seed);
        let settings = Settings {
            linger: Duration::from_secs(60),
            open_timeout: Duration::from_secs(60),
            ..settings()
        };
        let mut world = World::new(seed, 1 << 20, &limits(seed), &settings);
        for _ in 0..3 {
            world.open(30_000);
        }
        // An opening beyond the rate is refused, which is no loss.
        while world.hosts[1].driven.len() + world.ended[1].len() < 3 {
            world.step();
        }
        for _ in 0..world.rng.usize(20..200) {
            let last = world.paths.len() - 1;
            match world.rng.u8(..60) {
                0 => world.improve(),
                1 if world.paths.len() > 1 => {
                    world.cut(last);
                    world.improve();
                }
                2 => {
                    for path in 0..world.paths.len() {
                        world.cut(path);
                    }
                    for _ in 0..world.rng.usize(..20) {
                        world.step();
                    }
                    world.improve();
                }
                3 => world.hostile_resume(),
                _ => {}
            }
            world.step();
        }
        world.improve();
        calm(&mut world);
        let ends = judge(&world);
        assert_eq!(ends, [6, 0], "{:?}", world.ended);
        completed += ends[0];
        delayed += world.delayed;
    }
    assert!(completed > 0 && delayed > 0);
}

#[test]
fn whatever_happens_what_is_delivered_is_a_prefix_and_no_session_outlives_its_linger() {
    let (mut completed, mut other) = (0, 0);
    for seed in seeds() {
        let _seed = Seed(seed);
        // Enough for a few floors, for a few windows, or for all.
        let memory = [40 << 10, 100 << 10, 4 << 20][seed as usize % 3];
        let mut world = World::new(seed, memory, &Limits::default(), &settings());
        world.resets = seed % 2 == 0;
        for _ in 0..world.rng.usize(50..400) {
            match world.rng.u8(..80) {
                0..=3 => {
                    let most = [0, 100, 60_000][world.rng.usize(..3)];
                    world.open(most);
                }
                4 => {
                    let path = world.rng.usize(..world.paths.len());
                    world.cut(path);
                }
                5..=6 => world.improve(),
                7 if world.rng.u8(..4) == 0 => world.crash(0),
                8 if world.rng.u8(..4) == 0 => world.crash(1),
                9 => world.hostile_resume(),
                10..=12 => world.hello(1),
                _ => {}
            }
            world.step();
        }
        if world.rng.bool() {
            world.improve();
        } else {
            for path in 0..world.paths.len() {
                world.cut(path);
            }
        }
        calm(&mut world);
        let ends = judge(&world);
        completed += ends[0];
        other += ends[1];
    }
    assert!(completed > 100 && other > 100, "{completed} and {other}");
}
