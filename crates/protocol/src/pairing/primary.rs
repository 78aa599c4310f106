//! The primary's start: reach the backup if there is one, win the first generation, become a pair, run.
//!
//! Invariant: nothing is said to a backup before the generation is won, nothing runs before that either, and a start that
//! fails after it has asked for its generation spends it before it gives up. Mirrored by [`super::backup`].

use super::terms::{Greeting, Peer, Refusal, Terms, Word};
use super::{CONNECT_AGAIN_NS, CONNECT_PATIENCE_NS, HANDSHAKE_PATIENCE_NS, step_until};
use crate::types::{HostTime, Verdict};
use alloc::collections::VecDeque;
use alloc::string::String;
use pollux_vocab::{Digest, Generation};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PrimaryAction {
    /// Try to reach the backup, once; say `Connected` or `NotConnected`.
    Connect,
    /// Ask the arbiter for this generation; say `Claimed`.
    Claim(Generation),
    /// Write down on the disks in which generation they are used; say `Marked`.
    Mark,
    /// Give a random nonce; say `Nonce`.
    Draw,
    /// Say this to the backup.
    Send(Word),
    /// See whether the backup knows the secret, and prove that this side does; say `Checked`.
    Check {
        /// What this side said of itself.
        greeting: Greeting,
        /// The backup's nonce.
        nonce: [u8; 32],
        /// The backup's proof.
        proof: [u8; 32],
    },
    /// Send the snapshot, in pieces, and its end; say `Sent`.
    SendState,
    /// Compare the machine with the backup's digest of its own; say `Compared`.
    Compare(Digest),
    /// Spend the generation behind this one, if this one is this process's; say `Spent`, whatever came of it.
    Spend(Generation),
    /// Let the link feed the running VM, and the arbiter answer it; say `PluggedIn`.
    PlugIn,
    /// The last: run the VM.
    Run,
    /// The last: do not run it.
    GiveUp(Refusal),
}

/// What has happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PrimaryInput {
    /// The backup is reached.
    Connected,
    /// It is not.
    NotConnected,
    /// The arbiter has decided, or has not.
    Claimed(Verdict),
    /// The disks are marked.
    Marked,
    /// A random nonce.
    Nonce([u8; 32]),
    /// The backup has said this.
    Heard(Word),
    /// The backup knows the secret, and this is this side's proof; `None`: it does not.
    Checked(Option<[u8; 32]>),
    /// The snapshot is sent.
    Sent,
    /// The machines are equal; `Some`: in what they are not.
    Compared(Option<String>),
    /// The link and the arbiter are the VM's.
    PluggedIn,
    /// The generation is spent, or the arbiter has been asked in vain.
    Spent,
    /// What was asked for cannot be done, or the link has ended.
    Failed,
    /// Somebody tells this side to stop.
    Stop,
    /// Time has passed.
    Tick,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    /// Until when to try, and when to try again if this try has failed.
    Connecting {
        until: HostTime,
        again: Option<HostTime>,
    },
    Claiming,
    Marking,
    Drawing,
    Greeted(Greeting),
    Checking,
    Offered,
    Sending,
    Offering,
    Comparing,
    PluggingIn,
    Spending(Refusal),
    Over,
}

/// The primary's start.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PrimaryStart {
    state: State,
    greeting: Greeting,
    /// What the backup is offered; `None`: there is no backup.
    terms: Option<Terms>,
    /// This side has asked for its generation, and not lost it.
    may_hold: bool,
    deadline: Option<HostTime>,
    actions: VecDeque<PrimaryAction>,
}

impl PrimaryStart {
    /// Of the VM, generation and holder in `greeting`, whose nonce is drawn later; `terms`: with a backup.
    #[must_use]
    pub fn new(greeting: Greeting, terms: Option<Terms>, now: HostTime) -> Self {
        let mut start = Self {
            state: State::Over,
            greeting,
            terms,
            may_hold: false,
            deadline: None,
            actions: VecDeque::new(),
        };
        if start.terms.is_some() {
            let until = now.after(CONNECT_PATIENCE_NS);
            start.enter(State::Connecting { until, again: None }, None, PrimaryAction::Connect);
        } else {
            start.claim();
        }
        start
    }

