"""Pages with many kinds of layout, drawn, whose reading order is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK = (238, 236, 230), (25, 28, 50)
PROSE = """
The harbour office opens every morning before the first ferry leaves and closes when the last boat has come
back from the islands. Passengers who want to take a bicycle should ask for a label at the desk. Dogs travel free of
charge but must be kept on a lead while the ship is moving. In winter the crossing may be cancelled at short notice,
because the wind in the narrow channel can turn within minutes. Tickets stay valid for the next day. Hot soup and
sandwiches are sold on the upper deck, where the windows give a fine view of the lighthouse and the seals below.
""".split()


class Cell(NamedTuple):
    """A run of words without a wide gap: its text, the top left corner, and the height of its letters."""

    text: str
    x: float
    y: float
    size: int = 24


class Page(NamedTuple):
    """Lines in reading order, each as its cells from left to right, on paper of `size` (width, height)."""

    lines: list[list[Cell]]
    size: tuple[int, int]


def font_of(size: int, file: str | None = None) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def paragraphs(x: float, y: float, width: float, words: Sequence[str], rows: int, size: int = 24) -> list[list[Cell]]:
    """So many lines of running text, filled from `words`."""
    font, rest, lines = font_of(size), list(words), []
    for row in range(rows):
        line = [rest.pop(0)]
        while rest and font.getlength(" ".join([*line, rest[0]])) <= width:
            line.append(rest.pop(0))
        lines.append([Cell(" ".join(line), x, y + row * 1.5 * size, size)])
    return lines


def table(
    rows: Sequence[Sequence[str]], lefts: Sequence[float], y: float, spacing: float = 44, size: int = 24
) -> list[list[Cell]]:
    """Rows of cells, which begin at `lefts`."""
    return [
        [Cell(text, x, y + index * spacing, size) for text, x in zip(row, lefts, strict=True) if text]
        for index, row in enumerate(rows)
    ]


PRICES = [
    ("Coffee", "2.50"),
    ("Hot chocolate", "3.80"),
    ("Tea", "2.20"),
    ("Apple cake", "4.10"),
    ("Orange juice", "3.00"),
    ("Soup", "6.40"),
]


def two_columns() -> Page:
    title = [[Cell("News from the harbour", 60, 40, 44)]]
    left, right = (paragraphs(x, 130, 380, PROSE[start:], 9) for x, start in ((60, 0), (500, 40)))
    return Page(title + left + right, (940, 520))


def newspaper() -> Page:
    columns = [paragraphs(x, 120, 300, PROSE[start:], 8) for x, start in ((40, 0), (380, 20), (720, 44))]
    return Page([[Cell("Island Daily", 40, 30, 50)], *columns[0], *columns[1], *columns[2]], (1060, 460))


def columns_with_numbers() -> Page:
    """Running text in which some lines are years and amounts."""
    left = paragraphs(60, 60, 380, PROSE, 8)
    right = paragraphs(500, 60, 380, PROSE[40:], 8)
    left[3] = [left[3][0]._replace(text="1984 - 2019")]
    right[5] = [right[5][0]._replace(text="in 2021, 350 boats")]
    return Page(left + right, (940, 400))


def receipt() -> Page:
    head = [[Cell("Corner Shop", 150, 30, 34)], [Cell("12 High Street", 160, 85)]]
    total = [[Cell("TOTAL", 60, 430, 32), Cell("22.00", 400, 430, 32)]]
    return Page([*head, *table(PRICES, (60, 420), 140), *total, [Cell("Thank you", 180, 500)]], (540, 560))


def price_list() -> Page:
    return Page([[Cell("Prices", 60, 30, 44)], *table(PRICES, (60, 560), 120)], (700, 420))


def price_lists_side_by_side() -> Page:
    other = [("Beer", "4.00"), ("White wine", "5.20"), ("Cider", "4.40"), ("Water", "1.80"), ("Gin", "6.00")]
    return Page([*table(PRICES, (40, 330), 60), *table(other, (480, 770), 60)], (900, 360))


def timetable() -> Page:
    rows = [
        ("Stop", "Mon", "Sat", "Sun"),
        ("Harbour", "07:15", "08:00", "09:30"),
        ("Lighthouse", "07:32", "08:17", "09:47"),
        ("North Beach", "07:40", "08:25", "09:55"),
        ("Village", "08:05", "08:50", "10:20"),
    ]
    return Page(table(rows, (50, 300, 440, 580), 50), (720, 300))


def numbers() -> Page:
    rows = [[str(137 * (row + 2) * (column + 3) % 997) for column in range(6)] for row in range(4)]
    return Page(table(rows, range(60, 60 + 6 * 130, 130), 50, 60), (860, 300))


def opening_hours() -> Page:
    """A table without a number."""
    rows = [("Monday", "closed"), ("Tuesday", "mornings only"), ("Thursday", "all day"), ("Sunday", "by appointment")]
    return Page(table(rows, (60, 300), 60), (620, 260))


def form() -> Page:
    rows = [("Name:", "John Miller"), ("Street:", "Old Mill Lane"), ("Town:", "Whitby"), ("Remarks:", "please ring")]
    return Page([[Cell("Registration", 60, 30, 40)], *table(rows, (60, 280), 110, 50)], (640, 340))


def menu() -> Page:
    """With dotted leaders, which are drawn and are no words."""
    return Page([[Cell("Menu", 280, 30, 46)], *table(PRICES, (80, 540), 130, 50)], (700, 450))


def headings_of_mixed_sizes() -> Page:
    lines = [
        [Cell("GRAND", 220, 30, 90)],
        [Cell("opening of the new", 230, 160, 26)],
        [Cell("Fish Market", 140, 220, 70)],
    ]
    return Page([*lines, [Cell("Saturday at noon", 230, 330, 30)]], (720, 400))


def poster() -> Page:
    """Words here and there."""
    cells = [
        Cell("LIVE", 60, 40, 60),
        Cell("Music", 180, 130, 44),
        Cell("Dance", 120, 230, 50),
        Cell("Free entry", 180, 330),
    ]
    return Page([[cell] for cell in cells], (700, 420))


def two_signs() -> Page:
    """Side by side, each read by itself."""
    left, right = ["Opening hours", "Monday to Friday", "from nine to five"], ["Ring the bell", "for deliveries"]
    places = [(text, 60, row) for row, text in enumerate(left)] + [(text, 560, row) for row, text in enumerate(right)]
    return Page([[Cell(text, x, 60 + 60 * row, 32)] for text, x, row in places], (1000, 280))


PAGES: list[Callable[[], Page]] = [
    two_columns,
    newspaper,
    columns_with_numbers,
    receipt,
    price_list,
    price_lists_side_by_side,
    timetable,
    numbers,
    opening_hours,
    form,
    menu,
    headings_of_mixed_sizes,
    poster,
    two_signs,
]


def draw(page: Page, angle: float = 0, file: str | None = None) -> np.ndarray:
    """The page as a picture, turned counter-clockwise by `angle` degrees; `file`: a font."""
    image = Image.new("RGB", page.size, PAPER)
    canvas = ImageDraw.Draw(image)
    for line in page.lines:
        for cell in line:
            canvas.text((cell.x, cell.y), cell.text, fill=INK, font=font_of(cell.size, file))
        if len(line) == 2 and page.size == menu().size:
            start = line[0].x + font_of(24, file).getlength(line[0].text) + 12
            for x in np.arange(start, line[1].x - 12, 12):
                canvas.ellipse((x, line[0].y + 20, x + 3, line[0].y + 23), fill=INK)
    if angle:
        image = image.rotate(angle, expand=True, fillcolor=PAPER, resample=Image.Resampling.BICUBIC)
    return np.array(image)


def quads(page: Page, angle: float = 0, noise: float = 0.0, seed: int = 0) -> list[list[np.ndarray]]:
    """Corners of the cells of each line, as a detector might return them; `noise`: of corners, in heights."""
    random = np.random.default_rng(seed)
    radians = np.radians(-angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    result = []
    for line in page.lines:
        result.append([])
        for cell in line:
            width, height = font_of(cell.size).getlength(cell.text), 1.1 * cell.size
            x, y = cell.x, cell.y + 0.1 * cell.size
            corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]]) @ turn
            result[-1].append((corners + random.normal(0, noise * cell.size, (4, 2))).astype(np.float32))
    return result
