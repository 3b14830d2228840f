# Starts, loads and stops the service. The scripts that measure its rate source this file.
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

# Starts the service on a file. Its log is $folder/log.
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
  authorization="Authorization: Basic $(grep -om1 'store.server:[a-z0-9]*' "$folder/log" | tr -d '\n' | base64)"
}

# Runs wrk for $seconds and prints its report. Fails unless every answer is a success.
load() {
  local report
  report=$(wrk --threads 1 --duration "${seconds}s" "$@")
  if grep -q 'Non-2xx\|Socket errors' <<<"$report"; then
    echo "$report" >&2
    return 1
  fi
  echo "$report"
}

# The requests per second of a report.
rate_of() { sed -n 's/^Requests\/sec: *//p'; }
