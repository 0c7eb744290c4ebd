#!/bin/sh
# test_simulate.sh - `dstar simulate`: its table and its JSON agree, mistakes are named, and, with
# recorded routes at hand, choosing a rule costs at most 2 % against the best one in hindsight.
set -u
. tests/cli/check.sh

skip() {
    n=$((n + 1))
    echo "ok $n # SKIP $1"
}
if [ ! -x "$dstar" ]; then
    echo "ok 1 # SKIP no program in $build"
    exit 0
fi
# fails STATUS WORDS COMMAND...: with words that it prints
fails() {
    status=$1
    words=$2
    shift 2
    said=$("$@" 2>&1)
    found=$?
    echo "$said"
    [ $found = "$status" ] && echo "$said" | grep -q -e "$words"
}
# within PERCENT COLUMN FILE: how the rows' ratio in a column, counted from the end, is bounded
within() {
    awk -v most="$1" -v col="$2" '
        /^ *[0-9]/ { rows++; if ($(NF - col) > most) { print; bad = 1 } }
        END { exit bad || !rows }' "$3"
}

# 300 tokens, 2 layers, 2 used: a favourite and a loop over experts 0 to 11
awk 'BEGIN { printf "\\054\\001\\000\\000\\002\\000\\000\\000"
             printf "\\002\\000\\000\\000\\000\\000\\000\\000"
             for (i = 0; i < 600; i++) printf "\\015\\000\\%03o\\000", i % 12 }' >"$work/octal"
# shellcheck disable=SC2059  # the file is a format
printf "$(cat "$work/octal")" >"$work/a.tr"
check 'a table' "$dstar" simulate --experts 20 --hash-layers 0 "$work/a.tr" "$work/a.tr" \
    --percent 10,100
cp "$work/out" "$work/table"
check 'it has a row for each trace and size' [ "$(grep -c '^ *[0-9]' "$work/table")" = 4 ]
"$dstar" simulate --experts 20 --slots 40 --expert-bytes 1000 --policy lru --json "$work/a.tr" \
    >"$work/json"
# 2 layers touch 7 experts each: the favourite, and 6 of the loop's even or odd ones
check 'JSON: with room for all, each expert is read once' grep -q '"misses": 14,' "$work/json"
check 'and so does the best' grep -q '"optimum_bytes": 14000.0' "$work/json"
"$dstar" simulate --experts 20 --slots 8 --policy freq:8 --json "$work/a.tr" >"$work/json"
# bytes NAME: of the numbers with a point; counts of the same name have none
bytes() { sed -nE "s/.*\"$1\": ([0-9]+\.[0-9e+]+).*/\1/p" "$work/json"; }
check 'a policy that is asked for is the fixed rule of its name' \
    [ "$(bytes bytes)" = "$(bytes freq:8)" ]

check 'no trace' fails 2 'name of a trace' "$dstar" simulate
check 'an unknown policy' fails 2 'expected auto' "$dstar" simulate --policy freq:0 "$work/a.tr"
check 'a half-life that is too long' fails 2 'expected auto' \
    "$dstar" simulate --policy freq:4097 "$work/a.tr"
check 'fewer slots than a layer needs' fails 1 'a.tr: 1 slots' \
    "$dstar" simulate --experts 20 --slots 1 "$work/a.tr"
check 'an expert that there cannot be' fails 1 'expected less than 8' \
    "$dstar" simulate --experts 8 "$work/a.tr"
check 'no file' fails 1 'none.tr' "$dstar" simulate "$work/none.tr"

data=${DSTAR_TESTDATA:-}
if [ -z "$data" ] || ! ls "$data"/traces/*.tr.gz >/dev/null 2>&1; then
    skip 'no recorded routes in TESTDATA'
else
    for gz in "$data"/traces/*.tr.gz; do
        name=$(basename "$gz" .tr.gz)
        gzip -dc "$gz" >"$work/$name.tr"
        check "$name: a table" "$dstar" simulate "$work/$name.tr"
        cp "$work/out" "$work/table"
        check "$name: at most 1.02 of the best rule" within 1.02 4 "$work/table"
        if [ "$name" = stable ]; then
            check "$name: at most 0.90 of lru" within 0.90 3 "$work/table"
        fi
    done
fi
echo "1..$n"
