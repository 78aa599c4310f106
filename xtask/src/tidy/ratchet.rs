//! The exemptions from the size rule: `xtask/ratchet.toml`. Each has a reason, and its number only falls.

use anyhow::{Context, Result};
use serde::Deserialize;

/// An entry may exceed what is there by this many lines before it must be lowered.
const SLACK_LINES: usize = 20;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ratchet {
    /// Exempt functions.
    #[serde(default)]
    pub(crate) function: Vec<Exemption>,
    /// Exempt files.
    #[serde(default)]
    pub(crate) file: Vec<Exemption>,
}

/// Something that may be longer than the rule says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exemption {
    /// The file.
    pub(crate) path: String,
    /// The function; empty for a file.
    #[serde(default)]
    pub(crate) name: String,
    /// How long it may be.
    pub(crate) lines: usize,
    /// Why it is better long.
    pub(crate) reason: String,
}

/// One list of exemptions in use: what is never asked for is an exemption of nothing.
pub(crate) struct Exemptions<'a> {
    entries: &'a [Exemption],
    used: Vec<bool>,
    limit: usize,
}

impl Ratchet {
    /// Reads the file's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("xtask/ratchet.toml")
    }
}

impl<'a> Exemptions<'a> {
    /// Exemptions from a limit of so many lines.
    pub(crate) fn new(entries: &'a [Exemption], limit: usize) -> Self {
        Self { entries, used: vec![false; entries.len()], limit }
    }

    /// What is wrong with something of this length, if anything.
    pub(crate) fn judge(&mut self, path: &str, name: &str, lines: usize) -> Option<String> {
        if lines <= self.limit {
            return None;
        }
        let Some(index) = self.entries.iter().position(|e| e.path == path && e.name == name) else {
            return Some(format!("has {lines} lines, more than {}; split it", self.limit));
        };
        self.used[index] = true;
        let allowed = self.entries[index].lines;
        if lines > allowed {
            Some(format!("grew to {lines} lines; xtask/ratchet.toml allows {allowed}; split it"))
        } else if lines + SLACK_LINES < allowed {
            Some(format!("shrank to {lines} lines; lower its {allowed} in xtask/ratchet.toml"))
        } else {
            None
        }
    }

    /// The entries that exempt nothing, or give no reason.
    pub(crate) fn stale(self) -> Vec<String> {
        let entry = |e: &Exemption| format!("{} {}", e.path, e.name).trim_end().to_owned();
        let unused = self.entries.iter().zip(&self.used).filter(|&(_, used)| !used);
        let unused = unused.map(|(e, _)| {
            format!("xtask/ratchet.toml: {} is no longer over the limit; remove its entry", entry(e))
        });
        let silent = self.entries.iter().filter(|e| e.reason.trim().len() < 10);
        let silent = silent.map(|e| format!("xtask/ratchet.toml: {} is exempt without a reason", entry(e)));
        unused.chain(silent).collect()
    }
}
