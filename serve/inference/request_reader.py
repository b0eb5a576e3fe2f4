"""Reads the images of one request: decode, enqueue, wait for the batches, enqueue variants, merge the views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from str_app.errors import ImageError
from str_app.serve.errors import ProblemError
from str_app.serve.inference.batcher import Batcher
from str_app.serve.inference.image_decoder import ImageDecoder, PixelBudget
from str_app.serve.inference.jobs import CropJob, Share, ViewResult, set_results
from str_app.serve.operations.metrics import Metrics
from str_app.views import MAX_VIEWS, hardly_read, merge, variants_of, views_of

if TYPE_CHECKING:
    from str_app.inputs.regions import Region
    from str_app.photos.photo_reader import PhotoPipeline, Steps
    from str_app.photos.reading import PhotoReading
    from str_app.reading import Reading
    from str_app.views import Canvas

T = TypeVar("T")
MakeViews = Callable[[npt.NDArray[np.uint8]], "list[Canvas]"]  # of a decoded crop; see `str_app.views.views_of`
Size = tuple[int, int]  # height and width of a photograph
STAGES = ("decode", "queue", "inference")
# Words of a photograph that are read at a time: a page with a thousand takes no more of the queue than one request
# with as many crops.
WORDS_AT_A_TIME = 64


@dataclass
class _Crop:
    """A crop whose views have been read."""

    views: Sequence[Canvas]
    results: list[ViewResult]
    variants: CropJob | None = None

    @property
    def readings(self) -> list[Reading]:
        return [result.reading for result in self.results]


class RequestReader:
    """Reads the images of one request, all with the same model even if it is reloaded meanwhile.

    Args:
        batcher: where views are read.
        decoder: where uploads are decoded.
        budget: of the images' pixels.
        metrics: where images are counted.

    Attributes:
        reader: the model.
        stages: seconds of the slowest image in each of `STAGES`.
        texts: what was read, None for an image without reading.
        words_found, words_read: of a photograph, so far.
    """

    def __init__(self, batcher: Batcher, decoder: ImageDecoder, budget: PixelBudget, metrics: Metrics) -> None:
        self.reader = batcher.reader
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.texts: list[str | None] = []
        self.words_found = self.words_read = 0
        self._share = Share()
        self._batcher = batcher
        self._decoder = decoder
        self._budget = budget
        self._metrics = metrics

    @property
    def server_timing(self) -> str:
        """Value of the Server-Timing header."""
        return ", ".join(f"{stage};dur={seconds * 1e3:.2f}" for stage, seconds in self.stages.items())

    async def read_crops(
        self, images: Sequence[bytes | ImageError], *, rotate: bool = False, characters: str | None = None
    ) -> list[Reading | ImageError]:
        """Read encoded crops: for each, in order, its reading or why there is none.

        Args:
            images: encoded.
            rotate, characters: see `str_app.views.views_of`.
        """
        make_views = self._view_maker(rotate, characters)
        jobs = [image if isinstance(image, ImageError) else self._decode(image, make_views) for image in images]
        return self._counted(await self._results(jobs))

    async def read_regions(
        self,
        photo: bytes | ImageError,
        regions: Sequence[Any],
        *,
        rotate: bool = False,
        characters: str | None = None,
    ) -> list[tuple[Region, Reading] | ImageError]:
        """Read regions of an encoded photograph, in order; boxes of characters are in pixels of the photograph.

        Args:
            photo: encoded.
            regions: as `str_app.inputs.regions.parse_region` takes them.
            rotate, characters: see `str_app.views.views_of`.

        Raises:
            ProblemError: 422, the photograph cannot be decoded.
        """
        from str_app.inputs.regions import crops_of_regions, to_photo

        make_views = self._view_maker(rotate, characters)

        def cut(pixels: npt.NDArray[np.uint8]) -> tuple[list[tuple[Region, list[Canvas]] | ImageError], Size]:
            crops = crops_of_regions(pixels, regions, self._decoder.limits)
            views = [crop if isinstance(crop, ImageError) else (crop[0], make_views(crop[1])) for crop in crops]
            return views, (pixels.shape[0], pixels.shape[1])

        crops, photo_size = await self._decode_photo(photo, cut)
        jobs = [item if isinstance(item, ImageError) else self._enqueue(item[1]) for item in crops]
        readings = self._counted(await self._results(jobs))
        results: list[tuple[Region, Reading] | ImageError] = []
        for item, reading in zip(crops, readings, strict=True):
            if isinstance(reading, ImageError):
                results.append(reading)
            elif not isinstance(item, ImageError):
                region = item[0]
                results.append((region, reading.with_boxes(partial(to_photo, region=region, photo_size=photo_size))))
        return results

    async def read_photo(
        self, photo: bytes | ImageError, pipeline: PhotoPipeline, *, characters: str | None = None
    ) -> PhotoReading:
        """Find and read all words of an encoded photograph.

        Args:
            photo: encoded.
            pipeline: finds the words.
            characters: see `str_app.views.views_of`.

        Raises:
            ProblemError: 422, the photograph cannot be decoded.
        """
        make_views = self._view_maker(False, characters, level=True)

        def views_or_result(advance: Callable[[], list[npt.NDArray[np.uint8]]]) -> list[list[Canvas]] | PhotoReading:
            try:
                return [make_views(crop) for crop in advance()]
            except StopIteration as end:
                result: PhotoReading = end.value
                return result

        def find(pixels: npt.NDArray[np.uint8]) -> tuple[Steps, list[list[Canvas]] | PhotoReading]:
            steps = pipeline.steps(pixels, self._decoder.limits, self.reader.policy)
            return steps, views_or_result(lambda: next(steps))

        steps, state = await self._decode_photo(photo, find, finds_words=True)
        while isinstance(state, list):
            readings: list[Reading] = []
            self.words_found = max(self.words_found, len(state))  # later rounds read some of them again
            for first in range(0, len(state), WORDS_AT_A_TIME):
                jobs = [self._enqueue(views) for views in state[first : first + WORDS_AT_A_TIME]]
                # Views of pixels: none of them can fail to be decoded.
                readings += [item for item in await self._results(jobs) if not isinstance(item, ImageError)]
                self.words_read = max(self.words_read, len(readings))
            advance = partial(views_or_result, partial(steps.send, readings))
            state = await self._decoder.run(self, advance, finds_words=True)
        self._counted([word.reading for word in state.words])
        return state

    async def _decode_photo(
        self, photo: bytes | ImageError, use: Callable[[npt.NDArray[np.uint8]], T], *, finds_words: bool = False
    ) -> T:
        try:
            if isinstance(photo, ImageError):
                raise photo
            result, seconds = await self._decoder.decode(self._budget, photo, use, finds_words=finds_words)
        except ImageError as error:
            self._metrics.images.labels(error.code).inc()
            raise ProblemError(422, error.code, f"The photograph cannot be read: {error.message}.") from None
        self._record("decode", seconds)
        return result

    def _view_maker(self, rotate: bool, characters: str | None, level: bool = False) -> MakeViews:
        preprocessing, policy = self.reader.preprocessing, self.reader.policy
        return partial(
            views_of, preprocessing=preprocessing, rotate=rotate, level=level, characters=characters, policy=policy
        )

    def _decode(self, image: bytes, make_views: MakeViews) -> CropJob:
        job = CropJob(MAX_VIEWS, self._share)  # how many there are is known once it is decoded

        def enqueue(views: list[Canvas] | Exception, seconds: float) -> None:
            if isinstance(views, Exception):
                set_results([(job.results[0], views)])
            else:  # from the decoding thread, without the event loop in between
                job.views, job.decode_s = views, seconds
                self._batcher.submit(job, self.reader)

        self._decoder.submit(self._budget, image, make_views, enqueue, lambda: job.cancelled)
        return job

    def _enqueue(self, views: Sequence[Canvas]) -> CropJob:
        job = CropJob(len(views), self._share)
        job.views = views
        self._batcher.submit(job, self.reader)
        return job

    async def _results(self, jobs: Sequence[CropJob | ImageError]) -> list[Reading | ImageError]:
        """In order. If one fails or this is cancelled, the jobs that have not started are dropped."""
        queued = [job for job in jobs if isinstance(job, CropJob)]
        try:
            crops = [job if isinstance(job, ImageError) else await self._views_read(job) for job in jobs]
            for crop in crops:
                if isinstance(crop, _Crop) and hardly_read(crop.views, crop.readings, self.reader.policy):
                    crop.variants = self._enqueue(await self._variants(crop))  # in turns of their own
                    queued.append(crop.variants)
            return [crop if isinstance(crop, ImageError) else await self._merged(crop) for crop in crops]
        finally:
            for job in queued:
                job.cancel()

    async def _views_read(self, job: CropJob) -> _Crop | ImageError:
        try:
            results = await job.wait()
        except ImageError as error:
            return error.with_traceback(None)  # its frames hold the reader, which a reload replaces
        self._record("decode", job.decode_s)
        return _Crop(job.views, results)

    async def _variants(self, crop: _Crop) -> list[Canvas]:
        reader = self.reader
        return await self._decoder.run(
            self._budget, partial(variants_of, crop.views[0], crop.readings[0], reader.preprocessing, reader.policy)
        )

    async def _merged(self, crop: _Crop) -> Reading:
        variants: list[tuple[Canvas, Reading]] = []
        results = []
        if crop.variants:
            results = await crop.variants.wait()
            variants = [(view, result.reading) for view, result in zip(crop.variants.views, results, strict=True)]
        self._record("queue", _longest(crop.results, "queue_s") + _longest(results, "queue_s"))
        self._record("inference", _longest(crop.results, "inference_s") + _longest(results, "inference_s"))
        return merge(crop.views, crop.readings, self.reader.policy, variants)

    def _record(self, stage: str, seconds: float) -> None:
        self.stages[stage] = max(self.stages[stage], seconds)

    def _counted(self, results: list[Reading | ImageError]) -> list[Reading | ImageError]:
        for result in results:
            self._metrics.images.labels(result.code if isinstance(result, ImageError) else "read").inc()
        self.texts += [None if isinstance(result, ImageError) else result.text for result in results]
        return results


def _longest(results: Sequence[ViewResult], seconds: str) -> float:
    return max((getattr(result, seconds) for result in results), default=0.0)
