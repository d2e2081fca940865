#!/usr/bin/env python3
"""A sample API of a language model in OpenAI's shape. Answers with the prompt's words, a token each.

Run it with a port: `python3 upstream.py 9100`; 0 takes a free one.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = " ".join(message["content"] for message in request["messages"]).split()
        answer = list(reversed(words))[: request.get("max_tokens", 100)]
        usage = {"prompt_tokens": len(words), "completion_tokens": len(answer)}
        usage["prompt_tokens_details"] = {"cached_tokens": len(words) // 2 if "again" in words else 0}
        if request.get("stream"):
            return self.stream(answer, usage)
        message = {"role": "assistant", "content": " ".join(answer)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.send("application/json", [json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})])

    def stream(self, answer, usage):
        delta = lambda word: {"index": 0, "delta": {"content": word + " "}}
        chunks = [{"choices": [delta(word)], "usage": None} for word in answer]
        chunks.append({"choices": [], "usage": usage})
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self.send("text/event-stream", [*events, "data: [DONE]\n\n"])

    def send(self, content_type, parts):
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in parts:
            data = part.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9100), Model)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
