//! Every rule of DESIGN section 5, one test each, each a sentence. A test here fails when its rule is removed.

use pollux_protocol::*;
use pollux_vocab::*;

const G1: Generation = Generation(1);
const G2: Generation = Generation(2);
/// The other replica.
const PEER: PeerId = PeerId(3);
const MS: u64 = 1_000_000;

/// The message, which must be one to the other replica.
fn to_peer(queued: Option<(PeerId, Message)>) -> Option<Message> {
    queued.map(|(to, message)| {
        assert_eq!(to, PEER);
        message
    })
}

fn at(ms: u64) -> HostTime {
    HostTime(ms * MS)
}

fn output(byte: u8) -> Output {
    Output::Console { console: ConsoleId::Uart, bytes: vec![byte] }
}

fn primary() -> Primary {
    Primary::new_protected(Settings::default(), G1, at(0), PEER)
}

/// A backup whose primary has said that it lives.
fn backup() -> Backup {
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_message(at(0), PEER, Message::Heartbeat { generation: G1 });
    b
}

fn record(lsn: u64, icount: u64, body: RecordBody) -> Record {
    Record { lsn: Lsn(lsn), icount: Icount(icount), body }
}

fn records(lsns: std::ops::RangeInclusive<u64>) -> Message {
    let records = lsns.map(|lsn| record(lsn, lsn * 10, RecordBody::Mark)).collect();
    Message::Records { generation: G1, released: Lsn(0), records }
}

fn ack(received: u64) -> Message {
    let (received, icount, time) = (Lsn(received), Icount(0), VirtTime(0));
    Message::Ack { generation: G1, received, executed: Lsn(0), icount, time, buffered_bytes: 0 }
}

fn commands(primary: &mut Primary) -> Vec<Command> {
    std::iter::from_fn(|| primary.poll_command()).collect()
}

fn backup_commands(backup: &mut Backup) -> Vec<BackupCommand> {
    std::iter::from_fn(|| backup.poll_command()).collect()
}

fn messages(primary: &mut Primary) -> Vec<Message> {
    std::iter::from_fn(|| to_peer(primary.poll_message())).collect()
}

/// Sends, and has sent by `now`.
fn messages_at(primary: &mut Primary, now: HostTime) -> Vec<Message> {
    let sent = messages(primary);
    primary.handle_sent(now);
    sent
}

/// A primary that holds one output covered by record 1, which has been sent.
fn primary_with_a_held_output() -> Primary {
    let mut p = primary();
    p.hold(at(1), Icount(100), output(1));
    p.flush(at(1), Icount(100), VirtTime(1000));
    p
}

#[test]
fn no_output_leaves_before_its_mark_is_acknowledged() {
    let mut p = primary_with_a_held_output();
    let sent = messages(&mut p);
    let Some(Message::Records { records, .. }) = sent.last() else { panic!("{sent:?}") };
    assert_eq!(records.last(), Some(&record(1, 100, RecordBody::Mark)), "the mark tells the output's icount");
    assert_eq!(p.poll_release(at(2)), None);
    p.handle_message(at(2), PEER, ack(0));
    assert_eq!(p.poll_release(at(2)), None, "an acknowledgement of less is none");
    p.handle_message(at(3), PEER, ack(1));
    assert_eq!(p.poll_release(at(3)), Some(output(1)));
}

#[test]
fn one_mark_covers_all_outputs_of_a_flush() {
    let mut p = primary();
    for byte in 0..10 {
        p.hold(at(1), Icount(100), output(byte));
    }
    p.flush(at(1), Icount(100), VirtTime(0));
    let marks = messages(&mut p)
        .iter()
        .filter(|m| matches!(m, Message::Records { records, .. } if records.len() == 1))
        .count();
    assert_eq!(marks, 1);
}

#[test]
fn the_vm_never_waits_for_an_acknowledgement() {
    let p = primary_with_a_held_output();
    assert_eq!(p.pace(at(2)), Pace::Run { share_permille: 1000 });
}

#[test]
fn a_solo_vm_releases_at_the_next_flush() {
    let mut p = Primary::new_solo(Settings::default(), G1, at(0), Lsn(1));
    p.hold(at(1), Icount(5), output(1));
    p.flush(at(1), Icount(5), VirtTime(0));
    assert_eq!(p.poll_release(at(1)), Some(output(1)));
}

