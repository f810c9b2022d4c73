//! Connections in: how the servers of this node accept them.
//!
//! Both [`api`](crate::api) and [`status`](crate::status) accept through an [`Entrance`]. It bounds
//! how many connections are open: beyond, new ones wait in the system's queue. It survives an
//! accept that fails because the process is out of files: it pauses, where a loop would spin.
//! A connection that says nothing is closed, and so are all that are left when a server must end.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// After an accept that failed: other connections must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How connections are let in.
#[derive(Clone, Debug)]
pub struct EntranceConfig {
    /// The most connections that are open at once.
    pub connections_max: usize,
    /// How long a connection may last.
    pub time_max: Duration,
    /// Once so many bytes have come in, it may last for ever; `None`: it may not.
    pub proven_bytes: Option<usize>,
}

/// Where connections come in.
#[derive(Debug)]
pub struct Entrance {
    listener: TcpListener,
    config: EntranceConfig,
    places: Arc<Semaphore>,
    cut: CancellationToken,
}

impl Entrance {
    /// Lets connections in from `listener`. Cancelling `cut` closes all of them at once.
    #[must_use]
    pub fn new(listener: TcpListener, config: EntranceConfig, cut: CancellationToken) -> Entrance {
        let places = Arc::new(Semaphore::new(config.connections_max));
        Entrance { listener, config, places, cut }
    }

    /// The next connection and whose it is, once there is a place for it.
    pub async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("it is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small and awaited: none of them waits for the next.
                    let _ = stream.set_nodelay(true);
                    let connection = Connection {
                        stream,
                        patience: Some(Box::pin(tokio::time::sleep(self.config.time_max))),
                        proven_bytes: self.config.proven_bytes,
                        cut: Box::pin(self.cut.clone().cancelled_owned()),
                        _place: place,
                    };
                    return (connection, peer);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again shortly");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// From the socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The other side went away before it was let in: the next one may be sound.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// An accepted connection; it takes up its place until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// `None`: it may last.
    patience: Option<Pin<Box<Sleep>>>,
    proven_bytes: Option<usize>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Whether the connection must end now; else the task is woken when it must.
    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server ends"));
        }
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(context).is_ready()
        {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the connection took too long"));
        }
        Ok(())
    }

    fn received(&mut self, bytes: usize) {
        if let Some(needed) = &mut self.proven_bytes {
            *needed = needed.saturating_sub(bytes);
            if *needed == 0 {
                self.patience = None;
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = tonic::transport::server::TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl axum::serve::Listener for Entrance {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        Entrance::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Entrance::local_addr(self)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn entrance(config: EntranceConfig) -> (Entrance, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cut = CancellationToken::new();
        (Entrance::new(listener, config, cut.clone()), cut)
    }

    const CONFIG: EntranceConfig = EntranceConfig {
        connections_max: 1,
        time_max: Duration::from_millis(50),
        proven_bytes: Some(3),
    };

    #[tokio::test]
    async fn who_says_nothing_is_closed() {
        let (mut entrance, _) = entrance(CONFIG).await;
        let mut client = TcpStream::connect(entrance.local_addr().unwrap()).await.unwrap();
        let (mut connection, _) = entrance.accept().await;
        client.write_all(b"ab").await.unwrap();
        let mut bytes = [0; 2];
        connection.read_exact(&mut bytes).await.unwrap();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_has_said_enough_may_stay_until_the_cut() {
        let (mut entrance, cut) = entrance(CONFIG).await;
        let mut client = TcpStream::connect(entrance.local_addr().unwrap()).await.unwrap();
        let (mut connection, _) = entrance.accept().await;
        client.write_all(b"abc").await.unwrap();
        let mut bytes = [0; 3];
        connection.read_exact(&mut bytes).await.unwrap();
        let more = tokio::time::timeout(2 * CONFIG.time_max, connection.read_u8()).await;
        assert!(more.is_err(), "still open, and silent");
        cut.cancel();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(connection.write_all(b"x").await.is_err());
    }

    #[tokio::test]
    async fn beyond_the_bound_connections_wait_for_a_place() {
        let (mut entrance, _) = entrance(CONFIG).await;
        let address = entrance.local_addr().unwrap();
        let _clients = (
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        );
        let first = entrance.accept().await;
        let second = tokio::time::timeout(CONFIG.time_max, entrance.accept()).await;
        assert!(second.is_err(), "no place");
        drop(first);
        entrance.accept().await;
    }
}
