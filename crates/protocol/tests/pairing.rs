//! How a pair comes about: each rule by itself. Together, with faults at every step: `crates/sim/src/model/start`.

use pollux_protocol::pairing::{
    BackupAction, BackupInput, BackupStart, CONNECT_PATIENCE_NS, Disk, Found, Greeting,
    HANDSHAKE_PATIENCE_NS, Own, OwnDisk, Peer, PrimaryAction, PrimaryInput, PrimaryStart, Refusal,
    STRANGER_PATIENCE_NS, Terms, Word,
};
use pollux_protocol::{HostTime, Verdict};
use pollux_vocab::{Digest, Generation};

const T0: HostTime = HostTime(1_000);

fn greeting() -> Greeting {
    let (vm, holder, generation) = ("vm".into(), "a".into(), Generation(3));
    Greeting { vm, generation, arbiter: [1; 16], holder, nonce: [0; 32] }
}

fn terms() -> Terms {
    Terms {
        vm: "vm".into(),
        generation: Generation(3),
        ram_bytes: 4096,
        disks: vec![Disk { slot: 0, shared: false, bytes: 8, content_hash: Some(5) }],
        heartbeat_ns: 1,
        failure_ns: 2,
        snapshot_bytes: 10,
    }
}

fn disk() -> OwnDisk {
    OwnDisk { slot: 0, shared: false, read_only: false, bytes: 8, content_hash: Some(5) }
}

fn found() -> Found {
    Found { arbiter: [1; 16], holder: Some("a".into()), is_spent: false }
}

/// A primary's start with a backup, and what it does in answer to the inputs.
fn primary(inputs: &[PrimaryInput]) -> (PrimaryStart, Vec<PrimaryAction>) {
    let mut start = PrimaryStart::new(greeting(), Some(terms()), T0);
    let mut done: Vec<_> = std::iter::from_fn(|| start.poll_action()).collect();
    for input in inputs {
        start.handle(T0, input.clone());
        done.extend(std::iter::from_fn(|| start.poll_action()));
    }
    (start, done)
}

/// What leads a primary's start to its end.
fn primary_inputs() -> Vec<PrimaryInput> {
    vec![
        PrimaryInput::Connected,
        PrimaryInput::Claimed(Verdict::Won),
        PrimaryInput::Marked,
        PrimaryInput::Nonce([2; 32]),
        PrimaryInput::Heard(Word::Challenge { nonce: [3; 32], proof: [4; 32] }),
        PrimaryInput::Checked(Some([5; 32])),
        PrimaryInput::Heard(Word::Welcome),
        PrimaryInput::Sent,
        PrimaryInput::Heard(Word::Ready(Digest::default())),
        PrimaryInput::Compared(None),
        PrimaryInput::PluggedIn,
    ]
}

/// What leads a backup's start to its end.
fn backup_inputs() -> Vec<BackupInput> {
    vec![
        BackupInput::Heard(Word::Greet(greeting())),
        BackupInput::Looked(Ok(found())),
        BackupInput::Proved { nonce: [3; 32], proof: [4; 32] },
        BackupInput::Heard(Word::Proof([5; 32])),
        BackupInput::Checked(true),
        BackupInput::Heard(Word::Hello(terms())),
        BackupInput::Taken,
        BackupInput::Disks(vec![disk()]),
        BackupInput::Fits(Ok(())),
        BackupInput::Heard(Word::State { offset: 0, bytes: 6 }),
        BackupInput::Heard(Word::State { offset: 6, bytes: 4 }),
        BackupInput::Heard(Word::StateEnd(10)),
        BackupInput::Built { ram_bytes: 4096, read_only: vec![(0, false)] },
        BackupInput::PluggedIn,
        BackupInput::Digested(Digest::default()),
        BackupInput::Sent,
    ]
}

fn backup(inputs: &[BackupInput]) -> (BackupStart, Vec<BackupAction>) {
    let mut start = BackupStart::new(Own::default(), T0);
    let mut done = Vec::new();
    for input in inputs {
        start.handle(T0, input.clone());
        done.extend(std::iter::from_fn(|| start.poll_action()));
    }
    (start, done)
}

/// The backup's steps up to the one that is left out, and another input instead.
fn backup_until(steps: usize, last: BackupInput) -> Vec<BackupAction> {
    let mut inputs = backup_inputs();
    inputs.truncate(steps);
    inputs.push(last);
    backup(&inputs).1
}

