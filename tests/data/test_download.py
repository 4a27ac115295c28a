from __future__ import annotations

import http.server
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image
from tests.data.pictures import blob, picture

from qefpn.cli import main
from qefpn.data import archives, find_pairs
from qefpn.data.archives import fetch, unpack
from qefpn.data.download import Outcome, download
from qefpn.data.registry import DATASETS
from qefpn.errors import UserError


@dataclass
class Server:
    """What the server has, how it misbehaves, and what it was asked for: (path, Range header)."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # bytes sent before the connection ends, an answer each
    failures: list[int] = field(default_factory=list)  # status codes sent first
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append((self.path, asked))
            content = state.files.get(self.path)
            if state.failures or content is None:
                self.send_error(state.failures.pop(0) if state.failures else 404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else None
            if start is not None and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200 if start is None else 206)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            body = content[start or 0 :]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def three_pictures_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, info in DATASETS.items():
        monkeypatch.setitem(DATASETS, name, replace(info, count=3))


def zipped(*folders: str, count: int = 3, extra: dict[str, bytes] | None = None) -> bytes:
    """A zip of pictures (folders that name them) and masks (the others)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for folder in folders:
            masks = any(word in folder.lower() for word in ("mask", "gt"))
            for number in range(count):
                content = io.BytesIO()
                Image.fromarray((blob if masks else picture)(number)).save(content, "PNG" if masks else "JPEG")
                archive.writestr(f"{folder}/p{number}.{'png' if masks else 'jpg'}", content.getvalue())
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return stream.getvalue()


def duts(**options: object) -> bytes:
    return zipped("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", **options)  # type: ignore[arg-type]


def run(root: Path, *names: str, server: Server, **options: object) -> list[Outcome]:
    return list(download(root, names, mirror=server.url, wait=0.0, timeout=5.0, **options))  # type: ignore[arg-type]


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_official_archives_become_sets(server: Server, tmp_path: Path) -> None:
    """Each set as its archives are laid out, into folders that find_pairs knows, and nothing else."""
    server.files = {
        "/DUTS-TE.zip": duts(extra={"__MACOSX/._p0.jpg": b"x", "DUTS-TE/.DS_Store": b"x"}),
        "/images.zip": zipped("images"),
        "/ground_truth_mask.zip": zipped("ground_truth_mask"),
        "/DUT-OMRON-image.zip": zipped("DUT-OMRON-image"),
        "/DUT-OMRON-gt-pixelwise.zip.zip": zipped("pixelwiseGT-new-PNG"),
        "/salObj.zip": zipped(
            "datasets/imgs/pascal", "datasets/imgs/bruce", "datasets/masks/pascal", "algmaps/pascal/gbvs"
        ),
    }
    names = ["DUTS-TE", "ECSSD", "DUT-OMRON", "PASCAL-S"]
    calls: list[tuple[str, int, int]] = []
    root = tmp_path / "new" / "root"
    outcomes = run(root, *names, server=server, progress=lambda *call: calls.append(call))
    assert [(outcome.name, outcome.complete) for outcome in outcomes] == [(name, True) for name in names]
    assert outcomes[0].line == f"DUTS-TE: 3 pairs in {root / 'DUTS-TE'}, layout DUTS-TE-Image/DUTS-TE-Mask"
    assert entries(root) == sorted(names)
    assert sorted(path.name for path in (root / "DUTS-TE").rglob("*") if path.is_file()) == sorted(
        f"p{i}.{suffix}" for i in range(3) for suffix in ("jpg", "png")
    )
    assert find_pairs(root / "ECSSD").layout == "images/ground_truth_mask"
    assert find_pairs(root / "DUT-OMRON").layout == "DUT-OMRON-image/DUT-OMRON-mask"
    assert entries(root / "PASCAL-S") == ["images", "masks"]
    for name, content in (("DUTS-TE.zip", "/DUTS-TE.zip"), ("PASCAL-S.zip", "/salObj.zip")):
        moved = [call[1:] for call in calls if call[0] == f"downloading {name}"]
        assert moved[-1] == (len(server.files[content]),) * 2


def test_authors_urls_are_used_without_a_mirror(server: Server, tmp_path: Path, monkeypatch) -> None:
    server.files = {"/a/DUTS-TE.zip": duts()}
    part = replace(DATASETS["DUTS-TE"].archives[0], url=f"{server.url}/a/DUTS-TE.zip")
    for name, info in DATASETS.items():
        monkeypatch.setitem(DATASETS, name, replace(info, archives=(part,) if name == "DUTS-TE" else ()))
    (outcome,) = download(tmp_path)
    assert outcome.complete and entries(tmp_path) == ["DUTS-TE"]


