//! The privileged half of random code: control registers, returns and fences, page tables, and code that changes.
//!
//! Not here: pages that are code and tables at once, and instructions across pages (`tangled`).

use super::boot::World;
use super::layout::*;
use super::program::{Program, SATP_REGISTERS};
use super::rng::Rng;
use pollux_isa::{Opcode as Op, csr};

impl Program<'_> {
    /// A CSR instruction.
    pub(super) fn control(&mut self) {
        const COMMON: [u16; 9] = [
            csr::FFLAGS,
            csr::FFLAGS,
            csr::FRM,
            csr::FCSR,
            csr::CYCLE,
            csr::TIME,
            csr::INSTRET,
            csr::SSCRATCH,
            csr::SSTATUS,
        ];
        const RARE: [u16; 16] = [
            csr::MINSTRET,
            csr::MCYCLE,
            csr::SIP,
            csr::SIE,
            csr::MIP,
            csr::SEPC,
            csr::SCAUSE,
            csr::STVAL,
            csr::SATP,
            csr::SCOUNTEREN,
            csr::MSCRATCH,
            csr::MEPC,
            csr::MSTATUS,
            csr::SENVCFG,
            csr::MHARTID,
            csr::MCOUNTEREN,
        ];
        let common = self.rng.percent(85);
        let number = if common { self.rng.pick(&COMMON) } else { self.rng.pick(&RARE) };
        let rd = self.any();
        let source = self.rng.below(32) as u8;
        let small = i32::from(number);
        match self.rng.below(10) {
            3 if common => self.emit(Op::Csrrwi, rd, source, 0, small),
            4 if common => self.emit(Op::Csrrci, rd, source, 0, small),
            5 if common => self.emit(Op::Csrrsi, rd, source & 7, 0, small),
            6 if number <= csr::FCSR => self.emit(Op::Csrrw, rd, source, 0, small),
            7 if matches!(number, csr::SSCRATCH | csr::SEPC | csr::SCAUSE | csr::STVAL) => {
                self.emit(Op::Csrrw, rd, source, 0, small);
            }
            8 if number == csr::SATP => {
                let space = self.rng.pick(&SATP_REGISTERS);
                self.emit(Op::Csrrw, rd, space, 0, small);
            }
            _ => self.emit(Op::Csrrs, rd, 0, 0, small),
        }
        // Other rounding modes than the nearest do not last, so that much is computed by the host.
        if matches!(number, csr::FRM | csr::FCSR) && self.rng.percent(80) {
            for _ in 0..self.rng.below(4) {
                self.float();
            }
            self.emit(Op::Csrrwi, 0, 0, 0, i32::from(csr::FRM));
        }
    }

    /// Sets or clears something in the status register: FS, SUM, MXR, MPRV, or bits of MPP.
    pub(super) fn status(&mut self) {
        let register = self.any();
        if register == 0 || self.rng.percent(15) {
            let space = self.rng.pick(&SATP_REGISTERS);
            return self.emit(Op::Csrrw, 0, space, 0, i32::from(csr::SATP));
        }
        let is_machine = self.world == World::Machine;
        let high = self.rng.pick(&[2, 4, 6, 6, 6, 0x40, 0x80, 0x20, 1, 0x700]);
        let sets = self.rng.percent(if high == 6 { 75 } else { 50 }) && high != 0x700;
        let number = if is_machine { csr::MSTATUS } else { csr::SSTATUS };
        self.emit(Op::Lui, register, 0, 0, high);
        self.emit(if sets { Op::Csrrs } else { Op::Csrrc }, 0, register, 0, i32::from(number));
    }

    pub(super) fn system(&mut self) {
        let base = self.base();
        match self.rng.below(12) {
            0 => self.emit(Op::Ecall, 0, 0, 0, 0),
            1 => self.emit(Op::Ebreak, 0, 0, 0, 0),
            2 => self.emit(Op::FenceI, 0, 0, 0, 0),
            3 => self.emit(Op::Fence, 0, 0, 0, 0xff),
            4 | 5 => self.fence(base),
            6 => self.emit(Op::Pause, 0, 0, 0, 0),
            7 => self.emit(Op::CboZero, 0, base, 0, 0),
            8 => {
                let op = self.rng.pick(&[Op::CboClean, Op::CboFlush, Op::CboInval]);
                self.emit(op, 0, base, 0, 0);
            }
            9 => self.emit(self_return(self.world), 0, 0, 0, 0),
            10 if self.rng.percent(30) => self.emit(Op::Wfi, 0, 0, 0, 0),
            _ => self.emit(Op::Ecall, 0, 0, 0, 0),
        }
    }

    /// Copies a piece of the code over another one, near or in the next page.
    pub(super) fn rewrite(&mut self) {
        let (at, piece) = (self.any(), self.any());
        if at == 0 || piece == 0 || at == piece {
            return;
        }
        let page = self.rng.pick(&[0, 0, 0, 1, -1]);
        self.emit(Op::Auipc, at, 0, 0, page);
        let reach = self.rng.pick(&[24, 80, 400, 2040]);
        let (from, to) =
            (2 * self.rng.between(-reach / 2, reach / 2), 2 * self.rng.between(-reach / 2, reach / 2));
        let (load, store) =
            self.rng.pick(&[(Op::Lh, Op::Sh), (Op::Lw, Op::Sw), (Op::Lw, Op::Sw), (Op::Ld, Op::Sd)]);
        self.emit(load, piece, at, 0, from.clamp(-2048, 2047) as i32);
        self.emit(store, 0, at, piece, to.clamp(-2048, 2047) as i32);
        if self.rng.percent(40) {
            self.emit(Op::FenceI, 0, 0, 0, 0);
        }
    }

    /// Changes a leaf entry of a page table: toggles its rights, or swaps it with another one.
    pub(super) fn remap(&mut self) {
        let [table, first, second] = [self.any(), self.any(), self.any()];
        if table == 0 || first == 0 || second == 0 || table == first || table == second || first == second {
            return;
        }
        let space = self.rng.below(2);
        let by_window = self.world == World::User || self.rng.percent(50);
        let address = if by_window { VIRTUAL + (TABLE_PAGES + space) * PAGE } else { leaf_table(space) };
        let leaf = |rng: &mut Rng| {
            let page = if rng.percent(75) {
                rng.between(CODE_PAGES as i64, SHARED_PAGES as i64) as u64
            } else {
                rng.below(LEAVES)
            };
            8 * page as i32
        };
        let (a, b) = (leaf(self.rng), leaf(self.rng));
        self.load_address(table, address);
        self.emit(Op::Ld, first, table, 0, a);
        if self.rng.percent(30) {
            // It has been forgotten that this is a table; then it is written to before it is walked, and behind.
            let base = self.base();
            self.load_address(base, VIRTUAL + a as u64 / 8 * PAGE);
            self.emit(Op::Xori, first, first, 0, 0x100);
            self.emit(Op::Sd, 0, table, first, a);
            self.emit(Op::Sd, 0, table, first, a);
            self.emit(Op::Ld, second, base, 0, 8);
            self.emit(Op::Xori, first, first, 0, 0x86);
            self.emit(Op::Sd, 0, table, first, a);
            return self.emit(Op::Ld, second, base, 0, 8);
        }
        if self.rng.percent(60) {
            let bits = self.rng.pick(&[1, 2, 4, 8, 4, 2, 0x10, 0x20, 0x40, 0x80, 0xc0, 0x86]);
            self.emit(Op::Xori, first, first, 0, bits);
            self.emit(Op::Sd, 0, table, first, a);
        } else {
            self.emit(Op::Ld, second, table, 0, b);
            self.emit(Op::Sd, 0, table, first, b);
            self.emit(Op::Sd, 0, table, second, a);
        }
        if self.rng.percent(50) {
            self.fence(table);
        }
    }

    /// Fences everything, or a page, or an address space, or a page of it.
    pub(super) fn fence(&mut self, page: u8) {
        let space = self.rng.pick(&SATP_REGISTERS);
        let (page, space) = (self.rng.pick(&[0, 0, page]), self.rng.pick(&[0, 0, space]));
        self.emit(Op::SfenceVma, 0, page, space, 0);
    }

    /// Accesses a page, changes what the supervisor may access, and accesses it again through the same register.
    pub(super) fn toggle(&mut self) {
        let (register, base, value) = (self.any(), self.base(), self.any());
        if register == 0 || register == value {
            return;
        }
        let status = i32::from(if self.world == World::Machine { csr::MSTATUS } else { csr::SSTATUS });
        let first = self.rng.percent(50);
        // SUM, MXR, or both.
        let bits = self.rng.pick(&[0x40, 0x40, 0x80, 0xc0]);
        self.emit(Op::Lui, register, 0, 0, bits);
        for sets in [first, !first, first].into_iter().take(1 + self.rng.below(3) as usize) {
            let op = self.rng.pick(&[Op::Ld, Op::Lw, Op::Sd, Op::Lbu]);
            let imm = 8 * self.rng.between(-8, 8) as i32;
            self.emit(op, value, base, value, imm);
            self.emit(if sets { Op::Csrrs } else { Op::Csrrc }, 0, register, 0, status);
            let imm = 8 * self.rng.between(-8, 8) as i32;
            self.emit(op, value, base, value, imm);
        }
    }
}

/// The return instruction of the mode.
fn self_return(world: World) -> Op {
    if world == World::Machine { Op::Mret } else { Op::Sret }
}
