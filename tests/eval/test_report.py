"""The report of ``eval/`` from records that the tests write: complete, self-contained, and honest about what lacks."""

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from eval.heatmap import pack, unpack
from eval.report import __main__ as report
from eval.report import words
from eval.report.records import COMMANDS, Results, origin, read

from ..support.html_page import Page
from ..support.report_records import MACHINE, STAMP, WRITERS, frontier, roofline, validity


def write(folder: Path, name: str, records: list[dict[str, Any]], **stamp: Any) -> None:
    lines = (json.dumps({"eval": name, **record, **STAMP, **stamp}) for record in records)
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    for writer in WRITERS:
        write(made, writer.__name__, writer())
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    out = folder / "build" / "report.html"
    report.main(["--results", str(folder), "--out", str(out)])
    return Page(out.read_text(encoding="utf-8"))


TABLES_ONLY = {
    "answers", "summary", "origin", "losses", "fuzzing", "never-slower", "calls", "demo", "linearity", "embedded",
    "pool", "cores", "bulk", "split_time", "arm_bounds", "onnx", "graphs",
}  # fmt: skip


def test_all_sections_are_there_with_figures(page: Page) -> None:
    anchors = [attrs["id"] for attrs in page.all_of("section")]
    names = {section.anchor for section in report.SECTIONS}
    assert set(anchors) == names
    assert [a["href"] for a in page.all_of("a")] == [f"#{anchor}" for anchor in anchors]
    for anchor in names - TABLES_ONLY:
        assert "<svg" in page.section(anchor), anchor
        assert "Command: <code>python -m eval." in page.section(anchor), anchor
        assert "Threads: 1." in page.section(anchor), anchor
    assert "MISS: RMSE beyond what is allowed" in page.section("within_budget")
    assert "No records yet" not in page.text
    assert not page.open


def test_figures_decode_and_say_what_they_show(page: Page) -> None:
    assert len(page.svgs) > 25
    for svg in page.svgs:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert len(root.get("aria-label") or "") > 20
        assert "viewBox" in root.attrib
    pictures = re.findall(r'"data:image/png;base64,([^"]+)"', page.text)
    assert pictures
    for picture in pictures:
        assert b64decode(picture).startswith(b"\x89PNG")


def test_nothing_outside_is_referenced(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed"}
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            if name in ("src", "href", "xlink:href", "data", "poster"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,")), (tag, value)
    assert "@import" not in page.text
    assert set(re.findall(r"url\((.)", page.text)) <= {"#"}


def test_tables_have_headers(page: Page) -> None:
    assert len(page.all_of("table")) == len(page.all_of("caption")) == len(page.all_of("thead"))
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all_of("th"))


def test_what_cannot_be_told_is_na(page: Page) -> None:
    summary = page.section("summary")
    assert re.search(r"vad</th><td>streaming step</td>.*?0\.50×.*?n/a", summary)  # torch's ratio is null
    assert "NaN" not in page.text.replace("n/a", "")
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page.section("frontier"), flags=re.DOTALL)
    assert re.search(r"noisy against torch", page.section("savings"))  # quartiles too far apart to quote
    assert re.search(r'noisy</th>.*?<td class="n">n/a</td>', page.section("savings"))


def test_losses_are_told(page: Page) -> None:
    losses = page.section("losses")
    assert re.search(r"vad</th><td>streaming step</td><td>ORT</td>.*?0\.50×", losses)
    assert not re.search(r"vad</th><td>whole sequence", losses)
    assert losses.count("broken</th>") == 2  # slower than int8 alone, and a promise that did not hold
    assert "BROKEN" in page.section("savings")
    assert "the calibration failed: CalibrationError: too few" in page.section("savings")


def test_text_of_records_is_escaped(page: Page) -> None:
    assert "test &lt;cpu&gt;" in page.text
    assert "<cpu>" not in page.text


def test_missing_records_name_their_command(tmp_path: Path) -> None:
    write(tmp_path, "validity", validity())
    page = Page(report.build(read(tmp_path)))
    for name in set(COMMANDS) - {"validity", "quality"}:  # quality only stands in for frontier
        assert f"<code>{COMMANDS[name]}</code>" in page.text, name
    assert "No records yet" not in page.section("validity")
    assert "There are no records at all yet" in report.build(Results({}))


def test_mixed_origins_are_warned_about(tmp_path: Path) -> None:
    write(tmp_path, "validity", validity(), commit="abc1234-dirty")
    write(tmp_path, "roofline", roofline(), machine={**MACHINE, "cpu": "another"})
    page = Page(report.build(read(tmp_path)))
    for told in ("2 different machines", "2 different commits", "uncommitted changes"):
        assert told in page.section("origin"), told
    assert "2 different sets of versions" not in page.text


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "savings.jsonl").write_text('{"group": "a", "case": "b"}\n{"group": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"savings\.jsonl, line 2 is not JSON"):
        read(tmp_path)
    (tmp_path / "savings.jsonl").write_text('{"group": "a"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"savings\.jsonl, line 1 is no record"):
        read(tmp_path)


def test_readme_parts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "frontier", [{**frontier()[0], "group": "resemblyzer"}])
    report.main(["--results", str(tmp_path), "--readme", "--figures", str(tmp_path)])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2:] == ["| speaker embedding, 3 × 256 | 8 ms | 5 ms (ORT) | **1 ms** (5.00×) | **1 ms** (0.50×) |"]
    assert len({line.count("|") for line in lines}) == 1
    report.main(["--results", str(folder), "--readme", "--figures", str(tmp_path)])
    for name in ("speed.svg", "skipping.svg"):
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
        assert (tmp_path / name).stat().st_size < 150_000


def test_columns_of_a_heat_map_come_back() -> None:
    sent = np.random.default_rng(0).random((7, 13)) < 0.3
    assert np.array_equal(unpack(pack(sent)), sent)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "12", True])
def test_numbers_that_are_none(value: object) -> None:
    for told in (words.seconds, words.times, words.percent, words.number, words.size):
        assert told(value) == "n/a"


def test_origin_counts_every_place_once() -> None:
    found = origin([STAMP, STAMP, {**STAMP, "commit": "def"}])
    assert found.commits == ("abc1234", "def")
    assert len(found.machines) == len(found.versions) == 1
