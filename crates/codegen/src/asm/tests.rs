//! The assembler against a disassembler that is not ours: every kind of operand, with the registers whose encodings are
//! special (rsp and r12 need an index byte, rbp and r13 a displacement, sil and dil a prefix).

use super::*;
use alloc::string::String;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Mnemonic};
use std::vec::Vec;

/// What the emitted bytes say.
fn said(emit: impl Fn(&mut Asm)) -> Vec<String> {
    let mut asm = Asm::new(0x100);
    emit(&mut asm);
    let mut formatter = GasFormatter::new();
    Decoder::with_ip(64, &asm.bytes, 0x100, DecoderOptions::NONE)
        .iter()
        .map(|instruction| {
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            text
        })
        .collect()
}

#[test]
fn memory_operands_are_what_they_were_meant_to_be() {
    let load = |mem| said(move |asm| asm.load(W::Q, RAX, mem)).concat();
    assert_eq!(load(at(RBP, 0)), "mov (%rbp),%rax");
    assert_eq!(load(at(R13, 0)), "mov (%r13),%rax");
    assert_eq!(load(at(R12, 0)), "mov (%r12),%rax");
    assert_eq!(load(at(RSP, 8)), "mov 8(%rsp),%rax");
    assert_eq!(load(at(RBX, 127)), "mov 0x7F(%rbx),%rax");
    assert_eq!(load(at(RBX, 128)), "mov 0x80(%rbx),%rax");
    assert_eq!(load(at(RBX, -129)), "mov -0x81(%rbx),%rax");
    assert_eq!(load(at2(R13, R12, 0)), "mov (%r13,%r12),%rax");
    assert_eq!(load(at2(RAX, R15, 4096)), "mov 0x1000(%rax,%r15),%rax");
    assert_eq!(load(scaled(RCX, RAX, 3)), "mov (%rcx,%rax,8),%rax");
}

#[test]
fn immediates_are_as_long_as_they_must_be() {
    let mov = |value| said(move |asm| asm.mov_imm(R9, value)).concat();
    assert_eq!(mov(0xffff_ffff), "mov $0xFFFFFFFF,%r9d");
    assert_eq!(mov(u64::MAX), "mov $0xFFFFFFFFFFFFFFFF,%r9");
    assert_eq!(mov(1 << 40), "movabs $0x10000000000,%r9");
    let add = |value| said(move |asm| asm.alu_imm(Alu::Add, W::Q, R14, value)).concat();
    assert_eq!(add(-128), "add $0xFFFFFFFFFFFFFF80,%r14");
    assert_eq!(add(128), "add $0x80,%r14");
}

#[test]
fn every_kind_of_instruction_reads_back() {
    let text = said(|asm| {
        asm.store_sized(1, at(R8, 1), RSI);
        asm.store_sized(2, at(R8, 2), RDI);
        asm.store_zero(1, at(RAX, 1));
        asm.store_zero(2, at2(RAX, R12, 2));
        asm.store_zero(4, at(RAX, 4));
        asm.store_zero(8, at(RAX, 8));
        asm.load_extended(1, true, R10, RSI.into());
        asm.load_extended(2, false, RBX, at(R14, 0).into());
        asm.load_extended(4, true, R11, RDI.into());
        asm.set(Cond::B, RDI);
        asm.cmov(Cond::G, W::Q, R8, at(RBP, -8));
        asm.unary(Unary::Idiv, W::Q, R9);
        asm.imul(W::D, R13, RSI);
        asm.shift_cl(Shift::Sar, W::Q, R12);
        asm.shift_imm(Shift::Ror, W::D, RBX, 7);
        asm.bit_scan(true, W::Q, RAX, R15);
        asm.count_ones(W::D, RAX, R8.into());
        asm.byte_swap(R11);
        asm.cmp_byte(at2(RDX, RCX, 0), 0);
        asm.push(R12);
        asm.pop(RBX);
    });
    let wanted = [
        "mov %sil,1(%r8)",
        "mov %di,2(%r8)",
        "movb $0,1(%rax)",
        "movw $0,2(%rax,%r12)",
        "movl $0,4(%rax)",
        "movq $0,8(%rax)",
        "movsbq %sil,%r10",
        "movzwl (%r14),%ebx",
        "movslq %edi,%r11",
        "setb %dil",
        "movzbl %dil,%edi",
        "cmovg -8(%rbp),%r8",
        "idiv %r9",
        "imul %esi,%r13d",
        "sar %cl,%r12",
        "ror $7,%ebx",
        "bsr %r15,%rax",
        "popcnt %r8d,%eax",
        "bswap %r11",
        "cmpb $0,(%rdx,%rcx)",
        "push %r12",
        "pop %rbx",
    ];
    assert_eq!(text, wanted);
}

