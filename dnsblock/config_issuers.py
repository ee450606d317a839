"""Authorities, and who signs their orders. `Config.issuers` has them."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from dnsblock.values import FilePath, Identifier, NotEmpty, Number, Options, as_written

Role = Literal["block", "lift", "exempt", "override", "propose"]
OFFICER: tuple[Role, ...] = ("block", "lift", "exempt")


class Signer(Options):
    """The roles of a signer, by the principal in the issuer's allowed_signers file."""

    may: Annotated[tuple[Role, ...], Field(max_length=5), NotEmpty] = OFFICER
    categories: Annotated[tuple[str, ...], Field(max_length=100)] | None = None  # null: all


class Issuer(Options):
    """An authority, and who signs its orders."""

    id: Identifier
    keys: FilePath  # an OpenSSH allowed_signers file
    signatures: Annotated[int, Number, Field(ge=1, le=10)] = 1  # of different signers, for each order
    may: Annotated[tuple[Role, ...], Field(max_length=5), NotEmpty] = OFFICER
    categories: Annotated[tuple[str, ...], Field(max_length=100)] | None = None  # null: all
    roles: Annotated[dict[str, Signer], Field(max_length=1000)] = as_written({})

    def roles_of(self, principals: Iterable[str], categories: Iterable[str | None]) -> frozenset[Role]:
        """The roles of a signer, by all its principals, for orders of these categories.

        Those of the issuer if `roles` has no entry. If it has several, those that all of them have.
        """
        own = self.signers_of(principals)
        may = [frozenset(one.may) for one in own] or [frozenset(self.may)]
        limits = [one for one in (self.categories, *(one.categories for one in own)) if one is not None]
        if any(category not in limit for limit in limits for category in categories):
            return frozenset()
        return frozenset.intersection(*may)

    def signers_of(self, principals: Iterable[str]) -> list[Signer]:
        """The entries of `roles` for these principals."""
        return [self.roles[principal] for principal in principals if principal in self.roles]
