"""A national list as it is published, and what arrives of it when something breaks on the way."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

WORDS = ("judi", "slot", "bola", "film", "togel", "poker", "gacor", "casino", "nonton", "taruhan")
TOPS = ("com", "net", "org", "co.id", "web.id", "id")
CHANGES_AT = (5, 17)  # o'clock
NOT_FOUND = (
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n"
    b"<body><center><h1>502 Bad Gateway</h1></center><hr></body>\n</html>\n"
)
LOGIN = b"<html>\n<head><title>Masuk</title></head><body>\nsilakan.masuk.example\n</body></html>\n"


@dataclass
class Feed:
    """The list. It grows twice a day by a few names, and now and then some are taken off it."""

    random: random.Random
    listed: dict[str, None] = field(default_factory=dict)  # in the order of the text
    ever: dict[str, None] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    revision: int = 1

    def fill(self, count: int, country: str = "") -> None:
        """A list of so many names to begin with; `country` makes others of them."""
        while len(self.listed) < count:
            self.add(self.new_name(country))

    def new_name(self, country: str = "") -> str:
        pick = self.random.choice
        name = f"{country}{pick(WORDS)}{pick(WORDS)}{self.random.randrange(100_000)}.{pick(TOPS)}"
        if self.listed and self.random.random() < 0.1:  # below one that is listed, which may go before it
            return f"www.{pick(list(self.listed))}"
        return f"m.{name}" if self.random.random() < 0.3 else name

    def add(self, name: str) -> None:
        if len(name) < 100:
            self.listed[name] = self.ever[name] = None

    def remove(self, name: str) -> None:
        del self.listed[name]
        self.gone.append(name)

    def pass_hour(self, hour: int) -> None:
        """What the authority does in this hour, which is nothing in most."""
        if hour % 24 not in CHANGES_AT:
            return
        for _ in range(self.random.randint(1, 5)):
            self.add(self.new_name())
        if hour % 24 == CHANGES_AT[0] and self.random.random() < 0.4:
            for name in self.random.sample(list(self.listed), self.random.randint(1, 3)):
                self.remove(name)
        if self.gone and self.random.random() < 0.1:
            self.add(self.gone.pop())  # on the list again, after months perhaps
        self.revision += 1

    @property
    def text(self) -> bytes:
        """The list as it is published, in the spellings that such lists have."""
        lines = [f"# Daftar domain, revisi {self.revision}"]
        for number, name in enumerate(self.listed):
            match number % 50:
                case 10:
                    lines.append(name.upper())
                case 20:
                    lines.append(f"{name}.\r")
                case 30:
                    lines.append(f"  {name}  # {number}")
                case 40:
                    lines += ["", name, name]
                case _:
                    lines.append(name)
        return "".join(f"{line}\n" for line in lines).encode()


# ------- What breaks -------

Breakage = Callable[[bytes, random.Random], bytes]


def cut_in_the_middle(text: bytes, rng: random.Random) -> bytes:
    cut = text[: rng.randrange(len(text) // 3, len(text) * 2 // 3)]
    return cut if not cut.endswith(b"\n") else cut[:-3]


def without_last_line_feed(text: bytes, _: random.Random) -> bytes:
    return text.removesuffix(b"\n")


def half_a_last_line(text: bytes, rng: random.Random) -> bytes:
    """Of `judi.co.id`, the end: a whole country's businesses."""
    rest = text.removesuffix(b"\n").rpartition(b"\n")[0]
    return rest + b"\n" + rng.choice([b"co.id", b"id", b"com"])


def half_lines_in_the_middle(text: bytes, rng: random.Random) -> bytes:
    """A piece of the download is missing, so that the end of one line stands alone. No guard can tell."""
    lines = text.split(b"\n")
    ends = [number for number, line in enumerate(lines) if line.endswith(b".co.id") and number > 5]
    at = rng.choice(ends)
    return b"\n".join([*lines[: at - 2], b"co.id", b"id", *lines[at + 1 :]])


def with_rubbish(share: float) -> Breakage:
    def broken(text: bytes, rng: random.Random) -> bytes:
        lines = text.splitlines(keepends=True)
        for _ in range(int(len(lines) * share)):
            lines.insert(
                rng.randrange(len(lines)), rng.choice([b"???\n", b"a b c\n", b"x..y.com\n", b"{}\n"])
            )
        return b"".join(lines)

    return broken


def with_protected_names(text: bytes, _: random.Random) -> bytes:
    return text + b"portal.negara.go.id\nnegara.go.id\nwww.resolver.isp.co.id\nisp.co.id\n"


def with_top_levels(text: bytes, _: random.Random) -> bytes:
    return text + b"id\nco.id\ncom\nGO.ID.\n"


def of_another_country(text: bytes, rng: random.Random) -> bytes:
    other = Feed(rng)
    other.fill(text.count(b"\n"), country="uk-")
    return other.text


def twice(text: bytes, _: random.Random) -> bytes:
    return text + text


def instead(page: bytes) -> Breakage:
    return lambda _, __: page
