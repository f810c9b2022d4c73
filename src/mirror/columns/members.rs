//! The members of a row's JSON object, each at its column.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use super::schema::Columns;

/// What an object says of a table's columns.
pub(super) struct Members {
    /// In the table's order; `None`: nothing.
    pub(super) of_columns: Vec<Option<Value>>,
    /// A member that is no column of the table.
    pub(super) unknown: Option<String>,
}

impl Members {
    /// Of several members with one name the last one counts.
    pub(super) fn of(columns: &Columns, value: &[u8]) -> Result<Members, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(value);
        let members = Reader { columns }.deserialize(&mut json)?;
        json.end()?;
        Ok(members)
    }
}

struct Reader<'c> {
    columns: &'c Columns,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Members;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Members, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let Columns { columns, generated, .. } = self.columns;
        let mut of_columns: Vec<Option<Value>> = vec![None; columns.len()];
        let mut unknown: Option<String> = None;
        // Most objects are in the table's order.
        let mut next = 0;
        while let Some(Name(name)) = map.next_key()? {
            let is_here = columns.get(next).is_some_and(|column| column.name == name);
            let at = if is_here { Some(next) } else { columns.iter().position(|c| c.name == name) };
            if let Some(at) = at {
                of_columns[at] = Some(map.next_value()?);
                next = at + 1;
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            if !generated.iter().any(|generated| *generated == name) {
                unknown.get_or_insert_with(|| name.into_owned());
            }
        }
        Ok(Members { of_columns, unknown })
    }
}

/// A member's name, not copied where it stands in the text as it is.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Name<'de>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        json.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::columns::test_columns;

    fn members(text: &str) -> Result<(String, Option<String>), String> {
        let columns = test_columns("t", &[("id", "int(11)"), ("v", "int(11)")], &["id"]);
        let members = Members::of(&columns, text.as_bytes()).map_err(|error| error.to_string())?;
        Ok((format!("{:?}", members.of_columns), members.unknown))
    }

    #[test]
    fn each_is_found_in_any_order_and_the_last_of_one_name_counts() {
        let both = "[Some(Number(1)), Some(Number(2))]";
        for text in [
            r#"{"id":1,"v":2}"#,
            r#"{"v":2,"id":1}"#,
            r#"{"v":7,"id":1,"v":2}"#,
            " {\"\\u0069d\" : 1, \"v\" : 2} ",
        ] {
            assert_eq!(members(text).unwrap(), (both.to_owned(), None), "{text}");
        }
        let unknown = members(r#"{"x":{"id":[3]},"v":2,"y":1}"#).unwrap();
        assert_eq!(unknown, ("[None, Some(Number(2))]".to_owned(), Some("x".to_owned())));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[1]", "{", r#"{"id":1}x"#, "", r#"{"id":}"#, "\"id\""] {
            assert!(members(text).is_err(), "{text}");
        }
    }
}
