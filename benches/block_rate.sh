#!/usr/bin/env bash
# Measures card numbers per second and their write units, by CONF_CARD_NUMBER_BLOCK_SIZE. Sends GET
# /v2/cardNumber to one `loyaltyctl serve` on a file, over 64 connections. A round trip of this
# route is one UpdateItem of an item below 1 kB, which costs one write unit. The log lines contain
# the round trips.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-10}
source benches/served.sh

printf '%-6s %16s %16s %24s\n' block 'numbers /s' 'p99 ms' 'write units / 1,000'
for size in 1 10 100 1000; do
  rm -f "$folder"/*
  start
  sed "/^\[config\]/a CONF_CARD_NUMBER_BLOCK_SIZE = $size" src/bin/loyaltyctl/demo.toml >"$folder/org.toml"
  "$loyaltyctl" --endpoint "$dynamodb" org apply "$folder/org.toml" >"$folder/applied"
  # A process caches the org for a minute. A new process reads the change at once.
  stop
  start
  report=$(load --connections 64 --latency --header "$authorization" "$base/v2/cardNumber")
  stop
  sed 's/\x1b\[[0-9;]*m//g' "$folder/log" | awk -v size=$size \
    -v rate="$(rate_of <<<"$report")" -v p99="$(sed -n 's/^ *99% *//p' <<<"$report")" '
    /route="?GET \/v2\/cardNumber/ && match($0, /round_trips=[0-9]+/) {
      numbers++
      units += substr($0, RSTART + 12, RLENGTH - 12)
    }
    END {
      if (numbers == 0) { print "no request is in the log" >"/dev/stderr"; exit 1 }
      printf "%-6s %16s %16s %24.1f\n", size, rate, p99, 1000 * units / numbers
    }'
done
