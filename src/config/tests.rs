//! Precedence, unknown names, bounds and secrets.

use std::io::Write;

use super::*;
use crate::{
    mirror::{Form, Triggers},
    model::VALUE_BYTES_MAX_DEFAULT,
    protocol::DRIFT_BOUND_MS_DEFAULT,
};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn layers(file: &str, env: Pairs<'_>, flags: Pairs<'_>) -> Result<Layers, ConfigError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let find = |flag: &str| *setting::ALL.iter().find(|s| s.flag == flag).unwrap();
    let mut values: Vec<(&'static Setting, Vec<String>)> = Vec::new();
    for &(flag, text) in flags {
        match values.iter_mut().find(|(s, _)| s.flag == flag) {
            Some((_, texts)) => texts.push(text.to_owned()),
            None => values.push((find(flag), vec![text.to_owned()])),
        }
    }
    let flags = Flags { file: Some(on_disk.path().to_owned()), values };
    Layers::read(&flags, &Environment::from_pairs(env.iter().copied()))
}

fn load(file: &str, env: Pairs<'_>, flags: Pairs<'_>) -> Result<Config, ConfigError> {
    Config::from_layers(&layers(file, env, flags)?)
}

/// With the required settings given.
fn load_with(file: &str) -> Result<Config, ConfigError> {
    load(file, &[], &[("site", "fra"), ("data", "/var/lib/lastword")])
}

fn refusal(file: &str) -> String {
    let text = load_with(file).unwrap_err().to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    // The temporary file's name says nothing.
    let without = text.split("/tmp").enumerate().map(|(i, part)| match i {
        0 => part.to_owned(),
        _ => part.trim_start_matches(|c: char| !" ):".contains(c)).to_owned(),
    });
    without.collect::<Vec<_>>().join("FILE")
}

#[test]
fn the_defaults() {
    let config = load_with("").unwrap();
    let expected = Config {
        cluster: "lastword".to_owned(),
        site: "fra".to_owned(),
        role: Role::Site,
        data: "/var/lib/lastword".into(),
        listen: "127.0.0.1:7400".parse().unwrap(),
        http: Some("127.0.0.1:7401".parse().unwrap()),
        peers: Vec::new(),
        mirrored_tables: Vec::new(),
        compression: Compression::Auto,
        mysql: None,
        insecure: false,
        sequence: None,
        tables: Tables { auto_create: true },
        limits: Limits {
            value_bytes_max: VALUE_BYTES_MAX_DEFAULT,
            batch_mutations_max: 1_000,
            get_many_keys_max: 1_000,
            read_wait_max: Duration::from_secs(2),
            clock_drift_max: Duration::from_millis(DRIFT_BOUND_MS_DEFAULT),
        },
        member: Member {
            seal_after: Duration::from_secs(600),
            absent_max: Duration::from_secs(30 * 86_400),
        },
        conflicts: Conflicts {
            kept_bytes_max: 64 << 20,
            kept_age_max: Duration::from_secs(30 * 24 * 3600),
        },
        log: Log { filter: "info".to_owned(), format: LogFormat::Text },
    };
    assert_eq!(config, expected);
}

