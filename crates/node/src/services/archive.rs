//! The archive of the account as a stream of pieces.

use dunlin_base::passphrase::Cost;
use dunlin_proto::dunlin::device::v1::ExportReply;
use dunlin_proto::protocol::service_export_data::Reply;
use dunlin_wesh::archive::{ArchivePart, SealedArchiveError, Sealer};
use dunlin_wesh::engine::{App, CommandError, Export};
use rand_core::OsRng;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use zeroize::Zeroizing;

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
    let parts = Parts::begin(node).await?;
    let (replies, stream) = mpsc::channel(PIECES_WAITING_MAX);
    let writer = Writer { replies, reply: |data: &[u8]| Reply { exported_data: data.to_vec() } };
    tokio::spawn(write(parts, writer));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Starts to write the archive under a passphrase.
pub(super) async fn sealed_export<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    passphrase: Zeroizing<String>,
) -> Result<Replies<ExportReply>, Status> {
    let parts = Parts::begin(node).await?;
    // A passphrase is made slow to try on purpose.
    let sealer =
        tokio::task::spawn_blocking(move || Sealer::new(&passphrase, Cost::CHOSEN, &mut OsRng)).await;
    let sealer = sealer
        .map_err(|_| Status::internal("the work was not finished"))?
        .map_err(|error| sealing(&error))?;
    let (replies, stream) = mpsc::channel(PIECES_WAITING_MAX);
    let writer = Writer { replies, reply: |data: &[u8]| ExportReply { data: data.to_vec() } };
    tokio::spawn(write_sealed(parts, sealer, writer));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// The archive, part after part.
struct Parts<A: App> {
    node: NodeHandle<A>,
    export: Option<Export>,
}

impl<A: App + Send + 'static> Parts<A> {
    async fn begin(node: &NodeHandle<A>) -> Result<Self, Status> {
        let begun = node.view(|read, engine, _| Ok::<_, CommandError>(engine.dangerous_export(read)?));
        let export = begun.await.map_err(|error| status_of(&error))?;
        Ok(Self { node: node.clone(), export: Some(export) })
    }

    /// The next part; `None` at the end.
    async fn next(&mut self) -> Result<Option<ArchivePart>, Status> {
        let Some(mut export) = self.export.take() else { return Ok(None) };
        let written = self.node.view(move |read, engine, _| {
            let part = export.next_part(engine, read)?;
            Ok((export, part))
        });
        let written: Result<_, CallError<CommandError>> = written.await;
        let (rest, part) = written.map_err(|error| status_of(&error))?;
        self.export = part.is_some().then_some(rest);
        Ok(part)
    }
}

/// Where pieces go.
struct Writer<R, F> {
    replies: mpsc::Sender<Result<R, Status>>,
    reply: F,
}

/// Nobody reads any more, or what came has an end that was told.
struct Ended;

impl<R, F: Fn(&[u8]) -> R> Writer<R, F> {
    async fn put(&self, data: &[u8]) -> Result<(), Ended> {
        for piece in data.chunks(PIECE_BYTES_MAX) {
            self.replies.send(Ok((self.reply)(piece))).await.map_err(|_| Ended)?;
        }
        Ok(())
    }

    /// Gives what there is, or ends with the reason why there is nothing.
    async fn expect<T>(&self, result: Result<T, Status>) -> Result<T, Ended> {
        match result {
            Ok(value) => Ok(value),
            Err(status) => {
                // A reader that is gone needs no cause.
                let _ = self.replies.send(Err(status)).await;
                Err(Ended)
            }
        }
    }
}

/// Writes part after part until the archive ends or nobody reads it.
async fn write<A: App + Send + 'static, R, F: Fn(&[u8]) -> R>(
    mut parts: Parts<A>,
    writer: Writer<R, F>,
) -> Result<(), Ended> {
    while let Some(part) = writer.expect(parts.next().await).await? {
        writer.put(part.as_bytes()).await?;
    }
    Ok(())
}

/// The same, sealed. A file that breaks off has no end, which its reader sees.
async fn write_sealed<A: App + Send + 'static, R, F: Fn(&[u8]) -> R>(
    mut parts: Parts<A>,
    mut sealer: Sealer,
    writer: Writer<R, F>,
) -> Result<(), Ended> {
    writer.put(sealer.head()).await?;
    while let Some(part) = writer.expect(parts.next().await).await? {
        let sealed = sealer.seal(part.as_bytes()).map_err(|error| sealing(&error));
        writer.put(&writer.expect(sealed).await?).await?;
    }
    let end = sealer.finish().map_err(|error| sealing(&error));
    writer.put(&writer.expect(end).await?).await
}

fn sealing(error: &SealedArchiveError) -> Status {
    Status::internal(error.to_string())
}
