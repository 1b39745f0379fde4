// Softmax attention by tiles, forward and reverse: never a seq x seq tensor, no atomics.
//
// A block has WARPS warps; each owns 16 rows of the tile. Products of 16-bit numbers go through tensor cores
// (mma.m16n8k16), those of 32-bit floats through ordinary multiplications.
//
// The reverse pass has two kernels: one owns queries and gives dq, one owns keys and gives dk and dv, for all query
// heads that share a key head. Each forms the probabilities again from the scores and `lse`.
//
// Source: Dao 2023, "FlashAttention-2", algorithms 1 and 2.

// So that the tiles of the reverse pass fit into 99 KiB of shared memory, which most GPUs have for a block.
#if REAL_BYTES == 2
#define WARPS (HEAD_DIM <= 128 ? 4 : 2)
#define OTHERS (HEAD_DIM <= 128 ? 64 : 32)
#else
#define WARPS (HEAD_DIM <= 64 ? 4 : HEAD_DIM <= 128 ? 2 : 1)
#define OTHERS (HEAD_DIM <= 128 ? 32 : 16)
#endif

// Rows of the tile that a block owns.
#define OWN (16 * WARPS)
// From row to row in shared memory: the padding spreads rows over the banks.
#define PAD (16 / REAL_BYTES)
#define DIM_LD (HEAD_DIM + PAD)
#define OTHERS_LD (OTHERS + PAD)

// The sizes of one attention, and who sees whom; as `AttentionSpec`.
struct Spec {
    u32 seq, heads, kv_heads, head_dim;
    float scale, softcap;
    int causal;
    u32 window; // 0: none
    const u32* starts; // or null
    u32 row; // the first position of this row of the batch

    // The first key that a query sees.
    __device__ u32 low(u32 i) const {
        u32 start = starts ? min(starts[row + i], i) : 0u;
        u32 reach = window && i + 1 > window ? i + 1 - window : 0u;
        return max(start, reach);
    }
    // `query` and `key` are below seq.
    __device__ bool sees(u32 query, u32 key, u32 low_of_query) const {
        if (key < low_of_query) return false;
        if (key <= query) return true;
        if (causal) return false;
        return !starts || min(starts[row + key], key) <= query;
    }
};

// A 16 x 8 n tile of sums, spread over a warp as mma.m16n8k16 has it: of each 8 columns a thread has those at
// 2 t and 2 t + 1, in row g (numbers 0, 1) and in row g + 8 (numbers 2, 3), with g = lane / 4 and t = lane % 4.
template <int N> struct Tile {
    float at[N / 8][4];
    __device__ inline void clear() {
#pragma unroll
        for (int j = 0; j < N / 8; j++) at[j][0] = at[j][1] = at[j][2] = at[j][3] = 0.0f;
    }
};

// sums += A B over K. A is 16 x K: A(i, k) = a[i * lda + k], or a[k * lda + i] if A_BY_K. B is K x N: B(k, n) = b[k * ldb + n],
// or b[n * ldb + k] if B_BY_N. Both lie in shared memory; K is a multiple of 16.
template <int N, int K, bool A_BY_K, bool B_BY_N>
__device__ inline void multiply(Tile<N>& sums, const real* a, int lda, const real* b, int ldb) {
    int lane = threadIdx.x % 32;
#if REAL_BYTES == 2
    int row = lane % 8, quarter = lane / 8;
#pragma unroll
    for (int k = 0; k < K; k += 16) {
        u32 fa[4];
        int ai = 8 * (quarter % 2), ak = k + 8 * (quarter / 2);
        if (A_BY_K) load_matrices_turned(fa, a + (ak + row) * lda + ai);
        else load_matrices(fa, a + (ai + row) * lda + ak);
#pragma unroll
        for (int n = 0; n < N; n += 16) {
            u32 fb[4];
            int bk = k + 8 * (quarter % 2), bn = n + 8 * (quarter / 2);
            if (B_BY_N) load_matrices(fb, b + (bn + row) * ldb + bk);
            else load_matrices_turned(fb, b + (bk + row) * ldb + bn);
            multiply_tiles<real>(sums.at[n / 8], fa, fb[0], fb[1]);
            multiply_tiles<real>(sums.at[n / 8 + 1], fa, fb[2], fb[3]);
        }
    }
#else
    int g = lane / 4, t = lane % 4;
    for (int k = 0; k < K; k++) {
        float low = A_BY_K ? a[k * lda + g] : a[g * lda + k];
        float high = A_BY_K ? a[k * lda + g + 8] : a[(g + 8) * lda + k];
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            int n = 8 * j + 2 * t;
            float left = B_BY_N ? b[n * ldb + k] : b[k * ldb + n];
            float right = B_BY_N ? b[(n + 1) * ldb + k] : b[k * ldb + n + 1];
            sums.at[j][0] += low * left;
            sums.at[j][1] += low * right;
            sums.at[j][2] += high * left;
            sums.at[j][3] += high * right;
        }
    }
