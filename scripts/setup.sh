#!/usr/bin/env bash
# Installs what a machine with git, Rust and apt lacks to build, show and test lastword.
#
#   scripts/setup.sh demo   a linker and MariaDB
#   scripts/setup.sh bench  that, etcd and Redis: installed, but no service is started
#   scripts/setup.sh bench-check   a linker and valgrind
#   scripts/setup.sh test-mysql    a linker, MariaDB, and pt-table-sync as a second judge
#   scripts/setup.sh test   (default) a linker, MariaDB, rustfmt and clippy, and the packages of the
#                           Python and Node.js clients, in .venv and tests/clients/node/node_modules
#
# What is there is left alone, so a second run takes a moment. Without root or apt it says what to
# install and exits 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where Debian keeps mariadbd is not on everybody's PATH.
PATH="$PATH:/usr/sbin:/usr/local/sbin"

readonly PYTHON_CLIENT=tests/clients/python
readonly NODE_CLIENT=tests/clients/node
# Each is a copy of the list of packages that was installed there.
readonly PYTHON_STAMP=.venv/requirements.stamp
readonly NODE_STAMP=$NODE_CLIENT/node_modules/.package-lock.stamp
readonly APT_LOCK_WAIT_S=300

# Debian asks this program before it starts the service of a package that it installs.
readonly POLICY=/usr/sbin/policy-rc.d

log=""
policy_is_ours=""
clean_up() {
    [ -z "$log" ] || rm -f "$log"
    [ -z "$policy_is_ours" ] || rm -f "$POLICY"
}
trap clean_up EXIT

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
has() { local name; for name; do command -v "$name" >/dev/null 2>&1 || return 1; done; }

# Runs a command silently; shows what it said only when it fails.
quietly() {
    [ -n "$log" ] || log=$(mktemp)
    "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; return 1; }
}

# What is missing: names for people, and the Debian packages that bring it.
missing=()
packages=()
forget_missing() {
    missing=()
    packages=()
}
need() {
    missing+=("$1")
    packages+=("${@:2}")
}

look_for_linker() {
    has cc || need "a C linker (cc)" gcc libc6-dev
}

look_for_mariadb() {
    has mariadbd mariadb-install-db mariadb ||
        need "MariaDB (mariadbd, mariadb-install-db, mariadb)" mariadb-server mariadb-client
}

look_for_valgrind() {
    has valgrind || need valgrind valgrind
}

look_for_table_sync() {
    has pt-table-sync || need "pt-table-sync" percona-toolkit
}

look_for_etcd() {
    has etcd || need etcd etcd-server
}

look_for_redis() {
    has redis-server redis-benchmark || need "Redis (redis-server, redis-benchmark)" redis-server redis-tools
}

python_ready() {
    [ -x .venv/bin/python ] && cmp -s "$PYTHON_CLIENT/requirements.txt" "$PYTHON_STAMP"
}

look_for_python() {
    python_ready && return
    python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        need "Python 3.10 or later with venv" python3 python3-venv
}

node_ready() {
    has node && cmp -s "$NODE_CLIENT/package-lock.json" "$NODE_STAMP"
}

look_for_node() {
    node_ready && return
    if ! node -e 'process.exit(parseInt(process.versions.node) < 16 ? 1 : 0)' 2>/dev/null; then
        need "Node.js 16 or later with npm" nodejs npm
    elif ! has npm; then
        need npm npm
    fi
}

# The servers alone, where the distribution packs them so: no service is set up or started.
prefer_bare_servers() {
    local i
    for i in "${!packages[@]}"; do
        case ${packages[i]} in mariadb-server | mariadb-client)
            if apt-cache show "${packages[i]}-core" >/dev/null 2>&1; then
                packages[i]+=-core
            fi ;;
        esac
    done
}

# Whoever has such a policy already has one for a reason: it stays.
start_no_services() {
    [ ! -e "$POLICY" ] || return 0
    policy_is_ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod +x "$POLICY"
}

apt_install() {
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o "DPkg::Lock::Timeout=$APT_LOCK_WAIT_S" "$@"
}

names_missing() {
    local names
    names=$(printf '%s, ' "${missing[@]}")
    echo "${names%, }"
}

install_packages() {
    [ ${#packages[@]} -gt 0 ] || return 0
    local names
    names=$(names_missing)
    prefer_bare_servers
    has apt-get || fail "missing: $names; install this and run again"
    [ "$(id -u)" -eq 0 ] || fail "missing: $names; install it and run again:" \
        "sudo apt-get install -y --no-install-recommends ${packages[*]}"
    # The lists of packages may be absent or old. What cannot be had even with new ones is an error.
    if ! apt-cache show "${packages[@]}" >/dev/null 2>&1; then
        say "fetching the lists of packages"
        quietly apt-get update || fail "apt-get update failed; see above"
        prefer_bare_servers
    fi
    say "installing ${packages[*]}"
    start_no_services
    apt_install "${packages[@]}" 2>/dev/null && return
    quietly apt-get update || fail "apt-get update failed; see above"
    apt_install "${packages[@]}" || fail "apt-get could not install ${packages[*]}; see above"
}

check_rust() {
    has cargo || fail "missing: Rust; install the toolchain of rust-version in Cargo.toml or later"
}

check_rust_components() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    has rustup || fail "missing: rustfmt or clippy; install the ones of your Rust toolchain"
    say "adding rustfmt and clippy"
    quietly rustup component add rustfmt clippy || fail "rustup could not add them; see above"
}

install_python_client() {
    python_ready && return
    say "installing the Python client's packages into .venv"
    quietly python3 -m venv --clear .venv || fail "python3 -m venv failed; see above"
    # Wheels only: without one, building grpcio takes a C++ compiler and an age.
    quietly .venv/bin/python -m pip install --disable-pip-version-check --only-binary :all: \
        -r "$PYTHON_CLIENT/requirements.txt" || fail "pip failed; see above"
    cp "$PYTHON_CLIENT/requirements.txt" "$PYTHON_STAMP"
}

install_node_client() {
    node_ready && return
    say "installing the Node.js client's packages into $NODE_CLIENT/node_modules"
    quietly npm ci --prefix "$NODE_CLIENT" --ignore-scripts --no-audit --no-fund ||
        fail "npm ci failed; see above"
    cp "$NODE_CLIENT/package-lock.json" "$NODE_STAMP"
}

# Installs what these checks find missing, and sees to it that they then find nothing.
provide() {
    local check
    for check; do "$check"; done
    install_packages
    forget_missing
    for check; do "$check"; done
    [ ${#missing[@]} -eq 0 ] ||
        fail "still missing: $(names_missing); the packages of this system do not bring it"
}

case ${1:-test} in
demo)
    check_rust
    provide look_for_linker look_for_mariadb
    ;;
bench)
    check_rust
    provide look_for_linker look_for_mariadb look_for_etcd look_for_redis
    ;;
test)
    check_rust
    provide look_for_linker look_for_mariadb look_for_python look_for_node
    check_rust_components
    install_python_client
    install_node_client
    ;;
bench-check)
    check_rust
    provide look_for_linker look_for_valgrind
    ;;
test-mysql)
    check_rust
    provide look_for_linker look_for_mariadb look_for_table_sync
    ;;
*)
    echo "usage: scripts/setup.sh [demo | bench | bench-check | test | test-mysql]" >&2
    exit 2
    ;;
esac
