"""Ambassador beside nginx, HAProxy, Envoy and no proxy at all, in one interleaved run.

Decision: CPU is read from the kernel around windows of a fixed number of requests, each served to every target.
Why: on a shared machine a single reading moves by a third, the ratio of two neighbours in time by a few per cent.
Rejected: one target after the other (drifts with the machine); windows of a fixed time (they cut exchanges off).
Cost: a whole run takes about twenty minutes.
Revisit when: the machine has cores to spare for two proxies and a generator each.
"""
