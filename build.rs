//! Compiles the proto with protox, so that no system `protoc` is needed.
//!
//! Writes the generated messages and the descriptor set (for server reflection) to `OUT_DIR`.

use std::{env, fs, path::PathBuf};

const PROTO_FILES: [&str; 3] =
    ["lastword/v1/key_value.proto", "lastword/v1/admin.proto", "lastword/v1/replication.proto"];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script OUT_DIR this way")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTO_FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("lastword.v1.descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    // Every `bytes` field is a `bytes::Bytes`: a value is a slice of the frame that brought it.
    tonic_prost_build::configure()
        .bytes(".")
        // Written by hand: its rows are encoded once for all peers.
        .extern_path(".lastword.v1.Delta", "crate::wire::delta::Delta")
        .extern_path(".lastword.v1.DeltaRow", "crate::wire::delta::DeltaRow")
        .compile_fds(descriptors)?;
    Ok(())
}
