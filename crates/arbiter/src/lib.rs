//! The arbiter's rules, sans-I/O: an atomic test-and-set on (VM, generation), and what a claim looks like at rest.
//!
//! Invariant: for each VM and generation at most one holder ever wins (DESIGN 5, "at most one runs"; Scales et al.
//! 2010, 2.4). The atomicity is the implementation's (`pollux-host` uses `link(2)`); the decision is [`decide`], and
//! it is idempotent, so that a holder whose answer was lost may ask again.
//!
//! A generation once given is never given again, not even when the VM has ended: a replica that slept through the
//! end would win it and run from a state that the world has left behind. A VM that ends therefore does not give its
//! claims back; it claims one more generation for nobody ([`Claim::end`]), and the next start goes on after that
//! ([`first_generation`]).
//!
//! A claim says what it stands on: who holds the generation before ([`Claim::after`]). A place that does not hold that
//! very claim ([`follows`]) is not the arbiter that the claimant means, however much it looks like it: an empty folder
//! where a mount was, another folder, an old copy. It decides nothing.
//!
//! Not here: storage, and when to claim (`pollux-protocol`).
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod identity;

pub use identity::{ArbiterId, Secret, decode_marker, encode_marker};

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use crc::{CRC_32_ISCSI, Crc};
use pollux_vocab::Generation;

/// First line of a claim at rest.
const HEADER: &str = "pollux-claim 2";
/// Longest VM name and holder identity, in bytes.
pub const NAME_BYTES_MAX: usize = 100;
/// The highest generation that is believed. No VM changes hands this often: a higher one is damage or malice, and a
/// VM that took it would soon have no next one.
pub const GENERATION_MAX: Generation = Generation(u64::MAX >> 1);
/// Who holds a generation that was claimed for nobody. No holder's identity starts like this: it begins with a dot.
const NOBODY: &str = ".ended";
/// What a claim at rest stands on that stands on nothing.
const NOTHING: &str = ".nothing";

/// "This generation of this VM is mine."
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Claim {
    /// The VM.
    pub vm: String,
    /// The generation.
    pub generation: Generation,
    /// Who: unique for every start of a process on any host.
    pub holder: String,
    /// Who holds the generation before, as the claimant knows; `None`: nobody ever did, this is the first.
    pub after: Option<String>,
    /// Known to whoever reads the claim, and nobody else.
    pub secret: Secret,
}

impl Claim {
    /// The claim that ends a VM whose newest generation is `newest`, and `holder`'s: the next one is nobody's.
    #[must_use]
    pub fn end(vm: &str, newest: Generation, holder: &str) -> Self {
        let after = Some(holder.into());
        Self {
            vm: vm.into(),
            generation: newest.next(),
            holder: NOBODY.into(),
            after,
            secret: Secret::default(),
        }
    }

    /// Whether this claim says that the VM has ended.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.holder == NOBODY
    }
}

/// The generation in which a VM may start, given the claim of its newest generation, if there is one.
pub fn first_generation(newest: Option<&Claim>) -> Result<Generation, HeldError> {
    match newest {
        None => Ok(Generation(1)),
        Some(claim) if claim.is_end() => Ok(claim.generation.next()),
        Some(claim) => Err(HeldError { generation: claim.generation, holder: claim.holder.clone() }),
    }
}

/// What became of a claim.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// It is the claimant's.
    Won,
    /// It is somebody else's.
    Lost {
        /// Whose.
        holder: String,
    },
    /// Nothing is decided: what the claim stands on does not stand here.
    Elsewhere,
}

