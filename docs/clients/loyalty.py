"""A client of the loyalty API, with Python's standard library alone (3.9 or later).

    LOYALTY_URL=https://… LOYALTY_TILL=store.server LOYALTY_PASSWORD=… python3 loyalty.py 8799361139
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid


class Refused(Exception):
    """The service refused a request. `codes` says why."""

    def __init__(self, status, errors, retry_after):
        super().__init__("; ".join(f"{error['code']} {error['message']}" for error in errors) or f"HTTP {status}")
        self.status, self.retry_after = status, retry_after
        self.codes = [error["code"] for error in errors]


class Loyalty:
    ATTEMPTS = 3

    def __init__(self, url, till, password):
        self.url, self.till, self.password = url, till, password
        self.token, self.renew_at = None, 0.0

    def get(self, path, **parameters):
        return self._call("GET", f"{path}?{urllib.parse.urlencode(parameters)}", None)

    def post(self, path, **body):
        return self._call("POST", path, body)

    def _call(self, method, path, body):
        # The same key in every attempt, so that nothing happens twice.
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        renewed, attempt = False, 1
        while True:
            try:
                headers["X-CAP-API-OAUTH-TOKEN"] = self._valid_token()
                return self._send(method, path, body, headers)
            except Refused as refusal:
                if refusal.status == 401 and self.token is not None and not renewed:
                    renewed, self.token = True, None
                    continue
                if refusal.status != 503 or attempt == self.ATTEMPTS:
                    raise
                wait = refusal.retry_after
            except (OSError, http.client.HTTPException):
                # The answer was lost. The request may have been carried out.
                if attempt == self.ATTEMPTS:
                    raise
                wait = 1
            time.sleep(wait)
            attempt += 1

    def _valid_token(self):
        if self.token is None or time.monotonic() >= self.renew_at:
            self.token = None
            credentials = {"key": self.till, "secret": self.password}
            data = self._send("POST", "/v3/oauth/token/generate", credentials, {})["data"]
            self.token, self.renew_at = data["accessToken"], time.monotonic() + data["ttlSeconds"] - 10
        return self.token

    def _send(self, method, path, body, headers):
        data = None if body is None else json.dumps(body).encode()
        headers = {**headers, "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise refused(error) from None


def refused(error):
    retry_after = int(error.headers["Retry-After"] or 1)
    try:
        return Refused(error.code, json.load(error)["errors"], retry_after)
    except (ValueError, KeyError):
        return Refused(error.code, [], retry_after)


def main(mobile):
    loyalty = Loyalty(os.environ["LOYALTY_URL"], os.environ["LOYALTY_TILL"], os.environ["LOYALTY_PASSWORD"])
    customer = {"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"}
    channels = [{"type": "SMS", "value": mobile}]
    print("issued", loyalty.post("/v2/otp/generate", **customer, channels=channels)["createdId"])
    # Only what delivers codes itself needs to fetch them.
    otp = loyalty.get("/v2/otp", source="INSTORE", mobile=mobile, scope="POINTS", threshold=60)
    print("code", otp["code"])
    print("valid", json.dumps(loyalty.post("/v2/otp/validate", **customer, code=otp["code"])["entity"]))
    print("number", loyalty.post("/v2/cardNumber")["entity"])
    try:
        loyalty.get("/v2/otp", source="INSTORE", mobile=mobile, scope="POINTS")
    except Refused as refusal:
        print("refused", refusal.status, refusal)


if __name__ == "__main__":
    main(sys.argv[1])
