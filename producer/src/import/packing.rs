//! Formats of input files, recognised by their first bytes: gzip is read, the others are rejected with a remedy.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// The first bytes of gzip.
pub(crate) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The UTF-8 byte order mark.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// First bytes, and the format of a file that begins with them.
const FORMATS: [(&[u8], &str); 7] = [
    (b"\xfd7zXZ\0", "packed with xz: unpack it first, with xz -d"),
    (b"BZh", "packed with bzip2: unpack it first, with bunzip2"),
    (
        b"\x28\xb5\x2f\xfd",
        "packed with Zstandard: unpack it first, with zstd -d",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (
        b"\xd0\xcf\x11\xe0",
        "an old Excel file: save it as CSV (UTF-8) first",
    ),
    (
        b"\xff\xfe",
        "in UTF-16: save it as UTF-8 first, with iconv -f UTF-16 -t UTF-8",
    ),
    (
        b"\xfe\xff",
        "in UTF-16: save it as UTF-8 first, with iconv -f UTF-16 -t UTF-8",
    ),
];

/// Returns the format of a file with these first bytes and the remedy, if it cannot be read.
pub(crate) fn unreadable(start: &[u8]) -> Option<&'static str> {
    if start.starts_with(b"PK\x03\x04") {
        // The first entry's name is at offset 30; it identifies documents that are zip archives.
        let name = start.get(30..).unwrap_or_default();
        let is_one_of = |names: &[&[u8]]| names.iter().any(|n| name.starts_with(n));
        return Some(
            if is_one_of(&[b"[Content_Types]", b"_rels/", b"xl/", b"docProps/"]) {
                "an Excel workbook: save it as CSV (UTF-8) first"
            } else if is_one_of(&[b"mimetype"]) {
                "an OpenDocument file: save it as CSV (UTF-8) first"
            } else {
                "a zip archive: unpack it first, with unzip"
            },
        );
    }
    let mut formats = FORMATS.iter();
    formats.find_map(|(magic, remedy)| start.starts_with(magic).then_some(*remedy))
}

/// Opens a stream of unknown format: decompresses gzip, and skips a byte order mark.
///
/// Blocks until the first bytes arrive, and never waits for more than the first line.
///
/// # Errors
/// The stream cannot be read, or its format cannot be; in the latter case the error's kind is `InvalidData`, and its
/// text has the remedy.
pub(crate) fn open(mut stream: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    /// Enough bytes to recognise every format.
    const BYTES: usize = 64;
    let mut start = [0; BYTES];
    let mut read = 0;
    while read < BYTES && !start[..read].contains(&b'\n') {
        match stream.read(&mut start[read..]) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let start = &start[..read];
    if let Some(remedy) = unreadable(start) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is {remedy}"),
        ));
    }
    let whole = Cursor::new(start.strip_prefix(&MARK).unwrap_or(start).to_vec()).chain(stream);
    if !start.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(whole));
    }
    // Gzip may contain a byte order mark, too.
    let mut unpacked = MultiGzDecoder::new(BufReader::new(whole));
    let mut start = Vec::new();
    let mark_bytes = MARK.len() as u64;
    unpacked.by_ref().take(mark_bytes).read_to_end(&mut start)?;
    let start = start.strip_prefix(&MARK).unwrap_or(&start).to_vec();
    Ok(Box::new(Cursor::new(start).chain(unpacked)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(content: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        open(Box::new(Cursor::new(content)))?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn gzip_and_marks_are_taken_off() {
        for text in ["", "a", "ab", "{}\n{}\n"] {
            let marked = ["\u{feff}", text].concat();
            for plain in [text, &marked] {
                assert_eq!(read(plain.into()).unwrap(), text);
                assert_eq!(read(gzip(plain.as_bytes())).unwrap(), text);
            }
        }
        let long = "x".repeat(1000);
        assert_eq!(read(gzip(long.as_bytes())).unwrap(), long);
    }

    #[test]
    fn other_packings_are_named() {
        let zip = |name: &str| [b"PK\x03\x04".as_slice(), &[0; 26], name.as_bytes()].concat();
        for (content, name) in [
            (zip("sales.csv"), "zip"),
            (zip("[Content_Types].xml"), "Excel workbook"),
            (zip("mimetype"), "OpenDocument"),
            (b"\xfd7zXZ\0\0".to_vec(), "xz"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1".to_vec(), "old Excel"),
            (b"\xff\xfeI\0n\0".to_vec(), "UTF-16"),
        ] {
            let error = read(content).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
