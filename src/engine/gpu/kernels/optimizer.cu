// Updates of weights in place. Rules and sources are those of `cpu/optimizer`; constants are formed on the host.
//
// `p`: the weights in 32 bits, or their masters; `low`: the weights as REAL where p is a master, or null. `clip`: what
// the gradient is multiplied by, or null for 1. Where that is 0 nothing changes: the gradient has overflowed.

__device__ inline float factor(const float* clip) { return clip ? *clip : 1.0f; }

__device__ inline void put(float* p, real* low, u64 i, float x) {
    p[i] = x;
    if (low) low[i] = narrow<real>(x);
}

__device__ inline float root(float x) { return sqrtf(x); }

extern "C" __global__ void adam(
    float* p, real* low, const float* g, float* m, float* v, const float* clip, float keep, float l2,
    float one_minus_beta1, float beta2, float one_minus_beta2, float bias2_sqrt, float eps, float minus_step_size,
    u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    each(n, [&](u64 i) {
        float x = p[i], d = g[i] * f + l2 * x;
        x *= keep;
        m[i] += one_minus_beta1 * (d - m[i]);
        v[i] = v[i] * beta2 + one_minus_beta2 * d * d;
        put(p, low, i, x + minus_step_size * m[i] / (root(v[i]) / bias2_sqrt + eps));
    });
}

// LAMB's step before its length is known.
__device__ inline float lamb_direction(float p, float m, float v, float bias1, float bias2_sqrt, float eps, float decay) {
    return (m / bias1) / (root(v) / bias2_sqrt + eps) + decay * p;
}

// Moves the moments; gives the sums of squares of the weights and of the step, a pair of parts a block of 256 threads.
extern "C" __global__ void lamb_moments(
    double* weights, double* steps, const float* p, const float* g, float* m, float* v, const float* clip,
    float one_minus_beta1, float beta2, float one_minus_beta2, float bias1, float bias2_sqrt, float eps, float decay,
    u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    double all_weights = 0.0, all_steps = 0.0;
    each(n, [&](u64 i) {
        float d = g[i] * f;
        m[i] += one_minus_beta1 * (d - m[i]);
        v[i] = v[i] * beta2 + one_minus_beta2 * d * d;
        double step = lamb_direction(p[i], m[i], v[i], bias1, bias2_sqrt, eps, decay);
        all_weights += (double)p[i] * (double)p[i];
        all_steps += step * step;
    });
    all_weights = block_sum_double(all_weights);
    all_steps = block_sum_double(all_steps);
    if (threadIdx.x == 0) {
        weights[blockIdx.x] = all_weights;
        steps[blockIdx.x] = all_steps;
    }
}

// `sums`: of the squares of the weights, and of the step.
extern "C" __global__ void lamb_step(
    float* p, real* low, const float* m, const float* v, const float* sums, const float* clip, float lr, float bias1,
    float bias2_sqrt, float eps, float decay, u64 n) {
    if (factor(clip) == 0.0f) return;
    float trust = sums[0] > 0.0f && sums[1] > 0.0f ? root(sums[0] / sums[1]) : 1.0f;
    each(n, [&](u64 i) {
        put(p, low, i, p[i] - lr * trust * lamb_direction(p[i], m[i], v[i], bias1, bias2_sqrt, eps, decay));
    });
}

// One second moment for each `share` numbers: a block of 256 threads each.
extern "C" __global__ void adam_mini(
    float* p, real* low, const float* g, float* m, float* v, const float* clip, float keep,
    float one_minus_beta1, float beta2, float one_minus_beta2, float bias2_sqrt, float eps, float minus_step_size,
    u64 share) {
    float f = factor(clip);
    if (f == 0.0f) return;
    u64 first = blockIdx.x * share;
    double squares = 0.0;
    for (u64 i = threadIdx.x; i < share; i += blockDim.x) squares += (double)g[first + i] * (double)g[first + i];
    squares = block_sum_double(squares) * (double)f * (double)f;
    float moment = v[blockIdx.x] * beta2 + one_minus_beta2 * (float)(squares / (double)share);
    __syncthreads();
    if (threadIdx.x == 0) v[blockIdx.x] = moment;
    float denominator = root(moment) / bias2_sqrt + eps;
    for (u64 j = threadIdx.x; j < share; j += blockDim.x) {
        u64 i = first + j;
        m[i] += one_minus_beta1 * (g[i] * f - m[i]);
        put(p, low, i, p[i] * keep + minus_step_size * m[i] / denominator);
    }
}

extern "C" __global__ void sgd(
    float* p, real* low, const float* g, const float* clip, float lr, float decay, u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    each(n, [&](u64 i) { put(p, low, i, p[i] - lr * (g[i] * f + decay * p[i])); });
}