#endif
}

// Copies rows first .. first + n of one head into shared memory; what lies beyond seq or head_dim becomes zero.
__device__ inline void load_rows(
    real* tile, const real* x, u32 first, u32 n, const Spec& spec, u32 n_heads, u32 head) {
    const u32 stride = n_heads * spec.head_dim;
    if (spec.head_dim % 4 == 0) {
        for (u32 i = threadIdx.x; i < n * (HEAD_DIM / 4); i += blockDim.x) {
            u32 row = i / (HEAD_DIM / 4), column = i % (HEAD_DIM / 4) * 4;
            Four<real> four;
            if (first + row < spec.seq && column < spec.head_dim) {
                four = *(const Four<real>*)(x + (u64)(spec.row + first + row) * stride + head * spec.head_dim + column);
            } else {
                for (int j = 0; j < 4; j++) four.at[j] = narrow<real>(0.0f);
            }
            *(Four<real>*)(tile + row * DIM_LD + column) = four;
        }
        return;
    }
    for (u32 i = threadIdx.x; i < n * HEAD_DIM; i += blockDim.x) {
        u32 row = i / HEAD_DIM, column = i % HEAD_DIM;
        bool there = first + row < spec.seq && column < spec.head_dim;
        tile[row * DIM_LD + column] = there
            ? x[(u64)(spec.row + first + row) * stride + head * spec.head_dim + column]
            : narrow<real>(0.0f);
    }
}

// Writes a warp's 16 rows of `tile`, times `factor`, to rows `first`.. of one head.
__device__ inline void store_rows(
    real* y, const Tile<HEAD_DIM>& tile, float factor_low, float factor_high, u32 first, const Spec& spec, u32 n_heads,
    u32 head) {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const u32 stride = n_heads * spec.head_dim;
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; j++) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
            u32 row = first + g + (c < 2 ? 0 : 8), column = 8 * j + 2 * t + c % 2;
            if (row < spec.seq && column < spec.head_dim)
                y[(u64)(spec.row + row) * stride + head * spec.head_dim + column] =
                    narrow<real>(tile.at[j][c] * (c < 2 ? factor_low : factor_high));
        }
    }
}

__device__ inline float bend(float score, float softcap) {
    return softcap > 0.0f ? softcap * tanhf(score / softcap) : score;
}