def test_every_set_with_a_plain_url_by_default(server: Server, tmp_path: Path) -> None:
    outcomes = list(download(tmp_path, mirror=server.url))
    assert [outcome.name for outcome in outcomes] == [name for name in DATASETS if name != "HKU-IS"]
    assert not any(outcome.complete for outcome in outcomes)


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_after_a_cut_connection(server: Server, tmp_path: Path, ranges: bool) -> None:
    content = duts()
    server.files, server.cuts, server.ranges = {"/x.zip": content}, [1000, 700], ranges
    fetch(f"{server.url}/x.zip", tmp_path / "x.zip", wait=0.0)
    assert (tmp_path / "x.zip").read_bytes() == content and entries(tmp_path) == ["x.zip"]
    second = 1700 if ranges else 700
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", f"bytes={second}-"]


def test_goes_on_where_an_earlier_run_ended(server: Server, tmp_path: Path) -> None:
    content = duts()
    server.files, server.cuts = {"/x.zip": content}, [1000, 0, 0]
    with pytest.raises(UserError, match=r"x\.zip could not be downloaded .*1,000 bytes, which are kept; by hand"):
        fetch(f"{server.url}/x.zip", tmp_path / "x.zip", wait=0.0, way_out="by hand")
    assert (tmp_path / "x.zip.part").read_bytes() == content[:1000]
    server.cuts = [len(content) - 1000]
    fetch(f"{server.url}/x.zip", tmp_path / "x.zip", wait=0.0)
    assert (tmp_path / "x.zip").read_bytes() == content and server.asked[-1] == ("/x.zip", "bytes=1000-")


@pytest.mark.parametrize("progresses", [True, False])
def test_tries_are_given_back_only_for_progress(server: Server, tmp_path: Path, progresses: bool) -> None:
    content = duts()
    server.files, server.ranges = {"/x.zip": content}, progresses
    server.cuts = [300] * 8
    if progresses:
        fetch(f"{server.url}/x.zip", tmp_path / "x.zip", wait=0.0)
        assert len(server.asked) == 9
    else:
        with pytest.raises(UserError, match="connection ended at 300 of"):
            fetch(f"{server.url}/x.zip", tmp_path / "x.zip", wait=0.0)
        assert len(server.asked) <= 4


