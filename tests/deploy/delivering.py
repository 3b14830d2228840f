"""The delivery function: from a request through the API to an e-mail and a signed webhook."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from emulator import until
from expect import assert_equal, assert_ok, assert_that
from serving import DEMO_ORG, EMAIL, MOBILE, SECRETS
from stack import ROOT, Stack

SENDER = "otp@shop.example.com"
# Statements of the delivery role that allow sending.
SENDING = {"Calls", "Mails", "TextMessages"}


class Gateway(BaseHTTPRequestHandler):
    """A gateway that is busy at the first attempt of each message."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        ids = [headers["webhook-id"] for headers, _ in self.server.requests]
        self.server.requests.append((self.headers, body))
        self.send_response(204 if self.headers["webhook-id"] in ids else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def the_doctor_finds_what_was_deployed(stack: Stack):
    # Ministack 1.5.33 leaves TTL and recovery of a template's table out, and takes the parameter's text
    # for its protection.
    dynamodb = stack.emulator.client("dynamodb")
    dynamodb.update_table(TableName=stack.table(), DeletionProtectionEnabled=True)
    recovery = {"PointInTimeRecoveryEnabled": True}
    dynamodb.update_continuous_backups(TableName=stack.table(), PointInTimeRecoverySpecification=recovery)
    stack.loyaltyctl("table", "create")
    program = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/loyaltyctl"
    printed = stack.run(program, "--json", "--table", stack.table(), "doctor", succeeds=False)
    checks = json.loads(printed.splitlines()[0])["checks"]
    failed = [(check["name"], check["finding"]) for check in checks if check["status"] == "failed"]
    assert_equal([name for name, _ in failed], ["webhook"], f"only the gateway has no public address: {failed}")
    assert_that("not public" in failed[0][1], f"the gateway: {failed}")
    statuses = {check["name"]: check["status"] for check in checks}
    for name in ("credentials", "table", "keys", "TTL", "stream", "point-in-time recovery", "permissions", "delivery function"):
        assert_equal(statuses.get(name), "ok", f"{name}: {checks}")


def delivery_function(stack):
    return stack.outputs()["DeliveryFunctionName"]


def the_stream_starts_the_delivery_function(stack: Stack):
    mappings = stack.functions.list_event_source_mappings()["EventSourceMappings"]
    assert_equal(len(mappings), 1, f"event source mappings: {mappings}")
    mapping = mappings[0]
    table = stack.emulator.client("dynamodb").describe_table(TableName=stack.table())["Table"]
    assert_equal(mapping["EventSourceArn"], table["LatestStreamArn"], "the stream")
    assert_equal(mapping["FunctionArn"].rsplit(":", 1)[1], delivery_function(stack), "the function")
    assert_equal(mapping["State"], "Enabled", "its state")
    for name, value in {
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 100,
        "ParallelizationFactor": 10,
        "BisectBatchOnFunctionError": True,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "MaximumRetryAttempts": 30,
        "MaximumRecordAgeInSeconds": 43200,
    }.items():
        assert_equal(mapping[name], value, name)
    program = (ROOT / ".aws-sam/build/DeliveryFunction/bootstrap").read_bytes()
    assert_equal(program[:4] + program[18:20], b"\x7fELF\x3e\x00", "the processor of the program")
    assert_that(program != (ROOT / ".aws-sam/build/Function/bootstrap").read_bytes(), "a program of its own")


def an_operator_turns_delivery_on(stack: Stack):
    stack.gateway_server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    stack.gateway_server.requests = []
    threading.Thread(target=stack.gateway_server.serve_forever, daemon=True).start()
    org = stack.folder / "org.toml"
    org.write_text(
        DEMO_ORG
        + f"""
[delivery]
SMS = "webhook"
EMAIL = "aws"
[delivery.aws]
email_from = "Demo Stores <{SENDER}>"
[delivery.webhook]
url = "http://127.0.0.1:{stack.gateway_server.server_port}/otp"
"""
    )
    stack.loyaltyctl("org", "apply", org)
    stack.webhook_secret = stack.loyaltyctl("org", "webhook-secret", "966")["secret"]
    assert_that(re.fullmatch("whsec_[A-Za-z0-9+/]{43}=", stack.webhook_secret), "the secret's form")
    SECRETS.extend([stack.webhook_secret, stack.webhook_secret.removeprefix("whsec_")])

    # What is outside of the template: a verified sender; a gateway that has no public address, which
    # only tests allow; and ministack 1.5.33 asks for a permission to send e-mail that names no identity.
    stack.emulator.client("sesv2").create_email_identity(EmailIdentity=SENDER)
    variables = stack.functions.get_function_configuration(FunctionName=delivery_function(stack))["Environment"]
    variables["Variables"]["WEBHOOK_ALLOW_PRIVATE"] = "1"
    stack.functions.update_function_configuration(FunctionName=delivery_function(stack), Environment=variables)
    stack.functions.get_waiter("function_updated_v2").wait(FunctionName=delivery_function(stack))
    change_role(stack, lambda statement: {**statement, "Resource": "*"} if statement["Sid"] == "Mails" else statement)


def role(stack):
    return {"RoleName": stack.resources()["DeliveryRole"], "PolicyName": "delivery"}


def put_role(stack, document):
    stack.emulator.client("iam").put_role_policy(**role(stack), PolicyDocument=json.dumps(document))


def change_role(stack, change):
    """Changes each statement of the delivery role by a function that returns it, or None to remove it.

    Returns the document that was there before.
    """
    document = stack.emulator.client("iam").get_role_policy(**role(stack))["PolicyDocument"]
    changed = [change(statement) for statement in document["Statement"]]
    put_role(stack, {**document, "Statement": [statement for statement in changed if statement is not None]})
    return document


def issue(stack, scope="POINTS"):
    """Has an OTP sent by both channels, and returns its code and the key of its message."""
    channels = [{"type": "SMS", "value": f"+91 {MOBILE}"}, {"type": "EMAIL", "value": EMAIL.upper()}]
    body = {
        "entityType": "MOBILE",
        "entityValue": MOBILE,
        "action": scope,
        "template": "Text {{ validation_code }}",
        "emailTemplate": {"subject": "Mail {{ validation_code }}", "body": "Ann & Co: {{otp_code}}"},
        "channels": channels,
    }
    created = assert_ok(stack.call("POST", "/v2/otp/generate", body), "an OTP with two channels")["createdId"]
    otp = assert_ok(stack.call("GET", f"/v2/otp?source=INSTORE&mobile={MOBILE}&scope={scope}"), "the OTP")
    SECRETS.append(otp["code"])
    key = {"PK": {"S": f"ORG#966#USER#{otp['userId']}"}, "SK": {"S": f"MESSAGE#{scope}#{created:016}#00001"}}
    return otp, created, key


def outbox(stack):
    connection = http.client.HTTPConnection("127.0.0.1", stack.emulator.port, timeout=30)
    connection.request("GET", "/_ministack/ses/messages")
    messages = json.loads(connection.getresponse().read())["messages"]
    connection.close()
    return [message for account in messages.values() for message in account]


def outcomes(stack, key):
    """What became of each channel of a message, in the order of its channels, as soon as that is known."""
    dynamodb = stack.emulator.client("dynamodb")

    def ended():
        item = dynamodb.get_item(TableName=stack.table(), Key=key, ConsistentRead=True)["Item"]
        states = item["deliveries"]["M"]
        found = [states.get(str(channel), {}).get("M", {}) for channel in range(2)]
        found = [{name: value["S"] for name, value in state.items() if "S" in value} for state in found]
        return found if all(state.get("state") not in (None, "sending") for state in found) else None

    return until(ended, f"the outcomes of {key['SK']['S']}")


def a_request_ends_as_an_email_and_as_a_signed_webhook(stack: Stack):
    mails, requests = len(outbox(stack)), len(stack.gateway_server.requests)
    otp, created, key = issue(stack)
    text, mail = outcomes(stack, key)
    assert_equal((text["state"], mail["state"]), ("sent", "sent"), "the outcomes")

    sent = outbox(stack)[mails:]
    assert_equal(len(sent), 1, f"e-mails: {sent}")
    assert_equal((sent[0]["Source"], sent[0]["To"]), (f"Demo Stores <{SENDER}>", [EMAIL]), "sender and recipient")
    assert_equal(sent[0]["Subject"], f"Mail {otp['code']}", "subject")
    assert_equal(sent[0]["BodyText"], f"Ann & Co: {otp['code']}", "text")
    assert_equal(sent[0]["BodyHtml"], f"Ann &amp; Co: {otp['code']}", "HTML")
    assert_that(sent[0]["MessageId"] in mail.values(), f"the provider's id, {sent[0]['MessageId']}: {mail}")

    attempts = stack.gateway_server.requests[requests:]
    assert_equal(len(attempts), 2, "attempts, of which the first was answered with a 503")
    key = base64.b64decode(stack.webhook_secret.removeprefix("whsec_"))
    for headers, body in attempts:
        assert_equal(headers["content-type"], "application/json", "content-type")
        assert_equal((headers["webhook-id"], body), (attempts[0][0]["webhook-id"], attempts[0][1]), "id and body")
        timestamp = headers["webhook-timestamp"]
        assert_that(abs(time.time() - int(timestamp)) < 60, f"the attempt's time: {timestamp}")
        signed = f"{headers['webhook-id']}.{timestamp}.".encode() + body
        signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert_that(f"v1,{signature}" in headers["webhook-signature"].split(" "), "the signature")
    event = json.loads(attempts[0][1])
    assert_equal(event["type"], "otp.message", "type")
    assert_equal(
        event["data"],
        {
            "orgId": 966,
            "createdId": created,
            "scope": "POINTS",
            "channel": "SMS",
            "to": f"91{MOBILE}",
            "text": f"Text {otp['code']}",
            "validUpto": otp["validUpto"],
        },
        "the message",
    )


def the_delivery_function_has_only_the_permissions_of_its_role(stack: Stack):
    # Without those that allow sending, the e-mail fails, and the webhook, which needs none, does not.
    document = change_role(stack, lambda statement: None if statement["Sid"] in SENDING else statement)
    mails = len(outbox(stack))
    _, _, key = issue(stack, "COUPON")
    text, mail = outcomes(stack, key)
    assert_equal((text["state"], mail["state"]), ("sent", "failed"), f"the outcomes without permission: {mail}")
    assert_equal(len(outbox(stack)), mails, "e-mails")
    put_role(stack, document)
    a_request_ends_as_an_email_and_as_a_signed_webhook(stack)


def the_delivery_logs_hold_no_code_and_no_address(stack: Stack):
    logs = stack.emulator.client("logs")
    group = stack.functions.get_function_configuration(FunctionName=delivery_function(stack))["LoggingConfig"]
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group["LogGroup"])
    text = "\n".join(event["message"] for page in pages for event in page["events"])
    assert_that("MessagesSent" in text, f"the metrics are in the log: {text[-2000:]}")
    for secret in SECRETS:
        assert_that(secret not in text, f"{secret} is in a log line")
