"""The four hot routes on boto3, for comparison. They make the same DynamoDB calls, without the service's rules.
The loop at the end talks to the Runtime API. AWS's client for it is in C++."""

import base64
import hashlib
import http.client
import json
import os
import secrets
import time
from datetime import datetime, timezone

import boto3

client = boto3.client("dynamodb")
TABLE = os.environ["TABLE_NAME"]
ORG = "ORG#966"
DAY = 86_400_000
cache = {}


def get(pk, sk):
    key = {"PK": {"S": pk}, "SK": {"S": sk}}
    return client.get_item(TableName=TABLE, Key=key, ConsistentRead=True).get("Item")


def cached(pk, sk):
    if pk not in cache:
        cache[pk] = get(pk, sk)
    return cache[pk]


def authenticate(authorization):
    name, password = base64.b64decode(authorization[6:]).decode().split(":")
    till = cached(f"TILL#{name}", "TILL")
    digest = hashlib.sha256(password.encode()).digest()
    if digest not in [c["M"]["password_digest"]["B"] for c in till["credentials"]["L"]]:
        raise PermissionError("401")
    return cached(f"ORG#{till['org']['N']}", "ORG")


def digits(mobile):
    """A mobile with the country code, in digits alone."""
    digits = "".join(character for character in mobile if character.isdigit())
    return f"91{digits}" if len(digits) == 10 else digits


def find_customer(source, account, mobile):
    return get(f"{ORG}#ID#{source}#{account}#mobile#{digits(mobile)}", "ID")["user_id"]["N"]


def otps(user, scope, now):
    found = client.query(
        TableName=TABLE,
        KeyConditionExpression="#pk = :pk AND #sk BETWEEN :from AND :to",
        ExpressionAttributeNames={"#pk": "PK", "#sk": "SK"},
        ExpressionAttributeValues={
            ":pk": {"S": f"{ORG}#USER#{user}"},
            ":from": {"S": f"OTP#{scope}#{(now - DAY) * 1000:016}"},
            ":to": {"S": f"OTP#{scope}#GUESSES"},
        },
        ConsistentRead=True,
        ScanIndexForward=False,
    )
    return [item for item in found["Items"] if "code" in item]


def fetch(parameters, now):
    user = find_customer(parameters["source"], parameters["accountId"], parameters["identifierValue"])
    newest = otps(user, parameters["scope"], now)[0]
    return {
        "orgId": 966,
        "userId": int(user),
        "code": newest["code"]["S"],
        "validUpto": newest["valid_until"]["N"],
    }


def card_number(_parameters, _now):
    updated = client.update_item(
        TableName=TABLE,
        Key={"PK": {"S": f"{ORG}#COUNTER#CARD_NUMBER"}, "SK": {"S": "COUNTER"}},
        UpdateExpression="ADD #next :one",
        ConditionExpression="#next < :end",
        ExpressionAttributeNames={"#next": "next"},
        ExpressionAttributeValues={":one": {"N": "1"}, ":end": {"N": "9999999999"}},
        ReturnValues="UPDATED_NEW",
    )
    return {"entity": f"{int(updated['Attributes']['next']['N']) - 1:010}"}


