"""The report of a sweep: its figures, its forms, and what it says of runs that are not whole."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.reporting.sweep_directories import SOLVER, config, figures, write_job, write_solver_sweep
from tests.reporting.test_run_report import Page

from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.reporting import load_published
from qefpn.reporting.latex import escape_latex
from qefpn.reporting.sweep_report import write_sweep_report
from qefpn.reporting.sweep_runs import parameter_count, read_sweep
from qefpn.reporting.sweep_statistics import Differences
from qefpn.reporting.sweep_tables import build_report, duration
from qefpn.reporting.tables import Row, Table

FILES = [
    *("sweep_report.html", "sweep_report.md", "sweep_report.tex", "sweep_tables.tex"),
    *("sweep_report.csv", "sweep_jobs.csv"),
]


def cells(table: Table, row: Row) -> list[Any]:
    return [row.cell(column) for column in table.columns[1:]]  # without n


def count(row: Row) -> int | None:
    return int(row.cells["n"].text) if row.cells["n"].text else None


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_figures_are_means_and_deviations_over_seeds_beside_the_papers(tmp_path: Path) -> None:
    sweep = write_solver_sweep(tmp_path / "sweep")
    written = write_sweep_report(sweep)
    assert [path.name for path in written.files] == FILES and all(path.parent == sweep for path in written.files)
    found = rows(sweep / "sweep_report.csv")
    ours = {row["row"].replace(" ", "_"): row for row in found if row["source"] == "ours"}
    assert list(ours) == list(SOLVER)
    for name, levels in SOLVER.items():
        for metric in figures(0.5):
            if metric != "images":
                values = [figures(level)[metric] for level in levels]
                assert float(ours[name][metric]) == pytest.approx(statistics.mean(values), abs=1e-12)
                assert float(ours[name][f"{metric}_sd"]) == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert ours[name]["n"] == "3" and ours[name]["seeds"] == "0 1 2" and ours[name]["images"] == "100"
    paper = {row["row"]: row for row in found if row["source"] == "paper"}
    printed = load_published().rows("IV")
    assert len(paper) == len(printed) == 5
    assert float(paper["Quasi-equilibrium"]["mae"]) == 0.057 and paper["Unrolling 2"]["max_f"] == "0.823"
    assert ours["quasi"]["paper_row"] == "Quasi-equilibrium" and ours["no_pyramid"]["paper_row"] == ""


def test_the_table_as_it_is_printed(tmp_path: Path) -> None:
    report = build_report(write_solver_sweep(tmp_path / "sweep"), load_published())
    (block,) = report.blocks
    table = block.table
    assert [column.key for column in table.columns] == ["n", "mae", "mean_f", "weighted_f", "max_f", "s_measure"]
    assert [(row.name, row.kind, count(row)) for row in table.rows] == [
        ("unroll 1", "ours", 3),
        ("Unrolling, depth 1 (paper)", "paper", None),
        ("unroll 2", "ours", 3),
        ("Unrolling, depth 2 (paper)", "paper", None),
        ("Unrolling, depth 3 (paper)", "paper", None),
        ("equilibrium", "ours", 3),
        ("Equilibrium (paper)", "paper", None),
        ("quasi", "ours", 3),
        ("Quasi-equilibrium (paper)", "paper", None),
        ("no pyramid", "ours", 3),
    ]
    found = {row.name: cells(table, row) for row in table.rows}
    values = [figures(level)["mae"] for level in SOLVER["quasi"]]
    assert found["quasi"][0].text == f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    assert all(cell.best for cell in found["quasi"])
    assert all(cell.mark == "≈" and not cell.best for cell in found["equilibrium"])
    assert not any(cell.mark or cell.best for cell in found["no pyramid"])
    assert [cell.text for cell in found["Quasi-equilibrium (paper)"]] == ["0.057", "0.778", "0.762", "0.825", "0.845"]
    assert all(cell.best for cell in found["Quasi-equilibrium (paper)"])
    assert not any(cell.best for cell in found["Equilibrium (paper)"])


def test_every_figure_of_every_run_is_in_one_frame(tmp_path: Path) -> None:
    frame = build_report(write_solver_sweep(tmp_path / "sweep"), load_published()).frame
    assert list(frame.columns) == ["source", "method", "set", "picture", "seed", "metric", "value"]
    own = frame[(frame["metric"] == "mae") & (frame["picture"] == "")]
    assert len(own) == 15 and set(own["set"]) == {"SYN-TE"} and set(own["seed"]) == {0, 1, 2}
    means = own.groupby("method")["value"].mean()
    for name, levels in SOLVER.items():
        expected = statistics.mean(figures(level)["mae"] for level in levels)
        assert means[name.replace("_", " ")] == pytest.approx(expected, abs=1e-12)


def test_notes_say_where_a_difference_is_smaller_than_the_spread(tmp_path: Path) -> None:
    report = build_report(write_solver_sweep(tmp_path / "sweep"), load_published())
    notes = " ".join(report.blocks[0].table.notes)
    same = "the difference is smaller than the seeds' spread between equilibrium and quasi."
    assert f"MAE, F adapt., weighted F, F max, S: {same}" in notes
    assert "ours of SYN-TE" in notes  # the paper's are of another set
    assert "unroll 1 and no pyramid" not in notes
    single = build_report(write_solver_sweep(tmp_path / "single", seeds=1), load_published())
    assert "One seed a row: whether any difference is more than chance is not known." in single.blocks[0].table.notes
    table = single.blocks[0].table
    assert "±" not in "".join(text for row in table.rows for text in table.texts(row))


def test_many_differences_are_counted_and_not_listed(tmp_path: Path) -> None:
    """Six rows whose seeds agree but for one row, far from all others: ten pairs within the spread, five apart."""
    close = [0.80, 0.82, 0.81]
    levels = {row: close for row in ("unroll_1", "unroll_2", "unroll_3", "equilibrium", "quasi")} | {
        "no_pyramid": [0.30, 0.31, 0.32]
    }
    for place, (row, values) in enumerate(levels.items()):
        for seed, level in enumerate(values):
            ablation = {"name": "solver", "row": row, "place": place}
            write_job(tmp_path / f"{row}{seed}", config(seed=seed), {"SYN-TE": figures(level)}, ablation=ablation)
    notes = " ".join(build_report(tmp_path, load_published()).blocks[0].table.notes)
    told = (
        "10 of the 15 differences between two rows are smaller than the seeds' spread; the other 5 tell the rows apart."
    )
    assert told in notes


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((0, 0, 6), "the seeds tell every two rows apart, by the spread and by Welch's test."),
        ((6, 0, 0), "the difference is smaller than the seeds' spread between every two rows."),
        (
            (1, 1, 4),
            "the difference is smaller than the seeds' spread between a and 0, and larger, but not significant "
            "by Welch's test, between b and 0.",
        ),
        (
            (4, 2, 0),
            "4 of the 6 differences between two rows are smaller than the seeds' spread, 2 larger, but not "
            "significant by Welch's test: no two rows are told apart.",
        ),
        (
            (4, 0, 2),
            "4 of the 6 differences between two rows are smaller than the seeds' spread; told apart: c and 0; c and 1.",
        ),
    ],
)
def test_what_the_seeds_tell_in_a_sentence(numbers: tuple[int, int, int], sentence: str) -> None:
    pairs = [[(name, str(i)) for i in range(n)] for name, n in zip("abc", numbers, strict=True)]
    assert Differences(*pairs).describe() == sentence


def test_the_papers_lines_stand_beside_the_papers_set_where_ours_have_it(tmp_path: Path) -> None:
    for seed in range(2):
        metrics = {"ECSSD": figures(0.8, 1000), "dut_omron": figures(0.7, 12)}
        ablation = {"name": "edge", "row": "paper", "place": 4}
        write_job(tmp_path / str(seed), config(seed=seed), metrics, ablation=ablation)
    first, second = build_report(tmp_path, load_published()).blocks
    assert first.dataset == "dut_omron" and second.dataset == "ECSSD"
    assert first.table.columns[-1].key == "binary_ratio"
    assert sum(row.kind == "paper" for row in first.table.rows) == 5
    assert [row.kind for row in second.table.rows] == ["ours"]
    assert "12 pictures were scored; the official dut_omron has 5,168." in first.table.notes
    own = next(row for row in first.table.rows if row.kind == "ours")
    assert not any(cell.best for cell in cells(first.table, own))  # alone, it is no best


def test_what_ours_were_trained_on_and_what_jobs_took(tmp_path: Path) -> None:
    sweep = write_solver_sweep(tmp_path / "sweep", seeds=2)
    report = write_sweep_report(sweep).report
    table = report.blocks[0].training
    training = dict(zip([table.head, *(c.head for c in table.columns)], table.texts(table.rows[0]), strict=True))
    assert training == {
        "row": "unroll 1",
        "seeds": "0, 1",
        "data": "SYN-TR",
        "pictures": "≈ 400",
        "size": "64–96, tested at 112",
        "batch": "16",
        "steps": "60",
        "pictures seen": "960",
        "backbone": "resnet18, from scratch",
        "parameters": "–",
    }
    job = rows(sweep / "sweep_jobs.csv")[0]
    assert (job["job"], job["row"], job["seed"], job["state"]) == ("0", "unroll 1", "0", "done")
    assert (job["steps"], job["pictures_seen"], job["seconds"]) == ("60", "960", "30.1")
    assert (job["solver_steps"], job["evaluations"], job["backward_evaluations"]) == ("4.0", "5.0", "")
    last = [0.5 / step for step in range(56, 60)]
    assert float(job["residual"]) == pytest.approx(statistics.median(last))
    assert job["memory_mb"] == job["parameters"] == ""


def test_time_and_memory_of_a_run_that_was_resumed(tmp_path: Path) -> None:
    run = write_job(tmp_path / "0", config(), {"X": figures(0.5)}, steps=0)
    lines = ["step,epoch,seconds,loss,memory_mb", "0,0,1,1,10", "1,0,2,1,30", "2,0,0.5,1,20", "3,0,1.5,1,20"]
    (run / "log.csv").write_text("\n".join(lines) + "\n")
    costs = read_sweep(tmp_path)[0].costs
    assert costs.seconds == 3.5 and costs.memory_mb == 30 and costs.steps == 4
    assert duration(None) == "–" and duration(3723.4) == "1:02:03" and duration(59.6) == "1:00"


def test_parameters_are_counted_from_a_checkpoint(tmp_path: Path) -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.kernel": torch.ones(9)}}, tmp_path / "last.ckpt")
    assert parameter_count(tmp_path) == sum(p.numel() for p in network.parameters())
    (tmp_path / "best.ckpt").write_bytes(b"no checkpoint")
    assert parameter_count(tmp_path) is None and parameter_count(tmp_path / "nowhere") is None


def broken_sweep(directory: Path) -> Path:
    """Two whole runs, and one of everything that may have gone wrong."""
    for seed in range(2):
        write_job(directory / str(seed), config(seed=seed), {"X": figures(0.5 + seed / 10)}, state="done")
    write_job(directory / "2", config(seed=2), None, steps=30, state="interrupted")
    failed = write_job(directory / "3", config(seed=3), None, steps=0, state="failed")
    (failed / "error.txt").write_text("rank 1:\nTraceback ...\nRuntimeError: out of memory\n\n")
    (write_job(directory / "4", config(seed=4), None) / "metrics.json").write_text('{"X": {"mae"')
    broken = write_job(directory / "5", config(seed=5), {"X": figures(0.5)})
    (broken / "config.yaml").write_text("a: [1,\n")
    (directory / "6").mkdir()
    (directory / "7").mkdir()
    (directory / "7" / "job.json").write_text(json.dumps({"number": 7, "state": "failed"}))
    write_job(directory / "8", config(seed=8), {"X": {}}, steps=0)
    (write_job(directory / "9", config(seed=9), {"X": figures(0.9)}) / "log.csv").write_text("loss\n1\n")
    (write_job(directory / "10", config(seed=10), {"X": figures(0.9)}) / "config.yaml").write_text("")
    (directory / "0" / "maps" / "12").mkdir(parents=True)
    return directory


def test_runs_that_are_not_whole_are_listed(tmp_path: Path) -> None:
    written = write_sweep_report(broken_sweep(tmp_path / "sweep"))
    listed = {name: (state, reason) for name, state, reason in written.report.left_out}
    assert list(listed) == ["2", "3", "4", "5", "6", "7", "8", "10"]
    assert listed["2"][0] == "incomplete" and "after step 30 of 60, interrupted" in listed["2"][1]
    assert listed["3"] == ("failed", "RuntimeError: out of memory")
    assert listed["4"][0] == "unreadable" and "metrics.json cannot be read" in listed["4"][1]
    assert listed["5"][0] == "unreadable" and "config.yaml cannot be read" in listed["5"][1]
    assert listed["6"] == ("incomplete", "there is no config.yaml")
    assert listed["7"] == ("failed", "its job failed")
    assert listed["8"][0] == "incomplete" and listed["10"] == ("unreadable", "config.yaml is empty")
    (block,) = written.report.blocks
    assert [(row.name, count(row)) for row in block.table.rows] == [("all runs", 3)]
    assert any(remark.startswith("9: log.csv cannot be read") for remark in written.report.remarks)
    text = (tmp_path / "sweep" / "sweep_report.md").read_text()
    assert "RuntimeError: out of memory" in text and "| 3 | failed |" in text


def test_a_sweep_without_any_figure_has_a_report(tmp_path: Path) -> None:
    write_job(tmp_path / "0", config(), None, steps=5)
    report = write_sweep_report(tmp_path).report
    assert report.blocks == [] and report.left_out[0][1] == "incomplete"
    assert "No run has figures yet" in (tmp_path / "sweep_report.html").read_text()


def test_the_page_holds_everything(tmp_path: Path) -> None:
    sweep = write_solver_sweep(tmp_path / "a <b> & c", seeds=2)
    write_job(sweep / "20", config(seed=5), None, steps=30)
    write_sweep_report(sweep, tmp_path / "out")
    text = (tmp_path / "out" / "sweep_report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not [one for one in page.references if not one.startswith(("#", "data:"))]
    assert len(set(page.identifiers)) == len(page.identifiers)
    assert {one for one in page.references if one.startswith("#")} <= {f"#{name}" for name in page.identifiers}
    assert "<b>" not in page.text.replace("a <b> & c", "") and "a <b> & c" in page.text
    for words in ("Table IV: Solvers, on DUT-OMRON", "Unrolling, depth 1 (paper)", "How ours were trained", "≈"):
        assert words in page.text
    for title in ("Loss", "Validation: weighted f", "Relative residual of the solver"):
        assert text.count(f"<figcaption>{title}</figcaption>") == 2  # the ablation, and the run beside it
    assert not list(sweep.glob("sweep_*"))


def test_curves_of_all_jobs(tmp_path: Path) -> None:
    write_sweep_report(write_solver_sweep(tmp_path / "sweep", seeds=2))
    text = (tmp_path / "sweep" / "sweep_report.html").read_text(encoding="utf-8")
    loss = re.search(r"<figcaption>Loss</figcaption>(.*?)</figure>", text, re.DOTALL)
    assert loss is not None
    raw = re.findall(r'<path d="[^"]*"[^>]*stroke: var\(--series-(\d)\); stroke-opacity: 0.3', loss[1])
    assert sorted(raw) == sorted(str(row + 1) for row in range(5) for _ in range(2))
    for name in SOLVER:
        assert len(re.findall(f">{name.replace('_', ' ')}</text>", loss[1])) == 1  # once in the legend


def test_markdown(tmp_path: Path) -> None:
    write_sweep_report(write_solver_sweep(tmp_path / "sweep"))
    text = (tmp_path / "sweep" / "sweep_report.md").read_text(encoding="utf-8")
    mean, deviation = statistics.mean(SOLVER["quasi"]) + 0.02, statistics.stdev(SOLVER["quasi"])
    (line,) = [line for line in text.splitlines() if line.startswith("| quasi | 3 |")]
    assert f"| **{mean:.3f} ± {deviation:.3f}** |" in line
    assert "| *Quasi-equilibrium (paper)* |  | **0.057** |" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_characters_of_latex() -> None:
    assert escape_latex("50 % of a_b & {c} ± é ≈ \\") == (
        r"50 \% of a\_b \& \{c\} $\pm$ \'{e} $\approx$ \textbackslash{}"
    )
    assert escape_latex("日ﬁ") == "?fi"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: LaTeX is not compiled")
def test_latex_compiles(tmp_path: Path) -> None:
    sweep = broken_sweep(tmp_path / "50% of_a & é {日} #1")
    write_solver_sweep(sweep / "solver", seeds=2)
    write_sweep_report(sweep, tmp_path / "out")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "sweep_report.tex"]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "out" / "sweep_report.pdf").stat().st_size > 10_000


def test_latex_tables_have_rows_of_one_length(tmp_path: Path) -> None:
    write_sweep_report(write_solver_sweep(tmp_path / "sweep"))
    text = (tmp_path / "sweep" / "sweep_tables.tex").read_text(encoding="utf-8")
    assert text.isascii()
    tables = re.findall(r"\\midrule(.*?)\\bottomrule", text, re.DOTALL)
    assert len(tables) == 3
    for table in tables:
        body = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert body and len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_solver_sweep(tmp_path / "it's [a], (1)", seeds=2)
    assert main(["report", f"runs={sweep}"]) == 0
    out = capsys.readouterr().out
    assert "Table IV: Solvers, on DUT-OMRON; ours on SYN-TE" in out and "0.057" in out
    mean, deviation = statistics.mean(SOLVER["quasi"][:2]), statistics.stdev(SOLVER["quasi"][:2])
    assert f"{mean + 0.02:.3f} ± {deviation:.3f}" in out
    assert [Path(line).name for line in out.splitlines()[-6:]] == FILES
    assert all(len(line) <= 120 for line in out.splitlines()[:-6])
    assert main(["report", f"runs={sweep}", f"output={tmp_path}/out/deep"]) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == sorted(FILES)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    run = write_job(tmp_path / "runs" / "0", config(), {"X": figures(0.5)}, steps=0)
    for words, said in (
        ([f"runs={tmp_path}/nowhere"], "no such directory"),
        ([f"runs={tmp_path}/empty"], "holds no run"),
        ([f"runs={tmp_path}/file"], "no such directory"),
        ([f"run={run}", f"runs={tmp_path}/runs"], "both"),
        ([], "run is not set"),
        ([f"runs={tmp_path}/runs", f"output={tmp_path}/file"], "cannot be written"),
    ):
        assert main(["report", *words]) == 2, words
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1, error
    with pytest.raises(UserError, match="holds no run"):
        read_sweep(tmp_path / "empty")
    assert main(["report", f"run={run}"]) == 0  # the page of one run, as ever
    assert (run / "report.html").is_file()
