"""Strict request and response heads: from bytes to `RequestHead`, `ResponseHead` and their framing.

Knows RFC 9112 §2-§6 and what RFC 9110 says of Host, Connection, Upgrade and Expect; must not know sockets,
routes or what a proxy adds. Writers are in `render`.

Rules: whatever two readers could read differently is refused (RFC 9112 §11.2). Fields that speak of this
connection only (`WIRE_ROLES`) become attributes of the head or vanish; what `Connection` nominates vanishes too.

Theory of operation: what stands behind the first line is one look-up, for clients repeat all but the request line
and applications, within a second, most of their responses. What is new is split at CRLF; each line is one look-up in
the line cache, which holds checked fields only; so the loop adds no check of its own. Lone CR, LF and NUL cannot
hide: they are inside a line then, and no line with a control character passes. The two lines that another Ambassador
stamps on every request are taken out before the look-up, which would else never succeed (9 µs a head, not 3).

Measured by benchmarks/micro/head.py.
"""

# ruff: noqa: PLR2004  # versions, status codes and byte values are the words of the RFC

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import compress
from operator import attrgetter
from typing import Final

from ambassador.core.model import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    EXPECTED_TIMEOUT,
    HOST,
    IDENTITY,
    PERSISTS,
    PROTECTED,
    REQUEST_ID,
    STAMPED,
    TRACEPARENT,
    TRANSFER_ENCODING,
    UPGRADE,
    WIRE_ROLES,
    Field,
    RequestHead,
    ResponseHead,
)
from ambassador.wire.field import MAX_CACHED_LINE, TOKEN, HeadError, HeadLimits, LineCache
from ambassador.wire.framing import CHUNKED, LENGTH, NO_BODY, TUNNEL, UNTIL_EOF
from ambassador.wire.target import origin_form, other_form, uri_too_long

__all__ = [
    "HeadError",
    "HeadLimits",
    "LineCache",
    "find_head_end",
    "head_too_large",
    "parse_request_head",
    "parse_response_head",
    "skip_empty_lines",
]

# RFC 9112 §2.2: "at least one empty line" before a request is ignored. Two; more is a flood (threat E5).
_MAX_EMPTY_LINES: Final = 2
# What no valid head contains: NUL, LF without CR, CR without LF (RFC 9112 §2.2, RFC 9110 §5.5).
_find_bad_byte = re.compile(rb"\x00|(?<!\r)\n|\r(?=[^\n])").search
_is_option = re.compile(TOKEN).fullmatch
# RFC 9110 §7.8: protocol-name ["/" protocol-version], as a list.
_PROTOCOL: Final = TOKEN + rb"(?:/" + TOKEN + rb")?"
_is_upgrade = re.compile(_PROTOCOL + rb"(?:[ \t]*+,[ \t]*+" + _PROTOCOL + rb")*+").fullmatch
# RFC 9112 §4: the blank after the code is demanded; without it and without reason nothing is ambiguous, and
# enough servers leave it out. Reason: HTAB, SP, VCHAR, obs-text. Code: 100 to 599 (RFC 9110 §15).
_status_line = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t \x21-\x7e\x80-\xff]*))?"
).fullmatch

_END: Final = 4  # the CRLFCRLF, which counts as part of the head
_role: Final = attrgetter("role")
_MAX_SHAPES: Final = 1024
_MAX_KEPT_SHAPE: Final = 32
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_NOTHING: Final[tuple[bool, ...]] = ()
# Options that are no names of fields, or of fields that never are in `fields`.
_OWN_OPTIONS: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})
_ONE_OPTION: Final = {
    option: frozenset({option}) for option in (b"close", b"keep-alive", b"upgrade")
}
# RFC 9110 §7.6.1: "MUST NOT" nominate fields meant for all recipients; identity is dropped by policy anyway, and
# policy must see it (threat A3).
_NOT_NOMINATED: Final = PROTECTED | IDENTITY
_NO_CONTENT: Final = frozenset({b"CONNECT", b"TRACE"})
# The lines of `policy.trace_context.stamp`; spelt otherwise, they are lines like others.
_FIRST_STAMP: Final = b"X-Request-Id: "
_our_stamps = re.compile(rb"(X-Request-Id: ([!-~]++))\r\n(traceparent: ([!-~]++))\r\n").match


