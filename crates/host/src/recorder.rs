//! Writes a recording: everything that was admitted, disk data included, so that it replays with no disk.
//!
//! A thread writes, so that a slow disk does not slow the VM; what waits is bounded by making the VM wait. A
//! failure to write ends the recording, loudly, and not the VM.

use pollux_codec::logfile;
use pollux_vocab::{Input, Record, RecordBody};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Records that go into one frame.
const BATCH_RECORDS: usize = 256;
/// Batches that may wait for the disk.
const BATCHES_WAITING: usize = 256;

/// A recording being written.
#[derive(Debug)]
pub struct Recorder {
    batch: Vec<Record>,
    records: u64,
    batches: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Recorder {
    /// Starts a recording at `path` from the state in `snapshot`.
    pub fn create(path: &Path, snapshot: &[u8]) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&logfile::encode_header(snapshot.len() as u64))?;
        file.write_all(snapshot)?;
        let (batches, inbox) = sync_channel::<Vec<u8>>(BATCHES_WAITING);
        let shown = path.to_owned();
        let thread = std::thread::Builder::new().name("recorder".into()).spawn(move || {
            let written =
                inbox.iter().try_for_each(|bytes| file.write_all(&bytes)).and_then(|()| file.flush());
            if let Err(error) = &written {
                tracing::error!(path = %shown.display(), %error, "the recording ends here; the VM runs on");
            }
            written
        })?;
        Ok(Self { batch: Vec::new(), records: 0, batches: Some(batches), thread: Some(thread) })
    }

    /// Adds a record; `read` is the data of a completion that the log leaves out.
    pub fn append(&mut self, record: &Record, read: Option<&[u8]>) {
        let mut record = record.clone();
        if let (RecordBody::DiskDoneLocal { slot, request, status }, Some(data)) = (&record.body, read) {
            let done =
                Input::DiskDone { slot: *slot, request: *request, status: *status, data: data.to_vec() };
            record.body = RecordBody::Input(done);
        }
        self.records += 1;
        // Marks are no part of a recording, so records are numbered anew.
        record.lsn = pollux_vocab::Lsn(self.records);
        self.batch.push(record);
        if self.batch.len() >= BATCH_RECORDS {
            self.send_batch();
        }
    }

    fn send_batch(&mut self) {
        let bytes = logfile::encode_records(std::mem::take(&mut self.batch));
        self.send(bytes);
    }

    fn send(&mut self, bytes: Vec<u8>) {
        if self.batches.as_ref().is_some_and(|batches| batches.send(bytes).is_err()) {
            self.batches = None;
        }
    }

    /// Closes the recording.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.send_batch();
        }
        let end = logfile::encode_end(self.records);
        self.send(end);
        self.batches = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            Some(Err(_)) => Err(io::Error::other("the recording's thread crashed")),
            None => Ok(()),
        }
    }
}
