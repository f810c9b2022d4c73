//! `lastword verify --mirror`: whether the site's MySQL has the rows of the node.

use anyhow::bail;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{
    output::{KeyText, VersionText, escape, json_line, one_line, print, spinner},
    verify::rows,
};
use crate::{
    client::{Client, ClientError},
    wire::proto::{self, MirrorDifferenceKind},
};

#[derive(Serialize)]
struct Report<'a> {
    equal: bool,
    bytes: u64,
    tables: Vec<Table<'a>>,
    differences: Vec<Difference<'a>>,
}

#[derive(Serialize)]
struct Table<'a> {
    table: &'a str,
    rows: u64,
    changed: u64,
    missing: u64,
    extra: u64,
    repaired: u64,
    in_flux: u64,
    set_aside: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    problem: &'a str,
}

#[derive(Serialize)]
struct Difference<'a> {
    table: &'a str,
    #[serde(flatten)]
    key: KeyText<'a>,
    kind: &'static str,
    #[serde(flatten)]
    version: Option<VersionText>,
    repaired: bool,
}

/// Asks, prints, and says by its error whether there are differences left.
pub(super) async fn run(
    mut client: Client,
    request: proto::VerifyMirrorRequest,
    json: bool,
) -> anyhow::Result<()> {
    let repair = request.repair;
    let verify = client.verify_mirror(request).await?;
    let bar = spinner();
    let result = verify.result(|news| {
        bar.set_message(progress_text(news));
        bar.tick();
    });
    let result = result.await;
    bar.finish_and_clear();
    let result = result?;

    let mut out = Vec::new();
    if json {
        json_line(&mut out, &report_of(&result)?);
    } else {
        text_of(&mut out, &result);
    }
    print(&out)?;
    let left = result.tables.iter().map(left).sum();
    let in_flux = result.tables.iter().map(|table| table.in_flux).sum();
    let problem = result.tables.iter().find(|table| !table.problem.is_empty());
    match (left, problem) {
        (0, Some(table)) => bail!("not compared: {}", one_line(&table.problem)),
        (0, None) if in_flux > 0 => bail!(
            "{} could not be told, because they change all the time or the mirror lags (lastword \
             status): try again",
            rows(in_flux)
        ),
        (0, None) => Ok(()),
        (n, _) if repair => bail!("{} still differ from MySQL's", rows(n)),
        (n, _) => bail!("{} differ from MySQL's: --repair puts them right", rows(n)),
    }
}

fn differing(table: &proto::MirrorTableResult) -> u64 {
    table.changed + table.missing + table.extra
}

fn left(table: &proto::MirrorTableResult) -> u64 {
    differing(table).saturating_sub(table.repaired)
}

fn progress_text(progress: &proto::VerifyMirrorProgress) -> String {
    format!(
        "{}: {} compared, {} differ, {} repaired, {} read from MySQL",
        if progress.table.is_empty() { "connecting" } else { &progress.table },
        rows(progress.rows),
        HumanCount(progress.differing),
        HumanCount(progress.repaired),
        HumanBytes(progress.bytes),
    )
}

fn text_of(out: &mut Vec<u8>, result: &proto::VerifyMirrorResult) {
    for difference in &result.differences {
        escape(out, difference.table.as_bytes());
        out.push(b'\t');
        escape(out, &difference.key);
        let repaired = if difference.repaired { "\trepaired" } else { "" };
        let line = format!("\t{}{repaired}\n", kind_text(difference.kind()));
        out.extend_from_slice(line.as_bytes());
    }
    let all: u64 = result.tables.iter().map(differing).sum();
    let shown = result.differences.len() as u64;
    if all > shown {
        let more = HumanCount(all - shown);
        out.extend_from_slice(format!("... and {more} more\n").as_bytes());
    }
    for table in &result.tables {
        let proto::MirrorTableResult { changed, missing, extra, repaired, .. } = table;
        let mut line = format!("{}: ", table.table);
        line += &match (&table.problem[..], differing(table)) {
            ("", 0) => format!("equal, {} compared", rows(table.rows)),
            ("", n) => format!(
                "not equal, {} differ ({} changed, {} missing, {} extra), {} repaired; {} compared",
                rows(n),
                HumanCount(*changed),
                HumanCount(*missing),
                HumanCount(*extra),
                HumanCount(*repaired),
                rows(table.rows),
            ),
            (problem, _) => format!("not compared: {}", one_line(problem)),
        };
        if table.set_aside > 0 {
            line += &format!(", {} set aside in _lastword_rejected", HumanCount(table.set_aside));
        }
        if table.in_flux > 0 {
            line += &format!(", {} on their way", HumanCount(table.in_flux));
        }
        line.push('\n');
        out.extend_from_slice(line.as_bytes());
    }
    let bytes = HumanBytes(result.bytes);
    out.extend_from_slice(format!("{bytes} read from MySQL\n").as_bytes());
}

fn kind_text(kind: MirrorDifferenceKind) -> &'static str {
    match kind {
        MirrorDifferenceKind::Unspecified => "differs",
        MirrorDifferenceKind::Changed => "changed",
        MirrorDifferenceKind::Missing => "missing",
        MirrorDifferenceKind::Extra => "extra",
    }
}

fn report_of(result: &proto::VerifyMirrorResult) -> Result<Report<'_>, ClientError> {
    let tables: Vec<_> = result
        .tables
        .iter()
        .map(|table| Table {
            table: &table.table,
            rows: table.rows,
            changed: table.changed,
            missing: table.missing,
            extra: table.extra,
            repaired: table.repaired,
            in_flux: table.in_flux,
            set_aside: table.set_aside,
            problem: &table.problem,
        })
        .collect();
    let mut differences = Vec::with_capacity(result.differences.len());
    for difference in &result.differences {
        let version = difference.version.as_ref();
        differences.push(Difference {
            table: &difference.table,
            key: KeyText::of(&difference.key),
            kind: kind_text(difference.kind()),
            version: version.map(|version| VersionText::of(Some(version))).transpose()?,
            repaired: difference.repaired,
        });
    }
    let is_equal = |table: &proto::MirrorTableResult| {
        left(table) == 0 && table.in_flux == 0 && table.problem.is_empty()
    };
    Ok(Report {
        equal: result.tables.iter().all(is_equal),
        bytes: result.bytes,
        tables,
        differences,
    })
}
