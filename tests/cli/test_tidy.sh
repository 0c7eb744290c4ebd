#!/bin/sh
# test_tidy.sh - the folder law's checker finds planted faults, one of each kind, and only those.
#
# A small lawful tree is made; each case copies it, plants one fault and looks for the sentence
# about it. A case with an empty sentence is lawful: the checker must then stay silent.
# shellcheck disable=SC2016  # backticks are Markdown here
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tidy=$PWD/tools/tidy
n=0 tree=$work/lawful

# file PATH: replace PATH in the tree by standard input, after the obligatory first line
file() {
    mkdir -p "$tree/$(dirname "$1")"
    { echo "/* $(basename "$1") - a file. */"; cat; } >"$tree/$1"
}
# plain PATH: the same without a first line
plain() { mkdir -p "$tree/$(dirname "$1")" && cat >"$tree/$1"; }

# expect NAME SENTENCE: what the checker says of the tree as it is now; then start afresh
expect() {
    n=$((n + 1))
    said=$("$tidy" "$tree" 2>&1)
    status=$?
    lines=$(printf '%s\n' "$said" | grep -c ': ' )
    if [ "$2" = '' ] && [ $status = 0 ] && [ "$said" = '' ]; then
        echo "ok $n - $1"
    elif [ "$2" != '' ] && [ $status = 1 ] && [ "$lines" = 2 ] &&
        printf '%s\n' "$said" | grep -qF "$2"; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1: expected \"$2\", exit status $status and:"
        printf '%s\n' "$said" | sed 's/^/# /'
    fi
    afresh
}

# include FOLDER WHAT: a file in src/FOLDER that includes WHAT
include() { echo "#include $2" | file "src/$1/planted.c"; }
# body FOLDER STATEMENT: a function in src/FOLDER with this statement
body() { printf 'void planted(void)\n{\n%s\n}\n' "$2" | file "src/$1/planted.c"; }
# repeat N TEXT: N lines
repeat() { awk -v n="$1" -v t="$2" 'BEGIN { while (n-- > 0) print t }'; }

# The lawful tree.
for f in base/base quant/quant format/weights text/detok ops/ops backend/backend kv/kv \
    experts/experts model/deepseek4_names model/model run/run offline/import measure/measure \
    serve/serve cluster/cluster; do
    echo "int $(basename $f)_x(void);" | file src/$f.h
done
echo 'int dstar_x(void);' | file include/dwarfstar.h
echo 'int secret(void);' | file src/kv/kv_impl.h
file src/run/engine.c <<'EOF'
#include "run.h"
#include "backend.h"
#include "model.h"

#include <stdlib.h>

/* strcpy() in a comment and "exit()" in a string are words. */
int run_x(void)
{
    const char *s = "exit(1); /* not a comment";
    for (int i = 0; i < 3; i++)
        if (s[i] == '"')
            return i;
    return 0;
}

static int engine_open(void)
{
    free(malloc(1));
    goto fail;
fail:
    return engine_open();
}
EOF
plain README.md <<'EOF'
See `src/run/engine.c`, `run/engine.c`, `engine.c` and `ggml/src/ggml-quants.c`.
EOF

tree=$work/tree
afresh() { rm -rf "$tree" && cp -r "$work/lawful" "$tree"; }

afresh
expect 'a lawful tree' ''

for pair in base:quant.h quant:ops.h format:ops.h text:quant.h ops:model.h ops:weights.h \
    backend:kv.h kv:experts.h experts:kv.h model:run.h model:detok.h model:backend.h run:quant.h \
    offline:run.h offline:model.h serve:run.h cluster:model.h cmd:model.h measure:serve.h; do
    include ${pair%:*} "\"${pair#*:}\""
    expect "include $pair" "may not include ${pair#*:}"
done
for pair in offline:deepseek4_names.h run:backend.h cmd:import.h measure:model.h kv:kv_impl.h; do
    include ${pair%:*} "\"${pair#*:}\""
    expect "lawful include $pair" ''
