# Every habit of the house. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test test-interleavings test-load test-schema test-engine test-ministack lint openapi cost-table build validate sam-build test-emulator test-panics test-memory test-cargo-lambda fuzz check-fuzz local invoke test-local deploy \
  advisories sbom fmt bench bench-functions bench-instructions bench-instructions-record bench-rate bench-blocks soak clean

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

# Installs the Debian package of that name, or of the second one, unless the program is there.
INSTALL = command -v $(1) >/dev/null || { apt-get update -qq && apt-get install -y -qq $(or $(2),$(1)); }

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-26s %s\n", $$1, $$2}'

run: ## Run the whole service at http://127.0.0.1:3000, with a demo org (ARGS='--listen 127.0.0.1:3001')
	cargo run --locked --features cli --bin loyaltyctl -- serve --demo $(ARGS)

test: ## Run all tests
	@$(call INSTALL,curl)
	cargo test --locked --all-features

# Tests that make a million calls to the embedded engine take a fifth of the time when it is optimized.
OPTIMIZED := CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_INCREMENTAL=0

test-interleavings: ## Run every order of the DynamoDB calls of requests that race (RACES='generate | validate' for some of them)
	$(OPTIMIZED) cargo test --locked --all-features --test interleavings -- --nocapture

test-load: ## Load eight processes of what `make sam-build ARCH=x86_64` built (FUNCTION=… for another build)
	FUNCTION="$${FUNCTION:-$$PWD/.aws-sam/build/Function/bootstrap}" \
	  $(OPTIMIZED) cargo test --locked --all-features --test load -- --nocapture

test-schema: $(SCHEMATHESIS) ## Play what schemathesis makes up from openapi.json to the running service (SEED=… repeats, EXAMPLES=200)
	cargo build --locked --features cli --bin loyaltyctl
	tests/schemathesis.sh

test-engine: ## Run what uses the store on another DynamoDB, one that asks for no real credentials (ENDPOINT=http://…)
	@test -n "$(ENDPOINT)" || { echo "which one? ENDPOINT=http://127.0.0.1:8000"; exit 2; }
	AWS_REGION=us-east-1 DYNAMODB_ENDPOINT=$(ENDPOINT) \
	  cargo test --locked --all-features --test api --test lambda_runtime --test loyaltyctl --test template

test-ministack: $(MINISTACK) ## The same on ministack, from PyPI
	tests/ministack.sh

# In CI on demand (FUZZ_SECONDS=60 .ci/run), which otherwise checks that they compile and replays the corpora in tests/input.rs: the build takes five minutes. Without a sanitizer, and with the flags of a nightly
# toolchain on a stable one: what is looked for are panics and 5xx. Inputs that lead further stay below fuzz/target/; those that fail, in fuzz/artifacts/.
FUZZ := RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ)
fuzz: SECONDS := 60
fuzz: $(CARGO_FUZZ) ## Send every fuzz target what it may not panic on (SECONDS=60 for each; needs a C++ compiler)
	$(FUZZ) build --sanitizer none
	for target in $$($(FUZZ) list); do \
	  mkdir -p fuzz/target/corpus/$$target; \
	  $(FUZZ) run --sanitizer none $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(SECONDS) -timeout=10; \
	done

check-fuzz: ## Check that the fuzz targets compile
	@$(call INSTALL,g++)
	cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir fuzz/target

openapi: ## Write openapi.json anew, from the code
	cargo run --locked --quiet --features cli --bin loyaltyctl -- openapi > target/openapi.json
	mv target/openapi.json openapi.json

cost-table: ## Write the README's table of costs anew, from the counts that tests/api/costs.rs keeps
	UPDATE_README=1 cargo test --locked --all-features --test api -- costs::the_readme

lint: $(CARGO_DENY) ## Check formatting, clippy, dependencies and documentation
	cargo fmt --check
	cargo clippy --locked --all-features --all-targets -- --deny warnings
	cargo clippy --locked --bin loyalty-codes -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --all-features --no-deps
	$(CARGO_DENY) --locked --all-features check bans licenses sources

