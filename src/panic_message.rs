//! The text of a panic.

use std::any::Any;

/// The message that the panic was raised with.
pub fn panic_message(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
