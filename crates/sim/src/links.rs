//! The links of a deployment: one between each two hosts, named by who sends and who receives, and what a host does with
//! its end of one. Who is whose peer is the hosts' to say; a pair that is made gets a new connection.
//!
//! Invariant: what was sent on a connection that has been replaced arrives nowhere.
//!
//! Not here: how a link delays and damages what it carries ([`crate::link`]).

use crate::fault::{HostId, NAMES, Way, peer_of};
use crate::link::Pipe;
use crate::random::Random;
use crate::world::{Happening, World};
use pollux_node::{Event, wire};
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// All of them, each in both directions.
#[derive(Debug)]
pub(crate) struct Links {
    pipes: BTreeMap<Way, Pipe>,
    seed: u64,
}

/// A connection in one direction: what is under way belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) way: Way,
    number: u64,
}

impl Links {
    /// Wires between all hosts, and no connection.
    pub(crate) fn new(seed: u64, hosts: usize, delay_ns: (u64, u64)) -> Self {
        let mut pipes = BTreeMap::new();
        for from in 0..hosts {
            for to in (0..hosts).filter(|to| *to != from) {
                let way = Way { from, to };
                pipes.insert(way, Pipe::new(delay_ns, chance(seed, way, 1)));
            }
        }
        Self { pipes, seed }
    }

    /// Two hosts connect to each other. If they were connected, that is over, and neither hears of it here.
    pub(crate) fn connect(&mut self, way: Way) {
        for way in [way, way.back()] {
            let random = chance(self.seed, way, self[way].number + 1);
            self[way].connect(random);
        }
    }

    /// The newest connection that way.
    pub(crate) fn connection(&self, way: Way) -> Connection {
        Connection { way, number: self[way].number }
    }

    /// Whether it has not been replaced.
    fn is_newest(&self, connection: Connection) -> bool {
        self.connection(connection.way) == connection
    }

    pub(crate) fn ways(&self) -> Vec<Way> {
        self.pipes.keys().copied().collect()
    }

    /// What goes out from this host.
    fn ways_from(&self, host: HostId) -> Vec<Way> {
        self.pipes.keys().copied().filter(|way| way.from == host).collect()
    }

    /// Records to this host were lost, and later ones were not.
    pub(crate) fn has_gap_to(&self, host: HostId) -> bool {
        self.pipes.iter().any(|(way, pipe)| way.to == host && pipe.has_gap)
    }
}

impl Index<Way> for Links {
    type Output = Pipe;
    fn index(&self, way: Way) -> &Pipe {
        self.pipes.get(&way).expect("a plan names hosts of its deployment")
    }
}

impl IndexMut<Way> for Links {
    fn index_mut(&mut self, way: Way) -> &mut Pipe {
        self.pipes.get_mut(&way).expect("a plan names hosts of its deployment")
    }
}

/// Where a connection's chance comes from. The first one of the first pair has the names under which seeds know it.
fn chance(seed: u64, way: Way, number: u64) -> Random {
    match way {
        Way { from, to } if number == 1 && from.max(to) == 1 => Random::new(seed, &format!("pipe {from}")),
        Way { from, to } => Random::new(seed, &format!("pipe {from} to {to}, connection {number}")),
    }
}

impl World {
    /// Bytes arrive at the receiver's end.
    pub(crate) fn link_bytes(&mut self, connection: Connection, bytes: &[u8]) {
        let way = connection.way;
        let (pipe, is_newest) = (&self.links[way], self.links.is_newest(connection));
        let lost = pipe.lost_from_ns.is_some_and(|from| self.now >= from);
        if !is_newest || !pipe.heard || lost {
            return;
        }
        self.links[way].decoder.push(bytes);
        let mut whole = false;
        loop {
            match self.links[way].decoder.poll().map(|wire| wire.map(wire::from_wire)) {
                Ok(Some(Some(message))) => {
                    whole = true;
                    self.tell(way.to, Event::Message(peer_of(way.from), message));
                }
                Ok(None) => {
                    if !whole {
                        self.tell(way.to, Event::LinkBytes(peer_of(way.from)));
                    }
                    return;
                }
                Ok(Some(None)) => break,
                Err(error) => {
                    let line = format_args!("finds the link damaged: {error}");
                    self.timeline.say(self.now, NAMES[way.to], line);
                    break;
                }
            }
        }
        self.link_ends(way);
    }

    /// The end of a connection arrives at the receiver's end.
    pub(crate) fn connection_ends(&mut self, connection: Connection) {
        if self.links.is_newest(connection) {
            self.link_ends(connection.way);
        }
    }

    /// The receiver hears that its link is over, and closes its own half.
    pub(crate) fn link_ends(&mut self, way: Way) {
        if std::mem::take(&mut self.links[way].heard) {
            self.timeline.say(self.now, NAMES[way.to], format_args!("has lost the link"));
            self.tell(way.to, Event::LinkLost(peer_of(way.from)));
            self.link_closes(way.back());
        }
    }

    /// The sender says no more on this link; the receiver hears that behind all that was said before.
    fn link_closes(&mut self, way: Way) {
        self.links[way.back()].heard = false;
        if std::mem::take(&mut self.links[way].open) {
            let at = self.links[way].arrival_ns(self.now);
            let connection = self.links.connection(way);
            self.schedule(at, Happening::LinkEnd(connection));
        }
    }

    /// The process on this host is gone. With the power, what has not arrived never does, and nobody is told.
    pub(crate) fn links_close(&mut self, host: HostId, power: bool) {
        for way in self.links.ways_from(host) {
            if power {
                self.links[way].lost_from_ns = Some(self.now);
                self.links[way].open = false;
                self.links[way.back()].heard = false;
            } else {
                self.link_closes(way);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_on_a_connection_that_has_been_replaced_arrives_nowhere() {
        let mut links = Links::new(1, 3, (1, 2));
        let (way, other) = (Way { from: 0, to: 2 }, Way { from: 0, to: 1 });
        assert!(!links[way].open && !links[way.back()].heard, "nobody has connected");
        links.connect(way);
        links[way].cut_until_ns = 5;
        let old = links.connection(way);
        assert!(links.is_newest(old) && links[way.back()].open);
        links.connect(way.back());
        assert!(!links.is_newest(old) && links.is_newest(links.connection(way)));
        assert_eq!(links[way].cut_until_ns, 5, "the wire is the same");
        assert!(!links[other].open, "every two hosts have a link of their own");
    }
}