def skip_empty_lines(buffer: bytes | bytearray, start: int = 0) -> int:
    """Give the index where the request line begins, behind at most two empty lines.

    To be called with the bytes since the last message; they stay in the buffer until the head is whole, so that
    the bound holds for it.
    Errors: HeadError 400 for more.
    Source: RFC 9112 §2.2.
    """
    begin = start
    while buffer[begin : begin + 2] == b"\r\n":
        begin += 2
        if begin - start > 2 * _MAX_EMPTY_LINES:
            raise HeadError(400, "empty_lines", "Too many empty lines before the request line.")
    return begin


def find_head_end(buffer: bytes | bytearray, start: int) -> int:
    """Give the index of the CRLFCRLF that ends a head, or -1 as long as there is none.

    `start` is where the last search left off: the head's begin at first, then 3 less than the length that the
    buffer had (never less than the begin); so each byte is looked at once (threat E4).
    Errors: HeadError 400 as soon as an unfinished head cannot become valid: LF without CR, CR without LF, NUL.
    """
    end = buffer.find(b"\r\n\r\n", start)
    if end < 0 and (bad := _find_bad_byte(buffer, start)) is not None:
        raise _BAD_BYTE[bad[0]]()
    return end


def _bare_lf() -> HeadError:
    return HeadError(400, "bare_lf", "A line ends in LF without CR.")


def _bare_cr() -> HeadError:
    return HeadError(400, "bare_cr", "A CR stands without LF.")


def _nul() -> HeadError:
    return HeadError(400, "nul", "The head holds a NUL byte.")


_BAD_BYTE: Final = {b"\n": _bare_lf, b"\r": _bare_cr, b"\x00": _nul}


def head_too_large(buffer: bytes | bytearray, begin: int, limits: HeadLimits) -> HeadError:
    """The refusal of a request head beyond `max_head`: 414 if the request line alone is too long, else 431.

    Source: RFC 9112 §3; RFC 6585 §5.
    """
    if buffer.find(b"\r\n", begin, begin + limits.max_uri) < 0:
        return uri_too_long()
    return HeadError(431, "head_too_large", "The head is too large.")


def _too_many_fields() -> HeadError:
    return HeadError(431, "too_many_fields", "The head has too many fields.")


class Shape:
    """What the roles of a head's lines, in their order, say about all heads of that shape.

    Few shapes exist, so the sorting of lines is done once per shape; a head is then sorted by `compress`, in C: half
    the time of a loop over its lines. `only` is HOST or CONTENT_LENGTH when the connection's fields are this one
    alone, at `place`.
    """

    __slots__ = ("kept", "marked", "only", "place", "relayed", "roles", "stamped", "wire")

    def __init__(self, roles: tuple[int, ...]) -> None:
        self.roles = 0
        for role in roles:
            self.roles |= role
        self.kept = tuple(not role & (WIRE_ROLES | STAMPED | EXPECTED_TIMEOUT) for role in roles)
        # A response's own X-Request-Id is nobody's to replace (RFC 9110 §5.1: a proxy MUST forward it).
        self.relayed = tuple(not role & WIRE_ROLES for role in roles)
        self.marked = tuple(
            role != 0 and (kept or bool(role & EXPECTED_TIMEOUT))
            for role, kept in zip(roles, self.kept, strict=True)
        )
        self.stamped = tuple(bool(role & STAMPED) for role in roles)
        self.wire = tuple(bool(role & WIRE_ROLES) and not role & PERSISTS for role in roles)
        self.only = self.place = 0
        if sum(self.wire) == 1:
            self.place = self.wire.index(True)
            self.only = roles[self.place] & (HOST | CONTENT_LENGTH)

    def __repr__(self) -> str:
        return f"Shape({len(self.kept)} lines)"


