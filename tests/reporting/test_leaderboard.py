"""The leaderboard page: what it holds, and what its script does in a browser."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.reporting.benchmark_entries import DATASETS, METHODS, PICTURES, make

from qefpn.benchmark.entries import Entry
from qefpn.data.layouts import Pair
from qefpn.reporting import leaderboard
from qefpn.reporting.charts import axis_floor
from qefpn.reporting.leaderboard import write_leaderboard
from qefpn.reporting.published import load_published

Results = tuple[list[Entry], dict[str, list[Pair]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "new" / "é leaderboard.html"
    write_leaderboard(*results, path, published=True)
    return path


def embedded(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


class Board(html.parser.HTMLParser):
    """The table as the page holds it, before its script: (method, in brackets) → (data set, figure) → the cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[tuple[str, str], dict[tuple[str, str], dict[str, str | None]]] = {}
        self.notes: list[str] = []
        self._heads: list[tuple[str, str]] = []
        self._cells: list[dict[str, str | None]] = []
        self._inside, self._aside = "", ""
        self._method: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        one = dict(attrs)
        self._inside = "chip" if one.get("class") == "chip" else "note" if tag == "li" else self._inside
        self.notes += [""] if tag == "li" and (one.get("id") or "").startswith("note-") else []
        if "data-key" in one:
            self._heads.append((str(one["data-set"]), str(one["data-key"])))
        if tag == "tr" and "data-method" in one:
            self._method, self._aside, self._cells = one["data-method"], "", []
        if tag == "td" and self._method is not None:
            self._cells.append(one | {"note": ""})
        if tag == "a" and self._method is not None and (one.get("href") or "").startswith("#note-"):
            self._cells[-1]["note"] = str(one["href"]).removeprefix("#note-")

    def handle_data(self, data: str) -> None:
        self._aside += data if self._inside == "chip" else ""
        if self._inside == "note" and self.notes:
            self.notes[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag == "tr" and self._method is not None:
            cells = zip(self._heads, self._cells, strict=True)
            self.rows[self._method, self._aside] = {key: one for key, one in cells if "data-value" in one}
            self._method = None


def points(text: str, dataset: str, title: str, method: str) -> np.ndarray:
    """A method's line in a chart, in the units of the axes, (N, 2)."""
    chart = text[text.index(f"<h3>{dataset}</h3>") :]
    chart = chart[chart.index(f"<figcaption>{title}</figcaption>") :].split("</figure>")[0]
    (x0, x1, left, right), (y0, y1, low, high) = (
        map(float, re.findall(rf'data-{axis}="([^"]*)"', chart)[0].split()) for axis in "xy"
    )
    line = chart[chart.index(f'data-method="{html.escape(method)}"') :]
    path = re.findall(r' d="([^"]*)"', line)[0]
    xy = np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
    return np.stack(
        [left + (xy[:, 0] - x0) / (x1 - x0) * (right - left), low + (xy[:, 1] - y0) / (y1 - y0) * (high - low)], 1
    )


def test_one_file_without_outside_references(page: Path, results: Results) -> None:
    text = page.read_text(encoding="utf-8")
    assert [one.name for one in page.parent.iterdir()] == [page.name]
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses and all(one.startswith(("#", "data:")) for one in addresses)
    assert not re.search(r"https?://", text)
    assert str(page.parent) not in text and str(results[0][0].maps["0"].parent) not in text


def test_names_cannot_break_out(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<i>" not in text and METHODS[2] in embedded(text)["methods"]
    assert METHODS[2] in [name for name, _ in Board(text).rows]


def test_the_figures_of_every_method(page: Path, results: Results) -> None:
    text = page.read_text(encoding="utf-8")
    data, board = embedded(text), Board(text)
    assert [name for name, aside in board.rows if not aside] == list(METHODS)
    for entry in results[0]:
        cells = {key: one for (where, key), one in board.rows[entry.method, ""].items() if where == entry.dataset}
        assert {key: float(str(one["data-value"])) for key, one in cells.items()} == {
            metric["key"]: entry.scores[metric["key"]] for metric in data["metrics"]
        }
        assert all(("data-partial" not in one) == entry.complete for one in cells.values())
        assert entry.complete or f"† {len(entry.maps)} of {PICTURES} {entry.dataset}" in text
        f = points(text, entry.dataset, "F-measure over the threshold", entry.method)
        pr = points(text, entry.dataset, "Precision over recall", entry.method)
        own = [e for e in results[0] if e.dataset == entry.dataset]
        floor, low, left = (axis_floor(e.curves[key] for e in own) for key in ("f_curve", "precision", "recall"))
        on_axes = (np.array(entry.curves["precision"]) >= low) & (np.array(entry.curves["recall"]) >= left)
        for drawn, x, y, inside in (
            (
                f / (255, 1),
                np.arange(255, -1, -1) / 255,
                entry.curves["f_curve"],
                np.array(entry.curves["f_curve"]) >= floor,
            ),
            (pr, entry.curves["recall"], entry.curves["precision"], on_axes),
        ):  # every point that is on the axes is drawn, where it is
            wanted = np.stack([x, y], 1)[inside]
            assert len(wanted) > 100
            assert np.abs(wanted[:, None] - drawn).max(axis=2).min(axis=1).max() < 5e-5


def test_published_rows_and_their_misprints(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    board = Board(text)
    rows = {key: one for key, one in board.rows.items() if key[1]}
    assert len(rows) == 11 + 3  # of Tables I and II
    # no figures of a set that is not the paper's
    assert all({where for where, _ in cells} == {"ECSSD"} for cells in rows.values())
    basnet = rows["BASNet", "2019, Table I"]
    wrong = basnet["ECSSD", "s_measure"]
    assert (wrong["data-value"], wrong["data-sort"]) == ("0.834", "0.916")
    assert all(one["data-sort"] == one["data-value"] for one in basnet.values() if one is not wrong)
    assert "916" in board.notes[int(str(wrong["note"])) - 1]
    unknown = rows["QEFPN", "Table II"]["ECSSD", "mean_f"]
    assert "data-sort" not in unknown and "weighted F" in board.notes[int(str(unknown["note"])) - 1]
    assert "look swapped" in text and "6 pictures were scored; the official ECSSD has 1,000" in text


def test_without_published_figures(results: Results, tmp_path: Path) -> None:
    write_leaderboard(*results, tmp_path / "page.html", published=False)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = embedded(text)
    assert data["methods"] == list(METHODS) and len(Board(text).rows) == len(METHODS) and Board(text).notes == []
    assert "Table III" not in text and 'id="published"' not in text


def test_thumbnails_are_the_pictures(page: Path, results: Results) -> None:
    rows = embedded(page.read_text(encoding="utf-8"))["pictures"]["own"]
    assert {row["name"] for row in rows} == {f"{i}" for i in range(PICTURES - 1)}  # one method lacks the last
    pair = next(pair for pair in results[1]["own"] if pair.name == rows[0]["name"])
    shown = decode(rows[0]["picture"])
    original = cv2.imread(str(pair.image))
    assert shown.shape == original.shape
    assert np.abs(shown.astype(int) - original).mean() < 20  # JPEG of noise; swapped channels would be further off
    mask = cv2.imread(str(pair.mask))
    assert np.abs(decode(rows[0]["mask"]).astype(int) - mask).mean() < 5
    own = rows[0]["maps"][METHODS[0]]
    expected = {str(row["name"]): row for row in results[0][3].pictures}[pair.name]
    assert own["scores"] == {key: expected[key] for key in leaderboard.PICTURE_SCORES}


def decode(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/jpeg;base64,")
    return np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR))


def pictures(entries: list[Entry], pairs: dict[str, list[Pair]]) -> dict[str, Any]:
    return {dataset: list(leaderboard._picture_rows(entries, dataset, pairs)) for dataset in DATASETS}


def test_pictures_keep_to_their_bytes(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = pictures(*results)
    monkeypatch.setattr(leaderboard, "PICTURE_BYTES", len(json.dumps(everything)) // 2)
    fewer = pictures(*results)
    for dataset in DATASETS:
        assert 0 < len(fewer[dataset]) < len(everything[dataset])
        assert fewer[dataset] == everything[dataset][: len(fewer[dataset])]  # the most telling ones stay
    assert len(json.dumps(fewer)) < len(json.dumps(everything)) * 0.6


def test_at_most_24_pictures_and_smaller_ones_for_many_methods(tmp_path: Path) -> None:
    entries, pairs = make(tmp_path, pictures=10)
    many = [dataclasses.replace(entries[0], method=f"{i}", pictures=entries[0].pictures * 4) for i in range(9)]
    assert len(pictures(many, pairs)["ECSSD"]) == 10
    assert leaderboard._side(entries) == 256 and leaderboard._side(many) == 200 and leaderboard._side(many * 3) == 200


def test_undefined_scores_and_failed_maps(results: Results, tmp_path: Path) -> None:
    entry, pairs = results[0][0], results[1]
    rows = [{**row, "s_measure": math.nan} for row in entry.pictures[1:]]
    maps = {name: path for name, path in entry.maps.items() if name != "0"}
    odd = dataclasses.replace(
        entry, scores={**entry.scores, "s_measure": math.nan}, pictures=rows, maps=maps, extra=["more"] * 30,
        failed={"0": "no </script> picture"}, resized=["1"],
    )  # fmt: skip
    write_leaderboard([odd], pairs, tmp_path / "page.html", published=False)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = embedded(text)
    cells = Board(text).rows[entry.method, ""]
    assert ("ECSSD", "s_measure") not in cells and ("ECSSD", "mae") in cells
    assert data["pictures"]["ECSSD"][0]["maps"][entry.method]["scores"]["s_measure"] is None
    assert "0: no &lt;/script&gt; picture" in text and "and 10 more" in text


def test_nothing_to_show_is_still_a_page(tmp_path: Path) -> None:
    write_leaderboard([], {}, tmp_path / "page.html", published=True)
    assert embedded((tmp_path / "page.html").read_text(encoding="utf-8"))["methods"] == []


# ---- in a browser --------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]


class Dom(html.parser.HTMLParser):
    """What the tests look at in a dumped page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.rows, self.heads = text, [], {}
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self._stack: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        one = dict(attrs)
        self.attributes.append((tag, one))
        if tag == "tr" and "data-method" in one:
            self.rows.append((one["data-method"], "published" in (one.get("class") or "").split(), []))
        if tag == "td" and self.rows and "data-method" in (self._stack[-1][1] if self._stack else {}):
            self.rows[-1][2].append("")
        if tag == "th" and "aria-sort" in one:
            self.heads[one.get("aria-label") or "Method"] = one["aria-sort"]
        if tag not in ("input", "img", "meta", "link", "br"):
            self._stack.append((tag, one))

    def handle_endtag(self, tag: str) -> None:
        if self._stack and self._stack[-1][0] == tag:
            self._stack.pop()

    def handle_data(self, data: str) -> None:
        if any(tag == "td" for tag, _ in self._stack) and any("data-method" in one for _, one in self._stack):
            self.rows[-1][2][-1] += data

    def methods(self, published: bool | None = None) -> list[str]:
        return [name for name, printed, _ in self.rows if published in (None, printed)]

    def lit(self, tag: str) -> set[str | None]:
        """Methods highlighted in elements of this kind."""
        return {
            one["data-method"] for name, one in self.attributes
            if name == tag and "data-method" in one and "on" in (one.get("class") or "").split()
        }  # fmt: skip


@pytest.fixture
def browse(page: Path, tmp_path: Path) -> Callable[..., Dom]:
    """``browse(fragment, script)``: the page as a browser shows it from its file, after the script ran on it."""

    def run(fragment: str = "", script: str = "") -> Dom:
        path = tmp_path / "page.html"
        watch = "window.onerror = (message) => { document.documentElement.dataset.error = message; };"
        extra = f"<script>{watch}</script><script>{script}</script>"
        path.write_text(page.read_text(encoding="utf-8").replace("</body>", extra + "</body>"), encoding="utf-8")
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1300,1000", "--virtual-time-budget=3000", "--dump-dom", f"{path.as_uri()}#{fragment}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
        dom = Dom(done.stdout)
        assert 'data-ready="true"' in done.stdout, done.stderr[-2000:]
        assert "data-error=" not in done.stdout[:2000], done.stdout[:200]
        return dom

    return run


def browser_test(function: Any) -> Any:
    for mark in in_browser:
        function = mark(function)
    return function


@browser_test
def test_sorted_by_the_first_figure_at_first(browse: Callable[..., Dom], results: Results) -> None:
    dom = browse()
    own = {entry.method: entry.scores["mae"] for entry in results[0] if entry.dataset == "ECSSD"}
    assert dom.methods(published=False) == sorted(own, key=lambda name: own[name])
    assert len(dom.rows) == 3 + 14 and all(len(cells) == 12 for _, _, cells in dom.rows)
    assert {label: way for label, way in dom.heads.items() if way != "none"} == {"ECSSD: MAE": "ascending"}


@browser_test
def test_the_address_sorts_filters_and_hides(browse: Callable[..., Dom], results: Results) -> None:
    dom = browse("sort=mae&desc&published=0&hide=own&columns=mae,max_e")
    own = {entry.method: entry.scores["mae"] for entry in results[0] if entry.dataset == "ECSSD"}
    assert dom.methods() == sorted(own, key=lambda name: -own[name])
    assert all(len(cells) == 2 for _, _, cells in dom.rows)
    assert dom.heads == {"Method": "none", "ECSSD: MAE": "descending", "ECSSD: E max": "none"}
    assert browse("method=SHARP").methods() == ["sharp"]


@browser_test
def test_an_incomplete_method_is_marked_and_stands_last(browse: Callable[..., Dom]) -> None:
    for order in ("asc", "desc"):
        dom = browse(f"sort=own:max_f&{order}&published=0")
        assert dom.methods()[-1] == METHODS[2]
        assert all(cell.endswith("†") for cell in dom.rows[-1][2][6:]) and "†" not in "".join(dom.rows[-1][2][:6])
    assert f"† {PICTURES - 1} of {PICTURES} own" in dom.text


@browser_test
def test_a_misprint_sorts_as_its_right_figure(browse: Callable[..., Dom]) -> None:
    published = load_published().rows("I", "ECSSD")
    right = {row.method: row.values["s_measure"] for row in published} | {"BASNet": 0.916}
    dom = browse("sort=ECSSD:s_measure")
    order = [name for name in dom.methods(published=True) if name in right]
    values = [right[name] for name in dict.fromkeys(order)]
    assert values == sorted(values, reverse=True)
    cells = next(cells for name, _, cells in dom.rows if name == "BASNet")
    assert cells[4] == "0.8341"  # as printed, with its note


@browser_test
def test_clicking_heads_and_typing(browse: Callable[..., Dom]) -> None:
    click = 'document.querySelector("[aria-label=\\"own: F max\\"] button").click();'
    assert browse(script=click).heads["own: F max"] == "descending"
    dom = browse(script=click + click)
    assert dom.heads["own: F max"] == "ascending" and dom.heads["ECSSD: MAE"] == "none"
    typed = 'byId("filter").value = "blur"; byId("filter").dispatchEvent(new Event("input"));'
    dom = browse(script=typed + "document.body.append(location.hash);")
    assert dom.methods() == ["blurred"] and "#sort=ECSSD:mae&amp;asc&amp;method=blur" in dom.text


@browser_test
def test_hovering_a_curve_highlights_its_method_everywhere(browse: Callable[..., Dom]) -> None:
    hover = """
      const path = document.querySelector("#curves [data-method=blurred] path");
      const svg = path.ownerSVGElement, box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      const at = path.getPointAtLength(path.getTotalLength() / 2);
      const where = {clientX: box.left + at.x * scale, clientY: box.top + at.y * scale};
      svg.dispatchEvent(new PointerEvent("pointermove", where));
    """
    dom = browse(script=hover)
    assert dom.lit("tr") == dom.lit("button") == dom.lit("g") == {"blurred"}
    assert re.search(r'<div class="tip"[^>]*><b>blurred</b>threshold \d+, F 0\.\d{3}', dom.text)
    dom = browse(script=hover + 'svg.dispatchEvent(new PointerEvent("pointerleave"));')
    assert dom.lit("tr") == dom.lit("g") == set()
    assert browse("highlight=sharp").lit("g") == {"sharp"}


@browser_test
def test_a_picture_opens_across_methods(browse: Callable[..., Dom]) -> None:
    dom = browse("picture=own/1")
    viewer = dom.text[dom.text.index('<dialog id="viewer"') :]
    assert "open" in viewer[: viewer.index(">")] and ">own: 1</h2>" in viewer
    assert viewer.split("</dialog>")[0].count("data:image/jpeg") == 2 + len(METHODS)
    dom = browse("picture=own/1&method=blurred", script='byId("next").click(); byId("close").click();')
    viewer = dom.text[dom.text.index('<dialog id="viewer"') :].split("</dialog>")[0]
    assert "open" not in viewer[: viewer.index(">")] and ">own: 1</h2>" not in viewer
    assert viewer.count("data:image/jpeg") == 3  # the filter holds for maps too
