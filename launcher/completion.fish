# Completion of frontrunner for fish. Made by `frontrunner completion fish`.
@WORDS@

# Whether the words so far name exactly this command.
function __frontrunner_at
    set -l found
    for word in (commandline -opc)[2..]
        contains -- "$found $word" $__frontrunner_commands
        and set found "$found $word"
    end
    test (string trim -- "$found") = "$argv"
end

function __frontrunner_values
    switch $argv[1]
        case none
            return
        case folder
            __fish_complete_directories
        case file
            __fish_complete_path
        case key
            string match -q -- '*=*' (commandline -ct)
            or printf '%s\n' $__frontrunner_key
        case '*'
            set -l name __frontrunner_$argv[1]
            printf '%s\n' $$name
            test $argv[1] = preset
            or __fish_complete_suffix .yaml .yml .json
    end
    if contains -- $argv[1] run folder
        for name in runs/*/run.yaml
            string replace -r '/run.yaml$' '' -- $name
        end
    end
end

complete -c frontrunner -f
@COMMANDS@
