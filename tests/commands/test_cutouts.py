"""Cut-outs: soft edges, the object's own colours, what is laid behind, and several outputs at once."""

from __future__ import annotations

import io
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import picture
from tests.data.test_colour import swapped

from qefpn import Predictor
from qefpn.cli import main
from qefpn.data.reading import Layers
from qefpn.errors import UserError
from qefpn.inference import cutout
from qefpn.inference.cutout import background_named, laid_on, matte, parted
from qefpn.inference.output import Rendering

RED, SIDE = np.array([200, 30, 40], np.uint8), 96


def disc(softness: float = 6.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A red disc with a soft edge: (composite, colours of the object, of the background, alpha)."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(rows - SIDE / 2, columns - SIDE / 2)
    alpha = np.clip((28 - distance) / softness + 0.5, 0, 1)
    alpha = (alpha * 255).round().astype(np.uint8)
    front = np.broadcast_to(RED, (SIDE, SIDE, 3)) - (rows // 4)[..., None].astype(np.uint8)
    back = np.dstack([40 + columns, 120 + rows // 2, np.full_like(rows, 220)]).astype(np.uint8)
    return laid_on(front, alpha, back), front, back, alpha


def error(found: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(found.astype(float) - true)[where].mean())


def test_colours_of_a_soft_edge_are_those_of_the_object() -> None:
    composite, front, back, alpha = disc()
    found, behind = parted(composite, alpha)
    soft = (alpha > 40) & (alpha < 215)
    assert error(composite, front, soft) > 40  # the old background shows
    assert error(found, front, soft) < 8
    assert error(behind, back, soft) < 16
    assert np.array_equal(found[alpha == 255], composite[alpha == 255])
    assert np.array_equal(behind[alpha == 0], composite[alpha == 0])


@pytest.mark.parametrize("limit", [10**9, SIDE * SIDE // 4])
def test_large_pictures_are_worked_on_at_a_smaller_size(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout, "COLOUR_PIXELS", limit)
    monkeypatch.setattr(cutout, "MATTING_PIXELS", limit)
    composite, front, _, alpha = disc()
    assert error(parted(composite, alpha)[0], front, (alpha > 100) & (alpha < 255)) < 8
    found = matte(composite, cv2.GaussianBlur(alpha, (0, 0), 4))
    assert found.shape == alpha.shape and found.dtype == np.uint8
    assert error(found, alpha, alpha >= 0) < 4


def test_the_matte_is_nearer_to_the_truth_than_a_blurred_map() -> None:
    composite, _, _, alpha = disc(softness=1.0)
    blurred = cv2.GaussianBlur(alpha, (0, 0), 4)
    everywhere = alpha >= 0
    assert error(matte(composite, blurred), alpha, everywhere) < 0.2 * error(blurred, alpha, everywhere)


def test_a_map_without_object_or_background_is_its_own_matte() -> None:
    composite = disc()[0]
    for level in (0, 128, 255):
        flat = np.full((SIDE, SIDE), level, np.uint8)
        assert matte(composite, flat) is flat
    assert matte(composite[:1, :1], np.full((1, 1), 255, np.uint8)).tolist() == [[255]]


def test_no_halo_on_another_background() -> None:
    composite, front, _, alpha = disc()
    green = np.broadcast_to(np.array([0, 160, 60], np.uint8), composite.shape)
    layers, soft = Layers(composite), (alpha > 40) & (alpha < 215)
    true = laid_on(front, alpha, green)
    plain, mended = (
        Rendering(("background",), matting=matting, background=background_named("#00a03c"))(layers, alpha)["background"]
        for matting in (False, True)
    )
    assert error(mended.picture, true, soft) < 0.5 * error(plain.picture, true, soft)
    assert np.array_equal(mended.picture[alpha == 0][0], [0, 160, 60])


def test_transparency_and_colours_that_were_there_are_kept() -> None:
    """Under its own alpha a picture holds the object's colours: nothing is to be estimated."""
    composite, _, _, alpha = disc()
    own = np.tile(np.arange(SIDE, dtype=np.uint8) * 2, (SIDE, 1))
    made = Rendering(("rgba",))(Layers(composite, own), alpha)["rgba"].picture
    assert np.array_equal(made[..., :3], composite)
    assert (made[..., 3] <= own).all() and made[SIDE // 2, SIDE // 2, 3] == own[SIDE // 2, SIDE // 2]


@pytest.mark.parametrize(("suffix", "exact"), [(".png", True), (".webp", True), (".tif", True), (".jp2", False)])
def test_a_colour_profile_is_kept_where_the_format_can_hold_it(suffix: str, exact: bool) -> None:
    composite, _, _, alpha = disc()
    profile = swapped()  # which holds the time of its making
    layers = Layers(composite[..., ::-1].copy(), None, composite, profile)
    data = Rendering(("rgba",))(layers, alpha)["rgba"].encoded(suffix)
    saved = Image.open(io.BytesIO(data))
    assert (saved.info.get("icc_profile") == profile) is exact
    kept = np.asarray(saved.convert("RGBA"))
    inside = kept[..., 3] == 255
    assert inside.mean() > 0.1
    assert np.array_equal(kept[..., :3][inside], (layers.own if exact else layers.colours)[inside])
    on_blue = Rendering(("background",), background=background_named("#00f"))(layers, alpha)["background"]
    assert on_blue.own is None  # sRGB, as the colour
    assert np.array_equal(on_blue.picture[inside], layers.colours[inside])


def test_what_is_laid_behind(tmp_path: Path) -> None:
    composite, _, back, alpha = disc()
    for given, colour in (("#123", (17, 34, 51)), ("#A0b0C0", (160, 176, 192))):
        assert np.array_equal(background_named(given)(back, alpha)[0, 0], colour)
    Image.fromarray(picture(5, 30, 90)).save(tmp_path / "é #1.png")
    filled = background_named(f"{tmp_path}/é #1.png")(back, alpha)
    assert filled.shape == composite.shape
    middle = np.asarray(Image.fromarray(picture(5, 30, 90)).crop((30, 0, 60, 30)).resize((SIDE, SIDE)), float)
    assert np.abs(filled - middle).mean() < 12  # the middle third, enlarged
    blurred = background_named("blur")(parted(composite, alpha)[1], alpha)
    assert error(blurred, back, alpha == 0) < 6  # smooth already
    assert error(blurred, back, alpha == 255) < 60  # no red
    (tmp_path / "letter.png").write_text("a letter")
    for wrong, said in (
        ("#12", "is no colour"),
        ("red", "not blur, and no picture is there"),
        (f"{tmp_path}/letter.png", "cannot read"),
        (f"{tmp_path}", "no picture is there"),
    ):
        with pytest.raises(UserError, match=said):
            background_named(wrong)


# ---------------------------------------------------------------------- the command


def predict(run: Path, *more: str) -> int:
    return main(["predict", f"checkpoint={run}/checkpoints/best.ckpt", "image_size=32", *more])


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QEFPN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    for number in range(2):
        Image.fromarray(picture(number, 40, 56)).save(tmp_path / "in" / f"{number}.jpg")
    return tmp_path / "in"


def test_several_outputs_at_once(
    pictures: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    kinds = ["map", "binary", "rgba", "overlay", "edges", "background"]
    given = [f"output_type=[{','.join(kinds)}]", "background=#fff", f"input={pictures}", f"output={out}"]
    assert predict(tiny_run, *given) == 0
    expected = [f"{kind}/{number}.png" for kind in sorted(kinds) for number in range(2)]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == expected
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/one") == 0
    assert (out / "map" / "0.png").read_bytes() == (tmp_path / "one" / "0.png").read_bytes()
    (out / "rgba" / "1.png").unlink()
    assert predict(tiny_run, *given) == 0  # one of its results is missing: it is made again
    assert "(1 of them from an earlier run)" in capsys.readouterr().out
    assert (out / "rgba" / "1.png").exists()
    assert predict(tiny_run, *given[:1], "background=#eee", *given[2:]) == 0
    assert "earlier run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["output_type=mapp"], "not 'mapp' (did you mean map?)"),
        (["output_type=[]"], "output_type must be one of"),
        (["output_type=[map,map]"], "names one twice"),
        (["output_type=[map,rgba]", "output=a.png"], "is one file, but output_type names 2: name a folder"),
        (["output_type=background"], "give background=#rrggbb, blur or a picture"),
        (["background=blur"], "add output_type=background"),
        (["output_type=background", "background=beach"], "background=beach is no colour"),
        (["threshold=1.5"], "threshold must be in [0, 1], or otsu, not 1.5"),
        (["threshold=high"], "threshold must be in [0, 1], or otsu, not high"),
        (["matting=maybe"], "matting must be true or false"),
        (["flip=2"], "flip must be true or false"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    given: list[str],
    said: str,
    pictures: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    output = [] if any(word.startswith("output=") for word in given) else ["output=out"]
    assert predict(tiny_run, f"input={pictures}/0.jpg", *output, *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_otsu_s_threshold_is_scikit_image_s(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    filters = pytest.importorskip("skimage.filters")
    given = [f"input={pictures}/0.jpg", f"output={tmp_path}/out", "output_type=[map,binary]", "threshold=otsu"]
    assert predict(tiny_run, *given) == 0
    saliency, mask = (np.asarray(Image.open(tmp_path / "out" / kind / "0.png")) for kind in ("map", "binary"))
    assert np.array_equal(mask == 255, saliency > filters.threshold_otsu(saliency))
    assert 0 < (mask == 255).mean() < 1


def test_flipping_makes_the_map_a_mirror_s_mirror(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    checkpoint = tiny_run / "checkpoints" / "best.ckpt"
    image = np.asarray(Image.open(pictures / "0.jpg"))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    plain, flipping = (Predictor(checkpoint, image_size=32, flip=flip) for flip in (False, True))
    assert np.abs(plain(mirrored)[:, ::-1].astype(int) - plain(image)).max() > 1
    assert np.abs(flipping(mirrored)[:, ::-1].astype(int) - flipping(image)).max() <= 1
    assert predict(tiny_run, f"input={pictures}/0.jpg", f"output={tmp_path}/a.png", "flip=true") == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), flipping(pictures / "0.jpg"))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 40), (40, 1), (2, 40), (3, 3)])
def test_the_smallest_pictures_are_cut_out(size: tuple[int, int]) -> None:
    place = np.arange(size[0] * size[1]).reshape(size) / (size[0] * size[1])
    saliency = np.where(place < 0.5, 255, 0).astype(np.uint8)
    colours = np.dstack([saliency, 255 - saliency, saliency])
    alpha = matte(colours, saliency)
    assert (alpha == saliency).all()
    front, back = parted(colours, alpha)
    assert (laid_on(front, alpha, back) == colours).all()


def test_a_strip_is_cut_out_in_time() -> None:
    for size in ((20_000, 3), (3, 20_000)):
        saliency = np.zeros(size, np.uint8)
        saliency[: size[0] // 2, : size[1] // 2 + 1] = 255
        begun = time.monotonic()
        alpha = matte(np.dstack([saliency] * 3), saliency)
        assert time.monotonic() - begun < 5  # it was 15 s
        assert np.abs(alpha.astype(int) - saliency).mean() < 10


def test_strips_are_seamless(monkeypatch: pytest.MonkeyPatch) -> None:
    composite, _, _, alpha = disc()
    kinds = ("edges", "overlay", "background")
    render = Rendering(kinds, background=background_named("#00a03c"))
    whole = render(Layers(composite), alpha)
    for pixels in (1, 3 * SIDE, 7 * SIDE + 5):
        monkeypatch.setattr(cutout, "STRIP_PIXELS", pixels)
        strips = render(Layers(composite), alpha)
        for kind in kinds:
            assert np.array_equal(strips[kind].picture, whole[kind].picture), (pixels, kind)
