"""A gRPC server, and a client that checks the gateway in front of it. Messages are plain bytes."""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "sample.Echo"


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        meta = dict(details.invocation_metadata)
        assert "x-api-key" not in meta, "the key went upstream"

        def unary(request, context):
            if request == b"slow":
                time.sleep(3)
            if request == b"fail":
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not 50% sure\u00e9")
            context.set_trailing_metadata((("x-cost", "3"), ("x-account", meta.get("x-tollgate-account", ""))))
            return b"echo:" + request

        def down(request, context):
            for number in range(int(request)):
                yield b"%d" % number

        def up(requests, context):
            return b"%d" % sum(len(request) for request in requests)

        def both(requests, context):
            for request in requests:
                yield b"echo:" + request

        return {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Down": grpc.unary_stream_rpc_method_handler(down),
            "Up": grpc.stream_unary_rpc_method_handler(up),
            "Both": grpc.stream_stream_rpc_method_handler(both),
        }.get(name)


def serve(certificate=None, key=None):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Echo(),))
    if certificate:
        with open(certificate, "rb") as chain, open(key, "rb") as secret:
            credentials = grpc.ssl_server_credentials([(secret.read(), chain.read())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


def refused(call, code):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        return error
    raise AssertionError(f"not refused with {code}")


def call(target, key, authority_file=None):
    if authority_file:
        with open(authority_file, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        options = (("grpc.ssl_target_name_override", "localhost"),)
        channel = grpc.secure_channel(target, credentials, options)
    else:
        channel = grpc.insecure_channel(target)
    good = (("x-api-key", key),)
    unary = channel.unary_unary(f"/{SERVICE}/Unary")

    answer, outcome = unary.with_call(b"hello", metadata=good, timeout=10)
    trailing = dict(outcome.trailing_metadata())
    assert answer == b"echo:hello" and trailing["x-account"] == "acme", (answer, trailing)

    down = channel.unary_stream(f"/{SERVICE}/Down")
    assert [int(n) for n in down(b"500", metadata=good, timeout=10)] == list(range(500))

    up = channel.stream_unary(f"/{SERVICE}/Up")
    assert up((b"x" * 10_000 for _ in range(50)), metadata=good, timeout=10) == b"500000"

    both = channel.stream_stream(f"/{SERVICE}/Both")
    sent, heard = threading.Semaphore(1), []

    def talk():
        for number in range(20):
            sent.acquire(timeout=5)
            yield b"%d" % number

    for message in both(talk(), metadata=good, timeout=20):
        heard.append(message)
        sent.release()
    assert heard == [b"echo:%d" % number for number in range(20)], heard

    error = refused(lambda: unary(b"fail", metadata=good, timeout=10), grpc.StatusCode.FAILED_PRECONDITION)
    assert error.details() == "not 50% sure\u00e9", error.details()
    refused(lambda: unary(b"slow", metadata=good, timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)
    stream = both((time.sleep(5) or b"late" for _ in range(1)), metadata=good)
    threading.Timer(0.3, stream.cancel).start()
    refused(lambda: next(stream), grpc.StatusCode.CANCELLED)

    error = refused(lambda: unary(b"x", timeout=10), grpc.StatusCode.UNAUTHENTICATED)
    assert "key" in error.details().lower(), error.details()
    refused(lambda: unary(b"x", metadata=(("x-api-key", "wrong"),), timeout=10), grpc.StatusCode.UNAUTHENTICATED)
    nowhere = channel.unary_unary("/other.Service/Unary")
    refused(lambda: nowhere(b"x", metadata=good, timeout=10), grpc.StatusCode.UNIMPLEMENTED)
    poor = (("x-api-key", "poor-key"),)
    refused(lambda: unary(b"x", metadata=poor, timeout=10), grpc.StatusCode.RESOURCE_EXHAUSTED)
    print("all calls went as they should")


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
