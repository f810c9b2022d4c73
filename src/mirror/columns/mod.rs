//! Column tables: rows of the store as rows of an ordinary MySQL table.
//!
//! ```text
//! information_schema --> schema.rs: Columns, or why the table will not do
//! MySQL's cells  --> codec.rs --> key and JSON object          what is read
//! key and object --> codec.rs --> parameters, or the reason    what is written
//!                    sql.rs: the statements of one table; own.rs: those of lastword's own tables
//!                    number.rs: a row as one number, computed alike by MySQL and here
//!                    pieces.rs: a large table in pieces, by its keys
//! rows of the store --> batch.rs --> written | deleted | set aside
//! ```
//!
//! **Promise.** What is read from a row and written to another table of the same columns is the same
//! row, byte for byte; and what is written is never changed by MySQL on the way: whatever it would cut,
//! round or convert is refused before, with the column's name.
//!
//! The key is the primary key's text: of one column as it is (binary: the bytes themselves), of several
//! a JSON array (`[1,"x"]`). The value is a JSON object of all columns, the key's included, generated ones
//! left out, in the table's order. Pure.

mod batch;
mod codec;
mod kind;
mod members;
mod number;
pub(super) mod own;
mod pieces;
mod schema;
mod sql;
mod texts;

pub(super) use batch::{ColumnBatch, ColumnRecord, Place};
pub(super) use codec::RowParams;
pub(super) use kind::Kind;
pub(super) use number::shown;
#[cfg(test)]
pub(super) use schema::Absent;
pub(super) use schema::{Column, Columns, is_missing};
pub(super) use sql::{create, placeholder, quoted, rows_that_fit};

/// A table of these columns.
#[cfg(test)]
pub(super) fn test_columns(table: &str, columns: &[(&str, &str)], key: &[&str]) -> Columns {
    let facts = schema::tests::facts(columns, key);
    Columns::of(table, &facts, &super::table_setting::TableSetting::default()).unwrap()
}
