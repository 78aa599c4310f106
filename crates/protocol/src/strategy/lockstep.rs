//! Lockstep (Scales et al. 2010): events at any instruction, the VM never waits, its outputs do.
//!
//! Not here: what every strategy keeps to, the output rule first of all (`output_gate`).

use pollux_vocab::{Icount, Record, RecordBody};

/// Anywhere: the log says at which instruction, and the backup stops exactly there.
pub(super) fn delivers_at(_icount: Icount) -> bool {
    true
}

/// As far as wanted: the next event is delivered wherever the machine stands by then.
pub(super) fn runs_to(_icount: Icount, until: Icount) -> Icount {
    until
}

/// Rule: an output is covered by a mark, a record of its own behind it (2.2). Without one a backup could go live before
/// the output, take a fresh event there, and contradict it.
pub(super) fn seal(_icount: Icount) -> Option<RecordBody> {
    Some(RecordBody::Mark)
}

/// Rule: acknowledge on receipt, not on execution (2.1): at once what outputs are held for, which a mark seals.
pub(super) fn acknowledges_at_once(received: &[Record]) -> bool {
    received.iter().any(|record| matches!(record.body, RecordBody::Mark))
}

/// Right behind the primary, so that little is left to do at a failover.
pub(super) fn executes() -> bool {
    true
}

/// Rule: before going live, replay the log to its end, through the last mark (2.2).
pub(super) fn may_go_live(unexecuted: usize) -> bool {
    unexecuted == 0
}

#[cfg(test)]
mod tests {
    use crate::Strategy::Lockstep;
    use pollux_vocab::{Icount, Lsn, Record, RecordBody};

    #[test]
    fn events_come_anywhere_and_the_machine_runs_as_far_as_it_is_let() {
        for icount in [0, 1, 4095, 1 << 40].map(Icount) {
            assert!(Lockstep.delivers_at(icount));
            assert_eq!(Lockstep.runs_to(icount, icount.after(777)), icount.after(777));
        }
    }

    #[test]
    fn a_mark_covers_outputs_and_is_what_somebody_waits_for() {
        assert_eq!(Lockstep.seal(Icount(5)), Some(RecordBody::Mark));
        let log = |bodies: &[RecordBody]| {
            let record = |body: &RecordBody| Record { lsn: Lsn(1), icount: Icount(5), body: body.clone() };
            bodies.iter().map(record).collect::<alloc::vec::Vec<_>>()
        };
        assert!(!Lockstep.acknowledges_at_once(&log(&[RecordBody::Progress])));
        assert!(Lockstep.acknowledges_at_once(&log(&[RecordBody::Mark, RecordBody::Progress])));
    }

    #[test]
    fn a_backup_executes_as_it_receives_and_goes_live_with_nothing_left() {
        assert!(Lockstep.executes());
        assert!(Lockstep.may_go_live(0) && !Lockstep.may_go_live(1));
    }
}
