//! `lastword sync --once`: brings a store up to its peers, and them up to it, and ends.
//!
//! ```text
//! node --> links --> for each peer that can be reached: what it had when the link came up is here,
//!                    and it has acknowledged what was here at the start --> report, end
//! ```

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    output::{json_line, one_line, print},
    serve::{node_config, peer_config, upkeep_config},
    settings_args::SettingsArgs,
    signals::Signals,
    status_text::rows,
};
use crate::{
    config::{Config, Layers, setting},
    model::{Heads, Hlc, Role},
    node::{Node, PeerReport},
    replication::{self, Replication},
    telemetry,
};

/// Between two looks at the links.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often this side says what it has: it is here for a moment.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Exchange with every peer until both sides have what the other had, then end
///
/// Opens the store, which no running node may have open, serves nobody, and writes no MySQL. For a copy of all
/// rows that is brought up to date now and then: by cron, say, on a machine that is not always on. The node is
/// a replica unless the settings name its role.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword sync --once --site lon --data /var/lib/lastword \
                        --peer http://fra.example:7400\n\n\
                        Exit code 1 where no peer could be reached, or the time was up.")]
pub(super) struct Args {
    /// Once, and not for ever: that is lastword serve
    #[arg(long, required = true)]
    once: bool,
    /// Give up after this time
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print one line of JSON for each peer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// How far a peer is.
#[derive(Debug, Default)]
struct Progress {
    /// What it had when it was reached.
    had: Option<Heads>,
    /// When both sides had all.
    seconds: Option<f64>,
}

#[derive(Serialize)]
struct Report<'a> {
    address: &'a str,
    site: Option<&'a str>,
    origin: Option<String>,
    reached: bool,
    /// Both sides have what the other had.
    done: bool,
    rows_received: u64,
    bytes_received: u64,
    rows_sent: u64,
    bytes_sent: u64,
    seconds: Option<f64>,
    /// Wall time less the peer's own head, as it is here now.
    head_age_seconds: Option<f64>,
    last_error: Option<&'a str>,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let layers = self.settings.layers()?;
        let config = config_of(&layers)?;
        telemetry::init(&config.log.filter, config.log.format)?;
        let mut signals = Signals::new()?;
        let node = Node::open(node_config(&config)).await?;
        let shutdown = CancellationToken::new();
        let peers: Vec<_> = config.peers.iter().map(peer_config).collect();
        let addresses: Vec<String> = peers.iter().map(|peer| peer.address.clone()).collect();
        let links = replication::Config {
            peers,
            compression: config.compression,
            heartbeat: HEARTBEAT,
            ..replication::Config::default()
        };
        let replication = Replication::start(node.clone(), links, shutdown.clone());
        // Who is new to a sealed cluster is admitted on the way.
        let upkeep = tokio::spawn(node.clone().keep_up(upkeep_config(&config), shutdown.clone()));
        let mut sync = Sync::new(node.clone(), addresses.clone());
        let ended = tokio::select! {
            () = sync.run() => Ok(()),
            () = tokio::time::sleep(self.timeout) => {
                let timeout = humantime::format_duration(self.timeout);
                Err(format!("not done within {timeout}: run it again, it goes on where it was"))
            }
            () = node.stopped() => Err(node.failure().unwrap_or("the node stopped").to_owned()),
            signal = signals.next() => Err(format!("stopped by {signal}")),
        };
        let (report, reached) = sync.report(&addresses, self.json);
        shutdown.cancel();
        replication.ended().await;
        let _ = upkeep.await;
        node.shutdown().await;
        print(&report)?;
        match ended {
            Err(reason) => bail!("{reason}"),
            Ok(()) if !reached => bail!("no peer could be reached"),
            Ok(()) => Ok(()),
        }
    }
}

/// The settings, as they are for who is here for a moment.
fn config_of(layers: &Layers) -> anyhow::Result<Config> {
    let mut config = Config::from_layers(layers)?;
    if config.peers.is_empty() {
        return Err(crate::config::ConfigError::Missing(&setting::PEER).into());
    }
    if !layers.is_given(&setting::ROLE) {
        config.role = Role::Replica;
    }
    if !layers.is_given(&setting::LOG) {
        config.log.filter = "error".to_owned();
    }
    Ok(config)
}

/// A sync under way.
struct Sync {
    node: Node,
    began: Instant,
    /// What was here at the start, or when this site had become a member.
    had: Heads,
    is_member: bool,
    /// Whom to reach.
    addresses: Vec<String>,
    /// By address.
    peers: BTreeMap<String, Progress>,
    bar: ProgressBar,
}

