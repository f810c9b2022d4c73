//! `lastword import --mysql`: the rows that a MySQL table had before, on their way into the store.

use std::time::Instant;

use anyhow::bail;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::{json_line, print};
use crate::{client::Client, wire::proto};

#[derive(Serialize)]
struct Report<'a> {
    table: &'a str,
    /// In the store, since the table was first seen.
    rows: u64,
    /// Of them, while this was running.
    rows_seen: u64,
    seconds: f64,
}

/// Shows how far it is until all are in.
pub(super) async fn run(client: &mut Client, table: &str, json: bool) -> anyhow::Result<()> {
    let mut parts = client.take_table_in(table).await?;
    let template = "{msg} {bar:40} {human_pos} of about {human_len} rows, {per_sec}, {eta}";
    let style = ProgressStyle::with_template(template).expect("a sound template");
    let bar = ProgressBar::new(0).with_style(style).with_message("taking in");
    #[expect(clippy::disallowed_methods, reason = "how long it takes is the operator's own time")]
    let began = Instant::now();
    let mut first = None;
    let done = loop {
        match parts.next().await {
            Ok(Some(news)) => {
                let proto::TakeTableInResponse { rows, rows_about, done } = news;
                if first.is_none() {
                    first = Some(rows);
                    // The speed is that of what is seen to come in.
                    bar.set_position(rows);
                    bar.reset_eta();
                }
                bar.set_length(rows_about.max(rows));
                bar.set_position(rows);
                if done {
                    break news;
                }
            }
            Ok(None) => {
                bar.finish_and_clear();
                bail!("the node ended before it was done: it goes on once it runs again");
            }
            Err(error) => {
                bar.finish_and_clear();
                return Err(error.into());
            }
        }
    };
    bar.finish_and_clear();
    let elapsed = began.elapsed();
    let rows_seen = done.rows.saturating_sub(first.unwrap_or_default());
    let mut out = Vec::new();
    if json {
        let (rows, seconds) = (done.rows, elapsed.as_secs_f64());
        json_line(&mut out, &Report { table, rows, rows_seen, seconds });
    } else if rows_seen == 0 {
        let text = format!("{table}: its rows are in, and what applications write is captured\n");
        out.extend_from_slice(text.as_bytes());
    } else {
        let text = format!(
            "{table}: {} rows taken in, the last {} of them in {}; what applications write is captured\n",
            HumanCount(done.rows),
            HumanCount(rows_seen),
            HumanDuration(elapsed),
        );
        out.extend_from_slice(text.as_bytes());
    }
    Ok(print(&out)?)
}
