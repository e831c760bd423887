"""Floor 5: services by name, their endpoints, and the connections to them.

State changes only in synchronous methods: cancellation cannot tear it and no lock is needed. Dialling is the one
coroutine; it comes back with one call.
"""
