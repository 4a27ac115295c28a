"""The page of a run: complete, self-contained, and whole where the run is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qefpn.errors import UserError
from qefpn.reporting import write_run_report
from qefpn.reporting.results import FILES, read_run

Make = Callable[..., Path]
SECTIONS = ["headline", "settings", "training", "metrics", "learned", "curves", "pictures"]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a page refers to, and whether its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.identifiers: list[str] = []
        self.images: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.references.append(value or "")
                if tag == "img":
                    self.images.append(value or "")
            if name == "id":
                self.identifiers.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.text += data


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_a_complete_run(make_run: Make) -> None:
    run = make_run()
    path = write_run_report(run)
    assert path == run / "report.html"
    text, page = read(path)
    assert [i for i in page.identifiers if i in SECTIONS] == SECTIONS
    assert {f"#{section}" for section in SECTIONS} <= set(page.references)  # table of contents
    for title in ("Loss", "Validation", "Learning rate", "Solver steps", "Relative residual"):
        assert f"<figcaption>{title}</figcaption>" in text
    for title in (
        "ECSSD: precision over recall",
        "synthetic: F-measure over the threshold",
        "ECSSD: E-measure over the threshold",
    ):
        assert f'aria-label="{title}"' in text
    for words in ("broyden (max_steps 8, rtol 0.001)", "quasi (p 5e-07)", "6 of 1,000 pictures"):
        assert words in page.text
    assert "Better than every floor in all 7 figures." in page.text
    assert "solver takes over" in text
    assert "is not in the run directory" not in page.text
    assert "max_steps" in page.text and "trainer.max_steps" not in page.text  # -1 is no limit


def test_self_contained(make_run: Make) -> None:
    text, page = read(write_run_report(make_run()))
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert not re.search(r"https?://", text)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert len(page.identifiers) == len(set(page.identifiers))
    fragments = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert fragments <= set(page.identifiers)
    assert {match for match in re.findall(r"url\(#([^)]+)\)", text)} <= set(page.identifiers)


def test_published_figures_and_footnotes(make_run: Make) -> None:
    text, page = read(write_run_report(make_run(("ECSSD", "DUTS-TE", "synthetic"))))
    assert page.text.count("MINet") == 2  # in the tables of the two official sets only
    assert 'href="#note-1-1"' in text and "BASNet's S-measure on ECSSD is .916" in page.text
    assert 'href="#note-2-1"' in text and "F3Net's own paper has .840; the printed .791 is BASNet's." in page.text
    assert "6 pictures were scored; the official ECSSD has 1,000." in page.text


def test_worst_and_best_pictures(make_run: Make) -> None:
    _, page = read(write_run_report(make_run(("ECSSD",)), cases=1))
    assert len([image for image in page.images if image.startswith("data:image/")]) == 3 * 5
    assert re.search(r"worst\s*0\s*weighted F 0\.000\s*MAE 0\.900", page.text)
    assert re.search(r"best\s*5\s*weighted F 0\.500\s*MAE 0\.400", page.text)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_said_in_its_place(make_run: Make, name: str) -> None:
    run = make_run(("ECSSD",))
    (run / name).unlink()
    text, page = read(write_run_report(run))
    assert f"{name} is not in the run directory." in page.text
    assert [i for i in page.identifiers if i in SECTIONS] == SECTIONS
    assert "data:image/" in text  # maps are found without samples.json


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"a,b\n1,2\n"])
def test_a_broken_file_costs_its_own_section(make_run: Make, content: bytes) -> None:
    run = make_run(("ECSSD",))
    before = read_run(run)
    assert before.problems == {}
    for name in FILES:
        good = (run / name).read_bytes()
        (run / name).write_bytes(content)
        broken = read_run(run)
        # almost any text is YAML; an empty config is a config
        assert list(broken.problems) == [name] or (name == "config.yaml" and not broken.problems), name
        (run / name).write_bytes(good)
    assert read_run(run) == before


def test_a_page_of_broken_files_only(make_run: Make) -> None:
    run = make_run(("ECSSD",))
    for name in FILES:
        (run / name).write_bytes(b"[1")
    _, page = read(write_run_report(run))
    assert all(f"{name} cannot be read" in page.text for name in FILES)
    assert [i for i in page.identifiers if i in SECTIONS] == SECTIONS


def test_a_run_cut_off_early(make_run: Make) -> None:
    """Only a config and half a line of the log."""
    run = make_run(("ECSSD",))
    for name in FILES:
        if name not in ("config.yaml", "log.csv"):
            (run / name).unlink()
    for file in (run / "maps").rglob("*.png"):
        file.unlink()
    (run / "log.csv").write_text("step,epoch,loss\n0,0,1.5\n1,0,\n2,")
    text, page = read(write_run_report(run))
    assert "There are no headline figures" in page.text and "There are no pictures to show" in page.text
    assert "<figcaption>Loss</figcaption>" in text and "<figcaption>Solver steps</figcaption>" not in text


def test_values_that_are_not_finite(make_run: Make) -> None:
    run = make_run(("ECSSD",))
    (run / "metrics.json").write_text('{"ECSSD": {"mae": NaN, "max_f": Infinity, "s_measure": null}}')
    (run / "log.csv").write_text("step,loss,solver_residual\n0,1,inf\n1,nan,0.1\n2,3,0\n")
    (run / "scores.csv").write_text("dataset,name,weighted_f\nECSSD,0,nan\nECSSD,1,0.5\n")
    _, page = read(write_run_report(run))
    assert "Values that are not finite are left out: 1 in loss." in page.text
    assert "1 without a score" in page.text
    assert "nan" not in page.text.lower().split() and "inf" not in page.text.split()


def test_names_are_escaped(make_run: Make) -> None:
    run = make_run(("<script>alert(1)</script>",), name="a & <i>b")
    samples = json.loads((run / "samples.json").read_text())
    samples[0]["name"] = '"><img src=x onerror=alert(1)>'
    (run / "samples.json").write_text(json.dumps(samples))
    (run / "scores.csv").unlink()
    (run / "config.yaml").write_text("data: {name: '</pre><script>alert(2)</script>'}\n")
    text, page = read(write_run_report(run))
    assert "alert(1)" in page.text and "<script>alert" not in text and "<img src=x" not in text
    assert "a & <i>b" in page.text


def test_another_protocol_is_pointed_out(make_run: Make) -> None:
    run = make_run(("ECSSD",))
    (run / "config.yaml").write_text("protocol: pysod\n")
    _, page = read(write_run_report(run))
    assert "they are no exact comparison" in page.text


def test_output_path_and_repeatability(make_run: Make, tmp_path: Path) -> None:
    run = make_run(("ECSSD",))
    first = write_run_report(run, tmp_path / "new" / "page.html")
    assert first == tmp_path / "new" / "page.html" and not (run / "report.html").exists()
    assert first.read_bytes() == write_run_report(str(run), tmp_path / "again.html").read_bytes()


def test_a_resumed_log_keeps_the_later_values(make_run: Make) -> None:
    run = make_run(("ECSSD",))
    (run / "log.csv").write_text("step,loss\n0,9\n1,8\n2,7\n1,5\n2,4\n3,3\n")
    assert read_run(run).log["loss"] == [(0, 9), (1, 5), (2, 4), (3, 3)]


def test_relative_paths_are_found_beside_the_run(make_run: Make) -> None:
    run = make_run(("ECSSD",))
    samples = [{"dataset": "ECSSD", "name": "1", "image": "source/ECSSD/1.jpg", "mask": None}]
    (run / "samples.json").write_text(json.dumps(samples))
    [sample] = read_run(run).samples
    assert sample.image == str(run / "source/ECSSD/1.jpg") and sample.mask is None
    assert sample.map == str(run / "maps/ECSSD/1.png")


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no directory"):
        write_run_report(tmp_path / "gone")
    with pytest.raises(UserError, match=r"no run directory: it holds none of config\.yaml"):
        write_run_report(tmp_path)


def test_the_log_of_a_run_with_unknown_columns(make_run: Make) -> None:
    run = make_run(("ECSSD",))
    (run / "log.csv").write_text("step,epoch,seconds,pictures_per_second\n0,0,1,10\n1,0,2,12\n")
    text, _ = read(write_run_report(run))
    assert "<figcaption>pictures_per_second</figcaption>" in text and "<figcaption>seconds" not in text
