#include <utility>
#include "emulate.hpp"
#include "kernels.inc"

extern "C" int hift_launch(
    const char* name, const unsigned* grid, const unsigned* block, unsigned shared_bytes, int from_the_last,
    int n, void** args) {
    run_kernel = nullptr;
    int n_args = -1;
#define KERNEL(known) \
    if (!std::strcmp(name, #known)) { \
        run_kernel = [](void** args) { call(known, args); }; \
        n_args = parameters(known); \
    }
#include "names.inc"
    if (!run_kernel) return -1;
    if (n_args != n) return n_args;
    backwards = from_the_last;
    kernel_args = args;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    std::vector<unsigned char> shared(shared_bytes + 64);
    emulated_shared = (unsigned char*)(((uintptr_t)shared.data() + 63) / 64 * 64);
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                // What a block does not write is not zero.
                std::memset(shared.data(), 0xff, shared.size());
                run_block();
            }
    return n_args;
}

// Matrices as `Product` names them; types of numbers as there: 0 for 32-bit floats, 1 for bf16, 2 for f16.
struct Matrix {
    const void* at;
    uint64_t ld;
    int type;
    float get(uint64_t i) const {
        switch (type) {
            case 0: return ((const float*)at)[i];
            case 1: return wide(((const bf16*)at)[i]);
            default: return wide(((const f16*)at)[i]);
        }
    }
    void set(uint64_t i, float x) const {
        switch (type) {
            case 0: ((float*)at)[i] = x; break;
            case 1: ((bf16*)at)[i] = narrow<bf16>(x); break;
            default: ((f16*)at)[i] = narrow<f16>(x);
        }
    }
    // Row by row, or column by column.
    std::vector<float> lines(uint64_t n, uint64_t k, bool turned) const {
        std::vector<float> lines(n * k);
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t l = 0; l < k; l++) lines[i * k + l] = get(turned ? l * ld + i : i * ld + l);
        return lines;
    }
};

extern "C" void hift_multiply(
    const uint64_t* sizes, const Matrix* a, int a_turned, const Matrix* b, int b_turned, const Matrix* c, float beta) {
    uint64_t m = sizes[0], n = sizes[1], k = sizes[2];
    std::vector<float> rows = a->lines(m, k, a_turned), columns = b->lines(n, k, !b_turned);
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t first = 0; first < n; first += 8) {
            // Several sums at a time, each in its order.
            float sums[8] = {};
            uint64_t some = n - first < 8 ? n - first : 8;
            const float *x = &rows[i * k], *y = &columns[first * k];
            if (some == 8)
                for (uint64_t l = 0; l < k; l++)
                    for (int j = 0; j < 8; j++) sums[j] += x[l] * y[j * k + l];
            else
                for (uint64_t j = 0; j < some; j++)
                    for (uint64_t l = 0; l < k; l++) sums[j] += x[l] * y[j * k + l];
            for (uint64_t j = 0; j < some; j++) {
                uint64_t at = i * c->ld + first + j;
                c->set(at, (beta == 0.0f ? 0.0f : beta * c->get(at)) + sums[j]);
            }
        }
}
