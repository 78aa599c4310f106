//! At most one runs: in each generation one host at most releases outputs; nobody runs alone, or in a generation
//! after the first, without having won it at the arbiter; and no two run alone at once.
//!
//! What it cannot ask for: that nothing of an older generation leaves after something of a newer one has. An
//! acknowledgement may be on its way while the other side takes over; what it sets free is part of the survivor's
//! history (`outputs` checks that), and reaches clients as a late packet does.

use super::Broken;
use crate::fault::{HostId, NAMES};
use pollux_protocol::Role;
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "at most one runs";

/// Who has released in which generation, and who runs alone.
#[derive(Debug, Default)]
pub(crate) struct Exclusive {
    released_by: BTreeMap<u64, HostId>,
    alone: BTreeSet<HostId>,
    /// Outputs of an older generation that left after the first of a newer one.
    pub(crate) late: u64,
}

impl Exclusive {
    /// A host has taken a turn: it is now this, in this generation, and has released so many outputs in the turn.
    /// `holder` is whom the arbiter has given that generation to.
    pub(crate) fn handle_turn(
        &mut self,
        host: HostId,
        role: Role,
        generation: u64,
        released: usize,
        holder: Option<HostId>,
    ) -> Result<(), Broken> {
        let name = NAMES[host];
        self.handle_gone(host);
        if role == Role::Solo {
            self.alone.insert(host);
        }
        if role == Role::Solo && holder != Some(host) {
            return Err(Broken(
                NAME,
                format!("{name} runs alone in generation {generation}, which it has not won"),
            ));
        }
        if self.alone.len() > 1 {
            return Err(Broken(NAME, format!("{} hosts run alone", self.alone.len())));
        }
        if released == 0 {
            return Ok(());
        }
        let first = *self.released_by.entry(generation).or_insert(host);
        if first != host {
            let first = NAMES[first];
            return Err(Broken(
                NAME,
                format!("{first} and {name} have both released in generation {generation}"),
            ));
        }
        if holder != Some(host) {
            return Err(Broken(
                NAME,
                format!("{name} released in generation {generation}, which it has not won"),
            ));
        }
        if self.released_by.keys().next_back().is_some_and(|newest| *newest > generation) {
            self.late += released as u64;
        }
        Ok(())
    }

    /// A host claims. A backup does that in the place of a primary that it has `heard`: another one may never have run.
    pub(crate) fn handle_claim(host: HostId, is_backup: bool, heard: bool) -> Result<(), Broken> {
        if heard || !is_backup {
            return Ok(());
        }
        let what = format!("{} claims, and has never heard its primary", NAMES[host]);
        Err(Broken("nobody takes over what may never have run", what))
    }

    /// The host's process is no more.
    pub(crate) fn handle_gone(&mut self, host: HostId) {
        self.alone.remove(&host);
    }
}
