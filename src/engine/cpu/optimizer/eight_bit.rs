//! Moments of 8 bits: blocks of numbers share a scale, and a byte says which of 256 values a number is of it.
//!
//! Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"; the values are those of bitsandbytes'
//! `create_dynamic_map`, the updates those of its block-wise kernels with weight decay where Adam, AdamW and Lion have it.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::super::simd::CHUNK;
use super::adam::Adam;
use super::momentum::{Lion, lion_one};

/// Numbers that share a scale.
pub const BLOCK: usize = 256;

/// 256 values from -1 or 0 to 1 in rising order, denser towards zero, and how to find the nearest.
struct Map {
    values: [f32; 256],
    /// Half-way to the next value.
    middles: [f32; 255],
    /// By the upper half of a number's bits: the code of the lowest number that has this half.
    guesses: [u8; 1 << 16],
}

static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(true));
static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(false));

/// What the codes of a moment stand for, in rising order.
pub fn values(signed: bool) -> [f32; 256] {
    if signed { SIGNED.values } else { UNSIGNED.values }
}

impl Map {
    /// Seven decades, each cut into twice as many equal parts as the one below, their middles; and 0 and 1.
    fn new(signed: bool) -> Self {
        let mut values = [0.0; 256];
        let mut n = 2;
        values[1] = 1.0;
        for decade in 0..7 {
            let parts = if signed { 1 << decade } else { 2 << decade };
            for part in 0..parts {
                let width = 0.9 / f64::from(parts);
                let middle = 0.1 + width * (f64::from(part) + 0.5);
                let value = (middle * 10_f64.powi(decade - 6)) as f32;
                values[n] = value;
                n += 1;
                if signed {
                    values[n] = -value;
                    n += 1;
                }
            }
        }
        assert_eq!(n, 256);
        values.sort_unstable_by(f32::total_cmp);
        let middles = std::array::from_fn(|i| (values[i] + values[i + 1]) / 2.0);
        let code = |x: f32| middles.partition_point(|middle| x > *middle) as u8;
        let guesses = std::array::from_fn(|half| {
            let (low, high) = ((half as u32) << 16, ((half as u32) << 16) | 0xffff);
            // Numbers below zero fall as their bits rise.
            code(f32::from_bits(if half < 1 << 15 { low } else { high }))
        });
        Self { values, middles, guesses }
    }

    /// The code of the value nearest to `x`, which is within -1..1.
    #[inline(always)]
    fn code(&self, x: f32) -> u8 {
        let mut code = self.guesses[(x.to_bits() >> 16) as usize];
        while code < 255 && x > self.middles[code as usize] {
            code += 1;
        }
        code
    }

    fn read(&self, numbers: &mut [f32], codes: &[u8], scale: f32) {
        for (x, code) in numbers.iter_mut().zip(codes) {
            *x = self.values[*code as usize] * scale;
        }
    }

    /// Gives the scale: the largest magnitude.
    fn write(&self, codes: &mut [u8], numbers: &[f32]) -> f32 {
        let scale = numbers.iter().fold(0.0_f32, |scale, x| scale.max(x.abs()));
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (code, x) in codes.iter_mut().zip(numbers) {
            let nearest = self.code(x * inverse);
            // A number keeps its sign: bitsandbytes takes no negative one for zero.
            *code = nearest - u8::from(*x < 0.0 && self.values[nearest as usize] >= 0.0);
        }
        scale
    }
}

/// An 8-bit state: codes, of which the last few may stand for nothing, and a scale for each block.
pub struct Moment<'a> {
    pub codes: &'a mut [u8],
    pub scales: &'a mut [f32],
}

impl Moment<'_> {
    fn check(&self, n: usize) {
        assert!(
            self.codes.len() >= n && self.scales.len() == n.div_ceil(BLOCK),
            "an 8-bit moment of another size"
        );
    }

    /// Blocks: their codes and their scale.
    fn blocks(&mut self) -> impl IndexedParallelIterator<Item = (&mut [u8], &mut f32)> {
        self.codes.par_chunks_mut(BLOCK).zip(self.scales.par_iter_mut())
    }
}

/// Blocks that one parallel task covers at the least.
const TASK: usize = CHUNK / BLOCK;

/// As [`Adam::update`].
pub fn adam(adam: &Adam, p: &mut [f32], g: &[f32], mut m: Moment<'_>, mut v: Moment<'_>, scale: f32) {
    assert_eq!(g.len(), p.len(), "Adam: operands of different lengths");
    m.check(p.len());
    v.check(p.len());
    let c = adam.constants(scale);
    p.par_chunks_mut(BLOCK)
        .zip(g.par_chunks(BLOCK))
        .zip(m.blocks().zip(v.blocks()))
        .with_min_len(TASK)
        .for_each(|((p, g), ((m_codes, m_scale), (v_codes, v_scale)))| {
            let (mut m, mut v) = ([0.0; BLOCK], [0.0; BLOCK]);
            let (m, v) = (&mut m[..p.len()], &mut v[..p.len()]);
            SIGNED.read(m, m_codes, *m_scale);
            UNSIGNED.read(v, v_codes, *v_scale);
            adam.block(p, g, m, v, c);
            *m_scale = SIGNED.write(m_codes, m);
            *v_scale = UNSIGNED.write(v_codes, v);
        });
}

/// As [`Lion::update`].
pub fn lion(lion: &Lion, p: &mut [f32], g: &[f32], mut m: Moment<'_>, scale: f32) {
    assert_eq!(g.len(), p.len(), "Lion: operands of different lengths");
    m.check(p.len());
    let c = lion.constants(scale);
    p.par_chunks_mut(BLOCK).zip(g.par_chunks(BLOCK)).zip(m.blocks()).with_min_len(TASK).for_each(
        |((p, g), (codes, m_scale))| {
            let mut m = [0.0; BLOCK];
            let m = &mut m[..p.len()];
            SIGNED.read(m, codes, *m_scale);
            for ((p, &g), m) in p.iter_mut().zip(g).zip(m.iter_mut()) {
                lion_one(p, g, m, c);
            }
            *m_scale = SIGNED.write(codes, m);
        },
    );
}
