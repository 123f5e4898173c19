//! Unit tests of `qcow2.rs`.

use std::io::Cursor;

use super::*;

const CLUSTER: usize = 0x1_0000;

fn image(version: u32, extensions: &[(u32, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; CLUSTER];
    let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
    put(0, &qcow::MAGIC.to_be_bytes());
    put(4, &version.to_be_bytes());
    put(8, &0x8000_u64.to_be_bytes());
    put(16, &8_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &(1_u64 << 20).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &0x3_0000_u64.to_be_bytes());
    put(48, &0x1_0000_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    if version == 3 {
        put(96, &4_u32.to_be_bytes());
        put(100, &112_u32.to_be_bytes());
    }
    let mut area = Vec::new();
    for (kind, data) in extensions {
        area.extend(kind.to_be_bytes());
        area.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        area.extend(*data);
        area.resize(area.len().next_multiple_of(8), 0);
    }
    put(if version == 3 { 112 } else { 72 }, &area);
    put(0x8000, b"base.img");
    bytes
}

fn read(bytes: Vec<u8>) -> Result<References, ImageError> {
    references(&mut Cursor::new(bytes))
}

fn with(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        bytes[*at] = *value;
    }
    bytes
}

#[test]
fn backing_name_and_format() {
    for version in [2, 3] {
        let found = read(image(version, &[(EXTENSION_BACKING_FORMAT, b"raw")])).unwrap();
        let expected = References::backing(Some(b"base.img".to_vec()), Some(b"raw".to_vec()));
        assert_eq!(found, expected);
        assert_eq!(
            read(image(version, &[])).unwrap().backing.unwrap().format,
            None
        );
    }
}

#[test]
fn the_last_backing_format_counts() {
    let format =
        |extensions: &[(u32, &[u8])]| read(image(3, extensions)).unwrap().backing.unwrap().format;
    let kind = EXTENSION_BACKING_FORMAT;
    assert_eq!(
        format(&[(kind, b"raw"), (kind, b"qed")]),
        Some(b"qed".to_vec())
    );
    assert_eq!(format(&[(kind, b"raw"), (kind, b"")]), None);
    assert_eq!(format(&[(kind, b"raw\0qed")]), Some(b"raw".to_vec()));
    assert_eq!(format(&[(EXTENSION_END, b""), (kind, b"raw")]), None);
}

#[test]
fn extensions_after_the_first_read_count() {
    let filler = vec![7; 5000];
    let kind = EXTENSION_BACKING_FORMAT;
    let found = read(image(3, &[(0x1122_3344, &filler), (kind, b"raw")])).unwrap();
    assert_eq!(found.backing.unwrap().format, Some(b"raw".to_vec()));
    let cut = vec![7; FIRST_READ - 112 - EXTENSION_HEADER - 4];
    let found = read(image(3, &[(0x1122_3344, &cut), (kind, b"raw")])).unwrap();
    assert_eq!(found.backing.unwrap().format, Some(b"raw".to_vec()));
}

#[test]
fn names_end_at_the_nul() {
    let name = read(with(image(3, &[]), &[(0x8004, 0)]))
        .unwrap()
        .backing
        .unwrap()
        .name;
    assert_eq!(name, b"base");
    assert_eq!(
        read(with(image(3, &[]), &[(0x8000, 0)])).unwrap().backing,
        None
    );
}

#[test]
fn the_data_file_counts_with_its_feature_bit_only() {
    let named: &[(u32, &[u8])] = &[
        (EXTENSION_DATA_FILE, b"old"),
        (EXTENSION_DATA_FILE, b"data.raw"),
    ];
    assert_eq!(read(image(3, named)).unwrap().data_file, None);
    let external = |extensions| with(image(3, extensions), &[(79, 4)]);
    assert_eq!(
        read(external(named)).unwrap().data_file,
        Some(b"data.raw".to_vec())
    );
    assert!(matches!(
        read(external(&[])),
        Err(ImageError::DataFileNotNamed)
    ));
    let empty: &[(u32, &[u8])] = &[(EXTENSION_DATA_FILE, b"\0x")];
    assert!(matches!(
        read(external(empty)),
        Err(ImageError::DataFileNotNamed)
    ));
    assert!(matches!(
        read(with(image(3, named), &[(95, 2)])),
        Err(ImageError::RawWithoutDataFile)
    ));
    let long: &[(u32, &[u8])] = &[(EXTENSION_DATA_FILE, &[b'x'; MAX_NAME + 1])];
    assert!(matches!(
        read(external(long)),
        Err(ImageError::DataFileNameTooLong { .. })
    ));
}

#[test]
fn version_2_has_no_features() {
    let found = read(with(image(2, &[]), &[(79, 0)])).unwrap();
    assert_eq!(found.data_file, None);
}

#[test]
fn refused() {
    let table: &[(&str, &[(usize, u8)])] = &[
        ("magic", &[(0, 0)]),
        ("version", &[(7, 4)]),
        ("version", &[(7, 1)]),
        ("cluster bits", &[(23, 8)]),
        ("cluster bits", &[(23, 22)]),
        ("header length", &[(103, 96)]),
        ("header length", &[(101, 2)]),
        ("backing offset", &[(13, 1), (15, 1)]),
        ("backing length", &[(18, 4)]),
        ("backing room", &[(14, 0xff), (15, 0xfc)]),
        ("feature", &[(79, 32)]),
        ("compression without bit", &[(104, 1)]),
        ("bit without compression", &[(79, 8)]),
        ("unknown compression", &[(79, 8), (104, 2)]),
        ("subclusters", &[(79, 16), (23, 13)]),
        ("refcount order", &[(99, 7)]),
        ("aes", &[(35, 1)]),
        ("crypt method", &[(35, 3)]),
        ("no refcount table", &[(59, 0)]),
        ("refcount table", &[(55, 1)]),
        ("refcount table size", &[(58, 1)]),
        ("snapshot offset", &[(71, 1)]),
        ("snapshot count", &[(61, 2)]),
        ("l1 offset", &[(47, 1)]),
        ("l1 offset", &[(40, 0x80)]),
        ("l1 too small", &[(39, 0)]),
        ("l1 too large", &[(36, 1)]),
        ("disk size", &[(24, 0xff)]),
        ("extension", &[(112, 1), (117, 1)]),
    ];
    for (what, changes) in table {
        assert!(read(with(image(3, &[]), changes)).is_err(), "{what}");
    }
    for (kind, data) in [
        (EXTENSION_BACKING_FORMAT, &[b'x'; 16][..]),
        (EXTENSION_CRYPTO, &[0; 16]),
        (EXTENSION_BITMAPS, &[0; 8]),
    ] {
        assert!(read(image(3, &[(kind, data)])).is_err(), "{kind:#x}");
    }
}

#[test]
fn the_message_says_where() {
    let bytes = with(image(3, &[]), &[(13, 1), (14, 0x13), (15, 0x88)]);
    assert_eq!(
        read(bytes).unwrap_err().to_string(),
        "backing file name at offset 70536 lies beyond the first cluster (65536 bytes)"
    );
}
