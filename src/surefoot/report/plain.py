r"""A statement in plain text as LaTeX: `L_t <= (1 - eta lambda0/2)^t L_0` for who wrote no LaTeX of it."""

from __future__ import annotations

import re

GREEK = frozenset(
    (
        "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "iota", "kappa",
        "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
        "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
    )
)  # fmt: skip
# Set upright, as the operators that they are.
OPERATORS = frozenset(("exp", "log", "ln", "max", "min", "sup", "inf", "det", "cos", "sin", "Pr"))
UPRIGHT = frozenset(
    (
        "tr", "KL", "median", "mean", "eig", "gap", "rank", "diag", "Var", "span", "sign", "erf", "TPR",
        "FPR", "BFGS", "TF",
    )
)  # fmt: skip
SHORT = {"lam": "lambda", "eps": "varepsilon"}
BIG = {"sum": r"\sum", "prod": r"\prod", "grad": r"\nabla", "infinity": r"\infty", "sqrt": r"\sqrt"}
SIGNS = {
    "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "->": r"\to", "<-": r"\leftarrow", "||": r"\|", "<": "<",
    ">": ">", "%": r"\%", "&": r"\&", "#": r"\#", "~": r"\sim ", "$": r"\$", "{": r"\{", "}": r"\}",
    "\\": r"\backslash ",
}  # fmt: skip
# Between a formula and what is said of it.
STOPS = {",\\": ", ", ":": ": ", ";": "; "}
TOKEN = re.compile(
    r"(?P<power>\d+(?:\.\d+)?e[+-]?\d+)|(?P<number>\d*\.?\d+)|(?P<word>[A-Za-z][A-Za-z-]*[A-Za-z]|[A-Za-z])"
    r"|(?P<sign><=|>=|!=|->|<-|\|\||.)|(?P<space>\s+)",
    re.S,
)


def latex_of(statement: str) -> str:
    """The LaTeX of a plain statement: relations, indices, powers, roots and Greek; words stay words."""
    return _Reader(statement).read()


def pieces_of(statement: str) -> list[tuple[bool, str]]:
    """A plain statement as (is it mathematics, LaTeX or words), so that its words can break a line."""
    found: list[tuple[bool, str]] = []
    for piece in _Reader(statement).pieces():
        words = piece.startswith("\\text{") or piece in STOPS
        text = STOPS.get(piece, piece[len("\\text{") : -1] if words else piece)
        if found and found[-1][0] is not words:
            found[-1] = not words, found[-1][1] + text
        elif text.strip() or not found:
            found.append((not words, text))
    return [(mathematics, " ".join(text.split())) for mathematics, text in found if text.strip()]


