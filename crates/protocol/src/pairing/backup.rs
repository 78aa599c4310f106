//! The backup's start with one visitor: meet it, compare what it offers, take its machine, be ready.
//!
//! Invariant: a peer that has not proven that it reads the same arbiter hears a challenge, the same whatever it says, and
//! not a word more: neither whether the VM is known nor why it is not believed. Mirrored by [`super::primary`].

use super::disks::{check_disks, check_read_only};
use super::terms::{Found, Greeting, Own, OwnDisk, Peer, Refusal, Terms, Word};
use super::{HANDSHAKE_PATIENCE_NS, STRANGER_PATIENCE_NS, step_until};
use crate::types::HostTime;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pollux_vocab::{Digest, SlotId};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum BackupAction {
    /// Look the claim up at this side's arbiter; say `Looked`.
    LookUp(Greeting),
    /// Draw a nonce and prove with the claim's secret, or (`known` is false) with a random one; say `Proved`.
    Prove {
        /// What the peer said of itself.
        greeting: Greeting,
        /// Whether the claim is to be used.
        known: bool,
    },
    /// Say this to the primary; of Ready, say `Sent`.
    Send(Word),
    /// See whether this proves that the primary knows the claim's secret; say `Checked`.
    Check([u8; 32]),
    /// The peer is no stranger and has said what it offers: whether there is a place for it is for this host to say
    /// (`Taken`, `Busy`).
    Knock,
    /// Open this side's disks, and read them if they are to be compared; say `Disks`.
    OpenDisks,
    /// See whether this host can take the machine that is offered: its room, the marks of its disks; say `Fits`.
    Fit(Terms),
    /// Keep the piece of the snapshot that was said last; say `Failed` if there is no room.
    Keep,
    /// Build the machine from the snapshot; say `Built`.
    Build,
    /// Plug disks, network and console in, and let the arbiter answer; say `PluggedIn`.
    PlugIn,
    /// Give the machine's digest; say `Digested`.
    Digest,
    /// The last: back the machine up.
    Back,
    /// The last: leave the visitor.
    GiveUp(Refusal),
}

/// What has happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum BackupInput {
    /// The peer has said this.
    Heard(Word),
    /// What stands at this side's arbiter; `Err`: why nobody knows.
    Looked(Result<Found, String>),
    /// This side's nonce and proof.
    Proved {
        /// Random, of this connection alone.
        nonce: [u8; 32],
        /// With the secret.
        proof: [u8; 32],
    },
    /// Whether the peer's proof is one.
    Checked(bool),
    /// There is a place for it.
    Taken,
    /// There is none.
    Busy,
    /// This side's disks, opened.
    Disks(Vec<OwnDisk>),
    /// This host can take the machine; `Err`: why not.
    Fits(Result<(), String>),
    /// The machine is built: its RAM, and which disks its guest only reads.
    Built {
        /// In bytes.
        ram_bytes: u64,
        /// Slots with a disk, and whether it is read-only.
        read_only: Vec<(SlotId, bool)>,
    },
    /// Everything is plugged in.
    PluggedIn,
    /// The digest of the machine.
    Digested(Digest),
    /// The last word has left.
    Sent,
    /// Something on this host is not as it must be: why.
    Unfit(String),
    /// The link has ended, or this process cannot go on.
    Failed,
    /// Somebody tells this side to stop.
    Stop,
    /// Time has passed.
    Tick,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Waiting,
    LookingUp(Greeting),
    /// With why the peer is not believed, if it is not.
    Proving(Greeting, Option<String>),
    Challenging(Greeting, Option<String>),
    Checking(Greeting),
    Met(Greeting),
    InLine(Terms),
    Opening(Terms),
    Fitting(Terms, Vec<OwnDisk>),
    Taking(Terms, Vec<OwnDisk>, u64),
    Building(Terms, Vec<OwnDisk>),
    PluggingIn,
    Digesting,
    Parting,
    Over,
}

/// The backup's start with one visitor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BackupStart {
    state: State,
    own: Own,
    deadline: Option<HostTime>,
    actions: VecDeque<BackupAction>,
}

impl BackupStart {
    /// Of a visitor that has just come.
    #[must_use]
    pub fn new(own: Own, now: HostTime) -> Self {
        let deadline = Some(now.after(STRANGER_PATIENCE_NS));
        Self { state: State::Waiting, own, deadline, actions: VecDeque::new() }
    }

