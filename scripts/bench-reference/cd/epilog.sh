# shellcheck shell=bash
[ "$1" = start ] || return 0
echo "site $(hostname) ready"