#[test]
fn a_whole_file() {
    let config = load(
        r#"
        cluster = "shop"
        site = "nyc"
        data = "data/nyc"
        listen = "10.0.0.1:7500"
        http = "off"
        peer = ["http://fra:7400", "http://lon:7400/"]
        mysql = "mysql://shop:hunter2@127.0.0.1:3307/shop"
        insecure = true
        log = "debug"
        log_format = "json"

        [sequence]
        offset = 2
        increment = 4

        [tables]
        auto_create = false

        [limits]
        value_bytes_max = "64KiB"
        batch_mutations_max = 30
        get_many_keys_max = "50"
        read_wait_max = "500ms"
        clock_drift_max = "1m"

        [member]
        seal_after = "2h"
        absent_max = "90d"

        [conflicts]
        kept_max_bytes = "8MiB"
        kept_max_age = "90days"
        "#,
        &[],
        &[],
    )
    .unwrap();
    let peers: Vec<&str> = config.peers.iter().map(|peer| peer.address.as_str()).collect();
    assert_eq!(peers, ["http://fra:7400", "http://lon:7400"]);
    assert_eq!(config.http, None);
    assert_eq!(config.sequence, Some(SequenceIds { offset: 2, increment: 4 }));
    assert!(!config.tables.auto_create && config.insecure);
    assert_eq!(config.limits.value_bytes_max, 65_536);
    assert_eq!(config.limits.batch_mutations_max, 30);
    assert_eq!(config.limits.read_wait_max, Duration::from_millis(500));
    assert_eq!(config.member.seal_after, Duration::from_secs(7_200));
    assert_eq!(config.member.absent_max, Duration::from_secs(90 * 86_400));
    assert_eq!(config.conflicts.kept_bytes_max, 8 << 20);
    assert_eq!(config.conflicts.kept_age_max, Duration::from_secs(90 * 24 * 3600));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.mysql.unwrap().port, 3307);
}

#[test]
fn flags_go_over_variables_and_those_over_the_file() {
    let file = "site = 'file'\ncluster = 'file'\nlisten = '127.0.0.1:1'\ndata = 'd'\n\
                peer = ['http://file:1']";
    let env = [
        ("LASTWORD_SITE", "env"),
        ("LASTWORD_CLUSTER", "env"),
        ("LASTWORD_PEER", "http://e:1, http://e:2"),
    ];
    let flags = [("site", "flag")];
    let layers = layers(file, &env, &flags).unwrap();
    let config = Config::from_layers(&layers).unwrap();
    assert_eq!((config.site.as_str(), config.cluster.as_str()), ("flag", "env"));
    assert_eq!(config.listen.port(), 1);
    let peers: Vec<&str> = config.peers.iter().map(|peer| peer.address.as_str()).collect();
    assert_eq!(peers, ["http://e:1", "http://e:2"]);

    let source = |name: &str| {
        let effective = layers.effective();
        effective.iter().find(|e| e.setting.name == name).unwrap().source.clone()
    };
    assert_eq!(source("site").to_string(), "--site");
    assert_eq!(source("cluster").to_string(), "LASTWORD_CLUSTER");
    assert!(matches!(source("listen"), Source::File(_)));
    assert_eq!(source("http"), Source::Default);
}

#[test]
fn a_repeated_flag_lists_its_values() {
    let required = [("site", "fra"), ("data", "d")];
    let flags = [&required[..], &[("peer", "http://a:1"), ("peer", "http://b:1")]].concat();
    let config = load("peer = ['http://file:1']", &[], &flags).unwrap();
    assert_eq!(config.peers.len(), 2);
    assert_eq!(config.peers[0].address.as_str(), "http://a:1");
}

/// Address and compression of each.
fn peers_of(config: &Config) -> Vec<(&str, Compression)> {
    config.peers.iter().map(|peer| (peer.address.as_str(), peer.compression)).collect()
}

const FILE_WITH_PEERS: &str = "site = 'fra'\ndata = 'd'\npeer = ['http://a:1']\ncompression = 'on'\n\
     [[peers]]\naddress = 'http://b:1'\n\
     [[peers]]\ncompression = 'off'\naddress = 'http://c:1/'";

#[test]
fn peers_may_have_settings_of_their_own() {
    use Compression::{Auto, Off, On};
    let layers = layers(FILE_WITH_PEERS, &[], &[]).unwrap();
    let config = Config::from_layers(&layers).unwrap();
    assert_eq!(peers_of(&config), [("http://a:1", On), ("http://b:1", On), ("http://c:1", Off)]);
    assert_eq!(config.compression, On);
    let shown = layers.effective();
    let shown = shown.iter().find(|e| e.setting.name == "peers").unwrap();
    assert_eq!(shown.texts, ["http://b:1", "http://c:1/ compression=off"]);
    assert!(matches!(shown.source, Source::File(_)));

    // Who names peers higher up names all of them; what the file says of one holds.
    let env = [("LASTWORD_PEER", "http://c:1,http://d:1"), ("LASTWORD_COMPRESSION", "auto")];
    let config = load(FILE_WITH_PEERS, &env, &[]).unwrap();
    assert_eq!(peers_of(&config), [("http://c:1", Off), ("http://d:1", Auto)]);
    let config = load(FILE_WITH_PEERS, &[], &[("compression", "off")]).unwrap();
    assert_eq!(peers_of(&config)[1], ("http://b:1", Off));
}