def test_a_part_of_another_version_is_found_out_by_its_pictures(server: Server, tmp_path: Path) -> None:
    server.files = {"/DUTS-TE.zip": duts()}
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "DUTS-TE.zip.part").write_bytes(b"x" * 1000)
    (mixed,) = run(tmp_path, "DUTS-TE", server=server)
    assert not mixed.complete and "arrived damaged" in mixed.line and "run the command again" in mixed.line
    (again,) = run(tmp_path, "DUTS-TE", server=server)
    assert again.complete and [asked for _, asked in server.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("left", ["whole", "longer", "of another file"])
def test_a_part_that_is_there(server: Server, tmp_path: Path, left: str) -> None:
    """All of it, more than all of it, or the beginning of something else."""
    content = duts()
    server.files = {"/x.zip": content}
    part = {"whole": content, "longer": content + b"x", "of another file": b"x" * (len(content) - 10)}[left]
    (tmp_path / "x.zip.part").write_bytes(part)
    fetch(f"{server.url}/x.zip", tmp_path / "x.zip", wait=0.0)
    assert (tmp_path / "x.zip").read_bytes() == content
    assert len(server.asked) == (1 if left == "whole" else 2)


def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.files, server.failures = {"/x.zip": duts()}, [503, 429]
    fetch(f"{server.url}/x.zip", tmp_path / "x.zip", wait=0.0)
    assert (tmp_path / "x.zip").is_file() and len(server.asked) == 3


def test_not_found(server: Server, tmp_path: Path) -> None:
    server.files = {"/DUTS-TE.zip": duts()}
    absent, found = run(tmp_path, "DUTS-TR", "DUTS-TE", server=server)
    assert found.complete and not absent.complete
    assert f"{server.url}/DUTS-TR.zip answers 404" in absent.line and "\n" not in absent.line
    assert f"put it at {tmp_path / 'DUTS-TR.zip'}" in absent.line
    assert [path for path, _ in server.asked].count("/DUTS-TR.zip") == 1
    assert entries(tmp_path) == ["DUTS-TE"]


def test_no_server(server: Server, tmp_path: Path) -> None:
    gone = replace(server, url="http://127.0.0.1:9")
    (outcome,) = run(tmp_path, "DUTS-TR", server=gone)
    assert not outcome.complete and "http://127.0.0.1:9/DUTS-TR.zip could not be downloaded" in outcome.line


def test_not_a_zip(server: Server, tmp_path: Path) -> None:
    server.files = {"/DUTS-TE.zip": b"<html>please log in</html>"}
    (outcome,) = run(tmp_path, "DUTS-TE", server=server)
    assert not outcome.complete and f"{server.url}/DUTS-TE.zip is not a zip file" in outcome.line
    assert entries(tmp_path) == []


def test_damaged_inside(server: Server, tmp_path: Path) -> None:
    """A picture that does not match its CRC: nothing of the set appears, and the next run gets it anew."""
    content = bytearray(duts())
    content[200] ^= 0xFF
    server.files = {"/DUTS-TE.zip": bytes(content)}
    (outcome,) = run(tmp_path, "DUTS-TE", server=server)
    assert not outcome.complete and "arrived damaged (Bad CRC" in outcome.line
    assert entries(tmp_path) == []
    (tmp_path / "DUTS-TE.zip").write_bytes(bytes(content[:-40]))
    (outcome,) = run(tmp_path, "DUTS-TE", server=server)
    assert not outcome.complete and f"{tmp_path / 'DUTS-TE.zip'} is damaged" in outcome.line
    assert (tmp_path / "DUTS-TE.zip").is_file()


@pytest.mark.parametrize(
    "member", ["../evil.jpg", "/evil.jpg", "DUTS-TE/../../evil.jpg", "..\\evil.jpg", "C:/evil.jpg"]
)
def test_members_outside_the_folder_are_refused(server: Server, tmp_path: Path, member: str) -> None:
    server.files = {"/DUTS-TE.zip": duts(extra={member: b"evil"})}
    root = tmp_path / "a" / "b"
    (outcome,) = run(root, "DUTS-TE", server=server)
    assert not outcome.complete and "would be written outside" in outcome.line
    assert not list(tmp_path.rglob("*.jpg")) and entries(root) == ["archives"]


def test_links_are_left_out(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("out")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc")
        archive.writestr("in/a.txt", "a")
    unpack(tmp_path / "x.zip", tmp_path / "to")
    assert entries(tmp_path / "to") == ["in"]


def test_what_is_there_is_left(server: Server, tmp_path: Path, make_set) -> None:
    make_set(tmp_path / "ecssd")
    make_set(tmp_path / "DUTS-TE", count=2)
    (tmp_path / "DUTS-TR").mkdir()
    (tmp_path / "DUTS-TR" / "notes.txt").write_text("mine")
    whole, short, notes = run(tmp_path, "ECSSD", "DUTS-TE", "DUTS-TR", server=server)
    assert whole.complete and whole.line.startswith("already there: ECSSD: 3 pairs")
    assert not short.complete and "DUTS-TE is there with 2 of the 3 pairs and is left as it is" in short.line
    assert not notes.complete and "DUTS-TR is there with 0 of the 3 pairs" in notes.line
    assert not server.asked
    assert len(find_pairs(tmp_path / "DUTS-TE")) == 2 and entries(tmp_path / "DUTS-TR") == ["notes.txt"]


def test_the_root_may_be_the_set(server: Server, tmp_path: Path, make_set) -> None:
    (outcome,) = run(make_set(tmp_path / "ECSSD"), "ECSSD", server=server)
    assert outcome.complete and outcome.line.startswith("already there") and not server.asked


def test_archives_put_there_by_hand(server: Server, tmp_path: Path) -> None:
    """A zip that is the set is read in place, one that only holds it is unpacked; both stay."""
    (tmp_path / "DUTS-TE.zip").write_bytes(duts())
    (tmp_path / "PASCAL-S.zip").write_bytes(
        zipped("datasets/imgs/pascal", "datasets/imgs/ft", "datasets/masks/pascal", "datasets/masks/ft")
    )
    (tmp_path / "ECSSD-images.zip").write_bytes(zipped("images"))
    server.files = {"/ECSSD-ground_truth_mask.zip": zipped("ground_truth_mask")}
    outcomes = run(tmp_path, "DUTS-TE", "PASCAL-S", "ECSSD", server=server)
    assert [outcome.complete for outcome in outcomes] == [True] * 3
    assert "already there" in outcomes[0].line
    folders = ["ECSSD", "PASCAL-S"]
    assert entries(tmp_path) == sorted(["DUTS-TE.zip", "PASCAL-S.zip", "ECSSD-images.zip", *folders])


def test_archives_are_kept_on_request_and_make_a_mirror(server: Server, tmp_path: Path) -> None:
    server.files = {"/images.zip": zipped("images"), "/ground_truth_mask.zip": zipped("ground_truth_mask")}
    (outcome,) = run(tmp_path / "a", "ECSSD", server=server, keep=True)
    kept = tmp_path / "a" / "archives"
    assert outcome.complete and entries(kept) == ["ECSSD-ground_truth_mask.zip", "ECSSD-images.zip"]
    server.files = {f"/{path.name}": path.read_bytes() for path in kept.iterdir()}
    (outcome,) = run(tmp_path / "b", "ECSSD", server=server)
    assert outcome.complete and entries(tmp_path / "b") == ["ECSSD"]
    shutil.rmtree(tmp_path / "a" / "ECSSD")
    server.asked.clear()
    (outcome,) = run(tmp_path / "a", "ECSSD", server=server)
    assert outcome.complete and not server.asked and len(entries(kept)) == 2


def test_a_set_without_a_plain_url(server: Server, tmp_path: Path) -> None:
    (outcome,) = download(tmp_path, ["hku_is"])
    assert not outcome.complete and DATASETS["HKU-IS"].homepage in outcome.line
    assert str(tmp_path / "HKU-IS") in outcome.line and entries(tmp_path) == []
    server.files = {"/HKU-IS.zip": zipped("imgs", "gt")}
    (outcome,) = run(tmp_path, "HKU-IS", server=server)
    assert outcome.complete and entries(tmp_path) == ["HKU-IS"]


def test_an_archive_of_something_else(server: Server, tmp_path: Path) -> None:
    server.files = {"/DUTS-TE.zip": zipped("readme", count=0, extra={"readme.txt": b"moved"})}
    (outcome,) = run(tmp_path, "DUTS-TE", server=server)
    assert not outcome.complete and "no pictures" in outcome.line and ".unpacking" not in outcome.line
    assert entries(tmp_path) == ["archives"]


def test_fewer_pictures_than_the_official_set(server: Server, tmp_path: Path) -> None:
    server.files = {"/DUTS-TE.zip": duts(count=2)}
    (outcome,) = run(tmp_path, "DUTS-TE", server=server)
    assert not outcome.complete and "2 pairs (the official set has 3)" in outcome.line


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch) -> None:
    server.files = {"/DUTS-TE.zip": duts()}
    room = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: room)
    (outcome,) = run(tmp_path, "DUTS-TE", server=server)
    assert not outcome.complete and "0 MiB free; make room" in outcome.line and server.url in outcome.line


