# check.sh - what shell tests share: where the program is, a folder of their own, cases. They run in
# the root of the source tree and end with `echo "1..$n"`.
# shellcheck shell=sh disable=SC2034  # what is set here is used by who reads this
build=${DSTAR_BUILD:-build}
dstar=$build/dstar
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
quiet=yes # no: what a case prints is shown when it passes, too

# check WHAT COMMAND...: one case
check() {
    what=$1
    shift
    n=$((n + 1))
    result=ok
    "$@" >"$work/out" 2>&1 || result='not ok'
    echo "$result $n - $what"
    [ "$result$quiet" = okyes ] || sed 's/^/# /' "$work/out" | tail -n 20
}
