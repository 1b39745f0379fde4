//! The one matrix product behind [`matmul`](super::matmul) and [`attention`](super::attention).
//!
//! A library would do, but libraries pack their operands into memory of their own, up to the size of an operand. This
//! one packs a fixed block onto the stack, so the bytes of a run are those of its program.
//!
//! Source: Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"; blocks of the right operand
//! are packed into panels as wide as the registers hold, and the left operand is read where it lies. Half numbers are
//! widened when they are packed; their left operand is packed, too.

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::number::Number;

/// Depth of a packed block. Each element of the result is summed in parts of this length, whatever else is cut.
const DEPTH: usize = 256;

/// Columns of a packed block; a multiple of every panel's width.
const COLUMNS: usize = 192;

/// Rows and columns of a register tile are at most these.
const MAX_ROWS: usize = 8;
const MAX_WIDTH: usize = 48;

/// `y[m, n] = (y or 0) + scale * lhs[m, k] rhs[k, n]`; each may be a block of a larger matrix.
#[derive(Clone, Copy)]
pub struct Product<L, R> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub y: *mut f32,
    /// From one row of `y` to the next; its columns are adjacent.
    pub y_stride: usize,
    pub accumulate: bool,
    pub scale: f32,
    pub lhs: *const L,
    /// From one row to the next, from one column to the next.
    pub lhs_strides: [usize; 2],
    pub rhs: *const R,
    /// From one row to the next, from one column to the next; one of them is 1.
    pub rhs_strides: [usize; 2],
}

#[allow(unsafe_code, reason = "threads write separate blocks of y, and only read the rest")]
unsafe impl<L: Number, R: Number> Send for Product<L, R> {}
#[allow(unsafe_code, reason = "threads write separate blocks of y, and only read the rest")]
unsafe impl<L: Number, R: Number> Sync for Product<L, R> {}

impl<L: Number, R: Number> Product<L, R> {
    /// On the calling thread.
    ///
    /// # Safety
    /// All elements that the sizes and strides name lie in live allocations, those of `y` overlap no other operand, and
    /// nobody else uses them meanwhile.
    #[allow(unsafe_code, reason = "operands are blocks of buffers that several threads share")]
    pub unsafe fn run(self) {
        for first in (0..self.n).step_by(COLUMNS) {
            // SAFETY: the caller's promise covers the whole.
            unsafe { self.block(0..self.m, first..self.n.min(first + COLUMNS)) };
        }
    }

    /// On the current pool.
    ///
    /// # Safety
    /// As [`Self::run`].
    #[allow(unsafe_code, reason = "operands are blocks of buffers that several threads share")]
    pub unsafe fn run_parallel(self) {
        let threads = rayon::current_num_threads();
        let work = self.m * self.n * self.k;
        if threads == 1 || work < 1 << 18 {
            // SAFETY: the caller's promise.
            return unsafe { self.run() };
        }
        // Some blocks per thread, so that one that is held up does not hold up all. How the result is cut does not
        // change it: no sum is cut here.
        let column_blocks = self.n.div_ceil(COLUMNS);
        let row_blocks = (4 * threads).div_ceil(column_blocks).min(self.m.div_ceil(64));
        let rows = self.m.div_ceil(row_blocks).next_multiple_of(2 * MAX_ROWS);
        let row_blocks = self.m.div_ceil(rows);
        (0..row_blocks * column_blocks).into_par_iter().with_max_len(1).for_each(|i| {
            let (row, column) = (i % row_blocks * rows, i / row_blocks * COLUMNS);
            // SAFETY: the blocks of `y` are separate; for the rest, the caller's promise.
            unsafe { self.block(row..self.m.min(row + rows), column..self.n.min(column + COLUMNS)) };
        });
    }

    /// A block of the result; at most [`COLUMNS`] wide.
    ///
    /// # Safety
    /// As [`Self::run`], for these rows and columns.
    #[allow(unsafe_code, reason = "operands are blocks of buffers that several threads share")]
    unsafe fn block(self, rows: Range<usize>, columns: Range<usize>) {
        pulp::Arch::new().dispatch(Block { product: self, rows, columns });
    }
}

struct Block<L, R> {
    product: Product<L, R>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<L: Number, R: Number> WithSimd for Block<L, R> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "passes the promise of `Product::block` on")]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many accumulators as there are registers for, less those for the operands.
        unsafe {
            match S::F32_LANES {
                16 => self.run::<S, 8, 3>(simd),
                8 => self.run::<S, 6, 2>(simd),
                4 if cfg!(target_arch = "aarch64") => self.run::<S, 8, 3>(simd),
                4 => self.run::<S, 4, 2>(simd),
                _ => self.run::<S, 2, 4>(simd),
            }
        }
    }
}

