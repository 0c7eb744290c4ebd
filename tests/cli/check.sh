# check.sh - what shell tests share: where the program is, a folder of their own, cases. They run in
# the root of the source tree and end with `echo "1..$n"`.
# shellcheck shell=sh disable=SC2034  # what is set here is used by who reads this
build=${DSTAR_BUILD:-build}
dstar=$build/dstar
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0

# check WHAT COMMAND...: one case
check() {
    what=$1
    shift
    n=$((n + 1))
    if "$@" >"$work/out" 2>&1; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what"
        sed 's/^/# /' "$work/out" | tail -n 20
    fi
}
