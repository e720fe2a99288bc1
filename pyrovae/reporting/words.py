"""Values in words: numbers with their errors, options, durations, and nested figures as lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]


def in_words(value: Any) -> str:
    """A value of an option or a figure, as a reader takes it.

    >>> in_words([300, 300]), in_words(None), in_words(True), in_words(-25.12345)
    ('300, 300', '-', 'yes', '-25.1234')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e-3 or abs(value) >= 1e6 else f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {in_words(part)}" for name, part in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value)) or "none"
    return str(value)


def with_error(value: Any, error: float | None) -> str:
    """A number with its standard error, rounded to two digits of the error.

    >>> with_error(-25.12345, 0.3141), with_error(0.125, None), with_error(1234.5, 67.8)
    ('-25.12 ± 0.31', '0.125', '1234 ± 68')
    """
    if error is None or not isinstance(value, float) or not math.isfinite(error) or error <= 0:
        return in_words(value)
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def in_full(value: Any) -> str:
    """A figure as JSON has it."""
    return json.dumps(value)


def lines_of(name: str, value: Any) -> Iterator[tuple[Path, Any]]:
    """A figure as lines: one for each number that it holds, by its path.

    >>> list(lines_of("imputation", {"vae": {"rmse": 0.1}, "knn": {"rmse": 0.2}}))
    [(('imputation', 'vae', 'rmse'), 0.1), (('imputation', 'knn', 'rmse'), 0.2)]
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from (((name, *path), number) for path, number in lines_of(str(key), part))
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            yield from (((name, *path), number) for path, number in lines_of(str(key), part))
    else:
        yield (name,), value


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(3.21), duration(200), duration(7300)
    ('3.2 s', '3 min 20 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
