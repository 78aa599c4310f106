//! A case as the harness sees it: a record in memory, at once input and output. `guests/oracle/harness.S` has
//! the same offsets; a mistake here shows as every case failing.

use pollux_isa::{Inst, decode, decode_compressed};

/// The harness, made from `guests/oracle/harness.S`.
const HARNESS: &[u8] = include_bytes!("../../guests/oracle/harness.elf");
/// Start of RAM, where the image is loaded and entered.
pub(crate) const RAM_BASE: u64 = 0x8000_0000;
/// RAM that both machines have.
pub(crate) const RAM_BYTES: usize = 128 << 20;
/// Where the records begin, from the start of RAM.
pub(crate) const RECORDS: usize = 0x1_0000;
/// The supervisor's trap handler in the harness, an `ecall` and an `sret`.
pub(crate) const STUB: u64 = RAM_BASE + 0x100;

const HEADER_TABLE: usize = 0x08;
const HEADER_CASES: usize = 0x10;
const HEADER_STRIDE: usize = 0x18;
const HEADER_DONE: usize = 0x20;

/// Floating-point registers.
pub(crate) const F: usize = 0x100;
/// `fcsr`.
pub(crate) const FCSR: usize = 0x200;
/// Where the case starts.
pub(crate) const ENTRY: usize = 0x208;
/// Where it ends.
pub(crate) const END: usize = 0x210;
/// Length of every instruction, or 0.
pub(crate) const SKIP: usize = 0x218;
/// Traps after which it ends.
pub(crate) const TRAPS_MAX: usize = 0x220;
/// Traps so far.
pub(crate) const TRAPS: usize = 0x228;
/// CSRs, as in [`CSRS`].
pub(crate) const CSR: usize = 0x250;
/// The log of traps.
pub(crate) const LOG: usize = 0x310;
/// Words per trap in the log.
pub(crate) const LOG_WORDS: usize = 5;
/// Room in the log.
pub(crate) const LOG_TRAPS: usize = 8;
/// Code.
pub(crate) const CODE: usize = 0x480;
/// Room for it.
pub(crate) const CODE_BYTES: usize = 0x180;
/// Memory to play with.
pub(crate) const SCRATCH: usize = 0x600;
/// Its size.
pub(crate) const SCRATCH_BYTES: usize = 0x200;
/// The record's size; what follows, up to the stride, is the case's own.
pub(crate) const RECORD_BYTES: usize = 0x800;

/// The CSRs that the harness loads and stores, in its order.
pub(crate) const CSRS: [&str; 24] = [
    "mstatus",
    "medeleg",
    "mideleg",
    "mie",
    "mip",
    "satp",
    "stvec",
    "sscratch",
    "sepc",
    "scause",
    "stval",
    "mcounteren",
    "scounteren",
    "menvcfg",
    "senvcfg",
    "mcountinhibit",
    "pmpaddr0",
    "pmpaddr1",
    "pmpaddr2",
    "pmpaddr3",
    "pmpcfg0",
    "mcause",
    "mtval",
    "mepc",
];

// Where the registers of the last traps are.
pub(crate) const SCAUSE: usize = CSR + 8 * 9;
pub(crate) const STVAL: usize = CSR + 8 * 10;
pub(crate) const MCAUSE: usize = CSR + 8 * 21;
pub(crate) const MTVAL: usize = CSR + 8 * 22;
/// `mepc`: where the case ended.
pub(crate) const MEPC: usize = CSR + 8 * 23;

/// One instruction of a case's code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Offset from the start of the code.
    pub(crate) at: usize,
    /// The word, or halfword.
    pub(crate) word: u32,
    /// Its length.
    pub(crate) len: usize,
    /// Whether control cannot but come here (if the case does not end early).
    pub(crate) certain: bool,
}

impl Placed {
    /// What it decodes to, if it is not reserved.
    pub(crate) fn decode(&self) -> Option<Inst> {
        if self.len == 4 { decode(self.word) } else { decode_compressed(self.word as u16) }
    }
}

