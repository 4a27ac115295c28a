"""A configuration becomes data, module and trainer, in one run directory."""
