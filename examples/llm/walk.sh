#!/bin/sh
# Asks the sample model twice, once in a stream, and shows what that cost. Start upstream.py and the gateway first.
set -eu
api="${API:-http://127.0.0.1:8080}"
say() { printf '\n$ %s\n' "$*"; }
ask() { curl -sS --fail-with-body "$api/v1/chat/completions" -H "authorization: Bearer llm-example-key" -H "content-type: application/json" -d "$1"; }

say "a completion"
ask '{"messages":[{"role":"user","content":"one two three"}]}'
say "the same as a stream"
ask '{"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"one two three"}]}'
say "what is left of 5 credits"
curl -sS --fail-with-body "$api/account/info" -H "authorization: Bearer llm-example-key"
echo
