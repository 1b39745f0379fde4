// Number by number: curves, sums, casts, columns.

// As `Activation`: silu, gelu, gelu with a tangent, relu, a bounded line.
enum { SILU = 0, GELU = 1, GELU_TANH = 2, RELU = 3, TANH = 4 };

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The integral of the normal distribution up to x.
__device__ inline float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678f * x); }

__device__ inline float curve(int f, float cap, float x) {
    switch (f) {
        case SILU: return x * sigmoid(x);
        case GELU: return x * normal_cdf(x);
        case GELU_TANH: return x * sigmoid(1.595769f * x * (1.0f + 0.044715f * x * x));
        case RELU: return x < 0.0f ? 0.0f : x;
        default: return cap * tanhf(x / cap);
    }
}

// The derivative at x.
__device__ inline float slope(int f, float cap, float x) {
    switch (f) {
        case SILU: {
            float s = sigmoid(x);
            return s * (1.0f + x * (1.0f - s));
        }
        case GELU: return normal_cdf(x) + x * 0.3989423f * expf(-0.5f * x * x);
        case GELU_TANH: {
            float s = sigmoid(1.595769f * x * (1.0f + 0.044715f * x * x));
            return s * (1.0f + x * (1.0f - s) * 1.595769f * (1.0f + 3.0f * 0.044715f * x * x));
        }
        case RELU: return x > 0.0f ? 1.0f : 0.0f;
        default: {
            float y = tanhf(x / cap);
            return 1.0f - y * y;
        }
    }
}

// y = f(x); y may be x.
extern "C" __global__ void activate(real* y, const real* x, int f, float cap, u64 n) {
    each(n, [&](u64 i) { y[i] = narrow<real>(curve(f, cap, wide(x[i]))); });
}

// dx = dy f'(x); dx may be dy.
extern "C" __global__ void activate_grad(real* dx, const real* dy, const real* x, int f, float cap, u64 n) {
    each(n, [&](u64 i) { dx[i] = narrow<real>(wide(dy[i]) * slope(f, cap, wide(x[i]))); });
}

// y = f(gate) up; y may be gate.
extern "C" __global__ void gated(real* y, const real* gate, const real* up, int f, float cap, u64 n) {
    each(n, [&](u64 i) { y[i] = narrow<real>(curve(f, cap, wide(gate[i])) * wide(up[i])); });
}

// d_gate = dy up f'(gate) and d_up = dy f(gate); they may be gate and up.
extern "C" __global__ void gated_grad(
    real* d_gate, real* d_up, const real* dy, const real* gate, const real* up, int f, float cap, u64 n) {
    each(n, [&](u64 i) {
        float d = wide(dy[i]), g = wide(gate[i]), u = wide(up[i]);
        d_gate[i] = narrow<real>(d * u * slope(f, cap, g));
        d_up[i] = narrow<real>(d * curve(f, cap, g));
    });
}

extern "C" __global__ void scale(real* y, const real* x, float factor, u64 n) {
    each(n, [&](u64 i) { y[i] = narrow<real>(wide(x[i]) * factor); });
}

extern "C" __global__ void add(real* y, const real* a, const real* b, u64 n) {
    each(n, [&](u64 i) { y[i] = narrow<real>(wide(a[i]) + wide(b[i])); });
}

// The same for gradients of parameters.
extern "C" __global__ void add_floats(float* y, const float* a, const float* b, u64 n) {
    each(n, [&](u64 i) { y[i] = a[i] + b[i]; });
}

// y[row] += bias; y is [rows, n].
extern "C" __global__ void add_bias(real* y, const real* bias, u32 n, u64 all) {
    each(all, [&](u64 i) { y[i] = narrow<real>(wide(y[i]) + wide(bias[i % n])); });
}

// The same for up to three at once: those of queries, keys and values.
extern "C" __global__ void add_three_biases(
    real* y0, const real* bias0, u32 n0, u64 all0, real* y1, const real* bias1, u32 n1, u64 all1, real* y2,
    const real* bias2, u32 n2, u64 all2) {
    real* y = blockIdx.y == 0 ? y0 : blockIdx.y == 1 ? y1 : y2;
    const real* bias = blockIdx.y == 0 ? bias0 : blockIdx.y == 1 ? bias1 : bias2;
    u32 n = blockIdx.y == 0 ? n0 : blockIdx.y == 1 ? n1 : n2;
    u64 all = blockIdx.y == 0 ? all0 : blockIdx.y == 1 ? all1 : all2;
    each(all, [&](u64 i) { y[i] = narrow<real>(wide(y[i]) + wide(bias[i % n])); });
}

extern "C" __global__ void widen(float* y, const real* x, u64 n) {
    each(n, [&](u64 i) { y[i] = wide(x[i]); });
}

extern "C" __global__ void narrow_to_real(real* y, const float* x, u64 n) {
    each(n, [&](u64 i) { y[i] = narrow<real>(x[i]); });
}

// To one of the two neighbours, so that it is x in the mean. The i-th number's chance is the i-th of the stream that
// `noise` begins, as on the CPU (SplitMix64).
extern "C" __global__ void round_at_random(bf16* y, const float* x, u64 noise, u64 n) {
    each(n, [&](u64 i) {
        u64 z = noise + (i + 1) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        u32 bits = bits_of(x[i]);
        if ((bits & 0x7f800000u) == 0x7f800000u) y[i] = narrow<bf16>(x[i]);
        else y[i].bits = (u16)((bits + (u32)(z >> 48)) >> 16);
    });
}

