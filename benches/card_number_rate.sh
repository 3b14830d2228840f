#!/usr/bin/env bash
# Measures the rate of GET /v2/cardNumber as a share of the rate of the same UpdateItem on the
# embedded DynamoDB. Both run in one process, one after the other, over 16 connections. Fails below
# 40 %.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-4} least=40
command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk" >&2; exit 2; }

cargo build --locked --quiet --release --features cli --bin loyaltyctl
folder=$(mktemp -d)
target/release/loyaltyctl serve --demo --listen 127.0.0.1:0 --db "$folder/dynamodb.db" >"$folder/log" &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$folder"' EXIT
until grep -q '^# register' "$folder/log"; do
  kill -0 $server
  read -rt 0.1 <> <(:) || true
done
base=$(sed -n 's/^loyalty-codes listens on //p' "$folder/log")
dynamodb=$(sed -n 's/^DynamoDB listens on \([^ ]*\).*/\1/p' "$folder/log")
till=$(grep -om1 'store.server:[a-z0-9]*' "$folder/log")
authorization="Authorization: Basic $(printf %s "$till" | base64)"

# Prints requests per second. Fails unless every answer is a success.
rate() {
  local report
  report=$(wrk --threads 1 --connections 16 --duration "${seconds}s" "$@")
  if grep -q 'Non-2xx\|Socket errors' <<<"$report"; then
    echo "$report" >&2
    return 1
  fi
  sed -n 's/^Requests\/sec: *//p' <<<"$report"
}

printf '%-6s %18s %18s %7s\n' round 'card numbers /s' 'UpdateItem /s' share
shares=()
for ((round = 1; round <= rounds; round++)); do
  ours=$(rate --header "$authorization" "$base/v2/cardNumber")
  floor=$(rate --script benches/update_item.lua "$dynamodb/")
  share=$(awk "BEGIN { printf \"%.0f\", 100 * $ours / $floor }")
  shares+=("$share")
  printf '%-6s %18s %18s %6s%%\n' "$round" "$ours" "$floor" "$share"
done
median=$(printf '%s\n' "${shares[@]}" | sort -n | sed -n "$(((rounds + 1) / 2))p")
echo "median share: $median% (goal: at least $least%)"
((median >= least))
