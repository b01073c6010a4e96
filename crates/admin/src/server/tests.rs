use super::*;
use crate::client::{AskError, ask_over};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// Answers with what it was asked.
struct Echo;

impl Api for Echo {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        match question {
            Question::Metrics => Ok(Answer::Metrics("up 1\n".into())),
            Question::StateHash => Err(Refusal::elsewhere("b", "ask node b")),
            other => Ok(Answer::Json(format!("{other:?}").into())),
        }
    }
}

fn connect(scope: Scope) -> DuplexStream {
    let (ours, theirs) = duplex(1 << 20);
    tokio::spawn(serve_connection(theirs, Arc::new(Echo), scope));
    ours
}

/// Sends bytes, and gives what comes until the end. `last`: says that no more will follow, whereupon a request
/// under way is dropped.
async fn raw(bytes: &[u8], last: bool) -> String {
    let mut io = connect(Scope::All);
    io.write_all(bytes).await.unwrap();
    if last {
        io.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    // A peer that is hung up on sees what was said before.
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn questions_arrive_as_they_were_asked_and_refusals_come_back() {
    let questions = [
        Question::Status { node: None },
        Question::Status {
            node: Some("b-1.x_y".into()),
        },
        Question::Node,
        Question::Move(MoveRequest {
            service: None,
            to: Some("b".into()),
            force: false,
        }),
        Question::Standby(StandbyRequest {
            node: "c".into(),
            standby: true,
            force: false,
        }),
    ];
    for question in questions {
        let answer = ask_over(connect(Scope::All), &question).await.unwrap();
        let answer: String = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer, format!("{question:?}"));
    }
    let refused = ask_over(connect(Scope::All), &Question::StateHash).await;
    let Err(AskError::Refused(refusal)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal, Refusal::elsewhere("b", "ask node b"));
}

#[tokio::test]
async fn a_listener_for_metrics_carries_nothing_else() {
    let metrics = ask_over(connect(Scope::Metrics), &Question::Metrics).await;
    assert_eq!(metrics.unwrap(), "up 1\n");
    for question in [
        Question::Status { node: None },
        Question::Move(MoveRequest::default()),
    ] {
        let refused = ask_over(connect(Scope::Metrics), &question).await;
        let Err(AskError::Refused(refusal)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(refusal.kind, RefusalKind::Forbidden);
    }
}

#[tokio::test]
async fn between_members_goes_what_only_the_other_can_do() {
    let standby = StandbyRequest {
        node: "b".into(),
        standby: true,
        force: true,
    };
    let node = Some("b".into());
    for (question, passes) in [
        (Question::Status { node: None }, true),
        (Question::Status { node }, true),
        (Question::Move(MoveRequest::default()), true),
        (Question::Standby(standby), true),
        (Question::Node, false),
        (Question::StateHash, false),
        (Question::Metrics, false),
        (Question::Nodes, false),
        (Question::Token(TokenRequest { hours: 1 }), false),
        (
            Question::RemoveNode(RemoveRequest { node: "b".into() }),
            false,
        ),
    ] {
        match ask_over(connect(Scope::Members), &question).await {
            Ok(_) => assert!(passes, "{question:?}"),
            Err(AskError::Refused(refusal)) => {
                assert!(!passes, "{question:?}: {refusal}");
                assert_eq!(refusal.kind, RefusalKind::Forbidden, "{question:?}");
            }
            Err(why) => panic!("{question:?}: {why}"),
        }
    }
}

#[tokio::test]
async fn whose_view_is_asked_for_must_be_a_name() {
    let close = "HTTP/1.1\r\nHost: haven\r\nConnection: close\r\n\r\n";
    for query in ["", "node", "node=", "nodes=b", "node=b&node=c", "node=%62"] {
        let answer = raw(format!("GET /v1/status?{query} {close}").as_bytes(), false).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{query}: {answer}");
    }
    let node = Some("b c/../\r\n".to_owned());
    let refused = ask_over(connect(Scope::All), &Question::Status { node }).await;
    assert!(matches!(refused, Err(AskError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn what_is_too_large_or_makes_no_sense_is_refused() {
    let head = |length: usize| {
        format!(
            "POST /v1/move HTTP/1.1\r\nHost: haven\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let header = "y".repeat(HEAD_BYTES_MAX);
    for (request, status) in [
        (head(large.len()) + &large, "400"),
        (head(7) + "{\"a\":1}", "400"),
        (head(3) + "\0\0\0", "400"),
        (
            "GET /v2 HTTP/1.1\r\nHost: haven\r\nConnection: close\r\n\r\n".into(),
            "404",
        ),
        (
            "DELETE /v1/status HTTP/1.1\r\nHost: haven\r\nConnection: close\r\n\r\n".into(),
            "404",
        ),
        (
            format!("GET /metrics HTTP/1.1\r\nA: {header}\r\n\r\n"),
            "431",
        ),
    ] {
        let answer = raw(request.as_bytes(), false).await;
        let expect = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expect), "{status}: {answer}");
    }
    // A line of today's predecessor, and bytes that are no HTTP at all.
    for garbage in [&b"\"status\"\n"[..], &[0xff; 64]] {
        let answer = raw(garbage, true).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_hung_up_on() {
    let mut io = connect(Scope::All);
    io.write_all(b"GET /metrics HTT").await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(CONNECTION_LIFE * 2, io.read_to_end(&mut answer)).await;
    read.expect("the server ends the connection").unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

/// Answers with more than a peer that does not read takes; a state hash only when it is told to.
struct Slow(Arc<tokio::sync::Notify>);

impl Api for Slow {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        if question == Question::StateHash {
            self.0.notified().await;
        }
        Ok(Answer::Metrics("x".repeat(4096)))
    }
}

/// Where connections come from in these tests: their other ends.
struct Queue(tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<DuplexStream>>);

impl Listener for Queue {
    type Io = DuplexStream;
    async fn accept(&self) -> io::Result<DuplexStream> {
        match self.0.lock().await.recv().await {
            Some(io) => Ok(io),
            None => std::future::pending().await,
        }
    }
}

const PLACES: usize = 3;

struct Scene {
    come: tokio::sync::mpsc::UnboundedSender<DuplexStream>,
    go_on: Arc<tokio::sync::Notify>,
}

impl Scene {
    fn new() -> Self {
        let (come, came) = tokio::sync::mpsc::unbounded_channel();
        let go_on: Arc<tokio::sync::Notify> = Arc::default();
        let api = Arc::new(Slow(Arc::clone(&go_on)));
        let queue = Queue(tokio::sync::Mutex::new(came));
        tokio::spawn(serve(queue, api, Scope::All, PLACES));
        Self { come, go_on }
    }

    /// A connection on which nobody can send much that is not taken.
    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = duplex(64);
        self.come.send(theirs).unwrap();
        ours
    }

    async fn ask(&self, path: &str) -> DuplexStream {
        let mut io = self.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        io
    }
}

async fn rest(mut io: DuplexStream) -> String {
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Lets everything happen that can without time passing.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_takes_no_answer_keeps_nobody_out() {
    let scene = Scene::new();
    let mut idle = Vec::new();
    for round in 0..4 * PLACES {
        let begun = tokio::time::Instant::now();
        idle.push(match round % 2 {
            0 => scene.connect(),
            _ => scene.ask("/metrics").await,
        });
        settle().await;
        let answer = rest(scene.ask("/metrics").await).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.len() > 4096);
        // For the one that came before it, and for itself.
        let waited = begun.elapsed();
        assert!(waited <= 2 * places::GRACE, "{waited:?}");
    }
    // Those that gave way see it; no more than there are places are left.
    settle().await;
    let mut left = 0;
    for mut io in idle {
        let mut byte = [0; 256];
        let ended = async { while io.read(&mut byte).await.is_ok_and(|n| n > 0) {} };
        left += usize::from(timeout(Duration::from_millis(1), ended).await.is_err());
    }
    assert!(left < PLACES, "{left}");
}

#[tokio::test(start_paused = true)]
async fn whose_question_is_being_answered_keeps_its_place_and_others_wait() {
    let scene = Scene::new();
    let mut asked = Vec::new();
    for _ in 0..PLACES {
        asked.push(scene.ask("/v1/state-hash").await);
        settle().await;
    }
    let mut late = scene.ask("/metrics").await;
    settle().await;
    let early = timeout(Duration::from_secs(1), late.read(&mut [0; 1])).await;
    assert!(
        early.is_err(),
        "somebody lost a place while it was answered"
    );
    scene.go_on.notify_one();
    // The one that was answered takes its time to read: its place is free all the same.
    let answer = rest(late).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for io in asked {
        scene.go_on.notify_one();
        settle().await;
        drop(io);
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_answer_is_hung_up_on_after_a_while() {
    let scene = Scene::new();
    let io = scene.ask("/metrics").await;
    settle().await;
    tokio::time::sleep(places::PEER_PATIENCE + Duration::from_secs(1)).await;
    settle().await;
    let answer = rest(io).await;
    assert!(answer.len() < 4096, "the rest is not sent any more");
}

#[tokio::test(start_paused = true)]
async fn who_came_a_moment_ago_is_not_taken_for_slow() {
    let scene = Scene::new();
    let mut all = Vec::new();
    for _ in 0..3 * PLACES {
        all.push(tokio::spawn(rest(scene.ask("/metrics").await)));
    }
    for one in all {
        let answer = one.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
}