// SGD with momentum. `sums`: null, or those of the squares of weights and gradient: then LARS with `trust`.
extern "C" __global__ void sgdm(
    float* p, real* low, const float* g, float* buf, const float* sums, const float* clip, float lr,
    float momentum, float decay, int nesterov, float trust, u64 n) {
    float f = factor(clip), length = 1.0f;
    if (f == 0.0f) return;
    if (sums) {
        float weights = root(sums[0]), gradient = root(sums[1]) * f;
        if (weights > 0.0f && gradient > 0.0f) length = trust * weights / (gradient + decay * weights);
    }
    each(n, [&](u64 i) {
        float d = (g[i] * f + decay * p[i]) * length;
        buf[i] = momentum * buf[i] + d;
        put(p, low, i, p[i] - lr * (nesterov ? d + momentum * buf[i] : buf[i]));
    });
}

__device__ inline float lion_direction(float m, float d, float beta1, float one_minus_beta1) {
    float direction = beta1 * m + one_minus_beta1 * d;
    // Zero has no sign; NaN goes through.
    return direction > 0.0f ? 1.0f : direction < 0.0f ? -1.0f : direction == 0.0f ? 0.0f : direction;
}

extern "C" __global__ void lion(
    float* p, real* low, const float* g, float* m, const float* clip, float keep, float beta1,
    float one_minus_beta1, float beta2, float one_minus_beta2, float lr, u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    each(n, [&](u64 i) {
        float d = g[i] * f;
        put(p, low, i, p[i] * keep - lr * lion_direction(m[i], d, beta1, one_minus_beta1));
        m[i] = beta2 * m[i] + one_minus_beta2 * d;
    });
}

extern "C" __global__ void adagrad(
    float* p, real* low, const float* g, float* sum, const float* clip, float lr, float eps, float decay,
    u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    each(n, [&](u64 i) {
        float d = g[i] * f + decay * p[i];
        sum[i] += d * d;
        put(p, low, i, p[i] - lr * d / (root(sum[i]) + eps));
    });
}

// `mean` and `buf` may be null.
extern "C" __global__ void rmsprop(
    float* p, real* low, const float* g, float* square, float* mean, float* buf, const float* clip,
    float lr, float alpha, float one_minus_alpha, float eps, float momentum, float decay, u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    each(n, [&](u64 i) {
        float d = g[i] * f + decay * p[i];
        square[i] = square[i] * alpha + one_minus_alpha * d * d;
        float variance = square[i];
        if (mean) {
            mean[i] += one_minus_alpha * (d - mean[i]);
            variance = fmaxf(square[i] - mean[i] * mean[i], 0.0f);
        }
        float step = d / (root(variance) + eps);
        if (buf) step = buf[i] = momentum * buf[i] + step;
        put(p, low, i, p[i] - lr * step);
    });
}

// Adafactor: rows and columns of matrices [outer, n_rows, n_columns]. A block of 256 threads a row.
extern "C" __global__ void adafactor_rows(
    float* rows, const float* g, const float* clip, float eps, float beta, float one_minus_beta,
    u32 n_columns) {
    float f = factor(clip);
    if (f == 0.0f) return;
    g += (u64)blockIdx.x * n_columns;
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < n_columns; i += blockDim.x) sum += (double)(g[i] * f) * (double)(g[i] * f);
    sum = block_sum_double(sum);
    if (threadIdx.x == 0)
        rows[blockIdx.x] = beta * rows[blockIdx.x] + one_minus_beta * ((float)(sum / n_columns) + eps);
}

// Grid: (32 columns each, outer); a block of 32 x 16 threads.
extern "C" __global__ void adafactor_columns(
    float* columns, const float* g, const float* clip, float eps, float beta, float one_minus_beta,
    u32 n_rows, u32 n_columns) {
    __shared__ double parts[16][33];
    float f = factor(clip);
    if (f == 0.0f) return;
    u32 column = blockIdx.x * 32 + threadIdx.x;
    g += (u64)blockIdx.y * n_rows * n_columns;
    double sum = 0.0;
    if (column < n_columns) {
        for (u32 row = threadIdx.y; row < n_rows; row += 16) {
            double d = g[(u64)row * n_columns + column] * f;
            sum += d * d;
        }
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < n_columns) {
        double all = 0.0;
        for (int i = 0; i < 16; i++) all += parts[i][threadIdx.x];
        float* to = columns + (u64)blockIdx.y * n_columns + column;
        *to = beta * *to + one_minus_beta * ((float)(all / n_rows) + eps);
    }
}

// The mean of a matrix's rows; a block of 256 threads for each of `outer`.
extern "C" __global__ void adafactor_mean(float* means, const float* rows, u32 n_rows) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < n_rows; i += blockDim.x) sum += rows[(u64)blockIdx.x * n_rows + i];
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) means[blockIdx.x] = (float)(sum / n_rows);
}

