#!/usr/bin/env bash
# Measures the rate of GET /v2/cardNumber as a share of the rate of the same UpdateItem on the
# embedded DynamoDB. Both run in one process, one after the other, over 16 connections. Fails below
# 40 %.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-4} least=40
source benches/served.sh

rate() { load --connections 16 "$@" | rate_of; }

start
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
