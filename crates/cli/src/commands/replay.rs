//! `pollux replay`: a recording, again, bit for bit, in this process.

use crate::engine::Engine;
use crate::{engine, exit};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use pollux_codec::logfile::{LogEnd, LogItem, LogReader};
use pollux_host::outfile::{self, Content};
use pollux_machine::{Build, Machine, OwnMemory, Pieces, Restore};
use pollux_node::Divergence;
use pollux_node::replay::{Replay, Replayed, SLICE_STEPS};
use pollux_riscv::Computer;
use pollux_vocab::{Digest, Input, Output, Record, RecordBody};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;

/// Bytes read from the file at a time.
const READ_BYTES: usize = 1 << 20;
/// Largest snapshot that a recording may start from.
const SNAPSHOT_BYTES_MAX: u64 = 65 << 30;

/// What is wrong if it cannot be restored.
const STARTS_FROM: &str = "the snapshot that the replay starts from";

#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The recording
    pub log: PathBuf,
    /// Do not show what the guest said on its console
    #[arg(long)]
    pub quiet: bool,
    /// Stop at the first record at or behind this icount
    #[arg(long, value_name = "ICOUNT")]
    pub until: Option<u64>,
    /// Write a snapshot of where the replay stopped
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    /// Start from this snapshot (of the same recording) instead of from its beginning
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Forget every cache this often, in records: it must not show (for testing)
    #[arg(long, value_name = "N")]
    pub cold: Option<u64>,
    /// Take a state digest every so many steps as well, and print what all of them come to: the same for every engine
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub chain: Option<u64>,
    /// Flip one bit of RAM before the record at or behind this icount: ICOUNT:ADDRESS (for testing)
    #[arg(long, value_name = "ICOUNT:ADDRESS")]
    pub flip: Option<String>,
    /// What executes the guest's instructions; need not be what did when it was recorded [default: jit on x86-64
    /// Linux, else interpreter]
    #[arg(long, value_enum, env = "POLLUX_ENGINE")]
    pub engine: Option<Engine>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// A recording being read.
struct Log {
    file: File,
    reader: LogReader,
    records: VecDeque<Record>,
    path: PathBuf,
}

impl Log {
    /// Opens a recording and gives the snapshot that it starts from to `take`, piece by piece.
    fn open(path: &PathBuf, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("cannot open the recording {}", path.display()))?;
        let mut log = Self { file, reader: LogReader::new(), records: VecDeque::new(), path: path.clone() };
        let (mut taken, mut expected) = (0, None);
        while expected.is_none_or(|bytes| taken < bytes) {
            match log.poll()? {
                Some(LogItem::Header(header)) => {
                    ensure!(
                        header.snapshot_bytes <= SNAPSHOT_BYTES_MAX,
                        "the recording's snapshot is impossibly large"
                    );
                    expected = Some(header.snapshot_bytes);
                }
                Some(LogItem::Snapshot { bytes, .. }) => {
                    taken += bytes.len() as u64;
                    take(&bytes)?;
                }
                Some(LogItem::Records(records)) => {
                    log.records.extend(records);
                    break;
                }
                None => {
                    log.end()?;
                    break;
                }
            }
        }
        Ok(log)
    }

    /// The next item; `None` at the end of the file.
    fn poll(&mut self) -> Result<Option<LogItem>> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let item = self.reader.poll().with_context(|| self.path.display().to_string())?;
            if item.is_some() {
                return Ok(item);
            }
            let got = self
                .file
                .read(&mut buffer)
                .with_context(|| format!("cannot read {}", self.path.display()))?;
            if got == 0 {
                return Ok(None);
            }
            self.reader.push(&buffer[..got]);
        }
    }

    fn next(&mut self) -> Result<Option<Record>> {
        while self.records.is_empty() {
            match self.poll()? {
                Some(LogItem::Records(records)) => self.records.extend(records),
                Some(_) => bail!("{}: something other than records behind the snapshot", self.path.display()),
                None => return Ok(None),
            }
        }
        Ok(self.records.pop_front())
    }

    fn end(&self) -> Result<LogEnd> {
        self.reader.finish().with_context(|| self.path.display().to_string())
    }
}

pub fn run(args: &ReplayArgs) -> Result<u8> {
    let begun = Instant::now();
    let mut builder = Computer::builder(Box::new(OwnMemory));
    let mut take = |piece: &[u8]| builder.push(piece).context(STARTS_FROM);
    let mut log = Log::open(&args.log, |piece| if args.from.is_none() { take(piece) } else { Ok(()) })?;
    if let Some(path) = &args.from {
        super::build::read_pieces(path, "snapshot", SNAPSHOT_BYTES_MAX, take)?;
    }
    let mut machine = builder.finish().context(STARTS_FROM)?;
    engine::install(&mut machine, args.engine)?;
    let start = machine.icount();
    let mut replay = Replay::new(machine).in_slices(args.chain.unwrap_or(SLICE_STEPS));
    let mut chain = Chain::default();
    match play(args, &mut log, &mut replay, start, &mut chain)? {
        Some(divergence) => {
            tracing::error!(
                "the replay differs from the recording at icount {}: {}",
                divergence.icount,
                divergence.what
            );
            if args.json {
                println!(
                    "{}",
                    serde_json::json!({ "diverged": divergence.icount.0, "what": divergence.what.to_string() })
                );
            }
            return Ok(exit::DIVERGED);
        }
        None => finish(args, &mut log, &mut replay, &chain, begun)?,
    }
    Ok(0)
}

