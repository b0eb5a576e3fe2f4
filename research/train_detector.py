"""Train the word detector on composed scenes, and export it.

    str-app synth --scenes --out data/scenes/1 --count 1000 --seed 1
    python research/train_detector.py train --out runs/detector --scenes data/scenes [--resume] [--steps 60000 …]
    python research/train_detector.py export --weights runs/detector/last.safetensors --out detector.onnx
    python research/train_detector.py score --detector detector.onnx --scenes data/held [--limit 50]

`--scenes` is a folder of folders that `str-app synth --scenes` wrote. Every other option of `train` is a field of
`DetectorSettings`. SIGTERM or SIGINT writes the state and stops with 128 + its number.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path

from str_app.training.detection.loop import DetectorSettings, train_detector


def score(file: Path, folder: Path, limit: int | None) -> None:
    """Print how many words are found, at several thresholds of the detector's score."""
    import time

    import numpy as np
    from PIL import Image

    from str_app.datasets.labelled_photos import open_photos
    from str_app.evaluation.photos import PhotoScore, total
    from str_app.photos.reading import PhotoReading, PhotoWord
    from str_app.photos.word_detector import WordDetector
    from str_app.photos.word_maps import WordMapPolicy
    from str_app.reading import Reading

    detector = WordDetector(file, threads=1, policy=WordMapPolicy(least_score=0.5))
    scores = []
    for photo in open_photos(folder)[:limit]:
        pixels = np.asarray(Image.open(photo.path).convert("RGB"))
        started = time.process_time()
        found = detector.find(pixels)
        seconds = time.process_time() - started
        # The scorer wants readings; only their places count here, and the detector's score is the confidence.
        words = tuple(
            PhotoWord(Reading("x", word.score, ()), tuple((float(x), float(y)) for x, y in word.quad), word.score, 0)
            for word in found
        )
        reading = PhotoReading(pixels.shape[1], pixels.shape[0], (), words)
        scores.append(PhotoScore(photo.path, reading, photo.words, seconds))
    print(f"{len(scores)} pictures, {np.median([each.seconds for each in scores]):.2f} s of one core (median)")
    for threshold in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        found_words = total(each.detection(threshold) for each in scores)
        print(
            f"score ≥ {threshold:.2f}: precision {found_words.precision:.1f}, recall {found_words.recall:.1f}, "
            f"H {found_words.h_mean:.1f}; {found_words.labelled} words"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--scenes", type=Path, required=True)
    train.add_argument("--resume", action="store_true")
    for field in dataclasses.fields(DetectorSettings):
        kind = {"int": int, "float": float}.get(str(field.type), str)
        train.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    export = verbs.add_parser("export")
    export.add_argument("--weights", type=Path, required=True)
    export.add_argument("--out", type=Path, required=True)
    scoring = verbs.add_parser("score")
    scoring.add_argument("--detector", type=Path, required=True)
    scoring.add_argument("--scenes", type=Path, required=True)
    scoring.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    if arguments.verb == "score":
        score(arguments.detector, arguments.scenes, arguments.limit)
        return 0
    if arguments.verb == "export":
        from str_app.export.detector_graph import export_detector

        export_detector(arguments.weights, arguments.out)
        return 0
    names = [field.name for field in dataclasses.fields(DetectorSettings)]
    settings = DetectorSettings(**{name: getattr(arguments, name) for name in names})
    folders = sorted(path.parent for path in arguments.scenes.glob("[!.]*/labels.jsonl"))
    say = partial(print, flush=True)
    signum = train_detector(arguments.out, folders, settings, resume=arguments.resume, say=say)
    return 128 + signum if signum else 0


if __name__ == "__main__":
    sys.exit(main())
