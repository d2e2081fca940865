#!/bin/sh
# Enriches a person, then three in a job, and shows what that cost. Start upstream.py and the gateway first.
set -eu
api="${API:-http://127.0.0.1:8080}"
say() { printf '\n$ %s\n' "$*"; }
ask() { curl -sS --fail-with-body -H "x-api-key: apione-growth-key" -H "content-type: application/json" "$@"; echo; }

say "enrich a person: 4 credits"
ask "$api/api/v1/people/enrich" -d '{"email":"ada@a.com"}'
say "three in a job: 12 credits are held"
answer="$(ask "$api/api/v1/async/enrich" -d '{"type":"people","records":["a","nobody","c"]}')"
echo "$answer"
id="$(echo "$answer" | sed 's/.*"job_id": *"\([^"]*\)".*/\1/')"
say "ask until it is completed"
ask "$api/api/v1/async/status/$id"
ask "$api/api/v1/async/status/$id"
ask "$api/api/v1/async/status/$id"
say "the results: 4 for each that is found, 1 for the one that is not"
ask "$api/api/v1/async/results/$id"
say "what is left of 100 credits"
ask "$api/account/info"
