#!/bin/sh
# test_install.sh - what `make install` puts down works for someone who has nothing else: the
# program, the static and the shared library through pkg-config, the manual; and can be removed.
set -u
. tests/cli/check.sh
root=$work/root prefix=/opt/star

if [ ! -x "$build/dstar" ] || [ ! -f "$build/pebble.gguf" ]; then
    echo "ok 1 # SKIP nothing built to install in $build"
    exit 0
fi
if nm "$build/libinternal.a" 2>/dev/null | grep -q __asan_; then
    echo "ok 1 # SKIP a library with sanitizers is not for others"
    exit 0
fi

# Installed from what is there: nothing may be built again.
check 'make install' make --no-print-directory -o all install "BUILD=$build" "DESTDIR=$root" \
    "PREFIX=$prefix"
at=$root$prefix
check 'the program finds its model' sh -c "'$at/bin/dstar' run --temp 0 --max-tokens 8 Hello |
    grep -q ."
check 'version' sh -c "'$at/bin/dstar' --version | grep -q '[0-9]\.[0-9]\.[0-9]'"

# Only dstar_ names may be seen: another's program may have its own buf_add.
exported() {
    nm "$@" | awk '$2 ~ /[TDBRVW]/ && $3 !~ /^dstar_/ { print; n++ } END { exit n != 0 }'
}
check 'the static library exports dstar_ alone' \
    exported -g --defined-only "$at/lib/libdwarfstar.a"
check 'the shared library exports dstar_ alone' \
    exported -D --defined-only "$at/lib/libdwarfstar.so"
has_open() { nm "$@" | grep -q ' T dstar_open$'; }
check 'the static library has dstar_open' has_open -g "$at/lib/libdwarfstar.a"
check 'the shared library has dstar_open' has_open -D "$at/lib/libdwarfstar.so"

cat >"$work/user.c" <<'EOF'
#include <dwarfstar.h>
#include <stdio.h>
#include <string.h>

int buf_add(void);
int buf_add(void) { return 1; }

int main(int argc, char **argv)
{
    struct dstar_options options;
    struct dstar_error error = { 0 };
    dstar_engine *engine;
    dstar_options_init(&options);
    options.model = argc > 1 ? argv[1] : "";
    options.ctx = 256;
    if (dstar_open(&engine, &options, &error) < 0)
        return fprintf(stderr, "%s\n", error.text), 1;
    dstar_close(engine);
    return strcmp(dstar_version(), DSTAR_VERSION) != 0 || !buf_add();
}
EOF
export PKG_CONFIG_PATH="$at/lib/pkgconfig"
flags() { pkg-config "--define-variable=prefix=$at" "$@" dwarfstar; }
cc=${CC:-cc}
# shellcheck disable=SC2046  # lists of flags
{
    check 'pkg-config knows the version' test "$(flags --modversion)" = \
        "$("$at/bin/dstar" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)"
    check 'a program with the shared library' \
        "$cc" -Wall -Werror "$work/user.c" $(flags --cflags) -o "$work/shared" $(flags --libs)
    check 'a program with the static library' \
        "$cc" -Wall -Werror "$work/user.c" $(flags --cflags) -o "$work/static" \
        "$at/lib/libdwarfstar.a" $(flags --libs --static | sed 's/-ldwarfstar//')
}
model=$at/share/dwarfstar/pebble.gguf
check 'the first runs' env "LD_LIBRARY_PATH=$at/lib" "$work/shared" "$model"
check 'the second runs' "$work/static" "$model"
check 'it needs the right soname' sh -c "readelf -d '$work/shared' | grep -q 'libdwarfstar.so.0\]'"

check 'make uninstall' make --no-print-directory uninstall "DESTDIR=$root" "PREFIX=$prefix"
check 'nothing is left' test -z "$(find "$root" -type f -o -type l)"
echo "1..$n"
