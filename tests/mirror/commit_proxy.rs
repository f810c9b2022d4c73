//! A line to MySQL that breaks at a COMMIT: before it arrives, or after it was done and before its OK is
//! heard.
//!
//! ```text
//! mirror ──> CommitProxy ──> MariaDB     pass:     bytes are passed on, both ways
//!                                        cut:      the COMMIT is not passed on, both ends are closed
//!                                        swallow:  it is, its answer is not, and both ends are closed
//! ```
//!
//! It understands as much of the protocol as that takes: a packet is three bytes of length, one of
//! its number, and its content; a command is a client's packet with the number 0, and a query's
//! content is a 3 and the text.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::common::port::Port;

const CHUNK_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 4;
const COM_QUERY: u8 = 3;

/// What becomes of one COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Cut,
    Swallow,
}

/// What became of those so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) passed: u64,
    pub(crate) cut: u64,
    pub(crate) swallowed: u64,
}

struct Plan {
    dice: StdRng,
    /// Of a hundred.
    cut: u32,
    swallow: u32,
    fates: Fates,
}

impl Plan {
    fn next(&mut self) -> Fate {
        let throw = self.dice.random_range(0..100);
        let fate = match throw {
            _ if throw < self.cut => Fate::Cut,
            _ if throw < self.cut + self.swallow => Fate::Swallow,
            _ => Fate::Pass,
        };
        match fate {
            Fate::Pass => self.fates.passed += 1,
            Fate::Cut => self.fates.cut += 1,
            Fate::Swallow => self.fates.swallowed += 1,
        }
        fate
    }
}

/// Such a line, on a loopback port of its own.
pub(crate) struct CommitProxy {
    port: Port,
    plan: Arc<Mutex<Plan>>,
    ended: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl CommitProxy {
    /// Passes everything on, at first.
    pub(crate) fn start(target: SocketAddr, seed: u64) -> CommitProxy {
        let port = Port::reserve();
        let dice = StdRng::seed_from_u64(seed);
        let plan = Plan { dice, cut: 0, swallow: 0, fates: Fates::default() };
        let plan = Arc::new(Mutex::new(plan));
        let ended = CancellationToken::new();
        let (address, shared, end) = (port.address(), Arc::clone(&plan), ended.clone());
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(end.run_until_cancelled(run(address, target, shared)));
        });
        CommitProxy { port, plan, ended, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// From now on so many of a hundred COMMITs are cut off, and so many are swallowed.
    pub(crate) fn break_at(&self, cut: u32, swallow: u32) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        (plan.cut, plan.swallow) = (cut, swallow);
    }

    pub(crate) fn fates(&self) -> Fates {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).fates
    }
}

impl Drop for CommitProxy {
    fn drop(&mut self) {
        self.ended.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(address: SocketAddr, target: SocketAddr, plan: Arc<Mutex<Plan>>) {
    let listener = TcpListener::bind(address).await.expect("the port is ours");
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    links.spawn(link(near, target, Arc::clone(&plan)));
                }
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// Carries one connection until it breaks.
async fn link(mut near: TcpStream, target: SocketAddr, plan: Arc<Mutex<Plan>>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let mut packets = Packets::default();
    let (mut from_near, mut from_far) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    loop {
        tokio::select! {
            read = near.read(&mut from_near) => {
                let Ok(length @ 1..) = read else { return };
                packets.take_in(&from_near[..length]);
                while let Some((packet, is_commit)) = packets.next() {
                    let fate = match is_commit {
                        true => plan.lock().unwrap_or_else(PoisonError::into_inner).next(),
                        false => Fate::Pass,
                    };
                    if fate == Fate::Cut || far.write_all(&packet).await.is_err() {
                        return;
                    }
                    if fate == Fate::Swallow {
                        // Whatever it answers, the commit was done or refused then.
                        let _ = far.read(&mut from_far).await;
                        return;
                    }
                }
            }
            read = far.read(&mut from_far) => {
                let Ok(length @ 1..) = read else { return };
                if near.write_all(&from_far[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A stream of bytes, cut into packets.
#[derive(Default)]
struct Packets {
    bytes: Vec<u8>,
}

impl Packets {
    fn take_in(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole packet, and whether it asks for a COMMIT.
    fn next(&mut self) -> Option<(Vec<u8>, bool)> {
        let [low, middle, high, number, content @ ..] = &self.bytes[..] else { return None };
        let length = u32::from_le_bytes([*low, *middle, *high, 0]) as usize;
        let content = content.get(..length)?;
        let is_commit = *number == 0
            && matches!(content, [COM_QUERY, text @ ..] if text.eq_ignore_ascii_case(b"COMMIT"));
        Some((self.bytes.drain(..HEADER_BYTES + length).collect(), is_commit))
    }
}

#[test]
fn a_commit_is_recognized_in_any_piece() {
    let mut packets = Packets::default();
    let query = |text: &[u8]| {
        let mut packet = vec![text.len() as u8 + 1, 0, 0, 0, COM_QUERY];
        packet.extend_from_slice(text);
        packet
    };
    let stream = [query(b"SELECT 'COMMIT'"), query(b"COMMIT"), query(b"DO 0")].concat();
    let mut seen = Vec::new();
    for byte in &stream {
        packets.take_in(&[*byte]);
        while let Some((packet, is_commit)) = packets.next() {
            seen.push((packet.len(), is_commit));
        }
    }
    assert_eq!(seen, [(20, false), (11, true), (9, false)]);
}
