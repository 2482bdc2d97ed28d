"""Delimited text to columns: blocks of lines at once, and line by line only to say which one is broken."""

import csv
from datetime import UTC, datetime
from itertools import islice

import numpy as np

from fastml.datasets._columns import find_columns, looks_like_header
from fastml.datasets._records import Records, id_array

_BLOCK = 1 << 16  # bytes; the strings of a larger one no longer fit the cache
_SHOWN = 60  # characters of a broken line


class _Ids(dict):
    """Codes 0, 1, ... of ids in the order they come; blanks around an id do not count."""

    def __init__(self, role):
        self.role = role
        self.names = []

    def __missing__(self, text):
        name = text.strip()
        if not name or "\0" in name:
            raise ValueError(f"the {self.role} id is empty or has a NUL character")
        if name == text:
            self[text] = len(self.names)
            self.names.append(name)
        else:
            self[text] = self[name]
        return self[text]

    def codes(self, texts):
        return np.fromiter(map(self.__getitem__, texts), np.int32, len(texts))


def _finite(role, convert, texts):
    try:
        numbers = np.fromiter(map(convert, texts), np.float64, len(texts))
    except (ValueError, OverflowError):
        raise ValueError(f"the {role} is not a number") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"the {role} is not finite")
    return numbers


def _seconds(text):
    """A number as it is; an ISO 8601 date in seconds since 1970, in UTC where it names no zone."""
    try:
        return float(text)
    except ValueError:
        date = datetime.fromisoformat(text.strip())
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _guessed_delimiter(line):
    """A tab; else the most frequent of ``:: , ; |``; else blanks."""
    if "\t" in line:
        return "\t"
    frequent = max(("::", ",", ";", "|"), key=line.count)
    return frequent if frequent in line else " "


def _fields(lines, delimiter):
    """The fields of each line. Quotes have a meaning in CSV only; a blank stands for any run of them."""
    if delimiter not in (",", ";"):
        return [line.split(delimiter if delimiter != " " else None) for line in lines]
    rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
    if len(rows) != len(lines):
        raise ValueError("a quoted field goes on in the next line")
    return rows


def _columns(lines, delimiter, n_fields):
    """The fields of each column."""
    if lines and delimiter != " ":
        text = "\n".join(lines)
        if delimiter not in (",", ";") or '"' not in text:
            fields = text.replace("\n", f"{delimiter}\n{delimiter}").split(delimiter)
            ends = fields[n_fields :: n_fields + 1]  # each is the end of a line, if all lines have their fields
            if len(fields) == len(lines) * (n_fields + 1) - 1 and ends.count("\n") == len(ends):
                return [fields[k :: n_fields + 1] for k in range(n_fields)]
    rows = _fields(lines, delimiter)
    wrong = set(map(len, rows)) - {n_fields}
    if wrong:
        raise ValueError(f"{wrong.pop()} fields, but the first line has {n_fields}")
    return list(zip(*rows, strict=True)) or [()] * n_fields


def _text_blocks(stream, name, encoding):
    """Pairs of the number of a line and the lines from there on, decoded, without their ends."""
    number = 1
    while raw := stream.read(_BLOCK) + stream.readline():
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            _refuse_bytes(raw, number, name, encoding)
        lines = text.removesuffix("\n").replace("\r\n", "\n").removesuffix("\r").split("\n")
        if number == 1:
            lines[0] = lines[0].removeprefix("\ufeff")
        yield number, lines
        number += len(lines)


