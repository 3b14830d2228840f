"""The stack under test: its deployment, its resources, and calls of its API."""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml
from botocore.exceptions import ClientError

from emulator import REGION, Emulator

ROOT = Path(__file__).resolve().parents[2]
NAME = "shop-codes"


class TemplateLoader(yaml.SafeLoader):
    """Reads CloudFormation's short forms, such as `!Ref`, as their plain values."""


TemplateLoader.add_multi_constructor(
    "!",
    lambda loader, _, node: getattr(loader, f"construct_{node.id}")(node),
)


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    def json(self):
        return json.loads(self.text)


class Stack:
    def __init__(self, emulator: Emulator, folder: Path):
        self.emulator = emulator
        self.folder = folder
        # SAM saves its answers in this file. The checks edit it as an operator does.
        self.config = folder / "samconfig.toml"
        self.cloudformation = emulator.client("cloudformation")
        self.gateway = emulator.client("apigatewayv2")
        self.functions = emulator.client("lambda")
        # Passwords of the created tills, by till name.
        self.passwords: dict[str, str] = {}

    # ---- Commands

    def run(self, *command, stdin="", succeeds=True, seconds=300):
        """Runs a command in the project's folder and returns what it printed.

        `succeeds` says whether its exit code must be 0 or another.
        """
        words = [str(word) for word in command]
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=self.emulator.environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(stdin, timeout=seconds)
        except BaseException:
            # Also ends the processes that it has started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if (process.returncode == 0) != succeeds:
            raise AssertionError(f"{' '.join(words)} ended with {process.returncode}:\n{printed}")
        return printed

    def make_deploy(self, *arguments, **options):
        # An hour, because it may have to build the function.
        command = ("make", "--no-print-directory", "deploy", f"CONFIG={self.config}")
        return self.run(*command, *arguments, seconds=3600, **options)

    def sam(self, *arguments, **options):
        return self.run(ROOT / ".venv/bin/sam", *arguments, **options)

    def loyaltyctl(self, *arguments, **options):
        program = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/loyaltyctl"
        return json.loads(self.run(program, "--json", "--table", self.table(), *arguments, **options))

    # ---- CloudFormation's data

    def describe(self):
        """Returns the stack's description, or None if the stack does not exist."""
        try:
            return self.cloudformation.describe_stacks(StackName=NAME)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in error.response["Error"]["Message"]:
                return None
            raise

    def events(self):
        """Returns what happened to the stack and its resources, the latest first."""
        pages = self.cloudformation.get_paginator("describe_stack_events").paginate(StackName=NAME)
        return [event for page in pages for event in page["StackEvents"]]

    def parameters(self):
        return {p["ParameterKey"]: p["ParameterValue"] for p in self.describe()["Parameters"]}

    def outputs(self):
        return {o["OutputKey"]: o["OutputValue"] for o in self.describe()["Outputs"]}

    def resources(self):
        """Returns the physical ids of the stack's resources by their names in the template."""
        found = self.cloudformation.describe_stack_resources(StackName=NAME)["StackResources"]
        return {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in found}

    def table(self):
        return self.outputs()["TableName"]

    def function(self):
        """Returns the configuration of the deployed function, once it is active."""
        name = self.outputs()["FunctionName"]
        self.functions.get_waiter("function_updated_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        return self.functions.get_function_configuration(FunctionName=name)

    def template_parameters(self):
        """Returns the definitions of the template's parameters, in its order."""
        return yaml.load((ROOT / "template.yaml").read_text(), TemplateLoader)["Parameters"]

    # ---- The API

    def import_routes(self):
        """Creates the routes that the stack's API has on AWS.

        Ministack 1.5.33 ignores the `Body` of an API, the OpenAPI document that SAM makes of the
        function's events.
        """
        resources = self.resources()
        api = resources["Api"]
        template = self.cloudformation.get_template(StackName=NAME, TemplateStage="Processed")["TemplateBody"]
        template = template if isinstance(template, dict) else json.loads(template)

        def value(reference):
            plain = {"AWS::Partition": "aws", "AWS::Region": REGION}
            name = reference[1]
            if name in plain:
                return plain[name]
            function = resources[name.removesuffix(".Arn")]
            return self.functions.get_function_configuration(FunctionName=function)["FunctionArn"]

        for route in self.gateway.get_routes(ApiId=api)["Items"]:
            self.gateway.delete_route(ApiId=api, RouteId=route["RouteId"])
        keys = set()
        for path, methods in template["Resources"]["Api"]["Properties"]["Body"]["paths"].items():
            for method, operation in methods.items():
                integration = operation["x-amazon-apigateway-integration"]
                created = self.gateway.create_integration(
                    ApiId=api,
                    IntegrationType=integration["type"].upper(),
                    IntegrationMethod=integration["httpMethod"],
                    IntegrationUri=re.sub(r"\$\{([^}]+)\}", value, integration["uri"]["Fn::Sub"]),
                    PayloadFormatVersion=integration["payloadFormatVersion"],
                )
                verb = "ANY" if method == "x-amazon-apigateway-any-method" else method.upper()
                key = path if path == "$default" else f"{verb} {path}"
                self.gateway.create_route(ApiId=api, RouteKey=key, Target=f"integrations/{created['IntegrationId']}")
                keys.add(key)
        return keys

    def call(self, method, target, body=None, *, till="store.server", secret=None, headers=None):
        """Sends a request as the callers of `ApiUrl` do: as the till of that name, or without credentials."""
        # The emulator serves an API under its own domain instead of amazonaws.com.
        host = re.sub(r"^https://([a-z0-9]+\.execute-api)\..*$", r"\1.localhost", self.outputs()["ApiUrl"])
        sent = {"Host": f"{host}:{self.emulator.port}", **(headers or {})}
        if till is not None:
            credentials = f"{till}:{secret or self.passwords[till]}"
            sent["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.emulator.port, timeout=30)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    # ---- Changes by an operator

    def set_parameters(self, **parameters):
        """Edits parameters in the configuration file."""
        text = self.config.read_text()
        for name, value in parameters.items():
            text, count = re.subn(rf'\b{name}=\\"[^"]*\\"', lambda _: f'{name}=\\"{value}\\"', text)
            if count != 1:
                raise AssertionError(f"{name} is {count} times in\n{text}")
        self.config.write_text(text)

    def copy_of_build(self):
        """Returns a copy of SAM's build that may be changed."""
        return Path(shutil.copytree(ROOT / ".aws-sam/build", self.folder / "build"))
