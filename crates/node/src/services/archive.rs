//! The archive of the account as a stream of pieces.

use dunlin_proto::protocol::service_export_data::Reply;
use dunlin_wesh::engine::{App, CommandError, Export};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::lists::Replies;
use super::status::status_of;
use crate::{CallError, NodeHandle};

/// Longest piece, in bytes: sixteen times that of the existing service, and far below what gRPC takes.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Pieces that may wait for a slow client before the log is read on.
const PIECES_WAITING_MAX: usize = 16;

/// Starts to write the archive. The node goes on with other work between its parts.
///
/// Dangerous, because whoever reads it is the account.
pub(super) async fn dangerous_export<A: App + Send + 'static>(
    node: &NodeHandle<A>,
) -> Result<Replies<Reply>, Status> {
    let begun = node.view(|read, engine, _| Ok::<_, CommandError>(engine.dangerous_export(read)?));
    let export = begun.await.map_err(|error| status_of(&error))?;
    let (replies, stream) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(write(node.clone(), export, replies));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Writes part after part until the archive ends or nobody reads it.
async fn write<A: App + Send + 'static>(
    node: NodeHandle<A>,
    mut export: Export,
    replies: mpsc::Sender<Result<Reply, Status>>,
) {
    loop {
        let written = node.view(move |read, engine, _| {
            let part = export.next_part(engine, read)?;
            Ok((export, part))
        });
        let part: Result<_, CallError<CommandError>> = written.await;
        let part = match part {
            Ok((_, None)) => return,
            Ok((rest, Some(part))) => {
                export = rest;
                part
            }
            Err(error) => {
                // A reader that is gone needs no cause.
                let _ = replies.send(Err(status_of(&error))).await;
                return;
            }
        };
        for piece in part.as_bytes().chunks(PIECE_BYTES_MAX) {
            if replies.send(Ok(Reply { exported_data: piece.to_vec() })).await.is_err() {
                return;
            }
        }
    }
}
