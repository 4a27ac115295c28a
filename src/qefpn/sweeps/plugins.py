"""Our launcher and sweeper, made known to Hydra."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from hydra.core.plugins import Plugins

NAMESPACE = "hydra_plugins"
MODULE = f"{NAMESPACE}.qefpn"


def register() -> None:
    """Enter them where ``_target_`` in ``conf/hydra`` says that they are.

    Hydra takes plugins from one namespace package alone. A share in it that was installed editable (as ``make setup``
    does) is not found by Hydra's search, so that the module is made here.
    """
    from qefpn.sweeps.optuna import OptunaSweeper
    from qefpn.sweeps.slurm import SlurmLauncher

    try:
        namespace = importlib.import_module(NAMESPACE)
    except ModuleNotFoundError:  # no other plugin is installed
        namespace = sys.modules[NAMESPACE] = ModuleType(NAMESPACE)
        namespace.__path__ = []
    module = sys.modules[MODULE] = ModuleType(MODULE)
    namespace.__dict__["qefpn"] = module
    for plugin in (SlurmLauncher, OptunaSweeper):
        plugin.__module__ = MODULE
        module.__dict__[plugin.__name__] = plugin
        Plugins.instance().register(plugin)
