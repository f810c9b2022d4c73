//! `lastword doctor`: is the site's MySQL fit for what the settings ask of it?

use std::fmt::Write as _;

use anyhow::bail;
use serde::Serialize;

use super::{
    output::{json_line, one_line, print},
    serve,
    settings_args::SettingsArgs,
};
use crate::{
    config::{Config, ConfigError, setting},
    mirror::{self, Examination, Finding, Level},
    node::{SystemClock, WallClock},
};

/// Look at the MySQL to mirror into: what is wrong with it, and the statement that mends it
///
/// Takes the settings of serve. Exit code 0: it will do; 1: it will not, or cannot be reached.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword doctor --config lastword.toml\n  \
                        lastword doctor --mysql mysql://lastword@127.0.0.1:3306/shop --json\n  \
                        lastword doctor --config lastword.toml --grants --user \"'lastword'@'10.0.0.%'\"")]
pub(super) struct Args {
    /// Print one line of JSON
    #[arg(long, conflicts_with = "grants")]
    json: bool,
    /// Print the statements that give the user what it needs and nothing more; MySQL is not asked
    #[arg(long)]
    grants: bool,
    /// Whom they are for, as MySQL writes it [default: the user of the mysql URL, from any host]
    #[arg(long, value_name = "'NAME'@'HOST'", requires = "grants")]
    user: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    version: Option<&'a str>,
    user: Option<&'a str>,
    errors: usize,
    warnings: usize,
    findings: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    subject: &'a str,
    found: &'a str,
    why: Option<&'a str>,
    mend: Option<&'a str>,
    /// The mirror pauses rather than to go on so.
    loses_data: bool,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut layers = self.settings.layers()?;
        // Nobody needs them to look at MySQL.
        layers.assume(&setting::SITE, "doctor");
        layers.assume(&setting::DATA, ".");
        let config = Config::from_layers(&layers)?;
        let target = config.mysql.as_ref().ok_or(ConfigError::Missing(&setting::MYSQL))?;
        let mirror_config = serve::mirror_config(&config, target);
        let mut out = Vec::new();
        if self.grants {
            let user = self.user.unwrap_or_else(|| format!("{}@%", target.user));
            for statement in mirror::grant_statements(&mirror_config, &user)? {
                out.extend_from_slice(statement.as_bytes());
                out.push(b'\n');
            }
            return Ok(print(&out)?);
        }
        let examination = mirror::examine(&mirror_config, || SystemClock.now_ms()).await;
        let target = mirror_config.target.to_string();
        if self.json {
            json_line(&mut out, &json_of(&target, &examination));
        } else {
            out.extend_from_slice(text_of(&target, &examination)?.as_bytes());
        }
        print(&out)?;
        match count(&examination, Level::Error) {
            0 => Ok(()),
            1 => bail!("doctor: one thing must be mended"),
            errors => bail!("doctor: {errors} things must be mended"),
        }
    }
}

fn count(examination: &Examination, level: Level) -> usize {
    examination.findings.iter().filter(|finding| finding.level == level).count()
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

fn json_of<'a>(target: &'a str, examination: &'a Examination) -> Report<'a> {
    let known = |text: &'a str| Some(text).filter(|text| !text.is_empty());
    let line = |finding: &'a Finding| Line {
        level: word(finding.level),
        subject: finding.subject,
        found: &finding.found,
        why: known(&finding.why),
        mend: finding.mend.as_deref(),
        loses_data: finding.loses_data,
    };
    Report {
        target,
        version: known(&examination.version),
        user: known(&examination.user),
        errors: count(examination, Level::Error),
        warnings: count(examination, Level::Warning),
        findings: examination.findings.iter().map(line).collect(),
    }
}

/// A line for each finding; below what is wrong, why, and what mends it.
fn text_of(target: &str, examination: &Examination) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let Examination { version, user, findings } = examination;
    match version.is_empty() {
        true => writeln!(text, "MySQL {target}")?,
        false => writeln!(text, "MySQL {target}, {}, as {}", one_line(version), one_line(user))?,
    }
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for finding in findings {
        let Finding { subject, found, why, mend, .. } = finding;
        writeln!(text, "{:7}  {subject:width$}  {}", word(finding.level), one_line(found))?;
        if !why.is_empty() {
            writeln!(text, "{:7}  {:width$}  why: {}", "", "", one_line(why))?;
        }
        if let Some(mend) = mend {
            writeln!(text, "{:7}  {:width$}  mend: {}", "", "", one_line(mend))?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_mends_it() {
        let finding = |level, subject, why: &str, mend: Option<&str>| Finding {
            subject,
            level,
            found: "as it is".into(),
            why: why.into(),
            mend: mend.map(str::to_owned),
            loses_data: false,
        };
        let examination = Examination {
            version: "10.11.19-MariaDB".into(),
            user: "lastword@%".into(),
            findings: vec![
                finding(Level::Error, "read_only", "nothing\ncan be written", Some("SET ...;")),
                finding(Level::Ok, "tls", "", None),
            ],
        };
        assert_eq!(
            text_of("db:3306/shop", &examination).unwrap(),
            "MySQL db:3306/shop, 10.11.19-MariaDB, as lastword@%\n\
             error    read_only  as it is\n\
             \x20                   why: nothing can be written\n\
             \x20                   mend: SET ...;\n\
             ok       tls        as it is\n"
        );
        let json = serde_json::to_value(json_of("db:3306/shop", &examination)).unwrap();
        assert_eq!((&json["errors"], &json["warnings"]), (&1.into(), &0.into()));
        assert_eq!(json["findings"][0]["mend"], "SET ...;");
        assert_eq!(json["findings"][1]["why"], serde_json::Value::Null);
    }
}
