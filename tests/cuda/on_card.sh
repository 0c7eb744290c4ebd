#!/bin/sh
# on_card.sh - what `make test-cuda` runs on a GPU: ops against the scalar definition, once more
# under compute-sanitizer where it is installed, the vendor's numbers, and the bundled model against
# the processor.
#
#   tests/cuda/on_card.sh BUILD
set -u
build=$1 passed=0 failed=0 skipped=0

# check NAME COMMAND...: one case
check() {
    name=$1
    shift
    if "$@" >"$build/on_card.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        tail -n 20 "$build/on_card.log"
    fi
}

# The same answer at temperature 0, from the same file: products on the GPU are summed in another
# order, so a text may part from the processor's where two tokens are nearly equal; few do so early.
answer() {
    "$build/dstar" run -m "$build/pebble.gguf" --device "$1" --temp 0 --max-tokens 40 \
        'Write an encyclopedia of birds.' 2>/dev/null
}
same_answer() {
    [ "$(answer cpu | cut -c1-60)" = "$(answer cuda | cut -c1-60)" ]
}

if ! nvidia-smi -L >/dev/null 2>&1; then
    echo 'no GPU can be used on this machine: nothing was run'
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
fi
check 'every op against the scalar definition' "$build/tests/cuda/on_card"
if command -v compute-sanitizer >/dev/null 2>&1; then
    check 'the same under compute-sanitizer' \
        compute-sanitizer --error-exitcode 1 "$build/tests/cuda/on_card"
else
    skipped=1
fi
check 'the logits of the vendor, whole, in chunks and token by token' \
    "$build/tests/cuda/on_card_oracle"
check 'the bundled model: distance from the processor, going on, marks' \
    "$build/tests/cuda/on_card_engine"
check 'tokens drawn on the card: those of the sampler' "$build/tests/cuda/on_card_draw"
check 'random models made on the card, loading and its progress' "$build/tests/cuda/on_card_synth"
check 'experts that lie partly with the host' "$build/tests/cuda/on_card_dial"
check 'calibrating: sums taken on the card' "$build/tests/cuda/on_card_calibrate"
check 'measuring: times, routes from a file, kernels' "$build/tests/cuda/on_card_bench"
check 'the bundled model answers as on the processor' same_answer
printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed = 0 ]
