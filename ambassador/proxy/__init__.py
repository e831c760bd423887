"""Floor 6: the request path.

Decision: no filter API; the steps of an exchange are written out in `exchange.py` and the two doors, in order.
Why: the order is a security property (sanitise, authorise, route, set ours: threats A2), and one can read it.
Rejected: filter chains as in Envoy: a frame and an object per filter and request, and an order that is configured.
Cost: a new step is a change of these files.
Revisit when: somebody needs a step that must not live here.
"""
