"""The one exception that stands for a user's mistake."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input or the configuration.

    Its message is one line that names the thing that is wrong and the way out. The command line prints
    that line without a traceback and exits non-zero.
    """
