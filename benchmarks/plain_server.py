"""The server one would write in an afternoon: FastAPI over ONNX Runtime in int8, no batching.

    python benchmarks/plain_server.py minilm/ --port 8081

A peer for benchmarks/serving.py: the graph is fused for BERT and quantised as in `sparsebert bench`
for the same engine; a thread pool runs several requests at a time, but never as one batch.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from sparsebert.bench.engines.onnxruntime import OnnxRuntimeEngine
from sparsebert.checkpoint import resolve_model
from sparsebert.checkpoint.sentence_config import read_sentence_config
from sparsebert.checkpoint.tokenizer import read_tokenizer


class Request(BaseModel):
    input: str | list[str]
    model: str = "default"


def create(model: Path, workspace: Path, threads: int) -> FastAPI:
    """An application that embeds by the mean of the last layer, normalised to length 1."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    folder = OnnxRuntimeEngine("int8").prepare(model, workspace)
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    names = {given.name for given in session.get_inputs()}
    stored = read_tokenizer(model)
    assert stored is not None
    tokenizer = stored.backend
    tokenizer.enable_padding()
    tokenizer.enable_truncation(read_sentence_config(model).max_length or stored.max_length or 512)
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embed(request: Request) -> dict[str, object]:
        texts = [request.input] if isinstance(request.input, str) else request.input
        found = tokenizer.encode_batch(texts)
        given = {
            "input_ids": np.array([each.ids for each in found], np.int64),
            "attention_mask": np.array([each.attention_mask for each in found], np.int64),
            "token_type_ids": np.array([each.type_ids for each in found], np.int64),
        }
        hidden = session.run(None, {name: given[name] for name in names})[0]
        mask = given["attention_mask"][:, :, None]
        means = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        data = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(means.tolist())
        ]
        return {"object": "list", "data": data, "model": request.model}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a dense model's folder or hub id")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--cache", type=Path, help="keep the exported graph here, for next time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = asked.cache or Path(temporary)
        app = create(resolve_model(asked.model), workspace, asked.threads)
        uvicorn.run(app, port=asked.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
