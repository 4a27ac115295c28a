"""The endpoints, without a socket."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.serving.photographs import PAYLOAD, no_pictures, odd_pictures, photograph

from qefpn import QEFPN, Predictor
from qefpn.commands.serve import about
from qefpn.inference.output import OUTPUT_TYPES
from qefpn.models.packed import network_file
from qefpn.serving import application as served
from qefpn.serving.application import SOLVER_HEADERS, Terms, application
from qefpn.serving.guard import HEADERS
from qefpn.serving.work import Answer, Asked, Studio

MAP = "/api/predict?output_type=map"
ABOUT = about(network_file(None))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor()


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    app = application(Studio(predictor, max_megapixels=4), ABOUT, Terms(max_bytes=1_000_000))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as made:
        yield made


def sent(client: Any, data: bytes, path: str = MAP, name: str = "photo.jpg", **options: Any) -> Any:
    return client.post(path, files={"file": (name, data, "image/jpeg")}, **options)


def picture(answer: Any) -> Image.Image:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    return image


def refused(answer: Any, *statuses: int) -> str:
    """The one line of JSON that says why."""
    assert answer.status_code in (statuses or range(400, 500)), (answer.status_code, answer.text)
    assert set(answer.json()) == {"error"} and len(answer.text.splitlines()) == 1
    return str(answer.json()["error"])


def test_the_map_is_the_predictor_s(client: TestClient, predictor: Predictor) -> None:
    for data in (photograph(), photograph(90, 300, "PNG"), photograph(301, 33, "WEBP")):
        answer = sent(client, data)
        assert (np.asarray(picture(answer)) == predictor(data)).all()
        assert int(answer.headers["X-Solver-Steps"]) == 4
        assert 0 < float(answer.headers["X-Solver-Relative-Residual"]) < 1
        assert answer.headers["X-Solver-Converged"] in ("true", "false")


@pytest.mark.parametrize("kind", OUTPUT_TYPES)
def test_every_output(client: TestClient, kind: str) -> None:
    more = "&background=%2300ff00" if kind == "background" else ""
    image = picture(sent(client, photograph(), f"/api/predict?output_type={kind}{more}"))
    modes = {"map": "L", "binary": "L", "edges": "L", "rgba": "RGBA", "overlay": "RGB", "background": "RGB"}
    assert (image.size, image.mode) == ((200, 150), modes[kind])
    if kind == "background":
        assert image.getpixel((2, 2)) == (0, 255, 0)
    if kind == "rgba":
        assert image.getpixel((2, 2))[3] == 0 and image.getpixel((90, 75))[3] == 255  # type: ignore[index]


def test_options(client: TestClient) -> None:
    binary = "/api/predict?output_type=binary&threshold="
    assert (np.asarray(picture(sent(client, photograph(), binary + "0"))) == 255).all()
    assert set(np.unique(np.asarray(picture(sent(client, photograph(), binary + "otsu"))))) == {0, 255}
    blurred = picture(sent(client, photograph(), "/api/predict?output_type=background&background=blur"))
    assert np.abs(np.subtract(blurred.getpixel((90, 75)), (230, 180, 60))).max() <= 8  # type: ignore[arg-type]
    hard = picture(sent(client, photograph(), "/api/predict?output_type=rgba&matting=false"))
    mapped = picture(sent(client, photograph()))
    assert (np.asarray(hard)[:, :, 3] == np.asarray(mapped)).all()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("output_type=mask", "output_type must be one of map"),
        ("output_type=", "output_type"),
        ("threshold=2", "threshold"),
        ("threshold=nan", "threshold"),
        ("threshold=high", "threshold"),
        ("matting=yes", "matting"),
        ("outputtype=map", "output_type"),
        ("output_type=background", "background"),
        ("background=blur", "background"),
        ("output_type=background&background=%23ggg", "background"),
        ("output_type=background&background=/etc/passwd", "background"),
        ("output_type=background&background=https://example.org/a.png", "background"),
        ("url=http://127.0.0.1/x.png", "url"),
        ("a%0d%0ab=1", "there is no"),
    ],
)
def test_a_mistake_in_the_query_is_one_line(client: TestClient, query: str, said: str) -> None:
    assert said in refused(sent(client, photograph(), f"/api/predict?{query}"), 422)


@pytest.mark.parametrize("name", no_pictures())
def test_what_is_no_picture_is_refused(client: TestClient, name: str) -> None:
    said = refused(sent(client, no_pictures()[name]))
    assert "/" not in said.replace("cannot read the picture", "").split(":")[0]


@pytest.mark.parametrize("name", odd_pictures())
@pytest.mark.parametrize("kind", ["map", "rgba", "edges", "overlay"])
def test_nothing_but_pixels_comes_out(client: TestClient, name: str, kind: str) -> None:
    answer = sent(client, odd_pictures()[name], f"/api/predict?output_type={kind}")
    if answer.status_code == 200:
        picture(answer)
        assert PAYLOAD not in answer.content and b"script" not in answer.content
    else:
        refused(answer)


def test_large_ones_are_refused(client: TestClient) -> None:
    assert "5 megapixels are more than 4" in refused(sent(client, photograph(2500, 2000)), 422)
    told = client.post(MAP, content=b"x", headers={"content-length": "2000000"})
    assert "1 MB" in refused(told, 413)
    assert "1 MB" in refused(sent(client, bytes(1_200_000)), 413)

    def endless() -> Iterator[bytes]:  # no length is told
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield bytes(50_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert "1 MB" in refused(client.post(MAP, content=endless(), headers=headers), 413)


def test_forms_that_are_none(client: TestClient) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="file"'
    assert "multipart" in refused(client.post(MAP, content=photograph(), headers={"content-type": "image/jpeg"}), 415)
    assert "multipart" in refused(client.post(MAP), 415)
    assert "multipart" in refused(client.post(MAP, data={"file": "x"}), 415)
    assert "'file'" in refused(client.post(MAP, files={"picture": photograph()}), 400)
    assert "'file'" in refused(client.post(MAP, files={"x": ("a", b"")}, data={"file": "/etc/passwd"}), 400)
    assert refused(client.post(MAP, files=[("file", b"a"), ("file", b"b")]), 400)
    assert refused(client.post(MAP, files={"file": b"a"}, data={str(i): "x" for i in range(50)}), 400)
    for body in (
        b"",
        b"nothing",
        part,
        part + b"\r\n\r\nabc",
        part + b'; filename="a\r\n\r\n',
        b"--b--\r\n",
        b"--b" * 999,
    ):
        assert refused(client.post(MAP, content=body, headers=kind), 400, 422)
    assert refused(client.post(MAP, content=b"", headers={"content-type": "multipart/form-data"}), 400)
    long = part + b"\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\nabc\r\n--b--\r\n"
    assert refused(client.post(MAP, content=long, headers=kind), 400, 422)
    assert refused(
        client.post(MAP, content=part + b"; x=" + b"a" * 300_000 + b"\r\n\r\nabc\r\n--b--\r\n", headers=kind)
    )


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\a.png", "a\0.png", "x" * 500, "é 字", "$(id).jpg", "%2e%2e"])
def test_the_file_s_name_is_nothing(client: TestClient, name: str) -> None:
    assert picture(sent(client, photograph(), name=name)).size == (200, 150)


def test_only_its_own_names_and_pages(client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8000", "[::2]", ""):
        assert client.get("/api/health", headers={"host": host}).status_code == 400, host
    for host in ("localhost", "127.0.0.1:8000", "LOCALHOST:1"):
        assert client.get("/api/health", headers={"host": host}).status_code == 200, host
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "file://"):
        answer = sent(client, photograph(), headers={"origin": origin})
        assert "cors" in refused(answer, 403)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert sent(client, photograph(), headers={"origin": "http://127.0.0.1"}).status_code == 200


def test_pages_that_are_named_may_use_it(predictor: Predictor) -> None:
    app = application(Studio(predictor, 4), ABOUT, Terms(cors=("https://friend.example",)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = sent(client, photograph(), headers={"origin": "https://friend.example"})
        assert picture(answer) and answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert "X-Solver-Steps" in answer.headers["access-control-expose-headers"]
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "cors" in refused(sent(client, photograph(), headers={"origin": "https://evil.example"}), 403)


def test_every_answer_has_its_headers(client: TestClient) -> None:
    answers = [client.get(path) for path in ("/", "/page.css", "/page.js", "/engine.js", "/api/health", "/nowhere")]
    answers += [client.get(MAP), sent(client, b"x"), sent(client, photograph()), sent(client, bytes(1_200_000))]
    answers += [client.get("/", headers={"host": "evil.example"})]
    assert [one.status_code for one in answers] == [200] * 5 + [404, 405, 422, 200, 413, 400]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert refused(answers[5]) == "Not Found" and refused(answers[6]) == "Method Not Allowed"


def test_the_page_takes_nothing_from_elsewhere(client: TestClient) -> None:
    for path in served.PAGE:
        text = client.get(path).text
        assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text, path
    assert client.head("/").status_code == 200


def test_health_readiness_and_licence(client: TestClient) -> None:
    assert client.get("/api/health").json() == {"status": "ok"}
    sent(client, photograph())  # behind the first one, which is that of the warm-up
    assert client.get("/api/ready").json() == {"ready": True, "waiting": 0, "places": 16}
    told = client.get("/api/licence").json()
    assert told["network"] == "mobile" and "DUTS" in told["data"] and "academic" in told["licence"]


def test_a_network_without_a_solver_tells_of_none(client: TestClient) -> None:
    network = QEFPN(backbone="resnet18", channels=8, expansion=1, pyramid="none", decoder_passes=1).eval()
    predictor: Any = SimpleNamespace(network=network, image_size=64, device="cpu")
    answer = Studio(predictor, 4)(photograph(), Asked.of_query({}))
    assert (answer.steps, answer.residual) == (None, None) and answer.png.startswith(b"\x89PNG")
    assert not set(SOLVER_HEADERS) & set(served._told(answer, Asked.of_query({})))


class Slow:
    """Work that ends when it is let go."""

    def __init__(self) -> None:
        self.go, self.begun, self.done = threading.Event(), threading.Semaphore(0), 0

    def warm_up(self) -> None:
        return None

    def __call__(self, data: bytes, asked: object) -> Answer:
        if data == b"fault":
            raise RuntimeError("/secret/path")
        self.begun.release()
        assert self.go.wait(30)
        self.done += 1
        return Answer(b"png")


def test_a_full_queue_sends_away_and_loses_nobody() -> None:
    slow = Slow()
    with (
        TestClient(application(slow, ABOUT, Terms(queue=3)), base_url="http://127.0.0.1") as client,  # type: ignore[arg-type]
        ThreadPoolExecutor(3) as pool,
    ):
        waiting = [pool.submit(sent, client, b"x") for _ in range(3)]
        assert slow.begun.acquire(timeout=30)
        while client.get("/api/ready").json()["waiting"] < 3:
            pass
        answer = sent(client, b"x")  # the loop answers, while the thread is at work
        assert "try again" in refused(answer, 503) and 1 <= int(answer.headers["Retry-After"]) <= 30
        slow.go.set()
        assert [one.result().status_code for one in waiting] == [200] * 3
        assert sent(client, b"x").status_code == 200 and slow.done == 4
        assert client.get("/api/ready").json()["waiting"] == 0


def test_a_fault_of_ours_says_nothing_of_the_machine() -> None:
    app = application(Slow(), ABOUT, Terms(queue=1))  # type: ignore[arg-type]
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for _ in range(3):  # its place is free again
            assert "secret" not in refused(sent(client, b"fault"), 500)


def test_a_photograph_that_does_not_arrive_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "UPLOAD_SECONDS", 0.05)
    app = application(Slow(), ABOUT, Terms(queue=1))  # type: ignore[arg-type]
    blocked = threading.Event()

    def dripping() -> Iterator[bytes]:
        yield b"--b\r\n"
        blocked.wait(0.3)
        yield b"--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert refused(client.post(MAP, content=dripping(), headers=headers), 400, 408)
        assert client.get("/api/ready").json()["waiting"] == 0


def test_nobody_s_network_says_so() -> None:
    told = about(network_file("RUN/checkpoints/best.ckpt"))
    assert told == {"code": "MIT", "network": None, "data": None, "licence": None}
