"""Anybody's saliency maps: found, scored on all cores, kept by content."""
