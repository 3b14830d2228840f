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
LOG_GROUP = {"Fn::GetAtt": ["FunctionLogGroup", "Arn"]}
KEY = {"Ref": "TableKeyArn"}
TARGET = {"Ref": "DeliveryTargetArn"}

# The statements of each role: actions and resource. tests/template.rs compares the actions on the
# table with the calls in src/store.
ROLES = {
    "FunctionRole": {
        "Table": (
            "dynamodb:BatchGetItem dynamodb:ConditionCheckItem dynamodb:GetItem dynamodb:PutItem dynamodb:Query "
            "dynamodb:UpdateItem",
            TABLE,
        ),
        "Logs": ("logs:CreateLogStream logs:PutLogEvents", LOG_GROUP),
        "Traces": ("xray:PutTelemetryRecords xray:PutTraceSegments", "*"),
        "TableKey": ("kms:Decrypt kms:DescribeKey kms:Encrypt kms:GenerateDataKey* kms:ReEncrypt*", KEY),
    },
    "DeliveryRole": {
        "Stream": ("dynamodb:DescribeStream dynamodb:GetRecords dynamodb:GetShardIterator", STREAM),
        "ListStreams": ("dynamodb:ListStreams", "*"),
        "DeadLetters": ("sqs:SendMessage", DEAD_LETTERS),
        "Target": ("events:PutEvents lambda:InvokeFunction sns:Publish sqs:SendMessage", TARGET),
        "StreamKey": ("kms:Decrypt", KEY),
    },
}


def transformed():
    template = yaml_parse(TEMPLATE.read_text())
    # `sam package` sets such a value.
    template["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://bucket/function.zip"
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
    for name, function in functions.items():
        if function["Properties"]["Role"] != {"Fn::GetAtt": ["FunctionRole", "Arn"]}:
            yield f"{name} has the role {function['Properties']['Role']}"
    if list(functions) != ["Function"]:
        yield f"the functions are {list(functions)}"

    # Only this API may call the function.
    permissions = of_type("AWS::Lambda::Permission")
    if not permissions:
        yield "the API may not call the function"
    for name, permission in permissions.items():
        properties = permission["Properties"]
        source = str(properties.get("SourceArn"))
        if properties["Principal"] != "apigateway.amazonaws.com" or "'__ApiId__': {'Ref': 'Api'}" not in source:
            yield f"{name} lets {properties['Principal']} call the function from {source}"
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::User", "AWS::Lambda::Url"):
        if of_type(kind):
            yield f"there is a {kind}"


faults = list(check(transformed()))
print("\n".join(faults) or "The roles allow exactly the calls of the code.")
sys.exit(bool(faults))
