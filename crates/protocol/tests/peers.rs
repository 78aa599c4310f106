//! Which peer a message is from, and which it is for: one sentence a test.

use pollux_protocol::*;
use pollux_vocab::*;

const G1: Generation = Generation(1);
const G2: Generation = Generation(2);
const BACKUP: PeerId = PeerId(4);
const PRIMARY: PeerId = PeerId(9);
const STRANGER: PeerId = PeerId(5);
const MS: u64 = 1_000_000;

fn at(ms: u64) -> HostTime {
    HostTime(ms * MS)
}

fn ack(received: u64) -> Message {
    let (received, icount, time) = (Lsn(received), Icount(0), VirtTime(0));
    Message::Ack { generation: G1, received, executed: Lsn(0), icount, time, buffered_bytes: 0 }
}

/// A primary whose only output waits for an acknowledgement.
fn primary() -> Primary {
    let mut p = Primary::new_protected(Settings::default(), G1, at(0), BACKUP);
    p.hold(at(1), Icount(100), Output::Reset);
    p.flush(at(1), Icount(100), VirtTime(0));
    p
}

#[test]
fn an_acknowledgement_of_one_that_is_no_backup_lets_nothing_out_and_its_end_ends_nothing() {
    let mut p = primary();
    p.handle_message(at(2), STRANGER, ack(1));
    p.handle_message(at(2), STRANGER, Message::Goodbye { generation: G1, reason: GoodbyeReason::Leaving });
    p.handle_link_lost(at(2), STRANGER);
    assert_eq!((p.poll_release(at(2)), p.report().state), (None, Role::Primary));
    p.handle_message(at(3), BACKUP, ack(1));
    assert_eq!(p.poll_release(at(3)), Some(Output::Reset));
    p.handle_link_lost(at(4), BACKUP);
    assert_eq!(p.report().state, Role::Claiming);
}

#[test]
fn a_backup_that_is_silent_is_given_up_however_much_others_send() {
    let mut p = primary();
    for ms in (0..=300).step_by(50) {
        p.handle_tick(at(ms));
        p.handle_message(at(ms), STRANGER, Message::Heartbeat { generation: G1 });
        p.handle_bytes(at(ms), STRANGER);
        while p.poll_message().is_some() {}
        p.handle_sent(at(ms));
    }
    assert_eq!(p.report().state, Role::Claiming);
}

#[test]
fn a_backup_follows_the_primary_that_it_backs_up_and_nobody_else() {
    let mut b = Backup::new(Settings::default(), G1, at(0), PRIMARY);
    let record = Record { lsn: Lsn(1), icount: Icount(5), body: RecordBody::Mark };
    let records = Message::Records { generation: G1, released: Lsn(0), records: vec![record] };
    b.handle_message(at(1), STRANGER, records.clone());
    b.handle_link_lost(at(1), STRANGER);
    assert_eq!((b.poll_message(), b.report().lsn), (None, Lsn(0)));
    b.handle_message(at(2), PRIMARY, records);
    let Some((to, Message::Ack { received, .. })) = b.poll_message() else { panic!("an ack is due") };
    assert_eq!((to, received), (PRIMARY, Lsn(1)));
    b.handle_message(at(3), STRANGER, Message::Heartbeat { generation: G2 });
    assert_eq!(b.report().state, Role::Claiming, "a newer generation is asked about, whoever speaks of it");
}

#[test]
fn a_primary_from_the_past_is_told_so_itself() {
    let mut live = Primary::new_solo(Settings::default(), G2, at(0), Lsn(3));
    live.handle_message(
        at(1),
        STRANGER,
        Message::Records { generation: G1, released: Lsn(0), records: vec![] },
    );
    assert_eq!(live.poll_message(), Some((STRANGER, Message::Heartbeat { generation: G2 })));
    assert_eq!(live.poll_message(), None);
}