#[test]
fn acknowledgements_are_given_on_receipt_not_on_execution() {
    let mut b = backup();
    b.handle_message(at(1), PEER, records(1..=3));
    let Some(Message::Ack { received, executed, .. }) = to_peer(b.poll_message()) else {
        panic!("an ack is due")
    };
    assert_eq!((received, executed), (Lsn(3), Lsn(0)));
}

#[test]
fn a_backup_goes_live_only_after_the_arbiter_says_so() {
    let mut b = backup();
    b.handle_link_lost(at(10), PEER);
    assert_eq!(backup_commands(&mut b), [BackupCommand::Claim(G2)]);
    b.handle_tick(at(5000));
    assert_eq!(backup_commands(&mut b), [BackupCommand::Claim(G2)], "waiting is not winning: it asks again");
    b.handle_arbiter(at(5001), G2, Verdict::Won);
    assert_eq!(backup_commands(&mut b), [BackupCommand::GoLive { generation: G2, next_lsn: Lsn(1) }]);
}

#[test]
fn a_backup_that_never_heard_its_primary_halts_and_claims_nothing() {
    let from_another_time = Message::Heartbeat { generation: Generation(0) };
    for by_silence in [false, true] {
        let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
        b.handle_message(at(1), PEER, from_another_time.clone());
        if by_silence {
            (0..=600).step_by(100).for_each(|ms| b.handle_tick(at(ms)));
        } else {
            b.handle_link_lost(at(10), PEER);
        }
        assert_eq!(backup_commands(&mut b), [BackupCommand::Halt(HaltReason::NeverHeard)]);
    }
    let mut b = backup();
    b.handle_link_lost(at(10), PEER);
    assert_eq!(backup_commands(&mut b), [BackupCommand::Claim(G2)], "one heartbeat is enough");
}

#[test]
fn going_live_replays_the_log_to_its_end_through_the_last_mark() {
    let mut b = backup();
    b.handle_message(at(1), PEER, records(1..=3));
    b.handle_link_lost(at(10), PEER);
    b.handle_arbiter(at(11), G2, Verdict::Won);
    assert_eq!(backup_commands(&mut b), [BackupCommand::Claim(G2)]);
    for lsn in 1..=3 {
        assert!(backup_commands(&mut b).is_empty(), "record {lsn} is still to be replayed");
        assert_eq!(b.next_record().map(|r| r.lsn), Some(Lsn(lsn)));
        b.pop_record();
    }
    assert_eq!(backup_commands(&mut b), [BackupCommand::GoLive { generation: G2, next_lsn: Lsn(4) }]);
}

#[test]
fn from_its_claim_on_a_backup_takes_nothing_in_and_acknowledges_nothing() {
    let mut b = backup();
    b.handle_message(at(1), PEER, records(1..=1));
    while to_peer(b.poll_message()).is_some() {}
    b.handle_tick(at(1000)); // silence, after a pause of its own: it listens first
    b.handle_tick(at(1140));
    b.handle_tick(at(1151));
    assert_eq!(backup_commands(&mut b), [BackupCommand::Claim(G2)]);
    b.handle_message(at(1152), PEER, records(2..=2));
    assert_eq!(
        to_peer(b.poll_message()),
        None,
        "a late record must not be acknowledged: it will not be replayed"
    );
    b.handle_arbiter(at(1153), G2, Verdict::Won);
    assert_eq!(b.pop_record().map(|r| r.lsn), Some(Lsn(1)));
    assert_eq!(backup_commands(&mut b), [BackupCommand::GoLive { generation: G2, next_lsn: Lsn(2) }]);
}

#[test]
fn a_primary_whose_backup_is_gone_releases_nothing_until_it_has_won() {
    let mut p = primary_with_a_held_output();
    p.handle_link_lost(at(10), PEER);
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
    p.handle_message(at(11), PEER, ack(1));
    p.flush(at(11), Icount(200), VirtTime(0));
    assert_eq!(p.poll_release(at(11)), None, "not even for an acknowledgement that comes late");
    p.handle_arbiter(at(12), G2, Verdict::Won);
    assert_eq!(commands(&mut p), [Command::WentSolo { generation: G2 }]);
    assert_eq!(p.poll_release(at(12)), Some(output(1)));
}

