//! Clients of the embedded guest: a counter over UDP, blocks on a disk. A datagram that is not answered is sent
//! again with the same number, and the guest counts each number once.

use super::clients::Clients;
use super::fleet::Fleet;
use super::history::Exchange;
use anyhow::{Context, Result, bail, ensure};
use pollux_host::clock;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// When a datagram is sent again.
const RETRY: Duration = Duration::from_millis(50);
/// When the guest counts as gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Blocks that are written in turn.
const BLOCKS: u64 = 64;

struct Client {
    socket: UdpSocket,
    id: u32,
    seq: u64,
}

impl Client {
    fn new(service: SocketAddr, id: u32) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(service)?;
        socket.set_read_timeout(Some(RETRY))?;
        Ok(Self { socket, id, seq: 0 })
    }

    /// One request, repeated until it is answered; the answer's third word.
    fn call(&mut self, verb: &str, rest: &str, patience: Duration) -> Result<String> {
        self.seq += 1;
        let request = format!("{verb} {} {}{rest}\n", self.id, self.seq);
        let begun = Instant::now();
        let mut buffer = [0; 512];
        while begun.elapsed() < patience {
            // An error of an earlier datagram (nobody listens yet) shows up here; the next attempt may do better.
            let _ = self.socket.send(request.as_bytes());
            let sent = Instant::now();
            while sent.elapsed() < RETRY {
                let Ok(n) = self.socket.recv(&mut buffer) else { break };
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                let mut words = text.split_whitespace();
                let ours =
                    words.next() == Some(&self.id.to_string()) && words.next() == Some(&self.seq.to_string());
                if let (true, Some(answer)) = (ours, words.next()) {
                    return Ok(answer.into());
                }
            }
        }
        bail!("no answer to {:?} within {patience:?}", request.trim())
    }
}

/// Waits until the guest answers; returns how long it took since its start.
pub fn wait_ready(fleet: &Fleet, patience: Duration) -> Result<Duration> {
    let mut client = Client::new(fleet.service(), 1)?;
    loop {
        fleet.check()?;
        if client.call("GET", "", Duration::from_millis(200)).is_ok() {
            return Ok(fleet.uptime());
        }
        ensure!(fleet.uptime() < patience, "no answer from the guest within {patience:?}");
    }
}

/// Starts both clients.
pub fn start(service: SocketAddr) -> Result<Clients> {
    let (counting, writing) = (Client::new(service, 2)?, Client::new(service, 3)?);
    Ok(Clients::start(
        |stop| count(counting, stop),
        |stop| write(writing, stop),
        move |written| count_lost(service, written),
    ))
}

fn count(mut client: Client, stop: &AtomicBool) -> Result<Vec<Exchange>> {
    let mut history = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let increments = history.len() % 2 == 0;
        let sent_ns = clock::now().0;
        let answer = client.call(if increments { "INC" } else { "GET" }, "", PATIENCE)?;
        let value = answer.parse().with_context(|| format!("the counter says {answer:?}"))?;
        history.push(Exchange { sent_ns, replied_ns: clock::now().0, value, increments });
    }
    Ok(history)
}

/// Writes blocks in turn, each with the number of the write; an answer means that it is on the disk.
fn write(mut client: Client, stop: &AtomicBool) -> Result<u64> {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = client.call("PUT", &format!(" {} {:x}", written % BLOCKS, written + 1), PATIENCE)?;
        ensure!(answer == "ok", "PUT answered {answer:?}");
        written += 1;
    }
    Ok(written)
}

/// How many of the blocks do not hold the newest of so many writes.
fn count_lost(service: SocketAddr, written: u64) -> Result<usize> {
    let mut check = Client::new(service, 4)?;
    let mut lost = 0;
    for block in 0..BLOCKS.min(written) {
        // The newest write to this block.
        let newest = (written - 1 - block) / BLOCKS * BLOCKS + block + 1;
        let answer = check.call("CHK", &format!(" {block}"), PATIENCE)?;
        lost += usize::from(u64::from_str_radix(&answer, 16) != Ok(newest));
    }
    Ok(lost)
}
