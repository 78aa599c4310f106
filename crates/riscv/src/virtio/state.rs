//! A slot's device as it is saved.

use super::Chip;
use super::blk::state::BlkV1;
use super::button::state::ButtonV1;
use super::console::state::ConsoleV1;
use super::net::state::NetV1;
use super::rng::state::RngV1;
use crate::state::Saved;
use serde::{Deserialize, Serialize};

/// Version 2. (In version 1 there was no button.)
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum ChipV2 {
    Empty,
    Blk(BlkV1),
    Net(NetV1),
    Console(ConsoleV1),
    Rng(RngV1),
    Button(ButtonV1),
}

impl Saved for Chip {
    type State = ChipV2;

    fn save(&self) -> ChipV2 {
        match self {
            Self::Empty => ChipV2::Empty,
            Self::Blk(chip) => ChipV2::Blk(chip.save()),
            Self::Net(chip) => ChipV2::Net(chip.save()),
            Self::Console(chip) => ChipV2::Console(chip.save()),
            Self::Rng(chip) => ChipV2::Rng(chip.save()),
            Self::Button(chip) => ChipV2::Button(chip.save()),
        }
    }

    fn revive(state: ChipV2) -> Self {
        match state {
            ChipV2::Empty => Self::Empty,
            ChipV2::Blk(chip) => Self::Blk(Saved::revive(chip)),
            ChipV2::Net(chip) => Self::Net(Saved::revive(chip)),
            ChipV2::Console(chip) => Self::Console(Saved::revive(chip)),
            ChipV2::Rng(chip) => Self::Rng(Saved::revive(chip)),
            ChipV2::Button(chip) => Self::Button(Saved::revive(chip)),
        }
    }
}
