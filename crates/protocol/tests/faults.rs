//! A pair of toy machines under the real protocol, in virtual time, with faults from a seed.
//!
//! The checker: in each generation at most one side releases; no two releases contradict each other; and whoever
//! survives has made every output that was ever released, at the same icount. `POLLUX_SEEDS=from..to` chooses seeds;
//! a failure names its seed.

#[path = "../../../tests/chance.rs"]
mod chance;

use chance::Xorshift as Random;
use pollux_protocol::*;
use pollux_vocab::*;
use std::collections::{BTreeMap, VecDeque};

/// The other replica.
const MS: u64 = 1_000_000;
const STEPS_PER_MS: u64 = 10;

fn peer_of(host: usize) -> PeerId {
    PeerId(host as u16)
}

/// A machine: a number that depends on everything that ever entered. Makes an output every seven steps.
#[derive(Clone, Default)]
struct Toy {
    icount: u64,
    state: u64,
    made: BTreeMap<u64, u64>,
}

impl Toy {
    fn run(&mut self, until: u64) -> Vec<(u64, u64)> {
        let mut outputs = Vec::new();
        while self.icount < until {
            self.icount += 1;
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(self.icount);
            if self.icount.is_multiple_of(7) {
                self.made.insert(self.icount, self.state);
                outputs.push((self.icount, self.state));
            }
        }
        outputs
    }
    fn apply(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = self.state.rotate_left(9) ^ u64::from(*byte);
        }
    }
}

enum Side {
    Live(Box<Primary>),
    Standby(Box<Backup>),
    Gone,
}

struct Host {
    side: Side,
    /// Who is at the other end of its link.
    peer: usize,
    toy: Toy,
    paused_until: u64,
    inbox: VecDeque<(u64, Message)>,
    link_lost_at: Option<u64>,
    verdicts: VecDeque<(u64, Generation, Verdict)>,
}

struct World {
    random: Random,
    now: u64,
    hosts: Vec<Host>,
    cut: bool,
    arbiter: BTreeMap<u64, usize>,
    arbiter_down_until: u64,
    released: Vec<(u64, usize, u64, u64)>,
}

fn encode(icount: u64, value: u64) -> Output {
    let bytes = [icount.to_le_bytes(), value.to_le_bytes()].concat();
    Output::Console { console: ConsoleId::Uart, bytes }
}

fn decode(output: &Output) -> (u64, u64) {
    let Output::Console { bytes, .. } = output else { panic!("the toy only speaks") };
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    (word(0), word(8))
}

