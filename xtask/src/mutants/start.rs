//! The mutants of the start and the end of a pair, and who judges them: every order of steps and faults of a few
//! processes that start a VM, and the tests of each rule by itself. The simulator begins when a pair is one.

use super::table::{Judge, Mutant};

/// Who judges.
pub(super) const JUDGES: [Judge; 2] = [
    Judge {
        name: "starts",
        build: &["build", "--release", "-p", "pollux-sim", "--example", "start"],
        run: &["run", "--release", "-q", "-p", "pollux-sim", "--example", "start"],
        found: 10,
    },
    Judge {
        name: "rules",
        build: &["build", "-p", "pollux-protocol", "-p", "pollux-arbiter", "--tests"],
        run: &["test", "-q", "-p", "pollux-protocol", "-p", "pollux-arbiter", "--lib", "--test", "pairing"],
        found: 101,
    },
];

const PRIMARY: &str = "crates/protocol/src/pairing/primary.rs";
const BACKUP: &str = "crates/protocol/src/pairing/backup.rs";
const ENDING: &str = "crates/protocol/src/ending.rs";
const ARBITER: &str = "crates/arbiter/src/lib.rs";

/// The rules of `crates/protocol/src/pairing/mod.rs` and of the end.
pub(super) const MUTANTS: [Mutant; 13] = [
    Mutant {
        name: "greets-unclaimed",
        rule: "a backup hears of a generation only once its primary has won it",
        file: PRIMARY,
        old: "(State::Connecting { .. }, In::Connected) => self.claim(),",
        new: "(State::Connecting { .. }, In::Connected) => self.enter(State::Drawing, None, PrimaryAction::Draw),",
    },
    Mutant {
        name: "undecided-is-won",
        rule: "an arbiter that has not decided lets nobody start",
        file: PRIMARY,
        old: "Verdict::Won => self.enter(State::Marking",
        new: "Verdict::Won | Verdict::Unreachable => self.enter(State::Marking",
    },
    Mutant {
        name: "failed-start-keeps",
        rule: "a start that fails after it has won its generation spends it",
        file: PRIMARY,
        old: "if self.may_hold {",
        new: "if self.may_hold && self.terms.is_none() {",
    },
    Mutant {
        name: "undecided-keeps",
        rule: "a start that has asked, and not heard an answer, spends what it may have won",
        file: PRIMARY,
        old: "Verdict::Unreachable => self.fail(Refusal::Undecided),",
        new: "Verdict::Unreachable => self.finish(PrimaryAction::GiveUp(Refusal::Undecided)),",
    },
    Mutant {
        name: "any-backup",
        rule: "a primary says nothing of its machine to a backup that has not proven itself",
        file: PRIMARY,
        old: "self.fail(Refusal::Stranger(Peer::Backup, None)),",
        new: "self.offer(now, [0; 32]),",
    },
    Mutant {
        name: "runs-unequal",
        rule: "a primary runs only beside a backup that holds the same machine",
        file: PRIMARY,
        old: "(State::Comparing, In::Compared(Some(what))) => self.fail(Refusal::Unequal(what)),",
        new: "(State::Comparing, In::Compared(Some(_))) => self.finish(PrimaryAction::Run),",
    },
    Mutant {
        name: "offers-for-ever",
        rule: "a primary that waits for its backup's answer has a deadline",
        file: PRIMARY,
        old: "self.enter(State::Offered, Some(step_until(now, bytes)),",
        new: "self.enter(State::Offered, None,",
    },
    Mutant {
        name: "hears-for-ever",
        rule: "a stranger has a deadline",
        file: BACKUP,
        old: "let deadline = Some(now.after(STRANGER_PATIENCE_NS));",
        new: "let deadline = Some(now.after(STRANGER_PATIENCE_NS)).filter(|_| false);",
    },
    Mutant {
        name: "any-primary",
        rule: "a backup takes no machine from a primary that has not proven itself",
        file: BACKUP,
        old: "(State::Checking(greeting), In::Checked(true)) => {",
        new: "(State::Checking(greeting), In::Checked(_)) => {",
    },
    Mutant {
        name: "tells-strangers",
        rule: "who has not proven itself is not told why",
        file: BACKUP,
        old: "says.filter(|_| waits)",
        new: "says.filter(|_| waits || true)",
    },
    Mutant {
        name: "ready-too-early",
        rule: "whatever may fail on the backup's host comes before Ready",
        file: BACKUP,
        old: "Ok(()) => self.enter(State::PluggingIn, None, BackupAction::PlugIn),",
        new: "Ok(()) => self.enter(State::Digesting, None, BackupAction::Digest),",
    },
    Mutant {
        name: "end-unspent",
        rule: "a VM that has ended in good order may be started again",
        file: ENDING,
        old: "(Part::Live, Ended::InGoodOrder) => Some(own),",
        new: "(Part::Live, Ended::InGoodOrder) => Some(own).filter(|_| false),",
    },
    Mutant {
        name: "end-anyones",
        rule: "an end is its holder's, and takes the VM from nobody else",
        file: ARBITER,
        old: "Some(claim) if claim.holder == holder => {}",
        new: "Some(_) if is_first => {}",
    },
];
