"""Floor 2: sockets. The only package that touches them.

Decision: an own transport over `loop.add_reader`, plain or through a pyOpenSSL `Connection` on the same socket.
Why: the hybrid key exchange on any distribution, cheaper handshakes, reasons of refusals, keys from memory.
Rejected: asyncio's TLS (a second copy of each byte, keys through files, no verify callback).
Cost: we own back-pressure, half-close and the traps of a non-blocking TLS write (see `transport`).
Revisit when: `ssl` gives verify reasons, in-memory keys and named groups.

`OpenSSL.SSL` is imported here for its connection and error classes only; contexts come from `identity.tls`,
handed in as values. Splitting the four error classes out through a registry would add a look-up per read.
"""
