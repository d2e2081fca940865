#!/usr/bin/env python3
"""A sample API in the shape of ApiOne's: enriches people at once, or in jobs.

Nobody is found whose e-mail address contains "nobody". A job is queued at the first question about it, processing at the
second, and completed at the third; one with the type "broken" fails. Run it with a port: `python3 upstream.py 9100`; 0 takes
a free one.
"""

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

numbers = itertools.count(1)
jobs = {}  # id: [records found or not, fails, questions so far]


class ApiOne(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/async/enrich"):
            job = f"job_{next(numbers)}"
            found = ["nobody" not in json.dumps(record) for record in request["records"]]
            jobs[job] = [found, request["type"] == "broken", 0]
            answer = {"job_id": job, "estimated_completion_seconds": 1, "total_records": len(found)}
            return self.send(200, answer)
        if "nobody" in request.get("email", ""):
            return self.send(404, {"status": "error", "code": 404, "message": "not_found"})
        self.send(200, {"person": {"email": request["email"]}})

    def do_GET(self):
        what, name = self.path.rsplit("/", 2)[1:]
        job = jobs.get(name)
        if job is None:
            return self.send(404, {"status": "error", "code": 404, "message": "not_found"})
        job[2] += what == "status"
        state = ["queued", "queued", "processing", "failed" if job[1] else "completed"][min(job[2], 3)]
        if what == "status":
            return self.send(200, {"job_id": name, "state": state})
        if state != "completed":
            return self.send(409, {"status": "error", "code": 409, "message": "not completed"})
        self.send(200, {"state": state, "found": sum(job[0]), "not_found": len(job[0]) - sum(job[0])})

    def send(self, status, answer):
        data = json.dumps({"status": "success", **answer}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9100), ApiOne)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
