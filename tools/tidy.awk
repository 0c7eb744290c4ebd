# tidy.awk - the law for one C file after another; called by tools/tidy with `list`, the names of
# all source files. Judges by layout, which the style fixes: functions open and close with a brace
# in column 0, indentation is four spaces a level. Marks that excuse, each with a reason:
#   /* tidy: long - reason */   in a function: more than 70 lines (a flat switch, a straight list)
#   /* tidy: heap - reason */   in a function: memory taken or given back outside open and close
#   /* tidy: wide - reason */   before a function: more than 6 parameters
# Parameters are counted without the two that convention adds: a device in front, an error last.

function fault(text) { printf "%s:%d: %s\n", FILENAME, FNR, text }
function note(text) { printf "%s:%d: note: %s\n", FILENAME, FNR, text }

# words("a b") -> set[...]: make a lookup table
function words(set, text,    w, i, n) {
    n = split(text, w, " ")
    for (i = 1; i <= n; i++) set[w[i]] = 1
}

# the folder of src/ a file lies in; "api" for include/, "" for tests
function folder_of(path,    part) {
    split(path, part, "/")
    if (part[1] == "examples") return "examples"
    return part[1] == "src" ? part[2] : part[1] == "include" ? "api" : ""
}
function base_of(path) { sub(/.*\//, "", path); return path }

BEGIN {
    # The folder law: what a folder may include besides itself.
    law["base"] = ""
    law["quant"] = "base"
    law["format"] = "base quant"
    law["text"] = "base format"
    law["ops"] = "base quant"
    law["backend"] = "base quant ops"
    law["kv"] = "base quant ops"
    law["experts"] = "base format ops"
    law["model"] = "base quant format ops kv experts"
    law["run"] = "base format text ops kv experts model backend.h api"
    law["cluster"] = "base run api"
    law["offline"] = "base quant format text api deepseek4_names.h"
    law["measure"] = "base quant format text ops backend kv experts model run api"
    law["serve"] = law["agent"] = "base api"
    law["cmd"] = "base api offline measure serve agent cluster"
    law["api"] = ""
    law["examples"] = "api"
    for (f in law) {
        n = split(law[f], w, " ")
        for (i = 1; i <= n; i++) allowed[f, w[i]] = 1
    }

    # Outside headers: standard C is free, the operating system belongs to base, a library to the
    # folders that need it.
    words(standard, "assert.h ctype.h errno.h fenv.h float.h inttypes.h limits.h math.h " \
          "stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h string.h " \
          "stdnoreturn.h time.h")
    outside["jansson.h"] = "format text offline measure cmd serve agent"
    outside["pcre2.h"] = "text"
    outside["histedit.h"] = outside["editline/readline.h"] = "cmd"
    outside["signal.h"] = "base cmd"
    outside["microhttpd.h"] = "serve"
    outside["curl/curl.h"] = "agent cmd"
    outside["sodium.h"] = "base cluster serve"
    outside["immintrin.h"] = outside["arm_neon.h"] = "backend"
    outside["cuda_runtime.h"] = outside["cuda_fp16.h"] = outside["cuda_bf16.h"] = "backend"
    outside["mma.h"] = outside["cuda.h"] = outside["nccl.h"] = "backend"

    words(heap, "malloc calloc realloc free aligned_alloc posix_memalign strdup strndup " \
          "reallocarray valloc memalign")
    words(on_path, "ops backend kv experts model")
    words(banned, "strcpy strcat sprintf vsprintf gets atoi atol atoll atof strtok alloca rand " \
          "srand tmpnam mktemp setjmp longjmp system popen")
    words(printing, "printf vprintf puts putchar perror")
    words(streams, "stderr stdout stdin")
    words(leaving, "exit _exit _Exit abort quick_exit atexit")
    words(no_model, "base quant format ops backend kv experts cluster")

    n = split(list, path, "\n")
    for (i = 1; i <= n; i++) if (path[i] ~ /\.(h|cuh)$/) home[base_of(path[i])] = path[i]
}

FNR == 1 {
    end_of_file()
    folder = folder_of(FILENAME)
    program = folder == "cmd" || folder == "examples"
    name = base_of(FILENAME)
    product = folder != ""
    header = name ~ /\.(h|cuh)$/
    in_comment = in_body = 0
    signature = ""
    n_line = 0
    if (product && !(folder in law)) fault("the folder law knows no src/" folder)
    if (index($0, "/* " name " - ") != 1) fault("the first line must be: /* " name " - what it is")
}

{
    n_line = FNR
    last_file = FILENAME
    if (length($0) > 100) fault("line longer than 100 columns")
    if ($0 ~ /[ \t\r]$/) fault("space at the end of the line")
    if (index($0, "\t")) fault("tab")
    if ($0 ~ /(TODO|FIXME)/) fault("unfinished work is an issue, not a comment")
    code = strip($0)
    comment_line = code !~ /[^ ]/
}

/^ *# *include/ { include_line($0); next }

product {
    identifiers(code)
    shape(code)
}

END { end_of_file() }

# The line without comments and with empty strings; `in_comment` lives on from line to line.
# Comments and strings of the line are left in `comment` and `strings`.
function strip(s,    out, i, quote, closing) {
    out = comment = strings = ""
    while (s != "") {
        if (in_comment) {
            i = index(s, "*/")
            comment = comment (i ? substr(s, 1, i - 1) : s)
            if (!i) return out
            s = substr(s, i + 2)
            in_comment = 0
            continue
        }
        if (!match(s, /["'\/]/)) return out s
        out = out substr(s, 1, RSTART - 1)
        s = substr(s, RSTART)
        quote = substr(s, 1, 1)
        if (substr(s, 1, 2) == "/*") { in_comment = 1; s = substr(s, 3); continue }
        if (substr(s, 1, 2) == "//") { comment = comment substr(s, 3); return out }
        if (quote == "/") { out = out "/"; s = substr(s, 2); continue }
        for (closing = 2; closing <= length(s); closing++) {
            if (substr(s, closing, 1) == "\\") closing++
            else if (substr(s, closing, 1) == quote) break
        }
        strings = strings substr(s, 2, closing - 2) " "
        out = out quote quote
        s = substr(s, closing + 1)
    }
    return out
}

function include_line(s,    what, to, owner) {
    if (!product) return
    what = s
    sub(/^ *# *include *["<]/, "", what)
    sub(/[">].*/, "", what)
    if (what == "dwarfstar.h" && folder == "examples") return
    if (s ~ /</) {
        if (what in standard || folder == "base" && !(what in outside)) return
        if (!(what in outside)) {
            fault("<" what "> belongs to base, the only folder that touches the system")
        } else if (index(" " outside[what] " ", " " folder " ") == 0) {
            fault("<" what "> may be included only from: " outside[what])
        }
        return
    }
    if (what ~ /\//) fault("headers are included by name alone")
    to = base_of(what)
    if (!(to in home)) {
        if (what !~ /\.c$/ || folder != "backend") fault("no header " what " in the tree")
        return
    }
    owner = folder_of(home[to])
    if (owner == folder) return
    if (to ~ /_impl\.h$/) fault(to " is private to src/" owner)
    if (!((folder, owner) in allowed) && !((folder, to) in allowed))
        fault("src/" folder " may not include " to " of " home[to])
}

# Names used in code: calls that are banned or belong elsewhere.
function identifiers(s,    id, after, before) {
    before = ""
    while (match(s, /[A-Za-z_][A-Za-z_0-9]*/)) {
        before = before substr(s, 1, RSTART - 1)
        id = substr(s, RSTART, RLENGTH)
        after = substr(s, RSTART + RLENGTH)
        s = after
        if (folder in no_model && tolower(id) ~ /deepseek|dsv4/)
            fault("src/" folder " knows no model: " id)
        if (id in streams && name != "base.c" && !program)
            fault(id " outside cmd")
        if (folder == "model" && tolower(id) ~ /^(cuda|cpu_dev|avx)/)
            fault("src/model knows no backend: " id)
        if (after ~ /^ *\(/ && before !~ /(->|\.) *$/) call(id)
        before = id
    }
}

function call(id) {
    if (id in banned) fault(id "() is banned")
    if (id in leaving && !program && !(id == "abort" && name == "base.c"))
        fault(id "() outside cmd")
    if (id in printing && !program) fault(id "() outside cmd")
    if (id == "getenv" && name != "opts.c") fault("getenv() outside cmd/opts.c")
    if ((id == "fopen" || id == "fdopen") && folder != "base" && !program)
        fault(id "() outside base")
    if (id in heap && folder in on_path && in_body && !(function_name ~ OWNS)) {
        n_heap++
        heap_line[n_heap] = FNR
        heap_call[n_heap] = id
    }
}

BEGIN { OWNS = "(^|_)(new|free|open|close|load|release)(_|$)" }

# Functions: length, parameters, nesting; types and jumps.
function shape(s) {
    if (s ~ /^typedef +(struct|union|enum)[ {]/ && folder != "api")
        fault("no typedef for a struct, union or enum")
    if (s ~ /goto / && s !~ /goto (fail|end);/) fault("goto leads only to `fail` or `end`")
    if (!in_body) {
        outside_body(s)
        return
    }
    if (s ~ /^}/) {
        end_of_function()
        return
    }
    if (comment ~ /tidy: long - ./) excused_long = 1
    if (comment ~ /tidy: heap - ./) excused_heap = 1
    if (folder == "backend" && s ~ /^ *# *if/) fault("no #if inside a function: use the table")
    if (s ~ /^ *(} *)?(if|for|while|do|switch|else)([^A-Za-z0-9_]|$)/) {
        match(s, /^ */)
        if (RLENGTH % 4) fault("indentation is four spaces a level")
        if (RLENGTH > 12) fault("nested deeper than 3 levels")
    }
}

function outside_body(s) {
    if (comment ~ /tidy: long - ./) excused_long = 1
    if (comment ~ /tidy: heap - ./) excused_heap = 1
    if (comment ~ /tidy: wide - ./) excused_wide = 1
    if (s ~ /^{/) {
        in_body = 1
        body_line = signature == "" ? FNR : signature_line
        function_name = signature
        sub(/ *\(.*/, "", function_name)
        sub(/.*[^A-Za-z0-9_]/, "", function_name)
        if (n_param(signature) > 6 && !excused_wide)
            fault(function_name "() has more than 6 parameters")
        excused_wide = 0
        return
    }
    if (comment_line || s ~ /^ *#/) return
    if (s ~ /^[A-Za-z].*\) *{ *}? *$/ && s !~ /=/)
        fault("a function's brace stands in column 0")
    if (signature == "") signature_line = FNR
    signature = signature " " s
    if (s ~ /[;}] *$/) {
        if (header && signature ~ /\(.*\)[^)]*; *$/ && signature !~ /^ *typedef/ &&
            n_param(signature) > 6 && !excused_wide)
            fault("more than 6 parameters")
        signature = ""
        excused_long = excused_heap = excused_wide = 0
    }
}

# Commas of the first parenthesis that are not inside another one.
function n_param(s,    i, c, depth, n) {
    i = index(s, "(")
    if (!i) return 0
    n = 1 - (s ~ /\((const )?struct dev \*/) - (s ~ /struct (dstar_error|err) \*[a-z]*\)/)
    for (; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (c == "(") depth++
        else if (c == ")" && --depth == 0) break
        else if (c == "," && depth == 1) n++
    }
    return n
}

function end_of_function(    i, size) {
    size = FNR - body_line + 1
    if (size > 70 && !excused_long)
        fault(function_name "() has " size " lines, more than 70")
    for (i = 1; i <= n_heap && !excused_heap; i++)
        printf "%s:%d: %s() in src/%s: a step allocates nothing\n", FILENAME, heap_line[i],
               heap_call[i], folder
    n_heap = in_body = excused_long = excused_heap = 0
    signature = ""
}

function end_of_file(    most) {
    if (last_file == "" || last_file ~ /_tables?\.(c|h)$/) return
    most = !product || !header ? 800 : last_file ~ /_impl\.h$/ ? 150 : folder == "api" ? 400 : 200
    if (n_line > most) printf "%s:%d: file longer than %d lines\n", last_file, n_line, most
    else if (n_line > 600) printf "%s:%d: note: file longer than 600 lines\n", last_file, n_line
    if (in_body) printf "%s:%d: a function never closes in column 0\n", last_file, n_line
}
