"""How often each effect happens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from str_app.datasets.sample import DataError


@dataclass(frozen=True)
class Style:
    """Share of the crops, in [0, 1], that have each effect; 0 turns it off.

    The defaults follow real crops, see docs/log/rendering.md. Effects of which a crop has at most one, as depth and
    outline, must not sum to more than 1.

    Attributes:
        neighbours: fragments of words above, below, left and right.
        cut: an edge of the crop cuts into the letters.
        wide_spacing: wide letter spacing.
        bounce: letters of different sizes, above and below the baseline.
        stacked: letters one below another, with the crop rotated 90° counter-clockwise.
        curve: baselines along circles, parabolas and waves.
        slant: sheared letters.
        rotation: rotated by up to ±45° instead of a few degrees.
        perspective: seen from the side.
        narrow: condensed, as in narrow fonts or seen from the side.
        plate: a plate behind the word, with a rim and its surroundings.
        rule: a line above or below, or a box around the word.
        outline, depth: outlined letters; block letters.
        shadow, halo: cast shadows; light around the letters.
        emboss: letters visible by their relief only.
        relief: letters shaded as if raised or engraved.
        neon: neon tubes: light cores with a coloured glow.
        two_tone, stripes, gradient, texture, many_colours: of the faces of the letters.
        faded, worn: the background shows through, evenly or in spots.
        photographs: backgrounds from photographs, if there are any.
        light: gradients of light, cast shadows and reflections.
        bloom: overexposed highlights that spread into their surroundings.
        motion, defocus, soft: kinds of blur.
        low_resolution: scaled down and up again.
        sharpen: the halos of a phone's sharpening.
        noise: sensor noise.
        tone: exposure, contrast and colour cast.
        jpeg: strong compression.
        fragment: a part of a longer text: the crop ends in letters that the label does not have.
        contextless: random letters instead of a text, legible by their shapes only.
        confused: one or two letters of the text replaced by others that look like them.
        elastic: small smooth distortions, as of cloth, folds and worn print.
        oblique: seen from far to one side: narrow upright letters along a steep line, instead of slant, rotation,
            perspective and narrow.
    """

    neighbours: float = 0.3
    cut: float = 0.07
    wide_spacing: float = 0.2
    bounce: float = 0.06
    stacked: float = 0.012
    curve: float = 0.16
    slant: float = 0.25
    rotation: float = 0.10
    perspective: float = 0.45
    narrow: float = 0.25
    plate: float = 0.12
    rule: float = 0.06
    outline: float = 0.11
    depth: float = 0.11
    shadow: float = 0.15
    halo: float = 0.04
    emboss: float = 0.025
    relief: float = 0.08
    neon: float = 0.02
    two_tone: float = 0.02
    stripes: float = 0.01
    gradient: float = 0.12
    texture: float = 0.12
    many_colours: float = 0.02
    faded: float = 0.12
    worn: float = 0.05
    photographs: float = 0.2
    light: float = 0.3
    bloom: float = 0.1
    motion: float = 0.08
    defocus: float = 0.07
    soft: float = 0.5
    low_resolution: float = 0.3
    sharpen: float = 0.15
    noise: float = 0.5
    tone: float = 0.4
    jpeg: float = 0.3
    fragment: float = 0.0
    contextless: float = 0.0
    confused: float = 0.0
    elastic: float = 0.0
    oblique: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise DataError(f"style: {field.name}={getattr(self, field.name)} is out of range: give 0 to 1")
        for names in EXCLUSIVE:
            if sum(getattr(self, name) for name in names) > 1 + 1e-9:
                raise DataError(f"style: {' + '.join(names)} exceed 1: each crop has at most one of them")

    def always(self, name: str) -> Style:
        """This style with effect `name` in every crop, and none of those that cannot be together with it."""
        rivals = next((group for group in EXCLUSIVE if name in group), (name,))
        return replace(self, **{**dict.fromkeys(rivals, 0.0), name: 1.0})


EXCLUSIVE = (
    ("outline", "depth", "emboss", "neon"),
    ("shadow", "halo"),
    ("two_tone", "stripes", "gradient", "texture", "many_colours"),
    ("motion", "defocus", "soft"),
)


def make_style(choices: list[str]) -> Style:
    """The default style with `name=share` settings applied.

    Raises:
        DataError: not of that form, an unknown name, or not in [0, 1].
    """
    known = {field.name for field in fields(Style)}
    values: dict[str, float] = {}
    for choice in choices:
        name, _, share = choice.partition("=")
        if name not in known:
            raise DataError(f"style: unknown effect {name!r}; known: {', '.join(sorted(known))}")
        try:
            values[name] = float(share)
        except ValueError:
            raise DataError(f"style: {choice!r} is not of the form {name}=0.1") from None
    return replace(Style(), **values)
