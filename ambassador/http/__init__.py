"""Floor 4: HTTP connections over transports.

Decision: callbacks on the hot path: bytes arrive in `Transport`, the connection decodes and calls the exchange, the
exchange calls out again, all in one stack.
Why: measured, a coroutine per connection with a pull stream costs 39 µs a request where callbacks cost 28.
Rejected: asyncio streams; h11 (25 µs a head, and it forgives what RFC 9112 §11.2 warns of).
Cost: every entry point must expect that its exchange has ended; the table is `wire/lifecycle.py`.
Revisit when: a task costs less than a microsecond.
"""
