# Commands to build, test, measure and deploy. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test build-tests test-console screenshots test-interleavings test-scale test-load test-schema test-clients test-engine test-ministack \
  test-emulator test-panics test-memory test-cargo-lambda test-local test-deploy test-webhook fuzz check-fuzz \
  openapi cost-table lint build validate sam-build local invoke deploy advisories sbom sbom-files dist test-dist fmt bench \
  bench-functions bench-instructions bench-instructions-record bench-rate bench-blocks soak clean

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := .tools/bin/cargo-deny
CARGO_AUDIT_VERSION := 0.22.2
CARGO_AUDIT := .tools/bin/cargo-audit
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_CYCLONEDX := .tools/bin/cargo-cyclonedx
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := .tools/bin/cargo-fuzz
SCHEMATHESIS := .tools/schemathesis/bin/schemathesis
MINISTACK := .tools/ministack/bin/ministack

# cargo-lambda and the SAM CLI, from PyPI.
VENV := .venv
TOOLS := SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=$${AWS_DEFAULT_REGION:-us-east-1} PATH="$$PWD/$(VENV)/bin:$$PATH"
ARCH := arm64
HOST_ARCH := $(subst aarch64,arm64,$(shell uname -m))

# Installs the Debian package $(2), or else $(1), unless the program $(1) exists.
INSTALL = command -v $(1) >/dev/null || { apt-get update -qq && apt-get install -y -qq $(or $(2),$(1)); }

help: ## List all commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-26s %s\n", $$1, $$2}'

run: ## Run the service at http://127.0.0.1:3000 with a demo org (ARGS='--listen 127.0.0.1:3001')
	cargo run --locked --features cli --bin loyaltyctl -- serve --demo $(ARGS)

test: ## Run all tests
	@$(call INSTALL,curl)
	cargo test --locked --all-features

# The tests that `make test` does not run, and that --all-targets leaves out.
SEPARATE_TESTS := cargo_lambda emulator interleavings load memory panics

# In one call, so that cargo compiles them side by side.
build-tests: ## Build the tests of `make test` and those that it does not run
	cargo test --locked --all-features --no-run --tests $(addprefix --test ,$(SEPARATE_TESTS))

# Optimized, the tests that make a million calls to the embedded engine take a fifth of the time.
OPTIMIZED := CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_INCREMENTAL=0

test-interleavings: export ORDERS := 1000
test-interleavings: ## Run concurrent requests in up to 1000 orders of their DynamoDB calls (ORDERS=150; RACES='generate | validate')
	$(OPTIMIZED) cargo test --locked --all-features --test interleavings -- --nocapture

test-scale: ## Count what support and erasure cost in a table with 100,000 customers (CUSTOMERS=…)
	CUSTOMERS="$${CUSTOMERS:-100000}" $(OPTIMIZED) cargo test --locked --all-features --test api -- support_costs

test-load: ## Load-test eight processes of the build of `make sam-build ARCH=x86_64` (FUNCTION=… for another)
	FUNCTION="$${FUNCTION:-$$PWD/.aws-sam/build/Function/bootstrap}" \
	  $(OPTIMIZED) cargo test --locked --all-features --test load -- --nocapture

test-schema: $(SCHEMATHESIS) ## Test the running service with schemathesis and openapi.json (SEED=… repeats a run, EXAMPLES=200)
	cargo build --locked --features cli --bin loyaltyctl
	tests/schemathesis.sh

test-clients: ## Run the clients of docs/clients/ against the running service
	@$(call INSTALL,curl)
	@$(call INSTALL,jq)
	@$(call INSTALL,node,nodejs)
	@$(call INSTALL,php,php-cli)
	cargo build --locked --features cli --bin loyaltyctl
	tests/clients.sh

test-engine: ## Run the tests of the store on another DynamoDB that accepts any credentials (ENDPOINT=http://…)
	@test -n "$(ENDPOINT)" || { echo "which one? ENDPOINT=http://127.0.0.1:8000"; exit 2; }
	AWS_REGION=us-east-1 DYNAMODB_ENDPOINT=$(ENDPOINT) \
	  cargo test --locked --all-features --test api --test lambda_runtime --test loyaltyctl --test template

test-ministack: $(MINISTACK) ## Run the tests of the store on ministack
	tests/ministack.sh

