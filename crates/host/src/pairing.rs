//! How two hosts become a pair: the handshake before the first instruction.
//!
//! ```text
//!   primary                               backup
//!      │  Hello: version, VM, generation,    │  checks the version, the disks (slot, mode, size,
//!      │  machine, disks, snapshot size ───► │  content), the RAM it was told to expect
//!      │ ◄────────────────── Welcome/Refuse  │
//!      │  State, State, … StateEnd ────────► │  builds the machine from the snapshot; plugs in
//!      │ ◄─────────────────── Ready/Refuse   │  digest of the machine it has built
//!      │  compares digests; starts           │
//! ```
//!
//! Ready is the backup's last word before it backs up: whatever may still fail on its host comes before.
//!
//! The state that both sides start from is a snapshot that the primary sends, so the backup needs neither the
//! kernel nor the machine's description, only its own images of replicated disks.

use crate::link::{LinkError, LinkReader, LinkSender};
use pollux_codec::message::{DiskHello, Hello, Wire};
use pollux_machine::{Computer, Config, DeviceConfig, Machine};
use pollux_vocab::{Digest, SlotId};
use std::time::Duration;

/// Bytes of snapshot in one message.
const STATE_CHUNK: usize = 1 << 20;
/// How long a backup waits for a peer to say hello: others may be waiting behind it.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer may take over one step of the handshake: a backup may be hashing a large disk.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(120);
/// The largest snapshot that is taken from a peer: the largest machine and its devices.
const SNAPSHOT_BYTES_MAX: u64 = 65 << 30;

/// Why two hosts do not become a pair.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The link failed or spoke something else.
    #[error("pairing failed: {0}")]
    Link(#[from] LinkError),
    /// The backup will not.
    #[error("the backup refuses: {0}")]
    Refused(String),
    /// This side will not.
    #[error("pairing refused: {0}")]
    Unfit(String),
    /// The peer is out of step.
    #[error("pairing failed: expected {expected}, the peer sent {got}")]
    OutOfStep {
        /// What should have come.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// The two machines are not equal.
    #[error(
        "the backup built another machine from the same snapshot ({what}); the two hosts run different versions of Pollux, or one has bad memory"
    )]
    Unequal {
        /// What differs.
        what: String,
    },
}

impl From<std::io::Error> for PairingError {
    fn from(error: std::io::Error) -> Self {
        Self::Link(error.into())
    }
}

/// The primary's half. Returns when the backup holds the same machine and is ready. `snapshot` is `machine`'s, taken
/// before the backup began to wait for the hello.
pub fn offer(
    link: &mut LinkSender,
    reader: &mut LinkReader,
    hello: Hello,
    machine: &mut Computer,
    snapshot: &[u8],
) -> Result<(), PairingError> {
    reader.set_patience(Some(HANDSHAKE_PATIENCE))?;
    let hello = Hello { snapshot_bytes: snapshot.len() as u64, ..hello };
    link.send_blocking(&Wire::Hello(hello))?;
    match reader.receive()? {
        Wire::Welcome => {}
        Wire::Refuse { reason } => return Err(PairingError::Refused(reason)),
        other => return Err(PairingError::OutOfStep { expected: "Welcome", got: other.name() }),
    }
    for (index, chunk) in snapshot.chunks(STATE_CHUNK).enumerate() {
        let offset = (index * STATE_CHUNK) as u64;
        link.send_blocking(&Wire::State { offset, bytes: chunk.to_vec() })?;
    }
    link.send_blocking(&Wire::StateEnd { total: snapshot.len() as u64 })?;
    let ours = machine.digest();
    match reader.receive()? {
        Wire::Ready { digest } => same(&ours, &digest),
        Wire::Refuse { reason } => Err(PairingError::Refused(reason)),
        other => Err(PairingError::OutOfStep { expected: "Ready", got: other.name() }),
    }
}

fn same(ours: &Digest, theirs: &Digest) -> Result<(), PairingError> {
    match pollux_node::divergence::compare(ours, theirs) {
        None => Ok(()),
        Some(what) => Err(PairingError::Unequal { what }),
    }
}

/// What a backup knows of a disk that it has opened.
#[derive(Clone, Debug)]
pub struct OwnDisk {
    /// Its slot.
    pub slot: SlotId,
    /// Whether both hosts reach one image.
    pub shared: bool,
    /// Whether it was opened for reading only.
    pub read_only: bool,
    /// Its size.
    pub bytes: u64,
    /// Its content, if it was hashed.
    pub content_hash: Option<u64>,
}

