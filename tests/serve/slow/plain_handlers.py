"""What people write first: a FastAPI handler that calls the model once a request. For comparison only.

`python -m tests.serve.slow.plain_handlers reader|rapidocr PORT`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from str_app.cpu import usable_cores


def read_with_reader() -> Callable[[bytes], dict[str, Any]]:
    from str_app.reader import Reader

    reader = Reader.load("small", threads=usable_cores())
    return lambda data: reader.recognize([data])[0].as_dict()


def read_with_rapidocr() -> Callable[[bytes], dict[str, Any]]:
    """PP-OCR's recogniser alone, on ONNX Runtime: one crop a call, as RapidOCRAPI does."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": usable_cores()})

    def read(data: bytes) -> dict[str, Any]:
        found = engine(data, use_det=False, use_cls=False, use_rec=True)
        return {"text": found.txts[0] if found.txts else ""}

    return read


def application(read: Callable[[bytes], dict[str, Any]], in_threads: bool) -> FastAPI:
    app = FastAPI()

    @app.get("/readyz")
    @app.get("/healthz")
    async def ready() -> dict[str, str]:
        return {}

    async def body(request: Request) -> bytes:
        return await request.body()

    if in_threads:
        from starlette.concurrency import run_in_threadpool

        @app.post("/v1/recognize")
        async def threaded(request: Request) -> dict[str, Any]:
            return {"results": [await run_in_threadpool(read, await body(request))]}
    else:

        @app.post("/v1/recognize")
        async def blocking(request: Request) -> dict[str, Any]:
            return {"results": [read(await body(request))]}

    return app


if __name__ == "__main__":
    kind, port = sys.argv[1:]
    read = read_with_rapidocr() if kind == "rapidocr" else read_with_reader()
    app = application(read, in_threads=kind == "reader-threads")
    uvicorn.run(app, port=int(port), log_level="warning")
