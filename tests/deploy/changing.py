"""Changes of the deployed stack: update, rollback and deletion."""

import re

from delivering import a_request_ends_as_an_email_and_as_a_signed_webhook
from expect import assert_equal, assert_ok, assert_that
from stack import NAME, Stack


def take_number(stack):
    return int(assert_ok(stack.call("GET", "/v2/cardNumber"), "the next number")["entity"])


def items(stack, table):
    dynamodb = stack.emulator.client("dynamodb")
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return sorted((i for page in pages for i in page["Items"]), key=lambda i: (i["PK"]["S"], i["SK"]["S"]))


def a_parameter_is_changed_in_the_configuration_file(stack: Stack):
    before, table, number = stack.parameters(), stack.table(), take_number(stack)
    stack.set_parameters(MemorySize="320")
    stack.make_deploy()
    assert_equal(stack.describe()["StackStatus"], "UPDATE_COMPLETE", "the stack")
    assert_equal(stack.parameters(), {**before, "MemorySize": "320"}, "the parameters")
    assert_equal(stack.function()["MemorySize"], 320, "the function's memory")
    assert_equal(stack.table(), table, "the table")
    assert_equal(take_number(stack), number + 1, "the next number")


def a_deployment_that_fails_is_rolled_back(stack: Stack):
    before, function, table, number = stack.parameters(), stack.function(), stack.table(), take_number(stack)
    # Another API has the domain. CloudFormation finds that after it has replaced the function, here
    # by one that does not run.
    stack.gateway.create_domain_name(DomainName="codes.example.com")
    kept = stack.config.read_text()
    certificate = "arn:aws:acm:us-east-1:000000000000:certificate/8a0c1f6e-5d1b-4b0e-9d5e-0d6a7c2b1e4f"
    stack.set_parameters(DomainName="codes.example.com", CertificateArn=certificate, MemorySize="512")
    build = stack.copy_of_build()
    (build / "Function/bootstrap").write_text("#!/bin/sh\nexit 1\n")
    template = build / "template.yaml"
    domain = re.compile(r"^( +)Type: AWS::ApiGatewayV2::DomainName\n", re.M)
    text, count = domain.subn(r"\g<0>\1DependsOn: Function\n", template.read_text())
    assert_equal(count, 1, "domains in the template")
    template.write_text(text)
    known = len(stack.events())
    stack.sam("deploy", "--template-file", template, "--config-file", stack.config, succeeds=False)
    stack.config.write_text(kept)

    assert_equal(stack.describe()["StackStatus"], "UPDATE_ROLLBACK_COMPLETE", "the stack")
    events = stack.events()[:-known]
    failed = [e["ResourceStatusReason"] for e in events if e["ResourceStatus"] == "UPDATE_FAILED"]
    assert_that(len(failed) == 1 and "already exists" in failed[0], f"what failed: {failed}")
    updated = [e["LogicalResourceId"] for e in events if e["ResourceStatus"] == "UPDATE_COMPLETE"]
    assert_equal(updated.count("Function"), 2, "the function's changes, there and back")
    assert_equal(stack.parameters(), before, "the parameters")
    after = stack.function()
    for key in ("CodeSha256", "MemorySize", "Environment", "Role"):
        assert_equal(after[key], function[key], key)
    assert_equal(stack.table(), table, "the table")
    assert_equal(take_number(stack), number + 1, "the next number")


def a_rolled_back_stack_can_be_deployed_again(stack: Stack):
    number = take_number(stack)
    stack.set_parameters(MemorySize="256", LogRetentionDays="14")
    stack.make_deploy()
    assert_equal(stack.describe()["StackStatus"], "UPDATE_COMPLETE", "the stack")
    assert_equal(stack.function()["MemorySize"], 256, "the function's memory")
    assert_equal(take_number(stack), number + 1, "the next number")


def messages_are_delivered_after_these_changes(stack: Stack):
    a_request_ends_as_an_email_and_as_a_signed_webhook(stack)


def the_table_outlives_the_stack(stack: Stack):
    resources, table = stack.resources(), stack.table()
    before = items(stack, table)
    keys = {item["PK"]["S"] for item in before}
    assert_that({"ORG#966", "TILL#store.server"} <= keys, f"an org and a till: {keys}")
    stack.sam("delete", "--no-prompts", "--config-file", stack.config)
    assert_equal(stack.describe(), None, "the stack")

    groups = stack.emulator.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{NAME}")
    assert_equal(groups["logGroups"], [], "log groups")
    assert_equal(stack.functions.list_functions()["Functions"], [], "functions")
    assert_equal(stack.functions.list_event_source_mappings()["EventSourceMappings"], [], "event source mappings")
    assert_equal(stack.emulator.client("sqs").list_queues().get("QueueUrls", []), [], "queues")
    apis = [api["ApiId"] for api in stack.gateway.get_apis()["Items"]]
    assert_that(resources["Api"] not in apis, f"APIs: {apis}")
    dynamodb = stack.emulator.client("dynamodb")
    described = dynamodb.describe_table(TableName=table)["Table"]
    assert_equal(described["TableStatus"], "ACTIVE", "the table")
    # The emulator stores the parameter's text.
    assert_equal(str(described["DeletionProtectionEnabled"]).lower(), "true", "its protection")
    assert_equal(items(stack, table), before, "its items")