// The update of one number; `rows` is null for a vector, whose second moment is `columns`.
__device__ inline float adafactor_update(
    u64 i, float d, const float* rows, const float* columns, const float* means, u32 n_rows, u32 n_columns) {
    if (!rows) return d / root(columns[i]);
    u64 row = i / n_columns, outer = row / n_rows;
    return d * ((1.0f / root(rows[row] / means[outer])) / root(columns[outer * n_columns + i % n_columns]));
}

extern "C" __global__ void adafactor_vector(
    float* v, const float* g, const float* clip, float eps, float beta, float one_minus_beta, u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    each(n, [&](u64 i) { v[i] = beta * v[i] + one_minus_beta * (g[i] * f * (g[i] * f) + eps); });
}

extern "C" __global__ void adafactor_squares(
    double* parts, const float* g, const float* rows, const float* columns, const float* means, const float* clip,
    u32 n_rows, u32 n_columns, u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    double sum = 0.0;
    each(n, [&](u64 i) {
        double u = adafactor_update(i, g[i] * f, rows, columns, means, n_rows, n_columns);
        sum += u * u;
    });
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// `sums`: of the squares of the update; of the weights where the rate is in their units (`smallest` above 0).
extern "C" __global__ void adafactor_step(
    float* p, real* low, const float* g, float* m, const float* rows, const float* columns, const float* means,
    const float* sums, const float* clip, float lr, float smallest, float clip_threshold, float decay,
    float beta1, float one_minus_beta1, u32 n_rows, u32 n_columns, u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    if (smallest > 0.0f) lr *= fmaxf(root(sums[1] / n), smallest);
    float step = lr / fmaxf(root(sums[0] / n) / clip_threshold, 1.0f), keep = 1.0f - lr * decay;
    each(n, [&](u64 i) {
        float u = step * adafactor_update(i, g[i] * f, rows, columns, means, n_rows, n_columns);
        if (m) u = m[i] = beta1 * m[i] + one_minus_beta1 * u;
        put(p, low, i, p[i] * keep - u);
    });
}

// The code of the value nearest to x, which is within -1..1; values rise.
__device__ inline unsigned char code_of(const float* values, float x, float sign_of) {
    int low = 0, high = 255;
    while (low < high) {
        int middle = (low + high) / 2;
        if (x > (values[middle] + values[middle + 1]) / 2.0f) low = middle + 1;
        else high = middle;
    }
    // A number keeps its sign.
    return (unsigned char)(low - (sign_of < 0.0f && values[low] >= 0.0f ? 1 : 0));
}

__device__ inline void pack(unsigned char* codes, float* scales, const float* values, float x, u64 i, bool there) {
    float scale = block_max(there ? fabsf(x) : 0.0f);
    if (there) codes[i] = code_of(values, scale > 0.0f ? x * (1.0f / scale) : 0.0f, x);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
}

// Adam whose moments are codes: a block of 256 threads for each 256 numbers that share a scale.
extern "C" __global__ void adam_8bit(
    float* p, real* low, const float* g, unsigned char* m, float* m_scales, unsigned char* v, float* v_scales,
    const float* clip, float keep, float l2,
    float one_minus_beta1, float beta2, float one_minus_beta2, float bias2_sqrt, float eps, float minus_step_size,
    u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    bool there = i < n;
    float m1 = 0.0f, v1 = 0.0f;
    if (there) {
        float x = p[i], d = g[i] * f + l2 * x;
        m1 = SIGNED[m[i]] * m_scales[blockIdx.x];
        v1 = UNSIGNED[v[i]] * v_scales[blockIdx.x];
        x *= keep;
        m1 += one_minus_beta1 * (d - m1);
        v1 = v1 * beta2 + one_minus_beta2 * d * d;
        put(p, low, i, x + minus_step_size * m1 / (root(v1) / bias2_sqrt + eps));
    }
    __syncthreads();
    pack(m, m_scales, SIGNED, m1, i, there);
    pack(v, v_scales, UNSIGNED, v1, i, there);
}

extern "C" __global__ void lion_8bit(
    float* p, real* low, const float* g, unsigned char* m, float* m_scales, const float* clip,
    float keep, float beta1, float one_minus_beta1, float beta2, float one_minus_beta2, float lr, u64 n) {
    float f = factor(clip);
    if (f == 0.0f) return;
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    bool there = i < n;
    float m1 = 0.0f;
    if (there) {
        float d = g[i] * f;
        m1 = SIGNED[m[i]] * m_scales[blockIdx.x];
        put(p, low, i, p[i] * keep - lr * lion_direction(m1, d, beta1, one_minus_beta1));
        m1 = beta2 * m1 + one_minus_beta2 * d;
    }
    __syncthreads();
    pack(m, m_scales, SIGNED, m1, i, there);
}
