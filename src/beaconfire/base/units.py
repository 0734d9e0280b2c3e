"""Durations and sizes with units, as in the configuration: `"25s"`, `"1h30m"`, `"64KiB"`."""

from __future__ import annotations

import re

_DURATION_PARTS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_SIZE = re.compile(r"(\d+)\s*([a-zA-Z]*)")


class Seconds(float):
    """A duration in seconds. The configuration gives a number of seconds or text: `"25s"`, `"300ms"`, `"1h30m"`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Seconds:
        """Raises ValueError, which says what is expected, for anything but a finite duration of zero or more."""
        expected = 'a duration of zero or more like "25s", "300ms" or "1h30m"'
        if isinstance(value, str):
            text = value.strip()
            if _DURATION.fullmatch(text):
                value = sum(float(n) * _DURATION_PARTS[unit] for n, unit in _DURATION_PART.findall(text))
            else:
                try:
                    value = float(text)
                except ValueError:
                    raise ValueError(f"expected {expected}, got {value!r}") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"expected {expected}, got {value!r}")
        return cls(value)

    def __str__(self) -> str:
        """Text in the largest unit that fits. `parse` reads it as the same duration."""
        if self and self < 1:
            return f"{self * 1000:.15g}ms"
        for unit in ("d", "h", "m"):
            if self and self % _DURATION_PARTS[unit] == 0:
                return f"{self / _DURATION_PARTS[unit]:.15g}{unit}"
        return f"{float(self):.15g}s"


class Size(int):
    """A size in bytes. The configuration gives a number or text: `"64KiB"`, `"1MB"`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Size:
        """Raises ValueError, which says what is expected, for anything but a whole number of zero or more."""
        expected = 'a number of bytes of zero or more like 65536, "64KiB" or "1MB"'
        if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
            number, unit = match.groups()
            if unit.lower() in _SIZE_UNITS:
                return cls(int(number) * _SIZE_UNITS[unit.lower()])
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"expected {expected}, got {value!r}")
        return cls(value)

    def __str__(self) -> str:
        """Text in the largest binary unit that fits. `parse` reads it as the same size."""
        for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
            if self and self % factor == 0:
                return f"{self // factor}{unit}"
        return f"{int(self)}"
