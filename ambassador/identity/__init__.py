"""Floor 2: certificates and TLS. Who we are, whom we trust, and who a peer is.

Decision: TLS is pyOpenSSL on our own sockets; contexts are built from bytes that were read and checked, and
    replaced, never changed.
Why: the OpenSSL of `cryptography` knows the post-quantum groups on every distribution, tells why a peer was
    refused, and takes keys from memory.
Rejected: the `ssl` module (hides the refused certificate, keys only from files); refusing by policy inside the
    verify callback (the peer would see `internal_error`).
Cost: some names of pyOpenSSL that are not public; all of them are in `tls.py`, and tests pin their behaviour.
Revisit when: `ssl` gives verify callbacks and keys from memory.

`tls.py` alone imports pyOpenSSL and builds contexts; the rest works on certificates with `cryptography`.
"""

from ambassador.identity import environment as environment  # must precede every import of OpenSSL
