#!/usr/bin/env python3
"""The server through the clients that its users have: huggingface_hub and tritonclient.

    check.py --badge target/release/badge --model runs/quickstart
    check.py --badge target/release/badge --record

The same texts are asked by each client in each of its ways, and of `badge predict`; all must say the
same. With --record the tiny model of the fixtures is served instead, and what goes over the wire is
written beside this file, for the server's own tests to play again without Python.
"""
import argparse
import base64
import contextlib
import http.client
import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from huggingface_hub import InferenceClient
from huggingface_hub.utils import get_session

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
import serving

FIXTURES = HERE.parents[3] / "fixtures"
NAME = "tiny"
TEXTS = ["the cat sat on the mat", "a dog ran", "the old red stone bridge is not so fine after all"]


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def close(found, expected, what):
    check(np.allclose(found, expected, rtol=0, atol=2e-5), f"{what}: {found}, not {expected}")


def tiny_model(folder):
    """The tiny model of the server's own tests."""
    for file in ["parity/albert/config.json", "parity/albert/model.safetensors", "tokenizer/tokenizer.json"]:
        shutil.copy(FIXTURES / file, folder)
    return folder


# What goes over the wire.

class Recorder:
    """Stands between clients and server, and keeps what both say."""

    KEPT_HEADERS = ["content-type", "inference-header-content-length"]

    def __init__(self, address):
        self.target, self.pairs = address, []
        recorder = self

        class Between(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                recorder.pass_on(self)

            do_GET = do_POST = pass_on

            def log_message(self, *_):
                pass

        self.between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Between)
        threading.Thread(target=self.between.serve_forever, daemon=True).start()
        self.address = "%s:%d" % self.between.server_address

    def pass_on(self, handler):
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection(self.target)
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        answer = connection.getresponse()
        answered = answer.read()
        kept = lambda headers: [(name, headers[name]) for name in self.KEPT_HEADERS if headers[name]]
        self.pairs.append({"method": handler.command, "path": handler.path, "headers": kept(handler.headers),
                           "body": base64.b64encode(body).decode(), "status": answer.status,
                           "answer_headers": kept(answer.headers), "answer": base64.b64encode(answered).decode()})
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "date"):
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answered)
        connection.close()

    def intercept(self, method, request, code, answer):
        self.pairs.append({"method": method.rsplit("/", 1)[-1], "message": base64.b64encode(request).decode(),
                           "code": code, "answer": base64.b64encode(answer).decode()})


class Interceptor(grpc.UnaryUnaryClientInterceptor):
    """Keeps the messages of tritonclient's calls."""

    def __init__(self, recorder):
        self.recorder = recorder

    def intercept_unary_unary(self, continuation, details, request):
        call = continuation(details, request)
        code = call.code().value[0]
        answer = b"" if code else call.result().SerializeToString()
        self.recorder.intercept(details.method, request.SerializeToString(), code, answer)
        return call


# The clients.

