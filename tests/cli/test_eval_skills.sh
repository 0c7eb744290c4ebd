#!/bin/sh
# test_eval_skills.sh - `dstar eval skills`, `draft` and `repeat` on the bundled model.
#
# The dialogues are the first of the held-out sets, on which training was not; the model may get
# better, so what is expected is only what it has shown to know well. Faults are exact: a broken set
# must end with the file and the line.
set -u
. tests/cli/check.sh
model=$build/pebble.gguf
sets=tools/train/heldout

if [ ! -x "$dstar" ] || [ ! -f "$model" ]; then
    echo "ok 1 # SKIP no $dstar or no $model"
    echo '1..1'
    exit 0
fi

# right SET N LEAST: of the first N dialogues at least so many are right, and none is unread
right() {
    "$dstar" eval skills -m "$model" --wrong --limit "$2" --set "$sets/$1.jsonl" >"$work/table" ||
        return 1
    cat "$work/table"
    awk -v set="$1" -v n="$2" -v least="$3" '
        $1 == set { found = $2 == n && $3 >= least }
        END { exit !found }' "$work/table"
}
check 'arithmetic' right arithmetic 5 5
check 'words' right words 5 5
check 'definitions' right define 5 5
check 'memory of a conversation' right memory 3 3
check 'tool calls' right tools 3 3
check 'recall from 16' right recall-16 5 5
check 'recall from 64' right recall-64 3 3

# An expectation changed must be counted as wrong, in the answer and only in the completion.
one=$sets/arithmetic.jsonl
head -n 1 "$one" | sed 's/"answer": "/&7/' >"$work/answer.jsonl"
grep '"thinking": true' "$one" | head -n 1 | sed 's/"completion": "/&Well. /' >"$work/reason.jsonl"
# scores FILE RIGHT BYTES: percent right and to the byte
scores() {
    "$dstar" eval skills -m "$model" "$work/$1.jsonl" >"$work/table" || return 1
    cat "$work/table"
    awk -v r="$2" -v b="$3" '$1 == "all" { same = $4 == r && $5 == b } END { exit !same }' \
        "$work/table"
}
check 'another answer is wrong' scores answer 0.0 0.0
check 'other reasoning is right, but not to the byte' scores reason 100.0 0.0
sed -n 1p "$sets/tools.jsonl" | sed 's/\\"city\\": \\"/&New /' >"$work/call.jsonl"
check 'another argument of a call is wrong' scores call 0.0 0.0

# fault TEXT SET...: ends with 1 and exactly this line
fault() {
    said=$1
    shift
    "$dstar" eval skills -m "$model" --set "$@" >"$work/stdout" 2>"$work/stderr"
    status=$?
    cat "$work/stdout" "$work/stderr"
    [ $status = 1 ] && [ ! -s "$work/stdout" ] &&
        printf 'dstar: %s\n' "$said" | diff - "$work/stderr"
}
{ head -n 1 "$one"; echo '{"id": "x", "thinking": false'; } >"$work/cut.jsonl"
{ head -n 1 "$one"; sed -n 2p "$one" | sed 's/"thinking": [a-z]*/"thinking": 1/'; } \
    >"$work/field.jsonl"
sed -n 1p "$one" | sed 's/"message": [0-9]*/"message": 0/' >"$work/number.jsonl"
sed -n 1p "$one" | sed 's/"role": "user"/"role": "nobody"/' >"$work/role.jsonl"
: >"$work/empty.jsonl"
check 'a line cut off' fault "$work/cut.jsonl: line 2: '}' expected near end of file" \
    "$work/cut.jsonl"
check 'a field of another kind' fault \
    "$work/field.jsonl: line 2: thinking: found a whole number, expected true or false" \
    "$work/field.jsonl"
check 'a message that is nobody'"'"'s' fault \
    "$work/number.jsonl: line 1: message: found 0, expected the number of a message of the assist\
ant behind another" \
    "$work/number.jsonl"
check 'an empty set' fault "$work/empty.jsonl: found nothing, expected dialogues" \
    "$work/empty.jsonl"
role() {
    "$dstar" eval skills -m "$model" "$work/role.jsonl" >"$work/stdout" 2>"$work/stderr"
    status=$?
    cat "$work/stderr"
    [ $status = 1 ] && grep -q "^dstar: $work/role.jsonl: line 1: " "$work/stderr"
}
check 'a message that cannot be rendered' role

# What the model drafts of its own text, and whether it goes in circles. The bundled file has no
# draft block.
draft() {
    "$dstar" eval draft -m models/pebble --limit 3 "$sets/define.jsonl" >"$work/table" || return 1
    cat "$work/table"
    awk '$1 == "all" { good = $2 >= 20 && $4 >= 90 } END { exit !good }' "$work/table"
}
check 'the draft block agrees with the model' draft
repeat() {
    "$dstar" eval repeat -m "$model" --json -n 60 --gram "$1" 'Write an encyclopedia of birds.' \
        >"$work/json" || return 1
    cat "$work/json"
    grep -q "\"runs\": $2," "$work/json" && grep -q "\"repeated\": $3[,0-9]" "$work/json"
}
check 'no run of 8 tokens comes twice' repeat 8 53 0
check 'single tokens do' repeat 1 60 '[1-9]'
echo "1..$n"
