# shellcheck shell=bash
# Leaves a process behind that looks at the machine once its payload sleeps.
[ "$1" = start ] || return 0
(
    sleep 8
    total=0
    for process in /proc/[0-9]*; do
        # Forked roles bear init's name; the payload, this shell and the kernel's threads do not.
        [ "$(cat "$process/comm" 2>/dev/null)" = init ] || continue
        pss=$(sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "$process/smaps_rollup")
        uid=$(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' "$process/status")
        echo "memory: process ${process#/proc/} uid $uid: $pss kB PSS"
        total=$((total + pss))
    done
    echo "memory: all ctxinit processes: $total kB PSS (goal: at most 4096)"
) &