fn play(
    args: &ReplayArgs,
    log: &mut Log,
    replay: &mut Replay<Computer>,
    start: pollux_vocab::Icount,
    chain: &mut Chain,
) -> Result<Option<Divergence>> {
    let mut flip = args.flip.as_deref().map(parse_flip).transpose()?;
    let mut outputs = Vec::new();
    let mut count = 0;
    let mut skipped_to_start = args.from.is_none();
    while let Some(record) = log.next()? {
        // A snapshot of `--snapshot` is taken with every record of its instant applied.
        if !skipped_to_start {
            if record.icount <= start {
                continue;
            }
            skipped_to_start = true;
        }
        if args.until.is_some_and(|until| record.icount.0 >= until) {
            break;
        }
        if let Some((_, addr)) = flip.take_if(|(at, _)| record.icount.0 >= *at) {
            replay.machine().flip_ram_bit(pollux_vocab::GuestAddr(addr), 0);
        }
        count += 1;
        tracing::trace!(lsn = %record.lsn, icount = %record.icount, body = ?Brief(&record.body), "record");
        if args.cold.is_some_and(|every| count % every.max(1) == 0) {
            replay.machine().clear_caches();
        }
        loop {
            let replayed = replay.step(&record, &mut outputs);
            show(args, &mut outputs);
            match replayed {
                Ok(Replayed::Running) if args.chain.is_some() => chain.add(&replay.machine().digest()),
                Ok(Replayed::Running) => {}
                Ok(Replayed::Applied) => break,
                Ok(Replayed::Ended) => return Ok(None),
                Err(divergence) => return Ok(Some(divergence)),
            }
        }
    }
    Ok(None)
}

/// State digests, each hashed with all before it.
#[derive(Default)]
struct Chain {
    count: u64,
    hash: u64,
}

impl Chain {
    fn add(&mut self, digest: &Digest) {
        self.count += 1;
        self.hash = (self.hash ^ condense(digest)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
}

/// A digest as one number.
fn condense(digest: &Digest) -> u64 {
    digest.harts.iter().chain(&digest.devices).fold(digest.ram, |all, h| all.rotate_left(7) ^ h)
}

/// A record without its payload.
struct Brief<'a>(&'a RecordBody);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            RecordBody::Input(Input::Packet { slot, frame }) => {
                write!(f, "Packet {slot} {} bytes", frame.len())
            }
            RecordBody::Input(Input::DiskDone { slot, request, .. }) => {
                write!(f, "DiskDone {slot} {request}")
            }
            RecordBody::Digest(_) => write!(f, "Digest"),
            other => other.fmt(f),
        }
    }
}

fn show(args: &ReplayArgs, outputs: &mut Vec<Output>) {
    for output in outputs.drain(..) {
        if let (Output::Console { bytes, .. }, false) = (output, args.quiet) {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
    }
}

fn finish(
    args: &ReplayArgs,
    log: &mut Log,
    replay: &mut Replay<Computer>,
    chain: &Chain,
    begun: Instant,
) -> Result<()> {
    if args.until.is_none() {
        // The VM's end is a record, the file's a frame behind it.
        while log.next()?.is_some() {}
        if let LogEnd::Cut { good_bytes, torn_bytes } = log.end()? {
            tracing::warn!(
                good_bytes,
                torn_bytes,
                "the recording was cut off; everything before that has been replayed"
            );
        }
    }
    if let Some(path) = &args.snapshot {
        let mut file = outfile::create(path, Content::Snapshot)?;
        for piece in Pieces::of(replay.machine()) {
            file.write_all(&piece).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let (records, inputs, digests) = replay.counts();
    let digest = replay.machine().digest();
    let icount = replay.icount();
    let seconds = begun.elapsed().as_secs_f64();
    let state = condense(&digest);
    if args.json {
        println!(
            "{}",
            serde_json::json!({ "icount": icount.0, "records": records, "inputs": inputs, "digests_equal": digests,
                "state": format!("{state:016x}"), "chained": chain.count, "chain": format!("{:016x}", chain.hash),
                "seconds": seconds })
        );
    } else {
        eprintln!(
            "replayed {icount} steps in {seconds:.1} s: {records} records, {inputs} inputs, {digests} digests equal, final state {state:016x}"
        );
        if args.chain.is_some() {
            eprintln!("{} digests on the way, which come to {:016x}", chain.count, chain.hash);
        }
    }
    Ok(())
}

fn parse_flip(text: &str) -> Result<(u64, u64)> {
    let number = |s: &str| match s.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => s.parse().ok(),
    };
    let parsed = text.split_once(':').and_then(|(at, addr)| Some((number(at)?, number(addr)?)));
    parsed.with_context(|| format!("--flip {text:?}: write ICOUNT:ADDRESS, e.g. 1000000:0x80200000"))
}
