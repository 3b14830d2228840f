#!/usr/bin/env bash
# Runs `make test-engine` on its own ministack.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

# Temporary files are below the folder and are removed with it.
folder=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
BIND_HOST=127.0.0.1 GATEWAY_PORT=$port SERVICES=dynamodb LOG_LEVEL=ERROR TMPDIR=$folder \
  "$root/.tools/ministack/bin/ministack" >"$folder/log" 2>&1 &
engine=$!
trap 'kill "$engine"; wait "$engine" || true; rm -rf "$folder"' EXIT
for _ in {1..100}; do
  sleep 0.1
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
done
make -C "$root" test-engine ENDPOINT="http://127.0.0.1:$port" || { cat "$folder/log"; exit 1; }
