// Cross entropy and squared error; sums of squares.

// Per row the negative log-likelihood of its label, and 1 if the label is the first choice; [rows, 2]. A label of
// 0xffffffff does not count. `softcap` above 0 bends the logits first: cap tanh(logit / cap).
// With `scale` above 0 the row becomes scale (softmax - onehot), times the bend's slope, as REAL from the row's start on
// (its end stays as it is where REAL is narrower). A block of 256 threads a row.
extern "C" __global__ void cross_entropy(
    float* out, float* logits, const u32* labels, float softcap, float scale, u32 vocab) {
    u64 row = blockIdx.x;
    float* x = logits + row * vocab;
    real* grad = (real*)x;
    u32 label = labels[row];
    if (label >= vocab) {
        if (threadIdx.x == 0) {
            out[2 * row] = 0.0f;
            out[2 * row + 1] = 0.0f;
        }
        if (scale > 0.0f)
            for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) grad[i] = narrow<real>(0.0f);
        return;
    }
    float high = -INFINITY;
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        float logit = softcap > 0.0f ? softcap * tanhf(x[i] / softcap) : x[i];
        x[i] = logit;
        high = fmaxf(high, logit);
    }
    high = block_max(high);
    float sum = 0.0f, earlier = 0.0f;
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        sum += expf(x[i] - high);
        if (i < label && x[i] == high) earlier = 1.0f;
    }
    sum = block_sum(sum);
    earlier = block_sum(earlier);
    float own = x[label];
    __syncthreads();
    if (threadIdx.x == 0) {
        out[2 * row] = logf(sum) + (high - own);
        out[2 * row + 1] = own == high && earlier == 0.0f ? 1.0f : 0.0f;
    }
    if (scale <= 0.0f) return;
    // What is written at i lies at or before what was read at i.
    for (u32 first = 0; first < vocab; first += blockDim.x) {
        u32 i = first + threadIdx.x;
        float logit = i < vocab ? x[i] : 0.0f;
        __syncthreads();
        if (i < vocab) {
            float d = scale * (expf(logit - high) / sum - (i == label ? 1.0f : 0.0f));
            if (softcap > 0.0f) d *= 1.0f - (logit / softcap) * (logit / softcap);
            grad[i] = narrow<real>(d);
        }
    }
}

// The same for a few classes; d_logits may be logits; a scale of 0 gives no gradient. A thread a row.
extern "C" __global__ void class_entropy(
    float* out, float* d_logits, const float* logits, const u32* labels, float scale, u32 classes, u32 rows) {
    each(rows, [&](u64 row) {
        const float* x = logits + row * classes;
        u32 label = labels[row];
        if (label >= classes) {
            out[2 * row] = 0.0f;
            out[2 * row + 1] = 0.0f;
            if (scale > 0.0f)
                for (u32 i = 0; i < classes; i++) d_logits[row * classes + i] = 0.0f;
            return;
        }
        float high = -INFINITY, sum = 0.0f;
        u32 choice = 0;
        for (u32 i = 0; i < classes; i++) {
            if (x[i] > high) {
                high = x[i];
                choice = i;
            }
        }
        for (u32 i = 0; i < classes; i++) sum += expf(x[i] - high);
        out[2 * row] = logf(sum) + (high - x[label]);
        out[2 * row + 1] = choice == label ? 1.0f : 0.0f;
        if (scale <= 0.0f) return;
        for (u32 i = 0; i < classes; i++) {
            float d = expf(x[i] - high) / sum - (i == label ? 1.0f : 0.0f);
            d_logits[row * classes + i] = scale * d;
        }
    });
}