/// Compares the primary's disks with this host's.
pub fn check_disks(theirs: &[DiskHello], ours: &[OwnDisk]) -> Result<(), String> {
    for disk in theirs {
        let shared = disk.shared;
        let Some(own) = ours.iter().find(|own| own.slot == disk.slot) else {
            return Err(format!(
                "the VM has a disk in slot {}, for which this backup was given no --disk",
                disk.slot
            ));
        };
        let word = |shared| if shared { "shared" } else { "replicated" };
        if own.shared != shared {
            let (here, there) = (word(own.shared), word(shared));
            return Err(format!("disk {} is {there} on the primary and {here} here", disk.slot));
        }
        if own.bytes != disk.bytes {
            return Err(format!(
                "disk {} has {} bytes on the primary and {} here; copy the primary's image",
                disk.slot, disk.bytes, own.bytes
            ));
        }
        if let (false, Some(there), Some(here)) = (shared, disk.content_hash, own.content_hash)
            && there != here
        {
            return Err(format!(
                "disk {} differs in content from the primary's; replicated disks start as equal copies",
                disk.slot
            ));
        }
    }
    if let Some(extra) = ours.iter().find(|own| theirs.iter().all(|disk| disk.slot != own.slot)) {
        return Err(format!(
            "this backup was given a disk for slot {}, which the VM does not have",
            extra.slot
        ));
    }
    Ok(())
}

/// Compares the disks of the machine that came with this host's, as far as the Hello does not tell.
fn check_read_only(machine: &Config, ours: &[OwnDisk]) -> Result<(), String> {
    for (slot, device) in machine.devices.iter().enumerate() {
        let DeviceConfig::Block { read_only, .. } = device else { continue };
        let own = ours.iter().find(|own| usize::from(own.slot) == slot);
        if own.is_some_and(|own| own.read_only != *read_only) {
            let word = |read_only| if read_only { "read-only" } else { "writable" };
            let (there, here) = (word(*read_only), word(!*read_only));
            return Err(format!("disk {slot} is {there} on the primary and {here} here"));
        }
    }
    Ok(())
}

/// The backup's first half: hears the Hello within `patience`. Answer with [`welcome`] or [`refuse`].
pub fn hear_hello(reader: &mut LinkReader, patience: Duration) -> Result<Hello, PairingError> {
    reader.set_patience(Some(patience))?;
    match reader.receive()? {
        Wire::Hello(hello) => Ok(hello),
        other => Err(PairingError::OutOfStep { expected: "Hello", got: other.name() }),
    }
}

/// Tells the primary why not.
pub fn refuse(link: &mut LinkSender, reason: &str) {
    // The primary may be gone already; the reason is also this side's own error.
    let _ = link.send_blocking(&Wire::Refuse { reason: reason.into() });
}

/// The backup's second half: takes the snapshot and builds the machine. When all else is at hand, say [`ready`].
pub fn welcome(
    link: &mut LinkSender,
    reader: &mut LinkReader,
    hello: &Hello,
    disks: &[OwnDisk],
) -> Result<Computer, PairingError> {
    let unfit = |link: &mut LinkSender, reason: String| {
        refuse(link, &reason);
        PairingError::Unfit(reason)
    };
    if hello.snapshot_bytes > SNAPSHOT_BYTES_MAX {
        return Err(unfit(
            link,
            format!("a snapshot of {} bytes is more than any machine has", hello.snapshot_bytes),
        ));
    }
    reader.set_patience(Some(HANDSHAKE_PATIENCE))?;
    link.send_blocking(&Wire::Welcome)?;
    let mut snapshot = Vec::new();
    loop {
        match reader.receive()? {
            Wire::State { offset, bytes } => {
                if offset != snapshot.len() as u64 || offset + bytes.len() as u64 > hello.snapshot_bytes {
                    return Err(unfit(
                        link,
                        format!("a piece of the snapshot is out of place at byte {offset}"),
                    ));
                }
                snapshot.extend_from_slice(&bytes);
            }
            Wire::StateEnd { total } if total == snapshot.len() as u64 => break,
            Wire::StateEnd { total } => {
                return Err(unfit(
                    link,
                    format!("the snapshot ends after {} of {total} bytes", snapshot.len()),
                ));
            }
            other => return Err(PairingError::OutOfStep { expected: "State", got: other.name() }),
        }
    }
    let machine = match Computer::restore(&snapshot) {
        Ok(machine) => machine,
        Err(error) => return Err(unfit(link, error.to_string())),
    };
    check_read_only(machine.config(), disks).map_err(|reason| unfit(link, reason))?;
    Ok(machine)
}

