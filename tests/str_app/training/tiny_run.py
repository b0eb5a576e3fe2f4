"""A run of seconds: its network, settings and results."""

import dataclasses
import json

import cv2
import numpy as np
import safetensors.torch

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.training.settings import TrainSettings
from tests.tiny_recognizer import tiny_config

TINY = tiny_config(dropout=0.2)


def encoded(value):
    image = np.full((20, 40, 3), value, dtype=np.uint8)
    image[5:15, 4 : 4 + value % 30] = 255 - value
    return cv2.imencode(".png", image)[1].tobytes()


def written(path, samples):
    """An LMDB of pairs of an encoded image and its label."""
    with LmdbWriter(path) as writer:
        for image, label in samples:
            writer.add(image, label)
    return path


def settings_for(data, **changes):
    base = TrainSettings(
        architecture=TINY,
        train=(str(data),),
        validation=(str(data),),
        charset="ab",
        steps=6,
        batch_size=8,
        group=2,
        warmup_steps=2,
        workers=0,
        precision="fp32",
        validate_every=4,
        log_every=2,
        device="cpu",
    )
    return dataclasses.replace(base, **changes)


def weights(run, name="last.safetensors"):
    return safetensors.torch.load_file(run / name)


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss/characters"] for line in lines if "loss/characters" in line]
