//! Liveness is not progress, bytes are signs of life and no more, and who cannot serve lets others claim first: every
//! rule of that, one test each.

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

fn all<T>(poll: impl FnMut() -> Option<T>) -> Vec<T> {
    std::iter::from_fn(poll).collect()
}

fn ack(received: u64, executed: u64, icount: u64) -> Message {
    let (received, executed, icount) = (Lsn(received), Lsn(executed), Icount(icount));
    Message::Ack { generation: G1, received, executed, icount, time: VirtTime(0), buffered_bytes: 0 }
}

/// A primary that has sent a record, and whose backup acknowledges all it hears and says that it has come to `comes_to`
/// after so many milliseconds. When it first does something about its backup, and what.
fn first_doubt(comes_to: impl Fn(u64) -> (u64, u64)) -> Option<(u64, Vec<Command>)> {
    let mut p = Primary::new_protected(Settings::default(), G1, at(0), PEER);
    p.admit(Icount(5), RecordBody::Progress);
    p.flush(at(0), Icount(5), VirtTime(0));
    for ms in (0..20_000).step_by(20) {
        p.handle_tick(at(ms));
        let (executed, icount) = comes_to(ms);
        p.handle_message(at(ms), PEER, ack(1, executed, icount));
        all(|| to_peer(p.poll_message()));
        p.handle_sent(at(ms));
        let commands = all(|| p.poll_command());
        if !commands.is_empty() {
            return Some((ms, commands));
        }
    }
    None
}

#[test]
fn a_backup_that_acknowledges_and_executes_nothing_counts_as_lost_after_the_bound() {
    let (ms, commands) = first_doubt(|_| (0, 0)).expect("it is given up");
    assert_eq!(commands, [Command::BackupStalled, Command::BackupLost, Command::Claim(G2)]);
    assert!((5_000..5_100).contains(&ms), "{ms} ms");
}

#[test]
fn a_backup_that_gets_on_slowly_or_has_nothing_to_execute_is_kept() {
    assert_eq!(first_doubt(|ms| (0, ms / 4_000)), None, "a step every four seconds");
    assert_eq!(first_doubt(|_| (1, 5)), None, "it has executed everything");
}

#[test]
fn a_window_that_stays_full_for_the_bound_ends_the_pair() {
    let settings = Settings { send_window_bytes: 10, ..Settings::default() };
    let mut p = Primary::new_protected(settings, G1, at(0), PEER);
    for lsn in 0..50 {
        p.admit(Icount(lsn), RecordBody::Progress);
    }
    p.flush(at(0), Icount(50), VirtTime(0));
    let mut ended = None;
    for ms in (0..10_000).step_by(20) {
        p.handle_tick(at(ms));
        // It executes what it has at once, and takes in one record a second.
        p.handle_message(at(ms), PEER, ack(ms / 1_000, ms / 1_000, ms));
        all(|| to_peer(p.poll_message()));
        p.handle_sent(at(ms));
        ended = ended.or(p.poll_command().map(|command| (ms, command)));
    }
    let (ms, command) = ended.expect("the VM stands still");
    assert_eq!(command, Command::BackupStalled);
    assert!((5_000..5_100).contains(&ms), "{ms} ms");
}

#[test]
fn a_backup_that_executes_nothing_leaves_before_it_is_left_and_says_why() {
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    let record = Record { lsn: Lsn(1), icount: Icount(5), body: RecordBody::Mark };
    b.handle_message(
        at(0),
        PEER,
        Message::Records { generation: G1, released: Lsn(0), records: vec![record] },
    );
    let mut ms = 0;
    while b.report().state == Role::Backup && ms < 10_000 {
        ms += 20;
        b.handle_tick(at(ms));
        b.handle_message(at(ms), PEER, Message::Heartbeat { generation: G1 });
    }
    assert!((3_750..3_850).contains(&ms), "{ms} ms");
    assert_eq!(all(|| b.poll_command()), [BackupCommand::Halt(HaltReason::Stalled)]);
    let goodbye = Message::Goodbye { generation: G1, reason: GoodbyeReason::Leaving };
    assert_eq!(all(|| to_peer(b.poll_message())).last(), Some(&goodbye));
}

#[test]
fn bytes_of_a_message_that_is_not_whole_are_signs_of_life_on_both_sides() {
    let mut p = Primary::new_protected(Settings::default(), G1, at(0), PEER);
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_message(at(0), PEER, Message::Heartbeat { generation: G1 });
    for ms in (0..=4_000).step_by(100) {
        p.handle_tick(at(ms));
        p.handle_bytes(at(ms), PEER);
        all(|| to_peer(p.poll_message()));
        p.handle_sent(at(ms));
        b.handle_tick(at(ms));
        b.handle_bytes(at(ms), PEER);
    }
    assert_eq!(
        (all(|| p.poll_command()), all(|| b.poll_command())),
        (vec![], vec![]),
        "the link is slow, not dead"
    );
    for ms in [4_100, 4_200, 4_299] {
        b.handle_tick(at(ms));
    }
    assert_eq!(all(|| b.poll_command()), []);
    b.handle_tick(at(4_300));
    assert_eq!(
        all(|| b.poll_command()),
        [BackupCommand::Claim(G2)],
        "as long after the last byte as after a message"
    );
}