    /// Until when what is awaited may take; then a `Tick` is due.
    #[must_use]
    pub fn deadline(&self) -> Option<HostTime> {
        self.deadline
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<BackupAction> {
        self.actions.pop_front()
    }

    /// Whether the last action has been handed out, or waits to be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: HostTime, input: BackupInput) {
        use BackupInput as In;
        match (self.state.clone(), input) {
            (State::Over, _) => {}
            (_, In::Stop) => self.fail(Refusal::Stopped),
            (_, In::Failed) => self.fail(Refusal::Failed),
            (_, In::Unfit(why)) => self.fail(Refusal::Unfit(why)),
            (_, In::Tick) if self.deadline.is_some_and(|deadline| now >= deadline) => {
                self.fail(Refusal::TooLate);
            }
            (State::LookingUp(greeting), In::Looked(found)) => {
                let unknown = found.and_then(|found| is_known(&greeting, &found)).err();
                let prove = BackupAction::Prove { greeting: greeting.clone(), known: unknown.is_none() };
                self.enter(State::Proving(greeting, unknown), self.deadline, prove);
            }
            (State::Proving(greeting, unknown), In::Proved { nonce, proof }) => {
                let challenge = BackupAction::Send(Word::Challenge { nonce, proof });
                self.enter(State::Challenging(greeting, unknown), self.deadline, challenge);
            }
            (State::Checking(greeting), In::Checked(true)) => {
                (self.state, self.deadline) = (State::Met(greeting), Some(now.after(HANDSHAKE_PATIENCE_NS)));
            }
            (State::Checking(_), In::Checked(false)) => self.fail(Refusal::Stranger(Peer::Primary, None)),
            (State::InLine(terms), In::Taken) => {
                self.enter(State::Opening(terms), None, BackupAction::OpenDisks);
            }
            (State::InLine(_), In::Busy) => self.fail(Refusal::Unfit(BUSY.into())),
            (State::Opening(terms), In::Disks(disks)) => match check(&terms, &self.own, &disks) {
                Ok(()) => {
                    let fit = BackupAction::Fit(terms.clone());
                    self.enter(State::Fitting(terms, disks), None, fit);
                }
                Err(why) => self.fail(Refusal::Unfit(why)),
            },
            (State::Fitting(_, _), In::Fits(Err(why))) => self.fail(Refusal::Unfit(why)),
            (State::Fitting(terms, disks), In::Fits(Ok(()))) => {
                let until = step_until(now, terms.snapshot_bytes);
                let welcome = BackupAction::Send(Word::Welcome);
                self.enter(State::Taking(terms, disks, 0), Some(until), welcome);
            }
            (State::Building(terms, disks), In::Built { ram_bytes, read_only }) => {
                self.built(&terms, &disks, ram_bytes, &read_only);
            }
            (State::PluggingIn, In::PluggedIn) => self.enter(State::Digesting, None, BackupAction::Digest),
            (State::Digesting, In::Digested(digest)) => {
                // Rule: this is this side's last word. Whatever may fail on this host has come before.
                let until = Some(now.after(HANDSHAKE_PATIENCE_NS));
                self.enter(State::Parting, until, BackupAction::Send(Word::Ready(digest)));
            }
            (State::Parting, In::Sent) => self.enter(State::Over, None, BackupAction::Back),
            (state, In::Heard(word)) => self.hear(state, word),
            // An answer to what was not asked: nothing was.
            (_, _) => {}
        }
    }

