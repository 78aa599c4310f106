//! Two clients of redis, each with one connection for the whole of a round, and everything that they asked and heard.
//!
//! A connection that breaks is not opened again: it ends the client with an error, and that is a violation.

use crate::redis::Connection;
use anyhow::{Context, Result, anyhow, ensure};
use pollux_host::clock;
use pollux_sim::{Effect, Operation, Random};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A reply that takes longer is a service that has stopped.
const REPLY_PATIENCE: Duration = Duration::from_secs(20);
/// Registers that both clients write and read.
pub const REGISTERS: u64 = 3;
/// Bytes of what one APPEND adds.
pub const TOKEN_BYTES: usize = 8;
/// Commands under way while everything is read back.
const BATCH: usize = 64;

/// What was asked about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Object {
    /// SET and GET of a key that everybody writes.
    Register(u64),
    /// INCR and GET.
    Counter,
    /// APPEND and STRLEN, in tokens.
    List,
}

/// What one client saw.
#[derive(Default)]
pub struct Seen {
    /// Questions and answers, in order.
    pub operations: Vec<(Object, Operation)>,
    /// Writes to keys of its own that were acknowledged.
    pub own_writes: u64,
    /// Tokens that it appended, with the length (in tokens) that the answer named.
    pub tokens: Vec<(String, u64)>,
    /// When each request left and its reply came.
    pub times: Vec<(u64, u64)>,
}

/// What was read back at the end.
pub struct ReadBack {
    /// Keys of a client's own whose value is not what was acknowledged.
    pub lost: u64,
    /// Replies read.
    pub replies: u64,
    /// The list, whole.
    pub list: String,
}

#[derive(Default)]
struct Control {
    stop: AtomicBool,
    pause: AtomicBool,
    /// Clients that are silent because they were told to.
    paused: AtomicU64,
    /// Since the last [`Clients::mark`], per client.
    replies: [AtomicU64; 2],
}

/// The clients at work.
pub struct Clients {
    control: Arc<Control>,
    threads: Vec<JoinHandle<Result<(Connection, Seen)>>>,
}

