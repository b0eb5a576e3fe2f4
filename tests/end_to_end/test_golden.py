"""Readings, the HTTP interface and the command line are what golden/ says they were.

The crops and the photograph are our own renderings; those whose confidence depends on the processor were left out.
After an intended change write the files anew and say in the commit what differs:
`python scripts/golden.py tests/end_to_end/golden`.
"""

import copy
import json
from pathlib import Path

import pytest

from scripts import golden

FOLDER = Path(__file__).parent / "golden"
# Processors round differently. With AVX-512, AVX2 and SSE, with compiled functions and torch's own, most readings were
# the same to the last digit written, and all to 1e-4 and 0.1 pixels.
TOLERANCES = {"confidence": 5e-4, "box": 0.2}
PROSE = {"description", "summary", "title"}
EVERY = 4  # the fast tests read every fourth image


def load(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def differences(expected, found, place="", tolerance=0.0):
    """What differs between two JSON values, one line each; numbers may by TOLERANCES."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in {**expected, **found}:
            inner = f"{place} {key}"
            if key in expected and key in found:
                yield from differences(expected[key], found[key], inner, TOLERANCES.get(key, tolerance))
            else:
                yield f"{inner}: {'missing' if key in expected else 'new'}"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, f"{place} {index}", tolerance)
    elif isinstance(expected, float) and isinstance(found, float):
        if abs(expected - found) > tolerance + 1e-9:
            yield f"{place}: {expected}, now {found}"
    elif expected != found:
        yield f"{place}: {expected!r}, now {found!r}"


def check(expected, found):
    lines = list(differences(expected, found))
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:40])


def check_readings(setting, names):
    expected = load("readings.json")[setting]
    check({name: expected[name] for name in names}, golden.read_images(FOLDER, setting, names))


@pytest.mark.parametrize("setting", golden.SETTINGS)
def test_readings(setting):
    check_readings(setting, list(golden.images(FOLDER))[::EVERY])


@pytest.mark.slow
@pytest.mark.parametrize("setting", golden.SETTINGS)
def test_all_readings(setting):
    """A minute on one core."""
    assert load("readings.json")[setting].keys() == golden.images(FOLDER).keys()
    check_readings(setting, list(golden.images(FOLDER)))


def test_regions():
    check(load("readings.json")["regions"], golden.read_regions(FOLDER))


def without_prose(value):
    """An OpenAPI document without its texts; a property that is called `title` stays."""
    if isinstance(value, dict):
        return {key: without_prose(item) for key, item in value.items() if not (key in PROSE and isinstance(item, str))}
    return [without_prose(item) for item in value] if isinstance(value, list) else value


def test_openapi():
    check(without_prose(load("openapi.json")), without_prose(golden.openapi()))


def test_options():
    expected, found = load("options.json"), golden.options()
    check(expected, found)
    check({verb: list(items) for verb, items in expected.items()}, {verb: list(items) for verb, items in found.items()})


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda reading: reading.update(text="BREAKFASTS"), " text: 'BREAKFAST', now 'BREAKFASTS'"),
        (lambda reading: reading.update(confidence=reading["confidence"] - 6e-4), " confidence: "),
        (lambda reading: reading["characters"][3].update(confidence=0.5), " characters 3 confidence: "),
        (lambda reading: reading["characters"][3]["box"].__setitem__(2, 0.0), " characters 3 box 2: "),
        (lambda reading: reading["characters"].pop(), " characters: "),
        (lambda reading: reading.update(rotation=90), " rotation: new"),
        (lambda reading: reading.pop("confidence"), " confidence: missing"),
    ],
)
def test_a_difference_is_seen(change, seen):
    expected = load("readings.json")["default"]["images/01.jpg"]
    found = copy.deepcopy(expected)
    assert not list(differences(expected, found))
    change(found)
    (line,) = differences(expected, found)
    assert line.startswith(seen)


def test_rounding_is_no_difference():
    expected = load("readings.json")["default"]["images/01.jpg"]
    found = copy.deepcopy(expected)
    found["confidence"] -= 5e-4
    found["characters"][0]["box"][0] += 0.2
    assert not list(differences(expected, found))