#[test]
fn the_loser_halts_and_releases_nothing() {
    let mut p = primary_with_a_held_output();
    p.handle_link_lost(at(10), PEER);
    p.handle_arbiter(at(11), G2, Verdict::Lost);
    assert!(commands(&mut p).contains(&Command::Halt(HaltReason::LostClaim(G2))));
    assert_eq!((p.poll_release(at(12)), p.pace(at(12))), (None, Pace::Wait));
    let mut b = backup();
    b.handle_link_lost(at(10), PEER);
    b.handle_arbiter(at(11), G2, Verdict::Lost);
    assert!(backup_commands(&mut b).contains(&BackupCommand::Halt(HaltReason::LostClaim(G2))));
    assert_eq!(b.next_record(), None);
}

#[test]
fn an_unreachable_arbiter_lets_none_run_and_is_asked_again() {
    let (mut p, mut b) = (primary_with_a_held_output(), backup());
    p.handle_link_lost(at(10), PEER);
    b.handle_link_lost(at(10), PEER);
    let (mut asked_p, mut asked_b) = (0, 0);
    for ms in 11..5000 {
        p.handle_tick(at(ms));
        b.handle_tick(at(ms));
        for command in commands(&mut p) {
            asked_p += u32::from(command == Command::Claim(G2));
            p.handle_arbiter(at(ms), G2, Verdict::Unreachable);
        }
        for command in backup_commands(&mut b) {
            assert_eq!(command, BackupCommand::Claim(G2), "it never guesses");
            asked_b += 1;
            b.handle_arbiter(at(ms), G2, Verdict::Unreachable);
        }
        assert_eq!(p.poll_release(at(ms)), None);
    }
    assert!((4..20).contains(&asked_p) && (4..20).contains(&asked_b), "asked {asked_p} and {asked_b} times");
}

#[test]
fn a_returning_primary_finds_its_generation_spent_and_halts() {
    let mut p = primary_with_a_held_output();
    p.handle_message(at(5), PEER, Message::Heartbeat { generation: G2 });
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)], "it asks who is right");
    assert_eq!(p.poll_release(at(5)), None, "and holds its outputs meanwhile");
    p.handle_arbiter(at(6), G2, Verdict::Lost);
    assert_eq!(commands(&mut p), [Command::Halt(HaltReason::LostClaim(G2))]);
    let mut new = Primary::new_solo(Settings::default(), G2, at(0), Lsn(9));
    new.handle_message(at(1), PEER, records(1..=1));
    assert_eq!(messages(&mut new), [Message::Heartbeat { generation: G2 }], "and the new one tells it so");
}

#[test]
fn a_newer_generation_is_believed_only_when_the_arbiter_confirms_it() {
    let lie = || Message::Heartbeat { generation: Generation(77) };
    let mut p = primary_with_a_held_output();
    p.handle_message(at(5), PEER, lie());
    p.handle_arbiter(at(6), G2, Verdict::Unreachable);
    assert_eq!(p.poll_release(at(6)), None, "nobody knows");
    p.handle_arbiter(at(7), G2, Verdict::Won);
    assert!(p.poll_release(at(7)).is_some(), "it was a lie: the VM runs on");
    p.handle_message(at(8), PEER, lie());
    assert!(
        !matches!(p.report().state, Role::Halted | Role::Claiming),
        "alone, it cannot have been replaced"
    );
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_message(at(1), PEER, records(1..=1));
    b.handle_message(at(2), PEER, lie());
    assert_eq!(backup_commands(&mut b), [BackupCommand::Claim(G2)], "it asks who is right");
    b.handle_arbiter(at(3), G2, Verdict::Lost);
    assert_eq!(backup_commands(&mut b), [BackupCommand::Halt(HaltReason::LostClaim(G2))]);
}

#[test]
fn a_primary_that_slept_longer_than_the_timeout_asks_before_it_releases() {
    let mut p = primary_with_a_held_output();
    p.handle_tick(at(2));
    p.handle_tick(at(2000));
    p.handle_message(at(2000), PEER, ack(1));
    assert_eq!(p.poll_release(at(2000)), None);
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
}

#[test]
fn a_primary_that_slept_until_its_backup_may_have_replaced_it_asks_before_it_releases() {
    let mut p = primary_with_a_held_output();
    assert_eq!(
        messages_at(&mut p, at(1)).len(),
        1,
        "the backup hears this one at 1 ms, and claims at 301 ms"
    );
    // No heartbeat is due yet: this tick says nothing.
    p.handle_tick(at(50));
    assert_eq!(messages_at(&mut p, at(50)), []);
    p.handle_message(at(50), PEER, ack(1));
    assert_eq!(p.poll_release(at(302)), None, "the backup may be live");
    p.handle_tick(at(302));
    assert_eq!(p.poll_release(at(302)), None);
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
}

