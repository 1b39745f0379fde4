//! Numbers as they lie in memory: 32 bits, or half of that. Kernels read them into 32-bit registers, compute there, and
//! round once when they write, so that no kernel needs memory for a wide copy.
//!
//! Conversions are written without branches, so that loops over them become vector code.

use half::{bf16, f16};

/// A floating-point type that tensors are made of.
pub trait Number: Copy + Send + Sync + 'static {
    /// It is what kernels compute in: where it lies, it can be used without being read first.
    const IS_WIDE: bool;

    /// The same number in 32 bits.
    fn wide(self) -> f32;

    /// The nearest number of this type; of two that are as near, the even one.
    fn nearest(x: f32) -> Self;
}

impl Number for f32 {
    const IS_WIDE: bool = true;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(x: f32) -> Self {
        x
    }
}

impl Number for bf16 {
    const IS_WIDE: bool = false;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn nearest(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // What is not a number must not be rounded to infinity.
        let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
        bf16::from_bits((bits >> 16) as u16)
    }
}

/// Source: Giesen 2012, "Half to float done quic", and its reverse, `float_to_half_fast3_rtne`.
impl Number for f16 {
    const IS_WIDE: bool = false;

    #[inline(always)]
    fn wide(self) -> f32 {
        let bits = u32::from(self.to_bits());
        // Exponents differ by 112: a product moves subnormal numbers to their place, too.
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
        let infinite = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
        f32::from_bits(magnitude.to_bits() | infinite | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn nearest(x: f32) -> Self {
        const INFINITE: u32 = 0x7f80_0000;
        /// 2^16, where infinity begins, and 2^-14, where subnormal numbers end.
        const LARGE: u32 = (127 + 16) << 23;
        const SMALL: u32 = (127 - 14) << 23;
        /// 1/2: adding it leaves a subnormal number, rounded, in the low bits.
        const HALF: u32 = 126 << 23;
        let bits = x.to_bits();
        let (sign, bits) = (bits & 0x8000_0000, bits & 0x7fff_ffff);
        let special = if bits > INFINITE { 0x7e00 } else { 0x7c00 };
        let subnormal = (f32::from_bits(bits) + f32::from_bits(HALF)).to_bits().wrapping_sub(HALF);
        let normal = bits.wrapping_sub(112 << 23).wrapping_add(0xfff + ((bits >> 13) & 1)) >> 13;
        let small = if bits < SMALL { subnormal } else { normal };
        let bits = if bits >= LARGE { special } else { small };
        f16::from_bits((bits | sign >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crate `half` is the oracle.
    #[test]
    fn every_half_number_is_read_as_what_it_is() {
        for bits in 0..=u16::MAX {
            let pairs = [
                (bf16::from_bits(bits).wide(), bf16::from_bits(bits).to_f32()),
                (f16::from_bits(bits).wide(), f16::from_bits(bits).to_f32()),
            ];
            for (got, expected) in pairs {
                assert!(
                    got == expected || got.is_nan() && expected.is_nan(),
                    "{bits:x}: {got}, not {expected}"
                );
                assert!(got.is_nan() || got.is_sign_negative() == expected.is_sign_negative());
            }
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        // Every exponent, both signs, and the ties and edges of both types' fractions.
        for high in 0..1 << 16_u32 {
            for low in [0, 1, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(high << 16 | low);
                let (brain, half) = (bf16::nearest(x), f16::nearest(x));
                if x.is_nan() {
                    assert!(brain.is_nan() && half.is_nan(), "{x}");
                    continue;
                }
                assert_eq!(brain.to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
                assert_eq!(half.to_bits(), f16::from_f32(x).to_bits(), "{x:e}");
            }
        }
    }
}
