//! What is read is written back the same, and what MySQL would change is refused.

use proptest::prelude::*;

use super::*;
use crate::mirror::{columns::schema::tests::facts, table_setting::TableSetting};

fn columns(columns: &[(&str, &str)], key: &[&str]) -> Columns {
    Columns::of("t", &facts(columns, key), &TableSetting::default()).unwrap()
}

fn cell(text: &str) -> Cell {
    Some(text.as_bytes().to_vec())
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec()).unwrap()
}

/// The cells that MySQL shows where it keeps parameters as they are.
fn shown_again(columns: &Columns, row: &RowParams) -> Vec<Cell> {
    let cells = columns.columns.iter().zip(row).map(|(column, param)| {
        let param = param.as_ref().expect("every column was told");
        match (&column.kind, param) {
            (Kind::Bits { .. }, Param::Number(bits)) => Some(bits.to_be_bytes().to_vec()),
            _ => cell_of(param),
        }
    });
    cells.collect()
}

#[track_caller]
fn refusal(columns: &Columns, at: &str, value: &str) -> String {
    let text = columns.row_params(&key(at), value.as_bytes()).unwrap_err();
    assert!(!text.contains('\n'), "{text}");
    text
}

const ALL: [(&str, &str); 26] = [
    ("id", "bigint(20) unsigned"),
    ("tiny", "tinyint(4)"),
    ("small", "smallint(5) unsigned"),
    ("medium", "mediumint(9)"),
    ("plain", "int(11)"),
    ("big", "bigint(20)"),
    ("bits", "bit(10)"),
    ("year", "year(4)"),
    ("rate", "decimal(30,10)"),
    ("single", "float"),
    ("double", "double"),
    ("day", "date"),
    ("moment", "datetime(6)"),
    ("stamp", "timestamp(3)"),
    ("span", "time(2)"),
    ("fixed", "char(8)"),
    ("name", "varchar(20)"),
    ("note", "text"),
    ("rating", "enum('G','PG-13','it''s')"),
    ("features", "set('a','b','c d')"),
    ("four", "binary(4)"),
    ("bytes", "varbinary(20)"),
    ("blob", "blob"),
    ("place", "geometry"),
    ("uuid", "uuid"),
    ("address", "inet6"),
];

#[test]
fn a_row_is_told_in_the_tables_order() {
    let columns = columns(&ALL, &["id"]);
    let cells: Vec<Cell> = vec![
        cell("18446744073709551615"),
        cell("-128"),
        cell("00065"),
        None,
        cell("0"),
        cell("-9223372036854775808"),
        Some(vec![2, 5]),
        cell("0000"),
        cell("-12345678901234567890.0000000001"),
        cell("0.10000000149011612"),
        cell("1e300"),
        cell("2024-02-29 00:00:00.000000"),
        cell("0000-00-00 00:00:00"),
        cell("2024-02-29 12:34:56.789000"),
        cell("-838:59:59.000000"),
        cell("käse"),
        cell("a \"b\"\\\n"),
        cell(""),
        cell("it's"),
        cell("a,c d"),
        Some(vec![0, 255, 1, 2]),
        Some(vec![]),
        None,
        Some(vec![0, 0, 0, 0, 1]),
        cell("123e4567-e89b-12d3-a456-426655440000"),
        cell("::1"),
    ];
    let value = String::from_utf8(columns.value_of(&cells)).unwrap();
    assert_eq!(
        value,
        "{\"id\":18446744073709551615,\"tiny\":-128,\"small\":65,\"medium\":null,\"plain\":0,\
         \"big\":-9223372036854775808,\"bits\":517,\"year\":0,\
         \"rate\":\"-12345678901234567890.0000000001\",\"single\":0.1,\"double\":1e300,\
         \"day\":\"2024-02-29\",\"moment\":\"0000-00-00 00:00:00.000000\",\
         \"stamp\":\"2024-02-29 12:34:56.789\",\"span\":\"-838:59:59.00\",\"fixed\":\"käse\",\
         \"name\":\"a \\\"b\\\"\\\\\\n\",\"note\":\"\",\"rating\":\"it's\",\
         \"features\":\"a,c d\",\"four\":\"AP8BAg==\",\"bytes\":\"\",\"blob\":null,\
         \"place\":\"AAAAAAE=\",\"uuid\":\"123e4567-e89b-12d3-a456-426655440000\",\
         \"address\":\"::1\"}"
    );
    let at = columns.key_of_row(&cells).unwrap();
    assert_eq!(at, key("18446744073709551615"));
    let row = columns.row_params(&at, value.as_bytes()).unwrap();
    let again = columns.value_of(&shown_again(&columns, &row));
    assert_eq!(String::from_utf8(again).unwrap(), value);
}

