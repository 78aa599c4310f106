//! The arbiter on storage that both hosts reach: a folder with a marker and one file per generation.
//!
//! The atomic test-and-set is `link(2)` of a complete, synced temporary file to the generation's name: it fails
//! with `EEXIST` if the name exists, on a local file system and on every version of NFS (where `O_EXCL` needs v3
//! and `rename` would replace). An NFS reply that was lost makes a successful `link` look like `EEXIST`, so the
//! winner is always decided by *reading* the file: whoever's identity stands in it has won. A name once given is
//! never removed by a running VM, so nobody wins a generation twice.
//!
//! Invariant: an arbiter is a place and not a path. The folder is opened once and held; its path is never looked up
//! again, so that a mount that comes or goes below the path changes nothing. Nothing is made silently: a folder
//! without a marker ([`FileArbiter::init`] makes it) is no arbiter, and a claim is decided only where the marker is
//! the one that was there at first, and the generation before is held by whom the claimant knows
//! ([`pollux_arbiter::follows`]). Everything else is "cannot be reached".
//!
//! Every call may hang on a dead server; [`FileArbiter::spawn`] therefore answers through an event, and the
//! protocol treats no answer as "unreachable: wait".

pub mod fault;

use pollux_arbiter::{
    Arbiter, ArbiterId, Claim, Decision, GENERATION_MAX, Secret, decide, decode, decode_marker, encode,
    encode_marker, follows,
};
use pollux_node::Event;
use pollux_protocol::Verdict;
use pollux_vocab::Generation;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// The file that makes a folder an arbiter.
pub const MARKER: &str = "pollux-arbiter";
/// How the names of files begin that are not claims yet.
const UNFINISHED: &str = ".claiming.";
/// An unfinished claim that is older, by the storage's own clock, belongs to a process that is gone.
const UNFINISHED_AGE_MAX: Duration = Duration::from_secs(3600);
/// Longest file that is read: far more than a claim has.
const FILE_BYTES_MAX: u64 = 4096;
/// Claims hold a secret: for the owner and the group of the folder.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
/// The folder that `init` makes.
const FOLDER_MODE: u32 = 0o770;

/// A folder of claims.
#[derive(Clone, Debug)]
pub struct FileArbiter {
    /// As it was called when it was opened: for people.
    path: PathBuf,
    folder: Arc<OwnedFd>,
    id: ArbiterId,
}

/// Why the arbiter's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArbiterError {
    /// It cannot be read.
    #[error("cannot use the arbiter folder {path}: {source}; both hosts must reach it and may write to it")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A claim in it makes no sense.
    #[error(
        "the file {path} is damaged ({what}); nothing will run while it is. If no instance of the VM runs anywhere, remove it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is no arbiter.
    #[error(
        "{path} is no arbiter: it has no marker. If the shared storage is mounted there and it is new, run \"pollux arbiter init {path}\", once, on one host"
    )]
    NoMarker {
        /// The folder.
        path: PathBuf,
    },
    /// It has become another one.
    #[error("{path} is no longer the arbiter that it was: its marker says {found}, not {wanted}")]
    AnotherArbiter {
        /// The folder.
        path: PathBuf,
        /// What the marker says.
        found: ArbiterId,
        /// What it said.
        wanted: ArbiterId,
    },
}

/// Who claims, and what it knows of who held the VM before.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// The VM.
    pub vm: String,
    /// Who.
    pub holder: String,
    /// What its claims hold.
    pub secret: Secret,
    /// Generations whose holders it knows.
    pub known: Vec<(Generation, String)>,
}

impl Claimant {
    /// The claim on `generation`; `None` if it does not know who holds the one before.
    fn claim(&self, generation: Generation) -> Option<Claim> {
        let (_, before) = self.known.iter().find(|(known, _)| known.next() == generation)?;
        let (vm, holder, after) = (self.vm.clone(), self.holder.clone(), Some(before.clone()));
        Some(Claim { vm, generation, holder, after, secret: self.secret })
    }
}

/// Random bytes for a marker or a secret.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

fn name_of(vm: &str, generation: Generation) -> String {
    format!("{vm}.generation-{generation}")
}

/// The generation that the file `name` is `vm`'s claim on. Other VMs may have names that begin alike.
fn generation_of(name: &str, vm: &str) -> Option<Generation> {
    let digits = name.strip_prefix(vm)?.strip_prefix(".generation-")?;
    let generation = Generation(digits.parse().ok()?);
    (name_of(vm, generation) == name).then_some(generation)
}