extern "C" __global__ void fill_words(u32* y, u32 word, u64 n) {
    each(n, [&](u64 i) { y[i] = word; });
}

extern "C" __global__ void copy_words(u32* y, const u32* x, u64 n) {
    each(n, [&](u64 i) { y[i] = x[i]; });
}

// y[i] = x[i][start ..][.. width], with x in pieces of `period`; n numbers of y.
extern "C" __global__ void columns(real* y, const real* x, u32 start, u32 width, u32 period, u64 n) {
    each(n, [&](u64 i) { y[i] = x[i / width * period + start + i % width]; });
}

// The other way: zero elsewhere, or what is there with `accumulate`; n numbers of dx.
extern "C" __global__ void columns_grad(
    real* dx, const real* dy, u32 start, u32 width, u32 period, int accumulate, u64 n) {
    each(n, [&](u64 i) {
        u32 column = (u32)(i % period);
        float sum = accumulate ? wide(dx[i]) : 0.0f;
        if (column >= start && column < start + width) sum += wide(dy[i / period * width + column - start]);
        dx[i] = narrow<real>(sum);
    });
}

// y[row] = table[ids[row] + offset]; a block a row, hidden numbers.
extern "C" __global__ void embed(real* y, const real* table, const u32* ids, u32 offset, u32 hidden) {
    u64 row = blockIdx.x;
    const real* from = table + (u64)(ids[row] + offset) * hidden;
    real* to = y + row * hidden;
    for (u32 i = threadIdx.x; i < hidden; i += blockDim.x) to[i] = from[i];
}

// d_table[ids[row] + offset] += dy[row], in the order of the rows: a block for each row that is the first with its id.
template <class T> __device__ inline void gather_grad(
    T* d_table, const real* dy, const u32* ids, u32 offset, u32 hidden, u32 rows) {
    u32 row = blockIdx.x, id = ids[row];
    int known = 0;
    for (u32 i = threadIdx.x; i < row; i += blockDim.x) known |= ids[i] == id;
    if (__syncthreads_or(known)) return;
    T* sum = d_table + (u64)(id + offset) * hidden;
    for (u32 other = row; other < rows; other++) {
        if (ids[other] != id) continue;
        const real* from = dy + (u64)other * hidden;
        for (u32 i = threadIdx.x; i < hidden; i += blockDim.x) sum[i] = narrow<T>(wide(sum[i]) + wide(from[i]));
    }
}

extern "C" __global__ void embed_grad(
    float* d_table, const real* dy, const u32* ids, u32 offset, u32 hidden, u32 rows) {
    gather_grad(d_table, dy, ids, offset, hidden, rows);
}

// The same where the rows were picked out of activations.
extern "C" __global__ void pick_grad(real* dx, const real* dy, const u32* ids, u32 offset, u32 hidden, u32 rows) {
    gather_grad(dx, dy, ids, offset, hidden, rows);
}

extern "C" __global__ void clear_reals(real* y, u64 n) {
    each(n, [&](u64 i) { y[i] = narrow<real>(0.0f); });
}

// Cosines, then sines, of position times inverse frequency: [rows, 2 half], in 32-bit floats.
extern "C" __global__ void rope_table(float* table, const u32* positions, const float* inv_freq, u32 half, u64 n) {
    each(n, [&](u64 i) {
        u64 row = i / half;
        u32 k = (u32)(i % half);
        float angle = (float)positions[row] * inv_freq[k];
        table[row * 2 * half + k] = cosf(angle);
        table[row * 2 * half + half + k] = sinf(angle);
    });
}

__device__ inline void turn(
    real* y, const real* x, const float* table, u32 heads, u32 head_dim, u32 turned, float sign, u64 n) {
    // A thread turns one pair, or passes two numbers of the rest.
    each(n, [&](u64 i) {
        u32 pairs = head_dim / 2, half = turned / 2;
        u32 pair = (u32)(i % pairs);
        u64 head = i / pairs, row = head / heads;
        u64 at = head * head_dim;
        if (pair < half) {
            float cos = table[row * turned + pair], sin = sign * table[row * turned + half + pair];
            float a = wide(x[at + pair]), b = wide(x[at + half + pair]);
            y[at + pair] = narrow<real>(a * cos - b * sin);
            y[at + half + pair] = narrow<real>(b * cos + a * sin);
        } else {
            u64 first = at + turned + 2 * (pair - half);
            y[first] = x[first];
            y[first + 1] = x[first + 1];
        }
    });
}

// Turns pairs half of `turned` apart in each head; `sign` is -1 for the reverse; y may be x.
extern "C" __global__ void rope(
    real* y, const real* x, const float* table, u32 heads, u32 head_dim, u32 turned, float sign, u64 n) {
    turn(y, x, table, heads, head_dim, turned, sign, n);
}

// Queries and keys.
extern "C" __global__ void rope_two(
    real* y0, const real* x0, u32 heads0, u64 n0, real* y1, const real* x1, u32 heads1, u64 n1, const float* table,
    u32 head_dim, u32 turned, float sign) {
    if (blockIdx.y == 0) turn(y0, x0, table, heads0, head_dim, turned, sign, n0);
    else turn(y1, x1, table, heads1, head_dim, turned, sign, n1);
}

extern "C" __global__ void copy_reals(real* y, const real* x, u64 n) {
    each(n, [&](u64 i) { y[i] = x[i]; });
}
