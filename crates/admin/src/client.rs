//! Asks a node, one question a connection.
//!
//! Must not know: which node is which, what answers mean.

use crate::server;
use crate::types::{
    ClusterStatus, MoveRequest, NodeReport, NodeRow, Question, Refusal, RefusalKind, RemoveRequest,
    StandbyRequest, StateHash, TokenRequest,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot reach a node at {at} ({why}); is `haven serve` running there?")]
    Unreachable {
        /// Where.
        at: String,
        /// What the system says.
        why: String,
    },
    /// Somebody listens, but does not answer, or not sensibly.
    #[error("the node at {at} does not answer: {why}")]
    Silent {
        /// Where.
        at: String,
        /// Why not.
        why: String,
    },
    /// The node refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Asks a node over its control socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    /// A client of the node with this socket, which may take so long for an answer.
    pub fn unix(socket: &Path, patience: Duration) -> Self {
        Self {
            socket: socket.to_owned(),
            patience,
        }
    }

    /// The cluster as this node sees it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        self.json(&Question::Status { node: None }).await
    }

    /// The cluster as the named node sees it; this one asks it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status_of(&self, node: &str) -> Result<ClusterStatus, ClientError> {
        let node = Some(node.to_owned());
        self.json(&Question::Status { node }).await
    }

    /// The node itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn node(&self) -> Result<NodeReport, ClientError> {
        self.json(&Question::Node).await
    }

    /// A hash of the whole replicated state.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn state_hash(&self) -> Result<StateHash, ClientError> {
        self.json(&Question::StateHash).await
    }

    /// Its metrics, as text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let body = self.ask(&Question::Metrics).await?;
        String::from_utf8(body.to_vec()).map_err(|e| self.silent(&e))
    }

    /// Moves the service by plan, and waits for that. Gives the name of the node that leads now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn move_service(&self, request: MoveRequest) -> Result<String, ClientError> {
        self.json(&Question::Move(request)).await
    }

    /// Says whether a node may lead.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn standby(&self, request: StandbyRequest) -> Result<(), ClientError> {
        self.json(&Question::Standby(request)).await
    }

    /// A token with which one machine may join.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn token(&self, request: TokenRequest) -> Result<String, ClientError> {
        self.json(&Question::Token(request)).await
    }

    /// Who belongs to the cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, ClientError> {
        self.json(&Question::Nodes).await
    }

    /// Ends a node's membership; returns when it has ended.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_node(&self, request: RemoveRequest) -> Result<(), ClientError> {
        self.json(&Question::RemoveNode(request)).await
    }

    async fn json<T: DeserializeOwned>(&self, question: &Question) -> Result<T, ClientError> {
        let body = self.ask(question).await?;
        serde_json::from_slice(&body).map_err(|e| self.silent(&e))
    }

    async fn ask(&self, question: &Question) -> Result<Bytes, ClientError> {
        let exchange = async {
            let io = UnixStream::connect(&self.socket).await;
            let io = io.map_err(|why| ClientError::Unreachable {
                at: self.at(),
                why: why.to_string(),
            })?;
            ask_over(io, question).await.map_err(|why| match why {
                AskError::Refused(refusal) => ClientError::Refused(refusal),
                AskError::Broken(why) => self.silent(&why),
            })
        };
        timeout(self.patience, exchange)
            .await
            .unwrap_or_else(|_| Err(self.silent(&format!("nothing within {:?}", self.patience))))
    }

    fn at(&self) -> String {
        self.socket.display().to_string()
    }

    fn silent(&self, why: &impl ToString) -> ClientError {
        ClientError::Silent {
            at: self.at(),
            why: why.to_string(),
        }
    }
}

/// Why a question over a connection has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The node refuses.
    #[error(transparent)]
    Refused(Refusal),
    /// The connection, or what came over it.
    #[error("{0}")]
    Broken(String),
}

fn broken(why: impl ToString) -> AskError {
    AskError::Broken(why.to_string())
}

/// Asks one question over a connection, and gives the body of the answer. Does not watch the time.
///
/// # Errors
/// See [`AskError`].
pub async fn ask_over(
    io: impl AsyncRead + AsyncWrite + Unpin + Send,
    question: &Question,
) -> Result<Bytes, AskError> {
    let request = request(question)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(broken)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body.await.map_err(broken)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => AskError::Refused(refusal),
            Err(_) => AskError::Refused(Refusal::failed(status.to_string())),
        })
    };
    // The connection does the work; the exchange has what is wanted before it ends.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

fn request(question: &Question) -> Result<Request<Full<Bytes>>, AskError> {
    let get = |path: &str| Ok((Method::GET, path.to_owned(), Bytes::new()));
    let (method, path, body) = match question {
        Question::Status { node: None } => get("/v1/status"),
        Question::Status { node: Some(node) } if server::is_name(node) => {
            get(&format!("/v1/status?node={node}"))
        }
        Question::Status { node: Some(node) } => {
            let why = format!("\"{}\" is no node's name", node.escape_default());
            return Err(AskError::Refused(Refusal::new(RefusalKind::NotFound, why)));
        }
        Question::Node => get("/v1/node"),
        Question::StateHash => get("/v1/state-hash"),
        Question::Metrics => get("/metrics"),
        Question::Move(request) => post("/v1/move", request),
        Question::Standby(request) => post("/v1/standby", request),
        Question::Token(request) => post("/v1/token", request),
        Question::Nodes => get("/v1/nodes"),
        Question::RemoveNode(request) => post("/v1/nodes/remove", request),
    }?;
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "haven")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(broken)
}

fn post(path: &str, body: &impl Serialize) -> Result<(Method, String, Bytes), AskError> {
    let body = serde_json::to_vec(body).map_err(broken)?;
    Ok((Method::POST, path.to_owned(), Bytes::from(body)))
}
