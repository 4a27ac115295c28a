"""`qefpn serve` as a process: how it starts and ends, many clients, hostile ones."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from tests.serving.conftest import serving
from tests.serving.photographs import PAYLOAD, no_pictures, odd_pictures, photograph

from qefpn import Predictor
from qefpn.cli import main
from qefpn.serving.server import HEADER_BYTES, address_of, listening, own_names

CLIENTS, REQUESTS = 16, 200
PATIENCE = 300.0
Server = tuple[subprocess.Popen[str], str]


def test_mistakes_are_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = [
            ([f"port={port}"], f"port={port} is in use"),
            (["port=70000"], "port must be from 0"),
            (["port=-1"], "port must be from 0"),
            (["port=http"], "port must be a whole number"),
            (["port=0", "host=nowhere.invalid"], "host=nowhere.invalid: no such name"),
            (["port=0", "host=192.0.2.1"], "host=192.0.2.1: cannot be listened on"),
            (["port=0", f"host={'a' * 80}.x"], "no such name"),
            (["port=0", f"checkpoint={tmp_path / 'gone.ckpt'}"], "gone.ckpt"),
            (["port=0", "queue=0"], "queue must be at least 1"),
            (["port=0", "max_megabytes=0"], "max_megabytes must be positive"),
            (["port=0", "max_megapixels=-1"], "max_megapixels must be positive"),
            (["port=0", "hosts=example.org"], "hosts must be a list"),
            (["port=0", "hosts=[http://example.org]"], "hosts"),
            (["port=0", "device=warp"], "device=warp"),
            (["prot=1"], "port"),
        ]
        for words, said in cases:
            assert main(["serve", *words]) == 2, words
            out, err = capfd.readouterr()
            assert (len(err.splitlines()), out) == (1, ""), (words, err)
            assert said in err, (words, err)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "python_multipart" else found(name))
    assert main(["serve", "port=0"]) == 2
    assert "python-multipart: pip install 'qefpn[serve]'" in capfd.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    assert "max_megapixels: 50.0" in capsys.readouterr().out


def test_names_and_addresses() -> None:
    assert own_names("127.0.0.1") == ("localhost", "127.0.0.1", "[::1]")
    assert "[fe80::1]" in own_names("fe80::1") and socket.gethostname().lower() in own_names("0.0.0.0")
    with listening("0.0.0.0", 0) as made:
        assert address_of(made) == f"http://127.0.0.1:{made.getsockname()[1]}"


def send(client: httpx.Client, address: str, data: bytes, query: str = "output_type=map", name: str = "a.jpg") -> Any:
    """The answer, after as many tries as the server asks for."""
    until = time.monotonic() + PATIENCE
    while True:
        answer = client.post(f"{address}/api/predict?{query}", files={"file": (name, data)}, timeout=PATIENCE)
        if answer.status_code != 503 or time.monotonic() > until:
            return answer
        time.sleep(float(answer.headers["Retry-After"]) / 4)


@pytest.mark.slow
def test_cutting_out_leaves_torch_its_threads() -> None:
    """Two threads that wait for each other on one core take 50 times as long for a map."""
    code = """
