//! Calls: what services ask those of all other nodes, in the words of a protocol.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::lists::letters::MeshRequest;
use crate::mail::UnboundedSender;

/// Lets the sidecars of all other nodes answer; gives the answers that came in time.
pub async fn call(
    mesh: &UnboundedSender<MeshRequest>,
    method: &'static str,
    body: Bytes,
) -> Vec<Bytes> {
    let (answer, answers) = oneshot::channel();
    mesh.send(MeshRequest::Call { method, body, answer });
    // Fails only when the process ends.
    answers.await.unwrap_or_default()
}
