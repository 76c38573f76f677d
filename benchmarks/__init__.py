"""Benchmarks: how long the life of a container takes, beside its peers, interleaved in one run.

`make bench` runs them. Ratios are what counts: absolute times depend on the machine. No test asserts a time.
"""
