"""Calls of the README on every documented route of the deployed API."""

import hashlib
import json
import re
from urllib.parse import quote

from emulator import until
from expect import assert_equal, assert_ok, assert_refused, assert_that
from stack import ROOT, Stack

PERMISSIONS = "otp:fetch,otp:issue,otp:validate,card_number:generate,customer:register,customer:read,customer:update"
# The demo's org, without what it delivers by.
DEMO_ORG = (ROOT / "src/bin/loyaltyctl/demo.toml").read_text().split("[delivery]")[0]
MOBILE = "8799361139"
EMAIL = "ann.lee@example.com"
# Routes that have answered with a success, by their names in openapi.json.
CALLED = set()
# Ids of requests whose log lines are searched.
REQUEST_IDS = []
# Values that no log line may contain.
SECRETS = [MOBILE, EMAIL]


def succeed(stack, method, path, target, body=None, **options):
    """Returns the body of a success on a documented route."""
    answer = stack.call(method, target, body, **options)
    body = assert_ok(answer, f"{method} {target}")
    CALLED.add((method, path))
    REQUEST_IDS.append(answer.headers["X-Request-Id"])
    assert_equal(answer.headers["Cache-Control"], "no-store", "Cache-Control")
    return body


def the_api_has_the_routes_of_the_template(stack: Stack):
    keys = stack.import_routes()
    # HTTP APIs send requests without a route of their own there.
    expected = {"$default", "GET /v2/otp/{parameters+}"} | {f"{method} {path}" for method, path in documented()}
    assert_equal(keys, expected, "the routes")


