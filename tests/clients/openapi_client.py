"""A client that knows the admin API only by its description (OpenAPI): it runs the whole life of an account. Each request
is made as the description says, and each response is checked against it. Arguments: the description, the base URL, the
token."""

import json
import sys

import schemathesis

_, description, url, token = sys.argv[:4]
schema = schemathesis.openapi.from_dict(json.load(open(description)))
headers = {"Authorization": f"Bearer {token}"}


def call(method, path, body=None, more=None, **parameters):
    operation = schema[path][method]
    case = operation.Case(path_parameters=parameters, headers={**headers, **(more or {})})
    if body is not None:
        case.body, case.media_type = body, "application/json"
    response = case.call_and_validate(base_url=url)
    assert response.status_code < 300, f"{method} {path}: {response.status_code} {response.text}"
    return response


account = {"account": "described"}
made = call("POST", "/v1/accounts", {"id": "described", "plan": "growth", "name": "Described", "credits": "10.25"}).json()
assert made["balance"] == 10.25, made
version = call("GET", "/v1/accounts/{account}", **account).headers["etag"][0]
call("PATCH", "/v1/accounts/{account}", {"name": "Renamed"}, {"If-Match": version}, **account)
for _ in range(2):  # the second is a repetition
    grant = call("POST", "/v1/accounts/{account}/grants", {"credits": 5, "reference": "order-1"}, **account).json()
assert (grant["amount"], grant["repeated"]) == (5, True), grant
repeated = {"Idempotency-Key": "one"}
terms = {"label": "first", "scopes": ["one"], "spend_limit": 2, "expires": "90d"}
first, again = [
    call("POST", "/v1/accounts/{account}/keys", terms, repeated, **account).json() for _ in range(2)
]
assert first == again and first["key"].startswith("ak_live_"), "the same answer"
key = {"key": first["id"]}
verdict = call("POST", "/v1/verify", {"key": first["key"], "method": "GET", "path": "/one"}).json()
assert verdict["valid"] and verdict["account"] == "described", verdict
charge = {"key": first["key"], "credits": "0.25", "reference": "job-1"}
assert call("POST", "/v1/charge", charge).json()["amount"] == -0.25
assert call("GET", "/v1/accounts/{account}", **account).json()["balance"] == 15
explained = call("POST", "/v1/explain", {"key": key["key"], "method": "GET", "url": "/one"}).json()
assert explained["admitted"], explained
endpoint = call("POST", "/v1/accounts/{account}/webhooks", {"url": "https://app.example/hooks"}, **account).json()
call("PATCH", "/v1/accounts/{account}/alerts", {"credits_low": [5]}, **account)
second = call("POST", "/v1/keys/{key}/rotate", {"overlap": "1h"}, **key).json()
assert second["key"] != first["key"]
call("POST", "/v1/keys/{key}/disable", **key)
assert not call("POST", "/v1/verify", {"key": second["key"], "method": "GET", "path": "/one"}).json()["valid"]
call("POST", "/v1/keys/{key}/enable", **key)
rows = call("GET", "/v1/usage").json()["data"]
assert isinstance(rows, list)
entries = call("GET", "/v1/accounts/{account}/entries", **account).json()["data"]
assert sorted(entry["amount"] for entry in entries) == [-0.25, 5, 10.25], entries
call("DELETE", "/v1/accounts/{account}/webhooks/{endpoint}", endpoint=endpoint["id"], **account)
call("DELETE", "/v1/keys/{key}", **key)
assert call("DELETE", "/v1/accounts/{account}", **account).json()["state"] == "closed"
actions = [entry["action"] for entry in call("GET", "/v1/audit").json()["data"]]
assert actions[0] == "account.delete" and "key.rotate" in actions, actions
print("the whole life of an account")
