//! Two clients of redis: one counts through a single connection, one writes to disk.

use super::clients::Clients;
use super::fleet::Fleet;
use super::history::Exchange;
use crate::redis::Connection;
use anyhow::{Context, Result, ensure};
use pollux_host::clock;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A reply that takes longer than this is an outage that the demo does not forgive.
const REPLY_PATIENCE: Duration = Duration::from_secs(30);

/// Waits until redis answers; returns how long the guest took since its start.
pub fn wait_ready(fleet: &Fleet, patience: Duration) -> Result<Duration> {
    loop {
        fleet.check()?;
        let ping =
            Connection::open(fleet.service(), Duration::from_secs(2)).and_then(|mut c| c.call(&["PING"]));
        if ping.is_ok_and(|reply| reply.as_deref() == Some("PONG")) {
            return Ok(fleet.uptime());
        }
        ensure!(fleet.uptime() < patience, "no answer from redis within {patience:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Starts both clients.
pub fn start(service: SocketAddr) -> Result<Clients> {
    let mut counting = Connection::open(service, REPLY_PATIENCE).context("cannot connect to redis")?;
    counting.call(&["DEL", "counter"])?;
    let writing = Connection::open(service, REPLY_PATIENCE).context("cannot connect to redis")?;
    Ok(Clients::start(
        |stop| count(counting, stop),
        |stop| write(writing, stop),
        move |written| count_lost(service, written),
    ))
}

/// Increments and reads in turn, as fast as replies come, through one connection.
fn count(mut connection: Connection, stop: &AtomicBool) -> Result<Vec<Exchange>> {
    let mut history = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let increments = history.len() % 2 == 0;
        let sent_ns = clock::now().0;
        let reply = connection.call(if increments { &["INCR", "counter"] } else { &["GET", "counter"] })?;
        let replied_ns = clock::now().0;
        let value = reply.context("the counter is gone")?.parse().context("the counter is no number")?;
        history.push(Exchange { sent_ns, replied_ns, value, increments });
    }
    Ok(history)
}

/// Writes key after key; with `appendfsync always`, an `OK` means that the write is on the disk.
fn write(mut connection: Connection, stop: &AtomicBool) -> Result<u64> {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = connection.call(&["SET", &format!("key:{written}"), &format!("value:{written}")])?;
        ensure!(reply.as_deref() == Some("OK"), "SET answered {reply:?}");
        written += 1;
    }
    Ok(written)
}

/// How many of so many writes are gone.
fn count_lost(service: SocketAddr, written: u64) -> Result<usize> {
    let mut check = Connection::open(service, REPLY_PATIENCE).context("cannot connect to read back")?;
    let mut lost = 0;
    for key in 0..written {
        let value = check.call(&["GET", &format!("key:{key}")])?;
        lost += usize::from(value != Some(format!("value:{key}")));
    }
    Ok(lost)
}
