//! The arbiter's rules, sans-I/O: an atomic test-and-set on (VM, generation), and what a claim looks like at rest.
//!
//! Invariant: for each VM and generation at most one holder ever wins (DESIGN 5, "at most one runs"). The atomicity
//! is the implementation's (`pollux-host` uses `link(2)`); the decision is [`decide`], and it is idempotent, so that
//! a holder whose answer was lost may ask again.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pollux_vocab::Generation;

/// First line of a claim at rest.
const HEADER: &str = "pollux-claim 1";
/// Longest VM name and holder identity, in bytes.
pub const NAME_BYTES_MAX: usize = 100;

/// "This generation of this VM is mine."
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The VM.
    pub vm: String,
    /// The generation.
    pub generation: Generation,
    /// Who: unique for every start of a process on any host.
    pub holder: String,
}

/// What became of a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is the claimant's.
    Won,
    /// It is somebody else's.
    Lost {
        /// Whose.
        holder: String,
    },
}

/// Why a claim at rest cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is not text, or not a claim.
    #[error("not a claim: {0}")]
    NotAClaim(&'static str),
    /// It was written by another version.
    #[error("written by another version of Pollux: {0:?}")]
    Version(String),
}

/// Why a name will not do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Empty, or too long.
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes")]
    Length,
    /// A character that names no file safely.
    #[error(
        "a name consists of letters, digits, '-', '_' and '.', and does not start with '.'; {0:?} is something else"
    )]
    Character(char),
}

/// Decides between the claim that holds the place and the one that wants it.
#[must_use]
pub fn decide(standing: &Claim, wanted: &Claim) -> Decision {
    if standing == wanted { Decision::Won } else { Decision::Lost { holder: standing.holder.clone() } }
}

/// Checks a VM's name: it becomes part of file names.
pub fn validate_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(NameError::Length);
    }
    if name.starts_with('.') {
        return Err(NameError::Character('.'));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// The bytes of a claim at rest: text, one fact a line, ended by a line that says that it is whole.
#[must_use]
pub fn encode(claim: &Claim) -> Vec<u8> {
    alloc::format!(
        "{HEADER}\nvm {}\ngeneration {}\nholder {}\nend\n",
        claim.vm,
        claim.generation,
        claim.holder
    )
    .into_bytes()
}

/// Reads a claim at rest.
pub fn decode(bytes: &[u8]) -> Result<Claim, ClaimError> {
    let text = core::str::from_utf8(bytes).map_err(|_| ClaimError::NotAClaim("it is not text"))?;
    let mut lines = text.lines();
    match lines.next() {
        Some(HEADER) => {}
        Some(other) if other.starts_with("pollux-claim ") => {
            return Err(ClaimError::Version(other.to_string()));
        }
        _ => return Err(ClaimError::NotAClaim("it does not start like one")),
    }
    let mut field = |name: &'static str| {
        lines
            .next()
            .and_then(|line| line.strip_prefix(name))
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or(ClaimError::NotAClaim("a line is missing"))
    };
    let vm = field("vm")?.to_string();
    let number = field("generation")?;
    let holder = field("holder")?.to_string();
    let generation =
        Generation(number.parse().map_err(|_| ClaimError::NotAClaim("the generation is no number"))?);
    if lines.next() != Some("end") {
        return Err(ClaimError::NotAClaim("it is cut off"));
    }
    Ok(Claim { vm, generation, holder })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(holder: &str) -> Claim {
        Claim { vm: "castor".into(), generation: Generation(3), holder: holder.into() }
    }

    #[test]
    fn a_claim_survives_being_written_down() {
        assert_eq!(decode(&encode(&claim("a-1"))), Ok(claim("a-1")));
    }

    #[test]
    fn every_truncation_of_a_claim_is_refused() {
        let bytes = encode(&claim("a-1"));
        for length in 0..bytes.len() - 1 {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(decode(b"pollux-claim 2\n"), Err(ClaimError::Version("pollux-claim 2".into())));
    }

    #[test]
    fn only_who_holds_the_place_has_won_and_wins_again_when_asking_again() {
        assert_eq!(decide(&claim("a"), &claim("a")), Decision::Won);
        assert_eq!(decide(&claim("a"), &claim("b")), Decision::Lost { holder: "a".into() });
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for bad in ["", ".", "..", ".x", "a/b", "a b", "ä", &"x".repeat(101)] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
        for good in ["vm", "redis-1", "a.b_c"] {
            assert_eq!(validate_name(good), Ok(()));
        }
    }
}
