//! The arbiter's folder: who wins, and where nothing is decided.

use super::*;

/// A claim that follows one of the same holder.
fn claim(holder: &str, generation: u64) -> Claim {
    claim_after(holder, generation, holder)
}

fn claim_after(holder: &str, generation: u64, before: &str) -> Claim {
    let after = (generation > 1).then(|| before.into());
    let (generation, secret) = (Generation(generation), Secret([1; 32]));
    Claim { vm: "vm".into(), generation, holder: holder.into(), after, secret }
}

fn made(folder: &Path) -> FileArbiter {
    FileArbiter::init(folder).expect("room");
    FileArbiter::open(folder).expect("usable")
}

#[test]
fn a_replica_that_slept_through_the_end_wins_nothing_and_the_vm_starts_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut arbiter = made(folder.path());
    assert_eq!(arbiter.claim(&claim("a", 1)).expect("reachable"), Decision::Won);
    for _ in 0..2 {
        arbiter.end("vm", Generation(1), "a").expect("an end twice is one end");
    }
    assert!(matches!(arbiter.claim(&claim_after("b", 2, "a")), Ok(Decision::Lost { .. })));
    let newest = arbiter.newest("vm").expect("reachable").expect("ended");
    assert_eq!(pollux_arbiter::first_generation(Some(&newest)), Ok(Generation(3)));
}

#[test]
fn who_ends_spends_the_generation_after_its_own_and_nobody_elses() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut arbiter = made(folder.path());
    for claim in [claim("a", 1), claim_after("b", 2, "a")] {
        assert_eq!(arbiter.claim(&claim).expect("reachable"), Decision::Won);
    }
    arbiter.end("vm", Generation(2), "c").expect("reachable");
    arbiter.end("vm", Generation(1), "a").expect("reachable");
    let newest = arbiter.newest("vm").expect("reachable");
    assert_eq!(newest, Some(claim_after("b", 2, "a")), "b runs on");
    arbiter.end("vm", Generation(2), "b").expect("reachable");
    let newest = arbiter.newest("vm").expect("reachable");
    assert_eq!(newest, Some(Claim::end("vm", Generation(2), "b")));
}

#[test]
fn an_end_goes_behind_a_claim_of_the_same_holder_whose_answer_was_never_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut arbiter = made(folder.path());
    for generation in [1, 2] {
        assert_eq!(arbiter.claim(&claim("a", generation)).expect("reachable"), Decision::Won);
    }
    arbiter.end("vm", Generation(1), "a").expect("reachable");
    let newest = arbiter.newest("vm").expect("reachable");
    assert_eq!(newest, Some(Claim::end("vm", Generation(2), "a")));
}

#[test]
fn a_generation_that_has_no_next_one_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    let last = encode(&claim("a", u64::MAX));
    std::fs::write(folder.path().join(format!("vm.generation-{}", u64::MAX)), last).expect("room");
    let error = arbiter.newest("vm").expect_err("no VM gets there");
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn of_many_who_claim_a_generation_at_once_exactly_one_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    for generation in 1..20 {
        let before = arbiter.newest("vm").expect("reachable").map(|claim| claim.holder);
        let before = before.unwrap_or_default();
        let verdicts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let (arbiter, before) = (&arbiter, &before);
                    scope.spawn(move || {
                        let claim = claim_after(&format!("host{n}"), generation, before);
                        arbiter.claim(&claim).expect("reachable")
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).collect()
        });
        assert_eq!(verdicts.iter().filter(|v| **v == Decision::Won).count(), 1, "{verdicts:?}");
    }
    let newest = arbiter.newest("vm").expect("reachable").expect("claimed");
    assert_eq!(newest.generation, Generation(19));
}

#[test]
fn a_holder_that_asks_again_wins_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    for _ in 0..2 {
        assert_eq!(arbiter.claim(&claim("a", 1)).expect("reachable"), Decision::Won);
    }
    assert!(matches!(arbiter.claim(&claim("b", 1)), Ok(Decision::Lost { .. })));
}

#[test]
fn a_damaged_claim_lets_nobody_win() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    std::fs::write(folder.path().join("vm.generation-1"), b"garbage").expect("room");
    let error = arbiter.claim(&claim("a", 1)).expect_err("damaged");
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn nothing_but_init_makes_an_arbiter_and_it_stays_the_one_that_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sub");
    assert!(FileArbiter::open(&path).is_err());
    assert!(!path.exists(), "not made silently");
    std::fs::create_dir(&path).expect("room");
    let error = FileArbiter::open(&path).expect_err("an empty folder, as where a mount is missing");
    assert!(error.to_string().contains("pollux arbiter init"), "{error}");
    assert_eq!(std::fs::read_dir(&path).expect("there").count(), 0);
    let id = FileArbiter::init(&path).expect("room");
    assert_eq!(FileArbiter::init(&path).expect("again"), id);
    assert_eq!(FileArbiter::open(&path).expect("usable").id(), id);
    let other = made(folder.path());
    assert_ne!(other.id(), id);
}

