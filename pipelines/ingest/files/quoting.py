"""Find the quotes of a CSV file that would swallow rows, before the first row is read.

The parser lets a quoted value run on until the next quote, over as many lines as that takes, and takes whatever stands
behind it as its end. So the text is held against the grammar first: behind a closing quote stands a delimiter or the
end of the line. One pass of a regular expression that never goes back, and only where the file has quotes at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pipelines.ingest.errors import RefusedFile

# Behind these many a file is none that quotes.
MAX_BAD_LINES = 10_000
_SHOWN = 40
_BLANKS = " \t"
_ADVICE = (
    'if this file does not quote, say `quote: none` in the mapping, else double the quotes inside of values (`""`)'
)


@dataclass
class QuoteScan:
    """The quotes of one file, fed as text in order; `bad_lines` are rows with a malformed quote that ends in them."""

    name: str
    delimiter: str
    longest: int
    bad_lines: dict[int, str] = field(default_factory=dict)
    _rest: str = ""
    _line: int = 1

    def __post_init__(self) -> None:
        out = re.escape(self.delimiter)
        blank = f"[{_BLANKS.replace(self.delimiter, '')}]*+"
        quoted = r'"[^"]*+(?:""[^"]*+)*+"'
        bare = rf'[^"{out}\r\n][^{out}\r\n]*+'
        end = r"(?:\r\n|\n|\r)"
        sound = rf"(?:{quoted}{blank}(?=[{out}\r\n])|{bare}|)"
        loose = rf"(?:{quoted}[^{out}\r\n]*+|{bare}|)"
        self._sound = re.compile(rf"(?:{sound}(?:{out}{sound})*+{end})*+")
        self._one_sound = re.compile(rf"{sound}(?:{out}{sound})*+{end}")
        self._loose = re.compile(rf"{loose}(?:{out}{loose})*+{end}")
        self._tail = re.compile(rf"(?:(?<=[{out}])|^)({quoted})({blank}[^{out}\r\n \t][^{out}\r\n]*+)")
        self._loose_fields = re.compile(rf"{loose}(?:{out}{loose})*+(?:{out})?")

    def feed(self, text: str) -> None:
        """Take the next part of the file; raises RefusedFile where a quote swallows the lines behind it."""
        text = self._rest + text
        # What a carriage return at the very end means is known with the next part.
        held = "\r" if text.endswith("\r") else ""
        self._rest = self._scan(text[: len(text) - len(held)]) + held
        if len(self._rest) > self.longest:
            self._refuse_open(self._rest, f"that is not closed within {self.longest:,} characters")

    def close(self) -> None:
        """Take the end of the file; raises RefusedFile for a quote that is never closed."""
        rest = self._scan(self._rest + "\n") if self._rest else ""
        if rest:
            self._refuse_open(rest, "that is never closed")

    def _scan(self, text: str) -> str:
        """Go through the whole rows of the text and return what is left of its last row."""
        at = 0
        while at < len(text):
            at = self._pass_sound(text, at)
            bad = self._loose.match(text, at)
            if bad is None or bad.end() == at:
                break
            self._note(bad.group())
            at = bad.end()
        return text[at:]

    def _pass_sound(self, text: str, at: int) -> int:
        found = self._sound.match(text, at)
        end = at if found is None else found.end()
        passed = text[at:end]
        if "\r" in passed and passed.count("\r") != passed.count("\r\n"):
            # A lone carriage return ends a row but breaks no line inside of quotes: such rows are counted one by one.
            rows = [row.group() for row in self._one_sound.finditer(passed)]
            self._line += sum(1 + _breaks(row) for row in rows)
        else:
            self._line += passed.count("\n")
        return end

    def _note(self, row: str) -> None:
        tail = self._tail.search(row)
        quoted, behind = tail.groups() if tail is not None else ("", "")
        if "\n" in quoted or "\r" in quoted:
            first = self._line + row[: tail.start() if tail is not None else 0].count("\n")
            last = first + quoted.count("\n")
            raise RefusedFile(
                f"`{self.name}` opens a quote in line {first} that closes in line {last}, before "
                f"`{behind.strip()[:_SHOWN]}`, and would swallow the rows between; {_ADVICE}."
            )
        self.bad_lines[self._line] = row.rstrip("\r\n")[:MAX_BAD_LINES]
        if len(self.bad_lines) > MAX_BAD_LINES:
            raise RefusedFile(
                f"`{self.name}` has more than {MAX_BAD_LINES:,} rows with a stray quote, the last of them in line "
                f"{self._line}; {_ADVICE}."
            )
        self._line += 1 + _breaks(row)

    def _refuse_open(self, rest: str, what: str) -> None:
        sound = self._loose_fields.match(rest)
        line = self._line + rest[: sound.end() if sound is not None else 0].count("\n")
        raise RefusedFile(f"`{self.name}` opens a quote in line {line} {what}; {_ADVICE}.")


def _breaks(row: str) -> int:
    """Return the line breaks inside of a row, not the one that ends it."""
    return row.count("\n") - row.endswith("\n")
