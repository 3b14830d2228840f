"""A proxy that lets some requests of a client fail, to test whether the client repeats them.

Prints its URL. The first token request is answered with 503, the first request with a token with 401,
and the second one with 503; its third attempt is forwarded. With `--exhausted`, each request to issue
an OTP is answered with 429 and a `Retry-After` of an hour. With `--lost`, the only faults are two answers
of requests that were carried out: that of the first attempt to issue an OTP is lost as a whole, and that
of the second in the middle.

    python3 client_faults.py http://127.0.0.1:3000 [--exhausted | --lost]
"""

import http.server
import json
import sys
import urllib.error
import urllib.request

TARGET, EXHAUSTED, LOST = sys.argv[1], "--exhausted" in sys.argv, "--lost" in sys.argv
TOKEN = "/v3/oauth/token/generate"
FAULTS = {TOKEN: [], "API": []} if LOST else {TOKEN: [503], "API": [401, 503]}
# The idempotency keys of attempts at the first request.
keys = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if EXHAUSTED and self.path == "/v2/otp/generate":
            return self.refuse(429, 3600)
        faults = FAULTS["API" if self.path != TOKEN else TOKEN]
        if self.path == "/v2/otp/generate":
            keys.append(self.headers["Idempotency-Key"])
        if faults:
            return self.refuse(faults.pop(0), 1)
        if len(set(keys)) > 1:
            return self.refuse(400, 1)
        names = ["Content-Type", "Idempotency-Key", "X-CAP-API-OAUTH-TOKEN"]
        headers = {name: self.headers[name] for name in names if self.headers[name]}
        data = body if self.command == "POST" else None
        request = urllib.request.Request(TARGET + self.path, data, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as response:
                answer = response.read()
            sent = len(answer)
            if LOST and self.path == "/v2/otp/generate" and len(keys) <= 2:
                self.close_connection = True
                if len(keys) == 1:
                    return None
                sent //= 2
            self.answer(response.status, answer, {}, sent)
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read(), {})

    def refuse(self, status, retry_after):
        errors = [{"status": False, "code": status, "message": "injected"}]
        body = json.dumps({"errors": errors, "warnings": []}).encode()
        self.answer(status, body, {"Retry-After": str(retry_after)})

    def answer(self, status, body, headers, sent=None):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
