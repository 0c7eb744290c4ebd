#!/bin/sh
# test_compare_bench.sh - two results of `dstar bench --json`: what differs is found, noise is not.
set -u
. tests/cli/check.sh

# status N COMMAND...: ends like that, its output kept
status() {
    want=$1
    shift
    "$@" >"$work/said" 2>&1
    got=$?
    cat "$work/said"
    [ $got -eq "$want" ]
}
says() { grep -q -- "$1" "$work/said"; }
# lines FILE UNIT BETTER ALL
lines() {
    cat >"$1" <<EOF
{ "version": "1", "threads": 2, "machine": { "cpu": "x", "processors": 2, "load": 0.5 },
  "lines": [ { "name": "product, 8 rows", "unit": "$2", "better": "$3", "all": [ $4 ] } ] }
EOF
}

if ! command -v python3 >/dev/null; then
    echo "ok 1 # SKIP no python3"
    echo "1..1"
    exit 0
fi
lines "$work/a" ms less '10.0, 10.1, 9.9, 10.05, 9.95'
lines "$work/same" ms less '10.1, 10.0, 9.9, 10.2, 9.8'
lines "$work/slow" ms less '11.0, 11.1, 10.9, 11.2, 10.8'
lines "$work/noisy" ms less '9.0, 14.0, 11.0, 20.0, 9.9'
lines "$work/few" ms less '20.0, 20.0'
lines "$work/rate" GB/s more '10.0, 10.1, 9.9'
lines "$work/better" GB/s more '12.0, 12.1, 11.9'
check 'itself: nothing differs' status 0 tools/compare_bench "$work/a" "$work/a"
check 'repeated: nothing differs' status 0 tools/compare_bench "$work/a" "$work/same"
check 'more time is slower' status 1 tools/compare_bench "$work/a" "$work/slow"
check 'and is called so, with the ratio' says '0.909  SLOWER'
check 'less time is faster' status 0 tools/compare_bench "$work/slow" "$work/a"
check 'and is called so' says '1.100  faster'
check 'a small difference may be asked to be passed over' \
    status 0 tools/compare_bench --least 15 "$work/a" "$work/slow"
check 'a wide spread is noise' status 0 tools/compare_bench "$work/a" "$work/noisy"
check 'two repetitions prove nothing' status 0 tools/compare_bench "$work/a" "$work/few"
check 'and that is said' says 'too few'
check 'of rates more is better' status 0 tools/compare_bench "$work/rate" "$work/better"
check 'by so much' says '1.200  faster'
check 'different units are not compared' status 2 tools/compare_bench "$work/a" "$work/rate"
check 'what is no result is refused' status 2 tools/compare_bench "$work/a" README.md
sed 's/"threads": 2/"threads": 1/; s/"load": 0.5/"load": 8/' "$work/a" >"$work/other"
check 'another number of threads' status 0 tools/compare_bench "$work/a" "$work/other"
check 'is said' says 'threads: 2 and 1'
check 'so is a loaded machine' says 'load of 8.0'
if [ -x "$build/dstar" ]; then
    "$build/dstar" bench --json --ctx-list 16,32 --gen 2 --repeat 3 >"$work/bench"
    check 'results of dstar bench' status 0 tools/compare_bench "$work/bench" "$work/bench"
    check 'have both columns' says 'decode, ctx 32'
    "$build/dstar" bench layers --json --synth small --layers 3 --at 64 --rows 1 --repeat 3 \
        >"$work/layers"
    check 'results of dstar bench layers' status 0 tools/compare_bench "$work/layers" "$work/layers"
    check 'have every kind' says 'sparse, 1 rows at 64'
fi
echo "1..$n"
