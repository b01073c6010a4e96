//! The router: HTTP/1.1 with JSON over any connection.
//!
//! Invariants: everything a peer can make this process keep is bounded: connections, time, the head and the body
//! of a request. A request that this listener may not carry ([`Scope`]) is refused before it is looked at. A peer that is
//! slow, or says nothing, keeps nobody out (`places`).
//!
//! Must not know: answers, who listens where.

use crate::types::{
    MoveRequest, Question, Refusal, RefusalKind, RemoveRequest, StandbyRequest, TokenRequest,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

mod places;

use places::{Activity, Places, Watched};

/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// How long a request's head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request's body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take (a state hash reads everything).
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// How long a connection may live, whatever it does.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// Pause after the system could not accept a connection (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What Prometheus asks for, and `prometheus-client` writes.
const METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Answers questions.
pub trait Api: Send + Sync + 'static {
    /// Answers one: JSON, or the text of the metrics. Dropped when the asker goes away.
    fn answer(&self, question: Question) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A JSON value.
    Json(serde_json::Value),
    /// The text exposition of metrics.
    Metrics(String),
}

impl Answer {
    /// Of something that can be written as JSON.
    ///
    /// # Errors
    /// When it cannot.
    pub fn json(value: &impl Serialize) -> Result<Self, Refusal> {
        serde_json::to_value(value)
            .map(Self::Json)
            .map_err(|e| Refusal::failed(e.to_string()))
    }
}

/// What a listener may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: those who can connect may operate the cluster.
    All,
    /// What one member brings another because only that one can do it: `/v1/status`, `POST /v1/move` and
    /// `POST /v1/standby`. The rest every member answers for its own operator. Above all tokens and the removal of
    /// nodes, which decide who belongs to the cluster: they need no second way. And reading the whole state for its
    /// hash is work that nobody orders from afar.
    Members,
    /// `GET /metrics` and nothing else.
    Metrics,
}

/// Serves one connection until it ends, its time is over or its peer is idle for too long. The other end going away in
/// the middle is its own business.
pub async fn serve_connection<A: Api>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    api: Arc<A>,
    scope: Scope,
) {
    let activity = Arc::new(Activity::new(Arc::default()));
    serve_watched(io, api, scope, activity).await;
}

async fn serve_watched<A: Api>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    api: Arc<A>,
    scope: Scope,
    activity: Arc<Activity>,
) {
    let of = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let (api, activity) = (Arc::clone(&api), Arc::clone(&of));
        async move { Ok::<_, Infallible>(respond(request, &*api, scope, &activity).await) }
    });
    let watched = Watched {
        io,
        activity: Arc::clone(&activity),
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(watched), service);
    tokio::select! {
        _ = timeout(CONNECTION_LIFE, connection) => {}
        () = activity.stalled() => {}
    }
}

/// Accepts connections for ever, at most so many at a time: see `places`.
pub async fn serve<A, L>(listener: L, api: Arc<A>, scope: Scope, connections_max: usize)
where
    A: Api,
    L: Listener,
{
    let places = Places::new(connections_max);
    loop {
        let Ok(io) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let place = places.take().await;
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let activity = Arc::clone(&place.activity);
            tokio::select! {
                () = serve_watched(io, api, scope, activity) => {}
                () = place.given_way() => {}
            }
        });
    }
}

/// Somewhere connections come from.
pub trait Listener: Send {
    /// One connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Waits for the next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<Self::Io> {
        self.accept().await.map(|(io, _)| io)
    }
}

impl Listener for tokio::net::TcpListener {
    type Io = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<Self::Io> {
        self.accept().await.map(|(io, _)| io)
    }
}

