//! Where primaries knock at a backup: several at once, so that one that says nothing, or drips, keeps nobody else out.
//!
//! Invariant: who has not proven that it reads the same arbiter gets a thread and a few seconds, of which there is a
//! bounded number; who has proven it waits in line. Who comes while the backup is taken, or has proven itself only then,
//! is told that it is busy.
//!
//! Not here: what becomes of a peer that is let in (`backup`).

use anyhow::{Context, Result};
use pollux_host::link::{LinkReader, LinkSender};
use pollux_host::pairing::Visit;
use pollux_host::{link, pairing};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Peers that are spoken to, or turned away, at one time. Others wait in the kernel's backlog.
const VISITORS_MAX: usize = 32;
/// Of those, how many are listened to before they are known.
const STRANGERS_MAX: usize = 24;
/// How long to wait before the next try when the kernel gives no connection (no descriptors, say).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A peer that has proven itself and said hello.
#[derive(Debug)]
pub struct Visitor {
    /// From where.
    pub peer: SocketAddr,
    /// What it wants, what it has proven, and the link to it.
    pub visit: Visit,
}

/// The listening socket and the threads behind it.
#[derive(Debug)]
pub struct Door {
    taken: Arc<Mutex<bool>>,
    visitors: Receiver<Visitor>,
}

impl Door {
    /// Listens. `meet` introduces both sides to each other.
    pub fn open<M>(listener: TcpListener, meet: M) -> Result<Self>
    where
        M: Fn(LinkSender, LinkReader) -> Result<Visit> + Send + Sync + 'static,
    {
        let (sender, visitors) = channel();
        let taken = Arc::<Mutex<bool>>::default();
        let porter = Porter { taken: taken.clone(), inside: Arc::default(), meet: Arc::new(meet), sender };
        listener.set_nonblocking(false).context("cannot listen")?;
        std::thread::Builder::new().name("door".into()).spawn(move || porter.serve(&listener))?;
        Ok(Self { taken, visitors })
    }

    /// The next who has proven itself, if one comes within `patience`.
    pub fn next(&self, patience: Duration) -> Option<Visitor> {
        self.visitors.recv_timeout(patience).ok()
    }

    /// Whether there is no place for anybody else.
    pub fn set_taken(&self, taken: bool) {
        // Whoever has looked before this is in line by now.
        *lock(&self.taken) = taken;
        while taken && let Ok(visitor) = self.visitors.try_recv() {
            visitor.visit.turn_away();
        }
    }
}

fn lock(taken: &Mutex<bool>) -> MutexGuard<'_, bool> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Porter<M> {
    taken: Arc<Mutex<bool>>,
    inside: Arc<AtomicUsize>,
    meet: Arc<M>,
    sender: Sender<Visitor>,
}

/// A place among the peers that are spoken to.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<M> Porter<M>
where
    M: Fn(LinkSender, LinkReader) -> Result<Visit> + Send + Sync + 'static,
{
    fn serve(&self, listener: &TcpListener) {
        loop {
            while self.inside.load(Ordering::Acquire) >= VISITORS_MAX {
                std::thread::sleep(ACCEPT_AGAIN);
            }
            match listener.accept() {
                Ok((stream, peer)) => self.receive(stream, peer),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    std::thread::sleep(ACCEPT_AGAIN);
                }
            }
        }
    }

    /// Gives a peer a thread of its own; without one it is gone.
    fn receive(&self, stream: TcpStream, peer: SocketAddr) {
        let before = self.inside.fetch_add(1, Ordering::AcqRel);
        let place = Place(self.inside.clone());
        let busy = before >= STRANGERS_MAX;
        let (taken, meet, sender) = (self.taken.clone(), self.meet.clone(), self.sender.clone());
        let spoken = std::thread::Builder::new().name("visitor".into()).spawn(move || {
            let _place = place;
            let (link, reader) = match link::split(stream) {
                Ok(halves) => halves,
                Err(error) => return tracing::warn!(%peer, %error, "cannot talk to a peer"),
            };
            if busy || *lock(&taken) {
                tracing::debug!(%peer, "turned away: busy");
                return pairing::turn_away(link, reader);
            }
            match meet(link, reader) {
                Ok(visit) => {
                    let taken = lock(&taken);
                    if *taken {
                        drop(taken);
                        tracing::debug!(%peer, "turned away: another one was faster");
                        return visit.turn_away();
                    }
                    let _ = sender.send(Visitor { peer, visit });
                }
                Err(error) => tracing::warn!(%peer, "not paired: {error:#}"),
            }
        });
        if let Err(error) = spoken {
            tracing::warn!(%peer, %error, "no thread for a peer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_arbiter::Secret;
    use pollux_codec::message::{Greet, Hello, Wire};
    use pollux_host::link::Patience;
    use pollux_host::pairing::{Found, Own};
    use pollux_host::proof::{Side, prove};

    const SECRET: Secret = Secret([9; 32]);

    fn greet() -> Greet {
        let (vm, holder) = ("vm".into(), "a".into());
        let generation = pollux_vocab::Generation(1);
        Greet { vm, generation, arbiter: [0; 16], holder, nonce: [0; 32] }
    }

    fn patience() -> Patience {
        Patience::new(Duration::from_secs(10), None)
    }

    /// Proves itself, and says hello.
    fn introduce(link: &mut LinkSender, reader: &mut LinkReader) {
        let hello = Hello {
            software: String::new(),
            vm: "vm".into(),
            generation: pollux_vocab::Generation(1),
            harts: 1,
            ram_bytes: 1,
            disks: Vec::new(),
            heartbeat_ns: 1,
            failure_ns: 2,
            snapshot_bytes: 0,
            machine: "riscv-virt".into(),
        };
        link.send(&Wire::Greet(greet()));
        let challenge = reader.receive_within(&patience()).expect("the same whoever asks");
        let Wire::Challenge { nonce, .. } = challenge else { panic!("{}", challenge.name()) };
        link.send(&Wire::Proof { proof: prove(&SECRET, Side::Primary, &greet(), &nonce) });
        link.send(&Wire::Hello(hello));
    }

    #[test]
    fn silent_peers_keep_nobody_out_and_who_comes_too_late_is_told_that_it_is_busy() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let door = Door::open(listener, move |link, reader| {
            let found = Found { arbiter: [0; 16], holder: Some("a".into()), is_spent: false };
            Ok(pairing::meet(link, reader, Own::default(), |_| Ok((found, Some(SECRET))))?)
        })
        .expect("a thread");
        let knock = || link::split(TcpStream::connect(address).expect("it listens")).expect("a link");
        let silent: Vec<_> = (0..5).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let (mut late, mut late_reader) = knock();
        let (mut link, mut reader) = knock();
        introduce(&mut link, &mut reader);
        let visitor = door.next(Duration::from_secs(10)).expect("let in beside the silent ones");
        assert_eq!(visitor.visit.hello.vm, "vm");
        door.set_taken(true);
        let (_link, mut reader) = knock();
        let said = reader.receive_within(&patience()).expect("a word");
        assert!(matches!(&said, Wire::Refuse { reason } if reason.contains("busy")), "{said:?}");
        // It was there before, and has proven itself only now.
        introduce(&mut late, &mut late_reader);
        let said = late_reader.receive_within(&patience()).expect("a word");
        assert!(matches!(&said, Wire::Refuse { reason } if reason.contains("busy")), "{said:?}");
        drop(silent);
    }
}