// The sum, or largest, of the four threads that share a row of a tile.
__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// o and lse of OWN queries of one head. Grid: (tiles of queries, heads, batch). Shared: q, k, v, p.
extern "C" __global__ void __launch_bounds__(32 * WARPS) attention(
    real* o, float* lse, const real* q, const real* k, const real* v, const u32* starts, u32 seq, u32 heads,
    u32 kv_heads, u32 head_dim, float scale, float softcap, int causal, u32 window) {
    SHARED_MEMORY(real, shared);
    Spec spec = {seq, heads, kv_heads, head_dim, scale, softcap, causal, window, starts, blockIdx.z * seq};
    // The last tiles of a causal row have the most to do: they begin first.
    u32 first = (gridDim.x - 1 - blockIdx.x) * OWN, head = blockIdx.y, kv_head = head / (heads / kv_heads);
    u32 last = min(first + OWN, seq) - 1;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    real* tile_q = shared;
    real* tile_k = tile_q + OWN * DIM_LD;
    real* tile_v = tile_k + OTHERS * DIM_LD;
    real* tile_p = tile_v + OTHERS * DIM_LD + warp * 16 * OTHERS_LD;
    load_rows(tile_q, q, first, OWN, spec, heads, head);

    u32 query[2] = {first + warp * 16 + g, first + warp * 16 + g + 8};
    u32 low[2];
    for (int h = 0; h < 2; h++) low[h] = query[h] < seq ? spec.low(query[h]) : 0u;
    float high[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    Tile<HEAD_DIM> out;
    out.clear();

    u32 begin = spec.low(first) / OTHERS * OTHERS, end = causal ? last + 1 : seq;
    for (u32 key = begin; key < end; key += OTHERS) {
        __syncthreads();
        load_rows(tile_k, k, key, OTHERS, spec, kv_heads, kv_head);
        load_rows(tile_v, v, key, OTHERS, spec, kv_heads, kv_head);
        __syncthreads();
        Tile<OTHERS> p;
        p.clear();
        multiply<OTHERS, HEAD_DIM, false, true>(p, tile_q + warp * 16 * DIM_LD, DIM_LD, tile_k, DIM_LD);
        float top[2] = {high[0], high[1]};
#pragma unroll
        for (int j = 0; j < OTHERS / 8; j++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                int h = c / 2;
                u32 other = key + 8 * j + 2 * t + c % 2;
                bool seen = query[h] < seq && other < seq && spec.sees(query[h], other, low[h]);
                p.at[j][c] = seen ? bend(p.at[j][c] * scale, softcap) : -INFINITY;
                top[h] = fmaxf(top[h], p.at[j][c]);
            }
        }
        float keep[2];
        for (int h = 0; h < 2; h++) {
            top[h] = row_max(top[h]);
            keep[h] = top[h] == -INFINITY ? 1.0f : expf(high[h] - top[h]);
            high[h] = top[h];
            sum[h] *= keep[h];
        }
#pragma unroll
        for (int j = 0; j < OTHERS / 8; j++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                int h = c / 2;
                float x = p.at[j][c] == -INFINITY ? 0.0f : expf(p.at[j][c] - high[h]);
                sum[h] += x;
                tile_p[(g + 8 * h) * OTHERS_LD + 8 * j + 2 * t + c % 2] = narrow<real>(x);
            }
        }
        __syncwarp();
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j++) {
#pragma unroll
            for (int c = 0; c < 4; c++) out.at[j][c] *= keep[c / 2];
        }
        multiply<HEAD_DIM, OTHERS, false, false>(out, tile_p, OTHERS_LD, tile_v, DIM_LD);
    }
    float total[2];
    for (int h = 0; h < 2; h++) {
        total[h] = row_sum(sum[h]);
        if (t == 0 && query[h] < seq)
            lse[((u64)blockIdx.z * heads + head) * seq + query[h]] = high[h] + logf(total[h]);
    }
    store_rows(o, out, 1.0f / total[0], 1.0f / total[1], first + warp * 16, spec, heads, head);
}

// The products of each row of d_o and o, per head: delta is [batch x heads, seq]. A warp a row and head.
extern "C" __global__ void attention_delta(
    float* delta, const real* d_o, const real* o, u32 seq, u32 heads, u32 head_dim, u64 n) {
    u64 i = thread_idx() / 32;
    if (i >= n) return;
    u32 lane = threadIdx.x % 32;
    u64 position = i / heads, head = i % heads;
    float sum = 0.0f;
    for (u32 d = lane; d < head_dim; d += 32) sum += wide(d_o[i * head_dim + d]) * wide(o[i * head_dim + d]);
    sum = warp_sum(sum);
    if (lane == 0) delta[(position / seq * heads + head) * seq + position % seq] = sum;
}

