//! `lastword export`: a delta for a site to which there is no line, as a file.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::{
    output::{json_line, print},
    servers::ServerArgs,
    signals::Signals,
    status_text::rows,
};
use crate::{
    client::{ClientError, Parts},
    delta_file::{Summary, Writer},
    model::Heads,
    protocol::CarriedHeader,
    wire::proto::{
        DeltaFileHeader, DeltaFileRows, ExportResponse, export_request::Since,
        export_response::Part,
    },
};

/// Blocks that wait to be written.
const BLOCKS_WAITING_MAX: usize = 4;

/// Write what another site lacks into a file, to be carried there and imported
///
/// For sites without a line between them: the file holds every row above what the other site has, as
/// one moment of this node. Import it there with lastword import. The file appears under its name only when
/// it is whole.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword export --since nothing everything.lwd\n  \
                        lastword export --since nyc for-nyc.lwd\n  \
                        lastword export --since h1.AAECAwQ... for-nyc.lwd")]
pub(super) struct Args {
    /// What the other side has: the name of its site, where that is known here (it was linked, or a
    /// file of its was imported); its heads, as its lastword status or import shows them; or nothing
    #[arg(long, value_name = "SITE|HEADS|nothing")]
    since: String,
    /// The file to write; one of that name is replaced
    file: PathBuf,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    site: &'a str,
    rows: u64,
    bytes: u64,
    since: String,
    heads: String,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut client = self.server.client()?;
        let mut signals = Signals::new()?;
        let since = match self.since.as_str() {
            "nothing" => Since::Nothing(true),
            heads if heads.starts_with("h1.") => Since::Heads(heads.to_owned()),
            site => Since::Site(site.to_owned()),
        };
        let writing = async {
            let parts = client.export(since).await?;
            receive(parts, &self.file).await
        };
        let (header, written) = tokio::select! {
            written = writing => written?,
            // What was written so far goes with its handle.
            signal = signals.next() => bail!("stopped by {signal}: no file was written"),
        };
        let header = CarriedHeader::try_from(header)?;
        let (since, heads) = (header.since.to_text(), header.heads.to_text());
        let mut out = Vec::new();
        if self.json {
            let Summary { rows, bytes } = written;
            let file = &self.file;
            json_line(&mut out, &Report { file, site: &header.site, rows, bytes, since, heads });
        } else {
            let from = if header.since == Heads::new() { "nothing".to_owned() } else { since };
            out.extend_from_slice(
                format!(
                    "{}: {} in {}\n  from {from}\n  to   {heads}\n",
                    self.file.display(),
                    rows(written.rows),
                    HumanBytes(written.bytes)
                )
                .as_bytes(),
            );
        }
        Ok(print(&out)?)
    }
}

/// Writes the parts into the file.
async fn receive(
    mut parts: Parts<ExportResponse>,
    file: &Path,
) -> anyhow::Result<(DeltaFileHeader, Summary)> {
    let first = parts.next().await?.and_then(|part| part.part);
    let Some(Part::Header(header)) = first else {
        return Err(ClientError::Incomplete("header").into());
    };
    let (blocks, queue) = mpsc::channel(BLOCKS_WAITING_MAX);
    let (path, of_writer) = (file.to_owned(), header.clone());
    let writing = tokio::task::spawn_blocking(move || write(&path, &of_writer, queue));
    let bar = progress();
    loop {
        let Some(part) = parts.next().await? else {
            return Err(ClientError::Incomplete("end").into());
        };
        if let Some(Part::Rows(rows)) = part.part {
            bar.inc(rows.rows.len() as u64);
            bar.set_length(bar.position() + part.remaining_rows);
            // Where the writer has failed, it says why below.
            if !rows.rows.is_empty() && blocks.send(Some(rows)).await.is_err() {
                break;
            }
        }
        if part.last {
            let _ = blocks.send(None).await;
            break;
        }
    }
    drop(blocks);
    let written = writing.await?;
    bar.finish_and_clear();
    Ok((header, written?))
}

/// Writes blocks until the end that `None` marks; without it there is no file.
fn write(
    path: &Path,
    header: &DeltaFileHeader,
    mut blocks: mpsc::Receiver<Option<DeltaFileRows>>,
) -> anyhow::Result<Summary> {
    let cannot = || format!("file: cannot write {}", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Nobody but this user reads it, until they give it to others.
    let file = NamedTempFile::new_in(folder).with_context(cannot)?;
    let mut writer = Writer::new(BufWriter::new(file), header).with_context(cannot)?;
    loop {
        match blocks.blocking_recv() {
            Some(Some(rows)) => writer.rows(&rows).with_context(cannot)?,
            Some(None) => break,
            None => bail!("the node's answer broke off: no file was written"),
        }
    }
    let (file, written) = writer.finish().with_context(cannot)?;
    let file = file.into_inner().map_err(|error| error.into_error()).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    file.persist(path).with_context(cannot)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(cannot)?;
    Ok(written)
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} rows, {eta}");
    ProgressBar::new(0).with_style(style.expect("a sound template"))
}
