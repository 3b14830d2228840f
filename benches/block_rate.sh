#!/usr/bin/env bash
# Measures card numbers per second and their write units, by CONF_CARD_NUMBER_BLOCK_SIZE. Sends GET
# /v2/cardNumber to one `loyaltyctl serve` on a file, over 64 connections. A round trip of this
# route is one UpdateItem of an item below 1 kB, which costs one write unit. The log lines contain
# the round trips.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-10}
command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk" >&2; exit 2; }

# LOYALTYCTL names another build to measure.
loyaltyctl=${LOYALTYCTL:-${CARGO_TARGET_DIR:-target}/release/loyaltyctl}
[[ -n ${LOYALTYCTL:-} ]] || cargo build --locked --quiet --release --features cli --bin loyaltyctl
folder=$(mktemp -d)
server=
stop() {
  [[ -z $server ]] || { kill "$server" && wait "$server" || true; }
  server=
}
trap 'stop; rm -rf "$folder"' EXIT

# Starts the service. Its log is $folder/log.
start() {
  : >"$folder/log"
  "$loyaltyctl" serve --demo --listen 127.0.0.1:0 --db "$folder/dynamodb.db" >"$folder/log" 2>&1 &
  server=$!
  until grep -q '^# register' "$folder/log"; do
    kill -0 $server
    read -rt 0.1 <> <(:) || true
  done
  base=$(sed -n 's/^loyalty-codes listens on //p' "$folder/log")
  dynamodb=$(sed -n 's/^DynamoDB listens on \([^ ]*\).*/\1/p' "$folder/log")
  till=$(grep -om1 'store.server:[a-z0-9]*' "$folder/log")
}

printf '%-6s %16s %16s %24s\n' block 'numbers /s' 'p99 ms' 'write units / 1,000'
for size in 1 10 100 1000; do
  rm -f "$folder"/*
  start
  sed "\$a CONF_CARD_NUMBER_BLOCK_SIZE = $size" src/bin/loyaltyctl/demo.toml >"$folder/org.toml"
  "$loyaltyctl" --endpoint "$dynamodb" org apply "$folder/org.toml" >"$folder/applied"
  # A process caches the org for a minute. A new process reads the change at once.
  stop
  start
  report=$(wrk --threads 1 --connections 64 --duration "${seconds}s" --latency \
    --header "Authorization: Basic $(printf %s "$till" | base64)" "$base/v2/cardNumber")
  if grep -q 'Non-2xx\|Socket errors' <<<"$report"; then
    echo "$report" >&2
    exit 1
  fi
  stop
  sed 's/\x1b\[[0-9;]*m//g' "$folder/log" | awk -v size=$size \
    -v rate="$(sed -n 's/^Requests\/sec: *//p' <<<"$report")" -v p99="$(sed -n 's/^ *99% *//p' <<<"$report")" '
    /route="?GET \/v2\/cardNumber/ && match($0, /round_trips=[0-9]+/) {
      numbers++
      units += substr($0, RSTART + 12, RLENGTH - 12)
    }
    END {
      if (numbers == 0) { print "no request is in the log" >"/dev/stderr"; exit 1 }
      printf "%-6s %16s %16s %24.1f\n", size, rate, p99, 1000 * units / numbers
    }'
done
