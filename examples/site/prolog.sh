# Sourced before the network is up; `$1` is start, and stop at the end of the machine.
# shellcheck shell=bash
case $1 in
    start) echo "demo prolog: start, no interface is up: $(grep -c up /sys/class/net/e*/operstate)" ;;
    stop) echo "demo prolog: stop" ;;
esac
