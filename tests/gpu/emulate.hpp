// A CPU that acts like a CUDA device: enough of its language to run the kernels as they are.
//
// The threads of a block are fibers of one thread of the system. They take turns where they wait for each other: at
// barriers of a block or a warp, and where a warp exchanges values. Blocks run one after the other.

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __align__(n) alignas(n)
#define __launch_bounds__(n)
#define __shared__ static

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;
static unsigned char* emulated_shared;
#define SHARED_MEMORY(type, name) type* name = (type*)emulated_shared

// Those that wait for each other.
struct Group {
    unsigned alive = 0, arrived = 0;
    uint64_t generation = 0;
    void release() {
        if (alive > 0 && arrived == alive) {
            arrived = 0;
            generation++;
        }
    }
};

struct Fiber {
    // Where it begins; and where it waits, which costs no call of the system to come back to.
    ucontext_t begin;
    jmp_buf waits;
    std::vector<unsigned char> stack;
    Index idx;
    bool begun, done;
};

static std::vector<Fiber> fibers;
static std::vector<Group> warps;
static Group block_group;
static unsigned current, n_fibers;
static ucontext_t scheduler_context;
static jmp_buf scheduler;
static bool backwards;
static void (*run_kernel)(void**);
static void** kernel_args;

static void yield() {
    if (!_setjmp(fibers[current].waits)) _longjmp(scheduler, 1);
}
static void go_on(Fiber& fiber) {
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.waits, 1);
    fiber.begun = true;
    swapcontext(&scheduler_context, &fiber.begin);
}
static void wait_for(Group& group) {
    uint64_t generation = group.generation;
    group.arrived++;
    group.release();
    while (group.generation == generation) yield();
}
// Who has not begun yet after the current one; those who wait for nobody are run one after the other on one stack.
static bool take_next() {
    while (backwards ? current > 0 : current + 1 < n_fibers) {
        current += backwards ? -1 : 1;
        if (!fibers[current].begun) {
            fibers[current].begun = true;
            threadIdx = fibers[current].idx;
            return true;
        }
    }
    return false;
}
static void fiber_main() {
    unsigned last;
    do {
        run_kernel(kernel_args);
        last = current;
        fibers[current].done = true;
        Group* groups[2] = {&warps[current / 32], &block_group};
        for (Group* group : groups) {
            group->alive--;
            group->release();
        }
    } while (take_next());
    current = last;
    yield();
}

static void run_block() {
    unsigned n = blockDim.x * blockDim.y * blockDim.z;
    if (fibers.size() < n) {
        fibers.resize(n);
        for (Fiber& fiber : fibers)
            if (fiber.stack.empty()) fiber.stack.resize(128 << 10);
    }
    n_fibers = n;
    warps.assign((n + 31) / 32, Group());
    block_group = Group();
    block_group.alive = n;
    for (unsigned i = 0; i < n; i++) {
        Fiber& fiber = fibers[i];
        warps[i / 32].alive++;
        fiber.begun = fiber.done = false;
        fiber.idx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
        getcontext(&fiber.begin);
        fiber.begin.uc_stack.ss_sp = fiber.stack.data();
        fiber.begin.uc_stack.ss_size = fiber.stack.size();
        fiber.begin.uc_link = nullptr;
        makecontext(&fiber.begin, fiber_main, 0);
    }
    for (unsigned left = n; left > 0;) {
        left = 0;
        for (unsigned turn = 0; turn < n; turn++) {
            unsigned i = backwards ? n - 1 - turn : turn;
            if (fibers[i].done) continue;
            current = i;
            threadIdx = fibers[i].idx;
            go_on(fibers[i]);
            left += !fibers[i].done;
        }
    }
}

static void __syncthreads() { wait_for(block_group); }
static void __syncwarp() { wait_for(warps[current / 32]); }
static int __syncthreads_or(int x) {
    static int any;
    any = 0;
    __syncthreads();
    any |= x != 0;
    __syncthreads();
    int result = any;
    __syncthreads();
    return result;
}

