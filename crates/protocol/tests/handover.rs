//! Giving the VM away in good order: every rule of that, one test each, each a sentence.

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

fn output() -> Output {
    Output::Console { console: ConsoleId::Uart, bytes: vec![1] }
}

fn ack(received: u64) -> Message {
    let (received, icount, time) = (Lsn(received), Icount(0), VirtTime(0));
    Message::Ack { generation: G1, received, executed: Lsn(0), icount, time, buffered_bytes: 0 }
}

fn all<T>(poll: impl FnMut() -> Option<T>) -> Vec<T> {
    std::iter::from_fn(poll).collect()
}

/// A primary that has handed over with an output in its gate, and what it sent.
fn handed_over() -> (Primary, Vec<Message>) {
    let mut p = Primary::new_protected(Settings::default(), G1, at(0), PEER);
    p.hold(at(1), Icount(100), output());
    assert!(p.hand_over(at(1), Icount(120), VirtTime(0)), "it has a backup");
    let sent = all(|| to_peer(p.poll_message()));
    p.handle_sent(at(1));
    (p, sent)
}

/// A backup that holds the log of [`handed_over`].
fn backup(with_log: bool) -> Backup {
    let (_, sent) = handed_over();
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_message(at(1), PEER, Message::Heartbeat { generation: G1 });
    if with_log {
        b.handle_message(at(1), PEER, sent[0].clone());
    }
    b
}

#[test]
fn the_log_reaches_to_where_the_vm_stops_and_is_sent_before_the_handover() {
    let (p, sent) = handed_over();
    let [Message::Records { records, .. }, Message::Handover { generation: G1, last }] = &sent[..] else {
        panic!("{sent:?}")
    };
    let end = records.last().expect("a mark");
    assert_eq!((end.lsn, end.icount), (*last, Icount(120)));
    assert_eq!((p.pace(at(2)), p.report().state), (Pace::Wait, Role::HandingOver));
}

#[test]
fn who_has_handed_over_releases_nothing_whatever_is_acknowledged() {
    let (mut p, _) = handed_over();
    p.handle_message(at(2), PEER, ack(2));
    assert_eq!((p.poll_release(at(2)), p.lease()), (None, HostTime(0)));
}

#[test]
fn a_backup_that_is_told_to_take_over_claims_at_once_and_waits_for_the_arbiter() {
    let mut b = backup(true);
    b.handle_message(at(2), PEER, Message::Handover { generation: G1, last: Lsn(2) });
    assert_eq!(all(|| b.poll_command()), [BackupCommand::Claim(G2)]);
    while b.pop_record().is_some() {}
    assert_eq!((all(|| b.poll_command()), b.report().state), (vec![], Role::Claiming));
    b.handle_arbiter(at(3), G2, Verdict::Won);
    assert!(matches!(all(|| b.poll_command())[..], [BackupCommand::GoLive { generation: G2, .. }]));
}

#[test]
fn a_backup_that_lacks_a_part_of_the_log_waits_for_it() {
    let mut b = backup(false);
    b.handle_message(at(2), PEER, Message::Handover { generation: G1, last: Lsn(2) });
    assert_eq!((all(|| b.poll_command()), b.report().state), (vec![], Role::Backup));
    b.handle_tick(at(100));
    b.handle_tick(at(200));
    b.handle_tick(at(302));
    assert_eq!(all(|| b.poll_command()), [BackupCommand::Claim(G2)], "silence says the same");
}

#[test]
fn a_primary_that_has_handed_over_asks_itself_once_the_backup_has_not_come_forward_in_time() {
    let (mut p, _) = handed_over();
    p.handle_tick(at(2_000));
    assert_eq!(all(|| p.poll_command()), [], "a silence of the backup is what is expected");
    assert_eq!(p.next_timeout(), Some(at(2_001)));
    p.handle_tick(at(2_001));
    assert_eq!(all(|| p.poll_command()), [Command::Claim(G2)]);
    assert_eq!(p.pace(at(2_001)), Pace::Wait, "it stands where the backup may go on");
    p.handle_arbiter(at(2_002), G2, Verdict::Won);
    assert_eq!((p.poll_release(at(2_002)), p.report().state), (Some(output()), Role::Solo));
    assert_eq!(p.pace(at(2_002)), Pace::Run { share_permille: 1000 });
}

#[test]
fn a_backup_that_is_gone_or_leaves_is_not_waited_for_after_a_handover() {
    let (mut p, _) = handed_over();
    p.handle_link_lost(at(2), PEER);
    assert_eq!(all(|| p.poll_command()), [Command::Claim(G2)]);
    let (mut p, _) = handed_over();
    p.handle_message(at(2), PEER, Message::Goodbye { generation: G1, reason: GoodbyeReason::Leaving });
    assert_eq!(all(|| p.poll_command()), [Command::Claim(G2)]);
}

#[test]
fn whether_the_vm_was_taken_only_the_arbiter_says_and_then_the_old_primary_ends() {
    let (mut p, _) = handed_over();
    p.handle_message(at(2), PEER, Message::Heartbeat { generation: G2 });
    assert_eq!(all(|| p.poll_command()), [Command::Claim(G2)]);
    p.handle_arbiter(at(3), G2, Verdict::Lost);
    assert_eq!(all(|| p.poll_command()), [Command::Halt(HaltReason::HandedOver(G2))]);
    assert_eq!(p.poll_release(at(3)), None);
}

#[test]
fn who_has_taken_over_says_so_once() {
    let mut live = Primary::new_solo(Settings::default(), G2, at(0), Lsn(3));
    live.queue_taken_over(PEER);
    assert_eq!(all(|| to_peer(live.poll_message())), [Message::Heartbeat { generation: G2 }]);
}

#[test]
fn who_has_no_backup_hands_nothing_over() {
    let mut p = Primary::new_solo(Settings::default(), G1, at(0), Lsn(1));
    assert!(!p.hand_over(at(1), Icount(5), VirtTime(0)));
    let mut p = Primary::new_protected(Settings::default(), G1, at(0), PEER);
    assert!(!p.hand_over(at(300), Icount(5), VirtTime(0)), "it was away, and may have been replaced");
    assert_eq!(all(|| p.poll_command()), [Command::BackupLost, Command::Claim(G2)]);
}
