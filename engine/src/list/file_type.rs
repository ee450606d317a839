//! Files that are no lists in text, by their first octets: what was found, and what to do.

/// Octets of a file that are looked at for a text in two octets a character.
const LOOKED_AT: usize = 4096;

/// Octets at a place of a file, what such a file is, and what to do with it.
type Sign = (usize, &'static [u8], &'static str);

/// The first that fits counts.
const SIGNS: [Sign; 31] = [
    (0, b"\x1f\x8b", "gzip inside gzip: decompress it once (`gunzip`)"),
    (0, b"%PDF-", "a PDF document: ask who publishes it for a text or CSV file"),
    (
        0,
        b"SQLite format 3\0",
        "an SQLite database: export the names (`sqlite3 FILE 'SELECT name FROM TABLE'`)",
    ),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word document: save it as CSV (UTF-8)"),
    (0, b"{\\rtf", "an RTF document: save it as plain text (UTF-8)"),
    (0, b"\xfd7zXZ\0", "xz-compressed data: decompress it (`xz -d`); of compressed files only gzip is read"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "zstd-compressed data: decompress it (`zstd -d`); of compressed files only gzip is read",
    ),
    (0, b"BZh", "bzip2-compressed data: decompress it (`bunzip2`); of compressed files only gzip is read"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it (`7z x`); of compressed files only gzip is read"),
    (0, b"Rar!\x1a\x07", "a RAR archive: unpack it (`unrar x`); of compressed files only gzip is read"),
    (
        0,
        b"\x04\x22\x4d\x18",
        "lz4-compressed data: decompress it (`lz4 -d`); of compressed files only gzip is read",
    ),
    (0, b"LZIP", "lzip-compressed data: decompress it (`lzip -d`); of compressed files only gzip is read"),
    (
        0,
        b"\x1f\x9d",
        "data compressed by compress(1): decompress it (`uncompress`); of compressed files only gzip is read",
    ),
    (257, b"ustar", "a tar archive: unpack it (`tar -xf`), and list its files"),
    (0, b"PAR1", "a Parquet file: export the names as CSV"),
    (0, b"\x89PNG\r\n", "a PNG image, not a list"),
    (0, b"\xff\xd8\xff", "a JPEG image, not a list"),
    (0, b"GIF8", "a GIF image, not a list"),
    (0, b"\x7fELF", "a program, not a list"),
    (0, b"MZ\x90\0", "a Windows program, not a list"),
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer in the place of the list: fetch the file itself (`git lfs pull`)",
    ),
    (0, b"-----BEGIN PGP MESSAGE", "an encrypted or signed PGP message: decrypt it (`gpg -d`)"),
    (0, b"{\"", "a JSON document: write the names one a line"),
    (0, b"{\n", "a JSON document: write the names one a line"),
    (0, b"{\r\n", "a JSON document: write the names one a line"),
    (0, b"[{", "a JSON document: write the names one a line"),
    (0, b"[\"", "a JSON document: write the names one a line"),
    (0, b"[\n", "a JSON document: write the names one a line"),
    (0, b"\0\0\xfe\xff", "UTF-32 text: save it as UTF-8 (`iconv -f UTF-32 -t UTF-8`)"),
    (0, b"\xff\xfe\0\0", "UTF-32 text: save it as UTF-8 (`iconv -f UTF-32 -t UTF-8`)"),
    (0, b"\xff\xfe", UTF_16),
];
const UTF_16: &str = "UTF-16 text: save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)";
const CARRIAGE_RETURNS: &str =
    "text whose lines end with a carriage return alone: convert it (`tr '\\r' '\\n'`)";

/// What a file is that begins so, if that is no list.
pub fn not_a_list(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"PK") {
        return zip(head);
    }
    let has = |&&(at, sign, _): &&Sign| head.get(at..).is_some_and(|head| head.starts_with(sign));
    if let Some((_, _, what)) = SIGNS.iter().find(has) {
        return Some(what);
    }
    if head.starts_with(b"\xfe\xff") || is_wide(head) {
        return Some(UTF_16);
    }
    // One at the very end may be half of CRLF.
    let inner = head.split_last().map_or(head, |(_, inner)| inner);
    (inner.contains(&b'\r') && !head.contains(&b'\n')).then_some(CARRIAGE_RETURNS)
}

/// Office documents are zip archives, too; the first names in them tell which.
fn zip(head: &[u8]) -> Option<&'static str> {
    if ![&b"PK\x03\x04"[..], b"PK\x05\x06", b"PK\x07\x08"].into_iter().any(|sign| head.starts_with(sign)) {
        return None;
    }
    let holds = |name: &[u8]| memchr::memmem::find(head, name).is_some();
    Some(if holds(b"xl/") || holds(b"opendocument.spreadsheet") {
        "a spreadsheet (Excel or OpenDocument): save it as CSV (UTF-8), and set `source.format: csv`"
    } else if holds(b"word/") || holds(b"opendocument.text") {
        "a Word or OpenDocument text: save it as plain text (UTF-8)"
    } else {
        "a zip archive: unpack it (`unzip`); of compressed files only gzip is read"
    })
}

/// Text in two octets a character, without a mark: of ASCII every other octet is zero.
fn is_wide(head: &[u8]) -> bool {
    let head = head.get(..LOOKED_AT).unwrap_or(head);
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|&&octet| octet == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let pairs = head.len() / 2;
    pairs >= 4 && even.max(odd) * 10 >= pairs * 8 && even.min(odd) * 20 <= pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_is_called_what_it_is() {
        let tar = [&[b'x'; 257][..], b"ustar"].concat();
        let wide: Vec<u8> = "a.example\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (head, what) in [
            (&b"PK\x03\x04 list.txt"[..], "zip archive"),
            (b"PK\x03\x04 xl/workbook.xml", "spreadsheet"),
            (b"PK\x03\x04 word/document.xml", "Word"),
            (b"\xff\xfea\0", "UTF-16"),
            (b"\xfe\xff\0a", "UTF-16"),
            (&wide, "UTF-16"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
            (b"a.example\rb.example\r", "carriage return"),
            (b"%PDF-1.7", "PDF"),
            (b"\xfd7zXZ\0", "xz"),
            (&tar, "tar archive"),
            (b"[\"a.example\"]", "JSON"),
        ] {
            assert!(
                not_a_list(head).is_some_and(|found| found.contains(what)),
                "{what}: {:?}",
                not_a_list(head)
            );
        }
        for (.., what) in SIGNS {
            assert!(what.contains(": ") || what.contains("not a list"), "{what} says what to do");
        }
    }

    #[test]
    fn a_list_is_none_of_them() {
        for head in [
            &b""[..],
            b"\n",
            b"a.example\r",
            b"a.example\r\nb.example\r",
            b"[Adblock Plus 2.0]\n",
            b"\xef\xbb\xbfa.example\n",
            b"a\x00b.example\ngood.example\n",
            b"pk.example\n",
            b"PK.example\n",
            b"b\xc3\xbccher.example\n",
        ] {
            assert_eq!(not_a_list(head), None, "{}", head.escape_ascii());
        }
    }
}
