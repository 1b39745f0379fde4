// Keys and values that are kept while texts are continued.

// cache[places[row]] = x[row]; rows of `width` numbers.
extern "C" __global__ void cache_write(float* cache, const real* x, const u32* places, u32 width, u64 n) {
    each(n, [&](u64 i) { cache[(u64)places[i / width] * width + i % width] = wide(x[i]); });
}

// Softmax attention of one query a sequence to the tokens that it has: the one at place t is in row
// seen[b * capacity + t] of keys and values. A block of 8 warps for each sequence and head; each warp goes through every
// eighth token, with a softmax that is corrected as it goes, and the warps' sums are joined in their order.
// Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax".
extern "C" __global__ void cached_attention(
    real* o, const real* q, const float* keys, const float* values, const u32* seen, const u32* lengths, float scale,
    float softcap, u32 window, u32 capacity, u32 heads, u32 kv_heads, u32 head_dim) {
    const int PER = (HEAD_DIM + 31) / 32;
    __shared__ float sums[8][HEAD_DIM];
    __shared__ float highs[8], totals[8];
    u32 head = blockIdx.x % heads, b = blockIdx.x / heads;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 length = lengths[b], first = window > 0 && length > window ? length - window : 0;
    u64 stride = (u64)kv_heads * head_dim, at = (u64)(head / (heads / kv_heads)) * head_dim;
    float query[PER], sum[PER];
    for (int j = 0; j < PER; j++) {
        u32 d = lane + 32 * j;
        query[j] = d < head_dim ? wide(q[(u64)blockIdx.x * head_dim + d]) : 0.0f;
        sum[j] = 0.0f;
    }
    float high = -INFINITY, total = 0.0f;
    for (u32 t = first + warp; t < length; t += 8) {
        u64 row = (u64)seen[(u64)b * capacity + t] * stride + at;
        float score = 0.0f;
        for (int j = 0; j < PER; j++) {
            u32 d = lane + 32 * j;
            if (d < head_dim) score += query[j] * keys[row + d];
        }
        score = scale * warp_sum(score);
        if (softcap > 0.0f) score = softcap * tanhf(score / softcap);
        float higher = fmaxf(high, score), keep = expf(high - higher), share = expf(score - higher);
        total = total * keep + share;
        for (int j = 0; j < PER; j++) {
            u32 d = lane + 32 * j;
            if (d < head_dim) sum[j] = sum[j] * keep + share * values[row + d];
        }
        high = higher;
    }
    for (int j = 0; j < PER; j++) {
        u32 d = lane + 32 * j;
        if (d < head_dim) sums[warp][d] = sum[j];
    }
    if (lane == 0) {
        highs[warp] = high;
        totals[warp] = total;
    }
    __syncthreads();
    float top = highs[0], all = 0.0f;
    for (int w = 1; w < 8; w++) top = fmaxf(top, highs[w]);
    for (int w = 0; w < 8; w++) all += totals[w] * expf(highs[w] - top);
    for (u32 d = threadIdx.x; d < head_dim; d += blockDim.x) {
        float x = 0.0f;
        for (int w = 0; w < 8; w++) x += sums[w][d] * expf(highs[w] - top);
        o[(u64)blockIdx.x * head_dim + d] = narrow<real>(x / all);
    }
}