class _Reader:
    """Goes through the tokens once; a group in brackets is read by a reader's own recursion."""

    def __init__(self, text: str) -> None:
        self._tokens = [
            (str(m.lastgroup) if not m.group().isspace() else "space", m.group())
            for m in TOKEN.finditer(text)
        ]
        self._at = 0

    def read(self, closing: str = "") -> str:
        """Up to the end, or to the bracket that closes the group."""
        return "".join(self.pieces(closing))

    def pieces(self, closing: str = "") -> list[str]:
        """What `read` puts together."""
        made: list[str] = []
        while self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if closing and text == closing:
                break
            made.append(self._one(kind, text, made))
        return made

    def _one(self, kind: str, text: str, made: list[str]) -> str:
        self._at += 1
        if kind == "space":
            return " "
        if kind == "power":
            digits, _, exponent = text.partition("e")
            ten = f"10^{{{int(exponent)}}}"
            return ten if float(digits) == 1 else f"{digits}\\cdot {ten}"
        if kind == "number":
            return text
        if kind == "word":
            return self._word(text)
        if text in ("_", "^") and "".join(made).strip():
            # f*^2: one exponent of two signs, as LaTeX knows no second one.
            star = made.pop()[2:-1] if text == "^" and made[-1] == "^{*}" else ""
            return f"{text}{{{star}{self._script()}}}"
        if text == "*":
            return self._star(made)
        if text == "~" and made and len(made[-1]) == 1 and made[-1].isalpha():
            return f"\\tilde{{{made.pop()}}}"
        if text == "'":
            # Behind a closing bracket or a letter it is a prime, or the transpose.
            return "'" if made and not made[-1].isspace() else r"\text{'}"
        if text == "," and self._next().isspace():
            return ",\\"
        if text in "([":
            return self._group(text)
        return SIGNS.get(text, text.replace("_", r"\_").replace("^", r"\hat{}"))

    def _group(self, opening: str) -> str:
        closing = {"(": ")", "[": "]"}[opening]
        inner = self.read(closing)
        if self._at < len(self._tokens):
            self._at += 1
            return f"{opening}{inner}{closing}"
        return f"{opening}{inner}"

    def _script(self) -> str:
        """What stands behind _ or ^: a group without its brackets, or one token with its sign and star."""
        if self._at >= len(self._tokens):
            return ""
        kind, text = self._tokens[self._at]
        closing = {"(": ")", "{": "}"}.get(text)
        if closing is not None:
            self._at += 1
            inner = self.read(closing)
            self._at += 1
            return inner
        made = self._one(kind, text, []) if not _letters(kind, text) else text
        self._at += _letters(kind, text)
        if text in "-+" and self._at < len(self._tokens):
            made += self._one(*self._tokens[self._at], [made])
        while self._next() == "'":
            self._at += 1
            made += "'"
        return made

    def _star(self, made: list[str]) -> str:
        """A star behind a letter is an index; between two numbers it is a product."""
        before = made[-1] if made else ""
        after = self._tokens[self._at][1] if self._at < len(self._tokens) else " "
        if before and not before.isspace() and not (before[-1:].isdigit() and after[:1].isdigit()):
            return "^{*}"
        return r"\cdot "

    def _word(self, word: str) -> str:
        if word in GREEK or word in SHORT:
            return f"\\{SHORT.get(word, word)} " + self._index(squared=word == "sigma")
        if word in OPERATORS:
            return f"\\{word} "
        if word in UPRIGHT:
            return f"\\mathrm{{{word}}}" + ("\\," if self._next() == " " else "")
        if word == "sqrt":
            return self._root()
        if word in BIG:
            return f"{BIG[word]} "
        if len(word) == 1 and not (word in "aA" and self._article()):
            return word + self._index()
        return self._text(word)

    def _next(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at][1] if at < len(self._tokens) else ""

    def _article(self) -> bool:
        """An "a" before a word of several letters."""
        word = self._next(1)
        return (
            self._next() == " "
            and len(word) > 1
            and word.isalpha()
            and word not in GREEK | OPERATORS
        )

    def _index(self, squared: bool = False) -> str:
        """Digits right behind a letter: W2, lambda0; sigma2 is a variance."""
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "number":
            digits = self._tokens[self._at][1]
            self._at += 1
            return "^{2}" if squared and digits == "2" else f"_{{{digits}}}"
        return ""

    def _root(self) -> str:
        if self._next() == "(":
            self._at += 1
            inner = self.read(")")
            self._at += 1
            return f"\\sqrt{{{inner}}}"
        if self._at < len(self._tokens) and self._tokens[self._at][0] in ("number", "word"):
            return f"\\sqrt{{{self._one(*self._tokens[self._at], [])}}}"
        return r"\sqrt{}"

    def _text(self, word: str) -> str:
        """This word and those that follow it with nothing but spaces and commas between."""
        words = word
        before = " " if self._at > 1 and self._tokens[self._at - 2][0] == "space" else ""
        while self._at < len(self._tokens):
            gap = self._next()
            at = 1 if gap.isspace() else 0
            if gap == "," and self._next(1).isspace():
                gap, at = ", ", 2
            following = self._next(at)
            plain = following.replace("-", "").isalpha() and following not in (
                GREEK | OPERATORS | UPRIGHT | {"sqrt", "sum", "prod", "grad"}
            )
            if not at or not plain or (len(following) == 1 and following not in "aA"):
                break
            if following in "aA" and not self._next(at + 1).isspace():
                break
            words += gap + following
            self._at += at + 1
        after = " " if self._next().isspace() else ""
        return f"\\text{{{before}{words}{after}}}"


def _letters(kind: str, text: str) -> bool:
    """Several indices in one word, as in b_ij."""
    known = GREEK | OPERATORS | UPRIGHT | BIG.keys() | SHORT.keys()
    return kind == "word" and 1 < len(text) <= 3 and text not in known
