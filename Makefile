# The commands of every day; `make` lists them.
#
# The demo and the tests share the development build, whose busiest dependencies are optimised, so that
# a first `make demo` does not build everything twice. `make demo PROFILE=release` takes the other one.

PROFILE ?= dev
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/lastword

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-mysql sim mutants smoke bench bench-mirror bench-check bench-micro clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install what build, demo and tests need and this machine lacks
	scripts/setup.sh test

build: ## build the lastword binary (PROFILE=release: optimised)
	cargo build --locked --profile $(PROFILE)

demo: ## two sites, two MariaDB, one truth, on this terminal (KEEP=1 leaves it running)
	scripts/setup.sh demo
	cargo build --locked --profile $(PROFILE)
	$(BINARY) demo $(if $(filter-out 0,$(KEEP)),--keep)

test: setup ## everything CI runs: format, lints, tests, documentation, clients
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
	scripts/smoke.sh
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny check --hide-inclusion-graph licenses bans sources; \
	else \
		echo "cargo-deny is not installed: licences and sources were not checked"; \
	fi

SAKILA ?= data/sakila
test-mysql: ## two databases under plain SQL at both sites, the Sakila sample too (SAKILA=folder with its schema.sql and data.sql)
	scripts/setup.sh test-mysql
	@[ -f "$(SAKILA)/schema.sql" ] && [ -f "$(SAKILA)/data.sql" ] || \
		{ echo "no schema.sql and data.sql in $(SAKILA): make test-mysql SAKILA=folder" >&2; exit 1; }
	SAKILA="$(abspath $(SAKILA))" cargo test --locked --test tables -- --include-ignored --nocapture

sim: ## random histories of whole clusters against the oracle: new ones for five minutes, or SEEDS=0..5000
	$(if $(SEEDS),SEEDS=$(SEEDS)) cargo test --locked --release --test convergence many -- --ignored --exact --nocapture

mutants: ## wrong variants of the source: the oracle must find out each (ONLY=purge: those with purge in their name)
	scripts/mutants.py $(ONLY)

smoke: setup ## the Python and Node.js clients against two real nodes
	cargo build --locked
	scripts/smoke.sh

bench: ## lastword beside etcd, Redis and MariaDB in one run; writes docs/performance.md (QUICK=1: minutes, not an hour)
	scripts/setup.sh bench
	cargo build --locked --release
	cargo build --locked --release --package lastword-bench
	$(TARGET)/release/compare --lastword $(TARGET)/release/lastword $(if $(filter-out 0,$(QUICK)),--quick)

bench-mirror: ## the mirror's speed beside the fastest way into the same MariaDB; writes docs/performance-mirror.md (QUICK=1)
	scripts/setup.sh bench
	cargo build --locked --release
	cargo build --locked --release --package lastword-bench
	$(TARGET)/release/compare --lastword $(TARGET)/release/lastword --out docs/performance-mirror.md \
		--cases mirror,mirror-steady,mirror-columns,mirror-columns-steady,mirror-verify $(if $(filter-out 0,$(QUICK)),--quick)

bench-check: ## count the instructions of the hot paths, fail where they grew (UPDATE=1 accepts them)
	scripts/setup.sh bench-check
	cargo run --locked --release -p lastword-bench --bin hot_paths -- check $(if $(filter-out 0,$(UPDATE)),--update)

bench-micro: ## time the hot paths (ONLY=get: those with get in their name)
	cargo bench --locked -p lastword-bench --bench micro -- $(ONLY)

clean: ## remove what was built and installed inside the project
	cargo clean
	rm -rf .venv tests/clients/node/node_modules
