"""`qefpn predict`: files, folders and patterns in; maps, masks, cut-outs, overlays and edges out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qefpn import Predictor
from qefpn.cli import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, data_root: Path) -> Path:
    """Three pictures of several sizes, one of them lying on its side, in a folder with one below."""
    folder = tmp_path_factory.mktemp("pictures")
    sources = sorted((data_root / "SYN-TE" / "SYN-TE-Image").iterdir())
    Image.open(sources[0]).resize((80, 50)).save(folder / "wide.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned a quarter clockwise
    Image.open(sources[1]).resize((90, 40)).save(folder / "turned.jpg", exif=turned)
    (folder / "below").mkdir()
    Image.open(sources[2]).convert("L").resize((33, 71)).save(folder / "below" / "grey.PNG")
    return folder


def predict(run: Path, *words: str) -> int:
    return main(["predict", f"checkpoint={run}/checkpoints/best.ckpt", *words])


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("kind", "mode"), [("map", "L"), ("binary", "L"), ("rgba", "RGBA"), ("overlay", "RGB"), ("edges", "L")]
)
def test_every_output_at_the_picture_s_own_size(
    kind: str, mode: str, pictures: Path, tiny_run: Path, tmp_path: Path
) -> None:
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/out", f"output_type={kind}") == 0
    assert names(tmp_path / "out") == ["turned.png", "wide.png"]
    found = {name: Image.open(tmp_path / "out" / name) for name in names(tmp_path / "out")}
    assert {one.mode for one in found.values()} == {mode}
    assert found["wide.png"].size == (80, 50)
    assert found["turned.png"].size == (40, 90)  # upright
    if kind == "binary":
        assert set(np.unique(found["wide.png"])) <= {0, 255}
    if kind == "rgba":
        given = [f"input={pictures}/wide.jpg", f"output={tmp_path}/plain.png", "output_type=rgba", "matting=false"]
        assert predict(tiny_run, *given) == 0
        source = np.asarray(Image.open(pictures / "wide.jpg").convert("RGB"), int)
        assert np.abs(np.asarray(Image.open(tmp_path / "plain.png"))[..., :3].astype(int) - source).max() <= 3


def test_a_binary_mask_is_the_map_above_the_threshold(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    source = f"input={pictures}/wide.jpg"
    assert predict(tiny_run, source, f"output={tmp_path}/map.png") == 0
    saliency = np.asarray(Image.open(tmp_path / "map.png"))
    threshold = float(np.median(saliency)) / 255
    words = ["output_type=binary", f"threshold={threshold}"]
    assert predict(tiny_run, source, f"output={tmp_path}/mask.png", *words) == 0
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    np.testing.assert_array_equal(mask == 255, saliency >= threshold * 255)
    assert predict(tiny_run, source, f"output={tmp_path}/cut.png", "output_type=rgba", "matting=false") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "cut.png"))[..., 3], saliency)


def test_a_map_does_not_depend_on_its_batch(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    for size in (1, 8):
        assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/{size}", f"batch_size={size}") == 0
    assert names(tmp_path / "1") == names(tmp_path / "8") != []
    for name in names(tmp_path / "1"):
        one, other = (np.asarray(Image.open(tmp_path / str(size) / name), int) for size in (1, 8))
        assert np.abs(one - other).max() <= 1


def test_file_folder_and_pattern(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    assert predict(tiny_run, f"input={pictures}/wide.jpg", f"output={tmp_path}/a") == 0
    assert names(tmp_path / "a") == ["wide.png"]
    assert predict(tiny_run, f"input={pictures}/*.jpg", f"output={tmp_path}/b") == 0
    assert names(tmp_path / "b") == ["turned.png", "wide.png"]
    assert predict(tiny_run, f"input={pictures}/**/*.PNG", f"output={tmp_path}/c") == 0
    assert names(tmp_path / "c") == ["grey.png"]
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/d", "recursive=true") == 0
    assert names(tmp_path / "d") == ["below/grey.png", "turned.png", "wide.png"]


def test_names_with_everything_in_them(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    for name in (" é it's [ab] (1)", "a=b&c,d {x} $ ${x} #1"):
        folder = tmp_path / name
        folder.mkdir()
        Image.open(pictures / "wide.jpg").save(folder / f"{name}.jpg")
        assert predict(tiny_run, f"input={folder}/{name}.jpg", f"output={folder}/out {name}") == 0
        assert names(folder / f"out {name}") == [f"{name}.png"]


def test_pictures_of_one_name_are_kept_apart(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "a.png", "a.bmp", "b.jpg"):
        Image.open(pictures / "wide.jpg").save(source / name)
    assert predict(tiny_run, f"input={source}", f"output={tmp_path}/out") == 0
    assert names(tmp_path / "out") == ["a.bmp.png", "a.jpg.png", "a.png.png", "b.png"]


def test_one_bad_picture_does_not_stop_the_rest(
    pictures: Path, tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "c.jpg", "d.jpg"):
        Image.open(pictures / "wide.jpg").save(source / name)
    (source / "b.jpg").write_text("a letter")
    whole = (source / "d.jpg").read_bytes()
    (source / "d.jpg").write_bytes(whole[: len(whole) // 2])
    assert predict(tiny_run, f"input={source}", f"output={tmp_path}/out", "batch_size=2") == 1
    assert names(tmp_path / "out") == ["a.png", "c.png"]
    out, err = capfd.readouterr()
    assert "2 of 4" in out
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 2
    assert "b.jpg" in lines[0]
    assert "d.jpg" in lines[1]


def test_a_thin_picture(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    Image.open(pictures / "wide.jpg").resize((1, 40)).save(tmp_path / "thin.png")
    assert predict(tiny_run, f"input={tmp_path}/thin.png", f"output={tmp_path}/out") == 0
    assert Image.open(tmp_path / "out" / "thin.png").size == (1, 40)


def test_nothing_is_overwritten(
    pictures: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(pictures / "wide.jpg").save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    for output in (tmp_path, tmp_path / "a.png", tmp_path / "." / ".." / tmp_path.name):
        assert predict(tiny_run, f"input={tmp_path}/a.png", f"output={output}") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "overwrite" in line
    assert (tmp_path / "a.png").read_bytes() == before


def test_outputs_that_cannot_be(
    pictures: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/one.png") == 2
    assert "name a folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/file") == 2
    assert "is a file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert predict(tiny_run, f"input={tmp_path}/empty", f"output={tmp_path}/out") == 2
    assert "no picture" in capsys.readouterr().err
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/file/below") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("could not be written" in line for line in lines)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything may be read")
def test_a_picture_that_may_not_be_read(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    Image.open(pictures / "wide.jpg").save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").chmod(0)
    assert predict(tiny_run, f"input={tmp_path}/a.jpg", f"output={tmp_path}/out") == 1


@pytest.mark.slow
def test_another_size_of_the_network_s_input(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    found = []
    for size in (64, 96):
        assert (
            predict(tiny_run, f"input={pictures}/wide.jpg", f"output={tmp_path}/{size}.png", f"image_size={size}") == 0
        )
        found.append(np.asarray(Image.open(tmp_path / f"{size}.png")))
    assert predict(tiny_run, f"input={pictures}/wide.jpg", f"output={tmp_path}/own.png") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "own.png")), found[0])
    assert not np.array_equal(*found)


def test_the_predictor_gives_what_the_command_saves(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    predictor = Predictor(tiny_run / "checkpoints" / "best.ckpt")
    for name in ("wide", "turned"):
        assert predict(tiny_run, f"input={pictures}/{name}.jpg", f"output={tmp_path}/{name}.png") == 0
        assert np.array_equal(predictor(pictures / f"{name}.jpg"), np.asarray(Image.open(tmp_path / f"{name}.png")))
    image = np.asarray(Image.open(pictures / "wide.jpg"))
    both = predictor.batch([image, image[:, ::-1].copy()])
    assert [one.shape for one in both] == [(50, 80), (50, 80)]
    assert np.abs(both[0].astype(int) - predictor(image)).max() <= 1
    assert predictor.batch([]) == []


def test_the_predictor_names_what_it_cannot_take(tiny_run: Path) -> None:
    predictor = Predictor(tiny_run / "checkpoints" / "best.ckpt")
    with pytest.raises(ValueError, match=r"not \(5, 7, 2\) of uint8"):
        predictor(np.zeros((5, 7, 2), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        predictor(np.zeros((5, 7, 3)))
    with pytest.raises(ValueError, match="at least 32"):
        Predictor(tiny_run / "checkpoints" / "best.ckpt", image_size=8)
