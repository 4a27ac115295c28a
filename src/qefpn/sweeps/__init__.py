"""Many experiments: the plan, its jobs, their processes, launchers."""
