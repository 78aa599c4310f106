//! The network card as it is saved.

use super::Net;
use crate::state::state;

state!(
    /// Version 1.
    NetV1 of Net { mac: [u8; 6] }
);