# CI only checks that the fuzz targets compile, and tests/input.rs replays their corpora. The build
# takes five minutes, so CI fuzzes on demand only: `FUZZ_SECONDS=60 .ci/run`. The targets find
# panics and 5xx. They need no sanitizer, and use a nightly's flags on a stable toolchain. New
# inputs are stored below fuzz/target/, failing ones in fuzz/artifacts/.
FUZZ := RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ)
fuzz: SECONDS := 60
fuzz: $(CARGO_FUZZ) ## Run each fuzz target (SECONDS=60 for each; needs a C++ compiler)
	$(FUZZ) build --sanitizer none
	for target in $$($(FUZZ) list); do \
	  mkdir -p fuzz/target/corpus/$$target; \
	  $(FUZZ) run --sanitizer none $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(SECONDS) -timeout=10; \
	done

check-fuzz: ## Check that the fuzz targets compile
	@$(call INSTALL,g++)
	cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir fuzz/target

openapi: ## Write openapi.json from the code
	cargo run --locked --quiet --features cli --bin loyaltyctl -- openapi > target/openapi.json
	mv target/openapi.json openapi.json

cost-table: ## Write the README's cost table from the counts in tests/api/costs.rs
	UPDATE_README=1 cargo test --locked --all-features --test api -- costs::the_readme

