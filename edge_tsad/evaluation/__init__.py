"""Benchmarks: data sets, an honest protocol, metrics, peers and reports.

Nothing here imports torch; a detector is reached through ``shipped`` only, and what it is shown
is decided in ``protocol``.
"""
