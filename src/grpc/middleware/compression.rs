//! Decides which responses may be compressed.
//!
//! Many clients accept compressed responses by default. For most calls compression costs more time
//! than it saves, on both sides: a caller that wants it sends a compressed request. A stream is never
//! compressed: the messages of a watch are encoded once for all watchers, and a stream of results would
//! keep a buffer as large as its largest message.

use http::{HeaderValue, Request};

use crate::proto::methods::{self, Method};

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