#[test]
fn a_side_that_never_ends_a_message_is_not_waited_for_beyond_the_bound() {
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_message(at(0), PEER, Message::Heartbeat { generation: G1 });
    let claims = (0..20_000).step_by(20).find(|ms| {
        b.handle_tick(at(*ms));
        b.handle_bytes(at(*ms), PEER);
        b.poll_command().is_some()
    });
    assert!(claims.is_some_and(|ms| (5_200..5_400).contains(&ms)), "{claims:?}");
}

#[test]
fn bytes_assure_nobody_of_a_right_to_run() {
    let mut p = Primary::new_protected(Settings::default(), G1, at(0), PEER);
    for ms in (0..=400).step_by(40) {
        p.handle_tick(at(ms));
        p.handle_bytes(at(ms), PEER);
        all(|| to_peer(p.poll_message()));
        p.handle_sent(at(ms));
    }
    assert_eq!((p.report().state, p.lease()), (Role::Primary, at(300)), "who sends them may be live by now");
    p.handle_message(at(401), PEER, Message::Heartbeat { generation: G1 });
    assert!(p.lease() > at(600), "a message says in which generation it is");

    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_bytes(at(1), PEER);
    b.handle_link_lost(at(2), PEER);
    assert_eq!(
        all(|| b.poll_command()),
        [BackupCommand::Halt(HaltReason::NeverHeard)],
        "nor that anybody ran"
    );
}

#[test]
fn a_side_that_does_not_reach_the_service_network_waits_before_it_claims() {
    let mut p = Primary::new_protected(Settings::default(), G1, at(0), PEER);
    p.handle_network(at(1), false);
    p.handle_link_lost(at(2), PEER);
    assert_eq!(all(|| p.poll_command()), [Command::BackupLost], "a side that can serve may claim first");
    assert_eq!((p.next_timeout(), p.poll_release(at(3))), (Some(at(2_002)), None));
    p.handle_tick(at(2_002));
    assert_eq!(all(|| p.poll_command()), [Command::Claim(G2)], "the other one may not be there");

    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_message(at(0), PEER, Message::Heartbeat { generation: G1 });
    b.handle_network(at(1), false);
    b.handle_link_lost(at(2), PEER);
    assert_eq!((all(|| b.poll_command()), b.next_timeout()), (vec![], Some(at(2_002))));
    b.handle_network(at(3), true);
    b.handle_tick(at(3));
    assert_eq!(all(|| b.poll_command()), [BackupCommand::Claim(G2)], "it has the network back");
}

#[test]
fn a_backup_that_is_handed_the_vm_claims_at_once_whatever_it_reaches() {
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_network(at(0), false);
    b.handle_message(at(1), PEER, Message::Handover { generation: G1, last: Lsn(0) });
    assert_eq!(all(|| b.poll_command()), [BackupCommand::Claim(G2)], "nobody else claims");
}

#[test]
fn a_primary_that_has_lost_the_service_network_hands_over_only_to_a_backup_that_reaches_it() {
    let lost = |settings: Settings| {
        let mut p = Primary::new_protected(settings, G1, at(0), PEER);
        p.handle_network(at(1), false);
        p
    };
    let mut p = lost(Settings::default());
    assert!(!p.wants_handover(at(1_000)) && p.wants_handover(at(1_001)));
    p.handle_message(at(2), PEER, Message::Network { generation: G1, reached: false });
    assert!(!p.wants_handover(at(9_000)), "it does not reach it either");
    p.handle_message(at(3), PEER, Message::Network { generation: G1, reached: true });
    assert!(p.wants_handover(at(9_000)));
    p.handle_network(at(4), true);
    assert!(!p.wants_handover(at(9_000)), "it is back");
    let stays = lost(Settings { net_loss_ns: None, ..Settings::default() });
    assert!(!stays.wants_handover(at(9_000)));
}

#[test]
fn a_backup_tells_its_primary_when_it_loses_the_service_network_and_has_it_back() {
    let mut b = Backup::new(Settings::default(), G1, at(0), PEER);
    b.handle_network(at(0), true);
    assert_eq!(all(|| to_peer(b.poll_message())), []);
    for reached in [false, true] {
        b.handle_network(at(1), reached);
        assert_eq!(all(|| to_peer(b.poll_message())), [Message::Network { generation: G1, reached }]);
    }
}
