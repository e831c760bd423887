"""Floor 1: what Ambassador decides, as pure functions over the words of `core`.

Knows who may, where to, which header lines, which endpoint and whether again; must not know sockets, TLS,
clocks, files or logs: chance comes in as a `Random` or as its `getrandbits`, time as a number.

Decision: paths and identities are matched by whole segments, with `*` and a last `**`, never by expression.
Why: a prefix or an expression that is too wide is the commonest hole of an access rule (threats B3, F2).
Rejected: Envoy's `safe_regex`, globbing inside of a segment, trailing-slash magic in `allow`.
Cost: `/v1` and everything below it takes two patterns, `/v1` and `/v1/**`.
Revisit when: users show rules that segments cannot say.
"""
