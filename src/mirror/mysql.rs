//! The connection to MySQL: the only file that knows the driver.
//!
//! Every call is bounded in time; one that takes longer counts as a lost connection, so that a
//! half-open one is noticed. After any error but the server's own the connection is of no use.

use std::{future::Future, time::Duration};

use jiff::civil::DateTime;
use mysql_async::{
    Conn, DriverError, Error, IoError, OptsBuilder, Params, Row, SslOpts, Value, prelude::Queryable,
};

use super::{
    Config, Tls,
    error::{MirrorError, ServerError},
    statement::{self, Bulk, Param, Statement},
};

/// How many statements the server keeps prepared for a session.
const PREPARED_MAX: usize = 32;
/// What the protocol adds to a statement's parameters, at most, in bytes.
const PACKET_MARGIN_BYTES: usize = 64 << 10;
/// The protocol's own bound on one packet, in bytes; what is longer is sent in several.
const PACKET_BYTES_BOUND: usize = 16 << 20;
/// An idle connection's peer is asked after so long whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const UNKNOWN_DATABASE: u16 = 1049;
const NO_TLS: &str = "MySQL offers no TLS, and mysql_tls is required";

/// A session of the mirror.
pub(super) struct Connection {
    conn: Conn,
    statement_max: Duration,
    statement_bytes_max: usize,
    takes_bulk: bool,
    bytes_read: u64,
}

/// A value of a result; `None` is NULL. Numbers are in decimal.
pub(super) type Cell = Option<Vec<u8>>;

impl Connection {
    /// Connects and sets the session up.
    pub(super) async fn open(config: &Config) -> Result<Connection, MirrorError> {
        let target = &config.target;
        if target.database.is_empty() {
            return Err(MirrorError::NoDatabase);
        }
        let options = OptsBuilder::default()
            .ip_or_hostname(target.host.clone())
            .tcp_port(target.port)
            .user(Some(target.user.clone()))
            .pass(target.password.clone())
            .db_name(Some(target.database.clone()))
            // The address that was given, not a socket that the server may name.
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEP_ALIVE))
            .ssl_opts(config.tls.as_ref().map(tls_options))
            // A row that an UPDATE finds counts, whether or not it changes.
            .client_found_rows(true)
            .stmt_cache_size(PREPARED_MAX);
        let conn = within("connecting", config.connect_max, Conn::new(options)).await;
        let conn = conn.map_err(|error| match error {
            MirrorError::Server(error) if error.code == UNKNOWN_DATABASE => {
                MirrorError::UnknownDatabase(target.clone())
            }
            MirrorError::Connection(reason) => {
                let advice = tls_advice(&reason);
                MirrorError::Connection(format!("cannot connect to {target}: {reason}{advice}"))
            }
            other => other,
        })?;
        let mut connection = Connection {
            conn,
            statement_max: config.statement_max,
            statement_bytes_max: 0,
            takes_bulk: false,
            bytes_read: 0,
        };
        connection.execute(statement::session(config.statement_max)).await?;
        if config.has_column_tables() {
            connection.execute(statement::ISOLATION).await?;
        }
        let rows = connection.rows(statement::TAKES).await?;
        let packet_bytes_max =
            first_number(&rows).ok_or(MirrorError::Damaged("max_allowed_packet"))?;
        connection.takes_bulk = rows[0].get(1).and_then(number) == Some(1);
        connection.statement_bytes_max = usize::try_from(packet_bytes_max)
            .unwrap_or(usize::MAX)
            .min(PACKET_BYTES_BOUND)
            .saturating_sub(PACKET_MARGIN_BYTES);
        Ok(connection)
    }

    /// How many bytes of parameters the server takes in one statement.
    pub(super) fn statement_bytes_max(&self) -> usize {
        self.statement_bytes_max
    }

    /// Whether the server takes a [`Bulk`] as one statement.
    pub(super) fn takes_bulk(&self) -> bool {
        self.takes_bulk
    }

    /// How many bytes of results were read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Runs a statement; gives how many rows it found or changed.
    pub(super) async fn execute(&mut self, what: impl Into<Call>) -> Result<u64, MirrorError> {
        let conn = &mut self.conn;
        let limit = self.statement_max;
        match what.into() {
            Call::Text(sql) => within("a statement", limit, conn.query_drop(sql)).await?,
            Call::Prepared(sql, params) => {
                within("a statement", limit, conn.exec_drop(sql, params)).await?;
            }
            Call::Bulk(sql, rows) => {
                within("a statement", limit, conn.exec_batch(sql, rows)).await?;
            }
        }
        Ok(self.conn.affected_rows())
    }

    /// Runs a statement; gives the rows of its result.
    pub(super) async fn rows(
        &mut self,
        what: impl Into<Call>,
    ) -> Result<Vec<Vec<Cell>>, MirrorError> {
        let conn = &mut self.conn;
        let limit = self.statement_max;
        let rows: Vec<Row> = match what.into() {
            Call::Text(sql) => within("a query", limit, conn.query(sql)).await?,
            Call::Prepared(sql, params) => within("a query", limit, conn.exec(sql, params)).await?,
            Call::Bulk(..) => unreachable!("no query is run for many rows"),
        };
        let rows: Vec<Vec<Cell>> =
            rows.into_iter().map(|row| row.unwrap().into_iter().map(cell).collect()).collect();
        let bytes = rows.iter().flatten().flatten().map(Vec::len).sum::<usize>();
        self.bytes_read += bytes as u64;
        Ok(rows)
    }
}

/// A statement ready to be sent, as text where it has no parameters.
pub(super) enum Call {
    Text(String),
    Prepared(String, Params),
    Bulk(String, Vec<Params>),
}

