#!/bin/bash
# What a guest of the HEPiX working group does with the copy of a context CD, from the description of its protocol:
# in a subshell, inside the copy, init.sh, context.sh and the script are sourced, and only the script gets an argument.
# A CD is one by its prolog.sh or context.sh; what is not on it is passed over.
#
# usage: model.sh prolog|epilog start|stop
# shellcheck disable=SC1090,SC1091

CONTEXT_DIR=/var/lib/hepix/context PHASE=$1 ACTION=$2
[ -f $CONTEXT_DIR/prolog.sh ] || [ -f $CONTEXT_DIR/context.sh ] || exec echo 'no context CD'
[ -f "$CONTEXT_DIR/$PHASE.sh" ] || exec echo 'not there'
set --
(
    cd $CONTEXT_DIR || exit
    [ ! -f $CONTEXT_DIR/init.sh ] || . $CONTEXT_DIR/init.sh
    [ ! -f $CONTEXT_DIR/context.sh ] || . $CONTEXT_DIR/context.sh
    . "$CONTEXT_DIR/$PHASE.sh" "$ACTION"
)
