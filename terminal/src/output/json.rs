//! Messages in the JSON form of Protocol Buffers, with all fields that have a default value. Keys are
//! in alphabetical order.

use std::sync::LazyLock;

use passbook_command::{CliError, proto::FILE_DESCRIPTOR_SET};
use prost::{Message, Name};
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::FileDescriptorSet;
use serde_json::value::Serializer;

const OPTIONS: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// The descriptors of the contract, and of the details of errors.
static DESCRIPTORS: LazyLock<Result<DescriptorPool, DescriptorError>> = LazyLock::new(|| {
    let mut pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
    let details = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET);
    let mut details = details.unwrap_or_default();
    // The contract has the other file, with `google.rpc.Status`, under another name.
    details.file.retain(|file| file.name() == "error_details.proto");
    pool.add_file_descriptor_set(details)?;
    Ok(pool)
});

/// A line for each message.
pub fn lines<M: Name>(messages: &[M]) -> Result<String, CliError> {
    messages.iter().map(|message| Ok(of(message)? + "\n")).collect()
}

/// The message as one line.
pub fn of<M: Name>(message: &M) -> Result<String, CliError> {
    let pool = DESCRIPTORS.as_ref().map_err(CliError::run)?;
    let name = M::full_name();
    let descriptor = pool
        .get_message_by_name(&name)
        .ok_or_else(|| CliError::Run(format!("{name} is no message of the contract")))?;
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).map_err(CliError::run)?;
    // A `Value` has its keys in order. Those of a `DynamicMessage` change from run to run.
    let value = dynamic.serialize_with_options(Serializer, &OPTIONS).map_err(CliError::run)?;
    Ok(value.to_string())
}
