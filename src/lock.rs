//! The locks of the standard library without their poison.
//!
//! A panic is caught and answered with INTERNAL; it must not make every later call panic as well.
//! What these locks guard is consistent after each statement.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks, also after a panic of the thread that had the lock.
#[expect(clippy::disallowed_methods, reason = "the one place where it is allowed")]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading, also after a panic of the thread that had the lock.
#[expect(clippy::disallowed_methods, reason = "the one place where it is allowed")]
pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing, also after a panic of the thread that had the lock.
#[expect(clippy::disallowed_methods, reason = "the one place where it is allowed")]
pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
