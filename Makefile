# What there is to do: `make` alone lists it.
#
# One shape of command for tests, always: `cargo build --workspace`, then `cargo test --workspace`. With `-p PACKAGE` Cargo picks other
# features for the dependencies and builds a hundred of them again.

CARGO ?= cargo
PROGRAMS := -p ahoy -p ahoy-login -p ahoy-supernode -p ahoy-relay

.DEFAULT_GOAL := help
.PHONY: help run test test-full check fuzz bench bench-rival bench-voice fmt

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build everything and make a call through a whole network on this machine
	@scripts/install-packages run
	@echo "Building the four programs (about ten minutes the first time on two cores) …"
	@$(CARGO) build --release --locked $(PROGRAMS)
	@target/release/ahoy demo

test: ## all tests, each slow one at a small, seeded size; this is what CI runs
	@scripts/install-packages test
	@$(CARGO) build --workspace --locked
	@$(CARGO) test --workspace --locked

test-full: ## all tests at full size
	@scripts/install-packages test
	@$(CARGO) build --workspace --locked
	@AHOY_FULL=1 $(CARGO) test --workspace --locked

check: ## format, lints, documentation, licences, known vulnerabilities; a warning is an error
	@scripts/install-packages check
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --document-private-items --locked
	@scripts/check-dependencies

fuzz: ## every fuzz target for two minutes; AHOY_FUZZ_SECONDS=N for another time, AHOY_FUZZ_TARGET=NAME for one
	@scripts/install-packages build
	@AHOY_FUZZ_SECONDS=$${AHOY_FUZZ_SECONDS:-120} $(CARGO) test --workspace --locked --test mutations -- --nocapture

bench: ## the figures of docs/benchmarks.md, measured here; needs root for the emulated links
	@scripts/install-packages test
	@$(CARGO) build --release --locked $(PROGRAMS) -p ahoy-netlab
	@AHOY_BIN_DIR=$(CURDIR)/target/release $(CARGO) test --workspace --locked --test bench --test transport -- --ignored --nocapture --test-threads=1

bench-rival: ## how long iroh takes to open a connection over the same emulated links; builds it first, which takes a while
	@scripts/install-packages test
	@$(CARGO) build --release --locked --manifest-path tests/rivals/iroh/Cargo.toml
	@$(CARGO) build --release --locked -p ahoy-netlab
	@AHOY_BIN_DIR=$(CURDIR)/target/release AHOY_RIVAL=$(CURDIR)/tests/rivals/iroh/target/release/iroh-rival \
		$(CARGO) test --workspace --locked --test rival -- --ignored --nocapture --test-threads=1

bench-voice: ## how calls sound, beside rivals, over emulated links; needs root. QUICK=1 for five minutes, RIVALS=1 for the rivals' own programs, too
	@scripts/install-packages voice-bench
	@$(if $(RIVALS),scripts/install-packages voice-rivals)
	@scripts/voice-bench/setup
	@$(CARGO) build --release --locked $(PROGRAMS) -p ahoy-netlab -p ahoy-voice-bench
	@AHOY_BIN_DIR=$(CURDIR)/target/release target/release/ahoy-voice-bench $(if $(QUICK),--quick) $(if $(RIVALS),--rivals) $(BENCH_ARGS)

fmt: ## format everything
	@$(CARGO) fmt --all