    /// Until when what is awaited may take; then a `Tick` is due.
    #[must_use]
    pub fn deadline(&self) -> Option<HostTime> {
        self.deadline
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<PrimaryAction> {
        self.actions.pop_front()
    }

    /// Whether the last action has been handed out, or waits to be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: HostTime, input: PrimaryInput) {
        use PrimaryInput as In;
        match (self.state.clone(), input) {
            (State::Over, _) => {}
            (State::Spending(why), In::Spent | In::Failed) => self.finish(PrimaryAction::GiveUp(why)),
            (State::Spending(_), _) => {}
            (_, In::Stop) => self.fail(Refusal::Stopped),
            (_, In::Failed) => self.fail(Refusal::Failed),
            (State::Connecting { .. }, In::Connected) => self.claim(),
            (State::Connecting { until, .. }, In::NotConnected) if now > until => {
                self.fail(Refusal::NotReached);
            }
            (State::Connecting { until, .. }, In::NotConnected) => {
                let again = now.after(CONNECT_AGAIN_NS);
                (self.state, self.deadline) = (State::Connecting { until, again: Some(again) }, Some(again));
            }
            (State::Connecting { until, again: Some(again) }, In::Tick) if now >= again => {
                self.enter(State::Connecting { until, again: None }, None, PrimaryAction::Connect);
            }
            (State::Connecting { .. }, In::Tick) => {}
            (_, In::Tick) if self.deadline.is_some_and(|deadline| now >= deadline) => {
                self.fail(Refusal::TooLate);
            }
            (State::Claiming, In::Claimed(verdict)) => self.claimed(verdict),
            (State::Marking, In::Marked) if self.terms.is_none() => self.finish(PrimaryAction::Run),
            (State::Marking, In::Marked) => self.enter(State::Drawing, None, PrimaryAction::Draw),
            (State::Drawing, In::Nonce(nonce)) => self.greet(now, nonce),
            (State::Checking, In::Checked(Some(proof))) => self.offer(now, proof),
            (State::Checking, In::Checked(None)) => self.fail(Refusal::Stranger(Peer::Backup, None)),
            (State::Sending, In::Sent) => self.state = State::Offering,
            (State::Comparing, In::Compared(None)) => {
                self.enter(State::PluggingIn, None, PrimaryAction::PlugIn);
            }
            (State::PluggingIn, In::PluggedIn) => self.finish(PrimaryAction::Run),
            (State::Comparing, In::Compared(Some(what))) => self.fail(Refusal::Unequal(what)),
            (state, In::Heard(word)) => self.hear(now, state, word),
            // An answer to what was not asked: nothing was.
            (_, _) => {}
        }
    }

    fn hear(&mut self, now: HostTime, state: State, word: Word) {
        match (state, word) {
            (_, Word::Refuse(reason)) => self.fail(Refusal::Refused(reason)),
            (State::Greeted(greeting), Word::Challenge { nonce, proof }) => {
                let check = PrimaryAction::Check { greeting, nonce, proof };
                self.enter(State::Checking, self.deadline, check);
            }
            (State::Offered, Word::Welcome) => {
                let bytes = self.terms.as_ref().map_or(0, |terms| terms.snapshot_bytes);
                self.enter(State::Sending, Some(step_until(now, bytes)), PrimaryAction::SendState);
            }
            (State::Offering, Word::Ready(digest)) => {
                self.enter(State::Comparing, None, PrimaryAction::Compare(digest));
            }
            (state, word) => {
                let expected = match state {
                    State::Greeted(_) => "Challenge",
                    State::Offered => "Welcome",
                    State::Offering => "Ready",
                    _ => "nothing",
                };
                self.fail(Refusal::OutOfStep { expected, got: word.name() });
            }
        }
    }

    /// Rule: a backup hears of a generation only once its primary has won it, or it would take over from nobody.
    fn claim(&mut self) {
        self.may_hold = true;
        self.enter(State::Claiming, None, PrimaryAction::Claim(self.greeting.generation));
    }

    fn claimed(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Won => self.enter(State::Marking, None, PrimaryAction::Mark),
            Verdict::Lost => {
                self.may_hold = false;
                self.fail(Refusal::Taken);
            }
            // The claim may have been made and the answer lost.
            Verdict::Unreachable => self.fail(Refusal::Undecided),
        }
    }

    fn greet(&mut self, now: HostTime, nonce: [u8; 32]) {
        let greeting = Greeting { nonce, ..self.greeting.clone() };
        let until = now.after(HANDSHAKE_PATIENCE_NS);
        self.enter(State::Greeted(greeting.clone()), Some(until), PrimaryAction::Send(Word::Greet(greeting)));
    }

    fn offer(&mut self, now: HostTime, proof: [u8; 32]) {
        let Some(terms) = self.terms.clone() else { return };
        let bytes = terms.disks.iter().map(|disk| disk.bytes).fold(0, u64::saturating_add);
        self.actions.push_back(PrimaryAction::Send(Word::Proof(proof)));
        self.enter(State::Offered, Some(step_until(now, bytes)), PrimaryAction::Send(Word::Hello(terms)));
    }

    /// Rule: a start that fails after it has asked for its generation spends it, so that the VM may be started again.
    fn fail(&mut self, why: Refusal) {
        self.actions.clear();
        if self.may_hold {
            let spend = PrimaryAction::Spend(self.greeting.generation);
            self.enter(State::Spending(why), None, spend);
        } else {
            self.finish(PrimaryAction::GiveUp(why));
        }
    }

    fn enter(&mut self, state: State, deadline: Option<HostTime>, action: PrimaryAction) {
        (self.state, self.deadline) = (state, deadline);
        self.actions.push_back(action);
    }

    fn finish(&mut self, last: PrimaryAction) {
        self.enter(State::Over, None, last);
    }
}
