//! `lastword demo`: two sites on this machine, each with a MariaDB of its own, and what happens to
//! them.
//!
//! ```text
//! mod.rs      the story, and whether it ended well
//! site.rs     one site: a MariaDB, a node, a client
//! mariadb.rs  a private MariaDB
//! process.rs  children that end with the demo
//! relay.rs    the line between the sites, which can be cut
//! stage.rs    what the terminal shows
//! ```
//!
//! Everything lives in one temporary folder and on loopback; nothing is left behind, unless
//! `--keep` asks for it.

mod mariadb;
mod process;
mod relay;
mod site;
mod stage;

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};

use super::signals::Signals;
use process::wait_until;
use relay::Relay;
use site::{ARTICLES, SESSIONS, Site};
use stage::Stage;

/// How long any step may take.
const STEP_MAX: Duration = Duration::from_secs(60);
/// The tables that the story writes.
const TABLES: [&str; 3] = ["sessions", "orders", ARTICLES];

/// Show two sites with a MariaDB each: writes, conflicts, a cut line, and equal databases
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lastword demo
  lastword demo --keep

Needs MariaDB installed; starts instances of its own, on loopback, in a temporary folder. Exits with
0 only if both databases are equal at the end.")]
pub(super) struct Args {
    /// Leave everything running at the end, and print how to reach each part
    #[arg(long)]
    keep: bool,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        run(self.keep).await
    }
}

/// Tells the story; an error where the two databases are not equal at its end.
async fn run(keep: bool) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("lastword-demo-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let stage = Stage::new();
    let mut signals = Signals::new()?;
    tokio::select! {
        ended = story(folder.path(), &stage, keep) => ended?,
        _ = signals.next() => bail!("interrupted: everything was stopped and removed"),
    }
    if keep {
        let _ = folder.keep();
    }
    Ok(())
}

async fn story(folder: &Path, stage: &Stage, keep: bool) -> anyhow::Result<()> {
    stage.title("Two sites, fra and nyc: a MariaDB and a lastword node at each");
    let (mut fra, mut nyc, line) = start(folder, stage).await?;
    writes_at_both(&mut fra, &mut nyc, stage).await?;
    same_keys_at_once(&mut fra, &mut nyc, stage).await?;
    inserts_at_once(&mut fra, &mut nyc, stage).await?;
    plain_sql(&fra, &nyc, stage).await?;
    cut_and_healed(&mut fra, &mut nyc, &line, stage).await?;
    side_by_side(&mut fra, &mut nyc, stage).await?;
    if keep {
        leave_running(folder, &mut fra, &nyc, stage).await?;
    } else {
        stage.working("Stopping everything and removing the folder");
        fra.stop().await;
        nyc.stop().await;
    }
    stage.done("Done: both databases hold the same rows.");
    Ok(())
}

async fn start(folder: &Path, stage: &Stage) -> anyhow::Result<(Site, Site, Relay)> {
    stage.working("Making and starting two MariaDB instances");
    let (fra_db, nyc_db) = tokio::try_join!(
        mariadb::MariaDb::start("fra", 1, folder),
        mariadb::MariaDb::start("nyc", 2, folder)
    )?;
    stage.fact(&format!("MariaDB at fra: port {}", fra_db.port));
    stage.fact(&format!("MariaDB at nyc: port {}", nyc_db.port));
    stage.working("Starting two nodes");
    let nyc = Site::start("nyc", 2, nyc_db, None, folder).await?;
    let line = Relay::to(nyc.address).await?;
    let fra = Site::start("fra", 1, fra_db, Some(line.address), folder).await?;
    stage.fact(&format!("lastword at fra: {}, mirrors into its MariaDB", fra.url()));
    stage.fact(&format!("lastword at nyc: {}, mirrors into its MariaDB", nyc.url()));
    Ok((fra, nyc, line))
}

async fn writes_at_both(fra: &mut Site, nyc: &mut Site, stage: &Stage) -> anyhow::Result<()> {
    const PAGES: usize = 20;
    const UPDATES: usize = 30;
    stage.title("Writes at both sites, 30 updates a page");
    stage.working("Writing");
    let (at_fra, at_nyc) =
        tokio::try_join!(fra.write_pages(PAGES, UPDATES), nyc.write_pages(PAGES, UPDATES))?;
    stage.fact(&format!("fra: {} rows in {PAGES} batches, {} a page", PAGES * UPDATES, ms(at_fra)));
    stage.fact(&format!("nyc: {} rows in {PAGES} batches, {} a page", PAGES * UPDATES, ms(at_nyc)));
    fra.put("hello", "written at fra").await?;
    let seen = wait_until("the row to reach nyc", STEP_MAX, async || {
        Ok(nyc.get("hello").await?.is_some())
    })
    .await?;
    stage.fact(&format!("a row written at fra was read at nyc {} later", ms(seen)));
    let statement = "SELECT v FROM sessions WHERE k = 'hello'";
    wait_until("nyc's MariaDB to have the row", STEP_MAX, async || {
        Ok(nyc.mariadb.query(statement).await.unwrap_or_default().trim() == "written at fra")
    })
    .await?;
    stage.fact(&format!("nyc's MariaDB: {statement}  ->  written at fra"));
    Ok(())
}

