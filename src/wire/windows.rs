//! How much HTTP/2 lets come in before it is read: the windows of every connection, at both ends.
//!
//! ```text
//! connection: room for all of its streams --+-- stream 1: not read, its own window is full
//!                                           +-- stream 2: goes on
//!                                           `-- ...
//! ```
//!
//! A load whose writer waits for the disk, a link whose receiver does, a client that has not read its
//! answers yet: such a stream fills its own window, and that is all it may do.
//!
//! - *Others go on.* Were the connection's window no larger than a stream's, one such stream would hold
//!   up every call beside it.
//! - *The connection stays.* The `h2` crate takes many small frames that nobody reads for an attack: one
//!   of n < 256 bytes is charged 256 - n until it is read, and where the charges come to more than half
//!   of the connection's window, it ends the connection ("too_many_data_frames"). Neither hyper nor tonic
//!   lets that be set but by the window. A stream full of frames of n bytes is charged (256 - n) / n times its
//!   window: with equal windows one stream is too much, where its frames have fewer than 171 bytes, as
//!   most that carry one row have. With these windows one stream never is, down to frames of two bytes;
//!   gRPC's smallest message has five. Fifteen full streams of 28-byte requests are not too much either.
//!
//! So a connection pins at most its streams' windows, and half of that again for the frames.

use tonic::transport::{Endpoint, Server};

/// The most streams of one connection.
const STREAMS_MAX: u32 = 256;
/// What a server takes in of one stream unread, in bytes: what a client or a peer can have under way, and with a
/// round trip of 100 ms ten times as much a second.
const SERVER_STREAM_BYTES: u32 = 1 << 20;
/// What whoever dialled takes in of one: scans and catch-ups come that way.
const DIALLER_STREAM_BYTES: u32 = 2 << 20;

/// Bounds the streams of a server's connections, and what they bring unread.
#[must_use]
pub fn of_server(server: Server) -> Server {
    server
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(SERVER_STREAM_BYTES)
        .initial_connection_window_size(STREAMS_MAX * SERVER_STREAM_BYTES)
}

/// The same for a connection that is dialled; the server bounds its streams.
#[must_use]
pub fn of_endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(DIALLER_STREAM_BYTES)
        .initial_connection_window_size(STREAMS_MAX * DIALLER_STREAM_BYTES)
}
