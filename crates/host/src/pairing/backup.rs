//! The backup's start with one visitor, driven.

use super::line::{self, Heard};
use super::{LAST_WORD_PATIENCE, PairingError};
use crate::arbiter_file::random_bytes;
use crate::clock;
use crate::events::EventSender;
use crate::link::{LinkError, LinkReader, LinkSender};
use crate::memory::{self, check_snapshot};
use crate::proof::{Side, is_proof, prove};
use pollux_arbiter::Secret;
use pollux_codec::message::{Greet, Hello, Wire};
use pollux_machine::{Build, DiskPart, Machine, OwnMemory, Restore};
use pollux_protocol::pairing::backup::BUSY;
use pollux_protocol::pairing::{BackupAction, BackupInput, BackupStart, Found, Own, OwnDisk, Word};

/// What a backup's start needs of whoever waits. Errors are reasons, for people; the primary hears them.
pub trait BackupHost {
    /// Opens this side's disks, and reads them if they are to be compared.
    fn open_disks(&mut self) -> Result<Vec<OwnDisk>, String>;
    /// Whether anything on this host is against the machine that is offered.
    fn fit(&mut self, greet: &Greet, hello: &Hello) -> Result<(), String>;
}

/// A visitor that has proven itself, and said what it offers.
#[derive(Debug)]
pub struct Visit {
    /// What it wants.
    pub hello: Hello,
    /// What it has proven.
    pub greet: Greet,
    talk: Talk,
}

/// The state machine, and the link that it talks over.
#[derive(Debug)]
struct Talk {
    start: BackupStart,
    link: LinkSender,
    reader: Option<LinkReader>,
    greet: Option<Greet>,
    hello: Option<Hello>,
    /// The piece of the snapshot that was heard last.
    piece: Vec<u8>,
    broken: Option<LinkError>,
}

/// Meets a peer: until it has proven itself and said hello. `look_up` says what stands at this side's arbiter, and the
/// secret of the claim; a peer that names one that is not there is told nothing of that.
pub fn meet(
    link: LinkSender,
    reader: LinkReader,
    own: Own,
    look_up: impl FnOnce(&Greet) -> Result<(Found, Option<Secret>), String>,
) -> Result<Visit, PairingError> {
    let start = BackupStart::new(own, clock::now());
    let (greet, hello, piece, broken) = (None, None, Vec::new(), None);
    let mut talk = Talk { start, link, reader: Some(reader), greet, hello, piece, broken };
    let mut look_up = Some(look_up);
    let (mut claimed, mut nonce) = (None, [0; 32]);
    loop {
        let input = match (talk.next(None)?, talk.greet.clone(), talk.hello.clone()) {
            (BackupAction::Knock, Some(greet), Some(hello)) => return Ok(Visit { hello, greet, talk }),
            (BackupAction::LookUp(_), Some(greet), _) => {
                let looked = look_up.take().map(|look_up| look_up(&greet));
                let looked = looked.unwrap_or_else(|| Err("it was looked up before".into()));
                BackupInput::Looked(looked.map(|(found, secret)| {
                    claimed = secret;
                    found
                }))
            }
            (BackupAction::Prove { known, .. }, Some(greet), _) => {
                // Without a secret nothing is proved, whatever the peer says.
                let secret = match claimed.filter(|_| known) {
                    Some(secret) => secret,
                    None => Secret(random_bytes()?),
                };
                (nonce, claimed) = (random_bytes()?, Some(secret));
                BackupInput::Proved { nonce, proof: prove(&secret, Side::Backup, &greet, &nonce) }
            }
            (BackupAction::Check(proof), Some(greet), _) => {
                let is_one = |secret| is_proof(&secret, Side::Primary, &greet, &nonce, &proof);
                BackupInput::Checked(claimed.is_some_and(is_one))
            }
            _ => BackupInput::Failed,
        };
        talk.handle(input);
    }
}

/// Tells a peer that there is no place for it, and lets it read that.
pub fn turn_away(mut link: LinkSender, mut reader: LinkReader) {
    line::refuse(&mut link, BUSY);
    link.end(&mut reader, LAST_WORD_PATIENCE);
}

