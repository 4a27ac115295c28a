"""`qefpn evaluate`: saliency maps, a score a picture, metrics and a table from a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from qefpn.errors import UserError
from qefpn.experiments.checks import check
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.prepare import name_list, prepare_data
from qefpn.experiments.run_config import evaluation_data, run_config, run_directory
from qefpn.experiments.runtime import quiet_libraries
from qefpn.experiments.schema import TrainerConfig
from qefpn.experiments.scoring import evaluate_run
from qefpn.metrics import choose
from qefpn.models.budgets import checked_budget
from qefpn.models.packed import is_borrowed, network_file

SUMMARY = """
qefpn evaluate - saliency maps, scores.csv, metrics.json, a table and a report from a checkpoint

qefpn evaluate checkpoint=RUN/checkpoints/best.ckpt data.root=DIR
qefpn evaluate checkpoint=RUN/checkpoints/best.ckpt data.root=DIR data.test=[ECSSD,DUTS-TE] protocol=pysod
"""


def main(argv: Sequence[str]) -> int:
    """0 when every picture was scored, 1 when some were left out (and listed), 2 for a user's mistake."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("evaluate", SUMMARY))
        return 0
    quiet_libraries()
    options = command_config("evaluate", argv)
    metrics = choose(name_list(options.metrics) or "sod", bool(options.quantize))  # what there is not is told first
    checked_budget(options.budget)
    checkpoint = network_file(options.checkpoint)
    of_package = is_borrowed(options.checkpoint)
    if of_package and not any(options.data[key] for key in ("root", "images", "masks")):
        raise UserError(
            "data.root is not set: give data.root=DIR, or checkpoint=RUN/checkpoints/best.ckpt, whose run had pictures"
        )
    config = run_config(checkpoint)
    config.data = evaluation_data(config.data, options.data)
    config.protocol = options.protocol or config.protocol
    config.init = config.resume = config.backbone.weights = None  # what the run started from need not be there
    config.data.augment = None  # training alone does it
    # nor the machine that it ran on
    config.trainer, config.logger = TrainerConfig(fp32_precision=config.trainer.fp32_precision), {}
    config.trainer.max_epochs = 1
    check(config)
    usual = Path() if of_package else run_directory(checkpoint)  # nothing is written into the package
    directory = Path(str(options.output)).expanduser() if options.output else usual / "evaluation"
    directory.mkdir(parents=True, exist_ok=True)
    data = prepare_data(config, directory, train=False)
    source = run_directory(checkpoint) / "log.csv"
    if source.is_file() and not (directory / "log.csv").exists():
        shutil.copyfile(source, directory / "log.csv")  # the report shows how the network was trained
    evaluate_run(
        config,
        checkpoint,
        data,
        directory,
        report=options.report,
        device=options.device,
        floors=options.floors,
        save_maps=options.save_maps,
        metrics=metrics,
        budget=options.budget,
    )
    return 1 if data.report().errors else 0
