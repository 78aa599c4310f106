//! What a VM's flags and file choose between, each a word of its own.

use clap::ValueEnum;
use serde::Deserialize;

/// What a signal that ends this process does to the VM.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTerm {
    /// Give it to the backup; if there is none, or it does not take it, end it
    #[default]
    Handover,
    /// End it, on both sides
    Stop,
}

/// What a primary does that clients do not reach any more.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNetLoss {
    /// Gives the VM to the backup
    #[default]
    Handover,
    /// Keeps it
    Stay,
}

/// How the guest's clock goes.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockMode {
    /// With the host's
    Real,
    /// At a fixed rate of the instruction count, jumping over idle waits
    Virtual,
}

/// What becomes of a VM whose guest has come to an end.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnEnd {
    /// It begins again, in place, and stays protected
    Restart,
    /// It ends, on both sides
    Stop,
}