#[test]
fn vector_instructions_reach_all_sixteen_registers() {
    let text = said(|asm| {
        asm.sse(0x58, true, Xmm(9), Xmm(15));
        asm.sse(0x59, false, Xmm(2), at(R12, 16));
        asm.compare(true, true, Xmm(8), Xmm(8));
        asm.compare(false, false, Xmm(1), Xmm(12));
        asm.store_xmm(true, at(RBP, 256), Xmm(13));
        asm.convert_from_int(true, W::Q, Xmm(14), R10);
        asm.convert_to_int(false, true, W::Q, R11, Xmm(9));
        asm.fma213(0xa9, true, Xmm(11), Xmm(3), Xmm(12));
        asm.fma213(0xaf, false, Xmm(4), Xmm(15), Xmm(5));
        asm.mov_xmm(Xmm(10), Xmm(3));
        asm.store_vector(at(RAX, 48), Xmm(0));
        asm.load_vector(Xmm(9), at(RBP, -16));
        asm.mxcsr(true, at(RBP, -80));
        asm.mxcsr(false, at(RBP, -72));
    });
    let wanted = [
        "addsd %xmm15,%xmm9",
        "mulss 0x10(%r12),%xmm2",
        "ucomisd %xmm8,%xmm8",
        "comiss %xmm12,%xmm1",
        "movsd %xmm13,0x100(%rbp)",
        "cvtsi2sd %r10,%xmm14",
        "cvttss2si %xmm9,%r11",
        "vfmadd213sd %xmm12,%xmm3,%xmm11",
        "vfnmsub213ss %xmm5,%xmm15,%xmm4",
        "movaps %xmm3,%xmm10",
        "movups %xmm0,0x30(%rax)",
        "movups -0x10(%rbp),%xmm9",
        "stmxcsr -0x50(%rbp)",
        "ldmxcsr -0x48(%rbp)",
    ];
    assert_eq!(text, wanted);
}

#[test]
fn what_is_aligned_lies_behind_instructions_that_do_nothing() {
    for before in 0..32 {
        let mut asm = Asm::new(0x100);
        (0..before).for_each(|_| asm.ret());
        asm.align(32);
        assert_eq!(asm.here(), 0x100 + if before == 0 { 0 } else { 32 });
        let padding = Decoder::with_ip(64, &asm.bytes[before..], 0, DecoderOptions::NONE);
        assert!(padding.into_iter().all(|instruction| instruction.mnemonic() == Mnemonic::Nop), "{before}");
    }
}

#[test]
fn jumps_lead_where_they_are_bound_from_both_places() {
    let mut asm = Asm::new(0x100);
    let (first, back) = (asm.jmp(), asm.jcc(Cond::Ne as u8));
    asm.bind(back, 0x40);
    asm.go_on_at(0x1000);
    asm.bind_here(first);
    let (hot, _) = asm.finish();
    let targets: Vec<u64> = Decoder::with_ip(64, &hot, 0x100, DecoderOptions::NONE)
        .iter()
        .map(|instruction| instruction.near_branch_target())
        .collect();
    assert_eq!(targets, [0x1000, 0x40]);
}
