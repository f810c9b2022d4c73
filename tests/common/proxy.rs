//! A link between two processes that can be cut, healed and frozen.
//!
//! ```text
//! node ──> Proxy ──> peer      open:    bytes are passed on, both ways
//!                              cut:     connections are closed, new ones refused
//!                              frozen:  connections stay and are accepted, nothing passes
//! ```
//!
//! The proxy runs in a thread of its own, so a test may block while it works.

use std::{
    net::SocketAddr,
    thread::{self, JoinHandle},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::port::Port;

/// How much is passed on at once.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Cut,
    Frozen,
}

/// A mode to go to, and who waits until it holds.
type Change = (Mode, oneshot::Sender<()>);

/// A TCP proxy on a loopback port of its own, open at first.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: Port,
    changes: Option<mpsc::Sender<Change>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens, and connects to `target` for each connection that comes in.
    pub(crate) fn start(target: SocketAddr) -> Proxy {
        let port = Port::reserve();
        let (changes, changed) = mpsc::channel(1);
        let address = port.address();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(run(address, target, changed));
        });
        let proxy = Proxy { port, changes: Some(changes), thread: Some(thread) };
        proxy.heal();
        proxy
    }

    /// The address to connect to in place of the target's.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// That address, for `--peer`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Closes all connections and refuses new ones; done when this returns.
    pub(crate) fn cut(&self) {
        self.change(Mode::Cut);
    }

    /// Passes nothing on, and tells nobody: the link of a host that vanished.
    pub(crate) fn freeze(&self) {
        self.change(Mode::Frozen);
    }

    /// Passes on again, also what waited in connections that were frozen.
    pub(crate) fn heal(&self) {
        self.change(Mode::Open);
    }

    fn change(&self, mode: Mode) {
        let (done, wait) = oneshot::channel();
        let changes = self.changes.as_ref().expect("kept until the proxy is dropped");
        // `blocking_send` is refused inside a runtime, and tests have one: there is always room.
        changes.try_send((mode, done)).expect("the proxy runs and took the change before");
        thread::scope(|scope| {
            let waited = scope.spawn(|| wait.blocking_recv()).join();
            waited.expect("no panic in it").expect("the proxy runs");
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed; another one here would end the test process.
            let _ = thread.join();
        }
    }
}

/// Serves until the proxy is dropped; what it holds is closed then.
async fn run(address: SocketAddr, target: SocketAddr, mut changed: mpsc::Receiver<Change>) {
    let (mode, watched) = watch::channel(Mode::Cut);
    let mut listener: Option<TcpListener> = None;
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            change = changed.recv() => {
                let Some((next, done)) = change else { return };
                if next == Mode::Cut {
                    listener = None;
                    links.shutdown().await;
                } else if listener.is_none() {
                    listener = Some(TcpListener::bind(address).await.expect("the port is ours"));
                }
                mode.send_replace(next);
                // Whoever waited may have panicked.
                let _ = done.send(());
            }
            Some(accepted) = accept(listener.as_ref()) => {
                links.spawn(link(accepted, target, watched.clone()));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    // A connection that was reset before it was accepted is none.
    listener?.accept().await.ok().map(|(stream, _)| stream)
}

/// Carries one connection, until both directions have ended or the task is.
async fn link(near: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if mode.wait_for(|mode| *mode == Mode::Open).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(pump(near_read, far_write, mode.clone()), pump(far_read, near_write, mode));
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).await;
        // An end, too, passes only when the link is open.
        if mode.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        match read {
            Ok(length @ 1..) if to.write_all(&chunk[..length]).await.is_ok() => {}
            // Dropping `to` closes that direction.
            _ => return,
        }
    }
}
