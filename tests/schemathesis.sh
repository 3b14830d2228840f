#!/usr/bin/env bash
# Sends requests that schemathesis generates from openapi.json to the running service, as the demo's
# till. The requests depend on a seed, which is new in each run. SEED=… repeats a run. EXAMPLES=…
# sets the number of requests for each operation.
set -euo pipefail
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
examples=${EXAMPLES:-200}
echo "SEED=$seed EXAMPLES=$examples"
root=$(cd "$(dirname "$0")/.." && pwd)

# All files are in a temporary folder, so that no run depends on an earlier one.
cd "$(mktemp -d)"
trap 'kill "$server"; wait "$server" || true; rm -rf "$PWD"' EXIT
RUST_LOG=error "$root/target/debug/loyaltyctl" serve --demo --in-memory --listen 127.0.0.1:0 >log &
server=$!
for _ in {1..100}; do
  sleep 0.1
  grep -q '^curl .*/v2/customers' log && break
done
base=$(sed -n 's/^loyalty-codes listens on //p' log)
credentials=$(sed -n 's/^curl .* -u \([^ ]*\) .*/\1/p;T;q' log)

# The credentials are fixed, so schemathesis does not generate others. It still tries requests
# without any (`ignored_auth`).
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$root/tests" SCHEMATHESIS_HOOKS=schemathesis_hooks "$root/.tools/schemathesis/bin/schemathesis" run "$base/openapi.json" \
  --auth "$credentials" --generation-with-security-parameters false \
  --checks all --phases examples,coverage,fuzzing,stateful --mode all --max-examples "$examples" --seed "$seed" "$@"
