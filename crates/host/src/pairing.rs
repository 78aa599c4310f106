//! How two hosts become a pair, for real: what the machines of [`pollux_protocol::pairing`] ask for is done here, with a
//! link, the host's clock, proofs and snapshots. Who says what when, every deadline and every refusal is decided there.
//!
//! Invariant: each side shows that it knows the secret of the claim that the primary runs on ([`crate::proof`]) before it
//! says anything that a stranger could use. A step ends early if this process is told to stop.
//!
//! The state that both sides start from is a snapshot that the primary sends, so the backup needs neither the
//! kernel nor the machine's description, only its own images of replicated disks.
//!
//! Not here: what only the caller knows (how a backup is reached, whose the claim is, where disks and networks are
//! plugged in): [`PrimaryHost`], [`BackupHost`].

mod backup;
mod line;
mod primary;

pub use backup::{BackupHost, Visit, meet, turn_away};
pub use pollux_protocol::pairing::{Found, Own, OwnDisk, Refusal};
pub use primary::{Offer, PrimaryHost, start};

use crate::link::LinkError;
use pollux_protocol::pairing::{LAST_WORD_PATIENCE_NS, Peer, STRANGER_PATIENCE_NS};
use std::time::Duration;

/// How long a stranger may take over all that it takes to become none.
pub const STRANGER_PATIENCE: Duration = Duration::from_nanos(STRANGER_PATIENCE_NS);
/// How long a peer that is turned away may take to read why.
const LAST_WORD_PATIENCE: Duration = Duration::from_nanos(LAST_WORD_PATIENCE_NS);

/// Why two hosts do not become a pair.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The link failed or spoke something else.
    #[error("pairing failed: {0}")]
    Link(#[from] LinkError),
    /// The backup will not.
    #[error("the backup refuses: {0}")]
    Refused(String),
    /// This side will not.
    #[error("pairing refused: {0}")]
    Unfit(String),
    /// The peer does not know the secret.
    #[error(
        "{0} could not prove that it reads the same arbiter: give both sides the same --arbiter folder, and let both read the claims in it"
    )]
    Stranger(&'static str),
    /// The peer has said something of its claim that is not so.
    #[error("{0}")]
    Unknown(String),
    /// The peer is out of step.
    #[error("pairing failed: expected {expected}, the peer sent {got}")]
    OutOfStep {
        /// What should have come.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// The two machines are not equal.
    #[error(
        "the backup built another machine from the same snapshot ({what}); the two hosts run different versions of Pollux, or one has bad memory"
    )]
    Unequal {
        /// What differs.
        what: String,
    },
    /// The VM does not start.
    #[error("{0}")]
    NotStarted(Refusal),
}

impl From<std::io::Error> for PairingError {
    fn from(error: std::io::Error) -> Self {
        Self::Link(error.into())
    }
}

impl PairingError {
    /// A refusal in words; `broken`: why the link has failed, if it has.
    fn of(why: Refusal, broken: Option<LinkError>) -> Self {
        match why {
            Refusal::Refused(reason) => Self::Refused(reason),
            Refusal::Unfit(reason) => Self::Unfit(reason),
            Refusal::Stranger(_, Some(reason)) => Self::Unknown(reason),
            Refusal::Stranger(Peer::Backup, None) => Self::Stranger("the backup"),
            Refusal::Stranger(Peer::Primary, None) => Self::Stranger("the peer"),
            Refusal::OutOfStep { expected, got } => Self::OutOfStep { expected, got },
            Refusal::Unequal(what) => Self::Unequal { what },
            Refusal::TooLate => Self::Link(LinkError::TooLate),
            Refusal::Stopped => Self::Link(LinkError::Stopped),
            Refusal::Failed => Self::Link(broken.unwrap_or(LinkError::Closed)),
            Refusal::NotReached | Refusal::Taken | Refusal::Undecided => Self::NotStarted(why),
        }
    }
}

#[cfg(test)]
mod tests;
