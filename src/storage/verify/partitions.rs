//! Work that is cut into pieces: one task cuts, each connection takes the next piece.

use std::sync::Arc;

use sea_orm::DatabaseTransaction;
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinError, JoinSet},
};

use crate::storage::verify::error::VerifyError;
use crate::{domain::verification::LedgerTotals, storage::StorageError};

/// Above every id in the order of bytes: the last character of Unicode.
pub const LAST: &str = "\u{10ffff}";
/// Pieces that are cut ahead, for each connection: cutting is little work, and nobody should
/// wait for it.
const AHEAD: usize = 2;

/// Has every piece done, each on the next connection that is free, and adds up what was found. Of
/// several faults, that of the first piece is returned.
///
/// `cut` puts the pieces into the channel, in order, until it is closed.
pub async fn share<P, Cutting, Do, Doing>(
    connections: &[Arc<DatabaseTransaction>],
    cut: impl FnOnce(Arc<DatabaseTransaction>, mpsc::Sender<P>) -> Cutting,
    work: Do,
) -> Result<LedgerTotals, VerifyError>
where
    P: Send + 'static,
    Cutting: Future<Output = Result<(), VerifyError>> + Send + 'static,
    Do: Fn(Arc<DatabaseTransaction>, P) -> Doing + Clone + Send + Sync + 'static,
    Doing: Future<Output = Result<LedgerTotals, VerifyError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(connections.len() * AHEAD);
    // With the number of pieces that were taken.
    let receiver = Arc::new(Mutex::new((0_u64, receiver)));
    let cutting = tokio::spawn(cut(connections[0].clone(), sender));
    let mut workers = JoinSet::new();
    for connection in connections {
        let (connection, receiver, work) = (connection.clone(), receiver.clone(), work.clone());
        workers.spawn(async move {
            let mut books = LedgerTotals::default();
            loop {
                let (number, piece) = {
                    let mut receiver = receiver.lock().await;
                    receiver.0 += 1;
                    let Some(piece) = receiver.1.recv().await else { return Ok(books) };
                    (receiver.0, piece)
                };
                let done = work(connection.clone(), piece).await;
                if let Err(error) = done.and_then(|found| Ok(books.add(found)?)) {
                    // The others finish what they have: a piece before this one may have a fault.
                    receiver.lock().await.1.close();
                    return Err((number, error));
                }
            }
        });
    }
    let mut books = LedgerTotals::default();
    let mut first: Option<(u64, VerifyError)> = None;
    while let Some(worker) = workers.join_next().await {
        match worker.map_err(broken_off)? {
            Ok(found) => books.add(found)?,
            Err(error) if first.as_ref().is_none_or(|first| error.0 < first.0) => {
                first = Some(error);
            }
            Err(_) => {}
        }
    }
    let cut = cutting.await.map_err(broken_off)?;
    first.map_or(Ok(()), |(_, error)| Err(error)).and(cut).map(|()| books)
}

fn broken_off(error: JoinError) -> VerifyError {
    StorageError::Unavailable(format!("a part of the verification broke off: {error}")).into()
}
