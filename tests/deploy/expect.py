"""Assertions of the checks."""


def assert_equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r} instead of {expected!r}")


def assert_that(condition, what):
    if not condition:
        raise AssertionError(what)


def assert_ok(answer, what):
    """Returns the body of a success. It must have `warnings`."""
    assert_equal(answer.status, 200, f"{what}, {answer.text}")
    body = answer.json()
    assert_equal(body.pop("warnings"), [], what)
    return body


def assert_refused(answer, status, what, code=None):
    """Checks that an answer is a refusal in the service's envelope. The gateway has another envelope."""
    assert_equal(answer.status, status, f"{what}, {answer.text}")
    body = answer.json()
    assert_equal(body["warnings"], [], what)
    for error in body["errors"]:
        assert_equal(error["status"], False, what)
    if code is not None:
        assert_equal(body["errors"][0]["code"], code, what)
