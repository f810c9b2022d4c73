//! The line between the sites: a TCP relay on loopback that can be cut and healed.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A line to one address.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    up: watch::Sender<bool>,
}

impl Relay {
    /// Opens a line to `target`, up.
    pub(super) async fn to(target: SocketAddr) -> anyhow::Result<Relay> {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.context("no free port on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let (up, line) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, line.clone()));
            }
        });
        Ok(Relay { address, up })
    }

    /// Cuts every connection and lets none through.
    pub(super) fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Lets connections through again.
    pub(super) fn heal(&self) {
        self.up.send_replace(true);
    }
}

/// Carries one connection until it ends or the line is cut.
async fn carry(mut client: TcpStream, target: SocketAddr, mut line: watch::Receiver<bool>) {
    if !*line.borrow() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = line.wait_for(|up| !up) => {}
    }
}
