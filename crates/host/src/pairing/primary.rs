//! The primary's start, driven.

use super::PairingError;
use super::line::{self, Heard};
use crate::arbiter_file::random_bytes;
use crate::clock;
use crate::events::EventSender;
use crate::link::{LinkError, LinkReader, LinkSender};
use crate::proof::{Side, is_proof, prove};
use pollux_arbiter::Secret;
use pollux_codec::message::{Greet, Hello, Wire};
use pollux_machine::{Freeze, Pieces};
use pollux_protocol::Verdict;
use pollux_protocol::pairing::{PrimaryAction, PrimaryInput, PrimaryStart, Word};
use pollux_vocab::{Digest, Generation};
use std::time::Duration;

/// How often a wait without a link looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a primary's start needs of whoever starts it.
pub trait PrimaryHost {
    /// Why something cannot be done.
    type Error;
    /// Tries to reach the backup, once. `None`: it is not there yet.
    fn connect(&mut self) -> Result<Option<(LinkSender, LinkReader)>, Self::Error>;
    /// Asks the arbiter for the generation.
    fn claim(&mut self, generation: Generation) -> Result<Verdict, Self::Error>;
    /// Writes down on the disks in which generation they are used.
    fn mark(&mut self) -> Result<(), Self::Error>;
    /// Lets the link feed the VM that is about to run, and the arbiter answer it.
    fn plug_in(&mut self, link: LinkSender, reader: LinkReader) -> Result<(), Self::Error>;
    /// Spends the generation behind this one, as far as the arbiter can be reached.
    fn spend(&mut self, generation: Generation);
}

/// What a backup is offered.
#[derive(Debug)]
pub struct Offer<'a, 'm, M: Freeze> {
    /// The machine, described; how long its snapshot is was measured before.
    pub hello: Hello,
    /// The frozen machine, in pieces.
    pub snapshot: &'a mut Pieces<'m, M>,
}

/// A start under way.
struct Starting<'a, 'm, H: PrimaryHost, M: Freeze> {
    start: PrimaryStart,
    host: &'a mut H,
    offer: Option<Offer<'a, 'm, M>>,
    secret: Secret,
    stop: &'a EventSender,
    link: Option<LinkSender>,
    reader: Option<LinkReader>,
    broken: Option<LinkError>,
    failed: Option<H::Error>,
}

/// Starts a VM in the generation of `greet`, whose claim holds `secret`; with a backup, if it is to be offered one. The
/// error is also what went wrong on the host, if that is why.
pub fn start<H: PrimaryHost, M: Freeze>(
    (greet, secret): (&Greet, Secret),
    offer: Option<Offer<'_, '_, M>>,
    host: &mut H,
    stop: &EventSender,
) -> Result<(), (PairingError, Option<H::Error>)> {
    let terms = offer.as_ref().map(|offer| line::terms(&offer.hello));
    let start = PrimaryStart::new(line::to_greeting(greet), terms, clock::now());
    let (link, reader, broken, failed) = (None, None, None, None);
    Starting { start, host, offer, secret, stop, link, reader, broken, failed }.run()
}

impl<H: PrimaryHost, M: Freeze> Starting<'_, '_, H, M> {
    fn run(mut self) -> Result<(), (PairingError, Option<H::Error>)> {
        loop {
            let input = match self.start.poll_action() {
                Some(PrimaryAction::Run) => return Ok(()),
                Some(PrimaryAction::GiveUp(why)) => {
                    return Err((PairingError::of(why, self.broken), self.failed));
                }
                Some(action) => self.act(action),
                None => Some(self.hear()),
            };
            if let Some(input) = input {
                self.start.handle(clock::now(), input);
            }
        }
    }

