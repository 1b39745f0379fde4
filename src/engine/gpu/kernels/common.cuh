// What all kernels share: number types, sums over a block, tiles of products.
//
// A module is compiled for one type of activations and weights, REAL, and one size of attention heads, HEAD_DIM
// (a multiple of 16, at least that of the model). Arithmetic is in 32-bit floats whatever REAL is; gradients of
// parameters and states of optimizers are 32-bit floats.
//
// Everything here is deterministic: no atomics, sums in an order that depends on sizes alone.
// Source files are joined in the order that `kernels.rs` states; each may use what stands before it.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ inline u32 bits_of(float x) { return __float_as_uint(x); }
__device__ inline float float_of(u32 bits) { return __uint_as_float(bits); }

__device__ inline float wide(float x) { return x; }
__device__ inline float wide(bf16 x) { return float_of((u32)x.bits << 16); }
__device__ inline float wide(f16 x) { return half_to_float(x.bits); }

template <class T> struct Narrow;
template <> struct Narrow<float> {
    static __device__ inline float from(float x) { return x; }
};
template <> struct Narrow<bf16> {
    // To the nearest, ties to even; NaN stays NaN.
    static __device__ inline bf16 from(float x) {
        u32 bits = bits_of(x);
        bf16 y;
        if ((bits & 0x7fffffffu) > 0x7f800000u) y.bits = (u16)((bits >> 16) | 0x40u);
        else y.bits = (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
        return y;
    }
};
template <> struct Narrow<f16> {
    static __device__ inline f16 from(float x) { f16 y; y.bits = float_to_half(x); return y; }
};

template <class T> __device__ inline T narrow(float x) { return Narrow<T>::from(x); }

typedef REAL real;

// Four numbers that are read or written at once.
template <class T> struct __align__(4 * sizeof(T)) Four { T at[4]; };

// The n-th of all threads, and their number, for loops over whole buffers.
__device__ inline u64 thread_idx() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline u64 n_threads() { return (u64)gridDim.x * blockDim.x; }

// Calls f with each place of a buffer of n numbers.
template <class F> __device__ inline void each(u64 n, F f) {
    for (u64 i = thread_idx(); i < n; i += n_threads()) f(i);
}

__device__ inline float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// The sum over a block of at most 1,024 threads, whole warps; every thread gets it.
__device__ inline float block_sum(float x) {
    __shared__ float parts[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_sum(lane < n_warps ? parts[lane] : 0.0f);
}
__device__ inline float block_max(float x) {
    __shared__ float parts[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_max(lane < n_warps ? parts[lane] : -INFINITY);
}

// The sum of doubles over a block of 256 threads; the first thread has it.
__device__ inline double block_sum_double(double x) {
    __shared__ double parts[256];
    int i = threadIdx.x;
    parts[i] = x;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (i < half) parts[i] += parts[i + half];
        __syncthreads();
    }
    double sum = parts[0];
    __syncthreads();
    return sum;
}
