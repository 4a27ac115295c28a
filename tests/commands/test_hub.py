"""A network on its way to a hub and back: the folder, the card for people, the hub's protocol, an address; no network
but this machine's own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.commands.hub_server import Hub, Repository, served

from qefpn import Predictor, load_model
from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.inference.export import drawn_picture
from qefpn.models import packed, remote

huggingface_hub = pytest.importorskip("huggingface_hub")

PICTURE = drawn_picture(70, 90)
TERMS = ["card.licence=cc-by-4.0", "card.name=tiny"]


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `qefpn export format=hub` makes of the tiny run. Not to be written to."""
    output = tmp_path_factory.mktemp("hub") / "FOLDER"
    assert (
        main(["export", f"checkpoint={tiny_run}/checkpoints/best.ckpt", "format=hub", f"output={output}", *TERMS]) == 0
    )
    return output


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does before the client is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub with the repository me/tiny, and nothing in any cache."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("QEFPN_CACHE", str(tmp_path / "cache"))
    with served() as state:
        state.repositories["me/tiny"] = Repository()
        state.repositories["me/tiny"].push(files, "v1")
        point_to(state.url, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        yield state


def wanted(tiny_run: Path) -> np.ndarray:
    return Predictor(tiny_run / "checkpoints" / "best.ckpt")(PICTURE)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """As float16 weights leave it."""
    return int(np.abs(one.astype(int) - other.astype(int)).max()) <= 2


def test_the_folder_holds_the_network_and_no_place_of_its_owner(folder: Path, tiny_run: Path, data_root: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "model.safetensors"]
    made = Predictor.from_pretrained(folder)
    assert close(made(PICTURE), wanted(tiny_run))
    assert np.array_equal(made(PICTURE), Predictor(folder / "model.safetensors")(PICTURE))
    network = load_model(folder)
    for name, value in load_model(tiny_run / "checkpoints" / "best.ckpt").state_dict().items():
        assert torch.allclose(network.state_dict()[name], value, rtol=2**-10, atol=1e-6), name
    for path in folder.iterdir():
        for place in (tiny_run, data_root, Path.home(), Path.cwd()):
            assert str(place).encode() not in path.read_bytes(), path.name


def test_the_card_for_people_says_what_the_network_s_own_says(folder: Path, tiny_run: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    head, card = yaml.safe_load(front), packed.read_card(folder / "model.safetensors")
    assert head["license"] == "cc-by-4.0" and "license_name" not in head
    assert (head["library_name"], head["pipeline_tag"]) == ("qefpn", "image-segmentation")
    assert "datasets" not in head and "salient-object-detection" in head["tags"]  # of drawn pictures no hub has one
    scores = json.loads((tiny_run / "metrics.json").read_text())["SYN-TE"]
    (result,) = head["model-index"][0]["results"]
    shown = {one["type"]: one["value"] for one in result["metrics"]}
    assert shown == {key: pytest.approx(scores[key], abs=1e-4) for key in shown} and shown.keys() >= {"max_f", "mae"}
    assert f"| SYN-TE | {scores['max_f']:.3f} |" in body
    for part in (
        *("# tiny", "cc-by-4.0", "## Limits", "drawn by qefpn", "`budget=exact` | 2 |", "hf upload owner/name FOLDER"),
        *(f"#sha256={card['sha256']}", "from_pretrained", "qefpn predict checkpoint=hub:owner/name"),
    ):
        assert part in body, part


def test_what_stands_in_a_card_cannot_break_the_front_matter(tiny_run: Path, tmp_path: Path) -> None:
    odd = "---\nlicense: mit\n\"a': [b"
    card = {"licence": odd, "data": "x", "scores": {"f3net": {"A | B\n---": {"max_f": 0.5}}}, "recipe": {}, "name": odd}
    card |= {
        "network": {"backbone": "b"},
        "image_size": 64,
        "sha256": "0" * 64,
        "config": {"data": {"train": [odd, "S"]}},
    }
    from qefpn.inference.hub import model_card

    text = model_card(card)
    head = yaml.safe_load(text.split("\n---\n")[0])
    assert head["license"] == "other" and head["datasets"] == ["S"]
    assert head["model-index"][0]["name"] == odd
    assert "| A \\| B" in text


@pytest.mark.parametrize(("words", "said"), [
    (["card.licence=null"], "card.licence is not set"),
    (["steps=2"], "steps is not of format=hub"),
    (["budget=exact"], "budget is not of format=hub"),
    (["dtype=int8"], "dtype must be one of float32 with format=hub"),
    (["output=file"], "output=file is a file; format=hub writes a folder"),
    (["output=full"], "output=full is not empty: overwrite=true"),
    (["image_size=8"], "image_size must be at least 32"),
])  # fmt: skip
def test_what_cannot_be_exported_is_one_line(
    words: list[str], said: str, tiny_run: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("full").mkdir()
    Path("full/thing").write_text("mine")
    given = {"checkpoint": f"{tiny_run}/checkpoints/best.ckpt", "format": "hub", "output": "new", "card.licence": "mit"}
    given |= dict(word.split("=") for word in words)
    assert main(["export", *(f"{key}={value}" for key, value in given.items())]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert (Path("file").read_text(), Path("full/thing").read_text(), Path("new").exists()) == ("mine", "mine", False)


def test_a_hub_s_network_is_fetched_once(hub: Hub, folder: Path, tmp_path: Path) -> None:
    maps = [Predictor.from_pretrained(name)(PICTURE) for name in ("me/tiny", "me/tiny@v1", "hub:me/tiny")]
    maps.append(Predictor("hub:me/tiny")(PICTURE))
    own = Predictor(folder)(PICTURE)
    assert all(np.array_equal(one, own) for one in maps)
    assert hub.count("GET", "/cdn/") == 1
    (file,) = {packed.network_file(f"hub:me/tiny{end}") for end in ("", "@v1", "@main")}
    assert file.is_relative_to(tmp_path / "hf")


def test_a_revision_stays_what_it_was(hub: Hub, folder: Path, files: dict[str, bytes]) -> None:
    card = json.loads(files["model.json"])
    first = hub.repositories["me/tiny"].revisions["main"]
    hub.repositories["me/tiny"].push(files | {"model.json": json.dumps(card | {"name": "later"}).encode()})
    names = {
        revision: packed.read_card(packed.network_file(f"hub:me/tiny{revision}"))["name"]
        for revision in ("", "@v1", f"@{first}")
    }
    assert names == {"": "later", "@v1": "tiny", f"@{first}": "tiny"}


def test_without_the_hub_what_is_in_the_cache_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    before = packed.network_file("hub:me/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert packed.network_file("hub:me/tiny") == before
    with pytest.raises(UserError, match=r"hub:me/other: the hub cannot be reached, and it is not in the cache") as told:
        Predictor.from_pretrained("me/other")
    assert "\n" not in str(told.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    point_to("http://127.0.0.1:9", monkeypatch)  # where nobody listens
    assert packed.network_file("hub:me/tiny") == before


def test_a_connection_that_is_cut_goes_on(hub: Hub, folder: Path, files: dict[str, bytes]) -> None:
    hub.cuts = [len(files["model.json"]) // 2, 10**6, len(files["model.safetensors"]) // 3]
    assert np.array_equal(Predictor.from_pretrained("me/tiny")(PICTURE), Predictor(folder)(PICTURE))
    assert hub.cuts == [] and hub.count("GET", "/cdn/") == 2 and hub.count("GET", "model.json") == 2


def test_another_file_than_the_card_describes_is_refused(hub: Hub, files: dict[str, bytes]) -> None:
    spoilt = files["model.safetensors"][:-1] + b"x"
    hub.repositories["me/spoilt"] = Repository()
    hub.repositories["me/spoilt"].push({**files, "model.safetensors": spoilt})
    with pytest.raises(UserError, match=r"hub:me/spoilt: its model.safetensors is not the file that its model.json"):
        Predictor.from_pretrained("me/spoilt")


def test_a_damaged_cache_is_mended(hub: Hub, folder: Path) -> None:
    file = packed.network_file("hub:me/tiny")
    blob = file.resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert np.array_equal(Predictor.from_pretrained("me/tiny")(PICTURE), Predictor(folder)(PICTURE))


@pytest.mark.parametrize(("name", "said"), [
    ("me/none", "hub:me/none: the hub has no such repository"),
    ("me/tiny@never", "hub:me/tiny@never: the repository has no such revision"),
    ("me/empty", "hub:me/empty: holds no model.safetensors with model.json"),
    ("me/half", "hub:me/half: holds no model.safetensors with model.json"),
    ("me/gated", "hub:me/gated: its owner asks for consent first"),
    ("hub:tiny", "hub:tiny: is no name of a repository"),
    ("hub:me/ti ny", "is no name of a repository"),
    ("hub:me/-tiny..", "is no name of a repository"),
    ("me/foreign", "is no card of a network"),
    ("me/large", "has 9,000 bytes; at most 8,192 are fetched"),
])  # fmt: skip
def test_what_a_hub_has_not_is_one_line(
    name: str, said: str, hub: Hub, files: dict[str, bytes], monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for one, content in {
        "empty": {"README.md": b"x"},
        "half": {"model.json": files["model.json"]},
        "foreign": {"model.json": b"{}", "model.safetensors": files["model.safetensors"]},
        "large": {**files, "model.safetensors": bytes(9000)},
    }.items():
        hub.repositories[f"me/{one}"] = Repository()
        hub.repositories[f"me/{one}"].push(content)
    hub.gated.add("me/gated")
    if name == "me/large":
        monkeypatch.setattr(remote.fetched, "__kwdefaults__", {"sha256": None, "limit": 8192})
    with pytest.raises(UserError) as told:
        Predictor.from_pretrained(name)
    assert said in str(told.value) and "\n" not in str(told.value)
    given = name if name.startswith("hub:") else f"hub:{name}"
    assert main(["predict", f"checkpoint={given}", "input=x.png", "output=y.png"]) == 2
    assert not hub.count("GET", "/cdn/") or name == "me/foreign"


def test_a_hub_that_fails_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fails = 400
    with pytest.raises(UserError, match="hub:me/tiny: ") as told:
        Predictor.from_pretrained("me/tiny")
    assert "\n" not in str(told.value)


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"hub:me/tiny needs the package huggingface_hub: pip install 'qefpn\[hub\]'"):
        Predictor.from_pretrained("me/tiny")


def test_a_folder_of_that_name_is_meant_first(hub: Hub, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("me/tiny").mkdir(parents=True)
    with pytest.raises(UserError, match="me/tiny: holds no model.safetensors"):
        Predictor.from_pretrained("me/tiny")
    for path in folder.iterdir():
        Path("me/tiny", path.name).write_bytes(path.read_bytes())
    Predictor.from_pretrained("me/tiny")
    assert hub.asked == []


def test_an_address_with_its_sha256(hub: Hub, folder: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.plain["/a/tiny.safetensors"] = files["model.safetensors"]
    address, digest = f"{hub.url}/a/tiny.safetensors", hashlib.sha256(files["model.safetensors"]).hexdigest()
    own = Predictor(folder)(PICTURE)
    hub.cuts = [1000]
    assert np.array_equal(Predictor.from_pretrained(f"{address}#sha256={digest}")(PICTURE), own)
    assert [one for _, _, one in hub.asked] == [None, "bytes=1000-"]
    assert np.array_equal(Predictor.from_pretrained(address, sha256=digest.upper())(PICTURE), own)
    assert np.array_equal(Predictor(f"{address}#sha256={digest}")(PICTURE), own)
    assert len(hub.asked) == 2
    kept = tmp_path / "cache" / "networks" / digest
    assert packed.read_card(kept / "model.safetensors") == packed.read_card(folder / "model.safetensors")
    # what lies in the cache is not trusted: neither a changed file nor a changed card
    (kept / "model.safetensors").write_bytes(b"x")
    (kept / "model.json").write_text("{}")
    assert np.array_equal(Predictor.from_pretrained(address, sha256=digest)(PICTURE), own)


@pytest.mark.parametrize(("address", "sha256", "said"), [
    ("{url}/a.safetensors", None, "give the sha256 of the file"),
    ("{url}/a.safetensors#sha256=12", None, "12 is none"),
    ("{url}/a.safetensors#sha256={other}", "{digest}", "say two things"),
    ("{url}/a.safetensors", "{other}", "is another file than sha256="),
    ("{url}/none.safetensors", "{digest}", "answers 404"),
    ("{url}/a.ckpt", "{digest}", "is no address of a .safetensors file"),
    ("http://example.org/a.safetensors", "{digest}", "give an https address"),
    ("http://127.0.0.1:9/a.safetensors", "{digest}", "could not be downloaded"),
    ("{url}/bare.safetensors", "{bare}", "holds no card of a network"),
    ("{url}/text.safetensors", "{text}", "cannot be read as a safetensors file"),
    ("mobile", "{digest}", "sha256 is for an address"),
    ("hub:me/tiny", "{digest}", "pinned by owner/name@revision"),
])  # fmt: skip
def test_what_an_address_does_not_give_is_one_line(
    address: str, sha256: str | None, said: str, hub: Hub, files: dict[str, bytes], tmp_path: Path, monkeypatch: Any
) -> None:
    from safetensors.torch import save

    monkeypatch.setattr("time.sleep", lambda _: None)
    contents = {"a": files["model.safetensors"], "bare": save({"x": torch.zeros(3)}), "text": b"no such thing at all"}
    hub.plain |= {f"/{name}.safetensors": content for name, content in contents.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    words = {
        "url": hub.url,
        "other": "0" * 64,
        "digest": digests["a"],
        "bare": digests["bare"],
        "text": digests["text"],
    }
    with pytest.raises(UserError) as told:
        Predictor.from_pretrained(address.format(**words), sha256=sha256 and sha256.format(**words))
    assert said in str(told.value) and "\n" not in str(told.value)


def test_a_file_without_end_is_not_fetched(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    content = files["model.safetensors"]
    hub.plain["/a.safetensors"] = content
    given = f"{hub.url}/a.safetensors#sha256={hashlib.sha256(content).hexdigest()}"
    with pytest.raises(UserError, match="is larger than the 0 MiB"):
        remote.fetched(given, limit=1000)
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_an_address_that_is_no_card_of_ours_names_no_class(hub: Hub, folder: Path, files: dict[str, bytes]) -> None:
    """Whoever writes the sha256 trusts the file as data, and not as a program."""
    from safetensors.torch import load, save

    card = json.loads(files["model.json"])
    card["network"]["solver"] = {"_target_": "turtle.Turtle"}
    made = save(load(files["model.safetensors"]), {packed.EMBEDDED: json.dumps(card)})
    hub.plain["/b.safetensors"] = made
    with pytest.raises(UserError, match="turtle may not be named"):
        Predictor.from_pretrained(f"{hub.url}/b.safetensors", sha256=hashlib.sha256(made).hexdigest())
    assert "turtle" not in sys.modules


def test_nothing_is_written_beside_a_cached_network(
    hub: Hub, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = packed.network_file("hub:me/tiny").parent
    before = sorted(path.name for path in there.iterdir())
    words = ["checkpoint=hub:me/tiny", f"data.root={data_root}", "data.test=[SYN-TE]", "floors=false", "report=false"]
    assert main(["evaluate", *words]) == 0
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["SYN-TE"]["images"] == 3
    assert sorted(path.name for path in there.iterdir()) == before


@pytest.mark.slow
def test_from_a_shell_with_the_hub_s_own_variables(hub: Hub, folder: Path, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "photo.png")
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "qefpn.cli", "predict", "input=photo.png", "output=mask.png"]

    def run(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, f"checkpoint={name}"], cwd=tmp_path, env=env, capture_output=True, text=True)

    done = run("hub:me/tiny@v1")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), Predictor(folder)(PICTURE))
    failed = run("hub:me/none")
    assert failed.returncode == 2
    (line,) = failed.stderr.strip().splitlines()
    assert line == "qefpn predict: hub:me/none: the hub has no such repository (of a private one: `hf auth login`)"
