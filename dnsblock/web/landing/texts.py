"""The texts of the landing page. The English ones are in the templates; they are the keys here."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from dnsblock.web.landing.requests import Language

INDONESIAN: Mapping[str, str] = {
    # Headings
    "This site is blocked": "Situs ini diblokir",
    "Blocking order": "Perintah pemblokiran",
    "Order": "Perintah",
    "Page not found": "Halaman tidak ditemukan",
    "No information about this name": "Tidak ada informasi tentang nama ini",
    "Please try again in a moment": "Silakan coba beberapa saat lagi",
    "Invalid request": "Permintaan tidak valid",
    "Blocked names and their orders": "Nama yang diblokir dan perintahnya",
    # Why
    "Your Internet provider, {}, blocks this name because an authority has ordered it.":
        "Penyedia internet Anda, {}, memblokir nama ini karena diperintahkan oleh pihak berwenang.",
    "Your Internet provider, {}, blocks this name because it is on a blocklist.":
        "Penyedia internet Anda, {}, memblokir nama ini karena tercantum dalam daftar blokir.",
    "This order is in force.": "Perintah ini berlaku.",
    "Some names of this order are no longer blocked.":
        "Sebagian nama dalam perintah ini tidak lagi diblokir.",
    "This order is no longer in force.": "Perintah ini tidak berlaku lagi.",
    "Order number": "Nomor perintah",
    "Ordered by": "Diperintahkan oleh",
    "Kind of order": "Jenis perintah",
    "Date of the order": "Tanggal perintah",
    "In force since": "Berlaku sejak",
    "In force until": "Berlaku sampai",
    "Ended at": "Berakhir pada",
    "Ended by order": "Diakhiri oleh perintah",
    "To be reviewed at": "Akan ditinjau pada",
    "Number of names": "Jumlah nama",
    "Legal basis": "Dasar hukum",
    "Category": "Kategori",
    "Reason": "Alasan",
    "Blocked entry": "Entri yang diblokir",
    "Blocklist": "Daftar blokir",
    "The blocked site": "Situs yang diblokir",
    "Operator": "Pengelola",
    "Details": "Rincian",
    "Page of this order": "Halaman perintah ini",
    "Contacted before": "Dihubungi sebelumnya",
    "Lifted when": "Dicabut apabila",
    "Original document": "Dokumen asli",
    "Other orders for this name": "Perintah lain untuk nama ini",
    "not stated": "tidak dicantumkan",
    # Actions
    "block": "pemblokiran",
    "supersede": "penggantian perintah",
    "exempt": "pengecualian",
    "unblock": "pencabutan blokir",
    "revoke": "pembatalan perintah",
    # Questions
    "Questions and objections": "Pertanyaan dan keberatan",
    "The authority that gave the order": "Pihak yang memberi perintah",
    "Your Internet provider": "Penyedia internet Anda",
    "How to object": "Cara mengajukan keberatan",
    "More about objections": "Selengkapnya tentang keberatan",
    # Other pages
    "No order or list currently blocks the name that you visited. The block may have ended a moment ago, "
    "or the name may lead to another one that is blocked.":
        "Saat ini tidak ada perintah atau daftar yang memblokir nama yang Anda kunjungi. Blokir mungkin baru "
        "saja berakhir, atau nama itu mengarah ke nama lain yang diblokir.",
    "Close the page, wait a minute and visit the name again. If you still see this page, ask {}.":
        "Tutup halaman ini, tunggu satu menit, lalu kunjungi kembali nama tersebut. Jika halaman ini masih "
        "muncul, hubungi {}.",
    "There is no such page here, or this order was never in force.":
        "Halaman tersebut tidak ada di sini, atau perintah tersebut tidak pernah berlaku.",
    "The server is busy. Reload this page in a few seconds.":
        "Server sedang sibuk. Muat ulang halaman ini dalam beberapa detik.",
    "This server did not understand the request.": "Server ini tidak memahami permintaan tersebut.",
    "{} shows this page instead of sites that are blocked by order of an authority or by a list. Each order "
    "has a page here, which states its issuer, its legal basis and its reason.":
        "{} menampilkan halaman ini sebagai pengganti situs yang diblokir atas perintah pihak berwenang atau "
        "karena daftar blokir. Setiap perintah memiliki halaman di sini, yang menyebutkan penerbit, dasar "
        "hukum, dan alasannya.",
    # Foot
    "This page uses no cookies and no scripts, and no record of your visit is kept.":
        "Halaman ini tidak memakai cookie maupun skrip, dan kunjungan Anda tidak dicatat.",
}  # fmt: skip
MONTHS: Mapping[Language, tuple[str, ...]] = {
    "id": (
        *("Januari", "Februari", "Maret", "April", "Mei", "Juni"),
        *("Juli", "Agustus", "September", "Oktober", "November", "Desember"),
    ),
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}


def say(language: Language, text: str, *values: object) -> str:
    """A text in a language."""
    return (INDONESIAN[text] if language == "id" else text).format(*values)


def moment(language: Language, time: str, zone: ZoneInfo) -> str:
    """A time of the daemon for people: `14 Juli 2017 pukul 11.30 WIB`, `14 July 2017, 11:30 WIB`."""
    shown = datetime.fromisoformat(time).astimezone(zone)
    day = f"{shown.day} {MONTHS[language][shown.month - 1]} {shown.year}"
    if language == "id":
        return f"{day} pukul {shown.strftime('%H.%M %Z')}"
    return f"{day}, {shown.strftime('%H:%M %Z')}"
