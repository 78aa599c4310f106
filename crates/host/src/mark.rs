//! Marks of disk images: whose an image is, and in which generation of that VM it was last written to.
//!
//! A host that dies leaves an image behind that is whole, boots, and is old: the VM has gone on elsewhere. Started by
//! mistake, it would be the same VM a second time, with the same addresses. An image that a VM under an arbiter may
//! write to therefore carries a mark, and a start compares it: with no arbiter the image is refused, and under one it
//! must be of the VM's last life.
//!
//! A mark is a file beside the image, `IMAGE.pollux`, and no extended attribute: it works on every file system that
//! holds images (NFS, tmpfs and FAT have no attributes of users), people can read and remove it, and a copy of an
//! image is nobody's until it runs. Symbolic links to an image lead to one mark. A block device has no place for one.
//!
//! Invariant: a mark never names a later generation than the one its image was written in. It is written before a VM
//! runs under an arbiter, whole or not at all, and again by a thread of its own ([`Marker`]) when the generation has
//! changed: a disk that hangs holds up no takeover. One that was not written in time makes the image look older than
//! it is, which is refused and can be overridden, never newer.
//!
//! Not here: which generation may start (`pollux_arbiter`), equality of two images (`pairing`).

use crate::arbiter_file::random_bytes;
use pollux_vocab::Generation;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// What comes behind an image's name.
const SUFFIX: &str = ".pollux";
/// The form of marks that is written.
const VERSION: u32 = 1;
/// Longest mark that is read, in bytes: a name, an id and a path.
const MARK_BYTES_MAX: u64 = 16 << 10;

/// What an image's mark says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    version: u32,
    /// The VM.
    pub vm: String,
    /// The generation in which the image was last written to.
    pub generation: u64,
    /// The id of the arbiter that gave it.
    pub arbiter: String,
    /// Where that was reached: for people.
    pub folder: String,
}

/// A mark by name, as a person overrides it: `VM@GENERATION`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkName {
    /// The VM.
    pub vm: String,
    /// The generation.
    pub generation: u64,
}

impl fmt::Display for MarkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.vm, self.generation)
    }
}

impl std::str::FromStr for MarkName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once('@').and_then(|(vm, generation)| Some((vm, generation.parse().ok()?)));
        match parts {
            Some((vm, generation)) if pollux_arbiter::validate_name(vm).is_ok() => {
                Ok(Self { vm: vm.into(), generation })
            }
            _ => Err(format!("{text:?} names no mark; it is VM@GENERATION, as the refusal says it")),
        }
    }
}

/// How an image is about to be used.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// By a VM that nobody else knows of.
    Alone,
    /// By a VM that is to have this generation, which an arbiter has given to nobody yet.
    Under {
        /// The VM.
        vm: &'a str,
        /// The generation.
        generation: Generation,
        /// The arbiter's id.
        arbiter: &'a str,
    },
    /// By the backup of a VM whose primary answers for what the image holds.
    Beside {
        /// The VM.
        vm: &'a str,
        /// The arbiter's id.
        arbiter: &'a str,
    },
}

/// Why an image may not be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The host will not.
    #[error("cannot {verb} the mark {path}: {source}")]
    Io {
        /// Read, write or remove.
        verb: &'static str,
        /// The mark.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// It makes no sense.
    #[error(
        "the mark {path} is damaged ({what}); it says to which VM the disk image beside it belongs. If no instance of that VM runs anywhere and the image is its newest, remove the mark"
    )]
    Damaged {
        /// The mark.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It speaks against the start.
    #[error(
        "disk image {image} belongs to VM {} (generation {}, arbiter {}): {why}. {todo}; if you know that the VM runs nowhere and that this image is the one to go on with: --ignore-mark {}@{}",
        mark.vm, mark.generation, mark.folder, mark.vm, mark.generation
    )]
    Refused {
        /// The image.
        image: PathBuf,
        /// Its mark.
        mark: Box<Mark>,
        /// What is against it.
        why: String,
        /// What to do.
        todo: String,
    },
}

