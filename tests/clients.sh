#!/usr/bin/env bash
# Runs the clients of docs/clients/ against `loyaltyctl serve --demo`, and checks what they print.
set -euo pipefail
cd "$(dirname "$0")/.."
loyaltyctl=${CARGO_TARGET_DIR:-target}/debug/loyaltyctl
folder=$(mktemp -d)
cleanup() {
  kill "$server" 2>/dev/null && wait "$server" || true
  rm -rf "$folder"
}
RUST_LOG=error "$loyaltyctl" serve --demo --in-memory --listen 127.0.0.1:0 >"$folder/demo" &
server=$!
trap cleanup EXIT
for _ in {1..100}; do
  grep -qs '^curl .*/v2/customers' "$folder/demo" && break
  kill -0 "$server"
  sleep 0.1
done
LOYALTY_URL=$(sed -n 's/^loyalty-codes listens on //p' "$folder/demo")
credentials=$(sed -n 's/^curl .* -u \([^ ]*\) .*/\1/p;T;q' "$folder/demo")
export LOYALTY_URL LOYALTY_TILL=${credentials%%:*} LOYALTY_PASSWORD=${credentials#*:}

fail() {
  echo "$1" >&2
  exit 1
}

# Starts a proxy that makes requests fail. Sets LOYALTY_URL for the rest of the subshell.
through_faults() {
  rm -f "$folder/proxy"
  python3 -B tests/client_faults.py "$LOYALTY_URL" "$@" >"$folder/proxy" &
  proxy=$!
  trap 'kill $proxy' EXIT
  for _ in {1..100}; do
    [[ -s $folder/proxy ]] && break
    sleep 0.1
  done
  LOYALTY_URL=$(<"$folder/proxy")
}

# The day's OTPs of one customer are not enough for all checks.
curl -sSf -u "$credentials" -H 'Content-Type: application/json' "$LOYALTY_URL/v2/customers" -o "$folder/registered" \
  -d '{"profiles":[{"source":"INSTORE","identifiers":[
    {"type":"mobile","value":"9010000033"},{"type":"externalId","value":"SECOND-1"}]}]}'

number=1000000010
check() {
  local printed expected seconds
  expected="^issued [0-9]{16}
code [A-Z0-9]{7}
valid true
number $number
refused 404 9001 No valid OTP found\$"
  printed=$("$@" 8799361139) || fail "$*: failed"
  [[ $printed =~ $expected ]] || fail "$*: printed"$'\n'"$printed"
  ((number += 1))
  # It gets another token, and repeats what was answered with 503, under the same key.
  expected=${expected/number $((number - 1))/number $number}
  printed=$(through_faults && "$@" 8799361139) || fail "$*: failed with faults"
  [[ $printed =~ $expected ]] || fail "$*: printed with faults"$'\n'"$printed"
  ((number += 1))
  # It repeats a request that was carried out and whose answer was lost.
  expected=${expected/number $((number - 1))/number $number}
  printed=$(through_faults --lost && "$@" "+91 90100 00033") || fail "$*: failed with lost answers"
  [[ $printed =~ $expected ]] || fail "$*: printed with lost answers"$'\n'"$printed"
  ((number += 1))
  # It does not wait until the limits of the day are over.
  seconds=$SECONDS
  printed=$(through_faults --exhausted && timeout 60 "$@" 8799361139 2>&1) && fail "$*: took a 429 for a success"
  ((SECONDS - seconds < 45)) || fail "$*: waited after a 429"
  [[ $printed == *injected* ]] || fail "$*: hid the reason of a 429: $printed"
  # A wrong password is refused, and printed nowhere.
  printed=$(LOYALTY_PASSWORD=wrong-password "$@" 8799361139 2>&1) && fail "$*: accepted a wrong password"
  [[ $printed != *wrong-password* ]] || fail "$*: printed the password"
  echo "ok: $*"
}
check sh docs/clients/loyalty.sh
check python3 -B docs/clients/loyalty.py
check node docs/clients/loyalty.mjs
check php docs/clients/loyalty.php
