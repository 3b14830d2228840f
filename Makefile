# Every habit of the house. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test lint advisories fmt bench-rate clean

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := .tools/bin/cargo-deny

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

run: ## Run the whole service at http://127.0.0.1:3000, on an embedded DynamoDB, with a demo org
	cargo run --locked --features cli --bin loyaltyctl -- serve --demo

test: ## Run all tests
	@command -v curl >/dev/null || { echo "installing curl, which pastes the printed requests"; apt-get update -qq && apt-get install -y -qq curl; }
	cargo test --locked --all-features

lint: $(CARGO_DENY) ## Check formatting, clippy, dependencies and documentation
	cargo fmt --check
	cargo clippy --locked --all-features --all-targets -- --deny warnings
	cargo clippy --locked --bin loyalty-codes -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --all-features --no-deps
	$(CARGO_DENY) --locked --all-features check bans licenses sources

advisories: $(CARGO_DENY) ## Check dependencies against the RustSec database, which it fetches from GitHub
	$(CARGO_DENY) --locked --all-features check advisories

fmt: ## Format the code
	cargo fmt

bench-rate: ## Measure the card-number route against the embedded DynamoDB alone (needs wrk)
	benches/card_number_rate.sh

clean: ## Remove what was built and installed here, and the demo's data
	cargo clean
	rm -rf .local .tools

$(CARGO_DENY):
	cargo install --locked --quiet --root .tools --version $(CARGO_DENY_VERSION) cargo-deny
