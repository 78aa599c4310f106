//! `epoll` with named things instead of numbers.
//!
//! Ports and listeners are watched level-triggered (a listener or a port that was not run dry reports again);
//! the host sockets of TCP connections are watched edge-triggered, once for both directions: with
//! back-pressure, a level-triggered hang-up that nobody may consume yet would spin.

use rustix::event::{Timespec, epoll};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Events taken from the kernel at a time.
const EVENTS_PER_WAIT: usize = 256;

/// What a descriptor stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    /// The [`crate::Stopper`].
    Stop,
    /// Where ports connect.
    Listener,
    /// A port.
    Port(u64),
    /// The listener of a TCP forward, by its index.
    TcpForward(usize),
    /// The socket of a UDP forward, by its index.
    UdpForward(usize),
    /// The host socket of a TCP flow.
    TcpFlow(u64),
    /// The host socket of a UDP mapping.
    UdpFlow(u64),
}

impl Token {
    const ID_BITS: u32 = 56;

    fn encode(self) -> u64 {
        let (kind, id) = match self {
            Self::Stop => (0, 0),
            Self::Listener => (1, 0),
            Self::Port(id) => (2, id),
            Self::TcpForward(index) => (3, index as u64),
            Self::UdpForward(index) => (4, index as u64),
            Self::TcpFlow(id) => (5, id),
            Self::UdpFlow(id) => (6, id),
        };
        (kind << Self::ID_BITS) | id
    }

    fn decode(data: u64) -> Self {
        let id = data & ((1 << Self::ID_BITS) - 1);
        match data >> Self::ID_BITS {
            0 => Self::Stop,
            1 => Self::Listener,
            2 => Self::Port(id),
            3 => Self::TcpForward(id as usize),
            4 => Self::UdpForward(id as usize),
            5 => Self::TcpFlow(id),
            _ => Self::UdpFlow(id),
        }
    }
}

/// What is known about a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: Token,
    /// There is something to read, an end or an error included.
    pub(crate) readable: bool,
    /// There is room to write, or writing would fail at once.
    pub(crate) writable: bool,
    /// The peer has ended its direction: reading leads to the end.
    pub(crate) ended: bool,
    /// The descriptor has an error.
    pub(crate) error: bool,
}

/// How a descriptor is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watch {
    /// Not at all for now.
    Nothing,
    /// For input, as long as there is some.
    Input,
    /// For input and for room to write, as long as there is some.
    Both,
    /// For whatever changes.
    Edges,
}

impl Watch {
    fn flags(self) -> epoll::EventFlags {
        use epoll::EventFlags as F;
        match self {
            Self::Nothing => F::empty(),
            Self::Input => F::IN,
            Self::Both => F::IN | F::OUT,
            Self::Edges => F::IN | F::OUT | F::RDHUP | F::ET,
        }
    }
}

/// The set of descriptors that the switch sleeps on.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    /// Watches a descriptor until it is closed.
    pub(crate) fn add(&self, source: &impl AsFd, token: Token, watch: Watch) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(token.encode()), watch.flags())?)
    }

    /// Watches a descriptor in another way.
    pub(crate) fn change(&self, source: &impl AsFd, token: Token, watch: Watch) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, epoll::EventData::new_u64(token.encode()), watch.flags())?)
    }

    /// Sleeps until something is ready or `timeout` has passed (`None`: for ever) and puts what is ready
    /// into `ready`. The kernel rounds a timeout up, never down.
    pub(crate) fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Event>) -> io::Result<()> {
        ready.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().min(3600) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_PER_WAIT];
        let (events, _) = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            result => result?,
        };
        use epoll::EventFlags as F;
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            let over = F::HUP | F::ERR;
            Event {
                token: Token::decode(event.data.u64()),
                readable: flags.intersects(F::IN | F::RDHUP | over),
                writable: flags.intersects(F::OUT | over),
                ended: flags.intersects(F::RDHUP | over),
                error: flags.intersects(F::ERR),
            }
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_kernel() {
        for token in [
            Token::Stop,
            Token::Listener,
            Token::Port(1),
            Token::TcpForward(2),
            Token::UdpForward(3),
            Token::TcpFlow((1 << 56) - 1),
            Token::UdpFlow(5),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