/// Why a claim at rest cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is not text, or not a claim.
    #[error("not a claim: {0}")]
    NotAClaim(&'static str),
    /// It is not what was written.
    #[error("its checksum is wrong")]
    Damaged,
    /// A name in it would not have been written.
    #[error("the name {0:?} in it is none: {1}")]
    Name(String, NameError),
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

/// Why a VM must not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("generation {generation} is held by {holder}: the VM runs somewhere, or ended without saying so")]
pub struct HeldError {
    /// The newest generation.
    pub generation: Generation,
    /// Whose it is.
    pub holder: String,
}

/// A place that decides, atomically, which claim comes first: a folder, a witness, a cluster's store.
///
/// Rule: an error is "nothing is known" and never "no". The claim may have been made all the same, and asking again with
/// the same one then wins; only [`Decision::Lost`] says that somebody else has the generation. What every place must do
/// is a test that each of them runs ([`conformance`], with the feature of that name).
pub trait Arbiter {
    /// Why nothing is known.
    type Error;

    /// Test-and-set: makes the claim if its generation is free and what it stands on stands here, and says whose it is.
    fn claim(&mut self, wanted: &Claim) -> Result<Decision, Self::Error>;

    /// The claim of the highest generation that anybody has ever held, if any.
    fn newest(&mut self, vm: &str) -> Result<Option<Claim>, Self::Error>;

    /// The claim on one generation, if anybody has made it.
    fn standing(&mut self, vm: &str, generation: Generation) -> Result<Option<Claim>, Self::Error>;

    /// A VM that ran in generation `own` of `holder` has ended in good order: the next generation is nobody's, so that
    /// no replica that slept wins it. `Won`: so it is. `Lost`: somebody else has the VM, and nothing was ended.
    /// `Elsewhere`: `holder` does not hold `own` here, and nothing was ended.
    fn end(&mut self, vm: &str, own: Generation, holder: &str) -> Result<Decision, Self::Error> {
        let mut own = own;
        let mut is_first = true;
        loop {
            match self.standing(vm, own)? {
                Some(claim) if claim.holder == holder => {}
                Some(claim) if !is_first => return Ok(Decision::Lost { holder: claim.holder }),
                _ => return Ok(Decision::Elsewhere),
            }
            match self.claim(&Claim::end(vm, own, holder))? {
                // Perhaps this holder's too: won by a claim whose answer came too late to matter.
                Decision::Lost { .. } => (own, is_first) = (own.next(), false),
                decided => return Ok(decided),
            }
        }
    }
}

/// An arbiter in memory: what a witness keeps and a simulator uses.
#[derive(Clone, Hash, Debug, Default)]
pub struct Ledger {
    claims: BTreeMap<(String, Generation), Claim>,
}

impl Ledger {
    /// The claim of the VM's newest generation.
    #[must_use]
    pub fn newest(&self, vm: &str) -> Option<&Claim> {
        let (first, last) = ((vm.to_string(), Generation(0)), (vm.to_string(), Generation(u64::MAX)));
        self.claims.range(first..=last).next_back().map(|(_, claim)| claim)
    }
}

impl Arbiter for Ledger {
    type Error = core::convert::Infallible;

    fn claim(&mut self, wanted: &Claim) -> Result<Decision, Self::Error> {
        let before = wanted.generation.0.checked_sub(1).map(Generation);
        let before = before.and_then(|before| self.claims.get(&(wanted.vm.clone(), before)));
        if !follows(before, wanted) {
            return Ok(Decision::Elsewhere);
        }
        let place = (wanted.vm.clone(), wanted.generation);
        Ok(decide(self.claims.entry(place).or_insert_with(|| wanted.clone()), wanted))
    }

    fn newest(&mut self, vm: &str) -> Result<Option<Claim>, Self::Error> {
        Ok(Self::newest(self, vm).cloned())
    }

    fn standing(&mut self, vm: &str, generation: Generation) -> Result<Option<Claim>, Self::Error> {
        Ok(self.claims.get(&(vm.to_string(), generation)).cloned())
    }
}

/// Whether a place in which `before` stands for the generation before is the one that `wanted` means.
#[must_use]
pub fn follows(before: Option<&Claim>, wanted: &Claim) -> bool {
    match &wanted.after {
        Some(holder) => before.is_some_and(|before| before.holder == *holder),
        None => before.is_none() && wanted.generation == Generation(1),
    }
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

/// The bytes of a claim at rest: text, one fact a line, the last of which is the CRC32C of the others.
#[must_use]
pub fn encode(claim: &Claim) -> Vec<u8> {
    let Claim { vm, generation, holder, after, secret } = claim;
    let after = after.as_deref().unwrap_or(NOTHING);
    let secret = identity::hex(&secret.0);
    let text = alloc::format!(
        "{HEADER}\nvm {vm}\ngeneration {generation}\nholder {holder}\nafter {after}\nsecret {secret}\n"
    );
    let check = Crc::<u32>::new(&CRC_32_ISCSI).checksum(text.as_bytes());
    alloc::format!("{text}check {check:08x}\n").into_bytes()
}

/// Reads a claim at rest. Whatever [`encode`] does not write is refused.
pub fn decode(bytes: &[u8]) -> Result<Claim, ClaimError> {
    let text = core::str::from_utf8(bytes).map_err(|_| ClaimError::NotAClaim("it is not text"))?;
    let mut lines = text.split_terminator('\n');
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
    let after = Some(field("after")?).filter(|after| *after != NOTHING).map(ToString::to_string);
    let secret = identity::unhex(field("secret")?).ok_or(ClaimError::NotAClaim("the secret is none"))?;
    let generation =
        Generation(number.parse().map_err(|_| ClaimError::NotAClaim("the generation is no number"))?);
    let claim = Claim { vm, generation, holder, after, secret: Secret(secret) };
    // Whole, unharmed, nothing behind it, and spelt in the one way there is.
    if encode(&claim) != bytes {
        return Err(ClaimError::Damaged);
    }
    let others = [Some(&claim.holder), claim.after.as_ref()].into_iter().flatten();
    for name in others.filter(|name| *name != NOBODY).chain([&claim.vm]) {
        validate_name(name).map_err(|error| ClaimError::Name(name.clone(), error))?;
    }
    Ok(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(holder: &str) -> Claim {
        claim_of(3, holder)
    }

    fn claim_of(generation: u64, holder: &str) -> Claim {
        let after = (generation > 1).then(|| "before".into());
        let secret = Secret([0xa5; 32]);
        Claim {
            vm: "castor".into(),
            generation: Generation(generation),
            holder: holder.into(),
            after,
            secret,
        }
    }

    /// A ledger of a VM whose second generation is held by "before".
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for generation in [1, 2] {
            assert_eq!(ledger.claim(&claim_of(generation, "before")), Ok(Decision::Won));
        }
        ledger
    }

    #[test]
    fn a_claim_survives_being_written_down() {
        assert_eq!(decode(&encode(&claim("a-1"))), Ok(claim("a-1")));
    }

    #[test]
    fn every_truncation_of_a_claim_is_refused() {
        let bytes = encode(&claim("a-1"));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn every_damaged_byte_of_a_claim_is_noticed() {
        let bytes = encode(&claim("a-1"));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(decode(&damaged).is_err(), "byte {at}, bit {bit}");
            }
        }
        let longer = [&bytes[..], b"more"].concat();
        assert_eq!(decode(&longer), Err(ClaimError::Damaged), "nothing follows a claim");
    }

    #[test]
    fn a_claim_with_a_name_that_is_none_is_refused() {
        let bad = Claim { vm: "a/b".into(), ..claim("a") };
        assert!(matches!(decode(&encode(&bad)), Err(ClaimError::Name(name, _)) if name == "a/b"));
        let forged = claim("a\ncheck 0");
        assert!(decode(&encode(&forged)).is_err(), "a holder cannot write further lines");
    }

    #[test]
    fn each_generation_is_given_out_once() {
        let mut ledger = ledger();
        let won = Ok(Decision::Won);
        assert_eq!(ledger.claim(&claim("a")), won);
        assert_eq!(ledger.claim(&claim("b")), Ok(Decision::Lost { holder: "a".into() }));
        assert_eq!(ledger.claim(&claim("a")), won, "an answer that was lost is given again");
        assert_eq!(ledger.claim(&Claim { vm: "other".into(), ..claim_of(1, "b") }), won);
        assert_eq!(ledger.claim(&Claim { after: Some("a".into()), ..claim_of(4, "b") }), won);
        assert_eq!(ledger.newest("castor").map(|c| c.generation), Some(Generation(4)));
    }

    #[test]
    fn a_replica_that_slept_through_the_end_of_its_vm_wins_nothing() {
        let mut ledger = ledger();
        let [primary, backup] = ["p", "b"].map(claim);
        assert_eq!(ledger.claim(&primary), Ok(Decision::Won));
        let end = Claim::end("castor", primary.generation, "p");
        assert_eq!(ledger.claim(&end), Ok(Decision::Won));
        let after = Some("p".into());
        let late = Claim { generation: backup.generation.next(), after, ..backup };
        assert!(matches!(ledger.claim(&late), Ok(Decision::Lost { .. })));
        assert_eq!(decode(&encode(&end)), Ok(end));
    }

    #[test]
    fn a_place_that_does_not_hold_what_a_claim_stands_on_decides_nothing() {
        let elsewhere = Ok(Decision::Elsewhere);
        let mut ledger = ledger();
        assert_eq!(Ledger::default().claim(&claim("b")), elsewhere, "an emptied one");
        assert_eq!(ledger.claim(&Claim { after: Some("c".into()), ..claim("b") }), elsewhere, "another one");
        assert_eq!(ledger.claim(&claim_of(4, "b")), elsewhere, "an old copy");
        assert_eq!(ledger.claim(&Claim { after: None, ..claim_of(2, "b") }), elsewhere, "not the first");
        assert_eq!(Ledger::default().claim(&Claim { after: None, ..claim("b") }), elsewhere, "nor here");
        assert_eq!(ledger.newest("castor").map(|c| c.generation), Some(Generation(2)), "nothing was claimed");
        assert_eq!(ledger.claim(&claim("b")), Ok(Decision::Won));
    }

    #[test]
    fn a_vm_starts_anew_behind_its_end_and_not_while_somebody_holds_it() {
        assert_eq!(first_generation(None), Ok(Generation(1)));
        let end = Claim::end("castor", Generation(3), "a");
        assert_eq!(first_generation(Some(&end)), Ok(Generation(5)));
        let held = first_generation(Some(&claim("a"))).expect_err("held");
        assert_eq!((held.generation, held.holder.as_str()), (Generation(3), "a"));
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(decode(b"pollux-claim 1\n"), Err(ClaimError::Version("pollux-claim 1".into())));
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
