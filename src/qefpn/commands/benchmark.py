"""`qefpn benchmark`: tables, curves, pictures and a page from folders of anybody's saliency maps."""

from __future__ import annotations

import contextlib
import csv
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from qefpn.atomic import atomic_file, write_atomic, write_json
from qefpn.benchmark.attributes import attribute_table
from qefpn.benchmark.entries import Entry
from qefpn.benchmark.groups import check_groups, group_table
from qefpn.benchmark.map_scores import score_folders
from qefpn.benchmark.maps import MapFolder, find_maps
from qefpn.benchmark.protocols import partings
from qefpn.benchmark.protocols import sentences as parting_sentences
from qefpn.benchmark.score_cache import ScoreCache, content_hash, drawing_version
from qefpn.data.files import cache_dir, file_key
from qefpn.data.layouts import Pair
from qefpn.data.registry import official
from qefpn.data.survey import describe
from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.prepare import Reporter, name_list, places, tell_notes, tell_passed_over
from qefpn.experiments.runtime import console, progress_bar
from qefpn.metrics import PROTOCOLS, choose
from qefpn.metrics.figures import Figures
from qefpn.reporting.benchmark_figures import draw_curves, draw_grid, named_pictures
from qefpn.reporting.comparison import benchmark_tables, csv_benchmark, json_benchmark
from qefpn.reporting.intervals import figure_table, interval_table, rank_sentences, rank_table, sentences
from qefpn.reporting.latex import latex
from qefpn.reporting.leaderboard import write_leaderboard
from qefpn.reporting.published import load_published
from qefpn.reporting.renderers import markdown, terminals
from qefpn.reporting.tables import beside, in_parts
from qefpn.text import did_you_mean, one_line, open_text

SUMMARY = """
qefpn benchmark - score folders of saliency maps, of any methods, as the field does

qefpn benchmark maps=MAPS data.root=DIR
qefpn benchmark maps=MAPS data.root=DIR data.test=[ECSSD,DUTS-TE] published=true protocol=f3net
"""

_LISTED = 3
ALL = "all"
"""Stands for every protocol; the first one's figures go into the tables."""


