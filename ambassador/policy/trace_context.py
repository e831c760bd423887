"""Request id and trace context: what is received is checked, and continued or made anew.

Knows X-Request-Id, traceparent and tracestate; must not know spans or exporters. Chance comes in as
`Random.getrandbits`: these ids must be unique, not secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ambassador.core.model import REQUEST_ID, TRACEPARENT, TRACESTATE, Field, RequestHead

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}").fullmatch
# Version ff is invalid; 00 ends after the flags, a later one may go on after another dash. Ids are not all zero.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?",
    re.DOTALL,
).fullmatch
# We know two flags: sampled, and random of level 2; the others must be sent as zero (Trace Context §3.2.2).
_FLAGS: Final = {b"%02x" % code: b"%02x" % (code & 0x03) for code in range(256)}
_MAX_MEMBERS: Final = 32
_STAMPED: Final = REQUEST_ID | TRACEPARENT | TRACESTATE

_ID_BITS: Final = 128
_SPAN_BITS: Final = 64
_ALL_BITS: Final = 2 * _ID_BITS + _SPAN_BITS  # request id, trace id, span id, from the left
_UUID_CLEAR: Final = ((1 << _ID_BITS) - 1) ^ (0xF000 << 64) ^ (0xC000 << 48)
_UUID_SET: Final = 0x4000 << 64 | 0x8000 << 48  # version 4, variant 10: RFC 9562 §5.4
_CLEAR: Final = _UUID_CLEAR << (_ID_BITS + _SPAN_BITS) | ((1 << (_ID_BITS + _SPAN_BITS)) - 1)
# The first bit of trace and span id is set, so neither is ever zero.
_FIRST_OF_SPAN: Final = 1 << (_SPAN_BITS - 1)
_SET: Final = (
    _UUID_SET << (_ID_BITS + _SPAN_BITS) | 1 << (_ID_BITS + _SPAN_BITS - 1) | _FIRST_OF_SPAN
)


def is_request_id(value: bytes) -> bool:
    """Say whether a received X-Request-Id may go on: 1 to 128 harmless characters."""
    return _REQUEST_ID(value) is not None


def new_request_id(bits: int) -> bytes:
    """Give the text of a version 4 UUID.

    Units: `bits` are 128 random bits.
    Source: RFC 9562 §5.4.
    """
    return _dashed(b"%032x" % (bits & _UUID_CLEAR | _UUID_SET))


def _dashed(text: bytes) -> bytes:
    return b"%b-%b-%b-%b-%b" % (text[:8], text[8:12], text[12:16], text[16:20], text[20:])


def parse_traceparent(value: bytes) -> tuple[bytes, bytes] | None:
    """Give trace id and flags (those that we know) of a received traceparent, None when it is invalid.

    Source: W3C Trace Context level 2 §3.2, §3.2.4 (later versions: the first four fields count).
    """
    match = _TRACEPARENT(value)
    if match is None or (match[4] is not None and match[1] == b"00"):
        return None
    return match[2], _FLAGS[match[3]]


def stamp(
    head: RequestHead, random_bits: Callable[[int], int], *, sampled: bool = False
) -> tuple[bytes, bytes, bytes]:
    """Give request id, trace id and our two header lines, which stand for the received ones of `head.stamped`.

    One well-formed X-Request-Id goes on; one valid traceparent is continued under a span id of ours, with its
    tracestate as it is. Anything else, several of them too, is replaced, and tracestate then dropped.
    `sampled` is the flag of a trace begun here. See `benchmarks/micro/policy_headers.py`.
    Source: W3C Trace Context level 2 §3.2, §3.3, §4.
    """
    request_id = parent = None
    if head.stamped:
        request_id, parent = _received(head)
    if request_id is not None and parent is not None:
        # It came through another proxy of ours, as nearly all inbound ones do: 64 bits are enough.
        span_id = b"%016x" % (random_bits(_SPAN_BITS) | _FIRST_OF_SPAN)
        trace_id, flags = parent
    else:
        text = b"%080x" % (random_bits(_ALL_BITS) & _CLEAR | _SET)
        if request_id is None:
            request_id = _dashed(text[:32])
        trace_id, flags = parent or (text[32:64], b"01" if sampled else b"00")
        span_id = text[64:]
    lines = b"X-Request-Id: %b\r\ntraceparent: 00-%b-%b-%b\r\n" % (
        request_id,
        trace_id,
        span_id,
        flags,
    )
    return request_id, trace_id, lines


def _received(head: RequestHead) -> tuple[bytes | None, tuple[bytes, bytes] | None]:
    """Read what was received; a usable tracestate goes on."""
    stamped = head.stamped
    if len(stamped) == 2 and stamped[0].role & REQUEST_ID and stamped[1].role & TRACEPARENT:  # noqa: PLR2004
        # As our own outbound side writes them.
        usual = stamped[0].value
        trace = parse_traceparent(stamped[1].value)
        return usual if _REQUEST_ID(usual) is not None else None, trace
    request_id = parent = None
    ids = parents = members = 0
    states: list[Field] = []
    for field in stamped:
        role = field.role
        if role & REQUEST_ID:
            request_id = field.value
            ids += 1
        elif role & TRACEPARENT:
            parent = field.value
            parents += 1
        else:
            states.append(field)
            members += field.value.count(b",") + 1
    if request_id is not None and (ids > 1 or _REQUEST_ID(request_id) is None):
        request_id = None
    trace = parse_traceparent(parent) if parent is not None and parents == 1 else None
    if states and trace is not None and members <= _MAX_MEMBERS:
        head.fields += states
    return request_id, trace