def _refuse_bytes(raw, number, name, encoding):
    for i, line in enumerate(raw.split(b"\n"), number):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as error:
            shown = line[max(error.start - _SHOWN // 2, 0) :][:_SHOWN]
            raise ValueError(
                f"{name}, line {i} is not {encoding}: {shown!r}. Give its encoding, such as encoding='latin-1'."
            ) from error


class TextReader:
    """Reads one file; ``name`` stands in its errors.

    Parameters
    ----------
    name : str
        How to call the file.
    chosen : dict
        Columns as in ``find_columns``.
    delimiter : str or None
        What separates fields. None looks at the first line.
    header : bool or None
        Whether the first line has the names. None looks at the first two lines.
    """

    def __init__(self, name, chosen, *, delimiter, header):
        self.name = name
        self.chosen = chosen
        self.delimiter = delimiter
        self.header = header
        self.ids = {"user": _Ids("user"), "item": _Ids("item")}

    def read(self, stream, encoding):
        """Records of a binary stream of lines in an encoding that has ASCII as a part."""
        blocks = []
        for number, lines in _text_blocks(stream, self.name, encoding):
            skipped = self._begin(lines) if number == 1 else 0
            blocks.append(self._parsed(number + skipped, lines[skipped:]))
        if not any(len(block[0]) for block in blocks):
            raise ValueError(f"{self.name} has no interactions: {'only a header' if blocks else 'it is empty'}.")
        return self._records(blocks)

    def _begin(self, lines):
        """Find delimiter, header and columns in the first lines; return how many lines to skip."""
        filled = list(islice((i for i, line in enumerate(lines) if line.strip()), 2))
        if not filled:
            raise ValueError(f"{self.name} has no interactions: it begins with {len(lines)} empty lines.")
        if self.delimiter is None:
            self.delimiter = _guessed_delimiter(lines[filled[0]])
        rows = [self._blaming(i + 1, lines[i], lambda line: _fields(line, self.delimiter)[0]) for i in filled]
        self._blaming(filled[0] + 1, lines[filled[0]], lambda _: self._find_columns(*rows))
        return filled[0] + bool(self.header)

    def _find_columns(self, first, second=()):
        if self.header is None:
            by_name = any(isinstance(column, str) for column in self.chosen.values())
            self.header = by_name or looks_like_header(first, second)
        self.n_fields = len(first)
        names = [field.strip() for field in first] if self.header else None
        self.columns = find_columns(self.chosen, self.n_fields, names)

    def _parsed(self, number, lines):
        """Codes of users and items, values and timestamps of a block of lines, the first of which has this number."""
        try:
            return self._converted(list(filter(str.strip, lines)))
        except (ValueError, csv.Error):
            for i, line in enumerate(lines, number):
                if line.strip():
                    self._blaming(i, line, self._converted)
            raise

    def _blaming(self, number, line, function):
        """The result of ``function([line])``; its error names the line."""
        try:
            return function([line])
        except (ValueError, csv.Error) as error:
            shown = line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
            raise ValueError(
                f"{self.name}, line {number}: {str(error).rstrip('.?')}. The line is {shown!r}."
            ) from error

    def _converted(self, lines):
        texts = _columns(lines, self.delimiter, self.n_fields)
        codes = [self.ids[role].codes(texts[self.columns[role]]) for role in ("user", "item")]
        for role, convert in (("value", float), ("timestamp", _seconds)):
            column = self.columns[role]
            codes.append(None if column is None else _finite(role, convert, texts[column]))
        return codes

    def _records(self, blocks):
        parts = zip(*blocks, strict=True)
        users, items, *numbers = (None if part[0] is None else np.concatenate(part) for part in parts)
        return Records(users, items, *(id_array(self.ids[role].names) for role in ("user", "item")), *numbers)


def read_text(stream, name, chosen, *, delimiter=None, header=None, encoding="utf-8"):
    """Records of a binary stream of lines; see ``TextReader``.

    Raises
    ------
    ValueError
        For a line that is broken, by number; for a file without interactions.
    LookupError
        If there is no such encoding.
    """
    if "\n1".encode(encoding) != b"\n1":
        raise ValueError(f"encoding must have ASCII as a part, such as 'utf-8' or 'latin-1', got {encoding!r}.")
    return TextReader(name, chosen, delimiter=delimiter, header=header).read(stream, encoding)