build: $(VENV) ## Build the function for Lambda, by cargo-lambda (ARCH=arm64 or x86_64)
	$(TOOLS) cargo lambda build --locked --release --bin loyalty-codes --$(subst _,-,$(ARCH))

validate: $(VENV) ## Check the template with SAM and cfn-lint, warnings included, and the roles that SAM makes of it
	$(TOOLS) sam validate --lint
	$(TOOLS) cfn-lint --include-checks W -- template.yaml
	$(VENV)/bin/python -B tests/roles.py

sam-build: $(VENV) ## Build what is deployed, by SAM (ARCH=arm64 or x86_64)
	$(TOOLS) sam build --parameter-overrides Architecture=$(ARCH)

test-emulator: $(VENV) ## Play every event to what `make sam-build ARCH=x86_64` built, under AWS's emulator
	AWS_LAMBDA_RIE="$$(ls $$PWD/$(VENV)/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64)" \
	FUNCTION="$$PWD/.aws-sam/build/Function/bootstrap" cargo test --locked --all-features --test emulator

test-panics: ## Let what `make sam-build ARCH=x86_64` built panic (FUNCTION=… for another build)
	FUNCTION="$${FUNCTION:-$$PWD/.aws-sam/build/Function/bootstrap}" cargo test --locked --all-features --test panics

test-memory: ## Send what `make sam-build ARCH=x86_64` built 100,000 requests of 1,000 tills; its memory must not grow (REQUESTS=…)
	FUNCTION="$${FUNCTION:-$$PWD/.aws-sam/build/Function/bootstrap}" \
	  $(OPTIMIZED) cargo test --locked --all-features --test memory -- --nocapture

test-cargo-lambda: $(VENV) ## Play every event by `cargo lambda invoke` to `cargo lambda watch`
	$(TOOLS) cargo test --locked --all-features --test cargo_lambda

# The built function runs in a container on this machine.
local invoke test-local: ARCH := $(HOST_ARCH)
local invoke: export SAM_DB := .local/sam.db
local: export PORT := 3001
local: sam-build ## Serve the API by SAM in a container, on the demo's DynamoDB (PORT=3001; needs Docker)
	cargo build --locked --features cli --bin loyaltyctl
	$(TOOLS) ARCH=$(ARCH) tests/sam_local.sh start-api $(PORT)

invoke: EVENT := events/card-number-get.v2.json
invoke: sam-build ## Play an event by SAM in a container, with the demo's credentials (EVENT=events/…; needs Docker)
	cargo build --locked --features cli --bin loyaltyctl
	$(TOOLS) ARCH=$(ARCH) tests/sam_local.sh invoke $(EVENT)

test-local: $(VENV) ## Play `make local` and `make invoke` with a Docker engine (installs and starts one where none is)
	@$(call INSTALL,dockerd,docker.io)
	@$(call INSTALL,debootstrap)
	@$(call INSTALL,curl)
	$(MAKE) sam-build ARCH=$(ARCH)
	cargo build --locked --features cli --bin loyaltyctl
	ARCH=$(ARCH) tests/local.sh

# An architecture counts where it is given (`make deploy ARCH=x86_64`); else that of the configuration file does.
deploy: CONFIG := samconfig.toml
deploy: $(VENV) ## Build and deploy as samconfig.toml says; asks for what it needs the first time (CONFIG=… for another file)
	SAM_CLI_TELEMETRY=0 PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/python deploy.py $(CONFIG) \
	  $(if $(filter command,$(firstword $(origin ARCH))),$(ARCH))

.PHONY: test-deploy
test-deploy: $(MINISTACK) $(VENV) ## Deploy to ministack, call, update, roll back and delete what was deployed
	cargo build --locked --features cli --bin loyaltyctl
	.tools/ministack/bin/python -B tests/deploy

