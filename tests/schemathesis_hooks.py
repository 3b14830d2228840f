"""Hooks of tests/schemathesis.sh: rules that a schema cannot express, and values of the demo's org."""

import re
import unicodedata
import uuid

import schemathesis

MOBILE = None

# Invisible characters that the patterns of the schemas leave out, because regular expressions differ
# in how they spell characters beyond the Basic Multilingual Plane.
INVISIBLE = re.compile("[\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]")


@schemathesis.hook
def before_load_schema(context, raw_schema):
    global MOBILE
    schemas = raw_schema["components"]["schemas"]
    MOBILE = re.compile(schemas["Mobile"]["pattern"])
    # The accounts depend on the org. Every org has this one.
    schemas["Source"] = {"enum": ["INSTORE"]}
    schemas["AccountId"] = {"enum": [""]}
    # The demo's org sends nothing by other channels.
    kinds = find_channel(raw_schema["paths"]["/v2/otp/generate"]["post"]["requestBody"])["oneOf"]
    kinds[:] = [kind for kind in kinds if "WECHAT" not in kind["properties"]["type"]["enum"]]
    # The value of one parameter depends on that of another.
    for path in ["/v2/otp", "/v2/customers/lookup", "/v2/customers/lookup/customerDetails"]:
        parameters = {p["name"]: p for p in raw_schema["paths"][path]["get"]["parameters"]}
        parameters["identifierName"]["schema"] = {"enum": ["mobile", "MOBILE"]}
        parameters["identifierValue"]["schema"] = {"$ref": "#/components/schemas/Mobile"}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Gives each request a unique idempotency key. A key of another request would be refused."""
    if "Idempotency-Key" in (case.headers or {}) and not case.meta.generation.mode.is_negative:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex


@schemathesis.hook
def filter_case(context, case):
    """Leaves out requests whose name and value do not match, because a link replaced only one of them."""
    query = case.query or {}
    name, value = str(query.get("identifierName")), str(query.get("identifierValue"))
    if case.meta.generation.mode.is_negative:
        # The service ignores unknown parameters. schemathesis allows that only if the others match
        # the schema, and a link may have replaced them by an identifier that is not a mobile.
        known = {parameter.name for parameter in case.operation.query}
        return "identifierName" not in query or name.lower() == "mobile" or known.issuperset(query)
    if isinstance(case.body, dict) and not all(is_of_nobody(one) for one in case.body.get("remove") or []):
        return False
    return (name.lower() == "mobile") == bool(MOBILE.match(value))


def is_of_nobody(identifier):
    """Whether no other request registers an identifier. One of another customer cannot be removed: 400."""
    is_opaque = identifier["type"].lower() not in ("mobile", "email")
    return is_opaque and len(str(identifier["value"]).strip()) >= 8


@schemathesis.hook
def map_body(context, body):
    """Writes whole numbers without a fraction or an exponent. For JSON Schema, 668.0 is an integer, too."""
    return with_plain_integers(body)


def with_plain_integers(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: with_plain_integers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [with_plain_integers(member) for member in value]
    return value


@schemathesis.hook
def filter_body(context, body):
    """Leaves out customers with several external IDs, and texts whose length the service counts in another way."""
    if any(len(text) > 190 and has_hidden(text) for text in find_texts(body)):
        return False
    if isinstance(body, dict) and INVISIBLE.search(str(body.get("code"))):
        return False
    identifiers = list(find_identifiers(with_plain_integers(body)))
    if any(INVISIBLE.search(value) for _, value in identifiers):
        return False
    external_ids = {value for name, value in identifiers if name.lower().startswith("external")}
    return len(external_ids) < 2 and not any(
        len(value) <= 254 and len(value.lower().encode()) > 200 for _, value in identifiers
    )


def find_channel(value):
    """The schema of an entry of `channels`."""
    if isinstance(value, dict) and "maxItems" in value:
        return value["items"]
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for found in map(find_channel, members) if found), None)


def has_hidden(text):
    """Whether the service removes characters of a text. Then it may be too long only for the schema."""
    return any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Zs", "Cn") for c in text)


def find_texts(value):
    """Yields all texts in a JSON value."""
    if isinstance(value, str):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from find_texts(member)


def find_identifiers(value):
    """Yields the names and values of all identifiers in a JSON value."""
    if isinstance(value, dict):
        for name, identifier in [("type", "value"), ("entityType", "entityValue")]:
            if isinstance(value.get(name), str) and isinstance(value.get(identifier), str | int):
                yield value[name], str(value[identifier])
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from find_identifiers(member)
