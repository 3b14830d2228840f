#!/usr/bin/env bash
# Plays `make invoke` and `make local` as a developer calls them, in containers: of the Docker engine that runs, or else,
# as root, of one that is started for the time of the test. No registry is asked for AWS's base image: where the engine
# has none, a Debian under its name stands in for it.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
image=public.ecr.aws/lambda/provided:al2023-$ARCH
rapid=public.ecr.aws/lambda/provided:al2023-rapid-$ARCH
engine='' server='' imported=''

# SAM's containers must be gone without our help: whatever is left is removed, and fails the test.
left_over() { docker ps --all --quiet --filter label=sam.cli.container.type=lambda; }
cleanup() {
  status=$?
  trap - EXIT
  [[ -z $server ]] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  if [[ -n $imported ]]; then
    left_over | xargs --no-run-if-empty docker rm --force >/dev/null || true
    docker image rm --force "$rapid" "$image" >/dev/null 2>&1 || true
  fi
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

if ! docker image inspect "$image" >/dev/null 2>&1; then
  base=.tools/debian-$ARCH.tar
  if [[ ! -f $base ]]; then
    mkdir -p .tools
    debootstrap --variant=minbase bookworm "$folder/debian" >"$folder/debootstrap.log"
    tar --create --file "$base.part" --directory "$folder/debian" .
    mv "$base.part" "$base"
    rm -rf "$folder/debian"
  fi
  imported=yes
  docker import "$base" "$image" >/dev/null
fi

# SAM's files, too, go with the folder.
export SAM_SKIP_PULL_IMAGE=true TMPDIR=$folder

# The answer of a played event, which must be a 200.
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
[[ $number == *'"1000000010"'* && $next == *'"1000000011"'* ]] || fail 'these are not the first two numbers'
invoke otp-generate.v2.json
[[ -z $(left_over) ]] || fail '`make invoke` leaves a container behind'

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
make --silent local ARCH="$ARCH" PORT="$port" SAM_DB="$folder/sam.db" >"$folder/calls.log" 2>"$folder/local.log" &
server=$!
for _ in {1..600}; do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  kill -0 "$server" 2>/dev/null || fail '`make local` ended'
  sleep 0.5
done

# The calls that it prints to be pasted; each must be answered with a 2xx.
sed -n '/^# /,$p' "$folder/calls.log" >"$folder/calls"
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
