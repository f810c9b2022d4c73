//! Two sites, each a MariaDB and a node that mirrors and captures its tables, a line between them, and the judge.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use tempfile::TempDir;

use crate::common::{mariadb::MariaDb, node::Node, proxy::Proxy, wait::until};

/// Far beyond what anything here takes.
const SETTLED_MAX: Duration = Duration::from_secs(180);

/// What both nodes are told of the tables: all of them, as the application has them.
const SETTINGS: &str = r#"
[[table]]
name = "*"
mirror = "columns"
capture = true
cascade = "accept"
unique = "accept"
triggers = "guard"
"#;

/// A site.
pub(crate) struct Site {
    pub(crate) mariadb: MariaDb,
    pub(crate) node: Node,
}

/// Both.
pub(crate) struct Pair {
    pub(crate) sites: [Site; 2],
    pub(crate) line: Proxy,
    database: String,
    _settings: TempDir,
}

/// Table -> its rows in the order of the primary key, as texts.
pub(crate) type Dump = BTreeMap<String, Vec<Vec<String>>>;

impl Pair {
    /// Two databases of this name with the schemas loaded; the nodes do not run yet. Each database gives
    /// numbers of its own.
    pub(crate) fn start(database: &str, fra: &[&str], nyc: &[&str]) -> Pair {
        let mariadb = |offset: u8, schemas: &[&str]| {
            let offset = format!("--auto-increment-offset={offset}");
            let mariadb = MariaDb::start_with(&["--auto-increment-increment=2", &offset]);
            let _ = mariadb.url(database);
            for schema in schemas {
                mariadb.script(database, schema);
            }
            mariadb
        };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| mariadb(1, fra));
            (mariadb(2, nyc), first.join().unwrap())
        });
        let (nyc_db, fra_db) = (first, second);
        let settings = tempfile::tempdir().unwrap();
        let file = settings.path().join("lastword.toml");
        fs::write(&file, SETTINGS).unwrap();
        let node = |name: &str, mariadb: &MariaDb| {
            Node::new(name).mysql(&mariadb.url(database)).flag("--config", file.to_str().unwrap())
        };
        let fra = Site { node: node("fra", &fra_db), mariadb: fra_db };
        let line = Proxy::start(fra.node.grpc_address());
        let nyc = Site { node: node("nyc", &nyc_db).peer(&line.url()), mariadb: nyc_db };
        Pair { sites: [fra, nyc], line, database: database.into(), _settings: settings }
    }

    pub(crate) fn start_nodes(&mut self) {
        for site in &mut self.sites {
            site.node.restart();
        }
    }

    /// Where the database of a site is.
    pub(crate) fn url(&self, site: usize) -> String {
        self.sites[site].mariadb.url(&self.database)
    }

    /// Waits until both databases hold the same rows and nothing is on its way; gives the rows.
    #[track_caller]
    pub(crate) fn until_equal(&self) -> Dump {
        let mut last = None;
        let dump = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("equal databases", SETTLED_MAX, || {
                std::thread::sleep(Duration::from_millis(200));
                let quiet = self.sites.iter().all(|site| self.pending(site) == 0);
                let [fra, nyc] = [0, 1].map(|site| self.dump(&self.sites[site].mariadb));
                let equal = quiet && fra == nyc && !fra.is_empty();
                last = Some((quiet, fra, nyc));
                // Nothing came after that, either.
                let again = || self.dump(&self.sites[0].mariadb);
                (equal && last.as_ref().is_some_and(|(_, fra, _)| *fra == again())).then_some(())
            });
        }));
        let (quiet, fra, nyc) = last.expect("looked at once at least");
        if dump.is_err() {
            panic!("not equal in time, quiet {quiet}: {}", differences(&fra, &nyc));
        }
        self.ask_another_judge();
        fra
    }

    /// How many captured rows are not handed over yet.
    fn pending(&self, site: &Site) -> u64 {
        let sql = |statement: &str| site.mariadb.sql(&self.database, statement);
        let outboxes = sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() \
             AND table_name LIKE '\\_lastword\\_capture\\_%'",
        );
        let count = |row: &Vec<String>| {
            sql(&format!("SELECT COUNT(*) FROM `{}`", row[0]))[0][0].parse::<u64>().unwrap()
        };
        outboxes.iter().map(count).sum()
    }

    fn dump(&self, mariadb: &MariaDb) -> Dump {
        let sql = |statement: &str| mariadb.sql(&self.database, statement);
        // One statement for each table: columns of bytes in hexadecimal, in the order of the key.
        let statements = sql(
            "SELECT c.table_name, CONCAT('SELECT ', GROUP_CONCAT(IF(c.data_type IN \
             ('blob', 'tinyblob', 'mediumblob', 'longblob', 'binary', 'varbinary', 'bit', 'geometry'), \
             CONCAT('HEX(`', c.column_name, '`)'), CONCAT('`', c.column_name, '`')) \
             ORDER BY c.ordinal_position), ' FROM `', c.table_name, '` ORDER BY ', \
             (SELECT GROUP_CONCAT(CONCAT('`', k.column_name, '`') ORDER BY k.ordinal_position) \
             FROM information_schema.key_column_usage k WHERE k.table_schema = c.table_schema AND \
             k.table_name = c.table_name AND k.constraint_name = 'PRIMARY')) \
             FROM information_schema.columns c JOIN information_schema.tables t \
             ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
             WHERE c.table_schema = DATABASE() AND t.table_type = 'BASE TABLE' \
             AND c.table_name NOT LIKE '\\_lastword%' GROUP BY c.table_name",
        );
        let rows = |row: &Vec<String>| {
            let [table, statement] = &row[..] else { panic!("{row:?}") };
            (table.clone(), sql(&format!("SET time_zone = '+00:00'; {statement}")))
        };
        statements.iter().map(rows).collect()
    }

    /// `pt-table-sync`, where it is installed: it prints what it would change.
    fn ask_another_judge(&self) {
        let at = |site: usize| {
            let port = self.sites[site].mariadb.port();
            format!("h=127.0.0.1,P={port},u=root")
        };
        let output = Command::new("pt-table-sync")
            .args(["--print", "--no-check-slave", "--no-check-triggers", "--no-foreign-key-checks"])
            .args(["--ignore-tables-regex", "^_lastword", "--charset", "utf8mb4"])
            // Its other way, by chunks, fails at keys that begin alike.
            .args(["--algorithms", "Nibble,GroupBy,Stream"])
            .args(["--databases", &self.database, &at(0), &at(1)])
            .output();
        let Ok(output) = output else { return };
        let [says, complains] =
            [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t));
        assert!(says.trim().is_empty(), "pt-table-sync would change: {says}");
        assert!(output.status.success(), "pt-table-sync: {complains}");
    }
}

/// The first rows of each table that one side has only.
fn differences(fra: &Dump, nyc: &Dump) -> String {
    let mut text = String::new();
    for (table, rows) in fra {
        let others = nyc.get(table).map(Vec::as_slice).unwrap_or_default();
        let only = |a: &[Vec<String>], b: &[Vec<String>]| {
            let b: std::collections::BTreeSet<_> = b.iter().collect();
            a.iter().filter(|row| !b.contains(row)).take(5).cloned().collect::<Vec<_>>()
        };
        let (here, there) = (only(rows, others), only(others, rows));
        if !here.is_empty() || !there.is_empty() {
            text += &format!(
                "\n{table}: {} and {} rows; only at fra {here:?}; only at nyc {there:?}",
                rows.len(),
                others.len()
            );
        }
    }
    text
}
