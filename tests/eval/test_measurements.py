"""The measurement pages of the documentation: what the records give, with the origin of every figure."""

import re
from pathlib import Path

import pytest

from eval.report import __main__ as report
from eval.report.measurements import PAGES, pages
from eval.report.records import COMMANDS, Results, read
from eval.report.sections.savings import OBJECTIVES
from eval.report.words import quiet
from eval.shared.common import RESULTS

from ..support.report_records import MACHINE, latency
from .test_report import write

DOCS = Path(__file__).resolve().parents[2] / "docs" / "pages" / "measurements"


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return pages(read(RESULTS))


def test_committed_pages_are_those_of_the_records(generated: dict[str, str]) -> None:
    assert {path.name for path in DOCS.glob("*.md")} == generated.keys()
    for name, text in generated.items():
        same = (DOCS / name).read_text(encoding="utf-8") == text
        assert same, (
            f"docs/pages/measurements/{name} is out of date; run: python -m eval.report --docs docs/pages/measurements"
        )


def test_every_table_says_where_it_is_from(generated: dict[str, str]) -> None:
    recorded = read(RESULTS)
    for page in PAGES:
        paragraphs = generated[f"{page.name}.md"].split("\n\n")
        tables = [i for i, text in enumerate(paragraphs) if text.startswith("| ")]
        assert bool(tables) == bool(recorded.of(page.name)), page.name
        for i in tables:
            origin = paragraphs[i + 1]
            for part in ("cores", "; threads ", "; 20", "; commit ", "`python -m "):
                assert part in origin, (page.name, origin)
            assert len({line.replace(r"\|", "").count("|") for line in paragraphs[i].splitlines()}) == 1


def test_records_of_another_machine_stand_apart(tmp_path: Path) -> None:
    mine = [r for r in latency() if r["group"] in ("whole", "stream")]
    write(tmp_path, "latency", mine)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, "latency", [{**mine[0], "group": "tiny"}], machine={**MACHINE, "cpu": "slow one"})
    with (tmp_path / "latency.jsonl").open("a", encoding="utf-8") as file:
        file.write((elsewhere / "latency.jsonl").read_text(encoding="utf-8"))
    text = pages(read(tmp_path))["latency.md"]
    main, another = text.split("## Another machine: slow one")
    assert "## Main machine: test &lt;cpu>" in main
    assert main.count("| adaptive int8 |") == 0
    assert main.count("| **adaptive int8** |") == 2
    assert another.count("| **adaptive int8** |") == 1
    assert "slow one" not in main
    assert "test &lt;cpu>" not in another


def test_pages_without_records_name_their_command() -> None:
    text = pages(Results({}))
    for page in PAGES:
        assert f"No records yet: `{COMMANDS[page.name]}`" in text[f"{page.name}.md"]


def test_pages_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "latency", latency())
    report.main(["--results", str(tmp_path), "--docs", str(tmp_path / "docs")])
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "docs").iterdir()}
    assert written == pages(read(tmp_path))
    assert len(capsys.readouterr().out.splitlines()) == len(PAGES) + 1


def test_readme_quotes_the_record_of_the_demo() -> None:
    (record,) = (r for r in read(RESULTS).of("demo") if r["group"] == "digits")
    whole, stream = (record[name]["median"] for name in ("sequence_gain", "stream_gain"))
    readme = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    told = f"runs **{whole:.1f} times** as fast as int8 that skips nothing, and {stream:.1f} times in a stream"
    assert told in " ".join(readme.split())


def test_what_a_page_claims_is_what_its_records_say(generated: dict[str, str]) -> None:
    results = read(RESULTS)
    savings = generated["savings.md"].split("### Calibrated to save ")[1:]
    cases = {str(r["case"]) for r in results.of("savings")}
    for saved, text in zip([case for case in OBJECTIVES if case in cases], savings, strict=True):
        mine = {r["group"]: r for r in results.of("savings") if r["case"] == saved and "failed" not in r}
        assert f"--objective {saved.partition(',')[0]}`" in text
        rows = [
            line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.split(" | ")[1] == "yes"
        ]
        assert {row[0].removeprefix("| ") for row in rows} == {name for name, r in mine.items() if r["certified"]}
        for row in rows:
            r = mine[row[0].removeprefix("| ")]
            assert row[5].strip("*") == (
                "kept"
                if r["loss_fresh"] <= r["max_loss"]
                else "in doubt"
                if r["fresh_at_least"] <= r["max_loss"]
                else "BROKEN"
            )
            assert (row[8] == "n/a") == (not quiet(r["speed"]["int8"]))
    batches = results.of("latency", "batch")
    ratios = [r["seconds"]["torch"]["median"] / r["seconds"]["adaptive fp32"]["median"] for r in batches]
    assert f"the slowest at {min(ratios):.2f}×" in generated["throughput.md"]
    assert f"{sum(ratio < 0.97 for ratio in ratios)} of {len(ratios)} cases" in generated["throughput.md"]


def test_prose_promises_nothing_that_a_record_contradicts() -> None:
    """Absolute words about speed and quality stand only where a table beside them is generated."""
    root = DOCS.parents[2]
    for path in (root / "README.md", *(root / "docs" / "pages").glob("*.md")):
        text = " ".join(path.read_text(encoding="utf-8").split())
        found = re.search(r"(never (below|above|slower|worse)|always (faster|above|below))[^.]{0,40}", text)
        assert found is None, f"{path.name}: {found}"
