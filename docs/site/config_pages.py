"""Pages of the site that are made of the program itself: every group of configs, and every command's help."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from qefpn.cli import COMMANDS, main

CONF = Path(__file__).parents[2] / "conf"


def config_page() -> str:
    """Each group of conf/ with its options, as the files stand there."""
    parts = [
        "# Configuration",
        "",
        "`qefpn train` is composed by Hydra of one option a group, and `group=option` chooses another one; any key",
        "can be set, `group.key=value`. Each option is a file of `conf/`; a folder of your own beside it goes by",
        "`--config-dir` ([extending](extending.md)).",
    ]
    for group in sorted(path for path in CONF.iterdir() if path.is_dir() and path.name[0] not in "._"):
        parts += ["", f"## {group.name}"]
        for option in sorted(group.rglob("*.yaml")):
            name = option.relative_to(group).with_suffix("").as_posix()
            text = option.read_text(encoding="utf-8").rstrip() or "# nothing"
            parts += ["", f"### {group.name}={name}", "", "```yaml", text, "```"]
    return "\n".join(parts) + "\n"


def command_page() -> str:
    """What each command says of itself."""
    parts = ["# Commands", "", "`qefpn COMMAND --help`, as the program prints it."]
    for name, summary in COMMANDS.items():
        parts += ["", f"## qefpn {name}", "", summary[0].upper() + summary[1:] + ".", ""]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            main([name, "--help"])
        parts += ["```text", out.getvalue().rstrip(), "```"]
    return "\n".join(parts) + "\n"


def setup(app: Any) -> dict[str, Any]:
    """Write the pages before Sphinx looks for files; they are ignored by git."""
    for name, text in (("configuration.md", config_page()), ("commands.md", command_page())):
        path = Path(app.srcdir) / "generated" / name
        path.parent.mkdir(exist_ok=True)
        text = text.replace("](extending.md)", "](../extending.md)")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return {"parallel_read_safe": True, "version": "1"}
