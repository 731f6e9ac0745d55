# shellcheck shell=bash
[ "$1" = start ] || return 0
stamp epilog
echo "site $(hostname) ready"
stamp epilog-end
