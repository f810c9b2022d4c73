//! The list of settings: one entry each, from which the file, the environment, the flags, their
//! help and `lastword config` all follow.
//!
//! To add a setting, add its constant here, name it in [`ALL`], and read it in
//! [`Config::from_layers`](super::Config::from_layers).

/// One setting and its three names.
///
/// `limits.value_bytes_max` in the file (section, then name) is `LASTWORD_LIMITS_VALUE_BYTES_MAX`
/// in the environment and `--limits-value-bytes-max` among the flags.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// As in the file, with its section.
    pub name: &'static str,
    /// The variable.
    pub env: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// What the flag's value is called in the help.
    pub value_name: &'static str,
    /// What holds when nobody says anything; empty: nothing.
    pub default: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// One or two sentences, with the unit and the bounds.
    pub help: &'static str,
}

/// How a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// Several: an array in the file, a repeated flag, commas in the environment.
    List,
    /// Several tables, in the file alone.
    Tables,
    /// `true` or `false`; the bare flag means `true`.
    Switch,
    /// A URL whose password is never shown.
    SecretUrl,
    /// A text that is never shown, and has no flag: other users of the machine see the command line.
    Secret,
}

/// See [`Config::cluster`](super::Config::cluster).
pub const CLUSTER: Setting = Setting {
    name: "cluster",
    env: "LASTWORD_CLUSTER",
    flag: "cluster",
    value_name: "NAME",
    default: "lastword",
    kind: Kind::Text,
    help: "The cluster's name: nodes of another cluster are refused",
};
/// See [`Config::site`](super::Config::site).
pub const SITE: Setting = Setting {
    name: "site",
    env: "LASTWORD_SITE",
    flag: "site",
    value_name: "NAME",
    default: "",
    kind: Kind::Text,
    help: "This site's name, its own in the cluster: 1 to 32 of a-z, 0-9 and -. Required",
};
/// See [`Config::role`](super::Config::role).
pub const ROLE: Setting = Setting {
    name: "role",
    env: "LASTWORD_ROLE",
    flag: "role",
    value_name: "ROLE",
    default: "site",
    kind: Kind::Text,
    help: "What the node is for: site, or replica, which exchanges all rows and takes no writes of \
           clients",
};
/// See [`Config::data`](super::Config::data).
pub const DATA: Setting = Setting {
    name: "data",
    env: "LASTWORD_DATA",
    flag: "data",
    value_name: "DIR",
    default: "",
    kind: Kind::Text,
    help: "The folder of this node's store; made when missing. Required",
};
/// See [`Config::listen`](super::Config::listen).
pub const LISTEN: Setting = Setting {
    name: "listen",
    env: "LASTWORD_LISTEN",
    flag: "listen",
    value_name: "IP:PORT",
    default: "127.0.0.1:7400",
    kind: Kind::Text,
    help: "Where clients and peers connect (gRPC); port 0 takes a free one",
};
/// See [`Config::http`](super::Config::http).
pub const HTTP: Setting = Setting {
    name: "http",
    env: "LASTWORD_HTTP",
    flag: "http",
    value_name: "IP:PORT",
    default: "127.0.0.1:7401",
    kind: Kind::Text,
    help: "Where the status page and metrics are served; off (or empty): nowhere",
};
/// See [`Config::peers`](super::Config::peers).
pub const PEER: Setting = Setting {
    name: "peer",
    env: "LASTWORD_PEER",
    flag: "peer",
    value_name: "URL",
    default: "",
    kind: Kind::List,
    help: "A node to exchange with, http://HOST:PORT. Repeat the flag, or separate by commas",
};
/// See [`Config::peers`](super::Config::peers). Has neither variable nor flag.
pub const PEERS: Setting = Setting {
    name: "peers",
    env: "",
    flag: "",
    value_name: "",
    default: "",
    kind: Kind::Tables,
    help: "Nodes to exchange with, each with settings of its own: address, compression",
};
/// See [`Config::mirrored_tables`](super::Config::mirrored_tables). Has neither variable nor flag.
pub const TABLE: Setting = Setting {
    name: "table",
    env: "",
    flag: "",
    value_name: "",
    default: "",
    kind: Kind::Tables,
    help: "How single tables stand in MySQL: name, mirror, capture, key_collation, unique, cascade, \
           triggers, columns, primary_key",
};
/// Those of several tables, in the file alone.
pub const IN_FILE: [&Setting; 2] = [&PEERS, &TABLE];
/// See [`Config::compression`](super::Config::compression).
pub const COMPRESSION: Setting = Setting {
    name: "compression",
    env: "LASTWORD_COMPRESSION",
    flag: "compression",
    value_name: "WHEN",
    default: "auto",
    kind: Kind::Text,
    help: "Compress what goes to peers: auto (where the round trip takes 5 ms or longer), on or off. \
           Of a peer of [[peers]], its own compression goes before",
};
/// See [`Config::mysql`](super::Config::mysql).
pub const MYSQL: Setting = Setting {
    name: "mysql",
    env: "LASTWORD_MYSQL",
    flag: "mysql",
    value_name: "URL",
    default: "",
    kind: Kind::SecretUrl,
    help: "The database to mirror into, mysql://USER[:PASSWORD]@HOST:PORT/DATABASE; off (or empty): \
           none. A password on the command line is visible to other users of the machine: prefer \
           --mysql-password-file, or the variable LASTWORD_MYSQL_PASSWORD",
};
/// See [`Config::mysql`](super::Config::mysql).
pub const MYSQL_PASSWORD: Setting = Setting {
    name: "mysql_password",
    env: "LASTWORD_MYSQL_PASSWORD",
    flag: "mysql-password",
    value_name: "PASSWORD",
    default: "",
    kind: Kind::Secret,
    help: "The password for mysql",
};
/// See [`Config::mysql`](super::Config::mysql).
pub const MYSQL_PASSWORD_FILE: Setting = Setting {
    name: "mysql_password_file",
    env: "LASTWORD_MYSQL_PASSWORD_FILE",
    flag: "mysql-password-file",
    value_name: "FILE",
    default: "",
    kind: Kind::Text,
    help: "A file whose first line is the password for --mysql",
};
/// See [`MysqlTarget::tls`](super::MysqlTarget::tls).
pub const MYSQL_TLS: Setting = Setting {
    name: "mysql_tls",
    env: "LASTWORD_MYSQL_TLS",
    flag: "mysql-tls",
    value_name: "WHEN",
    default: "off",
    kind: Kind::Text,
    help: "required: MySQL must prove by its certificate that it is the host of --mysql, and all goes \
           encrypted; off: neither",
};
/// See [`MysqlTls::ca_file`](super::MysqlTls::ca_file).
pub const MYSQL_CA_FILE: Setting = Setting {
    name: "mysql_ca_file",
    env: "LASTWORD_MYSQL_CA_FILE",
    flag: "mysql-ca-file",
    value_name: "FILE",
    default: "",
    kind: Kind::Text,
    help: "The authorities (PEM) of which one must have signed MySQL's certificate, with \
           --mysql-tls=required. Without it: those that browsers trust",
};
/// See [`Config::insecure`](super::Config::insecure).
pub const INSECURE: Setting = Setting {
    name: "insecure",
    env: "LASTWORD_INSECURE",
    flag: "insecure",
    value_name: "BOOL",
    default: "false",
    kind: Kind::Switch,
    help: "Allow --listen and --http on addresses that other machines reach, although there is no \
           authentication yet: for networks where everyone may read and write everything",
};
/// See [`Config::sequence`](super::Config::sequence).
pub const SEQUENCE_OFFSET: Setting = Setting {
    name: "sequence.offset",
    env: "LASTWORD_SEQUENCE_OFFSET",
    flag: "sequence-offset",
    value_name: "N",
    default: "",
    kind: Kind::Text,
    help: "This site's offset for sequence ids, 1 to the increment; each site has its own",
};
/// See [`Config::sequence`](super::Config::sequence).
pub const SEQUENCE_INCREMENT: Setting = Setting {
    name: "sequence.increment",
    env: "LASTWORD_SEQUENCE_INCREMENT",
    flag: "sequence-increment",
    value_name: "N",
    default: "",
    kind: Kind::Text,
    help: "The step of sequence ids, the same at all sites: at least their number",
};
/// See [`Tables::auto_create`](super::Tables::auto_create).
pub const TABLES_AUTO_CREATE: Setting = Setting {
    name: "tables.auto_create",
    env: "LASTWORD_TABLES_AUTO_CREATE",
    flag: "tables-auto-create",
    value_name: "BOOL",
    default: "true",
    kind: Kind::Switch,
    help: "Create an unknown table at its first write",
};
/// See [`Limits::value_bytes_max`](super::Limits::value_bytes_max).
pub const VALUE_BYTES_MAX: Setting = Setting {
    name: "limits.value_bytes_max",
    env: "LASTWORD_LIMITS_VALUE_BYTES_MAX",
    flag: "limits-value-bytes-max",
    value_name: "SIZE",
    default: "1MiB",
    kind: Kind::Text,
    help: "The largest value that clients may write, 1 byte to 3MiB",
};
/// See [`Limits::batch_mutations_max`](super::Limits::batch_mutations_max).
pub const BATCH_MUTATIONS_MAX: Setting = Setting {
    name: "limits.batch_mutations_max",
    env: "LASTWORD_LIMITS_BATCH_MUTATIONS_MAX",
    flag: "limits-batch-mutations-max",
    value_name: "N",
    default: "1000",
    kind: Kind::Text,
    help: "The most mutations in one batch, 1 to 10000",
};
/// See [`Limits::get_many_keys_max`](super::Limits::get_many_keys_max).
pub const GET_MANY_KEYS_MAX: Setting = Setting {
    name: "limits.get_many_keys_max",
    env: "LASTWORD_LIMITS_GET_MANY_KEYS_MAX",
    flag: "limits-get-many-keys-max",
    value_name: "N",
    default: "1000",
    kind: Kind::Text,
    help: "The most keys in one GetMany, 1 to 10000",
};
/// See [`Limits::read_wait_max`](super::Limits::read_wait_max).
pub const READ_WAIT_MAX: Setting = Setting {
    name: "limits.read_wait_max",
    env: "LASTWORD_LIMITS_READ_WAIT_MAX",
    flag: "limits-read-wait-max",
    value_name: "DURATION",
    default: "2s",
    kind: Kind::Text,
    help: "How long a read waits for what its session has seen, 0s to 1m",
};
/// See [`Limits::clock_drift_max`](super::Limits::clock_drift_max).
pub const CLOCK_DRIFT_MAX: Setting = Setting {
    name: "limits.clock_drift_max",
    env: "LASTWORD_LIMITS_CLOCK_DRIFT_MAX",
    flag: "limits-clock-drift-max",
    value_name: "DURATION",
    default: "10s",
    kind: Kind::Text,
    help: "How far a peer's stamp may lead this clock before its row is held back, 5s to 1h",
};
/// See [`Member::seal_after`](super::Member::seal_after).
pub const MEMBER_SEAL_AFTER: Setting = Setting {
    name: "member.seal_after",
    env: "LASTWORD_MEMBER_SEAL_AFTER",
    flag: "member-seal-after",
    value_name: "DURATION",
    default: "10m",
    kind: Kind::Text,
    help: "So long after the founders have met newcomers are admitted only, and dead rows go, 0s to 365d",
};
/// See [`Member::absent_max`](super::Member::absent_max).
pub const MEMBER_ABSENT_MAX: Setting = Setting {
    name: "member.absent_max",
    env: "LASTWORD_MEMBER_ABSENT_MAX",
    flag: "member-absent-max",
    value_name: "DURATION",
    default: "30d",
    kind: Kind::Text,
    help: "A member that is away for longer is removed: dead rows are kept for it until then, 1d to 10y",
};
/// See [`Conflicts::kept_bytes_max`](super::Conflicts::kept_bytes_max).
pub const CONFLICTS_KEPT_MAX_BYTES: Setting = Setting {
    name: "conflicts.kept_max_bytes",
    env: "LASTWORD_CONFLICTS_KEPT_MAX_BYTES",
    flag: "conflicts-kept-max-bytes",
    value_name: "SIZE",
    default: "64MiB",
    kind: Kind::Text,
    help: "How much of the conflict journal is kept, 4MiB to 4096MiB: the oldest go first",
};
/// See [`Conflicts::kept_age_max`](super::Conflicts::kept_age_max).
pub const CONFLICTS_KEPT_MAX_AGE: Setting = Setting {
    name: "conflicts.kept_max_age",
    env: "LASTWORD_CONFLICTS_KEPT_MAX_AGE",
    flag: "conflicts-kept-max-age",
    value_name: "DURATION",
    default: "30days",
    kind: Kind::Text,
    help: "How long ago a losing write may have been made for the conflict journal to keep it, 1h to \
           3650days: longer than any site is away",
};
/// See [`Log::filter`](super::Log::filter).
pub const LOG: Setting = Setting {
    name: "log",
    env: "LASTWORD_LOG",
    flag: "log",
    value_name: "FILTER",
    default: "info",
    kind: Kind::Text,
    help: "What is logged to stderr: a level, or targets such as info,lastword::mirror=debug",
};
/// See [`Log::format`](super::Log::format).
pub const LOG_FORMAT: Setting = Setting {
    name: "log_format",
    env: "LASTWORD_LOG_FORMAT",
    flag: "log-format",
    value_name: "FORMAT",
    default: "text",
    kind: Kind::Text,
    help: "How it is logged: text or json",
};

