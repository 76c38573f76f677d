# For the demos, which source it: a service of their own, with its own directories and cgroups, and nothing left behind.
# bash; `set -eu` is theirs.

here=$(mktemp -d /tmp/sysproc-demo-XXXXXX)
export SYSPROC_ENDPOINT="unix://$here/run/sysproc.sock"
if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then bold=$'\e[1m' title=$'\e[1;36m' plain=$'\e[0m'; else bold= title= plain=; fi
# What `time` prints.
TIMEFORMAT='(%R s)'
daemon=

# For who watches: $DEMO_PAUSE seconds.
pause() { [ -z "${DEMO_PAUSE-}" ] || sleep "$DEMO_PAUSE"; }

say() {
    pause
    printf '\n%s# %s%s\n' "$title" "$*" "$plain"
}

# Show a command line, then run it.
try() {
    printf '%s$ %s%s\n' "$bold" "$1" "$plain"
    eval "$1" || printf '(exit code %s)\n' $?
    pause
}

gone() { while kill -0 "$1" 2>/dev/null; do sleep 0.05; done; }

start_service() {
    sysprocd --state-dir "$here/state" --runtime-dir "$here/run" --listen "$SYSPROC_ENDPOINT" \
        --cgroup-root "sysproc-demo-$$" >>"$here/log" 2>&1 &
    daemon=$!
    disown  # its end is ours to look at, not bash's to announce
    for _ in $(seq 100); do
        if sysproc list >/dev/null 2>&1; then return; fi
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.1
    done
    echo "the service did not start:" >&2
    cat "$here/log" >&2
    exit 1
}

finish() {
    status=$?
    sysproc list -o json 2>/dev/null | grep -o '"id": *"[0-9a-f]*"' | cut -d'"' -f4 |
        xargs --no-run-if-empty sysproc destroy >/dev/null 2>&1 || true
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    [ -z "$daemon" ] || gone "$daemon"
    rm -rf "$here"
    exit $status
}
trap finish EXIT

[ "$(id -u)" = 0 ] || { echo "the demo makes real containers: please run it as root" >&2; exit 1; }
start_service