impl Visit {
    /// Takes the visitor in: compares, and builds its machine. Say [`Visit::ready`] when all else is at hand.
    pub fn take<M: Restore>(
        &mut self,
        host: &mut impl BackupHost,
        stop: &EventSender,
    ) -> Result<M, PairingError> {
        let (mut builder, mut machine) = (Some(M::builder(Box::new(OwnMemory))), None);
        let talk = &mut self.talk;
        talk.handle(BackupInput::Taken);
        loop {
            let input = match talk.next(Some(stop))? {
                BackupAction::OpenDisks => {
                    host.open_disks().map_or_else(BackupInput::Unfit, BackupInput::Disks)
                }
                BackupAction::Fit(_) => {
                    let fits =
                        host.fit(&self.greet, &self.hello).and_then(|()| check_kind(&self.hello, M::KIND));
                    BackupInput::Fits(fits.and_then(|()| check_snapshot(&self.hello, memory::available())))
                }
                BackupAction::Keep => match builder.as_mut().map(|builder| builder.push(&talk.piece)) {
                    Some(Ok(())) => continue,
                    Some(Err(error)) => BackupInput::Unfit(error.to_string()),
                    None => BackupInput::Failed,
                },
                BackupAction::Build => match builder.take().map(Build::finish) {
                    Some(Ok(built)) => {
                        let parts = built.parts();
                        let disk = |disk: &DiskPart| (disk.slot, disk.read_only);
                        let read_only = parts.disks.iter().map(disk).collect();
                        machine = Some(built);
                        BackupInput::Built { ram_bytes: parts.memory_bytes, read_only }
                    }
                    Some(Err(error)) => BackupInput::Unfit(error.to_string()),
                    None => BackupInput::Failed,
                },
                BackupAction::PlugIn => match machine.take() {
                    Some(machine) => return Ok(machine),
                    None => BackupInput::Failed,
                },
                _ => BackupInput::Failed,
            };
            talk.handle(input);
        }
    }

    /// What the peer says from here on is for whoever takes this: the protocol, once the pair is one.
    pub fn take_reader(&mut self) -> Option<LinkReader> {
        self.talk.reader.take()
    }

    /// The last word: from here on this side backs `machine` up, and the primary runs. `plugged_in`: whether all that
    /// may fail on this host has not; if it has, the primary hears why.
    pub fn ready(
        mut self,
        machine: &mut impl Machine,
        plugged_in: Result<(), String>,
        stop: &EventSender,
    ) -> Result<LinkSender, PairingError> {
        let talk = &mut self.talk;
        talk.handle(plugged_in.map_or_else(BackupInput::Unfit, |()| BackupInput::PluggedIn));
        loop {
            let input = match talk.next(Some(stop))? {
                BackupAction::Digest => BackupInput::Digested(machine.digest()),
                BackupAction::Back => return Ok(self.talk.link),
                _ => BackupInput::Failed,
            };
            talk.handle(input);
        }
    }

    /// Tells the visitor that there is no place for it, and lets it read that.
    pub fn turn_away(self) {
        let mut talk = self.talk;
        talk.handle(BackupInput::Busy);
        let _ = talk.next(None);
        if let Some(mut reader) = talk.reader {
            talk.link.end(&mut reader, LAST_WORD_PATIENCE);
        }
    }
}

impl Talk {
    /// The next thing to do that is not the link's: words are said and heard here.
    fn next(&mut self, stop: Option<&EventSender>) -> Result<BackupAction, PairingError> {
        loop {
            match self.start.poll_action() {
                Some(BackupAction::Send(Word::Refuse(reason))) => line::refuse(&mut self.link, &reason),
                Some(BackupAction::Send(word)) => self.say(word, stop),
                Some(BackupAction::GiveUp(why)) => return Err(PairingError::of(why, self.broken.take())),
                Some(action) => return Ok(action),
                None => self.hear(stop),
            }
        }
    }

    fn say(&mut self, word: Word, stop: Option<&EventSender>) {
        let is_last = matches!(word, Word::Ready(_));
        let patience = line::patience(self.start.deadline(), stop);
        let sent = match line::to_wire(word, None) {
            Some(wire) => line::send(&mut self.link, &wire, &patience),
            None => Heard::Broken(LinkError::Closed),
        };
        match sent {
            Heard::Done(()) if is_last => self.handle(BackupInput::Sent),
            Heard::Done(()) => {}
            other => self.not_done(other),
        }
    }

    fn hear(&mut self, stop: Option<&EventSender>) {
        let patience = line::patience(self.start.deadline(), stop);
        let heard = match &mut self.reader {
            Some(reader) => line::hear(reader, &patience),
            None => Heard::Broken(LinkError::Closed),
        };
        let Heard::Done(wire) = heard else { return self.not_done(heard) };
        let word = line::to_word(&wire);
        match wire {
            Wire::Greet(greet) => self.greet = Some(greet),
            Wire::Hello(hello) => self.hello = Some(hello),
            Wire::State { bytes, .. } => self.piece = bytes,
            _ => {}
        }
        self.handle(BackupInput::Heard(word));
    }

    fn not_done<T>(&mut self, heard: Heard<T>) {
        let input = match heard {
            Heard::Done(_) => return,
            Heard::TooLate => BackupInput::Tick,
            Heard::Stopped => BackupInput::Stop,
            Heard::Broken(error) => {
                self.broken = Some(error);
                BackupInput::Failed
            }
        };
        self.handle(input);
    }

    fn handle(&mut self, input: BackupInput) {
        self.start.handle(clock::now(), input);
    }
}

/// Whether a peer's machine is of the kind that this side runs.
fn check_kind(hello: &Hello, ours: &str) -> Result<(), String> {
    let theirs = &hello.machine;
    if theirs == ours {
        return Ok(());
    }
    Err(format!(
        "the VM is a machine of the kind {theirs:?}, and this backup runs the kind {ours:?}; start a backup of that kind, with the same version of Pollux"
    ))
}
