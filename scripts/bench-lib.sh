# shellcheck shell=bash
# What the measurements against the reference share; sourced after lib.sh, not run. WORK is where everything is kept.

REFERENCE=$SCRIPTS/bench-reference

# prepare: programs, the image with the stop watch, an initramfs of ctxinit and one of the reference, a token server.
prepare() {
    "$SCRIPTS/setup"
    "$SCRIPTS/build"
    rm -rf "$WORK" && mkdir -p "$WORK/cd"
    "$SCRIPTS/image" --policy "$REFERENCE/image.json" --add "$TARGET/stamp:/usr/bin/stamp" --out "$WORK/root.ext4"
    "$SCRIPTS/initramfs" -o "$WORK/ctxinit.cpio"
    "$SCRIPTS/initramfs" --init "$REFERENCE/init" --add "$REFERENCE/udhcpc:/udhcpc" \
        --add "$(command -v busybox):/bin/busybox" -o "$WORK/reference.cpio"
    trap 'stop "${SERVER:-}"' EXIT
    start_token_server "$WORK/pools"
    cp "$REFERENCE/cd/"* "$WORK/cd/"
    jq -n --arg url "http://10.0.2.2:$PORT/4.1" '{limits: {idle_secs: 1},
        work: {topos: {url: $url, pool: "bench", results: "bench-results"}}}' >"$WORK/cd/context.json"
    make_cd "$WORK/cd" "$WORK/cd.iso"
    IMAGE_HASH=$(sha256sum <"$WORK/root.ext4")
}

# boot NAME RUN [VM OPTION...]: the console's log then holds the line of every stamp.
boot() {
    local name=$1 run=$2 log=$WORK/$1-$2.log result
    shift 2
    pool bench -X DELETE >/dev/null
    pool bench-results -X DELETE >/dev/null
    pool bench -H 'Content-Type: text/plain' --data-binary "seed=$run count=1" >/dev/null
    "$SCRIPTS/vm" --cd "$WORK/cd.iso" --image "$WORK/root.ext4" --initrd "$WORK/$name.cpio" --console "$log" \
        --append "BENCH_POOL=http://10.0.2.2:$PORT/4.1/pools/bench" "$@" >"$WORK/$name-$run.json" 2>/dev/null || true
    # ctxinit stores the payload's line as the token's result; the reference writes it to the console.
    result=$(pool bench-results | jq -r '.[]?.Name')
    [ -z "$result" ] || curl -sSf "http://127.0.0.1:$PORT/4.1/pools/bench-results/tokens/$result" >>"$log"
    grep -q 'stamp payload ' "$log" || die "$name did not come as far as its payload; console log: $log"
}

# value LOG STAMP KEY
value() { grep -o "stamp $2 ns=.*" "$1" | sed -n "1s/.* $3=\([0-9]*\).*/\1/p"; }

# measure RUNS FIGURES [VM OPTION...]: both in turn; FIGURES LOG prints a line `what;number` a figure.
measure() {
    local runs=$1 figures=$2 run name
    shift 2
    : >"$WORK/figures"
    for ((run = 1; run <= runs; run++)); do
        for name in ctxinit reference; do
            say "run $run of $runs: $name"
            boot "$name" "$run" "$@"
            "$figures" "$WORK/$name-$run.log" | sed "s/^/$name;/" >>"$WORK/figures"
        done
    done
}

# median NAME WHAT
median() {
    local numbers
    mapfile -t numbers < <(grep "^$1;$2;" "$WORK/figures" | cut -d ';' -f 3 | sort -n)
    echo "${numbers[$(((${#numbers[@]} - 1) / 2))]}"
}

row() { printf '%-46s %10s %10s %7s\n' "$@"; }

# table TITLE: medians of both, and their ratio.
table() {
    row "$1" ctxinit reference ratio
    cut -d ';' -f 2 "$WORK/figures" | awk '!seen[$0]++' | while read -r what; do
        ours=$(median ctxinit "$what") theirs=$(median reference "$what")
        row "$what" "$ours" "$theirs" "$(jq -nr "if $theirs == 0 then \"-\" else $ours / $theirs * 100 | round / 100 end")"
    done
}

# changed: how many files of the image are not as before. Read-only for QEMU, its hash says it of all of them.
changed() { [ "$IMAGE_HASH" = "$(sha256sum <"$WORK/root.ext4")" ] && echo 0 || echo some; }
