#!/bin/bash
# prolog.sh - the first script of this site on the machine: no network interface is up yet, not even loopback.
#
# Called with `start` at boot, and with `stop` as the last thing before power-off. The machine sources it as root in
# bash (in sh if the image has no bash), with the copy of the CD as working directory: ./file is a file of this CD.
# The variables of context.sh, if that is on the CD, are set. Neither this file's mode nor its first line matters.
#
# If `start` fails, or takes longer than the image allows (5 minutes by default), the machine ends with code 500,
# and the last line that was printed is in its message. Everything printed goes to the console and to the log.
#
# Here belongs what must be there before the network: the time zone, certificates, configuration of the log daemon.
# Change files only where the image lets sites write; the report of each boot lists what was changed.

case $1 in
    start)
        echo "prolog: the machine belongs to this site now"
        # cp ./ca.pem /etc/grid-security/certificates/our-ca.pem || exit 1
        ;;
    stop)
        echo "prolog: the last words of this site"
        ;;
    *)
        exit 2
        ;;
esac