#[test]
fn a_message_that_leaves_late_does_not_hide_that_a_primary_slept() {
    let mut p = primary_with_a_held_output();
    messages_at(&mut p, at(1));
    p.handle_tick(at(50));
    p.handle_message(at(50), PEER, ack(1));
    // Asleep in the middle of a slice: its end writes a mark, but the backup may be live by now.
    p.hold(at(302), Icount(200), output(2));
    p.flush(at(302), Icount(200), VirtTime(2000));
    assert_eq!(messages(&mut p), []);
    p.handle_tick(at(303));
    assert_eq!(p.poll_release(at(303)), None);
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
}

#[test]
fn a_primary_that_naps_twice_in_one_turn_does_not_count_a_word_that_came_too_late() {
    let mut p = primary_with_a_held_output();
    messages_at(&mut p, at(1));
    // The first nap: the backup has last heard of it 250 ms ago. A heartbeat is due, and the acknowledgement is there.
    p.handle_tick(at(251));
    p.handle_message(at(251), PEER, ack(1));
    // The second, before the heartbeat leaves: the backup may be live.
    assert_eq!(p.poll_release(at(351)), None);
    assert_eq!(messages_at(&mut p, at(351)), [Message::Heartbeat { generation: G1 }]);
    assert_eq!(p.poll_release(at(352)), None, "what is said too late takes nothing back");
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
}

#[test]
fn a_primary_that_naps_between_a_message_and_the_next_look_asks_too() {
    let mut p = primary_with_a_held_output();
    messages_at(&mut p, at(1));
    p.handle_tick(at(251));
    p.handle_message(at(251), PEER, ack(1));
    assert_eq!(messages(&mut p), [Message::Heartbeat { generation: G1 }], "nobody knows when it leaves");
    assert_eq!(p.poll_release(at(351)), None);
    p.handle_tick(at(352));
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
}

#[test]
fn a_word_that_leaves_in_time_counts() {
    let mut p = primary_with_a_held_output();
    messages_at(&mut p, at(1));
    p.handle_tick(at(251));
    p.handle_message(at(251), PEER, ack(1));
    assert_eq!(messages_at(&mut p, at(300)).len(), 1, "its backup waits until 301 ms");
    assert_eq!(p.lease(), at(551), "from when it was written");
    assert_eq!(p.poll_release(at(550)), Some(output(1)));
}

#[test]
fn a_primary_is_sure_of_its_place_only_as_long_as_its_backup_waits() {
    let mut p = primary_with_a_held_output();
    assert_eq!(p.lease(), at(300), "nothing has been said yet");
    messages_at(&mut p, at(1));
    assert_eq!(p.lease(), at(300), "its backup has not been heard since: it may not hear either");
    p.handle_message(at(20), PEER, Message::Heartbeat { generation: G1 });
    p.handle_tick(at(40));
    assert_eq!(p.lease(), at(301), "a look at the clock says nothing to the backup");
    p.handle_link_lost(at(50), PEER);
    assert_eq!(p.lease(), at(0), "it asks");
    p.handle_arbiter(at(51), G2, Verdict::Won);
    assert_eq!(p.lease(), HostTime(u64::MAX), "nobody waits for it to fall silent any more");
}

#[test]
fn a_mark_is_acknowledged_at_once_wherever_it_stands_and_again_if_that_was_lost() {
    let progress = |lsn| record(lsn, lsn * 10, RecordBody::Progress);
    let say = |records| Message::Records { generation: G1, released: Lsn(0), records };
    let acked = |b: &mut Backup| match to_peer(b.poll_message()) {
        Some(Message::Ack { received, .. }) => Some(received),
        _ => None,
    };
    let mut b = backup();
    b.handle_message(at(1), PEER, say(vec![progress(1), record(2, 20, RecordBody::Mark), progress(3)]));
    b.handle_message(at(1), PEER, say(vec![progress(4)]));
    assert_eq!(acked(&mut b), Some(Lsn(4)), "a batch without a mark does not call the older one's off");
    // That one is lost. What comes behind has no mark, and no call of its own.
    b.handle_message(at(2), PEER, say(vec![progress(5)]));
    assert_eq!(acked(&mut b), None);
    let next = b.next_timeout().expect("it has news");
    assert!(next <= at(6), "the news is told soon, and with it what was lost: {next:?}");
    b.handle_tick(next);
    assert_eq!(acked(&mut b), Some(Lsn(5)));
    // So is that. Without any news it is told again with the next heartbeat; nobody need wake it for that.
    let next = b.next_timeout().expect("it says that it lives");
    assert!(next <= at(56), "{next:?}");
    b.handle_tick(next);
    assert_eq!(acked(&mut b), Some(Lsn(5)));
}

