#!/bin/sh
# Calls of the loyalty API with curl and jq.
#
#   LOYALTY_URL=https://… LOYALTY_TILL=store.server LOYALTY_PASSWORD=… sh loyalty.sh 8799361139
#
# curl repeats a request that was answered with 503 or not at all. The `Idempotency-Key` is the same
# in every attempt, so that nothing happens twice.
set -eu
mobile=$1
json='Content-Type: application/json'

# The password is passed by a configuration on standard input, so that no list of processes has it.
token=$(
  jq -n --arg key "$LOYALTY_TILL" --arg secret "$LOYALTY_PASSWORD" '{$key, $secret}' |
    curl -sS --max-time 15 -H "$json" -d @- "$LOYALTY_URL/v3/oauth/token/generate" |
    jq -r '.data.accessToken // error(.errors[0].message)'
)
call() {
  curl -sS --max-time 15 --retry 2 -K - -H "$json" "$@" <<CONFIG
header = "X-CAP-API-OAUTH-TOKEN: $token"
CONFIG
}
post() {
  call -H "Idempotency-Key: $(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" -d "$2" "$LOYALTY_URL$1"
}
customer=$(jq -nc --arg mobile "$mobile" '{entityType: "MOBILE", entityValue: $mobile, action: "POINTS"}')
fetch="source=INSTORE&mobile=$mobile&scope=POINTS"

with_sms=$(echo "$customer" | jq -c '.channels = [{type: "SMS", value: .entityValue}]')
echo "issued $(post /v2/otp/generate "$with_sms" | jq .createdId)"
# Only what delivers codes itself needs to fetch them.
code=$(call "$LOYALTY_URL/v2/otp?$fetch&threshold=60" | jq -r .code)
echo "code $code"
echo "valid $(post /v2/otp/validate "$(echo "$customer" | jq -c --arg code "$code" '.code = $code')" | jq .entity)"
echo "number $(post /v2/cardNumber '{}' | jq -r .entity)"
# Without --fail, the body of an error is there to be read. Its key `errors` tells it from a success.
refusal=$(call -w '\n%{http_code}' "$LOYALTY_URL/v2/otp?$fetch")
echo "refused $(echo "$refusal" | tail -n 1) $(echo "$refusal" | head -n 1 | jq -r '.errors[0] | "\(.code) \(.message)"')"
