"""Which fonts are found, what each can write, and who gets chosen."""

from __future__ import annotations

import errno
import os
import string
from pathlib import Path

import numpy as np
import pytest

from str_app.datasets.renderer.fonts import PRINTABLE, FontError, _cache_file, find_fonts, scan_font
from tests.datasets.renderer_fonts import pillow_font, write_font


def test_finds_fonts_in_folders_below_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("z.ttf", "sub/a.TTF", "b.otf"):
        write_font(tmp_path / "fonts" / name)
    (tmp_path / "fonts" / "notes.txt").write_text("no font")
    found = find_fonts(tmp_path / "fonts", cache=tmp_path / "cache.json")
    assert [Path(font.path).name for font in found.fonts] == ["b.otf", "a.TTF", "z.ttf"]
    assert all(font.glyphs == frozenset(PRINTABLE) for font in found.fonts)
    assert sum(font.weight for font in found.fonts) == pytest.approx(1)


def test_the_second_scan_reads_the_cache_and_a_changed_file_is_scanned_again(tmp_path: Path) -> None:
    path, cache = write_font(tmp_path / "fonts" / "a.ttf"), tmp_path / "cache.json"
    first = find_fonts(path.parent, cache=cache)
    written = cache.stat().st_mtime_ns
    assert find_fonts(path.parent, cache=cache).fonts == first.fonts
    assert cache.stat().st_mtime_ns == written
    write_font(path, without="@")
    assert "@" not in find_fonts(path.parent, cache=cache).fonts[0].glyphs


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"other": 1}'])
def test_a_damaged_cache_is_written_anew(tmp_path: Path, content: str) -> None:
    write_font(tmp_path / "fonts" / "a.ttf")
    (tmp_path / "cache.json").write_text(content)
    assert len(find_fonts(tmp_path / "fonts", cache=tmp_path / "cache.json")) == 1


def test_a_fault_of_the_system_does_not_make_a_font_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    write_font(tmp_path / "fonts" / "a.ttf")
    (tmp_path / "fonts" / "damaged.ttf").write_bytes(b"damaged")
    with monkeypatch.context() as patch:
        patch.setattr("fontTools.ttLib.TTFont", fail)
        with pytest.raises(OSError, match="Too many open files"):
            find_fonts(tmp_path / "fonts", cache=tmp_path / "cache.json")
    assert len(find_fonts(tmp_path / "fonts", cache=tmp_path / "cache.json").fonts) == 1


def test_a_font_without_the_glyph_is_never_chosen(tmp_path: Path) -> None:
    write_font(tmp_path / "poor.ttf", without="@q")
    write_font(tmp_path / "rich.ttf")
    fonts = find_fonts(tmp_path, cache=tmp_path / "cache.json")
    chosen = [
        {Path(fonts.choose(np.random.default_rng(i), text).path).name for i in range(50)} for text in ("a@b", "ab")
    ]
    assert chosen == [{"rich.ttf"}, {"poor.ttf", "rich.ttf"}]


def test_a_rare_font_is_found_when_only_it_has_the_glyph(tmp_path: Path) -> None:
    for i in range(30):
        write_font(tmp_path / f"poor{i}.ttf", without="~")
    write_font(tmp_path / "rich.ttf")
    fonts = find_fonts(tmp_path, cache=tmp_path / "cache.json")
    assert Path(fonts.choose(np.random.default_rng(0), "~").path).name == "rich.ttf"


def test_a_text_no_font_can_write_is_named(tmp_path: Path) -> None:
    write_font(tmp_path / "a.ttf", without="@")
    fonts = find_fonts(tmp_path, cache=tmp_path / "cache.json")
    with pytest.raises(FontError, match="none of the 1 fonts has all the glyphs of 'a@b'"):
        fonts.choose(np.random.default_rng(0), "a@b")


def test_capitals_drawn_for_small_letters_do_not_count(tmp_path: Path) -> None:
    glyphs = set(scan_font(str(write_font(tmp_path / "a.ttf", small_as_capitals=True)))["glyphs"])  # type: ignore[index]
    assert glyphs == set(PRINTABLE) - set(string.ascii_lowercase)


def test_a_placeholder_repeated_for_several_characters_does_not_count(tmp_path: Path) -> None:
    glyphs = set(scan_font(str(write_font(tmp_path / "a.ttf", boxes_for="%&@")))["glyphs"])  # type: ignore[index]
    assert glyphs == set(PRINTABLE) - set("#%&@")


def test_unusable_files_are_passed_over(tmp_path: Path) -> None:
    write_font(tmp_path / "good.ttf")
    write_font(tmp_path / "no_capitals.ttf", without=string.ascii_uppercase)
    (tmp_path / "empty.ttf").touch()
    (tmp_path / "text.otf").write_text("not a font")
    (tmp_path / "half.ttf").write_bytes(pillow_font()[:3000])
    fonts = find_fonts(tmp_path, cache=tmp_path / "cache.json")
    assert [Path(font.path).name for font in fonts.fonts] == ["good.ttf"]


def test_no_usable_font_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        FontError, match=r"no usable Latin font .* \(0 font files scanned\): run scripts/install_fonts.sh"
    ):
        find_fonts(tmp_path, cache=tmp_path / "cache.json")
    with pytest.raises(FontError, match="no such folder of fonts"):
        find_fonts(tmp_path / "missing")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    write_font(tmp_path / "fonts" / "a.ttf")
    (tmp_path / "locked").mkdir(mode=0o500)
    assert len(find_fonts(tmp_path / "fonts", cache=tmp_path / "locked" / "sub" / "cache.json")) == 1


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user that the system does not know
    monkeypatch.chdir(tmp_path)
    assert _cache_file() is None
    write_font(tmp_path / "fonts" / "a.ttf")
    assert len(find_fonts(tmp_path / "fonts")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["fonts"]
