"""The server's own interface: `POST /v1/recognize`, `POST /v1/regions`, `GET /v1/models`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from str_app.errors import ImageError
from str_app.serve.http import problems, schema
from str_app.serve.inference.service import Service, Work
from str_app.views import MAX_VIEWS

if TYPE_CHECKING:
    from str_app.reading import Reading

PROBLEMS = {
    400: "The multipart body or the JSON cannot be read.",
    401: "A key is asked for and none, or a wrong one, was given.",
    408: "The body took too long to arrive.",
    413: "The body is too large, or holds too many images or regions.",
    415: "Another content type than those listed.",
    422: "No image in the request, or wrong options.",
    429: "Too much is being received or read; Retry-After says when to try again.",
    503: "The model is not ready yet; Retry-After says when to try again.",
    500: "A mistake of the server; its log has the request_id.",
    504: "The reading took longer than the deadline.",
}
BINARY = {"type": "string", "format": "binary"}
JSON_IMAGE = {
    "type": "object",
    "required": ["data"],
    "properties": {"name": {"type": "string"}, "data": {"type": "string", "description": "base64"}},
}
REGIONS = {
    "type": "array",
    "minItems": 1,
    "description": "Boxes [x0, y0, x1, y1], or quadrilaterals of 8 numbers or 4 points, clockwise from the first"
    " letter's top left, in pixels of the upright photograph.",
    "items": {"type": "array"},
}


def _form(description: str, form: dict[str, Any], document: dict[str, Any], **more: Any) -> dict[str, Any]:
    def object_of(properties: dict[str, Any]) -> dict[str, Any]:
        return {"schema": {"type": "object", "required": list(properties), "properties": properties}}

    content = {"multipart/form-data": object_of(form), "application/json": object_of(document), **more}
    return {"requestBody": {"required": True, "description": description, "content": content}}


CROPS_BODY = _form(
    "One or more files in the field `images`, the same as base64 in JSON, or one image as it is.",
    {"images": {"type": "array", "items": BINARY}},
    {"images": {"type": "array", "minItems": 1, "items": JSON_IMAGE}},
    **{"image/*": {"schema": BINARY}},
)
PHOTO_BODY = _form(
    "A photograph and the regions marked in it.",
    {"image": BINARY, "regions": {"type": "string", "contentMediaType": "application/json"}},
    {"image": JSON_IMAGE, "regions": REGIONS},
)
Rotate = Annotated[
    bool,
    Query(description="Try each word, not only tall ones, turned by 0, 90, 180 and 270 degrees; 4 times the work."),
]
Attention = Annotated[bool, Query(description="Also return where the network looked for each character.")]


def routes(service: Service) -> APIRouter:
    """The routes, around one application's parts."""
    router = APIRouter(prefix="/v1", tags=["reading"])
    documented = problems.documented(PROBLEMS)

    def json_of(results: list[dict[str, Any]], job: Work) -> Response:
        return JSONResponse({"model": job.reader.name, "results": results}, headers={"Server-Timing": job.timing})

    @router.post(
        "/recognize",
        summary="Read words in pictures",
        response_model=schema.Recognition,
        responses=documented,
        openapi_extra=CROPS_BODY,
    )
    async def recognize(request: Request, rotate: Rotate = False, attention: Attention = False) -> Response:
        """Each image is the crop of one word. An image that cannot be read gets an `error` in its place."""
        with service.receive(request) as body:
            uploads = await body.images()

            async def work(job: Work) -> Response:
                readings = await job.read_crops(uploads, rotate)
                named = zip(uploads, readings, strict=True)
                results = [{"image": upload.name, **_result(reading, attention)} for upload, reading in named]
                return json_of(results, job)

            return await service.answer(request, len(uploads) * (MAX_VIEWS if rotate else 1), work)

    @router.post(
        "/regions",
        summary="Read words marked in a photograph",
        response_model=schema.RegionsRead,
        responses=documented,
        openapi_extra=PHOTO_BODY,
    )
    async def regions(request: Request, rotate: Rotate = False, attention: Attention = False) -> Response:
        """One result per region, in order, with `box` in pixels of the photograph. A region without a crop gets an
        `error` in its place."""
        with service.receive(request) as body:
            photo, marked = await body.photo()

            async def work(job: Work) -> Response:
                results = []
                for item in await job.read_regions(photo, marked, rotate):
                    if isinstance(item, ImageError):
                        results.append(_result(item, attention))
                    else:
                        corners = [[round(x, 1), round(y, 1)] for x, y in item[0].corners]
                        results.append({"region": corners, **_result(item[1], attention)})
                return json_of(results, job)

            return await service.answer(request, len(marked) * (MAX_VIEWS if rotate else 1), work)

    @router.get("/models", summary="The model that answers", responses=problems.documented({401: PROBLEMS[401]}))
    async def models() -> schema.Models:
        reader = service.batcher.reader
        return schema.Models(
            models=[schema.Model(name=reader.name, charset=reader.charset.characters, info=dict(reader.info))]
        )

    return router


def _result(outcome: Reading | ImageError, attention: bool) -> dict[str, Any]:
    if isinstance(outcome, ImageError):
        return {"error": {"code": outcome.code, "message": outcome.message}}
    return (outcome if attention else replace(outcome, attention=None)).as_dict()
