"""HTTP/1.1 over a `Transport`: one stream at a time, keep-alive, framing, half-close, lingering close.

What only HTTP/1.1 knows stays here. Both sides share `connection.Http1Connection`: the reading of a framed body,
the corking of what goes out. Source: RFC 9112, RFC 9110.
"""