def predicted(badge, model, policy="full"):
    """What `badge predict` says: rows with label, score and probabilities."""
    command = [badge, "predict", "--model", model, "--policy", policy, "--json", "--format", "lines", "-"]
    done = subprocess.run(command, input="\n".join(TEXTS), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["predictions"]


def hugging_face(url, rows):
    """huggingface_hub's own call, and its session on the other routes."""
    client = InferenceClient(model=url)
    for text, row in zip(TEXTS, rows):
        found = client.text_classification(text)
        check(found[0].label == row["label"], f"text_classification: {found}")
        close(found[0].score, row["score"], "text_classification")
        check([e.score for e in found] == sorted((e.score for e in found), reverse=True), f"text_classification: {found}")
        one = client.text_classification(text, top_k=1)
        check(len(one) == 1 and one[0].label == row["label"], f"top_k: {one}")
        logits = client.text_classification(text, function_to_apply="none")
        check(logits[0].label == row["label"] and logits[0].score != found[0].score, f"function_to_apply: {logits}")
    session = get_session()

    def post(path, body):
        answer = session.post(f"{url}{path}", json=body)
        check(answer.status_code == 200, f"{path}: {answer.text}")
        return answer.json()

    batch = post("/predict", {"inputs": [[text] for text in TEXTS]})
    for scores, row in zip(batch, rows, strict=True):
        check(scores[0]["label"] == row["label"], f"/predict: {scores}")
        for score in scores:
            close(score["score"], row["probabilities"][score["label"]], "/predict")
    single = post("/predict", {"inputs": TEXTS[0]})
    check(single == batch[0], f"/predict of one: {single}")
    classified = post("/classify", {"input": TEXTS})
    check(classified["data"] == batch, f"/classify: {classified}")
    tokens = post("/tokenize", {"inputs": TEXTS})
    ids = [[token["id"] for token in text] for text in tokens]
    decoded = post("/decode", {"ids": ids, "skip_special_tokens": True})
    for text, found in zip(TEXTS, decoded, strict=True):
        # Words that a vocabulary lacks are left out, and not every tokeniser puts pieces together.
        words = iter(text.split())
        check(found and all(word in words for word in found.lower().replace(" ##", "").split()), f"/decode: {found}")
    return session


def ranking(session, url, labels):
    """/rerank, which takes models of one output or two."""
    answer = session.post(f"{url}/rerank", json={"query": TEXTS[0], "texts": TEXTS, "return_text": True})
    if labels > 2:
        check(answer.status_code == 424 and answer.json()["error_type"] == "Backend", f"/rerank: {answer.text}")
        return
    ranks = answer.json()
    scores = [rank["score"] for rank in ranks]
    check(scores == sorted(scores, reverse=True), f"/rerank: {ranks}")
    check(all(TEXTS[rank["index"]] == rank["text"] for rank in ranks), f"/rerank: {ranks}")
    jina = session.post(f"{url}/v1/rerank", json={"model": "any", "query": TEXTS[0], "documents": TEXTS, "top_n": 2})
    results = jina.json()["results"]
    check([result["index"] for result in results] == [rank["index"] for rank in ranks[:2]], f"/v1/rerank: {results}")


def text_input(module, texts, shape=None):
    tensor = module.InferInput("text", shape or [len(texts)], "BYTES")
    return tensor, np.array([text.encode() for text in texts], dtype=np.object_).reshape(shape or [len(texts)])


OUTPUTS = ["label", "label_id", "probabilities", "logits", "exit_layer", "confidence"]


def values(result):
    return {name: result.as_numpy(name) for name in OUTPUTS}


def same(found, expected, what):
    for name, tensor in expected.items():
        check(found[name].shape == tensor.shape and found[name].dtype == tensor.dtype, f"{what}: {name}")
        if tensor.dtype == np.float32:
            close(found[name], tensor, f"{what}: {name}")
        else:
            check((found[name] == tensor).all(), f"{what}: {name}: {found[name]}, not {tensor}")


def over_http(address, model=NAME):
    """tritonclient over HTTP: tensors as JSON and as bytes."""
    client = triton_http.InferenceServerClient(address)
    check(client.is_server_live() and client.is_server_ready() and client.is_model_ready(model), "not ready")
    metadata = client.get_model_metadata(model)
    check([output["name"] for output in metadata["outputs"]] == OUTPUTS, f"metadata: {metadata}")
    check(client.get_server_metadata()["name"] == "badge", "server metadata")
    answers = {}
    for binary in [False, True]:
        tensor, data = text_input(triton_http, TEXTS)
        tensor.set_data_from_numpy(data, binary_data=binary)
        wanted = [triton_http.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
        result = client.infer(model, [tensor], outputs=wanted, request_id="7", priority=1, timeout=60_000_000)
        check(result.get_response()["id"] == "7", "id")
        answers[binary] = values(result)
    # BYTES come as texts in JSON and as bytes beside it.
    answers[False]["label"] = np.array([label.encode() for label in answers[False]["label"]], dtype=np.object_)
    same(answers[True], answers[False], "bytes and JSON")
    tensor, data = text_input(triton_http, TEXTS)
    tensor.set_data_from_numpy(data)
    # No outputs are named: all of them come as bytes.
    check(client.infer(model, [tensor]).as_numpy("probabilities").shape[0] == len(TEXTS), "no outputs named")
    pairs, data = text_input(triton_http, TEXTS[:2] * 2, [2, 2])
    pairs.set_data_from_numpy(data)
    by_shape = client.infer(model, [pairs]).as_numpy("probabilities")
    close(by_shape[0], by_shape[1], "pairs")
    wrong = triton_http.InferInput("text", [1], "FP32")
    wrong.set_data_from_numpy(np.zeros([1], dtype=np.float32))
    refused(lambda: client.infer(model, [wrong]), "FP32", "400")
    refused(lambda: client.get_model_metadata("other"), "no model `other`", "404")
    client.close()
    return answers[True]


def over_grpc(address, recorder=None, model=NAME):
    """tritonclient over gRPC, whose tensors are bytes."""
    client = triton_grpc.InferenceServerClient(address)
    if recorder:
        channel = grpc.intercept_channel(client._channel, Interceptor(recorder))
        client._client_stub = triton_grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel)
    check(client.is_server_live() and client.is_server_ready() and client.is_model_ready(model), "not ready")
    metadata = client.get_model_metadata(model)
    check([output.name for output in metadata.outputs] == OUTPUTS, f"metadata: {metadata}")
    check(client.get_server_metadata().name == "badge", "server metadata")
    tensor, data = text_input(triton_grpc, TEXTS)
    tensor.set_data_from_numpy(data)
    wanted = [triton_grpc.InferRequestedOutput(name) for name in OUTPUTS]
    result = client.infer(model, [tensor], outputs=wanted, request_id="7", priority=1, timeout=60_000_000,
                          client_timeout=60)
    check(result.get_response().id == "7", "id")
    fixed = client.infer(model, [tensor], parameters={"policy": "fixed:1"})
    check((fixed.as_numpy("exit_layer") == 1).all(), "policy")
    wrong = triton_grpc.InferInput("text", [1], "FP32")
    wrong.set_data_from_numpy(np.zeros([1], dtype=np.float32))
    refused(lambda: client.infer(model, [wrong]), "tensor `text`", "INVALID_ARGUMENT")
    refused(lambda: client.get_model_metadata("other"), "no model `other`", "NOT_FOUND")
    if not recorder:
        # Neither is in the message that would be recorded. What would not get smaller is not compressed.
        long, data = text_input(triton_grpc, TEXTS * 8)
        long.set_data_from_numpy(data)
        refused(lambda: client.infer(model, [long], compression_algorithm="gzip"), "uncompressed", "UNIMPLEMENTED")
        # To send and to tokenise half a megabyte takes longer than the shortest time limit that gRPC keeps, 1 ms.
        slow, data = text_input(triton_grpc, [" ".join(TEXTS * 200)] * 32)
        slow.set_data_from_numpy(data)
        refused(lambda: client.infer(model, [slow], client_timeout=1e-3), "", "DEADLINE_EXCEEDED")
    answer = values(result)
    client.close()
    return answer


def refused(call, message, status):
    try:
        call()
    except (triton_http.InferenceServerException, triton_grpc.InferenceServerException) as error:
        check(message in error.message() and status in error.status(), f"refused with {error}")
    else:
        raise AssertionError(f"not refused with {status}: {message}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--badge", required=True)
    parser.add_argument("--model")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        model = tiny_model(folder) if arguments.record else arguments.model or parser.error("give --model")
        rows = predicted(arguments.badge, model)
        said = stack.enter_context(serving.server(
            arguments.badge, "--model", f"{NAME}={model}", "--policy", "full", "--grpc-port", "0"))
        address, grpc_address = said["address"], said["grpc"]
        recorder = Recorder(address) if arguments.record else None
        through = recorder.address if recorder else address
        url = f"http://{through}"
        session = hugging_face(url, rows)
        ranking(session, url, len(rows[0]["probabilities"]))
        http_values = over_http(through)
        same(over_grpc(grpc_address, recorder), http_values, "gRPC and HTTP")
        labels = [label.decode() for label in http_values["label"]]
        check(labels == [row["label"] for row in rows], f"labels: {labels}")
        close(http_values["confidence"], [row["score"] for row in rows], "confidence")
        probabilities = [list(row["probabilities"].values()) for row in rows]
        close(http_values["probabilities"], probabilities, "probabilities")
        if recorder:
            recording = HERE / "recorded.json"
            lines = ",\n".join(json.dumps(pair) for pair in recorder.pairs)
            recording.write_text(f"[\n{lines}\n]\n")
            print(f"{len(recorder.pairs)} requests and answers in {recording}")
    print("huggingface_hub, tritonclient and badge predict agree")


if __name__ == "__main__":
    main()
