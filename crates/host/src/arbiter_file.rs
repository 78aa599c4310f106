//! The arbiter on storage that both hosts reach: a folder with one file per generation.
//!
//! The atomic test-and-set is `link(2)` of a complete, synced temporary file to the generation's name: it fails
//! with `EEXIST` if the name exists, on a local file system and on every version of NFS (where `O_EXCL` needs v3
//! and `rename` would replace). An NFS reply that was lost makes a successful `link` look like `EEXIST`, so the
//! winner is always decided by *reading* the file: whoever's identity stands in it has won. A name once given is
//! never removed by a running VM, so nobody wins a generation twice.
//!
//! Every call may hang on a dead server; [`FileArbiter::spawn`] therefore answers through an event, and the
//! protocol treats no answer as "unreachable: wait".

use pollux_arbiter::{Claim, Decision, GENERATION_MAX, decide, decode, encode};
use pollux_node::Event;
use pollux_protocol::Verdict;
use pollux_vocab::Generation;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

/// A folder of claims.
#[derive(Clone, Debug)]
pub struct FileArbiter {
    folder: PathBuf,
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
        "the claim file {path} is damaged ({what}); nothing will run while it is. If no instance of the VM runs anywhere, remove it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl FileArbiter {
    /// Uses `folder`, made if it is not there.
    pub fn open(folder: &Path) -> Result<Self, ArbiterError> {
        fs::create_dir_all(folder).map_err(|source| ArbiterError::Io { path: folder.into(), source })?;
        Ok(Self { folder: folder.into() })
    }

    fn path_of(&self, vm: &str, generation: Generation) -> PathBuf {
        self.folder.join(format!("{vm}.generation-{generation}"))
    }

