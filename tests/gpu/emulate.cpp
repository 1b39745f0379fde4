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
