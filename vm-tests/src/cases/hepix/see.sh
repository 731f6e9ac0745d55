# shellcheck shell=bash
# What a script sees of its world. It is sourced, to see the same, and without a PATH it works too.
printf 'argument <%s>\n' "$#" "$@"
printf 'directory <%s>\n' "$PWD"
printf 'beside it <%s>\n' * .[!.]*
printf 'descriptor <%s>\n' /proc/self/fd/?
[ ! /dev/stdin -ef /dev/null ] || echo 'standard input is empty'
# c is how a shell is told what to do, and not what a script does.
printf 'options <%s> <%s>\n' "${-//c/}" "$BASHOPTS"
umask
ulimit -a
trap -p
declare -F
# The variables, each on a line of its own.
declare -p
