//! The configuration as it is saved: a machine's snapshot says what it is made of.

use super::{Config, DeviceConfig, OnPanic, OnReset, RNG_SEED_BYTES};
use crate::state::{Saved, state};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

state!(
    /// Version 2. (In version 1 every machine ended when its guest asked for a reset.)
    ConfigV2 of Config {
        ram_bytes: u64,
        harts: u32,
        devices: Vec<DeviceConfig>,
        rtc_base_ns: u64,
        rng_seed: [u8; RNG_SEED_BYTES],
        on_reset: OnReset,
        on_panic: OnPanic,
    }
);

/// What a life ends with: version 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum EndV1 {
    Stop,
    Restart,
}

/// Of both choices.
macro_rules! end {
    ($live:ident) => {
        impl Saved for $live {
            type State = EndV1;

            fn save(&self) -> EndV1 {
                match self {
                    Self::Stop => EndV1::Stop,
                    Self::Restart => EndV1::Restart,
                }
            }

            fn revive(state: EndV1) -> Self {
                match state {
                    EndV1::Stop => Self::Stop,
                    EndV1::Restart => Self::Restart,
                }
            }
        }
    };
}

end!(OnReset);
end!(OnPanic);

/// What sits in a slot: version 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum DeviceV1 {
    Empty,
    Block { bytes: u64, read_only: bool, serial: String },
    Net { mac: [u8; 6] },
    Console,
    Rng,
    Button,
}

impl Saved for DeviceConfig {
    type State = DeviceV1;

    fn save(&self) -> DeviceV1 {
        match self {
            Self::Empty => DeviceV1::Empty,
            Self::Block { bytes, read_only, serial } => {
                DeviceV1::Block { bytes: *bytes, read_only: *read_only, serial: serial.clone() }
            }
            Self::Net { mac } => DeviceV1::Net { mac: *mac },
            Self::Console => DeviceV1::Console,
            Self::Rng => DeviceV1::Rng,
            Self::Button => DeviceV1::Button,
        }
    }

    fn revive(state: DeviceV1) -> Self {
        match state {
            DeviceV1::Empty => Self::Empty,
            DeviceV1::Block { bytes, read_only, serial } => Self::Block { bytes, read_only, serial },
            DeviceV1::Net { mac } => Self::Net { mac },
            DeviceV1::Console => Self::Console,
            DeviceV1::Rng => Self::Rng,
            DeviceV1::Button => Self::Button,
        }
    }
}
