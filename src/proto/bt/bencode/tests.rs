use proptest::prelude::*;

use super::*;

#[test]
fn values_are_read_with_their_bytes() {
    let item = decode(b"d3:agei-7e4:infod4:name1:xe4:listl1:ai0eee").expect("canonical");
    assert_eq!(item.get("age").and_then(Item::integer), Some(-7));
    assert_eq!(item.get("info").expect("there").raw, b"d4:name1:xe");
    assert_eq!(item.get("list").and_then(Item::list).map(<[_]>::len), Some(2));
    assert!(item.get("lisa").is_none());
    for (text, number) in
        [("i9223372036854775807e", i64::MAX), ("i-9223372036854775808e", i64::MIN), ("i0e", 0)]
    {
        assert_eq!(decode(text.as_bytes()).expect(text).integer(), Some(number));
    }
}

#[test]
fn non_canonical_input_is_refused() {
    for text in [
        "",
        "i-0e",
        "i01e",
        "i--1e",
        "ie",
        "i1",
        "i 1e",
        "i+1e",
        "i1.0e",
        "i9223372036854775808e",
        "i-9223372036854775809e",
        "-1:",
        "01:a",
        "+5:hello",
        "5",
        "5:",
        "5:abcd",
        "00:",
        ":",
        "99999999999999999999:",
        "999999999:",
        "l",
        "d",
        "e",
        "le1:a",
        "i1ei2e",
        "d1:a",
        "d1:ae",
        "di1ei2ee",
        "dlei1ee",
        "d1:bi1e1:ai2ee",
        "d1:ai1e1:ai2ee",
        "x",
        " i1e",
        "d1:ad1:bi1ee",
    ] {
        assert!(decode(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn nesting_is_refused_beyond_the_limit() {
    for byte in ["l", "d", "d1:a"] {
        assert!(decode(byte.repeat(20_000).as_bytes()).is_err());
    }
    let unknown = format!("d1:a{}{}e", "l".repeat(20_000), "e".repeat(20_000));
    assert!(decode(unknown.as_bytes()).is_err(), "in a key that nobody reads");
    let nested = |depth: usize| format!("{}{}", "l".repeat(depth), "e".repeat(depth));
    assert!(decode(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert!(decode(nested(DEPTH_MAX + 1).as_bytes()).is_err());
}

#[test]
fn the_number_of_values_is_bounded() {
    for item in ["le", "0:", "i0e", "de"] {
        let list = |count: usize| format!("l{}e", item.repeat(count));
        assert!(decode(list(ITEMS_MAX - 1).as_bytes()).is_ok(), "{item}");
        assert!(decode(list(2_000_000).as_bytes()).is_err(), "{item}");
    }
    // Nested, so that no single list is long.
    let many = format!("l{}e", format!("l{}e", "i0e".repeat(1000)).repeat(100));
    assert!(decode(many.as_bytes()).is_err());
    let hollow = |lists: usize| format!("l{}e", format!("l{}e", "le".repeat(1000)).repeat(lists));
    assert!(decode(hollow(19).as_bytes()).is_ok());
    assert!(decode(hollow(20).as_bytes()).is_err(), "each of them is a value");
}

#[test]
fn truncated_input_is_refused() {
    let whole = b"d4:infod6:lengthi5e4:name3:abce4:listl2:xxi-3eee";
    decode(whole).expect("whole");
    for end in 0..whole.len() {
        assert!(decode(&whole[..end]).is_err(), "{end}");
    }
}

#[test]
fn dictionary_is_written_sorted() {
    let written = Dictionary::default()
        .integer("b", 2)
        .bytes("a", b"\x00\xff")
        .raw("c", b"le".to_vec())
        .finish();
    assert_eq!(written, b"d1:a2:\x00\xff1:bi2e1:clee");
}

/// A value made of random choices, with its canonical encoding.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let string = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes].concat();
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| format!("i{n}e").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(move |b| string(&b)),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| [
                &b"l"[..],
                &items.concat(),
                b"e"
            ]
            .concat()),
            prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..4), inner, 0..5)
                .prop_map(|map| {
                    let entries =
                        map.into_iter().fold(Dictionary::default(), |d, (k, v)| d.raw(&k, v));
                    entries.finish()
                }),
        ]
    })
}

/// What another decoder makes of the same bytes: whether they are one canonical value.
fn second_opinion(input: &[u8]) -> bool {
    fn walk(object: bendy::decoding::Object<'_, '_>) -> Result<(), bendy::decoding::Error> {
        use bendy::decoding::Object;
        match object {
            Object::Integer(text) => {
                text.parse::<i64>().map(|_| ()).map_err(bendy::decoding::Error::malformed_content)
            }
            Object::Bytes(_) => Ok(()),
            Object::List(mut list) => {
                while let Some(object) = list.next_object()? {
                    walk(object)?;
                }
                Ok(())
            }
            Object::Dict(mut dict) => {
                while let Some((_, object)) = dict.next_pair()? {
                    walk(object)?;
                }
                Ok(())
            }
        }
    }
    let mut decoder = bendy::decoding::Decoder::new(input).with_max_depth(DEPTH_MAX);
    let one = decoder.next_object().and_then(|object| object.map(walk).transpose());
    matches!(one, Ok(Some(()))) && matches!(decoder.next_object(), Ok(None))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn encoded_values_decode_from_the_same_bytes(bytes in any_value()) {
        prop_assert_eq!(decode(&bytes).expect("canonical").raw, &bytes[..]);
        prop_assert!(second_opinion(&bytes));
    }

    #[test]
    fn random_bytes_are_judged_as_bendy_judges_them(
        bytes in prop::collection::vec(prop_oneof![Just(b'd'), Just(b'l'), Just(b'i'), Just(b'e'),
            Just(b':'), Just(b'-'), b'0'..=b'3', any::<u8>()], 0..24)
    ) {
        prop_assert_eq!(decode(&bytes).is_ok(), second_opinion(&bytes), "{:?}", bytes);
    }

    #[test]
    fn one_changed_byte_is_judged_as_bendy_judges_it(
        bytes in any_value(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = bytes;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(decode(&bytes).is_ok(), second_opinion(&bytes), "{:?}", bytes);
    }
}