impl Mark {
    /// A mark to be written.
    #[must_use]
    pub fn new(vm: &str, generation: Generation, arbiter: &str, folder: &Path) -> Self {
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.into()).display().to_string();
        Self { version: VERSION, vm: vm.into(), generation: generation.0, arbiter: arbiter.into(), folder }
    }

    /// Why an image with this mark is not to be used like that, and what to do instead.
    fn objection(&self, start: Start<'_>) -> Option<(String, String)> {
        let folder = &self.folder;
        let (vm, generation, arbiter) = match start {
            Start::Alone => {
                let why = "another host may have taken the VM over, and this image be what it left behind";
                return Some((why.into(), format!("Start it with --arbiter {folder}")));
            }
            Start::Under { vm, generation, arbiter } => (vm, Some(generation.0), arbiter),
            Start::Beside { vm, arbiter } => (vm, None, arbiter),
        };
        if vm != self.vm {
            return Some((format!("it is not {vm}'s"), "Give each VM an image of its own".into()));
        }
        if arbiter != self.arbiter {
            let why = "this arbiter is another one, and knows nothing of where the VM has run".into();
            return Some((why, format!("Start it with --arbiter {folder}")));
        }
        let generation = generation?;
        match generation.checked_sub(self.generation) {
            // Its last life, whose end has spent one more generation.
            Some(1..=2) => None,
            None | Some(0) => {
                let why = format!(
                    "the arbiter has come to generation {generation} only: it was told to forget the VM"
                );
                Some((why, "Look for the image with the highest generation among the VM's hosts".into()))
            }
            Some(_) => {
                let why = format!(
                    "the VM has run in later generations elsewhere (it would start in {generation}), and this image is older"
                );
                let todo = format!(
                    "Copy the newest image and the file {SUFFIX} beside it from the host that ran the VM last"
                );
                Some((why, todo))
            }
        }
    }
}

/// Where the mark of `image` is; `None` for what has no place for one: a block device.
fn place(image: &Path) -> io::Result<Option<PathBuf>> {
    let real = fs::canonicalize(image)?;
    if !real.metadata()?.is_file() {
        return Ok(None);
    }
    let mut name = real.into_os_string();
    name.push(SUFFIX);
    Ok(Some(name.into()))
}

fn fault<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> MarkError + 'a {
    move |source| MarkError::Io { verb, path: path.into(), source }
}

