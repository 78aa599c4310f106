//! The mutants: one rule of the protocol each, taken out by replacing one piece of the shipped text.
//!
//! A piece stands exactly once in its file (a test sees to it), so that the table cannot fall behind the code.

/// One rule taken out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// The rule that is missing then.
    pub(crate) rule: &'static str,
    /// The file, from the workspace's folder.
    pub(crate) file: &'static str,
    /// What stands there, exactly once.
    pub(crate) old: &'static str,
    /// What stands there instead.
    pub(crate) new: &'static str,
}

/// A program that must find every mutant, and nothing to complain of in the shipped text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Cargo's arguments that build it; that must succeed, also with a mutant.
    pub(crate) build: &'static [&'static str],
    /// Cargo's arguments that run it.
    pub(crate) run: &'static [&'static str],
    /// The exit status with which it says that a rule is broken. Any other but 0 is a failure of its own.
    pub(crate) found: i32,
}

/// Who judges: every order of a few steps of the protocol alone, and a thousand seeds of the whole deployment.
pub(crate) const JUDGES: [Judge; 2] = [
    Judge {
        name: "model",
        build: &["build", "--release", "-p", "pollux-sim", "--example", "model"],
        run: &["run", "--release", "-q", "-p", "pollux-sim", "--example", "model", "--", "--quick"],
        found: 10,
    },
    Judge {
        name: "sim",
        build: &["build", "--release", "-p", "pollux-sim", "--example", "seeds"],
        run: &["run", "--release", "-q", "-p", "pollux-sim", "--example", "seeds", "--", "1000"],
        found: 10,
    },
];

const PRIMARY: &str = "crates/protocol/src/primary.rs";
const BACKUP: &str = "crates/protocol/src/backup.rs";
const PEER: &str = "crates/protocol/src/peer.rs";
const STALL: &str = "crates/protocol/src/stall.rs";
const SILENCE: &str = "crates/protocol/src/silence.rs";
const NETWORK: &str = "crates/protocol/src/primary/network.rs";
const GATE: &str = "crates/protocol/src/output_gate.rs";
const ARBITER: &str = "crates/arbiter/src/lib.rs";

