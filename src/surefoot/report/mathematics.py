"""LaTeX as MathML in which nothing but mathematics can stand: a run folder may come from a stranger."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from latex2mathml.converter import convert

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
TAGS = frozenset(
    (
        "math", "mrow", "mi", "mo", "mn", "ms", "mtext", "mspace", "msub", "msup", "msubsup", "munder",
        "mover", "munderover", "mfrac", "msqrt", "mroot", "mtable", "mtr", "mtd", "mstyle", "mpadded",
        "mphantom", "menclose", "mmultiscripts", "mprescripts", "none",
    )
)  # fmt: skip
# Neither style, class, id nor whatever may hold an address.
ATTRIBUTES = frozenset(
    (
        "display", "displaystyle", "scriptlevel", "stretchy", "fence", "form", "separator", "accent",
        "accentunder", "mathvariant", "mathcolor", "mathbackground", "mathsize", "linethickness",
        "columnalign", "rowalign", "columnspacing", "rowspacing", "columnlines", "rowlines", "frame",
        "width", "height", "depth", "lspace", "rspace", "voffset", "minsize", "maxsize", "symmetric",
        "largeop", "movablelimits", "notation",
    )
)  # fmt: skip
# Of nobody's alphabet; they stand for what latex2mathml 3.77 writes as it is inside \text.
STAND_INS = {"<": "\ue000", ">": "\ue001", "&": "\ue002"}
# latex2mathml 3.77 calls them names, which have no space around them.
OPERATORS = frozenset("⪯⪰≺≻′")
# Around an absolute value or a norm there is no space.
BARS = frozenset(("|", "\u2016", "\u2225"))


def mathml(latex: str) -> str | None:
    r"""A formula as MathML without links and styles; None where it is no LaTeX, or holds other elements.

    Parameters
    ----------
    latex : str
        Without dollar signs; `<` and `>` are relations, also inside `\text`.

    Returns
    -------
    str or None
        A `math` element whose elements and attributes are those of the two lists above.
    """
    latex = re.sub(r"\\(left|right|middle)\s*([<>])", _angle, latex)
    for each in (("<", ">"), ("<", ">", "&")):
        source = latex
        for character in each:
            source = source.replace(character, STAND_INS[character])
        try:
            root = ElementTree.fromstring(convert(source, display="block"))
        # What is no LaTeX raises classes of latex2mathml's own, and IndexError.
        except Exception:
            continue
        copied = _copy(root)
        if copied is not None:
            copied.set("xmlns", NAMESPACE)
            return ElementTree.tostring(copied, encoding="unicode", short_empty_elements=False)
    return None


def _angle(match: re.Match[str]) -> str:
    return f"\\{match[1]}\\{'l' if match[2] == '<' else 'r'}angle "


def _copy(element: ElementTree.Element) -> ElementTree.Element | None:
    """The element with its text and children and what attributes are allowed; None: an element is not."""
    tag = element.tag.removeprefix(f"{{{NAMESPACE}}}") if isinstance(element.tag, str) else ""
    if tag not in TAGS:
        return None
    text = _original(element.text)
    relation = tag == "mi" and (text in STAND_INS or text in OPERATORS)
    kept = {name: value for name, value in element.attrib.items() if name in ATTRIBUTES}
    if tag == "mo" and text in BARS:
        kept |= {"lspace": "0", "rspace": "0"}
    copied = ElementTree.Element("mo" if relation else tag, kept)
    copied.text, copied.tail = text, _original(element.tail)
    for child in element:
        inner = _copy(child)
        if inner is None:
            return None
        copied.append(inner)
    return copied


def _original(text: str | None) -> str | None:
    for character, stand_in in STAND_INS.items():
        text = text.replace(stand_in, character) if text else text
    return text
