r"""The equations of docstrings as LaTeX.

Headers write mathematics as one types it: `L = sum_{k != i} exp(s(z_i, z_k) / t)`. The notation is
regular enough to be set: letters are symbols, words are prose, `_` and `^` bind what follows.

    >>> line("L = mean over j of |y_j - t_j|^2")
    'L = \\operatorname{mean}\\text{ over }j\\text{ of }|y_{j} - t_{j}|^{2}'
"""

from __future__ import annotations

import re

FUNCTIONS = frozenset(
    ("log", "exp", "cos", "max", "min", "mean", "softmax", "relu", "sqrt", "argmin", "sg", "var")
)
GREEK = frozenset(
    ("alpha", "beta", "gamma", "epsilon", "theta", "lambda", "mu", "pi", "rho", "sigma", "tau")
)
_OPERATORS = {
    "!=": r"\ne ",
    "<=": r"\le ",
    ">=": r"\ge ",
    "->": r"\to ",
    "<-": r"\gets ",
    "...": r"\dots ",
    "..": r"\dots ",
    "||": r"\|",
    "{": r"\{",
    "}": r"\}",
    "~": r"\sim ",
    "*": r"\cdot ",
    ".": r"\cdot ",
    "×": r"\times ",
    "%": r"\%",
    "#": r"\#",
    "&": r"\&",
    "$": r"\$",
}
_TOKEN = re.compile(
    r"(?P<code>`[^`]*`)"
    r'|(?P<quote>"[^"]*")'
    r"|(?P<power>\d+(\.\d+)?e-?\d+)"
    r"|(?P<number>\d+(\.\d+)?)"
    r"|(?P<numbered>[A-Za-z]\d(?![\w.]))"
    r"|(?P<name>[A-Za-z]{2,}_([a-z]{3,}|[a-z]\d)(?![A-Za-z]))"
    r"|(?P<word>[A-Za-z]{2,}'s|[A-Za-z]+(?:-[A-Za-z]{2,})*)"
    r"|(?P<gap> {2,})"
    r"|(?P<space> )"
    r"|(?P<operator>!=|<=|>=|->|<-|\.\.\.|\.\.|\|\||[^\w\s])"
    r"|(?P<other>.)"
)


def equation(block: str) -> list[str]:
    """The lines of an indented block as LaTeX; lines that continue one are moved in."""
    lines = [text for text in block.splitlines() if text.strip()]
    edge = min(len(text) - len(text.lstrip()) for text in lines)
    return [
        ("\\qquad " if len(text) - len(text.lstrip()) > edge else "") + line(text.strip())
        for text in lines
    ]


def line(text: str) -> str:
    """One line of an equation as LaTeX."""
    return _Reader(text).read()


class _Reader:
    """Walks over one line; prose is gathered so that its spaces survive."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.out: list[str] = []
        self.prose = ""

    def read(self) -> str:
        while self.at < len(self.text):
            found = _TOKEN.match(self.text, self.at)
            assert found is not None
            assert found.lastgroup is not None
            self.at = found.end()
            kind = next(name for name, value in found.groupdict().items() if value is not None)
            getattr(self, f"_{kind}")(found.group())
        self._flush()
        return "".join(self.out).strip()

    def _emit(self, latex: str) -> None:
        self._flush()
        self.out.append(latex + self._scripts())

    def _flush(self) -> None:
        if self.prose.strip():
            self.out.append(rf"\text{{{self.prose}}}")
        elif self.prose:
            self.out.append(" ")
        self.prose = ""

    def _scripts(self) -> str:
        """Primes, subscripts and powers that follow directly."""
        found = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "'":
                found, self.at = found + "'", self.at + 1
            elif char in "_^" and self.at + 1 < len(self.text):
                self.at += 1
                found += f"{char}{{{self._script()}}}"
            else:
                break
        return found

    def _script(self) -> str:
        rest = self.text[self.at :]
        if rest[0] in "{(":
            inner = _bracketed(rest)
            self.at += len(inner) + 2
            return line(inner)
        found = re.match(r"\d+|[A-Za-z]+|.", rest)
        assert found is not None
        self.at += found.end()
        name = found.group()
        if name == "T":
            return r"\top"
        if name in GREEK:
            return f"\\{name}"
        return name if len(name) <= 2 or name.isdigit() else rf"\text{{{name}}}"

    def _word(self, word: str) -> None:
        follows = self.text[self.at : self.at + 1]
        if word == "sqrt" and follows == "(":
            inner = _bracketed(self.text[self.at :])
            self.at += len(inner) + 2
            self._emit(rf"\sqrt{{{line(inner)}}}")
        elif word == "sum":
            self._emit(r"\sum ")
        elif word in ("lambd", *GREEK):
            name = "lambda" if word == "lambd" else word
            if self.text.startswith("_hat", self.at):
                self.at += len("_hat")
                self._emit(rf"\hat{{\{name}}}")
            else:
                self._emit(f"\\{name} ".rstrip() if follows in ("_", "^") else f"\\{name} ")
        elif word == "in" and self._after_symbol():
            self._emit(r"\in ")
        elif word in FUNCTIONS and not self.prose.strip():
            self._emit(rf"\operatorname{{{word}}}")
        elif len(word) == 1 and follows == "~":
            self.at += 1
            self._emit(rf"\tilde{{{word}}}")
        elif len(word) == 1 and not (word == "a" and follows == " " and self.prose.strip()):
            self._emit(word)
        elif word.isalpha() and follows in ("_", "^", "'", "("):
            self._emit(rf"\operatorname{{{word}}}")
        else:
            self.prose += word

    def _after_symbol(self) -> bool:
        """Whether the last thing written was a symbol: `k in queue`."""
        return not self.prose.strip() and bool(self.out) and self.out[-1][:1].isalpha()

    def _numbered(self, text: str) -> None:
        letter, number = text
        if self.text[self.at : self.at + 1] == "~":
            self.at += 1
            letter = rf"\tilde{{{letter}}}"
        self._emit(f"{letter}_{{{number}}}")

    def _name(self, text: str) -> None:
        stem, _, tail = text.partition("_")
        if tail in GREEK or text == "theta_hat":  # bound below or above, as elsewhere
            self.at -= len(tail) + 1
            self._word(stem)
        else:
            self._emit(rf"\text{{{text}}}")

    def _code(self, text: str) -> None:
        self._emit(rf"\text{{{text[1:-1]}}}")

    def _quote(self, text: str) -> None:
        self.prose += text

    def _power(self, text: str) -> None:
        base, _, exponent = text.partition("e")
        self._emit(rf"10^{{{exponent}}}" if base == "1" else rf"{base}\cdot 10^{{{exponent}}}")

    def _number(self, text: str) -> None:
        self._emit(text)

    def _gap(self, text: str) -> None:
        self._flush()
        self.out.append(r"\quad ")

    def _space(self, text: str) -> None:
        self.prose += text

    def _operator(self, text: str) -> None:
        # A full stop, comma or dash inside prose belongs to it; between symbols it is a sign.
        if text in ",;:" and self.prose.strip():
            self.prose += text
        else:
            self._emit(_OPERATORS.get(text, text))

    def _other(self, text: str) -> None:
        self.prose += text


def _bracketed(text: str) -> str:
    """What stands between the bracket that `text` begins with and its partner."""
    close = {"(": ")", "{": "}"}[text[0]]
    depth = 0
    for at, char in enumerate(text):
        depth += (char == text[0]) - (char == close)
        if depth == 0:
            return text[1:at]
    raise ValueError(f"no {close!r} closes {text!r}")
