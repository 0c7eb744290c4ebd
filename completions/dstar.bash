# dstar.bash - completion for bash. Commands, options and their words are asked of the program
# itself (`dstar help`), so that this file knows nothing that could become wrong.

# One line "option -x WORDS" for each option of a command; the letter and the words may be "-".
_dstar_options() {
    "$1" help $2 2>/dev/null |
        sed -nE 's/^  (-(.), |    )--([a-z0-9-]+)( ([^ ]+))?(  .*)?$/--\3 -\2 \5 -/p'
}

_dstar() {
    local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local commands command='' word option letter arg
    COMPREPLY=()
    commands=$("$program" help 2>/dev/null | sed -nE 's/^  ([a-z]+( [a-z]+)?)  .*/\1/p')
    if [ "$COMP_CWORD" -ge 2 ]; then
        command=${COMP_WORDS[1]}
        # A command of two words, such as "eval logits".
        if [ "$COMP_CWORD" -ge 3 ] && grep -qx "$command ${COMP_WORDS[2]}" <<<"$commands"; then
            command="$command ${COMP_WORDS[2]}"
        elif [ "$COMP_CWORD" = 2 ] && [[ $cur != -* ]] && grep -q "^$command " <<<"$commands"; then
            COMPREPLY=($(compgen -W "$(sed -n "s/^$command //p" <<<"$commands")" -- "$cur"))
            return
        fi
    fi
    if [ "$COMP_CWORD" = 1 ] || [ "$command" = help ]; then
        COMPREPLY=($(compgen -W "$(cut -d' ' -f1 <<<"$commands" | sort -u) --version" -- "$cur"))
        return
    fi
    while read -r option letter arg _; do
        if [ "$prev" = "$option" ] || { [ "$letter" != - ] && [ "$prev" = "$letter" ]; }; then
            case $arg in
                *\|*) COMPREPLY=($(compgen -W "${arg//|/ }" -- "$cur")) ;;
                FILE* | DIR* | FOLDER* | MODEL*) COMPREPLY=($(compgen -f -- "$cur")) ;;
                -) break ;;
            esac
            return
        fi
    done < <(_dstar_options "$program" "$command")
    case $cur in
        -*) word=$(_dstar_options "$program" "$command" | cut -d' ' -f1)
            COMPREPLY=($(compgen -W "$word" -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
    esac
}

complete -o filenames -F _dstar dstar
