#!/usr/bin/env bash
# Card numbers per second, and the write units that they cost, by CONF_CARD_NUMBER_BLOCK_SIZE. Each number is asked for by
# GET /v2/cardNumber of one `loyaltyctl serve` on a file, over 64 connections. A round trip of this route is one
# UpdateItem of an item below 1 kB: one write unit. They are counted from the log lines.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-10}
command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk" >&2; exit 2; }

# LOYALTYCTL: a build to measure instead of the release build.
loyaltyctl=${LOYALTYCTL:-${CARGO_TARGET_DIR:-target}/release/loyaltyctl}
[[ -n ${LOYALTYCTL:-} ]] || cargo build --locked --quiet --release --features cli --bin loyaltyctl
folder=$(mktemp -d)
server=
stop() {
  [[ -z $server ]] || { kill "$server" && wait "$server" || true; }
  server=
}
trap 'stop; rm -rf "$folder"' EXIT

# Starts the service, with its log in $folder/log.
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
  # The org is remembered for a minute: a new process reads it at once.
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