advisories: $(CARGO_DENY) $(CARGO_AUDIT) ## Check dependencies against the RustSec database, which both tools fetch from GitHub
	$(CARGO_DENY) --locked --all-features check advisories
	$(CARGO_AUDIT) audit --deny warnings

# Cargo resolves the features of dependencies together with those of the tests', so a few more are listed than are compiled.
sbom: export SBOM_TARGET = $(if $(filter x86_64,$(ARCH)),x86_64,aarch64)-unknown-linux-gnu
sbom: $(CARGO_CYCLONEDX) ## Write the function's bill of materials to target/loyalty-codes.cdx.json, CycloneDX (ARCH=arm64 or x86_64)
	$(CARGO_CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps --target $$SBOM_TARGET
	mv loyalty-codes_bin.cdx.json target/loyalty-codes.cdx.json
	rm loyaltyctl_bin.cdx.json
	cargo test --locked --all-features --test dependencies -- --ignored

fmt: ## Format the code
	cargo fmt

bench: bench-functions ## Measure cold starts and warm requests beside Node.js, Python and plain Rust (needs Node.js with npm)
	$(MAKE) build ARCH=$(HOST_ARCH)
	@$(call INSTALL,valgrind)
	cargo bench --locked --all-features --bench bench

# What the bench compares with.
bench-functions:
	cargo build --locked --release --manifest-path benches/functions/Cargo.toml --target-dir target/functions
	cd benches/functions/node && npm ci --silent && npm run --silent build
	python3 -m pip install --quiet --disable-pip-version-check --upgrade --target target/functions/python \
	  --requirement benches/functions/python/requirements.txt
	cp benches/functions/python/function.py target/functions/python/

# The dev profile is enough: what is counted runs in a process of its own.
BENCH_INSTRUCTIONS := cargo bench --locked --all-features --profile dev --bench bench -- instructions

bench-instructions: ## Count the instructions of the function; fails when they are 3 % more than they were (needs valgrind)
	$(MAKE) build ARCH=$(HOST_ARCH)
	@$(call INSTALL,valgrind)
	$(BENCH_INSTRUCTIONS)

bench-instructions-record: ## Make what is counted now what the next count is compared with
	$(MAKE) build ARCH=$(HOST_ARCH)
	@$(call INSTALL,valgrind)
	$(BENCH_INSTRUCTIONS) record

bench-rate: ## Measure the card-number route against the embedded DynamoDB alone (needs wrk)
	benches/card_number_rate.sh

bench-blocks: ## Measure card numbers per second and their write units by block size (needs wrk)
	benches/block_rate.sh

# The dev profile: what is measured runs in a process of its own.
soak: SECONDS := 600
soak: ## Load `loyaltyctl serve` for 10 minutes and check each answer (SECONDS=60; RATE=250 instead of 80 % of capacity; DEV=1 for the debug build)
	cargo build --locked $(if $(DEV),,--release) --features cli --bin loyaltyctl
	cargo bench --locked --all-features --profile dev --bench soak -- target/$(if $(DEV),debug,release)/loyaltyctl $(SECONDS) $(RATE)

clean: ## Remove what was built and installed here, and the demo's data
	cargo clean
	rm -rf .local .tools .venv .aws-sam fuzz/target

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

$(CARGO_AUDIT):
	cargo install --locked --quiet --root .tools --version $(CARGO_AUDIT_VERSION) cargo-audit

$(CARGO_CYCLONEDX):
	cargo install --locked --quiet --root .tools --version $(CARGO_CYCLONEDX_VERSION) cargo-cyclonedx

$(CARGO_FUZZ):
	cargo install --locked --quiet --root .tools --version $(CARGO_FUZZ_VERSION) cargo-fuzz

$(CARGO_DENY):
	cargo install --locked --quiet --root .tools --version $(CARGO_DENY_VERSION) cargo-deny