def main(argv: Sequence[str]) -> int:
    """0 when every method has every map, 1 when maps are missing or failed (they are listed), 2 for a mistake."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("benchmark", SUMMARY))
        return 0
    options = command_config("benchmark", argv)
    _check(options)
    pairs = find_pictures(options)
    folders, aside = find_maps(str(options.maps), pairs, str(options.prefix or ""), str(options.suffix or ""))
    folders = chosen_methods(folders, options.methods, options.exclude, options.aliases)
    pairs = {name: pairs[name] for name in dict.fromkeys(folder.dataset for folder in _in_order(folders, pairs))}
    if options.groups:
        check_groups(pairs)
    if options.figures and (names := name_list(options.pictures)) and (shown := _with_pictures(pairs)):
        named_pictures(shown, names)  # a name that is not there is told before all maps are scored
    for name in aside:
        known = f"there are maps of {name}, which is not among the data sets: they are left aside"
        print(known if official(name) is not None else f"left aside: {name}")
    folder = Path(str(options.output or time.strftime("outputs/benchmark/%Y-%m-%d_%H-%M-%S"))).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={folder} cannot be made ({error.strerror})") from None
    protocols = list(PROTOCOLS) if options.protocol == ALL else [str(options.protocol)]
    home = cache_dir() if options.cache else None
    with contextlib.closing(ScoreCache(None if home is None else home / "scores.sqlite")) as cache:
        by_protocol = {protocol: score(options, protocol, folders, pairs, cache) for protocol in protocols}
        entries = by_protocol[protocols[0]]
        findings = tell(entries)
        tell_passed_over((one.folder, one.others) for one in folders)
        if not any(entry.pictures for entry in entries):
            raise UserError(f"maps={options.maps}: not one map could be scored; the first: {findings[0]}")
        write(options, protocols[0], entries, pairs, folder, cache)
    if len(protocols) > 1:
        rows = partings(by_protocol, pairs, bool(options.quantize))
        _write_rows(folder / "protocols.csv", rows)
        for sentence in parting_sentences(rows):
            print(one_line(sentence))
        print(f"the tables are of {protocols[0]}; every figure under each protocol: {folder / 'protocols.csv'}")
    if findings:
        write_atomic(folder / "findings.txt", "\n".join(one_line(finding) for finding in findings) + "\n")
        print(f"all {len(findings)} findings: {folder / 'findings.txt'}")
    return 0 if all(entry.complete for entry in entries) else 1


def _check(options: DictConfig) -> None:
    if OmegaConf.is_missing(options, "maps"):
        raise UserError("maps is not set: give maps=DIR")
    if options.protocol not in (*PROTOCOLS, ALL):
        hint = did_you_mean(options.protocol, (*PROTOCOLS, ALL))
        raise UserError(f"protocol must be one of {', '.join((*PROTOCOLS, ALL))}, not {options.protocol!r}{hint}")
    _figures(options)  # what there is not is told before anything is read
    if options.workers is not None and (not isinstance(options.workers, int) or options.workers < 1):
        raise UserError(f"workers must be a whole number from 1 on, not {options.workers!r}")
    if options.resamples < 0:
        raise UserError(f"resamples must be 0 or more, not {options.resamples}")


def _figures(options: DictConfig) -> Figures:
    return choose(name_list(options.metrics) or "sod", bool(options.quantize))


def find_pictures(options: DictConfig) -> dict[str, Sequence[Pair]]:
    """Pictures and masks by data set; masks alone where there are no pictures. What did not pair is told."""
    where = places(options.data)
    roles = {name: "test" for name in where["names"] or []}
    report = describe(**where, roles=roles, masks_alone=True, check=False)
    empty = [one.name for one in report.sets if not len(one.usable)]
    if len(empty) == len(report.sets):
        raise UserError(f"data.root={options.data.root}: no picture there has a mask ({report.sets[0].line()})")
    tell_notes(report)
    for name in empty:
        print(f"{name}: no picture has a mask; the set is left out")
    for one in report.sets:
        if len(one.usable) and (one.findings or one.usable.unlisted):
            print(one.line() + (f"; all of them: {report.findings_file}" if one.findings else ""))
    return {one.name: one.usable.items for one in report.sets if len(one.usable)}


def chosen_methods(folders: list[MapFolder], methods: Any, exclude: Any = None, aliases: Any = None) -> list[MapFolder]:
    """The folders of the methods asked for, in that order, those of ``exclude`` aside, under the names of ``aliases``;
    all of them where none are asked for."""
    there = list(dict.fromkeys(folder.method for folder in folders))
    left_out, names = name_list(exclude) or [], dict[str, str]()
    for pair in name_list(aliases) or []:
        old, colon, new = pair.partition(":")
        if not (old and colon and new):
            raise UserError(f"aliases: {pair!r} is no NAME:SHOWN; give aliases=[F3Net_final:F3Net]")
        names[old] = new
    wanted = name_list(methods)
    for key, listed in (("methods", wanted or []), ("exclude", left_out), ("aliases", list(names))):
        for name in listed:
            if name not in there:
                raise UserError(f"{key}: there are no maps of {name!r}; there are maps of {', '.join(there)}")
    kept = [name for name in (there if wanted is None else wanted) if name not in left_out]
    if not kept:
        raise UserError(f"exclude: no method is left; there are maps of {', '.join(there)}")
    shown = [names.get(name, name) for name in kept]
    for name in shown:
        if shown.count(name) > 1:
            raise UserError(f"aliases: two methods would be called {name!r}")
    return [
        replace(folder, method=names.get(name, name)) for name in kept for folder in folders if folder.method == name
    ]


def _in_order(folders: Sequence[MapFolder], pairs: Mapping[str, Sequence[Pair]]) -> list[MapFolder]:
    order = list(pairs)
    return sorted(folders, key=lambda folder: order.index(folder.dataset))


def score(
    options: DictConfig,
    protocol: str,
    folders: Sequence[MapFolder],
    pairs: dict[str, Sequence[Pair]],
    cache: ScoreCache,
) -> list[Entry]:
    """One entry a method and data set; a method without maps of a set has an entry that says so."""
    with progress_bar() as progress:
        found = score_folders(
            folders, pairs, protocol=protocol, metrics=_figures(options), cache=cache, workers=options.workers,
            progress=Reporter(progress), resamples=int(options.resamples),
        )  # fmt: skip
    by_key = {(entry.dataset, entry.method): entry for entry in found}
    methods = list(dict.fromkeys(folder.method for folder in folders))
    return [
        by_key.get((dataset, method)) or _absent(method, dataset, of)
        for dataset, of in pairs.items()
        for method in methods
    ]


def _absent(method: str, dataset: str, pairs: Sequence[Pair]) -> Entry:
    names = [pair.name for pair in pairs]
    return Entry(method, dataset, {}, {}, [], len(pairs), names, [], [], {}, {})


def tell(entries: Sequence[Entry]) -> list[str]:
    """Print what is missing, extra, resized, odd or broken, a line a kind; return every finding."""
    findings = []
    for entry in entries:
        where = f"{entry.method} on {entry.dataset}"
        if not entry.maps:
            line = f"{where}: no maps"
            findings.append(line)
            print(one_line(line))
            continue
        kinds = [("without a map", entry.missing), ("maps that belong to no picture", entry.extra)]
        kinds += [("maps resized to their mask", entry.resized)]
        kinds += [(f"maps {remark}", names) for remark, names in entry.notes.items()]
        for what, names in kinds:
            if names:
                print(one_line(f"{where}: {len(names)} {what}: {', '.join(names[:_LISTED])}{_more(names)}"))
                findings += [f"{where}: {what}: {name}" for name in names]
        for number, (name, reason) in enumerate(entry.failed.items()):
            line = f"{where}: {name} was not scored: {reason}"
            findings.append(line)
            if number < _LISTED:
                print(one_line(line), file=sys.stderr)
        if len(entry.failed) > _LISTED:
            print(f"{where}: and {len(entry.failed) - _LISTED} more were not scored", file=sys.stderr)
    return findings


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""


def write(
    options: DictConfig,
    protocol: str,
    entries: Sequence[Entry],
    pairs: dict[str, Sequence[Pair]],
    folder: Path,
    cache: ScoreCache,
) -> None:
    """All outputs; the table goes to the terminal too."""
    resamples = int(options.resamples)
    intervals, ranks = interval_table(entries, resamples), rank_table(entries, resamples)
    tables = benchmark_tables(entries, load_published() if options.published else None, ranks=ranks)
    write_atomic(folder / "table.md", markdown(tables))
    write_atomic(folder / "table.tex", latex([beside(part) for part in in_parts(tables)], wide=True))
    write_atomic(folder / "table.csv", csv_benchmark(entries))
    write_json(folder / "results.json", {"quantize": bool(options.quantize), **json_benchmark(entries, protocol)})
    rows = ({"method": e.method, "dataset": e.dataset, **row} for e in entries for row in e.pictures)
    _write_rows(folder / "scores.csv", rows)
    written = ["table.md", "table.tex", "table.csv", "results.json", "scores.csv"]
    scored = [entry for entry in entries if entry.pictures]
    if options.attributes:
        _write_rows(folder / "attributes.csv", attribute_table(scored, pairs, cache))
        written.append("attributes.csv")
    tables_of_rows = [("intervals.csv", intervals), ("ranks.csv", ranks), ("figures.csv", figure_table(scored))]
    if options.groups:
        tables_of_rows.append(("groups.csv", group_table(scored)))
    for name, rows_of in tables_of_rows:
        if rows_of:
            _write_rows(folder / name, rows_of)
            written.append(name)
    shown, content = _with_pictures(pairs), [(entry.method, entry.dataset, entry.key) for entry in entries]
    if options.figures:
        written += _drawn(cache, ("curves", content), folder, lambda: draw_curves(scored, folder))
        if shown:
            drawn, names = [entry for entry in scored if entry.dataset in shown], name_list(options.pictures)
            about_grid = ("grid", content, names, _versions(shown))
            written += _drawn(cache, about_grid, folder, lambda: draw_grid(drawn, shown, folder, names))
        if len(shown) < len(pairs):
            print(f"no pictures of {', '.join(sorted({*pairs} - {*shown}))} are there, only masks: no grid of them")
    if options.page:
        page, published = folder / "leaderboard.html", bool(options.published)
        about = ("leaderboard", content, published, resamples, _versions(pairs))
        written += _drawn(cache, about, folder, lambda: write_leaderboard(entries, pairs, page, published, ranks))
    for part in terminals(tables, console().width):
        console().print(part)
    for sentence in [*sentences(intervals), *rank_sentences(ranks)]:
        print(one_line(sentence))
    print(f"{folder.resolve()}: {', '.join(written)}")


def _with_pictures(pairs: Mapping[str, Sequence[Pair]]) -> dict[str, Sequence[Pair]]:
    """The data sets that are not masks alone."""
    return {name: of for name, of in pairs.items() if any(pair.image for pair in of)}


def _versions(pairs: Mapping[str, Sequence[Pair]]) -> list[tuple[int, int]]:
    return [file_key(pair.image) for some in pairs.values() for pair in some if pair.image]


def _drawn(cache: ScoreCache, about: tuple[Any, ...], folder: Path, draw: Callable[[], list[Path]]) -> list[str]:
    """The names of files that are drawn, or taken out of the cache where nothing that they show has changed."""
    key = content_hash(repr(about).encode() + drawing_version())
    kept = cache.files(key)
    for name, content in kept.items():
        with atomic_file(folder / name) as part:
            part.write_bytes(content)
    if not kept:
        paths = draw()
        cache.keep_files(key, {path.name: path.read_bytes() for path in paths})
        return [path.name for path in paths]
    return list(kept)


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows of one kind, each written as it is made: there may be tens of thousands."""
    with atomic_file(path) as part, open_text(part) as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({k: repr(v) if isinstance(v, float) else v for k, v in row.items()})
