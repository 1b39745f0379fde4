#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: what the kernels come to there. Takes a binary that `tests/gpu/build.sh` has made.
#
#   tests/gpu/run.sh [target/release/hift]
#
# Where cuBLAS and NVRTC lie in a Python environment only, they are found through it.
set -euo pipefail
hift=${1:-target/release/hift}
[ -x "$hift" ] || { echo "$hift is not there: tests/gpu/build.sh builds it" >&2; exit 66; }
if [ -z "${HIFT_CUDA_LIB_DIR:-}" ]; then
    HIFT_CUDA_LIB_DIR=$(python3 - <<'P' 2>/dev/null || true
import nvidia
root = list(nvidia.__path__)[0]
print(":".join(f"{root}/{part}/lib" for part in ("cu13", "cublas", "cuda_nvrtc", "curand")))
P
    )
    export HIFT_CUDA_LIB_DIR
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
time "$hift" doctor
