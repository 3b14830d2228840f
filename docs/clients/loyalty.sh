#!/bin/sh
# Calls of the loyalty API with curl and jq.
#
#   LOYALTY_URL=https://… LOYALTY_TILL=store.server LOYALTY_PASSWORD=… sh loyalty.sh 8799361139
#
# curl repeats a request that was answered with 503 or not at all, for 30 seconds at most. It repeats
# one that was answered with 429 only if `Retry-After` is within these. The `Idempotency-Key` is the
# same in every attempt, so that nothing happens twice.
set -eu
mobile=$1
json='Content-Type: application/json'
# The token and the body of the last answer, which only this user can read.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Writes the body into a file, which curl empties before another attempt, and prints the status.
send() {
  curl -sS --max-time 15 --retry 2 --retry-max-time 30 --retry-all-errors -o "$folder/body" -w '%{http_code}' \
    -H "$json" "$@"
}
# A field of the last answer. Without --fail, the body of an error is there to be read. Its `errors`
# tell it from a success.
field() {
  jq -r "if .errors then error(.errors[0].message) else $1 end" "$folder/body"
}
# The password is passed on standard input, so that no list of processes has it.
get_token() {
  jq -n --arg key "$LOYALTY_TILL" --arg secret "$LOYALTY_PASSWORD" '{$key, $secret}' |
    send -d @- "$LOYALTY_URL/v3/oauth/token/generate" >"$folder/status"
  field .data.accessToken >"$folder/token"
}
send_with_token() {
  send -K - "$@" <<CONFIG
header = "X-CAP-API-OAUTH-TOKEN: $(cat "$folder/token")"
CONFIG
}
# Gets another token once if the present one is refused, because it has expired or its password was
# revoked.
call() {
  status=$(send_with_token "$@")
  if [ "$status" = 401 ]; then
    get_token
    status=$(send_with_token "$@")
  fi
}
post() {
  call -H "Idempotency-Key: $(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" -d "$2" "$LOYALTY_URL$1"
}
customer=$(jq -nc --arg mobile "$mobile" '{entityType: "MOBILE", entityValue: $mobile, action: "POINTS"}')
fetch="source=INSTORE&mobile=$(jq -rn --arg mobile "$mobile" '$mobile|@uri')&scope=POINTS"

get_token
post /v2/otp/generate "$(echo "$customer" | jq -c '.channels = [{type: "SMS", value: .entityValue}]')"
issued=$(field .createdId)
echo "issued $issued"
# Only what delivers codes itself needs to fetch them.
call "$LOYALTY_URL/v2/otp?$fetch&threshold=60"
code=$(field .code)
echo "code $code"
post /v2/otp/validate "$(echo "$customer" | jq -c --arg code "$code" '.code = $code')"
valid=$(field .entity)
echo "valid $valid"
post /v2/cardNumber '{}'
number=$(field .entity)
echo "number $number"
call "$LOYALTY_URL/v2/otp?$fetch"
echo "refused $status $(jq -r '.errors[0] | "\(.code) \(.message)"' "$folder/body")"
