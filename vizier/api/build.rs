//! Compiles `proto/` without `protoc`, and keeps the descriptors for gRPC reflection.

use std::path::PathBuf;

const PROTO: &str = "proto/vizier.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_file(PROTO)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        // Both carry Arrow buffers: decoding must not copy them once more.
        .bytes(".pyxis.vizier.v1.Batch.ipc")
        .bytes(".pyxis.vizier.v1.ExecuteRequest.component")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
