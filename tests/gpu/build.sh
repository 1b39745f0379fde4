#!/usr/bin/env bash
# Builds hift with CUDA on a machine that need not have a GPU, a driver or a CUDA toolkit, as one executable that
#   * starts everywhere: no CUDA library is among its dependencies, and
#   * uses a GPU where a driver and the CUDA libraries can be opened when it runs.
#
#   tests/gpu/build.sh                 cargo build --release --features cuda
#   tests/gpu/build.sh check ...       any other cargo command; --features cuda is added
#
# Settings:  CUDA_MINOR        of the libraries that it will find: their bindings are chosen by it (13.0)
#            CUDA_WORK         where the link tables go (target/cuda)
# Needs:     gcc, binutils, python3, cargo; x86-64 Linux.
#
# candle links the CUDA libraries by name. The linker is given archives of those names that hold a table of jumps: the
# first call of a function opens the library and looks the function up, and where there is none gives an error code, which
# candle reports. The functions' names are read from cudarc's bindings. candle's own kernels are left out: see nvcc, here.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- build --release
WORK=${CUDA_WORK:-$PWD/target/cuda}
MINOR=${CUDA_MINOR:-13.0}
mkdir -p "$WORK/shim/lib" "$WORK/made"
WORK=$(cd "$WORK" && pwd)

BINDINGS=$(cargo metadata --format-version 1 --features cuda 2>/dev/null | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(next(os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == "cudarc"))')

# table LIBRARY BINDINGS CODE NAME...: an archive whose functions open one of the names; "+name" is opened beside it.
# CODE is what a function gives where there is no library: "no device", "not initialised".
table() {
    local library=$1 from=$2 code=$3
    shift 3
    local names=$WORK/made/$library.names
    grep -ohE 'pub unsafe fn [A-Za-z0-9_]+' "$BINDINGS/src/$from/sys/mod.rs" | awk '{print $4}' |
        grep -E '^(cu[A-Z]|cublas|curand|nvrtc)' | sort -u >"$names"
    # Each function jumps through its entry of the table; at first that leads to `find`, which keeps the arguments.
    awk -v L="$library" '
        BEGIN { print ".section .note.GNU-stack,\"\",@progbits\n.text" }
        {
            printf ".globl %s\n.type %s,@function\n%s: jmp *%s_table+%d(%%rip)\n", $1, $1, $1, L, 8 * (NR - 1)
            printf ".Lfirst%d: pushq $%d\n jmp .Lfind\n", NR - 1, NR - 1
        }
        END {
            n = split("rdi rsi rdx rcx r8 r9 rax", r, " ")
            print ".Lfind:"
            for (i = 1; i <= n; i++) print " pushq %" r[i]
            print " subq $136,%rsp"
            for (i = 0; i < 8; i++) print " movdqu %xmm" i "," 16 * i "(%rsp)"
            print " movq 192(%rsp),%rdi\n call " L "_find\n movq %rax,%r11"
            for (i = 0; i < 8; i++) print " movdqu " 16 * i "(%rsp),%xmm" i
            print " addq $136,%rsp"
            for (i = n; i >= 1; i--) print " popq %" r[i]
            print " addq $8,%rsp\n jmp *%r11"
            print ".data\n.balign 8\n.globl " L "_table\n.hidden " L "_table\n" L "_table:"
            for (i = 0; i < NR; i++) print " .quad .Lfirst" i
        }' "$names" >"$WORK/made/$library.S"
    {
        printf '#define LIBRARY "%s"\n#define CODE %s\n#define TABLE %s_table\n#define FIND %s_find\n' \
            "$library" "$code" "$library" "$library"
        echo 'static const char *functions[] = {'
        sed 's/.*/"&",/' "$names"
        printf '};\nstatic const char *files[] = {'
        printf '"%s",' "$@"
        echo '0};'
        cat tests/gpu/find.c
    } >"$WORK/made/$library.c"
    gcc -c -fPIC "$WORK/made/$library.S" -o "$WORK/made/$library.o"
    gcc -O2 -c -fPIC "$WORK/made/$library.c" -o "$WORK/made/$library.find.o"
    rm -f "$WORK/shim/lib/lib$library.a"
    ar rcs "$WORK/shim/lib/lib$library.a" "$WORK/made/$library.o" "$WORK/made/$library.find.o"
}
table cuda driver 100 libcuda.so.1 libcuda.so
table cublas cublas 1 +libcublasLt.so.13 libcublas.so.13 libcublas.so
table cublasLt cublaslt 1 libcublasLt.so.13 libcublasLt.so
table curand curand 203 libcurand.so.10 libcurand.so
table nvrtc nvrtc 1 "+libnvrtc-builtins.so.$MINOR" libnvrtc.so.13 libnvrtc.so
# Nothing of the runtime is called: candle's own kernels would.
rm -f "$WORK/shim/lib/libcudart.a" && ar rcs "$WORK/shim/lib/libcudart.a"

export NVCC="$PWD/tests/gpu/nvcc" CUDA_MINOR="$MINOR"
export CUDA_HOME="$WORK/shim"
export CUDA_COMPUTE_CAP=80
export CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-$(echo "$MINOR" | awk -F. '{ print $1 * 1000 + $2 * 10 }')}
cargo "$1" --features cuda "${@:2}"

if [ "$1" = build ]; then
    for binary in target/release/hift target/debug/hift; do
        [ -x "$binary" ] || continue
        needs=$(readelf -d "$binary" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | tr '\n' ' ')
        case " $needs" in
            *" libcu"* | *" libnv"*) echo "$binary depends on a CUDA library: $needs" >&2; exit 1 ;;
        esac
        echo "$binary: $(du -h "$binary" | cut -f1), needs $needs"
    done
fi
