"""Floor 2: events, access log and metrics.

Decision: the request path only adds integers and appends records; encoding, formatting and writing happen in
batches, and Prometheus samples are made when somebody scrapes.
Why: a line by structlog costs 10 us, a counter behind `labels()` 1.3 us; a plain integer costs 0.05 us.
Rejected: structlog for access lines; prometheus-client's own Counter objects; a log write on the event loop.
Cost: up to 0.05 s of access lines are lost when the process is killed; both libraries are hidden behind our names.
Revisit when: an exporter other than a scrape needs the numbers.
"""
