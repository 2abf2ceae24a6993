//! Computed objects: their bytes and their descriptions.

use std::collections::HashSet;

use mock_earthdata::{Synthetic, fill};

#[test]
fn fill_gives_the_same_bytes_from_any_offset() {
    let mut whole = vec![0; 4096];
    fill("key", 0, &mut whole);
    for offset in (0..64).chain([1000, 1001, 2047, 4090, 4095]) {
        for len in [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1000] {
            let end = (offset + len).min(whole.len());
            let mut part = vec![0; end - offset];
            fill("key", offset as u64, &mut part);
            assert_eq!(part, whole[offset..end], "{offset}+{len}");
        }
    }
}

#[test]
fn fill_differs_by_key_and_place() {
    let bytes = |key: &str, offset: u64| {
        let mut bytes = [0; 64];
        fill(key, offset, &mut bytes);
        bytes
    };
    assert_ne!(bytes("a", 0), bytes("b", 0));
    // Powers of two, and what lies beside them: where a wrong offset would land.
    let places: HashSet<u64> = (0..40)
        .flat_map(|shift| (0..3).map(move |beside| (64 << shift) + beside * 4096))
        .collect();
    let seen: HashSet<_> = places.iter().map(|place| bytes("a", *place)).collect();
    assert_eq!(seen.len(), places.len());
    // The last bytes that an offset can say.
    fill("a", u64::MAX - 15, &mut [0; 16]);
}

#[test]
fn descriptions() {
    let keys = |spec: &str| -> Vec<String> {
        let synthetic = Synthetic::parse(spec).expect(spec);
        synthetic.objects().map(|(key, _)| key).collect()
    };
    assert_eq!(keys("big.bin:1:100G"), ["big.bin"]);
    assert_eq!(
        keys("many:3:1K"),
        [
            "many/00000000.bin",
            "many/00000001.bin",
            "many/00000002.bin"
        ]
    );
    assert_eq!(
        keys("d:3:0:2"),
        [
            "d/000000/000000.bin",
            "d/000000/000001.bin",
            "d/000001/000000.bin"
        ]
    );
    assert_eq!(keys(":2:1"), ["00000000.bin", "00000001.bin"]);
    assert_eq!(keys("a:b:2:1"), ["a:b/00000000.bin", "a:b/00000001.bin"]);
    assert_eq!(keys("one:1:1:5"), ["one/000000/000000.bin"]);
    let size = |spec: &str| Synthetic::parse(spec).map(|synthetic| synthetic.size);
    assert_eq!(size("a:1:5").ok(), Some(5));
    assert_eq!(size("a:1:5K").ok(), Some(5 << 10));
    assert_eq!(size("a:1:5MiB").ok(), Some(5 << 20));
    assert_eq!(size("a:1:2g").ok(), Some(2 << 30));
    assert_eq!(
        Synthetic::parse("a:25K:1").map(|synthetic| synthetic.count),
        Ok(25_000)
    );
    for wrong in [
        "",
        "a",
        "a:1",
        "a:b:c",
        "a:1:5X",
        "a:1:1:0",
        ":1:1",
        "a:1:99999999999T",
    ] {
        assert!(Synthetic::parse(wrong).is_err(), "{wrong}");
    }
}