/// The rules of DESIGN 5, in its order, and what `docs/protocol.md` adds to them.
pub(crate) const MUTANTS: [Mutant; 41] = [
    Mutant {
        name: "no-mark",
        rule: "output mark: a record of its own, behind the output, covers it",
        file: PRIMARY,
        old: "let cover = self.admit(icount, body);\n                    self.gate.seal(cover.lsn);",
        new: "let _ = body;\n                    self.gate.seal(self.lsn);",
    },
    Mutant {
        name: "release-unacked",
        rule: "ack before release: an output waits for the acknowledgement",
        file: GATE,
        old: "if *covering <= self.acked",
        new: "if *covering <= Lsn(u64::MAX)",
    },
    Mutant {
        name: "release-one-early",
        rule: "ack before release: of the mark itself, not of what is before it",
        file: GATE,
        old: "if *covering <= self.acked",
        new: "if covering.0 <= self.acked.0 + 1",
    },
    Mutant {
        name: "sent-is-acked",
        rule: "ack before release: what was sent has not been received",
        file: PRIMARY,
        old: "let acked = self.peers.iter().map(|peer| peer.acked).min();",
        new: "let acked = self.peers.iter().map(|peer| peer.sent).min();",
    },
    Mutant {
        name: "gap-accepted",
        rule: "acknowledge on receipt: only of a log without gaps",
        file: BACKUP,
        old: "if record.lsn != self.received.next() {",
        new: "if false {",
    },
    Mutant {
        name: "live-without-arbiter",
        rule: "arbiter before going live",
        file: BACKUP,
        old: "(State::Backup, Cause::PrimaryGone(now)) => self.seek_live(now, self.serves),",
        new: "(State::Backup, Cause::PrimaryGone(_)) => {\n                self.ack_due = false;\n                \
              self.state = State::Draining(self.generation.next());\n                \
              self.go_live_when_replayed();\n            }",
    },
    Mutant {
        name: "alone-without-arbiter",
        rule: "arbiter before running on alone",
        file: PRIMARY,
        old: "(State::Primary, Cause::BackupGone(now)) => self.seek_solo(now),",
        new: "(State::Primary, Cause::BackupGone(now)) => {\n                self.seek_solo(now);\n                \
              self.commands.clear();\n                self.go_solo();\n            }",
    },
    Mutant {
        name: "release-while-claiming",
        rule: "arbiter before running on alone: nothing leaves while it is asked",
        file: PRIMARY,
        old: "State::Claiming(_) | State::Halted => false,",
        new: "State::Claiming(_) => true,\n            State::Halted => false,",
    },
    Mutant {
        name: "loser-runs-on",
        rule: "the loser halts (primary)",
        file: PRIMARY,
        old: "(State::Claiming(_), Cause::Lost) => self.halt(HaltReason::LostClaim(self.generation.next())),",
        new: "(State::Claiming(_), Cause::Lost) => self.go_solo(),",
    },
    Mutant {
        name: "loser-goes-live",
        rule: "the loser halts (backup)",
        file: BACKUP,
        old: "(State::Claiming(_), Cause::Lost) => self.halt(HaltReason::LostClaim(self.generation.next())),",
        new: "(State::Claiming(_), Cause::Lost) => {\n                \
              self.state = State::Draining(self.generation.next());\n                \
              self.go_live_when_replayed();\n            }",
    },
    Mutant {
        name: "unreachable-is-won-alone",
        rule: "an arbiter that cannot be reached lets nobody run (primary)",
        file: PRIMARY,
        old: "match claim.handle_verdict(now, generation, verdict) {",
        new: "match claim.handle_verdict(now, generation, verdict).or(Some(Answer::Won)) {",
    },
    Mutant {
        name: "unreachable-is-won-live",
        rule: "an arbiter that cannot be reached lets nobody run (backup)",
        file: BACKUP,
        old: "match claim.handle_verdict(now, generation, verdict) {",
        new: "match claim.handle_verdict(now, generation, verdict).or(Some(Answer::Won)) {",
    },
    Mutant {
        name: "asks-once-alone",
        rule: "an arbiter that could not be reached is asked again (primary)",
        file: PRIMARY,
        old: "State::Claiming(_) => self.ask_when_due(now),",
        new: "State::Claiming(_) => {}",
    },
    Mutant {
        name: "asks-once-live",
        rule: "an arbiter that could not be reached is asked again (backup)",
        file: BACKUP,
        old: "State::Claiming(_) => self.ask_when_due(now),",
        new: "State::Claiming(_) => {}",
    },
    Mutant {
        name: "claims-its-own",
        rule: "the generation that is claimed is the next one",
        file: BACKUP,
        old: "let next = self.generation.next();",
        new: "let next = self.generation;",
    },
    Mutant {
        name: "last-claim-wins",
        rule: "test-and-set: the first claim stands",
        file: ARBITER,
        old: "decide(self.claims.entry(place).or_insert_with(|| wanted.clone()), wanted)",
        new: "{\n            self.claims.insert(place, wanted.clone());\n            Decision::Won\n        }",
    },
    Mutant {
        name: "any-holder-wins",
        rule: "test-and-set: a generation is one holder's",
        file: ARBITER,
        old: "if standing == wanted {",
        new: "if standing.vm == wanted.vm {",
    },
    Mutant {
        name: "any-store-decides",
        rule: "a place that does not hold what a claim stands on decides nothing",
        file: ARBITER,
        old: "Some(holder) => before.is_some_and(|before| before.holder == *holder),",
        new: "Some(holder) => before.is_none_or(|before| before.holder == *holder),",
    },
    Mutant {
        name: "any-holder-before",
        rule: "a place where another holds the generation before decides nothing",
        file: ARBITER,
        old: "Some(holder) => before.is_some_and(|before| before.holder == *holder),",
        new: "Some(_) => before.is_some(),",
    },
    Mutant {
        name: "returning-primary-starts",
        rule: "a returning primary finds its generation spent: a VM that is held is not started",
        file: ARBITER,
        old: "Some(claim) => Err(HeldError { generation: claim.generation, holder: claim.holder.clone() }),",
        new: "Some(claim) => Ok(claim.generation.next()),",
    },
    Mutant {
        name: "no-generation-check",
        rule: "generation check: whoever hears a newer generation asks",
        file: PRIMARY,
        old: "if message.generation() > self.generation {",
        new: "if false {",
    },
    Mutant {
        name: "live-before-the-end",
        rule: "going live: replay the log to its end",
        file: BACKUP,
        old: "            && self.settings.strategy.may_go_live(self.log.len())\n        {",
        new: "        {\n            self.log.clear();\n            self.log_bytes = 0;",
    },
    Mutant {
        name: "live-before-the-mark",
        rule: "going live: through the last mark",
        file: BACKUP,
        old: "            && self.settings.strategy.may_go_live(self.log.len())\n        {",
        new: "            && self.log.iter().all(|record| record.body == pollux_vocab::RecordBody::Mark)\n        {\n            \
              self.log.clear();\n            self.log_bytes = 0;",
    },
    Mutant {
        name: "takes-in-while-claiming",
        rule: "from its claim on a backup takes nothing in and acknowledges nothing",
        file: BACKUP,
        old: "if !matches!(self.state, State::Backup) {",
        new: "if matches!(self.state, State::Live | State::Halted) {",
    },
    Mutant {
        name: "never-heard-claims",
        rule: "a backup that never heard its primary claims nothing",
        file: BACKUP,
        old: "(State::Backup, Cause::PrimaryGone(_)) if !self.has_received => self.halt(HaltReason::NeverHeard),",
        new: "",
    },
    Mutant {
        name: "sleeper-does-not-ask",
        rule: "a primary that slept asks first",
        file: PRIMARY,
        old: "(State::Primary, Cause::BackupGone(now)) => self.seek_solo(now),",
        new: "(State::Primary, Cause::BackupGone(now)) if self.is_away(now) => {\n                \
              self.peers.iter_mut().for_each(|peer| peer.sent_at = now);\n            }\n            \
              (State::Primary, Cause::BackupGone(now)) => self.seek_solo(now),",
    },
    Mutant {
        name: "sleeper-releases",
        rule: "a primary that slept releases nothing before it has looked at the clock",
        file: PRIMARY,
        old: "State::Primary => !self.is_away(now),",
        new: "State::Primary => true,",
    },
    Mutant {
        name: "silent-releases",
        rule: "a primary that has been silent for the failure timeout asks first",
        file: PEER,
        old: "self.silence.is_away(now) || now.since(self.sent_at) >= self.silence.failure_after_ns()",
        new: "self.silence.is_away(now)",
    },
    Mutant {
        name: "late-message-counts",
        rule: "a message that is sent late takes nothing back",
        file: PEER,
        old: "let in_time = !self.is_away(now);",
        new: "let in_time = true;",
    },
    Mutant {
        name: "lease-too-long",
        rule: "what was released leaves only as long as its side's lease runs",
        file: PEER,
        old: "self.silence.away_at().min(sent).min(self.silence.assured_until())",
        new: "self.silence.away_at().max(sent)",
    },
    Mutant {
        name: "bytes-assure",
        rule: "bytes of a message that is not whole lengthen no lease",
        file: SILENCE,
        old: "self.received_at.after(self.failure_after_ns)",
        new: "self.sign_at.after(self.failure_after_ns)",
    },
    Mutant {
        name: "forgets-doubts",
        rule: "duplicates, not gaps: what may not have been released is repeated",
        file: BACKUP,
        old: "self.released = self.released.max(released.min(self.received));",
        new: "self.released = self.released.max(released).max(self.received);",
    },
    Mutant {
        name: "leaves-with-the-vm",
        rule: "who has won is the VM, and cannot leave",
        file: BACKUP,
        old: "(State::Backup, Cause::Told) => {",
        new: "(State::Backup | State::Draining(_), Cause::Told) => {",
    },
    Mutant {
        name: "handover-releases",
        rule: "who has handed over releases nothing more",
        file: PRIMARY,
        old: "State::HandingOver(_) => false,",
        new: "State::HandingOver(_) => {\n                self.gate.ack(self.lsn);\n                true\n            }",
    },
    Mutant {
        name: "handover-runs-on",
        rule: "who has handed over is not alone before it has won",
        file: PRIMARY,
        old: "(State::HandingOver(_), Cause::HandedOver(now)) => self.seek_back(now),",
        new: "(State::HandingOver(_), Cause::HandedOver(_)) => self.go_solo(),",
    },
    Mutant {
        name: "handover-is-a-grant",
        rule: "a handover is no right to run: the arbiter is asked",
        file: BACKUP,
        old: "Message::Handover { last, .. } if last <= self.received => {\n                    self.move_on(Cause::HandedOver(now));",
        new: "Message::Handover { last, .. } if last <= self.received => {\n                    \
              self.move_on(Cause::HandedOver(now));\n                    \
              self.commands.clear();\n                    self.move_on(Cause::Won);",
    },
    Mutant {
        name: "handover-waits-for-ever",
        rule: "who has handed over asks for the VM if nobody takes it within the bound",
        file: PRIMARY,
        old: "State::HandingOver(_) if timers.is_expired(Timer::Handover, now) => {",
        new: "State::HandingOver(_) if false && timers.is_expired(Timer::Handover, now) => {",
    },
    Mutant {
        name: "stalled-is-alive",
        rule: "a backup that executes nothing, or leaves no room, for the bound is a lost backup, and leaves by itself",
        file: STALL,
        old: "self.stuck_ns >= self.after_ns",
        new: "self.stuck_ns >= self.after_ns && false",
    },
    Mutant {
        name: "unserved-claims-at-once",
        rule: "a primary that does not reach the service network waits before it claims",
        file: PRIMARY,
        old: "State::Claiming(Claim::begin(&self.settings, now, next, self.network.reaches));",
        new: "State::Claiming(Claim::begin(&self.settings, now, next, true));",
    },
    Mutant {
        name: "unserved-takes-over-at-once",
        rule: "a backup that does not reach the service network waits before it claims",
        file: BACKUP,
        old: "self.seek_live(now, self.serves),",
        new: "self.seek_live(now, true),",
    },
    Mutant {
        name: "unserved-stays",
        rule: "a primary that has lost only the service network hands over to a backup that reaches it",
        file: NETWORK,
        old: "lost && self.peers.iter().any(|peer| peer.serves) && matches!",
        new: "lost && self.peers.iter().any(|_| false) && matches!",
    },
];
