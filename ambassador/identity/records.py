"""Reading and writing on a TLS connection whose handshake is done.

Straight to OpenSSL while it succeeds: no buffer per read, no error check per call. Saves 2.7 µs of 8 for a send and a
recv of 500 bytes against pyOpenSSL's. Can go when pyOpenSSL reads into a kept buffer. Must not know whose connection
it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi as _untyped_ffi
from OpenSSL._util import lib as _lib

from ambassador.identity.callbacks import MAX_LATE_STEPS, watch_late_steps

#: `recv` and `send` of a connection, and the words for what they raise.
Io = tuple[
    Callable[[int], bytes],
    Callable[[bytes | memoryview], int],
    Callable[[BaseException], Exception],
]

_RECORD: Final = 16384  # what a record carries at most (RFC 8446 §5.1)
_RECORDS_IN_A_ROW: Final = 8

_ffi: Any = _untyped_ffi
_from_buffer: Any = _ffi.from_buffer
_ssl_read: Any = _lib.SSL_read
_ssl_write: Any = _lib.SSL_write
_ssl_get_error: Any = _lib.SSL_get_error
_WANT_READ: Final = _lib.SSL_ERROR_WANT_READ
_ZERO_RETURN: Final = _lib.SSL_ERROR_ZERO_RETURN
# One read at a time and one thread: all connections can share where OpenSSL puts its records.
_buffer: Any = _ffi.new("char[]", _RECORDS_IN_A_ROW * _RECORD)
_view: Any = _ffi.buffer(_buffer)


def io_of(connection: SSL.Connection, explain: Callable[[BaseException], Exception]) -> Io:
    """Give `recv` and `send` with pyOpenSSL's errors, for one thread, and the words for these errors.

    A `recv` of more than a record takes up to eight; an error behind the first is raised by the next call. A `send`
    takes as many as the socket does; an error behind the first is raised at once, what went before is lost as well.
    """
    return _reading(connection), _writing(connection), explain


def _reading(connection: SSL.Connection) -> Callable[[int], bytes]:
    ssl = connection._ssl
    fail = connection._raise_ssl_error
    handshake = watch_late_steps(connection)
    late: list[SSL.Error] = []

    def recv(size: int) -> bytes:
        if late:
            raise late.pop()
        count = _ssl_read(ssl, _buffer, _RECORD)  # never less than a whole record
        if size > _RECORD and count > 0:
            count = read_on(count, size)
        if handshake.late_steps:
            if handshake.late_steps > MAX_LATE_STEPS:
                raise SSL.Error([("SSL routines", "", "too many handshake messages")])
            handshake.late_steps = 0
        if count > 0:
            data: bytes = _view[:count]
            return data
        if (error := _ssl_get_error(ssl, count)) == _WANT_READ:
            raise SSL.WantReadError
        if error == _ZERO_RETURN:
            raise SSL.ZeroReturnError
        fail(ssl, count)
        return b""

    def read_on(have: int, size: int) -> int:
        for _ in range(_RECORDS_IN_A_ROW - 1):
            if have + _RECORD > size:
                break
            count = _ssl_read(ssl, _buffer + have, _RECORD)
            if count <= 0:
                if (error := _error_of(fail, ssl, count)) is not None:
                    late.append(error)
                break
            have += count
        return have

    return recv


def _writing(connection: SSL.Connection) -> Callable[[bytes | memoryview], int]:
    ssl = connection._ssl
    fail = connection._raise_ssl_error

    def send(data: bytes | memoryview) -> int:
        count: int = _ssl_write(ssl, data if type(data) is bytes else _from_buffer(data), len(data))
        if count <= 0:
            fail(ssl, count)
        return count if count == len(data) else write_on(data, count)

    def write_on(data: bytes | memoryview, sent: int) -> int:
        size = len(data)
        with _from_buffer(data) as start:
            while sent < size:
                count = _ssl_write(ssl, start + sent, size - sent)
                if count <= 0:
                    if (error := _error_of(fail, ssl, count)) is not None:
                        raise error
                    break
                sent += count
        return sent

    return send


def _error_of(fail: Callable[[Any, int], None], ssl: Any, result: int) -> SSL.Error | None:
    """Give the error of a call that failed, None when it only wants to wait, which the next call will find too.

    It keeps no frame, which would keep the connection, and leaves nothing in OpenSSL's queue, which belongs to all.
    """
    try:
        fail(ssl, result)
    except (SSL.WantReadError, SSL.WantWriteError):
        return None
    except SSL.Error as error:
        return error.with_traceback(None)
    finally:
        _lib.ERR_clear_error()
    return SSL.Error([("SSL routines", "", "failed without a reason")])
