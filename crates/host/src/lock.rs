//! Locks on files that this process uses alone.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::time::{Duration, Instant};

/// Who still has the lock after this keeps it.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
/// How often it is tried.
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Takes the lock, or finds that somebody else has it and keeps it: a process that is being started has copies of its
/// parent's descriptors, and with them locks that the parent has given up, until it executes its own program.
pub(crate) fn lock_soon(file: &File, lock: FlockOperation) -> Result<(), Errno> {
    let begun = Instant::now();
    loop {
        match flock(file, lock) {
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_LOOK_EVERY),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_about_to_be_given_up_is_waited_for_and_one_that_is_kept_is_not() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = || File::open(file.path()).expect("it is there");
        let (held, wanted) = (open(), open());
        flock(&held, FlockOperation::NonBlockingLockExclusive).expect("free");
        let kept = lock_soon(&wanted, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(kept, Err(Errno::WOULDBLOCK));
        let giving_up = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            drop(held);
        });
        assert_eq!(lock_soon(&wanted, FlockOperation::NonBlockingLockExclusive), Ok(()));
        giving_up.join().expect("no panic");
    }
}
