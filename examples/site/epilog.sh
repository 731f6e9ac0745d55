# Sourced after the network is up.
# shellcheck shell=bash
case $1 in
    start) echo "demo epilog: start, this is $(hostname)" ;;
    stop) echo "demo epilog: stop" ;;
esac
