"""Pattern lists of OpenSSH (PATTERNS in ssh_config(5)): names with `*` and `?`, negated by `!`."""

MAX_PATTERN_CHARACTERS = 1022  # OpenSSH matches nothing with a list that has a longer one


def is_match(name: str, patterns: str) -> bool:
    """Whether a name matches one of the patterns, which are separated by commas, and no negated one."""
    has_positive = False
    for written in patterns.split(","):
        is_negated = written.startswith("!")
        pattern = written[1:] if is_negated else written
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            return False
        if _is_one(name, pattern):
            if is_negated:
                return False
            has_positive = True
    return has_positive


def _is_one(name: str, pattern: str) -> bool:
    """Whether a name matches one pattern. Takes at most the product of both lengths."""
    at = place = 0
    star: int | None = (
        None  # the last `*` of the pattern so far, and the name's character from which it counts
    )
    resume = 0
    while at < len(name):
        wanted = pattern[place] if place < len(pattern) else None
        if wanted == "*":
            star, resume = place, at
            place += 1
        elif wanted is not None and wanted in ("?", name[at]):
            at, place = at + 1, place + 1
        elif star is not None:
            resume += 1
            at, place = resume, star + 1
        else:
            return False
    return all(character == "*" for character in pattern[place:])
