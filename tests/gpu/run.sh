#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: that the kernels are right there, that a run is, how fast it is beside PyTorch, and how
# near its memory is to what was foretold. In less than nine minutes. Takes a binary that `tests/gpu/build.sh` has made.
#
#   tests/gpu/run.sh [target/release/hift]
#
# Where cuBLAS and NVRTC lie in a Python environment only, they are found through it. The table of speeds wants torch and
# transformers in the Python that is called `python3`; without them it has hift's half.
set -euo pipefail
cd "$(dirname "$0")/../.."
hift=$(realpath "${1:-target/release/hift}")
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

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "== every kernel against the CPU's, and what stands beside tensors"
export HIFT_CACHE=$work/cache
time "$hift" doctor --calibrate

echo "== the quickstart here and there, twice: losses of the last step"
cp -r pipelines/quickstart pipelines/quickstart.hift "$work"
for run in cpu cuda again; do
    case $run in cpu) device=cpu ;; *) device="cuda(0)" ;; esac
    sed -E "s/^( *steps +=).*$/\1 300\n    device = $device/; s#\.\./out/#out-$run/#" "$work/quickstart.hift" >"$work/$run.hift"
    "$hift" run "$work/$run.hift" --dir "$work/run-$run" --new >/dev/null
    tail -1 "$work/run-$run/metrics.jsonl"
done
cmp "$work"/out-cuda/*/model.safetensors "$work"/out-again/*/model.safetensors && echo "two runs: the same bits"

echo "== speed and memory"
python3 tests/gpu/speed.py "$hift" --seconds "${SECONDS_LEFT:-360}"
