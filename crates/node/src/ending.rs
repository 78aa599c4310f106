//! How a VM ends on the live side: by itself, or because an operator stops it.
//!
//! Invariant guarded here: the VM's last output is released last of all, and the log reaches to the instant of its end, so
//! that whoever replays it goes all the way and no further.
//!
//! Not here: what the other side makes of it (`standby`), who may start the VM again (`pollux-arbiter`).

use crate::live::Live;
use crate::ports::Ports;
use crate::{DIGEST_PAGES_MAX, Next};
use pollux_machine::Machine;
use pollux_protocol::HostTime;
use pollux_vocab::{Control, Output, RecordBody};

/// How far the end is.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// An operator wants the VM to end.
    asked: bool,
    /// The VM has ended, and its last output is in the gate.
    ended: bool,
    /// The log reaches to the end of the VM.
    closed: bool,
}

impl Ending {
    /// Of a VM that is taken over: it may have ended, or be about to be stopped.
    pub(crate) fn taken_over(asked: bool, ended: bool) -> Self {
        Self { asked, ended, closed: false }
    }

    /// An operator wants the VM to end.
    pub(crate) fn ask(&mut self) {
        self.asked = true;
    }

    /// The machine has said its last word.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl<M: Machine> Live<M> {
    /// Admits the stop that an operator has asked for. True: the VM has ended with it.
    pub(crate) fn admit_stop(&mut self, ports: &mut impl Ports) -> bool {
        let asked = core::mem::take(&mut self.ending.asked);
        if asked {
            self.admit(ports, RecordBody::Control(Control::Stop));
            let icount = self.machine.icount();
            self.protocol.hold(ports.now(), icount, Output::PowerOff { status: 0 });
            // Whoever replays this goes as far as the stop and no further.
            (self.ending.ended, self.ending.closed) = (true, true);
        }
        asked
    }

    /// The VM has ended: only its last outputs are still to be released, once the log reaches to where it ended.
    pub(crate) fn wind_down(&mut self, ports: &mut impl Ports, now: HostTime) -> Next {
        if !self.ending.closed && !self.close_log(ports) {
            return Next::Again;
        }
        self.protocol.flush(now, self.machine.icount(), self.machine.time());
        match self.drain_protocol(ports) {
            Some(outcome) => Next::Finished(outcome),
            None => self.waiting(now, [None, None]),
        }
    }

    /// Ends the log with a record of the last instant, so that a replay goes all the way. False: a portion of the
    /// digest in it is done, there are more.
    fn close_log(&mut self, ports: &mut impl Ports) -> bool {
        if self.digests.every_ns == 0 {
            self.admit(ports, RecordBody::Progress);
        } else if self.machine.prepare_digest(DIGEST_PAGES_MAX) {
            self.take_digest(ports);
        } else {
            return false;
        }
        self.ending.closed = true;
        true
    }
}