class Section:
    """The lines of a head behind its first one, checked and sorted; never changed: the next head may have the same.

    `kept` are the `fields` that go on, `marked` those of them that have a role.
    """

    __slots__ = ("fields", "kept", "marked", "shape")

    def __init__(
        self,
        fields: tuple[Field, ...],
        shape: Shape,
        kept: tuple[bool, ...],
        marked: tuple[bool, ...],
    ) -> None:
        self.fields = fields
        self.shape = shape
        self.kept = tuple(compress(fields, kept))
        self.marked = tuple(compress(fields, marked))

    def __repr__(self) -> str:
        return f"Section({len(self.fields)} fields)"


def _read_section(
    text: bytes, sections: dict[bytes, Section], cache: LineCache, limits: HeadLimits
) -> Section:
    """Read the lines of a request or response and keep them among its `sections`.

    Errors: HeadError for a malformed one, or too many.
    """
    lines = text.split(b"\r\n") if text else []
    if len(lines) > limits.max_fields:
        raise _too_many_fields()
    fields = tuple(map(cache.field, lines))
    shape = shape_of[tuple(map(_role, fields))]
    if sections is cache.requests:
        section = Section(fields, shape, shape.kept, shape.marked)
    else:
        section = Section(fields, shape, shape.relayed, _NOTHING)
    cache.keep(sections, text, section)
    return section


def _without_stamps(text: bytes, at: int) -> tuple[bytes, Sequence[Field]]:
    """Take out the two lines that another Ambassador has stamped, of which the first may begin at `at`."""
    if at and text[at - 2 : at] != b"\r\n":
        return text, ()  # inside a value
    found = _our_stamps(text, at)
    if found is None:
        return text, ()
    id_line, request_id, trace_line, parent = found.groups()
    stamps = (
        Field(b"x-request-id", request_id, REQUEST_ID | PROTECTED, id_line),
        Field(b"traceparent", parent, TRACEPARENT | PROTECTED, trace_line),
    )
    return text[:at] + text[found.end() :], stamps


class _Shapes(dict[tuple[int, ...], Shape]):
    """Shapes seen before; bounded, since a stranger can make up many."""

    __slots__ = ()

    def __missing__(self, roles: tuple[int, ...]) -> Shape:
        shape = Shape(roles)
        if len(roles) <= _MAX_KEPT_SHAPE:
            if len(self) >= _MAX_SHAPES:
                self.clear()
            self[roles] = shape
        return shape


class _StatusLines(dict[bytes, tuple[int, bytes, int]]):
    """Status, reason and version of status lines seen before; likewise bounded."""

    __slots__ = ()

    def __missing__(self, line: bytes) -> tuple[int, bytes, int]:
        found = _status_line(line)
        if found is None:
            raise HeadError(400, "bad_status_line", "The status line is malformed.")
        minor, code, reason = found.groups(b"")
        read = (
            int(code),
            reason,
            11 if minor == b"1" else 10,
        )  # three ASCII digits, said the expression
        if len(line) <= MAX_CACHED_LINE:
            if len(self) >= _MAX_SHAPES:
                self.clear()
            self[line] = read
        return read


shape_of: Final = _Shapes()
status_of: Final = _StatusLines()


