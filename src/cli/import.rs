//! `lastword import`: merges a delta that was carried here as a file; or watches a MySQL table's rows come in.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    output::{json_line, print},
    servers::ServerArgs,
    status_text::rows,
    take_in,
};
use crate::{
    delta_file::{Block, Reader, Summary, verify},
    wire::proto::{
        DeltaFileHeader, DeltaFileRows, ImportRequest, ImportResponse, import_request::Part,
    },
};

/// How many bytes of rows a part has, at least, but for the last.
const PART_BYTES: usize = 128 << 10;
/// Parts that wait to be sent.
const PARTS_WAITING_MAX: usize = 4;

/// Merge a file that lastword export wrote at another site, or take a MySQL table in
///
/// The whole file is read first: one that was cut short or altered is refused before anything of it
/// is merged. Importing a file twice does no harm. Of several servers the first is used.
///
/// With --mysql the rows that a captured table of the node's MySQL has become writes of its site, while
/// applications go on writing. The node begins by itself once the table has capture = true in its
/// [[table]], and goes on by itself; this shows how far it is, and ends when all rows are in.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  lastword import for-nyc.lwd --server http://nyc.example:7400\n  \
                        lastword import --mysql customers"
)]
pub(super) struct Args {
    /// The file
    #[arg(required_unless_present = "mysql", conflicts_with = "mysql")]
    file: Option<PathBuf>,
    /// The table, instead of a file
    #[arg(long, value_name = "TABLE")]
    mysql: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    site: &'a str,
    rows: u64,
    bytes: u64,
    rows_stored: u64,
    conflicts: u64,
    rows_held_back: u64,
    claimed: bool,
    heads: &'a str,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut client = self.server.client()?;
        let file = match (self.mysql, self.file) {
            (Some(table), _) => return take_in::run(&mut client, &table, self.json).await,
            (None, Some(file)) => file,
            (None, None) => bail!("file: name one, or a table with --mysql"),
        };
        let path = file.clone();
        let checked = tokio::task::spawn_blocking(move || check(&path)).await?;
        let (header, summary) = checked?;
        let (parts, queue) = mpsc::channel(PARTS_WAITING_MAX);
        let path = file;
        let sending = tokio::task::spawn_blocking(move || send(&path, &parts));
        let imported = client.import(queue).await;
        // The node's reason weighs more than that nobody reads on here.
        let sent = sending.await?;
        let imported = match imported {
            Ok(imported) => imported,
            Err(error) => return Err(sent.err().unwrap_or_else(|| anyhow!(error))),
        };
        sent?;

        let mut out = Vec::new();
        if self.json {
            let report = Report {
                site: &header.site,
                rows: imported.rows_received,
                bytes: summary.bytes,
                rows_stored: imported.rows_stored,
                conflicts: imported.conflicts,
                rows_held_back: imported.rows_held_back,
                claimed: imported.claimed,
                heads: &imported.heads,
            };
            json_line(&mut out, &report);
        } else {
            out.extend_from_slice(text(&header.site, &imported).as_bytes());
        }
        print(&out)?;
        if !imported.claimed {
            let wait = Duration::from_millis(imported.held_back_ms);
            bail!(
                "{} held back: stamped further ahead of the node's clock than the bound allows; the \
                 others are merged, but nothing is claimed of this file: check the clocks, and import it \
                 again in {}",
                rows(imported.rows_held_back),
                humantime::format_duration(wait)
            );
        }
        Ok(())
    }
}

fn text(site: &str, imported: &ImportResponse) -> String {
    let ImportResponse { rows_received, rows_stored, conflicts, heads, .. } = imported;
    format!(
        "from {site}: {}, {rows_stored} of them new here, {conflicts} conflicts recorded\n\
         this node has now: {heads}\n",
        rows(*rows_received)
    )
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("file: cannot read {}", path.display()))
}

fn cannot_use(path: &Path) -> String {
    format!("file: {} cannot be used", path.display())
}

/// Reads all of the file.
fn check(path: &Path) -> anyhow::Result<(DeltaFileHeader, Summary)> {
    let file = open(path)?;
    let bar = progress(&file, "checking");
    let found = verify(BufReader::with_capacity(1 << 20, bar.wrap_read(file)));
    bar.finish_and_clear();
    found.with_context(|| cannot_use(path))
}

/// Sends the file; ends early where nobody takes it any more.
fn send(path: &Path, parts: &mpsc::Sender<ImportRequest>) -> anyhow::Result<()> {
    let file = open(path)?;
    let bar = progress(&file, "importing");
    let mut reader = Reader::new(BufReader::new(file)).with_context(|| cannot_use(path))?;
    let next = |reader: &mut Reader<_>| reader.next_block().with_context(|| cannot_use(path));
    let header = Some(Part::Header(reader.header().clone()));
    let mut going_on = parts.blocking_send(ImportRequest { part: header, last: false }).is_ok();
    // Small blocks go together: a flood of small frames is taken for an attack.
    let mut gathered = DeltaFileRows::default();
    let mut bytes = 0;
    while going_on && let Some(Block { rows, last }) = next(&mut reader)? {
        bytes += rows.encoded_len();
        gathered.rows.extend(rows.rows);
        if bytes >= PART_BYTES || last {
            let part = Some(Part::Rows(std::mem::take(&mut gathered)));
            bytes = 0;
            going_on = parts.blocking_send(ImportRequest { part, last }).is_ok();
            bar.set_position(reader.position());
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn progress(file: &File, what: &'static str) -> ProgressBar {
    let template = "{msg} {bar:40} {bytes} of {total_bytes}, {eta}";
    let style = ProgressStyle::with_template(template).expect("a sound template");
    // A length that cannot be told makes a bar without an end.
    let length = file.metadata().map_or(0, |meta| meta.len());
    ProgressBar::new(length).with_style(style).with_message(what)
}
