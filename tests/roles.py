"""Checks the permissions of the stack's roles, in the template as SAM transforms it for deployment.

`make validate` runs this with the Python of SAM's environment. AWS uses the same translator.
"""

import os
import sys
from pathlib import Path

os.environ["AWS_DEFAULT_REGION"] = "us-east-1"

from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

TEMPLATE = Path(__file__).parent.parent / "template.yaml"

TABLE = {"Fn::GetAtt": ["Table", "Arn"]}
STREAM = {"Fn::GetAtt": ["Table", "StreamArn"]}
DEAD_LETTERS = {"Fn::GetAtt": ["DeliveryDeadLetters", "Arn"]}
KEY = {"Ref": "TableKeyArn"}
TRACES = ("xray:PutTelemetryRecords xray:PutTraceSegments", "*")
TABLE_KEY = ("kms:Decrypt kms:DescribeKey kms:Encrypt kms:GenerateDataKey* kms:ReEncrypt*", KEY)


def logs(group):
    return ("logs:CreateLogStream logs:PutLogEvents", {"Fn::GetAtt": [group, "Arn"]})


def of_account(service, *kinds):
    """Returns all resources of these kinds in the account and region of the stack."""
    arn = f"arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:"
    return [{"Fn::Sub": f"{arn}{kind}/*"} for kind in kinds]


# The statements of each role: actions and resource. tests/template.rs compares the actions on the
# table, and those that send messages, with the calls in src/.
ROLES = {
    "FunctionRole": {
        "Table": (
            "dynamodb:BatchGetItem dynamodb:ConditionCheckItem dynamodb:DeleteItem dynamodb:GetItem dynamodb:PutItem "
            "dynamodb:Query dynamodb:UpdateItem",
            TABLE,
        ),
        "Logs": logs("FunctionLogGroup"),
        "Traces": TRACES,
        "TableKey": TABLE_KEY,
    },
    "DeliveryRole": {
        "Stream": ("dynamodb:DescribeStream dynamodb:GetRecords dynamodb:GetShardIterator", STREAM),
        "ListStreams": ("dynamodb:ListStreams", "*"),
        "DeadLetters": ("sqs:SendMessage", DEAD_LETTERS),
        "Messages": ("dynamodb:BatchGetItem dynamodb:GetItem dynamodb:UpdateItem", TABLE),
        "TextMessages": (
            "sms-voice:SendTextMessage",
            of_account(
                "sms-voice", "configuration-set", "phone-number", "pool", "protect-configuration", "sender-id"
            ),
        ),
        "Calls": (
            "sms-voice:SendVoiceMessage",
            of_account("sms-voice", "configuration-set", "phone-number", "pool", "protect-configuration"),
        ),
        "Mails": ("ses:SendEmail", of_account("ses", "configuration-set", "identity")),
        "Logs": logs("DeliveryLogGroup"),
        "Traces": TRACES,
        "TableKey": TABLE_KEY,
    },
}
# The role of each function.
FUNCTIONS = {"Function": "FunctionRole", "DeliveryFunction": "DeliveryRole"}


def transformed():
    template = yaml_parse(TEMPLATE.read_text())
    # `sam package` sets such a value.
    for name in FUNCTIONS:
        template["Resources"][name]["Properties"]["CodeUri"] = "s3://bucket/function.zip"
    parameters = {name: str(p.get("Default", "")) for name, p in template["Parameters"].items()}
    # Managed policies cannot be looked up here, so a template that names one is refused.
    return Translator({}, Parser()).translate(template, parameters)


def policies(role):
    """The policy documents of a role, including conditional ones."""
    for policy in role["Properties"].get("Policies", []):
        policy = policy.get("Fn::If", [None, policy])[1]
        yield policy["PolicyDocument"]


def actions(statement):
    given = statement["Action"]
    return given if isinstance(given, str) else " ".join(sorted(given))


def check(template):
    """Yields the violations."""
    resources = template["Resources"]
    of_type = lambda kind: {name: r for name, r in resources.items() if r["Type"] == kind}

    roles = of_type("AWS::IAM::Role")
    if set(roles) != set(ROLES):
        yield f"the roles are {sorted(roles)}"
    for name, expected in ROLES.items():
        role = roles[name]
        if role["Properties"].get("ManagedPolicyArns"):
            yield f"{name} has managed policies: {role['Properties']['ManagedPolicyArns']}"
        statements = [s for document in policies(role) for s in document["Statement"]]
        found = {s.get("Sid"): (actions(s), s["Resource"]) for s in statements}
        if len(found) != len(statements) or any(s["Effect"] != "Allow" for s in statements):
            yield f"{name} has two statements with one name, or one that denies"
        for sid in sorted(expected.keys() | found.keys()):
            if expected.get(sid) != found.get(sid):
                yield f"{name}, {sid}: {found.get(sid)} and not {expected.get(sid)}"
        for statement in statements:
            conditions = statement.get("Condition", {}).get("StringEquals", {})
            if statement["Resource"] == KEY and "kms:ViaService" not in conditions:
                yield f"{name}, {statement['Sid']}: the key must be limited to DynamoDB"

    functions = of_type("AWS::Lambda::Function")
    found = {name: function["Properties"]["Role"] for name, function in functions.items()}
    if found != {name: {"Fn::GetAtt": [role, "Arn"]} for name, role in FUNCTIONS.items()}:
        yield f"the functions have the roles {found}"

    # Only the table's stream starts the delivery function. Lambda itself reads it, so that needs no
    # permission.
    mappings = of_type("AWS::Lambda::EventSourceMapping").values()
    started = [(m["Properties"]["FunctionName"], m["Properties"]["EventSourceArn"]) for m in mappings]
    if started != [({"Ref": "DeliveryFunction"}, STREAM)]:
        yield f"what starts functions: {started}"

    # Only this API may call a function, and only its own.
    permissions = of_type("AWS::Lambda::Permission")
    if not permissions:
        yield "the API may not call the function"
    for name, permission in permissions.items():
        properties = permission["Properties"]
        source = str(properties.get("SourceArn"))
        of_api = properties["Principal"] == "apigateway.amazonaws.com" and "'__ApiId__': {'Ref': 'Api'}" in source
        if not of_api or properties["FunctionName"] != {"Ref": "Function"}:
            yield f"{name} lets {properties['Principal']} call {properties['FunctionName']} from {source}"
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::User", "AWS::Lambda::Url"):
        if of_type(kind):
            yield f"there is a {kind}"


faults = list(check(transformed()))
print("\n".join(faults) or "The roles allow exactly the calls of the code.")
sys.exit(bool(faults))
