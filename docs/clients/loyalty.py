"""A client of the loyalty API, with Python's standard library alone (3.9 or later).

    LOYALTY_URL=https://… LOYALTY_TILL=store.server LOYALTY_PASSWORD=… python3 loyalty.py 8799361139
"""

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

    def __init__(self, status, errors):
        super().__init__("; ".join(f"{error['code']} {error['message']}" for error in errors) or f"HTTP {status}")
        self.status = status
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
        renewed = False
        for attempt in range(1, self.ATTEMPTS + 1):
            try:
                headers["X-CAP-API-OAUTH-TOKEN"] = self._valid_token()
                return self._send(method, path, body, headers)
            except urllib.error.HTTPError as error:
                wait, refusal = error.headers["Retry-After"], refused(error)
                if error.code == 401 and not renewed:
                    renewed, self.token = True, None
                elif error.code == 503 and attempt < self.ATTEMPTS:
                    time.sleep(int(wait or 1))
                else:
                    raise refusal from None
            except (urllib.error.URLError, TimeoutError):
                # The answer was lost. The request may have been carried out.
                if attempt == self.ATTEMPTS:
                    raise
        raise Refused(401, [])

    def _valid_token(self):
        if self.token is None or time.monotonic() >= self.renew_at:
            credentials = {"key": self.till, "secret": self.password}
            data = self._send("POST", "/v3/oauth/token/generate", credentials, {})["data"]
            self.token, self.renew_at = data["accessToken"], time.monotonic() + data["ttlSeconds"] - 10
        return self.token

    def _send(self, method, path, body, headers):
        data = None if body is None else json.dumps(body).encode()
        headers = {**headers, "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=15) as response:
            return json.load(response)


def refused(error):
    try:
        return Refused(error.code, json.load(error)["errors"])
    except (ValueError, KeyError):
        return Refused(error.code, [])


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
