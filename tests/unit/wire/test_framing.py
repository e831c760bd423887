from __future__ import annotations

from ambassador.wire import framing


def test_every_framing_has_a_name_at_its_number() -> None:
    """Names are what logs and `repr` show for the small integers."""
    numbers = {name: getattr(framing, name.upper()) for name in framing.NAMES}

    assert list(numbers.values()) == [0, 1, 2, 3, 4]
