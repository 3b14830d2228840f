# Every habit of the house. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test test-schema lint openapi build validate sam-build test-emulator test-cargo-lambda local deploy advisories \
  fmt bench bench-functions bench-instructions bench-instructions-record bench-rate soak clean

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := .tools/bin/cargo-deny
SCHEMATHESIS := .tools/schemathesis/bin/schemathesis

# cargo-lambda and the SAM CLI, from PyPI.
VENV := .venv
TOOLS := SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=$${AWS_DEFAULT_REGION:-us-east-1} PATH="$$PWD/$(VENV)/bin:$$PATH"
ARCH := arm64

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

run: ## Run the whole service at http://127.0.0.1:3000, with a demo org (ARGS='--listen 127.0.0.1:3001')
	cargo run --locked --features cli --bin loyaltyctl -- serve --demo $(ARGS)

test: ## Run all tests
	@command -v curl >/dev/null || { echo "installing curl, which pastes the printed requests"; apt-get update -qq && apt-get install -y -qq curl; }
	cargo test --locked --all-features

test-schema: $(SCHEMATHESIS) ## Play what schemathesis makes up from openapi.json to the running service
	cargo build --locked --features cli --bin loyaltyctl
	tests/schemathesis.sh

openapi: ## Write openapi.json anew, from the code
	cargo run --locked --quiet --features cli --bin loyaltyctl -- openapi > target/openapi.json
	mv target/openapi.json openapi.json

lint: $(CARGO_DENY) ## Check formatting, clippy, dependencies and documentation
	cargo fmt --check
	cargo clippy --locked --all-features --all-targets -- --deny warnings
	cargo clippy --locked --bin loyalty-codes -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --all-features --no-deps
	$(CARGO_DENY) --locked --all-features check bans licenses sources

build: $(VENV) ## Build the function for Lambda, by cargo-lambda (ARCH=arm64 or x86_64)
	$(TOOLS) cargo lambda build --locked --release --bin loyalty-codes --$(subst _,-,$(ARCH))

validate: $(VENV) ## Check the template with SAM and cfn-lint, warnings included
	$(TOOLS) sam validate --lint
	$(TOOLS) cfn-lint --include-checks W -- template.yaml

sam-build: $(VENV) ## Build what is deployed, by SAM (ARCH=arm64 or x86_64)
	$(TOOLS) sam build --parameter-overrides Architecture=$(ARCH)

test-emulator: $(VENV) ## Play every event to what `make sam-build ARCH=x86_64` built, under AWS's emulator
	AWS_LAMBDA_RIE="$$(ls $$PWD/$(VENV)/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64)" \
	FUNCTION="$$PWD/.aws-sam/build/Function/bootstrap" cargo test --locked --all-features --test emulator

test-cargo-lambda: $(VENV) ## Play every event by `cargo lambda invoke` to `cargo lambda watch`
	$(TOOLS) cargo test --locked --all-features --test cargo_lambda

# SAM resolves `!Ref Table` to the name `Table`.
local: sam-build ## Serve the API by SAM at http://127.0.0.1:3001, on the demo's DynamoDB (ARCH=…; needs Docker)
	cargo build --locked --features cli --bin loyaltyctl
	target/debug/loyaltyctl --table Table serve --demo --db .local/sam.db --dynamodb-listen 127.0.0.1:8000 & \
	trap "kill $$!" EXIT; \
	AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local $(TOOLS) sam local start-api --port 3001 --docker-network host \
	  --parameter-overrides "Architecture=$(ARCH) DynamoDbEndpoint=http://127.0.0.1:8000"

deploy: sam-build ## Build and deploy; asks for what it needs the first time
	$(TOOLS) sam deploy $(if $(wildcard samconfig.toml),,--guided) --capabilities CAPABILITY_IAM \
	  --parameter-overrides Architecture=$(ARCH)

advisories: $(CARGO_DENY) ## Check dependencies against the RustSec database, which it fetches from GitHub
	$(CARGO_DENY) --locked --all-features check advisories

fmt: ## Format the code
	cargo fmt

bench: HOST_ARCH := $(subst aarch64,arm64,$(shell uname -m))
bench: bench-functions ## Measure cold starts and warm requests beside Node.js, Python and plain Rust
	$(MAKE) build ARCH=$(HOST_ARCH)
	cargo bench --locked --all-features --bench bench

# What the bench compares with. Node.js with npm and valgrind must be there.
bench-functions:
	cargo build --locked --release --manifest-path benches/functions/Cargo.toml --target-dir target/functions
	cd benches/functions/node && npm ci --silent && npm run --silent build
	python3 -m pip install --quiet --upgrade --target target/functions/python --requirement benches/functions/python/requirements.txt
	cp benches/functions/python/function.py target/functions/python/

# The dev profile: what is counted runs in a process of its own.
bench-instructions: ## Count the instructions of what `make build` built; fails at +3 % (needs valgrind)
	cargo bench --locked --all-features --profile dev --bench bench -- instructions

bench-instructions-record: ## Make what is counted now the new baseline
	cargo bench --locked --all-features --profile dev --bench bench -- instructions record

bench-rate: ## Measure the card-number route against the embedded DynamoDB alone (needs wrk)
	benches/card_number_rate.sh

# The dev profile: what is measured runs in a process of its own.
SECONDS := 600
soak: ## Load the release build for 10 minutes and check each answer (SECONDS=60; RATE=250 instead of 80 % of capacity)
	cargo build --locked --release --features cli --bin loyaltyctl
	cargo bench --locked --all-features --profile dev --bench soak -- target/release/loyaltyctl $(SECONDS) $(RATE)

clean: ## Remove what was built and installed here, and the demo's data
	cargo clean
	rm -rf .local .tools .venv .aws-sam

$(VENV): requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.txt
	touch $(VENV)

$(SCHEMATHESIS): tests/requirements.txt
	python3 -m venv .tools/schemathesis
	.tools/schemathesis/bin/pip install --quiet --requirement tests/requirements.txt
	touch $@

$(CARGO_DENY):
	cargo install --locked --quiet --root .tools --version $(CARGO_DENY_VERSION) cargo-deny