import torch
from qefpn import Predictor
from qefpn.serving.work import Studio
Studio(Predictor(), 4).warm_up()
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_many_clients_lose_nothing_and_memory_stays(server: Server) -> None:
    process, address = server
    sizes = [(480, 640), (300, 400), (768, 1024), (150, 900)]
    photographs = [photograph(*size) for size in sizes]
    predictor = Predictor()
    maps = [predictor(data) for data in photographs]
    memory: list[int] = []

    def work(number: int) -> tuple[int, bool]:
        with httpx.Client() as client:
            kind = "rgba" if number % 20 == 3 else "map"
            answer = send(client, address, photographs[number % 4], f"output_type={kind}")
        memory.append(psutil.Process(process.pid).memory_info().rss)
        made = np.asarray(Image.open(io.BytesIO(answer.content)))
        same = made.shape == (*sizes[number % 4], 4) if kind == "rgba" else (made == maps[number % 4]).mean() > 0.999
        return answer.status_code, bool(same)

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = list(pool.map(work, range(REQUESTS)))
    assert done == [(200, True)] * REQUESTS
    early, late = max(memory[REQUESTS // 4 : REQUESTS // 2]), max(memory[-REQUESTS // 4 :])
    print(f"memory {early / 1e6:.0f} MB after {REQUESTS // 2} requests, {late / 1e6:.0f} MB after {REQUESTS}")
    assert late < early + 50e6
    assert httpx.get(f"{address}/api/ready").json() == {"ready": True, "waiting": 0, "places": 12}


def raw(address: str, request: bytes) -> bytes:
    """What comes back for bytes that no client would send."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        back = b""
        while part := connection.recv(65536):
            back += part
    return back


def requests_of_no_client() -> dict[str, bytes]:
    head = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    form = head + b"Content-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return {
        "huge header": head + b"X: " + b"a" * 4 * HEADER_BYTES + b"\r\n\r\n",
        "many headers": head + b"".join(b"X-%d: a\r\n" % i for i in range(5000)) + b"\r\n",
        "no request": b"\0" * 500,
        "a request of TLS": b"\x16\x03\x01\x02\x00\x01\x00" + bytes(100),
        "two lengths": form + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nabcde",
        "a length and chunks": form + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "a length below zero": form + b"Content-Length: -5\r\n\r\n",
        "a length that is none": form + b"Content-Length: lots\r\n\r\n",
        "a length of gigabytes": form + b"Content-Length: 99999999999\r\n\r\n",
        "a length of many digits": form + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        "a bad chunk": form + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        "less than was told": form + b"Content-Length: 9999\r\n\r\n" + part + b"abc",
        "no host": b"POST /api/predict HTTP/1.1\r\n\r\n",
        "another host": b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        "out of the folder": b"GET /../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        "out of the folder, encoded": b"GET /%2e%2e/..%2fetc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "another address": b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n",
        "a method of its own": b"SPY /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    }


@pytest.mark.slow
def test_hostile_uploads_get_nothing(server: Server) -> None:
    process, address = server
    count = 0
    with httpx.Client() as client:
        for name, data in no_pictures().items():
            answer = send(client, address, data, "output_type=rgba", name=f"../{name}.png")
            assert 400 <= answer.status_code < 500 and set(answer.json()) == {"error"}, (name, answer.text)
            assert "qefpn/" not in answer.text and "/tmp" not in answer.text and "site-packages" not in answer.text
            count += 1
        for name, data in odd_pictures().items():
            answer = send(client, address, data, "output_type=rgba")
            assert answer.status_code in (200, 422) and PAYLOAD not in answer.content, (name, answer.status_code)
            count += 1
    for name, request in requests_of_no_client().items():
        back = raw(address, request)
        status = back.split(b" ")[1] if back else b"400"  # it hung up
        assert status[:1] == b"4", (name, back[:300])
        count += 1
    assert count >= 60
    with httpx.Client() as client:  # and it still works
        assert send(client, address, photograph()).status_code == 200
    assert process.poll() is None
    assert httpx.get(f"{address}/api/ready").json()["waiting"] == 0


@pytest.mark.slow
def test_whoever_goes_away_is_not_waited_for(server: Server) -> None:
    """Ten ask for what takes seconds and hang up: the first is worked on, the others no more."""
    _, address = server
    host, port = address.removeprefix("http://").split(":")
    request = httpx.Request(
        "POST", f"{address}/api/predict?output_type=rgba", files={"file": ("a.jpg", photograph(900, 1200))}
    )
    head = f"POST {request.url.raw_path.decode()} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items()) + "\r\n"
    data = head.encode() + request.read()
    with httpx.Client() as client:
        for _ in range(2):  # the second one is warm
            begun = time.monotonic()
            assert send(client, address, photograph(900, 1200), "output_type=rgba").status_code == 200
            one = time.monotonic() - begun
        begun = time.monotonic()
        with contextlib.ExitStack() as connections:
            for _ in range(10):
                connections.enter_context(socket.create_connection((host, int(port)))).sendall(data)
            while client.get(f"{address}/api/ready").json()["waiting"] < 10:
                assert time.monotonic() < begun + 60
            time.sleep(0.3)  # the last bytes are there, too
        assert send(client, address, photograph()).status_code == 200
        assert time.monotonic() - begun < 4 * one + 2
        assert client.get(f"{address}/api/ready").json()["waiting"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told_and_answers_what_it_began(how: signal.Signals) -> None:
    with serving() as (process, address), ThreadPoolExecutor(1) as pool, httpx.Client() as client:
        assert send(client, address, photograph()).status_code == 200  # it is warm
        last = pool.submit(send, client, address, photograph(900, 1200), "output_type=rgba")
        while httpx.get(f"{address}/api/ready").json()["waiting"] == 0 and not last.done():
            pass
        process.send_signal(how)
        assert last.result(60).status_code == 200
        client.close()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "ended\n", "")


@pytest.mark.slow
def test_on_another_address_with_its_own_names() -> None:
    with serving("host=0.0.0.0", "hosts=[photos.example]", "queue=1", "max_megabytes=0.1") as (_, address):
        for host, status in (("photos.example", 200), ("localhost", 200), ("evil.example", 400)):
            assert httpx.get(f"{address}/api/health", headers={"host": host}).status_code == status
        with httpx.Client() as client:
            assert send(client, address, bytes(150_000)).status_code == 413