done
file examples/hello.c <<'EOF'
#include <dwarfstar.h>
int main(void)
{
    printf("hello");
    return fopen("x", "r") != 0;
}
EOF
expect 'an example' ''
echo '#include "base.h"' | file examples/hello.c
expect 'an example that knows more' 'src/examples may not include base.h'
include measure '"kv_impl.h"';  expect 'private header' 'kv_impl.h is private to src/kv'
include run '"base/base.h"';    expect 'header with a path' 'included by name alone'
include run '"nowhere.h"';      expect 'unknown header' 'no header nowhere.h'
include run '<unistd.h>';       expect 'system header' '<unistd.h> belongs to base'
include base '<unistd.h>';      expect 'system header in base' ''
include run '<sys/socket.h>';   expect 'socket' '<sys/socket.h> belongs to base'
include run '<jansson.h>';      expect 'JSON in run' '<jansson.h> may be included only from'
include kv '<immintrin.h>';     expect 'intrinsics' '<immintrin.h> may be included only'
include new '<stdio.h>';        expect 'unknown folder' 'the folder law knows no src/new'

body run '    strcpy(0, 0);';   expect 'strcpy' 'strcpy() is banned'
body run '    strcat(0, 0);';   expect 'strcat' 'strcat() is banned'
body cmd '    sprintf(0, 0);';  expect 'sprintf' 'sprintf() is banned'
body cmd '    gets(0);';        expect 'gets' 'gets() is banned'
body cmd '    atoi(0);';        expect 'atoi' 'atoi() is banned'
body cmd '    strtok(0, 0);';   expect 'strtok' 'strtok() is banned'
body cmd '    x.gets(0);';      expect 'a member of that name' ''
body run '    exit(1);';        expect 'exit' 'exit() outside cmd'
body cmd '    exit(1);';        expect 'exit in cmd' ''
body run '    abort();';        expect 'abort' 'abort() outside cmd'
body run '    getenv("X");';    expect 'getenv' 'getenv() outside cmd/opts.c'
body run '    printf("");';     expect 'printf' 'printf() outside cmd'
body run '    f(stderr);';      expect 'stderr' 'stderr outside cmd'
body run '    fopen("", "");';  expect 'fopen' 'fopen() outside base'
body run '    goto again;';     expect 'goto' 'goto leads only to'

for folder in ops backend kv experts model; do
    body $folder '    malloc(1);'
    expect "heap in $folder" "malloc() in src/$folder: a step allocates nothing"
done
body kv '    free(0); /* tidy: heap - before the first step */'
expect 'heap with a reason' ''
body kv '    free(0); /* tidy: heap - */'
expect 'heap without a reason' 'a step allocates nothing'
printf 'void kv_close(void)\n{\n    free(0);\n}\n' | file src/kv/planted.c
expect 'heap in close' ''

body kv 'int dsv4_x;';          expect 'a model by name' 'src/kv knows no model: dsv4_x'
body model 'int cuda_x;';       expect 'a backend by name' 'src/model knows no backend: cuda_x'
echo 'typedef struct { int i; } x;' | file src/run/planted.h
expect 'typedef' 'no typedef'

{ echo 'void f(void)'; echo '{'; repeat 67 '    ;'; echo '}'; } | file src/run/planted.c
expect 'a function of 70 lines' ''
{ echo 'void f(void)'; echo '{'; repeat 68 '    ;'; echo '}'; } | file src/run/planted.c
expect 'a function of 71 lines' 'f() has 71 lines'
{ echo '/* tidy: long - a list */'; echo 'void f(void)'; echo '{'; repeat 99 '    ;'; echo '}'; } |
    file src/run/planted.c
