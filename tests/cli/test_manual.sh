#!/bin/sh
# test_manual.sh - the manual page and the completions say the same as the program's own help.
#
# What `dstar help` lists is the truth: commands, options with their letters and words, and the
# slash commands of chat. Each list is compared with what the page has, both ways.
set -u
. tests/cli/check.sh
page=man/dstar.1

skip() {
    n=$((n + 1))
    echo "ok $n # SKIP $1"
}
# silent COMMAND...: it has nothing to say
silent() { said=$("$@" 2>&1); echo "$said"; [ -z "$said" ]; }
# same FILE FILE: equal and not empty
same() { [ -s "$1" ] && diff "$1" "$2"; }

if command -v mandoc >/dev/null; then
    check 'mandoc has no remarks' silent mandoc -T lint -W style "$page"
else
    skip 'no mandoc to check the page'
fi
if command -v groff >/dev/null; then
    check 'groff has no warnings' silent groff -ww -mandoc -Tutf8 -z "$page"
else
    skip 'no groff to check the page'
fi
if [ ! -x "$dstar" ]; then
    skip "no $dstar"
    exit 0
fi

"$dstar" help | sed -nE 's/^  ([a-z]+( [a-z]+)?)  .*/\1/p' | sort >"$work/commands"
sed -n 's/^\.It Cm //p' "$page" | sort >"$work/commands.page"
check 'the page has the commands' same "$work/commands" "$work/commands.page"

grep -v '^help$' "$work/commands" | while read -r command; do
    # shellcheck disable=SC2086  # commands of two words
    "$dstar" help $command
done >"$work/help"
# "letter name" and "name word" of each option
sed -nE 's/^  (-(.), |    )--([a-z0-9-]+)( ([^ ]+))?.*/\3 -\2 \5/p' "$work/help" |
    awk '{ print $2, $1
           n = split($3, w, "|"); for (i = 1; n > 1 && i <= n; i++) print $1, w[i] }' |
    sort -u >"$work/options"
sed -nE 's/^\.It Fl (([^-]) , Fl )?-([a-z0-9-]+)/\3 -\2/p' "$page" |
    awk '{ print $2, $1
           words = / Cm / ? $0 : ""
           sub(/.* Cm /, "", words)
           n = split(words, w, " [|] ")
           for (i = 1; i <= n; i++) print $1, w[i] }' | sort -u >"$work/options.page"
check 'the page has the options, their letters and words' \
    same "$work/options" "$work/options.page"

printf '/help\n/quit\n' | "$dstar" chat 2>&1 | sed -nE 's/^.*(\/[a-z]+).*/\1/p' | sort -u \
    >"$work/slash"
sed -nE 's/^\.It Ic (\/[a-z]+).*/\1/p' "$page" | sort >"$work/slash.page"
check 'the page has the commands inside chat' same "$work/slash" "$work/slash.page"

# Completions, driven as the shells drive them. reply WORD...: what bash offers for the last one.
cat >"$work/bash" <<'EOF'
. completions/dstar.bash
COMP_WORDS=(dstar "$@")
COMP_CWORD=$#
_dstar
printf '%s\n' "${COMPREPLY[@]}" | sort
EOF
PATH=$(cd "$build" && pwd):$PATH
reply_bash() { bash "$work/bash" "$@"; }
# fish joins the words to a line itself; of an offer only the word counts
reply_fish() {
    fish -c "source completions/dstar.fish; complete -C 'dstar $*'" | cut -f 1 | sort
}
# zsh: the completion is run with the functions that it would call replaced by ones that print
cat >"$work/zsh" <<'EOF'
_describe() { print -l -- ${${(P)2}%%:*} }
compadd() { print -l -- ${@:#--} }
_files() { }
_message() { }
words=(dstar "$@")
CURRENT=$#words
. completions/_dstar
EOF
reply_zsh() { zsh -f "$work/zsh" "$@" | sort -u; }
cut -d ' ' -f 1 "$work/commands" | sort -u >"$work/first"
"$dstar" help run | sed -nE 's/^  (-., |    )(--[a-z0-9-]+).*/\2/p' | sort >"$work/run"
"$dstar" help eval nll | sed -nE 's/^  (-., |    )(--[a-z0-9-]+).*/\2/p' | sort >"$work/nll"
printf '%s\n' high low max none >"$work/think"
printf '%s\n' compare draft kl logits nll reference repeat skills >"$work/eval"

for shell in bash fish zsh; do
    if ! command -v $shell >/dev/null; then
        skip "no $shell"
        continue
    fi
    "reply_$shell" '' | grep -v '^-' >"$work/reply"
    check "$shell completes commands" same "$work/first" "$work/reply"
    "reply_$shell" run -- >"$work/reply"
    check "$shell completes options" same "$work/run" "$work/reply"
    "reply_$shell" eval nll -- >"$work/reply"
    check "$shell completes options of a command of two words" same "$work/nll" "$work/reply"
    "reply_$shell" run --think '' >"$work/reply"
    check "$shell completes words" same "$work/think" "$work/reply"
    "reply_$shell" eval '' >"$work/reply"
    check "$shell completes the second word" same "$work/eval" "$work/reply"
done
echo "1..$n"