lint: export LC_ALL := C.UTF-8
lint: $(CARGO_DENY) ## Check formatting, clippy, dependencies, documentation and the lengths of lines
	cargo fmt --check
	cargo clippy --locked --all-features --all-targets -- --deny warnings
	cargo clippy --locked --all-features $(addprefix --test ,$(SEPARATE_TESTS)) -- --deny warnings
	cargo clippy --locked --bin loyalty-codes -- --deny warnings
	cargo clippy --locked --features deliver --bin deliver -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --all-features --no-deps
	$(CARGO_DENY) --locked --all-features check bans licenses sources
	@! grep -rnE '^.{101,}$$' --include='*.rs' --exclude-dir=target src tests benches fuzz | grep -E '^[^:]+:[0-9]+: *//' | \
	  grep -v 'https://' || { echo 'these comments have more than 100 columns'; exit 1; }
	@! awk 'FNR == 1 { code = 0 } /^ *```/ { code = !code } !code && !/^\|/ { print FILENAME ":" FNR ":" $$0 }' \
	  *.md docs/*.md benches/*.md | grep -E '^[^:]+:[0-9]+:.{121,}$$' | grep -v 'https://' || \
	  { echo 'these lines of documents have more than 120 columns'; exit 1; }

build: $(VENV) ## Build both functions for Lambda with cargo-lambda (ARCH=arm64 or x86_64)
	for bin in loyalty-codes deliver; do \
	  $(TOOLS) cargo lambda build --locked --release --bin $$bin --$(subst _,-,$(ARCH)); \
	done

validate: $(VENV) ## Check the template with SAM and cfn-lint, warnings included, and the roles after SAM's transformation
	$(TOOLS) sam validate --lint
	$(TOOLS) cfn-lint --include-checks W -- template.yaml
	$(VENV)/bin/python -B tests/roles.py

sam-build: $(VENV) ## Build the deployment with SAM (ARCH=arm64 or x86_64)
	$(TOOLS) sam build --parameter-overrides Architecture=$(ARCH)

test-emulator: $(VENV) ## Send every event to the functions of `make sam-build ARCH=x86_64` in AWS's emulator
	AWS_LAMBDA_RIE="$$(ls $$PWD/$(VENV)/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64)" \
	FUNCTION="$$PWD/.aws-sam/build/Function/bootstrap" \
	DELIVERY_FUNCTION="$$PWD/.aws-sam/build/DeliveryFunction/bootstrap" \
	  cargo test --locked --all-features --test emulator

test-webhook: ## Run the receivers in docs/webhook.md (Python, Node.js, PHP) against deliveries of the running service
	@$(call INSTALL,node,nodejs)
	@$(call INSTALL,php,php-cli)
	cargo build --locked --features cli --bin loyaltyctl
	python3 -B tests/webhook_receivers.py

# Playwright and axe-core come from npm, the browser from Debian.
CONSOLE_PACKAGES := tests/console/node_modules/.package-lock.json
CONSOLE := cd tests/console && LOYALTYCTL="$$(realpath "$${CARGO_TARGET_DIR:-$(CURDIR)/target}")/debug/loyaltyctl"

test-console: $(CONSOLE_PACKAGES) ## Drive the pages of the console in Chromium, as those do who use them
	@$(call INSTALL,chromium)
	cargo build --locked --features cli --bin loyaltyctl
	$(CONSOLE) node --test pages.test.js

screenshots: $(CONSOLE_PACKAGES) ## Write the screenshots of the console for the README, docs/console-*.png
	@$(call INSTALL,chromium)
	cargo build --locked --features cli --bin loyaltyctl
	$(CONSOLE) node screenshots.js

$(CONSOLE_PACKAGES): tests/console/package-lock.json
	@$(call INSTALL,node,nodejs)
	@$(call INSTALL,npm)
	cd tests/console && npm ci --silent --no-audit --no-fund
	touch $@

test-panics: ## Test a panic in the build of `make sam-build ARCH=x86_64` (FUNCTION=… for another)
	FUNCTION="$${FUNCTION:-$$PWD/.aws-sam/build/Function/bootstrap}" cargo test --locked --all-features --test panics

test-memory: ## Check that memory of the build of `make sam-build ARCH=x86_64` does not grow in 100,000 requests (REQUESTS=…)
	FUNCTION="$${FUNCTION:-$$PWD/.aws-sam/build/Function/bootstrap}" \
	  $(OPTIMIZED) cargo test --locked --all-features --test memory -- --nocapture

test-cargo-lambda: $(VENV) ## Send every event with `cargo lambda invoke` to `cargo lambda watch`
	$(TOOLS) cargo test --locked --all-features --test cargo_lambda

# The built function runs in a container on this machine.
local invoke test-local: ARCH := $(HOST_ARCH)
local invoke: export SAM_DB := .local/sam.db
local: export PORT := 3001
local: sam-build ## Serve the API in a container with SAM, on the demo's DynamoDB (PORT=3001; needs Docker)
	cargo build --locked --features cli --bin loyaltyctl
	$(TOOLS) ARCH=$(ARCH) tests/sam_local.sh start-api $(PORT)

invoke: EVENT := events/card-number-get.v2.json
invoke: sam-build ## Send an event to its function in a container with SAM and the demo's credentials (EVENT=events/…; needs Docker)
	cargo build --locked --features cli --bin loyaltyctl
	$(TOOLS) ARCH=$(ARCH) tests/sam_local.sh invoke $(EVENT)

test-local: $(VENV) ## Test `make local` and `make invoke` with Docker (installs and starts it if it is missing)
	@$(call INSTALL,dockerd,docker.io)
	@$(call INSTALL,debootstrap)
	@$(call INSTALL,curl)
	$(MAKE) sam-build ARCH=$(ARCH)
	cargo build --locked --features cli --bin loyaltyctl
	ARCH=$(ARCH) tests/local.sh

# ARCH on the command line (`make deploy ARCH=x86_64`) has precedence over the configuration file.
deploy: CONFIG := samconfig.toml
deploy: $(VENV) ## Build and deploy with samconfig.toml; asks for parameters the first time (CONFIG=… for another file)
	SAM_CLI_TELEMETRY=0 PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/python deploy.py $(CONFIG) \
	  $(if $(filter command,$(firstword $(origin ARCH))),$(ARCH))

test-deploy: $(MINISTACK) $(VENV) ## Test deployment, calls, update, rollback and deletion on ministack
	cargo build --locked --features cli --bin loyaltyctl
	.tools/ministack/bin/python -B tests/deploy

advisories: $(CARGO_DENY) $(CARGO_AUDIT) ## Check dependencies against the RustSec database on GitHub
	$(CARGO_DENY) --locked --all-features check advisories
	$(CARGO_AUDIT) audit --deny warnings

# Lists a few crates that are not compiled, because Cargo also resolves the features of test
# dependencies.
sbom: sbom-files ## Write and check CycloneDX bills of materials, target/{loyalty-codes,deliver,loyaltyctl}.cdx.json (ARCH=arm64 or x86_64)
	cargo test --locked --all-features --test dependencies -- --ignored

sbom sbom-files: export SBOM_TARGET = $(if $(filter x86_64,$(ARCH)),x86_64,aarch64)-unknown-linux-gnu
sbom-files: BINS := loyalty-codes deliver loyaltyctl
sbom-files: $(CARGO_CYCLONEDX)
	for bin in $(BINS); do \
	  case $$bin in deliver) features='--features deliver';; loyaltyctl) features='--features cli';; *) features=;; esac; \
	  $(CARGO_CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps \
	    --no-default-features $$features --target $$SBOM_TARGET; \
	  mv $${bin}_bin.cdx.json target/$$bin.cdx.json; \
	  rm -f *_bin.cdx.json; \
	done

dist: export ARCHS := x86_64 arm64
dist: $(VENV) $(CARGO_CYCLONEDX) ## Make the release archive in dist/: functions, loyaltyctl, templates, bills of materials (on x86-64; ARCHS=x86_64)
	python3 -B dist.py

test-dist: ## Test the release archive with programs that build nothing
	python3 -B tests/dist.py

fmt: ## Format the code
	cargo fmt

bench: bench-functions ## Compare cold starts and warm requests with Node.js, Python and plain Rust (needs Node.js with npm)
	$(MAKE) build ARCH=$(HOST_ARCH)
	@$(call INSTALL,valgrind)
	cargo bench --locked --all-features --bench bench

# Builds the functions for comparison.
bench-functions:
	cargo build --locked --release --manifest-path benches/functions/Cargo.toml --target-dir target/functions
	cd benches/functions/node && npm ci --silent && npm run --silent build
	python3 -m pip install --quiet --disable-pip-version-check --upgrade --target target/functions/python \
	  --requirement benches/functions/python/requirements.txt
	cp benches/functions/python/function.py target/functions/python/

# Uses the dev profile, because the counted function runs in its own process.
BENCH_INSTRUCTIONS := cargo bench --locked --all-features --profile dev --bench bench -- instructions

bench-instructions: ## Count the function's instructions; fails at 3 % above the baseline (needs valgrind)
	$(MAKE) build ARCH=$(HOST_ARCH)
	@$(call INSTALL,valgrind)
	$(BENCH_INSTRUCTIONS)

bench-instructions-record: ## Write the present instruction counts as the baseline
	$(MAKE) build ARCH=$(HOST_ARCH)
	@$(call INSTALL,valgrind)
	$(BENCH_INSTRUCTIONS) record

bench-rate: ## Compare the card-number route with the embedded DynamoDB alone (needs wrk)
	benches/card_number_rate.sh

bench-blocks: ## Measure card numbers per second and their write units by block size (needs wrk)
	benches/block_rate.sh

# Uses the dev profile, because the measured service runs in its own process.
soak: SECONDS := 600
soak: ## Load-test `loyaltyctl serve` for 10 minutes and check each answer (SECONDS=60; RATE=250; DEV=1: debug build)
	cargo build --locked $(if $(DEV),,--release) --features cli --bin loyaltyctl
	cargo bench --locked --all-features --profile dev --bench soak -- \
	  target/$(if $(DEV),debug,release)/loyaltyctl $(SECONDS) $(RATE)

clean: ## Remove build output, local tools and the demo's data
	cargo clean
	rm -rf .local .tools .venv .aws-sam fuzz/target dist

$(VENV): requirements.txt
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.txt
	touch $(VENV)

$(SCHEMATHESIS): tests/requirements.txt
	python3 -m venv --clear .tools/schemathesis
	.tools/schemathesis/bin/pip install --quiet --requirement tests/requirements.txt
	touch $@

$(MINISTACK): tests/requirements-ministack.txt
	python3 -m venv --clear .tools/ministack
	.tools/ministack/bin/pip install --quiet --requirement tests/requirements-ministack.txt
	touch $@

# Tools that run for a second are not worth the time to optimize them.
INSTALL_TOOL := CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 cargo install --debug --locked --quiet

$(CARGO_AUDIT):
	$(INSTALL_TOOL) --root .tools --version $(CARGO_AUDIT_VERSION) cargo-audit

$(CARGO_CYCLONEDX):
	$(INSTALL_TOOL) --root .tools --version $(CARGO_CYCLONEDX_VERSION) cargo-cyclonedx

$(CARGO_FUZZ):
	cargo install --locked --quiet --root .tools --version $(CARGO_FUZZ_VERSION) cargo-fuzz

$(CARGO_DENY):
	$(INSTALL_TOOL) --root .tools --version $(CARGO_DENY_VERSION) cargo-deny