#[repr(align(64))]
struct Packed<const N: usize>(MaybeUninit<[f32; N]>);

impl<L: Number, R: Number> Block<L, R> {
    #[inline(always)]
    #[allow(
        unsafe_code,
        reason = "packed blocks are uninitialised stack; operands are blocks of shared buffers"
    )]
    unsafe fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        const { assert!(ROWS <= MAX_ROWS) };
        let width = VECTORS * S::F32_LANES;
        debug_assert!(width <= MAX_WIDTH && COLUMNS.is_multiple_of(width));
        let Self { product, rows, columns } = self;
        let Product { y, y_stride, lhs, lhs_strides, rhs, rhs_strides, scale, .. } = product;

        let mut right = Packed::<{ DEPTH * COLUMNS }>(MaybeUninit::uninit());
        let mut left = Packed::<{ DEPTH * 2 * MAX_ROWS }>(MaybeUninit::uninit());
        let mut edge = Packed::<{ MAX_ROWS * MAX_WIDTH }>(MaybeUninit::uninit());
        let right = right.0.as_mut_ptr().cast::<f32>();
        let left = left.0.as_mut_ptr().cast::<f32>();
        let edge = edge.0.as_mut_ptr().cast::<f32>();

        // SAFETY: all offsets stay inside the rows, columns and depths that `product` names, and inside the packed
        // blocks: panels are `depth * width`, and there are `COLUMNS / width` of them at most.
        unsafe {
            let mut start = 0;
            // Once even for a depth of zero, so that `y` is written.
            while start < product.k || start == 0 {
                let depth = DEPTH.min(product.k - start);
                let accumulate = product.accumulate || start > 0;
                for (panel, column) in columns.clone().step_by(width).enumerate() {
                    pack_panel(
                        right.add(panel * depth * width),
                        rhs.add(start * rhs_strides[0] + column * rhs_strides[1]),
                        rhs_strides,
                        depth,
                        width,
                        width.min(columns.end - column),
                    );
                }
                for (i, row) in rows.clone().step_by(ROWS).enumerate() {
                    let height = ROWS.min(rows.end - row);
                    let from = lhs.add(row * lhs_strides[0] + start * lhs_strides[1]);
                    let (a, step) = if lhs_strides[1] == 1 && L::IS_WIDE {
                        let from = from.cast::<f32>();
                        // Rows beyond the edge read the last row once more; their result is not stored.
                        (std::array::from_fn(|i| from.add(i.min(height - 1) * lhs_strides[0])), 1)
                    } else {
                        // Two tiles at a time: together they are a cache line wide.
                        let half = i % 2 * depth * ROWS;
                        if half == 0 {
                            let height = (2 * ROWS).min(rows.end - row);
                            pack_left::<L, ROWS>(left, from, lhs_strides, depth, height);
                        }
                        (std::array::from_fn(|i| left.add(half + i).cast_const()), ROWS)
                    };
                    for (panel, column) in columns.clone().step_by(width).enumerate() {
                        let panel = right.add(panel * depth * width);
                        let y = y.add(row * y_stride + column);
                        let valid = width.min(columns.end - column);
                        // At the right edge no more vectors than are needed.
                        let to = Target { y, y_stride, height, valid, scale, accumulate };
                        match valid.div_ceil(S::F32_LANES) {
                            1 => tile::<S, ROWS, 1>(simd, depth, a, step, panel, width, to, edge),
                            2 => tile::<S, ROWS, 2>(simd, depth, a, step, panel, width, to, edge),
                            _ => tile::<S, ROWS, VECTORS>(simd, depth, a, step, panel, width, to, edge),
                        }
                    }
                }
                start += DEPTH;
            }
        }
    }
}

/// Where a register tile goes.
#[derive(Clone, Copy)]
struct Target {
    y: *mut f32,
    y_stride: usize,
    /// Rows and columns of the tile that belong to the result.
    height: usize,
    valid: usize,
    scale: f32,
    accumulate: bool,
}

