"""What a long command has measured so far: one JSON document, kept in a file after every row, so that the command can go on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unmask.cli.files import check_output, read_text, write_text
from unmask.errors import UnmaskError


class Record:
    """A document of a head, which says what is measured, and a body, which begins empty.

    Args:
        head: what must be the same for the rows to be; JSON values.
        body: fields and their empty values; dictionaries of lists may nest.
        path: where it is kept; None: nowhere. A file that is there is gone on with.

    Raises:
        UnmaskError: a file that cannot be read or written, that is none of these documents, whose head differs, or that another process
            writes to meanwhile; the last may also come from `add` and `set`.
    """

    def __init__(self, head: Mapping[str, Any], body: Mapping[str, Any], path: Path | None) -> None:
        self.document: dict[str, Any] = json.loads(json.dumps({**head, **body}))
        self._path, self._written = path, ""
        if path is None:
            return
        check_output(path)
        if path.exists():
            self._written = read_text(path)
            self.document = _read(path, self._written, self.document, tuple(head))
        self._save()

    def row(self, *table: str, **key: Any) -> dict[str, Any] | None:
        """The row of a table whose fields have the values of `key`, or None."""
        rows = self._table(table)
        return next((row for row in rows if all(row[name] == value for name, value in key.items())), None)

    def add(self, *table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put rows at the end of a table.

        Raises:
            UnmaskError: the file cannot be written.
        """
        self._table(table).extend(json.loads(json.dumps(rows)))
        self._save()

    def set(self, field: str, value: Any) -> None:
        """Give a field of the body its value.

        Raises:
            UnmaskError: the file cannot be written.
        """
        self.document[field] = value
        self._save()

    def text(self) -> str:
        """The document as JSON on one line."""
        return json.dumps(self.document)

    def _table(self, table: tuple[str, ...]) -> list[dict[str, Any]]:
        found: Any = self.document
        for name in table:
            found = found[name]
        rows: list[dict[str, Any]] = found
        return rows

    def _save(self) -> None:
        if self._path is None:
            return
        if self._path.exists() and read_text(self._path) != self._written:
            raise UnmaskError(f"{self._path}: changed by someone else meanwhile; nothing is written over it")
        self._written = self.text() + "\n"
        write_text(self._written, self._path)


def _read(path: Path, text: str, expected: dict[str, Any], head: tuple[str, ...]) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise UnmaskError(f"{path}: not a record of this command; name another file, or remove it") from None
    if not isinstance(found, dict) or found.keys() != expected.keys():
        raise UnmaskError(f"{path}: not a record of this command; name another file, or remove it")
    for name in head:
        if (difference := _difference(name, found[name], expected[name])) is not None:
            raise UnmaskError(f"{path}: measured with other settings: {difference}; name another file, or remove it")
    return found


def _difference(name: str, found: Any, expected: Any) -> str | None:
    """The first field in which two values differ, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**expected, **found}:
            if (inner := _difference(f"{name}.{key}", found.get(key), expected.get(key))) is not None:
                return inner
        return None
    return None if found == expected else f"{name} is {json.dumps(found)} there, {json.dumps(expected)} here"
