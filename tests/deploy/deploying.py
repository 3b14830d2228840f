"""`make deploy`: its questions, the answers that it saves, and values that it refuses."""

import json
import os
import stat
import sys

from botocore.exceptions import ClientError

from expect import assert_equal, assert_that
from stack import NAME, ROOT, Stack

# Answers to SAM's questions. All others are the defaults.
# Ministack does not know alarms on more than one metric.
ANSWERS = {
    "MemorySize": "192",
    "LogRetentionDays": "7",
    "ThrottlingRate": "50",
    "ValidationAlarm": "false",
    "UndeliveredAlarm": "false",
}


def the_function_is_built_for_the_architecture_that_is_deployed(stack: Stack):
    # Building for both takes minutes: here `sam` is a program that writes down how it was called,
    # and saves the answers of the test when it is to ask.
    tools = stack.folder / "tools"
    calls = stack.folder / "calls"
    answered = stack.folder / "answered"
    (tools / "bin").mkdir(parents=True)
    sam = tools / "bin/sam"
    sam.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, shutil, sys\n"
        f"with open({str(calls)!r}, 'a') as calls: calls.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "if '--guided' in sys.argv:\n"
        f"    shutil.copy({str(answered)!r}, sys.argv[sys.argv.index('--config-file') + 1])\n"
    )
    # Configuration files are read by SAM's own code.
    python = tools / "bin/python"
    python.write_text(f'#!/bin/sh\nexec {ROOT}/.venv/bin/python "$@"\n')
    for program in (sam, python):
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    config = stack.folder / "architecture.toml"

    def deployed(settings, *arguments, asked=""):
        """Returns the parameters given to the build and to the deployment, for each deployment."""
        config.unlink(missing_ok=True)
        if settings:
            config.write_text(f"version = 0.1\n[default.deploy.parameters]\n{settings}")
        answered.write_text(f"version = 0.1\n[default.deploy.parameters]\n{asked}")
        calls.write_text("")
        os.utime(tools)
        stack.run("make", "--no-print-directory", "deploy", f"VENV={tools}", f"CONFIG={config}", *arguments)
        lines = [json.loads(line) for line in calls.read_text().splitlines()]
        assert_equal([line[0] for line in lines], ["build", "deploy"] * (len(lines) // 2), "the commands")
        # If there are parameters, they are the last arguments.
        option = "--parameter-overrides"
        values = [line[line.index(option) + 1 :] if option in line else [] for line in lines]
        return list(zip(values[::2], values[1::2]))

    x86, arm = 'Architecture="x86_64"', 'Architecture="arm64"'
    both = f"stack_name = 'shop'\nparameter_overrides = '{x86} MemorySize=\"512\" DomainName=\"\"'"
    assert_equal(deployed(both), [([x86], [])], "of the file")
    merged = [arm, 'MemorySize="512"', 'DomainName=""']
    assert_equal(deployed(both, "ARCH=arm64"), [([arm], merged)], "of the command line, with what else is in the file")
    assert_equal(deployed(both, "ARCH=x86_64"), [([x86], [])], "of both")
    listed = "stack_name = 'shop'\nparameter_overrides = ['Architecture=x86_64', 'MemorySize=512']"
    assert_equal(deployed(listed), [([x86], [])], "of a list in the file")
    other = "stack_name = 'shop'\nparameter_overrides = 'MemorySize=\"512\"'"
    assert_equal(deployed(other), [([arm], ['MemorySize="512"', arm])], "where the file has none")
    named = "stack_name = 'shop'\n"
    assert_equal(deployed(named), [([arm], [arm])], "where the file has no parameters")
    assert_equal(deployed("", asked=both), [([arm], [arm]), ([x86], [])], "answered otherwise than built")
    assert_equal(deployed("", "ARCH=x86_64", asked=both), [([x86], [x86])], "answered as built")


def the_first_deployment_asks_for_parameters_and_saves_them(stack: Stack):
    parameters = stack.template_parameters()
    # The stack's name, the region, each parameter; then whether to confirm changes, create roles,
    # keep what failed, save the answers, where, and under which name.
    answers = [NAME, "", *(ANSWERS.get(name, "") for name in parameters), "", "", "", "", "", ""]
    printed = stack.make_deploy("ARCH=x86_64", stdin="\n".join(answers) + "\n")
    assert_that("has no authentication" not in printed, "SAM must not ask about authentication")
    assert_equal(stack.describe()["StackStatus"], "CREATE_COMPLETE", "the stack")
    deployed = stack.parameters()
    assert_equal(set(deployed), set(parameters), "the parameters")
    for name, value in {**ANSWERS, "Architecture": "x86_64"}.items():
        assert_equal(deployed[name], value, name)
    assert_equal(deployed["DynamoDbEndpoint"], "", "the DynamoDB, which is that of the account")

    function = stack.function()
    assert_equal(function["MemorySize"], 192, "the function's memory")
    assert_equal(function["Architectures"], ["x86_64"], "the function's processor")
    program = (ROOT / ".aws-sam/build/Function/bootstrap").read_bytes()
    assert_equal(program[:4] + program[18:20], b"\x7fELF\x3e\x00", "the processor of the program")
    groups = stack.emulator.client("logs").describe_log_groups()["logGroups"]
    kept = {g["logGroupName"]: g.get("retentionInDays") for g in groups}
    for name in (f"/aws/lambda/{NAME}", f"/aws/lambda/{NAME}-delivery", f"/aws/apigateway/{NAME}"):
        assert_equal(kept.get(name), 7, name)


def deploying_again_changes_nothing(stack: Stack):
    before = stack.parameters()
    file = stack.config.read_text()
    # Without ARCH, the saved architecture is used, although the default is another one.
    printed = stack.make_deploy()
    assert_that("No changes to deploy" in printed, printed)
    assert_equal(stack.parameters(), before, "the parameters")
    assert_equal(stack.config.read_text(), file, "the configuration file")


def values_that_cannot_work_are_refused(stack: Stack):
    arn = "arn:aws:{}:us-east-1:123456789012:{}".format
    good = {
        "Architecture": "arm64",
        "MemorySize": "1024",
        "LogRetentionDays": "90",
        "ThrottlingRate": "10",
        "ThrottlingBurst": "20",
        "DomainName": "codes.example.com",
        "CertificateArn": arn("acm", "certificate/8a0c1f6e-5d1b-4b0e-9d5e-0d6a7c2b1e4f"),
        "BasePath": "loyalty/codes",
        "TableKeyArn": arn("kms", "key/8a0c1f6e-5d1b-4b0e-9d5e-0d6a7c2b1e4f"),
        "DeletionProtection": "false",
        "FailedMessagesThreshold": "50",
        "AlarmTopicArn": arn("sns", "alarms"),
        "DynamoDbEndpoint": "http://127.0.0.1:8000",
    }
    bad = {
        "MemorySize": ["64", "20000", "much"],
        "ThrottlingRate": ["0"],
        "ThrottlingBurst": ["0", "5001"],
        "DomainName": ["https://codes.example.com", "codes.example.com/v2", "Codes.example.com", "localhost", ""],
        "CertificateArn": [arn("iam", "server-certificate/x"), "6f1c", ""],
        "BasePath": ["/loyalty", "loyalty/", "two words"],
        "TableKeyArn": ["alias/codes", arn("kms", "alias/codes")],
        "FailedMessagesThreshold": ["0", "many"],
        "AlarmTopicArn": ["alarms", arn("sqs", "alarms"), arn("sns", "alarms.fifo"), arn("sns", "two words")],
        "DynamoDbEndpoint": ["127.0.0.1:8000", "http://127.0.0.1:8000/path"],
    }
    for name, definition in stack.template_parameters().items():
        if "AllowedValues" in definition:
            bad[name] = ["neither"]
    before = stack.parameters()
    assert_equal(set(bad), set(before), "the parameters, each of which refuses something")

    def propose(**values):
        """Creates a change set with these parameters, which CloudFormation validates but does not execute."""
        given = [{"ParameterKey": name, "ParameterValue": value} for name, value in {**before, **values}.items()]
        proposal = {"StackName": NAME, "ChangeSetName": "proposal"}
        stack.cloudformation.create_change_set(
            **proposal, UsePreviousTemplate=True, Parameters=given, Capabilities=["CAPABILITY_IAM"]
        )
        stack.cloudformation.delete_change_set(**proposal)

    propose(**good)
    for name, values in bad.items():
        for value in values:
            try:
                propose(**{**good, name: value})
            except ClientError as error:
                assert_equal(error.response["Error"]["Code"], "ValidationError", f"{name}={value}")
                assert_that(name in str(error), f"{name}={value}: {error}")
            else:
                raise AssertionError(f"accepted: {name}={value}")
    assert_equal(stack.parameters(), before, "the parameters")
    assert_equal(stack.describe()["StackStatus"], "CREATE_COMPLETE", "the stack")