#[test]
fn a_backup_that_slept_listens_before_it_judges() {
    let mut b = backup();
    b.handle_tick(at(2000));
    assert_eq!(backup_commands(&mut b), []);
    b.handle_message(at(2000), PEER, records(1..=1));
    b.handle_tick(at(2100));
    assert_eq!(backup_commands(&mut b), []);
}

#[test]
fn silence_is_suspected_after_the_timeout_and_not_before() {
    let (mut p, mut b) = (primary(), backup());
    for ms in (0..300).step_by(10) {
        p.handle_tick(at(ms));
        b.handle_tick(at(ms));
    }
    assert_eq!((commands(&mut p).len(), backup_commands(&mut b).len()), (0, 0));
    p.handle_tick(at(300));
    b.handle_tick(at(300));
    assert_eq!((commands(&mut p).len(), backup_commands(&mut b).len()), (2, 1));
}

#[test]
fn heartbeats_go_both_ways_when_there_is_nothing_else_to_say() {
    let (mut p, mut b) = (primary(), backup());
    for ms in (0..=100).step_by(10) {
        p.handle_tick(at(ms));
        b.handle_tick(at(ms));
    }
    assert!(messages(&mut p).iter().any(|m| matches!(m, Message::Heartbeat { .. })));
    assert!(matches!(to_peer(b.poll_message()), Some(Message::Ack { .. })));
}

#[test]
fn a_full_window_makes_the_primary_wait_and_an_acknowledgement_lets_it_go_on() {
    let settings = Settings { send_window_bytes: 10_000, ..Settings::default() };
    let mut p = Primary::new_protected(settings, G1, at(0), PEER);
    let packet = || RecordBody::Input(Input::Packet { slot: 0, frame: vec![0; 1500] });
    for _ in 0..8 {
        p.admit(Icount(1), packet());
    }
    p.flush(at(1), Icount(1), VirtTime(0));
    assert_eq!(p.pace(at(1)), Pace::Wait);
    p.handle_message(at(2), PEER, ack(8));
    assert!(matches!(p.pace(at(2)), Pace::Run { .. }));
}

#[test]
fn a_backup_whose_buffer_is_full_of_unexecuted_log_makes_the_primary_wait() {
    let settings = Settings { send_window_bytes: 10_000, ..Settings::default() };
    let mut p = Primary::new_protected(settings, G1, at(0), PEER);
    let full = Message::Ack {
        generation: G1,
        received: Lsn(0),
        executed: Lsn(0),
        icount: Icount(0),
        time: VirtTime(0),
        buffered_bytes: 10_001,
    };
    p.handle_message(at(1), PEER, full);
    assert_eq!(p.pace(at(1)), Pace::Wait);
}

#[test]
fn a_lagging_backup_slows_the_primary() {
    let mut p = primary();
    for ms in 1..200u64 {
        p.handle_tick(at(ms * 10));
        p.handle_message(at(ms * 10), PEER, ack(0));
        p.flush(at(ms * 10), Icount(ms), VirtTime(ms * 10 * MS));
        messages_at(&mut p, at(ms * 10));
    }
    let Pace::Run { share_permille } = p.pace(at(2000)) else { panic!("it runs") };
    assert!(share_permille < 300, "{share_permille}");
    assert!(p.report().lag_ns > 1_000 * MS);
}