    fn act(&mut self, action: PrimaryAction) -> Option<PrimaryInput> {
        Some(match action {
            PrimaryAction::Connect => match self.host.connect() {
                Ok(Some((link, reader))) => {
                    (self.link, self.reader) = (Some(link), Some(reader));
                    PrimaryInput::Connected
                }
                Ok(None) => PrimaryInput::NotConnected,
                Err(error) => self.fail(error),
            },
            PrimaryAction::Claim(generation) => {
                let verdict = self.host.claim(generation).unwrap_or_else(|error| {
                    self.failed = Some(error);
                    Verdict::Unreachable
                });
                PrimaryInput::Claimed(verdict)
            }
            PrimaryAction::Mark => match self.host.mark() {
                Ok(()) => PrimaryInput::Marked,
                Err(error) => self.fail(error),
            },
            PrimaryAction::Draw => match random_bytes() {
                Ok(nonce) => PrimaryInput::Nonce(nonce),
                Err(error) => self.broke(error.into()),
            },
            PrimaryAction::Send(word) => return self.send(word),
            PrimaryAction::Check { greeting, nonce, proof } => {
                let (greet, secret) = (line::to_greet(greeting), &self.secret);
                let knows = is_proof(secret, Side::Backup, &greet, &nonce, &proof);
                PrimaryInput::Checked(knows.then(|| prove(secret, Side::Primary, &greet, &nonce)))
            }
            PrimaryAction::SendState => self.send_state(),
            PrimaryAction::Compare(theirs) => PrimaryInput::Compared(self.compare(&theirs)),
            PrimaryAction::PlugIn => match (self.link.take(), self.reader.take()) {
                (Some(link), Some(reader)) => match self.host.plug_in(link, reader) {
                    Ok(()) => PrimaryInput::PluggedIn,
                    Err(error) => self.fail(error),
                },
                _ => self.broke(LinkError::Closed),
            },
            PrimaryAction::Spend(generation) => {
                self.host.spend(generation);
                PrimaryInput::Spent
            }
            PrimaryAction::Run | PrimaryAction::GiveUp(_) => return None,
        })
    }

    fn fail(&mut self, error: H::Error) -> PrimaryInput {
        self.failed = Some(error);
        PrimaryInput::Failed
    }

    fn broke(&mut self, error: LinkError) -> PrimaryInput {
        self.broken = Some(error);
        PrimaryInput::Failed
    }

    fn send(&mut self, word: Word) -> Option<PrimaryInput> {
        let wire = line::to_wire(word, self.offer.as_ref().map(|offer| &offer.hello));
        let patience = line::patience(self.start.deadline(), Some(self.stop));
        let sent = match (wire, &mut self.link) {
            (Some(wire), Some(link)) => line::send(link, &wire, &patience),
            _ => Heard::Broken(LinkError::Closed),
        };
        self.unless_done(sent).err()
    }

    fn send_state(&mut self) -> PrimaryInput {
        let patience = line::patience(self.start.deadline(), Some(self.stop));
        let (Some(offer), Some(link)) = (&mut self.offer, &mut self.link) else {
            return self.broke(LinkError::Closed);
        };
        let mut offset = 0;
        let sent = offer.snapshot.by_ref().try_for_each(|bytes| {
            let len = bytes.len() as u64;
            let sent = link.send_within(&Wire::State { offset, bytes }, &patience);
            offset += len;
            sent
        });
        let sent = sent.and_then(|()| link.send_within(&Wire::StateEnd { total: offset }, &patience));
        match self.unless_done(sent.into()) {
            Ok(()) => PrimaryInput::Sent,
            Err(input) => input,
        }
    }

    fn compare(&mut self, theirs: &Digest) -> Option<String> {
        let ours = self.offer.as_mut()?.snapshot.machine().digest();
        pollux_node::divergence::compare(&ours, theirs).map(|difference| difference.to_string())
    }

    fn hear(&mut self) -> PrimaryInput {
        let patience = line::patience(self.start.deadline(), Some(self.stop));
        let heard = match &mut self.reader {
            Some(reader) => line::hear(reader, &patience),
            None => {
                std::thread::sleep(LOOK_EVERY);
                if self.stop.is_stopping() { Heard::Stopped } else { Heard::TooLate }
            }
        };
        match self.unless_done(heard) {
            Ok(wire) => PrimaryInput::Heard(line::to_word(&wire)),
            Err(input) => input,
        }
    }

    fn unless_done<T>(&mut self, heard: Heard<T>) -> Result<T, PrimaryInput> {
        match heard {
            Heard::Done(done) => Ok(done),
            Heard::TooLate => Err(PrimaryInput::Tick),
            Heard::Stopped => Err(PrimaryInput::Stop),
            Heard::Broken(error) => Err(self.broke(error)),
        }
    }
}
