"""Looking inside a network: states at depth, convergence, what it costs."""
