"""`qefpn COMMAND ...`: finds the command, nothing else."""

from __future__ import annotations

import importlib
import os
import sys

from qefpn.atomic import FULL
from qefpn.errors import UserError
from qefpn.text import did_you_mean, one_line, take_any_text

COMMANDS = {
    "train": "train a network, then score the test sets",
    "evaluate": "saliency maps, scores and a table from a checkpoint",
    "predict": "masks, cut-outs or overlays of pictures of one's own",
    "benchmark": "tables, curves and a page from folders of saliency maps",
    "data": "list, verify, download or synthesize data sets",
    "analyze": "states at depth and at convergence: the paper's Fig. 2 and Fig. 7",
    "video": "masks, cut-outs or another background of a film",
    "report": "the page of a run, or the tables of a sweep",
    "models": "the networks that come with the package",
    "profile": "parameters, MACs, speed and memory: the paper's Table III",
    "export": "a network as a file that other programs run: ONNX, rembg, torch.export",
}


def usage() -> str:
    lines = ["usage: qefpn COMMAND [key=value ...]", ""]
    lines += [f"  {name:<10} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join([*lines, "", "`qefpn COMMAND --help` lists the keys of a command."])


def main(argv: list[str] | None = None) -> int:
    """Run a command; a user's mistake is one line on standard error and exit code 2."""
    take_any_text()
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from qefpn.version import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            hint = did_you_mean(name, COMMANDS, "; did you mean {}?")
            raise UserError(f"there is no command {name!r}{hint} (there are: {', '.join(COMMANDS)})")
        return importlib.import_module(f"qefpn.commands.{name}").main(rest)
    except UserError as error:
        print(f"qefpn {one_line(name)}: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if error.errno not in FULL:
            raise
        where = f" of {os.path.dirname(os.path.abspath(error.filename))}" if error.filename else ""
        print(f"qefpn {name}: no space is left on the disk{where}: make room there", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"qefpn {name}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
