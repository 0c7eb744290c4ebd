#!/bin/sh
# test_quantize.sh - `dstar quantize` as a user meets it: sizes without a model, an interrupted call
# that is given again, the report, and mistakes told in one line.
set -u
. tests/cli/check.sh

# says STATUS TEXT ARGUMENT...: ends with this status, and its output has the text
says() {
    want=$1 text=$2
    shift 2
    "$dstar" quantize "$@" >"$work/said" 2>&1
    status=$?
    cat "$work/said"
    [ $status = "$want" ] && grep -q -e "$text" "$work/said"
}

if [ ! -x "$dstar" ]; then
    echo "1..0 # SKIP no $dstar"
    exit 0
fi
cat >"$work/little" <<'EOF'
blk.*.ffn_gate_exps.weight  IQ2_XXS  layers=2-3
blk.*.ffn_down_exps.weight  Q2_K     layers=4
*                           keep
EOF

check 'sizes of a model that is not there' \
    says 0 '^  routed experts  *IQ2_XXS  *86  *47,613,739,008 ' --dry-run --shape flash
check 'sizes of one that is' says 0 '^the file will have [0-9,]* bytes' -n models/pebble
check 'a mistake names the tensor' says 1 'tensor blk.0.ffn_gate_exps.weight has rows of 128' \
    tests/data/oracle/nano -o "$work/nano.gguf"
check 'nothing is left of it' test ! -e "$work/nano.gguf.part"
check 'no file' says 2 'expected one MODEL and -o FILE' models/pebble
check 'a shape and a model' says 2 'goes with --dry-run' models/pebble --shape pro -n
check 'no such recipe' says 1 'recipe q3: neither a file nor q2' models/pebble -o "$work/a" -r q3

check 'a file' "$dstar" quantize -q models/pebble -o "$work/whole.gguf" -r "$work/little" -t 1
# killed as early as something is written, then given again
"$dstar" quantize -q models/pebble -o "$work/parts.gguf" -r "$work/little" -t 1 &
child=$!
for _ in $(seq 200); do
    [ "$(stat -c %s "$work/parts.gguf.journal.part" 2>/dev/null || echo 0)" -gt 400 ] && break
    sleep 0.01
done
kill -9 $child 2>/dev/null
wait $child 2>/dev/null
check 'killed, it is not there' test ! -e "$work/parts.gguf" -a -e "$work/parts.gguf.part"
check 'again, it goes on' says 0 'going on: [0-9]* of' models/pebble -o "$work/parts.gguf" \
    -r "$work/little" -t 3
check 'the same bytes' cmp "$work/whole.gguf" "$work/parts.gguf"
check 'and a report' says 0 '^blk.2.ffn_gate_exps.weight  *IQ2_XXS  *0\.1' models/pebble \
    -o "$work/whole.gguf" -r "$work/little" --verify
check 'it runs' "$dstar" run -m "$work/whole.gguf" --max-tokens 3 Birds

# a file system of 4 MB of one's own
mkdir "$work/small"
small='mount -t tmpfs -o size=4m none "$1/small"'
if unshare -rm sh -c "$small" sh "$work" 2>/dev/null; then
    unshare -rm sh -c "$small"' && "$2" quantize models/pebble -o "$1/small/a.gguf" -r "$3"
        echo "status $?"; ls -A "$1/small"' sh "$work" "$dstar" "$work/little" >"$work/said" 2>&1
    check 'a small disk is seen first' grep -q 'a.gguf: needs [0-9]* bytes, its file system has' \
        "$work/said"
    check 'it fails and leaves nothing' test "$(tail -n 1 "$work/said")" = 'status 1'
else
    n=$((n + 1))
    echo "ok $n - a small disk # SKIP no file system may be mounted here"
fi
echo "1..$n"