/// The backup's last word: from here on it backs `machine` up, and the primary runs.
pub fn ready(link: &mut LinkSender, machine: &mut Computer) -> Result<(), PairingError> {
    let digest = machine.digest();
    Ok(link.send_blocking(&Wire::Ready { digest })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link;
    use pollux_machine::Boot;
    use pollux_vocab::Generation;
    use std::net::{TcpListener, TcpStream};
    use std::slice::from_ref;

    type Ends = [(LinkSender, LinkReader); 2];

    fn connected() -> Ends {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (far, _) = listener.accept().expect("it connected");
        [near, far].map(|stream| link::split(stream).expect("a link"))
    }

    fn config(read_only: bool) -> Config {
        let disk = DeviceConfig::Block { bytes: 4096, read_only, serial: "d".into() };
        Config { ram_bytes: 16 << 20, harts: 1, devices: vec![disk], rtc_base_ns: 0, ..Config::default() }
    }

    /// A primary and a backup up to the point where the backup has the machine; then `then`, on the backup's side.
    fn paired_up_to_ready(
        read_only: bool,
        disk: &OwnDisk,
        then: impl FnOnce(&mut LinkSender, &mut Computer) + Send,
    ) -> [Result<(), PairingError>; 2] {
        let image = 0x0000_006fu32.to_le_bytes();
        let boot = Boot::Firmware { image: &image, kernel: None, initrd: None, command_line: "" };
        let mut machine = Computer::new(&config(read_only), boot).expect("a machine");
        let snapshot = machine.snapshot();
        let hello = Hello {
            software: String::new(),
            vm: "vm".into(),
            generation: Generation(1),
            harts: 1,
            ram_bytes: 16 << 20,
            disks: Vec::new(),
            heartbeat_ns: 1,
            failure_ns: 2,
            snapshot_bytes: 0,
        };
        let [(mut near, mut near_reader), (mut far, mut far_reader)] = connected();
        std::thread::scope(|scope| {
            let backup = scope.spawn(move || {
                let hello = hear_hello(&mut far_reader, HANDSHAKE_PATIENCE)?;
                let mut machine = welcome(&mut far, &mut far_reader, &hello, from_ref(disk))?;
                then(&mut far, &mut machine);
                Ok(())
            });
            let primary = offer(&mut near, &mut near_reader, hello, &mut machine, &snapshot);
            [primary, backup.join().expect("no panic")]
        })
    }

    #[test]
    fn a_backup_that_fails_before_it_is_ready_stops_the_start_of_the_primary() {
        let (_, own) = disk(0, 4096, 7);
        let [primary, _] = paired_up_to_ready(false, &own, |link, _| refuse(link, "no network card"));
        assert!(matches!(primary, Err(PairingError::Refused(why)) if why == "no network card"));
        let [primary, _] = paired_up_to_ready(false, &own, |link, machine| {
            ready(link, machine).expect("the primary waits");
        });
        assert!(primary.is_ok(), "{primary:?}");
    }

    #[test]
    fn a_disk_that_only_one_side_may_write_makes_no_pair() {
        let (_, own) = disk(0, 4096, 7);
        for (there, here) in [(true, false), (false, true)] {
            let own = OwnDisk { read_only: here, ..own.clone() };
            let [primary, backup] = paired_up_to_ready(there, &own, |_, _| panic!("they do not fit"));
            let (primary, backup) = (primary.expect_err("refused"), backup.expect_err("refused"));
            assert!(primary.to_string().contains("read-only"), "{primary}");
            assert!(backup.to_string().contains("disk 0 is"), "{backup}");
        }
    }

    #[test]
    fn a_peer_that_says_nothing_is_not_waited_for_for_ever() {
        let [(_near, _), (_, mut reader)] = connected();
        assert!(hear_hello(&mut reader, Duration::from_millis(1)).is_err());
    }

    fn disk(slot: SlotId, bytes: u64, hash: u64) -> (DiskHello, OwnDisk) {
        let content_hash = Some(hash);
        (
            DiskHello { slot, shared: false, bytes, content_hash },
            OwnDisk { slot, shared: false, read_only: false, bytes, content_hash },
        )
    }

    #[test]
    fn equal_disks_make_a_pair_and_every_difference_is_named() {
        let (theirs, ours) = disk(0, 4096, 7);
        assert_eq!(check_disks(from_ref(&theirs), from_ref(&ours)), Ok(()));
        let missing = check_disks(from_ref(&theirs), &[]).expect_err("no disk");
        assert!(missing.contains("no --disk"), "{missing}");
        let extra = check_disks(&[], from_ref(&ours)).expect_err("one too many");
        assert!(extra.contains("does not have"), "{extra}");
        let size =
            check_disks(from_ref(&theirs), &[OwnDisk { bytes: 512, ..ours.clone() }]).expect_err("small");
        assert!(size.contains("512 here"), "{size}");
        let content = check_disks(from_ref(&theirs), &[OwnDisk { content_hash: Some(8), ..ours.clone() }]);
        assert!(content.expect_err("other bytes").contains("content"));
        let mode = check_disks(&[theirs], &[OwnDisk { shared: true, ..ours }]).expect_err("other mode");
        assert!(mode.contains("shared here"), "{mode}");
    }
}
