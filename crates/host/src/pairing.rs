//! How two hosts become a pair: the handshake before the first instruction.
//!
//! ```text
//!   primary                               backup
//!      │  Greet: VM, generation, nonce ────► │  looks for the claim at its own arbiter
//!      │ ◄──────────────── Challenge (proof) │
//!      │  Proof ───────────────────────────► │  from here on it is no stranger
//!      │  Hello: version, VM, generation,    │  checks the version, the disks (slot, mode, size,
//!      │  machine, disks, snapshot size ───► │  content), the RAM it was told to expect
//!      │ ◄────────────────── Welcome/Refuse  │
//!      │  State, State, … StateEnd ────────► │  builds the machine from the snapshot; plugs in
//!      │ ◄─────────────────── Ready/Refuse   │  digest of the machine it has built
//!      │  compares digests; starts           │
//! ```
//!
//! Invariant: each side shows that it knows the secret of the claim that the primary runs on ([`crate::proof`]) before it
//! says anything that a stranger could use: the primary nothing of its machine, the backup neither its disks nor
//! whether it knows the VM. A step has a deadline as a whole, and ends early if this process is told to stop.
//!
//! Ready is the backup's last word before it backs up: whatever may still fail on its host comes before.
//!
//! The state that both sides start from is a snapshot that the primary sends, so the backup needs neither the
//! kernel nor the machine's description, only its own images of replicated disks.

use crate::arbiter_file::random_bytes;
use crate::events::EventSender;
use crate::link::{LinkError, LinkReader, LinkSender, Patience};
use crate::memory::{self, check_snapshot};
use crate::proof::{Side, is_proof, prove};
use pollux_arbiter::Secret;
use pollux_codec::message::{DiskHello, Greet, Hello, Wire};
use pollux_contract::{Build, DiskPart, Freeze, Machine, OwnMemory, Pieces, Restore};
use pollux_vocab::{Digest, SlotId};
use std::time::Duration;

