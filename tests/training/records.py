"""What wandb and TensorBoard wrote, read back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BLOCK = 2**15


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: 7 bytes of head, then LevelDB's log format in blocks of 32 KiB."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if place + 7 + length > len(content):  # it is being written
            return
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = pb.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_records(directory: Path) -> list[Any]:
    """Of the one offline run below a run directory, whole: wandb's own process writes the end when it likes."""
    (folder,) = (directory / "wandb").glob("offline-run-*")
    (path,) = folder.glob("*.wandb")
    ends = time.monotonic() + 60
    while not exit_codes(found := list(records(path))) and time.monotonic() < ends:
        time.sleep(0.2)
    return found


def history(found: list[Any]) -> list[dict[str, Any]]:
    """What was logged, a dictionary a call."""
    out = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {("/".join(i.nested_key) or i.key): json.loads(i.value_json) for i in record.history.item}
            out.append(items)
    return out


def configuration(found: list[Any]) -> dict[str, Any]:
    """wandb's configuration of the run, its own entries left out."""
    out: dict[str, Any] = {}
    for record in found:
        update = record.run.config if record.HasField("run") else record.config if record.HasField("config") else None
        for item in update.update if update is not None else ():
            key = "/".join(item.nested_key) or item.key
            if not key.startswith("_wandb"):
                out[key] = json.loads(item.value_json)
    return out


def exit_codes(found: list[Any]) -> list[int]:
    return [record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit"]


def read_events(folder: Path) -> Any:
    """TensorBoard's reader of the files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return events.Reload()