/// Waits until redis answers.
pub fn wait_ready(service: SocketAddr, patience: Duration, alive: impl Fn() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    loop {
        alive()?;
        let ping = Connection::open(service, Duration::from_secs(2)).and_then(|mut c| c.call(&["PING"]));
        if ping.is_ok_and(|reply| reply.as_deref() == Some("PONG")) {
            return Ok(());
        }
        ensure!(begun.elapsed() < patience, "no answer from redis within {patience:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Clients {
    /// Connects and starts.
    pub fn start(service: SocketAddr, seed: u64, round: u64) -> Result<Self> {
        let control = Arc::<Control>::default();
        let mut threads = Vec::new();
        for id in 0..2 {
            let connection = Connection::open(service, REPLY_PATIENCE).context("cannot connect to redis")?;
            let random = Random::new(seed, &format!("client {id} of round {round}"));
            let control = control.clone();
            let client = Client { id, connection, random, seen: Seen::default() };
            threads.push(
                std::thread::Builder::new()
                    .name(format!("client{id}"))
                    .spawn(move || client.work(&control))?,
            );
        }
        Ok(Self { control, threads })
    }

    /// Returns when both are silent, with nothing under way.
    pub fn pause(&self) {
        self.control.pause.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while self.control.paused.load(Ordering::Relaxed) < 2 && begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// They go on.
    pub fn resume(&self) {
        self.control.pause.store(false, Ordering::Relaxed);
    }

    /// Counts replies from now on.
    pub fn mark(&self) {
        for replies in &self.control.replies {
            replies.store(0, Ordering::Relaxed);
        }
    }

    /// Replies to the slower client since the mark.
    pub fn replies(&self) -> u64 {
        self.control.replies.iter().map(|replies| replies.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    /// Fails if one has given up.
    pub fn have_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops both, reads everything back through the same connections.
    pub fn finish(self) -> Result<(Vec<Seen>, ReadBack)> {
        self.control.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().enumerate().map(|(id, thread)| {
            let result = thread.join().map_err(|_| anyhow!("client {id} crashed"))?;
            result.with_context(|| format!("connection {id} did not survive"))
        });
        let mut ended = ended.collect::<Result<Vec<_>>>()?;
        let mut back = ReadBack { lost: 0, replies: 0, list: String::new() };
        for (id, (connection, seen)) in ended.iter_mut().enumerate() {
            read_own(id as u64, connection, seen.own_writes, &mut back)?;
        }
        let (connection, seen) = &mut ended[0];
        for object in (0..REGISTERS).map(Object::Register).chain([Object::Counter, Object::List]) {
            ask(connection, seen, object, Effect::Read)?;
        }
        back.list = connection.call(&["GET", "list"])?.unwrap_or_default();
        back.replies += 1;
        Ok((ended.into_iter().map(|(_, seen)| seen).collect(), back))
    }
}

fn read_own(id: u64, connection: &mut Connection, written: u64, back: &mut ReadBack) -> Result<()> {
    let keys: Vec<u64> = (0..written).collect();
    for batch in keys.chunks(BATCH) {
        for seq in batch {
            connection.send(&["GET", &format!("own:{id}:{seq}")])?;
        }
        for seq in batch {
            let value = connection.receive().context("reading back")?;
            back.replies += 1;
            back.lost += u64::from(value != Some(format!("{id}-{seq}")));
        }
    }
    Ok(())
}

/// One question; its answer goes into the history.
fn ask(connection: &mut Connection, seen: &mut Seen, object: Object, effect: Effect) -> Result<u64> {
    let invoked_ns = clock::now().0;
    let reply = match (object, effect) {
        (Object::Register(n), Effect::Write(value)) => {
            connection.call(&["SET", &format!("register:{n}"), &value.to_string()])?
        }
        (Object::Register(n), _) => connection.call(&["GET", &format!("register:{n}")])?,
        (Object::Counter, Effect::Add) => connection.call(&["INCR", "counter"])?,
        (Object::Counter, _) => connection.call(&["GET", "counter"])?,
        (Object::List, _) => connection.call(&["STRLEN", "list"])?,
    };
    let replied_ns = clock::now().0;
    let value = match effect {
        Effect::Write(_) => {
            ensure!(reply.as_deref() == Some("OK"), "SET answered {reply:?}");
            0
        }
        Effect::Read | Effect::Add => match reply {
            None => 0,
            Some(text) => text.parse().with_context(|| format!("{object:?} says {text:?}"))?,
        },
    };
    let value = if object == Object::List { value / TOKEN_BYTES as u64 } else { value };
    seen.operations.push((object, Operation { effect, invoked_ns, returned: Some((replied_ns, value)) }));
    seen.times.push((invoked_ns, replied_ns));
    Ok(value)
}

struct Client {
    id: u64,
    connection: Connection,
    random: Random,
    seen: Seen,
}

impl Client {
    fn work(mut self, control: &Control) -> Result<(Connection, Seen)> {
        while !control.stop.load(Ordering::Relaxed) {
            if control.pause.load(Ordering::Relaxed) {
                control.paused.fetch_add(1, Ordering::Relaxed);
                while control.pause.load(Ordering::Relaxed) && !control.stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                control.paused.fetch_sub(1, Ordering::Relaxed);
            }
            self.step()?;
            control.replies[self.id as usize].fetch_add(1, Ordering::Relaxed);
        }
        Ok((self.connection, self.seen))
    }

    fn step(&mut self) -> Result<()> {
        // No value is written twice.
        let unique = 1 + 2 * self.seen.operations.len() as u64 + self.id;
        let register = Object::Register(self.random.below(REGISTERS));
        let (object, effect) = match self.random.below(10) {
            0..3 => return self.write_own(),
            3 => return self.append(),
            4 => (Object::Counter, Effect::Add),
            5 => (Object::Counter, Effect::Read),
            6 => (Object::List, Effect::Read),
            7 => (register, Effect::Read),
            _ => (register, Effect::Write(unique)),
        };
        ask(&mut self.connection, &mut self.seen, object, effect).map(|_| ())
    }

    /// With `appendfsync always`, an `OK` means that the write is on the disk.
    fn write_own(&mut self) -> Result<()> {
        let (id, seq) = (self.id, self.seen.own_writes);
        let invoked_ns = clock::now().0;
        let reply = self.connection.call(&["SET", &format!("own:{id}:{seq}"), &format!("{id}-{seq}")])?;
        ensure!(reply.as_deref() == Some("OK"), "SET answered {reply:?}");
        self.seen.times.push((invoked_ns, clock::now().0));
        self.seen.own_writes += 1;
        Ok(())
    }

    fn append(&mut self) -> Result<()> {
        let token = format!("{}{:07}", self.id, self.seen.tokens.len());
        let invoked_ns = clock::now().0;
        let reply = self.connection.call(&["APPEND", "list", &token])?;
        let replied_ns = clock::now().0;
        let bytes: u64 = reply.context("APPEND answered nothing")?.parse().context("APPEND's answer")?;
        let length = bytes / TOKEN_BYTES as u64;
        let operation = Operation { effect: Effect::Add, invoked_ns, returned: Some((replied_ns, length)) };
        self.seen.operations.push((Object::List, operation));
        self.seen.times.push((invoked_ns, replied_ns));
        self.seen.tokens.push((token, length));
        Ok(())
    }
}