/// How long a stranger may take over all that it takes to become none.
pub const STRANGER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a proven peer may take over one step of the handshake, besides what its bytes take.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(120);
/// A disk that is hashed, or a snapshot that is sent, more slowly than this is as good as none, in bytes a second.
const SLOWEST_BYTES_PER_S: u64 = 4 << 20;
/// How long a peer that is turned away may take to read why.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(1);

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
    /// The peer does not know the secret.
    #[error(
        "{0} could not prove that it reads the same arbiter: give both sides the same --arbiter folder, and let both read the claims in it"
    )]
    Stranger(&'static str),
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

/// How long a step may take in which so many bytes are read or sent.
fn patience_for(bytes: u64, stop: &EventSender) -> Patience {
    let work = Duration::from_secs(bytes / SLOWEST_BYTES_PER_S);
    Patience::new(HANDSHAKE_PATIENCE.saturating_add(work), Some(stop))
}

/// The primary's introduction: shows that it holds `secret`, and sees that the backup reads the same claim.
pub fn introduce(
    link: &mut LinkSender,
    reader: &mut LinkReader,
    greet: &Greet,
    secret: &Secret,
    stop: &EventSender,
) -> Result<(), PairingError> {
    let greet = Greet { nonce: random_bytes()?, ..greet.clone() };
    let patience = Patience::new(HANDSHAKE_PATIENCE, Some(stop));
    link.send_within(&Wire::Greet(greet.clone()), &patience)?;
    match reader.receive_within(&patience)? {
        Wire::Challenge { nonce, proof } if is_proof(secret, Side::Backup, &greet, &nonce, &proof) => {
            let proof = prove(secret, Side::Primary, &greet, &nonce);
            Ok(link.send_within(&Wire::Proof { proof }, &patience)?)
        }
        Wire::Challenge { .. } => Err(PairingError::Stranger("the backup")),
        Wire::Refuse { reason } => Err(PairingError::Refused(reason)),
        other => Err(PairingError::OutOfStep { expected: "Challenge", got: other.name() }),
    }
}

/// The backup's side of the introduction. `secret_of` looks a claim up; a peer that names one that is not there is
/// told nothing of that.
pub fn meet(
    link: &mut LinkSender,
    reader: &mut LinkReader,
    secret_of: impl FnOnce(&Greet) -> Option<Secret>,
) -> Result<Greet, PairingError> {
    let patience = Patience::new(STRANGER_PATIENCE, None);
    let greet = match reader.receive_within(&patience)? {
        Wire::Greet(greet) => greet,
        other => return Err(PairingError::OutOfStep { expected: "Greet", got: other.name() }),
    };
    let nonce = random_bytes()?;
    let (known, secret) = match secret_of(&greet) {
        Some(secret) => (true, secret),
        None => (false, Secret(random_bytes()?)),
    };
    let proof = prove(&secret, Side::Backup, &greet, &nonce);
    link.send_within(&Wire::Challenge { nonce, proof }, &patience)?;
    match reader.receive_within(&patience)? {
        Wire::Proof { proof } if known && is_proof(&secret, Side::Primary, &greet, &nonce, &proof) => {
            Ok(greet)
        }
        Wire::Proof { .. } => Err(PairingError::Stranger("the peer")),
        other => Err(PairingError::OutOfStep { expected: "Proof", got: other.name() }),
    }
}

/// The primary's half. Returns when the backup holds the same machine and is ready. The machine was frozen, and
/// `snapshot` measured, before the backup began to wait for the hello.
pub fn offer(
    link: &mut LinkSender,
    reader: &mut LinkReader,
    hello: Hello,
    snapshot: &mut Pieces<'_, impl Freeze>,
    stop: &EventSender,
) -> Result<(), PairingError> {
    let disk_bytes = hello.disks.iter().map(|disk| disk.bytes).fold(0, u64::saturating_add);
    let hello = Hello { snapshot_bytes: snapshot.bytes(), ..hello };
    let patience = patience_for(disk_bytes, stop);
    link.send_within(&Wire::Hello(hello), &patience)?;
    match reader.receive_within(&patience)? {
        Wire::Welcome => {}
        Wire::Refuse { reason } => return Err(PairingError::Refused(reason)),
        other => return Err(PairingError::OutOfStep { expected: "Welcome", got: other.name() }),
    }
    let patience = patience_for(snapshot.bytes(), stop);
    let mut offset = 0;
    for bytes in snapshot.by_ref() {
        let len = bytes.len() as u64;
        link.send_within(&Wire::State { offset, bytes }, &patience)?;
        offset += len;
    }
    link.send_within(&Wire::StateEnd { total: offset }, &patience)?;
    let ours = snapshot.machine().digest();
    match reader.receive_within(&patience)? {
        Wire::Ready { digest } => same(&ours, &digest),
        Wire::Refuse { reason } => Err(PairingError::Refused(reason)),
        other => Err(PairingError::OutOfStep { expected: "Ready", got: other.name() }),
    }
}

fn same(ours: &Digest, theirs: &Digest) -> Result<(), PairingError> {
    match pollux_node::divergence::compare(ours, theirs) {
        None => Ok(()),
        Some(what) => Err(PairingError::Unequal { what: what.to_string() }),
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
        // Rule: whether contents are compared is for this side to say: the peer cannot leave its hash out.
        if let (false, Some(here)) = (shared, own.content_hash)
            && disk.content_hash != Some(here)
        {
            let slot = disk.slot;
            return Err(match disk.content_hash {
                Some(_) => format!(
                    "disk {slot} differs in content from the primary's; replicated disks start as equal copies"
                ),
                None => format!(
                    "the primary does not say what disk {slot} holds, and only this backup's own --trust-disks makes that right"
                ),
            });
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

/// Whether a peer's machine is of the kind that this side runs.
fn check_kind(hello: &Hello, ours: &str) -> Result<(), String> {
    let theirs = &hello.machine;
    if theirs == ours {
        return Ok(());
    }
    Err(format!(
        "the VM is a machine of the kind {theirs:?}, and this backup runs the kind {ours:?}; start a backup of that kind, with the same version of Pollux"
    ))
}

/// Compares the disks of the machine that came with this host's, as far as the Hello does not tell.
fn check_read_only(theirs: &[DiskPart], ours: &[OwnDisk]) -> Result<(), String> {
    for &DiskPart { slot, read_only, .. } in theirs {
        let own = ours.iter().find(|own| own.slot == slot);
        if own.is_some_and(|own| own.read_only != read_only) {
            let word = |read_only| if read_only { "read-only" } else { "writable" };
            let (there, here) = (word(read_only), word(!read_only));
            return Err(format!("disk {slot} is {there} on the primary and {here} here"));
        }
    }
    Ok(())
}

/// The backup's first half: hears the Hello of a peer that it has met. Answer with [`welcome`] or [`refuse`].
pub fn hear_hello(reader: &mut LinkReader, greet: &Greet) -> Result<Hello, PairingError> {
    match reader.receive_within(&Patience::new(HANDSHAKE_PATIENCE, None))? {
        Wire::Hello(hello) if (&hello.vm, hello.generation) == (&greet.vm, greet.generation) => Ok(hello),
        Wire::Hello(_) => {
            Err(PairingError::Unfit("the peer says hello for another VM than it proved".into()))
        }
        other => Err(PairingError::OutOfStep { expected: "Hello", got: other.name() }),
    }
}

/// Tells the primary why not.
pub fn refuse(link: &mut LinkSender, reason: &str) {
    // The primary may be gone already; the reason is also this side's own error.
    let _ =
        link.send_within(&Wire::Refuse { reason: reason.into() }, &Patience::new(LAST_WORD_PATIENCE, None));
}

/// Tells a peer that there is no place for it, and lets it read that.
pub fn turn_away(mut link: LinkSender, mut reader: LinkReader) {
    refuse(&mut link, "it is busy with another primary, or with too many peers at once; try again later");
    link.end(&mut reader, LAST_WORD_PATIENCE);
}

/// The backup's second half: takes the snapshot and builds the machine. When all else is at hand, say [`ready`].
pub fn welcome<M: Restore>(
    link: &mut LinkSender,
    reader: &mut LinkReader,
    hello: &Hello,
    disks: &[OwnDisk],
    stop: &EventSender,
) -> Result<M, PairingError> {
    let unfit = |link: &mut LinkSender, reason: String| {
        refuse(link, &reason);
        PairingError::Unfit(reason)
    };
    check_kind(hello, M::KIND).map_err(|reason| unfit(link, reason))?;
    check_snapshot(hello, memory::available()).map_err(|reason| unfit(link, reason))?;
    let patience = patience_for(hello.snapshot_bytes, stop);
    link.send_within(&Wire::Welcome, &patience)?;
    let (mut builder, mut taken) = (M::builder(Box::new(OwnMemory)), 0);
    loop {
        match reader.receive_within(&patience)? {
            Wire::State { offset, bytes } => {
                if offset != taken || taken + bytes.len() as u64 > hello.snapshot_bytes {
                    return Err(unfit(
                        link,
                        format!("a piece of the snapshot is out of place at byte {offset}"),
                    ));
                }
                taken += bytes.len() as u64;
                builder.push(&bytes).map_err(|error| unfit(link, error.to_string()))?;
            }
            Wire::StateEnd { total } if total == taken => break,
            Wire::StateEnd { total } => {
                return Err(unfit(link, format!("the snapshot ends after {taken} of {total} bytes")));
            }
            other => return Err(PairingError::OutOfStep { expected: "State", got: other.name() }),
        }
    }
    let machine = builder.finish().map_err(|error| unfit(link, error.to_string()))?;
    let parts = machine.parts();
    if parts.memory_bytes != hello.ram_bytes {
        return Err(unfit(link, "the snapshot is of another machine than the Hello".into()));
    }
    check_read_only(&parts.disks, disks).map_err(|reason| unfit(link, reason))?;
    Ok(machine)
}

/// The backup's last word: from here on it backs `machine` up, and the primary runs.
pub fn ready(
    link: &mut LinkSender,
    machine: &mut impl Machine,
    stop: &EventSender,
) -> Result<(), PairingError> {
    let digest = machine.digest();
    Ok(link.send_within(&Wire::Ready { digest }, &Patience::new(HANDSHAKE_PATIENCE, Some(stop)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::inbox;
    use crate::link;
    use pollux_machine::{Boot, Computer, Config, DeviceConfig};
    use pollux_node::Event;
    use pollux_vocab::Generation;
    use std::net::{TcpListener, TcpStream};
    use std::slice::from_ref;
    use std::time::Instant;

    const SECRET: Secret = Secret([9; 32]);

    fn greet() -> Greet {
        let (vm, holder) = ("vm".into(), "a".into());
        Greet { vm, generation: Generation(1), arbiter: [0; 16], holder, nonce: [0; 32] }
    }

    fn hello() -> Hello {
        Hello {
            software: String::new(),
            vm: "vm".into(),
            generation: Generation(1),
            harts: 1,
            ram_bytes: 16 << 20,
            disks: Vec::new(),
            heartbeat_ns: 1,
            failure_ns: 2,
            snapshot_bytes: 0,
            machine: Computer::KIND.into(),
        }
    }

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
        let hello = hello();
        let [(mut near, mut near_reader), (mut far, mut far_reader)] = connected();
        let (stop, _inbox) = inbox();
        let stop = &stop;
        std::thread::scope(|scope| {
            let backup = scope.spawn(move || {
                let greet = meet(&mut far, &mut far_reader, |_| Some(SECRET))?;
                let hello = hear_hello(&mut far_reader, &greet)?;
                let mut machine = welcome(&mut far, &mut far_reader, &hello, from_ref(disk), stop)?;
                then(&mut far, &mut machine);
                Ok(())
            });
            let primary = introduce(&mut near, &mut near_reader, &greet(), &SECRET, stop).and_then(|()| {
                offer(&mut near, &mut near_reader, hello, &mut Pieces::of(&mut machine), stop)
            });
            [primary, backup.join().expect("no panic")]
        })
    }

    #[test]
    fn a_backup_that_fails_before_it_is_ready_stops_the_start_of_the_primary() {
        let (_, own) = disk(0, 4096, 7);
        let [primary, _] = paired_up_to_ready(false, &own, |link, _| refuse(link, "no network card"));
        assert!(matches!(primary, Err(PairingError::Refused(why)) if why == "no network card"));
        let [primary, _] = paired_up_to_ready(false, &own, |link, machine| {
            ready(link, machine, &inbox().0).expect("the primary waits");
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
    fn a_snapshot_that_its_machine_could_not_have_or_this_host_could_not_hold_is_refused_before_it_is_taken()
    {
        let says = |ram_bytes, snapshot_bytes| Hello { ram_bytes, snapshot_bytes, ..hello() };
        let [(_near, mut primary), (mut far, mut far_reader)] = connected();
        let (stop, _inbox) = inbox();
        let refused = welcome::<Computer>(&mut far, &mut far_reader, &says(16 << 20, 6 << 30), &[], &stop);
        assert!(matches!(refused, Err(PairingError::Unfit(_))));
        let answer = primary.receive_within(&Patience::new(STRANGER_PATIENCE, None)).expect("an answer");
        assert_eq!(answer.name(), "Refuse", "no Welcome before it");
        assert!(check_snapshot(&says(16 << 20, 17 << 20), Some(1 << 30)).is_ok());
        assert!(check_snapshot(&says(16 << 20, 17 << 20), None).is_ok());
        assert!(check_snapshot(&says(8 << 30, 4 << 30), Some(6 << 30)).is_ok(), "it is held once");
        let small = check_snapshot(&says(8 << 30, 4 << 30), Some(3 << 30)).expect_err("no room for it");
        assert!(small.contains("to give"), "{small}");
        assert!(check_snapshot(&says(u64::MAX, u64::MAX), Some(6 << 30)).is_err());
    }

    #[test]
    fn a_machine_of_another_kind_is_refused_by_name() {
        let [(_near, mut primary), (mut far, mut far_reader)] = connected();
        let (stop, _inbox) = inbox();
        let hello = Hello { machine: "pico-x86-64".into(), ..hello() };
        let refused = welcome::<Computer>(&mut far, &mut far_reader, &hello, &[], &stop);
        assert!(matches!(refused, Err(PairingError::Unfit(_))));
        let answer = primary.receive_within(&Patience::new(STRANGER_PATIENCE, None)).expect("an answer");
        let Wire::Refuse { reason } = answer else { panic!("{}", answer.name()) };
        assert!(reason.contains("\"pico-x86-64\"") && reason.contains("\"riscv-virt\""), "{reason}");
    }

    #[test]
    fn a_peer_that_says_nothing_is_not_waited_for_for_ever() {
        let [(_near, _), (_, mut reader)] = connected();
        let error = reader.receive_within(&Patience::new(Duration::from_millis(1), None));
        assert!(matches!(error, Err(LinkError::TooLate)), "{error:?}");
    }

    #[test]
    fn a_peer_that_drips_does_not_lengthen_its_step() {
        use std::io::Write;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (_, mut reader) = link::split(listener.accept().expect("connected").0).expect("a link");
        let begun = Instant::now();
        let dripping = std::thread::spawn(move || {
            for byte in Wire::Greet(greet()).encode() {
                if near.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let heard = reader.receive_within(&Patience::new(Duration::from_millis(300), None));
        assert!(matches!(heard, Err(LinkError::TooLate)), "{heard:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "whatever it drips");
        drop(reader);
        dripping.join().expect("no panic");
    }

    #[test]
    fn a_peer_that_reads_nothing_holds_nobody_who_is_told_to_stop() {
        let [(mut near, _near_reader), _far] = connected();
        let (stop, _inbox) = inbox();
        let teller = stop.clone();
        let telling = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            teller.send(Event::Stop).expect("heard");
        });
        let bytes: Vec<u8> = (0..(1 << 20) / 8)
            .flat_map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        let piece = Wire::State { offset: 0, bytes };
        let patience = Patience::new(HANDSHAKE_PATIENCE, Some(&stop));
        let sent = (0..64).try_for_each(|_| near.send_within(&piece, &patience));
        assert!(matches!(sent, Err(LinkError::Stopped)), "{sent:?}");
        let sent = near.send_within(&piece, &Patience::new(Duration::from_millis(1), None));
        assert!(matches!(sent, Err(LinkError::TooLate)), "{sent:?}");
        telling.join().expect("no panic");
    }

    #[test]
    fn a_stranger_takes_over_no_backup_and_learns_nothing() {
        for (theirs, ours) in [(Secret([1; 32]), Some(SECRET)), (Secret::default(), None)] {
            let [(mut near, mut near_reader), (mut far, mut far_reader)] = connected();
            let backup = std::thread::spawn(move || meet(&mut far, &mut far_reader, |_| ours));
            near.send_within(&Wire::Greet(greet()), &Patience::new(STRANGER_PATIENCE, None)).expect("sent");
            let patience = Patience::new(STRANGER_PATIENCE, None);
            let answer = near_reader.receive_within(&patience).expect("the same whoever asks");
            let Wire::Challenge { nonce, .. } = answer else { panic!("{}", answer.name()) };
            let proof = prove(&theirs, Side::Primary, &greet(), &nonce);
            near.send_within(&Wire::Proof { proof }, &patience).expect("sent");
            let refused = backup.join().expect("no panic");
            assert!(matches!(refused, Err(PairingError::Stranger(_))), "{refused:?}");
            assert!(near_reader.receive_within(&patience).is_err(), "not a word about why");
        }
    }

    #[test]
    fn a_primary_says_nothing_of_its_machine_to_a_backup_that_does_not_know_the_secret() {
        let [(mut near, mut near_reader), (mut far, mut far_reader)] = connected();
        let (stop, _inbox) = inbox();
        let backup = std::thread::spawn(move || {
            let met = meet(&mut far, &mut far_reader, |_| Some(Secret([1; 32])));
            (met, far_reader.receive_within(&Patience::new(STRANGER_PATIENCE, None)))
        });
        let error = introduce(&mut near, &mut near_reader, &greet(), &SECRET, &stop).expect_err("a stranger");
        assert!(error.to_string().contains("same --arbiter folder"), "{error}");
        drop((near, near_reader));
        let (met, more) = backup.join().expect("no panic");
        assert!(met.is_err() && more.is_err(), "{met:?}, {more:?}");
    }

    #[test]
    fn a_primary_cannot_leave_the_comparison_of_disks_out() {
        let (theirs, ours) = disk(0, 4096, 7);
        let silent = DiskHello { content_hash: None, ..theirs };
        let why = check_disks(from_ref(&silent), from_ref(&ours)).expect_err("it must be compared");
        assert!(why.contains("--trust-disks"), "{why}");
        let trusting = OwnDisk { content_hash: None, ..ours };
        assert_eq!(check_disks(&[silent], &[trusting]), Ok(()), "unless this side's operator says so");
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
