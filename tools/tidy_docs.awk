# tidy_docs.awk - names in documents; called by tools/tidy. First input: every file of the tree,
# one a line; then the documents. Also adds up the reading set, the lines that the tour in
# ARCHITECTURE.md asks to be read: table rows between `<!-- reading set: N lines at most -->` and
# `<!-- end of reading set -->`, in which backticks name files (`run/batch.c`: whole, folders
# counted from src/) and after a file functions in it (`batch_fill`: that function alone).
# NAME in a name stands for any.

function fault(text) { printf "%s:%d: %s\n", FILENAME, FNR, text }

BEGIN {
    n = split("src include examples tests tools docs man completions models", folder, " ")
    for (i = 1; i <= n; i++) ours[folder[i]] = 1
}

FILENAME == "-" || FILENAME == "" {
    exists[$0] = 1
    name = $0
    sub(/.*\//, "", name)
    by_name[name] = $0
    next
}

/<!-- reading set: [0-9]+ lines at most -->/ {
    budget = $0
    gsub(/[^0-9]/, "", budget)
    budget += 0
    counting = 1
    total = 0
}

{
    rest = $0
    file = ""
    n_function = 0
    while (match(rest, /`[^`]+`/)) {
        word = substr(rest, RSTART + 1, RLENGTH - 2)
        rest = substr(rest, RSTART + RLENGTH)
        if (word ~ /^[A-Za-z0-9_.\/-]+\.(c|h|cu|cuh|md|sh|awk|1)$/ ||
            word ~ /^(src|tests|tools|docs|man|completions|include)\/[A-Za-z0-9_.\/-]+$/)
            check_name(word)
        if (counting && /^\|/) count(word)
    }
    if (counting && /^\|/) count("")
}

/<!-- end of reading set -->/ {
    if (total > budget) fault("the reading set has " total " lines, more than " budget)
    counting = 0
}

function check_name(word,    top) {
    if (word ~ /NAME/) return
    if (word in exists || ("src/" word) in exists || is_folder(word)) return
    top = word
    sub(/\/.*/, "", top)
    if (top == word ? word in by_name : !(top in ours) && !is_folder("src/" top)) return
    if (word ~ /^build/) return
    fault("no file " word " in the tree")
}

function is_folder(word,    f) {
    sub(/\/$/, "", word)
    for (f in exists) if (index(f, word "/") == 1) return 1
    return 0
}

function path_of(word) {
    if (word in exists) return word
    if (("src/" word) in exists) return "src/" word
    return word in by_name ? by_name[word] : ""
}

# A word of a row of the reading set; "" ends the row. A file counts whole unless functions follow.
function count(word,    path) {
    path = word ~ /\.(c|h|cu|md)$/ ? path_of(word) : ""
    if (path == "" && word ~ /\./) fault("the reading set asks for " word ", which is not there")
    if (word == "" || path != "") {
        if (file != "" && n_function == 0) total += lines_of(file)
        file = path
        n_function = 0
    } else if (file != "" && word ~ /^[a-z_0-9]+(\(\))?$/) {
        sub(/\(\)/, "", word)
        total += lines_in(file, word)
        n_function++
    }
}

function lines_of(path,    line, n) {
    while ((getline line < path) > 0) n++
    close(path)
    return n
}

# Lines of one function, from the line with its name to the brace that closes it.
function lines_in(path, name,    line, n, inside) {
    while ((getline line < path) > 0) {
        if (!inside && line ~ ("^[a-z].*[^a-z0-9_]" name "\\(")) { inside = 1; n = 0 }
        if (inside) n++
        if (inside && line ~ /;$/ && line !~ /^ / && n == 1) inside = 0
        if (inside && line ~ /^}/) { close(path); return n }
    }
    close(path)
    fault("no function " name "() in " path)
    return 0
}
