//! Sums that are kept in vector registers, and nowhere else, while the kernel switches between programs.
//!
//! A kernel that loses the register of a program it interrupts makes a sum wrong. Every number is a whole one that a float
//! can hold, so a right sum is right to the last bit.

use std::arch::asm;
use std::fmt;

use anyhow::{Result, ensure};

/// How many registers hold sums; as many hold what is added.
const REGISTERS: usize = 8;

/// Numbers in the widest register: 512 bits.
const LANES: usize = 8;

/// How often is added until a sum is looked at: a millisecond or two, of which the look is nothing.
const ADDITIONS: u32 = 1 << 20;

/// Which registers hold the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// `xmm0` to `xmm15`, which every x86-64 processor has.
    Sse,
    /// `ymm0` to `ymm15`.
    Avx,
    /// `zmm0` to `zmm7` and `zmm16` to `zmm23`: the two halves of which the kernel keeps apart.
    Avx512,
}

impl Width {
    /// The widest registers this processor has.
    #[must_use]
    pub fn widest() -> Self {
        if is_x86_feature_detected!("avx512f") {
            Self::Avx512
        } else if is_x86_feature_detected!("avx") {
            Self::Avx
        } else {
            Self::Sse
        }
    }

    /// How many numbers one of them holds.
    fn lanes(self) -> usize {
        match self {
            Self::Sse => 2,
            Self::Avx => 4,
            Self::Avx512 => 8,
        }
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sse => "SSE",
            Self::Avx => "AVX",
            Self::Avx512 => "AVX-512",
        })
    }
}

/// What half of the registers hold. A narrower register holds the first numbers of its row.
type Block = [[f64; LANES]; REGISTERS];

/// A block that no other seed gives: every number differs from every other, and all stay far below 2^53.
fn block(seed: u32) -> Block {
    let number = |place: usize| f64::from(seed) * 1000.0 + f64::from(u8::try_from(place).unwrap_or(u8::MAX));
    std::array::from_fn(|register| std::array::from_fn(|lane| number(1 + register * LANES + lane)))
}

/// Sums for a while in registers of a width, starting from numbers of one's own.
///
/// # Errors
/// A sum is wrong: a register was not kept.
pub fn sum_and_check(width: Width, seed: u32) -> Result<()> {
    let (start, step) = (block(seed), block(seed + 1));
    let mut sums = start;
    match width {
        // SAFETY: every x86-64 processor has these registers.
        Width::Sse => unsafe { add_sse(&mut sums, &step, ADDITIONS) },
        Width::Avx => {
            ensure!(is_x86_feature_detected!("avx"), "this processor has no AVX");
            // SAFETY: it has.
            unsafe { add_avx(&mut sums, &step, ADDITIONS) }
        }
        Width::Avx512 => {
            ensure!(is_x86_feature_detected!("avx512f"), "this processor has no AVX-512");
            // SAFETY: it has.
            unsafe { add_avx512(&mut sums, &step, ADDITIONS) }
        }
    }
    for (register, row) in sums.iter().enumerate() {
        for (lane, sum) in row.iter().enumerate().take(width.lanes()) {
            let right = start[register][lane] + step[register][lane] * f64::from(ADDITIONS);
            #[expect(clippy::float_cmp, reason = "all are whole numbers below 2^53")]
            let is_right = *sum == right;
            ensure!(is_right, "{width}: sum {lane} of register {register} is {sum}, not {right}");
        }
    }
    Ok(())
}

/// A function that adds a block to another, many times. Between loading and storing, the loop touches no memory.
macro_rules! adder {
    ($(#[$about:meta])* $name:ident, $load:literal, $add:literal, [$(($sum:literal, $step:literal, $operands:literal, $offset:literal)),*]) => {
        $(#[$about])*
        unsafe fn $name(sums: &mut Block, step: &Block, times: u32) {
            // SAFETY: what is loaded and stored is within the two blocks; every vector register counts as changed.
            unsafe {
                asm!(
                    $(
                        concat!($load, " ", $sum, ", [{sums} + ", $offset, "]"),
                        concat!($load, " ", $step, ", [{step} + ", $offset, "]"),
                    )*
                    "2:",
                    $(concat!($add, " ", $operands),)*
                    "dec ecx",
                    "jnz 2b",
                    $(concat!($load, " [{sums} + ", $offset, "], ", $sum),)*
                    sums = in(reg) sums.as_mut_ptr(),
                    step = in(reg) step.as_ptr(),
                    inout("ecx") times => _,
                    clobber_abi("sysv64"),
                    options(nostack),
                );
            }
        }
    };
}

adder! {
    /// Adds in `xmm` registers.
    ///
    /// # Safety
    /// `times` is not zero.
    add_sse, "movupd", "addpd", [
        ("xmm0", "xmm8", "xmm0, xmm8", 0), ("xmm1", "xmm9", "xmm1, xmm9", 64),
        ("xmm2", "xmm10", "xmm2, xmm10", 128), ("xmm3", "xmm11", "xmm3, xmm11", 192),
        ("xmm4", "xmm12", "xmm4, xmm12", 256), ("xmm5", "xmm13", "xmm5, xmm13", 320),
        ("xmm6", "xmm14", "xmm6, xmm14", 384), ("xmm7", "xmm15", "xmm7, xmm15", 448)
    ]
}

adder! {
    /// Adds in `ymm` registers.
    ///
    /// # Safety
    /// The processor has AVX.
    add_avx, "vmovupd", "vaddpd", [
        ("ymm0", "ymm8", "ymm0, ymm0, ymm8", 0), ("ymm1", "ymm9", "ymm1, ymm1, ymm9", 64),
        ("ymm2", "ymm10", "ymm2, ymm2, ymm10", 128), ("ymm3", "ymm11", "ymm3, ymm3, ymm11", 192),
        ("ymm4", "ymm12", "ymm4, ymm4, ymm12", 256), ("ymm5", "ymm13", "ymm5, ymm5, ymm13", 320),
        ("ymm6", "ymm14", "ymm6, ymm6, ymm14", 384), ("ymm7", "ymm15", "ymm7, ymm7, ymm15", 448)
    ]
}

adder! {
    /// Adds in `zmm` registers.
    ///
    /// # Safety
    /// The processor has AVX-512.
    add_avx512, "vmovupd", "vaddpd", [
        ("zmm0", "zmm16", "zmm0, zmm0, zmm16", 0), ("zmm1", "zmm17", "zmm1, zmm1, zmm17", 64),
        ("zmm2", "zmm18", "zmm2, zmm2, zmm18", 128), ("zmm3", "zmm19", "zmm3, zmm3, zmm19", 192),
        ("zmm4", "zmm20", "zmm4, zmm4, zmm20", 256), ("zmm5", "zmm21", "zmm5, zmm5, zmm21", 320),
        ("zmm6", "zmm22", "zmm6, zmm6, zmm22", 384), ("zmm7", "zmm23", "zmm7, zmm7, zmm23", 448)
    ]
}