expect 'a long function with a reason' ''
repeat 800 'int x;' | file src/run/planted.c
expect 'a long file' 'file longer than 800 lines'
repeat 900 'int x;' | file src/run/planted_tables.c
expect 'a long table' ''
repeat 200 'int x;' | file src/run/planted.h
expect 'a long header' 'file longer than 200 lines'
repeat 150 'int x;' | file src/run/planted_impl.h
expect 'a long private header' 'file longer than 150 lines'
repeat 300 'int x;' | file include/dwarfstar.h
expect 'the public header' ''
repeat 1 "int x = $(repeat 90 1 | tr -d '\n');" | file src/run/planted.c
expect 'a line of 100 columns' ''
repeat 1 "int xxx = $(repeat 90 1 | tr -d '\n');" | file src/run/planted.c
expect 'a line of 101 columns' 'line longer than 100 columns'
echo 'int f(int a, int b, int c, int d, int e, int f);' | file src/run/planted.h
expect '6 parameters' ''
echo 'int f(int a, int b, int c, int d, int e, int f, int g);' | file src/run/planted.h
expect '7 parameters declared' 'more than 6 parameters'
printf 'int f(int a, int b, int c, int d,\n    int e, int f, int g)\n{\n    return 0;\n}\n' |
    file src/run/planted.c
expect '7 parameters defined' 'f() has more than 6 parameters'
echo 'int f(struct dev *d, int a, int b, int c, int d, int e, int f, struct err *e);' |
    file src/run/planted.h
expect '6 parameters, a device and an error' ''
body run '    if (1) {
        if (1) {
            if (1)
                f();'
expect '3 levels' ''
body run '    if (1)
        if (1)
            if (1)
                while (1)
                    f();'
expect '4 levels' 'nested deeper than 3 levels'
body run '  if (1)'
expect 'indentation' 'indentation is four spaces'
printf 'int f(void) {\n}\n' | file src/run/planted.c
expect 'brace' "a function's brace stands in column 0"
body backend '#if AVX'
expect '#if in a kernel' 'no #if inside a function'

echo 'int x;' | plain src/run/planted.c
expect 'no essay' 'the first line must be: /* planted.c - '
printf 'int\tx;\n' | file src/run/planted.c
expect 'tab' ': tab'
echo 'int x; ' | file src/run/planted.c
expect 'space at the end' 'space at the end of the line'
printf '/* TO%s: this */\n' DO | file src/run/planted.c
expect 'unfinished work' 'unfinished work is an issue'
echo 'int x;' | file tests/unit/engine.c
expect 'the same name twice' 'the name engine.c is taken by'
printf 'echo %s\n' "$(repeat 99 1 | tr -d '\n')" | plain tests/cli/test_planted.sh
expect 'a long line in a script' 'test_planted.sh:1: line longer than 100 columns'

# names WHERE NAME: a document that names a file
names() { echo "See \`$2\`." | plain "$1"; }
names README.md src/run/gone.c;  expect 'path in a document' 'no file src/run/gone.c'
names README.md run/gone.c;      expect 'short path' 'no file run/gone.c'
names ARCHITECTURE.md gone.c;    expect 'bare name' 'no file gone.c'
names docs/a.md src/run/run_NAME.c; expect 'a name that stands for any' ''
names docs/model.md tools/gone;  expect 'script in a document' 'no file tools/gone'

# reading N WHAT: a tour that allows N lines and asks for WHAT
reading() {
    plain ARCHITECTURE.md <<EOF
<!-- reading set: $1 lines at most -->
| 1 | $2 | what happens |
<!-- end of reading set -->
EOF
}
reading 24 '`run/engine.c`'
expect 'reading set, a file' ''
reading 23 '`run/engine.c`'
expect 'reading set too long, a file' 'has 24 lines, more than 23'
reading 15 '`run/engine.c` `run_x` and `engine_open`'
expect 'reading set, functions' ''
reading 14 '`run/engine.c` `run_x` `engine_open()`'
expect 'reading set too long, functions' 'has 15 lines, more than 14'
reading 100 '`run/engine.c` `run_x`'
expect 'reading set, far from the limit' ''
reading 99 '`gone/engine_x.c`'
expect 'reading set, no such file' 'asks for gone/engine_x.c'
reading 99 '`run/engine.c` `run_y`'
expect 'reading set, no such function' 'no function run_y()'
echo "1..$n"
