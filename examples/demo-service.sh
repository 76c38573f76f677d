# For the demos, which source it: a service of their own, with its own directories and cgroups, and nothing left behind.
# bash; `set -eu` is theirs.

here=$(mktemp -d /tmp/sysproc-demo-XXXXXX)
export SYSPROC_ENDPOINT="unix://$here/run/sysproc.sock"
bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
daemon=

say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

# The words as one would type them.
shown() {
    for word; do
        if [[ $word =~ [^[:alnum:]./_:=%-] ]]; then printf " '%s'" "$word"; else printf ' %s' "$word"; fi
    done
}

# Show a command, then run it.
try() {
    printf '%s$%s%s\n' "$bold" "$(shown "$@")" "$plain"
    "$@" || printf '(exit code %s)\n' $?
}

start_service() {
    sysprocd --state-dir "$here/state" --runtime-dir "$here/run" --listen "$SYSPROC_ENDPOINT" \
        --cgroup-root "sysproc-demo-$$" >>"$here/log" 2>&1 &
    daemon=$!
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
    wait 2>/dev/null || true
    rm -rf "$here"
    exit $status
}
trap finish EXIT

[ "$(id -u)" = 0 ] || { echo "the demo makes real containers: please run it as root" >&2; exit 1; }
start_service
