//! Compiles the contract with protox into clients (no protoc needed), and writes its descriptors.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTOS: [&str; 2] = ["passbook/v1/admin_service.proto", "passbook/v1/account_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    // `compile_fds` prints no rerun-if-changed of its own.
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(PROTOS, ["../proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("contract.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // The descriptor of a message is found by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        // In the order of the keys.
        .btree_map(".")
        .extern_path(".google.rpc.Status", "::tonic_types::pb::Status")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