impl World {
    fn new(seed: u64) -> Self {
        let host = |side, peer| Host {
            side,
            peer,
            toy: Toy::default(),
            paused_until: 0,
            inbox: VecDeque::new(),
            link_lost_at: None,
            verdicts: VecDeque::new(),
        };
        let settings = Settings::default();
        let primary = Primary::new_protected(settings.clone(), Generation(1), HostTime(0), peer_of(1));
        let backup = Backup::new(settings, Generation(1), HostTime(0), peer_of(0));
        Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: 0,
            hosts: vec![host(Side::Live(Box::new(primary)), 1), host(Side::Standby(Box::new(backup)), 0)],
            cut: false,
            arbiter: BTreeMap::new(),
            arbiter_down_until: 0,
            released: Vec::new(),
        }
    }

    fn send(&mut self, to: PeerId, message: Message) {
        if self.cut {
            return;
        }
        // TCP: delayed, never reordered.
        let to = usize::from(to.0);
        let earliest = self.hosts[to].inbox.back().map_or(0, |(at, _)| *at);
        let at = (self.now + self.random.below(5)).max(earliest);
        self.hosts[to].inbox.push_back((at, message));
    }

    fn claim(&mut self, host: usize, generation: Generation) {
        let at = self.now + 1 + self.random.below(20);
        // The storage may do its work and its answer be lost all the same.
        let reached = self.now >= self.arbiter_down_until || self.random.one_in(2);
        let answered = self.now >= self.arbiter_down_until;
        let holder = if reached { Some(*self.arbiter.entry(generation.0).or_insert(host)) } else { None };
        let verdict = match (answered, holder) {
            (true, Some(holder)) if holder == host => Verdict::Won,
            (true, Some(_)) => Verdict::Lost,
            _ => Verdict::Unreachable,
        };
        self.hosts[host].verdicts.push_back((at, generation, verdict));
    }

    fn fault(&mut self) {
        let host = self.random.below(self.hosts.len() as u64) as usize;
        match self.random.below(40) {
            0 => {
                self.hosts[host].side = Side::Gone;
                let at = self.now + self.random.below(10);
                let peer = self.hosts[host].peer;
                self.hosts[peer].link_lost_at = Some(at);
            }
            1 => {
                self.cut = true;
                if self.random.one_in(2) {
                    for host in &mut self.hosts {
                        host.link_lost_at = Some(self.now + self.random.below(400));
                    }
                }
            }
            2..=4 => self.hosts[host].paused_until = self.now + self.random.below(1500),
            5 | 6 => self.arbiter_down_until = self.now + self.random.below(1500),
            _ => {}
        }
    }

    fn step_host(&mut self, me: usize) {
        if self.now < self.hosts[me].paused_until {
            return;
        }
        let now = HostTime(self.now * MS);
        let peer = peer_of(self.hosts[me].peer);
        match &mut self.hosts[me].side {
            Side::Live(p) => p.handle_tick(now),
            Side::Standby(b) => b.handle_tick(now),
            Side::Gone => return,
        }
        while self.hosts[me].inbox.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, message) = self.hosts[me].inbox.pop_front().expect("looked at");
            match &mut self.hosts[me].side {
                Side::Live(p) => p.handle_message(now, peer, message),
                Side::Standby(b) => b.handle_message(now, peer, message),
                Side::Gone => {}
            }
        }
        // The end of the stream comes behind everything that was in it.
        let drained = self.hosts[me].inbox.is_empty();
        if drained && self.hosts[me].link_lost_at.take_if(|at| *at <= self.now).is_some() {
            match &mut self.hosts[me].side {
                Side::Live(p) => p.handle_link_lost(now, peer),
                Side::Standby(b) => b.handle_link_lost(now, peer),
                Side::Gone => {}
            }
        }
        while self.hosts[me].verdicts.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, generation, verdict) = self.hosts[me].verdicts.pop_front().expect("looked at");
            match &mut self.hosts[me].side {
                Side::Live(p) => p.handle_arbiter(now, generation, verdict),
                Side::Standby(b) => b.handle_arbiter(now, generation, verdict),
                Side::Gone => {}
            }
        }
        self.run_host(me, now);
    }

    fn run_host(&mut self, me: usize, now: HostTime) {
        let mut out = Vec::new();
        let mut claims = Vec::new();
        let host = &mut self.hosts[me];
        let mut next = None;
        match &mut host.side {
            Side::Live(p) => {
                if matches!(p.pace(now), Pace::Run { .. }) {
                    if self.random.one_in(3) {
                        let bytes = vec![self.random.next() as u8];
                        let input = Input::Console { console: ConsoleId::Uart, bytes: bytes.clone() };
                        p.admit(Icount(host.toy.icount), RecordBody::Input(input));
                        host.toy.apply(&bytes);
                    }
                    let until = host.toy.icount + STEPS_PER_MS;
                    for (icount, value) in host.toy.run(until) {
                        p.hold(now, Icount(icount), encode(icount, value));
                    }
                    p.flush(now, Icount(host.toy.icount), VirtTime(host.toy.icount * 100_000));
                }
                let generation = p.report().generation.0;
                while let Some(output) = p.poll_release(now) {
                    let (icount, value) = decode(&output);
                    self.released.push((generation, me, icount, value));
                }
                out.extend(std::iter::from_fn(|| p.poll_message()));
                p.handle_sent(now);
                for command in std::iter::from_fn(|| p.poll_command()) {
                    match command {
                        Command::Claim(generation) => claims.push(generation),
                        Command::Halt(_) => next = Some(Side::Gone),
                        Command::BackupStalled | Command::BackupLost | Command::WentSolo { .. } => {}
                    }
                }
            }
            Side::Standby(b) => {
                // A slow backup executes only a few records at a time.
                for _ in 0..self.random.below(4) {
                    let Some(record) = b.next_record().cloned() else { break };
                    host.toy.run(record.icount.0);
                    if let RecordBody::Input(Input::Console { bytes, .. }) = &record.body {
                        host.toy.apply(bytes);
                    }
                    b.pop_record();
                }
                b.handle_executed(now, Icount(host.toy.icount), VirtTime(host.toy.icount * 100_000));
                out.extend(std::iter::from_fn(|| b.poll_message()));
                for command in std::iter::from_fn(|| b.poll_command()) {
                    match command {
                        BackupCommand::Claim(generation) => claims.push(generation),
                        BackupCommand::Halt(_) => next = Some(Side::Gone),
                        BackupCommand::GoLive { generation, next_lsn } => {
                            let live = Primary::new_solo(Settings::default(), generation, now, next_lsn);
                            next = Some(Side::Live(Box::new(live)));
                        }
                    }
                }
            }
            Side::Gone => {}
        }
        if let Some(side) = next {
            host.side = side;
        }
        for generation in claims {
            self.claim(me, generation);
        }
        for (to, message) in out {
            self.send(to, message);
        }
    }

    /// The rules of the world outside.
    fn check(&self, seed: u64) {
        let mut owner = BTreeMap::new();
        let mut said = BTreeMap::new();
        for &(generation, host, icount, value) in &self.released {
            let first = *owner.entry(generation).or_insert(host);
            assert_eq!(first, host, "seed {seed}: two hosts released in generation {generation}");
            let earlier = *said.entry(icount).or_insert(value);
            assert_eq!(earlier, value, "seed {seed}: the output of icount {icount} was contradicted");
        }
        let live = self
            .hosts
            .iter()
            .filter(|h| matches!(&h.side, Side::Live(p) if p.report().state == Role::Solo))
            .count();
        assert!(live <= 1, "seed {seed}: two run alone");
        for host in &self.hosts {
            if let Side::Live(p) = &host.side
                && p.report().state == Role::Solo
            {
                for &(_, _, icount, value) in self.released.iter().filter(|r| r.2 <= host.toy.icount) {
                    assert_eq!(
                        host.toy.made.get(&icount),
                        Some(&value),
                        "seed {seed}: the survivor never said what was said at {icount}"
                    );
                }
                let newest = said.keys().next_back().copied().unwrap_or(0);
                assert!(
                    newest <= host.toy.icount,
                    "seed {seed}: the survivor stands before what was released"
                );
            }
        }
    }

    fn run(seed: u64) -> Self {
        let mut world = Self::new(seed);
        for _ in 0..2500 {
            world.now += 1;
            if world.now < 1500 && world.random.one_in(50) {
                world.fault();
            }
            let hosts = world.hosts.len();
            let first = world.random.below(hosts as u64) as usize;
            for host in (first..hosts).chain(0..first) {
                world.step_host(host);
            }
            if world.now.is_multiple_of(50) {
                world.check(seed);
            }
        }
        world.check(seed);
        world
    }
}

#[test]
fn no_schedule_of_faults_contradicts_the_world_or_lets_two_run() {
    let range = std::env::var("POLLUX_SEEDS").ok().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse::<u64>().ok()?..to.parse::<u64>().ok()?)
    });
    let (mut failovers, mut solos, mut outputs) = (0, 0, 0);
    for seed in range.unwrap_or(1..2001) {
        let world = World::run(seed);
        failovers += u32::from(world.released.iter().any(|r| r.0 == 2 && r.1 == 1));
        solos += u32::from(world.released.iter().any(|r| r.0 == 2 && r.1 == 0));
        outputs += world.released.len();
    }
    println!("{failovers} failovers, {solos} primaries that went on alone, {outputs} outputs checked");
    assert!(
        std::env::var_os("POLLUX_SEEDS").is_some() || (failovers > 200 && solos > 200),
        "faults must bite"
    );
}
