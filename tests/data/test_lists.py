"""List files in every form that people write: encodings, line ends, columns, quotes, comments, strange names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qefpn.data.files import Tree
from qefpn.data.layouts import Pair, Pairs
from qefpn.data.lists import apply_list, read_list
from qefpn.errors import UserError

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def pairs_of(*names: str) -> Pairs:
    return Pairs(
        Path("set"), "images/masks", tuple(Pair(n, f"set/images/{n}.jpg", f"set/masks/{n}.png") for n in sorted(names))
    )


def cut(pairs: Pairs, data: bytes, folder: Path) -> Pairs:
    (folder / "list.txt").write_bytes(data)
    listed = read_list(Tree(folder, (), ("list.txt",)), "", "list.txt", None)
    assert listed is not None
    return apply_list(pairs, *listed, required=True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str, last: bool) -> None:
    names = ["Müller é", "b", "#1"]
    text = end.join(names) + (end if last else "")
    found = cut(pairs_of(*names, "other"), text.encode(encoding), tmp_path)
    assert {pair.name for pair in found} == set(names) and not found.missing and found.unlisted == 1


@pytest.mark.parametrize(
    ("text", "wanted", "missing"),
    [
        ("#1\na\n", {"#1", "a"}, []),
        ("# a comment\n#a\na\n", {"a"}, []),
        ('"images/a.jpg","masks/a.png"\n"images/#1.jpg","masks/#1.png"\n', {"a", "#1"}, []),
        ("image,mask\nimages/a.jpg,masks/a.png\n", {"a"}, []),
        ("image,mask,split\nimages/a.jpg,masks/a.png,train\n", {"a"}, []),
        ("x.jpg\nx\n", {"x", "x.jpg"}, []),
        ("x.jpg.jpg\nx.jpg\n", {"x", "x.jpg"}, []),
        ("images/my dog.jpg masks/my dog.png\n", {"my dog"}, []),
        ("images/my dog.jpg\tmasks/my dog.png\n", {"my dog"}, []),
        ("masks/my dog.png images/my dog.jpg\n", {"my dog"}, []),
        ("my dog\nmy cat\n", {"my dog"}, ["my cat"]),
        ("/far/away/DUTS/images/a.jpg /far/away/DUTS/masks/a.png\n", {"a"}, []),
        ("C:\\data\\images\\a.jpg\n./images/b,c.jpg\n", {"a", "b,c"}, []),
        ("a 1\nb,c -1\nmy dog 0.5\n", {"a", "b,c", "my dog"}, []),
        ("images/a.jpg masks/x.png\nb,c\n", {"b,c"}, ["images/a.jpg masks/x.png"]),
        ("b\nmy\na\n", {"a"}, ["b", "my"]),
        ('say "hi"\n', {'say "hi"'}, []),
        ('"say ""hi""",0\n', {'say "hi"'}, []),
        ("A\n", {"a"}, []),
        ("train/p\ntest/q\n", {"train/p", "test/q"}, []),
        ("test/p\na\n", {"a"}, ["test/p"]),
        ("p\nq\n", {"test/q"}, ["p"]),  # two pictures are called p
    ],
)
def test_forms(tmp_path: Path, text: str, wanted: set[str], missing: list[str]) -> None:
    names = ["#1", "a", "x", "x.jpg", "my dog", "b,c", 'say "hi"', "train/p", "test/q", "val/p"]
    found = cut(pairs_of(*names), text.encode(), tmp_path)
    assert {pair.name for pair in found} == wanted
    assert list(found.missing) == missing
    assert found.unlisted == len(names) - len(wanted)


def test_a_list_of_nothing_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"# a\n", b"zzz\n", b"\n\r\n"):
        with pytest.raises(UserError, match=r"list.txt names no picture"):
            cut(pairs_of("a"), data, tmp_path)
    with pytest.raises(UserError, match=r"list.txt is no text"):
        cut(pairs_of("a"), b"a\0\0\n", tmp_path)


NAMES = st.lists(
    st.text(
        st.characters(exclude_characters='/\\\r\n\0"', exclude_categories=("Cs", "Cc")), min_size=1, max_size=8
    ).filter(lambda text: text.strip() == text and text.strip(".") == text),
    min_size=1,
    max_size=12,
    unique_by=lambda text: text.casefold(),
)


def _quoted(cells: list[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    return stream.getvalue()


FORMS = {
    "files": lambda name: f"{name}.jpg",
    "paths": lambda name: f"images/{name}.jpg",
    "tabs": lambda name: f"images/{name}.jpg\tmasks/{name}.png",
    "blanks": lambda name: f"images/{name}.jpg masks/{name}.png",
    "commas": lambda name: f"images/{name}.jpg,masks/{name}.png",
    "quotes": lambda name: _quoted([f"images/{name}.jpg", f"masks/{name}.png"]),
}


@MANY
@given(
    NAMES, st.sampled_from(sorted(FORMS)), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n", "\r"]), st.data(),
)  # fmt: skip
def test_any_names_in_any_form(tmp_path_factory, names, form, encoding, end, data) -> None:
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    text = end.join(FORMS[form](name) for name in wanted)
    found = cut(pairs_of(*names), text.encode(encoding), tmp_path_factory.mktemp("l"))
    assert {pair.name for pair in found} == set(wanted) and not found.missing


@MANY
@given(NAMES, st.binary(max_size=80) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_text(tmp_path_factory, names: list[str], data: bytes) -> None:
    """Every line is a picture's, a comment, or named as missing; what is refused is refused in one line."""
    pairs = pairs_of(*names)
    try:
        found = cut(pairs, data, tmp_path_factory.mktemp("l"))
    except UserError as error:
        assert "\n" not in str(error) and "list.txt" in str(error)
        return
    assert {pair.name for pair in found} <= set(names) and len(found) + found.unlisted == len(names)
    assert len(found) >= 1
