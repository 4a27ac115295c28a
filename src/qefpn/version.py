"""The version, where setup.cfg, checkpoints and reports read it."""

__version__ = "0.1.0"
