//! What a machine is made of: the part of its initial state that a person chooses.

pub(crate) mod state;

use alloc::string::String;
use alloc::vec::Vec;

/// Most harts a machine may have.
pub const HARTS_MAX: u32 = 8;
/// Bytes of the seed that a guest's random number generator starts from: as many as Linux credits in full.
pub const RNG_SEED_BYTES: usize = 32;
/// Number of virtio-mmio slots on the board that are a person's to fill; one more has the power button.
pub const SLOTS: usize = 8;

/// A machine's build sheet. Two machines with equal configurations and equal boot images are equal at reset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// RAM in bytes; a multiple of 2 MiB, at least 4 MiB.
    pub ram_bytes: u64,
    /// Harts, 1 to [`HARTS_MAX`].
    pub harts: u32,
    /// Devices by virtio-mmio slot, at most [`SLOTS`]; slot N is at `0x1000_1000 + N * 0x1000`, PLIC source N+1.
    pub devices: Vec<DeviceConfig>,
    /// Wall-clock time at reset for the RTC, in nanoseconds since 1970.
    pub rtc_base_ns: u64,
    /// What the device tree hands to the guest's random number generator (`/chosen/rng-seed`). Whoever creates a
    /// machine draws it once; from then on it is part of the state.
    pub rng_seed: [u8; RNG_SEED_BYTES],
    /// What a guest's reset comes to.
    pub on_reset: OnReset,
    /// What a failure that a guest reports comes to.
    pub on_panic: OnPanic,
}

/// What becomes of a machine whose guest asks for a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnReset {
    /// It ends.
    Stop,
    /// It begins again, in place.
    Restart,
}

/// What becomes of a machine whose guest ends with a failure: an SBI shutdown for the reason "system failure", or a
/// failure told to the test finisher (what OpenSBI makes of it).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnPanic {
    /// It ends, with the guest's status.
    Stop,
    /// It begins again, in place.
    Restart,
}

impl Default for Config {
    /// A machine with 512 MiB, one hart, no devices, that ends when its guest does, and everything that a person or chance would choose at zero.
    fn default() -> Self {
        Self {
            ram_bytes: 512 << 20,
            harts: 1,
            devices: Vec::new(),
            rtc_base_ns: 0,
            rng_seed: [0; RNG_SEED_BYTES],
            on_reset: OnReset::Stop,
            on_panic: OnPanic::Stop,
        }
    }
}

/// What sits in a virtio-mmio slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceConfig {
    /// Nothing (device id 0).
    Empty,
    /// A disk.
    Block {
        /// Size in bytes, a multiple of 512.
        bytes: u64,
        /// Refuse writes.
        read_only: bool,
        /// Serial, at most 20 bytes of ASCII (VIRTIO_BLK_T_GET_ID).
        serial: String,
    },
    /// A network card.
    Net {
        /// Its address.
        mac: [u8; 6],
    },
    /// A console.
    Console,
    /// A source of entropy.
    Rng,
    /// The power button, of which every board has one, behind the slots.
    Button,
}

/// What runs at reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Boot<'a> {
    /// A Linux `Image` (or a bare S-mode ELF) entered in S-mode under the machine's own SBI, as the RISC-V
    /// Linux boot protocol says: a0 = hart id, a1 = device tree.
    Kernel {
        /// The kernel file's bytes.
        image: &'a [u8],
        /// The initial RAM disk's bytes.
        initrd: Option<&'a [u8]>,
        /// The command line.
        command_line: &'a str,
    },
    /// An ELF or flat image entered in M-mode at the start of RAM (or its ELF entry), as `-bios` does in QEMU;
    /// `kernel`, when given, is loaded where OpenSBI's fw_dynamic and fw_jump expect the next stage.
    Firmware {
        /// The firmware file's bytes.
        image: &'a [u8],
        /// The next stage's bytes.
        kernel: Option<&'a [u8]>,
        /// The initial RAM disk's bytes.
        initrd: Option<&'a [u8]>,
        /// The command line.
        command_line: &'a str,
    },
}
