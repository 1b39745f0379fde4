// Row by row: norms and their gradients; and sums over rows.
//
// Sources: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization"; Ba et al. 2016, "Layer Normalization".

// y = (offset + w) x / sqrt(mean(x x) + eps); a block a row of n numbers.
extern "C" __global__ void rms_norm(real* y, const real* x, const real* w, float eps, float offset, u32 n) {
    y += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * n;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) squares += wide(x[i]) * wide(x[i]);
    float r = 1.0f / sqrtf(block_sum(squares) / n + eps);
    for (u32 i = threadIdx.x; i < n; i += blockDim.x)
        y[i] = narrow<real>((offset + wide(w[i])) * (wide(x[i]) * r));
}

// sum = a + b, and its norm y. The sum may be a or b, and y the other one.
extern "C" __global__ void add_rms_norm(
    real* y, real* sum, const real* a, const real* b, const real* w, float eps, float offset, u32 n) {
    u64 row = (u64)blockIdx.x * n;
    float squares = 0.0f;
    // Each thread comes back to the numbers that it has written itself.
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        real s = narrow<real>(wide(a[row + i]) + wide(b[row + i]));
        sum[row + i] = s;
        squares += wide(s) * wide(s);
    }
    float r = 1.0f / sqrtf(block_sum(squares) / n + eps);
    for (u32 i = threadIdx.x; i < n; i += blockDim.x)
        y[row + i] = narrow<real>((offset + wide(w[i])) * (wide(sum[row + i]) * r));
}

// dx = (dx or 0) + (offset + w) dy r - x mean(x (offset + w) dy) r r r; dx may be dy or x.
extern "C" __global__ void rms_norm_grad_input(
    real* dx, const real* dy, const real* x, const real* w, float eps, float offset, int accumulate, u32 n) {
    dx += (u64)blockIdx.x * n;
    dy += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * n;
    float squares = 0.0f, product = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        squares += wide(x[i]) * wide(x[i]);
        product += wide(x[i]) * (offset + wide(w[i])) * wide(dy[i]);
    }
    float r = 1.0f / sqrtf(block_sum(squares) / n + eps);
    float c = block_sum(product) / n * r * r * r;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        float d = (offset + wide(w[i])) * wide(dy[i]) * r - wide(x[i]) * c;
        dx[i] = narrow<real>(accumulate ? wide(dx[i]) + d : d);
    }
}

// For each row the mean (0 for a norm of squares) and the inverse deviation: statistics is [rows, 2].
extern "C" __global__ void row_statistics(float* statistics, const real* x, float eps, int centered, u32 n) {
    x += (u64)blockIdx.x * n;
    float mean = 0.0f;
    if (centered) {
        float sum = 0.0f;
        for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum += wide(x[i]);
        mean = block_sum(sum) / n;
    }
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        float d = wide(x[i]) - mean;
        squares += d * d;
    }
    float r = 1.0f / sqrtf(block_sum(squares) / n + eps);
    if (threadIdx.x == 0) {
        statistics[2 * (u64)blockIdx.x] = mean;
        statistics[2 * (u64)blockIdx.x + 1] = r;
    }
}

// Sums over rows, 32 columns a block of 32 x 16 threads. With x: of dy (x - mean) r; without: of dy.
extern "C" __global__ void column_sums(
    float* sums, const real* dy, const real* x, const float* statistics, int accumulate, u32 n, u32 rows) {
    __shared__ float parts[16][33];
    u32 column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    if (column < n) {
        for (u32 row = threadIdx.y; row < rows; row += 16) {
            u64 at = (u64)row * n + column;
            float d = wide(dy[at]);
            if (x) d *= (wide(x[at]) - statistics[2 * (u64)row]) * statistics[2 * (u64)row + 1];
            sum += d;
        }
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < n) {
        float all = 0.0f;
        for (int i = 0; i < 16; i++) all += parts[i][threadIdx.x];
        sums[column] = accumulate ? sums[column] + all : all;
    }
}

// y = w (x - mean) r + b
extern "C" __global__ void layer_norm(real* y, const real* x, const real* w, const real* b, float eps, u32 n) {
    y += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * n;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum += wide(x[i]);
    float mean = block_sum(sum) / n, squares = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) squares += (wide(x[i]) - mean) * (wide(x[i]) - mean);
    float r = 1.0f / sqrtf(block_sum(squares) / n + eps);
    for (u32 i = threadIdx.x; i < n; i += blockDim.x)
        y[i] = narrow<real>(wide(w[i]) * ((wide(x[i]) - mean) * r) + wide(b[i]));
}

// sum = a + b, and its norm y, as above.
extern "C" __global__ void add_layer_norm(
    real* y, real* sum, const real* a, const real* b, const real* w, const real* bias, float eps, u32 n) {
    u64 row = (u64)blockIdx.x * n;
    float total = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        real s = narrow<real>(wide(a[row + i]) + wide(b[row + i]));
        sum[row + i] = s;
        total += wide(s);
    }
    const real* x = sum + row;
    float mean = block_sum(total) / n, squares = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) squares += (wide(x[i]) - mean) * (wide(x[i]) - mean);
    float r = 1.0f / sqrtf(block_sum(squares) / n + eps);
    for (u32 i = threadIdx.x; i < n; i += blockDim.x)
        y[row + i] = narrow<real>(wide(w[i]) * ((wide(x[i]) - mean) * r) + wide(bias[i]));
}

// With z = (x - mean) r and g = w dy: dx = (dx or 0) + r (g - mean(g) - z mean(g z)); dx may be dy.
extern "C" __global__ void layer_norm_grad_input(
    real* dx, const real* dy, const real* x, const real* w, float eps, int accumulate, u32 n) {
    dx += (u64)blockIdx.x * n;
    dy += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * n;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum += wide(x[i]);
    float mean = block_sum(sum) / n, squares = 0.0f, product = 0.0f, moment = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        float d = wide(x[i]) - mean, g = wide(w[i]) * wide(dy[i]);
        squares += d * d;
        product += g;
        moment += g * d;
    }
    float r = 1.0f / sqrtf(block_sum(squares) / n + eps);
    float shift = block_sum(product) / n * r, c = block_sum(moment) / n * r * r * r;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        float d = wide(w[i]) * wide(dy[i]) * r - shift - (wide(x[i]) - mean) * c;
        dx[i] = narrow<real>(accumulate ? wide(dx[i]) + d : d);
    }
}