def documented():
    paths = json.loads((ROOT / "openapi.json").read_text())["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods if method != "parameters"}


def an_operator_makes_an_org_and_tills(stack: Stack):
    org = stack.folder / "org.toml"
    org.write_text(DEMO_ORG)
    stack.loyaltyctl("org", "apply", org)
    for name, permissions in (("store.server", PERMISSIONS), ("store.kiosk", "card_number:generate")):
        made = stack.loyaltyctl("till", "create", name, "--org", "966", "--allow", permissions)
        stack.passwords[name] = made["password"]
        SECRETS.extend([made["password"], hashlib.md5(made["password"].encode()).hexdigest()])


def card_numbers_are_given_in_order(stack: Stack):
    numbers = [succeed(stack, "GET", "/v2/cardNumber", "/v2/cardNumber")["entity"] for _ in range(3)]
    assert_equal(numbers, ["1000000010", "1000000011", "1000000012"], "the numbers")
    wechat = "/v2/cardNumber?source=WECHAT&accountId=WECHAT-API1"
    assert_equal(succeed(stack, "GET", "/v2/cardNumber", wechat), {"entity": "1000000013"}, wechat)


def a_post_with_an_idempotency_key_takes_one_number(stack: Stack):
    def take(key):
        headers = {"Idempotency-Key": key}
        return succeed(stack, "POST", "/v2/cardNumber", "/v2/cardNumber", headers=headers)["entity"]

    assert_equal([take("a"), take("a"), take("b")], ["1000000014", "1000000014", "1000000015"], "the numbers")


def a_customer_is_registered_once(stack: Stack):
    identifiers = [{"type": "mobile", "value": MOBILE}, {"type": "email", "value": EMAIL}]
    profile = {"firstName": "Ann", "lastName": "Lee", "source": "INSTORE", "accountId": "", "identifiers": identifiers}
    body = {"profiles": [profile]}

    def register(**options):
        return stack.call("POST", "/v2/customers", body, **options)

    first = succeed(stack, "POST", "/v2/customers", "/v2/customers", body, headers={"Idempotency-Key": "ann"})
    assert_that(first["createdId"] > 0, str(first))
    again = assert_ok(register(headers={"Idempotency-Key": "ann"}), "again, under the same key")
    assert_equal(again, first, "the answer under the same key")
    assert_refused(register(), 409, "the same customer without a key")
    # The registration took a number for her external ID.
    assert_equal(succeed(stack, "GET", "/v2/cardNumber", "/v2/cardNumber"), {"entity": "1000000017"}, "the next number")
    SECRETS.append("1000000016")


def an_otp_is_issued_fetched_in_every_spelling_and_validated_once(stack: Stack):
    entity = {"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"}
    issue = {**entity, "template": "Your OTP is {{ validation_code }}", "channels": [{"type": "SMS", "value": MOBILE}]}
    created = succeed(stack, "POST", "/v2/otp/generate", "/v2/otp/generate", issue, headers={"Idempotency-Key": "otp"})
    assert_equal(set(created), {"createdId"}, "the answer, which has no code")

    pair = f"source=INSTORE&accountId=&identifierName=mobile&identifierValue={MOBILE}&scope=POINTS&threshold=60"
    short = f"source=INSTORE&mobile={MOBILE}&scope=POINTS"
    international = f"source=INSTORE&mobile={quote(f'+91 {MOBILE}')}&scope=points"
    found = []
    for parameters in (pair, short, international):
        for target in (f"/v2/otp?{parameters}", f"/v2/otp/{parameters}"):
            found.append(succeed(stack, "GET", "/v2/otp", target))
            assert_equal(found[-1], found[0], target)
    otp = found[0]
    assert_equal(otp["orgId"], 966, "orgId")
    assert_that(re.fullmatch("[A-Z0-9]{7}", otp["code"]), f"code: {otp['code']}")
    assert_that(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+05:30", otp["validUpto"]), f"validUpto: {otp['validUpto']}"
    )
    SECRETS.append(otp["code"])

    def validate(code, **headers):
        body = {**entity, "code": code}
        return succeed(stack, "POST", "/v2/otp/validate", "/v2/otp/validate", body, headers=headers)["entity"]

    key = {"Idempotency-Key": "till-1-sale-7"}
    code = otp["code"]
    assert_equal(
        [validate("WRONG42"), validate(code.lower(), **key)], [False, True], "entity, of a wrong code and the right one"
    )
    assert_equal([validate(code), validate(code.lower(), **key)], [False, True], "entity, later and under the same key")
    assert_refused(stack.call("GET", f"/v2/otp?{short}"), 404, "no valid OTP is left", 9001)


def a_customer_is_looked_up_and_changed(stack: Stack):
    lookup = f"/v2/customers/lookup?source=ALL&identifierName=email&identifierValue={quote(EMAIL)}"
    user = succeed(stack, "GET", "/v2/customers/lookup", lookup)["entity"]
    details = lookup.replace("lookup?", "lookup/customerDetails?")
    found = succeed(stack, "GET", "/v2/customers/lookup/customerDetails", details)
    assert_equal((found["id"], found["profiles"][0]["firstName"]), (user, "Ann"), "the customer")
    assert_equal(succeed(stack, "GET", "/v2/customers/{id}", f"/v2/customers/{user}"), found, "the customer by id")
    change = f"/v2/customers/{user}/changeIdentifier?source=INSTORE"
    body = {"add": [{"type": "cuid", "value": "CUID-17"}]}
    succeed(stack, "POST", "/v2/customers/{id}/changeIdentifier", change, body)
    cuid = "/v2/customers/lookup?source=INSTORE&identifierName=cuid&identifierValue=CUID-17"
    assert_equal(succeed(stack, "GET", "/v2/customers/lookup", cuid)["entity"], user, "the customer of the new id")
    SECRETS.append("CUID-17")


def a_token_stands_for_its_till(stack: Stack):
    path = "/v3/oauth/token/generate"

    def ask(secret):
        return {"key": "store.kiosk", "secret": secret}

    answer = stack.call("POST", path, ask(stack.passwords["store.kiosk"]), till=None)
    assert_equal(answer.status, 200, answer.text)
    CALLED.add(("POST", path))
    REQUEST_IDS.append(answer.headers["X-Request-Id"])
    # The only success without `warnings`.
    body = answer.json()
    assert_equal((set(body), body["errors"]), ({"data", "errors"}, None), "the answer")
    assert_equal(body["data"]["ttlSeconds"], 3600, "ttlSeconds")
    token = body["data"]["accessToken"]
    SECRETS.append(token)
    for name, value in (("X-CAP-API-OAUTH-TOKEN", token), ("Authorization", f"Bearer {token}")):
        assert_ok(stack.call("GET", "/v2/cardNumber", till=None, headers={name: value}), f"a token in {name}")
        assert_refused(
            stack.call("POST", "/v2/otp/validate", {}, till=None, headers={name: value}), 403, "its permissions", 4000
        )
    assert_refused(stack.call("POST", path, ask("wrong"), till=None), 401, "a wrong password")
    unknown = {"X-CAP-API-OAUTH-TOKEN": "A" * 43}
    assert_refused(stack.call("GET", "/v2/cardNumber", headers=unknown), 401, "an unknown token beside a password")


CALLS = [
    card_numbers_are_given_in_order,
    a_post_with_an_idempotency_key_takes_one_number,
    a_customer_is_registered_once,
    a_customer_is_looked_up_and_changed,
    an_otp_is_issued_fetched_in_every_spelling_and_validated_once,
    a_token_stands_for_its_till,
]


def every_documented_route_was_called(stack: Stack):
    assert_equal(CALLED, documented(), "the routes that answered")


def refusals_have_the_standard_envelope(stack: Stack):
    path = "/v2/cardNumber"
    without_credentials = stack.call("GET", path, till=None)
    assert_refused(without_credentials, 401, "no credentials")
    assert_equal(without_credentials.headers["WWW-Authenticate"], 'Basic realm="loyalty"', "WWW-Authenticate")
    assert_refused(stack.call("GET", path, secret="wrong"), 401, "a wrong password")
    digest = hashlib.md5(stack.passwords["store.server"].encode()).hexdigest()
    assert_ok(stack.call("GET", path, secret=digest), "md5hex of the password")
    assert_ok(stack.call("GET", path + "/", till="store.kiosk"), "a till with permission, with a trailing slash")
    assert_refused(
        stack.call("POST", "/v2/otp/validate", {}, till="store.kiosk"), 403, "a till without permission", 4000
    )
    assert_refused(stack.call("GET", "/v2/nothing"), 404, "an unknown path")
    assert_refused(stack.call("GET", "/"), 404, "the root")
    wrong = stack.call("DELETE", path)
    assert_refused(wrong, 405, "another method")
    assert_equal({method.strip() for method in wrong.headers["Allow"].split(",")} >= {"GET", "POST"}, True, "Allow")
    assert_refused(stack.call("GET", "/v2/otp?source=INSTORE"), 400, "parameters are missing")
    assert_refused(
        stack.call("GET", "/v2/otp?source=INSTORE&mobile=8799361100&scope=POINTS"), 404, "no such customer", 8015
    )


def the_function_has_only_the_permissions_of_its_role(stack: Stack):
    # The emulator checks every call of the function against its role. The role allowed all calls
    # above. Without its policies, it allows none.
    iam = stack.emulator.client("iam")
    role = stack.function()["Role"].rsplit("/", 1)[1]
    policies = {
        name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    }
    assert_that(policies, "the role has policies of its own")
    for name in policies:
        iam.delete_role_policy(RoleName=role, PolicyName=name)
    denied = stack.call("GET", "/v2/cardNumber")
    for name, document in policies.items():
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))
    assert_that(denied.status in (500, 503), f"without its policies: {denied.status} {denied.text}")
    assert_refused(denied, denied.status, "without its policies")
    assert_ok(stack.call("GET", "/v2/cardNumber"), "with its policies again")


def the_logs_name_requests_but_no_secret_and_no_customer(stack: Stack):
    logs = stack.emulator.client("logs")
    group = stack.function()["LoggingConfig"]["LogGroup"]

    def written():
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        text = "\n".join(event["message"] for page in pages for event in page["events"])
        return text if all(id in text for id in REQUEST_IDS) else None

    text = until(written, f"{group} has all {len(REQUEST_IDS)} requests")
    for secret in SECRETS:
        assert_that(secret not in text, f"{secret} is in a log line")