def test_mistakes(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ECSD is no published data set .*did you mean ECSSD\?"):
        run(tmp_path, "DUTS-TE", "ECSD", server=server)
    with pytest.raises(UserError, match="no http"):
        list(download(tmp_path, ["ECSSD"], mirror="ftp://host/folder"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.root=.*file cannot be a folder"):
        run(tmp_path / "file", "ECSSD", server=server)
    assert not server.asked


def test_command(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files = {"/DUTS-TE.zip": duts()}
    options = [f"data.root={tmp_path}", f"download.mirror={server.url}"]
    assert main(["data", "download", *options, "data.test=DUTS-TE"]) == 0
    assert main(["data", "download", *options, "data.test=[DUTS-TE,ECSSD]"]) == 1
    told = "".join(capsys.readouterr())
    assert "already there: DUTS-TE: 3 pairs" in told and "/images.zip" in told and "404" in told
    assert main(["data", "download", *options, "data.test=[DUTS-T]"]) == 2


def test_two_downloads_into_one_folder(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    first = download(tmp_path, ["DUTS-TE", "ECSSD"], mirror=server.url, wait=0.0)
    next(first)
    with pytest.raises(UserError, match="another download into"):
        run(tmp_path, "ECSSD", server=server)
    first.close()
    assert not run(tmp_path, "ECSSD", server=server)[0].complete