/// A case: its memory and what is known of its code.
#[derive(Clone)]
pub(crate) struct Case {
    /// `stride` bytes of memory.
    pub(crate) bytes: Vec<u8>,
    /// Address of the record.
    pub(crate) base: u64,
    /// Address that the code runs at.
    pub(crate) code_base: u64,
    /// The code.
    pub(crate) code: Vec<Placed>,
}

impl Case {
    pub(crate) fn new(base: u64, stride: usize) -> Self {
        Self { bytes: vec![0; stride], base, code_base: base + CODE as u64, code: Vec::new() }
    }

    pub(crate) fn set(&mut self, at: usize, value: u64) {
        set_word(&mut self.bytes, at, value);
    }

    /// The instruction at this address.
    pub(crate) fn at(&self, address: u64) -> Option<&Placed> {
        self.code.iter().find(|inst| self.code_base + inst.at as u64 == address)
    }

    pub(crate) fn set_csr(&mut self, name: &str, value: u64) {
        let index = CSRS.iter().position(|&csr| csr == name).unwrap_or_else(|| panic!("no CSR slot {name}"));
        self.set(CSR + 8 * index, value);
    }

    /// Writes the code at `offset` of the case's memory.
    pub(crate) fn write_code(&mut self, offset: usize) {
        for inst in &self.code {
            let bytes = inst.word.to_le_bytes();
            self.bytes[offset + inst.at..][..inst.len].copy_from_slice(&bytes[..inst.len]);
        }
    }
}

/// The word at `at` of a record.
pub(crate) fn word(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"))
}

/// Sets the word at `at` of a record.
pub(crate) fn set_word(record: &mut [u8], at: usize, value: u64) {
    record[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// The traps in a record's log: tag (1: supervisor's), cause, epc, tval, mstatus.
pub(crate) fn traps(record: &[u8]) -> Vec<[u64; LOG_WORDS]> {
    let count = (word(record, TRAPS) as usize).min(LOG_TRAPS);
    (0..count).map(|t| core::array::from_fn(|w| word(record, LOG + 8 * (t * LOG_WORDS + w)))).collect()
}

/// The harness as it lies in memory: what the ELF file's first loadable segment holds, from the start of RAM.
fn harness() -> &'static [u8] {
    let headers = word(HARNESS, 0x20) as usize;
    let size = u16::from_le_bytes([HARNESS[0x36], HARNESS[0x37]]) as usize;
    let count = u16::from_le_bytes([HARNESS[0x38], HARNESS[0x39]]) as usize;
    let segments = (0..count).map(|index| &HARNESS[headers + index * size..][..size]);
    let segment = segments
        .filter(|segment| segment[0] == 1)
        .find(|segment| word(segment, 0x18) == RAM_BASE)
        .expect("the harness is linked to the start of RAM");
    &HARNESS[word(segment, 0x08) as usize..][..word(segment, 0x20) as usize]
}

/// Many cases with the harness, ready to be booted.
pub(crate) struct Batch {
    pub(crate) cases: Vec<Case>,
    pub(crate) stride: usize,
}

impl Batch {
    /// Address of record `index`.
    pub(crate) fn base(index: usize, stride: usize) -> u64 {
        RAM_BASE + (RECORDS + index * stride) as u64
    }

    /// Most cases of this stride that a batch can hold.
    pub(crate) fn cases_max(stride: usize) -> usize {
        (RAM_BYTES / 2 - RECORDS) / stride
    }

    /// The flat image.
    pub(crate) fn image(&self) -> Vec<u8> {
        let mut image = harness().to_vec();
        image.resize(RECORDS, 0);
        let header = [
            (HEADER_TABLE, RAM_BASE + RECORDS as u64),
            (HEADER_CASES, self.cases.len() as u64),
            (HEADER_STRIDE, self.stride as u64),
        ];
        for (at, value) in header {
            image[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for case in &self.cases {
            image.extend_from_slice(&case.bytes);
        }
        image
    }

    /// Memory that a machine left, `index`th record.
    pub(crate) fn result<'a>(&self, ram: &'a [u8], index: usize) -> &'a [u8] {
        &ram[RECORDS + index * self.stride..][..self.stride]
    }

    /// How many records a machine finished.
    pub(crate) fn finished(ram: &[u8]) -> u64 {
        word(ram, HEADER_DONE)
    }
}