def parse_request_head(
    block: bytes, cache: LineCache, limits: HeadLimits
) -> tuple[RequestHead, int, bool]:
    """Give the head, its framing, and whether the connection may go on after it.

    `block` is everything from the request line up to but without the CRLFCRLF. `scheme` is that of an
    absolute-form target and `http` for all other forms. `content_length` is 0 both for `NO_BODY` and for
    `LENGTH` with an explicit zero.
    Errors: HeadError 400, 414, 417, 431, 501, 505.
    Source: RFC 9112 §2-§6, §9.3.
    """
    line, _, text = block.partition(b"\r\n")
    if len(block) + _END > limits.max_head:
        raise head_too_large(block, 0, limits)
    target_authority: bytes | None = None
    scheme, version = b"http", 11
    usual = origin_form(line)
    if usual is not None:
        method, path = usual.groups()
        if len(path) > limits.max_uri:
            raise uri_too_long()
    else:
        method, scheme, target_authority, path, version = other_form(line, limits.max_uri)
    stamped: Sequence[Field] = ()
    if (at := text.find(_FIRST_STAMP)) >= 0:
        text, stamped = _without_stamps(text, at)
    section = cache.requests.get(text)
    if section is None:
        section = _read_section(text, cache.requests, cache, limits)
    if len(section.fields) + len(stamped) > limits.max_fields:
        raise _too_many_fields()
    shape = section.shape
    kept = list(section.kept)
    marked = section.marked
    roles = shape.roles
    if stamped:
        roles |= REQUEST_ID | TRACEPARENT | PROTECTED
    if shape.roles & STAMPED:
        stamped = [*stamped, *compress(section.fields, shape.stamped)]
    if shape.only == HOST and usual is not None:
        # Nearly every request without body: nothing but Host, nothing to decide.
        authority = section.fields[shape.place].value
        head = RequestHead(method, scheme, authority, path, kept, 0, roles, 11, marked, stamped)
        return head, NO_BODY, True
    wire = list(compress(section.fields, shape.wire))
    head = RequestHead(
        method, scheme, target_authority or b"", path, kept, 0, roles, version, marked, stamped
    )
    framing, options = _frame_request(head, wire)
    return head, framing, _request_persists(head, options, target_authority)


def _frame_request(head: RequestHead, wire: list[Field]) -> tuple[int, frozenset[bytes]]:
    """Read the fields of this connection into `head`; give framing and the options of `Connection`."""
    roles = head.roles
    _take_host(head, wire)
    framing = NO_BODY
    if roles & CONTENT_LENGTH:
        framing = LENGTH
        head.content_length = _content_length(wire)
    if roles & TRANSFER_ENCODING:
        _check_coding(wire, roles, head.version)
        framing = CHUNKED
        head.content_length = None
    if head.content_length != 0 and head.method in _NO_CONTENT:
        # RFC 9110 §9.3.6, §9.3.8: neither has content; bytes behind CONNECT belong to the tunnel (threat G2).
        raise HeadError(400, "content_refused", "This method has no content.")
    options = _NO_OPTIONS
    if roles & CONNECTION:
        options = _options(wire)
        head.fields = _without_nominated(head.fields, options)
        if b"upgrade" in options and roles & UPGRADE and head.version == 11:
            # RFC 9110 §7.8: MUST be ignored in 1.0; without the option in Connection it is not meant for us.
            head.upgrade = _upgrade(wire)
    if roles & EXPECT:
        # RFC 9110 §10.1.1: the expectation of a request without content is nobody's.
        head.expect_continue = _expects_continue(wire, head.version) and head.content_length != 0
    return framing, options


def _take_host(head: RequestHead, wire: list[Field]) -> None:
    hosts = [field for field in wire if field.role & HOST]
    # RFC 9112 §3.2: more than one Host, or none in 1.1, MUST be answered with 400. (An invalid one was refused
    # as a line.) It is checked even where the target wins over it.
    if len(hosts) > 1:
        raise HeadError(400, "two_hosts", "The request has more than one Host.")
    if not hosts and head.version == 11:
        raise HeadError(400, "no_host", "An HTTP/1.1 request needs Host.")
    if hosts and not head.authority:
        # RFC 9112 §3.2.2: an absolute target, and CONNECT's, wins over Host.
        head.authority = hosts[0].value


