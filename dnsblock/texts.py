"""The texts of `order new` in Indonesian. The English ones are in the code; they are the keys here.

`Texts.say` formats a text of the command. `Texts.reason` translates a finished reason of another module, by
the pattern that it was made from. A reason that is not here stays English.
"""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

Language = Literal["id", "en"]

INDONESIAN: Mapping[str, str] = {
    # Questions
    "Issuer (such as kominfo.go.id)": "Penerbit perintah (misalnya kominfo.go.id)",
    "Number of the order, as on the letter": "Nomor perintah, seperti pada surat",
    "Action: {}": "Tindakan: {}",
    "block names": "blokir nama",
    "lift a block, wholly or in part": "cabut blokir, seluruhnya atau sebagian",
    "exempt names from the issuer's blocks": "kecualikan nama dari blokir penerbit",
    "revoke a whole order": "batalkan satu perintah seluruhnya",
    "replace an order by a new one": "ganti satu perintah dengan yang baru",
    "announce a block": "umumkan rencana blokir",
    "state what is in force": "nyatakan apa yang berlaku",
    "change the issuer's keys": "ganti kunci penerbit",
    "Number of the order to end; an empty line ends the list":
        "Nomor perintah yang diakhiri; baris kosong menutup daftar",
    "File with the names (empty: type them here)": "Berkas berisi nama (kosong: ketik di sini)",
    "File with the names to lift (empty: all names of the order)":
        "Berkas berisi nama yang dicabut (kosong: semua nama)",
    "One name per line; an empty line ends the list": "Satu nama per baris; baris kosong menutup daftar",
    "Takes effect (such as 2017-07-14 11:30; empty: now)":
        "Mulai berlaku (misalnya 2017-07-14 11:30; kosong: sekarang)",
    "Expires (empty: never)": "Berakhir (kosong: tidak pernah)",
    "Urgency: routine (7 days), urgent (24 h), immediate (4 h); empty: none":
        "Urgensi: routine (7 hari), urgent (24 jam), immediate (4 jam); kosong: tidak ada",
    "Category (such as gambling; empty: none)": "Kategori (misalnya gambling; kosong: tidak ada)",
    "Legal basis (empty: none)": "Dasar hukum (kosong: tidak ada)",
    "Reason in Indonesian (empty: none)": "Alasan dalam bahasa Indonesia (kosong: tidak ada)",
    "Reason in English (empty: none)": "Alasan dalam bahasa Inggris (kosong: tidak ada)",
    "Public key file to add (empty: none)": "Berkas kunci publik yang ditambahkan (kosong: tidak ada)",
    "Principal of this key (such as officer@kominfo.go.id)":
        "Pemilik kunci ini (misalnya officer@kominfo.go.id)",
    "Fingerprint of a key to remove (empty: none)": "Sidik jari kunci yang dihapus (kosong: tidak ada)",
    "Write the order to": "Tulis perintah ke berkas",
    "{} names are popular: {}. Are they meant? Then a second officer must sign, too":
        "{} nama populer: {}. Memang dimaksud? Maka pejabat kedua juga harus menandatangani",
    "Write {}?": "Tulis {}?",
    # Answers that do not fit
    "choose one of {}": "pilih salah satu dari {}",
    "this cannot be empty": "tidak boleh kosong",
    "nothing was written": "tidak ada yang ditulis",
    # Findings
    "{}: these options are missing: {}": "{}: opsi ini belum diisi: {}",
    "{} exists: give another name with -o, or overwrite it with --force":
        "{} sudah ada: beri nama lain dengan -o, atau timpa dengan --force",
    "{} must end with .yaml or .yml": "{} harus berakhir dengan .yaml atau .yml",
    "line {} repeats {}": "baris {} mengulang {}",
    "{} more lines repeat a name": "{} baris lagi mengulang nama",
    "{} is written as {}": "{} ditulis sebagai {}",
    "without seq: no previous order is known (--after FILE), and no daemon can be reached":
        "tanpa seq: perintah sebelumnya tidak diketahui (--after FILE), dan daemon tidak terjangkau",
    "seq 1: the folder has no earlier order of this issuer":
        "seq 1: folder ini belum berisi perintah dari penerbit ini",
    "the folder has no earlier order of this issuer": "folder ini belum berisi perintah dari penerbit ini",
    "the statement is of this server: it does not reveal an order that is missing here (--orders)":
        "pernyataan ini tentang server ini: perintah yang hilang di sini tidak terungkap (--orders)",
    "{} is the file of --names: give another name with -o":
        "{} adalah berkas --names: beri nama lain dengan -o",
    "without seq: the issuer does not number its orders": "tanpa seq: penerbit tidak menomori perintahnya",
    "the order with seq {} is missing on the server, so the last one is unknown: use --after FILE":
        "perintah dengan seq {} tidak ada di server, jadi yang terakhir tidak diketahui: pakai --after "
        "FILE",
    "the issuer's orders are unknown: give them with --orders FOLDER, or a daemon with -c":
        "perintah penerbit tidak diketahui: beri --orders FOLDER, atau daemon dengan -c",
    "held until it is released: {}": "ditahan sampai dilepas: {}",
    "acks {} count when a second officer has signed":
        "acks {} berlaku setelah pejabat kedua menandatangani",
    "release them with --ack {} and a second signature, or let the operator approve them":
        "lepaskan dengan --ack {} dan tanda tangan kedua, atau dengan persetujuan operator",
    "{} has signatures of an earlier document: remove it":
        "{} berisi tanda tangan dokumen sebelumnya: hapus berkas itu",
    # The summary
    "action": "tindakan",
    "number": "nomor",
    "previous": "sebelumnya",
    "first of this issuer": "yang pertama dari penerbit ini",
    "effective": "berlaku",
    "expires": "berakhir",
    "deadline": "tenggat",
    "ends": "mengakhiri",
    "all names": "semua nama",
    "names": "nama",
    "in file": "dalam berkas",
    "statement": "pernyataan",
    "{} entries in force, valid until {}": "{} entri berlaku, berlaku hingga {}",
    "and {} more": "dan {} lagi",
    "note": "catatan",
    "next": "langkah berikutnya",
    # Reasons of names
    "empty: a name has at least one label": "kosong: nama memiliki paling sedikit satu label",
    "a web address: write only the name in it: {}": "alamat web: tulis namanya saja: {}",
    "a web address: write only the name in it": "alamat web: tulis namanya saja",
    "a web address: an order blocks names, not pages; {}":
        "alamat web: perintah memblokir nama, bukan halaman; {}",
    "the name {} would block everything there, not only this":
        "nama {} akan memblokir semuanya di sana, bukan hanya ini",
    "a name would block everything there, not only this":
        "nama akan memblokir semuanya di sana, bukan hanya ini",
    "an account or an e-mail address: an order blocks names, not accounts; {}":
        "akun atau alamat surel: perintah memblokir nama, bukan akun; {}",
    "an IP address, not a name: list it in a zone of addresses":
        "alamat IP, bukan nama: masukkan ke zona alamat",
    "contains a colon: an order blocks a name on all ports; write it without the port: {}":
        "berisi titik dua: perintah memblokir nama pada semua port; tulis tanpa port: {}",
    "contains a quotation mark: write the name without it":
        "berisi tanda kutip: tulis nama tanpa tanda kutip",
    "contains a space: write one name, without spaces": "berisi spasi: tulis satu nama, tanpa spasi",
    "a wildcard: write `{}`, or `{}` for the names below it only":
        "karakter pengganti: tulis `{}`, atau `{}` untuk nama di bawahnya saja",
    "more than one word: write one name per line, then exact, subtree or below":
        "lebih dari satu kata: satu nama per baris, lalu exact, subtree atau below",
    "empty label: two dots in a row, or a leading dot":
        "label kosong: dua titik berurutan, atau titik di awal",
    "a part between two dots is longer than 63 characters":
        "bagian di antara dua titik lebih dari 63 karakter",
    "the name is longer than 253 characters": "nama lebih dari 253 karakter",
    "'{}' is not allowed in a name": "'{}' tidak boleh ada dalam nama",
    "not a domain name": "bukan nama domain",
    "not a domain name: the last label is a number, and no top-level domain is one":
        "bukan nama domain: label terakhir adalah angka",
    "not UTF-8 text: save the file as plain text, UTF-8":
        "bukan teks UTF-8: simpan sebagai teks biasa, UTF-8",
    # Reasons of guards
    "a top-level domain; an order names single domains":
        "domain tingkat atas; perintah menyebut domain satu per satu",
    "a public suffix; an order names single domains":
        "akhiran publik; perintah menyebut domain satu per satu",
    "covers the public suffix {}": "mencakup akhiran publik {}",
    "a hosting suffix: each name below it belongs to another customer":
        "akhiran penyedia hosting: setiap nama di bawahnya milik pelanggan lain",
    "covers the hosting suffix {}, below which each name is a customer's":
        "mencakup akhiran hosting {}; setiap nama di bawahnya milik pelanggan",
    "a popular name": "nama populer",
    "the web site of the popular name {}": "situs web dari nama populer {}",
    "covers the popular name {}": "mencakup nama populer {}",
    "a protected name": "nama yang dilindungi",
    "is below the protected name {}": "berada di bawah nama yang dilindungi {}",
    "covers the protected name {}": "mencakup nama yang dilindungi {}",
    # Remarks
    "{}: MIXED_SCRIPT: {} mixes {} letters: is this name meant?":
        "{}: MIXED_SCRIPT: {} mencampur huruf {}: apakah nama ini yang dimaksud?",
    "{}: FAR_YEAR: {} is more than 10 years ahead": "{}: FAR_YEAR: {} lebih dari 10 tahun ke depan",
    "{}: FAR_YEAR: {} is more than 10 years before issued_at":
        "{}: FAR_YEAR: {} lebih dari 10 tahun sebelum issued_at",
    "EXPIRED: expires_at has passed: a server refuses this order, unless a later one refers to it":
        "EXPIRED: expires_at sudah lewat: server menolak perintah ini, kecuali perintah lain merujuknya",
    "BULK: over {} entries: a server may hold them, if earlier orders were small":
        "BULK: lebih dari {} entri: server dapat menahannya, jika perintah sebelumnya kecil",
    # Reasons of fields
    "not a time: write it as 2017-07-14 11:30": "bukan waktu: tulis sebagai 2017-07-14 11:30",
    "must be in the years 1970 to 2999": "harus pada tahun 1970 sampai 2999",
    "fractions of a second are not allowed": "pecahan detik tidak boleh",
    "expires_at: must be after effective_at": "expires_at: harus sesudah effective_at",
    "must be after effective_at": "harus sesudah effective_at",
    "names belong to one order: write one document for each order, or leave --names out":
        "nama termasuk satu perintah: satu dokumen untuk setiap perintah, atau tanpa --names",
    "give one for each --add-key": "beri satu untuk setiap --add-key",
    "write the time and the way, such as 2016-03-29 09:00; e-mail":
        "tulis waktu dan caranya, misalnya 2016-03-29 09:00; surel",
    "must be printable text, without spaces around it":
        "harus teks yang dapat dicetak, tanpa spasi di awal dan akhir",
    "cannot be read: {}": "tidak dapat dibaca: {}",
}  # fmt: skip


class Texts:
    """The texts of one language."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def say(self, text: str, *values: object) -> str:
        """A text of the command, with values instead of `{}`."""
        return (INDONESIAN[text] if self.language == "id" else text).format(*values)

    def reason(self, text: str) -> str:
        """A finished reason of another module, translated if it is known."""
        if self.language == "en":
            return text
        for pattern, translation in _patterns():
            if found := pattern.fullmatch(text):
                return translation.format(*map(self.reason, found.groups()))
        code, colon, rest = text.partition(": ")
        return f"{code}: {self.reason(rest)}" if colon and code.replace("_", "").isupper() else text


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The patterns of all texts; those with fewer values first, so that the most exact one is found."""
    keys = sorted(INDONESIAN, key=lambda key: (key.count("{}"), -len(key)))
    return [
        (re.compile("(.+)".join(map(re.escape, key.split("{}"))), re.DOTALL), INDONESIAN[key]) for key in keys
    ]


def language_of(option: str | None) -> Language:
    """The language of an option, or else of the environment."""
    written = option or next(
        (os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), ""
    )
    return "id" if written.lower().startswith(("id", "ind")) else "en"
