//! Recognises files that are not lists, by their first bytes, and advises what to do with them.

/// Bytes that are examined for UTF-16 text.
const MAX_WIDE: usize = 4096;

/// Offset and bytes of a file's signature, the kind of file, and what to do with it.
type Signature = (usize, &'static [u8], &'static str);

/// The first match counts.
const SIGNATURES: [Signature; 31] = [
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
        "a Git LFS pointer instead of the list: fetch the file itself (`git lfs pull`)",
    ),
    (0, b"-----BEGIN PGP MESSAGE", "an encrypted or signed PGP message: decrypt it (`gpg -d`)"),
    (0, b"{\"", "a JSON document: write one name per line"),
    (0, b"{\n", "a JSON document: write one name per line"),
    (0, b"{\r\n", "a JSON document: write one name per line"),
    (0, b"[{", "a JSON document: write one name per line"),
    (0, b"[\"", "a JSON document: write one name per line"),
    (0, b"[\n", "a JSON document: write one name per line"),
    (0, b"\0\0\xfe\xff", "UTF-32 text: save it as UTF-8 (`iconv -f UTF-32 -t UTF-8`)"),
    (0, b"\xff\xfe\0\0", "UTF-32 text: save it as UTF-8 (`iconv -f UTF-32 -t UTF-8`)"),
    (0, b"\xff\xfe", UTF_16),
];
const UTF_16: &str = "UTF-16 text: save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)";
const CARRIAGE_RETURNS: &str =
    "text whose lines end with only a carriage return: convert it (`tr '\\r' '\\n'`)";

/// If a file with this head is not a list: the kind of file, and what to do with it.
pub fn not_a_list(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"PK") {
        return zip(head);
    }
    let has = |&&(at, bytes, _): &&Signature| head.get(at..).is_some_and(|head| head.starts_with(bytes));
    if let Some((_, _, what)) = SIGNATURES.iter().find(has) {
        return Some(what);
    }
    if head.starts_with(b"\xfe\xff") || is_wide(head) {
        return Some(UTF_16);
    }
    // At the very end, it may be the first half of CRLF.
    let inner = head.split_last().map_or(head, |(_, inner)| inner);
    (inner.contains(&b'\r') && !head.contains(&b'\n')).then_some(CARRIAGE_RETURNS)
}

/// Office documents are zip archives, too. The names of their first files show which.
fn zip(head: &[u8]) -> Option<&'static str> {
    if ![&b"PK\x03\x04"[..], b"PK\x05\x06", b"PK\x07\x08"].into_iter().any(|magic| head.starts_with(magic)) {
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

/// UTF-16 without a byte order mark: in ASCII text, every other byte is zero.
fn is_wide(head: &[u8]) -> bool {
    let head = head.get(..MAX_WIDE).unwrap_or(head);
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let pairs = head.len() / 2;
    pairs >= 4 && even.max(odd) * 10 >= pairs * 8 && even.min(odd) * 20 <= pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_named() {
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
        for (.., what) in SIGNATURES {
            assert!(what.contains(": ") || what.contains("not a list"), "{what}: what to do with it");
        }
    }

    #[test]
    fn a_list_is_not_one_of_them() {
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
