#!/bin/sh
# Finds an address, asks for it until it is there, and shows what that cost. Start upstream.py and the gateway first.
set -eu
api="${API:-http://127.0.0.1:8080}"
say() { printf '\n$ %s\n' "$*"; }
ask() { curl -sS --fail-with-body -H "x-api-key: enrow-example-key" -H "content-type: application/json" "$@"; echo; }

say "find an address: 1 credit is held"
answer="$(ask "$api/email/find/single" -d '{"fullname":"Ada","company_domain":"a.com"}')"
echo "$answer"
id="$(echo "$answer" | sed 's/.*"id": *"\([^"]*\)".*/\1/')"
say "ask for it, until it is found: 1 credit is charged"
ask "$api/email/find/single?id=$id"
ask "$api/email/find/single?id=$id"
say "three at once, of which two are found"
answer="$(ask "$api/email/find/bulk" -d '{"searches":[{"fullname":"Ada"},{"fullname":"nobody"},{"fullname":"Eve"}]}')"
echo "$answer"
id="$(echo "$answer" | sed 's/.*"id": *"\([^"]*\)".*/\1/')"
ask "$api/email/find/bulk?id=$id"
ask "$api/email/find/bulk?id=$id"
say "what is left of 200 credits"
ask "$api/account/info"
