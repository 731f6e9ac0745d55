# shellcheck shell=bash
# What the scripts share; sourced, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=$ROOT/target
SCRIPTS=$ROOT/scripts
ME=${0##*/}
MUSL=x86_64-unknown-linux-musl
GNU=x86_64-unknown-linux-gnu
# sbin holds depmod, mke2fs and rsyslogd, and is not in everybody's PATH on Debian.
PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin
export ROOT TARGET SCRIPTS MUSL GNU

say() { printf '%s: %s\n' "$ME" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# The comment at the head of a script is its manual.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# usage_error WORD: what was typed is not an option.
usage_error() {
    say "unknown option $1; '$ME --help' lists them"
    exit 2
}

# Which target the guest's programs are built for.
guest_target() {
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$MUSL" ]; then echo "$MUSL"; else echo "$GNU"; fi
}

# as_root COMMAND...: as root, or as root of a user namespace of our own.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else unshare --map-root-user --map-auto --mount -- "$@"; fi
}

# wait_for SECONDS PID COMMAND...: until COMMAND succeeds; fails when PID ends or the time is over.
wait_for() {
    local deadline=$((SECONDS + $1)) pid=$2
    shift 2
    until "$@"; do
        kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# start_token_server DIR: keeps its pools there; sets SERVER to its pid and PORT to its port on loopback.
start_token_server() {
    mkdir -p "$1"
    : >"$1/server.log"
    "$TARGET/ctxtool" token-server --dir "$1" --listen 127.0.0.1:0 >"$1/server.log" 2>&1 &
    SERVER=$!
    wait_for 10 "$SERVER" grep -q '^token server: ' "$1/server.log" ||
        die "the token server does not start: $(<"$1/server.log")"
    PORT=$(sed -n 's|^token server: http://[^/]*:\([0-9]*\)/.*|\1|p' "$1/server.log")
    # A proxy of the environment cannot reach our loopback.
    export no_proxy=127.0.0.1 PORT SERVER
}

# pool NAME [CURL ARGUMENT...]: a request about the tokens of a pool.
pool() {
    local name=$1
    shift
    curl -sSf -H 'Accept: application/json' "$@" "http://127.0.0.1:$PORT/4.1/pools/$name/tokens/"
}

# stop PID...: ends what we started, and waits for it.
stop() {
    local pid
    for pid in "$@"; do
        kill "$pid" 2>/dev/null || continue
        wait "$pid" 2>/dev/null || true
    done
}

# make_cd DIR FILE: a context CD of what is in DIR.
make_cd() {
    "$TARGET/ctxtool" cd build "$1" -o "$2" >&2 || die "ctxtool could not make a CD of $1"
}
