//! Decides which responses may be compressed.
//!
//! Many clients accept compressed responses by default. For most calls compression costs more time
//! than it saves, on both sides: a caller that wants it sends a compressed request. A stream is never
//! compressed: the messages of a watch are encoded once for all watchers, and a stream of results would
//! keep a buffer as large as its largest message.

use http::{HeaderValue, Request};
use prost::Message;
use tonic::Response;

use crate::proto::methods::{self, Method};

/// The largest response that is compressed, in bytes. One of 4 MiB would keep a thread from all other calls
/// for a fifth of a second.
const COMPRESSED_MAX: usize = 128 * 1024;

/// Lets the response be compressed only if the request is, and if it is no stream.
pub fn only_in_return<B>(mut request: Request<B>) -> Request<B> {
    let is_identity = |it: &HeaderValue| it == "identity";
    let is_plain = request.headers().get("grpc-encoding").is_none_or(is_identity);
    let is_unary = || methods::of_path(request.uri().path()).is_some_and(Method::is_unary);
    if is_plain || !is_unary() {
        request.headers_mut().remove("grpc-accept-encoding");
    }
    request
}

/// A response that may be large, and is compressed only if it is not.
pub fn compressible<T: Message>(message: T) -> Response<T> {
    let is_large = message.encoded_len() > COMPRESSED_MAX;
    let mut response = Response::new(message);
    if is_large {
        response.disable_compression();
    }
    response
}
