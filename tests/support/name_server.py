"""A name server that says what a test wants: on UDP and TCP of one port, in the loop of the test.

    async with ScriptedNameServer() as server:
        server.say("_mtls._tcp.pay.test.", "SRV", "0 5 8443 a.test.")
        server.say("a.test.", "A", "10.0.0.1", along=True)      # in the Additional section too
        server.fail("a.test.", "AAAA", rcode="SERVFAIL")

It is strict: a query that is not one question with recursion desired is an error that ends the test. A name of which
nothing was said is NXDOMAIN, one of which something else was said has no such record.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset

from ambassador.core.model import Address

HOST = "127.0.0.9"
_UDP_MOST = 512  # without EDNS (RFC 1035 §2.3.4)


class ScriptedNameServer:
    """`questions` are (transport, name, kind of record), in the order in which they came.

    `odd` is what goes into the Additional section of answers with SRV records besides.
    """

    def __init__(self) -> None:
        self.questions: list[tuple[str, str, str]] = []
        self.errors: list[str] = []
        self.odd: list[dns.rrset.RRset] = []
        self._records: dict[tuple[str, str], dns.rrset.RRset] = {}
        self._along: set[tuple[str, str]] = set()
        self._failures: dict[tuple[str, str], str] = {}
        self._tcp: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._tcp is not None
        return Address(HOST, self._tcp.sockets[0].getsockname()[1])

    # --- what it says

    def say(self, name: str, kind: str, *records: str, ttl: int = 60, along: bool = False) -> None:
        """Answer so from now on; `along` puts it into the Additional section of answers with SRV records."""
        key = (name, kind)
        self._failures.pop(key, None)
        self._records[key] = dns.rrset.from_text(name, ttl, "IN", kind, *records)
        self._along = self._along | {key} if along else self._along - {key}

    def fail(self, name: str, *kinds: str, rcode: str = "SERVFAIL") -> None:
        """Answer with this code from now on; `silence` is no answer at all."""
        for kind in kinds:
            self._failures[name, kind] = rcode
            self._along.discard((name, kind))

    def asked(self, name: str) -> list[str]:
        """Give the kinds of records that were asked for, each once."""
        return sorted({kind for _, asked, kind in self.questions if asked == name})

    # --- how it runs

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, HOST, 0)
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(HOST, self.address.port)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._tcp is not None
        assert self._udp is not None
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()
        if error is None:
            assert not self.errors, self.errors

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        """Give the answer to a query; None is silence."""
        query = dns.message.from_wire(wire)
        self._check(query)
        name = query.question[0].name.canonicalize().to_text()
        kind = query.question[0].rdtype.name
        self.questions.append((transport, name, kind))
        if self._failures.get((name, kind)) == "silence":
            return None
        reply = self._reply(query, name, kind)
        answer: bytes = reply.to_wire(max_size=65_535)
        if transport == "udp" and len(answer) > _UDP_MOST:
            reply = dns.message.make_response(query, recursion_available=True)
            reply.flags |= dns.flags.TC
            answer = reply.to_wire()
        return answer

    def _reply(self, query: dns.message.Message, name: str, kind: str) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        failure = self._failures.get((name, kind))
        if failure is not None:
            reply.set_rcode(dns.rcode.from_text(failure))
            return reply
        name = self._follow(name, reply)
        found = self._records.get((name, kind))
        if found is not None:
            reply.answer.append(found)
        elif not any(known == name for known, _ in self._records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        if found is not None and kind == "SRV":
            reply.additional.extend(self._records[key] for key in sorted(self._along))
            reply.additional.extend(self.odd)
        return reply

    def _follow(self, name: str, reply: dns.message.Message) -> str:
        """Answer with the aliases of a name, and give the last one."""
        while alias := self._records.get((name, "CNAME")):
            reply.answer.append(alias)
            name = alias[0].target.to_text()
        return name

    def _check(self, query: dns.message.Message) -> None:
        if len(query.question) != 1 or query.opcode() != dns.opcode.QUERY:
            self.errors.append(f"not one question: {query}")
        if query.flags & (dns.flags.QR | dns.flags.RD) != dns.flags.RD:
            self.errors.append(f"not a query that desires recursion: {query}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2))
            answer = self.answer(await reader.readexactly(size), "tcp")
            if answer is not None:
                writer.write(len(answer).to_bytes(2) + answer)
        finally:
            writer.close()
            await writer.wait_closed()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: ScriptedNameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # it is one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        answer = self._server.answer(data, "udp")
        if answer is not None:
            self._transport.sendto(answer, addr)
