"""Assertions of the checks."""


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r} instead of {expected!r}")


def holds(condition, what):
    if not condition:
        raise AssertionError(what)


def ok(answer, what):
    """Returns the body of a success. It must have `warnings`."""
    equal(answer.status, 200, f"{what}, {answer.text}")
    body = answer.json()
    equal(body.pop("warnings"), [], what)
    return body


def refused(answer, status, what, code=None):
    """Checks that an answer is a refusal in the service's envelope. The gateway has another envelope."""
    equal(answer.status, status, f"{what}, {answer.text}")
    body = answer.json()
    equal(body["warnings"], [], what)
    for error in body["errors"]:
        equal(error["status"], False, what)
    if code is not None:
        equal(body["errors"][0]["code"], code, what)
