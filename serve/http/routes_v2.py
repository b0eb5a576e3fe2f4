"""The Open Inference Protocol (KServe v2, Triton) over HTTP, with its binary tensor extension.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import http
import json
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from str_app import __version__
from str_app.errors import ImageError
from str_app.serve.errors import ProblemError
from str_app.serve.http.problems import too_many_images
from str_app.serve.http.service import Service
from str_app.serve.http.tensors import binary_bytes, binary_floats, split_bytes
from str_app.serve.http.uploads import from_base64, parse_json
from str_app.serve.inference.request_reader import RequestReader

if TYPE_CHECKING:
    from str_app.reading import Reading

HEADER_LENGTH = "Inference-Header-Content-Length"
INPUT = {"name": "image", "datatype": "BYTES", "shape": [-1]}
BINARY_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
LENGTH = {"description": "Bytes of the JSON, which binary tensors follow.", "schema": {"type": "integer", "minimum": 0}}
# Routes take the name from the path themselves: for a parameter of theirs, FastAPI documents a 422 that never comes.
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
OF_A_MODEL = {"parameters": [NAME]}
INFER = {
    "parameters": [NAME, {"name": HEADER_LENGTH, "in": "header", "required": False, **LENGTH}],
    "requestBody": {
        "description": "One input, `image`: encoded pictures, in base64 or after the JSON as binary data.",
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array"}}}
            },
            **BINARY_CONTENT,
        },
    },
}
INFERRED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The outputs.", "content": BINARY_CONTENT, "headers": {HEADER_LENGTH: LENGTH}}
}
OUTPUTS = {"text": "BYTES", "confidence": "FP32", "error": "BYTES", "reading": "BYTES"}


class Inference(NamedTuple):
    """A parsed inference request.

    Attributes:
        id: echoed in the response.
        shape: of the input, and thus of every output.
        images: encoded, or why the base64 of one cannot be decoded.
        outputs: requested output names → whether sent as binary data.
    """

    id: str | None
    shape: list[int]
    images: list[bytes | ImageError]
    outputs: dict[str, bool]


def routes(service: Service) -> APIRouter:
    """The router of the protocol's endpoints."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol"])
    batcher = service.batcher

    def model_asked_for(request: Request) -> str:
        name: str = request.path_params["name"]
        if name != batcher.reader.name or request.path_params.get("version", "1") != "1":
            raise ProblemError(404, "unknown_model", f"This server has the model {batcher.reader.name!r}, version 1.")
        return name

    @router.get("", summary="Server metadata")
    async def server() -> dict[str, Any]:
        return {"name": "str-app", "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.get("/health/live", summary="Liveness", responses=_errors(503))
    async def live() -> Response:
        return JSONResponse({"live": batcher.alive}, 200 if batcher.alive else 503)

    @router.get("/health/ready", summary="Readiness", responses=_errors(503))
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @router.get("/models/{name}", summary="Model metadata", responses=_errors(404), openapi_extra=OF_A_MODEL)
    @router.get("/models/{name}/versions/{version}", include_in_schema=False)
    async def model(request: Request) -> dict[str, Any]:
        name = model_asked_for(request)
        outputs = [{"name": output, "datatype": kind, "shape": [-1]} for output, kind in OUTPUTS.items()]
        return {"name": name, "versions": ["1"], "platform": "str-app", "inputs": [INPUT], "outputs": outputs}

    @router.get(
        "/models/{name}/ready", summary="Model readiness", responses=_errors(404, 503), openapi_extra=OF_A_MODEL
    )
    @router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(request: Request) -> Response:
        name = model_asked_for(request)
        return JSONResponse({"name": name, "ready": service.ready}, 200 if service.ready else 503)

    @router.post(
        "/models/{name}/infer",
        summary="Read words in pictures",
        responses=INFERRED | _errors(400, 404, 408, 413, 415, 429, 500, 503, 504),
        openapi_extra=INFER,
    )
    @router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request) -> Response:
        """Input `image`: word crops encoded as JPEG, PNG, …; in base64 if the tensor is in JSON.

        Outputs `text`, `confidence` and `error` (empty, or why an image has no reading); on request `reading` (JSON).
        """
        name = model_asked_for(request)
        with service.receive(request) as body:
            body.require_uncompressed()
            content = await body.raw()
            length = request.headers.get(HEADER_LENGTH)
            inference = await service.decoder.run(
                request, partial(_parsed, content, length, service.settings.max_images)
            )

            async def read(reader: RequestReader) -> Response:
                readings = await reader.read_crops(inference.images)
                return _response(name, inference, readings, reader.server_timing)

            return await service.answer(request, len(inference.images), read)

    return router


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: errors in the protocol's own format."""
    return {status: {"description": http.HTTPStatus(status).phrase} for status in statuses}


