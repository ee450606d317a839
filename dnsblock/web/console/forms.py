"""The forms of the console (multipart/form-data): bounded in size, number of fields and time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile
from starlette.requests import Request

from dnsblock.http.answers import ApiError
from dnsblock.http.submissions import receive_form

FIELD_BYTES = 1 << 20  # of one text


@dataclass(frozen=True, slots=True)
class FormLimits:
    """The limits of one form."""

    body: int = 64 << 10  # bytes
    fields: int = 40
    files: int = 0


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """The fields and files that a browser has sent. Files that were not chosen are left out."""

    texts: Mapping[str, list[str]] = field(default_factory=dict)
    files: Mapping[str, Upload] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A field, without spaces around it; empty if it was not sent."""
        return self.texts.get(name, [""])[0].strip()

    def lines(self, name: str) -> list[str]:
        """The lines of a field that are not empty."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]

    def needed(self, name: str, most: int = 1000) -> str:
        """A field that must be filled in. Raises `ApiError`."""
        text = self.text(name)
        if not text:
            raise ApiError(422, "INVALID", f"{name}: must be filled in")
        if len(text) > most:
            raise ApiError(422, "INVALID", f"{name}: must have at most {most:,} characters")
        return text


async def read_form(request: Request, limits: FormLimits) -> Sent:
    """Receives the form of a request. Raises `ApiError`."""
    texts: dict[str, list[str]] = {}
    files: dict[str, Upload] = {}
    form = receive_form(
        request,
        limits.body,
        max_files=limits.files,
        max_fields=limits.fields,
        max_field_bytes=min(FIELD_BYTES, limits.body),
    )
    async with form as parts:
        for name, part in parts:
            if isinstance(part, str):
                texts.setdefault(name, []).append(part)
            elif name in files:
                raise ApiError(400, "MALFORMED", f"the file {name!r} was sent twice")
            elif part.filename:
                files[name] = await _upload(part)
    return Sent(texts, files)


async def _upload(part: UploadFile) -> Upload:
    return Upload(part.filename or "", await part.read())