impl From<&str> for Call {
    fn from(sql: &str) -> Call {
        Call::Text(sql.to_owned())
    }
}

impl From<Statement> for Call {
    fn from(statement: Statement) -> Call {
        if statement.params.is_empty() {
            Call::Text(statement.sql)
        } else {
            Call::Prepared(statement.sql, positional(statement.params))
        }
    }
}

impl From<Bulk> for Call {
    fn from(bulk: Bulk) -> Call {
        Call::Bulk(bulk.sql, bulk.rows.into_iter().map(positional).collect())
    }
}

/// The only value of a result, where it is a number.
pub(super) fn first_number(rows: &[Vec<Cell>]) -> Option<u64> {
    number(rows.first()?.first()?)
}

/// A value, where it is a number.
pub(super) fn number(cell: &Cell) -> Option<u64> {
    str::from_utf8(cell.as_deref()?).ok()?.parse().ok()
}

/// A value as text; NULL is empty.
pub(super) fn text(cell: &Cell) -> String {
    String::from_utf8_lossy(cell.as_deref().unwrap_or_default()).into_owned()
}

/// The name in the certificate must be the target's host: nothing here takes that check away.
fn tls_options(tls: &Tls) -> SslOpts {
    match &tls.ca_file {
        Some(path) => SslOpts::default()
            .with_root_certs(vec![path.clone().into()])
            .with_disable_built_in_roots(true),
        None => SslOpts::default(),
    }
}

/// What to do where MySQL could not prove who it is, beginning with a separator.
fn tls_advice(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") || reason.contains("BadSignature") {
        "; its certificate is not signed by an authority of mysql_ca_file: give the file of the \
         authority that signed it"
    } else if reason.contains("not valid for name") || reason.contains("NotValidForName") {
        "; its certificate is another host's: use a name from it in the mysql URL, or give MySQL a \
         certificate for this one"
    } else if reason.contains("Expired") || reason.contains("expired") {
        "; give MySQL a new certificate"
    } else if reason == NO_TLS {
        ": set ssl_cert and ssl_key in MySQL's settings, or mysql_tls = \"off\""
    } else {
        ""
    }
}

async fn within<T>(
    what: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, MirrorError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::Server(error))) => Err(MirrorError::Server(ServerError {
            code: error.code,
            state: error.state,
            message: one_line(&error.message),
        })),
        Ok(Err(Error::Io(IoError::Io(error)))) => {
            Err(MirrorError::Connection(one_line(&error.to_string())))
        }
        Ok(Err(Error::Driver(DriverError::NoClientSslFlagFromServer))) => {
            Err(MirrorError::Connection(NO_TLS.to_owned()))
        }
        Ok(Err(error)) => Err(MirrorError::Connection(one_line(&error.to_string()))),
        Err(_) => Err(MirrorError::Connection(format!("{what} took longer than {limit:?}"))),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn positional(params: Vec<Param>) -> Params {
    Params::Positional(params.into_iter().map(value).collect())
}

fn value(param: Param) -> Value {
    match param {
        Param::Null => Value::NULL,
        Param::Number(number) => Value::UInt(number),
        Param::Integer(number) => Value::Int(number),
        Param::Double(number) => Value::Double(number),
        Param::Bytes(bytes) => Value::Bytes(bytes.into()),
        Param::DateTime(time) => date(time),
    }
}

fn date(time: DateTime) -> Value {
    let small = |number: i8| number.unsigned_abs();
    Value::Date(
        time.year().unsigned_abs(),
        small(time.month()),
        small(time.day()),
        small(time.hour()),
        small(time.minute()),
        small(time.second()),
        time.subsec_nanosecond().unsigned_abs() / 1_000,
    )
}

/// As text, whichever protocol it came by. Of a number the shortest that gives it back; of a time all six
/// digits behind the seconds.
fn cell(value: Value) -> Cell {
    let text = match value {
        Value::NULL => return None,
        Value::Bytes(bytes) => return Some(bytes),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Double(number) => format!("{number:?}"),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
        }
        Value::Time(is_negative, days, hour, minute, second, micros) => {
            let sign = if is_negative { "-" } else { "" };
            let hours = u64::from(days) * 24 + u64::from(hour);
            format!("{sign}{hours:02}:{minute:02}:{second:02}.{micros:06}")
        }
    };
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::mapping::datetime;

    #[test]
    fn times_keep_their_milliseconds() {
        let time = datetime(1_709_210_096_789);
        assert_eq!(date(time), Value::Date(2024, 2, 29, 12, 34, 56, 789_000));
        assert_eq!(date(datetime(u64::MAX)), Value::Date(9999, 12, 31, 23, 59, 59, 999_999));
    }

    #[test]
    fn cells_are_read_back() {
        assert_eq!(first_number(&[vec![Some(b"12".to_vec())]]), Some(12));
        assert_eq!(first_number(&[vec![cell(Value::UInt(u64::MAX))]]), Some(u64::MAX));
        assert_eq!(first_number(&[vec![None]]), None);
        assert_eq!(text(&cell(Value::Bytes(b"x".to_vec()))), "x");
        assert_eq!(text(&cell(Value::Float(0.1))), "0.1");
        assert_eq!(text(&cell(Value::Double(1e300))), "1e300");
        let date = Value::Date(2024, 2, 29, 0, 0, 0, 7);
        assert_eq!(text(&cell(date)), "2024-02-29 00:00:00.000007");
        assert_eq!(text(&cell(Value::Time(true, 34, 22, 59, 59, 0))), "-838:59:59.000000");
    }
}