    /// The highest generation anybody has ever held, if any.
    pub fn newest(&self, vm: &str) -> Result<Option<(Generation, Claim)>, ArbiterError> {
        let fault = |source| ArbiterError::Io { path: self.folder.clone(), source };
        let prefix = format!("{vm}.generation-");
        let mut newest = None;
        for entry in fs::read_dir(&self.folder).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix(&prefix)).and_then(|n| n.parse().ok());
            newest = newest.max(number.map(Generation));
        }
        match newest {
            None => Ok(None),
            Some(generation) if generation > GENERATION_MAX => Err(ArbiterError::Damaged {
                path: self.path_of(vm, generation),
                what: format!("no VM has come to generation {generation}"),
            }),
            Some(generation) => Ok(Some((generation, self.read(&self.path_of(vm, generation))?))),
        }
    }

    /// The claim on one generation, if anybody has made it. Asks the storage by name: a listing may come from a cache.
    pub fn standing(&self, vm: &str, generation: Generation) -> Result<Option<Claim>, ArbiterError> {
        match self.read(&self.path_of(vm, generation)) {
            Err(ArbiterError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn read(&self, path: &Path) -> Result<Claim, ArbiterError> {
        let bytes = fs::read(path).map_err(|source| ArbiterError::Io { path: path.into(), source })?;
        decode(&bytes).map_err(|e| ArbiterError::Damaged { path: path.into(), what: e.to_string() })
    }

    /// Test-and-set. May block for as long as the storage does.
    pub fn claim(&self, wanted: &Claim) -> Result<Verdict, ArbiterError> {
        let path = self.path_of(&wanted.vm, wanted.generation);
        let temporary = self.folder.join(format!(".{}.{}.{}", wanted.vm, wanted.generation, wanted.holder));
        let fault = |source| ArbiterError::Io { path: temporary.clone(), source };
        let mut file = fs::File::create(&temporary).map_err(fault)?;
        file.write_all(&encode(wanted)).and_then(|()| file.sync_all()).map_err(fault)?;
        let linked = fs::hard_link(&temporary, &path);
        let _ = fs::remove_file(&temporary);
        if let Err(source) = linked
            && source.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(ArbiterError::Io { path, source });
        }
        Ok(match decide(&self.read(&path)?, wanted) {
            // Also for a name that was there already: it may be this holder's, from a call that could not sync it.
            Decision::Won => {
                self.sync_folder()?;
                Verdict::Won
            }
            Decision::Lost { holder } => {
                tracing::info!(vm = wanted.vm, generation = %wanted.generation, %holder, "the generation is taken");
                Verdict::Lost
            }
        })
    }

    /// A VM that ran in generation `own` of `holder` has ended in good order: the next generation is nobody's, so
    /// that no replica that slept wins it. Whoever does not hold `own` ends nothing.
    pub fn end(&self, vm: &str, own: Generation, holder: &str) -> Result<(), ArbiterError> {
        let mut own = own;
        while self.read(&self.path_of(vm, own))?.holder == holder
            && self.claim(&Claim::end(vm, own))? != Verdict::Won
        {
            // Perhaps this holder's too: won by a claim whose answer came too late to matter.
            own = own.next();
        }
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), ArbiterError> {
        let synced = fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| ArbiterError::Io { path: self.folder.clone(), source })
    }

    /// Forgets every generation of `vm`. Only for a VM that runs nowhere: the caller asks a person first.
    pub fn forget(&self, vm: &str) -> Result<usize, ArbiterError> {
        let fault = |source| ArbiterError::Io { path: self.folder.clone(), source };
        let prefix = format!("{vm}.generation-");
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                fs::remove_file(entry.path()).map_err(fault)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// A thread that answers claims through `events`, so that storage that hangs does not hang the VM.
    pub fn spawn(self, vm: String, holder: String, events: Sender<Event>) -> io::Result<Sender<Generation>> {
        let (claims, inbox) = channel::<Generation>();
        std::thread::Builder::new().name("arbiter".into()).spawn(move || {
            while let Ok(generation) = inbox.recv() {
                let claim = Claim { vm: vm.clone(), generation, holder: holder.clone() };
                let verdict = self.claim(&claim).unwrap_or_else(|error| {
                    tracing::warn!(%error, "the arbiter cannot be reached: waiting");
                    Verdict::Unreachable
                });
                tracing::info!(%generation, ?verdict, "the arbiter has answered");
                if events.send(Event::Verdict(generation, verdict)).is_err() {
                    return;
                }
            }
        })?;
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(holder: &str, generation: u64) -> Claim {
        Claim { vm: "vm".into(), generation: Generation(generation), holder: holder.into() }
    }

    #[test]
    fn a_replica_that_slept_through_the_end_wins_nothing_and_the_vm_starts_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        assert_eq!(arbiter.claim(&claim("a", 1)).expect("reachable"), Verdict::Won);
        for _ in 0..2 {
            arbiter.end("vm", Generation(1), "a").expect("an end twice is one end");
        }
        assert_eq!(arbiter.claim(&claim("b", 2)).expect("reachable"), Verdict::Lost);
        let (_, newest) = arbiter.newest("vm").expect("reachable").expect("ended");
        assert_eq!(pollux_arbiter::first_generation(Some(&newest)), Ok(Generation(3)));
    }

    #[test]
    fn who_ends_spends_the_generation_after_its_own_and_nobody_elses() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        for (holder, generation) in [("a", 1), ("b", 2)] {
            assert_eq!(arbiter.claim(&claim(holder, generation)).expect("reachable"), Verdict::Won);
        }
        arbiter.end("vm", Generation(2), "c").expect("reachable");
        arbiter.end("vm", Generation(1), "a").expect("reachable");
        let newest = arbiter.newest("vm").expect("reachable").map(|(_, claim)| claim);
        assert_eq!(newest, Some(claim("b", 2)), "b runs on");
        arbiter.end("vm", Generation(2), "b").expect("reachable");
        let newest = arbiter.newest("vm").expect("reachable").map(|(_, claim)| claim);
        assert_eq!(newest, Some(Claim::end("vm", Generation(2))));
    }

    #[test]
    fn an_end_goes_behind_a_claim_of_the_same_holder_whose_answer_was_never_heard() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        for generation in [1, 2] {
            assert_eq!(arbiter.claim(&claim("a", generation)).expect("reachable"), Verdict::Won);
        }
        arbiter.end("vm", Generation(1), "a").expect("reachable");
        let newest = arbiter.newest("vm").expect("reachable").map(|(_, claim)| claim);
        assert_eq!(newest, Some(Claim::end("vm", Generation(2))));
    }

    #[test]
    fn a_generation_that_has_no_next_one_is_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        let last = encode(&claim("a", u64::MAX));
        fs::write(folder.path().join(format!("vm.generation-{}", u64::MAX)), last).expect("room");
        let error = arbiter.newest("vm").expect_err("no VM gets there");
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn of_many_who_claim_a_generation_at_once_exactly_one_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        for generation in 1..20 {
            let verdicts: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|n| {
                        let arbiter = &arbiter;
                        scope.spawn(move || {
                            arbiter.claim(&claim(&format!("host{n}"), generation)).expect("reachable")
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().expect("no panic")).collect()
            });
            assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Won).count(), 1, "{verdicts:?}");
        }
        let (newest, _) = arbiter.newest("vm").expect("reachable").expect("claimed");
        assert_eq!(newest, Generation(19));
    }

    #[test]
    fn a_holder_that_asks_again_wins_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        for _ in 0..2 {
            assert_eq!(arbiter.claim(&claim("a", 1)).expect("reachable"), Verdict::Won);
        }
        assert_eq!(arbiter.claim(&claim("b", 1)).expect("reachable"), Verdict::Lost);
    }

    #[test]
    fn a_damaged_claim_lets_nobody_win() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        fs::write(folder.path().join("vm.generation-1"), b"garbage").expect("room");
        let error = arbiter.claim(&claim("a", 1)).expect_err("damaged");
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_and_not_a_win() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sub");
        let arbiter = FileArbiter::open(&path).expect("usable");
        fs::remove_dir_all(&path).expect("removed");
        assert!(arbiter.claim(&claim("a", 1)).is_err());
    }
}