async fn same_keys_at_once(fra: &mut Site, nyc: &mut Site, stage: &Stage) -> anyhow::Result<()> {
    const KEYS: usize = 50;
    stage.title("The same keys written at both sites at once");
    stage.working("Writing");
    for n in 0..KEYS {
        let key = format!("contested-{n:02}");
        tokio::try_join!(fra.put(&key, "fra was here"), nyc.put(&key, "nyc was here"))?;
    }
    let mut winners = Vec::new();
    wait_until("both sites to agree", STEP_MAX, async || {
        winners = fra.rows_with_prefix("contested-").await?;
        Ok(winners.len() == KEYS && winners == nyc.rows_with_prefix("contested-").await?)
    })
    .await?;
    let of_fra = winners.iter().filter(|(_, value)| value == b"fra was here").count();
    stage.fact(&format!(
        "{KEYS} keys, one value each at both sites: {of_fra} times fra had the last word, {} times \
         nyc",
        KEYS - of_fra
    ));
    let (at_fra, at_nyc) = (fra.conflicts().await?, nyc.conflicts().await?);
    stage.fact(&format!(
        "writes that neither side had seen of the other: recorded with the losing value, {at_fra} \
         at fra, {at_nyc} at nyc"
    ));
    Ok(())
}

async fn inserts_at_once(fra: &mut Site, nyc: &mut Site, stage: &Stage) -> anyhow::Result<()> {
    stage.title("Two inserts at once, with generated ids");
    stage.working("Inserting");
    let mut ids = Vec::new();
    for _ in 0..5 {
        let (one, two) = tokio::try_join!(fra.insert("order at fra"), nyc.insert("order at nyc"))?;
        ids.push(format!("{one} and {two}"));
    }
    stage.fact(&format!("fra and nyc were given: {}", ids.join(", ")));
    Ok(())
}

async fn plain_sql(fra: &Site, nyc: &Site, stage: &Stage) -> anyhow::Result<()> {
    const ROWS: usize = 500;
    const CONTESTED: usize = 40;
    stage.title("Plain SQL at both sites, in a table of ordinary columns");
    stage.working("Writing");
    let captured = async |site: &Site| site.articles_captured().await;
    wait_until("the table to be captured", STEP_MAX, async || {
        Ok(captured(fra).await? && captured(nyc).await?)
    })
    .await?;
    fra.mariadb.query("INSERT INTO articles (title) VALUES ('written by SQL at fra')").await?;
    let seen = wait_until("the article to reach nyc's MariaDB", STEP_MAX, async || {
        Ok(!nyc.mariadb.query("SELECT title FROM articles").await?.is_empty())
    })
    .await?;
    stage.fact(&format!("INSERT at fra's MariaDB: in nyc's MariaDB {} later", ms(seen)));
    let insert = |site: &str| {
        let values: Vec<_> = (0..ROWS).map(|n| format!("('{site} {n}')")).collect();
        format!("INSERT INTO articles (title) VALUES {}", values.join(","))
    };
    let (at_fra, at_nyc) = (insert("fra"), insert("nyc"));
    tokio::try_join!(fra.mariadb.query(&at_fra), nyc.mariadb.query(&at_nyc))?;
    both_alike(fra, nyc).await?;
    stage.fact(&format!("{ROWS} rows by one INSERT at each site at once: both have all"));
    let update = |site: &str| {
        format!("UPDATE articles SET title = '{site} was here' ORDER BY id LIMIT {CONTESTED}")
    };
    let (at_fra, at_nyc) = (update("fra"), update("nyc"));
    tokio::try_join!(fra.mariadb.query(&at_fra), nyc.mariadb.query(&at_nyc))?;
    both_alike(fra, nyc).await?;
    let of_fra = "SELECT COUNT(*) FROM articles WHERE title = 'fra was here'";
    let of_fra: usize = nyc.mariadb.query(of_fra).await?.trim().parse()?;
    stage.fact(&format!(
        "{CONTESTED} rows by UPDATE at both sites at once: {of_fra} times fra had the last word, {} \
         times nyc",
        CONTESTED - of_fra
    ));
    Ok(())
}

/// Waits until what SQL wrote is the same in both databases, and nothing is on its way.
async fn both_alike(fra: &Site, nyc: &Site) -> anyhow::Result<()> {
    wait_until("both databases to be alike", STEP_MAX, async || {
        let idle = fra.articles_captured().await? && nyc.articles_captured().await?;
        Ok(idle && fra.table(ARTICLES).await? == nyc.table(ARTICLES).await?)
    })
    .await?;
    Ok(())
}

