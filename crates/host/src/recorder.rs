//! Writes a recording: everything that was admitted, disk data included, so that it replays with no disk.
//!
//! What was admitted is in the file soon: records that do not fill a batch leave after [`BATCH_AGE_NS_MAX`], and the
//! thread flushes whenever it has nothing more to write. A recording is wanted most when its end was not orderly.
//!
//! A thread writes, so that a slow disk does not slow the VM; what waits is bounded by making the VM wait. A
//! failure to write ends the recording, loudly, and not the VM.

use crate::outfile::{self, Content};
use pollux_codec::logfile;
use pollux_node::HostTime;
use pollux_vocab::{Input, Record, RecordBody};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

/// Records that go into one frame.
const BATCH_RECORDS: usize = 256;
/// Age of a record, host nanoseconds, at which its batch leaves though it is not full.
const BATCH_AGE_NS_MAX: u64 = 100_000_000;
/// Batches that may wait for the disk.
const BATCHES_WAITING: usize = 256;

/// A recording being written.
#[derive(Debug)]
pub struct Recorder {
    batch: Vec<Record>,
    /// When the batch was first seen by a turn of the loop.
    batch_since: Option<HostTime>,
    records: u64,
    batches: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Recorder {
    /// Starts a recording at `path` from the state in a snapshot of so many bytes. Call it when nothing else can fail any
    /// more: a former recording there is lost.
    pub fn create(
        path: &Path,
        snapshot_bytes: u64,
        pieces: impl IntoIterator<Item = Vec<u8>>,
    ) -> io::Result<Self> {
        let file = outfile::create(path, Content::Recording).map_err(io::Error::other)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&logfile::encode_header(snapshot_bytes))?;
        pieces.into_iter().try_for_each(|piece| file.write_all(&piece))?;
        let (batches, inbox) = sync_channel::<Vec<u8>>(BATCHES_WAITING);
        let shown = path.to_owned();
        let thread = std::thread::Builder::new().name("recorder".into()).spawn(move || {
            let written = write_batches(&inbox, &mut file);
            if let Err(error) = &written {
                tracing::error!(path = %shown.display(), %error, "the recording ends here; the VM runs on");
            }
            written
        })?;
        Ok(Self {
            batch: Vec::new(),
            batch_since: None,
            records: 0,
            batches: Some(batches),
            thread: Some(thread),
        })
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

    /// Call once a turn of the loop: a batch that has waited long enough leaves.
    pub fn handle_turn(&mut self, now: HostTime) {
        if self.batch.is_empty() {
            return;
        }
        let since = *self.batch_since.get_or_insert(now);
        if now.since(since) >= BATCH_AGE_NS_MAX {
            self.send_batch();
        }
    }

    fn send_batch(&mut self) {
        self.batch_since = None;
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

/// Writes what comes until the channel is closed; when there is nothing to write, what was written leaves the buffer.
fn write_batches(inbox: &Receiver<Vec<u8>>, file: &mut impl Write) -> io::Result<()> {
    loop {
        let bytes = match inbox.try_recv() {
            Ok(bytes) => bytes,
            Err(TryRecvError::Disconnected) => return file.flush(),
            Err(TryRecvError::Empty) => {
                file.flush()?;
                match inbox.recv() {
                    Ok(bytes) => bytes,
                    Err(_) => return Ok(()),
                }
            }
        };
        file.write_all(&bytes)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_vocab::{Icount, Lsn};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    /// A file that tells what has left its buffer.
    struct Telling(Vec<u8>, Sender<Vec<u8>>);

    impl Write for Telling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.1.send(std::mem::take(&mut self.0)).map_err(io::Error::other)
        }
    }

    #[test]
    fn what_is_recorded_is_flushed_before_the_thread_waits_for_more() {
        let (batches, inbox) = sync_channel(4);
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || write_batches(&inbox, &mut Telling(Vec::new(), tell)));
        batches.send(b"killed after this".to_vec()).expect("the thread lives");
        let mut flushed = Vec::new();
        while flushed != b"killed after this" {
            flushed.extend(told.recv_timeout(Duration::from_secs(60)).expect("flushed before the end"));
        }
        drop(batches);
        thread.join().expect("no panic").expect("no error");
    }

    #[test]
    fn a_batch_that_does_not_fill_leaves_when_it_is_old() {
        let (batches, inbox) = sync_channel(4);
        let mut recorder = Recorder {
            batch: Vec::new(),
            batch_since: None,
            records: 0,
            batches: Some(batches),
            thread: None,
        };
        recorder.append(&Record { lsn: Lsn(1), icount: Icount(1), body: RecordBody::Progress }, None);
        recorder.handle_turn(HostTime(1_000));
        recorder.handle_turn(HostTime(999 + BATCH_AGE_NS_MAX));
        assert!(inbox.try_recv().is_err(), "it is young");
        recorder.handle_turn(HostTime(1_000 + BATCH_AGE_NS_MAX));
        assert!(inbox.try_recv().is_ok(), "it is old");
        recorder.handle_turn(HostTime(1_000 + 3 * BATCH_AGE_NS_MAX));
        assert!(inbox.try_recv().is_err(), "nothing is left");
    }
}
