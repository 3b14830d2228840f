#!/usr/bin/env bash
# Runs the functions of `make sam-build` in a container with `sam local`, on the DynamoDB of a demo.
# `sam_local.sh start-api PORT` serves the API. `sam_local.sh invoke EVENT` sends one event. ARCH is
# the processor of the built function. SAM_DB is the file of the demo's data. SAM_LOCAL_HOST is a name
# to put into the containers' hosts file, by which a test finds its containers.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
started=()
cleanup() {
  ((${#started[@]} == 0)) || kill "${started[@]}" 2>/dev/null || true
  wait
  rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A container reaches this machine as `host.docker.internal`. On Linux that is the address of
# Docker's bridge, so the embedded DynamoDB listens there. Docker Desktop has the bridge in its own
# virtual machine, and forwards to loopback.
address=$(docker network inspect bridge | .venv/bin/python -c '
import ipaddress, json, socket, sys
networks = [c for c in json.load(sys.stdin)[0]["IPAM"]["Config"] if ":" not in c["Subnet"]]
address = networks[0].get("Gateway") or str(ipaddress.ip_network(networks[0]["Subnet"])[1])
try:
    socket.socket().bind((address, 0))
except OSError:
    address = "127.0.0.1"
print(address)')

# SAM resolves `!Ref Table` to the name `Table`.
target/debug/loyaltyctl --table Table serve --demo --db "$SAM_DB" --listen 127.0.0.1:0 --dynamodb-listen "$address:0" \
  >"$folder/demo" &
started+=($!)
for _ in {1..300}; do
  grep -q '^curl .*/v2/customers' "$folder/demo" && break
  kill -0 $! 2>/dev/null || exit 1
  sleep 0.1
done
field() { sed -n "$1" "$folder/demo"; }
demo=$(field 's/^loyalty-codes listens on //p')
credentials=$(field 's/^curl .* -u \([^ ]*\) .*/\1/p' | head -n 1)
dynamodb=$(field 's/^DynamoDB listens on [^ ]*:\([0-9]*\) .*/\1/p')
[[ -n $demo && -n $credentials && -n $dynamodb ]] || { cat "$folder/demo"; exit 1; }

# The function signs its requests. The embedded DynamoDB accepts any credentials.
export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_EC2_METADATA_DISABLED=true
options=(--add-host host.docker.internal:host-gateway
  --parameter-overrides "Architecture=$ARCH DynamoDbEndpoint=http://host.docker.internal:$dynamodb")
[[ -z ${SAM_LOCAL_HOST-} ]] || options+=(--add-host "$SAM_LOCAL_HOST:127.0.0.1")
case $1 in
  start-api)
    field "/^DynamoDB listens/p; /^To paste/,\$ { s#$demo#http://127.0.0.1:$2#; p; }"
    sam local start-api --port "$2" --warm-containers LAZY "${options[@]}" &
    ;;
  invoke)
    # The events contain the credentials of the tests' till. The demo's till has other ones.
    sed "s#c3RvcmUuc2VydmVyOnNlcnZlcjEyMw==#$(printf %s "$credentials" | base64 | tr -d '\n')#" "$2" >"$folder/event.json"
    # Events of the table's stream are the delivery function's.
    function=Function
    [[ $2 != */stream-* ]] || function=DeliveryFunction
    sam local invoke "$function" --event "$folder/event.json" "${options[@]}" &
    ;;
esac
started+=($!)
wait $!