// Per sequence the mean of two cross entropies over its own tokens, of where an answer begins and where it ends, and 1 if
// both are the first choice; [batch, 2]. logits are [batch, seq, 2]; spans are first tokens, last tokens, lengths.
// d_logits may be logits; a scale of 0 gives no gradient. A block of 256 threads a sequence.
extern "C" __global__ void span_entropy(
    float* out, float* d_logits, const float* logits, const u32* spans, float scale, u32 seq, u32 batch) {
    u32 row = blockIdx.x, length = spans[2 * batch + row];
    const float* x = logits + (u64)row * seq * 2;
    float nll = 0.0f;
    bool chosen = true;
    for (u32 side = 0; side < 2; side++) {
        u32 label = spans[side * batch + row];
        float high = -INFINITY, sum = 0.0f, earlier = 0.0f;
        for (u32 t = threadIdx.x; t < length; t += blockDim.x) high = fmaxf(high, x[2 * t + side]);
        high = block_max(high);
        for (u32 t = threadIdx.x; t < length; t += blockDim.x) {
            sum += expf(x[2 * t + side] - high);
            if (t < label && x[2 * t + side] == high) earlier = 1.0f;
        }
        sum = block_sum(sum);
        earlier = block_sum(earlier);
        float own = x[2 * label + side];
        nll += (logf(sum) + (high - own)) / 2.0f;
        chosen = chosen && own == high && earlier == 0.0f;
        if (scale <= 0.0f) continue;
        // Nobody reads this side's logits after that, but for each thread its own.
        __syncthreads();
        for (u32 t = threadIdx.x; t < seq; t += blockDim.x) {
            float d = t < length ? expf(x[2 * t + side] - high) / sum - (t == label ? 1.0f : 0.0f) : 0.0f;
            d_logits[((u64)row * seq + t) * 2 + side] = scale / 2.0f * d;
        }
    }
    if (threadIdx.x == 0) {
        out[2 * row] = nll;
        out[2 * row + 1] = chosen ? 1.0f : 0.0f;
    }
}

// (x - target)^2 of each row, and 0; dx = 2 scale (x - target), which may be x.
extern "C" __global__ void squared_error(
    float* out, float* dx, const float* x, const u32* targets, float scale, u32 rows) {
    each(rows, [&](u64 row) {
        float d = x[row] - float_of(targets[row]);
        out[2 * row] = d * d;
        out[2 * row + 1] = 0.0f;
        if (scale > 0.0f) dx[row] = 2.0f * scale * d;
    });
}

// The sums of both columns of [rows, 2]. One block of 256 threads.
extern "C" __global__ void pair_sums(float* out, const float* pairs, u32 rows) {
    double a = 0.0, b = 0.0;
    for (u32 row = threadIdx.x; row < rows; row += 256) {
        a += pairs[2 * (u64)row];
        b += pairs[2 * (u64)row + 1];
    }
    a = block_sum_double(a);
    b = block_sum_double(b);
    if (threadIdx.x == 0) {
        out[0] = (float)a;
        out[1] = (float)b;
    }
}

// Sums of squares of the blocks' shares; as many parts as blocks, of 256 threads.
extern "C" __global__ void square_parts(double* parts, const float* x, u64 n) {
    double sum = 0.0;
    each(n, [&](u64 i) { sum += (double)x[i] * (double)x[i]; });
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// Their sum, added to what is there with `accumulate`. One block of 256 threads.
extern "C" __global__ void sum_parts(float* out, const double* parts, int accumulate, u32 n) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < n; i += 256) sum += parts[i];
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) out[0] = (float)(accumulate ? (double)out[0] + sum : sum);
}

// Both at once for few numbers. One block of 256 threads.
extern "C" __global__ void sum_squares(float* out, const float* x, int accumulate, u32 n) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < n; i += 256) sum += (double)x[i] * (double)x[i];
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) out[0] = (float)(accumulate ? (double)out[0] + sum : sum);
}

// What gradients are multiplied by, from the sum of the squares of them when the loss was scaled: `unscale`, times
// min(1, max_norm / (norm unscale + 1e-6)) if `max_norm` is above 0; 0 where the sum is no number.
extern "C" __global__ void grad_factor(float* out, const float* squares, float max_norm, float unscale) {
    if (thread_idx() != 0) return;
    float sum = squares[0];
    float clip = max_norm > 0.0f ? fminf(1.0f, max_norm / (sqrtf(sum) * unscale + 1e-6f)) : 1.0f;
    out[0] = sum - sum == 0.0f ? clip * unscale : 0.0f;
}
