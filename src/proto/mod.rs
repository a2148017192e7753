//! The contract of `proto/passbook/v1` as prost and tonic generate it, and one message written by
//! hand; `counting_codec`, which bounds and measures their lists. Nothing else of this crate enters here.

mod generated {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated"
    )]

    tonic::include_proto!("passbook.v1");
}
mod counting_codec;
pub mod methods;
mod watch_entries_response;

pub use counting_codec::memory;
pub use generated::*;
pub use watch_entries_response::WatchEntriesResponse;

/// The contract's descriptors, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/passbook_descriptor.bin"));
