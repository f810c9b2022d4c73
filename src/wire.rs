//! The generated proto: what goes over the network, as Rust types.

/// Generated from `proto/lastword/v1/`; the comments there are the reference.
pub mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
    tonic::include_proto!("lastword.v1");
}

/// The compiled descriptors of `proto/lastword/v1/`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/lastword.v1.descriptors.bin"));
