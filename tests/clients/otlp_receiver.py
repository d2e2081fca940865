"""A collector that takes traces (OTLP over HTTP) and decodes them with the published messages. `GET /` shows the spans.
Below `/busy` it refuses the first export of each process with 503."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

spans, refused, lock = [], [], threading.Lock()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(of):
    return {one.key: value(one.value) for one in of.attributes}


class Receiver(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            self.answer(200, json.dumps(spans).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-type"] != "application/x-protobuf" or not self.path.endswith("/v1/traces"):
            return self.answer(400)
        with lock:
            if self.path.startswith("/busy") and not refused:
                refused.append(True)
                return self.answer(503)
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        spans.append({
                            "trace": span.trace_id.hex(),
                            "span": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "name": span.name,
                            "kind": span.kind,
                            "nanoseconds": span.end_time_unix_nano - span.start_time_unix_nano,
                            "start": span.start_time_unix_nano,
                            "error": span.status.code == 2,
                            "attributes": attributes(span),
                            "resource": attributes(of_resource.resource),
                            "token": self.headers["authorization"],
                        })
        self.answer(200)


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
