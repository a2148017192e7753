//! Compiles the contract with protox into clients (no protoc needed).

use std::error::Error;

const PROTOS: [&str; 2] = ["passbook/v1/admin_service.proto", "passbook/v1/account_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    // `compile_fds` prints no rerun-if-changed of its own.
    println!("cargo:rerun-if-changed=../proto");
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".google.rpc.Status", "::tonic_types::pb::Status")
        .compile_fds(protox::compile(PROTOS, ["../proto"])?)?;
    Ok(())
}