    fn hear(&mut self, state: State, word: Word) {
        match (state, word) {
            (State::Waiting, Word::Greet(greeting)) => {
                let look = BackupAction::LookUp(greeting.clone());
                self.enter(State::LookingUp(greeting), self.deadline, look);
            }
            // Rule: who is not known is asked for a proof all the same, and hears nothing of why it is none.
            (State::Challenging(_, Some(why)), Word::Proof(_)) => {
                self.fail(Refusal::Stranger(Peer::Primary, Some(why)));
            }
            (State::Challenging(greeting, None), Word::Proof(proof)) => {
                self.enter(State::Checking(greeting), self.deadline, BackupAction::Check(proof));
            }
            (State::Met(greeting), Word::Hello(terms)) => {
                if (&terms.vm, terms.generation) == (&greeting.vm, greeting.generation) {
                    // In line it waits for this host, and this host for nothing of its.
                    self.enter(State::InLine(terms), None, BackupAction::Knock);
                } else {
                    self.leave(Refusal::Unfit("the peer says hello for another VM than it proved".into()));
                }
            }
            (State::Taking(terms, disks, held), Word::State { offset, bytes }) => {
                if offset != held || bytes > terms.snapshot_bytes.saturating_sub(held) {
                    let why = format!("a piece of the snapshot is out of place at byte {offset}");
                    return self.fail(Refusal::Unfit(why));
                }
                self.enter(State::Taking(terms, disks, held + bytes), self.deadline, BackupAction::Keep);
            }
            (State::Taking(terms, disks, held), Word::StateEnd(total)) if total == held => {
                self.enter(State::Building(terms, disks), None, BackupAction::Build);
            }
            (State::Taking(_, _, held), Word::StateEnd(total)) => {
                self.fail(Refusal::Unfit(format!("the snapshot ends after {held} of {total} bytes")));
            }
            (state, word) => {
                let expected = match state {
                    State::Waiting => "Greet",
                    State::Challenging(..) => "Proof",
                    State::Met(_) => "Hello",
                    State::Taking(..) => "State",
                    _ => "nothing",
                };
                self.leave(Refusal::OutOfStep { expected, got: word.name() });
            }
        }
    }

    fn built(&mut self, terms: &Terms, disks: &[OwnDisk], ram_bytes: u64, read_only: &[(SlotId, bool)]) {
        let fits = if ram_bytes == terms.ram_bytes {
            check_read_only(read_only, disks)
        } else {
            Err("the snapshot is of another machine than the Hello".into())
        };
        match fits {
            Ok(()) => self.enter(State::PluggingIn, None, BackupAction::PlugIn),
            Err(why) => self.fail(Refusal::Unfit(why)),
        }
    }

    /// Rule: a peer that has proven itself and waits for this side is told why not; nobody else is told anything.
    fn fail(&mut self, why: Refusal) {
        self.actions.clear();
        let waits = matches!(
            self.state,
            State::InLine(_)
                | State::Opening(_)
                | State::Fitting(..)
                | State::Taking(..)
                | State::Building(..)
                | State::PluggingIn
                | State::Digesting
        );
        let says = match &why {
            Refusal::Unfit(reason) => Some(reason.clone()),
            Refusal::Stopped => Some("told to stop".to_string()),
            _ => None,
        };
        if let Some(reason) = says.filter(|_| waits) {
            self.actions.push_back(BackupAction::Send(Word::Refuse(reason)));
        }
        self.leave(why);
    }

    fn leave(&mut self, why: Refusal) {
        self.enter(State::Over, None, BackupAction::GiveUp(why));
    }

    fn enter(&mut self, state: State, deadline: Option<HostTime>, action: BackupAction) {
        (self.state, self.deadline) = (state, deadline);
        self.actions.push_back(action);
    }
}

/// What a peer hears for whom there is no place.
pub const BUSY: &str = "it is busy with another primary, or with too many peers at once; try again later";

/// Rule: both sides ask the same arbiter. A primary has won its generation there before it greets, nobody has won the
/// next one, and it is the holder that it says it is.
fn is_known(greeting: &Greeting, found: &Found) -> Result<(), String> {
    let Greeting { vm, generation, holder, .. } = greeting;
    if greeting.arbiter != found.arbiter {
        return Err(
            "the primary's --arbiter is another one than this backup's; give both sides the same folder"
                .into(),
        );
    }
    if found.holder.as_ref() != Some(holder) {
        return Err(format!(
            "generation {generation} of {vm} is not held by {holder} at this backup's --arbiter"
        ));
    }
    if found.is_spent {
        return Err(format!("generation {generation} of {vm} is spent: the next one has been claimed"));
    }
    Ok(())
}

/// Rule: a machine is taken that this side expects, whose timeouts make sense, and whose disks are this side's.
fn check(terms: &Terms, own: &Own, disks: &[OwnDisk]) -> Result<(), String> {
    let Terms { ram_bytes, heartbeat_ns, failure_ns, .. } = terms;
    if let Some((wanted, said)) = &own.ram
        && wanted != ram_bytes
    {
        return Err(format!(
            "the VM has {ram_bytes} bytes of RAM, this backup was told --memory {said}; give both sides the same"
        ));
    }
    if *heartbeat_ns == 0 || heartbeat_ns.saturating_mul(2) > *failure_ns {
        return Err(format!(
            "the primary's timeouts make no sense: heartbeat {heartbeat_ns} ns, failure {failure_ns} ns"
        ));
    }
    check_disks(&terms.disks, disks)
}