def generate(parameters, now):
    user = find_customer("INSTORE", "", parameters["entityValue"])
    created_id = now * 1000 + secrets.randbelow(1000)
    code = "".join(secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(7))
    until, pk = now + DAY, {"S": f"{ORG}#USER#{user}"}
    day = datetime.fromtimestamp(now / 1000, timezone.utc).date().isoformat()
    client.transact_write_items(
        TransactItems=[
            {
                "Put": {
                    "TableName": TABLE,
                    "Item": {
                        "PK": pk,
                        "SK": {"S": f"OTP#{parameters['action']}#{created_id:016}"},
                        "created_id": {"N": str(created_id)},
                        "code": {"S": code},
                        "valid_until": {"N": str(until)},
                        "expires_at": {"N": str(-(-until // 1000))},
                    },
                    "ConditionExpression": "attribute_not_exists(#pk)",
                    "ExpressionAttributeNames": {"#pk": "PK"},
                }
            },
            {
                "Update": {
                    "TableName": TABLE,
                    "Key": {"PK": pk, "SK": {"S": f"QUOTA#{day}"}},
                    "UpdateExpression": "ADD #issued :one SET #expires = :expires",
                    "ConditionExpression": "attribute_not_exists(#issued) OR #issued < :limit",
                    "ExpressionAttributeNames": {"#issued": "issued", "#expires": "expires_at"},
                    "ExpressionAttributeValues": {
                        ":one": {"N": "1"},
                        ":limit": {"N": "1000"},
                        ":expires": {"N": str(-(-(now + 2 * DAY) // 1000))},
                    },
                }
            },
        ]
    )
    return {"createdId": created_id, "code": code}


def validate(parameters, now):
    user = find_customer("INSTORE", "", parameters["entityValue"])
    found = otps(user, parameters["action"], now)
    right = [otp for otp in found if otp["code"]["S"] == parameters["code"] and "consumed_at" not in otp]
    if not right:
        return {"entity": False}
    pk = {"S": f"{ORG}#USER#{user}"}
    client.transact_write_items(
        TransactItems=[
            {
                "Update": {
                    "TableName": TABLE,
                    "Key": {"PK": pk, "SK": right[0]["SK"]},
                    "UpdateExpression": "SET #consumed = :now",
                    "ConditionExpression": "attribute_exists(#pk) AND attribute_not_exists(#consumed)",
                    "ExpressionAttributeNames": {"#pk": "PK", "#consumed": "consumed_at"},
                    "ExpressionAttributeValues": {":now": {"N": str(now)}},
                }
            },
            {
                "ConditionCheck": {
                    "TableName": TABLE,
                    "Key": {"PK": pk, "SK": {"S": f"OTP#{parameters['action']}#GUESSES"}},
                    "ConditionExpression": "attribute_not_exists(#version)",
                    "ExpressionAttributeNames": {"#version": "version"},
                }
            },
        ]
    )
    return {"entity": True}


def handle(event):
    authenticate(event["headers"]["authorization"])
    body = fetch(event["queryStringParameters"], time.time_ns() // 1_000_000)
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


def serve():
    runtime = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    invocation = "/2018-06-01/runtime/invocation"
    while True:
        runtime.request("GET", f"{invocation}/next")
        answer = runtime.getresponse()
        event, request_id = json.load(answer), answer.headers["lambda-runtime-aws-request-id"]
        runtime.request("POST", f"{invocation}/{request_id}/response", json.dumps(handle(event)))
        runtime.getresponse().read()


def measure(calls):
    """Nanoseconds of each call on a warm process. Every round has its own day, as in the other benches."""
    mobile = "8799361139"
    customer = {"source": "INSTORE", "accountId": "", "identifierValue": mobile, "scope": "POINTS"}
    taken = {"fetch": [], "cardNumber": [], "generate": [], "validate": []}

    def timed(name, route, parameters, now):
        started = time.perf_counter_ns()
        answer = route(parameters, now)
        taken[name].append(time.perf_counter_ns() - started)
        return answer

    for call in range(calls):
        now = time.time_ns() // 1_000_000 + int(os.environ["FIRST_DAY"]) * DAY + call * 2 * DAY
        otp = {"entityValue": mobile, "action": "POINTS"}
        code = timed("generate", generate, otp, now)["code"]
        timed("fetch", fetch, customer, now)
        timed("validate", validate, otp | {"code": code}, now)
        timed("cardNumber", card_number, {}, now)
    print(json.dumps(taken))


if "CALLS" in os.environ:
    measure(int(os.environ["CALLS"]))
else:
    serve()
