"""What a bug of ours inside an exchange becomes: the end of that exchange, on both sides, and of nobody else's (E8).

An exchange is called by two transports. The guard of each knows its own socket only, and would leave the other side
waiting for what never comes. Knows how a step is called; must not know what it does.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.proxy.exchange import Exchange

P = ParamSpec("P")


def guard_steps(owner: type[Exchange], *names: str) -> None:
    """Give each of these methods its guard; where a frame more is too much, the method has it written out."""
    for name in names:
        setattr(owner, name, _guarded(getattr(owner, name)))


def _guarded(
    step: Callable[Concatenate[Exchange, P], None],
) -> Callable[Concatenate[Exchange, P], None]:
    @wraps(step)
    def run(self: Exchange, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            step(self, *args, **kwargs)
        except Exception as error:  # the guard of this callback (E8)
            self.crash(error)

    return run
