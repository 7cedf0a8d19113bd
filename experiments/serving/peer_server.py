"""The Python server that ours is compared with: FastAPI, uvicorn, ONNX Runtime int8.

    python peer_server.py --onnx int8.onnx --model DIR --port 3000 --threads 1 --batch 8

It does what such a server is advised to do: uvloop and httptools, the tokeniser of `tokenizers`, a
session of as many threads as there are processors, and, with --batch above 1, micro-batches: what
waits when the session is free goes into it together, padded to the longest. `/predict`, `/info` and `/health` answer as text-embeddings-inference's do.
"""
import argparse
import asyncio
import contextlib
import json
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer


class Request(BaseModel):
    inputs: str | list[list[str]]
    truncate: bool = True


class Batcher:
    """Texts that wait while the session works; one thread drives it."""

    def __init__(self, classify, most):
        self.classify, self.most = classify, most
        self.waiting, self.wake = [], asyncio.Event()
        self.thread = ThreadPoolExecutor(max_workers=1)

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            await self.wake.wait()
            batch, self.waiting = self.waiting[:self.most], self.waiting[self.most:]
            if not self.waiting:
                self.wake.clear()
            rows = await loop.run_in_executor(self.thread, self.classify, [encoding for encoding, _ in batch])
            for (_, future), row in zip(batch, rows):
                if not future.done():
                    future.set_result(row)

    async def ask(self, encoding):
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((encoding, future))
        self.wake.set()
        return await future


def application(args):
    config = json.loads((args.model / "config.json").read_text())
    labels = [config["id2label"][key] for key in sorted(config["id2label"], key=int)]
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_padding()
    # As long as the exits were trained on, as our server has it.
    tokenizer.enable_truncation(config["early_exit"].get("max_length") or 128)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(args.onnx), options, providers=["CPUExecutionProvider"])

    def classify(encodings):
        longest = max(len(encoding.ids) for encoding in encodings)
        shape = (len(encodings), longest)
        ids, mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            ids[row, :length], mask[row, :length], types[row, :length] = encoding.ids, 1, encoding.type_ids
        [logits] = session.run(None, {"ids": ids, "mask": mask, "types": types})
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).tolist()

    batcher = Batcher(classify, args.batch)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        classify([tokenizer.encode("a text to warm up with")])
        driver = asyncio.create_task(batcher.run())
        yield
        driver.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(request: Request):
        inputs = request.inputs
        single = isinstance(inputs, str)
        texts = [[inputs]] if single else inputs
        encodings = [tokenizer.encode(*text) for text in texts]
        rows = await asyncio.gather(*(batcher.ask(encoding) for encoding in encodings))
        answers = [sorted(({"score": score, "label": label} for score, label in zip(row, labels)), key=lambda s: -s["score"])
                   for row in rows]
        return answers[0] if single else answers

    @app.get("/info")
    async def info():
        return {"model_id": args.model.name, "version": onnxruntime.__version__, "model_dtype": "int8"}

    @app.get("/health")
    async def health():
        return {}

    return app


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    uvicorn.run(application(args), host="127.0.0.1", port=args.port, loop="uvloop", http="httptools",
                log_level="warning", access_log=False, backlog=4096)


if __name__ == "__main__":
    main()
