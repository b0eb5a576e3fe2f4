"""Scoring whole data sets: what counts, what is dropped, which subset, and that batching changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from str_app.datasets.sample import DataError
from str_app.errors import StrAppError
from str_app.evaluation import table
from str_app.evaluation.metrics import expected_calibration_error
from str_app.evaluation.protocol import FIELD, UNICODE, SetResult, evaluate_source, numbered, protocol_of
from str_app.evaluation.report import confidence_plots
from str_app.evaluation.sources import open_test_sets
from str_app.models.charset import Charset
from str_app.reader import Reader
from tests.str_app.fake_engine import FakeEngine
from tests.str_app.painted_data import PaintedSource, write_folder, write_lmdb


def evaluated(batch_size: int = 4, **options: object) -> SetResult:
    return evaluate_source(Reader(FakeEngine(), batch_size), PaintedSource(), **options)  # type: ignore[arg-type]


def test_the_protocol_on_eight_samples() -> None:
    score = evaluated().score()
    # "!!" is dropped; "Broken" has no picture and "open" reads oven; "EXIT" and "H&R" are right but for case and &.
    assert (score.n, score.correct, score.dropped, score.unreadable) == (7, 5, 1, 1)
    assert score.accuracy == pytest.approx(500 / 7)
    assert score.accuracy_62 == pytest.approx(400 / 7)
    assert score.accuracy_94 == pytest.approx(300 / 7)
    assert score.ned == pytest.approx(100 * (5 + 0.75 + 0) / 7)
    assert score.cer == pytest.approx(100 * (1 + 6) / len("cafeexit454openbrokenhrseven"))
    assert score.interval[0] < score.accuracy < score.interval[1]


def test_an_unreadable_image_is_wrong_and_nobody_elses_text() -> None:
    # FACTS defect 6: a failed read replaced by another sample.
    broken = [one for one in evaluated().predictions if not one.readable]
    assert [(one.label, one.text, one.confidence, one.correct) for one in broken] == [("Broken", "", 0.0, False)]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batching_changes_nothing(batch_size: int) -> None:
    assert evaluated(batch_size) == evaluated(4)


def test_parts_may_be_read_in_any_order() -> None:
    source = PaintedSource([(f"word{k}", f"word{k}") for k in range(20)])
    reader = Reader(FakeEngine(), batch_size=1)
    backwards = evaluate_source(reader, source, pool=lambda read, parts: [read(part) for part in reversed(parts)])
    assert [sample.text for sample in backwards.predictions] == [f"word{k}" for k in range(20)]


def test_a_reading_longer_than_its_label_is_not_worse_than_wholly_wrong() -> None:
    score = evaluate_source(Reader(FakeEngine()), PaintedSource([("ab", "wxyz"), ("ab", "ab")])).score()
    assert (score.ned, score.cer) == (50.0, 100.0)


def test_folder_and_lmdb_give_the_same_numbers(tmp_path: Path) -> None:
    write_folder(tmp_path / "painted")
    write_lmdb(tmp_path / "painted.lmdb")
    results = [evaluate_source(Reader(FakeEngine()), test_set.source) for test_set in open_test_sets([tmp_path])]
    assert results[0] == results[1] == evaluated()


def test_subsets_and_the_default_one(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IC13")
    (folder / "subset_1015.txt").write_text("images/0.png\nimages/3.png\nimages/4.png\n")
    (folder / "subset_857.txt").write_text("images/3.png\n")
    (test_set,) = open_test_sets([folder])
    result = evaluate_source(Reader(FakeEngine()), test_set.source, subsets=test_set.subsets)
    rows = [(score.subset, score.n, score.correct, score.dropped) for score in result.scores()]
    assert rows == [("1015", 2, 1, 1), (None, 7, 5, 1), ("857", 1, 0, 0)]
    assert table.total_of([result]).pooled.n == 2


def test_totals_plots_and_reliability_are_of_the_default_subset() -> None:
    source = PaintedSource([("ab", "ab"), ("cd", "xy"), ("!!", "!!"), ("ef", "ef")], name="IC13")
    result = evaluate_source(Reader(FakeEngine()), source, subsets={"1015": frozenset({0, 1})})
    total = table.total_of([result])
    assert (total.pooled.n, total.pooled.dropped, total.mean) == (2, 0, 50.0)
    rows = table.as_json("fake", [result])["sets"]
    assert [(row["subset"], sum(bar["n"] for bar in row["reliability"])) for row in rows] == [("1015", 2), (None, 3)]
    assert confidence_plots([result])["reliability-IC13.svg"].count("<circle") == 2


def test_subsets_and_lexicons_of_an_lmdb(tmp_path: Path) -> None:
    lmdb = write_lmdb(tmp_path / "IC13.lmdb")
    (lmdb / "subset_1015.txt").write_text("images/0.png\nimages/3.png\n")
    (lmdb / "lexicon50.tsv").write_text("images/3.png\topen,shut\n")
    (test_set,) = open_test_sets([tmp_path])
    assert test_set.subsets == {"1015": {0, 3}}
    assert test_set.lexicons == {3: ["open", "shut"]}
    assert evaluate_source(Reader(FakeEngine()), test_set.source, subsets=test_set.subsets).default_subset == "1015"


def test_a_subset_has_all_samples_of_an_image_that_is_listed_twice(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IC13")
    with (folder / "labels.tsv").open("a", encoding="utf-8") as file:
        file.write("images/3.png\toven\n")
    (folder / "subset_2.txt").write_text("images/0.png\n   \nimages/3.png\n")
    (folder / "lexicon50.tsv").write_text("images/3.png\topen,shut\n")
    (test_set,) = open_test_sets([folder])
    assert test_set.subsets == {"2": {0, 3, 8}}
    assert test_set.lexicons == {3: ["open", "shut"], 8: ["open", "shut"]}


def test_a_subset_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IC13")
    (folder / "subset_9.txt").write_text("images/0.png\nimages/99.png\n")
    with pytest.raises(DataError, match=r"subset_9\.txt: 1 of its entries are not in .*, the first 'images/99.png'"):
        open_test_sets([folder])


def test_lexicons_choose_per_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IIIT5K")
    (folder / "lexicon50.tsv").write_text("images/3.png\topen,shut\nimages/7.png\teight,nine\n")
    (test_set,) = open_test_sets([folder])
    reader = Reader(FakeEngine(), batch_size=4)
    result = evaluate_source(reader, test_set.source, lexicons=test_set.lexicons)
    texts = {one.label: one.text for one in result.predictions}
    assert texts["open"] == "open"
    assert texts["seven"] in ("eight", "nine")
    assert texts["Cafe"] == "Cafe"


def test_limit_spreads_over_the_set() -> None:
    assert [one.index for one in evaluated(limit=3).predictions] == [0, 2, 5]


def test_progress_adds_up() -> None:
    done: list[int] = []
    evaluated(on_progress=done.append)
    assert sum(done) == 7


def test_a_set_without_a_scorable_label() -> None:
    with pytest.raises(StrAppError, match="signs: none of its 2 labels"):
        evaluate_source(Reader(FakeEngine()), PaintedSource([("?", "a"), ("!", "b")], name="signs"))


def test_totals_weigh_samples_and_average_sets() -> None:
    reader = Reader(FakeEngine())
    large = evaluate_source(reader, PaintedSource([("ab", "ab")] * 3, name="large"))
    small = evaluate_source(reader, PaintedSource([("ab", "xy")], name="small"))
    total = table.total_of([large, small])
    assert (total.pooled.n, total.pooled.accuracy, total.mean) == (4, 75.0, 50.0)
    assert total.pooled.cer == pytest.approx(100 * 2 / 8)
    everything = [*large.predictions, *small.predictions]
    chances, right = [one.confidence for one in everything], [one.correct for one in everything]
    assert total.pooled.ece == pytest.approx(100 * expected_calibration_error(chances, right))


def test_json_has_the_contract() -> None:
    content = table.as_json("fake", [evaluated()])
    assert set(content) == {"model", "made", "protocol", "confidence", "sets", "total", "weighted", "mean"}
    assert {"date", "processor", "str-app"} <= set(content["made"])
    row = content["sets"][0]
    assert {
        "name", "subset", "n", "accuracy", "interval", "accuracy_62", "accuracy_94", "ned", "cer", "ece", "unreadable",
        "accuracy_exact", "accuracy_at_coverage", "threshold_for_accuracy", "aurc", "reliability",
    } <= set(row)  # fmt: skip
    assert (row["name"], row["subset"], row["n"], row["accuracy"], row["unreadable"]) == ("painted", None, 7, 71.43, 1)


def test_markdown_columns_line_up() -> None:
    lines = table.markdown([evaluated()]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "71.43" in lines[2]
    assert lines[3].startswith("| weighted total")


@pytest.mark.parametrize(
    ("text", "field", "unicode"),
    [("Größe", "groe", "größe"), ("Gro\u0308ße", "groe", "größe"), ("4,99€", "499", "499"), ("ЩИ", "", "щи")],
)
def test_what_the_protocols_compare(text: str, field: str, unicode: str) -> None:
    assert (FIELD.fold(text), UNICODE.fold(text)) == (field, unicode)


def test_a_model_beyond_ascii_is_judged_by_all_it_can_read() -> None:
    assert protocol_of(Charset("abc")) is FIELD
    assert protocol_of(Charset("abcä")) is UNICODE


def test_accents_count_when_they_are_asked_for() -> None:
    source = PaintedSource([("Tür", "Tur"), ("zu", "Zu"), ("щи", "11")])
    field, unicode = (
        evaluate_source(Reader(FakeEngine()), source, protocol=protocol).score() for protocol in (FIELD, UNICODE)
    )
    assert (field.n, field.correct, field.dropped) == (2, 2, 1)
    assert (unicode.n, unicode.correct, unicode.dropped) == (3, 1, 0)
    assert unicode.accuracy_exact == 0.0


def test_the_table_beyond_ascii_has_one_exact_match() -> None:
    protocol, blank, *lines = table.markdown([evaluated(protocol=UNICODE)]).splitlines()
    assert (protocol, blank) == (f"Protocol: {UNICODE.description}.", "")
    assert "exact" in lines[0]
    assert len({line.count("|") for line in lines}) == 1


def test_data_sets_of_one_name_are_told_apart() -> None:
    assert numbered(["val", "val", "val-2", "val"]) == ["val", "val-2", "val-2-2", "val-3"]