#[test]
fn a_backup_that_is_far_away_and_keeps_up_slows_nothing() {
    const ROUND_TRIP_MS: u64 = 60;
    let mut p = primary();
    let mut newest = Vec::new();
    for ms in 1..2000u64 {
        p.handle_tick(at(ms));
        p.flush(at(ms), Icount(ms), VirtTime(ms * MS));
        messages_at(&mut p, at(ms));
        newest.push(p.report().lsn);
        if ms > ROUND_TRIP_MS {
            let then = ms - ROUND_TRIP_MS;
            let (received, icount, time) = (newest[then as usize - 1], Icount(then), VirtTime(then * MS));
            let executed = received;
            p.handle_message(
                at(ms),
                PEER,
                Message::Ack { generation: G1, received, executed, icount, time, buffered_bytes: 0 },
            );
        }
    }
    assert_eq!(p.pace(at(2000)), Pace::Run { share_permille: 1000 });
    assert!(p.report().lag_ns <= 5 * MS, "distance is not lag: {}", p.report().lag_ns);
}

#[test]
fn a_gap_in_the_log_makes_the_backup_leave_and_not_take_over() {
    let mut b = backup();
    b.handle_message(at(1), PEER, records(1..=1));
    b.handle_message(at(2), PEER, records(3..=3));
    assert!(matches!(backup_commands(&mut b)[..], [BackupCommand::Halt(HaltReason::PeerFault(_))]));
}

#[test]
fn records_that_come_twice_are_taken_once() {
    let mut b = backup();
    b.handle_message(at(1), PEER, records(1..=2));
    b.handle_message(at(2), PEER, records(1..=3));
    let replayed: Vec<_> = std::iter::from_fn(|| b.pop_record()).map(|r| r.lsn.0).collect();
    assert_eq!(replayed, [1, 2, 3]);
}

#[test]
fn a_backup_that_acknowledges_what_it_cannot_have_is_not_believed() {
    let mut p = primary_with_a_held_output();
    p.handle_message(at(2), PEER, ack(99));
    assert_eq!(p.poll_release(at(2)), None);
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
}

#[test]
fn messages_of_an_older_generation_change_nothing() {
    let mut p = Primary::new_protected(Settings::default(), G2, at(0), PEER);
    p.hold(at(1), Icount(1), output(1));
    p.flush(at(1), Icount(1), VirtTime(0));
    p.handle_message(at(2), PEER, ack(1));
    assert_eq!(p.poll_release(at(2)), None, "the acknowledgement is of generation 1");
}

#[test]
fn an_orderly_end_lets_nobody_take_over() {
    let mut p = primary();
    p.queue_goodbye();
    let goodbye = messages(&mut p).pop().expect("it says goodbye");
    let mut b = backup();
    b.handle_message(at(1), PEER, goodbye);
    b.handle_link_lost(at(2), PEER);
    assert_eq!(backup_commands(&mut b), [BackupCommand::Halt(HaltReason::PeerEnded)]);
}

#[test]
fn a_backup_that_leaves_is_not_waited_for() {
    let mut b = backup();
    b.leave();
    let goodbye = to_peer(b.poll_message()).expect("it says goodbye");
    let mut p = primary();
    p.handle_message(at(1), PEER, goodbye);
    assert_eq!(commands(&mut p), [Command::BackupLost, Command::Claim(G2)]);
}

#[test]
fn a_backup_that_has_won_ends_the_vm_only_after_it_is_live() {
    let mut b = backup();
    b.handle_message(at(1), PEER, records(1..=1));
    b.handle_link_lost(at(10), PEER);
    b.handle_arbiter(at(11), G2, Verdict::Won);
    b.leave();
    assert_eq!(backup_commands(&mut b), [BackupCommand::Claim(G2)], "nobody else has the VM");
    b.pop_record();
    assert_eq!(backup_commands(&mut b), [BackupCommand::GoLive { generation: G2, next_lsn: Lsn(2) }]);
}

#[test]
fn a_backup_told_to_leave_during_its_claim_does_not_say_that_the_vm_goes_on() {
    let mut b = backup();
    b.handle_link_lost(at(10), PEER);
    b.leave();
    let commands = backup_commands(&mut b);
    assert_eq!(commands, [BackupCommand::Claim(G2), BackupCommand::Halt(HaltReason::LeftClaiming(G2))]);
    b.handle_arbiter(at(11), G2, Verdict::Won);
    assert_eq!(backup_commands(&mut b), []);
}

#[test]
fn a_backup_knows_up_to_where_outputs_have_been_released() {
    let mut b = backup();
    b.handle_message(at(1), PEER, records(1..=3));
    assert_eq!(b.released(), Lsn(0));
    b.handle_message(at(2), PEER, Message::Records { generation: G1, released: Lsn(2), records: vec![] });
    assert_eq!(b.released(), Lsn(2));
}
