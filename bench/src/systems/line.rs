//! The line between two sites: a TCP relay that delays each direction.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way in one direction. A full line makes the sender wait.
const CHUNKS_MAX: usize = 256;

/// A line to one address; it ends when dropped.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Line {
    /// Opens a line on which each direction takes `delay`.
    pub(crate) async fn open(target: SocketAddr, delay: Duration) -> anyhow::Result<Line> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                carried.spawn(carry(near, target, delay));
            }
        });
        Ok(Line { address, accepting })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // What it carries is dropped with it.
        self.accepting.abort();
    }
}

async fn carry(near: TcpStream, target: SocketAddr, delay: Duration) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    // Only a matter of speed.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(pump(near_read, far_write, delay), pump(far_read, near_write, delay));
}

/// Carries one direction until it ends. Reading goes on while what was read is on its way.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut on_its_way) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let due = Instant::now() + delay;
            if sender.send((due, chunk[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = on_its_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_round_trip_takes_both_delays() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let line = Line::open(server.local_addr().expect("bound"), Duration::from_millis(20)).await;
        let line = line.expect("opens");
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.expect("a connection");
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("a byte");
            stream.write_all(&byte).await.expect("writable");
        });
        let mut stream = TcpStream::connect(line.address).await.expect("the line is open");
        let began = Instant::now();
        stream.write_all(b"x").await.expect("writable");
        stream.read_exact(&mut [0]).await.expect("the echo");
        assert!(began.elapsed() >= Duration::from_millis(40), "{:?}", began.elapsed());
    }
}
