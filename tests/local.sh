#!/usr/bin/env bash
# Tests `make invoke` and `make local` in containers, as a developer runs them. Uses the running
# Docker engine, or starts one as root for the test. Pulls no image: if the engine does not have
# AWS's base image, a Debian image gets its name.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
image=public.ecr.aws/lambda/provided:al2023-$ARCH
rapid=public.ecr.aws/lambda/provided:al2023-rapid-$ARCH
engine='' server='' images=()
# Containers of this test have this name in their hosts file. So they can be told from those of a
# developer on the same engine.
export SAM_LOCAL_HOST=loyalty-codes-test-$$.invalid

# SAM must remove its containers. The test fails if a container of it is left, and removes it.
left_over() {
  docker ps --all --quiet --filter label=sam.cli.container.type=lambda |
    xargs --no-run-if-empty docker inspect --format '{{.Id}} {{.HostConfig.ExtraHosts}}' |
    sed -n "s/ .*$SAM_LOCAL_HOST:.*//p"
}
cleanup() {
  status=$?
  trap - EXIT
  [[ -z $server ]] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  left_over 2>/dev/null | xargs --no-run-if-empty docker rm --force >/dev/null || true
  ((${#images[@]} == 0)) || docker image rm "${images[@]}" >/dev/null 2>&1 || true
  [[ -z $engine ]] || { kill "$engine" && wait "$engine" || true; }
  ((status == 0)) || tail -n 20 "$folder"/*.log
  rm -rf "$folder"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  echo "$1" >&2
  exit 1
}

if ! docker info >/dev/null 2>&1; then
  echo '{}' >"$folder/daemon.json"
  export DOCKER_HOST="unix://$folder/docker.sock"
  dockerd --config-file "$folder/daemon.json" --data-root "$folder/data" --exec-root "$folder/exec" \
    --pidfile "$folder/pid" --host "$DOCKER_HOST" >"$folder/dockerd.log" 2>&1 &
  engine=$!
  for _ in {1..300}; do
    docker info >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || fail 'dockerd ended'
    sleep 0.1
  done
fi

has_image() { docker image inspect "$1" >/dev/null 2>&1; }
# SAM builds the second image from the first one.
has_image "$rapid" || images+=("$rapid")
if ! has_image "$image"; then
  images+=("$image")
  base=.tools/debian-$ARCH.tar
  if [[ ! -f $base ]]; then
    mkdir -p .tools
    debootstrap --variant=minbase bookworm "$folder/debian" >"$folder/debootstrap.log"
    tar --create --file "$base.part" --directory "$folder/debian" .
    mv "$base.part" "$base"
    rm -rf "$folder/debian"
  fi
  docker import "$base" "$image" >/dev/null
fi

# SAM's temporary files are below the folder, too.
export SAM_SKIP_PULL_IMAGE=true TMPDIR=$folder

# Invokes the function with an event and prints the body of the answer, which must be a 200.
invoke() {
  timeout 300 make --silent invoke ARCH="$ARCH" SAM_DB="$folder/sam.db" EVENT="events/$1" 2>"$folder/invoke.log" |
    tee "$folder/answer.log" | tail -n 1 | .venv/bin/python -c '
import json, sys
answer = json.load(sys.stdin)
sys.exit(str(answer)) if answer["statusCode"] != 200 else print(answer["body"])'
}

number=$(invoke card-number-get.v2.json)
next=$(invoke card-number-get.v1.json)
echo "make invoke: $number, then $next"
[[ $number == *'"1000000010"'* && $next == *'"1000000011"'* ]] || fail 'the answers are not the first two numbers'
invoke otp-generate.v2.json
# The demo's table has no such message, so nothing is sent and nothing fails.
delivered=$(timeout 300 make --silent invoke ARCH="$ARCH" SAM_DB="$folder/sam.db" EVENT=events/stream-message.json \
  2>"$folder/invoke.log" | tail -n 1)
echo "make invoke of the delivery function: $delivered"
[[ $delivered == '{"batchItemFailures"'* ]] || fail 'the delivery function does not answer'
[[ -z $(left_over) ]] || fail '`make invoke` leaves a container behind'

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
make --silent local ARCH="$ARCH" PORT="$port" SAM_DB="$folder/sam.db" >"$folder/calls.log" 2>"$folder/local.log" &
server=$!
for _ in {1..600}; do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  kill -0 "$server" 2>/dev/null || fail '`make local` ended'
  sleep 0.5
done

# Runs the printed commands. Each must be answered with a 2xx.
sed -n '/^: /,$p' "$folder/calls.log" >"$folder/calls"
{
  echo 'set -euo pipefail; curl() { command curl --fail-with-body --max-time 60 "$@"; }'
  cat "$folder/calls"
} | bash >"$folder/answers.log"
cat "$folder/answers.log"
for expected in '"code":"' '{"entity":true' '{"entity":"1000000012"' '"createdId":'; do
  grep -qF "$expected" "$folder/answers.log" || fail "$expected is not among the answers"
done

kill "$server"
wait "$server" || true
server=
[[ -z $(left_over) ]] || fail '`make local` leaves a container behind'