async fn cut_and_healed(
    fra: &mut Site,
    nyc: &mut Site,
    line: &Relay,
    stage: &Stage,
) -> anyhow::Result<()> {
    const PAGES: usize = 10;
    const UPDATES: usize = 30;
    stage.title("The line between the sites is cut; both go on writing");
    stage.working("Cutting the line");
    line.cut();
    wait_until("the cut to be noticed", STEP_MAX, async || {
        Ok(!fra.connected().await? && !nyc.connected().await?)
    })
    .await?;
    tokio::try_join!(fra.write_pages(PAGES, UPDATES), nyc.write_pages(PAGES, UPDATES))?;
    fra.mariadb.query("UPDATE articles SET title = 'cut off, at fra' WHERE id < 5").await?;
    nyc.mariadb.query("DELETE FROM articles WHERE id BETWEEN 4 AND 8").await?;
    fra.put("hello", "changed at fra while the line was cut").await?;
    nyc.put("hello", "changed at nyc while the line was cut, last").await?;
    nyc.delete("contested-00").await?;
    stage.fact(&format!("{} rows written at each site, all acknowledged", PAGES * UPDATES));
    stage.fact(&format!("status at fra: {}", fra.peer_line().await?));
    stage.fact(&format!("status at nyc: {}", nyc.peer_line().await?));
    stage.working("Healing the line");
    line.heal();
    let healed = wait_until("both sites to agree again", STEP_MAX, async || {
        if !fra.connected().await? || !nyc.connected().await? {
            return Ok(false);
        }
        Ok(fra.all_rows().await? == nyc.all_rows().await?)
    })
    .await?;
    stage.fact(&format!("healed: both sites hold the same rows {} later", ms(healed)));
    stage.fact(&format!("status at fra: {}", fra.peer_line().await?));
    let hello = nyc.get("hello").await?.unwrap_or_default();
    stage.fact(&format!("hello, at both: {}", String::from_utf8_lossy(&hello)));
    Ok(())
}

async fn side_by_side(fra: &mut Site, nyc: &mut Site, stage: &Stage) -> anyhow::Result<()> {
    stage.title("Both databases, side by side");
    stage.working("Waiting for the mirrors");
    wait_until("both mirrors to have every row", STEP_MAX, async || {
        for site in [&mut *fra, &mut *nyc] {
            if !site.mirrored().await? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    both_alike(fra, nyc).await?;
    let mut equal = true;
    stage.line(&format!("  {:<12}{:<32}{:<32}", "", "fra", "nyc"));
    for table in TABLES {
        let (at_fra, at_nyc) = (fra.table(table).await?, nyc.table(table).await?);
        let same = at_fra == at_nyc;
        equal &= same && at_fra.rows > 0;
        stage.line(&format!(
            "  {table:<12}{:<32}{:<32}{}",
            at_fra.summary(),
            at_nyc.summary(),
            if same { "equal, byte for byte" } else { "DIFFERENT" }
        ));
    }
    stage.line("");
    let statement = format!(
        "SELECT k, LEFT(v, 44) FROM {SESSIONS} WHERE k LIKE 'contested-0%' OR k = 'hello' \
         ORDER BY k LIMIT 5"
    );
    let (at_fra, at_nyc) =
        tokio::try_join!(fra.mariadb.query(&statement), nyc.mariadb.query(&statement))?;
    let articles = "SELECT id, title FROM articles ORDER BY id LIMIT 3";
    let (more_at_fra, more_at_nyc) =
        tokio::try_join!(fra.mariadb.query(articles), nyc.mariadb.query(articles))?;
    let (at_fra, at_nyc) = (at_fra + &more_at_fra, at_nyc + &more_at_nyc);
    for (one, two) in at_fra.lines().zip(at_nyc.lines()) {
        stage.line(&format!("  {:<58}| {}", one.replace('\t', " = "), two.replace('\t', " = ")));
    }
    stage.line("");
    if !equal {
        bail!("the two databases differ");
    }
    Ok(())
}

async fn leave_running(
    folder: &Path,
    fra: &mut Site,
    nyc: &Site,
    stage: &Stage,
) -> anyhow::Result<()> {
    stage.working("Joining the nodes directly: the line that could be cut ends with the demo");
    fra.restart(Some(nyc.address)).await?;
    stage.title("Left running");
    let own = std::env::current_exe().context("cannot find the lastword program itself")?;
    let mut ids = Vec::new();
    for site in [&*fra, nyc] {
        stage.line(&format!("  {}", site.name));
        stage.line(&format!("    status page   http://127.0.0.1:{}", site.http_port));
        stage.line(&format!("    gRPC          {} status --server {}", own.display(), site.url()));
        stage.line(&format!("    MariaDB       {}", site.mariadb.client_command()));
        ids.extend(site.leave());
    }
    let ids: Vec<_> = ids.iter().map(u32::to_string).collect();
    let script = folder.join("stop.sh");
    let text = format!("kill {}\nsleep 2\nrm -rf '{}'\n", ids.join(" "), folder.display());
    std::fs::write(&script, text).context("cannot write stop.sh")?;
    stage.line(&format!("  stop and remove everything: sh {}", script.display()));
    Ok(())
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