impl Sync {
    fn new(node: Node, addresses: Vec<String>) -> Sync {
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("a sound template");
        let had = (*node.heads()).clone();
        let bar = ProgressBar::new_spinner().with_style(style);
        let began = Instant::now();
        Sync { node, began, had, is_member: true, addresses, peers: BTreeMap::new(), bar }
    }

    /// Waits until nothing is left to do.
    async fn run(&mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let reports = self.node.reports().peers();
            let left: u64 = reports.iter().map(|report| report.remaining_rows).sum();
            let received: u64 = reports.iter().map(|report| report.rows_received).sum();
            self.bar.set_message(format!("{received} rows fetched, {left} to come"));
            self.bar.tick();
            let snapshot = self.node.snapshot();
            let was_member = std::mem::replace(
                &mut self.is_member,
                snapshot.joining().is_none() && snapshot.may_be_told(),
            );
            if !was_member && self.is_member {
                // What it had before was written anew.
                self.had = (**snapshot.heads()).clone();
            }
            // A peer whose link has not begun is not through.
            let mut all = self
                .addresses
                .iter()
                .all(|address| reports.iter().any(|report| report.address == *address));
            for report in &reports {
                all &= self.is_through(report);
            }
            if all {
                self.bar.finish_and_clear();
                return;
            }
        }
    }

    /// Whether there is nothing more to do with this peer: it is done, or cannot be reached.
    fn is_through(&mut self, report: &PeerReport) -> bool {
        let peer = self.peers.entry(report.address.clone()).or_default();
        if report.origin.is_none() {
            return report.last_error.is_some();
        }
        let had = peer.had.get_or_insert_with(|| report.acked.clone());
        let is_done =
            self.is_member && self.node.heads().covers(had) && report.acked.covers(&self.had);
        if peer.seconds.is_none() && is_done {
            peer.seconds = Some(self.began.elapsed().as_secs_f64());
        }
        peer.seconds.is_some()
    }

    /// What became of each peer, in the order of the settings; and whether any was reached.
    fn report(&self, addresses: &[String], json: bool) -> (Vec<u8>, bool) {
        self.bar.finish_and_clear();
        let mut out = Vec::new();
        let mut reached = false;
        let (heads, now_ms) = (self.node.heads(), self.node.now_ms());
        let mut reports = self.node.reports().peers();
        reports.sort_by_key(|report| addresses.iter().position(|a| *a == report.address));
        for report in &reports {
            let seconds = self.peers.get(&report.address).and_then(|peer| peer.seconds);
            let head = report.origin.map(|origin| heads.get(origin));
            let head_ms = head.filter(|hlc| !hlc.is_closed()).map(Hlc::ms).filter(|ms| *ms > 0);
            let line = Report {
                address: &report.address,
                site: Some(report.site.as_str()).filter(|site| !site.is_empty()),
                origin: report.origin.map(|origin| origin.to_string()),
                reached: report.origin.is_some(),
                done: seconds.is_some(),
                rows_received: report.rows_received,
                bytes_received: report.bytes_received,
                rows_sent: report.rows_sent,
                bytes_sent: report.bytes_sent,
                seconds,
                head_age_seconds: head_ms
                    .map(|ms| Duration::from_millis(now_ms.saturating_sub(ms)).as_secs_f64()),
                last_error: report.last_error.as_ref().map(|error| error.message.as_str()),
            };
            reached |= line.reached;
            if json {
                json_line(&mut out, &line);
            } else {
                out.extend_from_slice(text(&line).as_bytes());
            }
        }
        (out, reached)
    }
}

fn text(line: &Report<'_>) -> String {
    let name = match line.site {
        Some(site) => format!("{site} at {}", line.address),
        None => line.address.to_owned(),
    };
    let (received, sent) =
        (indicatif::HumanBytes(line.bytes_received), indicatif::HumanBytes(line.bytes_sent));
    let moved = format!(
        "{} fetched ({received}), {} sent ({sent})",
        rows(line.rows_received),
        rows(line.rows_sent)
    );
    let error = line.last_error.map(one_line).unwrap_or_default();
    match (line.seconds, line.head_age_seconds) {
        (Some(seconds), Some(age)) => {
            format!("{name}: {moved} in {seconds:.1} s; its writes up to {age:.1} s ago are here\n")
        }
        _ if line.reached => format!("{name}: {moved}; not done. {error}\n"),
        _ => format!("{name}: not reached: {error}\n"),
    }
}