def _parsed(body: bytes, length: str | None, max_images: int) -> Inference:
    """Parse a request body.

    Args:
        body: JSON, possibly followed by binary tensors.
        length: of the JSON, from the `Inference-Header-Content-Length` header; None: all of the body.
        max_images: limit.

    Raises:
        ProblemError: 400 malformed, 413 too many images.
    """
    if length is not None and not (length.isdecimal() and len(length) < 20 and int(length) <= len(body)):
        raise _bad(f"{HEADER_LENGTH} is not a length within the body")
    end = len(body) if length is None else int(length)
    try:
        request = parse_json(body[:end])
        inputs = request["inputs"]
        (tensor,) = inputs
        name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        identifier = request.get("id")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _bad("send JSON with exactly one input: name, shape, datatype and data") from None
    try:
        outputs = _outputs(request)
    except (TypeError, KeyError, AttributeError):
        raise _bad("the outputs must be a list of objects with a name") from None
    if name != "image" or datatype != "BYTES":
        raise _bad("the input must be 'image' of datatype BYTES")
    if identifier is not None and not isinstance(identifier, str):
        raise _bad("the id must be a string")
    if identifier is not None and any("\ud800" <= character <= "\udfff" for character in identifier):
        raise _bad("the id has a lone surrogate, which UTF-8 cannot encode")
    if not isinstance(shape, list) or not all(type(side) is int and 0 < side <= 2**16 for side in shape):
        raise _bad("the shape must be a list of positive integers")
    count = 1
    for side in shape:
        count *= side
        if count > max_images:  # at once: the product of many sides takes long
            raise too_many_images(max_images)
    images: list[bytes | ImageError]
    if size is not None:
        if type(size) is not int or size != len(body) - end:
            raise _bad("binary_data_size is not the number of bytes after the JSON")
        try:
            images = list(islice(split_bytes(body[end:]), max_images + 1))
        except ValueError as error:
            raise _bad(str(error)) from None
    else:
        data = _flat(tensor.get("data"), max_images)
        if not all(isinstance(item, str) for item in data):
            raise _bad("data must be a list of base64 strings")
        images = [from_base64(item) for item in data]
    if len(images) != count:
        raise _bad(f"the shape has {count} elements but {len(images)} were sent")
    return Inference(identifier, shape, images, outputs)


def _outputs(request: dict[str, Any]) -> dict[str, bool]:
    """Requested output names → whether sent as binary data."""
    binary = bool((request.get("parameters") or {}).get("binary_data_output", False))
    requested = request.get("outputs")
    if not requested:
        return dict.fromkeys(("text", "confidence", "error"), binary)
    outputs = {str(o["name"]): bool((o.get("parameters") or {}).get("binary_data", binary)) for o in requested}
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown:
        raise _bad(f"unknown output {unknown[0][:80]!r}: there are {', '.join(OUTPUTS)}")
    return outputs


def _flat(data: Any, limit: int) -> list[Any]:
    """Elements of a JSON tensor, which may be nested; stops soon after `limit`."""
    flat: list[Any] = []
    stack = [data]
    while stack and len(flat) <= limit:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        else:
            flat.append(item)
    return flat


def _response(name: str, inference: Inference, readings: list[Reading | ImageError], timing: str) -> Response:
    columns: dict[str, list[Any]] = {
        "text": ["" if isinstance(r, ImageError) else r.text for r in readings],
        "confidence": [0.0 if isinstance(r, ImageError) else round(r.confidence, 4) for r in readings],
        "error": [f"{r.code}: {r.message}" if isinstance(r, ImageError) else "" for r in readings],
    }
    if "reading" in inference.outputs:
        columns["reading"] = [
            "" if isinstance(r, ImageError) else json.dumps(replace(r, attention=None).as_dict()) for r in readings
        ]
    outputs, tail = [], b""
    for output, binary in inference.outputs.items():
        tensor: dict[str, Any] = {"name": output, "datatype": OUTPUTS[output], "shape": inference.shape}
        if binary:
            data = binary_floats(columns[output]) if OUTPUTS[output] == "FP32" else binary_bytes(columns[output])
            tensor["parameters"] = {"binary_data_size": len(data)}
            tail += data
        else:
            tensor["data"] = columns[output]
        outputs.append(tensor)
    content = {"model_name": name, "model_version": "1", "outputs": outputs}
    if inference.id is not None:
        content["id"] = inference.id
    headers = {"Server-Timing": timing}
    if not tail:
        return JSONResponse(content, headers=headers)
    head = json.dumps(content).encode()
    return Response(
        head + tail, media_type="application/octet-stream", headers=headers | {HEADER_LENGTH: str(len(head))}
    )


def _bad(detail: str) -> ProblemError:
    return ProblemError(400, "bad_inference_request", detail)
