"""Plain text to Markdown, for the generated parts of the site."""

import re

CODE = re.compile(r"(`[^`]+`)")
SPECIAL = re.compile(r"([\\*_\[\]<>#|~^$])")
PAGE = re.compile(r"\bdocs/([\w-]+\.md)\b")


def escaped(text: str) -> str:
    """Text that shows itself. Code in backquotes stays code, and the name of a page becomes a link to it."""
    parts = CODE.split(text)
    shown = "".join(part if CODE.fullmatch(part) else SPECIAL.sub(r"\\\1", part) for part in parts)
    return PAGE.sub(r"[\g<0>](\1)", shown)


def definition(term: str, *paragraphs: str) -> str:
    """An item of a definition list. Its term and its paragraphs are Markdown."""
    lines = "\n\n".join(paragraph.strip("\n") for paragraph in paragraphs if paragraph).splitlines()
    first, *rest = lines or ["\N{NO-BREAK SPACE}"]
    return "\n".join([term, f": {first}", *(f"  {line}".rstrip() for line in rest), ""])