#[test]
fn keys_are_the_primary_keys_text() {
    let one = columns(&[("k", "varbinary(10)"), ("v", "int(11)")], &["k"]);
    let raw = Key::new(vec![0xff, 0, b'"']).unwrap();
    assert_eq!(one.key_of(&[Some(vec![0xff, 0, b'"'])]), Ok(raw.clone()));
    assert_eq!(one.key_params(&raw), Ok(vec![Param::Bytes(raw.bytes().clone())]));
    assert!(one.key_of(&[cell("")]).unwrap_err().contains("1 to 512 bytes"));

    let of = [("n", "int(11)"), ("t", "varchar(9)"), ("b", "binary(2)"), ("d", "datetime(1)")];
    let several = columns(&of, &["n", "t", "b", "d"]);
    let cells = [cell("-7"), cell("x\"y"), Some(vec![1, 2]), cell("2024-02-29 00:00:00.0")];
    let at = several.key_of(&cells).unwrap();
    assert_eq!(at, key(r#"[-7,"x\"y","AQI=","2024-02-29 00:00:00.0"]"#));
    assert_eq!(several.key_params(&at).unwrap().len(), 4);
    for (bad, part) in [
        ("[-7, \"x\",\"AQI=\",\"2024-02-29 00:00:00.0\"]", "the key is written"),
        ("[-7,\"x\",\"AQI=\",\"2024-02-29 00:00:00\"]", "the key is written"),
        ("[-7,\"x\",\"AQI=\"]", "no JSON array of n and t and b and d"),
        ("[-7,null,\"AQI=\",\"2024-02-29 00:00:00.0\"]", "NOT NULL"),
        ("[2147483648,\"x\",\"AQI=\",\"2024-02-29 00:00:00.0\"]", "n: 2147483648 is out"),
    ] {
        let text = several.key_params(&key(bad)).unwrap_err();
        assert!(text.contains(part), "{bad}: {text}");
    }
    let number = columns(&[("id", "int(11)")], &["id"]);
    for bad in ["042", "+1", "1.0", "x", "-0"] {
        assert!(number.key_params(&key(bad)).is_err(), "{bad}");
    }
    let exact = columns(&[("id", "decimal(5,2)")], &["id"]);
    assert!(exact.key_params(&key("1.50")).is_ok());
    assert!(exact.key_params(&key("1.5")).unwrap_err().contains("\"1.50\""));
}

#[test]
fn what_mysql_would_change_is_refused_with_the_columns_name() {
    let columns = columns(&ALL, &["id"]);
    for (value, part) in [
        (r#"{"tiny":128}"#, "tiny: 128 is out of range: use -128 to 127"),
        (r#"{"tiny":1.5}"#, "tiny: 1.5 is no whole number"),
        (r#"{"tiny":"1"}"#, "tiny: \"1\" is no whole number"),
        (r#"{"small":-1}"#, "small: -1 is out of range"),
        (r#"{"big":9223372036854775808}"#, "big: 9223372036854775808 is out of range"),
        (r#"{"bits":1024}"#, "bits: 1024 is out of range: use 0 to 1023"),
        (r#"{"year":1900}"#, "year: 1900 is no year"),
        (r#"{"rate":1.5}"#, "rate: 1.5 is no string"),
        (r#"{"rate":"1.00000000001"}"#, "rate: \"1.00000000001\" does not fit DECIMAL(30,10)"),
        (r#"{"single":0.123456789}"#, "single: 0.123456789 has more digits"),
        (r#"{"single":1e39}"#, "single: 1e+39 has more digits"),
        (r#"{"double":9007199254740993}"#, "double: 9007199254740993 has more digits"),
        (r#"{"double":"1"}"#, "double: \"1\" is no number"),
        (r#"{"day":"29.2.2024"}"#, "day: \"29.2.2024\" is no date"),
        (r#"{"stamp":"2024-02-29 12:34:56.7891"}"#, "stamp: "),
        (r#"{"fixed":"a "}"#, "fixed: it ends with a space"),
        (r#"{"name":"123456789012345678901"}"#, "name: 21 characters, the column takes 20"),
        (r#"{"rating":"g"}"#, "rating: \"g\" is no member"),
        (r#"{"rating":"1"}"#, "rating: \"1\" is no member"),
        (r#"{"features":"b,a"}"#, "features: \"b,a\" is no set"),
        (r#"{"four":"AAA="}"#, "four: 2 bytes, the column takes 4"),
        (r#"{"blob":"AA"}"#, "blob: \"AA\" is no base64"),
        (r#"{"nome":1}"#, "\"nome\": the table has no such column"),
        (r#"{"id":8}"#, "id: the object says 8"),
        (r#"{"id":null}"#, "id: null, the column is NOT NULL"),
        ("[1]", "no JSON object"),
        ("{", "no JSON object"),
    ] {
        let text = refusal(&columns, "7", value);
        assert!(text.contains(part), "{value}: {text}");
    }
}

#[test]
fn absent_members_stand_for_the_default_where_it_is_the_same_everywhere() {
    let mut facts = facts(&[("id", "int(11)"), ("a", "int(11)"), ("b", "int(11)")], &["id"]);
    facts.columns[2].default = Some("rand()".into());
    facts.columns[2].extra = String::new();
    let columns = Columns::of("t", &facts, &TableSetting::default()).unwrap();
    let row = columns.row_params(&key("1"), br#"{"b":2}"#).unwrap();
    assert_eq!(row, [Some(Param::Number(1)), None, Some(Param::Number(2))]);
    assert!(refusal(&columns, "1", "{}").contains("b: the object has no such member"));
    facts.columns[1].default = None;
    facts.columns[1].is_nullable = false;
    let columns = Columns::of("t", &facts, &TableSetting::default()).unwrap();
    assert!(refusal(&columns, "1", r#"{"b":2}"#).contains("a: the object has no such member"));
}

#[test]
fn floats_of_fixed_digits_are_those_that_mysql_rounds_to() {
    let columns = columns(&[("id", "int(11)"), ("f", "float(7,2)")], &["id"]);
    assert!(columns.row_params(&key("1"), br#"{"f":12345.67}"#).is_ok());
    assert!(refusal(&columns, "1", r#"{"f":0.123}"#).contains("f: 0.123"));
}

proptest! {
    #[test]
    fn every_float_comes_back(bits in any::<u32>()) {
        let number = f32::from_bits(bits);
        prop_assume!(number.is_finite());
        let columns = columns(&[("id", "int(11)"), ("f", "float")], &["id"]);
        for text in [format!("{number:?}"), format!("{:?}", f64::from(number))] {
            let value = columns.value_of(&[cell("1"), cell(&text)]);
            let row = columns.row_params(&key("1"), &value).unwrap();
            let Some(Param::Double(told)) = row[1] else { panic!("{row:?}") };
            prop_assert_eq!((told as f32).to_bits(), bits);
        }
    }

    #[test]
    fn every_double_comes_back(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let columns = columns(&[("id", "int(11)"), ("f", "double")], &["id"]);
        let value = columns.value_of(&[cell("1"), cell(&format!("{number:?}"))]);
        let row = columns.row_params(&key("1"), &value).unwrap();
        let Some(Param::Double(told)) = row[1] else { panic!("{row:?}") };
        prop_assert_eq!(told.to_bits(), bits);
    }

    #[test]
    fn what_is_told_comes_back_to_the_same_cells(
        id in any::<u64>(),
        big in any::<i64>(),
        bits in 0_u64..1024,
        text in "\\PC{0,20}",
        note in any::<String>(),
        bytes in prop::collection::vec(any::<u8>(), 0..20),
        cents in any::<i64>(),
        micros in 0_u32..1_000_000,
        hours in 0_u32..838,
        is_null in any::<bool>(),
    ) {
        let columns = columns(
            &[
                ("id", "bigint(20) unsigned"), ("name", "varchar(20)"), ("big", "bigint(20)"),
                ("bits", "bit(10)"), ("note", "text"), ("bytes", "varbinary(20)"),
                ("price", "decimal(21,2)"), ("at", "datetime(6)"), ("span", "time(6)"),
            ],
            &["id", "name"],
        );
        let sign = if cents < 0 { "-" } else { "" };
        let cents = cents.unsigned_abs();
        let nullable = |cell: Cell| if is_null { None } else { cell };
        let cells = [
            cell(&id.to_string()),
            cell(&text),
            nullable(cell(&big.to_string())),
            Some(bits.to_be_bytes().to_vec()),
            nullable(cell(&note)),
            Some(bytes),
            cell(&format!("{sign}{}.{:02}", cents / 100, cents % 100)),
            cell(&format!("2024-02-29 12:34:56.{micros:06}")),
            cell(&format!("{hours:02}:59:59.{micros:06}")),
        ];
        let Ok(at) = columns.key_of_row(&cells) else { return Ok(()) };
        let row = columns.row_params(&at, &columns.value_of(&cells)).unwrap();
        prop_assert_eq!(shown_again(&columns, &row), cells.to_vec());
    }
}
