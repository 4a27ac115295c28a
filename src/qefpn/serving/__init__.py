"""`qefpn serve`: a page and an endpoint on a trained network."""
