//! The clients' network: frames that are lost, doubled and overtake each other, and a switch that learns behind which
//! host the guest's address is.

use crate::fault::HostId;
use crate::random::Random;

/// The switch and the wires.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) cut_until_ns: Vec<u64>,
    pub(crate) chaos_until_ns: u64,
    pub(crate) chaos_permille: u64,
    /// Behind which port the guest was last heard.
    learned: Option<HostId>,
    random: Random,
}

/// How long a frame takes at most when it is overtaken by others.
const OVERTAKEN_NS_MAX: u64 = 30_000_000;

impl Net {
    pub(crate) fn new(hosts: usize, random: Random) -> Self {
        Self { cut_until_ns: vec![0; hosts], chaos_until_ns: 0, chaos_permille: 0, learned: None, random }
    }

    /// The guest was heard behind this host.
    pub(crate) fn learn(&mut self, now_ns: u64, host: HostId) {
        if now_ns >= self.cut_until_ns[host] {
            self.learned = Some(host);
        }
    }

    /// A port is dead.
    pub(crate) fn forget(&mut self, host: HostId) {
        self.learned = self.learned.filter(|learned| *learned != host);
    }

    /// To which ports a client's frame goes. What is asked again is flooded: the switch has forgotten by then.
    pub(crate) fn ports(&self, again: bool) -> Vec<HostId> {
        match self.learned {
            Some(host) if !again => vec![host],
            _ => (0..self.cut_until_ns.len()).collect(),
        }
    }

    /// When copies of a frame, sent now through this host's port, arrive.
    pub(crate) fn arrivals(&mut self, now_ns: u64, host: HostId) -> Vec<u64> {
        if now_ns < self.cut_until_ns[host] {
            return Vec::new();
        }
        let chaos = if now_ns < self.chaos_until_ns { self.chaos_permille } else { 0 };
        if self.random.chance(chaos) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.random.chance(chaos));
        let mut arrival = || {
            let overtaken = if self.random.chance(chaos) { self.random.below(OVERTAKEN_NS_MAX) } else { 0 };
            now_ns + self.random.between(30_000, 200_000) + overtaken
        };
        (0..copies).map(|_| arrival()).collect()
    }
}