fn refusal(actions: &[BackupAction]) -> &Refusal {
    match actions.last() {
        Some(BackupAction::GiveUp(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn says(actions: &[BackupAction]) -> Vec<&'static str> {
    let says = |action: &BackupAction| match action {
        BackupAction::Send(word) => Some(word.name()),
        _ => None,
    };
    actions.iter().filter_map(says).collect()
}

#[test]
fn two_sides_that_fit_become_a_pair() {
    let (start, done) = primary(&primary_inputs());
    assert_eq!(done.last(), Some(&PrimaryAction::Run));
    assert!(start.is_over());
    let (start, done) = backup(&backup_inputs());
    assert_eq!(done.last(), Some(&BackupAction::Back));
    assert!(start.is_over());
    assert_eq!(says(&done), ["Challenge", "Welcome", "Ready"]);
    let mut alone = PrimaryStart::new(greeting(), None, T0);
    alone.handle(T0, PrimaryInput::Claimed(Verdict::Won));
    alone.handle(T0, PrimaryInput::Marked);
    let done: Vec<_> = std::iter::from_fn(|| alone.poll_action()).collect();
    assert_eq!(done, [PrimaryAction::Claim(Generation(3)), PrimaryAction::Mark, PrimaryAction::Run]);
}

#[test]
fn a_backup_hears_of_a_generation_only_once_its_primary_has_won_it() {
    for verdict in [Verdict::Lost, Verdict::Unreachable] {
        let (_, done) = primary(&[PrimaryInput::Connected, PrimaryInput::Claimed(verdict)]);
        assert!(!done.iter().any(|action| matches!(action, PrimaryAction::Send(_))), "{done:?}");
    }
    let (_, done) = primary(&primary_inputs());
    let at = |which: fn(&PrimaryAction) -> bool| done.iter().position(which).expect("done");
    assert!(at(|a| matches!(a, PrimaryAction::Claim(_))) < at(|a| matches!(a, PrimaryAction::Send(_))));
}

#[test]
fn a_start_that_fails_after_it_has_asked_for_its_generation_spends_it_and_no_other() {
    let spends = PrimaryAction::Spend(Generation(3));
    for steps in 0..primary_inputs().len() {
        for fault in [PrimaryInput::Failed, PrimaryInput::Stop] {
            let mut inputs = primary_inputs();
            inputs.truncate(steps);
            inputs.extend([fault, PrimaryInput::Spent]);
            let (_, done) = primary(&inputs);
            let asked = done.iter().any(|action| matches!(action, PrimaryAction::Claim(_)));
            assert_eq!(done.contains(&spends), asked, "after {steps} steps: {done:?}");
            assert!(matches!(done.last(), Some(PrimaryAction::GiveUp(_))), "{done:?}");
            assert!(!done.contains(&PrimaryAction::Run));
        }
    }
    let (_, done) = primary(&[PrimaryInput::Connected, PrimaryInput::Claimed(Verdict::Lost)]);
    assert!(!done.contains(&spends), "it is somebody else's");
    let (_, done) = primary(&[PrimaryInput::Connected, PrimaryInput::Claimed(Verdict::Unreachable)]);
    assert_eq!(done.last(), Some(&spends), "it may have been given, and the answer lost");
}

#[test]
fn a_backup_that_is_not_there_yet_is_tried_again_for_a_while() {
    let mut start = PrimaryStart::new(greeting(), Some(terms()), T0);
    let (mut now, mut tries) = (T0, 0);
    let last = loop {
        match start.poll_action() {
            Some(PrimaryAction::Connect) => {
                tries += 1;
                start.handle(now, PrimaryInput::NotConnected);
            }
            Some(other) => break other,
            None => {
                now = start.deadline().expect("it is waited for until then");
                start.handle(now, PrimaryInput::Tick);
            }
        }
    };
    assert_eq!(last, PrimaryAction::GiveUp(Refusal::NotReached), "nothing was claimed");
    assert!(now.since(T0) >= CONNECT_PATIENCE_NS && now.since(T0) < 2 * CONNECT_PATIENCE_NS);
    assert!(tries > 100, "{tries}");
}

#[test]
fn who_has_not_proven_itself_hears_a_challenge_and_nothing_else_whatever_is_wrong_with_it() {
    let wrong = [
        Err("unreachable".into()),
        Ok(Found { arbiter: [9; 16], ..found() }),
        Ok(Found { holder: None, ..found() }),
        Ok(Found { holder: Some("b".into()), ..found() }),
        Ok(Found { is_spent: true, ..found() }),
    ];
    for found in wrong {
        let greet = BackupInput::Heard(Word::Greet(greeting()));
        let proved = BackupInput::Proved { nonce: [3; 32], proof: [4; 32] };
        let proof = BackupInput::Heard(Word::Proof([5; 32]));
        let (_, done) = backup(&[greet, BackupInput::Looked(found), proved, proof]);
        assert!(matches!(done[1], BackupAction::Prove { known: false, .. }), "with another secret: {done:?}");
        assert_eq!(says(&done), ["Challenge"]);
        assert!(matches!(refusal(&done), Refusal::Stranger(Peer::Primary, Some(_))), "{done:?}");
    }
    let done = backup_until(4, BackupInput::Checked(false));
    assert_eq!(says(&done), ["Challenge"]);
    assert_eq!(refusal(&done), &Refusal::Stranger(Peer::Primary, None));
    for steps in 0..5 {
        for fault in [BackupInput::Unfit("a disk".into()), BackupInput::Stop, BackupInput::Failed] {
            let done = backup_until(steps, fault);
            assert!(!says(&done).contains(&"Refuse"), "after {steps} steps: {done:?}");
        }
    }
    let other = Word::Hello(Terms { vm: "other".into(), ..terms() });
    assert_eq!(says(&backup_until(5, BackupInput::Heard(other))), ["Challenge"], "it has proven another VM");
}

#[test]
fn a_primary_says_nothing_of_its_machine_before_the_backup_has_proven_itself() {
    let mut inputs = primary_inputs();
    inputs.truncate(5);
    inputs.push(PrimaryInput::Checked(None));
    let (_, done) = primary(&inputs);
    let said = done.iter().filter(|action| matches!(action, PrimaryAction::Send(_))).count();
    assert_eq!(said, 1, "a greeting: {done:?}");
    let (mut start, _) = primary(&inputs);
    start.handle(T0, PrimaryInput::Spent);
    assert_eq!(start.poll_action(), Some(PrimaryAction::GiveUp(Refusal::Stranger(Peer::Backup, None))));
}

#[test]
fn whoever_waits_for_its_peer_has_a_deadline_and_leaves_when_it_comes() {
    for steps in 0..primary_inputs().len() {
        let (mut start, _) = primary(&primary_inputs()[..steps]);
        if !matches!(primary_inputs()[steps], PrimaryInput::Heard(_) | PrimaryInput::Sent) {
            continue;
        }
        let deadline = start.deadline().expect("it waits for its peer");
        assert!(deadline.since(T0) <= HANDSHAKE_PATIENCE_NS);
        start.handle(HostTime(deadline.0 - 1), PrimaryInput::Tick);
        assert_eq!(start.poll_action(), None, "not before");
        start.handle(deadline, PrimaryInput::Tick);
        assert_eq!(start.poll_action(), Some(PrimaryAction::Spend(Generation(3))));
        start.handle(deadline, PrimaryInput::Spent);
        assert_eq!(start.poll_action(), Some(PrimaryAction::GiveUp(Refusal::TooLate)));
    }
    for steps in 0..backup_inputs().len() {
        let (mut start, _) = backup(&backup_inputs()[..steps]);
        if !matches!(backup_inputs()[steps], BackupInput::Heard(_) | BackupInput::Sent) {
            continue;
        }
        let deadline = start.deadline().expect("it waits for its peer");
        let most = if steps < 5 { STRANGER_PATIENCE_NS } else { HANDSHAKE_PATIENCE_NS };
        assert!(deadline.since(T0) <= most, "after {steps} steps");
        start.handle(deadline, BackupInput::Tick);
        assert_eq!(start.poll_action(), Some(BackupAction::GiveUp(Refusal::TooLate)), "after {steps} steps");
    }
}

#[test]
fn what_a_stranger_sends_does_not_lengthen_its_time() {
    let mut start = BackupStart::new(Own::default(), T0);
    let deadline = start.deadline();
    let later = T0.after(STRANGER_PATIENCE_NS - 1);
    for input in &backup_inputs()[..4] {
        start.handle(later, input.clone());
        assert_eq!(start.deadline(), deadline, "{input:?}");
    }
}

#[test]
fn a_backup_that_fails_before_it_is_ready_says_why_and_does_not_back_up() {
    for steps in 6..15 {
        let done = backup_until(steps, BackupInput::Unfit("no network card".into()));
        assert_eq!(says(&done).last(), Some(&"Refuse"), "after {steps} steps: {done:?}");
        assert_eq!(refusal(&done), &Refusal::Unfit("no network card".into()));
    }
    let (_, done) = backup(&backup_inputs());
    let at = |which: fn(&BackupAction) -> bool| done.iter().position(which).expect("done");
    let ready = at(|a| matches!(a, BackupAction::Send(Word::Ready(_))));
    assert!(at(|a| matches!(a, BackupAction::PlugIn)) < ready, "after all that may fail");
    let (_, unsaid) = backup(&backup_inputs()[..15]);
    assert!(!unsaid.contains(&BackupAction::Back), "a last word that has not left is none");
}

#[test]
fn a_primary_runs_only_beside_a_backup_that_holds_the_same_machine() {
    let mut inputs = primary_inputs();
    inputs.truncate(9);
    inputs.extend([PrimaryInput::Compared(Some("page 7".into())), PrimaryInput::Spent]);
    let (_, done) = primary(&inputs);
    assert_eq!(done.last(), Some(&PrimaryAction::GiveUp(Refusal::Unequal("page 7".into()))));
    let refused = PrimaryInput::Heard(Word::Refuse("not today".into()));
    for steps in [4, 6, 8] {
        let mut inputs = primary_inputs();
        inputs.truncate(steps);
        inputs.extend([refused.clone(), PrimaryInput::Spent]);
        let (_, done) = primary(&inputs);
        assert_eq!(done.last(), Some(&PrimaryAction::GiveUp(Refusal::Refused("not today".into()))));
    }
}

#[test]
fn a_machine_that_this_side_does_not_expect_is_refused_before_it_is_taken() {
    let refused = |terms: Terms, own: Own, disks: Vec<OwnDisk>| {
        let mut start = BackupStart::new(own, T0);
        let mut inputs = backup_inputs();
        inputs.truncate(7);
        inputs[5] = BackupInput::Heard(Word::Hello(terms));
        inputs.push(BackupInput::Disks(disks));
        inputs.into_iter().for_each(|input| start.handle(T0, input));
        let done: Vec<_> = std::iter::from_fn(|| start.poll_action()).collect();
        assert!(!says(&done).contains(&"Welcome"), "{done:?}");
        refusal(&done).to_string()
    };
    let small = Own { ram: Some((512, "512".into())) };
    assert!(refused(terms(), small, vec![disk()]).contains("--memory 512"));
    let hasty = Terms { heartbeat_ns: 2, failure_ns: 3, ..terms() };
    assert!(refused(hasty, Own::default(), vec![disk()]).contains("make no sense"));
    assert!(refused(terms(), Own::default(), vec![]).contains("no --disk"));
    let done = backup_until(8, BackupInput::Fits(Err("no room".into())));
    assert_eq!(says(&done), ["Challenge", "Refuse"]);
}

#[test]
fn a_snapshot_is_taken_whole_and_in_order_and_is_of_the_machine_that_was_offered() {
    for (steps, input) in [
        (9, BackupInput::Heard(Word::State { offset: 1, bytes: 6 })),
        (9, BackupInput::Heard(Word::State { offset: 0, bytes: 11 })),
        (10, BackupInput::Heard(Word::State { offset: 6, bytes: 5 })),
        (10, BackupInput::Heard(Word::StateEnd(10))),
        (11, BackupInput::Heard(Word::StateEnd(11))),
        (12, BackupInput::Built { ram_bytes: 8192, read_only: vec![(0, false)] }),
        (12, BackupInput::Built { ram_bytes: 4096, read_only: vec![(0, true)] }),
    ] {
        let done = backup_until(steps, input.clone());
        assert_eq!(says(&done), ["Challenge", "Welcome", "Refuse"], "{input:?}");
        assert!(!done.contains(&BackupAction::PlugIn), "{input:?}");
    }
}

#[test]
fn a_peer_out_of_step_is_left() {
    for steps in [0, 3, 5, 9] {
        let done = backup_until(steps, BackupInput::Heard(Word::Other("Records")));
        assert!(matches!(refusal(&done), Refusal::OutOfStep { got: "Records", .. }), "{done:?}");
    }
    let mut inputs = primary_inputs();
    inputs.truncate(6);
    inputs.push(PrimaryInput::Heard(Word::Ready(Digest::default())));
    let (mut start, _) = primary(&inputs);
    start.handle(T0, PrimaryInput::Spent);
    let out = Refusal::OutOfStep { expected: "Welcome", got: "Ready" };
    assert_eq!(start.poll_action(), Some(PrimaryAction::GiveUp(out)));
}
