//! The parts that the other tests stand on, tried by themselves.

mod common;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{guardian, mariadb::MariaDb, port::Port, proxy::Proxy, wait::until};

const LIMIT: Duration = Duration::from_secs(10);
/// Long enough for anything that passes on loopback to have passed.
const SILENCE: Duration = Duration::from_millis(200);

#[test]
fn mariadb_keeps_what_was_committed_when_it_is_killed() {
    let mut mariadb = MariaDb::start();
    let url = mariadb.url("shop");
    assert_eq!(url, format!("mysql://root@127.0.0.1:{}/shop", mariadb.port()));
    mariadb
        .sql("shop", "CREATE TABLE t (k INT PRIMARY KEY, v VARCHAR(20)); INSERT t VALUES (1, 'ä')");
    mariadb.kill9();
    assert!(mariadb.try_sql("shop", "SELECT 1").is_err());
    mariadb.restart();
    assert_eq!(mariadb.url("shop"), url, "the same port and database");
    assert_eq!(mariadb.sql("shop", "SELECT k, v, NULL FROM t"), [["1", "ä", "NULL"]]);
    mariadb.stop();
    assert!(mariadb.try_sql("shop", "SELECT 1").is_err());
    mariadb.restart();
    assert_eq!(mariadb.sql("shop", "SELECT COUNT(*) FROM t"), [["1"]]);
    let error = mariadb.try_sql("shop", "SELECT * FROM absent").unwrap_err();
    assert!(error.contains("doesn't exist"), "{error}");
}

#[tokio::test]
async fn mariadb_lets_root_in_over_tcp() {
    use mysql_async::prelude::Queryable;

    let mariadb = MariaDb::start_with(&["--max-connections=11"]);
    let mut connection = mysql_async::Conn::from_url(mariadb.url("shop")).await.unwrap();
    let answer: Option<(String, u32)> =
        connection.query_first("SELECT DATABASE(), @@max_connections").await.unwrap();
    assert_eq!(answer, Some(("shop".to_owned(), 11)));
    connection.disconnect().await.unwrap();
}

#[test]
fn two_mariadb_are_two() {
    let (first, second) = (MariaDb::start(), MariaDb::start());
    first.sql("", "CREATE DATABASE only_here");
    let shown = "SHOW DATABASES LIKE 'only_here'";
    assert_eq!(first.sql("", shown).len(), 1);
    assert_eq!(second.sql("", shown).len(), 0);
}

#[test]
fn a_reserved_port_takes_a_server_again_and_again() {
    let port = Port::reserve();
    for _ in 0..3 {
        assert_eq!(connect(port.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let server = TcpListener::bind(port.address()).unwrap();
        let mut client = connect(port.address()).unwrap();
        // The server's side closes first and leaves the port in TIME_WAIT.
        drop(server.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    let others: Vec<_> = (0..100).map(|_| Port::reserve()).collect();
    assert!(others.iter().all(|other| other.number() != port.number()));
}

#[test]
fn a_link_is_cut_and_healed() {
    let proxy = Proxy::start(echo_server());
    let mut client = connect(proxy.address()).unwrap();
    assert_eq!(echo(&mut client, b"1").unwrap(), b"1");
    proxy.cut();
    assert!(echo(&mut client, b"2").is_err());
    assert_eq!(connect(proxy.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.heal();
    assert!(echo(&mut client, b"3").is_err(), "a connection that was cut stays cut");
    assert_eq!(echo(&mut connect(proxy.address()).unwrap(), b"4").unwrap(), b"4");
}

#[tokio::test]
async fn a_frozen_link_passes_nothing_until_it_is_healed() {
    let proxy = Proxy::start(echo_server());
    let mut old = connect(proxy.address()).unwrap();
    assert_eq!(echo(&mut old, b"1").unwrap(), b"1");
    proxy.freeze();
    let mut new = connect(proxy.address()).unwrap();
    for client in [&mut old, &mut new] {
        client.set_read_timeout(Some(SILENCE)).unwrap();
        let error = echo(client, b"2").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        client.set_read_timeout(Some(LIMIT)).unwrap();
    }
    proxy.heal();
    for client in [&mut old, &mut new] {
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"2", "what waited is passed on");
        assert_eq!(echo(client, b"3").unwrap(), b"3");
    }
    proxy.freeze();
    proxy.cut();
    assert!(echo(&mut old, b"4").is_err(), "a frozen connection can be cut");
}

#[test]
fn the_guardian_forgets_who_was_killed() {
    let mut child = guardian::spawn(Command::new("sleep").arg("60").stdin(Stdio::null()));
    guardian::kill9(&mut child);
    assert!(child.try_wait().unwrap().is_some_and(|status| !status.success()));
}

#[test]
#[should_panic(expected = "something: not within 20ms")]
fn waiting_is_bounded() {
    until("something", Duration::from_millis(20), || None::<()>);
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Sends back what comes in, for as long as the test process runs.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    address
}