async fn respond<A: Api>(
    request: Request<Incoming>,
    api: &A,
    scope: Scope,
    activity: &Activity,
) -> Response<Full<Bytes>> {
    let answered = async {
        let question = read(request, scope).await?;
        let _answering = activity.answering();
        timeout(ANSWER_PATIENCE, api.answer(question))
            .await
            .unwrap_or_else(|_| {
                let why = format!("no answer within {ANSWER_PATIENCE:?}; it may still be done");
                Err(Refusal::failed(why))
            })
    };
    let (status, kind, body) = match answered.await {
        Ok(Answer::Json(value)) => (StatusCode::OK, JSON, value.to_string()),
        Ok(Answer::Metrics(text)) => (StatusCode::OK, METRICS, text),
        Err(refusal) => {
            let body = serde_json::to_string(&refusal).unwrap_or_default();
            (status_of(refusal.kind), JSON, body)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

const fn status_of(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::Bad => StatusCode::BAD_REQUEST,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Forbidden => StatusCode::FORBIDDEN,
        RefusalKind::Elsewhere => StatusCode::MISDIRECTED_REQUEST,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Failed => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn read(request: Request<Incoming>, scope: Scope) -> Result<Question, Refusal> {
    let (head, body) = request.into_parts();
    let (method, path) = (head.method, head.uri.path().to_owned());
    check_scope(scope, &method, &path)?;
    match (method, path.as_str()) {
        (Method::GET, "/v1/status") => Ok(Question::Status {
            node: head.uri.query().map(node_in).transpose()?,
        }),
        (Method::GET, "/v1/node") => Ok(Question::Node),
        (Method::GET, "/v1/state-hash") => Ok(Question::StateHash),
        (Method::GET, "/metrics") => Ok(Question::Metrics),
        (Method::POST, "/v1/move") => json::<MoveRequest>(body).await.map(Question::Move),
        (Method::POST, "/v1/standby") => json::<StandbyRequest>(body).await.map(Question::Standby),
        (Method::POST, "/v1/token") => json::<TokenRequest>(body).await.map(Question::Token),
        (Method::GET, "/v1/nodes") => Ok(Question::Nodes),
        (Method::POST, "/v1/nodes/remove") => {
            json::<RemoveRequest>(body).await.map(Question::RemoveNode)
        }
        (method, path) => {
            let why = format!("there is no {method} {path}");
            Err(Refusal::new(RefusalKind::NotFound, why))
        }
    }
}

fn check_scope(scope: Scope, method: &Method, path: &str) -> Result<(), Refusal> {
    let (carries, only) = match scope {
        Scope::All => return Ok(()),
        Scope::Members => (
            [
                (Method::GET, "/v1/status"),
                (Method::POST, "/v1/move"),
                (Method::POST, "/v1/standby"),
            ]
            .contains(&(method.clone(), path)),
            "between nodes there is what only the node asked can do; say it on its own control socket",
        ),
        Scope::Metrics => (
            method == Method::GET && path == "/metrics",
            "this listener has GET /metrics only",
        ),
    };
    match carries {
        true => Ok(()),
        false => Err(Refusal::new(RefusalKind::Forbidden, only)),
    }
}

/// The node that a query names.
fn node_in(query: &str) -> Result<String, Refusal> {
    let name = query.strip_prefix("node=").filter(|name| is_name(name));
    name.map(str::to_owned).ok_or_else(|| {
        let why = "the query is node=NAME, where letters, digits, -, _ and . make a name";
        Refusal::new(RefusalKind::Bad, why)
    })
}

/// Whether this can be a node's name, which needs no escaping anywhere.
pub(crate) fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(legal)
}

async fn json<T: DeserializeOwned>(
    body: impl Body<Data = Bytes, Error = hyper::Error>,
) -> Result<T, Refusal> {
    let bad = |why: String| Refusal::new(RefusalKind::Bad, why);
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = timeout(BODY_PATIENCE, body)
        .await
        .map_err(|_| bad("the request's body takes too long".into()))?
        .map_err(|e| bad(format!("the request's body: {e}")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| bad(format!("the request's body: {e}")))
}

#[cfg(test)]
mod tests;
