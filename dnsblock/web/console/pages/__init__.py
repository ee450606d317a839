"""All pages of the console. Each has its path, its handler and the role that it needs."""

from dnsblock.web.console.page import Page
from dnsblock.web.console.pages import (
    exceptions,
    lists,
    maintenance,
    new_order,
    orders,
    overview,
    proof,
    search,
    signing_in,
    versions,
)

PAGES: tuple[Page, ...] = (
    *signing_in.PAGES,
    *overview.PAGES,
    *orders.PAGES,
    *new_order.PAGES,
    *lists.PAGES,
    *exceptions.PAGES,
    *versions.PAGES,
    *search.PAGES,
    *proof.PAGES,
    *maintenance.PAGES,
)
