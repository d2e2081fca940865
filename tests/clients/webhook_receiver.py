"""Receives webhooks and verifies them with the reference library. `PUT /NAME` sets the secret of an endpoint, `GET /`
shows what arrived. What an endpoint answers depends on the first part of its path."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

secrets, seen, lock = {}, [], threading.Lock()


class Receiver(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            self.answer(200, json.dumps(seen).encode())

    def do_PUT(self):
        with lock:
            secrets[self.path] = self.body()
        self.answer(204)

    def body(self):
        return self.rfile.read(int(self.headers["content-length"])).decode()

    def do_POST(self):
        body, message = self.body(), self.headers["webhook-id"]
        with lock:
            before = sum(one["path"] == self.path and one["id"] == message for one in seen)
            try:
                Webhook(secrets[self.path]).verify(body, dict(self.headers))
                event = json.loads(body)
                seen.append({"path": self.path, "id": message, "type": event["type"], "data": event["data"]})
            except (KeyError, WebhookVerificationError) as error:
                seen.append({"path": self.path, "id": message, "type": f"refused: {error!r}", "data": None})
        match self.path.split("/")[1]:
            case "fails" if before == 0:
                self.answer(500)
            case "later" if before == 0:
                self.answer(503, retry_after="7")
            case "hangs":
                time.sleep(60)
            case "redirects":
                self.answer(302, location="/ok")
            case "gone":
                self.answer(410)
            case _:
                self.answer(204)


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
