"""The Hydra configuration groups, shipped inside the wheel as qefpn.conf."""
