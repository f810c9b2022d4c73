//! Loopback ports that stay ours, also while their server is down.
//!
//! A [`Port`] keeps a socket bound to it that never listens. The system then hands the port to
//! nobody else, neither to another test nor to an outgoing connection, while a server that binds
//! with `SO_REUSEADDR`, as every server does, may listen on it and come back to it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of 127.0.0.1, reserved until it is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    holder: TcpSocket,
}

impl Port {
    /// Reserves a port that is free.
    pub(crate) fn reserve() -> Port {
        let holder = TcpSocket::new_v4().expect("a socket can be made");
        holder.set_reuseaddr(true).expect("SO_REUSEADDR can be set");
        holder.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a loopback port is free");
        Port { holder }
    }

    /// 127.0.0.1 and the port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.holder.local_addr().expect("a bound socket has an address")
    }

    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.address().port()
    }
}
