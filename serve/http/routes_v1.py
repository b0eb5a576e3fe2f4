"""The server's own API: `POST /v1/recognize`, `/v1/regions` and `/v1/photos`, `GET /v1/models`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from str_app.decoding import parse_characters
from str_app.errors import ImageError, StrAppError
from str_app.serve.errors import ProblemError
from str_app.serve.http import problems, schema
from str_app.serve.http.service import Service
from str_app.serve.inference.request_reader import RequestReader
from str_app.views import QUARTER_TURNS

if TYPE_CHECKING:
    from str_app.reading import Reading

PROBLEMS = {
    400: "The multipart body or the JSON is malformed.",
    408: "The body took too long to arrive.",
    413: "The body is too large, or holds too many images or regions.",
    415: "Unsupported content type.",
    422: "No image in the request, a photograph that cannot be decoded, or invalid options.",
    429: "The server is overloaded; Retry-After says when to try again.",
    503: "The model is not ready yet; Retry-After says when to try again.",
    500: "Internal error; the server's log has the request_id.",
    504: "The deadline passed before the images were read.",
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
    "One or more files in the form field `images`; the same as base64 in JSON; or one image as the body.",
    {"images": {"type": "array", "items": BINARY}},
    {"images": {"type": "array", "minItems": 1, "items": JSON_IMAGE}},
    **{"image/*": {"schema": BINARY}},
)
PHOTO_BODY = _form(
    "A photograph and the regions to read in it.",
    {"image": BINARY, "regions": {"type": "string", "contentMediaType": "application/json"}},
    {"image": JSON_IMAGE, "regions": REGIONS},
)
WHOLE_PHOTO_BODY = _form(
    "A photograph: in the form field `image`; the same as base64 in JSON; or as the body.",
    {"image": BINARY},
    {"image": JSON_IMAGE},
    **{"image/*": {"schema": BINARY}},
)
Rotate = Annotated[
    bool,
    Query(description="Try every image, not only tall ones, turned by 0, 90, 180 and 270 degrees; 4 times the work."),
]
Characters = Annotated[
    str | None,
    Query(
        max_length=200,
        description="Characters that a text may have, such as `0-9` or `A-Z0-9-`: a `-` between two characters is a"
        " range, a backslash takes the next character literally. Confidences are given that the text has no others.",
    ),
]
Attention = Annotated[bool, Query(description="Also return the attention map of each character.")]


def routes(service: Service) -> APIRouter:
    """The router of these endpoints."""
    router = APIRouter(prefix="/v1", tags=["reading"], dependencies=[Depends(_refuse_unknown_parameters)])
    documented = problems.documented(PROBLEMS)

    def response(results: list[dict[str, Any]], reader: RequestReader) -> Response:
        content = {"model": reader.reader.name, "results": results}
        return JSONResponse(content, headers={"Server-Timing": reader.server_timing})

    def readings_of(crops: int, rotate: bool) -> int:
        return crops * (len(QUARTER_TURNS) if rotate else 1)

    @router.post(
        "/recognize",
        summary="Read word crops",
        response_model=schema.Recognition,
        responses=documented,
        openapi_extra=CROPS_BODY,
    )
    async def recognize(
        request: Request, rotate: Rotate = False, characters: Characters = None, attention: Attention = False
    ) -> Response:
        """Each image is the crop of one word. An image that cannot be read has an `error` as its result."""
        with service.receive(request) as body:
            uploads = await body.images()

            async def read(reader: RequestReader) -> Response:
                data, allowed = [upload.data for upload in uploads], _allowed(characters, reader)
                readings = await reader.read_crops(data, rotate=rotate, characters=allowed)
                named = zip(uploads, readings, strict=True)
                results = [{"image": upload.name, **_result(reading, attention)} for upload, reading in named]
                return response(results, reader)

            return await service.answer(request, readings_of(len(uploads), rotate), read)

    @router.post(
        "/regions",
        summary="Read regions of a photograph",
        response_model=schema.RegionsRead,
        responses=documented,
        openapi_extra=PHOTO_BODY,
    )
    async def regions(
        request: Request, rotate: Rotate = False, characters: Characters = None, attention: Attention = False
    ) -> Response:
        """One result per region, in order, with boxes in pixels of the photograph. A region that cannot be cut out has
        an `error` as its result."""
        with service.receive(request) as body:
            photo, quads = await body.photo_with_regions()

            async def read(reader: RequestReader) -> Response:
                results = []
                allowed = _allowed(characters, reader)
                for item in await reader.read_regions(photo.data, quads, rotate=rotate, characters=allowed):
                    if isinstance(item, ImageError):
                        results.append(_result(item, attention))
                    else:
                        corners = [[round(x, 1), round(y, 1)] for x, y in item[0].corners]
                        results.append({"region": corners, **_result(item[1], attention)})
                return response(results, reader)

            return await service.answer(request, readings_of(len(quads), rotate), read)

    @router.post(
        "/photos",
        summary="Find and read all words of a photograph",
        response_model=schema.PhotoRead,
        responses=documented | problems.documented({501: "This server has no detector of words."}),
        openapi_extra=WHOLE_PHOTO_BODY,
    )
    async def photos(request: Request, characters: Characters = None) -> Response:
        """Words in reading order: columns from left to right, each from top to bottom. Doubtful words are marked, not
        left out."""
        pipeline = service.photos
        if pipeline is None:
            off = service.settings.detector == "none"
            remedy = "start it with another detector than none" if off else "install 'str-app[photo]'"
            raise ProblemError(501, "no_detector", f"This server has no detector of words: {remedy}, or send regions.")
        with service.receive(request) as body:
            photo = await body.photo()

            async def read(reader: RequestReader) -> Response:
                allowed = _allowed(characters, reader)
                reading = await reader.read_photo(photo.data, pipeline, characters=allowed)
                content = {"model": reader.reader.name, "detector": pipeline.detector.name, **reading.as_dict()}
                return JSONResponse(content, headers={"Server-Timing": reader.server_timing})

            return await service.answer_photo(request, read)

    @router.get(
        "/models", summary="The model in use", responses=problems.documented({422: "An unknown query parameter."})
    )
    async def models() -> schema.Models:
        reader = service.batcher.reader
        return schema.Models(
            models=[schema.Model(name=reader.name, charset=reader.charset.characters, info=dict(reader.info))],
            detector=service.photos.detector.name if service.photos else None,
        )

    return router


async def _refuse_unknown_parameters(request: Request) -> None:
    """A misspelt option must not be ignored.

    Raises:
        ProblemError: 422, the endpoint has no such query parameter, or has it more than once.
    """
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            there_are = f"there are {', '.join(known)}" if known else "there are none"
            raise ProblemError(422, "invalid_request", f"Unknown query parameter {name[:80]!r}: {there_are}.")
        if len(request.query_params.getlist(name)) > 1:
            raise ProblemError(422, "invalid_request", f"Query parameter {name!r} is given more than once.")


def _allowed(characters: str | None, reader: RequestReader) -> str | None:
    """The model's characters that the list allows.

    Raises:
        ProblemError: 422, it is no list, or the model reads none of them.
    """
    if characters is None:
        return None
    try:
        return parse_characters(characters, reader.reader.charset)
    except StrAppError as error:
        raise ProblemError(422, "invalid_request", f"{error}.") from None


def _result(reading: Reading | ImageError, attention: bool) -> dict[str, Any]:
    if isinstance(reading, ImageError):
        return {"error": reading.as_dict()}
    return (reading if attention else replace(reading, attention=None)).as_dict()
