//! Compiles the contract with protox (no protoc needed) and writes its descriptor set twice: for
//! reflection, and as a file for users, `target/<profile>/passbook_descriptor.binpb`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTOS: [&str; 8] = [
    "passbook/v1/admin_service.proto",
    "passbook/v1/account_service.proto",
    "passbook/v1/resources.proto",
    "passbook/v1/holds.proto",
    "passbook/v1/lifecycle.proto",
    "passbook/v1/history.proto",
    "passbook/v1/errors.proto",
    "passbook/v1/events.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    // `compile_fds` prints no rerun-if-changed of its own.
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let bytes = descriptors.encode_to_vec();
    fs::write(out.join("passbook_descriptor.bin"), &bytes)?;
    // OUT_DIR is <profile>/build/passbook-<hash>/out, whose hash nobody knows.
    if let Some(profile) = out.ancestors().nth(3).filter(|it| it.join("build").is_dir()) {
        fs::write(profile.join("passbook_descriptor.binpb"), &bytes)?;
    }
    let mut config = prost_build::Config::new();
    // The codec finds the descriptor of a message by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .codec_path("crate::proto::counting_codec::CountingCodec")
        // Sorted maps: the same message is always the same bytes, so replays are byte-equal.
        .btree_map(".")
        // Written by hand, so that all who watch an account share what was encoded once.
        .extern_path(".passbook.v1.WatchEntriesResponse", "crate::proto::WatchEntriesResponse")
        .extern_path(".google.rpc.Status", "::tonic_types::pb::Status")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