#[test]
fn peers_that_do_not_do_are_refused() {
    for (file, expected) in [
        ("peers = 'http://a:1'", "peers (FILE): write [[peers]], then address = "),
        ("peers = ['http://a:1']", "peers (FILE): write [[peers]], then address = "),
        ("[[peers]]\ncompression = 'on'", "peers (FILE): a peer has no address: write"),
        ("[[peers]]\naddress = 'a:1'", "peers (FILE): \"a:1\" does not begin with http://"),
        ("[[peers]]\naddress = 'http://a :1'", "peers (FILE): address must be one text without"),
        ("[[peers]]\naddress = 5", "peers (FILE): address must be one text without"),
        (
            "[[peers]]\naddress = 'http://a:1'\ncompression = 'yes'",
            "peers (FILE): compression: \"yes\" is neither auto nor on nor off",
        ),
        (
            "peer = ['http://a:1']\n[[peers]]\naddress = 'http://a:1'",
            "peers (FILE): http://a:1 is named twice",
        ),
        ("compression = 'zip'", "compression (FILE): \"zip\" is neither auto nor on nor off"),
    ] {
        let text = refusal(file);
        assert!(text.starts_with(expected), "{file}: {text}");
    }
}

#[test]
fn an_empty_value_turns_off_what_a_lower_layer_set() {
    let file = "mysql = 'mysql://u@h/d'\npeer = ['http://a:1']\nhttp = '127.0.0.1:9'";
    let env = [("LASTWORD_MYSQL", ""), ("LASTWORD_PEER", ""), ("LASTWORD_HTTP", "")];
    let config = load(file, &env, &[("site", "fra"), ("data", "d")]).unwrap();
    assert_eq!((config.mysql, config.http, config.peers.len()), (None, None, 0));
}

#[test]
fn unknown_names_in_the_file_are_refused_with_a_suggestion() {
    for (file, expected) in [
        ("pear = []", "unknown setting pear: did you mean peer?"),
        (
            "[[table]]\nname = 'film'\nuniqe = 'accept'",
            "unknown setting table.uniqe: did you mean table.unique?",
        ),
        (
            "[[table]]\nname = 'f'\ncolumns = [{ nam = 'x' }]",
            "unknown setting table.columns.nam: did you mean table.columns.name?",
        ),
        ("[[peers]]\nadress = 'x'", "unknown setting peers.adress: did you mean peers.address?"),
        ("auto_create = true", "unknown setting auto_create: did you mean tables.auto_create?"),
        ("[limit]\nvalue_bytes_max = 1", "unknown setting limit: lastword config lists all"),
        ("[limits]\nvalue_byte_max = 1", "did you mean limits.value_bytes_max?"),
        ("limits = 5", "unknown setting limits: lastword config lists all"),
        ("[colour]", "unknown setting colour: lastword config lists all"),
        ("Site = 'x'", "unknown setting Site: did you mean site?"),
    ] {
        let text = refusal(file);
        assert!(text.ends_with(expected), "{file}: {text}");
    }
}

