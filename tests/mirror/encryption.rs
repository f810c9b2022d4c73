//! TLS to MySQL: it proves who it is, or gets nothing, the password least of all.

use std::{fs, path::PathBuf};

use lastword::mirror::{Config, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::{
    common::{
        mariadb::MariaDb,
        program::{complaint, json, program},
    },
    world::{Running, World, config},
};

/// An authority, and the certificate of a server in its name.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new(server_name: &str) -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec![server_name.to_owned()]).unwrap();
        let server = server.signed_by(&key, &issuer).unwrap();
        let made = Authority { folder };
        fs::write(made.ca_file(), certificate.pem()).unwrap();
        fs::write(made.file("server.pem"), server.pem()).unwrap();
        fs::write(made.file("key.pem"), key.serialize_pem()).unwrap();
        made
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ca_file(&self) -> PathBuf {
        self.file("ca.pem")
    }

    fn server(&self) -> MariaDb {
        let option = |name: &str, file: &str| format!("--{name}={}", self.file(file).display());
        MariaDb::start_with(&[&option("ssl-cert", "server.pem"), &option("ssl-key", "key.pem")])
    }
}

fn encrypted(mariadb: &MariaDb, database: &str, ca_file: Option<PathBuf>) -> Config {
    Config { tls: Some(Tls { ca_file }), ..config(mariadb, database) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_proves_who_it_is_is_written_to_and_no_other() {
    let authority = Authority::new("127.0.0.1");
    let mariadb = authority.server();
    let database = "encrypted";
    let config = encrypted(&mariadb, database, Some(authority.ca_file()));
    // The server's own word that nothing goes in the clear.
    mariadb.sql("", "ALTER USER lastword@'127.0.0.1' REQUIRE SSL");
    let world = World::new().await;
    world.put("t", "k", "v").await;

    let other = Authority::new("127.0.0.1");
    for (config, reason) in [
        (
            encrypted(&mariadb, database, Some(other.ca_file())),
            "its certificate is not signed by an authority of mysql_ca_file",
        ),
        (encrypted(&mariadb, database, None), "its certificate is not signed by an authority"),
        (
            {
                let mut config = config.clone();
                config.target.host = "localhost".into();
                config
            },
            "its certificate is another host's",
        ),
        (Config { tls: None, ..config.clone() }, "denied"),
        (encrypted(&mariadb, database, Some(authority.file("nothing.pem"))), "No such file"),
    ] {
        let mirror = Running::start(&world, &config);
        let report = world.fails_with(reason);
        let message = report.last_error.unwrap().message;
        assert!(!message.contains('\n') && message.starts_with("mysql: "), "{message}");
        mirror.stop().await;
    }

    let _mirror = Running::start(&world, &config);
    world.fill("t", 2_000, 100).await;
    world.judge(&mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_gets_nothing_where_it_is_required() {
    let mariadb = MariaDb::start_with(&["--skip-ssl"]);
    let authority = Authority::new("127.0.0.1");
    let world = World::new().await;
    let config = encrypted(&mariadb, "plain", Some(authority.ca_file()));
    let _mirror = Running::start(&world, &config);
    world.fails_with("MySQL offers no TLS, and mysql_tls is required: set ssl_cert and ssl_key");
}

#[test]
fn the_settings_say_so() {
    let authority = Authority::new("127.0.0.1");
    let mariadb = authority.server();
    let url = mariadb.url("by_settings");
    let ca_file = authority.ca_file();
    let ca_file = ca_file.to_str().unwrap();
    let doctor = ["doctor", "--json", "--mysql", &url];
    let found = |more: &[&str]| {
        let report = program(&[&doctor[..], more].concat()).stdout;
        let report = json(&String::from_utf8(report).unwrap());
        let findings = report["findings"].as_array().unwrap().clone();
        let of = |subject: &str| findings.iter().find(|finding| finding["subject"] == subject);
        let finding = of("tls").or_else(|| of("connection")).unwrap();
        finding["found"].as_str().unwrap().to_owned()
    };
    let required = ["--mysql-tls", "required", "--mysql-ca-file", ca_file];
    assert_eq!(found(&required), "the connection is encrypted, and MySQL proved who it is");
    assert_eq!(found(&[]), "not encrypted: it does not leave this machine");
    assert!(found(&required[..2]).contains("not signed by an authority"));

    let refused = |more: &[&str]| complaint(&[&doctor[..], more].concat(), 2);
    assert!(refused(&required[2..]).contains("it is of no use without mysql_tls"));
    assert!(refused(&["--mysql-tls", "maybe"]).contains("write off or required"));
    let key = authority.file("key.pem");
    let no_certificate = ["--mysql-tls=required", "--mysql-ca-file", key.to_str().unwrap()];
    assert!(refused(&no_certificate).contains("holds no certificate"));
    let missing = ["--mysql-tls=required", "--mysql-ca-file", "/nowhere/ca.pem"];
    assert!(refused(&missing).contains("/nowhere/ca.pem"));
}
