"""One non-blocking socket, plain or TLS, with back-pressure.

Knows bytes, readiness and the end of either direction; must not know any protocol above. It calls its receiver
from the loop's callbacks: no task, future or lock in between (house §1).

Rules
* Reading: one `recv` of a record's worth per readiness, behind it up to seven, of at most 128 KiB together; behind
  so much the next one asks for all of it at once. Then the loop goes round (E2).
  OpenSSL works without read-ahead, so an unread record keeps the socket readable as long as we ask for 16 KiB.
* uvloop reports an error of the descriptor once and forgets the descriptor: bytes that lie in front of a reset would
  be read, and the reset never heard of. So who has an unfinished message says `greedy`, and reading goes on until
  the socket has no more; a failed write looks at the reading side itself, and who takes over the handshake's
  reader does not wait for readiness, which may have come. (Can go when uvloop's `UVPoll` stays.)
* `read_finished` closes a burst that left a message unfinished: whatever the receiver corked for the other side
  goes out then. The end of a message needs none, for it is never corked.
* Writing: straight to the socket; what it does not take waits in `_waiting`, above `HIGH_WATER` `write` says
  False, and `writable` is called once half of that has gone.
* A TLS write that wanted to wait is repeated with the same bytes in front; more may be appended behind them.
* A TLS write can want to *read*: the peer has sent half a message of a handshake (RFC 8446 §5.1 lets it), and OpenSSL
  sends nothing before it has the rest. Then the next read repeats it, not the room in the socket: that is there.
* A failed write does not end the reading: an early response may be waiting in the socket (RFC 9112 §9.5).
* `transport_closed` is called exactly once, and nothing after it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final

from OpenSSL import SSL

from ambassador.net.failures import TlsFailure, Truncated, WriteRefused
from ambassador.net.receiver import NOBODY

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.net.receiver import Receiver

    #: `recv` and `send` of a TLS connection, and the words for its errors: an exception with `reason`.
    Io = tuple[
        Callable[[int], bytes],
        Callable[[bytes | memoryview], int],
        Callable[[BaseException], Exception],
    ]

#: Bytes that may wait for the peer before `write` says False. With one burst of reading (128 KiB) above it, the
#: 256 KiB per direction of the house hold.
HIGH_WATER: Final = 96 * 1024
LOW_WATER: Final = HIGH_WATER // 2
#: One TLS record's worth (RFC 8446 §5.1); asking for less would leave bytes that select cannot see.
READ_SIZE: Final = 16384
READS_IN_A_ROW: Final = 8
#: The most that one turn of the loop takes from a socket.
BURST: Final = READS_IN_A_ROW * READ_SIZE
#: How long a closing transport waits for a peer that takes nothing; looked at once so often. Units: seconds.
CLOSE_WITHIN_S: Final = 30.0

#: The name by which the floors above hand one on without knowing what it is.
TlsConnection = SSL.Connection

_SMALL_RECORDS: Final = 64
_LINGER_RESET = struct.pack("ii", 1, 0)
_INT = struct.Struct("i")
_NO_BYTES = _INT.pack(0)
_WANT = (BlockingIOError, SSL.WantReadError, SSL.WantWriteError, InterruptedError)


class Budget:
    """Bytes that wait for slow peers in the whole process; above `ceiling` new exchanges are refused (E6).

    Units: bytes.
    """

    __slots__ = ("ceiling", "used")

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.used = 0

    def __repr__(self) -> str:
        return f"Budget({self.used} of {self.ceiling} bytes)"


class Transport:
    """A connected socket; see the module for its rules."""

    __slots__ = (
        "_asks",
        "_awaits_read",
        "_budget",
        "_closing",
        "_crashed",
        "_end_sent",
        "_eof_seen",
        "_explain",
        "_fd",
        "_loop",
        "_reads_on",
        "_recv",
        "_send",
        "_shut",
        "_socket",
        "_unheard",
        "_waiting",
        "_write_broken",
        "closed",
        "greedy",
        "progress",
        "reading",
        "receiver",
        "stalled",
        "starved",
        "tls",
        "truncates",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        tls: SSL.Connection | None,
        io: Io | None,
        budget: Budget,
        crashed: Callable[[BaseException], None],
        has_reader: bool = False,
    ) -> None:
        self._budget = budget
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self.tls = tls
        self._recv: Callable[[int], bytes] = sock.recv
        self._send: Callable[[bytes | memoryview], int] = sock.send
        self._explain: Callable[[BaseException], Exception] | None = None
        if io is not None:
            self._recv, self._send, self._explain = io
        self._crashed = crashed
        self._waiting = bytearray()
        self._awaits_read = False  # what waits can go out only after a read
        self._closing = False  # close once everything has gone
        self._shut = False  # our direction is ended, or will be once everything has gone
        self._end_sent = False
        # The peer is to see that something is missing: our end goes without close_notify.
        self.truncates = False
        self._write_broken = False
        self._eof_seen = False
        self._reads_on = False  # a call of the loop is on its way
        self._unheard = (
            False  # there may be more behind what was read, which no readiness announces
        )
        self.progress = 0  # bytes that had to wait and have gone since
        self._asks = READ_SIZE  # bytes to read first
        self.reading = has_reader  # the handshake's; `start` takes its place: two system calls less
        self.closed = False
        self.greedy = False  # the receiver has an unfinished message; asked anew with every piece
        self.stalled = False  # bytes wait for the peer
        self.starved = False  # somebody was told False and waits for writable()
        self.receiver: Receiver

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd {self._fd}, {len(self._waiting)} bytes waiting"
        return f"Transport({'tls' if self.tls is not None else 'plain'}, {state})"

    @property
    def waiting(self) -> int:
        """Bytes the peer has not taken yet."""
        return len(self._waiting)

    def is_acknowledged(self) -> bool:
        """Say whether the peer's side has all that we wrote: a reset would find nothing on its way."""
        return not self._waiting and not self.closed and self._in_flight() == 0

    def taken(self) -> int:
        """Give a number that grows with every byte of what had to wait that has arrived on the peer's side.

        Not `progress`: a kernel's buffer of megabytes says for long that it has no room, while the peer reads on.
        """
        return self.progress - (self._in_flight() or 0)

    def _in_flight(self) -> int | None:
        """Give the bytes that the peer's side has not acknowledged, None where the system cannot tell."""
        try:
            return int(
                _INT.unpack(fcntl.ioctl(self._fd, termios.TIOCOUTQ, _NO_BYTES))[0]
            )  # tcp(7): SIOCOUTQ
        except OSError:
            return None

    def start(self, receiver: Receiver) -> None:
        """Begin to read into `receiver`."""
        self.receiver = receiver
        self._unheard, self.reading = self.reading, False
        self.resume_reading()

    # ---- reading -------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Stop soon: what is already read still arrives."""
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Go on reading, unless the direction has ended."""
        if self.reading or self.closed or self._eof_seen or self._closing:
            return
        self.reading = True
        self._loop.add_reader(self._fd, self._on_readable)
        if self.tls is not None and (self._unheard or self.tls.pending()):
            # Decrypted bytes, or an error behind a burst or a handshake, that no readiness will announce.
            self._read_in_next_turn()

    def look(self) -> None:
        """Read what no readiness may have told of: a reset behind bytes that were read (see the rules)."""
        self._on_readable()

    def is_quiet(self) -> bool:
        """Say whether nothing has arrived that was not read yet, not even an end: an idle connection is alive."""
        if self._unheard:
            self._on_readable()
        if self.closed or self._eof_seen or self._write_broken or self._closing:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if self.tls is not None:
            # Session tickets may lie there (RFC 8446 §4.6.1): let the read take them, then judge.
            self._on_readable()
            return self._is_open()
        return False

    def _is_open(self) -> bool:
        return not self.closed and not self._eof_seen

    def _on_readable(self) -> None:
        if not self.reading:
            return  # paused or closed after this callback was queued
        if self._awaits_read:
            self._awaits_read = False
            self._loop.add_writer(self._fd, self._on_writable)  # after this read
        self._unheard = False
        try:
            data = self._recv(self._asks)
        except _WANT:
            self._asks = READ_SIZE
            return
        except SSL.ZeroReturnError:
            data = b""
        except (OSError, SSL.Error) as error:
            self._lost(self._worded(error))
            return
        try:
            if not data:
                self._end_of_input()
                return
            self.receiver.data_received(data)
            if len(data) >= READ_SIZE or self.greedy or self._asks > READ_SIZE:
                self._read_on(BURST - len(data))
            # else the message is whole, and what it brought has gone out with its end
        except Exception as error:  # the guard of this callback (E8)
            self.crash(error)

    def _read_on(self, left: int) -> None:
        """Take what more is there, so that a bulk transfer is written in large pieces, and close the burst."""
        error: BaseException | None = None
        ended = False
        self._asks = READ_SIZE
        self._unheard = True
        for _ in range(READS_IN_A_ROW - 1):
            if not self.reading:
                break
            if left < READ_SIZE:
                self._asks = BURST
                self._read_in_next_turn()
                break
            self.greedy = False
            try:
                data = self._recv(left)
            except _WANT:
                self._unheard = False
                break
            except SSL.ZeroReturnError:
                data = b""
            except (OSError, SSL.Error) as failure:
                error = failure
                break
            if not data:
                ended = True
                break
            self.receiver.data_received(data)
            left -= len(data)
        else:
            self._read_in_next_turn()
        if ended:
            self._end_of_input()
        elif not self.closed:
            self.receiver.read_finished()
            if error is not None:
                self._lost(self._worded(error))
            elif (
                self._awaits_read and not self.closed
            ):  # what it waits for may have been read in this burst
                self._awaits_read = False
                self._loop.add_writer(self._fd, self._on_writable)

    def _read_in_next_turn(self) -> None:
        """Not left to readiness, which may not come again (see the rules).

        Once per turn: readiness that comes as well would else add another call each time, and a peer at line rate
        take ever longer turns (E2).
        """
        if not self._reads_on:
            self._reads_on = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._reads_on = False
        self._on_readable()

    def _end_of_input(self) -> None:
        self.pause_reading()
        self._eof_seen = True
        if not self.closed:
            try:
                self.receiver.eof_received()
                if not self.closed:
                    self.receiver.read_finished()
            except Exception as error:  # the guard of this callback (E8)
                self.crash(error)

    # ---- writing -------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Send `data`, or keep what the peer does not take yet; False asks to wait for `writable`.

        Errors: none; a broken connection shows in the reading or through `transport_closed`.
        """
        if self._waiting:
            self._waiting += data
            self._budget.used += len(data)
        elif self._write_broken or self.closed or not data:
            # OpenSSL raises on empty writes though the connection is healthy.
            return True
        else:
            try:
                whole = len(data) <= READ_SIZE or self.tls is None
                sent = self._send(data) if whole else self._send_records(data)
            except _WANT as want:
                sent = 0
                self._awaits_read = isinstance(want, SSL.WantReadError)
            except (OSError, SSL.Error) as error:
                self._break_writing(error)
                return True
            if sent == len(data):
                return True
            self._keep(memoryview(data)[sent:])
        if len(self._waiting) > HIGH_WATER:
            self.starved = True
            return False
        return True

    def _keep(self, rest: memoryview) -> None:
        """Take over what one `send` left: of TLS exactly what has to be repeated."""
        self._waiting += rest
        self.stalled = True
        self._budget.used += len(rest)
        if not self._awaits_read:
            self._loop.add_writer(self._fd, self._on_writable)

    def _send_records(self, data: bytes | memoryview) -> int:
        """Send records, which OpenSSL writes one by one, in as few segments as if they were one piece."""
        corked = self._cork(1)
        try:
            return self._send(data)
        finally:
            if corked:
                self._cork(0)

    def _cork(self, on: int) -> bool:
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)  # tcp(7)
        except OSError:
            return False  # a Unix socket has no segments
        return True

    def _on_writable(self) -> None:
        waiting = self._waiting
        try:
            while waiting:
                with memoryview(waiting) as view, view[: READ_SIZE * 16] as piece:
                    sent = self._send(piece) if self.tls is None else self._send_records(piece)
                del waiting[:sent]
                self.progress += sent
                self._budget.used -= sent
        except _WANT as want:  # tell the receiver below about what has gone
            if isinstance(want, SSL.WantReadError):
                self._awaits_read = True
                self._loop.remove_writer(self._fd)
        except (OSError, SSL.Error) as error:
            self._break_writing(error)
            return
        except Exception as error:  # the guard of this callback (E8)
            self.crash(error)
            return
        if not waiting:
            self.stalled = False
            self._loop.remove_writer(self._fd)
            self._emptied()
        if self.starved and len(waiting) <= LOW_WATER and not self.closed:
            self.starved = False
            try:
                self.receiver.writable()
            except Exception as error:  # the guard of this callback (E8)
                self.crash(error)

    def _emptied(self) -> None:
        if self._closing:
            self._finish_close()
        elif self._shut:
            self._send_end()

    def _break_writing(self, error: BaseException) -> None:
        """Nothing more goes out; keep reading if we can, since the peer's last words may be in the socket."""
        self._write_broken = True
        self._drop_waiting()
        if self.tls is not None:
            # OpenSSL reads no more after a write that failed: what the peer said last can only be looked at.
            self.pause_reading()
            self._loop.call_soon(self._lost, WriteRefused(self._unread()))
            return
        if self._closing or not self.reading:
            self._loop.call_soon(self._lost, self._worded(error))
            return
        self.greedy = True
        self._loop.call_soon(self._on_readable)
        if self.starved:
            self.starved = False
            self._loop.call_soon(self._tell_writable)

    def _unread(self) -> bytes:
        try:
            return self._socket.recv(_SMALL_RECORDS, socket.MSG_PEEK)
        except OSError:
            return b""

    def _drop_waiting(self) -> None:
        if self.stalled:
            self._budget.used -= len(self._waiting)
            self._waiting.clear()
            self.stalled = False
            self._loop.remove_writer(self._fd)

    def _tell_writable(self) -> None:
        if not self.closed:
            try:
                self.receiver.writable()
            except Exception as error:  # the guard of this callback (E8)
                self.crash(error)

    # ---- ending --------------------------------------------------------------------------------------------

    def shutdown_write(self) -> None:
        """End our direction after what waits: close_notify on TLS, then FIN."""
        if self._shut or self.closed:
            return
        self._shut = True
        if not self._waiting:
            self._send_end()

    def _send_end(self) -> None:
        try:
            if self.tls is not None and not self.truncates:
                self.tls.shutdown()
            self._end_sent = True
            self._socket.shutdown(socket.SHUT_WR)
        except _WANT:
            self._await_room()
        except (OSError, SSL.Error):
            self._write_broken = True  # the peer is gone: the reading will say so

    def _await_room(self) -> None:
        """The socket has no room for close_notify: `_on_writable` comes back to it."""
        self.stalled = True
        self._loop.add_writer(self._fd, self._on_writable)

    def close(self) -> None:
        """Close in order once what waits has gone; the receiver hears `transport_closed(None)` at the end."""
        if self.closed or self._closing:
            return
        self._closing = True
        self.starved = False  # nobody waits for it any more
        self.pause_reading()
        if not self._waiting:
            self._finish_close()
        else:
            # Nobody above looks after it any more: without this a peer that never reads would keep it (E1).
            self._loop.call_later(CLOSE_WITHIN_S, self._check_closing, self.taken())

    def _check_closing(self, mark: int) -> None:
        if self.closed:
            return
        if self.taken() == mark:
            self.abort()
        else:  # slow, but it goes on taking what it was promised
            self._loop.call_later(CLOSE_WITHIN_S, self._check_closing, self.taken())

    def _finish_close(self) -> None:
        says_end = not (self._write_broken or self._end_sent or self.truncates)
        if self.tls is not None and says_end:
            # Without it the session could not be resumed and the peer would see truncation.
            try:
                self.tls.shutdown()
            except _WANT:
                self._await_room()
                self._loop.call_later(CLOSE_WITHIN_S, self._check_closing, self.taken())
                return
            except (OSError, SSL.Error):
                self._write_broken = True
        self._release(None)

    def abort(self) -> None:
        """Cut the connection at once, so that the peer sees truncation: no close_notify, RST instead of FIN."""
        if self.closed:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        except OSError:
            self._write_broken = True  # already dead: closing is all that is left
        self._release(None)

    def detach(self) -> None:
        """Close the socket without a word to the receiver, which ends by itself."""
        self.receiver = NOBODY
        self.abort()

    def _worded(self, error: BaseException) -> BaseException:
        """Say what an error means, as long as the connection that can tell is there."""
        if isinstance(error, SSL.SysCallError):
            if error.args and error.args[0] == -1:
                return Truncated("closed without close_notify")
        elif isinstance(error, SSL.Error) and self._explain is not None:
            refusal = self._explain(error)
            return TlsFailure(getattr(refusal, "reason", "tls_failed"), str(refusal))
        return error

    def _lost(self, error: BaseException) -> None:
        self._release(error)

    def crash(self, error: BaseException) -> None:
        """A bug of ours: this connection ends, the process goes on (E8)."""
        self._crashed(error)
        if self.closed:
            return
        try:
            self.abort()
        except Exception as second:  # the guard of the guard: the receiver failed again
            self._crashed(second)

    def _release(self, error: BaseException | None) -> None:
        if self.closed:
            return
        self.closed = True
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self._fd)
        self._drop_waiting()
        self._socket.close()
        self.receiver.transport_closed(error)
        # Breaks the cycles with receiver and OpenSSL, whose 27 KB would else wait for the rare collector.
        self.receiver = NOBODY
        self.tls = None
        self._explain = None
        self._recv = _gone_reading
        self._send = _gone_writing


def _gone_reading(_: int) -> bytes:
    raise BrokenPipeError


def _gone_writing(_: bytes | memoryview) -> int:
    raise BrokenPipeError