def _request_persists(
    head: RequestHead, options: frozenset[bytes], authority: bytes | None
) -> bool:
    """Say whether the downstream connection may carry another request (RFC 9112 §9.3)."""
    if b"close" in options:
        return False
    # A proxy, in contrast to a gateway, MUST NOT keep a connection with an HTTP/1.0 client: an absolute target
    # is what is sent to proxies.
    if head.version == 11:
        return True
    return authority is None and bool(head.roles & PERSISTS or b"keep-alive" in options)


def parse_response_head(
    block: bytes, cache: LineCache, limits: HeadLimits, request_method: bytes
) -> tuple[ResponseHead, int, bool]:
    """Give the head, its framing, and whether the connection may go on after it.

    `content_length` is that of the field also where no body follows (HEAD, 304), for the writer to repeat.
    Errors: HeadError; whatever its status, the response is answered for with 502.
    Source: RFC 9112 §4-§6, §9.3.
    """
    line, _, text = block.partition(b"\r\n")
    if len(block) + _END > limits.max_head:
        raise head_too_large(block, 0, limits)
    status, reason, version = status_of[line]
    section = cache.responses.get(text)
    if section is None:
        section = _read_section(text, cache.responses, cache, limits)
    elif len(section.fields) > limits.max_fields:
        raise _too_many_fields()
    shape = section.shape
    kept = list(section.kept)
    roles = shape.roles
    head = ResponseHead(status, reason, kept, None, roles, version)
    if shape.only == CONTENT_LENGTH and status >= 200 and version == 11:
        head.content_length = int(section.fields[shape.place].value)
        if status not in {204, 304} and request_method not in _BODY_DEPENDS:
            return head, LENGTH, True  # nearly every response
    wire = list(compress(section.fields, shape.wire))
    options = _options(wire) if roles & CONNECTION else _NO_OPTIONS
    framing = _frame_response(head, wire, request_method, options)
    persists = framing not in {UNTIL_EOF, TUNNEL} and b"close" not in options
    # RFC 9112 §9.3: a response of 1.0 keeps the connection if it says so, also towards a proxy.
    keeps = head.version == 11 or bool(roles & PERSISTS) or b"keep-alive" in options
    return head, framing, persists and keeps


_BODY_DEPENDS: Final = frozenset({b"HEAD", b"CONNECT"})


def _frame_response(
    head: ResponseHead, wire: list[Field], method: bytes, options: frozenset[bytes]
) -> int:
    """Read the fields of this connection into `head` and give its framing (RFC 9112 §6.3)."""
    head.fields = _without_nominated(head.fields, options)
    status = head.status
    if b"upgrade" in options and head.roles & UPGRADE and head.version == 11:
        head.upgrade = _upgrade(wire)
    if method == b"CONNECT" and 200 <= status < 300:
        head.content_length = None
        return TUNNEL  # item 2: a client MUST ignore Content-Length and Transfer-Encoding here
    length = _content_length(wire) if head.roles & CONTENT_LENGTH else None
    chunked = bool(head.roles & TRANSFER_ENCODING)
    if chunked:
        _check_coding(wire, head.roles, head.version)
    if status < 200 or status == 204:
        return _frame_bodiless(head, length, chunked=chunked)
    head.content_length = length
    if method == b"HEAD" or status == 304:
        return NO_BODY  # item 1; Transfer-Encoding may stand there (§6.1) and says nothing
    if chunked:
        return CHUNKED
    return UNTIL_EOF if length is None else LENGTH


def _frame_bodiless(head: ResponseHead, length: int | None, *, chunked: bool) -> int:
    """Framing of 1xx and 204, which MUST NOT carry framing fields (RFC 9110 §8.6, RFC 9112 §6.1)."""
    # Item 1 of RFC 9112 §6.3 ends them with the head; a field that announces a body shows a sender that sees it
    # otherwise (threat G3). "Content-Length: 0" says the same as we do and is common: it is dropped.
    if chunked or length:
        raise HeadError(400, "content_refused", "A response of this status has no content.")
    if head.status != 101:
        head.content_length = 0
        return NO_BODY
    if not head.upgrade:
        # RFC 9110 §7.8: the server MUST say in Upgrade to what it switches.
        raise HeadError(400, "bad_upgrade", "A 101 response names no protocol.")
    head.content_length = None
    return TUNNEL


