#!/bin/sh
# test_calibrate.sh - `dstar calibrate`: the same bytes twice and after a kill, merging, use by
# quantize, and mistakes named.
set -u
. tests/cli/check.sh

if [ ! -x "$dstar" ] || [ ! -f "$build/pebble-exact.gguf" ]; then
    echo "ok 1 # SKIP no program or model in $build"
    exit 0
fi
# fails WORDS COMMAND...: with words that it prints, and without a file
fails() {
    words=$1
    shift
    said=$("$@" 2>&1) && return 1
    echo "$said"
    echo "$said" | grep -q -e "$words" && [ ! -e "$work/none.gguf" ]
}
set -- "$dstar" calibrate -c 512 --continue 8 --temp 1 --corpus "$work/set.jsonl"
# left FILE: a state, and nothing under the final name
left() { [ -e "$1.state" ] && [ ! -e "$1" ]; }

i=0
while [ $i -lt 60 ]; do
    i=$((i + 1))
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"What is $i plus 7?\"}]}"
done >"$work/set.jsonl"
check 'a corpus' "$@" -o "$work/a.gguf" --expert-profile "$work/a.txt"
cp "$work/out" "$work/report"
check 'its coverage' grep -q '^  all ' "$work/report"
check 'its profile' grep -q '^shape 7 26$' "$work/a.txt"

# killed when some texts are done, until it has come to its end
"$@" --save-every 1 -o "$work/b.gguf" >"$work/log" 2>&1 &
pid=$!
while [ ! -e "$work/b.gguf.state" ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
kill -9 $pid
wait $pid 2>/dev/null
check 'a state is left by a kill, and no file' left "$work/b.gguf"
check 'it is not overwritten' fails '--resume' "$@" -o "$work/b.gguf"
check 'going on' "$@" -o "$work/b.gguf" --resume
check 'the same bytes' cmp "$work/a.gguf" "$work/b.gguf"
check 'nothing is left' [ ! -e "$work/b.gguf.state" ]

# a model that does not fit: experts come in another order, dense matrices to other addresses
"$dstar" calibrate -c 512 -m "$build/pebble-exact.gguf" --corpus "$work/set.jsonl" \
    --hessian "$work/e.h" -o "$work/e.gguf" >"$work/log"
# the least of these that holds the program: sanitizers make it larger
for memory in 36M 42M 48M 54M; do
    rm -f "$work/f.h" "$work/f.gguf"
    "$dstar" calibrate -v -c 512 --memory $memory -m "$build/pebble-exact.gguf" \
        --corpus "$work/set.jsonl" --hessian "$work/f.h" -o "$work/f.gguf" >"$work/report" 2>&1 &&
        break
done
check 'with less memory than the model' [ -e "$work/f.gguf" ]
check 'experts were read when needed' grep -q 'of 182 experts fit' "$work/report"
check 'the same bytes' cmp "$work/e.gguf" "$work/f.gguf"
check 'the same products' cmp "$work/e.h" "$work/f.h"

check 'merging' "$dstar" calibrate --merge "$work/a.gguf" "$work/b.gguf" -o "$work/c.gguf"
check 'quantize takes it' "$dstar" quantize "$build/pebble.gguf" --imatrix "$work/c.gguf" -n
check 'thin coverage' fails 'nothing is written' "$@" --strict -o "$work/none.gguf"
rm -f "$work/none.gguf.state"
check 'nothing to read' fails 'cannot open' "$dstar" calibrate --corpus "$work/absent" \
    -o "$work/none.gguf"
check 'nothing to do' fails 'expected -o' "$dstar" calibrate -o "$work/none.gguf"
check 'one file to merge' fails 'at least two' "$dstar" calibrate --merge "$work/a.gguf" \
    -o "$work/none.gguf"
echo "1..$n"
