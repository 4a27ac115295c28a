"""A trained network as a function of pictures; imports no Lightning."""