static unsigned exchanged[1024][4];
static float __shfl_xor_sync(unsigned, float x, int step) {
    std::memcpy(&exchanged[current][0], &x, 4);
    __syncwarp();
    float y;
    std::memcpy(&y, &exchanged[current ^ step][0], 4);
    __syncwarp();
    return y;
}

static float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
static unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
static unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

static float half_to_float(unsigned short bits) {
    unsigned sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    float x = exponent ? std::ldexp(1024.0f + mantissa, (int)exponent - 25) : std::ldexp((float)mantissa, -24);
    return sign ? -x : x;
}
static unsigned short float_to_half(float x) {
    unsigned bits = __float_as_uint(x);
    unsigned short sign = (bits >> 16) & 0x8000;
    float a = std::fabs(x);
    if (!(a == a)) return sign | 0x7e00;
    if (a >= 65520.0f) return sign | 0x7c00;
    // To the nearest, ties to even, in units of the last place.
    int exponent = a < 6.1035156e-5f ? -24 : std::ilogb(a) - 10;
    float units = std::nearbyint(std::ldexp(a, -exponent));
    if (exponent == -24) return sign | (unsigned short)units;
    unsigned whole = (unsigned)units;
    if (whole == 2048) { whole = 1024; exponent++; }
    return sign | (unsigned short)((exponent + 25) << 10) | (unsigned short)(whole - 1024);
}

// As the instruction ldmatrix: thread 8 i + j names row j of matrix i.
static void matrices(unsigned (&to)[4], const void* row, bool turned) {
    static const void* rows[1024];
    rows[current] = row;
    __syncwarp();
    unsigned first = current / 32 * 32, lane = current % 32;
    for (int i = 0; i < 4; i++) {
        unsigned short two[2];
        for (int j = 0; j < 2; j++) {
            unsigned r = turned ? lane % 4 * 2 + j : lane / 4, c = turned ? lane / 4 : lane % 4 * 2 + j;
            two[j] = ((const unsigned short*)rows[first + 8 * i + r])[c];
        }
        to[i] = two[0] | (unsigned)two[1] << 16;
    }
    __syncwarp();
}
static void load_matrices(unsigned (&to)[4], const void* row) { matrices(to, row, false); }
static void load_matrices_turned(unsigned (&to)[4], const void* row) { matrices(to, row, true); }

struct bf16;
struct f16;
template <class T> float wide_bits(unsigned short bits);
template <> float wide_bits<bf16>(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }
template <> float wide_bits<f16>(unsigned short bits) { return half_to_float(bits); }

// As the instruction mma.m16n8k16: c += a b, operands spread over the warp as its manual says.
template <class T> void multiply_tiles(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    static unsigned as[1024][4], bs[1024][2];
    std::memcpy(as[current], a, 16);
    bs[current][0] = b0;
    bs[current][1] = b1;
    __syncwarp();
    unsigned first = current / 32 * 32, lane = current % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        unsigned row = g + 8 * (i / 2), column = 2 * t + i % 2;
        float sum = 0.0f;
        for (unsigned k = 0; k < 16; k++) {
            // A: register (k / 8) 2 + row / 8 of thread 4 (row % 8) + k % 8 / 2. B: register k / 8 of 4 column + k % 8 / 2.
            unsigned x = as[first + 4 * (row % 8) + k % 8 / 2][k / 8 * 2 + row / 8];
            unsigned y = bs[first + 4 * column + k % 8 / 2][k / 8];
            unsigned shift = k % 2 * 16;
            sum += wide_bits<T>((unsigned short)(x >> shift)) * wide_bits<T>((unsigned short)(y >> shift));
        }
        c[i] += sum;
    }
    __syncwarp();
}

template <class... A> int parameters(void (*)(A...)) { return sizeof...(A); }

// From cells of 8 bytes to the parameters of a kernel.
template <class... A, size_t... I> void call_with(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*(A*)args[I]...);
}
template <class... A> void call(void (*kernel)(A...), void** args) {
    call_with(kernel, args, std::index_sequence_for<A...>());
}
