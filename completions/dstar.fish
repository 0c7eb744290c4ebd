# dstar.fish - completion for fish. Commands, options and their words are asked of the program
# itself (`dstar help`), so that this file knows nothing that could become wrong.

function __dstar_commands
    dstar help 2>/dev/null | string replace -rf '^  ([a-z]+)( [a-z]+)?  +(.*)' '$1\t$3'
end

# The words of the command on the line: one, or two such as "eval logits".
function __dstar_command
    set -l words (commandline -opc)
    if contains -- $words[2] (dstar help 2>/dev/null | string replace -rf '^  ([a-z]+) [a-z]+  .*' '$1')
        echo $words[2..3]
    else
        echo $words[2]
    end
end

function __dstar_second
    set -l words (commandline -opc)
    test (count $words) = 2; and dstar help 2>/dev/null |
        string replace -rf "^  $words[2] ([a-z]+)  +(.*)" '$1\t$2'
end

# For each option of the command: the option and what help says about it.
function __dstar_options
    dstar help (string split ' ' (__dstar_command)) 2>/dev/null |
        string replace -rf '^  (?:-., |    )(--[a-z0-9-]+)(?: [^ ]+)?(?:  +(.*))?$' '$1\t$2'
end

# The words of the option before the cursor, or nothing.
function __dstar_words
    set -l previous (commandline -opc)[-1]
    string match -q -- '-*' $previous; or return
    dstar help (string split ' ' (__dstar_command)) 2>/dev/null |
        string replace -rf -- "^  (?:-., |    )$previous ([a-z0-9]+(?:\|[a-z0-9]+)+)(?:  .*)?\$" '$1' |
        string split '|'
end

# Files, where nothing better is known.
function __dstar_files
    not __fish_use_subcommand; and test -z "$(__dstar_second)$(__dstar_words)"
    and not __fish_seen_subcommand_from help
end

complete -c dstar -f
complete -c dstar -n __fish_use_subcommand -a '(__dstar_commands)'
complete -c dstar -n '__fish_seen_subcommand_from help' -a '(__dstar_commands)'
complete -c dstar -n 'not __fish_use_subcommand' -a '(__dstar_second)'
complete -c dstar -n 'not __fish_use_subcommand' -a '(__dstar_words)'
complete -c dstar -n __dstar_files -F
complete -c dstar -n 'string match -q -- "-*" (commandline -ct)' -a '(__dstar_options)'
