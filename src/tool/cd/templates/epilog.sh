#!/bin/bash
# epilog.sh - the second script of this site: the network is up, and the log goes to the syslog server of
# context.json if that names one. Called with `start` before any work begins, and with `stop` at the end.
#
# It is run like prolog.sh. A daemon that it leaves behind keeps running until the end of the machine.
#
# Here belongs what needs the network: monitoring, the batch client, a software area.

case $1 in
    start)
        echo "epilog: the network is up"
        # ./start-monitoring || exit 1
        ;;
    stop)
        echo "epilog: the work is over"
        ;;
    *)
        exit 2
        ;;
esac
