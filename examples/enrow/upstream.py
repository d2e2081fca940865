#!/usr/bin/env python3
"""A sample API in the shape of Enrow's: finds and verifies e-mail addresses and phone numbers, one by one or in bulk.

Nothing is found for what contains "nobody". A search is ongoing at the first question about it, and done at the second.
Run it with a port: `python3 upstream.py 9100`; 0 takes a free one.
"""

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PRICES = {"/email/find": 1, "/email/verify": 0.25, "/phone": 40}
numbers = itertools.count(1)
jobs = {}  # id: (what, items found or not, questions so far)


class Enrow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        what, kind = self.path.rsplit("/", 1)
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        items = [request] if kind == "single" else next(value for value in request.values() if isinstance(value, list))
        found = ["nobody" not in json.dumps(item) for item in items]
        job = f"{what.strip('/').replace('/', '-')}-{next(numbers)}"
        jobs[job] = [what, found, 0]
        if kind == "single":
            return self.send(201 if what == "/phone" else 200, {"id": job})
        price = PRICES[what] * len(items)
        self.send(201, {"id": job, "credits_used": price, "estimated_duration": 1})

    def do_GET(self):
        address = urlsplit(self.path)
        what, kind = address.path.rsplit("/", 1)
        job = jobs.get(parse_qs(address.query).get("id", [""])[0])
        if job is None:
            return self.send(500 if kind == "single" else 400, {"message": "Not found"})
        job[2] += 1
        is_done = job[2] > 1
        if kind == "single":
            qualification = ("found" if job[1][0] else "not_found") if is_done else "ongoing"
            return self.send(200 if is_done else 202, {"qualification": qualification})
        if not is_done:
            return self.send(200 if what == "/phone" else 202, {"general": {"status": "ongoing"}})
        initial, final = PRICES[what] * len(job[1]), PRICES[what] * sum(job[1])
        cost = {"initial": initial, "refunded": initial - final, "final": final}
        self.send(200, {"general": {"status": "completed"}, "stats": {"credits_cost": final if what == "/phone" else cost}})

    def send(self, status, answer):
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9100), Enrow)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