/// `y = (y or 0) + scale *` `ROWS` rows of the left operand times the first vectors of a packed panel of `width`.
///
/// # Safety
/// `a[i] + p * step` is readable for each `p < depth`, as is the panel; the target is writable, and `edge` for a tile.
#[inline(always)]
#[allow(unsafe_code, reason = "bounds checks in the innermost loop would cost more than the arithmetic")]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    depth: usize,
    a: [*const f32; ROWS],
    step: usize,
    panel: *const f32,
    width: usize,
    to: Target,
    edge: *mut f32,
) {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    let mut panel = panel;
    let mut at = 0;
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..depth {
            let b: [S::f32s; VECTORS] =
                std::array::from_fn(|j| panel.cast::<S::f32s>().add(j).read_unaligned());
            panel = panel.add(width);
            for i in 0..ROWS {
                let a = simd.splat_f32s(*a[i].add(at));
                for j in 0..VECTORS {
                    sums[i][j] = simd.mul_add_e_f32s(a, b[j], sums[i][j]);
                }
            }
            at += step;
        }
        let Target { y, y_stride, height, valid, scale, accumulate } = to;
        if height == ROWS && valid == VECTORS * S::F32_LANES {
            for (i, sums) in sums.into_iter().enumerate() {
                store(simd, y.add(i * y_stride), sums, scale, accumulate);
            }
        } else {
            for (i, sums) in sums.into_iter().enumerate() {
                store(simd, edge.add(i * VECTORS * S::F32_LANES), sums, scale, false);
            }
            for i in 0..height {
                for j in 0..valid {
                    let (y, x) = (y.add(i * y_stride + j), *edge.add(i * VECTORS * S::F32_LANES + j));
                    *y = if accumulate { *y + x } else { x };
                }
            }
        }
    }
}

/// `y = (y or 0) + scale * sums`.
///
/// # Safety
/// `y` is writable for all lanes.
#[inline(always)]
#[allow(unsafe_code, reason = "a row of the result inside a buffer that threads share")]
unsafe fn store<S: Simd, const VECTORS: usize>(
    simd: S,
    y: *mut f32,
    sums: [S::f32s; VECTORS],
    scale: f32,
    accumulate: bool,
) {
    let scale = simd.splat_f32s(scale);
    for (j, sum) in sums.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let y = y.cast::<S::f32s>().add(j);
            let sum = simd.mul_f32s(scale, sum);
            let sum = if accumulate { simd.add_f32s(y.read_unaligned(), sum) } else { sum };
            y.write_unaligned(sum);
        }
    }
}

/// Copies `n` adjacent numbers.
///
/// # Safety
/// `from` is readable and `to` writable for so many; they do not overlap.
#[inline(always)]
#[allow(unsafe_code, reason = "writes uninitialised stack, reads blocks of shared buffers")]
unsafe fn widen<T: Number>(to: *mut f32, from: *const T, n: usize) {
    // SAFETY: the caller's promise; what is wide is an `f32`.
    unsafe {
        if T::IS_WIDE {
            return to.copy_from_nonoverlapping(from.cast(), n);
        }
        for i in 0..n {
            *to.add(i) = (*from.add(i)).wide();
        }
    }
}

/// Copies `valid` columns of the right operand, `depth` deep, into a panel of `width`; the others become 0.
///
/// # Safety
/// `from` is readable for these sizes and strides, `panel` writable for `depth * width`.
#[inline(always)]
#[allow(unsafe_code, reason = "writes uninitialised stack, reads blocks of shared buffers")]
unsafe fn pack_panel<R: Number>(
    panel: *mut f32,
    from: *const R,
    [row_stride, column_stride]: [usize; 2],
    depth: usize,
    width: usize,
    valid: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if valid < width {
            panel.write_bytes(0, depth * width);
        }
        if column_stride == 1 {
            for p in 0..depth {
                let (to, from) = (panel.add(p * width), from.add(p * row_stride));
                // A length that is known when compiling becomes a few moves instead of a call.
                match valid == width {
                    true => widen(to, from, width),
                    false => widen(to, from, valid),
                }
            }
            return;
        }
        // A transposition, in squares that stay in the first cache.
        const SIDE: usize = 16;
        for p in (0..depth).step_by(SIDE) {
            let side = SIDE.min(depth - p);
            for j in 0..valid {
                let from = from.add(j * column_stride + p * row_stride);
                let to = panel.add(p * width + j);
                if side == SIDE {
                    for t in 0..SIDE {
                        *to.add(t * width) = (*from.add(t * row_stride)).wide();
                    }
                } else {
                    for t in 0..side {
                        *to.add(t * width) = (*from.add(t * row_stride)).wide();
                    }
                }
            }
        }
    }
}

