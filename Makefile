# Everything a person or a CI machine runs. `make help` lists it.
#
# What is built and what is installed lies outside the clone, so that clones share it.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ferry
export CARGO_TARGET_DIR ?= $(CACHE)/target
# Tools that the targets below install for themselves; never into the user's own ~/.cargo/bin.
TOOLS := $(CACHE)/tools
export PATH := $(TOOLS)/bin:$(PATH)

NEXTEST_VERSION := 0.9.143
# `make test ARGS="--test cli resume"` runs only what matches.
ARGS ?=
# How often `make sweep` kills the runner.
SWEEP ?= 200

.DEFAULT_GOAL := help
.PHONY: help test lint fmt unit doc-tests demo demo-postgres sweep kills trials bench bench-objects bench-compare bench-postgres docs parts tools components

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: lint parts unit doc-tests ## install what is missing, then format, lints and every test

lint: components ## cargo fmt --check and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

fmt: components ## format the sources
	cargo fmt

unit: tools
	cargo nextest run --locked --no-fail-fast $(ARGS)

doc-tests:
	cargo test --doc --locked

demo: ## move a bucket between two S3 servers, with a kill -9 in the middle
	scripts/demo.sh

demo-postgres: ## move a PostgreSQL cluster between two hosts of the lab while clients write (needs root)
	scripts/install-parts.sh lab
	cargo build --release --locked
	FERRY_DEMO="$(abspath $(CARGO_TARGET_DIR))/release/ferry" cargo test --locked --quiet --test demo_postgres -- --nocapture

kills: tools ## kill -9 a sync with objects of 1 GiB at a hundred random moments, resume, compare; prints a table
	FERRY_KILLS=100 FERRY_SYNCS=50 FERRY_LARGE=1024 cargo nextest run --locked --no-capture --test object_killed

sweep: tools kills ## the long crash sweep: kill -9 at SWEEP random moments, resume or roll back, compare
	FERRY_KILLS=$(SWEEP) cargo nextest run --locked --no-capture --test sweep
	FERRY_SWEEP=1 cargo nextest run --locked --no-capture --test matrix
	FERRY_KILLS=40 cargo nextest run --locked --no-capture --test postgres_migration --test postgres_weather --test postgres_through_a_bucket killed
	FERRY_SWEEP=1 cargo nextest run --locked --no-capture --test postgres_kills --test postgres_logical_migration
	FERRY_SWEEP=1 FERRY_KILLS=40 cargo nextest run --locked --no-capture --test criu --test container killed

trials: tools ## PostgreSQL there and back ten times, near and far, and a process in every mode; prints the pauses
	FERRY_TRIALS=10 cargo nextest run --locked --no-capture --test postgres_trials
	FERRY_TRIALS=3 cargo nextest run --locked --no-capture --test criu gap

bench: ## the frame's figures in docs/performance.md
	cargo bench --locked --bench frame

bench-objects: ## object sync against its peers, for docs/performance.md; ARGS="--job small --rounds 5"
	scripts/install-parts.sh rclone s3sync s5cmd boto3
	cargo bench --locked --bench objects -- $(ARGS)

bench-compare: ## two PostgreSQL servers compared, against an ordered md5(string_agg(…)); ARGS="--scale 50"
	cargo bench --locked --bench compare -- $(ARGS)

bench-postgres: ## copies, backups and the log against pg_basebackup and pgBackRest (needs root); ARGS="--job log --rounds 5"
	scripts/install-parts.sh lab pgbackrest
	cargo bench --locked --bench postgres -- $(ARGS)

docs: ## rewrite what is generated under docs/ and pipelines/
	UPDATE_DOCS=1 cargo test --locked --quiet --test cli --test problems
	@git status --short docs pipelines

parts: ## install the servers that tests talk to
	scripts/install-parts.sh

components:
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy

tools:
	@cargo nextest --version >/dev/null 2>&1 || { \
	  echo "installing cargo-nextest $(NEXTEST_VERSION) into $(TOOLS) (once, some minutes)"; \
	  CARGO_TARGET_DIR=$(CACHE)/tools-target cargo install cargo-nextest --version $(NEXTEST_VERSION) --locked --debug --root $(TOOLS); \
	}