#[test]
fn unknown_variables_are_refused_with_a_suggestion() {
    let refused = |name: &str| load("", &[(name, "x")], &[]).unwrap_err().to_string();
    assert_eq!(
        refused("LASTWORD_PEERS"),
        "unknown variable LASTWORD_PEERS: did you mean LASTWORD_PEER?"
    );
    assert_eq!(
        refused("LASTWORD_COLOURFUL_LANDSCAPES"),
        "unknown variable LASTWORD_COLOURFUL_LANDSCAPES: unset it; lastword serve --help lists all"
    );
    // Of other programs, or for the client commands.
    load(
        "",
        &[("LASTWORDS", "x"), ("PATH", "x"), ("LASTWORD_SERVER", "x")],
        &[("site", "a"), ("data", "d")],
    )
    .unwrap();
}

#[test]
fn what_is_missing_is_named_with_all_its_names() {
    assert_eq!(
        load("", &[], &[]).unwrap_err().to_string(),
        "site: missing: give --site NAME, or set LASTWORD_SITE, or site in the settings file"
    );
}

#[test]
fn a_bad_value_is_refused_with_its_place_and_what_to_write() {
    for (file, expected) in [
        ("listen = 'here'", "listen (FILE): \"here\" is not an IP address with a port"),
        ("peer = ['fra:7400']", "peer (FILE): \"fra:7400\" does not begin with http://"),
        ("peer = ['http://a:1', 'http://a:1/']", "peer (FILE): http://a:1 is named twice"),
        ("peer = [['a']]", "peer (FILE): must be a list of texts"),
        ("site = ['a']", "site (FILE): must be a single value"),
        ("cluster = 'My shop'", "cluster (FILE): \"My shop\" is not a name"),
        ("insecure = 'yes'", "insecure (FILE): \"yes\" is neither true nor false"),
        ("sequence.offset = 1", "sequence.offset (FILE): there is no increment with it"),
        ("sequence.increment = 1", "sequence.increment (FILE): there is no offset with it"),
        (
            "sequence = { offset = 3, increment = 2 }",
            "sequence.offset (FILE): 3 is above the increment: use 1 to 2",
        ),
        (
            "sequence = { offset = 0, increment = 2 }",
            "sequence.offset (FILE): \"0\" is not a whole number between 1",
        ),
        ("limits.value_bytes_max = '4MiB'", "limits.value_bytes_max (FILE): 4MiB is out of bounds"),
        (
            "limits.batch_mutations_max = 0",
            "limits.batch_mutations_max (FILE): \"0\" is not a whole",
        ),
        ("limits.read_wait_max = 5", "limits.read_wait_max (FILE): \"5\" is not a duration"),
        ("role = 'master'", "role (FILE): \"master\" is no role: use site or replica"),
        ("conflicts.kept_max_bytes = '1MiB'", "conflicts.kept_max_bytes (FILE): 1MiB is out of"),
        ("conflicts.kept_max_age = '5m'", "conflicts.kept_max_age (FILE): 5m is out of bounds"),
        ("limits.clock_drift_max = '2h'", "limits.clock_drift_max (FILE): 2h is out of bounds"),
        ("member.absent_max = '1h'", "member.absent_max (FILE): 1h is out of bounds"),
        ("log = 'lastword=loud'", "log (FILE): \"lastword=loud\" is not a filter"),
        ("log_format = 'xml'", "log_format (FILE): \"xml\" is neither text nor json"),
        ("http = '127.0.0.1:7400'", "http (FILE): 127.0.0.1:7400 is the address of listen already"),
        ("mysql_password_file = 'x'", "mysql_password_file (FILE): there is no mysql"),
    ] {
        let text = refusal(file);
        assert!(text.starts_with(expected), "{file}: {text}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_without_showing_the_line() {
    let text = refusal("site = 'x'\nmysql = mysql://u:hunter2@h/d");
    assert!(text.contains("line 2") && !text.contains("hunter2"), "{text}");
}

#[test]
fn addresses_that_others_reach_need_insecure() {
    for setting in ["listen", "http"] {
        let text = refusal(&format!("{setting} = '0.0.0.0:7500'"));
        assert!(
            text.starts_with(&format!("{setting} (FILE): 0.0.0.0:7500 can be reached from other"))
                && text.contains("there is no authentication yet")
                && text.contains("--insecure"),
            "{text}"
        );
        load_with(&format!("{setting} = '0.0.0.0:7500'\ninsecure = true")).unwrap();
        load_with(&format!("{setting} = '[::1]:7500'")).unwrap();
    }
}

#[test]
fn passwords_are_hidden_wherever_settings_are_shown() {
    let layers = layers(
        "",
        &[("LASTWORD_MYSQL", "mysql://u:hunter2@h/d")],
        &[("site", "fra"), ("data", "d")],
    )
    .unwrap();
    let config = Config::from_layers(&layers).unwrap();
    assert_eq!(config.mysql.as_ref().unwrap().password.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{config:?}{layers:?}").contains("hunter2"));
}

#[test]
fn a_password_comes_from_the_environment_or_the_file_and_is_shown_by_neither() {
    let site = [("site", "fra"), ("data", "d"), ("mysql", "mysql://u@h/d")];
    let variable = [("LASTWORD_MYSQL_PASSWORD", "hunter2")];
    let layers = layers("", &variable, &site).unwrap();
    let config = Config::from_layers(&layers).unwrap();
    assert_eq!(config.mysql.as_ref().unwrap().password.as_ref().unwrap().expose(), "hunter2");
    let effective = layers.effective();
    let shown = effective.iter().find(|e| e.setting.name == "mysql_password").unwrap();
    assert_eq!(
        (&shown.texts[..], shown.source.to_string()),
        (&["***".to_owned()][..], "LASTWORD_MYSQL_PASSWORD".to_owned())
    );
    assert!(!format!("{config:?}{layers:?}").contains("hunter2"));

    let file = "mysql = 'mysql://u@h/d'\nmysql_password = 'hunter2'";
    assert_eq!(load_with(file).unwrap().mysql.unwrap().password.unwrap().expose(), "hunter2");
    for (file, what) in [
        ("mysql_password = 'hunter2'", "there is no mysql to use it for"),
        ("mysql = 'mysql://u:p@h/d'\nmysql_password = 'hunter2'", "has a password already"),
        (
            "mysql = 'mysql://u@h/d'\nmysql_password = 'hunter2'\nmysql_password_file = 'x'",
            "one of the two",
        ),
    ] {
        let text = refusal(file);
        assert!(text.contains(what) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_password_file_gives_its_first_line() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter2\n# rotated weekly\n").unwrap();
    let path = file.path().display();
    let config =
        load_with(&format!("mysql = 'mysql://u@h/d'\nmysql_password_file = '{path}'")).unwrap();
    assert_eq!(config.mysql.unwrap().password.unwrap().expose(), "hunter2");

    let text = refusal(&format!("mysql = 'mysql://u:p@h/d'\nmysql_password_file = '{path}'"));
    assert!(text.contains("has a password already"), "{text}");
    let text = refusal("mysql = 'mysql://u@h/d'\nmysql_password_file = '/nowhere/at/all'");
    assert!(text.starts_with("mysql_password_file: cannot read /nowhere/at/all"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let flags = Flags { file: Some("/nowhere/lastword.toml".into()), values: Vec::new() };
    let text = Layers::read(&flags, &Environment::default()).unwrap_err().to_string();
    assert!(text.starts_with("--config: cannot read /nowhere/lastword.toml: "), "{text}");
}

#[test]
fn where_client_commands_look_for_nodes() {
    let env = |value: &str| Environment::from_pairs([("LASTWORD_SERVER", value)]);
    let urls = |flags: &[&str], env: &Environment| {
        let flags: Vec<String> = flags.iter().map(|&f| f.to_owned()).collect();
        servers(&flags, env).map(|urls| urls.iter().map(NodeUrl::to_string).collect::<Vec<_>>())
    };
    assert_eq!(urls(&[], &Environment::default()).unwrap(), ["http://127.0.0.1:7400"]);
    assert_eq!(urls(&[], &env("")).unwrap(), ["http://127.0.0.1:7400"]);
    assert_eq!(urls(&[], &env("http://a:1,http://b:2")).unwrap(), ["http://a:1", "http://b:2"]);
    assert_eq!(urls(&["http://c:3"], &env("http://a:1")).unwrap(), ["http://c:3"]);
    assert_eq!(
        urls(&[], &env("fra")).unwrap_err().to_string(),
        "LASTWORD_SERVER: \"fra\" does not begin with http://: write http://HOST:PORT, the port is \
         usually 7400"
    );
    let typo = Environment::from_pairs([("LASTWORD_SERVERS", "http://a:1")]);
    assert!(urls(&[], &typo).unwrap_err().to_string().contains("did you mean LASTWORD_SERVER?"));
}

const FILE_WITH_TABLES: &str = "site = 'fra'\ndata = 'd'\nmysql = 'mysql://u@h/d'\n\
     [[table]]\nname = '*'\nmirror = 'columns'\ncascade = 'accept'\ncapture = true\n\
     [[table]]\nname = 'film'\nmirror = 'columns'\ntriggers = 'guard'\nprimary_key = ['id']\n\
     columns = [{ name = 'id', type = 'INT NOT NULL' }, { type = 'TEXT', name = 'a note' }]\n\
     [[table]]\nname = 'sessions'";

#[test]
fn tables_may_have_settings_of_their_own() {
    let layers = layers(FILE_WITH_TABLES, &[], &[]).unwrap();
    let [all, film, sessions] = &Config::from_layers(&layers).unwrap().mirrored_tables[..] else {
        panic!("three tables");
    };
    assert_eq!((all.form, all.capture, all.accepts_cascade), (Form::Columns, true, true));
    assert!(!all.accepts_unique && all.columns.is_empty() && all.triggers == Triggers::Refuse);
    assert_eq!((film.triggers, film.primary_key.as_slice()), (Triggers::Guard, &["id".into()][..]));
    assert_eq!((&*film.columns[1].name, &*film.columns[1].definition), ("a note", "TEXT"));
    assert_eq!(sessions.form, Form::KeyValue);
    let shown = layers.effective();
    let shown = shown.iter().find(|e| e.setting.name == "table").unwrap();
    assert_eq!(
        shown.texts[0],
        r#"{"name":"*","mirror":"columns","capture":true,"cascade":"accept"}"#
    );
}

#[test]
fn tables_that_do_not_do_are_refused() {
    for (text, part) in [
        ("table = 'film'", "table (FILE): write [[table]], then name = "),
        ("[[table]]\nmirror = 'columns'", "table (FILE): a table has no name: write"),
        ("[[table]]\nname = 'Film'", "table (FILE): table: \"Film\" is not a table name"),
        ("[[table]]\nname = 'f'\nmirror = 'rows'", "f: mirror: \"rows\" is neither kv nor"),
        ("[[table]]\nname = 'f'\nunique = 'yes'", "f: unique: \"yes\" is neither refuse nor"),
        ("[[table]]\nname = 'f'\ncapture = 'yes'", "table (FILE): capture must be true or false"),
        ("[[table]]\nname = 'f'\ncapture = true", "f: only a table with mirror = \"columns\""),
        ("[[table]]\nname = 'f'\n[[table]]\nname = 'f'", "f is named twice"),
        (
            "[[table]]\nname = 'f'\nmirror = 'columns'\nprimary_key = ['id']",
            "f: columns and primary_key go together",
        ),
        (
            "[[table]]\nname = 'f'\nmirror = 'columns'\nprimary_key = ['x']\n\
             columns = [{ name = 'id', type = 'INT' }]",
            "f: primary_key: \"x\" is none of its columns",
        ),
        ("[[table]]\nname = 'f'\ncolumns = ['id']", "table (FILE): columns is a list such as"),
        ("[[table]]\nname = 'f'", "f: a [[table]] is one in MySQL, and there is none"),
        (
            "role = 'replica'\nmysql = 'mysql://u@h/d'\n[[table]]\nname = 'f'\nmirror = 'columns'\n\
             capture = true",
            "f: a replica takes no writes",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
    }
}