/// Copies up to two tiles of `ROWS` rows of the left operand, each so that the values of one depth are adjacent; rows
/// beyond `height` become 0.
///
/// # Safety
/// `from` is readable for these sizes and strides, `left` writable for `2 * depth * ROWS`.
#[inline(always)]
#[allow(unsafe_code, reason = "writes uninitialised stack, reads blocks of shared buffers")]
unsafe fn pack_left<L: Number, const ROWS: usize>(
    left: *mut f32,
    from: *const L,
    [row_stride, column_stride]: [usize; 2],
    depth: usize,
    height: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if height == 2 * ROWS && row_stride == 1 {
            for p in 0..depth {
                let (to, from) = (left.add(p * ROWS), from.add(p * column_stride));
                widen(to, from, ROWS);
                widen(to.add(depth * ROWS), from.add(ROWS), ROWS);
            }
            return;
        }
        left.write_bytes(0, 2 * depth * ROWS);
        for p in 0..depth {
            for i in 0..height {
                let to = left.add(i / ROWS * depth * ROWS + p * ROWS + i % ROWS);
                *to = (*from.add(i * row_stride + p * column_stride)).wide();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{assert_close, random};
    use super::*;

    /// Each instruction set has tiles of its own, and this machine would run only one of them.
    #[test]
    fn every_instruction_set_gives_the_product() {
        for (m, n, k) in [(1, 1, 1), (5, 17, 3), (8, 48, 16), (13, 190, 300), (16, 64, 256), (17, 100, 513)] {
            for (lhs_strides, rhs_strides) in [([k, 1], [1, k]), ([k, 1], [n, 1]), ([1, m], [n, 1])] {
                let (lhs, rhs, before) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
                let expected: Vec<f32> = (0..m * n)
                    .map(|at| {
                        let (i, j) = (at / n, at % n);
                        let sum: f64 = (0..k)
                            .map(|p| {
                                let a = lhs[i * lhs_strides[0] + p * lhs_strides[1]];
                                f64::from(a) * f64::from(rhs[p * rhs_strides[0] + j * rhs_strides[1]])
                            })
                            .sum();
                        (f64::from(before[at]) + 0.5 * sum) as f32
                    })
                    .collect();
                let check = |run: &dyn Fn(Block<f32, f32>)| {
                    let mut y = before.clone();
                    let product = Product {
                        m,
                        n,
                        k,
                        y: y.as_mut_ptr(),
                        y_stride: n,
                        accumulate: true,
                        scale: 0.5,
                        lhs: lhs.as_ptr(),
                        lhs_strides,
                        rhs: rhs.as_ptr(),
                        rhs_strides,
                    };
                    run(Block { product, rows: 0..m, columns: 0..n });
                    assert_close(&y, &expected, 1e-5);
                };
                check(&|block| pulp::Arch::new().dispatch(block));
                check(&|block| block.with_simd(pulp::Scalar));
                #[cfg(target_arch = "x86_64")]
                {
                    if let Some(simd) = pulp::x86::V2::try_new() {
                        check(&|block| Simd::vectorize(simd, block));
                    }
                    if let Some(simd) = pulp::x86::V3::try_new() {
                        check(&|block| Simd::vectorize(simd, block));
                    }
                }
            }
        }
    }

    /// Half numbers are exact in 32 bits, so the product is that of the same numbers there, to the bit.
    #[test]
    fn half_numbers_are_multiplied_in_32_bits() {
        use half::{bf16, f16};
        fn check<L: Number, R: Number>() {
            let (m, n, k) = (37, 210, 300);
            let (lhs, rhs) = (random(m * k, 1), random(k * n, 2));
            let lhs: Vec<L> = lhs.iter().map(|x| L::nearest(*x)).collect();
            let rhs: Vec<R> = rhs.iter().map(|x| R::nearest(*x)).collect();
            let wide_lhs: Vec<f32> = lhs.iter().map(|x| x.wide()).collect();
            let wide_rhs: Vec<f32> = rhs.iter().map(|x| x.wide()).collect();
            for (lhs_strides, rhs_strides) in [([k, 1], [1, k]), ([k, 1], [n, 1]), ([1, m], [n, 1])] {
                let (mut y, mut expected) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                let product = |y: &mut Vec<f32>| Product {
                    m,
                    n,
                    k,
                    y: y.as_mut_ptr(),
                    y_stride: n,
                    accumulate: false,
                    scale: 0.5,
                    lhs: lhs.as_ptr(),
                    lhs_strides,
                    rhs: rhs.as_ptr(),
                    rhs_strides,
                };
                let halves = product(&mut y);
                let wide = product(&mut expected);
                let Product { m, n, k, y: to, y_stride, accumulate, scale, .. } = wide;
                let (lhs, rhs) = (wide_lhs.as_ptr(), wide_rhs.as_ptr());
                let wide = Product {
                    m,
                    n,
                    k,
                    y: to,
                    y_stride,
                    accumulate,
                    scale,
                    lhs,
                    lhs_strides,
                    rhs,
                    rhs_strides,
                };
                // SAFETY: the operands are slices of just these sizes.
                #[allow(unsafe_code, reason = "the product takes pointers")]
                unsafe {
                    halves.run();
                    wide.run_parallel();
                }
                assert_eq!(y, expected);
            }
        }
        check::<bf16, bf16>();
        check::<f16, f16>();
        check::<f32, bf16>();
    }
}
