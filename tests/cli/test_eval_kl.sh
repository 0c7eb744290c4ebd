#!/bin/sh
# test_eval_kl.sh - `dstar eval reference`, `kl` and `compare` on the bundled model.
#
# The model against itself, in other pieces and in other arithmetic; what counts in a text and in a
# dialogue; files that are about other texts.
set -u
. tests/cli/check.sh
model=$build/pebble.gguf
sets=tools/train/heldout

if [ ! -x "$dstar" ] || [ ! -f "$model" ]; then
    echo "ok 1 # SKIP no $dstar or no $model"
    echo '1..1'
    exit 0
fi

# reference NAME OPTION...; kl NAME OUT OPTION...: with the bundled model
reference() { out=$1; shift; "$dstar" eval reference -m "$model" -o "$work/$out.ref" "$@"; }
kl() {
    of=$1 out=$2
    shift 2
    "$dstar" eval kl -m "$model" --reference "$work/$of.ref" --json "$@" >"$work/$out.json"
}
# field FILE NAME: the first number of that name
field() { sed -n "s/.*\"$2\": *\\([-+.0-9e]*\\).*/\\1/p" "$work/$1.json" | head -n 1; }

check 'a reference of dialogues' \
    reference some --limit 4 -f "$sets/arithmetic.jsonl" -f "$sets/tools.jsonl"
itself() {
    kl some itself --chunk 33 || return 1
    head -n 40 "$work/itself.json"
    awk -v kl="$(field itself kl_mean)" -v top="$(field itself same_top_percent)" \
        -v routes="$(field itself same_set_percent)" -v ratio="$(field itself perplexity_ratio)" \
        'BEGIN { exit !(kl >= 0 && kl < 1e-6 && top == 100 && routes == 100 && ratio == 1) }'
}
check 'the model is what it was, in other pieces' itself
another() {
    kl some exact --exact || return 1
    awk -v kl="$(field exact kl_mean)" 'BEGIN { exit !(kl > 1e-9 && kl < 1e-2) }'
}
check 'other arithmetic is seen' another
table() {
    "$dstar" eval kl -m "$model" --reference "$work/some.ref" >"$work/table" || return 1
    cat "$work/table"
    awk '$1 == "all" { rows = $2 } $1 == 6 { layer = $2 == "learned" && $3 == "100.00" }
         END { exit !(rows > 100 && layer) }' "$work/table"
}
check 'a table' table

# Of a dialogue the answer with its end counts, or everything but the first token.
printf '%s %s\n' '{"messages": [{"role": "user", "content": "What is 2 + 3?"},' \
    '{"role": "assistant", "content": "5"}]}' >"$work/talk.jsonl"
rows() {
    "$dstar" eval kl -m "$model" --reference "$work/$1.ref" --json >"$work/rows.json" || return 1
    echo "rows $(field rows rows), of answers $(field rows answer_rows)"
    [ "$(field rows rows)" = "$2" ] && [ "$(field rows answer_rows)" = "$3" ]
}
reference talk -f "$work/talk.jsonl"
reference whole --whole -f "$work/talk.jsonl"
check 'an answer' rows talk 2 2
markup='<｜begin▁of▁sentence｜><｜User｜>What is 2 + 3?<｜Assistant｜></think>5'
all=$("$dstar" tokenize -m "$model" --special "$markup<｜end▁of▁sentence｜>" | wc -w)
check 'a whole dialogue' rows whole $((all - 1)) 2

# A text is cut to pieces which all begin with the token that begins texts.
pieces() {
    seq 1 300 >"$work/text.txt"
    reference text --piece 100 -f "$work/text.txt" || return 1
    kl text text || return 1
    tokens=$("$dstar" tokenize -m "$model" -f "$work/text.txt" | wc -w)
    texts=$(((tokens + 98) / 99))
    echo "$(field text texts) texts, $(field text tokens) tokens, $(field text rows) rows"
    [ "$(field text texts)" = $texts ] && [ "$(field text tokens)" = $((tokens + texts)) ] &&
        [ "$(field text rows)" = "$tokens" ]
}
check 'pieces of a text' pieces

compare() {
    "$dstar" eval compare --svg "$work/kl.svg" "$work/exact.json" "$work/itself.json" \
        >"$work/table" || return 1
    cat "$work/table"
    grep -q '^pebble.gguf .*+0 ' "$work/table" && [ "$(grep -c '<circle' "$work/kl.svg")" = 2 ]
}
check 'a comparison and its picture' compare
# fault TEXT COMMAND...: ends with 1 and this line
fault() {
    said=$1
    shift
    "$dstar" eval "$@" >"$work/stdout" 2>"$work/stderr"
    status=$?
    cat "$work/stdout" "$work/stderr"
    [ $status = 1 ] && [ ! -s "$work/stdout" ] && grep -q "^dstar: $said" "$work/stderr"
}
check 'results about other texts' fault "$work/text.json: is about other texts than" \
    compare "$work/itself.json" "$work/text.json"
check 'no result' fault "$work/talk.jsonl: found no label or model" compare "$work/talk.jsonl"
head -c 100000 "$work/some.ref" >"$work/cut.ref"
check 'a reference cut off' fault "$work/cut.ref: " kl -m "$model" --reference "$work/cut.ref"
echo '{"messages": [{"role": "user", "content": "Hm."}]}' >"$work/mute.jsonl"
check 'a dialogue without an answer' \
    fault "$work/mute.jsonl: line 1: found no message of the assistant" \
    reference -m "$model" -o "$work/x.ref" -f "$work/mute.jsonl"
echo "1..$n"