// The gradient of a score before it was scaled, from its product q k, the product d_o v, and its row's lse and delta.
// `p` becomes the probability.
__device__ inline float score_grad(float& p, float product, float dp, float lse, float delta, const Spec& spec) {
    float score = bend(product * spec.scale, spec.softcap);
    p = expf(score - lse);
    float ds = p * (dp - delta);
    if (spec.softcap > 0.0f) ds *= 1.0f - (score / spec.softcap) * (score / spec.softcap);
    return ds * spec.scale;
}

// dq of OWN queries of one head. Grid as the forward pass. Shared: q, d_o, k, v, ds.
extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_grad_queries(
    real* dq, const real* d_o, const real* q, const real* k, const real* v, const float* lse, const float* delta,
    const u32* starts, u32 seq, u32 heads, u32 kv_heads, u32 head_dim, float scale, float softcap, int causal,
    u32 window) {
    SHARED_MEMORY(real, shared);
    Spec spec = {seq, heads, kv_heads, head_dim, scale, softcap, causal, window, starts, blockIdx.z * seq};
    u32 first = (gridDim.x - 1 - blockIdx.x) * OWN, head = blockIdx.y, kv_head = head / (heads / kv_heads);
    u32 last = min(first + OWN, seq) - 1;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    real* tile_q = shared;
    real* tile_d = tile_q + OWN * DIM_LD;
    real* tile_k = tile_d + OWN * DIM_LD;
    real* tile_v = tile_k + OTHERS * DIM_LD;
    real* tile_s = tile_v + OTHERS * DIM_LD + warp * 16 * OTHERS_LD;
    load_rows(tile_q, q, first, OWN, spec, heads, head);
    load_rows(tile_d, d_o, first, OWN, spec, heads, head);

    u32 query[2] = {first + warp * 16 + g, first + warp * 16 + g + 8};
    u32 low[2];
    float row_lse[2], row_delta[2];
    for (int h = 0; h < 2; h++) {
        bool there = query[h] < seq;
        u64 at = ((u64)blockIdx.z * heads + head) * seq + query[h];
        low[h] = there ? spec.low(query[h]) : 0u;
        row_lse[h] = there ? lse[at] : 0.0f;
        row_delta[h] = there ? delta[at] : 0.0f;
    }
    Tile<HEAD_DIM> out;
    out.clear();
    u32 begin = spec.low(first) / OTHERS * OTHERS, end = causal ? last + 1 : seq;
    for (u32 key = begin; key < end; key += OTHERS) {
        __syncthreads();
        load_rows(tile_k, k, key, OTHERS, spec, kv_heads, kv_head);
        load_rows(tile_v, v, key, OTHERS, spec, kv_heads, kv_head);
        __syncthreads();
        Tile<OTHERS> s, dp;
        s.clear();
        dp.clear();
        multiply<OTHERS, HEAD_DIM, false, true>(s, tile_q + warp * 16 * DIM_LD, DIM_LD, tile_k, DIM_LD);
        multiply<OTHERS, HEAD_DIM, false, true>(dp, tile_d + warp * 16 * DIM_LD, DIM_LD, tile_v, DIM_LD);
#pragma unroll
        for (int j = 0; j < OTHERS / 8; j++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                int h = c / 2;
                u32 other = key + 8 * j + 2 * t + c % 2;
                bool seen = query[h] < seq && other < seq && spec.sees(query[h], other, low[h]);
                float p, ds = 0.0f;
                if (seen) ds = score_grad(p, s.at[j][c], dp.at[j][c], row_lse[h], row_delta[h], spec);
                tile_s[(g + 8 * h) * OTHERS_LD + 8 * j + 2 * t + c % 2] = narrow<real>(ds);
            }
        }
        __syncwarp();
        multiply<HEAD_DIM, OTHERS, false, false>(out, tile_s, OTHERS_LD, tile_k, DIM_LD);
    }
    store_rows(dq, out, 1.0f, 1.0f, first + warp * 16, spec, heads, head);
}

