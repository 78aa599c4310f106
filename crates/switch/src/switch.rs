//! The switch itself: binds everything, then one loop that sleeps in `epoll` and moves what is ready.

use crate::config::{Config, SwitchAddr};
use crate::stats::Stats;
use crate::stream::Listener;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Why a switch could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// the configuration contradicts itself
    #[error("the switch's configuration: {0}")]
    Config(String),
    /// an address could not be bound
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// the system refused something that the switch cannot do without
    #[error("the switch cannot go on: {0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for SwitchError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Ends a running switch, from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopper {
    event: Arc<OwnedFd>,
}

impl Stopper {
    /// A stopper that has not been used yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?) })
    }

    /// Makes every switch that runs with this stopper return. It stays used.
    pub fn stop(&self) {
        // The only failure is a counter that is full: then it has been said often enough.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }
}

/// The addresses that a switch has bound: with port 0 in the configuration, the only way to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Where ports connect to.
    pub listen: SwitchAddr,
    /// The host side of each forward, in the configuration's order.
    pub forwards: Vec<SocketAddr>,
}

/// A switch that has bound its addresses; [`Switch::run`] makes it work.
#[derive(Debug)]
pub struct Switch {
    listener: Listener,
    bound: Bound,
    stats: Stats,
}

impl Switch {
    /// Checks `config` and binds all its addresses. Ports can connect from then on.
    pub fn bind(config: Config) -> Result<Self, SwitchError> {
        config.check().map_err(SwitchError::Config)?;
        let listener = Listener::bind(&config.listen)
            .map_err(|source| SwitchError::Bind { addr: config.listen.to_string(), source })?;
        let bound = Bound { listen: listener.bound()?, forwards: Vec::new() };
        Ok(Self { listener, bound, stats: Stats::default() })
    }

    /// What was bound.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Works until `stopper` is used.
    pub fn run(self, stopper: &Stopper) -> Result<(), SwitchError> {
        loop {
            let mut wanted = [PollFd::new(&*stopper.event, PollFlags::IN)];
            poll(&mut wanted, None)?;
            if !wanted[0].revents().is_empty() {
                drop(self.listener);
                return Ok(());
            }
        }
    }
}

/// Binds and runs a switch until `stopper` is used. [`Switch::bind`] for who needs the bound addresses.
pub fn run(config: Config, stopper: &Stopper) -> Result<(), SwitchError> {
    Switch::bind(config)?.run(stopper)
}
