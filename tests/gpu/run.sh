#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: that the kernels are right there, that runs follow PyTorch's traces, that they are taken up
# to the bit, what happens when the device is full, how fast hift is beside PyTorch, and how near its memory is to what was
# foretold. In less than nine minutes. Takes a binary that `tests/gpu/build.sh` has made.
#
#   tests/gpu/run.sh [target/release/hift]
#
# Settings:  SECONDS_IN_ALL   when everything is to be over (520)
#            OUT              the folder that gets the output of each part (gpu-report)
#
# Each part has a time of its own; one that fails, hangs or finds nothing takes nothing from the others. What each came to is
# told in the end, in one table. Where cuBLAS and NVRTC lie in a Python environment only, they are found through it. The parts
# `full` and `speed` want torch (and transformers) in the Python that is called `python3`; without them `full` is skipped, and
# the table of speeds has hift's half. Exits with the number of parts that failed.
set -uo pipefail
cd "$(dirname "$0")/../.."
began=$SECONDS
hift=$(realpath "${1:-target/release/hift}")
[ -x "$hift" ] || { echo "$hift is not there: tests/gpu/build.sh builds it" >&2; exit 66; }
device=${DEVICE:-cuda(0)}
out=${OUT:-gpu-report}
mkdir -p "$out" && out=$(realpath "$out") || exit 73
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
export HIFT_CACHE=$work/cache
if [ -z "${HIFT_CUDA_LIB_DIR:-}" ]; then
    HIFT_CUDA_LIB_DIR=$(python3 - <<'P' 2>/dev/null || true
import nvidia, os
root = list(nvidia.__path__)[0]
parts = [f"{root}/{part}/lib" for part in ("cu13", "cublas", "cuda_nvrtc", "curand")]
print(":".join(part for part in parts if os.path.isdir(part)))
P
    )
    export HIFT_CUDA_LIB_DIR
fi

# part NAME SECONDS COMMAND...: runs it, shows and keeps what it says, and goes on whatever it does.
table=()
failed=0
part() {
    local name=$1 seconds=$2 left=$((${SECONDS_IN_ALL:-520} - (SECONDS - began))) from=$SECONDS code word
    shift 2
    [ "$seconds" -le "$left" ] || seconds=$left
    printf '\n== %s\n' "$name"
    if [ "$seconds" -lt 5 ]; then
        table+=("$(printf '%-9s no time was left' "$name")")
        return
    fi
    # A part that does not listen is ended for good.
    LEFT=$((seconds - 3)) timeout --kill-after=5 "$seconds" "$@" 2>&1 </dev/null | tee "$out/$name.log"
    code=${PIPESTATUS[0]}
    case $code in
        0) word="as it should be" ;;
        77) word="skipped" ;;
        124 | 137) word="its time was up" ;;
        *) word="FAILED ($code)" failed=$((failed + 1)) ;;
    esac
    table+=("$(printf '%-9s %-16s %4d s  %s' "$name" "$word" $((SECONDS - from)) "$(tail -1 "$out/$name.log" | cut -c1-140)")")
}

# The quickstart on the processor, on the device, and there again with an interruption: what is taken up ends with the same bits.
stages() {
    local run code=0
    cp -r pipelines/quickstart pipelines/quickstart.hift "$work"
    for run in cpu cuda again; do
        local on=$device
        [ $run != cpu ] || on=cpu
        sed -E "s/^( *steps +=).*$/\1 300\n    device = $on/; s#\.\./out/#out-$run/#" "$work/quickstart.hift" >"$work/$run.hift"
        if [ $run = again ]; then
            "$hift" run "$work/$run.hift" --dir "$work/run-$run" --new --progress none &
            until [ "$(cat "$work/run-$run/metrics.jsonl" 2>/dev/null | wc -l)" -gt 40 ] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
            kill -TERM $! 2>/dev/null
            wait $!
            local ended=$?
            echo "interrupted after $(wc -l <"$work/run-$run/metrics.jsonl") steps: exit $ended"
            [ $ended = 75 ] || code=1
        fi
        "$hift" run "$work/$run.hift" --dir "$work/run-$run" --progress none || { code=1; continue; }
        echo "$run: $(tail -1 "$work/run-$run/metrics.jsonl")"
        grep '"memory"' "$work/run-$run/events.jsonl"
    done
    if cmp "$work"/out-cuda/*/model.safetensors "$work"/out-again/*/model.safetensors; then
        echo "interrupted or not: the same bits"
    else
        code=1
    fi
    return $code
}
export -f stages
export hift work device

nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv,noheader || true
python3 -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)' || true
part doctor 120 "$hift" doctor --calibrate
part goldens 90 bash -c 'python3 -u tests/gpu/goldens.py "$hift" --device "$device" --seconds "$LEFT"'
part stages 60 bash -c stages
part full 60 bash -c 'python3 -u tests/gpu/full.py "$hift" --device "$device"'
part speed 600 bash -c 'python3 -u tests/gpu/speed.py "$hift" --device "$device" --seconds "$LEFT" --to "$0"' "$out/speed.jsonl"

printf '\n== what it came to, in %d s; all output is in %s\n' $((SECONDS - began)) "$out"
printf '%s\n' "${table[@]}" | tee "$out/table.txt"
# The rows of speeds again, so that the end of the output has them.
grep -vE '^$' "$out/speed.log" 2>/dev/null | tail -40
exit $failed