impl FileArbiter {
    /// Makes `folder` an arbiter, once; one that is one already stays the one that it is.
    pub fn init(folder: &Path) -> Result<ArbiterId, ArbiterError> {
        use std::os::unix::fs::DirBuilderExt;
        let fault = |source| ArbiterError::Io { path: folder.into(), source };
        std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(fault)?;
        let id = ArbiterId(random_bytes().map_err(fault)?);
        let arbiter = Self { path: folder.into(), folder: Arc::new(hold(folder)?), id };
        match arbiter.put(MARKER, &encode_marker(id)) {
            Err(ArbiterError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            put => put?,
        }
        arbiter.sync_folder()?;
        arbiter.marker()
    }

    /// Uses `folder`, which [`FileArbiter::init`] has made an arbiter.
    pub fn open(folder: &Path) -> Result<Self, ArbiterError> {
        let mut arbiter =
            Self { path: folder.into(), folder: Arc::new(hold(folder)?), id: ArbiterId::default() };
        arbiter.id = arbiter.marker()?;
        Ok(arbiter)
    }

    /// Which arbiter this is.
    #[must_use]
    pub fn id(&self) -> ArbiterId {
        self.id
    }

    fn marker(&self) -> Result<ArbiterId, ArbiterError> {
        let path = self.path.join(MARKER);
        match fault::strike().and_then(|()| self.bytes(MARKER)) {
            Ok(bytes) => {
                decode_marker(&bytes).map_err(|error| ArbiterError::Damaged { path, what: error.to_string() })
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(ArbiterError::NoMarker { path: self.path.clone() })
            }
            Err(source) => Err(ArbiterError::Io { path, source }),
        }
    }

    fn names(&self) -> Result<Vec<String>, ArbiterError> {
        let fault = |errno: Errno| ArbiterError::Io { path: self.path.clone(), source: errno.into() };
        let mut names = Vec::new();
        for entry in Dir::read_from(&*self.folder).map_err(fault)? {
            names.extend(entry.map_err(fault)?.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }

    /// The highest generation anybody has ever held, if any.
    pub fn newest(&self, vm: &str) -> Result<Option<Claim>, ArbiterError> {
        match self.names()?.iter().filter_map(|name| generation_of(name, vm)).max() {
            None => Ok(None),
            Some(generation) if generation > GENERATION_MAX => Err(ArbiterError::Damaged {
                path: self.path.join(name_of(vm, generation)),
                what: format!("no VM has come to generation {generation}"),
            }),
            Some(generation) => self.read(vm, generation).map(Some),
        }
    }

    /// The claim on one generation, if anybody has made it. Asks the storage by name: a listing may come from a cache.
    pub fn standing(&self, vm: &str, generation: Generation) -> Result<Option<Claim>, ArbiterError> {
        match self.read(vm, generation) {
            Err(ArbiterError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn read(&self, vm: &str, generation: Generation) -> Result<Claim, ArbiterError> {
        let name = name_of(vm, generation);
        let path = self.path.join(&name);
        let bytes = self.bytes(&name).map_err(|source| ArbiterError::Io { path: path.clone(), source })?;
        let claim =
            decode(&bytes).map_err(|e| ArbiterError::Damaged { path: path.clone(), what: e.to_string() })?;
        if (claim.vm.as_str(), claim.generation) != (vm, generation) {
            let what = format!("it is the claim on generation {} of {}", claim.generation, claim.vm);
            return Err(ArbiterError::Damaged { path, what });
        }
        Ok(claim)
    }

    fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&*self.folder, name, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Puts a whole, synced file into the folder under a name that is free; fails if it is not.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ArbiterError> {
        let fault = |source| ArbiterError::Io { path: self.path.join(name), source };
        let salt = u64::from_le_bytes(random_bytes().map_err(fault)?);
        // Of its own even among the processes of one holder: a file that two write is nobody's claim.
        let unfinished = format!("{UNFINISHED}{name}.{salt:016x}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*self.folder, &unfinished, flags, FILE_MODE);
        let mut file = File::from(file.map_err(|errno| fault(errno.into()))?);
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| {
            let (from, to) = (&*self.folder, &*self.folder);
            rustix::fs::linkat(from, &unfinished, to, name, AtFlags::empty()).map_err(Into::into)
        });
        let _ = rustix::fs::unlinkat(&*self.folder, &unfinished, AtFlags::empty());
        linked.map_err(fault)
    }

    /// Test-and-set. May block for as long as the storage does.
    pub fn claim(&self, wanted: &Claim) -> Result<Decision, ArbiterError> {
        let found = self.marker()?;
        if found != self.id {
            let (path, wanted) = (self.path.clone(), self.id);
            return Err(ArbiterError::AnotherArbiter { path, found, wanted });
        }
        let before = match wanted.generation.0.checked_sub(1) {
            Some(before) => self.standing(&wanted.vm, Generation(before))?,
            None => None,
        };
        if !follows(before.as_ref(), wanted) {
            let (path, Claim { vm, generation, .. }) = (self.path.display(), wanted);
            tracing::warn!(
                "{path} does not hold the claim that generation {generation} of {vm} stands on: it is another folder, or an old copy, or was emptied"
            );
            return Ok(Decision::Elsewhere);
        }
        match self.put(&name_of(&wanted.vm, wanted.generation), &encode(wanted)) {
            Err(ArbiterError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            put => put?,
        }
        let decision = decide(&self.read(&wanted.vm, wanted.generation)?, wanted);
        match &decision {
            // Also for a name that was there already: it may be this holder's, from a call that could not sync it.
            Decision::Won => self.sync_folder()?,
            Decision::Lost { holder } => {
                tracing::info!(vm = wanted.vm, generation = %wanted.generation, %holder, "the generation is taken");
            }
            Decision::Elsewhere => {}
        }
        Ok(decision)
    }

    fn sync_folder(&self) -> Result<(), ArbiterError> {
        let fault = |errno: Errno| ArbiterError::Io { path: self.path.clone(), source: errno.into() };
        rustix::fs::fsync(&*self.folder).map_err(fault)
    }

    fn remove(&self, name: &str) -> Result<(), ArbiterError> {
        match rustix::fs::unlinkat(&*self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(ArbiterError::Io { path: self.path.join(name), source: errno.into() }),
        }
    }

    /// Forgets every generation of `vm`. Only for a VM that runs nowhere: the caller asks a person first.
    pub fn forget(&self, vm: &str) -> Result<usize, ArbiterError> {
        let mut names = self.names()?;
        names.retain(|name| generation_of(name, vm).is_some());
        names.iter().try_for_each(|name| self.remove(name))?;
        self.sync_folder()?;
        Ok(names.len())
    }

    /// Removes what claimants left that died while they claimed. Safe at any time: a claimant whose unfinished file is
    /// taken away fails to link it, learns nothing, and asks again.
    pub fn sweep(&self) -> Result<usize, ArbiterError> {
        let fault = |errno: Errno| ArbiterError::Io { path: self.path.clone(), source: errno.into() };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        let mut removed = 0;
        for name in self.names()?.iter().filter(|name| name.starts_with(UNFINISHED)) {
            match rustix::fs::statat(&*self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if now.saturating_sub(stat.st_mtime) > UNFINISHED_AGE_MAX.as_secs() as i64 => {
                    self.remove(name)?;
                    removed += 1;
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(fault(errno)),
            }
        }
        Ok(removed)
    }

    /// A thread that answers claims through `events`, so that storage that hangs does not hang the VM.
    pub fn spawn(self, claimant: Claimant, events: Sender<Event>) -> io::Result<Sender<Generation>> {
        let (claims, inbox) = channel::<Generation>();
        let mut claimant = claimant;
        std::thread::Builder::new().name("arbiter".into()).spawn(move || {
            while let Ok(generation) = inbox.recv() {
                let verdict = self.answer(&claimant, generation);
                if verdict == Verdict::Won {
                    claimant.known.push((generation, claimant.holder.clone()));
                }
                tracing::info!(%generation, ?verdict, "the arbiter has answered");
                if events.send(Event::Verdict(generation, verdict)).is_err() {
                    return;
                }
            }
        })?;
        Ok(claims)
    }

    fn answer(&self, claimant: &Claimant, generation: Generation) -> Verdict {
        let Some(claim) = claimant.claim(generation) else {
            tracing::error!(%generation, "nothing is known of who holds the generation before: not claimed");
            return Verdict::Unreachable;
        };
        match self.claim(&claim) {
            Ok(Decision::Won) => Verdict::Won,
            Ok(Decision::Lost { .. }) => Verdict::Lost,
            Ok(Decision::Elsewhere) => Verdict::Unreachable,
            Err(error) => {
                tracing::warn!(%error, "the arbiter cannot be reached: waiting");
                Verdict::Unreachable
            }
        }
    }
}

impl Arbiter for FileArbiter {
    type Error = ArbiterError;

    fn claim(&mut self, wanted: &Claim) -> Result<Decision, ArbiterError> {
        Self::claim(self, wanted)
    }

    fn newest(&mut self, vm: &str) -> Result<Option<Claim>, ArbiterError> {
        Self::newest(self, vm)
    }

    fn standing(&mut self, vm: &str, generation: Generation) -> Result<Option<Claim>, ArbiterError> {
        Self::standing(self, vm, generation)
    }
}

fn hold(folder: &Path) -> Result<OwnedFd, ArbiterError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, folder, flags, Mode::empty())
        .map_err(|errno| ArbiterError::Io { path: folder.into(), source: errno.into() })
}

#[cfg(test)]
mod tests;