// dk and dv of OWN keys of one key head. Grid: (tiles of keys, key heads, batch). Shared: k, v, q, d_o, and a tile
// that holds first the probabilities and then the scores' gradients, a row a key.
extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_grad_keys(
    real* dk, real* dv, const real* d_o, const real* q, const real* k, const real* v, const float* lse,
    const float* delta, const u32* starts, u32 seq, u32 heads, u32 kv_heads, u32 head_dim, float scale, float softcap,
    int causal, u32 window) {
    SHARED_MEMORY(real, shared);
    Spec spec = {seq, heads, kv_heads, head_dim, scale, softcap, causal, window, starts, blockIdx.z * seq};
    u32 first = blockIdx.x * OWN, kv_head = blockIdx.y, share = heads / kv_heads;
    u32 last = min(first + OWN, seq) - 1;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    real* tile_k = shared;
    real* tile_v = tile_k + OWN * DIM_LD;
    real* tile_q = tile_v + OWN * DIM_LD;
    real* tile_d = tile_q + OTHERS * DIM_LD;
    real* tile_s = tile_d + OTHERS * DIM_LD + warp * 16 * OTHERS_LD;
    load_rows(tile_k, k, first, OWN, spec, kv_heads, kv_head);
    load_rows(tile_v, v, first, OWN, spec, kv_heads, kv_head);

    u32 key[2] = {first + warp * 16 + g, first + warp * 16 + g + 8};
    Tile<HEAD_DIM> out_k, out_v;
    out_k.clear();
    out_v.clear();
    // No query before the first key's own segment sees any of these keys.
    u32 begin = (causal ? first : starts ? spec.low(first) : 0u) / OTHERS * OTHERS;
    for (u32 head = kv_head * share; head < (kv_head + 1) * share; head++) {
        for (u32 query = begin; query < seq; query += OTHERS) {
            // Later queries see later keys only.
            if (spec.low(query) > last) break;
            __syncthreads();
            load_rows(tile_q, q, query, OTHERS, spec, heads, head);
            load_rows(tile_d, d_o, query, OTHERS, spec, heads, head);
            __syncthreads();
            Tile<OTHERS> s, dp;
            s.clear();
            dp.clear();
            multiply<OTHERS, HEAD_DIM, false, true>(s, tile_k + warp * 16 * DIM_LD, DIM_LD, tile_q, DIM_LD);
            multiply<OTHERS, HEAD_DIM, false, true>(dp, tile_v + warp * 16 * DIM_LD, DIM_LD, tile_d, DIM_LD);
#pragma unroll
            for (int j = 0; j < OTHERS / 8; j++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    int h = c / 2;
                    u32 other = query + 8 * j + 2 * t + c % 2;
                    bool seen = key[h] < seq && other < seq && spec.sees(other, key[h], spec.low(other));
                    float p = 0.0f, ds = 0.0f;
                    if (seen) {
                        u64 at = ((u64)blockIdx.z * heads + head) * seq + other;
                        ds = score_grad(p, s.at[j][c], dp.at[j][c], lse[at], delta[at], spec);
                    }
                    s.at[j][c] = ds;
                    tile_s[(g + 8 * h) * OTHERS_LD + 8 * j + 2 * t + c % 2] = narrow<real>(p);
                }
            }
            __syncwarp();
            multiply<HEAD_DIM, OTHERS, false, false>(out_v, tile_s, OTHERS_LD, tile_d, DIM_LD);
            __syncwarp();
#pragma unroll
            for (int j = 0; j < OTHERS / 8; j++) {
#pragma unroll
                for (int c = 0; c < 4; c++)
                    tile_s[(g + 8 * (c / 2)) * OTHERS_LD + 8 * j + 2 * t + c % 2] = narrow<real>(s.at[j][c]);
            }
            __syncwarp();
            multiply<HEAD_DIM, OTHERS, false, false>(out_k, tile_s, OTHERS_LD, tile_q, DIM_LD);
        }
    }
    store_rows(dk, out_k, 1.0f, 1.0f, first + warp * 16, spec, kv_heads, kv_head);
    store_rows(dv, out_v, 1.0f, 1.0f, first + warp * 16, spec, kv_heads, kv_head);
}
