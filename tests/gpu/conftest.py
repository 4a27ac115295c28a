"""Fixtures of the tiny runs."""

from __future__ import annotations

from tests.commands.runs import data_root, tiny_run

__all__ = ["data_root", "tiny_run"]
