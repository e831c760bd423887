"""Floor 4: where endpoints come from.

Decision: a backend is one async iterator of full sets; `keeper` owns back-off, the last known good set and its age.
Why: a set cannot drift as deltas do, and no backend can get the failure rules wrong, for it has none.
Rejected: deltas (a lost one is wrong for ever); the backend decides what an error means for the endpoints.
Cost: a set of ten thousand is built anew for one change.
Revisit when: sets are so large that building them shows beside the traffic.
"""
