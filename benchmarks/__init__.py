"""Benchmarks: `load` measures whole proxies beside others; `micro` measures single hot functions."""
