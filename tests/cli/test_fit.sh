#!/bin/sh
# test_fit.sh - dstar fit and dstar bench reads as a user calls them: tables, JSON, a picture, and
# what is said of ways to read that cannot be had.
set -u
. tests/cli/check.sh

# says TEXT COMMAND...: its output has the text
says() {
    text=$1
    shift
    "$@" >"$work/said" 2>&1
    cat "$work/said"
    grep -qF -- "$text" "$work/said"
}
fails() { ! "$@"; }
# holds PATTERN COMMAND...: its output has a line that matches
holds() {
    pattern=$1
    shift
    "$@" >"$work/said" 2>&1
    cat "$work/said"
    grep -qE -- "$pattern" "$work/said"
}

if [ ! -x "$dstar" ]; then
    echo "ok 1 # SKIP no $dstar"
    echo 1..1
    exit 0
fi
model=models/pebble
check 'fit: the table' says 'GB that stay in memory' "$dstar" fit -m $model --drive 2
check 'fit: JSON' holds '"drive_bytes_per_s": [0-9.]*[1-9]' \
    "$dstar" fit -m $model --json --svg "$work/fit.svg"
check 'fit: the picture' holds '<circle class="dot" cx="[0-9.]+" cy="[0-9.]+"' cat "$work/fit.svg"
check 'fit: a wrong point fails' fails "$dstar" fit -m $model --drive 2 --measured 4:x
check 'fit: and is shown' says 'found "4:x"' "$dstar" fit -m $model --measured 4:x
check 'fit: measured points' "$dstar" fit -m $model --svg "$work/real.svg" --measured 1:3,0.02:3.5
check 'fit: and drawn' says '<title>0.02 GB: 3.5 tokens a second, measured' cat "$work/real.svg"
check 'fit: a picture that cannot be written' says '/nowhere/fit.svg' \
    "$dstar" fit -m $model --drive 2 --svg /nowhere/fit.svg
check 'fit: and then it fails' fails "$dstar" fit -m $model --drive 2 --svg /nowhere/fit.svg

head -c 8000000 /dev/urandom >"$work/any"
reads() { "$dstar" bench reads --seconds 0.01 --repeat 1 "$@"; }
check 'bench reads: any file' holds '"path": "(uring|pool)-(direct|buffered)"' \
    reads --file "$work/any" --expert-bytes 30K --json
check 'bench reads: threads' says pool-buffered \
    reads --file "$work/any" --expert-bytes 30K --io pool-buffered
check 'bench reads: a file that is too small' says 'expected at least 256 experts' \
    reads --file "$work/any"
check 'bench reads: no such path' says 'found fast, expected auto' \
    reads --file "$work/any" --io fast
check 'bench reads: a folder has no stacked experts' says 'found no tensors of routed experts' \
    reads -m $model
if [ -f "$build/pebble.gguf" ]; then
    check 'bench reads: a model' says '182 experts of' reads -m "$build/pebble.gguf"
fi
echo "1..$n"