/// Every setting that has all three names, in the order in which they are shown.
pub const ALL: [&Setting; 28] = [
    &CLUSTER,
    &SITE,
    &ROLE,
    &DATA,
    &LISTEN,
    &HTTP,
    &PEER,
    &COMPRESSION,
    &MYSQL,
    &MYSQL_PASSWORD,
    &MYSQL_PASSWORD_FILE,
    &MYSQL_TLS,
    &MYSQL_CA_FILE,
    &INSECURE,
    &SEQUENCE_OFFSET,
    &SEQUENCE_INCREMENT,
    &TABLES_AUTO_CREATE,
    &VALUE_BYTES_MAX,
    &BATCH_MUTATIONS_MAX,
    &GET_MANY_KEYS_MAX,
    &READ_WAIT_MAX,
    &CLOCK_DRIFT_MAX,
    &MEMBER_SEAL_AFTER,
    &MEMBER_ABSENT_MAX,
    &CONFLICTS_KEPT_MAX_BYTES,
    &CONFLICTS_KEPT_MAX_AGE,
    &LOG,
    &LOG_FORMAT,
];

/// The variable that names the nodes that client commands use; `serve` ignores it.
pub const SERVER_ENV: &str = "LASTWORD_SERVER";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_names_of_a_setting_follow_from_one() {
        for setting in ALL {
            let words = setting.name.replace('.', "_");
            assert_eq!(setting.env, format!("LASTWORD_{}", words.to_uppercase()));
            assert_eq!(setting.flag, words.replace('_', "-"));
        }
    }
}