/// The mark of `image`, if it has one.
pub fn read(image: &Path) -> Result<Option<Mark>, MarkError> {
    let Some(path) = place(image).map_err(fault("look for", image))? else { return Ok(None) };
    let mut bytes = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened
            .and_then(|file| file.take(MARK_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(fault("read", &path))?,
    };
    let damaged = |what: String| MarkError::Damaged { path: path.clone(), what };
    if bytes.len() as u64 > MARK_BYTES_MAX {
        return Err(damaged(format!("it is longer than {MARK_BYTES_MAX} bytes")));
    }
    let mark: Mark = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if mark.version != VERSION {
        return Err(damaged(format!("it is of version {}", mark.version)));
    }
    Ok(Some(mark))
}

/// Marks `image`: whole, and on stable storage when this returns. False: there is no place for a mark.
pub fn write(image: &Path, mark: &Mark) -> Result<bool, MarkError> {
    let Some(path) = place(image).map_err(fault("look for", image))? else { return Ok(false) };
    let mut bytes = serde_json::to_vec(mark).unwrap_or_default();
    bytes.push(b'\n');
    put(&path, &bytes).map_err(fault("write", &path))?;
    Ok(true)
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Of its own: the other side of a shared image may write its mark, too.
    let salt = u64::from_le_bytes(random_bytes()?);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{salt:016x}"));
    let unfinished = PathBuf::from(name);
    let written = File::create_new(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    sync_folder_of(path)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Takes the mark of `image` away, if it has one.
pub fn remove(image: &Path) -> Result<(), MarkError> {
    let Some(path) = place(image).map_err(fault("look for", image))? else { return Ok(()) };
    match fs::remove_file(&path).and_then(|()| sync_folder_of(&path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// Refuses an image that is another VM's, or is not its VM's newest, as far as its mark says.
pub fn check(image: &Path, start: Start<'_>, ignored: &[MarkName]) -> Result<(), MarkError> {
    let Some(mark) = read(image)? else { return Ok(()) };
    let Some((why, todo)) = mark.objection(start) else { return Ok(()) };
    if ignored.iter().any(|name| name.vm == mark.vm && name.generation == mark.generation) {
        tracing::warn!(image = %image.display(), vm = mark.vm, generation = mark.generation, "its mark is ignored: {why}");
        return Ok(());
    }
    Err(MarkError::Refused { image: image.into(), mark: Box::new(mark), why, todo })
}

/// A thread that marks a VM's images, so that a disk that hangs holds up nothing else.
#[derive(Debug)]
pub struct Marker {
    wanted: Sender<Generation>,
    done: Receiver<Generation>,
}

impl Marker {
    /// For these images; `mark` says all but the generation.
    pub fn start(images: Vec<PathBuf>, mark: Mark) -> io::Result<Self> {
        let (wanted, inbox) = channel::<Generation>();
        let (outbox, done) = channel();
        std::thread::Builder::new().name("marks".into()).spawn(move || {
            for generation in inbox {
                let mark = Mark { generation: generation.0, ..mark.clone() };
                images.iter().for_each(|image| mark_one(image, &mark));
                if outbox.send(generation).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { wanted, done })
    }

    /// The images are being written in this generation from now on.
    pub fn mark(&self, generation: Generation) {
        let _ = self.wanted.send(generation);
    }

    /// Waits for the mark of this generation; false if it is not there in time.
    #[must_use]
    pub fn wait(&self, generation: Generation, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            match self.done.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(done) if done >= generation => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Waits for all that was wanted.
    pub fn finish(self, patience: Duration) {
        drop(self.wanted);
        let deadline = Instant::now() + patience;
        while self.done.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

/// A mark that cannot be written is no reason to stop a VM, or to leave it without protection.
fn mark_one(image: &Path, mark: &Mark) {
    // The other side of a shared image may have been faster, and be in a later generation.
    let is_later =
        |old: &Mark| (&old.vm, &old.arbiter) == (&mark.vm, &mark.arbiter) && old.generation > mark.generation;
    if matches!(read(image), Ok(Some(old)) if is_later(&old)) {
        return;
    }
    match write(image, mark) {
        Ok(true) => {}
        Ok(false) => tracing::info!(
            image = %image.display(),
            "a block device has no place for a mark: nothing keeps it from being started without its arbiter"
        ),
        Err(error) => tracing::warn!(
            %error,
            "the disk image is not marked: nothing keeps it from being started without its arbiter"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "a1";

    fn image(folder: &Path) -> PathBuf {
        let image = folder.join("disk.img");
        fs::write(&image, [0; 512]).expect("room");
        image
    }

    fn mark(generation: u64) -> Mark {
        Mark::new("vm", Generation(generation), HERE, Path::new("/srv/arbiter"))
    }

    fn under(generation: u64) -> Start<'static> {
        Start::Under { vm: "vm", generation: Generation(generation), arbiter: HERE }
    }

    #[test]
    fn an_image_is_refused_where_its_mark_says_that_it_is_old_or_somebody_elses_and_only_by_name_is_that_ignored()
     {
        let folder = tempfile::tempdir().expect("a folder");
        let image = image(folder.path());
        let said = |start, ignored: &[MarkName]| check(&image, start, ignored).err().map(|e| e.to_string());
        assert_eq!(said(Start::Alone, &[]), None, "it has no mark");
        assert!(write(&image, &mark(3)).expect("room"));
        let other = Start::Under { vm: "other", generation: Generation(4), arbiter: HERE };
        let elsewhere = Start::Under { vm: "vm", generation: Generation(4), arbiter: "b2" };
        for (start, wanted) in [
            (Start::Alone, "--arbiter /srv/arbiter"),
            (under(6), "older"),
            (under(3), "forget"),
            (under(1), "forget"),
            (other, "not other's"),
            (elsewhere, "another one"),
        ] {
            let refused = said(start, &[]).expect("refused");
            for word in [wanted, "disk.img", "--ignore-mark vm@3"] {
                assert!(refused.contains(word), "{word}: {refused}");
            }
            let names = |names: &[&str]| names.iter().map(|n| n.parse().expect("a name")).collect::<Vec<_>>();
            assert!(said(start, &names(&["vm@2", "other@3"])).is_some(), "another mark's name");
            assert_eq!(said(start, &names(&["vm@2", "vm@3"])), None);
        }
        for generation in 4..=5 {
            assert_eq!(said(under(generation), &[]), None, "its last life ended in good order");
        }
        let beside = |vm| Start::Beside { vm, arbiter: HERE };
        assert_eq!(said(beside("vm"), &[]), None);
        assert!(said(beside("other"), &[]).is_some());
        remove(&image).expect("ours");
        assert_eq!(said(Start::Alone, &[]), None);
        remove(&image).expect("already gone");
    }

    #[test]
    fn a_mark_is_whole_and_alone_and_one_for_all_names_of_an_image() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = image(folder.path());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&image, &link).expect("room");
        for generation in 1..4 {
            write(&link, &mark(generation)).expect("room");
        }
        assert_eq!(read(&image).expect("whole"), Some(mark(3)));
        let names = fs::read_dir(folder.path()).expect("there").count();
        assert_eq!(names, 3, "an image, its link, its mark");
        assert!(!write(Path::new("/dev/null"), &mark(1)).expect("no failure"), "a device has no place");
    }

    #[test]
    fn a_damaged_mark_is_refused_with_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = image(folder.path());
        let path = folder.path().join("disk.img.pollux");
        let good = serde_json::to_string(&mark(1)).expect("plain");
        let newer = good.replace("\"version\":1", "\"version\":2");
        for text in ["", "{}", &good[..good.len() / 2], &newer, &"x".repeat(1 << 20)] {
            fs::write(&path, text).expect("room");
            let error = check(&image, under(2), &[]).expect_err("refused").to_string();
            assert!(error.contains("disk.img.pollux") && error.contains("damaged"), "{error}");
        }
    }

    #[test]
    fn a_marker_never_goes_back_and_waits_only_for_so_long() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = image(folder.path());
        let marker = Marker::start(vec![image.clone()], mark(0)).expect("a thread");
        marker.mark(Generation(2));
        assert!(marker.wait(Generation(2), Duration::from_secs(20)));
        marker.mark(Generation(1));
        assert!(!marker.wait(Generation(3), Duration::from_millis(200)), "nobody wants that one");
        assert_eq!(read(&image).expect("whole"), Some(mark(2)), "the other side's is newer");
        // The folder is gone: said, and nothing else.
        drop(folder);
        marker.mark(Generation(5));
        marker.finish(Duration::from_secs(20));
    }

    #[test]
    fn a_marks_name_is_a_vm_and_a_generation() {
        let name: MarkName = "vm-1.x@7".parse().expect("a name");
        assert_eq!((name.vm.as_str(), name.generation), ("vm-1.x", 7));
        assert_eq!(name.to_string(), "vm-1.x@7");
        for text in ["", "vm", "vm@", "@3", "vm@x", "../vm@3", "vm@-1"] {
            assert!(text.parse::<MarkName>().is_err(), "{text}");
        }
    }
}
