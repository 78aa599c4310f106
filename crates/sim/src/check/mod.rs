//! The checkers: what must be true of every run, whatever went wrong in it. One file a property.
//!
//! They see what the world sees (outputs, answers, claims) and what the node says of itself, never the protocol's
//! insides; so they hold for any implementation of it.

pub(crate) mod asks;
pub(crate) mod digests;
pub(crate) mod endings;
pub(crate) mod exclusive;
pub(crate) mod linear;
pub(crate) mod outputs;

/// What was found, in words, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The instant, in virtual nanoseconds.
    pub at_ns: u64,
    /// Which property does not hold: a stable name.
    pub property: &'static str,
    /// How it was seen.
    pub what: String,
}

/// A property that does not hold, before anybody has written down when.
pub(crate) struct Broken(pub(crate) &'static str, pub(crate) String);
