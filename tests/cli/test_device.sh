#!/bin/sh
# test_device.sh - a program built with CUDA starts and computes where there is no GPU, and says so
# in one line when one is asked for; a build folder is made anew when CUDA=1 becomes CUDA=0.
set -u
. tests/cli/check.sh

# Nobody sees a GPU from here on.
CUDA_VISIBLE_DEVICES=''
export CUDA_VISIBLE_DEVICES

if [ -f "$build/.cuda-is-on" ]; then
    is=1 other=0 why='device cuda: no GPU can be used: '
else
    is=0 other=1 why='this program was built without CUDA$'
fi
on() { "$dstar" run --device "$1" --temp 0 --max-tokens 8 Hello; }
refuses() {
    on "$1" >"$work/said" 2>&1
    status=$?
    cat "$work/said"
    [ $status = 1 ] && [ "$(wc -l <"$work/said")" = 1 ] && grep -q "^dstar: .*$why" "$work/said"
}
check 'it computes without a GPU' sh -c "'$dstar' run --temp 0 --max-tokens 8 Hello | grep -q ."
check 'one line says that there is no GPU' refuses cuda
check 'no second one either' refuses cuda:1
maps() { "$dstar" bench load --device cpu 2>&1 | grep -q 'nothing is loaded for cpu: .*expected'; }
check 'bench load: a processor works on the files as they lie' maps

# What make would do, with nothing done.
makes() { make --no-print-directory -n "BUILD=$build" NVCC=nvcc "CUDA=$1" "$build/dstar"; }
links() {
    makes "$1" >"$work/made" 2>&1
    cat "$work/made"
    grep -q -- "-o $build/dstar" "$work/made"
}
kept() { ! links "$1"; }
changes() { links $other && [ "$(grep -c cudart_static "$work/made")" = "$other" ]; }
check 'nothing is linked again as long as CUDA stays' kept $is
check 'it is when CUDA changes, with its runtime or without' changes

# A script that calls nvcc, as systems put it on the path, lies far from nvcc's libraries.
found() { make -np "NVCC=$1" "BUILD=$work" 2>/dev/null | sed -n 's/^CUDA_LIBS := //p'; }
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
libraries=$(found "$nvcc")
if [ -n "$libraries" ]; then
    printf '#!/bin/sh\nexec %s "$@"\n' "$nvcc" >"$work/nvcc"
    chmod +x "$work/nvcc"
    check 'nvcc is asked where its libraries are' test "$(found "$work/nvcc")" = "$libraries"
fi
echo "1..$n"
