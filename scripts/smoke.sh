#!/usr/bin/env bash
# Runs the Python and the Node.js client against two real nodes that exchange with each other.
#
# Takes the nodes from target/debug/lastword (or LASTWORD_BINARY), on free loopback ports and with
# stores in a temporary folder; ends them and removes it again, however it comes out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=${LASTWORD_BINARY:-${CARGO_TARGET_DIR:-target}/debug/lastword}
# Settings of the caller's own nodes are not for these.
for name in "${!LASTWORD_@}"; do unset "$name"; done

readonly START_ATTEMPTS_MAX=3
readonly READY_TIMEOUT_S=30
readonly STOP_TIMEOUT_S=10
readonly POLL_S=0.05

[ -x "$binary" ] || { echo "smoke: $binary is missing; run: cargo build --locked" >&2; exit 1; }
[ -x .venv/bin/python ] && [ -d tests/clients/node/node_modules ] ||
    { echo "smoke: the clients' packages are missing; run: scripts/setup.sh test" >&2; exit 1; }

dir=$(mktemp -d)
pids=()

end_nodes() {
    local pid deadline=$((SECONDS + STOP_TIMEOUT_S))
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do sleep "$POLL_S"; done
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    pids=()
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    end_nodes
    if [ "$status" -ne 0 ]; then
        for log in "$dir"/*.log; do
            [ -s "$log" ] && { echo "smoke: the end of ${log##*/}:"; tail -n 30 "$log"; } >&2
        done
    fi
    rm -rf "$dir"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints so many ports that nothing listens on.
free_ports() {
    .venv/bin/python - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))
PYTHON
}

# start_node SITE GRPC_PORT HTTP_PORT PEER_PORT SEQUENCE_OFFSET
start_node() {
    "$binary" serve --site "$1" --data "$dir/$1" \
        --listen "127.0.0.1:$2" --http "127.0.0.1:$3" --peer "http://127.0.0.1:$4" \
        --sequence-offset "$5" --sequence-increment 2 >"$dir/$1.log" 2>&1 &
    pids+=($!)
}

# Whether GET /readyz on this port answers 200. In a shell of its own, for the connection to end
# with it, and for a SIGPIPE to end no more than it.
ready() (
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || exit 1
    printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r -t 2 answer <&3
    [[ $answer == HTTP/1.?' 200'* ]]
)

# wait_ready PID HTTP_PORT: fails when the node ended, or is not ready in time.
wait_ready() {
    local deadline=$((SECONDS + READY_TIMEOUT_S))
    while [ "$SECONDS" -lt "$deadline" ]; do
        kill -0 "$1" 2>/dev/null || return 1
        if ready "$2"; then return 0; fi
        sleep "$POLL_S"
    done
    return 1
}

# A port that was free a moment ago may be taken by now: then others are tried.
start_both() {
    local attempt
    for ((attempt = 1; attempt <= START_ATTEMPTS_MAX; attempt++)); do
        read -r fra_port fra_http nyc_port nyc_http <<<"$(free_ports 4)"
        start_node fra "$fra_port" "$fra_http" "$nyc_port" 1
        start_node nyc "$nyc_port" "$nyc_http" "$fra_port" 2
        if wait_ready "${pids[0]}" "$fra_http" && wait_ready "${pids[1]}" "$nyc_http"; then
            return 0
        fi
        end_nodes
        grep -qi 'address.*in use' "$dir"/*.log || break
    done
    echo "smoke: the nodes did not get ready" >&2
    return 1
}

start_both
fra=127.0.0.1:$fra_port nyc=127.0.0.1:$nyc_port
.venv/bin/python tests/clients/python/smoke.py "$fra" "$nyc" --sequence 1/2
node tests/clients/node/smoke.js "$nyc" "$fra" --sequence 2/2