#[test]
fn an_arbiter_is_a_place_and_not_a_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let [path, aside] = ["arbiter", "aside"].map(|name| folder.path().join(name));
    let arbiter = made(&path);
    assert_eq!(arbiter.claim(&claim("a", 1)).expect("reachable"), Decision::Won);
    // What a mount that goes away, or another that comes, does to a path.
    std::fs::rename(&path, &aside).expect("moved");
    let other = made(&path);
    assert_eq!(arbiter.claim(&claim_after("b", 2, "a")).expect("reachable"), Decision::Won);
    assert_eq!(other.newest("vm").expect("reachable"), None, "not where the path leads now");
    assert!(aside.join("vm.generation-2").exists());
    std::fs::remove_dir_all(&aside).expect("removed");
    assert!(arbiter.claim(&claim_after("a", 3, "b")).is_err(), "a folder that is gone");
    assert!(!aside.exists());
}

#[test]
fn a_claim_is_decided_only_where_the_one_before_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    let nowhere = |claim: &Claim| {
        assert_eq!(arbiter.claim(claim).expect("reachable"), Decision::Elsewhere);
    };
    nowhere(&claim_after("b", 2, "a"));
    assert_eq!(arbiter.claim(&claim("c", 1)).expect("reachable"), Decision::Won);
    nowhere(&claim_after("b", 2, "a"));
    nowhere(&claim("c", 3));
    std::fs::remove_file(folder.path().join("vm.generation-1")).expect("emptied");
    nowhere(&claim("c", 2));
    assert_eq!(arbiter.newest("vm").expect("reachable"), None, "nothing was claimed");
}

#[test]
fn a_folder_that_got_another_marker_decides_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    std::fs::remove_file(folder.path().join(MARKER)).expect("there");
    assert!(matches!(arbiter.claim(&claim("a", 1)), Err(ArbiterError::NoMarker { .. })));
    FileArbiter::init(folder.path()).expect("room");
    assert!(matches!(arbiter.claim(&claim("a", 1)), Err(ArbiterError::AnotherArbiter { .. })));
}

#[test]
fn a_vm_whose_name_begins_like_anothers_claims_is_not_forgotten_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    let other = Claim { vm: "vm.generation-1".into(), ..claim("b", 1) };
    for claim in [&claim("a", 1), &claim("a", 2), &other] {
        assert_eq!(arbiter.claim(claim).expect("reachable"), Decision::Won);
    }
    std::fs::write(folder.path().join("vm.generation-+7"), b"no claim").expect("room");
    assert_eq!(arbiter.newest("vm").expect("reachable"), Some(claim("a", 2)));
    assert_eq!(arbiter.forget("vm").expect("reachable"), 2);
    assert_eq!(arbiter.newest(&other.vm).expect("reachable"), Some(other));
}

#[test]
fn what_dead_claimants_left_is_swept_and_what_live_ones_write_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = made(folder.path());
    let [old, new] = ["1", "2"].map(|n| folder.path().join(format!("{UNFINISHED}vm.generation-{n}")));
    let age = UNFINISHED_AGE_MAX + Duration::from_secs(60);
    let then = std::time::SystemTime::now().checked_sub(age).expect("later than 1970");
    File::create(&old).and_then(|file| file.set_modified(then)).expect("room");
    File::create(&new).expect("room");
    assert_eq!(arbiter.claim(&claim("a", 1)).expect("reachable"), Decision::Won);
    assert_eq!(arbiter.sweep().expect("reachable"), 1);
    assert!(!old.exists() && new.exists() && folder.path().join("vm.generation-1").exists());
}

/// A folder that loses its marker when nobody is to reach it.
struct Lab(tempfile::TempDir);

impl pollux_arbiter::conformance::Place for Lab {
    type Host = FileArbiter;

    fn host(&mut self) -> FileArbiter {
        FileArbiter::open(self.0.path()).expect("usable")
    }

    fn set_reachable(&mut self, reachable: bool) {
        let [here, aside] = [MARKER, "aside"].map(|name| self.0.path().join(name));
        let (from, to) = if reachable { (aside, here) } else { (here, aside) };
        std::fs::rename(from, to).expect("moved");
    }
}

#[test]
fn a_folder_is_an_arbiter_like_every_other() {
    pollux_arbiter::conformance::check(|| {
        let folder = tempfile::tempdir().expect("a folder");
        FileArbiter::init(folder.path()).expect("room");
        Lab(folder)
    });
}
