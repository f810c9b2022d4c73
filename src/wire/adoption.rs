//! Tables that were there before, as an operator's tools ask for them and get them.

use super::{limits::RequestError, proto, rows::table_in};
use crate::{
    model::TableName,
    node::{
        AdoptCounts, AdoptExample, AdoptKind, AdoptOptions, Adopted, Decision, Stand, TakingIn,
    },
};

/// The table whose rows are to be taken in.
///
/// # Errors
///
/// [`RequestError`]: no such table can be.
pub fn take_in_in(request: &proto::TakeTableInRequest) -> Result<TableName, RequestError> {
    table_in(&request.table)
}

/// What is to be compared.
///
/// # Errors
///
/// [`RequestError`]: no such table can be.
pub fn adopt_in(request: proto::AdoptTableRequest) -> Result<AdoptOptions, RequestError> {
    use proto::adopt_table_request::Decision as Said;
    let decision = match request.decision {
        Some(Said::NewerBy(column)) => Some(Decision::NewerBy(column)),
        Some(Said::Keep(side)) => match proto::RowsIn::try_from(side) {
            Ok(proto::RowsIn::Mysql) => Some(Decision::Keep(Stand::MySql)),
            Ok(proto::RowsIn::Store) => Some(Decision::Keep(Stand::Store)),
            // One of a later release: nothing is decided.
            Ok(proto::RowsIn::Unspecified) | Err(_) => None,
        },
        None => None,
    };
    Ok(AdoptOptions { table: table_in(&request.table)?, decision, applies: request.apply })
}

impl From<TakingIn> for proto::TakeTableInResponse {
    fn from(taking_in: TakingIn) -> proto::TakeTableInResponse {
        let TakingIn { rows, rows_about, is_done } = taking_in;
        proto::TakeTableInResponse { rows, rows_about, done: is_done }
    }
}

impl From<AdoptCounts> for proto::AdoptTableResponse {
    fn from(counts: AdoptCounts) -> proto::AdoptTableResponse {
        let event = proto::adopt_table_response::Event::Progress(counts_out(&counts));
        proto::AdoptTableResponse { event: Some(event) }
    }
}

impl From<Adopted> for proto::AdoptTableResponse {
    fn from(adopted: Adopted) -> proto::AdoptTableResponse {
        let result = proto::AdoptResult {
            counts: Some(counts_out(&adopted.counts)),
            examples: adopted.examples.into_iter().map(example_out).collect(),
            was_done: adopted.was_done,
            losers_in: adopted.losers_in,
        };
        let event = proto::adopt_table_response::Event::Result(result);
        proto::AdoptTableResponse { event: Some(event) }
    }
}

fn counts_out(counts: &AdoptCounts) -> proto::AdoptCounts {
    proto::AdoptCounts {
        only_mysql: counts.only_mysql,
        only_store: counts.only_store,
        equal: counts.equal,
        different: counts.different,
        mysql_wins: counts.mysql_wins,
        store_wins: counts.store_wins,
        written_since: counts.written_since,
    }
}

fn example_out(example: AdoptExample) -> proto::AdoptExample {
    let rows_in = |stand: Option<Stand>| match stand {
        Some(Stand::MySql) => proto::RowsIn::Mysql,
        Some(Stand::Store) => proto::RowsIn::Store,
        None => proto::RowsIn::Unspecified,
    };
    let only_in = match example.kind {
        AdoptKind::OnlyMySql => Some(Stand::MySql),
        AdoptKind::OnlyStore => Some(Stand::Store),
        AdoptKind::Different => None,
    };
    proto::AdoptExample {
        key: example.key,
        only_in: rows_in(only_in).into(),
        columns: example.columns,
        winner: rows_in(example.winner).into(),
    }
}
