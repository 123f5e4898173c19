# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_svirt_exec_global_optspecs
    string join \n V/version config= name= mcs-range= level= label= share-level no-relabel no-restore label-tree= accept-chain= private-content runtime-dir preflight= strict allow-unconfined v/verbose h/help
end

function __fish_svirt_exec_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_svirt_exec_global_optspecs) -- $cmd 2>/dev/null
    or return 0
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_svirt_exec_using_subcommand
    set -l cmd (__fish_svirt_exec_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l config -d 'Read the rest of this line from FILE: options, QEMU and its arguments, quoted as in a shell' -r -F
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l name -d 'Call the guest NAME in messages (default: what -name says)' -r
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l mcs-range -d 'Draw the pair from these categories only, e.g. c512.c1023' -r
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l level -d 'Use this level instead of drawing one, e.g. s0:c1,c2' -r
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l label -d 'Run the guest as exactly this, e.g. system_u:system_r:svirt_t:s0:c1,c2' -r
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l label-tree -d 'Hand a directory over to the guest, with all that is in it' -r -f -a "(__fish_complete_directories)"
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l accept-chain -d 'Accept what the header of DISK names now, and remember it' -r -F
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l preflight -d 'What to do when the policy will refuse QEMU something (default: refuse)' -r -f -a "refuse\t'Say it and do not launch'
warn\t'Say it and launch'
off\t'Do not ask'"
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -s V -l version -d 'Print the version'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l share-level -d 'Run at the chosen level although a process has overlapping MCS categories'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l no-relabel -d 'Label nothing: the guest gets a pair, and files keep the labels they have'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l no-restore -d 'Leave the labels as they are when the guest has ended'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l private-content -d 'Let no other guest read what only this one reads'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l runtime-dir -d 'Make a directory of the guest\'s own: /run/svirt-exec/NAME'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l strict -d 'Refuse options and keys of QEMU that svirt-exec does not know'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -l allow-unconfined -d 'Run QEMU unconfined if the host has no SELinux'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -s v -l verbose -d 'Tell every step'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "plan" -d 'Print what a launch would do, changing nothing'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "attach" -d 'Label further files or devices for a guest that runs (hot-plug)'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "detach" -d 'Put back the labels of files or devices of a guest that runs (hot-unplug)'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "restore" -d 'Put back the labels of guests that have ended without it'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "list" -d 'List the confined guests of this host, whoever started them'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "verify" -d 'Prove that each guest is confined, with categories of its own'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "denials" -d 'Say what SELinux refused guests, why, and what to do'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "doctor" -d 'Check whether this host can confine QEMU, and say what to do if not'
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l config -d 'Read the rest of this line from FILE: options, QEMU and its arguments, quoted as in a shell' -r -F
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l name -d 'Call the guest NAME in messages (default: what -name says)' -r
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l mcs-range -d 'Draw the pair from these categories only, e.g. c512.c1023' -r
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l level -d 'Use this level instead of drawing one, e.g. s0:c1,c2' -r
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l label -d 'Run the guest as exactly this, e.g. system_u:system_r:svirt_t:s0:c1,c2' -r
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l label-tree -d 'Hand a directory over to the guest, with all that is in it' -r -f -a "(__fish_complete_directories)"
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l accept-chain -d 'Accept what the header of DISK names now, and remember it' -r -F
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l preflight -d 'What to do when the policy will refuse QEMU something (default: refuse)' -r -f -a "refuse\t'Say it and do not launch'
warn\t'Say it and launch'
off\t'Do not ask'"
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l json -d 'As JSON, for programs'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l share-level -d 'Run at the chosen level although a process has overlapping MCS categories'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l no-relabel -d 'Label nothing: the guest gets a pair, and files keep the labels they have'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l no-restore -d 'Leave the labels as they are when the guest has ended'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l private-content -d 'Let no other guest read what only this one reads'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l runtime-dir -d 'Make a directory of the guest\'s own: /run/svirt-exec/NAME'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l strict -d 'Refuse options and keys of QEMU that svirt-exec does not know'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -l allow-unconfined -d 'Run QEMU unconfined if the host has no SELinux'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -s v -l verbose -d 'Tell every step'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand attach" -l read-only -d 'The guest only reads it: every guest may'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand attach" -l shared -d 'Every guest may write it, as with share-rw=on'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand attach" -l json -d 'Say what was done as JSON, for programs'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand attach" -l pid -d 'GUEST is the process ID of any guest, also of one that svirt-exec did not start'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand detach" -l json -d 'Say what was done as JSON, for programs'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand detach" -l pid -d 'GUEST is the process ID of any guest, also of one that svirt-exec did not start'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand detach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand restore" -l trust-user -d 'With --all: believe what guests of USER left about files of anybody' -r
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand restore" -l all -d 'As root: what the guests of all users left, too'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand restore" -s q -l quiet -d 'Say nothing of a guest or file that nothing is left of'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand list" -l json -d 'As JSON, for programs'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand verify" -l json -d 'As JSON, for programs'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand denials" -l since -d 'Only of this long ago and later, e.g. 10m, 2h, 3d' -r
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand denials" -l log -d 'Read this log, or - for standard input, e.g. from ausearch -m avc --raw' -r -F
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand denials" -l json -d 'As JSON, for programs'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand denials" -s h -l help -d 'Print help'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand doctor" -l json -d 'As JSON, for programs'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "plan" -d 'Print what a launch would do, changing nothing'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "attach" -d 'Label further files or devices for a guest that runs (hot-plug)'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "detach" -d 'Put back the labels of files or devices of a guest that runs (hot-unplug)'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "restore" -d 'Put back the labels of guests that have ended without it'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "list" -d 'List the confined guests of this host, whoever started them'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "verify" -d 'Prove that each guest is confined, with categories of its own'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "denials" -d 'Say what SELinux refused guests, why, and what to do'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "doctor" -d 'Check whether this host can confine QEMU, and say what to do if not'
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand help; and not __fish_seen_subcommand_from plan attach detach restore list verify denials doctor help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'

# QEMU, which stands where a command may; its arguments are files, for all that is known here.
function __fish_svirt_exec_qemu
    complete --do-complete qemu- | string match --regex '^qemu-(?:kvm\b|system-).*'
end
complete -c svirt-exec -n "__fish_svirt_exec_needs_command" -a "(__fish_svirt_exec_qemu)"
complete -c svirt-exec -n "__fish_svirt_exec_using_subcommand plan" -a "(__fish_svirt_exec_qemu)"