def _content_length(wire: list[Field]) -> int:
    """Give the number of the one Content-Length among `wire`."""
    values = [field.value for field in wire if field.role & CONTENT_LENGTH]
    if len(values) > 1:
        # RFC 9112 §6.3 item 5 permits to merge equal ones; refused like different ones (house: doubled framing).
        raise HeadError(400, "two_content_lengths", "Content-Length stands twice.")
    return int(values[0])  # the line cache let nothing but ASCII digits through


def _check_coding(wire: list[Field], roles: int, version: int) -> None:
    """Refuse every transfer coding but exactly one `chunked`."""
    if version == 10:
        # RFC 9112 §6.1: framing of such a message is faulty, whatever else it says.
        raise HeadError(400, "coding_in_http10", "Transfer-Encoding stands in an HTTP/1.0 message.")
    if roles & CONTENT_LENGTH:
        # RFC 9112 §6.3 item 3 and §11.2: an attempt at smuggling, or as good as one.
        raise HeadError(400, "length_and_coding", "Both Content-Length and Transfer-Encoding.")
    values = [field.value.lower() for field in wire if field.role & TRANSFER_ENCODING]
    if values == [b"chunked"]:
        return
    codings = [coding.strip(b" \t") for value in values for coding in value.split(b",")]
    if (
        codings[-1] != b"chunked"
        or codings.count(b"chunked") > 1
        or not all(map(_is_option, codings))
    ):
        # RFC 9112 §6.3 item 4: chunked not last MUST be answered with 400; §6.1: never applied twice. Empty
        # list elements and parameters have no place in framing either.
        raise HeadError(400, "bad_transfer_encoding", "Transfer-Encoding is not chunked.")
    raise HeadError(501, "unknown_transfer_coding", "Only the chunked transfer coding is known.")


def _options(wire: list[Field]) -> frozenset[bytes]:
    """Give the options of all `Connection` fields in lower case (RFC 9110 §7.6.1)."""
    values = [field.value.lower() for field in wire if field.role & CONNECTION]
    if len(values) == 1 and values[0] in _ONE_OPTION:
        return _ONE_OPTION[values[0]]
    # RFC 9110 §5.6.1.2: empty list elements are ignored.
    listed = {option.strip(b" \t") for value in values for option in value.split(b",")} - {b""}
    if not all(_is_option(option) for option in listed):
        raise HeadError(400, "bad_connection", "Connection is not a list of tokens.")
    return frozenset(listed)


def _without_nominated(fields: list[Field], options: frozenset[bytes]) -> list[Field]:
    """Drop the fields that `Connection` names (RFC 9110 §7.6.1: MUST, before forwarding)."""
    if options <= _OWN_OPTIONS:
        return fields
    return [f for f in fields if f.name not in options or f.role & _NOT_NOMINATED]


def _upgrade(wire: list[Field]) -> bytes:
    """Give the protocols of `Upgrade` as one list, empty if there is none (RFC 9110 §7.8)."""
    value = b", ".join([field.value for field in wire if field.role & UPGRADE])
    if value and not _is_upgrade(value):
        raise HeadError(400, "bad_upgrade", "Upgrade is not a list of protocols.")
    return value


def _expects_continue(wire: list[Field], version: int) -> bool:
    """Say whether `100-continue` is expected (RFC 9110 §10.1.1)."""
    for field in wire:
        if field.role & EXPECT and field.value.lower() != b"100-continue":
            raise HeadError(417, "unknown_expectation", "Only 100-continue can be expected.")
    return version == 11  # MUST be ignored in an HTTP/1.0 request
