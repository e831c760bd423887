"""What pyOpenSSL raised, as a reason word and a detail.

Knows its exceptions, whose subclasses of `SSL.Error` must be told apart first; the words are in `refusal.py`.
"""

from __future__ import annotations

import errno

from OpenSSL import SSL

from ambassador.identity.refusal import classify


def reason_of(error: BaseException) -> tuple[str, str]:
    """Give word and detail of what a call on a connection raised; subclasses of `SSL.Error` first."""
    match error:
        case SSL.ZeroReturnError():
            return "closed", "close_notify"
        case SSL.SysCallError():
            number = error.args[0] if error.args else -1
            return ("closed", "eof") if number == -1 else _reason_of_errno(int(number))
        case SSL.Error():
            reasons = _queue(error)
            # Without a reason it is the system's: OpenSSL 4 ends a connection for good with the first write that
            # fails, and every later call finds nothing in the queue, or that write's "system library" entry.
            return classify(reasons) if reasons else ("reset", "")
        case TimeoutError():
            return "timeout", ""
        case OSError():
            return _reason_of_errno(error.errno or 0)
        case _:
            return _stated_reason(error)


def _stated_reason(error: BaseException) -> tuple[str, str]:
    """Take the word of whoever ended the handshake and said why: a deadline, plain HTTP; else it is a bug."""
    reason, detail = getattr(error, "reason", None), getattr(error, "detail", None)
    if isinstance(reason, str) and isinstance(detail, str):
        return reason, detail
    return "internal_error", type(error).__name__


def _reason_of_errno(number: int) -> tuple[str, str]:
    name = errno.errorcode.get(number, str(number)).lower()
    if number == errno.ETIMEDOUT:
        return "timeout", name
    return "reset", name


def _queue(error: BaseException) -> list[str]:
    """Give the reason strings that pyOpenSSL took from the error queue."""
    entries = error.args[0] if error.args else []
    return [str(entry[2]) for entry in entries if isinstance(entry, tuple) and entry[2]]


def first_reason(error: BaseException) -> str:
    """Give OpenSSL's own words for the first entry of its queue."""
    return next(iter(_queue(error)), "no reason given")
