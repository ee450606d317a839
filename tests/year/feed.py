"""A national list, and the faults that change it between its publisher and the daemon."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

WORDS = ("judi", "slot", "bola", "film", "togel", "poker", "gacor", "casino", "nonton", "taruhan")
TOPS = ("com", "net", "org", "co.id", "web.id", "id")
CHANGES_AT = (5, 17)  # hours of the day
NOT_FOUND = (
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n"
    b"<body><center><h1>502 Bad Gateway</h1></center><hr></body>\n</html>\n"
)
LOGIN = b"<html>\n<head><title>Masuk</title></head><body>\nsilakan.masuk.example\n</body></html>\n"


@dataclass
class Feed:
    """The list. It grows by a few names twice a day, and sometimes a few are removed."""

    random: random.Random
    listed: dict[str, None] = field(default_factory=dict)  # in the order of the file
    ever: dict[str, None] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    revision: int = 1

    def fill(self, count: int, country: str = "") -> None:
        """Adds names up to this count. `country` is a prefix that makes other names."""
        while len(self.listed) < count:
            self.add(self.new_name(country))

    def new_name(self, country: str = "") -> str:
        pick = self.random.choice
        name = f"{country}{pick(WORDS)}{pick(WORDS)}{self.random.randrange(100_000)}.{pick(TOPS)}"
        if self.listed and self.random.random() < 0.1:  # below a listed name, which may be removed first
            return f"www.{pick(list(self.listed))}"
        return f"m.{name}" if self.random.random() < 0.3 else name

    def add(self, name: str) -> None:
        if len(name) < 100:
            self.listed[name] = self.ever[name] = None

    def remove(self, name: str) -> None:
        del self.listed[name]
        self.gone.append(name)

    def pass_hour(self, hour: int) -> None:
        """The changes of this hour; in most hours there are none."""
        if hour % 24 not in CHANGES_AT:
            return
        for _ in range(self.random.randint(1, 5)):
            self.add(self.new_name())
        if hour % 24 == CHANGES_AT[0] and self.random.random() < 0.4:
            for name in self.random.sample(list(self.listed), self.random.randint(1, 3)):
                self.remove(name)
        if self.gone and self.random.random() < 0.1:
            self.add(self.gone.pop())  # listed again, sometimes after months
        self.revision += 1

    @property
    def content(self) -> bytes:
        """The published file, with the variants that such lists have: case, dots, comments, duplicates."""
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


# ------- Faults -------

Fault = Callable[[bytes, random.Random], bytes]


def truncated_in_the_middle(content: bytes, rng: random.Random) -> bytes:
    cut = content[: rng.randrange(len(content) // 3, len(content) * 2 // 3)]
    return cut if not cut.endswith(b"\n") else cut[:-3]


def without_last_line_feed(content: bytes, _: random.Random) -> bytes:
    return content.removesuffix(b"\n")


def truncated_last_line(content: bytes, rng: random.Random) -> bytes:
    """Only the end of `judi.co.id` is left: a public suffix."""
    rest = content.removesuffix(b"\n").rpartition(b"\n")[0]
    return rest + b"\n" + rng.choice([b"co.id", b"id", b"com"])


def truncated_lines_in_the_middle(content: bytes, rng: random.Random) -> bytes:
    """A part of the download is missing, so that only the end of a line is left. No guard notices it."""
    lines = content.split(b"\n")
    ends = [number for number, line in enumerate(lines) if line.endswith(b".co.id") and number > 5]
    at = rng.choice(ends)
    return b"\n".join([*lines[: at - 2], b"co.id", b"id", *lines[at + 1 :]])


def with_invalid_lines(share: float) -> Fault:
    def faulty(content: bytes, rng: random.Random) -> bytes:
        lines = content.splitlines(keepends=True)
        for _ in range(int(len(lines) * share)):
            lines.insert(
                rng.randrange(len(lines)), rng.choice([b"???\n", b"a b c\n", b"x..y.com\n", b"{}\n"])
            )
        return b"".join(lines)

    return faulty


def with_protected_names(content: bytes, _: random.Random) -> bytes:
    return content + b"portal.negara.go.id\nnegara.go.id\nwww.resolver.isp.co.id\nisp.co.id\n"


def with_top_levels(content: bytes, _: random.Random) -> bytes:
    return content + b"id\nco.id\ncom\nGO.ID.\n"


def list_of_another_country(content: bytes, rng: random.Random) -> bytes:
    other = Feed(rng)
    other.fill(content.count(b"\n"), country="uk-")
    return other.content


def repeated(content: bytes, _: random.Random) -> bytes:
    return content + content


def instead(page: bytes) -> Fault:
    return lambda _, __: page
