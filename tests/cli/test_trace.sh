#!/bin/sh
# test_trace.sh - `dstar trace` and tools/expert_usage.py: the same bytes twice, a header that says
# what is there, sets of dialogues, mistakes named, and an analysis of what was recorded.
set -u
. tests/cli/check.sh

if [ ! -x "$dstar" ] || [ ! -f "$build/pebble.gguf" ]; then
    echo "ok 1 # SKIP no program or model in $build"
    exit 0
fi
# u32 FILE INDEX
u32() { od -An -tu4 -j $((4 * $2)) -N 4 "$1" | tr -d ' '; }
# whole FILE: as long as its header says, which is not nothing
whole() {
    [ "$(u32 "$1" 0)" -gt 0 ] && [ "$(u32 "$1" 3)" = 0 ] &&
        [ "$(wc -c <"$1")" = $((16 + 2 * $(u32 "$1" 0) * $(u32 "$1" 1) * $(u32 "$1" 2))) ]
}
# fails WORDS COMMAND...: with words that it prints, and without a file
fails() {
    words=$1
    shift
    said=$("$@" 2>&1) && return 1
    echo "$said" | grep -q "$words" && [ ! -e "$work/none.tr" ]
}

echo 'What is 12 plus 30?' >"$work/text"
check 'a text' "$dstar" trace -n 12 -f "$work/text" -o "$work/a.tr"
check 'its file is whole' whole "$work/a.tr"
"$dstar" trace -n 12 -t 1 -f "$work/text" -o "$work/b.tr"
check 'the same bytes again' cmp "$work/a.tr" "$work/b.tr"

cat >"$work/set.jsonl" <<'EOF'
{"thinking": true, "messages": [{"role": "user", "content": "8 plus 6?"}, {"role": "assistant"}]}
{"messages": [{"role": "user", "content": "What is the last letter of game?"}]}
EOF
check 'a set' "$dstar" trace -n 8 --set "$work/set.jsonl" -o "$work/set.tr"
check 'its file is whole' whole "$work/set.tr"
"$dstar" trace -n 8 --limit 1 --set "$work/set.jsonl" -o "$work/one.tr"
check 'no dialogue is begun behind the limit' [ "$(u32 "$work/one.tr" 0)" -lt \
    "$(u32 "$work/set.tr" 0)" ]
check 'what was recorded first is the same' cmp -i 16 -n "$(($(wc -c <"$work/one.tr") - 16))" \
    "$work/one.tr" "$work/set.tr"

echo '{"messages": 1}' >>"$work/set.jsonl"
check 'a line without messages' fails 'line 3: messages' "$dstar" trace -n 1 \
    --set "$work/set.jsonl" -o "$work/none.tr"
check 'nothing to record' fails 'expected --out' "$dstar" trace -o "$work/none.tr"

if command -v python3 >/dev/null; then
    check 'the analysis' python3 tools/expert_usage.py --experts 64 --svg "$work/plot.svg" \
        "$work/a.tr" "$work/set.tr"
    check 'its plot' grep -q '</svg>' "$work/plot.svg"
    head -c 100 "$work/a.tr" >"$work/short.tr"
    check 'a file that is cut off' fails 'bytes' python3 tools/expert_usage.py --experts 64 \
        "$work/short.tr"
    check 'what the analysis computes' python3 tools/expert_usage.py --self-test
else
    n=$((n + 1))
    echo "ok $n # SKIP no python3"
fi
echo "1..$n"
