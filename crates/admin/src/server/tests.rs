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
