"""Runs the receivers in docs/webhook.md against real deliveries. `make test-webhook` runs this.

Between the service and each receiver is a proxy. It records the requests, and answers the first
attempt of each message with a 503 instead of passing it on.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOYALTYCTL = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/loyaltyctl"
# The languages of the code blocks, with the command that runs one.
RECEIVERS = {
    "python": lambda file, port: [sys.executable, file],
    "js": lambda file, port: ["node", file],
    "php": lambda file, port: ["php", "-q", "-S", f"127.0.0.1:{port}", file],
}
MOBILE, EMAIL = "918799361139", "ann.lee@example.com"
ORG = """
id = {id}
name = "Receivers"
timezone = "Asia/Kolkata"
country_code = "91"
national_mobile_length = 10
[delivery]
SMS = "webhook"
EMAIL = "webhook"
[delivery.webhook]
url = "{url}"
"""


def until(condition, what, seconds=30):
    """Returns what `condition` returns as soon as that is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.05)
    return result


@contextlib.contextmanager
def running(command, log, **environment):
    """Runs a command, and ends it afterwards. It writes to the file `log`."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=log.parent,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send(port, method, target, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Proxy(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        # The others are those of this connection.
        own = ("content-type", "webhook-")
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower().startswith(own)}
        known = {request["headers"]["webhook-id"] for request in self.server.requests}
        first = headers["webhook-id"] not in known
        self.server.requests.append({"target": self.path, "headers": headers, "body": body})
        status = 503 if first else send(self.server.receiver, "POST", self.path, body, headers)[0]
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def proxy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Service:
    """`loyaltyctl serve`, and an operator's commands on its table."""

    def __init__(self, log):
        printed = log.read_text
        api = until(lambda: re.search(r"loyalty-codes listens on http://\S+:(\d+)", printed()), printed)
        dynamodb = until(lambda: re.search(r"DynamoDB listens on (\S+)", printed()), printed)
        self.port, self.dynamodb = int(api[1]), dynamodb[1]
        self.folder = log.parent

    def loyaltyctl(self, *words):
        command = [LOYALTYCTL, "--json", "--endpoint", self.dynamodb, *words]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def issue(self, till, org):
        """Has an OTP sent as a text message and as an e-mail, and returns its code."""
        credentials = b64encode(till.encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
        body = {
            "entityType": "MOBILE",
            "entityValue": MOBILE,
            "action": "REGISTRATION",
            "template": f"{org}: {{{{ validation_code }}}}",
            "emailTemplate": {"subject": f"{org}: {{{{ validation_code }}}}", "body": "<p>{{ validation_code }}</p>"},
            "channels": [{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}],
        }
        status, answer = send(self.port, "POST", "/v2/otp/generate", json.dumps(body), headers)
        assert status == 200, answer
        query = f"source=INSTORE&identifierName=mobile&identifierValue={MOBILE}&scope=REGISTRATION"
        status, answer = send(self.port, "GET", f"/v2/otp?{query}", None, headers)
        assert status == 200, answer
        return json.loads(answer)["code"]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check(service, language, code, org):
    """Has two messages sent to a receiver, and plays their requests again."""
    folder = service.folder / language
    folder.mkdir()
    file = folder / "receiver.cjs" if language == "js" else folder / f"receiver.{language}"
    file.write_text(code)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with proxy() as recorded:
        recorded.receiver = port
        org_file = folder / "org.toml"
        org_file.write_text(ORG.format(id=org, url=f"http://127.0.0.1:{recorded.server_port}/otp?for={language}"))
        service.loyaltyctl("org", "apply", org_file)
        till = f"till.{language}"
        made = service.loyaltyctl("till", "create", till, "--org", str(org), "--allow", "otp:fetch,otp:issue")
        secret = service.loyaltyctl("org", "webhook-secret", str(org))["secret"]
        assert re.fullmatch("whsec_[A-Za-z0-9+/]{43}=", secret), "the secret's form"

        log = folder / "log"
        with running(
            RECEIVERS[language](file, port), log, WEBHOOK_SECRET=secret, PORT=str(port), TMPDIR=str(folder)
        ):
            until(lambda: listens(port), log.read_text)
            otp = service.issue(f"{till}:{made['password']}", org)
            expected = [f"EMAIL to {EMAIL}: {org}: {otp}", f"SMS to {MOBILE}: {org}: {otp}"]

            def sent():
                lines = log.read_text().splitlines()
                return sorted(line for line in lines if line.startswith(("EMAIL to", "SMS to")))

            until(lambda: sent() == expected, log.read_text)
            # The attempts that the proxy refused, and those that the receiver took.
            until(lambda: len(recorded.requests) == 4, lambda: recorded.requests)
            ids = [request["headers"]["webhook-id"] for request in recorded.requests]
            assert sorted(ids) == sorted([*set(ids)] * 2), f"two attempts of each of two messages: {ids}"

            for request in recorded.requests:
                assert request["target"] == f"/otp?for={language}", request
                headers, body = request["headers"], request["body"]

                def play(body=body, **changed):
                    changed = {name.replace("_", "-"): value for name, value in changed.items()}
                    return send(port, "POST", request["target"], body, {**headers, **changed})[0]

                # Later, the answer of the receiver was lost.
                assert play() in range(200, 300), "a message that was sent"
                assert play(body=body + b" ") == 401, "a body that was changed"
                assert play(webhook_id="another") == 401, "another id"
                old = str(int(headers["webhook-timestamp"]) - 3600)
                assert play(webhook_timestamp=old) == 401, "an old timestamp, not signed"
                assert play(webhook_timestamp="x") == 401, "no timestamp"
                assert play(webhook_signature="v1,AAAA v2,x") == 401, "wrong signatures"
                several = f"v1,AAAA {headers['webhook-signature']}"
                assert play(webhook_signature=several) in range(200, 300), "one of several signatures"
            assert sent() == expected, f"each message is sent once: {log.read_text()}"
    print(f"{language}: two messages, each after a refused attempt, sent once; forged requests refused")


def main():
    text = (ROOT / "docs/webhook.md").read_text()
    blocks = dict(re.findall(r"^```(python|js|php)\n(.*?)^```$", text, re.M | re.S))
    assert set(blocks) == set(RECEIVERS), f"the receivers in docs/webhook.md: {set(blocks)}"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "service.log"
        serve = [LOYALTYCTL, "serve", "--in-memory", "--listen", "127.0.0.1:0", "--deliver", "webhook"]
        with running(serve, log, RUST_LOG="warn"):
            service = Service(log)
            try:
                for org, (language, code) in enumerate(blocks.items(), start=77):
                    check(service, language, code, org)
            except BaseException:
                print(log.read_text(), file=sys.stderr)
                raise


main()
